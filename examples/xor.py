"""XOR: the smallest problem that a net without a hidden layer cannot solve."""

import argparse

import numpy as np

import layers
import loss
import optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0, help="decides the weights and the order of the rows (default 0)")
parser.add_argument("--epochs", type=int, default=200, help="rounds of training (default 200)")
arguments = parser.parse_args()

x = np.array([[0, 1], [0, 0], [1, 1], [1, 0]])
y = np.array([[0, 1], [1, 0], [1, 0], [0, 1]])  # one column for each class: 0, and 1

net = layers.Model(
    [
        layers.Linear(8),
        layers.Linear(4),
        layers.Sigmoid(),
        layers.Linear(2),
        layers.Softmax(),
    ],
    seed=arguments.seed,
)

net.train(x, y, optim=optim.RMSProp(lr=0.02), loss=loss.MSE(), epochs=arguments.epochs)

predictions = net(x)
for (a, b), probabilities in zip(x, predictions, strict=True):
    print(f"{a} xor {b} = {probabilities.argmax()}    with probability {probabilities.max():.3f}")

right = int((predictions.argmax(1) == y.argmax(1)).sum())
print("all four are right" if right == 4 else f"{right} of four are right: try another --seed or more --epochs")
