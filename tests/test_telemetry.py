"""ReduceOnPlateau, which steers the learning rate, and UpdateStats, which tells how each layer moved."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise.callbacks import Checkpoint, CSVLogger, ReduceOnPlateau, StopOnTarget, UpdateStats
from layerwise.schedules import Linear

X = np.random.default_rng(0).normal(size=(40, 3))
Y = X @ [[1.0], [-2.0], [0.5]]
GOLDEN = np.load(Path(__file__).parent / "reference" / "schedules.npz")
PLATEAUS = json.loads(str(GOLDEN["about"]))["plateaus"]


@pytest.fixture
def net():
    return layers.Model([layers.Linear(6), layers.ReLU(), layers.Linear(1)], seed=0)


def train(net, watchers=(), epochs=3, rule=None, **options):
    """Epochs of four steps."""
    options = {"batch_size": 10, "loss": loss.MSE(), "verbose": False} | options
    return net.train(X, Y, optim=rule or optim.SGD(lr=0.05), epochs=epochs, callbacks=watchers, **options)


# ReduceOnPlateau ------------------------------------------------------------------------------------------------


class Scripted:
    """A metric whose value of each epoch is given: of one batch an epoch, so that nothing is averaged."""

    __name__ = "scripted_loss"

    def __init__(self, values):
        self.values = iter(values)

    def __call__(self, pred, real):
        return next(self.values)


def rates(net, values, watchers, rule, read=lambda rule: rule.lr):
    """The learning rate after each epoch."""
    seen = []
    watchers = [*watchers, lambda net, logs: seen.append(read(rule))]
    train(net, watchers, len(values), rule, metrics=Scripted(values), batch_size=40)
    return seen


@pytest.mark.parametrize("case", PLATEAUS, ids=lambda case: case["id"])
def test_the_rates_are_torchs(net, case):
    golden, metrics = GOLDEN[f"{case['id']}/lr"], GOLDEN[f"{case['id']}/metrics"]
    watcher = ReduceOnPlateau("scripted_loss", **case["arguments"])
    assert rates(net, metrics.tolist(), [watcher], optim.Adam(lr=case["lr"])) == pytest.approx(golden, rel=1e-12)


RISING = [1.0, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("wrap", "read"),
    [
        (lambda: optim.Clip(optim.SGD(lr=0.1), norm=1), lambda rule: rule.lr),
        (lambda: optim.Average(optim.Clip(optim.Adam(lr=0.1), norm=1), 0.9), lambda rule: rule.optimizer.optimizer.lr),
        (lambda: optim.PerLayer({"*.b": None, "*": optim.SGD(lr=0.1)}), lambda rule: rule.optimizers["*"].lr),
        (lambda: optim.Clip(optim.PerLayer({"*.b": optim.SGD(lr=0.1), "*": optim.Adam(lr=1)}), norm=1),
         lambda rule: rule.optimizer.optimizers["*.b"].lr),
    ],
    ids=["Clip", "Average of Clip", "PerLayer", "Clip of PerLayer"],
)  # fmt: skip
def test_it_works_through_wrappers(net, wrap, read):
    watcher = ReduceOnPlateau("scripted_loss", factor=0.5, patience=1)
    assert rates(net, RISING, [watcher], wrap(), read) == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_every_rate_is_reduced(net):
    rule = optim.PerLayer({"*.b": optim.SGD(lr=0.1), "*": optim.Adam(lr=0.01)})
    rates(net, RISING[:2], [ReduceOnPlateau("scripted_loss", factor=0.5, patience=0)], rule, lambda rule: None)
    assert [each.lr for each in rule.optimizers.values()] == [0.05, 0.005]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (optim.SGD(lr=Linear(0.1, 0.0, 10)), r"lr .*SGD is a schedule, Linear\(.*leave ReduceOnPlateau out"),
        (optim.Clip(optim.Adam(lr=Linear(0.1, 0.0, 10)), norm=1), r"Adam is a schedule"),
        (optim.PolyakSGD(), r"PolyakSGD\(.* has none"),
        (lambda net, loss: None, "function .* has none"),
    ],
)
def test_what_has_no_rate_to_set_is_refused_before_the_first_step(net, rule, message):
    net.build((3,))
    before = net.vector.copy()
    with pytest.raises(ValueError, match=message):
        train(net, ReduceOnPlateau("loss"), rule=rule)
    np.testing.assert_array_equal(net.vector, before)


def test_it_begins_anew_with_each_training_and_goes_on_from_its_state(net):
    watcher, rule = ReduceOnPlateau("scripted_loss", factor=0.5, patience=2, cooldown=1), optim.SGD(lr=0.1)
    whole = rates(net, RISING * 2, [watcher], rule)
    first = ReduceOnPlateau("scripted_loss", factor=0.5, patience=2, cooldown=1)

    class Load:
        def begin(self, run):
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))

    for at in range(1, 11):
        second, rule = ReduceOnPlateau("scripted_loss", factor=0.5, patience=2, cooldown=1), optim.SGD(lr=0.1)
        start = rates(net, (RISING * 2)[:at], [first], rule)
        assert start + rates(net, (RISING * 2)[at:], [second, Load()], rule) == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 0}, "factor.*0"),
        ({"factor": 1}, "factor.*1"),
        ({"factor": float("nan")}, "factor.*nan"),
        ({"patience": -1}, "patience.*-1"),
        ({"patience": False}, "patience.*False"),
        ({"min_lr": -1e-3}, r"min_lr.*-0\.001"),
        ({"min_delta": -0.1}, r"min_delta.*-0\.1"),
        ({"cooldown": 1.5}, r"cooldown.*1\.5"),
        ({"monitor": "val_gain"}, "val_gain.*mode="),
        ({"mode": "least"}, "least"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReduceOnPlateau(**arguments)


# UpdateStats ----------------------------------------------------------------------------------------------------


class ByHand:
    """The weights and gradients of every step, as an optimizer that goes around another sees them."""

    def __init__(self, rule):
        self.rule, self.steps = rule, []

    def __call__(self, net, value):
        before = [leaf.vector for leaf in self.leaf_layers(net)]
        self.rule(net, value)
        after = [leaf.vector for leaf in self.leaf_layers(net)]
        gradient = [leaf.gradient for leaf in self.leaf_layers(net)]
        self.steps.append((before, gradient, after))

    def leaf_layers(self, net):
        for place in (0, 2):
            yield Flat(net[place])


class Flat:
    def __init__(self, layer):
        self.vector = np.concatenate([w.ravel() for w in layer.parameters.values()])
        self.gradient = np.concatenate([g.ravel() for g in layer.gradients.values()])


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_the_numbers_are_those_of_the_steps(net, every):
    spy = ByHand(optim.Adam(lr=0.05))
    history = train(net, UpdateStats(every), rule=spy)
    for k, place in enumerate((0, 2)):
        for epoch in range(3):
            looked = spy.steps[4 * epoch : 4 * epoch + 4][::every]
            gradient = [np.linalg.norm(g[k]) for _, g, _ in looked]
            update = [np.linalg.norm(after[k] - before[k]) for before, _, after in looked]
            ratio = [step / np.linalg.norm(before[k]) for step, (before, _, _) in zip(update, looked, strict=True)]
            for name, values in (("gradient norm", gradient), ("update norm", update), ("update ratio", ratio)):
                assert history[f"layers.{place} {name}"][epoch] == pytest.approx(np.mean(values), rel=1e-5)
    assert history.keys() == {"loss", "seconds", "layers.1 dead units"} | {
        f"layers.{place} {name}" for place in (0, 2) for name in ("gradient norm", "update norm", "update ratio")
    }
    assert {len(values) for values in history.values()} == {3}


RULES = [
    lambda: optim.SGD(lr=0.05),
    lambda: optim.Average(optim.Clip(optim.Adam(lr=0.05), norm=0.1), 0.9),
    lambda: optim.PerLayer({"*.b": None, "*": optim.Accumulate(optim.Lookahead(optim.SGD(lr=0.05)), 2)}),
    lambda: optim.SAM(optim.SGD(lr=0.05)),
    lambda: optim.LBFGS(steps=3),
    lambda: optim.ScheduleFreeSGD(),
]


@pytest.mark.parametrize("make", RULES, ids=lambda make: repr(make()))
def test_looking_changes_no_bit(snapshot, make):
    def trained(watchers):
        net = layers.Model(
            [layers.Linear(6), layers.BatchNorm(), layers.ReLU(), layers.Dropout(0.3), layers.HardSwish(),
             layers.Linear(4), layers.HardSigmoid(), layers.Linear(1)], seed=0,
        )  # fmt: skip
        rule = make()
        history = train(net, watchers, rule=rule, validation=0.25)
        return snapshot(net, rule) | {"optim": None, "loss": None}, {k: history[k] for k in ("loss", "val_loss")}

    assert trained([UpdateStats(), UpdateStats(every=3)]) == trained([])


def test_an_update_is_seen_as_the_training_weights_make_it():
    """Evaluation weights, shown for the validation between two epochs, are no update."""
    plain, averaged = (
        train(layers.Model([layers.Linear(1)], seed=0), UpdateStats(), rule=rule, validation=0.25)
        for rule in (optim.SGD(lr=0.05), optim.Average(optim.SGD(lr=0.05), 0.9))
    )
    assert plain["layers.0 update norm"] == averaged["layers.0 update norm"]
    assert plain["val_loss"] != averaged["val_loss"]


def test_a_gradient_is_seen_as_the_rule_got_it(net):
    history = train(net, UpdateStats(), rule=optim.Clip(optim.SGD(lr=0.1), norm=1e-3), batch_size=40)
    norms = np.array([history[f"layers.{place} gradient norm"] for place in (0, 2)])
    assert np.sqrt((norms**2).sum(0)) == pytest.approx([1e-3] * 3, rel=1e-3)
    assert history["clipped steps"] == [1, 1, 1]


class ClipAt(optim.Clip):
    """Clips at every fourth step."""

    def around(self, net):
        super().around(net)
        self.clipped = self.t % 4 == 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda clip: clip,
        lambda clip: optim.Average(clip, 0.9),
        lambda clip: optim.PerLayer({"*.b": optim.SGD(lr=0.1), "*": clip}),
    ],
)
def test_the_share_of_clipped_steps(net, wrap):
    assert train(net, UpdateStats(), rule=wrap(ClipAt(optim.SGD(lr=0.05), norm=1)))["clipped steps"] == [0.25] * 3
    assert "clipped steps" not in train(net.copy(), UpdateStats())


def test_the_share_of_dead_units():
    """Of six units two never fire, one fires for a single row."""
    net = layers.Model([layers.Linear(6), layers.ReLU(), layers.Linear(1)], seed=0)
    net.build((3,))
    net[0].w = np.zeros((3, 6))
    net[0].w[0, 2] = 1
    net[0].b = np.array([-1.0, -1, -X[:, 0].max() * 0.999, 1, 1, 1])
    history = train(net, UpdateStats(), rule=optim.SGD(lr=0.0))
    assert history["layers.1 dead units"] == pytest.approx([2 / 6] * 3)


@pytest.mark.parametrize("layer", [layers.ReLU(), layers.ReLU6(), layers.HardSigmoid(), layers.HardSwish()], ids=repr)
def test_a_unit_is_a_place_of_the_last_axis(layer):
    """(N, 4, 3): unit 0 never fires, unit 1 at one place of one row, unit 2 always."""
    x = np.full((40, 4, 3), -5.0)
    x[7, 2, 1] = 1
    x[:, :, 2] = 4
    net = layers.Model([layer, layers.Flatten(), layers.Linear(1)], seed=0)
    history = net.train(x, Y, optim=optim.SGD(lr=0.0), epochs=2, callbacks=UpdateStats(), verbose=False)
    assert history["layers.0 dead units"] == pytest.approx([1 / 3] * 2)
    assert history["layers.2 update norm"] == [0, 0]


def test_a_ratio_to_weights_that_are_all_zero():
    net = layers.Model([layers.Linear(1, init=0)], seed=0)
    history = train(net, UpdateStats(), epochs=2)
    assert all(math.isfinite(ratio) for ratio in history["layers.0 update ratio"])  # after the first step
    net = layers.Model([layers.Linear(1, init=0)], seed=0)
    history = train(net, UpdateStats(), epochs=2, rule=optim.SGD(lr=0.0))
    assert [math.isnan(ratio) for ratio in history["layers.0 update ratio"]] == [True, True]


def test_frozen_layers_are_left_out_and_containers_named_by_path():
    net = layers.Model([layers.Linear(3), layers.Residual([layers.Linear(3), layers.ReLU()]), layers.Linear(1)], seed=0)
    net[0].frozen = True
    names = [name for name in train(net, UpdateStats()) if name.endswith(("update norm", "dead units"))]
    assert names == ["layers.1.layers.0 update norm", "layers.1.layers.1 dead units", "layers.2 update norm"]


def test_other_callbacks_can_use_the_numbers(net, tmp_path):
    path = tmp_path / "log.csv"
    watchers = [UpdateStats(), CSVLogger(path), StopOnTarget("layers.0 update norm", 1e9, mode="min")]
    history = train(net, watchers)
    assert history.epochs == 1
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: [float(value)] for name, value in row.items() if name != "epoch"} == history


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("stop", [1, 2, 6, 7])
def test_a_training_that_goes_on_within_an_epoch_has_the_same_numbers(every, stop, tmp_path):
    """Four steps an epoch."""

    def trained(name, callbacks=(), **told):
        net = layers.Model([layers.Linear(6), layers.ReLU(), layers.Linear(1)], seed=0)
        watchers = [UpdateStats(every), Checkpoint(tmp_path / name, every=1), *callbacks]
        return train(net, watchers, rule=optim.Clip(optim.SGD(lr=0.05), norm=1), **told)

    def kill(run):
        if run.step == stop + 1:
            raise ZeroDivisionError

    whole = trained("whole.npz")
    with pytest.raises(ZeroDivisionError):
        trained("net.npz", [Stepper(kill)])
    repeated = trained("again.npz", resume=tmp_path / "net.npz")
    assert repeated.keys() == whole.keys() >= {"layers.1 dead units", "clipped steps", "layers.0 update ratio"}
    for name in whole.keys() - {"seconds"}:
        np.testing.assert_array_equal(repeated[name], whole[name], err_msg=name)


class Stepper:
    def __init__(self, step):
        self.step = step


def test_a_stack_is_refused():
    with pytest.raises(ValueError, match="how one net moves, and this is a stack of 3: leave it out"):
        train(layers.Model([layers.Linear(1)], seed=0, copies=3), UpdateStats())


@pytest.mark.parametrize("every", [0, -1, 1.5, True, None])
def test_every_is_a_positive_integer(every):
    with pytest.raises(ValueError, match=f"every is a positive integer, got {every}"):
        UpdateStats(every)
