"""Data on its way into a net: checked once, converted once, and given out in batches.

Shapes: N rows; x (N, ...), y (N, ...) or class numbers (N,), weights (N,).

In this file, in this order:
  checks        check_lengths, converted, input_dtype, target_dtype
  batches       ArrayBatches, IterableBatches
  a net's data  DataAdapter, class_weights, split; training_data puts them together
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from layerwise import loss as _loss
from layerwise.core import arguments
from layerwise.training import checks, metrics
from layerwise.training.means import is_summed

Array = np.ndarray
Batch = tuple[Array, Array, "Array | None"]


def check_lengths(what: str, x: Array, y: Array) -> None:
    """ValueError unless each row of x has one of y."""
    if len(x) != len(y):
        raise ValueError(f"{what}x has {len(x)} rows and {what}y has {len(y)}: each row of x needs one of y.")


def converted(
    what: str, array: Array, dtype: Any, rows: Callable[[Array], Array] | None = None, where: str = ""
) -> Array:
    """The array, C-contiguous and of that dtype. ValueError if a number is not finite, before or after. The message
    counts its rows by `rows`, a function of their numbers in this array, and ends with `where`."""
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
    """Whether all numbers are finite in this dtype."""
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
    """Arrays of equal length in batches, in an order that is new each epoch.

    A memory map is converted and checked batch by batch, its y by `check_real` too; arrays in memory were checked
    whole. A rest of fewer rows than `smallest` joins the batch before it. Messages call the data `what` + "x", and
    count the rows from `first` on.
    """

    part: Callable[[int], slice] | None = (
        None  # where several processes train: which of the n rows of a batch this one takes
    )

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
        """The batches of one epoch but the first `skip`, shuffled if generators are given. Several generators are those
        of a stack of copies: each copy has an order of its own, and the arrays have one more axis in front. Then
        `of_each_copy` is True."""
        self.of_each_copy = rngs is not None and len(rngs) > 1 and len(self.bounds) > 1
        # One batch that holds every row is the same in any order: it needs no shuffling and no copy.
        if self._whole is not None and self.part is None and all(self._in_memory):
            return self._whole[skip:]
        return self._batches(rngs if self.draws else None, skip)

    def _batches(self, rngs: list[np.random.Generator] | None, skip: int) -> Iterator[Batch]:
        used = 0
        while used < self.steps:
            order = None
            if rngs:
                order = rngs[0].permutation(self.n)
                if len(rngs) > 1:
                    order = np.stack([order, *(rng.permutation(self.n) for rng in rngs[1:])])
            for start, stop in self.bounds[: self.steps - used]:
                used += 1
                if used > skip:
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
        # The first batch is checked before anything is built, and comes first again.
        source = self._once or iter(data)
        first = next(source, None)
        if first is None:
            raise ValueError("the iterable of batches is empty: at least one (x, y) is needed.")
        self.first = check(first, 0)
        self._first: list[Batch] = [self.first] if self._once is not None else []

    draws = False
    part: Callable[[int], slice] | None = None  # as of ArrayBatches

    def epoch(self, rngs: list[np.random.Generator] | None, skip: int = 0) -> Iterator[Batch]:
        source = self._once or iter(self.data)
        given = 0
        while self.steps is None or given < self.steps:
            if self._first:
                batch = self._first.pop()
            else:
                raw = next(source, None)
                if raw is None:
                    if self.steps is None and given:
                        return
                    raise ValueError(
                        f"the iterable of batches ran out after {given} batches of an epoch"
                        + (f", steps_per_epoch is {self.steps}." if self.steps else ".")
                    )
                batch = self.check(raw, given)
            given += 1
            if self.part is not None:
                mine = self.part(len(batch[0]))
                batch = tuple(None if each is None else np.ascontiguousarray(each[mine]) for each in batch)  # type: ignore[assignment]
            yield batch


def split(x: Any, y: Any, weight: Any, fraction: float) -> tuple[Any, Any, Any, list[Array | None]]:
    """x, y and weight of the rows to train on, and a list of those three of the last rows, which are held out."""
    x, y = arguments.as_array("x", x), arguments.as_array("y", y)
    check_lengths("", x, y)
    n = round(len(x) * fraction) if 0 < fraction < 1 else 0
    if not 0 < n < len(x):
        raise ValueError(f"validation as a fraction lies in (0, 1) and leaves rows on both sides, got {fraction!r}.")
    at = len(x) - n
    if weight is None:
        return x[:at], y[:at], None, [x[at:], y[at:], None]
    weight = _loss.Loss.checked_weight(weight, (len(x), *np.shape(weight)[1:]))  # its time steps are checked later
    for part, what in ((weight[:at], "before"), (weight[at:], "among")):
        if not part.any():
            raise ValueError(
                f"sample_weight is zero in every row {what} the last {n}, which validation={fraction} holds out: "
                f"shuffle the rows first, or give validation=(x, y)."
            )
    return x[:at], y[:at], weight[:at], [x[at:], y[at:], weight[at:]]


def class_weights(given: Any, y: Array | None, loss: Any) -> dict[int, float]:
    """class_weight as a dict, class number -> weight; y is None if rows come in batches."""
    if isinstance(given, str) and given == "balanced":
        if y is None:
            raise ValueError(
                'class_weight="balanced" counts the classes of all rows, and an iterable gives them batch by batch: '
                "give a dict, class number -> weight."
            )
        of_rows = metrics.class_numbers(y, _labels(loss))
        found, counts = np.unique(of_rows[of_rows != getattr(loss, "ignore_index", None)], return_counts=True)
        return dict(zip(found.tolist(), (counts.sum() / (len(counts) * counts)).tolist(), strict=True))
    if isinstance(given, (list, tuple, np.ndarray)):
        given = dict(enumerate(given))
    if not isinstance(given, dict):
        raise ValueError(f'class_weight is a dict, class number -> weight, a list, or "balanced", got {given!r}.')
    numbers = all(isinstance(weight, (int, float, np.number)) for weight in given.values())
    if not numbers or not all(0 <= weight < math.inf for weight in given.values()):
        raise ValueError(f"class_weight holds finite numbers, not negative, got {given}.")
    return given


def _labels(loss: Any) -> tuple[float, float]:
    """The two numbers that stand for no and yes in targets of this loss."""
    return getattr(loss, "labels", None) or (0, 1)


class DataAdapter:
    """Data as a net and a loss take them: every error here comes before anything is built or moved."""

    def __init__(self, net: Any, loss: Any, class_weight: Any, what: str = "", first: int = 0) -> None:
        if loss is not None:
            checks.check_callable("loss", loss, "MSE")
        if checks.ends_in_softmax(net) and getattr(loss, "takes_raw_scores", False):
            raise ValueError(
                f"{loss!r} takes raw scores, and the net ends in a Softmax, which makes probabilities of them: leave "
                f"the Softmax out, or take loss.CrossEntropy()."
            )
        self.net = net
        self.loss = loss  # None: what the first targets suggest
        self.class_weight = class_weight
        self.what = what
        self.first = first  # the number, in the data, of the first row
        self.where = ""
        self.whole = True

    def counted(self, rows: Array) -> Array:
        """The numbers of some rows in the data."""
        return rows + self.first

    def arrays(self, x: Any, y: Any, weight: Any = None) -> list[Any]:
        """x, y and the weights, converted and checked; a memory map is left for `rows`, batch by batch."""
        net, what, given = self.net, self.what, x
        x, y = arguments.as_array(f"{what}x", x), arguments.as_array(f"{what}y", y)
        check_lengths(what, x, y)
        if x.ndim < 2 and not net.integer_input:
            way = "[[value] for value in x]" if isinstance(given, (list, tuple)) else "x[:, None]"
            way = "x.to_frame()" if hasattr(given, "to_frame") else way
            raise ValueError(
                f"{what}x has shape {x.shape}: it needs a row for each sample. For one number each: {way}."
            )
        output = net.output_shape(x.shape[1:])
        if self.loss is None:
            self.loss = checks.usual_loss(net, y)
        x_dtype = input_dtype(x, net.dtype, net.integer_input)
        integer = y.dtype.kind in "iu"
        numbers = getattr(self.loss, "takes_class_numbers", True)
        y_dtype = target_dtype(y, output, net.dtype) if numbers else net.dtype
        if not isinstance(x, np.memmap):
            x = converted(f"{what}x", x, x_dtype, self.counted, self.where)
        if not isinstance(y, np.memmap):
            y = converted(f"{what}y", y, y_dtype, self.counted, self.where)
        if isinstance(self.loss, _loss.Loss):  # a NaN label has an error of its own, before that of class numbers
            self.loss.check_labels((len(x), *output), y)
            self.loss.check_shapes((len(x), *output), y.shape, integer)
        if not isinstance(y, np.memmap):
            self.check_real(y, output[-1])
        self.dtypes = [x_dtype, y_dtype, net.dtype]
        self.classes = output[-1]
        return [x, y, self.weights(y, weight, (len(x), *output[:-1]))]

    def check_real(self, y: Array, classes: int) -> None:
        if isinstance(self.loss, _loss.Loss):
            self.loss.check_real(y, classes)

    def weights(self, y: Array, weight: Any, steps: tuple[int, ...]) -> Array | None:
        """What each row weighs, or each of its time steps: the weight of the sample times that of its class. The sample
        weights of arrays are scaled to mean 1 first, unless the loss sums its batch."""
        if weight is None and self.class_weight is None:
            return None
        what = f"{self.what}sample_weight"
        if weight is not None:
            weight = _loss.Loss.checked_weight(weight, steps, self.whole, what)
            if self.whole and not is_summed(self.loss):
                weight = _loss.relative_weight(weight)
        if self.class_weight is not None:
            found, place = np.unique(metrics.class_numbers(y, _labels(self.loss)), return_inverse=True)
            by_class = {getattr(self.loss, "ignore_index", None): 0.0} | self.class_weight
            missing = [number for number in found.tolist() if number not in by_class]
            if missing:
                raise ValueError(f"class_weight has a weight for every class number in y; missing: {missing}.")
            by_class = np.array([by_class[number] for number in found.tolist()], np.float64)[place]
            weight = by_class if weight is None else (weight.T * by_class).T
            what = f"{self.what}class_weight"
            if self.whole and not weight.any():
                raise ValueError(f"{what} is not zero for all classes that are in y, {found.tolist()}.")
        return _loss.converted_weight(weight, self.net.dtype, what)

    def batch(self, raw: Any, number: int) -> Batch:
        """One (x, y) or (x, y, weight) of an iterable."""
        self.where = f" of batch {number}"
        if not isinstance(raw, (tuple, list)) or len(raw) not in (2, 3):
            raise ValueError(f"an iterable of batches gives (x, y) or (x, y, weight), got {type(raw).__name__}.")
        self.whole = False  # a batch may have no weight at all
        x, y, weight = self.arrays(*raw)
        checks.check_smallest(self.net, x)
        return x, y, weight

    def rows(self, arrays: list[Any], batch_size: int, smallest: int = 1, steps: int | None = None) -> Any:
        return ArrayBatches(
            arrays,
            self.dtypes,
            batch_size,
            smallest,
            steps,
            lambda y: self.check_real(y, self.classes),
            self.what,
            self.first,
        )


class TrainingData(NamedTuple):
    """What `train` trains on, and evaluates after each epoch."""

    loss: Any  # the one that was given, or that the targets suggest
    rows: Any  # ArrayBatches or IterableBatches
    first: Array  # x of the first batch
    smallest: int  # the rows of the smallest batch
    validation: ArrayBatches | None


def training_data(
    net: Any, x: Any, y: Any, loss: Any, weights: tuple[Any, Any], validation: Any, batching: tuple[int, int, Any]
) -> TrainingData:
    """The arguments of `train`, checked. `weights` are those of samples and classes, `batching` is (batch_size, epochs,
    steps_per_epoch)."""
    (sample_weight, class_weight), (batch_size, epochs, steps) = weights, batching
    streamed = y is None and not (isinstance(x, np.ndarray) or _is_rows(x))
    fraction = float(validation) if isinstance(validation, (float, np.floating)) else None
    if class_weight is not None:
        class_weight = class_weights(class_weight, None if streamed else arguments.as_array("y", y), loss)
    adapter = DataAdapter(net, loss, class_weight)
    if loss is not None and not callable(getattr(loss, "backward", None)):
        raise TypeError(f"a loss needs a method backward() -> dL/dpred; {loss!r} has none.")
    if streamed:
        if fraction is not None:
            raise ValueError("validation as a fraction needs x and y as arrays: give validation=(x, y).")
        if sample_weight is not None:
            raise ValueError("sample_weight goes with arrays: let each batch be (x, y, weight).")
        rows: Any = IterableBatches(x, adapter.batch, epochs, steps)
        first, smallest = rows.first[0], len(rows.first[0])
    else:
        if fraction is not None:
            adapter.loss = loss if loss is not None else checks.usual_loss(net, arguments.as_array("y", y))
            x, y, sample_weight, validation = split(x, y, sample_weight, fraction)
        arrays = adapter.arrays(x, y, sample_weight)
        rows = adapter.rows(arrays, batch_size, net.min_batch, steps)
        first, smallest = arrays[0][:batch_size], rows.smallest
    other = DataAdapter(net, adapter.loss, None, "validation ")
    if fraction is not None:
        other.class_weight, other.first = class_weight, len(x)
    held_out = None if validation is None else _validation(other, validation, first.shape[1:], batch_size)
    return TrainingData(adapter.loss, rows, first, smallest, held_out)


def _validation(adapter: DataAdapter, given: Any, input_shape: tuple[int, ...], batch_size: int) -> ArrayBatches:
    """The rows that are evaluated after each epoch; those of the training have that input_shape."""
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise ValueError(f"validation is (x, y) or a fraction in (0, 1), got {type(given).__name__}.")
    arrays = adapter.arrays(*given)
    shape = arrays[0].shape[1:]
    if adapter.net.input_shape is None and shape != input_shape:
        adapter.net.copy().build(input_shape).output_shape(shape)  # says what does not fit
    return adapter.rows(arrays, max(batch_size, 1024))


def _is_rows(x: Any) -> bool:
    """Whether a list holds rows of numbers, and not (x, y) batches."""
    return isinstance(x, (list, tuple)) and not (x and isinstance(x[0], tuple))
