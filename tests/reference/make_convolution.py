"""Make convolution.npz: forward and backward values of PyTorch for the layers of layerwise/convolution.py.

    pip install torch==2.13.0 keras numpy
    python tests/reference/make_convolution.py

What a case holds is told in make_layers.py, whose helpers this script uses. Images are turned to channels first for
PyTorch and back; padding "same" is written out as Keras has it, the odd one at the end, because PyTorch refuses it for
strides above 1. Convolutions with padding "causal" are Keras's, run on PyTorch. "cut" in a note: what the stride leaves
over at the end is not seen by any window.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_layers import LAYERS, draw, layer, run_layer

os.environ["KERAS_BACKEND"] = "torch"
import keras

N, T, H, W, C = 2, 7, 5, 7, 3


def with_ties(rng, shape):
    """Few values, so that most windows have more than one largest."""
    return rng.integers(-1, 2, shape) / 2


def pair(value, axes):
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * axes


def sides(x, kernel, stride, padding, dilation):
    """F.pad's argument for x (N, C, ...): the last axis first, before and after."""
    axes, told = x.ndim - 2, []
    for size, k, s, d, p in zip(
        x.shape[2:], *(pair(each, axes) for each in (kernel, stride, dilation)), padding_of(padding, axes), strict=True
    ):
        if padding == "same":
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            told = [total // 2, total - total // 2, *told]
        elif padding == "causal":
            told = [(k - 1) * d, 0, *told]
        else:
            told = [p, p, *told]
    return told


def padding_of(padding, axes):
    return (0,) * axes if isinstance(padding, str) else pair(padding, axes)


def channels_first(function):
    return lambda x, case, **arguments: function(x.movedim(-1, 1), case, **arguments).movedim(1, -1)


def conv(axes):
    @channels_first
    def run(x, case, filters, kernel_size, stride=1, padding="valid", dilation=1, groups=1, bias=True):
        w = case.parameter("w", (*pair(kernel_size, axes), x.shape[1] // groups, filters))
        b = case.parameter("b", (filters,)) if bias else None
        if padding == "causal":
            return causal(x.movedim(1, -1), w, b, filters, kernel_size, stride, dilation, groups).movedim(-1, 1)
        x = F.pad(x, sides(x, kernel_size, stride, padding, dilation))
        turned = w.movedim(-1, 0).movedim(-1, 1)
        arguments = {"stride": pair(stride, axes), "dilation": pair(dilation, axes), "groups": groups}
        return (F.conv1d, F.conv2d)[axes - 1](x, turned, b, **arguments)

    return run


def causal(x, w, b, filters, kernel_size, stride=1, dilation=1, groups=1):
    created = keras.layers.Conv1D(
        filters, kernel_size, strides=stride, padding="causal", dilation_rate=dilation, groups=groups,
        use_bias=b is not None, dtype="float64",
    )  # fmt: skip
    created.build(tuple(x.shape))
    return created.stateless_call([w] if b is None else [w, b], [], x)[0]


@channels_first
def depthwise(x, case, kernel_size, stride=1, padding="valid", dilation=1, multiplier=1, bias=True):
    channels = x.shape[1]
    w = case.parameter("w", (*pair(kernel_size, 2), channels, multiplier))
    b = case.parameter("b", (channels * multiplier,)) if bias else None
    x = F.pad(x, sides(x, kernel_size, stride, padding, dilation))
    turned = w.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, *w.shape[:2])
    return F.conv2d(x, turned, b, stride=stride, dilation=dilation, groups=channels)


@channels_first
def conv_transpose(
    x, case, filters, kernel_size, stride=1, padding="valid", dilation=1, bias=True, output_padding=0
):
    w = case.parameter("w", (*pair(kernel_size, 2), filters, x.shape[1]))
    b = case.parameter("b", (filters,)) if bias else None
    turned, strides, steps = w.permute(3, 2, 0, 1), pair(stride, 2), pair(dilation, 2)
    if padding != "same":
        cut = padding_of(padding, 2)
        more = pair(output_padding, 2)
        return F.conv_transpose2d(x, turned, b, stride=strides, padding=cut, output_padding=more, dilation=steps)
    y = F.conv_transpose2d(x, turned, None, stride=strides, dilation=steps)
    for axis, (s, k, d) in enumerate(zip(strides, pair(kernel_size, 2), steps, strict=True), start=2):
        before = max((k - 1) * d + 1 - s, 0) // 2
        missing = before + x.shape[axis] * s - y.shape[axis]
        y = F.pad(y, [0, 0] * (3 - axis) + [0, max(missing, 0)]).narrow(axis, before, x.shape[axis] * s)
    return y + b[:, None, None] if bias else y


def pool(axes, largest):
    @channels_first
    def run(x, case, size=2, stride=None, padding="valid", count_padding=False):
        size, stride = pair(size, axes), pair(stride or size, axes)
        around = sides(x, size, stride, padding, 1)
        if largest:
            return (F.max_pool1d, F.max_pool2d)[axes - 1](F.pad(x, around, value=-torch.inf), size, stride)
        average = (F.avg_pool1d, F.avg_pool2d)[axes - 1]
        if count_padding and not isinstance(padding, str):
            return average(x, size, stride, pair(padding, axes), count_include_pad=True)
        if count_padding:
            return average(F.pad(x, around), size, stride)
        return average(F.pad(x, around), size, stride) / average(F.pad(torch.ones_like(x), around), size, stride)

    return run


def whole(axes, largest):
    kind = "max" if largest else "avg"
    function = getattr(F, f"adaptive_{kind}_pool{axes}d")
    return lambda x, case: function(x.movedim(-1, 1), 1).flatten(1)


def zero_pad(x, case, padding=1):
    (top, bottom), (left, right) = (pair(side, 2) for side in pair(padding, 2))
    return F.pad(x, [0, 0, left, right, top, bottom])


def spatial_dropout(x, case, rate):
    mask = case.keep("mask", case.rng.random((len(x), *(1,) * (x.ndim - 2), x.shape[-1])) >= rate)
    return x * mask / (1 - rate)


LAYERS |= {
    "Conv1D": ("F.conv1d; keras.layers.Conv1D if causal", conv(1)),
    "Conv2D": ("F.conv2d", conv(2)),
    "DepthwiseConv2D": ("F.conv2d, groups = channels", depthwise),
    "ConvTranspose2D": ("F.conv_transpose2d", conv_transpose),
    "MaxPool1D": ("F.max_pool1d", pool(1, True)),
    "MaxPool2D": ("F.max_pool2d", pool(2, True)),
    "AveragePool1D": ("F.avg_pool1d, over that of ones", pool(1, False)),
    "AveragePool2D": ("F.avg_pool2d, over that of ones", pool(2, False)),
    "GlobalAveragePool1D": ("F.adaptive_avg_pool1d", whole(1, False)),
    "GlobalAveragePool2D": ("F.adaptive_avg_pool2d", whole(2, False)),
    "GlobalMaxPool1D": ("F.adaptive_max_pool1d", whole(1, True)),
    "GlobalMaxPool2D": ("F.adaptive_max_pool2d", whole(2, True)),
    "ZeroPad2D": ("F.pad", zero_pad),
    "UpSample2D": (
        "F.interpolate",
        channels_first(lambda x, case, factor=2: F.interpolate(x, scale_factor=pair(factor, 2))),
    ),
    "SpatialDropout": ("formula: x * mask / (1 - rate), a mask for each channel", spatial_dropout),
}


def cases():
    """Rows (id, layer, shape of x, what draws x)."""
    image, sequence = (N, H, W, C), (N, T, C)

    def row(name, case_id, shape, values=draw, **arguments):
        return f"{name}-{case_id}", layer(name, **arguments), shape, values

    for kernel in range(1, 6):
        for stride in (1, 2, 3):
            for padding in ("valid", *(["same"] if kernel > 1 else []), *([1] if kernel > 3 else [])):
                told = {"kernel_size": kernel, "stride": stride, "padding": padding}
                yield row("Conv2D", f"{kernel}-{stride}-{padding}", image, filters=2, **told)
    for case_id, shape, told in [
        ("pairs", image, {"kernel_size": [2, 3], "stride": [3, 1], "padding": [0, 2], "dilation": [1, 2]}),
        ("dilation", image, {"kernel_size": 3, "dilation": 2}),
        ("dilation-same", image, {"kernel_size": 2, "dilation": 2, "padding": "same"}),
        ("dilation-stride", image, {"kernel_size": 3, "dilation": 2, "padding": 2, "stride": 2}),
        ("dilation-stride-3", image, {"kernel_size": 3, "dilation": 2, "padding": "same", "stride": 3}),
        ("dilation-3-stride-2", image, {"kernel_size": 2, "dilation": 3, "padding": "same", "stride": 2}),
        ("groups-2", (N, H, W, 4), {"kernel_size": 3, "groups": 2, "padding": "same"}),
        ("groups-2-of-5", (N, H, W, 10), {"kernel_size": 2, "groups": 2, "stride": 2}),
        ("groups-depthwise", (N, H, W, 2), {"kernel_size": 3, "groups": 2, "stride": 2}),
        ("nobias", image, {"kernel_size": 3, "bias": False}),
        ("one-window", (N, 3, 2, C), {"kernel_size": [3, 2]}),
        ("smaller-than-its-window", (N, 2, 3, C), {"kernel_size": 5, "padding": "same"}),
        ("smaller-than-its-window-2", (N, 2, 3, C), {"kernel_size": 5, "padding": 2, "stride": 2}),
        ("padding-only", (N, 2, 3, C), {"kernel_size": 1, "padding": 2, "stride": 3}),
    ]:
        yield row("Conv2D", case_id, shape, filters=4, **told)
    for case_id, told in [
        ("valid", {"kernel_size": 3}),
        ("same", {"kernel_size": 4, "stride": 2, "padding": "same"}),
        ("padding", {"kernel_size": 3, "padding": 2, "dilation": 2, "stride": 3}),
        ("causal", {"kernel_size": 3, "padding": "causal"}),
        ("causal-stride", {"kernel_size": 2, "padding": "causal", "stride": 3, "bias": False}),
        ("causal-dilation", {"kernel_size": 3, "padding": "causal", "dilation": 4}),
    ]:
        yield row("Conv1D", case_id, sequence, filters=4, **told)
    for case_id, told in [
        ("valid", {"kernel_size": 3}),
        ("same", {"kernel_size": 3, "padding": "same"}),
        ("stride", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("even", {"kernel_size": [2, 4], "padding": "same"}),
        ("stride-3", {"kernel_size": 2, "stride": 3, "bias": False}),
        ("multiplier", {"kernel_size": 3, "multiplier": 2, "padding": "same", "stride": 2}),
        ("dilation", {"kernel_size": 2, "dilation": 2, "multiplier": 2}),
    ]:
        yield row("DepthwiseConv2D", case_id, image, **told)
    for kernel in (2, 3):
        for stride in (1, 2, 3):
            for padding in ("valid", "same", *([1] if kernel > 2 else [])):
                told = {"kernel_size": kernel, "stride": stride, "padding": padding}
                yield row("ConvTranspose2D", f"{kernel}-{stride}-{padding}", (N, 3, 4, C), filters=2, **told)
    told = {"kernel_size": [3, 2], "dilation": [1, 2], "stride": [2, 3], "padding": [1, 0], "bias": False}
    yield row("ConvTranspose2D", "pairs", (N, 3, 4, C), filters=2, **told)
    for case_id, told in [
        ("output-padding", {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}),
        ("output-padding-pair", {"kernel_size": [3, 2], "stride": [3, 1], "output_padding": [2, 0], "bias": False}),
        ("output-padding-gaps", {"kernel_size": 1, "stride": 3, "output_padding": 2}),
        ("output-padding-dilation", {"kernel_size": 2, "dilation": 3, "padding": 1, "output_padding": [2, 1]}),
    ]:
        yield row("ConvTranspose2D", case_id, (N, 3, 4, C), filters=2, **told)
    for case_id, told in [
        ("cut", {}),
        ("3-2", {"size": 3, "stride": 2}),
        ("2-1", {"size": 2, "stride": 1}),
        ("1-2", {"size": 1, "stride": 2}),
        ("same", {"size": 2, "padding": "same"}),
        ("same-3-2", {"size": 3, "stride": 2, "padding": "same"}),
        ("same-4-1", {"size": [4, 3], "stride": 1, "padding": "same"}),
        ("padding", {"size": [2, 3], "stride": [2, 1], "padding": 1}),
    ]:
        yield row("MaxPool2D", case_id, image, **told)
        yield row("MaxPool2D", f"{case_id}-ties", image, with_ties, **told)
        yield row("AveragePool2D", case_id, image, **told)
    for name in ("MaxPool1D", "AveragePool1D"):
        yield row(name, "cut", sequence)
        yield row(name, "same", sequence, size=3, stride=2, padding="same")
        yield row(name, "causal", sequence, size=3, stride=1, padding="causal")
        yield row(name, "causal-stride", sequence, size=2, stride=3, padding="causal")
    for case_id, told in [
        ("counted", {"size": 3, "stride": 2, "padding": 1}),
        ("counted-pair", {"size": [2, 3], "stride": [2, 1], "padding": [1, 0]}),
        ("counted-same", {"size": 3, "stride": 2, "padding": "same"}),
        ("counted-valid", {"size": 2}),
    ]:
        yield row("AveragePool2D", case_id, image, **told, count_padding=True)
    yield row("AveragePool1D", "counted", sequence, size=4, stride=1, padding=2, count_padding=True)
    yield row("AveragePool1D", "counted-causal", sequence, size=3, stride=2, padding="causal", count_padding=True)
    for name in ("GlobalAveragePool", "GlobalMaxPool"):
        yield row(f"{name}1D", "draw", sequence)
        yield row(f"{name}2D", "draw", image)
    yield row("GlobalMaxPool2D", "ties", image, with_ties)
    yield row("ZeroPad2D", "one", image)
    yield row("ZeroPad2D", "sides", image, padding=[[1, 0], [2, 3]])
    yield row("UpSample2D", "2", image)
    yield row("UpSample2D", "pair", image, factor=[1, 3])
    yield row("SpatialDropout", "2d", image, rate=0.4)
    yield row("SpatialDropout", "1d", sequence, rate=0.4)


def main():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # the order of a sum, and so its last bit, depends on the threads
    arrays, about = {}, {"library": "PyTorch", "version": torch.__version__, "keras": keras.__version__}
    about |= {"script": "tests/reference/make_convolution.py", "cases": []}
    for row in cases():
        entry, tensors = run_layer(*row, training=True)
        assert entry["id"] not in [case["id"] for case in about["cases"]], entry["id"]
        about["cases"].append(entry)
        for key, tensor in tensors.items():
            arrays[f"{entry['id']}/{key}"] = np.array(tensor.detach().numpy(), order="C")
    path = Path(__file__).parent / "convolution.npz"
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main()
