"""What an optimizer moves: parameters and gradients of a net, of a part of one, of a list of arrays, of a function."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray


class Parameter(NamedTuple):
    """Where one parameter lies, and the names that it goes by."""

    slot: int
    span: slice
    shape: tuple[int, ...]
    movable: bool
    names: tuple[str, ...]


class Layout(NamedTuple):
    """The parameters and gradients of a net (or of a part, or a list of arrays), as an optimizer sees them.

    slots       (w, g), one-dimensional and contiguous, each with state of its own: of a net one pair, its vectors;
                of a stack of S nets, (S, P)
    runs        (slot, span), the longest runs that may be moved
    parameters  every single one
    """

    slots: list[tuple[Array, Array]]
    runs: list[tuple[int, slice]]
    parameters: list[Parameter]

    @property
    def gradients(self) -> list[Array]:
        """What may be moved, its gradients: views."""
        return [self.slots[slot][1][..., span] for slot, span in self.runs]

    @property
    def weights(self) -> list[Array]:
        """What may be moved: views."""
        return [self.slots[slot][0][..., span] for slot, span in self.runs]


def join(parameters: Iterable[Parameter]) -> list[tuple[int, slice]]:
    """The spans of these parameters, neighbours joined."""
    runs: list[tuple[int, slice]] = []
    for slot, span, *_ in parameters:
        if runs and runs[-1] == (slot, slice(runs[-1][1].start, span.start)):
            runs[-1] = slot, slice(runs[-1][1].start, span.stop)
        else:
            runs.append((slot, span))
    return runs


class ParameterGroup:
    """Some of the parameters of a net, for one of several optimizers."""

    def __init__(self) -> None:
        self.training = True
        self.layout: Any = None

    def take(self, whole: Layout, chosen: list[Parameter]) -> None:
        spans = join(chosen)
        slots = [tuple(each[..., span] for each in whole.slots[slot]) for slot, span in spans]
        parameters = []
        for p in chosen:
            place = next(
                k for k, (slot, span) in enumerate(spans) if slot == p.slot and span.start <= p.span.start < span.stop
            )
            shift = spans[place][1].start
            parameters.append(p._replace(slot=place, span=slice(p.span.start - shift, p.span.stop - shift)))
        self.layout = Layout(slots, join(p for p in parameters if p.movable), parameters)  # type: ignore[arg-type]


class ArraysAdapter:
    """A list of arrays in place of a net."""

    training = False

    def __init__(self, parameters: list[Array], gradients: list[Array]) -> None:
        slots = [(w.reshape(-1), g.reshape(-1)) for w, g in zip(parameters, gradients, strict=True)]
        places = [Parameter(k, slice(0, w.size), w.shape, True, (str(k),)) for k, w in enumerate(parameters)]
        self.layout = Layout(slots, join(places), places)
        self.kind = [(w.shape, w.dtype) for w in parameters]


class ListAdapter(ArraysAdapter):
    """The list of arrays that `step` is given. What is not contiguous is copied here and back; gradients are copied,
    for what wraps a rule changes them."""

    def __init__(self, parameters: list[Array]) -> None:
        self.given = parameters
        self.flat = [np.ascontiguousarray(w).reshape(w.shape) for w in parameters]
        super().__init__(self.flat, [np.empty_like(w) for w in self.flat])

    def serves(self, parameters: list[Array]) -> bool:
        """Whether these are the same arrays."""
        return len(self.given) == len(parameters) and not any(map(operator.is_not, self.given, parameters))

    def read(self, gradients: list[Array]) -> None:
        with np.errstate(all="ignore"):
            for w, flat, (_, g), gradient in zip(self.given, self.flat, self.layout.slots, gradients, strict=True):
                if flat is not w:
                    flat[...] = w
                g[...] = gradient.reshape(-1)

    def write(self) -> None:
        for w, flat in zip(self.given, self.flat, strict=True):
            if flat is not w:
                w[...] = flat


def refuse_another(optimizer: Any, net: Any) -> None:
    """ValueError if an optimizer serves something else than this net, or this list of arrays."""
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


def check_lists(parameters: Any, gradients: Any) -> tuple[list[Array], list[Array]]:
    """The two lists that `step` takes, as lists of arrays; TypeError or ValueError where they are something else."""
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
    """A function of x, (value, gradient), in place of a net and of its loss at once."""

    training = True

    def __init__(self, function: Callable[[Array], tuple[Any, Any]], x: Array) -> None:
        self.function = function
        self.x = x
        self.gradient = np.zeros_like(x)
        super().__init__([x], [self.gradient])
        self.value = math.nan

    def reevaluate(self, loss: Any) -> float:
        found = self.function(self.x.copy())  # it may keep what it is given, or write into it
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
