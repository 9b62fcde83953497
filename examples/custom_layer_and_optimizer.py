"""A layer and an update rule of one's own: ten lines each, checked, and trained on a wave that goes uphill."""

import argparse

import numpy as np

import layers
import loss
import optim
from layerwise.gradcheck import gradcheck


class Snake(layers.Layer):
    """y = x + sin(a x)^2 / a, one a for each column, learned.    Ziyin, Hartwig and Ueda 2020 (2006.08195)"""

    def setup(self, input_shape):
        self.add_parameter("a", input_shape[-1:], 1.0)

    def forward(self, x, training):
        self.kept = x
        return x + np.sin(self.a * x) ** 2 / self.a

    def backward(self, grad):
        x, a = self.kept, self.a
        slope = np.sin(2 * a * x)  # the derivative of sin(a x)^2 by a x
        self.a_gradient = np.sum(grad * (x * slope / a - np.sin(a * x) ** 2 / a**2), axis=0)
        return grad * (1 + slope)


class PowerSign(optim.Optimizer):
    """m <- beta m + (1 - beta) g;  w <- w - lr exp(sign(g) sign(m)) g.    Bello et al. 2017 (1709.07417)"""

    lr: optim.Hyper = 0.01
    beta: optim.Hyper = 0.9
    state = ("m",)

    @staticmethod
    def rule(w, g, m, *, lr, beta):
        m += (1 - beta) * (g - m)
        w -= lr * np.exp(np.sign(g) * np.sign(m)) * g


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0, help="decides the weights and the order of the rows (default 0)")
parser.add_argument("--epochs", type=int, default=300, help="rounds of training (default 300)")
arguments = parser.parse_args()

check = gradcheck(Snake(), np.random.default_rng(arguments.seed).normal(size=(5, 3)))
print(f"Snake's backward differs from central differences by {check.error:.1e}, at most, in {check.where}")

x = np.linspace(-3, 3, 256)[:, None]
y = x + np.sin(2 * x)

net = layers.Model([layers.Linear(16), Snake(), layers.Linear(1)], seed=arguments.seed)
history = net.train(x, y, PowerSign(lr=0.01), loss.MSE(), epochs=arguments.epochs)

print(f"the mean squared error went from {history['loss'][0]:.4f} to {history['loss'][-1]:.6f}")
