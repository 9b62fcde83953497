"""Names that a module of ours offers and that live elsewhere: found when somebody asks for them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from layerwise.core import habits

# Module -> name -> the module of layerwise where it lives. A file that is loaded finds its classes here, too.
ELSEWHERE: dict[str, dict[str, str]] = {
    "layers": {"Model": "model"} | dict.fromkeys(
        [
            "AveragePool1D", "AveragePool2D", "Conv1D", "Conv2D", "ConvTranspose2D", "DepthwiseConv2D",
            "GlobalAveragePool1D", "GlobalAveragePool2D", "GlobalMaxPool1D", "GlobalMaxPool2D", "MaxPool1D",
            "MaxPool2D", "SpatialDropout", "UpSample2D", "ZeroPad2D",
        ],
        "convolution",
    ),
    "optim": {"LBFGS": "second_order"},
    "training.serialize": {"Schedule": "schedules"},
}  # fmt: skip
# The same of names that pickles of earlier versions have: where the thing is now, and what it is called there.
FORMERLY = {("optim", "_Part"): ("core.layout", "ParameterGroup")}


def find(module: str, name: str, known: Iterable[str]) -> Any:
    """The value of `module.name`. AttributeError where there is none, with what to write where it is a habit."""
    home, name = FORMERLY.get((module, name), (ELSEWHERE[module].get(name), name))
    if home is None:
        raise habits.missing(module, name, known)
    return getattr(importlib.import_module(f"layerwise.{home}"), name)
