"""What a training goes back to when it fails, and where the first number that is not finite came from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from layerwise.core.base import Attributes

Array = np.ndarray


class DivergenceError(ArithmeticError):
    """A loss, gradient or parameter that is not finite. The net is as at the last good epoch's end; `history` is that
    of the epochs until then."""

    history: Any = None


class Snapshot:
    """The parameters, running statistics, optimizer state and random numbers of a moment, to go back to."""

    def __init__(self, net: Any, optim: Any, order: Iterable[np.random.Generator]) -> None:
        self.optim = optim if hasattr(optim, "restore") else None
        live = [net.vector, *(value for leaf in net.leaf_layers() for value in leaf.buffers.values())]
        self.pairs = [(np.empty_like(array), array) for array in live]
        self.rngs = [*order, *(rng for leaf in net.leaf_layers() if leaf.random for rng in leaf.rngs)]
        self.rng_states: list[Any] = []
        self.state: Any = None
        self.take()

    def take(self) -> None:
        for kept, live in self.pairs:
            kept[...] = live  # np.copyto takes three times as long on small arrays
        if self.optim is not None:
            self.state = self.optim.snapshot(self.state)
        if self.rngs:
            self.rng_states = [rng.bit_generator.state for rng in self.rngs]

    def restore(self) -> None:
        for kept, live in self.pairs:
            np.copyto(live, kept)
        if self.optim is not None:
            self.optim.restore(self.state)
        for rng, state in zip(self.rngs, self.rng_states, strict=True):
            rng.bit_generator.state = state


class Rollback:
    """A net, built or not, and its optimizer, as they were before a file is read that may turn out not to fit."""

    def __init__(self, net: Any, optim: Any) -> None:
        self.optim = optim
        self.layers = Attributes(net)
        buffers = (value for leaf in net.leaf_layers() for value in leaf.buffers.values())
        live = [net.vector, *buffers] if net.input_shape is not None else []
        self.arrays = [(array, array.copy()) for array in live]
        self.state = optim.state_dict() if hasattr(optim, "state_dict") else None

    def restore(self) -> None:
        self.layers.restore()
        for array, values in self.arrays:
            array[...] = values
        if self.state is not None:
            self.optim.load_state_dict(self.state)


def first_not_finite(net: Any, x: Array | None) -> str:
    """The first layer whose parameters, output for the batch x, or gradients are not finite."""
    for leaf in net.leaf_layers():
        for name, value in leaf.parameters.items():
            if not np.isfinite(value).all():
                return f"{leaf.label}.{name}"
    if x is not None:
        with np.errstate(all="ignore"):
            for layer in net.layers:
                x = layer.forward(x, True)
                if not np.isfinite(x).all():
                    return f"the output of {layer.label}"
    for leaf in reversed(list(net.leaf_layers())):
        for name, value in leaf.gradients.items():
            if not (leaf.frozen or np.isfinite(np.square(value)).all()):
                return f"the gradient of {leaf.label}.{name}"
    return "the loss"


__all__ = ["DivergenceError", "Rollback", "Snapshot", "first_not_finite"]
