"""How the time of one training step of layerwise divides, how it grows with width, depth and batch, and what the
machine could do at best. run.py starts this file once for each measurement, as it does peers.py:

    python benchmarks/growth.py where mlp '{"data": "folder", "threads": 2, ...}'
    python benchmarks/growth.py growth width '{...}'
    python benchmarks/growth.py limit machine '{...}'

The parts are timed from outside, by wrapping methods of the objects at hand; the library is as it always is.
"""

import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import peers
from peers import ROOT, clock

sys.path.insert(0, str(ROOT))

from layerwise.training import data as _data

PARTS = ("gather", "forward", "loss", "backward", "update")
NETS = {"mlp": peers.MLP, "mlp512": peers.MLP512}


class Split:
    """Times the parts of a training while it watches: seconds and calls of each name in PARTS."""

    def __init__(self, net, rule, error):
        self.net, self.rule, self.error = net, rule, error
        self.epoch = _data.ArrayBatches.epoch
        self.watching = False
        self.clear()

    def clear(self):
        self.seconds, self.calls = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0)

    def timed(self, part, function, within=None):
        """`function`, its time added to that of a part, and taken from the one that it is called within."""

        def measured(*arguments):
            began = clock()
            result = function(*arguments)
            seconds = clock() - began
            self.seconds[part] += seconds
            self.calls[part] += 1
            if within:
                self.seconds[within] -= seconds
            return result

        return measured

    def watch(self):
        net, rule, error = self.net, self.rule, self.error
        net.forward = self.timed("forward", net.forward)
        rule.backward = self.timed("backward", rule.backward)
        rule.update = self.timed("update", rule.update)
        error.backward = self.timed("loss", error.backward, within="backward")
        usual = type(error)  # a call is looked up on the class
        error.__class__ = type(usual.__name__, (usual,), {"__call__": self.timed("loss", usual.__call__)})
        epoch, fetch = self.epoch, self.timed("gather", lambda rows: next(rows, None))

        def rows(*arguments):
            source = iter(epoch(*arguments))
            while (batch := fetch(source)) is not None:
                yield batch

        _data.ArrayBatches.epoch = rows
        self.watching = True

    def leave(self):
        del self.net.forward, self.rule.backward, self.rule.update, self.error.backward
        self.error.__class__ = type(self.error).__base__
        _data.ArrayBatches.epoch = self.epoch
        self.watching = False


def wrapping():
    """Seconds that a wrapped call adds to the part that it measures: what it says of a function that does nothing."""
    split = Split(None, None, None)
    nothing = split.timed("update", lambda: None)
    for _ in range(10_000):
        nothing()
    return split.seconds["update"] / 10_000


def divided(net, rule, error, x, y, batch, epochs):
    """Seconds of one step: {"step", every part, "rest"}, and "wrapping", what watching costs.

    In one training every other epoch is watched. The step is that of the epochs that are not; medians over epochs.
    """
    split, inside, began = Split(net, rule, error), wrapping(), clock()
    plain, watched = [], []

    def note(net, logs):
        nonlocal began
        seconds = clock() - began
        if split.watching:
            watched.append([seconds, *(split.seconds[part] - inside * split.calls[part] for part in PARTS)])
            split.leave()
        else:
            plain.append(seconds)
            split.watch()
        split.clear()
        began = clock()

    # The first epoch, not watched, is not counted.
    net.train(x, y, rule, error, epochs=2 * epochs + 1, batch_size=batch, callbacks=[note], verbose=False)
    split.leave()
    steps = -(-len(x) // batch)
    step = statistics.median(plain[1:]) / steps
    slower, *members = (np.median(watched, axis=0) / steps).tolist()
    found = {"step": step, **dict(zip(PARTS, members, strict=True))}
    return found | {"rest": step - sum(members), "wrapping": slower - step}


def where(name, o):
    peer = peers.Layerwise(o["threads"])
    if name == "xor":
        x, y = np.array([[0, 1], [0, 0], [1, 1], [1, 0]], np.float32), np.eye(2, dtype=np.float32)[[1, 0, 0, 1]]
        return divided(peer.xor_net(), peer.optim.Adam(lr=0.01), peer.loss.MSE(), x, y, 4, o["steps"])
    x, y = peers.data(o)
    if name == "cnn":
        x, y = (each[: o["batch"] * o["cnn_steps"]] for each in (x, y))
    net = peer.convolutional() if name == "cnn" else peer.net(*NETS[name])
    return divided(net, peer.optim.Adam(), peer.loss.CrossEntropy(), x, y, o["batch"], o["epochs"])


def limit(name, o):
    """The rate of a large product, and of copying what no cache holds: a byte counts when read and when written."""
    size, length = o["limit_size"], o["limit_size"] ** 2 * 8
    a, b = (np.full((size, size), value, np.float32) for value in (0.5, 2.0))
    source, target = np.ones(length, np.float32), np.empty(length, np.float32)
    members = list(zip(np.array_split(target, o["threads"]), np.array_split(source, o["threads"]), strict=True))
    with ThreadPoolExecutor(o["threads"]) as pool:
        product = peers.timed(lambda: a.dot(b), o)["seconds"]
        copied = peers.timed(lambda: list(pool.map(lambda pair: np.copyto(*pair), members)), o)["seconds"]
    return {"flops": 2 * size**3 / product, "bandwidth": 2 * source.nbytes / copied, "blas": blas()}


def blas():
    """Which BLAS NumPy has, and its threads, if threadpoolctl is there to tell."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return None
    found = [each for each in threadpool_info() if each["user_api"] == "blas"]
    return ", ".join(f"{each['internal_api']} {each['version']}, {each['num_threads']} threads" for each in found)


# Growth ------------------------------------------------------------------------------------------------------
#
# axis -> (what it says, its values, value -> sizes of the net, value -> rows of a batch)

AXES = {
    "width": ("units, two hidden layers, batch 128", (32, 64, 128, 256, 512, 1024, 2048),
              lambda units: (784, units, units, 10), lambda units: 128),
    "depth": ("hidden layers of 128 units, batch 128", (1, 2, 4, 8, 16, 32),
              lambda layers: (784, *[128] * layers, 10), lambda layers: 128),
    "batch": ("rows of a batch, 784-128-10", (1, 4, 16, 64, 256, 1024, 4096),
              lambda rows: (784, 128, 10), lambda rows: rows),
}  # fmt: skip


def flops(sizes, rows, training=True):
    """Of the products in one step: forward, the gradients of the weights, and those of all inputs but the first."""
    each = [2 * rows * a * b for a, b in pairwise(sizes)]
    return 3 * sum(each) - each[0] if training else sum(each)


def traffic(sizes, rows):
    """Bytes that a step reads and writes at the least, if everything went through memory once.

    A parameter is read forward and backward, its gradient written; Adam reads four arrays and writes three. A row
    of the data is read and written; what a layer gives is written, read, and so is its gradient.
    """
    parameters = sum(a * b + b for a, b in pairwise(sizes))
    return 4 * (10 * parameters + 2 * rows * sizes[0] + 4 * rows * sum(sizes[1:]))


def products(sizes, rows, repeats):
    """Seconds of the bare matrix products of a step."""
    rng = np.random.default_rng(0)
    arrays = [[rng.standard_normal(shape, np.float32) for shape in ((rows, a), (a, b), (rows, b))]
              for a, b in pairwise(sizes)]  # fmt: skip
    out = [[np.empty_like(each) for each in three] for three in arrays]
    times = []
    for _ in range(repeats):
        began = clock()
        for place, ((x, w, grad), (dx, dw, y)) in enumerate(zip(arrays, out, strict=True)):
            x.dot(w, y)
            x.T.dot(grad, dw)
            if place:
                grad.dot(w.T, dx)
        times.append(clock() - began)
    return statistics.median(times[1:])


def shares(step, small, bare):
    """Seconds of each kind: the same net with one unit and one row is Python's calls and next to nothing else."""
    gather, update = (max(0.0, step[part] - small[part]) for part in ("gather", "update"))
    calls = min(small["step"], step["step"])
    bare = min(bare, step["step"] - calls)
    rest = max(0.0, step["step"] - calls - bare - gather - update)
    return {"calls": calls, "products": bare, "elementwise": rest, "update": update, "gather": gather}


def growth(axis, o):
    peer = peers.Layerwise(o["threads"])
    x, y = peers.data(o)
    _, values, sizes_of, rows_of = AXES[axis]

    def measured(sizes, rows, x):
        # An epoch of about a fifth of a second: few steps of what is slow, but some.
        steps = min(max(8, int(o["growth_flops"] / flops(sizes, rows))), 500, len(x) // rows)
        few = slice(0, rows * steps)
        rule, error = peer.optim.Adam(), peer.loss.CrossEntropy()
        return divided(peer.net(*sizes), rule, error, x[few], y[few], rows, o["epochs"])

    points = []
    for value in values[: o["growth_points"]]:
        sizes, rows = sizes_of(value), rows_of(value)
        step = measured(sizes, rows, x)
        small = measured((1, *[1] * (len(sizes) - 2), 10), 1, x[:, :1])
        kinds = shares(step, small, products(sizes, rows, 2 * o["repeats"] + 1))
        about = {"value": value, "flops": flops(sizes, rows), "bytes": traffic(sizes, rows)}
        points.append(about | {"seconds": step["step"], "parts": kinds})
    return {"points": points}


def main():
    work = {"where": where, "growth": growth, "limit": limit}[sys.argv[1]]
    print(json.dumps(work(sys.argv[2], json.loads(sys.argv[3]))), flush=True)


if __name__ == "__main__":
    main()
