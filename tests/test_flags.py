"""Every argument that is True or False takes nothing else: "no" counts as true, and would mean the opposite."""

import importlib
import inspect

import numpy as np
import pytest
from layerwise.report import write_report

import layers
import loss
import optim
from layerwise import compare, datasets, gradcheck, problems
from layerwise.compare.results import Comparison
from layerwise.estimators import NetClassifier, NetRegressor

X = np.random.default_rng(0).normal(size=(12, 4))
CLASSES = np.arange(12) % 3
MODULES = [
    "layers", "loss", "optim", "model", "layerwise.callbacks", "layerwise.compare", "layerwise.compare.results",
    "layerwise.convolution", "layerwise.datasets", "layerwise.gradcheck", "layerwise.problems", "layerwise.report",
    "layerwise.schedules", "layerwise.augment", "layerwise.export", "layerwise.interchange", "layerwise.pictures",
]  # fmt: skip
NEEDED = {  # what the constructors of the classes need besides
    "units": 3, "filters": 2, "kernel_size": 2, "groups": 1, "peak": 0.1, "steps": 10, "path": "net.npz",
}  # fmt: skip


def flags_of(function):
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # of History, which is a dict
        return []
    return [name for name, each in parameters.items() if isinstance(each.default, bool)]


def public():
    """(name, class or function) of every public module."""
    for module in map(importlib.import_module, MODULES):
        for name in getattr(module, "__all__", None) or [each for each in vars(module) if each[0] != "_"]:
            each = getattr(module, name)
            if getattr(each, "__module__", None) == module.__name__ and callable(each):
                yield name, each


CLASSES_WITH_FLAGS = [
    pytest.param(each, flag, id=f"{name} {flag}")
    for name, each in public()
    # The first has a row below; no user makes a Value.
    if inspect.isclass(each) and name not in ("Surface", "Value")
    for flag in flags_of(each)
]


@pytest.mark.parametrize(("make", "flag"), CLASSES_WITH_FLAGS)
def test_a_constructor_takes_true_or_false_only(make, flag):
    needed = {k: NEEDED[k] for k, p in inspect.signature(make).parameters.items() if p.default is p.empty}
    for good in (True, False):
        make(**needed, **{flag: good})
    for bad in ("no", "sum", 2, None, [], np.array([True, False])):
        with pytest.raises((TypeError, ValueError), match=f"{flag} is True or False, got "):
            make(**needed, **{flag: bad})


def net():
    created = layers.Model([layers.Linear(3), layers.Softmax()], seed=0)
    created.build((4,))
    return created


def surface(noisy):
    return problems.Surface("bowl", lambda x: (x @ x, 2 * x), [1.0], [0.0], ((-1, 1),), noisy=noisy)


def small_comparison():
    return Comparison.__new__(Comparison)  # asked before anything in it is looked at


def frozen(value):
    net()[0].frozen = value


CALLS = {
    "Layer.__call__ training": lambda flag: net()(X, training=flag),
    "Layer.frozen": frozen,
    "Model.train shuffle": lambda flag: net().train(X, CLASSES, shuffle=flag, epochs=1, verbose=False),
    "Model.train verbose": lambda flag: net().train(X, CLASSES, verbose=flag, epochs=1),
    "Model.predict spread": lambda flag: net().predict(X, spread=flag),
    "Model.load_state_dict strict": lambda flag: net().load_state_dict(net().state_dict(), strict=flag),
    "compare verbose": lambda flag: compare.compare([optim.SGD], "xor", verbose=flag),
    "compare widen": lambda flag: compare.compare([optim.SGD], "xor", widen=flag, verbose=False),
    "Comparison.to_markdown timings": lambda flag: small_comparison().to_markdown(timings=flag),
    "write_report timings": lambda flag: write_report(small_comparison(), "report.html", timings=flag),
    "Surface noisy": surface,
    "mnist flat": lambda flag: datasets.mnist("/nowhere", flat=flag),
    "gradcheck training": lambda flag: gradcheck.gradcheck(layers.ReLU(), X, training=flag),
}
for make in (NetClassifier, NetRegressor):
    for name in flags_of(make):
        CALLS[f"{make.__name__} {name}"] = lambda flag, make=make, name=name: make((2,), **{name: flag}).fit(X, CLASSES)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("given", ["no", None, 0.0], ids=repr)
def test_a_call_takes_true_or_false_only(name, given):
    with pytest.raises((TypeError, ValueError), match=rf"{name.split('.')[-1].split()[-1]} (is|must be) True or False"):
        CALLS[name](given)


def test_no_public_flag_is_left_out():
    found = {f"{name} {flag}" for name, each in public() if not inspect.isclass(each) for flag in flags_of(each)}
    for name, each in public():
        if inspect.isclass(each):
            for method, function in vars(each).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    found |= {f"{name}.{method} {flag}" for flag in flags_of(function)}
    assert found - set(CALLS) <= {"Loss.checked_weight some"}


def test_a_reduction_in_the_place_of_a_flag():
    for make in (loss.CrossEntropy, loss.BinaryCrossEntropy, loss.PoissonNLL):
        with pytest.raises(TypeError, match=r"True or False, got 'sum'\. reduction='sum' is given"):
            make("sum")


def test_a_refused_flag_changes_nothing():
    whole = net()
    with pytest.raises(TypeError, match="frozen is True or False, got 'no'"):
        whole.frozen = "no"
    assert not whole.frozen
    before = whole.vector.copy()
    with pytest.raises(TypeError, match="shuffle is True or False"):
        whole.train(X, CLASSES, shuffle="no", verbose=False)
    np.testing.assert_array_equal(whole.vector, before)


@pytest.mark.parametrize(("verbose", "shown"), [(0, False), (1, True), (2, True), (np.bool_(False), False)])
def test_verbose_may_be_a_number_as_in_keras(verbose, shown, capsys):
    net().train(X, CLASSES, epochs=1, verbose=verbose)
    assert bool(capsys.readouterr().err) == shown
    NetClassifier((2,), max_iter=1, verbose=verbose).fit(X, CLASSES)
    assert bool(capsys.readouterr().err) == shown
