"""Every schedule equals its golden values, is pure, survives what is done to it, and serves any hyper-parameter."""

import copy
import importlib.util
import json
import math
import pickle
import sys
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise import schedules
from layerwise.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseTime,
    Join,
    Linear,
    MultiStep,
    Noam,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
    Warmup,
)

GOLDEN = np.load(Path(__file__).parent / "reference" / "schedules.npz")
ABOUT = json.loads(str(GOLDEN["about"]))

TABLE = [  # one of each, and of each way
    Constant(0.1),
    Step(0.1, 10),
    MultiStep(0.1, [5, 20], 0.5),
    Exponential(0.1, 0.9),
    InverseTime(0.1, 0.5, power=0.5),
    Polynomial(0.1, 0.01, 30, 2),
    Linear(0.0, 0.1, 30),
    Cosine(0.1, 0.0, 30),
    CosineRestarts(0.1, 0.0, 10, t_mult=2, m_mult=0.5),
    OneCycle(0.1, 30),
    OneCycle(0.1, 30, anneal_strategy="linear", three_phase=True),
    Cyclic(0.01, 0.1, 5),
    Cyclic(0.01, 0.1, 5, 3, "exp_range", 0.9),
    Warmup(Cosine(0.1, 0.0, 30), 10),
    Warmup(0.1, 10, initial=0.01),
    Noam(64, 10),
    Join([Linear(0.0, 0.1, 10), 0.1, Cosine(0.1, 0.0, 10)], [10, 20]),
]
every = pytest.mark.parametrize("schedule", TABLE, ids=repr)


def test_every_schedule_is_in_the_table_and_has_golden_values():
    public = set(schedules.__all__) - {"Schedule"}
    assert {type(schedule).__name__ for schedule in TABLE} == public
    assert {case["schedule"] for case in ABOUT["cases"]} == public


def made(description):
    if isinstance(description, dict):
        arguments = {name: made(value) for name, value in description["arguments"].items()}
        return getattr(schedules, description["schedule"])(**arguments)
    return [made(each) for each in description] if isinstance(description, list) else description


@pytest.mark.parametrize("case", ABOUT["cases"], ids=lambda case: case["id"])
def test_equals_the_reference(case):
    schedule, golden = made(case), GOLDEN[f"{case['id']}/values"]
    values = np.array([schedule(t) for t in range(len(golden))])
    assert case["library"] == "keras" or case["tolerance"] == 1e-12
    assert np.abs(values - golden).max() <= case["tolerance"] * np.abs(golden).max()


# What is left to ours: the end, and beyond it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        (Polynomial(0.3, 0.1, 7, 0.7), 0.1),
        (Linear(0.7, 0.1, 7), 0.1),
        (Cosine(0.3, 0.1, 7), 0.1),
        (OneCycle(0.3, 8, div_factor=10, final_div_factor=10), 0.3 / 10 / 10),
        (Warmup(Linear(0.3, 0.1, 5), 2), 0.1),
        (Warmup(0.3, 7), 0.3),
        (Join([0.3, Linear(0.3, 0.1, 4)], [3]), 0.1),
    ],
)
def test_the_end_is_exact_and_stays(schedule, last):
    assert schedule(6) != last
    assert [schedule(t) for t in (7, 8, 1000, 10**18)] == [last] * 4


def test_warm_up_meets_what_it_wraps():
    inner = Cosine(0.3, 0.0, 50)
    schedule = Warmup(inner, 10, initial=0.1)
    assert schedule(0) == 0.1
    assert [schedule(10 + t) for t in range(60)] == [inner(t) for t in range(60)]
    assert np.diff([schedule(t) for t in range(11)]) == pytest.approx(0.02)


def test_the_later_schedules_of_a_join_count_from_their_start():
    schedule = Join([Step(1.0, 2), Step(2.0, 2), Step(3.0, 2)], [3, 5])
    assert [schedule(t) for t in range(9)] == pytest.approx([1, 1, 0.1, 2, 2, 3, 3, 0.3, 0.3])


def test_restarts_of_any_length_stay_on_the_curve():
    assert CosineRestarts(1.0, 0.1, 1, t_mult=1 + 1e-9)(10**15) > 0.1  # at once, after 14 billion cycles
    nearly, plain = CosineRestarts(1.0, 0.1, 10, t_mult=1 + 1e-12), CosineRestarts(1.0, 0.1, 10)
    assert [nearly(t) for t in range(5, 500, 10)] == pytest.approx([plain(t) for t in range(5, 500, 10)], abs=1e-6)
    schedule = CosineRestarts(1.0, 0.0, 10, t_mult=1.1)
    values = [schedule(t) for t in range(2000)]
    assert max(values) == 1
    assert min(values) > 0
    rises = np.flatnonzero(np.diff(values) > 0)
    assert np.all(np.diff(rises) >= 10)


# Pure, and plain values -----------------------------------------------------------------------------------------


@every
def test_is_pure(schedule):
    steps = np.random.default_rng(0).permutation(60).tolist()
    fresh = copy.deepcopy(schedule)
    in_order = [fresh(t) for t in range(60)]
    assert [schedule(t) for t in steps] == [in_order[t] for t in steps]
    assert [schedule(t) for t in steps * 2] == [in_order[t] for t in steps * 2]


@every
def test_gives_python_floats(schedule):
    for step in (0, 7, np.int64(13), 10**6):
        value = schedule(step)
        assert type(value) is float
        assert math.isfinite(value)


@pytest.mark.parametrize("step", [-1, 0.5, 1.0, True, "1", None, np.array([1, 2]), float("nan")])
def test_a_step_is_an_integer(step):
    with pytest.raises(ValueError, match="step is an integer, 0 or more, got"):
        Linear(0.1, 0.0, 10)(step)


def test_numpy_arguments_become_pythons():
    schedule = Linear(np.float32(0.5), np.int64(0), np.int64(4))
    assert repr(schedule) == "Linear(initial=0.5, final=0.0, steps=4)"
    assert [type(value) for value in schedule.config().values()] == [float, float, int]


@every
def test_is_made_again_from_its_config_its_repr_and_its_pickle(schedule):
    copies = [
        type(schedule)(**schedule.config()),
        eval(repr(schedule), vars(schedules)),
        pickle.loads(pickle.dumps(schedule)),
        copy.copy(schedule),
        copy.deepcopy(schedule),
    ]
    for other in copies:
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert [other(t) for t in range(50)] == [schedule(t) for t in range(50)]


def test_nested_schedules_are_objects_of_the_config():
    config = Warmup(Join([0.1, Cosine(0.1, 0.0, 5)], [3]), 10).config()
    assert config == {"schedule": Join([0.1, Cosine(0.1, 0.0, 5)], [3]), "steps": 10, "initial": 0.0}
    assert config["schedule"].config() == {"schedules": (Constant(0.1), Cosine(0.1, 0.0, 5)), "boundaries": (3,)}


def test_two_are_equal_when_they_are_the_same():
    assert len({repr(schedule) for schedule in TABLE}) == len(set(TABLE)) == len(TABLE)
    assert Linear(1, 0, 10) == Linear(1.0, 0.0, 10)
    assert Linear(1, 0, 10) != Cosine(1, 0, 10)
    assert Join([Step(0.1, 3), 0.5], [4]) == Join((Step(0.1, 3), Constant(0.5)), (4,))


def test_a_schedule_is_not_changed_behind_an_optimizer():
    with pytest.raises(FrozenInstanceError):
        Linear(0.1, 0.0, 10).initial = 0.2


@dataclass(frozen=True)
class Sawtooth(Schedule):
    """One of one's own."""

    peak: float
    steps: int = 10

    def at(self, t):
        return self.peak * (1 - t % self.steps / self.steps)


def test_one_of_ones_own_is_four_lines():
    schedule = Sawtooth(2)
    assert [schedule(t) for t in (0, 5, 10)] == [2, 1, 2]
    assert schedule == Sawtooth(2.0, 10)
    assert repr(schedule) == "Sawtooth(peak=2.0, steps=10)"
    assert Warmup(schedule, 4)(2) == 1
    with pytest.raises(ValueError, match="Sawtooth: steps is a positive integer, got 0"):
        Sawtooth(2, 0)
    with pytest.raises(TypeError, match="write it"):
        Schedule()(0)


def test_any_callable_may_stand_within():
    assert [Warmup(lambda t: 5 + t, 2)(t) for t in range(4)] == [0, 2.5, 5, 6]
    assert [Join([np.sqrt, lambda t: t], [2])(t) for t in range(4)] == [0, 1, 0, 1]


# Arguments out of range -----------------------------------------------------------------------------------------

nan, inf = float("nan"), float("inf")
BAD = [  # how, and name, range and value as the message tells them
    *[
        (lambda v=v: Constant(v), "Constant: value", r"a number in \(-inf, inf\)", v)
        for v in (nan, inf, "1", None, True)
    ],
    (lambda: Step("a", 3), "Step: initial", "a number", "a"),
    *[(lambda v=v: Step(0.1, v), "Step: step_size", "a positive integer", v) for v in (0, -1, 2.0, True, None)],
    *[(lambda v=v: Step(0.1, 3, v), "Step: gamma", r"a number in \[0, inf\)", v) for v in (-0.1, inf, nan)],
    *[
        (lambda v=v: MultiStep(0.1, v), "MultiStep: milestones", "a list of positive integers that grow", v)
        for v in ([], [5, 3], [5, 5], 5, "12")
    ],
    (lambda: MultiStep(0.1, [5, 7.5]), "MultiStep: milestones", "a positive integer", 7.5),
    (lambda: Exponential(0.1, -1), "Exponential: gamma", r"a number in \[0, inf\)", -1),
    (lambda: Exponential(0.1, 0.9, 0), "Exponential: steps", "a positive integer", 0),
    (lambda: InverseTime(0.1, -0.5), "InverseTime: decay_rate", r"a number in \[0, inf\)", -0.5),
    (lambda: InverseTime(0.1, 0.5, power=0), "InverseTime: power", r"a number in \(0, inf\)", 0),
    (lambda: Polynomial(0.1, 0, 10, -1), "Polynomial: power", r"a number in \(0, inf\)", -1),
    (lambda: Polynomial(0.1, nan, 10), "Polynomial: final", "a number", nan),
    (lambda: Linear(0.1, 0.0, 0), "Linear: steps", "a positive integer", 0),
    (lambda: Linear(0.1, [0], 5), "Linear: final", "a number", [0]),
    (lambda: Cosine(inf, 0.0, 5), "Cosine: initial", "a number", inf),
    (lambda: CosineRestarts(0.1, 0, 5, 0.5), "CosineRestarts: t_mult", r"a number in \[1, inf\)", 0.5),
    (lambda: CosineRestarts(0.1, 0, 5, 1, -1), "CosineRestarts: m_mult", r"a number in \[0, inf\)", -1),
    *[(lambda v=v: OneCycle(0.1, 50, v), "OneCycle: pct_start", r"a number in \(0, 1\)", v) for v in (0, 1, -0.3, nan)],
    (lambda: OneCycle(0.1, 10, 0.1), "OneCycle: pct_start", r"above 1 / steps = 0\.1", 0.1),
    (lambda: OneCycle(0.1, 10, 0.6, three_phase=True), "OneCycle: pct_start", r"at most 0\.5", 0.6),
    (lambda: OneCycle(0.1, 50, div_factor=0), "OneCycle: div_factor", r"a number in \(0, inf\)", 0),
    (lambda: OneCycle(0.1, 50, final_div_factor=-1), "OneCycle: final_div_factor", r"a number in \(0, inf\)", -1),
    (lambda: OneCycle(0.1, 50, anneal_strategy="cosine"), "OneCycle: anneal_strategy", "'cos', 'linear'", "cosine"),
    (lambda: OneCycle(0.1, 50, three_phase=1), "OneCycle: three_phase", "True or False", 1),
    (lambda: Cyclic(0.1, 0.2, 0), "Cyclic: step_size_up", "a positive integer", 0),
    (lambda: Cyclic(0.1, 0.2, 5, 0), "Cyclic: step_size_down", "a positive integer", 0),
    (lambda: Cyclic(0.1, 0.2, 5, mode="exp"), "Cyclic: mode", "'triangular', 'triangular2', 'exp_range'", "exp"),
    *[
        (lambda v=v: Warmup(v, 5), "Warmup: schedule", "a schedule, a callable of the step, or a number", v)
        for v in (None, "Cosine", Cosine, True, [0.1])
    ],
    (lambda: Warmup(0.1, 0), "Warmup: steps", "a positive integer", 0),
    (lambda: Warmup(nan, 5), "Constant: value", "a number", nan),
    (lambda: Noam(0, 10), "Noam: d_model", "a positive integer", 0),
    (lambda: Noam(10, 0), "Noam: warmup_steps", "a positive integer", 0),
    (lambda: Noam(10, 10, 0), "Noam: factor", r"a number in \(0, inf\)", 0),
    *[(lambda v=v: Join(v, [5]), "Join: schedules", "a list of two or more", v) for v in ([0.1], 0.1, [])],
    (lambda: Join([0.1, None], [5]), "Join: schedules", "a schedule, a callable", None),
    (lambda: Join([0.1, 0.2], [5, 6]), "Join: boundaries", "one fewer than the 2 schedules", (5, 6)),
    (lambda: Join([0.1, 0.2, 0.3], [6, 5]), "Join: boundaries", "a list of positive integers that grow", [6, 5]),
    (lambda: Linear(0.1, 0.0, 5).plot(0), "Linear: steps", "a positive integer", 0),
]


@pytest.mark.parametrize(("make", "name", "legal", "value"), BAD)
def test_an_argument_out_of_range_is_refused(make, name, legal, value):
    with pytest.raises(ValueError, match=f"^{name} is .*{legal}.*, got ") as caught:
        make()
    assert str(caught.value).endswith(f"got {value!r}.")


def test_growth_beyond_a_float_is_named():
    with pytest.raises(OverflowError, match=r"Exponential\(.*at step 100000"):
        Exponential(0.1, 1.5)(100_000)


# As a hyper-parameter -------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(20, 3))
Y = X @ [[1.0], [-2.0], [0.5]]


def net():
    return layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(1)], seed=0)


def trained(rule, epochs=4):
    model = net()
    model.train(X, Y, optim=rule, loss=loss.MSE(), epochs=epochs, batch_size=5, verbose=False)
    return model.vector


USES = [
    (optim.SGD, {"lr": Cosine(0.1, 0.01, 12), "momentum": Linear(0.5, 0.9, 10), "weight_decay": Step(0.1, 5)}),
    (optim.Momentum, {"lr": OneCycle(0.1, 16), "beta": OneCycle(0.85, 16, 0.3, "cos", 0.85 / 0.95, 1.0)}),
    (optim.RMSProp, {"lr": Warmup(0.01, 5), "momentum": Cyclic(0.9, 0.8, 4), "weight_decay": Linear(0.1, 0.0, 9)}),
    (optim.Adam, {"lr": Noam(64, 4), "beta1": Linear(0.5, 0.9, 10), "weight_decay": Exponential(0.1, 0.9)}),
    (optim.AdamW, {"lr": InverseTime(0.1, 0.5), "weight_decay": Cosine(0.1, 0.0, 12)}),
    (optim.LARS, {"lr": Polynomial(1.0, 0.1, 12), "momentum": Join([0.5, 0.9], [6]), "weight_decay": Step(0.1, 3)}),
]
uses = pytest.mark.parametrize(("rule", "arguments"), USES, ids=lambda each: getattr(each, "__name__", ""))


@uses
def test_serves_lr_weight_decay_and_momentum(rule, arguments):
    """A schedule is the same as setting the number by hand before each step."""
    by_hand = rule(**{name: schedule(0) for name, schedule in arguments.items()})
    model, value = net(), loss.MSE()
    model.build((3,))
    scheduled, other = rule(**arguments), net()
    other.build((3,))
    for t in range(16):
        for name, schedule in arguments.items():
            setattr(by_hand, name, schedule(t))
            assert getattr(scheduled, name) == schedule(t)
        for optimizer, each in ((by_hand, model), (scheduled, other)):
            value(each(X, training=True), Y.astype(np.float32))
            optimizer(each, value)
        np.testing.assert_array_equal(model.vector, other.vector)


@uses
def test_an_optimizer_stops_and_goes_on_with_its_schedules(rule, arguments):
    whole = trained(rule(**arguments))
    model, first = net(), rule(**arguments)
    model.train(X, Y, optim=first, loss=loss.MSE(), epochs=1, batch_size=5, verbose=False)
    second = rule(**arguments)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    model.train(X, Y, optim=second, loss=loss.MSE(), epochs=3, batch_size=5, verbose=False)
    np.testing.assert_array_equal(model.vector, whole)
    assert second.hyper == arguments | {name: second.hyper[name] for name in second.hyper.keys() - arguments.keys()}


@uses
def test_an_optimizer_with_schedules_is_copied_and_pickled(rule, arguments):
    original = rule(**arguments)
    for other in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert other.hyper == original.hyper
        np.testing.assert_array_equal(trained(other), trained(rule(**arguments)))


def test_an_illegal_value_is_refused_before_anything_moves(snapshot):
    model = net()
    model.build((3,))
    rule = optim.SGD(lr=Linear(0.1, -0.1, 4))
    value = loss.MSE()
    for _ in range(3):
        value(model(X, training=True), Y.astype(np.float32))
        rule(model, value)
    before = snapshot(model, rule)
    value(model(X, training=True), Y.astype(np.float32))
    with pytest.raises(ValueError, match=r"SGD: lr is a number in \[0, inf\), got -0\.0"):
        rule(model, value)
    assert snapshot(model, rule) == before


# The picture, and the house -------------------------------------------------------------------------------------


@every
def test_a_plot_shows_the_values(schedule, tmp_path):
    figure = schedule.plot(40)
    (axes,) = figure.axes
    (line,) = axes.lines
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("steps taken", "value")
    assert line.get_xdata().tolist() == list(range(40))
    assert line.get_ydata().tolist() == [schedule(t) for t in range(40)]
    path = tmp_path / "schedule.png"
    figure.savefig(path)
    assert path.stat().st_size > 5_000
    assert "matplotlib.pyplot" not in sys.modules


def test_a_plot_without_matplotlib_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "layerwise\[demo\]"'):
        Linear(0.1, 0.0, 10).plot(10)


def test_the_file_stands_by_itself(python):
    """It knows none of the four, and imports nothing heavy before a plot is asked for."""
    assert importlib.util.find_spec("layerwise.schedules").origin == schedules.__file__
    script = """
import importlib.util, sys

spec = importlib.util.spec_from_file_location("alone", sys.argv[1])
alone = sys.modules["alone"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)
print(alone.Linear(0.0, 1.0, 4)(2), {"layers", "loss", "optim", "model", "matplotlib"} & set(sys.modules))
"""
    done = python(script, schedules.__file__)
    assert (done.stdout, done.stderr) == ("0.5 set()\n", "")
