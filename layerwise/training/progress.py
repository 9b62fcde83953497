"""The progress of a training: one tqdm bar, drawn at most ten times a second."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np


class ProgressBar:
    def __init__(self, steps: int | None, epochs: int) -> None:
        from tqdm.auto import tqdm

        self.epochs = epochs
        self.bar = tqdm(total=steps and steps * epochs, unit="step", mininterval=0.1)
        self.drawn = time.perf_counter()

    def is_due(self) -> bool:
        return time.perf_counter() - self.drawn > 0.1

    def show(self, step: int, epoch: int, logs: dict[str, float]) -> None:
        self.drawn = time.perf_counter()
        numbers = (f"{name}={_median(value):.4g}" for name, value in logs.items() if name != "seconds")
        self.bar.set_postfix_str(", ".join((f"epoch {epoch}/{self.epochs}", *numbers)), refresh=False)
        self.bar.update(step - self.bar.n)

    def close(self, step: int, epoch: int, logs: dict[str, float]) -> None:
        self.show(step, epoch, logs)
        self.bar.close()


def _median(value: Any) -> float:
    """The number itself; or of an array with one for each copy, the median of those that are finite."""
    finite = np.asarray(value)[np.isfinite(value)] if np.ndim(value) else np.asarray([value])
    return float(np.median(finite)) if finite.size else math.nan


__all__ = ["ProgressBar"]
