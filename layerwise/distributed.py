"""One net trained by several processes, on one machine or many: `net.train(x, y, optim=Distributed(Adam()))`.

    mpiexec -n 4 python -m mpi4py script.py

Every process, a rank, runs the whole script, has a copy of the net and is given all of the data. Of each batch it
takes every size-th row from its own number on; the gradients of all ranks are summed before the update, so that each
makes the step that one process would have made with the whole batch (synchronous data-parallel training), but for
rounding; the same bits again come from the same machines, packages, number of ranks and of BLAS threads. `-m mpi4py`
sees to it that a rank that fails ends the others; without it, they wait for ever.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from layerwise import loss as losses, optim
from layerwise.core import threads
from layerwise.core.fingerprint import Fingerprint, digest, fingerprint
from layerwise.training import serialize
from layerwise.training.evaluation import evaluated
from layerwise.training.loop import Run
from layerwise.training.means import RunningMeans, shares, value_of

Array = np.ndarray

COMPARED_EVERY = 100  # steps, and after each epoch
PATIENCE = 5.0  # seconds
SAMPLED = (*range(100), *range(100, 100_000, 97))  # steps at which schedules are compared


class DistributedRun(Run):
    """A training by all ranks. Each sees its rows of a batch; two sums over the ranks a step make the whole of them: a
    few numbers before backpropagation, and the gradient after it.

    `optim` is the optimizer within: the file of a Checkpoint does not depend on the number of processes.
    """

    pauses = False  # the generators of the others are not at hand there

    def __init__(
        self,
        net: Any,
        optim: Distributed,
        loss: Any,
        metrics: dict[str, Any],
        adapters: list[Any],
        epochs: int,
        history: Any,
    ) -> None:
        self.group = optim
        first = optim.rank == 0
        here = [each for each in adapters if first or not getattr(each.callback, "writes", False)]
        super().__init__(net, optim.optimizer, loss, metrics, here, epochs, history)
        self.given = optim
        self.callbacks = [each.callback for each in adapters]
        self._asks_each_step = any(each.step for each in adapters)

    def check_callbacks(self, rows: Any, validation: Any) -> None:
        """Refused on all ranks alike, also what one that writes files refuses on the first."""
        refused = None
        try:
            super().check_callbacks(rows, validation)
        except Exception as error:
            refused = error
        with _saying_that_it_waits(self.group):
            texts = self.group.comm.allgather(None if refused is None else f"{type(refused).__name__}: {refused}")
        if refused is not None:
            raise refused
        for rank, text in enumerate(texts):
            if text is not None:
                raise ValueError(f"rank {rank} refuses its callbacks: {text}")

    def check(self, rows: Any, validation: Any, shuffle: bool) -> None:
        group = self.group
        group.compare(self.net)
        group.refuse_others(
            "call train with the same on each; every rank is given all rows, and takes its part of each batch",
            rows=getattr(rows, "n", None),
            batches=rows.steps,
            batch_size=rows.bounds[0][1] if hasattr(rows, "bounds") else None,
            epochs=self.epochs,
            shuffle=shuffle,
            loss=fingerprint(self.loss, "loss", state=False),
            metrics=fingerprint({name: each.function for name, each in self.metrics.items()}, "metrics", values=False),
            callbacks=_code_of_callbacks(self.callbacks),
            data=_checksum(rows),
            validation=None if validation is None else (validation.n, _checksum(validation)),
        )
        group.compared = True

    def fit(self, rows: Any, validation: Any, shuffle: bool, verbose: bool) -> Any:
        group = self.group
        self._follow(shuffle)
        rows.part = functools.partial(_part, group, self.net.min_batch)
        if validation is not None:
            validation.part = functools.partial(_part, group, 1)
        with threads.alone():
            history = super().fit(rows, validation, shuffle, verbose and group.rank == 0)
        # What the callbacks did at the very end, and a Ctrl-C while they did it.
        group.refuse_parted(self.net, self.step)
        history.interrupted |= any(group.comm.allgather(self._asked.asked))
        return history

    def _follow(self, shuffle: bool) -> None:
        """The place in the training, and in the random numbers of the order, are those of rank 0: the others may have
        another seed, and no file to go on from. Its callbacks are those that may end the training."""
        needed = ("batches", "stopped", "ended_by", "totals", "callbacks", "data", "draws_of_ranks")
        resumed = self.resumed and {name: self.resumed.get(name) for name in needed}
        order = [rng.bit_generator.state for rng in self.net._order] if shuffle else []
        of_first = self.group.comm.bcast(
            (self.epoch, self.step, dict(self.history), resumed, order, self._asks_each_step)
        )
        if self.group.rank:
            self.epoch, self.step, history, self.resumed, order, self._asks_each_step = of_first
            self.history.clear()
            self.history.update(history)
            for rng, state in zip(self.net._order, order, strict=False):
                rng.bit_generator.state = state
        of_ranks = (self.resumed or {}).get("draws_of_ranks") or []
        if len(of_ranks) == self.group.size:  # else they are parts of those of rank 0, as at a beginning
            for leaf in self.net.leaf_layers():
                for rng, state in (
                    zip(leaf.rngs, of_ranks[self.group.rank][leaf.path], strict=True) if leaf.random else ()
                ):
                    rng.bit_generator.state = state

    def _fit_epochs(self, rows: Any, validation: Any, shuffle: bool) -> None:
        # Ctrl-C reaches the ranks at different moments: the training ends when they have all heard of it.
        self._asked, self.ctrl_c = self.ctrl_c, _Agreed()
        super()._fit_epochs(rows, validation, shuffle)

    def fit_epoch(self, batches: Iterable[Any], means: RunningMeans) -> bool:
        self._sums = _Sums(self.group, self.net, self.metrics)
        ends: list[Any] = [None]  # the ranks come to the end of the epoch together
        return super().fit_epoch(itertools.chain(batches, ends), means)

    def run_batch(self, batch: Any, means: RunningMeans) -> bool:
        net, group, sums = self.net, self.group, self._sums
        n, own_count, loss = self._see(batch, means.summed)
        group.add_up(sums.numbers)
        ended, asked, rows, count, whole, total = sums.numbers[:6].tolist()
        if ended == group.size:
            return False
        if ended:
            raise ValueError(
                f"the batches of {ended:.0f} of the {group.size} ranks came to an end before those of the others: "
                f"give every rank the same iterable."
            )
        self.ctrl_c.asked = self.ctrl_c.asked or asked > 0
        value = total if means.summed else total / (count or 1.0)
        if not math.isfinite(value):
            raise self.divergence(f"the loss is {value}", self.step + 1, batch[0] if n else None)
        sums.share_statistics(rows)
        if self._ours:
            self.loss.value = value
        if n:
            self.optim.backward(net, loss)
        group.add_gradients(net, 1.0 if means.summed else own_count / (count or 1.0), n > 0)
        self.optim.update(net)
        if (self.step + 1) % COMPARED_EVERY == 0:
            group.refuse_parted(net, self.step + 1)
        means.rows += int(rows)
        means.weight += whole
        means.loss += total
        for name, (metric, share) in zip(self.metrics, sums.metrics.tolist(), strict=True):
            means.metrics[name] += metric
            means.shares[name] += share
        return True

    def _see(self, batch: Any, summed: bool) -> tuple[int, float, Any]:
        """Forward and loss of this rank's rows, of which there may be none: (how many they are, what they count in the
        mean, the loss to go back from). `batch` is None at the end of the epoch."""
        loss, sums = self.loss, self._sums
        sums.numbers.fill(0)
        sums.numbers[:2] = batch is None, self._asked.asked
        if batch is None or not len(batch[0]):
            return 0, 0.0, loss
        x, y, weight = batch
        with self.net._workspace.step():
            pred = self.net.forward(x, True)
            used = loss if weight is None else self._weighted
            value = value_of(used, pred, y, weight, None)
        n = len(x)
        count, share = shares(loss, n, weight)
        sums.numbers[2:6] = n, count, share, value if summed else value * count
        metered = RunningMeans(loss, self.metrics)
        metered.add(value, pred, y, weight)
        for place, name in enumerate(self.metrics):
            sums.metrics[place] = metered.metrics[name], metered.shares[name]
        for part, array in sums.statistics:
            np.multiply(array.reshape(-1), n, part)
        return n, count, used

    def _validate(self, rows: Any) -> dict[str, Any]:
        return evaluated(self.net, rows, self.loss, self.metrics, self.group.add_up)

    def _all_reduce(self, ends: bool) -> bool:
        group = self.group
        ends, saves = group.comm.bcast((bool(ends), bool(self._to_save)))
        if saves and group.size > 1:  # ranks with more rows have drawn more numbers
            leaf_layers = [leaf for leaf in self.net.leaf_layers() if leaf.random]
            draws = {leaf.path: [rng.bit_generator.state for rng in leaf.rngs] for leaf in leaf_layers}
            self.rng_states_of_ranks = group.comm.gather(draws)
            for callback in self.callbacks:
                if hasattr(callback, "join_ranks"):
                    callback.join_ranks(self)
        return ends

    def _agreed_after_epoch(self, ends: bool) -> bool:
        self.group.refuse_parted(self.net, self.step)
        return self._all_reduce(ends)

    def on_any_rank(self, flags: Array) -> Array:
        counts = flags.astype(np.float64)
        self.group.add_up(counts)
        return counts > 0

    def _save(self, stopped: bool) -> None:
        if self.group.rank == 0:
            super()._save(stopped)
        self._to_save = []


class Distributed(optim.Wrapper):
    """An optimizer, around all others, that trains one net in all processes of an MPI communicator.

        g <- sum over the ranks of g (rows of the rank) / (rows of all)      weighted, by hand: the sums of the weights

    With CrossEntropy(weight=, ignore_index=) rows count what they count in its mean.

    Its step is that of the optimizer within on the batch of all ranks together. `prepare` makes the copies equal:
    weights, running statistics, optimizer state and seed are those of rank 0. comm is an mpi4py communicator; None:
    COMM_WORLD. `rank` is the number of this process, `size` how many there are.

    In `train`, batch_size counts the rows of all ranks, the History is that of the whole batch on each, and rank 0
    alone draws the bar and writes files. In a loop of one's own every rank gives rows of its own, more or fewer, and
    calls `prepare(net)` first. ImportError without mpi4py and an MPI; ValueError for a rule that evaluates again.
    """

    outermost = True
    run_type = DistributedRun
    compared = False  # `train` has seen that the ranks have the same

    def __init__(self, optimizer: optim.Optimizer, comm: Any = None) -> None:
        if isinstance(optimizer, optim.Optimizer) and optimizer._needs_value():
            raise ValueError(
                f"{type(optimizer).__name__} asks for the loss itself, or evaluates a batch again, and no rank has the "
                f"whole batch: take a rule that needs the gradient alone, Distributed(Accumulate(Clip(rule)))."
            )
        super().__init__(optimizer)
        self.comm = _world() if comm is None else comm

    @property
    def rank(self) -> int:
        return self.comm.Get_rank()

    @property
    def size(self) -> int:
        return self.comm.Get_size()

    @property
    def follows(self) -> bool:
        """Whether another rank's files count."""
        return self.rank > 0

    @property
    def t(self) -> int:
        return self.optimizer.t

    @t.setter
    def t(self, steps: int) -> None:
        """It counts no steps of its own."""

    def _update(self, net: Any) -> None:
        if net.layout is not self._layout or net is not self._model:
            self._build(net)
        self.optimizer._update(net)

    def backward(self, net: Any, loss: Any) -> None:
        """The gradient over the rows of all ranks; each has called the net and the loss with its own."""
        if not isinstance(loss, losses.Loss) or loss.pred is None:
            raise TypeError(
                "outside train, Distributed needs a loss of ours, or a subclass of Loss, after loss(pred, real): it "
                "tells how many rows this rank has."
            )
        self.optimizer.backward(net, loss)
        scale = 1.0
        if loss.reduction == "mean":
            _, share = shares(loss, len(loss.pred), loss.sample_weight)
            scale = share / (self.comm.allreduce(share) or 1.0)
        self.add_gradients(net, scale)

    def add_gradients(self, net: Any, scale: float, some: bool = True) -> None:
        """The gradients of all ranks, summed in place, this rank's times `scale`; without `some`, it has none."""
        if self.size == 1:
            return
        with np.errstate(all="ignore"):  # a number that is too large is met by the optimizer, on every rank
            for g in net.layout.gradients:
                if some:
                    g *= scale
                else:
                    g.fill(0)
                self.add_up(g)

    def add_up(self, numbers: Array) -> None:
        """The sum over all ranks, in place; every rank gets the same bits."""
        if self.size > 1:
            self.comm.Allreduce(_mpi().IN_PLACE, numbers)

    def refuse_others(self, hint: str, **facts: Any) -> None:
        """ValueError, on every rank, where something is not the same on all of them. A fact is a fingerprint, or a
        plain value."""
        prints = {name: fact if isinstance(fact, Fingerprint) else {name: repr(fact)} for name, fact in facts.items()}
        with _saying_that_it_waits(self):
            of_all = self.comm.allgather({name: digest(repr(fact)) for name, fact in prints.items()})
        for name, fact in prints.items():
            if any(each[name] != of_all[0][name] for each in of_all):
                raise ValueError(f"the ranks were given different {name}: {self._first_difference(fact)}: {hint}.")

    def _first_difference(self, fact: dict[str, str]) -> str:
        """Where what the ranks have is not the same, and what it is on two of them."""
        first, *others = self.comm.allgather(fact)
        rank, other = next((rank, other) for rank, other in enumerate(others, 1) if other != first)
        place = next((each for each in first | other if first.get(each) != other.get(each)), "their order")
        return (
            f"{place} is {first.get(place, 'nothing'):.80} on rank 0, {other.get(place, 'nothing'):.80} on rank {rank}"
        )

    def compare(self, net: Any) -> None:
        """ValueError, on every rank, unless each has the same net and the same rules; numbers may differ."""
        if self.size == 1:
            return
        found = fingerprint(net, "net", state=False)
        for each in net.layout.parameters:
            found[f"shape of {each.names[0]}"] = f"{each.shape}{'' if each.trainable else ', frozen'}"
        self.refuse_others(
            "make the same net and the same optimizer on each",
            nets=found,
            optimizers=fingerprint(self.optimizer, "optimizer", SAMPLED, state=False),
        )

    def refuse_parted(self, net: Any, step: int) -> None:
        """RuntimeError, on every rank, where the weights of one are not those of rank 0."""
        if self.size == 1:
            return
        checks = self.comm.allgather(zlib.crc32(net.vector))
        if len(set(checks)) == 1:
            return
        facts = {"hyper-parameters": fingerprint(serialize.encode_settings(self.optimizer), "optimizer")}
        facts["weights"] = Fingerprint({each.names[0]: digest(net.vector[each.span]) for each in net.layout.parameters})
        differences = [
            self._first_difference(fact) for fact in facts.values() if len(set(self.comm.allgather(fact.digest()))) > 1
        ]
        raise RuntimeError(
            f"the ranks have parted: at step {step} {' and '.join(differences)}. All make the same steps, so "
            f"that something on one rank alone has set weights or a rate: a callback of one's own, say, does the same "
            f"on each."
        )

    def prepare(self, net: Any) -> None:
        if not self.compared:
            self.compare(net)
        self.compared = False
        leaf_layers = list(net.leaf_layers())
        for leaf, frozen in zip(leaf_layers, self.comm.bcast([leaf._frozen for leaf in leaf_layers]), strict=True):
            if leaf._frozen != frozen:  # by the file that rank 0 goes on from
                leaf.frozen = frozen
        self._build(net)
        self.optimizer.prepare(net)
        if self.size == 1:
            return
        comm, rank = self.comm, self.rank
        comm.Bcast(net.vector)
        random: list[np.random.Generator] = []
        for leaf in net.leaf_layers():
            for array in leaf.buffers.values():
                comm.Bcast(array)
            random += leaf.rngs if leaf.random else []
        state = self.optimizer.state_dict() if rank == 0 else None
        drawn = [rng.bit_generator.state for rng in random]
        net.seeds, state, drawn = comm.bcast((net.seeds, state, drawn))
        if rank:
            self.optimizer.load_state_dict(state)
            # Other rows get other masks: a part of rank 0's random numbers that it never comes to.
            for rng, of_first in zip(random, drawn, strict=True):
                bits: Any = rng.bit_generator
                bits.state = of_first
                bits.state = bits.jumped(rank).state

    def finish(self, net: Any) -> None:
        self.optimizer.finish(net)

    def evaluation_weights(self, net: Any) -> Any:
        return self.optimizer.evaluation_weights(net)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self.comm)] = self.comm  # of the copy too: it is not a thing that can be doubled by itself
        return super().__deepcopy__(memo)


class _Sums:
    """What the ranks add up before the backward pass of a step, as one array.

    ended, asked        whether a rank has no more batches; whether it got a Ctrl-C
    rows                how many
    count, share, loss  what they count in the loss's mean, what they weigh there, their loss times their count
    metrics             of each, (metrics, 2): the value times what the rows weigh for it, and what they weigh
    statistics          the running ones times the rows, so that what comes back are means
    """

    def __init__(self, group: Distributed, net: Any, metrics: dict[str, Any]) -> None:
        moving = (leaf for leaf in net.leaf_layers() if group.size > 1 and not leaf._frozen)
        arrays = [array for leaf in moving for array in leaf.buffers.values()]
        stops = list(itertools.accumulate([6 + 2 * len(metrics), *(array.size for array in arrays)]))
        self.numbers = np.zeros(stops[-1])
        self.metrics = self.numbers[6 : stops[0]].reshape(-1, 2)
        members = (self.numbers[start:stop] for start, stop in itertools.pairwise(stops))
        self.statistics = list(zip(members, arrays, strict=True))

    def share_statistics(self, rows: float) -> None:
        for part, array in self.statistics:
            array[...] = (part / rows).reshape(array.shape)


class _Agreed:
    """Whether any rank was asked to end by Ctrl-C, as all know at the same step."""

    asked = False


def _part(group: Distributed, smallest: int, n: int) -> slice:
    """Which of n rows are this rank's: so many ranks take part that each has at least `smallest`."""
    members = min(group.size, max(1, n // smallest))
    return slice(group.rank, None, members) if group.rank < members else slice(0, 0)


def _checksum(rows: Any) -> int:
    """Of the first and the last rows that there are."""
    arrays = getattr(rows, "arrays", None) or rows.first
    ends = [np.ascontiguousarray(part) for each in arrays if each is not None for part in (each[:50], each[-50:])]
    return zlib.crc32(b"".join(part.tobytes() for part in ends))


def _code_of_callbacks(callbacks: list[Any]) -> Fingerprint:
    """Those of the library with their settings. Of one's own the code: what they hold may differ, their rank or a
    file; where they change the training by it, the weights tell."""
    found = Fingerprint()
    both = [each for each in callbacks if not getattr(each, "writes", False)]
    for number, each in enumerate(both):
        place = f"callbacks[{number}]"
        code = fingerprint(each, place, values=False)
        found |= code if code.own else fingerprint(each, place, state=False)
    return found


@contextlib.contextmanager
def _saying_that_it_waits(group: Distributed) -> Iterator[None]:
    """A line where the other ranks do not come within some seconds."""

    def say() -> None:
        print(
            f"rank {group.rank} of {group.size} has waited {PATIENCE:g} seconds for the others to call train, or "
            f"prepare, too: every rank has to, with the same arguments.",
            file=sys.stderr,
            flush=True,
        )

    timer = threading.Timer(PATIENCE, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@functools.cache
def _mpi() -> Any:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter where it finds no MPI library
        raise ImportError('Distributed needs MPI: pip install "layerwise[mpi]"') from error
    return MPI


def _world() -> Any:
    """All processes that mpiexec started. RuntimeError where each is by itself, though there are several."""
    world = _mpi().COMM_WORLD
    started = max(int(os.environ.get(name, 1)) for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    if world.Get_size() == 1 < started:
        raise RuntimeError(
            f"{started} processes were started and each finds itself alone: mpiexec is of another MPI than mpi4py's, "
            f"{_mpi().Get_library_version().splitlines()[0]!r}; use the one beside this python."
        )
    return world


__all__ = ["Distributed", "DistributedRun"]
