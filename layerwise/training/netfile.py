"""A net's file: the description of the net, and its arrays by name; a state_dict holds the same arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from layerwise import layers
from layerwise.core import files
from layerwise.core.base import within
from layerwise.core.files import ModelFileError
from layerwise.training import serialize
from layerwise.training.data import is_finite

Array = np.ndarray


def contents(net: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of a net's file."""
    if net.input_shape is None:
        raise ValueError("the net has no weights to save yet: call build(input_shape), or train it.")
    return {"model": serialize.encode_net(net), "input_shape": net.input_shape}, arrays_of(net)


def arrays_of(net: Any) -> dict[str, Array]:
    """Every array that a file holds, by its name there, "layers.0.w": the parameters, then the buffers."""
    named: dict[str, Array] = {}
    for kind in ("parameters", "buffers"):
        for leaf in net.leaf_layers():
            place = leaf.path.removeprefix(f"{net.path}.")  # this net may stand in another
            named |= {f"{place}.{name}": value for name, value in getattr(leaf, kind).items()}
    return named


def check_arrays(net: Any, arrays: dict[str, Any], path: Any) -> None:
    """ModelFileError unless these, or what a file says of them, are the parameters and buffers of the net, by name,
    shape and dtype. `net` knows the shapes of its parameters."""
    lead = () if net.copies is None else (net.copies,)
    expected = {
        f"{leaf.path}.{name}": shape
        for leaf in net.leaf_layers()
        for name, shape in (
            *((name, (*lead, *shape)) for name, (shape, _) in leaf._specs.items()),
            *((name, value.shape) for name, value in leaf.buffers.items()),
        )
    }
    for name, shape in expected.items():
        if name not in arrays:
            raise ModelFileError(f"{path} does not describe a net: it has no {name}.")
        stored = arrays[name]
        if stored.shape != shape or stored.dtype != net.dtype:
            raise ModelFileError(f"{path}: {name} is {stored.dtype} {stored.shape}, expected {net.dtype} {shape}.")
    more = sorted(set(arrays) - set(expected))
    if more:
        raise ModelFileError(f"{path} holds arrays that no layer has: {more}.")


class LoadedState(NamedTuple):
    """What `load_state_dict` found: names of the net that the state lacks, and names that the net lacks."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_arrays(net: Any, state: Any, strict: bool) -> LoadedState:
    """Copy the arrays of `state` into a built net, by their names; errors as of `Model.load_state_dict`."""
    arrays = arrays_of(net)
    if not isinstance(state, Mapping):
        raise TypeError(f"a state is a dict, name -> array, as state_dict() gives it, got {type(state).__name__}.")
    missing = [name for name in arrays if name not in state]
    stopped = None if net.copies is None or "stopped" not in state else np.asarray(state["stopped"])
    unexpected = [name for name in state if name not in arrays and not (name == "stopped" and stopped is not None)]
    given = {name: np.asarray(state[name]) for name in arrays if name in state}
    wrong = [
        f"{name} is {value.dtype} {value.shape}, expected {arrays[name].dtype} {arrays[name].shape}"
        for name, value in given.items()
        if value.shape != arrays[name].shape or value.dtype.kind not in "biuf"
    ]
    wrong = wrong or [
        f"{name} holds what is not finite in {arrays[name].dtype}"
        for name, value in given.items()
        if not is_finite(value, arrays[name].dtype)
        # A copy of a stack that diverged may hold anything.
        and (net.copies is None or is_finite(value, value.dtype))
    ]
    if stopped is not None and (stopped.dtype != bool or stopped.shape != (net.copies,)):
        wrong.append(f"stopped is {stopped.dtype} {stopped.shape}, expected bool ({net.copies},)")
    if wrong or (strict and (missing or unexpected)):
        reasons = [f"missing are {missing}"] if missing else []
        reasons += [f"unexpected are {unexpected}"] if unexpected else []
        hint = "" if wrong or not strict else " strict=False loads what fits by name."
        raise ValueError(f"the state is not of this net, and nothing was loaded: {'; '.join(reasons + wrong)}.{hint}")
    with np.errstate(all="ignore"):
        for name, value in given.items():
            arrays[name][...] = value
    # Without it, a copy that is not finite still stops at its next step.
    net.stopped = None if stopped is None else stopped.copy()
    return LoadedState(missing, unexpected)


def load(path: Any, custom: Any) -> Any:
    """The net of a file; errors as of `model.load`."""
    known = serialize.named(custom)
    with files.Saved(path) as saved:
        stored = {name: place for name, place in saved.places.items() if not name.startswith("training.")}
        with files.reading(path, "does not describe a net"):
            net = serialize.NetDecoder(known).decode(serialize.of_header(saved.header))
            if not isinstance(net, layers.Model):
                raise ModelFileError(f"{path} holds no Model.")
            input_shape = net._possible(saved.header["input_shape"])
            net._declare(input_shape)
            for each in within(net):
                stopped = getattr(each, "stopped", None)
                if stopped is not None and stopped.shape != (net.copies,):
                    raise ModelFileError(f"{path} is damaged: it says of {len(stopped)} copies whether they stopped.")
            # Before memory is taken: a small file may describe a net that is too large for it.
            check_arrays(net, stored, path)
            for leaf in net.leaf_layers():
                leaf._specs = {name: (shape, ...) for name, (shape, _) in leaf._specs.items()}  # nothing is drawn
            net._build(input_shape)
        for name, array in arrays_of(net).items():
            saved.array(name, out=array)
    return net


__all__ = ["LoadedState", "arrays_of", "check_arrays", "contents", "load", "load_arrays"]
