"""Start and data of the trainings in trajectories.npz. They are drawn, by PyTorch's script and the tests alike."""

import math
from pathlib import Path

import numpy as np

STORED = Path(__file__).resolve().parent / "trajectories.npz"


def uniform(seed, stream, shape):
    """Numbers in [-1, 1), by integers alone: SplitMix64 (Steele, Lea and Flood 2014) of a counter."""
    with np.errstate(over="ignore"):
        count = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(seed * 2**32 + stream * 2**20)
        z = (count + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1).reshape(shape)


def start_of(seed, place, name, shape):
    """Where the parameter starts that is number `place` of its net: of the size that PyTorch's are, none of them 0."""
    u = uniform(seed, place, shape)
    if name == "w" and len(shape) > 1:
        return u * 1.5 / math.sqrt(math.prod(shape[:-1]))
    return 0.3 * u + (name == "w")


def data_of(recipe):
    """x, y and sample_weight (or None) of a training, the channels last."""
    seed, rows = recipe["seed"], recipe["rows"]
    x = 2 * uniform(seed, 1000, (rows, *recipe["input"]))
    if recipe["words"]:
        x = np.floor((x + 2) / 4 * recipe["words"]).astype(np.int64)
    shape, kind = (rows, *recipe["output"]), recipe["targets"]
    u = uniform(seed, 1001, shape)
    if kind == "class numbers":
        y = u.argmax(-1)
    elif kind == "probabilities":
        y = np.abs(u) / np.abs(u).sum(-1, keepdims=True)
    else:
        y = {
            "numbers": lambda: 1.5 * u,
            "counts": lambda: np.floor(2 + 2 * u),
            "shares": lambda: (1 + u) / 2,
            "signs": lambda: np.where(u < 0, -1.0, 1.0),
        }[kind]()
    weight = 1.5 + uniform(seed, 1002, (rows,)) if recipe["weighted"] else None
    return x, y, weight
