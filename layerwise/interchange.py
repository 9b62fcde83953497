"""Weights from and to PyTorch's nn.Sequential and Keras's Sequential, for the layers that both sides have.

    from_torch(net, sequential)    to_torch(net, sequential)
    from_keras(net, sequential)    to_keras(net, sequential)

Both nets exist and are built; a Sequential may hold others, and so may a Model. The two are compared layer by layer,
and everything is checked before anything is copied: the kinds of the layers, the shapes, and all arguments that change
a result (epsilon, momentum, slopes, windows). Afterwards both predict the same. Layers that act in training only
(dropout, noise) may stand on one side only. What a layer is called there, its class declares: `torch` and `keras`.

Here and in Keras the channels are the last axis, in PyTorch the first: images and sequences are to be turned by the
caller, x.transpose(0, 3, 1, 2). Weights are turned here, also those of a Linear after a Flatten, whose inputs PyTorch
counts channel by channel. Neither library is imported: the nets are asked for their weights.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from layerwise import layers as _layers, model as _model
from layerwise.core import habits, lazy
from layerwise.training import data as _data

Array = np.ndarray


# Layers of theirs that change no prediction.
IDLE = {"Dropout", "GaussianNoise", "SpatialDropout", "Identity", "GaussianDropout", "AlphaDropout"}
IDLE |= {f"{name}{axes}" for name in ("Dropout", "SpatialDropout") for axes in ("1d", "2d", "1D", "2D")}

# What must have one of these values on the other side, where that has it as an argument.
AS_HERE: dict[str, dict[str, tuple[Any, ...]]] = {
    "torch": {
        "padding_mode": ("zeros",),
        "ceil_mode": (False,),
        "return_indices": (False,),
        "divisor_override": (None,),
        "start_dim": (1,),
        "end_dim": (-1,),
        "max_norm": (None,),
        "mode": ("nearest",),
        "output_size": (1, (1,), (1, 1)),
    },
    "keras": {
        "data_format": ("channels_last",),
        "keepdims": (False,),
        "interpolation": ("nearest",),
        "mask_zero": (False,),
        "max_value": (None, 6),
        "threshold": (0,),
    },
}

_TORCH_NAMES = {"w": "weight", "b": "bias", "running_mean": "running_mean", "running_variance": "running_var"}


def from_torch(net: _model.Model, sequential: Any) -> None:
    """Copy the weights and running statistics of a PyTorch nn.Sequential into the net.

    ValueError, before anything is copied, for layers that differ or have no counterpart, and for numbers not finite.
    """
    # float64 holds every number of every other dtype, and NumPy has no bfloat16.
    found = _torch_arrays(net, sequential)
    _copy_here([(name, ours, tensor.detach().cpu().double().numpy()) for name, ours, tensor in found])


def to_torch(net: _model.Model, sequential: Any) -> None:
    """The reverse: copy the weights and running statistics of the net into a PyTorch nn.Sequential."""
    for _, ours, tensor in _torch_arrays(net, sequential):
        values = np.ascontiguousarray(ours).reshape(tuple(tensor.shape))
        tensor.copy_(tensor.new_tensor(values))  # a state_dict shares its memory with the module


def from_keras(net: _model.Model, sequential: Any) -> None:
    """Copy the weights and running statistics of a built Keras Sequential into the net.

    ValueError, before anything is copied, for layers that differ or have no counterpart. Our momentum is 1 - Keras's.
    Both then predict the same; in training Keras's running variance is moved by that of the batch without n / (n - 1).
    """
    _copy_here([pair for _, pairs in _keras_arrays(net, sequential) for pair in pairs])


def to_keras(net: _model.Model, sequential: Any) -> None:
    """The reverse: copy the weights and running statistics of the net into a built Keras Sequential."""
    for layer, pairs in _keras_arrays(net, sequential):
        layer.set_weights([ours.reshape(theirs.shape) for _, ours, theirs in pairs])


def _copy_here(found: list[tuple[str, Array, Array]]) -> None:
    for name, ours, theirs in found:
        if not _data.is_finite(theirs, ours.dtype):
            raise ValueError(f"{name}: there it holds what is not finite in {ours.dtype}; nothing was copied.")
    with np.errstate(all="ignore"):
        for _, ours, theirs in found:
            ours[...] = theirs.reshape(ours.shape)


# Layer by layer ----------------------------------------------------------------------------------------------

Pair = tuple[_layers.Layer, Any]


def _leaves(chain: Any) -> Iterator[_layers.Layer]:
    for layer in chain.layers:
        if isinstance(layer, (_model.Model, _layers.Chain)) and type(layer).forward is _layers.Chain.forward:
            yield from _leaves(layer)
        else:
            yield layer


def _counterpart(layer: Any, side: str) -> tuple[str, dict[str, str]]:
    """What the layer's own class declares; what is derived from one of ours may be something else."""
    return habits.counterpart(vars(type(layer)).get(side, ""))


def _plain(name: str) -> str:
    """A name without its spelling: in Keras an activation is both a layer LeakyReLU and a function leaky_relu."""
    return name.replace("_", "").lower()


def _paired(net: Any, others: Iterator[tuple[str, Any]], side: str) -> list[Pair]:
    """Our layers beside the others, (name, layer), of the same kinds and with equal arguments."""
    if not isinstance(net, _model.Model):
        raise TypeError(f"the first argument is the Model of ours, got {type(net).__name__}.")
    if net.input_shape is None:
        raise ValueError("the net has no weights yet: call build(input_shape), such as build((784,)).")
    if net.copies is not None:
        raise ValueError("the net is a stack of copies: net.copy(s) is the one of them to copy from or to.")
    ours = [layer for layer in _leaves(net) if not layer.training_only]
    ours = [layer for layer in ours if not (isinstance(layer, _layers.Flatten) and len(layer.input_shape or ()) == 1)]
    theirs = [(name, layer) for name, layer in others if name not in IDLE]
    names = [_counterpart(layer, side)[0] for layer in ours]
    if "" in names:
        raise ValueError(f"{ours[names.index('')].label} has no counterpart in {_TITLES[side]}.")
    if [*map(_plain, names)] != [_plain(name) for name, _ in theirs]:
        raise ValueError(
            f"the layers differ: here {[type(layer).__name__ for layer in ours]}, which are {names} in "
            f"{_TITLES[side]}, and there {[name for name, _ in theirs]}."
        )
    pairs = list(zip(ours, (layer for _, layer in theirs), strict=True))
    for layer, other in pairs:
        _check_equal(layer, other, side)
    return pairs


def _check_equal(layer: Any, other: Any, side: str) -> None:
    """ValueError unless all arguments that change a result are the same."""
    for name, here, there in (*_arguments(layer, other, side), *_windows(layer, other, side)):
        both = isinstance(here, (int, float)) and isinstance(there, (int, float))
        if not (math.isclose(here, there, rel_tol=1e-6) if both else here == there):
            raise ValueError(f"{layer.label}: {name} is {here!r} here and {there!r} in {_TITLES[side]}.")
    for name in AS_HERE[side].keys() - _counterpart(layer, side)[1]:  # what the layer has as an argument was compared
        values = AS_HERE[side][name]
        if hasattr(other, name) and getattr(other, name) not in values:
            raise ValueError(
                f"{layer.label}: in {_TITLES[side]} {name} is {getattr(other, name)!r}, and here only {values[0]!r} is."
            )


def _arguments(layer: Any, other: Any, side: str) -> Iterator[tuple[str, Any, Any]]:
    kind = type(layer).__name__
    given = _counterpart(layer, side)[1]
    for theirs, name in given.items():
        there = getattr(other, theirs)
        if (side, name) == ("keras", "momentum"):
            there = 1 - there
        elif name == "approximate":
            there = None if there in ("none", False) else there
        yield name, getattr(layer, name), there
    if isinstance(layer, _layers.Nonlinearity) and not layer.parameters:
        for name in layer.config().keys() - {"name", *given.values()}:  # what they do not have is as it is by default
            yield name, getattr(layer, name), inspect.signature(type(layer)).parameters[name].default
    if side == "keras":
        last = len(layer.input_shape)
        axis = getattr(other, "axis", -1)
        axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
        if kind == "LayerNorm" and layer.axes > 1:
            there = sorted(each % -(last + 1) for each in _several(axis, 1))
            yield "axis", list(range(-layer.axes, 0)), there
        else:
            yield "axis", -1, -1 if axis == last else axis
        if kind in ("ReLU", "ReLU6"):
            yield "negative_slope", 0, getattr(other, "negative_slope", 0)
        if kind in ("BatchNorm", "LayerNorm", "GroupNorm"):  # a w alone has the shape of a b alone
            yield "scale", layer.scale, other.scale
            yield "bias", layer.bias, other.center
        if kind == "LayerNorm":
            yield "rms_scaling", False, bool(getattr(other, "rms_scaling", False))
    if kind == "LayerNorm" and side == "torch":
        here, there = layer.input_shape[-layer.axes :], tuple(other.normalized_shape)
        # Over all axes, PyTorch may have the channels first: the same numbers are normalised together.
        turned = _whole(layer) and there == (here[-1], *here[:-1])
        yield "normalized_shape", here, here if turned else there
    if kind == "UpSample2D":
        factor = other.scale_factor if side == "torch" else other.size
        yield "factor", layer._factors, tuple(_several(factor, 2))
    if kind == "ZeroPad2D":
        sides = other.padding
        if side == "torch":
            left, right, top, bottom = _several(sides, 4)
            sides = ((top, bottom), (left, right))
        yield "padding", layer._sides, tuple(map(tuple, sides))


def _whole(layer: Any) -> bool:
    """Whether it is a LayerNorm over all axes of several: it does not matter where the channels are."""
    return type(layer).__name__ == "LayerNorm" and 1 < layer.axes == len(layer.input_shape)


def _several(value: Any, count: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * count


def _windows(layer: Any, other: Any, side: str) -> Iterator[tuple[str, Any, Any]]:
    """Size, stride, dilation and padding of a convolution or pooling, as they lie on the inputs that the net has."""
    if not hasattr(layer, "_axes_on"):
        return
    n, kind = layer.axes, type(layer).__name__
    if not hasattr(layer, "_size"):
        return
    rows = layer._axes_on(layer.input_shape)[:n]
    transposed = kind == "ConvTranspose2D"

    def theirs(*names: str) -> tuple[Any, ...]:
        found = next((getattr(other, name) for name in names if getattr(other, name, None) is not None), 1)
        return _several(found, n)

    taps, strides = theirs("kernel_size", "pool_size"), theirs("stride", "strides")
    steps = theirs("dilation", "dilation_rate")
    yield "size", tuple(row.taps for row in rows), taps
    yield "stride", tuple(row.stride for row in rows), strides
    yield "dilation", tuple(row.step for row in rows), steps
    if hasattr(other, "groups"):
        yield (
            "groups",
            layer.input_shape[-1] if kind == "DepthwiseConv2D" else getattr(layer, "groups", 1),
            other.groups,
        )
    spans = [(k - 1) * d + 1 for k, d in zip(taps, steps, strict=True)]
    sizes, outputs = [row.size for row in rows], [row.outputs for row in rows]
    if transposed:
        sizes, outputs = outputs, sizes
    if side == "keras":
        here = layer._padding if isinstance(layer._padding, str) or any(layer._padding[:n]) else "valid"
        yield "padding", here, other.padding
        if kind.startswith("Average") and here != "valid":
            yield "count_padding", layer.count_padding, False
        if transposed:
            more = _several(other.output_padding, n)
            if here != "valid":
                yield "output_padding", (None,) * n, more
            else:  # None: as many as the stride leaves over
                extra = [max(s - k, 0) if m is None else m for m, s, k in zip(more, strides, spans, strict=True)]
                wide = [(size - 1) * s + k + m for size, s, k, m in zip(sizes, strides, spans, extra, strict=True)]
                yield "the size of the output", outputs, wide
        return
    pads = _several(0 if other.padding == "valid" else other.padding, n)
    if other.padding == "same":  # of stride 1 only
        pads = tuple((k - 1) // 2 for k in spans)
        there = sizes
    elif transposed:
        more = _several(other.output_padding, n)
        each = zip(sizes, strides, pads, spans, more, strict=True)
        there = [(size - 1) * s - 2 * p + k + m for size, s, p, k, m in each]
    else:
        there = [(size + 2 * p - k) // s + 1 for size, p, k, s in zip(sizes, pads, spans, strides, strict=True)]
    yield "padding before", tuple(-row.offset for row in rows), pads
    yield "the size of the output", outputs, there
    if kind.startswith("Average") and any(pads):
        yield "count_include_pad", layer.count_padding, other.count_include_pad


def _is_chain(module: Any, method: str) -> bool:
    """Whether it is a Sequential of theirs, or of a class of one's own that leaves `method`, its pass, as it is."""
    kind = next((each for each in reversed(type(module).__mro__) if each.__name__ == "Sequential"), None)
    return kind is not None and getattr(type(module), method, None) is getattr(kind, method, None)


_TITLES = {"torch": "PyTorch", "keras": "Keras"}


# PyTorch -----------------------------------------------------------------------------------------------------


def _torch_layers(sequential: Any) -> Iterator[tuple[str, Any]]:
    if not _is_chain(sequential, "forward"):
        raise TypeError(f"the second argument is an nn.Sequential, got {type(sequential).__name__}.")
    pooled = False
    for module in _within(sequential):
        name = type(module).__name__
        if not (name == "Flatten" and pooled):  # a global pooling of ours has no axes left to flatten
            yield "BatchNorm" if name in ("BatchNorm1d", "BatchNorm2d") else name, module
        pooled = pooled or name.startswith("Adaptive")


def _within(sequential: Any) -> Iterator[Any]:
    """Its modules, and in the place of a Sequential those within it."""
    for module in sequential:
        if _is_chain(module, "forward"):
            yield from _within(module)
        else:
            yield module


def _torch_arrays(net: Any, sequential: Any) -> list[tuple[str, Array, Any]]:
    """(name, array of ours, turned as PyTorch has it; tensor) for all weights and statistics, checked."""
    found: list[tuple[str, Array, Any]] = []
    first: bool | None = None  # whether PyTorch has the channels first here, once a layer decides it
    flat = None  # the shape that was flattened, while the features are in another order there
    pairs = _paired(net, _torch_layers(sequential), "torch")
    for layer, module in pairs:
        kind, shape = type(layer).__name__, layer.input_shape or ()
        if len(shape) > 1 and kind in _DECIDE and getattr(layer, "per_channel", True) and not _whole(layer):
            if first not in (None, _DECIDE[kind]):
                raise ValueError(f"{layer.label} works on the channels here, and in PyTorch they are on another axis.")
            first = _DECIDE[kind]
        if kind == "Embedding":
            first = False
        if kind in ("Softmax", "LogSoftmax"):
            there = 1 if module.dim is None or (first and len(shape) > 1) else len(shape)
            if (there if module.dim is None else module.dim % (len(shape) + 1)) != there:
                raise ValueError(f"{layer.label}: dim is {module.dim} in PyTorch, and the classes are on axis {there}.")
        turned = first if first is not None else len(shape) == 3  # images, unless a layer said otherwise
        if kind == "Flatten":
            flat = shape if turned and 1 not in (shape[-1], math.prod(shape[:-1])) else None
        if flat is not None and kind == "GroupNorm":
            raise ValueError(f"{layer.label} groups the features, which are in another order in PyTorch after Flatten.")
        tensors = module.state_dict()
        tensors.pop("num_batches_tracked", None)
        arrays = {_TORCH_NAMES[name]: (name, array) for name, array in (layer.parameters | layer.buffers).items()}
        if arrays.keys() != tensors.keys():
            raise ValueError(
                f"{layer.label} has {sorted(arrays)} here, as PyTorch calls them, and {sorted(tensors)} there."
            )
        for key, (name, array) in arrays.items():
            stays = array.ndim > 1 and kind == "LayerNorm" and not (turned and _whole(layer))
            view = array if stays else _turned(kind, name, array, flat)
            wanted, given = view.shape, tuple(tensors[key].shape)
            if kind == "Linear" or (kind in _OF_FEATURES and array.ndim == 1):
                wanted = array.shape[::-1]
            if given != wanted:
                raise ValueError(f"{layer.label}.{name} has shape {array.shape}, in PyTorch {wanted}, got {given}.")
            found.append((f"{layer.label}.{name}", view, tensors[key]))
        if kind == "Linear":
            flat = None
    if flat is not None:
        raise ValueError(
            "the net ends with flattened channels, which PyTorch counts in another order: no Linear follows."
        )
    return found


# Whether a layer works on the axis that PyTorch has first, or on its last.
_DECIDE = (
    dict.fromkeys(["Linear", "LayerNorm", "RMSNorm"], False)
    | dict.fromkeys(["BatchNorm", "GroupNorm", "PReLU"], True)
    | dict.fromkeys([name for name, module in lazy.ELSEWHERE["layers"].items() if module == "convolution"], True)
)
_OF_FEATURES = ("BatchNorm", "LayerNorm", "RMSNorm", "PReLU")


def _turned(kind: str, name: str, array: Array, flat: Any) -> Array:
    """A view of one of our arrays with its axes as PyTorch has them: outputs, inputs, then the places of a window, or
    those of the image that was flattened, whose channels count as inputs."""
    if kind == "Embedding" or (kind == "Linear" and name == "b"):
        return array
    if kind == "DepthwiseConv2D" and name == "w":
        array = array.reshape(*array.shape[:2], 1, -1)
    if flat is not None and kind in ("Linear", *_OF_FEATURES) and len(array) > 1:  # else the one slope of a PReLU
        array = array.reshape(*flat, *array.shape[1:])
    ahead = min(1 if kind in _OF_FEATURES else 2, array.ndim)
    last = range(array.ndim - 1, array.ndim - 1 - ahead, -1)
    return array.transpose(*last, *range(array.ndim - ahead))


# Keras -------------------------------------------------------------------------------------------------------


def _keras_layers(sequential: Any) -> Iterator[tuple[str, Any]]:
    """Name and layer, and after each layer its activation as one of its own."""
    if not _is_chain(sequential, "call"):
        raise TypeError(f"the second argument is a Sequential of Keras, got {type(sequential).__name__}.")
    for layer in sequential.layers:
        if _is_chain(layer, "call"):
            yield from _keras_layers(layer)
            continue
        name = type(layer).__name__
        if name not in ("Activation", "InputLayer"):
            yield "relu6" if name == "ReLU" and layer.max_value == 6 else name, layer
        function = getattr(layer, "activation", None)
        name = getattr(function, "__name__", type(function).__name__)
        if hasattr(function, "get_weights"):  # a layer in the place of a function
            yield name, function
        elif function is not None and name != "linear":
            yield name, SimpleNamespace(get_weights=list, **_defaults(function))


def _defaults(function: Any) -> dict[str, Any]:
    """The arguments of an activation given as a function: Keras calls it with x alone."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def _keras_arrays(net: Any, sequential: Any) -> list[tuple[Any, list[tuple[str, Array, Array]]]]:
    """(layer of Keras, [(name, array of ours, its own)]) for all with weights, checked. Axes and order are ours."""
    found = []
    for layer, other in _paired(net, _keras_layers(sequential), "keras"):
        ours = layer.parameters | layer.buffers
        theirs = other.get_weights()
        shapes = [array.shape for array in theirs]
        if type(layer).__name__ == "PReLU" and theirs and theirs[0].size == shapes[0][-1]:
            shapes = [shapes[0][-1:]]  # without the axes that share their slopes
        if [array.shape for array in ours.values()] != shapes:
            raise ValueError(
                f"{layer.label} has { {name: array.shape for name, array in ours.items()} }, and in Keras the shapes "
                f"are {shapes}" + ("." if theirs else ": build it there, by calling it on a batch.")
            )
        if theirs:
            names = [f"{layer.label}.{name}" for name in ours]
            found.append((other, list(zip(names, ours.values(), theirs, strict=True))))
    return found


__all__ = ["from_keras", "from_torch", "to_keras", "to_torch"]
