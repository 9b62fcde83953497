"""Hyper-parameters as fields of an optimizer's class: declared once, in order, with their defaults.

A class without a constructor of its own gets one from its fields. This module reads the fields, binds the arguments of
the constructor to them, and checks each value.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from layerwise.core import arguments, habits
from layerwise.core.arguments import Limits

# A number, a schedule, or, for a stack of nets, an array with a number for each.
Hyper = Annotated[Any, "a hyper-parameter"]

# What each hyper-parameter may be.
POSITIVE = (0, math.inf, "()")
NOT_NEGATIVE = (0, math.inf, "[)")
FRACTION = (0, 1, "[)")
RANGES: dict[str, Limits] = {
    **dict.fromkeys(("beta", "beta1", "beta2", "rho", "momentum", "decay"), FRACTION),
    **dict.fromkeys(("dampening", "alpha"), (0, 1, "[]")),
    **dict.fromkeys(("norm", "value", "initial_distance", "step_min", "step_max"), POSITIVE),
    "eta_minus": (0, 1, "()"),
    "eta_plus": (1, math.inf, "()"),
    "beta2_decay": (-math.inf, 0, "(]"),
    "clip_threshold": (1, math.inf, "[)"),
    "minimum": (-math.inf, math.inf, "()"),
}  # all others: NOT_NEGATIVE
# Common names of hyper-parameters. Setting one that a rule does not have is an error, not a new attribute.
USUAL = ("lr", "learning_rate", "momentum", "beta", "beta1", "beta2", "betas", "eps", "epsilon", "weight_decay")
COUNTS = ("steps", "history")  # integers from 1
OPTIONAL = ("epsilon1", "norm", "value")  # may be None

REQUIRED = object()  # the default of a field that has none


class Field:
    """A hyper-parameter as an attribute of its class: reading gives the current value.

    An attribute of that name in the instance's own __dict__ hides it.
    """

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
    """Read the fields that a class declares, add them to the inherited ones, and make them attributes.

    A field is annotated as Hyper; or as bool or int, if `base` has no attribute of that name. A default is optional.
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
    """The value of each field of a class, from the arguments of its constructor. TypeError if they do not fit."""
    fields, call = kind.fields, f"{kind.__name__}.__init__()"
    if not fields and not values:  # the constructor was written by hand
        return named
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
    """The signature of a class whose constructor is made from fields: the arguments of its base, then the fields."""

    def __get__(self, rule: Any, kind: Any = None) -> inspect.Signature:
        written = inspect.signature(kind.__init__)
        if not kind.fields or "values" not in written.parameters:
            return written.replace(parameters=list(written.parameters.values())[1:])
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        before = [each for name, each in written.parameters.items() if name != "self" and each.kind not in kinds]
        created = [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if default is REQUIRED else default,
                annotation="bool" if name in kind.flags else "int" if name in COUNTS else "Hyper",
            )
            for name, default in kind.fields.items()
        ]
        return inspect.Signature([*before, *created], return_annotation="None")


class Hyperparameters:
    """The hyper-parameters of an optimizer: checked when they are set; schedules are resolved when they are read.

    `_root` is the base of all optimizers. Its attributes can't be names of hyper-parameters.
    """

    ranges: dict[str, Limits] = {}  # noqa: RUF012 (never changed): where they differ from RANGES
    fields: ClassVar[dict[str, Any]] = {}  # hyper-parameter -> default, of a class that declares them
    flags: ClassVar[tuple[str, ...]] = ()  # those that are True or False
    structural: tuple[str, ...] = ()  # hyper-parameters that decide, by being 0 or False, which state arrays there are
    stackable = True  # also serves a stack of nets, (S, P); its hyper-parameters may then be arrays of S numbers

    t: int
    hyper: dict[str, Any]
    _scheduled: tuple[str, ...] = ()  # the names of those that are schedules
    _root: ClassVar[type]
    _takes = "lr=lr, ..."  # what a constructor written by hand passes on

    __signature__ = Signature()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if Hyperparameters in cls.__bases__:
            cls._root = cls
        else:
            declare(cls, cls._root)

    def __new__(cls, *args: Any, **given: Any) -> Any:
        if given and not given.keys() <= cls.fields.keys():
            habits.check_arguments("optimizer", cls.__name__, cls.__init__, given, cls.fields)
        created: Any = super().__new__(cls)
        created.__dict__["hyper"] = {}
        return created

    def __post_init__(self) -> None:
        """Called when the hyper-parameters are there: for a `state` that depends on them."""

    def _bound(self, values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        given = bound(type(self), values, named)
        for name in given:  # a rule of the user's own may have set it already: self.lr = lr
            self.__dict__.pop(name, None)
        self.hyper = {}
        return given

    def _set_all(self, given: dict[str, Any]) -> None:
        """Check and keep each hyper-parameter."""
        for name, value in given.items():
            self._set(name, value)
        self._show()

    def _check_initialised(self) -> None:
        if "scalars" not in self.__dict__:  # __init__ sets it. Not by `t`: a wrapper may have that as a property
            raise TypeError(not_initialised(self))

    if TYPE_CHECKING:  # a hyper-parameter reads as its present value

        def __getattr__(self, name: str) -> Any: ...
        def config(self) -> dict[str, Any]: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.config().items())})"

    def uses(self, name: str) -> bool:
        """True unless a hyper-parameter is 0 or False at every step."""
        return _is_used(self.hyper[name])

    def _show(self) -> None:
        """Make the hyper-parameters attributes of the class, if its constructor was written by hand."""
        # Not by __getattr__: a class that has one takes three times as long to read any attribute.
        for name in (*USUAL, *self.hyper):
            found = next((vars(each)[name] for each in type(self).__mro__ if name in vars(each)), None)
            if found is None or (name in self.hyper and not isinstance(found, (Field, property))):
                setattr(type(self), name, Field(name))

    def __setattr__(self, name: str, value: Any) -> None:
        hyper = self.__dict__.get("hyper", {})
        if name in hyper:
            self._set(name, value)
        elif hyper and (name in USUAL or self._is_typo(name)):
            raise AttributeError(f"{type(self).__name__} has no {name!r} to set; it has {', '.join(hyper)}.")
        else:
            super().__setattr__(name, value)

    def _is_typo(self, name: str) -> bool:
        """True if `name` looks like a misspelt hyper-parameter."""
        # A user's rule may call its attributes what it likes.
        users = not is_ours(type(self), self._root)
        if users or name.startswith("_") or name in self.__dict__ or hasattr(type(self), name):
            return False
        import difflib  # only here: importing it takes a millisecond

        return bool(difflib.get_close_matches(name.lower(), self.hyper, cutoff=0.85))

    def _set(self, name: str, value: Any) -> None:
        clashes = name in self.__dict__ or not isinstance(getattr(self._root, name, Field(name)), Field)
        if clashes and name not in self.hyper:
            raise ValueError(f"{name!r} means something else to every Optimizer: call the hyper-parameter otherwise.")
        scheduled = callable(value) and name not in COUNTS
        value = value if scheduled else self._validated(name, value)
        if name in self.hyper and self._changes_state(name, value):
            raise ValueError(
                f"{type(self).__name__}: {name} decides which state is kept, and is {self.hyper[name]!r}: make another "
                f"{type(self).__name__} with {name}={value!r}."
            )
        self.hyper[name] = value
        self._scheduled = tuple(name for name, value in self.hyper.items() if callable(value))

    def _current(self) -> dict[str, Any]:
        """The hyper-parameters of the step to come; ValueError for a schedule that gives an illegal one."""
        hyper = self.hyper.copy()
        for name in self._scheduled:
            hyper[name] = self._resolve(name, hyper[name], self.t)
        return hyper

    def _resolve(self, name: str, value: Any, steps: int) -> Any:
        """The value of a hyper-parameter after so many steps."""
        return self._validated(name, value(steps)) if callable(value) else value

    def _changes_state(self, name: str, value: Any) -> bool:
        """True if `value` would need other state arrays than there are."""
        if name not in self.structural:
            return False
        before, after = _is_used(self.hyper[name]), _is_used(value)
        return before != after and (after or name in self.flags)

    def _validated(self, name: str, value: Any) -> Any:
        """`value`, if it is legal for `name`. ValueError if not."""
        # A NumPy number would turn float32 arrays into float64, so it becomes a Python number.
        value = value.item() if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0 else value
        if isinstance(value, np.ndarray) and value.ndim == 1 and self.stackable and name not in self.flags:
            return np.array([self._validated(name, each) for each in value.tolist()], np.float64)  # one for each copy
        if name in self.flags:
            legal, good = "True or False", isinstance(value, bool)
        elif name in COUNTS:
            legal, good = "a positive integer", isinstance(value, int) and not isinstance(value, bool) and value > 0
        elif value is None and name in OPTIONAL:
            return None
        else:
            limits = self.ranges.get(name) or RANGES.get(name, NOT_NEGATIVE)
            legal, good = arguments.legal(limits), isinstance(value, (int, float)) and arguments.within(value, limits)
        if not good:
            hint = " The net is given to train, not to its optimizer." if isinstance(value, (dict, list, tuple)) else ""
            raise ValueError(f"{type(self).__name__}: {name} is {legal}, got {value!r:.200}.{hint}")
        return value

    def _check_copies(self, copies: int | None) -> None:
        """ValueError if the net is a stack of so many copies (None: one net), and this can't train it."""
        if copies is not None and not self.stackable:
            raise ValueError(f"{type(self).__name__} can't train a stack of copies: train the nets one after another.")
        for name, value in self.hyper.items():
            if isinstance(value, np.ndarray) and len(value) != copies:
                raise ValueError(
                    f"{type(self).__name__}: {name} is an array of {len(value)}, one for each of as many copies; the "
                    f"net has {copies or 'none'}."
                )


for _name in habits.OPTIMIZER:
    setattr(Hyperparameters, _name, habits.ForeignAttribute(_name, habits.OPTIMIZER))


def not_initialised(rule: Hyperparameters) -> str:
    """The message for a rule whose constructor does not call that of its base."""
    return (
        f"{type(rule).__name__}.__init__ does not call super().__init__({rule._takes}), which takes the "
        f"hyper-parameters: call it there."
    )


def _is_used(value: Any) -> bool:
    return callable(value) or bool(np.any(value))


def is_ours(thing: Any, root: type) -> bool:
    """True if a class or a function belongs to this library, False if its user wrote it."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] in ("layerwise", root.__module__)


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
    "Hyperparameters",
]
