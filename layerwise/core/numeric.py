"""Numerics that layers share: sums and products of rows, special functions, the kernels of normalisation.

In this file, in this order:
  rows            ones, parallel_rows, row_sums, row_max, mean
  products        as_rows, affine, affine_backward, column_sums
  constants       ONE, ZERO, SMALLEST, number
  elementwise     positive_part, at_most, select, leaky, hard_sigmoid
  normal          normal, erf, exp_tanh_argument
  normalisation   normalize, normalize_backward, batch_statistics, batch_normalize,
                  batch_gradient_sums, batch_normalize_backward

Shapes in the docstrings: R rows, D columns, C channels (last); S copies of a net, in a stack.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from layerwise.core import threads

Array = np.ndarray
Shape = tuple[int, ...]

SHORT = 16  # length of a row up to which a sum in every column is cheaper than one that NumPy broadcasts
PART = 100_000  # numbers in one block of rows: they stay in the cache from one pass to the next
MANY = 300_000  # numbers; from here on the blocks are computed in several threads


# Rows ----------------------------------------------------------------------------------------------------------


@functools.lru_cache
def ones(shape: int | Shape, dtype: np.dtype) -> Array:
    """np.ones, made once; read only."""
    array = np.ones(shape, dtype)
    array.flags.writeable = False
    return array


def parallel_rows(function: Callable[[int, int], Any], x: Array) -> None:
    """Call function(first, last) on blocks of the rows of x, in several threads where x is large.

    The result of a row must not depend on the other rows of its block.
    """
    count = min(-(-x.size // PART), len(x))
    if x.size < MANY or count < 2:
        function(0, len(x))
        return
    count += count % 2 if count < len(x) else 0
    bounds = [len(x) * k // count for k in range(count + 1)]
    threads.parallel_for(function, list(itertools.pairwise(bounds)))


def row_sums(x: Array) -> Array:
    """Sums over the last axis, to broadcast against x: the axis stays, with size 1, or with its own size if short."""
    size = x.shape[-1]
    if size <= SHORT and x.ndim == 2:
        return x.dot(ones((size, size), x.dtype))
    return x.dot(ones(size, x.dtype))[..., None]


def row_max(x: Array) -> Array:
    """The largest over the last axis, which is kept with size 1."""
    rows = x.size // x.shape[-1]
    if rows < 16 or rows < x.shape[-1]:
        return np.maximum.reduce(x, -1, keepdims=True)
    # NumPy takes 0.2 us for each row, however short: a few long ones take a fifth of the time of many short ones.
    return np.maximum.reduce(x.reshape(rows, -1).T.copy(), 0).reshape(*x.shape[:-1], 1)


def mean(x: Array, axes: Any) -> Array:
    """x.mean(axes, keepdims=True), which takes NumPy four times as long on small arrays."""
    total = np.add.reduce(x, axes, keepdims=True)
    total /= x.size // max(total.size, 1)
    return total


# Products of rows ----------------------------------------------------------------------------------------------


def as_rows(x: Array, w: Array) -> Array:
    """x (..., D) as a matrix (R, D), in the dtype of w (D, M); with a stack, w (S, D, M), as (S, R, D)."""
    if x.dtype is not w.dtype:
        x = np.asarray(x, w.dtype)
    return x if x.ndim == w.ndim else x.reshape(*w.shape[:-2], -1, x.shape[-1])


# On small arrays a call shows: `affine` and its backward call as_rows only where x is no matrix yet, and they use the
# method `dot`, which takes a third of the time of np.matmul.


def affine(x: Array, w: Array, b: Array | None, empty: Callable[[Shape], Array]) -> Array:
    """y = x w + b, in an array from `empty`: x (..., D), w (D, M), b (M,), y (..., M).

    With a stack: x (S, ..., D), w (S, D, M), b (S, M), y (S, ..., M).
    """
    rows = x if x.ndim == w.ndim and x.dtype is w.dtype else as_rows(x, w)
    if w.ndim == 2:
        y = rows.dot(w, empty((len(rows), w.shape[1])))
    else:
        y = np.matmul(rows, w, out=empty((*rows.shape[:2], w.shape[2])))
        b = None if b is None else b[:, None]
    if b is not None:
        y += b
    return y if rows is x else y.reshape(*x.shape[:-1], w.shape[-1])


def affine_backward(
    grad: Array, x: Array, w: Array, w_gradient: Array, b_gradient: Array | None, x_gradient: Array | None
) -> None:
    """The gradients of `affine` from grad = dL/dy, written into the last three; None where one is not needed.

    dL/dw = x^T grad;    dL/db = the column sums of grad;    dL/dx = grad w^T
    """
    if not (x.ndim == grad.ndim == w.ndim and x.dtype is grad.dtype is w.dtype):
        x, grad = as_rows(x, w), as_rows(grad, w)
        x_gradient = None if x_gradient is None else as_rows(x_gradient, w)  # a view
    if w.ndim == 2:
        x.T.dot(grad, w_gradient)
        if b_gradient is not None:
            ones(len(grad), grad.dtype).dot(grad, b_gradient)
        if x_gradient is not None:
            grad.dot(w.T, x_gradient)
    else:
        np.matmul(x.swapaxes(1, 2), grad, out=w_gradient)
        if b_gradient is not None:
            np.add.reduce(grad, 1, out=b_gradient)
        if x_gradient is not None:
            np.matmul(grad, w.swapaxes(1, 2), out=x_gradient)


def column_sums(x: Array, out: Array | None = None) -> Array:
    """Sums over all axes but the last, (M,), or over all but those that `out` has."""
    if out is None:
        out = np.empty(x.shape[-1], x.dtype)
    if x.dtype is not out.dtype:
        x = np.asarray(x, out.dtype)
    rows = x if x.ndim == 2 else x.reshape(-1, out.size)
    ones(len(rows), out.dtype).dot(rows, out if out.ndim == 1 else out.reshape(-1))  # three times as fast as np.sum
    return out


# Constants -----------------------------------------------------------------------------------------------------
# Constants as arrays: NumPy reads them twice as fast as Python's floats, which shows on small arrays.
ONE = {np.dtype(each): np.array(1, each) for each in (np.float32, np.float64)}
ZERO = {np.dtype(each): np.array(0, each) for each in (np.float32, np.float64)}
SMALLEST = {np.dtype(each): np.array(np.finfo(each).tiny) for each in (np.float32, np.float64)}  # normal number


@functools.lru_cache
def number(value: float, dtype: np.dtype) -> Array:
    """A constant as an array, made once."""
    return np.array(value, dtype)


# Elementwise ---------------------------------------------------------------------------------------------------
# On large arrays some of NumPy's functions are slow. np.maximum and np.minimum of an array and a number take four times
# as long as those of two arrays, or as clip; and what has a condition goes number by number.

LARGE = 4096
ZEROS = {each: np.zeros(1024, each) for each in ONE}


def positive_part(x: Array, out: Array | None = None) -> Array:
    """max(x, 0)."""
    if x.size < LARGE:
        return np.maximum(x, ZERO[x.dtype], out=out)
    if out is None:
        out = np.empty_like(x)
    zeros = ZEROS[x.dtype]
    flat, y = x.reshape(-1), out.reshape(-1)
    whole = x.size - x.size % zeros.size
    np.maximum(flat[:whole].reshape(-1, zeros.size), zeros, out=y[:whole].reshape(-1, zeros.size))
    np.maximum(flat[whole:], zeros[: x.size - whole], out=y[whole:])
    return out


def at_most(x: Array, limit: float, out: Array | None = None) -> Array:
    """min(x, limit)."""
    return np.minimum(x, number(limit, x.dtype), out=out) if x.size < LARGE else x.clip(-np.inf, limit, out=out)


def select(condition: Array, x: Array, y: Array) -> Array:
    """np.where(condition, x, y), bit by bit: a fifth of the time where the condition changes often."""
    if x.size < LARGE:
        return np.where(condition, x, y)
    bits = condition.astype(f"i{x.itemsize}")
    np.negative(bits, out=bits)  # all bits are 1 where the condition holds
    bits &= x.view(bits.dtype) ^ y.view(bits.dtype)
    bits ^= y.view(bits.dtype)
    return bits.view(x.dtype)


def leaky(values: Array, above: Array, slope: Any, out: Array) -> Array:
    """`values` where `above` is True, else slope times them. Not by np.where, which takes ten times as long."""
    np.multiply(values, above, out=out)
    rest = values - out
    rest *= slope
    out += rest
    return out


def hard_sigmoid(x: Array, out: Array) -> Array:
    """min(max(x + 3, 0), 6) / 6: near -3 the sum is exact, which x / 6 + 1/2 is not."""
    y = np.add(x, 3, out=out)
    np.clip(y, 0, 6, out=y)
    y /= 6
    return y


# The normal distribution ---------------------------------------------------------------------------------------
# The normal distribution as quotients of polynomials, highest power first: W. J. Cody, Algorithm 715 (ANORM), ACM
# Transactions on Mathematical Software 19 (1993), within 1e-16. The probability of [0, x], over x, as a function of
# x^2, for x <= 0.6744; that beyond x times exp(x^2 / 2), for x up to sqrt(32); and how far this, times x, is below
# 1 / sqrt(2 pi), times x^2, as a function of 1 / x^2.
NEAR_0 = (
    (6.5682337918207449113e-2, 2.2352520354606839287e0, 1.6102823106855587881e2, 1.0676894854603709582e3,
     1.8154981253343561249e4),
    (1.0, 4.720258190468824187e1, 9.7609855173777669322e2, 1.0260932208618978205e4, 4.5507789335026729956e4),
)  # fmt: skip
TAIL = (
    (1.0765576773720192317e-8, 3.9894151208813466764e-1, 8.8831497943883759412e0, 9.3506656132177855979e1,
     5.9727027639480026226e2, 2.4945375852903726711e3, 6.8481904505362823326e3, 1.1602651437647350124e4,
     9.8427148383839780218e3),
    (1.0, 2.2266688044328115691e1, 2.3538790178262499861e2, 1.519377599407554805e3, 6.485558298266760755e3,
     1.8615571640885098091e4, 3.4900952721145977266e4, 3.8912003286093271411e4, 1.9685429676859990727e4),
)  # fmt: skip
FAR_TAIL = (
    (2.307344176494017303e-2, 2.1589853405795699e-1, 1.274011611602473639e-1, 2.2235277870649807e-2,
     1.421619193227893466e-3, 2.9112874951168792e-5),
    (1.0, 1.28426009614491121e0, 4.68238212480865118e-1, 6.59881378689285515e-2, 3.78239633202758244e-3,
     7.29751555083966205e-5),
)  # fmt: skip
ROOT_2_PI = math.sqrt(2 * math.pi)


def _ratio(coefficients: tuple[Sequence[float], Sequence[float]], x: Array) -> Array:
    """The quotient of two polynomials in x, by Horner's rule."""
    above, below = (_polynomial(each, x) for each in _constants(coefficients, x.dtype))
    above /= below
    return above


def _polynomial(coefficients: Sequence[Array], x: Array) -> Array:
    first, *others, last = coefficients
    total = x * first
    for coefficient in others:
        total += coefficient
        total *= x
    total += last
    return total


@functools.lru_cache
def _constants(values: tuple[Sequence[float], ...], dtype: np.dtype) -> list[list[Array]]:
    return [[np.array(value, dtype) for value in row] for row in values]


def normal(x: Array) -> tuple[Array, Array, Array]:
    """Of 0 <= x <= 40 the probability of [0, x], valid up to 0.67; that beyond x, over the root; and the root,
    exp(-x^2 / 4). Numbers times the root twice underflow later than numbers times exp(-x^2 / 2)."""
    square = x * x
    near = x * _ratio(NEAR_0, square)
    square *= -0.25
    root = np.exp(square, out=square)
    tail = _ratio(TAIL, x)
    far = x > 5.65
    if far.any():
        steep = x[far]
        inverse = 1 / (steep * steep)
        tail[far] = (1 / ROOT_2_PI - inverse * _ratio(FAR_TAIL, inverse)) / steep
        # The error of a square would be one of the exponential, as many times larger: that of 1/64ths is exact.
        rounded = np.rint(steep * 64) / 64
        root[far] = np.exp(rounded * rounded * -0.25) * np.exp((steep - rounded) * (steep + rounded) * -0.25)
    tail *= root
    return near, select(x < 0.67, (0.5 - near) / root, tail), root


def erf(x: Array) -> Array:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x; within 1e-14."""
    size = np.minimum(np.abs(x), 6) * math.sqrt(2)  # erf(6) is 1
    near, tail, root = normal(size)
    return np.copysign(np.where(size < 0.67, 2 * near, 1 - 2 * tail * root), x)


def _product(a: Array, b: Any) -> tuple[Array, Array]:
    """a b in float64 as rounded, and what the rounding lost: Dekker 1971, Numerische Mathematik 18."""

    def high(x: Any) -> Any:
        return x * (2**27 + 1) - (x * (2**27 + 1) - x)

    product = a * b
    a_high, b_high = high(a), high(b)
    a_low, b_low = a - a_high, b - b_high
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def exp_tanh_argument(x: Array) -> Array:
    """exp(u), u = k (x + c x^3), k = sqrt(2 / pi), c = 0.044715, with u in more digits than x has: the error of u is
    one of exp(u), u times as large."""
    k, c = 0.7978845608028654, 0.044715
    if x.dtype == np.float32:
        x = x.astype(np.float64)
        return np.exp(k * x * (1 + c * x * x))
    square, square_rest = _product(x, x)
    cubic, rest = _product(square, c)
    rest += c * square_rest + 2.196021142708559637e-18 * square  # what c lacks as a float; and so k below
    inner = cubic + 1
    added = inner - 1
    rest += (1 - (inner - added)) + (cubic - added)
    outer, outer_rest = _product(x, inner)
    outer_rest += x * rest
    u, rest = _product(outer, k)
    rest += k * outer_rest - 4.9846544045554602e-17 * outer
    return np.exp(u) * (1 + rest)


# Normalisation -------------------------------------------------------------------------------------------------


def normalize(x: Array, axes: Any, epsilon: float) -> tuple[Array, Array, Array, Array]:
    """(x - mean) / sqrt(variance + epsilon) over `axes`, with 1 / sqrt(...), the mean and the variance."""
    center = mean(x, axes)
    z = x - center
    z -= mean(z, axes)  # what rounding left of the mean: in long rows far from 0, more than the deviation
    variance = mean(z * z, axes)
    scale = 1 / np.sqrt(variance + epsilon)
    z *= scale
    return z, scale, center, variance


def normalize_backward(grad: Array, z: Array, scale: Array, axes: Any) -> Array:
    """dL/dx of `normalize` from dL/dz: the gradient minus its parts along the mean and the variance."""
    x_gradient = grad - mean(grad, axes)
    along = grad * z
    x_gradient -= np.multiply(z, mean(along, axes), out=along)
    x_gradient *= scale
    return x_gradient


# A batch norm sees each sample as one long row, (N, places * C): NumPy takes as long for a row of 20 numbers as of 200.


def tiled(values: Array, samples: Array) -> Array:
    """The numbers of the channels, (C,), repeated along a whole sample."""
    places = samples.shape[1] // len(values)
    return values if places == 1 else np.tile(values, places)


def channel_sums(terms: Callable[[int, int], tuple[Array, ...]], samples: Array, channels: int) -> Array:
    """The sum of each of `terms` over all samples and places, for each channel, (terms, C); `terms(first, last)` gives
    them for a range of the samples."""
    found: list[tuple[int, list[Array]]] = []

    def add(first: int, last: int) -> None:
        one = ones(last - first, samples.dtype)
        found.append((first, [one.dot(term) for term in terms(first, last)]))

    parallel_rows(add, samples)
    # In the order of the samples, not in that in which the threads finished: the bits stay the same.
    totals = np.add.reduce([sums for _, sums in sorted(found, key=operator.itemgetter(0))], 0)
    return np.add.reduce(totals.reshape(len(totals), -1, channels), 1)


def batch_statistics(samples: Array, channels: int) -> tuple[Array, Array]:
    """Mean and biased variance of each channel over samples (N, places * C), in two passes."""
    n = samples.size // channels
    mean = channel_sums(lambda a, b: (samples[a:b],), samples, channels)[0] / n
    center = tiled(mean, samples)

    def deviations(first: int, last: int) -> tuple[Array, ...]:
        d = samples[first:last] - center
        return d, d * d

    # What rounding left of the mean: in many rows far from 0 it is more than the deviation.
    rest, variance = channel_sums(deviations, samples, channels) / n
    mean += rest
    return mean, np.maximum(variance - rest * rest, 0)


def batch_normalize(samples: Array, mean: Array, w: Array, b: Array | None, out: Array) -> None:
    """out = (samples - mean) w + b, with a mean, a w and a b for each channel, (C,); without b where it is None."""
    center, slope = tiled(mean, samples), tiled(w, samples)
    shift = None if b is None else tiled(b, samples)

    def normalise(first: int, last: int) -> None:
        z = np.subtract(samples[first:last], center, out=out[first:last])
        z *= slope
        if shift is not None:
            z += shift

    parallel_rows(normalise, samples)


def batch_gradient_sums(grad: Array, samples: Array, mean: Array) -> tuple[Array, Array]:
    """For each channel, the sum of the gradient and the sum of gradient times deviation from the mean, both (C,)."""
    center = tiled(mean, samples)
    sums, products = channel_sums(lambda a, b: (grad[a:b], grad[a:b] * (samples[a:b] - center)), samples, len(mean))
    return sums, products


def batch_normalize_backward(
    grad: Array, samples: Array, mean: Array, w: Array, through: tuple[Array, Array] | None, out: Array
) -> None:
    """out = dL/dx = w (grad - offset - (samples - mean) slope), where `through` is (offset, slope), all (C,).

    Offset and slope are the gradient through the mean and the variance; None if these do not depend on the batch.
    """
    center, factor = tiled(mean, samples), tiled(w, samples)
    offset, slope = (tiled(each, samples) for each in through or (mean, mean))

    def differentiate(first: int, last: int) -> None:
        part = out[first:last]
        if through is None:
            np.multiply(grad[first:last], factor, out=part)
            return
        np.subtract(samples[first:last], center, out=part)
        part *= slope
        part += offset
        np.subtract(grad[first:last], part, out=part)
        part *= factor

    parallel_rows(differentiate, samples)


# For losses --------------------------------------------------------------------------------------------------

_TINY = {np.dtype(each): np.array(np.finfo(each).tiny) for each in (np.float16, np.float32, np.float64)}


def tiny(x: Array) -> Array:
    """The smallest normal number of the array's dtype."""
    return _TINY[x.dtype]


def clip_to_finite(gradient: Array, scale: Any) -> Array:
    """A scale of 4 or more over the smallest normal number overflows: such gradients become the largest number."""
    if (scale if isinstance(scale, float) else np.max(scale)) > 1:
        largest = float(np.finfo(gradient.dtype).max)
        np.clip(gradient, -largest, largest, out=gradient)
    return gradient


@functools.lru_cache(maxsize=8)
def row_starts(count: int, step: int) -> Array:
    """0, step, 2 step, ...: where each row of `step` elements begins."""
    return np.arange(0, count * step, step)
