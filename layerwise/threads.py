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
from typing import Any

import numpy as np

_pool: tuple[int, Any] | None = None
_lock = threading.Lock()
_single = 0  # how many tasks need BLAS in one thread at this moment
_limits: Any = None  # what puts it back


@functools.cache
def workers() -> int:
    """How many threads to use: the cores that this process may use, or what OMP_NUM_THREADS or OPENBLAS_NUM_THREADS
    says where that is less (as it is in the workers of a sweep)."""
    asked = (os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"))
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *(int(number) for number in asked if number.isdigit())]))


def over(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]], threads: int | None = None) -> None:
    """Call function(*piece) for every piece, in as many threads as `workers()` says, or `threads`.

    Each thread does a contiguous part of the pieces, in order. What a piece raises is raised here, when all are done.
    """
    count = min(threads or workers(), len(pieces))
    if count < 2:
        for piece in pieces:
            function(*piece)
        return
    bounds = [len(pieces) * k // count for k in range(count + 1)]
    waiting = [_executor().submit(_run, function, pieces[a:b]) for a, b in itertools.pairwise(bounds[1:])]
    try:
        for piece in pieces[: bounds[1]]:
            function(*piece)
    finally:
        failed = [error for each in waiting if (error := each.exception())]
    if failed:
        raise failed[0]


def _run(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]]) -> None:
    with np.errstate(all="ignore"):  # a thread has a setting of its own; the caller looks at what comes out
        for piece in pieces:
            function(*piece)


def _executor() -> Any:
    """The threads, started at their first use; a process that was forked starts its own."""
    global _pool
    from concurrent.futures import ThreadPoolExecutor  # a tenth of the time of `import layers`, and often not needed

    with _lock:
        if _pool is None or _pool[0] != os.getpid():
            _pool = os.getpid(), ThreadPoolExecutor(max(1, workers() - 1), "layerwise")
        return _pool[1]


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
    global _single, _limits
    blas = _blas()
    if blas is None or workers() == 1:
        yield False
        return
    with _lock:
        if _single == 0:
            _limits = blas.limit(limits=1)
        _single += 1
    try:
        yield True
    finally:
        with _lock:
            _single -= 1
            if _single == 0:
                _limits.restore_original_limits()
