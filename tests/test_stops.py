"""How a training ends before its time: Ctrl-C, and numbers that run away."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import layers
import loss
import model
import optim

X = np.random.default_rng(0).normal(size=(40, 3))
Y = X @ [[1.0], [-2.0], [0.5]]


@pytest.fixture
def net():
    return layers.Model([layers.Linear(4), layers.BatchNorm(), layers.Tanh(), layers.Linear(1)], seed=0)


def train(net, watchers=(), epochs=5, **options):
    """Five epochs of four steps."""
    return net.train(X, Y, epochs=epochs, batch_size=10, callbacks=watchers, verbose=False, **options)


class Last:
    """Remembers the last epoch and step, and whether the end was told."""

    def step(self, run):
        self.at = run.epoch, run.step

    def end(self, run):
        self.ended = run.epoch, run.step


# Ctrl-C ------------------------------------------------------------------------------------------------------


def press(*_):
    os.kill(os.getpid(), signal.SIGINT)


class PressAt:
    def __init__(self, step, times=1):
        self.at, self.times = step, times

    def step(self, run):
        if run.step == self.at:
            for _ in range(self.times):
                press()


def test_ctrl_c_ends_after_the_step_under_way(net):
    last = Last()
    handler = signal.getsignal(signal.SIGINT)
    history = train(net, [PressAt(10), last])
    assert history.interrupted
    assert history.epochs == 2  # eight steps
    assert last.at == last.ended == (2, 10)
    assert signal.getsignal(signal.SIGINT) is handler
    assert np.isfinite(net.predict(X)).all()
    repeated = train(net)
    assert repeated.epochs == 5
    assert not repeated.interrupted


def test_ctrl_c_in_a_callback_keeps_the_epoch(net):
    history = train(net, press)
    assert history.interrupted
    assert history.epochs == 1


def test_a_second_ctrl_c_raises_at_once(net):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(net, PressAt(3, times=2))
    assert signal.getsignal(signal.SIGINT) is handler
    assert not net.training
    assert train(net).epochs == 5


def test_a_training_in_another_thread_leaves_signals_alone(net):
    done = []
    thread = threading.Thread(target=lambda: done.append(train(net)))
    thread.start()
    thread.join()
    assert done[0].epochs == 5


ENDLESS = """
import numpy as np
import layers

net = layers.Model([layers.Linear(4), layers.Linear(1)], seed=0)
x = np.ones((64, 3))
say = lambda net, logs: print("epoch", flush=True)
history = net.train(x, x[:, :1], epochs=10**9, callbacks=say, verbose=False)
print(history.interrupted, history.epochs == len(history["loss"]) > 0, np.isfinite(net.predict(x)).all())
"""


def test_ctrl_c_from_a_terminal(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    assert process.stdout.readline() == "epoch\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "True True True"
    assert (process.returncode, err) == (0, "")


# Numbers that run away ---------------------------------------------------------------------------------------


class Faulty(layers.Layer):
    """Passes everything through, until the given step; then not a number, forwards or backwards."""

    def __init__(self, at, back=False):
        self.at, self.back, self.steps = at, back, 0

    def forward(self, x, training):
        self.steps += training
        return x * np.nan if training and not self.back and self.steps >= self.at else x

    def backward(self, grad):
        return grad * np.inf if self.back and self.steps >= self.at else grad


class FaultyLoss(loss.MSE):
    def __init__(self, at):
        super().__init__()
        self.at, self.calls = at, 0

    def __call__(self, pred, real, sample_weight=None):
        self.calls += 1
        value = super().__call__(pred, real, sample_weight)
        return value if self.calls < self.at else float("nan")


def faulty_rule(at):
    """An optimizer of one's own that spoils the weights at a step."""
    rule, steps = optim.SGD(lr=0.01), []

    def update(net, loss):
        rule(net, loss)
        steps.append(1)
        if len(steps) >= at:
            net[0].w[0, 0] = np.inf

    return update


def with_fault(fault, at):
    """A net, its optimizer and loss, of which one fails at step `at`."""
    between = [Faulty(at, back=fault == "gradient")] if fault in ("output", "gradient") else []
    sections = [layers.Linear(4), *between, layers.BatchNorm(), layers.Dropout(0.2), layers.Linear(1)]
    value = FaultyLoss(at) if fault == "loss" else loss.MSE()
    rule = faulty_rule(at) if fault == "parameter" else optim.Adam()
    return layers.Model(sections, seed=0), rule, value


FAULTS = [  # what fails, at which step, the epoch and step that the message names, and where it says it was
    ("output", 1, 1, 1, r"the output of Faulty \(layers\.1\)"),
    ("output", 10, 3, 10, r"the output of Faulty \(layers\.1\)"),
    ("gradient", 3, 1, 3, r"the gradient of Linear \(layers\.0\)\.w"),
    ("gradient", 12, 3, 12, r"the gradient of Linear \(layers\.0\)\.w"),
    ("loss", 1, 1, 1, "the loss"),
    ("loss", 9, 3, 9, "the loss"),
    ("parameter", 2, 1, 3, r"Linear \(layers\.0\)\.w"),  # seen in the step after
    ("parameter", 8, 2, 8, r"Linear \(layers\.0\)\.w"),  # seen at the end of the epoch
]


@pytest.mark.parametrize(("fault", "at", "epoch", "step", "where"), FAULTS)
def test_a_divergence_is_named_and_taken_back(snapshot, fault, at, epoch, step, where):
    net, rule, value = with_fault(fault, at)
    ours = rule if isinstance(rule, optim.Optimizer) else None
    good = []

    class Keep:
        def begin(self, run):
            assert all([net._order, *(leaf.rngs for leaf in net.leaf_layers() if leaf.random)])  # made when asked for
            good.append(snapshot(net, ours))

        def epoch(self, run, logs):
            good.append(snapshot(net, ours))

    options = {"optim": rule, "loss": value}
    with pytest.raises(model.DivergenceError, match=rf"epoch {epoch}, step {step}: .*is in {where}\.") as caught:
        train(net, Keep(), **options)
    assert isinstance(caught.value, ArithmeticError)
    assert len(good) == epoch
    assert snapshot(net, ours) == good[-1] | {"training": False}
    assert np.isfinite(net.predict(X)).all()


def test_a_rate_too_high_diverges_and_says_what_helps():
    net = layers.Model([layers.Linear(1)], seed=0)
    with pytest.raises(model.DivergenceError, match="learning rate"):
        train(net, optim=optim.SGD(lr=1e6), epochs=100)
    assert np.isfinite(net.vector).all()
    history = train(net, optim=optim.SGD(lr=0.01))
    assert np.isfinite(history["loss"]).all()


def test_a_squared_gradient_that_overflows_is_named():
    net = layers.Model([layers.Linear(1)], seed=0)
    with pytest.raises(model.DivergenceError, match=r"is in the gradient of Linear \(layers\.0\)\.w"):
        net.train(X * 1e19, Y, optim=optim.SGD(lr=1e-3), loss=loss.MAE(reduction="sum"), verbose=False)


@pytest.mark.parametrize("where", ["metric", "callback", "data"])
def test_an_arithmetic_error_of_the_users_own_is_no_divergence(net, where):
    def divide(*_):
        return 1 / 0

    def data():
        yield X, Y
        divide()

    options = {"metric": {"metrics": divide}, "callback": {"callbacks": divide}, "data": {}}[where]
    with pytest.raises(ZeroDivisionError):
        net.train(*((data(),) if where == "data" else (X, Y)), epochs=1, verbose=False, **options)
