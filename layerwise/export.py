"""export: a net as an ONNX file, which runs without layerwise, in onnxruntime and whatever else reads the format.

    to_onnx(net, "net.onnx")

In this file, in this order:
  the graph        Value, Graph
  what each layer becomes    what its class declares, as `onnx = "Relu"`, else a small function; EXPORTERS has them all
  the file         to_onnx

The channels of layerwise are the last axis, those of ONNX's convolutions the first. A value knows which, and is
transposed where a layer needs the other order: once where a run of image layers begins, and once where it ends.
Inputs, outputs and what is flattened have the channels last, as in layerwise.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerwise import layers
from layerwise.core import files, habits
from layerwise.training import serialize

Array = np.ndarray
Shape = tuple[int, ...]

# Not the newest, which onnx writes by default and onnxruntime refuses for about a year.
OPSET, IR_VERSION = 20, 10


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise ImportError('ONNX files need a package: pip install "layerwise[onnx]"') from None
    return onnx


# The graph ---------------------------------------------------------------------------------------------------


class Value(NamedTuple):
    """An array that flows through the graph."""

    name: str
    shape: Shape  # as in layerwise: without the batch axis, channels last
    first: bool = False  # it lies with the channels first

    @property
    def axis(self) -> int:
        """Where the channels are."""
        return 1 if self.first else -1


class Graph:
    """The nodes and the constants so far. What belongs to a layer is named after its place: "layers.0.w"."""

    def __init__(self, net: layers.Model, custom: Mapping[str, Exporter]) -> None:
        self.onnx = _onnx()
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.custom = custom
        self.root = f"{net.path}."  # this net may stand in another
        self.place = "output"  # of the layer under way; what is added after the last belongs to the output
        self.times: Counter[str] = Counter()  # that a name is given in a place
        self.other_way: dict[str, Value] = {}  # by name: the same value with its channels at the other end

    def _new_name(self, name: str) -> str:
        """The name after the present layer's place, numbered where that place has one of this name already."""
        name = f"{self.place}.{name}"
        self.times[name] += 1
        return name + (f".{self.times[name]}" if self.times[name] > 1 else "")

    def add(self, op: str, *inputs: Value | str, **attributes: Any) -> Value:
        """The result of an ONNX operation; it lies as the first input does."""
        names = [each if isinstance(each, str) else each.name for each in inputs]
        name = self._new_name(op)
        self.nodes.append(self.onnx.helper.make_node(op, names, [name], name, **attributes))
        like = next((each for each in inputs if isinstance(each, Value)), Value("", ()))
        return like._replace(name=name)

    def constant(self, name: str, values: Any) -> str:
        """The name of an array that is stored in the file."""
        name = self._new_name(name)
        self.constants[name] = self.onnx.numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def layer(self, layer: layers.Layer, x: Value) -> Value:
        """What a layer makes of x."""
        before, self.place = self.place, layer.path.removeprefix(self.root)
        exporter, own = self._exporter(layer)
        y = exporter(self, layer, self.channels_last(x) if own else x)
        if not isinstance(y, Value):
            raise TypeError(f"what exports {layer.label} returns a value, as graph.add does, got {y!r}.")
        self.place = before
        return y._replace(shape=layer.output_shape(x.shape))

    def _exporter(self, layer: layers.Layer) -> tuple[Exporter, bool]:
        """What exports the layer, and whether it is the user's own."""
        name = type(layer).__name__
        ours = getattr(layers, name, None) is type(layer)
        key = getattr(layer.function, "__name__", name) if type(layer) is layers.Lambda else name
        if key in self.custom:
            return self.custom[key], True
        if ours and name in EXPORTERS:
            return EXPORTERS[name], False
        if vars(type(layer)).get("onnx"):  # a layer of one's own that declares it; a class derived from it may differ
            return _one_operation(layer.onnx), False
        raise ValueError(
            f"{layer.label} can't be exported: give a function that does, to_onnx(..., custom={{{key!r}: function}}), "
            f"function(graph, layer, x) -> value; the docstring of to_onnx shows one."
        )

    def channels_first(self, x: Value) -> Value:
        """x (N, H, W, C) as (N, C, H, W); what has no axis but the channels is the same."""
        return x if x.first or len(x.shape) < 2 else self._turned(x)

    def channels_last(self, x: Value) -> Value:
        return self._turned(x) if x.first else x

    def together(self, values: Sequence[Value]) -> list[Value]:
        """The values as they can be added or joined: with the channels first if those of one are."""
        turn = self.channels_first if any(x.first for x in values) else self.channels_last
        return [turn(x) for x in values]

    def _turned(self, x: Value) -> Value:
        if x.name not in self.other_way:
            axes = range(len(x.shape) + 1)
            order = [0, *axes[2:], 1] if x.first else [0, axes[-1], *axes[1:-1]]
            y = self.add("Transpose", x, perm=order)._replace(first=not x.first)
            self.other_way |= {x.name: y, y.name: x}
        return self.other_way[x.name]


Exporter = Callable[[Graph, Any, Value], Value]


# Weights and activations -------------------------------------------------------------------------------------


def _linear(graph: Graph, layer: Any, x: Value) -> Value:
    x, w = graph.channels_last(x), graph.constant("w", layer.w)
    if not layer.bias:
        return graph.add("MatMul", x, w)
    b = graph.constant("b", layer.b)
    if len(x.shape) == 1:
        return graph.add("Gemm", x, w, b)
    return graph.add("Add", graph.add("MatMul", x, w), b)  # Gemm takes no more than two axes


def _embedding(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.add("Gather", graph.constant("w", layer.w), x, axis=0)


def _same(graph: Graph, layer: Any, x: Value) -> Value:
    """A layer that acts in training only."""
    return x


def _one_operation(declaration: str) -> Exporter:
    """An operation of ONNX's that is the whole layer, as its class declares it: "Elu(alpha=alpha)"."""
    op, given = habits.counterpart(declaration)

    def value(layer: Any, name: str) -> Any:
        value = getattr(layer, name) if hasattr(layer, name) else float(name)
        return "none" if value is None else value

    return lambda graph, layer, x: graph.add(op, x, **{key: value(layer, name) for key, name in given.items()})


def _prelu(graph: Graph, layer: Any, x: Value) -> Value:
    places = len(x.shape) - 1 if x.first else 0  # after the channels
    return graph.add("PRelu", x, graph.constant("w", layer.w.reshape(-1, *(1,) * places)))


def _clip(graph: Graph, layer: Any, x: Value) -> Value:
    ends = (graph.constant(name, layer.dtype.type(getattr(layer, name))) for name in ("low", "high"))
    return graph.add("Clip", x, *ends)


def _softplus(graph: Graph, layer: Any, x: Value) -> Value:
    if layer.beta == 1:
        return graph.add("Softplus", x)
    beta = graph.constant("beta", layer.dtype.type(layer.beta))
    return graph.add("Div", graph.add("Softplus", graph.add("Mul", x, beta)), beta)


def _silu(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _softmax(op: str) -> Exporter:
    return lambda graph, layer, x: graph.add(op, x, axis=x.axis)


# Normalisation -----------------------------------------------------------------------------------------------


def _scaling(layer: Any, x: Value) -> dict[str, Array]:
    """w and b; 1 and 0 in the place of what the layer goes without."""
    shape = x.shape[-layer.axes :]
    without = {"w": np.ones(shape, layer.dtype), "b": np.zeros(shape, layer.dtype)}
    return without | layer.parameters


def _batch_norm(graph: Graph, layer: Any, x: Value) -> Value:
    arrays = _scaling(layer, x) | layer.buffers
    names = [graph.constant(name, arrays[name]) for name in ("w", "b", "running_mean", "running_variance")]
    return graph.add("BatchNormalization", graph.channels_first(x), *names, epsilon=layer.epsilon)


def _layer_norm(graph: Graph, layer: Any, x: Value) -> Value:
    w, b = (graph.constant(name, array) for name, array in _scaling(layer, x).items())
    return graph.add("LayerNormalization", graph.channels_last(x), w, b, axis=-layer.axes, epsilon=layer.epsilon)


def _group_norm(graph: Graph, layer: Any, x: Value) -> Value:
    """Each group as a channel of its own for InstanceNormalization; GroupNormalization has one w a group before 21."""
    x, groups = graph.channels_first(x), layer.groups
    grouped = graph.add("Reshape", x, graph.constant("grouped", [0, groups, math.prod(x.shape) // groups]))
    ones, zeros = (graph.constant(name, np.full(groups, n, layer.dtype)) for name, n in (("ones", 1), ("zeros", 0)))
    z = graph.add("InstanceNormalization", grouped, ones, zeros, epsilon=layer.epsilon)
    z = graph.add("Reshape", z, graph.constant("ungrouped", [0, x.shape[-1], *x.shape[:-1]]))
    each = (-1, *(1 for _ in x.shape[:-1]))  # a number for each channel, the first axis after the batch's
    if layer.scale:
        z = graph.add("Mul", z, graph.constant("w", layer.w.reshape(each)))
    return graph.add("Add", z, graph.constant("b", layer.b.reshape(each))) if layer.bias else z


def _rms_norm(graph: Graph, layer: Any, x: Value) -> Value:
    x = graph.channels_last(x)
    epsilon = np.finfo(layer.dtype).eps if layer.epsilon is None else layer.epsilon
    mean = graph.add("ReduceMean", graph.add("Mul", x, x), graph.constant("axes", [-1]))
    root = graph.add("Sqrt", graph.add("Add", mean, graph.constant("epsilon", layer.dtype.type(epsilon))))
    z = graph.add("Div", x, root)
    return graph.add("Mul", z, graph.constant("w", layer.w)) if layer.scale else z


# Convolution and pooling -------------------------------------------------------------------------------------


def _windows(layer: Any, x: Value) -> dict[str, Any]:
    """How the windows lie, as attributes that the convolutions and poolings share."""
    axes = layer._axes_on(x.shape)[: layer.axes]
    after = [axis.reach + axis.offset - axis.size for axis in axes]  # below 0: there are places that no window covers
    return {
        "kernel_shape": [axis.taps for axis in axes],
        "strides": [axis.stride for axis in axes],
        "pads": [*(-axis.offset for axis in axes), *(max(places, 0) for places in after)],
    }


def _convolution(graph: Graph, layer: Any, x: Value, w: Array, op: str = "Conv", **attributes: Any) -> Value:
    """w (kh, kw, C, F) is stored as (F, C, kh, kw)."""
    w = w.transpose(w.ndim - 1, w.ndim - 2, *range(w.ndim - 2))
    names = [graph.constant("w", w)] + ([graph.constant("b", layer.b)] if layer.bias else [])
    attributes |= _windows(layer, x) | {"dilations": list(layer._dilation[: layer.axes])}
    return graph.add(op, graph.channels_first(x), *names, **attributes)


def _conv(graph: Graph, layer: Any, x: Value) -> Value:
    return _convolution(graph, layer, x, layer.w, group=layer.groups)


def _depthwise(graph: Graph, layer: Any, x: Value) -> Value:
    return _convolution(graph, layer, x, layer._taps(layer.w), group=x.shape[-1])


def _conv_transpose(graph: Graph, layer: Any, x: Value) -> Value:
    beyond = [max(axis.size - axis.reach - axis.offset, 0) for axis in layer._axes_on(x.shape)]
    return _convolution(graph, layer, x, layer.w, "ConvTranspose", output_padding=beyond)


def _max_pool(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.add("MaxPool", graph.channels_first(x), **_windows(layer, x))


def _average_pool(graph: Graph, layer: Any, x: Value) -> Value:
    counted = {"count_include_pad": 1} if layer.count_padding else {}
    return graph.add("AveragePool", graph.channels_first(x), **_windows(layer, x), **counted)


def _global_pool(op: str) -> Exporter:
    def exporter(graph: Graph, layer: Any, x: Value) -> Value:
        places = [axis + x.first for axis in range(1, len(x.shape))]
        return graph.add(op, x, graph.constant("axes", places), keepdims=0)._replace(first=False)

    return exporter


def _zero_pad(graph: Graph, layer: Any, x: Value) -> Value:
    (top, bottom), (left, right) = layer._sides
    return graph.add("Pad", graph.channels_first(x), graph.constant("pads", [0, 0, top, left, 0, 0, bottom, right]))


def _up_sample(graph: Graph, layer: Any, x: Value) -> Value:
    scales = graph.constant("scales", np.array([1, 1, *layer._factors], np.float32))
    nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return graph.add("Resize", graph.channels_first(x), "", scales, **nearest)


# Shape and containers ----------------------------------------------------------------------------------------


def _flatten(graph: Graph, layer: Any, x: Value) -> Value:
    return x if len(x.shape) == 1 else graph.add("Flatten", graph.channels_last(x), axis=1)


def _reshape(graph: Graph, layer: Any, x: Value) -> Value:
    shape = graph.constant("shape", [0, *layer.output_shape(x.shape)])  # 0: as many as there are
    return graph.add("Reshape", graph.channels_last(x), shape)


def _chain(graph: Graph, layer: Any, x: Value) -> Value:
    for each in layer.layers:
        x = graph.layer(each, x)
    return x


def _residual(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.add("Add", *graph.together([x, _chain(graph, layer, x)]))


def _parallel(graph: Graph, layer: Any, x: Value) -> Value:
    outputs = graph.together([graph.layer(branch, x) for branch in layer.branches])
    return graph.add("Sum", *outputs) if layer.join == "add" else graph.add("Concat", *outputs, axis=outputs[0].axis)


# By the name of the class: those that take code, and then those whose class says all there is to say.
EXPORTERS: dict[str, Exporter] = {
    "Linear": _linear,
    "Embedding": _embedding,
    "PReLU": _prelu,
    "SiLU": _silu,
    "Softplus": _softplus,
    "HardTanh": _clip,
    "ReLU6": _clip,
    "Softmax": _softmax("Softmax"),
    "LogSoftmax": _softmax("LogSoftmax"),
    "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "GroupNorm": _group_norm,
    "RMSNorm": _rms_norm,
    "Conv1D": _conv,
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "ConvTranspose2D": _conv_transpose,
    "MaxPool1D": _max_pool,
    "MaxPool2D": _max_pool,
    "AveragePool1D": _average_pool,
    "AveragePool2D": _average_pool,
    "GlobalAveragePool1D": _global_pool("ReduceMean"),
    "GlobalAveragePool2D": _global_pool("ReduceMean"),
    "GlobalMaxPool1D": _global_pool("ReduceMax"),
    "GlobalMaxPool2D": _global_pool("ReduceMax"),
    "ZeroPad2D": _zero_pad,
    "UpSample2D": _up_sample,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Chain": _chain,
    "Model": _chain,
    "Residual": _residual,
    "Parallel": _parallel,
}
for _name in layers.__all__:
    if getattr(layers, _name).training_only:
        EXPORTERS[_name] = _same
    elif vars(getattr(layers, _name)).get("onnx"):
        EXPORTERS[_name] = _one_operation(getattr(layers, _name).onnx)


# The file ----------------------------------------------------------------------------------------------------


def to_onnx(
    net: layers.Model,
    path: str | os.PathLike[str],
    input_shape: Sequence[int] | None = None,
    custom: Mapping[str, Exporter] | None = None,
) -> None:
    """Write the net as it is in `predict`, frozen or not, as an ONNX file (opset 20) in the net's own dtype.

    onnxruntime runs few layers in float64: to_onnx(net.copy(dtype="float32"), ...).

    "input" has shape (batch, *input_shape), int64 where the net takes integers, "output" (batch, ...). input_shape, as
    of `net.build`, may be left out if the net is built; one that is not stays so. The arrays have the names of
    `net.save`, "layers.0.w"; those of convolutions lie as in PyTorch. `custom` exports layers of one's own by the name
    of the class, those of a Lambda by that of the function; x and the value have the channels last:

        def scale(graph, layer, x):
            return graph.add("Mul", x, graph.constant("w", layer.w))

        to_onnx(net, "net.onnx", custom={"Scale": scale})    # or one of ours, {"Block": export.EXPORTERS["Residual"]}

    ValueError for a layer that can't be exported, a net without a shape, a stack; what was at `path` then stays.
    """
    path = Path(path)
    if not isinstance(net, layers.Model):
        hint = "give its net_" if hasattr(net, "net_") else "a layer alone is Model([layer])"
        raise TypeError(f"to_onnx takes a Model, got {net!r}: {hint}.")
    if path.suffix != ".onnx":
        raise ValueError(f"a net is exported as .onnx, got {str(path)!r}.")
    if net.copies is not None:
        raise ValueError(f"a stack of {net.copies} nets can't be one ONNX file: export one, to_onnx(net.copy(0), ...).")
    if input_shape is None and net.input_shape is None:
        raise ValueError("the net has no weights yet: give input_shape, such as (784,), or train it first.")
    if input_shape is None:
        shape = net.input_shape
    else:
        net = net if net.input_shape is not None else net.copy()
        net.build(input_shape)
        shape = tuple(input_shape)
    assert shape is not None
    graph = Graph(net, serialize.named(custom))
    helper, types = graph.onnx.helper, graph.onnx.TensorProto
    given = Value("input", shape)
    y = graph.channels_last(_chain(graph, net, given))
    if graph.nodes and graph.nodes[-1].output[0] == y.name:  # so nothing else reads it
        graph.nodes[-1].output[0] = "output"
    else:
        graph.nodes.append(helper.make_node("Identity", [y.name], ["output"], "output"))
    number = helper.np_dtype_to_tensor_dtype(net.dtype)
    kinds = types.INT64 if net.integer_input else number, number
    ends = [
        helper.make_tensor_value_info(name, kind, ["batch", *sizes])
        for name, kind, sizes in zip(("input", "output"), kinds, (shape, y.shape), strict=True)
    ]
    created = helper.make_model(
        helper.make_graph(graph.nodes, net.name or "net", ends[:1], ends[1:], list(graph.constants.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="layerwise",
    )
    graph.onnx.checker.check_model(created, full_check=True)
    with files.replaced(path) as file:
        file.write(created.SerializeToString())


__all__ = ["EXPORTERS", "IR_VERSION", "OPSET", "Graph", "Value", "to_onnx"]
