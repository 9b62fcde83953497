"""layers.py: one table of layers, and over it gradients, golden values, and what every layer promises."""

import copy
import inspect
import io
import itertools
import json
import math
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest

import layers
import loss
import optim
from layers import (
    ELU,
    GELU,
    SELU,
    BatchNorm,
    Chain,
    Conv2D,
    Dropout,
    Embedding,
    Flatten,
    GaussianNoise,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    HardTanh,
    Lambda,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    Mish,
    Model,
    Parallel,
    PReLU,
    ReLU,
    ReLU6,
    Reshape,
    Residual,
    RMSNorm,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from layerwise.core import lazy, numeric, parameters
from layerwise.gradcheck import gradcheck

N, T, H, W, C = 5, 4, 2, 3, 6  # every axis has a size of its own


def cube(x):
    return x * x * x


def cube_gradient(x, grad):
    return 3 * x * x * grad


TABLE = {  # the name of a layer, and what sets the row apart: (make, shape of x)
    "Linear": (lambda: Linear(7), (N, C)),
    "Linear without bias": (lambda: Linear(7, bias=False), (N, C)),
    "Linear over time": (lambda: Linear(7), (N, T, C)),
    "Embedding": (lambda: Embedding(7, 3), (N, T)),
    "Sigmoid": (Sigmoid, (N, C)),
    "Tanh": (Tanh, (N, C)),
    "ReLU": (ReLU, (N, T, C)),
    "LeakyReLU": (lambda: LeakyReLU(0.2), (N, C)),
    "PReLU": (PReLU, (N, T, C)),
    "PReLU per channel": (lambda: PReLU(per_channel=True), (N, T, C)),
    "ELU": (ELU, (N, C)),
    "ELU with alpha": (lambda: ELU(0.7), (N, C)),
    "SELU": (SELU, (N, C)),
    "GELU": (GELU, (N, C)),
    "GELU by tanh": (lambda: GELU(approximate="tanh"), (N, C)),
    "SiLU": (SiLU, (N, C)),
    "Softplus": (Softplus, (N, C)),
    "Softplus with beta": (lambda: Softplus(beta=2.5), (N, C)),
    "Softsign": (Softsign, (N, C)),
    "Mish": (Mish, (N, C)),
    "HardTanh": (HardTanh, (N, C)),
    "HardTanh between other ends": (lambda: HardTanh(-0.5, 2), (N, C)),
    "ReLU6": (ReLU6, (N, T, C)),
    "HardSigmoid": (HardSigmoid, (N, C)),
    "HardSwish": (HardSwish, (N, C)),
    "Softmax": (Softmax, (N, T, C)),
    "LogSoftmax": (LogSoftmax, (N, T, C)),
    "Dropout": (lambda: Dropout(0.3), (N, C)),
    "GaussianNoise": (lambda: GaussianNoise(0.5), (N, C)),
    "BatchNorm": (BatchNorm, (N, C)),
    "BatchNorm over space": (lambda: BatchNorm(momentum=0.3, epsilon=1e-2), (N, H, W, C)),
    "BatchNorm without b": (lambda: BatchNorm(bias=False), (N, C)),
    "BatchNorm without w": (lambda: BatchNorm(scale=False), (N, C)),
    "BatchNorm without both": (lambda: BatchNorm(scale=False, bias=False), (N, H, W, C)),
    "LayerNorm": (LayerNorm, (N, T, C)),
    "LayerNorm over two axes": (lambda: LayerNorm(axes=2), (N, H, W, C)),
    "LayerNorm over all axes": (lambda: LayerNorm(bias=False, axes=3), (N, H, W, C)),
    "LayerNorm without b": (lambda: LayerNorm(bias=False), (N, T, C)),
    "LayerNorm without w": (lambda: LayerNorm(scale=False), (N, T, C)),
    "LayerNorm without both": (lambda: LayerNorm(scale=False, bias=False), (N, T, C)),
    "GroupNorm": (lambda: GroupNorm(2), (N, C)),
    "GroupNorm over space": (lambda: GroupNorm(3), (N, H, W, C)),
    "GroupNorm without b": (lambda: GroupNorm(2, bias=False), (N, C)),
    "GroupNorm without w": (lambda: GroupNorm(2, scale=False), (N, H, W, C)),
    "GroupNorm without both": (lambda: GroupNorm(2, scale=False, bias=False), (N, H, W, C)),
    "RMSNorm": (RMSNorm, (N, T, C)),
    "RMSNorm without w": (lambda: RMSNorm(scale=False), (N, T, C)),
    "Flatten": (Flatten, (N, H, W, C)),
    "Reshape": (lambda: Reshape((2, -1, 4)), (N, 24)),
    "Lambda": (lambda: Lambda(cube, cube_gradient), (N, C)),
    "Chain": (lambda: Chain([Linear(7), Tanh(), Linear(3)]), (N, C)),
    "Residual": (lambda: Residual([LayerNorm(), Linear(7), GELU(), Linear(C)]), (N, T, C)),
    "Parallel": (lambda: Parallel([[Linear(7), Tanh()], BatchNorm(), Dropout(0.3)]), (N, C)),
    "Parallel by add": (lambda: Parallel([[Linear(7), ReLU(), Linear(C)], PReLU()], join="add"), (N, C)),
    "Model": (lambda: Model([BatchNorm(), Linear(7), Dropout(0.2), Softmax()], seed=3), (N, C)),
    "Model in a Model": (lambda: Model([Linear(7), Model([Linear(3), Tanh()], seed=1), Linear(2)], seed=2), (N, C)),
    "Model of an Embedding": (lambda: Model([Embedding(7, 3), Tanh(), Flatten(), Linear(2)], seed=4), (N, T)),
    "Conv1D": (lambda: layers.Conv1D(7, 3, stride=2, padding="same"), (N, T, C)),
    "Conv1D that is causal": (lambda: layers.Conv1D(7, 2, padding="causal", dilation=2), (N, T, C)),
    "Conv2D": (lambda: layers.Conv2D(7, 2), (N, T, W, 2)),
    "Conv2D with all else": (
        lambda: layers.Conv2D(4, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), groups=2, bias=False, init="he"),
        (N, T, W, C),
    ),
    "ConvTranspose2D": (lambda: layers.ConvTranspose2D(7, (3, 2), stride=2, padding="same"), (N, H, W, C)),
    "ConvTranspose2D with output_padding": (
        lambda: layers.ConvTranspose2D(7, (3, 2), stride=(2, 3), padding=1, output_padding=(1, 2)),
        (N, H, W, C),
    ),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D((2, 3), multiplier=2, padding="same"), (N, T, W, C)),
    "MaxPool1D": (lambda: layers.MaxPool1D(3, stride=2, padding="same"), (N, T, C)),
    "MaxPool1D that is causal": (lambda: layers.MaxPool1D(3, stride=1, padding="causal"), (N, T, C)),
    "MaxPool2D": (layers.MaxPool2D, (N, T, W, C)),
    "AveragePool1D": (lambda: layers.AveragePool1D(3, stride=2, padding="same"), (N, T, C)),
    "AveragePool2D": (lambda: layers.AveragePool2D((2, 3), stride=1, padding=1), (N, T, W, C)),
    "AveragePool1D that is causal": (lambda: layers.AveragePool1D(2, stride=1, padding="causal"), (N, T, C)),
    "AveragePool2D that counts its padding": (
        lambda: layers.AveragePool2D((2, 3), stride=1, padding=1, count_padding=True),
        (N, T, W, C),
    ),
    "GlobalAveragePool1D": (layers.GlobalAveragePool1D, (N, T, C)),
    "GlobalAveragePool2D": (layers.GlobalAveragePool2D, (N, H, W, C)),
    "GlobalMaxPool1D": (layers.GlobalMaxPool1D, (N, T, W)),
    "GlobalMaxPool2D": (layers.GlobalMaxPool2D, (N, H, W, T)),
    "ZeroPad2D": (lambda: layers.ZeroPad2D(((1, 0), (2, 3))), (N, H, W, C)),
    "UpSample2D": (lambda: layers.UpSample2D((2, 3)), (N, H, W, C)),
    "SpatialDropout": (lambda: layers.SpatialDropout(0.3), (N, H, W, C)),
}

every_layer = pytest.mark.parametrize(("make", "shape"), TABLE.values(), ids=TABLE)
both_modes = pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])


def draw(shape, seed=0, integers=False):
    """Numbers that are exact in float32 and off every kink of the table; integers for those who take them."""
    rng = np.random.default_rng(seed)
    if integers:
        return rng.integers(0, 7, shape)
    return (np.floor(96 * rng.standard_normal(shape)) + 0.5) / 64


def randomised(layer, shape, seed=5):
    """The layer, built, with parameters and running statistics that are nobody's initial values."""
    rng = np.random.default_rng(seed)
    if layer.input_shape is None:
        layer.build(shape[1:])
    for leaf in layer.leaf_layers():
        for array in leaf.parameters.values():
            array[...] = 0.7 * rng.standard_normal(array.shape)
        for array in leaf.buffers.values():
            array[...] = rng.uniform(0.5, 2, array.shape)
    return layer


def state(layer):
    """Every parameter and buffer by path and name, as copies."""
    return {
        f"{leaf.path}.{name}": array.copy()
        for leaf in layer.leaf_layers()
        for name, array in (leaf.parameters | leaf.buffers).items()
    }


def gradients_of(layer):
    """Every gradient by path and name, as copies."""
    return {f"{leaf.path}.{name}": g.copy() for leaf in layer.leaf_layers() for name, g in leaf.gradients.items()}


def in_one_piece(net):
    """Whether the parameters lie one after the other, as views of one vector do."""
    arrays = [array for leaf in net.leaf_layers() for array in leaf.parameters.values()]
    ends = [array.ctypes.data + array.nbytes for array in arrays]
    return [array.ctypes.data for array in arrays[1:]] == ends[:-1]


def net_with(layer, seed=0):
    """A net with that layer in it, something to train above it."""
    return Model([layer, Flatten(), Linear(2)], seed=seed)


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def worst(found, expected):
    """The largest error, relative to the largest number where that is above 1."""
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / max(1, np.abs(expected).max())


def test_the_table_is_complete():
    """Base classes are no rows: Layer computes nothing."""
    bases = {"Elementwise", "Nonlinearity", "Norm"}
    rows = {name.split()[0] for name in TABLE}
    assert sorted({*layers.__all__} - {"Layer"} - rows) == [], "give each a row in TABLE: how it is made, its input"
    assert sorted(rows - {*layers.__all__}) == [], "no layer is called that"
    defined = {name for name, value in vars(layers).items() if inspect.isclass(value) and issubclass(value, Layer)}
    known = defined - bases | {*lazy.ELSEWHERE["layers"]}
    assert sorted(known - {*layers.__all__}) == [], "write each into layers.__all__"
    assert sorted({*layers.__all__} - known) == [], "layers.__all__ names what is no layer"


# ---- Gradients and golden values ----


@every_layer
@both_modes
def test_backward_is_the_derivative_of_forward(make, shape, training):
    layer = randomised(make(), shape)
    result = gradcheck(layer, draw(shape, integers=layer.integer_input), training=training)
    assert result.error <= 1e-6, result


def test_backward_of_a_frozen_batch_norm_is_the_derivative():
    layer = randomised(BatchNorm(), (N, C))
    layer.frozen = True
    assert gradcheck(layer, draw((N, C))).error <= 1e-6


FILES = [np.load(Path(__file__).parent / "reference" / f"{name}.npz") for name in ("layers", "convolution")]
CASES = {case["id"]: case for file in FILES for case in json.loads(str(file["about"]))["cases"]}
GOLDEN: dict = {}  # the id of a case -> name -> array
for file in FILES:
    for key in set(file.files) - {"about"}:
        GOLDEN.setdefault(key.split("/")[0], {})[key.split("/")[1]] = file[key]


class Drawn:
    """In the place of a layer's generator: what the reference drew."""

    def __init__(self, mask=None, noise=None):
        self.mask, self.noise = mask, noise

    def random(self, out, dtype):
        assert out.dtype == dtype
        out[...] = self.mask  # 1, at least any rate, is kept; 0 is dropped

    def standard_normal(self, out, dtype):
        assert out.dtype == dtype
        out[...] = self.noise


def from_spec(spec):
    if isinstance(spec, list):
        return [from_spec(each) for each in spec]
    members = [from_spec(spec["layers"])] if "layers" in spec else []
    return getattr(layers, spec["layer"])(*members, **spec["arguments"])


def compared_with_golden(case, dtype):
    """Run a case; name -> (ours, the reference's) of everything that the reference computed."""
    stored = dict(GOLDEN[case["id"]])
    layer = from_spec(case).copy(dtype=dtype)
    layer.build(stored["x"].shape[1:])
    draws = {name: stored.pop(name) for name in ("mask", "noise") if name in stored}
    ours = {}
    for leaf in layer.leaf_layers():
        path = f"{leaf.path}." if leaf.path else ""
        for name, array in (leaf.parameters | leaf.buffers).items():
            array[...] = stored.pop(path + name)
        if draws:
            leaf.rng = Drawn(**draws)
        ours |= {f"{path}{name}_gradient": array for name, array in leaf.gradients.items()}
        ours |= {f"{path}{name}_after": array for name, array in leaf.buffers.items()}
    ours["y"] = layer(stored.pop("x"), training=case["training"])
    x_gradient = layer.backward(stored.pop("grad").astype(dtype))
    if x_gradient is not None:
        ours["x_gradient"] = x_gradient
    assert ours.keys() == stored.keys()
    return {name: (ours[name], stored[name]) for name in stored}


def test_there_are_golden_values_of_every_layer_that_torch_has():
    golden = {case["layer"] for case in CASES.values()}
    missing = sorted({*layers.__all__} - {"Layer", "Chain", "Lambda"} - golden)
    assert missing == [], "write each into make_layers.py or make_convolution.py in tests/reference, then run it"
    assert sorted(golden - {*layers.__all__}) == [], "no layer is called that"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden_values(case):
    for name, (ours, reference) in compared_with_golden(case, "float64").items():
        assert ours.dtype == np.float64
        assert worst(ours, reference) <= 1e-10, name


# RMSNorm's epsilon is that of the dtype: where it matters, float32 rightly gives something else.
IN_FLOAT32 = {name: case for name, case in CASES.items() if name != "RMSNorm-tiny"}


@pytest.mark.parametrize("case", IN_FLOAT32.values(), ids=IN_FLOAT32)
def test_golden_values_in_float32(case):
    for name, (ours, reference) in compared_with_golden(case, "float32").items():
        assert ours.dtype == np.float32
        assert worst(ours, reference) <= 2e-6, name


# ---- What every layer promises ----


@every_layer
def test_a_batch_gives_what_its_rows_give_one_by_one(make, shape):
    layer = randomised(make(), shape).copy(dtype="float64")
    x = draw(shape, integers=layer.integer_input)
    rows = np.concatenate([layer(x[i : i + 1]) for i in range(N)])
    np.testing.assert_allclose(layer(x), rows, rtol=0, atol=1e-13)


@every_layer
def test_no_rows_give_no_rows(make, shape):
    layer = make()
    assert layer(draw((0, *shape[1:]), integers=layer.integer_input)).shape == (0, *layer.output_shape(shape[1:]))


@every_layer
def test_the_output_shape_is_known_before_anything_is_made(make, shape):
    layer = make()
    told = layer.output_shape(shape[1:])
    assert all(not leaf.parameters and not leaf.buffers for leaf in layer.leaf_layers())
    assert layer(draw(shape, integers=layer.integer_input)).shape == (N, *told)


@every_layer
@both_modes
def test_float32_stays_float32(make, shape, training):
    layer = make()
    x = draw(shape, integers=layer.integer_input)
    y = layer(x, training=training)
    x_gradient = layer.backward(draw(y.shape, 1).astype(np.float32))
    present = [
        array for leaf in layer.leaf_layers() for array in (leaf.parameters | leaf.gradients | leaf.buffers).values()
    ]
    assert {array.dtype for array in (y, *present)} == {np.dtype(np.float32)}
    assert x_gradient is None if layer.integer_input else x_gradient.dtype == np.float32


@every_layer
def test_lists_and_other_numbers_are_converted(make, shape):
    layer = randomised(make(), shape)
    x = np.round(draw(shape, integers=layer.integer_input)).astype(int)
    expected = layer(x)
    for same in (x.tolist(), x.astype(np.int8), x if layer.integer_input else x.astype(np.float64), x[::-1][::-1]):
        np.testing.assert_array_equal(layer(same), expected)


@every_layer
@both_modes
def test_a_pass_never_writes_into_what_it_was_given(make, shape, training):
    layer = randomised(make(), shape).copy(dtype="float64")
    x = draw(shape, integers=layer.integer_input)
    x.flags.writeable = False  # NumPy refuses what tries
    grad = draw(layer(x, training=training).shape, 1)
    grad.flags.writeable = False
    first = copy.copy(layer.backward(grad))
    gradients = gradients_of(layer)
    second = layer.backward(grad)  # nor into what it kept: twice is the same, overwritten and not added
    np.testing.assert_array_equal(second, first)
    assert_same_bits(gradients_of(layer), gradients)


@every_layer
def test_returned_arrays_never_change(make, shape):
    layer = randomised(make(), shape)
    net = net_with(layer)
    integers = layer.integer_input
    x, other = draw(shape, 1, integers), draw(shape, 2, integers)

    def use(x, seed):
        results = {}
        for mode in (True, False):
            results[f"y {mode}"] = y = layer(x, training=mode)
            results[f"x_gradient {mode}"] = layer.backward(draw(y.shape, seed).astype(np.float32))
            results[f"net {mode}"] = y = net(x, training=mode)
            results[f"net's x_gradient {mode}"] = net.backward(draw(y.shape, seed).astype(np.float32))
        return {name: y for name, y in {**results, "predict": net.predict(x)}.items() if y is not None}

    results = use(x, 3)
    before = {name: array.copy() for name, array in results.items()}
    use(other, 4)
    net.train(other, draw((N, 2)), epochs=2, batch_size=3, verbose=False)
    use(other, 5)
    assert_same_bits(results, before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Dropout(0.5),
        lambda: layers.GaussianNoise(0.5),
        layers.Flatten,
        lambda: layers.Reshape((12, 1)),
        lambda: layers.Residual([layers.Dropout(0.5)]),
        lambda: layers.Model([layers.Dropout(0.5)], seed=0),
        lambda: layers.Model([layers.Dropout(0.5)], copies=2, seed=0),
    ],
)
def test_the_output_of_an_identity_is_an_array_of_its_own(make):
    """Else `net(x)` would be x, and what is written into the one would change the other."""
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    layer = make()
    for training in (False, True):
        y = layer(x, training)
        assert not np.shares_memory(x, y)
        y[...] = -1
    np.testing.assert_array_equal(x.ravel(), np.arange(24))


def test_arrays_returned_within_a_training_never_change():
    """A loss of one's own, a metric, a callback may call the net while the training lends arrays to its own steps."""
    net = Model([Linear(7), BatchNorm(), Tanh(), Parallel([Linear(2), Dropout(0.5)]), Linear(2)], seed=0)
    x, y = draw((N, C)).astype(np.float32), draw((N, 2)).astype(np.float32)
    found, before = [], []

    def keep(*arrays):
        found.extend(arrays)
        before.extend(array.copy() for array in arrays)
        return 0.0

    class OwnLoss(loss.MSE):
        def __call__(self, pred, real, weight=None):
            keep(net(x), net[0](x, training=True), net.predict(x))
            return super().__call__(pred, real, weight)

    class OwnCallback:
        def step(self, run):
            keep(net(x, training=True), net.backward(y), net[0](x), net[0].backward(net[0](x)), net.predict(x))

    watched = {"metrics": [lambda pred, real: keep(net(x), net.backward(y))], "callbacks": [OwnCallback()]}
    net.train(x, y, loss=OwnLoss(), validation=(x, y), epochs=3, batch_size=N, verbose=False, **watched)
    assert len(found) == 3 * (3 + 2 + 5 + 3 + 2)
    for array, was in zip(found, before, strict=True):
        np.testing.assert_array_equal(array, was)


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))


def through_joblib(value):
    file = io.BytesIO()
    joblib.dump(value, file)
    file.seek(0)
    return joblib.load(file)


@every_layer
@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_joblib, Layer.copy])
def test_a_copy_trains_as_the_original_does(make, shape, copied):
    net = net_with(make())
    x, y = draw(shape, integers=net.integer_input), draw((N, 2), 1)
    net.train(x, y, epochs=2, batch_size=2, verbose=False)
    twin = copied(net)
    assert all(leaf.kept is None for leaf in twin.leaf_layers())
    assert_same_bits(state(twin), state(net))
    losses = [each.train(x, y, epochs=2, batch_size=2, verbose=False)["loss"] for each in (net, twin)]
    assert losses[0] == losses[1]
    assert_same_bits(state(twin), state(net))
    assert in_one_piece(twin)


@every_layer
def test_reused_arrays_give_the_same_bits_as_new_ones(make, shape):
    x = draw((11, *shape[1:]), integers=make().integer_input)
    y = draw((11, 2), 1)
    lent, fresh = net_with(make()), net_with(make())
    lent.train(x, y, optim=optim.Adam(), loss=loss.MSE(), epochs=3, batch_size=4, shuffle=False, verbose=False)
    rule, mse = optim.Adam(), loss.MSE()
    for start in (0, 4, 8) * 3:
        mse(fresh(x[start : start + 4], training=True), y[start : start + 4].astype(np.float32))
        rule(fresh, mse)
    assert_same_bits(state(lent), state(fresh))


@every_layer
def test_nothing_in_a_frozen_layer_moves(make, shape):
    layer = make()
    net = net_with(layer)
    x, y = draw(shape, integers=layer.integer_input), draw((N, 2), 1)
    net.build(shape[1:])
    layer.frozen = True
    before, above = state(layer), state(net[2])
    net.train(x, y, optim=optim.SGD(0.1, weight_decay=0.1), loss=loss.MSE(), epochs=2, verbose=False)
    assert_same_bits(state(layer), before)
    assert all((state(net[2])[name] != array).all() for name, array in above.items())
    layer.frozen = False
    net.train(x, y, epochs=1, verbose=False)
    assert not before or any((array != before[name]).any() for name, array in state(layer).items())


@every_layer
def test_config_makes_the_same_layer_again(make, shape):
    layer = make()
    twin = type(layer)(**layer.copy().config())
    assert repr(twin) == repr(layer)
    assert twin.output_shape(shape[1:]) == layer.output_shape(shape[1:])


@every_layer
def test_every_layer_takes_a_name(make, shape):
    layer = type(make())(**{**make().config(), "name": "mine"})
    assert layer.name == "mine"
    assert layer.label.endswith(" 'mine'")
    assert "name='mine'" in repr(layer)


# ---- erf and Softmax ----


GRID = np.concatenate([np.linspace(-7, 7, 70_001), np.geomspace(1e-300, 1, 2000), -np.geomspace(1e-300, 1, 2000)])


def test_erf_is_within_1e_14_of_math_erf():
    exact = np.array([math.erf(x) for x in GRID])
    assert np.abs(layers.erf(GRID) - exact).max() <= 1e-14
    np.testing.assert_array_equal(layers.erf(np.array([0.0, 30, -30, np.inf, -np.inf])), [0, 1, -1, 1, -1])
    assert np.isnan(layers.erf(np.array([np.nan]))).all()


def test_erf_in_float32():
    x = GRID.astype(np.float32)
    y = layers.erf(x)
    assert y.dtype == np.float32
    assert np.abs(y - np.array([math.erf(each) for each in x])).max() <= 3e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_never_returns_less_than_the_smallest_normal_number(dtype):
    softmax = Softmax().copy(dtype=dtype)
    y = softmax(np.array([[0, 2000, -5000], [3, 3, 3], [-1e30, 0, 1e30]]))
    assert y.min() == np.finfo(dtype).tiny
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "shape"), [row for name, row in TABLE.items() if "Embedding" not in name],
    ids=[name for name in TABLE if "Embedding" not in name],
)  # fmt: skip
def test_large_inputs_give_finite_outputs_and_gradients(make, shape):
    layer = make()
    y = layer(np.resize([1e4, -1e4, 0, 88, -88, 1e-30], shape), training=True)
    assert np.isfinite(y).all()
    assert np.isfinite(layer.backward(np.ones_like(y))).all()


# ---- Parameters ----


def test_sizes_follow_from_the_first_batch_or_from_build():
    called, built = Linear(3), Linear(3).build([4])
    assert (called.w.shape, called.b.shape, called.input_shape) == ((0,), (0,), None)
    called(np.ones((2, 4)))
    for layer in (called, built):
        assert layer.input_shape == (4,)
        assert {name: array.shape for name, array in layer.parameters.items()} == {"w": (4, 3), "b": (3,)}
        assert {name: array.shape for name, array in layer.gradients.items()} == {"w": (4, 3), "b": (3,)}
    assert built.build((4,)) is built


def test_parameters_are_live_views_and_assigning_copies():
    layer = Linear(3).build((2,))
    w, values = layer.w, np.arange(6.0).reshape(2, 3)
    layer.w = values
    layer.b = [1, 2, 3]
    layer.w_gradient = values + 1
    values[...] = 0
    assert layer.w is w
    assert layer.parameters["w"] is w
    np.testing.assert_array_equal(w, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(layer([[1, 1]]), [[4, 7, 10]])
    np.testing.assert_array_equal(layer.gradients["w"], [[1, 2, 3], [4, 5, 6]])
    assert np.shares_memory(w, layer.parameters["w"])


@pytest.mark.parametrize(
    "values", [np.ones((3, 2)), np.ones(3), np.ones((1, 3)), 1.0, np.ones((2, 3, 1))], ids=np.shape
)
def test_assigning_another_shape_is_refused(values):
    layer = Linear(3, name="mine").build((2,))
    before = layer.w.copy()
    with pytest.raises(ValueError, match=r"Linear 'mine'.w has shape \(2, 3\), got \(.*assign an array of the same"):
        layer.w = values
    np.testing.assert_array_equal(layer.w, before)


def test_assigning_a_parameter_that_is_missing_is_refused():
    with pytest.raises(AttributeError, match=r"Linear has no w yet.*build\(input_shape\)"):
        Linear(3).w = np.ones((2, 3))
    with pytest.raises(AttributeError, match="Linear has no b"):
        Linear(3, bias=False).build((2,)).b = np.ones(3)

    class Own(Layer):
        def __init__(self):
            self.w = np.ones(3)

    with pytest.raises(AttributeError, match=r"Own has no w yet.*own declares it in setup, by add_parameter"):
        Own()


def test_copy_belongs_to_no_net_and_shares_nothing():
    net = Model([Linear(3, name="first"), Linear(2)], seed=0).build((4,))
    twin = net[0].copy()
    assert (twin.label, net[0].label) == ("Linear 'first'", "Linear 'first' (layers.0)")
    assert_same_bits(state(twin), {f".{name}": array for name, array in net[0].parameters.items()})
    twin.w += 1
    assert not np.isclose(twin.w, net[0].w).any()
    assert Model([twin]).layers == (twin,)
    wide = net.copy(dtype="float64")
    assert wide.dtype == wide[1].w.dtype == wide(np.ones((1, 4))).dtype == np.float64
    np.testing.assert_array_equal(wide[1].w, net[1].w)


def drawn(layer, shape):
    return Model([layer], seed=0, dtype="float64").build(shape)[0].w


def assert_uniform(w, limit):
    assert 0.999 * limit < np.abs(w).max() <= limit
    assert abs(w.mean()) < 0.01 * limit
    assert w.std() == pytest.approx(limit / math.sqrt(3), rel=0.01)


def assert_normal(w, std):
    assert w.std() == pytest.approx(std, rel=0.01)
    assert abs(w.mean()) < 0.02 * std
    assert np.mean(np.abs(w) < std) == pytest.approx(0.6827, abs=0.01)


def test_initial_weights():
    """Over 120,000 draws."""
    assert_uniform(drawn(Linear(400), (300,)), 1 / math.sqrt(300))
    assert_uniform(drawn(Linear(400, init="glorot"), (300,)), math.sqrt(6 / 700))
    assert_normal(drawn(Linear(400, init="he"), (300,)), math.sqrt(2 / 300))
    assert_normal(drawn(Embedding(300, 400), (2,)), 1)
    np.testing.assert_array_equal(drawn(Linear(4, init=0.5), (3,)), np.full((3, 4), 0.5))
    np.testing.assert_array_equal(Linear(4).build((3,)).b, np.zeros(4))


STARTS = {  # the parameters and buffers before any training: 1 and 0 leave a batch as it was normalised
    "PReLU": (PReLU, {"w": 0.25}),
    "PReLU per channel": (lambda: PReLU(per_channel=True), {"w": 0.25}),
    "BatchNorm": (BatchNorm, {"w": 1, "b": 0, "running_mean": 0, "running_variance": 1}),
    "LayerNorm": (LayerNorm, {"w": 1, "b": 0}),
    "GroupNorm": (lambda: GroupNorm(2), {"w": 1, "b": 0}),
    "RMSNorm": (RMSNorm, {"w": 1}),
}


@pytest.mark.parametrize("name", STARTS)
def test_layers_start_as_pytorchs(name):
    make, starts = STARTS[name]
    layer = Model([make()], seed=0).build((C,))[0]
    found = layer.parameters | layer.buffers
    assert {name: np.unique(array).tolist() for name, array in found.items()} == {k: [v] for k, v in starts.items()}


NORMS = [BatchNorm, LayerNorm, lambda **given: GroupNorm(2, **given), RMSNorm]


@pytest.mark.parametrize("make", NORMS)
def test_a_norm_without_w_or_b_has_empty_arrays_for_them(make):
    given = {"scale": False} | ({"bias": False} if make is not RMSNorm else {})
    layer = make(**given).build((C,))
    assert layer.parameters == {}
    assert [array.shape for array in (layer.w, layer.b, layer.w_gradient, layer.b_gradient)] == [(0,)] * 4
    with pytest.raises(ValueError, match=rf"takes {C} channels, got inputs of shape \({C + 2},\)"):
        layer(draw((N, C + 2)))


def test_batchnorm_takes_two_rows():
    net = Model([BatchNorm(), Linear(1)], seed=0)
    assert net.train([[0.0], [2.0]], [[1.0], [3.0]], epochs=2, verbose=False).epochs == 2


@pytest.mark.parametrize(("inputs", "units"), [(30, 40), (40, 30), (30, 30)])
def test_orthogonal_weights(inputs, units):
    w = drawn(Linear(units, init="orthogonal"), (inputs,))
    square = w @ w.T if inputs < units else w.T @ w
    np.testing.assert_allclose(square, np.eye(min(inputs, units)), rtol=0, atol=1e-13)


def test_orthogonal_weights_have_no_preferred_sign():
    first = np.array([layers.orthogonal((3, 3), np.random.default_rng(seed))[0, 0] for seed in range(400)])
    assert 0.4 < np.mean(first > 0) < 0.6


def test_init_by_a_callable():
    def init(shape, rng):
        assert isinstance(rng, np.random.Generator)
        return np.arange(math.prod(shape)).reshape(shape)

    np.testing.assert_array_equal(Linear(3, init=init).build((2,)).w, [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ValueError, match=r"init made an array of shape \(3,\), expected \(2, 3\)"):
        Linear(3, init=lambda shape, rng: np.ones(3)).build((2,))


def test_one_seed_decides_the_weights_and_the_draws():
    def made(seed):
        net = Model([Linear(3), Dropout(0.5), GaussianNoise(1)], seed=seed)
        return net(np.ones((4, 5)), training=True)

    np.testing.assert_array_equal(made(1), made(1))
    assert (made(1) != made(2)).any()


# ---- Shapes that do not fit ----


WRONG_SHAPE = {  # (layer built for 4 inputs, shape of x, what the message says)
    "Linear": (Linear(3), (2, 5), r"Linear takes 4 inputs a row, got inputs of shape \(5,\)"),
    "LayerNorm": (LayerNorm(), (2, 5), r"LayerNorm takes 4 channels, got inputs of shape \(5,\)"),
    "BatchNorm": (BatchNorm(), (2, 3, 5), r"BatchNorm takes 4 channels, got inputs of shape \(3, 5\)"),
    "PReLU": (PReLU(per_channel=True), (2, 5), r"PReLU takes 4 channels, got inputs of shape \(5,\)"),
    "Reshape": (Reshape((2, 2)), (2, 5), r"Reshape makes shape \(2, 2\), got inputs of shape \(5,\), 5 numbers each"),
    "in a net": (Model([Tanh(), Linear(3)]), (2, 5), r"Linear \(layers.1\) takes 4 inputs a row"),
    "one axis": (Linear(3), (4,), r"a row for each sample, got shape \(4,\).*x\[None\]"),
    "no axis": (Linear(3), (), r"a row for each sample, got shape \(\)"),
}


@pytest.mark.parametrize(("layer", "shape", "message"), WRONG_SHAPE.values(), ids=WRONG_SHAPE)
def test_a_batch_of_another_shape_is_refused(layer, shape, message):
    layer = layer.copy().build((4,))
    before = state(layer)
    with pytest.raises(ValueError, match=message):
        layer(np.ones(shape), training=True)
    assert_same_bits(state(layer), before)


def test_a_layer_norm_over_several_axes_keeps_to_their_sizes():
    layer = LayerNorm(axes=2).build((T, W, C))
    layer(draw((N, T + 1, W, C)))  # the third from the end is free
    for shape in ((T, W + 1, C), (T, W, C + 1)):
        with pytest.raises(ValueError, match=rf"LayerNorm takes inputs whose last axes are \({W}, {C}\), got"):
            layer(draw((N, *shape)))


CANNOT_BE = {  # (layer, input shape, what the message says)
    "Reshape": (
        lambda: Reshape((3, -1)),
        (4,),
        r"Reshape .* makes shape \(3, -1\), got inputs of shape \(4,\)",
    ),
    "GroupNorm": (lambda: GroupNorm(4), (6,), "splits the channels into 4 groups of one size, got 6 channels"),
    "LayerNorm": (lambda: LayerNorm(axes=3), (6, 4), r"takes inputs of 3 axes or more, got inputs of shape \(6, 4\)"),
    "Residual": (lambda: Residual([Linear(3)]), (4,), r"the shapes must be equal, got \(4,\) and \(3,\)"),
    "Parallel": (
        lambda: Parallel([Linear(3), Linear(2)], join="add"),
        (4,),
        r"can't add branches with outputs of shapes \[\(3,\), \(2,\)\]",
    ),
    "a size of 0": (lambda: Linear(3), (0,), r"every size of an input shape is positive, got \(0,\)"),
}


@pytest.mark.parametrize(("make", "shape", "message"), CANNOT_BE.values(), ids=CANNOT_BE)
def test_an_input_shape_that_cannot_be_is_refused_before_anything_is_made(make, shape, message):
    net = Model([Tanh(), make()])
    with pytest.raises(ValueError, match=message):
        net.build(shape)
    assert net.input_shape is None
    assert state(net) == {}


@pytest.mark.parametrize("shape", [4, "4", (2.5,), None])
def test_build_takes_a_tuple_of_sizes(shape):
    with pytest.raises(TypeError, match=r"build takes the shape of one input as a tuple, such as \(784,\), got"):
        Linear(3).build(shape)


@pytest.mark.parametrize("x", [[["a"]], [[None]], [[1j]]], ids=str)
def test_inputs_that_are_not_numbers_are_refused(x):
    with pytest.raises(TypeError, match="Linear takes numbers, got an array of"):
        Linear(3)(x)


@pytest.mark.parametrize("x", [[[0, 7]], [[-1, 0]], [[2**40, 0]]], ids=str)
def test_embedding_takes_numbers_of_its_vocabulary(x):
    with pytest.raises(ValueError, match=f"Embedding takes integers from 0 to 6, got {min(x[0])} to {max(x[0])}"):
        Embedding(7, 3)(x)


def test_embedding_takes_integers_only_and_may_have_one_a_row():
    with pytest.raises(TypeError, match="Embedding takes integers, got an array of float64"):
        Embedding(7, 3)([[1.0]])
    with pytest.raises(
        TypeError, match=r"Embedding \(layers.1\) takes integers, got float32 from the layer below: put it"
    ):
        Model([Flatten(), Embedding(7, 3)])([[1, 2]])
    embedding = Embedding(7, 3)
    np.testing.assert_array_equal(embedding([2, 5]), embedding.w[[2, 5]])


def test_batch_norm_refuses_one_value_a_channel_and_keeps_its_statistics():
    layer = BatchNorm().build((4,))
    before = state(layer)
    with pytest.raises(ValueError, match=r"BatchNorm normalises over the batch.*shape \(1, 4\).*at least two"):
        layer(np.ones((1, 4)), training=True)
    assert_same_bits(state(layer), before)


BAD_ARGUMENTS = [  # (make, what the message says: the argument, what it may be, what came)
    (lambda: Linear(0), "units is a positive integer, got 0"),
    (lambda: Linear(-1), "units is a positive integer, got -1"),
    (lambda: Linear(2.5), "units is a positive integer, got 2.5"),
    (lambda: Linear(True), "units is a positive integer, got True"),
    (lambda: Linear("8"), "units is a positive integer, got '8'"),
    (lambda: Linear(784, 128), "bias is True or False, got 128: the data tell how many inputs there are"),
    (lambda: Linear(4, "relu"), "bias is True or False, got 'relu'"),
    (lambda: Conv2D(8, 3, 1, "same", 1, 1, 2), "bias is True or False, got 2"),
    (lambda: Softmax(1), "name is a string, got 1: Softmax takes no such argument"),
    (lambda: Dropout(0.5, 3), "name is a string, got 3"),
    (lambda: Linear(3, init="xavier"), r"init is one of \['glorot', 'he', 'orthogonal'\], .*got 'xavier'"),
    (lambda: Linear(3, init=[1, 2]), r"init is a name, a number or a callable \(shape, rng\) -> array, got \[1, 2\]"),
    (lambda: Linear(3, init=math.nan), "init is a name, a number or a callable.*got nan"),
    (lambda: Embedding(0, 3), "vocabulary is a positive integer, got 0"),
    (lambda: Embedding(7, 3.0), "units is a positive integer, got 3.0"),
    (lambda: LeakyReLU(-0.1), r"slope is a number in \[0, inf\), got -0.1"),
    (lambda: LeakyReLU(math.inf), r"slope is a number in \[0, inf\), got inf"),
    (lambda: ELU(alpha="1"), r"alpha is a number in \[0, inf\), got '1'"),
    (lambda: Softplus(0), "beta is a positive number, got 0"),
    (lambda: Softplus(-1), r"beta is a number in \[0, inf\), got -1"),
    (lambda: HardTanh(0, -1), "low is below high, got low=0 and high=-1"),
    (lambda: HardTanh(high=math.nan), r"high is a number in \[-inf, inf\), got nan"),
    (lambda: PReLU(64), "per_channel is True or False, got 64: the data tell how many channels there are"),
    (lambda: GELU("erf"), "approximate is None or \"tanh\", got 'erf'"),
    (lambda: Dropout(1), r"rate is a number in \[0, 1\), got 1"),
    (lambda: Dropout(math.nan), r"rate is a number in \[0, 1\), got nan"),
    (lambda: GaussianNoise(-1), r"std is a number in \[0, inf\), got -1"),
    (lambda: BatchNorm(momentum=1.1), r"momentum is a number in \[0, 1\], got 1.1"),
    (lambda: BatchNorm(epsilon=-1), r"epsilon is a number in \[0, 1\), got -1"),
    (lambda: LayerNorm(epsilon=None), r"epsilon is a number in \[0, 1\), got None"),
    (lambda: LayerNorm(64), r"epsilon is a number in \[0, 1\), got 64"),
    (lambda: LayerNorm(axes=(4, 4)), r"axes is a positive integer, got \(4, 4\)"),
    (lambda: LayerNorm(1e-5, "first"), "scale is True or False, got 'first'"),
    (lambda: BatchNorm(bias=0), "bias is True or False, got 0"),
    (lambda: GroupNorm(2, 8), r"epsilon is a number in \[0, 1\), got 8"),
    (lambda: GroupNorm(0), "groups is a positive integer, got 0"),
    (lambda: RMSNorm(epsilon=-1e-9), r"epsilon is a number in \[0, 1\), got -1e-09"),
    (lambda: Reshape((2, 0)), r"shape has positive sizes and at most one -1, got \(2, 0\)"),
    (lambda: Reshape((-1, -1)), r"shape has positive sizes and at most one -1, got \(-1, -1\)"),
    (lambda: Reshape(4), "shape is a tuple of integers, such as .*, got 4"),
    (lambda: Reshape("ab"), "shape is a tuple of integers, such as .*, got 'ab'"),
    (lambda: Lambda(3), "Lambda takes functions, got 3"),
    (lambda: Lambda(np.tanh, "g"), "Lambda takes functions, got 'g'"),
    (lambda: Parallel([Tanh()], join="sum"), "join is \"concatenate\" or \"add\", got 'sum'"),
    (lambda: Parallel([]), "Parallel takes at least one layer, got none"),
    (lambda: Chain([]), "Chain takes at least one layer, got none"),
    (lambda: Model([Tanh(), Tanh]), r"layers\[1\] is not a Layer but .*: write Tanh\(...\)"),
    (lambda: Residual([np.tanh]), r"layers\[0\] is not a Layer but"),
    (lambda: Model([Tanh()], dtype="float16"), "dtype is \"float32\" or \"float64\", got 'float16'"),
    (lambda: Model([Tanh()], seed=-1), "seed is an integer, 0 or more, or None, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), BAD_ARGUMENTS)
def test_arguments_outside_their_range(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("name", ["ReLU", "BatchNorm", "BatchNorm over space", "MaxPool2D", "AveragePool2D"])
def test_a_large_batch_in_parts_gives_the_same_result(name, monkeypatch):
    make, shape = TABLE[name]
    x, grad = draw((23, *shape[1:])), None
    results = []
    for part, many in ((numeric.PART, numeric.MANY), (5, 1), (x[:2].size, 1), (x[0].size, 10**9)):
        monkeypatch.setattr(numeric, "PART", part)
        monkeypatch.setattr(numeric, "MANY", many)
        net = Model([make()], seed=0, dtype="float64")
        y = net(x, training=True)
        grad = draw(y.shape, seed=1) if grad is None else grad
        results.append([y, net.backward(grad), *net[0].gradients.values(), *net[0].buffers.values()])
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_numbers_of_numpy_are_numbers(number):
    assert repr(Dropout(number(0.5))) == repr(Dropout(0.5))
    assert repr(Linear(np.int32(3))) == repr(Linear(3))
    layer = LeakyReLU(number(0.5))
    assert layer(np.float32([[-1]])).dtype == np.float32
    np.testing.assert_array_equal(Linear(2, init=number(0.5)).build((3,)).w, np.full((3, 2), 0.5))


# ---- Lambda, and layers of one's own ----


def test_lambda_needs_a_gradient_only_to_train_something_below_it():
    x, y = draw((N, C)), draw((N, 2))
    square = np.square
    Model([Lambda(square), Linear(2)], seed=0).train(x, y, epochs=1, verbose=False)
    net = Model([Linear(3), Lambda(square, name="squares"), Linear(2)], seed=0)
    with pytest.raises(TypeError, match=r"Lambda 'squares' \(layers.1\) has no gradient.*Lambda\(function, gradient\)"):
        net.train(x, y, epochs=1, verbose=False)
    net[0].frozen = True
    net.train(x, y, epochs=1, verbose=False)
    assert Lambda(square)(np.ones((2, 3))).dtype == np.float32


class Swap(Layer):
    """A layer of one's own in a few lines: no __init__ of Layer called, no output_shape."""

    def __init__(self, scale):
        self.scale = scale

    def setup(self, input_shape):
        self.add_parameter("alpha", input_shape[-1:], self.scale)

    def forward(self, x, training):
        self.kept = x
        return np.swapaxes(x * self.alpha, 1, 2) * np.sqrt(2.0)  # a NumPy float64: the result is float64

    def backward(self, grad):
        grad = np.swapaxes(grad, 1, 2) * np.sqrt(2.0)
        self.alpha_gradient[...] = (grad * self.kept).sum((0, 1))
        return grad * self.alpha


def test_a_layer_of_ones_own_in_a_few_lines():
    layer = Swap(0.5)
    assert layer.output_shape((T, C)) == (C, T)
    assert layer.parameters == {}
    assert gradcheck(randomised(layer, (N, T, C)), draw((N, T, C))).error <= 1e-6
    assert layer.alpha.shape == (C,)
    assert repr(layer) == "Swap(scale=0.5)"


class Spy(Tanh):
    """Notes the types of what it is given."""

    seen: set = set()  # noqa: RUF012 (of all spies)

    def forward(self, x, training):
        self.seen.add(x.dtype)
        return super().forward(x, training)

    def backward(self, grad):
        self.seen.add(grad.dtype)
        return super().backward(grad)


@pytest.mark.parametrize("wrap", [Chain, Residual, lambda members: Parallel([members, Swap(1.0)], join="add"), Model])
def test_a_layer_that_slips_into_float64_does_not_spoil_the_net(wrap):
    size = T  # T by T: what Swap swaps, Residual can add
    members = wrap([Spy(), Swap(0.5), Spy(), Swap(2.0), Swap(1.0), Spy()])
    net = Model([Linear(size), Swap(0.5), members, Spy(), Flatten(), Linear(2)], seed=0)
    x = draw((N, size, C))
    net.train(x, draw((N, 2)), epochs=2, verbose=False)
    y = net(x, training=True)
    assert y.dtype == net.backward(y).dtype == net.predict(x).dtype == np.float32
    assert Spy.seen == {np.dtype(np.float32)}


@pytest.mark.parametrize("missing", ["forward", "backward"])
def test_the_error_names_what_a_layer_of_ones_own_must_write(missing):
    layer = type("Own", (Swap,), {missing: getattr(Layer, missing)})(0.5)
    with pytest.raises(TypeError, match=rf"Own has no {missing}\(self, .*: write it"):
        layer.backward(layer(draw((N, T, C))))


# ---- Containers ----


def test_a_layer_stands_in_one_place_only():
    shared = Linear(3, name="shared")
    refusal = r"Linear 'shared'.* stands in a net already.*layer\.copy\(\)"
    for twice in (lambda: Model([shared, shared]), lambda: Parallel([[shared], [Tanh(), shared]])):
        with pytest.raises(ValueError, match=refusal):
            twice()
    net = Model([Linear(4), Chain([shared])])
    for repeated in (lambda: Model([shared]), lambda: Residual([shared]), lambda: Model([Parallel([shared])])):
        with pytest.raises(ValueError, match=refusal):
            repeated()
    with pytest.raises(ValueError, match=r"Chain \(layers.1\) stands in a net already"):
        Model([net[1]])
    Model([shared.copy(), net[1].copy()]).build((3,))
    del net
    assert Model([shared])[0] is shared  # its net is gone


def test_a_model_in_a_model_is_a_slice_of_it_and_trains_by_itself():
    inner = Model([Linear(4), Tanh()], seed=1)
    outer = Model([Linear(5), inner, Linear(2)], seed=2).build((C,))
    assert in_one_piece(outer)
    assert inner.parameter_count == 5 * 4 + 4
    assert outer.parameter_count == 6 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2
    before = state(outer)
    inner.train(draw((N, 5)), draw((N, 4)), epochs=2, verbose=False)
    after = state(outer)
    moved = {name for name, array in after.items() if (array != before[name]).any()}
    assert moved == {"layers.1.layers.0.w", "layers.1.layers.0.b"}
    outer.train(draw((N, C)), draw((N, 2)), epochs=1, verbose=False)
    assert all((array != after[name]).any() for name, array in state(outer).items())


def test_a_trained_model_keeps_its_weights_in_an_outer_one():
    x = draw((N, C))
    inner = Model([Linear(4), BatchNorm()], seed=1)
    inner.train(x, draw((N, 4)), epochs=2, verbose=False)
    prediction = inner.predict(x)
    outer = Model([inner, Linear(2)], seed=2).build((C,))
    np.testing.assert_array_equal(inner.predict(x), prediction)
    np.testing.assert_array_equal(outer.predict(x), outer[1](prediction))
    assert in_one_piece(outer)


class Asked(Linear):
    """Notes whether dL/dx was wanted."""

    def backward(self, grad):
        self.asked = self.input_gradient_needed
        return super().backward(grad)


def test_an_optimizer_never_asks_for_the_gradient_of_the_data():
    net = Model([Asked(4), Asked(3), Linear(2)], seed=0)
    x, mse = draw((N, C)).astype(np.float32), loss.MSE()
    value = mse(net(x, training=True), draw((N, 2)))
    optim.SGD(0.0).backward(net, mse)
    assert (net[0].asked, net[1].asked) == (False, True)
    gradients = gradients_of(net)
    x_gradient = net.backward(mse.backward())
    assert net[0].asked
    assert_same_bits(gradients_of(net), gradients)
    step = 1e-2 * x_gradient / np.linalg.norm(x_gradient)
    assert mse(net(x - step), draw((N, 2))) < value
    assert net[0].backward(np.ones((N, 4), np.float32)).shape == x.shape


FIRST = {  # what stands below the layer that is the first to train
    "nothing": lambda first: [first],
    "Chain": lambda first: [Chain([first])],
    "Residual": lambda first: [Residual([first])],
    "Parallel": lambda first: [Parallel([first, Linear(C)])],
    "a Model and Tanh": lambda first: [Tanh(), Model([first])],
}


@pytest.mark.parametrize("wrap", FIRST.values(), ids=FIRST)
def test_the_lowest_trained_layer_computes_no_input_gradient(wrap):
    first = Asked(C)
    net = Model([*wrap(first), Linear(2)], seed=0)
    net.train(draw((N, C)), draw((N, 2)), epochs=1, verbose=False)
    assert not first.asked
    assert first.input_gradient_needed
    assert np.abs(first.w_gradient).max() > 0


def test_backward_stops_at_the_lowest_trained_layer():
    class Below(Tanh):
        def backward(self, grad):
            raise AssertionError("nobody needs this gradient")

    net = Model([Below(), Linear(4), Below(), Linear(3), Linear(2)], seed=0).build((C,))
    net[1].frozen = True
    net.train(draw((N, C)), draw((N, 2)), epochs=1, verbose=False)
    net[1].frozen = False
    with pytest.raises(AssertionError, match="nobody needs"):
        net.train(draw((N, C)), draw((N, 2)), epochs=1, verbose=False)


def test_a_pickle_carries_no_plan_of_the_backward_pass(monkeypatch):
    """A pickled net that was thawed trains all of its layers, in a process that has counted no further."""
    net = Model([Linear(3), Linear(2)], seed=0).build((C,))
    net[0].frozen = True
    net.train(draw((N, C)), draw((N, 2)), epochs=1, verbose=False)
    version = net._flat.version
    net[0].frozen = False
    pickled = pickle.dumps(net)
    monkeypatch.setattr(parameters, "versions", itertools.repeat(version))
    twin = pickle.loads(pickled)
    twin.train(draw((N, C)), draw((N, 2)), epochs=1, verbose=False)
    assert np.abs(twin[0].w_gradient).max() > 0


def test_freezing_a_container_freezes_all_within_and_one_layer_can_be_thawed():
    net = Model([Chain([Linear(3), BatchNorm()]), Linear(2)], seed=0).build((C,))
    net.frozen = True
    assert [leaf.frozen for leaf in net.leaf_layers()] == [True] * 3
    assert not net.trainable
    net[1].frozen = False
    assert not net.frozen
    assert net[0].frozen
    before = state(net)
    net.train(draw((N, C)), draw((N, 2)), epochs=1, verbose=False)
    moved = {name for name, array in state(net).items() if (array != before[name]).any()}
    assert moved == {"layers.1.w", "layers.1.b"}
