"""From the values of a loss, one for each element or row, to the one number, and what a value's gradient is times.

With n values v and weights u (N,), one for each sample, or (N, T), one for each time step:

    "mean"                 "sum"        "batch_sum"
    sum(v) / n             sum(v)       sum(v) N / n
    sum(u v) N / n / sum(u)  sum(u v)   sum(u v) N / n
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray

REDUCTIONS = ("mean", "sum", "batch_sum")


def reduce(values: Array, weight: Array | None, counts: Array | None, reduction: str) -> tuple[float, Any]:
    """The loss, and the scale: a float, or an array of the weights' shape.

    `counts`: what each value counts in the divisor of the mean, where that is not 1.
    """
    if weight is None and counts is None:
        scale = 1 / values.size
        if reduction != "mean":
            scale = 1.0 if reduction == "sum" else len(values) / values.size
        return float(np.add.reduce(values, None)) * scale, scale
    share = np.ones(len(values), values.dtype) if weight is None else weight
    if reduction == "mean":
        if counts is None:
            total = float(np.add.reduce(share, None)) * (values.size / share.size)
        else:
            total = float(counts.reshape(share.size, -1).sum(1).dot(share.reshape(-1)))
        share = share / (total or 1.0)  # of a batch without weight the loss is 0
    elif reduction == "batch_sum":
        share = share * (len(values) / values.size)
    sums = values.reshape(share.size, -1).sum(1)
    return float(sums.dot(share.reshape(-1))), share


def reduce_copies(values: Array, weight: Array | None, counts: Array | None, reduction: str) -> tuple[Array, Any]:
    """The same for a stack of nets: values (S, N, ...), weights (S, N) or (S, N, T), and a loss (S,)."""
    copies, rows = values.shape[:2]
    flat = values.reshape(copies, rows, -1)
    size = flat.shape[2]
    if weight is None and counts is None:
        scale = {"mean": 1 / (rows * size), "sum": 1.0, "batch_sum": 1 / size}[reduction]
        return np.add.reduce(flat, (1, 2)) * scale, scale
    shape = (copies, rows) if weight is None else weight.shape
    share = np.ones((copies, rows), values.dtype) if weight is None else weight.reshape(copies, -1)
    if reduction == "mean":
        each: Any = values.size / share.size
        if counts is not None:
            each = counts.reshape(*share.shape, -1).sum(2)
        total = np.add.reduce(share * each, 1)[:, None]
        share = share / np.where(total == 0, 1, total)
    elif reduction == "batch_sum":
        share = share / size
    value = np.add.reduce(np.add.reduce(values.reshape(*share.shape, -1), 2) * share, 1)
    return value, share.reshape(shape)
