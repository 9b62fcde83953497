"""All rates and seeds of a rule as one stack, beside the same nets one after the other: seconds, and their ratio.

    python benchmarks/stacks.py                     a Markdown table
    python benchmarks/stacks.py --rounds 9 --steps 100

What `compare` asks for: 17 rates from 1e-4 to 1, 10 seeds each, 170 nets. Both ways are those of `run_group`, which
goes one by one where a rule takes one rate at a time. They take turns. BLAS has one thread, and the seconds are those
of the processor, so that other programs disturb little.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import optim  # noqa: E402
from layerwise import problems  # noqa: E402
from layerwise.compare import RATES, log_grid, run_group  # noqa: E402

NAMES = ("xor", "five_rows", "linear_regression", "moons", "digits")


def one_rate(rule):
    """The same rule, made for one rate at a time."""
    return lambda lr: rule(float(lr))


def seconds(name, make, lrs, seeds, steps):
    problem = problems.named(name)
    began = time.process_time()
    curves, _, _ = run_group(problem, make, lrs, range(seeds), steps)
    return time.process_time() - began, curves


def main(rounds, steps, seeds, names):
    lrs = log_grid(*RATES)
    print(f"{len(lrs) * seeds} nets of {steps} steps, medians of {rounds} rounds; in brackets lowest and highest.\n")
    print("| problem | parameters | rule | one by one, s | one stack, s | times as fast |")
    print("|---|---|---|---|---|---|")
    for name in names:
        size = problems.named(name).net(0).parameter_count
        for rule in (optim.SGD, optim.Adam):
            pairs = []
            for _ in range(rounds):
                (single, one), (stack, other) = (
                    seconds(name, make, lrs, seeds, steps) for make in (one_rate(rule), rule)
                )
                assert np.allclose(one[..., :5], other[..., :5], rtol=1e-3, equal_nan=True)  # the same nets
                pairs.append((single, stack))
            single, stack = (statistics.median(each) for each in zip(*pairs, strict=True))
            ratios = [single / stack for single, stack in pairs]
            told = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
            print(f"| {name} | {size:,} | {rule.__name__} | {single:.2f} | {stack:.3f} | {told} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--problems", nargs="+", choices=NAMES, default=NAMES)
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.steps, arguments.seeds, arguments.problems)
