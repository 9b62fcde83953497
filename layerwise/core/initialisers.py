"""How weights start: functions (shape, rng) -> array. The last axis of a shape is that of the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from layerwise.core import arguments

Array = np.ndarray
Shape = tuple[int, ...]


def fans(shape: Shape) -> tuple[int, int]:
    """How many inputs one output sums over (fan_in), and how many outputs one input goes to (fan_out)."""
    return math.prod(shape[:-1]), shape[-1] * math.prod(shape[:-2])


def uniform_fan_in(shape: Shape, rng: np.random.Generator) -> Array:
    """Uniform in +-1 / sqrt(fan_in): the weights of torch.nn.Linear."""
    limit = 1 / math.sqrt(fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def he(shape: Shape, rng: np.random.Generator) -> Array:
    """Normal with deviation sqrt(2 / fan_in): He et al. 2015 (1502.01852), eq. 10."""
    return rng.normal(0, math.sqrt(2 / fans(shape)[0]), shape)


def glorot(shape: Shape, rng: np.random.Generator) -> Array:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010, eq. 16."""
    limit = math.sqrt(6 / sum(fans(shape)))
    return rng.uniform(-limit, limit, shape)


def orthogonal(shape: Shape, rng: np.random.Generator) -> Array:
    """Rows or columns of length 1 at right angles, uniform over all such: Saxe et al. 2013 (1312.6120)."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diagonal(r))  # without it, LAPACK's choice of signs would show
    return (q if rows >= columns else q.T).reshape(shape)


INITIALISERS: dict[str, Callable[[Shape, np.random.Generator], Array]] = {
    "he": he, "glorot": glorot, "orthogonal": orthogonal
}  # fmt: skip


def initialiser(init: Any) -> Any:
    """What an `init` argument stands for: a callable (shape, rng) -> array, or a number. None: uniform_fan_in."""
    if init is None:
        return uniform_fan_in
    if isinstance(init, str):
        if init not in INITIALISERS:
            raise ValueError(f"init is one of {sorted(INITIALISERS)}, a number or a callable, got {init!r}.")
        return INITIALISERS[init]
    if not callable(init) and not arguments.is_number(init):
        raise TypeError(f"init is a name, a number or a callable (shape, rng) -> array, got {init!r}.")
    return init


def fill(copies: Sequence[Array], initial: Any, rngs: Sequence[np.random.Generator]) -> None:
    """Give a parameter its first values in every copy of a net, each with a generator of its own."""
    for w, rng in zip(copies, rngs, strict=True):
        values = initial
        if callable(initial):
            values = np.asarray(initial(w.shape, rng))
            if values.shape != w.shape:
                raise ValueError(f"init made an array of shape {values.shape}, expected {w.shape}.")
        w[...] = values
