"""Data to train on: two sets of handwritten digits, and toy problems made from a seed.

    real    digits (8 x 8, always offline), mnist (28 x 28), read_idx (the file format of MNIST)
    tiny    xor, five_rows
    plane   moons, circles, spirals, blobs: points of two or more classes
    line    regression: a straight line in any number of features

All give arrays as `net.train` takes them: x float32 and C-contiguous (mnist: uint8 unless flat=True), y int64
class numbers (N,), or, from xor, five_rows and regression, float32 columns (N, M). With the same NumPy
the same seed gives the same numbers; another seed draws other points of the same problem, which makes a test set.
"""

from __future__ import annotations

import gzip
import math
import os
import socket
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from layerwise.core import arguments, files

Arrays = tuple[np.ndarray, np.ndarray]


# ---- Real data ---------------------------------------------------------------------------------------------

MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
NETWORK_TIMEOUT = 20.0  # seconds without a byte
PIECE = 1 << 20  # bytes that are read at a time


def digits() -> Arrays:
    """Handwritten digits of 8 x 8 pixels, the set that scikit-learn carries with it: no network, no files.

    Returns x (1797, 64) float32 in [0, 1], y (1797,) int64 in 0..9.
    Raises ImportError, with the pip command, without scikit-learn.
    Alpaydin and Kaynak 1998, UCI repository, "Optical Recognition of Handwritten Digits" (its test part).
    """
    x, y = _sklearn_datasets().load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int64)  # a pixel counts the dark ones among 4 x 4


def mnist(folder: str | os.PathLike[str] | None = None, flat: bool = False) -> tuple[Arrays, Arrays]:
    """MNIST, ((x, y), (x_test, y_test)): 60,000 and 10,000 handwritten digits of 28 x 28 pixels.

    x (N, 28, 28) uint8, or with flat=True (N, 784) float32 in [0, 1]; y (N,) int64 in 0..9.
    Read from the four IDX files in `folder`, else in $LAYERWISE_DATA; when neither is given, from a cache (in
    $XDG_CACHE_HOME or ~/.cache) which one download from OpenML fills. The files of Fashion-MNIST do as well.

    Raises FileNotFoundError for files missing in the folder named, or a download that failed; ValueError for
    a damaged or foreign file; ImportError, with the pip command, for a download without scikit-learn.
    LeCun, Bottou, Bengio and Haffner 1998, Proceedings of the IEEE 86.
    """
    _require(isinstance(flat, (bool, np.bool_)), "flat", "True or False", flat)
    if folder is None:
        folder = os.environ.get("LAYERWISE_DATA") or None
    x, y, x_test, y_test = _cached_mnist() if folder is None else _mnist_in(Path(folder).expanduser())
    if flat:
        x, x_test = _flat(x), _flat(x_test)
    return (x, y.astype(np.int64)), (x_test, y_test.astype(np.int64))


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, plain or gzipped (told by its content), in native byte order.

        0 0, a code for the dtype, the number of axes (a byte each); every axis (uint32); the values

    All numbers are big-endian. Raises ValueError for a file that is truncated or of another format. No more is read,
    or unpacked, than the header announces, and a byte. LeCun, Cortes and Burges, "The MNIST database of handwritten
    digits".
    """
    dtypes = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
    with open(path, "rb") as plain:
        packed = plain.peek(2)[:2] == b"\x1f\x8b"
        file: Any = gzip.GzipFile(fileobj=plain) if packed else plain
        try:
            head = file.read(4)
            axes = head[3] if len(head) > 3 else 0
            head += file.read(4 * axes)
            start = 4 + 4 * axes
            if len(head) < start or head[:2] != b"\0\0" or head[2] not in dtypes or axes == 0:
                raise ValueError(
                    f"{path} is no IDX file: its header, of {len(head)} bytes, begins with [{head[:4].hex(' ')}]; "
                    "expected [00 00], a dtype code (08 for bytes), the number of axes, and four bytes for each axis"
                )
            shape = tuple(np.frombuffer(head, ">u4", axes, offset=4).tolist())
            dtype = np.dtype(dtypes[head[2]])
            expected = math.prod(shape) * dtype.itemsize
            content = bytearray()
            while len(content) <= expected and (piece := file.read(min(expected + 1 - len(content), PIECE))):
                content += piece
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}): get it again") from error
    if len(content) != expected:
        fault, more = ("truncated", "") if len(content) < expected else ("too long", " or more")
        raise ValueError(
            f"{path} is {fault}: it has {start + len(content)} bytes{more}; expected {start + expected}, as its header "
            f"announces {dtype.name} of shape {shape}: get it again"
        )
    try:
        return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:
        raise ValueError(f"{path} announces {dtype.name} of shape {shape}, which no array can have: {error}") from error


def _mnist_in(folder: Path) -> list[np.ndarray]:
    """x, y, x_test, y_test from the four files, under either spelling in use, each plain or gzipped."""
    paths: dict[str, Path] = {}
    for name in MNIST_FILES:
        dotted = name.replace("-idx", ".idx")
        for spelling in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
            if name not in paths and (folder / spelling).is_file():
                paths[name] = folder / spelling
    missing = [name for name in MNIST_FILES if name not in paths]
    if missing:
        fault = "has no" if folder.is_dir() else "is no folder with"
        raise FileNotFoundError(
            f"{folder} {fault} {', '.join(missing)} (plain or .gz); expected all four MNIST files: "
            "name the folder that has them by mnist(folder) or $LAYERWISE_DATA"
        )

    arrays = [read_idx(path) for path in paths.values()]
    _check_mnist(arrays, list(paths.values()))
    return arrays


def _check_mnist(arrays: Sequence[np.ndarray], names: Sequence[object]) -> None:
    """ValueError unless x, y, x_test and y_test are images and labels as of MNIST, `names` where they come from."""
    rows = [len(array) if array.ndim else 0 for array in arrays]
    shapes = [(rows[0], 28, 28), (rows[0],), (rows[2], 28, 28), (rows[2],)]
    for name, array, shape in zip(names, arrays, shapes, strict=True):
        if array.shape != shape or array.dtype != np.uint8 or len(array) == 0:
            wanted = shape if shape[0] else ("N", *shape[1:])
            raise ValueError(f"{name} holds {array.dtype} {array.shape}; expected uint8 {wanted} of MNIST")
        if array.ndim == 1 and array.max() > 9:
            raise ValueError(f"{name} holds the label {array.max()}; expected 0 to 9, as of MNIST")


def _cached_mnist() -> list[np.ndarray]:
    """x, y, x_test, y_test, all uint8, from the cache file, which is downloaded first where there is none."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layerwise" / "mnist.npz"
    if not path.exists():
        _download_mnist(path)
    files.check_regular(path)
    names = ("x", "y", "x_test", "y_test")
    with open(path, "rb") as file:  # np.load leaves a file that it cannot read open
        try:
            with np.load(file, allow_pickle=False) as found:
                if any(each.compress_type for each in found.zip.infolist()):
                    raise ValueError("it is compressed, and was not written so")  # it may unpack to any size
                arrays = [found[name] for name in names]
            _check_mnist(arrays, names)
        except Exception as error:  # one of a dozen types, according to where the damage sits
            raise ValueError(f"{path} is damaged ({error}): delete it, and MNIST is downloaded again") from error
    return arrays


def _download_mnist(path: Path) -> None:
    """Write MNIST from OpenML (or from scikit-learn's own cache of it) to `path`, whole or not at all."""
    datasets = _sklearn_datasets()
    timeout = socket.getdefaulttimeout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of every retry; what fails is reported below
            socket.setdefaulttimeout(timeout or NETWORK_TIMEOUT)  # scikit-learn itself would wait for ever
            x, y = datasets.fetch_openml(
                "mnist_784",
                version=1,
                return_X_y=True,
                as_frame=False,
                parser="liac-arff",  # the default one needs pandas
                n_retries=1,
            )
            if x.shape != (70_000, 784) or y.shape != (70_000,):
                raise ValueError(f"OpenML sent {x.shape} and {y.shape}; expected (70000, 784) and (70000,)")
            # One table holds both sets in their original order, the test set last.
            x, x_test = np.split(x.astype(np.uint8).reshape(-1, 28, 28), [60_000])
            y, y_test = np.split(y.astype(np.uint8), [60_000])
        with files.replaced(path) as file:
            np.savez(file, x=x, y=y, x_test=x_test, y_test=y_test)
    except Exception as error:  # of the network, server, parser or disk: the ways out are the same
        raise FileNotFoundError(
            f"MNIST is not on this machine, and the download failed ({type(error).__name__}: {error}). "
            f"Ways out: put the files {', '.join(MNIST_FILES)} (plain or .gz) into a folder and name it by "
            "mnist(folder) or $LAYERWISE_DATA; try again with a network; or take digits(), which needs none"
        ) from None  # the message says it all: the way through the network's modules is a hundred lines long
    finally:
        socket.setdefaulttimeout(timeout)


def _flat(images: np.ndarray) -> np.ndarray:
    """(N, 28, 28) uint8 -> (N, 784) float32 in [0, 1]."""
    x = images.reshape(len(images), -1).astype(np.float32)
    x /= 255
    return x


def _sklearn_datasets() -> ModuleType:
    try:
        import sklearn.datasets
    except ModuleNotFoundError as error:
        raise ImportError('scikit-learn is missing: pip install "layerwise[demo]"') from error
    return sklearn.datasets


# ---- Tiny problems -----------------------------------------------------------------------------------------


def xor() -> Arrays:
    """Exclusive or, which no linear net solves: x (4, 2), y (4, 2) one-hot, both float32.

    Class 1 where exactly one of the two inputs is 1. Minsky and Papert 1969, "Perceptrons".
    """
    x = np.array([[0, 1], [0, 0], [1, 1], [1, 0]], np.float32)
    y = np.array([[0, 1], [1, 0], [1, 0], [0, 1]], np.float32)
    return x, y


def five_rows() -> Arrays:
    """Five rows for watching an optimizer at work: x (5, 3), y (5, 1), both float32.

        y = 0.8 x0^3 + 0.1 x1^2 + 0.5 x2 + 4

    A net of Linear(3), ReLU(), Linear(1) is enough.
    """
    x = np.array([[0.7, 0.3, 0.7], [0.4, 1.0, 0.4], [0.2, 1.1, 0.1], [0.4, 0.7, 0.2], [0.1, 0.5, 0.3]])
    y = 0.8 * x[:, 0] ** 3 + 0.1 * x[:, 1] ** 2 + 0.5 * x[:, 2] + 4
    return x.astype(np.float32), y[:, None].astype(np.float32)


# ---- Points in the plane -----------------------------------------------------------------------------------
#
# x (n, 2) float32, y (n,) int64. Each function draws the classes, equally often (within one) and in random
# order, then for each point a place on the curve of its class, then what is added to both coordinates, of
# standard deviation `noise`. An argument out of range is a ValueError.


def moons(n: int = 200, noise: float = 0.1, seed: int = 0) -> Arrays:
    """Two half circles of radius 1 that reach into each other: x (n, 2), y (n,) in 0, 1.

        class 0: (cos t, sin t)    class 1: (1 - cos t, 1/2 - sin t)    t uniform in [0, pi)

    The curves of sklearn.datasets.make_moons, which spaces t evenly.
    """
    y, rng = _draw_classes(n, 2, noise, seed)
    t = rng.uniform(0, np.pi, n)
    x = np.stack([np.cos(t), np.sin(t)], axis=1)
    x[y == 1] = [1, 0.5] - x[y == 1]
    return _blur(x, noise, rng), y


def circles(n: int = 200, noise: float = 0.05, factor: float = 0.5, seed: int = 0) -> Arrays:
    """A circle inside another: x (n, 2), y (n,) in 0, 1.

        class 0: radius 1    class 1: radius `factor`, between 0 and 1    angle uniform

    The curves of sklearn.datasets.make_circles, which spaces the angles evenly and has factor 0.8.
    """
    _require(arguments.is_number(factor) and 0 < factor < 1, "factor", "a number between 0 and 1", factor)
    y, rng = _draw_classes(n, 2, noise, seed)
    radius = np.where(y == 0, 1.0, factor)
    return _blur(_polar(radius, rng.random(n)), noise, rng), y


def spirals(n: int = 300, classes: int = 3, turns: float = 1.0, noise: float = 0.02, seed: int = 0) -> Arrays:
    """Arms wound around each other, one for each class: x (n, 2), y (n,) in 0..classes - 1.

        radius r uniform in [0.1, 1)    angle = 2 pi (turns r + class / classes)

    Along a ray from the centre the arms are 1 / (turns classes) apart, to be held against `noise`.
    After Lang and Witbrock 1988, "Learning to tell two spirals apart".
    """
    _require(arguments.is_number(turns), "turns", "a finite number", turns)
    y, rng = _draw_classes(n, classes, noise, seed)
    radius = rng.uniform(0.1, 1.0, n)
    return _blur(_polar(radius, turns * radius + y / classes), noise, rng), y


def blobs(n: int = 300, classes: int = 3, noise: float = 0.25, seed: int = 0) -> Arrays:
    """Round clouds, one for each class, centred on the unit circle: x (n, 2), y (n,) in 0..classes - 1.

        centre of a class: radius 1, angle = 2 pi class / classes

    Unlike sklearn.datasets.make_blobs, which draws the centres too, every seed has the same ones.
    """
    y, rng = _draw_classes(n, classes, noise, seed)
    return _blur(_polar(np.ones(n), y / classes), noise, rng), y


def _draw_classes(n: int, classes: int, noise: float, seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """Check what all four have in common; y (n,), and the generator for the rest."""
    _require(arguments.is_integer(classes, least=2), "classes", "an integer of at least 2", classes)
    rng = _generator(n, noise, seed)
    return rng.permutation(np.arange(n, dtype=np.int64) % classes), rng


def _polar(radius: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Points (n, 2) from radii (n,) and angles (n,), these counted in full turns."""
    return np.stack([radius * np.cos(2 * np.pi * turn), radius * np.sin(2 * np.pi * turn)], axis=1)


def _blur(x: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return (x + noise * rng.standard_normal(x.shape)).astype(np.float32)


# ---- A line ------------------------------------------------------------------------------------------------


def regression(
    n: int = 100,
    weights: Sequence[float] | np.ndarray = (0.77, -0.56),
    bias: float = 2.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Arrays:
    """A linear model with a feature for each of its D weights: x (n, D) in [0, 10), y (n, 1), both float32.

        y = x @ weights + bias + noise * standard normal

    By default y = 0.77 a - 0.56 b + 2, without noise. An argument out of range is a ValueError.
    """
    w = list(weights) if np.iterable(weights) else []
    _require(len(w) > 0 and all(map(arguments.is_number, w)), "weights", "a finite number for each feature", weights)
    _require(arguments.is_number(bias), "bias", "a finite number", bias)
    rng = _generator(n, noise, seed)
    x = 10 * rng.random((n, len(w)), dtype=np.float32)  # drawn in float32: a rounding could reach 10
    y = x @ np.array(w, np.float64) + bias + noise * rng.standard_normal(n)
    return x, y[:, None].astype(np.float32)


# ---- Checks ------------------------------------------------------------------------------------------------


def _generator(n: int, noise: float, seed: int) -> np.random.Generator:
    _require(arguments.is_integer(n, least=1), "n", "a positive integer", n)
    _require(arguments.is_number(noise) and noise >= 0, "noise", "a finite number, 0 or more", noise)
    _require(arguments.is_integer(seed, least=0), "seed", "an integer, 0 or more", seed)
    return np.random.default_rng(seed)


def _require(legal: bool, name: str, expected: str, value: object) -> None:
    if not legal:
        raise ValueError(f"{name} must be {expected}; got {value!r}")
