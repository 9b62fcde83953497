"""layerwise.export: every layer of the table of layers, and nets of them, run by others to the same numbers."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import layers
import model
from layers import (
    BatchNorm,
    Conv2D,
    Dropout,
    Embedding,
    Flatten,
    GroupNorm,
    Lambda,
    LayerNorm,
    Linear,
    MaxPool2D,
    Model,
    Parallel,
    ReLU,
    Residual,
    Softmax,
    Tanh,
)
from layerwise import export
from layerwise.export import to_onnx

_spec = importlib.util.spec_from_file_location("table_of_layers", Path(__file__).with_name("test_layers.py"))
_table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_table)
TABLE, draw, randomised = _table.TABLE, _table.draw, _table.randomised

REFUSED = {"Lambda"}  # an own function: nobody knows what it does
CLOSE = 1e-5


def in_onnxruntime(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run


def assert_close(found, expected, tolerance=CLOSE):
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.abs(found - expected).max(initial=0) <= tolerance


def exported(net, path, x, input_shape=None, custom=None, by_reference=True):
    """Export, hold against onnxruntime and the reference implementation, and return the file's contents."""
    to_onnx(net, path, input_shape, custom)
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert ([each.name for each in file.graph.input], [each.name for each in file.graph.output]) == (
        ["input"],
        ["output"],
    )
    assert np.ptp(net.predict(x), axis=0).max() > 1000 * CLOSE  # a net that died agrees with anything
    run = in_onnxruntime(path)
    runs = [run, ReferenceEvaluator(file).run] if by_reference else [run]
    for rows in (x[:3], x[:1]):
        for each in runs:
            assert_close(each(None, {"input": rows})[0], net.predict(rows))
    assert_close(run(None, {"input": x[:0]})[0], net.predict(x[:0]))
    return file


def operations(file):
    return [node.op_type for node in file.graph.node]


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.onnx"


# ---- Every layer ----


def test_every_layer_is_exported_or_refused():
    told = {*export.EXPORTERS} | REFUSED
    missing = sorted({*layers.__all__} - {"Layer"} - told)
    assert missing == [], "give each an `onnx` on its class, or a function in EXPORTERS"
    assert sorted(told - {*layers.__all__}) == [], "no layer is called that"
    assert not set(export.EXPORTERS) & REFUSED


@pytest.mark.parametrize("name", TABLE)
def test_a_layer(path, name):
    make, shape = TABLE[name]
    net = randomised(Model([make()], seed=0), shape)
    if name in REFUSED:
        with pytest.raises(ValueError, match=rf"^{name} \(layers\.0\) can't be exported: .*{{'cube': function}}"):
            to_onnx(net, path)
        assert not path.exists()
        return
    x = draw(shape, 1, net.integer_input)
    # The reference implementation of MaxPool forgets what is padded at the begin alone.
    by_reference = name != "MaxPool1D that is causal"
    file = exported(net, path, x if net.integer_input else x.astype(np.float32), by_reference=by_reference)
    net.save(path.with_suffix(".npz"))
    with np.load(path.with_suffix(".npz")) as saved:
        stored = {each.name: each for each in file.graph.initializer}
        for each in set(saved.files) - {"header"}:
            array = onnx.numpy_helper.to_array(stored[each])
            np.testing.assert_array_equal(np.sort(array, None), np.sort(saved[each], None))


ACTIVATIONS = (layers.Nonlinearity, layers.Softmax, layers.LogSoftmax)


@pytest.mark.parametrize("name", sorted(n for n in TABLE if issubclass(getattr(layers, n.split()[0]), ACTIVATIONS)))
def test_large_numbers(path, name):
    """Relative to the number, where it is above 1."""
    net = Model([TABLE[name][0]()], seed=0).build((6,))
    x = np.array([-1e4, -90, -20, 20, 90, 1e4], np.float32)[None]
    to_onnx(net, path)
    found, expected = in_onnxruntime(path)(None, {"input": x})[0], net.predict(x)
    np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize(
    "layer",
    [
        layers.ConvTranspose2D(3, (1, 2), stride=3, padding="same"),  # windows with gaps between them, also at the end
        layers.ConvTranspose2D(3, 3, stride=2, padding=1),
        Conv2D(3, 2, stride=3),  # rows at the end that no window covers
        layers.ConvTranspose2D(3, 1, stride=3, output_padding=(2, 1)),
        layers.AveragePool2D(3, stride=2, padding="same"),
        layers.AveragePool2D(3, stride=2, padding="same", count_padding=True),
        MaxPool2D(2, stride=3, padding=1),
    ],
    ids=repr,
)
def test_windows_at_the_edge(path, layer):
    exported(Model([layer], seed=0).build((6, 7, 2)), path, images(3, 6, 7, 2))


# ---- Nets ----


def test_a_trained_net_with_batch_norm_and_dropout(path):
    x = images(64, 9)
    net = Model(
        [Linear(16), BatchNorm(), ReLU(), Dropout(0.3), Linear(8), Tanh(), Linear(3), Softmax()], seed=0, name="irises"
    )
    net.train(x, np.arange(64) % 3, epochs=2, verbose=False)
    file = exported(net, path, x)
    assert operations(file) == ["Gemm", "BatchNormalization", "Relu", "Gemm", "Tanh", "Gemm", "Softmax"]
    assert [node.name for node in file.graph.node][:2] == ["layers.0.Gemm", "layers.1.BatchNormalization"]
    assert (file.graph.name, file.ir_version, file.opset_import[0].version) == ("irises", 10, 20)
    for end, size in ((file.graph.input[0], 9), (file.graph.output[0], 3)):
        batch, width = end.type.tensor_type.shape.dim
        assert (batch.dim_param, width.dim_value) == ("batch", size)
    net.frozen = True
    exported(net, path, x)


def test_two_convolutions_are_turned_once_and_back(path):
    net = Model(
        [
            Conv2D(32, 3),
            ReLU(),
            Conv2D(64, 3),
            ReLU(),
            MaxPool2D(2),
            Flatten(),
            Linear(128),
            ReLU(),
            Linear(10),
        ],
        seed=0,
    )
    file = exported(net.build((28, 28, 1)), path, images(3, 28, 28, 1))
    turned = ["Transpose", "Conv", "Relu", "Conv", "Relu", "MaxPool", "Transpose"]
    assert operations(file) == [*turned, "Flatten", "Gemm", "Relu", "Gemm"]


def block(filters):
    return [Conv2D(filters, 3, padding="same", bias=False), BatchNorm(), ReLU(), Conv2D(filters, 3, padding="same")]


def test_blocks_stay_turned(path):
    net = Model(
        [
            Conv2D(4, 3, stride=2),
            Residual([*block(4), GroupNorm(2)]),
            Parallel([[Conv2D(3, 1)], [MaxPool2D(3, stride=1, padding="same")]]),
            Softmax(),
            layers.UpSample2D(2),
            layers.GlobalAveragePool2D(),
            Linear(2),
        ],
        seed=0,
    )
    file = exported(randomised(net, (None, 9, 7, 2)), path, images(3, 9, 7, 2))
    assert operations(file).count("Transpose") == 1
    assert operations(file)[-2:] == ["ReduceMean", "Gemm"]


def test_branches_that_lie_otherwise_are_put_together(path):
    net = Model(
        [
            Parallel([[Conv2D(3, 1), ReLU()], [LayerNorm()], [Linear(2)]]),
            Residual([Conv2D(7, 3, padding="same")]),
            Residual([Linear(7)]),
            Parallel([[Dropout(0.5)], [Linear(7)]], join="add"),
            LayerNorm(),
        ],
        seed=0,
    )
    file = exported(net.build((4, 5, 2)), path, images(3, 4, 5, 2))
    names = [node.name for node in file.graph.node if node.op_type == "Transpose"]
    assert len(names) == len(set(names)) == 8  # nothing is turned twice


def test_a_net_within_a_net(path):
    inner = Model([Linear(4), Tanh()], seed=1)
    net = Model([Linear(5), inner, Linear(2)], seed=0).build((3,))
    places = ["layers.0", "layers.1.layers.0", "layers.2"]
    names = [each.name for each in exported(net, path, images(3, 3)).graph.initializer]
    assert names == [f"{place}.{name}" for place in places for name in "wb"]
    names = [each.name for each in exported(inner, path, images(3, 5)).graph.initializer]
    assert names == ["layers.0.w", "layers.0.b"]


def test_a_net_that_does_nothing(path):
    assert operations(exported(Model([Dropout(0.5)]), path, images(3, 4), (4,))) == ["Identity"]


def test_integers_stay_integers(path):
    net = Model([Embedding(7, 3), Flatten(), Linear(2)], seed=0).build((4,))
    file = exported(net, path, draw((3, 4), integers=True))
    assert file.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT64
    assert file.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_net_in_float64_is_exported_in_float64(path):
    # The attributes of ONNX are numbers in float32, which has 2^-10, and not 1e-5.
    norm = BatchNorm(epsilon=2**-10)
    net = Model([Conv2D(2, 3), norm, Flatten(), Linear(3), Tanh(), layers.RMSNorm()], seed=0, dtype="float64")
    randomised(net, (None, 4, 5, 2))
    to_onnx(net, path)
    x = images(3, 4, 5, 2).astype(np.float64)
    assert_close(ReferenceEvaluator(onnx.load(path)).run(None, {"input": x})[0], net.predict(x), 1e-13)
    exported(net.copy(dtype="float32"), path, x.astype(np.float32))


def test_another_shape_than_that_which_the_net_was_built_for(path):
    net = Model([Conv2D(3, 3), layers.GlobalMaxPool2D()], seed=0).build((8, 9, 2))
    exported(net, path, images(3, 12, 5, 2), (12, 5, 2))
    assert net.input_shape == (8, 9, 2)


def test_a_net_that_is_not_built_stays_so(path):
    net = Model([Linear(3), Tanh()], seed=0)
    to_onnx(net, path, (4,))
    assert net.input_shape is None
    x = images(3, 4)
    assert_close(in_onnxruntime(path)(None, {"input": x})[0], net.predict(x))


# ---- Layers of one's own ----


class Scale(layers.Layer):
    def setup(self, input_shape):
        self.add_parameter("w", input_shape[-1:], 1.0)

    def forward(self, x, training):
        return self.w * x


class Block(Residual):
    def __init__(self, filters):
        super().__init__(block(filters))
        self.filters = filters


def scale(graph, layer, x):
    return graph.add("Mul", x, graph.constant("w", layer.w))


def test_functions_export_what_is_ones_own(path):
    net = Model([Conv2D(2, 3), Scale(), Block(2), Lambda(np.abs), Scale()], seed=0)
    custom = {
        "Scale": scale,
        "Block": export.EXPORTERS["Residual"],
        "absolute": lambda graph, layer, x: graph.add("Abs", x),
    }
    file = exported(randomised(net, (None, 5, 6, 3)), path, images(3, 5, 6, 3), custom=custom)
    assert {"layers.1.w", "layers.2.layers.0.w", "layers.4.w"} < {each.name for each in file.graph.initializer}


OWN = [Scale(), Block(3), type("Linear", (Linear,), {})(3)]  # a class of one's own that is called as one of ours


@pytest.mark.parametrize("own", OWN, ids=lambda own: type(own).__name__)
def test_what_is_ones_own_is_refused_by_name(path, own):
    path.write_text("was here")
    name = type(own).__name__
    with pytest.raises(ValueError, match=rf"{name} \(layers\.1\) can't be exported: .*custom={{'{name}': function}}"):
        to_onnx(Model([Tanh(), own]), path, (4, 5, 3))
    assert path.read_text() == "was here"
    assert list(path.parent.iterdir()) == [path]


def test_two_constants_of_one_name_are_two(path):
    def twice(graph, layer, x):
        y = graph.add("Mul", x, graph.constant("w", layer.w))
        return graph.add("Add", y, graph.constant("w", -layer.w))

    class Affine(Scale):
        def forward(self, x, training):
            return self.w * x - self.w

    net = randomised(Model([Affine()], seed=0), (None, 3))
    file = exported(net, path, images(4, 3), custom={"Affine": twice})
    assert [each.name for each in file.graph.initializer] == ["layers.0.w", "layers.0.w.2"]


def test_a_function_that_gives_nothing(path):
    with pytest.raises(TypeError, match=r"Scale \(layers\.0\) returns a value, as graph\.add does, got None"):
        to_onnx(Model([Scale()]), path, (3,), {"Scale": lambda graph, layer, x: None})


# ---- Bad input ----


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Linear(3), "net.onnx"), TypeError, r"takes a Model, got Linear\(units=3, .*Model\(\[layer\]\)"),
        ((Model([Linear(3)]), "net.npz", (2,)), ValueError, r"as \.onnx, got 'net\.npz'"),
        ((Model([Linear(3)]), "net.onnx"), ValueError, r"no weights yet: give input_shape, such as \(784,\)"),
        ((Model([Linear(3)]), "nowhere/net.onnx", (2,)), FileNotFoundError, r"no folder 'nowhere'"),
        ((Model([Linear(3)]).build((2,)), "net.onnx", (4,)), ValueError, r"takes 2 inputs a row, got .*\(4,\)"),
        ((Model([Linear(3)], copies=4).build((2,)), "net.onnx"), ValueError, r"stack of 4 nets .*net\.copy\(0\)"),
    ],
)
def test_what_can_not_be_exported_is_refused(tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        to_onnx(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_stack_is_a_net(path):
    stack = Model([Linear(3), Tanh()], seed=0, copies=2).build((2,))
    exported(stack.copy(1), path, images(3, 2))


def test_without_the_package(path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "layerwise\[onnx\]"'):
        to_onnx(Model([Linear(3)]), path, (2,))


def test_the_saved_net_and_the_exported_one_are_the_same(path):
    net = Model([Linear(3), layers.PReLU(), Linear(1)], seed=0).build((2,))
    net.save(path.with_suffix(".npz"))
    exported(model.load(path.with_suffix(".npz")), path, images(3, 2))
