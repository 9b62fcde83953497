"""Second order: rules that learn the curvature of the loss from its gradients. Reached as `optim.LBFGS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from layerwise import optim
from layerwise.core.blocks import Block, copy_all
from layerwise.core.layout import Layout, value_of
from layerwise.core.linesearch import strong_wolfe

Array = np.ndarray


class LBFGS(optim.Optimizer):
    """Quasi-Newton steps from the last `history` changes of weights (s) and gradients (y), over the whole net.

        d = -H g, H by the two-loop recursion from s and y, started at (s.y / y.y) I
        w <- w + a d, a by a search along d that ends at the strong Wolfe conditions (c1 = 1e-4, c2 = 0.9),
        tried first at lr; at the very first step at min(1, 1 / |g|_1) lr; line_search=None: a is that trial

    One call makes up to `steps` such iterations, with at most 1.25 times as many evaluations (the search may use one
    more) of the same batch, and ends early below tolerance_gradient (largest |g|) or tolerance_change (largest |a d|,
    or the change of the loss). For full batches. Needs a net with a Loss of ours, or `minimize`. Liu and Nocedal 1989;
    Nocedal and Wright 2006, algorithms 3.5, 3.6 and 7.4. Equals torch.optim.LBFGS.
    """

    state = ("y", "s", "direction", "last_g")
    scalars = {"iterations": 0, "length": 0.0, "scale": 1.0}  # noqa: RUF012
    stackable = False
    reevaluate = True
    full_batch = True
    exact_gradient = True

    def __init__(
        self,
        lr: Any = 1.0,
        history: int = 100,
        line_search: str | None = "strong_wolfe",
        steps: int = 20,
        tolerance_gradient: Any = 1e-7,
        tolerance_change: Any = 1e-9,
    ) -> None:
        if line_search not in ("strong_wolfe", None):
            raise ValueError(f'LBFGS: line_search is "strong_wolfe" or None, got {line_search!r}.')
        super().__init__(
            lr=lr,
            history=history,
            steps=steps,
            tolerance_gradient=tolerance_gradient,
            tolerance_change=tolerance_change,
        )
        self.line_search = line_search
        self._loss: Any = None

    def config(self) -> dict[str, Any]:
        lr, history, *rest = self.hyper.items()
        return dict((lr, history, ("line_search", self.line_search), *rest))

    def backward(self, net: Any, loss: Any) -> None:
        super().backward(net, loss)
        value_of(self, loss)
        self._loss = loss

    def _init_state(self, parameters: list[Array]) -> None:
        if not self._state:
            self._state = [{}]  # filled by the first iterations

    def _split(self, layout: Layout) -> list[Block]:
        last = self._state[0].get("last_g")
        other = self._layout is not None and self._layout.segments != layout.segments
        if other or (last is not None and last.size != sum(w.size for w in layout.weights)):
            # A layer was frozen or thawed: what is remembered is of another space.
            self._state, self.scalars = [{}], dict(type(self).scalars)
        return []

    def _can_take(self, arrays: list[dict[str, Array]], scalars: dict[str, float]) -> bool:
        if len(arrays) > 1 or bool(arrays and arrays[0]) != (scalars["iterations"] > 0):
            return False
        if not (arrays and arrays[0]):
            return True
        each = arrays[0]
        if set(each) not in ({"direction", "last_g"}, {"direction", "last_g", "y", "s"}):
            return False
        p = each["last_g"].size
        y, s = each.get("y", np.ones((1, p))), each.get("s", np.ones((1, p)))
        fit = each["direction"].shape == each["last_g"].shape == (p,) and y.shape == s.shape == (len(y), p)
        return fit and bool((np.einsum("np,np->n", y, s) > 0).all())

    def snapshot(self, into: Any = None) -> Any:
        return self.t, self.scalars.copy(), [dict(each) for each in self._state]  # no array is ever written again

    def restore(self, snapshot: Any) -> None:
        self.t, scalars, state = snapshot
        self.scalars, self._state = scalars.copy(), [dict(each) for each in state] or [{}]

    def _apply(self, net: Any) -> None:
        hyper = self._current()
        layout, loss = self._layout, self._loss
        weights, gradients = layout.weights, layout.gradients
        start = np.concatenate(weights)
        ends = np.cumsum([w.size for w in weights])[:-1]

        def at(x: Array) -> tuple[float, Array]:
            """Loss and gradient of the same batch at the weights x."""
            copy_all(weights, np.split(x, ends))
            value = net.reevaluate(loss)
            return value, np.concatenate(gradients)

        before = self.snapshot()
        try:
            x, value = self._iterate(at, start, value_of(self, loss), np.concatenate(gradients), **hyper)
            if not (math.isfinite(value) and np.isfinite(x).all()):
                raise FloatingPointError("LBFGS met a loss that is not finite along its direction: nothing was moved.")
        except BaseException:
            self.restore(before)
            copy_all(weights, np.split(start, ends))
            raise
        self.t += 1
        copy_all(weights, np.split(x, ends))

    def _iterate(
        self, at: Callable[[Array], tuple[float, Array]], x: Array, value: float, g: Array, *, lr: float, history: int,
        steps: int, tolerance_gradient: float, tolerance_change: float,
    ) -> tuple[Array, float]:  # fmt: skip
        state, memory = self._state[0], self.scalars
        limit, used = steps * 5 // 4, 1
        if np.abs(g).max() <= tolerance_gradient:
            return x, value
        for n in range(1, steps + 1):
            memory["iterations"] += 1
            if memory["iterations"] == 1:
                d = -g
                length = min(1.0, 1.0 / float(np.abs(g).sum())) * lr
            else:
                self._remember(g - state["last_g"], state["direction"] * memory["length"], history)
                d = self._direction(g)
                length = lr
            state["direction"], state["last_g"] = d, g.copy()
            memory["length"] = length
            slope, before = float(g.dot(d)), value
            if slope > -tolerance_change:
                break
            if self.line_search:
                value, g, length, evaluations = strong_wolfe(
                    at, x, length, d, value, g, slope, tolerance_change, limit - used
                )
                used += evaluations
                memory["length"] = length
                x = x + length * d
            else:
                x = x + length * d
                if n < steps:  # the last iteration leaves the evaluation to the next call
                    value, g = at(x)
                    used += 1
            if used >= limit or np.abs(g).max() <= tolerance_gradient:
                break
            if np.abs(d * length).max() <= tolerance_change or abs(value - before) < tolerance_change:
                break
        return x, value

    def _remember(self, y: Array, s: Array, history: int) -> None:
        """Keep the latest pair if its curvature is positive; drop the oldest beyond `history`."""
        curvature = float(y.dot(s))
        if curvature <= 1e-10:
            return
        state = self._state[0]
        for name, latest in (("y", y), ("s", s)):
            state[name] = (
                np.concatenate(
                    (state[name][-(history - 1) :] if history > 1 else latest[:0].reshape(0, len(latest)), latest[None])
                )
                if name in state
                else latest[None].copy()
            )
        self.scalars["scale"] = curvature / float(y.dot(y))

    def _direction(self, g: Array) -> Array:
        """-H g: Nocedal and Wright, algorithm 7.4."""
        state = self._state[0]
        pairs = list(zip(state.get("y", ()), state.get("s", ()), strict=True))
        q, shares = -g, []
        for y, s in reversed(pairs):
            share = float(s.dot(q)) / float(y.dot(s))
            shares.append(share)
            q = q - share * y
        d = q * self.scalars["scale"]
        for (y, s), share in zip(pairs, reversed(shares), strict=True):
            d = d + (share - float(y.dot(d)) / float(y.dot(s))) * s
        return d

    def __getstate__(self) -> dict[str, Any]:
        return dict(super().__getstate__(), _loss=None)


__all__ = ["LBFGS"]
