"""A stack of S copies against S single nets: random layers, rules, losses, weights and schedules, the same seeds. Each
copy is its single net: parameters, history, predictions, to nine digits.

    PYTHONPATH=. python tests/test_fuzz_copies.py 10000        so many trainings, with the counts of what they were
"""

import collections
import json
import pickle
import sys
import time
import warnings

import numpy as np
import pytest

import layers
import loss
import model
import optim

CLOSE = 1e-9
NUDGE = 1e-13  # of a start: what makes of it more than a hundredth of what is wrong, decides nothing

RULES = [getattr(optim, name) for name in optim.__all__ if name != "Optimizer"]
RULES = [each for each in RULES if isinstance(each, type) and issubclass(each, optim.Optimizer) and each.stackable]

HYPER = {  # what differs from rule to rule stands in `Draw.rule`
    "lr": (1e-3, 0.05), "beta": (0.3, 0.95), "beta1": (0.3, 0.95), "beta2": (0.6, 0.999), "momentum": (0.1, 0.9),
    "dampening": (0.0, 0.7), "weight_decay": (0.001, 0.3), "epsilon": (1e-6, 0.01), "epsilon_root": (1e-8, 0.01),
    "lambd": (1e-4, 0.1), "alpha": (0.4, 0.9), "t0": (1, 8), "rho": (0.5, 0.95), "lr_decay": (0.0, 0.2),
    "initial_accumulator": (0.01, 0.3), "momentum_decay": (0.001, 0.1), "eta_minus": (0.2, 0.8),
    "eta_plus": (1.05, 1.5), "step_min": (1e-6, 1e-3), "step_max": (0.1, 1.0),
}  # fmt: skip

MAY_BE_0 = ("momentum", "dampening", "weight_decay", "lambd", "lr_decay", "initial_accumulator", "beta", "beta1")


def is_tied(kind):
    """Whether gradients are of a few sizes, so that without weights they cancel to rounding errors of either sign."""
    if kind.by_rows or kind.outputs > 1 or (kind.binary and not kind.labels):
        return False
    each, pred = kind(), np.linspace(-3, 3, 40)[:, None]
    each(pred, np.ones((40, 1)))
    return len(np.unique(each.backward())) <= 3


ACTIVATIONS = (layers.Nonlinearity, layers.Softmax, layers.LogSoftmax)
PLAIN = [
    each
    for name, each in vars(layers).items()
    if name in layers.__all__ and issubclass(each, ACTIVATIONS) and each.stackable
]


class Falling:
    """A learning rate that falls, each copy's its own where `lr` is an array."""

    def __init__(self, lr, share):
        self.lr, self.share = lr, share

    def __call__(self, steps):
        return self.lr * self.share**steps


class Draw:
    """One random training. What is drawn is made anew for each net: functions of the copy, None being the stack."""

    def __init__(self, seed):
        self.rng = np.random.default_rng((14, seed))
        self.copies = self.whole(1, 4)
        self.seeds = self.one(self.whole(0, 99), [int(each) for each in self.rng.integers(0, 999, self.copies)])
        self.rows, self.time = self.whole(5, 30), self.chance(0.2) * self.whole(2, 3)
        self.shape = (self.time, self.whole(2, 4)) if self.time else (self.whole(1, 4),)
        self.dtype = self.one("float64", "float64", "float32")
        self.layers = self.net()
        self.settings()

    def one(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def whole(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def chance(self, share):
        return bool(self.rng.random() < share)

    def each(self, name):
        """A number for this hyper-parameter, or one for each copy, among which may be 0."""
        low, high = HYPER[name]
        if self.chance(0.5):
            return float(self.rng.uniform(low, high))
        numbers = self.rng.uniform(low, high, self.copies)
        return np.where(self.rng.random(self.copies) < 0.2, 0.0, numbers) if name in MAY_BE_0 else numbers

    # The net: a list of functions that make its layers.

    def net(self):
        created, (*before, width) = [], self.shape
        for _ in range(self.whole(0, 4)):
            width = self.block(created, width)
        if before and self.chance(0.6):
            created.append(self.one(layers.Flatten, lambda n=width * before[0]: layers.Reshape((n,))))
            before, width = [], width * before[0]
        self.error = self.loss()
        columns = self.whole(2 if self.classes else 1, 4)
        units, arguments = columns * self.error[0].outputs, self.linear()
        created.append(lambda: layers.Linear(units, **arguments))
        if self.last is not None:
            created.append(self.last)
        self.columns = (*before, columns)
        return created

    def linear(self):
        return self.one({}, {}, {"bias": False}, {"init": "he"}, {"init": "orthogonal"})

    def block(self, created, width):
        kind = self.one("linear", "linear", "plain", "plain", "random", "residual", "parallel", "net")
        units, plain, arguments = self.whole(2, 6), self.one(*PLAIN), self.linear()
        if plain in (layers.Softmax, layers.LogSoftmax) and width < 2:
            plain = layers.Tanh
        if kind == "linear":
            created.append(lambda: layers.Linear(units, **arguments))
            return units
        if kind == "plain":
            created.append(plain)
        elif kind == "random":
            rate = float(self.rng.uniform(0, 0.6))
            created.append(self.one(lambda: layers.Dropout(rate), lambda: layers.GaussianNoise(rate)))
        elif kind == "residual":
            created.append(lambda: layers.Residual([layers.Linear(width), plain(), layers.Dropout(0.3)]))
        elif kind == "net":
            seed = self.one(None, 7)
            created.append(lambda: layers.Model([layers.Linear(units), layers.Tanh()], seed=seed, dtype=self.dtype))
            return units
        else:
            join = self.one("concatenate", "add")
            created.append(lambda: layers.Parallel([[layers.Linear(2), layers.ReLU()], layers.Linear(2)], join=join))
            return 4 if join == "concatenate" else 2
        return width

    def loss(self):
        """Its class and arguments; sets whether the targets are classes, and the last layer."""
        reduction = self.one({}, {}, {"reduction": "sum"}, {"reduction": "batch_sum"})
        self.classes, self.last = False, None
        kind = self.one(*(getattr(loss, name) for name in loss.__all__ if name != "Loss"))
        self.targets = "numbers"
        if kind is loss.CrossEntropy:
            self.classes, self.targets = True, self.one("class numbers", "probabilities")
            if self.chance(0.5):
                self.last = layers.Softmax
                return kind, reduction
            smooth = {"label_smoothing": float(self.rng.uniform(0, 0.4))}
            ignored = {"ignore_index": 1} if self.targets == "class numbers" and self.chance(0.5) else smooth
            return kind, {"from_logits": True} | ignored | reduction
        if kind is loss.KLDivergence:
            self.classes, self.targets, self.last = True, "probabilities", layers.Softmax
        elif kind is loss.CosineSimilarity:
            self.classes = True
        elif kind.binary and not kind.labels:
            self.targets = "shares"
            if self.chance(0.5):
                return kind, {"from_logits": True} | reduction
            self.last = layers.Sigmoid
        elif kind.labels:
            self.targets = "signs"
        elif kind.positive_targets:
            self.targets = "counts"
        return kind, reduction

    def settings(self):
        shape = (self.rows, *self.columns)
        u = self.rng.uniform(-1, 1, shape)
        self.x = self.rng.normal(size=(self.rows, *self.shape))
        self.y = {
            "numbers": lambda: 1.5 * u,
            "shares": lambda: (1 + u) / 2,
            "signs": lambda: np.where(u < 0, -1.0, 1.0),
            "counts": lambda: np.floor(2 + 2 * u),
            "class numbers": lambda: u.argmax(-1),
            "probabilities": lambda: np.abs(u) / np.abs(u).sum(-1, keepdims=True),
        }[self.targets]()
        metrics = {"class numbers": ["accuracy", "balanced_accuracy"], "numbers": ["mae", "r2"]}
        metrics = [] if self.error[0].outputs > 1 else metrics.get(self.targets, [])
        weight, by_class = None, None
        if self.chance(0.4) or is_tied(self.error[0]):
            steps = len(self.columns) > 1 and self.chance(0.5)
            weight = self.rng.uniform(0, 3, (self.rows, *self.columns[: int(steps)]))
        elif self.targets == "class numbers" and len(self.columns) == 1 and self.chance(0.4):
            by_class = self.one("balanced", self.rng.uniform(0.2, 3, self.columns[-1]).tolist())
        self.options = {
            "batch_size": self.whole(2, self.rows + 3),
            "shuffle": self.chance(0.7),
            "validation": self.one(None, None, 0.3, (self.x[:4], self.y[:4])),
            "metrics": metrics if self.chance(0.4) else [],
            "sample_weight": weight,
            "class_weight": by_class,
            "verbose": False,
        }
        self.frozen = self.chance(0.15)
        self.legs = [self.whole(1, 3) for _ in range(self.whole(1, 2))]
        self.kind, self.hyper, self.share = self.rule()

    def rule(self):
        kind, hyper = self.one(*RULES), {}
        for name, default in kind().hyper.items():
            if isinstance(default, bool):
                hyper[name] = self.chance(0.4)
            elif name == "lr" or self.chance(0.5):
                hyper[name] = self.each(name)
        if kind is optim.AdaBelief:  # 1e-16 below a root makes digits of rounding errors
            hyper |= {"epsilon": 1e-4, "epsilon_root": 1e-6}
        return kind, hyper, self.one(None, None, 0.9)

    # The same for the stack, and for each of its nets.

    def make(self, s=None):
        seeds = self.seeds if isinstance(self.seeds, list) else [self.seeds + k for k in range(self.copies)]
        told = {"seed": self.seeds, "copies": self.copies} if s is None else {"seed": seeds[s]}
        net = layers.Model([each() for each in self.layers], dtype=self.dtype, **told).build(self.shape)
        owners = [leaf for leaf in net.leaf_layers() if leaf.parameters]
        if self.frozen and len(owners) > 1:
            owners[0].frozen = True
        hyper = {n: v[s] if s is not None and isinstance(v, np.ndarray) else v for n, v in self.hyper.items()}
        if self.share is not None:
            hyper["lr"] = Falling(hyper["lr"], self.share)
        return net, self.kind(**hyper)

    def train(self, net, rule):
        """(net, rule, history's lists): between its legs both go through a pickle."""
        histories = collections.defaultdict(list)
        for epochs in self.legs:
            error = self.error[0](**self.error[1])
            history = net.train(self.x, self.y, rule, error, epochs=epochs, **self.options)
            for name in history:
                histories[name] += list(history[name])
            if net.copies is not None:
                histories["diverged"].append(history.diverged)
            net, rule = pickle.loads(pickle.dumps((net, rule)))
        histories.pop("seconds")
        return net, histories

    def __repr__(self):
        hyper = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in self.hyper.items()}
        net = layers.Model([each() for each in self.layers], seed=0)
        options = {n: v for n, v in self.options.items() if n not in ("sample_weight", "verbose")}
        return f"{self.copies} of {net!r}, {self.kind.__name__}({hyper}), {self.error}, {options}, {self.legs}"


def apart(ours, theirs):
    """The largest difference, over the largest number."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    finite = np.isfinite(theirs)  # of others the kind alone counts: the loss of a validation may overflow
    kinds = (np.where(np.isfinite(each), 0, each) for each in (ours, theirs))
    if ours.shape != theirs.shape or not np.array_equal(*kinds, equal_nan=True):
        return np.inf
    largest = np.max(np.abs(theirs[finite]), initial=0.0)
    return float(np.max(np.abs(ours[finite] - theirs[finite]), initial=0.0) / (largest or 1.0))


def differences(drawn, s, stack, told, nudge=0.0):
    """How far copy s of the stack is from its single net: the name of the most distant, and the distance."""
    net, rule = drawn.make(s)
    net.vector[...] *= 1 + nudge
    try:
        net, alone = drawn.train(net, rule)
    except model.DivergenceError:
        return {"divergence": 0.0 if told["diverged"][-1][s] else np.inf}, net
    if told["diverged"][-1][s]:
        return {"divergence": np.inf}, net
    off = {f"history {name}": apart([each[s] for each in told[name]], alone[name]) for name in alone}
    off["parameters"] = apart(stack.vector[s], net.vector)
    off["predictions"] = apart(stack.copy(s).predict(drawn.x), net.predict(drawn.x))
    missing = {f"history {name}": np.inf for name in (told.keys() ^ alone.keys()) - {"diverged"}}
    return off | missing, net


def check(seed):
    """What the training was; (what is wrong, how far) where a copy is another than its net."""
    drawn = Draw(seed)
    close = CLOSE if drawn.dtype == "float64" else 2e-4
    stack, told = drawn.train(*drawn.make())
    for s in range(drawn.copies):
        off, net = differences(drawn, s, stack, told)
        name = max(off, key=off.get)
        if off[name] < close:
            continue
        # A kink, or a quotient of rounding errors: is it the same net, and a start a few bits away?
        _, other = differences(drawn, s, stack, told, NUDGE if drawn.dtype == "float64" else 1e-6)
        if off[name] < np.inf and apart(other.vector, net.vector) > off["parameters"] / 100:
            return "not decided", None
        return "wrong", (seed, name, off[name], repr(drawn))
    return drawn.kind.__name__, None


def hyper_parameters():
    """(rule, name) of every hyper-parameter that is a number."""
    for rule in RULES:
        for name, default in rule().hyper.items():
            if not isinstance(default, bool):
                yield pytest.param(rule, name, id=f"{rule.__name__}-{name}")


@pytest.mark.parametrize(("rule", "name"), list(hyper_parameters()))
def test_every_hyper_parameter_may_differ_from_copy_to_copy(rule, name):
    low, high = HYPER[name]
    numbers, x = np.array([0.0 if name in MAY_BE_0 else low, (low + high) / 2, high]), np.ones((4, 2))
    others = {"momentum": 0.5, "dampening": 0.5} if rule is optim.SGD else {}
    others |= {"epsilon": 1e-4} if rule in (optim.AdaBelief, optim.RMSProp) else {}

    def trained(number, **told):
        net = layers.Model([layers.Linear(3), layers.Tanh(), layers.Linear(1)], dtype="float64", **told)
        net.train(x, x[:, :1], rule(**others | {name: number}), loss.MSE(), epochs=8, verbose=False)
        return net.vector

    stack = trained(numbers, seed=4, copies=3)
    singles = [trained(float(number), seed=4 + s) for s, number in enumerate(numbers)]
    np.testing.assert_allclose(stack, singles, rtol=1e-10, atol=1e-13)


def fuzz(first, last):
    counts, wrong, slowest = collections.Counter(), [], 0.0
    for seed in range(first, last):
        began = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", "every layer with parameters is frozen|.* is on top of ", UserWarning)
                outcome, found = check(seed)
        except Exception as error:
            outcome, found = "raised", (seed, type(error).__name__, str(error)[:300], repr(Draw(seed)))
        counts[outcome] += 1
        wrong += [found] if found else []
        slowest = max(slowest, time.perf_counter() - began)
    return {"counts": dict(sorted(counts.items())), "wrong": wrong, "slowest": round(slowest, 3)}


@pytest.mark.parametrize("part", range(4))
def test_every_copy_of_a_stack_is_its_single_net(part):
    told = fuzz(30 * part, 30 * part + 30)
    assert told["wrong"] == []
    assert told["counts"].get("not decided", 0) <= 3


if __name__ == "__main__":
    span = [int(each) for each in sys.argv[1].split("-")]
    print(json.dumps(fuzz(*(span if len(span) == 2 else (0, *span))), indent=1))
