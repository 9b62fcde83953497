"""Weights of samples and of classes: checked, brought to mean 1, and held in the dtype of a net."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray


def of_samples(weight: Any, steps: int | tuple[int, ...], some: bool = True, what: str = "sample_weight") -> Array:
    """The weights in float64. ValueError unless there is one for each sample, (N,), or for each time step, of the
    shape `steps` (N, T), or of what is between; and, with `some`, one above 0 among them."""
    if np.ma.is_masked(weight):
        raise ValueError(f"{what} holds masked values: fill them in, such as with {what}.filled(0).")
    weight = np.asarray(weight)
    steps = steps if isinstance(steps, tuple) else (steps,)
    if not weight.ndim or weight.shape != steps[: weight.ndim] or weight.dtype.kind not in "biuf":
        each = f", or one per time step, shape {steps}" * (len(steps) > 1)
        raise ValueError(
            f"{what} has one number per sample, shape {steps[:1]}{each}, got shape {weight.shape} of {weight.dtype}."
        )
    weight = weight.astype(np.float64, copy=False)
    if not (np.isfinite(weight).all() and (weight >= 0).all() and (weight.any() or not some)):
        raise ValueError(f"{what} is finite and not negative, and not all of it is zero.")
    return weight


def of_columns(name: str, value: Any) -> list[float]:
    """One weight for each column of the prediction, as a list, which can be written into a file."""
    array = np.asarray(value)
    good = array.ndim == 1 and array.size > 0 and array.dtype.kind in "biuf"
    if not good or not (np.isfinite(array).all() and (array >= 0).all() and array.any()):
        raise ValueError(
            f"{name} is a list of numbers, one for each column, finite, not negative, not all 0, got {value!r}."
        )
    return array.astype(np.float64).tolist()


def relative(weight: Array) -> Array:
    """Weights in float64 times the number that makes their mean 1, whatever their size; one must be above 0."""
    weight = weight / weight.max()  # first, so that no sum overflows
    return weight / weight.mean()


def converted(weight: Array, dtype: Any, what: str = "sample_weight") -> Array:
    """Checked weights in that dtype. ValueError if their sum overflows there, or all of them become 0."""
    with np.errstate(all="ignore"):
        result = np.ascontiguousarray(weight, dtype)
        if not np.isfinite(result.sum()) or (weight.any() and not result.any()):
            raise ValueError(
                f"{what} can't be held in {result.dtype}: the largest is {weight.max():g}. Multiply all of it by one "
                f"number, so that it is about 1."
            )
    return result
