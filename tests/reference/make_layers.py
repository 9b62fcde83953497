"""Make layers.npz and losses.npz: forward and backward values of PyTorch for every layer and loss.

    pip install torch==2.13.0 numpy
    python tests/reference/make_layers.py

The tests read the two files with NumPy alone. Each holds `about`, a text array of JSON: library,
version, script and the list of `cases`; the arrays of a case lie under "{id}/{name}". All is
float64 but masks and what consists of integers.

A layer case has x, y, grad (dL/dy, random), x_gradient (unless x is of integers), each parameter
`w`, `b` with `w_gradient`, `b_gradient`, each buffer with its value afterwards
(`running_mean_after`), and what a random layer drew (`mask`, True where kept; `noise`). In a
container every name has a path before it: `layers.0.w`, `branches.1.layers.0.w_gradient`.

A loss case has pred, real, sample_weight (where given), value and gradient (dL/dpred). A case with
"chain": "Softmax" has logits in the place of pred, and gradient is dL/dlogits. Where a probability
underflows it also has value_capped: the loss when none is below the smallest normal number.

Where PyTorch lacks a layer or loss, autograd differentiates its formula in torch operations
("formula" in the note of the case; F is torch.nn.functional). Most numbers drawn are odd multiples
of 1/128: exact in float32 too, and off every kink. An id seeds its own case, so that a new case
moves no other.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

N, T, H, W, C = 5, 4, 2, 3, 6  # every axis has a size of its own
TINY = np.finfo(np.float64).tiny


# ---- Random numbers ----


def generator(case_id):
    return np.random.default_rng(zlib.crc32(case_id.encode()))


def draw(rng, shape, scale=1.5):
    """Roughly normal odd multiples of 1/128: exact in float32, never 0, 1 or 3."""
    return (np.floor(64 * scale * rng.standard_normal(shape)) + 0.5) / 64


def positive(rng, shape):
    return 0.25 + np.abs(draw(rng, shape, 1.0))


def large(rng, shape, scale=10.0):
    """With 30, -30, 800 and -800 each in a row of its own, and 800 and -800 in one row."""
    x = draw(rng, shape, scale)
    x[0, 1], x[1, 2], x[2, 3], x[3, 0], x[4, 0], x[4, 2] = 30, -30, 800, -800, 800, -800
    return x


def ordinary_and_large(rng, shape):
    return large(rng, shape, 1.5)


def tiny(rng, shape):
    """Mean square near 2.2e-16, PyTorch's own epsilon of RMSNorm, so that it matters."""
    return draw(rng, shape) * 2.0**-27


def probabilities(rng, shape):
    """Rows of positive multiples of 1/1024 that sum to exactly 1."""
    classes = shape[-1]
    shares = rng.dirichlet(np.ones(classes), size=shape[:-1])
    return (1 + rng.multinomial(1024 - classes, shares)) / 1024


def probabilities_with_zeros(rng, shape):
    p = probabilities(rng, shape)
    rows = np.arange(0, len(p), 2)
    p[rows, 0] += p[rows, 1]
    p[rows, 1] = 0
    p[-1] = 0
    p[-1, 2] = 1
    return p


def word_numbers(rng, shape):
    """Of a vocabulary of 7: repeated, and 5 never."""
    return rng.choice([0, 1, 2, 3, 4, 6], shape)


def class_numbers(rng, shape):
    return rng.integers(0, shape[-1], shape[:-1])


def unlikely_class_first(rng, shape):
    """For steep logits: the class of row 0 has almost no probability, that of row 1 nearly all."""
    real = class_numbers(rng, shape)
    real[:2] = 0, 3
    return real


def one_hot(rng, shape):
    return np.eye(shape[-1])[class_numbers(rng, shape)]


# ---- Layers ----


class Case:
    """What one case stores. A layer asks it for parameters and buffers, a container for a path."""

    def __init__(self, case_id, training, store=None, path="", rng=None):
        self.id, self.training, self.path = case_id, training, path
        self.rng = generator(case_id) if rng is None else rng
        self.store = {} if store is None else store  # path and name -> tensor

    def at(self, path):
        return Case(self.id, self.training, self.store, f"{self.path}{path}.", self.rng)

    def keep(self, name, values):
        tensor = self.store[self.path + name] = torch.tensor(values)
        return tensor

    def parameter(self, name, shape):
        return self.keep(name, draw(self.rng, shape, 0.7)).requires_grad_()


def linear(x, case, units, bias=True):
    w = case.parameter("w", (x.shape[-1], units))
    b = case.parameter("b", (units,)) if bias else None
    return F.linear(x, w.T, b)


def prelu(x, case, per_channel=False):
    w = case.parameter("w", x.shape[-1:] if per_channel else (1,))
    return F.prelu(x.movedim(-1, 1), w).movedim(1, -1)


def softplus(x, case, beta=1.0):
    return torch.logaddexp(beta * x, torch.zeros_like(x)) / beta


def dropout(x, case, rate):
    if not case.training:
        return x
    mask = case.keep("mask", case.rng.random(tuple(x.shape)) >= rate)
    return x * mask / (1 - rate)


def gaussian_noise(x, case, std):
    if not case.training:
        return x
    return x + std * case.keep("noise", draw(case.rng, tuple(x.shape), 1.0))


def scale_and_shift(x, case, scale=True, bias=True, axes=1):
    """w and b, or None; PyTorch's backward fails with b alone, so w is then of ones."""
    shape = x.shape[-axes:]
    w = case.parameter("w", shape) if scale else torch.ones(shape) if bias else None
    return w, case.parameter("b", shape) if bias else None


def batch_norm(x, case, momentum=0.1, epsilon=1e-5, **members):
    w, b = scale_and_shift(x, case, **members)
    mean = case.keep("running_mean", draw(case.rng, x.shape[-1:]))
    variance = case.keep("running_variance", positive(case.rng, x.shape[-1:]))
    mean, variance = mean.clone(), variance.clone()  # batch_norm writes into the two
    y = F.batch_norm(x.movedim(-1, 1), mean, variance, w, b, case.training, momentum, epsilon)
    case.keep("running_mean_after", mean.numpy())
    case.keep("running_variance_after", variance.numpy())
    return y.movedim(1, -1)


def layer_norm(x, case, epsilon=1e-5, axes=1, **members):
    w, b = scale_and_shift(x, case, axes=axes, **members)
    return F.layer_norm(x, x.shape[-axes:], w, b, epsilon)


def group_norm(x, case, groups, epsilon=1e-5, **members):
    w, b = scale_and_shift(x, case, **members)
    return F.group_norm(x.movedim(-1, 1), groups, w, b, epsilon).movedim(1, -1)


def rms_norm(x, case, epsilon=None, scale=True):
    return F.rms_norm(x, x.shape[-1:], scale_and_shift(x, case, scale, False)[0], epsilon)


def embedding(x, case, vocabulary, units):
    return F.embedding(x, case.parameter("w", (vocabulary, units)))


def chain(x, case, layers):
    for i, spec in enumerate(layers):
        x = forward(spec, x, case.at(f"layers.{i}"))
    return x


def residual(x, case, layers):
    return x + chain(x, case, layers)


def parallel(x, case, layers, join):
    outputs = [chain(x, case.at(f"branches.{i}"), branch) for i, branch in enumerate(layers)]
    return torch.cat(outputs, -1) if join == "concatenate" else torch.stack(outputs).sum(0)


def forward(spec, x, case):
    _, function = LAYERS[spec["layer"]]
    members = {"layers": spec["layers"]} if "layers" in spec else {}
    return function(x, case, **members, **spec.get("arguments", {}))


LAYERS = {  # our name: (where the values come from, the layer in torch)
    "Linear": ("F.linear", linear),
    "Sigmoid": ("torch.sigmoid", lambda x, case: torch.sigmoid(x)),
    "Tanh": ("torch.tanh", lambda x, case: torch.tanh(x)),
    "ReLU": ("F.relu", lambda x, case: F.relu(x)),
    "LeakyReLU": ("F.leaky_relu", lambda x, case, slope=0.01: F.leaky_relu(x, slope)),
    "PReLU": ("F.prelu", prelu),
    "ELU": ("F.elu", lambda x, case, alpha=1.0: F.elu(x, alpha)),
    "SELU": ("F.selu", lambda x, case: F.selu(x)),
    "GELU": ("F.gelu", lambda x, case, approximate="none": F.gelu(x, approximate=approximate)),
    "SiLU": ("F.silu", lambda x, case: F.silu(x)),
    "Softplus": (
        "formula: log(1 + exp(x)) by torch.logaddexp; F.softplus is x above 20",
        softplus,
    ),
    "Softsign": ("F.softsign", lambda x, case: F.softsign(x)),
    "Mish": ("F.mish", lambda x, case: F.mish(x)),
    "HardTanh": ("F.hardtanh", lambda x, case, low=-1.0, high=1.0: F.hardtanh(x, low, high)),
    "ReLU6": ("F.relu6", lambda x, case: F.relu6(x)),
    "HardSigmoid": (
        "formula: min(max(x / 6 + 1/2, 0), 1); backward of F.hardsigmoid takes 1/6 in float32 even in float64",
        lambda x, case: torch.clamp(x / 6 + 0.5, 0, 1),
    ),
    "HardSwish": ("F.hardswish", lambda x, case: F.hardswish(x)),
    "Softmax": ("F.softmax", lambda x, case: F.softmax(x, -1)),
    "LogSoftmax": ("F.log_softmax", lambda x, case: F.log_softmax(x, -1)),
    "Dropout": ("formula: x * mask / (1 - rate), x in inference", dropout),
    "GaussianNoise": ("formula: x + std * noise, x in inference", gaussian_noise),
    "BatchNorm": ("F.batch_norm", batch_norm),
    "LayerNorm": ("F.layer_norm", layer_norm),
    "GroupNorm": ("F.group_norm", group_norm),
    "RMSNorm": ("F.rms_norm", rms_norm),
    "Embedding": ("F.embedding", embedding),
    "Flatten": ("torch.flatten", lambda x, case: torch.flatten(x, 1)),
    "Reshape": ("torch.reshape", lambda x, case, shape: x.reshape(len(x), *shape)),
    "Residual": ("formula: x + chain(x)", residual),
    "Parallel": ("torch.cat of the branches, or their sum", parallel),
    "Model": ("torch.nn.Sequential", chain),
}


def layer(name, **arguments):
    """One layer of a chain, as it stands in the JSON."""
    return {"layer": name, "arguments": arguments}


def container(name, layers, **arguments):
    return {"layer": name, "arguments": arguments, "layers": layers}


ELEMENTWISE = [
    ("Sigmoid", layer("Sigmoid")),
    ("Tanh", layer("Tanh")),
    ("ReLU", layer("ReLU")),
    ("LeakyReLU", layer("LeakyReLU")),
    ("LeakyReLU-slope", layer("LeakyReLU", slope=0.2)),
    ("PReLU", layer("PReLU")),
    ("ELU", layer("ELU")),
    ("ELU-alpha", layer("ELU", alpha=0.7)),
    ("SELU", layer("SELU")),
    ("GELU", layer("GELU")),
    ("GELU-tanh", layer("GELU", approximate="tanh")),
    ("SiLU", layer("SiLU")),
    ("Softplus", layer("Softplus")),
    ("Softplus-beta", layer("Softplus", beta=2.5)),
    ("Softsign", layer("Softsign")),
    ("Mish", layer("Mish")),
    ("HardTanh", layer("HardTanh")),
    ("HardTanh-ends", layer("HardTanh", low=-0.5, high=2.0)),
    ("ReLU6", layer("ReLU6")),
    ("HardSigmoid", layer("HardSigmoid")),
    ("HardSwish", layer("HardSwish")),
]

MLP = [layer("Linear", units=8), layer("Tanh"), layer("Linear", units=4), layer("Sigmoid"),
       layer("Linear", units=3), layer("Softmax")]  # fmt: skip
BRANCHES = [
    [layer("Linear", units=7), layer("Sigmoid")],
    [layer("Linear", units=8), layer("ReLU"), layer("Linear", units=7, bias=False)],
]
UNEVEN_BRANCHES = [[layer("Linear", units=4), layer("Tanh")], [layer("Linear", units=2)]]  # sum: C
BOTTLENECK = [layer("LayerNorm"), layer("Linear", units=7), layer("GELU"), layer("Linear", units=C)]

TRAINING = [  # id, layer, shape of x
    ("Linear", layer("Linear", units=7), (N, C)),
    ("Linear-nobias", layer("Linear", units=7, bias=False), (N, C)),
    ("Linear-3d", layer("Linear", units=7), (N, T, C)),
    ("PReLU-3d", layer("PReLU"), (N, T, C)),
    ("PReLU-channels", layer("PReLU", per_channel=True), (N, C)),
    ("PReLU-channels-4d", layer("PReLU", per_channel=True), (N, H, W, C)),
    ("Softmax", layer("Softmax"), (N, T, C)),
    ("LogSoftmax", layer("LogSoftmax"), (N, T, C)),
    ("Dropout", layer("Dropout", rate=0.3), (N, C)),
    ("GaussianNoise", layer("GaussianNoise", std=0.5), (N, C)),
    ("BatchNorm", layer("BatchNorm"), (N, C)),
    ("BatchNorm-3d", layer("BatchNorm"), (N, T, C)),
    ("BatchNorm-4d", layer("BatchNorm"), (N, H, W, C)),
    ("BatchNorm-arguments", layer("BatchNorm", momentum=0.3, epsilon=1e-2), (N, C)),
    ("LayerNorm", layer("LayerNorm"), (N, C)),
    ("LayerNorm-3d", layer("LayerNorm"), (N, T, C)),
    ("LayerNorm-axes-2", layer("LayerNorm", axes=2), (N, H, W, C)),
    ("LayerNorm-axes-3", layer("LayerNorm", axes=3), (N, H, W, C)),
    ("LayerNorm-axes-nobias", layer("LayerNorm", axes=2, bias=False), (N, T, C)),
    ("LayerNorm-axes-plain", layer("LayerNorm", axes=3, scale=False, bias=False), (N, H, W, C)),
    ("LayerNorm-epsilon", layer("LayerNorm", epsilon=1e-2), (N, C)),
    ("GroupNorm", layer("GroupNorm", groups=2), (N, C)),
    ("GroupNorm-4d", layer("GroupNorm", groups=3), (N, H, W, C)),
    ("GroupNorm-one", layer("GroupNorm", groups=1), (N, C)),
    ("GroupNorm-epsilon", layer("GroupNorm", groups=2, epsilon=1e-2), (N, C)),
    ("RMSNorm", layer("RMSNorm"), (N, C)),
    ("RMSNorm-3d", layer("RMSNorm"), (N, T, C)),
    ("RMSNorm-epsilon", layer("RMSNorm", epsilon=1e-2), (N, C)),
    *(
        (f"{name}-{told}", layer(name, **arguments, **members), (N, H, W, C))
        for name, arguments in (("BatchNorm", {}), ("LayerNorm", {}), ("GroupNorm", {"groups": 2}))
        for told, members in (
            ("nobias", {"bias": False}),
            ("noscale", {"scale": False}),
            ("plain", {"scale": False, "bias": False}),
        )
    ),
    ("RMSNorm-plain", layer("RMSNorm", scale=False), (N, C)),
    ("Embedding", layer("Embedding", vocabulary=7, units=3), (N, T)),
    ("Flatten", layer("Flatten"), (N, H, W, C)),
    ("Reshape", layer("Reshape", shape=[2, 3, 4]), (N, 24)),
    ("Residual", container("Residual", BOTTLENECK), (N, C)),
    ("Parallel-concatenate", container("Parallel", UNEVEN_BRANCHES, join="concatenate"), (N, C)),
    ("Parallel-add", container("Parallel", BRANCHES, join="add"), (N, C)),
    ("Model", container("Model", MLP), (N, C)),
    (
        "Model-in-Model",
        container("Model", [
            layer("Linear", units=8),
            container("Model", MLP),
            layer("Linear", units=2),
        ]),
        (N, C),
    ),
    (
        "Model-of-containers",
        container("Model", [
            container("Residual", [container("Parallel", UNEVEN_BRANCHES, join="concatenate")]),
            container("Parallel", BRANCHES, join="add"),
            layer("BatchNorm"),
            layer("Flatten"),
            layer("Linear", units=2),
        ]),
        (N, T, C),
    ),
    (
        "Model-Embedding",
        container("Model", [layer("Embedding", vocabulary=7, units=3), *MLP[:2], layer("Flatten"),
                            layer("Linear", units=2)]),
        (N, T),
    ),
]  # fmt: skip

INFERENCE = [  # id, layer, shape of x
    ("Dropout-inference", layer("Dropout", rate=0.3), (N, C)),
    ("GaussianNoise-inference", layer("GaussianNoise", std=0.5), (N, C)),
    ("BatchNorm-inference", layer("BatchNorm"), (N, C)),
    ("BatchNorm-3d-inference", layer("BatchNorm"), (N, T, C)),
    ("BatchNorm-plain-inference", layer("BatchNorm", scale=False, bias=False), (N, T, C)),
    ("BatchNorm-4d-inference", layer("BatchNorm", momentum=0.3, epsilon=1e-2), (N, H, W, C)),
]


def layer_cases():
    """Rows (id, layer, shape of x, what draws x, training)."""
    for case_id, spec in ELEMENTWISE:
        yield case_id, spec, (N, C), ordinary_and_large, True
    for name in ("Softmax", "LogSoftmax"):
        yield f"{name}-large", layer(name), (N, C), large, True
    for case_id, spec, shape in TRAINING:
        yield case_id, spec, shape, word_numbers if "Embedding" in case_id else draw, True
    yield "RMSNorm-tiny", layer("RMSNorm"), (N, C), tiny, True
    for case_id, spec, shape in INFERENCE:
        yield case_id, spec, shape, draw, False


def run_layer(case_id, spec, shape, values, training):
    """The entry of a case in `about`, and its arrays."""
    case = Case(case_id, training)
    x = torch.tensor(values(case.rng, shape))
    x.requires_grad_(x.is_floating_point())
    y = forward(spec, x, case)
    grad = torch.tensor(draw(case.rng, tuple(y.shape), 1.0))
    y.backward(grad)

    arrays = {"x": x, "y": y, "grad": grad, **case.store}
    for name, tensor in {"x": x, **case.store}.items():
        if tensor.requires_grad:
            arrays[f"{name}_gradient"] = tensor.grad
    note, _ = LAYERS[spec["layer"]]
    return {"id": case_id, **spec, "training": training, "note": note}, arrays


# ---- Losses ----


def cross_entropy(pred, real, from_logits=False, label_smoothing=0.0, **options):
    if from_logits:
        if real.is_floating_point():
            real = real.movedim(-1, 1)
        if "weight" in options:
            options["weight"] = torch.tensor(options["weight"])
        return F.cross_entropy(
            pred.movedim(-1, 1), real, reduction="none", label_smoothing=label_smoothing, **options
        )
    if options:
        return F.nll_loss(torch.log(pred), real, torch.tensor(options["weight"]), reduction="none")
    classes = pred.shape[-1]
    target = real if real.is_floating_point() else F.one_hot(real, classes)
    target = (1 - label_smoothing) * target + label_smoothing / classes
    return -(target * torch.log(pred)).sum(-1)


def binary_cross_entropy(pred, real, from_logits=False, pos_weight=None):
    if pos_weight is not None:
        pos_weight = torch.tensor(pos_weight)
    if from_logits:
        return F.binary_cross_entropy_with_logits(pred, real, reduction="none", pos_weight=pos_weight)
    if pos_weight is not None:
        return F.binary_cross_entropy_with_logits(torch.logit(pred), real, reduction="none", pos_weight=pos_weight)
    return F.binary_cross_entropy(pred, real, reduction="none")


def focal(pred, real, from_logits=False, gamma=2.0, alpha=None):
    """torchvision.ops.sigmoid_focal_loss, line by line; alpha=None is its -1."""
    p = torch.sigmoid(pred) if from_logits else pred
    ce_loss = binary_cross_entropy(pred, real, from_logits)
    p_t = p * real + (1 - p) * (1 - real)
    loss = ce_loss * ((1 - p_t) ** gamma)
    if alpha is not None:
        alpha_t = alpha * real + (1 - alpha) * (1 - real)
        loss = alpha_t * loss
    return loss


def gaussian_nll(pred, real, epsilon=1e-6):
    mean, log_variance = pred.chunk(2, -1)
    return F.gaussian_nll_loss(mean, real, log_variance.exp(), eps=epsilon, reduction="none")


def log_cosh(pred, real):
    d = pred - real
    return torch.logaddexp(d, -d) - np.log(2)


LOSSES = {  # our name: (where the values come from, the loss of each element or row of classes)
    "MSE": ("F.mse_loss", lambda pred, real: F.mse_loss(pred, real, reduction="none")),
    "MAE": ("F.l1_loss", lambda pred, real: F.l1_loss(pred, real, reduction="none")),
    "Huber": (
        "F.huber_loss",
        lambda pred, real, delta=1.0: F.huber_loss(pred, real, reduction="none", delta=delta),
    ),
    "LogCosh": ("formula: log(cosh(pred - real)) by torch.logaddexp", log_cosh),
    "CrossEntropy": (
        "F.cross_entropy; of probabilities the formula -(target * log(pred)).sum(-1)",
        cross_entropy,
    ),
    "BinaryCrossEntropy": (
        "F.binary_cross_entropy, F.binary_cross_entropy_with_logits",
        binary_cross_entropy,
    ),
    "KLDivergence": (
        "F.kl_div(log(pred), real).sum(-1)",
        lambda pred, real: F.kl_div(torch.log(pred), real, reduction="none").sum(-1),
    ),
    "Hinge": (
        "formula: max(0, 1 - real * pred)",
        lambda pred, real: torch.clamp(1 - real * pred, min=0),
    ),
    "SquaredHinge": (
        "formula: max(0, 1 - real * pred) ** 2",
        lambda pred, real: torch.clamp(1 - real * pred, min=0) ** 2,
    ),
    "BinaryFocalCrossEntropy": ("the lines of torchvision.ops.sigmoid_focal_loss 0.28", focal),
    "GaussianNLL": ("F.gaussian_nll_loss(mean, real, exp(log variance))", gaussian_nll),
    "CosineSimilarity": (
        "1 - F.cosine_similarity",
        lambda pred, real: 1 - F.cosine_similarity(pred, real, dim=-1),
    ),
    "PoissonNLL": (
        "F.poisson_nll_loss",
        lambda pred, real, log_input=True: F.poisson_nll_loss(pred, real, log_input=log_input, reduction="none"),
    ),
}


def reduce(losses, loss, reduction, weight):
    """Our reductions: torch's "mean" and "sum", our "batch_sum", each also with sample weights."""
    losses = losses.flatten(1) if losses.ndim > 1 else losses[:, None]
    sums_over_classes = loss in ("CrossEntropy", "KLDivergence")
    if reduction == "mean" or (reduction == "batch_sum" and not sums_over_classes):
        terms = losses.mean(1)
    else:
        terms = losses.sum(1)
    if weight is None:
        return terms.mean() if reduction == "mean" else terms.sum()
    return (weight * terms).sum() / (weight.sum() if reduction == "mean" else 1)


def weighted_mean(function, pred, real, weight, told):
    """The mean of F.cross_entropy of class numbers, which divides by the weights of the classes; with sample weights
    each row's part of it is weighed. Checked against torch's own mean."""
    counts = torch.tensor(told.get("weight", [1.0] * pred.shape[-1]))[real.clamp(min=0)]
    counts = counts * (real != told.get("ignore_index", -100))
    values = function(pred, real, **told)
    mean = values.sum() / counts.sum()
    options = {k: torch.tensor(v) if k == "weight" else v for k, v in told.items() if k != "from_logits"}
    logits = pred if told.get("from_logits") else torch.log(pred)  # whose softmax is pred again
    torch.testing.assert_close(mean, F.cross_entropy(logits.movedim(-1, 1), real, **options), rtol=1e-13, atol=0)
    if weight is None:
        return mean
    rows = (len(real), -1)
    return (weight * values.reshape(rows).sum(1)).sum() / (weight * counts.reshape(rows).sum(1)).sum()


def shifted(rng, shape):
    return draw(rng, shape) + 1 / 128  # multiples of 1/64: never equal to what draw gives


def soft_labels(rng, shape):
    """Between 0 and 1, both of them included."""
    return np.clip(rng.integers(-32, 97, shape) / 64, 0, 1)


def inner_probabilities(rng, shape):
    return (rng.integers(2, 62, shape) + 0.5) / 64


def signs(rng, shape):
    return rng.choice([-1.0, 1.0], shape)


CLASS_WEIGHT = [0.5, 2.0, 0.0, 3.0]


def some_ignored(rng, shape):
    real = class_numbers(rng, shape)
    real[0, 0] = real[2] = -100
    return real


def half_the_columns(rng, shape):
    return shifted(rng, (*shape[:-1], shape[-1] // 2))


def counts(rng, shape):
    return rng.integers(0, 6, shape).astype(float)


def logits_to_50(rng, shape):
    x = draw(rng, shape)
    x[0, 1], x[1, 2], x[2, 3], x[3, 0] = 50, -50, 50, -50
    return x


def steep(rng, shape):
    """Probabilities down to exp(-203): nothing underflows in float64, much in float32."""
    return np.vstack([[0, 200, -3, 5], [5, -3, 0, 200], draw(rng, (shape[0] - 2, shape[1]))])


def too_steep(rng, shape):
    """Probabilities down to exp(-903), which is 0 in float64."""
    return np.vstack([[0, 900, -3, 5], [5, -3, 0, 900], draw(rng, (shape[0] - 2, shape[1]))])


SIX_WAYS = [(r, weighted) for r in ("mean", "sum", "batch_sum") for weighted in (False, True)]
ONCE = [("mean", False)]
MEAN = [*ONCE, ("mean", True)]
BATCH = [*MEAN, ("batch_sum", False)]
ROWS, CUBE = (N, T), (N, W, T)

LOSS_TABLE = [  # id, loss, arguments, shape of pred, what draws pred, what draws real, reductions
    ("MSE", "MSE", {}, ROWS, draw, shifted, SIX_WAYS),
    ("MSE-3d", "MSE", {}, CUBE, draw, shifted, BATCH),
    ("MAE", "MAE", {}, ROWS, draw, shifted, SIX_WAYS),
    ("Huber", "Huber", {}, ROWS, draw, shifted, SIX_WAYS),
    ("Huber-delta", "Huber", {"delta": 0.7}, ROWS, draw, shifted, ONCE),
    ("LogCosh", "LogCosh", {}, ROWS, draw, shifted, SIX_WAYS),
    ("LogCosh-large", "LogCosh", {}, ROWS, large, shifted, ONCE),
    ("CrossEntropy", "CrossEntropy", {}, ROWS, probabilities, class_numbers, SIX_WAYS),
    ("CrossEntropy-onehot", "CrossEntropy", {}, ROWS, probabilities, one_hot, ONCE),
    ("CrossEntropy-soft", "CrossEntropy", {}, ROWS, probabilities, probabilities, ONCE),
    ("CrossEntropy-smooth", "CrossEntropy", {"label_smoothing": 0.1}, ROWS,
     probabilities, class_numbers, ONCE),
    ("CrossEntropy-soft-smooth", "CrossEntropy", {"label_smoothing": 0.1}, ROWS,
     probabilities, probabilities, ONCE),
    ("CrossEntropy-3d", "CrossEntropy", {}, CUBE, probabilities, class_numbers, BATCH),
    ("CrossEntropy-logits", "CrossEntropy", {"from_logits": True}, ROWS,
     draw, class_numbers, MEAN),
    ("CrossEntropy-logits-soft", "CrossEntropy", {"from_logits": True}, ROWS,
     draw, probabilities, ONCE),
    ("CrossEntropy-logits-smooth", "CrossEntropy", {"from_logits": True, "label_smoothing": 0.1},
     ROWS, draw, class_numbers, ONCE),
    ("CrossEntropy-logits-soft-smooth", "CrossEntropy",
     {"from_logits": True, "label_smoothing": 0.1}, ROWS, draw, probabilities, ONCE),
    ("CrossEntropy-logits-large", "CrossEntropy", {"from_logits": True}, ROWS,
     large, class_numbers, ONCE),
    ("CrossEntropy-logits-3d", "CrossEntropy", {"from_logits": True}, CUBE,
     draw, class_numbers, BATCH),
    ("BinaryCrossEntropy", "BinaryCrossEntropy", {}, ROWS,
     inner_probabilities, soft_labels, SIX_WAYS),
    ("BinaryCrossEntropy-logits", "BinaryCrossEntropy", {"from_logits": True}, ROWS,
     logits_to_50, soft_labels, MEAN),
    ("KLDivergence", "KLDivergence", {}, ROWS, probabilities, probabilities_with_zeros, SIX_WAYS),
    ("Hinge", "Hinge", {}, ROWS, draw, signs, SIX_WAYS),
    ("SquaredHinge", "SquaredHinge", {}, ROWS, draw, signs, SIX_WAYS),
    ("CrossEntropy-weight", "CrossEntropy", {"weight": CLASS_WEIGHT}, ROWS, probabilities, class_numbers, MEAN),
    ("CrossEntropy-logits-weight", "CrossEntropy", {"from_logits": True, "weight": CLASS_WEIGHT}, ROWS,
     draw, class_numbers, SIX_WAYS),
    ("CrossEntropy-logits-weight-soft", "CrossEntropy", {"from_logits": True, "weight": CLASS_WEIGHT}, ROWS,
     draw, probabilities, MEAN),
    ("CrossEntropy-logits-weight-smooth", "CrossEntropy",
     {"from_logits": True, "weight": CLASS_WEIGHT, "label_smoothing": 0.1}, ROWS, draw, class_numbers, MEAN),
    ("CrossEntropy-logits-ignore-3d", "CrossEntropy", {"from_logits": True, "ignore_index": -100}, CUBE,
     draw, some_ignored, BATCH),
    ("CrossEntropy-logits-ignore-weight-smooth", "CrossEntropy",
     {"from_logits": True, "weight": CLASS_WEIGHT, "ignore_index": 1, "label_smoothing": 0.1}, CUBE,
     draw, class_numbers, MEAN),
    ("BinaryCrossEntropy-pos_weight", "BinaryCrossEntropy", {"pos_weight": CLASS_WEIGHT}, ROWS,
     inner_probabilities, soft_labels, MEAN),
    ("BinaryCrossEntropy-logits-pos_weight", "BinaryCrossEntropy", {"from_logits": True, "pos_weight": 3.0}, ROWS,
     logits_to_50, soft_labels, SIX_WAYS),
    ("BinaryFocalCrossEntropy", "BinaryFocalCrossEntropy", {}, ROWS, inner_probabilities, soft_labels, MEAN),
    ("BinaryFocalCrossEntropy-logits", "BinaryFocalCrossEntropy", {"from_logits": True, "gamma": 1.5, "alpha": 0.25},
     ROWS, draw, soft_labels, SIX_WAYS),
    ("GaussianNLL", "GaussianNLL", {}, (N, 2 * W), draw, half_the_columns, SIX_WAYS),
    ("GaussianNLL-3d", "GaussianNLL", {}, (N, T, 2 * W), draw, half_the_columns, BATCH),
    ("CosineSimilarity", "CosineSimilarity", {}, ROWS, draw, shifted, SIX_WAYS),
    ("PoissonNLL", "PoissonNLL", {}, ROWS, draw, counts, SIX_WAYS),
    ("PoissonNLL-rate", "PoissonNLL", {"log_input": False}, ROWS, positive, counts, ONCE),
]  # fmt: skip

SOFTMAX_TABLE = [  # Softmax and then CrossEntropy, the same columns
    (f"softmax_crossentropy-{name}{kind}", "CrossEntropy", arguments, ROWS, logits, real, ONCE)
    for name, logits in [("ordinary", draw), ("steep", steep), ("underflow", too_steep)]
    for kind, arguments, real in [
        ("", {}, unlikely_class_first),
        ("-soft", {}, probabilities),
        ("-smooth", {"label_smoothing": 0.1}, unlikely_class_first),
    ]
]


def run_loss(row, reduction, weighted, softmax_first=False):
    """The entry of a case in `about`, and its arrays."""
    case_id, loss, arguments, shape, draw_pred, draw_real, _ = row
    rng = generator(case_id)  # the same pred and real in every reduction
    pred = torch.tensor(draw_pred(rng, shape)).requires_grad_()
    real = torch.tensor(draw_real(rng, shape))
    weight = torch.tensor(positive(rng, shape[:1])) if weighted else None

    note, function = LOSSES[loss]
    told = {**arguments, "from_logits": True} if softmax_first else arguments
    value = reduce(function(pred, real, **told), loss, reduction, weight)
    if reduction == "mean" and {"weight", "ignore_index"} & set(told) and not real.is_floating_point():
        value = weighted_mean(function, pred, real, weight, told)
    value.backward()

    arrays = {"pred": pred, "real": real, "value": value, "gradient": pred.grad}
    entry = {
        "id": f"{case_id}-{reduction}" + "-weighted" * weighted,
        "loss": loss,
        "arguments": {**arguments, "reduction": reduction},
        "note": note,
    }
    if weighted:
        arrays["sample_weight"] = weight
    if softmax_first:
        entry["chain"] = "Softmax"
        p = F.softmax(pred, -1)
        if (p < TINY).any():
            capped = function(p.clamp(min=TINY), real, **arguments)
            arrays["value_capped"] = reduce(capped, loss, reduction, weight)
    return entry, arrays


# ---- Files ----


def write(name, runs):
    arrays, cases = {}, []
    for entry, tensors in runs:
        assert entry["id"] not in [case["id"] for case in cases], entry["id"]
        cases.append(entry)
        for key, tensor in tensors.items():
            array = tensor.detach().numpy()
            assert np.isfinite(array).all(), (entry["id"], key)
            arrays[f"{entry['id']}/{key}"] = np.array(array, order="C")
    about = {
        "library": "PyTorch",
        "version": torch.__version__,
        "script": "tests/reference/make_layers.py",
        "cases": cases,
    }
    np.savez_compressed(Path(__file__).parent / name, about=np.array(json.dumps(about)), **arrays)


def main():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # the order of a sum, and so its last bit, depends on the threads
    write("layers.npz", [run_layer(*row) for row in layer_cases()])
    losses = [run_loss(row, *way) for row in LOSS_TABLE for way in row[-1]]
    chains = [run_loss(row, *way, softmax_first=True) for row in SOFTMAX_TABLE for way in row[-1]]
    write("losses.npz", losses + chains)


if __name__ == "__main__":
    main()
