"""Make interchange.npz: nets of PyTorch and Keras with their weights, a batch, and what they predict of it.

    pip install torch==2.13.0 keras jax numpy
    KERAS_BACKEND=jax JAX_ENABLE_X64=1 python tests/reference/make_interchange.py

All in float64, weights and running statistics drawn at random. "about" is a JSON: for every net its layers, each with
its class and its public arguments, from which tests/test_interchange.py makes stand-ins. "NET/x" and "NET/y" are in
the library's own layout; "NET/PLACE/NAME" are the arrays of the layer in that place.
"""

import json
from pathlib import Path

import keras
import numpy as np
import torch
from keras import layers as kl
from keras.src.backend.common import dtypes
from torch import nn

N = 4

TORCH = {
    "torch dense": ((5,), lambda: [
        nn.Linear(5, 6), nn.BatchNorm1d(6, momentum=0.2), nn.LeakyReLU(0.1), nn.Dropout(0.4),
        nn.Sequential(nn.Linear(6, 4, bias=False), nn.ELU(0.7)), nn.LayerNorm(4, eps=1e-3), nn.RMSNorm(4, eps=1e-4),
        nn.Linear(4, 3), nn.Softmax(dim=1),
    ]),
    "torch images": ((3, 8, 7), lambda: [
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=1, groups=2), nn.PReLU(), nn.Flatten(), nn.BatchNorm1d(48),
        nn.Dropout(0.5), nn.LayerNorm(48), nn.Linear(48, 5), nn.GELU(approximate="tanh"), nn.Linear(5, 3),
        nn.LogSoftmax(1),
    ]),
    "torch windows": ((3, 6, 5), lambda: [
        nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(3, 6, 3, groups=3, dilation=2, padding="same"), nn.GroupNorm(2, 6),
        nn.SiLU(),
        nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2), nn.Dropout2d(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ]),
    "torch sequences": ((4, 9), lambda: [
        nn.Conv1d(4, 5, 3, padding="same"), nn.BatchNorm1d(5), nn.Tanh(), nn.MaxPool1d(3), nn.Flatten(),
        nn.Linear(15, 2),
    ]),
    "torch words": ((6,), lambda: [
        nn.Embedding(11, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.GELU(), nn.Softmax(dim=-1), nn.Flatten(),
        nn.Linear(18, 2),
    ]),
    "torch activations": ((5,), lambda: [
        nn.Linear(5, 5), nn.Sigmoid(), nn.Linear(5, 5), nn.SELU(), nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 5),
        nn.Softsign(), nn.Linear(5, 5), nn.Mish(), nn.Linear(5, 5), nn.Hardsigmoid(), nn.Linear(5, 5), nn.Hardswish(),
    ]),
    "torch more windows": ((3, 6, 5), lambda: [
        nn.AvgPool2d(3, stride=1, padding=1), nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, stride=3, output_padding=(2, 0)), nn.Flatten(), nn.Linear(2146, 3),
    ]),
    "torch whole norms": ((3, 6, 5), lambda: [
        nn.LayerNorm((3, 6, 5)), nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 4, 3)), nn.Flatten(), nn.Linear(48, 5),
    ]),
    "torch words and norms": ((6,), lambda: [
        nn.Embedding(11, 4), nn.LayerNorm((6, 4)), nn.Linear(4, 3), nn.Flatten(), nn.Linear(18, 2),
    ]),
    "torch plain norms": ((3, 6, 5), lambda: [
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4, affine=False),
        nn.Flatten(), nn.Linear(48, 5), nn.LayerNorm(5, elementwise_affine=False), nn.Linear(5, 5),
        nn.LayerNorm(5, bias=False), nn.Linear(5, 5), nn.RMSNorm(5, eps=1e-4, elementwise_affine=False),
    ]),
    "torch bent": ((3, 6, 5), lambda: [
        nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.Flatten(), nn.PReLU(48), nn.Linear(48, 5),
        nn.Hardtanh(-0.3, 0.7), nn.Linear(5, 5), nn.Softplus(beta=2.0), nn.Linear(5, 3), nn.PReLU(3),
    ]),
}

KERAS = {
    "keras dense": ((5,), lambda: [
        kl.Dense(6), kl.BatchNormalization(momentum=0.8), kl.LeakyReLU(negative_slope=0.1), kl.Dropout(0.4),
        keras.Sequential([kl.Dense(4, use_bias=False, activation="elu")]), kl.LayerNormalization(),
        kl.RMSNormalization(epsilon=1e-4), kl.PReLU(shared_axes=[1]), kl.Dense(3, activation="softmax"),
    ]),
    "keras images": ((8, 7, 3), lambda: [
        kl.Conv2D(4, 3, padding="same", strides=2, activation="relu"), kl.BatchNormalization(), kl.MaxPooling2D(2),
        kl.Conv2D(6, (2, 1), groups=2), kl.PReLU(shared_axes=[1, 2, 3]), kl.Flatten(), kl.BatchNormalization(),
        kl.Dense(5, activation="gelu"), kl.Dense(3), kl.Softmax(),
    ]),
    "keras windows": ((6, 5, 3), lambda: [
        kl.ZeroPadding2D(((0, 1), (1, 2))), kl.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        kl.GroupNormalization(2), kl.Activation("silu"), kl.AveragePooling2D(2, strides=1, padding="same"),
        kl.Conv2DTranspose(4, 3, strides=2, padding="same"), kl.Conv2DTranspose(4, 3, strides=2),
        kl.UpSampling2D(2), kl.SpatialDropout2D(0.2), kl.GlobalAveragePooling2D(), kl.Dense(2),
    ]),
    "keras sequences": ((9, 4), lambda: [
        kl.Conv1D(5, 3, padding="same", activation="tanh"), kl.BatchNormalization(), kl.MaxPooling1D(3), kl.Flatten(),
        kl.Dense(2),
    ]),
    "keras words": ((6,), lambda: [
        kl.Embedding(11, 4), kl.Dense(3, activation="log_softmax"), kl.LayerNormalization(epsilon=1e-5),
        kl.GlobalMaxPooling1D(), kl.Dense(2),
    ]),
    "keras activations": ((5,), lambda: [
        kl.Dense(5, activation=name) for name in (
            "sigmoid", "selu", "softplus", "softsign", "mish", "hard_sigmoid", "hard_silu", "leaky_relu", "silu", "elu",
        )
    ]),
    "keras more windows": ((9, 4), lambda: [
        kl.Conv1D(5, 3, padding="causal", dilation_rate=2), kl.Conv1D(4, 2, padding="causal", strides=2),
        kl.Flatten(), kl.Dense(2),
    ]),
    "keras more images": ((4, 5, 3), lambda: [
        kl.Conv2DTranspose(4, 3, strides=2, output_padding=1),
        kl.Conv2DTranspose(2, 2, strides=3, output_padding=(1, 0)), kl.Conv2DTranspose(2, 2, strides=3),
        kl.GlobalAveragePooling2D(), kl.Dense(2),
    ]),
    "keras whole norms": ((6, 5, 3), lambda: [
        kl.LayerNormalization(axis=[1, 2, 3]), kl.Conv2D(4, 3), kl.LayerNormalization(axis=[-2, -1]), kl.Flatten(),
        kl.Dense(5),
    ]),
    "keras plain norms": ((6, 5, 3), lambda: [
        kl.Conv2D(4, 3), kl.BatchNormalization(scale=False), kl.Conv2D(4, 1),
        kl.GroupNormalization(2, center=False, scale=False), kl.Flatten(), kl.Dense(5),
        kl.LayerNormalization(center=False), kl.Dense(5), kl.BatchNormalization(center=False),
    ]),
    "keras bent": ((6, 5, 3), lambda: [
        kl.Conv2D(4, 3, activation="relu6"), kl.PReLU(shared_axes=[1, 2]), kl.Conv2D(4, 1), kl.ReLU(max_value=6),
        kl.Flatten(), kl.PReLU(), kl.Dense(5, activation="hard_tanh"), kl.Dense(3), kl.PReLU(),
    ]),
}

# What Keras's layers have as arguments that matter.
ASKED = (
    "kernel_size", "pool_size", "strides", "padding", "dilation_rate", "groups", "data_format", "axis", "epsilon",
    "momentum", "negative_slope", "alpha", "keepdims", "interpolation", "size", "max_value", "threshold",
    "output_padding", "rms_scaling", "scale", "center",
)


def batch(rng, name, shape):
    return rng.integers(0, 11, (N, *shape)) if "words" in name else rng.normal(size=(N, *shape))


def drawn(rng, shape, positive):
    return rng.uniform(0.5, 1.5, shape) if positive else rng.normal(size=shape) / 2


def torch_about(module, arrays, prefix):
    if isinstance(module, nn.Sequential):
        members = [torch_about(each, arrays, f"{prefix}.{k}") for k, each in enumerate(module)]
        return {"class": "Sequential", "layers": members}
    told = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    names = list(module.state_dict())
    arrays |= {f"{prefix}/{name}": tensor.numpy() for name, tensor in module.state_dict().items()}
    return {"class": type(module).__name__, "told": told, "arrays": names}


def keras_about(layer, arrays, prefix):
    if isinstance(layer, keras.Sequential):
        members = [keras_about(each, arrays, f"{prefix}.{k}") for k, each in enumerate(layer.layers)]
        return {"class": "Sequential", "layers": members}
    plain = (str, int, float, tuple, list, type(None))
    told = {name: getattr(layer, name) for name in ASKED if isinstance(getattr(layer, name, ...), plain)}
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    weights = layer.get_weights() if type(layer).__name__ not in ("Dropout", "SpatialDropout2D") else []
    arrays |= {f"{prefix}/{place}": value for place, value in enumerate(weights)}
    names = [str(place) for place in range(len(weights))]
    return {"class": type(layer).__name__, "told": told, "activation": activation, "arrays": names}


def make_torch(name):
    shape, members = TORCH[name]
    rng = np.random.default_rng(len(name))
    net = nn.Sequential(*members()).double().eval()
    for key, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(drawn(rng, tuple(tensor.shape), "running_var" in key)))
    return net, batch(rng, name, shape)


def make_keras(name):
    shape, members = KERAS[name]
    rng = np.random.default_rng(len(name))
    net = keras.Sequential([keras.Input(shape, dtype="int32" if "words" in name else None), *members()])
    for weight in net.weights:
        if "seed" not in weight.path:
            weight.assign(drawn(rng, weight.shape, "variance" in weight.path))
    return net, batch(rng, name, shape)


def torch_predicts(net, x):
    with torch.no_grad():
        return net(torch.from_numpy(x)).numpy()


def keras_predicts(net, x):
    return keras.ops.convert_to_numpy(net(x, training=False))


def make():
    arrays, about = {}, {}
    for name in TORCH:
        net, x = make_torch(name)
        about[name] = torch_about(net, arrays, name)
        arrays |= {f"{name}/x": x, f"{name}/y": torch_predicts(net, x)}
    for name in KERAS:
        net, x = make_keras(name)
        about[name] = keras_about(net, arrays, name)
        arrays |= {f"{name}/x": x, f"{name}/y": keras_predicts(net, x)}
    about["versions"] = {"torch": torch.__version__, "keras": keras.__version__, "numpy": np.__version__}
    path = Path(__file__).with_name("interchange.npz")
    np.savez_compressed(path, about=json.dumps(about), **arrays)


keras.config.set_floatx("float64")
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # else several layers of Keras compute in float32 all the same
if __name__ == "__main__":
    make()
