"""What every layer stands on: its arrays, its random numbers, its place in a net; copies and pickles of it.

In this file, in this order:
  one layer     Base
  several       within, Attributes
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from layerwise.core import arguments, habits, parameters
from layerwise.core.initialisers import fill
from layerwise.core.parameters import ParameterVector, Workspace, parameter

Array = np.ndarray
Shape = tuple[int, ...]

# Attributes of earlier pickles: their names then -> their names today, and those that are gone.
FORMERLY = {"_declared": "_specs", "drew_from": "rng_state"}
GONE = ("_start", "_layout_of", "_laid_out")


class Base:
    """A layer without its maths, which `layers.Layer` adds."""

    integer_input = False  # the input holds integers that are to stay integers
    random = False  # forward draws from self.rng
    stackable = False  # forward and backward serve a stack of copies, all arrays with one more axis in front
    threaded = False  # shares its work among threads, each of which needs BLAS in one thread
    min_batch = 1  # rows that a training batch must have
    training_only = False  # in inference y is x
    probabilities_of = ""  # "classes": the columns of y add up to 1; "labels": each is a yes or no of its own
    # What others call it, if they have it, with their names of the arguments and ours: "Elu(alpha=slope)".
    onnx = torch = keras = ""

    name: str | None
    path: str  # where it stands in its net: "layers.0"
    input_shape: Shape | None  # without the batch axis, once built
    parameters: dict[str, Array]
    gradients: dict[str, Array]
    buffers: dict[str, Array]
    spans: dict[str, slice]  # where each parameter lies in the net's vector
    kept: Any  # what backward needs of the last forward
    empty: Callable[[Shape], Array]  # an array for a result of that shape; while a net trains, that of the step before
    input_gradient_needed: bool  # False: nobody reads dL/dx, and backward may return None
    rng_state: dict[str, Any] | None  # the generator's state before the last forward in training
    _frozen: bool
    _flat: ParameterVector
    _workspace: Workspace
    _specs: dict[str, tuple[Shape, Any]]  # shape of every parameter, of one net, and how it starts
    _tried: dict[Shape, Shape]  # input shape -> output shape, found by trial
    _owner: Any
    _seeds: list[Any]
    _rngs: list[np.random.Generator] | None
    _w = _b = _w_gradient = _b_gradient = np.empty(0, np.float32)  # of a layer that has none

    w, b = parameter("w"), parameter("b")
    w_gradient, b_gradient = parameter("w_gradient"), parameter("b_gradient")

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if kwargs and not set(kwargs) <= set(cls._arguments()):
            habits.check_arguments("layer", cls.__name__, cls.__init__, kwargs)
        # Here, not in __init__, so that a layer of one's own works without calling super().__init__().
        layer: Any = super().__new__(cls)
        layer.name, layer.path, layer.input_shape = None, "", None
        layer.parameters, layer.gradients, layer.buffers, layer.spans = {}, {}, {}, {}
        layer.kept = None
        layer.input_gradient_needed = True
        layer._frozen = False
        layer._attach(ParameterVector(), Workspace())
        layer._specs, layer._tried = {}, {}
        layer._owner = None
        layer._seeds = [None]
        layer._rngs = layer.rng_state = None
        return layer

    def __init__(self, name: str | None = None) -> None:
        if not isinstance(name, (str, type(None))):
            raise TypeError(f"name is a string, got {name!r}: {type(self).__name__} takes no such argument.")
        self.name = name

    # Parameters, buffers, random numbers.

    def add_parameter(self, name: str, shape: Shape, initial: Any = 0.0) -> None:
        """Declare a parameter; `initial` is a number, an array, or a callable (shape, rng) -> array."""
        if name in self.__dict__ or not isinstance(getattr(type(self), name, None), (property, type(None))):
            raise ValueError(f"{self.label} has an attribute {name!r} already: give the parameter another name.")
        self._add_attribute(name)
        self._specs[name] = (tuple(shape), initial)

    def _add_attribute(self, name: str) -> None:
        if not hasattr(type(self), name):
            setattr(type(self), name, parameter(name))
            setattr(type(self), name + "_gradient", parameter(name + "_gradient"))

    def add_buffer(self, name: str, value: Any) -> None:
        """Declare an array of state that is not trained but is saved, such as running statistics."""
        self.buffers[name] = np.asarray(value, self.dtype)  # `_allocate` copies it

    @property
    def rng(self) -> np.random.Generator:
        """The layer's own source of random numbers. The net's seed and the layer's place decide it."""
        return self.rngs[0]

    @rng.setter
    def rng(self, generator: np.random.Generator) -> None:
        self._rngs = [generator]

    @property
    def rngs(self) -> list[np.random.Generator]:
        """The sources of random numbers of the copies in a stack."""
        if self._rngs is None:
            self._rngs = [np.random.default_rng(seed) for seed in self._seeds]
        return self._rngs

    def _draws(self, out: Array) -> Iterator[tuple[np.random.Generator, Array]]:
        """(generator, array to fill with random numbers): one pair, or in a stack one for every copy."""
        return zip(self.rngs, [out] if self.copies is None else out, strict=True)

    @property
    def copies(self) -> int | None:
        """How many nets stand in one stack; None for a single net."""
        return self._flat.copies

    @property
    def dtype(self) -> np.dtype:
        return self._flat.dtype

    # The tree of layers. A container tells its layers by `children`; a leaf has none.

    def children(self) -> dict[str, Any]:
        """Path -> layer, of the layers directly within."""
        return {}

    def leaf_layers(self) -> Iterator[Any]:
        """The leaf layers, which hold the parameters, in order; a leaf gives itself."""
        children = self.children()
        if not children:
            yield self
        for child in children.values():
            yield from child.leaf_layers()

    @property
    def frozen(self) -> bool:
        """True: the parameters stay as they are. Setting it on a container sets it on all within."""
        return all(leaf._frozen for leaf in self.leaf_layers())

    @frozen.setter
    def frozen(self, value: bool) -> None:
        value = arguments.flag("frozen", value)
        for leaf in self.leaf_layers():
            leaf._frozen = value
            leaf._flat.version = next(parameters.versions)

    @property
    def trainable(self) -> bool:
        """Whether an optimizer may move anything within."""
        return any(leaf.parameters and not leaf._frozen for leaf in self.leaf_layers())

    # What a message, a file and `repr` tell.

    @property
    def label(self) -> str:
        """How messages call the layer."""
        name = type(self).__name__ + (f" {self.name!r}" if self.name else "")
        return f"{name} ({self.path})" if self.path else name

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.config().items() if value is not None)
        return f"{type(self).__name__}({', '.join(arguments)})"

    def config(self) -> dict[str, Any]:
        """The arguments that make such a layer, read back from the attributes of their names."""
        return {name: getattr(self, name, None) for name in self._arguments()}

    @classmethod
    def _arguments(cls) -> tuple[str, ...]:
        code = cls.__init__.__code__
        return code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in habits.NET or hasattr(self, name)]

    # The net's arrays.

    def _allocate(self, dtype: Any, copies: int | None, rngs: Sequence[np.random.Generator] = ()) -> None:
        """Make one vector of the parameters of all leaf layers. Parameters that have values keep them. For the others
        they are drawn, by one generator for each copy."""
        leaf_layers = list(self.leaf_layers())
        flat = ParameterVector(
            sum(math.prod(s) for leaf in leaf_layers for s, _ in leaf._specs.values()), dtype, copies
        )
        stop = 0
        for leaf in leaf_layers:
            before, leaf.parameters = leaf.parameters, {}
            for name, (shape, initial) in leaf._specs.items():
                span = leaf.spans[name] = slice(stop, stop + math.prod(shape))
                stop = span.stop
                view, gradient = flat.views(span, shape)
                if name in before:
                    view[...] = before[name]
                elif initial is not ...:  # with `...`, the file that is being read gives the values
                    fill([view] if copies is None else [view[copy, ...] for copy in range(copies)], initial, rngs)
                leaf._specs[name] = shape, None  # has values now
                leaf.parameters[name], leaf.gradients[name] = view, gradient
                leaf.__dict__["_" + name], leaf.__dict__[f"_{name}_gradient"] = view, gradient
            leaf.buffers = {name: value.astype(dtype) for name, value in leaf.buffers.items()}
        workspace = Workspace(dtype)
        for layer in within(self):
            layer._attach(flat, workspace)

    def _attach(self, flat: ParameterVector, workspace: Workspace) -> None:
        self._flat, self._workspace = flat, workspace
        self.empty = workspace.empty  # not a method that calls it: there are a dozen calls a step

    def _inference_view(self, workspace: Workspace) -> Any:
        """The same layer and parameters, for a pass that has arrays of its own and keeps nothing on this layer."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, kept=None)
        children = {id(child): child._inference_view(workspace) for child in self.children().values()}
        for name, value in self.__dict__.items() if children else ():
            if type(value) in (list, tuple):
                view.__dict__[name] = type(value)(children.get(id(each), each) for each in value)
            elif id(value) in children:
                view.__dict__[name] = children[id(value)]
        view._workspace, view.empty = workspace, workspace.empty
        return view

    # Copies and pickles carry the layer's own arrays, neither the net's vector nor what was kept.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__, kept=None, _owner=None, path="")
        for name in self.parameters:
            del state["_" + name], state[f"_{name}_gradient"]
        for name in ("gradients", "spans", "empty", "_flat", "_workspace"):
            del state[name]
        state["parameters"] = {name: value.copy() for name, value in self.parameters.items()}
        state["dtype"], state["copies"] = self.dtype.name, self.copies
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        dtype, copies = state.pop("dtype"), state.pop("copies")
        attributes = {FORMERLY.get(name, name): value for name, value in state.items() if name not in GONE}
        self.__dict__.update(attributes, gradients={}, spans={})
        for name in self.parameters:
            self._add_attribute(name)
        self._allocate(dtype, copies)


habits.tell_foreign_names(Base, habits.NET)


def within(layer: Base) -> Iterator[Any]:
    """A layer and all within it."""
    yield layer
    for child in layer.children().values():
        yield from within(child)


class Attributes:
    """What a layer and all within it hold at this moment, to `restore`. The arrays themselves are not copied."""

    def __init__(self, layer: Base) -> None:
        self.kept = [(each, {name: _kept(name, value) for name, value in vars(each).items()}) for each in within(layer)]

    def restore(self) -> None:
        for layer, kept in self.kept:
            layer.__dict__.update(kept)
            for name in vars(layer).keys() - kept.keys():
                del layer.__dict__[name]


def _kept(name: str, value: Any) -> Any:
    """An attribute of a layer as it is now: what is changed in place is copied."""
    if name in ("_rngs", "_shuffle"):
        return copy.deepcopy(value)
    return value.copy() if isinstance(value, dict) else value
