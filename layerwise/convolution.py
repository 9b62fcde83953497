"""Convolution and pooling: layers for images (N, H, W, C) and sequences (N, T, C), channels last.

In this file, in this order:
  windows          Axis, and the kernels that run over the windows of an image
  convolution      Conv1D, Conv2D, ConvTranspose2D, DepthwiseConv2D
  pooling          MaxPool1D, MaxPool2D, AveragePool1D, AveragePool2D, GlobalAveragePool1D, GlobalAveragePool2D,
                   GlobalMaxPool1D, GlobalMaxPool2D
  shape and noise  ZeroPad2D, UpSample2D, SpatialDropout

How a convolution is computed: the windows of a few images become the rows of a matrix that stays in the cache
(im2col), and one product with the weights gives a few images of the output. Pieces of the batch go to several threads,
each with BLAS in one thread. Nothing of it is kept: backward makes the matrix again.

Shapes in the docstrings: N batch, H W space, T time, C channels, F filters, kh kw the height and width of a window.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from layerwise import layers, threads

Array = np.ndarray
Shape = tuple[int, ...]
Pair = tuple[int, int]

CACHE = 2**20  # bytes that one piece works with: half of the L2 cache of a core, where that is of 2 MB
FEWEST_ROWS = 192  # that it has all the same: with fewer, a product is slow
SMALL = 10**6  # multiplications; up to here OpenBLAS takes its matrices as they lie, without a copy for the cache
WORTH_THREADS = 4e6  # multiplications; below, handing over to another thread costs more than it brings


# Windows -----------------------------------------------------------------------------------------------------


class Axis(NamedTuple):
    """How windows lie along one axis: tap i of window o is at place offset + o * stride + i * step."""

    size: int  # places of the input; beyond them it is padded
    taps: int
    stride: int
    step: int
    offset: int  # minus the padding before
    outputs: int  # windows

    @property
    def reach(self) -> int:
        """How many places all windows cover together."""
        return (self.outputs - 1) * self.stride + (self.taps - 1) * self.step + 1

    def part(self, first: int, last: int) -> Axis:
        """The windows from `first` up to, not including, `last`."""
        return self._replace(offset=self.offset + first * self.stride, outputs=last - first)

    def inside(self) -> tuple[int, int]:
        """Which of the covered places, counted from the first of them, are of the input."""
        low = min(max(-self.offset, 0), self.reach)
        return low, max(min(self.size - self.offset, self.reach), low)

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """For every tap the windows in which it is inside the input, and the places that it then has."""
        for tap in range(self.taps):
            start = self.offset + tap * self.step
            low = min(max(-(start // self.stride), 0), self.outputs)
            high = max(min((self.size - 1 - start) // self.stride + 1, self.outputs), low)
            first = start + low * self.stride
            yield slice(low, high), slice(first, first + (high - low) * self.stride, self.stride)

    def reversed(self) -> Axis:
        """The transpose, for outputs with stride - 1 zeros between them: the windows of the places of the input."""
        size = (self.outputs - 1) * self.stride + 1
        return Axis(size, self.taps, 1, self.step, -self.offset - (self.taps - 1) * self.step, self.size)


class _Own(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, np.dtype], Array] = {}


_own = _Own()


def _lend(what: str, shape: Shape, dtype: np.dtype) -> Array:
    """An array of this thread's own, values undefined, the same memory each time: it stays in the cache."""
    size = math.prod(shape)
    flat = _own.arrays.get((what, dtype))
    if flat is None or flat.size < size:
        flat = _own.arrays[what, dtype] = layers.aligned((size,), dtype)
    return flat[:size].reshape(shape)


def _parts(total: int, most: int) -> list[Pair]:
    """0 .. total in parts of at most that many, of nearly equal size, and an even number of them for two threads."""
    count = -(-total // most)
    count = min(count + count % 2, total) if count > 1 else count
    return [(total * k // count, total * (k + 1) // count) for k in range(count)]


def _pieces(images: int, rows: int, window_rows: int, row_bytes: int) -> list[tuple[int, int, int, int]]:
    """(first image, last, first row, last) of pieces whose windows stay in the cache: a few images, or, where one is
    too large, some rows of one. `window_rows` windows are in a row of the output."""
    fit = max(CACHE // (window_rows * row_bytes), -(-FEWEST_ROWS // window_rows))
    if fit < rows:
        return [(n, n + 1, *part) for n in range(images) for part in _parts(rows, fit)]
    return [(*part, 0, rows) for part in _parts(images, fit // rows)]


def _over(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]], work: float) -> None:
    """Do every piece, in threads with BLAS in one each, where `work` is worth it."""
    if work < WORTH_THREADS or len(pieces) < 2:
        threads.over(function, pieces, 1)
    else:
        with threads.single_blas() as single:
            threads.over(function, pieces, None if single else 1)


def _padded(x: Array, rows: Axis, columns: Axis) -> Array:
    """The places of x (B, H, W, C) that the windows cover, with zeros beyond its edges."""
    top, bottom = rows.inside()
    left, right = columns.inside()
    if (top, bottom, left, right) == (0, rows.reach, 0, columns.reach):
        return x[:, rows.offset : rows.offset + rows.reach, columns.offset : columns.offset + columns.reach]
    block = _lend("padded", (len(x), rows.reach, columns.reach, x.shape[3]), x.dtype)
    block[:, :top] = block[:, bottom:] = 0
    block[:, top:bottom, :left] = block[:, top:bottom, right:] = 0
    block[:, top:bottom, left:right] = x[
        :, rows.offset + top : rows.offset + bottom, columns.offset + left : columns.offset + right
    ]
    return block


def _windows(block: Array, rows: Axis, columns: Axis, groups: int) -> Array:
    """A view of all windows on what they cover, (groups, B, rows, columns, kh, kw, C / groups)."""
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
        # With few channels the runs of a window are short, those of a row of the image are long: a third of the time.
        turned = windows.transpose(0, 4, 5, 6, 1, 2, 3)
        matrix = _lend("columns", turned.shape, x.dtype)
        np.copyto(matrix, turned)
        return matrix.reshape(groups, size, -1).swapaxes(1, 2)
    matrix = _lend("columns", windows.shape, x.dtype)
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

    def piece(first: int, last: int, top: int, bottom: int) -> None:
        part = y[first:last, top:bottom]
        _multiply(_columns(x[first:last], rows.part(top, bottom), columns, groups), matrix, _by_group(part, groups))
        if repeated is not None:  # a row of the image at a time: a third of the time of a pixel at a time
            lines = part.reshape(-1, repeated.size)
            lines += repeated

    pieces = _pieces(len(x), rows.outputs, columns.outputs, matrix.shape[1] * groups * w.itemsize)
    _over(piece, pieces, y.size * matrix.shape[1])


def transpose(grad: Array, w: Array, x: Array, rows: Axis, columns: Axis, b: Array | None = None) -> None:
    """The transpose of `correlate` with the same w and windows: x = b + the sum of grad w over the windows of a place.

    grad (N, rows, columns, F), x (N, H, W, C): dL/dx from dL/dy, and the forward pass of a transposed convolution. A
    product for each tap, which is added where the tap has been.
    """
    taps, groups = w.shape[:2], x.shape[3] // w.shape[2]
    channels, filters = x.shape[3], grad.shape[3]
    matrices = np.ascontiguousarray(w.reshape(*taps, w.shape[2], groups, -1).transpose(0, 1, 3, 4, 2))
    start = 0 if b is None else b
    (top, bottom), (left, right) = rows.inside(), columns.inside()
    inside = (slice(rows.offset + top, rows.offset + bottom), slice(columns.offset + left, columns.offset + right))
    # NumPy adds what has gaps pixel by pixel, five times as slowly. With stride 1 there are none, if the rows of grad
    # are made as long as those of x, by zeros at their ends.
    gapless = rows.stride == columns.stride == 1
    pitch = columns.reach if gapless else columns.outputs
    line = pitch * (2 * channels + filters) * x.itemsize  # bytes in use for a row of windows

    def piece(first: int, last: int) -> None:
        n = last - first
        if (*taps, rows.reach, columns.reach) == (1, 1, *x.shape[1:3]) and gapless and b is None:  # one product is all
            _multiply(_by_group(grad[first:last], groups), matrices[0, 0], _by_group(x[first:last], groups))
            return
        block = _lend("padded", (n, rows.reach, columns.reach, channels), x.dtype)
        block[...] = start
        for upper, lower in _parts(rows.outputs, max(CACHE // (line * n), 1)):
            given = grad[first:last, upper:lower]
            if gapless and pitch > columns.outputs:
                given = _lend("columns", (n, lower - upper, pitch, filters), x.dtype)
                given[:, :, columns.outputs :] = 0
                given[:, :, : columns.outputs] = grad[first:last, upper:lower]
            product = _lend("product", (n, lower - upper, pitch, channels), x.dtype)
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
    _over(piece, _parts(len(x), images) if len(x) else [], grad.size * w[..., 0].size)


def weight_gradient(
    x: Array, grad: Array, w_gradient: Array, rows: Axis, columns: Axis, b_gradient: Array | None = None
) -> None:
    """dL/dw of `correlate` from dL/dy, grad (N, rows, columns, F); and dL/db.

    The pieces are summed in a few shares, whose number does not depend on that of the threads: the same bits always.
    """
    groups = x.shape[3] // w_gradient.shape[2]
    gradient = _by_group(w_gradient, groups)
    row_bytes = gradient.shape[1] * groups * x.itemsize
    pieces = _pieces(len(x), rows.outputs, columns.outputs, row_bytes)
    work = grad.size * gradient.shape[1]
    shares = 1 if work < WORTH_THREADS else max(2, min(8, 2**20 // gradient.size))
    totals = np.zeros((shares, *gradient.shape), x.dtype)
    bias = np.zeros((shares, grad.shape[3]), x.dtype)

    def share(total: Array, b_total: Array, pieces: list[tuple[int, int, int, int]]) -> None:
        for first, last, top, bottom in pieces:
            part = grad[first:last, top:bottom]
            block = _columns(x[first:last], rows.part(top, bottom), columns, groups)
            product = _lend("product", total.shape, total.dtype)
            total += _multiply(block.swapaxes(1, 2), _by_group(part, groups), product)
            if b_gradient is not None:
                b_total += _column_sums(part)

    own = [pieces[len(pieces) * k // shares : len(pieces) * (k + 1) // shares] for k in range(shares)]
    _over(share, list(zip(totals, bias, own, strict=True)), work)
    np.add.reduce(totals, 0, out=gradient)
    if b_gradient is not None:
        np.add.reduce(bias, 0, out=b_gradient)


def _column_sums(x: Array) -> Array:
    """Sums over all axes but the last, by a product with ones."""
    rows = x.reshape(-1, x.shape[-1])
    return layers._ones(len(rows), x.dtype).dot(rows)


# A depthwise convolution has no product of matrices: of each channel the taps are summed by themselves. einsum does it
# in one pass over x; with a row of the image as one long axis where the stride allows.


def _lines(x: Array, rows: Axis, columns: Axis) -> Array:
    """A view of all windows as (B, rows, kh, kw, columns * C), or with the last two apart where they must be."""
    x = _padded(x, rows, columns)
    image, row, column, channel = x.strides
    lead = (len(x), rows.outputs, rows.taps, columns.taps)
    strides = (image, rows.stride * row, rows.step * row, columns.step * column)
    if columns.stride == 1 and column == x.shape[3] * channel:
        return as_strided(x, (*lead, columns.outputs * x.shape[3]), (*strides, channel), writeable=False)
    shape = (*lead, columns.outputs, x.shape[3])
    return as_strided(x, shape, (*strides, columns.stride * column, channel), writeable=False)


def _correlate_channels(x: Array, w: Array, y: Array, rows: Axis, columns: Axis, b: Array | None = None) -> None:
    """`correlate` of every channel with its own taps: w (kh, kw, 1, C), y (N, rows, columns, C)."""
    taps = np.repeat(w, columns.outputs, axis=2)  # (kh, kw, columns, C)

    def piece(first: int, last: int) -> None:
        lines = _lines(x[first:last], rows, columns)
        out = y[first:last].reshape(*lines.shape[:2], *lines.shape[4:])
        np.einsum("brij...,ij...->br...", lines, taps.reshape(*w.shape[:2], *lines.shape[4:]), out=out)
        if b is not None:
            out += np.tile(b, columns.outputs).reshape(out.shape[2:])

    layers._in_parts(piece, x)


def _channels_weight_gradient(x: Array, grad: Array, w_gradient: Array, rows: Axis, columns: Axis) -> None:
    """dL/dw of `_correlate_channels`; a few shares of the batch, as in `weight_gradient`."""
    shares = min(len(x), 1 if x.size < layers.MANY else 16)
    totals = np.zeros((shares, *w_gradient.shape), x.dtype)

    def share(total: Array, first: int, last: int) -> None:
        lines = _lines(x[first:last], rows, columns)
        part = grad[first:last].reshape(*lines.shape[:2], *lines.shape[4:])
        for i, j in np.ndindex(*w_gradient.shape[:2]):
            sums = np.einsum("br...,br...->...", lines[:, :, i, j], part)
            np.add.reduce(sums.reshape(columns.outputs, -1), 0, out=total[i, j, 0])

    pieces = [(totals[k], len(x) * k // shares, len(x) * (k + 1) // shares) for k in range(shares)]
    threads.over(share, pieces, 1 if shares == 1 else None)
    np.add.reduce(totals, 0, out=w_gradient)


# Arguments ---------------------------------------------------------------------------------------------------


def _pair(name: str, value: Any, least: int = 1) -> Pair:
    """One integer for both axes, or a pair."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(isinstance(v, bool) or not hasattr(v, "__index__") or v < least for v in pair):
        kind = "a positive integer" if least == 1 else "an integer, 0 or more,"
        raise ValueError(f"{name} is {kind} or a pair of them, got {value!r}.")
    return operator.index(pair[0]), operator.index(pair[1])


def _plain(value: Any) -> Any:
    """An argument as it is kept, and saved: Python's numbers, a tuple of them, or what it is."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return operator.index(value) if hasattr(value, "__index__") else value


class Windowed(layers.Layer):
    """What the layers with windows share: their arguments, and how the windows lie on an input.

    A layer for sequences takes (T, C) as an image (T, 1, C), and its windows are 1 wide.
    """

    axes = 2

    def _lay(self, size: str, stride: Any, padding: Any, dilation: Any = 1) -> None:
        """Check how the windows lie; `size` names the argument that has their size."""
        self._size = self._both(size, getattr(self, size))
        self._stride, self._dilation = self._both("stride", stride), self._both("dilation", dilation)
        if isinstance(padding, str) and padding in ("valid", "same"):
            self._padding: Any = padding
        else:
            try:
                self._padding = self._both("padding", padding, 0)
            except ValueError:
                numbers = "or an integer, 0 or more" + (", or a pair of them" if self.axes == 2 else "")
                raise ValueError(f'padding is "valid", "same" {numbers}, got {padding!r}.') from None

    def _both(self, name: str, value: Any, least: int = 1) -> Pair:
        """Of an argument the numbers for rows and columns; time goes by rows."""
        if self.axes == 2:
            return _pair(name, value, least)
        if isinstance(value, (tuple, list)):
            raise ValueError(f"{name} is one integer for sequences, got {value!r}.")
        return _pair(name, value, least)[0], least

    def _check(self, input_shape: Shape, channels: int | None = None) -> None:
        """ValueError unless these are images (or sequences), with so many channels where that is known."""
        axes = ("time, channels", "height, width, channels")[self.axes - 1]
        told = f"got inputs of shape {input_shape} (without the batch axis)"
        if len(input_shape) != self.axes + 1:
            kind = ("sequences", "images")[self.axes - 1]
            one_short = len(input_shape) == self.axes
            hint = "with one channel, give x[..., None]" if one_short else f"put Reshape(({axes})) before it"
            raise ValueError(f"{self.label} takes {kind} of shape ({axes}), {told}: {hint}.")
        if channels is not None and input_shape[-1] != channels:
            raise ValueError(f"{self.label} takes {channels} channels, the last axis, {told}.")

    def _axes_on(self, input_shape: Shape) -> tuple[Axis, Axis]:
        """How the windows lie on inputs of this shape; ValueError where not one fits."""
        sizes = input_shape[:2] if self.axes == 2 else (input_shape[0], 1)
        rows, columns = (self._axis(place, size) for place, size in enumerate(sizes))
        if rows.outputs < 1 or columns.outputs < 1:
            windows = tuple((a.taps - 1) * a.step + 1 for a in (rows, columns))[: self.axes]
            raise ValueError(
                f"{self.label} has windows of {' by '.join(map(str, windows))}, larger than its inputs of shape "
                f'{input_shape} with their padding: choose smaller windows, or padding="same".'
            )
        return rows, columns

    def _axis(self, place: int, size: int) -> Axis:
        taps, stride, step = self._size[place], self._stride[place], self._dilation[place]
        span = (taps - 1) * step + 1
        if self._padding == "same":
            outputs = -(-size // stride)
            before = max((outputs - 1) * stride + span - size, 0) // 2
        else:
            before = 0 if self._padding == "valid" else self._padding[place]
            outputs = (size + 2 * before - span) // stride + 1
        return Axis(size, taps, stride, step, -before, outputs)

    def _image(self, x: Array) -> Array:
        return x if self.axes == 2 else x[:, :, None]

    def _shape_of(self, rows: Axis, columns: Axis, channels: int) -> Shape:
        return (rows.outputs, columns.outputs, channels) if self.axes == 2 else (rows.outputs, channels)

    def _given(self, grad: Array) -> Array:
        return self._image(np.ascontiguousarray(grad, self.dtype))


# Convolution -------------------------------------------------------------------------------------------------


class Convolution(Windowed):
    """What the convolutions share; `Conv2D` tells of the arguments."""

    threaded = True
    kept: Array

    def _weigh(self, kernel_size: Any, stride: Any, padding: Any, dilation: Any, bias: bool, init: Any) -> None:
        """Check and keep the arguments that all convolutions have."""
        self.kernel_size, self.stride, self.padding, self.dilation = map(
            _plain, (kernel_size, stride, padding, dilation)
        )
        self._lay("kernel_size", stride, padding, dilation)
        self.bias = bool(bias)
        self.init = init
        layers._weights(init)


class Conv2D(Convolution):
    """y = b + the sum over the window's places and its channels of x w; x (N, H, W, C), y (N, H', W', F), F = filters.

    w (kh, kw, C / groups, F) starts uniform in +-1/sqrt(kh kw C / groups), b (F,) at 0; `init` as in Linear. PyTorch
    stores w as (F, C / groups, kh, kw), and draws b too; Keras starts with "glorot".

    kernel_size, stride, dilation   an integer, or a pair for height and width
    padding   zeros around the image: "valid" none; "same" so many that H' is H / stride rounded up, the odd one at
              the end, as in Keras (PyTorch: stride 1 only); or a number for every side, or a pair, as in PyTorch
    groups    the channels in so many groups, each of which gives filters / groups channels of y

    ValueError for an input that is no image or smaller than a window, and for groups that do not divide the channels.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        init: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.filters = layers._count("filters", filters)
        self.groups = layers._count("groups", groups)
        if self.filters % self.groups:
            raise ValueError(f"filters is a multiple of groups, got filters={filters!r} and groups={groups!r}.")
        self._weigh(kernel_size, stride, padding, dilation, bias, init)

    def setup(self, input_shape: Shape) -> None:
        shape = (*self._size[: self.axes], input_shape[-1] // self.groups, self.filters)
        self.add_parameter("w", shape, layers._weights(self.init))
        if self.bias:
            self.add_parameter("b", (self.filters,))

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape, None if self.w is None else self.w.shape[-2] * self.groups)
        if input_shape[-1] % self.groups:
            raise ValueError(
                f"{self.label} splits the channels into {self.groups} groups of one size, got {input_shape[-1]} "
                f"channels: choose groups that divide them."
            )
        return self._shape_of(*self._axes_on(input_shape), self.filters)

    def _kernel(self, w: Array) -> Array:
        return w if self.axes == 2 else w[:, None]

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        rows, columns = self._axes_on(x.shape[1:])
        y = self.empty((len(x), *self._shape_of(rows, columns, self.filters)))
        correlate(self._image(x), self._kernel(self.w), self._image(y), rows, columns, self.b)
        return y

    def backward(self, grad: Array) -> Array | None:
        x, grad = self.kept, self._given(grad)
        rows, columns = self._axes_on(x.shape[1:])
        weight_gradient(self._image(x), grad, self._kernel(self.w_gradient), rows, columns, self.b_gradient)
        if not self.input_gradient_needed:
            return None
        x_gradient = self.empty(x.shape)
        transpose(grad, self._kernel(self.w), self._image(x_gradient), rows, columns)
        return x_gradient


class Conv1D(Conv2D):
    """The same over time: x (N, T, C), y (N, T', F), w (kernel_size, C / groups, F)."""

    axes = 1


class DepthwiseConv2D(Convolution):
    """Each channel by itself: y[..., c m + k] = b + the sum over the window's places of x[..., c] w[..., c, k].

    x (N, H, W, C), y (N, H', W', C m), m = multiplier; w (kh, kw, C, m), b (C m,). As Conv2D with groups=C, whose other
    arguments it takes, but faster. As in Keras, where w starts otherwise: here uniform in +-1/sqrt(kh kw).
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        multiplier: int = 1,
        bias: bool = True,
        init: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.multiplier = layers._count("multiplier", multiplier)
        self._weigh(kernel_size, stride, padding, dilation, bias, init)

    def setup(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        initial = layers._weights(self.init)
        if initial in (layers.uniform_fan_in, *layers.INITIALISERS.values()):
            # One output sums over kh * kw inputs, which the last two axes of w's own shape would hide.
            chosen, flat = initial, (*self._size, 1, channels * self.multiplier)
            initial = lambda shape, rng: chosen(flat, rng).reshape(shape)  # noqa: E731
        self.add_parameter("w", (*self._size, channels, self.multiplier), initial)
        if self.bias:
            self.add_parameter("b", (channels * self.multiplier,))

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape, None if self.w is None else self.w.shape[2])
        return self._shape_of(*self._axes_on(input_shape), input_shape[-1] * self.multiplier)

    def _taps(self, w: Array) -> Array:
        return w.reshape(*w.shape[:2], 1, -1)

    def _repeated(self, x: Array) -> Array:
        return x if self.multiplier == 1 else np.repeat(x, self.multiplier, axis=3)

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        rows, columns = self._axes_on(x.shape[1:])
        x = self._repeated(x)
        y = self.empty((len(x), rows.outputs, columns.outputs, x.shape[3]))
        _correlate_channels(x, self._taps(self.w), y, rows, columns, self.b)
        return y

    def backward(self, grad: Array) -> Array | None:
        x, grad = self.kept, self._given(grad)
        rows, columns = self._axes_on(x.shape[1:])
        _channels_weight_gradient(self._repeated(x), grad, self._taps(self.w_gradient), rows, columns)
        if self.bias:
            self.b_gradient[...] = _column_sums(grad)
        if not self.input_gradient_needed:
            return None
        x_gradient = self.empty((*x.shape[:3], grad.shape[3]))
        # With zeros between the places of grad, where a stride is above 1, it is a correlation with reversed taps.
        down, across = rows.reversed(), columns.reversed()
        if rows.stride > 1 or columns.stride > 1:
            grad, sparse = np.zeros((len(x), down.size, across.size, grad.shape[3]), self.dtype), grad
            grad[:, :: rows.stride, :: columns.stride] = sparse
        _correlate_channels(grad, self._taps(self.w)[::-1, ::-1], x_gradient, down, across)
        if self.multiplier > 1:
            return np.add.reduce(x_gradient.reshape(*x.shape, self.multiplier), 4, out=self.empty(x.shape))
        return x_gradient


class ConvTranspose2D(Convolution):
    """The transpose of a Conv2D of F to C channels: each pixel of x (N, H, W, C) adds its channels times w to a window
    of y (N, H', W', F), F = filters. The windows lie `stride` apart, so that y is larger than x.

    w (kh, kw, F, C) as in Keras, and starts uniform in +-1/sqrt(kh kw F) as in PyTorch, where it is (C, F, kh, kw).
    H' = (H - 1) stride + dilation (kh - 1) + 1 for padding "valid", 2 p less for an integer p, which cuts off what lies
    in the padding, as in PyTorch; H' = H stride for "same", as in Keras. Arguments as in Conv2D.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        bias: bool = True,
        init: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.filters = layers._count("filters", filters)
        self._weigh(kernel_size, stride, padding, dilation, bias, init)

    def setup(self, input_shape: Shape) -> None:
        self.add_parameter("w", (*self._size, self.filters, input_shape[-1]), layers._weights(self.init))
        if self.bias:
            self.add_parameter("b", (self.filters,))

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape, None if self.w is None else self.w.shape[3])
        rows, columns = self._axes_on(input_shape)
        if rows.size < 1 or columns.size < 1:
            raise ValueError(
                f"{self.label} cuts off {self.padding} on every side, and nothing is left of inputs of shape "
                f"{input_shape}: choose a smaller padding."
            )
        return rows.size, columns.size, self.filters

    def _axis(self, place: int, size: int) -> Axis:
        """The windows on the output, of which each has one place of the input: of the Conv2D that this transposes."""
        taps, stride, step = self._size[place], self._stride[place], self._dilation[place]
        span = (taps - 1) * step + 1
        if self._padding == "same":
            return Axis(size * stride, taps, stride, step, -(max(span - stride, 0) // 2), size)
        before = 0 if self._padding == "valid" else self._padding[place]
        return Axis((size - 1) * stride + span - 2 * before, taps, stride, step, -before, size)

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        rows, columns = self._axes_on(x.shape[1:])
        y = self.empty((len(x), rows.size, columns.size, self.filters))
        transpose(x, self.w, y, rows, columns, self.b)
        return y

    def backward(self, grad: Array) -> Array | None:
        x, grad = self.kept, self._given(grad)
        rows, columns = self._axes_on(x.shape[1:])
        weight_gradient(grad, x, self.w_gradient, rows, columns)
        if self.bias:
            self.b_gradient[...] = _column_sums(grad)
        if not self.input_gradient_needed:
            return None
        x_gradient = self.empty(x.shape)
        correlate(grad, self.w, x_gradient, rows, columns)
        return x_gradient


# Pooling -----------------------------------------------------------------------------------------------------


def _taps(rows: Axis, columns: Axis) -> Iterator[tuple[Any, Any]]:
    """For every tap, row by row, the windows in which it is inside the image, and the places that it then has."""
    for (windows, places), (across, places_across) in itertools.product(rows.slices(), columns.slices()):
        yield (slice(None), windows, across), (slice(None), places, places_across)


class Pool(Windowed):
    """What the poolings share; `MaxPool2D` tells of the arguments."""

    def __init__(self, size: Any = 2, stride: Any = None, padding: Any = "valid", name: str | None = None) -> None:
        super().__init__(name)
        self.size, self.stride, self.padding = map(_plain, (size, stride, padding))
        self._lay("size", size if stride is None else stride, padding)
        if self._padding not in ("valid", "same") and any(
            2 * p > s for p, s in zip(self._padding, self._size, strict=True)
        ):
            raise ValueError(
                f"padding is at most half of size, so that every window holds a part of the image, got "
                f"padding={padding!r} and size={size!r}."
            )

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape)
        return self._shape_of(*self._axes_on(input_shape), input_shape[-1])

    def forward(self, x: Array, training: bool) -> Array:
        rows, columns = self._axes_on(x.shape[1:])
        y = self.empty((len(x), *self._shape_of(rows, columns, x.shape[-1])))
        self.kept = x, y
        image, result = self._image(x), self._image(y)
        layers._in_parts(lambda first, last: self._pool(image[first:last], result[first:last], rows, columns), image)
        return y

    def backward(self, grad: Array) -> Array:
        x, y = self.kept
        rows, columns = self._axes_on(x.shape[1:])
        x_gradient = self.empty(x.shape)
        given, image, result, out = self._given(grad), self._image(x), self._image(y), self._image(x_gradient)

        def piece(first: int, last: int) -> None:
            part = slice(first, last)
            self._pool_backward(given[part], image[part], result[part], out[part], rows, columns)

        layers._in_parts(piece, image)
        return x_gradient

    def _pool(self, x: Array, y: Array, rows: Axis, columns: Axis) -> None:
        """Fill y with what the windows of some images give."""
        raise TypeError(f"{type(self).__name__} has no _pool(self, x, y, rows, columns): write it.")

    def _pool_backward(self, grad: Array, x: Array, y: Array, x_gradient: Array, rows: Axis, columns: Axis) -> None:
        """Fill x_gradient for the same images from dL/dy."""
        raise TypeError(f"{type(self).__name__} has no _pool_backward(self, grad, ...): write it.")


class MaxPool2D(Pool):
    """The largest of each window, channel by channel: x (N, H, W, C), y (N, H', W', C).

    size, stride   an integer or a pair; stride=None is the size
    padding        "valid", "same", an integer or a pair as in Conv2D; what is padded is never the largest

    Of equal largest the first, row by row, gets the gradient, as in PyTorch.
    """

    def _pool(self, x: Array, y: Array, rows: Axis, columns: Axis) -> None:
        y.fill(-np.inf)
        for windows, places in _taps(rows, columns):
            np.maximum(y[windows], x[places], out=y[windows])

    def _pool_backward(self, grad: Array, x: Array, y: Array, x_gradient: Array, rows: Axis, columns: Axis) -> None:
        left = _lend("left", grad.shape, grad.dtype)  # what no tap has taken yet
        left[...] = grad
        # Where each place is in one window, there is nothing to add up: a third less time.
        tiled = all(a.taps == a.stride and a.offset == 0 and a.size == a.taps * a.outputs for a in (rows, columns))
        if not tiled:
            x_gradient.fill(0)
        *taps, (last, last_places) = _taps(rows, columns)
        for windows, places in taps:
            part = left[windows]
            largest = np.equal(x[places], y[windows], out=_lend("largest", part.shape, np.dtype(bool)))
            given = np.multiply(part, largest, out=_lend("given", part.shape, part.dtype))
            if tiled:
                x_gradient[places] = given
            else:
                x_gradient[places] += given
            part -= given
        x_gradient[last_places] = left[last] if tiled else x_gradient[last_places] + left[last]


class MaxPool1D(MaxPool2D):
    """The same over time: x (N, T, C), y (N, T', C)."""

    axes = 1


class AveragePool2D(Pool):
    """The mean of each window, channel by channel: x (N, H, W, C), y (N, H', W', C); arguments as in MaxPool2D.

    What is padded is not counted, as in Keras (PyTorch counts it as 0, unless count_include_pad=False).
    """

    def _weight(self, rows: Axis, columns: Axis) -> Array:
        """1 / the number of places of each window that are inside, (1, rows, columns, 1)."""
        count = np.zeros((1, rows.outputs, columns.outputs, 1), self.dtype)
        for windows, _ in _taps(rows, columns):
            count[windows] += 1
        return 1 / count

    def _pool(self, x: Array, y: Array, rows: Axis, columns: Axis) -> None:
        y.fill(0)
        for windows, places in _taps(rows, columns):
            y[windows] += x[places]
        y *= self._weight(rows, columns)

    def _pool_backward(self, grad: Array, x: Array, y: Array, x_gradient: Array, rows: Axis, columns: Axis) -> None:
        share = np.multiply(grad, self._weight(rows, columns), out=_lend("left", grad.shape, grad.dtype))
        x_gradient.fill(0)
        for windows, places in _taps(rows, columns):
            x_gradient[places] += share[windows]


class AveragePool1D(AveragePool2D):
    """The same over time: x (N, T, C), y (N, T', C)."""

    axes = 1


class GlobalPool(Windowed):
    """What the global poolings share: one number for each channel, x (N, H, W, C), y (N, C)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape)
        return input_shape[-1:]

    def _pixels(self, x: Array) -> Array:
        return x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])


class GlobalAveragePool2D(GlobalPool):
    """The mean of each channel over the image: x (N, H, W, C), y (N, C)."""

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x.shape
        return np.mean(self._pixels(x), 1, out=self.empty((len(x), x.shape[-1])))

    def backward(self, grad: Array) -> Array:
        x_gradient = self.empty(self.kept)
        pixels = self._pixels(x_gradient)
        pixels[...] = (grad * (1 / pixels.shape[1]))[:, None]
        return x_gradient


class GlobalAveragePool1D(GlobalAveragePool2D):
    """The mean of each channel over time: x (N, T, C), y (N, C)."""

    axes = 1


class GlobalMaxPool2D(GlobalPool):
    """The largest of each channel over the image, on ties the first: x (N, H, W, C), y (N, C)."""

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        return np.maximum.reduce(self._pixels(x), 1, out=self.empty((len(x), x.shape[-1])))

    def backward(self, grad: Array) -> Array:
        x = self.kept
        x_gradient = self.empty(x.shape)
        x_gradient.fill(0)
        largest = self._pixels(x).argmax(1)[:, None]
        np.put_along_axis(self._pixels(x_gradient), largest, grad[:, None], 1)
        return x_gradient


class GlobalMaxPool1D(GlobalMaxPool2D):
    """The largest of each channel over time, on ties the first: x (N, T, C), y (N, C)."""

    axes = 1


# Shape and noise ---------------------------------------------------------------------------------------------


class ZeroPad2D(Windowed):
    """Zeros around each image. `padding` is a number for every side, a pair for height and width, or a pair of pairs,
    ((top, bottom), (left, right)), as in Keras."""

    def __init__(self, padding: Any = 1, name: str | None = None) -> None:
        super().__init__(name)
        sides = padding if isinstance(padding, (tuple, list)) else (padding, padding)
        try:
            rows, columns = (_pair("padding", side, 0) for side in sides)
        except ValueError:
            raise ValueError(
                f"padding is an integer, 0 or more, a pair of them, or a pair of pairs, got {padding!r}."
            ) from None
        self.padding = _plain(padding)
        self._sides = rows, columns

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape)
        height, width = (size + sum(sides) for size, sides in zip(input_shape, self._sides, strict=False))
        return height, width, input_shape[-1]

    def _inner(self, y: Array) -> Array:
        (top, bottom), (left, right) = self._sides
        return y[:, top : y.shape[1] - bottom, left : y.shape[2] - right]

    def forward(self, x: Array, training: bool) -> Array:
        y = self.empty((len(x), *self.output_shape(x.shape[1:])))
        y.fill(0)
        self._inner(y)[...] = x
        return y

    def backward(self, grad: Array) -> Array:
        inner = self._inner(grad)
        x_gradient = self.empty(inner.shape)
        x_gradient[...] = inner
        return x_gradient


class UpSample2D(Windowed):
    """Every pixel repeated: x (N, H, W, C), y (N, H factor, W factor, C); `factor` an integer or a pair."""

    def __init__(self, factor: Any = 2, name: str | None = None) -> None:
        super().__init__(name)
        self._factors = _pair("factor", factor)
        self.factor = _plain(factor)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape)
        return input_shape[0] * self._factors[0], input_shape[1] * self._factors[1], input_shape[2]

    def _apart(self, y: Array) -> Array:
        """(N, H', W', C) as (N, H, factor, W, factor, C)."""
        (down, across), (n, height, width, channels) = self._factors, y.shape
        return y.reshape(n, height // down, down, width // across, across, channels)

    def forward(self, x: Array, training: bool) -> Array:
        y = self.empty((len(x), *self.output_shape(x.shape[1:])))
        self._apart(y)[...] = x[:, :, None, :, None]
        return y

    def backward(self, grad: Array) -> Array:
        apart = self._apart(grad)
        return np.add.reduce(apart, (2, 4), out=self.empty((*apart.shape[:2], apart.shape[3], apart.shape[5])))


class SpatialDropout(layers.Dropout):
    """Dropout of whole channels: in training each channel of an image is 0 with probability `rate`, else divided by
    1 - rate; x (N, ..., C). Tompson et al. 2015 (1411.4280); PyTorch's Dropout1d and Dropout2d."""

    stackable = False

    def forward(self, x: Array, training: bool) -> Array:
        if not training or self.rate == 0:
            self.kept = None
            return x
        channels = np.empty((len(x), *(1,) * (x.ndim - 2), x.shape[-1]), x.dtype)
        self.rng.random(out=channels, dtype=x.dtype)
        np.greater_equal(channels, self.rate, out=channels)
        channels *= 1 / (1 - self.rate)
        self.kept = channels
        return np.multiply(x, channels, out=self.empty(x.shape))


__all__ = [
    "AveragePool1D", "AveragePool2D", "Conv1D", "Conv2D", "ConvTranspose2D", "DepthwiseConv2D", "GlobalAveragePool1D",
    "GlobalAveragePool2D", "GlobalMaxPool1D", "GlobalMaxPool2D", "MaxPool1D", "MaxPool2D", "SpatialDropout",
    "UpSample2D", "ZeroPad2D",
]  # fmt: skip
