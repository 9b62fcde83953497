"""Hyper-parameters as fields of an optimizer's class: declared once, with their defaults and in their order.

A class without a constructor of its own gets one from its fields; this module reads them, binds what is given to them,
and says what each may be.
"""

from __future__ import annotations

import inspect
import math
from typing import Annotated, Any

# A number, a schedule, or, for a stack of nets, an array with a number for each.
Hyper = Annotated[Any, "a hyper-parameter"]

# What each hyper-parameter may be: lowest, highest, and which of the two it may equal.
POSITIVE = (0, math.inf, "()")
NOT_NEGATIVE = (0, math.inf, "[)")
FRACTION = (0, 1, "[)")
RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(("beta", "beta1", "beta2", "rho", "momentum", "decay"), FRACTION),
    **dict.fromkeys(("dampening", "alpha"), (0, 1, "[]")),
    **dict.fromkeys(("norm", "value", "initial_distance", "step_min", "step_max"), POSITIVE),
    "eta_minus": (0, 1, "()"),
    "eta_plus": (1, math.inf, "()"),
    "beta2_decay": (-math.inf, 0, "(]"),
    "clip_threshold": (1, math.inf, "[)"),
    "minimum": (-math.inf, math.inf, "()"),
}  # all others: NOT_NEGATIVE
# Names that people set; one that a rule does not have is refused, not kept beside it.
USUAL = ("lr", "learning_rate", "momentum", "beta", "beta1", "beta2", "betas", "eps", "epsilon", "weight_decay")
COUNTS = ("steps", "history")  # integers from 1
OPTIONAL = ("epsilon1", "norm", "value")  # may be None

REQUIRED = object()  # the default of a field that has none


class Field:
    """A hyper-parameter as an attribute of its class: reading gives the present value. An instance's own attribute of
    that name goes before it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, rule: Any, kind: Any = None) -> Any:
        if rule is None:
            return self
        hyper = rule.__dict__.get("hyper", {})
        if self.name not in hyper:
            raise AttributeError(f"{type(rule).__name__} has no {self.name!r}; it has {', '.join(hyper) or 'none'}.")
        return rule._resolve(self.name, hyper[self.name], rule.t)


def declare(kind: type, base: type) -> None:
    """Read the fields that a class declares, add them to those that it inherits, and make them attributes.

    A field is annotated as Hyper, or as a bool or an int whose name means nothing to `base`. Defaults may be left out.
    """
    if "__init__" in vars(kind):
        return
    own = {}
    for name, annotation in vars(kind).get("__annotations__", {}).items():
        written = annotation.rpartition(".")[2] if isinstance(annotation, str) else annotation
        if written in (Hyper, "Hyper") or (written in (bool, int, "bool", "int") and not hasattr(base, name)):
            own[name] = vars(kind).get(name, REQUIRED), written in (bool, "bool")
            setattr(kind, name, Field(name))
    if own:
        kind.fields = kind.fields | {name: default for name, (default, _) in own.items()}  # type: ignore[attr-defined]
        kind.flags = (*kind.flags, *(name for name, (_, flag) in own.items() if flag))  # type: ignore[attr-defined]


def bound(kind: Any, values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The value of each field of a class, from the arguments of its constructor. TypeError where they do not fit."""
    fields, call = kind.fields, f"{kind.__name__}.__init__()"
    if not fields and not values:  # the constructor was written by hand
        return named
    if not fields:
        raise TypeError(f"{call} takes hyper-parameters by name, lr=0.01, got {values!r:.100}.")
    if not fields:
        raise TypeError(f"{call} takes hyper-parameters by name, lr=0.01, got {values!r:.100}.")
    if len(values) > len(fields):
        raise TypeError(f"{call} takes at most {len(fields)} hyper-parameters, {', '.join(fields)}, got {len(values)}.")
    given = dict(zip(fields, values, strict=False))
    for name in named:
        if name not in fields:
            raise TypeError(f"{call} got an unexpected keyword argument {name!r}")
        if name in given:
            raise TypeError(f"{call} got multiple values for argument {name!r}")
    given = fields | given | named
    missing = [name for name, value in given.items() if value is REQUIRED]
    if missing:
        raise TypeError(f"{call} is missing {', '.join(missing)}.")
    return given


class Signature:
    """The signature of a class whose constructor is made from fields: what its base takes, then the fields."""

    def __get__(self, rule: Any, kind: Any = None) -> inspect.Signature:
        written = inspect.signature(kind.__init__)
        if not kind.fields or "values" not in written.parameters:
            return written.replace(parameters=list(written.parameters.values())[1:])
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        before = [each for name, each in written.parameters.items() if name != "self" and each.kind not in kinds]
        made = [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if default is REQUIRED else default,
                annotation="bool" if name in kind.flags else "int" if name in COUNTS else "Hyper",
            )
            for name, default in kind.fields.items()
        ]
        return inspect.Signature([*before, *made], return_annotation="None")


__all__ = [
    "COUNTS",
    "FRACTION",
    "NOT_NEGATIVE",
    "OPTIONAL",
    "POSITIVE",
    "RANGES",
    "REQUIRED",
    "USUAL",
    "Field",
    "Hyper",
]
