"""A net over rows of data, in inference mode: its output, its loss and its metrics. Nothing is kept on the net."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerwise.core.parameters import Workspace
from layerwise.training.means import RunningMeans, StackRunningMeans, WeightedLoss, value_of

Array = np.ndarray


def broadcast_to_copies(lead: tuple[int, ...], rows: Any, *arrays: Any) -> list[Any]:
    """Arrays of rows that all copies of a stack share, as arrays (S, N, ...): views. `lead` is (S,)."""
    if getattr(rows, "of_each_copy", False):
        return list(arrays)
    return [None if each is None else np.broadcast_to(each, (*lead, *each.shape)) for each in arrays]


def predicted(net: Any, x: Array, batch_size: int) -> Array:
    """The output for every row of x, (N, ...); of a stack (N, 2, ...), the mean over its copies and the standard
    deviation. The copies that diverged are left out."""
    lead, workspace = net._flat.lead, Workspace(net.dtype)
    view = net._inference_view(workspace)
    reusing = len(x) > batch_size  # a single batch has nothing to reuse
    if len(x) == 0:
        return np.empty((0, *((2,) if lead else ()), *net.output_shape(x.shape[1:])), net.dtype)
    output = None
    with np.errstate(all="ignore"):
        for start in range(0, len(x), batch_size):
            batch = view._converted(x[start : start + batch_size])
            if start == 0 and batch.shape[1:] != net.input_shape:
                net.output_shape(batch.shape[1:])  # says what is wrong
            with workspace.step(reusing):
                y = view.forward(np.broadcast_to(batch, (*lead, *batch.shape)) if lead else batch, False)
            if lead:
                moving = y if net.stopped is None or net.stopped.all() else y[~net.stopped]
                y = np.stack([moving.mean(0), moving.std(0)], 1)
            if output is None:
                output = np.empty((len(x), *y.shape[1:]), net.dtype)
            output[start : start + batch_size] = y
    assert output is not None
    return output


def evaluated(net: Any, rows: Any, loss: Any, metrics: dict[str, Any], add_up: Any = None) -> dict[str, Any]:
    """{"loss": ..., metric: ...}: the loss over batches, the metrics over all rows at once. `add_up` sums arrays over
    the processes, each of which has a part of each batch."""
    totals = (RunningMeans if net.copies is None else StackRunningMeans)(loss, {})
    lead, workspace = net._flat.lead, Workspace(net.dtype)
    view = net._inference_view(workspace)
    weighted = WeightedLoss(loss)
    kept: list[Any] = []
    if metrics:  # copies of reused arrays, and of the data, which may be a memory map
        x, *others = rows.arrays
        kept = [np.zeros((*lead, len(x), *net.output_shape(x.shape[1:])), net.dtype)]
        of_rows = zip(others, rows.dtypes[1:], strict=True)
        kept += [None if each is None else np.zeros(each.shape, dtype) for each, dtype in of_rows]
    for (start, stop), (x, *shared) in zip(rows.bounds, rows.epoch(None), strict=True):
        if not len(x):
            continue
        y, weight = shared
        with np.errstate(all="ignore"), workspace.step():
            if lead:
                x, y, weight = broadcast_to_copies(lead, rows, x, y, weight)
            pred = view.forward(x, False)
            value = value_of(loss if weight is None else weighted, pred, y, weight, net.copies)
        totals.add(value, pred, y, weight)
        if metrics:
            place = slice(start, stop) if rows.part is None else np.arange(start, stop)[rows.part(stop - start)]
            kept[0][(*(slice(None),) * len(lead), place)] = pred
            for array, part in zip(kept[1:], shared, strict=True):
                if array is not None:
                    array[place] = part
    if add_up is not None:
        numbers = np.array([totals.rows, totals.weight, totals.loss], np.float64)
        for array in (numbers, *kept):
            if array is not None:
                add_up(array)
        totals.rows, totals.weight, totals.loss = numbers.tolist()
    found: dict[str, Any] = totals.means()
    for array in kept:
        if array is not None:
            array.flags.writeable = False
    for name, metric in metrics.items():
        pred, *others = kept
        found[name] = np.array([metric(each, *others) for each in pred]) if lead else metric(pred, *others)
    return found


__all__ = ["broadcast_to_copies", "evaluated", "predicted"]
