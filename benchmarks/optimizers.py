"""The table of optimizers: what each equals, how closely, what it keeps, and what a step of it costs.

    python benchmarks/optimizers.py                          prints it, as Markdown
    python benchmarks/optimizers.py --write docs/optimizers.md   puts it between the two markers of that file

Everything in it comes from this run: every golden trajectory in tests/reference is walked in every way that it can be,
the state is counted after two steps, and the cost is timed in rounds in which every rule takes its turn after SGD.
"""

import argparse
import os
import re
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # what a rule costs, not how well it is spread over cores

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "reference")]

import golden  # noqa: E402

import optim  # noqa: E402

BEGIN, END = "<!-- the table of optimizers: begin -->", "<!-- the table of optimizers: end -->"
HEAD = ["class", "equals", "largest difference", "state arrays per parameter", "cost per step against SGD"]
SHAPES = [(784, 100), (100,), (100, 150), (150,), (150, 40), (40,)]  # 99,690 parameters
MADE = {
    "Clip": lambda: optim.Clip(optim.SGD(), norm=1.0),
    "Accumulate": lambda: optim.Accumulate(optim.SGD(), 4),
    "Average": lambda: optim.Average(optim.SGD(), 0.99),
    "Lookahead": lambda: optim.Lookahead(optim.SGD()),
    "SAM": lambda: optim.SAM(optim.SGD()),
    "PerLayer": lambda: optim.PerLayer({"[024]": optim.SGD(), "*": optim.SGD()}),
    "LBFGS": lambda: optim.LBFGS(steps=1, history=10, tolerance_gradient=0, tolerance_change=0),
}
EVALUATE = ("SAM", "PolyakSGD", "LBFGS")


def made(name):
    return MADE.get(name, getattr(optim, name))()


def differences():
    """Name -> (references, the largest difference over all cases and ways)."""
    found = {}
    for case in golden.cases():
        references, far = found.get(case.name, ([], 0.0))
        if case.reference not in references:
            references.append(case.reference)
        for way in golden.ways(case):
            far = max(far, golden.difference(case, getattr(case, way)(case.make())))
        found[case.name] = references, far
    far = 0.0
    for case in golden.cases("Adam"):
        rule = optim.PerLayer({"[02]": case.make(), "*": case.make()})
        far = max(far, golden.difference(case, case.by_net(rule)))
    found["PerLayer"] = ["its parts (here Adam's cases)"], far
    return found


def bowl(x):
    """A function that costs little beside a step, and that twenty steps do not get to the bottom of."""
    g = SCALE * x
    return 0.5 * float(x @ g), g


rng = np.random.default_rng(0)
ARRAYS = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
GRADIENTS = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
SIZE = sum(w.size for w in ARRAYS)
SCALE = np.geomspace(1e-3, 1, SIZE, dtype=np.float32)


def prepared(name):
    """(a function that takes some steps, the rule)."""
    rule = made(name)
    if name in EVALUATE:
        x = rng.standard_normal(SIZE).astype(np.float32)

        def run(steps):
            nonlocal x
            x = optim.minimize(bowl, x, rule, steps)[-1]
    else:
        net = golden.held(ARRAYS, "float32")
        golden.give(net, GRADIENTS)

        def run(steps):
            for _ in range(steps):
                rule.update(net)

    return run, rule


def kept(rule):
    """Numbers of state for each parameter: the rule's own, not those of what it goes around."""
    return sum(array.size for each in rule.state_dict()["state"] for array in each.values()) / SIZE


def costs(names, rounds, steps):
    """Name -> (state arrays, the median over the rounds of its time over that of SGD just before)."""
    runs = {name: prepared(name) for name in names}
    base = {False: prepared("SGD")[0], True: None}
    x = rng.standard_normal(SIZE).astype(np.float32)
    plain = optim.SGD()
    base[True] = lambda steps: optim.minimize(bowl, x, plain, steps)
    for run, _ in runs.values():
        run(2)
    state = {name: kept(rule) for name, (_, rule) in runs.items()}
    state["PerLayer"] = 0.0
    ratios = {name: [] for name in names}
    for _ in range(rounds):
        for name, (run, _) in runs.items():
            times = []
            for each in (base[name in EVALUATE], run):
                began = time.perf_counter()
                each(steps)
                times.append(time.perf_counter() - began)
            ratios[name].append(times[1] / times[0])
    return {name: (state[name], statistics.median(ratios[name])) for name in names}


def arrays(name, number):
    if name == "LBFGS":
        return "2 history + 2"
    return f"{number:.0f}" if abs(number - round(number)) < 5e-3 and name != "Adafactor" else f"{number:.2f}"


def table(rounds, steps):
    cost, rows = costs(golden.NAMES, rounds, steps), []
    for name, (references, far) in sorted(differences().items(), key=lambda row: ORDER.index(row[0])):
        state, ratio = cost[name]
        digits = f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"
        rows.append([f"`{name}`", "; ".join(references), f"{far:.0e}" if far else "0", arrays(name, state), digits])
    lines = [HEAD, ["---", "---", "---:", "---:", "---:"], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


ORDER = sorted(golden.NAMES, key=re.findall(r"\w+", optim.__doc__).index)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", metavar="FILE", help="replace the table between the two markers of FILE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="steps of a rule in a round")
    arguments = parser.parse_args()
    made_table = table(arguments.rounds, arguments.steps)
    if arguments.write is None:
        print(made_table)
        return
    path = Path(arguments.write)
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        parser.error(f"{path} needs the two lines {BEGIN} and {END}.")
    before, rest = text.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{made_table}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(f"{path}: {made_table.count(chr(10)) - 1} rows")


if __name__ == "__main__":
    main()
