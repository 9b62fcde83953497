"""The evaluation weights of those optimizers that show others than they train, in a training and by hand."""

import contextlib
import copy
import pickle

import numpy as np
import pytest
from golden import Scheduled, give, held

import layers
import loss
import model
import optim
from layerwise.callbacks import Checkpoint

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 12, 3))
STREAM = [[RNG.standard_normal(shape) for shape in ((2, 3), (4,))] for _ in range(12)]
START = [np.random.default_rng(1).standard_normal(shape) for shape in ((2, 3), (4,))]


def tanh_net(seed=0, dtype="float32", **options):
    members = [layers.Linear(4, name="first"), layers.Tanh(), layers.Linear(3)]
    return layers.Model(members, seed=seed, dtype=dtype, **options).build((3,))


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


SHOWING = {
    "ASGD": lambda: optim.ASGD(lr=0.1, t0=2),
    "ScheduleFreeSGD": lambda: optim.ScheduleFreeSGD(lr=0.5),
    "ScheduleFreeAdamW": lambda: optim.ScheduleFreeAdamW(lr=0.05),
    "Average": lambda: optim.Average(optim.Adam(lr=0.05), 0.8),
    "Lookahead": lambda: optim.Lookahead(optim.SGD(lr=0.2, momentum=0.8), steps=4),
    "Clip Average": lambda: optim.Clip(optim.Average(optim.SGD(lr=0.3), 0.7), norm=1.0),
    "Average Accumulate": lambda: optim.Average(optim.Accumulate(optim.SGD(lr=0.3), 2), 0.7),
    "Average SAM": lambda: optim.Average(optim.SAM(optim.SGD(lr=0.3)), 0.7),
    "PerLayer": lambda: optim.PerLayer({"0": optim.ASGD(lr=0.2, t0=1), "*": optim.Average(optim.Adam(lr=0.05), 0.8)}),
    "PerLayer, one of two": lambda: optim.PerLayer({"0": optim.SGD(lr=0.2), "*": optim.Lookahead(optim.Adam(lr=0.05))}),
    # Three calls an epoch: after 2, 3, 4 and 6 of them there is a rest.
    "Accumulate": lambda: optim.Accumulate(optim.Adam(lr=0.05), 5),
    "Accumulate that has not updated": lambda: optim.Accumulate(optim.SGD(lr=0.3), 100),
    "Clip Accumulate": lambda: optim.Clip(optim.Accumulate(optim.SGD(lr=0.3, momentum=0.9), 5), norm=0.1),
    "Accumulate Average": lambda: optim.Accumulate(optim.Average(optim.Adam(lr=0.05), 0.8), 5),
    "Lookahead Accumulate": lambda: optim.Lookahead(optim.Accumulate(optim.Muon(lr=0.05), 5), steps=2),
    "PerLayer Accumulate": lambda: optim.PerLayer({"0": optim.Accumulate(optim.SGD(lr=0.2), 5), "*": optim.Adam(0.05)}),
}  # fmt: skip


@pytest.fixture(params=SHOWING)
def showing(request):
    return SHOWING[request.param]


def shown_by(rule, net):
    with rule.evaluation_weights(net):
        return net.vector.copy()


def test_they_are_not_the_training_weights_and_are_put_back(showing):
    net, rule = tanh_net(), showing()
    train(net, rule, epochs=2)
    rule.prepare(net)
    trained = net.vector.tobytes()
    assert shown_by(rule, net).tobytes() != trained
    assert net.vector.tobytes() == trained
    with contextlib.suppress(ZeroDivisionError), rule.evaluation_weights(net):
        raise ZeroDivisionError
    assert net.vector.tobytes() == trained


def test_validation_sees_them_and_the_training_goes_on_as_without(showing):
    net, other, rule, bare = tanh_net(), tanh_net(), showing(), showing()
    trained, shown = [], []

    def note(net, logs):
        trained.append(net.vector.tobytes())
        with rule.evaluation_weights(net):
            shown.append(net.evaluate(X[:5], Y[:5], loss=loss.MSE())["loss"])

    history = train(net, rule, epochs=4, validation=(X[:5], Y[:5]), callbacks=note)
    assert history["val_loss"] == shown
    expected = []
    train(other, bare, epochs=4, callbacks=lambda net, logs: expected.append(net.vector.tobytes()))
    assert trained == expected
    assert net.evaluate(X[:5], Y[:5], loss=loss.MSE())["loss"] == shown[-1]


def test_training_twice_is_training_once_for_as_long(showing):
    once, twice, rules = tanh_net(), tanh_net(), [showing(), showing()]
    train(once, rules[0], epochs=6)
    train(twice, rules[1], epochs=3)
    shown = twice.vector.copy()
    assert shown_by(rules[1], twice).tobytes() == shown.tobytes()  # they are shown already
    rules[1].finish(twice)  # nothing more to do
    assert twice.vector.tobytes() == shown.tobytes()
    train(twice, rules[1], epochs=3)
    assert once.vector.tobytes() == twice.vector.tobytes()
    for net, rule in zip((once, twice), rules, strict=True):
        rule.prepare(net)
        rule.prepare(net)
    assert once.vector.tobytes() == twice.vector.tobytes() != shown.tobytes()


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_made_in_between_goes_on_as_well(showing, carry):
    once, net, rule = tanh_net(), tanh_net(), showing()
    train(once, showing(), epochs=6)
    train(net, rule, epochs=3)
    net, rule = carry((net, rule))
    train(net, rule, epochs=3)
    assert net.vector.tobytes() == once.vector.tobytes()


def test_a_state_loaded_in_between_goes_on_as_well(showing):
    once, net, rule, fresh = tanh_net(), tanh_net(), showing(), showing()
    train(once, showing(), epochs=6)
    train(net, rule, epochs=3)
    fresh.load_state_dict(rule.state_dict())
    train(net, fresh, epochs=3)
    assert net.vector.tobytes() == once.vector.tobytes()


def test_weights_that_the_user_changed_in_between_are_left_alone(showing):
    net, rule = tanh_net(), showing()
    train(net, rule, epochs=3)
    mine = np.linspace(-1, 1, net.parameter_count, dtype=np.float32)
    net.vector[...] = mine
    rule.prepare(net)
    assert net.vector.tobytes() == mine.tobytes()
    history = train(net, rule, epochs=3)
    assert np.isfinite(history["loss"]).all()


def test_another_optimizer_goes_on_from_what_is_shown(showing):
    net, rule = tanh_net(), showing()
    train(net, rule, epochs=3)
    copied = net.copy()
    train(net, optim.SGD(lr=0.1), epochs=2)
    train(copied, optim.SGD(lr=0.1), epochs=2)
    assert net.vector.tobytes() == copied.vector.tobytes()
    trained = net.vector.tobytes()
    rule.prepare(net)
    assert net.vector.tobytes() == trained


def test_a_frozen_layer_shows_as_it_is(showing):
    net, rule = tanh_net(), showing()
    net[0].frozen = True
    first = net[0].w.tobytes(), net[0].b.tobytes()
    train(net, rule, epochs=3, validation=0.25)
    assert (net[0].w.tobytes(), net[0].b.tobytes()) == first


@pytest.mark.parametrize("make", [optim.Adam, optim.LBFGS, lambda: optim.Clip(optim.SGD(), norm=1.0)])
def test_rules_without_show_what_they_train(make):
    net, rule = tanh_net(), make()
    train(net, rule, epochs=2)
    trained = net.vector.tobytes()
    assert shown_by(rule, net).tobytes() == trained
    rule.prepare(net)
    assert net.vector.tobytes() == trained
    assert rule.state_dict()["training_weights"] is None


def test_before_the_first_step_the_weights_are_shown(showing):
    net, rule = tanh_net(), showing()
    before = net.vector.tobytes()
    assert shown_by(rule, net).tobytes() == before
    rule.finish(net)
    assert net.vector.tobytes() == before


def test_schedule_free_shows_the_average_of_z_whatever_the_schedule_of_beta():
    """x of the paper, a running mean of the points that plain gradient descent visits; it does not depend on beta."""
    betas = [0.9, 0.5, 0.8, 0.3, 0.6, 0.7]
    net, rule = held(START), optim.ScheduleFreeSGD(lr=0.5, beta=Scheduled(betas))
    visited = []
    for t, gradients in enumerate(STREAM[:6], 1):
        give(net, gradients)
        rule.update(net)
        last = visited[-1] if visited else START
        visited.append([w - 0.5 * g for w, g in zip(last, gradients, strict=True)])
        with rule.evaluation_weights(net):
            for k, layer in enumerate(net.layers):
                np.testing.assert_allclose(layer.w, np.mean([each[k] for each in visited[:t]], 0), rtol=1e-12)


@pytest.mark.parametrize("name", ["ASGD", "Average", "Lookahead", "ScheduleFreeSGD"])
def test_a_schedule_may_end_in_zero(name):
    """Nothing moves any more, and what is shown is a mean of what was."""
    rule = {
        "ASGD": lambda lr: optim.ASGD(lr=lr, t0=0),
        "Average": lambda lr: optim.Average(optim.SGD(lr=lr), 0.5),
        "Lookahead": lambda lr: optim.Lookahead(optim.SGD(lr=lr), steps=2),
        "ScheduleFreeSGD": lambda lr: optim.ScheduleFreeSGD(lr=lr),
    }[name](Scheduled([0.5, 0.1, 0.0]))
    path = fed(rule)
    assert all(np.isfinite(w).all() for w in path[-1])
    if name in ("ASGD", "Average"):
        assert same(path[1:2], path[-1:])


# The rest of an Accumulate -----------------------------------------------------------------------------------

RESTS = {
    "bare": lambda inner: inner(optim.Adam(lr=0.1, weight_decay=0.1)),
    "Clip": lambda inner: inner(optim.Clip(optim.SGD(lr=0.3, momentum=0.9), norm=0.5)),
    "Average": lambda inner: optim.Average(inner(optim.SGD(lr=0.3)), 0.7),
    "of an Average": lambda inner: inner(optim.Average(optim.SGD(lr=lambda t: 0.3 / (t + 1)), 0.7)),
    "Lookahead": lambda inner: optim.Lookahead(inner(optim.Muon(lr=0.1)), steps=3),
    "SAM": lambda inner: inner(optim.SAM(optim.RMSProp(lr=0.1))),
    "schedule-free": lambda inner: inner(optim.ScheduleFreeAdamW(lr=0.1)),
    "Accumulate": lambda inner: optim.Accumulate(inner(optim.SGD(lr=0.3)), 1),
}


@pytest.mark.parametrize("name", RESTS)
def test_a_rest_is_one_step_with_the_mean_of_its_gradients(name, snapshot):
    """Eight gradients, three to a step, are three gradients: the means of three, three and two."""
    net, rule = held(START), RESTS[name](lambda rule: optim.Accumulate(rule, 3))
    for gradients in STREAM[:8]:
        give(net, gradients)
        rule.update(net)
    trained, state = [layer.w.tobytes() for layer in net.layers], snapshot(None, rule)
    gradients = [layer.w_gradient.tobytes() for layer in net.layers]
    rule.finish(net)
    shown = [[layer.w.copy() for layer in net.layers]]
    assert [layer.w_gradient.tobytes() for layer in net.layers] == gradients

    other, bare = held(START), RESTS[name](lambda rule: rule)
    for some in (STREAM[:3], STREAM[3:6], STREAM[6:8]):
        give(other, [np.mean(each, axis=0) for each in zip(*some, strict=True)])
        bare.update(other)
    bare.finish(other)
    close(shown, [[layer.w for layer in other.layers]])

    rule.prepare(net)
    assert [layer.w.tobytes() for layer in net.layers] == trained
    assert snapshot(None, rule) == state


def test_the_rest_of_one_layer_leaves_the_others_alone():
    net, rule = held(START), optim.PerLayer({"0": optim.Accumulate(optim.SGD(lr=0.3), 3), "*": optim.SGD(lr=0.3)})
    for gradients in STREAM[:2]:
        give(net, gradients)
        rule.update(net)
    rule.finish(net)
    first, second = ((start - 0.3 * (a + b) / n) for start, a, b, n in zip(START, *STREAM[:2], (2, 1), strict=True))
    close([[layer.w for layer in net.layers]], [[first, second]])


def test_a_rest_is_in_the_history_and_in_the_files_as_in_the_net(tmp_path):
    net, rule, path = tanh_net(), optim.Accumulate(optim.SGD(lr=0.3), 4), tmp_path / "net.npz"
    history = train(net, rule, epochs=2, validation=(X[:5], Y[:5]), callbacks=Checkpoint(path))
    assert rule.scalars["calls"] == 2
    assert net.evaluate(X[:5], Y[:5])["loss"] == history["val_loss"][-1]
    np.testing.assert_array_equal(model.load(path).predict(X), net.predict(X))
    repeated, once = tanh_net(seed=5), tanh_net()
    train(repeated, optim.Accumulate(optim.SGD(lr=0.3), 4), epochs=5, validation=(X[:5], Y[:5]), resume=path,
          callbacks=Checkpoint(path))  # fmt: skip
    train(once, optim.Accumulate(optim.SGD(lr=0.3), 4), epochs=5)
    np.testing.assert_array_equal(repeated.vector, once.vector)
