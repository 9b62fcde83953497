"""What an optimizer updates: the parameters of a net, of a group of them, of a list of arrays, or of a function."""

from __future__ import annotations

import fnmatch
import math
import operator
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import numpy as np

from layerwise.core.arguments import count

Array = np.ndarray


class Parameter(NamedTuple):
    """Where one parameter lies: in which vector of its layout, and in which span of it. The names are its paths."""

    vector: int
    span: slice
    shape: tuple[int, ...]
    trainable: bool
    names: tuple[str, ...]


class Layout(NamedTuple):
    """The parameters and gradients of a net, of a group or of a list of arrays, as an optimizer sees them.

    vectors     pairs (w, g), flat and contiguous, each with state of its own: a net has one pair, of shape (P,), a
                stack of S nets one of shape (S, P)
    segments    pairs (number of the vector, span): the longest spans of trainable parameters
    parameters  every parameter, frozen ones too
    """

    vectors: list[tuple[Array, Array]]
    segments: list[tuple[int, slice]]
    parameters: list[Parameter]

    def arrays(self, whole_parameters: bool) -> list[Array]:
        """The arrays that have state: each parameter in its shape, frozen ones too; or else each vector."""
        if not whole_parameters:
            return [w for w, _ in self.vectors]
        return [self.vectors[p.vector][0][p.span].reshape(p.shape) for p in self.parameters]

    @property
    def gradients(self) -> list[Array]:
        """Views of the trainable gradients, one for each segment."""
        return [self.vectors[k][1][..., span] for k, span in self.segments]

    @property
    def weights(self) -> list[Array]:
        """Views of the trainable parameters, one for each segment."""
        return [self.vectors[k][0][..., span] for k, span in self.segments]


def join(parameters: Iterable[Parameter]) -> list[tuple[int, slice]]:
    """The segments of these parameters: neighbours are joined into one span."""
    segments: list[tuple[int, slice]] = []
    for k, span, *_ in parameters:
        if segments and segments[-1] == (k, slice(segments[-1][1].start, span.start)):
            segments[-1] = k, slice(segments[-1][1].start, span.stop)
        else:
            segments.append((k, span))
    return segments


class ParameterGroup:
    """Some of the parameters of a net, for one of several optimizers. To that optimizer it is a net."""

    def __init__(self) -> None:
        self.training = True
        self.layout: Any = None

    def take(self, whole: Layout, chosen: list[Parameter]) -> None:
        """Make the layout of the chosen parameters: each of their joined spans is a vector of its own."""
        spans = join(chosen)
        vectors = [(whole.vectors[k][0][..., span], whole.vectors[k][1][..., span]) for k, span in spans]
        parameters = []
        for p in chosen:
            place, start = next(
                (place, span.start)
                for place, (k, span) in enumerate(spans)
                if k == p.vector and span.start <= p.span.start < span.stop
            )
            parameters.append(p._replace(vector=place, span=slice(p.span.start - start, p.span.stop - start)))
        self.layout = Layout(vectors, join(p for p in parameters if p.trainable), parameters)


def assign(layout: Layout, patterns: Collection[str]) -> dict[str, list[Parameter]]:
    """The parameters for each pattern: a parameter goes to the first pattern that fits one of its names.

    ValueError for a parameter that no pattern fits, and for a pattern that no parameter is left for.
    """
    chosen: dict[str, list[Parameter]] = {pattern: [] for pattern in patterns}
    for p in layout.parameters:
        first = next((pattern for pattern in patterns if any(fits(pattern, name) for name in p.names)), None)
        if first is None:
            raise ValueError(f'no pattern of {list(patterns)} fits {p.names[0]}: add one for it, or "*" for the rest.')
        chosen[first].append(p)
    idle = [pattern for pattern, parameters in chosen.items() if not parameters]
    if idle:
        names = [p.names for p in layout.parameters]
        raise ValueError(f"the patterns {idle} fit nothing, or nothing is left for them; the parameters are {names}.")
    return chosen


def fits(pattern: str, name: str) -> bool:
    """True if a pattern fits a parameter, or the layer that it belongs to."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, pattern + ".*")


class ArraysAdapter:
    """A list of arrays, as a net: each array is a vector and a parameter."""

    training = False

    def __init__(self, parameters: list[Array], gradients: list[Array]) -> None:
        vectors = [(w.reshape(-1), g.reshape(-1)) for w, g in zip(parameters, gradients, strict=True)]
        each = [Parameter(k, slice(0, w.size), w.shape, True, (str(k),)) for k, w in enumerate(parameters)]
        self.layout = Layout(vectors, join(each), each)
        self.kind = [(w.shape, w.dtype) for w in parameters]


class ListAdapter(ArraysAdapter):
    """The lists of arrays that `step` takes.

    A parameter that is not contiguous is copied before the step and back after it. Gradients are copied, because a
    wrapper such as Clip changes them.
    """

    def __init__(self, parameters: list[Array]) -> None:
        self.given = parameters
        self.own = [np.ascontiguousarray(w).reshape(w.shape) for w in parameters]
        super().__init__(self.own, [np.empty_like(w) for w in self.own])

    @classmethod
    def of(cls, optimizer: Any, parameters: Any, gradients: Any) -> ListAdapter:
        """The adapter of these lists: that of the last step, if the parameters are the same arrays."""
        if optimizer._needs_value() and not (parameters is None or gradients is None):
            raise TypeError(f"{type(optimizer).__name__} asks for the loss itself: give it a net, or use minimize.")
        parameters, gradients = check_lists(parameters, gradients)
        last = optimizer._step_cache
        adapter = last if last is not None and last.serves(parameters) else cls(parameters)
        adapter.read(gradients)
        return adapter

    def serves(self, parameters: list[Array]) -> bool:
        """Whether these are the same arrays."""
        return len(self.given) == len(parameters) and not any(map(operator.is_not, self.given, parameters))

    def read(self, gradients: list[Array]) -> None:
        with np.errstate(all="ignore"):
            for w, own, (_, g), gradient in zip(self.given, self.own, self.layout.vectors, gradients, strict=True):
                if own is not w:
                    own[...] = w
                g[...] = gradient.reshape(-1)

    def write(self) -> None:
        for w, own in zip(self.given, self.own, strict=True):
            if own is not w:
                w[...] = own


def refuse_another(optimizer: Any, net: Any) -> None:
    """ValueError if the optimizer serves another net, or another list of arrays."""
    served = optimizer._model
    if served is None or served is net:
        return
    if isinstance(net, ArraysAdapter) and isinstance(served, list):
        if served == net.kind:
            return
        other = f"arrays of shapes {[shape for shape, _ in served]}"
    else:
        other = "arrays given to step()" if isinstance(served, list) else "another net"
    raise ValueError(
        f"this {type(optimizer).__name__} serves {other} and keeps its state: use another instance, or reset() this "
        f"one."
    )


def value_of(optimizer: Any, loss: Any) -> float:
    """The last value of a loss. TypeError if it does not keep it."""
    value = getattr(loss, "value", None)
    if not isinstance(value, float):
        raise TypeError(
            f"{type(optimizer).__name__} reads the value of the loss: use a loss of ours, or a subclass of Loss, got "
            f"{loss!r}."
        )
    return value


def check_lists(parameters: Any, gradients: Any) -> tuple[list[Array], list[Array]]:
    """The two arguments of `step` as lists of arrays. TypeError or ValueError if they are not."""
    if parameters is None or gradients is None:
        raise TypeError(
            "step takes lists of arrays, step([w], [g]). After value = loss(pred, y), optim(net, loss) goes "
            "through the net backwards and makes the step."
        )
    if isinstance(parameters, np.ndarray):
        raise TypeError("step takes lists of arrays, one for each parameter: step([w], [g]).")
    parameters, gradients = list(parameters), [np.asarray(g) for g in gradients]
    shapes, found = [np.shape(w) for w in parameters], [g.shape for g in gradients]
    if shapes != found:
        raise ValueError(f"step takes a gradient for each parameter: shapes {shapes}, got {found}.")
    for w in parameters:
        if not isinstance(w, np.ndarray) or w.dtype.kind != "f" or not w.flags.writeable:
            raise TypeError("step changes its parameters in place: they are writeable arrays of floats.")
    return parameters, gradients


class FunctionAdapter(ArraysAdapter):
    """A function x -> (value, gradient), as a net and its loss in one."""

    training = True

    def __init__(self, function: Callable[[Array], tuple[Any, Any]], x0: Any) -> None:
        x = np.array(x0, order="C")
        self.x = x if x.dtype.kind == "f" else x.astype(np.float64)
        self.function = function
        self.gradient = np.zeros_like(self.x)
        super().__init__([self.x], [self.gradient])
        self.value = math.nan

    def path(self, optimizer: Any, steps: int) -> Array:
        """x at the start and after each step, (steps + 1, *x.shape)."""
        steps = count("steps", steps, 0, "an integer, 0 or more")
        path = np.empty((steps + 1, *self.x.shape), self.x.dtype)
        path[0] = self.x
        with np.errstate(all="ignore"):
            for k in range(1, steps + 1):
                optimizer(self, self)
                path[k] = self.x
        return path

    def reevaluate(self, loss: Any) -> float:
        found = self.function(self.x.copy())  # a copy: the function may keep it, or write into it
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"minimize takes a function of x that returns (value, gradient), this one gives {found!r}.")
        value, gradient = found[0], np.asarray(found[1])
        if gradient.shape != self.x.shape:
            raise ValueError(f"the gradient has shape {gradient.shape}, expected that of x, {self.x.shape}.")
        self.gradient[...] = gradient
        self.value = float(value)
        return self.value

    def backpropagate(self, loss: Any) -> None:
        self.reevaluate(loss)
