"""Model: a chain of layers that trains, predicts, and is saved. `load` and `stack` make one of a file, and of nets.

layerwise/training does the work behind it: the loop, the data, the files. History, LoadedState, DivergenceError,
ModelFileError and Run are reached from here too.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from layerwise import layers as _layers, loss as _loss, optim as _optim
from layerwise.core import arguments, display, files, habits
from layerwise.core.files import ModelFileError
from layerwise.core.parameters import ParameterVector, Workspace, layout as lay_out
from layerwise.training import (
    checks,
    copies as _copies,
    data as _data,
    evaluation,
    netfile,
    resume as _resume,
    serialize,
    summary as _summary,
)
from layerwise.training.callables import CallbackAdapter
from layerwise.training.history import History
from layerwise.training.loop import Run, StackRun
from layerwise.training.means import WeightedLoss
from layerwise.training.netfile import LoadedState
from layerwise.training.rollback import DivergenceError, Rollback

Array = np.ndarray
Method = TypeVar("Method", bound=Callable[..., Any])


def _with_hints(method: Method) -> Method:
    """The same method. Its errors for misspelt arguments, and for those of other frameworks, say what to write."""
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
    and number of BLAS threads. Without a seed, one is drawn and kept as `net.seed`.
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
            _copies.check_stackable(layers)
        seeds = _copies.seeds_of(seed, copies)
        super().__init__(layers, name)
        self.seeds = seeds
        self._attach(ParameterVector(0, dtype, copies), Workspace(dtype))
        self._shuffle: list[np.random.Generator] | None = None
        self._layout: Any = None
        self._laid_out: Any = None  # the parameter vector that the layout is of, and its version then

    # What a net is.

    @property
    def seed(self) -> int:
        """What decides weights, shuffling and dropout; of a stack, the seed of the first copy (all: `seeds`)."""
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
            self._layout, self._laid_out = lay_out(self.leaf_layers(), flat), (flat, flat.version)
        return self._layout

    def summary(self) -> display.Text:
        """A table of all layers, those within others too. Its columns: the path, which messages and telemetry use; the
        arguments that are not defaults; the output shape; the parameters. It is text; a notebook shows a table. The net
        must be built."""
        return _summary.summary(self)

    def _repr_html_(self) -> str:
        return _summary.html(self)

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
        self.check_built()
        return _copies.single(super().copy(dtype), copy)

    def _build(self, input_shape: _layers.Shape, seeds: Sequence[int | None] = (None,)) -> None:
        super()._build(input_shape, self.seeds if seeds[0] is None else seeds)

    # What a net does.

    def predict(self, x: Any, batch_size: int = 1024, spread: bool = False) -> Any:
        """The output for every row of x, in inference mode, (N, ...). Keeps nothing, and may be called from
        several threads at once; a built net's memory is bounded by the batch.

        For a stack it is the mean over the copies; with `spread`, (mean, standard deviation) over them.
        """
        if arguments.flag("spread", spread) and self.copies is None:
            raise ValueError("spread is that of the copies in a stack: make the net with copies=S.")
        arguments.count("batch_size", batch_size)
        x = arguments.numbers(self.label, x)
        self._converted(x[:1] if x.ndim > 1 else x)  # says what is wrong, before anything is built
        if self.input_shape is None and len(x) > 0:
            self.build(x.shape[1:])
        output = evaluation.predicted(self, x, batch_size)
        if self.copies is None:
            return output
        mean, deviation = (np.ascontiguousarray(output[:, place]) for place in range(2))
        return (mean, deviation) if spread else mean

    @_with_hints
    def evaluate(
        self, x: Any, y: Any, loss: Any = None, metrics: Any = (), batch_size: int = 1024, sample_weight: Any = None
    ) -> dict[str, float]:
        """{"loss": ..., metric: ...} over all rows, in inference mode; the loss is a mean over samples."""
        data = _data.DataAdapter(self, loss if loss is not None else self.loss, None)
        arrays = data.arrays(x, y, sample_weight)
        named = checks.named_metrics(self, metrics, data.loss)
        rows = data.rows(arrays, arguments.count("batch_size", batch_size))
        if self.input_shape is None:
            checks.check_first(self, data.loss, arrays[0][:batch_size])
            self.build(arrays[0].shape[1:])
        return evaluation.evaluated(self, rows, data.loss, named)

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
        """The loss and all gradients of the last batch at the present weights, with the same rows and the same random
        draws. The running statistics do not move. For optimizers that evaluate more than once a step."""
        within = loss.inner if isinstance(loss, WeightedLoss) else loss
        if not isinstance(within, _loss.Loss) or loss.pred is None or self.kept is None:
            raise TypeError(
                "evaluating a batch again needs a loss of ours, or a subclass of Loss, after net(x) and loss."
            )
        x, training = self.kept
        if training and not self._workspace.repeatable:
            raise TypeError(
                "this batch can't be evaluated again: the random numbers of a training step are repeated only for an "
                "optimizer whose class has reevaluate = True."
            )
        drawn = [leaf for leaf in self.leaf_layers() if training and leaf.rng_state is not None]
        buffers = [(value, value.copy()) for leaf in self.leaf_layers() for value in leaf.buffers.values()]
        for leaf in drawn:
            leaf.rng.bit_generator.state = leaf.rng_state
        workspace, cursor = self._workspace, self._workspace.cursor
        with np.errstate(all="ignore"):
            pred = self.forward(x, training)  # into new arrays: those of the first evaluation are still read
            value = loss(pred, loss.real, loss.sample_weight)
            self.backpropagate(loss)
        workspace.cursor = cursor
        for live, kept in buffers:
            np.copyto(live, kept)
        return value

    @_with_hints
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
        resume     the file of a callbacks.Checkpoint: its training goes on, up to `epochs` in all, to the same bits as
                   if it had never stopped (on the same machine, with the same packages and number of BLAS
                   threads). Give the same net, data, batch_size and callbacks (those that only write files may come
                   and go). If you give a loss, give the same one; if you give an optimizer, one of the same class. Its
                   numbers, and the layers that are frozen, are those of the file. If there is no file yet, the training
                   begins. A training that a callback ended goes on with more patience, another target, a fresh
                   TimeLimit, or without that callback; else it stays ended, and a UserWarning says so. An iterable goes
                   on where it was if it has state_dict and load_state_dict, as augment.batches; any other begins each
                   epoch by itself.

        Ctrl-C ends the training after the step under way. DivergenceError when a loss or a parameter is no longer
        finite: the net, the optimizer, the running statistics and the random numbers go back to the end of the last
        good epoch. If none has ended, they go back to the start of this call; with `resume` that is the moment of the
        file, even within an epoch. UserWarning, once, for a net whose layers are all frozen, and for a Softmax on top
        of another.
        """
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            arguments.count(name, value)
        if steps_per_epoch is not None:
            arguments.count("steps_per_epoch", steps_per_epoch)
        shuffle, verbose = arguments.flag("shuffle", shuffle), arguments.verbose(verbose)
        # If several processes train one net, the file of the first counts.
        saved = _resume.state_in(None if getattr(optim, "follows", False) else resume, self)
        optim, loss = self._given_or_last(optim, loss, saved, resume)
        callbacks = () if callbacks is None else callbacks
        adapters = [
            CallbackAdapter(each) for each in (callbacks if isinstance(callbacks, (list, tuple)) else [callbacks])
        ]
        weights, batching = (sample_weight, class_weight), (batch_size, epochs, steps_per_epoch)
        data = _data.training_data(self, x, y, loss, weights, validation, batching)
        named = checks.named_metrics(self, metrics, data.loss)
        checks.check_optimizer(self, optim, data.loss)
        checks.check_smallest(self, data.first[: data.smallest])
        checks.check_first(self, data.loss, data.first)

        kind = getattr(
            optim, "run_type", Run if self.copies is None else StackRun
        )  # one that spans processes has its own
        run = kind(self, optim, data.loss, named, adapters, epochs, History())
        input_shape = data.first.shape[1:]
        if saved is not None:
            with files.reading(resume):
                _resume.check(
                    saved, run, data.rows, data.validation is not None, self._declared_for(input_shape), resume
                )
        run.check_callbacks(data.rows, data.validation)
        before = None if saved is None else Rollback(self, optim)
        if self.input_shape is None:
            self.build(input_shape)
        for doubt in checks.doubts(self, data.loss):
            warnings.warn(doubt, UserWarning, stacklevel=3)  # `_with_hints` lies between
        run.check(data.rows, data.validation, shuffle)
        return run.train(data.validation, shuffle, verbose, saved, resume, before)

    def _given_or_last(self, optim: Any, loss: Any, saved: Any, path: Any) -> tuple[Any, Any]:
        """The optimizer and the loss (None: what the targets suggest): those given, else those of the file `path` that
        holds `saved`, else those of the last `train`."""
        if saved is not None:
            with files.reading(path):
                optim = serialize.decode_settings(saved["optim"], "optim") if optim is None else optim
                loss = serialize.decode_settings(saved["loss"], "loss") if loss is None else loss
        if isinstance(optim, _loss.Loss) or isinstance(loss, _optim.Optimizer):
            raise TypeError("the optimizer comes before the loss: net.train(x, y, optim.Adam(), loss.MSE()).")
        optim = optim if optim is not None else self.optim if self.optim is not None else _optim.Adam()
        checks.check_callable("optim", optim, "Adam")
        return optim, loss if loss is not None else self.loss

    def _declared_for(self, input_shape: _layers.Shape) -> Model:
        """This net, if it is built; else a copy that knows the shapes of its parameters and has no parameters."""
        if self.input_shape is not None:
            return self
        net = self.copy()
        net._declare(input_shape)
        return net

    @property
    def _order(self) -> list[np.random.Generator]:
        if self._shuffle is None:
            self._shuffle = [np.random.default_rng((seed, 2)) for seed in self.seeds]
        return self._shuffle

    def __getstate__(self) -> dict[str, Any]:
        return dict(super().__getstate__(), _layout=None, _laid_out=None, training=False)

    # Files.

    def state_dict(self) -> dict[str, Array]:
        """Name -> a copy of the array, for all parameters and running statistics. The names are those of a file:
        "layers.0.w". In a stack the arrays are (S, ...); if copies of it diverged, "stopped" (S,) says which. The net
        must be built."""
        self.check_built()
        state = {name: array.copy() for name, array in netfile.arrays_of(self).items()}
        return state if self.stopped is None or not self.stopped.any() else state | {"stopped": self.stopped.copy()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadedState:
        """Copy the arrays of `state`, as `state_dict` gives them, into the net, by their names.

        A ValueError names all that is missing, unexpected, of another shape, or not finite in the net's dtype; nothing
        is loaded then. With strict=False only the latter two are errors: what fits by name is loaded, and the names
        that have no counterpart are returned. Frozen layers are loaded too; the optimizer's state stays as it is.
        """
        strict = arguments.flag("strict", strict)
        self.check_built()
        return netfile.load_arrays(self, state, strict)

    def check_built(self) -> None:
        """ValueError for a net whose parameters are not made yet."""
        if self.input_shape is None:
            raise ValueError(
                f"{self.label} has no parameters yet: call build(input_shape), such as build((784,)), or pass a batch "
                f"through."
            )

    def save(self, path: Any) -> None:
        """Architecture, weights, running statistics and seed in one file: `.npz`, or `.safetensors` with that
        extra. The file names classes and functions of your own; give them again to `load`."""
        files.write(path, *netfile.contents(self))


def stack(nets: Sequence[Model]) -> Model:
    """Built nets of one architecture as copies in one stack, each with its weights, seed and place in its random
    numbers. ValueError for nets that differ, or whose layers can't stand in a stack."""
    return _copies.stacked(nets)


def load(path: Any, custom: dict[str, Any] | None = None) -> Model:
    """The net that `save` wrote. `custom` gives the user's own classes and functions by name.

    ModelFileError for a file that is damaged, foreign or newer, or names a layer that is not known; nothing in
    a file is executed. FileNotFoundError for no file; TypeError for a `custom` that is not by name.
    """
    return netfile.load(path, custom)


__all__ = ["DivergenceError", "History", "LoadedState", "Model", "ModelFileError", "Run", "load", "stack"]
