"""Comparing optimizers: planted unfairness is seen, and the table counts right."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from comparisons import same, short

import layers
import loss
import optim
from layerwise import problems
from layerwise.compare import (
    Comparison,
    compare,
    contest as compare_module,
    find_lr,
    log_grid,
    main,
    profile,
    results,
    run_group,
)
from layerwise.problems import Problem

ROOT = Path(__file__).resolve().parent.parent


# What is run ------------------------------------------------------------------------------------------------------


def test_the_grid():
    assert log_grid(1e-4, 1, per_decade=1) == (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    grid = log_grid(1e-4, 1)
    assert len(grid) == 17
    assert {1e-4, 1e-3, 0.01, 0.1, 1.0, 0.003162} <= set(grid)
    assert log_grid(0.02, 0.02) == (0.02,)
    for wrong in ((0, 1), (1, 0.1), (1, math.inf), (1, 10, 0), (1, 10, 2.5)):
        with pytest.raises(ValueError, match=r"a grid goes|per_decade"):
            log_grid(*wrong)


def test_a_run_is_what_train_does(monkeypatch):
    """Full batch: the loss of every epoch. In batches: the loss of every batch, in train's own order."""
    monkeypatch.setattr(compare_module, "stacks", lambda *_: False)  # nets in one stack round differently
    problem = problems.xor()
    curves, status, seconds = run_group(problem, optim.Adam, [0.1, 0.2], [3, 4, 5], 12)
    assert curves.shape == (2, 3, 13)
    assert status.shape == seconds.shape == (2, 3)
    assert (status == "max_steps").all()
    history = problem.net(4).train(
        problem.x, problem.y, optim.Adam(0.2), loss.MSE(), epochs=13, batch_size=4, verbose=False
    )
    assert curves[1, 1].tolist() == history["loss"]

    problem = problems.moons()
    curves, _, _ = run_group(problem, optim.Momentum, [0.1], [5], 20)
    seen = []

    class Look:
        def step(self, run):
            seen.append(run.loss.value)

    problem.net(5).train(
        problem.x, problem.y, optim.Momentum(0.1), loss.CrossEntropy(), epochs=3, callbacks=Look(), verbose=False
    )
    assert curves[0, 0].tolist() == seen[:21]


@pytest.mark.parametrize("name", ["xor", "moons"])
def test_a_stack_of_runs_is_those_runs(name, monkeypatch):
    """All rates and seeds as one net, or one net after the other: the same curves, one that diverges included."""
    problem = problems.named(name)
    make = problem.make_net

    def exact(seed):  # with dropout, in float64
        *body, linear, softmax = make(seed).copy().layers
        members = [layer.copy() for layer in (*body, layers.Dropout(0.2), linear, softmax)]
        return layers.Model(members, seed=seed, dtype="float64")

    problem.make_net = exact
    rates, seeds = [1e-3, 1e-2, 3e-2, 1e30], [3, 4, 5]
    for rule in (optim.SGD, optim.Momentum, optim.RMSProp, optim.Adam):
        assert compare_module.stacks(problem, rule, rates)
        stacked, status, _ = run_group(problem, rule, rates, seeds, 100)
        with monkeypatch.context() as patch:
            patch.setattr(compare_module, "stacks", lambda *_: False)
            single, expected, _ = run_group(problem, rule, rates, seeds, 100)
        np.testing.assert_allclose(stacked[:3], single[:3], rtol=1e-9)
        assert (status == expected).all()
        np.testing.assert_array_equal(np.isnan(stacked), np.isnan(single))


def test_a_run_on_a_surface_is_what_minimize_does():
    surface = problems.rosenbrock()
    for make in (optim.Adam, optim.LBFGS, lambda lr: optim.SAM(optim.SGD(lr))):
        curves, _, _ = run_group(surface, make, [1e-3], [7], 10)
        path = optim.minimize(surface, surface.start_of(7), make(1e-3), 10)
        np.testing.assert_array_equal(curves[0, 0], surface(path)[0])


@pytest.mark.parametrize("problem", ["xor", "moons", "quadratic", "noisy_quadratic"])
def test_all_have_the_same_starts_and_batches(problem):
    def idle(lr):
        return lambda net, loss: None

    # Steps too short to move anything: the curve shows starts, batches and noise alone.
    found = short({"SGD": lambda lr: optim.SGD(1e-30), "idle": idle}, problem, seeds=3, steps=30)
    curves = np.stack([found.curves["SGD"], found.curves["idle"]])
    assert (curves == curves[:1, :1]).all()
    assert len(set(curves[0, 0, :, 0])) == 3
    if problem in ("moons", "noisy_quadratic"):
        assert len(set(curves[0, 0, 0])) == 31


def test_what_diverges_ends_there_and_is_counted():
    found = short("sgd", "quadratic", lrs=(0.001, 1.0), seeds=3, steps=400)
    assert found.status["SGD"].tolist() == [["max_steps"] * 3, ["diverged"] * 3]
    curves = found.curves["SGD"][1]
    ends = np.isfinite(curves).sum(-1)
    assert ((ends > 2) & (ends < 100)).all()
    assert all(np.isnan(curve[end:]).all() for curve, end in zip(curves, ends, strict=True))
    assert found.finals("SGD")[1].tolist() == [math.inf] * 3
    row = found.table()[0]
    assert row["diverged"] == 0.5
    assert row["best_lr"] == 0.001
    assert "50%" in found.to_markdown()
    with_clip = short("sgd", "quadratic", lrs=(0.001, 1.0), seeds=3, steps=400, clip=1.0)
    assert (with_clip.status["SGD"] == "max_steps").all()


def test_a_net_that_diverges():
    found = short("sgd,adam", "linear_regression", lrs=(1e-3, 10.0), steps=60)
    assert (found.status["SGD"][1] == "diverged").all()
    assert (found.status["Adam"] != "diverged").all()


def test_a_rule_without_a_rate_is_run_once_a_seed():
    found = short({"SGD": optim.SGD, "DoG": optim.DoG, "own": lambda: optim.Prodigy()}, seeds=3)
    assert [found.curves[name].shape for name in found.optimizers] == [(2, 3, 9), (1, 3, 9), (1, 3, 9)]
    assert math.isnan(found.best_lr("DoG"))
    with pytest.raises(KeyError, match=r"'dog' was not compared; there are .*DoG"):
        found.best_lr("dog")
    assert found.edge("DoG") == ""
    assert found.good_window("own") is None
    assert not found.has_rate("own")
    assert "DoG" in found.to_markdown()


def test_default_settings_are_scored():
    found = short({"Adam": optim.Adam, "AdamW": optim.AdamW, "own": lambda lr: optim.Adam(lr)}, lrs=(0.01, 0.1))
    assert found.default_lr == {"Adam": 0.01, "AdamW": 0.001}
    assert np.array_equal(found.default_curves["Adam"], found.curves["Adam"][0])
    curves, _, _ = run_group(problems.xor(), optim.AdamW, [0.001], [0, 1], 8)
    assert np.array_equal(found.default_curves["AdamW"], curves[0])
    assert math.isnan(found.default_score("own"))


def test_the_memory_of_a_rule():
    found = short({"SGD": optim.SGD, "Adam": optim.Adam, "Clip": lambda lr: optim.Clip(optim.Momentum(lr), norm=1)})
    assert found.state_arrays == {"SGD": 0, "Adam": 2, "Clip": 1}


def test_an_own_loss_and_an_own_optimizer():
    class Squares:
        def __call__(self, pred, real):
            self.d = pred - real
            return float((self.d * self.d).mean())

        def backward(self):
            return 2 * self.d / self.d.size

    xor = problems.xor()
    own = Problem(xor.make_net, xor.x, xor.y, Squares())

    def descend(lr):
        def step(net, loss):
            net.backpropagate(loss)
            net.vector[...] -= lr * net.gradient

        return step

    a = short({"own": descend}, own)
    b = short({"own": optim.SGD}, xor)
    np.testing.assert_allclose(a.curves["own"], b.curves["own"], rtol=1e-4)
    assert math.isnan(a.state_arrays["own"])


# The grid grows for all ------------------------------------------------------------------------------------------


def test_a_narrow_grid_is_widened_for_all():
    found = compare("sgd,signsgd", "quadratic", lrs=(1e-5, 2e-5), seeds=2, steps=50, verbose=False)
    assert found.asked.tolist() == [1e-5, 2e-5]
    assert found.widened[0] == 0
    assert 2 < found.widened[1] <= 3  # within three decades, in steps of the grid
    assert found.lrs[0] == 1e-5
    assert all(len(found.curves[name]) == len(found.lrs) > 2 for name in found.optimizers)
    assert "widened above" in found.to_markdown()
    # Where it was widened, it reads as a grid that was asked for so wide.
    whole = compare("sgd,signsgd", "quadratic", found.lrs, 2, 50, verbose=False, widen=False)
    assert same(found, whole)


def test_a_grid_is_widened_until_the_best_lies_within():
    found = compare("sgd", "quadratic", lrs=log_grid(1e-4, 1e-3), seeds=2, steps=100, verbose=False)
    assert found.widened == (0.0, 2.0)
    assert found.edge("SGD") == ""
    assert found.best_lr("SGD") == pytest.approx(0.01, rel=1)
    below = compare("sgd", "quadratic", lrs=log_grid(1, 10, 1), seeds=2, steps=400, verbose=False)
    assert below.widened[0] == 3.0  # all diverged: lower rates may do
    assert below.best_lr("SGD") == 0.01


def test_the_edge_is_told_where_the_grid_stays():
    found = short("sgd", "quadratic", lrs=(1e-5, 1e-4), steps=50)
    assert found.widened == (0.0, 0.0)
    assert found.edge("SGD") == "high"
    assert "SGD: its best rate, 0.0001, is the highest of the grid" in found.to_markdown()
    one = short("sgd", "quadratic", lrs=[0.01], steps=50)
    assert one.edge("SGD") == "low"


# Who wins --------------------------------------------------------------------------------------------------------


def test_two_copies_of_one_optimizer_have_no_winner():
    found = short({"one": optim.Adam, "other": optim.Adam}, seeds=5, steps=40)
    assert found.winner is None
    assert found.ranks() == {"one": (1, 1, 1), "other": (1, 1, 1)}
    assert "No clear winner" in found.to_markdown()


def made(finals, lrs=(0.01, 0.1), steps=39, target=None, **rest):
    """A comparison by hand: `finals` name -> (R, S); every curve falls from 1 in a line to it."""
    finals = {name: np.array(each, float) for name, each in finals.items()}
    curves = {name: np.full((*each.shape, steps + 1), each[..., None]) for name, each in finals.items()}
    for each in curves.values():
        each[..., : steps // 2] = np.linspace(1, 0.5, steps // 2)
    return Comparison(
        problem="by hand",
        optimizers=tuple(finals),
        lrs=np.array(lrs),
        seeds=tuple(range(next(iter(finals.values())).shape[1])),
        steps=steps,
        target=target,
        curves=curves,
        status={name: results.endings(each, target, 1) for name, each in curves.items()},
        seconds={name: np.full(each.shape, 0.39) for name, each in finals.items()},
        **rest,
    )


def test_a_winner_is_told_where_the_seeds_agree():
    found = made({"a": [[1e-3, 2e-3, 3e-3, 4e-3, 5e-3]] * 2, "b": [[1e-2, 2e-2, 3e-2, 4e-2, 5e-2]] * 2})
    assert found.winner == "a"
    assert found.verdict == "a wins: it has the lowest loss in 100% of 1,000 resamples of the 5 seeds."
    assert found.ranks() == {"a": (1, 1, 1), "b": (2, 2, 2)}
    assert repr(found) == f"Comparison('by hand', a, b; 2 rates, 5 seeds, 39 steps: {found.verdict})"


def test_no_winner_where_the_seeds_disagree():
    found = made({"a": [[1e-3, 9e-2, 2e-3, 9e-2, 3e-3]] * 2, "b": [[4e-3, 4e-3, 4e-3, 4e-3, 4e-3]] * 2})
    assert found.scores("a")[0] < found.scores("b")[0]
    assert found.winner is None
    assert found.ranks() == {"a": (1, 1, 2), "b": (2, 1, 2)}
    assert found.ranks() == made({name: found.finals(name) for name in "ab"}).ranks()  # the same resamples


def test_seeds_are_paired():
    """Both vary more between seeds than they differ, but on each seed one is the better."""
    b = np.array([[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 3e-4, 3e-3, 3e-2, 0.3, 2e-3]])
    found = made({"a": 0.9 * b, "b": b}, lrs=[0.1])
    assert found.winner == "a"


def test_few_seeds_and_one_optimizer_have_no_winner():
    few = made({"a": [[1e-3] * 4] * 2, "b": [[1.0] * 4] * 2})
    assert few.winner is None
    assert few.verdict == "no clear winner: a has the lowest loss, but fewer than 5 seeds do not tell."
    assert made({"a": [[1e-3] * 9] * 2}).winner is None
    assert made({"a": [[1e-3, 1e-3]] * 2}).verdict == "one optimizer: nothing to compare."
    lost = made({"a": [[math.nan, math.nan]] * 2, "b": [[math.nan, math.nan]] * 2})
    assert lost.verdict == "no clear winner: every run diverged."
    assert lost.edge("a") == "low"
    assert "at every rate" in lost.to_markdown()


# The table, on curves with known answers ---------------------------------------------------------------------------


def test_the_numbers_of_the_table():
    nan = math.nan
    found = made(
        {
            "a": [[0.5, 0.4, 0.6, 0.5], [1e-3, 2e-3, 3e-3, 4e-3], [1e-2, 2e-2, 1e-2, 2e-2], [nan, nan, 3.0, nan]],
            "b": [[0.5] * 4, [0.2] * 4, [0.1] * 4, [nan] * 4],
        },
        lrs=(0.001, 0.01, 0.1, 1.0),
        target=2e-3,
        default_lr={"a": 0.001},
        default_curves={"a": np.full((4, 40), 0.7)},
        state_arrays={"a": 2.0, "b": 0.0},
    )
    a, b = found.table()
    expected = {
        "optimizer": "a",
        "rank": 1,
        "rank_low": 1,
        "rank_high": 1,
        "best_lr": 0.01,
        "edge": "",
        "final_loss": 2.5e-3,
        "final_loss_q1": 1.75e-3,
        "final_loss_q3": 3.25e-3,
        "steps_to_target": math.inf,  # half of the seeds reach it, so the median lies between 19 and never
        "reached": 0.5,
        "diverged": 3 / 16,
        "good_low": 0.01,
        "good_high": 0.1,
        "good_decades": 1.0,
        "default_lr": 0.001,
        "default_loss": 0.7,
        "state_arrays": 2.0,
    }
    assert a == pytest.approx(expected)
    assert (b["rank"], b["best_lr"], b["edge"], b["reached"]) == (2, 0.1, "", 0.0)
    assert (b["good_low"], b["good_high"]) == (0.001, 0.1)
    assert math.isnan(b["default_loss"])
    assert found.status["a"][1].tolist() == ["converged", "converged", "max_steps", "max_steps"]
    assert found.status["a"][3].tolist() == ["diverged", "diverged", "max_steps", "diverged"]
    assert found.steps_to_target("a")[1].tolist() == [19, 19, math.inf, math.inf]
    timed = found.timings()[0]
    assert timed["seconds_per_step"] == pytest.approx(0.01)
    assert timed["seconds"] == pytest.approx(16 * 0.39)


def test_the_final_loss_is_a_median():
    curve = np.r_[np.ones(95), 5.0, 1.0, 2.0, 9.0, 3.0]
    assert results.final_losses(curve, 1) == 3.0  # of the last twentieth, five
    assert results.final_losses(curve, 100) == 1.0  # of an epoch that long
    assert results.final_losses(np.r_[curve, math.nan], 1) == math.inf


def test_a_target_in_batches_is_read_from_an_epoch():
    lucky = np.r_[1.0, 0.0, 1.0, 1.0, 0.1, 0.1, 0.1]  # one easy batch does not count
    found = made({"a": [[0.0]]}, lrs=[0.1], steps=6, target=0.5, window=3)
    found.curves["a"] = lucky[None, None]
    assert found.steps_to_target("a")[0, 0] == 5
    found.window = 1
    assert found.steps_to_target("a")[0, 0] == 1


def test_of_equal_rates_the_middle_one_is_best():
    found = made({"a": [[0.0], [0.0], [0.0], [1.0]]}, lrs=(1, 2, 3, 4))
    assert found.best_lr("a") == 2
    assert found.edge("a") == ""


def test_quantiles_of_numbers_that_may_be_infinite():
    assert results.quantile([3, 1, 2], 0.5) == 2
    assert results.quantile([1, 2], 0.25) == 1.25
    assert results.quantile([1, math.inf], 0.5) == math.inf
    assert results.quantile([1, 2, math.inf], 0.5) == 2
    assert results.quantile([math.inf, math.inf], 0.5) == math.inf


def test_a_performance_profile():
    """Costs 1 and 2, 4 and 1, never and 3: a is best on one problem, within 4 times on two, never on the third."""
    three = [made({"a": [[a]], "b": [[b]]}, lrs=[0.1]) for a, b in ((1, 2), (4, 1), (math.nan, 3))]
    found = profile(three, measure="loss")
    assert found.ratios.tolist() == [1, 2, 4]
    np.testing.assert_allclose(found.shares, [[1 / 3, 1 / 3, 2 / 3], [2 / 3, 1, 1]])
    assert found.optimizers == ("a", "b")
    zero = profile([made({"a": [[0.0]], "b": [[1.0]]}, lrs=[0.1])], measure="loss")
    assert (zero.ratios.tolist(), zero.shares.tolist()) == ([1], [[1], [0]])
    steps = profile([made({"a": [[0.1]], "b": [[0.3]]}, lrs=[0.1], target=0.2)])
    assert steps.costs.tolist() == [[19, math.inf]]
    for wrong, told in (
        (lambda: profile([]), "at least one"),
        (lambda: profile(three), "no target"),
        (lambda: profile(three, measure="time"), '"steps" or "loss"'),
        (lambda: profile([three[0], made({"c": [[1]]}, lrs=[0.1])], "loss"), "same optimizers"),
        (lambda: profile([made({"a": [[-1.0]]}, lrs=[0.1])], "loss"), "below 0"),
    ):
        with pytest.raises(ValueError, match=told):
            wrong()


def test_two_laid_over_each_other():
    a, b = short("sgd,adam"), short("adam,dog", lrs=(0.1, 1.0))
    both = a.over(b)
    assert both.optimizers == ("SGD", "Adam", "Adam (2)", "DoG")
    assert both.lrs.tolist() == [0.1]
    assert np.array_equal(both.curves["Adam"], both.curves["Adam (2)"])
    assert np.array_equal(both.curves["SGD"], a.curves["SGD"][1:])
    assert both.curves["DoG"].shape == b.curves["DoG"].shape
    assert not both.has_rate("DoG")
    assert a.over(a, labels=("before", "after")).optimizers == (
        "SGD (before)", "Adam (before)", "SGD (after)", "Adam (after)",
    )  # fmt: skip
    for other, told in (
        (short(steps=9), "steps is 8 and 9"),
        (short(seeds=3), "seeds"),
        (short(problem="moons"), "problem"),
        (short(lrs=[0.3]), "no rate in common"),
    ):
        with pytest.raises(ValueError, match=told):
            a.over(other)
    with pytest.raises(ValueError, match="same names"):
        a.over(a, labels=("", ""))


# Out and in -------------------------------------------------------------------------------------------------------


def test_two_runs_write_the_same_bytes(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        found = short("sgd,momentum,dog", "moons", seeds=3, path=tmp_path / place / "runs.jsonl")
        found.to_json(tmp_path / place / "found.json")
        found.to_csv(tmp_path / place / "found.csv")
        (tmp_path / place / "found.md").write_text(found.to_markdown())
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 7
    for name in names:
        if "timings" not in name:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_json_comes_back(tmp_path):
    found = short("sgd,dog", "quadratic", lrs=(0.001, 1.0), steps=300)
    found.to_json(tmp_path / "a.json")
    repeated = Comparison.load(tmp_path / "a.json")
    assert same(found, repeated)
    assert repeated.to_markdown(timings=True) == found.to_markdown(timings=True)
    repeated.to_json(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    (tmp_path / "a.timings.json").unlink()
    untimed = Comparison.load(tmp_path / "a.json")
    assert same(found, untimed)
    assert math.isnan(untimed.cost("SGD"))


def test_json_is_standard(tmp_path):
    short("sgd", "quadratic", lrs=(1.0,), steps=300).to_json(tmp_path / "a.json")

    def refuse(name):
        raise AssertionError(name)

    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)["curves"]["SGD"][0][0][-1] is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "damaged"),
        ("[1]", "no comparison"),
        ('{"format": "layerwise comparison", "version": 9}', "version 9"),
        ('{"format": "layerwise comparison", "version": 1}', "damaged"),
        ("\ufffd", "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, content, told):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=told):
        Comparison.load(tmp_path / "a.json")


def test_csv_has_a_row_for_each_run(tmp_path):
    found = short("sgd,dog", seeds=3, target=0.3)
    found.to_csv(tmp_path / "runs.csv")
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert lines[0] == "optimizer,lr,seed,status,first_loss,final_loss,steps_to_target"
    assert len(lines) == 1 + 2 * 3 + 3
    name, lr, seed, status, first, _, _ = lines[5].split(",")
    assert (name, lr, seed, status) == ("SGD", "0.1", "1", "converged")
    assert float(first) == found.curves["SGD"][1, 1, 0]
    assert len((tmp_path / "runs.timings.csv").read_text().splitlines()) == len(lines)


# One rate ---------------------------------------------------------------------------------------------------------


def little(seed=0, dropout=0.0):
    chain = [layers.Linear(16), layers.BatchNorm(), layers.Tanh(), layers.Dropout(dropout), layers.Linear(2)]
    return layers.Model([*chain, layers.Softmax()], seed=seed)


def test_find_lr_leaves_all_as_it_was(snapshot):
    problem = problems.moons()
    net, rule = little(dropout=0.5), optim.Adam(0.02)
    net.train(problem.x, problem.y, rule, loss.CrossEntropy(), epochs=2, verbose=False)
    before = snapshot(net, rule)
    kept = net.loss.value
    found = find_lr(net, problem.x, problem.y, rule, net.loss)
    assert snapshot(net, rule) == before
    assert net.loss.value == kept
    assert 0 < found.lr < 1
    assert found.lrs.shape == found.losses.shape
    find_lr(net, problem.x, problem.y)
    assert snapshot(net, rule) == before
    net.train(problem.x, problem.y, epochs=1, verbose=False)
    twin, other = little(dropout=0.5), optim.Adam(0.02)
    twin.train(problem.x, problem.y, other, loss.CrossEntropy(), epochs=2, verbose=False)
    twin.train(problem.x, problem.y, epochs=1, verbose=False)
    assert np.array_equal(twin.vector, net.vector)


def test_find_lr_of_a_net_that_is_not_built():
    problem = problems.moons()
    net = little()
    found = find_lr(net, problem.x, problem.y)
    assert net.input_shape is None
    assert net.optim is None
    repeated = find_lr(net, problem.x, problem.y)
    assert found.lr == repeated.lr
    assert isinstance(found.lr, float)


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, lambda lr: optim.Clip(optim.Momentum(lr), norm=1.0)])
def test_the_rate_that_is_found_trains(rule):
    problem = problems.moons()
    found = find_lr(little(), problem.x, problem.y, rule(1e-9), loss.CrossEntropy())
    net = little()
    history = net.train(problem.x, problem.y, rule(found.lr), loss.CrossEntropy(), epochs=30, verbose=False)
    assert history["loss"][-1] < 0.5 * history["loss"][0]


def test_find_lr_ends_before_the_loss_is_lost():
    x, y = problems.linear_regression().x, problems.linear_regression().y
    found = find_lr(layers.Model([layers.Linear(1)], seed=0), x, y, optim.SGD(0.1), loss.MSE())
    assert found.lrs[-1] < 1
    assert 1e-4 < found.lr < 0.02
    assert np.isfinite(found.losses).all()


def test_find_lr_mistakes():
    x, y = problems.moons().x, problems.moons().y
    for call, error, told in (
        (lambda: find_lr(little(), x, y, lambda net, loss: None), TypeError, "no lr"),
        (lambda: find_lr(little(), x, y, optim.PerLayer({"*": optim.SGD()})), TypeError, "no lr"),
        (lambda: find_lr(little(), x, y, low=1, high=0.1), ValueError, "low to high"),
        (lambda: find_lr(little(), x, y, steps=2), ValueError, "at least 5"),
        (lambda: find_lr(little(), x, y[:-1]), ValueError, "rows"),
        (lambda: find_lr(little(), x, y, low=1e-30, high=1e-29, batch_size=200), ValueError, "fell at no rate"),
    ):
        with pytest.raises(error, match=told):
            call()


# Bad arguments ----------------------------------------------------------------------------------------------------

INSTANCE = optim.Adam()
BAD = {
    "no problem": ({"problem": "sphere"}, ValueError, "no problem 'sphere'"),
    "no optimizer": ({"optimizers": "sgd,adem"}, ValueError, "no optimizer 'adem'.*RMSProp"),
    "a wrapper's name": ({"optimizers": "clip"}, ValueError, "no optimizer 'clip'"),
    "an instance": ({"optimizers": {"a": optim.Adam(0.1)}}, TypeError, "instance.*lambda lr: Adam"),
    "one instance": ({"optimizers": {"a": lambda lr: INSTANCE}}, ValueError, "the same instance"),
    "a class from the function": ({"optimizers": {"a": lambda lr: optim.Adam}}, TypeError, "expected an optimizer"),
    "two arguments": ({"optimizers": {"a": lambda lr, beta: optim.Adam(lr, beta)}}, TypeError, "rate alone"),
    "a wrapper": ({"optimizers": [optim.Clip]}, TypeError, "goes around another"),
    "a number": ({"optimizers": 3}, TypeError, "optimizers is"),
    "numbers": ({"optimizers": {"a": 3}}, TypeError, "class or a function"),
    "an unnamed function": ({"optimizers": [lambda lr: optim.SGD(lr)]}, TypeError, "needs a name"),
    "twice": ({"optimizers": [optim.SGD, optim.SGD]}, ValueError, "once"),
    "nothing": ({"optimizers": ""}, ValueError, "nothing to compare"),
    "steps": ({"steps": 0}, ValueError, "steps"),
    "half steps": ({"steps": 1.5}, ValueError, "steps"),
    "no rates": ({"lrs": []}, ValueError, "lrs"),
    "a rate of 0": ({"lrs": [0.1, 0]}, ValueError, "lrs"),
    "a rate of NaN": ({"lrs": [math.nan]}, ValueError, "lrs"),
    "no seeds": ({"seeds": 0}, ValueError, "seeds"),
    "negative seeds": ({"seeds": [-1]}, ValueError, "seeds"),
    "a seed twice": ({"seeds": [1, 1]}, ValueError, "twice"),
    "half a seed": ({"seeds": 2.5}, ValueError, "seeds"),
    "target": ({"target": math.nan}, ValueError, "target"),
    "clip": ({"clip": 0}, ValueError, "clip"),
    "jobs": ({"n_jobs": 0}, ValueError, "n_jobs"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_told(case):
    change, error, told = BAD[case]
    with pytest.raises(error, match=told):
        short(**change)


# The command ------------------------------------------------------------------------------------------------------

COMMAND = ["--problem", "xor", "--optimizers", "sgd,adam", "--steps", "10", "--seeds", "2", "--lrs", "0.01:0.1:1"]


def test_the_command(tmp_path, capsys):
    files = ["--csv", str(tmp_path / "runs.csv"), "--json", str(tmp_path / "all.json")]
    assert main([*COMMAND, *files, "--runs", str(tmp_path / "runs.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "| optimizer" in printed
    found = Comparison.load(tmp_path / "all.json")
    assert found.optimizers == ("SGD", "Adam")
    assert found.asked.tolist() == [0.01, 0.1]
    assert (tmp_path / "runs.jsonl").exists()


def test_the_command_tells_mistakes(capsys):
    for change, told in (
        (["--problem", "sphere"], "no problem 'sphere'"),
        (["--optimizers", "adem"], "no optimizer 'adem'"),
        (["--steps", "0"], "steps is a positive integer"),
    ):
        assert main([*COMMAND, *change]) == 1
        assert told in capsys.readouterr().out
    for lrs in ("a,b", "1:2:3:4", "1:0.1"):
        with pytest.raises(SystemExit, match="--lrs"):
            main([*COMMAND, "--lrs", lrs])


def test_ctrl_c_ends_the_command_quietly(tmp_path, capsys, counted):
    counted.fail_from = 2
    assert main([*COMMAND, "--runs", str(tmp_path / "runs.jsonl")]) == 130
    assert "goes on from" in capsys.readouterr().out


def test_the_command_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "layerwise.compare", *COMMAND],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "| optimizer" in done.stdout
