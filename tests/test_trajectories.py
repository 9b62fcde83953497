"""Random trainings, done here and by PyTorch: the same losses and the same parameters, to nine digits. PyTorch's are
stored; tests/reference/make_trajectories.py draws them and tells how.

    PYTHONPATH=.:tests/reference python tests/test_trajectories.py PATH       those of another file of that script
"""

import collections
import json
import sys
import time

import numpy as np
import pytest
from golden import Scheduled
from trajectories import STORED, data_of, start_of

import layers
import loss
import optim

CLOSE = 1e-9


def made(spec):
    """The layer of [name, arguments, layers within], or the layers of a list of such."""
    if not isinstance(spec[0], str):
        return [made(each) for each in spec]
    name, arguments, *within = spec
    return getattr(layers, name)(*map(made, within), **arguments)


class Case:
    """A training that PyTorch has done: its recipe, what it came to, and how to do it here."""

    def __init__(self, recipe, losses, final):
        self.recipe, self.losses, self.final = recipe, losses, final

    def net(self):
        net = layers.Model(made(self.recipe["layers"]), seed=0, dtype="float64")
        net.build(tuple(self.recipe["input"]))
        leaf_layers, place = list(net.leaf_layers()), 0
        for leaf in leaf_layers:
            for name, array in leaf.parameters.items():
                array[...] = start_of(self.recipe["seed"], place, name, array.shape)
                place += 1
        if self.recipe["frozen"] is not None:
            leaf_layers[self.recipe["frozen"]].frozen = True
        return net

    def rule(self, times=1.0):
        """The optimizer, its learning rates so many times as large."""
        name, arguments = self.recipe["optimizer"]
        rates = [times * rate for rate in self.recipe["rates"]]
        rule = getattr(optim, name)(**arguments | {"lr": Scheduled(rates) if rates else times * arguments["lr"]})
        return optim.Clip(rule, **self.recipe["clip"]) if self.recipe["clip"] else rule

    def error(self):
        name, arguments = self.recipe["loss"]
        return getattr(loss, name)(**arguments)

    def train(self, **changed):
        """(losses, parameters and buffers) of the training here, with any of its parts changed."""
        net = self.net()
        x, y, weight = data_of(self.recipe)
        settings = {
            "optim": self.rule(),
            "loss": self.error(),
            "epochs": self.recipe["epochs"],
            "batch_size": self.recipe["batch_size"],
            "sample_weight": weight,
        }
        history = net.train(x, y, shuffle=False, verbose=False, **settings | changed)
        present = [array for leaf in net.leaf_layers() for array in (leaf.parameters | leaf.buffers).values()]
        return np.array(history["loss"]), np.concatenate([array.ravel() for array in present])

    def difference(self, losses, final):
        """How far a training is from PyTorch's: the largest difference, over the largest number of its kind."""
        pairs = ((losses, self.losses), (final, self.final))
        if any(a.shape != b.shape or not np.isfinite(a).all() for a, b in pairs):
            return np.inf
        return float(max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs))

    def __repr__(self):
        return json.dumps(self.recipe)


def cases(path=STORED):
    with np.load(path) as file:
        about = json.loads(bytes(file["about"]))
        losses, finals = file["losses"], file["finals"]
    found, epoch, place = [], 0, 0
    for recipe in about["cases"]:
        epochs, numbers = recipe["epochs"], recipe["numbers"]
        found.append(Case(recipe, losses[epoch : epoch + epochs], finals[place : place + numbers]))
        epoch, place = epoch + epochs, place + numbers
    assert (epoch, place) == (len(losses), len(finals))
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case.recipe["seed"]))
def test_a_training_goes_where_pytorch_goes(case):
    assert case.difference(*case.train()) < CLOSE, case


@pytest.mark.parametrize("case", cases()[::10], ids=lambda case: str(case.recipe["seed"]))
def test_a_learning_rate_of_a_hundred_thousandth_more_is_noticed(case):
    assert case.difference(*case.train(optim=case.rule(1.00001))) > CLOSE


if __name__ == "__main__":
    off, far, began = [], [], time.perf_counter()
    for case in cases(sys.argv[1]):
        try:
            off.append(case.difference(*case.train()))
        except Exception as error:
            off.append(np.inf)
            print(f"{type(error).__name__}: {error}")
        if off[-1] >= CLOSE:
            far.append(case)
            print(off[-1], case)
    seconds = time.perf_counter() - began
    print(f"{len(off)} trainings, {len(far)} wrong, largest difference {max(off):.1e}, {seconds:.0f} s")
    used = collections.Counter(case.recipe["optimizer"][0] for case in cases(sys.argv[1]))
    print(", ".join(f"{name} {count}" for name, count in used.most_common()))
