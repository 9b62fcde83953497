"""Files that are read and are no nets: of a sweep, of a comparison, of images and labels, of a log. Damaged in any way,
each is read as it was, or refused in one sentence that names it; never another error, a hang, or memory without bound.

    PYTHONPATH=. python tests/test_fuzz_reading.py 10000        all of them, with the counts of each outcome
"""

import collections
import functools
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from fuzz_bytes import ANY, MEGABYTES, SECONDS, Limits, Planted, Watch, in_zip, members_of, npy

import layers
import loss
import optim
from layerwise import datasets
from layerwise.callbacks import CSVLogger
from layerwise.compare import Comparison, compare

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(0)

# Mutations of text ---------------------------------------------------------------------------------------------------

# fmt: off
VALUES = [
    None, True, 0, -1, 1, 10**9, 2**63, 10**40, 0.5, 1e300, "", "x", "sgd", [], {}, [[]], [1], [None], {"a": 1},
    [[1, [2]]], [1e308, 10**400], "AAAA", "\u2028", [["x"]],
]
# fmt: on


def places(tree, path=()):
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def altered(rng, whole, suffix):
    """One value of one line of JSON, there or gone, the checksum not made right."""
    lines = whole.splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    tree = json.loads(lines[at])
    every = list(places(tree))[1:]
    path = every[rng.integers(len(every))]
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if rng.random() < 0.3:
        del parent[path[-1]]
    else:
        parent[path[-1]] = VALUES[rng.integers(len(VALUES))]
    lines[at] = json.dumps(tree).encode() + b"\n"
    return b"".join(lines)


def other_lines(rng, whole, suffix):
    """A line that is gone, twice, elsewhere, foreign, deep or long."""
    lines = whole.splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    foreign = [b"", b"\n", b"null\n", b"5\n", b"[]\n", b"{}\n", b"[" * 100000 + b"\n", b"\xff\xfe\n", b"\0\n", b'"\n']
    foreign += [b'{"a":' * 50000 + b"\n", b"a" * 200000 + b"\n", b'"' + b"a\n" * 10000, b"1" * 5000 + b"\n"]
    kind = rng.integers(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[rng.integers(len(lines))])
    elif kind == 2:
        lines[at] = foreign[rng.integers(len(foreign))]
    else:
        lines.insert(at, foreign[rng.integers(len(foreign))])
    return b"".join(lines)


# Mutations of arrays -------------------------------------------------------------------------------------------------


def other_header(rng, whole, suffix):
    """Another dtype, number of axes or size in the header of an IDX file, packed again where it was packed."""
    content = bytearray(gzip.decompress(whole) if suffix == ".gz" else whole)
    content[int(rng.integers(min(16, len(content))))] = int(rng.choice([0, 1, 2, 3, 8, 11, 13, 14, 127, 128, 255]))
    return gzip.compress(bytes(content), 1) if suffix == ".gz" else bytes(content)


def packed_bomb(rng, whole, suffix):
    """A gigabyte of zeros behind the header of a small array."""
    if suffix != ".gz":
        return whole + bytes(10**6)
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) as file:
        file.write(gzip.decompress(whole))
        for _ in range(1000 if rng.random() < 0.1 else 20):
            file.write(bytes(10**6))
    return raw.getvalue()


def other_array(rng, whole, suffix):
    """One array of the cache in another form: huge, of objects, of another shape, packed."""
    members = members_of(whole)
    place = int(rng.integers(len(members)))
    pickled = io.BytesIO()
    np.save(pickled, np.array([Planted()], object))
    bodies = [
        npy("(10000000000,)", "'|u1'"), npy("(-1,)"), npy("(3,)", "'|O'", b"cos\nsystem\n."), pickled.getvalue(), b"",
        npy("(2, 28, 28)", "'|u1'", b"\0"), npy("()", "'|u1'", b"\0"), npy("(" * 3000 + ")" * 3000),
        members[place][1][:-1], npy("(0,)", "'|u1'"), npy("(4,)", "'|u1'", b"\0\x0a\0\0"),
        npy("(4,)", "'<f8'", bytes(32)),
    ]  # fmt: skip
    members[place] = members[place][0], bodies[rng.integers(len(bodies))]
    return in_zip(members if rng.random() < 0.9 else members[:place])


def unpacking(rng, whole, suffix):
    """A member of the zip that unpacks to half a gigabyte."""
    return unpacking_to_much(whole, ["x.npy", "y.npy", "more.npy"][rng.integers(3)])


@functools.cache
def unpacking_to_much(whole, name):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for each, body in members_of(whole):
            file.writestr(each, body) if each != name else None
        with file.open(name, "w") as member:
            member.write(npy("(637755, 28, 28)", "'|u1'"))
            for _ in range(500):
                member.write(bytes(10**6))
    return raw.getvalue()


# What is read --------------------------------------------------------------------------------------------------------


class Sweep:
    """What a file of compare holds is not done again; the result is that of a sweep without a file."""

    name, suffix = "runs.jsonl", ".jsonl"
    mutations = (*ANY, altered, altered, altered, other_lines, other_lines)
    also = "runs.timings.jsonl"

    def write(self, path):
        self.held = self.compared(path)

    def compared(self, path):
        found = compare("sgd,adam", "xor", (0.1, 0.5), 2, 3, widen=False, verbose=False, path=path)
        assert all(np.shape(each) == (2, 2) for each in found.seconds.values())
        return {name: np.asarray(curve).tolist() for name, curve in found.curves.items()}

    def read(self, path):
        first, repeated = self.compared(path), self.compared(path)
        assert first == repeated, "read a second time, it is another"
        return first

    def right(self, found):
        return found == self.held


class Stored:
    """A comparison in JSON has no checksum: a digit may be another. What is loaded is whole."""

    name, suffix = "comparison.json", ".json"
    mutations = (*ANY, altered, altered, altered, other_lines)
    also = "comparison.timings.json"

    def write(self, path):
        compare("sgd,adam", "xor", (0.1, 0.5), 2, 3, widen=False, verbose=False).to_json(path)

    def read(self, path):
        return Comparison.load(path)

    def right(self, found):
        repr(found), found.verdict, found.table(), found.warnings(), found.to_markdown()
        return all(curve.ndim == 3 for curve in found.curves.values())


class Idx:
    """One array. Plain, it has no checksum: a pixel may be another; packed, it has one."""

    mutations = (*ANY, other_header, other_header, packed_bomb)
    also = None
    array = RNG.integers(0, 255, (3, 4, 5)).astype(np.uint8)

    def __init__(self, suffix):
        self.suffix, self.name = suffix, f"images{suffix}"

    def write(self, path):
        content = b"\0\0\x08\x03" + np.array(self.array.shape, ">u4").tobytes() + self.array.tobytes()
        path.write_bytes(gzip.compress(content) if self.suffix else content)

    def read(self, path):
        return datasets.read_idx(path)

    def right(self, found):
        return found.dtype.isnative and found.nbytes < 10**6


class Mnist(Idx):
    """Four of them, one damaged."""

    def __init__(self):
        super().__init__("")
        self.name = datasets.MNIST_FILES[0]

    def write(self, path):
        for name in datasets.MNIST_FILES:
            shape = (5, 28, 28) if "images" in name else (5,)
            head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
            path.with_name(name).write_bytes(head + RNG.integers(0, 9, shape).astype(np.uint8).tobytes())

    def read(self, path):
        return datasets.mnist(path.parent)

    def right(self, found):
        (x, y), (x_test, y_test) = found
        shapes = x.shape, y.shape, x_test.shape, y_test.shape
        return shapes == ((5, 28, 28), (5,)) * 2 and max(y.max(), y_test.max()) < 10


class Cache(Mnist):
    """The file that a download leaves: a zip, whose checksums tell."""

    name, suffix, also = "layerwise/mnist.npz", ".npz", None
    mutations = (*ANY, other_array, other_array, unpacking)

    def __init__(self):
        pass

    def write(self, path):
        path.parent.mkdir()
        pixels, labels = RNG.integers(0, 255, (5, 28, 28)), np.arange(5)
        arrays = {"x": pixels, "y": labels, "x_test": pixels + 1, "y_test": labels + 1}
        np.savez(path, **{name: array.astype(np.uint8) for name, array in arrays.items()})
        self.held = self.read(path)

    def read(self, path):
        os.environ["XDG_CACHE_HOME"] = str(path.parent.parent)
        os.environ.pop("LAYERWISE_DATA", None)
        return datasets.mnist()

    def right(self, found):
        pairs = zip(sum(found, ()), sum(self.held, ()), strict=True)
        return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


class Log:
    """A log that a further training goes on with: its rows stay, and the new one is whole."""

    name, suffix, also = "log.csv", ".csv", None
    mutations = (*ANY, other_lines, other_lines)

    def train(self, path, epochs):
        net = layers.Model([layers.Linear(1)], seed=0)
        before = net.build((2,)).vector.copy()
        x = RNG.normal(size=(4, 2))
        try:
            net.train(x, x[:, :1], optim.SGD(), loss.MSE(), epochs, verbose=False, callbacks=CSVLogger(path))
        except ValueError:
            assert np.array_equal(net.vector, before), "refused after a step"
            raise

    def write(self, path):
        self.train(path, 3)

    def read(self, path):
        before = path.read_bytes()
        self.train(path, 1)
        return before, path.read_bytes()

    def right(self, found):
        before, after = found
        kept = before[: before.rfind(b"\n") + 1]
        row = after.decode().splitlines()[-1].split(",")
        return (after.startswith(kept) or not kept.startswith(b"epoch")) and row[0] == "1" and len(row) == 3


KINDS = {
    "sweep": Sweep(),
    "comparison": Stored(),
    "idx": Idx(""),
    "idx, packed": Idx(".gz"),
    "mnist": Mnist(),
    "cache": Cache(),
    "log": Log(),
}


def emptied(folder):
    for each in sorted(folder.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()


def read(reader, path, watch, watched):
    """("read", what was read) or ("refused", the error's sentence)."""
    watch.on = watched  # a training imports what it needs
    try:
        return "read", reader.read(path)
    except (ValueError, OSError) as error:
        return "refused", f"{type(error).__name__}: {error}"
    finally:
        watch.on = False


def fuzz(first, last, folder):
    """Counts by kind and outcome, and what went wrong: (number of the mutation, what it was, what came)."""
    originals = {}
    for kind, reader in KINDS.items():
        emptied(folder)
        reader.write(folder / reader.name)
        originals[kind] = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert reader.right(reader.read(folder / reader.name)), kind
    watch, limits, counts, wrong, slowest = Watch(), Limits(), collections.Counter(), [], 0.0
    for number in range(first, last):
        rng = np.random.default_rng((4, number))
        kind = list(KINDS)[number % len(KINDS)]
        reader = KINDS[kind]
        emptied(folder)
        for name, content in originals[kind].items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        path = folder / reader.name
        hit = folder / reader.also if reader.also and rng.random() < 0.3 else path
        mutation = reader.mutations[rng.integers(len(reader.mutations))]
        hit.write_bytes(mutation(rng, hit.read_bytes(), reader.suffix))
        told, began = f"{kind}, {mutation.__name__}" + ", beside" * (hit != path), time.process_time()
        try:
            with limits.time():
                outcome, found = read(reader, path, watch, kind not in ("sweep", "log"))
            assert outcome == "read" or path.name in found or hit.name in found, f"says {found}"
            assert outcome == "refused" or reader.right(found), "read, and it is another"
            seconds = time.process_time() - began  # whatever else the machine does
            assert seconds < SECONDS, f"took {seconds:.1f} s"
            slowest = max(slowest, seconds)
            counts[f"{kind}: {outcome}"] += 1
        except (Exception, KeyboardInterrupt) as error:
            wrong.append((number, told, f"{type(error).__name__}: {error}"[:300]))
    return {
        "counts": dict(sorted(counts.items())),
        "wrong": wrong,
        "events": watch.seen,
        "megabytes": limits.megabytes(),
        "planted": (folder / "planted").exists() or Path("planted").exists(),
        "slowest": round(slowest, 3),
    }


def test_files_that_are_damaged_are_read_as_they_were_or_refused():
    command = [sys.executable, "-W", "ignore", __file__, os.environ.get("LAYERWISE_FUZZ", "700"), "--json"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["events"] == []
    assert not told["planted"]
    assert told["megabytes"] < MEGABYTES
    for kind in KINDS:
        assert {f"{kind}: read", f"{kind}: refused"} <= told["counts"].keys()


if __name__ == "__main__":
    os.fsync = lambda _: None  # what a power cut leaves is not asked here
    span = [int(each) for each in sys.argv[1].split("-")]
    with tempfile.TemporaryDirectory() as place:
        told = fuzz(*(span if len(span) == 2 else (0, *span)), Path(place))
    print(json.dumps(told, indent=None if "--json" in sys.argv else 1))
