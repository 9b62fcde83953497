"""Ctrl-C at any moment of a training, once or again and again. Afterwards the net stands where a step has left it and
trains on, every file is whole and alone, and what is resumed ends with the bits of the training that nobody disturbed.

Two kinds: at the n-th line of the library that a training runs, whichever that is; and by a clock, several times, each
time going on from the file.

    PYTHONPATH=. python tests/test_fuzz_ctrl_c.py 10000        so many of each, with the counts of what came of them
"""

import collections
import contextlib
import csv
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise import schedules
from layerwise.callbacks import Checkpoint, CSVLogger, EarlyStopping

ROOT = Path(__file__).resolve().parent.parent
OURS = tuple(str(ROOT / name) for name in ("layers.py", "loss.py", "optim.py", "model.py", "layerwise"))

RNG = np.random.default_rng(2)
X = RNG.standard_normal((24, 3)).astype(np.float32)
Y = np.tanh(X[:, :2] * X[:, 1:])
EPOCHS, STEPS = 2, 4


def net(*within, copies=None):
    members = [layers.Linear(4), *within, layers.Tanh(), layers.Dropout(0.2), layers.Linear(2)]
    return layers.Model(members, seed=5, copies=copies)


def averaged():
    return optim.Average(optim.Clip(optim.AdamW(schedules.Cosine(0.1, 0.01, 30)), norm=1.0), 0.9)


def per_layer():
    return optim.PerLayer({"layers.0*": optim.SGD(0.1, 0.9), "*": optim.RMSProp(0.01)})


TRAININGS = {  # name: (net, optimizer, further settings)
    "normed": (lambda: net(layers.BatchNorm()), optim.Adam, {"validation": 0.25, "metrics": "mae", "batch_size": 5}),
    "stopping": (net, optim.NAdam, {"validation": 0.25, "batch_size": 5, "callbacks": [EarlyStopping]}),
    "averaged": (net, averaged, {}),
    "accumulated": (net, lambda: optim.Accumulate(optim.Adam(), 3), {}),
    "per layer": (net, per_layer, {"sample_weight": np.linspace(0.5, 2, 24)}),
    "curved": (net, lambda: optim.LBFGS(0.5, steps=2), {}),
    "sharp": (net, lambda: optim.SAM(optim.SGD(0.1, 0.9)), {"shuffle": False}),
    "stack": (lambda: net(copies=3), lambda: optim.Momentum(np.array([0.01, 0.1, 0.02])), {"validation": (X, Y)}),
}


class Steps:
    """What the net shows after each step, and its optimizer's number of steps."""

    def __init__(self):
        self.shown = []

    def step(self, run):
        with run.optim.evaluation_weights(run.net):
            self.shown.append(run.net.vector.tobytes())


def train(name, folder, watching=(), resume=None):
    """The net, its optimizer, and a function that trains."""
    make, rule, settings = TRAININGS[name]
    trained, rule = make().build((3,)), rule()
    settings = {"batch_size": 6, "epochs": EPOCHS, "loss": loss.MSE(), "verbose": False} | settings
    own = [each() for each in settings.pop("callbacks", ())]
    watch = [Checkpoint(folder / "net.npz", every=2), CSVLogger(folder / "log.csv"), *own, *watching]
    return trained, rule, lambda: trained.train(X, Y, rule, callbacks=watch, resume=resume, **settings)


class Undisturbed:
    """A training from start to end: what a disturbed one is held against."""

    def __init__(self, name, folder):
        steps = Steps()
        trained, _, go = train(name, folder, watching=[steps])
        self.start = trained.vector.tobytes()
        self.history, self.rows = lists(go()), rows(folder)
        self.end, self.shown = trained.vector.tobytes(), steps.shown


def lists(history):
    return {name: np.array(history[name]).tolist() for name in history if name != "seconds"}


def rows(folder):
    with open(folder / "log.csv") as file:
        return [{name: each for name, each in row.items() if name != "seconds"} for row in csv.DictReader(file)]


class AtLine:
    """Ctrl-C, `times` times, at the n-th line that the library runs."""

    def __init__(self, at, times):
        self.left, self.times = at, times

    def __call__(self, frame, event, argument):
        return self.line if frame.f_code.co_filename.startswith(OURS) else None

    def line(self, frame, event, argument):
        if event == "line":
            self.left -= 1
            if self.left <= 0 and self.times:
                self.times -= 1
                signal.raise_signal(signal.SIGINT)
        return self.line


@contextlib.contextmanager
def traced(function):
    before = sys.gettrace()
    sys.settrace(function)
    try:
        yield
    finally:
        sys.settrace(before)


def whole(folder):
    """The files are those that belong there, and each can be read."""
    names = {each.name for each in folder.iterdir()}
    assert names <= {"net.npz", "log.csv"}, f"left behind: {names}"
    if "net.npz" in names:
        assert np.isfinite(model.load(folder / "net.npz").predict(X)).all()


def goes_on(name, folder, expected):
    """The training goes on from its file, if there is one, to the end that it would have had."""
    trained, _, go = train(name, folder, resume=folder / "net.npz")
    history = go()
    assert trained.vector.tobytes() == expected.end, "resumed, it ends elsewhere"
    assert lists(history) == expected.history, "resumed, its history is another"
    assert rows(folder) == expected.rows, "resumed, its log is another"


def at_line(name, folder, expected, at, times, resume):
    """One training with Ctrl-C at that line; what came of it."""
    if resume:
        with contextlib.suppress(Crash):
            train(name, folder, watching=[Ends(6)])[2]()
    trained, rule, go = train(name, folder, resume=folder / "net.npz" if resume else None)
    press, outcome, history = AtLine(at, times), "finished", None
    try:
        with traced(press):
            history = go()
        outcome = "interrupted" if history.interrupted else outcome
        assert press.times == times or history.interrupted, "Ctrl-C was lost"
    except KeyboardInterrupt:
        outcome = "raised"
    if press.times == times:
        outcome = "beyond the end"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not trained.training
    assert np.isfinite(trained.predict(X)).all()
    if times == 1:
        place = [expected.start, *expected.shown].index(trained.vector.tobytes())  # no net between two steps
        if history is not None and name != "stopping":  # which goes back to its best weights
            assert history.epochs in (place // STEPS, max(0, place - 1) // STEPS)
    whole(folder)
    assert np.isfinite(trained.train(X, Y, rule, loss.MSE(), epochs=1, batch_size=6, verbose=False)["loss"]).all()
    goes_on(name, folder, expected)
    return outcome


class Ends:
    """Ends a training as a crash does, after a step."""

    def __init__(self, at):
        self.at = at

    def step(self, run):
        if run.step == self.at:
            raise Crash


class Crash(Exception):
    pass


def by_clock(name, folder, expected, rng, longest):
    """Ctrl-C at random moments, one to three times, and again when it goes on, until the training ends."""
    for _ in range(100):
        times = int(rng.choice([1, 1, 2, 3]))
        delays = iter(np.sort(rng.uniform(0, longest, times)).tolist())

        trained, _, go = train(name, folder, resume=folder / "net.npz")

        def press(number, frame, delays=delays, training=go.__code__):
            following = next(delays, None)
            if following is not None:
                signal.setitimer(signal.ITIMER_REAL, max(following / 3, 1e-6))
            while frame is not None and frame.f_code is not training:
                frame = frame.f_back
            if frame is not None:  # else it comes between the training's end and the clock's
                signal.raise_signal(signal.SIGINT)

        history, before = None, signal.signal(signal.SIGALRM, press)
        try:
            signal.setitimer(signal.ITIMER_REAL, max(next(delays), 1e-6))
            history = go()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert not trained.training
        assert np.isfinite(trained.predict(X)).all()
        whole(folder)
        if history is not None and history.epochs == EPOCHS:
            break
    goes_on(name, folder, expected)
    return "ended"


class Count:
    """How many lines the library runs."""

    lines = 0

    def __call__(self, frame, event, argument):
        return self.line if frame.f_code.co_filename.startswith(OURS) else None

    def line(self, frame, event, argument):
        self.lines += event == "line"
        return self.line


def lines_of(name, folder):
    count = Count()
    with traced(count):
        train(name, folder)[2]()
    return count.lines


def fuzz(first, last, place):
    """Counts by kind and outcome, and what went wrong."""
    counts, wrong, slowest, known = collections.Counter(), [], 0.0, {}
    for number in range(first, last):
        rng = np.random.default_rng((3, number))
        name = list(TRAININGS)[number % len(TRAININGS)]
        if name not in known:
            expected, began = Undisturbed(name, fresh(place)), time.perf_counter()
            train(name, fresh(place))[2]()
            seconds = time.perf_counter() - began
            known[name] = expected, lines_of(name, fresh(place)), seconds
        expected, lines, seconds = known[name]
        at, times, resume = int(rng.integers(1, lines)), int(rng.choice([1, 1, 2])), rng.random() < 0.3
        for kind in ("line", "clock"):
            began = time.perf_counter()
            try:
                if kind == "line":
                    outcome = at_line(name, fresh(place), expected, at, times, resume)
                else:
                    outcome = by_clock(name, fresh(place), expected, rng, seconds)
                counts[f"{kind}: {outcome}"] += 1
            except (Exception, KeyboardInterrupt) as error:
                told = f"{name}, {kind} {at}, {times} times" + ", resumed" * resume
                wrong.append((number, told, f"{type(error).__name__}: {error}"[:300]))
            slowest = max(slowest, time.perf_counter() - began)
    return {"counts": dict(sorted(counts.items())), "wrong": wrong, "slowest": round(slowest, 3)}


def fresh(place):
    """An empty folder."""
    for each in place.iterdir():
        each.unlink()
    return place


class AtLineFromEnd(AtLine):
    """The lines are counted from when the callbacks are told of the end."""

    begun = False

    def end(self, run):
        self.begun = True

    def line(self, frame, event, argument):
        return super().line(frame, event, argument) if self.begun else self.line


def test_ctrl_c_at_each_of_the_last_lines_of_a_training_is_told(tmp_path):
    for at in range(1, 1000):
        press = AtLineFromEnd(at, 1)
        _, _, go = train("averaged", fresh(tmp_path), watching=[press])
        try:
            with traced(press):
                interrupted = go().interrupted
        except KeyboardInterrupt:
            continue
        if press.times:
            break
        assert interrupted, f"lost at line {at}"
    assert 10 < at < 999


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")  # a file not closed
def test_ctrl_c_at_any_moment_of_a_training(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what a power cut leaves is not asked here
    told = fuzz(0, 16, tmp_path)
    assert told["wrong"] == []
    assert told["counts"]["line: interrupted"] > 4
    assert told["counts"]["clock: ended"] == 16


if __name__ == "__main__":
    os.fsync = lambda _: None
    span = [int(each) for each in sys.argv[1].split("-")]
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(fuzz(*(span if len(span) == 2 else (0, *span)), Path(place)), indent=1))
