"""What people hand over as data: masked arrays, data frames, lists; and what a message says of what can't be taken."""

import numpy as np
import pandas as pd
import pytest

import layers
import loss
import optim
from layerwise import augment, datasets, problems
from layerwise.estimators import NetClassifier, NetRegressor

RNG = np.random.default_rng(5)
X = RNG.normal(size=(64, 4)).astype(np.float32)
Y = np.arange(64) % 3
COLUMN = X[:, :1] * 2
HIDDEN = np.ma.array(np.where(X > 1.5, -9999, X), mask=X > 1.5)


def classifier(*last):
    return layers.Model([layers.Linear(5), layers.Tanh(), layers.Linear(3), *(last or (layers.Softmax(),))], seed=0)


def regressor():
    return layers.Model([layers.Linear(5), layers.Tanh(), layers.Linear(1)], seed=0)


def train(net, x, y, **more):
    return net.train(x, y, epochs=1, verbose=False, **more)


# Masked arrays --------------------------------------------------------------------------------------------------

MASKED = {
    "train x": lambda: train(classifier(), HIDDEN, Y),
    "train x, a list of rows": lambda: train(classifier(), list(HIDDEN), Y),
    "train y": lambda: train(regressor(), X, HIDDEN[:, :1] * 2),
    "train class numbers": lambda: train(classifier(), X, np.ma.array(Y, mask=HIDDEN.mask[:, 0])),
    "train sample_weight": lambda: train(classifier(), X, Y, sample_weight=np.ma.masked_less(np.arange(64.0), 3)),
    "validation": lambda: train(classifier(), X, Y, validation=(HIDDEN, Y)),
    "a batch": lambda: train(classifier(), [(HIDDEN, Y)], None),
    "predict": lambda: classifier().predict(HIDDEN),
    "evaluate": lambda: classifier().evaluate(HIDDEN, Y),
    "a call": lambda: classifier()(HIDDEN),
    "a layer": lambda: layers.Tanh()(HIDDEN),
    "loss, predictions": lambda: loss.MSE()(HIDDEN, X),
    "loss, targets": lambda: loss.MSE()(X, HIDDEN),
    "loss, weights": lambda: loss.MSE()(X, X, np.ma.masked_less(np.arange(64.0), 3)),
    "augmented": lambda: augment.Flip()(np.ma.masked_less(RNG.normal(size=(2, 4, 4, 1)), 0)),
    "batches": lambda: augment.batches(HIDDEN, Y),
    "a problem": lambda: problems.Problem(lambda seed: regressor(), HIDDEN, COLUMN, loss.MSE()),
    "fit": lambda: NetClassifier(max_iter=1).fit(HIDDEN, Y),
    "fit y": lambda: NetRegressor(max_iter=1).fit(X, HIDDEN[:, 0]),
    "predict of an estimator": lambda: NetClassifier(max_iter=1).fit(X, Y).predict(HIDDEN),
}


@pytest.mark.parametrize("way", MASKED)
def test_masked_values_are_refused(way):
    with pytest.raises(ValueError, match=r"masked values.*(filled\(|fill them in)"):
        MASKED[way]()


def test_a_mask_that_hides_nothing_and_the_ways_out_of_one_that_does():
    plain = train(classifier(), X, Y)["loss"]
    assert train(classifier(), np.ma.array(X), np.ma.array(Y, mask=False))["loss"] == plain
    filled = np.where(HIDDEN.mask, HIDDEN.mean(0), X)
    expected = train(classifier(), filled, Y)["loss"]
    assert train(classifier(), HIDDEN.filled(HIDDEN.mean(0)), Y)["loss"] == expected
    with pytest.raises(ValueError, match=f"first in row {int(np.argmax(HIDDEN.mask.any(1)))}:"):
        classifier().predict(HIDDEN)


# Rows are counted from the start of the data --------------------------------------------------------------------


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """x (300, 4) in a memory map, with NaN in row 177."""
    x = RNG.normal(size=(300, 4)).astype(np.float32)
    x[177, 2] = np.nan
    path = tmp_path_factory.mktemp("map") / "x.npy"
    np.save(path, x)
    return np.load(path, mmap_mode="r")


LABELS = np.arange(300) % 3
COUNTED = {
    "shuffled": (lambda x: train(classifier(), x, LABELS), "x"),
    "in order": (lambda x: train(classifier(), x, LABELS, shuffle=False), "x"),
    "a stack of copies": (
        lambda x: train(layers.Model([layers.Linear(3), layers.Softmax()], seed=0, copies=2), x, LABELS),
        "x",
    ),
    "held out": (lambda x: train(classifier(), x, LABELS, validation=0.5), "validation x"),
    "held out, in memory": (lambda x: train(classifier(), np.array(x), LABELS, validation=0.5), "validation x"),
    "a held-out target": (
        lambda x: train(regressor(), np.ones((300, 4)), np.array(x[:, 2:3]), validation=0.5),
        "validation y",
    ),
    "evaluate": (lambda x: classifier().evaluate(x, LABELS, batch_size=50), "x"),
}


@pytest.mark.parametrize("way", COUNTED)
def test_a_row_is_counted_from_the_start_of_the_data(mapped, way):
    run, what = COUNTED[way]
    with pytest.raises(ValueError, match=rf"^{what} holds NaN, first in row 177:"):
        run(mapped)


def test_a_row_of_an_iterable_is_told_with_its_batch():
    bad = X.copy()
    bad[37, 0] = np.inf
    data = [(bad[start : start + 16], Y[start : start + 16]) for start in range(0, 64, 16)]
    for given in (data, iter(data)):
        with pytest.raises(ValueError, match=r"x holds infinity, first in row 5 of batch 2:"):
            train(classifier(), given, None)


# Data frames ----------------------------------------------------------------------------------------------------


def frame():
    data = pd.DataFrame(X, columns=list("abcd"))
    return data.assign(yes=X[:, 0] > 0, count=pd.array(Y, dtype="Int64"), kind=pd.Categorical(Y))


PLAIN = np.column_stack([X, X[:, 0] > 0, Y, Y]).astype(np.float32)


def test_a_frame_of_numbers_is_taken_everywhere():
    data, labels = frame(), pd.Series(Y, index=range(100, 164), name="label")
    assert data.to_numpy().dtype == object  # the whole as one array is not numbers
    nets = classifier(), classifier()
    results = [
        train(net, x, y, validation=0.25, sample_weight=weight)["val_loss"]
        for net, x, y, weight in (
            (nets[0], data, labels.astype("Int64"), pd.Series(np.arange(64.0))),
            (nets[1], PLAIN, Y, np.arange(64.0)),
        )
    ]
    assert results[0] == results[1]
    assert nets[0].evaluate(data, labels) == nets[1].evaluate(PLAIN, Y)
    np.testing.assert_array_equal(nets[0].predict(data), nets[1].predict(PLAIN))
    np.testing.assert_array_equal(nets[0](data), nets[1](PLAIN))
    assert train(regressor(), data, data[["a"]])["loss"] == train(regressor(), PLAIN, X[:, :1])["loss"]
    twice = pd.concat([data, data], axis=1)  # each name stands there twice
    np.testing.assert_array_equal(classifier().predict(twice), classifier().predict(np.hstack([PLAIN, PLAIN])))
    own, plain = (NetClassifier(max_iter=1, random_state=0).fit(x, Y) for x in (data, PLAIN))
    # Of columns with several dtypes scikit-learn makes float64.
    np.testing.assert_array_equal(own.predict_proba(data), plain.predict_proba(PLAIN.astype("float64")))


def test_a_frame_that_goes_by_without_pandas():
    class Column:
        def __init__(self, values):
            self.values, self.dtype = values, values.dtype

        def __array__(self, dtype=None, copy=None):
            return self.values

    class Frame:  # as one of polars: columns, and iterating gives them
        columns = ("a", "yes")

        def __iter__(self):
            return iter([Column(X[:, 0]), Column(X[:, 0] > 0)])

        def to_numpy(self):
            raise AssertionError("as a whole it would be objects")

        def __array__(self, dtype=None, copy=None):
            return np.array([[1.0, True]], object)

    expected = classifier().predict(np.column_stack([X[:, 0], X[:, 0] > 0]))
    np.testing.assert_array_equal(classifier().predict(Frame()), expected)


WAYS = {
    "train": lambda x: train(classifier(), x, Y),
    "predict": lambda x: classifier().predict(x),
    "evaluate": lambda x: classifier().evaluate(x, Y),
    "a call": lambda x: classifier()(x),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("column", [["word"] * 64, pd.Timestamp("2020-01-01"), pd.Timedelta("1 day"), [object()] * 64])
def test_columns_that_cant_be_numbers_are_named(way, column):
    data = frame().assign(odd=column)
    with pytest.raises((TypeError, ValueError)) as caught:
        WAYS[way](data)
    told = str(caught.value)
    assert "'odd' (" in told
    assert not any(f"{name!r}" in told for name in "abcd")
    assert "\n" not in told


def test_a_missing_integer_is_refused_as_nan_is():
    with pytest.raises((TypeError, ValueError), match=r"NaN, first in row 1:|'odd' \(Int64"):
        train(classifier(), frame().assign(odd=pd.array([1, None, *Y[2:]], dtype="Int64")), Y)


# What is no number: one line that tells what came and how to mend it ---------------------------------------------

NUMBERS = pd.DataFrame({"a": X[:, 0], "yes": X[:, 0] > 0}).to_numpy()
ODD = {
    "strings": (np.full((64, 4), "a"), r"<U1.*[Ss]trings are encoded"),
    "objects that are numbers": (NUMBERS, r"object.*x\.astype\(float\)"),
    "objects with None": (np.where(X > 1.5, None, X), r"object.*None.*fill"),
    "objects with strings": (np.where(X > 1.5, "high", X.astype(object)), "object.*strings, such as 'high'"),
    "dates": (np.full((64, 4), "2020-01-01", "datetime64[D]"), r"datetime64\[D\].*timedelta64\(1, 'D'\)"),
    "complex numbers": (X + 1j, r"complex64.*x\.real"),
    "a structured array": (np.zeros(64, [("a", "f4"), ("b", "f4")]), "structured_to_unstructured"),
    "a generator": ((row for row in X), "object.*not as generator"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_number_is_told_for_what_it_is(name):
    data, message = ODD[name]
    with pytest.raises(TypeError, match=message) as caught:
        train(classifier(), data, Y)
    assert ("tring" in str(caught.value)) == ("string" in name)


def test_the_way_out_that_a_message_names_works():
    days = np.datetime64("2020-01-01") + np.arange(64).astype("timedelta64[D]")
    np.testing.assert_array_equal((days - days.min()) / np.timedelta64(1, "D"), np.arange(64))
    assert np.isfinite(train(classifier(), NUMBERS.astype(float), Y)["loss"]).all()


# Labels and shapes ----------------------------------------------------------------------------------------------

WITH_NAN = np.where(np.arange(64) == 9, np.nan, Y)
IMAGES = RNG.normal(size=(64, 3, 8, 8)).astype(np.float32)


def convolution(size=3, padding="valid"):
    members = [layers.Conv2D(5, size, padding=padding), layers.MaxPool2D(2), layers.Flatten(), layers.Linear(3)]
    return layers.Model([*members, layers.Softmax()], seed=0)


def built(net, *shape):
    net.build(shape)
    return net


SAID = {
    "labels (N, 1)": (lambda: train(classifier(), X, Y[:, None]), r"real\.reshape\(64\)|real\[\.\.\., 0\]"),
    "labels (N, 1) as floats": (lambda: train(classifier(), X, 1.0 * Y[:, None]), r"real\[\.\.\., 0\]\.astype\(int\)"),
    "one sample as a list": (lambda: classifier()([1.0, 2.0, 3.0, 4.0]), r"\[x\] of a list"),
    "one sample to predict": (lambda: classifier().predict([1.0, 2.0, 3.0, 4.0]), r"\[x\] of a list"),
    "a series": (lambda: train(regressor(), pd.Series(X[:, 0]), COLUMN), r"x\.to_frame\(\)"),
    "a list of numbers": (lambda: train(regressor(), [1.0, 2.0], [1.0, 2.0]), r"\[\[value\] for value in x\]"),
    "NaN among labels": (lambda: train(classifier(), X, WITH_NAN), "y holds NaN, first in row 9"),
    "NaN among labels, by hand": (lambda: loss.CrossEntropy()(np.full((64, 3), 1 / 3), WITH_NAN), "is nan: remove"),
    "labels between classes": (lambda: train(classifier(), X, Y + 0.5), r"class numbers, integers.* is 0\.5"),
    "class numbers for MSE": (
        lambda: train(classifier(), X, Y, loss=loss.MSE()),
        r"CrossEntropy; MSE takes them one-hot: np\.eye\(3\)\[real\]\.",
    ),
    "class numbers (N, 1) for BinaryCrossEntropy": (
        lambda: train(classifier(), X, Y[:, None], loss=loss.BinaryCrossEntropy()),
        r"CrossEntropy; BinaryCrossEntropy takes them one-hot: np\.eye\(3\)\[real\[\.\.\., 0\]\]\.",
    ),
    "channels first": (lambda: train(convolution(5), IMAGES, Y), r"Channels come last.*x\.transpose\(0, 2, 3, 1\)"),
    "channels first, seen by a pool": (
        lambda: train(convolution(3, 1), IMAGES[:, :1], Y),
        r"Channels come last.*x\.transpose\(0, 2, 3, 1\)",
    ),
    "channels first for a built net": (
        lambda: train(built(convolution(), 8, 8, 3), IMAGES, Y),
        r"takes 3 channels.*x\.transpose\(0, 2, 3, 1\)",
    ),
    "channels first for a built norm": (
        lambda: built(layers.BatchNorm(), 8, 8, 3)(IMAGES),
        r"takes 3 channels.*x\.transpose\(0, 2, 3, 1\)",
    ),
    "time last": (
        lambda: train(layers.Model([layers.Conv1D(5, 3), layers.Flatten(), layers.Linear(3)]), IMAGES[:, :2, 0], Y),
        r"\(time, channels\): if yours come first, x\.transpose\(0, 2, 1\)",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_wrong_with_the_shape_is_told(name):
    run, message = SAID[name]
    with pytest.raises(ValueError, match=message):
        run()


def test_a_window_that_is_too_large_for_both_axes_says_nothing_of_channels():
    with pytest.raises(ValueError, match="windows of 9 by 9") as caught:
        convolution(9).build((8, 8, 3))
    assert "Channels" not in str(caught.value)


def test_what_the_hints_about_labels_name_is_taken():
    assert train(classifier(), X, Y[:, None][..., 0])["loss"] == train(classifier(), X, Y)["loss"]
    assert np.isfinite(train(classifier(), X, np.eye(3)[Y], loss=loss.MSE())["loss"]).all()
    assert len(convolution(5).predict(IMAGES.transpose(0, 2, 3, 1))) == 64


@pytest.mark.parametrize(
    ("given", "example"),
    [
        ({"loss": loss.CrossEntropy}, r"loss\.CrossEntropy\(\)"),
        ({"loss": loss.BinaryCrossEntropy}, r"loss\.BinaryCrossEntropy\(\)"),
        ({"optim": optim.Lion}, r"optim\.Lion\(\)"),
        ({"optim": optim.Clip}, r"optim\.Clip\(\.\.\.\)"),
        ({"loss": "mae"}, r"loss\.MAE\(\)"),
        ({"optim": "sgd"}, r"optim\.SGD\(\)"),
        ({"optim": 0.1}, r"optim\.Adam\(\)"),
    ],
)
def test_an_example_is_of_what_was_meant(given, example):
    with pytest.raises(TypeError, match=f"such as {example}[.,]"):
        train(classifier(), X, Y, **given)


def test_the_class_of_a_loss_of_ones_own_is_told_by_its_own_name():
    class Mine(loss.MSE):
        pass

    with pytest.raises(TypeError, match=r"such as Mine\(\)\."):
        train(classifier(), X, Y, loss=Mine)


def test_mnist_without_a_network_is_one_sentence(monkeypatch, tmp_path):
    def fetch_openml(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.delenv("LAYERWISE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    with pytest.raises(FileNotFoundError, match=r"no route to host.*digits") as caught:
        datasets.mnist()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
