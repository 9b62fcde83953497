"""convolution.py: what its kernels are, whatever the windows; the same results in pieces and threads; errors.

The gradients of its layers, their golden values and what every layer promises are in test_layers.py's table.
"""

import itertools
import threading
import tracemalloc

import numpy as np
import pytest

import layers
import loss
import model
import optim
from layers import (
    AveragePool1D,
    AveragePool2D,
    Conv1D,
    Conv2D,
    ConvTranspose2D,
    DepthwiseConv2D,
    Flatten,
    GlobalAveragePool2D,
    Linear,
    MaxPool1D,
    MaxPool2D,
    Model,
    ReLU,
    Softmax,
    SpatialDropout,
    UpSample2D,
    ZeroPad2D,
)
from layerwise import convolution
from layerwise.core import lazy, threads, windows


def draw(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_every_layer_of_the_file_is_reached_through_layers():
    for name in convolution.__all__:
        assert getattr(layers, name) is getattr(convolution, name)
    assert {name for name, module in lazy.ELSEWHERE["layers"].items() if module == "convolution"} == set(
        convolution.__all__
    )


# ---- The kernels ----


def fits(layer, size, channels):
    try:
        layer.output_shape((*size, channels))
    except ValueError:
        return False
    return True


def geometries(count, make, channels):
    """(layer in float64 with random weights, height and width) with random windows, where one fits."""
    rng = np.random.default_rng(0)
    found = 0
    while found < count:
        size = tuple(rng.integers(1, 10, 2).tolist())
        kernel, stride, dilation, padding = (
            tuple(rng.integers(low, high, 2).tolist()) for low, high in ((1, 5), (1, 5), (1, 4), (0, 4))
        )
        padding = ("valid", "same", padding)[rng.integers(3)]
        layer = make(kernel_size=kernel, stride=stride, padding=padding, dilation=dilation)
        if fits(layer, size, channels):
            found += 1
            layer = layer.copy(dtype="float64").build((*size, channels))
            layer.w = draw(layer.w.shape, 1)
            yield layer, size


def places_of(layer, size, axis):
    """For each window along an axis the places of its taps, negative or too large where they are padded."""
    taps, stride, step = (getattr(layer, name)[axis] for name in ("kernel_size", "stride", "dilation"))
    if layer.padding == "same":
        windows = -(-size // stride)
        before = max((windows - 1) * stride + (taps - 1) * step + 1 - size, 0) // 2
    else:
        before = 0 if layer.padding == "valid" else layer.padding[axis]
        windows = (size + 2 * before - (taps - 1) * step - 1) // stride + 1
    return [[o * stride + i * step - before for i in range(taps)] for o in range(windows)]


@pytest.mark.parametrize(("groups", "depth", "filters"), [(1, 3, 2), (1, 5, 2), (2, 2, 1), (3, 1, 2)])
def test_a_convolution_is_the_sum_over_its_windows(groups, depth, filters):
    def make(**told):
        return Conv2D(groups * filters, groups=groups, bias=False, **told)

    for layer, size in geometries(20, make, groups * depth):
        x = draw((2, *size, groups * depth))
        np.testing.assert_allclose(layer(x), summed(layer, x, groups, depth, filters), rtol=0, atol=1e-12)


def summed(layer, x, groups, depth, filters):
    """The sum, written out."""
    size = x.shape[1:3]
    rows, columns = (places_of(layer, size[axis], axis) for axis in (0, 1))
    expected = np.zeros((2, len(rows), len(columns), groups * filters))
    for (r, down), (c, across) in itertools.product(enumerate(rows), enumerate(columns)):
        for (i, row), (j, column) in itertools.product(enumerate(down), enumerate(across)):
            if 0 <= row < size[0] and 0 <= column < size[1]:
                for g in range(groups):
                    own, out = slice(g * depth, (g + 1) * depth), slice(g * filters, (g + 1) * filters)
                    expected[:, r, c, out] += x[:, row, column, own] @ layer.w[i, j, :, out]
    return expected


KINDS = {
    "Conv2D": lambda **told: Conv2D(4, groups=2, bias=False, **told),
    "DepthwiseConv2D": lambda **told: DepthwiseConv2D(multiplier=2, bias=False, **told),
    "ConvTranspose2D": lambda **told: ConvTranspose2D(3, bias=False, **told),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_backward_is_the_adjoint_of_forward(make):
    """y is linear in x and in w: <grad, y> = <dL/dx, x> = <dL/dw, w>."""
    for layer, size in geometries(40, make, 2):
        x = draw((3, *size, 2))
        y = layer(x)
        grad = draw(y.shape, 2)
        value = np.vdot(grad, y)
        assert np.vdot(layer.backward(grad), x) == pytest.approx(value, rel=1e-9, abs=1e-9)
        assert np.vdot(layer.w_gradient, layer.w) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_pooling_agrees_with_its_definition():
    def make(dilation, padding, **told):
        return Conv2D(1, padding="same" if padding == "same" else "valid", dilation=(1, 1), **told)

    for layer, size in geometries(40, make, 2):  # which lies as the pooling does
        x = draw((2, *size, 2))
        rows, columns = (places_of(layer, size[axis], axis) for axis in (0, 1))
        for function, kind in ((np.max, MaxPool2D), (np.mean, AveragePool2D)):
            found = kind(layer.kernel_size, layer.stride, layer.padding).copy(dtype="float64")(x)
            assert found.shape == (2, len(rows), len(columns), 2)
            for (r, down), (c, across) in itertools.product(enumerate(rows), enumerate(columns)):
                inside = [[p for p in places if 0 <= p < s] for places, s in zip((down, across), size, strict=True)]
                expected = function(x[:, inside[0]][:, :, inside[1]], axis=(1, 2))
                np.testing.assert_allclose(found[:, r, c], expected, rtol=0, atol=1e-14)


def test_a_convolution_goes_on_with_images_of_another_size():
    layer = Conv2D(4, 3).build((9, 8, 2))
    x = draw((3, 12, 5, 2), dtype=np.float32)
    np.testing.assert_array_equal(layer(x)[:, 2:7, :], layer(x[:, 2:9]))


def test_depthwise_is_a_convolution_with_a_group_for_each_channel():
    x = draw((2, 7, 6, 3))
    one = DepthwiseConv2D(3, stride=2, padding="same", multiplier=2).copy(dtype="float64").build(x.shape[1:])
    many = Conv2D(6, 3, stride=2, padding="same", groups=3).copy(dtype="float64").build(x.shape[1:])
    many.w = one.w.reshape(many.w.shape)
    one.b = many.b = draw(6)
    np.testing.assert_allclose(one(x), many(x), rtol=0, atol=1e-13)


def test_spatial_dropout_drops_whole_channels():
    layer = SpatialDropout(0.25)
    x = np.ones((200, 3, 4, 5), np.float32)
    y = layer(x, training=True)
    channels = y[:, 0, 0]
    np.testing.assert_array_equal(y, np.broadcast_to(channels[:, None, None], y.shape))
    assert set(np.unique(channels)) == {0, np.float32(1 / 0.75)}
    assert 0.2 < np.mean(channels == 0) < 0.3
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(layer(x), x)


def test_initial_weights_follow_the_number_of_inputs():
    """Uniform in +-1 / sqrt(fan_in); of a depthwise convolution each output has one channel only."""

    def limit(layer, shape):
        w = Model([layer], seed=0, dtype="float64").build(shape)[0].w
        assert w.std() == pytest.approx(np.abs(w).max() / np.sqrt(3), rel=0.05)
        return np.abs(w).max()

    assert limit(Conv2D(64, 5), (9, 9, 16)) == pytest.approx(1 / 20, rel=1e-3)
    assert limit(Conv2D(64, 5, groups=4), (9, 9, 16)) == pytest.approx(1 / 10, rel=1e-3)
    assert limit(Conv1D(64, 9), (30, 16)) == pytest.approx(1 / 12, rel=1e-3)
    assert limit(DepthwiseConv2D(5, multiplier=4), (9, 9, 64)) == pytest.approx(1 / 5, rel=1e-3)
    assert limit(DepthwiseConv2D(5, multiplier=4, init="glorot"), (9, 9, 64)) < np.sqrt(6 / 25) / 10
    assert limit(ConvTranspose2D(16, 5), (9, 9, 64)) == pytest.approx(1 / 20, rel=1e-3)
    np.testing.assert_array_equal(DepthwiseConv2D(3, init=0.5).build((9, 9, 2)).w, np.full((3, 3, 2, 1), 0.5))


# ---- Pieces and threads ----

LARGE = {
    "Conv2D": (lambda: Conv2D(24, 3, padding="same"), (8, 20, 22, 16)),
    "Conv2D of one channel": (lambda: Conv2D(24, 5, stride=2), (32, 40, 42, 1)),
    "Conv2D 1 by 1": (lambda: Conv2D(64, 1), (8, 20, 22, 40)),
    "Conv2D of groups": (lambda: Conv2D(24, 3, groups=4, padding=1), (8, 20, 22, 32)),
    "Conv1D": (lambda: Conv1D(32, 5, stride=2), (8, 500, 24)),
    "ConvTranspose2D": (lambda: ConvTranspose2D(16, 3, stride=2, padding="same"), (8, 15, 16, 24)),
    "DepthwiseConv2D": (lambda: DepthwiseConv2D(3, padding="same"), (8, 40, 42, 24)),
    "MaxPool2D": (lambda: MaxPool2D(3, stride=2), (8, 40, 42, 24)),
    "AveragePool2D": (lambda: AveragePool2D(2), (8, 40, 42, 24)),
}
every_large = pytest.mark.parametrize(("make", "shape"), LARGE.values(), ids=LARGE)


def results(make, shape):
    """Everything that forward and backward give."""
    layer = make().build(shape[1:])
    for array in layer.parameters.values():
        array[...] = draw(array.shape, 1)
    y = layer(draw(shape, dtype=np.float32), training=True)
    x_gradient = layer.backward(draw(y.shape, 2, np.float32))
    return [y, x_gradient, *(g.copy() for g in layer.gradients.values())]


def assert_close(found, expected):
    for ours, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=2e-6 * np.abs(reference).max())


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads, whatever the machine; the names of those that helped the first."""
    seen, parallel_for = set(), threads.parallel_for

    def noting(function, blocks, count=None):
        def noted(*block):
            if threading.current_thread() is not threading.main_thread():
                seen.add(threading.current_thread().name)
            function(*block)

        parallel_for(noted, blocks, count)

    monkeypatch.setattr(threads, "workers", lambda: 2)
    monkeypatch.setattr(threads, "parallel_for", noting)
    return seen


@every_large
def test_two_threads_give_what_one_gives_and_always_the_same_bits(make, shape, two_threads, monkeypatch):
    first, second = results(make, shape), results(make, shape)
    assert two_threads, "the work is too small for threads: the test shows nothing"
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(threads, "workers", lambda: 1)
    assert_close(results(make, shape), first)


@pytest.mark.parametrize("name", [name for name in LARGE if name.startswith("Conv")])
def test_without_threadpoolctl_one_thread_does_all_products(name, two_threads, monkeypatch):
    expected = results(*LARGE[name])
    two_threads.clear()
    monkeypatch.setattr(threads, "_blas", lambda: None)
    assert_close(results(*LARGE[name]), expected)
    assert not two_threads


@every_large
def test_small_pieces_down_to_a_row_of_an_image_give_the_same(make, shape, monkeypatch):
    expected = results(make, shape)
    monkeypatch.setattr(windows, "CACHE", 1)
    monkeypatch.setattr(windows, "FEWEST_ROWS", 1)
    assert_close(results(make, shape), expected)


def test_predict_may_be_called_from_several_threads_at_once():
    net = Model([Conv2D(8, 3, padding="same"), ReLU(), MaxPool2D(2), DepthwiseConv2D(3), Flatten(), Linear(3)], seed=0)
    inputs = [draw((5, 12, 13, 2), seed, np.float32) for seed in range(6)]
    expected = [net.predict(x) for x in inputs]
    wrong = []

    def check(k):
        for _ in range(20):
            if not np.array_equal(net.predict(inputs[k]), expected[k]):
                wrong.append(k)

    workers = [threading.Thread(target=check, args=(k,)) for k in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_memory_holds_the_windows_of_a_piece_only():
    """Those of the whole image would take 25 times the memory of x."""
    layer = Conv2D(8, 5, padding="same").build((400, 300, 8))
    x = draw((1, 400, 300, 8), dtype=np.float32)
    tracemalloc.start()
    y = layer(x, training=True)
    layer.backward(y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * x.nbytes + 8 * 2**20


def test_the_gradient_of_the_data_is_not_computed_when_nobody_reads_it():
    for layer in (Conv2D(4, 3), Conv1D(4, 3), DepthwiseConv2D(3), ConvTranspose2D(4, 3)):
        shape = (2, 5, 3) if isinstance(layer, Conv1D) else (2, 5, 6, 3)
        y = layer(draw(shape), training=True)
        assert layer.backward(y).shape == shape
        gradient = layer.w_gradient.copy()
        layer.input_gradient_needed = False
        assert layer.backward(y) is None
        np.testing.assert_array_equal(layer.w_gradient, gradient)


# ---- In a net ----


def bars(n):
    """Images with a bar that stands (0) or lies (1) somewhere."""
    rng = np.random.default_rng(0)
    x, y = 0.1 * rng.standard_normal((n, 8, 8, 1)), rng.integers(2, size=n)
    for image, kind, at in zip(x[..., 0], y, rng.integers(8, size=n), strict=True):
        (image.T if kind == 0 else image)[at] += 1
    return x, y


def test_a_small_net_learns_to_tell_bars_apart_and_comes_back_from_a_file(tmp_path):
    x, y = bars(200)
    net = Model(
        [Conv2D(4, 3, padding="same"), ReLU(), MaxPool2D(2), Conv2D(6, (3, 2)), ReLU(), GlobalAveragePool2D(),
         Linear(2), Softmax()], seed=0,
    )  # fmt: skip
    history = net.train(x[:150], y[:150], optim.Adam(0.02), loss.CrossEntropy(), epochs=20, verbose=False)
    assert net.evaluate(x[150:], y[150:], metrics="accuracy")["accuracy"] == 1
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    net.save(tmp_path / "net.npz")
    repeated = model.load(tmp_path / "net.npz")
    assert repr(repeated[3]) == repr(net[3])
    np.testing.assert_array_equal(repeated.predict(x), net.predict(x))


def test_down_and_up_again_gives_the_shape_back():
    net = Model([Conv2D(6, 3, stride=2, padding="same"), UpSample2D(2), ConvTranspose2D(3, 3, padding=1)])
    assert net.output_shape((8, 10, 3)) == (8, 10, 3)


@pytest.mark.parametrize(
    "layer",
    [
        Conv1D(3, 4, padding="causal"),
        Conv1D(3, 3, stride=2, padding="causal", dilation=2),
        MaxPool1D(3, stride=1, padding="causal"),
        AveragePool1D(4, stride=3, padding="causal"),
    ],
    ids=repr,
)
def test_what_is_causal_knows_nothing_of_later_steps(layer):
    x = draw((2, 9, 2))
    layer = layer.copy(dtype="float64")
    y, stride = layer(x), layer.stride
    assert y.shape[1] == -(-9 // stride)
    for t in range(9):
        changed = x.copy()
        changed[:, t] += 10
        moved = np.flatnonzero((layer(changed) != y).any(axis=(0, 2)))
        assert moved[0] * stride >= t if len(moved) else True
        assert t % stride or moved[0] * stride == t  # nor is it late


def test_a_transpose_comes_back_to_the_shape_that_its_output_padding_says():
    for size in (5, 6):
        small = Conv2D(2, 3, stride=2, padding=1).output_shape((size, size, 3))
        back = ConvTranspose2D(3, 3, stride=2, padding=1, output_padding=size - 5)
        assert back.output_shape(small) == (size, size, 3)


# ---- Errors ----

CANNOT_BE = [  # (layer, input shape, what the message says)
    (Conv2D(4, 3), (784,), r"Conv2D takes images of shape \(height, width, channels\), got inputs of shape \(784,\) "
     r"\(without the batch axis\): put Reshape\(\(height, width, channels\)\) before it"),
    (Conv2D(4, 3), (28, 28), r"got inputs of shape \(28, 28\).*with one channel, give x\[..., None\]"),
    (MaxPool2D(2), (784,), r"MaxPool2D takes images.*\(784,\)"),
    (GlobalAveragePool2D(), (784,), "GlobalAveragePool2D takes images"),
    (ZeroPad2D(), (4,), "ZeroPad2D takes images"),
    (UpSample2D(), (4,), "UpSample2D takes images"),
    (Conv1D(4, 3), (8, 8, 3), r"Conv1D takes sequences of shape \(time, channels\), got inputs of shape \(8, 8, 3\)"),
    (MaxPool1D(2), (5,), r"MaxPool1D takes sequences.*give x\[..., None\]"),
    (Conv2D(4, 5), (4, 7, 1), r"windows of 5 by 5, larger than its inputs of shape \(4, 7, 1\).*padding=\"same\""),
    (Conv2D(4, (2, 3), dilation=2), (9, 4, 1), r"windows of 3 by 5, larger than its inputs of shape \(9, 4, 1\)"),
    (Conv2D(4, 5, padding=1), (2, 7, 1), "windows of 5 by 5, larger"),
    (Conv1D(4, 5), (4, 1), r"Conv1D has windows of 5, larger than its inputs of shape \(4, 1\)"),
    (MaxPool2D(3), (2, 9, 1), "MaxPool2D has windows of 3 by 3, larger"),
    (Conv2D(4, 3, groups=2), (9, 9, 3), "Conv2D splits the channels into 2 groups of one size, got 3 channels: choose"),
    (ConvTranspose2D(4, 2, padding=1), (1, 5, 3), "ConvTranspose2D cuts off 1 on every side, and nothing is left"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "message"), CANNOT_BE)
def test_an_input_that_cannot_be_is_refused_before_anything_is_made(layer, shape, message):
    layer = layer.copy()
    with pytest.raises(ValueError, match=message):
        layer.build(shape)
    assert layer.parameters == {}


@pytest.mark.parametrize("make", [lambda: Conv2D(4, 3), lambda: DepthwiseConv2D(3), lambda: ConvTranspose2D(4, 3)])
def test_other_channels_than_it_was_built_for_are_refused(make):
    layer = make().build((6, 7, 3))
    before = layer.w.copy()
    with pytest.raises(ValueError, match=r"takes 3 channels, the last axis, got inputs of shape \(6, 7, 4\)"):
        layer(np.ones((2, 6, 7, 4)), training=True)
    np.testing.assert_array_equal(layer.w, before)


BAD_ARGUMENTS = [
    (lambda: Conv2D(0, 3), "filters is a positive integer, got 0"),
    (lambda: Conv2D(4, 0), "kernel_size is a positive integer or a pair of them, got 0"),
    (lambda: Conv2D(4, (1, 2, 3)), r"kernel_size is a positive integer or a pair of them, got \(1, 2, 3\)"),
    (lambda: Conv2D(4, 2.0), "kernel_size is a positive integer or a pair of them, got 2.0"),
    (lambda: Conv2D(4, 3, stride=(1, 0)), r"stride is a positive integer or a pair of them, got \(1, 0\)"),
    (lambda: Conv2D(4, 3, dilation=True), "dilation is a positive integer or a pair of them, got True"),
    (lambda: Conv2D(4, 3, padding="full"), r'padding is "valid", "same" or an integer, 0 or more, or a pair.*\'full\''),
    (lambda: Conv2D(4, 3, padding=-1), "padding is .*got -1"),
    (lambda: Conv2D(4, 3, groups=3), "filters is a multiple of groups, got filters=4 and groups=3"),
    (lambda: Conv2D(4, 3, init="xavier"), "init is one of"),
    (lambda: Conv1D(4, (3,)), r"kernel_size is one integer for sequences, got \(3,\)"),
    (lambda: Conv1D(4, 3, padding="full"), 'padding is "valid", "same", "causal" or an integer, 0 or more, got \'full'),
    (lambda: Conv2D(4, 3, padding="causal"), 'padding is "valid", "same" or an integer, 0 or more, or a pair.*causal'),
    (lambda: ConvTranspose2D(4, 3, output_padding=1), "output_padding is less than stride or dilation, got"),
    (lambda: ConvTranspose2D(4, 3, 2, output_padding=-1), "output_padding is an integer, 0 or more, or a pair"),
    (lambda: ConvTranspose2D(4, 3, 2, "same", output_padding=1), 'output_padding goes with padding="valid" or a num'),
    (lambda: AveragePool2D(2, count_padding=1), "count_padding is True or False, got 1"),
    (lambda: DepthwiseConv2D(3, multiplier=0), "multiplier is a positive integer, got 0"),
    (lambda: MaxPool2D(0), "size is a positive integer or a pair of them, got 0"),
    (lambda: MaxPool2D(2, padding=2), "padding is at most half of size.*got padding=2 and size=2"),
    (lambda: ZeroPad2D(-1), "padding is an integer, 0 or more, a pair of them, or a pair of pairs, got -1"),
    (lambda: ZeroPad2D((1, 2, 3)), r"padding is an integer.*got \(1, 2, 3\)"),
    (lambda: UpSample2D(0), "factor is a positive integer or a pair of them, got 0"),
    (lambda: SpatialDropout(1), r"rate is a number in \[0, 1\), got 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD_ARGUMENTS)
def test_arguments_outside_their_range(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_arguments_are_kept_as_plain_numbers():
    assert repr(MaxPool2D(np.int64(2), [1, np.int32(2)])) == "MaxPool2D(size=2, stride=(1, 2), padding='valid')"
    assert Conv2D(4, [3, 2]).config()["kernel_size"] == (3, 2)
    assert ZeroPad2D([[1, 0], [2, 3]]).config()["padding"] == ((1, 0), (2, 3))
