"""The golden trajectories of the optimizers, read with NumPy alone, and ways to run a rule of ours beside them.

`cases()` gives every case of every file (make_optimizers.py tells what is in them); `difference(case, walk)` the
largest difference between a path of ours and the golden one, relative to the largest step.
"""

import functools
import json
from pathlib import Path

import numpy as np

import layers
import loss
import optim

FOLDER = Path(__file__).resolve().parent / "optimizers"
ALLOWED = {"Muon": 1e-6, "LBFGS": 1e-8}  # the others: 1e-12
TEMPLATES = ("Optimizer", "Wrapper")  # what rules are made from
NAMES = sorted(
    name
    for name in optim.__all__
    if isinstance(getattr(optim, name), type)
    and issubclass(getattr(optim, name), optim.Optimizer)
    and name not in TEMPLATES
)
COMPOSITE = ("PerLayer",)  # equals what it is made of, and has no file of its own


@functools.cache
def stream():
    """Every gradient that the references were fed: for every step one for each parameter, not to be written to."""
    with np.load(FOLDER / "gradients.npz") as file:
        arrays = [file[str(k)] for k in range(len(file.files))]
    for array in arrays:
        array.flags.writeable = False
    return list(zip(*arrays, strict=True))


class Scheduled:
    """The numbers of a list, one a step."""

    def __init__(self, values):
        self.values = [float(value) for value in values]

    def __call__(self, steps):
        return self.values[min(steps, len(self.values) - 1)]

    def __repr__(self):  # stands in the names of tests, which every worker must collect alike
        return f"Scheduled({self.values[0]}, ...)"


class Case:
    """One golden trajectory, and what it takes to walk it."""

    def __init__(self, about, file):
        self.about, self.id, self.name = about, f"{about['optimizer']}-{about['id']}", about["optimizer"]
        self.reference = f"{about['reference']}, {about['library']} {about['version']}"
        self.kind = about.get("problem", {}).get("kind")
        self.recorded = file["recorded"].tolist()
        self.tolerance = ALLOWED.get(self.name, 1e-12)
        places, key = range(about["parameters"]), about["id"]
        self.start = [file[f"{key}/{k}/start"] for k in places]
        self.path = [file[f"{key}/{k}/steps"] for k in places]
        shown = f"{key}/0/evaluation" in file.files
        self.evaluation = [file[f"{key}/{k}/evaluation"] for k in places] if shown else None
        self.loss, self.evaluations = (
            file[f"{key}/{name}"] if f"{key}/{name}" in file.files else None for name in ("loss", "evaluations")
        )
        self.schedules = {name: file[f"{key}/{name}"] for name in about.get("scheduled", ())}
        inside = f"problem/{self.kind}/"
        self.arrays = {name.removeprefix(inside): file[name] for name in file.files if name.startswith(inside)}

    def make(self, rule=None, **changed):
        """An optimizer with the arguments of the case; of the class `rule` where one is given."""
        schedules = {name: Scheduled(values) for name, values in self.schedules.items()}
        return _made(self.about | {"arguments": self.about["arguments"] | schedules | changed}, rule)

    def gradients(self):
        """The stream of gradients: for every step a list."""
        return [list(each[: len(self.start)]) for each in stream()[: self.recorded[-1]]]

    # Ways to walk. Each gives, for every step, the parameters; through a net the evaluation weights too, or None.

    def by_step(self, rule):
        parameters = [w.copy() for w in self.start]
        for gradients in self.gradients():
            rule.step(parameters, gradients)
            yield [w.copy() for w in parameters], None

    def by_net(self, rule):
        net = held(self.start)
        for gradients in self.gradients():
            give(net, gradients)
            rule.update(net)
            now = [layer.w.copy() for layer in net.layers]
            with rule.evaluation_weights(net):
                shown = [layer.w.copy() for layer in net.layers] if self.evaluation else None
            yield now, shown

    def by_minimize(self, rule):
        """The problem as a function of one vector; how often it was asked in `asked`, its values before steps."""
        self.asked = []  # after each step
        count = 0

        def function(x):
            nonlocal count
            count += 1
            value, gradients = self.problem(self.split(x))
            return value, np.concatenate([g.ravel() for g in gradients])

        x = np.concatenate([w.ravel() for w in self.start])
        for _ in range(self.recorded[-1]):
            x = optim.minimize(function, x, rule, 1)[1]
            self.asked.append(count)
            yield self.split(x), None

    def split(self, x):
        """One vector as the parameters."""
        ends = np.cumsum([w.size for w in self.start])[:-1]
        return [p.reshape(w.shape) for p, w in zip(np.split(x, ends), self.start, strict=True)]

    def by_train(self, rule):
        """The problem "mlp" as a net that trains on full batches; its History's loss in `values`."""
        net = layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(2)], seed=0, dtype="float64")
        net.build((3,))
        parameters = [net[0].w, net[0].b, net[2].w, net[2].b]
        for w, start in zip(parameters, self.start, strict=True):
            w[...] = start
        counted, self.asked, self.values = CountedMSE(), [], []
        for _ in range(self.recorded[-1]):
            history = net.train(
                self.arrays["x"], self.arrays["y"], optim=rule, loss=counted, epochs=1, batch_size=20, verbose=False
            )
            self.asked.append(counted.calls)
            self.values += history["loss"]
            yield [w.copy() for w in parameters], None

    def problem(self, parameters):
        """Value and gradients of the function that is minimised."""
        if self.kind == "quadratic":
            (p,), A, b = parameters, self.arrays["A"], self.arrays["b"]
            return 0.5 * (p @ A @ p) - b @ p, [A @ p - b]
        if self.kind == "rosenbrock":
            ((a, b),) = parameters
            return (1 - a) ** 2 + 100 * (b - a * a) ** 2, [
                np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])
            ]
        w1, b1, w2, b2 = parameters
        x, y = self.arrays["x"], self.arrays["y"]
        h = np.tanh(x @ w1 + b1)
        off = h @ w2 + b2 - y
        up = off * (2 / off.size)
        within = (up @ w2.T) * (1 - h * h)
        return np.mean(off**2), [x.T @ within, within.sum(0), h.T @ up, up.sum(0)]


class CountedMSE(loss.MSE):
    """MSE that counts how often it is asked."""

    calls = 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        return super().__call__(*arguments, **options)


class Held(layers.Layer):
    """A layer whose w is given, and whose gradient is set by hand."""

    def __init__(self, start, name=None):
        super().__init__(name)
        self.start = start

    def setup(self, input_shape):
        self.add_parameter("w", self.start.shape, self.start)

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, x, training):
        return x

    def backward(self, grad):
        return grad


def held(arrays, dtype="float64"):
    """A net of one layer for each array."""
    net = layers.Model([Held(array) for array in arrays], seed=0, dtype=dtype)
    net.build((1,))
    return net


def give(net, gradients):
    for layer, g in zip(net.layers, gradients, strict=True):
        layer.w_gradient = g


def rules_within(rule):
    """The rule, and those that it goes around."""
    while rule is not None:
        yield rule
        rule = rule.__dict__.get("optimizer")


# Data for a small net, and a loop of one's own over it.
X, Y = np.random.default_rng(0).standard_normal((2, 12, 3))


def fresh_net():
    return layers.Model([layers.Linear(4), layers.Tanh(), layers.Dropout(0.2), layers.Linear(3)], seed=0).build((3,))


def step_by_hand(net, rule, times, first=0):
    """Steps on batches of 6 rows, in turn."""
    rule.prepare(net)
    error = loss.MSE()
    for t in range(first, first + times):
        rows = slice(6 * (t % 2), 6 * (t % 2) + 6)
        error(net(X[rows], training=True), Y[rows])
        rule(net, error)


def _made(about, rule=None):
    arguments = dict(about["arguments"])
    if isinstance(arguments.get("optimizer"), dict):
        arguments["optimizer"] = _made(arguments["optimizer"])
    return (rule or getattr(optim, about["optimizer"]))(**arguments)


@functools.cache
def cases(*names):
    """Every case of these classes, or of all."""
    found = []
    for path in sorted(FOLDER.glob("*.npz")):
        if path.stem == "gradients" or (names and path.stem not in names):
            continue
        with np.load(path) as file:
            found += [Case(about, file) for about in json.loads(str(file["about"]))["cases"]]
    return found


def ways(case):
    """The names of the ways in which a case can be walked."""
    if case.kind is None:
        return ["by_step", "by_net"]
    return ["by_minimize", "by_train"] if case.kind == "mlp" else ["by_minimize"]


def difference(case, walk):
    """The largest difference of a walk from the golden path (and from the golden evaluation weights, where the walk
    shows any), over the largest step of the walk; infinite where a number of ours is not finite, or nothing moves."""
    path, evaluation = zip(*walk, strict=True)
    off = 0.0
    for place, t in enumerate(case.recorded):
        pairs = list(zip(path[t - 1], case.path, strict=True))
        if evaluation[t - 1] is not None:
            pairs += zip(evaluation[t - 1], case.evaluation, strict=True)
        for ours, golden in pairs:
            if not np.isfinite(ours).all():
                return np.inf
            off = max(off, float(np.abs(ours - golden[place]).max()))
    ends = zip([case.start, *path[:-1]], path, strict=True)
    step = max(float(np.abs(b - a).max()) for before, after in ends for a, b in zip(before, after, strict=True))
    return off / step if step else np.inf
