"""A net as what JSON can hold, and made again from that: what a file says of a net beside its arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from layerwise import layers
from layerwise.files import ModelFileError


def described(value: Any, functions: dict[str, Any]) -> Any:
    """A layer, or an argument of one, as what JSON can hold; `functions` collects those of one's own by name."""
    if isinstance(value, layers.Layer):
        name = type(value).__name__
        told = {"type": name} | {k: described(v, functions) for k, v in value.config().items()}
        own = getattr(layers, name, None) is not type(value)
        missing = [each for each in value._arguments() if not hasattr(value, each)]
        if missing and type(value).config is layers.Layer.config:
            raise ValueError(
                f"{name} does not keep its argument {missing[0]!r} under that name, so it can't be saved: set "
                f"self.{missing[0]}, or write config()."
            )
        frozen = not value.parts() and value._frozen
        return told | ({"own": True} if own else {}) | ({"frozen": True} if frozen else {})
    if isinstance(value, (list, tuple)):
        return [described(each, functions) for each in value]
    if isinstance(value, dict):
        return {"dict": {str(name): described(each, functions) for name, each in value.items()}}
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        if functions.setdefault(name, value) is not value:
            raise ValueError(f"two functions in the net are named {name!r}, and load finds them by name: rename one.")
        return {"function": name}
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, (str, int, float, type(None))):
        raise TypeError(f"a file holds numbers, strings, lists and dicts as arguments of a layer, got {value!r}.")
    return value


def seedless(description: Any) -> Any:
    """The description of a net without the seeds of it and of the nets within: a checkpoint brings its own."""
    if isinstance(description, list):
        return [seedless(each) for each in description]
    if not isinstance(description, dict):
        return description
    without = "seed" if description.get("type") == "Model" and not description.get("own") else None
    return {name: seedless(each) for name, each in description.items() if name != without}


class Maker:
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
        copies, seed = value.get("copies"), value.get("seed")
        if copies is not None and (not isinstance(seed, list) or len(seed) != copies):
            raise ModelFileError(f"a stack of {copies!r} nets has a seed for each, the file has {seed!r}.")
        told = ("type", "own", "frozen")
        arguments = {name: self.argument(name, each) for name, each in value.items() if name not in told}
        layer = self.layer_class(value.get("type"), value.get("own"))(**arguments)
        if value.get("frozen"):
            layer.frozen = True
        return layer

    def argument(self, name: str, value: Any) -> Any:
        if name == "init" and isinstance(value, dict) and value.get("function") not in self.custom:
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


__all__ = ["Maker", "described", "seedless"]
