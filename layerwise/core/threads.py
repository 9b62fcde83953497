"""Work in blocks over the cores: NumPy lets go of Python within an array operation, so threads run at once. Knows no
other module.

A task is cut into pieces whose results do not depend on which thread does them, so the bits stay the same.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np

_inboxes: tuple[int, list[SimpleQueue[Any]]] = (0, [])  # of which process, and those of its helping threads
_here = threading.local()
_lock = threading.Lock()
_single = 0  # how many tasks need BLAS in one thread at this moment
_limits: Any = None  # what puts it back
_alone = 0  # how many trainings in this process are to keep to one core


def workers() -> int:
    """How many threads to use: the cores that this process may use, or what OMP_NUM_THREADS or OPENBLAS_NUM_THREADS
    says where that is less (as it is in the workers of a sweep); one within `alone`."""
    return 1 if _alone else _cores()


@functools.cache
def _cores() -> int:
    asked = (os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"))
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *(int(number) for number in asked if number.isdigit())]))


def parallel_for(function: Callable[..., Any], blocks: Sequence[tuple[Any, ...]], threads: int | None = None) -> None:
    """Call function(*piece) for every piece, in as many threads as `workers()` says, or `threads`.

    Each thread does a contiguous part of the pieces, in order. What a piece raises is raised here, when all are done.
    """
    count = min(threads or workers(), len(blocks))
    if count < 2 or getattr(_here, "helps", False):
        for block in blocks:
            function(*block)
        return
    bounds = [len(blocks) * k // count for k in range(count + 1)]
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    for inbox, (first, last) in zip(_helpers(count - 1), itertools.pairwise(bounds[1:]), strict=True):
        inbox.put((function, blocks[first:last], done))
    try:
        for block in blocks[: bounds[1]]:
            function(*block)
    finally:
        failed = [error for _ in range(count - 1) if (error := done.get()) is not None]
    if failed:
        raise failed[0]


def _helpers(count: int) -> list[SimpleQueue[Any]]:
    """The inboxes of so many helping threads, which are started when first needed; a process that was forked starts
    its own. (A ThreadPoolExecutor takes three times as long to hand over: 50 us instead of 20.)"""
    global _inboxes
    with _lock:
        if _inboxes[0] != os.getpid():
            _inboxes = os.getpid(), []
        inboxes = _inboxes[1]
        while len(inboxes) < count:
            inboxes.append(SimpleQueue())
            threading.Thread(target=_help, args=(inboxes[-1],), name="layerwise", daemon=True).start()
        return inboxes[:count]


def _help(inbox: SimpleQueue[Any]) -> None:
    _here.helps = True
    np.seterr(all="ignore")  # of this thread alone; the caller looks at what comes out
    while True:
        function, blocks, done = inbox.get()
        error = None
        try:
            for block in blocks:
                function(*block)
        except BaseException as raised:  # it is raised again where the work was asked for
            error = raised
        done.put(error)
        del function, blocks, done, error  # nothing is kept alive while it waits


@functools.cache
def _blas() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def single_blas() -> Iterator[bool]:
    """BLAS in one thread each, for matrix products in several threads at once; False where threadpoolctl is missing,
    and one thread is to do it all. May be entered by several threads."""
    blas = _blas()
    if blas is None or workers() == 1:
        yield False
        return
    with _limited(blas):
        yield True


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """All work in one thread, that of BLAS too: where processes beside this one have the other cores. ImportError where
    that needs threadpoolctl, and it is missing."""
    global _alone
    blas = _blas()
    if blas is None and _cores() > 1:
        raise ImportError(
            'one BLAS thread for each process needs a package: pip install "layerwise[mpi]"; or set OMP_NUM_THREADS=1 '
            "in the command."
        )
    with contextlib.nullcontext() if blas is None else _limited(blas):
        with _lock:
            _alone += 1
        try:
            yield
        finally:
            with _lock:
                _alone -= 1


@contextlib.contextmanager
def _limited(blas: Any) -> Iterator[None]:
    """BLAS in one thread, until the last that asked for it is done."""
    global _single, _limits
    with _lock:
        if _single == 0:
            _limits = blas.limit(limits=1)
        _single += 1
    try:
        yield
    finally:
        with _lock:
            _single -= 1
            if _single == 0:
                _limits.restore_original_limits()
