"""Faults as they come: a process killed, a disk that is full, a folder that takes no file, Ctrl-C at a bad moment, two
writers of one path, numbers that run away after a training went on. The real thing each time, no mock of it."""

import contextlib
import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise import pictures
from layerwise.callbacks import Checkpoint, CSVLogger, EarlyStopping
from layerwise.compare import Comparison, compare
from layerwise.core import base, files

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
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
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


APPENDED = """
    import resource, signal, sys
    import numpy as np
    from layerwise.compare.sweepfile import Results, Runs

    path, limit = sys.argv[1], int(sys.argv[2])
    question = {"seeds": [0], "steps": 150, "problem": {}, "optimizers": {}}
    results = Results(path, question)
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    added = 0
    try:
        while True:
            results.add(f"rule {added}", 0.1, Runs(np.full((1, 151), added, float), np.ones(1)))
            added += 1
    except OSError as error:
        print(error.errno, added, len(Results(path, question).found))
"""


def test_a_sweep_that_has_no_room_leaves_whole_lines(small_place):
    folder, limit, number = small_place
    path = folder / "runs.jsonl"
    out, err = start(APPENDED, path, limit and 2 * limit).communicate(timeout=120)
    assert err == ""
    said, added, found = map(int, out.split())
    assert (said, added) == (number, found)
    assert added > 2
    for each in (path, path.with_name("runs.timings.jsonl")):
        assert each.read_bytes().endswith(b"\n")
    assert len(path.read_bytes().splitlines()) == 1 + added


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
    whole, repeated = make(), make(seed=5)
    train(whole, [Checkpoint(tmp_path / "whole.npz", every=2), Last()])
    train(repeated, [Checkpoint(path, every=2), Last()], resume=path)
    np.testing.assert_array_equal(repeated.vector, whole.vector)


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


class EachLine:
    """Ctrl-C at the n-th line that is run in the writer of files, or in zipfile."""

    def __init__(self, at):
        self.left = at

    def __call__(self, frame, event, argument):
        code = frame.f_code
        ours = code.co_filename in (files.__file__, zipfile.__file__) and code.co_name not in ("__init__", "__del__")
        return self.line if ours else None

    def line(self, frame, event, argument):
        self.left -= event == "line"
        if self.left == 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return self.line


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")  # a file not closed
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_ctrl_c_at_every_line_of_a_save(tmp_path, suffix, monkeypatch):
    """KeyboardInterrupt it is, each time, one of the two files is there, whole, and nothing beside it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # 400 times
    nets = [layers.Model([layers.Linear(1, bias=False)], seed).build((1,)) for seed in (1, 2)]
    path = tmp_path / f"net{suffix}"
    nets[0].save(path)
    whole, before = path.read_bytes(), sys.gettrace()
    nets[1].save(path)
    either, at, ended = {whole, path.read_bytes()}, 0, False
    while not ended:
        at += 1 if suffix == ".safetensors" else 3
        try:
            sys.settrace(EachLine(at))
            nets[at % 2].save(path)
            ended = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert path.read_bytes() in either
        assert list(tmp_path.iterdir()) == [path]
    assert at > 100


# What a killed writer left -------------------------------------------------------------------------------------------

WRITING = """
    import os, sys
    import layers

    net = layers.Model([layers.Linear(3, init=2.0)], 0).build((2,))
    real = os.fsync

    def wait(handle):
        print("writing", flush=True)
        sys.stdin.readline()
        real(handle)

    os.fsync = wait
    net.save(sys.argv[1])
"""


@pytest.mark.parametrize("name", ["net.npz", "n" * 200 + ".npz"])
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, name):
    path, net = tmp_path / name, layers.Model([layers.Linear(3, init=1.0)], 0).build((2,))
    running, killed = (start(WRITING, path) for _ in range(2))
    assert [writer.stdout.readline() for writer in (running, killed)] == ["writing\n"] * 2
    assert len(list(tmp_path.glob(".*.part"))) == 2
    killed.terminate()
    killed.communicate(timeout=60)
    (tmp_path / f".{name}.bak.part").touch()
    net.save(path)
    assert (model.load(path)[0].w == 1).all()
    members = [each.name for each in tmp_path.iterdir() if each != path]
    assert len(members) == 2  # of the one that is writing, and what is nobody's
    assert running.communicate("go on\n", timeout=60)[1] == ""
    assert (model.load(path)[0].w == 2).all()
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([f".{name}.bak.part", name])


def test_what_another_machine_left_is_removed_after_a_day(tmp_path, monkeypatch):
    path, net = tmp_path / "net.npz", make().build((3,))

    def broken(handle):
        raise Broken

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        patched.setattr(os, "unlink", lambda _: None)
        with pytest.raises(Broken):
            net.save(path)
    (left,) = tmp_path.iterdir()
    there = left.rename(left.with_name(left.name.replace(files._machine(), "0123abcd")))
    other = there.with_name(there.name.replace("net.npz", "net.npz.npz"))
    other.touch()
    net.save(path)
    assert there.exists()
    for each in (there, other):
        os.utime(each, (time.time() - 2 * 24 * 3600,) * 2)
    net.save(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


# What is no file -----------------------------------------------------------------------------------------------------


def compared():
    return compare("sgd", "xor", (0.1,), 1, 2, widen=False, verbose=False)


def log(path):
    train(make(), CSVLogger(path))


WRITERS = {
    "net": (".npz", lambda path: make().build((3,)).save(path)),
    "net as safetensors": (".safetensors", lambda path: make().build((3,)).save(path)),
    "checkpoint": (".npz", lambda path: train(make(), Checkpoint(path))),
    "sweep": (".jsonl", lambda path: compare("sgd", "xor", (0.1,), 1, 2, widen=False, verbose=False, path=path)),
    "csv": (".csv", lambda path: compared().to_csv(path)),
    "json": (".json", lambda path: compared().to_json(path)),
    "picture": (".svg", lambda path: pictures.write(path, b"<svg/>")),
    "log": (".csv", log),
}


def specials(folder, suffix):
    """What may stand where a file is expected, and links to it."""
    created = [folder / f"{kind}{suffix}" for kind in ("pipe", "socket", "device")]
    os.mkfifo(created[0])
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as there, contextlib.chdir(folder):
        there.bind(created[1].name)
    try:
        os.mknod(created[2], stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null
    except PermissionError:
        created.pop()
    for place in list(created):
        link = folder / f"link to {place.name}"
        link.symlink_to(place)
        created.append(link)
    return created


@pytest.mark.parametrize("name", WRITERS)
def test_no_writer_replaces_a_device_a_pipe_or_a_socket(tmp_path, name):
    suffix, write = WRITERS[name]
    for place in specials(tmp_path, suffix):
        before = sorted((each.name, each.lstat().st_mode) for each in tmp_path.iterdir())
        with pytest.raises(OSError, match="is a device, a pipe or a socket: give the name of a file"):
            write(place)
        assert sorted((each.name, each.lstat().st_mode) for each in tmp_path.iterdir()) == before


READERS = {
    "net": (".npz", model.load),
    "net as safetensors": (".safetensors", model.load),
    "training": (".npz", lambda path: train(make(), resume=path)),
    "comparison": (".json", Comparison.load),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_of_a_pipe_does_not_hang(tmp_path, name):
    suffix, read = READERS[name]
    for place in specials(tmp_path, suffix):
        with pytest.raises((OSError, model.ModelFileError), match="is a device, a pipe or a socket"):
            read(place)


# A build that fails ------------------------------------------------------------------------------------------------


def wrong_shape(shape, rng):
    return np.ones(3)


def no_memory(shape, rng):
    raise MemoryError


def ctrl_c(shape, rng):
    signal.raise_signal(signal.SIGINT)
    return 0


def ctrl_c_twice(shape, rng):
    """The second one comes while the build is taken back."""
    restore = base.Attributes.restore

    def press(self):
        base.Attributes.restore = restore
        signal.raise_signal(signal.SIGINT)
        restore(self)

    base.Attributes.restore = press
    signal.raise_signal(signal.SIGINT)


class Fails(layers.Layer):
    """Its setup raises, after it has declared a parameter, until it is told better."""

    fails = True

    def setup(self, input_shape):
        self.add_parameter("w", input_shape, 1.0)
        if self.fails:
            raise ValueError("not yet")

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, x, training):
        return x * self.w


BUILDS = {
    wrong_shape: ValueError,
    no_memory: MemoryError,
    ctrl_c: KeyboardInterrupt,
    ctrl_c_twice: KeyboardInterrupt,
    "setup": ValueError,
}


@pytest.mark.parametrize("fault", BUILDS, ids=lambda fault: getattr(fault, "__name__", fault))
@pytest.mark.parametrize("how", ["build", "predict", "train"])
def test_a_build_that_fails_leaves_the_net_as_it_was(tmp_path, snapshot, fault, how):
    """Also a net within it that was built already."""
    within = layers.Model([layers.Linear(3), layers.BatchNorm()], seed=2).build((3,))
    part = Fails() if fault == "setup" else layers.Linear(2, init=fault)
    net = layers.Model([within, layers.Dropout(0.1), part, layers.Linear(1)], seed=0)
    before, shown, inner = snapshot(net), within.predict(X), snapshot(within)
    calls = {"build": lambda: net.build((3,)), "predict": lambda: net.predict(X), "train": lambda: train(net)}
    with pytest.raises(BUILDS[fault]):
        calls[how]()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (net.input_shape, part.input_shape) == (None, None)
    assert snapshot(net) == before
    assert snapshot(within) == inner
    np.testing.assert_array_equal(within.predict(X), shown)
    within.vector[...] += 1  # the parameters are its own still
    assert not np.array_equal(within.predict(X), shown)
    within.vector[...] -= 1
    with pytest.raises(ValueError, match="no weights to save yet"):
        net.save(tmp_path / "net.npz")
    part.fails, part.init = False, 1.0
    net.build((3,)).save(tmp_path / "net.npz")
    custom = {"Fails": type("Fails", (Fails,), {"fails": False})}
    np.testing.assert_array_equal(model.load(tmp_path / "net.npz", custom).predict(X), net.predict(X))


def test_a_failed_build_may_be_done_for_another_shape():
    net, other = make(), make()
    net[0].init = no_memory
    with pytest.raises(MemoryError):
        net.build((5,))
    net[0].init = layers.uniform_fan_in
    train(net)
    train(other)
    np.testing.assert_array_equal(net.vector, other.vector)


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
    whole, repeated = make(), make(seed=4)
    train(whole, [Checkpoint(tmp_path / "w.npz", every=2), Breaks("")], optim=optim.Average(optim.Adam(), decay=0.5))
    train(repeated, [Checkpoint(path, every=2), Breaks("")], optim=optim.Average(optim.Adam(), decay=0.5), resume=path)
    np.testing.assert_array_equal(repeated.vector, whole.vector)
    assert train(net, optim=rule).epochs == 3


@pytest.mark.parametrize("where", ["step", "epoch", "Ctrl-C"])
def test_the_best_weights_are_put_back_when_a_callback_raises(where):
    class Best(EarlyStopping):
        def epoch(self, run, logs):
            super().epoch(run, {"loss": run.epoch})  # the first epoch is the best
            self.first = run.net.vector.copy() if run.epoch == 1 else self.first

    class Presses:
        def step(self, run):
            for _ in range(2 * (run.step == 10)):
                signal.raise_signal(signal.SIGINT)

    class Ends:
        def end(self, run):
            raise ZeroDivisionError

    net, best = make(), Best("loss")
    breaks = Presses() if where == "Ctrl-C" else Breaks(where, at=10)
    with pytest.raises(KeyboardInterrupt if where == "Ctrl-C" else Broken) as caught:
        train(net, [Ends(), best, breaks])
    assert "raised ZeroDivisionError" in caught.value.__notes__[0]  # what came first is what is raised
    np.testing.assert_array_equal(net.vector, best.first)


def test_ctrl_c_in_the_last_callbacks_is_told():
    class Presses:
        def end(self, run):
            signal.raise_signal(signal.SIGINT)

    history = train(make(), Presses())
    assert (history.interrupted, history.epochs) == (True, 3)


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
