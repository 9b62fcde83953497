"""Optimizers: callables `optim(net, loss)` that run backpropagation and apply an update rule to every parameter.

In this file, in this order:
  the base              Optimizer, minimize
  the rules             SGD, Momentum, RMSProp, Adam

One rule is one small class. Its docstring gives the formula and the reference that it equals; the same name
means different things in different frameworks. Letters: w parameter, g gradient, t step, from 1; every state
array starts at 0 unless said. "Coupled" weight decay adds weight_decay w to g before anything else.
"""

# mypy: disable-error-code="override"
# (each rule names the state and the numbers that it takes)

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray

# Elements of a block. A rule makes several passes over what it is given: in blocks, all but the first find
# their data in the cache, and plain array notation is as fast as hand-placed `out=`.
BLOCK = 32_768

# What each hyper-parameter may be: lowest, highest, whether the highest itself is allowed.
RANGES: dict[str, tuple[float, float, bool]] = {
    "lr": (0, math.inf, False),
    "momentum": (0, 1, False),
    "dampening": (0, 1, True),
    "beta": (0, 1, False),
    "beta1": (0, 1, False),
    "beta2": (0, 1, False),
    "epsilon": (0, math.inf, False),
    "weight_decay": (0, math.inf, False),
}


class Optimizer:
    """The base of every rule: backpropagation, the sweep over the parameters, the state and the step count.

    A rule names its state arrays in `state` and writes `rule(w, g, *state, **numbers)`, which changes w and the
    state in place (never g) and is elementwise: it is run on blocks of the net's one vector. `numbers(t, ...)`
    turns the hyper-parameters into the numbers of a step, Python floats. Any hyper-parameter is a number or a
    schedule: a callable of the number of steps taken so far, 0 at the first.

    ValueError for a hyper-parameter outside its range, set, given or scheduled, before anything moves.
    """

    state: tuple[str, ...] = ()  # names of the arrays that it keeps for each parameter
    decoupled = False  # weight decay multiplies w by 1 - lr weight_decay, instead of adding to g

    def __init__(self, **hyper: Any) -> None:
        self.t = 0  # steps taken
        self.hyper: dict[str, Any] = {}
        self._net: Any = None
        self._layout: Any = None  # what the pieces were made for
        self._arrays: list[Array] = []  # one (len(state), *shape) for the net's vector, or for each parameter
        self._pieces: list[tuple[Array, ...]] = []
        self._scratch = np.empty(0)
        for name, value in hyper.items():
            self.hyper[name] = value if callable(value) else self._legal(name, value)

    # What a rule writes.

    def numbers(self, t: int, **hyper: Any) -> dict[str, Any]:
        """The numbers that `rule` takes at step t, from the hyper-parameters of that step."""
        return hyper

    @staticmethod
    def rule(w: Array, g: Array, *state: Array, **numbers: Any) -> None:
        raise TypeError("a rule is rule(w, g, *state, **numbers), changing w and the state in place: write it.")

    def start(self, w: Array, *state: Array) -> None:
        """Fill the state of a parameter w where it does not start at 0."""

    # What its user calls.

    def __call__(self, net: Any, loss: Any) -> None:
        """Backpropagation from `loss` through `net`, then one step of every parameter that is not frozen."""
        self.backward(net, loss)
        self.update(net)

    def backward(self, net: Any, loss: Any) -> None:
        """All gradients of the net, from the last layer to the first."""
        net.sweep(loss)

    def update(self, net: Any) -> None:
        """One step from the gradients that are there. FloatingPointError, and nothing moves, if they or their
        squares are not finite; ValueError if this optimizer serves another net."""
        if net.training:  # `train` keeps NumPy's overflow warnings away already
            self._update(net)
        else:
            with np.errstate(all="ignore"):
                self._update(net)

    def prepare(self, net: Any) -> None:
        """Called when every layer of the net is built, before a training's first forward pass."""
        self._bind(net)

    @contextlib.contextmanager
    def evaluation_weights(self, net: Any) -> Iterator[None]:
        """`with optim.evaluation_weights(net):` shows the weights that the rule means to be used."""
        yield

    def step(self, parameters: Sequence[Array], gradients: Sequence[Array]) -> None:
        """One step of a list of arrays, in place, without a net; the state is kept by place in the list.

        ValueError for lists of different length, other shapes than before, or a gradient of another shape.
        """
        parameters, gradients = list(parameters), [np.asarray(g) for g in gradients]
        shapes, found = [np.shape(w) for w in parameters], [g.shape for g in gradients]
        if shapes != found:
            raise ValueError(f"step takes a gradient for each parameter: shapes {shapes}, got {found}.")
        for w in parameters:
            if not isinstance(w, np.ndarray) or w.dtype.kind != "f" or not w.flags.writeable:
                raise TypeError("step changes its parameters in place: they are writeable arrays of floats.")
        layout = [(w.shape, w.dtype) for w in parameters]
        if self._layout is None:
            self._layout = layout
            self._take_state(parameters)
        elif self._layout != layout:
            raise ValueError(
                f"{type(self).__name__} keeps state for {_told(self._layout)}, got {_told(layout)}: "
                f"use another instance, or reset() this one."
            )
        with np.errstate(all="ignore"):
            _refuse_overflow(gradients)
            pieces = [
                (w, g.astype(w.dtype, copy=False), *arrays)
                for w, g, arrays in zip(parameters, gradients, self._arrays, strict=True)
            ]
            self._move([blocks for piece in pieces for blocks in _blocks(piece)])

    def reset(self) -> None:
        """Forget the state, the step count and the net."""
        self.t = 0
        self._net = self._layout = None
        self._arrays, self._pieces = [], []

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: the step count, the hyper-parameters that are numbers, and the state by name and place."""
        return {
            "t": self.t,
            "hyper": {name: value for name, value in self.hyper.items() if not callable(value)},
            "state": {name: [arrays[place].copy() for arrays in self._arrays] for place, name in enumerate(self.state)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot; schedules stay as they are. ValueError if it is of another rule."""
        names = set(state["state"])
        if names != set(self.state) or not set(state["hyper"]) <= set(self.hyper):
            raise ValueError(
                f"this is not the state of {self!r}: it holds the arrays {sorted(names)}, expected "
                f"{sorted(self.state)}."
            )
        hyper = {name: self._legal(name, value) for name, value in state["hyper"].items()}
        arrays = [np.stack(each) for each in zip(*(state["state"][name] for name in self.state), strict=True)]
        if self._arrays and [a.shape for a in arrays] != [a.shape for a in self._arrays] and arrays:
            raise ValueError(
                f"this state is for parameters of shapes {[a.shape[1:] for a in arrays]}, expected "
                f"{[a.shape[1:] for a in self._arrays]}."
            )
        self.t = int(state["t"])
        self.hyper.update({name: value for name, value in hyper.items() if not callable(self.hyper[name])})
        # The pieces are made anew, at the next step, from these arrays.
        self._arrays, self._layout, self._net = arrays, None, None

    def snapshot(self, into: Any = None) -> Any:
        """The state of this moment, to `restore`; written over an earlier snapshot where one is given."""
        if into is None or len(into[1]) != len(self._arrays):
            into = [0, [np.empty_like(arrays) for arrays in self._arrays]]
        into[0] = self.t
        for kept, live in zip(into[1], self._arrays, strict=True):
            np.copyto(kept, live)
        return into

    def restore(self, snapshot: Any) -> None:
        """Back to the state of a snapshot of this instance."""
        self.t = snapshot[0]
        for kept, live in zip(snapshot[1], self._arrays, strict=True):
            np.copyto(live, kept)

    def config(self) -> dict[str, Any]:
        """The arguments that make such an optimizer."""
        return dict(self.hyper)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.hyper.items())})"

    # A hyper-parameter reads as its present value; setting one checks it.

    def __getattr__(self, name: str) -> Any:
        hyper = self.__dict__.get("hyper", {})
        if name not in hyper:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(hyper)}.")
        return self._at(name, hyper[name], self.t)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("hyper", {}):
            self.hyper[name] = value if callable(value) else self._legal(name, value)
        else:
            super().__setattr__(name, value)

    def _at(self, name: str, value: Any, steps: int) -> Any:
        return self._legal(name, value(steps)) if callable(value) else value

    def _legal(self, name: str, value: Any) -> Any:
        """`value`, if `name` may be that."""
        if isinstance(value, (bool, np.bool_)) and name not in RANGES:
            return bool(value)
        low, high, closed = RANGES.get(name, (-math.inf, math.inf, False))
        # A NumPy number would turn float32 arrays into float64: it becomes a Python float here.
        number = value.item() if isinstance(value, np.generic) else value
        if (
            not isinstance(number, (int, float))
            or isinstance(number, bool)
            or not (low <= number < high or (closed and number == high))
        ):
            legal = f"[{low:g}, {high:g}{']' if closed else ')'}"
            raise ValueError(f"{type(self).__name__}: {name} is a number in {legal}, got {value!r}.")
        return number

    # The sweep.

    def check(self, net: Any) -> None:
        """ValueError if this optimizer serves something else than this net."""
        if (self._net is not None and self._net is not net) or isinstance(self._layout, list):
            other = "another net" if self._net is not None else "arrays given to step()"
            raise ValueError(
                f"this {type(self).__name__} serves {other} and keeps its state: use another instance, or reset() "
                f"this one."
            )

    def _bind(self, net: Any) -> None:
        """Make the state for this net, and the pieces of its vectors that the rule runs over."""
        self.check(net)
        layout = net.layout
        if layout is self._layout:
            return
        self._take_state([layout.vector])
        self._pieces = []
        for span in layout.spans:
            arrays = self._arrays[0][:, span]
            self._pieces += _blocks((layout.vector[span], layout.gradient[span], *arrays))
        self._net, self._layout = net, layout

    def _take_state(self, parameters: list[Array]) -> None:
        """State for these arrays: what was loaded or is there already, else new."""
        shapes = [(len(self.state), *w.shape) for w in parameters]
        if not self._arrays:
            self._arrays = [np.zeros(shape, w.dtype) for shape, w in zip(shapes, parameters, strict=True)]
            for w, arrays in zip(parameters, self._arrays, strict=True):
                self.start(w, *arrays)
        elif self.state and [arrays.shape for arrays in self._arrays] != shapes:
            raise ValueError(
                f"the state of this {type(self).__name__} is for parameters of shapes "
                f"{[arrays.shape[1:] for arrays in self._arrays]}, got {[w.shape for w in parameters]}."
            )

    def _update(self, net: Any) -> None:
        if net.layout is not self._layout or net is not self._net:
            self._bind(net)
        _refuse_overflow(self._layout.gradients)
        self._move(self._pieces)

    def _move(self, pieces: list[tuple[Array, ...]]) -> None:
        """One step of every piece (w, g, *state)."""
        hyper = {name: self._at(name, value, self.t) for name, value in self.hyper.items()}
        decay = hyper.pop("weight_decay", 0)
        numbers = self.numbers(self.t + 1, **hyper)
        self.t += 1
        rule = self.rule
        for w, g, *state in pieces:
            if decay and self.decoupled:
                w *= 1 - hyper["lr"] * decay
            elif decay:
                g = self._decayed(w, g, decay)
            rule(w, g, *state, **numbers)

    def _decayed(self, w: Array, g: Array, decay: float) -> Array:
        """g + decay w, on scratch: the gradient stays as its user knows it."""
        if self._scratch.size < w.size or self._scratch.dtype != w.dtype:
            self._scratch = np.empty(max(w.size, min(BLOCK, 1024)), w.dtype)
        total = np.multiply(w, decay, out=self._scratch[: w.size].reshape(w.shape))
        total += g
        return total

    # Copies and pickles carry the state, not the net.

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _net=None, _layout=None, _pieces=[], _scratch=np.empty(0))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = memo[id(self)] = object.__new__(type(self))
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return other


def _blocks(piece: tuple[Array, ...]) -> list[tuple[Array, ...]]:
    """Arrays of one shape as runs of at most BLOCK elements, views all; in one where they are not contiguous."""
    if piece[0].size <= BLOCK or not all(array.flags.c_contiguous for array in piece):
        return [piece]
    flat = [array.reshape(-1) for array in piece]
    return [tuple(a[at : at + BLOCK] for a in flat) for at in range(0, piece[0].size, BLOCK)]


def _refuse_overflow(gradients: Sequence[Array]) -> None:
    """FloatingPointError unless all gradients and their squares are finite."""
    for g in gradients:
        flat = g.reshape(-1)
        # The sum of the squares tells in one pass; it can overflow where no square does, so look again then.
        if not math.isfinite(flat.dot(flat)) and not np.isfinite(np.square(flat)).all():
            raise FloatingPointError(
                f"a gradient, or its square, is not finite (the largest is {np.abs(flat).max():g}): nothing was moved. "
                f"A lower learning rate, or gradient clipping, keeps it in range."
            )


def _told(layout: Any) -> str:
    return f"arrays of shapes {[shape for shape, _ in layout]}" if isinstance(layout, list) else "a net"


def minimize(function: Callable[[Array], tuple[float, Array]], x0: Any, optimizer: Optimizer, steps: int) -> Array:
    """Follow `function(x) -> (value, gradient)` from x0 for `steps` steps; the path, (steps + 1, *x0.shape).

    x0 itself comes first and is left as it is; a float array keeps its dtype, all else becomes float64.
    FloatingPointError for a gradient that is not finite.
    """
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ValueError(f"steps is an integer, 0 or more, got {steps!r}.")
    x = np.array(x0, order="C")
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    path = np.empty((steps + 1, *x.shape), x.dtype)
    path[0] = x
    for place in range(1, steps + 1):
        gradient = function(x)[1]
        optimizer.step([x], [gradient])
        path[place] = x
    return path


# The rules ---------------------------------------------------------------------------------------------------


class SGD(Optimizer):
    """Down the gradient, with a memory of the way so far.

        b <- momentum b + (1 - dampening) g        at the first step b <- g
        w <- w - lr b                              nesterov: w - lr (g + momentum b)

    Polyak 1964; nesterov: Nesterov 1983 in the form of Sutskever 2013. Coupled decay. Equals torch.optim.SGD;
    without momentum no state.
    """

    def __init__(
        self,
        lr: Any = 0.01,
        momentum: Any = 0.0,
        dampening: Any = 0.0,
        nesterov: bool = False,
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=weight_decay)
        self.state = ("b",) if callable(momentum) or momentum else ()

    def numbers(self, t: int, dampening: float, **rest: Any) -> dict[str, Any]:
        return dict(rest, dampening=dampening if t > 1 else 0)

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

    Polyak 1964; nesterov: Sutskever 2013. Coupled decay. Equals keras.optimizers.SGD(momentum=beta); differs from
    SGD(momentum=beta) only when lr changes.
    """

    state: tuple[str, ...] = ("v",)

    def __init__(self, lr: Any = 0.01, beta: Any = 0.9, nesterov: bool = False, weight_decay: Any = 0.0) -> None:
        super().__init__(lr=lr, beta=beta, nesterov=nesterov, weight_decay=weight_decay)

    @staticmethod
    def rule(w: Array, g: Array, v: Array, *, lr: float, beta: float, nesterov: bool) -> None:
        push = lr * g
        v *= beta
        v += push
        w -= beta * v + push if nesterov else v


class RMSProp(Optimizer):
    """The gradient over the root of its mean square.

        v <- beta v + (1 - beta) g^2
        w <- w - lr g / sqrt(v + epsilon)          epsilon_inside=False: / (sqrt(v) + epsilon)

    centered: a <- beta a + (1 - beta) g, and v - a^2, never below 0, in place of v. momentum: b <- momentum b plus
    the quotient, w <- w - lr b. Tieleman and Hinton 2012; centered: Graves 2013 (1308.0850). Coupled decay. Equals
    optax.rmsprop and Keras; epsilon_inside=False equals torch.optim.RMSprop.
    """

    def __init__(
        self,
        lr: Any = 0.01,
        beta: Any = 0.9,
        epsilon: Any = 1e-10,
        weight_decay: Any = 0.0,
        epsilon_inside: bool = True,
        momentum: Any = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            lr=lr, beta=beta, epsilon=epsilon, weight_decay=weight_decay, epsilon_inside=epsilon_inside,
            momentum=momentum, centered=centered,
        )  # fmt: skip
        self.state = ("v", *("a",) * bool(centered), *("b",) * bool(callable(momentum) or momentum))

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


class Adam(Optimizer):
    """The mean of the gradient over the root of its mean square, both corrected for starting at 0.

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    amsgrad: the largest v so far in place of v. Kingma and Ba 2014 (1412.6980), algorithm 1; AMSGrad: Reddi 2018.
    Coupled decay. Equals torch.optim.Adam.
    """

    state: tuple[str, ...] = ("m", "v")

    def __init__(
        self,
        lr: Any = 0.01,
        beta1: Any = 0.9,
        beta2: Any = 0.999,
        epsilon: Any = 1e-8,
        weight_decay: Any = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(lr=lr, beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay, amsgrad=amsgrad)
        if amsgrad:
            self.state = ("m", "v", "largest")

    def numbers(self, t: int, beta1: float, beta2: float, **rest: Any) -> dict[str, Any]:
        return dict(rest, beta1=beta1, beta2=beta2, c1=1 - beta1**t, c2=1 - beta2**t)

    @staticmethod
    def rule(
        w: Array, g: Array, m: Array, v: Array, largest: Any = None, *, lr: float, beta1: float, beta2: float,
        epsilon: float, c1: float, c2: float, amsgrad: bool,
    ) -> None:  # fmt: skip
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        if amsgrad:
            v = np.maximum(largest, v, out=largest)
        w -= lr / c1 * m / (np.sqrt(v / c2) + epsilon)


__all__ = ["SGD", "Adam", "Momentum", "Optimizer", "RMSProp", "minimize"]
