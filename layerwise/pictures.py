"""Pictures of comparisons of optimizers, of paths, and of nets. `loss_curves(compare(...)).savefig("curves.png")`.

    a comparison      loss_curves, panels, final_loss, heat_map, costs
    several problems  performance_profile
    paths             paths, animate, net_path
    into a file       render, save

Each function takes data and returns a matplotlib Figure; nothing else of matplotlib is touched: no pyplot, no backend,
and settings of the machine make no difference. `save` writes the same bytes for the same figure. An optimizer keeps
its colour, dash and marker in all pictures of a comparison; each of the three tells the first seven apart alone.
What a comparison must have is what `layerwise.compare.Comparison` has.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray

# Okabe and Ito 2008, "Color universal design", without the yellow, which is too pale for a line on white. Seven
# colours and four dashes have no common divisor: 28 lines before a pair of them comes again.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)))
MARKERS = "os^DvPX<>p*h"

WIDTH = 5.6  # inches: letters of 10 points can still be read where a phone scales it down
LOWEST = 1e-16  # losses below, and 0, are drawn here: a logarithm needs an end
HIGHEST = 30.0  # a diverging loss leaves the picture at this multiple of the loss at the start

STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.titlesize": "medium",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine has it
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    "svg.hashsalt": "layerwise",  # names within the file are else drawn at random
}


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Our settings, in place of those of the machine and of the session, which come back at the end."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError('pictures need a package: pip install "layerwise[compare]"') from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _figure(height: float, title: str, note: str = "", width: float = WIDTH) -> Any:
    """An empty figure of that many inches, with what it shows above and how to read it below that."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle("\n".join(filter(None, [title, note])), x=0.01, ha="left", linespacing=1.4)
    return figure


def _look(place: int, marker: bool = True) -> dict[str, Any]:
    """Colour, dash and marker of the optimizer in that place."""
    look = {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place % len(DASHES)]}
    return look | {"marker": MARKERS[place % len(MARKERS)]} if marker else look


def _text(name: str) -> str:
    """A name as it stands: `$` begins no formula, and `_` at the front hides no legend entry."""
    name = str(name).replace("$", r"\$")
    return " " + name if name.startswith("_") else name


def _rate(lr: float) -> str:
    return f"{lr:.3g}"


def _legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Below everything, in as many columns as fit."""
    longest = max(map(len, labels), default=0)
    columns = int(figure.get_size_inches()[0] / (0.62 + 0.083 * longest))
    columns = min(len(labels), max(1, columns))
    rows = -(-len(labels) // columns)
    figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // rows), handlelength=3.4)


# What is drawn of a comparison -------------------------------------------------------------------------------


def quartiles(values: Any, axis: int = -1) -> Array:
    """Lower quartile, median and upper quartile along an axis, (3, ...); NaN, which is diverged, counts as infinite."""
    huge = 1e300  # between a number and infinity, NumPy's interpolation gives NaN
    values = np.asarray(values, np.float64)
    values = np.where(np.isfinite(values), np.clip(values, -huge, huge), huge)
    found = np.quantile(values, (0.25, 0.5, 0.75), axis=axis)
    return np.where(found > huge / 1e6, np.inf, found)


def _finals(comparison: Any, name: str) -> Array:
    """The last loss of each run, (R, S): NaN where it diverged."""
    return np.asarray(comparison.curves[name])[..., -1]


def _best(comparison: Any, name: str) -> int:
    """The place of the learning rate with the lowest median of the final losses."""
    return int(np.argmin(quartiles(_finals(comparison, name))[1]))


def _scale(axes: Any, values: Array, start: float) -> None:
    """A y axis for losses: logarithmic, also on the negative side where there is one, and cut where they diverge."""
    values = values[np.isfinite(values)]
    axes.grid(axis="y", which="minor", visible=False)
    if values.size and values.min() < 0:
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_ylim(max(1.5 * values.min(), -1e6 * max(abs(start), 1)), HIGHEST * max(abs(start), 1))
        return
    top = HIGHEST * max(start, LOWEST)
    inside = np.clip(values[values <= top], LOWEST, None)
    low, high = (inside.min(), inside.max()) if inside.size else (start, start)
    axes.set_yscale("log")
    axes.set_ylim(low / (high / low) ** 0.04 / 1.2, min(high * (high / low) ** 0.04 * 1.2, top))


def _above(values: Array) -> Array:
    """Positive losses as they can be drawn on a logarithmic axis; negative ones as they are."""
    if np.nanmin(values, initial=0) < 0:
        return values
    return np.maximum(values, LOWEST)


def _thin(count: int, most: int = 400) -> Array:
    """At most so many of `count` places, the first and the last among them: more cannot be seen."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _start(comparison: Any) -> float:
    """The median loss before the first step."""
    first = np.concatenate([np.ravel(np.asarray(comparison.curves[name])[..., 0]) for name in comparison.optimizers])
    return float(np.median(first[np.isfinite(first)])) if np.isfinite(first).any() else 1.0


def _curve(axes: Any, curves: Array, place: int, spread: bool = True) -> Any:
    """The median of curves (S, T) with the band of its quartiles, a cross where it ends; the line's handle."""
    steps = _thin(curves.shape[1])
    low, middle, high = quartiles(curves[:, steps], axis=0)
    alive = np.isfinite(middle)
    drawn = _above(np.where(alive, middle, np.nan))
    if spread:
        ceiling = np.where(np.isfinite(high), high, np.finfo(np.float64).max / 1e10)
        axes.fill_between(
            steps[alive], _above(low[alive]), _above(ceiling[alive]), color=_look(place)["color"], alpha=0.16, lw=0
        )
    every = max(1, len(steps) // 7)
    (line,) = axes.plot(steps, drawn, **_look(place), markevery=(place * every // 5 % every, every))
    if not alive.all() and alive.any():
        line.set_gid(f"diverged-{place}")
    return line


def _crosses(axes: Any, lines: Sequence[Any]) -> None:
    """A cross where a line leaves the top of the axes for good, or ends: from there on it has diverged."""
    top = axes.get_ylim()[1]
    for line in lines:
        steps, losses = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        inside = np.flatnonzero(losses <= top)
        if not inside.size or inside[-1] == len(steps) - 1:
            continue
        last = inside[-1]
        leaves = last + 1 < len(losses) and np.isfinite(losses[last + 1])
        axes.plot(
            steps[last + 1] if leaves else steps[last], top if leaves else losses[last], marker="x", markersize=9,
            markeredgewidth=2.2, color=line.get_color(), clip_on=False, linestyle="none", zorder=5,
        )  # fmt: skip


def loss_curves(comparison: Any) -> Any:
    """Loss over steps, each optimizer at its best learning rate: median and quartiles over the seeds, Figure."""
    return _loss_curves(comparison)


@_style()
def _loss_curves(comparison: Any) -> Any:
    seeds = len(comparison.seeds)
    figure = _figure(
        4.4,
        f"Loss on {_text(comparison.problem)}, each optimizer at its best learning rate",
        f"Line: median of {seeds} seeds; band: middle half of them" if seeds > 1 else "One seed",
    )
    axes = figure.add_subplot()
    lines, labels, drawn = [], [], []
    for place, name in enumerate(comparison.optimizers):
        best = _best(comparison, name)
        curves = np.asarray(comparison.curves[name])[best]
        lines.append(_curve(axes, curves, place, spread=seeds > 1))
        labels.append(f"{_text(name)}, lr {_rate(comparison.lrs[best])}")
        drawn.append(quartiles(curves, axis=0).ravel())
    _finish_curves(figure, [axes], [lines], labels, np.concatenate(drawn), comparison)
    return figure
