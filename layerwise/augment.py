"""Augmentation: random shifts, crops, flips and affine maps of images, batch by batch, while a net trains.

    data = augment.batches(x, y, [augment.Affine(rotation=10, shift=2), augment.Flip()], batch_size=128, seed=0)
    net.train(data, epochs=10)

An augmentation is any callable (x, rng) -> x of images x (N, H, W, C), each changed in its own way; the random numbers
come from `rng`, a NumPy generator (or a seed), alone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from layerwise.core import arguments, threads
from layerwise.core.arguments import check_unmasked

Array = np.ndarray

PIXELS = 2**13  # that are warped at once, so that what is worked with stays in the cache
WORTH_THREADS = 1e5  # numbers


class Augmentation:
    """One way to change images: `change(x, rng)` does it, for the whole batch at once, and leaves x as it is."""

    def __call__(self, x: Any, rng: Any = None) -> Array:
        """Images like x (N, H, W, C), each changed at random; `rng` is a generator, a seed, or None."""
        check_unmasked(type(self).__name__, x)
        x = np.asarray(x)
        if x.dtype.kind not in "biuf":
            raise TypeError(f"{type(self).__name__} takes images of numbers, got an array of {x.dtype}.")
        if x.ndim != 4:
            raise ValueError(
                f"{type(self).__name__} takes images of shape (N, height, width, channels), got shape {x.shape}: "
                f"reshape them; with one channel, give x[..., None]."
            )
        if 0 in x.shape[1:]:
            raise ValueError(f"{type(self).__name__} takes images that have pixels, got shape {x.shape}.")
        return self.change(x, np.random.default_rng(rng))

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        raise TypeError(f"{type(self).__name__} has no change(self, x, rng): write it.")

    def __repr__(self) -> str:
        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


class Flip(Augmentation):
    """Left and right change places, with a probability for each image."""

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = arguments.real("probability", probability, 0, 1, closed=True)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        chosen = rng.random(len(x)) < self.probability
        y = x.copy()
        y[chosen] = x[chosen, :, ::-1]
        return y


class Crop(Augmentation):
    """A part of each image at a random place: y (N, height, width, C).

    size     of the part, an integer or (height, width); None is that of the image
    padding  so many pixels of value `fill` are put on every side first
    """

    def __init__(self, size: Any = None, padding: int = 0, fill: float = 0.0) -> None:
        self.size = size
        pair = size if isinstance(size, (tuple, list)) else (size, size)
        if len(pair) != 2:
            raise ValueError(f"size is an integer, a pair (height, width) or None, got {size!r}.")
        self._size = None if size is None else tuple(arguments.count("size", each) for each in pair)
        self.padding = 0 if padding == 0 else arguments.count("padding", padding)
        self.fill = arguments.real("fill", fill, -math.inf)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        n, height, width, channels = x.shape
        p = self.padding
        size = self._size or (height, width)
        if size[0] > height + 2 * p or size[1] > width + 2 * p:
            raise ValueError(
                f"Crop takes {size[0]} by {size[1]} pixels, more than images of shape {x.shape[1:]} have with their "
                f"padding {p}: choose a smaller size, or more padding."
            )
        self._check_fill(x.dtype)
        padded = np.full((n, height + 2 * p, width + 2 * p, channels), self.fill, x.dtype)
        padded[:, p : p + height, p : p + width] = x
        windows = sliding_window_view(padded, size, (1, 2))  # (n, top, left, channels, height, width)
        top, left = (rng.integers(0, places, n) for places in windows.shape[1:3])
        return np.ascontiguousarray(windows[np.arange(n), top, left].transpose(0, 2, 3, 1))

    def _check_fill(self, dtype: np.dtype) -> None:
        if self.padding and dtype.kind in "biu":  # else it would be cut, or come out at the other end
            with np.errstate(all="ignore"):
                filled = np.asarray(self.fill).astype(dtype)
            if filled != self.fill:
                raise ValueError(
                    f"{type(self).__name__} fills with {self.fill}, which images of {dtype} can't hold: choose another "
                    f"fill, or give x as float32."
                )


class Shift(Crop):
    """Each image moved by whole pixels, up to so many each way; what comes in is `fill`."""

    def __init__(self, pixels: int, fill: float = 0.0) -> None:
        super().__init__(None, arguments.count("pixels", pixels), fill)
        self.pixels = self.padding


class Affine(Augmentation):
    """Each image turned, stretched, sheared and moved about its middle, with bilinear interpolation.

    rotation  up to so many degrees each way       scale  by a factor of 1 - scale to 1 + scale
    shear     up to so many degrees each way       shift  by up to so many pixels each way, fractions too

    Each is drawn uniformly, for each image. What comes in from outside is `fill`. y is float32, float64 of float64.
    """

    def __init__(
        self, rotation: float = 0.0, shift: float = 0.0, scale: float = 0.0, shear: float = 0.0, fill: float = 0.0
    ) -> None:
        self.rotation = arguments.real("rotation", rotation, 0)
        self.shift = arguments.real("shift", shift, 0)
        self.scale = arguments.real("scale", scale, 0, 1)
        self.shear = arguments.real("shear", shear, 0, 90)
        self.fill = arguments.real("fill", fill, -math.inf)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        angle, shear = (np.deg2rad(rng.uniform(-most, most, len(x))) for most in (self.rotation, self.shear))
        scale = rng.uniform(1 - self.scale, 1 + self.scale, len(x))
        shift = rng.uniform(-self.shift, self.shift, (len(x), 2))
        # From a pixel of y to where it comes from: row (a, b) . place, of the inverse of turn * shear * scale.
        cos, sin, tan = np.cos(angle), np.sin(angle), np.tan(shear)
        inverse = np.stack([cos, -sin, sin - tan * cos, cos + tan * sin], 1).reshape(-1, 2, 2) / scale[:, None, None]
        return warp(x, inverse, shift, self.fill)


def warp(x: Array, inverse: Array, shift: Array, fill: float = 0.0) -> Array:
    """y[n, p] = x[n, inverse[n] (p - middle - shift[n]) + middle], p = (row, column), interpolated bilinearly.

    x (N, H, W, C), inverse (N, 2, 2), shift (N, 2).
    """
    n, height, width, channels = x.shape
    dtype = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    y = np.empty(x.shape, dtype)
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    start = middle - (inverse @ (middle + shift)[..., None])[..., 0] + 1  # 1: the frame below
    maps = np.concatenate([inverse, start[..., None]], 2).astype(dtype)  # of (row, column, 1)
    pixels = np.concatenate([np.indices((height, width)).reshape(2, -1), np.ones((1, height * width))]).astype(dtype)

    def piece(first: int, last: int) -> None:
        # A frame of `fill` one pixel wide: places further out are moved onto it, and no pixel needs a test.
        framed = np.full((last - first, height + 2, width + 2, channels), fill, dtype)
        framed[:, 1:-1, 1:-1] = x[first:last]
        flat = framed.reshape(-1, channels)
        rows, columns = (maps[first:last].reshape(-1, 3) @ pixels).reshape(last - first, 2, -1).swapaxes(0, 1)
        top, down = _split(rows, height)
        left, across = _split(columns, width)
        top *= width + 2
        top += left
        top += np.arange(last - first)[:, None] * ((height + 2) * (width + 2))

        def line(below: int) -> Array:
            return _between(
                flat[below:].take(top, 0, None, "clip"), flat[below + 1 :].take(top, 0, None, "clip"), across
            )

        y[first:last] = _between(line(0), line(width + 2), down).reshape(last - first, height, width, channels)

    at_once = max(PIXELS // (height * width), 1)
    blocks = [(first, min(first + at_once, n)) for first in range(0, n, at_once)]
    threads.parallel_for(piece, blocks, 1 if x.size < WORTH_THREADS else None)
    return y


def _split(places: Array, size: int) -> tuple[Array, Array]:
    """Places in the frame as whole numbers and what is left, those outside moved onto the frame."""
    places = np.clip(places, 0, size + 1)
    whole = np.floor(np.minimum(places, size))
    places -= whole
    return whole.astype(np.intp), places[..., None]


def _between(first: Array, second: Array, weight: Array) -> Array:
    """first + weight (second - first), into `second`."""
    second -= first
    second *= weight
    second += first
    return second


class Compose(Augmentation):
    """One augmentation after the other; a list means the same wherever an augmentation is asked for."""

    def __init__(self, augmentations: Sequence[Callable[..., Any]]) -> None:
        self.augmentations = list(augmentations)
        for place, each in enumerate(self.augmentations):
            if not callable(each) or isinstance(each, type):
                raise TypeError(f"augmentations[{place}] is a callable (x, rng) -> x, such as Flip(), got {each!r}.")

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        for each in self.augmentations:
            x = each(x, rng)
        return x


class batches:
    """Batches (x, y) to train on, in a new order and newly augmented each time they are gone through.

    `augmentation` is a callable (x, rng) -> x, a list of them, or None. The same seed gives the same bits,
    on the same machine with the same NumPy.
    A training that is resumed goes on with the orders and changes that would have come.
    ValueError for x and y of different length, or none, and for a seed below 0; TypeError for an augmentation that is
    none.
    """

    def __init__(self, x: Any, y: Any, augmentation: Any = None, batch_size: int = 32, seed: int | None = None) -> None:
        check_unmasked("x", x)
        check_unmasked("y", y)
        self.x, self.y = (each if isinstance(each, np.ndarray) else np.asarray(each) for each in (x, y))
        if self.x.ndim == 0 or len(self.x) == 0:
            raise ValueError(f"x is empty, shape {self.x.shape}: at least one image is needed.")
        if self.y.ndim == 0 or len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} rows and y has shape {self.y.shape}: each row of x needs one of y.")
        if augmentation is None or isinstance(augmentation, (list, tuple)):
            augmentation = Compose(augmentation or ())
        self.augmentation = Compose([augmentation])
        self.batch_size = arguments.count("batch_size", batch_size)
        if seed is None:
            seed = int(np.random.default_rng().integers(2**63))
        self.seed = arguments.count("seed", seed, 0, "an integer, 0 or more, or None")
        self.epoch = 0  # how often they were gone through

    def state_dict(self) -> dict[str, Any]:
        """Where they are: a checkpoint keeps it, and `train(..., resume=path)` goes on from it."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. ValueError or TypeError for what can be no seed or no number of epochs."""
        seed, epoch = state["seed"], state["epoch"]
        if not isinstance(epoch, int):
            raise TypeError(f"epoch is a number of epochs, got {epoch!r}.")
        np.random.default_rng((seed, epoch))  # refuses what is no seed
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        return self._epoch(rng)

    def _epoch(self, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
        order = rng.permutation(len(self.x))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield self.augmentation(self.x[rows], rng), self.y[rows]


__all__ = ["Affine", "Augmentation", "Compose", "Crop", "Flip", "Shift", "batches", "warp"]
