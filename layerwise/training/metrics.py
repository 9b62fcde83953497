"""Metrics: numbers that a person reads, computed beside the loss; (pred, real) -> float.

A metric of your own is any such callable. One that has an argument `sample_weight` is given the weights, where there
are any. `evaluate` and validation give a metric all rows at once; what a training shows is the running mean of its
values over the batches, weighted by their rows (which for "r2", "rmse", "auc" and the like is not the value of all
rows). All that stand here equal scikit-learn's, with weights too. Shapes: N batch, C classes, `...` any axes. This
module imports no other of ours.

    of one class a row      accuracy, categorical_accuracy, top_5_accuracy, balanced_accuracy, confusion_matrix
    of columns of yes, no   binary_accuracy, subset_accuracy
    of either               precision, recall, f1, the same with _macro, auc
    of numbers              mae, mse, rmse, r2
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray


def classes(real: Array, shape: tuple[int, ...], threshold: float = 0.5) -> Array:
    """Class numbers (N, ...). `real` has one column or more for each sample, `shape` (N, ..., C), or it holds class
    numbers (N, ...) already. ValueError for another shape."""
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


def accuracy(
    pred: Array, real: Array, threshold: float = 0.5, multilabel: bool = False, sample_weight: Array | None = None
) -> float:
    """The share of rows whose largest column is the right one. With one column, it is the share of rows on the right
    side of `threshold`: 0.5 for probabilities, 0 for raw scores. The targets are class numbers, one-hot or one column.

    With `multilabel` each column is a yes or no of its own: binary_accuracy. The metric "accuracy" is that after a
    Sigmoid, and with BinaryCrossEntropy or another loss that is `binary`; it is not after a Softmax.
    """
    if multilabel and real.shape == pred.shape:
        return binary_accuracy(pred, real, threshold, sample_weight)
    # The threshold is the predictions': targets of one column are 0 and 1, or -1 and 1.
    return _weighted_fraction(classes(pred, pred.shape, threshold) == classes(real, pred.shape), sample_weight)


def categorical_accuracy(pred: Array, real: Array, sample_weight: Array | None = None) -> float:
    """`accuracy` by the largest column, also of several sigmoids."""
    return accuracy(pred, real, sample_weight=sample_weight)


def binary_accuracy(pred: Array, real: Array, threshold: float = 0.5, sample_weight: Array | None = None) -> float:
    """The share of all elements that are on the right side of the threshold, as Keras's BinaryAccuracy."""
    _check_same_shape("binary_accuracy", pred, real)
    return _weighted_fraction((pred > threshold) == (real > 0.5), sample_weight)


def subset_accuracy(pred: Array, real: Array, threshold: float = 0.5, sample_weight: Array | None = None) -> float:
    """The share of rows all of whose columns are on the right side of the threshold: scikit-learn's accuracy_score of
    several labels."""
    _check_same_shape("subset_accuracy", pred, real)
    return _weighted_fraction(((pred > threshold) == (real > 0.5)).all(-1), sample_weight)


def top_5_accuracy(pred: Array, real: Array, sample_weight: Array | None = None) -> float:
    """The share of rows whose right class is among the five largest columns."""
    right = classes(real, pred.shape)
    if pred.shape[-1] <= 5:
        return 1.0
    best = np.argpartition(pred, -5, axis=-1)[..., -5:]
    return _weighted_fraction((best == right[..., None]).any(-1), sample_weight)


def confusion_matrix(pred: Array, real: Array, threshold: float = 0.5, sample_weight: Array | None = None) -> Array:
    """How many rows of class i, a row of the matrix, were taken for class j, a column: (C, C); of one column (2, 2).

    pred (N, ..., C) are the predictions of a net, real class numbers, one-hot or one column; with sample_weight the
    sums of the weights.
    """
    pred, real = np.asarray(pred), np.asarray(real)
    count = max(pred.shape[-1], 2)
    right = classes(real, pred.shape).astype(np.int64)
    pairs = count * right + classes(pred, pred.shape, threshold)
    weight = None if sample_weight is None else _spread(sample_weight, pairs.shape).reshape(-1)
    return np.bincount(pairs.reshape(-1), weight, count * count).reshape(count, count)


def balanced_accuracy(pred: Array, real: Array, threshold: float = 0.5, sample_weight: Array | None = None) -> float:
    """The share of its rows that are predicted right, for each class in the targets; the mean of these shares."""
    matrix = confusion_matrix(pred, real, threshold, sample_weight)
    rows = matrix.sum(1)
    return float(np.mean(np.diag(matrix)[rows > 0] / rows[rows > 0]))


def precision(
    pred: Array,
    real: Array,
    threshold: float = 0.5,
    multilabel: bool = False,
    sample_weight: Array | None = None,
    macro: bool = False,
) -> float:
    """Of the rows taken for a class, the share that is of it; 0 where there are none.

    With two classes, in one column or two, it is that of class 1. With more classes, with several labels, or with
    `macro` (by name: "precision_macro"), it is the mean over the classes that occur, or over all labels. In
    scikit-learn the two are average="binary" and "macro".
    """
    return _score("precision", pred, real, threshold, multilabel, sample_weight, macro)


def recall(
    pred: Array,
    real: Array,
    threshold: float = 0.5,
    multilabel: bool = False,
    sample_weight: Array | None = None,
    macro: bool = False,
) -> float:
    """Of the rows of a class, the share that is taken for it; 0 where there are none. Averaged as precision is."""
    return _score("recall", pred, real, threshold, multilabel, sample_weight, macro)


def f1(
    pred: Array,
    real: Array,
    threshold: float = 0.5,
    multilabel: bool = False,
    sample_weight: Array | None = None,
    macro: bool = False,
) -> float:
    """2 hits / (rows taken for a class + rows of it), the harmonic mean of precision and recall. Averaged alike."""
    return _score("f1", pred, real, threshold, multilabel, sample_weight, macro)


def auc(
    pred: Array,
    real: Array,
    multilabel: bool = False,
    raw_scores: bool = False,
    sample_weight: Array | None = None,
) -> float:
    """The area under the ROC curve: how often a row of the class has a higher score than one that is not of it.

    Of two classes, in one column or two; of more the mean over one class against the rest (roc_auc_score with
    multi_class="ovr"), of several labels over the labels. NaN where a class has no rows, or all of them.
    """
    shape = pred.shape
    pred = np.asarray(pred, np.float64).reshape(-1, shape[-1])
    if multilabel and shape[-1] > 1:
        _check_same_shape("auc", np.empty(shape), real)
        yes = real.reshape(pred.shape) > 0.5
    else:
        yes = classes(real, shape).reshape(-1, 1) == (np.arange(shape[-1]) if shape[-1] > 2 else 1)
        if raw_scores and shape[-1] == 2:
            pred = pred - pred[:, :1]
        elif raw_scores and shape[-1] > 2:  # what a Softmax makes of them
            pred = np.exp(pred - pred.max(1, keepdims=True))
            pred /= pred.sum(1, keepdims=True)
        if shape[-1] == 2:
            pred = pred[:, 1:]
    weight = np.ones(len(pred)) if sample_weight is None else _spread(sample_weight, shape[:-1]).reshape(-1)
    return float(np.mean([_area(scores, right, weight) for scores, right in zip(pred.T, yes.T, strict=True)]))


def _area(scores: Array, yes: Array, weight: Array) -> float:
    _, group = np.unique(scores, return_inverse=True)  # rows of one score share their rank
    above, below = np.bincount(group, weight * yes), np.bincount(group, weight * ~yes)
    pairs = above.sum() * below.sum()
    return float((above * (np.cumsum(below) - below / 2)).sum() / pairs) if pairs else float("nan")


def mae(pred: Array, real: Array, sample_weight: Array | None = None) -> float:
    """The mean of |pred - real|, both of one shape."""
    _check_same_shape("mae", pred, real)
    return _mean(np.abs(pred - real), sample_weight)


def mse(pred: Array, real: Array, sample_weight: Array | None = None) -> float:
    """The mean of (pred - real)^2, both of one shape."""
    _check_same_shape("mse", pred, real)
    return _mean(np.square(pred - real, dtype=np.float64), sample_weight)


def rmse(pred: Array, real: Array, sample_weight: Array | None = None) -> float:
    """The root of the mean of (pred - real)^2; of several columns the mean of their roots, as in scikit-learn."""
    pred, real, weight = _columns("rmse", pred, real, sample_weight)
    return float(np.sqrt(np.average((pred - real) ** 2, 0, weight)).mean())


def r2(pred: Array, real: Array, sample_weight: Array | None = None) -> float:
    """1 - sum (real - pred)^2 / sum (real - mean)^2; the mean over columns. Where the targets are all alike, 1 if the
    predictions are right and 0 if not; NaN of a single row."""
    pred, real, weight = _columns("r2", pred, real, sample_weight)
    if len(pred) < 2:
        return float("nan")
    left = np.average((real - pred) ** 2, 0, weight)
    whole = np.average((real - np.average(real, 0, weight)) ** 2, 0, weight)
    found = 1 - left / np.where(whole > 0, whole, 1)
    return float(np.where(whole > 0, found, left == 0).mean())


def _check_same_shape(name: str, pred: Array, real: Array) -> None:
    if pred.shape != real.shape:
        raise ValueError(f'"{name}" compares arrays of one shape, got predictions {pred.shape}, targets {real.shape}.')


def _spread(weight: Array, shape: tuple[int, ...]) -> Array:
    """Weights of samples, or of time steps, for every element of an array of that shape, in float64."""
    weight = np.asarray(weight, np.float64)
    return np.broadcast_to(weight.reshape(*weight.shape, *(1,) * (len(shape) - weight.ndim)), shape)


def _mean(values: Array, weight: Array | None) -> float:
    if weight is None:
        return float(np.mean(values))
    return float(np.average(values, weights=_spread(weight, values.shape)))


def _weighted_fraction(right: Array, weight: Array | None) -> float:
    """How much of a bool array is True."""
    return float(np.count_nonzero(right)) / right.size if weight is None else _mean(right, weight)


def _columns(name: str, pred: Array, real: Array, weight: Array | None) -> tuple[Array, Array, Array | None]:
    """Predictions and targets as (rows, columns) and the weights of the rows, in float64."""
    _check_same_shape(name, pred, real)
    rows = len(pred) if weight is None else weight.size  # of weights of time steps, the steps are rows
    weight = None if weight is None else np.asarray(weight, np.float64).reshape(-1)
    return np.asarray(pred, np.float64).reshape(rows, -1), np.asarray(real, np.float64).reshape(rows, -1), weight


def _counts(
    pred: Array, real: Array, threshold: float, multilabel: bool, weight: Array | None
) -> tuple[Array, Array, Array]:
    """For each class or label: its rows that are taken for it, all rows taken for it, all its rows."""
    if not multilabel or pred.shape[-1] == 1:
        matrix = confusion_matrix(pred, real, threshold, weight)
        return np.diag(matrix), matrix.sum(0), matrix.sum(1)
    _check_same_shape("precision, recall, f1", pred, real)
    each = np.ones(pred.shape) if weight is None else _spread(weight, pred.shape)
    used, there = pred > threshold, real > 0.5
    of = [(each * part).reshape(-1, pred.shape[-1]).sum(0) for part in (used & there, used, there)]
    return of[0], of[1], of[2]


def _score(
    kind: str, pred: Array, real: Array, threshold: float, multilabel: bool, weight: Array | None, macro: bool
) -> float:
    hits, used, there = _counts(pred, real, threshold, multilabel, weight)
    part, whole = {"precision": (hits, used), "recall": (hits, there), "f1": (2 * hits, used + there)}[kind]
    shares = part / np.where(whole > 0, whole, 1)
    if multilabel and pred.shape[-1] > 1:
        return float(shares.mean())
    return float(shares[1] if len(shares) == 2 and not macro else shares[used + there > 0].mean())


NAMED: dict[str, Callable[..., float]] = {
    each.__name__: each
    for each in (
        accuracy, auc, balanced_accuracy, binary_accuracy, categorical_accuracy, f1, mae, mse, precision, r2, recall,
        rmse, subset_accuracy, top_5_accuracy,
    )
}  # fmt: skip
NAMED |= {f"{each.__name__}_macro": functools.partial(each, macro=True) for each in (precision, recall, f1)}


class Chosen:
    """A metric as `train` and `evaluate` call it: with the weights, if it takes them. A metric by name does not see the
    rows whose class number is `ignore_index`."""

    def __init__(self, name: str, function: Callable[..., float], own: bool, ignore_index: int | None = None) -> None:
        self.name = name
        self.function = function
        self.own = own  # a user's, which gets arrays of its own
        self.ignore_index = None if own else ignore_index
        try:
            self.weighted = "sample_weight" in inspect.signature(function).parameters
        except (TypeError, ValueError):  # some callables in C tell nothing of their arguments
            self.weighted = False

    def __call__(self, pred: Array, real: Array, weight: Array | None = None) -> float:
        """The value over the rows that are not ignored; 0 where there are none."""
        if self.ignore_index is not None:
            pred, real, weight = self._taken(pred, real, weight)
        return self._value(pred, real, weight) if len(pred) else 0.0

    def weighed(self, pred: Array, real: Array, weight: Array | None = None) -> tuple[float, float]:
        """The value times what these rows weigh in a mean over batches, and what they weigh."""
        if self.ignore_index is not None:
            pred, real, weight = self._taken(pred, real, weight)
        share: float = len(pred)
        if self.weighted and weight is not None and share:
            share *= float(np.add.reduce(weight, None)) / weight.size
        # Rows without weight tell a metric nothing.
        return (self._value(pred, real, weight) * share, share) if share else (0.0, 0.0)

    def _taken(self, pred: Array, real: Array, weight: Array | None) -> tuple[Array, Array, Array | None]:
        if real.shape != pred.shape[:-1]:
            return pred, real, weight
        used = real != self.ignore_index
        return pred[used], real[used], None if weight is None else _spread(weight, real.shape)[used]

    def _value(self, pred: Array, real: Array, weight: Array | None) -> float:
        try:
            if weight is None or not self.weighted:
                return float(self.function(pred, real))
            return float(self.function(pred, real, sample_weight=weight))
        except Exception as error:
            error.add_note(
                f"This comes from the metric {self.name!r}, called with predictions {pred.dtype} {pred.shape} and "
                f"targets {real.dtype} {real.shape}."
            )
            raise


def read_only(*arrays: Array | None) -> list[Array | None]:
    """Copies that nothing changes any more."""
    copies = [None if each is None else np.array(each) for each in arrays]
    for each in copies:
        if each is not None:
            each.flags.writeable = False
    return copies


def named(
    metrics: Any, raw_scores: bool, multilabel: bool = False, ignore_index: int | None = None
) -> dict[str, Chosen]:
    """Name -> metric for what `train` was given. `raw_scores` moves the threshold to 0; `multilabel` says that each
    column is a yes or no of its own; those of the library leave out rows of the class `ignore_index`."""
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    chosen: dict[str, Chosen] = {}
    options: dict[str, Any] = {"raw_scores": True, "threshold": 0.0} if raw_scores else {}
    options |= {"multilabel": True} if multilabel else {}
    for metric in metrics or ():
        known = NAMED.get(metric) if isinstance(metric, str) else metric
        if not callable(known):
            raise ValueError(f"a metric is one of {sorted(NAMED)} or a callable (pred, real) -> float, got {metric!r}.")
        name = metric if isinstance(metric, str) else getattr(known, "__name__", type(known).__name__)
        if name in (*chosen, "loss", "seconds"):
            raise ValueError(f"the name {name!r} of a metric is taken already: give it a __name__ of its own.")
        own = metric not in NAMED.values()
        if isinstance(metric, str):
            used = {key: value for key, value in options.items() if key in inspect.signature(known).parameters}
            known, own = functools.partial(known, **used) if used else known, False
        chosen[name] = Chosen(name, known, own, ignore_index)
    return chosen
