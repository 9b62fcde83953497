"""Optimizers that a user writes: a subclass of Optimizer, a plain callable, and what a slip in one of them is told."""

import copy
import inspect
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

import layers
import loss
import optim

X = np.random.default_rng(0).normal(size=(12, 3))
Y = X[:, :1] - X[:, 1:2]


def make_net(*more, **settings):
    return layers.Model([layers.Linear(4), layers.Tanh(), *more, layers.Linear(1)], seed=0, dtype="float64", **settings)


def train(rule, net=None, **settings):
    net = make_net() if net is None else net
    settings = {"epochs": 3, "batch_size": 4, "verbose": False} | settings
    net.train(X, Y, optim=rule, loss=loss.MSE(), **settings)
    return net


class Descent(optim.Optimizer):
    def __init__(self, lr=0.1, weight_decay=0.0):
        super().__init__(lr=lr, weight_decay=weight_decay)

    @staticmethod
    def rule(w, g, lr):
        w -= lr * g


class Returns(Descent):
    """The habit of optax and JAX."""

    state = ("m",)

    @staticmethod
    def rule(w, g, m, lr):
        m += g
        w -= 0.5 * lr * g
        return w - lr * g


class Rebinds(Descent):
    @staticmethod
    def rule(w, g, lr):
        w = w - lr * g  # another array


# A rule that moves nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay_is", ["coupled", "decoupled"])
def test_a_rule_that_returns_a_value_is_refused_and_nothing_has_moved(decay_is, snapshot):
    rule, net = Returns(weight_decay=0.1), make_net().build((3,))
    rule.decay_is = decay_is
    rule.prepare(net)
    before = snapshot(net, rule)
    with pytest.raises(TypeError, match=r"Returns\.rule returns ndarray, .* in place"):
        train(rule, net)
    after = snapshot(net, rule)
    for name in ("optim", "loss", "shuffle"):  # `train` sets them when it begins
        after[name] = before[name]
    assert after == before


def test_a_rule_that_returns_a_value_is_refused_without_a_net():
    w = np.ones(3)
    with pytest.raises(TypeError, match=r"Returns\.rule returns"):
        Returns().step([w], [np.ones(3)])
    assert w.tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match=r"Returns\.rule returns"):
        optim.minimize(lambda x: (x @ x, 2 * x), w, Returns(), 3)


def test_a_start_that_returns_a_value_is_refused():
    class Started(Returns):
        def start(self, w, m):
            return w.copy()

    with pytest.raises(TypeError, match=r"Started\.start returns a value"):
        train(Started())


@pytest.mark.parametrize("settings", [{}, {"copies": 2}])
def test_a_rule_that_moves_nothing_is_told_once(settings):
    with pytest.warns(UserWarning, match="Rebinds has left all weights as they are in two steps") as caught:
        train(Rebinds(), make_net(**settings))
    assert len(caught) == 1


def test_a_rule_that_moves_nothing_is_told_outside_a_training():
    with pytest.warns(UserWarning, match="Rebinds has left all weights as they are") as caught:
        optim.minimize(lambda x: (x @ x, 2 * x), np.ones(2), Rebinds(), 5)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "rule",
    [
        Descent(),
        Descent(lr=0.0),
        Descent(lr=lambda t: 0.0 if t < 3 else 0.1),
        optim.Accumulate(Descent(), 4),
        pickle.loads(pickle.dumps(optim.SGD())),
    ],
    ids=["moves", "no rate", "warms up", "accumulates", "ours"],
)
def test_a_sound_rule_is_told_nothing(rule):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(copy.deepcopy(rule))


def test_where_all_gradients_are_0_nothing_is_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optim.minimize(lambda x: (0.0, 0 * x), np.ones(2), Rebinds(), 5)


def test_a_watched_rule_is_that_of_the_formula_and_survives_a_pickle():
    """Two steps, a pickle, two steps: x (1 - 2 lr)^4 for the bowl x^2."""
    rule = Descent(lr=0.1)
    path = optim.minimize(lambda x: (x @ x, 2 * x), [3.0], rule, 2)
    twin = pickle.loads(pickle.dumps(rule))
    path = optim.minimize(lambda x: (x @ x, 2 * x), path[-1], twin, 2)
    assert path[-1] == pytest.approx(3.0 * 0.8**4, rel=1e-14)
    fresh = pickle.loads(pickle.dumps(Descent(lr=0.1)))
    assert optim.minimize(lambda x: (x @ x, 2 * x), [3.0], fresh, 4)[-1] == pytest.approx(3.0 * 0.8**4, rel=1e-14)


def rebinding(net, loss):
    """A plain callable with the same slip in one layer."""
    gradient = loss.backward()
    for layer in reversed(net.layers):
        gradient = layer.backward(gradient)
        if layer is net[0]:
            w = layer.w
            w = w - 0.1 * layer.w_gradient
        else:
            layer.w -= 0.1 * layer.w_gradient
            layer.b -= 0.1 * layer.b_gradient


def test_a_plain_callable_is_told_of_the_layer_that_it_leaves():
    with pytest.warns(UserWarning, match=r"rebinding has not changed .* Linear \(layers\.0\) in two steps") as caught:
        train(rebinding)
    assert len(caught) == 1
    net = make_net().build((3,))
    net[0].frozen = True
    train(rebinding, net)  # what is frozen is meant to stay: a warning would be an error here


def test_a_plain_callable_that_adds_up_gradients_is_told_nothing():
    """It moves the weights at each third step. One that never does is told at the end of the training."""
    steps = []

    def adding(net, loss, every=3):
        net.backpropagate(loss)
        steps.append(net.gradient.copy())
        if len(steps) % every == 0:
            net.vector[...] -= 0.1 * sum(steps[-every:])

    train(adding)  # a warning is an error here
    assert len(steps) >= 3
    with pytest.warns(UserWarning, match=rf"has not changed .* in ({len(steps)}|64) steps"):
        train(lambda net, loss: net.backpropagate(loss))


# minimize --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [optim.SGD(0.1), optim.SAM(optim.SGD(0.1), 0.01), optim.LBFGS(0.1)])
def test_a_function_that_writes_into_x_does_not_change_the_path(rule):
    def clean(x):
        return float(x @ x), 2 * x

    def writing(x):
        value, gradient = clean(x)
        seen.append(x)
        x *= 0
        return value, gradient

    seen = []
    start = np.array([3.0, -1.0])
    expected = optim.minimize(clean, start, copy.deepcopy(rule), 5)
    np.testing.assert_array_equal(optim.minimize(writing, start, rule, 5), expected)
    assert start.tolist() == [3.0, -1.0]


def test_a_function_may_keep_the_points_that_it_is_given():
    seen = []

    def bowl(x):
        seen.append(x)
        return x @ x, 2 * x

    path = optim.minimize(bowl, [3.0, -1.0], optim.SGD(0.1), 5)
    np.testing.assert_array_equal(seen, path[:-1])


# Without super().__init__() --------------------------------------------------------------------------------------


class Forgets(Descent):
    def __init__(self, lr=0.1):
        self.lr = lr


class ForgetsAround(optim.Wrapper):
    def __init__(self, optimizer):
        self.within = optimizer


class SetsItself(Descent):
    def __init__(self, lr=0.1):
        self.lr = lr
        super().__init__(lr=lr)


@pytest.mark.parametrize("make", [Forgets, lambda: ForgetsAround(optim.SGD())], ids=["rule", "wrapper"])
@pytest.mark.parametrize(
    "use",
    [
        train,
        lambda rule: optim.minimize(lambda x: (x @ x, 2 * x), [1.0], rule, 2),
        lambda rule: rule.step([np.ones(2)], [np.ones(2)]),
    ],
    ids=["train", "minimize", "step"],
)
def test_a_missing_super_init_is_said(make, use):
    with pytest.raises((TypeError, AttributeError), match=r"__init__ does not call super\(\).__init__\(") as caught:
        use(make())
    assert "\n" not in str(caught.value)


def test_a_rule_may_set_its_hyper_parameters_itself_too():
    rule = SetsItself(lr=0.1)
    expected = optim.minimize(lambda x: (x @ x, 2 * x), [1.0], optim.SGD(0.1), 3)
    np.testing.assert_array_equal(optim.minimize(lambda x: (x @ x, 2 * x), [1.0], rule, 3), expected)
    rule.lr = 0.05
    assert rule.hyper["lr"] == rule.lr == copy.deepcopy(rule).lr == 0.05


# Hyper-parameters as fields ----------------------------------------------------------------------------------------


class Signed(optim.Optimizer):
    """m <- beta m + (1 - beta) g;    w <- w - lr sign(m)"""

    lr: optim.Hyper = 0.001
    beta: optim.Hyper = 0.9
    state = ("m",)

    @staticmethod
    def rule(w, g, m, *, lr, beta):
        m += (1 - beta) * (g - m)
        w -= lr * np.sign(m)


class Written(optim.Optimizer):
    """The same with a constructor of its own."""

    state = ("m",)

    def __init__(self, lr=0.001, beta=0.9):
        super().__init__(lr=lr, beta=beta)

    rule = staticmethod(Signed.rule)


class Scaled(Signed):
    """One field more."""

    scale: optim.Hyper = 2.0

    @staticmethod
    def rule(w, g, m, *, lr, beta, scale):
        Signed.rule(w, g, m, lr=lr * scale, beta=beta)


class Needs(optim.Optimizer):
    lr: optim.Hyper
    flip: bool = False

    @staticmethod
    def rule(w, g, *, lr, flip):
        w -= -lr * g if flip else lr * g


def path_of(rule, steps=6):
    return optim.minimize(lambda x: (x @ x, 2 * x), [3.0, -1.0], rule, steps)


@pytest.mark.parametrize("kind", [Signed, Written, optim.Signum])
def test_fields_and_a_written_constructor_make_the_same_rule(kind):
    rule = kind(0.05, beta=0.8)
    assert repr(rule) == f"{kind.__name__}(lr=0.05, beta=0.8)"
    assert [(p.name, p.default) for p in inspect.signature(kind).parameters.values()] == [("lr", 0.001), ("beta", 0.9)]
    np.testing.assert_allclose(path_of(rule), path_of(Written(0.05, 0.8)), rtol=1e-14)
    assert (kind().lr, kind().beta) == (0.001, 0.9)


def test_a_subclass_adds_a_field_after_those_that_it_inherits():
    assert list(inspect.signature(Scaled).parameters) == ["lr", "beta", "scale"]
    np.testing.assert_array_equal(path_of(Scaled(0.01, 0.5, 3.0)), path_of(Signed(0.01 * 3.0, 0.5)))
    assert list(inspect.signature(Signed).parameters) == ["lr", "beta"]
    rule = Scaled()
    rule.scale = 0.5
    assert rule.hyper == {"lr": 0.001, "beta": 0.9, "scale": 0.5}


def test_a_field_without_a_default_is_to_be_given():
    assert inspect.signature(Needs).parameters["lr"].default is inspect.Parameter.empty
    with pytest.raises(TypeError, match=r"Needs\.__init__\(\) is missing lr"):
        Needs()
    assert path_of(Needs(0.25), 1)[-1].tolist() == [1.5, -0.5]
    assert path_of(Needs(lr=0.25, flip=True), 1)[-1].tolist() == [4.5, -1.5]


@pytest.mark.parametrize(
    ("values", "named", "told"),
    [
        ((), {"gamma": 0.5}, r"Signed\.__init__\(\) got an unexpected keyword argument 'gamma'"),
        ((), {"learning_rate": 0.5}, "Signed takes no learning_rate=: write lr="),
        ((0.1,), {"lr": 0.1}, "got multiple values for argument 'lr'"),
        ((0.1, 0.9, 0.5), {}, "takes at most 2 hyper-parameters, lr, beta, got 3"),
    ],
    ids=["unknown", "habit", "twice", "too many"],
)
def test_arguments_that_do_not_fit_the_fields_are_refused(values, named, told):
    with pytest.raises(TypeError, match=told):
        Signed(*values, **named)


@pytest.mark.parametrize(("name", "value"), [("lr", -1), ("beta", 1.0), ("beta", "0.9")])
def test_a_field_has_the_range_of_its_name(name, value):
    with pytest.raises(ValueError, match=f"Signed: {name} is a number in"):
        Signed(**{name: value})


def test_a_field_is_a_schedule_too():
    rule = Signed(lambda t: 0.5**t, beta=0.0)
    assert path_of(rule, 3)[:, 0].tolist() == [3.0, 2.0, 1.5, 1.25]


@pytest.mark.parametrize("twin", [lambda rule: pickle.loads(pickle.dumps(rule)), copy.deepcopy], ids=["pickle", "copy"])
@pytest.mark.parametrize("kind", [Signed, Scaled, Written])
def test_a_rule_of_fields_goes_on_after_a_pickle_or_a_copy(kind, twin):
    whole, rule = path_of(kind(0.05)), kind(0.05)
    first = path_of(rule, 3)
    rule = twin(rule)
    assert (type(rule), rule.lr, rule.t) == (kind, 0.05, 3)
    second = optim.minimize(lambda x: (x @ x, 2 * x), first[-1], rule, 3)
    np.testing.assert_array_equal(np.concatenate((first, second[1:])), whole)


CACHE = Path(__file__).resolve().parent.parent / ".mypy_cache"
TYPED = """
import optim

class Own(optim.Optimizer):
    lr: optim.Hyper = 0.1
    flip: bool = False

Own(0.5, flip=True)
Own(lr=lambda t: 0.5**t)
Own(0.5, flip="yes")
Own(gamma=1.0)
"""


def test_a_type_checker_knows_the_constructor_of_a_rule_of_fields(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "own.py").write_text(TYPED)
    monkeypatch.setenv("MYPYPATH", str(Path(optim.__file__).parent))
    settings = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", "--cache-dir", str(CACHE)]
    told, *_ = api.run([*settings, str(tmp_path / "own.py")])
    assert [line.split(":")[1] for line in told.splitlines() if ": error:" in line] == ["10", "11"], told


# The plain callable class that loops over all layers ---------------------------------------------------------------


class Article:
    def __init__(self, lr):
        self.lr = lr

    def __call__(self, model, loss):
        grad = loss.backward()
        for layer in model.layers[::-1]:
            grad = layer.backward(grad)
            if isinstance(layer, layers.Layer):
                layer.w -= self.lr * layer.w_gradient
                layer.b -= self.lr * layer.b_gradient


def test_a_loop_over_all_layers_updates_those_that_have_weights():
    net = make_net(layers.Linear(3, bias=False), layers.Dropout(0.1), layers.LayerNorm(), layers.RMSNorm())
    trained = [train(rule, net.copy()) for rule in (Article(0.05), optim.SGD(0.05))]
    np.testing.assert_allclose(trained[0].vector, trained[1].vector, rtol=1e-13)


@pytest.mark.parametrize(
    "layer",
    [layers.Tanh(), layers.Flatten(), layers.Linear(3), layers.Conv2D(2, 3), layers.Residual([layers.Linear(3)])],
    ids=repr,
)
def test_where_there_are_no_weights_they_are_empty(layer):
    names = ("w", "b", "w_gradient", "b_gradient")
    assert [getattr(layer, name).shape for name in names] == [(0,)] * 4
    for name in names:
        setattr(layer, name, getattr(layer, name) - 1)
        with pytest.raises(AttributeError, match=f"has no {name}"):
            setattr(layer, name, np.ones(3))
    assert layer.parameters == layer.gradients == {}
    twin = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    assert twin.w.shape == twin.b.shape == (0,)


def test_a_layer_without_a_bias_has_an_empty_one():
    for layer, x in ((layers.Linear(3, bias=False), X), (layers.Conv1D(2, 2, bias=False), X[None])):
        y = layer(x)
        layer.backward(np.ones_like(y))
        assert layer.b.shape == layer.b_gradient.shape == (0,)
        assert list(layer.parameters) == ["w"]
