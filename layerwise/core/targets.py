"""Checks of predictions and targets; each error says what came, what was expected and how to mend it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]


def numbers(who: str, what: str, data: Any) -> Array:
    """An array of numbers, none of them masked."""
    if np.ma.is_masked(data):
        raise ValueError(f"{who} got {what} with masked values: fill them in, or remove such rows.")
    array = np.asarray(data)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{who} takes numbers, got {what} of {array.dtype}.")
    return array


def check_shapes(who: str, pred: Shape, real: Shape, integer: bool, by_rows: bool, class_numbers: bool) -> None:
    """ValueError unless targets of shape `real`, integers or not, go with predictions of shape `pred`."""
    if by_rows and len(pred) < 2:
        raise ValueError(
            f"{who} takes a row of numbers for each sample, shape (N, ..., C), got predictions of "
            f"shape {pred} and targets of shape {real}. A single sample is a batch of one: pred[None], real[None]."
        )
    if real == pred or (class_numbers and integer and real == pred[:-1]):
        return
    accepted = f"{pred}" + (f", or class numbers (integers) of shape {pred[:-1]}" * class_numbers)
    hint = ""
    if math.prod(real) == math.prod(pred):
        hint = f" Reshape it: real.reshape({', '.join(map(str, pred))})."
    elif class_numbers and real == pred[:-1]:
        hint = " Convert it: real.astype(int)."
    elif real in (pred[:-1], (*pred[:-1], 1)) and len(pred) > 1 and (integer or class_numbers):
        flat = "" if real == pred[:-1] else "[..., 0]"
        if class_numbers:
            hint = f" Leave the last axis out: real{flat}{'' if integer else '.astype(int)'}."
        else:
            hint = f" Class numbers go with CrossEntropy; {who} takes them one-hot: np.eye({pred[-1]})[real{flat}]."
    raise ValueError(
        f"{who} got predictions of shape {pred} and targets of shape {real}; the targets have shape {accepted}.{hint}"
    )


def check_whole(who: str, real: Array) -> None:
    """ValueError for class numbers that are floats and not whole, such as NaN: converted, they would be others."""
    odd = real[~(np.isfinite(real) & (np.floor(real) == real))]
    if odd.size:
        raise ValueError(
            f"{who} takes class numbers, integers, and among the targets of shape {real.shape} "
            f"is {odd.flat[0]:g}: remove such rows, or give them a class of their own."
        )


def check_rows_sum_to_1(who: str, what: str, p: Array, hint: str = "") -> None:
    """ValueError unless p (..., C) has no number below 0, and each row of it sums to 1 within 1e-3."""
    sums = p.sum(-1)
    wrong = ~(np.abs(sums - 1) <= 1e-3)
    if wrong.any() or (p < 0).any():
        worst = f"a row sums to {sums[wrong].flat[0]:g}" if wrong.any() else f"the smallest is {p.min():g}"
        raise ValueError(f"{who} takes probabilities as {what}: rows of numbers >= 0 that sum to 1; {worst}.{hint}")


def check_columns(name: str, weights: Any, columns: int) -> None:
    """ValueError unless a list of weights has one for each column."""
    if isinstance(weights, list) and len(weights) != columns:
        raise ValueError(
            f"{name} has {len(weights)} numbers, and the predictions have {columns} columns: one for each."
        )


def refuse_unless(good: Any, message: str) -> None:
    """ValueError with this message unless `good`."""
    if not good:
        raise ValueError(message)
