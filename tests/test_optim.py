"""Optimizer, the base of every rule: whom it serves, what it costs in memory, and a rule of one's own. What every rule
computes is in test_rules.py.
"""

import inspect
import pickle
import tracemalloc

import numpy as np
import pytest
from golden import Held, Scheduled, X, Y, cases, fresh_net, give, held, rules_within, step_by_hand

import layers
import loss
import optim
from layerwise import datasets
from layerwise.core import blocks

STREAMED = [case for case in cases() if case.kind is None]


def by_id(case):
    return case.id


# Whom it serves -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, lambda: optim.Clip(optim.SGD(), norm=1.0)])
def test_an_optimizer_serves_one_net_until_it_is_reset(make, snapshot):
    mine, other, rule = fresh_net(), fresh_net(), make()
    step_by_hand(mine, rule, 1)
    before = snapshot(mine, rule), snapshot(other)
    kind = type(rule).__name__
    for use in (
        lambda: rule.update(other),
        lambda: rule.prepare(other),
        lambda: rule.finish(other),
        lambda: other.train(X, Y, optim=rule, loss=loss.MSE(), epochs=1, verbose=False),
        lambda: rule.step([np.ones(2)], [np.ones(2)]),
        lambda: optim.minimize(lambda x: (0.0, x), [1.0], rule, 1),
    ):
        with pytest.raises(ValueError, match=rf"{kind} serves another net and keeps .*another instance, or reset\(\)"):
            use()
    with pytest.raises(ValueError, match="serves another net"), rule.evaluation_weights(other):
        pass
    assert (snapshot(mine, rule), snapshot(other)) == before
    rule.reset()
    step_by_hand(other, rule, 1)
    assert other.vector.tobytes() == mine.vector.tobytes()


def test_a_list_of_other_shapes_or_dtypes_is_refused():
    rule = optim.Adam()
    rule.step([np.ones((2, 3)), np.ones(4)], [np.ones((2, 3)), np.ones(4)])
    rule.step([np.zeros((2, 3)), np.zeros(4)], [np.ones((2, 3)), np.ones(4)])  # by place in the list
    assert rule.t == 2
    for others in ([np.ones((3, 2)), np.ones(4)], [np.ones((2, 3))], [np.ones((2, 3), np.float32), np.ones(4)]):
        with pytest.raises(ValueError, match=r"serves arrays of shapes \[\(2, 3\), \(4,\)\]"):
            rule.step(others, others)
    with pytest.raises(ValueError, match=r"serves arrays given to step\(\)|serves arrays"):
        rule.prepare(fresh_net())


@pytest.mark.parametrize("dtypes", [("float64", "float32"), ("float32", "float64")])
def test_a_list_of_several_dtypes_is_moved_as_each_array_alone(dtypes):
    together, rule = [np.ones(3, dtype) for dtype in dtypes], optim.Adam(lr=0.1)
    alone = [(np.ones(3, dtype), optim.Adam(lr=0.1)) for dtype in dtypes]
    for k in range(3):
        g = np.array([1.0, -0.5, k])
        rule.step(together, [g, -g])
        for sign, (w, own) in zip((1, -1), alone, strict=True):
            own.step([w], [sign * g])
    for w, (expected, _) in zip(together, alone, strict=True):
        assert w.dtype == expected.dtype
        np.testing.assert_allclose(w, expected, rtol=1e-6)


def test_step_refuses_what_does_not_fit():
    w = [np.ones((2, 3))]
    for gradients in ([], [np.ones((3, 2))], [np.ones(6)], [np.ones((2, 3)), np.ones(1)], [1.0]):
        with pytest.raises(ValueError, match="a gradient for each parameter"):
            optim.SGD().step(w, gradients)
    with pytest.raises(TypeError, match=r"lists of arrays.*step\(\[w\], \[g\]\)"):
        optim.SGD().step(np.ones(3), np.ones(3))
    fixed = np.ones(2)
    fixed.flags.writeable = False
    for parameters in ([[1.0, 2.0]], [np.ones(2, int)], [fixed]):
        with pytest.raises(TypeError, match="writeable arrays of floats"):
            optim.SGD().step(parameters, [np.ones(2)])
    assert (w[0] == 1).all()


@pytest.mark.parametrize(
    "make", [optim.LBFGS, optim.PolyakSGD, lambda: optim.SAM(optim.SGD()), lambda: optim.Average(optim.LBFGS(), 0.9)]
)
def test_rules_that_evaluate_say_that_they_need_a_net(make):
    with pytest.raises(TypeError, match="asks for the loss itself: give it a net, or use minimize"):
        make().step([np.ones(2)], [np.ones(2)])


@pytest.mark.parametrize("make", [optim.LBFGS, optim.PolyakSGD, lambda: optim.SAM(optim.SGD())])
def test_rules_that_evaluate_refuse_a_loss_that_is_not_ours(make, snapshot):
    class Own:
        def __call__(self, pred, real):
            self.off = pred - real
            return float(np.mean(self.off**2))

        def backward(self):
            return 2 * self.off / self.off.size

    net, rule, error = fresh_net(), make(), Own()
    before = snapshot(net)
    error(net(X, training=True), Y)
    with pytest.raises(TypeError, match="loss of ours, or a subclass"):
        rule(net, error)
    after = snapshot(net)
    assert {k: v for k, v in after.items() if "random" not in k} == {
        k: v for k, v in before.items() if "random" not in k
    }
    assert rule.t == 0


def test_step_takes_views_and_leaves_the_gradients():
    whole = np.arange(12.0).reshape(3, 4)
    expected = whole.copy()
    expected[:, ::2] -= 0.5 * 7
    g = np.full((3, 2), 7)  # integers
    optim.Clip(optim.SGD(lr=0.5), norm=1e9).step([whole[:, ::2]], [g])
    np.testing.assert_array_equal(whole, expected)
    repeated = optim.SGD(lr=0.5)
    for view in (np.zeros((3, 4))[:, ::2], np.zeros((3, 2), order="F")):
        repeated.step([view], [g])
        view += 1  # a change between two steps of the same array counts
        repeated.step([view], [g])
        np.testing.assert_array_equal(view, np.full((3, 2), 1 - 7.0))
    gradient = np.full(2, 7.0)
    optim.Clip(optim.SGD(), norm=0.1).step([np.ones(2)], [gradient])
    assert (gradient == 7).all()


def test_decay_leaves_the_gradient_that_the_user_sees():
    for case in STREAMED:
        if case.about["arguments"].get("weight_decay") and case.name not in ("Clip",):
            net = held(case.start)
            gradients = case.gradients()[0]
            give(net, gradients)
            case.make().update(net)
            for layer, g in zip(net.layers, gradients, strict=True):
                np.testing.assert_array_equal(layer.w_gradient, g)


def test_minimize_asks_for_value_and_gradient():
    with pytest.raises(TypeError, match=r"returns \(value, gradient\), this one gives .*5\.0"):
        optim.minimize(lambda x: x @ x, [1.0, 2.0], optim.SGD(), 3)


def test_minimize_gives_the_path():
    x0 = np.array([[3, 4], [1, 2]])
    path = optim.minimize(lambda x: (float((x * x).sum()), 2 * x), x0, optim.SGD(lr=0.25), 3)
    assert path.dtype == np.float64
    np.testing.assert_array_equal(path, [x0, x0 / 2, x0 / 4, x0 / 8])
    assert optim.minimize(lambda x: (0.0, x), [1.0], optim.SGD(), 0).tolist() == [[1.0]]
    with pytest.raises(ValueError, match=r"gradient has shape \(1,\), expected that of x, \(2,\)"):
        optim.minimize(lambda x: (0.0, x[:1]), [1.0, 2.0], optim.SGD(), 1)
    for steps in (-1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="steps is an integer, 0 or more"):
            optim.minimize(lambda x: (0.0, x), [1.0], optim.SGD(), steps)


def test_lbfgs_starts_anew_where_a_layer_is_frozen_or_thawed():
    net, rule = fresh_net(), optim.LBFGS(steps=2)
    error = loss.MSE()
    for t in range(9):
        net[0].frozen, net[3].frozen = t in (2, 3, 4), t == 5
        kept = [layer.w.copy() for layer in (net[0], net[3])]
        before = error(net(X), Y)
        rule(net, error)
        assert error(net(X), Y) < before
        assert [np.array_equal(k, layer.w) for k, layer in zip(kept, (net[0], net[3]), strict=True)] == [
            t in (2, 3, 4), t == 5
        ]  # fmt: skip


def test_adamax_without_epsilon_never_moves_weights_without_a_gradient():
    w, rule = [np.array([1.0, 2.0])], optim.Adamax(lr=0.1, epsilon=0.0)
    rule.step(w, [np.array([0.0, 4.0])])
    np.testing.assert_allclose(w[0], [1.0, 1.9], rtol=1e-12)
    rule.step(w, [np.array([0.0, 4.0])])
    np.testing.assert_allclose(w[0], [1.0, 1.8], rtol=1e-12)


# What it costs ------------------------------------------------------------------------------------------------------


def peak_beside(net, rule, steps=2):
    """The most memory that an optimizer held, beside the net's own vectors, in bytes."""
    tracemalloc.start()
    try:
        for _ in range(steps):
            rule.update(net)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_ten_million_parameters_with_adam_take_two_vectors_and_some_blocks():
    size = 10_000_000
    net = held([np.ones((2500, 4000), np.float32)], "float32")
    net.gradient.fill(0.5)
    rule = optim.Adam(weight_decay=0.1)
    assert peak_beside(net, rule) <= 2 * 4 * size + 10 * 4 * blocks.BLOCK
    assert net[0].w[0, 0] != 1


IN_BLOCKS = [
    case
    for case in STREAMED
    if case.id.endswith(("-weight-decay", "-plain", "-limits", "-norm"))
    and not any(each.whole_parameters for each in rules_within(case.make()))
]


@pytest.mark.parametrize("case", IN_BLOCKS, ids=by_id)
def test_a_step_takes_memory_for_the_state_and_some_blocks_only(case):
    rule = case.make()
    size = 1_000_000
    net = held([np.ones(size, np.float32)], "float32")
    net.gradient.fill(0.5)
    peak = peak_beside(net, rule)
    kept = sum(a.nbytes for each in rules_within(rule) for state in each.state_dict()["state"] for a in state.values())
    assert kept in [4 * size * k for k in range(6)]
    assert peak <= kept + 12 * 4 * blocks.BLOCK


# A rule of one's own --------------------------------------------------------------------------------------------------


class PowerSign(optim.Optimizer):
    """Longer steps while gradient and mean agree: m <- beta m + (1 - beta) g, w <- w - lr exp(sign(g) sign(m)) g."""

    state = ("m",)

    def __init__(self, lr=0.01, beta=0.9, weight_decay=0.0):
        super().__init__(lr=lr, beta=beta, weight_decay=weight_decay)

    @staticmethod
    def rule(w, g, m, *, lr, beta):
        m *= beta
        m += (1 - beta) * g
        w -= lr * np.exp(np.sign(g) * np.sign(m)) * g


def test_a_rule_of_ones_own_takes_fifteen_lines():
    lines = inspect.getsource(PowerSign).splitlines()
    assert len([line for line in lines if line.strip()]) <= 15


def test_a_rule_of_ones_own_does_all_that_ours_do(monkeypatch):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape) for shape in ((2, 3), (4,))]
    stream = [[rng.standard_normal(w.shape) for w in start] for _ in range(8)]
    expected = [w.copy() for w in start]
    means = [np.zeros_like(w) for w in start]
    for gradients in stream:
        for w, g, m in zip(expected, gradients, means, strict=True):
            total = g + 0.1 * w
            m[...] = 0.8 * m + 0.2 * total
            w -= 0.05 * np.exp(np.sign(total) * np.sign(m)) * total

    listed = [w.copy() for w in start]
    rule = PowerSign(lr=Scheduled([0.05]), beta=0.8, weight_decay=0.1)
    for gradients in stream:
        rule.step(listed, gradients)
    monkeypatch.setattr(blocks, "BLOCK", 3)
    net, clipped = held(start), optim.Clip(PowerSign(lr=0.05, beta=0.8, weight_decay=0.1), norm=1e9)
    for t, gradients in enumerate(stream):
        give(net, gradients)
        clipped.update(net)
        if t == 3:
            net, clipped = pickle.loads(pickle.dumps((net, clipped)))
    for ours, w, layer in zip(listed, expected, net.layers, strict=True):
        np.testing.assert_allclose(ours, w, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(layer.w, w, rtol=1e-13, atol=1e-15)
    assert repr(rule).startswith("PowerSign(lr=")
    trained = layers.Model([layers.Linear(8), layers.Tanh(), layers.Linear(3)], seed=0)
    history = trained.train(X, Y, optim=PowerSign(lr=0.1), loss=loss.MSE(), epochs=200, verbose=False)
    assert history["loss"][-1] < 0.5 * history["loss"][0]


def test_a_rule_that_is_not_written_says_so():
    class Nothing(optim.Optimizer):
        pass

    with pytest.raises(TypeError, match=r"rule\(w, g, \*state, \*\*numbers\).*write it"):
        Nothing().step([np.ones(2)], [np.ones(2)])

    class Around(optim.Wrapper):
        pass

    with pytest.raises(TypeError, match=r"Around has no around\(self, net\): write it"):
        Around(optim.SGD()).step([np.ones(2)], [np.ones(2)])


def test_a_rule_may_give_its_own_ranges_and_flags():
    class Own(PowerSign):
        ranges = {"lr": (0, 1, "(]")}  # noqa: RUF012

    assert Own(lr=1).lr == 1
    with pytest.raises(ValueError, match=r"Own: lr is a number in \(0, 1\], got 0"):
        Own(lr=0)


def test_held_makes_a_net_of_the_given_arrays():
    net = held([np.arange(3.0), np.ones((2, 2))])
    assert isinstance(net[0], Held)
    np.testing.assert_array_equal(net.vector, [0, 1, 2, 1, 1, 1, 1])


def test_lbfgs_goes_down_a_straight_line_and_stops_where_two_points_meet():
    def straight(x):
        return float(np.abs(x - 50.0).sum()), np.sign(x - 50.0)

    path = optim.minimize(straight, np.zeros(2), optim.LBFGS(), 3)
    assert straight(path[-1])[0] < straight(path[0])[0]
    x, y = datasets.five_rows()
    net = layers.Model([layers.Linear(3), layers.ReLU(), layers.Linear(1)], seed=8)
    rule = optim.LBFGS(tolerance_change=0.0, tolerance_gradient=0.0)
    history = net.train(x, y, rule, loss.MSE(), epochs=20, verbose=False)
    assert history["loss"][-1] < history["loss"][0]
