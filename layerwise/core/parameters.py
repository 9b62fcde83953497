"""The parameters of a net: one vector of all of them, and the arrays that the steps of a training reuse."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]

versions = itertools.count()


def aligned(shape: Shape, dtype: np.dtype, make: Callable[..., Array] = np.empty) -> Array:
    """np.empty, or np.zeros, beginning where a cache line does: passes over arrays that straddle lines take up to three
    times as long."""
    size = math.prod(shape) * dtype.itemsize
    raw = make(size + 63, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


class Store:
    """All parameters of a net in one vector, their gradients in another, and the arrays lent to its steps.

    `vector` and `gradient` have shape (P,); every `w` and `b` of the net is a view of a part of them.
    With `copies` S, for S nets in one stack, the vectors have shape (S, P) and a view of them (S, ...).
    `version` is a new number whenever something else may be moved. While `lending`, `empty` hands out the same
    arrays again in the same order, step after step, so that a training step allocates nothing large.
    """

    def __init__(self, size: int = 0, dtype: Any = "float32", copies: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.copies = copies
        self.lead = () if copies is None else (copies,)
        self.vector = aligned((*self.lead, size), self.dtype)
        # Zeros take no memory until they are written: a net that only predicts has its parameters once.
        self.gradient = aligned((*self.lead, size), self.dtype, np.zeros)
        self.version = next(versions)
        self.reusing = False
        self.taken = 0
        self.pool: list[Array] = []

    def empty(self, shape: Shape, dtype: Any = None) -> Array:
        """An array to write a result into, its values undefined: lent while a net trains, else a new one."""
        if not self.reusing:
            return np.empty(shape, self.dtype)
        place = self.taken
        self.taken = place + 1
        try:
            array = self.pool[place]
            if array.shape == shape:
                return array
        except IndexError:
            self.pool.append(np.empty(0))
        array = self.pool[place] = aligned(shape, self.dtype)
        return array

    def inference_view(self) -> Store:
        """The same parameters, with arrays of its own to lend: for a pass that must not disturb another."""
        other = copy.copy(self)
        other.pool, other.taken, other.reusing = [], 0, True
        return other
