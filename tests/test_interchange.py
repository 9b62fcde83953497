"""Weights from and to PyTorch and Keras: the net then predicts what the other library predicted (interchange.npz).

Neither library is needed: stand-ins have the layers' classes by name, their arguments and their weights.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import layers
from layerwise import interchange

with np.load(Path(__file__).parent / "reference" / "interchange.npz") as file:
    GOLDEN = dict(file)
ABOUT = json.loads(str(GOLDEN.pop("about")))

# The same nets as in make_interchange.py.
NETS = {
    "torch dense": lambda: [
        layers.Linear(6), layers.BatchNorm(momentum=0.2), layers.LeakyReLU(0.1), layers.Linear(4, bias=False),
        layers.ELU(0.7), layers.Dropout(0.4), layers.LayerNorm(1e-3), layers.RMSNorm(1e-4), layers.Linear(3),
        layers.Softmax(),
    ],
    "torch images": lambda: [
        layers.Conv2D(4, 3, padding="same"), layers.BatchNorm(), layers.ReLU(), layers.MaxPool2D(2),
        layers.Conv2D(6, (3, 2), stride=(1, 2), padding=1, groups=2), layers.PReLU(), layers.Flatten(),
        layers.BatchNorm(), layers.LayerNorm(),
        layers.Model([layers.Linear(5), layers.GELU("tanh"), layers.Model([layers.Linear(3)])]), layers.LogSoftmax(),
    ],
    "torch windows": lambda: [
        layers.ZeroPad2D(((0, 1), (1, 2))), layers.DepthwiseConv2D(3, multiplier=2, dilation=2, padding="same"),
        layers.GroupNorm(2), layers.SiLU(), layers.AveragePool2D(2, stride=1, padding=1),
        layers.ConvTranspose2D(4, 3, stride=2, padding=1), layers.UpSample2D(2), layers.SpatialDropout(0.2),
        layers.GlobalAveragePool2D(), layers.Linear(2),
    ],
    "torch sequences": lambda: [
        layers.Conv1D(5, 3, padding="same"), layers.BatchNorm(), layers.Tanh(), layers.MaxPool1D(3), layers.Flatten(),
        layers.Linear(2),
    ],
    "torch words": lambda: [
        layers.Embedding(11, 4), layers.Linear(3), layers.LayerNorm(), layers.GELU(), layers.Softmax(),
        layers.Flatten(), layers.Linear(2),
    ],
    "torch activations": lambda: [
        part for each in ("Sigmoid", "SELU", "Softplus", "Softsign", "Mish", "HardSigmoid", "HardSwish")
        for part in (layers.Linear(5), getattr(layers, each)())
    ],
    "torch more windows": lambda: [
        layers.AveragePool2D(3, stride=1, padding=1, count_padding=True),
        layers.ConvTranspose2D(4, 3, stride=2, padding=1, output_padding=1), layers.ReLU(),
        layers.ConvTranspose2D(2, 2, stride=3, output_padding=(2, 0)), layers.Flatten(), layers.Linear(3),
    ],
    "torch whole norms": lambda: [
        layers.LayerNorm(axes=3), layers.Conv2D(4, 3), layers.LayerNorm(axes=3), layers.Flatten(), layers.Linear(5),
    ],
    "torch words and norms": lambda: [
        layers.Embedding(11, 4), layers.LayerNorm(axes=2), layers.Linear(3), layers.Flatten(), layers.Linear(2),
    ],
    "torch plain norms": lambda: [
        layers.Conv2D(4, 3), layers.BatchNorm(scale=False, bias=False), layers.Conv2D(4, 1),
        layers.GroupNorm(2, scale=False, bias=False), layers.Flatten(), layers.Linear(5),
        layers.LayerNorm(scale=False, bias=False), layers.Linear(5), layers.LayerNorm(bias=False), layers.Linear(5),
        layers.RMSNorm(1e-4, scale=False),
    ],
    "torch bent": lambda: [
        layers.Conv2D(4, 3), layers.PReLU(True), layers.Conv2D(4, 1), layers.ReLU6(), layers.Flatten(),
        layers.PReLU(per_channel=True), layers.Linear(5), layers.HardTanh(-0.3, 0.7), layers.Linear(5),
        layers.Softplus(beta=2), layers.Linear(3), layers.PReLU(per_channel=True),
    ],
    "keras dense": lambda: [
        layers.Linear(6), layers.BatchNorm(momentum=0.2, epsilon=1e-3), layers.LeakyReLU(0.1),
        layers.Linear(4, bias=False), layers.ELU(), layers.LayerNorm(1e-3), layers.RMSNorm(1e-4), layers.PReLU(),
        layers.Linear(3), layers.Softmax(),
    ],
    "keras images": lambda: [
        layers.Conv2D(4, 3, padding="same", stride=2), layers.ReLU(), layers.BatchNorm(0.01, 1e-3), layers.MaxPool2D(2),
        layers.Conv2D(6, (2, 1), groups=2), layers.PReLU(), layers.Flatten(), layers.BatchNorm(0.01, 1e-3),
        layers.Linear(5), layers.GELU(), layers.Linear(3), layers.Softmax(),
    ],
    "keras windows": lambda: [
        layers.ZeroPad2D(((0, 1), (1, 2))), layers.DepthwiseConv2D(3, multiplier=2, padding="same"),
        layers.GroupNorm(2, 1e-3), layers.SiLU(), layers.AveragePool2D(2, stride=1, padding="same"),
        layers.ConvTranspose2D(4, 3, stride=2, padding="same"), layers.ConvTranspose2D(4, 3, stride=2),
        layers.UpSample2D(2), layers.GlobalAveragePool2D(), layers.Linear(2),
    ],
    "keras sequences": lambda: [
        layers.Conv1D(5, 3, padding="same"), layers.Tanh(), layers.BatchNorm(0.01, 1e-3), layers.MaxPool1D(3),
        layers.Flatten(), layers.Linear(2),
    ],
    "keras words": lambda: [
        layers.Embedding(11, 4), layers.Linear(3), layers.LogSoftmax(), layers.LayerNorm(), layers.GlobalMaxPool1D(),
        layers.Linear(2),
    ],
    "keras activations": lambda: [
        part for each in (
            layers.Sigmoid(), layers.SELU(), layers.Softplus(), layers.Softsign(), layers.Mish(), layers.HardSigmoid(),
            layers.HardSwish(), layers.LeakyReLU(0.2), layers.SiLU(), layers.ELU(),
        ) for part in (layers.Linear(5), each)
    ],
    "keras more windows": lambda: [
        layers.Conv1D(5, 3, padding="causal", dilation=2), layers.Conv1D(4, 2, padding="causal", stride=2),
        layers.Flatten(), layers.Linear(2),
    ],
    "keras more images": lambda: [
        layers.ConvTranspose2D(4, 3, stride=2, output_padding=1),
        layers.ConvTranspose2D(2, 2, stride=3, output_padding=(1, 0)),
        layers.ConvTranspose2D(2, 2, stride=3, output_padding=1), layers.GlobalAveragePool2D(), layers.Linear(2),
    ],
    "keras whole norms": lambda: [
        layers.LayerNorm(1e-3, axes=3), layers.Conv2D(4, 3), layers.LayerNorm(1e-3, axes=2), layers.Flatten(),
        layers.Linear(5),
    ],
    "keras plain norms": lambda: [
        layers.Conv2D(4, 3), layers.BatchNorm(0.01, 1e-3, scale=False), layers.Conv2D(4, 1),
        layers.GroupNorm(2, 1e-3, scale=False, bias=False), layers.Flatten(), layers.Linear(5),
        layers.LayerNorm(1e-3, bias=False), layers.Linear(5), layers.BatchNorm(0.01, 1e-3, bias=False),
    ],
    "keras bent": lambda: [
        layers.Conv2D(4, 3), layers.ReLU6(), layers.PReLU(per_channel=True), layers.Conv2D(4, 1), layers.ReLU6(),
        layers.Flatten(), layers.PReLU(per_channel=True), layers.Linear(5), layers.HardTanh(), layers.Linear(3),
        layers.PReLU(per_channel=True),
    ],
}  # fmt: skip


class Tensor:
    """As much of a torch.Tensor as is asked of one."""

    def __init__(self, array):
        self.array = np.array(array)
        self.shape = self.array.shape

    def detach(self):
        return self

    def cpu(self):
        return self

    def double(self):
        return Tensor(self.array.astype(np.float64))

    def numpy(self):
        return self.array

    def new_tensor(self, values):
        return Tensor(values.astype(self.array.dtype))

    def copy_(self, other):
        assert other.shape == self.shape
        self.array[...] = other.array


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


# Keras's own, of which only the arguments matter.
WITH_ARGUMENTS = {
    "relu": lambda x, negative_slope=0.0, max_value=None, threshold=0.0: x,
    "leaky_relu": lambda x, negative_slope=0.2: x,
    "elu": lambda x, alpha=1.0: x,
    "gelu": lambda x, approximate=False: x,
    "softmax": lambda x, axis=-1: x,
    "log_softmax": lambda x, axis=-1: x,
}


def function_named(name):
    function = WITH_ARGUMENTS.get(name, lambda x: x)
    function.__name__ = name
    return function


def stand_in(about, prefix, side):
    """A layer of the other library, of which only the class's name, the arguments and the weights are real."""
    if "layers" in about:
        sections = [stand_in(each, f"{prefix}.{place}", side) for place, each in enumerate(about["layers"])]
        members = {"layers": sections, "__iter__": lambda self: iter(self.layers)}
        return type("Sequential", (), members)()
    arrays = {name: GOLDEN[f"{prefix}/{name}"].copy() for name in about["arrays"]}
    layer = type(about["class"], (), {})()
    vars(layer).update({name: tuples(value) for name, value in about["told"].items()})
    if side == "torch":
        tensors = {name: Tensor(array) for name, array in arrays.items()}
        layer.state_dict = lambda: dict(tensors)
    else:
        weights = list(arrays.values())
        layer.get_weights = lambda: [each.copy() for each in weights]
        layer.set_weights = lambda new: [np.copyto(old, each) for old, each in zip(weights, new, strict=True)]
        function = about["activation"]
        layer.activation = None if function is None else function_named(function)
    return layer


def leaf_layers(sequential):
    for layer in sequential.layers:
        yield from leaf_layers(layer) if type(layer).__name__ == "Sequential" else [layer]


def weights_of(sequential, side):
    if side == "torch":
        return [t.array for layer in leaf_layers(sequential) for k, t in layer.state_dict().items() if "num" not in k]
    return [array for layer in leaf_layers(sequential) for array in layer.get_weights()]


class Case:
    def __init__(self, name, dtype="float64"):
        self.side = name.split()[0]
        x = GOLDEN[f"{name}/x"]
        turned = self.side == "torch" and x.ndim > 2  # the channels last, here
        self.x, self.y = np.moveaxis(x, 1, -1) if turned else x, GOLDEN[f"{name}/y"]
        self.theirs = stand_in(ABOUT[name], name, self.side)
        self.net = layers.Model(NETS[name](), seed=1, dtype=dtype).build(self.x.shape[1:])
        self.come = getattr(interchange, f"from_{self.side}")
        self.go = getattr(interchange, f"to_{self.side}")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_the_net_predicts_what_the_other_library_did(name, dtype, tolerance):
    case = Case(name, dtype)
    assert abs(case.net.predict(case.x) - case.y).max() > 1e-2
    case.come(case.net, case.theirs)
    np.testing.assert_allclose(case.net.predict(case.x), case.y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NETS)
def test_what_goes_there_is_what_came_from_there(name):
    case = Case(name)
    before = [array.copy() for array in weights_of(case.theirs, case.side)]
    case.come(case.net, case.theirs)
    blank = Case(name)
    for layer in leaf_layers(blank.theirs):  # other weights, to see that all are written
        if case.side == "keras":
            layer.set_weights([array + 1 for array in layer.get_weights()])
        else:
            for tensor in layer.state_dict().values():
                tensor.array += 1
    case.go(case.net, blank.theirs)
    for ours, theirs in zip(weights_of(blank.theirs, case.side), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_layer_with_a_counterpart_is_in_a_net():
    """But for activations without parameters: tests/test_duties.py compares the names and arguments of all layers."""
    tried = {type(leaf).__name__ for make in NETS.values() for leaf in layers.Model(make()).leaf_layers()}
    alike = {"AveragePool1D", "GlobalAveragePool1D", "GlobalMaxPool2D"}  # to those of the other number of axes
    kinds = {name: getattr(layers, name) for name in layers.__all__}
    declared = {name for name, kind in kinds.items() if {"torch", "keras"} & vars(kind).keys() and name != "Layer"}
    assert {name for name in declared - tried if not issubclass(kinds[name], layers.Nonlinearity)} == alike


class Shrink(layers.Nonlinearity):
    """A layer of one's own that says what Keras calls it."""

    keras = "hard_shrink(threshold=lambd)"

    def __init__(self, lambd=0.5, name=None):
        super().__init__(name)
        self.lambd = lambd

    def forward(self, x, training):
        return x * (np.abs(x) > self.lambd)


@pytest.mark.parametrize(
    "given", [lambda x, threshold=0.5: x, type("HardShrink", (), {"threshold": 0.5, "get_weights": list})()]
)
def test_an_activation_may_be_a_function_or_a_layer_of_keras(given):
    """Of a threshold only Keras's ReLU must have 0."""
    if not hasattr(given, "get_weights"):
        given.__name__ = "hard_shrink"
    dense = type("Dense", (), {"activation": given, "get_weights": lambda self: [np.ones((3, 2)), np.ones(2)]})()
    theirs = sequential([dense])
    net = layers.Model([layers.Linear(2), Shrink()]).build((3,))
    interchange.from_keras(net, theirs)
    assert (net[0].w == 1).all()
    for different in ([layers.Linear(2)], [layers.Linear(2), Shrink(0.4)], [layers.Linear(2), layers.ReLU()]):
        with pytest.raises(ValueError, match=r"layers differ|lambd is 0\.4 here and 0\.5 in Keras"):
            interchange.from_keras(layers.Model(different).build((3,)), theirs)


# What is refused; nothing is copied then.


def replaced(place, *new):
    def change(sections):
        sections[place : place + 1] = new

    return change


DIFFERENT = [
    ("torch dense", replaced(0, layers.Linear(7)), r"Linear \(layers\.0\)\.w has shape \(5, 7\), in PyTorch \(7, 5\)"),
    ("torch dense", replaced(0, layers.Linear(6, bias=False)), r"has \['weight'\] here.*\['bias', 'weight'\] there"),
    ("torch dense", replaced(1, layers.BatchNorm(0.2, 1e-3)), r"epsilon is 0\.001 here and 1e-05 in PyTorch"),
    ("torch dense", replaced(1, layers.BatchNorm(0.1)), r"momentum is 0\.1 here and 0\.2"),
    ("torch dense", replaced(2, layers.LeakyReLU(0.2)), r"slope is 0\.2 here and 0\.1"),
    ("torch dense", replaced(2, layers.ReLU()), r"layers differ.*'ReLU'.*'LeakyReLU'"),
    ("torch dense", replaced(9), r"layers differ.*'Softmax'\]\.$"),
    ("torch dense", replaced(9, layers.Residual([layers.Softmax()])), r"Residual.*no counterpart in PyTorch"),
    ("torch images", replaced(4, layers.Conv2D(6, (3, 2), stride=(1, 2), padding=1)), r"groups is 1 here and 2"),
    ("torch images", replaced(3, layers.MaxPool2D(2, padding=1)), r"padding before is \(1, 1\) here and \(0, 0\)"),
    ("torch images", replaced(0, layers.Conv2D(4, 5, padding="same")), r"size is \(5, 5\) here and \(3, 3\)"),
    ("torch words", replaced(3, layers.GELU("tanh")), r"approximate is 'tanh' here and None"),
    ("torch words", replaced(4, layers.LogSoftmax()), r"layers differ"),
    ("keras dense", replaced(1, layers.BatchNorm(0.2)), r"epsilon is 1e-05 here and 0\.001 in Keras"),
    ("keras images", replaced(0, layers.Conv2D(4, 3, padding=1, stride=2)), r"is \(1, 1\) here and 'same' in Keras"),
    ("torch whole norms", replaced(2, layers.LayerNorm()), r"normalized_shape is \(4,\) here and \(4, 4, 3\)"),
    ("keras whole norms", replaced(2, layers.LayerNorm(1e-3, axes=3)), r"axis is \[-3, -2, -1\] here and \[-2, -1\]"),
    ("torch more windows", replaced(0, layers.AveragePool2D(3, 1, 1)), "count_include_pad is False here and True"),
    ("keras windows", replaced(4, layers.AveragePool2D(2, 1, "same", True)), "count_padding is True here and False in"),
    ("keras more windows", replaced(1, layers.Conv1D(4, 2, 2)), "padding is 'valid' here and 'causal' in Keras"),
    ("keras bent", replaced(8, layers.HardTanh(-1, 2)), r"high is 2\.0 here and 1\.0 in Keras"),
    ("torch bent", replaced(9, layers.Softplus()), r"beta is 1\.0 here and 2\.0 in PyTorch"),
    ("torch plain norms", replaced(8, layers.LayerNorm(scale=False)), r"has \['bias'\] here.* and \['weight'\] there"),
    ("keras plain norms", replaced(1, layers.BatchNorm(0.01, 1e-3, bias=False)), "scale is True here and False in"),
    ("keras plain norms", replaced(6, layers.LayerNorm(1e-3)), "bias is True here and False in Keras"),
    ("keras windows", replaced(7, layers.UpSample2D(3)), r"factor is \(3, 3\) here and \(2, 2\)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), DIFFERENT)
def test_what_differs_is_refused_and_nothing_is_copied(snapshot, name, change, message):
    case = Case(name)
    sections = NETS[name]()
    change(sections)
    net = layers.Model(sections, seed=0, dtype="float64").build(case.x.shape[1:])
    ours, theirs = snapshot(net), [array.copy() for array in weights_of(case.theirs, case.side)]
    for copy in (case.come, case.go):
        with pytest.raises(ValueError, match=message):
            copy(net, case.theirs)
    assert snapshot(net) == ours
    for before, after in zip(theirs, weights_of(case.theirs, case.side), strict=True):
        np.testing.assert_array_equal(before, after)


THERE = [
    ("torch images", 0, {"padding_mode": "reflect"}, r"padding_mode is 'reflect', and here only 'zeros' is"),
    ("torch images", 3, {"ceil_mode": True}, "ceil_mode is True"),
    ("torch images", 6, {"start_dim": 2}, "start_dim is 2"),
    ("torch images", 13, {"dim": 0}, "dim is 0 in PyTorch, and the classes are on axis 1"),
    ("torch windows", 4, {"count_include_pad": True}, "count_include_pad is False here and True"),
    ("torch windows", 5, {"output_padding": (1, 1)}, r"size of the output is \[15, 17\] here and \[16, 18\]"),
    ("torch windows", 6, {"mode": "bilinear"}, "mode is 'bilinear'"),
    ("torch words", 2, {"normalized_shape": (6, 3)}, r"normalized_shape is \(3,\) here and \(6, 3\)"),
    ("keras images", 0, {"data_format": "channels_first"}, "data_format is 'channels_first'"),
    ("keras images", 1, {"axis": 1}, "axis is -1 here and 1"),
    ("keras words", 0, {"mask_zero": True}, "in Keras mask_zero is True, and here only False is"),
    ("keras dense", 0, {"get_weights": list}, "build it there, by calling it on a batch"),
]


@pytest.mark.parametrize(("name", "place", "told", "message"), THERE)
def test_an_argument_that_is_only_there_is_refused(name, place, told, message):
    case = Case(name)
    vars(list(leaf_layers(case.theirs))[place]).update(told)
    with pytest.raises(ValueError, match=message):
        case.come(case.net, case.theirs)


def sequential(sections, **members):
    """A class of one's own, derived from Sequential."""
    base = type("Sequential", (), {"forward": None, "call": None, "__iter__": lambda self: iter(self.layers)})
    created = type("Net", (base,), members)()
    created.layers = sections
    return created


@pytest.mark.parametrize("name", ["torch windows", "keras words"])
def test_one_sequential_within_another(name):
    """Features and head, and something idle between a pooling and the Flatten after it."""
    case = Case(name)
    sections = case.theirs.layers
    theirs = sequential([sequential(sections[:-2]), sequential([type("Identity", (), {})(), *sections[-2:]])])
    case.come(case.net, theirs)
    np.testing.assert_allclose(case.net.predict(case.x), case.y, rtol=1e-10, atol=1e-10)
    with pytest.raises(TypeError, match=r"second argument is an? .*Sequential.*got Net"):
        case.come(case.net, sequential(sections, forward=lambda self: None, call=lambda self: None))


def test_bfloat16_which_numpy_does_not_have():
    class BFloat16(Tensor):
        def numpy(self):
            raise TypeError("Got unsupported ScalarType BFloat16")

    case = Case("torch dense")
    for layer in leaf_layers(case.theirs):
        layer.state_dict = {name: BFloat16(tensor.array) for name, tensor in layer.state_dict().items()}.copy
    case.come(case.net, case.theirs)
    np.testing.assert_allclose(case.net.predict(case.x), case.y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float64"), (1e39, "float32")])
@pytest.mark.parametrize("name", ["torch dense", "keras dense"])
def test_what_is_not_finite_is_refused_and_nothing_is_copied(snapshot, name, value, dtype):
    case = Case(name, dtype)
    before = snapshot(case.net)
    first = case.theirs.layers[0]
    if case.side == "torch":
        first.state_dict()["bias"].array[0] = value
    else:
        w, b = first.get_weights()
        first.get_weights = lambda: [w, np.full_like(b, value)]
    with pytest.raises(ValueError, match=rf"Linear \(layers\.0\)\.b: there it holds what is not finite in {dtype}"):
        case.come(case.net, case.theirs)
    assert snapshot(case.net) == before


def test_features_in_another_order_are_refused_where_nothing_turns_them_back():
    case = Case("torch images")
    case.theirs.layers = case.theirs.layers[:7]
    net = layers.Model(NETS["torch images"]()[:7], dtype="float64").build(case.x.shape[1:])
    with pytest.raises(ValueError, match="another order: no Linear follows"):
        case.come(net, case.theirs)


def test_a_linear_on_channels_that_are_first_in_pytorch_is_refused():
    case = Case("torch sequences")
    case.theirs.layers = [
        *case.theirs.layers[:3],
        stand_in(ABOUT["torch words"]["layers"][1], "torch words.1", "torch"),
    ]
    sections = [layers.Conv1D(4, 3, padding="same"), layers.BatchNorm(), layers.Tanh(), layers.Linear(3)]
    case.theirs.layers[:2] = []
    with pytest.raises(ValueError, match="on another axis"):
        case.come(layers.Model([layers.MaxPool1D(3), sections[3]]).build((9, 4)), tail(case.theirs, "MaxPool1d"))


def tail(sequential, name):
    golden = Case("torch sequences").theirs.layers
    sequential.layers = [each for each in golden if type(each).__name__ == name] + sequential.layers[-1:]
    return sequential


def test_nets_that_cannot_be_gone_through():
    case = Case("keras dense")
    with pytest.raises(ValueError, match=r"build\(input_shape\)"):
        case.come(layers.Model(NETS["keras dense"]()), case.theirs)
    with pytest.raises(ValueError, match=r"net\.copy\(s\)"):
        case.come(layers.Model([layers.Linear(2)], copies=3).build((4,)), case.theirs)
    with pytest.raises(TypeError, match=r"first argument is the Model of ours, got Sequential"):
        case.come(case.theirs, case.net)
    for copy in (interchange.from_torch, interchange.from_keras):
        with pytest.raises(TypeError, match=r"second argument is an? .*Sequential.*got Linear"):
            copy(case.net, layers.Linear(2))


def test_a_layer_of_ones_own_has_no_counterpart():
    class Linear(layers.Linear):
        pass

    case = Case("torch dense")
    with pytest.raises(ValueError, match="no counterpart"):
        case.come(layers.Model([Linear(2)]).build((5,)), case.theirs)
