"""Make the files of this version in tests/reference/files, which every later version is to load: once per release.

    python tests/reference/make_files.py 0.1.0

VERSION.npz and VERSION.safetensors hold a net with running statistics and the state of its training, as
callbacks.Checkpoint writes it after two epochs. VERSION.told.npz holds the data, what the net predicts, every array of
it by name, and the losses of three epochs. Files of earlier versions are never made again.
"""

import sys
from pathlib import Path

import numpy as np

import layers
import loss
import optim
from layerwise import callbacks, schedules
from layerwise.training import netfile

FOLDER = Path(__file__).resolve().parent / "files"
X = np.random.default_rng(0).normal(size=(24, 5, 5, 2)).astype(np.float32)
Y = np.arange(24) % 3


def net():
    return layers.Model([
        layers.Conv2D(3, 3, name="edges"),
        layers.BatchNorm(),
        layers.MaxPool2D(2),
        layers.Flatten(),
        layers.Residual([layers.Linear(3), layers.PReLU(), layers.Dropout(0.25)]),
        layers.Parallel([layers.Linear(2, bias=False), [layers.LayerNorm(), layers.Linear(3), layers.GELU()]]),
        layers.Model([layers.Linear(4), layers.LeakyReLU(0.2)], name="within"),
        layers.Linear(3),
        layers.Softmax(),
    ], seed=5)


def rule():
    return optim.Clip(optim.AdamW(lr=schedules.Cosine(0.02, 0.001, 30)), norm=1.0)


def train(one, path, epochs, resume=None):
    """Eight rows a batch, so three steps an epoch."""
    watchers = [callbacks.EarlyStopping("loss", patience=9), callbacks.Checkpoint(path)]
    return one.train(X, Y, rule(), loss.CrossEntropy(), epochs, 8, callbacks=watchers, resume=resume, verbose=False)


def make(stem):
    FOLDER.mkdir(exist_ok=True)
    for suffix in (".npz", ".safetensors"):
        one, path = net(), FOLDER / f"{stem}{suffix}"
        train(one, path, 2)
        predicted = one.predict(X)
        arrays = {name: array.copy() for name, array in netfile.arrays_of(one).items()}
        going_on = net()
        losses = train(going_on, FOLDER / f"scratch{suffix}", 3, resume=path)["loss"]
        (FOLDER / f"scratch{suffix}").unlink()
    np.savez(FOLDER / f"{stem}.told.npz", x=X, y=Y, predicted=predicted, losses=losses, **arrays)


if __name__ == "__main__":
    make(sys.argv[1])
