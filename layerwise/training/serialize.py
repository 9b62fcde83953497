"""Objects turned into what JSON can hold, and back: one encoder for all that a file says beside its arrays.

Numbers, strings, None and lists stand for themselves. Everything else is a dict, whose key says what it is:

    {"type": "Linear", "arguments": {...}}  a layer, optimizer, loss or schedule: the name of its class, its arguments
    {"function": "f"}, {"own": "f"}         a function or a class of the user's, by name; the user gives it again
    {"dict": ...}, {"tuple": [...]}         a dict, by name or in pairs (key, value); a tuple
    {"array": ...}                          an array: its name in the file, or its numbers

In this file, in this order:
  both ways        Encoder, Decoder: what all have in common
  a net            encode_net, NetDecoder, and what two files of one net may differ in
  a training       encode_settings, decode_settings: its optimizer and its loss; encode_state, decode_state: its state
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from layerwise import layers, loss, optim
from layerwise.core import lazy
from layerwise.core.files import ModelFileError

Array = np.ndarray

DEEPEST = 100  # layers within layers: Python's stack has room to load and copy them, wherever that is called from


class Encoder:
    """A value as what JSON can hold. `name` is the place of the value in the whole."""

    def encode(self, value: Any, name: str = "") -> Any:
        if isinstance(value, (list, tuple)):
            return self.items(value, [self.encode(each, f"{name}.{place}") for place, each in enumerate(value)])
        if isinstance(value, dict):
            return {"dict": self.pairs(value, name)}
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return self.object(value, name)

    def items(self, value: Any, items: list[Any]) -> Any:
        return items

    def pairs(self, value: dict[Any, Any], name: str) -> Any:
        return [[self.encode(key, name), self.encode(each, f"{name}.{key}")] for key, each in value.items()]

    def object(self, value: Any, name: str) -> Any:
        """What is no number, string, list or dict: a subclass says what it makes of it."""
        raise NotImplementedError


class Decoder:
    """A value again, from what an Encoder made. Anything else is an error of any type: `files.reading` takes it."""

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "type" in value:
            return self.instance(value)
        if "dict" in value:
            items = value["dict"]
            pairs = items.items() if isinstance(items, dict) else items
            return {self.decode(key): self.decode(each) for key, each in pairs}
        if "tuple" in value:
            return tuple(self.decode(each) for each in value["tuple"])
        if "array" in value:
            return self.array(value["array"])
        return self.function(value)

    def instance(self, encoded: dict[str, Any]) -> Any:
        raise ModelFileError(f"the file has an object of type {encoded['type']!r} where none stands.")

    def array(self, encoded: Any) -> Any:
        return np.array(encoded)

    def function(self, encoded: dict[str, Any]) -> Any:
        raise ModelFileError(f"the file has {encoded!r:.200} where a value stands.")


# A net -----------------------------------------------------------------------------------------------------------


def encode_net(net: layers.Layer) -> dict[str, Any]:
    """A layer with all that it holds. ValueError or TypeError for what could not be loaded again."""
    return NetEncoder().encode(net)


class NetEncoder(Encoder):
    """Layers, by class and arguments; functions, by name."""

    def __init__(self) -> None:
        self.depth = 0
        self.functions: dict[str, Any] = {}

    def pairs(self, value: dict[Any, Any], name: str) -> Any:
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a file holds dicts whose keys are strings as arguments of a layer, got {value!r:.200}.")
        return {key: self.encode(each) for key, each in value.items()}

    def object(self, value: Any, name: str) -> Any:
        if isinstance(value, layers.Layer):
            return self.layer(value)
        if not callable(value):
            raise TypeError(f"a file holds numbers, strings, lists and dicts as arguments of a layer, got {value!r}.")
        name = getattr(value, "__name__", type(value).__name__)
        if self.functions.setdefault(name, value) is not value:
            raise ValueError(f"two functions in the net are named {name!r}, and load finds them by name: rename one.")
        return {"function": name}

    def layer(self, layer: layers.Layer) -> dict[str, Any]:
        name = type(layer).__name__
        if self.depth > DEEPEST:
            raise ValueError(
                f"{name} stands within {self.depth} other layers, and a file holds {DEEPEST} within one another: put "
                f"the layers one after the other in a Model."
            )
        missing = [each for each in layer._arguments() if not hasattr(layer, each)]
        if missing and type(layer).config is layers.Layer.config:
            raise ValueError(
                f"{name} does not keep its argument {missing[0]!r} under that name, so it can't be saved: set "
                f"self.{missing[0]}, or write config()."
            )
        self.depth += 1
        encoded: dict[str, Any] = {"type": name, "arguments": {k: self.encode(v) for k, v in _config(layer).items()}}
        self.depth -= 1
        if getattr(layers, name, None) is not type(layer):
            encoded["own"] = True
        if not layer.children() and layer._frozen:
            encoded["frozen"] = True
        if getattr(layer, "stopped", None) is not None:  # of a stack
            encoded["stopped"] = layer.stopped.tolist()  # type: ignore[attr-defined]
        return encoded


def _config(layer: layers.Layer) -> dict[str, Any]:
    """The arguments with which `load` calls the layer's class. ValueError if it can't."""
    config, init = layer.config(), _signature(type(layer).__init__)
    takes = init.parameters
    if "name" not in takes and not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
        config = {name: value for name, value in config.items() if name != "name"}  # a container may do without
    try:
        init.bind(layer, **config)
    except TypeError as error:
        raise ValueError(
            f"{type(layer).__name__} can't be saved: load would call it with {list(config)}, and its arguments are "
            f"{list(takes)[1:]} ({error}). Write config(), which gives its arguments by name."
        ) from None
    ours = next(each for each in type(layer).__mro__ if getattr(layers, each.__name__, None) is each)
    for name in takes.keys() - config.keys() - _signature(ours.__init__).parameters.keys():
        default = takes[name].default
        lost = not hasattr(layer, name) or repr(getattr(layer, name)) != repr(default)
        if lost and takes[name].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise ValueError(
                f"{type(layer).__name__} can't be saved: its config() does not give the argument {name!r}, and load "
                f"would take the default, {default!r}. Write config(), which gives all its arguments by name."
            )
    return config


# The last ones alone: a class of the user's own is held by its constructor.
_signature = functools.lru_cache(maxsize=64)(inspect.signature)


def named(custom: Any) -> dict[str, Any]:
    """What `load` and `to_onnx` are given as `custom`. TypeError unless it is a dict whose keys are names."""
    if custom is not None and not (isinstance(custom, Mapping) and all(isinstance(key, str) for key in custom)):
        raise TypeError(f'custom is a dict by name, such as {{"Scale": ...}}, got {custom!r}.')
    return dict(custom or {})


class NetDecoder(Decoder):
    """Layers: classes by name from the table of layers or from `custom`, nothing else."""

    def __init__(self, custom: dict[str, Any]) -> None:
        self.custom = custom

    def instance(self, encoded: dict[str, Any]) -> Any:
        arguments = encoded["arguments"]
        kind = self.layer_class(encoded["type"], encoded.get("own"))
        if getattr(kind, "__init__", None) is layers.Model.__init__:
            copies, seed = arguments.get("copies"), arguments.get("seed")
            if copies is not None and (not isinstance(seed, list) or len(seed) != copies):
                raise ModelFileError(f"a stack of {copies!r} nets has a seed for each, the file has {seed!r}.")
        layer = kind(**{name: self.argument(name, each) for name, each in arguments.items()})
        if encoded.get("frozen"):
            layer.frozen = True
        if "stopped" in encoded:
            stopped = encoded["stopped"]
            if not isinstance(stopped, list) or not all(isinstance(each, bool) for each in stopped):
                raise ModelFileError(
                    f"the copies of a stack that stopped are True or False each, got {stopped!r:.200}."
                )
            layer.stopped = np.array(stopped)
        return layer

    def argument(self, name: str, value: Any) -> Any:
        missing = isinstance(value, dict) and "function" in value and value["function"] not in self.custom
        if name == "init" and missing:
            return None  # the weights come from the file
        return self.decode(value)

    def function(self, encoded: dict[str, Any]) -> Any:
        name = encoded["function"]
        if name not in self.custom:
            raise ModelFileError(
                f"the net has a function {name!r} of one's own: give it, load(path, custom={{{name!r}: the_function}})."
            )
        return self.custom[name]

    def layer_class(self, name: Any, own: Any) -> Callable[..., Any]:
        if name in self.custom:
            return self.custom[name]
        if name in layers.__all__ and not own:
            return getattr(layers, name)
        raise ModelFileError(
            f"the file has a layer of type {name!r}, which is none of ours: give its class, "
            f"load(path, custom={{{name!r}: TheClass}})."
        )


def of_header(header: dict[str, Any]) -> Any:
    """The description of the net in a file's header."""
    return header["model"] if header["version"] > 1 else _of_version_1(header["model"])


def _of_version_1(description: Any) -> Any:
    """A description of version 1 as it is today. In version 1 the arguments of a layer stood beside its type."""
    if not isinstance(description, dict) or "type" not in description:
        return _with_each(description, _of_version_1)
    encoded = {name: value for name, value in description.items() if name in ("type", "own", "frozen")}
    return encoded | {"arguments": {k: _of_version_1(v) for k, v in description.items() if k not in encoded}}


def seedless(description: Any, models: Collection[str], brought: Collection[str] = ("stopped",)) -> Any:
    """The description of a net without the seeds of the classes `models`, and without what else a checkpoint has
    `brought`: the copies that stopped, the layers that are frozen. An argument that is newer than the file has its
    default."""
    if not isinstance(description, dict) or "type" not in description:
        return _with_each(description, lambda each: seedless(each, models, brought))
    without = "seed" if description["type"] in models else None
    arguments = {k: seedless(v, models, brought) for k, v in description["arguments"].items() if k != without}
    arguments = _defaults(description) | arguments
    return {k: v for k, v in description.items() if k not in brought} | {"arguments": arguments}


def _defaults(description: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a layer of ours may be called without."""
    if description.get("own") or description["type"] not in layers.__all__:
        return {}
    takes = _signature(getattr(layers, description["type"]).__init__).parameters.values()
    return {each.name: each.default for each in takes if each.default is not each.empty}


def _with_each(description: Any, change: Callable[[Any], Any]) -> Any:
    """The same, with `change(each)` in place of each thing that a list or a dict holds."""
    if isinstance(description, list):
        return [change(each) for each in description]
    if isinstance(description, dict) and "dict" in description:
        return {"dict": {name: change(each) for name, each in description["dict"].items()}}
    return description


# A training ------------------------------------------------------------------------------------------------------


def kinds() -> list[tuple[Any, Any]]:
    """(module, base class) of optimizers, losses and schedules. Importing the schedules takes 10 ms, so they are
    imported here, when a training is written or read, and not with the model."""
    schedule = lazy.find("training.serialize", "Schedule", ())
    return [(optim, optim.Optimizer), (loss, loss.Loss), (sys.modules[schedule.__module__], schedule)]


def encode_settings(value: Any) -> Any:
    """An optimizer, a loss or a schedule, by class and arguments; what is of the user's own, by name alone."""
    return SettingsEncoder().encode(value)


class SettingsEncoder(Encoder):
    def object(self, value: Any, name: str) -> Any:
        for module, kind in kinds():
            if isinstance(value, kind):
                name = type(value).__name__
                if getattr(module, name, None) is not type(value):
                    return {"own": name}
                return {"type": name, "arguments": {key: self.encode(each) for key, each in value.config().items()}}
        if callable(value):
            return {"own": getattr(value, "__name__", type(value).__name__)}
        return {"array": value.tolist()} if isinstance(value, np.ndarray) else value


def decode_settings(encoded: Any, what: str) -> Any:
    """The optimizer ("optim") or loss ("loss") that `encode_settings` was given. ModelFileError if it needs something
    of the user's own: the user gives it then."""
    value = SettingsDecoder(what).decode(encoded)
    if not isinstance(value, optim.Optimizer if what == "optim" else loss.Loss):
        raise ModelFileError(f"the file has {value!r}, which is no {what} of ours.")
    return value


class SettingsDecoder(Decoder):
    def __init__(self, what: str) -> None:
        self.what = what

    def instance(self, encoded: dict[str, Any]) -> Any:
        name = encoded["type"]
        for module, kind in kinds():
            found = getattr(module, name, None)
            if name in module.__all__ and isinstance(found, type) and issubclass(found, kind):
                value = found(**{key: self.decode(each) for key, each in encoded["arguments"].items()})
                hyper = value.hyper.values() if isinstance(value, optim.Optimizer) else ()
                if any(callable(each) and not isinstance(each, kinds()[-1][1]) for each in hyper):
                    raise ModelFileError(
                        f"the file has {value!r}, whose hyper-parameters are no numbers and no schedules."
                    )
                return value
        raise ModelFileError(f"the file names {name!r}, which is no {self.what} of ours.")

    def function(self, encoded: dict[str, Any]) -> Any:
        what = self.what
        raise ModelFileError(
            f"{what} of this training has {encoded['own']!r}, of one's own: give it, train({what}=...)."
        )


def classes(encoded: Any) -> Any:
    """The classes alone of an encoded optimizer or loss, each wrapper before what it wraps: numbers and schedules may
    be given anew."""
    if not isinstance(encoded, dict) or "type" not in encoded:
        return encoded.get("own") if isinstance(encoded, dict) else None
    wrapped = [classes(each) for name, each in encoded["arguments"].items() if name == "optimizer"]
    return [encoded["type"], *wrapped]


def encode_state(value: Any, arrays: dict[str, Array], name: str) -> Any:
    """A tree of dicts, lists, tuples, numbers, strings and arrays; the arrays are put into `arrays`, under names that
    begin with `name`. TypeError for anything else."""
    return StateEncoder(arrays).encode(value, name)


def decode_state(encoded: Any, arrays: dict[str, Array]) -> Any:
    """What `encode_state` was given; the arrays are taken out of `arrays`."""
    return StateDecoder(arrays).decode(encoded)


class StateEncoder(Encoder):
    def __init__(self, arrays: dict[str, Array]) -> None:
        self.arrays = arrays

    def items(self, value: Any, items: list[Any]) -> Any:
        return items if isinstance(value, list) else {"tuple": items}

    def object(self, value: Any, name: str) -> Any:
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            raise TypeError(
                f"{name}: a file holds numbers, strings, arrays, and lists and dicts of them, got {value!r}."
            )
        while name in self.arrays:  # {"a": {"b": ...}, "a.b": ...}
            name += "_"
        self.arrays[name] = value
        return {"array": name}


class StateDecoder(Decoder):
    def __init__(self, arrays: dict[str, Array]) -> None:
        self.arrays = arrays

    def array(self, encoded: Any) -> Array:
        return self.arrays.pop(encoded)


__all__ = [
    "NetDecoder", "classes", "decode_settings", "decode_state", "encode_net", "encode_settings", "encode_state",
    "named", "of_header", "seedless",
]  # fmt: skip
