"""Train a small neural network in plain Python to separate two interleaved half-moons.

It needs no downloads and no packages.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import urllib.request
from collections.abc import Callable
from pathlib import Path

Point = tuple[float, float, int]
Metrics = dict[str, float]


def main() -> None:
    options = parse_arguments()
    report = reporter()
    generator = random.Random(options.seed)
    points = [moon(generator, options.noise) for _ in range(800)]
    train, test = points[:600], points[600:]
    network = Network(options.units, generator)
    print(f"{len(train)} points to learn from, {len(test)} to test on; lr {options.lr:g}, {options.units} units")

    metrics: Metrics = {}
    for epoch in range(1, options.epochs + 1):
        generator.shuffle(train)
        for point in train:
            network.learn(point, options.lr)
        metrics = {"loss": network.loss(test), "accuracy": network.accuracy(test)}
        print(f"epoch {epoch:3d}  loss {metrics['loss']:.4f}  accuracy {metrics['accuracy']:.4f}")
        if epoch % 5 == 0 or epoch == options.epochs:
            report(metrics)

    outputs = Path(os.environ.get("POLYAXON_RUN_OUTPUTS_PATH", "outputs"))
    outputs.mkdir(parents=True, exist_ok=True)
    (outputs / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (outputs / "network.json").write_text(json.dumps(vars(network)) + "\n")
    print(f"wrote metrics.json, network.json to {outputs}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate")
    parser.add_argument("--units", type=int, default=8, help="size of the hidden layer")
    parser.add_argument("--epochs", type=int, default=30, help="passes over all points")
    parser.add_argument("--noise", type=float, default=0.15, help="standard deviation of the noise")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same network")
    return parser.parse_args()


def moon(generator: random.Random, noise: float) -> Point:
    """A point on the upper (label 1) or the lower half-moon (label 0), with its label."""
    angle, label = generator.uniform(0, math.pi), generator.randrange(2)
    x, y = (math.cos(angle), math.sin(angle)) if label else (1 - math.cos(angle), 0.5 - math.sin(angle))
    return x + generator.gauss(0, noise), y + generator.gauss(0, noise), label


class Network:
    """A neural network with two inputs, one hidden layer and one output, a probability."""

    def __init__(self, units: int, generator: random.Random) -> None:
        self.hidden = [[generator.gauss(0, 1) for _ in range(3)] for _ in range(units)]
        self.output = [generator.gauss(0, 1 / math.sqrt(units)) for _ in range(units + 1)]

    def probability(self, x: float, y: float) -> tuple[float, list[float]]:
        """The probability that the point is on the upper moon, and the values of the hidden units."""
        hidden = [math.tanh(a * x + b * y + c) for a, b, c in self.hidden] + [1.0]
        total = sum(weight * value for weight, value in zip(self.output, hidden, strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, total)))), hidden

    def learn(self, point: Point, lr: float) -> None:
        """Take one step of gradient descent for this point."""
        x, y, label = point
        probability, hidden = self.probability(x, y)
        error = probability - label
        for unit, weights in enumerate(self.hidden):
            slope = error * self.output[unit] * (1 - hidden[unit] ** 2)
            for index, value in enumerate((x, y, 1.0)):
                weights[index] -= lr * slope * value
        self.output = [weight - lr * error * value for weight, value in zip(self.output, hidden, strict=True)]

    def loss(self, points: list[Point]) -> float:
        certainties = (self.probability(x, y)[0] if label else 1 - self.probability(x, y)[0] for x, y, label in points)
        return sum(-math.log(max(certainty, 1e-12)) for certainty in certainties) / len(points)

    def accuracy(self, points: list[Point]) -> float:
        return sum((self.probability(x, y)[0] > 0.5) == bool(label) for x, y, label in points) / len(points)


def reporter() -> Callable[[Metrics], None]:
    """A function that reports metrics: with polyaxon-client if it is installed, otherwise by a POST request."""
    if "POLYAXON_EXPERIMENT_INFO" not in os.environ:
        return lambda metrics: None  # not an experiment
    try:
        from polyaxon_client.tracking import Experiment
    except ImportError:
        return post
    experiment = Experiment()
    return lambda metrics: experiment.log_metrics(**metrics)


def post(metrics: Metrics) -> None:
    """Send the same request as polyaxon-client."""
    run = json.loads(os.environ["POLYAXON_EXPERIMENT_INFO"])
    owner, project = run["project_name"].split(".")
    number = run["experiment_name"].split(".")[-1]
    url = f"{os.environ['POLYAXON_API_HTTP_HOST']}/api/v1/{owner}/{project}/experiments/{number}/metrics/"
    token = os.environ["POLYAXON_SECRET_USER_TOKEN"]
    headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
    body = json.dumps([{"values": metrics}]).encode()
    urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30).close()


if __name__ == "__main__":
    main()
