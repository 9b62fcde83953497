"""Checks of what a user gives: flags, numbers, and data, which become arrays.

Each raises one error that says what came, what was expected and how to mend it.
"""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import numpy as np

Array = np.ndarray


def as_array(what: str, data: Any) -> Array:
    """`data` as an array of numbers with at least one row. TypeError for anything else but numbers."""
    if data is None:
        raise TypeError(f"{what} is missing.")
    array = numbers(what, data)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{what} is empty, shape {array.shape}: at least one row is needed.")
    return array


def numbers(what: str, data: Any) -> Array:
    """`data` as an array of numbers: of an array, a list, or a data frame or series, as of pandas or polars.

    TypeError for anything else but numbers; of a frame, the columns are named. ValueError for masked values, which
    would else be taken for what stands below the mask.
    """
    if isinstance(data, (list, tuple)) and any(isinstance(each, np.ma.MaskedArray) for each in data):
        data = np.ma.array(data)  # as an array, the list would lose the masks
    check_unmasked(what, data)
    try:
        array = np.asarray(data) if not isinstance(data, np.ndarray) or isinstance(data, np.ma.MaskedArray) else data
    except ValueError:
        raise ValueError(f"{what} has rows of different lengths: an array needs rows of one shape.") from None
    if array.dtype.kind in "biuf":
        return array
    if hasattr(data, "to_numpy") and hasattr(data, "columns"):
        return _frame(what, data)
    raise TypeError(f"{what} takes numbers, got an array of {array.dtype}. {_way_out(data, array)}")


def batch(what: str, data: Any, dtype: np.dtype, integer: bool = False) -> Array:
    """`data` as a batch of rows in this dtype, or of integers, which may have one axis alone."""
    x = data if type(data) is np.ndarray and data.dtype.kind in "biuf" else numbers(what, data)
    if x.ndim < 2 and not (integer and x.ndim == 1):
        raise ValueError(
            f"{what} takes a batch: an array with a row for each sample, got shape {x.shape}. "
            f"A single sample is a batch of one: x[None], or [x] of a list."
        )
    if integer and x.dtype.kind == "f":
        raise TypeError(f"{what} takes integers, got an array of {x.dtype}.")
    return np.ascontiguousarray(x, np.int64 if integer else dtype)


def input_shape(given: Any) -> tuple[int, ...]:
    """The shape of one input, without the batch axis, as `build` takes it."""
    try:
        shape = tuple(operator.index(size) for size in given)
    except TypeError:
        raise TypeError(f"build takes the shape of one input as a tuple, such as (784,), got {given!r}.") from None
    if any(size < 1 for size in shape):
        raise ValueError(f"every size of an input shape is positive, got {shape}.")
    return shape


def check_unmasked(what: str, data: Any) -> None:
    """ValueError for masked values. An array of them would be taken for one of the values below its mask."""
    if not np.ma.is_masked(data):
        return
    row = int(np.argwhere(np.ma.getmaskarray(data))[0][0]) if data.ndim else 0
    raise ValueError(
        f"{what} takes no masked values, and got some, first in row {row}: remove such rows, or fill them in, such as "
        f"with the means of the columns, x.filled(x.mean(0))."
    )


def _frame(what: str, data: Any) -> Array:
    """A data frame whose columns have several dtypes, column by column: as a whole it would be an array of objects."""
    # Not by name: two columns may have the same.
    columns = list(data.items()) if hasattr(data, "items") else list(zip(data.columns, data, strict=True))
    arrays = [np.asarray(column) for _, column in columns]
    wrong = [
        f"{name!r} ({column.dtype})"
        for (name, column), array in zip(columns, arrays, strict=True)
        if array.dtype.kind not in "biuf"
    ]
    if wrong:
        told = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise TypeError(
            f"{what} takes numbers, and these columns hold none, or hold missing values: {told}. Encode them as "
            f"numbers (of categories: pandas.get_dummies), fill them in, or leave them out."
        )
    return np.column_stack(arrays)


def _way_out(data: Any, array: Array) -> str:
    """How to make numbers of an array that holds none."""
    kind = array.dtype.kind
    if kind in "US":
        return "Strings are encoded as numbers first: of labels, classes, y = np.unique(y, return_inverse=True)."
    if kind in "mM":
        unit = np.datetime_data(array.dtype)[0]
        return f"Times become numbers first, such as how many: (x - x.min()) / np.timedelta64(1, {unit!r})."
    if kind == "c":
        return "Complex numbers are given as columns of their own: x.real and x.imag."
    if kind == "V":
        return "Of a structured array: np.lib.recfunctions.structured_to_unstructured(x)."
    if array.ndim == 0:
        return f"It is given as an array with a row for each sample, not as {type(data).__name__}."
    odd = next((each for each in array.flat if not isinstance(each, (Real, np.bool_))), None)
    if odd is None and None not in array.ravel().tolist():
        return "The objects are numbers: convert them, x.astype(float)."
    if isinstance(odd, str):
        return f"It holds strings, such as {odd[:20]!r}: encode them as numbers first."
    return f"It holds {odd!r:.40}: fill such values in or leave them out, then x.astype(float)."


# Single arguments ---------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: Any, least: float = -math.inf) -> bool:
    """Whether it is an integer that is not below `least`; True and False are none."""
    if isinstance(value, (bool, np.bool_, np.ndarray)) or not hasattr(value, "__index__"):
        return False
    return operator.index(value) >= least


def count(name: str, value: Any, least: int = 1, expected: str = "a positive integer") -> int:
    """An integer that is not below `least`; `expected` says so in a message."""
    if not is_integer(value, least):
        raise ValueError(f"{name} is {expected}, got {value!r}.")
    return operator.index(value)


Limits = tuple[float, float, str]  # lowest, highest, and in brackets, "[)", which of the two a number may equal


def within(value: Any, limits: Limits) -> bool:
    """True for a number within the limits."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    low, high, brackets = limits
    number: Any = value
    return low < number < high or (number == low and brackets[0] == "[") or (number == high and brackets[1] == "]")


def legal(limits: Limits) -> str:
    """What a message says of the limits."""
    low, high, brackets = limits
    return f"a number in {brackets[0]}{low:g}, {high:g}{brackets[1]}"


POSITIVE = math.ulp(0)  # as `low` of a number that is not 0


def real(
    name: str, value: Any, low: float, high: float = math.inf, closed: bool = False, expected: str | None = None
) -> float:
    """A number in [low, high), or in [low, high] if that is `closed`; a message may say in words what is expected."""
    if not is_number(value) or not (low <= value < high or (closed and value == high)):
        expected = expected or f"a number in [{low:g}, {high:g}{']' if closed else ')'}"
        raise ValueError(f"{name} is {expected}, got {value!r}.")
    return float(value)


def flag(name: str, value: Any, hint: str = "") -> bool:
    """An argument that is True or False: what merely counts as true, such as "no", is a slip."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is True or False, got {value!r}{': ' * bool(hint)}{hint}.")
    return bool(value)


def verbose(value: Any) -> bool:
    """True or False; or an integer, as in Keras and scikit-learn, where 0 is silent."""
    if isinstance(value, (int, np.integer)) and value >= 0:
        return bool(value)
    return flag("verbose", value)
