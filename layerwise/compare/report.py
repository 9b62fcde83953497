"""One HTML file that answers "which optimizer, at which learning rate?": `write_report(compare(...), "report.html")`.

It needs no network and can be read on a phone: pictures are in the file. Nothing in it was timed, so that the same
comparison gives the same bytes; what was timed goes into a file beside it, `report.timings.html`.
"""

from __future__ import annotations

import base64
import html
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import layerwise.compare.pictures as pictures
from layerwise import optim, problems
from layerwise.compare.contest import RATES, log_grid
from layerwise.compare.results import FEWEST, GOOD, RESAMPLES, SURE, Comparison, beside, write_text
from layerwise.core import arguments

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
p, li, h1 { overflow-wrap: anywhere; }
p, ul { max-width: 46rem; }
.answer { font-size: 1.15rem; border-left: 4px solid #0072b2; padding: .4rem .8rem; background: #f2f7fb; }
.warning { border-left: 4px solid #d55e00; padding: .2rem .8rem; background: #fdf4ee; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; }
figure img { display: block; width: 100%; }
figure.wide img { min-width: 34rem; }
figcaption { font-size: .9rem; color: #444; }
pre { padding: .7rem; background: #f5f5f5; font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
"""

Row = Mapping[str, Any]


def write_report(
    comparison: Comparison, path: str | os.PathLike[str], more: Mapping[str, Any] | None = None, timings: bool = True
) -> None:
    """Write the report, whole or not at all, and beside it, with `timings`, what was timed.

    `more` is other pictures to show, {caption: Figure}. ImportError, with the pip command, without matplotlib;
    OSError where it can't be written, with what was there as it was.
    """
    path, timings = Path(path), arguments.flag("timings", timings)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to write {path.name} in: make it first.")
    timed = timings and any(np.isfinite(each).any() for each in comparison.seconds.values())
    page = _report(comparison, more or {}, beside(path).name if timed else None)
    if timed:
        write_text(beside(path), _timings(comparison, path.name))
    write_text(path, page)


# The pages ---------------------------------------------------------------------------------------------------


def _report(comparison: Comparison, more: Mapping[str, Any], timings: str | None) -> str:
    """The page, without anything that was timed; `timings` is the file that has that."""
    drawn = [
        _picture(pictures.loss_curves(comparison), "The loss while it falls, for each optimizer at its best rate."),
        _picture(pictures.final_loss(comparison), "How much the learning rate matters: a wide valley forgives."),
        _picture(pictures.heat_map(comparison), "The same in numbers, one row for each optimizer.", wide=True),
        _picture(pictures.panels(comparison), "All optimizers at the same learning rate.", wide=True),
        *(_picture(figure, caption) for caption, figure in more.items()),
    ]
    body = [
        f"<h1>{_escape(_question(comparison))}</h1>",
        f'<p class="answer">{_escape(_answer(comparison))}</p>',
        *(f'<p class="warning">Warning: {_escape(each)}</p>' for each in comparison.warnings()),
        "<h2>Results</h2>",
        _table("Results", COLUMNS, comparison.table()),
        f"<p>{_escape(LEGEND)}</p>",
        "<h2>Pictures</h2>",
        f'<div class="pictures">{"".join(drawn)}</div>',
        "<h2>Protocol</h2>",
        f"<ul>{''.join(f'<li>{_escape(each)}</li>' for each in _protocol(comparison))}</ul>",
        "<h2>Run it again</h2>",
        f"<pre>{_escape(_again(comparison))}</pre>",
        "<h2>Settings</h2>",
        f"<pre>{_escape(_flat(_settings(comparison)))}</pre>",
    ]
    if timings is not None:
        link = f'<a href="{_escape(timings)}">{_escape(timings)}</a>'
        body.append(f"<p>What was timed differs from run to run and stands in a file of its own: {link}.</p>")
    return _page(_question(comparison), body)


def _timings(comparison: Comparison, report: str) -> str:
    """The page of what was timed."""
    title = f"Timings on {comparison.problem}"
    machine = f"{platform.platform()}, {os.cpu_count()} cores"
    body = [
        f"<h1>{_escape(title)}</h1>",
        f'<p>Measured while <a href="{_escape(report)}">the comparison</a> ran. These numbers differ from run to run '
        "and from machine to machine; where many nets were trained as one stack, each has its share.</p>",
        _table("Timings", TIMED, comparison.timings()),
        f'<div class="pictures">{_picture(pictures.costs(comparison), "Time of one step of one net.")}</div>',
        f"<p>{_escape(machine)}</p>",
    ]
    return _page(title, body)


def _page(title: str, body: Sequence[str]) -> str:
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def _escape(text: Any) -> str:
    return html.escape(str(text))


def _picture(figure: Any, caption: str, wide: bool = False) -> str:
    """A figure within the page. As an image: drawings within the page itself would share the names of their parts."""
    title = figure.get_suptitle().replace("\\$", "$")
    content = base64.b64encode(pictures.render(figure, "svg")).decode()
    image = f'<img alt="{_escape(title)}" src="data:image/svg+xml;base64,{content}">'
    box = f'<div class="scroll">{image}</div>'
    return f"<figure{' class=wide' if wide else ''}>{box}<figcaption>{_escape(caption)}</figcaption></figure>"


def _table(title: str, columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> str:
    """A table that scrolls in a box of its own, where the screen is narrow."""
    head = "".join(f'<th scope="col">{_escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_escape(cell(row))}</td>' for cell in columns.values())}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{_escape(title)}">{table}</div>'


# What they say -----------------------------------------------------------------------------------------------


def _list(names: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else names[0]


def _question(comparison: Comparison) -> str:
    names = _list(comparison.optimizers, "or")
    return f"{names}: which one, at which learning rate, for {comparison.problem}?"


def _answer(comparison: Comparison) -> str:
    sentence = comparison.verdict[0].upper() + comparison.verdict[1:]
    winner = comparison.winner
    if winner is None or not comparison.has_rate(winner):
        return sentence
    return f"{sentence} Its best learning rate is {comparison.best_lr(winner):.4g}."


def _protocol(comparison: Comparison) -> list[str]:
    """How it was done, in sentences."""
    question = comparison.settings.get("question", {})
    lrs, asked = comparison.lrs, comparison.asked
    below, above = comparison.widened
    grid = f"{len(lrs)} learning rates from {lrs[0]:.3g} to {lrs[-1]:.3g}, the same for every optimizer"
    if below or above:
        grid += f"; asked for were {asked[0]:.3g} to {asked[-1]:.3g}, widened for all, as a best rate lay at the edge"
    told = [
        f"Every optimizer trained {comparison.problem} for {comparison.steps:,} steps at each rate from each seed.",
        f"{grid}.",
        f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) > 1)}: each decides the start and the batches, "
        "which are the same for every optimizer and rate.",
    ]
    if question.get("clip") is None:
        told.append("No gradient was clipped.")
    else:
        told.append(f"The gradients of all were clipped to a global norm of {question['clip']:g}.")
    without = [name for name in comparison.optimizers if not comparison.has_rate(name)]
    if without:
        told.append(f"Without a learning rate to choose, and run once from each seed: {_list(without)}.")
    told.append(
        "The final loss of a run is the median of the last twentieth of its losses, or of the last epoch if that is "
        "longer; infinite if it diverged, and such a run is counted, not dropped."
    )
    if comparison.target is not None:
        told.append(f"The target is a loss of {comparison.target:.4g}.")
    told.append(
        f"Best is the rate with the lowest median of the final loss over the seeds. Ranks, and who wins, are told by "
        f"{RESAMPLES:,} resamples of the seeds: an optimizer wins that is alone at the front in {SURE:.0%} of them; "
        f"fewer than {FEWEST} seeds tell nothing."
    )
    return told


def _again(comparison: Comparison) -> str:
    """The command that gives this comparison, or, where no command can, the call."""
    question = comparison.settings.get("question", {})
    lrs = ",".join(repr(float(lr)) for lr in comparison.asked)
    if _by_name(comparison):
        words = [
            "python -m layerwise.compare",
            f"--problem {comparison.problem}",
            f"--optimizers {','.join(comparison.optimizers)}",
            *([] if tuple(comparison.asked) == log_grid(*RATES) else [f"--lrs {lrs}"]),
            f"--steps {comparison.steps}",
            f"--seeds {len(comparison.seeds)}",
        ]
        words += [f"--target {comparison.target!r}"] if comparison.target is not None else []
        words += [f"--clip {question['clip']!r}"] if question.get("clip") is not None else []
        return " \\\n    ".join([*words, "--out report.html"])
    return (
        "from layerwise.compare import compare\n\n"
        "optimizers = {name: class or function of the rate, as under Settings}\n"
        "problem = ...  # as under Settings\n\n"
        f"compare(optimizers, problem, lrs=[{lrs.replace(',', ', ')}],\n"
        f"        seeds={list(comparison.seeds)}, steps={comparison.steps}, target={comparison.target}, "
        f"clip={question.get('clip')}, widen={question.get('widen', True)})"
    )


def _by_name(comparison: Comparison) -> bool:
    """Whether the problem and the optimizers are ours, as they are, and the seeds the first ones."""
    question = comparison.settings.get("question", {})
    created: Any = problems.NETS.get(comparison.problem) or problems.SURFACES.get(comparison.problem)
    if created is None or not question.get("widen") or "over" in comparison.settings:
        return False
    if comparison.seeds != tuple(range(len(comparison.seeds))):
        return False
    if json.loads(json.dumps(created().describe())) != question.get("problem"):
        return False
    return all(question["optimizers"].get(name) in _ours(name, question) for name in comparison.optimizers)


def _ours(name: str, question: Mapping[str, Any]) -> list[str]:
    """How the rule of that name shows itself when it is made from a rate, or from nothing."""
    rule = getattr(optim, name, None)
    if name not in optim.__all__ or not isinstance(rule, type) or not issubclass(rule, optim.Optimizer):
        return []
    shown = []
    for rates in ((), (0.01,)):
        try:
            created = rule(*rates)
        except TypeError:
            continue
        shown.append(repr(created if question.get("clip") is None else optim.Clip(created, norm=question["clip"])))
    return shown


def _settings(comparison: Comparison) -> dict[str, Any]:
    """Every setting, and the versions of what drew this."""
    try:
        version = importlib.metadata.version("layerwise")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed: from a checkout"
    return {
        **comparison.settings,
        "rates": comparison.lrs.tolist(),
        "report": {"layerwise": version, "matplotlib": importlib.metadata.version("matplotlib")},
    }


def _flat(settings: Mapping[str, Any], before: str = "") -> str:
    """A line for each setting, `problem.loss = "MSE()"`."""
    lines = []
    for name, value in settings.items():
        inner = isinstance(value, Mapping) and value
        shown = json.dumps(value, ensure_ascii=False, default=str)
        lines.append(_flat(value, f"{before}{name}.") if inner else f"{before}{name} = {shown}")
    return "\n".join(lines)


# The tables --------------------------------------------------------------------------------------------------


def _number(value: float, digits: int = 3) -> str:
    if math.isnan(value):
        return "–"  # noqa: RUF001 (an empty cell)
    return "∞" if math.isinf(value) else f"{value:.{digits}g}"


def _loss(value: float) -> str:
    return "diverged" if math.isinf(value) else _number(value)


def _rank(row: Row) -> str:
    low, high = row["rank_low"], row["rank_high"]
    return f"{row['rank']}" + (f" ({low} to {high})" if low < high else "")


def _window(row: Row) -> str:
    if math.isnan(row["good_low"]):
        return _number(math.nan)
    return f"{row['good_low']:.3g} to {row['good_high']:.3g} (factor {10 ** row['good_decades']:.3g})"


def _target(row: Row) -> str:
    steps, reached = row["steps_to_target"], row["reached"]
    if math.isinf(steps):
        return f"{reached:.0%} reach it" if reached > 0 else "never"
    return _number(steps, 4) + (f" ({reached:.0%} reach it)" if reached < 1 else "")


COLUMNS: dict[str, Callable[[Row], str]] = {
    "optimizer": lambda row: row["optimizer"],
    "rank (95% interval)": _rank,
    "best rate": lambda row: _number(row["best_lr"], 4) + (f", {row['edge']} edge" if row["edge"] else ""),
    "final loss, median": lambda row: _loss(row["final_loss"]),
    "quartiles": lambda row: f"{_loss(row['final_loss_q1'])} to {_loss(row['final_loss_q3'])}",
    "steps to the target": _target,
    "runs diverged": lambda row: f"{row['diverged']:.0%}",
    "good rates": _window,
    "loss at default rate": lambda row: (
        _loss(row["default_loss"]) + ("" if math.isnan(row["default_lr"]) else f" ({row['default_lr']:.3g})")
    ),
    "state per weight": lambda row: _number(row["state_arrays"]),
}
LEGEND = (
    "Final loss, quartiles and steps are those at the best rate, over the seeds. Good rates are those around the best "
    f"one whose final loss is within {GOOD:g} times of its. Diverged: the share of all runs, at all rates. "
    "State per weight: the numbers that the rule keeps for each number that is learned."
)

TIMED: dict[str, Callable[[Row], str]] = {
    "optimizer": lambda row: row["optimizer"],
    "µs per step": lambda row: _number(1e6 * row["seconds_per_step"]),
    "seconds to the target": lambda row: _number(row["seconds_to_target"]),
    "seconds, all its runs": lambda row: _number(row["seconds"]),
}
