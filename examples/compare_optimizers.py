"""SGD, Momentum, RMSProp and Adam on XOR: which one, and at which learning rate?

Draws their loss curves, one panel for each of four learning rates and one picture with each at its best, and writes
a report. The same from the command line, for any problem: python -m layerwise.compare --help
"""

import argparse
from pathlib import Path

from layerwise.report import write_report

from layerwise import pictures
from layerwise.compare import compare


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="xor", help="another problem, by name (default xor)")
    parser.add_argument("--optimizers", default="SGD,Momentum,RMSProp,Adam", help="others, by name, with commas")
    parser.add_argument("--steps", type=int, default=500, help="of every training (default 500)")
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each, at each learning rate (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="the first of these seeds (default 0)")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for what is drawn (default: here)")
    parser.add_argument("--quick", action="store_true", help="3 seeds, 100 steps, the four rates of the panels")
    arguments = parser.parse_args()

    steps, count, lrs = arguments.steps, arguments.seeds, None  # None: 17 rates from 0.0001 to 1
    if arguments.quick:
        steps, count, lrs = 100, 3, [0.001, 0.01, 0.1, 1.0]
    seeds = range(arguments.seed, arguments.seed + count)
    found = compare(
        arguments.optimizers, arguments.problem, lrs, seeds, steps, verbose=False, widen=not arguments.quick
    )

    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("panels", pictures.panels), ("curves", pictures.loss_curves)):
        pictures.save(draw(found), arguments.out / f"{name}.png")
    write_report(found, arguments.out / "report.html")

    print(found.to_markdown())
    print(f"panels.png, curves.png and report.html are in {arguments.out}")
    print(f"{arguments.problem}: {found.verdict}")


if __name__ == "__main__":
    main()
