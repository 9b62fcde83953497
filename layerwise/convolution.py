"""Convolution and pooling: layers for images (N, H, W, C) and sequences (N, T, C), channels last.

In this file, in this order:
  convolution      Conv1D, Conv2D, ConvTranspose2D, DepthwiseConv2D
  pooling          MaxPool1D, MaxPool2D, AveragePool1D, AveragePool2D, GlobalAveragePool1D, GlobalAveragePool2D,
                   GlobalMaxPool1D, GlobalMaxPool2D
  shape and noise  ZeroPad2D, UpSample2D, SpatialDropout
core/windows.py computes them.

Shapes in the docstrings: N batch, H W space, T time, C channels, F filters, kh kw the height and width of a window.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from layerwise import layers
from layerwise.core import arguments, shapes
from layerwise.core.initialisers import INITIALISERS, initialiser, uniform_fan_in
from layerwise.core.numeric import column_sums, parallel_rows
from layerwise.core.windows import (
    Axis,
    channels_weight_gradient,
    correlate,
    correlate_channels,
    reused,
    transpose,
    weight_gradient,
)

Array = np.ndarray
Shape = tuple[int, ...]
Pair = tuple[int, int]


# Arguments ---------------------------------------------------------------------------------------------------


def _pair(name: str, value: Any, least: int = 1) -> Pair:
    """One integer for both axes, or a pair."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(isinstance(v, bool) or not hasattr(v, "__index__") or v < least for v in pair):
        kind = "a positive integer" if least == 1 else "an integer, 0 or more,"
        raise ValueError(f"{name} is {kind} or a pair of them, got {value!r}.")
    return operator.index(pair[0]), operator.index(pair[1])


def _plain(value: Any) -> Any:
    """An argument as it is kept and saved: integers as Python's, sequences as tuples, anything else unchanged."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return operator.index(value) if hasattr(value, "__index__") else value


class Windowed(layers.Layer):
    """The base of layers with windows: their arguments, and where the windows lie on an input.

    A layer for sequences takes (T, C) as an image (T, 1, C), and its windows are 1 wide.
    """

    axes = 2

    def _lay(self, size: str, stride: Any, padding: Any, dilation: Any = 1) -> None:
        """Check and keep size, stride, padding and dilation; `size` is the name of the argument with the size."""
        self._size = self._both(size, getattr(self, size))
        self._stride, self._dilation = self._both("stride", stride), self._both("dilation", dilation)
        if isinstance(padding, str) and padding in ("valid", "same", "causal")[: 4 - self.axes]:
            self._padding: Any = padding
        else:
            try:
                self._padding = self._both("padding", padding, 0)
            except ValueError:
                rest = (', "causal" or an integer, 0 or more', " or an integer, 0 or more, or a pair of them")
                raise ValueError(f'padding is "valid", "same"{rest[self.axes - 1]}, got {padding!r}.') from None

    def _both(self, name: str, value: Any, least: int = 1) -> Pair:
        """An argument as two numbers, for rows and columns; a sequence has rows only."""
        if self.axes == 2:
            return _pair(name, value, least)
        if isinstance(value, (tuple, list)):
            raise ValueError(f"{name} is one integer for sequences, got {value!r}.")
        return _pair(name, value, least)[0], least

    def _check(self, input_shape: Shape, channels: int | None = None) -> None:
        """ValueError unless these are images (or sequences), with that number of channels if it is known."""
        axes = ("time, channels", "height, width, channels")[self.axes - 1]
        told = f"got inputs of shape {input_shape} (without the batch axis)"
        if len(input_shape) != self.axes + 1:
            kind = ("sequences", "images")[self.axes - 1]
            one_short = len(input_shape) == self.axes
            hint = "with one channel, give x[..., None]" if one_short else f"put Reshape(({axes})) before it"
            raise ValueError(f"{self.label} takes {kind} of shape ({axes}), {told}: {hint}.")
        if channels is not None and input_shape[-1] != channels:
            hint = shapes.channels_first_hint(input_shape, input_shape[0] == channels)
            raise ValueError(f"{self.label} takes {channels} channels, the last axis, {told}.{hint}")

    def _axes_on(self, input_shape: Shape) -> tuple[Axis, Axis]:
        """Where the windows lie on inputs of this shape; ValueError if none fits."""
        sizes = input_shape[:2] if self.axes == 2 else (input_shape[0], 1)
        rows, columns = (self._axis(place, size) for place, size in enumerate(sizes))
        if rows.outputs < 1 or columns.outputs < 1:
            # If the channels come first, their number is taken for the height, which is then too small.
            suspected = rows.outputs < 1 and (self.axes == 1 or columns.outputs >= 1)
            hint = shapes.channels_first_hint(input_shape, suspected)
            windows = tuple((a.taps - 1) * a.step + 1 for a in (rows, columns))[: self.axes]
            raise ValueError(
                f"{self.label} has windows of {' by '.join(map(str, windows))}, larger than its inputs of shape "
                f'{input_shape} with their padding: choose smaller windows, or padding="same".{hint}'
            )
        return rows, columns

    def _axis(self, place: int, size: int) -> Axis:
        taps, stride, step = self._size[place], self._stride[place], self._dilation[place]
        span = (taps - 1) * step + 1
        if self._padding == "same":
            outputs = -(-size // stride)
            before = max((outputs - 1) * stride + span - size, 0) // 2
        elif self._padding == "causal":
            outputs, before = -(-size // stride), span - 1
        else:
            before = 0 if self._padding == "valid" else self._padding[place]
            outputs = (size + 2 * before - span) // stride + 1
        return Axis(size, taps, stride, step, -before, outputs)

    def _image(self, x: Array) -> Array:
        return x if self.axes == 2 else x[:, :, None]

    def _shape_of(self, rows: Axis, columns: Axis, channels: int) -> Shape:
        return (rows.outputs, columns.outputs, channels) if self.axes == 2 else (rows.outputs, channels)

    def _upstream(self, grad: Array) -> Array:
        return self._image(np.ascontiguousarray(grad, self.dtype))


# Convolution -------------------------------------------------------------------------------------------------


class Convolution(Windowed):
    """The base of the convolutions; `Conv2D` explains the arguments."""

    threaded = True
    kept: Array

    def _weigh(self, kernel_size: Any, stride: Any, padding: Any, dilation: Any, bias: bool, init: Any) -> None:
        """Check and keep the arguments that all convolutions have."""
        self.kernel_size, self.stride, self.padding, self.dilation = map(
            _plain, (kernel_size, stride, padding, dilation)
        )
        self._lay("kernel_size", stride, padding, dilation)
        self.bias = arguments.flag("bias", bias, "give it by name, bias=False")
        self.init = init
        initialiser(init)


class Conv2D(Convolution):
    """y = b + the sum over the window's places and its channels of x w; x (N, H, W, C), y (N, H', W', F), F = filters.

    w (kh, kw, C / groups, F) starts uniform in +-1/sqrt(kh kw C / groups), b (F,) at 0; `init` as in Linear. PyTorch
    stores w as (F, C / groups, kh, kw), and draws b too; Keras starts with "glorot".

    kernel_size, stride, dilation   an integer, or a pair for height and width
    padding   zeros around the image: "valid" none; "same" so many that H' is H / stride rounded up, the odd one at
              the end, as in Keras (PyTorch: stride 1 only); or a number for every side, or a pair, as in PyTorch
    groups    the channels are split into this many groups, each of which gives filters / groups channels of y

    ValueError for an input that is no image or smaller than a window, and for groups that do not divide the channels.
    """

    torch, keras = "Conv2d", "Conv2D"

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
        self.filters = arguments.count("filters", filters)
        self.groups = arguments.count("groups", groups)
        if self.filters % self.groups:
            raise ValueError(f"filters is a multiple of groups, got filters={filters!r} and groups={groups!r}.")
        self._weigh(kernel_size, stride, padding, dilation, bias, init)

    def setup(self, input_shape: Shape) -> None:
        shape = (*self._size[: self.axes], input_shape[-1] // self.groups, self.filters)
        self.add_parameter("w", shape, initialiser(self.init))
        if self.bias:
            self.add_parameter("b", (self.filters,))

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape, self.w.shape[-2] * self.groups if self.w.size else None)
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
        correlate(self._image(x), self._kernel(self.w), self._image(y), rows, columns, self.parameters.get("b"))
        return y

    def backward(self, grad: Array) -> Array | None:
        x, grad = self.kept, self._upstream(grad)
        rows, columns = self._axes_on(x.shape[1:])
        weight_gradient(self._image(x), grad, self._kernel(self.w_gradient), rows, columns, self.gradients.get("b"))
        if not self.input_gradient_needed:
            return None
        x_gradient = self.empty(x.shape)
        transpose(grad, self._kernel(self.w), self._image(x_gradient), rows, columns)
        return x_gradient


class Conv1D(Conv2D):
    """The same over time: x (N, T, C), y (N, T', F), w (kernel_size, C / groups, F).

    padding="causal": all zeros stand before the first step, so that y at a time depends on x up to then, as in Keras.
    """

    torch, keras = "Conv1d", "Conv1D"
    axes = 1


class DepthwiseConv2D(Convolution):
    """Each channel by itself: y[..., c m + k] = b + the sum over the window's places of x[..., c] w[..., c, k].

    x (N, H, W, C), y (N, H', W', C m), m = multiplier; w (kh, kw, C, m), b (C m,). As Conv2D with groups=C, whose other
    arguments it takes, but faster. As in Keras, where w starts otherwise: here uniform in +-1/sqrt(kh kw).
    """

    torch, keras = "Conv2d", "DepthwiseConv2D"

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
        self.multiplier = arguments.count("multiplier", multiplier)
        self._weigh(kernel_size, stride, padding, dilation, bias, init)

    def setup(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        initial = initialiser(self.init)
        if initial in (uniform_fan_in, *INITIALISERS.values()):
            # One output sums over kh * kw inputs, which the last two axes of w's own shape would hide.
            chosen, flat = initial, (*self._size, 1, channels * self.multiplier)
            initial = lambda shape, rng: chosen(flat, rng).reshape(shape)  # noqa: E731
        self.add_parameter("w", (*self._size, channels, self.multiplier), initial)
        if self.bias:
            self.add_parameter("b", (channels * self.multiplier,))

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape, self.w.shape[2] if self.w.size else None)
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
        correlate_channels(x, self._taps(self.w), y, rows, columns, self.parameters.get("b"))
        return y

    def backward(self, grad: Array) -> Array | None:
        x, grad = self.kept, self._upstream(grad)
        rows, columns = self._axes_on(x.shape[1:])
        channels_weight_gradient(self._repeated(x), grad, self._taps(self.w_gradient), rows, columns)
        if self.bias:
            column_sums(grad, self.b_gradient)
        if not self.input_gradient_needed:
            return None
        x_gradient = self.empty((*x.shape[:3], grad.shape[3]))
        # dL/dx is a correlation with reversed taps; where a stride is above 1, zeros go between the places of grad.
        down, across = rows.reversed(), columns.reversed()
        if rows.stride > 1 or columns.stride > 1:
            grad, sparse = np.zeros((len(x), down.size, across.size, grad.shape[3]), self.dtype), grad
            grad[:, :: rows.stride, :: columns.stride] = sparse
        correlate_channels(grad, self._taps(self.w)[::-1, ::-1], x_gradient, down, across)
        if self.multiplier > 1:
            return np.add.reduce(x_gradient.reshape(*x.shape, self.multiplier), 4, out=self.empty(x.shape))
        return x_gradient


class ConvTranspose2D(Convolution):
    """The transpose of a Conv2D of F to C channels: each pixel of x (N, H, W, C) adds its channels times w to a window
    of y (N, H', W', F), F = filters. The windows lie `stride` apart, so that y is larger than x.

    w (kh, kw, F, C) as in Keras, and starts uniform in +-1/sqrt(kh kw F) as in PyTorch, where it is (C, F, kh, kw).
    H' = (H - 1) stride + dilation (kh - 1) + 1 for padding "valid", 2 p less for an integer p, which cuts off what lies
    in the padding, as in PyTorch; H' = H stride for "same", as in Keras. Arguments as in Conv2D.

    output_padding   this many more rows and columns at the end, fewer than stride or dilation: a Conv2D of stride 2
                     gives as many rows for 5 as for 6, and this says to which of them to return; not with "same"
    """

    torch, keras = "ConvTranspose2d", "Conv2DTranspose"
    output_padding: Any = 0  # on the class too, for pickles written before it was an argument
    _more: Pair = (0, 0)

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        bias: bool = True,
        init: Any = None,
        output_padding: Any = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.filters = arguments.count("filters", filters)
        self._weigh(kernel_size, stride, padding, dilation, bias, init)
        self.output_padding = _plain(output_padding)
        self._more = _pair("output_padding", output_padding, 0)
        if any(more >= max(gaps) for more, *gaps in zip(self._more, self._stride, self._dilation, strict=True)):
            raise ValueError(
                f"output_padding is less than stride or dilation, got output_padding={output_padding!r}, "
                f"stride={stride!r} and dilation={dilation!r}."
            )
        if any(self._more) and padding == "same":
            raise ValueError(
                f'output_padding goes with padding="valid" or a number, got {output_padding!r} with "same", where the '
                f"output has stride times the size of the input."
            )

    def setup(self, input_shape: Shape) -> None:
        self.add_parameter("w", (*self._size, self.filters, input_shape[-1]), initialiser(self.init))
        if self.bias:
            self.add_parameter("b", (self.filters,))

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape, self.w.shape[3] if self.w.size else None)
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
        return Axis((size - 1) * stride + span - 2 * before + self._more[place], taps, stride, step, -before, size)

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        rows, columns = self._axes_on(x.shape[1:])
        y = self.empty((len(x), rows.size, columns.size, self.filters))
        transpose(x, self.w, y, rows, columns, self.parameters.get("b"))
        return y

    def backward(self, grad: Array) -> Array | None:
        x, grad = self.kept, self._upstream(grad)
        rows, columns = self._axes_on(x.shape[1:])
        weight_gradient(grad, x, self.w_gradient, rows, columns)
        if self.bias:
            column_sums(grad, self.b_gradient)
        if not self.input_gradient_needed:
            return None
        x_gradient = self.empty(x.shape)
        correlate(grad, self.w, x_gradient, rows, columns)
        return x_gradient


# Pooling -----------------------------------------------------------------------------------------------------


def _taps(rows: Axis, columns: Axis) -> Iterator[tuple[Any, Any]]:
    """For every tap, row by row: the windows in which it is inside the image, and its places in them."""
    for (windows, places), (across, places_across) in itertools.product(rows.slices(), columns.slices()):
        yield (slice(None), windows, across), (slice(None), places, places_across)


class Pool(Windowed):
    """The base of the poolings; `MaxPool2D` explains the arguments."""

    def __init__(self, size: Any = 2, stride: Any = None, padding: Any = "valid", name: str | None = None) -> None:
        super().__init__(name)
        self.size, self.stride, self.padding = map(_plain, (size, stride, padding))
        self._lay("size", size if stride is None else stride, padding)
        if not isinstance(self._padding, str) and any(
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

        def pool(first: int, last: int) -> None:
            self._pool(image[first:last], result[first:last], rows, columns)

        parallel_rows(pool, image)
        return y

    def backward(self, grad: Array) -> Array:
        x, y = self.kept
        rows, columns = self._axes_on(x.shape[1:])
        x_gradient = self.empty(x.shape)
        given, image, result, out = self._upstream(grad), self._image(x), self._image(y), self._image(x_gradient)

        def run(first: int, last: int) -> None:
            part = slice(first, last)
            self._pool_backward(given[part], image[part], result[part], out[part], rows, columns)

        parallel_rows(run, image)
        return x_gradient

    def _pool(self, x: Array, y: Array, rows: Axis, columns: Axis) -> None:
        """Fill y with the results of the windows of some images."""
        raise TypeError(f"{type(self).__name__} has no _pool(self, x, y, rows, columns): write it.")

    def _pool_backward(self, grad: Array, x: Array, y: Array, x_gradient: Array, rows: Axis, columns: Axis) -> None:
        """Fill x_gradient for the same images from dL/dy."""
        raise TypeError(f"{type(self).__name__} has no _pool_backward(self, grad, ...): write it.")


class MaxPool2D(Pool):
    """The largest of each window, channel by channel: x (N, H, W, C), y (N, H', W', C).

    size, stride   an integer or a pair; stride=None is the size
    padding        "valid", "same", an integer or a pair as in Conv2D; a padded place is never the largest

    Where several are largest, the first, row by row, gets the gradient, as in PyTorch.
    """

    torch, keras = "MaxPool2d", "MaxPooling2D"

    def _pool(self, x: Array, y: Array, rows: Axis, columns: Axis) -> None:
        y.fill(-np.inf)
        for windows, places in _taps(rows, columns):
            np.maximum(y[windows], x[places], out=y[windows])

    def _pool_backward(self, grad: Array, x: Array, y: Array, x_gradient: Array, rows: Axis, columns: Axis) -> None:
        left = reused("left", grad.shape, grad.dtype)  # what no tap has taken yet
        left[...] = grad
        # Where each place is in exactly one window there is nothing to add up: a third less time.
        tiled = all(a.taps == a.stride and a.offset == 0 and a.size == a.taps * a.outputs for a in (rows, columns))
        if not tiled:
            x_gradient.fill(0)
        *taps, (last, last_places) = _taps(rows, columns)
        for windows, places in taps:
            part = left[windows]
            largest = np.equal(x[places], y[windows], out=reused("largest", part.shape, np.dtype(bool)))
            given = np.multiply(part, largest, out=reused("given", part.shape, part.dtype))
            if tiled:
                x_gradient[places] = given
            else:
                x_gradient[places] += given
            part -= given
        x_gradient[last_places] = left[last] if tiled else x_gradient[last_places] + left[last]


class MaxPool1D(MaxPool2D):
    """The same over time: x (N, T, C), y (N, T', C); padding="causal" as in Conv1D."""

    torch, keras = "MaxPool1d", "MaxPooling1D"
    axes = 1


class AveragePool2D(Pool):
    """The mean of each window, channel by channel: x (N, H, W, C), y (N, H', W', C); arguments as in MaxPool2D.

    Padded places are not counted, as in Keras; with count_padding=True they count as 0, as in PyTorch, where the
    argument is count_include_pad.
    """

    torch, keras = "AvgPool2d", "AveragePooling2D"
    count_padding = False  # on the class too, for pickles written before it was an argument

    def __init__(
        self,
        size: Any = 2,
        stride: Any = None,
        padding: Any = "valid",
        count_padding: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(size, stride, padding, name)
        self.count_padding = arguments.flag("count_padding", count_padding)

    def _weight(self, rows: Axis, columns: Axis) -> Array:
        """1 / the number of places of each window that count, (1, rows, columns, 1), or the same for all."""
        if self.count_padding:
            return np.full((1, 1, 1, 1), 1 / (rows.taps * columns.taps), self.dtype)
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
        share = np.multiply(grad, self._weight(rows, columns), out=reused("left", grad.shape, grad.dtype))
        x_gradient.fill(0)
        for windows, places in _taps(rows, columns):
            x_gradient[places] += share[windows]


class AveragePool1D(AveragePool2D):
    """The same over time: x (N, T, C), y (N, T', C); padding="causal" as in Conv1D."""

    torch, keras = "AvgPool1d", "AveragePooling1D"
    axes = 1


class GlobalPool(Windowed):
    """The base of the global poolings: one number for each channel, x (N, H, W, C), y (N, C)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape)
        return input_shape[-1:]

    def _pixels(self, x: Array) -> Array:
        return x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])


class GlobalAveragePool2D(GlobalPool):
    """The mean of each channel over the image: x (N, H, W, C), y (N, C)."""

    torch, keras = "AdaptiveAvgPool2d", "GlobalAveragePooling2D"

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

    torch, keras = "AdaptiveAvgPool1d", "GlobalAveragePooling1D"
    axes = 1


class GlobalMaxPool2D(GlobalPool):
    """The largest of each channel over the image, on ties the first: x (N, H, W, C), y (N, C)."""

    torch, keras = "AdaptiveMaxPool2d", "GlobalMaxPooling2D"

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

    torch, keras = "AdaptiveMaxPool1d", "GlobalMaxPooling1D"
    axes = 1


# Shape and noise ---------------------------------------------------------------------------------------------


class ZeroPad2D(Windowed):
    """Zeros around each image. `padding` is a number for every side, a pair for height and width, or a pair of pairs,
    ((top, bottom), (left, right)), as in Keras."""

    torch, keras = "ZeroPad2d", "ZeroPadding2D"

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

    torch, keras = "Upsample", "UpSampling2D"

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
