"""Work in blocks over the cores. NumPy releases the GIL within an array operation, so threads run at the same time.

A task is split into blocks whose results do not depend on which thread computes them, so the bits stay the same.
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

_inboxes: tuple[int, list[SimpleQueue[Any]]] = (0, [])  # the process, and the inboxes of its helper threads
_here = threading.local()
_lock = threading.Lock()
_single = 0  # how many tasks need single-threaded BLAS at this moment
_limits: Any = None  # restores the number of BLAS threads
_alone = 0  # how many trainings in this process must keep to one core


def workers() -> int:
    """How many threads to use: the cores that this process may use, or OMP_NUM_THREADS or OPENBLAS_NUM_THREADS where
    one of them is less (as in the workers of a sweep); 1 within `alone`."""
    return 1 if _alone else _cores()


@functools.cache
def _cores() -> int:
    asked = (os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"))
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *(int(number) for number in asked if number.isdigit())]))


def parallel_for(function: Callable[..., Any], blocks: Sequence[tuple[Any, ...]], threads: int | None = None) -> None:
    """Call function(*block) for every block, in `workers()` threads, or in `threads`.

    Each thread takes a contiguous part of the blocks, in order. An exception is raised here, once all threads are done.
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
    """The inboxes of `count` helper threads, which start when first needed; a forked process starts its own.

    Not a ThreadPoolExecutor: it takes 50 us to hand a task over, a queue 20.
    """
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
    np.seterr(all="ignore")  # in this thread only; the caller checks the results
    while True:
        function, blocks, done = inbox.get()
        error = None
        try:
            for block in blocks:
                function(*block)
        except BaseException as raised:  # parallel_for raises it in the caller's thread
            error = raised
        done.put(error)
        del function, blocks, done, error  # so that a waiting thread keeps no array alive


@functools.cache
def _blas() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def single_blas() -> Iterator[bool]:
    """Single-threaded BLAS, for matrix products in several threads at once. Several threads may enter it.

    Yields False where threadpoolctl is missing or there is one core: then one thread should do all the work.
    """
    blas = _blas()
    if blas is None or workers() == 1:
        yield False
        return
    with _limited(blas):
        yield True


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """All work in one thread, BLAS too, because other processes use the other cores.

    ImportError if that needs threadpoolctl and it is missing.
    """
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
    """Single-threaded BLAS until the last task that needs it is done."""
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
