"""What can be known of callbacks and metrics is refused before the net has moved."""

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise.callbacks import Checkpoint, CSVLogger, EarlyStopping, ReduceOnPlateau, StopOnTarget, UpdateStats
from layerwise.distributed import Distributed

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = np.eye(2, dtype="float32")[(X[:, 0] > 0).astype(int)]


class Alone:
    """The communicator of one process."""

    def Get_rank(self):
        return 0

    def Get_size(self):
        return 1

    def bcast(self, value):
        return value

    def allgather(self, value):
        return [value]


def net(copies=None):
    norm = [] if copies else [layers.BatchNorm()]
    kinds = [layers.Linear(4), *norm, layers.Tanh(), layers.Dropout(0.2), layers.Linear(2), layers.Softmax()]
    return layers.Model(kinds, seed=0, copies=copies)


TRAININGS = {  # how the net is made, what goes around the optimizer
    "single": (net, lambda rule: rule),
    "stack": (lambda: net(copies=3), lambda rule: rule),
    "distributed": (net, lambda rule: Distributed(rule, Alone())),
}
WATCHERS = {
    "EarlyStopping": lambda name, path: EarlyStopping(name),
    "ReduceOnPlateau": lambda name, path: ReduceOnPlateau(name),
    "StopOnTarget": lambda name, path: StopOnTarget(name, 0.5),
    "Checkpoint": lambda name, path: Checkpoint(path / "net.npz", name),
    "Checkpoint's path": lambda name, path: Checkpoint(path / f"{{{name}}}.npz"),
}
MONITORS = {  # the name, the other arguments of train, what the error says
    "val_loss": ({}, r"val_loss.* loss, accuracy, seconds"),
    "val_accuracy": ({}, r"val_accuracy.* loss, accuracy, seconds"),
    "val_acc_loss": ({"validation": 0.25}, r"val_acc_loss.* loss, accuracy, val_loss, val_accuracy, seconds"),
    "acc_accuracy": ({"validation": 0.25}, r"acc_accuracy.* loss, accuracy, val_loss, val_accuracy, seconds"),
}


@pytest.mark.parametrize("built", [False, True], ids=["unbuilt", "built"])
@pytest.mark.parametrize("monitor", MONITORS)
@pytest.mark.parametrize("watcher", WATCHERS)
@pytest.mark.parametrize("training", TRAININGS)
def test_a_quantity_that_will_not_be_there_is_refused_before_anything_moves(
    snapshot, tmp_path, training, watcher, monitor, built
):
    make, around = TRAININGS[training]
    options, message = MONITORS[monitor]
    one, rule = make(), optim.Adam()
    if built:
        one.train(X, Y, rule, epochs=2, verbose=False)  # an Adam with a state
    before = snapshot(one, rule)
    seen = []
    watchers = [WATCHERS[watcher](monitor, tmp_path), lambda net, logs: seen.append(logs)]
    with pytest.raises(ValueError, match=message):
        one.train(X, Y, around(rule), metrics="accuracy", callbacks=watchers, verbose=False, **options)
    assert snapshot(one, rule) == before
    assert not seen
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("watcher", ["EarlyStopping", "ReduceOnPlateau", "StopOnTarget", "Checkpoint"])
def test_what_has_a_number_for_each_copy_is_refused_before_anything_moves(snapshot, tmp_path, watcher):
    stack = net(copies=3)
    before = snapshot(stack)
    with pytest.raises(ValueError, match="a number for each copy"):
        stack.train(X, Y, callbacks=WATCHERS[watcher]("loss", tmp_path), verbose=False)
    assert snapshot(stack) == before


def test_a_quantity_that_a_callback_before_adds_is_taken():
    def own(net, logs):
        logs["own_loss"] = 1.0

    class Own(EarlyStopping):  # adds what it watches
        def epoch(self, run, logs):
            logs["own_loss"] = 2.0
            return super().epoch(run, logs)

    watchers = [UpdateStats(), StopOnTarget("layers.0 update norm", 0, "max"), own, EarlyStopping("own_loss")]
    assert net().train(X, Y, epochs=3, callbacks=watchers, verbose=False).epochs == 1
    assert net().train(X, Y, epochs=3, callbacks=Own("own_loss"), verbose=False).epochs == 3
    with pytest.raises(ValueError, match=r"no 'layers\.9 update norm'"):
        net().train(X, Y, callbacks=[UpdateStats(), StopOnTarget("layers.9 update norm", 0, "max")], verbose=False)
    with pytest.raises(ValueError, match=r"no 'layers\.0 update norm'"):  # which comes too late
        net().train(X, Y, callbacks=[StopOnTarget("layers.0 update norm", 0, "max"), UpdateStats()], verbose=False)


@pytest.mark.parametrize("training", TRAININGS)
def test_a_csv_file_of_other_columns_is_refused_before_anything_moves(snapshot, tmp_path, training):
    make, around = TRAININGS[training]
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,seconds\n1,0.5,0.1\n")
    one, rule = make(), optim.Adam()
    before = snapshot(one, rule)
    with pytest.raises(ValueError, match=r"columns.*'accuracy( 2)?', 'seconds'.*a file of its own"):
        one.train(X, Y, around(rule), metrics="accuracy", callbacks=CSVLogger(path), verbose=False)
    assert snapshot(one, rule) == before
    assert path.read_text() == "epoch,loss,seconds\n1,0.5,0.1\n"
    with pytest.raises(ValueError, match=r"a file of its own|this is a stack"):
        one.train(X, Y, around(rule), epochs=1, callbacks=[UpdateStats(), CSVLogger(path)], verbose=False)


@pytest.mark.parametrize("rule", [lambda: optim.Adam(lr=lambda t: 0.1), lambda: print], ids=["schedule", "none"])
def test_an_optimizer_without_a_rate_to_reduce_is_refused_before_anything_moves(snapshot, rule):
    one, rule = net(), rule()
    before = snapshot(one)
    with pytest.raises(ValueError, match="ReduceOnPlateau sets"):
        one.train(X, Y, rule, loss.CrossEntropy(), callbacks=ReduceOnPlateau("loss"), verbose=False)
    assert snapshot(one) == before


def test_a_callback_of_ones_own_may_refuse_as_early(snapshot):
    class Picky:
        def check_run(self, run):
            raise ValueError(f"{run.epochs} epochs give {run.quantities}")

    one = net()
    before = snapshot(one)
    with pytest.raises(ValueError, match=r"7 epochs give \['loss', 'val_loss', 'seconds'\]"):
        one.train(X, Y, epochs=7, validation=0.2, callbacks=Picky(), verbose=False)
    assert snapshot(one) == before


# Metrics -----------------------------------------------------------------------------------------------------


class Failing:
    __name__ = "my_metric"

    def __init__(self, at):
        self.at = at
        self.calls = 0

    def __call__(self, pred, real):
        self.calls += 1
        if self.calls == self.at:
            raise ZeroDivisionError("no rows of class 3")
        return 1.0


@pytest.mark.parametrize("training", TRAININGS)
def test_a_metric_that_raises_on_the_first_batch_is_named_and_nothing_has_moved(snapshot, training):
    make, around = TRAININGS[training]
    one, rule = make(), optim.Momentum()
    one.train(X, Y, rule, loss.CrossEntropy(), epochs=2, verbose=False)
    before = snapshot(one, rule)
    with pytest.raises(ZeroDivisionError, match=r"(?s)class 3.*metric 'my_metric'.*float32 \(10, 2\)") as raised:
        one.train(X, Y, around(rule), one.loss, batch_size=10, metrics=Failing(1), verbose=False)
    after = snapshot(one, rule)
    if training == "distributed":  # `train` keeps what it was given
        assert isinstance(after.pop("optim"), Distributed)
        del before["optim"]
    assert after == before
    assert "ZeroDivisionError" in repr(raised.value)


def test_a_metric_that_raises_later_leaves_what_was_learnt(snapshot):
    one, rule, other = net(), optim.Momentum(), net()
    with pytest.raises(ZeroDivisionError):
        one.train(X, Y, rule, shuffle=False, batch_size=10, metrics=Failing(4), verbose=False)
    other.train(X[:30], Y[:30], optim.Momentum(), shuffle=False, batch_size=10, epochs=1, verbose=False)
    np.testing.assert_array_equal(one.vector, other.vector)
    assert rule.t == 3


def test_a_metric_is_called_once_a_batch_and_once_for_all_of_the_validation():
    metric = Failing(None)
    net().train(X, Y, epochs=3, batch_size=10, validation=0.25, metrics=metric, verbose=False)
    assert metric.calls == 3 * (3 + 1)


def test_the_metric_of_evaluate_is_named():
    def confused(pred, real):
        return None

    one = net()
    one.train(X, Y, epochs=1, verbose=False)
    with pytest.raises(TypeError, match=r"(?s)metric 'confused', called with predictions float32 \(40, 2\)"):
        one.evaluate(X, Y, metrics=confused)


@pytest.mark.parametrize(
    "rule", [lambda: optim.SAM(optim.SGD(0.5), rho=0.5), lambda: optim.LBFGS()], ids=["SAM", "LBFGS"]
)
def test_the_metric_of_a_step_is_of_the_predictions_before_it(rule):
    """As the loss of the History is, where the optimizer looks at the batch again from elsewhere."""
    one = layers.Model([layers.Linear(2), layers.Softmax()], seed=0)
    one.build((3,))
    pred = one.predict(X)
    history = one.train(X, Y, rule(), loss.CrossEntropy(), epochs=1, batch_size=40, metrics="mae", verbose=False)
    assert history["mae"][0] == pytest.approx(np.abs(pred - Y).mean(), rel=1e-5)
