"""The same work in each framework, in its usual idiom. run.py starts this file once for each measurement:

    python benchmarks/peers.py layerwise mlp '{"data": "folder", "threads": 2, ...}'

runs one workload in one framework and prints one line of JSON. The data come from .npy files, so that no framework
has another in its process. Every class below has the same methods, as far as its framework can do it:

    array(x)             the array in the framework's own form
    net(*sizes)          a net of Linear layers with ReLU between them; convolutional() the one with images
    fit(net, x, y, epochs, batch) -> (seconds of each epoch, predict)      Adam at 1e-3, cross-entropy, shuffled
    xor(x, y) -> train(steps)                                              full batches
    adam(size) -> step()                                                   one update of so many parameters
"""

import functools
import json
import statistics
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
clock = time.perf_counter


# The frameworks ----------------------------------------------------------------------------------------------


class Layerwise:
    title = "layerwise"
    packages = ("numpy",)
    importing = "import layers, loss, optim, model"

    def __init__(self, threads):
        sys.path.insert(0, str(ROOT))
        import layers
        import loss
        import optim

        self.layers, self.loss, self.optim = layers, loss, optim

    def array(self, x):
        return x

    def net(self, *sizes):
        chain = [self.layers.Linear(sizes[1])]
        for units in sizes[2:]:
            chain += [self.layers.ReLU(), self.layers.Linear(units)]
        return self.layers.Model([*chain, self.layers.Softmax()], seed=0)

    def convolutional(self):
        layers = self.layers
        chain = [layers.Conv2D(32, 3), layers.ReLU(), layers.Conv2D(64, 3), layers.ReLU(), layers.MaxPool2D(2)]
        chain += [layers.Flatten(), layers.Linear(128), layers.ReLU(), layers.Linear(10), layers.Softmax()]
        return layers.Model([layers.Reshape((28, 28, 1)), *chain], seed=0)

    def fit(self, net, x, y, epochs, batch):
        marks = [clock()]
        rule, error = self.optim.Adam(lr=1e-3), self.loss.CrossEntropy()
        note = [lambda net, logs: marks.append(clock())]
        net.train(x, y, rule, error, epochs=epochs, batch_size=batch, callbacks=note, verbose=False)
        return np.diff(marks).tolist(), net.predict

    def xor_net(self):
        layers = self.layers
        chain = [layers.Linear(8), layers.Linear(4), layers.Sigmoid(), layers.Linear(2), layers.Softmax()]
        return layers.Model(chain, seed=0)

    def xor(self, x, y):
        net, rule, error = self.xor_net(), self.optim.Adam(lr=0.01), self.loss.MSE()
        return lambda steps: net.train(x, np.eye(2)[y], optim=rule, loss=error, epochs=steps, verbose=False)

    def adam(self, size):
        net = self.layers.Model([self.layers.Linear(1000, bias=False)], seed=0).build((size // 1000,))
        net.gradient[...] = gradient(size)
        rule = self.optim.Adam()
        return lambda: rule.update(net)


class LayerwiseStep(Layerwise):
    """`optim.step`, without a net: it copies the gradients first."""

    title = "layerwise, `step(arrays)`"

    def adam(self, size):
        w, g, rule = np.ones(size, np.float32), gradient(size), self.optim.Adam()
        return lambda: rule.step([w], [g])


class Numpy:
    """Only how long its import takes, which is part of that of most others."""

    title = "NumPy alone"
    packages = ("numpy",)
    importing = "import numpy"


class Torch:
    title = "PyTorch"
    packages = ("torch",)
    importing = "import torch"
    how = {}  # noqa: RUF012

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch, self.nn = torch, torch.nn
        self.rule = functools.partial(torch.optim.Adam, **self.how)

    def array(self, x):
        return self.torch.from_numpy(x)

    def net(self, *sizes):
        chain = [self.nn.Linear(*sizes[:2])]
        for pair in pairwise(sizes[1:]):
            chain += [self.nn.ReLU(), self.nn.Linear(*pair)]
        return self.nn.Sequential(*chain)

    def convolutional(self):
        nn = self.nn
        chain = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
        chain += [nn.Flatten(), nn.Linear(64 * 12 * 12, 128), nn.ReLU(), nn.Linear(128, 10)]
        return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *chain)

    def fit(self, net, x, y, epochs, batch):
        torch, seconds = self.torch, []
        x, y = self.array(x), self.array(y)
        rule, error = self.rule(net.parameters(), lr=1e-3), self.nn.CrossEntropyLoss()
        for _ in range(epochs):
            began = clock()
            order = torch.randperm(len(x))
            for start in range(0, len(x), batch):
                rows = order[start : start + batch]
                rule.zero_grad()
                value = error(net(x[rows]), y[rows])
                value.backward()
                rule.step()
            seconds.append(clock() - began)

        def predict(x):
            with torch.inference_mode():
                return torch.softmax(net(x), 1)

        return seconds, predict

    def xor(self, x, y):
        nn = self.nn
        net = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 4), nn.Sigmoid(), nn.Linear(4, 2), nn.Softmax(dim=1))
        rule, error = self.rule(net.parameters(), lr=0.01), nn.MSELoss()
        x, y = self.array(x), self.array(np.eye(2, dtype=np.float32)[y])

        def train(steps):
            for _ in range(steps):
                rule.zero_grad()
                value = error(net(x), y)
                value.backward()
                rule.step()

        return train

    def adam(self, size):
        w = self.nn.Parameter(self.torch.ones(size))
        w.grad = self.array(gradient(size))
        return self.rule([w]).step


class TorchFused(Torch):
    title = "PyTorch, fused Adam"
    how = {"fused": True}  # noqa: RUF012


class Jax:
    title = "JAX"
    packages = ("jax", "optax")
    importing = "import jax"

    def __init__(self, threads):
        import jax
        import optax

        self.jax, self.optax = jax, optax

    def array(self, x):
        return self.jax.numpy.asarray(x)

    def weights(self, *sizes):
        rng, pairs = np.random.default_rng(0), list(pairwise(sizes))
        drawn = [(rng.uniform(-1, 1, pair) / pair[0] ** 0.5, np.zeros(pair[1])) for pair in pairs]
        return [(self.array(w.astype(np.float32)), self.array(b.astype(np.float32))) for w, b in drawn]

    def net(self, *sizes):
        def forward(parameters, x):
            for w, b in parameters[:-1]:
                x = self.jax.nn.relu(x @ w + b)
            w, b = parameters[-1]
            return x @ w + b

        return self.weights(*sizes), forward

    def step(self, rule, value):
        """One jitted step of `rule` down value(parameters, *batch); what it changes is given away to it."""

        @functools.partial(self.jax.jit, donate_argnums=(0, 1))
        def step(parameters, state, *batch):
            now, gradients = self.jax.value_and_grad(value)(parameters, *batch)
            updates, state = rule.update(gradients, state, parameters)
            return self.optax.apply_updates(parameters, updates), state, now

        return step

    def fit(self, net, x, y, epochs, batch):
        jax, optax, seconds = self.jax, self.optax, []
        parameters, forward = net
        x, y = self.array(x), self.array(y)

        def value(parameters, x, y, rows):
            scores = forward(parameters, x[rows])
            return optax.softmax_cross_entropy_with_integer_labels(scores, y[rows]).mean()

        rule, rng = optax.adam(1e-3), np.random.default_rng(0)
        step, state = self.step(rule, value), rule.init(parameters)
        for _ in range(epochs):
            began = clock()
            order = rng.permutation(len(x)).astype(np.int32)
            for start in range(0, len(x), batch):
                parameters, state, _ = step(parameters, state, x, y, order[start : start + batch])
            jax.block_until_ready(parameters)
            seconds.append(clock() - began)
        probabilities = jax.jit(lambda parameters, x: jax.nn.softmax(forward(parameters, x)))
        return seconds, lambda x: jax.block_until_ready(probabilities(parameters, x))

    def xor(self, x, y):
        def value(parameters, x, y):
            (w1, b1), (w2, b2), (w3, b3) = parameters
            hidden = self.jax.nn.sigmoid((x @ w1 + b1) @ w2 + b2)
            return ((self.jax.nn.softmax(hidden @ w3 + b3) - y) ** 2).mean()

        rule, parameters = self.optax.adam(0.01), self.weights(2, 8, 4, 2)
        step, state = self.step(rule, value), rule.init(parameters)
        x, y = self.array(x), self.array(np.eye(2, dtype=np.float32)[y])

        def train(steps):
            nonlocal parameters, state
            for _ in range(steps):
                parameters, state, _ = step(parameters, state, x, y)
            self.jax.block_until_ready(parameters)

        return train

    def adam(self, size):
        rule, w, g = self.optax.adam(1e-3), self.jax.numpy.ones(size), self.array(gradient(size))
        state = rule.init(w)

        @functools.partial(self.jax.jit, donate_argnums=(0, 1))
        def update(w, state, g):
            updates, state = rule.update(g, state, w)
            return self.optax.apply_updates(w, updates), state

        def step():
            nonlocal w, state
            w, state = self.jax.block_until_ready(update(w, state, g))

        return step


class Sklearn:
    title = "scikit-learn"
    packages = ("sklearn",)
    importing = "from sklearn.neural_network import MLPClassifier"

    def __init__(self, threads):
        from sklearn.neural_network import MLPClassifier

        warnings.simplefilter("ignore")  # that it has not converged: it was told when to end
        self.classifier = functools.partial(MLPClassifier, alpha=0, tol=0, random_state=0)

    def array(self, x):
        return x

    def net(self, *sizes):
        return {"hidden_layer_sizes": sizes[1:-1]}

    def fit(self, net, x, y, epochs, batch):
        """It has no word to say after an epoch: the time is that of `fit` over the number of epochs."""
        model = self.classifier(**net, batch_size=batch, max_iter=epochs, n_iter_no_change=epochs)
        began = clock()
        model.fit(x, y)
        return [(clock() - began) / model.n_iter_], model.predict_proba

    def xor(self, x, y):
        net = {"hidden_layer_sizes": (8, 4), "activation": "logistic", "learning_rate_init": 0.01, "batch_size": 4}
        net["shuffle"] = False  # of one batch that holds every row it would change nothing but the time
        return lambda steps: self.classifier(**net, max_iter=steps, n_iter_no_change=steps).fit(x, y)


PEERS = {
    "layerwise": Layerwise,
    "layerwise_step": LayerwiseStep,
    "numpy": Numpy,
    "torch": Torch,
    "torch_fused": TorchFused,
    "jax": Jax,
    "sklearn": Sklearn,
}


# The work ----------------------------------------------------------------------------------------------------
#
# Each gives {"seconds": ...} and whatever else it found; `o` are the options that run.py gave.

MLP, MLP512 = (784, 128, 10), (784, 512, 512, 10)


def gradient(size):
    return np.random.default_rng(0).standard_normal(size, np.float32) * np.float32(1e-3)


def data(o, part="train"):
    return tuple(np.load(Path(o["data"]) / f"{kind}_{part}.npy") for kind in "xy")


def timed(function, o, calls=1):
    """The median of repeats, in seconds a call; the first is not counted."""
    times = []
    for _ in range(o["repeats"] + 1):
        began = clock()
        function()
        times.append((clock() - began) / calls)
    return {"seconds": statistics.median(times[1:])}


def xor(peer, o):
    x, y = np.array([[0, 1], [0, 0], [1, 1], [1, 0]], np.float32), np.array([1, 0, 0, 1])
    train = peer.xor(x, y)
    return timed(lambda: train(o["steps"]), o, o["steps"])


def mlp(peer, o, sizes=MLP):
    x, y = data(o, "test")
    seconds, predict = peer.fit(peer.net(*sizes), *data(o), o["epochs"], o["batch"])
    right = np.asarray(predict(peer.array(x))).argmax(1) == y
    return {"seconds": statistics.median(seconds[1:] or seconds), "accuracy": float(right.mean())}


def mlp512(peer, o):
    return mlp(peer, o | {"epochs": max(2, o["epochs"] - 2)}, MLP512)


def predict(peer, o):
    x, y = data(o, "test")
    _, predict = peer.fit(peer.net(*MLP), x, y, 1, o["batch"])
    x = peer.array(x)
    return timed(lambda: predict(x), o)


def adam(peer, o, size):
    return timed(peer.adam(size), o | {"repeats": 5 * o["repeats"]})


def adam1m(peer, o):
    return adam(peer, o, o["adam1m"])


def adam10m(peer, o):
    return adam(peer, o, o["adam10m"])


def memory(peer, o):
    seconds, _ = peer.fit(peer.net(*MLP), *data(o), 1, o["batch"])
    return {"seconds": seconds[0]}


def cnn(peer, o):
    """Seconds a step: epochs of a few batches; the first is not counted."""
    x, y = data(o)
    rows = o["batch"] * o["cnn_steps"]
    seconds, _ = peer.fit(peer.convolutional(), x[:rows], y[:rows], o["epochs"], o["batch"])
    return {"seconds": statistics.median(seconds[1:]) / o["cnn_steps"]}


WORK = {each.__name__: each for each in (xor, mlp, mlp512, predict, adam1m, adam10m, memory, cnn)}


def peak_memory():
    """The most bytes that this process held at once.

    Not ru_maxrss where it can be helped: on Linux it begins at what the process that started this one held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main():
    name, work, o = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    found = WORK[work](PEERS[name](o["threads"]), o)
    print(json.dumps(found | {"peak_bytes": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
