"""Writes pickles/<name>.pickle: nets with their optimizers in the middle of a training, and a comparison.

    python tests/reference/make_pickles.py NAME

`flat.pickle` was written when all modules of layerwise/ stood in one folder.
"""

import pickle
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import layers
import loss
import optim
from layerwise import compare, schedules

FOLDER = Path(__file__).with_name("pickles")
X = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 24)

RULES = {
    "Adam": lambda: optim.Adam(schedules.Cosine(0.05, 0.001, 20), amsgrad=True),
    "PerLayer": lambda: optim.PerLayer({"0": optim.Momentum(0.1), "*": optim.Signum(0.01)}),
    "SAM": lambda: optim.SAM(optim.SGD(0.1, momentum=0.9)),
    "Clip of Average": lambda: optim.Clip(optim.Average(optim.AdamW(0.01), 0.9), norm=1),
    "ScheduleFreeSGD": lambda: optim.ScheduleFreeSGD(0.5),
    "LBFGS": lambda: optim.LBFGS(steps=3),
}


def net():
    inner = layers.Residual([layers.Linear(6), layers.PReLU(), layers.Dropout(0.2)])
    return layers.Model([layers.Linear(6), layers.BatchNorm(), inner, layers.Linear(3), layers.Softmax()], seed=3)


def train(net, epochs=2, **rest):
    return net.train(X, Y, loss=loss.CrossEntropy(), epochs=epochs, batch_size=8, verbose=False, **rest)


def main(name):
    stored = {}
    for rule, make in RULES.items():
        each = net()
        history = train(each, optim=make())
        stored[rule] = pickle.dumps(each), dict(history)
    found = compare.compare("sgd,adam", "xor", [0.1, 0.01], seeds=2, steps=20, verbose=False, widen=False)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.pickle").write_bytes(pickle.dumps((stored, pickle.dumps(found), found.to_markdown())))


if __name__ == "__main__":
    main(sys.argv[1])
