"""Callbacks: objects that watch a training, and may end it. `train(..., callbacks=[EarlyStopping()])`.

    end it       EarlyStopping, StopOnTarget, TimeLimit
    steer it     ReduceOnPlateau
    keep a trace Checkpoint, CSVLogger, TensorBoard, UpdateStats

A callback of your own is a callable (net, logs), called after each epoch, or an object with any of

    check_run(run)     before the net is built or anything has moved: raise what can be known by then
    begin(run)         before the first step
    step(run)          after each step
    epoch(run, logs)   after each epoch; logs are that epoch's numbers: "loss", "val_loss", "seconds", ...
    end(run)           after the last epoch

`step` and `epoch` end the training by returning True. `run` is the training: net, optim, loss, history, epochs,
epoch and step, the numbers of those finished, and quantities, the names that the logs will have. With `state_dict()`
and `load_state_dict(state)` a callback goes on where it was when a training is resumed; `load_state_dict` is called
after `begin`, which resets it. Where several processes train one net, one that `writes` files is called in the first
process alone. A training that a callback has ended stays ended when it is resumed with that callback, unless its
`why_ended(run)` returns "": else it returns how to go on. With `pauses = True`, a training that it ends within an
epoch goes on from there. One of ours that keeps state and only watches is named in training/resume.py, OBSERVERS: a
training may go on without it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from layerwise import optim
from layerwise.core import arguments, files, interrupts
from layerwise.training.callables import rules_within

Logs = dict[str, float]

# What a quantity's name says of it, by its last word.
FALLING = ("loss", "error", "mae", "mse", "rmse")
RISING = ("accuracy", "auc", "f1", "precision", "r2", "recall", "f1_macro", "precision_macro", "recall_macro")


class Monitor:
    """A quantity of the logs, by name, and which of two values of it is better.

    mode is "min", "max", or None: by the name, "min" for a loss or an error, "max" for an accuracy. ValueError for a
    name that does not tell; and, before the first step, for one that the logs will not have. A callback of the user's
    own that comes before may add it: then after the first epoch.
    """

    def __init__(self, name: str, mode: str | None = None) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f'mode is "min", "max" or None (told by the name), got {mode!r}.')
        self.name = str(name)
        if mode is None and not self.name.endswith(FALLING + RISING):
            raise ValueError(f'the name {name!r} does not tell whether less is better: say mode="min" or mode="max".')
        self.falls = mode == "min" or (mode is None and self.name.endswith(FALLING))
        self.worst = math.inf if self.falls else -math.inf

    def check_run(self, run: Any) -> None:
        if not run.more_quantities or self.name in run.quantities:
            self._check(run.quantities, run.net.copies is not None and self.name != "seconds")

    def value(self, logs: Logs) -> float:
        self._check(list(logs), np.ndim(logs.get(self.name, 0)) > 0)
        return logs[self.name]

    def _check(self, names: list[str], of_each_copy: bool) -> None:
        if self.name not in names:
            missing = self.name.startswith("val_") and "val_loss" not in names
            hint = " Names with val_ come with train(..., validation=...)." if missing else ""
            raise ValueError(f"the logs have no {self.name!r} to look at; they have {', '.join(names)}.{hint}")
        if of_each_copy:
            raise ValueError(f"{self.name!r} has a number for each copy in the stack: watch the nets one at a time.")

    def better(self, value: float, than: float) -> bool:
        return value < than if self.falls else value > than


class EarlyStopping:
    """End the training when a quantity has not improved for `patience` epochs in a row.

    min_delta         an improvement is one by more than this
    mode              "min", "max" or None: see Monitor
    restore_best      at the end, also after an error, the weights and running statistics of the best epoch come back
    baseline          epochs wait, also those that are the best so far, until one is better than this
    start_from_epoch  the first so many epochs do not count: they are not the best, and do not wait

    Afterwards `best` and `best_epoch` tell the best value and its epoch. As in Keras, whose patience is 0 and
    whose restore_best_weights is False by default. ValueError for an argument out of range, or no such quantity.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
        baseline: float | None = None,
        start_from_epoch: int = 0,
    ) -> None:
        self.monitor = Monitor(monitor, mode)
        self.patience = _epochs("patience", patience)
        self.min_delta = arguments.real("min_delta", min_delta, 0)
        self.restore_best = arguments.flag("restore_best", restore_best)
        self.baseline = None if baseline is None else arguments.real("baseline", baseline, -math.inf)
        self.start_from_epoch = _epochs("start_from_epoch", start_from_epoch)

    def check_run(self, run: Any) -> None:
        self.monitor.check_run(run)

    def begin(self, run: Any) -> None:
        self.best, self.best_epoch, self.waited = self.monitor.worst, 0, 0
        self.kept: list[Any] = []
        self._shapes = [array.shape for array in _arrays(run.net)]

    def epoch(self, run: Any, logs: Logs) -> bool:
        value = self.monitor.value(logs)
        if run.epoch <= self.start_from_epoch:
            return False
        self.waited += 1
        margin = self.min_delta if self.monitor.falls else -self.min_delta
        if not self.monitor.better(value + margin, self.best):
            return self.waited >= self.patience
        self.best, self.best_epoch = value, run.epoch
        if self.baseline is None or self.monitor.better(value + margin, self.baseline):
            self.waited = 0
        if self.restore_best:
            with _evaluation_weights(run):
                self.kept = [array.copy() for array in _arrays(run.net)]
        return False

    def why_ended(self, run: Any) -> str:
        more = f"give it a patience of more than {self.waited} epochs to go on"
        return more if self.waited and self.waited >= self.patience else ""

    def end(self, run: Any) -> None:
        def put_back() -> None:
            for array, kept in zip(_arrays(run.net), self.kept, strict=False):  # none kept: nothing was ever good
                array[...] = kept

        interrupts.attempt(put_back, put_back)  # where a Ctrl-C cuts it short, once more
        self.kept = []

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited, "kept": list(self.kept)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch, self.waited = _numbers(state, "best", "best_epoch", "waited")
        kept = list(state["kept"])
        if kept and [array.shape for array in kept] != self._shapes:
            raise ValueError(f"the weights that EarlyStopping kept are not of this net, of shapes {self._shapes}.")
        self.kept = kept


class ReduceOnPlateau:
    """Multiply the learning rate by `factor` when a quantity has not improved for more than `patience` epochs in a row.

    min_lr     the learning rate never goes below
    min_delta  an improvement is one by more than this
    cooldown   epochs after a reduction that are not counted
    mode       "min", "max" or None: see Monitor

    Every lr is set, also within wrappers and PerLayer. Equals torch ReduceLROnPlateau with threshold_mode="abs" (its
    own default is relative), threshold=min_delta and eps=0. Keras counts otherwise: its (patience=p, cooldown=c) is
    (p - 1, c - 1) here, and its 0 is its 1. ValueError, before the first step, for an optimizer whose lr is a schedule,
    or that has none.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_lr: float = 0.0,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        mode: str | None = None,
    ) -> None:
        self.monitor = Monitor(monitor, mode)
        self.factor = arguments.real("factor", factor, math.ulp(0), 1)
        self.patience = _epochs("patience", patience)
        self.min_lr = arguments.real("min_lr", min_lr, 0)
        self.min_delta = arguments.real("min_delta", min_delta, 0)
        self.cooldown = _epochs("cooldown", cooldown)

    def check_run(self, run: Any) -> None:
        self.monitor.check_run(run)
        rules = [rule for rule in rules_within(run.optim) if "lr" in getattr(rule, "hyper", ())]
        if not rules:
            raise ValueError(f"ReduceOnPlateau sets the lr of an optimizer, and {run.optim!r} has none.")
        for rule in rules:
            if callable(rule.hyper["lr"]):
                raise ValueError(
                    f"ReduceOnPlateau sets lr to a number, and that of {type(rule).__name__} is a schedule, "
                    f"{rule.hyper['lr']!r}: give it a number, or leave ReduceOnPlateau out."
                )

    def begin(self, run: Any) -> None:
        self.best, self.waited, self.cooling = self.monitor.worst, 0, 0

    def epoch(self, run: Any, logs: Logs) -> None:
        value = self.monitor.value(logs)
        margin = self.min_delta if self.monitor.falls else -self.min_delta
        if self.monitor.better(value + margin, self.best):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.cooling > 0:
            self.cooling, self.waited = self.cooling - 1, 0
        if self.waited > self.patience:
            for rule in rules_within(run.optim):
                if "lr" in rule.hyper and rule.lr > self.min_lr:
                    rule.lr = max(rule.lr * self.factor, self.min_lr)
            self.cooling, self.waited = self.cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "cooling": self.cooling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.cooling = _numbers(state, "best", "waited", "cooling")


class Checkpoint:
    """Save the net after each epoch; with `monitor`, after each that is better than all before. It is written when all
    callbacks have done their part of the epoch, so that their state in it is that of one moment.

    path  as for net.save; {epoch} in the file's name, and the names of the logs, are filled in:
          "net-{epoch:03d}-{loss:.3f}.npz". Without them the file is replaced, in one step, so that there is always a
          whole one.
    mode  "min", "max" or None: see Monitor
    every also after so many steps, within an epoch; for arrays, whose order is kept, and a path without braces

    model.load gives the net; train(..., resume=path) goes on with the training, to the same bits as if it had never
    stopped, on the same machine with the same packages and number of BLAS threads. The file holds no pickle. With
    weights_only (Keras: save_weights_only) it holds the net alone, as net.save writes it, a quarter of the size with
    Adam: resume does not take it. Afterwards `best` is the best value. ValueError, before the first step, for a suffix
    that is not one of net.save's; OSError for a folder that is not there or takes no file.
    """

    writes = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str | None = None,
        mode: str | None = None,
        every: int | None = None,
        weights_only: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self.monitor = None if monitor is None else Monitor(monitor, mode)
        self.every = None if every is None else arguments.count("every", every)
        self.weights_only = arguments.flag("weights_only", weights_only)
        if every is not None and (monitor is not None or "{" in self.path):
            raise ValueError("every goes with one path, without braces, and without monitor.")
        if set("{}") & set(os.path.dirname(self.path)):
            raise ValueError(f"the name of the file is filled in, not its folder: no braces there, got {self.path!r}.")

    def check_run(self, run: Any) -> None:
        if self.monitor is not None:
            self.monitor.check_run(run)
        if self.every is not None and not (self.weights_only or hasattr(run.rows, "bounds")):
            raise ValueError("an iterable of batches has no place to go on from but an epoch's start: leave out every.")
        files.check_place(self.path)
        if not run.more_quantities:
            self._filled_in({"epoch": 1, **dict.fromkeys(run.quantities, np.zeros(run.net.copies or ())[()])})

    def begin(self, run: Any) -> None:
        self.best = None if self.monitor is None else self.monitor.worst

    def step(self, run: Any) -> None:
        if self.every is not None and run.step % self.every == 0:
            run.save_when_done(self.path, self.weights_only)

    def epoch(self, run: Any, logs: Logs) -> None:
        if self.monitor is not None and self.best is not None:
            value = self.monitor.value(logs)
            if not self.monitor.better(value, self.best):
                return
            self.best = value
        run.save_when_done(self._filled_in({"epoch": run.epoch, **logs}), self.weights_only)

    def _filled_in(self, names: dict[str, Any]) -> str:
        try:
            return self.path.format(**names)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"the path {self.path!r} can't be filled in ({error!r}): in braces stand names, of {', '.join(names)}."
            ) from None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = None if self.monitor is None else _numbers(state, "best")[0]


class CSVLogger:
    """Append each epoch's numbers to a CSV file, a row as soon as it is known: epoch, loss, ... under a header. Of a
    stack each copy has a column, "loss 0", "loss 1", ...: `pandas.read_csv(path, index_col="epoch")` is to_frame().

    A file that is there already goes on; ValueError, and it stays as it is, if its header is another. A last row that
    was torn, by a kill or a full disk, is cut. Of a training that is resumed, the rows after the checkpoint's epoch are
    dropped: they come again. OSError, before the first step, for a folder that is not there, and where a device or a
    pipe is.
    """

    writes = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check_run(self, run: Any) -> None:
        text = self._text() if self.path.is_file() else ""
        if "\n" in text and not run.more_quantities:  # else the header is torn, or not known yet
            known = ["epoch"]
            for name in run.quantities[: run.quantities.index("seconds")]:
                known += _by_copy(name, np.zeros(run.net.copies or ()), "{} {}")
            known.append("seconds")
            self._check((self._columns(_whole_lines(text)) or [])[: len(known)], known)

    def begin(self, run: Any) -> None:
        files.check_regular(self.path)
        self.path.open("a").close()
        self.header: list[str] | None = None  # not known before the first epoch
        self.lines_before = len(_whole_lines(self._text()))
        self.resumed, self.knows_place = run.resumed is not None, False

    def epoch(self, run: Any, logs: Logs) -> None:
        header, row = ["epoch"], [run.epoch]
        for name, value in logs.items():
            header += _by_copy(name, value, "{} {}")
            row += np.ravel(value).tolist()
        if self.header is None:
            self._take_up(header, run.epoch)
        self._check(self.header, header)
        self.header = header
        content = [row] if self.path.exists() and self.path.stat().st_size else [header, row]
        files.append(self.path, _as_csv(content).encode(), flush=False)

    def _take_up(self, header: list[str], epoch: int) -> None:
        """Leave in the file what is whole, and of a training that is resumed what came before this epoch."""
        text = self._text()
        lines = [] if _as_csv([header]).startswith(text) else _whole_lines(text)  # a torn header is written again
        self._check(self._columns(lines), header)
        if self.resumed:
            own = self._own_rows(lines, epoch)
            repeated = {place for place in own if _epoch_of(lines[place]) >= epoch}
            self.lines_before = own.start if own and own.stop == len(lines) else len(lines) - len(repeated)
            lines = [line for place, line in enumerate(lines) if place not in repeated]
        if "".join(lines) != text:
            with files.replaced(self.path) as file:
                file.write("".join(lines).encode())

    def _own_rows(self, lines: list[str], epoch: int) -> range:
        """The rows of the training that is resumed: one epoch after the other from where it began. Where its state says
        nothing of this file, they are the last ones, unless nothing had been written yet."""
        start = max(1, self.lines_before)
        if not self.knows_place and epoch > 1:
            start = max([1, *(place for place, line in enumerate(lines) if _epoch_of(line) == 1)])
        stop = start
        while stop < len(lines) and (stop == start or _epoch_of(lines[stop]) == _epoch_of(lines[stop - 1]) + 1):
            stop += 1
        return range(start, stop)

    def _text(self) -> str:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                return file.read()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} is no text in UTF-8 ({error}): give the log a file of its own.") from error

    def _columns(self, lines: list[str]) -> list[str] | None:
        """The names in the first line, the header; None where there is no line."""
        try:
            return next(csv.reader(lines), None)
        except csv.Error as error:
            raise ValueError(f"{self.path} has no header of CSV ({error}): give the log a file of its own.") from error

    def _check(self, found: list[str] | None, header: list[str]) -> None:
        if found not in (None, header):
            raise ValueError(
                f"{self.path} has the columns {found}, this training has {header}: give it a file of its own."
            )

    def state_dict(self) -> dict[str, Any]:
        return {"lines_before": self.lines_before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lines_before = arguments.count("lines_before", 1 + _numbers(state, "lines_before")[0]) - 1
        self.knows_place = True


class TensorBoard:
    """Write each epoch's numbers for TensorBoard, as soon as they are known: `tensorboard --logdir folder` shows them
    (TensorBoard itself is a package of its own, `pip install tensorboard`).

    folder  where the runs are; it is made
    name    of this run, a folder within; each training has a name of its own, None: the time of its begin, and -2, -3,
            ... of others within the same second

    A blank in the name of a quantity becomes "_"; of a stack of copies, each has its own: "loss/0", "loss/1", ... A
    training that is resumed goes on with the epoch after the checkpoint's, and tells TensorBoard to leave out what was
    written of later ones. Needs the extra `tensorboard`: ImportError when the callback is made without it.
    ValueError for a name that leads out of the folder.
    """

    writes = True

    def __init__(self, folder: str | os.PathLike[str], name: str | None = None) -> None:
        _tensorboard()
        self.folder = Path(folder)
        self.name = None if name is None else _folder_within(name)
        self.file: Any = None

    def begin(self, run: Any) -> None:
        self.end(run)  # a training that ended by an error left it open
        self.run_name = self.name
        self.written, self.resumed = 0, False
        if run.resumed is None:
            self._take_name()

    def _take_name(self) -> str:
        """The name of this run; where it has none yet, that of a folder that no other training has."""
        now, number = time.strftime("%Y-%m-%d %H.%M.%S"), itertools.count(2)
        name = self.run_name or now
        while self.run_name is None:
            try:
                (self.folder / name).mkdir(parents=True)
                self.run_name = name
            except FileExistsError:
                name = f"{now}-{next(number)}"
        return name

    def epoch(self, run: Any, logs: Logs) -> None:
        writer, events, summary = _tensorboard()
        if self.file is None:  # not in `begin`, which does not know yet where a training that is resumed was
            place = self.folder / self._take_name()
            place.mkdir(parents=True, exist_ok=True)
            # The name tells the second only: a second file within it is not to take the first one's place.
            self.file = writer(str(place / "events"), f".{time.time_ns()}")
            if self.resumed:
                start = events.SessionLog(status=events.SessionLog.START)
                self._write(events.Event(step=self.written + 1, session_log=start))
        values = []
        for name, value in logs.items():
            tags = _by_copy(name.replace(" ", "_"), value, "{}/{}")
            for tag, each in zip(tags, np.ravel(value).tolist(), strict=True):
                values.append(summary.Value(tag=tag, simple_value=each))
        self._write(events.Event(step=run.epoch, summary=summary(value=values)))
        self.written = run.epoch

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self.file.write_event(event)
        self.file.flush()

    def end(self, run: Any) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def state_dict(self) -> dict[str, Any]:
        return {"written": self.written, "name": self.run_name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.run_name = _folder_within(state["name"])  # the file may be anyone's
        (self.written,), self.resumed = _numbers(state, "written"), True


class UpdateStats:
    """Write into the History, and the logs, how each layer moved: means over the steps of each epoch.

    "layers.0 gradient norm"  of all parameters of the layer together, as the update rule got it: after a Clip
    "layers.0 update norm"    of what the step changed
    "layers.0 update ratio"   the norm of the update over that of the weights before it; NaN where these are all 0
    "layers.1 dead units"     of a ReLU, ReLU6, HardSigmoid or HardSwish: the share of units (places of the last axis)
                              whose output was 0 for every row of all batches measured
    "clipped steps"           the share of steps at which a Clip did something, where there is one

    every  measure the 1st, the (every + 1)-th, ... step of each epoch only

    Layers that are frozen at the begin are left out. Nothing in the training changes. ValueError for a bad `every`,
    and for a stack of copies.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = arguments.count("every", every)

    def check_run(self, run: Any) -> None:
        if run.net.copies is not None:
            raise ValueError(
                f"UpdateStats tells how one net moves, and this is a stack of {run.net.copies}: leave it out."
            )
        for leaf in run.net.leaf_layers():  # before the net is built, those that will have no weights are named too
            names = ["gradient norm", "update norm", "update ratio"] * (not leaf.frozen)
            run.quantities += [f"{leaf.path} {name}" for name in [*names, "dead units"]]
        run.quantities.append("clipped steps")

    def begin(self, run: Any) -> None:
        self.leaf_layers = leaf_layers = list(run.net.leaf_layers())
        self.moving = [leaf for leaf in leaf_layers if leaf.parameters and not leaf.frozen]
        self.gated = [leaf for leaf in leaf_layers if getattr(leaf, "dead_below", None) is not None]
        self.clips = [rule for rule in rules_within(run.optim) if isinstance(rule, optim.Clip)]
        self._restart(run)

    def _restart(self, run: Any) -> None:
        """The start of an epoch, whose first step is measured."""
        self.seen = 0
        self.rows: dict[str, list[float]] = {}
        self.alive: dict[str, Any] = {}
        self.before = run.net.vector.copy()

    def step(self, run: Any) -> None:
        if self.seen % self.every == 0:
            self._measure(run)
        self.seen += 1
        if self.seen % self.every == 0:
            np.copyto(self.before, run.net.vector)

    def _measure(self, run: Any) -> None:
        spans = {p.names[0]: p.span for p in run.net.layout.parameters}
        for leaf in self.moving:
            chosen = [spans[f"{leaf.path}.{name}"] for name in leaf.parameters]
            gradient, weight, update = (
                _norm(array[span] for span in chosen)
                for array in (run.net.gradient, self.before, run.net.vector - self.before)
            )
            self._note(f"{leaf.path} gradient norm", gradient)
            self._note(f"{leaf.path} update norm", update)
            self._note(f"{leaf.path} update ratio", *([update / weight] if weight else []))
        for leaf in self.gated:
            # ReLUs keep their output, 0 in a dead unit; the other two keep their input, -3 or less in a dead unit.
            kept, floor = leaf.kept, leaf.dead_below
            if kept is None:  # one of several processes may have no rows
                kept = np.full(leaf.output_shape(leaf.input_shape or ()), floor)
            alive = (kept > floor).reshape(-1, kept.shape[-1]).any(axis=0)
            self.alive[leaf.path] = self.alive.get(leaf.path, False) | alive
        if self.clips:
            self._note("clipped steps", float(any(clip.clipped for clip in self.clips)))

    def _note(self, name: str, *values: float) -> None:
        self.rows.setdefault(name, []).extend(values)

    def epoch(self, run: Any, logs: Logs) -> None:
        means = {name: sum(values) / len(values) if values else math.nan for name, values in self.rows.items()}
        dead = {f"{path} dead units": float(1 - run.on_any_rank(alive).mean()) for path, alive in self.alive.items()}
        for name, value in sorted((means | dead).items()):
            logs[name] = value
            run.history.setdefault(name, []).append(value)
        self._restart(run)

    def join_ranks(self, run: Any) -> None:
        self.alive = {path: run.on_any_rank(alive) for path, alive in self.alive.items()}

    def state_dict(self) -> dict[str, Any]:
        rows = {name: np.array(values) for name, values in self.rows.items()}
        moving = [leaf.path for leaf in self.moving]
        return {"seen": self.seen, "moving": moving, "rows": rows, "alive": dict(self.alive), "before": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        (seen,) = _numbers(state, "seen")
        leaf_layers = {leaf.path: leaf for leaf in self.leaf_layers}
        moving = [leaf_layers[path] for path in state["moving"]]
        rows = {name: values.astype(float).tolist() for name, values in state["rows"].items()}
        alive = {leaf_layers[path].path: flags.astype(bool) for path, flags in state["alive"].items()}
        np.copyto(self.before, state["before"])
        self.seen, self.moving, self.rows, self.alive = seen, moving, rows, alive


class StopOnTarget:
    """End the training after the first epoch whose `monitor` has reached `target`: StopOnTarget("accuracy", 0.99).

    mode is "min", "max" or None: see Monitor. ValueError for a target that is not a number, or no such quantity.
    """

    def __init__(self, monitor: str, target: float, mode: str | None = None) -> None:
        self.monitor = Monitor(monitor, mode)
        self.target = arguments.real("target", target, -math.inf)

    def check_run(self, run: Any) -> None:
        self.monitor.check_run(run)

    def epoch(self, run: Any, logs: Logs) -> bool:
        value = self.monitor.value(logs)
        return value == self.target or self.monitor.better(value, self.target)

    def why_ended(self, run: Any) -> str:
        reached = self.epoch(run, {name: values[-1] for name, values in run.history.items()})
        return "give it a target that is not reached yet, or leave it out, to go on" if reached else ""


class TimeLimit:
    """End the training after the step at which `seconds` have passed since its begin.

    The epoch under way counts with the steps that it had. A Checkpoint's file is of that step, and a training that is
    resumed, with `seconds` of its own, goes on within the epoch, to the same bits as if it had never stopped: one long
    training in several jobs of a queue. Of batches from an iterable, and of several processes, it goes on with the next
    epoch. ValueError for seconds that are not positive.
    """

    pauses = True

    def __init__(self, seconds: float) -> None:
        self.seconds = arguments.real("seconds", seconds, math.ulp(0))

    def begin(self, run: Any) -> None:
        self.until = time.monotonic() + self.seconds

    def step(self, run: Any) -> bool:
        return time.monotonic() >= self.until

    def why_ended(self, run: Any) -> str:
        return ""


def _epochs(name: str, value: Any) -> int:
    """A number of epochs, which may be 0."""
    return 0 if value == 0 and value is not False else arguments.count(name, value)


def _by_copy(name: str, value: Any, form: str) -> list[str]:
    """The name of a quantity, or of a stack a name for each copy."""
    return [form.format(name, copy) for copy in range(np.size(value))] if np.ndim(value) else [name]


def _as_csv(rows: list[list[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _whole_lines(text: str) -> list[str]:
    """The lines of a CSV file, each with its end. A last one without an end gets one, unless it was torn: it has fewer
    columns than the header, or the header ends as CSVLogger writes it, which never leaves an end out."""
    *lines, last = text.split("\n")
    lines = [f"{line}\n" for line in lines]
    if last and not (lines and (lines[0].endswith("\r\n") or last.count(",") < lines[0].count(","))):
        lines.append(last.rstrip("\r") + "\n")
    return lines


def _epoch_of(line: str) -> int:
    """The epoch of a row; -1 for what is none."""
    number = line.split(",")[0]
    return int(number) if number.isdecimal() else -1


def _folder_within(name: Any) -> str:
    """A path that leads to no place outside the folder that it is put to."""
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"the name of a run is that of a folder within the folder of all, got {name!r:.200}.")
    return name


def _tensorboard() -> tuple[Any, Any, Any]:
    """What writes a file of events, and what these are made of. SummaryWriter has a thread that writes them some time
    later, after a checkpoint maybe, and those of a killed training would be missing."""
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2
    except ImportError:
        raise ImportError('TensorBoard needs a package: pip install "layerwise[tensorboard]"') from None
    return EventsWriter, event_pb2, summary_pb2.Summary


def _norm(arrays: Iterable[Any]) -> float:
    """The norm of all arrays together."""
    return math.sqrt(sum(float(array.dot(array)) for array in arrays))


def _numbers(state: dict[str, Any], *names: str) -> list[Any]:
    """These values of a callback's state. ValueError for what is no number: the state may come from any file."""
    values = [state[name] for name in names]
    if not all(isinstance(value, (int, float)) for value in values):
        raise ValueError(f"{', '.join(names)} of a callback's state are numbers, got {values!r:.200}.")
    return values


def _arrays(net: Any) -> list[Any]:
    """The arrays that decide what a net predicts: the parameters, as one vector, and the running statistics."""
    return [net.vector, *(value for leaf in net.leaf_layers() for value in leaf.buffers.values())]


def _evaluation_weights(run: Any) -> Any:
    """As a context: the net with the weights that validation uses. A plain callable as optimizer has no others."""
    own = getattr(run.optim, "evaluation_weights", None)
    return own(run.net) if own is not None else contextlib.nullcontext()


__all__ = [
    "CSVLogger", "Checkpoint", "EarlyStopping", "Monitor", "ReduceOnPlateau", "StopOnTarget", "TensorBoard",
    "TimeLimit", "UpdateStats",
]  # fmt: skip
