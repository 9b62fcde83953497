"""The parameters of a net: one vector of all of them, and the arrays that the steps of a training reuse.

In this file, in this order:
  memory         aligned
  the vector     ParameterVector, layout
  the arrays     Workspace
  the attribute  parameter
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from layerwise.core.layout import Layout, Parameter, join

Array = np.ndarray
Shape = tuple[int, ...]

versions = itertools.count()


def aligned(shape: Shape, dtype: np.dtype, make: Callable[..., Array] = np.empty) -> Array:
    """np.empty, or np.zeros, that begins on a cache line: passes over arrays that straddle two lines take up to three
    times as long."""
    size = math.prod(shape) * dtype.itemsize
    raw = make(size + 63, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


class ParameterVector:
    """All parameters of a net in one vector, and their gradients in another.

    `vector` and `gradient` have shape (P,); every `w` and `b` of the net is a view of a span of it. With `copies` S,
    for S nets in one stack, they have shape (S, P) and a view has shape (S, ...). `version` is a new number whenever
    a layer is frozen or thawed.
    """

    def __init__(self, size: int = 0, dtype: Any = "float32", copies: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.copies = copies
        self.lead = () if copies is None else (copies,)
        self.vector = aligned((*self.lead, size), self.dtype)
        # Zeros take no memory until they are written: a net that only predicts has its parameters once.
        self.gradient = aligned((*self.lead, size), self.dtype, np.zeros)
        self.version = next(versions)

    def views(self, span: slice, shape: Shape) -> tuple[Array, Array]:
        """A parameter of this shape and its gradient, which lie in this span of the vectors."""
        return tuple(each[..., span].reshape(*self.lead, *shape) for each in (self.vector, self.gradient))  # type: ignore[return-value]


def layout(leaf_layers: Iterable[Any], flat: ParameterVector) -> Layout:
    """The parameters of these neighbouring layers, and their gradients, as an optimizer sees them."""
    spans = [(leaf, name, span) for leaf in leaf_layers for name, span in leaf.spans.items()]
    first, last = (spans[0][2].start, spans[-1][2].stop) if spans else (0, 0)
    parameters = []
    for leaf, name, span in spans:
        number = leaf.path.replace("layers.", "").replace("branches.", "")
        called = (leaf.path, number, type(leaf).__name__, *([leaf.name] if leaf.name else []))
        parameters.append(
            Parameter(
                0,
                slice(span.start - first, span.stop - first),
                leaf.parameters[name].shape[len(flat.lead) :],
                not leaf.frozen,
                tuple(f"{each}.{name}" for each in called),
            )
        )
    vectors = [(flat.vector[..., first:last], flat.gradient[..., first:last])]
    return Layout(vectors, join(p for p in parameters if p.trainable), parameters)


class Workspace:
    """Arrays for the results of a pass. Within `with workspace.step():` they are those of the step before, in the same
    order, so that a training step allocates nothing large."""

    def __init__(self, dtype: Any = "float32") -> None:
        self.dtype = np.dtype(dtype)
        self.arrays: list[Array] = []
        self.cursor = 0  # the place in `arrays` of the next one
        self.reusing = False
        self.repeatable = True  # a batch may be evaluated again: the generators' states before it are kept

    def empty(self, shape: Shape, dtype: Any = None) -> Array:
        """An array to write a result into, its values undefined: a reused one within a step, else a new one."""
        if not self.reusing:
            return np.empty(shape, self.dtype)
        place = self.cursor
        self.cursor = place + 1
        try:
            array = self.arrays[place]
            if array.shape == shape:
                return array
        except IndexError:
            self.arrays.append(np.empty(0))
        array = self.arrays[place] = aligned(shape, self.dtype)
        return array

    def step(self, reusing: bool = True) -> Workspace:
        """As a context: a step, in which the arrays of the one before are reused from the first on."""
        self.cursor = 0
        return self.rest_of_step(reusing)

    def rest_of_step(self, reusing: bool = True) -> Workspace:
        """As a context: the same step goes on. It takes the arrays that it has not used yet, or new ones if it is not
        `reusing`."""
        self.reusing = reusing
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        self.reusing = False

    def clear(self) -> None:
        """Let go of the arrays."""
        self.arrays, self.cursor, self.reusing = [], 0, False


def parameter(name: str) -> property:
    """A parameter or gradient as an attribute of a layer: reading gives the live view, assigning copies into it."""

    def assign(layer: Any, value: Any) -> None:
        arrays = layer.gradients if name.endswith("_gradient") else layer.parameters
        array = arrays.get(name.removesuffix("_gradient"))
        if array is None:
            if np.shape(value) == (0,):  # `layer.w -= ...` in a loop over all layers: this one has no w
                return
            raise AttributeError(
                f"{layer.label} has no {name} yet: its shape follows from the input. Call build(input_shape) first, "
                f"or pass a batch through. (A layer of one's own declares it in setup, by add_parameter.)"
            )
        value = np.asarray(value)
        if value.shape != array.shape:
            raise ValueError(
                f"{layer.label}.{name} has shape {array.shape}, got {value.shape}: assign an array of the same shape."
            )
        with np.errstate(all="ignore"):
            array[...] = value

    return property(operator.attrgetter("_" + name), assign)
