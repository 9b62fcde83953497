"""A sweep that was ended goes on where it was, and its file is believed only where it answers the same question."""

import base64
import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from comparisons import same, short

import optim
from layerwise.compare.results import beside
from layerwise.problems import Problem

ROOT = Path(__file__).resolve().parent.parent

SWEEP = {"SGD": optim.SGD, "Adam": optim.Adam, "DoG": optim.DoG}


def test_ctrl_c_loses_nothing_that_was_finished(tmp_path, counted):
    path = tmp_path / "runs.jsonl"
    counted.fail_from = 3
    with pytest.raises(KeyboardInterrupt):
        short(SWEEP, path=path)
    counted.fail_from = math.inf
    found = short(SWEEP, path=path)
    assert counted.ran == 5  # two rates of each, DoG once
    assert np.isfinite(np.concatenate([found.seconds[name] for name in SWEEP])).all()
    assert same(found, short(SWEEP))
    counted.fail_from = 0
    assert same(found, short(SWEEP, path=path))  # all is there


def test_torn_and_damaged_lines_are_run_again(tmp_path, counted):
    path = tmp_path / "runs.jsonl"
    found = short(SWEEP, path=path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 6
    for content, runs in (
        (whole[:-1], 1),  # the end of the last line is missing: its curves can't be trusted to be whole
        (whole[:-20], 1),
        (b"".join([*lines[:2], lines[2].replace(b"A", b"B"), *lines[3:]]), 1),
        (b"".join(lines[:1]), 5),
        (b"".join([*lines[:3], b"\n", b"{}\n", b'{"curves": 3}\n', *lines[4:]]), 1),
    ):
        path.write_bytes(content)
        counted.ran = 0
        assert same(found, short(SWEEP, path=path))
        assert counted.ran == runs
        counted.ran = 0
        short(SWEEP, path=path)
        assert counted.ran == 0


@pytest.mark.parametrize("other", [{"optimizer": "Adam"}, {"lr": 0.1}])
def test_a_line_under_another_name_or_rate_is_run_again(tmp_path, counted, other):
    path = tmp_path / "runs.jsonl"
    found = short(SWEEP, path=path)
    header, *lines = map(json.loads, path.read_text().splitlines())
    consumed = next(line for line in lines if (line["optimizer"], line["lr"]) == ("SGD", 0.01))
    key = {"optimizer": "SGD", "lr": 0.01} | other
    lines = [consumed | other if {name: line[name] for name in key} == key else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in [header, *lines]))
    counted.ran = 0
    assert same(found, short(SWEEP, path=path))
    assert counted.ran == 1


def test_a_file_of_the_first_version_goes_on(tmp_path, counted):
    """There the checksum was that of the curves, and the question had none."""
    path = tmp_path / "runs.jsonl"
    found = short(SWEEP, path=path)
    for each in (path, beside(path)):
        records = [json.loads(line) for line in each.read_text().splitlines()]
        for record in records:
            del record["check"]
            if "curves" in record:
                record["check"] = zlib.crc32(base64.b64decode(record["curves"]))
        each.write_text("".join(json.dumps(record) + "\n" for record in records[:-1]))
    counted.ran = 0
    repeated = short(SWEEP, path=path)
    assert same(found, repeated)
    assert counted.ran == 1
    for name in SWEEP:
        assert np.isfinite(repeated.seconds[name]).all()


def test_a_sweeps_file_that_someone_else_wrote(tmp_path, counted):
    """Whatever stands there, with checksums that are right: one ValueError, or the runs are done again."""
    path = tmp_path / "runs.jsonl"
    found = short(SWEEP, path=path)
    header, first, *others = path.read_bytes().splitlines(keepends=True)

    def line(**change):
        record = {k: v for k, v in (json.loads(first) | change).items() if v is not ... and k != "check"}
        return json.dumps(record | {"check": zlib.crc32(json.dumps(record).encode())}).encode() + b"\n"

    for other in (
        line(optimizer=...),
        line(lr=...),
        line(curves=...),
        line(optimizer=["SGD"]),
        line(lr={"a": 1}),
        line(curves="AAAA"),
        line(curves=5),
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
    ):
        path.write_bytes(header + other + b"".join(others))
        counted.ran = 0
        assert same(found, short(SWEEP, path=path))
        assert counted.ran == 1
    timed = beside(path).read_bytes().splitlines(keepends=True)
    for other in (
        b'{"optimizer": ["SGD"], "lr": {}}\n',
        timed[0].replace(b'"seconds": [', b'"seconds": [1e999, "a", '),
    ):
        beside(path).write_bytes(other + b"".join(timed[1:]))
        assert same(found, short(SWEEP, path=path))
    plain = {"format": "layerwise sweep", "version": 1}
    for told in (plain, plain | {"question": 5}, json.loads(header) | {"check": 5}):
        path.write_text(json.dumps(told) + "\n")
        with pytest.raises(ValueError, match=r"runs\.jsonl is damaged: its question can't be read"):
            short(SWEEP, path=path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 9}, "steps 8, now 9"),
        ({"seeds": [5, 6]}, "seeds"),
        ({"lrs": (0.01, 0.2)}, "lrs"),
        ({"problem": "five_rows"}, "problem"),
        ({"clip": 1.0}, "clip"),
        ({"target": 0.5}, "target"),
        ({"optimizers": SWEEP | {"Adam": lambda lr: optim.Adam(lr, beta2=0.9)}}, r"beta2=0\.9"),
    ],
)
def test_a_file_of_another_question_is_refused(tmp_path, counted, change, told):
    path = tmp_path / "runs.jsonl"
    short(SWEEP, path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"another question.*{told}"):
        short(**({"optimizers": SWEEP, "path": path} | change))
    assert path.read_bytes() == before


def test_a_name_breaks_no_table():
    """GitHub's Markdown, section 4.10: a cell ends at a bar, but for one after a backslash."""
    name = "a|b\r\nc \\| d"
    text = short({name: optim.SGD, "e": lambda lr: optim.SGD(lr, 0.9)}).to_markdown()
    head, rule, *rows = text.split("\n\n")[0].splitlines()
    for line in (head, rule, *rows):
        assert len(re.findall(r"(?:\\.|[^|\\])+", line)) == 10
    assert sum(row.startswith(r"| a\|b c \\\| d ") for row in rows) == 1
    assert len(rows) == 2
    assert not [line for line in text.splitlines() if line.startswith("c ")]


# Of one's own, all that decides an answer, and nothing that has a __repr__. `sweep(path)` runs it.
OWN = """
import functools
import numpy as np
import layers, optim
from layerwise.compare import compare
from layerwise.problems import Problem

SCALE = 2.0
KINDS = {"b", "a", "c"}

def halved(x):
    return x / 2

class Squared:
    power = 2

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, pred, real):
        self.d = pred - real
        return float((abs(self.d) ** self.power).mean()) * self.factor

    def backward(self):
        return 2 * self.d / self.d.size * self.factor * ("a" in {"b", "a", "c"})

class Scaled(layers.Layer):
    def __init__(self, k):
        self._k = k

    def forward(self, x, training):
        return x * self._k

    def backward(self, grad):
        return grad * self._k

class Signs(optim.Optimizer):
    def __init__(self, lr=0.1, share=0.5):
        super().__init__(lr=lr)
        self.share = share

    @staticmethod
    def rule(w, g, *, lr):
        w -= lr * np.sign(g)

def decay(start):
    def at(t):
        return start / (1 + t)
    return at

def step(lr, power, net, loss):
    grad = loss.backward()
    for layer in net.layers[::-1]:
        grad = layer.backward(grad)
    for leaf in net.leaf_layers():
        for name, w in leaf.parameters.items():
            w -= lr * halved(leaf.gradients[name]) ** power

x = np.linspace(-1, 1, 12).reshape(4, 3)

def make_net(seed):
    function = lambda x: x * SCALE
    return layers.Model([layers.Linear(2, init=lambda shape, rng: np.full(shape, 0.1)), Scaled(3),
                         layers.Lambda(function, lambda x, grad: grad * SCALE)], seed=seed)

RULES = {
    "own": lambda lr: Signs(lr, share=0.5),
    "scheduled": lambda lr: optim.SGD(decay(lr)),
    "partial": lambda lr: functools.partial(step, lr, 1),
}

def sweep(path):
    return compare(RULES, Problem(make_net, x, x[:, :2], Squared(1.0)), [0.01], 1, 4, path=path, verbose=False)
"""


def own(**changes):
    """`sweep` of that script, made anew; with these words in it replaced."""
    script = OWN
    for before, after in changes.values():
        assert script.count(before) == 1
        script = script.replace(before, after)
    names = {"__name__": "__main__"}
    exec(compile(script, "sweep.py", "exec"), names)
    return names["sweep"]


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "runs.jsonl"
    own()(path)
    return path


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("np.sign(g)", "np.sign(g) * 0.5", r"rule\.rule"),
        ("Signs(lr, share=0.5)", "Signs(lr, share=0.25)", "optimizers own"),
        ("self.share = share", "self.share = 2 * share", "__init__"),
        ("start / (1 + t)", "start / (1 + t * t)", "optimizers scheduled: rule.lr"),
        ("SGD(decay(lr))", "SGD(decay(lr / 2))", "optimizers scheduled: rule.lr"),
        ("return x / 2", "return x / 3", "halved"),
        ("partial(step, lr, 1)", "partial(step, lr, 2)", r"partial: rule\.args"),
        ("power = 2\n", "power = 3\n", "loss.power"),
        ("Squared(1.0)", "Squared(2.0)", "loss.factor"),
        ("2 * self.d / self.d.size", "3 * self.d / self.d.size", "loss.backward"),
        ("Scaled(3)", "Scaled(4)", r"layers\[1\]"),
        ("return x * self._k", "return x * self._k + 0", r"net\.layers\[1\]\.forward"),
        ("SCALE = 2.0", "SCALE = 3.0", "SCALE"),
        ("lambda x: x * SCALE", "lambda x: x + SCALE", r"net\.layers\[2\]\.function"),
        ("lambda x, grad: grad * SCALE", "lambda x, grad: grad", r"net\.layers\[2\]\.gradient"),
    ],
)
def test_a_file_is_refused_where_code_of_ones_own_has_changed(own_file, before, after, told):
    kept = own_file.read_bytes()
    with pytest.raises(ValueError, match=f"another question: .*{told}.*Give another path"):
        own(change=(before, after))(own_file)
    assert own_file.read_bytes() == kept


def test_a_file_is_gone_on_with_where_the_code_does_the_same(own_file, counted):
    own()(own_file)  # at other places in memory
    own(
        line=("import functools", "import functools\n\n\n# a comment"),
        docstring=(
            "    def forward(self, x, training):",
            '    def forward(self, x, training):\n        """Times k."""',
        ),
        local=("    function = lambda x: x * SCALE", "    f = lambda x: x * SCALE"),
        used=("layers.Lambda(function,", "layers.Lambda(f,"),
    )(own_file)
    assert counted.ran == 0


def test_the_order_of_sets_is_not_part_of_a_question(monkeypatch, python):
    for seed in "12":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        done = python(f"{OWN}\nsweep('runs.jsonl')")
        assert (done.returncode, done.stderr) == (0, "")


def test_a_loss_is_not_changed_by_the_comparison(tmp_path):
    names = {}
    exec(compile(OWN, "sweep.py", "exec"), names)
    problem = Problem(names["make_net"], names["x"], names["x"][:, :2], names["Squared"](1.0))
    for _ in range(2):  # the file is taken a second time, by the same objects
        short("sgd", problem, path=tmp_path / "runs.jsonl")
    assert not hasattr(problem.loss, "d")


def test_what_cannot_be_told_is_said(tmp_path):
    class Locked(optim.SGD):
        def __init__(self, lr):
            super().__init__(lr)
            self.lock = threading.Lock()

    path = tmp_path / "runs.jsonl"
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"can't tell whether .*optimizers locked: rule\.lock\."):
            short({"locked": lambda lr: Locked(lr)}, path=path)
    short({"locked": lambda lr: Locked(lr)})  # without a file there is nothing to tell


def test_a_file_without_digests_of_code_is_gone_on_with(own_file, tmp_path, counted):
    """As earlier versions wrote them."""

    def older(path):
        lines = path.read_bytes().splitlines(keepends=True)
        header = json.loads(lines[0])
        del header["question"]["code"]
        header["question"]["problem"].pop("code", None)
        header.pop("check", None)
        path.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(lines[1:]))

    path = tmp_path / "runs.jsonl"
    short(SWEEP, path=path)
    older(path)
    counted.ran = 0
    short(SWEEP, path=path)  # of the library alone
    path.write_bytes(own_file.read_bytes())
    older(path)
    with pytest.warns(UserWarning, match=r"before the code of one's own was compared.*optimizers own: rule\.rule"):
        own()(path)
    assert counted.ran == 0


def test_a_foreign_file_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    for content in ("my notes", '{"format": "layerwise sweep", "version": 7}\n', "[]\n"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"holds no sweep|version 7"):
            short(path=path)
        assert path.read_text() == content
    with pytest.raises(FileNotFoundError, match="no folder"):
        short(path=tmp_path / "nowhere" / "runs.jsonl")


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path, monkeypatch, counted):
    path = tmp_path / "runs.jsonl"
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 8:  # header and timings, two rates, and the curves of the third
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        short(SWEEP, path=path)
    assert "make room" in raised.value.__notes__[0]
    assert path.read_bytes().endswith(b"\n")
    assert len(path.read_bytes().splitlines()) == 3
    assert same(short(SWEEP, path=path), short(SWEEP))


KILLED = """
import sys
from layerwise.compare import compare

found = compare("sgd,momentum,adam", "moons", (0.001, 0.01, 0.1, 1.0), 3, 60, path="runs.jsonl", verbose=False)
found.to_json(sys.argv[1])
"""


def test_a_sweep_that_was_killed_goes_on(tmp_path, python):
    (tmp_path / "killed.py").write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    path = tmp_path / "runs.jsonl"
    with subprocess.Popen([sys.executable, "killed.py", "never.json"], cwd=tmp_path, env=environment) as process:
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < 60:
            if path.exists() and path.read_bytes().count(b"\n") > 3:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "never.json").exists()
    kept = path.read_bytes().splitlines()
    assert 4 <= len(kept) < 16
    assert python(KILLED, "on.json").returncode == 0
    assert path.read_bytes().splitlines()[: len(kept) - 1] == kept[:-1]  # the last may have been torn
    path.unlink()
    assert python(KILLED, "through.json").returncode == 0
    assert (tmp_path / "on.json").read_bytes() == (tmp_path / "through.json").read_bytes()


def test_processes_change_nothing(tmp_path):
    pytest.importorskip("joblib")
    found = short({"SGD": optim.SGD, "own": lambda lr: optim.Adam(lr)}, n_jobs=2, path=tmp_path / "runs.jsonl")
    assert same(found, short({"SGD": optim.SGD, "own": lambda lr: optim.Adam(lr)}))


def test_without_joblib_the_pip_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r'pip install "layerwise\[compare\]"'):
        short(n_jobs=2)


def test_without_threadpoolctl_it_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert short().optimizers == ("SGD", "Adam")


def test_the_bar(capsys):
    short(verbose=True)
    assert "4/4" in capsys.readouterr().err  # the default rates are among the others
    short()
    assert capsys.readouterr().err == ""
