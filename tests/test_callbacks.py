"""Callbacks of both forms, and those of layerwise.callbacks."""

import csv
import inspect
import signal

import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise import callbacks
from layerwise.callbacks import Checkpoint, CSVLogger, EarlyStopping, StopOnTarget, TimeLimit

X = np.random.default_rng(0).normal(size=(40, 3))
Y = X @ [[1.0], [-2.0], [0.5]]


@pytest.fixture
def net():
    return layers.Model([layers.Linear(4), layers.BatchNorm(), layers.Tanh(), layers.Linear(1)], seed=0)


def train(net, watchers=(), epochs=5, **options):
    """Five epochs of four steps."""
    return net.train(X, Y, epochs=epochs, batch_size=10, callbacks=watchers, verbose=False, **options)


# The two forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("none", [None, (), []])
def test_there_may_be_none(net, none):
    assert train(net, none).epochs == 5


def test_a_function_is_called_after_each_epoch(net):
    seen = []
    history = train(net, lambda net, logs: seen.append((net, dict(logs))), metrics="mae", validation=0.25)
    assert [seen_net for seen_net, _ in seen] == [net] * 5
    assert [logs["val_mae"] for _, logs in seen] == history["val_mae"]
    assert seen[0][1].keys() == history.keys()


@pytest.mark.parametrize("answer", [True, np.True_])
def test_true_ends_the_training(net, answer):
    assert train(net, [lambda net, logs: answer]).epochs == 1


@pytest.mark.parametrize("answer", [None, False, np.False_, 1, "yes", {"loss": 1}])
def test_anything_else_does_not(net, answer):
    assert train(net, [lambda net, logs: answer]).epochs == 5


class Diary:
    def __init__(self, end_at=None):
        self.lines = []
        self.end_at = end_at

    def begin(self, run):
        self.lines.append(("begin", run.epoch, run.step))

    def step(self, run):
        self.lines.append(("step", run.epoch, run.step))
        return run.step == self.end_at

    def epoch(self, run, logs):
        self.lines.append(("epoch", run.epoch, run.step))
        assert run.history["loss"][-1] == logs["loss"]

    def end(self, run):
        self.lines.append(("end", run.epoch, run.step))
        self.run = run


def test_an_object_is_called_at_every_turn(net):
    diary, rule, value = Diary(), optim.Adam(), loss.MSE()
    history = train(net, [diary], epochs=2, optim=rule, loss=value)
    steps = [[("step", epoch, 4 * epoch + step) for step in range(1, 5)] for epoch in (0, 1)]
    expected = [("begin", 0, 0), *steps[0], ("epoch", 1, 4), *steps[1], ("epoch", 2, 8), ("end", 2, 8)]
    assert diary.lines == expected
    run = diary.run
    assert (run.net, run.optim, run.loss, run.history, run.epochs) == (net, rule, value, history, 2)


def test_a_step_that_answers_true_ends_the_training(net):
    diary = Diary(end_at=6)
    history = train(net, [diary])
    assert diary.lines[-2:] == [("epoch", 2, 6), ("end", 2, 6)]
    assert history.epochs == 2


def test_an_object_may_have_any_of_the_methods_and_other_things_of_those_names(net):
    class Own:
        step = 3  # not a method

        def __call__(self, net, logs):
            self.called = logs["loss"]

    class OnlyEnd:
        def end(self, run):
            self.epochs = run.epoch

    own, only = Own(), OnlyEnd()
    history = train(net, [own, only])
    assert own.called == history["loss"][-1]
    assert only.epochs == 5


def test_an_error_of_a_callback_reaches_the_caller_and_leaves_a_usable_net(net):
    def fail(net, logs):
        raise ZeroDivisionError("my own")

    with pytest.raises(ZeroDivisionError, match="my own"):
        train(net, fail)
    assert train(net).epochs == 5


def test_a_training_within_a_training_of_the_same_net_is_refused(net):
    with pytest.raises(RuntimeError, match="trained already"):
        train(net, lambda net, logs: train(net))


class Begin:
    def __init__(self, function):
        self.begin = function


# EarlyStopping -----------------------------------------------------------------------------------------------


class Scripted:
    """A metric whose value of each epoch is given: of one batch an epoch, so that nothing is averaged."""

    __name__ = "scripted_loss"

    def __init__(self, values):
        self.values = iter(values)

    def __call__(self, pred, real):
        return next(self.values)


def scripted(net, values, watcher, **options):
    return net.train(X, Y, epochs=len(values), batch_size=40, metrics=Scripted(values), callbacks=watcher,
                     verbose=False, **options)  # fmt: skip


STOPPING = [  # arguments, the values of the epochs, how many epochs there are, the best, its epoch
    ({"patience": 2}, [5, 4, 4, 4, 3], 4, 4, 2),
    ({"patience": 2}, [5, 6, 4, 5, 6, 1], 5, 4, 3),
    ({"patience": 1}, [5, 4, 3, 4, 2], 4, 3, 3),
    ({"patience": 0}, [5, 4, 3, 4, 2], 4, 3, 3),
    ({"patience": 3}, [5, 4, 3], 3, 3, 3),
    ({"patience": 2, "min_delta": 0.5}, [5, 4.8, 4.6, 4], 3, 5, 1),
    ({"patience": 2, "mode": "max"}, [1, 2, 1, 1, 3], 4, 2, 2),
    ({"patience": 1, "mode": "max", "min_delta": 0.5}, [1, 1.4, 3], 2, 1, 1),
    ({"patience": 2}, [float("nan"), 3, float("nan"), 2, 3], 5, 2, 4),
]


@pytest.mark.parametrize(("arguments", "values", "epochs", "best", "best_epoch"), STOPPING)
def test_early_stopping_waits_and_puts_the_best_back(net, snapshot, arguments, values, epochs, best, best_epoch):
    watcher = EarlyStopping("scripted_loss", **arguments)
    states = []
    history = scripted(net, values, [lambda net, logs: states.append(snapshot(net)), watcher])
    assert (history.epochs, watcher.best, watcher.best_epoch) == (epochs, best, best_epoch)
    assert snapshot(net) == states[best_epoch - 1] | {"training": False}  # the running statistics too


# What Keras's EarlyStopping(restore_best_weights=True) says and puts back, Keras 3.15.1, its on_epoch_end called with
# these values and other weights each time: the epochs there were, the best, its epoch.
AS_KERAS = [
    ({"patience": 2}, [5, 4, 4, 4, 3], 4, 4, 2),
    ({"patience": 2, "baseline": 4.5}, [6, 5, 4, 4, 4, 4], 5, 4, 3),
    ({"patience": 2, "baseline": 4.5}, [6, 5, 5, 4], 3, 5, 2),
    ({"patience": 3, "baseline": 4.5}, [6, 5, 4, 5, 3, 6, 6, 6], 8, 3, 5),
    ({"patience": 2, "baseline": 1}, [6, 5, 4, 3], 4, 3, 4),
    ({"patience": 3, "baseline": 4.5}, [6, 4.6, 4.4, 5, 5, 5, 5], 6, 4.4, 3),
    ({"patience": 2, "baseline": 4.5}, [6, 4, 5, 5, 5], 4, 4, 2),
    ({"patience": 2, "start_from_epoch": 3}, [1, 2, 3, 5, 4, 6, 6, 6], 7, 4, 5),
    ({"patience": 2, "start_from_epoch": 2}, [5, 6, 7, 8, 9, 10], 5, 7, 3),
    ({"patience": 1, "start_from_epoch": 4}, [5, 6, 7, 8, 9, 10, 11], 6, 9, 5),
    ({"patience": 2, "start_from_epoch": 3, "baseline": 4}, [1, 1, 1, 5, 3, 6, 6, 6], 7, 3, 5),
    ({"patience": 2, "start_from_epoch": 3, "baseline": 4}, [1, 1, 1, 5, 6, 6, 6, 6], 5, 5, 4),
    ({"patience": 2, "baseline": 4, "min_delta": 0.5}, [4.2, 3.8, 3.4, 3.3, 3.2, 3.1], 2, 4.2, 1),
    ({"patience": 2, "baseline": 0.5, "mode": "max"}, [0.4, 0.6, 0.5, 0.5, 0.5], 4, 0.6, 2),
    ({"patience": 3, "baseline": 0.5, "mode": "max"}, [0.1, 0.4, 0.6, 0.5, 0.5, 0.5], 6, 0.6, 3),
    ({"patience": 0, "baseline": 2}, [3, 1, 1], 3, 1, 2),
    ({"patience": 1, "baseline": 2}, [3, 1, 1], 3, 1, 2),
    ({"patience": 0, "start_from_epoch": 2}, [3, 1, 1, 0.5, 0.7, 0.1], 5, 0.5, 4),
]


@pytest.mark.parametrize(("arguments", "values", "epochs", "best", "best_epoch"), AS_KERAS)
def test_early_stopping_counts_as_keras_does(net, snapshot, arguments, values, epochs, best, best_epoch):
    test_early_stopping_waits_and_puts_the_best_back(net, snapshot, arguments, values, epochs, best, best_epoch)


def test_early_stopping_has_no_best_where_no_epoch_was_looked_at(net, snapshot):
    watcher, states = EarlyStopping("scripted_loss", start_from_epoch=10), []
    history = scripted(net, [1, 2, 3], [lambda net, logs: states.append(snapshot(net)), watcher])
    assert (history.epochs, watcher.best_epoch) == (3, 0)
    assert snapshot(net) == states[-1] | {"training": False}


def test_early_stopping_may_leave_the_last_weights(net, snapshot):
    states = []
    watcher = EarlyStopping("scripted_loss", patience=1, restore_best=False)
    scripted(net, [1, 2, 3], [lambda net, logs: states.append(snapshot(net)), watcher])
    assert snapshot(net) == states[1] | {"training": False}


class Ends:
    """Ends the training in the fourth epoch, one way or the other."""

    def __init__(self, way):
        self.way = way

    def step(self, run):
        if run.epoch == 3:
            if self.way == "parameter":
                run.net.vector[...] = np.nan
            if self.way == "step":
                for _ in range(2):
                    signal.raise_signal(signal.SIGINT)

    def epoch(self, run, logs):
        if run.epoch == 4:
            if self.way == "epoch":
                raise ZeroDivisionError
            if self.way == "exit":
                raise SystemExit
            return self.way in ("end", "Ctrl-C in the end")

    def end(self, run):
        if self.way == "end":
            raise ZeroDivisionError
        if self.way == "Ctrl-C in the end":
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)


WAYS = {
    "step": KeyboardInterrupt, "epoch": ZeroDivisionError, "exit": SystemExit, "end": ZeroDivisionError,
    "Ctrl-C in the end": KeyboardInterrupt, "parameter": model.DivergenceError, "metric": StopIteration,
}  # fmt: skip


@pytest.mark.parametrize("first", [True, False], ids=["before it", "after it"])
@pytest.mark.parametrize("way", WAYS)
def test_early_stopping_puts_the_best_back_however_the_training_ends(net, snapshot, way, first):
    watcher, states = EarlyStopping("scripted_loss", patience=9), []
    both = [Ends(way), watcher] if first else [watcher, Ends(way)]
    metric = Scripted([5, 3, 4] if way == "metric" else [5, 3, 4, 4, 4])
    with pytest.raises(WAYS[way]):
        net.train(X, Y, epochs=5, batch_size=40, metrics=metric, verbose=False,
                  callbacks=[lambda net, logs: states.append(snapshot(net)), *both])  # fmt: skip
    assert watcher.best_epoch == 2
    weights = {name: value for name, value in states[1].items() if "random" not in name and name != "shuffle"}
    assert {name: snapshot(net)[name] for name in weights} == weights | {"training": False}


def test_early_stopping_puts_all_of_the_best_back_when_a_ctrl_c_cuts_in(net, monkeypatch):
    """After the weights, before the running statistics."""
    watcher, best = EarlyStopping("scripted_loss"), []

    def arrays(of):
        yield of.vector
        if ending:
            ending.pop()
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        yield from (value for leaf in of.leaf_layers() for value in leaf.buffers.values())

    class Ending:
        def end(self, run):
            ending.append(True)
            monkeypatch.setattr(callbacks, "_arrays", arrays)

    ending = []
    keep = [lambda net, logs: best.append([net.vector.copy(), *(b.copy() for b in net[1].buffers.values())])]
    with pytest.raises(KeyboardInterrupt):
        scripted(net, [3, 1, 2, 2], [*keep, Ending(), watcher])
    assert not ending
    for found, expected in zip([net.vector, *net[1].buffers.values()], best[1], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_early_stopping_looks_at_the_validation_loss_by_default(net):
    watcher = EarlyStopping(patience=3)
    history = train(net, watcher, epochs=200, validation=0.25, optim=optim.Adam(lr=0.1))
    assert history.epochs < 200
    assert watcher.best == min(history["val_loss"])
    assert net.evaluate(X[30:], Y[30:])["loss"] == watcher.best


def test_early_stopping_puts_back_the_weights_that_were_evaluated(net):
    """Not those of the training, where the two differ; and a training goes on from there."""
    watcher = EarlyStopping(patience=2)
    rule = optim.Average(optim.SGD(lr=0.3), 0.5)
    history = train(net, watcher, epochs=50, validation=0.25, optim=rule)
    assert history.epochs < 50
    assert net.evaluate(X[30:], Y[30:])["loss"] == watcher.best == min(history["val_loss"])
    best = net.vector.copy()
    begin = []
    net.train(X, Y, epochs=1, callbacks=[Begin(lambda run: begin.append(net.vector.copy()))], verbose=False)
    np.testing.assert_array_equal(begin[0], best)


def test_early_stopping_begins_anew_with_each_training_and_goes_on_from_its_state(net):
    watcher = EarlyStopping("scripted_loss", patience=2)
    assert scripted(net, [1, 2, 3, 4], watcher).epochs == 3
    assert scripted(net, [5, 4, 5, 3], watcher).epochs == 4

    class Save:
        def epoch(self, run, logs):
            self.state = watcher.state_dict()

    class Load:
        def begin(self, run):
            watcher.load_state_dict(save.state)

    save = Save()
    scripted(net, [1, 2], [watcher, save])
    best = net.vector.copy()
    assert scripted(net, [3, 1], [watcher, Load()]).epochs == 1
    np.testing.assert_array_equal(net.vector, best)


BAD_ARGUMENTS = [
    (lambda: EarlyStopping("val_gain"), "val_gain.*mode="),
    (lambda: EarlyStopping(mode="least"), "least"),
    (lambda: EarlyStopping(patience=-1), "patience.*-1"),
    (lambda: EarlyStopping(patience=1.5), r"patience.*1\.5"),
    (lambda: EarlyStopping(patience=True), "patience.*True"),
    (lambda: EarlyStopping(min_delta=-0.1), r"min_delta.*-0\.1"),
    (lambda: EarlyStopping(baseline=float("nan")), "baseline.*nan"),
    (lambda: EarlyStopping(start_from_epoch=-1), "start_from_epoch.*-1"),
    (lambda: StopOnTarget("loss", float("nan")), "target.*nan"),
    (lambda: StopOnTarget("loss", "0.1"), "target.*'0.1'"),
    (lambda: TimeLimit(0), "seconds.*0"),
    (lambda: TimeLimit(float("nan")), "seconds.*nan"),
    (lambda: Checkpoint("net.npz", "gain"), "gain.*mode="),
    (lambda: Checkpoint("runs/{epoch}/net.npz"), r"no braces there, got 'runs/\{epoch\}/net\.npz'"),
]


@pytest.mark.parametrize(("make", "message"), BAD_ARGUMENTS)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "watcher", [EarlyStopping(), StopOnTarget("val_accuracy", 0.9), Checkpoint("never.npz", "val_loss")]
)
def test_a_quantity_that_is_not_there_is_named_with_those_that_are(net, watcher):
    with pytest.raises(ValueError, match=r"no 'val_\w+'.* they have loss, mae, seconds\..*validation="):
        train(net, watcher, metrics="mae")
    with pytest.raises(ValueError, match="no 'top_accuracy'"):
        train(net, StopOnTarget("top_accuracy", 0.9))


# StopOnTarget, TimeLimit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "target", "values", "epochs"),
    [(None, 3, [5, 4, 3, 2], 3), (None, 3, [5, 2], 2), ("max", 3, [1, 4], 2), ("max", 5, [1, 4], 2)],
)
def test_stop_on_target_ends_at_the_target_or_beyond(net, mode, target, values, epochs):
    assert scripted(net, values, StopOnTarget("scripted_loss", target, mode)).epochs == epochs


@pytest.mark.parametrize("name", ["accuracy", "val_accuracy", "top_5_accuracy"])
def test_an_accuracy_rises(name):
    assert not callbacks.Monitor(name).falls


def test_the_time_limit_is_looked_at_after_every_step(net, monkeypatch):
    """By a clock that goes on by a second a step."""
    clock = iter(range(1000, 2000))
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    diary = Diary()
    history = train(net, [TimeLimit(6), diary])
    assert history.epochs == 2
    assert diary.lines[-2:] == [("epoch", 2, 6), ("end", 2, 6)]


def test_the_time_limit_ends_a_training_that_would_not(net):
    history = train(net, TimeLimit(0.1), epochs=10**9)
    assert 0 < sum(history["seconds"]) < 30


# Checkpoint, CSVLogger ---------------------------------------------------------------------------------------


def test_checkpoint_keeps_the_net_of_each_epoch(net, tmp_path):
    predictions = []
    train(net, [Checkpoint(tmp_path / "{epoch}.npz"), lambda net, logs: predictions.append(net.predict(X))])
    assert len(predictions) == 5
    for epoch, expected in enumerate(predictions, 1):
        np.testing.assert_array_equal(model.load(tmp_path / f"{epoch}.npz").predict(X), expected)


def test_checkpoint_saves_the_weights_that_are_evaluated(net, tmp_path):
    path = tmp_path / "net.npz"
    rule = optim.Average(optim.SGD(lr=0.3), 0.5)
    history = train(net, Checkpoint(path), validation=0.25, optim=rule)
    assert model.load(path).evaluate(X[30:], Y[30:])["loss"] == history["val_loss"][-1]


def test_checkpoint_with_a_monitor_saves_what_is_better(net, tmp_path):
    watcher = Checkpoint(tmp_path / "{epoch:02d}-{scripted_loss:.1f}.npz", "scripted_loss")
    scripted(net, [3, 4, 2, 2, 1], watcher)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01-3.0.npz", "03-2.0.npz", "05-1.0.npz"]
    assert watcher.best == 1


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("net.pt", ValueError, r"\.npz or \.safetensors"),
        ("nowhere/net.npz", FileNotFoundError, "no folder.*nowhere"),
        ("folder.npz", IsADirectoryError, "folder.npz' is a folder: give the name of a file in it"),
    ],
)
def test_checkpoint_looks_at_its_path_before_the_first_step(net, snapshot, tmp_path, path, error, message):
    (tmp_path / "folder.npz").mkdir()
    net.build((3,))
    before = snapshot(net)
    with pytest.raises(error, match=message):
        train(net, Checkpoint(tmp_path / path))
    assert snapshot(net) == before


@pytest.mark.parametrize("every", [None, 3])
def test_checkpoint_of_the_weights_alone_is_a_net_that_loads_and_no_training(net, tmp_path, every):
    path, whole = tmp_path / "net.npz", tmp_path / "whole.npz"
    rule = optim.Average(optim.Adam(), 0.9)
    watchers = [Checkpoint(path, every=every, weights_only=True), Checkpoint(whole)]
    train(net, watchers, optim=rule)
    np.testing.assert_array_equal(model.load(path).predict(X), net.predict(X))
    net.save(tmp_path / "saved.npz")
    sizes = [file.stat().st_size for file in (path, whole, tmp_path / "saved.npz")]
    assert sizes[0] == sizes[2] < sizes[1]
    with pytest.raises(model.ModelFileError, match=r"no training: resume takes .* without weights_only"):
        train(net, watchers, resume=path)
    train(net, Checkpoint(tmp_path / "again.npz"), epochs=6, optim=optim.Average(optim.Adam(), 0.9), resume=whole)


def test_checkpoint_names_what_may_stand_in_its_path(net, tmp_path):
    with pytest.raises(ValueError, match=r"'val_loss'.*epoch, loss, seconds"):
        train(net, Checkpoint(tmp_path / "{val_loss}.npz"))


@pytest.mark.parametrize("name", callbacks.__all__)
def test_what_is_given_a_place_is_known_to_write_there(name):
    """Where several processes train one net, it is called in one of them alone."""
    first = next(iter(inspect.signature(getattr(callbacks, name)).parameters))
    assert getattr(getattr(callbacks, name), "writes", False) == (first in ("path", "folder"))


def test_csv_has_a_row_as_soon_as_it_is_known_and_goes_on(net, tmp_path):
    path = tmp_path / "log.csv"
    lengths = []
    logger = CSVLogger(path)
    first = train(net, [logger, lambda net, logs: lengths.append(len(path.read_text().splitlines()))], metrics="mae")
    second = train(net, logger, epochs=2, metrics="mae")
    assert lengths == [2, 3, 4, 5, 6]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "mae", "seconds"]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 1, 2]
    assert [float(row["loss"]) for row in rows] == first["loss"] + second["loss"]


def test_csv_of_a_training_that_is_resumed_has_each_epoch_once(net, tmp_path):
    path, saved = tmp_path / "log.csv", tmp_path / "net.npz"

    def epochs():
        return [int(line.split(",")[0]) for line in path.read_text().splitlines()[1:]]

    def kill(net, logs):
        if epochs()[-1] == 4:
            raise ZeroDivisionError

    class Saves(Checkpoint):
        def epoch(self, run, logs):
            if run.epoch <= 2:
                super().epoch(run, logs)

    train(net, CSVLogger(path), epochs=3)  # another training, whose rows stay
    with pytest.raises(ZeroDivisionError):
        train(net, [Saves(saved), CSVLogger(path), kill])
    assert epochs() == [1, 2, 3, 1, 2, 3, 4]
    train(net, [Saves(saved), CSVLogger(path), lambda net, logs: None], resume=saved)
    assert epochs() == [1, 2, 3, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("resumes", [1, 2])
def test_csv_has_each_epoch_once_after_a_resume_from_within_the_first(net, tmp_path, resumes):
    """The rows of another training, also one that wrote to the file afterwards, stay."""
    path, saved = tmp_path / "log.csv", tmp_path / "net.npz"

    class InTheFirst(Checkpoint):
        def epoch(self, run, logs):
            pass

    train(net, CSVLogger(path), epochs=2)
    train(net, [InTheFirst(saved, every=3), CSVLogger(path), Begin(lambda run: None)], epochs=1)
    for _ in range(resumes):
        train(net, [InTheFirst(tmp_path / "b.npz", every=100), CSVLogger(path)], epochs=3, resume=saved)
    epochs = [int(line.split(",")[0]) for line in path.read_text().splitlines()[1:]]
    assert epochs == [1, 2, 1, 2, 3]


def test_csv_of_a_stack_is_its_frame(tmp_path):
    pytest.importorskip("pandas")
    path, saved = tmp_path / "log.csv", tmp_path / "net.npz"
    nets = [layers.Model([layers.Linear(1)], seed=0, copies=12) for _ in range(2)]
    train(nets[0], [CSVLogger(path), Checkpoint(saved)], epochs=2, validation=0.25, metrics="mae")
    history = train(nets[1], [CSVLogger(path), Checkpoint(saved)], validation=0.25, metrics="mae", resume=saved)
    frame = history.to_frame()
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["epoch", *frame.columns]
    assert len(header) == 2 + 4 * 12
    np.testing.assert_array_equal(np.array(rows, float), frame.reset_index())


HEADER = "epoch,loss,seconds"


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (HEADER, ""),  # of the rows of before
        ("epoch,lo", ""),
        (f"{HEADER}\n1,0.5,0.25\n2,0.25,0.5", "1,0.5,0.25\n2,0.25,0.5\n"),  # an editor left out the last end
        (f"{HEADER}\n1,0.5,0.25\n2,0.2", "1,0.5,0.25\n"),
        (f"{HEADER}\n1,0.5,0.25\n1", "1,0.5,0.25\n"),
        (f"{HEADER}\r\n1,0.5,0.25\r\n2,0.25,2.5", "1,0.5,0.25\r\n"),  # torn: maybe 2.5e-05
    ],
)
def test_csv_glues_no_row_to_a_line_without_an_end(net, tmp_path, before, kept):
    path = tmp_path / "log.csv"
    path.write_bytes(before.encode())
    history = train(net, CSVLogger(path), epochs=2)
    rows = [f"{epoch},{history['loss'][epoch - 1]!r},{history['seconds'][epoch - 1]!r}\r\n" for epoch in (1, 2)]
    assert path.read_bytes().decode().splitlines() == f"{HEADER}\n{kept}{''.join(rows)}".splitlines()


def test_csv_of_other_columns_is_left_as_it_is(net, tmp_path):
    path = tmp_path / "log.csv"
    train(net, CSVLogger(path))
    path.write_bytes(path.read_bytes()[:-9])  # torn
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"columns.*mae.*file of its own"):
        train(net, CSVLogger(path), metrics="mae")
    assert path.read_bytes() == before


def test_csv_looks_for_its_folder_before_the_first_step(net, tmp_path):
    rule = optim.SGD()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(net, CSVLogger(tmp_path / "nowhere" / "log.csv"), optim=rule)
    assert rule.t == 0
