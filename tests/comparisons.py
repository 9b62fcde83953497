"""Short comparisons, for the tests of comparing and of sweeps."""

import numpy as np

from layerwise.compare import compare


def short(optimizers="sgd,adam", problem="xor", lrs=(0.01, 0.1), seeds=2, steps=8, **rest):
    return compare(optimizers, problem, lrs, seeds, steps, **{"verbose": False, "widen": False, **rest})


def same(a, b):
    """Whether two comparisons are equal in everything that was not timed."""
    return all(
        np.array_equal(getattr(a, field)[name], getattr(b, field)[name], equal_nan=field.endswith("curves"))
        for field in ("curves", "status", "default_curves")
        for name in getattr(a, field)
    ) and [str(row) for row in a.table()] == [str(row) for row in b.table()]
