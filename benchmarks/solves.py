"""What every rule solves, each at its best learning rate of one grid: a Markdown page, on the screen and in a file.

    python benchmarks/solves.py [--out docs/optimizers_solve.md]

Needs scikit-learn (the digits) and joblib: pip install "layerwise[demo,compare]". It takes seven minutes of
processor time, on two cores at once.
"""

import argparse
import math
import statistics
import sys
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
NAMED = [name for name in [*vars(optim), *optim.__all__] if name in optim.__all__]  # in the order of their file
KINDS = {name: getattr(optim, name) for name in NAMED if isinstance(getattr(optim, name), type)}
RULES = [
    name
    for name, kind in KINDS.items()
    if issubclass(kind, optim.Optimizer)
    and not issubclass(kind, (optim.Wrapper, optim.PerLayer))
    and kind is not optim.Optimizer
]
FULL_BATCH = ("Rprop", "LBFGS")
PROBLEMS = ("quadratic", "Rosenbrock", "XOR", "digits")
BUDGETS = {"quadratic": 5_000, "Rosenbrock": 20_000, "XOR": 2_000, "digits": 860}  # evaluations of value and gradient
FULL_BATCH_BUDGET = 75  # for digits: with more, Rprop learns its rows by heart
TARGET = 1e-6  # of the value at the start
SEEDS = 5
ACCURACY = 0.95


# The problems: run(problem, make a rule) -> (solved, how well: a higher tuple is better, what the table says) ---
#
# `so_far` is how well the best rate before did: what can't be better any more is not gone on with.


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


def on_surface(make, surface, budget, so_far):
    function, x = surface()
    counted, rule = Counted(function), make()
    limit = min(budget, -so_far[0])
    try:
        while counted.calls < limit and counted.reached == math.inf:
            x = optim.minimize(counted, x, rule, 4 if rule.reevaluate else 100)[-1]
    except FloatingPointError:
        pass  # the rate is too high
    solved, share = counted.reached <= budget, counted.lowest / counted.first
    return solved, (-min(counted.reached, budget + 1), -share), f"{counted.reached}" if solved else f"{share:.1e}"


def on_xor(make, budget, so_far):
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
        if right + SEEDS - 1 - seed < so_far[0]:
            break
    return right >= SEEDS - 1, (right, -value), f"{right} of {SEEDS}"


def on_digits(make, budget):
    x, y = datasets.digits()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    stored = len(x) // 4
    right, value = [], []
    for seed in range(3):
        net = layers.Model([layers.Linear(32), layers.ReLU(), layers.Linear(10), layers.Softmax()], seed=seed)
        rule = make()
        if type(rule).__name__ in FULL_BATCH:
            good = full_batches(net, rule, loss.CrossEntropy(), x[stored:], y[stored:], FULL_BATCH_BUDGET)
        else:
            good = batches(net, rule, loss.CrossEntropy(), x[stored:], y[stored:], 32, budget)
        if not good:
            return False, (0.0, -math.inf), "diverges"
        told = net.evaluate(x[:stored], y[:stored], metrics="accuracy")
        right.append(told["accuracy"])
        value.append(told["loss"])
    accuracy = statistics.median(right)
    return accuracy >= ACCURACY, (accuracy, -statistics.median(value)), f"{100 * accuracy:.1f} %"


def batches(net, rule, value, x, y, size, budget, **options):
    """Train until `budget` batches were evaluated; False if it diverges."""
    each = rule.steps * 5 // 4 if rule.reevaluate else 1  # at most, a call
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


def run(problem, make, so_far=(-math.inf, -math.inf)):
    budget = BUDGETS[problem]
    if problem == "XOR":
        return on_xor(make, budget, so_far)
    if problem == "digits":
        return on_digits(make, budget)
    return on_surface(make, quadratic if problem == "quadratic" else rosenbrock, budget, so_far)


def best(rule, problem, falling=False):
    """(solved, what the table says, the rate) at the best rate; `falling`: from that rate to 0 along a line."""
    found = None
    for lr in sorted(GRID, key=lambda lr: abs(math.log(lr / 0.1))):  # from the middle: the best is soon found
        rate = schedules.Linear(lr, 0.0, BUDGETS[problem]) if falling else lr
        new = run(problem, lambda rate=rate: getattr(optim, rule)(rate), *([found[0][1]] if found else []))
        if found is None or new[1] > found[0][1]:
            found = new, lr
    (solved, _, told), lr = found
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
RACE_BUDGET = 2_000
RACE_SEEDS = 9


def race(name, make, target=None, budget=RACE_BUDGET):
    """How many evaluations it takes from each seed; infinite where the budget does not do."""
    data, sections, usual = RACES[name]
    x, y = data()
    reached = []
    for seed in range(RACE_SEEDS):
        net, rule, value = layers.Model(sections(), seed=seed, dtype="float64"), make(), Watched(target or usual)
        while value.calls < budget and value.reached == math.inf:
            if not full_batches(net, rule, value, x, y, 200):
                break
        reached.append(value.reached if value.reached <= budget else math.inf)
    return reached


def raced(name):
    """A row of the second table: the medians of LBFGS and of Adam at its best rate."""
    adam = {lr: race(name, lambda lr=lr: optim.Adam(lr)) for lr in GRID}
    lr = min(GRID, key=lambda lr: statistics.median(adam[lr]))
    return [name, f"{RACES[name][2]:.0e}", counted(race(name, optim.LBFGS)), counted(adam[lr]), f"{lr:g}"]


def counted(reached):
    return f"{statistics.median(reached):,.0f} ({sum(map(math.isfinite, reached))} of {len(reached)} seeds)"


def beyond():
    """Five rows once more, to a loss that only a bend in the net reaches."""
    return [race("five rows", make, 1e-6, 10_000) for make in (optim.LBFGS, lambda: optim.Adam(0.3))]


# The page -------------------------------------------------------------------------------------------------------

SHARE = "a step is a share of each parameter's own length, and biases, which start at 0, hardly move"
WHY = {  # what a rule is not made for
    ("SignSGD", "quadratic"): "every step is as long as the rate, so it ends by going to and fro",
    ("SignSGD", "Rosenbrock"): "every step is as long as the rate, so it jumps from side to side of the valley",
    ("Adadelta", "quadratic"): "its steps keep the size of the steps before them, so it ends by going to and fro",
    ("Adadelta", "Rosenbrock"): "its steps keep the size of the steps before them, so it crosses the valley",
    ("Adafactor", "Rosenbrock"): "a step is a share of the weights' own size, also where the valley is narrow",
    ("Adafactor", "XOR"): SHARE,
    ("LAMB", "XOR"): SHARE,
    (
        "DoG",
        "XOR",
    ): "its rate falls with every gradient seen and grows only with the distance gone, slowly on a plateau",
}

# What helps: how it is written, and for a rate the optimizer.
REMEDIES = {
    (rule, "XOR"): (
        f'PerLayer({{"*.b": Adam({lr}), "*": {rule}({lr})}})',
        lambda rule=rule, lr=lr: optim.PerLayer({"*.b": optim.Adam(lr), "*": getattr(optim, rule)(lr)}),
    )
    for rule, lr in (("LAMB", 0.003), ("Adafactor", 0.03))
}

HEAD = """# What every rule solves

Every rule of `optim`, all arguments but the learning rate at their defaults, each at its best of one grid of rates:
{grid}.
Made by `python benchmarks/solves.py` with NumPy {numpy}.

- **quadratic**: ten dimensions, condition number 100, axes and centre drawn at random, from 0. Solved: a value of at
  most {target:.0e} of that at the start within {quadratic:,} evaluations of value and gradient.
- **Rosenbrock**: (1 - a)^2 + 100 (b - a^2)^2 from (-1.2, 1). Solved: the same within {Rosenbrock:,} evaluations.
- **XOR**: Linear 8, Linear 4, Sigmoid, Linear 2, Softmax; MSE; {XOR:,} steps of full batches, looked at four times.
  Solved: right on all four rows from at least {enough} of {seeds} seeds.
- **digits**: Linear 32, ReLU, Linear 10, Softmax; CrossEntropy; {digits} steps of batches of 32, for {full}
  {few} evaluations of full batches. Solved: an accuracy of at least {accuracy:.0%} on a held-out quarter, the median
  of 3 seeds.

The table gives, with the rate in brackets: for the first two the evaluations that it took or, where it failed, the
lowest value met, over that at the start; for XOR the seeds; for digits the accuracy. What is not solved is **bold**.
The ScheduleFree rules count at their training weights on the first two.
"""

RACE_HEAD = """
## LBFGS and Adam in evaluations

Through `net.train` on full batches, float64: evaluations of loss and gradient until the loss (MSE) first reaches the
target, the median of {seeds} seeds, and how many got there within {budget:,}. Adam has its best rate of the grid.
Five rows: Linear 3, ReLU, Linear 1. Linear regression: 100 rows, Linear 1.
"""

RACE_FOOT = """
The best straight line through the five rows has a loss of 8.24e-4. LBFGS ends there from most seeds, at a minimum, as
PyTorch's does: {lbfgs} of {seeds} seeds go on to 1e-6, where the ReLU bends; with Adam at 0.3 it is {adam}, after
{median:,.0f} evaluations (the median).
"""


def table(head, rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def page(results, falling, helped, races, further):
    rows = [
        [rule, *(f"{told} ({lr:g})" if solved else f"**{told}** ({lr:g})" for solved, told, lr in found)]
        for rule, found in ((rule, [results[rule, problem] for problem in PROBLEMS]) for rule in RULES)
    ]
    head = HEAD.format(
        grid=", ".join(f"{lr:g}" for lr in GRID), numpy=np.__version__, target=TARGET, seeds=SEEDS,
        enough=SEEDS - 1, full=" and ".join(FULL_BATCH), accuracy=ACCURACY, few=FULL_BATCH_BUDGET, **BUDGETS,
    )  # fmt: skip
    lines = [head, table(["rule", *PROBLEMS], rows), "\n## What a rule is not made for\n"]
    for (rule, problem), (solved, also, lr) in falling.items():
        _, best_told, best_lr = results[rule, problem]
        end = f"solved ({also}, from {lr:g})" if solved else f"{also} (from {lr:g})"
        why = WHY.get((rule, problem), "not known why")
        line = f"- {rule} on {problem}: {why}. {best_told} at {best_lr:g}; with the rate falling to 0 in a line {end}"
        if (rule, problem) in helped:
            line += f"; with `{REMEDIES[rule, problem][0]}` {helped[rule, problem]}"
        lines.append(f"{line}.")
    lines.append(RACE_HEAD.format(seeds=RACE_SEEDS, budget=RACE_BUDGET))
    lines.append(table(["problem", "loss to reach", "LBFGS", "Adam", "Adam's rate"], races))
    there = [sum(map(math.isfinite, reached)) for reached in further]
    median = statistics.median(further[1])
    lines.append(RACE_FOOT.format(budget=10_000, lbfgs=there[0], adam=there[1], seeds=RACE_SEEDS, median=median))
    return "\n".join(lines).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "optimizers_solve.md")
    out = parser.parse_args().out
    pairs = [(rule, problem) for rule in RULES for problem in PROBLEMS]
    with joblib.Parallel(2) as parallel:
        races = parallel([joblib.delayed(raced)(name) for name in RACES])
        results = parallel([joblib.delayed(best)(*pair) for pair in pairs])
        results = dict(zip(pairs, results, strict=True))
        failed = [pair for pair in pairs if not results[pair][0]]
        falling = parallel([joblib.delayed(best)(*pair, falling=True) for pair in failed])
        (further,) = parallel([joblib.delayed(beyond)()])
    helped = {pair: run(pair[1], REMEDIES[pair][1])[2] for pair in failed if pair in REMEDIES}
    text = page(results, dict(zip(failed, falling, strict=True)), helped, races, further)
    print(text)
    out.parent.mkdir(exist_ok=True)
    out.write_text(text, encoding="utf-8")
    unexplained = [pair for pair in failed if pair not in WHY]
    if unexplained:
        sys.exit(f"not solved, and WHY does not say why: {unexplained}")


if __name__ == "__main__":
    main()
