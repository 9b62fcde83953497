"""The kernels of convolution and pooling, over the windows of images (N, H, W, C).

In this file, in this order:
  windows      Axis: where the windows lie along one axis
  memory       reused
  convolution  correlate, transpose, weight_gradient
  depthwise    correlate_channels, channels_weight_gradient

How a convolution is computed: the windows of a few images become the rows of a matrix that stays in the cache
(im2col), and one product with the weights gives a few images of the output. Blocks of the batch go to several
threads, each with single-threaded BLAS. The matrix is not kept: backward computes it again.

Shapes in the docstrings: N images, B of them in a block, H W space, C channels, F filters, kh kw the height and width
of a window.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from layerwise.core import numeric, threads
from layerwise.core.parameters import aligned

Array = np.ndarray
Shape = tuple[int, ...]
Pair = tuple[int, int]

CACHE = 2**20  # bytes that one block works with: half of a core's L2 cache of 2 MB
FEWEST_ROWS = 192  # of the matrix of a block, even if it is then larger: with fewer, a product is slow
SMALL = 10**6  # multiplications; up to here OpenBLAS multiplies in place, without packing its matrices first
WORTH_THREADS = 4e6  # multiplications; below, another thread costs more than it saves


class Axis(NamedTuple):
    """Where windows lie along one axis: tap i of window o is at place offset + o * stride + i * step."""

    size: int  # places of the input; beyond them it is padded
    taps: int
    stride: int
    step: int
    offset: int  # minus the padding before
    outputs: int  # windows

    @property
    def reach(self) -> int:
        """How many places the windows cover together."""
        return (self.outputs - 1) * self.stride + (self.taps - 1) * self.step + 1

    def part(self, first: int, last: int) -> Axis:
        """The windows from `first` to `last`, which is not included."""
        return self._replace(offset=self.offset + first * self.stride, outputs=last - first)

    def inside(self) -> tuple[int, int]:
        """The range of covered places that are in the input and not in its padding, counted from the first covered."""
        low = min(max(-self.offset, 0), self.reach)
        return low, max(min(self.size - self.offset, self.reach), low)

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """For every tap: the windows in which it is inside the input, and its places in them."""
        for tap in range(self.taps):
            start = self.offset + tap * self.step
            low = min(max(-(start // self.stride), 0), self.outputs)
            high = max(min((self.size - 1 - start) // self.stride + 1, self.outputs), low)
            first = start + low * self.stride
            yield slice(low, high), slice(first, first + (high - low) * self.stride, self.stride)

    def reversed(self) -> Axis:
        """The windows of the transpose: one for each place of the input, over outputs with stride - 1 zeros between."""
        size = (self.outputs - 1) * self.stride + 1
        return Axis(size, self.taps, 1, self.step, -self.offset - (self.taps - 1) * self.step, self.size)


class _Own(threading.local):
    """The arrays of each thread."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, np.dtype], Array] = {}


_own = _Own()


def reused(name: str, shape: Shape, dtype: np.dtype) -> Array:
    """An array of this thread, its values undefined: the same memory at each call, so that it stays in the cache."""
    size = math.prod(shape)
    flat = _own.arrays.get((name, dtype))
    if flat is None or flat.size < size:
        flat = _own.arrays[name, dtype] = aligned((size,), dtype)
    return flat[:size].reshape(shape)


def _split(total: int, most: int) -> list[Pair]:
    """Split 0 .. total into ranges of nearly equal size, at most `most`; an even number of them, for two threads."""
    count = -(-total // most)
    count = min(count + count % 2, total) if count > 1 else count
    return [(total * k // count, total * (k + 1) // count) for k in range(count)]


def _blocks(images: int, rows: int, window_rows: int, row_bytes: int) -> list[tuple[int, int, int, int]]:
    """Blocks whose windows fit the cache, as (first image, last, first row, last): a few images, or some rows of one
    image where it is too large. A row of the output has `window_rows` windows."""
    fit = max(CACHE // (window_rows * row_bytes), -(-FEWEST_ROWS // window_rows))
    if fit < rows:
        return [(n, n + 1, *part) for n in range(images) for part in _split(rows, fit)]
    return [(*part, 0, rows) for part in _split(images, fit // rows)]


def _parallel_for(function: Callable[..., Any], blocks: Sequence[tuple[Any, ...]], work: float) -> None:
    """Call function(*block) for every block; in threads with single-threaded BLAS if there is enough `work`."""
    if work < WORTH_THREADS or len(blocks) < 2:
        threads.parallel_for(function, blocks, 1)
    else:
        with threads.single_blas() as single:
            threads.parallel_for(function, blocks, None if single else 1)


def _padded(x: Array, rows: Axis, columns: Axis) -> Array:
    """The places of x (B, H, W, C) that the windows cover, with zeros beyond its edges."""
    top, bottom = rows.inside()
    left, right = columns.inside()
    if (top, bottom, left, right) == (0, rows.reach, 0, columns.reach):
        return x[:, rows.offset : rows.offset + rows.reach, columns.offset : columns.offset + columns.reach]
    block = reused("padded", (len(x), rows.reach, columns.reach, x.shape[3]), x.dtype)
    block[:, :top] = block[:, bottom:] = 0
    block[:, top:bottom, :left] = block[:, top:bottom, right:] = 0
    block[:, top:bottom, left:right] = x[
        :, rows.offset + top : rows.offset + bottom, columns.offset + left : columns.offset + right
    ]
    return block


def _windows(block: Array, rows: Axis, columns: Axis, groups: int) -> Array:
    """A view of all windows of `_padded` images, (groups, B, rows, columns, kh, kw, C / groups)."""
    image, row, column, channel = block.strides
    depth = block.shape[3] // groups
    return as_strided(
        block,
        (groups, len(block), rows.outputs, columns.outputs, rows.taps, columns.taps, depth),
        (
            depth * channel,
            image,
            rows.stride * row,
            columns.stride * column,
            rows.step * row,
            columns.step * column,
            channel,
        ),
    )


def _columns(x: Array, rows: Axis, columns: Axis, groups: int) -> Array:
    """The windows as the rows of a matrix for each group, (groups, windows, kh * kw * C / groups)."""
    windows = _windows(_padded(x, rows, columns), rows, columns, groups)
    size = math.prod(windows.shape[4:])
    if windows.flags.c_contiguous:  # 1 by 1: x is that matrix
        return windows.reshape(groups, -1, size)
    if windows.shape[6] < 4:
        # With few channels a window has short contiguous runs, a row of the image long ones: a third of the time.
        turned = windows.transpose(0, 4, 5, 6, 1, 2, 3)
        matrix = reused("columns", turned.shape, x.dtype)
        np.copyto(matrix, turned)
        return matrix.reshape(groups, size, -1).swapaxes(1, 2)
    matrix = reused("columns", windows.shape, x.dtype)
    np.copyto(matrix, windows)
    return matrix.reshape(groups, -1, size)


def _by_group(x: Array, groups: int) -> Array:
    """The pixels as the rows of a matrix for each group of channels, a view: (groups, pixels, C / groups)."""
    return x.reshape(-1, groups, x.shape[-1] // groups).swapaxes(0, 1)


@functools.lru_cache
def _slice(rows: int, most: int) -> int:
    """The largest number of rows, at most `most`, that divides them; all of them where it would be below 8."""
    return next((size for size in range(min(rows, most), 7, -1) if rows % size == 0), rows)


def _multiply(a: Array, b: Array, out: Array) -> Array:
    """out = a b, of each group: (groups, M, K) by (groups, K, F).

    Some rows of a at a time, which saves OpenBLAS its copies: a fifth to a third of the time.
    """
    groups, rows, depth = a.shape
    size = _slice(rows, SMALL // (depth * b.shape[2]))
    np.matmul(a.reshape(groups, -1, size, depth), b[:, None], out=out.reshape(groups, -1, size, b.shape[2]))
    return out


def correlate(x: Array, w: Array, y: Array, rows: Axis, columns: Axis, b: Array | None = None) -> None:
    """y = b + the sum over taps i, j of x w[i, j], x where tap (i, j) of each window is.

    x (N, H, W, C), w (kh, kw, C / groups, F), y (N, rows, columns, F): the forward pass of a convolution, and dL/dx of
    a transposed one.
    """
    groups = x.shape[3] // w.shape[2]
    matrix = _by_group(w, groups)
    repeated = None if b is None else np.tile(b, columns.outputs)

    def run(first: int, last: int, top: int, bottom: int) -> None:
        part = y[first:last, top:bottom]
        _multiply(_columns(x[first:last], rows.part(top, bottom), columns, groups), matrix, _by_group(part, groups))
        if repeated is not None:  # a row of the image at a time: a third of the time of a pixel at a time
            lines = part.reshape(-1, repeated.size)
            lines += repeated

    blocks = _blocks(len(x), rows.outputs, columns.outputs, matrix.shape[1] * groups * w.itemsize)
    _parallel_for(run, blocks, y.size * matrix.shape[1])


def transpose(grad: Array, w: Array, x: Array, rows: Axis, columns: Axis, b: Array | None = None) -> None:
    """The transpose of `correlate` with the same w and windows: x = b + the sum of grad w over the windows of a place.

    grad (N, rows, columns, F), x (N, H, W, C): dL/dx from dL/dy, and the forward pass of a transposed convolution. One
    matrix product for each tap, added to the places of that tap.
    """
    taps, groups = w.shape[:2], x.shape[3] // w.shape[2]
    channels, filters = x.shape[3], grad.shape[3]
    matrices = np.ascontiguousarray(w.reshape(*taps, w.shape[2], groups, -1).transpose(0, 1, 3, 4, 2))
    start = 0 if b is None else b
    (top, bottom), (left, right) = rows.inside(), columns.inside()
    inside = (slice(rows.offset + top, rows.offset + bottom), slice(columns.offset + left, columns.offset + right))
    # NumPy adds arrays with gaps pixel by pixel, five times as slowly. With stride 1 there are no gaps if the rows of
    # grad are padded with zeros to the length of those of x.
    gapless = rows.stride == columns.stride == 1
    pitch = columns.reach if gapless else columns.outputs
    line = pitch * (2 * channels + filters) * x.itemsize  # bytes in use for a row of windows

    def run(first: int, last: int) -> None:
        n = last - first
        if (*taps, rows.reach, columns.reach) == (1, 1, *x.shape[1:3]) and gapless and b is None:  # one product is all
            _multiply(_by_group(grad[first:last], groups), matrices[0, 0], _by_group(x[first:last], groups))
            return
        block = reused("padded", (n, rows.reach, columns.reach, channels), x.dtype)
        block[...] = start
        for upper, lower in _split(rows.outputs, max(CACHE // (line * n), 1)):
            given = grad[first:last, upper:lower]
            if gapless and pitch > columns.outputs:
                given = reused("columns", (n, lower - upper, pitch, filters), x.dtype)
                given[:, :, columns.outputs :] = 0
                given[:, :, : columns.outputs] = grad[first:last, upper:lower]
            product = reused("product", (n, lower - upper, pitch, channels), x.dtype)
            for i, j in np.ndindex(taps):
                _multiply(_by_group(given, groups), matrices[i, j], _by_group(product, groups))
                row, column = upper * rows.stride + i * rows.step, j * columns.step
                if gapless:
                    size = ((lower - upper) * pitch - (columns.taps - 1) * columns.step) * channels
                    begin = (row * pitch + column) * channels
                    target = block.reshape(n, -1)[:, begin : begin + size]
                    target += product.reshape(n, -1)[:, :size]
                else:
                    target = block[:, row :: rows.stride, column :: columns.stride]
                    target[:, : lower - upper, :pitch] += product
        part = x[first:last, *inside]
        if part.shape[1:] != x.shape[1:]:
            x[first:last] = start
        part[...] = block[:, top:bottom, left:right]

    images = max(CACHE // (rows.outputs * line), 1)
    _parallel_for(run, _split(len(x), images) if len(x) else [], grad.size * w[..., 0].size)


def weight_gradient(
    x: Array, grad: Array, w_gradient: Array, rows: Axis, columns: Axis, b_gradient: Array | None = None
) -> None:
    """dL/dw of `correlate` from dL/dy, grad (N, rows, columns, F); and dL/db.

    The blocks are summed in a few shares, as many for any number of threads: the bits stay the same.
    """
    groups = x.shape[3] // w_gradient.shape[2]
    gradient = _by_group(w_gradient, groups)
    row_bytes = gradient.shape[1] * groups * x.itemsize
    blocks = _blocks(len(x), rows.outputs, columns.outputs, row_bytes)
    work = grad.size * gradient.shape[1]
    shares = 1 if work < WORTH_THREADS else max(2, min(8, 2**20 // gradient.size))
    totals = np.zeros((shares, *gradient.shape), x.dtype)
    bias = np.zeros((shares, grad.shape[3]), x.dtype)

    def share(total: Array, b_total: Array, blocks: list[tuple[int, int, int, int]]) -> None:
        for first, last, top, bottom in blocks:
            part = grad[first:last, top:bottom]
            block = _columns(x[first:last], rows.part(top, bottom), columns, groups)
            product = reused("product", total.shape, total.dtype)
            total += _multiply(block.swapaxes(1, 2), _by_group(part, groups), product)
            if b_gradient is not None:
                b_total += numeric.column_sums(part)

    own = [blocks[len(blocks) * k // shares : len(blocks) * (k + 1) // shares] for k in range(shares)]
    _parallel_for(share, list(zip(totals, bias, own, strict=True)), work)
    np.add.reduce(totals, 0, out=gradient)
    if b_gradient is not None:
        np.add.reduce(bias, 0, out=b_gradient)


# A depthwise convolution is no matrix product: each channel is summed over its own taps. einsum does so in one pass
# over x, with a row of the image as one long axis where the stride allows it.


def _lines(x: Array, rows: Axis, columns: Axis) -> Array:
    """A view of all windows as (B, rows, kh, kw, columns * C), or (..., columns, C) where the stride needs it."""
    x = _padded(x, rows, columns)
    image, row, column, channel = x.strides
    lead = (len(x), rows.outputs, rows.taps, columns.taps)
    strides = (image, rows.stride * row, rows.step * row, columns.step * column)
    if columns.stride == 1 and column == x.shape[3] * channel:
        return as_strided(x, (*lead, columns.outputs * x.shape[3]), (*strides, channel), writeable=False)
    shape = (*lead, columns.outputs, x.shape[3])
    return as_strided(x, shape, (*strides, columns.stride * column, channel), writeable=False)


def correlate_channels(x: Array, w: Array, y: Array, rows: Axis, columns: Axis, b: Array | None = None) -> None:
    """`correlate` of every channel with its own taps: w (kh, kw, 1, C), y (N, rows, columns, C)."""
    taps = np.repeat(w, columns.outputs, axis=2)  # (kh, kw, columns, C)

    def run(first: int, last: int) -> None:
        lines = _lines(x[first:last], rows, columns)
        out = y[first:last].reshape(*lines.shape[:2], *lines.shape[4:])
        np.einsum("brij...,ij...->br...", lines, taps.reshape(*w.shape[:2], *lines.shape[4:]), out=out)
        if b is not None:
            out += np.tile(b, columns.outputs).reshape(out.shape[2:])

    numeric.parallel_rows(run, x)


def channels_weight_gradient(x: Array, grad: Array, w_gradient: Array, rows: Axis, columns: Axis) -> None:
    """dL/dw of `correlate_channels`, summed in a few shares of the batch, as in `weight_gradient`."""
    shares = min(len(x), 1 if x.size < numeric.MANY else 16)
    totals = np.zeros((shares, *w_gradient.shape), x.dtype)

    def share(total: Array, first: int, last: int) -> None:
        lines = _lines(x[first:last], rows, columns)
        part = grad[first:last].reshape(*lines.shape[:2], *lines.shape[4:])
        for i, j in np.ndindex(*w_gradient.shape[:2]):
            sums = np.einsum("br...,br...->...", lines[:, :, i, j], part)
            np.add.reduce(sums.reshape(columns.outputs, -1), 0, out=total[i, j, 0])

    blocks = [(totals[k], len(x) * k // shares, len(x) * (k + 1) // shares) for k in range(shares)]
    threads.parallel_for(share, blocks, 1 if shares == 1 else None)
    np.add.reduce(totals, 0, out=w_gradient)
