"""Model: how it is built, predicts, evaluates and tells what it is. Training: test_train.py; files: test_files.py."""

import copy
import io
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise.core import parameters

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0], [0.5]], np.float32)


def make(seed=0, dtype="float32"):
    """A net with every kind of container and everything that has a state of its own."""
    return layers.Model(
        [
            layers.Linear(6),
            layers.BatchNorm(),
            layers.Residual([layers.Linear(6), layers.Tanh(), layers.Dropout(0.2)]),
            layers.Parallel([layers.Linear(2), [layers.ReLU(), layers.Linear(3)]]),
            layers.Model([layers.Linear(4), layers.GaussianNoise(0.1), layers.GELU()]),
            layers.Linear(1),
        ],
        seed=seed,
        dtype=dtype,
    )


@pytest.fixture
def net():
    net = make()
    net.train(X, Y, optim=optim.Adam(lr=0.02), loss=loss.MSE(), epochs=2, verbose=False)
    return net


# What it is --------------------------------------------------------------------------------------------------


def test_a_model_is_a_layer_and_a_sequence(net):
    assert isinstance(net, layers.Layer)
    assert isinstance(net.layers, tuple)
    assert len(net) == 6
    assert net[0] is net.layers[0]
    assert list(net) == list(net.layers)
    assert net[-1].w.shape == (4, 1)


def test_parameters_are_counted():
    net = layers.Model([layers.Linear(8), layers.BatchNorm(), layers.Linear(2, bias=False)]).build((5,))
    assert net.parameter_count == (5 * 8 + 8) + 2 * 8 + 8 * 2
    assert layers.Model([layers.Sigmoid()]).build((5,)).parameter_count == 0


def test_build_tells_shapes_before_any_data():
    net = layers.Model([layers.Flatten(), layers.Linear(7)])
    assert net.build((4, 5)) is net
    assert net[1].w.shape == (20, 7)
    before = net.vector.copy()
    net.build([4, 5])  # again, with the same shape
    np.testing.assert_array_equal(net.vector, before)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((9, 9), ValueError, r"20 inputs"),
        (784, TypeError, r"tuple, such as \(784,\).*784"),
        ((0,), ValueError, "positive"),
        ((2.5,), TypeError, r"2\.5"),
    ],
)
def test_a_shape_that_cant_be_is_refused(snapshot, shape, error, message):
    net = layers.Model([layers.Flatten(), layers.Linear(7)])
    if error is ValueError:
        net.build((4, 5))
    before = snapshot(net)
    with pytest.raises(error, match=message):
        net.build(shape)
    assert snapshot(net) == before


def test_methods_that_need_a_built_net_say_so():
    net = make()
    for ask in (net.summary, lambda: net.parameter_count, lambda: net.save("net.npz")):
        with pytest.raises(ValueError, match=r"build\(input_shape\)"):
            ask()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), ValueError, "at least one layer"),
        (([layers.Linear],), TypeError, r"layers\[0\].*write Linear\(\.\.\.\)"),
        (([layers.ReLU(), 3],), TypeError, r"layers\[1\] is not a Layer but 3"),
        (([layers.ReLU()], -1), ValueError, "seed.*-1"),
        (([layers.ReLU()], 1.5), ValueError, r"seed.*1\.5"),
        (([layers.ReLU()], True), ValueError, "seed.*True"),
        (([layers.ReLU()], 0, "float16"), ValueError, "float32.*float64.*float16"),
        (([layers.ReLU()], 0, int), ValueError, "float32.*float64"),
        (([layers.ReLU()], 0, "nonsense"), ValueError, "float32.*float64.*nonsense"),
    ],
)
def test_arguments_that_make_no_net_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        layers.Model(*arguments)


def test_a_layer_stands_in_one_place():
    shared = layers.Linear(3)
    owner = layers.Model([shared])
    for place_it in (lambda: layers.Model([shared]), lambda: layers.Model([layers.Residual([shared])])):
        with pytest.raises(ValueError, match=r"Linear .*layer\.copy\(\)"):
            place_it()
    assert owner[0] is shared
    twice = layers.ReLU()
    with pytest.raises(ValueError, match=r"one place"):
        layers.Model([twice, twice])
    layers.Model([shared.copy(), twice.copy(), twice.copy()]).build((2,))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_array_keeps_the_nets_dtype(dtype):
    net = make(dtype=dtype)
    for data in (X, X.astype(np.float64), X.tolist(), (X * 9).astype(int), X > 0):
        assert net(data).dtype == net.predict(data).dtype == dtype
    net.train(X, Y, epochs=1, sample_weight=np.ones(60), verbose=False)
    stored = [array for leaf in net.leaf_layers() for array in (leaf.parameters | leaf.buffers).values()]
    assert {array.dtype.name for array in stored} == {dtype}


# predict -----------------------------------------------------------------------------------------------------


def test_predict_is_the_inference_pass(net):
    np.testing.assert_array_equal(net.predict(X), net(X))
    assert not np.array_equal(net.predict(X), net(X, training=True))


@pytest.mark.parametrize("batch_size", [1, 7, 59, 60, 1000])
def test_predict_is_independent_of_its_batches(net, batch_size):
    np.testing.assert_allclose(net.predict(X, batch_size=batch_size), net(X), rtol=1e-5, atol=1e-6)
    assert net.predict(X, batch_size=batch_size).shape == (60, 1)


@pytest.mark.parametrize("built", [True, False])
def test_no_rows_give_no_rows(net, built):
    empty = (net if built else make()).predict(np.empty((0, 3)))
    assert (empty.shape, empty.dtype) == ((0, 1), np.float32)


def test_predict_builds_an_unbuilt_net():
    assert make().predict(X).shape == (60, 1)
    np.testing.assert_array_equal(make().predict(X), make()(X))


def arrays_held(net):
    """Every array that hangs on a layer or the net, by where it hangs."""
    stored = {}
    stack = [("", net)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, np.ndarray):
            stored[where] = value
        elif isinstance(value, dict):
            stack += [(f"{where}[{key!r}]", each) for key, each in value.items()]
        elif isinstance(value, (list, tuple)):
            stack += [(f"{where}[{key}]", each) for key, each in enumerate(value)]
        elif isinstance(value, (layers.Layer, parameters.ParameterVector, parameters.Workspace)):
            stack += [(f"{where}.{key}", each) for key, each in vars(value).items()]
    return stored


@pytest.mark.parametrize("ask", [lambda net: net.predict(X), lambda net: net.evaluate(X, Y, metrics="mae")])
def test_predict_and_evaluate_keep_nothing_on_the_net(net, snapshot, ask):
    before, state = arrays_held(net), snapshot(net)
    values = {where: array.tobytes() for where, array in before.items()}
    ask(net)
    after = arrays_held(net)
    assert after.keys() == before.keys()
    assert all(after[where] is array for where, array in before.items())
    assert {where: array.tobytes() for where, array in after.items()} == values
    assert snapshot(net) == state


def test_predict_between_a_forward_and_a_backward_disturbs_neither(net):
    grad = np.ones((60, 1), np.float32)
    net(X)
    expected = net.backward(grad), net[0].w_gradient.copy()
    net(X)
    net.predict(X[:5])
    np.testing.assert_array_equal(net.backward(grad), expected[0])
    np.testing.assert_array_equal(net[0].w_gradient, expected[1])


def test_predict_is_safe_from_several_threads(net):
    inputs = [RNG.normal(size=(300, 3)).astype(np.float32) for _ in range(16)]
    alone = [net.predict(x, batch_size=50) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: net.predict(x, batch_size=50), inputs * 4))
    for place, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[place % 16])


def test_the_first_predict_may_come_from_several_threads():
    """One thread builds, the others wait: each gets what a net that was built before predicts."""
    x = RNG.normal(size=(20, 3)).astype(np.float32)
    expected = make().build((3,)).predict(x)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                net, start = make(), threading.Barrier(8)
                for found in pool.map(lambda _, net=net, start=start: (start.wait(), net.predict(x))[1], range(8)):
                    np.testing.assert_array_equal(found, expected)
    finally:
        sys.setswitchinterval(switch)


def test_predict_needs_memory_for_a_batch_and_the_answer():
    import tracemalloc

    net = layers.Model([layers.Linear(500), layers.ReLU(), layers.Linear(1)], seed=0).build((3,))
    x = np.ones((20_000, 3), np.float32)
    net.predict(x[:100], batch_size=100)
    tracemalloc.start()
    net.predict(x, batch_size=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # all rows of the first layer at once are 40 million bytes


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([["a", "b", "c"]], TypeError, "numbers.*<U1"),
        (np.array([[None, 1, 2]]), TypeError, "numbers.*object"),
        ([1.0, 2.0, 3.0], ValueError, r"\(3,\).*x\[None\]"),
        (3.0, ValueError, r"shape \(\)"),
        (np.ones((2, 4)), ValueError, r"3 inputs.*\(4,\)"),
    ],
)
@pytest.mark.parametrize("built", [True, False])
def test_predict_refuses_what_is_no_batch(snapshot, built, x, error, message):
    net = make()
    if built:
        net.build((3,))
    elif np.shape(x) == (2, 4):
        return  # any width will do
    before = snapshot(net)
    with pytest.raises(error, match=message):
        net.predict(x)
    assert snapshot(net) == before


# evaluate ----------------------------------------------------------------------------------------------------


def test_evaluate_gives_the_loss_and_the_metrics_in_inference_mode(net):
    found = net.evaluate(X, Y, metrics=["mae", lambda pred, real: pred.max()])
    assert found == {
        "loss": pytest.approx(loss.MSE()(net.predict(X), Y)),
        "mae": pytest.approx(np.abs(net.predict(X) - Y).mean()),
        "<lambda>": pytest.approx(net.predict(X).max()),
    }


@pytest.mark.parametrize("reduction", ["mean", "sum", "batch_sum"])
@pytest.mark.parametrize("weight", [None, np.linspace(0, 2, 60)])
def test_evaluate_is_a_mean_over_samples_in_any_batches(net, reduction, weight):
    value = loss.MSE(reduction=reduction)
    whole, members = (
        net.evaluate(X, Y, loss=value, metrics="mae", batch_size=size, sample_weight=weight) for size in (60, 7)
    )
    assert members == {name: pytest.approx(number, rel=1e-5) for name, number in whole.items()}
    errors = ((net.predict(X) - Y) ** 2).sum(1)
    weight = np.ones(60) if weight is None else weight
    assert whole["loss"] == pytest.approx(errors @ weight / (weight.sum() if reduction == "mean" else 60), rel=1e-5)


def test_evaluate_takes_the_loss_of_the_training_unless_given(net):
    net.train(X, Y, loss=loss.MAE(), epochs=1, verbose=False)
    assert net.evaluate(X, Y)["loss"] == pytest.approx(np.abs(net.predict(X) - Y).mean())
    assert net.evaluate(X, Y, loss=loss.MSE())["loss"] == pytest.approx(((net.predict(X) - Y) ** 2).mean())


def test_evaluate_of_an_unbuilt_net_builds_it_only_when_all_is_well(snapshot):
    net = layers.Model([layers.Linear(3)], seed=0)
    before = snapshot(net)
    with pytest.raises(ValueError, match="from_logits=True"):
        net.evaluate(X, np.zeros(60, int), loss=loss.CrossEntropy())
    assert snapshot(net) == before
    assert net.evaluate(X, np.zeros(60, int), loss=loss.CrossEntropy(from_logits=True))["loss"] > 0


def test_mae_of_class_numbers_says_what_it_compares():
    net = layers.Model([layers.Linear(3), layers.Softmax()], seed=0)
    with pytest.raises(ValueError, match=r'"mae".*\(60, 3\).*\(60,\)'):
        net.evaluate(X, np.zeros(60, int), loss=loss.CrossEntropy(), metrics="mae")


# Copies ------------------------------------------------------------------------------------------------------


def through_joblib(net):
    file = io.BytesIO()
    joblib.dump(net, file)
    file.seek(0)
    return joblib.load(file)


COPIES = [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), through_joblib, lambda net: net.copy()]


@pytest.mark.parametrize("twin", COPIES, ids=["deepcopy", "pickle", "joblib", "copy"])
def test_a_copy_trains_on_as_the_net_does_and_apart_from_it(net, twin):
    other = twin(net)
    np.testing.assert_array_equal(other.predict(X), net.predict(X))
    assert not np.shares_memory(other.vector, net.vector)
    before = net.vector.copy()
    other.train(X, Y, epochs=2, verbose=False)
    np.testing.assert_array_equal(net.vector, before)
    net.train(X, Y, epochs=2, verbose=False)
    assert net.vector.tobytes() == other.vector.tobytes()
    assert all(np.shares_memory(leaf.w, other.vector) for leaf in other.leaf_layers() if leaf.w.size)


def test_train_returns_a_history(net):
    history = net.train(X, Y, epochs=2, verbose=False)
    assert isinstance(history, model.History)
    repeated = pickle.loads(pickle.dumps(history))
    assert repeated == history
    assert repeated.epochs == 2
