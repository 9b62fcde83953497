"""The loop of a training: epochs, the batches of an epoch, and what happens between them. `Model.train` starts it.

Run.train       from a checkpoint or from the start, Ctrl-C held, to the History
Run.fit         the epochs, between the callbacks' `begin` and their `end`
Run.fit_epoch   the batches of one epoch
Run.run_batch   one step: forward, loss, backward, update; StackRun and DistributedRun have their own
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
from layerwise.training import data, netfile, resume, serialize
from layerwise.training.callables import CallbackAdapter, Callbacks, FirstSteps, may_reevaluate
from layerwise.training.evaluation import broadcast_to_copies, evaluated
from layerwise.training.means import RunningMeans, StackRunningMeans, WeightedLoss
from layerwise.training.progress import ProgressBar
from layerwise.training.rollback import DivergenceError, Rollback, Snapshot, first_not_finite

Array = np.ndarray


class Run:
    """One call of `train`, as callbacks see it: net, optim, loss, history, epochs; epoch and step, those finished."""

    means_type = RunningMeans
    pauses = True  # a training that a TimeLimit ends within an epoch goes on from there
    rng_states_of_ranks: list[Any] | None = None  # at a checkpoint of several processes

    def __init__(
        self,
        net: Any,
        optim: Any,
        loss: Any,
        metrics: dict[str, Any],
        adapters: list[CallbackAdapter],
        epochs: int,
        history: Any,
    ) -> None:
        self.net = net
        # `run_batch` calls `apply` for backward and update. It is the optimizer itself. For a plain callable,
        # `_fit_epochs` sets FirstSteps in its place: it warns of weights that never change, and sets the callable back.
        self.given = self.optim = self.apply = optim
        self.loss = loss
        self.metrics = metrics
        self.history = history
        self.epochs = epochs
        self.epoch = 0
        self.step = 0
        self.epoch_began = 0  # the number of steps then, and the state of the generators of the order
        self.order_began: list[Any] | None = None
        self.resumed: dict[str, Any] | None = None  # the state that it goes on from, and its file
        self.resumed_from: Any = None
        self.epoch_at_first = self.step_at_first = 0
        self.begun = False  # the callbacks have begun, and have their states of the file
        self.ctrl_c: Any = interrupts.Held()
        self.callbacks = [adapter.callback for adapter in adapters]
        self.ended_by: list[str] = []  # the names of the callbacks that ended it
        self.quantities = ["loss", *metrics]  # names of the logs; callbacks of the user's own may have added others
        self.more_quantities = False
        self._callbacks = Callbacks(adapters)
        self._asks_each_step = bool(self._callbacks.steppers)
        self._evaluation_weights = getattr(optim, "evaluation_weights", contextlib.nullcontext)
        self._to_save: list[Any] = []
        self._paused: dict[str, Any] | None = None

    # Checks, before anything has moved.

    def check_callbacks(self, rows: Any, validation: Any) -> None:
        """What callbacks can refuse before the net is built."""
        self.rows = rows
        self.quantities += [f"val_{name}" for name in self.quantities] if validation is not None else []
        self.quantities.append("seconds")
        self._callbacks.check_run(self)

    def check(self, rows: Any, validation: Any, shuffle: bool) -> None:
        """ValueError if several processes train one net and were not all given the same."""

    # From the first step to the last.

    def train(
        self, validation: Any, shuffle: bool, verbose: bool, saved: Any, path: Any, before: Rollback | None
    ) -> Any:
        """The History of the whole training. `saved` is the state in the file `path`: the training goes on from there.
        If the state turns out not to fit, all goes back to what it was `before`."""
        with interrupts.Held() as ctrl_c:
            self.ctrl_c = ctrl_c
            try:
                with files.reading(path) if saved is not None else contextlib.nullcontext():
                    if saved is not None:
                        resume.restore(saved, self)
                    if hasattr(self.given, "prepare"):
                        self.given.prepare(self.net)
                if saved is not None:
                    self.resumed, self.resumed_from, self.epoch_at_first = saved, path, self.epoch
                self.net.optim, self.net.loss = self.given, self.loss
                history = self.fit(self.rows, validation, shuffle, verbose)
            except BaseException:
                if before is not None and not self.begun:  # what the file holds has turned out not to fit
                    before.restore()
                raise
        # Asked here, when the handler is put back: until then a Ctrl-C is only noted, and a later one raises.
        history.interrupted = history.interrupted or ctrl_c.asked
        return history

    def fit(self, rows: Any, validation: Any, shuffle: bool, verbose: bool) -> Any:
        self._bar = ProgressBar(rows.steps, self.epochs) if verbose else None
        # A thread of BLAS that waits for the next product keeps its core busy: a quarter of a convolutional net's time.
        threaded = any(leaf.threaded for leaf in self.net.leaf_layers())
        blas = threads.single_blas() if threaded else contextlib.nullcontext()
        # Overflow becomes an error of ours. The context is entered once, since that costs as much as a layer.
        with self._trusting(), np.errstate(all="ignore"), blas:
            ctrl_c = self.ctrl_c
            try:
                self._between_begin_and_end(rows, validation, shuffle)
            finally:
                ctrl_c.raises = False
                if self._bar is not None:
                    self._bar.close(self.step, self.epoch, {name: each[-1] for name, each in self.history.items()})
            if self.ctrl_c.asked:  # in what the callbacks did last, too
                self.history.interrupted = True
        return self.history

    @contextlib.contextmanager
    def _trusting(self) -> Iterator[None]:
        """The data was checked: during the training the loss does not check it again, and layers and loss write into
        arrays that the steps reuse."""
        net, loss = self.net, self.loss
        if net.training:
            raise RuntimeError("this net is being trained already: train was called from within train.")
        if getattr(loss, "_trusted", False):  # another training uses it now, in a thread or around this one
            loss = self.loss = copy.copy(loss)
        net.training = True
        net._workspace.repeatable = may_reevaluate(self.given)
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

    def _between_begin_and_end(self, rows: Any, validation: Any, shuffle: bool) -> None:
        ctrl_c, failed = self.ctrl_c, None
        try:
            ctrl_c.raises = True
            self._callbacks.begin(self)
            if self.resumed is not None:
                with files.reading(self.resumed_from):
                    resume.restore_outside(self.resumed, self)
            self.begun = True
            self._fit_epochs(rows, validation, shuffle)
            if isinstance(self.apply, FirstSteps):
                self.apply.end()
        except BaseException as error:
            failed = error
            raise
        finally:  # before the callbacks' `end`: it may put other weights into the net
            ctrl_c.raises = False
            try:
                if hasattr(self.optim, "finish"):
                    self.optim.finish(self.net)
            finally:
                if self.begun:
                    ctrl_c.raises = True
                    self._callbacks.end(self, failed)

    # The epochs.

    def _fit_epochs(self, rows: Any, validation: Any, shuffle: bool) -> None:
        self._rows = rows
        order = self.net._order if shuffle else None
        self._order = order if order and self.callbacks and rows.draws else None  # what a checkpoint keeps of it
        snapshot = Snapshot(self.net, self.optim, order if order and rows.draws else ())
        means = self.means = self.means_type(self.loss, self.metrics)
        if not hasattr(self.optim, "update"):  # a plain callable: an Optimizer watches its own rule, `blocks.watch`
            self.apply = FirstSteps(self)
        vector, interrupt, clock = self.net.vector.reshape(-1), self.ctrl_c, time.perf_counter
        self.step_at_first = self.step
        skip, ended = self._place()
        if ended and not skip:
            return
        for _ in range(self.epoch, self.epochs):
            began = clock()
            self._begin_epoch(skip)
            try:
                ended = ended or self.fit_epoch(rows.epoch(order, skip), means)
                skip = 0
                if interrupt.asked:
                    self.history.interrupted = True
                    return
                if not math.isfinite(vector.dot(vector)) and not self._is_finite():
                    raise self.divergence("a parameter is not finite", self.step)
            except BaseException as error:
                failed = self._failed(error, snapshot)
                if failed is error:
                    raise
                raise failed from error
            logs = means.means()
            if validation is not None:
                with self._evaluation_weights(self.net):
                    logs |= {f"val_{name}": value for name, value in self._validate(validation).items()}
            logs["seconds"] = clock() - began
            snapshot.take()
            ended = self._end_epoch(logs, ended)
            if ended:
                return
            if interrupt.asked:
                self.history.interrupted = True
                return

    def _place(self) -> tuple[int, bool]:
        """Of a training that goes on: how many batches of its first epoch are done, and whether it stays ended."""
        if self.resumed is None:
            return 0, False
        ended = self.resumed["stopped"]
        return self.resumed["batches"], ended and self._all_reduce(self._stays_ended(self.resumed.get("ended_by")))

    def _stays_ended(self, by: list[str] | None) -> bool:
        """Whether a training that callbacks ended stays ended. A warning says why, and how to go on."""
        reasons = self._callbacks.reasons_to_stay_ended(self, by)
        if self.net.stopped is not None and self.net.stopped.all():
            reasons.append("all its copies have diverged: begin anew")
        if reasons and self.resumed_from is not None and self.epoch < self.epochs:  # not on the other ranks
            warnings.warn(
                f"the training of {self.resumed_from} does not go on after epoch {self.epoch}. {'; '.join(reasons)}.",
                stacklevel=2,
            )
        return bool(reasons)

    def _begin_epoch(self, skip: int) -> None:
        self.means.restart()
        self._note_place(self.step - skip)
        if skip and self.resumed is not None:
            self.means.restore(self.resumed["totals"])

    def _note_place(self, step: int) -> None:
        """Note that the epoch began with this step. The generators of the order find its batches again."""
        self.epoch_began = step
        if self._order is not None:
            self.order_began = [rng.bit_generator.state for rng in self._order]

    def _end_epoch(self, logs: dict[str, Any], ended: bool) -> bool:
        """Do what there is to do with the numbers of an epoch. True if the training ends here."""
        self.epoch += 1
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
        if self._bar is not None and self._bar.is_due():
            self._bar.show(self.step, self.epoch, logs)
        if self.callbacks:
            ended_by = self._callbacks.epoch(self, logs)
            self.ended_by += [adapter.name for adapter in ended_by]
            ended = ended or bool(ended_by)
        ended = self._agreed_after_epoch(ended)
        if self._to_save:
            self._note_place(self.step)
            self._save(ended)
        return ended

    def _validate(self, rows: Any) -> dict[str, Any]:
        return evaluated(self.net, rows, self.loss, self.metrics)

    # The batches of an epoch.

    def fit_epoch(self, batches: Iterable[data.Batch], means: RunningMeans) -> bool:
        """The steps of one epoch; True if a callback ends the training."""
        run_batch, interrupt, bar = self.run_batch, self.ctrl_c, self._bar
        for batch in batches:
            if not run_batch(batch, means):
                return False
            self.step += 1
            if bar is not None and bar.is_due():
                bar.show(self.step, self.epoch + 1, means.means())
            if self._asks_each_step and self._after_step():
                return True
            if interrupt.asked:
                return False
        return False

    def run_batch(self, batch: data.Batch, means: RunningMeans) -> bool:
        """One step: forward, loss, backward, update. True; but False at the end of an epoch that several processes
        train together, where they all come to their end."""
        x, y, weight = batch
        net = self.net
        with net._workspace.step():
            pred = net.forward(x, True)
            if weight is None:
                loss = self.loss
                value = loss(pred, y)
            else:
                loss = self._weighted
                value = loss(pred, y, weight)
        if not math.isfinite(value):
            raise self.divergence(f"the loss is {value}", self.step + 1, x)
        means.add(value, pred, y, weight)  # before anything moves: a metric of the user's own may raise
        self.apply(net, loss)
        return True

    def _after_step(self) -> bool:
        """What the callbacks do after a step; True if one ends the training."""
        ended_by = self._callbacks.step(self)
        self.ended_by += [adapter.name for adapter in ended_by]
        ends = self._all_reduce(bool(ended_by))
        pauses = self.pauses and all(getattr(adapter.callback, "pauses", False) for adapter in ended_by)
        if ended_by and pauses and hasattr(self._rows, "bounds"):
            self._paused = resume.state_of(self, False)
        if self._to_save:
            self._save(ends)
        return ends

    # Where several processes train one net, they agree.

    def _all_reduce(self, ends: bool) -> bool:
        """Whether the training ends: what the callbacks of this process say."""
        return ends

    def _agreed_after_epoch(self, ends: bool) -> bool:
        return ends

    def on_any_rank(self, flags: Array) -> Array:
        """Which of these are True on any of the ranks."""
        return flags

    # Files.

    def save_when_done(self, path: Any, weights_only: bool = False) -> None:
        """Write the net and the state of the training, or the net alone, as soon as all callbacks have done their part
        of this step or epoch. A training that is resumed goes on from there."""
        self._to_save.append((path, weights_only))

    def _save(self, ended: bool) -> None:
        to_save, self._to_save = self._to_save, []
        state: dict[str, Array] = {}
        encoded = serialize.encode_state(self._paused or resume.state_of(self, ended), state, "training")
        with self._evaluation_weights(self.net):
            header, arrays = netfile.contents(self.net)
            for path, weights_only in to_save:
                if weights_only:
                    files.write(path, header, arrays)
                else:
                    files.write(path, header | {"training": encoded}, arrays | state)

    # Divergence.

    def divergence(self, what: str, step: int, x: Array | None = None) -> DivergenceError:
        """The error of a step whose loss, gradients or parameters are not finite; x is its batch."""
        back = "the end of the last good epoch" if self.epoch > self.epoch_at_first else "the start of this call"
        return DivergenceError(
            f"training diverged in epoch {self.epoch + 1}, step {step}: {what.rstrip('.')}; the first value that is "
            f"not finite is in {first_not_finite(self.net, x)}. The net and the optimizer are as at {back}. A lower "
            f"learning rate, gradient clipping or scaled inputs usually help."
        )

    def _failed(self, error: BaseException, snapshot: Snapshot) -> BaseException:
        """The error to raise. If the training diverged, or had not made a step yet, all goes back first."""
        if isinstance(error, FloatingPointError):  # an optimizer refused the gradients
            error = self.divergence(str(error), self.step + 1)
        if isinstance(error, DivergenceError):
            snapshot.restore()
            error.history = self.history
        elif self.step == self.step_at_first:  # a metric that raises on the first batch, say
            snapshot.restore()
        return error

    def _is_finite(self) -> bool:
        return bool(np.isfinite(self.net.vector).all())


class StackRun(Run):
    """The training of a stack of copies. A copy whose loss or gradient is not finite stops there; the others go on.

    `history.diverged` marks those that stopped, (S,).
    """

    means_type = StackRunningMeans

    def fit_epoch(self, batches: Iterable[data.Batch], means: RunningMeans) -> bool:
        if self.net.stopped is None:
            self.net.stopped = np.zeros(len(self.net.vector), bool)
        self.history.diverged = self.net.stopped
        self._asks_each_step = True
        return super().fit_epoch(batches, means)

    def run_batch(self, batch: data.Batch, means: RunningMeans) -> bool:
        net, optim, stopped = self.net, self.optim, self.history.diverged
        weights, gradient = net.vector, net.gradient
        x, y, weight = broadcast_to_copies(net._flat.lead, self._rows, *batch)
        with net._workspace.step():
            pred = net.forward(x, True)
            loss = self.loss if weight is None else self._weighted
            value = loss(pred, y, weight, copies=net.copies)
        means.add(value, pred, y, weight)
        optim.backward(net, loss)
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
        return True

    def _after_step(self) -> bool:
        return super()._after_step() or bool(self.history.diverged.all())

    def _is_finite(self) -> bool:
        self.net.stopped |= ~np.isfinite(self.net.vector).all(1)
        return True


__all__ = ["Run", "StackRun"]
