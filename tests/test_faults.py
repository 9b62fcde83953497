"""Faults as they come: a process killed, a disk that is full, a folder that takes no file, Ctrl-C at a bad moment, two
writers of one path, numbers that run away after a training went on. The real thing each time, no mock of it."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise import files
from layerwise.callbacks import Checkpoint

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(1)
X = RNG.standard_normal((40, 3)).astype(np.float32)
Y = X[:, :1] * X[:, 1:2]


def make(*within, seed=0):
    return layers.Model([layers.Linear(6), layers.BatchNorm(), layers.Tanh(), *within, layers.Linear(1)], seed)


def train(net, callbacks=(), epochs=3, **options):
    """Three epochs of four steps."""
    settings = dict(optim=optim.Adam(), loss=loss.MSE(), epochs=epochs, batch_size=10, verbose=False)
    return net.train(X, Y, callbacks=callbacks, **settings | options)


def start(script, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


# Killed ------------------------------------------------------------------------------------------------------------

KILLED = """
    import os, signal, sys, threading, time
    import numpy as np
    import layers, loss, optim
    from layerwise.callbacks import Checkpoint

    path, out, after = sys.argv[1], sys.argv[2], float(sys.argv[3])
    rng = np.random.default_rng(5)
    x = rng.standard_normal((120, 8)).astype(np.float32)
    net = layers.Model([layers.Linear(32), layers.BatchNorm(), layers.Tanh(), layers.Dropout(0.2), layers.Linear(2)], 1)

    class Kill:
        def begin(self, run):
            if after:  # SIGKILL at that moment, whatever is being done
                threading.Thread(target=lambda: (time.sleep(after), os.kill(os.getpid(), signal.SIGKILL))).start()

        def step(self, run):
            self.steps = run.step

    net.train(x, np.tanh(x[:, :2]), optim=optim.Average(optim.Adam(), 0.9), loss=loss.MSE(), epochs=20, batch_size=8,
              verbose=False, callbacks=[Kill(), Checkpoint(path, every=2)], resume=path)
    np.savez(out, net.vector)
"""


def test_killed_at_random_moments(tmp_path):
    """One training, killed again and again, always from its last file."""
    times = int(os.environ.get("LAYERWISE_KILLS", "6"))
    whole = start(KILLED, tmp_path / "whole.npz", tmp_path / "a.npz", 0)
    assert whole.communicate(timeout=120)[1] == ""
    path, killed, steps = tmp_path / "killed.npz", 0, []
    for after in np.random.default_rng(0).uniform(0.0, 0.06, times):
        run = start(KILLED, path, tmp_path / "b.npz", after)
        assert run.communicate(timeout=120)[1] == ""
        killed += run.returncode == -signal.SIGKILL
        if path.exists():
            assert np.isfinite(model.load(path).predict(np.ones((1, 8)))).all()
            steps.append(dict(files.read(path)[0]["training"]["dict"])["step"])
    assert killed >= times // 2
    assert steps == sorted(steps)
    assert start(KILLED, path, tmp_path / "b.npz", 0).communicate(timeout=120)[1] == ""
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["arr_0"], np.load(tmp_path / "b.npz")["arr_0"])


# No place for the file ---------------------------------------------------------------------------------------------

FULL = """
    import resource, signal, sys
    import numpy as np
    import layers, loss, model, optim
    from layerwise.callbacks import Checkpoint

    path, limit = sys.argv[1], int(sys.argv[2])
    x = np.random.default_rng(0).standard_normal((40, 3))
    net = layers.Model([layers.Linear(200), layers.Tanh(), layers.Linear(1)], 0)

    class Fill:
        def step(self, run):
            if run.step == 4 and limit:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    try:
        net.train(x, x[:, :1], epochs=5, batch_size=10, verbose=False,
                  callbacks=[Checkpoint(path, every=2), Fill()])
    except OSError as error:
        print(error.errno, error)
    print(net.training, np.isfinite(net.predict(x)).all(), net.train(x, x[:, :1], epochs=1, verbose=False).epochs)
"""


@pytest.fixture(params=["limit", "disk"])
def small_place(request, tmp_path):
    """A folder with room for one file of that net and not for two, the limit on a file's size there, and the error: a
    disk of 24 kB where one may be mounted, and everywhere a limit on the size of files."""
    if request.param == "limit":
        yield tmp_path, 4000, errno.EFBIG
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", tmp_path]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk may be mounted here: the limit stands for it")
    try:
        yield tmp_path, 0, errno.ENOSPC
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_that_has_no_room_leaves_the_old_one(small_place, suffix):
    folder, limit, number = small_place
    path = folder / f"net{suffix}"
    out, err = start(FULL, path, limit).communicate(timeout=120)
    assert err == ""
    said, usable = out.splitlines()
    assert int(said.split()[0]) == number
    assert "the disk is full" in said
    assert str(path) in said
    assert usable == "False True 1"
    assert list(folder.iterdir()) == [path]
    assert model.load(path).layers[0].w.shape == (3, 200)


def places_that_take_no_file(tmp_path):
    (tmp_path / "file").write_text("no folder")
    yield tmp_path / "file" / "net.npz", "no folder"
    yield tmp_path / "none" / "net.npz", "no folder"
    if Path("/proc/self/fd").is_dir():
        yield Path("/proc/self/net.npz"), "/proc/self"  # a folder that even root can't write in


def test_a_folder_that_takes_no_file_is_named_before_the_first_step(tmp_path, snapshot):
    for path, words in places_that_take_no_file(tmp_path):
        net, rule = make().build((3,)), optim.Adam()
        before = snapshot(net, rule)
        with pytest.raises(OSError, match=words):
            net.save(path)
        with pytest.raises(OSError, match=words):
            train(net, Checkpoint(path, every=1), optim=rule)
        after = snapshot(net, rule)
        apart = ("optim", "loss", "optimizer")  # the optimizer has state for this net now, all of it zeros
        if words != "/proc/self":  # that one is met at the first file only
            assert [name for name in after if after[name] != before[name] and name not in apart] == []
        assert not net.training
        assert train(net).epochs == 3


# Ctrl-C ------------------------------------------------------------------------------------------------------------


class Press(layers.Layer):
    """Passes all through, and Ctrl-C is pressed while it does, at one step or the steps of a list."""

    def __init__(self, *at):
        self.at, self.steps = at, 0

    def forward(self, x, training):
        self.steps += training
        if training and self.steps in self.at:
            signal.raise_signal(signal.SIGINT)
        return x

    def backward(self, grad):
        return grad


class Last:
    at = 0

    def step(self, run):
        self.at = run.step


def test_ctrl_c_within_a_step_lets_it_end():
    net, last = make(Press(7)), Last()
    history = train(net, last)
    assert (history.interrupted, history.epochs, last.at) == (True, 1, 7)
    assert not net.training
    other, stopped = make(Press()), []

    def stop(run):
        stopped.append(run.step)
        return run.step == 7

    other_last = Last()
    other_last.step = stop
    train(other, other_last)  # the same step as the last, without Ctrl-C
    np.testing.assert_array_equal(net.vector, other.vector)


def test_a_second_ctrl_c_within_a_step_raises_there():
    class Twice(Press):
        def forward(self, x, training):
            super().forward(x, training)
            return super().forward(x, False)

        def backward(self, grad):
            if self.steps in self.at:
                signal.raise_signal(signal.SIGINT)
            return grad

    net, last = make(Twice(6)), Last()
    with pytest.raises(KeyboardInterrupt):
        train(net, last)
    assert last.at == 5
    assert not net.training
    assert np.isfinite(net.predict(X)).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train(net).epochs == 3


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_within_a_save(tmp_path, monkeypatch, times):
    """Once: the file is written and the training ends. Twice: the old file stays, and nothing beside it. The third file
    is that of the first epoch's end."""
    path, real, presses = tmp_path / "net.npz", os.fsync, []

    def press(handle):
        presses.append(handle)
        if len(presses) == 3:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        real(handle)

    monkeypatch.setattr(os, "fsync", press)
    net, last = make(), Last()
    if times == 1:
        history = train(net, [Checkpoint(path, every=2), last])
        assert (history.interrupted, history.epochs, last.at) == (True, 1, 4)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(net, [Checkpoint(path, every=2), last])
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    whole, again = make(), make(seed=5)
    train(whole, [Checkpoint(tmp_path / "whole.npz", every=2), Last()])
    train(again, [Checkpoint(path, every=2), Last()], resume=path)
    np.testing.assert_array_equal(again.vector, whole.vector)


def test_ctrl_c_within_a_save_by_hand(tmp_path, monkeypatch):
    net, path, real = make().build((3,)), tmp_path / "net.npz", os.fsync
    net.save(path)
    old = path.read_bytes()
    net[0].w += 1

    def press(handle):
        signal.raise_signal(signal.SIGINT)
        real(handle)

    monkeypatch.setattr(os, "fsync", press)
    with pytest.raises(KeyboardInterrupt):
        net.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


# A callback that raises --------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


class Breaks:
    """Raises in one of its methods, within epoch 2 or at its end."""

    def __init__(self, where, at=6):
        self.where, self.at = where, at

    def step(self, run):
        self.note(run, "step", run.step == self.at)

    def epoch(self, run, logs):
        self.note(run, "epoch", run.epoch == 2)

    def end(self, run):
        self.note(run, "end", True)

    def note(self, run, where, now):
        if now and where == self.where:
            raise Broken(where)


@pytest.mark.parametrize("where", ["step", "epoch", "end"])
def test_a_callback_that_raises(tmp_path, capsys, where):
    """The bar is closed, the net shows the evaluation weights and trains again, the checkpoint is whole."""
    from tqdm.auto import tqdm

    net, path, rule = make(), tmp_path / "net.npz", optim.Average(optim.Adam(), decay=0.5)
    with pytest.raises(Broken, match=where):
        train(net, [Checkpoint(path, every=2), Breaks(where)], optim=rule, verbose=True)
    assert not [bar for bar in tqdm._instances if not bar.disable]
    capsys.readouterr()
    assert not net.training
    shown = net.vector.copy()
    with rule.evaluation_weights(net):
        np.testing.assert_array_equal(net.vector, shown)
    rule.prepare(net)
    assert not np.array_equal(net.vector, shown)  # the training weights are others
    rule.finish(net)
    assert list(tmp_path.iterdir()) == [path]
    whole, again = make(), make(seed=4)
    train(whole, [Checkpoint(tmp_path / "w.npz", every=2), Breaks("")], optim=optim.Average(optim.Adam(), decay=0.5))
    train(again, [Checkpoint(path, every=2), Breaks("")], optim=optim.Average(optim.Adam(), decay=0.5), resume=path)
    np.testing.assert_array_equal(again.vector, whole.vector)
    assert train(net, optim=rule).epochs == 3


# Two writers -------------------------------------------------------------------------------------------------------

WRITER = """
    import sys
    import numpy as np
    import layers

    path, value = sys.argv[1], float(sys.argv[2])
    net = layers.Model([layers.Linear(300, init=value)], 0).build((50,))
    print("ready", flush=True)
    for _ in range(40):
        net.save(path)
"""


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_two_processes_that_save_to_one_path(tmp_path, suffix):
    path, seen = tmp_path / f"net{suffix}", set()
    writers = [start(WRITER, path, value) for value in (1, 2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    while any(writer.poll() is None for writer in writers) or not seen:
        if path.exists():
            values = np.unique(model.load(path)[0].w)
            assert values.size == 1
            seen.add(float(values[0]))
    assert [writer.communicate(timeout=60)[1] for writer in writers] == ["", ""]
    assert seen <= {1.0, 2.0}
    assert list(tmp_path.iterdir()) == [path]


# What a resumed training goes back to ------------------------------------------------------------------------------


class Poison:
    """From a step on, a weight is not a number: the loss of the next step isn't one either."""

    def __init__(self, at):
        self.at = at

    def step(self, run):
        if run.step == self.at:
            run.net[0].w[0, 0] = np.nan


def test_a_divergence_after_going_on_within_an_epoch_goes_back_to_where_it_went_on(tmp_path, snapshot):
    """The file has no other good moment: what came before it in its epoch is not in it."""
    path = tmp_path / "net.npz"
    with pytest.raises(Broken):
        train(make(), [Checkpoint(path, every=2), Breaks("step", at=7), Poison(0)])
    net, rule = make(), optim.Adam()
    with pytest.raises(model.DivergenceError, match="epoch 2, step 8") as caught:
        train(net, [Checkpoint(path, every=50), Breaks(""), Poison(7)], optim=rule, resume=path)
    assert caught.value.history.epochs == 1
    at_six, sixth = make(), optim.Adam()
    with pytest.raises(Broken):
        train(at_six, [Breaks("step")], optim=sixth)
    np.testing.assert_array_equal(net.vector, at_six.vector)
    assert snapshot(None, rule)["optimizer"] == snapshot(None, sixth)["optimizer"]
