"""Handwritten digits of 8 x 8 pixels: train on three quarters, test on the rest. Needs no network."""

import argparse

import numpy as np

import layers
import loss
import optim
from layerwise import datasets

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0, help="decides the split, the weights and the order (default 0)")
parser.add_argument("--epochs", type=int, default=30, help="rounds of training (default 30)")
arguments = parser.parse_args()

x, y = datasets.digits()  # (1797, 64) in [0, 1], and class numbers (1797,)
order = np.random.default_rng(arguments.seed).permutation(len(x))
train, test = order[450:], order[:450]

net = layers.Model(
    [
        layers.Linear(256),
        layers.BatchNorm(),
        layers.ReLU(),
        layers.Dropout(0.5),
        layers.Linear(10),
        layers.Softmax(),
    ],
    seed=arguments.seed,
)
net.build((64,))
print(net.summary())

net.train(x[train], y[train], optim.Adam(lr=0.003), loss.CrossEntropy(), epochs=arguments.epochs, metrics="accuracy")

read = net.predict(x[test]).argmax(1)
for digit in range(10):
    among = read[y[test] == digit]
    print(f"{digit}: {np.sum(among == digit)} of {len(among)} read right")
print(f"{np.mean(read == y[test]):.1%} of the {len(test)} held-out digits are read right")
