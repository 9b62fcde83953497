"""Model: a chain of layers that trains, predicts, and is saved; and History, what a training leaves behind.

In this file, in this order:
  what comes back    LoadedState, History
  the net            Model
  files              load
and reached from here: DivergenceError and Run of layerwise/training.py, ModelFileError of layerwise/files.py
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from layerwise import layers as _layers
from layerwise import loss as _loss
from layerwise import optim as _optim
from layerwise.core import arguments, display, files, habits, interrupts
from layerwise.core.base import within
from layerwise.core.files import ModelFileError
from layerwise.core.parameters import ParameterVector, Workspace
from layerwise.core.parameters import layout as lay_out
from layerwise.training import data as _data
from layerwise.training import metrics, serialize
from layerwise.training import resume as _resume
from layerwise.training.loop import (
    CallbackAdapter,
    DivergenceError,
    Run,
    RunningMeans,
    StackRun,
    StackRunningMeans,
    WeightedLoss,
    broadcast_to_copies,
    is_summed,
    value_of,
)

Array = np.ndarray
Method = TypeVar("Method", bound=Callable[..., Any])

_metrics = metrics


SUMMARY = ("path", "layer", "output", "parameters")


class LoadedState(NamedTuple):
    """What `load_state_dict` found: names of the net that the state lacks, and names that the net lacks."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class History(dict[str, list[float]]):
    """Name -> one number per epoch: "loss", every metric, the same with "val_" before it, "seconds".

    `interrupted` is True when Ctrl-C ended the training.
    """

    interrupted = False
    diverged: Any = None  # of a stack of copies: which of them stopped, (S,)

    @property
    def epochs(self) -> int:
        return len(self.get("seconds", ()))

    def _single_words(self) -> list[str]:
        """The quantities without those of telemetry, whose names are of several words: a dozen for each layer."""
        return [name for name in self if " " not in name]

    def _repr_html_(self) -> str:
        names = self._single_words()
        rows = [[name, *_extremes(np.asarray(self[name]))] for name in names if len(self[name])]
        notes = [f"{self.epochs} epochs" + ", interrupted" * self.interrupted]
        if len(names) < len(self):
            notes.append("Telemetry is not shown here: history.to_frame() has all.")
        return display.table(["", "first", "last", "lowest", "highest"], rows, 1, notes)

    def to_frame(self) -> Any:
        """A pandas DataFrame: a row for each epoch, from 1 on, a column for each quantity; of a stack of copies one for
        each copy, "loss 0", "loss 1", ..."""
        try:
            from pandas import DataFrame, RangeIndex
        except ImportError:
            raise ImportError('to_frame needs a package: pip install "layerwise[pandas]"') from None
        columns: dict[str, Any] = {}
        for name, values in self.items():
            if np.ndim(values) == 1:
                columns[name] = values
            else:
                columns |= {f"{name} {copy}": each for copy, each in enumerate(np.transpose(values))}
        return DataFrame(columns, index=RangeIndex(1, self.epochs + 1, name="epoch"))

    def plot(self) -> Any:
        """The curves as a matplotlib Figure: the loss, and beside it the metrics; training and validation. A notebook
        shows it as a cell's last line, a script by its `show()`."""
        names = [name for name in self._single_words() if name != "seconds" and not name.startswith("val_")]
        figure = display.figure(figsize=(5 * len(names), 3.6), layout="constrained")
        for place, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), place + 1)
            for key, label, colour in ((name, "training", "#0072b2"), ("val_" + name, "validation", "#d55e00")):
                if key in self:
                    axes.plot(range(1, len(self[key]) + 1), self[key], label=label, color=colour, marker=".")
            axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
            axes.spines[["top", "right"]].set_visible(False)
            axes.locator_params(axis="x", integer=True)
            axes.legend(frameon=False)
        return figure


def _extremes(values: Array) -> list[str]:
    """First, last, lowest and highest of a quantity (epochs,), or of copies (epochs, S), as text."""
    if values.dtype.kind not in "biuf":
        return [str(values[0]), str(values[-1]), "", ""]
    ends = [np.unique([np.fmin.reduce(each), np.fmax.reduce(each)]) for each in (values[0].ravel(), values[-1].ravel())]
    told = [" to ".join(f"{number:.4g}" for number in end) for end in ends]
    for place in (
        np.where(np.isnan(values), np.inf, values).argmin(),
        np.where(np.isnan(values), -np.inf, values).argmax(),
    ):
        epoch, *copy = np.unravel_index(place, values.shape)
        told.append(f"{values.flat[place]:.4g} (epoch {epoch + 1}{f', copy {copy[0]}' if copy else ''})")
    return told


def _told(method: Method) -> Method:
    """The same method; arguments that it does not take and that are a habit, or a slip, are told what to write."""
    names = set(inspect.signature(method).parameters)

    @functools.wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.keys() <= names:
            habits.check_arguments("net", f"net.{method.__name__}", method, kwargs)
        if not (args[1:] or "x" in kwargs) or isinstance(kwargs.get("x", args[-1] if len(args) == 2 else None), bool):
            raise TypeError(
                f"net.{method.__name__} takes the data, net.{method.__name__}(x, y). Training and inference are said "
                f"where they are meant: net(x, training=True), net(x)."
            )
        return method(*args, **kwargs)

    return cast(Method, checked)


class Model(_layers.Chain):
    """A net: layers one after the other. `Model([Linear(8), Tanh(), Linear(2)], seed=0)`.

    The first batch, or `build(input_shape)`, makes the parameters: w and b of every layer are views of one
    vector. One seed decides weights, shuffling and dropout, to the same bits on the same machine with the same packages
    and number of BLAS threads; without one a seed is drawn, and kept as `net.seed`.
    dtype is "float32", or "float64" for checking gradients. A Model is a Layer and may stand in another Model.
    """

    optim: Any = None
    loss: Any = None
    training = False  # within `train`
    stopped: Any = None  # of a stack: the copies that diverged and move no more, (S,)

    def __init__(
        self,
        layers: Sequence[_layers.Layer],
        seed: Any = None,
        dtype: Any = "float32",
        copies: int | None = None,
        name: str | None = None,
    ) -> None:
        # All is checked before the layers become this net's own.
        if isinstance(seed, _layers.Layer):
            raise TypeError("Model takes its layers as one list: Model([Linear(8), Softmax()]).")
        if dtype not in ("float32", "float64", np.float32, np.float64):
            raise ValueError(f'dtype is "float32" or "float64", got {dtype!r}.')
        if copies is not None:
            arguments.count("copies", copies)
            given = [(place, layer) for place, layer in enumerate(layers) if isinstance(layer, _layers.Layer)]
            never = [f"{leaf.label} (layers.{p})" for p, each in given for leaf in each.leaves() if not leaf.stackable]
            if never:
                raise ValueError(f"copies: these layers can't stand in a stack of nets: {', '.join(never)}.")
        seeds = _seeds(seed, copies)
        super().__init__(layers, name)
        self.seeds = seeds
        self._attach(ParameterVector(0, dtype, copies), Workspace(dtype))
        self._shuffle: list[np.random.Generator] | None = None
        self._layout: Any = None
        self._laid_out: Any = None  # the parameter vector that the layout is of, and its version then

    # What a net is.

    @property
    def seed(self) -> int:
        """What decides weights, shuffling and dropout; of a stack, those of the first copy (all: `seeds`)."""
        return self.seeds[0]

    @property
    def parameter_count(self) -> int:
        """How many numbers a net learns; it must be built."""
        return self.vector.shape[-1]

    @property
    def vector(self) -> Array:
        """All parameters, (P,), layer after layer: every w and b is a view of a part of it."""
        return self.layout.vectors[0][0]

    @property
    def gradient(self) -> Array:
        """The gradients of `vector`, (P,), in the same order."""
        return self.layout.vectors[0][1]

    @property
    def layout(self) -> _optim.Layout:
        """The net's parameters and gradients as vectors; the same object until a layer is frozen or thawed."""
        flat = self._flat
        if self._layout is None or self._laid_out != (flat, flat.version):
            if self.input_shape is None:
                raise ValueError(
                    f"{self.label} has no parameters yet: call build(input_shape), or pass a batch through."
                )
            self._layout, self._laid_out = lay_out(self.leaves(), flat), (flat, flat.version)
        return self._layout

    def summary(self) -> display.Text:
        """A table of the layers, those within others too: path, the name in messages and telemetry; the arguments that
        are not defaults; output shape; parameters. It is text; a notebook shows a table. The net must be built."""
        rows = [*self._rows(), ["total", "", "", f"{self.parameter_count:,}"]]
        wide = [max(map(len, column)) for column in zip(SUMMARY, *rows, strict=True)]
        texts = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:<{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in (SUMMARY, *rows)]
        lines = [text.rstrip() for text in texts]
        rule = "-" * len(lines[0])
        return display.Text("\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]]), display.table(SUMMARY, rows, 3))

    def _rows(self) -> list[list[str]]:
        """Path, arguments, output and parameters of each layer within; the last two empty where the net isn't built."""
        rows = []
        for layer in itertools.islice(within(self), 1, None):
            shape = layer.input_shape and str(layer.output_shape(layer.input_shape))
            count = sum(math.prod(shape) for shape, _ in layer._specs.values())
            told = f"{count:,}" + " (frozen)" * (count > 0 and layer.frozen)
            rows.append([layer.path, _written(layer), shape or "", told if shape and not layer.children() else ""])
        return rows

    def _repr_html_(self) -> str:
        if self.input_shape is not None:
            return self.summary()._repr_html_()
        note = "Not built yet: the first batch, or build(input_shape), tells the sizes."
        return display.table(SUMMARY, self._rows(), 3, [note])

    def config(self) -> dict[str, Any]:
        # A Model within a stack has one seed, its own, and as many copies as the net around it says.
        stack = self.copies is not None and len(self.seeds) == self.copies and not (self.path and self.copies == 1)
        seed = self.seeds if stack else self.seed
        config = {"layers": list(self.layers), "seed": seed, "dtype": self.dtype.name, "name": self.name}
        return config | {"copies": self.copies} if stack else config

    def copy(self, copy: int | None = None, dtype: Any = None) -> Any:  # type: ignore[override]
        """A copy of the net that belongs to no other; of a stack, copy number `copy` as a single net."""
        if copy is None:
            return super().copy(dtype)
        whole = isinstance(copy, (int, np.integer))
        if self.copies is None or not whole or not -self.copies <= copy < self.copies:
            raise ValueError(f"this net is a stack of {self.copies or 'no'} copies, and has no copy {copy!r}.")
        self._built_arrays()  # says so where there are none yet
        single = super().copy(dtype)
        single.seeds = [self.seeds[copy]]
        single._shuffle = self._shuffle and [single._shuffle[copy]]
        for leaf in single.leaves():
            leaf._seeds = [leaf._seeds[copy]]
            leaf._rngs = leaf._rngs and [leaf._rngs[copy]]
            leaf.parameters = {name: value[copy] for name, value in leaf.parameters.items()}
        single._allocate(single.dtype, None)
        single.optim = single._layout = single.stopped = None
        return single

    def _build(self, input_shape: _layers.Shape, seeds: Sequence[int | None] = (None,)) -> None:
        super()._build(input_shape, self.seeds if seeds[0] is None else seeds)

    # What a net does.

    def predict(self, x: Any, batch_size: int = 1024, spread: bool = False) -> Any:
        """The output for every row of x, in inference mode, (N, ...). Keeps nothing, and may be called from
        several threads at once; a built net's memory is bounded by the batch.

        Of a stack the mean over its copies; with `spread`, (mean, standard deviation) over them.
        """
        if arguments.flag("spread", spread) and self.copies is None:
            raise ValueError("spread is that of the copies in a stack: make the net with copies=S.")
        arguments.count("batch_size", batch_size)
        x = arguments.numbers(self.label, x)
        self._converted(x[:1] if x.ndim > 1 else x)  # says what is wrong, before anything is built
        if self.input_shape is None and len(x) > 0:
            self.build(x.shape[1:])
        lead, workspace = self._flat.lead, Workspace(self.dtype)
        view = self._inference_view(workspace)
        reusing = len(x) > batch_size  # a single batch has nothing to reuse
        if len(x) == 0:
            nothing = np.empty((0, *self.output_shape(x.shape[1:])), self.dtype)
            return (nothing, nothing.copy()) if spread else nothing
        output = None
        with np.errstate(all="ignore"):
            for start in range(0, len(x), batch_size):
                batch = view._converted(x[start : start + batch_size])
                if start == 0 and batch.shape[1:] != self.input_shape:
                    self.output_shape(batch.shape[1:])
                with workspace.step(reusing):
                    y = view.forward(np.broadcast_to(batch, (*lead, *batch.shape)) if lead else batch, False)
                if lead:
                    moving = y if self.stopped is None or self.stopped.all() else y[~self.stopped]
                    y = np.stack([moving.mean(0), moving.std(0)], 1)
                if output is None:
                    output = np.empty((len(x), *y.shape[1:]), self.dtype)
                output[start : start + batch_size] = y
        assert output is not None
        if not lead:
            return output
        mean, deviation = (np.ascontiguousarray(output[:, place]) for place in range(2))
        return (mean, deviation) if spread else mean

    @_told
    def evaluate(
        self, x: Any, y: Any, loss: Any = None, metrics: Any = (), batch_size: int = 1024, sample_weight: Any = None
    ) -> dict[str, float]:
        """{"loss": ..., metric: ...} over all rows, in inference mode; the loss is a mean over samples."""
        loss = loss if loss is not None else self.loss
        data = DataAdapter(self, loss, None)
        arrays = data.arrays(x, y, sample_weight)
        loss = data.loss
        chosen = self._chosen(metrics, loss)
        rows = data.rows(arrays, arguments.count("batch_size", batch_size))
        if self.input_shape is None:
            self._check_first(loss, arrays[0][:batch_size])
            self.build(arrays[0].shape[1:])
        return self._evaluated(rows, loss, chosen)

    def _evaluated(self, rows: Any, loss: Any, chosen: dict[str, Any], add_up: Any = None) -> dict[str, Any]:
        """The loss over batches, the metrics over all rows at once. `add_up` sums arrays over the processes, each of
        which has a part of each batch."""
        totals = (RunningMeans if self.copies is None else StackRunningMeans)(loss, {})
        lead, workspace = self._flat.lead, Workspace(self.dtype)
        view = self._inference_view(workspace)
        weighted = WeightedLoss(loss)
        kept: list[Any] = []
        if chosen:  # copies of reused arrays, and of the data, which may be a memory map
            x, *others = rows.arrays
            kept = [np.zeros((*lead, len(x), *self.output_shape(x.shape[1:])), self.dtype)]
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
                value = value_of(loss if weight is None else weighted, pred, y, weight, self.copies)
            totals.add(value, pred, y, weight)
            if chosen:
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
        for name, metric in chosen.items():
            pred, *others = kept
            found[name] = np.array([metric(each, *others) for each in pred]) if lead else metric(pred, *others)
        return found

    def backpropagate(self, loss: Any) -> None:
        """Backpropagation as an optimizer does it: the gradient of every parameter that is not frozen, from the
        last layer down to the first that has one; dL/dx of the data is not computed."""
        if not self.training:
            with np.errstate(all="ignore"):
                return self._backpropagate(loss)
        self._backpropagate(loss)

    def _backpropagate(self, loss: Any) -> None:
        needed = self.input_gradient_needed
        self.input_gradient_needed = False
        try:
            with self._workspace.rest_of_step(self.training):
                self.backward(np.asarray(loss.backward(), self.dtype))
        finally:
            self.input_gradient_needed = needed

    def reevaluate(self, loss: Any) -> float:
        """The loss and all gradients of the last batch at the present weights: same rows, same random draws, the
        running statistics unmoved. For optimizers that evaluate more than once a step."""
        within = loss.inner if isinstance(loss, WeightedLoss) else loss
        if not isinstance(within, _loss.Loss) or loss.pred is None or self.kept is None:
            raise TypeError(
                "evaluating a batch again needs a loss of ours, or a subclass of Loss, after net(x) and loss."
            )
        x, training = self.kept
        drawn = [leaf for leaf in self.leaves() if training and leaf.rng_state is not None]
        buffers = [(value, value.copy()) for leaf in self.leaves() for value in leaf.buffers.values()]
        for leaf in drawn:
            leaf.rng.bit_generator.state = leaf.rng_state
        workspace, cursor = self._workspace, self._workspace.cursor
        with np.errstate(all="ignore"):
            pred = self.forward(x, training)  # into new arrays: those of the first evaluation are still looked at
            value = loss(pred, loss.real, loss.sample_weight)
            self.backpropagate(loss)
        workspace.cursor = cursor
        for live, kept in buffers:
            np.copyto(live, kept)
        return value

    @_told
    def train(
        self,
        x: Any,
        y: Any = None,
        optim: Any = None,
        loss: Any = None,
        epochs: int = 10,
        batch_size: int = 32,
        shuffle: bool = True,
        validation: Any = None,
        metrics: Any = (),
        callbacks: Any = (),
        sample_weight: Any = None,
        class_weight: Any = None,
        steps_per_epoch: int | None = None,
        resume: Any = None,
        verbose: bool = True,
    ) -> History:
        """Train on x (N, ...) and y (N, ...), or class numbers (N,), for `epochs` rounds; the History of them.

        optim      any callable (net, loss); None: that of the last `train`, else Adam()
        loss       None: that of the last `train`, else CrossEntropy after a Softmax, BinaryCrossEntropy after a Sigmoid
                   where y lies in [0, 1], else MSE
        x          an array, a list, a memory map; with y=None an iterable of (x, y) or (x, y, weight) batches
        validation (x, y), or a fraction: that many of the last rows, taken before shuffling
        metrics    "accuracy", "f1", "auc", "r2", ... of layerwise.metrics, or callables (pred, real) -> float,
                   with sample_weight too where they take it. History has their running mean over the batches; for
                   validation, "val_accuracy", and in `evaluate` they see all rows at once. Arrays are read-only copies
        callbacks  callables (net, logs), called after each epoch, True ends the training; or objects with any of
                   begin(run), step(run), epoch(run, logs), end(run)
        sample_weight, class_weight  (N,); class number -> weight, or a list of them. Value and gradient of a batch are
                   sum(u v) / N, so that a row weighs the same beside another whatever the batch size; History has
                   sum(u v) / sum(u) over the epoch. Sample weights are scaled to mean 1 first (those of an iterable and
                   those of a loss with reduction "sum" or "batch_sum" are not), then times the class weights as they
                   are: Keras's, up to one constant. "balanced" is rows / (classes * rows of the class). Both go with
                   the rows that validation=0.2 holds out; validation=(x, y, weight) has weights of its own.
        resume     the file of a callbacks.Checkpoint: the training that it is of goes on, up to `epochs` in all, to the
                   same bits as if it had never stopped (on the same machine, with the same packages and number of BLAS
                   threads). Give the same net, data, batch_size and callbacks (those that only write files may come
                   and go). A loss that is given is the same one, an optimizer of the same class, whose numbers are the
                   file's, as are the layers that are frozen. Where there is no file yet, the training begins. One that
                   a callback ended goes on with more patience, another target, a fresh TimeLimit, or without that
                   callback; else it stays ended, and a UserWarning says so. An iterable goes on where it was if it has
                   state_dict and load_state_dict, as augment.batches; any other begins each epoch by itself.

        Ctrl-C ends the training after the step under way. DivergenceError when a loss or a parameter is no longer
        finite: the net, the optimizer, the running statistics and the random numbers go back to the end of the last
        good epoch; before one has ended, to the start of this call, which with `resume` is the moment of the file, also
        within an epoch. UserWarning, once, for a net whose layers are all frozen, and a Softmax on top of another.
        """
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            arguments.count(name, value)
        if steps_per_epoch is not None:
            arguments.count("steps_per_epoch", steps_per_epoch)
        shuffle, verbose = arguments.flag("shuffle", shuffle), arguments.verbose(verbose)
        # Where several processes train one net, the file of the first counts.
        saved = self._training_in(None if getattr(optim, "follows", False) else resume)
        if saved is not None:
            with files.reading(resume):
                optim = serialize.decode_settings(saved["optim"], "optim") if optim is None else optim
                loss = serialize.decode_settings(saved["loss"], "loss") if loss is None else loss
        if isinstance(optim, _loss.Loss) or isinstance(loss, _optim.Optimizer):
            raise TypeError("the optimizer comes before the loss: net.train(x, y, optim.Adam(), loss.MSE()).")
        optim = optim if optim is not None else self.optim if self.optim is not None else _optim.Adam()
        loss = loss if loss is not None else self.loss
        _check_callable("optim", optim, "Adam")
        callbacks = () if callbacks is None else callbacks
        given = callbacks if isinstance(callbacks, (list, tuple)) else (callbacks,)
        watchers = [CallbackAdapter(each) for each in given]

        streamed = y is None and not (isinstance(x, np.ndarray) or _is_rows(x))
        if class_weight is not None:
            class_weight = _class_weights(class_weight, None if streamed else arguments.as_array("y", y), loss)
        data = DataAdapter(self, loss, class_weight)
        if loss is not None and not callable(getattr(loss, "backward", None)):
            raise TypeError(f"a loss needs a method backward() -> dL/dpred; {loss!r} has none.")
        held: list[Array | None] | None = None
        first = 0  # the row of the data that is the first of the validation
        fraction = isinstance(validation, (float, np.floating))
        if streamed:
            if fraction:
                raise ValueError("validation as a fraction needs x and y as arrays: give validation=(x, y).")
            if sample_weight is not None:
                raise ValueError("sample_weight goes with arrays: let each batch be (x, y, weight).")
            rows: Any = _data.IterableBatches(x, data.batch, epochs, steps_per_epoch)
            input_shape = rows.first[0].shape[1:]
            sample, smallest = rows.first[0], len(rows.first[0])
        else:
            if fraction:
                data.loss = loss if loss is not None else self._usual_loss(arguments.as_array("y", y))
                x, y, sample_weight, held = _split(x, y, sample_weight, float(validation))
                first = len(x)
            arrays = data.arrays(x, y, sample_weight)
            input_shape = arrays[0].shape[1:]
            rows = data.rows(arrays, batch_size, self.min_batch, steps_per_epoch)
            sample, smallest = arrays[0][:batch_size], rows.smallest
        loss = data.loss
        chosen = self._chosen(metrics, loss)
        if validation is not None and held is None:
            if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
                raise ValueError(f"validation is (x, y) or a fraction in (0, 1), got {type(validation).__name__}.")
            held = [*validation, None][:3]
        unseen = None
        if held is not None:
            checked = DataAdapter(self, loss, class_weight if fraction else None, "validation ", first)
            given = checked.arrays(*held)
            shape = given[0].shape[1:]
            if self.input_shape is None and shape != input_shape:
                self.copy().build(input_shape).output_shape(shape)  # says what does not fit
            unseen = checked.rows(given, max(batch_size, 1024))
        if isinstance(optim, _optim.Optimizer):
            optim.check(self)
            for name in optim.hyper:
                getattr(optim, name)  # refuses what a schedule gives for the first step, if it is illegal
        if self.copies is not None and not (isinstance(optim, _optim.Optimizer) and getattr(loss, "stackable", False)):
            raise TypeError("a stack of copies is trained by an Optimizer of ours and a loss that is `stackable`.")
        self._check_smallest(sample[:smallest])
        self._check_first(loss, sample)

        # One that spans processes has its own.
        kind = getattr(optim, "run_type", Run if self.copies is None else StackRun)
        run = kind(self, optim, loss, chosen, watchers, epochs, History())
        if saved is not None:
            with files.reading(resume):
                _resume.check(saved, run, rows, unseen is not None, self._declared_for(input_shape), resume)
        run.check_callbacks(rows, unseen)
        before = None if saved is None else _resume.Rollback(self, optim)
        if self.input_shape is None:
            self.build(input_shape)
        for doubt in self._doubts(loss):
            warnings.warn(doubt, UserWarning, stacklevel=3)  # `_told` lies between
        run.check(rows, unseen, shuffle)
        with interrupts.Held() as ctrl_c:
            run._interrupt = ctrl_c
            try:
                if saved is not None:
                    with files.reading(resume):
                        _resume.restore(saved, run)
                        if hasattr(optim, "prepare"):
                            optim.prepare(self)
                    run.resumed, run.resumed_from, run.epoch_at_first = saved, resume, run.epoch
                elif hasattr(optim, "prepare"):
                    optim.prepare(self)
                self.optim, self.loss = optim, loss
                history = run.over(rows, unseen, shuffle, verbose)
            except BaseException:
                if before is not None and not run.begun:  # what a file holds has turned out not to fit
                    before.restore()
                raise
        # Asked when the handler is put back: until then Ctrl-C is only noted, and what comes later raises.
        history.interrupted = history.interrupted or ctrl_c.asked
        return history

    def _training_in(self, path: Any) -> dict[str, Any] | None:
        """The state of the training in a file; None where there is no file yet."""
        if path is None:
            return None
        try:
            header, arrays = files.read(path)
        except FileNotFoundError:
            files.check_place(path)
            return None
        models = {type(each).__name__ for each in within(self) if isinstance(each, Model)}
        described = json.loads(json.dumps(serialize.encode_net(self)))
        with files.reading(path):
            if "training" not in header:
                raise ModelFileError(
                    f"{path} holds a net and no training: resume takes what callbacks.Checkpoint writes without "
                    f"weights_only."
                )
            found = serialize.of_header(header)
            saved = serialize.decode_state(header["training"], arrays)
            brought = ("stopped", "frozen") if "frozen" in saved else ("stopped",)
            here, there = (serialize.seedless(each, models, brought) for each in (described, found))
            if here != there:
                frozen = "" if "frozen" in saved else ", frozen as they were"
                raise ModelFileError(f"{path} is of another net than this one: make the same layers{frozen}.")
            seeds = _seeds(found["arguments"].get("seed", self.seeds), self.copies)
            history = _resume.as_lists(saved["history"])
            return saved | {"arrays": arrays, "seeds": seeds, "history": history}

    def _declared_for(self, input_shape: _layers.Shape) -> Model:
        """This net; or if it isn't built, one that knows the shapes of its parameters and has none."""
        if self.input_shape is not None:
            return self
        net = self.copy()
        net._declare(input_shape)
        return net

    def _usual_loss(self, y: Any) -> Any:
        """The loss for targets y where none is given."""
        if self._ends_in_softmax:
            return _loss.CrossEntropy()
        if isinstance(self._last, _layers.Sigmoid) and y is not None and ((y >= 0) & (y <= 1)).all():
            return _loss.BinaryCrossEntropy()
        return _loss.MSE()

    def _doubts(self, loss: Any) -> Iterator[str]:
        """What a training is warned of: it can be done, and hardly anyone means it."""
        if any(leaf.parameters for leaf in self.leaves()) and not self.trainable:
            yield "every layer with parameters is frozen, so that this training changes none: set layer.frozen = False."
        between = (_layers.Dropout, _layers.GaussianNoise, _layers.Flatten, _layers.Reshape)
        row = [each for each in _in_a_row(self) if not isinstance(each, between)]
        for below, above in itertools.pairwise(row):
            if isinstance(below, _layers.Softmax) and isinstance(above, _layers.Softmax):
                yield f"{above.label} is on top of {below.label}: gradients are close to 0 there. Leave one out."
        scores = isinstance(loss, _loss.BinaryCrossEntropy) and loss.from_logits
        if scores and isinstance(self._last, _layers.Sigmoid):
            yield f"{loss!r} takes raw scores, and the net ends in a Sigmoid, on which it puts another: leave one out."

    @property
    def _last(self) -> _layers.Layer:
        """The last layer, of the last Model within where there is one; other containers do more than chain."""
        last = self.layers[-1]
        while isinstance(last, Model):
            last = last.layers[-1]
        return last

    def _tells_labels(self, loss: Any) -> bool:
        """Whether each column of the output is a yes or no of its own, and not one class of several."""
        if isinstance(self._last, (_layers.Softmax, _layers.LogSoftmax)):
            return False
        sigmoid = isinstance(self._last, (_layers.Sigmoid, _layers.HardSigmoid))
        return sigmoid or bool(getattr(loss, "binary", False))

    def _chosen(self, metrics: Any, loss: Any) -> dict[str, Any]:
        """Name -> metric, as this net and this loss have it."""
        raw_scores, ignored = (getattr(loss, name, None) for name in ("takes_raw_scores", "ignore_index"))
        return _metrics.named(metrics, bool(raw_scores), self._tells_labels(loss), ignored)

    @property
    def _ends_in_softmax(self) -> bool:
        return isinstance(self._last, _layers.Softmax)

    def _check_first(self, loss: Any, x: Array) -> None:
        """What can be said of the predictions only when there are some, before anything moves."""
        asks = isinstance(loss, _loss.Loss) and type(loss).check_pred is not _loss.Loss.check_pred
        if asks and not self._ends_in_softmax:
            net = self if self.input_shape is not None else self.copy()
            pred = net.predict(x)
            if np.isfinite(pred).all():  # else the training says where it went wrong
                loss.check_pred(pred)

    def _check_smallest(self, x: Array) -> None:
        """A batch that may be too small for a layer is tried on a copy."""
        if len(x) < self.min_batch:
            self.copy()(x, training=True)

    @property
    def _order(self) -> list[np.random.Generator]:
        if self._shuffle is None:
            self._shuffle = [np.random.default_rng((seed, 2)) for seed in self.seeds]
        return self._shuffle

    def __getstate__(self) -> dict[str, Any]:
        return dict(super().__getstate__(), _layout=None, _laid_out=None, training=False)

    # Files.

    def state_dict(self) -> dict[str, Array]:
        """Name -> a copy of the array, of all parameters and running statistics, by the names that a file has:
        "layers.0.w"; of a stack (S, ...), and where copies of it diverged "stopped" (S,), which. The net must be
        built."""
        state = {name: array.copy() for name, array in self._built_arrays().items()}
        return state if self.stopped is None or not self.stopped.any() else state | {"stopped": self.stopped.copy()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadedState:
        """Copy the arrays of `state`, as `state_dict` gives them, into the net, by their names.

        ValueError that names all that is missing, unexpected, of another shape, or not finite in the net's dtype, and
        nothing is loaded; with strict=False only for the latter two: the rest is loaded, and the names that did not
        meet are returned. Frozen layers are loaded too; the optimizer's state stays as it is.
        """
        strict = arguments.flag("strict", strict)
        arrays = self._built_arrays()
        if not isinstance(state, Mapping):
            raise TypeError(f"a state is a dict, name -> array, as state_dict() gives it, got {type(state).__name__}.")
        missing = [name for name in arrays if name not in state]
        stopped = None if self.copies is None or "stopped" not in state else np.asarray(state["stopped"])
        unexpected = [name for name in state if name not in arrays and not (name == "stopped" and stopped is not None)]
        given = {name: np.asarray(state[name]) for name in arrays if name in state}
        wrong = [
            f"{name} is {value.dtype} {value.shape}, expected {arrays[name].dtype} {arrays[name].shape}"
            for name, value in given.items()
            if value.shape != arrays[name].shape or value.dtype.kind not in "biuf"
        ]
        wrong = wrong or [
            f"{name} holds what is not finite in {arrays[name].dtype}"
            for name, value in given.items()
            if not _data.is_finite(value, arrays[name].dtype)
            # A copy of a stack that diverged may hold anything.
            and (self.copies is None or _data.is_finite(value, value.dtype))
        ]
        if stopped is not None and (stopped.dtype != bool or stopped.shape != (self.copies,)):
            wrong.append(f"stopped is {stopped.dtype} {stopped.shape}, expected bool ({self.copies},)")
        if wrong or (strict and (missing or unexpected)):
            told = [f"missing are {missing}"] if missing else []
            told += [f"unexpected are {unexpected}"] if unexpected else []
            hint = "" if wrong or not strict else " strict=False loads what fits by name."
            raise ValueError(f"the state is not of this net, and nothing was loaded: {'; '.join(told + wrong)}.{hint}")
        with np.errstate(all="ignore"):
            for name, value in given.items():
                arrays[name][...] = value
        # Without it, a copy that is not finite still stops at its next step.
        self.stopped = None if stopped is None else stopped.copy()
        return LoadedState(missing, unexpected)

    def _built_arrays(self) -> dict[str, Array]:
        if self.input_shape is None:
            raise ValueError(
                f"{self.label} has no parameters yet: call build(input_shape), such as build((784,)), or pass a batch "
                f"through."
            )
        return self._arrays()

    def save(self, path: Any) -> None:
        """Architecture, weights, running statistics and seed in one file: `.npz`, or `.safetensors` with that
        extra. An own layer's class, and an own function, is named in it and given again to `load`."""
        files.write(path, *self._contents())

    def _contents(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The header and the arrays of the net's file."""
        if self.input_shape is None:
            raise ValueError("the net has no weights to save yet: call build(input_shape), or train it.")
        return {"model": serialize.encode_net(self), "input_shape": self.input_shape}, self._arrays()

    def _arrays(self) -> dict[str, Array]:
        """Every array that a file holds, by its name there: the parameters, then the buffers."""
        return self._named("parameters") | self._named("buffers")

    def _named(self, what: str) -> dict[str, Array]:
        """ "layers.0.w" -> array, of the parameters or the buffers of all layers."""
        named: dict[str, Array] = {}
        for leaf in self.leaves():
            place = leaf.path.removeprefix(f"{self.path}.")  # this net may stand in another
            named |= {f"{place}.{name}": value for name, value in getattr(leaf, what).items()}
        return named


def _seeds(seed: Any, copies: int | None) -> list[int]:
    """The seed of each copy: those given, or one and those that follow it; drawn where none is given."""
    if seed is None:
        seed = np.random.SeedSequence().entropy % 2**63  # type: ignore[operator]
    several = isinstance(seed, (list, tuple, np.ndarray)) and copies is not None
    seeds = list(seed) if several else [seed]
    for each in seeds:
        if isinstance(each, bool) or not isinstance(each, (int, np.integer)) or each < 0:
            raise ValueError(f"seed is an integer, 0 or more, or None, got {seed!r}.")
    if several and len(seeds) != copies:
        raise ValueError(f"there are {copies} copies and {len(seeds)} seeds: give one for each.")
    return [int(each) for each in seeds] if several or copies is None else [int(seed) + s for s in range(copies)]


def _written(layer: _layers.Layer) -> str:
    """A layer as it is made, without what is at its default or is told by other rows: Conv2D(32, 3, padding='same')."""
    parameters = inspect.signature(type(layer).__init__).parameters
    told = []
    for name, value in layer.config().items():
        default = parameters[name].default if name in parameters else None
        if value is None or repr(value) == repr(default) or (layer.children() and name in ("layers", "branches")):
            continue
        if isinstance(layer, Model) and name in ("seed", "dtype", "copies"):  # the net's around it
            continue
        shown = getattr(value, "__name__", None) or " ".join(repr(value).split())
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        told.append(shown if default is inspect.Parameter.empty else f"{name}={shown}")
    return f"{type(layer).__name__}({', '.join(told)})"


def _in_a_row(net: Any) -> Iterator[_layers.Layer]:
    """The layers one after the other, those of a Model or a Chain within too."""
    for layer in net.layers:
        if isinstance(layer, Model) or type(layer) is _layers.Chain:
            yield from _in_a_row(layer)
        else:
            yield layer


def _is_rows(x: Any) -> bool:
    """Whether a list holds rows of numbers, and not (x, y) batches."""
    return isinstance(x, (list, tuple)) and not (x and isinstance(x[0], tuple))


def _check_callable(what: str, value: Any, usual: str) -> None:
    """TypeError for what is no optimizer, or no loss; `usual` is the example where no other suggests itself."""
    home: Any = {"optim": _optim, "loss": _loss}[what]
    if isinstance(value, type):
        known = f"{what}." if getattr(home, value.__name__, None) is value else ""
        parameters = list(inspect.signature(value.__init__).parameters.values())[1:]  # type: ignore[misc]
        needed = any(each.default is each.empty and each.kind < each.VAR_POSITIONAL for each in parameters)
        example = f"{known}{value.__name__}({'...' if needed else ''})"
        raise TypeError(f"{what} is the class {value.__name__}: make an instance, such as {example}.")
    if not callable(value):
        way = habits.instead(what, value, home.__all__) if isinstance(value, str) else None
        example = way.replace("(...)", "()") if way else f"{what}.{usual}()"
        raise TypeError(f"{what} is a callable, such as {example}, got {value!r:.200}.")


def _split(x: Any, y: Any, weight: Any, fraction: float) -> tuple[Any, Any, Any, list[Array | None]]:
    """The last rows held out: training x, y and weight, and the three of the rest."""
    x, y = arguments.as_array("x", x), arguments.as_array("y", y)
    _data.check_lengths("", x, y)
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


def _class_weights(given: Any, y: Array | None, loss: Any) -> dict[int, float]:
    """class_weight as a dict, class number -> weight; y is None where rows come in batches."""
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
    """Data that fits a net and a loss: every error here comes before anything is built or moved."""

    def __init__(self, net: Model, loss: Any, class_weight: Any, what: str = "", first: int = 0) -> None:
        if loss is not None:
            _check_callable("loss", loss, "MSE")
        if net._ends_in_softmax and getattr(loss, "takes_raw_scores", False):
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
        _data.check_lengths(what, x, y)
        if x.ndim < 2 and not net.integer_input:
            way = "[[value] for value in x]" if isinstance(given, (list, tuple)) else "x[:, None]"
            way = "x.to_frame()" if hasattr(given, "to_frame") else way
            raise ValueError(
                f"{what}x has shape {x.shape}: it needs a row for each sample. For one number each: {way}."
            )
        output = net.output_shape(x.shape[1:])
        if self.loss is None:
            self.loss = net._usual_loss(y)
        x_dtype = _data.input_dtype(x, net.dtype, net.integer_input)
        integer = y.dtype.kind in "iu"
        numbers = getattr(self.loss, "takes_class_numbers", True)
        y_dtype = _data.target_dtype(y, output, net.dtype) if numbers else net.dtype
        if not isinstance(x, np.memmap):
            x = _data.converted(f"{what}x", x, x_dtype, self.counted, self.where)
        if not isinstance(y, np.memmap):
            y = _data.converted(f"{what}y", y, y_dtype, self.counted, self.where)
        if isinstance(self.loss, _loss.Loss):  # a label that is NaN is told before what is no class number
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
        """What each row weighs, or each of its time steps: the samples' weights, those of arrays scaled to mean 1
        unless the loss sums its batch, times the classes'."""
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

    def batch(self, raw: Any, number: int) -> _data.Batch:
        """One (x, y) or (x, y, weight) of an iterable."""
        self.where = f" of batch {number}"
        if not isinstance(raw, (tuple, list)) or len(raw) not in (2, 3):
            raise ValueError(f"an iterable of batches gives (x, y) or (x, y, weight), got {type(raw).__name__}.")
        self.whole = False  # a batch may have no weight at all
        x, y, weight = self.arrays(*raw)
        self.net._check_smallest(x)
        return x, y, weight

    def rows(self, arrays: list[Any], batch_size: int, smallest: int = 1, steps: int | None = None) -> Any:
        return _data.ArrayBatches(
            arrays,
            self.dtypes,
            batch_size,
            smallest,
            steps,
            lambda y: self.check_real(y, self.classes),
            self.what,
            self.first,
        )


def stack(nets: Sequence[Model]) -> Model:
    """Built nets of one architecture as copies in one stack, each with its weights, seed and place in its random
    numbers. ValueError for nets that differ, or whose layers can't stand in a stack."""
    nets = list(nets)
    for net in nets:
        if not isinstance(net, Model):
            raise TypeError(f"a stack is made of Models, got {net!r:.200}.")
        net._built_arrays()  # says so where there are none yet
    if not nets:
        raise ValueError("a stack is made of one net or more, got none.")
    first = nets[0]
    if not first.stackable:
        raise ValueError(f"{first.label} has layers that can't stand in a stack of nets.")
    leaves = [list(net.leaves()) for net in nets]
    shapes = [[(repr(leaf), leaf._specs) for leaf in each] for each in leaves]
    dtypes = {net.dtype.name for net in nets}
    if any(each != shapes[0] for each in shapes) or len(dtypes) > 1 or any(net.copies is not None for net in nets):
        raise ValueError(
            f"a stack is made of single nets whose layers, shapes and dtypes are the same; the dtypes here are "
            f"{sorted(dtypes)}."
        )
    whole = first.copy()
    whole.seeds = [net.seed for net in nets]
    whole._shuffle = whole.optim = whole._layout = None
    for leaf, *each in zip(whole.leaves(), *leaves, strict=True):
        leaf._seeds = [one._seeds[0] for one in each]
        leaf._rngs = None
        leaf.parameters = {name: np.stack([one.parameters[name] for one in each]) for name in leaf.parameters}
    whole._allocate(whole.dtype, len(nets))
    return whole


# Files -------------------------------------------------------------------------------------------------------


def load(path: Any, custom: dict[str, Any] | None = None) -> Model:
    """The net that `save` wrote. `custom` gives the classes and functions of one's own by name.

    ModelFileError for a file that is damaged, foreign or newer, or names a layer that is not known; nothing in
    a file is executed. FileNotFoundError for no file; TypeError for a `custom` that is not by name.
    """
    known = serialize.named(custom)
    with files.Saved(path) as saved:
        stored = {name: place for name, place in saved.places.items() if not name.startswith("training.")}
        with files.reading(path, "does not describe a net"):
            net = serialize.NetDecoder(known).decode(serialize.of_header(saved.header))
            if not isinstance(net, Model):
                raise ModelFileError(f"{path} holds no Model.")
            input_shape = net._possible(saved.header["input_shape"])
            net._declare(input_shape)
            for each in within(net):
                stopped = getattr(each, "stopped", None)
                if stopped is not None and stopped.shape != (net.copies,):
                    raise ModelFileError(f"{path} is damaged: it says of {len(stopped)} copies whether they stopped.")
            # Before memory is taken: a small file may describe a net that is too large for it.
            _resume.check_arrays(net, stored, path)
            for leaf in net.leaves():
                leaf._specs = {name: (shape, ...) for name, (shape, _) in leaf._specs.items()}  # nothing is drawn
            net._build(input_shape)
        for name, array in net._arrays().items():
            saved.array(name, out=array)
    return net


__all__ = ["DivergenceError", "History", "LoadedState", "Model", "ModelFileError", "Run", "load", "stack"]
