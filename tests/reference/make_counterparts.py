"""Make counterparts.json: the names of PyTorch's modules and of Keras's layers and activations, with their arguments.

    pip install torch==2.13.0 keras jax
    KERAS_BACKEND=jax python tests/reference/make_counterparts.py

The names that layers declare as `torch` and `keras` are looked up there by tests/test_duties.py.
"""

import inspect
import json
from pathlib import Path

import keras
import torch

MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def arguments(thing, skipped=0):
    """Of "Hardtanh" "min_val max_val inplace"."""
    parameters = list(inspect.signature(thing).parameters.values())[skipped:]
    return " ".join(each.name for each in parameters if each.kind not in MANY)


def kinds(module, base):
    return {name: each for name, each in vars(module).items() if inspect.isclass(each) and issubclass(each, base)}


def make():
    functions = {name: each for name, each in vars(keras.activations).items() if inspect.isfunction(each)}
    for helper in ("deserialize", "get", "serialize"):
        del functions[helper]
    told = {
        "versions": {"torch": torch.__version__, "keras": keras.__version__},
        "torch": {name: arguments(kind) for name, kind in kinds(torch.nn, torch.nn.Module).items()},
        "keras": {name: arguments(kind) for name, kind in kinds(keras.layers, keras.layers.Layer).items()}
        | {name: arguments(function, skipped=1) for name, function in functions.items()},
    }
    path = Path(__file__).with_name("counterparts.json")
    path.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make()
