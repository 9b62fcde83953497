"""Bad input: one clear error, before anything is built or moved.

One table. Each row is one thing that is wrong with an otherwise good training, the error's type, and what its message
must say: what came, what was expected, how to mend it (where that is not the same). Each is tried on a net that
has been trained before and on one that is not built yet; parameters, buffers, random numbers, optimizer and all
are compared bit by bit. Files have their rows in test_files.py, numbers that run away theirs in test_stops.py.
"""

import re
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

import layers
import loss
import optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
CLASSES = np.arange(12) % 3
COLUMN = X @ [[1.0], [-2.0], [0.5]]


def classifier(*last):
    members = [layers.Linear(4), layers.BatchNorm(), layers.Dropout(0.2), layers.Linear(3)]
    return layers.Model([*members, *(last or (layers.Softmax(),))], seed=0)


def scores():
    return classifier(layers.Lambda(lambda x: x, lambda x, grad: grad))


def regressor():
    return layers.Model([layers.Linear(4), layers.BatchNorm(), layers.Dropout(0.2), layers.Linear(1)], seed=0)


def embedding():
    return layers.Model([layers.Embedding(5, 2), layers.Dropout(0.2), layers.Flatten(), layers.Linear(3)], seed=0)


GOOD = {
    classifier: {"x": X, "y": CLASSES, "loss": loss.CrossEntropy()},
    scores: {"x": X, "y": CLASSES, "loss": loss.CrossEntropy(from_logits=True)},
    regressor: {"x": X, "y": COLUMN, "loss": loss.MSE()},
    embedding: {"x": CLASSES[:, None], "y": CLASSES, "loss": loss.CrossEntropy(from_logits=True)},
}


class Row(NamedTuple):
    name: str
    error: type[Exception]
    message: tuple[str, ...]
    wrong: dict[str, Any]  # arguments of train that are not the good ones
    net: Any = classifier
    built: tuple[bool, ...] = (True, False)


def with_value(array, value, place=(7, 0)):
    array = np.array(array, float)
    array[place[: array.ndim]] = value
    return array


def probabilities(rows=12):
    return np.full((rows, 3), 1 / 3)


class NoBackward:
    def __call__(self, pred, real):
        return 0.0


class Lent:
    """Another net's optimizer."""

    def __init__(self):
        self.net = regressor()
        self.rule = optim.Adam()
        self.net.train(X, COLUMN, optim=self.rule, loss=loss.MSE(), epochs=1, verbose=False)


def one_batch(*batch):
    return {"x": [batch], "y": None}


LENT = Lent()

ROWS = [
    # x and y of different length
    Row("x shorter", ValueError, ("x has 11 rows and y has 12", "each row of x needs one of y"), {"x": X[:11]}),
    Row("y shorter", ValueError, ("x has 12 rows and y has 5", "each row of x needs one of y"), {"y": CLASSES[:5]}),
    Row(
        "y longer, a fraction held out",
        ValueError,
        ("x has 11 rows and y has 12", "each row"),
        {"x": X[:11], "validation": 0.25},
    ),
    # empty arrays
    Row("x without rows", ValueError, (r"x is empty, shape \(0, 3\)", "at least one row"), {"x": X[:0]}),
    Row("x without columns", ValueError, (r"x is empty, shape \(12, 0\)",), {"x": X[:, :0]}),
    Row("y without rows", ValueError, (r"y is empty, shape \(0,\)", "at least one row"), {"y": CLASSES[:0]}),
    Row("empty lists", ValueError, (r"x is empty, shape \(0,\)", "at least one row"), {"x": [], "y": []}),
    Row("an empty iterable", ValueError, ("empty", r"at least one \(x, y\)"), {"x": iter([]), "y": None}),
    Row("y left out", TypeError, ("y is missing",), {"y": None}),
    # a batch of another width than the net was built for
    Row(
        "another width",
        ValueError,
        (r"Linear \(layers\.0\) takes 3 inputs", r"got inputs of shape \(4,\)"),
        {"x": np.ones((12, 4))},
        built=(True,),
    ),
    Row("rows that are numbers", ValueError, (r"shape \(12,\)", "a row for each sample", r"x\[:, None\]"),
        {"x": X[:, 0]}),
    # y of another shape than the net's output
    Row(
        "a row for a column",
        ValueError,
        (r"targets of shape \(12,\)", r"predictions of shape \(12, 1\)", r"real\.reshape\(12, 1\)"),
        {"y": COLUMN[:, 0]},
        regressor,
    ),
    Row(
        "too many columns",
        ValueError,
        (r"targets of shape \(12, 2\)", r"the targets have shape \(12, 1\)"),
        {"y": np.ones((12, 2))},
        regressor,
    ),
    Row(
        "a column of class numbers",
        ValueError,
        (r"targets of shape \(12, 1\)", r"class numbers \(integers\) of shape \(12,\)"),
        {"y": CLASSES[:, None]},
    ),
    Row(
        "class numbers that are floats",
        ValueError,
        (r"targets of shape \(12,\)", "class numbers", r"real\.astype\(int\)"),
        {"y": CLASSES.astype(float)},
    ),
    Row(
        "class numbers for a loss of numbers",
        ValueError,
        (r"MSE got predictions of shape \(12, 3\) and targets of shape \(12,\)",),
        {"loss": loss.MSE()},
    ),
    Row(
        "one column for CrossEntropy",
        ValueError,
        (r"predictions of shape \(12, 1\)", "two or more classes", "BinaryCrossEntropy"),
        {"loss": loss.CrossEntropy()},
        regressor,
    ),
    # strings and objects
    Row("strings in x", TypeError, ("x takes numbers, got an array of <U1", "encoded"), {"x": np.full((12, 3), "a")}),
    Row("strings in y", TypeError, ("y takes numbers, got an array of <U3", "encoded"), {"y": ["cat"] * 12}),
    Row("objects in x", TypeError, ("x takes numbers, got an array of object",), {"x": np.full((12, 3), None)}),
    Row("objects in y", TypeError, ("y takes numbers, got an array of object",), {"y": [None] * 12}),
    Row("complex numbers", TypeError, ("x takes numbers, got an array of complex128",), {"x": X + 1j}),
    Row("rows of different lengths", ValueError, ("x has rows of different lengths", "one shape"),
        {"x": [[1.0], [1.0, 2.0]]}),
    Row("a generator with y", TypeError, ("x takes numbers",), {"x": (row for row in X)}),
    Row("no data at all", TypeError, ("without y", r"iterable of \(x, y\)", "int"), {"x": 3, "y": None}),
    # NaN or infinity, also after conversion to the net's dtype
    Row("NaN in x", ValueError, ("x holds NaN, first in row 7", "remove|fill"), {"x": with_value(X, np.nan)}),
    Row("infinity in x", ValueError, ("x holds infinity, first in row 7", "remove|fill"),
        {"x": with_value(X, -np.inf)}),
    Row("too large for float32", ValueError, ("x holds infinity in float32", "row 7"), {"x": with_value(X, 1e300)}),
    Row("NaN in y", ValueError, ("y holds NaN, first in row 7",), {"y": with_value(COLUMN, np.nan)}, regressor),
    Row("y too large for float32", ValueError, ("y holds infinity in float32",),
        {"y": with_value(COLUMN, 1e39)}, regressor),
    Row("NaN in a batch", ValueError, ("x holds NaN, first in row 7",), one_batch(with_value(X, np.nan), CLASSES)),
    Row("NaN in a weight", ValueError, ("sample_weight is finite",),
        {"sample_weight": with_value(np.ones(12), np.nan)}),
    # class numbers out of range
    Row("a class too many", ValueError, ("from 0 to 2, for 3 columns", "got 0 to 3"), {"y": np.arange(12) % 4}),
    Row("a negative class", ValueError, ("from 0 to 2, for 3 columns", "got -1 to 1"), {"y": CLASSES - 1}),
    Row("a class too many in a batch", ValueError, ("from 0 to 2", "got 0 to 3"), one_batch(X, np.arange(12) % 4)),
    Row(
        "an integer out of the vocabulary",
        ValueError,
        (r"Embedding \(layers\.0\) takes integers from 0 to 4", "got 0 to 9"),
        {"x": np.arange(12)[:, None] % 10},
        embedding,
    ),
    Row("floats for Embedding", TypeError, ("takes integers", "float64"), {"x": np.ones((12, 1))}, embedding),
    Row("a label that Hinge has not", ValueError, ("labels -1 and 1", r"2 \* real - 1"),
        {"y": CLASSES[:, None] % 2, "loss": loss.Hinge()}, regressor),
    Row("a target that is no probability", ValueError, ("targets from 0 to 1", "got -1 to 1"),
        {"y": CLASSES[:, None] - 1, "loss": loss.BinaryCrossEntropy(from_logits=True)}, regressor),
    # probabilities that do not sum to one
    Row(
        "raw scores for CrossEntropy",
        ValueError,
        ("probabilities as predictions", "sum to 1", r"Softmax last|from_logits=True"),
        {"loss": loss.CrossEntropy()},
        scores,
    ),
    Row(
        "raw scores for BinaryCrossEntropy",
        ValueError,
        ("takes probabilities, 0 to 1, got -", "Sigmoid last|from_logits=True"),
        {"y": CLASSES[:, None] % 2, "loss": loss.BinaryCrossEntropy()},
        regressor,
    ),
    Row(
        "targets that do not sum to 1",
        ValueError,
        ("probabilities as targets", r"a row sums to 1\.5", r"integers of shape \(N,\)"),
        {"y": 1.5 * probabilities()},
    ),
    Row("targets below 0", ValueError, ("numbers >= 0",), {"y": probabilities() + np.array([-0.5, 0.5, 0])}),
    # hyper-parameters: what is set is refused by the optimizer, what is scheduled here
    Row(
        "a schedule that begins below 0",
        ValueError,
        (r"Adam: lr is a number in \[0, inf\), got -0\.1",),
        {"optim": optim.Adam(lr=lambda step: -0.1)},
    ),
    Row(
        "a schedule that begins with NaN",
        ValueError,
        (r"Adam: beta1 is a number in \[0, 1\), got nan",),
        {"optim": optim.Adam(beta1=lambda step: float("nan"))},
    ),
    Row("the class of an optimizer", TypeError, ("optim is the class Adam", r"optim\.Adam\(\)"),
        {"optim": optim.Adam}),
    Row("a name for an optimizer", TypeError, ("optim is a callable", r"optim\.Adam\(\)", "'adam'"), {"optim": "adam"}),
    Row("an optimizer that serves another net", ValueError,
        ("Adam serves another net", r"another instance, or reset\(\)"), {"optim": LENT.rule}),
    Row("the class of a loss", TypeError, ("loss is the class MSE", r"loss\.MSE\(\)"), {"loss": loss.MSE}),
    Row("a name for a loss", TypeError, ("loss is a callable", r"loss\.MSE\(\)", "'mse'"), {"loss": "mse"}),
    Row("a loss without a gradient", TypeError, (r"needs a method backward\(\)", "NoBackward"), {"loss": NoBackward()}),
    # counts
    *(
        Row(f"{name}={value!r}", ValueError, (f"{name} is a positive integer, got {re.escape(repr(value))}",),
            {name: value})
        for name in ("epochs", "batch_size", "steps_per_epoch")
        for value in (0, -1, 2.0, 1.5, float("nan"), "3", True)
    ),
    *(
        Row(f"{name}=None", ValueError, (f"{name} is a positive integer, got None",), {name: None})
        for name in ("epochs", "batch_size")
    ),
    # a BatchNorm batch of one value
    Row("one row for BatchNorm", ValueError, (r"BatchNorm \(layers\.1\)", r"shape \(1, 4\)", "at least two"),
        {"x": X[:1], "y": CLASSES[:1]}),
    Row("batches of one row for BatchNorm", ValueError, (r"BatchNorm \(layers\.1\)", "at least two"),
        {"batch_size": 1}),
    Row("an iterable of one row for BatchNorm", ValueError, (r"BatchNorm \(layers\.1\)", "at least two"),
        one_batch(X[:1], CLASSES[:1])),
    # weights
    Row("weights of another length", ValueError, (r"one number per sample, shape \(12,\)", r"got shape \(11,\)"),
        {"sample_weight": np.ones(11)}),
    Row("weights of another length, a fraction held out", ValueError, (r"shape \(12,\)", r"got shape \(11,\)"),
        {"sample_weight": np.ones(11), "validation": 0.25}),
    Row("a weight below 0", ValueError, ("not negative",), {"sample_weight": with_value(np.ones(12), -1)}),
    Row("no weight at all", ValueError, ("not all of it is zero",), {"sample_weight": np.zeros(12)}),
    Row("weights that are strings", ValueError, ("one number per sample", "<U1"), {"sample_weight": ["1"] * 12}),
    Row("weights beside an iterable", ValueError, (r"\(x, y, weight\)",),
        {"x": [(X, CLASSES)], "y": None, "sample_weight": np.ones(12)}),
    Row("a class without a weight", ValueError, ("class_weight", r"missing: \[2\]"), {"class_weight": {0: 1, 1: 2}}),
    Row("a class weight below 0", ValueError, ("class_weight", "not negative"), {"class_weight": {0: 1, 1: 2, 2: -1}}),
    Row("class weights by a name", ValueError, ("a dict, class number -> weight", "'even'"),
        {"class_weight": "even"}),
    Row("class weights that an iterable can't tell", ValueError, ('"balanced" counts the classes of all rows',),
        {"x": [(X, CLASSES)], "y": None, "class_weight": "balanced"}),
    Row("class weights that are words", ValueError, ("class_weight holds finite numbers",),
        {"class_weight": {0: "1", 1: 2, 2: 3}}),
    Row("weights that vanish in float32", ValueError, ("sample_weight", "1e-50", "Multiply all of it by one number"),
        {"sample_weight": np.full(12, 1e-50), "loss": loss.CrossEntropy(reduction="sum")}),
    Row("weights past float32", ValueError, ("sample_weight", "1e\\+39", "Multiply all of it by one number"),
        {"x": [(X, CLASSES, np.full(12, 1e39))], "y": None}),
    Row("class weights past float32", ValueError, ("class_weight", "3e\\+38", "Multiply all of it by one number"),
        {"class_weight": [3e38, 3e38, 3e38]}),
    Row("a held-out part without weight", ValueError, ("sample_weight is zero", "among the last 3", "shuffle"),
        {"sample_weight": np.repeat([1.0, 0.0], [9, 3]), "validation": 0.25}),
    Row("weight in the held-out part alone", ValueError, ("sample_weight is zero", "before the last 3", "shuffle"),
        {"sample_weight": np.repeat([0.0, 1.0], [9, 3]), "validation": 0.25}),
    Row("a validation pair without weight", ValueError, ("validation sample_weight", "not all of it is zero"),
        {"validation": (X, CLASSES, np.zeros(12))}),
    Row("the loss before the optimizer", TypeError, ("the optimizer comes before the loss",),
        {"optim": loss.CrossEntropy(), "loss": optim.Adam()}),
    Row("raw scores of a Softmax", ValueError, ("takes raw scores", "leave the Softmax out"),
        {"loss": loss.CrossEntropy(from_logits=True)}),
    Row("a class weight without end", ValueError, ("class_weight holds finite numbers",),
        {"class_weight": {0: 1, 1: 2, 2: np.inf}}),
    Row("class weights without classes", ValueError, ("class_weight",), {"class_weight": {0: 1}}, regressor),
    # validation
    *(
        Row(f"validation={value}", ValueError, (r"fraction lies in \(0, 1\)", f"got {value}"), {"validation": value})
        for value in (0.0, 1.0, -0.5, 0.01, float("nan"))
    ),
    Row("validation of one array", ValueError, (r"\(x, y\) or a fraction", "got ndarray"), {"validation": X}),
    Row("validation of other lengths", ValueError, ("validation x has 3 rows and validation y has 12",),
        {"validation": (X[:3], CLASSES)}),
    Row("validation of four", ValueError, (r"\(x, y\) or a fraction",), {"validation": (X, CLASSES, None, None)}),
    Row("NaN in validation", ValueError, ("validation x holds NaN, first in row 7",),
        {"validation": (with_value(X, np.nan), CLASSES)}),
    Row("validation of another width", ValueError, ("takes 3 inputs", r"\(4,\)"),
        {"validation": (np.ones((12, 4)), CLASSES)}),
    Row("a fraction of an iterable", ValueError, ("needs x and y as arrays", r"validation=\(x, y\)"),
        {"x": [(X, CLASSES)], "y": None, "validation": 0.25}),
    # iterables
    Row("an iterator for three epochs", ValueError, ("one epoch, and 3 were asked for", "steps_per_epoch"),
        {"x": iter([(X, CLASSES)]), "y": None, "epochs": 3}),
    Row("an iterable of something else", ValueError, (r"\(x, y\) or \(x, y, weight\)", "got str"),
        {"x": {"x": X}, "y": None}),
    Row("batches of four", ValueError, (r"\(x, y\) or \(x, y, weight\)",),
        {"x": [(X, CLASSES, np.ones(12), None)], "y": None}),
    # metrics and callbacks
    Row("a metric that is none of ours", ValueError, ("'f7'", "accuracy", r"\(pred, real\)"), {"metrics": ["f7"]}),
    Row("a callback that can't be called", TypeError, (r"callable \(net, logs\)", "got 3"), {"callbacks": [3]}),
    Row("the class of a callback", TypeError, (r"callable \(net, logs\)", "Lent"), {"callbacks": [Lent]}),
]  # fmt: skip

CASES = [
    pytest.param(row, built, id=f"{row.name}, {'' if built else 'not '}built") for row in ROWS for built in row.built
]


@pytest.mark.parametrize(("row", "built"), CASES)
def test_bad_input_gives_one_clear_error_and_moves_nothing(snapshot, row, built):
    net, rule, good = row.net(), optim.Adam(), GOOD[row.net]
    if built:
        net.train(**good, optim=rule, epochs=2, batch_size=5, verbose=False)
    before = snapshot(net, rule), snapshot(LENT.net, LENT.rule)
    with pytest.raises(row.error) as caught:
        net.train(**{**good, "optim": rule, "epochs": 1, "verbose": False, **row.wrong})
    assert type(caught.value) is row.error
    for part in row.message:
        assert re.search(part, str(caught.value)), f"{part!r} is not in: {caught.value}"
    assert (snapshot(net, rule), snapshot(LENT.net, LENT.rule)) == before


EVALUATED = [row for row in ROWS if set(row.wrong) <= {"x", "y", "loss", "sample_weight", "metrics", "batch_size"}]
EVALUATED = [row for row in EVALUATED if row.wrong.get("y", 0) is not None]
EVALUATED = [row for row in EVALUATED if not re.search("BatchNorm|gradient", row.name)]  # all right without training


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("row", EVALUATED, ids=lambda row: row.name)
def test_evaluate_refuses_the_same(snapshot, row, built):
    if built not in row.built:
        return
    net, good = row.net(), GOOD[row.net]
    if built:
        net.train(**good, epochs=2, batch_size=5, verbose=False)
    before = snapshot(net)
    with pytest.raises(row.error) as caught:
        net.evaluate(**{**good, **row.wrong})
    for part in row.message:
        assert re.search(part, str(caught.value)), f"{part!r} is not in: {caught.value}"
    assert snapshot(net) == before


# What can only be seen batch by batch: the steps before it stay, the batch moves nothing ------------------------


def mapped(tmp_path, **arrays):
    maps = {}
    for name, array in arrays.items():
        np.save(tmp_path / name, array)
        maps[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    return maps


BATCHWISE = [
    ({"x": with_value(X, np.nan)}, "x holds NaN, first in row {row}:"),
    ({"x": with_value(X, 1e300)}, "x holds infinity in float32, first in row {row}:"),
    ({"y": np.where(np.arange(12) == 7, 3, CLASSES)}, "class numbers from 0 to 2.*got 0 to 3"),
    ({"y": np.where(np.arange(12) == 7, -1, CLASSES)}, "class numbers from 0 to 2.*got -1 to"),
]


@pytest.mark.parametrize("form", ["memory map", "iterable"])
@pytest.mark.parametrize(("wrong", "message"), BATCHWISE)
def test_a_bad_batch_is_refused_before_its_step(snapshot, tmp_path, form, wrong, message):
    data = {"x": X, "y": CLASSES, **wrong}
    net, expected = classifier(), classifier()
    rules = [optim.Adam(), optim.Adam()]
    options = {"loss": loss.CrossEntropy(), "batch_size": 4, "shuffle": False, "verbose": False, "epochs": 1}
    expected.train(X[:4], CLASSES[:4], optim=rules[1], **options)
    if form == "memory map":
        data, row = mapped(tmp_path, **data), "7"
    else:
        row = "3 of batch 1"
        data = {"x": [(data["x"][start : start + 4], data["y"][start : start + 4]) for start in (0, 4, 8)]}
    with pytest.raises(ValueError, match=message.format(row=row)):
        net.train(**data, optim=rules[0], **options)
    ours, theirs = snapshot(net, rules[0]), snapshot(expected, rules[1])
    apart = ("optim", "loss")  # the instances
    assert {k: v for k, v in ours.items() if k not in apart} == {k: v for k, v in theirs.items() if k not in apart}


def test_an_iterable_that_runs_out_says_when():
    with pytest.raises(ValueError, match=r"ran out after 2 batches.*steps_per_epoch is 3"):
        classifier().train(iter([(X, CLASSES)] * 2), steps_per_epoch=3, epochs=1, verbose=False)


# Hyper-parameters ----------------------------------------------------------------------------------------------

BAD_HYPER = [
    ("lr", -0.1), ("lr", float("nan")), ("lr", float("inf")), ("lr", "0.1"), ("lr", None), ("lr", True),
    ("beta1", 1.0), ("beta1", -0.1), ("beta1", float("nan")), ("beta2", 1.5), ("epsilon", -1e-8),
    ("weight_decay", -1.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_HYPER)
def test_hyper_parameters_out_of_range_are_refused_given_and_set(snapshot, name, value):
    message = rf"Adam: {name} is a number in \[0, (inf|1)\), got {re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        optim.Adam(**{name: value})
    net, rule = classifier(), optim.Adam()
    net.train(**GOOD[classifier], optim=rule, epochs=1, verbose=False)
    before = snapshot(net, rule)
    with pytest.raises(ValueError, match=message):
        setattr(rule, name, value)
    assert snapshot(net, rule) == before


@pytest.mark.parametrize("make", [optim.RMSProp, optim.Momentum])
def test_a_beta_lies_below_1(make):
    for value in (1.0, -0.5, 2):
        with pytest.raises(ValueError, match=rf"{make.__name__}: beta is a number in \[0, 1\), got {value}"):
            make(beta=value)


# A missing optional package: the message is the command ---------------------------------------------------------


def test_the_plot_without_its_package(monkeypatch):
    history = regressor().train(X, COLUMN, epochs=1, verbose=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "layerwise\[demo\]"'):
        history.plot()
