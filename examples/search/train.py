"""Learn to read handwritten digits with a small neural network, and report its accuracy.

The data set comes with scikit-learn. The accuracy is reported by a POST request, without a client package. Outside a
container nothing is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from urllib.request import Request, urlopen

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

TEST = 500  # the last images test the network


def main() -> None:
    options = parse_arguments()
    warnings.simplefilter("ignore", ConvergenceWarning)
    images, digits = load_digits(return_X_y=True)
    images /= 16
    model = MLPClassifier(
        hidden_layer_sizes=(options.units,),
        activation=options.activation,
        learning_rate_init=options.lr,
        batch_size=64,
        random_state=options.seed,
    )
    for epoch in range(1, options.epochs + 1):
        model.partial_fit(images[:-TEST], digits[:-TEST], classes=range(10))
        accuracy = float(model.score(images[-TEST:], digits[-TEST:]))
        print(f"epoch {epoch:3d}  accuracy {accuracy:.4f}")
        if epoch == options.epochs or epoch % options.every == 0:
            report(accuracy=accuracy)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate")
    parser.add_argument("--units", type=int, default=32, help="size of the hidden layer")
    parser.add_argument("--activation", default="relu", help="activation function of the hidden layer")
    parser.add_argument("--epochs", type=int, default=8, help="passes over all images")
    parser.add_argument("--every", type=int, default=5, help="epochs between two reports")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same network")
    return parser.parse_args()


def report(**values: float) -> None:
    """POST …/experiments/{id}/metrics/. The environment contains the URL and the token."""
    if "POLYAXON_EXPERIMENT_INFO" not in os.environ:
        return
    user, project, *_, number = json.loads(os.environ["POLYAXON_EXPERIMENT_INFO"])["experiment_name"].split(".")
    host = os.environ["POLYAXON_API_HTTP_HOST"]
    headers = {
        "Authorization": f"Token {os.environ['POLYAXON_SECRET_USER_TOKEN']}",
        "Content-Type": "application/json",
    }
    url = f"{host}/api/v1/{user}/{project}/experiments/{number}/metrics/"
    urlopen(Request(url, json.dumps({"values": values}).encode(), headers), timeout=60).close()


if __name__ == "__main__":
    main()
