"""What a value is made of, the same in every process: arguments, the content of arrays, the code of a user's functions.

`fingerprint(value)` is a dict, place -> text. Two values with equal fingerprints do the same. A fingerprint holds no
address in memory, no line number and no order of a set. This module imports no other of ours.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.util
import re
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

UNKNOWN = "can't be told"
PACKAGE = Path(__file__).resolve().parent.parent
FOUR = ("layers", "loss", "optim", "model")
SAMPLES = 10_000  # of a schedule, at most twice as many

LEAVES = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice, np.generic, np.dtype)
COMPILED = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType, np.ufunc,
)  # fmt: skip
FUNCTIONS = (types.FunctionType, staticmethod, classmethod, functools.cached_property, functools.partialmethod)
# Operands that are read by the name they stand for: their numbers change with the names around them.
NAMED = {*dis.hasconst, *dis.hasname, *dis.hasfree}
STORE_ATTR = dis.opmap["STORE_ATTR"]
KINDS_OF_CALL = 0x3AC  # of co_flags: *args, **kwargs, generators and coroutines


class Fingerprint(dict[str, str]):
    """Place -> what stands there, as text. `own`: whether code is part of it that no installed package brings."""

    own = False

    def digest(self) -> str:
        return digest(repr(sorted(self.items())))

    def digests(self) -> dict[str, str]:
        """The same, shorter, to be kept in a file."""
        return {place: text if text == UNKNOWN else digest(text) for place, text in self.items()}


def fingerprint(
    value: Any, name: str = "", steps: Iterable[int] = range(1000), state: bool = True, values: bool = True
) -> Fingerprint:
    """Everything on which the behaviour of `value` depends.

    Functions and classes of one's own by their byte code, constants, defaults, closures, and the globals that they
    use; those of the library and of installed packages by name. A hyper-parameter that is a schedule by its values at
    `steps`. Objects by their arguments (`config()`) and attributes. What can't be read has the text UNKNOWN.

    name    of the place where the value itself stands
    state   False: without what changes as the value is used: an optimizer's numbers, seeds and weights, attributes
            that other methods than `__init__` set
    values  False: the code alone
    """
    reader = _Reader(steps, state, values)
    reader.read_all(name, value)
    return reader.found


def plain(text: str) -> str:
    """A repr without addresses in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def digest(content: Any) -> str:
    """16 hexadecimal digits that change with any bit of a text or an array."""
    content = content.encode(errors="surrogatepass") if isinstance(content, str) else np.ascontiguousarray(content)
    return hashlib.blake2b(content, digest_size=8).hexdigest()


class _Reader:
    """Walks through a value and all that it is made of. A thing that was met before is named by its place."""

    def __init__(self, steps: Iterable[int], state: bool, values: bool) -> None:
        self.found = Fingerprint()
        self.steps = steps
        self.state = state
        self.values = values
        self.seen: dict[int, tuple[str, Any]] = {}  # the value too: as long as it lives, no other has its id
        self.waiting: deque[tuple[str, Any]] = deque()  # no recursion: nets may be nested deeper than Python's stack

    def read_all(self, place: str, value: Any) -> None:
        self.read(place, value)
        while self.waiting:
            self._read(*self.waiting.popleft())

    def read(self, place: str, value: Any) -> None:
        self.waiting.append((place, value))

    def _is_new(self, place: str, value: Any) -> bool:
        first, _ = self.seen.setdefault(id(value), (place, value))
        self.found[place] = f"as {first}"
        return first == place

    def _read(self, place: str, value: Any) -> None:
        if isinstance(value, LEAVES):
            self.found[place] = repr(value)
        elif isinstance(value, types.ModuleType):
            self.found[place] = f"module {value.__name__}"
        elif isinstance(value, type):
            self._class(place, value)
        # Equal tuples may be one object or two.
        elif isinstance(value, (tuple, frozenset)) or self._is_new(place, value):
            self._content(place, value)

    def _content(self, place: str, value: Any) -> None:
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self.found[place] = f"array {value.dtype} {value.shape} {digest(value)}"
        elif isinstance(value, np.ndarray):
            self.read(place, value.tolist())
        elif isinstance(value, dict):
            self.found[place] = f"dict of {[plain(repr(key)) for key in value]}"
            for key, each in value.items():
                self.read(f"{place}[{plain(repr(key))}]", each)
        elif isinstance(value, (list, tuple, deque)):
            self.found[place] = f"{type(value).__name__} of {len(value)}"
            for number, each in enumerate(value):
                self.read(f"{place}[{number}]", each)
        elif isinstance(value, (set, frozenset)):
            each_found = [self._apart(each) for each in value]
            self.found[place] = f"set {sorted(found.digest() for found in each_found)}"
        elif isinstance(value, types.FunctionType):
            self._function(place, value)
        elif isinstance(value, types.MethodType):
            self.read(place, value.__func__)
            self._part(f"{place}.self", value.__self__)
        elif isinstance(value, functools.partial):
            self.read(place, value.func)
            self._part(f"{place}.args", value.args)
            self._part(f"{place}.keywords", value.keywords)
        elif isinstance(value, property):
            for each in (value.fget, value.fset, value.fdel):
                if isinstance(each, types.FunctionType):
                    self.read(f"{place}.{each.__name__}", each)
        elif isinstance(value, (staticmethod, classmethod)):
            self.read(place, value.__func__)
        elif isinstance(value, (functools.cached_property, functools.partialmethod)):
            self.read(place, value.func)
        elif isinstance(value, COMPILED):
            bound = getattr(value, "__self__", None)
            self.found[place] = f"function {getattr(value, '__qualname__', value.__name__)}"
            if bound is not None and not isinstance(bound, types.ModuleType):
                self._part(f"{place}.self", bound)
        elif callable(value) and hasattr(value, "__wrapped__"):
            self.read(place, value.__wrapped__)
        else:
            self._object(place, value)

    def _part(self, place: str, value: Any) -> None:
        if self.values:
            self.read(place, value)

    def _apart(self, value: Any) -> Fingerprint:
        found = fingerprint(value, "", self.steps, self.state, self.values)
        self.found.own |= found.own
        return found

    def _unknown(self, place: str) -> None:
        self.found[place] = UNKNOWN
        self.found.own = True

    # Code.

    def _function(self, place: str, function: types.FunctionType) -> None:
        code, around = function.__code__, function.__globals__
        whose = _whose(around.get("__name__"), around.get("__file__"))
        if whose == "own":
            self.found.own = True
            self.found[place] = f"code {digest(_told(code))}"
        else:
            self.found[place] = f"function {function.__module__}.{function.__qualname__}"
        if not self.values or whose == "installed":
            return
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                self.read(f"{place}.{name}", cell.cell_contents)
            except ValueError:  # nothing is in it yet
                self.found[f"{place}.{name}"] = "nothing"
        named = code.co_varnames[: code.co_argcount]
        defaults = function.__defaults__ or ()
        by_name = dict(zip(named[len(named) - len(defaults) :], defaults, strict=True)) | (
            function.__kwdefaults__ or {}
        )
        if whose == "own":
            by_name |= vars(function) if self.state else {}
        for name, each in by_name.items():
            self.read(f"{place}.{name}", each)
        for name, each in _used(code, around) if whose == "own" else ():
            self.read(f"{place}.{name}", each) if each is not UNKNOWN else self._unknown(f"{place}.{name}")

    def _class(self, place: str, kind: type) -> None:
        new = self._is_new(place, kind)
        own = [each for each in kind.__mro__ if _whose_class(each) == "own"]
        self.found[place] = f"class {kind.__qualname__}" if own else f"class {kind.__module__}.{kind.__qualname__}"
        for each in own if new else ():
            self.found.own = True
            for name, value in sorted(vars(each).items()):
                private = name.startswith("__") and name.endswith("__")
                if isinstance(value, (*FUNCTIONS, property, type)) or hasattr(value, "__wrapped__"):
                    if name != "__weakref__":
                        self.read(f"{place}.{name}", value)
                elif not (private or name == "_abc_impl" or hasattr(value, "__get__")):
                    self._part(f"{place}.{name}", value)

    # Objects.

    def _object(self, place: str, value: Any) -> None:
        kind: Any = type(value)
        self._class(place, kind)
        if not self.values:
            return
        if isinstance(value, (np.random.Generator, np.random.RandomState)):
            if self.state:
                drawn = value.bit_generator.state if isinstance(value, np.random.Generator) else value.get_state()
                self.read(f"{place}.state", drawn)
        elif _whose_class(kind) == "installed":
            self._reduced(place, value)
        else:
            self._attributes(place, value)

    def _attributes(self, place: str, value: Any) -> None:
        kind: Any = type(value)
        ours = any(_whose_class(each) == "ours" for each in kind.__mro__)
        arguments = dict(value.config()) if ours and hasattr(value, "config") else {}
        if hasattr(value, "seeds"):
            arguments.pop("seed", None)
        hyper = getattr(value, "hyper", {}) if ours else {}
        for name, each in arguments.items():
            if name in hyper and callable(each):
                self._schedule(f"{place}.{name}", each)
            elif name in hyper and not self.state:
                is_structural = name in value.structural  # whether it is 0 decides which state there is
                self.found[f"{place}.{name}"] = "0" if is_structural and not np.any(each) else "a number"
            else:
                self.read(f"{place}.{name}", each)
        present = dict(getattr(value, "__dict__", {}))
        for each in kind.__mro__:
            slot_names = vars(each).get("__slots__", ())
            present |= {
                name: getattr(value, name, None)
                for name in ([slot_names] if isinstance(slot_names, str) else slot_names)
            }
        parameters = present.get("parameters", {}) if ours else {}
        beside = present.keys() - set(arguments) - {"__dict__", "__weakref__"}
        beside -= {f"_{name}{end}" for name in parameters for end in ("", "_gradient")}
        if ours and hasattr(value, "config"):  # it tells all that the library's own classes are made of
            bases: list[Any] = [each for each in kind.__mro__ if _whose_class(each) == "ours"]
            beside = set() if kind in bases else beside.difference(*map(_attributes_of, bases))
        for name in sorted(beside):
            if self.state or name in _settings(kind):
                self.read(f"{place}.{name}", present[name])
        if "_frozen" in present and ours:
            self.found[f"{place}.frozen"] = repr(present["_frozen"])
        if self.state and ours:
            for name, array in (parameters | present.get("buffers", {})).items():
                self.read(f"{place}.{name}", array)

    def _reduced(self, place: str, value: Any) -> None:
        """An object of an installed package, as pickle sees it."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # a lock, a file, a generator: of whatever type
            self._unknown(place)
            return
        if isinstance(reduced, str):
            self.found[place] = reduced
            return
        _, arguments, *state = reduced
        for name, each in zip(("arguments", "state", "items", "entries"), (arguments, *state), strict=False):
            if each is not None:
                self.read(f"{place}.{name}", list(each) if isinstance(each, Iterator) else each)

    def _schedule(self, place: str, schedule: Any) -> None:
        """Its values; where some are left out, its code too."""
        steps = list(self.steps)
        every = max(1, len(steps) // SAMPLES)
        self.found.own |= self._apart(schedule).own
        try:
            values = np.array([schedule(t) for t in steps[::every]], np.float64)
        except Exception:  # it may be meant for fewer steps
            self.read(place, schedule)
            return
        self.found[place] = f"schedule {digest(values)}"
        if every > 1 or not self.state:
            self.read(f"{place}.function", schedule)


# Code, and whose it is -----------------------------------------------------------------------------------------


def _told(code: types.CodeType) -> str:
    """The instructions with what they name, and the arguments: the same after lines, comments, docstrings or names of
    local variables have changed."""
    lines = [
        (each.opname, _constant(each.argval) if each.opcode in NAMED else each.arg)
        for each in dis.get_instructions(code)
    ]
    flags = code.co_flags & KINDS_OF_CALL
    count = code.co_argcount + code.co_kwonlyargcount
    arguments = code.co_varnames[:count], code.co_argcount, code.co_posonlyargcount, flags
    return repr((lines, arguments, getattr(code, "co_exceptiontable", b"")))


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _told(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _used(code: types.CodeType, around: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of the globals that the code uses, "helper.rate" of a module of one's own. UNKNOWN for such a
    module that is imported within the function."""
    chain: Any = None  # a module of one's own, whose attribute comes next
    label = ""
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_ATTR", "LOAD_METHOD") and chain is not None:
            label, value = f"{label}.{each.argval}", getattr(chain, each.argval, None)
        elif each.opname in ("LOAD_GLOBAL", "LOAD_NAME") and each.argval in around:
            label, value = each.argval, around[each.argval]
        else:
            if each.opname == "IMPORT_NAME" and _is_own_module(each.argval):
                yield each.argval, UNKNOWN
            chain = None
            continue
        chain = value if isinstance(value, types.ModuleType) and _is_own_module(value.__name__) else None
        if chain is None:
            yield label, value
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _used(constant, around)


def _is_own_module(name: str) -> bool:
    top = name.partition(".")[0]
    module = sys.modules.get(name) or sys.modules.get(top)
    if module is not None:
        return _whose(module.__name__, getattr(module, "__file__", None)) == "own"
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return True
    return spec is None or _whose(top, spec.origin) == "own"


@functools.cache
def _whose(module: str | None, file: str | None) -> str:
    """ "ours", "installed" or "own", of code from that module."""
    if file is not None:
        path = Path(file).resolve()
        if PACKAGE in path.parents or (path.parent == PACKAGE.parent and path.stem in FOUR):
            return "ours"
    if module == "__main__":  # whatever started it, as mpi4py and notebooks do
        return "own"
    top = (module or "").partition(".")[0]
    packaged = file is not None and {"site-packages", "dist-packages"} & set(Path(file).parts)
    built_in = file is None and top in sys.modules
    return "installed" if packaged or built_in or top in sys.stdlib_module_names else "own"


def _whose_class(kind: type) -> str:
    module = sys.modules.get(kind.__module__)
    return _whose(kind.__module__, getattr(module, "__file__", None))


def _stored(function: Any) -> set[str]:
    """The attributes that a function sets, of whatever object."""
    function = getattr(function, "__func__", getattr(function, "fget", function))
    code = getattr(function, "__code__", None)
    if code is None:
        return set()
    names: set[str] = set()
    more = 0
    for operation, operand in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        operand |= more
        more = operand << 8 if operation == dis.EXTENDED_ARG else 0
        if operation == STORE_ATTR:  # dis.get_instructions takes a hundred times as long
            names.add(code.co_names[operand])
    return names


@functools.cache
def _attributes_of(kind: Any) -> set[str]:
    """The attributes that a class of the library knows, and that are no settings of one's own."""
    names = set(vars(kind)) | set(vars(kind).get("__annotations__", ()))
    settings = {name for name in _settings(kind) if not name.startswith("_")} - {"hyper"}
    return names.union(*map(_stored, vars(kind).values())) - settings


@functools.cache
def _settings(kind: Any) -> set[str]:
    """The attributes that the constructor sets and no other method changes."""
    own = [each for each in kind.__mro__ if _whose_class(each) != "installed"]
    given = set().union(*(_stored(vars(each).get("__init__")) for each in own), getattr(kind, "__annotations__", ()))
    arguments = getattr(kind.__init__, "__code__", None)
    named = set(arguments.co_varnames[1 : arguments.co_argcount + arguments.co_kwonlyargcount]) if arguments else set()
    changed = [_stored(each) for kind in own for name, each in vars(kind).items() if name != "__init__"]
    return named | given.difference(*changed)


__all__ = ["UNKNOWN", "Fingerprint", "digest", "fingerprint", "plain"]
