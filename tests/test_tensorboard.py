"""callbacks.TensorBoard: what it wrote, read back from the event files."""

import os
import signal
import struct
import sys

import numpy as np
import pytest

import layers
import model
from layerwise.callbacks import Checkpoint, TensorBoard, UpdateStats

X = np.random.default_rng(0).normal(size=(40, 3))
Y = X @ [[1.0], [-2.0], [0.5]]


def train(*callbacks, copies=None, **told):
    net = layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(1)], seed=0, copies=copies)
    return net.train(X, Y, callbacks=callbacks, **{"epochs": 3, "batch_size": 10, "verbose": False} | told)


def records(path):
    """The events of a file: each is its length (8 bytes), a checksum (4), the event, a checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert len(data) >= 16 + length
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def scalars(folder):
    """Tag -> [(epoch, value), ...], as TensorBoard shows them: a restart hides what was written of later epochs."""
    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        for event in records(path):
            if event.HasField("session_log"):
                for tag, points in found.items():
                    found[tag] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture
def needed():
    pytest.importorskip("tensorboardX", reason="the files are written by tensorboardX")


@pytest.mark.usefixtures("needed")
def test_each_epoch_is_there(tmp_path):
    history = train(TensorBoard(tmp_path, "first"), UpdateStats(), validation=0.25, metrics="mae")
    found = scalars(tmp_path / "first")
    assert {"loss", "mae", "val_loss", "val_mae", "seconds"} <= set(found)
    for name in found:
        assert [epoch for epoch, _ in found[name]] == [1, 2, 3]
        np.testing.assert_allclose([value for _, value in found[name]], history[name], rtol=1e-6)


@pytest.mark.usefixtures("needed")
def test_names_with_blanks(tmp_path):
    history = train(UpdateStats(), TensorBoard(tmp_path, "first"))
    found = scalars(tmp_path / "first")
    values = [value for _, value in found["layers.0_gradient_norm"]]
    np.testing.assert_allclose(values, history["layers.0 gradient norm"], rtol=1e-6)


@pytest.mark.usefixtures("needed")
def test_of_a_stack_each_copy_has_its_own(tmp_path):
    history = train(TensorBoard(tmp_path, "stack"), copies=2)
    found = scalars(tmp_path / "stack")
    values = np.transpose([[value for _, value in found[f"loss/{s}"]] for s in range(2)])
    np.testing.assert_allclose(values, history["loss"], rtol=1e-6)


@pytest.mark.usefixtures("needed")
def test_each_training_has_a_folder(tmp_path):
    board = TensorBoard(tmp_path / "runs" / "here")
    train(board)
    (folder,) = (tmp_path / "runs" / "here").iterdir()
    assert folder.name == board.run_name
    assert len(scalars(folder)["loss"]) == 3


@pytest.mark.usefixtures("needed")
def test_trainings_that_begin_within_a_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "now")
    boards = [TensorBoard(tmp_path / "runs") for _ in range(3)]
    for board in boards:
        train(board)
    train(boards[0], epochs=2)
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name for folder in folders] == ["now", "now-2", "now-3", "now-4"]
    assert [len(scalars(folder)["loss"]) for folder in folders] == [3, 3, 3, 2]


@pytest.mark.usefixtures("needed")
def test_a_training_that_goes_on_without_a_folder_gets_one_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "now")
    path = tmp_path / "net.npz"
    train(TensorBoard(tmp_path / "runs"))
    train(Checkpoint(path), epochs=1)
    train(TensorBoard(tmp_path / "runs"), Checkpoint(path), resume=path)
    assert sorted(each.name for each in (tmp_path / "runs").iterdir()) == ["now", "now-2"]
    assert [epoch for epoch, _ in scalars(tmp_path / "runs" / "now-2")["loss"]] == [2, 3]


@pytest.mark.usefixtures("needed")
@pytest.mark.parametrize("how", ["interrupt", "divergence"])
def test_the_file_is_closed_however_it_ends(tmp_path, how):
    board = TensorBoard(tmp_path, "run")

    def stop(net, logs):
        if how == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            net[0].w = np.full((3, 4), np.inf)

    if how == "interrupt":
        assert train(board, stop).interrupted
    else:
        with pytest.raises(model.DivergenceError):
            train(board, stop)
    assert board.file is None
    assert [epoch for epoch, _ in scalars(tmp_path / "run")["loss"]] == [1]


@pytest.mark.usefixtures("needed")
def test_a_training_that_goes_on_shows_each_epoch_once(tmp_path):
    history = train(TensorBoard(tmp_path, "whole"), epochs=5)
    path = tmp_path / "net.npz"

    class Killed(Exception):
        pass

    def kill(net, logs):
        if board.written == 4:
            raise Killed

    class Saves(Checkpoint):
        def epoch(self, run, logs):
            if run.epoch <= 2:
                super().epoch(run, logs)

    board = TensorBoard(tmp_path, "parts")
    with pytest.raises(Killed):
        train(Saves(path), board, kill, epochs=5)
    # The epochs are in the file before it is closed.
    assert [epoch for epoch, _ in scalars(tmp_path / "parts")["loss"]] == [1, 2, 3, 4]
    board.end(None)
    train(Saves(path), TensorBoard(tmp_path, "parts"), lambda net, logs: None, epochs=5, resume=path)
    found = scalars(tmp_path / "parts")["loss"]
    assert [epoch for epoch, _ in found] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([value for _, value in found], history["loss"], rtol=1e-6)


@pytest.mark.usefixtures("needed")
@pytest.mark.parametrize("name", ["..", "a/../../b", "/elsewhere", 5])
def test_the_name_of_a_run_leads_nowhere_else(tmp_path, name):
    message = "the name of a run is that of a folder within"
    with pytest.raises(ValueError, match=message):
        TensorBoard(tmp_path, name)
    board = TensorBoard(tmp_path)
    with pytest.raises(ValueError, match=message):
        board.load_state_dict({"written": 2, "name": name})
    with pytest.raises(ValueError, match="are numbers"):
        board.load_state_dict({"written": "2", "name": "run"})


def test_without_the_package_the_error_is_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(ImportError, match=r'pip install "layerwise\[tensorboard\]"'):
        TensorBoard("runs")
