"""Optimizers: callables `optim(net, loss)` that run backpropagation and apply an update rule to every parameter.

In this file, in this order:
  the base               Optimizer, minimize
  plain descent          SGD, Momentum, SignSGD, Signum, Rprop, ASGD
  scaled by the past     RMSProp, Adagrad, Adadelta
  Adam and its family    Adam, AdamW, Adamax, NAdam, RAdam, AdaBelief, Yogi, Lion
  by parameter           LAMB, LARS, Adafactor, Muon
  no schedule, no rate   ScheduleFreeSGD, ScheduleFreeAdamW, DoG, Prodigy, PolyakSGD
  second order           LBFGS, in layerwise/second_order.py
  around any of them     the base Wrapper, and Clip, Accumulate, Average, Lookahead, SAM, PerLayer

One rule is one small class. Its docstring gives the formula and the reference that it equals; the same name
means different things in different frameworks. Letters: w parameter, g gradient, t step, from 1. Unless a
docstring says otherwise, every state array starts at 0, and weight decay is coupled: it adds weight_decay w to g
before anything else. Decoupled decay multiplies w by 1 - lr weight_decay before the update.
"""

# mypy: disable-error-code="override"
# (each rule names the state and the numbers that it takes)

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

import numpy as np

from layerwise.core import lazy
from layerwise.core.blocks import (
    BLOCK,
    FLUSH,
    Block,
    Numbers,
    copy_all,
    coupled,
    decoupled,
    flush,
    in_threads,
    refuse_overflow,
    run,
    split,
    sum_of_squares,
    watch,
    whole_segments,
    with_decay,
)
from layerwise.core.hyper import NOT_NEGATIVE, USUAL, Hyper, Hyperparameters, not_initialised
from layerwise.core.layout import (
    ArraysAdapter,
    FunctionAdapter,
    Layout,
    ListAdapter,
    Parameter,
    ParameterGroup,
    assign,
    join,
    refuse_another,
    value_of,
)
from layerwise.core.state import (
    Stateful,
    all_or_nothing,
    describe,
    evaluation_weights,
    load_state,
    put_back,
    show_evaluation_weights,
    show_training_weights,
    take_snapshot,
)

if TYPE_CHECKING:  # for type checkers and editors alone: when it runs, __getattr__ below finds it
    from layerwise.second_order import LBFGS as LBFGS


def __getattr__(name: str) -> Any:
    return lazy.find("optim", name, __all__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


Array = np.ndarray


# The base ----------------------------------------------------------------------------------------------------


@dataclass_transform()
class Optimizer(Hyperparameters, Stateful):
    """The base of every rule: backpropagation, one step of every parameter, the state and the step count.

    A rule names its state arrays in `state` and writes `rule(w, g, *state, **numbers)`, which changes w and the
    state in place, never g, and returns nothing. It is elementwise and runs on blocks of the net's one vector; with
    `whole_parameters` it gets each parameter in its own shape. `numbers(t, **hyper)` turns the hyper-parameters
    of step t into what the rule takes. Any hyper-parameter is a number or a schedule: a callable of the number
    of steps taken so far, 0 at the first. `scalars` are numbers that are remembered from step to step.

    ValueError for a hyper-parameter outside its range, set, given or scheduled, before anything moves. TypeError for a
    rule that returns something; a warning, once, for one that leaves the weights as they are in two steps.
    """

    state: tuple[str, ...] = ()  # the names of the arrays that are kept for each parameter
    scalars: dict[str, float] = {}  # noqa: RUF012 (copied for each instance): name -> initial value
    decay_is = "coupled"  # or "decoupled"; or "own": the rule itself takes weight_decay
    whole_parameters = False
    exact_gradient = False  # needs the gradient of the loss as it is: no wrapper may change it
    as_arrays = False  # its numbers become 0-d arrays. It computes nothing from these alone: float32 would round that
    # Evaluates the net and the loss, or the function, more than once a step. It does so by `net.reevaluate(loss)`: the
    # method does what this flag announces, and `train` keeps for it what the batch needs to be evaluated again.
    reevaluate = False
    full_batch = False  # needs all rows in each step: what it learns of one batch is not true of the next
    outermost = False  # goes around all other wrappers

    def __init__(self, *values: Any, **named: Any) -> None:
        hyper = self._bound(values, named)
        self._forget()
        self._set_all(hyper)
        self.__post_init__()

    # What a rule writes.

    def numbers(self, t: int, **hyper: Any) -> dict[str, Any]:
        """The numbers that `rule` takes at step t, from the hyper-parameters of that step."""
        return hyper

    if TYPE_CHECKING:
        rule: Any  # a rule takes its own state and numbers

    else:

        @staticmethod
        def rule(w: Array, g: Array, *state: Array, **numbers: Any) -> None:
            raise TypeError("a rule is rule(w, g, *state, **numbers), changing w and the state in place: write it.")

    def survey(self, blocks: Callable[[], Iterable[Block]], numbers: dict[str, Any]) -> dict[str, Any]:
        """The numbers, if they depend on all parameters and gradients at once; `blocks()` goes over these."""
        return numbers

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the state of a parameter of that shape."""
        return dict.fromkeys(self.state, shape)

    def start(self, w: Array, **state: Array) -> None:
        """Initialise the state of w, if it does not start at 0."""

    def evaluation(self, w: Array, **state: Array) -> Array | None:
        """The weights to evaluate with; None if they are the training weights w."""
        return None

    # What its user calls.

    def __call__(self, net: Any, loss: Any) -> None:
        """Backpropagation from `loss` through `net`, then one step of every parameter that is not frozen."""
        self.backward(net, loss)
        self.update(net)

    def backward(self, net: Any, loss: Any) -> None:
        """All gradients of the net, from the last layer to the first."""
        net.backpropagate(loss)

    def update(self, net: Any) -> None:
        """One step from the gradients that are there. FloatingPointError, and nothing moves, if they or their
        squares are not finite; ValueError if this optimizer serves another net."""
        if net.training:  # `train` keeps NumPy's overflow warnings away already
            self._update(net)
        else:
            with np.errstate(all="ignore"):
                self._update(net)

    def prepare(self, net: Any) -> None:
        """`train` calls this when every layer is built, before the first forward pass. Before a loop of one's
        own it is called by hand. If the net shows the evaluation weights, the training weights are put back."""
        self._build(net)
        show_training_weights(self, net)

    def finish(self, net: Any) -> None:
        """Called at the end of a training: the net shows the evaluation weights from here on."""
        self._build(net)
        show_evaluation_weights(self, net)

    def evaluation_weights(self, net: Any) -> contextlib.AbstractContextManager[None]:
        """`with optim.evaluation_weights(net):` shows the evaluation weights within the context."""
        return evaluation_weights(self, net)

    def step(self, parameters: Sequence[Array] | None = None, gradients: Sequence[Any] | None = None) -> None:
        """One step of a list of arrays, in place, without a net; the state is kept by place in the list.

        ValueError for lists of different length, other shapes than before, or a gradient of another shape;
        TypeError for a bare array, for parameters that can't be changed in place, and for a rule that evaluates again.
        """
        adapter = self._step_cache = ListAdapter.of(self, parameters, gradients)
        self.update(adapter)
        adapter.write()

    @property
    def updates(self) -> int:
        """How often the parameters were updated."""
        return self.t

    def reset(self) -> None:
        """Forget the state, the step count and the net."""
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: the step count, the hyper-parameters that are numbers, and the state."""
        return describe(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot; schedules stay as they are. ValueError, and nothing changes, if it does not fit."""
        load_state(self, state)

    def snapshot(self, into: Any = None) -> Any:
        """The state of this moment, to `restore`; written over an earlier snapshot where one is given."""
        return take_snapshot(self, into)

    def restore(self, snapshot: Any) -> None:
        """Back to the state of a snapshot of this instance."""
        put_back(self, snapshot)

    def config(self) -> dict[str, Any]:
        """The arguments that make such an optimizer."""
        return dict(self.hyper)

    # From the net to the rule.

    def check(self, net: Any) -> None:
        """ValueError if this optimizer serves something else than this net."""
        self._check_initialised()
        self._check_copies(getattr(net, "copies", None))
        refuse_another(self, net)

    def _build(self, net: Any) -> None:
        """Make the state for this net, and the blocks of its vectors that the rule runs over."""
        self.check(net)
        layout = net.layout
        if layout is self._layout:
            return
        self._numbers = Numbers(layout, self.as_arrays)
        self._init_state(layout.arrays(self.whole_parameters))
        self._blocks = self._split(layout)
        self._gradients = layout.gradients
        self._model, self._layout = net.kind if isinstance(net, ArraysAdapter) else net, layout
        watch(self, Optimizer)

    def _split(self, layout: Layout) -> list[Block]:
        """(w, g, *state) of all trainable parameters: each in its shape, or blocks of the segments."""
        self._parallel_for = None if self.whole_parameters else in_threads(layout)
        return split(layout, self._state, self.whole_parameters)

    def _update(self, net: Any) -> None:
        if net.layout is not self._layout or net is not self._model:
            self._build(net)
        refuse_overflow(self._gradients)
        self._apply(net)

    def _apply(self, net: Any) -> None:
        """One step of every block."""
        hyper, rule, blocks = self._current(), self.rule, self._blocks
        decay = 0 if self.decay_is == "own" else hyper.pop("weight_decay", 0)
        t, added = self.t + 1, None
        # A rule without `numbers` of its own is not asked: the call alone would take as long as three array operations.
        numbers = hyper if type(self).numbers is Optimizer.numbers else self.numbers(t, **hyper)
        if self._numbers.changes:
            numbers = self._numbers(numbers)
        self.__dict__["t"] = t  # not through __setattr__, which looks for a hyper-parameter
        if isinstance(decay, np.ndarray) or decay != 0:
            if self.decay_is == "decoupled":
                rule = decoupled(rule, self._numbers.per_copy(1 - hyper["lr"] * decay))
            else:
                added = self._numbers.per_copy(decay)
                rule = coupled(rule, added)
        if type(self).survey is not Optimizer.survey:
            numbers = self.survey(lambda: blocks if added is None else with_decay(blocks, added), numbers)
        run(rule, blocks, numbers, self._parallel_for)
        if t % FLUSH == 0:
            flush(blocks)

    def _needs_value(self) -> bool:
        return self.reevaluate or self.exact_gradient


def minimize(function: Callable[[Array], tuple[Any, Any]], x0: Any, optimizer: Optimizer, steps: int) -> Array:
    """Follow `function(x) -> (value, gradient)` from x0 for `steps` steps; the path, (steps + 1, *x0.shape).

    x0 itself comes first and is left as it is; a float array keeps its dtype, all else becomes float64. The function
    gets a copy of x, which it may keep or write into. An optimizer that has taken steps goes on with the state that it
    has: reset() it to begin anew.
    FloatingPointError for a gradient that is not finite; TypeError for a function that returns something else.
    """
    return FunctionAdapter(function, x0).path(optimizer, steps)


# Plain descent -----------------------------------------------------------------------------------------------


class SGD(Optimizer):
    """Down the gradient, with a memory of the way so far.

        b <- momentum b + (1 - dampening) g        at the first step b <- g
        w <- w - lr b                              nesterov: w - lr (g + momentum b)

    Polyak 1964; nesterov: Nesterov 1983 in the form of Sutskever 2013. Equals torch.optim.SGD; without momentum
    there is no state, and neither dampening nor nesterov does anything.
    """

    lr: Hyper = 0.01
    momentum: Hyper = 0.0
    dampening: Hyper = 0.0
    nesterov: bool = False
    weight_decay: Hyper = 0.0

    structural = ("momentum",)

    def __post_init__(self) -> None:
        self.state = ("b",) if self.uses("momentum") else ()

    def numbers(self, t: int, momentum: float, dampening: float, **rest: Any) -> dict[str, Any]:
        # A copy without momentum is not dampened either, in a stack where other copies have momentum.
        return dict(rest, momentum=momentum, dampening=dampening * (momentum != 0) if t > 1 else 0)

    @staticmethod
    def rule(
        w: Array, g: Array, b: Any = None, *, lr: float, momentum: float, dampening: float, nesterov: bool
    ) -> None:
        if b is not None:
            b *= momentum
            b += (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        w -= lr * g


class Momentum(Optimizer):
    """A velocity that the gradient pushes; the learning rate is inside it.

        v <- beta v + lr g
        w <- w - v                  nesterov: w - (beta v + lr g)

    Polyak 1964; nesterov: Sutskever 2013. Equals keras.optimizers.SGD(momentum=beta); differs from
    SGD(momentum=beta) only when lr changes.
    """

    lr: Hyper = 0.01
    beta: Hyper = 0.9
    nesterov: bool = False
    weight_decay: Hyper = 0.0

    state = ("v",)

    @staticmethod
    def rule(w: Array, g: Array, v: Array, *, lr: float, beta: float, nesterov: bool) -> None:
        push = lr * g
        v *= beta
        v += push
        w -= beta * v + push if nesterov else v


class SignSGD(Optimizer):
    """A step of one size for every parameter: w <- w - lr sign(g), sign(0) = 0.

    Bernstein et al. 2018 (1802.04434), algorithm 1. Equals optax.sign_sgd.
    """

    lr: Hyper = 0.001

    @staticmethod
    def rule(w: Array, g: Array, *, lr: float) -> None:
        w -= lr * np.sign(g)


class Signum(Optimizer):
    """SignSGD of the mean gradient.

        m <- beta m + (1 - beta) g
        w <- w - lr sign(m)

    Bernstein et al. 2018 (1802.04434), algorithm 2. Equals optax's ema, scale_by_sign and learning rate chained.
    """

    lr: Hyper = 0.001
    beta: Hyper = 0.9

    state = ("m",)

    @staticmethod
    def rule(w: Array, g: Array, m: Array, *, lr: float, beta: float) -> None:
        m *= beta
        m += (1 - beta) * g
        w -= lr * np.sign(m)


class Rprop(Optimizer):
    """A step size of its own for every parameter, by the sign of its gradient alone. For full batches.

        s <- eta_plus s where g keeps its sign, eta_minus s where it changes, within [step_min, step_max]
        w <- w - sign(g) s, but stay, and forget g, where the sign changed

    s starts at lr. Riedmiller and Braun 1993, without stepping back. Equals torch.optim.Rprop.
    """

    lr: Hyper = 0.01
    eta_minus: Hyper = 0.5
    eta_plus: Hyper = 1.2
    step_min: Hyper = 1e-6
    step_max: Hyper = 50.0

    state = ("last", "s")

    def start(self, w: Array, last: Array, s: Array) -> None:
        s[...] = self._numbers.per_copy(self.lr)

    @staticmethod
    def rule(
        w: Array, g: Array, last: Array, s: Array, *, lr: float, eta_minus: float, eta_plus: float, step_min: float,
        step_max: float,
    ) -> None:  # fmt: skip
        turn = np.sign(g) * np.sign(last)  # not sign(g last), which is 0 where the product underflows
        s *= np.where(turn > 0, eta_plus, np.where(turn < 0, eta_minus, 1.0))
        np.clip(s, step_min, step_max, out=s)
        np.multiply(g, turn >= 0, out=last)
        w -= np.sign(last) * s


class ASGD(Optimizer):
    """Plain descent whose mean weights are the result: `evaluation_weights` shows a.

        w <- (1 - lambd eta) w - eta g           eta = lr / (1 + lambd lr (t - 1))^alpha
        a <- a + (w - a) / max(1, t - 1 - t0)

    Polyak and Juditsky 1992, in the form of Bottou. Equals torch.optim.ASGD; that one takes the lr of the
    step before, when lr changes.
    """

    lr: Hyper = 0.01
    lambd: Hyper = 1e-4
    alpha: Hyper = 0.75
    t0: Hyper = 1e6
    weight_decay: Hyper = 0.0

    state = ("a",)
    ranges = {"alpha": NOT_NEGATIVE}  # noqa: RUF012

    def start(self, w: Array, a: Array) -> None:
        a[...] = w  # for a layer that is thawed late: the first step copies the others

    def numbers(self, t: int, lr: float, lambd: float, alpha: float, t0: float) -> dict[str, Any]:
        eta = lr / (1 + lambd * lr * (t - 1)) ** alpha
        count = np.maximum(1, t - 1 - t0) if isinstance(t0, np.ndarray) else max(1, t - 1 - t0)
        return {"eta": eta, "shrink": 1 - lambd * eta, "share": 1 / count}

    @staticmethod
    def rule(w: Array, g: Array, a: Array, *, eta: float, shrink: float, share: float) -> None:
        w *= shrink
        w -= eta * g
        a += share * (w - a)

    def evaluation(self, w: Array, a: Array) -> Array:
        return a


# Scaled by the past ------------------------------------------------------------------------------------------


class RMSProp(Optimizer):
    """The gradient over the root of its mean square.

        v <- beta v + (1 - beta) g^2
        w <- w - lr g / sqrt(v + epsilon)          epsilon_inside=False: / (sqrt(v) + epsilon)

    centered: a <- beta a + (1 - beta) g, and v - a^2, never below 0, in place of v. momentum: b <- momentum b plus
    the quotient, w <- w - lr b (Keras and optax.rmsprop put lr inside b). Tieleman and Hinton 2012; centered: Graves
    2013 (1308.0850). Equals optax.rmsprop and Keras; epsilon_inside=False equals torch.optim.RMSprop.
    """

    lr: Hyper = 0.01
    beta: Hyper = 0.9
    epsilon: Hyper = 1e-10
    weight_decay: Hyper = 0.0
    epsilon_inside: bool = True
    momentum: Hyper = 0.0
    centered: bool = False

    structural = ("momentum", "centered")

    def __post_init__(self) -> None:
        self.state = ("v", *("a",) * self.uses("centered"), *("b",) * self.uses("momentum"))

    @staticmethod
    def rule(
        w: Array, g: Array, v: Array, *more: Array, lr: float, beta: float, epsilon: float, epsilon_inside: bool,
        momentum: float, centered: bool,
    ) -> None:  # fmt: skip
        v += (1 - beta) * (g * g - v)
        variance = v
        if centered:
            a = more[0]
            a += (1 - beta) * (g - a)
            variance = np.maximum(v - a * a, 0)
        step = g / np.sqrt(variance + epsilon) if epsilon_inside else g / (np.sqrt(variance) + epsilon)
        if len(more) > centered:
            b = more[-1]
            b *= momentum
            b += step
            step = b
        w -= lr * step


class Adagrad(Optimizer):
    """Shrink each coordinate's step by the root of all its squared gradients so far.

        s <- s + g^2                                                  s starts at initial_accumulator
        w <- w - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + epsilon)

    Duchi, Hazan and Singer 2011, JMLR 12. Equals torch.optim.Adagrad.
    """

    lr: Hyper = 0.01
    epsilon: Hyper = 1e-10
    weight_decay: Hyper = 0.0
    lr_decay: Hyper = 0.0
    initial_accumulator: Hyper = 0.0

    state = ("s",)

    def start(self, w: Array, s: Array) -> None:
        s[...] = self._numbers.per_copy(self.initial_accumulator)

    def numbers(self, t: int, lr: float, epsilon: float, lr_decay: float, initial_accumulator: float) -> dict[str, Any]:
        return {"lr": lr / (1 + (t - 1) * lr_decay), "epsilon": epsilon}

    @staticmethod
    def rule(w: Array, g: Array, s: Array, *, lr: float, epsilon: float) -> None:
        s += g * g
        w -= lr * g / (np.sqrt(s) + epsilon)


class Adadelta(Optimizer):
    """The gradient in units of the steps taken so far.

        v <- rho v + (1 - rho) g^2
        d = sqrt(u + epsilon) / sqrt(v + epsilon) g
        u <- rho u + (1 - rho) d^2
        w <- w - lr d

    Zeiler 2012 (1212.5701), algorithm 1, lr = 1. Equals torch.optim.Adadelta.
    """

    lr: Hyper = 1.0
    rho: Hyper = 0.9
    epsilon: Hyper = 1e-6
    weight_decay: Hyper = 0.0

    state = ("v", "u")

    @staticmethod
    def rule(w: Array, g: Array, v: Array, u: Array, *, lr: float, rho: float, epsilon: float) -> None:
        v += (1 - rho) * (g * g - v)
        d = np.sqrt(u + epsilon) / np.sqrt(v + epsilon) * g
        u += (1 - rho) * (d * d - u)
        w -= lr * d


# Adam and its family -----------------------------------------------------------------------------------------


class Adam(Optimizer):
    """The mean of the gradient over the root of its mean square, both corrected for starting at 0.

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    amsgrad: the largest v so far in place of v. Kingma and Ba 2015 (1412.6980), algorithm 1. As at the end of its
    section 2, both corrections are moved: w <- w - alpha_t m / (sqrt(v) + epsilon_hat), with
    alpha_t = lr sqrt(1 - beta2^t) / (1 - beta1^t) and epsilon_hat = epsilon sqrt(1 - beta2^t). AMSGrad: Reddi 2018.
    Equals torch.optim.Adam, and optax.adam, whose eps_root is one more epsilon, inside the root. Keras's epsilon is
    epsilon_hat.
    """

    lr: Hyper = 0.01
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-8
    weight_decay: Hyper = 0.0
    amsgrad: bool = False

    state: tuple[str, ...] = ("m", "v")
    structural = ("amsgrad",)
    as_arrays = True

    def __post_init__(self) -> None:
        if self.amsgrad:
            self.state = ("m", "v", "largest")

    def numbers(self, t: int, lr: float, beta1: float, beta2: float, epsilon: float, amsgrad: bool) -> dict[str, Any]:
        root = (1 - beta2**t) ** 0.5
        return {
            "alpha_t": lr * root / (1 - beta1**t), "epsilon_hat": epsilon * root,
            "beta1": beta1, "one_minus_beta1": 1 - beta1, "beta2": beta2, "one_minus_beta2": 1 - beta2,
        }  # fmt: skip

    @staticmethod
    def rule(
        w: Array, g: Array, m: Array, v: Array, largest: Any = None, *, alpha_t: float, epsilon_hat: float,
        beta1: float, one_minus_beta1: float, beta2: float, one_minus_beta2: float,
    ) -> None:  # fmt: skip
        m *= beta1
        m += one_minus_beta1 * g
        v *= beta2
        v += one_minus_beta2 * (g * g)
        if largest is not None:
            v = np.maximum(largest, v, out=largest)
        w -= alpha_t * (m / (np.sqrt(v) + epsilon_hat))


class AdamW(Adam):
    """Adam with decoupled weight decay: w <- (1 - lr weight_decay) w, then Adam's step, which never sees it.

    Loshchilov and Hutter 2017 (1711.05101), algorithm 2. Equals torch.optim.AdamW.
    """

    lr: Hyper = 0.001
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-8
    weight_decay: Hyper = 0.01
    amsgrad: bool = False

    decay_is = "decoupled"


class Adamax(Optimizer):
    """Adam with the largest gradient, fading, in place of the mean square.

        m <- beta1 m + (1 - beta1) g
        u <- max(beta2 u, |g| + epsilon)
        w <- w - lr / (1 - beta1^t) m / u

    Kingma and Ba 2014 (1412.6980), algorithm 2. Equals torch.optim.Adamax.
    """

    lr: Hyper = 0.002
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-8
    weight_decay: Hyper = 0.0

    state = ("m", "u")

    def numbers(self, t: int, lr: float, beta1: float, **rest: Any) -> dict[str, Any]:
        return dict(rest, lr=lr / (1 - beta1**t), beta1=beta1)

    @staticmethod
    def rule(w: Array, g: Array, m: Array, u: Array, *, lr: float, beta1: float, beta2: float, epsilon: float) -> None:
        m += (1 - beta1) * (g - m)
        u *= beta2
        np.maximum(u, np.abs(g) + epsilon, out=u)
        # With epsilon 0 and no gradient yet, m and u are both 0: such a parameter stays.
        by_copy = isinstance(epsilon, np.ndarray)
        w -= lr * np.divide(m, u, out=np.zeros_like(m), where=u > 0) if by_copy or epsilon == 0 else lr * m / u


class NAdam(Optimizer):
    """Adam with Nesterov's look ahead, by a momentum that grows: mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2).

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        d = (1 - mu_t) g / (1 - mu_1...mu_t) + mu_{t+1} m / (1 - mu_1...mu_{t+1})
        w <- w - lr d / (sqrt(v / (1 - beta2^t)) + epsilon)

    Dozat 2016. Equals torch.optim.NAdam; momentum_decay=1 equals Keras.
    """

    lr: Hyper = 0.002
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-8
    weight_decay: Hyper = 0.0
    momentum_decay: Hyper = 0.004

    state = ("m", "v")
    scalars = {"product": 1.0}  # noqa: RUF012

    def numbers(
        self, t: int, lr: float, beta1: float, beta2: float, epsilon: float, momentum_decay: float
    ) -> dict[str, Any]:
        mu, following = (beta1 * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
        product = self.scalars["product"] = self.scalars["product"] * mu
        return {
            "beta1": beta1, "beta2": beta2, "epsilon": epsilon, "c2": 1 - beta2**t,
            "now": lr * (1 - mu) / (1 - product), "ahead": lr * following / (1 - product * following),
        }  # fmt: skip

    @staticmethod
    def rule(
        w: Array, g: Array, m: Array, v: Array, *, now: float, ahead: float, beta1: float, beta2: float,
        epsilon: float, c2: float,
    ) -> None:  # fmt: skip
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        w -= (now * g + ahead * m) / (np.sqrt(v / c2) + epsilon)


class RAdam(Optimizer):
    """Adam that goes without v until v's variance is known to be finite, and is rectified from then on.

        rho = rho_inf - 2 t beta2^t / (1 - beta2^t), rho_inf = 2 / (1 - beta2) - 1
        rho > 5:  w <- w - lr r m / (1 - beta1^t) sqrt(1 - beta2^t) / (sqrt(v) + epsilon)
                  r^2 = (rho - 4)(rho - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho)
        else:     w <- w - lr m / (1 - beta1^t)

    m and v as Adam's. Liu et al. 2019 (1908.03265), algorithm 2, whose threshold is 4. Equals torch.optim.RAdam;
    with beta2 <= 2/3 it is never rectified.
    """

    lr: Hyper = 0.001
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-8
    weight_decay: Hyper = 0.0

    state = ("m", "v")

    def numbers(self, t: int, lr: float, beta1: float, beta2: float, epsilon: float) -> dict[str, Any]:
        if isinstance(beta2, np.ndarray):
            r, rectified = map(np.array, zip(*(self.rectification(t, each) for each in beta2.tolist()), strict=True))
        else:
            r, rectified = self.rectification(t, beta2)
        return {
            "lr": lr / (1 - beta1**t) * r, "beta1": beta1, "beta2": beta2, "epsilon": epsilon, "rectified": rectified,
        }  # fmt: skip

    @staticmethod
    def rectification(t: int, beta2: float) -> tuple[float, bool]:
        """r sqrt(1 - beta2^t), and whether step t is rectified; 1 where it is not."""
        c2, rho_inf = 1 - beta2**t, 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / c2
        if rho > 5:
            return ((rho - 4) * (rho - 2) * rho_inf * c2 / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5, True
        return 1.0, False

    @staticmethod
    def rule(
        w: Array, g: Array, m: Array, v: Array, *, lr: float, beta1: float, beta2: float, epsilon: float,
        rectified: bool,
    ) -> None:  # fmt: skip
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        if isinstance(rectified, np.ndarray):  # of each copy
            w -= lr * m / np.where(rectified, np.sqrt(v) + epsilon, 1)
        else:
            w -= lr * m / (np.sqrt(v) + epsilon) if rectified else lr * m


class AdaBelief(Optimizer):
    """Adam whose v is the mean square of what the mean did not foresee.

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) (g - m)^2 + epsilon_root
        w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Zhuang et al. 2020 (2010.07468), algorithm 2. Equals optax.adabelief.
    """

    lr: Hyper = 0.001
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-16
    weight_decay: Hyper = 0.0
    epsilon_root: Hyper = 1e-16

    state = ("m", "v")

    def numbers(self, t: int, lr: float, beta1: float, beta2: float, **rest: Any) -> dict[str, Any]:
        return dict(rest, lr=lr / (1 - beta1**t), beta1=beta1, beta2=beta2, c2=1 - beta2**t)

    @staticmethod
    def rule(
        w: Array, g: Array, m: Array, v: Array, *, lr: float, beta1: float, beta2: float, epsilon: float,
        epsilon_root: float, c2: float,
    ) -> None:  # fmt: skip
        m += (1 - beta1) * (g - m)
        surprise = g - m
        v += (1 - beta2) * (surprise * surprise - v)
        v += epsilon_root
        w -= lr * m / (np.sqrt(v / c2) + epsilon)


class Yogi(Optimizer):
    """Adam whose v moves by steps of the size of g^2, whatever its own size.

        m <- beta1 m + (1 - beta1) g
        v <- v - (1 - beta2) sign(v - g^2) g^2
        w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    m and v start at initial_accumulator, so that w creeps even without a gradient. Zaheer et al. 2018, algorithm 2.
    Equals optax.yogi.
    """

    lr: Hyper = 0.01
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-3
    weight_decay: Hyper = 0.0
    initial_accumulator: Hyper = 1e-6

    state = ("m", "v")

    def start(self, w: Array, m: Array, v: Array) -> None:
        m[...] = v[...] = self._numbers.per_copy(self.initial_accumulator)

    def numbers(
        self, t: int, lr: float, beta1: float, beta2: float, epsilon: float, initial_accumulator: float
    ) -> dict[str, Any]:
        return {"lr": lr / (1 - beta1**t), "beta1": beta1, "beta2": beta2, "epsilon": epsilon, "c2": 1 - beta2**t}

    @staticmethod
    def rule(
        w: Array, g: Array, m: Array, v: Array, *, lr: float, beta1: float, beta2: float, epsilon: float, c2: float
    ) -> None:
        m += (1 - beta1) * (g - m)
        square = g * g
        v -= (1 - beta2) * np.sign(v - square) * square
        w -= lr * m / (np.sqrt(v / c2) + epsilon)


class Lion(Optimizer):
    """The sign of a mean gradient, the latest one weighing more in the step than in the memory.

        w <- w - lr sign(beta1 m + (1 - beta1) g)
        m <- beta2 m + (1 - beta2) g

    Decoupled decay. Chen et al. 2023 (2302.06675), program 1. Equals optax.lion.
    """

    lr: Hyper = 0.0001
    beta1: Hyper = 0.9
    beta2: Hyper = 0.99
    weight_decay: Hyper = 0.001

    state = ("m",)
    decay_is = "decoupled"

    @staticmethod
    def rule(w: Array, g: Array, m: Array, *, lr: float, beta1: float, beta2: float) -> None:
        w -= lr * np.sign(beta1 * m + (1 - beta1) * g)
        m *= beta2
        m += (1 - beta2) * g


# By parameter: these take whole parameters in their own shape -----------------------------------------------


def _trust(w: Array, u: Array, coefficient: float = 1.0, epsilon: float = 0.0) -> float:
    """coefficient |w| / (|u| + epsilon); 1 where either norm is 0."""
    above, below = math.sqrt(sum_of_squares([w])), math.sqrt(sum_of_squares([u]))
    return coefficient * above / (below + epsilon) if above and below else 1.0


class LAMB(Optimizer):
    """Adam's direction u, scaled for each parameter to the length of the parameter.

        u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay w
        w <- w - lr |w| / |u| u                     1 in place of the ratio where either norm is 0

    m and v as Adam's. You et al. 2019 (1904.00962), algorithm 2. Equals optax.lamb.
    """

    lr: Hyper = 0.001
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-6
    weight_decay: Hyper = 0.0

    state = ("m", "v")
    whole_parameters = True
    stackable = False
    decay_is = "own"

    def numbers(self, t: int, beta1: float, beta2: float, **rest: Any) -> dict[str, Any]:
        return dict(rest, beta1=beta1, beta2=beta2, c1=1 - beta1**t, c2=1 - beta2**t)

    @staticmethod
    def rule(
        w: Array, g: Array, m: Array, v: Array, *, lr: float, beta1: float, beta2: float, epsilon: float,
        weight_decay: float, c1: float, c2: float,
    ) -> None:  # fmt: skip
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        u = m / c1 / (np.sqrt(v / c2) + epsilon) + weight_decay * w
        w -= lr * _trust(w, u) * u


class LARS(Optimizer):
    """Momentum whose learning rate is scaled for each parameter.

        u = lr trust_coefficient |w| / (|g| + epsilon) g      1 in place of the ratio where either norm is 0
        v <- momentum v + u
        w <- w - v                                            nesterov: w - (u + momentum v)

    The decay counts in |g|. You, Gitman and Ginsburg 2017 (1708.03888), algorithm 1. Equals optax.lars.
    """

    lr: Hyper = 0.1
    momentum: Hyper = 0.9
    weight_decay: Hyper = 0.0
    trust_coefficient: Hyper = 0.001
    epsilon: Hyper = 0.0
    nesterov: bool = False

    state = ("v",)
    whole_parameters = True
    stackable = False

    @staticmethod
    def rule(
        w: Array, g: Array, v: Array, *, lr: float, momentum: float, trust_coefficient: float, epsilon: float,
        nesterov: bool,
    ) -> None:  # fmt: skip
        u = lr * _trust(w, g, trust_coefficient, epsilon) * g
        v *= momentum
        v += u
        w -= u + momentum * v if nesterov else v


class Adafactor(Optimizer):
    """Adam's v of a matrix from the means of its rows and of its columns; no mean gradient.

        row <- row + t^beta2_decay (mean of g^2 over columns - row), column likewise over rows
        v = row column / mean(row);  of a vector v is kept whole
        u = g / sqrt(max(v, epsilon1^2)), made shorter if its root mean square is above clip_threshold
        w <- w - max(epsilon2, rms(w)) min(lr, 1 / sqrt(t)) u

    Factored over the last two axes. epsilon1=None: the machine epsilon of the dtype. Decoupled decay, by lr itself.
    Shazeer and Stern 2018 (1804.04235), algorithm 4. Equals torch.optim.Adafactor.
    """

    lr: Hyper = 0.01
    beta2_decay: Hyper = -0.8
    epsilon1: Hyper = None
    epsilon2: Hyper = 1e-3
    clip_threshold: Hyper = 1.0
    weight_decay: Hyper = 0.0

    state = ("row", "column", "v")
    whole_parameters = True
    stackable = False
    decay_is = "own"

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        if len(shape) < 2:
            return {"v": shape}
        return {"row": (*shape[:-1], 1), "column": (*shape[:-2], 1, shape[-1])}

    def numbers(self, t: int, beta2_decay: float, lr: float, **rest: Any) -> dict[str, Any]:
        return dict(rest, lr=lr, rate=min(lr, t**-0.5), new=float(t) ** beta2_decay)

    @staticmethod
    def rule(
        w: Array, g: Array, *state: Array, lr: float, rate: float, new: float, epsilon1: Any, epsilon2: float,
        clip_threshold: float, weight_decay: float,
    ) -> None:  # fmt: skip
        epsilon1 = float(np.finfo(w.dtype).eps) if epsilon1 is None else epsilon1
        rate *= max(epsilon2, math.sqrt(sum_of_squares([w]) / w.size))  # before the decay
        w *= 1 - lr * weight_decay
        square = g * g
        if len(state) == 2:
            row, column = state
            row += new * (square.mean(-1, keepdims=True) - row)
            column += new * (square.mean(-2, keepdims=True) - column)
            # Divided first: row times column may be beyond float32.
            v = row / np.maximum(row.mean(-2, keepdims=True), epsilon1) * column
        else:
            (v,) = state
            v += new * (square - v)
        u = g / np.sqrt(np.maximum(v, epsilon1 * epsilon1))
        w -= rate / max(1.0, math.sqrt(sum_of_squares([u]) / u.size) / clip_threshold) * u


class Muon(Optimizer):
    """Momentum whose matrix is replaced by the nearest one with singular values of about 1.

        m <- beta m + (1 - beta) g
        u = beta m / (1 - beta^(t+1)) + (1 - beta) g / (1 - beta^t)        not nesterov: m / (1 - beta^t)
        w <- w - lr sqrt(max(1, columns / rows)) orthogonal(u)             for w of (rows, columns) = (in, out)

    orthogonal: `steps` Newton-Schulz steps x <- 3.4445 x - 4.775 (x x') x + 2.0315 (x x')^2 x from u / |u|. Other
    parameters than matrices: Adam with nesterov in the same form, betas 0.9 and 0.999, epsilon 1e-8, the same lr.
    Decoupled decay. Jordan 2024. Equals optax.contrib.muon with adam_weight_decay=weight_decay.
    """

    lr: Hyper = 0.02
    beta: Hyper = 0.95
    nesterov: bool = True
    weight_decay: Hyper = 0.0
    steps: int = 5

    state = ("m", "v")
    whole_parameters = True
    stackable = False
    decay_is = "decoupled"

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("m",) if len(shape) == 2 else ("m", "v"), shape)

    def numbers(self, t: int, **rest: Any) -> dict[str, Any]:
        return dict(rest, t=t)

    @staticmethod
    def rule(w: Array, g: Array, *state: Array, t: int, lr: float, beta: float, nesterov: bool, steps: int) -> None:
        m, *more = state
        if more:
            beta = 0.9
        m += (1 - beta) * (g - m)
        u = m / (1 - beta**t)
        if nesterov:
            u = beta * m / (1 - beta ** (t + 1)) + (1 - beta) / (1 - beta**t) * g
        if more:
            (v,) = more
            v += (1 - 0.999) * (g * g - v)
            w -= lr * u / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        else:
            rows, columns = w.shape
            w -= lr * math.sqrt(max(1, columns / rows)) * orthogonal(u, steps)


def orthogonal(x: Array, steps: int = 5) -> Array:
    """The matrix x with its singular values moved to about 1 (0.7 to 1.2), by Newton-Schulz steps; 0 stays 0."""
    tall = len(x) > x.shape[1]
    x = x.T if tall else x  # so that x x' is the smaller square
    x = x / (math.sqrt(sum_of_squares([x])) + 1e-8)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * (a @ a)) @ x
    return x.T if tall else x


# No schedule, no rate ----------------------------------------------------------------------------------------


def _schedule_free(w: Array, z: Array, direction: Array, lr: float, last: float, beta: float, c: float) -> None:
    """z descends, x is the mean of all z, and the gradient is taken at w = (1 - beta) z + beta x. `last` is the beta
    of the step before, from which w comes."""
    x = z + (w - z) / last  # in this form zero gradients move nothing, to the bit
    z -= lr * direction
    x += c * (z - x)
    w[...] = z + beta * (x - z)


class ScheduleFreeSGD(Optimizer):
    """SGD whose averaged weights need no schedule: trained at y (the weights), evaluated at x.

        z <- z - lr g                             z and x start at the weights
        x <- (1 - c) x + c z                      c = (largest lr so far)^2, over the sum of them to date
        y <- (1 - beta) z + beta x

    `evaluation_weights` shows x, which is not kept but follows from y and z: beta lies in (0, 1). Defazio et al. 2024
    (2405.15682). Equals optax.contrib.schedule_free_sgd where lr is constant or falls; where it rises, as in a warm-up,
    optax's c is that of the following step, whose lr it takes for the largest so far.
    """

    lr: Hyper = 1.0
    beta: Hyper = 0.9
    weight_decay: Hyper = 0.0

    state: tuple[str, ...] = ("z",)
    stackable = False
    scalars = {"largest": 0.0, "sum": 0.0}  # noqa: RUF012
    ranges = {"beta": (0, 1, "()"), "beta1": (0, 1, "()")}  # noqa: RUF012
    _last: tuple[Any, int, float] = (None, 0, 0.0)  # the state that was there, the step, and its beta

    def start(self, w: Array, **state: Array) -> None:
        state["z"][...] = w

    def c(self, lr: float) -> float:
        """The weight of z in the mean x, at this step."""
        largest = self.scalars["largest"] = max(self.scalars["largest"], lr)
        self.scalars["sum"] += largest**2
        return largest**2 / self.scalars["sum"] if self.scalars["sum"] else 0.0

    def last(self, following: float | None = None) -> float:
        """beta of the last step; `following`, if given, is that of the step to come, and remembered."""
        state, t, beta = self._last
        if state is not self._state or t != self.t:  # the state was loaded or restored since
            name = "beta" if "beta" in self.hyper else "beta1"
            beta = self._resolve(name, self.hyper[name], max(self.t - 1, 0))
        if following is not None:
            self._last = self._state, self.t + 1, following
        return beta

    def numbers(self, t: int, lr: float, beta: float) -> dict[str, Any]:
        return {"lr": lr, "last": self.last(beta), "beta": beta, "c": self.c(lr)}

    @staticmethod
    def rule(w: Array, g: Array, z: Array, *, lr: float, last: float, beta: float, c: float) -> None:
        _schedule_free(w, z, g, lr, last, beta, c)

    def evaluation(self, w: Array, z: Array, **state: Array) -> Array:
        return z + (w - z) / self.last()


class ScheduleFreeAdamW(ScheduleFreeSGD):
    """Adam whose averaged weights need no schedule: trained at y (the weights), evaluated at x.

        v <- beta2 v + (1 - beta2) g^2
        z <- z - lr (g / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay y)
        x <- (1 - c) x + c z,  y <- (1 - beta1) z + beta1 x         c as in ScheduleFreeSGD

    Defazio et al. 2024 (2405.15682), algorithm 1. Equals optax.contrib.schedule_free_adamw where lr does not rise, see
    ScheduleFreeSGD.
    """

    fields: ClassVar = {}  # not those of ScheduleFreeSGD: its beta is beta1 here
    lr: Hyper = 0.0025
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-8
    weight_decay: Hyper = 0.0

    state = ("z", "v")
    decay_is = "own"

    def numbers(self, t: int, lr: float, beta1: float, beta2: float, **rest: Any) -> dict[str, Any]:
        both = {"last": self.last(beta1), "beta1": beta1, "beta2": beta2, "c2": 1 - beta2**t}
        return rest | both | {"lr": lr, "c": self.c(lr)}

    @staticmethod
    def rule(
        w: Array, g: Array, z: Array, v: Array, *, lr: float, last: float, beta1: float, beta2: float, epsilon: float,
        weight_decay: float, c2: float, c: float,
    ) -> None:  # fmt: skip
        v += (1 - beta2) * (g * g - v)
        direction = g / (np.sqrt(v / c2) + epsilon) + weight_decay * w
        _schedule_free(w, z, direction, lr, last, beta1, c)


class DoG(Optimizer):
    """The learning rate is the distance gone over the root of all squared gradients: nothing to tune.

        r <- max(r, |w - w_0|)                    r starts at initial_distance (1 + |w_0|)
        s <- s + |g|^2
        w <- w - lr r / sqrt(s + epsilon) g

    Norms over the whole net. Ivgi, Hinder and Carmon 2023 (2302.12022). Equals optax.contrib.dog.
    """

    lr: Hyper = 1.0
    epsilon: Hyper = 1e-8
    weight_decay: Hyper = 0.0
    initial_distance: Hyper = 1e-6

    state = ("start_w",)
    stackable = False
    scalars = {"distance": 0.0, "sum": 0.0}  # noqa: RUF012

    def start(self, w: Array, start_w: Array) -> None:
        start_w[...] = w

    def survey(self, blocks: Callable[[], Iterable[Block]], numbers: dict[str, Any]) -> dict[str, Any]:
        far = length = square = 0.0
        for w, g, start in blocks():
            far += sum_of_squares([w - start])
            length += sum_of_squares([start])
            square += sum_of_squares([g])
        memory = self.scalars
        if self.t == 1:
            memory["distance"] = numbers["initial_distance"] * (1 + math.sqrt(length))
        memory["distance"] = max(memory["distance"], math.sqrt(far))
        memory["sum"] += square
        below = math.sqrt(memory["sum"] + numbers["epsilon"])
        return {"rate": numbers["lr"] * memory["distance"] / below if below else 0.0}

    @staticmethod
    def rule(w: Array, g: Array, start_w: Array, *, rate: float) -> None:
        w -= rate * g


class Prodigy(Optimizer):
    """Adam whose learning rate d is a growing estimate of the distance to the solution: nothing to tune.

        a = d lr sqrt(1 - beta2^t) / (1 - beta1^t)
        m, v <- Adam's, of d g
        s <- sqrt(beta2) s + a d / d_0 g
        r <- sqrt(beta2) r + a d / d_0 (g . (w_0 - w))
        d <- max(d, r / sum|s|)
        w <- w - a m / (sqrt(v) + d epsilon) - a weight_decay w        with the a from the old d, and the new d

    Over the whole net. Mishchenko and Defazio 2023 (2306.06101), algorithm 4. Equals optax.contrib.prodigy; all-zero
    gradients move nothing.
    """

    lr: Hyper = 1.0
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    epsilon: Hyper = 1e-8
    weight_decay: Hyper = 0.0
    initial_distance: Hyper = 1e-6

    state = ("start_w", "m", "v", "s")
    stackable = False
    scalars = {"d": 0.0, "r": 0.0}  # noqa: RUF012
    decay_is = "own"

    def start(self, w: Array, start_w: Array, **others: Array) -> None:
        start_w[...] = w

    def survey(self, blocks: Callable[[], Iterable[Block]], numbers: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2, first = numbers["beta1"], numbers["beta2"], numbers["initial_distance"]
        memory = self.scalars
        d = memory["d"] = memory["d"] or first
        a = d * numbers["lr"] * math.sqrt(1 - beta2**self.t) / (1 - beta1**self.t)
        fade = math.sqrt(beta2)
        along = total = 0.0
        for w, g, start, m, v, s in blocks():
            along += float(g.dot(start - w))
            scaled = d * g
            m += (1 - beta1) * (scaled - m)
            v += (1 - beta2) * (scaled * scaled - v)
            s *= fade
            s += a * d / first * g
            total += float(np.abs(s).sum())
        memory["r"] = fade * memory["r"] + a * d / first * along
        if total > 0:
            memory["d"] = max(d, memory["r"] / total)
        return {"a": a, "epsilon": memory["d"] * numbers["epsilon"], "weight_decay": numbers["weight_decay"]}

    @staticmethod
    def rule(
        w: Array, g: Array, start_w: Array, m: Array, v: Array, s: Array, *, a: float, epsilon: float,
        weight_decay: float,
    ) -> None:  # fmt: skip
        root = np.sqrt(v) + epsilon
        # Where the square of a gradient underflows to 0 and epsilon is 0, the parameter stays.
        step = np.divide(m, root, out=np.zeros_like(m), where=root > 0)
        w -= a * (step + weight_decay * w)


class PolyakSGD(Optimizer):
    """The step that would reach the minimum of a straight line: w <- w - min(max_lr, (f - minimum) / |g|^2) g.

    f is the loss, `minimum` what it can reach, the norm over the whole net. Needs a net, or `minimize`. Loizou et al.
    2020 (2002.10542). Equals optax.polyak_sgd; a gradient with |g|^2 <= 2.2e-16 moves nothing.
    """

    max_lr: Hyper = 1.0
    minimum: Hyper = 0.0

    stackable = False
    exact_gradient = True

    def __post_init__(self) -> None:
        self.value = math.nan

    def backward(self, net: Any, loss: Any) -> None:
        super().backward(net, loss)
        self.value = value_of(self, loss)

    def survey(self, blocks: Callable[[], Iterable[Block]], numbers: dict[str, Any]) -> dict[str, Any]:
        square = sum_of_squares(g for _, g in blocks())
        if square <= np.finfo(np.float64).eps:
            return {"lr": 0.0}
        return {"lr": min((self.value - numbers["minimum"]) / square, numbers["max_lr"])}

    @staticmethod
    def rule(w: Array, g: Array, *, lr: float) -> None:
        w -= lr * g


# Around any of them ------------------------------------------------------------------------------------------


class Wrapper(Optimizer):
    """The base of optimizers around another: a wrapper acts between `backward` and `update` of the inner optimizer.

    TypeError for what is not an Optimizer; ValueError for a nesting that makes no sense. Attributes that it does not
    have itself, such as `lr`, are read from and set on the inner optimizer.
    """

    stackable = False
    changes_gradient = False
    optimizer: Optimizer
    _takes = "optimizer, ..."

    def __init__(self, optimizer: Optimizer, *values: Any, **named: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            hint = f": write {optimizer.__name__}()" if isinstance(optimizer, type) else ""
            raise TypeError(
                f"{type(self).__name__} goes around an Optimizer, got {optimizer!r}{hint}. A plain function "
                f"(net, loss) can't be wrapped: it does not tell backpropagation from update."
            )
        if optimizer.outermost:
            outer, own, rule = type(optimizer).__name__, type(self).__name__, optimizer.config()["optimizer"]
            if own == outer:
                raise ValueError(f"{optimizer!r} is a {own} already: leave out the outer one.")
            raise ValueError(f"{outer} goes around all others: write {outer}({own}({rule!r}, ...)).")
        if self.changes_gradient and optimizer.exact_gradient:
            raise ValueError(
                f"{type(self).__name__} changes the gradient, and {optimizer!r} needs it as it is: use it bare."
            )
        if self._has_evaluation_weights() and optimizer._has_evaluation_weights():
            raise ValueError(
                f"{type(self).__name__} and {type(optimizer).__name__} both have evaluation weights of their own, and "
                f"a net can show one: leave one of them out."
            )
        self.optimizer = optimizer
        super().__init__(*values, **named)

    def around(self, net: Any) -> None:
        """One step: what the wrapper does, and `self.optimizer._update(net)`."""
        raise TypeError(f"{type(self).__name__} has no around(self, net): write it.")

    def backward(self, net: Any, loss: Any) -> None:
        self.optimizer.backward(net, loss)

    def _update(self, net: Any) -> None:
        if net.layout is not self._layout or net is not self._model:
            self._build(net)
        self._current()  # an illegal value is refused before anything moves
        self.around(net)
        self.t += 1

    def _has_rest(self) -> bool:
        return self.optimizer._has_rest()

    def _apply_rest(self, net: Any) -> None:
        """`around`, in which the step of the inner optimizer is that of its rest."""
        inner = self.optimizer.__dict__
        inner["_update"] = self.optimizer._apply_rest
        try:
            self.around(net)
        finally:
            del inner["_update"]

    def _current(self) -> dict[str, Any]:
        self.optimizer._current()
        return super()._current()

    def check(self, net: Any) -> None:
        super().check(net)
        self.optimizer.check(net)

    def _build(self, net: Any) -> None:
        super()._build(net)
        self.optimizer._build(net)

    def _split(self, layout: Layout) -> list[Block]:
        """(w, g, *state) of each segment."""
        return whole_segments(layout, self._state)

    @property
    def updates(self) -> int:
        return self.optimizer.updates

    def _evaluation_weights(self) -> list[Array] | None:
        if type(self).evaluation is not Optimizer.evaluation:
            return super()._evaluation_weights()
        return self.optimizer._evaluation_weights()

    def _has_evaluation_weights(self) -> bool:
        own = type(self).evaluation is not Optimizer.evaluation
        return own or ("optimizer" in self.__dict__ and self.optimizer._has_evaluation_weights())

    @property
    def exact_gradient(self) -> bool:
        return self.optimizer.exact_gradient

    def _needs_value(self) -> bool:
        return self.reevaluate or self.optimizer._needs_value()

    def reset(self) -> None:
        super().reset()
        self.optimizer.reset()

    def state_dict(self) -> dict[str, Any]:
        return dict(super().state_dict(), optimizer=self.optimizer.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict) or "optimizer" not in state:
            raise ValueError(f"this is not the state of {self!r}: it has none of an optimizer within.")
        with all_or_nothing([self.optimizer]):
            self.optimizer.load_state_dict(state["optimizer"])
            super().load_state_dict(state)

    def snapshot(self, into: Any = None) -> Any:
        own, inner = into or (None, None)
        return super().snapshot(own), self.optimizer.snapshot(inner)

    def restore(self, snapshot: Any) -> None:
        super().restore(snapshot[0])
        self.optimizer.restore(snapshot[1])

    def config(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, **self.hyper}

    def __getattr__(self, name: str) -> Any:
        if "optimizer" not in self.__dict__ or name.startswith("_"):
            forgotten = "t" not in self.__dict__ and name == "optimizer"
            raise AttributeError(not_initialised(self) if forgotten else f"{type(self).__name__} has no {name!r}.")
        return getattr(self.optimizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        inner = self.__dict__.get("optimizer")
        while inner is not None and name not in self.__dict__.get("hyper", {}) and name not in self.__dict__:
            if name in inner.hyper:
                inner._set(name, value)
                return
            inner = inner.__dict__.get("optimizer")
        super().__setattr__(name, value)


class Clip(Wrapper):
    """Gradients held in range: first each element within +-value, then all of them to a global norm.

        g <- g min(1, norm / (|g| + 1e-6))         |g| over all trainable parameters

    Pascanu, Mikolov and Bengio 2012 (1211.5063). Equals torch.nn.utils.clip_grad_value_ and clip_grad_norm_; optax and
    Keras go without the 1e-6. ValueError if neither is given. `clipped` tells whether the last step was.
    """

    norm: Hyper = None
    value: Hyper = None

    changes_gradient = True

    def __post_init__(self) -> None:
        if self.hyper["norm"] is None and self.hyper["value"] is None:
            raise ValueError("Clip needs norm, value or both: Clip(optimizer, norm=1.0).")
        self.clipped = False

    def around(self, net: Any) -> None:
        norm, value = self.norm, self.value
        if not all(math.isfinite(g.dot(g)) or np.isfinite(g).all() for g in self._gradients):
            refuse_overflow(self._gradients)
        self.clipped = False
        if value is not None:
            for g in self._gradients:
                self.clipped = self.clipped or bool(g.max() > value or g.min() < -value)
                np.clip(g, -value, value, out=g)
        if norm is not None:
            length = math.sqrt(sum_of_squares(self._gradients))
            if length == math.inf:  # a square may be beyond the dtype where the clipped one is not
                top = float(max(max(g.max(), -g.min()) for g in self._gradients))
                blocks = (g[at : at + BLOCK] / top for g in self._gradients for at in range(0, g.size, BLOCK))
                length = top * math.sqrt(sum_of_squares(blocks))
            scale = norm / (length + 1e-6)
            if scale < 1:
                self.clipped = True
                for g in self._gradients:
                    g *= scale
        self.optimizer._update(net)


class Accumulate(Wrapper):
    """One step for every `steps` calls, with the mean of their gradients: a large batch in small ones.

    A rest at the end of an epoch is carried into the next. A rest at the end of a training is applied, with the mean of
    its own gradients: the net shows the weights after that step, as do validation and files. They are evaluation
    weights: the next `train` takes the step back and carries the rest on, so that 3 + 3 epochs are 6 epochs.
    The schedules of the inner optimizer count steps, not calls.
    """

    steps: int

    state = ("mean",)
    scalars = {"calls": 0}  # noqa: RUF012
    changes_gradient = True

    def around(self, net: Any) -> None:
        refuse_overflow(self._gradients)
        steps = self.hyper["steps"]
        self.scalars["calls"] += 1
        for _, g, mean in self._blocks:
            mean += g / steps
        if self.scalars["calls"] >= steps:
            for _, g, mean in self._blocks:
                g[...] = mean
            self.optimizer._update(net)
            self.scalars["calls"] = 0
            for _, _, mean in self._blocks:
                mean.fill(0)

    def _has_rest(self) -> bool:
        return self.scalars["calls"] > 0 or self.optimizer._has_rest()

    def _apply_rest(self, net: Any) -> None:
        if self.scalars["calls"]:
            for _, g, mean in self._blocks:
                g[...] = mean * (self.hyper["steps"] / self.scalars["calls"])
            self.optimizer._update(net)
        if self.optimizer._has_rest():
            self.optimizer._apply_rest(net)


class Average(Wrapper):
    """Evaluation weights that follow the training weights: a <- decay a + (1 - decay) w after every step.

    a starts as a copy after the first step. Polyak and Juditsky 1992, the mean a moving one. Equals
    torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn(decay).
    """

    decay: Hyper

    state = ("average",)

    def start(self, w: Array, average: Array) -> None:
        average[...] = w  # for a layer that is thawed late: the first step copies the others

    def around(self, net: Any) -> None:
        decay, before = self._resolve("decay", self.hyper["decay"], self.t), self.updates
        self.optimizer._update(net)
        if self.updates > before:
            share = 1 - decay if before else 1.0
            for w, _, average in self._blocks:
                average += share * (w - average)

    def evaluation(self, w: Array, average: Array) -> Array | None:
        return average if self.updates else None


class Lookahead(Wrapper):
    """Slow weights that go part of the way to the weights of the inner optimizer, every `steps` steps.

        slow <- slow + alpha (w - slow),  w <- slow                slow starts as the weights

    `evaluation_weights` shows the slow ones; the state of the inner optimizer is kept. Zhang et al. 2019
    (1907.08610), algorithm 1. Equals optax.lookahead.
    """

    steps: int = 5
    alpha: Hyper = 0.5

    state = ("slow",)

    def start(self, w: Array, slow: Array) -> None:
        slow[...] = w

    def around(self, net: Any) -> None:
        alpha, before = self._current()["alpha"], self.updates
        self.optimizer._update(net)
        if self.updates > before and self.updates % self.hyper["steps"] == 0:
            for w, _, slow in self._blocks:
                slow += alpha * (w - slow)
                w[...] = slow

    def evaluation(self, w: Array, slow: Array) -> Array:
        return slow


class SAM(Wrapper):
    """The gradient of where the loss is worst nearby: taken at w + rho g / |g|, applied at w.

    The norm is over all trainable parameters; each step evaluates the batch twice. Needs a net with a Loss of ours, or
    `minimize`. Foret et al. 2020 (2010.01412), algorithm 1. Equals optax.contrib.sam.
    """

    rho: Hyper = 0.05

    reevaluate = True
    changes_gradient = True
    ranges = {"rho": NOT_NEGATIVE}  # noqa: RUF012

    def backward(self, net: Any, loss: Any) -> None:
        self._build(net)
        rho = self._current()["rho"]
        self.optimizer.backward(net, loss)
        length = math.sqrt(sum_of_squares(self._gradients))
        if not 0 < length < math.inf:
            return  # no direction to go in; or `update` refuses the gradient
        weights = self._layout.weights
        kept = [w.copy() for w in weights]
        try:
            with np.errstate(all="ignore"):
                for w, g in zip(weights, self._gradients, strict=True):
                    w += rho / length * g
                net.reevaluate(loss)
        finally:
            copy_all(weights, kept)

    def around(self, net: Any) -> None:
        self.optimizer._update(net)


class PerLayer(Optimizer):
    """Another optimizer for some parameters: {pattern: optimizer, or None to leave them as they are}.

    A pattern is a glob for the layer's number ("0", "2.1" within a container), its name or its class, and the
    parameter: "*.b", "BatchNorm.*", "hidden.w"; without the parameter, all of it. The first that fits counts.
    ValueError for a parameter that none fits, or a pattern that fits none; each optimizer stands for one pattern only.

        PerLayer({"*.b": AdamW(weight_decay=0), "*": AdamW(weight_decay=0.01)})
    """

    stackable = False

    def __init__(self, optimizers: dict[Any, Optimizer | None]) -> None:
        if not isinstance(optimizers, dict) or not optimizers:
            raise TypeError(f"PerLayer takes {{pattern: optimizer}}, got {optimizers!r}.")
        self.optimizers = {str(pattern): each for pattern, each in optimizers.items()}
        given = [each for each in self.optimizers.values() if each is not None]
        for each in given:
            if not isinstance(each, Optimizer):
                raise TypeError(f"PerLayer takes an Optimizer, or None, for each pattern, got {each!r}.")
            if each._needs_value() or each.outermost or isinstance(each, PerLayer):
                raise ValueError(f"{each!r} needs the whole net: it can't serve a part of it.")
        if len({id(each) for each in given}) < len(given):
            raise ValueError("PerLayer takes another instance for each pattern: one keeps the state of one part.")
        super().__init__()
        self._groups = {pattern: ParameterGroup() for pattern in self.optimizers}

    def _each(self) -> Iterator[tuple[Optimizer, ParameterGroup]]:
        for pattern, optimizer in self.optimizers.items():
            if optimizer is not None:
                yield optimizer, self._groups[pattern]

    def _build(self, net: Any) -> None:
        self.check(net)
        layout = net.layout
        if layout is self._layout:
            return
        for pattern, chosen in assign(layout, self.optimizers).items():
            self._groups[pattern].take(layout, chosen)
        for optimizer, group in self._each():
            optimizer._build(group)
        self._model, self._layout = net.kind if isinstance(net, ArraysAdapter) else net, layout

    def _update(self, net: Any) -> None:
        if net.layout is not self._layout or net is not self._model:
            self._build(net)
        for optimizer, group in self._each():  # all is checked before anything moves
            optimizer._current()
            refuse_overflow(group.layout.gradients)
        for optimizer, group in self._each():
            optimizer._update(group)
        self.t += 1

    def _has_rest(self) -> bool:
        return any(optimizer._has_rest() for optimizer, _ in self._each())

    def _apply_rest(self, net: Any) -> None:
        for optimizer, group in self._each():
            if optimizer._has_rest():
                optimizer._apply_rest(group)

    def _evaluation_weights(self) -> list[Array] | None:
        shown = [(group, optimizer._evaluation_weights()) for optimizer, group in self._each()]
        if self._layout is None or all(weights is None for _, weights in shown):
            return None
        all_weights = self._layout.weights
        kept = [w.copy() for w in all_weights]
        try:
            for group, weights in shown:
                if weights is not None:
                    copy_all(group.layout.weights, weights)
            return [w.copy() for w in all_weights]
        finally:
            copy_all(all_weights, kept)

    def _has_evaluation_weights(self) -> bool:
        return any(optimizer._has_evaluation_weights() for optimizer, _ in self._each())

    def reset(self) -> None:
        super().reset()
        for optimizer, _ in self._each():
            optimizer.reset()

    def state_dict(self) -> dict[str, Any]:
        inner = {pattern: each and each.state_dict() for pattern, each in self.optimizers.items()}
        return dict(super().state_dict(), optimizers=inner)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        patterns = state.get("optimizers", ()) if isinstance(state, dict) else ()
        if set(patterns) != set(self.optimizers):
            raise ValueError(f"this is not the state of {self!r}: its patterns are {sorted(patterns)}.")
        with all_or_nothing([optimizer for optimizer, _ in self._each()]):
            for pattern, each in self.optimizers.items():
                if each is not None:
                    each.load_state_dict(state["optimizers"][pattern])
            super().load_state_dict(state)

    def snapshot(self, into: Any = None) -> Any:
        own, inner = into or (None, [None] * len(self.optimizers))
        each = [optimizer.snapshot(old) for (optimizer, _), old in zip(self._each(), inner, strict=False)]
        return super().snapshot(own), each

    def restore(self, snapshot: Any) -> None:
        super().restore(snapshot[0])
        for (optimizer, _), kept in zip(self._each(), snapshot[1], strict=True):
            optimizer.restore(kept)

    def config(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers}

    def __getstate__(self) -> dict[str, Any]:
        return dict(super().__getstate__(), _groups={pattern: ParameterGroup() for pattern in self.optimizers})

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"PerLayer has no {name!r}: ask one of its optimizers, optim.optimizers[pattern].")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in USUAL:
            raise AttributeError(
                f"PerLayer has no {name!r}: set it on one of its optimizers, optim.optimizers[pattern]."
            )
        super().__setattr__(name, value)


__all__ = [
    "ASGD", "LAMB", "LARS", "LBFGS", "SAM", "SGD", "Accumulate", "AdaBelief", "Adadelta", "Adafactor", "Adagrad",
    "Adam", "AdamW", "Adamax", "Average", "Clip", "DoG", "Hyper", "Layout", "Lion", "Lookahead", "Momentum", "Muon",
    "NAdam", "Optimizer", "Parameter", "PerLayer", "PolyakSGD", "Prodigy", "RAdam", "RMSProp", "Rprop",
    "ScheduleFreeAdamW", "ScheduleFreeSGD", "SignSGD", "Signum", "Wrapper", "Yogi", "join", "minimize",
    "orthogonal",
]  # fmt: skip
