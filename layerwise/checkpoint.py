"""The state of a training, to be written into a net's file and to go on from: `train(..., resume=path)`.

What decides how a training goes on is in it: the weights that are trained, the optimizer's state, that of the
callbacks, the history, every generator of random numbers, and the place in the data. Classes of ours are named in the
file and made anew; functions and classes of one's own are named, and given again.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from layerwise import loss, optim, schedules
from layerwise.files import ModelFileError

KINDS = ((optim, optim.Optimizer), (loss, loss.Loss), (schedules, schedules.Schedule))


# What a training is run with -----------------------------------------------------------------------------------


def described(value: Any) -> Any:
    """An optimizer, loss or schedule as what makes such a one: its class by name, and its arguments."""
    for module, kind in KINDS:
        if isinstance(value, kind):
            name = type(value).__name__
            if getattr(module, name, None) is not type(value):
                return {"own": name}
            return {"type": name, "arguments": {k: described(v) for k, v in _arguments(value).items()}}
    if isinstance(value, (list, tuple)):
        return [described(each) for each in value]
    if isinstance(value, dict):
        return {"dict": [[described(k), described(v)] for k, v in value.items()]}
    if callable(value):
        return {"own": getattr(value, "__name__", type(value).__name__)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _arguments(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    return value.config()


def made(description: Any, what: str) -> Any:
    """What `described` told of. ValueError where something of one's own is needed, which is then to be given."""
    if isinstance(description, list):
        return [made(each, what) for each in description]
    if not isinstance(description, dict):
        return description
    if "dict" in description:
        return {made(k, what): made(v, what) for k, v in description["dict"]}
    if "own" in description:
        raise ValueError(
            f"{what} of this training has {description['own']!r}, of one's own: give it, train({what}=...)."
        )
    for module, kind in KINDS:
        found = getattr(module, description["type"], None)
        if description["type"] in module.__all__ and isinstance(found, type) and issubclass(found, kind):
            return found(**{k: made(v, what) for k, v in description["arguments"].items()})
    raise ModelFileError(f"the file names {description['type']!r}, which is no {what} of ours.")


def _kinds(description: Any) -> Any:
    """Only the classes of a description, one within the other: numbers and schedules may be given anew."""
    if not isinstance(description, dict) or "type" not in description:
        return description.get("own") if isinstance(description, dict) else None
    within = [_kinds(each) for name, each in description["arguments"].items() if name == "optimizer"]
    return [description["type"], *within]


# The state of a run ----------------------------------------------------------------------------------------------


def state_of(run: Any, stopped: bool) -> dict[str, Any]:
    """What decides how `run` goes on from here. `stopped`: a callback has ended it."""
    net, totals = run.net, run.totals
    return {
        "epoch": run.epoch,
        "step": run.step,
        "batches": run.step - run.epoch_began,
        "stopped": stopped,
        "totals": {name: getattr(totals, name) for name in ("rows", "weight", "loss", "metrics")},
        "history": dict(run.history),
        "diverged": run.history.diverged,
        "optim": described(run.optim),
        "optim_state": run.optim.state_dict() if hasattr(run.optim, "state_dict") else None,
        "loss": described(run.loss),
        "callbacks": [[type(each).__name__, _own_state(each)] for each in run.callbacks],
        "order": run.order_began,
        "draws": {leaf.path: [rng.bit_generator.state for rng in leaf.rngs] for leaf in net.leaves() if leaf.random},
        "weights": net.vector.copy(),
    }


def _own_state(callback: Any) -> Any:
    return callback.state_dict() if hasattr(callback, "state_dict") else None


def check(state: dict[str, Any], run: Any, path: Any) -> None:
    """ValueError, before anything is changed, unless `run` is the training that the state is of."""
    kinds, given = _kinds(state["optim"]), _kinds(described(run.optim))
    if kinds != given:
        raise ValueError(f"{path} is of a training by {kinds}, this one is by {given}: give the same optimizer.")
    names, given = [name for name, _ in state["callbacks"]], [type(each).__name__ for each in run.callbacks]
    if names != given:
        raise ValueError(f"{path} is of a training with the callbacks {names}, this one has {given}: give the same.")
    if state["weights"].shape != run.net.vector.shape:
        raise ValueError(
            f"{path} is of a net with parameters of shape {state['weights'].shape}, this one has "
            f"{run.net.vector.shape}: build the same net."
        )


def restore(state: dict[str, Any], run: Any) -> None:
    """Put the run, its net and its optimizer where the state was taken; the callbacks' states come after `begin`."""
    if state["optim_state"] is not None:
        run.optim.load_state_dict(state["optim_state"])  # refuses what does not fit, and nothing has changed
    net = run.net
    net.vector[...] = state["weights"]
    for leaf in net.leaves():
        if leaf.path in state["draws"]:
            for rng, drawn in zip(leaf.rngs, state["draws"][leaf.path], strict=True):
                rng.bit_generator.state = drawn
    if state["order"] is not None:
        for rng, drawn in zip(net._order, state["order"], strict=True):
            rng.bit_generator.state = drawn
    run.epoch, run.step = state["epoch"], state["step"]
    run.history.update(state["history"])
    run.history.diverged = net.stopped = state["diverged"]


def restore_callbacks(state: dict[str, Any], run: Any) -> None:
    for callback, (_, kept) in zip(run.callbacks, state["callbacks"], strict=True):
        if kept is not None:
            callback.load_state_dict(kept)
