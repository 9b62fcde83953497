"""Problems to compare optimizers on: surfaces with exact gradients, and small nets with their data. `named("xor")`.

    surfaces   quadratic, noisy_quadratic, ravine, rosenbrock, beale, himmelblau, booth, rastrigin, ackley, saddle
    nets       xor, five_rows, linear_regression, moons, circles, spirals, digits

A surface is a function of x (D,) with a known minimum of value 0; it goes with `optim.minimize` as it is. A problem
is a net that a seed makes, its data and its loss. In both the seed decides everything that is drawn.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerwise import datasets, layers, loss, model
from layerwise.core import arguments
from layerwise.core.arguments import numbers
from layerwise.core.fingerprint import Fingerprint, fingerprint, plain

Array = np.ndarray


# What a problem is -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Surface:
    """A function of points, with its exact gradient: `surface(x)` is (value, gradient).

    function   x (..., D) -> value (...), gradient (..., D), so that a whole grid of points is one call;
               where `noisy`, of (x, rng)
    start      (D,), where a path begins; `start_of(seed)` is somewhere near
    minima     (K, D), the points of lowest value, 0 (of a noisy one: of lowest expectation)
    bounds     ((low, high), ...) of each axis, what a picture shows
    target     a value that counts as there
    spread     the deviation of `start_of` around `start`
    """

    name: str
    function: Callable[..., tuple[Any, Array]]
    start: Array
    minima: Array
    bounds: tuple[tuple[float, float], ...]
    target: float | None = 1e-3
    noisy: bool = False
    spread: float = 0.1

    def __post_init__(self) -> None:
        arguments.flag("noisy", self.noisy)
        object.__setattr__(self, "start", np.array(self.start, np.float64))
        object.__setattr__(self, "minima", np.array(self.minima, np.float64).reshape(-1, self.start.size))

    def __call__(self, x: Array, seed: int = 0, step: int = 0) -> tuple[Any, Array]:
        """Value and gradient at x (..., D). The noise of a noisy one is decided by seed and step."""
        if self.noisy:
            return self.function(x, np.random.default_rng((seed, 3, step)))
        return self.function(x)

    @property
    def window(self) -> int:
        """How many values make one reading."""
        return 10 if self.noisy else 1

    @property
    def minimum(self) -> Array:
        """(D,), the first of the minima."""
        return self.minima[0]

    def start_of(self, seed: int) -> Array:
        """(D,), near `start`: the same for every optimizer, another for every seed."""
        return self.start + self.spread * np.random.default_rng((seed, 0)).standard_normal(self.start.shape)

    def describe(self) -> dict[str, Any]:
        """What it is, as plain text and numbers; one of one's own by its code too."""
        return {
            "problem": self.name,
            "kind": "surface",
            "start": self.start.tolist(),
            "spread": self.spread,
            "noisy": self.noisy,
            "check": _checksum(*self(self.start), self.start_of(0)),
            **_code(fingerprint(type(self), "surface"), fingerprint(self.function, "function")),
        }


class Problem:
    """A net to train: `Problem(make_net, x, y, loss, batch_size)`.

    make_net    seed -> Model, not yet trained; the seed decides its weights and, with batches, their order
    x, y        as `net.train` takes them
    loss        an instance; every run gets a copy
    batch_size  None: all rows in every batch
    target      a loss that counts as solved, or None

    ValueError for lengths that differ or a batch size that is not positive; TypeError for a loss or make_net that
    can't be called.
    """

    def __init__(
        self,
        make_net: Callable[[int], model.Model],
        x: Any,
        y: Any,
        loss: Any,
        batch_size: int | None = None,
        name: str = "a problem of one's own",
        target: float | None = None,
    ) -> None:
        if not callable(make_net) or isinstance(make_net, layers.Layer):
            raise TypeError(f"make_net is a function of a seed that returns a new Model, got {make_net!r}.")
        if isinstance(loss, type) or not callable(loss) or not callable(getattr(loss, "backward", None)):
            raise TypeError(f"loss is an instance, such as loss.MSE(), got {loss!r}.")
        x, y = numbers("x", x), numbers("y", y)
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"x and y have a row for each sample, got shapes {x.shape} and {y.shape}.")
        if batch_size is not None:
            arguments.count("batch_size", batch_size, 1, "a positive integer, or None for all rows")
        self.make_net = make_net
        self.x = x
        self.y = y
        self.loss = loss
        self.batch_size = len(x) if batch_size is None else min(int(batch_size), len(x))
        self.name = name
        self.target = target

    @property
    def noisy(self) -> bool:
        """Whether one loss is that of a batch, and not of all rows."""
        return self.batch_size < len(self.x)

    @property
    def window(self) -> int:
        """How many losses make one reading: those of an epoch."""
        return -(-len(self.x) // self.batch_size)

    def net(self, seed: int) -> model.Model:
        """A new net of that seed, built. TypeError unless make_net returns an untrained Model."""
        net = self.make_net(seed)
        if not isinstance(net, model.Model):
            raise TypeError(f"make_net returns a Model, got {type(net).__name__}.")
        return net.build(self.x.shape[1:])  # type: ignore[return-value]

    def describe(self) -> dict[str, Any]:
        """What it is, as plain text and numbers, and the code of one's own in it. ValueError if make_net gives two nets
        for one seed."""
        nets = [self.net(0), self.net(0)]
        if not np.array_equal(nets[0].vector, nets[1].vector):
            raise ValueError(
                "make_net(0) gave two nets with different weights, so no two optimizers would start from the same: "
                "hand the seed on, lambda seed: Model([...], seed=seed)."
            )
        return {
            "problem": self.name,
            "kind": "net",
            "net": [plain(repr(layer)) for layer in nets[0].layers],
            "parameters": nets[0].parameter_count,
            "dtype": nets[0].dtype.name,
            "loss": plain(repr(self.loss)),
            "rows": len(self.x),
            "batch_size": self.batch_size,
            "check": _checksum(self.x, self.y, nets[0].vector),
            **_code(
                fingerprint(type(self), "problem"),
                fingerprint(self.make_net, "make_net"),
                fingerprint(nets[0], "net"),
                fingerprint(self.loss, "loss"),
            ),
        }

    def __repr__(self) -> str:
        return f"Problem({self.name!r})"


def _code(*members: Fingerprint) -> dict[str, Any]:
    """{"code": place -> digest} of the parts in which something is one's own, where there are any."""
    code = {place: each for part in members if part.own for place, each in part.digests().items()}
    return {"code": code} if code else {}


def _checksum(*arrays: Any) -> int:
    """A number that changes with any bit of the arrays."""
    check = 0
    for array in arrays:
        check = zlib.crc32(np.ascontiguousarray(array).tobytes(), check)
    return check


# Surfaces ----------------------------------------------------------------------------------------------------
#
# Each writes f and its gradient over the last axis of x (..., D).


def _square(bound: float) -> tuple[tuple[float, float], ...]:
    return ((-bound, bound), (-bound, bound))


def _eigenvalues(condition: float, dim: int) -> Array:
    if not 1 <= condition < np.inf:
        raise ValueError(f"condition is the ratio of the largest to the smallest curvature, 1 or more: {condition!r}.")
    arguments.count("dim", dim, 2, "an integer of at least 2")
    return np.geomspace(1, condition, dim)


def quadratic(condition: float = 100.0, dim: int = 2) -> Surface:
    """A bowl, longer than it is wide: f = 1/2 sum a x^2, a from 1 to `condition` in equal ratios.

    Gradient descent is stable below a rate of 2 / condition, and needs about `condition` steps.
    """
    a = _eigenvalues(condition, dim)

    def function(x: Array) -> tuple[Any, Array]:
        gradient = a * x
        return 0.5 * (x * gradient).sum(-1), gradient

    name = "quadratic" if (condition, dim) == (100, 2) else f"quadratic(condition={condition:g}, dim={dim})"
    return Surface(name, function, np.ones(dim), np.zeros(dim), _square(1.5))


def noisy_quadratic(condition: float = 100.0, dim: int = 2, noise: float = 0.1) -> Surface:
    """A bowl that shakes, as the loss of a batch does: f = 1/2 sum a (x - n)^2, n normal of deviation `noise`.

    n is new at every step. Its expectation is `quadratic` and 1/2 noise^2 sum a more, below which no path stays;
    the target is twice that. Schaul, Zhang and LeCun 2013 (1206.1106), section 3.
    """
    arguments.real("noise", noise, 0, expected="a number, 0 or more")
    a = _eigenvalues(condition, dim)

    def function(x: Array, rng: np.random.Generator) -> tuple[Any, Array]:
        d = x - noise * rng.standard_normal(dim)
        return 0.5 * (a * d * d).sum(-1), a * d

    name = "noisy_quadratic"
    if (condition, dim, noise) != (100, 2, 0.1):
        name += f"(condition={condition:g}, dim={dim}, noise={noise:g})"
    floor = 0.5 * noise**2 * float(a.sum())
    return Surface(name, function, np.ones(dim), np.zeros(dim), _square(1.5), target=2 * floor or 1e-3, noisy=True)


def ravine(condition: float = 1000.0) -> Surface:
    """A bowl that lies across both axes: f = 1/2 (u^2 + condition v^2), u = (x + y) / sqrt 2, v = (x - y) / sqrt 2.

    A rate for each coordinate, as in Adam, helps on `quadratic` and not here.
    """
    _eigenvalues(condition, 2)
    a, b = (1 + condition) / 2, (1 - condition) / 2
    matrix = np.array([[a, b], [b, a]])

    def function(x: Array) -> tuple[Any, Array]:
        gradient = x @ matrix
        return 0.5 * (x * gradient).sum(-1), gradient

    name = "ravine" if condition == 1000 else f"ravine(condition={condition:g})"
    return Surface(name, function, np.array([1.2, 1.0]), np.zeros(2), _square(1.5))


def rosenbrock() -> Surface:
    """A bent valley: f = (1 - x)^2 + 100 (y - x^2)^2.    Rosenbrock 1960, and its start"""

    def function(p: Array) -> tuple[Any, Array]:
        x, y = p[..., 0], p[..., 1]
        d, e = 1 - x, y - x * x
        return d * d + 100 * e * e, np.stack([-2 * d - 400 * x * e, 200 * e], -1)

    return Surface("rosenbrock", function, np.array([-1.2, 1.0]), np.ones(2), ((-2.0, 2.0), (-1.0, 3.0)))


def beale() -> Surface:
    """Flat ground between steep walls: f = sum over k of (c - x (1 - y^k))^2, c = 1.5, 2.25, 2.625 for k = 1, 2, 3.

    Beale 1958.
    """

    def function(p: Array) -> tuple[Any, Array]:
        x, y = p[..., 0], p[..., 1]
        square = y * y
        a = 1.5 - x * (1 - y)
        b = 2.25 - x * (1 - square)
        c = 2.625 - x * (1 - square * y)
        by_x = 2 * (a * (y - 1) + b * (square - 1) + c * (square * y - 1))
        by_y = 2 * x * (a + 2 * y * b + 3 * square * c)
        return a * a + b * b + c * c, np.stack([by_x, by_y], -1)

    return Surface("beale", function, np.array([1.0, 1.5]), np.array([3.0, 0.5]), _square(4.5))


def himmelblau() -> Surface:
    """Four minima of the same value: f = (x^2 + y - 11)^2 + (x + y^2 - 7)^2.    Himmelblau 1972"""
    minima = [
        [3.0, 2.0],
        [-2.805118086952745, 3.131312518250573],
        [-3.779310253377747, -3.283185991286170],
        [3.584428340330492, -1.848126526964404],
    ]

    def function(p: Array) -> tuple[Any, Array]:
        x, y = p[..., 0], p[..., 1]
        a, b = x * x + y - 11, x + y * y - 7
        return a * a + b * b, np.stack([4 * x * a + 2 * b, 2 * a + 4 * y * b], -1)

    return Surface("himmelblau", function, np.zeros(2), np.array(minima), _square(5.0))


def booth() -> Surface:
    """A bowl that lies across the axes, mildly: f = (x + 2 y - 7)^2 + (2 x + y - 5)^2."""

    def function(p: Array) -> tuple[Any, Array]:
        x, y = p[..., 0], p[..., 1]
        a, b = x + 2 * y - 7, 2 * x + y - 5
        return a * a + b * b, np.stack([2 * a + 4 * b, 4 * a + 2 * b], -1)

    return Surface("booth", function, np.array([-6.0, -4.0]), np.array([1.0, 3.0]), _square(10.0))


def rastrigin(dim: int = 2) -> Surface:
    """A bowl full of pits: f = sum of 10 + x^2 - 10 cos(2 pi x).    Rastrigin 1974"""
    _eigenvalues(1.0, dim)

    def function(x: Array) -> tuple[Any, Array]:
        angle = 2 * np.pi * x
        return (10 + x * x - 10 * np.cos(angle)).sum(-1), 2 * x + 20 * np.pi * np.sin(angle)

    name = "rastrigin" if dim == 2 else f"rastrigin(dim={dim})"
    start = np.resize([-3.3, 2.6], dim)
    return Surface(name, function, start, np.zeros(dim), _square(5.12))


def ackley(dim: int = 2) -> Surface:
    """Almost flat with small pits, and one deep: f = 20 - 20 exp(-0.2 r) + e - exp(mean of cos(2 pi x)),
    r = sqrt(mean of x^2).

    At the minimum itself, where it has a kink, the gradient is given as 0. Ackley 1987.
    """
    _eigenvalues(1.0, dim)

    def function(x: Array) -> tuple[Any, Array]:
        r = np.sqrt((x * x).mean(-1))
        wide = 20 * np.exp(-0.2 * r)
        narrow = np.exp(np.cos(2 * np.pi * x).mean(-1))
        by_r = 0.2 * wide / np.where(r > 0, r, np.inf)
        gradient = (by_r[..., None] * x + (2 * np.pi * narrow)[..., None] * np.sin(2 * np.pi * x)) / dim
        return (20 - wide) + (np.e - narrow), gradient

    name = "ackley" if dim == 2 else f"ackley(dim={dim})"
    start = np.resize([2.6, -1.7], dim)
    return Surface(name, function, start, np.zeros(dim), _square(5.0))


def saddle() -> Surface:
    """A saddle with a valley on either side: f = x^2 / 2 + (y^2 - 1)^2 / 4. The start is almost on the ridge y = 0,
    which leads to the saddle."""

    def function(p: Array) -> tuple[Any, Array]:
        x, y = p[..., 0], p[..., 1]
        e = y * y - 1
        return 0.5 * x * x + 0.25 * e * e, np.stack([x, y * e], -1)

    minima = np.array([[0.0, 1.0], [0.0, -1.0]])
    return Surface("saddle", function, np.array([1.5, 1e-3]), minima, _square(2.0), spread=1e-3)


# Nets --------------------------------------------------------------------------------------------------------


def _dense(*units: int, between: Callable[[], layers.Layer], last: Callable[[], layers.Layer] | None = None) -> Any:
    """seed -> Model: Linear layers of these sizes, with an activation between them and one at the end."""

    def make_net(seed: int) -> model.Model:
        chain: list[layers.Layer] = []
        for size in units:
            chain += [layers.Linear(size), between()]
        chain[-1:] = [last()] if last is not None else []
        return model.Model(chain, seed=seed)

    return make_net


def xor() -> Problem:
    """Exclusive or by a small net, full batch: the first example of the README."""

    def make_net(seed: int) -> model.Model:
        chain = [layers.Linear(8), layers.Linear(4), layers.Sigmoid(), layers.Linear(2), layers.Softmax()]
        return model.Model(chain, seed=seed)

    return Problem(make_net, *datasets.xor(), loss.MSE(), name="xor", target=0.01)


def five_rows() -> Problem:
    """Five rows of three numbers, full batch, by Linear(3), ReLU(), Linear(1)."""
    make_net = _dense(3, 1, between=layers.ReLU)
    return Problem(make_net, *datasets.five_rows(), loss.MSE(), name="five_rows", target=1e-3)


def linear_regression() -> Problem:
    """The weights of y = 0.77 a - 0.56 b + 2 from 100 rows without noise, full batch. The inputs, in [0, 10), are left
    unscaled: the curvatures differ 300 times."""
    make_net = _dense(1, between=layers.ReLU)
    return Problem(make_net, *datasets.regression(), loss.MSE(), name="linear_regression", target=1e-4)


def moons() -> Problem:
    """Two half circles told apart, batches of 32 of 200 points."""
    make_net = _dense(16, 2, between=layers.Tanh, last=layers.Softmax)
    return Problem(make_net, *datasets.moons(), loss.CrossEntropy(), 32, name="moons", target=0.05)


def circles() -> Problem:
    """A circle within a circle, batches of 32 of 200 points."""
    make_net = _dense(16, 2, between=layers.Tanh, last=layers.Softmax)
    return Problem(make_net, *datasets.circles(), loss.CrossEntropy(), 32, name="circles", target=0.05)


def spirals() -> Problem:
    """Three arms wound around each other, batches of 32 of 300 points."""
    make_net = _dense(32, 32, 3, between=layers.Tanh, last=layers.Softmax)
    return Problem(make_net, *datasets.spirals(), loss.CrossEntropy(), 32, name="spirals", target=0.1)


def digits() -> Problem:
    """Handwritten digits of 8 x 8 pixels, batches of 64 of 1,797. ImportError without scikit-learn."""
    make_net = _dense(32, 10, between=layers.ReLU, last=layers.Softmax)
    return Problem(make_net, *datasets.digits(), loss.CrossEntropy(), 64, name="digits", target=0.1)


SURFACES: dict[str, Callable[[], Surface]] = {
    function.__name__: function
    for function in (
        quadratic, noisy_quadratic, ravine, rosenbrock, beale, himmelblau, booth, rastrigin, ackley, saddle,
    )
}  # fmt: skip
NETS: dict[str, Callable[[], Problem]] = {
    function.__name__: function for function in (xor, five_rows, linear_regression, moons, circles, spirals, digits)
}


def named(name: str) -> Problem | Surface:
    """The problem of that name, with its own settings. ValueError, with all the names, for another."""
    created: Any = {**SURFACES, **NETS}.get(name) if isinstance(name, str) else None
    if created is None:
        raise ValueError(
            f"there is no problem {name!r}; there are the nets {', '.join(NETS)}, and the surfaces "
            f"{', '.join(SURFACES)}. One of your own is problems.Problem(make_net, x, y, loss, batch_size)."
        )
    return created()


__all__ = [
    "NETS", "SURFACES", "Problem", "Surface", "ackley", "beale", "booth", "circles", "digits", "five_rows",
    "himmelblau", "linear_regression", "moons", "named", "noisy_quadratic", "quadratic", "rastrigin", "ravine",
    "rosenbrock", "saddle", "spirals", "xor",
]  # fmt: skip
