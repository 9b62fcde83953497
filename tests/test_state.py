"""The state of the optimizers: stopping and going on, snapshots, what is refused, what a pickle carries."""

import copy
import functools
import pickle

import numpy as np
import pytest
from golden import Scheduled, X, Y, cases, fresh_net, step_by_hand

import layers
import loss
import optim

CASES = cases()


def nested():
    """Optimizers within optimizers, every kind of state among them, schedules at every level."""
    lr = Scheduled(np.geomspace(0.1, 0.01, 20))
    half = Scheduled(np.linspace(0.5, 0.9, 20))
    biases = {"*.b": optim.Lookahead(optim.NAdam(lr=lr), steps=2, alpha=half)}
    return {
        "clip lookahead": optim.Clip(optim.Lookahead(optim.Adam(lr=lr, beta1=half), steps=2), norm=half),
        "average accumulate clip": optim.Average(
            optim.Accumulate(optim.Clip(optim.NAdam(lr=lr), value=0.1), 2), decay=half
        ),
        "accumulate average": optim.Accumulate(optim.Average(optim.Muon(lr=lr), 0.5), 3),
        "lookahead dog": optim.Lookahead(optim.DoG(lr=half), steps=3),
        "parts": optim.PerLayer(biases | {"0": None, "*": optim.Clip(optim.Adafactor(lr=lr), norm=half)}),
        "clip parts": optim.Clip(optim.PerLayer({"0": optim.ASGD(lr=lr, t0=1), "*": optim.Prodigy(lr=half)}), norm=1.0),
        "average parts": optim.Average(optim.PerLayer({"*.w": optim.LAMB(lr=lr), "*": optim.SGD(lr=lr)}), half),
        "sam": optim.SAM(optim.Average(optim.SGD(lr=lr, momentum=half), 0.8), rho=half),
        "accumulate sam": optim.Accumulate(optim.SAM(optim.RMSProp(lr=lr)), 2),
        "free": optim.Accumulate(optim.ScheduleFreeAdamW(lr=lr), 2),
        "average lbfgs": optim.Average(optim.LBFGS(steps=2, lr=half), 0.5),
    }


MAKERS = {case.id: case.make for case in CASES} | {
    name: functools.partial(lambda name: nested()[name], name) for name in nested()
}


def loaded(rule, name):
    other = MAKERS[name]()
    other.load_state_dict(rule.state_dict())
    return other


ELSEWHERE = {
    "state_dict": lambda net, rule, name: (net, loaded(rule, name)),
    "pickle": lambda net, rule, name: pickle.loads(pickle.dumps((net, rule))),
    "deepcopy": lambda net, rule, name: copy.deepcopy((net, rule)),
    "a copy of the net": lambda net, rule, name: (net.copy(), loaded(rule, name)),
}


@functools.cache
def unstopped(name):
    net, rule = fresh_net(), MAKERS[name]()
    step_by_hand(net, rule, 7)
    with rule.evaluation_weights(net):
        shown = net.vector.tobytes()
    return net.vector.tobytes(), shown


@pytest.mark.parametrize("how", ELSEWHERE)
@pytest.mark.parametrize("name", MAKERS)
def test_stopping_and_going_on_gives_the_same_bits(name, how):
    assert unstopped(name)[0] != fresh_net().vector.tobytes()
    for stop in (0, 1, 4):
        net, rule = fresh_net(), MAKERS[name]()
        step_by_hand(net, rule, stop)
        net, rule = ELSEWHERE[how](net, rule, name)
        step_by_hand(net, rule, 7 - stop, first=stop)
        with rule.evaluation_weights(net):
            shown = net.vector.tobytes()
        assert (net.vector.tobytes(), shown) == unstopped(name)


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "r") for name in MAKERS), ("clip lookahead", "c"), ("clip lookahead", "r+")]
)
def test_a_state_that_joblib_maps_from_a_file_goes_on(name, mode, tmp_path):
    """Read-only arrays are copied, and a step does not change the file."""
    joblib = pytest.importorskip("joblib")
    net, rule = fresh_net(), MAKERS[name]()
    step_by_hand(net, rule, 4)
    joblib.dump(rule, tmp_path / "rule")
    kept = (tmp_path / "rule").read_bytes()
    rule = joblib.load(tmp_path / "rule", mmap_mode=mode)
    before = rule.snapshot()
    step_by_hand(net.copy(), rule, 3, first=4)
    rule.reset()
    rule.restore(before)
    step_by_hand(net, rule, 3, first=4)
    assert net.vector.tobytes() == unstopped(name)[0]
    assert (tmp_path / "rule").read_bytes() == kept


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_of_another_instance_leaves_nothing_shared(name, snapshot):
    net, rule = fresh_net(), MAKERS[name]()
    step_by_hand(net, rule, 3)
    state = rule.state_dict()
    other = MAKERS[name]()
    other.load_state_dict(state)
    before = snapshot(None, rule)["optimizer"]
    step_by_hand(fresh_net(), other, 3)
    assert snapshot(None, rule)["optimizer"] == before
    step_by_hand(net, rule, 2)
    assert snapshot(None, loaded_from(state, name))["optimizer"] == before


def loaded_from(state, name):
    rule = MAKERS[name]()
    rule.load_state_dict(state)
    return rule


@pytest.mark.parametrize("name", MAKERS)
def test_back_to_a_snapshot(name):
    net, rule = fresh_net(), MAKERS[name]()
    never = rule.snapshot()
    step_by_hand(net, rule, 3)
    kept, weights = rule.snapshot(), net.vector.copy()
    ends = []
    for _ in range(2):
        rng = copy.deepcopy(net[2].rng)
        step_by_hand(net, rule, 4, first=3)
        ends.append(net.vector.tobytes())
        rule.restore(kept)
        net[2].rng, net.vector[...] = rng, weights
    assert ends[0] == ends[1] == unstopped(name)[0]
    rule.restore(never)
    net.vector[...] = fresh_net().vector
    net[2].rng = fresh_net()[2].rng
    step_by_hand(net, rule, 7)
    assert net.vector.tobytes() == unstopped(name)[0]


@pytest.mark.parametrize("name", MAKERS)
def test_reset_forgets_all(name):
    net, rule = fresh_net(), MAKERS[name]()
    step_by_hand(net, rule, 3)
    rule.reset()
    assert rule.t == 0
    net = fresh_net()
    step_by_hand(net, rule, 7)
    assert net.vector.tobytes() == unstopped(name)[0]


WRONG = {
    "of another rule": lambda: after(optim.Adam()).state_dict(),
    "of a rule with other state": lambda: after(optim.Momentum()).state_dict(),
    "of a rule with no state": lambda: after(optim.SGD()).state_dict(),
    "of a wrapper": lambda: after(optim.Average(optim.SGD(), 0.9)).state_dict(),
    "of parts": lambda: after(optim.PerLayer({"*": optim.SGD()})).state_dict(),
    "nothing": dict,
    "None": lambda: None,
    "a list": lambda: [1, 2],
}


def after(rule, net=None):
    """The rule, after two steps of a net."""
    step_by_hand(net or fresh_net(), rule, 2)
    return rule


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("used", [True, False], ids=["used", "new"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.RMSProp(centered=True),
        lambda: optim.SGD(momentum=0.5, nesterov=True),
        lambda: optim.Lookahead(optim.NAdam()),
        lambda: optim.Accumulate(optim.Lookahead(optim.Adagrad()), 2),
        lambda: optim.PerLayer({"0": optim.Adagrad(), "*": optim.Lookahead(optim.NAdam())}),
        lambda: optim.LBFGS(steps=2),
    ],
    ids=["RMSProp", "SGD", "Lookahead", "Accumulate", "PerLayer", "LBFGS"],
)
def test_a_wrong_state_is_refused_and_nothing_changes(make, used, wrong, snapshot):
    rule = after(make()) if used else make()
    before = snapshot(None, rule)
    with pytest.raises(ValueError, match="state"):
        rule.load_state_dict(WRONG[wrong]())
    assert snapshot(None, rule) == before


def test_a_state_for_other_parameters_is_refused():
    small = layers.Model([layers.Linear(3)], seed=0).build((3,))
    for name in ("Adam", "Muon", "Adafactor"):
        state = after(getattr(optim, name)(), small).state_dict()
        with pytest.raises(ValueError, match="state"):
            after(getattr(optim, name)()).load_state_dict(state)
        fresh = getattr(optim, name)()
        fresh.load_state_dict(state)
        net = fresh_net()
        before = net.vector.tobytes()
        with pytest.raises(ValueError, match="state"):
            step_by_hand(net, fresh, 1)
        assert net.vector.tobytes() == before


@pytest.mark.parametrize(("part", "wrong"), [("scalars", {"other": 1.0}), ("hyper", {"momentum": 0.5})])
def test_a_state_with_other_numbers_is_refused(part, wrong, snapshot):
    rule = after(optim.Adam())
    before, bad = snapshot(None, rule), rule.state_dict()
    bad[part] = bad[part] | wrong
    with pytest.raises(ValueError, match="hyper-parameters are"):
        rule.load_state_dict(bad)
    assert snapshot(None, rule) == before


LBFGS_WRONG = {  # what does not go together in a state of LBFGS
    "two of them": lambda state: state["state"].append({}),
    "arrays before the first iteration": lambda state: state["scalars"].update(iterations=0.0),
    "no arrays after some": lambda state: state.update(state=[{}]),
    "a part is missing": lambda state: state["state"][0].pop("y"),
    "a direction of another length": lambda state: state["state"][0].update(direction=np.ones(3)),
    "a gradient of another length": lambda state: state["state"][0].update(last_g=np.ones(3)),
    "fewer s than y": lambda state: state["state"][0].update(s=state["state"][0]["s"][:-1]),
    "a pair that curves upwards": lambda state: state["state"][0].update(s=-state["state"][0]["s"]),
    "a pair without curvature": lambda state: state["state"][0].update(s=0 * state["state"][0]["s"]),
}


@pytest.mark.parametrize("wrong", LBFGS_WRONG)
def test_a_state_of_lbfgs_that_does_not_go_together_is_refused(wrong, snapshot):
    rule = after(optim.LBFGS(steps=3))
    before, state = snapshot(None, rule), rule.state_dict()
    assert len(state["state"][0]["y"]) > 1
    LBFGS_WRONG[wrong](state)
    with pytest.raises(ValueError, match="do not go together"):
        rule.load_state_dict(state)
    assert snapshot(None, rule) == before


def test_a_snapshot_over_one_of_other_arrays_is_of_this_moment():
    rule, net = optim.Adam(), fresh_net()
    old = after(rule, net).snapshot()
    rule.load_state_dict(rule.state_dict())  # new arrays
    step_by_hand(net, rule, 1)
    expected = rule.state_dict()
    new = rule.snapshot(into=old)
    step_by_hand(net, rule, 2)
    rule.restore(new)
    assert rule.t == expected["t"]
    for found, each in zip(rule.state_dict()["state"], expected["state"], strict=True):
        for name, array in each.items():
            np.testing.assert_array_equal(found[name], array)


def test_hyper_parameters_come_with_a_state_and_schedules_stay():
    rule = optim.Adam(lr=0.5, beta1=0.25)
    schedule = Scheduled([0.1, 0.2])
    other = optim.Adam(lr=schedule)
    other.load_state_dict(after(rule).state_dict())
    assert (other.hyper["lr"], other.beta1, other.t) == (schedule, 0.25, 2)
    bad = rule.state_dict()
    bad["hyper"]["beta1"] = 2.0
    with pytest.raises(ValueError, match="Adam: beta1 is"):
        other.load_state_dict(bad)
    assert other.beta1 == 0.25


@pytest.mark.parametrize("name", [name for name in MAKERS if "-" not in name or name.endswith(("plain", "epsilon"))])
def test_a_pickle_carries_the_state_and_not_the_net(name):
    wide = layers.Model([layers.Linear(200), layers.Tanh(), layers.Linear(3)], seed=0).build((3,))
    rule = MAKERS[name]()
    error = loss.MSE()
    for _ in range(2):
        error(wide(X, training=True), Y)
        rule(wide, error)
    arrays = []

    def collect(state):
        for value in state.values() if isinstance(state, dict) else state if isinstance(state, list) else ():
            arrays.append(value.nbytes if isinstance(value, np.ndarray) else 0)
            collect(value)

    collect(rule.state_dict())
    assert len(pickle.dumps(rule)) < sum(arrays) + 6000  # a vector of the net's parameters: 5,612 bytes
