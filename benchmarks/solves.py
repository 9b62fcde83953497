"""What every rule solves, each at its best learning rate of one grid: a Markdown page, on the screen and in a file.

    python benchmarks/solves.py [--out docs/optimizers_solve.md]

Needs scikit-learn (the digits) and joblib: pip install "layerwise[demo,compare]". Two cores take about four minutes.
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import joblib
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import layers  # noqa: E402
import loss  # noqa: E402
import model  # noqa: E402
import optim  # noqa: E402
from layerwise import datasets, schedules  # noqa: E402

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
RULES = [
    "SGD", "Momentum", "SignSGD", "Signum", "Rprop", "ASGD", "RMSProp", "Adagrad", "Adadelta", "Adam", "AdamW", "Adamax",
    "NAdam", "RAdam", "AdaBelief", "Yogi", "Lion", "LAMB", "LARS", "Adafactor", "Muon", "ScheduleFreeSGD",
    "ScheduleFreeAdamW", "DoG", "Prodigy", "PolyakSGD", "LBFGS",
]  # fmt: skip
FULL_BATCH = ("Rprop", "LBFGS")
PROBLEMS = ("quadratic", "Rosenbrock", "XOR", "digits")
BUDGETS = {"quadratic": 5_000, "Rosenbrock": 20_000, "XOR": 1_000, "digits": 860}  # evaluations of value and gradient
FULL_BATCH_BUDGET = 300  # for digits
TARGET = 1e-6  # of the value at the start
SEEDS = 5
ACCURACY = 0.95


# The problems: run(make a rule) -> (solved, how well: a higher tuple is better, what the table says) -----------


class Counted:
    """A function that remembers how often it was asked, its first and lowest value, and when that was low enough."""

    def __init__(self, function):
        self.function, self.calls, self.reached = function, 0, math.inf
        self.first, self.lowest = None, math.inf

    def __call__(self, x):
        value, gradient = self.function(x)
        self.calls += 1
        self.first = value if self.first is None else self.first
        self.lowest = min(self.lowest, value)
        if value <= TARGET * self.first and self.reached == math.inf:
            self.reached = self.calls
        return value, gradient


def quadratic():
    """0.5 (x - c)'A(x - c) in ten dimensions, the eigenvalues of A from 1 to 100, its axes and c drawn at random."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    curvature, centre = axes @ np.diag(np.geomspace(1, 100, 10)) @ axes.T, rng.standard_normal(10)

    def function(x):
        gradient = curvature @ (x - centre)
        return 0.5 * float(gradient @ (x - centre)), gradient

    return function, np.zeros(10)


def rosenbrock():
    def function(x):
        a, b = x.tolist()
        off = b - a * a
        return (1 - a) ** 2 + 100 * off * off, np.array([-2 * (1 - a) - 400 * a * off, 200 * off])

    return function, np.array([-1.2, 1.0])


def on_surface(make, surface, budget):
    function, x = surface()
    counted, rule = Counted(function), make()
    try:
        while counted.calls < budget and counted.reached == math.inf:
            x = optim.minimize(counted, x, rule, 4 if rule.again else 100)[-1]
    except FloatingPointError:
        pass  # the rate is too high
    solved, share = counted.reached <= budget, counted.lowest / counted.first
    return solved, (-min(counted.reached, budget + 1), -share), f"{counted.reached}" if solved else f"{share:.1e}"


def on_xor(make, budget):
    x, y = datasets.xor()
    right, value = 0, 0.0
    for seed in range(SEEDS):
        net = layers.Model(
            [layers.Linear(8), layers.Linear(4), layers.Sigmoid(), layers.Linear(2), layers.Softmax()], seed=seed
        )
        rule, solved = make(), False
        for _ in range(4):
            if not solved and full_batches(net, rule, loss.MSE(), x, y, budget // 4):
                solved = bool((net.predict(x).argmax(1) == y.argmax(1)).all())
        right += solved
        value += net.evaluate(x, y)["loss"] / SEEDS
    return right >= SEEDS - 1, (right, -value), f"{right} of {SEEDS}"


def on_digits(make, budget):
    x, y = datasets.digits()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    held = len(x) // 4
    right, value = [], []
    for seed in range(3):
        net = layers.Model([layers.Linear(32), layers.ReLU(), layers.Linear(10), layers.Softmax()], seed=seed)
        rule = make()
        if type(rule).__name__ in FULL_BATCH:
            good = full_batches(net, rule, loss.CrossEntropy(), x[held:], y[held:], FULL_BATCH_BUDGET)
        else:
            good = batches(net, rule, loss.CrossEntropy(), x[held:], y[held:], 32, budget)
        if not good:
            return False, (0.0, -math.inf), "diverges"
        told = net.evaluate(x[:held], y[:held], metrics="accuracy")
        right.append(told["accuracy"])
        value.append(told["loss"])
    accuracy = statistics.median(right)
    return accuracy >= ACCURACY, (accuracy, -statistics.median(value)), f"{100 * accuracy:.1f} %"


def batches(net, rule, value, x, y, size, budget, **options):
    """Train until `budget` batches were evaluated; False if it diverges."""
    each = rule.steps * 5 // 4 if rule.again else 1  # at most, a call
    epochs = max(1, round(budget / each / math.ceil(len(x) / size)))
    try:
        net.train(x, y, optim=rule, loss=value, epochs=epochs, batch_size=size, verbose=False, **options)
    except model.DivergenceError:
        return False
    return True


def full_batches(net, rule, value, x, y, budget):
    times = max(1, 400 // len(x))  # the rows over and over: an epoch of one small batch costs more than its step
    x, y, size = np.concatenate([x] * times), np.concatenate([y] * times), len(x)
    return batches(net, rule, value, x, y, size, budget, shuffle=False)


def run(problem, make):
    budget = BUDGETS[problem]
    if problem in ("quadratic", "Rosenbrock"):
        return on_surface(make, quadratic if problem == "quadratic" else rosenbrock, budget)
    return on_xor(make, budget) if problem == "XOR" else on_digits(make, budget)


def best(rule, problem, falling=False):
    """(solved, what the table says, the rate) at the best rate; `falling`: from that rate to 0 along a line."""

    def make(lr):
        return getattr(optim, rule)(schedules.Linear(lr, 0.0, BUDGETS[problem]) if falling else lr)

    results = [(run(problem, lambda lr=lr: make(lr)), lr) for lr in GRID]
    (solved, _, told), lr = max(results, key=lambda each: each[0][:2])
    return solved, told, lr


# LBFGS against Adam, both through net.train on full batches -----------------------------------------------------


class Watched(loss.MSE):
    """MSE that counts how often it was asked, and remembers when it was first low enough."""

    def __init__(self, target):
        super().__init__()
        self.target, self.calls, self.reached = target, 0, math.inf

    def __call__(self, pred, real, sample_weight=None):
        value = super().__call__(pred, real, sample_weight)
        self.calls += 1
        if value <= self.target and self.reached == math.inf:
            self.reached = self.calls
        return value


RACES = {  # data, layers, the loss to reach
    "five rows": (datasets.five_rows, lambda: [layers.Linear(3), layers.ReLU(), layers.Linear(1)], 9e-4),
    "linear regression": (datasets.regression, lambda: [layers.Linear(1)], 1e-6),
}
RACE_BUDGET = 10_000
RACE_SEEDS = 9


def race(name, make, target=None):
    """How many evaluations it takes from each seed; infinite where the budget does not do."""
    data, parts, usual = RACES[name]
    x, y = data()
    reached = []
    for seed in range(RACE_SEEDS):
        net, rule, value = layers.Model(parts(), seed=seed, dtype="float64"), make(), Watched(target or usual)
        while value.calls < RACE_BUDGET and value.reached == math.inf:
            if not full_batches(net, rule, value, x, y, 200):
                break
        reached.append(value.reached if value.reached <= RACE_BUDGET else math.inf)
    return reached


def raced(name):
    """A row of the second table: the medians of LBFGS and of Adam at its best rate."""
    adam = {lr: race(name, lambda lr=lr: optim.Adam(lr)) for lr in GRID}
    lr = min(GRID, key=lambda lr: statistics.median(adam[lr]))
    lbfgs, adam = race(name, optim.LBFGS), adam[lr]
    return name, [f"{RACES[name][2]:.0e}", counted(lbfgs), counted(adam), f"{lr:g}"], lbfgs, adam


def counted(reached):
    return f"{statistics.median(reached):,.0f} ({sum(map(math.isfinite, reached))} of {len(reached)})"
