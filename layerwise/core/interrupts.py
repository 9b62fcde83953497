"""Ctrl-C, acted on at a moment when it does no harm. Imports no other module of ours.

Python hands signals to the main thread alone: in any other thread nothing here does anything.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


class Held:
    """`with Held() as ctrl_c:` Ctrl-C is noted in `asked`, and the block goes on.

    While `raises` is True, one after the first raises KeyboardInterrupt at once. After that the next ones are noted
    again, so that cleaning up is not cut short.
    """

    def __enter__(self) -> Held:
        self.asked = False
        self.raises = False
        self._before: Any = None
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *signal_and_frame: Any) -> None:
        if self.asked and self.raises:
            self.raises = False
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


class _Passed(Held):
    """While `raises` is True, Ctrl-C does what it does outside the block."""

    def _note(self, *signal_and_frame: Any) -> None:
        if not self.raises:
            self.asked = True
            return
        self.raises = False
        self._before(*signal_and_frame)  # KeyboardInterrupt, unless the handler is the user's own
        self.raises = True


def attempt(do: Callable[[], Any], undo: Callable[[], Any]) -> None:
    """Call `do`. Where it raises, Ctrl-C included, call `undo`, which no Ctrl-C cuts short, and raise."""
    with _Passed() as ctrl_c:
        try:
            ctrl_c.raises = True
            do()
            ctrl_c.raises = False
        except BaseException:
            ctrl_c.raises = False
            undo()
            raise
    if ctrl_c.asked:
        signal.raise_signal(signal.SIGINT)


__all__ = ["Held", "attempt"]
