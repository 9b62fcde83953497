"""What goes around an optimizer: what each does, how they nest, and what they refuse."""

import itertools
import pickle

import numpy as np
import pytest
from golden import Scheduled, give, held

import layers
import loss
import optim

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 12, 3))
STREAM = [[RNG.standard_normal(shape) for shape in ((2, 3), (4,))] for _ in range(12)]
START = [np.random.default_rng(1).standard_normal(shape) for shape in ((2, 3), (4,))]


def tanh_net(seed=0, dtype="float32", **options):
    members = [layers.Linear(4, name="first"), layers.Tanh(), layers.Linear(3)]
    return layers.Model(members, seed=seed, dtype=dtype, **options).build((3,))


def busy_net(seed=0):
    members = [layers.Linear(6), layers.BatchNorm(), layers.Tanh(), layers.Dropout(0.5), layers.Linear(3)]
    return layers.Model(members, seed=seed, dtype="float64").build((3,))


def train(net, rule, epochs=1, **options):
    options = {"loss": loss.MSE(), "batch_size": 4, "verbose": False} | options
    return net.train(X, Y, optim=rule, epochs=epochs, **options)


def fed(rule, steps=12):
    """The parameters after each step of the stream."""
    net, path = held(START), []
    for gradients in STREAM[:steps]:
        give(net, gradients)
        rule.update(net)
        path.append([layer.w.copy() for layer in net.layers])
    return path


def same(one, other):
    return [[w.tobytes() for w in each] for each in one] == [[w.tobytes() for w in each] for each in other]


def close(one, other):
    for a, b in zip(one, other, strict=True):
        for v, w in zip(a, b, strict=True):
            np.testing.assert_allclose(v, w, rtol=1e-13, atol=1e-15)


# What is refused ---------------------------------------------------------------------------------------------------

AROUND = {
    "Clip": lambda rule: optim.Clip(rule, norm=0.5),
    "Accumulate": lambda rule: optim.Accumulate(rule, 2),
    "Average": lambda rule: optim.Average(rule, 0.9),
    "Lookahead": lambda rule: optim.Lookahead(rule, steps=2),
    "SAM": lambda rule: optim.SAM(rule, rho=0.1),
    "PerLayer": lambda rule: optim.PerLayer({"0": optim.SGD(), "*": rule}),
}


@pytest.mark.parametrize("name", AROUND)
def test_only_an_optimizer_can_be_wrapped(name):
    def plain(net, value):
        pass

    for wrong in (plain, optim.SGD, "sgd", None, [optim.SGD()]):
        if name == "PerLayer" and wrong is None:
            continue  # leaves them as they are
        with pytest.raises(TypeError, match=f"{name} .*Optimizer.*got"):
            AROUND[name](wrong)
    with pytest.raises(TypeError, match="A plain function .*can't be wrapped" if name != "PerLayer" else "plain"):
        AROUND[name](plain)
    with pytest.raises(TypeError, match=r"write SGD\(\)" if name != "PerLayer" else "class"):
        AROUND[name](optim.SGD)


@pytest.mark.parametrize("inner", [optim.LBFGS, optim.PolyakSGD, lambda: optim.Average(optim.LBFGS(), 0.9)])
@pytest.mark.parametrize("name", ["Clip", "Accumulate", "SAM"])
def test_what_needs_the_gradient_as_it_is_is_not_wrapped_by_what_changes_it(name, inner):
    with pytest.raises(ValueError, match=f"{name} changes the gradient, and .* needs it as it is"):
        AROUND[name](inner())


SHOWING = {
    "ASGD": optim.ASGD,
    "ScheduleFreeSGD": optim.ScheduleFreeSGD,
    "ScheduleFreeAdamW": optim.ScheduleFreeAdamW,
    "Average": lambda: optim.Average(optim.Adam(), 0.8),
    "Lookahead": lambda: optim.Lookahead(optim.Adam()),
    "Clip Average": lambda: optim.Clip(optim.Average(optim.SGD(), 0.7), norm=1.0),
    "PerLayer": lambda: optim.PerLayer({"0": optim.SGD(), "*": optim.Lookahead(optim.Adam())}),
}


@pytest.mark.parametrize("inner", SHOWING)
@pytest.mark.parametrize("name", ["Average", "Lookahead"])
def test_a_net_shows_one_kind_of_evaluation_weights(name, inner):
    with pytest.raises(ValueError, match=f"{name} and .* both have evaluation weights of their own"):
        AROUND[name](SHOWING[inner]())


def test_clip_needs_something_to_clip_by():
    with pytest.raises(ValueError, match=r"Clip needs norm, value or both: Clip\(optimizer, norm=1.0\)"):
        optim.Clip(optim.SGD())


@pytest.mark.parametrize(
    "whole", [optim.LBFGS, optim.PolyakSGD, lambda: optim.SAM(optim.SGD()), lambda: optim.Average(optim.LBFGS(), 0.5),
              lambda: optim.PerLayer({"*": optim.SGD()})]
)  # fmt: skip
def test_what_needs_the_whole_net_serves_no_part(whole):
    with pytest.raises(ValueError, match="needs the whole net: it can't serve a part"):
        optim.PerLayer({"*": whole()})


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (["first"], r"no pattern of \['first'\] fits .*layers\.2\.w.*add one for it, or \"\*\" for the rest"),
        (["*.w"], r"no pattern of \['\*\.w'\] fits .*layers\.0\.b"),
        (["*", "3"], r"the patterns \['3'\] fit nothing.*parameters are .*first\.w"),
        (["second", "*"], r"the patterns \['second'\] fit nothing"),
        (["linear.w", "*"], r"the patterns \['linear\.w'\] fit nothing"),
        (["Tanh", "*"], r"the patterns \['Tanh'\] fit nothing"),
        (["*", "first"], r"the patterns \['first'\] fit nothing, or nothing is left for them"),
    ],
)
def test_patterns_that_do_not_divide_the_net_are_refused_before_anything_moves(patterns, told, snapshot):
    net, rule = tanh_net(), optim.PerLayer({pattern: optim.Adam() for pattern in patterns})
    before = snapshot(net)
    with pytest.raises(ValueError, match=told):
        train(net, rule)
    assert snapshot(net) == before


def test_per_layer_takes_a_dict_of_different_optimizers():
    for wrong in ({}, [], optim.SGD(), None):
        with pytest.raises(TypeError, match=r"PerLayer takes \{pattern: optimizer\}"):
            optim.PerLayer(wrong)
    one = optim.SGD()
    with pytest.raises(ValueError, match="another instance for each pattern"):
        optim.PerLayer({"0": one, "*": one})
    with pytest.raises(AttributeError, match="PerLayer has no 'lr': ask one of its optimizers"):
        optim.PerLayer({"*": one}).lr  # noqa: B018


# How they nest ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(AROUND, AROUND)))
def test_any_two_nest_or_say_why_not(outer, inner):
    two = {outer, inner}
    if two <= {"Average", "Lookahead"} or (outer == "PerLayer" and inner in ("SAM", "PerLayer")):
        with pytest.raises(ValueError, match=r"evaluation weights|whole net"):
            AROUND[outer](AROUND[inner](optim.Adam(lr=0.05)))
        return
    net = tanh_net()
    rule = AROUND[outer](AROUND[inner](optim.Adam(lr=0.05)))
    history = train(net, rule, epochs=10, validation=(X, Y))
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert net.vector.dtype == np.float32
    repeated = tanh_net()
    train(repeated, pickle.loads(pickle.dumps(AROUND[outer](AROUND[inner](optim.Adam(lr=0.05))))), epochs=10)
    assert repeated.vector.tobytes() == net.vector.tobytes()
    assert eval(repr(rule), vars(optim)).config().keys() == rule.config().keys()


def clipped(gradients, norm):
    length = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g * min(1.0, norm / (length + 1e-6)) for g in gradients]


def test_clip_around_accumulate_clips_the_small_and_accumulate_around_clip_the_large():
    rule, w, expected = optim.SGD(lr=0.1, momentum=0.5), [v.copy() for v in START], []
    for a, b in zip(STREAM[::2], STREAM[1::2], strict=True):
        expected.append([v.copy() for v in w])
        each = [clipped(g, 0.5) for g in (a, b)]
        rule.step(w, [(p + q) / 2 for p, q in zip(*each, strict=True)])
        expected.append([v.copy() for v in w])
    close(fed(optim.Clip(optim.Accumulate(optim.SGD(lr=0.1, momentum=0.5), 2), norm=0.5)), expected)

    rule, w, expected = optim.SGD(lr=0.1, momentum=0.5), [v.copy() for v in START], []
    for a, b in zip(STREAM[::2], STREAM[1::2], strict=True):
        expected.append([v.copy() for v in w])
        rule.step(w, clipped([(p + q) / 2 for p, q in zip(a, b, strict=True)], 0.5))
        expected.append([v.copy() for v in w])
    close(fed(optim.Accumulate(optim.Clip(optim.SGD(lr=0.1, momentum=0.5), norm=0.5), 2)), expected)


def test_average_of_accumulated_steps_counts_steps_that_move():
    net, rule = held(START), optim.Average(optim.Accumulate(optim.Adam(lr=0.1), 3), 0.8)
    inner, w, average = optim.Adam(lr=0.1), [v.copy() for v in START], None
    for t in range(0, 12, 3):
        inner.step(w, [(a + b + c) / 3 for a, b, c in zip(*STREAM[t : t + 3], strict=True)])
        average = (
            [v.copy() for v in w] if average is None else [0.8 * a + 0.2 * v for a, v in zip(average, w, strict=True)]
        )
        for gradients in STREAM[t : t + 3]:
            give(net, gradients)
            rule.update(net)
        with rule.evaluation_weights(net):
            close([[layer.w for layer in net.layers]], [average])
        close([[layer.w for layer in net.layers]], [w])


def test_lookahead_around_clip_is_a_loop_of_both():
    rule, fast, slow, expected = optim.Adam(lr=0.1), [v.copy() for v in START], [v.copy() for v in START], []
    for t, gradients in enumerate(STREAM, 1):
        rule.step(fast, clipped(gradients, 0.7))
        if t % 4 == 0:
            for f, s in zip(fast, slow, strict=True):
                s += 0.3 * (f - s)
                f[...] = s
        expected.append([f.copy() for f in fast])
    close(fed(optim.Lookahead(optim.Clip(optim.Adam(lr=0.1), norm=0.7), steps=4, alpha=0.3)), expected)
    close(fed(optim.Clip(optim.Lookahead(optim.Adam(lr=0.1), steps=4, alpha=0.3), norm=0.7)), expected)


def test_sam_within_clip_and_around_it_are_the_same():
    nets = [tanh_net(), tanh_net()]
    train(nets[0], optim.SAM(optim.Clip(optim.SGD(lr=0.5), norm=0.1), rho=0.3), epochs=3)
    train(nets[1], optim.Clip(optim.SAM(optim.SGD(lr=0.5), rho=0.3), norm=0.1), epochs=3)
    assert nets[0].vector.tobytes() == nets[1].vector.tobytes()


# What each does -----------------------------------------------------------------------------------------------------


def test_clip_tells_whether_it_did():
    rule = optim.Clip(optim.SGD(), norm=1.0, value=0.9)
    for g, expected in (([0.5, 0.5], False), ([0.95, 0.0], True), ([0.8, 0.8], True), ([0.0, 0.0], False)):
        rule.step([np.zeros(2)], [np.array(g)])
        assert rule.clipped is expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_rescues_what_is_large_and_refuses_what_is_not_a_number(dtype, snapshot):
    large = 1e25 if dtype == "float32" else 1e200
    for options in ({"norm": 1.0}, {"value": 0.5}):
        w = [np.zeros(70_000, dtype)]
        rule = optim.Clip(optim.SGD(lr=1.0), **options)
        rule.step(w, [np.full(70_000, large)])
        np.testing.assert_allclose(w[0], -0.5 if "value" in options else -(70_000**-0.5), rtol=1e-6)
        before = snapshot(None, rule), snapshot(None, rule.optimizer), w[0].tobytes()
        for bad in (np.nan, np.inf, -np.inf):
            g = np.ones(70_000)
            g[-1] = bad
            with pytest.raises(FloatingPointError, match="not finite"):
                rule.step(w, [g])
        assert (snapshot(None, rule), snapshot(None, rule.optimizer), w[0].tobytes()) == before


def test_small_batches_accumulate_to_a_large_one():
    for make in (lambda: optim.SGD(lr=0.3), lambda: optim.Adam(lr=0.05, weight_decay=0.1)):
        large, small = tanh_net(dtype="float64"), tanh_net(dtype="float64")
        history = train(large, make(), epochs=5, batch_size=12)
        rule = optim.Accumulate(make(), 4)
        other = train(small, rule, epochs=5, batch_size=3, shuffle=False)
        assert rule.optimizer.t == 5
        np.testing.assert_allclose(small.vector, large.vector, rtol=0, atol=1e-12)
        np.testing.assert_allclose(other["loss"], history["loss"], rtol=1e-12)


def test_a_rest_is_carried_into_the_next_epoch():
    """Batches of 5, 5 and 2 rows, four to a step: steps after the 4th and the 8th, and one left over."""
    net, rule = tanh_net(), optim.Accumulate(optim.SGD(lr=0.3), 4)
    moved, last = [], net.vector.copy()

    class Watch:
        def step(self, run):
            nonlocal last
            moved.append(not np.array_equal(run.net.vector, last))
            last = run.net.vector.copy()

    for _ in range(3):
        train(net, rule, batch_size=5, callbacks=Watch())
    assert moved == [False, False, False, True, False, False, False, True, False]
    assert (rule.t, rule.optimizer.t, rule.scalars["calls"]) == (9, 2, 1)


def test_schedules_within_accumulate_count_steps():
    asked = []
    rule = optim.Accumulate(optim.SGD(lr=lambda steps: asked.append(steps) or 0.1), 3)
    fed(rule, 9)
    assert sorted(set(asked)) == [0, 1, 2]


class Masks(layers.Layer):
    """Notes which inputs are zero, of every forward pass."""

    def __init__(self, name=None):
        super().__init__(name)
        self.seen = []

    def forward(self, x, training):
        self.seen.append((x == 0).tobytes())
        return x

    def backward(self, grad):
        return grad


@pytest.mark.parametrize("make", [lambda: optim.SAM(optim.SGD(lr=0.3)), lambda: optim.LBFGS(steps=4)])
def test_the_same_draws_in_every_evaluation_of_a_step(make):
    masks = Masks()
    members = [layers.Linear(6), layers.BatchNorm(), layers.Dropout(0.5), masks, layers.Linear(3)]
    net, rule, error = layers.Model(members, seed=0, dtype="float64").build((3,)), make(), loss.MSE()
    steps = []
    for _ in range(4):
        masks.seen.clear()
        error(net(X, training=True), Y)
        rule(net, error)
        assert len(masks.seen) >= 2
        assert len(set(masks.seen)) == 1
        steps.append(masks.seen[0])
    assert len(set(steps)) == 4


def state_beside(net):
    return [b.tobytes() for leaf in net.leaf_layers() for b in leaf.buffers.values()], str(
        net[3].rng.bit_generator.state
    )


@pytest.mark.parametrize(
    ("make", "epochs"),
    [
        (lambda: optim.SAM(optim.SGD(lr=0.0), rho=0.5), 3),
        (lambda: optim.Accumulate(optim.SAM(optim.SGD(lr=0.0)), 2), 3),
        (lambda: optim.LBFGS(steps=4), 1),
        (lambda: optim.Average(optim.LBFGS(steps=4, line_search=None), 0.5), 1),
    ],
)
def test_statistics_move_once_a_step_and_the_history_shows_the_first_value(make, epochs):
    """As beside an optimizer that evaluates once and moves nothing."""
    net, other = busy_net(), busy_net()
    history = train(net, make(), epochs=epochs, batch_size=12, metrics="mae")
    expected = train(other, optim.SGD(lr=0.0), epochs=epochs, batch_size=12, metrics="mae")
    assert history["loss"] == expected["loss"]
    assert history["mae"] == expected["mae"]
    assert state_beside(net) == state_beside(other) != state_beside(busy_net())


def test_sam_looks_from_where_it_is_worst(snapshot):
    """Two evaluations by hand, in float64."""
    net, other = tanh_net(dtype="float64"), tanh_net(dtype="float64")
    error, rule = loss.MSE(), optim.SAM(optim.SGD(lr=0.2), rho=0.4)
    error(net(X), Y)
    rule(net, error)
    error(other(X), Y)
    other.backpropagate(error)
    start, g = other.vector.copy(), other.gradient.copy()
    other.vector[...] += 0.4 * g / np.sqrt((g * g).sum())
    error(other(X), Y)
    other.backpropagate(error)
    np.testing.assert_allclose(net.vector, start - 0.2 * other.gradient, rtol=1e-13, atol=1e-15)


# Other optimizers for other parts -----------------------------------------------------------------------------------


def moved_by(net, rule):
    """For each parameter, the learning rate that it was moved by, all gradients 1."""
    net.gradient.fill(1.0)
    before = net.vector.copy()
    rule.update(net)
    off = before - net.vector
    return {p.names[0].removeprefix("layers."): round(float(off[p.span].mean()), 6) for p in net.layout.parameters}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["0", "*"], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]),
        (["first", "*"], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]),
        (["Linear", "*"], [0.1, 0.1, 0.2, 0.2, 0.1, 0.1]),
        (["*.b", "*.w"], [0.2, 0.1, 0.2, 0.1, 0.2, 0.1]),
        (["LayerNorm.*", "*"], [0.2, 0.2, 0.1, 0.1, 0.2, 0.2]),
        (["Linear.b", "1", "*"], [0.3, 0.1, 0.2, 0.2, 0.3, 0.1]),
        (["first.w", "*.b", "[12]*"], [0.1, 0.2, 0.3, 0.2, 0.3, 0.2]),
        (["2.0", "*"], [0.2, 0.2, 0.2, 0.2, 0.1, 0.1]),
        (["*"], [0.1] * 6),
    ],
)
def test_parameters_are_picked_by_number_name_class_and_their_own_name(patterns, expected):
    inner = layers.Residual([layers.Linear(4)])
    net = layers.Model([layers.Linear(4, name="first"), layers.LayerNorm(), inner], seed=0, dtype="float64")
    net.build((3,))
    rule = optim.PerLayer({p: optim.SGD(lr=0.1 * k) for k, p in enumerate(patterns, 1)})
    assert list(moved_by(net, rule).values()) == [round(lr, 6) for lr in expected]


def test_numbers_may_be_integers():
    net = tanh_net(dtype="float64")
    assert set(moved_by(net, optim.PerLayer({0: optim.SGD(lr=0.1), 2: optim.SGD(lr=0.2)})).values()) == {0.1, 0.2}


def test_none_leaves_them_as_they_are():
    net, expected = tanh_net(), tanh_net()
    rule = optim.PerLayer({"first": None, "*": optim.AdamW(lr=0.05, weight_decay=0.3)})
    first = net[0].w.tobytes(), net[0].b.tobytes()
    train(net, rule, epochs=3)
    expected[0].frozen = True
    train(expected, optim.AdamW(lr=0.05, weight_decay=0.3), epochs=3)
    assert (net[0].w.tobytes(), net[0].b.tobytes()) == first
    assert net.vector.tobytes() == expected.vector.tobytes()


def test_biases_without_decay():
    net, by_hand = tanh_net(dtype="float64"), tanh_net(dtype="float64")
    rule = optim.PerLayer({"*.b": optim.AdamW(weight_decay=0.0), "*": optim.AdamW(weight_decay=0.5)})
    train(net, rule, epochs=3, batch_size=12)
    w, b, error = optim.AdamW(weight_decay=0.5), optim.AdamW(weight_decay=0.0), loss.MSE()
    for _ in range(3):
        error(by_hand(X, training=True), Y)
        by_hand.backpropagate(error)
        w.step([by_hand[0].w, by_hand[2].w], [by_hand[0].w_gradient, by_hand[2].w_gradient])
        b.step([by_hand[0].b, by_hand[2].b], [by_hand[0].b_gradient, by_hand[2].b_gradient])
    np.testing.assert_allclose(net.vector, by_hand.vector, rtol=1e-11, atol=1e-13)


def test_parts_follow_a_layer_that_is_frozen_and_thawed():
    net = tanh_net()
    rule = optim.PerLayer({"*.b": optim.Adam(), "*": optim.Clip(optim.Adam(), norm=0.1)})
    for frozen in (False, True, False):
        net[0].frozen = frozen
        before = net[0].w.copy(), net[0].b.copy(), net[2].w.copy()
        train(net, rule)
        after = net[0].w, net[0].b, net[2].w
        assert [np.array_equal(*pair) for pair in zip(before, after, strict=True)] == [frozen, frozen, False]


def test_nothing_moves_where_one_part_is_refused(snapshot):
    net = tanh_net()
    members = {"*.w": optim.Adam(), "*.b": optim.Lookahead(optim.NAdam(lr=Scheduled([0.1, 0.1, np.nan])))}
    rule = optim.PerLayer(members)
    train(net, rule, batch_size=6)
    before = snapshot(net, rule)
    net.gradient.fill(1.0)
    with pytest.raises(ValueError, match="NAdam: lr"):
        rule.update(net)
    members["*.b"].lr = 0.1
    net[2].b_gradient = np.full(3, np.inf)
    with pytest.raises(FloatingPointError, match="not finite"):
        rule.update(net)
    assert {k: v for k, v in snapshot(net, rule).items() if k != "optimizer"} == {
        k: v for k, v in before.items() if k != "optimizer"
    }
    assert (rule.t, *(each.t for each in members.values())) == (2, 2, 2)
