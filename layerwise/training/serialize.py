"""A net as what JSON can hold, and made again from that: what a file says of a net beside its arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from layerwise import layers
from layerwise.core.files import ModelFileError

DEEPEST = 100  # layers within layers: Python's stack has room to load and copy them, wherever that is called from


def described(value: Any, functions: dict[str, Any], depth: int = 0) -> Any:
    """A layer, or an argument of one, as what JSON can hold; `functions` collects those of one's own by name."""
    if isinstance(value, layers.Layer):
        name = type(value).__name__
        if depth > DEEPEST:
            raise ValueError(
                f"{name} stands within {depth} other layers, and a file holds {DEEPEST} within one another: put the "
                f"layers one after the other in a Model."
            )
        own = getattr(layers, name, None) is not type(value)
        missing = [each for each in value._arguments() if not hasattr(value, each)]
        if missing and type(value).config is layers.Layer.config:
            raise ValueError(
                f"{name} does not keep its argument {missing[0]!r} under that name, so it can't be saved: set "
                f"self.{missing[0]}, or write config()."
            )
        told = {"type": name, "arguments": {k: described(v, functions, depth + 1) for k, v in _config(value).items()}}
        frozen = not value.children() and value._frozen
        which = getattr(value, "stopped", None)  # of a stack
        stopped = {} if which is None else {"stopped": which.tolist()}
        return told | ({"own": True} if own else {}) | ({"frozen": True} if frozen else {}) | stopped
    if isinstance(value, (list, tuple)):
        return [described(each, functions, depth) for each in value]
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"a file holds dicts whose keys are strings as arguments of a layer, got {value!r:.200}.")
        return {"dict": {name: described(each, functions, depth) for name, each in value.items()}}
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        if functions.setdefault(name, value) is not value:
            raise ValueError(f"two functions in the net are named {name!r}, and load finds them by name: rename one.")
        return {"function": name}
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, (str, int, float, type(None))):
        raise TypeError(f"a file holds numbers, strings, lists and dicts as arguments of a layer, got {value!r}.")
    return value


def _config(layer: layers.Layer) -> dict[str, Any]:
    """What the layer's class is called with when it is loaded. ValueError where it can't be."""
    config, init = layer.config(), inspect.signature(type(layer).__init__)
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
    for name in takes.keys() - config.keys() - inspect.signature(ours.__init__).parameters.keys():
        default = takes[name].default
        lost = not hasattr(layer, name) or repr(getattr(layer, name)) != repr(default)
        if lost and takes[name].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise ValueError(
                f"{type(layer).__name__} can't be saved: its config() does not give the argument {name!r}, and load "
                f"would take the default, {default!r}. Write config(), which gives all its arguments by name."
            )
    return config


def of_header(header: dict[str, Any]) -> Any:
    """The description of the net in a file's header."""
    return header["model"] if header["version"] > 1 else _of_version_1(header["model"])


def _of_version_1(description: Any) -> Any:
    """As it is today: the arguments of a layer stood beside its type."""
    if not isinstance(description, dict) or "type" not in description:
        return _with_each(description, _of_version_1)
    told = {name: value for name, value in description.items() if name in ("type", "own", "frozen")}
    return told | {"arguments": {k: _of_version_1(v) for k, v in description.items() if k not in told}}


def seedless(description: Any, models: Collection[str], brought: Collection[str] = ("stopped",)) -> Any:
    """The description of a net without the seeds of the classes `models`, and without what else a checkpoint has
    `brought`: the copies that stopped, the layers that are frozen. An argument that a layer has got since the file was
    written has its default."""
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
    takes = inspect.signature(getattr(layers, description["type"]).__init__).parameters.values()
    return {each.name: each.default for each in takes if each.default is not each.empty}


def _with_each(description: Any, change: Callable[[Any], Any]) -> Any:
    """The same, `change` made of all that a list or a dict holds."""
    if isinstance(description, list):
        return [change(each) for each in description]
    if isinstance(description, dict) and "dict" in description:
        return {"dict": {name: change(each) for name, each in description["dict"].items()}}
    return description


def named(custom: Any) -> dict[str, Any]:
    """What `load` and `to_onnx` are given as `custom`. TypeError unless it is a dict whose keys are names."""
    if custom is not None and not (isinstance(custom, Mapping) and all(isinstance(key, str) for key in custom)):
        raise TypeError(f'custom is a dict by name, such as {{"Scale": ...}}, got {custom!r}.')
    return dict(custom or {})


class Deserializer:
    """Layers from their descriptions: classes by name from the table of layers or from `custom`, nothing else."""

    def __init__(self, custom: dict[str, Any]) -> None:
        self.custom = custom

    def make(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.make(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "type" not in value:
            if "dict" in value:
                return {name: self.make(each) for name, each in value["dict"].items()}
            return self.function(value["function"])
        arguments = value["arguments"]
        kind = self.layer_class(value["type"], value.get("own"))
        if getattr(kind, "__init__", None) is layers.Model.__init__:
            copies, seed = arguments.get("copies"), arguments.get("seed")
            if copies is not None and (not isinstance(seed, list) or len(seed) != copies):
                raise ModelFileError(f"a stack of {copies!r} nets has a seed for each, the file has {seed!r}.")
        layer = kind(**{name: self.argument(name, each) for name, each in arguments.items()})
        if value.get("frozen"):
            layer.frozen = True
        if "stopped" in value:
            stopped = value["stopped"]
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
        return self.make(value)

    def function(self, name: Any) -> Any:
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


__all__ = ["Deserializer", "described", "of_header", "seedless"]
