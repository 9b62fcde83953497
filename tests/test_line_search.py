"""LBFGS's line search beside PyTorch's, along curves of one variable, and where it has no counterpart."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest

from layerwise.core import linesearch

GOLDEN = np.load(Path(__file__).parent / "reference" / "line_search.npz")


def curve(c, t):
    """Value and slope of c0 t + c1 t^2 + c2 t^3 + c3 t^4 + c4 sin(c5 t)."""
    value = c[0] * t + c[1] * t**2 + c[2] * t**3 + c[3] * t**4 + c[4] * np.sin(c[5] * t)
    slope = c[0] + 2 * c[1] * t + 3 * c[2] * t**2 + 4 * c[3] * t**3 + c[4] * c[5] * np.cos(c[5] * t)
    return float(value), float(slope)


def along(function, u):
    """Value and gradient of function(u.y), a function of y."""

    def at(y):
        value, slope = function(float(y @ u))
        return value, slope * u

    return at


def test_the_line_search_is_pytorchs():
    u, rows = GOLDEN["u"], [GOLDEN[name].tolist() for name in ("curves", "directions", "given", "found")]
    for c, d, (t, tolerance, limit), (value, length, evaluations) in zip(*rows, strict=True):
        at = along(functools.partial(curve, c), u)
        start, g = at(np.zeros(2))
        d = np.array(d)
        found = linesearch.strong_wolfe(at, np.zeros(2), t, d, start, g, float(g @ d), tolerance, int(limit))
        assert found[0] == pytest.approx(value, rel=1e-9, abs=1e-12), c
        assert found[2] == pytest.approx(length, rel=1e-7), c
        assert found[3] == evaluations, c
        np.testing.assert_array_equal(found[1], at(found[2] * d)[1])


def test_the_cubic_is_pytorchs():
    rows = [GOLDEN[name].tolist() for name in ("points", "bounds", "inside")]
    for (*a, t, value, slope), bounds, inside in zip(*rows, strict=True):
        assert linesearch.cubic(point(*a), point(t, value, slope), *bounds) == pytest.approx(inside, rel=1e-9)


def point(t, value, slope):
    return linesearch.Point(t, value, np.array([slope]), slope)


def test_a_cubic_that_is_a_line_goes_down_as_far_as_it_may():
    assert linesearch.cubic(point(0.0, 1.0, -2.0), point(1.0, -1.0, -2.0), 2.0, 6.0) == 6
    assert linesearch.cubic(point(0.0, 1.0, 2.0), point(1.0, 3.0, 2.0), 2.0, 6.0) == 2
    assert linesearch.cubic(point(0.0, 1.0, 0.0), point(1.0, 1.0, 0.0), 2.0, 6.0) == 4


def test_a_cubic_that_points_do_not_decide_is_halved():
    assert linesearch.cubic(point(1.0, 0.0, -1.0), point(1.0, 0.0, -1.0), 2.0, 6.0) == 4
    assert linesearch.cubic(point(0.0, 0.0, -1.0), point(1.0, math.nan, -1.0), 2.0, 6.0) == 4
