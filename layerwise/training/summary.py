"""A net as a table of its layers, for a console and for a notebook."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import Any

from layerwise import layers
from layerwise.core import display
from layerwise.core.base import within

HEADER = ("path", "layer", "output", "parameters")


def summary(net: Any) -> display.Text:
    """The table of a built net as text; a notebook shows it as HTML."""
    rows = [*layer_rows(net), ["total", "", "", f"{net.parameter_count:,}"]]
    wide = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    texts = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:<{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in (HEADER, *rows)]
    lines = [text.rstrip() for text in texts]
    rule = "-" * len(lines[0])
    return display.Text("\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]]), display.table(HEADER, rows, 3))


def html(net: Any) -> str:
    """The same as HTML, also of a net that is not built yet."""
    if net.input_shape is not None:
        return summary(net)._repr_html_()
    note = "Not built yet: the first batch, or build(input_shape), tells the sizes."
    return display.table(HEADER, layer_rows(net), 3, [note])


def layer_rows(net: Any) -> list[list[str]]:
    """Path, arguments, output and parameters of each layer within; the last two empty where the net isn't built."""
    rows = []
    for layer in itertools.islice(within(net), 1, None):
        shape = layer.input_shape and str(layer.output_shape(layer.input_shape))
        count = sum(math.prod(shape) for shape, _ in layer._specs.values())
        numbers = f"{count:,}" + " (frozen)" * (count > 0 and layer.frozen)
        rows.append([layer.path, written(layer), shape or "", numbers if shape and not layer.children() else ""])
    return rows


def written(layer: layers.Layer) -> str:
    """A layer as it is made, without what is at its default or stands in other rows: Conv2D(32, 3, padding='same')."""
    parameters = inspect.signature(type(layer).__init__).parameters
    arguments = []
    for name, value in layer.config().items():
        default = parameters[name].default if name in parameters else None
        if value is None or repr(value) == repr(default) or (layer.children() and name in ("layers", "branches")):
            continue
        if isinstance(layer, layers.Model) and name in ("seed", "dtype", "copies"):  # those of the net around it
            continue
        shown = getattr(value, "__name__", None) or " ".join(repr(value).split())
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        arguments.append(shown if default is inspect.Parameter.empty else f"{name}={shown}")
    return f"{type(layer).__name__}({', '.join(arguments)})"


__all__ = ["html", "summary"]
