"""Data on its way into a training: weights of samples and classes, iterables of batches, memory maps."""

import tracemalloc

import numpy as np
import pytest

import layers
import loss
import optim


def busy_net():
    """A net with random numbers and running statistics, so that another order or number of steps shows."""
    members = [layers.Linear(6), layers.BatchNorm(), layers.Tanh(), layers.Dropout(0.2), layers.Linear(1)]
    return layers.Model(members, seed=0)


@pytest.fixture
def line():
    """50 rows of three features and a column that follows from them."""
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    return x, (x @ [[1.0], [-2.0], [0.5]] + 0.3).astype(np.float32)


def same(one, other):
    """Whether two nets have the same parameters, bit by bit."""
    return one.vector.tobytes() == other.vector.tobytes()


# Weights -----------------------------------------------------------------------------------------------------


def weighted_net():
    return layers.Model([layers.Linear(5), layers.Tanh(), layers.Linear(3), layers.Softmax()], seed=1, dtype="float64")


@pytest.mark.parametrize("value", [loss.CrossEntropy, loss.MSE])
@pytest.mark.parametrize("reduction", ["mean", "sum", "batch_sum"])
def test_a_weight_of_two_is_a_row_that_stands_twice(value, reduction):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), np.eye(3)[[0, 1, 2, 2, 1, 0]]
    weight = np.array([1, 2, 3, 1, 2, 1])
    weighted, repeated = weighted_net(), weighted_net()
    arguments = {"epochs": 5, "verbose": False}
    one = weighted.train(x, y, optim.SGD(lr=0.1), value(reduction=reduction), sample_weight=weight, **arguments)
    twice = np.repeat(np.arange(6), weight)
    other = repeated.train(x[twice], y[twice], optim.SGD(lr=0.1), value(reduction=reduction), **arguments)
    np.testing.assert_allclose(weighted.vector, repeated.vector, rtol=0, atol=1e-14)
    total = 6 / 10 if reduction != "mean" else 1  # of a sum, the mean is over six samples or over ten
    assert np.multiply(one["loss"], total) == pytest.approx(other["loss"], rel=1e-13)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("weights", [{0: 1.0, 1: 2.5, 2: 0.5}, [1.0, 2.5, 0.5]])
def test_class_weights_are_the_weights_of_their_samples(one_hot, weights):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    own = rng.uniform(0.5, 2, 40)
    by_class, by_sample = weighted_net(), weighted_net()
    real = np.eye(3)[y] if one_hot else y
    by_class.train(
        x, real, class_weight=weights, sample_weight=own, epochs=2, batch_size=40, shuffle=False, verbose=False
    )
    of_rows = own / own.max() / (own / own.max()).mean() * np.array([1, 2.5, 0.5])[y]
    by_sample.train([(x, real, of_rows)], epochs=2, verbose=False)  # whose weights are taken as they are
    assert same(by_class, by_sample)


# Data that is not an array -----------------------------------------------------------------------------------


def batches_of(x, y, size=10):
    return [(x[start : start + size], y[start : start + size]) for start in range(0, len(x), size)]


class Reiterable:
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


@pytest.mark.parametrize("form", [list, Reiterable, lambda data: (pair for _ in range(3) for pair in data)])
def test_an_iterable_of_batches_trains_as_its_arrays_do(line, form):
    x, y = line
    whole, streamed = busy_net(), busy_net()
    one = whole.train(x, y, epochs=3, batch_size=10, shuffle=False, verbose=False)
    data = form(batches_of(x, y))
    steps = None if hasattr(data, "data") or isinstance(data, list) else 5  # an iterator does not begin anew
    other = streamed.train(data, epochs=3, steps_per_epoch=steps, verbose=False)
    assert same(whole, streamed)
    assert one["loss"] == other["loss"]


def test_an_iterable_may_give_weights(line):
    x, y = line
    weight = np.linspace(1, 3, 50) / 2  # their mean is 1: those of an iterable are taken as they come
    whole, streamed = busy_net(), busy_net()
    whole.train(x, y, epochs=1, batch_size=25, shuffle=False, sample_weight=weight, verbose=False)
    data = [(x[:25], y[:25], weight[:25]), (x[25:], y[25:], weight[25:])]
    streamed.train(data, epochs=1, verbose=False)
    assert same(whole, streamed)


def test_an_iterator_serves_one_epoch(line):
    history = busy_net().train(iter(batches_of(*line)), epochs=1, verbose=False)
    assert history.epochs == 1


def test_steps_per_epoch_counts_steps(line):
    for steps in (2, 7):  # of 5 batches
        net = busy_net()
        net.train(*line, epochs=3, batch_size=10, steps_per_epoch=steps, verbose=False)
        assert net.optim.t == 3 * steps


def test_a_memory_map_trains_as_its_array_does_and_is_never_read_whole(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (100_000, 100), np.uint8)
    y = rng.integers(0, 3, 100_000)
    x.tofile(tmp_path / "x")
    y.tofile(tmp_path / "y")
    maps = np.memmap(tmp_path / "x", np.uint8, "r", shape=x.shape), np.memmap(tmp_path / "y", np.int64, "r")
    nets = [layers.Model([layers.Linear(3), layers.Softmax()], seed=0) for _ in "ab"]
    options = {"optim": optim.SGD(lr=1e-6), "epochs": 1, "steps_per_epoch": 30, "verbose": False}
    nets[0].train(x, y, **options)
    options["optim"].reset()
    tracemalloc.start()
    nets[1].train(*maps, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert same(*nets)
    assert peak < x.nbytes / 2  # as float32 it would be four times as large
