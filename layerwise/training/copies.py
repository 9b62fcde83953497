"""Nets in one stack: the seeds of the copies, single nets out of a stack, and a stack of single nets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerwise import layers


def seeds_of(seed: Any, copies: int | None) -> list[int]:
    """The seed of each copy: the given ones, or a single one and those that follow it. Without any, one is drawn."""
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


def check_stackable(given: Sequence[Any]) -> None:
    """ValueError where one of these layers can't stand in a stack of nets."""
    places = [(place, layer) for place, layer in enumerate(given) if isinstance(layer, layers.Layer)]
    never = [f"{leaf.label} (layers.{p})" for p, each in places for leaf in each.leaf_layers() if not leaf.stackable]
    if never:
        raise ValueError(f"copies: these layers can't stand in a stack of nets: {', '.join(never)}.")


def single(net: Any, copy: Any) -> Any:
    """Copy number `copy` of a stack as a net of its own; `net` is a copy of the stack, which becomes that net."""
    net.seeds = [net.seeds[copy]]
    net._shuffle = net._shuffle and [net._shuffle[copy]]
    for leaf in net.leaf_layers():
        leaf._seeds = [leaf._seeds[copy]]
        leaf._rngs = leaf._rngs and [leaf._rngs[copy]]
        leaf.parameters = {name: value[copy] for name, value in leaf.parameters.items()}
    net._allocate(net.dtype, None)
    net.optim = net._layout = net.stopped = None
    return net


def stacked(nets: Sequence[Any]) -> Any:
    """Single nets as one stack; errors as of `model.stack`."""
    nets = list(nets)
    for net in nets:
        if not isinstance(net, layers.Model):
            raise TypeError(f"a stack is made of Models, got {net!r:.200}.")
        net.check_built()
    if not nets:
        raise ValueError("a stack is made of one net or more, got none.")
    first = nets[0]
    if not first.stackable:
        raise ValueError(f"{first.label} has layers that can't stand in a stack of nets.")
    leaf_layers = [list(net.leaf_layers()) for net in nets]
    shapes = [[(repr(leaf), leaf._specs) for leaf in each] for each in leaf_layers]
    dtypes = {net.dtype.name for net in nets}
    if any(each != shapes[0] for each in shapes) or len(dtypes) > 1 or any(net.copies is not None for net in nets):
        raise ValueError(
            f"a stack is made of single nets whose layers, shapes and dtypes are the same; the dtypes here are "
            f"{sorted(dtypes)}."
        )
    whole = first.copy()
    whole.seeds = [net.seed for net in nets]
    whole._shuffle = whole.optim = whole._layout = None
    for leaf, *each in zip(whole.leaf_layers(), *leaf_layers, strict=True):
        leaf._seeds = [one._seeds[0] for one in each]
        leaf._rngs = None
        leaf.parameters = {name: np.stack([one.parameters[name] for one in each]) for name in leaf.parameters}
    whole._allocate(whole.dtype, len(nets))
    return whole


__all__ = ["check_stackable", "seeds_of", "single", "stacked"]
