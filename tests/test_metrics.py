"""Metrics: the values of scikit-learn's, over all rows at once, of arrays of their own."""

import numpy as np
import pytest
from sklearn import metrics as reference

import layers
import loss
import optim
from layerwise import metrics

RNG = np.random.default_rng(3)
N = 300
WEIGHT = RNG.uniform(0, 2, N)
SCORES = np.round(RNG.normal(size=(N, 4)), 1)  # with ties
CLASSES = np.where(RNG.random(N) < 0.5, SCORES.argmax(1), RNG.integers(0, 4, N))
UNTIED = SCORES + 1e-3 * RNG.random((N, 4))
P = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)
YES = RNG.random((N, 3)) < 0.4
SIGMOIDS = np.clip(0.3 * YES + np.round(RNG.random((N, 3)), 1), 0, 1)
NUMBERS = RNG.normal(size=(N, 2)) * (1, 30)


def as_it_is(x):
    return layers.Model([layers.Lambda(lambda x: x)], dtype="float64"), x


def of(average):
    told = {"average": average, "zero_division": 0}
    return {
        "precision": lambda y, p, **w: reference.precision_score(y, p, **told, **w),
        "recall": lambda y, p, **w: reference.recall_score(y, p, **told, **w),
        "f1": lambda y, p, **w: reference.f1_score(y, p, **told, **w),
    }


MACRO = of("macro")
ONE = {"accuracy": reference.accuracy_score, "balanced_accuracy": reference.balanced_accuracy_score}
SETTINGS = {  # loss, predictions, targets, the reference's decisions, its functions of decisions, its scores, its auc
    "classes": (loss.CrossEntropy(), P, CLASSES, P.argmax(1), ONE | MACRO, P, {"multi_class": "ovr"}),
    "raw scores": (
        loss.CrossEntropy(from_logits=True), UNTIED, CLASSES, UNTIED.argmax(1), ONE | MACRO,
        np.exp(UNTIED) / np.exp(UNTIED).sum(1, keepdims=True), {"multi_class": "ovr"},
    ),
    "two columns": (
        loss.CrossEntropy(from_logits=True), SCORES[:, :2], CLASSES % 2, SCORES[:, :2].argmax(1), ONE | of("binary"),
        SCORES[:, 1] - SCORES[:, 0], {},
    ),
    "one column": (
        loss.BinaryCrossEntropy(), SIGMOIDS[:, :1], YES[:, :1], SIGMOIDS[:, 0] > 0.5,
        ONE | of("binary") | {f"{name}_macro": each for name, each in MACRO.items()}, SIGMOIDS[:, 0], {},
    ),
    "one column of raw scores": (
        loss.Hinge(), SCORES[:, :1], 2 * (CLASSES[:, None] == 0) - 1, np.where(SCORES[:, 0] > 0, 1, -1),
        ONE | of("binary"), SCORES[:, 0], {},
    ),
    "labels": (
        loss.BinaryCrossEntropy(), SIGMOIDS, YES * 1.0, SIGMOIDS > 0.5,
        MACRO | {"subset_accuracy": reference.accuracy_score}, SIGMOIDS, {"average": "macro"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_metrics_of_classes_are_those_of_scikit_learn(setting, weight):
    value, pred, y, decided, functions, scores, told = SETTINGS[setting]
    flat = y[:, 0] if y.ndim > 1 and y.shape[1] == 1 else y
    net, x = as_it_is(pred)
    found = net.evaluate(x, y, value, metrics=[*functions, "auc"], sample_weight=weight, batch_size=70)
    for name, function in functions.items():
        assert found[name] == pytest.approx(function(flat, decided, sample_weight=weight), rel=1e-12), name
    right = reference.roc_auc_score(flat, scores, sample_weight=weight, **told)
    assert found["auc"] == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
def test_metrics_of_numbers_and_the_confusion_matrix_are_those_of_scikit_learn(weight):
    net, x = as_it_is(NUMBERS + RNG.normal(size=(N, 2)))
    found = net.evaluate(x, NUMBERS, loss.MSE(), ["r2", "rmse", "mse", "mae"], sample_weight=weight, batch_size=70)
    for name, function in (
        ("r2", reference.r2_score), ("rmse", reference.root_mean_squared_error),
        ("mse", reference.mean_squared_error), ("mae", reference.mean_absolute_error),
    ):  # fmt: skip
        assert found[name] == pytest.approx(function(NUMBERS, x, sample_weight=weight), rel=1e-12), name
    right = reference.confusion_matrix(CLASSES, P.argmax(1), sample_weight=weight)
    np.testing.assert_allclose(metrics.confusion_matrix(P, CLASSES, sample_weight=weight), right, rtol=1e-12)


def test_what_has_no_value_is_as_in_scikit_learn():
    ones = np.ones((5, 1))
    assert metrics.r2(ones, ones) == 1
    assert metrics.r2(0 * ones, ones) == 0
    assert np.isnan(metrics.r2(ones[:1], ones[:1]))
    assert np.isnan(metrics.auc(SIGMOIDS[:5, :1], ones))
    assert metrics.precision(0 * ones, ones) == metrics.f1(0 * ones, ones) == 0


@pytest.mark.parametrize(
    ("value", "last"),
    [(loss.BinaryCrossEntropy(), []), (loss.MSE(), [layers.Sigmoid()]), (loss.Hinge(), [])],
    ids=["by the loss", "by the last layer", "by labels of 1 and -1"],
)
def test_accuracy_of_several_labels_is_per_cell(value, last):
    """Also where every row of the targets happens to be one-hot."""
    pred = np.array([[0.9, 0.6, 0.1], [0.2, 0.7, 0.1]])
    y = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    if isinstance(value, loss.Hinge):
        pred, y = pred - 0.5, 2 * y - 1
    x = np.log(pred / (1 - pred)) if last else pred
    net = layers.Model([layers.Lambda(lambda x: x), *last])
    found = net.evaluate(x, y, value, ["accuracy", "subset_accuracy", "categorical_accuracy"])
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["subset_accuracy"] == 0.5
    assert found["categorical_accuracy"] == 1


def test_accuracy_after_a_softmax_is_of_classes_whatever_the_loss():
    net = layers.Model([layers.Lambda(lambda x: x), layers.Softmax()])
    y = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert net.evaluate([[1.0, 0.9, 0.9], [0, 1, 0]], y, loss.MSE(), "accuracy")["accuracy"] == 1


# What a metric of one's own sees ------------------------------------------------------------------------------


X = np.sort(RNG.normal(size=(3000, 1)), 0)
Y = X + 0.4 * RNG.normal(size=(3000, 1))


def my_r2(pred, real, sample_weight=None):
    return reference.r2_score(real, pred, sample_weight=sample_weight)


def my_own_r2(pred, real):
    return reference.r2_score(real, pred)


@pytest.mark.parametrize("copies", [None, 2])
def test_a_metric_of_ones_own_sees_all_rows_at_once(copies, tmp_path):
    weight = RNG.uniform(0, 3, 3000)
    net = layers.Model([layers.Linear(1)], seed=0, copies=copies)
    history = net.train(X, Y, epochs=1, metrics=[my_r2, my_own_r2], validation=(X, Y, weight), verbose=False)
    found = net.evaluate(X, Y, metrics=[my_r2, my_own_r2], sample_weight=weight)
    Y.astype("float32").tofile(tmp_path / "y")
    mapped = np.memmap(tmp_path / "y", np.float32, "r", shape=Y.shape)
    of_map = net.evaluate(X, mapped, metrics=[my_r2, my_own_r2, "r2"], sample_weight=weight, batch_size=100)
    for copy in range(copies or 1):
        pred = (net if copies is None else net.copy(copy)).predict(X)
        right = reference.r2_score(Y, pred, sample_weight=weight)
        for value in (found["my_r2"], history["val_my_r2"][-1], of_map["my_r2"], of_map["r2"]):
            assert np.ravel(value)[copy] == pytest.approx(right, rel=1e-4)
        for value in (found["my_own_r2"], history["val_my_own_r2"][-1], of_map["my_own_r2"]):
            assert np.ravel(value)[copy] == pytest.approx(reference.r2_score(Y, pred), rel=1e-4)


@pytest.mark.parametrize("copies", [None, 2])
def test_a_metric_of_ones_own_gets_arrays_that_are_its_own(copies):
    x, y, weight = X[:64].copy(), Y[:64].astype("float32"), np.ones(64)
    kept = []

    def keeper(pred, real, sample_weight):
        for array in (pred, real, sample_weight):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 7
            assert not any(np.shares_memory(array, own) for own in (x, y, weight))
        kept.append((pred, pred.copy(), real, real.copy()))
        return 0.0

    net = layers.Model([layers.Linear(1)], seed=0, copies=copies)
    options = {"metrics": keeper, "sample_weight": weight}
    net.train(x, y, optim.SGD(0.1), epochs=2, batch_size=16, validation=(x, y, weight), verbose=False, **options)
    net.evaluate(x, y, **options)
    assert len(kept) == (copies or 1) * (2 * 4 + 2 + 1)
    for pred, at_the_time, real, then in kept:
        np.testing.assert_array_equal(pred, at_the_time)
        np.testing.assert_array_equal(real, then)


def test_metrics_of_training_are_weighted_means_over_the_batches():
    net = layers.Model([layers.Linear(1)], seed=0)
    weight = np.repeat([0.0, 1.0, 3.0], 1000)
    options = {"metrics": "mae", "shuffle": False, "sample_weight": weight, "epochs": 1, "verbose": False}
    history = net.train(X, Y, optim.SGD(0.0), batch_size=500, **options)
    right = np.average(np.abs(net.predict(X) - Y)[:, 0], weights=weight)
    assert history["mae"] == [pytest.approx(right, rel=1e-5)]
