"""Train a random forest to read handwritten digits. It grows step by step and is measured after every step.

The data set comes with scikit-learn: 1797 images of 8 x 8 pixels. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
from matplotlib.figure import Figure
from numpy import ndarray
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, f1_score
from sklearn.model_selection import train_test_split


def main() -> None:
    options = parse_arguments()
    outputs = Path(os.environ.get("POLYAXON_RUN_OUTPUTS_PATH", "outputs"))
    started = time.monotonic()

    train_images, test_images, train_digits, test_digits = split_digits(options.seed)
    print(f"{len(train_images)} images to learn from, {len(test_images)} to test on")

    model = RandomForestClassifier(max_depth=options.max_depth, random_state=options.seed, warm_start=True)
    for trees in sizes(options.trees, options.step):
        model.set_params(n_estimators=trees)  # with warm_start, fit() keeps the trees and adds the missing ones
        model.fit(train_images, train_digits)
        metrics = measure(test_digits, model.predict(test_images))
        print(f"{trees:4d} trees  accuracy {metrics['accuracy']:.4f}  macro F1 {metrics['macro_f1']:.4f}")

    metrics |= {
        "n_train": len(train_images),
        "n_test": len(test_images),
        "seconds": round(time.monotonic() - started, 2),
    }
    outputs.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, outputs / "model.joblib", compress=3)
    (outputs / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    draw_confusion_matrix(test_digits, model.predict(test_images), outputs / "confusion_matrix.png")
    print(f"wrote {', '.join(sorted(path.name for path in outputs.iterdir()))} to {outputs}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=120, help="number of trees at the end")
    parser.add_argument("--step", type=int, default=20, help="trees to add between two measurements")
    parser.add_argument("--max-depth", type=int, default=16, help="maximum depth of a tree")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same forest")
    return parser.parse_args()


def split_digits(seed: int) -> list[ndarray]:
    """Training images, test images and their digits. Every digit has the same share in both sets."""
    images, digits = load_digits(return_X_y=True)
    return train_test_split(images, digits, test_size=0.2, random_state=seed, stratify=digits)


def sizes(trees: int, step: int) -> Iterator[int]:
    """20, 40, … up to the full size, which is always the last."""
    yield from range(step, trees, step)
    yield trees


def measure(digits: ndarray, predicted: ndarray) -> dict[str, float]:
    return {
        "accuracy": float(accuracy_score(digits, predicted)),
        "macro_f1": float(f1_score(digits, predicted, average="macro")),
    }


def draw_confusion_matrix(digits: ndarray, predicted: ndarray, file: Path) -> None:
    figure = Figure(figsize=(6, 6), layout="constrained")  # not pyplot, which looks for a screen
    axes = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(digits, predicted, ax=axes, cmap="Blues", colorbar=False)
    axes.set_title(f"{accuracy_score(digits, predicted):.1%} of {len(digits)} unseen digits are read right")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
