"""Make numbers.npz: activations, losses and their derivatives to 50 digits, over the whole range of the numbers.

    pip install mpmath numpy
    python tests/reference/make_numbers.py

The tests read the file with NumPy alone. The inputs are exact in float32, so that one table serves both dtypes. "x" are
the inputs of the activations, "NAME/y" and "NAME/slope" their values and derivatives, rounded to float64. "pred" and
"real" are those of the losses, and "NAME/value" and "NAME/slope" theirs. "Sigmoid-BinaryCrossEntropy" is that loss
after a Sigmoid: pred is its input x, and the slope is dL/dx.
"""

from pathlib import Path

import mpmath as mp
import numpy as np

mp.mp.dps = 50
HALF, ONE, SIX = mp.mpf(1) / 2, mp.mpf(1), mp.mpf(6)


def inputs():
    """Every decade from 1e-40 to 1e30, and denser where the functions bend and where their tails underflow."""
    decades = [m * 10.0**k for k in range(-40, 31) for m in (1, 2.7)]
    tails = [5, 6.25, 8, 9.5, 10.125, 11.75, 12.5, 13.0625, 14, 15.25, 16.5, 17.5, 18.25, 20.75, 21.25, 25, 26.5, 30]
    tails += [33.3, 36.5, 37.75, 38.25, 40, 45, 60, 79, 80.5, 86.5, 87.25, 88.5, 90, 91.5, 100, 300, 500, 700.5]
    tails += [707.5, 708.25, 709.5, 712, 714, 730, 745, 800]
    positive = [*decades, *tails, *np.arange(1, 160) / 32]
    return np.unique(np.float32([*positive, *(-x for x in positive), 0])).astype(float)


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def normal(x):
    """Phi(x) and its derivative."""
    return mp.erfc(-x / mp.sqrt(2)) / 2, mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def gelu_tanh(x):
    c = mp.mpf("0.044715")
    phi = sigmoid(2 * mp.sqrt(2 / mp.pi) * (x + c * x**3))
    return x * phi, phi + x * phi * (1 - phi) * 2 * mp.sqrt(2 / mp.pi) * (1 + 3 * c * x * x)


def mish(x):
    e = mp.exp(x)
    n = e * (e + 2)
    return x * n / (n + 2), n / (n + 2) + x * 4 * e * (1 + e) / (n + 2) ** 2


def selu(x):
    scale, alpha = mp.mpf(1.0507009873554805), mp.mpf(1.6732632423543772)
    return (scale * x, scale) if x > 0 else (scale * alpha * mp.expm1(x), scale * alpha * mp.exp(x))


def inside(x, low, high):
    return ONE if low < x < high else mp.mpf(0)


ACTIVATIONS = {  # name: x -> y, dy/dx; at a kink the derivative from below, as the layers have it
    "Sigmoid": lambda x: (sigmoid(x), sigmoid(x) * sigmoid(-x)),
    "Tanh": lambda x: (mp.tanh(x), mp.sech(x) ** 2),
    "ReLU": lambda x: (max(x, mp.mpf(0)), ONE if x > 0 else mp.mpf(0)),
    "LeakyReLU": lambda x: (x, ONE) if x > 0 else (mp.mpf(0.01) * x, mp.mpf(0.01)),
    "ELU": lambda x: (x, ONE) if x > 0 else (mp.expm1(x), mp.exp(x)),
    "SELU": selu,
    "GELU": lambda x: (x * normal(x)[0], normal(x)[0] + x * normal(x)[1]),
    "GELU-tanh": gelu_tanh,
    "SiLU": lambda x: (x * sigmoid(x), sigmoid(x) * (1 + x * sigmoid(-x))),
    "Softplus": lambda x: (max(x, mp.mpf(0)) + mp.log1p(mp.exp(-abs(x))), sigmoid(x)),
    "Softsign": lambda x: (x / (1 + abs(x)), 1 / (1 + abs(x)) ** 2),
    "Mish": mish,
    "HardTanh": lambda x: (min(max(x, -ONE), ONE), inside(x, -1, 1)),
    "ReLU6": lambda x: (min(max(x, mp.mpf(0)), SIX), inside(x, 0, 6)),
    "HardSigmoid": lambda x: (min(max(x / 6 + HALF, mp.mpf(0)), ONE), inside(x, -3, 3) / 6),
    "HardSwish": lambda x: (
        x * min(max(x / 6 + HALF, mp.mpf(0)), ONE),
        (2 * x + 3) / 6 if -3 < x < 3 else (ONE if x >= 3 else mp.mpf(0)),
    ),
}


def pairs(name, x):
    """Predictions and targets of a loss, every target with every prediction."""
    targets = {"LogCosh": [0.0], "PoissonNLL": [0.0, 3.0]}.get(name, [0.0, 1.0, 0.25])
    if name == "PoissonNLL":
        x = x[np.abs(x) < 80]
    return np.repeat(x, len(targets)), np.tile(targets, len(x))


def entropy(x, y):
    softplus = ACTIVATIONS["Softplus"]
    return (1 - y) * softplus(x)[0] + y * softplus(-x)[0], (1 - y) * sigmoid(x) - y * sigmoid(-x)


def log_cosh(x, y):
    d = abs(x - y)
    value = 2 * mp.sinh(d / 2) ** 2 if d < 1e-10 else d + mp.log1p(mp.exp(-2 * d)) - mp.log(2)
    return value, mp.tanh(x - y)


LOSSES = {  # name: pred, real -> value, dvalue/dpred
    "LogCosh": log_cosh,
    "PoissonNLL": lambda x, y: (mp.exp(x) - y * x, mp.exp(x) - y),
    "BinaryCrossEntropy-logits": entropy,
    "Sigmoid-BinaryCrossEntropy": entropy,
}


def rounded(rows):
    return np.array([[float(each) for each in row] for row in rows]).T


def main():
    x = inputs()
    arrays = {"x": x}
    for name, function in ACTIVATIONS.items():
        arrays[f"{name}/y"], arrays[f"{name}/slope"] = rounded(function(mp.mpf(each)) for each in x)
    for name, function in LOSSES.items():
        pred, real = pairs(name, x)
        arrays |= {f"{name}/pred": pred, f"{name}/real": real}
        found = rounded(function(mp.mpf(p), mp.mpf(y)) for p, y in zip(pred, real, strict=True))
        arrays[f"{name}/value"], arrays[f"{name}/slope"] = found
    np.savez_compressed(Path(__file__).with_name("numbers.npz"), **arrays)


if __name__ == "__main__":
    main()
