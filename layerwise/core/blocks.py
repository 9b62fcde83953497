"""Running a rule over the parameters of a net: in blocks that fit the cache, in threads, with weight decay.

A block is (w, g, *state): arrays of one shape, views of the net's vectors and of the state.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MethodType
from typing import Any

import numpy as np

from layerwise.core import threads
from layerwise.core.hyper import is_ours
from layerwise.core.layout import Layout

Array = np.ndarray
Block = tuple[Array, ...]
Rule = Callable[..., None]

# Elements of a block. A rule makes several passes over what it is given: in blocks, all but the first find
# their data in the cache, and plain array notation is as fast as hand-placed `out=`: from this size on, NumPy
# writes the result of an expression over a temporary array of it.
BLOCK = 65_536

# From this number of elements on, threads share the blocks. Below it they save nothing: handing over costs as much,
# and the threads of BLAS, which stay awake for a while after a matrix product, compete with them.
WIDE = 1_000_000

# Every FLUSH steps, subnormal numbers in the state become 0. A mean of gradients that are 0 from some step on (those of
# pixels that are always black) would stay subnormal for ever, and arithmetic on such numbers is ten times slower: it
# took half of Adam's time on MNIST.
FLUSH = 64


# Blocks ------------------------------------------------------------------------------------------------------


def whole_parameters(layout: Layout, state: Sequence[dict[str, Array]]) -> list[Block]:
    """A block for each trainable parameter, in its own shape."""
    return [
        (*(each[p.span].reshape(p.shape) for each in layout.vectors[p.vector]), *arrays.values())
        for p, arrays in zip(layout.parameters, state, strict=True)
        if p.trainable
    ]


def whole_segments(layout: Layout, state: Sequence[dict[str, Array]]) -> list[Block]:
    """A block for each segment, however long."""
    return [tuple(a[..., span] for a in (*layout.vectors[k], *state[k].values())) for k, span in layout.segments]


def split(layout: Layout, state: Sequence[dict[str, Array]], whole: bool = False) -> list[Block]:
    """The segments, split into blocks of at most BLOCK elements; or a block for each whole parameter."""
    if whole:
        return whole_parameters(layout, state)
    blocks = []
    total = size(layout)
    # What is larger than all caches streams through them, and needs some room beside the block.
    limit = BLOCK if total < 64 * BLOCK else BLOCK * 3 // 4
    for segment in whole_segments(layout, state):
        elements, length = segment[0].size, segment[0].shape[-1]
        width = max(1, -(-length // max(1, elements // limit)))
        blocks += [tuple(a[..., at : at + width] for a in segment) for at in range(0, length, width)]
    return blocks


def size(layout: Layout) -> int:
    """The number of trainable elements."""
    return sum(w.size for w in layout.weights)


def in_threads(layout: Layout) -> Callable[..., None] | None:
    """The function that runs a rule over many blocks in threads; None for a net too small for it."""
    return threads.parallel_for if size(layout) >= WIDE else None


# The numbers of a step ---------------------------------------------------------------------------------------


class Numbers:
    """Converts the numbers of a step for the rule.

    For a stack of nets, an array with one number for each copy becomes (S, 1). With `as_arrays`, and if all weights
    have one dtype, numbers become 0-d arrays, which NumPy handles in half the time of Python's floats.
    """

    def __init__(self, layout: Layout, as_arrays: bool) -> None:
        first = layout.vectors[0][0] if layout.vectors else np.empty(0)
        self.stacked, self.dtype = first.ndim == 2, first.dtype
        self.as_arrays = as_arrays and not self.stacked and all(w.dtype == first.dtype for w, _ in layout.vectors)
        self.changes = self.stacked or self.as_arrays
        self.arrays: dict[str, Array] = {}  # reused at each step
        self.last: dict[str, Any] = {}  # their values

    def per_copy(self, number: Any) -> Any:
        """An array with one number for each copy as (S, 1), in the dtype of the weights; a number as it is."""
        return number.astype(self.dtype)[:, None] if isinstance(number, np.ndarray) else number

    def __call__(self, numbers: dict[str, Any]) -> dict[str, Any]:
        if self.stacked:
            return {name: self.per_copy(value) for name, value in numbers.items()}
        arrays, last = self.arrays, self.last
        for name, value in numbers.items():
            if name not in arrays:
                arrays[name] = np.empty((), self.dtype)
            if last.get(name) != value:
                arrays[name][()] = value
        last.update(numbers)
        return arrays


# Running a rule ----------------------------------------------------------------------------------------------


def run(rule: Rule, blocks: Sequence[Block], numbers: dict[str, Any], parallel_for: Any = None) -> None:
    """The rule on every block; in threads if there is a `parallel_for`."""
    if parallel_for is not None:
        parallel_for(functools.partial(rule, **numbers), blocks)
    else:
        for block in blocks:
            rule(*block, **numbers)


def coupled(rule: Rule, decay: Any) -> Rule:
    """The rule with g + decay w in place of g. The gradient that the user sees does not change."""

    def decayed(w: Array, g: Array, *state: Array, **numbers: Any) -> None:
        rule(w, decay * w + g, *state, **numbers)

    return decayed


def decoupled(rule: Rule, shrink: Any) -> Rule:
    """The rule after w <- shrink w."""

    def decayed(w: Array, g: Array, *state: Array, **numbers: Any) -> None:
        w *= shrink
        rule(w, g, *state, **numbers)

    return decayed


def with_decay(blocks: Iterable[Block], decay: Any) -> Iterator[Block]:
    """The blocks with g + decay w in place of g."""
    for w, g, *state in blocks:
        yield w, decay * w + g, *state


def flush(blocks: Iterable[Block]) -> None:
    """Set subnormal numbers in the state to 0."""
    for _, _, *state in blocks:
        for array in state:
            np.copyto(array, 0, where=np.abs(array) < np.finfo(array.dtype).tiny)


def watch(optimizer: Any, root: type) -> None:
    """Watch the steps of a user's rule until it has changed weights."""
    if not optimizer._known and not is_ours(optimizer.rule, root):
        optimizer.__dict__["_apply"] = MethodType(watched_apply, optimizer)


def watched_apply(optimizer: Any, net: Any) -> None:
    """One step of a user's rule that has not changed any weights yet.

    TypeError, and nothing changes, if the rule returns something. A warning if it changes nothing in two steps.
    """
    rule, name, moved = optimizer.rule, type(optimizer).__name__, []
    weights = [w for w, *_ in optimizer._blocks]
    before, weights_before = optimizer.snapshot(), [w.copy() for w in weights]

    def watched(w: Array, g: Array, *state: Array, **numbers: Any) -> None:
        was = w.copy()
        returned = rule(w, g, *state, **numbers)
        if returned is not None:
            raise TypeError(
                f"{name}.rule returns {type(returned).__name__}, and nobody reads it: a rule changes w and the "
                f"state in place, as w -= lr * g does, and returns nothing."
            )
        if g.any() and np.any(numbers.get("lr", 1)):
            moved.append(not np.array_equal(w, was))

    optimizer.__dict__["rule"] = watched
    try:
        type(optimizer)._apply(optimizer, net)
    except Exception:
        optimizer.restore(before)
        copy_all(weights, weights_before)
        raise
    finally:
        del optimizer.__dict__["rule"]
    optimizer._still_steps += bool(moved) and not any(moved)
    if any(moved) or optimizer._still_steps == 2:
        optimizer._known = True
        del optimizer.__dict__["_apply"]
    if optimizer._still_steps == 2:
        warnings.warn(
            f"{name} has left all weights as they are in two steps, although their gradients are not 0: a rule "
            f"changes w in place, as w -= lr * g does; w = w - lr * g makes another array.",
            stacklevel=2,
        )


# Lists of arrays ---------------------------------------------------------------------------------------------


def copy_all(arrays: Iterable[Array], values: Iterable[Array]) -> None:
    """Copy each value into its array."""
    for array, value in zip(arrays, values, strict=True):
        np.copyto(array, value)


def sum_of_squares(arrays: Iterable[Array]) -> float:
    """The sum of the squares of all elements; in float64 where float32 would overflow."""
    total = 0.0
    for a in arrays:
        flat = a.reshape(-1)
        square = float(flat.dot(flat))
        total += square if math.isfinite(square) else float(np.sum(np.square(flat, dtype=np.float64)))
    return total


def refuse_overflow(gradients: Sequence[Array]) -> None:
    """FloatingPointError unless all gradients and their squares are finite."""
    for g in gradients:
        # The sum of squares takes one pass. It can overflow where no square does, so a second pass looks at each.
        if not math.isfinite(g.dot(g) if g.ndim == 1 else np.vdot(g, g)) and not np.isfinite(np.square(g)).all():
            raise FloatingPointError(
                f"a gradient, or its square, is not finite (the largest is {np.abs(g).max():g}): nothing was moved. "
                f"A lower learning rate, or Clip, keeps it in range."
            )
