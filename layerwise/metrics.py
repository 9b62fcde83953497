"""Metrics: numbers that a person reads, computed beside the loss; (pred, real) -> float.

A metric of one's own is any such callable. Shapes: N batch, C classes, `...` any axes. Knows no other module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Metric = Callable[[Array, Array], float]


def classes(real: Array, shape: tuple[int, ...], threshold: float = 0.5) -> Array:
    """Class numbers (N, ...) of what has a column or more for each sample, `shape` (N, ..., C), or of class numbers
    (N, ...) themselves. ValueError for another shape."""
    if real.shape == shape:
        return real.argmax(-1) if shape[-1] > 1 else (real[..., 0] > threshold).astype(np.int64)
    if real.shape != shape[:-1]:
        raise ValueError(f"targets have the shape of the predictions, {shape}, or {shape[:-1]}, got {real.shape}.")
    return real


def class_numbers(y: Array, labels: tuple[float, float] = (0, 1)) -> Array:
    """The class number of each row, (N,), of targets that say it: integers (N,), a column (N, 1) of the two labels, or
    one-hot rows (N, C). ValueError for other targets: several labels in a row, soft ones, numbers to predict."""
    if y.ndim == 1 and y.dtype.kind in "biu":
        return y
    low, high = labels
    if y.ndim == 2:
        yes = y == high
        if (yes | (y == low)).all() and (y.shape[1] == 1 or (np.count_nonzero(yes, 1) == 1).all()):
            return yes.argmax(1) if y.shape[1] > 1 else yes[:, 0].astype(np.int64)
    raise ValueError(
        f"class_weight goes by the class number of a row: y holds integers (N,), a column of {low} and {high}, or "
        f"one-hot rows; this y, {y.dtype} {y.shape}, holds others. Weigh its rows by sample_weight."
    )


def accuracy(pred: Array, real: Array, threshold: float = 0.5) -> float:
    """The share of rows whose largest column is the right one; of one column, those on the right side of
    `threshold`: 0.5 for probabilities, 0 for raw scores. The targets are class numbers, one-hot or one column."""
    # The threshold is the predictions': targets of one column are 0 and 1, or -1 and 1.
    return float(np.mean(classes(pred, pred.shape, threshold) == classes(real, pred.shape)))


def top_5_accuracy(pred: Array, real: Array) -> float:
    """The share of rows whose right class is among the five largest columns."""
    right = classes(real, pred.shape)
    if pred.shape[-1] <= 5:
        return 1.0
    best = np.argpartition(pred, -5, axis=-1)[..., -5:]
    return float(np.mean((best == right[..., None]).any(-1)))


def mae(pred: Array, real: Array) -> float:
    """The mean of |pred - real|, both of one shape."""
    if pred.shape != real.shape:
        raise ValueError(f'"mae" compares arrays of one shape, got predictions {pred.shape}, targets {real.shape}.')
    return float(np.mean(np.abs(pred - real)))


NAMED: dict[str, Metric] = {"accuracy": accuracy, "top_5_accuracy": top_5_accuracy, "mae": mae}


def named(metrics: Any, raw_scores: bool) -> dict[str, Metric]:
    """Name -> function for what `train` was given; `raw_scores` moves the threshold of one column to 0."""
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    chosen: dict[str, Metric] = {}
    for metric in metrics or ():
        known = NAMED.get(metric) if isinstance(metric, str) else metric
        if not callable(known):
            raise ValueError(f"a metric is one of {sorted(NAMED)} or a callable (pred, real) -> float, got {metric!r}.")
        name = getattr(known, "__name__", type(known).__name__)
        if name in (*chosen, "loss", "seconds"):
            raise ValueError(f"the name {name!r} of a metric is taken already: give it a __name__ of its own.")
        chosen[name] = known
    if raw_scores and chosen.get("accuracy") is accuracy:
        chosen["accuracy"] = lambda pred, real: accuracy(pred, real, 0.0)
    return chosen
