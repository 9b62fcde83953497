"""layerwise beside PyTorch, JAX and scikit-learn: the same work, one process each, in turn, in several rounds.

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/run.py                        everything but growth: a quarter of an hour
    python benchmarks/run.py xor mlp --rounds 3     some of it
    python benchmarks/run.py --json speed.json --page docs/speed.md --chart docs/images/speed.png
    python benchmarks/run.py --read speed.json --page docs/speed.md       from an earlier run, without measuring

Names: xor mlp mlp512 predict adam import memory cnn (peers side by side), where and growth (layerwise alone; growth
takes five minutes). What is compared, how, and what came out is on the page, docs/speed.md. A framework that is not
installed is left out. MNIST is read from $LAYERWISE_DATA or the cache of layerwise.datasets; else the data are random
numbers of the same shapes, and the page says so.

The file of --json, written after every round, has "machine", "data", "rounds", "tiny", and, in seconds and bytes,
    "workloads": name -> {"results": peer -> {"rounds": [...], "median", "min", "max", "share", ...},
                          "ratios": peer -> {"rounds", "median", "min", "max", "floor", "met"}, ...}
    "where": net -> part -> seconds         "growth": axis -> {"points": [{"value", "seconds", "parts", ...}]}
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pages
from growth import AXES, flops
from peers import MLP, MLP512, PEERS, ROOT
from tqdm import tqdm

sys.path.insert(0, str(ROOT))

import layers
from layerwise import datasets

HERE = Path(__file__).resolve().parent
EVERYONE = ("layerwise", "torch", "torch_fused", "jax", "sklearn")
PLAIN = ("layerwise", "torch", "jax", "sklearn")  # without an optimizer the two of PyTorch are one
SIZES = {
    "train_rows": 60_000, "test_rows": 10_000, "batch": 128, "epochs": 5, "repeats": 5, "steps": 500, "cnn_steps": 10,
    "adam1m": 1_000_000, "adam10m": 10_000_000, "limit_size": 2048, "growth_flops": 5e9, "growth_points": 9,
}  # fmt: skip
TINY = {
    "train_rows": 128, "test_rows": 32, "batch": 16, "epochs": 2, "repeats": 1, "steps": 5, "cnn_steps": 2,
    "adam1m": 1000, "adam10m": 2000, "limit_size": 64, "growth_flops": 1e6, "growth_points": 1,
}  # fmt: skip


class Workload(NamedTuple):
    title: str
    unit: str
    scale: float  # how many units a second, or a byte, is
    peers: tuple[str, ...]
    floors: dict[str, float]  # peer -> what ours over theirs shall not exceed
    flops: float = 0  # of the matrix products
    bytes: float = 0  # through memory
    measure: str = "seconds"
    rounds: int = 1  # no fewer than these


def convolutions(rows):
    first, *rest = (2 * rows * n for n in (26**2 * 9 * 32, 24**2 * 9 * 32 * 64, 12**2 * 64 * 128, 128 * 10))
    return 2 * first + 3 * sum(rest)


WORKLOADS = {
    "xor": Workload(
        "A training step of the XOR net, Adam, all four rows", "µs", 1e6, EVERYONE,
        {"torch_fused": 0.16, "torch": 0.12, "jax": 0.60, "sklearn": 0.40}, flops((2, 8, 4, 2), 4),
    ),
    "mlp": Workload(
        "An epoch of MNIST, 784-128-10, batches of 128, Adam", "s", 1, EVERYONE,
        {"torch_fused": 0.85, "jax": 1.1, "sklearn": 0.70}, flops(MLP, 60_000),
    ),
    "mlp512": Workload(
        "An epoch of MNIST, 784-512-512-10, batches of 128, Adam", "s", 1, EVERYONE,
        {"torch_fused": 0.75, "jax": 1.2, "sklearn": 0.65}, flops(MLP512, 60_000),
    ),
    "predict": Workload(
        "Probabilities of 10,000 rows of MNIST, 784-128-10", "ms", 1e3, PLAIN,
        {"torch": 1.1, "sklearn": 0.9}, flops(MLP, 10_000, training=False),
    ),
    "adam1m": Workload(
        "One update by Adam of a million parameters", "ms", 1e3,
        ("layerwise", "layerwise_step", "torch", "torch_fused", "jax"), {"torch": 0.55}, bytes=28e6,
    ),
    "adam10m": Workload(
        "One update by Adam of ten million parameters", "ms", 1e3,
        ("layerwise", "layerwise_step", "torch", "torch_fused", "jax"), {"torch": 0.55}, bytes=28e7,
    ),
    "import": Workload(
        "The import, in a fresh interpreter", "ms", 1e3, ("layerwise", "numpy", "torch", "jax", "sklearn"),
        {"torch": 0.15, "sklearn": 0.2}, rounds=7,
    ),
    "memory": Workload(
        "The most memory held while an epoch of MNIST is trained, 188 MB of data included", "MB", 1e-6, PLAIN,
        {"torch": 0.75, "sklearn": 0.85}, measure="peak_bytes",
    ),
    "cnn": Workload(
        "A training step of a convolutional net, batches of 128, Adam", "ms", 1e3,
        ("layerwise", "torch", "torch_fused"), {"torch": 1.25}, convolutions(128),
    ),
}  # fmt: skip
ALIASES = {"adam": ("adam1m", "adam10m")}


def command_line():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of BLAS and the like, the same for all")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of %(default)s; layerwise is always there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables as a Markdown page")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the ratios; growth goes to FILE_growth")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: take what --json wrote")
    parser.add_argument("--tiny", action="store_true", help="sizes that measure nothing, to try the script")
    given = parser.parse_args()
    known = [*WORKLOADS, *ALIASES, "where", "growth"]
    unknown = [name for name in given.names if name not in known] + [
        p for p in given.peers.split(",") if p not in PEERS
    ]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}. There are {', '.join(known)}; and of peers {', '.join(PEERS)}.")
    if given.rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads are 1 or more.")
    return given


def installed(wanted):
    """Those peers whose packages are there; of the others one line each."""
    found = []
    for name in wanted:
        missing = [package for package in PEERS[name].packages if importlib.util.find_spec(package) is None]
        if missing:
            print(f"{PEERS[name].title} is left out: {' and '.join(missing)} not installed.", file=sys.stderr)
        else:
            found.append(name)
    return found


def prepare(folder, o):
    """Write MNIST, or what has its shapes, as .npy files; which of the two."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layerwise" / "mnist.npz"
    real = bool(os.environ.get("LAYERWISE_DATA")) or cache.exists()
    if real:
        members = dict(zip(("train", "test"), datasets.mnist(flat=True), strict=True))
    else:
        rng = np.random.default_rng(0)
        teacher = rng.standard_normal((784, 10), np.float32)
        members = {}
        for part in ("train", "test"):
            x = rng.random((o[f"{part}_rows"], 784), np.float32)
            members[part] = x, ((x - 0.5) @ teacher).argmax(1)
    for part, arrays in members.items():
        for name, array in zip("xy", arrays, strict=True):
            np.save(Path(folder) / f"{name}_{part}.npy", array[: o[f"{part}_rows"]])
    return "MNIST" if real else "random numbers of MNIST's shapes"


def worker(arguments, threads):
    """What a Python process of its own prints, one line of JSON."""
    number = str(threads)
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), number)
    # XLA takes as many threads as it thinks there are cores: NPROC tells it.
    environment |= {"NPROC": number, "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an import from source again and again is not what people have
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments[:3])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(workload, peer, o):
    if workload == "import":
        timing = f"import time; t = time.perf_counter(); {PEERS[peer].importing}; print(time.perf_counter() - t)"
        return {"seconds": worker(["-c", timing], o["threads"])}
    return worker([str(HERE / "peers.py"), peer, workload, json.dumps(o)], o["threads"])


def rounds(names, peers, o, count):
    """After each round (workload -> peer -> what each round found, the limits of the machine in each round)."""
    found = {name: {peer: [] for peer in WORKLOADS[name].peers if peer in peers} for name in names}
    times = {name: count if o["tiny"] else max(count, WORKLOADS[name].rounds) for name in names}
    if "import" in names:
        for peer in found["import"]:
            measured("import", peer, o)  # reads the files from the disk, and is not counted
    limits = []
    total = sum(times[name] * len(found[name]) for name in names) + count
    with tqdm(total=total, unit="run", smoothing=0, disable=None) as bar:
        for number in range(max([count, *times.values()])):
            if number < count:
                bar.set_postfix_str("what the machine can do")
                limits.append(worker([str(HERE / "growth.py"), "limit", "machine", json.dumps(o)], o["threads"]))
                bar.update()
            for name in names:
                order = list(found[name]) if number < times[name] else []
                shift = number % max(1, len(order))  # each is first once
                for peer in order[shift:] + order[:shift]:
                    bar.set_postfix_str(f"round {number + 1}, {name}, {PEERS[peer].title}")
                    found[name][peer].append(measured(name, peer, o))
                    bar.update()
            yield found, limits


def spread(values):
    return {"rounds": values, "median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(workload, found, limit):
    """One workload as the file of results has it."""
    results, ratios = {}, {}
    ours = [each[workload.measure] for each in found["layerwise"]]
    for peer, each_round in found.items():
        values = [each[workload.measure] for each in each_round]
        results[peer] = spread(values)
        for name in ("accuracy", "peak_bytes"):
            if name in each_round[0]:
                results[peer][name] = statistics.median(each[name] for each in each_round)
        best = workload.flops / limit["flops"]["max"] + workload.bytes / limit["bandwidth"]["max"]
        results[peer]["share"] = best / results[peer]["median"] if best else None
        if peer != "layerwise":
            ratio = spread([a / b for a, b in zip(ours, values, strict=True)])
            floor = workload.floors.get(peer)
            ratios[peer] = ratio | {"floor": floor, "met": None if floor is None else ratio["median"] <= floor}
    about = {"title": workload.title, "unit": workload.unit, "scale": workload.scale}
    return {**about, "results": results, "ratios": ratios}


def machine(peers, threads, limits):
    names = {package for peer in peers for package in PEERS[peer].packages}
    names = {"scikit-learn" if name == "sklearn" else name for name in names}
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(": ")[1] for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = models[0] if models else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in sorted(names)},
        "blas": limits[0]["blas"],
        "flops": spread([each["flops"] for each in limits]),
        "bandwidth": spread([each["bandwidth"] for each in limits]),
        "date": datetime.date.today().isoformat(),
    }


def alone(kind, names, o):
    """What growth.py says of layerwise alone."""
    found = {}
    for name in tqdm(names, unit="run", desc=kind, disable=None):
        found[name] = worker([str(HERE / "growth.py"), kind, name, json.dumps(o)], o["threads"])
    return found


def measure(given):
    """What is known so far, after each round and at the end."""
    convolution = hasattr(layers, "Conv2D")
    names = given.names or [name for name in (*WORKLOADS, "where") if name != "cnn" or convolution]
    chosen = dict.fromkeys(each for name in names for each in ALIASES.get(name, (name,)) if each in WORKLOADS)
    peers = installed(["layerwise", *(name for name in given.peers.split(",") if name != "layerwise")])
    o = (TINY if given.tiny else SIZES) | {"threads": given.threads, "tiny": given.tiny}
    with tempfile.TemporaryDirectory() as folder:
        result = {"data": prepare(folder, o), "tiny": given.tiny}
        o["data"] = folder
        for found, limits in rounds(chosen, peers, o, given.rounds):
            about = machine(peers, given.threads, limits)
            result |= {"machine": about, "rounds": len(limits)}
            result["workloads"] = {name: summary(WORKLOADS[name], each, about) for name, each in found.items()}
            yield result
        nets = ["xor", "mlp", "mlp512", *(["cnn"] if convolution else [])]
        for kind, each in (("where", nets[:1] if given.tiny else nets), ("growth", AXES)):
            if kind in names:
                result[kind] = alone(kind, each, o)
                yield result


def main():
    given = command_line()
    for result in [json.loads(given.read.read_text(encoding="utf-8"))] if given.read else measure(given):
        if given.json:  # after every round: what was measured is not lost by Ctrl-C
            given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(pages.tables(result))
    charts = pages.draw(result, given.chart) if given.chart else {}
    if given.page:
        beside = {shows: os.path.relpath(path, given.page.parent) for shows, path in charts.items()}
        given.page.write_text(pages.page(result, beside), encoding="utf-8")


if __name__ == "__main__":
    main()
