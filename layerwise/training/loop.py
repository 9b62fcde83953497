"""A training: what `Model.train` sets going once everything has been checked.

In this file, in this order:
  what is raised    DivergenceError
  what serves it    shares, WeightedLoss, Totals, StackTotals, Watcher, and what draws the bar, and keeps a moment to
                    go back to
  the training      Run, StackRun
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from layerwise import loss as _loss
from layerwise.core import files, interrupts, threads
from layerwise.training import data as _data
from layerwise.training import metrics, serialize
from layerwise.training import resume as _resume

Array = np.ndarray


class DivergenceError(ArithmeticError):
    """A loss, gradient or parameter that is not finite. The net is as at the last good epoch's end; `history` is that
    of the epochs until then."""

    history: Any = None


def broadcast_to_copies(lead: tuple[int, ...], rows: Any, *arrays: Any) -> list[Any]:
    """Arrays of rows that all copies share, as arrays of the stack (S, N, ...): views."""
    if getattr(rows, "of_each_copy", False):
        return list(arrays)
    return [None if each is None else np.broadcast_to(each, (*lead, *each.shape)) for each in arrays]


def value_of(loss: Any, pred: Array, y: Array, weight: Array | None, copies: int | None) -> Any:
    if copies is not None:
        return loss(pred, y, weight, copies=copies)
    return loss(pred, y) if weight is None else loss(pred, y, weight)


def shares(loss: Any, n: int, weight: Array | None, copies: int | None = None) -> tuple[Any, Any]:
    """What the n rows of the last batch count in a mean over several batches, sum(c), and what they weigh there,
    sum(u c); of a stack (S,). c is 1 but for CrossEntropy(weight=, ignore_index=), whose mean divides by it."""
    counts = loss.counts if isinstance(loss, _loss.Loss) else None
    if counts is None and weight is None:
        return n, n
    if counts is None and weight is not None and copies is None:
        return n, float(np.add.reduce(weight, None)) * (n / weight.size)
    u = np.ones((copies or 1, 1, 1)) if weight is None else weight.reshape(copies or 1, -1, 1)
    c = np.ones((1, 1, 1)) if counts is None else counts.reshape(len(u), u.shape[1], -1)
    found = tuple(n * each.mean((1, 2), dtype=np.float64) for each in (c, u * c))
    return found if copies is not None else (float(found[0][0]), float(found[1][0]))


class WeightedLoss:
    """A loss as `train` uses it on a weighted batch: value and gradient of the weighted mean times the mean weight.

        sum(u v) / sum(u) * mean(u)                    which is sum(u v) / N
        sum(u c v) / sum(u c) * sum(u c) / sum(c)      where a row counts c in the mean, see `shares`

    So a row weighs the same beside another row of the data, whichever batches they are in. A loss that sums its batch
    is used as it is. Everything else is looked up in the loss within.
    """

    def __init__(self, loss: Any) -> None:
        self.inner = loss
        self.means = not is_summed(loss)
        self.ours = isinstance(loss, _loss.Loss)
        self.scale: Any = 1.0
        self.value: Any = None

    def __call__(self, pred: Array, real: Array, weight: Array, copies: int | None = None) -> Any:
        value = self.inner(pred, real, weight) if copies is None else self.inner(pred, real, weight, copies=copies)
        if self.means and copies is None:
            count, share = shares(self.inner, len(pred), weight)
            self.scale = share / (count or 1.0)
            value = float(value) * self.scale
        elif self.means and copies is not None:
            count, share = shares(self.inner, pred.shape[1], weight, copies)
            mean = (share / np.where(count == 0, 1, count)).astype(pred.dtype)
            self.scale = mean.reshape(copies, *(1,) * (pred.ndim - 1))
            value = value * mean
        self.value = value
        if self.ours:
            self.inner.value = value
        return value

    def backward(self) -> Array:
        gradient = self.inner.backward()
        return np.multiply(gradient, self.scale) if self.means else gradient

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):  # asked for by copy and pickle before there is one
            raise AttributeError(name)
        return getattr(self.inner, name)


def is_summed(loss: Any) -> bool:
    return getattr(loss, "reduction", "mean") != "mean"


class RunningMeans:
    """Sums over the batches of an epoch; their means are over samples. A weighted batch adds the value that
    WeightedLoss gives."""

    def __init__(self, loss: Any, chosen: dict[str, Any]) -> None:
        self.of = loss
        self.ours = isinstance(loss, _loss.Loss)
        self.summed = is_summed(loss)
        self.chosen = chosen
        self.own = any(metric.own for metric in chosen.values())
        self.restart()

    def restart(self) -> None:
        self.rows = 0
        self.weight: Any = 0.0  # of a stack (S,), as the loss
        self.loss: Any = 0.0
        self.metrics: dict[str, Any] = dict.fromkeys(self.chosen, 0.0)
        self.shares: dict[str, Any] = dict.fromkeys(self.chosen, 0.0)  # what each metric is divided by

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from the sums of a checkpoint; an older one lacks the shares, in which no row was ignored."""
        of_all = {name: saved["weight" if each.weighted else "rows"] for name, each in self.chosen.items()}
        vars(self).update({"shares": of_all} | saved)

    def add(self, value: float, pred: Array, y: Array, weight: Array | None) -> None:
        n = count = share = len(pred)
        if weight is not None or (self.ours and self.of.counts is not None):
            count, share = shares(self.of, n, weight)
        self.rows += n
        self.weight += share
        self.loss += float(value) if self.summed else float(value) * count
        own = metrics.read_only(pred, y, weight) if self.own else None
        for name, metric in self.chosen.items():
            total, share = metric.weighed(*(own if own and metric.own else (pred, y, weight)))
            self.metrics[name] += total
            self.shares[name] += share

    def means(self) -> dict[str, float]:
        means = {"loss": self.loss / (self.rows if self.summed else self.weight or 1)}
        for name, total in self.metrics.items():
            means[name] = total / (self.shares[name] or 1)
        return means


class StackRunningMeans(RunningMeans):
    """The same of a stack: an array (S,) for each number."""

    def add(self, value: Any, pred: Array, y: Array, weight: Array | None) -> None:
        n = pred.shape[1]
        count, share = shares(self.of, n, weight, len(pred))
        self.rows += n
        self.weight = self.weight + share
        # In float64: an epoch may have many batches.
        self.loss = self.loss + np.asarray(value, np.float64) * (1 if self.summed else count)
        own = metrics.read_only(pred, y, weight) if self.own else None
        for name, metric in self.chosen.items():
            arrays = own if own and metric.own else (pred, y, weight)
            of_copies = [
                metric.weighed(*(None if each is None else each[copy] for each in arrays)) for copy in range(len(pred))
            ]
            totals, of_metric = np.array(of_copies, np.float64).T
            self.metrics[name] = self.metrics[name] + totals
            self.shares[name] = self.shares[name] + of_metric

    def means(self) -> dict[str, Any]:
        weight = np.where(self.weight == 0, 1, self.weight)
        means = {"loss": self.loss / (self.rows if self.summed else weight)}
        for name, total in self.metrics.items():
            means[name] = total / np.where(self.shares[name] == 0, 1, self.shares[name])
        return means


class CallbackAdapter:
    """A callback of either form, called in one way."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        found = (getattr(callback, name, None) for name in ("check_run", "begin", "step", "epoch", "end"))
        methods = [method if callable(method) else None for method in found]
        if isinstance(callback, type) or not (callable(callback) or any(methods)):
            raise TypeError(
                f"a callback is a callable (net, logs), or an object with any of begin(run), step(run), "
                f"epoch(run, logs), end(run), got {callback!r}."
            )
        self.name = getattr(callback, "__name__", type(callback).__name__)
        self.check_run, self.begin, self.step, self.epoch, self.end = methods
        if not any(methods[1:]):
            self.epoch = lambda run, logs: callback(run.net, logs)


def _ends(answer: Any) -> bool:
    """Whether a callback's answer is True, NumPy's included."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)


class _Bar:
    """One tqdm bar, drawn at most ten times a second."""

    def __init__(self, steps: int | None, epochs: int) -> None:
        from tqdm.auto import tqdm

        self.epochs = epochs
        self.bar = tqdm(total=steps and steps * epochs, unit="step", mininterval=0.1)
        self.drawn = time.perf_counter()

    def show(self, step: int, epoch: int, logs: dict[str, float]) -> None:
        self.drawn = time.perf_counter()
        numbers = (f"{name}={_middle(value):.4g}" for name, value in logs.items() if name != "seconds")
        self.bar.set_postfix_str(", ".join((f"epoch {epoch}/{self.epochs}", *numbers)), refresh=False)
        self.bar.update(step - self.bar.n)


def _middle(value: Any) -> float:
    """A number, or of one for each copy the median of those that are finite."""
    finite = np.asarray(value)[np.isfinite(value)] if np.ndim(value) else np.asarray([value])
    return float(np.median(finite)) if finite.size else math.nan


class _Snapshot:
    """The parameters, running statistics, optimizer state and random numbers of a moment, to go back to."""

    def __init__(self, net: Any, optim: Any, order: Iterable[np.random.Generator]) -> None:
        self.optim = optim if hasattr(optim, "restore") else None
        live = [net.vector, *(value for leaf in net.leaves() for value in leaf.buffers.values())]
        self.pairs = [(np.empty_like(array), array) for array in live]
        self.rngs = [*order, *(rng for leaf in net.leaves() if leaf.random for rng in leaf.rngs)]
        self.state: Any = None
        self.take()

    def take(self) -> None:
        for kept, live in self.pairs:
            kept[...] = live  # np.copyto takes three times as long on small arrays
        if self.optim is not None:
            self.state = self.optim.snapshot(self.state)
        self.drawn = [rng.bit_generator.state for rng in self.rngs]

    def restore(self) -> None:
        for kept, live in self.pairs:
            np.copyto(live, kept)
        if self.optim is not None:
            self.optim.restore(self.state)
        for rng, drawn in zip(self.rngs, self.drawn, strict=True):
            rng.bit_generator.state = drawn


class _FirstSteps:
    """The first two steps of an optimizer that is a plain callable (net, loss): a warning names the layers whose
    weights it does not change although their gradients are not 0."""

    def __init__(self, run: Run) -> None:
        self.run, self.optim = run, run.optim
        self.steps = 0
        self.unchanged = [leaf for leaf in run.net.leaves() if leaf.trainable]

    def __call__(self, net: Any, loss: Any) -> None:
        before = [[w.copy() for w in leaf.parameters.values()] for leaf in self.unchanged]
        self.optim(net, loss)
        if not self.unchanged or getattr(self.optim, "lr", None) == 0:
            return
        self.steps += 1
        self.unchanged = [
            leaf
            for leaf, weights in zip(self.unchanged, before, strict=True)
            if all(map(np.array_equal, leaf.parameters.values(), weights))
            and any(gradient.any() for gradient in leaf.gradients.values())
        ]
        if self.unchanged and self.steps < 2:
            return
        self.run._apply = self.optim
        if self.unchanged:
            name = getattr(self.optim, "__name__", type(self.optim).__name__)
            labels = ", ".join(leaf.label for leaf in self.unchanged)
            warnings.warn(
                f"{name} has not changed the weights of {labels} in two steps, although their gradients "
                f"are not 0: change them in place, as layer.w -= lr * layer.w_gradient does. "
                f"What is to stay as it is, is frozen: layer.frozen = True.",
                stacklevel=2,
            )
            self.unchanged = []


class Run:
    """One call of `train`, as callbacks see it: net, optim, loss, history, epoch and step (both finished)."""

    _totals = RunningMeans
    pauses = True  # a training that a TimeLimit ends within an epoch goes on from there
    draws_of_ranks: list[Any] | None = None  # where several processes train one net, their generators at a checkpoint

    def __init__(
        self,
        net: Any,
        optim: Any,
        loss: Any,
        chosen: dict[str, Any],
        watchers: list[CallbackAdapter],
        epochs: int,
        history: Any,
    ) -> None:
        self.net = net
        self.optim = optim
        self.loss = loss
        self.history = history
        self.epochs = epochs
        self.epoch = 0
        self.step = 0
        self.epoch_began = 0  # the number of steps then, and the state of the generators of the order
        self.order_began: list[Any] | None = None
        self.resumed: dict[str, Any] | None = None  # the state that it goes on from, and its file
        self.resumed_from: Any = None
        self.epoch_at_first = 0
        self.begun = False  # the callbacks are where they were, too
        self._interrupt: Any = interrupts.Held()  # Ctrl-C, held by `train`
        self.callbacks = [watcher.callback for watcher in watchers]
        self.ended_by: list[str] = []  # the names of the callbacks that ended it
        self._to_save: list[Any] = []
        self._paused: dict[str, Any] | None = None
        self._chosen = chosen
        self.quantities = ["loss", *chosen]  # names of the logs; callbacks of one's own may have added others
        self.more_quantities = False
        self._watchers = watchers
        self._steppers = [watcher for watcher in watchers if watcher.step]
        self._evaluation = getattr(optim, "evaluation_weights", contextlib.nullcontext)
        self._apply = optim

    def check_callbacks(self, rows: Any, unseen: Any) -> None:
        """What callbacks can refuse before the net is built and anything has moved."""
        self.rows = rows
        self.quantities += [f"val_{name}" for name in self.quantities] if unseen is not None else []
        self.quantities.append("seconds")
        for watcher in self._watchers:
            self.more_quantities |= not type(watcher.callback).__module__.startswith("layerwise.")
            if watcher.check_run:
                watcher.check_run(self)

    def check(self, rows: Any, unseen: Any, shuffle: bool) -> None:
        """Where several processes train one net, ValueError unless all were given the same; nothing has moved yet."""

    def over(self, rows: Any, unseen: Any, shuffle: bool, verbose: bool) -> Any:
        self._bar = _Bar(rows.steps, self.epochs) if verbose else None
        # A thread of BLAS that waits for the next product keeps its core busy: a quarter of a convolutional net's time.
        threaded = any(leaf.threaded for leaf in self.net.leaves())
        blas = threads.single_blas() if threaded else contextlib.nullcontext()
        # Overflow is met with an error of ours; entered once, since it costs as much as a layer.
        with self._trusting(), np.errstate(all="ignore"), blas:
            ctrl_c, failed = self._interrupt, None
            try:
                try:
                    ctrl_c.raises = True
                    for watcher in self._watchers:
                        if watcher.begin:
                            watcher.begin(self)
                    if self.resumed is not None:
                        with files.reading(self.resumed_from):
                            _resume.restore_outside(self.resumed, self)
                    self.begun = True
                    self._epochs(rows, unseen, shuffle)
                except BaseException as error:
                    failed = error
                    raise
                finally:  # before `end`, which may put other weights there
                    ctrl_c.raises = False
                    try:
                        if hasattr(self.optim, "finish"):
                            self.optim.finish(self.net)
                    finally:
                        if self.begun:
                            ctrl_c.raises = True
                            self._end(failed)
            finally:
                ctrl_c.raises = False
                if self._bar is not None:
                    logs = {name: values[-1] for name, values in self.history.items()}
                    self._bar.show(self.step, self.epoch, logs)
                    self._bar.bar.close()
            if self._interrupt.asked:  # in what the callbacks did last, too
                self.history.interrupted = True
        return self.history

    def _end(self, failed: BaseException | None) -> None:
        """The end of the training for every callback, however it came. The first error is the one that is raised."""
        ended_by = failed
        for watcher in self._watchers:
            if watcher.end:
                try:
                    watcher.end(self)
                except BaseException as error:  # the others come to their end, too: one may put weights back
                    if ended_by is None:
                        ended_by = error
                    else:
                        ended_by.add_note(f"And {watcher.callback!r}.end(run) raised {error!r}.")
        if ended_by is not failed and ended_by is not None:
            raise ended_by

    @contextlib.contextmanager
    def _trusting(self) -> Iterator[None]:
        """The data was checked: for the length of the training the loss does not check it again, and layers and
        loss write into arrays that are lent."""
        net, loss = self.net, self.loss
        if net.training:
            raise RuntimeError("this net is being trained already: train was called from within train.")
        if getattr(loss, "_trusted", False):  # it serves another training now, in a thread or around this one
            loss = self.loss = copy.copy(loss)
        net.training = True
        ours = self._ours = isinstance(loss, _loss.Loss)
        self._weighted = WeightedLoss(loss)
        if ours:
            loss._trusted, loss.empty = True, net._workspace.empty
        try:
            yield
        finally:
            net.training = False
            net._workspace.clear()
            if ours:
                loss._trusted = False
                del loss.empty

    def _epochs(self, rows: Any, unseen: Any, shuffle: bool) -> None:
        self._rows = rows
        order = self.net._order if shuffle else None
        snapshot = _Snapshot(self.net, self.optim, order if order and rows.draws else ())
        history = self.history
        vector = self.net.vector.reshape(-1)
        totals = self.totals = self._totals(self.loss, self._chosen)
        if not hasattr(self.optim, "update"):  # no Optimizer: those see to it themselves
            self._apply = _FirstSteps(self)
        watched = bool(self._watchers) and rows.draws and order is not None
        skip, stopped, at_first = 0, False, self.step
        if self.resumed is not None:
            skip, stopped = self.resumed["batches"], self.resumed["stopped"]
            stopped = stopped and self._all_reduce(self._stays_ended(self.resumed.get("ended_by")))
            if stopped and not skip:
                return
        for _ in range(self.epoch, self.epochs):
            began = time.perf_counter()
            totals.restart()
            self.epoch_began = self.step - skip
            if watched:
                self.order_began = [rng.bit_generator.state for rng in order or ()]
            if skip and self.resumed is not None:
                totals.restore(self.resumed["totals"])
            try:
                stopped = stopped or self._steps(rows.epoch(order, skip), totals)
                skip = 0
                if self._interrupt.asked:
                    history.interrupted = True
                    return
                if not math.isfinite(vector.dot(vector)) and not self._finite():
                    raise DivergenceError(self._where("a parameter is not finite", self.step))
            except DivergenceError as error:
                snapshot.restore()
                error.history = history
                raise
            except FloatingPointError as error:  # an optimizer refused the gradients
                where = self._where(str(error), self.step + 1)
                snapshot.restore()
                diverged = DivergenceError(where)
                diverged.history = history
                raise diverged from error
            except BaseException:
                if self.step == at_first:  # a metric that raises on the first batch, say: all is as before this call
                    snapshot.restore()
                raise
            logs = totals.means()
            if unseen is not None:
                with self._evaluation(self.net):
                    logs |= {f"val_{k}": v for k, v in self._validate(unseen).items()}
            logs["seconds"] = time.perf_counter() - began
            snapshot.take()
            self.epoch += 1
            for name, value in logs.items():
                history.setdefault(name, []).append(value)
            if self._bar is not None and time.perf_counter() - self._bar.drawn > 0.1:
                self._bar.show(self.step, self.epoch, logs)
            for watcher in self._watchers:
                if watcher.epoch and _ends(watcher.epoch(self, logs)):
                    self.ended_by.append(watcher.name)
                    stopped = True
            stopped = self._agreed_after_epoch(stopped)
            if self._to_save:
                self.epoch_began = self.step
                if watched:
                    self.order_began = [rng.bit_generator.state for rng in order or ()]
                self._save(stopped)
            if stopped:
                return
            if self._interrupt.asked:
                history.interrupted = True
                return

    def _stays_ended(self, by: list[str] | None) -> bool:
        """Whether a training that callbacks had ended is at its end still. It goes on without those, and where they
        don't end it any more; else a warning tells how to go on. A file of before does not name them."""
        told = []
        for watcher in self._watchers:
            why = getattr(watcher.callback, "why_ended", None)
            if (why is not None) if by is None else (watcher.name in by):
                hint = why(self) if why is not None else "leave it out to go on"
                told += [f"{watcher.name} has ended it: {hint}"] if hint else []
        if self.net.stopped is not None and self.net.stopped.all():
            told.append("all its copies have diverged: begin anew")
        if told and self.resumed_from is not None and self.epoch < self.epochs:  # not on the other ranks
            warnings.warn(
                f"the training of {self.resumed_from} does not go on after epoch {self.epoch}. {'; '.join(told)}.",
                stacklevel=2,
            )
        return bool(told)

    def _finite(self) -> bool:
        return bool(np.isfinite(self.net.vector).all())

    def _validate(self, unseen: Any) -> dict[str, Any]:
        """The validation."""
        return self.net._evaluated(unseen, self.loss, self._chosen)

    def _all_reduce(self, ends: bool) -> bool:
        """What the callbacks say; where several processes train one net, what is done in all of them."""
        return ends

    def _agreed_after_epoch(self, ends: bool) -> bool:
        return self._all_reduce(ends)

    def on_any_rank(self, flags: Array) -> Array:
        """Which of these are True, of several processes that train one net in any of them."""
        return flags

    def _steps(self, epoch: Iterator[_data.Batch], totals: RunningMeans) -> bool:
        """The steps of one epoch; True if a callback ends the training."""
        net, loss, optim, workspace, bar = self.net, self.loss, self._apply, self.net._workspace, self._bar
        interrupt, steppers, clock = self._interrupt, self._steppers, time.perf_counter
        for x, y, weight in epoch:
            with workspace.step():
                pred = net.forward(x, True)
                used = loss if weight is None else self._weighted
                value = loss(pred, y) if weight is None else used(pred, y, weight)
            if not math.isfinite(value):
                self._batch = x, y
                raise DivergenceError(self._where(f"the loss is {value}", self.step + 1))
            totals.add(value, pred, y, weight)  # before anything moves: a metric of one's own may raise
            optim(net, used)
            self.step += 1
            if bar is not None and clock() - bar.drawn > 0.1:
                bar.show(self.step, self.epoch + 1, totals.means())
            if steppers and self._after_step(steppers):
                return True
            if interrupt.asked:
                return False
        return False

    def _after_step(self, steppers: list[Any]) -> bool:
        """What the callbacks do after a step; True if one ends the training."""
        ended_by = [watcher for watcher in steppers if _ends(watcher.step(self))]
        self.ended_by += [watcher.name for watcher in ended_by]
        ends = self._all_reduce(bool(ended_by))
        pauses = self.pauses and all(getattr(watcher.callback, "pauses", False) for watcher in ended_by)
        if ended_by and pauses and hasattr(self._rows, "bounds"):
            self._paused = _resume.state_of(self, False)
        if self._to_save:
            self._save(ends)
        return ends

    def save_when_done(self, path: Any, weights_only: bool = False) -> None:
        """Write the net and the state of the training, or the net alone, as soon as all callbacks have done their part
        of this step or epoch: it goes on from there."""
        self._to_save.append((path, weights_only))

    def _save(self, stopped: bool) -> None:
        to_save, self._to_save = self._to_save, []
        training: dict[str, Array] = {}
        packed = {
            "training": serialize.encode_state(self._paused or _resume.state_of(self, stopped), training, "training")
        }
        with self._evaluation(self.net):
            header, arrays = self.net._contents()
            for path, weights_only in to_save:
                files.write(path, *((header, arrays) if weights_only else (header | packed, arrays | training)))

    def _where(self, what: str, step: int) -> str:
        back = "the end of the last good epoch" if self.epoch > self.epoch_at_first else "the start of this call"
        return (
            f"training diverged in epoch {self.epoch + 1}, step {step}: {what.rstrip('.')}; the first value that is "
            f"not finite is in {self._first_bad()}. The net and the optimizer are as at {back}. A lower learning rate, "
            f"gradient clipping or scaled inputs usually help."
        )

    def _first_bad(self) -> str:
        """The first layer whose parameters, output or gradients are not finite."""
        for leaf in self.net.leaves():
            for name, value in leaf.parameters.items():
                if not np.isfinite(value).all():
                    return f"{leaf.label}.{name}"
        batch = self.__dict__.get("_batch")
        if batch is not None:
            with np.errstate(all="ignore"):
                x = batch[0]
                for layer in self.net.layers:
                    x = layer.forward(x, True)
                    if not np.isfinite(x).all():
                        return f"the output of {layer.label}"
        for leaf in reversed(list(self.net.leaves())):
            for name, value in leaf.gradients.items():
                if not (leaf._frozen or np.isfinite(np.square(value)).all()):
                    return f"the gradient of {leaf.label}.{name}"
        return "the loss"


class StackRun(Run):
    """The same of a stack of copies: a copy whose loss or gradient is not finite stops there, and the others go on.

    `history.diverged` marks those that stopped, (S,).
    """

    _totals = StackRunningMeans

    def _steps(self, epoch: Iterator[_data.Batch], totals: RunningMeans) -> bool:
        net, loss, optim, workspace, bar = self.net, self.loss, self.optim, self.net._workspace, self._bar
        weights, gradient = net.vector, net.gradient
        if net.stopped is None:
            net.stopped = np.zeros(len(weights), bool)
        stopped = self.history.diverged = net.stopped
        for batch in epoch:
            x, y, weight = broadcast_to_copies((net.copies,), self._rows, *batch)
            with workspace.step():
                pred = net.forward(x, True)
                used = loss if weight is None else self._weighted
                value = used(pred, y, weight, copies=net.copies)
            totals.add(value, pred, y, weight)
            optim.backward(net, used)
            squares = np.einsum("sp,sp->s", gradient, gradient)
            if not (np.isfinite(value).all() and np.isfinite(squares).all()):
                stopped |= ~(np.isfinite(value) & np.isfinite(np.square(gradient)).all(1))
            if stopped.any():
                gradient[stopped] = 0
                kept = weights[stopped]
                optim.update(net)
                weights[stopped] = kept
            else:
                optim.update(net)
            self.step += 1
            if bar is not None and time.perf_counter() - bar.drawn > 0.1:
                bar.show(self.step, self.epoch + 1, totals.means())
            if self._after_step(self._steppers) or stopped.all():
                return True
            if self._interrupt.asked:
                return False
        return False

    def _finite(self) -> bool:
        self.net.stopped |= ~np.isfinite(self.net.vector).all(1)
        return True


__all__ = [
    "CallbackAdapter",
    "DivergenceError",
    "Run",
    "RunningMeans",
    "StackRun",
    "StackRunningMeans",
    "WeightedLoss",
    "broadcast_to_copies",
    "is_summed",
    "shares",
    "value_of",
]  # fmt: skip
