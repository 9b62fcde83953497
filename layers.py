"""Layers: the pieces of a feed-forward net, each with an explicit forward and backward pass.

In this file, in this order:
  the base         Layer
  weights          Linear, Embedding
  activations      Sigmoid, Tanh, ReLU, LeakyReLU, PReLU, ELU, SELU, GELU, SiLU, Softplus, Softsign, Mish,
                   HardTanh, ReLU6, HardSigmoid, HardSwish, Softmax, LogSoftmax
  noise            Dropout, GaussianNoise
  normalisation    BatchNorm, LayerNorm, GroupNorm, RMSNorm
  shape            Flatten, Reshape, Lambda
  containers       Chain, Residual, Parallel
and reached from here: Model, of model.py, and the convolutions and poolings of layerwise/convolution.py

Shapes in the docstrings: N batch, D inputs, M outputs, C channels (last), H W space, T time; `...` any axes.
"""

from __future__ import annotations

import copy
import math
import operator
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise.core import arguments, interrupts, lazy, shapes
from layerwise.core.base import Attributes, Base
from layerwise.core.initialisers import (
    glorot as glorot,
    he as he,
    initialiser,
    orthogonal as orthogonal,
    uniform_fan_in as uniform_fan_in,
)
from layerwise.core.numeric import (
    ONE,
    ROOT_2_PI,
    SMALLEST,
    affine,
    affine_backward,
    at_most,
    batch_gradient_sums,
    batch_normalize,
    batch_normalize_backward,
    batch_statistics,
    column_sums,
    erf as erf,
    exp_tanh_argument,
    hard_sigmoid,
    leaky,
    mean,
    normal,
    normalize,
    normalize_backward,
    number,
    parallel_rows,
    positive_part,
    row_max,
    row_sums,
)
from layerwise.core.parameters import Workspace

if TYPE_CHECKING:  # for type checkers and editors alone: when it runs, __getattr__ below finds it
    from model import Model as Model

Array = np.ndarray
Shape = tuple[int, ...]


def __getattr__(name: str) -> Any:
    return lazy.find("layers", name, __all__)


# The base ----------------------------------------------------------------------------------------------------


_building = threading.RLock()  # held while a net is built; one for all nets, since copies and pickles carry no lock


class Layer(Base):
    """One step of a net: `forward` computes, `backward` is its exact derivative.

    A layer of one's own writes `forward(x, training)` and `backward(grad)`. If it has parameters, its `setup`
    declares them. If its output has another shape than its input, its `output_shape` gives that shape. What
    `backward` needs goes into `self.kept`. Results are new arrays, or are written into `self.empty(shape)`.
    `backward` sets `w_gradient` and the others (it overwrites and never adds), returns dL/dx, and never writes into
    the array that it was given.

    w, b        the parameters of those names: live views, and assigning copies into place. A layer that has none (one
                without weights, a container, any before the first batch) gives an empty array of shape (0,), and so do
                the gradients: a loop over all layers may update them
    parameters, gradients, buffers    name -> array; buffers are state that is not trained
    """

    # What a layer writes.

    def forward(self, x: Array, training: bool) -> Array:
        """y of a batch x."""
        raise TypeError(f"{type(self).__name__} has no forward(self, x, training): write it.")

    def backward(self, grad: Array) -> Array | None:
        """dL/dx from dL/dy; sets the gradients of the parameters. None if not `input_gradient_needed`."""
        raise TypeError(f"{type(self).__name__} has no backward(self, grad): write it.")

    def setup(self, input_shape: Shape) -> None:
        """Declare parameters and buffers for inputs of this shape (without the batch axis)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of y for inputs of this shape, both without the batch axis; ValueError if it can't be.

        If a layer does not write this, a copy of it is tried on one row of zeros.
        """
        if input_shape not in self._tried:
            trial = copy.deepcopy(self)
            x = np.zeros((1, *input_shape), np.int64 if self.integer_input else trial.dtype)
            try:
                with np.errstate(all="ignore"):
                    trial._build(input_shape)
                    self._tried[input_shape] = np.shape(trial.forward(x, False))[1:]
            except ValueError as error:
                raise ValueError(f"{self.label} can't take inputs of shape {input_shape}: {error}") from error
        return self._tried[input_shape]

    def check_input(self, x: Array) -> None:
        """ValueError for values that the first layer of a net can't take; asked before a training begins."""

    # What a layer's user calls.

    def __call__(self, x: Any, training: bool = False) -> Array:
        """y of a batch x, keeping what `backward` needs. The first call makes the parameters."""
        if training is not True and training is not False:
            training = arguments.flag("training", training)
        with np.errstate(all="ignore"):
            x = self._converted(x)
        if self.input_shape is None:
            self.build(x.shape[1:])
        elif x.shape[1:] != self.input_shape:
            self.output_shape(x.shape[1:])  # says what is wrong if the parameters do not fit
        self._workspace.repeatable = True
        with self._workspace.rest_of_step(reusing=False), np.errstate(all="ignore"):
            if self.copies is not None:  # all copies get the same rows
                x = np.broadcast_to(x, (self.copies, *x.shape))
            y = self.forward(x, training)
        if (y is x or getattr(y, "base", None) is not None) and np.may_share_memory(x, y):  # an identity, Flatten
            return y.copy()
        return y

    def build(self, input_shape: Sequence[int]) -> Layer:
        """Make the parameters for inputs of `input_shape`, without the batch axis: `build((784,))`.

        If it fails, or Ctrl-C ends it, all layers are as before. Several threads may call it: one builds, the others
        wait. ValueError for a shape that can't be, or that is not the one the layer was built for.
        """
        with _building:
            shape = self._possible(input_shape)
            if self.input_shape is None:
                before = Attributes(self)
                interrupts.attempt(lambda: self._build(shape), before.restore)
        return self

    def copy(self, dtype: Any = None) -> Any:
        """A copy with the same values that belongs to no net. `dtype` gives it another dtype."""
        other = copy.deepcopy(self)
        if dtype is not None:
            other._allocate(dtype, other.copies)
        return other

    # How a net is built.

    def _possible(self, input_shape: Sequence[int]) -> Shape:
        """The shape as a tuple, if inputs can have it; nothing is made yet."""
        shape = arguments.input_shape(input_shape)
        self.output_shape(shape)
        return shape

    def _converted(self, x: Any) -> Array:
        return arguments.batch(self.label, x, self.dtype, self.integer_input)

    def _declare(self, input_shape: Shape) -> None:
        if self.input_shape is None:
            self.setup(input_shape)
            self.input_shape = input_shape

    def _build(self, input_shape: Shape, seeds: Sequence[int | None] = (None,)) -> None:
        """Declare the parameters and fill them. A stack of copies has a seed for each copy."""
        if self.input_shape is None:
            self.setup(input_shape)
        for place, leaf in enumerate(self.leaf_layers()):
            leaf._seeds = [None if seed is None else (seed, 3, place) for seed in seeds]
            leaf._rngs = None
        # Not (seed, 0), which is the stream of default_rng(seed): people make their data with that.
        rngs = [np.random.default_rng(None if seed is None else (seed, 1)) for seed in seeds]
        self._allocate(self.dtype, self.copies, rngs)
        self.input_shape = input_shape  # last: a thread that finds it set may use the parameters


# Weights -----------------------------------------------------------------------------------------------------


class Linear(Layer):
    """y = x w + b, for x of shape (N, ..., D) and y of shape (N, ..., M), M = units.

    w (D, M) starts uniform in +-1/sqrt(D), b (M,) at 0. Another `init` fills w: "he", "glorot", "orthogonal",
    a number, or a callable (shape, rng) -> array. PyTorch draws b too and stores w as (M, D); Keras
    starts with "glorot". ValueError for an input whose last axis is not D.
    """

    torch, keras = "Linear", "Dense"
    stackable = True

    def __init__(self, units: int, bias: bool = True, init: Any = None, name: str | None = None) -> None:
        super().__init__(name)
        self.units = arguments.count("units", units)
        # Someone who gives the inputs too writes Linear(784, 128). Unchecked, that is a layer of 784 units.
        self.bias = arguments.flag(
            "bias", bias, "the data tell how many inputs there are" + f": write Linear({bias!r})" * (type(bias) is int)
        )
        self.init = init
        initialiser(init)

    def setup(self, input_shape: Shape) -> None:
        self.add_parameter("w", (input_shape[-1], self.units), initialiser(self.init))
        if self.bias:
            self.add_parameter("b", (self.units,))

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or (self.w.size and input_shape[-1] != self.w.shape[-2]):
            expected = f"{self.w.shape[-2]} inputs a row" if self.w.size else "at least one axis of inputs"
            raise ValueError(
                f"{self.label} takes {expected}, got inputs of shape {input_shape} (without the batch axis)."
            )
        return (*input_shape[:-1], self.units)

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        return affine(x, self.w, self.b if self.bias else None, self.empty)

    def backward(self, grad: Array) -> Array | None:
        x, b_gradient = self.kept, self.b_gradient if self.bias else None
        x_gradient = self.empty(x.shape) if self.input_gradient_needed else None
        affine_backward(grad, x, self.w, self.w_gradient, b_gradient, x_gradient)
        return x_gradient


class Embedding(Layer):
    """y = w[x]: a row of w for each integer of x; x (N, ...) in [0, vocabulary), y (N, ..., units).

    w (vocabulary, units) starts normal, deviation 1, as in torch.nn.Embedding (Keras: uniform in +-0.05).
    x stays integer and has no dL/dx: backward returns None. ValueError for an integer out of range.
    """

    torch = keras = "Embedding"
    integer_input = True

    def __init__(self, vocabulary: int, units: int, init: Any = None, name: str | None = None) -> None:
        super().__init__(name)
        self.vocabulary = arguments.count("vocabulary", vocabulary)
        self.units = arguments.count("units", units)
        self.init = init
        initialiser(init)

    def setup(self, input_shape: Shape) -> None:
        initial = (lambda shape, rng: rng.normal(size=shape)) if self.init is None else initialiser(self.init)
        self.add_parameter("w", (self.vocabulary, self.units), initial)

    def output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.units)

    def check_input(self, x: Array) -> None:
        if x.size and not (x.min() >= 0 and x.max() < self.vocabulary):
            raise ValueError(
                f"{self.label} takes integers from 0 to {self.vocabulary - 1}, got {x.min()} to {x.max()}."
            )

    def forward(self, x: Array, training: bool) -> Array:
        if x.dtype.kind == "f":
            raise TypeError(f"{self.label} takes integers, got {x.dtype} from the layer below: put it first.")
        self.check_input(x)
        self.kept = x
        y = self.empty((*x.shape, self.units))
        np.take(self.w, x, axis=0, out=y, mode="clip")
        return y

    def backward(self, grad: Array) -> None:
        self.w_gradient.fill(0)
        np.add.at(self.w_gradient, self.kept, grad)


# Activations -------------------------------------------------------------------------------------------------


class Elementwise(Layer):
    """A layer whose output has the shape of its input."""

    stackable = True

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


class Nonlinearity(Elementwise):
    """A function of each number by itself. An estimator offers it by its name in lower case."""

    kinks: tuple[float, ...] = ()  # where y, its slope, or the slope of its slope jumps, with the default arguments
    # A unit whose `kept` is never above this passes no gradient on: 0 of a ReLU. None where no unit can die so.
    dead_below: float | None = None


class Sigmoid(Nonlinearity):
    """y = 1 / (1 + exp(-x)).    dy/dx = y (1 - y)"""

    onnx, torch, keras = "Sigmoid", "Sigmoid", "sigmoid"
    probabilities_of = "labels"

    def forward(self, x: Array, training: bool) -> Array:
        one = ONE[x.dtype]
        y = self.kept = np.negative(x, self.empty(x.shape))
        np.exp(y, y)  # infinite where y is below every normal number: y becomes 0
        y += one
        return np.divide(one, y, y)

    def backward(self, grad: Array) -> Array:
        y = self.kept
        x_gradient = np.subtract(ONE[y.dtype], y, self.empty(y.shape))
        x_gradient *= y
        x_gradient *= grad
        return x_gradient


class Tanh(Nonlinearity):
    """y = tanh(x).    dy/dx = 1 - y^2"""

    onnx, torch, keras = "Tanh", "Tanh", "tanh"

    def forward(self, x: Array, training: bool) -> Array:
        y = self.kept = np.tanh(x, out=self.empty(x.shape))
        return y

    def backward(self, grad: Array) -> Array:
        y = self.kept
        x_gradient = np.multiply(y, y, out=self.empty(y.shape))
        np.subtract(1, x_gradient, out=x_gradient)
        x_gradient *= grad
        return x_gradient


class ReLU(Nonlinearity):
    """y = max(x, 0).    dy/dx = 1 where x > 0, else 0"""

    onnx, torch, keras = "Relu", "ReLU", "ReLU"
    kinks, dead_below = (0,), 0.0

    def forward(self, x: Array, training: bool) -> Array:
        y = self.kept = self.empty(x.shape)
        parallel_rows(lambda a, b: positive_part(x[a:b], y[a:b]), x)
        return y

    def backward(self, grad: Array) -> Array:
        y, x_gradient = self.kept, self.empty(grad.shape)
        parallel_rows(lambda a, b: np.multiply(grad[a:b], y[a:b] > 0, out=x_gradient[a:b]), y)
        return x_gradient


class LeakyReLU(Nonlinearity):
    """y = x where x > 0, else slope x.    Maas et al. 2013. PyTorch's slope; Keras's layer has 0.3."""

    onnx = "LeakyRelu(alpha=slope)"
    torch = keras = "LeakyReLU(negative_slope=slope)"
    kinks = (0,)

    def __init__(self, slope: float = 0.01, name: str | None = None) -> None:
        super().__init__(name)
        self.slope = arguments.real("slope", slope, 0)

    def forward(self, x: Array, training: bool) -> Array:
        above = self.kept = x > 0
        return leaky(x, above, self.slope, self.empty(x.shape))

    def backward(self, grad: Array) -> Array:
        return leaky(grad, self.kept, self.slope, self.empty(grad.shape))


class PReLU(Nonlinearity):
    """y = x where x > 0, else w x. The slope w, shape (1,), is learned; it starts at 0.25.

    per_channel=True: a slope for each channel, the last axis, w (C,). He et al. 2015 (1502.01852). As torch.nn.PReLU,
    whose num_parameters is C or 1; Keras learns a slope per element, from 0, and fewer with shared_axes.
    """

    torch = keras = "PReLU"
    kinks = (0,)
    stackable = False

    def __init__(self, per_channel: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        self.per_channel = arguments.flag("per_channel", per_channel, "the data tell how many channels there are")

    def setup(self, input_shape: Shape) -> None:
        self.add_parameter("w", input_shape[-1:] if self.per_channel else (1,), 0.25)

    def output_shape(self, input_shape: Shape) -> Shape:
        return shapes.same_channels(self, input_shape) if self.per_channel else input_shape

    def forward(self, x: Array, training: bool) -> Array:
        above = x > 0
        self.kept = x, above
        return leaky(x, above, self.w, self.empty(x.shape))

    def backward(self, grad: Array) -> Array:
        x, above = self.kept
        below = np.minimum(x, 0)
        below *= grad
        if self.per_channel:
            column_sums(below, self.w_gradient)
        else:
            np.add.reduce(below, None, out=self.w_gradient[0, ...])
        return leaky(grad, above, self.w, self.empty(grad.shape))


class ELU(Nonlinearity):
    """y = x where x > 0, else alpha (exp(x) - 1).    dy/dx = 1, or alpha exp(x).    Clevert 2015 (1511.07289)"""

    onnx, torch, keras = "Elu(alpha=alpha)", "ELU(alpha=alpha)", "ELU(alpha=alpha)"
    kinks = (0,)
    scale = 1.0

    def __init__(self, alpha: float = 1.0, name: str | None = None) -> None:
        super().__init__(name)
        self.alpha = arguments.real("alpha", alpha, 0)

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        y = at_most(x, 0, self.empty(x.shape))
        np.expm1(y, out=y)
        y *= self.alpha
        y += positive_part(x)
        if self.scale != 1:
            y *= self.scale
        return y

    def backward(self, grad: Array) -> Array:
        x = self.kept
        below = self.scale * self.alpha  # the slope just below 0; above, it is the scale
        slope = at_most(x, 0, self.empty(x.shape))
        np.exp(slope, out=slope)  # not y + alpha: nothing of it is left where exp(x) is small
        if below != 1:
            slope *= below
        if below != self.scale:
            slope += np.multiply(x > 0, self.scale - below, dtype=x.dtype)
        slope *= grad
        return slope


class SELU(ELU):
    """y = scale x where x > 0, else scale alpha (exp(x) - 1).    Klambauer et al. 2017 (1706.02515)"""

    onnx, torch, keras = "Selu(alpha=alpha, gamma=scale)", "SELU", "selu"
    scale = 1.0507009873554805

    def __init__(self, name: str | None = None) -> None:
        super().__init__(1.6732632423543772, name)


class GELU(Nonlinearity):
    """y = x Phi(x), Phi the normal distribution function: (1 + erf(x / sqrt(2))) / 2.    1606.08415

    approximate="tanh": y = x (1 + tanh(u)) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3).
    """

    onnx = "Gelu(approximate=approximate)"
    torch, keras = "GELU(approximate=approximate)", "gelu(approximate=approximate)"

    def __init__(self, approximate: str | None = None, name: str | None = None) -> None:
        super().__init__(name)
        if approximate not in (None, "tanh"):
            raise ValueError(f'approximate is None or "tanh", got {approximate!r}.')
        self.approximate = approximate

    def forward(self, x: Array, training: bool) -> Array:
        if self.approximate:
            return self._forward_tanh(x)
        size = at_most(np.abs(x), 40)
        _, tail, root = normal(size)
        self.kept = x, size, tail, root
        y = np.multiply(size, tail, out=self.empty(x.shape))  # x Phi(x) = max(x, 0) - |x| Phi(-|x|), without cancelling
        y *= root
        return np.subtract(positive_part(x), y, out=y)

    def backward(self, grad: Array) -> Array:
        if self.approximate:
            return self._backward_tanh(grad)
        x, size, tail, root = self.kept
        slope = np.multiply(size, root, out=self.empty(x.shape))
        slope *= -1 / ROOT_2_PI
        slope += tail
        slope *= root  # the slope at -|x|: that at |x| is 1 minus it
        above = x > 0
        slope *= 1 - 2 * above.view(np.int8)  # not np.negative(where=above), which takes ten times as long
        slope += above
        slope *= grad
        return slope

    # (1 + tanh(u)) / 2 = sigmoid(2 u), from exp(u), which is exact in the tail and underflows sooner than y.

    def _forward_tanh(self, x: Array) -> Array:
        clipped = x.clip(-40, 40)
        u = clipped * clipped
        u *= 0.044715
        u += 1
        u *= clipped
        u *= math.sqrt(2 / math.pi)
        deep = np.flatnonzero(u < -2)  # there the exponential would have the error of u, u times as large
        root = np.exp(at_most(u, 40, u), out=u)
        if deep.size:
            root.reshape(-1)[deep] = exp_tanh_argument(clipped.reshape(-1)[deep])
        rest = root * root
        rest += 1
        np.divide(1, rest, out=rest)
        self.kept = clipped, root, rest
        y = np.multiply(root, rest, out=self.empty(x.shape))
        y *= x
        y *= root
        return y

    def _backward_tanh(self, grad: Array) -> Array:
        x, root, rest = self.kept
        slope = np.multiply(x, x, out=self.empty(x.shape))
        slope *= 3 * 0.044715
        slope += 1
        slope *= x
        slope *= 2 * math.sqrt(2 / math.pi)
        slope *= rest
        slope += 1
        slope *= rest
        slope *= root
        slope *= root
        slope *= grad
        return slope


class SiLU(Nonlinearity):
    """y = x s, s = sigmoid(x); also called swish.    dy/dx = s (1 + x (1 - s)).    1702.03118"""

    torch, keras = "SiLU", "silu"

    def forward(self, x: Array, training: bool) -> Array:
        half, one = number(0.5, x.dtype), number(1, x.dtype)
        clipped = at_most(x, 80)  # above, s is 1
        root = clipped * half
        np.exp(root, root)  # its square, exp(x), underflows sooner than x times it
        rest = root * root
        rest += one
        np.divide(one, rest, rest)  # 1 - s
        self.kept = clipped, root, rest
        y = np.multiply(root, rest, out=self.empty(x.shape))
        y *= x
        y *= root
        return y

    def backward(self, grad: Array) -> Array:
        x, root, rest = self.kept
        slope = np.multiply(x, rest, out=self.empty(x.shape))
        slope += number(1, x.dtype)
        slope *= rest
        slope *= root
        slope *= root
        slope *= grad
        return slope


class Softplus(Nonlinearity):
    """y = log(1 + exp(beta x)) / beta.    dy/dx = sigmoid(beta x).    PyTorch cuts off above 20; 3e-9 less at most."""

    torch, keras = "Softplus(beta=beta)", "softplus"

    def __init__(self, beta: float = 1.0, name: str | None = None) -> None:
        super().__init__(name)
        self.beta = arguments.real("beta", beta, 0)
        if self.beta == 0:
            raise ValueError("beta is a positive number, got 0: the larger, the closer to a ReLU.")

    def forward(self, x: Array, training: bool) -> Array:
        e = np.abs(x)
        np.negative(e, out=e)
        if self.beta != 1:
            e *= self.beta
        np.exp(e, out=e)
        self.kept = x, e
        y = np.log1p(e, out=self.empty(x.shape))  # without overflow, and four times as fast as np.logaddexp
        if self.beta != 1:
            y /= self.beta
        y += positive_part(x)
        return y

    def backward(self, grad: Array) -> Array:
        x, e = self.kept
        slope = np.maximum(e, x > 0, out=self.empty(grad.shape))
        slope /= e + 1
        slope *= grad
        return slope


class Softsign(Nonlinearity):
    """y = x / (1 + |x|).    dy/dx = 1 / (1 + |x|)^2"""

    onnx, torch, keras = "Softsign", "Softsign", "softsign"
    kinks = (0,)

    def forward(self, x: Array, training: bool) -> Array:
        size = self.kept = np.abs(x)
        size += 1
        return np.divide(x, size, out=self.empty(x.shape))

    def backward(self, grad: Array) -> Array:
        size = self.kept
        x_gradient = np.divide(grad, size, out=self.empty(grad.shape))
        x_gradient /= size
        return x_gradient


class Mish(Nonlinearity):
    """y = x t, t = tanh(log(1 + exp(x))) = n / (n + 2), n = e (e + 2), e = exp(x).    Misra 2019 (1908.08681)

    dy/dx = t + x dt/dx, dt/dx = 4 e (1 + e) / (n + 2)^2
    """

    onnx, torch, keras = "Mish", "Mish", "mish"

    def forward(self, x: Array, training: bool) -> Array:
        clipped = at_most(x, 40)  # above, t is 1
        root = clipped * 0.5
        np.exp(root, out=root)  # its square, e, underflows sooner than x times it
        e = root * root
        total = e + 2
        y = np.multiply(root, total, out=self.empty(x.shape))
        total *= e
        total += 2  # n + 2
        y /= total
        y *= x
        y *= root
        self.kept = clipped, root, e, total
        return y

    def backward(self, grad: Array) -> Array:
        x, root, e, total = self.kept
        slope = np.add(e, 1, out=self.empty(e.shape))
        slope *= 4
        slope *= x
        slope /= total
        slope += e
        slope += 2
        slope /= total
        slope *= root
        slope *= root
        slope *= grad
        return slope


class HardTanh(Nonlinearity):
    """y = min(max(x, low), high).    dy/dx = 1 where low < x < high, else 0.    PyTorch's Hardtanh."""

    torch, keras = "Hardtanh(min_val=low, max_val=high)", "hard_tanh"
    kinks = (-1, 1)

    def __init__(self, low: float = -1.0, high: float = 1.0, name: str | None = None) -> None:
        super().__init__(name)
        self.low, self.high = arguments.real("low", low, -math.inf), arguments.real("high", high, -math.inf)
        if not self.low < self.high:
            raise ValueError(f"low is below high, got low={low!r} and high={high!r}.")

    def forward(self, x: Array, training: bool) -> Array:
        y = self.kept = np.maximum(x, self.low, out=self.empty(x.shape))
        return np.minimum(y, self.high, out=y)

    def backward(self, grad: Array) -> Array:
        y = self.kept
        x_gradient = np.multiply(grad, y > self.low, out=self.empty(grad.shape))
        x_gradient *= y < self.high
        return x_gradient


class ReLU6(HardTanh):
    """y = min(max(x, 0), 6).    dy/dx = 1 where 0 < x < 6, else 0.    Krizhevsky 2010; as PyTorch and Keras."""

    torch, keras = "ReLU6", "relu6"
    kinks, dead_below = (0, 6), 0.0

    def __init__(self, name: str | None = None) -> None:
        super().__init__(0.0, 6.0, name)


class HardSigmoid(Nonlinearity):
    """y = min(max(x / 6 + 1/2, 0), 1).    dy/dx = 1/6 where -3 < x < 3, else 0.    As PyTorch and Keras 3."""

    onnx, torch, keras = "HardSigmoid(alpha=0.16666667, beta=0.5)", "Hardsigmoid", "hard_sigmoid"
    kinks, dead_below = (-3, 3), -3.0
    probabilities_of = "labels"

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        return hard_sigmoid(x, self.empty(x.shape))

    def backward(self, grad: Array) -> Array:
        x_gradient = np.multiply(grad, np.abs(self.kept) < 3, out=self.empty(grad.shape))
        x_gradient /= 6
        return x_gradient


class HardSwish(Nonlinearity):
    """y = x h, h = min(max(x / 6 + 1/2, 0), 1).    dy/dx = (x + 3/2) / 3 where -3 < x < 3, else h.    1905.02244"""

    onnx, torch, keras = "HardSwish", "Hardswish", "hard_silu"
    kinks, dead_below = (-3, 3), -3.0

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        y = hard_sigmoid(x, self.empty(x.shape))
        y *= x
        return y

    def backward(self, grad: Array) -> Array:
        x = self.kept
        slope = np.add(x, 1.5, out=self.empty(x.shape))
        slope /= 3
        slope *= np.abs(x) < 3
        slope += x >= 3
        slope *= grad
        return slope


class Softmax(Elementwise):
    """y = exp(x) / sum(exp(x)), the sum over the last axis.    dL/dx = y (g - sum(g y)), g = dL/dy

    y is never less than the smallest normal number, so that the gradient of CrossEntropy, -1 / y at the true
    class, stays finite. The gradient below this layer is then p - y to the last digit, however small p is.
    """

    torch = keras = "Softmax"
    probabilities_of = "classes"

    def output_shape(self, input_shape: Shape) -> Shape:
        return shapes.several_columns(self, input_shape, 1)

    def forward(self, x: Array, training: bool) -> Array:
        y = self.kept = np.subtract(x, row_max(x), self.empty(x.shape))
        np.exp(y, y)
        y /= row_sums(y)
        return np.maximum(y, SMALLEST[y.dtype], out=y)

    def backward(self, grad: Array) -> Array:
        y = self.kept
        x_gradient = np.multiply(grad, y, self.empty(y.shape))
        x_gradient -= y * row_sums(x_gradient)
        return x_gradient


class LogSoftmax(Elementwise):
    """y = x - log(sum(exp(x))), the sum over the last axis.    dL/dx = g - exp(y) sum(g), g = dL/dy"""

    torch, keras = "LogSoftmax", "log_softmax"
    probabilities_of = "classes"

    def output_shape(self, input_shape: Shape) -> Shape:
        return shapes.several_columns(self, input_shape, 0)

    def forward(self, x: Array, training: bool) -> Array:
        y = np.subtract(x, row_max(x), out=self.empty(x.shape))
        p = self.kept = np.exp(y)
        sums = row_sums(p)
        y -= np.log(sums)
        p /= sums  # exp(y), with less error
        return y

    def backward(self, grad: Array) -> Array:
        x_gradient = np.multiply(self.kept, -row_sums(grad), out=self.empty(grad.shape))
        x_gradient += grad
        return x_gradient


# Noise -------------------------------------------------------------------------------------------------------


class Dropout(Elementwise):
    """In training each number becomes 0 with probability `rate`, or else is divided by 1 - rate. In inference y = x.

    Srivastava et al. 2014, in the inverted form of PyTorch and Keras: inference needs no factor.
    """

    random = training_only = True

    def __init__(self, rate: float, name: str | None = None) -> None:
        super().__init__(name)
        self.rate = arguments.real("rate", rate, 0, 1)

    def forward(self, x: Array, training: bool) -> Array:
        if not training or self.rate == 0:
            self.kept = None
            return x
        factor = self.kept = self.empty(x.shape)
        for rng, child in self._draws(factor):
            rng.random(out=child, dtype=child.dtype)
        np.greater_equal(factor, self.rate, out=factor)
        factor *= 1 / (1 - self.rate)
        return np.multiply(x, factor, out=self.empty(x.shape))

    def backward(self, grad: Array) -> Array:
        return grad if self.kept is None else np.multiply(grad, self.kept, out=self.empty(grad.shape))


class GaussianNoise(Elementwise):
    """In training y = x + std n, n normal with mean 0 and deviation 1; in inference y = x.    dy/dx = 1"""

    random = training_only = True

    def __init__(self, std: float, name: str | None = None) -> None:
        super().__init__(name)
        self.std = arguments.real("std", std, 0)

    def forward(self, x: Array, training: bool) -> Array:
        if not training:
            return x
        y = self.empty(x.shape)
        for rng, child in self._draws(y):
            rng.standard_normal(out=child, dtype=child.dtype)
        y *= self.std
        y += x
        return y

    def backward(self, grad: Array) -> Array:
        return grad


# Normalisation -----------------------------------------------------------------------------------------------


class Norm(Elementwise):
    """What the normalisations share: z w + b. Each channel has one w and one b, (C,), which start at 1 and 0.
    scale=False leaves out w, bias=False b. PyTorch's affine=False is both; Keras's names are scale and center."""

    stackable = False
    axes = 1  # w and b have the shape of so many last axes
    scale = bias = True  # on the class too: a pickle from before these arguments has none

    def __init__(self, epsilon: float = 1e-5, scale: bool = True, bias: bool = True, name: str | None = None) -> None:
        super().__init__(name)
        self.epsilon = arguments.real("epsilon", epsilon, 0, 1)
        self.scale, self.bias = arguments.flag("scale", scale), arguments.flag("bias", bias)

    def setup(self, input_shape: Shape) -> None:
        if self.scale:
            self.add_parameter("w", input_shape[-self.axes :], 1.0)
        if self.bias:
            self.add_parameter("b", input_shape[-self.axes :])

    def output_shape(self, input_shape: Shape) -> Shape:
        return shapes.same_channels(self, input_shape)

    def _scaled(self, z: Array) -> Array:
        if not self.scale:
            return np.add(z, self.b, out=self.empty(z.shape)) if self.bias else z
        y = np.multiply(z, self.w, out=self.empty(z.shape))
        if self.bias:
            y += self.b
        return y

    def _scaled_backward(self, grad: Array, z: Array) -> Array:
        if self.bias:
            column_sums(grad, self.b_gradient)
        if not self.scale:
            return grad
        column_sums(grad * z, self.w_gradient)
        return grad * self.w


class BatchNorm(Norm):
    """y = w (x - mean) / sqrt(variance + epsilon) + b, over all axes but the channels; x (N, ..., C).

    scale=False: without w; bias=False: without b.
    In training, mean and (biased) variance are the batch's, and the running ones move towards them:
    running += momentum (batch - running), with the unbiased variance. In inference, and when frozen, the running
    ones are used. Ioffe and Szegedy 2015 (1502.03167); PyTorch's conventions. Keras: momentum 0.99 weighs the
    old value, epsilon 1e-3, running variance biased. ValueError for a training batch of one value a channel.
    """

    torch = "BatchNorm(eps=epsilon, momentum=momentum)"
    keras = "BatchNormalization(epsilon=epsilon, momentum=momentum)"
    min_batch = 2

    def __init__(
        self,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        scale: bool = True,
        bias: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(epsilon, scale, bias, name)
        self.momentum = arguments.real("momentum", momentum, 0, 1, closed=True)

    def setup(self, input_shape: Shape) -> None:
        super().setup(input_shape)
        for name, value in (("running_mean", 0), ("running_variance", 1)):  # views without memory: a load checks first
            self.add_buffer(name, np.broadcast_to(self.dtype.type(value), input_shape[-1:]))

    def forward(self, x: Array, training: bool) -> Array:
        running_mean, running_variance = self.buffers["running_mean"], self.buffers["running_variance"]
        n, samples = x.size // x.shape[-1], x.reshape(len(x), math.prod(x.shape[1:]))
        moving = training and not self._frozen
        if moving:
            if n < 2:
                raise ValueError(
                    f"{self.label} normalises over the batch in training and got 1 sample, one value per "
                    f"channel, shape {x.shape}: give it batches of at least two rows."
                )
            mean, variance = batch_statistics(samples, x.shape[-1])
            running_mean += self.momentum * (mean - running_mean)
            running_variance += self.momentum * (variance * (n / (n - 1)) - running_variance)
        else:
            mean, variance = running_mean.copy(), running_variance
        scale = 1 / np.sqrt(variance + self.epsilon)
        self.kept = samples, mean, scale, moving
        y = self.empty(x.shape)
        w, b = scale * self.w if self.scale else scale, self.b if self.bias else None
        batch_normalize(samples, mean, w, b, y.reshape(samples.shape))
        return y

    def backward(self, grad: Array) -> Array:
        samples, mean, scale, moved = self.kept
        n, grads = samples.size // len(mean), grad.reshape(samples.shape)
        sums, products = batch_gradient_sums(grads, samples, mean)
        if self.bias:
            self.b_gradient[...] = sums
        if self.scale:
            np.multiply(products, scale, out=self.w_gradient)
        through = (sums / n, products / n * scale * scale) if moved else None
        w, x_gradient = scale * self.w if self.scale else scale, self.empty(grad.shape)
        batch_normalize_backward(grads, samples, mean, w, through, x_gradient.reshape(samples.shape))
        return x_gradient


class LayerNorm(Norm):
    """y = w (x - mean) / sqrt(variance + epsilon) + b, mean and variance over the last axis; x (N, ..., C).

    axes=k: over the last k axes, whose shape w and b have. scale=False: without w; bias=False: without b.
    Ba, Kiros and Hinton 2016 (1607.06450); as torch.nn.LayerNorm(shape of these axes). Keras: epsilon 1e-3.
    ValueError for inputs of fewer axes, or of other sizes than it was built for.
    """

    torch, keras = "LayerNorm(eps=epsilon)", "LayerNormalization(epsilon=epsilon)"
    _over: Any = -1

    def __init__(
        self, epsilon: float = 1e-5, scale: bool = True, bias: bool = True, axes: int = 1, name: str | None = None
    ) -> None:
        super().__init__(epsilon, scale, bias, name)
        self.axes = arguments.count("axes", axes)
        self._over = -1 if self.axes == 1 else tuple(range(-self.axes, 0))

    def output_shape(self, input_shape: Shape) -> Shape:
        sizes, built = input_shape[-self.axes :], (self.input_shape or input_shape)[-self.axes :]
        if self.axes > 1 and (len(sizes) < self.axes or sizes != built):
            expected = f"whose last axes are {built}" if self.input_shape else f"of {self.axes} axes or more"
            raise ValueError(
                f"{self.label} takes inputs {expected}, got inputs of shape {input_shape} (without the batch axis)."
            )
        super().output_shape(input_shape)
        return shapes.several_numbers(self, input_shape, math.prod(sizes))

    def forward(self, x: Array, training: bool) -> Array:
        z, scale, _, _ = normalize(x, self._over, self.epsilon)
        self.kept = z, scale
        return self._scaled(z)

    def backward(self, grad: Array) -> Array:
        z, scale = self.kept
        return normalize_backward(self._scaled_backward(grad, z), z, scale, self._over)


class GroupNorm(Norm):
    """As LayerNorm, but over space and a group of C / groups channels; x (N, ..., C).

    Wu and He 2018 (1803.08494); as torch.nn.GroupNorm. Keras: epsilon 1e-3. ValueError if `groups` does not
    divide the channels.
    """

    torch = "GroupNorm(eps=epsilon, num_groups=groups)"
    keras = "GroupNormalization(epsilon=epsilon, groups=groups)"

    def __init__(
        self, groups: int, epsilon: float = 1e-5, scale: bool = True, bias: bool = True, name: str | None = None
    ) -> None:
        super().__init__(epsilon, scale, bias, name)
        self.groups = arguments.count("groups", groups)

    def output_shape(self, input_shape: Shape) -> Shape:
        super().output_shape(input_shape)
        if input_shape[-1] % self.groups:
            raise ValueError(
                f"{self.label} splits the channels into {self.groups} groups of one size, got {input_shape[-1]} "
                f"channels: choose groups that divide them."
            )
        return shapes.several_numbers(self, input_shape, math.prod(input_shape) // self.groups)

    def _grouped(self, x: Array) -> Array:
        return x.reshape(len(x), math.prod(x.shape[1:-1]), self.groups, x.shape[-1] // self.groups)

    def forward(self, x: Array, training: bool) -> Array:
        z, scale, _, _ = normalize(self._grouped(x), (1, 3), self.epsilon)
        self.kept = z, scale
        return self._scaled(z.reshape(x.shape))

    def backward(self, grad: Array) -> Array:
        z, scale = self.kept
        z_gradient = self._scaled_backward(grad, z.reshape(grad.shape))
        return normalize_backward(self._grouped(z_gradient), z, scale, (1, 3)).reshape(grad.shape)


class RMSNorm(Norm):
    """y = w x / sqrt(mean(x^2) + epsilon), the mean over the last axis; x (N, ..., C), w (C,).

    Zhang and Sennrich 2019 (1910.07467). epsilon=None is the dtype's machine epsilon, as in PyTorch; Keras: 1e-6.
    scale=False: without w.
    """

    torch, keras = "RMSNorm(eps=epsilon)", "RMSNormalization(epsilon=epsilon)"
    epsilon: Any
    bias = False

    def __init__(self, epsilon: float | None = None, scale: bool = True, name: str | None = None) -> None:
        super().__init__(0.0 if epsilon is None else epsilon, scale, False, name)
        self.epsilon = epsilon

    def forward(self, x: Array, training: bool) -> Array:
        epsilon = float(np.finfo(x.dtype).eps) if self.epsilon is None else self.epsilon
        scale = 1 / np.sqrt(mean(x * x, -1) + epsilon)
        z = x * scale
        self.kept = z, scale
        return self._scaled(z)

    def backward(self, grad: Array) -> Array:
        z, scale = self.kept
        z_gradient = self._scaled_backward(grad, z)
        return scale * (z_gradient - z * mean(z_gradient * z, -1))


# Shape -------------------------------------------------------------------------------------------------------


class Flatten(Layer):
    """All axes but the batch's as one: (N, ...) to (N, D)."""

    torch = keras = "Flatten"
    stackable = True

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x.shape
        at = len(self._flat.lead) + 1
        return x.reshape(*x.shape[:at], math.prod(x.shape[at:]))

    def backward(self, grad: Array) -> Array:
        return grad.reshape(self.kept)


class Reshape(Layer):
    """(N, ...) to (N, *shape); one size may be -1 and follows from the others. ValueError if the sizes do not fit."""

    stackable = True

    def __init__(self, shape: Sequence[int], name: str | None = None) -> None:
        super().__init__(name)
        try:
            self.shape = tuple(operator.index(size) for size in shape)
        except TypeError:
            raise TypeError(f"shape is a tuple of integers, such as (28, 28) or (-1,), got {shape!r}.") from None
        if any(size < 1 and size != -1 for size in self.shape) or self.shape.count(-1) > 1:
            raise ValueError(f"shape has positive sizes and at most one -1, got {self.shape}.")

    def output_shape(self, input_shape: Shape) -> Shape:
        size, known = math.prod(input_shape), math.prod(s for s in self.shape if s != -1)
        if size % known or (-1 not in self.shape and size != known):
            raise ValueError(
                f"{self.label} makes shape {self.shape}, got inputs of shape {input_shape}, {size} numbers each."
            )
        return tuple(size // known if s == -1 else s for s in self.shape)

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x.shape
        at = len(self._flat.lead) + 1
        return x.reshape(*x.shape[:at], *self.output_shape(x.shape[at:]))

    def backward(self, grad: Array) -> Array:
        return grad.reshape(self.kept)


class Lambda(Layer):
    """y = function(x). `gradient(x, dL/dy) -> dL/dx` is needed only if something below is trained.

    A file holds no functions: who loads the net gives them again, `load(path, custom={"name": function})`.
    """

    def __init__(
        self,
        function: Callable[[Array], Array],
        gradient: Callable[[Array, Array], Array] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        for argument in (function, gradient):
            if argument is not None and not callable(argument):
                raise TypeError(f"Lambda takes functions, got {argument!r}.")
        self.function = function
        self.gradient = gradient

    def forward(self, x: Array, training: bool) -> Array:
        self.kept = x
        return np.asarray(self.function(x), x.dtype)

    def backward(self, grad: Array) -> Array | None:
        if not self.input_gradient_needed:
            return None
        if self.gradient is None:
            raise TypeError(
                f"{self.label} has no gradient and something below it is trained: "
                f"give Lambda(function, gradient), gradient(x, grad) -> dL/dx."
            )
        return self.gradient(self.kept, grad)


# Containers --------------------------------------------------------------------------------------------------


class Chain(Layer):
    """Layers one after the other: the output of each is the input of the next.

    TypeError for what is not a layer; ValueError for a layer that stands in a net already.
    """

    def __init__(self, layers: Sequence[Layer], name: str | None = None) -> None:
        super().__init__(name)
        self.layers = tuple(layers) if isinstance(layers, (list, tuple)) else (layers,)
        for place, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                hint = f": write {layer.__name__}(...)" if isinstance(layer, type) else ""
                raise TypeError(f"layers[{place}] is not a Layer but {layer!r}{hint}.")
        if not self.layers:
            raise ValueError(f"{type(self).__name__} takes at least one layer, got none.")
        self._random = [layer for layer in self.layers if layer.random]
        self._own()

    _backward_plan_of: Any = (-1, (), None)  # version of the parameter vector, and what `_plan_backward` found then

    def children(self) -> dict[str, Layer]:
        return {f"layers.{place}": layer for place, layer in enumerate(self.layers)}

    def _own(self) -> None:
        """Become the owner of the layers within. A layer has one owner only."""
        seen: set[int] = set()
        for layer in self.children().values():
            owner = layer._owner() if layer._owner else None
            if id(layer) in seen or owner not in (None, self):
                raise ValueError(
                    f"{layer.label} stands in a net already, and a layer stands in one place only: "
                    f"give its copy here, layer.copy()."
                )
            seen.add(id(layer))
        for layer in self.children().values():
            layer._owner = weakref.ref(self)
        self._name_paths("")

    def _name_paths(self, prefix: str) -> None:
        for name, layer in self.children().items():
            layer.path = prefix + name
            if isinstance(layer, Chain):
                layer._name_paths(layer.path + ".")

    def setup(self, input_shape: Shape) -> None:
        for layer in self.layers:
            layer._declare(input_shape)
            input_shape = layer.output_shape(input_shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.layers:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    @property
    def integer_input(self) -> bool:  # type: ignore[override]
        """Whether the first layer takes integers."""
        return self.layers[0].integer_input

    def check_input(self, x: Array) -> None:
        self.layers[0].check_input(x)

    @property
    def stackable(self) -> bool:  # type: ignore[override]
        """Whether every layer serves a stack of copies."""
        return all(child.stackable for child in self.children().values())

    @property
    def min_batch(self) -> int:  # type: ignore[override]
        """The rows that a training batch must have for every layer."""
        return max(child.min_batch for child in self.children().values())

    def _inference_view(self, workspace: Workspace) -> Any:
        view = super()._inference_view(workspace)
        view._random = []  # an inference view never evaluates a batch again
        return view

    def forward(self, x: Array, training: bool) -> Array:
        dtype = self._flat.dtype
        self.kept = x, training  # `Model.reevaluate` needs it, and the generators' states
        if training and self._random and self._workspace.repeatable:
            for layer in self._random:
                layer.rng_state = layer.rng.bit_generator.state
        for layer in self.layers:
            x = layer.forward(x, training)
            if x.dtype is not dtype:  # a layer of one's own may slip, say by np.sqrt(2)
                x = np.asarray(x, dtype)
        return x

    def backward(self, grad: Array) -> Array | None:
        if self.kept is None:
            raise RuntimeError(f"{self.label}.backward(grad) follows net(x, training=True): call that first.")
        dtype = self._flat.dtype
        if self.input_gradient_needed:
            above, lowest = self.layers[::-1], None
        else:
            version, above, lowest = self._backward_plan_of
            if version != self._flat.version:
                above, lowest = self._plan_backward()
        for layer in above:
            below = layer.backward(grad)
            if below is None:
                if lowest is None and layer is above[-1]:  # an Embedding at the bottom has no dL/dx
                    return None
                raise TypeError(
                    f"{layer.label}: backward returned None, and there are layers below it: return dL/dx from it."
                )
            grad = below if below.dtype is dtype else np.asarray(below, dtype)
        if lowest is not None:
            lowest.input_gradient_needed = False
            try:
                lowest.backward(grad)
            finally:
                lowest.input_gradient_needed = True
        return grad if self.input_gradient_needed else None

    def _plan_backward(self) -> tuple[Any, Any]:
        """For a pass whose dL/dx nobody reads: the lowest layer that an optimizer may move, after those above it."""
        first = next((place for place, layer in enumerate(self.layers) if layer.trainable), None)
        plan = ((), None) if first is None else (self.layers[:first:-1], self.layers[first])
        self._backward_plan_of = (self._flat.version, *plan)
        return plan

    def config(self) -> dict[str, Any]:
        return {"layers": list(self.layers), "name": self.name}

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_backward_plan_of", None)  # another process counts its versions from 0 again
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._own()

    def __getitem__(self, place: int) -> Layer:
        return self.layers[place]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)


class Residual(Chain):
    """y = x + chain(x). ValueError unless the chain ends in the shape that it begins with.    He 2015 (1512.03385)"""

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = super().output_shape(input_shape)
        if shape != input_shape:
            raise ValueError(
                f"{self.label} adds its layers' output to their input: the shapes must be equal, got {input_shape} "
                f"and {shape}."
            )
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        return np.add(x, super().forward(x, training), out=self.empty(x.shape))

    def backward(self, grad: Array) -> Array | None:
        x_gradient = super().backward(grad)
        return None if x_gradient is None else np.add(x_gradient, grad, out=self.empty(grad.shape))


class Parallel(Chain):
    """Branches side by side. Each is a layer or a list of layers, and all get the same x.

    join="concatenate" puts their outputs together along the last axis, join="add" sums them. ValueError if
    the output shapes do not fit together.
    """

    def __init__(self, branches: Sequence[Any], join: str = "concatenate", name: str | None = None) -> None:
        if join not in ("concatenate", "add"):
            raise ValueError(f'join is "concatenate" or "add", got {join!r}.')
        self.branches = tuple(b if type(b) is Chain else Chain(b) for b in branches)
        self.join = join
        super().__init__(self.branches, name)

    def children(self) -> dict[str, Layer]:
        return {f"branches.{place}": branch for place, branch in enumerate(self.branches)}

    def setup(self, input_shape: Shape) -> None:
        for branch in self.branches:
            branch._declare(input_shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        shapes = [branch.output_shape(input_shape) for branch in self.branches]
        if len({shape[:-1] if self.join == "concatenate" else shape for shape in shapes}) > 1:
            raise ValueError(f"{self.label} can't {self.join} branches with outputs of shapes {shapes}.")
        return shapes[0] if self.join == "add" else (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def forward(self, x: Array, training: bool) -> Array:
        outputs = [branch.forward(x, training) for branch in self.branches]
        if self.join == "add":
            return np.add.reduce(outputs)
        self.kept = np.cumsum([y.shape[-1] for y in outputs[:-1]])
        return np.concatenate(outputs, axis=-1)

    def backward(self, grad: Array) -> Array | None:
        grads = [grad] * len(self.branches)
        if self.join == "concatenate":
            grads = [np.ascontiguousarray(child) for child in np.split(grad, self.kept, axis=-1)]
        total = None
        for branch, child in zip(self.branches, grads, strict=True):
            branch.input_gradient_needed = self.input_gradient_needed
            try:
                x_gradient = branch.backward(child)
            finally:
                branch.input_gradient_needed = True
            if x_gradient is not None:
                total = x_gradient if total is None else total + x_gradient
        return total

    def config(self) -> dict[str, Any]:
        return {"branches": [list(b.layers) for b in self.branches], "join": self.join, "name": self.name}


__all__ = [
    "ELU", "GELU", "SELU", "BatchNorm", "Chain", "Dropout", "Embedding", "Flatten", "GaussianNoise", "GroupNorm",
    "HardSigmoid", "HardSwish", "HardTanh", "Lambda", "Layer", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "Mish",
    "PReLU", "Parallel", "RMSNorm", "ReLU", "ReLU6", "Reshape", "Residual", "SiLU", "Sigmoid", "Softmax", "Softplus",
    "Softsign", "Tanh",
]  # fmt: skip
__all__ += list(lazy.ELSEWHERE["layers"])
