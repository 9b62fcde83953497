"""Pictures of comparisons of optimizers, of paths, and of nets: `save(loss_curves(compare(...)), "curves.svg")`.

    a comparison      loss_curves, panels, final_loss, heat_map, costs
    several problems  performance_profile
    paths             paths, animate, net_path
    into a file       render, save, write

Each function takes data and returns a matplotlib Figure, which a notebook shows as a cell's last line, and a script by
its `show()`. Nothing else of matplotlib is touched: no pyplot and no backend before `show`, and the settings of the
machine make no difference. `save` writes the same bytes for the same data. An optimizer has the
same colour, dash and marker in all pictures of a comparison. A rule without a learning rate is drawn at all of them.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.compare.results import Comparison, Profile, trailing_median
from layerwise.core import display, files

Array = np.ndarray

# Okabe and Ito 2008, "Color universal design", without the yellow, which is too pale for a line on white. Seven
# colours and four dashes have no common divisor: 28 lines before a pair of them comes again.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)))
MARKERS = "os^DvPX<>p*h"
CROSS: dict[str, Any] = {"marker": "x", "markersize": 8, "markeredgewidth": 2.2, "linestyle": "none", "clip_on": False}

GROUND, MINIMUM = "#b9c0c9", "#f0e442"  # of surfaces: where they are high, and the star at their minimum

WIDTH = 5.6  # inches: letters of 10 points can still be read where a phone scales the picture down
LOWEST = 1e-16  # losses below, and 0, are drawn here: a logarithm needs an end
HIGHEST = 30.0  # a diverging loss leaves the picture at this multiple of the loss at the start

STYLE: Any = {
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
    "svg.hashsalt": "layerwise",  # the names within the file are drawn at random without it
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
    """An empty figure of that many inches; above, what it shows, and below that, how to read it."""
    figure = display.figure("compare", figsize=(width, height), layout="constrained")
    figure.suptitle("\n".join(filter(None, [title, note])), x=0.01, ha="left", linespacing=1.4)
    return figure


def _look(place: int) -> dict[str, Any]:
    """Colour, dash and marker of the optimizer in that place."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
    }


def _text(name: Any) -> str:
    """A name as it stands: `$` begins no formula, and `_` at the front hides no entry of the legend."""
    name = str(name).replace("$", r"\$")
    return " " + name if name.startswith("_") else name


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Below everything, in as many columns as fit."""
    fitting = int(figure.get_size_inches()[0] / (0.62 + 0.083 * max(map(len, labels))))
    rows = -(-len(labels) // max(1, fitting))
    figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // rows), handlelength=3.4)


# A comparison ------------------------------------------------------------------------------------------------


def quartiles(values: Any, axis: int = 0) -> Array:
    """Lower quartile, median, upper quartile along an axis, (3, ...). NaN, which is diverged, counts as infinite."""
    huge = 1e300  # between a number and infinity, NumPy's interpolation gives NaN
    values = np.asarray(values, np.float64)
    values = np.where(np.isfinite(values), np.clip(values, -huge, huge), huge)
    found = np.quantile(values, (0.25, 0.5, 0.75), axis=axis)
    return np.where(found > huge / 1e6, np.inf, found)


def _over_rates(comparison: Comparison, values: Array) -> Array:
    """Values (R, ...) of an optimizer for each of `comparison.lrs`, also where it takes no rate."""
    return np.broadcast_to(values, (len(comparison.lrs), *values.shape[1:]))


def _start(comparison: Comparison) -> float:
    """The median loss before the first step."""
    first = np.concatenate([np.ravel(np.asarray(comparison.curves[name])[..., 0]) for name in comparison.optimizers])
    first = first[np.isfinite(first)]
    return float(np.median(first)) if first.size else 1.0


def _seeds(comparison: Comparison) -> str:
    count = len(comparison.seeds)
    return f"Line: median of {count} seeds; band: the middle half of them" if count > 1 else "One seed"


def _loss_label(comparison: Comparison) -> str:
    """What the loss on the axis of a curve is."""
    return "loss" if comparison.window == 1 else f"loss, median of {comparison.window} batches"


def _thin(count: int, most: int = 240) -> Array:
    """At most so many of `count` places, the first and the last among them: more cannot be seen."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _floor(values: Array) -> Array:
    """Losses as a logarithmic axis can draw them; where some are below 0, as they are."""
    return values if np.nanmin(values, initial=0) < 0 else np.maximum(values, LOWEST)


def _median(axes: Any, x: Array, values: Array, place: int, marks: int = 0) -> Any:
    """Draw the median of values (S, X) over x (X,), and the band of its quartiles; returns the line.

    `marks` is how many markers there are, at other x for each place; 0 is one at every x.
    """
    low, middle, high = quartiles(values)
    look = _look(place)
    if len(values) > 1:
        some = np.isfinite(low)
        high = np.where(np.isfinite(high), high, 1e250)
        axes.fill_between(x[some], _floor(low[some]), _floor(high[some]), color=look["color"], alpha=0.16, lw=0)
    every = max(1, len(x) // marks) if marks else 1
    shown = _floor(np.where(np.isfinite(middle), middle, np.nan))
    (line,) = axes.plot(x, shown, **look, markevery=(2 * place * every // 7 % every, every))
    return line


def _curve(axes: Any, comparison: Comparison, name: str, rate: int) -> Any:
    """Draw the loss of an optimizer at one rate over the steps, with batches that of an epoch; returns the line."""
    curves = comparison.curves[name][rate if comparison.has_rate(name) else 0]
    curves = trailing_median(curves, comparison.window)
    steps = np.arange(comparison.window - 1, curves.shape[1])
    steps = steps[_thin(len(steps))]
    return _median(axes, steps, curves[:, steps], comparison.optimizers.index(name), marks=7)


def _loss_axis(panels: Sequence[Any], start: float) -> None:
    """One y axis for the losses in all panels: logarithmic, also below 0 where some are; cut where they diverge."""
    drawn = [np.asarray(line.get_ydata()) for axes in panels for line in axes.get_lines()]
    drawn += [path.vertices[:, 1] for axes in panels for band in axes.collections for path in band.get_paths()]
    losses = np.concatenate(drawn)
    size = HIGHEST * max(abs(start), LOWEST)
    losses = losses[np.isfinite(losses) & (losses <= size)]
    low, high = (losses.min(), losses.max()) if losses.size else (start, start)
    for axes in panels:
        if low < 0:
            axes.set_yscale("symlog", linthresh=1.0)
            axes.set_ylim(max(1.5 * low, -1e6 * size), min(1.5 * max(high, 1), size))
        else:
            margin = 1.2 * (high / low) ** 0.04
            axes.set_yscale("log")
            axes.set_ylim(low / margin, min(high * margin, size))


def _cross(axes: Any, line: Any) -> bool:
    """A cross where a line leaves the top of the axes for good, or ends: from there on it has diverged."""
    top = axes.get_ylim()[1]
    steps, losses = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    inside = np.flatnonzero(losses <= top)
    last = inside[-1] if inside.size else 0
    if last == len(steps) - 1:
        return False
    leaf_layers = np.isfinite(losses[last + 1])
    x, y = (steps[last + 1], top) if leaf_layers else (steps[last], losses[last])
    axes.plot(x, y, **CROSS, color=line.get_color(), zorder=5)
    return True


def _finish_curves(
    figure: Any, grid: Sequence[Any], lines: Sequence[Any], labels: list[str], comparison: Comparison
) -> None:
    """What every figure of curves needs: the axes, the target, the crosses and the legend. `lines`: a list for each."""
    from matplotlib.lines import Line2D

    handles, crossed = list(lines[0]), False
    _loss_axis(grid, _start(comparison))
    for axes, each in zip(grid, lines, strict=True):
        axes.set_xlim(0, comparison.steps)
        crossed = any([_cross(axes, line) for line in each]) or crossed  # a list, so that all are drawn
        if comparison.target is not None:
            target = axes.axhline(comparison.target, color="#555555", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    if comparison.target is not None:
        handles.append(target)
        labels.append(f"target, {_number(comparison.target)}")
    if crossed:
        handles.append(Line2D([], [], **CROSS, color="#555555"))
        labels.append("diverged from here")
    _legend(figure, handles, labels)


@_style()
def loss_curves(comparison: Comparison) -> Any:
    """Loss over steps, each optimizer at its best learning rate: median and quartiles over the seeds."""
    title = f"Loss on {_text(comparison.problem)}, each optimizer at its best learning rate"
    figure = _figure(4.4, title, _seeds(comparison))
    axes = figure.add_subplot(xlabel="step", ylabel=_loss_label(comparison))
    lines, labels = [], []
    for name in comparison.optimizers:
        lines.append(_curve(axes, comparison, name, comparison.best(name)))
        lr = comparison.best_lr(name)
        labels.append(_text(name) + ("" if math.isnan(lr) else f", lr {_number(lr)}"))
    _finish_curves(figure, [axes], [lines], labels, comparison)
    return figure


@_style()
def panels(comparison: Comparison, lrs: Sequence[float] = (0.001, 0.01, 0.1, 1.0)) -> Any:
    """A panel for each of these learning rates (of those that were run, the nearest), a curve for each optimizer."""
    distance = np.abs(np.log(np.asarray(lrs)[:, None] / np.asarray(comparison.lrs)))
    rates = list(dict.fromkeys(distance.argmin(1).tolist()))
    columns = min(2, len(rates))
    rows = -(-len(rates) // columns)
    title = f"Loss on {_text(comparison.problem)}, a panel for each learning rate"
    figure = _figure(1.5 + 2.1 * rows, title, _seeds(comparison), width=WIDTH if columns == 1 else 6.8)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(rates) :]:
        axes.remove()
    lines = []
    for axes, rate in zip(grid, rates, strict=False):
        axes.set_title(f"learning rate {_number(comparison.lrs[rate])}", loc="left")
        lines.append([_curve(axes, comparison, name, rate) for name in comparison.optimizers])
    for axes in grid[: len(rates)]:
        last_row, first_column = axes.get_subplotspec().is_last_row(), axes.get_subplotspec().is_first_col()
        axes.set(xlabel="step" if last_row else "", ylabel=_loss_label(comparison) if first_column else "")
    _finish_curves(figure, grid[: len(rates)], lines, list(map(_text, comparison.optimizers)), comparison)
    return figure


@_style()
def final_loss(comparison: Comparison) -> Any:
    """Final loss over learning rate, a line and a band for each optimizer; above it, what diverged."""
    names = list(map(_text, comparison.optimizers))
    last = [_over_rates(comparison, comparison.finals(name)) for name in comparison.optimizers]
    lost = {place: 1 - np.isfinite(each).mean(1) for place, each in enumerate(last)}
    lost = {place: share for place, share in lost.items() if share.any()}
    title = f"Final loss on {_text(comparison.problem)}, {comparison.steps:,} steps"
    room = [0.3 + 0.2 * len(lost)] if lost else []
    figure = _figure(4.2 + sum(room), title, _seeds(comparison))
    *above, axes = figure.subplots(1 + len(room), 1, sharex=True, height_ratios=[*room, 3], squeeze=False).ravel()
    lrs = comparison.lrs
    lines = [_median(axes, lrs, each.T, place) for place, each in enumerate(last)]
    _loss_axis([axes], _start(comparison))
    axes.set(xscale="log", xlabel="learning rate", ylabel="final loss")
    for each in above:
        _diverged(each, lrs, lost, names)
    _legend(figure, lines, names)
    return figure


def _diverged(axes: Any, lrs: Array, lost: Mapping[int, Array], names: Sequence[str]) -> None:
    """A row for each optimizer of which runs diverged, with a cross at the rates where: thin for fewer than half."""
    for row, (place, share) in enumerate(lost.items()):
        for some, size in ((share >= 0.5, {}), ((share > 0) & (share < 0.5), {"markersize": 4, "markeredgewidth": 1})):
            if some.any():
                axes.plot(lrs[some], np.full(some.sum(), row), **CROSS | size, color=_look(place)["color"])
    axes.set_yticks(range(len(lost)), [names[place] for place in lost], fontsize="small")
    axes.set_ylim(len(lost) - 0.4, -0.6)
    axes.tick_params(axis="x", which="both", length=0, labelbottom=False)
    axes.set_title("diverged (small cross: fewer than half the seeds)", loc="left", fontsize="small")
    axes.spines["bottom"].set_visible(False)


@_style()
def heat_map(comparison: Comparison) -> Any:
    """log10 of the median final loss for each optimizer and learning rate; "div": half or more diverged.

    The best rate of an optimizer is framed. Where some loss is below 0 it is sign(loss) log10(1 + |loss|).
    """
    from matplotlib.patches import Rectangle

    names, lrs = comparison.optimizers, comparison.lrs
    last = np.array([_over_rates(comparison, comparison.scores(name)) for name in names])
    alive = np.isfinite(last)
    label = r"$\log_{10}$ of the final loss"
    if last.min() < 0:
        label = r"$\pm\log_{10}$(1 + |final loss|)"
        shown = np.sign(last) * np.log10(1 + np.abs(np.where(alive, last, 0)))
    else:
        shown = np.log10(np.clip(np.where(alive, last, 1), LOWEST, None))
    shown = np.where(alive, shown, np.nan)
    low = np.nanmin(shown, initial=0)
    high = min(np.nanmax(shown, initial=low), math.log10(HIGHEST * max(abs(_start(comparison)), 1)))

    title = f"Final loss on {_text(comparison.problem)}, {comparison.steps:,} steps"
    note = f"Median of {len(comparison.seeds)} seeds, lower is better. Framed: the best learning rate of each"
    note += "" if alive.all() else "\ndiv: half the seeds or more diverged"
    figure = _figure(2.4 + 0.34 * len(names), title, note, width=6.8)
    axes = figure.add_subplot(xlabel="learning rate")
    image = axes.imshow(shown, cmap="viridis_r", vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    for row, name in enumerate(names):
        for column in range(len(lrs)):
            dark = alive[row, column] and shown[row, column] > low + 0.4 * (high - low)
            cell = f"{shown[row, column]:.1f}".replace("-", "\N{MINUS SIGN}") if alive[row, column] else "div"
            axes.text(
                column, row, cell,
                color="white" if dark else "black", fontsize=7 if len(lrs) < 22 else 5.5,
                rotation=90 if len(lrs) > 13 else 0, ha="center", va="center",
            )  # fmt: skip
        if alive[row].any() and comparison.has_rate(name):
            place = comparison.best(name)
            axes.add_patch(Rectangle((place - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#d55e00", lw=2, zorder=3))
    every = -(-len(lrs) // 13)
    axes.set_facecolor("#eeeeee")  # where nothing is drawn: diverged
    axes.set_xticks(range(0, len(lrs), every), [_number(lr) for lr in lrs[::every]], rotation=45, ha="right")
    axes.set_yticks(range(len(names)), list(map(_text, names)))
    axes.grid(visible=False)
    figure.colorbar(
        image,
        label=label,
        pad=0.02,
        extend="max" if np.nanmax(shown, initial=low) > high else "neither",
    )
    return figure


@_style()
def costs(comparison: Comparison) -> Any:
    """Microseconds per step and net of each optimizer, as measured: these differ from run to run."""
    names = comparison.optimizers
    each = np.array([np.nanquantile(comparison.seconds[name], (0.25, 0.5, 0.75)) for name in names])
    each *= 1e6 / comparison.steps
    figure = _figure(1.5 + 0.3 * len(names), f"Time per step and net on {_text(comparison.problem)}",
                     "Bar: median over rates and seeds; line: the middle half of them")  # fmt: skip
    axes = figure.add_subplot(xlabel="microseconds")
    low, middle, high = each.T
    axes.barh(
        range(len(names)), middle, xerr=[middle - low, high - middle], height=0.66, ecolor="#555555",
        color=[_look(place)["color"] for place in range(len(names))], alpha=0.85,
    )  # fmt: skip
    for place in range(len(names)):
        axes.annotate(_number(middle[place]), (high[place], place), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), list(map(_text, names)))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    return figure


# Several problems --------------------------------------------------------------------------------------------


@_style()
def performance_profile(profile: Profile, what: str = "steps to the target") -> Any:
    """Share of the problems that each optimizer solves at no more than t times the cost of the best one, over t.

    `profile` is what `comparison.profile` makes of several comparisons, and `what` the cost in words. Dolan and More
    2002 (cs/0102001).
    """
    count = len(profile.problems)
    title = f"Performance profile over {count} problem{'s' * (count > 1)}"
    figure = _figure(4.2, title, "Further up and further left is better")
    axes = figure.add_subplot(xlabel=f"{what}, as a multiple of the best", ylabel="share of the problems solved")
    end = max(2.0, 1.15 * profile.ratios[-1])
    lines = []
    for place, shares in enumerate(profile.shares):
        x, y = np.array([1.0, *profile.ratios, end]), np.array([0.0, *shares, shares[-1]])
        lines += axes.plot(x, y, **_look(place) | {"marker": ""}, drawstyle="steps-post", linewidth=2, clip_on=False)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlim(1, end)
    axes.set_ylim(-0.02, 1.03)
    _legend(figure, lines, list(map(_text, profile.optimizers)))
    return figure


# Paths -------------------------------------------------------------------------------------------------------


def _contours(figure: Any, axes: Any, x: Array, y: Array, values: Array, label: str) -> None:
    """Contours of values (Y, X), denser near the lowest, pale enough to draw on, and their key."""
    from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap

    finite = values[np.isfinite(values)]
    # By area, more of them where it is low: whatever the surface, the ground is never of one shade.
    levels = np.unique(np.quantile(finite, np.linspace(0, 1, 25) ** 1.7))
    levels = levels if len(levels) > 1 else levels[0] + np.array([0.0, 1.0])
    pale = LinearSegmentedColormap.from_list("pale", ["white", GROUND])
    values = np.where(np.isfinite(values), values, levels[-1])
    filled = axes.contourf(x, y, values, levels, cmap=pale, norm=BoundaryNorm(levels, pale.N), zorder=0)
    filled.set_rasterized(True)  # thousands of corners
    axes.contour(x, y, values, levels[1::3], colors="#8d959e", linewidths=0.5).set_rasterized(True)
    key = figure.colorbar(filled, label=label, pad=0.02, spacing="uniform", ticks=levels[1::3])
    key.ax.set_yticklabels([_number(level) for level in levels[1::3]])
    key.ax.minorticks_off()
    axes.grid(visible=False)


def _within(path: Array, box: Array) -> Array:
    """A path (T, 2) up to its first point outside the box (2, 2), which is drawn near: the canvas has an end."""
    middle, half = box.mean(1), (box[:, 1] - box[:, 0]) / 2
    with np.errstate(invalid="ignore", over="ignore"):
        outside = ~(np.abs(path - middle) <= half).all(1)
    if not outside.any():
        return path
    first = int(outside.argmax())
    kept = path[: first + 1].copy()
    if first == 0 or not np.isfinite(kept[first]).all():
        return kept[:first]
    step = kept[first] - kept[first - 1]
    kept[first] = kept[first - 1] + step / max(1.0, float(np.abs(step / half).max() / 4))
    return kept


def _surface(figure: Any, surface: Any) -> tuple[Any, Array, list[Any]]:
    """Axes with the contours, the start and the minima of a test surface; its box, and what the legend shows of it."""
    box = np.asarray(surface.bounds, np.float64)
    if surface.start.shape != (2,):
        raise ValueError(f"a path is drawn on a surface of two variables, {surface.name} has {surface.start.size}.")
    x, y = (np.linspace(low, high, 241) for low, high in box)
    points = np.stack(np.meshgrid(x, y), axis=-1)
    # A noisy one is drawn as its mean.
    values = np.mean([surface(points, step=step)[0] for step in range(100 if surface.noisy else 1)], axis=0)
    axes = figure.add_subplot(xlabel="x", ylabel="y", aspect="equal" if np.ptp(np.ptp(box, axis=1)) == 0 else "auto")
    _contours(figure, axes, x, y, values, "height")
    marks = axes.plot(*surface.start, "o", markersize=9, mfc="none", mec="black", mew=2, label="start", ls="")
    marks += axes.plot(
        *surface.minima.T, "*", ms=13, mfc=MINIMUM, mec="black", label="minimum", ls="", zorder=4
    )  # fmt: skip
    return axes, box, marks


def _surface_title(surface: Any, paths: Mapping[str, Array]) -> str:
    steps = {len(path) - 1 for path in paths.values()}
    return f"Paths on {_text(surface.name)}, {max(steps):,} steps"


def _draw_paths(axes: Any, box: Array, paths: Mapping[str, Array]) -> tuple[list[Any], list[str]]:
    """Draw paths (T, 2), each ending in its marker; the lines, and their labels."""
    lines, labels = [], []
    for place, (name, path) in enumerate(paths.items()):
        path = np.asarray(path, np.float64)
        kept = _within(path, box)
        lines += axes.plot(*kept.T, **_look(place), markevery=[len(kept) - 1], markersize=7, markeredgecolor="white")
        left = len(kept) < len(path) or not _same(kept, path)
        labels.append(_text(name) + (f" (leaves at step {len(kept) - 1:,})" if left else ""))
    return lines, labels


def _same(kept: Array, path: Array) -> bool:
    return bool(np.array_equal(kept, path[: len(kept)]))


@_style()
def paths(surface: Any, paths: Mapping[str, Array]) -> Any:
    """The paths {name: (steps + 1, 2)} of optimizers on a test surface, with its contours, the start and the minima.

    A path that leaves the surface's bounds ends there, and the legend says at which step.
    """
    figure = _figure(5.0, _surface_title(surface, paths))
    axes, box, marks = _surface(figure, surface)
    lines, labels = _draw_paths(axes, box, paths)
    axes.set(xlim=box[0], ylim=box[1])
    _legend(figure, lines + marks, labels + [mark.get_label() for mark in marks])
    return figure


@_style()
def animate(surface: Any, paths: Mapping[str, Array], file: str | os.PathLike[str], frames: int = 60) -> None:
    """The same as an animated GIF of some four seconds, that begins again: in the file, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    title = _surface_title(surface, paths)
    figure = _figure(5.0, title)
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    axes, box, marks = _surface(figure, surface)
    lines, labels = _draw_paths(axes, box, paths)
    axes.set(xlim=box[0], ylim=box[1])
    counter = axes.set_title("step", loc="right")
    _legend(figure, lines + marks, labels + [mark.get_label() for mark in marks])
    canvas.draw()
    figure.set_layout_engine("none")

    whole = [np.asarray(line.get_xydata()) for line in lines]
    longest = max(len(np.asarray(path)) for path in paths.values())
    # The ground is drawn once: all that changes is drawn on a copy of it.
    for artist in (*lines, counter):
        artist.set_animated(True)
    canvas.draw()
    ground = canvas.copy_from_bbox(figure.bbox)
    images = []
    for reached in np.unique(np.linspace(0, longest - 1, frames).round().astype(int)):
        canvas.restore_region(ground)
        for line, path in zip(lines, whole, strict=True):
            shown = path[: reached + 1]
            line.set_data(*shown.T)
            line.set_markevery([len(shown) - 1])
            axes.draw_artist(line)
        counter.set_text(f"step {reached:,}")
        axes.draw_artist(counter)
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB"))
    palette = Image.new("P", (1, 1))  # one for all: else the ground flickers
    palette.putpalette([value for colour in _palette() for value in colour])
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    content = io.BytesIO()
    durations = [50] * (len(images) - 1) + [1500]
    images[0].save(content, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    write(file, content.getvalue())


def _palette() -> list[tuple[int, ...]]:
    """At most 256 colours: those of the lines on their way to white, those of the ground, and greys."""
    from matplotlib.colors import to_rgb

    def blends(first: str, last: str, count: int) -> Array:
        return np.linspace(to_rgb(first), to_rgb(last), count)

    ramps = [blends(colour, "white", 6) for colour in (*COLOURS, MINIMUM)]
    ramps += [blends(GROUND, "white", 48), blends("black", "white", 96)]
    return [tuple(colour) for colour in (np.concatenate(ramps) * 255).round().astype(int).tolist()]


@_style()
def net_path(net: Any, weights: Mapping[str, Any], x: Any, y: Any, loss: Any) -> Any:
    """Paths of a net through its own weights, on the plane that shows most of them, with the loss on that plane.

    `weights` gives for each optimizer the copies of net.vector that were kept while it trained, (T, P). The plane goes
    through the mean of the last ones, along the first two principal components of all differences to it; the paths
    are projected onto it. Li et al. 2018 (1712.09913), section 7. The net's own weights are as before afterwards.
    """
    runs = {name: np.asarray(each, np.float64) for name, each in weights.items()}
    size = net.parameter_count
    for name, each in runs.items():
        if each.ndim != 2 or each.shape[1] != size or len(each) < 3:
            raise ValueError(f"weights are (T, {size}), with three rows or more; those of {name!r} are {each.shape}.")
    centre = np.mean([each[-1] for each in runs.values()], axis=0)
    every = np.concatenate([each - centre for each in runs.values()])
    _, sizes, directions = np.linalg.svd(every, full_matrices=False)
    directions = directions[:2] * np.where(every[0] @ directions[:2].T < 0, -1, 1)[:, None]  # one sign of the two
    share = sizes[:2] ** 2 / (sizes**2).sum()
    seen = {name: (each - centre) @ directions.T for name, each in runs.items()}

    points = np.concatenate(list(seen.values()))
    margin = 0.15 * np.ptp(points, axis=0).max()
    box = np.stack([points.min(0) - margin, points.max(0) + margin], axis=1)
    across, up = (np.linspace(low, high, 41) for low, high in box)
    figure = _figure(5.0, "Paths through weight space, on their first two principal components",
                     f"A net of {size:,} parameters; the loss is that of the plane")  # fmt: skip
    axes = figure.add_subplot()
    values = _losses(net, [[centre + a * directions[0] + b * directions[1] for a in across] for b in up], x, y, loss)
    _contours(figure, axes, across, up, values, "loss")
    lines, labels = _draw_paths(axes, box, seen)
    begin = np.array([each[0] for each in seen.values()])
    lines += axes.plot(*begin.T, "o", markersize=9, mfc="none", mec="black", mew=2, ls="")
    axes.set(xlim=box[0], ylim=box[1])
    axes.set_xlabel(f"first principal component ({share[0]:.0%} of the squared distance)")
    axes.set_ylabel(f"second ({share[1]:.0%})")
    _legend(figure, lines, [*labels, "start"])
    return figure


def _losses(net: Any, grid: Sequence[Sequence[Array]], x: Any, y: Any, loss: Any) -> Array:
    """The loss of the net with each of these weights, the net left as it was."""
    kept = net.vector.copy()
    values = np.empty((len(grid), len(grid[0])))
    try:
        for i, row in enumerate(grid):
            for j, weights in enumerate(row):
                net.vector[...] = weights
                values[i, j] = loss(net.predict(x), y)
    finally:
        net.vector[...] = kept
    return values


# Into a file -------------------------------------------------------------------------------------------------


@_style()
def render(figure: Any, kind: str = "svg") -> bytes:
    """The figure as the bytes of a file, "svg", "png" or "pdf": the same bytes for the same data."""
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata=dates.get(kind))
    return content.getvalue()


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as .svg, .png or .pdf: the suffix decides. The file is there whole or not at all."""
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in ("svg", "png", "pdf"):
        raise ValueError(f"a picture is saved as .svg, .png or .pdf, got {str(path)!r}.")
    write(path, render(figure, kind))


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place, flush it to disk, then put it there in one step."""
    with files.replaced(path) as file:
        file.write(content)
