"""Data on its way into a net: checked once, converted once, handed out in batches.

Shapes: N rows; x (N, ...), y (N, ...) or class numbers (N,), weights (N,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray
Batch = tuple[Array, Array, "Array | None"]


def check_lengths(what: str, x: Array, y: Array) -> None:
    """ValueError unless each row of x has one of y."""
    if len(x) != len(y):
        raise ValueError(f"{what}x has {len(x)} rows and {what}y has {len(y)}: each row of x needs one of y.")


def converted(
    what: str, array: Array, dtype: Any, rows: Callable[[Array], Array] | None = None, where: str = ""
) -> Array:
    """C-contiguous, of that dtype. ValueError where a number is not finite, before or after; `rows` tells how the rows
    of this array are counted in the data, and `where` of what else they are."""
    with np.errstate(all="ignore"):
        result = np.ascontiguousarray(array, dtype)
        if result.dtype.kind == "f" and not _finite(result):
            bad = np.flatnonzero(~np.isfinite(result.reshape(len(result), -1)).all(1))
            counted = bad if rows is None else rows(bad)
            first = int(counted.argmin())
            kind = "NaN" if np.isnan(result[bad[first]]).any() else "infinity"
            reason = f" in {result.dtype}" if np.isfinite(array[bad[first]]).all() else ""
            raise ValueError(
                f"{what} holds {kind}{reason}, first in row {counted[first]}{where}: remove such rows or fill them in."
            )
    return result


def is_finite(array: Array, dtype: Any) -> bool:
    """Whether all numbers are finite in that dtype."""
    with np.errstate(all="ignore"):
        return _finite(np.asarray(array, dtype))


def _finite(array: Array) -> bool:
    flat = array.reshape(-1)
    return bool(np.isfinite(flat.dot(flat)) or np.isfinite(flat).all())  # the sum of squares tells in one pass


def input_dtype(x: Array, dtype: np.dtype, integer: bool) -> Any:
    """The dtype that x becomes; TypeError for a net of integers that gets something else."""
    if integer and x.dtype.kind == "f":
        raise TypeError(f"the first layer takes integers, got x of {x.dtype}.")
    return np.int64 if integer else dtype


def target_dtype(y: Array, output: tuple[int, ...], dtype: np.dtype) -> Any:
    """The dtype that y becomes: class numbers, of which there is one a row, stay integers."""
    return np.int64 if y.dtype.kind in "iu" and y.shape[1:] != output else dtype


class ArrayBatches:
    """Arrays of equal length, handed out in batches, in an order that is new each epoch.

    What is not in memory (a memory map) is converted and checked batch by batch, its y by `check_real` too; arrays
    in memory were checked whole. A rest of fewer rows than `smallest` joins the batch before. Messages call the data
    `what` + "x", and count their rows from `first` on.
    """

    part: Callable[[int], slice] | None = None  # of n rows of a batch those that this process takes, where several do

    def __init__(
        self,
        arrays: list[Array | None],
        dtypes: list[Any],
        batch_size: int,
        smallest: int,
        steps: int | None,
        check_real: Callable[[Array], None],
        what: str = "",
        first: int = 0,
    ) -> None:
        self.arrays = arrays
        self.dtypes = dtypes
        self.check_real = check_real
        self.what, self.first = what, first
        self.n = len(arrays[0])  # type: ignore[arg-type]
        starts = list(range(0, self.n, batch_size))
        if len(starts) > 1 and self.n - starts[-1] < smallest:
            starts.pop()
        self.bounds = list(zip(starts, [*starts[1:], self.n], strict=True))
        self.smallest = min(stop - start for start, stop in self.bounds)
        self.steps = len(self.bounds) if steps is None else steps
        self._buffers: dict[tuple[int, int], Array] = {}
        self._in_memory = [
            array is None or (array.dtype == dtype and not isinstance(array, np.memmap))
            for array, dtype in zip(arrays, dtypes, strict=True)
        ]
        self._whole = [self._batch(None, 0, self.n)] if len(self.bounds) == self.steps == 1 else None

    @property
    def draws(self) -> bool:
        """Whether an epoch that is shuffled draws random numbers."""
        return len(self.bounds) > 1

    def epoch(self, rngs: list[np.random.Generator] | None, skip: int = 0) -> Iterable[Batch]:
        """The batches of one epoch but the first `skip`, shuffled where generators are given: of several, for a stack
        of copies, each has an order of its own, and the arrays have one more axis in front, `of_each_copy`."""
        self.of_each_copy = rngs is not None and len(rngs) > 1 and len(self.bounds) > 1
        # One batch that holds every row is the same in any order: it needs no shuffling and no copy.
        if self._whole is not None and self.part is None and all(self._in_memory):
            return self._whole[skip:]
        return self._batches(rngs if self.draws else None, skip)

    def _batches(self, rngs: list[np.random.Generator] | None, skip: int) -> Iterator[Batch]:
        taken = 0
        while taken < self.steps:
            order = None
            if rngs:
                order = rngs[0].permutation(self.n)
                if len(rngs) > 1:
                    order = np.stack([order, *(rng.permutation(self.n) for rng in rngs[1:])])
            for start, stop in self.bounds[: self.steps - taken]:
                taken += 1
                if taken > skip:
                    yield self._batch(order, start, stop)

    def _batch(self, order: Array | None, start: int, stop: int) -> Batch:
        if self.part is not None:
            numbers = np.arange(start, stop) if order is None else order[start:stop]
            order = numbers[self.part(stop - start)]
            start, stop = 0, len(order)
        return tuple(self._rows(place, order, start, stop) for place in range(3))  # type: ignore[return-value]

    def _rows(self, place: int, order: Array | None, start: int, stop: int) -> Array | None:
        array = self.arrays[place]
        if array is None:
            return None
        in_memory = self._in_memory[place]
        if order is None:
            rows = array[start:stop]
        elif not in_memory:
            rows = np.asarray(array[order[..., start:stop]])
        else:
            key = place, stop - start
            if key not in self._buffers:
                self._buffers[key] = np.empty((*order.shape[:-1], stop - start, *array.shape[1:]), array.dtype)
            # A permutation is in range: without `mode`, take would go through a buffer of its own.
            rows = array.take(order[..., start:stop], 0, self._buffers[key], "clip")
        if not in_memory:
            places = np.arange(start, stop) if order is None else order[..., start:stop]
            flat = rows.reshape(places.size, *array.shape[1:])  # of a stack of copies, the rows of all
            flat = converted(
                f"{self.what}{'xyw'[place]}", flat, self.dtypes[place], lambda bad: self.first + places.reshape(-1)[bad]
            )
            if place == 1 and len(flat):
                self.check_real(flat)
            rows = flat.reshape(rows.shape)
        return rows


class IterableBatches:
    """Batches from an iterable of (x, y) or (x, y, sample_weight), each checked as it comes, with its number."""

    def __init__(self, data: Any, check: Callable[[Any, int], Batch], epochs: int, steps: int | None) -> None:
        if not isinstance(data, Iterable):
            raise TypeError(f"without y, x is an iterable of (x, y) batches, got {type(data).__name__}.")
        self.steps = steps
        self.check = check
        self._once = iter(data) if isinstance(data, Iterator) else None
        self.data = data
        if self._once is not None and steps is None and epochs > 1:
            raise ValueError(
                f"an iterator runs out after one epoch, and {epochs} were asked for: give something that can be "
                f"iterated anew, or steps_per_epoch."
            )
        # The first batch is looked at before anything is built, and served first.
        source = self._once or iter(data)
        first = next(source, None)
        if first is None:
            raise ValueError("the iterable of batches is empty: at least one (x, y) is needed.")
        self.first = check(first, 0)
        self._looked_at: list[Batch] = [self.first] if self._once is not None else []

    draws = False
    part: Callable[[int], slice] | None = None  # as of Rows

    def epoch(self, rngs: list[np.random.Generator] | None, skip: int = 0) -> Iterator[Batch]:
        source = self._once or iter(self.data)
        served = 0
        while self.steps is None or served < self.steps:
            if self._looked_at:
                batch = self._looked_at.pop()
            else:
                raw = next(source, None)
                if raw is None:
                    if self.steps is None and served:
                        return
                    raise ValueError(
                        f"the iterable of batches ran out after {served} batches of an epoch"
                        + (f", steps_per_epoch is {self.steps}." if self.steps else ".")
                    )
                batch = self.check(raw, served)
            served += 1
            if self.part is not None:
                mine = self.part(len(batch[0]))
                batch = tuple(None if each is None else np.ascontiguousarray(each[mine]) for each in batch)  # type: ignore[assignment]
            yield batch
