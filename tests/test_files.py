"""net.save and model.load: the same bits back, nothing lost when a write fails, and nothing run that a file says."""

import json
import os
import pickle
import stat
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

import layers
import model
import optim
from layerwise.core import files
from layerwise.training import serialize

SUFFIXES = [".npz", ".safetensors"]
X = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)


class Scale(layers.Layer):
    """A layer of one's own, with an argument, a parameter and a buffer."""

    def __init__(self, start=1.0):
        self.start = start

    def setup(self, input_shape):
        self.add_parameter("scale", input_shape, self.start)
        self.add_buffer("seen", np.zeros(1))

    def forward(self, x, training):
        self.buffers["seen"] += training * len(x)
        self.kept = x
        return x * self.scale

    def backward(self, grad):
        self.scale_gradient = (grad * self.kept).sum(0)
        return grad * self.scale


def double(x):
    return 2 * x


def double_gradient(x, grad):
    return 2 * grad


def make(dtype="float32"):
    sections = [
        layers.Linear(4, name="first", init="he"),
        layers.BatchNorm(momentum=0.2),
        layers.Residual([layers.Linear(4, bias=False), layers.Parallel([layers.Tanh(), layers.ReLU()], join="add")]),
        layers.Parallel([layers.Linear(2), [layers.LeakyReLU(0.2), layers.Linear(3)]]),
        layers.Model([layers.Linear(4), layers.Dropout(0.3), layers.GroupNorm(2)], name="within"),
        layers.PReLU(),
        layers.Linear(2),
        layers.Softmax(),
    ]
    net = layers.Model(sections, seed=7, dtype=dtype)
    net.train(X, np.arange(30) % 2, epochs=2, verbose=False)
    net[0].frozen = True
    return net


def same(one, other):
    pairs = zip(one.leaf_layers(), other.leaf_layers(), strict=True)
    for ours, theirs in pairs:
        for arrays, others in ((ours.parameters, theirs.parameters), (ours.buffers, theirs.buffers)):
            assert arrays.keys() == others.keys()
            for name, value in arrays.items():
                assert (value.dtype, value.tobytes()) == (others[name].dtype, others[name].tobytes())
        assert (type(ours), ours.frozen, ours.name) == (type(theirs), theirs.frozen, theirs.name)
    return True


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_saved_comes_back_bit_by_bit(tmp_path, suffix, dtype):
    net, path = make(dtype), tmp_path / f"net{suffix}"
    net.save(path)
    repeated = model.load(str(path))
    assert same(net, repeated)
    assert repr(repeated) == repr(net)
    assert (repeated.seed, repeated.dtype, repeated.summary()) == (net.seed, net.dtype, net.summary())
    assert repeated.predict(X).tobytes() == net.predict(X).tobytes()
    repeated.train(X, np.arange(30) % 2, epochs=1, verbose=False)
    np.testing.assert_array_equal(repeated[0].w, net[0].w)  # still frozen
    assert not np.array_equal(repeated[6].w, net[6].w)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_layers_and_functions_of_ones_own_are_given_again(tmp_path, suffix):
    def ones(shape, rng):
        return np.ones(shape)

    sections = [Scale(3.0), layers.Lambda(double, double_gradient), layers.Linear(2, init=ones)]
    net, path = layers.Model(sections, seed=0), tmp_path / f"net{suffix}"
    net.train(X, X[:, :2], epochs=1, optim=optim.SGD(), verbose=False)
    net.save(path)
    own = {"Scale": Scale, "double": double, "double_gradient": double_gradient}
    repeated = model.load(path, custom=own)
    assert same(net, repeated)
    assert repeated[0].start == 3.0
    assert repeated.predict(X).tobytes() == net.predict(X).tobytes()
    for missing in own:
        with pytest.raises(model.ModelFileError, match=rf"'{missing}'.*custom="):
            model.load(path, custom={name: value for name, value in own.items() if name != missing})


def test_arguments_of_a_layer_of_ones_own(tmp_path):
    class Table(layers.Layer):
        def __init__(self, table=None):
            self.table = table

        def forward(self, x, training):
            return x

    table = {"rates": [0.5, np.float32(2)], "on": True, "nothing": None, "deep": {"type": "text"}}
    layers.Model([Table(table)]).build((3,)).save(tmp_path / "net.npz")
    assert model.load(tmp_path / "net.npz", custom={"Table": Table})[0].table == table
    with pytest.raises(TypeError, match=r"numbers, strings, lists and dicts.*array"):
        layers.Model([Table(np.ones(3))]).build((3,)).save(tmp_path / "other.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["net.npz"]


class Blocks(layers.Model):
    """A net whose own arguments say what its layers are."""

    def __init__(self, units=3, copies=2, seed=None):
        self.units = units
        super().__init__([layers.Linear(units) for _ in range(copies)], seed=seed)


class Told(Blocks):
    def config(self):
        return {"units": self.units, "copies": len(self), "seed": self.seed}


class Twice(layers.Chain):
    """A container without a name."""

    def __init__(self, layers):
        super().__init__(layers)


def test_a_net_of_ones_own_that_could_not_be_loaded_is_not_saved(tmp_path):
    net = Blocks(4, seed=0).build((3,))
    message = r"Blocks can't be saved: .*'layers', 'seed', 'dtype'.*'units', 'copies', 'seed'.*config\(\)"
    with pytest.raises(ValueError, match=message):
        net.save(tmp_path / "net.npz")
    assert list(tmp_path.iterdir()) == []
    net = layers.Model([Told(4, 3, seed=2), Twice([layers.Tanh()])], seed=1).build((3,))
    net.save(tmp_path / "net.npz")
    repeated = model.load(tmp_path / "net.npz", custom={"Told": Told, "Twice": Twice})
    assert same(net, repeated)
    assert (type(repeated[0]), repeated[0].units, len(repeated[0]), repeated[0].seed) == (Told, 4, 3, 2)


def test_arguments_may_have_the_words_of_the_file(tmp_path):
    class Words(layers.Layer):
        def __init__(self, type, own, frozen, copies, arguments, init):
            self.given = locals()

        def config(self):
            return {name: self.given[name] for name in self._arguments()}

        def forward(self, x, training):
            return x

    given = {"type": "Model", "own": True, "frozen": "yes", "copies": 7, "arguments": [1], "init": {"type": "Linear"}}
    layers.Model([Words(**given)]).build((3,)).save(tmp_path / "net.npz")
    assert model.load(tmp_path / "net.npz", custom={"Words": Words})[0].config() == given


def test_a_dict_whose_keys_are_no_strings_is_refused(tmp_path):
    net = layers.Model([Scale(3.0)]).build((3,))
    net[0].start = {1: 2.0}
    with pytest.raises(TypeError, match=r"keys are strings.*\{1: 2\.0\}"):
        net.save(tmp_path / "net.npz")


def test_a_class_of_ones_own_is_not_taken_for_ours_of_the_same_name(tmp_path):
    class Tanh(layers.Layer):
        def forward(self, x, training):
            return -x

    net = layers.Model([Tanh()]).build((3,))
    net.save(tmp_path / "net.npz")
    with pytest.raises(model.ModelFileError, match=r"'Tanh'.*custom="):
        model.load(tmp_path / "net.npz")
    assert model.load(tmp_path / "net.npz", custom={"Tanh": Tanh}).predict(X).tobytes() == (-X).tobytes()


def test_two_functions_of_one_name_are_refused(tmp_path):
    net = layers.Model([layers.Lambda(lambda x: x + 1), layers.Lambda(lambda x: x * 2)]).build((3,))
    with pytest.raises(ValueError, match=r"two functions.*'<lambda>'"):
        net.save(tmp_path / "net.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_net_within_a_net_is_saved_by_itself(tmp_path):
    net = make()
    net[4].save(tmp_path / "within.npz")
    assert same(model.load(tmp_path / "within.npz"), net[4])


def test_arrays_of_any_memory_order_are_stored_right(tmp_path):
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    for suffix in SUFFIXES:
        files.write(tmp_path / f"file{suffix}", {}, {"turned": array, "every second": array[:, ::2]})
        _, arrays = files.read(tmp_path / f"file{suffix}")
        np.testing.assert_array_equal(arrays["turned"], array)
        np.testing.assert_array_equal(arrays["every second"], array[:, ::2])


def test_a_file_that_numpy_wrote_again_is_whole(tmp_path):
    """np.savez stores an array by columns where it comes so."""
    net, path = make(), tmp_path / "net.npz"
    net.save(path)
    with np.load(path) as file:
        arrays = {name: np.asfortranarray(array) for name, array in file.items()}
    assert [name for name, array in arrays.items() if not array.flags.c_contiguous]
    np.savez(path, **arrays)
    assert same(net, model.load(path))
    for name, array in files.read(path)[1].items():
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, arrays[name])
    arrays["layers.0.w"][0, 0] += 1
    np.savez(path, **arrays)
    with pytest.raises(model.ModelFileError, match=r"the checksum of 'layers\.0\.w' does not match"):
        model.load(path)


def test_layers_within_layers_as_deep_as_they_load_again(tmp_path):
    def nested(depth):
        layer = layers.Tanh()
        for _ in range(depth):
            layer = layers.Residual([layer])
        return layers.Model([layer], seed=0).build((3,))

    def deep_in_a_program(calls, do):
        return do() if calls == 0 else deep_in_a_program(calls - 1, do)

    path, too_deep = tmp_path / "net.npz", nested(150)
    with pytest.raises(ValueError, match="Residual stands within 101 other layers, and a file holds 100"):
        too_deep.save(path)
    assert not path.exists()
    nested(99).save(path)
    loaded = deep_in_a_program(150, lambda: model.load(path).copy())
    np.testing.assert_array_equal(loaded.predict(X), nested(99).predict(X))
    header, arrays = files.read(path)
    for _ in range(150):
        header["model"]["arguments"]["layers"] = [
            {"type": "Residual", "arguments": {"layers": header["model"]["arguments"]["layers"]}}
        ]
    files.write(path, {k: v for k, v in header.items() if k != "checks"}, arrays)
    with pytest.raises(model.ModelFileError, match=r"does not describe a net: it is nested too deeply\.$"):
        model.load(path)


@pytest.mark.parametrize(("key", "value"), [("dtype", "I64"), ("shape", [2, 2])])
def test_an_array_of_another_dtype_or_shape_than_was_written_is_refused(tmp_path, key, value):
    """Its bytes, and so their checksum, are the same."""
    path = tmp_path / "state.safetensors"
    files.write(path, {}, {"losses": np.linspace(0, 1, 4)})
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    header["losses"][key] = value
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[end:])
    with pytest.raises(model.ModelFileError, match="not of the dtypes and shapes that were written"):
        files.read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_state_of_any_keys_comes_back(tmp_path, suffix):
    state = {("layers.0", 1): 2.5, np.int64(3): (1, [None, True]), "a": {"b": np.ones(2)}, "a.b": np.zeros(3),
             1: np.zeros(1), "1": np.ones(1), None: {}}  # fmt: skip
    arrays = {}
    files.write(tmp_path / f"state{suffix}", {"state": serialize.encode_state(state, arrays, "state")}, arrays)
    header, arrays = files.read(tmp_path / f"state{suffix}")
    repeated = serialize.decode_state(header["state"], arrays)
    assert repeated.keys() == state.keys()
    assert not arrays
    for name in state:
        np.testing.assert_equal(repeated[name], state[name])


def test_an_array_of_objects_is_no_part_of_a_state():
    with pytest.raises(TypeError, match=r"state\.a: a file holds numbers.*got array\(\[None\], dtype=object\)"):
        serialize.encode_state({"a": np.array([None])}, {}, "state")


# Writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, suffix, mask, mode):
    before = os.umask(mask)
    try:
        make().save(tmp_path / f"net{suffix}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / f"net{suffix}").stat().st_mode) == mode


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    path, link = tmp_path / "there" / "net.npz", tmp_path / "link.npz"
    link.symlink_to(path)
    for _ in range(2):  # where there is no file yet, and where there is one
        net = make()
        net.save(link)
        assert link.is_symlink()
        assert same(model.load(path), net)
        assert sorted(each.name for each in tmp_path.rglob("*")) == ["link.npz", "net.npz", "there"]


def test_the_umask_is_not_touched(tmp_path, monkeypatch):
    """It is that of the process: another thread would write with it meanwhile."""
    monkeypatch.delattr(os, "umask")
    make().save(tmp_path / "net.npz")


@pytest.mark.parametrize("name", ["n" * 236, "n" * 251, "ü" * 118, "ü" * 125])
def test_long_names(tmp_path, name):
    net, path = make(), tmp_path / f"{name}.npz"
    for _ in range(2):
        net.save(path)
    assert same(model.load(path), net)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, suffix, fails):
    net, path = make(), tmp_path / f"net{suffix}"
    net.save(path)
    old = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if fails == "write":
        monkeypatch.setattr(files, "_write_npz", full)
        monkeypatch.setattr(files, "_write_safetensors", full)
    else:
        monkeypatch.setattr(os, fails, full)
    net[6].b += 1
    with pytest.raises(OSError, match="No space left"):
        net.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["net.pt", "net", "net.npz.bak", "net.NPY"])
def test_another_suffix_is_refused_and_nothing_written(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.npz or \.safetensors.*net"):
        make().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(model.ModelFileError, match=r"\.npz or \.safetensors.*net"):
        model.load(tmp_path / name)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder.*nowhere"):
        make().save(tmp_path / "nowhere" / "net.npz")


def most_memory(work):
    """How much more memory `work` had at its height than before, in bytes, and what it returned."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("copies", [None, 5])
def test_no_second_copy_is_held_in_memory(tmp_path, suffix, copies):
    path, units = tmp_path / f"net{suffix}", 2500 if copies is None else 1000
    net = layers.Model([layers.Linear(units, init=0.5)], copies=copies).build((2000,))
    net.predict(np.zeros((1, 2000)))  # what is imported at the first use
    model.load(make_small(tmp_path / f"small{suffix}"))
    size = net.vector.nbytes
    assert size >= 2e7
    saving, _ = most_memory(lambda: net.save(path))
    loading, repeated = most_memory(lambda: model.load(path))
    assert saving < size / 5
    assert loading < 2.2 * size  # the parameters and their gradients
    np.testing.assert_array_equal(repeated.vector, net.vector)


def make_small(path):
    make().save(path)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_small_file_of_a_huge_net_is_refused_before_memory_is_taken(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    layers.Model([layers.Linear(3)]).build((4,)).save(path)
    header, arrays = files.read(path)
    header["model"]["arguments"]["layers"][0]["arguments"]["units"] = 10**9
    header["input_shape"] = [10**6]
    files.write(path, header, arrays)
    with pytest.raises(model.ModelFileError, match=r"layers\.0\.w.*\(4, 3\).*\(1000000, 1000000000\)"):
        model.load(path)


def test_an_array_said_to_be_larger_than_the_file_is_refused(tmp_path):
    path = tmp_path / "net.npz"
    layers.Model([layers.Linear(3)]).build((4,)).save(path)
    with zipfile.ZipFile(path) as whole:
        members = {info.filename: whole.read(info) for info in whole.infolist()}
    members["layers.0.w.npy"] = members["layers.0.w.npy"].replace(b"(4, 3), }          ", b"(4000000, 3000000), }")
    with zipfile.ZipFile(path, "w") as whole:
        for name, content in members.items():
            whole.writestr(name, content)
    with pytest.raises(model.ModelFileError, match=r"damaged.*layers\.0\.w"):
        files.read(path)


def test_others_read_what_is_written(tmp_path):
    from safetensors.numpy import load_file

    net = make()
    net.save(tmp_path / "net.safetensors")
    net.save(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz") as file:
        npz = {name: file[name] for name in file.files if name != "header"}
    for arrays in (npz, load_file(tmp_path / "net.safetensors")):
        assert arrays.keys() == net.state_dict().keys()
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(arrays[name], array, strict=True)


def test_arrays_of_every_kind_of_number_come_back(tmp_path):
    kinds = ["?", "i1", "u1", "<i2", "<u4", "<i8", "<f2", "<f4", "<f8", ">f8", ">i4"]
    arrays = {kind: np.arange(5).astype(kind) for kind in kinds} | {"none": np.zeros((0, 3)), "one": np.array(2.5)}
    for suffix in SUFFIXES:
        files.write(tmp_path / f"file{suffix}", {}, arrays)
        _, read = files.read(tmp_path / f"file{suffix}")
        assert read.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)
            assert (read[name].dtype, read[name].shape) == (array.dtype.newbyteorder("<"), array.shape)
    with pytest.raises(TypeError, match=r"hold numbers, 'text' is an array of <U1"):
        files.write(tmp_path / "file.safetensors", {}, {"text": np.array(["a"])})


def test_a_compressed_file_is_refused(tmp_path):
    make().save(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz") as file:
        np.savez_compressed(tmp_path / "net.npz", **dict(file))
    with pytest.raises(model.ModelFileError, match="compressed"):
        model.load(tmp_path / "net.npz")


# Reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_is_a_file_not_found(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match="nothing"):
        model.load(tmp_path / f"nothing{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    make().save(path)
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 20, *range(50, len(whole), len(whole) // 20), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(model.ModelFileError, match="net"):
            model.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_byte_is_seen_or_touches_nothing_that_counts(tmp_path, suffix):
    net, path = make(), tmp_path / f"net{suffix}"
    net.save(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 300)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            repeated = model.load(path)
        except model.ModelFileError:
            refused += 1
        else:
            assert same(net, repeated)
            assert repeated.predict(X).tobytes() == net.predict(X).tobytes()
    assert refused > 100


def rewritten(path, change):
    """The same file with its header changed, and its checksum right."""
    header, arrays = files.read(path)
    change(header, arrays)
    header["checks"] = {name: zlib.crc32(array.data) for name, array in arrays.items()}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, header=text, **arrays)


def unknown_layer(header, arrays):
    header["model"]["arguments"]["layers"][0]["type"] = "os.system"


CHANGES = [
    (lambda h, a: h.update(version=files.VERSION + 1), "newer"),
    (lambda h, a: h.update(version="1"), "version"),
    (lambda h, a: h.update(format="another"), "not written by layerwise"),
    (unknown_layer, r"'os\.system'.*custom="),
    (lambda h, a: h.update(model={"type": "Linear", "arguments": {"units": 3}}), "no Model"),
    (lambda h, a: h.pop("model"), "does not describe a net"),
    (lambda h, a: h.update(input_shape=[4]), "layers"),
    (lambda h, a: h["model"]["arguments"]["layers"][0]["arguments"].update(units=-3), "units"),
    (lambda h, a: h["model"]["arguments"]["layers"][0]["arguments"].update(nonsense=1), "nonsense"),
    (lambda h, a: a.pop("layers.0.w"), r"layers\.0\.w"),
    (lambda h, a: a.update(more=np.ones(3)), "more"),
    (lambda h, a: a.update({"layers.0.w": np.ones((3, 9), np.float32)}), r"layers\.0\.w.*\(3, 9\).*\(3, 4\)"),
    (lambda h, a: a.update({"layers.0.w": np.ones((3, 4))}), r"layers\.0\.w.*float64.*float32"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_file_that_describes_no_net_of_ours_is_refused(tmp_path, change, message):
    path = tmp_path / "net.npz"
    make().save(path)
    rewritten(path, change)
    with pytest.raises(model.ModelFileError, match=message):
        model.load(path)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def foreign(path):
    np.savez(path, a=np.arange(3))


def object_array(path):
    np.savez(path, header=np.array([Bomb()], object))


def object_beside(path):
    make().save(path)
    header = dict(np.load(path))["header"]
    np.savez(path, header=header, **{"layers.0.w": np.array([Bomb()], object)})


def bare_pickle(path):
    path.write_bytes(pickle.dumps(Bomb()))


def text(path):
    path.write_text("not a net")


def zip_of_pickle(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("header.npy", pickle.dumps(Bomb()))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("write", [foreign, object_array, object_beside, bare_pickle, text, zip_of_pickle])
def test_a_foreign_file_is_refused_and_nothing_in_it_is_run(tmp_path, monkeypatch, suffix, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.npz")
    path = (tmp_path / "net.npz").rename(tmp_path / f"net{suffix}")
    with pytest.raises(model.ModelFileError, match="net"):
        model.load(path)
    assert not (tmp_path / "exploded").exists()


def test_a_model_file_error_is_a_value_error():
    assert issubclass(model.ModelFileError, ValueError)


def test_without_the_extra_the_message_is_the_command(tmp_path, monkeypatch):
    import sys

    path = tmp_path / "net.safetensors"
    make().save(path)
    old = path.read_bytes()
    for name in [name for name in sys.modules if name.split(".")[0] == "safetensors"]:
        monkeypatch.setitem(sys.modules, name, None)
    for ask in (lambda: model.load(path), lambda: make().save(path)):
        with pytest.raises(ImportError, match=r'pip install "layerwise\[safetensors\]"'):
            ask()
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
