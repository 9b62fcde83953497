"""A search along a line for the strong Wolfe conditions: Nocedal and Wright 2006, algorithms 3.5 and 3.6.

Takes the same points as torch.optim.LBFGS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Point(NamedTuple):
    """A point of the line that is searched: how far, the value, the gradient, and its slope along the line."""

    t: float
    value: float
    g: Array
    slope: float


def cubic(a: Point, b: Point, low: float, high: float) -> float:
    """Where the cubic through two points and their slopes is lowest, held within [low, high]: eq. 3.59."""
    if a.t == b.t:
        return (low + high) / 2
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = math.sqrt(square)
    if a.t > b.t:
        a, b = b, a
    above, below = b.slope + d2 - d1, b.slope - a.slope + 2 * d2
    if below == 0:  # a straight line: go down, as far as allowed
        return high if above < 0 else low if above > 0 else (low + high) / 2
    return min(max(b.t - (b.t - a.t) * (above / below), low), high)


def strong_wolfe(
    at: Callable[[Array], tuple[float, Array]], x: Array, t: float, d: Array, value: float, g: Array, slope: float,
    tolerance: float, limit: int, c1: float = 1e-4, c2: float = 0.9,
) -> tuple[float, Array, float, int]:  # fmt: skip
    """A length t along d with a value low enough and a slope flat enough: (value, gradient, t, evaluations)."""

    def point(t: float) -> Point:
        value, g = at(x + t * d)
        return Point(t, value, g, float(g.dot(d)))

    def too_high(p: Point) -> bool:
        return p.value > value + c1 * p.t * slope

    def flat(p: Point) -> bool:
        return abs(p.slope) <= -c2 * slope

    origin = Point(0.0, value, g, slope)
    before, here = origin, point(t)
    tried = 0  # points after the first
    bracket: list[Point] = []
    while tried < limit and not bracket:  # go out until a minimum lies between two points
        if too_high(here) or (tried > 1 and here.value >= before.value):
            bracket = [before, here]
        elif flat(here):
            return here.value, here.g, here.t, tried + 1
        elif here.slope >= 0:
            bracket = [before, here]
        else:
            following = cubic(before, here, here.t + 0.01 * (here.t - before.t), here.t * 10)
            before, here = here, point(following)
            tried += 1
    if not bracket or tried == limit:
        bracket = [origin, here]
    stuck = False
    low, high = (0, 1) if bracket[0].value <= bracket[1].value else (1, 0)
    while tried < limit:  # close in
        left, right = sorted(p.t for p in bracket)
        if (right - left) * float(np.abs(d).max()) < tolerance:
            break
        t = cubic(bracket[0], bracket[1], left, right)
        margin = 0.1 * (right - left)
        if min(right - t, t - left) >= margin:
            stuck = False
        elif stuck or t >= right or t <= left:  # twice in a row so near to an end: move inside
            t = right - margin if abs(t - right) < abs(t - left) else left + margin
            stuck = False
        else:
            stuck = True
        here = point(t)
        tried += 1
        if too_high(here) or here.value >= bracket[low].value:
            bracket[high] = here
            low, high = (0, 1) if bracket[0].value <= bracket[1].value else (1, 0)
        else:
            if flat(here):
                bracket[low] = here
                break
            if here.slope * (bracket[high].t - bracket[low].t) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = here
    best = bracket[low]
    return best.value, best.g, best.t, tried + 1
