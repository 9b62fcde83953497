"""Hyper-parameters of the optimizers: what is refused, and schedules for any of them."""

import inspect
import math
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden import COMPOSITE, NAMES, Scheduled, cases, give, held, rules_within

import optim

ROOT = Path(__file__).resolve().parent.parent
STREAMED = [case for case in cases() if case.kind is None]
NAN, INF = math.nan, math.inf


def by_id(case):
    return case.id


def walk(rule, case, steps=6, before=lambda t: None):
    """The parameters and the evaluation weights after some steps of a stream, as bytes."""
    net = held(case.start)
    for t, gradients in enumerate(case.gradients()[:steps]):
        before(t)
        give(net, gradients)
        rule.update(net)
    trained = net.vector.tobytes()
    with rule.evaluation_weights(net):
        return trained, net.vector.tobytes()


# Bad hyper-parameters -------------------------------------------------------------------------------------------

# Name -> the range as a message gives it, values just outside it, and values just inside.
RANGE = {
    **dict.fromkeys(
        ["lr", "max_lr", "epsilon", "weight_decay", "lr_decay", "initial_accumulator", "momentum_decay", "epsilon_root",
         "epsilon1", "epsilon2", "lambd", "t0", "trust_coefficient", "tolerance_gradient", "tolerance_change",
         "SAM.rho", "ASGD.alpha"],
        ("[0, inf)", [-1e-9], [0, 1e9]),
    ),
    **dict.fromkeys(
        ["beta", "beta1", "beta2", "rho", "momentum", "decay"], ("[0, 1)", [-1e-9, 1, 1.5], [0, 1 - 1e-9])
    ),
    **dict.fromkeys(["ScheduleFreeSGD.beta", "ScheduleFreeAdamW.beta1"], ("(0, 1)", [0, 1], [1e-9, 1 - 1e-9])),
    **dict.fromkeys(["dampening", "alpha"], ("[0, 1]", [-1e-9, 1 + 1e-9], [0, 1])),
    **dict.fromkeys(
        ["norm", "value", "initial_distance", "step_min", "step_max"], ("(0, inf)", [0, -1.0], [1e-30, 1e30])
    ),
    "eta_minus": ("(0, 1)", [0, 1], [1e-9, 1 - 1e-9]),
    "eta_plus": ("(1, inf)", [1, 0.5], [1 + 1e-9, 9]),
    "beta2_decay": ("(-inf, 0]", [1e-9], [-1e9, 0]),
    "clip_threshold": ("[1, inf)", [1 - 1e-9], [1, 1e9]),
    "minimum": ("(-inf, inf)", [], [-1e9, 1e9]),
    **dict.fromkeys(["steps", "history"], ("a positive integer", [0, -1, 1.0, 2.5], [1, 1000])),
    **dict.fromkeys(
        ["nesterov", "amsgrad", "centered", "epsilon_inside"], ("True or False", [0, 1, 0.5], [True, False])
    ),
}  # fmt: skip
MAY_BE_NONE = ("epsilon1", "norm", "value")
NEEDED = {"Clip": {"norm": 1.0}, "Accumulate": {"steps": 2}, "Average": {"decay": 0.9}}


def made(name, **arguments):
    """A rule of that name; a wrapper goes around SGD."""
    kind = getattr(optim, name)
    inner = (optim.SGD(),) if issubclass(kind, optim.Wrapper) else ()
    return kind(*inner, **NEEDED.get(name, {}) | arguments)


ARGUMENTS = [
    (name, argument)
    for name in NAMES
    if name not in COMPOSITE
    for argument in inspect.signature(getattr(optim, name)).parameters
    if argument not in ("optimizer", "line_search")
]


def legal(name, argument):
    told = RANGE.get(f"{name}.{argument}") or RANGE.get(argument)
    assert told, f"give {argument!r} a row in RANGE: its range, values outside, values inside"
    return told


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_a_bad_hyper_parameter_is_refused(name, argument):
    """Given, set, or scheduled: the message has the class, the name, the value and the legal range."""
    told, outside, _ = legal(name, argument)
    bad = [*outside, NAN, "0.1", [0.1], np.eye(2), 1j]
    bad += [INF, -INF] if "inf" not in told or told.startswith(("[", "(")) else []
    bad += [True] if told != "True or False" else []
    bad += [None] if argument not in MAY_BE_NONE else []
    rule = made(name)
    before = rule.hyper[argument]
    for value in bad:
        expected = rf"^{name}: {argument} is .*{re.escape(told)}, got {re.escape(repr(value))}"
        with pytest.raises(ValueError, match=expected):
            made(name, **{argument: value})
        with pytest.raises(ValueError, match=expected):
            setattr(rule, argument, value)
        assert rule.hyper[argument] is before


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_the_bounds_that_belong_to_a_range_are_taken(name, argument):
    for value in legal(name, argument)[2]:
        assert getattr(made(name, **{argument: value}), argument) == value
    if argument in MAY_BE_NONE and name != "Clip":
        assert getattr(made(name, **{argument: None}), argument) is None


def test_every_class_refuses_an_unknown_keyword():
    for name in NAMES:
        first = {"PerLayer": ({"*": optim.SGD()},)}.get(name, ())
        with pytest.raises(TypeError, match="learning_rate"):
            getattr(optim, name)(*first, learning_rate=0.1)


def test_line_search_is_one_of_two():
    for value in ("wolfe", True, 1):
        with pytest.raises(ValueError, match=f'LBFGS: line_search is "strong_wolfe" or None, got {value!r}'):
            optim.LBFGS(line_search=value)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.array])
def test_numbers_of_numpy_become_pythons(kind):
    """Else float32 arrays would become float64."""
    rule = optim.Adam(lr=kind(0.25), amsgrad=np.True_)
    rule.beta1 = kind(0.5)
    assert [type(rule.lr), type(rule.beta1), type(rule.amsgrad)] == [float, float, bool]
    assert optim.LBFGS(steps=np.int64(3)).steps == 3


def test_an_attribute_that_there_is_not_is_said_to_be_missing():
    with pytest.raises(AttributeError, match="SGD has no 'beta1'; it has lr, momentum"):
        optim.SGD().beta1  # noqa: B018
    with pytest.raises(AttributeError, match="SGD has no 'beta1'"):
        optim.Clip(optim.SGD(), norm=1.0).beta1  # noqa: B018


# Schedules --------------------------------------------------------------------------------------------------------


def numbers_of(case):
    """The hyper-parameters of a case that are given as numbers."""
    given = case.about["arguments"].items()
    return {n: v for n, v in given if type(v) is float and n not in case.schedules}


def test_a_schedule_is_asked_for_the_steps_taken_so_far():
    asked = []

    def lr(steps):
        asked.append(steps)
        return 0.5**steps

    w, rule = [np.zeros(1)], optim.SGD(lr=lr)
    assert rule.lr == 1.0
    for steps in range(4):
        asked.clear()
        rule.step(w, [np.ones(1)])
        assert set(asked) == {steps}
    assert w[0] == -(1 + 0.5 + 0.25 + 0.125)
    assert rule.lr == 0.5**4
    rule.reset()
    assert rule.lr == 1.0


@pytest.mark.parametrize("case", STREAMED, ids=by_id)
def test_any_hyper_parameter_may_be_a_schedule(case):
    """One that stays is the number; one that changes is the number set before each step."""
    given = numbers_of(case)
    fixed = walk(case.make(), case)
    assert walk(case.make(**{name: Scheduled([value]) for name, value in given.items()}), case) == fixed
    changing = {name: [value, value * 0.9, value, value * 0.8] for name, value in given.items()}
    if case.name == "Rprop":
        changing = {"step_max": [0.05, 0.04, 0.03]}
    scheduled, rule = case.make(**{name: Scheduled(values) for name, values in changing.items()}), case.make()

    def set_all(t):
        for name, values in changing.items():
            setattr(rule, name, values[min(t, len(values) - 1)])

    changed = walk(scheduled, case)
    assert changed == walk(rule, case, before=set_all)
    assert (changed != fixed) == bool(changing)
    for name, values in changing.items():
        assert getattr(scheduled, name) == values[-1]


@pytest.mark.parametrize("case", STREAMED, ids=by_id)
def test_an_illegal_number_of_a_schedule_is_refused_before_anything_moves(case, snapshot):
    for name, value in numbers_of(case).items():
        for bad in (NAN, -2.0 if name != "beta2_decay" else 2.0):
            rule = case.make(**{name: Scheduled([value, value, bad])})
            net = held(case.start)
            for gradients in case.gradients()[:2]:
                give(net, gradients)
                rule.update(net)
            before = snapshot(net), [snapshot(None, each) for each in rules_within(rule)]
            with pytest.raises(ValueError, match=f"{name} is .*got {bad}"):
                rule.update(net)
            assert (snapshot(net), [snapshot(None, each) for each in rules_within(rule)]) == before


@pytest.mark.parametrize(
    "around",
    [
        lambda rule: optim.Clip(rule, norm=1.0),
        lambda rule: optim.Accumulate(rule, 3),
        lambda rule: optim.Average(rule, 0.9),
        lambda rule: optim.Lookahead(rule),
        lambda rule: optim.Accumulate(optim.Clip(rule, value=1.0), 2),
        lambda rule: optim.PerLayer({"0": optim.SGD(momentum=0.5), "*": rule}),
        lambda rule: optim.Average(optim.PerLayer({"0": optim.Adam(), "*": optim.Accumulate(rule, 2)}), 0.5),
    ],
    ids=["Clip", "Accumulate", "Average", "Lookahead", "Accumulate Clip", "PerLayer", "Average PerLayer Accumulate"],
)
def test_an_illegal_number_of_a_schedule_within_is_refused_before_anything_moves(around, snapshot):
    rule = around(optim.Adam(lr=Scheduled([0.1, NAN])))
    net = held([np.ones(2), np.ones(3)])
    give(net, [np.ones(2), np.ones(3)])
    refused = None
    while refused is None:
        before = snapshot(net, rule)
        try:
            rule.update(net)
        except ValueError as error:
            refused = str(error)
    assert re.match("Adam: lr is .*got nan", refused)
    assert snapshot(net, rule) == before
    assert net[0].w[0] != 1.0  # there were steps before


def test_lr_is_read_and_set_through_wrappers():
    inner = optim.AdamW(lr=0.5, weight_decay=0.25)
    rule = optim.Clip(optim.Average(optim.Accumulate(inner, 1), 0.9), norm=3.0)
    assert (rule.lr, rule.weight_decay, rule.decay, rule.norm, rule.steps) == (0.5, 0.25, 0.9, 3.0, 1)
    rule.lr, rule.decay, rule.norm = 0.125, 0.5, 2.0
    assert (inner.lr, rule.optimizer.decay, rule.hyper["norm"]) == (0.125, 0.5, 2.0)
    rule.lr = Scheduled([1.0, 2.0])
    assert rule.lr == 1.0
    rule.step([np.zeros(2)], [np.ones(2)])
    assert rule.lr == 2.0
    with pytest.raises(ValueError, match=r"AdamW: lr is a number in \[0, inf\), got -1"):
        rule.lr = -1
    assert inner.lr == 2.0


@pytest.mark.parametrize("name", ["SGD", "RMSProp", "Adam", "AdamW"])
def test_what_decides_the_state_is_not_set_to_no_effect(name):
    """A momentum, amsgrad or centered that comes later has state from then on, or is refused: never ignored."""
    late = {"SGD": ("momentum", 0.9), "RMSProp": ("centered", True)}.get(name, ("amsgrad", True))
    w = [np.array([1.0, -2.0])]
    rule = getattr(optim, name)()
    rule.step(w, [np.array([3.0, 4.0])])
    with pytest.raises(ValueError, match=f"{name}: {late[0]} decides"):
        setattr(rule, *late)
    assert getattr(rule, late[0]) in (0, False)


@pytest.mark.parametrize("slip", ["beta_1", "Beta1", "weight_decy", "Lr", "epsilom"])
def test_a_slip_in_a_name_is_not_passed_over(slip):
    rule = optim.Adam()
    with pytest.raises(AttributeError, match=f"Adam has no '{slip}' to set; it has lr, beta1"):
        setattr(rule, slip, 0.5)
    assert not hasattr(rule, slip)
    rule.note = rule.beta1_at_last = "of one's own"


def test_a_rule_of_ones_own_calls_its_attributes_what_it_likes():
    class Mine(optim.Optimizer):
        def __init__(self, epsilon=1e-8):
            super().__init__(epsilon=epsilon)
            self.epsilon2 = 0.5

    assert Mine().epsilon2 == 0.5


def test_an_attribute_of_ones_own_may_have_a_usual_name():
    class Mine(optim.Optimizer):
        def __init__(self, lr=0.1):
            self.momentum = 0.9
            super().__init__(lr=lr)

    for _ in range(2):  # the second finds what the first has made of the class
        rule = Mine(0.5)
        assert (rule.momentum, rule.lr) == (0.9, 0.5)


def test_what_decides_the_state_is_not_switched_off_but_may_become_0():
    for rule, name in ((optim.RMSProp(centered=True), "centered"), (optim.Adam(amsgrad=True), "amsgrad")):
        with pytest.raises(ValueError, match=f"{name} decides which state is kept, and is True: make another"):
            setattr(rule, name, False)
        assert getattr(rule, name) is True
    rule = optim.SGD(momentum=0.9)
    rule.momentum = 0.0
    assert rule.momentum == 0


def test_a_hyper_parameter_goes_before_a_default_of_the_class():
    class Mine(optim.Optimizer):
        lr = 0.1

        def __init__(self, lr):
            super().__init__(lr=lr)

    rule = Mine(lr=0.5)
    assert rule.lr == 0.5
    rule.lr = lambda t: 0.25 + t
    assert rule.lr == 0.25


@pytest.mark.parametrize("name", ["step", "reset", "state", "rule", "numbers", "t"])
def test_a_hyper_parameter_is_not_called_as_a_method(name):
    with pytest.raises(ValueError, match=f"'{name}' means something else to every Optimizer"):
        optim.Optimizer(**{name: 1.0})


def test_hyper_parameters_are_read_after_a_pickle_in_another_process(tmp_path):
    (tmp_path / "rule.pickle").write_bytes(pickle.dumps(optim.Clip(optim.Adam(lr=0.25), norm=3.0)))
    code = (
        "import pickle, sys; rule = pickle.load(open(sys.argv[1], 'rb')); print(rule.lr, rule.norm, rule.optimizer.lr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "rule.pickle"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["0.25", "3.0", "0.25"]
