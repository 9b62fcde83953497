"""Schedules: numbers that change from step to step. `SGD(lr=Cosine(0.1, 0.0, 1000), momentum=Linear(0.5, 0.9, 200))`.

    flat        Constant
    in stairs   Step, MultiStep
    falling     Exponential, InverseTime
    to an end   Polynomial, Linear, Cosine
    in cycles   CosineRestarts, OneCycle, Cyclic
    warming up  Warmup (then another), Noam
    in a row    Join

A schedule is a pure function of t, the number of steps taken so far, which is 0 at the first step. It gives a Python
float. It may stand for any hyper-parameter of any rule, and a rule may have several. Two with the same arguments are
equal; `config()` gives the arguments, `plot(steps)` the curve. A step is one update, as in optax and Keras. torch's
schedulers count calls of their own step(), by habit one an epoch; called once an update, they equal ours.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, NoReturn

from layerwise.core import arguments, display
from layerwise.core.hyper import NOT_NEGATIVE, POSITIVE

# What each argument may be.
RANGES: dict[str, arguments.Limits] = {
    **dict.fromkeys(("gamma", "decay_rate", "m_mult"), NOT_NEGATIVE),
    **dict.fromkeys(("power", "factor", "div_factor", "final_div_factor"), POSITIVE),
    "t_mult": (1, math.inf, "[)"),
    "pct_start": (0, 1, "()"),
}
COUNTS = ("steps", "step_size", "step_size_up", "step_size_down", "d_model", "warmup_steps")
PLACES = ("milestones", "boundaries")  # lists of steps
CHOICES = {"mode": ("triangular", "triangular2", "exp_range"), "anneal_strategy": ("cos", "linear")}
FLAGS = ("three_phase",)
OPTIONAL = ("step_size_down",)  # may be None
FINITE = (-math.inf, math.inf, "()")  # all others


# The base ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """The base of every schedule. A schedule of one's own is a frozen dataclass that writes `at(t)`.

    ValueError for an argument that is out of range, or a step that is not an integer, 0 or more.
    """

    def __post_init__(self) -> None:
        for name, value in self.config().items():
            object.__setattr__(self, name, self._validated(name, value))

    def __call__(self, step: int) -> float:
        """The value for the next step, after `step` steps."""
        t = arguments.count("step", step, 0, "an integer, 0 or more")
        try:
            return float(self.at(t))
        except OverflowError:
            raise OverflowError(f"{self!r} is beyond the range of a float at step {step}.") from None

    def at(self, t: int) -> float:
        raise TypeError("a schedule is at(self, t) -> float: write it.")

    def config(self) -> dict[str, Any]:
        """The arguments that make such a schedule."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def plot(self, steps: int) -> Any:
        """The values of the first `steps` steps as a matplotlib Figure, which a notebook shows, or `show()`."""
        self._count("steps", steps)
        figure = display.figure(figsize=(5, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(range(steps), [self(t) for t in range(steps)], color="#0072b2", marker="." if steps <= 50 else "")
        axes.set(xlabel="steps taken", ylabel="value")
        axes.set_title(repr(self), fontsize="small", wrap=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.locator_params(axis="x", integer=True)
        return figure

    def _validated(self, name: str, value: Any) -> Any:
        """`value` as a Python number, a tuple or a schedule, if the argument `name` may be that."""
        if value is None and name in OPTIONAL:
            return None
        if name in COUNTS:
            return self._count(name, value)
        if name == "schedule":
            return self._schedule(name, value)
        if name == "schedules":
            if not isinstance(value, (list, tuple)) or len(value) < 2:
                self._refuse(name, "a list of two or more schedules", value)
            return tuple(self._schedule(name, each) for each in value)
        if name in PLACES:
            return self._places(name, value)
        if name in FLAGS:
            if not isinstance(value, bool):
                self._refuse(name, "True or False", value)
            return value
        if name in CHOICES:
            if value not in CHOICES[name]:
                self._refuse(name, f"one of {', '.join(map(repr, CHOICES[name]))}", value)
            return value
        limits = RANGES.get(name, FINITE)
        if not arguments.within(value, limits):
            self._refuse(name, arguments.legal(limits), value)
        return float(value)

    def _count(self, name: str, value: Any) -> int:
        return arguments.count(f"{type(self).__name__}: {name}", value)

    def _places(self, name: str, value: Any) -> tuple[int, ...]:
        places = tuple(self._count(name, each) for each in value) if isinstance(value, (list, tuple)) else ()
        if not places or any(after <= before for before, after in itertools.pairwise(places)):
            self._refuse(name, "a list of positive integers that grow", value)
        return places

    def _schedule(self, name: str, value: Any) -> Callable[[int], float]:
        if isinstance(value, Real) and not isinstance(value, bool):
            return Constant(float(value))
        if not callable(value) or isinstance(value, type):
            self._refuse(name, "a schedule, a callable of the step, or a number", value)
        return value

    def _refuse(self, name: str, legal: str, value: Any) -> NoReturn:
        raise ValueError(f"{type(self).__name__}: {name} is {legal}, got {value!r}.")


def _between(start: float, end: float, share: float) -> float:
    """Along a straight line, `end` itself at 1."""
    return start * (1 - share) + end * share


def _along_cosine(start: float, end: float, share: float) -> float:
    """Along half a cosine wave, flat at both ends."""
    return _between(start, end, (1 - math.cos(math.pi * share)) / 2)


# Flat, and in stairs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant(Schedule):
    """value, at every step.

    Equals optax.constant_schedule. (torch's ConstantLR multiplies the first steps by a factor: a Join of two.)
    """

    value: float

    def at(self, t: int) -> float:
        return self.value


@dataclass(frozen=True)
class Step(Schedule):
    """initial gamma^floor(t / step_size): a stair down every step_size steps.

    Equals torch StepLR, and optax and Keras exponential decay with staircase=True.
    """

    initial: float
    step_size: int
    gamma: float = 0.1

    def at(self, t: int) -> float:
        return self.initial * self.gamma ** (t // self.step_size)


@dataclass(frozen=True)
class MultiStep(Schedule):
    """initial gamma^(how many milestones are <= t): a stair down at each milestone.

    Equals torch MultiStepLR and optax.piecewise_constant_schedule. Keras' PiecewiseConstantDecay takes the values
    instead of one factor, and steps down one step later (at t > boundary).
    """

    initial: float
    milestones: tuple[int, ...]
    gamma: float = 0.1

    def at(self, t: int) -> float:
        return self.initial * self.gamma ** bisect.bisect_right(self.milestones, t)


# Falling -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exponential(Schedule):
    """initial gamma^(t / steps): by the factor gamma in every `steps` steps. With gamma > 1 it grows.

    Equals torch ExponentialLR (steps=1), optax.exponential_decay and Keras ExponentialDecay.
    """

    initial: float
    gamma: float
    steps: int = 1

    def at(self, t: int) -> float:
        return self.initial * self.gamma ** (t / self.steps)


@dataclass(frozen=True)
class InverseTime(Schedule):
    """initial / (1 + decay_rate t / steps)^power.

    Robbins and Monro 1951. With power 1 equals Keras InverseTimeDecay. decay_rate=1, power=0.5 is scikit-learn's
    "invscaling", which counts samples, from 1, in place of steps.
    """

    initial: float
    decay_rate: float
    steps: int = 1
    power: float = 1.0

    def at(self, t: int) -> float:
        return self.initial / (1 + self.decay_rate * t / self.steps) ** self.power


# To an end: (initial, final, steps), and `final` from there on -----------------------------------------------


@dataclass(frozen=True)
class Polynomial(Schedule):
    """final + (initial - final) (1 - t / steps)^power, then final.

    Equals optax.polynomial_schedule and Keras PolynomialDecay, whose final is 1e-4 by default; torch PolynomialLR,
    whose final is 0.
    """

    initial: float
    final: float
    steps: int
    power: float = 1.0

    def at(self, t: int) -> float:
        return _between(self.final, self.initial, (1 - min(t / self.steps, 1)) ** self.power)


@dataclass(frozen=True)
class Linear(Schedule):
    """initial + (final - initial) t / steps, then final: up or down.

    Equals optax.linear_schedule, and torch LinearLR(start_factor=initial / lr, end_factor=final / lr), whose defaults
    rise from a third in 5 steps.
    """

    initial: float
    final: float
    steps: int

    def at(self, t: int) -> float:
        return _between(self.initial, self.final, min(t / self.steps, 1))


@dataclass(frozen=True)
class Cosine(Schedule):
    """final + (initial - final) (1 + cos(pi t / steps)) / 2, then final.

    Loshchilov and Hutter 2016 (1608.03983), equation 5. Equals optax.cosine_decay_schedule and Keras CosineDecay with
    alpha=final / initial; torch CosineAnnealingLR up to T_max=steps; from there that one rises.
    """

    initial: float
    final: float
    steps: int

    def at(self, t: int) -> float:
        return _along_cosine(self.initial, self.final, min(t / self.steps, 1))


# In cycles ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Cosine from initial to final, over and over: the first takes `steps`, each next t_mult times as many.

        final + (initial - final) m_mult^i (1 + cos(pi u / length)) / 2        step u of cycle i

    `final` itself is never reached: the last step of a cycle is u = length - 1. Loshchilov and Hutter 2016
    (1608.03983), SGDR. Equals torch CosineAnnealingWarmRestarts (m_mult=1, T_mult an integer); Keras
    CosineDecayRestarts, whose t_mul is 2 by default; with the cycles listed, optax.sgdr_schedule.
    """

    initial: float
    final: float
    steps: int
    t_mult: float = 1.0
    m_mult: float = 1.0

    def at(self, t: int) -> float:
        length, cycle, u = float(self.steps), 0, float(t)
        if self.t_mult == 1:
            cycle, u = divmod(t, self.steps)
        elif self.t_mult < 1.01:  # many cycles: go by the sum of their lengths to the one before, as it is rounded
            cycle = max(0, int(math.log1p(u * (self.t_mult - 1) / length) / math.log(self.t_mult)) - 1)
            u -= length * math.expm1(cycle * math.log(self.t_mult)) / (self.t_mult - 1)
            length *= self.t_mult**cycle
        while u >= length:
            u -= length
            length *= self.t_mult
            cycle += 1
        peak = self.final + (self.initial - self.final) * self.m_mult**cycle
        return _along_cosine(peak, self.final, u / length)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From peak / div_factor up to peak, then down to that start / final_div_factor, at the last of `steps`.

        up to step pct_start steps - 1, down to step steps - 1, each along a cosine or a line (anneal_strategy)
        three_phase: down to the start, as fast as it rose; then from there to the end

    Smith and Topin 2017 (1708.07120). Equals torch OneCycleLR(max_lr=peak, total_steps=steps); after the last step
    that one raises, and ours stays. Its momentum, which falls and rises: peak=0.85, div_factor=0.85 / 0.95,
    final_div_factor=1. optax.cosine_onecycle_schedule peaks and ends a step later.
    """

    peak: float
    steps: int
    pct_start: float = 0.3
    anneal_strategy: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pct_start * self.steps <= 1:
            self._refuse("pct_start", f"above 1 / steps = {1 / self.steps:g}, for a step to rise in", self.pct_start)
        if self.three_phase and self.pct_start > 0.5:
            self._refuse("pct_start", "at most 0.5 with three_phase, which falls as fast", self.pct_start)

    def at(self, t: int) -> float:
        start = self.peak / self.div_factor
        end = start / self.final_div_factor
        up = self.pct_start * self.steps - 1
        turns = [(0, start), (up, self.peak), *([(2 * up, start)] * self.three_phase), (self.steps - 1, end)]
        anneal = _along_cosine if self.anneal_strategy == "cos" else _between
        for (begin, before), (stop, after) in itertools.pairwise(turns):
            if t <= stop:
                return anneal(before, after, (t - begin) / (stop - begin))
        return end


@dataclass(frozen=True)
class Cyclic(Schedule):
    """From base to peak in step_size_up steps, back in step_size_down (None: the same), over and over.

        base + (peak - base) h s        h: from 0 to 1 and back;  s by mode, in cycle i = 0, 1, ...:
        "triangular" 1,  "triangular2" 1 / 2^i,  "exp_range" gamma^t

    Smith 2015 (1506.01186). Equals torch CyclicLR(base_lr, max_lr); its momentum, which falls and rises, is
    Cyclic(max_momentum, base_momentum).
    """

    base: float
    peak: float
    step_size_up: int
    step_size_down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0

    def at(self, t: int) -> float:
        up, down = self.step_size_up, self.step_size_down or self.step_size_up
        cycle, u = divmod(t, up + down)
        height = u / up if u <= up else (up + down - u) / down
        if self.mode == "triangular2":
            height *= 0.5**cycle
        elif self.mode == "exp_range":
            height *= self.gamma**t
        return _between(self.base, self.peak, height)


# Warming up, and in a row ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Warmup(Schedule):
    """A line from `initial` to the start of another schedule, which follows and counts from there.

        t < steps: initial + (schedule(0) - initial) t / steps;  then schedule(t - steps)

    `schedule` may be a number. With initial 0 the first step has the value 0, as elsewhere. Goyal et al. 2017
    (1706.02677). Equals optax.warmup_cosine_decay_schedule, whose decay_steps count the warm-up too, Keras CosineDecay
    with warmup_target, and torch SequentialLR of LinearLR and another.
    """

    schedule: Callable[[int], float]
    steps: int
    initial: float = 0.0

    def at(self, t: int) -> float:
        if t >= self.steps:
            return self.schedule(t - self.steps)
        return _between(self.initial, self.schedule(0), t / self.steps)


@dataclass(frozen=True)
class Noam(Schedule):
    """factor d_model^-0.5 min(n^-0.5, n warmup_steps^-1.5), n = t + 1: up in a line, then down by the root.

    Vaswani et al. 2017 (1706.03762), equation 3, whose first step is 1. The highest value, at n = warmup_steps, is
    factor / sqrt(d_model warmup_steps).
    """

    d_model: int
    warmup_steps: int
    factor: float = 1.0

    def at(self, t: int) -> float:
        n = t + 1
        return self.factor * self.d_model**-0.5 * min(n**-0.5, n * self.warmup_steps**-1.5)


@dataclass(frozen=True)
class Join(Schedule):
    """Two or more schedules in a row: the next takes over at each boundary, and counts from there.

        Join([Linear(0.0, 0.1, 10), 0.1, Cosine(0.1, 0.0, 50)], boundaries=[10, 40])

    A number stands for a constant. Equals optax.join_schedules, and torch SequentialLR(milestones=boundaries).
    """

    schedules: tuple[Callable[[int], float], ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.boundaries) != len(self.schedules) - 1:
            self._refuse("boundaries", f"one fewer than the {len(self.schedules)} schedules", self.boundaries)

    def at(self, t: int) -> float:
        place = bisect.bisect_right(self.boundaries, t)
        return self.schedules[place](t - (self.boundaries[place - 1] if place else 0))


__all__ = [
    "Constant", "Cosine", "CosineRestarts", "Cyclic", "Exponential", "InverseTime", "Join", "Linear", "MultiStep",
    "Noam", "OneCycle", "Polynomial", "Schedule", "Step", "Warmup",
]  # fmt: skip
