"""What a comparison of optimizers found: every loss curve, and what they say.

In this file, in this order:
  the numbers        Comparison
  over problems      profile, Profile
  small print        quantile, trailing_median, write_text

Shapes: R learning rates, S seeds; a curve has steps + 1 losses. Everything but `seconds` is decided by the settings
and the seeds alone, so that two runs of one command agree bit by bit, on the same machine with the same packages and
number of BLAS threads; what was timed is kept in fields and files of its own.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerwise.core import arguments, display, files

Array = np.ndarray

FORMAT = "layerwise comparison"
VERSION = 1

CONVERGED, MAX_STEPS, DIVERGED = "converged", "max_steps", "diverged"

RESAMPLES = 1000  # of the seeds, for an interval
FEWEST = 5  # seeds that can tell: of two equal optimizers, one is ahead on all of four seeds 1 time in 8
SURE = 0.95  # the share of resamples that a winner wins; the intervals hold as many
GOOD = 10.0  # a rate is good while its loss is within so many times of the best

HEADER = (
    "optimizer", "rank (95 %)", "best rate", "final loss", "quartiles", "steps to target", "diverged", "good rates",
    "at default rate", "state",
)  # fmt: skip


# The numbers -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(eq=False, repr=False)
class Comparison:
    """The runs of several optimizers on one problem: same rates, horizon, starts and batches, paired by seed.

    optimizers  the names, in the order given
    lrs         (R,), the rates that were run, ascending; `asked` those that were asked for
    widened     decades by which the grid was extended (downwards, upwards)
    curves      name -> (R, S, steps + 1): the loss before each step, and after the last; with batches, of the batch
                that comes next. NaN from where a run diverged on. A rule without a learning rate has R = 1.
    status      name -> (R, S): "converged" (the final loss is at the target or below), "max_steps", "diverged"
    seconds     name -> (R, S) of each run
    default_lr, default_curves    name -> the rate of the class, and (S, steps + 1) at it; missing where an optimizer
                was not given as a class
    state_arrays  name -> numbers that the rule keeps for each parameter
    window      losses that make one reading: 1, but the batches of an epoch where a loss is that of a batch
    settings    the problem, the optimizers, versions: plain text and numbers

    The final loss of a run is the median of the last twentieth of its losses (or of a whole epoch, if that is more),
    infinite if it diverged; the score of a rate is the median of that over the seeds, and the best rate the one with
    the lowest; of equal ones, the middle one.
    """

    problem: str
    optimizers: tuple[str, ...]
    lrs: Array
    seeds: tuple[int, ...]
    steps: int
    target: float | None
    curves: dict[str, Array]
    status: dict[str, Array]
    seconds: dict[str, Array]
    asked: Array = dataclasses.field(default_factory=lambda: np.empty(0))  # where it is not told: lrs
    widened: tuple[float, float] = (0.0, 0.0)
    default_lr: dict[str, float] = dataclasses.field(default_factory=dict)
    default_curves: dict[str, Array] = dataclasses.field(default_factory=dict)
    state_arrays: dict[str, float] = dataclasses.field(default_factory=dict)
    window: int = 1
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.asked):
            self.asked = self.lrs

    def __repr__(self) -> str:
        runs = f"{len(self.lrs)} rates, {len(self.seeds)} seeds, {self.steps} steps"
        return f"Comparison({self.problem!r}, {', '.join(self.optimizers)}; {runs}: {self.verdict})"

    # One optimizer.

    def has_rate(self, name: str) -> bool:
        """Whether it was run over the grid of rates; else it takes none, and was run once a seed."""
        return name not in self.settings.get("without_rate", ())

    def rates(self, name: str) -> Array:
        """(R,), the rates of its curves; NaN for a rule without one."""
        return self.lrs if self.has_rate(name) else np.array([math.nan])

    def finals(self, name: str) -> Array:
        """(R, S), the final loss of each run. KeyError for a name that is none of `optimizers`."""
        if name not in self.curves:
            raise KeyError(f"{name!r} was not compared; there are {', '.join(self.curves)}.")
        return final_losses(self.curves[name], self.window)

    def scores(self, name: str) -> Array:
        """(R,), the median of the final loss over the seeds."""
        return np.median(self.finals(name), -1)

    def best(self, name: str) -> int:
        """The place of its best rate in `rates(name)`."""
        return lowest(self.scores(name))

    def best_lr(self, name: str) -> float:
        """Its best rate; NaN for a rule without one."""
        return float(self.rates(name)[self.best(name)])

    def edge(self, name: str) -> str:
        """ "low" or "high" where its best rate is the first or last of the grid, so that a better one may lie beyond;
        else "". Where all runs diverged, "low": lower rates may do."""
        scores = self.scores(name)
        if not self.has_rate(name):
            return ""
        best = lowest(scores)
        if best == 0 or not np.isfinite(scores).any():
            return "low"
        return "high" if best == len(scores) - 1 else ""

    def steps_to_target(self, name: str) -> Array:
        """(R, S), the first step after which the loss reads at the target or below; infinite where it never does,
        or without a target. With batches, a reading is the median of an epoch of losses."""
        curves = self.curves[name]
        if self.target is None:
            return np.full(curves.shape[:2], math.inf)
        good = trailing_median(curves, self.window) <= self.target
        return np.where(good.any(-1), good.argmax(-1).astype(np.float64), math.inf)

    def seconds_to_target(self, name: str) -> Array:
        """(R, S), as `steps_to_target`; a timing."""
        return self.steps_to_target(name) * self.cost(name)

    def cost(self, name: str) -> float:
        """Seconds of one step: the median over the runs that did not diverge. A timing."""
        whole = self.seconds[name][np.isfinite(self.finals(name)) & np.isfinite(self.seconds[name])]
        return float(np.median(whole)) / self.steps if whole.size else math.nan

    def good_window(self, name: str) -> tuple[float, float] | None:
        """The lowest and highest rate around the best whose score is within 10 times of it, without a gap; None
        where it takes no rate or all runs diverged. Its width is high / low, or log10 of that in decades."""
        scores, rates = self.scores(name), self.rates(name)
        best = lowest(scores)
        if not self.has_rate(name) or not math.isfinite(scores[best]):
            return None
        good = scores <= scores[best] + (GOOD - 1) * abs(scores[best])
        low = high = best
        while low > 0 and good[low - 1]:
            low -= 1
        while high < len(good) - 1 and good[high + 1]:
            high += 1
        return float(rates[low]), float(rates[high])

    def default_score(self, name: str) -> float:
        """The median final loss at the learning rate that the class has by default; NaN where there is none."""
        if name not in self.default_curves:
            return math.nan
        return float(np.median(final_losses(self.default_curves[name], self.window)))

    # All of them.

    def ranks(self) -> dict[str, tuple[int, int, int]]:
        """name -> (rank, lowest, highest): its place by the score of its best rate, 1 the best, equals sharing one;
        and the interval that holds 95 % of 1,000 resamples of the seeds.

        Each resample draws S seeds with replacement, the same for every optimizer, and picks each one's best rate
        anew. Efron 1979. Drawn from a fixed seed.
        """
        scores = np.array([np.median(self.finals(name), -1).min() for name in self.optimizers])
        here = _ranks(scores[:, None])[:, 0]
        drawn = _ranks(self._resampled)
        low, high = ((1 - SURE) / 2, (1 + SURE) / 2)
        return {
            name: (
                int(here[place]),
                int(np.quantile(drawn[place], low, method="inverted_cdf")),
                int(np.quantile(drawn[place], high, method="inverted_cdf")),
            )
            for place, name in enumerate(self.optimizers)
        }

    @property
    def winner(self) -> str | None:
        """The optimizer whose score is below that of every other in at least 95 % of the resamples; None where the
        seeds do not tell, or are fewer than five: no clear winner."""
        leader, share = self._leader()
        return leader if share >= SURE and len(self.seeds) >= FEWEST and len(self.optimizers) > 1 else None

    @property
    def verdict(self) -> str:
        """The winner, or that there is none, in one sentence."""
        if len(self.optimizers) == 1:
            return "one optimizer: nothing to compare."
        leader, share = self._leader()
        if not math.isfinite(self.scores(leader).min()):
            return "no clear winner: every run diverged."
        if len(self.seeds) < FEWEST:
            return f"no clear winner: {leader} has the lowest loss, but fewer than {FEWEST} seeds do not tell."
        told = f"the lowest loss in {share:.0%} of {RESAMPLES:,} resamples of the {len(self.seeds)} seeds"
        if self.winner is None:
            return f"no clear winner: {leader} has {told}, and {SURE:.0%} are needed."
        return f"{leader} wins: it has {told}."

    def _leader(self) -> tuple[str, float]:
        """The one with the lowest score, and in which share of the resamples it is strictly below all others."""
        scores = [self.scores(name).min() for name in self.optimizers]
        place = int(np.argmin(scores))
        drawn = self._resampled
        others = np.delete(drawn, place, 0)
        share = float((drawn[place] < others).all(0).mean())
        return self.optimizers[place], share

    @functools.cached_property
    def _resampled(self) -> Array:
        """(optimizers, resamples): the score of each one's best rate on each resample of the seeds."""
        count = len(self.seeds)
        chosen = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
        return np.array([np.median(self.finals(name)[:, chosen], -1).min(0) for name in self.optimizers])

    def warnings(self) -> list[str]:
        """What a reader should know before trusting the table, in sentences."""
        told = []
        below, above = self.widened
        for decades, where in ((below, "below"), (above, "above")):
            if decades:
                by = "a decade" if decades == 1 else f"{decades:g} decades"
                told.append(f"a best rate lay at the edge of the grid: widened {where} by {by}, for all.")
        for name in self.optimizers:
            edge = self.edge(name)
            if edge and np.isfinite(self.scores(name)).any():
                end = {"low": "lowest", "high": "highest"}[edge]
                told.append(f"{name}: its best rate, {self.best_lr(name):.4g}, is the {end} of the grid; "
                            f"a better one may lie beyond.")  # fmt: skip
            elif not np.isfinite(self.scores(name)).any():
                told.append(f"{name}: at every rate at least half of the runs diverged.")
        return told

    def table(self) -> list[dict[str, Any]]:
        """A row for each optimizer, the best first; nothing in it was timed.

        optimizer; rank, rank_low, rank_high; best_lr; edge; final_loss, final_loss_q1, final_loss_q3 (median and
        quartiles over the seeds at the best rate); steps_to_target (median over the seeds at the best rate), reached
        (the share of them that did); diverged (share of all its runs); good_low, good_high, good_decades (the window
        of good rates); default_lr, default_loss; state_arrays. NaN where there is no such number.
        """
        ranks = self.ranks()
        rows = []
        for name in sorted(self.optimizers, key=lambda name: ranks[name][0]):
            best = self.best(name)
            finals, steps = self.finals(name)[best], self.steps_to_target(name)[best]
            low, high = self.good_window(name) or (math.nan, math.nan)
            rows.append(
                {
                    "optimizer": name,
                    "rank": ranks[name][0],
                    "rank_low": ranks[name][1],
                    "rank_high": ranks[name][2],
                    "best_lr": self.best_lr(name),
                    "edge": self.edge(name),
                    "final_loss": float(np.median(finals)),
                    "final_loss_q1": quantile(finals, 0.25),
                    "final_loss_q3": quantile(finals, 0.75),
                    "steps_to_target": quantile(steps, 0.5) if self.target is not None else math.nan,
                    "reached": float(np.isfinite(steps).mean()) if self.target is not None else math.nan,
                    "diverged": float((self.status[name] == DIVERGED).mean()),
                    "good_low": low,
                    "good_high": high,
                    "good_decades": math.log10(high / low),
                    "default_lr": self.default_lr.get(name, math.nan),
                    "default_loss": self.default_score(name),
                    "state_arrays": self.state_arrays.get(name, math.nan),
                }
            )
        return rows

    def timings(self) -> list[dict[str, Any]]:
        """A row for each optimizer, in the order of `table`: optimizer, seconds_per_step, seconds_to_target (median
        over the seeds at the best rate), seconds (of all its runs)."""
        rows = []
        for row in self.table():
            name = row["optimizer"]
            steps = row["steps_to_target"]
            rows.append(
                {
                    "optimizer": name,
                    "seconds_per_step": self.cost(name),
                    "seconds_to_target": steps * self.cost(name),
                    "seconds": float(np.nansum(self.seconds[name])),
                }
            )
        return rows

    # Out, and in again.

    def to_markdown(self, timings: bool = False) -> str:
        """The table, the verdict and the warnings as text; what was timed only where it is asked for."""
        timings = arguments.flag("timings", timings)
        header, body = list(HEADER), [_shown(row) for row in self.table()]
        if timings:
            header += ["us per step", "seconds to target"]
            for line, row in zip(body, self.timings(), strict=True):
                line += [_number(1e6 * row["seconds_per_step"], 3), _number(row["seconds_to_target"], 3)]
        lines = [[_cell(cell) for cell in line] for line in [header, *body]]
        wide = [max(len(line[place]) for line in lines) for place in range(len(header))]
        text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)) + " |" for line in lines]
        text.insert(1, "|" + "|".join("-" * (w + 2) for w in wide) + "|")
        return "\n\n".join(["\n".join(text), *(" ".join(each.split()) for each in self._notes())]) + "\n"

    def _notes(self) -> list[str]:
        """What stands below the table: the verdict and the warnings."""
        return [self.verdict[0].upper() + self.verdict[1:], *(f"Warning: {each}" for each in self.warnings())]

    def _repr_html_(self) -> str:
        return display.table(HEADER, [_shown(row) for row in self.table()], 1, self._notes())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """A row for each run: optimizer, lr, seed, status, first_loss, final_loss, steps_to_target. What was timed
        goes beside it, into `<name>.timings.csv`."""
        runs: list[list[Any]] = [
            ["optimizer", "lr", "seed", "status", "first_loss", "final_loss", "steps_to_target"],
        ]
        timed: list[list[Any]] = [["optimizer", "lr", "seed", "seconds"]]
        for name in self.optimizers:
            finals, steps = self.finals(name), self.steps_to_target(name)
            for r, lr in enumerate(self.rates(name)):
                rate = "" if math.isnan(lr) else repr(float(lr))
                for s, seed in enumerate(self.seeds):
                    numbers = (self.curves[name][r, s, 0], finals[r, s], steps[r, s])
                    runs.append([name, rate, seed, self.status[name][r, s], *(repr(float(n)) for n in numbers)])
                    timed.append([name, rate, seed, repr(float(self.seconds[name][r, s]))])
        for place, rows in ((Path(path), runs), (beside(path), timed)):
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(rows)
            write_text(place, text.getvalue())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Everything, for `Comparison.load`; numbers that are not finite as null. What was timed goes beside it,
        into `<name>.timings.json`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        seconds = fields.pop("seconds")
        head = {"format": FORMAT, "version": VERSION}
        table = {"table": self.table(), "verdict": self.verdict, "warnings": self.warnings()}
        write_text(path, json.dumps(_plain(head | fields | table), allow_nan=False) + "\n")
        write_text(beside(path), json.dumps(_plain(head | {"seconds": seconds}), allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """What `to_json` wrote; the timings are NaN where their file is gone. ValueError for another file."""
        found = _read_json(Path(path))
        timed = _read_json(beside(path)) if beside(path).exists() else {}
        try:
            curves = {name: _array(each) for name, each in found["curves"].items()}
            missing = {name: np.full(each.shape[:2], math.nan).tolist() for name, each in curves.items()}
            comparison = cls(
                problem=found["problem"],
                optimizers=tuple(found["optimizers"]),
                lrs=_array(found["lrs"]),
                seeds=tuple(found["seeds"]),
                steps=found["steps"],
                target=found["target"],
                curves=curves,
                status={name: np.array(each) for name, each in found["status"].items()},
                seconds={name: _array(each) for name, each in timed.get("seconds", missing).items()},
                asked=_array(found["asked"]),
                widened=tuple(found["widened"]),
                default_lr=found["default_lr"],
                default_curves={name: _array(each) for name, each in found["default_curves"].items()},
                state_arrays={name: math.nan if n is None else n for name, n in found["state_arrays"].items()},
                window=found["window"],
                settings=found["settings"],
            )
            comparison._check_fields()
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path} is damaged: {error!r} while reading it as a comparison.") from error
        return comparison

    def _check_fields(self) -> None:
        """ValueError, or one of another kind, unless the fields of a file go together."""
        seeds, losses = len(self.seeds), self.steps + 1
        runs = {name: (len(self.rates(name)), seeds) for name in self.optimizers}
        defaults = self.default_lr.keys()
        shapes = {
            "curves": {name: (*shape, losses) for name, shape in runs.items()},
            "status": runs,
            "seconds": runs,
            "default_curves": dict.fromkeys(defaults, (seeds, losses)),
        }
        for field, expected in shapes.items():
            found = {name: each.shape for name, each in getattr(self, field).items()}
            if found != expected:
                raise ValueError(f"{field} of shapes {found}, expected {expected}")
        numbers = [self.target or 0.0, *self.widened, *self.default_lr.values(), *self.state_arrays.values()]
        whole = (
            all(isinstance(each, str) for each in (self.problem, *self.optimizers))
            and all(isinstance(each, int) for each in (self.steps, self.window, *self.seeds))
            and all(isinstance(each, (int, float)) for each in numbers)
            and isinstance(self.settings, dict)
            and (self.lrs.ndim, self.asked.ndim, len(self.widened)) == (1, 1, 2)
            and self.window > 0
            and self.state_arrays.keys() <= runs.keys() >= defaults
        )
        if not whole:
            raise ValueError("a field holds something else than it should")

    def over(self, other: Comparison, labels: tuple[str, str] = ("", "2")) -> Comparison:
        """The optimizers of both in one comparison, over the rates that both ran. A name that both have gets the
        label of its side: "Adam" and "Adam (2)".

        ValueError where they do not go together: another problem, seeds, horizon or target, or no rate in common.
        """
        for field in ("problem", "seeds", "steps", "target", "window"):
            mine, others = getattr(self, field), getattr(other, field)
            if mine != others:
                raise ValueError(f"these comparisons do not go together: {field} is {mine!r} and {others!r}.")
        if self.settings.get("question", {}).get("problem") != other.settings.get("question", {}).get("problem"):
            raise ValueError(f"these comparisons do not go together: {self.problem} is another problem in each.")
        common = np.intersect1d(self.lrs, other.lrs)
        if not common.size:
            raise ValueError(f"these comparisons have no rate in common: {self.lrs.tolist()} and {other.lrs.tolist()}.")
        sides = ((self, other, labels[0]), (other, self, labels[1]))
        members = [_Share(one, common, _renamed(one, another, label)) for one, another, label in sides]
        names = [name for part in members for name in part.names.values()]
        if len(set(names)) < len(names):
            raise ValueError(f"both have the same names, {names}: give labels that tell them apart.")
        every: dict[str, Any] = {
            field: {new: value for part in members for new, value in part.of(field)}
            for field in ("curves", "status", "seconds", "default_lr", "default_curves", "state_arrays")
        }
        without = [part.names[name] for part in members for name in part.comparison.settings.get("without_rate", ())]
        settings = {**self.settings, "without_rate": without, "over": [self.settings, other.settings]}
        return dataclasses.replace(
            self, optimizers=tuple(names), lrs=common, asked=common, widened=(0.0, 0.0), settings=settings, **every
        )


class _Share(NamedTuple):
    """One side of two comparisons laid over each other."""

    comparison: Comparison
    common: Array
    names: dict[str, str]  # old -> new

    def of(self, field: str) -> list[tuple[str, Any]]:
        """(new name, value) of each optimizer that has one, at the common rates."""
        values = getattr(self.comparison, field)
        chosen = np.isin(self.comparison.lrs, self.common)
        by_rate = field in ("curves", "status", "seconds")
        return [
            (new, values[old][chosen] if by_rate and self.comparison.has_rate(old) else values[old])
            for old, new in self.names.items()
            if old in values
        ]


def _renamed(one: Comparison, other: Comparison, label: str) -> dict[str, str]:
    return {name: f"{name} ({label})" if label and name in other.optimizers else name for name in one.optimizers}


def final_losses(curves: Array, window: int) -> Array:
    """(...,) from curves (..., T): the median of the last twentieth of the losses, or of the last `window` if that is
    more; infinite where one of them is not finite."""
    tail = max(1, curves.shape[-1] // 20, min(window, curves.shape[-1]))
    last = curves[..., -tail:]
    bad = ~np.isfinite(last).all(-1)
    return np.where(bad, math.inf, np.median(np.where(bad[..., None], 0.0, last), -1))


def endings(curves: Array, target: float | None, window: int) -> Array:
    """The status of each run, (...,) from curves (..., T)."""
    finals = final_losses(curves, window)
    ended = np.full(finals.shape, MAX_STEPS, "<U9")
    if target is not None:
        ended[finals <= target] = CONVERGED
    ended[~np.isfinite(finals)] = DIVERGED
    return ended


def lowest(scores: Array) -> int:
    """Where the lowest is; of several equal ones, the middle one."""
    equal = np.flatnonzero(scores == scores.min())
    return int(equal[(len(equal) - 1) // 2])


def _ranks(scores: Array) -> Array:
    """Places in each column, 1 the lowest; equal ones share the better place."""
    return 1 + (scores[None, :, :] < scores[:, None, :]).sum(1)


# Over problems -----------------------------------------------------------------------------------------------


class Profile(NamedTuple):
    """A performance profile: `shares[o, t]` of the problems are solved by optimizer o at no more than `ratios[t]`
    times the cost of the best one."""

    optimizers: tuple[str, ...]
    problems: tuple[str, ...]
    costs: Array  # (problems, optimizers), infinite where not solved
    ratios: Array  # (T,), ascending from 1
    shares: Array  # (optimizers, T)


def profile(comparisons: Sequence[Comparison], measure: str = "steps") -> Profile:
    """How often, over several problems, each optimizer is within a factor of the best.

        rho_o(tau) = share of problems p with cost(p, o) <= tau min over all of cost(p, .)

    measure "steps": cost is the median over the seeds of the steps to the target, at the rate where that is least;
    "loss": the score of the best rate. Dolan and More 2002 (cs/0102001). ValueError for none, for different
    optimizers, for "steps" without a target, or for a loss below 0, of which there are no ratios.
    """
    comparisons = list(comparisons)
    if not comparisons:
        raise ValueError("a profile is over at least one comparison, got none.")
    if measure not in ("steps", "loss"):
        raise ValueError(f'measure is "steps" or "loss", got {measure!r}.')
    names = comparisons[0].optimizers
    for each in comparisons:
        if set(each.optimizers) != set(names):
            raise ValueError(f"a profile needs the same optimizers everywhere, got {names} and {each.optimizers}.")
        if measure == "steps" and each.target is None:
            raise ValueError(f'{each.problem} has no target to count steps to: run it with one, or measure="loss".')
    costs = np.array([[_cost(each, name, measure) for name in names] for each in comparisons])
    if (costs < 0).any():
        raise ValueError("a loss is below 0, and ratios of such losses say nothing.")
    least = costs.min(1, keepdims=True)
    # Of costs 0 and infinity: what equals the least has ratio 1 if it is solved at all.
    with np.errstate(all="ignore"):
        ratio = np.where(costs == least, 1.0, costs / least)
    ratio[~np.isfinite(costs) | np.isnan(ratio)] = math.inf
    taus = np.unique(np.concatenate(([1.0], ratio[np.isfinite(ratio)])))
    shares = (ratio.T[:, :, None] <= taus).mean(1)
    return Profile(names, tuple(each.problem for each in comparisons), costs, taus, shares)


def _cost(comparison: Comparison, name: str, measure: str) -> float:
    if measure == "loss":
        return float(comparison.scores(name).min())
    return min(quantile(steps, 0.5) for steps in comparison.steps_to_target(name))


# Small print -------------------------------------------------------------------------------------------------


def quantile(values: Array, q: float) -> float:
    """The q-quantile, between neighbours in proportion, of numbers that may be infinite."""
    ordered = np.sort(np.asarray(values, np.float64)).tolist()
    place = q * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    if low == high:
        return low
    return low + (high - low) * (place - math.floor(place))


def trailing_median(curves: Array, window: int) -> Array:
    """Of curves (..., T), at each place the median of the last `window` losses; NaN before there are as many."""
    if window == 1:
        return curves
    result = np.full(curves.shape, math.nan)
    if window <= curves.shape[-1]:
        result[..., window - 1 :] = np.median(np.lib.stride_tricks.sliding_window_view(curves, window, -1), -1)
    return result


def beside(path: str | os.PathLike[str]) -> Path:
    """Where what was timed goes: `name.timings.json` beside `name.json`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.timings{path.suffix}")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """The whole text or nothing. OSError leaves what was there as it was."""
    with files.replaced(path) as file:
        file.write(text.encode())


def _read_json(path: Path) -> dict[str, Any]:
    files.check_regular(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or no comparison: {error}.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is no comparison that to_json wrote.")
    if found.get("version") != VERSION:
        raise ValueError(f"{path} has format version {found.get('version')!r}; this layerwise reads {VERSION}.")
    return found


def _plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, numbers that are not finite as None."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f" or np.isfinite(value).all():
            return value.tolist()
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _array(value: Any) -> Array:
    """A float64 array, None as NaN."""
    return np.array(value, np.float64)


def _number(value: float, digits: int = 4) -> str:
    return "-" if not math.isfinite(value) else f"{value:.{digits}g}"


def _loss(value: float) -> str:
    return "div" if value == math.inf else _number(value)


def _cell(text: str) -> str:
    """A cell of a Markdown table that shows `text`, whatever an optimizer is called."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _shown(row: dict[str, Any]) -> list[str]:
    """The cells of a row of the table."""
    interval = f"{row['rank_low']} to {row['rank_high']}" if row["rank_low"] < row["rank_high"] else f"{row['rank']}"
    good = "-"
    if not math.isnan(row["good_low"]):
        good = f"{row['good_low']:.3g} to {row['good_high']:.3g} ({row['good_decades']:.2g} decades)"
    steps = _number(row["steps_to_target"])
    if not math.isnan(row["reached"]) and row["reached"] < 1:
        steps += f" ({row['reached']:.0%} reach it)"
    default = "-" if math.isnan(row["default_loss"]) else _loss(row["default_loss"])
    if not math.isnan(row["default_lr"]):
        default += f" ({row['default_lr']:.3g})"
    return [
        row["optimizer"],
        f"{row['rank']} ({interval})" if row["rank_low"] < row["rank_high"] else f"{row['rank']}",
        _number(row["best_lr"]) + (f" (at the {row['edge']} edge)" if row["edge"] else ""),
        _loss(row["final_loss"]),
        f"{_loss(row['final_loss_q1'])} to {_loss(row['final_loss_q3'])}",
        steps,
        f"{row['diverged']:.0%}",
        good,
        default,
        _number(row["state_arrays"], 3),
    ]
