"""Compare optimizers: which one, at which learning rate, for this problem? `compare("sgd,momentum,adam", "xor")`.

Public comparisons are unfair in ways that are hard to see. So here every optimizer gets the same grid of rates, the
same number of steps, the same starts and the same batches; the grid grows for all while a best rate lies at its edge;
nothing is clipped unless asked for; a run that diverges is counted, not dropped; and where the seeds do not tell two
optimizers apart, the answer is "no clear winner".

In this file, in this order:
  the question      log_grid, compare
  one optimizer     run_group
  one rate          find_lr

What comes back is a `Comparison` (results.py); what there is to compare on stands in problems.py, and the file that
keeps what is finished in sweepfile.py.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import itertools
import math
import operator
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from layerwise import loss as _loss, model, optim as _optim, problems
from layerwise.compare.results import Comparison, Profile, endings, profile
from layerwise.compare.sweepfile import Rate, Results, Runs, code_of
from layerwise.core import arguments
from layerwise.core.arguments import numbers
from layerwise.core.fingerprint import UNKNOWN, fingerprint, plain
from layerwise.problems import Problem, Surface
from layerwise.training import checks

Array = np.ndarray
# Parameters of a stack, all copies together: more do not fit the cache.
_STACKED = 4_000_000

FARTHEST = 3.0  # decades by which the grid is widened at most, each way
RATES = (1e-4, 1.0, 4)  # lowest, highest, per decade, unless asked for others
WITHOUT_RATE = (
    _optim.DoG,
    _optim.Prodigy,
    _optim.PolyakSGD,
)  # they find it; what they call lr is a factor, best left at 1


# The question ------------------------------------------------------------------------------------------------


def log_grid(low: float, high: float, per_decade: int = 4) -> tuple[float, ...]:
    """Learning rates from low to high in equal ratios, `per_decade` of them for each factor of 10.

    Rounded to four digits, so that 0.01 is 0.01. ValueError unless 0 < low <= high.
    """
    if not 0 < low <= high < math.inf:
        raise ValueError(f"a grid goes from a positive rate to one not lower, got {low!r} and {high!r}.")
    arguments.count("per_decade", per_decade)
    count = math.floor(per_decade * math.log10(high / low) + 1e-9) + 1
    return tuple(_round(low * 10 ** (place / per_decade)) for place in range(count))


def compare(
    optimizers: Any,
    problem: Any,
    lrs: Sequence[float] | None = None,
    seeds: int | Sequence[int] = 10,
    steps: int = 1000,
    target: float | None = None,
    n_jobs: int = 1,
    path: str | os.PathLike[str] | None = None,
    clip: float | None = None,
    verbose: bool = True,
    widen: bool = True,
) -> Comparison:
    """Train `problem` with every optimizer at every rate from every seed; the Comparison of them.

    optimizers  name -> class, or function of the rate such as `lambda lr: Adam(lr, beta2=0.99)`; or classes; or names,
                "sgd,momentum". A function without arguments, DoG, Prodigy and PolyakSGD take no rate.
    problem     a name (problems.NETS, problems.SURFACES), a Problem or a Surface
    lrs         None: log_grid(1e-4, 1, per_decade=4). With `widen`, the grid grows for all, a decade at a time, at most
                three each way, while the best rate of some optimizer is its first or last.
    seeds       how many, 0, 1, ..., or which: each decides a start, its batches, its noise. The same bits again: on the
                same machine, with the same packages and number of BLAS threads (one, with threadpoolctl)
    target      a loss to count steps to; None: the problem's own
    n_jobs      processes, -1 for one a core; more than one needs joblib, whose backends reach other machines.
                Work and results travel as pickles, which run code when loaded: use machines and networks that you trust
    path        a file that keeps what is finished: after Ctrl-C, a crash or a full disk the same call goes on from it.
                The same: also the code of one's own functions and classes, and what they use (docs/sweeps.md)
    clip        the global norm to which the gradients of all are clipped

    ValueError for what can't be, and for a file that answers another question; ImportError, with the pip command,
    without joblib; whatever an optimizer raises on this problem, other than by diverging.
    """
    verbose = arguments.verbose(verbose)
    contest = _Contest.of(optimizers, problem, lrs, seeds, steps, target, clip, widen)
    _check_jobs(n_jobs)
    question = contest.question()
    results = Results(path, question)
    unknown = [place for place, each in code_of(question).items() if each == UNKNOWN]
    if unknown and path is not None:
        warnings.warn(
            f"{path} can't tell whether these are the same when it is read again: {', '.join(unknown)}. Delete it when "
            f"they change.",
            stacklevel=2,
        )
    with _Bar(verbose) as bar:
        grid = contest.lrs
        while True:
            _run_missing(contest, grid, results, n_jobs, bar)
            found = contest.comparison(grid, results)
            wider = contest.widened(grid, found) if widen else grid
            if wider == grid:
                return found
            grid = wider


class Entrant(NamedTuple):
    """One optimizer of a comparison."""

    name: str
    make: Callable[[Rate], Any]  # rate -> a new optimizer
    has_rate: bool
    default_lr: Rate  # of the class, where it was given as one


@dataclasses.dataclass
class _Contest:
    """A question, checked: everything that decides the answer."""

    entrants: list[Entrant]
    problem: Problem | Surface
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    target: float | None
    clip: float | None
    widen: bool

    @classmethod
    def of(
        cls, optimizers: Any, problem: Any, lrs: Any, seeds: Any, steps: Any, target: Any, clip: Any, widen: bool
    ) -> _Contest:
        if not isinstance(problem, (Problem, Surface)):
            problem = problems.named(problem)
        arguments.count("steps", steps)
        for name, value in (("target", target), ("clip", clip)):
            if value is not None and not (arguments.is_number(value) and (value > 0 or name == "target")):
                raise ValueError(f"{name} is a {'positive ' * (name == 'clip')}number or None, got {value!r}.")
        if target is None:
            target = problem.target
        rates = log_grid(*RATES) if lrs is None else _checked_rates(lrs)
        clip = None if clip is None else float(clip)
        target = None if target is None else float(target)
        entrants = _entrants(optimizers, clip)
        widen = arguments.flag("widen", widen)
        return cls(entrants, problem, rates, _checked_seeds(seeds), int(steps), target, clip, widen)

    def question(self) -> dict[str, Any]:
        """What was asked, as plain text and numbers. The same question has the same answer."""
        return {
            "problem": self.problem.describe(),
            "optimizers": {entrant.name: plain(repr(entrant.make(_sample(entrant)))) for entrant in self.entrants},
            "code": {entrant.name: found for entrant in self.entrants if (found := self._code(entrant))},
            "lrs": list(self.lrs),
            "widen": self.widen,
            "seeds": list(self.seeds),
            "steps": self.steps,
            "target": self.target,
            "clip": self.clip,
            "versions": {
                "numpy": np.__version__,
                "python": platform.python_version(),
                "machine": f"{platform.system()} {platform.machine()}",
            },
        }

    def _code(self, entrant: Entrant) -> dict[str, str]:
        """Place -> digest, of what makes a rule and of what is made, where something in it is one's own."""
        rule = entrant.make(_sample(entrant))
        made_by, created = (fingerprint(each, name, range(self.steps))
                         for name, each in (("make", entrant.make), ("rule", rule)))  # fmt: skip
        return {**made_by.digests(), **created.digests()} if made_by.own or created.own else {}

    def rates(self, entrant: Entrant, grid: Sequence[float]) -> list[Rate]:
        """At which rates it is run: the grid, and its default."""
        if not entrant.has_rate:
            return [None]
        extra = [] if entrant.default_lr is None or entrant.default_lr in grid else [entrant.default_lr]
        return [*grid, *extra]

    def comparison(self, grid: tuple[float, ...], results: Results) -> Comparison:
        """What the runs over this grid say."""
        runs = {
            entrant.name: [results[entrant.name, lr] for lr in (grid if entrant.has_rate else (None,))]
            for entrant in self.entrants
        }
        curves = {name: np.stack([run.curves for run in each]) for name, each in runs.items()}
        defaults = {each.name: each.default_lr for each in self.entrants if each.default_lr is not None}
        return Comparison(
            problem=self.problem.name,
            optimizers=tuple(entrant.name for entrant in self.entrants),
            lrs=np.array(grid),
            seeds=self.seeds,
            steps=self.steps,
            target=self.target,
            curves=curves,
            status={name: endings(each, self.target, self.problem.window) for name, each in curves.items()},
            seconds={name: np.stack([run.seconds for run in each]) for name, each in runs.items()},
            asked=np.array(self.lrs),
            widened=(_decades(grid[0], self.lrs[0]), _decades(self.lrs[-1], grid[-1])),
            default_lr=defaults,
            default_curves={name: results[name, lr].curves for name, lr in defaults.items()},
            state_arrays={each.name: state_arrays(self.problem, each.make, _sample(each)) for each in self.entrants},
            window=self.problem.window,
            settings={
                "question": results.question,
                "without_rate": [entrant.name for entrant in self.entrants if not entrant.has_rate],
            },
        )

    def widened(self, grid: tuple[float, ...], found: Comparison) -> tuple[float, ...]:
        """The grid with another decade where some best rate is at its edge, unless that is beyond the limit."""
        edges = {found.edge(entrant.name) for entrant in self.entrants}
        ratio = (grid[-1] / grid[0]) ** (1 / (len(grid) - 1)) if len(grid) > 1 else 10 ** (1 / RATES[2])
        count = max(1, round(1 / math.log10(ratio)))
        below = [_round(grid[0] / ratio**place) for place in range(count, 0, -1)] if "low" in edges else []
        above = [_round(grid[-1] * ratio**place) for place in range(1, count + 1)] if "high" in edges else []
        return (
            *(lr for lr in below if _decades(lr, self.lrs[0]) <= FARTHEST),
            *grid,
            *(lr for lr in above if _decades(self.lrs[-1], lr) <= FARTHEST),
        )


def _decades(low: float, high: float) -> float:
    return round(math.log10(high / low), 2)


def _round(lr: float) -> float:
    """To four digits."""
    return float(f"{lr:.4g}")


def _sample(entrant: Entrant) -> Rate:
    """Some rate, to look at such an optimizer."""
    return 0.01 if entrant.has_rate else None


def _checked_rates(lrs: Any) -> tuple[float, ...]:
    rates = [lrs] if arguments.is_number(lrs) else list(lrs)
    if not rates or not all(arguments.is_number(lr) and lr > 0 for lr in rates):
        raise ValueError(f"lrs holds positive numbers, at least one, got {lrs!r}.")
    return tuple(sorted({float(lr) for lr in rates}))


def _checked_seeds(seeds: Any) -> tuple[int, ...]:
    chosen = range(seeds) if arguments.is_integer(seeds) else seeds
    legal = isinstance(chosen, (range, list, tuple, np.ndarray)) and len(chosen) > 0
    if not legal or not all(arguments.is_integer(seed, 0) for seed in chosen):
        raise ValueError(f"seeds is how many, a positive integer, or a list of integers, 0 or more, got {seeds!r}.")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"each seed counts once: a seed stands twice in {seeds!r}.")
    return tuple(int(seed) for seed in chosen)


def _check_jobs(n_jobs: Any) -> None:
    if not arguments.is_integer(n_jobs) or n_jobs == 0:
        raise ValueError(f"n_jobs is how many processes, or -1 for one a core, got {n_jobs!r}.")
    if n_jobs != 1:
        _joblib()


# Who takes part.


def _entrants(optimizers: Any, clip: float | None) -> list[Entrant]:
    if isinstance(optimizers, str):
        optimizers = [each.strip() for each in optimizers.split(",") if each.strip()]
    if isinstance(optimizers, type):
        optimizers = [optimizers]
    if not isinstance(optimizers, Mapping):
        if not isinstance(optimizers, (list, tuple)):
            raise TypeError(f"optimizers is {{name: class or function of the rate}}, classes or names: {optimizers!r}.")
        classes = [rule_named(each) if isinstance(each, str) else each for each in optimizers]
        unnamed = [each for each in classes if not isinstance(each, type)]
        if unnamed:
            raise TypeError(f"a list holds classes or names; {unnamed[0]!r} needs a name: {{name: function}}.")
        optimizers = {each.__name__: each for each in classes}
        if len(optimizers) < len(classes):
            raise ValueError("a list holds each optimizer once; to run one twice, give names: {name: class}.")
    if not optimizers:
        raise ValueError("there is nothing to compare: give at least one optimizer.")
    return [_entrant(str(name), rule_named(each) if isinstance(each, str) else each, clip)
            for name, each in optimizers.items()]  # fmt: skip


def rule_named(name: str) -> type[_optim.Optimizer]:
    """The optimizer of that name, in any case of its letters. ValueError, with all the names, for another."""
    rules = {each: getattr(_optim, each) for each in _optim.__all__}
    rules = {
        each: rule
        for each, rule in rules.items()
        if isinstance(rule, type)
        and issubclass(rule, _optim.Optimizer)
        and not issubclass(rule, (_optim.Wrapper, _optim.PerLayer))
        and rule is not _optim.Optimizer
    }
    for each, rule in rules.items():
        if each.lower() == name.lower():
            return rule
    raise ValueError(f"there is no optimizer {name!r}; there are {', '.join(rules)}.")


def _entrant(name: str, created: Any, clip: float | None) -> Entrant:
    if isinstance(created, _optim.Optimizer):
        raise TypeError(
            f"{name} is an instance, and each run needs a new one: give the class {type(created).__name__}, or a "
            f"function of the rate, lambda lr: {type(created).__name__}(lr)."
        )
    if isinstance(created, type) and issubclass(created, (_optim.Wrapper, _optim.PerLayer)):
        raise TypeError(
            f"{name} goes around another optimizer: give a function, lambda lr: {created.__name__}(SGD(lr), ...)."
        )
    if not callable(created):
        raise TypeError(f"{name} is a class or a function of the rate, got {created!r}.")
    if isinstance(created, type):
        has_rate = not issubclass(created, WITHOUT_RATE) and _takes_argument(created)
    else:
        has_rate = _takes_argument(created)

    def make(lr: Rate) -> Any:
        rule = created(lr) if has_rate else created()
        return rule if clip is None else _optim.Clip(rule, norm=clip)

    default: Any = None
    try:
        sample, another = make(0.01), make(0.01)
        if isinstance(created, type) and has_rate:
            default = getattr(created(), "lr", None)
    except TypeError as error:
        raise TypeError(f"{name} can't be made from a learning rate alone: {error}") from error
    if not callable(sample) or isinstance(sample, type):
        raise TypeError(f"{name} gives {sample!r}, expected an optimizer: a callable (net, loss).")
    if sample is another and isinstance(sample, _optim.Optimizer):
        raise ValueError(f"{name} gives the same instance each time, and each run needs a new one.")
    return Entrant(name, make, has_rate, float(default) if arguments.is_number(default) else None)


def _takes_argument(function: Any) -> bool:
    """Whether it can be called with one value."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in (*positional, inspect.Parameter.VAR_POSITIONAL) for each in signature.parameters.values())


def state_arrays(problem: Problem | Surface, make_optimizer: Callable[[Rate], Any], lr: Rate = None) -> float:
    """How many numbers the optimizer keeps for each parameter, after two steps: 0 for plain SGD, 2 for Adam."""
    rule = make_optimizer(lr)
    loss = copy.deepcopy(problem.loss) if isinstance(problem, Problem) else None
    recorder = _Recorder(rule, np.empty(3), loss)
    with contextlib.suppress(ArithmeticError):
        _train(problem, recorder, 0)
    size = problem.net(0).parameter_count if isinstance(problem, Problem) else problem.start.size
    return _numbers_in(rule.state_dict()) / max(size, 1) if isinstance(rule, _optim.Optimizer) else math.nan


def _numbers_in(state: Any) -> int:
    if isinstance(state, np.ndarray):
        return state.size
    if isinstance(state, Mapping):
        return sum(map(_numbers_in, state.values()))
    return sum(map(_numbers_in, state)) if isinstance(state, (list, tuple)) else 0


# One optimizer -----------------------------------------------------------------------------------------------


def run_group(
    problem: Problem | Surface,
    make_optimizer: Callable[[Rate], Any],
    lrs: Sequence[Rate],
    seeds: Sequence[int],
    steps: int,
    target: float | None = None,
) -> tuple[Array, Array, Array]:
    """All rates and seeds of one optimizer: curves (R, S, steps + 1), status (R, S), seconds (R, S).

    A curve holds the loss before each step, and after the last: of all rows, or with batches of the batch that comes
    next, in the order that `net.train` would take them for that seed. It is the training loss, dropout and all, at
    the weights that the rule trains. NaN from where a loss or a gradient is not finite: the run ends there.
    """
    curves = np.full((len(lrs), len(seeds), steps + 1), math.nan)
    seconds = np.zeros(curves.shape[:2])
    with one_thread():
        if stacks(problem, make_optimizer, lrs):
            began = time.perf_counter()
            _train_stack(problem, make_optimizer, lrs, seeds, curves)  # type: ignore[arg-type]
            seconds[...] = (time.perf_counter() - began) / seconds.size
            return curves, endings(curves, target, problem.window), seconds
        for r, lr in enumerate(lrs):
            for s, seed in enumerate(seeds):
                began = time.perf_counter()
                loss = copy.deepcopy(problem.loss) if isinstance(problem, Problem) else None
                with contextlib.suppress(model.DivergenceError, FloatingPointError):
                    _train(problem, _Recorder(make_optimizer(lr), curves[r, s], loss), seed)
                seconds[r, s] = time.perf_counter() - began
    return curves, endings(curves, target, problem.window), seconds


def stacks(problem: Problem | Surface, make_optimizer: Callable[[Rate], Any], lrs: Sequence[Rate]) -> bool:
    """Whether all rates and seeds can be trained as one stack of nets; if not, one after the other."""
    if not isinstance(problem, Problem) or not getattr(problem.loss, "stackable", False):
        return False
    try:
        optimizer = make_optimizer(lrs[0] if lrs[0] is None else np.array(lrs, np.float64))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # it is made for one rate at a time
        return False
    return isinstance(optimizer, _optim.Optimizer) and optimizer.stackable and problem.net(0).stackable


def _train_stack(
    problem: Problem, make_optimizer: Callable[[Any], Any], lrs: Sequence[Rate], seeds: Sequence[int], curves: Array
) -> None:
    """All runs as one net: copy r S + s has rate r and seed s. A stack of many large nets is trained in parts."""
    nets = [problem.net(seed) for seed in seeds]
    at_once = max(1, _STACKED // (len(seeds) * nets[0].parameter_count))
    for first in range(0, len(lrs), at_once):
        part = lrs[first : first + at_once]
        whole = model.stack(nets * len(part))
        rate = None if part[0] is None else np.repeat(np.array(part, np.float64), len(seeds))
        noted = _StackCurves(curves[first : first + len(part)].reshape(len(whole.seeds), -1))
        history = whole.train(
            problem.x,
            problem.y,
            make_optimizer(rate),
            copy.deepcopy(problem.loss),
            epochs=1,
            batch_size=problem.batch_size,
            steps_per_epoch=curves.shape[-1],
            callbacks=noted,
            verbose=False,
        )
        if history.interrupted:
            raise KeyboardInterrupt


class _StackCurves:
    """A callback that writes down the loss of every copy before each step, until the copy stops."""

    def __init__(self, curves: Array) -> None:
        self.curves = curves
        self.going = np.ones(len(curves), bool)

    def step(self, run: Any) -> None:
        value = run.loss.value
        going = self.going & np.isfinite(value)
        self.curves[going, run.step - 1] = value[going]
        self.going = ~run.history.diverged


def _train(problem: Problem | Surface, recorder: _Recorder, seed: int) -> None:
    """One run. DivergenceError or FloatingPointError where it diverges."""
    if isinstance(problem, Surface):
        recorder.surface, recorder.seed = problem, seed
        _optim.minimize(recorder.value, problem.start_of(seed), recorder, len(recorder.curve))  # type: ignore[arg-type]
        return
    history = problem.net(seed).train(
        problem.x,
        problem.y,
        recorder,
        recorder.loss,
        epochs=1,
        batch_size=problem.batch_size,
        steps_per_epoch=len(recorder.curve),
        verbose=False,
    )
    if history.interrupted:
        raise KeyboardInterrupt


class _Recorder:
    """An optimizer that writes down the loss before each step, and leaves out the last: there the curve ends."""

    def __init__(self, optimizer: Any, curve: Array, loss: Any) -> None:
        self.optimizer = optimizer
        self.curve = curve
        self.loss = loss if loss is None or isinstance(loss, _loss.Loss) else _Noted(loss)
        self.place = 0
        self.surface: Any = None
        self.seed = 0
        self.fresh = False
        if hasattr(optimizer, "prepare"):
            self.prepare = optimizer.prepare

    def __call__(self, net: Any, loss: Any) -> None:
        last = self.place == len(self.curve) - 1
        if self.surface is not None:
            self._walk(net, last)
        else:
            self.curve[self.place] = loss.value
            if not last:
                self.optimizer(net, loss)
        self.place += 1

    def _walk(self, point: Any, last: bool) -> None:
        """A step on a surface. A rule may evaluate more than once: the first value is the one before the step."""
        self.fresh = True
        if last or not isinstance(self.optimizer, _optim.Optimizer):  # a function of one's own need not evaluate
            self.value(point.x)
        if not last:
            self.optimizer(point, point)

    def value(self, x: Array) -> tuple[Any, Array]:
        """Value and gradient of the surface, with the noise of this step."""
        value, gradient = self.surface(x, self.seed, self.place)
        if self.fresh:
            if not math.isfinite(value):
                raise FloatingPointError(f"the value is {value}.")
            self.curve[self.place] = value
            self.fresh = False
        return value, gradient


class _Noted:
    """A loss of one's own that remembers its value."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self.value = math.nan

    def __call__(self, pred: Array, real: Array) -> float:
        self.value = float(self.loss(pred, real))
        return self.value

    def backward(self) -> Array:
        return self.loss.backward()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """BLAS on one thread, where threadpoolctl is there to say so: on small nets more are slower."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1):
        yield


def _joblib() -> Any:
    try:
        import joblib
    except ImportError:
        raise ImportError('n_jobs needs a package: pip install "layerwise[compare]"') from None
    return joblib


def _run_missing(contest: _Contest, grid: Sequence[float], results: Results, n_jobs: int, bar: _Bar) -> None:
    """Run what is not among the results yet."""
    wanted = [(entrant, lr) for entrant in contest.entrants for lr in contest.rates(entrant, grid)]
    missing = [(entrant, lr) for entrant, lr in wanted if (entrant.name, lr) not in results]
    bar.show(len(wanted) - len(missing), len(wanted))
    # All rates of a rule at once where they stack; else one at a time, so that what is finished is soon in the file.
    groups: list[tuple[Entrant, list[Rate]]] = []
    for entrant, each in itertools.groupby(missing, operator.itemgetter(0)):
        lrs = [lr for _, lr in each]
        whole = stacks(contest.problem, entrant.make, lrs)
        groups += [(entrant, lrs)] if whole else [(entrant, [lr]) for lr in lrs]
    jobs = ((contest.problem, entrant, lrs, contest.seeds, contest.steps, contest.target) for entrant, lrs in groups)
    done: Any
    if n_jobs == 1:
        done = itertools.starmap(_run_job, jobs)
    else:
        joblib = _joblib()
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
        done = parallel(joblib.delayed(_run_job)(*job) for job in jobs)
    for name, lrs, (curves, _, seconds) in done:
        for place, lr in enumerate(lrs):
            results.add(name, lr, Runs(curves[place], seconds[place]))
        bar.show(bar.done + len(lrs), len(wanted), name)


def _run_job(problem: Any, entrant: Entrant, lrs: Sequence[Rate], *rest: Any) -> Any:
    return entrant.name, lrs, run_group(problem, entrant.make, lrs, *rest)


class _Bar:
    """One tqdm bar over the groups: an optimizer at a rate, all seeds."""

    def __init__(self, verbose: bool) -> None:
        self.done = 0
        self.bar: Any = None
        if verbose:
            from tqdm.auto import tqdm

            self.bar = tqdm(unit="rate", mininterval=0.1)

    def show(self, done: int, total: int, name: str = "") -> None:
        self.done = done
        if self.bar is not None:
            self.bar.total = total  # it grows with the grid
            self.bar.set_postfix_str(name, refresh=False)
            self.bar.update(done - self.bar.n)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


# One rate ----------------------------------------------------------------------------------------------------


class RateTest(NamedTuple):
    """What `find_lr` found: the rate, and losses[k], the loss after a step at lrs[k]."""

    lr: float
    lrs: Array
    losses: Array


def find_lr(
    net: model.Model,
    x: Any,
    y: Any,
    optim: Any = None,
    loss: Any = None,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
) -> RateTest:
    """A learning rate for this net, data, optimizer and loss, from one short training while the rate rises.

    The rate goes from low to high in equal ratios, a batch a step, until the loss is four times the lowest or not
    finite. The answer is a tenth of the rate at which the loss was lowest; both losses are medians of five. A rule of
    thumb, from one seed: `compare` asks thoroughly. Net, optimizer and loss stay as they are: copies are trained.
    Smith 2015 (1506.01186), section 3.3. ValueError where the loss falls at no rate; TypeError for an optimizer
    without `lr`.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"the rate rises from low to high, positive numbers, got {low!r} and {high!r}.")
    arguments.count("steps", steps, 5, "an integer of at least 5")
    twin = net.copy()
    rule = copy.deepcopy(optim) if optim is not None else twin.optim if twin.optim is not None else _optim.Adam()
    if not hasattr(rule, "lr"):
        raise TypeError(f"find_lr sets the learning rate of an optimizer, and {rule!r} has no lr.")
    if loss is None and twin.loss is None:
        targets = y if y is not None or isinstance(x, Iterator) else next(iter(x))[1]
        loss = checks.usual_loss(twin, None if targets is None else numbers("y", targets))
    loss = copy.deepcopy(loss) if loss is not None else twin.loss
    rates = np.geomspace(low, high, steps)
    rising = _Rising(rule, rates, loss)
    with contextlib.suppress(model.DivergenceError):
        twin.train(
            x, y, rising, rising.loss, epochs=1, batch_size=batch_size, steps_per_epoch=steps + 1, callbacks=rising,
            verbose=False,
        )  # fmt: skip
    losses = np.array(rising.losses[1:])
    smooth = [float(np.median(losses[max(0, place - 2) : place + 3])) for place in range(len(losses))]
    if not smooth or not min(smooth) < rising.losses[0]:
        raise ValueError(f"the loss fell at no rate between {low:g} and {high:g}: try others, or look at the data.")
    return RateTest(float(rates[int(np.argmin(smooth))]) / 10, rates[: len(losses)], losses)


class _Rising:
    """An optimizer whose rate rises from step to step, and a callback that ends the training when the loss does."""

    def __init__(self, rule: Any, rates: Array, loss: Any) -> None:
        self.rule = rule
        self.rates = rates.tolist()
        self.loss = loss if isinstance(loss, _loss.Loss) else _Noted(loss)
        self.losses: list[float] = []
        self.lowest = math.inf
        self.ended = False
        if hasattr(rule, "prepare"):
            self.prepare = rule.prepare

    def __call__(self, net: Any, loss: Any) -> None:
        place = len(self.losses)
        self.losses.append(loss.value)
        now = float(np.median(self.losses[-5:]))
        self.lowest = min(self.lowest, now)
        self.ended = now > 4 * self.lowest or place == len(self.rates)
        if not self.ended:
            self.rule.lr = self.rates[place]
            self.rule(net, loss)

    def step(self, run: Any) -> bool:
        return self.ended


__all__ = [
    "Comparison", "Profile", "RateTest", "compare", "find_lr", "log_grid", "profile", "rule_named", "run_group",
]  # fmt: skip
