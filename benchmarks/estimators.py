"""A grid search over NetClassifier beside one over scikit-learn's MLPClassifier: digits, 8 settings, the same folds.

    python benchmarks/estimators.py            a Markdown table
    python benchmarks/estimators.py --rounds 5

Both have the same hidden sizes, learning rates of Adam, batch size and epochs at most, and end when the training loss
has not fallen by 1e-4 for ten epochs. They take turns in one process; each round has folds and seeds of its own. The
data are float32, in which both compute.
"""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sklearn.datasets import load_digits  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.model_selection import GridSearchCV, StratifiedKFold  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

from layerwise.estimators import NetClassifier  # noqa: E402

SIZES = [(32,), (64,), (128,), (64, 32)]
RATES = [0.001, 0.01]  # the defaults of theirs and of ours
SHARED = {"batch_size": 64, "max_iter": 100, "tol": 1e-4, "n_iter_no_change": 10}


def search(name, x, y, seed, folds, epochs):
    """Seconds, and the best mean score over the folds, of one search."""
    told = SHARED | {"random_state": seed} | ({"max_iter": epochs} if epochs else {})
    make, rate = {
        "NetClassifier": (NetClassifier, "optim__lr"),
        "MLPClassifier": (MLPClassifier, "learning_rate_init"),
    }[name]
    cuts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    grid = GridSearchCV(make(**told), {"hidden_layer_sizes": SIZES, rate: RATES}, cv=cuts, refit=False)
    began = time.perf_counter()
    grid.fit(x, y)
    return time.perf_counter() - began, grid.best_score_


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="searches by each (default 5)")
    parser.add_argument("--folds", type=int, default=3, help="of the cross-validation (default 3)")
    parser.add_argument("--epochs", type=int, default=None, help="at most, instead of 100")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    print(
        "| round | NetClassifier, seconds | best score | MLPClassifier, seconds | best score | seconds, ours / theirs |"
    )
    print("|---|---|---|---|---|---|")
    rows = []
    for seed in range(arguments.rounds):
        names = ["NetClassifier", "MLPClassifier"][:: -1 if seed % 2 else 1]  # who goes first changes
        found = {name: search(name, x, y, seed, arguments.folds, arguments.epochs) for name in names}
        ours, theirs = found["NetClassifier"], found["MLPClassifier"]
        rows.append((*ours, *theirs, ours[0] / theirs[0]))
        show(seed, rows[-1])
    show("median", [statistics.median(column) for column in zip(*rows, strict=True)])


def show(name, row):
    print("| {} | {:.2f} | {:.4f} | {:.2f} | {:.4f} | {:.2f} |".format(name, *row), flush=True)


if __name__ == "__main__":
    main()
