"""Files that someone else made: thousands of mutations, and none runs code, hangs, eats memory or loads by half.

Two kinds. Of the bytes (cut, flipped, spliced, foreign): refused, or the very same contents, where what was hit counts
for nothing. Of the contents, with checksums made right again, as a stranger can: refused, or another net that is whole.
Either way the net and the optimizer that were to go on from a refused file are as before.

    PYTHONPATH=. python tests/test_fuzz.py 10000        all of them, with the counts of each outcome
"""

import collections
import contextlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz_bytes import ANY, MEGABYTES, SECONDS, Limits, Planted, Watch, in_zip, members_of, npy

import layers
import loss
import model
import optim
from layerwise import schedules
from layerwise.callbacks import Checkpoint, EarlyStopping, ReduceOnPlateau
from layerwise.core import files

ROOT = Path(__file__).resolve().parent.parent
X = np.random.default_rng(0).normal(size=(20, 4, 5, 2)).astype(np.float32)
Y = np.arange(20) % 3
FLAT = X.reshape(20, -1)[:, :3]

# Trainings -------------------------------------------------------------------------------------------------------


def pictures(seed=3):
    inner = layers.Model([layers.Linear(4), layers.Tanh()], name="within")
    sections = [
        layers.Conv2D(3, 2, padding="same"),
        layers.BatchNorm(),
        layers.MaxPool2D(),
        layers.Flatten(),
        layers.Residual([layers.Linear(12), layers.Dropout(0.2)]),
        inner,
        layers.Parallel([layers.Linear(2), layers.LeakyReLU(0.2)]),
        layers.Linear(3),
        layers.Softmax(),
    ]
    return layers.Model(sections, seed=seed)


def averaged():
    return optim.Average(optim.Clip(optim.AdamW(schedules.Warmup(schedules.Cosine(0.1, 0.0, 30), 3)), norm=1.0), 0.9)


def several():
    return optim.PerLayer({"layers.0*": optim.SGD(0.1, 0.9), "*": optim.RMSProp(0.01)})


TRAININGS = {  # name: (net, optimizer, further callbacks, data, settings)
    "pictures": (pictures, averaged, lambda: [EarlyStopping("loss")], (X, Y), {"loss": loss.CrossEntropy()}),
    "plain": (
        lambda seed=3: layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(2)], seed),
        several,
        lambda: [ReduceOnPlateau("loss")],
        (FLAT, FLAT[:, :2]),
        {"loss": loss.MSE(), "metrics": "mae"},
    ),
    "curved": (
        lambda seed=3: layers.Model([layers.Linear(2), layers.Linear(2)], seed),
        lambda: optim.LBFGS(0.1),
        lambda: [],
        (FLAT, FLAT[:, :2]),
        {"loss": loss.MSE()},
    ),
    "stack": (
        lambda seed=3: layers.Model([layers.Linear(4), layers.Dropout(0.2), layers.Linear(2)], seed, copies=3),
        lambda: optim.SGD(np.array([0.01, 0.1, 0.02]), 0.9),
        lambda: [],
        (FLAT, FLAT[:, :2]),
        {"loss": loss.MSE()},
    ),
}


class Ready(Exception):
    """What stands in for a kill."""


class Stop:
    def __init__(self, step):
        self.at = step

    def step(self, run):
        if run.step == self.at:
            raise Ready


def train(name, path, net, rule, stop=None, resume=None):
    """Two epochs of three steps, and a checkpoint every two."""
    _, _, others, data, settings = TRAININGS[name]
    settings = settings if rule else dict(settings, loss=None)  # those in the file
    watch = [Checkpoint(path, every=2), *others(), Stop(stop)]
    net.train(*data, optim=rule, epochs=2, batch_size=7, callbacks=watch, resume=resume, verbose=False, **settings)


def originals(folder):
    """(training, the bytes of its file, its suffix): files of within an epoch, and of the end of one."""
    for name, (make, rule, *_) in TRAININGS.items():
        for suffix in (".npz", ".safetensors"):
            for stop in (4, 5):
                path = folder / f"original{suffix}"
                with contextlib.suppress(Ready):
                    train(name, path, make(), rule(), stop)
                yield name, path.read_bytes(), suffix


def resigned(path, header, arrays):
    """A file with these contents, whatever they are, and checksums that are right."""
    with open(path, "wb") as file:
        (files._write_npz if str(path).endswith(".npz") else files._write_safetensors)(file, header, arrays)


# Mutations of bytes ----------------------------------------------------------------------------------------------


def of_the_other_format(rng, whole, suffix):
    return rng.bytes(8) + whole if suffix == ".npz" else b"PK\x03\x04" + whole


def wrong_size(rng, whole, suffix):
    """A length field that lies: the first eight bytes of a safetensors file, any four of a zip's directory."""
    value = int(rng.choice([0, 1, 2**16 - 1, 2**31 - 1, 2**32 - 1, 10**9, 10**8]))
    if suffix == ".safetensors":
        return struct.pack("<Q", value * int(rng.choice([1, 2**31]))) + whole[8:]
    at = len(whole) - int(rng.integers(4, 1500))
    return whole[:at] + struct.pack("<I", value) + whole[at + 4 :]


def another_npy(rng, whole, suffix):
    """One array of the zip in another form: huge, of objects, of text, of a class, cut short, a pickle, twice."""
    if suffix != ".npz":
        return tensors(rng, whole)
    members = members_of(whole)
    place = int(rng.integers(len(members)))
    name, body = members[place]
    pickled = io.BytesIO()
    np.save(pickled, np.array([Planted()], object))
    bodies = [
        npy("(10000000000,)"),
        npy("(1000000000000, 1000000)"),
        npy("(-1,)"),
        npy("(3,)", "'|O'", pickle.dumps(Planted())),
        npy("(2,)", "'<f9'"),
        npy("__import__('os').system('touch planted')"),
        npy("(3,)", "[('a', '<f4'), ('b', '|O')]"),
        npy("(" * 5000 + ")" * 5000),
        npy("(2,)", "'<U2000000000'"),
        pickled.getvalue(),
        pickle.dumps(Planted()),
        b"",
        body[:-3],
        body.replace(b"False", b"True "),
        npy("(True,)"),
        npy("(0, 100000000000)"),
        body + bytes(40),
    ]
    members[place] = name, bodies[rng.integers(len(bodies))]
    if rng.random() < 0.1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that is there twice
            return in_zip([*members, (name, body)])
    return in_zip(members)


def tensors(rng, whole):
    """The same of safetensors: offsets, shapes and dtypes that lie, deep and broken JSON."""
    size = struct.unpack("<Q", whole[:8])[0]
    description, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    name = rng.choice([name for name in description if name != "__metadata__"])
    what = {
        "shape": [[10**10], [-1], [2**62, 4], "x", []],
        "dtype": ["BF16", "F8_E4M3", "OBJECT", 5, "I64", "BOOL"],
        "data_offsets": [[0, 10**12], [-4, 0], [8, 4], [0, 4], "ab"],
    }
    key = str(rng.choice(list(what)))
    description[name][key] = what[key][rng.integers(len(what[key]))]
    if rng.random() < 0.2:
        description["__metadata__"] = [{}, 5, {"header": 5}, {"header": "[" * 100000, "check": "0"}][rng.integers(4)]
    text = json.dumps(description).encode()
    return struct.pack("<Q", len(text)) + text + body


def bomb(rng, whole, suffix):
    """Little that unpacks to much: zeros in a zip, in a member of its own or in place of one; brackets in brackets."""
    deep = b"[" * 200000 if rng.random() < 0.5 else b'{"a":' * 100000
    if suffix != ".npz":
        text = deep if rng.random() < 0.5 else b"{" + b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' * 20000
        return struct.pack("<Q", len(text)) + text
    if rng.random() < 0.5:
        members = [(name, body) for name, body in members_of(whole) if name != "header.npy"]
        return in_zip([("header.npy", npy(f"({len(deep)},)", "'|u1'", deep)), *members])
    raw = io.BytesIO()
    name = ["layers.0.w.npy", "header.npy", "more.npy"][rng.integers(3)]
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open(name, "w") as member:
        member.write(npy("(100000000,)"))
        for _ in range(400):
            member.write(bytes(10**6))
    return raw.getvalue()


def foreign(rng, whole, suffix):
    created = [
        pickle.dumps(Planted()),
        b"",
        b"\x93NUMPY",
        b"PK\x05\x06" + bytes(18),
        b"not a net",
        rng.bytes(2000),
        npy("(3,)", "'|O'", pickle.dumps(Planted())),
        in_zip([]),
        in_zip([("header.npy", pickle.dumps(Planted()))]),
        struct.pack("<Q", 2) + b"{}",
    ]
    return created[rng.integers(len(created))]


BYTES = [*ANY, of_the_other_format, wrong_size, another_npy, another_npy, foreign]

# Mutations of contents, the checksums right ------------------------------------------------------------------------

# fmt: off
VALUES = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 10**9, 10**12, 2**63, 2**64, 10**40, -(10**9), 0.5, -0.5, 1e-300,
    1e300, float("inf"), float("-inf"), float("nan"), "", "x", "he", "os.system", "__class__", "Linear", "SGD",
    "Model", "own", [], {}, [1], [[]], [0, 0], [10**6, 10**6], [-1], {"type": "Linear", "arguments": {"units": 3}},
    {"type": "Model"}, {"function": "f"}, {"dict": {}}, {"dict": []}, {"dict": [1]}, {"dict": [[1, 2, 3]]},
    {"dict": [[[], 2]]}, {"array": "layers.0.w"}, {"array": "none"}, {"array": 5}, {"array": []}, {"tuple": 5},
    {"tuple": [1, 2]}, {"own": "f"}, {"own": 5}, {"type": "Adam", "arguments": {}}, {"type": 5}, {"type": []},
    {"type": "Cosine", "arguments": {"steps": 10**9}}, {"type": "Optimizer", "arguments": {}},
    {"type": "minimize", "arguments": {}}, {"type": "Loss", "arguments": {}},
    {"type": "Residual", "arguments": {"layers": []}}, {"type": "Lambda", "arguments": {"function": {"function": "f"}}},
    {"type": "Linear", "units": 3},
]
# fmt: on


def places(tree, path=()):
    """The path to every value of a tree."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def contents(rng, header, arrays):
    """One to three places of the header, or arrays, with something else there."""
    for _ in range(rng.integers(1, 4) if rng.random() < 0.3 else 1):
        kind = rng.random()
        every = list(places(header))[1:]
        path = every[rng.integers(len(every))]
        parent, key = at(header, path[:-1]), path[-1]
        if kind < 0.45:
            parent[key] = VALUES[rng.integers(len(VALUES))]
        elif kind < 0.55:
            del parent[key]
        elif kind < 0.62:  # something of elsewhere in the file
            other = at(header, every[rng.integers(len(every))])
            parent[key] = json.loads(json.dumps(other))
        elif kind < 0.66 and isinstance(parent, list):
            parent.insert(key, VALUES[rng.integers(len(VALUES))])
        elif kind < 0.70 and isinstance(parent, dict):
            parent[
                str(rng.choice(["name", "init", "seed", "copies", "dtype", "more", "frozen", "type", "array", "own"]))
            ] = VALUES[rng.integers(len(VALUES))]
        elif kind < 0.73:
            for _ in range(int(rng.choice([20, 400, 3000]))):
                parent[key] = (
                    [parent[key]] if rng.random() < 0.5 else {"type": "Chain", "arguments": {"layers": [parent[key]]}}
                )
        else:
            other_array(rng, arrays)
        if not isinstance(header, dict):
            break
    return header, arrays


def other_array(rng, arrays):
    names = sorted(arrays)
    if not names:
        return
    name = names[rng.integers(len(names))]
    array = arrays[name]
    created = [
        lambda: array.astype(np.float64),
        lambda: array.astype(np.int8),
        lambda: array.astype(bool),
        lambda: array[None],
        lambda: array.reshape(-1),
        lambda: array.reshape(-1)[:-1],
        lambda: np.zeros(0, np.float32),
        lambda: array * np.nan,
        lambda: np.full(array.shape, 1e38, np.float32),
        lambda: arrays[names[rng.integers(len(names))]],
        lambda: np.zeros((1, 0, 3), np.float32),
        lambda: np.array(5),
        lambda: np.zeros(array.shape, np.uint64),
    ]
    what = rng.integers(len(created) + 2)
    if what == len(created):
        del arrays[name]
    elif what == len(created) + 1:
        arrays[str(rng.choice(["more", "layers.0.w.w", "training.x", "training.weights", "header2"]))] = array
    else:
        arrays[name] = created[what]()


# What comes of it ------------------------------------------------------------------------------------------------


def same_contents(path, whole, training):
    """Whether the file holds what the unharmed one holds, to the bit; without `training`, what `load` reads of it."""

    def held():
        with files.Saved(path) as saved:
            places = {n: place for n, place in saved.places.items() if training or not n.startswith("training.")}
            out = {n: None if training else np.empty(place.shape, place.dtype) for n, place in places.items()}
            arrays = {n: saved.array(n, out[n]) for n in places}
            header = dict(saved.header, checks={n: saved.header["checks"][n] for n in places})
        if not training:
            header.pop("training", None)
        return header, {n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items()}

    harmed = held()
    path.write_bytes(whole)
    return harmed == held()


def loaded(path, watch):
    watch.on = True
    try:
        model.load(path)
    except model.ModelFileError:
        return "refused"
    finally:
        watch.on = False
    return "loaded"


def state(net, rule):
    told = snapshot(net, rule)
    return told | {"hyper": repr(told.get("hyper"))}  # numbers for each copy are arrays


def resumed(name, path, folder, built=True, given=True):
    """A new net goes on from the file; one that is not built yet, or that takes optimizer and loss from the file."""
    net, rule = TRAININGS[name][0](), TRAININGS[name][1]() if given else None
    if built:
        net.build(TRAININGS[name][3][0].shape[1:])
    before = state(net, rule)
    try:
        train(name, folder / "own.npz", net, rule, resume=path)
    except model.ModelFileError:
        after = state(net, rule)
        assert after == before, [name for name in after | before if after.get(name) != before.get(name)]
        return "refused"
    except model.DivergenceError:
        return "diverged"  # weights of 1e38 are weights
    return "went on"


def fuzz(count, seed, folder):
    """Counts by kind and outcome, and what went wrong: (number of the mutation, what it was, what came)."""
    whole_ones = list(originals(folder))
    watch, counts, wrong = Watch(), collections.Counter(), []
    for name, whole, suffix in whole_ones:  # once unharmed: what is imported, is imported now
        path = folder / f"net{suffix}"
        path.write_bytes(whole)
        model.load(path)
        for given in (True, False):
            train(name, folder / "own.npz", TRAININGS[name][0](), TRAININGS[name][1]() if given else None, resume=path)
    limits, slowest = Limits(), 0.0
    first, last = count if isinstance(count, tuple) else (0, count)
    for number in range(first, last):
        rng = np.random.default_rng((seed, number))
        name, whole, suffix = whole_ones[rng.integers(len(whole_ones))]
        path = folder / f"net{suffix}"
        path.write_bytes(whole)
        of_bytes = rng.random() < 0.5
        if of_bytes:
            mutation = BYTES[rng.integers(len(BYTES))] if rng.random() > 0.01 else bomb
            kind = mutation.__name__
            path.write_bytes(mutation(rng, whole, suffix))
        else:
            kind, mutation = "contents", contents
            try:
                resigned(path, *contents(rng, *files.read(path)))
            except Exception:
                counts["contents: no writer takes them"] += 1
                continue
        resume = rng.random() < 0.6
        began = time.perf_counter()
        try:
            with limits.time():
                outcome = loaded(path, watch)
                if resume:
                    watch.on = of_bytes  # a training imports what it needs
                    outcome = f"{outcome}, {resumed(name, path, folder, rng.random() < 0.7, rng.random() < 0.6)}"
                    watch.on = False
            seconds = time.perf_counter() - began
            if of_bytes and outcome != "refused, refused"[: len(outcome)]:
                assert same_contents(path, whole, "went on" in outcome), "damaged, and not seen"
            assert seconds < SECONDS, f"took {seconds:.1f} s"
            slowest = max(slowest, seconds)
            counts[f"{kind}: {outcome}"] += 1
        except (Exception, KeyboardInterrupt) as error:
            wrong.append((number, f"{name} {suffix} {kind}", f"{type(error).__name__}: {error}"[:300]))
        finally:
            watch.on = False
    return {
        "counts": dict(sorted(counts.items())),
        "wrong": wrong,
        "events": watch.seen,
        "megabytes": limits.megabytes(),
        "planted": (folder / "planted").exists(),
        "slowest": round(slowest, 3),
    }


def test_no_file_of_a_strangers_does_harm():
    count = os.environ.get("LAYERWISE_FUZZ", "1000")
    command = [sys.executable, "-W", "ignore", __file__, count, "--json"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["events"] == []
    assert not told["planted"]
    assert told["megabytes"] < MEGABYTES
    outcomes = collections.Counter()
    for name, number in told["counts"].items():
        outcomes[name.split(": ")[1]] += number
    assert outcomes["refused, refused"] > 100
    assert outcomes["no writer takes them"] < 0.05 * int(count)
    assert outcomes["loaded, went on"] > 5  # what was hit counted for nothing, or is as good


# What it has found -------------------------------------------------------------------------------------------------


def stopped(tmp_path, net, rule, at=5, **options):
    """The arguments to go on with a training that was killed in its second epoch, after step 4."""
    path = tmp_path / "net.npz"
    settings = {"batch_size": 7, "epochs": 2, "verbose": False, "loss": loss.MSE()} | options
    with pytest.raises(Ready):
        net.train(FLAT, FLAT[:, :2], optim=rule, callbacks=[Checkpoint(path, every=2), Stop(at)], **settings)
    return {**settings, "resume": path, "callbacks": [Checkpoint(path, every=2), Stop(0)]}


def test_a_net_with_an_unseeded_net_within_goes_on(tmp_path):
    def make():
        return layers.Model([layers.Model([layers.Linear(4), layers.Tanh()]), layers.Linear(2)], seed=1)

    options = stopped(tmp_path, make(), optim.SGD())
    assert make().train(FLAT, FLAT[:, :2], optim=optim.SGD(), **options).epochs == 2


def test_numbers_for_each_copy_come_from_the_file(tmp_path):
    def make():
        return layers.Model([layers.Linear(2)], seed=1, copies=3)

    rates = np.array([0.01, 0.02, 0.03])
    options = stopped(tmp_path, make(), optim.SGD(rates))
    repeated = make()
    repeated.train(FLAT, FLAT[:, :2], **options)
    np.testing.assert_array_equal(repeated.optim.lr, rates)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "mae"}, r"with the metrics \[\], this one has \['mae'\]"),
        ({"batch_size": 20}, "first 1 batches have 7 rows, here they have 20"),
        ({"callbacks": [Checkpoint("none/net.npz"), Stop(0)]}, "no folder"),
    ],
)
def test_another_training_than_the_file_is_of_is_refused_and_nothing_changes(tmp_path, options, message):
    make, rule = TRAININGS["plain"][0], optim.SGD()
    settings = stopped(tmp_path, make(), optim.SGD())
    net = make(seed=9)
    with pytest.raises((model.ModelFileError, FileNotFoundError), match=message):
        net.train(FLAT, FLAT[:, :2], optim=rule, **settings | options)
    assert net.input_shape is None
    assert (net.seed, rule.t) == (9, 0)
    assert net.train(FLAT, FLAT[:, :2], optim=rule, **settings).epochs == 2


def test_what_is_packed_is_not_unpacked(tmp_path):
    net, path = layers.Model([layers.Linear(2)], seed=0).build((3,)), tmp_path / "net.npz"
    net.save(path)
    np.savez_compressed(path, **dict(np.load(path)))
    with pytest.raises(model.ModelFileError, match="it is compressed"):
        model.load(path)


if __name__ == "__main__":
    from conftest import snapshot

    os.fsync = lambda _: None  # what a power cut leaves is not asked here
    span = tuple(map(int, sys.argv[1].split("-")))
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        told = fuzz(span if len(span) == 2 else span[0], 0, Path(place))
    print(json.dumps(told, indent=None if "--json" in sys.argv else 1))
