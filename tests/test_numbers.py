"""Activations, their derivatives and the losses against 50-digit values, from 1e-40 to 1e30, in both dtypes.

The bound is a relative error of 16 eps wherever the true value is a normal number. Where a function saturates, as
Tanh's slope does, and beside a root, the error is at most eps, as PyTorch's is.
"""

from pathlib import Path

import numpy as np
import pytest

import layers
import loss
from layers import GELU, BatchNorm, GroupNorm, LayerNorm, Linear, LogSoftmax, Model, Sigmoid, Softmax
from loss import BinaryCrossEntropy, CrossEntropy, LogCosh, PoissonNLL

EXACT = dict(np.load(Path(__file__).parent / "reference" / "numbers.npz"))
X = EXACT["x"]
NAMES = [key.removesuffix("/y") for key in EXACT if key.endswith("/y")]
ROOTS = {"GELU": -0.75179, "GELU-tanh": -0.75246, "SiLU": -1.27846, "Mish": -1.19243, "HardSwish": -1.5}  # of slopes

in_both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_activation = pytest.mark.parametrize("name", NAMES)


def check(found, exact, dtype, saturated=False, size=None):
    """`saturated`: where an error of eps will do; `size` in the place of `exact`, where terms of that size cancel."""
    assert found.dtype == dtype
    limits = np.finfo(dtype)
    size = np.abs(exact) if size is None else size
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(found.astype(float) - exact)
        good = error <= np.where(np.abs(exact) < limits.tiny, limits.tiny, 16 * limits.eps * size)
    good |= saturated & (error <= limits.eps)
    good |= np.abs(exact) > limits.max
    assert good.all(), [(place, found[place], exact[place]) for place in np.flatnonzero(~good)[:5]]


def activation(name, dtype):
    made = GELU(approximate="tanh") if name == "GELU-tanh" else getattr(layers, name)()
    return made.copy(dtype=dtype)


def test_every_smooth_activation_has_its_row():
    """One that bends is of straight pieces as a rule, whose golden values say as much; those that are not are here."""
    ours = {name for name in layers.__all__ if issubclass(getattr(layers, name), layers.Nonlinearity)}
    smooth = {name for name in ours if not getattr(layers, name).kinks}
    rows = {name.removesuffix("-tanh") for name in NAMES}
    assert sorted(smooth - rows) == [], "write each into make_numbers.py, then run it; or has it `kinks`?"
    assert sorted(rows - ours) == [], "no activation is called that"


@every_activation
@in_both_dtypes
def test_activations(name, dtype):
    check(activation(name, dtype)(X[:, None])[:, 0], EXACT[f"{name}/y"], dtype)


@every_activation
@in_both_dtypes
def test_derivatives_of_activations(name, dtype):
    layer = activation(name, dtype)
    layer(X[:, None])
    saturated = {"Sigmoid": X > 0, "Tanh": True}.get(name, np.abs(X - ROOTS.get(name, np.inf)) < 0.1)
    check(layer.backward(np.ones((len(X), 1), dtype))[:, 0], EXACT[f"{name}/slope"], dtype, saturated)


@in_both_dtypes
def test_softmax_and_log_softmax_of_two_columns(dtype):
    """Of (x, 0) the first column is sigmoid(x), and its logarithm -softplus(-x); X is symmetric."""
    two, first = np.stack([X, 0 * X], 1), np.tile([1, 0], (len(X), 1)).astype(dtype)
    softmax, log_softmax = Softmax().copy(dtype=dtype), LogSoftmax().copy(dtype=dtype)
    check(softmax(two)[:, 0], EXACT["Sigmoid/y"], dtype)
    check(softmax.backward(first)[:, 0], EXACT["Sigmoid/slope"], dtype, X > 0)
    check(log_softmax(two)[:, 0], -EXACT["Softplus/y"][::-1], dtype, X > 0)
    check(log_softmax.backward(first)[:, 0], EXACT["Sigmoid/y"][::-1], dtype, X > 0)


@in_both_dtypes
def test_cross_entropy_of_two_columns(dtype):
    two, real = np.stack([X, 0 * X], 1).astype(dtype), np.zeros(len(X), int)
    of_logits = CrossEntropy(from_logits=True, reduction="sum")
    check(of_logits.forward(two, real), EXACT["Softplus/y"][::-1], dtype, X > 0)
    of_logits(two, real)
    check(of_logits.backward()[:, 0], -EXACT["Sigmoid/y"][::-1], dtype, X > 0)
    softmax, after_softmax = Softmax().copy(dtype=dtype), CrossEntropy(reduction="sum")
    after_softmax(softmax(two), real)
    check(softmax.backward(after_softmax.backward())[:, 0], -EXACT["Sigmoid/y"][::-1], dtype, X > 0)


@in_both_dtypes
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("LogCosh", LogCosh(reduction="sum")),
        ("PoissonNLL", PoissonNLL(reduction="sum")),
        ("BinaryCrossEntropy-logits", BinaryCrossEntropy(from_logits=True, reduction="sum")),
    ],
)
def test_losses(name, made, dtype):
    pred, real = EXACT[f"{name}/pred"], EXACT[f"{name}/real"]
    size = slope_size = None
    if name == "PoissonNLL":  # both have roots, for each target others
        size, slope_size = np.exp(pred) + np.abs(real * pred), np.exp(pred) + real
    fractions = real % 1 > 0  # whose slope has a root
    check(made.forward(pred.astype(dtype), real.astype(dtype)), EXACT[f"{name}/value"], dtype, size=size)
    made(pred.astype(dtype), real.astype(dtype))
    check(made.backward(), EXACT[f"{name}/slope"], dtype, fractions, slope_size)


@in_both_dtypes
def test_binary_cross_entropy_after_a_sigmoid(dtype):
    """As far as the probability says it: 1 - p where p is above 1/2, and a logarithm of at most 100."""
    x, real = EXACT["Sigmoid-BinaryCrossEntropy/pred"], EXACT["Sigmoid-BinaryCrossEntropy/real"]
    value, slope = EXACT["Sigmoid-BinaryCrossEntropy/value"], EXACT["Sigmoid-BinaryCrossEntropy/slope"]
    sigmoid, entropy = Sigmoid().copy(dtype=dtype), BinaryCrossEntropy(reduction="sum")
    pred = sigmoid(x[:, None])
    with np.errstate(divide="ignore"):  # as a call of the loss has it
        found = entropy.forward(pred, real[:, None].astype(dtype))[:, 0]
    said = (x <= 0) & (x > -87)
    check(found[said], value[said], dtype)
    said = (x > 0) & (real == 1)
    check(found[said], value[said], dtype, True)
    entropy(pred, real[:, None].astype(dtype))
    found = sigmoid.backward(entropy.backward())[:, 0]
    said = (x > np.log(np.finfo(dtype).tiny)) & (x < -np.log(np.finfo(dtype).eps))
    check(found[said], slope[said], dtype, (x[said] > 0) | (real[said] % 1 > 0))


def test_the_sigmoid_of_an_input_far_out_still_learns():
    """torch.nn.BCELoss of torch.sigmoid(-25.): 25, with the gradient -1."""
    net = layers.Model([Sigmoid()])
    entropy = loss.BinaryCrossEntropy()
    assert entropy(net(np.array([[-25.0]]), training=True), [[1.0]]) == pytest.approx(25, rel=1e-6)
    np.testing.assert_allclose(net.backward(entropy.backward()), [[-1]], rtol=1e-6)


@in_both_dtypes
def test_log_cosh_is_never_negative(dtype):
    d = np.geomspace(1e-30, 1e30, 997).astype(dtype)
    assert (LogCosh().forward(d, 0 * d) >= 0).all()


# ---- Outputs that are constant ----


@in_both_dtypes
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (BatchNorm, (100_000, 2)),
        (BatchNorm, (200, 30, 30, 2)),
        (LayerNorm, (2, 100_000)),
        (lambda: GroupNorm(2), (3, 100, 100, 4)),
    ],
)
def test_what_is_constant_is_normalised_to_zero(make, shape, dtype):
    """1000.1, whose sum over many rows is rounded by more than the square root of epsilon."""
    layer = make().copy(dtype=dtype)
    y = layer(np.full(shape, 1000.1), training=True)
    np.testing.assert_allclose(y, 0, atol=1e-6)
    if "running_variance" in layer.buffers:
        np.testing.assert_allclose(layer.buffers["running_mean"], 100.01, rtol=1e-6)
        np.testing.assert_allclose(layer.buffers["running_variance"], 0.9, rtol=1e-6)


@pytest.mark.parametrize("make", [BatchNorm, LayerNorm, lambda: GroupNorm(1)])
def test_norms_far_from_zero(make):
    """100 and one more or less than 100 in turn, over as many rows as columns: z is +-1 / sqrt(1 + epsilon)."""
    signs = np.where(np.add.outer(np.arange(300), np.arange(300)) % 2, 1.0, -1.0)
    y = make()(10_000 + signs, training=True)
    np.testing.assert_allclose(y, signs / np.sqrt(1 + 1e-5), rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Softmax(), (1,), "always gives 1"),
        (LogSoftmax(), (7, 1), "always gives 0"),
        (LayerNorm(), (1,), "one number at a time"),
        (LayerNorm(), (4, 1), "one number at a time"),
        (GroupNorm(3), (3,), "one number at a time"),
        (GroupNorm(2), (1, 1, 2), "one number at a time"),
    ],
)
def test_a_layer_whose_output_would_be_constant_is_refused_when_built(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.build(shape)
    net = Model([Linear(shape[-1]), layer])
    with pytest.raises(ValueError, match=message):
        net.build((*shape[:-1], 5))
    assert net[0].w is None or net[0].w.size == 0


def test_norms_of_one_channel_over_space_are_built():
    GroupNorm(2).build((2, 3, 2))
    Softmax().build((1, 2))
