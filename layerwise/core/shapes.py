"""Checks of the shapes that layers take, without the batch axis: each returns the shape, or raises ValueError."""

from __future__ import annotations

from typing import Any

Shape = tuple[int, ...]


def channels_first_hint(input_shape: Shape, suspected: bool) -> str:
    """What a message adds where the channels seem to stand first."""
    if not suspected or len(input_shape) not in (2, 3):
        return ""
    axes, order = ("height, width", "0, 2, 3, 1") if len(input_shape) == 3 else ("time", "0, 2, 1")
    return f" Channels come last here, ({axes}, channels): if yours come first, x.transpose({order})."


def same_channels(layer: Any, input_shape: Shape) -> Shape:
    """There are channels, and as many as the layer was built for."""
    channels = (layer.input_shape or ())[-1:]  # that it was built for, if it was
    if not input_shape or (channels and input_shape[-1:] != channels):
        expected = f"{channels[0]} channels" if channels else "channels in the last axis"
        hint = channels_first_hint(input_shape, input_shape[:1] == channels)
        raise ValueError(
            f"{layer.label} takes {expected}, got inputs of shape {input_shape} (without the batch axis).{hint}"
        )
    return input_shape


def several_columns(layer: Any, input_shape: Shape, constant: int) -> Shape:
    """The last axis, over which the layer normalises, is longer than 1: else its output is `constant`."""
    if input_shape[-1:] == (1,):
        raise ValueError(
            f"{layer.label} over one column always gives {constant}, got inputs of shape {input_shape} (without the "
            f"batch axis): for yes or no, put a Sigmoid last, or give it a column for each of two classes."
        )
    return input_shape


def several_numbers(layer: Any, input_shape: Shape, count: int) -> Shape:
    """More than one number is normalised at a time."""
    if count == 1:
        raise ValueError(
            f"{layer.label} takes the mean of one number at a time, so that its output does not depend on its "
            f"input, got inputs of shape {input_shape} (without the batch axis): leave it out, or use BatchNorm."
        )
    return input_shape
