"""What a user gives to a training for it to call: callbacks of either form, and a plain callable as the optimizer.
Here too: which rules an optimizer is made of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from layerwise import optim as _optim
from layerwise.core.hyper import is_ours

ADDED_UP = 64  # batches whose gradients a plain callable may add up before its first step


class CallbackAdapter:
    """A callback of either form: its methods, or None where it has none of that name."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        found = (getattr(callback, name, None) for name in ("check_run", "begin", "step", "epoch", "end"))
        methods = [method if callable(method) else None for method in found]
        if isinstance(callback, type) or not (callable(callback) or any(methods)):
            raise TypeError(
                f"a callback is a callable (net, logs), or an object with any of begin(run), step(run), "
                f"epoch(run, logs), end(run), got {callback!r}."
            )
        self.name = getattr(callback, "__name__", type(callback).__name__)
        self.check_run, self.begin, self.step, self.epoch, self.end = methods
        if not any(methods[1:]):
            self.epoch = lambda run, logs: callback(run.net, logs)


def is_true(answer: Any) -> bool:
    """Whether a callback's answer is True, NumPy's included."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)


class Callbacks:
    """All callbacks of a training, called one after the other."""

    def __init__(self, adapters: list[CallbackAdapter]) -> None:
        self.adapters = adapters
        self.steppers = [adapter for adapter in adapters if adapter.step]

    def check_run(self, run: Any) -> None:
        for adapter in self.adapters:
            run.more_quantities |= not type(adapter.callback).__module__.startswith("layerwise.")
            if adapter.check_run:
                adapter.check_run(run)

    def begin(self, run: Any) -> None:
        for adapter in self.adapters:
            if adapter.begin:
                adapter.begin(run)

    def step(self, run: Any) -> list[CallbackAdapter]:
        """Those that end the training after this step."""
        return [adapter for adapter in self.steppers if adapter.step and is_true(adapter.step(run))]

    def epoch(self, run: Any, logs: dict[str, Any]) -> list[CallbackAdapter]:
        """Those that end the training after this epoch."""
        return [adapter for adapter in self.adapters if adapter.epoch and is_true(adapter.epoch(run, logs))]

    def end(self, run: Any, failed: BaseException | None) -> None:
        """The end of the training for every callback, however it came. The first error is the one that is raised."""
        first = failed
        for adapter in self.adapters:
            if adapter.end:
                try:
                    adapter.end(run)
                except BaseException as error:  # the others come to their end, too: one may put weights back
                    if first is None:
                        first = error
                    else:
                        first.add_note(f"And {adapter.callback!r}.end(run) raised {error!r}.")
        if first is not failed and first is not None:
            raise first

    def reasons_to_stay_ended(self, run: Any, by: list[str] | None) -> list[str]:
        """Why a training that the callbacks `by` ended does not go on with these. A callback is no reason if it is left
        out, or would not end the training any more. Older files name no callbacks: then `by` is None."""
        reasons = []
        for adapter in self.adapters:
            why = getattr(adapter.callback, "why_ended", None)
            if (why is not None) if by is None else (adapter.name in by):
                hint = why(run) if why is not None else "leave it out to go on"
                reasons += [f"{adapter.name} has ended it: {hint}"] if hint else []
        return reasons


def rules_within(rule: Any) -> Iterator[Any]:
    """An optimizer, and all that it wraps."""
    yield rule
    inner = rule.optimizers.values() if isinstance(rule, _optim.PerLayer) else []
    for each in [rule.optimizer] if isinstance(rule, _optim.Wrapper) else inner:
        if each is not None:
            yield from rules_within(each)


def may_reevaluate(rule: Any) -> bool:
    """Whether an optimizer evaluates a batch more than once. One of the user's own may do so."""
    return any(
        not (isinstance(each, _optim.Optimizer) and is_ours(type(each), _optim.Optimizer)) or each.reevaluate
        for each in rules_within(rule)
    )


class FirstSteps:
    """The first steps of an optimizer that is a plain callable (net, loss). A warning names the layers whose weights
    it does not change although their gradients are not 0. After these steps the run calls the optimizer itself."""

    def __init__(self, run: Any) -> None:
        self.run, self.optim = run, run.optim
        self.steps = 0
        self.trained = self.unchanged = [leaf for leaf in run.net.leaf_layers() if leaf.trainable]

    def __call__(self, net: Any, loss: Any) -> None:
        before = [[w.copy() for w in leaf.parameters.values()] for leaf in self.unchanged]
        self.optim(net, loss)
        if not self.unchanged or getattr(self.optim, "lr", None) == 0:
            return
        self.steps += 1
        self.unchanged = [
            leaf
            for leaf, weights in zip(self.unchanged, before, strict=True)
            if all(map(np.array_equal, leaf.parameters.values(), weights))
            and any(gradient.any() for gradient in leaf.gradients.values())
        ]
        # A callable that has moved nothing at all may be adding up gradients.
        patience = ADDED_UP if len(self.unchanged) == len(self.trained) else 2
        if not self.unchanged or self.steps >= patience:
            self.end()

    def end(self) -> None:
        """After the last of these steps, or of the training."""
        self.run.apply = self.optim
        if self.unchanged and self.steps >= 2:
            name = getattr(self.optim, "__name__", type(self.optim).__name__)
            labels = ", ".join(leaf.label for leaf in self.unchanged)
            warnings.warn(
                f"{name} has not changed the weights of {labels} in {'two' if self.steps == 2 else self.steps} steps, "
                f"although their gradients are not 0: change them in place, as layer.w -= lr * layer.w_gradient does. "
                f"What is to stay as it is, is frozen: layer.frozen = True.",
                stacklevel=2,
            )
        self.unchanged = []


__all__ = ["CallbackAdapter", "Callbacks", "FirstSteps", "may_reevaluate", "rules_within"]
