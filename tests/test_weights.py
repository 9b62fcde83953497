"""What a row weighs: sample_weight and class_weight in training, in evaluation, and by hand."""

import math

import numpy as np
import pytest

import layers
import loss
import optim

RNG = np.random.default_rng(7)
X = RNG.normal(size=(30, 3))
Y = RNG.normal(size=(30, 1))
CLASSES = RNG.integers(0, 3, 30)
WEIGHT = RNG.uniform(0, 3, 30) ** 3


def linear(copies=None):
    net = layers.Model([layers.Linear(1, bias=False)], seed=5, dtype="float64", copies=copies)
    net.build((3,))
    return net


def classifier(**arguments):
    return layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(3), layers.Softmax()], seed=1, **arguments)


def weighted_gradient(w, weight):
    """d/dw of sum(u (x w - y)^2) / N, by its formula."""
    return 2 / len(X) * X.T @ (weight[:, None] * (X @ w - Y))


class CallOfItsOwn(loss.MSE):
    def __call__(self, pred, real, sample_weight=None, copies=None):
        return super().__call__(pred, real, sample_weight, copies)


class NoSubclass:
    """A weighted mean of squares, with nothing of ours."""

    def __call__(self, pred, real, sample_weight=None):
        weight = np.ones(len(pred)) if sample_weight is None else sample_weight
        self.share = (weight / weight.sum())[:, None]
        self.difference = pred - real
        return float((self.share * self.difference**2).sum())

    def backward(self):
        return 2 * self.share * self.difference


def by_optimizer(net, loss):
    optim.SGD(lr=0.0)(net, loss)
    return net[0].w_gradient.copy()


def by_hand(net, loss):
    """As an optimizer that is a function goes through the layers."""
    grad = loss.backward()
    for layer in net.layers[::-1]:
        grad = layer.backward(grad)
    return net[0].w_gradient.copy()


@pytest.mark.parametrize("how", [by_optimizer, by_hand])
@pytest.mark.parametrize("make", [loss.MSE, CallOfItsOwn, NoSubclass])
@pytest.mark.parametrize("size", [1, 7, 30])
def test_a_row_weighs_the_same_in_batches_of_any_size(size, make, how):
    net, values, gradient = linear(), [], 0

    def watch(net, loss):
        nonlocal gradient
        rows = len(loss.pred if hasattr(loss, "pred") else loss.difference)
        gradient = gradient + how(net, loss) * rows / len(X)
        values.append(getattr(loss, "value", 0.0) * rows / len(X))

    watch.lr = 0  # nothing moves
    history = net.train(
        X, Y, watch, make(), epochs=1, batch_size=size, shuffle=False, sample_weight=5 * WEIGHT, verbose=False
    )
    weight = WEIGHT / WEIGHT.mean()
    np.testing.assert_allclose(gradient, weighted_gradient(net[0].w, weight), rtol=1e-12)
    right = float((weight[:, None] * (X @ net[0].w - Y) ** 2).mean())
    assert sum(values) == pytest.approx(right, rel=1e-12)
    assert history["loss"] == [pytest.approx(right, rel=1e-12)]


@pytest.mark.parametrize("size", [1, 7, 30])
def test_a_row_weighs_the_same_in_a_stack(size):
    net, gradient = linear(copies=2), 0

    class Watch(optim.SGD):
        def backward(self, net, loss):
            nonlocal gradient
            super().backward(net, loss)
            gradient = gradient + net[0].w_gradient * loss.pred.shape[1] / len(X)

    net.train(X, Y, Watch(0.0), loss.MSE(), epochs=1, batch_size=size, shuffle=False, sample_weight=WEIGHT,
              verbose=False)  # fmt: skip
    for copy in range(2):
        right = weighted_gradient(net[0].w[copy], WEIGHT / WEIGHT.mean())
        np.testing.assert_allclose(gradient[copy], right, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "batch_sum"])
def test_a_loss_that_sums_its_batch_takes_sample_weights_as_they_are(reduction):
    net, gradient = linear(), 0

    def watch(net, loss):
        nonlocal gradient
        gradient = gradient + by_hand(net, loss)

    watch.lr = 0  # nothing moves
    net.train(X, Y, watch, loss.MSE(reduction), epochs=1, batch_size=7, sample_weight=WEIGHT, verbose=False)
    np.testing.assert_allclose(gradient, len(X) * weighted_gradient(net[0].w, WEIGHT), rtol=1e-12)


def test_class_weights_are_taken_as_they_are():
    net, gradient = classifier(dtype="float64"), {}
    net.build((3,))

    def watch(net, loss):
        optim.SGD(0.0)(net, loss)
        gradient[len(gradient)] = net.gradient.copy()

    watch.lr = 0  # nothing moves
    options = {"optim": watch, "epochs": 1, "batch_size": 30, "shuffle": False, "verbose": False}
    net.train(X, CLASSES, **options, sample_weight=WEIGHT, class_weight=[3.0, 3.0, 3.0])
    net.train(X, CLASSES, **options, sample_weight=WEIGHT)
    np.testing.assert_allclose(gradient[0], 3 * gradient[1], rtol=1e-12)


@pytest.mark.parametrize("rule", [optim.LBFGS, lambda: optim.SAM(optim.SGD(0.1), 0.05)])
def test_a_batch_that_is_evaluated_again_weighs_the_same(rule):
    """Of one batch, and a scale of 1: what trains on the repeated rows."""
    weight = RNG.integers(1, 4, 30)
    weighted, repeated = (classifier(dtype="float64") for _ in "ab")
    options = {"loss": loss.CrossEntropy(), "epochs": 1, "batch_size": 100, "verbose": False}
    weighted.train(X, CLASSES, rule(), sample_weight=weight, **options)
    repeated.train(np.repeat(X, weight, 0), np.repeat(CLASSES, weight), rule(), **options)
    np.testing.assert_allclose(weighted.vector, repeated.vector, rtol=1e-7)

    def second(net, loss):
        first, gradient = loss.value, None
        net.backpropagate(loss)
        gradient = net.gradient.copy()
        assert net.reevaluate(loss) == first
        np.testing.assert_array_equal(net.gradient, gradient)

    second.lr = 0  # nothing moves
    weighted.train(X, CLASSES, second, batch_size=7, epochs=1, sample_weight=weight, verbose=False)


@pytest.mark.parametrize("copies", [None, 2])
def test_weights_of_time_steps_weigh_the_same_in_any_batch(copies):
    """With (N, T) weights: a net that is linear at each step, over rows of three steps."""
    x, y, weight = X.reshape(10, 3, 3), Y.reshape(10, 3, 1), WEIGHT.reshape(10, 3)
    net = layers.Model([layers.Linear(1, bias=False)], seed=5, dtype="float64", copies=copies)
    net.build((3, 3))
    before, rate = net[0].w.copy(), 1e-4
    options = {"epochs": 1, "shuffle": False, "validation": (x, y, 7 * weight), "verbose": False}
    history = net.train(x, y, optim.SGD(rate), loss.MSE(), batch_size=10, sample_weight=1e-60 * weight, **options)
    for copy, (old, new) in enumerate(zip(before.reshape(-1, 3, 1), net[0].w.reshape(-1, 3, 1), strict=True)):
        np.testing.assert_allclose(old - new, rate * weighted_gradient(old, WEIGHT / WEIGHT.mean()), rtol=1e-9)
        right = np.average((X @ new - Y)[:, 0] ** 2, weights=WEIGHT)
        np.testing.assert_allclose(np.ravel(history["val_loss"])[copy], right, rtol=1e-9)
        for size in (3, 10):
            found = net.evaluate(x, y, batch_size=size, sample_weight=weight)["loss"]
            np.testing.assert_allclose(np.ravel(found)[copy], right, rtol=1e-9)
    batches = [(x[k : k + 3], y[k : k + 3], weight[k : k + 3]) for k in range(0, 10, 3)]
    streamed = net.train(batches, None, optim.SGD(0.0), loss.MSE(), epochs=1, verbose=False)["loss"]
    np.testing.assert_allclose(streamed, history["val_loss"], rtol=1e-9)
    with pytest.raises(ValueError, match=r"time step, shape \(8, 3\)"):
        net.train(x, y, sample_weight=weight[:, :2], validation=0.2, verbose=False)


def test_by_hand_a_weighted_loss_is_a_weighted_mean():
    value = loss.MSE()
    pred = X[:, :1]
    assert value(pred, Y, WEIGHT) == pytest.approx(np.average((pred - Y)[:, 0] ** 2, weights=WEIGHT))


# Weights of any size ------------------------------------------------------------------------------------------


SIZES = [1e-320, 1e-50, 3e-39, 3e37, 1e39, 1e308]


@pytest.mark.parametrize("size", SIZES)
def test_weights_of_any_size_are_as_weights_of_one(size):
    ones, other = classifier(), classifier()
    one = ones.train(X, CLASSES, epochs=2, sample_weight=np.ones(30), batch_size=7, validation=0.2, verbose=False)
    weight = np.full(30, size)
    two = other.train(X, CLASSES, epochs=2, sample_weight=weight, batch_size=7, validation=0.2, verbose=False)
    np.testing.assert_array_equal(ones.vector, other.vector)
    assert one["loss"] == two["loss"]
    assert one["val_loss"] == two["val_loss"]
    assert ones.evaluate(X, CLASSES)["loss"] == pytest.approx(other.evaluate(X, CLASSES, sample_weight=weight)["loss"])


@pytest.mark.parametrize("size", SIZES)
def test_by_hand_too_weights_of_any_size_are_as_weights_of_one(size):
    pred, real = X[:, :1].astype("float32"), Y.astype("float32")
    value = loss.MSE()
    right, gradient = value(pred, real), value.backward()
    assert value(pred, real, np.full(30, size)) == pytest.approx(right, rel=1e-6)
    np.testing.assert_allclose(value.backward(), gradient, rtol=1e-5)
    np.testing.assert_array_equal(value.sample_weight, np.full(30, size))


@pytest.mark.parametrize("size", [1e-50, 1e39])
def test_a_sum_whose_weights_the_dtype_cant_hold_is_refused(size):
    pred, real = X[:, :1].astype("float32"), Y.astype("float32")
    with pytest.raises(ValueError, match=r"can't be held in float32.*Multiply all of it"):
        loss.MSE("sum")(pred, real, np.full(30, size))


# Weights of classes -------------------------------------------------------------------------------------------


def test_a_class_number_may_be_large():
    net = layers.Model([layers.Linear(1)], seed=0)

    class Labels(NoSubclass):
        def __call__(self, pred, real, sample_weight=None):
            self.seen = sample_weight
            return super().__call__(pred, real[:, None] / 1e10, sample_weight)

    value = Labels()
    numbers = np.array([0, 10**10, 10**10, 0])
    by_class = {0: 1.0, 10**10: 3.0, 10**15: 2.0}
    net.train(X[:4], numbers, optim.SGD(0.1), value, epochs=1, shuffle=False, class_weight=by_class, verbose=False)
    np.testing.assert_array_equal(value.seen, [1, 3, 3, 1])


TARGETS = {  # the same three classes, or two, in each form that says the class of a row
    "numbers": (CLASSES, loss.CrossEntropy(), [layers.Linear(3), layers.Softmax()], CLASSES),
    "one-hot": (np.eye(3)[CLASSES], loss.CrossEntropy(), [layers.Linear(3), layers.Softmax()], CLASSES),
    "one-hot of 1 and -1": (2 * np.eye(3)[CLASSES] - 1, loss.Hinge(), [layers.Linear(3)], CLASSES),
    "a column": (CLASSES[:, None] % 2, loss.BinaryCrossEntropy(), [layers.Linear(1), layers.Sigmoid()], CLASSES % 2),
    "a column of 1 and -1": (1 - 2 * (CLASSES[:, None] % 2), loss.Hinge(), [layers.Linear(1)], (CLASSES + 1) % 2),
}


@pytest.mark.parametrize("form", TARGETS)
def test_class_weights_are_those_of_the_class_that_a_row_has(form):
    y, value, members, classes = TARGETS[form]
    nets = [layers.Model([part.copy() for part in members], seed=2) for _ in "abc"]
    by_class = np.array([0.5, 2.0, 4.0])
    options = {"loss": value, "epochs": 2, "shuffle": False, "batch_size": 10, "verbose": False}
    nets[0].train(X, y, optim.SGD(0.1), class_weight=by_class.tolist(), **options)
    batches = [(X[k : k + 10], y[k : k + 10], by_class[classes[k : k + 10]]) for k in (0, 10, 20)]
    nets[1].train(batches, None, optim.SGD(0.1), **options)
    np.testing.assert_array_equal(nets[0].vector, nets[1].vector)
    counts = np.bincount(classes)
    nets[1].train(X, y, optim.SGD(0.1), class_weight="balanced", **options)
    nets[0].train(X, y, optim.SGD(0.1), class_weight=(30 / (len(counts) * counts)).tolist(), **options)
    np.testing.assert_array_equal(nets[0].vector, nets[1].vector)


def sigmoids(units=3):
    return layers.Model([layers.Linear(units), layers.Sigmoid()], seed=0)


LABELS = (RNG.random((30, 3)) < 0.5) * 1.0
LABELS[:3] = 1, 1, 0


@pytest.mark.parametrize("weights", [{0: 1, 1: 2, 2: 3}, "balanced"])
@pytest.mark.parametrize(
    ("net", "y", "value"),
    [
        (sigmoids, LABELS, loss.BinaryCrossEntropy()),
        (lambda: layers.Model([layers.Linear(3)]), Y + np.zeros(3), loss.MSE()),
        (lambda: layers.Model([layers.Linear(1)]), Y, loss.MSE()),
        (lambda: layers.Model([layers.Linear(1)]), 2 * CLASSES[:, None], loss.MSE()),
        (classifier, np.full((30, 3), 1 / 3), loss.CrossEntropy()),
    ],
    ids=["several labels", "several numbers", "a number", "a count", "soft targets"],
)
def test_class_weights_are_refused_where_rows_have_no_class(net, y, value, weights):
    with pytest.raises(ValueError, match=r"class number of a row.*sample_weight"):
        net().train(X, y, loss=value, class_weight=weights, verbose=False)


def test_class_weights_weigh_the_rows_that_a_fraction_holds_out():
    by_class = np.array([1.0, 10.0, 0.1])
    options = {"optim": optim.SGD(0.0), "epochs": 1, "verbose": False}
    net = classifier()
    fraction = net.train(X, CLASSES, validation=0.25, class_weight=by_class.tolist(), **options)
    p = net.predict(X[22:])[np.arange(8), CLASSES[22:]]
    assert fraction["val_loss"] == [pytest.approx(np.average(-np.log(p), weights=by_class[CLASSES[22:]]), rel=1e-5)]
    pair = net.train(X, CLASSES, validation=(X[22:], CLASSES[22:]), class_weight=by_class.tolist(), **options)
    assert pair["val_loss"] == [pytest.approx(-np.log(p).mean(), rel=1e-5)]


# Rows that a loss ignores, or weighs by class -------------------------------------------------------------------


IGNORED = np.where(np.arange(30) % 4 == 1, -100, CLASSES)
IGNORED[8:16] = -100  # the whole third batch of four, and the fourth
BY_CLASS = [0.5, 2.0, 4.0]
COUNTING = {
    "ignored": ({"ignore_index": -100}, IGNORED),
    "by class": ({"weight": BY_CLASS}, CLASSES),
    "both": ({"weight": BY_CLASS, "ignore_index": -100}, IGNORED),
}


def mean_over_all(p, y, arguments, weight):
    """(mean of the loss, share of right ones), row by row, of the rows that count; `weight` has one number for each."""
    loss, loss_weight, right, right_weight = 0.0, 0.0, 0.0, 0.0
    for row, number, u in zip(p.reshape(-1, p.shape[-1]), y.ravel(), weight.ravel(), strict=True):
        if number != arguments.get("ignore_index"):
            c = arguments.get("weight", [1.0] * len(row))[number]
            loss, loss_weight = loss - u * c * math.log(row[number]), loss_weight + u * c
            right, right_weight = right + u * (row.argmax() == number), right_weight + u
    return loss / loss_weight, right / right_weight


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("copies", [None, 2])
@pytest.mark.parametrize("steps", [False, True], ids=["rows", "time steps"])
@pytest.mark.parametrize("form", COUNTING)
def test_rows_count_in_several_batches_what_they_count_in_one(form, steps, copies, weighted):
    """In evaluate, for validation, and in the training of a net that does not move."""
    arguments, y = COUNTING[form]
    x, weight = X, WEIGHT
    if steps:
        x, y, weight = X.reshape(10, 3, 3), y.reshape(10, 3), WEIGHT.reshape(10, 3)
    net = classifier(dtype="float64", copies=copies)
    value, given = loss.CrossEntropy(**arguments), weight if weighted else None
    history = net.train(
        x, y, optim.SGD(0.0), value, epochs=1, batch_size=4, shuffle=False, validation=(x, y, given),
        sample_weight=given, metrics="accuracy", verbose=False,
    )  # fmt: skip
    one, several = (net.evaluate(x, y, metrics="accuracy", batch_size=size, sample_weight=given) for size in (100, 4))
    for copy in range(copies or 1):
        single = net if copies is None else net.copy(copy)
        right = mean_over_all(single.predict(x), y, arguments, weight if weighted else np.ones(30))
        for found in (one, several, *({name: history[k + name][0] for name in one} for k in ("", "val_"))):
            values = [np.ravel(found[name])[copy] for name in ("loss", "accuracy")]
            np.testing.assert_allclose(values, right, rtol=1e-12)


def test_the_gradient_of_a_batch_is_divided_by_what_its_rows_count():
    """sum(u c dv) / sum(c): with sample weights of mean 1 as PyTorch's, and a row weighs u wherever it is."""
    y, c = IGNORED, np.where(IGNORED < 0, 0, np.array(BY_CLASS)[CLASSES])
    net = layers.Model([layers.Linear(3, bias=False), layers.Softmax()], seed=1, dtype="float64").build((3,))
    before = net[0].w.copy()
    for size in (30, 4):
        net[0].w = before
        options = {"epochs": 1, "batch_size": size, "steps_per_epoch": 1, "shuffle": False, "verbose": False}
        net.train(X, y, optim.SGD(1e-3), loss.CrossEntropy(**COUNTING["both"][0]), sample_weight=WEIGHT, **options)
        u, logits = (WEIGHT / WEIGHT.mean())[:size], X[:size] @ before
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        each = (p - np.eye(3)[CLASSES[:size]]) * (u * c[:size])[:, None]
        np.testing.assert_allclose(before - net[0].w, 1e-3 * X[:size].T @ each / c[:size].sum(), rtol=1e-9)


@pytest.mark.parametrize("copies", [None, 2])
def test_where_every_row_is_ignored_the_loss_and_the_metrics_are_0(copies):
    net, y = classifier(copies=copies), np.full(30, -100)
    net.build((3,))
    before = net.vector.copy()
    value = loss.CrossEntropy(ignore_index=-100)
    history = net.train(X, y, optim.SGD(0.1), value, epochs=1, metrics=["accuracy", "f1"], sample_weight=WEIGHT,
                        verbose=False)  # fmt: skip
    for found in (history, net.evaluate(X, y, metrics=["accuracy", "f1"])):
        for name in ("loss", "accuracy", "f1"):
            assert not np.any(found[name])
    np.testing.assert_array_equal(net.vector, before)


def test_a_metric_of_ones_own_sees_the_ignored_rows_too():
    value = loss.CrossEntropy(ignore_index=-100)
    net = classifier().build((3,))
    net.evaluate(X, IGNORED, value, lambda pred, real: np.testing.assert_array_equal(real, IGNORED) or 0.0)


def test_class_weights_are_of_the_classes_that_are_not_ignored():
    value, kept = loss.CrossEntropy(ignore_index=-100), IGNORED != -100
    options = {"loss": value, "epochs": 3, "shuffle": False, "batch_size": 30, "verbose": False}
    nets = [classifier(dtype="float64") for _ in "ab"]
    nets[0].train(X, IGNORED, optim.SGD(0.1), class_weight=BY_CLASS, **options)
    nets[1].train(X[kept], IGNORED[kept], optim.SGD(0.1), class_weight=BY_CLASS, **options)
    np.testing.assert_allclose(nets[0].vector, nets[1].vector, rtol=1e-12)
    balanced = kept.sum() / (3 * np.bincount(IGNORED[kept]))
    options["batch_size"] = 7
    nets[0].train(X, IGNORED, optim.SGD(0.1), class_weight="balanced", **options)
    nets[1].train(X, IGNORED, optim.SGD(0.1), class_weight=balanced, **options)
    np.testing.assert_allclose(nets[0].vector, nets[1].vector, rtol=1e-9)


# Stacks -------------------------------------------------------------------------------------------------------


def test_the_loss_of_an_epoch_of_a_stack_is_summed_in_float64():
    """600 batches whose losses are 1 and 2^-20 in turn: in float32 most of the small ones would be lost."""
    y = np.tile([[1.0], [2.0**-10]], (300, 1))
    net = layers.Model([layers.Linear(1, init=0.0, bias=False)], copies=2, seed=0)
    history = net.train(np.ones((600, 1)), y, optim.SGD(0.0), loss.MSE(), epochs=1, batch_size=1, shuffle=False,
                        verbose=False)  # fmt: skip
    np.testing.assert_allclose(history["loss"][0], math.fsum((y**2).ravel()) / 600, rtol=1e-12)


def test_an_epoch_without_any_weight_has_the_loss_0_in_a_stack_too():
    batches = [(X, CLASSES, np.zeros(30))]
    for copies in (None, 2):
        history = classifier(copies=copies).train(batches, epochs=1, verbose=False)
        np.testing.assert_array_equal(history["loss"], np.zeros((1, *([2] if copies else []))))
