"""What holds for any net, any array and any split: hypothesis draws the nets, the shapes and the numbers."""

import math
import pickle
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings, strategies as st
from test_losses import TABLE

import layers
import loss
import model
import optim
from layerwise.core import blocks as core_blocks
from layerwise.gradcheck import gradcheck

few = settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32 - 1)

# Any net -----------------------------------------------------------------------------------------------------------


def negative(x):
    return -x


def negative_gradient(x, grad):
    return -grad


ACTIVATIONS = [
    each for name, each in vars(layers).items() if name in layers.__all__ and issubclass(each, layers.Nonlinearity)
]
SMOOTH = [*(each for each in ACTIVATIONS if not each.kinks), layers.Softmax, layers.LogSoftmax]
KINKED = [*(each for each in ACTIVATIONS if each.kinks), lambda: layers.PReLU(per_channel=True)]
PLAIN = [layers.BatchNorm, layers.LayerNorm, layers.RMSNorm, lambda: layers.BatchNorm(scale=False),
         lambda: layers.BatchNorm(bias=False), lambda: layers.RMSNorm(scale=False), lambda: layers.Dropout(0.3),
         lambda: layers.GaussianNoise(0.1), lambda: layers.Lambda(negative, negative_gradient)]  # fmt: skip


def numbers(draw, low, high):
    return draw(st.integers(low, high))


def legal(kinds, shape):
    """Those that can be built: what is constant over one column is refused."""
    constant = [] if shape[-1] > 1 else [layers.Softmax, layers.LogSoftmax, layers.LayerNorm]
    return [kind for kind in kinds if kind not in constant]


def anywhere(draw, shape):
    """A layer that takes any shape."""
    what = numbers(draw, 0, 5)
    if what < 2:
        return draw(st.sampled_from(legal(SMOOTH, shape)))()
    if what == 2:
        return draw(st.sampled_from(KINKED))()
    if what == 3:
        return draw(st.sampled_from(legal(PLAIN, shape)))()
    if what == 4 and math.prod(shape) > 1:
        groups = [g for g in range(1, 5) if shape[-1] % g == 0 and math.prod(shape) > g]
        return layers.GroupNorm(draw(st.sampled_from(groups)))
    return layers.Linear(numbers(draw, 1, 5), bias=draw(st.booleans()))


def over_images(draw, shape):
    """A layer that takes (H, W, C)."""
    h, w, c = shape
    kernel = (numbers(draw, 1, min(h, 3)), numbers(draw, 1, min(w, 3)))
    stride, padding = numbers(draw, 1, 2), draw(st.sampled_from([0, 1, "same"]))
    pool = {"stride": stride}
    choices = [
        lambda: layers.Conv2D(numbers(draw, 1, 4), kernel, stride=stride, padding=padding),
        lambda: layers.Conv2D(2 * c, kernel, groups=c, padding="same"),
        lambda: layers.DepthwiseConv2D(kernel, multiplier=numbers(draw, 1, 2), padding="same"),
        lambda: layers.ConvTranspose2D(
            numbers(draw, 1, 3), kernel, stride=stride, output_padding=numbers(draw, 0, stride - 1)
        ),
        lambda: layers.MaxPool2D(kernel, **pool),
        lambda: layers.AveragePool2D(kernel, **pool, padding="same", count_padding=draw(st.booleans())),
        lambda: layers.ZeroPad2D(numbers(draw, 0, 2)),
        lambda: layers.UpSample2D((1, 2)),
        lambda: layers.SpatialDropout(0.3),
        *([lambda: layers.LayerNorm(axes=numbers(draw, 2, 3))] if w * c > 1 else []),
        layers.GlobalAveragePool2D,
        layers.GlobalMaxPool2D,
        layers.Flatten,
        lambda: layers.Reshape((h * w, c)),
    ]
    return draw(st.sampled_from(choices))()


def over_time(draw, shape):
    """A layer that takes (T, C)."""
    t, c = shape
    kernel = numbers(draw, 1, min(t, 3))
    choices = [
        lambda: layers.Conv1D(numbers(draw, 1, 4), kernel, padding=draw(st.sampled_from([0, "same", "causal"]))),
        lambda: layers.MaxPool1D(kernel),
        lambda: layers.AveragePool1D(kernel),
        layers.GlobalAveragePool1D,
        layers.GlobalMaxPool1D,
        layers.Flatten,
        lambda: layers.Reshape((c, t)),
    ]
    return draw(st.sampled_from(choices))()


def within(draw, shape):
    """A container that takes any shape."""
    inner = stack(draw, shape, numbers(draw, 1, 2), containers=False)
    kept = draw(st.sampled_from(legal(SMOOTH + PLAIN, shape)))()
    choices = [
        lambda: layers.Residual([kept, layers.Linear(shape[-1])]),
        lambda: layers.Parallel([layers.Linear(2), kept]),
        lambda: layers.Parallel([kept, layers.Linear(shape[-1])], join="add"),
        lambda: layers.Chain(inner),
        lambda: layers.Model(inner),
    ]
    return draw(st.sampled_from(choices))()


def stack(draw, shape, depth, containers=True):
    """Layers that go one after the other, for inputs of this shape."""
    members = []
    for _ in range(depth):
        kinds = [anywhere] + [within] * containers + {3: [over_images] * 4, 2: [over_time] * 4}.get(len(shape), [])
        part = draw(st.sampled_from(kinds))(draw, shape)
        if math.prod(part.copy().output_shape(shape)) <= 300:
            members.append(part)
            shape = part.output_shape(shape)
    return members or [layers.Tanh()]


@st.composite
def nets(draw, dtype="float32"):
    """(net, x): any legal stack, and a batch for it; every axis has a size of its own."""
    shape = draw(st.sampled_from([(6,), (4, 3), (5, 4, 2), (5, 4, 2)]))
    n = numbers(draw, 2, 7)
    rng = np.random.default_rng(draw(seeds))
    if draw(st.integers(0, 7)) == 0:
        members, x = [layers.Embedding(9, 3), *stack(draw, (4, 3), 2)], rng.integers(0, 9, (n, 4))
    else:
        members, x = stack(draw, shape, numbers(draw, 1, 4)), rng.standard_normal((n, *shape))
    return layers.Model(members, seed=numbers(draw, 0, 99), dtype=dtype), x


def step(net, x, seed=1):
    """One epoch of one batch, towards random numbers."""
    net.build(x.shape[1:])
    y = np.random.default_rng(seed).standard_normal((len(x), *net.output_shape(x.shape[1:])))
    if any(leaf.parameters for leaf in net.leaf_layers()):
        net.train(x, y, optim=optim.Adam(0.01), loss=loss.MSE(), epochs=2, batch_size=len(x), verbose=False)


def bits(net):
    return [
        (leaf.path, name, array.dtype, array.shape, array.tobytes())
        for leaf in net.leaf_layers()
        for name, array in (leaf.parameters | leaf.buffers).items()
    ]


@few
@given(nets(), st.sampled_from([".npz", ".safetensors"]), st.sampled_from(["float32", "float64"]))
def test_any_net_trains_and_comes_back_the_same(drawn, suffix, dtype):
    """From a file, from a pickle, from a copy; and each goes on to the same bits."""
    net, x = drawn
    net = net.copy(dtype=dtype)
    step(net, x)
    assert all(np.isfinite(array).all() for leaf in net.leaf_layers() for array in leaf.parameters.values())
    functions = {"negative": negative, "negative_gradient": negative_gradient}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net{suffix}"
        net.save(path)
        twins = [model.load(path, custom=functions), pickle.loads(pickle.dumps(net)), net.copy()]
    for twin in twins:
        assert bits(twin) == bits(net)
        assert twin.predict(x).tobytes() == net.predict(x).tobytes()
    for twin in twins[1:]:  # with their place in the random numbers; a file has none
        step(twin, x)
    step(net, x)
    for twin in twins[1:]:
        assert bits(twin) == bits(net)


@settings(few, max_examples=40)
@given(nets("float64"))
def test_any_nets_backward_is_the_derivative_of_its_forward(drawn):
    net, x = drawn
    if x.dtype.kind == "f":
        x = (np.floor(96 * x) + 0.5) / 64
    kink = None
    try:
        worst = gradcheck(net, x)
    except ValueError as error:  # a kink has no derivative
        kink = str(error)
    assert "kink" in kink if kink else worst.error < 1e-5, kink or worst


@few
@given(nets(), st.integers(1, 7))
def test_any_net_predicts_the_same_by_batches(drawn, batch_size):
    net, x = drawn
    np.testing.assert_allclose(net.predict(x, batch_size=batch_size), net.predict(x), rtol=1e-4, atol=1e-5)


# Any array ---------------------------------------------------------------------------------------------------------

ORDERS = {
    "Fortran": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "last axis backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "turned": lambda x: (
        np.ascontiguousarray(np.moveaxis(x, 0, -1)).T
        if x.ndim == 2
        else np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)
    ),
    "a part": lambda x: np.pad(x, [(1, 1)] * x.ndim)[(slice(1, -1),) * x.ndim],
    "list": np.ndarray.tolist,
    "bytes swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "read only": lambda x: np.broadcast_to(x, x.shape),
}


@few
@given(nets(), st.sampled_from(list(ORDERS)), st.sampled_from(list(ORDERS)))
def test_the_order_in_memory_changes_no_bit(drawn, order, order_of_y):
    net, x = drawn
    x = x.astype(np.float32) if x.dtype.kind == "f" else x
    net.build(x.shape[1:])
    y = np.random.default_rng(0).standard_normal((len(x), *net.output_shape(x.shape[1:]))).astype(np.float32)
    twin = net.copy()
    assert net.predict(ORDERS[order](x)).tobytes() == net.predict(x).tobytes()
    if net.parameter_count:
        for each, data in ((net, (x, y)), (twin, (ORDERS[order](x), ORDERS[order_of_y](y)))):
            each.train(*data, optim=optim.SGD(0.01), loss=loss.MSE(), epochs=2, batch_size=3, verbose=False)
    assert bits(twin) == bits(net)


@few
@given(st.sampled_from(["int8", "uint8", "int64", "bool", "float16", "float32", "float64"]), seeds)
def test_numbers_of_any_dtype_are_the_same_numbers(dtype, seed):
    x = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 100, (5, 3))
    net = layers.Model([layers.Linear(4), layers.Tanh()], seed=0)
    assert net.predict(x.astype(dtype)).tobytes() == net.predict(x.astype(np.float64)).tobytes()


# Any batch and any weights -----------------------------------------------------------------------------------------


# Weights of classes count in the mean's divisor, so that the scale of the samples' own does not.
LOSSES = {name: row for name, row in TABLE.items() if not {"weight", "pos_weight", "ignore_index"} & row[1].keys()}


@few
@given(st.sampled_from(list(LOSSES)), st.integers(1, 9), st.integers(2, 4), seeds, st.floats(0.01, 100))
def test_a_loss_over_any_batch(name, n, classes, seed, factor):
    """The order of the rows changes nothing; a mean not the scale of the weights; a sum goes with it; a row that weighs
    2 is a row that is there twice; and gradients follow the rows."""
    make, arguments, draw_pred, draw_real = LOSSES[name]
    rng, shape = np.random.default_rng(seed), (n, classes * make.outputs)
    pred, real = draw_pred(rng, shape), draw_real(rng, shape)
    weight, order = rng.integers(1, 4, n).astype(float), rng.permutation(n)
    close = {"rtol": 1e-9, "atol": 1e-12}

    def told(reduction, *data):
        each = make(**arguments, reduction=reduction)
        return each(*data), each.backward()

    for reduction in ("mean", "sum", "batch_sum"):
        value, grad = told(reduction, pred, real, weight)
        other, others = told(reduction, pred[order], real[order], weight[order])
        np.testing.assert_allclose(other, value, **close)
        np.testing.assert_allclose(others, grad[order], **close)
        scaled, scaled_grad = told(reduction, pred, real, weight * factor)
        by = 1 if reduction == "mean" else factor
        np.testing.assert_allclose(scaled, value * by, **close)
        np.testing.assert_allclose(scaled_grad, grad * by, **close)
        counts = weight.astype(int)
        repeated, repeated_grad = told(reduction, np.repeat(pred, counts, 0), np.repeat(real, counts, 0))
        np.testing.assert_allclose(repeated, value, **close)
        np.testing.assert_allclose(np.add.reduceat(repeated_grad, np.cumsum(counts) - counts), grad, **close)


# Any split of the parameters ---------------------------------------------------------------------------------------

ELEMENTWISE = [
    name
    for name in optim.__all__
    if isinstance(getattr(optim, name), type)
    and issubclass(getattr(optim, name), optim.Optimizer)
    and not issubclass(getattr(optim, name), optim.Wrapper)
    and getattr(optim, name) not in (optim.Optimizer, optim.PerLayer)
    and not getattr(optim, name).whole_parameters
    and not getattr(optim, name).reevaluate
    and getattr(optim, name).survey is optim.Optimizer.survey
]


@few
@given(st.sampled_from(ELEMENTWISE), st.integers(1, 40), st.data(), seeds)
def test_an_elementwise_rule_does_not_see_how_the_parameters_are_split(name, size, data, seed):
    """As one array, as several, and in blocks of any size: the same bits."""
    rng = np.random.default_rng(seed)
    cuts = sorted(data.draw(st.sets(st.integers(1, size), max_size=4)))
    block = data.draw(st.integers(1, 50))
    w = rng.standard_normal(size).astype(np.float32)
    whole, members, blocks = [w.copy()], [part.copy() for part in np.split(w, cuts)], [w.copy()]
    rules = [getattr(optim, name)() for _ in range(3)]
    before = core_blocks.BLOCK
    for _ in range(4):
        g = rng.standard_normal(size).astype(np.float32)
        rules[0].step(whole, [g])
        rules[1].step(members, np.split(g, cuts))
        core_blocks.BLOCK = block
        try:
            rules[2].step(blocks, [g])
        finally:
            core_blocks.BLOCK = before
    np.testing.assert_array_equal(np.concatenate(members), whole[0])
    np.testing.assert_array_equal(blocks[0], whole[0])


def test_the_rules_of_that_test_are_many():
    assert len(ELEMENTWISE) > 12


@few
@given(st.integers(1, 4), st.integers(2, 12), seeds)
def test_a_batch_in_parts_is_the_batch(members, rows, seed):
    """Gradients of equal parts, gathered by Accumulate, are the gradient of the whole."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((members * rows, 3)), rng.standard_normal((members * rows, 2))
    net = layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(2)], seed=0, dtype="float64").build((3,))
    twin, options = net.copy(), {"loss": loss.MSE(), "epochs": 1, "shuffle": False, "verbose": False}
    net.train(x, y, optim=optim.Adam(0.1), batch_size=len(x), **options)
    twin.train(x, y, optim=optim.Accumulate(optim.Adam(0.1), members), batch_size=rows, **options)
    np.testing.assert_allclose(twin.vector, net.vector, rtol=1e-7, atol=1e-9)
