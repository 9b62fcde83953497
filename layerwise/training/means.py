"""The loss and the metrics of an epoch: means over its samples, put together batch by batch.

Shapes: N rows of a batch; of a stack of S copies every number is an array (S,).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from layerwise import loss as _loss
from layerwise.training import metrics

Array = np.ndarray


def is_summed(loss: Any) -> bool:
    """Whether a loss is a sum over its batch, and not a mean."""
    return getattr(loss, "reduction", "mean") != "mean"


def value_of(loss: Any, pred: Array, y: Array, weight: Array | None, copies: int | None) -> Any:
    """loss(pred, y); with the weights, if there are any, and for a stack with the number of its copies."""
    if copies is not None:
        return loss(pred, y, weight, copies=copies)
    return loss(pred, y) if weight is None else loss(pred, y, weight)


def shares(loss: Any, n: int, weight: Array | None, copies: int | None = None) -> tuple[Any, Any]:
    """(sum(c), sum(u c)) of the last batch, of n rows: what the rows count in a mean over several batches, and what
    they weigh there. u is the weight; c is 1 but for CrossEntropy(weight=, ignore_index=), whose mean divides by it."""
    counts = loss.counts if isinstance(loss, _loss.Loss) else None
    if counts is None and weight is None:
        return n, n
    if counts is None and weight is not None and copies is None:
        return n, float(np.add.reduce(weight, None)) * (n / weight.size)
    u = np.ones((copies or 1, 1, 1)) if weight is None else weight.reshape(copies or 1, -1, 1)
    c = np.ones((1, 1, 1)) if counts is None else counts.reshape(len(u), u.shape[1], -1)
    found = tuple(n * each.mean((1, 2), dtype=np.float64) for each in (c, u * c))
    return found if copies is not None else (float(found[0][0]), float(found[1][0]))


class WeightedLoss:
    """The loss of a weighted batch in a training: value and gradient of the weighted mean, times the mean weight.

        sum(u v) / sum(u) * mean(u)                    which is sum(u v) / N
        sum(u c v) / sum(u c) * sum(u c) / sum(c)      where a row counts c in the mean, see `shares`

    So a row weighs the same beside another row of the data, whichever batches they are in. A loss that sums its batch
    stays as it is. Every other attribute is that of the loss within.
    """

    def __init__(self, loss: Any) -> None:
        self.inner = loss
        self.means = not is_summed(loss)
        self.ours = isinstance(loss, _loss.Loss)
        self.scale: Any = 1.0
        self.value: Any = None

    def __call__(self, pred: Array, real: Array, weight: Array, copies: int | None = None) -> Any:
        value = value_of(self.inner, pred, real, weight, copies)
        if self.means and copies is None:
            count, share = shares(self.inner, len(pred), weight)
            self.scale = share / (count or 1.0)
            value = float(value) * self.scale
        elif self.means and copies is not None:
            count, share = shares(self.inner, pred.shape[1], weight, copies)
            mean = (share / np.where(count == 0, 1, count)).astype(pred.dtype)
            self.scale = mean.reshape(copies, *(1,) * (pred.ndim - 1))
            value = value * mean
        self.value = value
        if self.ours:
            self.inner.value = value
        return value

    def backward(self) -> Array:
        gradient = self.inner.backward()
        return np.multiply(gradient, self.scale) if self.means else gradient

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):  # asked for by copy and pickle before there is one
            raise AttributeError(name)
        return getattr(self.inner, name)


class RunningMeans:
    """The loss and each metric so far: sums over the batches of an epoch, and the means that they give."""

    def __init__(self, loss: Any, chosen: dict[str, Any]) -> None:
        self.of = loss
        self.ours = isinstance(loss, _loss.Loss)
        self.summed = is_summed(loss)
        self.chosen = chosen
        self.own = any(metric.own for metric in chosen.values())
        self.restart()

    def restart(self) -> None:
        self.rows = 0
        self.weight: Any = 0.0
        self.loss: Any = 0.0
        self.metrics: dict[str, Any] = dict.fromkeys(self.chosen, 0.0)
        self.shares: dict[str, Any] = dict.fromkeys(self.chosen, 0.0)  # what each metric is divided by

    def sums(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rows", "weight", "loss", "metrics", "shares")}

    def restore(self, sums: dict[str, Any]) -> None:
        """Go on from the sums of a checkpoint. An older one lacks the shares: no row was ignored there."""
        of_all = {name: sums["weight" if each.weighted else "rows"] for name, each in self.chosen.items()}
        vars(self).update({"shares": of_all} | sums)

    def add(self, value: float, pred: Array, y: Array, weight: Array | None) -> None:
        """Add one batch. If it is weighted, its value is that of WeightedLoss."""
        n = count = share = len(pred)
        if weight is not None or (self.ours and self.of.counts is not None):
            count, share = shares(self.of, n, weight)
        self.rows += n
        self.weight += share
        self.loss += float(value) if self.summed else float(value) * count
        if self.chosen:
            self.add_metrics(pred, y, weight)

    def add_metrics(self, pred: Array, y: Array, weight: Array | None) -> None:
        own = metrics.read_only(pred, y, weight) if self.own else None
        for name, metric in self.chosen.items():
            total, share = metric.weighed(*(own if own and metric.own else (pred, y, weight)))
            self.metrics[name] += total
            self.shares[name] += share

    def means(self) -> dict[str, float]:
        means = {"loss": self.loss / (self.rows if self.summed else self.weight or 1)}
        for name, total in self.metrics.items():
            means[name] = total / (self.shares[name] or 1)
        return means


class StackRunningMeans(RunningMeans):
    """The same of a stack of copies: every number is an array (S,)."""

    def add(self, value: Any, pred: Array, y: Array, weight: Array | None) -> None:
        n = pred.shape[1]
        count, share = shares(self.of, n, weight, len(pred))
        self.rows += n
        self.weight = self.weight + share
        # In float64: an epoch may have many batches.
        self.loss = self.loss + np.asarray(value, np.float64) * (1 if self.summed else count)
        self.add_metrics(pred, y, weight)

    def add_metrics(self, pred: Array, y: Array, weight: Array | None) -> None:
        own = metrics.read_only(pred, y, weight) if self.own else None
        for name, metric in self.chosen.items():
            arrays = own if own and metric.own else (pred, y, weight)
            of_copies = [
                metric.weighed(*(None if each is None else each[copy] for each in arrays)) for copy in range(len(pred))
            ]
            totals, of_metric = np.array(of_copies, np.float64).T
            self.metrics[name] = self.metrics[name] + totals
            self.shares[name] = self.shares[name] + of_metric

    def means(self) -> dict[str, Any]:
        weight = np.where(self.weight == 0, 1, self.weight)
        means = {"loss": self.loss / (self.rows if self.summed else weight)}
        for name, total in self.metrics.items():
            means[name] = total / np.where(self.shares[name] == 0, 1, self.shares[name])
        return means


__all__ = ["RunningMeans", "StackRunningMeans", "WeightedLoss", "is_summed", "shares", "value_of"]
