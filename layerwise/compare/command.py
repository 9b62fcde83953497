"""The command: python -m layerwise.compare --problem xor --optimizers sgd,momentum,rmsprop,adam --out report.html"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from layerwise import problems
from layerwise.compare.contest import compare, log_grid
from layerwise.compare.report import write_report
from layerwise.compare.results import beside


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m layerwise.compare`: compare, print the table, write what was asked for."""
    given = _parser().parse_args(arguments)
    lrs = None if given.lrs is None else _rates_from(given.lrs)
    runs = Path(given.runs) if given.runs else Path(f"{given.out}.runs.jsonl") if given.out else None
    try:
        found = compare(
            given.optimizers, given.problem, lrs, given.seeds, given.steps, given.target, given.jobs, runs, given.clip
        )
        print(found.to_markdown())
        if given.csv:
            found.to_csv(given.csv)
        if given.json:
            found.to_json(given.json)
        if given.out:
            write_report(found, given.out)
            print(f"written: {given.out}")
    except KeyboardInterrupt:
        print(f"stopped. The same command goes on from {runs}." if runs else "stopped.")
        return 130
    except (ImportError, ValueError, OSError) as error:
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]))
        return 1
    if runs is not None and not given.runs:
        for each in (runs, beside(runs)):
            each.unlink(missing_ok=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m layerwise.compare",
        description="Which optimizer, at which learning rate, for this problem? All get the same rates, steps, starts "
        "and batches.",
        epilog=f"Problems: {', '.join([*problems.NETS, *problems.SURFACES])}.",
    )
    add = parser.add_argument
    add("--problem", required=True, help="what to train, by name; see below")
    add("--optimizers", required=True, help="names, such as sgd,momentum,rmsprop,adam")
    add("--out", help="write a report there, one HTML file")
    add("--steps", type=int, default=1000, help="of every run (default 1000)")
    add("--seeds", type=int, default=10, help="how many (default 10)")
    add("--lrs", help="rates, 0.001,0.01,0.1, or low:high:per decade (default 1e-4:1:4); widened where too narrow")
    add("--target", type=float, help="a loss to count steps to (default: the problem's own)")
    add("--clip", type=float, help="clip the gradients of all to this global norm (default: no clipping)")
    add("--jobs", type=int, default=1, help="processes (default 1; more need joblib)")
    add("--csv", help="write every run there")
    add("--json", help="write everything there, for Comparison.load")
    add("--runs", help="keep what is finished there (default: beside the report, until that is written)")
    return parser


def _rates_from(text: str) -> Sequence[float]:
    """The rates of "0.001,0.01,0.1" or "1e-4:1:4"."""
    try:
        if ":" in text:
            low, high, *each = text.split(":")
            return log_grid(float(low), float(high), *map(int, each))
        return [float(each) for each in text.split(",")]
    except (TypeError, ValueError) as error:
        raise SystemExit(f"--lrs takes 0.001,0.01,0.1 or low:high:per decade, got {text!r}: {error}") from error
