"""Whatever decides a result is in the file: all attributes of nets, optimizers and callbacks, bit by bit, beside those
that were saved and loaded, or resumed. What may differ is listed, each with its reason."""

import golden
import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise.callbacks import (
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    ReduceOnPlateau,
    StopOnTarget,
    TensorBoard,
    TimeLimit,
    UpdateStats,
)

X = np.random.default_rng(5).standard_normal((37, 3)).astype(np.float32)
Y = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])], 1)

SCRATCH = {  # of any training
    "version": "a stamp, new with each layout",
    "_laid_out": "the stamp of a layout",
    "_versions": "where stamps come from",
    "pool": "memory to be written over",
    "taken": "the place in that memory",
    "_backward_plan_of": "what backward needs, found anew",
}
UNSAVED = {  # of a net's file: `load` gives a net that predicts the same, not a training
    "optim": "of the training, in the file of a Checkpoint",
    "loss": "of the training, in the file of a Checkpoint",
    "_shuffle": "random numbers of the training",
    "_rngs": "random numbers of the training",
    "rng_state": "random numbers of the training",
    "gradient": "of the last step",
    "_gradient": "of the last step",
    "gradients": "of the last step",
    "_w_gradient": "of the last step",
    "_b_gradient": "of the last step",
    "training": "within train",
    "kept": "of the last batch, for backward",
    "repeatable": "of the last batch: whether its random numbers can be drawn again",
    "_layout": "made when it is asked for",
    "_layout_of": "made when it is asked for",
}


def attributes(value, path="", found=None, seen=None):
    """Path -> bits, of all that an object holds."""
    found, seen = ({}, {}) if found is None else (found, seen)
    if isinstance(value, np.ndarray):
        found[path] = value.dtype, value.shape, value.tobytes()
    elif isinstance(value, np.random.Generator):
        found[path] = repr(value.bit_generator.state)
    elif isinstance(value, (str, bytes, int, float, complex, type(None), np.generic, np.dtype, slice, type)):
        found[path] = repr(value)
    elif id(value) in seen:
        found[path] = f"as {seen[id(value)]}"
    else:
        seen[id(value)] = path
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, (list, tuple)):
            items = enumerate(value)
        else:
            slot_names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
            stored = {name: getattr(value, name) for name in slot_names if hasattr(value, name)} | getattr(
                value, "__dict__", {}
            )
            items = stored.items() if stored or type(value).__module__ != "builtins" else ()
            found[path] = type(value).__name__
        for name, each in items:
            if name not in SCRATCH:
                attributes(each, f"{path}.{name}", found, seen)
    return found


def assert_same(one, other, allowed):
    """But for what is below an attribute that may differ."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name, "None") != other.get(name, "None"))
    apart = [name for name in names if not set(name.split(".")) & allowed.keys()]
    assert not apart, "\n".join(apart)


def nets():
    def several(**told):
        within = layers.Model([layers.Linear(5), layers.Dropout(0.2), layers.Tanh()], seed=None if told else 7)
        rest = [layers.Residual([layers.Linear(5)]), layers.Linear(2)]
        return layers.Model([layers.Linear(4), within, *rest], 3, **told)

    frozen = several()
    frozen[1].frozen = True
    normed = layers.Model([layers.Linear(4), layers.BatchNorm(), layers.PReLU(), layers.Linear(2)], seed=1)
    ensemble = layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(2)], seed=3, copies=3)
    return {
        "nested": several(),
        "ensemble": ensemble,
        "stack": several(copies=3),
        "frozen": frozen,
        "running statistics": normed,
    }


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("name", nets())
def test_a_net_is_saved_whole(name, suffix, tmp_path):
    """Of a stack one copy has diverged."""
    net = nets()[name]
    rule = optim.SGD(np.array([0.01, 1e30, 0.1])) if net.copies else optim.SGD(0.01)
    with np.errstate(all="ignore"):
        net.train(X, Y, rule, loss.MSE(), epochs=3, verbose=False)
    net.save(tmp_path / f"net.{suffix}")
    loaded = model.load(tmp_path / f"net.{suffix}")
    assert_same(attributes(net), attributes(loaded), UNSAVED)
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))


class Probe:
    """What a training is after this step, and then it breaks off."""

    def __init__(self, at):
        self.at = at

    def step(self, run):
        if run.step == self.at:
            self.found = attributes({"net": run.net, "optim": run.optim, "callbacks": run.callbacks[1:]})
            raise ZeroDivisionError


RESUMED = {"path": "of the log", "folder": "of the log", "header": "read from the log after an epoch",
           "until": "each job has a time of its own", "resumed": "it is", "found": "of the Probe",
           "knows_place": "it is resumed", "file": "open in another process"}  # fmt: skip


AROUND = {
    "Clip": lambda: optim.Clip(optim.Momentum(0.05), norm=0.5),
    "Accumulate": lambda: optim.Accumulate(optim.Adam(), 3),
    "Average": lambda: optim.Average(optim.Adam(), decay=0.9),
    "Lookahead": lambda: optim.Lookahead(optim.SGD(0.1, 0.9)),
    "SAM": lambda: optim.SAM(optim.SGD(0.1)),
    "PerLayer": lambda: optim.PerLayer({"layers.0*": optim.SGD(0.1, 0.9), "*": optim.Adam()}),
}
RULES = {name: getattr(optim, name) for name in golden.NAMES if name not in AROUND} | AROUND


def watchers(folder):
    pytest.importorskip("tensorboardX", reason="TensorBoard is among them")
    return [
        EarlyStopping("val_loss", patience=50), ReduceOnPlateau("val_loss", patience=0, min_delta=10),
        UpdateStats(2), StopOnTarget("loss", 0), TimeLimit(1e9), CSVLogger(folder / "log.csv"),
        TensorBoard(folder / "runs", "run"), Checkpoint(folder / "best.npz", "val_loss"),
    ]  # fmt: skip


def step(rule, folder, name, at, callbacks=(), **told):
    """What a training of five steps an epoch is after step `at`; the file is of the step before, or of the second."""
    net, probe = nets()["nested"], Probe(at)
    folder.mkdir(exist_ok=True)
    with pytest.raises(ZeroDivisionError):
        net.train(X, Y, rule, loss.MSE(), epochs=9, batch_size=8, validation=(X, Y), verbose=False,
                  callbacks=[probe, Checkpoint(folder / name, every=2), *callbacks], **told)  # fmt: skip
    return probe.found


@pytest.mark.parametrize("name", RULES)
def test_an_optimizer_goes_on_whole(name, tmp_path):
    whole = step(RULES[name](), tmp_path, "whole.npz", 9)
    step(RULES[name](), tmp_path, "net.npz", 7)
    assert_same(whole, step(RULES[name](), tmp_path, "b.npz", 9, resume=tmp_path / "net.npz"), RESUMED)


def test_all_callbacks_go_on_whole(tmp_path):
    whole = step(optim.Adam(), tmp_path / "a", "net.npz", 9, watchers(tmp_path / "a"))
    step(optim.Adam(), tmp_path / "b", "net.npz", 7, watchers(tmp_path / "b"))
    told = dict(callbacks=watchers(tmp_path / "b"), resume=tmp_path / "b" / "net.npz")
    repeated = step(optim.Adam(), tmp_path / "b", "c.npz", 9, **told)
    assert "val_loss" in repr(whole)
    assert_same(whole, repeated, RESUMED)
