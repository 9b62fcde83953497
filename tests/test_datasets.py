"""layerwise.datasets: every set is what it says, every fault gives one error; no test uses the network."""

import gzip
import inspect
import io
import os
import socket
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from layerwise import datasets

PLANE = (datasets.moons, datasets.circles, datasets.spirals, datasets.blobs)
SEEDED = (*PLANE, datasets.regression)


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No test sees the machine's own data, cache or network."""
    monkeypatch.delenv("LAYERWISE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*args, **kwargs):
        raise AssertionError("a test went for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", refuse)


# ---- IDX files ---------------------------------------------------------------------------------------------


def idx_bytes(array):
    """An IDX file as its specification has it, written independently of the reader."""
    codes = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
    header = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim])
    header += b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def tiny_mnist():
    """x, y, x_test, y_test: 3 training and 2 test rows, every pixel its own number where uint8 allows."""
    rng = np.random.default_rng(0)
    x, x_test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (3, 2))
    return x, np.array([5, 0, 4], np.uint8), x_test, np.array([7, 2], np.uint8)


def write_mnist(folder, rename=lambda name: name, arrays=None):
    folder.mkdir(exist_ok=True)
    for name, array in zip(datasets.MNIST_FILES, arrays or tiny_mnist(), strict=True):
        path, content = folder / rename(name), idx_bytes(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder


def assert_tiny(loaded):
    (x, y), (x_test, y_test) = loaded
    for came, expected in zip((x, y, x_test, y_test), tiny_mnist(), strict=True):
        np.testing.assert_array_equal(came, expected)
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4), (0, 28, 28)])
def test_idx_dtypes_and_shapes(tmp_path, dtype, shape):
    array = (np.arange(np.prod(shape)).reshape(shape) * 5).astype(dtype)
    path = tmp_path / "array"
    path.write_bytes(idx_bytes(array))
    came = datasets.read_idx(path)
    np.testing.assert_array_equal(came, array, strict=True)
    assert came.dtype.isnative
    came += 1  # writable, unlike the bytes it came from


def test_idx_known_bytes(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(bytes.fromhex("00000b02 00000002 00000003 0001 0002 0003 0100 ffff 8000"))
    expected = np.array([[1, 2, 3], [256, -1, -32768]], np.int16)
    np.testing.assert_array_equal(datasets.read_idx(path), expected, strict=True)


def test_idx_gzip_is_told_by_content(tmp_path):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for name, content in (("plain.gz", idx_bytes(array)), ("packed", gzip.compress(idx_bytes(array)))):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(datasets.read_idx(tmp_path / name), array)


WHOLE = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WHOLE[:-1], ["truncated", "39 bytes", "expected 40", "uint8", "(2, 3, 4)"]),
        (WHOLE + b"\0", ["too long", "41 bytes", "expected 40"]),
        (WHOLE[:9], ["no IDX file", "9 bytes", "00 00 08 03"]),
        (b"", ["no IDX file", "0 bytes"]),
        (b"\0\0\x08", ["no IDX file", "3 bytes"]),
        (b"\0\0\x08\0", ["no IDX file"]),
        (b"\0\0\x07" + WHOLE[3:], ["no IDX file", "00 00 07 03"]),
        (b"<!DOCTYPE html><html>not found</html>", ["no IDX file", "3c 21 44 4f"]),
        (gzip.compress(WHOLE, mtime=0)[:-9], ["damaged gzip"]),
        (gzip.compress(WHOLE, mtime=0)[:10] + b"\xff" * 30, ["damaged gzip"]),
        (gzip.compress(WHOLE[:-1], mtime=0), ["truncated", "39 bytes"]),
        (b"\0\0\x08\xff" + (b"\0\0\0\1" * 255) + b"7", ["which no array can have"]),
        (b"\0\0\x08\4" + b"\0\0\0\0" + b"\xff" * 12, ["announces uint8 of shape (0, 4294967295", "no array can have"]),
        (b"\0\0\x0e\4" + b"\xff" * 16, ["truncated", "20 bytes", "expected 27222589"]),
        (gzip.compress(b"\0\0\x0e\4" + b"\xff" * 16, mtime=0), ["truncated", "20 bytes", "expected 27222589"]),
    ],
)
def test_idx_faults(tmp_path, content, words):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte (is|announces)") as caught:
        datasets.read_idx(path)
    for word in words:
        assert word in str(caught.value)


def test_no_more_is_unpacked_than_the_header_announces(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(WHOLE + bytes(50_000_000), 1))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="too long: it has 41 bytes or more; expected 40"):
            datasets.read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_is_being_written_is_read(tmp_path):
    """As bash's <(zcat ...) gives one."""
    path, array = tmp_path / "pipe", np.arange(12, dtype=np.uint8).reshape(3, 4)
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(idx_bytes(array),))
    writer.start()
    np.testing.assert_array_equal(datasets.read_idx(path), array)
    writer.join()


# ---- MNIST from a folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: name + ".gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-idx", ".idx") + ".gz",
        lambda name: name + ".gz" if "images" in name else name.replace("-idx", ".idx"),
    ],
    ids=["plain", "gz", "dotted", "dotted gz", "mixed"],
)
def test_mnist_spellings(tmp_path, rename):
    folder = write_mnist(tmp_path / "data", rename)
    assert_tiny(datasets.mnist(folder))
    assert_tiny(datasets.mnist(str(folder)))


def test_mnist_flat(tmp_path):
    (x, y), (x_test, y_test) = datasets.mnist(write_mnist(tmp_path / "data"), flat=True)
    raw, _, raw_test, _ = tiny_mnist()
    for came, expected in ((x, raw), (x_test, raw_test)):
        assert came.shape == (len(expected), 784)
        assert came.dtype == np.float32
        assert came.flags.c_contiguous
        np.testing.assert_array_equal(came, expected.reshape(-1, 784) / np.float32(255))
    assert x.max() <= 1
    assert y.tolist() == [5, 0, 4]
    assert y_test.tolist() == [7, 2]


def test_mnist_search_order(tmp_path, monkeypatch):
    other = [np.zeros_like(a) for a in tiny_mnist()]
    monkeypatch.setenv("LAYERWISE_DATA", str(write_mnist(tmp_path / "environment", arrays=other)))
    assert not datasets.mnist()[0][0].any()
    assert_tiny(datasets.mnist(write_mnist(tmp_path / "argument")))


def test_mnist_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_mnist(tmp_path / "data")
    assert_tiny(datasets.mnist("~/data"))


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_mnist_missing_files_are_no_reason_to_look_elsewhere(tmp_path, monkeypatch, by):
    """What somebody named is right or wrong: neither $LAYERWISE_DATA nor the cache stands in for it."""
    folder = write_mnist(tmp_path / "data")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    write_mnist(tmp_path / "whole")
    monkeypatch.setenv("LAYERWISE_DATA", str(tmp_path / "whole" if by == "argument" else folder))
    with pytest.raises(FileNotFoundError) as caught:
        datasets.mnist(folder if by == "argument" else None)
    message = str(caught.value)
    assert f"{folder} has no t10k-labels-idx1-ubyte (plain or .gz)" in message
    assert "train-images" not in message
    assert "LAYERWISE_DATA" in message


def test_mnist_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent is no folder with train-images-idx3-ubyte"):
        datasets.mnist(tmp_path / "absent")


@pytest.mark.parametrize(
    ("place", "array", "words"),
    [
        (0, np.zeros((3, 28, 27), np.uint8), "uint8 (3, 28, 27); expected uint8 (3, 28, 28)"),
        (0, np.zeros((3, 28, 28), np.int16), "int16 (3, 28, 28); expected uint8 (3, 28, 28)"),
        (1, np.zeros(4, np.uint8), "uint8 (4,); expected uint8 (3,)"),
        (2, np.zeros(2, np.uint8), "uint8 (2,); expected uint8 (2, 28, 28)"),
        (3, np.zeros((2, 28, 28), np.uint8), "uint8 (2, 28, 28); expected uint8 (2,)"),
    ],
)
def test_mnist_files_that_do_not_belong(tmp_path, place, array, words):
    arrays = list(tiny_mnist())
    arrays[place] = array
    with pytest.raises(ValueError, match="expected") as caught:
        datasets.mnist(write_mnist(tmp_path / "data", arrays=arrays))
    assert f"{datasets.MNIST_FILES[place]} holds {words}" in str(caught.value)


# ---- MNIST from the network, which is a function here ------------------------------------------------------


class OpenML:
    """Like scikit-learn: float64 rows, labels as text. Row i begins with i mod 251 and is a digit i mod 7."""

    def __init__(self, fault=None, rows=70_000):
        self.fault, self.rows, self.calls, self.timeouts = fault, rows, [], []

    def __call__(self, name, **arguments):
        self.calls.append((name, arguments))
        self.timeouts.append(socket.getdefaulttimeout())
        warnings.warn("A network error occurred while downloading. Retrying...", stacklevel=2)
        if self.fault is not None:
            raise self.fault
        x = np.zeros((self.rows, 784))
        x[:, 0] = np.arange(self.rows) % 251
        x[:, 30] = 255
        y = np.resize(np.array(list("0123456"), object), self.rows)
        return x, y


@pytest.fixture
def openml(monkeypatch):
    def serve(*arguments, **keywords):
        server = OpenML(*arguments, **keywords)
        monkeypatch.setattr("sklearn.datasets.fetch_openml", server)
        return server

    return serve


def files_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_download_fills_the_cache_once(tmp_path, openml):
    server = openml()
    first, second = datasets.mnist(), datasets.mnist()
    assert len(server.calls) == 1
    assert files_under(tmp_path / "cache") == ["layerwise", "layerwise/mnist.npz"]

    for (x, y), (x_test, y_test) in (first, second):
        assert x.shape == (60_000, 28, 28)
        assert x_test.shape == (10_000, 28, 28)
        assert x.dtype == x_test.dtype == np.uint8
        assert y.dtype == y_test.dtype == np.int64
        np.testing.assert_array_equal(x[:, 0, 0], np.arange(60_000) % 251)
        np.testing.assert_array_equal(x_test[:, 0, 0], np.arange(60_000, 70_000) % 251)
        assert (x[:, 1, 2] == 255).all()  # pixel 30 of a digit, row by row
        np.testing.assert_array_equal(y, np.arange(60_000) % 7)
        np.testing.assert_array_equal(y_test, np.arange(60_000, 70_000) % 7)


def test_download_asks_for_what_needs_no_pandas_and_cannot_hang(openml):
    server = openml()
    datasets.mnist()
    ((name, arguments),) = server.calls
    assert (name, arguments["version"]) == ("mnist_784", 1)
    assert (arguments["parser"], arguments["as_frame"]) == ("liac-arff", False)
    assert server.timeouts == [datasets.NETWORK_TIMEOUT]
    assert socket.getdefaulttimeout() is None


def test_cache_serves_without_scikit_learn(monkeypatch, openml):
    openml()
    datasets.mnist()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    (x, _), _ = datasets.mnist()
    assert x.shape == (60_000, 28, 28)


@pytest.mark.parametrize(
    "fault", [URLError("no route"), TimeoutError("timed out"), ValueError("md5 checksum"), EOFError("short")]
)
def test_download_that_fails(tmp_path, openml, fault):
    server = openml(fault)
    with pytest.raises(FileNotFoundError) as caught:
        datasets.mnist()
    message = str(caught.value)
    assert f"{type(fault).__name__}: {fault}" in message
    for way_out in (*datasets.MNIST_FILES, "mnist(folder)", "$LAYERWISE_DATA", "digits()"):
        assert way_out in message
    assert caught.value.__cause__ is None  # the sentence alone: what lies below is a hundred lines of other modules
    assert files_under(tmp_path / "cache") == ["layerwise"]
    assert socket.getdefaulttimeout() is None

    server.fault = None  # a failure leaves nothing behind that would spoil the next attempt
    assert datasets.mnist()[0][0].shape == (60_000, 28, 28)


def test_download_keeps_the_timeout_of_the_user(openml):
    server = openml(URLError("no route"))
    socket.setdefaulttimeout(3.5)
    try:
        with pytest.raises(FileNotFoundError):
            datasets.mnist()
        assert server.timeouts == [3.5]
        assert socket.getdefaulttimeout() == 3.5
    finally:
        socket.setdefaulttimeout(None)


def test_download_interrupted(tmp_path, openml):
    openml(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        datasets.mnist()
    assert files_under(tmp_path / "cache") == ["layerwise"]
    assert socket.getdefaulttimeout() is None


def test_download_of_something_else(tmp_path, openml):
    openml(rows=150)
    with pytest.raises(FileNotFoundError, match=r"sent \(150, 784\) and \(150,\); expected \(70000, 784\)"):
        datasets.mnist()
    assert files_under(tmp_path / "cache") == ["layerwise"]


def test_download_to_a_full_disk(tmp_path, monkeypatch, openml):
    openml()

    def half(file, **arrays):
        file.write(b"PK half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(FileNotFoundError, match="No space left on device"):
        datasets.mnist()
    assert files_under(tmp_path / "cache") == ["layerwise"]


def test_two_downloads_at_once(tmp_path, monkeypatch, openml):
    """One begins and ends while the other is about to write: both succeed, and neither writes in place."""
    server = openml()
    savez, inner, places = np.savez, [], set()

    def savez_while_another_downloads(file, **arrays):
        if not inner:
            inner.append(None)
            inner[0] = datasets.mnist()
        assert file.name not in places  # nobody else writes where this one does
        places.add(file.name)
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", savez_while_another_downloads)
    outer = datasets.mnist()
    assert len(server.calls) == 2
    for came in (outer, inner[0]):
        np.testing.assert_array_equal(came[1][0][:, 0, 0], np.arange(60_000, 70_000) % 251)
    assert files_under(tmp_path / "cache") == ["layerwise", "layerwise/mnist.npz"]


def damaged(kind, whole):
    middle = len(whole) // 2
    return {
        "empty": b"",
        "foreign": b"<!DOCTYPE html>",
        "truncated": whole[:middle],
        "flipped bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "foreign", "truncated", "flipped bit"])
def test_cache_that_is_damaged(tmp_path, openml, kind):
    server = openml()
    path = tmp_path / "cache" / "layerwise" / "mnist.npz"
    datasets.mnist()
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(ValueError, match=r"mnist.npz is damaged .* delete it"):
        datasets.mnist()
    path.unlink()
    datasets.mnist()
    assert len(server.calls) == 2


NAMES = ("x", "y", "x_test", "y_test")


def broken_npy(text):
    """An .npz as np.savez writes it, whose labels have another header."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as file:
        for name, array in zip(NAMES, tiny_mnist(), strict=True):
            member = io.BytesIO()
            np.save(member, array)
            body = member.getvalue()
            file.writestr(f"{name}.npy", body.replace(b"{'descr': '|u1'", text, 1) if name == "y" else body)
    return raw.getvalue()


@pytest.mark.parametrize("text", [b"{'descr': None ", b"{'descr': ((((", b"{5: 6, 'x': '|u1'", b"{'descr': '|O' "])
def test_a_cache_whose_arrays_cant_be_read(tmp_path, text):
    path = tmp_path / "cache" / "layerwise" / "mnist.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(broken_npy(text))
    with pytest.raises(ValueError, match=r"mnist.npz is damaged .* delete it"):
        datasets.mnist()


@pytest.mark.parametrize("where", ["folder", "cache"])
@pytest.mark.parametrize(
    ("place", "other", "words"),
    [
        (0, np.zeros((3, 28, 27), np.uint8), r"uint8 \(3, 28, 27\); expected uint8 \(3, 28, 28\)"),
        (0, np.zeros((2, 28, 28), np.uint8), r"uint8 \(3,\); expected uint8 \(2,\)"),
        (1, np.array([[5, 0, 4]], np.uint8), r"uint8 \(1, 3\)"),
        (1, np.array([5.0, 0.0, 4.0], np.float32), r"float32 \(3,\)"),
        (1, np.array([5, 0, 255], np.uint8), r"the label 255; expected 0 to 9"),
        (3, np.array([10, 0], np.uint8), r"the label 10; expected 0 to 9"),
    ],
)
def test_what_is_no_mnist_is_refused(tmp_path, where, place, other, words):
    arrays = list(tiny_mnist())
    arrays[place] = other
    refuse_mnist(tmp_path, where, arrays, words)


@pytest.mark.parametrize("where", ["folder", "cache"])
def test_mnist_without_rows_is_refused(tmp_path, where):
    refuse_mnist(tmp_path, where, [array[:0] for array in tiny_mnist()], r"uint8 \(0, 28, 28\)")


def refuse_mnist(tmp_path, where, arrays, words):
    path = tmp_path / "cache" / "layerwise" / "mnist.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **dict(zip(NAMES, arrays, strict=True)))
    folder = write_mnist(tmp_path / "here", arrays=arrays)
    with pytest.raises(ValueError, match=words):
        datasets.mnist(folder if where == "folder" else None)


# ---- scikit-learn ------------------------------------------------------------------------------------------


def test_digits():
    x, y = datasets.digits()
    assert x.shape == (1797, 64)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert (x.min(), x.max()) == (0, 1)
    assert y.shape == (1797,)
    assert y.dtype == np.int64
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert y[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert (x[0, :8] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


@pytest.mark.parametrize("load", [datasets.digits, datasets.mnist])
def test_without_scikit_learn(tmp_path, monkeypatch, load):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "layerwise\[demo\]"'):
        load()
    assert not (tmp_path / "cache").exists()


def test_importing_datasets_imports_nothing_heavy():
    program = "import sys, layerwise.datasets; print({'sklearn', 'scipy', 'matplotlib'} & set(sys.modules))"
    command, folder = [sys.executable, "-c", program], Path(datasets.__file__).parent.parent
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# ---- Toy problems ------------------------------------------------------------------------------------------


def test_xor():
    x, y = datasets.xor()
    assert x.tolist() == [[0, 1], [0, 0], [1, 1], [1, 0]]
    assert y.tolist() == [[0, 1], [1, 0], [1, 0], [0, 1]]
    assert x.dtype == y.dtype == np.float32
    assert x.flags.c_contiguous


def test_five_rows():
    x, y = datasets.five_rows()
    expected = [[0.7, 0.3, 0.7], [0.4, 1, 0.4], [0.2, 1.1, 0.1], [0.4, 0.7, 0.2], [0.1, 0.5, 0.3]]
    np.testing.assert_array_equal(x, np.array(expected, np.float32), strict=True)
    # worked out by hand: 0.2744 + 0.009 + 0.35 + 4, and so on
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, [[4.6334], [4.3512], [4.1774], [4.2002], [4.1758]], rtol=1e-7)


@pytest.mark.parametrize("make", SEEDED)
def test_same_seed_same_numbers(make):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    (x, y), (repeated, y_again), (other, _) = make(seed=3), make(seed=3), make(seed=4)
    np.testing.assert_array_equal(x, repeated)
    np.testing.assert_array_equal(y, y_again)
    assert not np.isin(other, x).all(axis=1).any()
    np.testing.assert_array_equal(make(seed=np.int64(3))[0], x)
    np.testing.assert_array_equal(make()[0], make(seed=0)[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("make", PLANE)
@pytest.mark.parametrize("n", [1, 2, 100, 101])
def test_plane_shapes_and_balance(make, n):
    x, y = make(n)
    assert x.shape == (n, 2)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert np.isfinite(x).all()
    assert y.shape == (n,)
    assert y.dtype == np.int64
    classes = inspect.signature(make).parameters.get("classes")
    counts = np.bincount(y, minlength=classes.default if classes else 2)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("make", [datasets.spirals, datasets.blobs])
def test_number_of_classes(make):
    for classes in (2, 5):
        assert np.bincount(make(50, classes=classes)[1]).tolist() == [50 // classes] * classes


@pytest.mark.parametrize("make", PLANE)
def test_rows_come_in_random_order(make):
    """The last rows may serve as validation data: classes mixed, no sweep along the curve."""
    x, y = make(2000)
    k = int(y.max()) + 1
    for part in np.split(y, 4):
        assert np.bincount(part, minlength=k).min() > 500 / k * 0.75
    assert not np.array_equal(y[:-k], y[k:])
    for label in range(k):
        steps = np.linalg.norm(np.diff(x[y == label].astype(float), axis=0), axis=1)
        assert np.median(steps) > 0.2


@pytest.mark.parametrize("make", PLANE)
def test_noise_is_its_standard_deviation(make):
    (clean, y), (noisy, y_noisy) = make(5000, noise=0, seed=1), make(5000, noise=0.3, seed=1)
    np.testing.assert_array_equal(y, y_noisy)
    added = noisy.astype(float) - clean
    np.testing.assert_allclose(added.std(axis=0), 0.3, rtol=0.05)
    np.testing.assert_allclose(added.mean(axis=0), 0, atol=0.02)
    assert abs(np.corrcoef(added.T)[0, 1]) < 0.05


def test_moons_lie_on_half_circles():
    x, y = datasets.moons(1000, noise=0)
    upper, lower = x[y == 0], x[y == 1]
    np.testing.assert_allclose(np.hypot(*upper.T), 1, rtol=1e-6)
    np.testing.assert_allclose(np.hypot(*(lower - np.array([1, 0.5])).T), 1, rtol=1e-6)
    assert upper[:, 1].min() >= 0
    assert lower[:, 1].max() <= 0.5
    for half, middle in ((upper, 0), (lower, 1)):  # the whole half, end to end
        assert half[:, 0].min() < middle - 0.99
        assert half[:, 0].max() > middle + 0.99


def test_circles_have_their_radii():
    for factor in (0.5, 0.2):
        x, y = datasets.circles(1000, noise=0, factor=factor)
        radius = np.hypot(*x.T)
        np.testing.assert_allclose(radius[y == 0], 1, rtol=1e-6)
        np.testing.assert_allclose(radius[y == 1], factor, rtol=1e-6)
        for label in (0, 1):  # all the way round
            turn = np.arctan2(*x[y == label].T[::-1]) / (2 * np.pi) % 1
            assert np.histogram(turn, bins=10, range=(0, 1))[0].min() > 25


@pytest.mark.parametrize(("classes", "turns"), [(3, 1.0), (2, 1.75), (5, -0.5)])
def test_spirals_wind(classes, turns):
    """Radius and angle tell the class without error: the arms never meet."""
    x, y = datasets.spirals(1000, classes, turns, noise=0)
    radius, turn = np.hypot(*x.T.astype(float)), np.arctan2(*x.T[::-1].astype(float)) / (2 * np.pi)
    arm = (turn - turns * radius) * classes
    np.testing.assert_allclose((arm - y + classes / 2) % classes, classes / 2, atol=1e-4)
    assert 0.1 <= radius.min() < 0.11
    assert 0.99 < radius.max() < 1 + 1e-6


def test_blobs_stand_around_the_circle():
    x, y = datasets.blobs(6000, classes=4)
    centres = np.array([x[y == label].mean(axis=0) for label in range(4)])
    np.testing.assert_allclose(centres, [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=0.03)


def accuracy_of_neighbour(x, y):
    distance = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return (y[distance.argmin(axis=1)] == y).mean()


def accuracy_of_line(x, y):
    features = np.column_stack([x, np.ones(len(x))])
    weights, *_ = np.linalg.lstsq(features, np.eye(int(y.max()) + 1)[y], rcond=None)
    return ((features @ weights).argmax(axis=1) == y).mean()


@pytest.mark.parametrize(
    ("make", "neighbour", "line"),
    [
        (datasets.moons, (0.97, 1), (0.8, 0.93)),
        (datasets.circles, (0.99, 1), (0.4, 0.65)),
        (datasets.spirals, (0.99, 1), (0.3, 0.65)),
        (datasets.blobs, (0.98, 1), (0.98, 1)),
    ],
)
def test_how_hard_the_defaults_are(make, neighbour, line):
    """The nearest neighbour solves them all; a straight line solves only the blobs."""
    for seed in range(5):
        x, y = make(seed=seed)
        assert neighbour[0] <= accuracy_of_neighbour(x, y) <= neighbour[1]
        assert line[0] <= accuracy_of_line(x, y) <= line[1]


def test_regression_by_default():
    x, y = datasets.regression()
    assert x.shape == (100, 2)
    assert y.shape == (100, 1)
    assert x.dtype == y.dtype == np.float32
    assert x.flags.c_contiguous
    assert x.min() >= 0
    assert x.max() < 10
    np.testing.assert_allclose(y[:, 0], 0.77 * x[:, 0] - 0.56 * x[:, 1] + 2, atol=1e-6)


def test_regression_features_fill_their_range():
    x, _ = datasets.regression(20_000, weights=np.ones(3))
    assert x.shape == (20_000, 3)
    for column in x.T:
        assert np.histogram(column, bins=10, range=(0, 10))[0].min() > 1800
    np.testing.assert_allclose(np.corrcoef(x.T), np.eye(3), atol=0.03)


def test_regression_arguments():
    x, y = datasets.regression(5000, weights=[1.5, 0, -2], bias=-3, noise=0.4, seed=2)
    rest = y[:, 0] - x @ np.array([1.5, 0, -2]) + 3
    assert rest.std() == pytest.approx(0.4, rel=0.05)
    assert rest.mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("make", SEEDED)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n", [0, -5, 2.5, 100.0, True, "100", None]),
        ("noise", [-0.1, float("nan"), float("inf"), "0.1", None, True]),
        ("seed", [-1, 1.5, None, "0", True]),
    ],
)
def test_bad_arguments(make, name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name} must be an? .*; got ") as caught:
            make(**{name: value})
        assert str(caught.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("make", "name", "values"),
    [
        (datasets.spirals, "classes", [1, 0, 2.0, True, None]),
        (datasets.blobs, "classes", [1, 0, 2.0, True, None]),
        (datasets.spirals, "turns", [float("nan"), float("inf"), "1"]),
        (datasets.circles, "factor", [0, 1, -0.5, 1.5, float("nan"), "0.5"]),
        (datasets.regression, "weights", [(), 0.77, "ab", (1, float("nan")), [[1, 2]], np.ones((2, 2))]),
        (datasets.regression, "weights", [np.ones(()), None]),
        (datasets.regression, "bias", [float("inf"), "2", None]),
    ],
)
def test_bad_arguments_of_one_problem(make, name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name} must be an? .*; got ") as caught:
            make(**{name: value})
        assert str(caught.value).endswith(f"got {value!r}")
