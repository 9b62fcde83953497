"""Linear regression: find the weights of y = 0.77 a - 0.56 b + 2 again from 100 rows of (a, b, y)."""

import argparse

import layers
import loss
import optim
from layerwise import datasets

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0, help="decides the rows and the first weights (default 0)")
parser.add_argument("--epochs", type=int, default=500, help="steps, each over all rows (default 500)")
arguments = parser.parse_args()

x, y = datasets.regression(n=100, weights=(0.77, -0.56), bias=2.0, seed=arguments.seed)  # a and b in [0, 10)

net = layers.Model([layers.Linear(1)], seed=arguments.seed)
net.train(
    x,
    y,
    optim=optim.SGD(lr=5e-5, momentum=0.9),
    loss=loss.MSE(reduction="sum"),  # the gradient grows with the rows, hence the small learning rate
    epochs=arguments.epochs,
    batch_size=len(x),
)

(a,), (b,) = net[0].w  # shape (2, 1)
(c,) = net[0].b
print("wanted  y = 0.7700 a - 0.5600 b + 2.0000")
print(f"found   y = {a:.4f} a - {-b:.4f} b + {c:.4f}")
furthest = max(abs(a - 0.77), abs(b + 0.56), abs(c - 2))
print(f"the weights are recovered to {furthest:.4f}")
