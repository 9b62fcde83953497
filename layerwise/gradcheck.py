"""gradcheck: is `backward` the derivative of `forward`? For layers of one's own, and for ours.

A layer, or a whole net: `gradcheck(Scale(), x)`. Through a loss: `gradcheck(net, x, loss=MSE(), real=y)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from layerwise import layers
from layerwise.core import arguments

Array = np.ndarray

STEP = 1e-4  # two steps, this and its half, leave an error of STEP^4 in theory, near 1e-11 by rounding
SMALLEST_SCALE = 1e-2  # an array whose gradients are all smaller is compared with this: there, rounding rules
KINK = 2e-6  # of the largest gradient: slopes that differ by more than this do not belong to a smooth function


class Worst(NamedTuple):
    """The largest error that was found, and where: "w[2, 0]", "layers.1.b[3]", "x[0, 4]"."""

    error: float
    where: str

    def __repr__(self) -> str:
        return f"error {self.error:.1e} at {self.where}"


def gradcheck(
    layer_or_net: Any, x: Any, loss: Any = None, seed: int = 0, real: Any = None, training: bool = True
) -> Worst:
    """Compare `backward` with differences of `forward`, for every number of x and of every parameter.

    L = sum(grad y) with a random grad, or loss(y, real); `real` is random where none is given. C(h) being the
    central difference (L(+h) - L(-h)) / 2h, the slope is (4 C(h/2) - C(h)) / 3, h = 1e-4 (Richardson 1911).
    The error is |backward - slope| over the largest gradient in the same array; a right backward stays below
    1e-6. Works on a copy in float64, with the same random draws and buffers in every pass; integers in x are
    not moved. Keep x small, of ordinary size, with another size for every axis.

    ValueError at a kink (slopes left and right that differ; after chainer's gradient_check), for what is not
    finite, not the same twice, or of the wrong shape, and for a pass that writes into what it was given.
    """
    if not isinstance(layer_or_net, layers.Layer):
        raise TypeError(f"gradcheck takes a layer or a net, got {layer_or_net!r}.")
    training = arguments.flag("training", training)
    net = layer_or_net.copy(dtype="float64")
    given = net._converted(x)
    x = given.copy()
    rng = np.random.default_rng((seed, 3))  # not default_rng(seed), which may have made x: grad must not equal it
    if net.input_shape is None:
        net.output_shape(x.shape[1:])  # says what is wrong, if the shape can't be
        net._build(x.shape[1:], [seed])
    forward = _Forward(net, x, training, seed)
    y = _finite("the output", forward()).copy()
    if not np.array_equal(x, given):
        raise ValueError(f"forward of {net.label} writes into x, which is not its own: work on a copy.")
    if not np.array_equal(forward(), y):
        raise ValueError(
            f"{net.label} gives another output in a second pass over the same x: a layer's random numbers come from "
            f"self.rng, and state that a pass moves is declared with add_buffer."
        )

    if loss is None:
        grad = rng.standard_normal(y.shape)
        value: Callable[[], float] = lambda: float(np.vdot(grad, forward()))  # noqa: E731 (mirrors the other)
    else:
        loss = copy.deepcopy(loss)
        real = _random_targets(loss, y, rng) if real is None else real
        value = lambda: loss(forward(), real)  # noqa: E731
        value()
        grad = _finite("the gradient of the loss", loss.backward(), y.shape)

    checks = [
        (f"{leaf.path}.{name}".lstrip("."), parameter, leaf.gradients[name])
        for leaf in net.leaf_layers()
        for name, parameter in leaf.parameters.items()
    ]
    for _, _, gradient in checks:
        gradient[...] = rng.standard_normal(gradient.shape)  # a backward that adds, or sets nothing, is seen
    x_gradient = _backward(net, forward, grad)
    if x.dtype.kind == "f":
        checks.insert(0, ("x", x, x_gradient))
    if not checks:
        raise ValueError(f"{net.label} has nothing to check: its input is of integers, and it has no parameters.")
    return max(_compared(value, name, array, gradient.copy()) for name, array, gradient in checks if array.size)


class _Forward:
    """The same forward pass each time it is called: the same draws, and the buffers as they were."""

    def __init__(self, net: Any, x: Array, training: bool, seed: int) -> None:
        self.net, self.x, self.training = net, x, training
        leaf_layers = list(net.leaf_layers())
        for place, leaf in enumerate(leaf_layers):
            leaf.rng = np.random.default_rng((seed, 2, place))
        self.draws = [(leaf.rng.bit_generator, leaf.rng.bit_generator.state) for leaf in leaf_layers]
        self.buffers = [(buffer, buffer.copy()) for leaf in leaf_layers for buffer in leaf.buffers.values()]

    def __call__(self) -> Array:
        for generator, state in self.draws:
            generator.state = state
        for buffer, value in self.buffers:
            buffer[...] = value
        return self.net(self.x, training=self.training)


def _backward(net: Any, forward: _Forward, grad: Array) -> Array | None:
    """dL/dx, after which the gradients of the parameters are set."""
    given = grad.copy()
    forward()
    x_gradient = net.backward(grad)
    if not np.array_equal(grad, given):
        raise ValueError(f"backward of {net.label} writes into the gradient that it was given: work on a copy.")
    for leaf in net.leaf_layers():
        for name, gradient in leaf.gradients.items():
            _finite(f"{leaf.label}.{name}_gradient", gradient)
    if net.integer_input:
        return None
    return _finite(f"dL/dx, what backward of {net.label} returns,", x_gradient, forward.x.shape)


def _compared(value: Callable[[], float], name: str, array: Array, gradient: Array) -> Worst:
    """The worst of one array, whose numbers are moved one at a time and put back."""
    middle = value()
    slopes, bends = np.empty(array.shape), np.empty(array.shape)
    for place in np.ndindex(array.shape):
        kept = array[place]
        left, right = np.empty(2), np.empty(2)  # the slopes on either side, with the whole step and its half
        for i, step in enumerate((STEP, STEP / 2)):
            array[place] = kept + step
            right[i] = (value() - middle) / step
            array[place] = kept - step
            left[i] = (middle - value()) / step
        array[place] = kept
        central, jump = (left + right) / 2, right - left
        slopes[place] = (4 * central[1] - central[0]) / 3
        # Where L is smooth, half the step leaves the central difference as it is and halves the jump; one of the
        # two fails wherever a kink lies within the step.
        bends[place] = abs(central[0] - central[1]) + abs(jump[0] - 2 * jump[1])

    scale = max(np.abs(slopes).max(), SMALLEST_SCALE)
    if not np.isfinite(scale):
        raise ValueError(
            f"forward is not finite within {STEP:g} of {_place(name, ~np.isfinite(slopes))}: move it away."
        )
    if bends.max() > KINK * scale:
        raise ValueError(
            f"a kink at {_place(name, bends)}, or a bend too sharp for a step of {STEP:g}: the slopes on its two sides "
            f"do not agree, so there is no derivative to compare with. Move x (or that parameter) away, as by x + 0.01."
        )
    errors = np.abs(gradient - slopes) / max(scale, np.abs(gradient).max())
    return Worst(float(errors.max()), _place(name, errors))


def _place(name: str, values: Array) -> str:
    """The place of the largest value, as one writes it."""
    place = np.unravel_index(values.argmax(), values.shape)
    return f"{name}[{', '.join(str(index) for index in place)}]"


def _finite(what: str, array: Any, shape: tuple[int, ...] | None = None) -> Array:
    if not isinstance(array, np.ndarray) or (shape is not None and array.shape != shape):
        got = f"shape {array.shape}" if isinstance(array, np.ndarray) else repr(array)
        raise ValueError(f"{what} is an array" + (f" of shape {shape}" if shape is not None else "") + f", got {got}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} holds NaN or infinity: there is nothing to compare.")
    return array


def _random_targets(loss: Any, pred: Array, rng: np.random.Generator) -> Array:
    if getattr(loss, "takes_class_numbers", False):
        return rng.integers(pred.shape[-1], size=pred.shape[:-1])
    return rng.uniform(size=pred.shape)


__all__ = ["Worst", "gradcheck"]
