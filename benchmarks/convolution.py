"""Convolution and pooling beside PyTorch's: forward and backward of single layers, and the training of a small net.

    python benchmarks/convolution.py            a Markdown table; without PyTorch, of ours alone
    python benchmarks/convolution.py --rounds 20

Each library runs in a process of its own, on all cores, float32, and the two take turns; a ratio is the median over the
rounds of ours / PyTorch's. PyTorch runs eagerly in its default layout, channels first. Backward gives all gradients,
but for the first layer that of its input, which nobody reads. Arrays are lent as within `train`. The limit is what this
machine's sgemm reaches on squares of 1024, in the same number of threads: a layer's share of it counts the
multiplications of its products alone.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

N = 128
LAYERS = {  # name: (layer, its arguments, height, channels)
    "Conv2D 3x3, 1 to 32, on 28x28": ("Conv2D", {"filters": 32, "kernel_size": 3}, 28, 1),
    "Conv2D 3x3, 32 to 64, on 26x26": ("Conv2D", {"filters": 64, "kernel_size": 3}, 26, 32),
    "Conv2D 1x1, 64 to 64, on 14x14": ("Conv2D", {"filters": 64, "kernel_size": 1}, 14, 64),
    "Conv2D 3x3, 64 to 64, on 14x14": ("Conv2D", {"filters": 64, "kernel_size": 3}, 14, 64),
    "Conv2D 5x5, 32 to 32, on 14x14": ("Conv2D", {"filters": 32, "kernel_size": 5}, 14, 32),
    "DepthwiseConv2D 3x3, 64, on 14x14": ("DepthwiseConv2D", {"kernel_size": 3}, 14, 64),
    "MaxPool2D 2, 64, on 24x24": ("MaxPool2D", {"size": 2}, 24, 64),
}
STEP = "training step of two convolutions"


def forward_flops(name):
    kind, told, size, channels = LAYERS[name]
    if kind != "Conv2D":
        return 0
    return 2 * N * (size - told["kernel_size"] + 1) ** 2 * told["kernel_size"] ** 2 * channels * told["filters"]


def step_flops():
    """Forward, dL/dw and dL/dx, of the first layer without the last."""
    first, second = (forward_flops(name) for name in list(LAYERS)[:2])
    linear = 2 * N * 128 * (12 * 12 * 64 + 10)
    return 2 * first + 3 * (second + linear)


class Clock:
    """A callback that notes when each step ends."""

    def step(self, run):
        self.times.append(time.perf_counter())


class Ours:
    def __init__(self):
        import layers
        import loss
        import optim
        from layerwise.core import threads

        self.layers, self.loss, self.optim, self.threads = layers, loss, optim, threads

    def layer(self, kind, told, size, channels):
        layer = getattr(self.layers, kind)(**told).build((size, size, channels))
        x = np.random.default_rng(0).standard_normal((N, size, size, channels), np.float32)
        grad = np.random.default_rng(1).standard_normal(layer(x).shape, np.float32)
        layer.input_gradient_needed = channels > 1

        def reusing(function, *arguments):
            with layer._workspace.step():
                function(*arguments)

        return {"forward": lambda: reusing(layer.forward, x, True), "backward": lambda: reusing(layer.backward, grad)}

    def net(self):
        make = self.layers
        net = make.Model([
            make.Conv2D(32, 3), make.ReLU(), make.Conv2D(64, 3), make.ReLU(), make.MaxPool2D(2), make.Flatten(),
            make.Linear(128), make.ReLU(), make.Linear(10),
        ], seed=0)  # fmt: skip
        x = np.random.default_rng(0).standard_normal((N, 28, 28, 1), np.float32)
        y = np.random.default_rng(1).integers(10, size=N)
        rule, error, clock = self.optim.Adam(), self.loss.CrossEntropy(from_logits=True), Clock()

        def steps(count):
            clock.times = []
            net.train(x, y, rule, error, epochs=count, batch_size=N, callbacks=clock, verbose=False)
            return np.diff(clock.times)

        return steps

    def limit(self):
        a = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
        outs = [np.empty_like(a) for _ in range(self.threads.workers())]
        with self.threads.single_blas() as single:
            seconds = timed(lambda: self.threads.parallel_for(lambda out: a.dot(a, out), [(out,) for out in outs]), 8)
        return len(outs) * 2 * 1024**3 / seconds if single else 2 * 1024**3 / timed(lambda: a.dot(a, outs[0]), 8)


class Torch:
    def __init__(self):
        import torch

        self.torch = torch
        torch.manual_seed(0)

    def layer(self, kind, told, size, channels):
        nn = self.torch.nn
        if kind == "MaxPool2D":
            layer = nn.MaxPool2d(told["size"])
        else:
            groups = channels if kind == "DepthwiseConv2D" else 1
            layer = nn.Conv2d(channels, told.get("filters", channels), told["kernel_size"], groups=groups)
        x = self.torch.randn(N, channels, size, size, requires_grad=channels > 1)
        y = layer(x)
        grad, wanted = self.torch.randn_like(y), [x] * x.requires_grad + list(layer.parameters())
        return {
            "forward": lambda: layer(x),
            "backward": lambda: self.torch.autograd.grad(y, wanted, grad, retain_graph=True),
        }

    def net(self):
        nn = self.torch.nn
        net = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(64 * 144, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip
        rule, error = self.torch.optim.Adam(net.parameters()), nn.CrossEntropyLoss()
        x, y = self.torch.randn(N, 1, 28, 28), self.torch.randint(10, (N,))

        def steps(count):
            times = []
            for _ in range(count):
                rule.zero_grad()
                error(net(x), y).backward()
                rule.step()
                times.append(time.perf_counter())
            return np.diff(times)

        return steps


def timed(function, times):
    """The fastest of some calls."""
    best = np.inf
    for _ in range(times):
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best


def work(library, connection):
    """Answer one request after the other: the seconds of a pass, or of a step."""
    try:
        library = library()
    except ImportError:
        connection.send(None)
        return
    connection.send("ready")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    created = {}
    while (request := connection.recv()) is not None:
        name, way = request
        if name == "limit":
            connection.send(library.limit())
        elif name == "memory":
            connection.send((before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        elif name == STEP:
            if name not in created:
                created = {name: library.net()}
            connection.send(min(created[name](5)))
        else:
            if name not in created:
                created = {name: library.layer(*LAYERS[name])}
                created[name]["forward"]()
            connection.send(timed(created[name][way], 3))


class Process:
    def __init__(self, library):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(library, theirs), daemon=True)
        self.process.start()
        self.there = self.connection.recv() is not None

    def ask(self, name, way=None):
        self.connection.send((name, way))
        return self.connection.recv()

    def end(self):
        if self.there:
            self.connection.send(None)
        self.process.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="", help="a part of the names of the rows to run")
    rounds, only = vars(parser.parse_args()).values()
    both = [Process(Ours), Process(Torch)]
    both = [process for process in both if process.there]
    rows = [(name, way) for name in LAYERS for way in ("forward", "backward")] + [(STEP, "")]
    print("| | ours, ms | PyTorch, ms | ratio | share of the limit |\n|---|---|---|---|---|")
    limits = []
    for name, way in rows:
        if only not in name:
            continue
        times = []
        for _ in range(rounds):
            limits.append(both[0].ask("limit"))
            times.append([process.ask(name, way) for process in both])
        ours, *theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(row[0] / row[-1] for row in times) if theirs else None
        if name == STEP:
            flops = step_flops()
        else:
            flops = forward_flops(name) * (1 + (way == "backward" and LAYERS[name][3] > 1))
        shares = [f"{flops / ours / statistics.median(limits):.0%}" if flops else ""]
        told = [f"{1e3 * theirs[0]:.2f}", f"{ratio:.2f}"] if theirs else ["", ""]
        print("| " + " | ".join([f"{name} {way}".strip(), f"{1e3 * ours:.2f}", *told, *shares]) + " |", flush=True)
    for process in both:
        process.end()
    print(f"\nLimit: {statistics.median(limits) / 1e9:.0f} GFLOP/s.")
    for library in (Ours, Torch)[: len(both)]:
        process = Process(library)
        for _ in range(3):
            process.ask(STEP)
        before, after = process.ask("memory")
        process.end()
        print(f"{library.__name__}: {after:.0f} MB at the peak of that training, {before:.0f} MB after the imports.")


if __name__ == "__main__":
    main()
