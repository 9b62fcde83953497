"""The state of a training, as a Checkpoint writes it into a net's file, and `train(..., resume=path)` goes on from it.

It holds all that decides how the training goes on: the weights that are trained, the states of the optimizer and of the
callbacks, the history, every generator of random numbers, and the place in the data. The file names classes of ours,
which are made again; functions and classes of the user's own are named too, and the user gives them again.

    state_of   the state of a run
    state_in   the state in a file
    check      refuses a state that is damaged, or not of this run, before anything is changed
    restore    the run, its net and its optimizer, as they were then
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from layerwise import layers
from layerwise.core import files
from layerwise.core.base import within
from layerwise.core.files import ModelFileError
from layerwise.training import netfile, serialize
from layerwise.training.copies import seeds_of

# Callbacks whose state decides nothing of the training.
OBSERVERS = ("CSVLogger", "Checkpoint", "TensorBoard", "UpdateStats")


def state_in(path: Any, net: Any) -> dict[str, Any] | None:
    """The state of a training in a file, if it is of this net; None where there is no file yet."""
    if path is None:
        return None
    try:
        header, arrays = files.read(path)
    except FileNotFoundError:
        files.check_place(path)
        return None
    models = {type(each).__name__ for each in within(net) if isinstance(each, layers.Model)}
    description = json.loads(json.dumps(serialize.encode_net(net)))
    with files.reading(path):
        if "training" not in header:
            raise ModelFileError(
                f"{path} holds a net and no training: resume takes what callbacks.Checkpoint writes without "
                f"weights_only."
            )
        found = serialize.of_header(header)
        saved = serialize.decode_state(header["training"], arrays)
        brought = ("stopped", "frozen") if "frozen" in saved else ("stopped",)
        here, there = (serialize.seedless(each, models, brought) for each in (description, found))
        if here != there:
            frozen = "" if "frozen" in saved else ", frozen as they were"
            raise ModelFileError(f"{path} is of another net than this one: make the same layers{frozen}.")
        seeds = seeds_of(found["arguments"].get("seed", net.seeds), net.copies)
        return saved | {"arrays": arrays, "seeds": seeds, "history": as_lists(saved["history"])}


def state_of(run: Any, stopped: bool) -> dict[str, Any]:
    """What decides how `run` goes on from here. `stopped`: a callback has ended it."""
    net = run.net
    return {
        "epoch": run.epoch,
        "step": run.step,
        "batches": run.step - run.epoch_began,
        "stopped": stopped,
        "ended_by": list(run.ended_by),
        "totals": run.means.sums(),
        "history": {name: _as_array(values) for name, values in run.history.items()},
        "diverged": run.history.diverged,
        "optim": serialize.encode_settings(run.optim),
        "optim_state": run.optim.state_dict() if hasattr(run.optim, "state_dict") else None,
        "loss": serialize.encode_settings(run.loss),
        "callbacks": [[type(each).__name__, _own_state(each)] for each in run.callbacks],
        "order": run.order_began,
        "data": _own_state(getattr(run.rows, "data", None)),
        "draws": {
            leaf.path: [rng.bit_generator.state for rng in leaf.rngs] for leaf in net.leaf_layers() if leaf.random
        },
        "draws_of_ranks": run.rng_states_of_ranks,
        "weights": net.vector.copy(),
        "frozen": [leaf.path for leaf in net.leaf_layers() if leaf._frozen],
    }


def _as_array(values: list[Any]) -> Any:
    """One array with a number for each epoch, or for each copy too, (E, S). JSON would take ten times as long."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        return values
    return array if array.dtype.kind in "fiu" else values


def as_lists(history: Any) -> Any:
    """The history of a file as a training has it. Older files hold lists."""
    if not isinstance(history, dict):
        return history
    return {
        name: (each.tolist() if each.ndim == 1 else list(each)) if isinstance(each, np.ndarray) and each.ndim else each
        for name, each in history.items()
    }


def _own_state(of: Any) -> Any:
    """The state of a callback, or of an iterable of batches."""
    return of.state_dict() if hasattr(of, "state_dict") else None


def check(state: dict[str, Any], run: Any, rows: Any, has_validation: bool, net: Any, path: Any) -> None:
    """ModelFileError, before anything is changed, unless `run` is the training whose state this is. `net` knows the
    shapes of its parameters; `has_validation`: the training has rows for validation."""
    _check_settings(state, run, path)
    netfile.check_arrays(net, state["arrays"], path)
    lead = () if net.copies is None else (net.copies,)
    whole = (*lead, sum(math.prod(shape) for leaf in net.leaf_layers() for shape, _ in leaf._specs.values()))
    weights = state["weights"]
    if not _is_array(weights, whole, net.dtype):
        raise ModelFileError(f"{path} has weights of shape {np.shape(weights)}, this net {whole}: build the same net.")
    _check_data(state, run, rows, has_validation, path)
    _check_sound(state, net, lead, path)


def _check_settings(state: dict[str, Any], run: Any, path: Any) -> None:
    """The optimizer's classes, the loss and the callbacks are the same."""
    optimizer, loss = serialize.encode_settings(run.optim), serialize.encode_settings(run.loss)
    kinds, given = serialize.classes(state["optim"]), serialize.classes(optimizer)
    if kinds != given:
        raise ModelFileError(
            f"{path} is of a training by {kinds}, this one is by {given}: give the same optimizer, or begin anew with "
            f"the net that model.load gives."
        )
    kinds, given = serialize.classes(state["loss"]), serialize.classes(loss)
    if kinds != given:
        raise ModelFileError(f"{path} is of a training by {kinds}, this one is by {given}: give the same loss.")
    known = state["loss"]
    if "own" not in known:  # a file of an earlier version lacks later arguments: they have their defaults
        known = serialize.encode_settings(serialize.decode_settings(known, "loss"))
    if known != loss:
        raise ModelFileError(
            f"{path} is of a training whose loss has {state['loss']['arguments']}, this one is {run.loss!r}: give the "
            f"same loss."
        )
    # What only writes files, or keeps no state, may come and go.
    names = [name for name, kept in state["callbacks"] if kept is not None and name not in OBSERVERS]
    given = [type(each).__name__ for each in run.callbacks if hasattr(each, "state_dict")]
    given = [name for name in given if name not in OBSERVERS]
    if names != given:
        raise ModelFileError(
            f"{path} is of a training with the callbacks {names}, this one has {given}: give the same."
        )


def _check_data(state: dict[str, Any], run: Any, rows: Any, has_validation: bool, path: Any) -> None:
    """The data, the metrics and the batches of the epoch so far are the same."""
    if state.get("data") is not None and not hasattr(getattr(rows, "data", None), "load_state_dict"):
        raise ModelFileError(
            f"{path} is of a training on batches that keep a state, as augment.batches do, and these keep none: give "
            f"the same."
        )
    batches, metrics = state["batches"], list(run.metrics)
    found = list(state["totals"]["metrics"])
    if found != metrics:
        raise ModelFileError(
            f"{path} is of a training with the metrics {found}, this one has {metrics}: give the same."
        )
    if state["history"] and ("val_loss" in state["history"]) != has_validation:
        other = "without" if has_validation else "with"
        raise ModelFileError(f"{path} is of a training {other} validation, unlike this one: give the same.")
    found, here = state["totals"]["rows"], _rows_of(rows, batches)
    if batches and found != here:
        raise ModelFileError(
            f"{path} is of an epoch whose first {batches} batches have {found} rows, here they have {here}: give the "
            f"same data and batch_size."
        )


def _check_sound(state: dict[str, Any], net: Any, lead: tuple[int, ...], path: Any) -> None:
    """Every value can be that of a training. `lead` is (S,) of a stack of copies, else ()."""
    totals, history, diverged, batches = state["totals"], state["history"], state["diverged"], state["batches"]
    nets = net.copies or 1
    shares = totals.get("shares", totals["metrics"])  # older ones have none
    numbers = [totals["rows"], totals["weight"], totals["loss"], *totals["metrics"].values(), *shares.values()]
    sound = {
        "its place": all(_is_count(state[name]) for name in ("epoch", "step", "batches")) and batches <= state["step"],
        "its end": isinstance(state["stopped"], bool),
        "its frozen layers": all(isinstance(path, str) for path in state.get("frozen") or ()),
        "its sums": set(totals) - {"shares"} == {"rows", "weight", "loss", "metrics"}
        and set(shares) == set(totals["metrics"])
        and all(_is_number(each, lead) for each in numbers)
        and _is_count(totals["rows"])
        and (totals["rows"] > 0 or not batches),
        "its history": isinstance(history, dict)
        and all(isinstance(each, list) and all(_is_number(n, lead) for n in each) for each in history.values())
        and all(isinstance(name, str) for name in history),
        "its copies": diverged is None or _is_array(diverged, lead, np.dtype(bool)),
        "its random numbers": all(len(state["draws"][leaf.path]) == nets for leaf in net.leaf_layers() if leaf.random)
        and (state["order"] is None or len(state["order"]) == nets),
    }
    for name, holds in sound.items():
        if not holds:
            raise ModelFileError(f"{path} is damaged: {name} can't be that of a training.")
    of_ranks = state.get("draws_of_ranks") or []
    if any(each.keys() != state["draws"].keys() for each in of_ranks):
        raise ModelFileError(f"{path} is damaged: its random numbers can't be those of a training.")
    states = [each for of_one in (state["draws"], *of_ranks) for several in of_one.values() for each in several]
    for each in [*states, *(state["order"] or ())]:
        np.random.default_rng(0).bit_generator.state = each  # refuses what is no such state


def _rows_of(rows: Any, batches: int) -> int | None:
    """How many rows the first batches of an epoch have. None if there are fewer batches, and for an iterable."""
    if not hasattr(rows, "bounds") or batches > rows.steps:
        return None
    sizes = [stop - start for start, stop in rows.bounds]
    rounds, more = divmod(batches, len(sizes))
    return rounds * sum(sizes) + sum(sizes[:more])


def _is_array(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return isinstance(value, np.ndarray) and value.shape == shape and value.dtype == dtype


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any, lead: tuple[int, ...]) -> bool:
    """Whether it is a number, or one for each copy of a stack."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu" and value.shape in ((), lead)
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def restore(state: dict[str, Any], run: Any) -> None:
    """Put the run, its net and its optimizer back to the moment of the state. Callbacks follow after `begin`."""
    net = run.net
    frozen = state.get("frozen", [leaf.path for leaf in net.leaf_layers() if leaf._frozen])  # as in an older file
    for leaf in net.leaf_layers():
        if leaf._frozen != (leaf.path in frozen):
            leaf.frozen = not leaf._frozen
    if state["optim_state"] is not None:
        run.optim.load_state_dict(state["optim_state"])  # refuses what does not fit, and nothing has changed
    net.vector[...] = state["weights"]
    for leaf in net.leaf_layers():
        if leaf.path in state["draws"]:
            for rng, drawn in zip(leaf.rngs, state["draws"][leaf.path], strict=True):
                rng.bit_generator.state = drawn
        for name, buffer in leaf.buffers.items():
            buffer[...] = state["arrays"][f"{leaf.path}.{name}"]
    if state["order"] is not None:
        for rng, drawn in zip(net._order, state["order"], strict=True):
            rng.bit_generator.state = drawn
    net.seeds = state["seeds"]
    run.epoch, run.step = state["epoch"], state["step"]
    run.history.update(state["history"])
    run.history.diverged = net.stopped = state["diverged"]


def restore_outside(state: dict[str, Any], run: Any) -> None:
    """The states of the callbacks, and of data that keep one."""
    states: dict[str, list[Any]] = {}
    for name, kept in state["callbacks"]:
        states.setdefault(name, []).append(kept)
    for callback in run.callbacks:
        same_kind = states.get(type(callback).__name__)
        kept = same_kind.pop(0) if same_kind else None
        if kept is not None:
            callback.load_state_dict(kept)
    if state.get("data") is not None:
        run.rows.data.load_state_dict(state["data"])
