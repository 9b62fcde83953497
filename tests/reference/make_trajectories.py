"""Make trajectories.npz: random nets, losses and optimizers, trained by PyTorch for some epochs.

    pip install torch==2.13.0 numpy
    python tests/reference/make_trajectories.py                       the file that the tests read
    python tests/reference/make_trajectories.py 2000 PATH [FIRST]     so many others, for test_trajectories.py PATH

"about" is JSON: library, version, script and "cases", the recipe of each training: its layers, loss and optimizer with
our arguments, the sizes of its data, the number of the layer that is frozen (among those without layers within).
"losses" holds the mean losses of its epochs (over samples), "finals" its parameters and buffers afterwards in our
layouts, layer by layer, w before b; each one case after the other. All is float64. Start and data are those of
trajectories.py.

A training is left out that moves little, or whose end PyTorch itself does not tell to ten digits: it is trained again
from a start that differs in the twelfth, and with the rows of each batch the other way round. Such are steps that
divide rounding errors by each other, as Adam's below a BatchNorm that takes away what a bias adds, signs of gradients
that cancel, and units within 1e-12 of a kink.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from trajectories import STORED, data_of, start_of

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

CASES = 300


# ---- The layers of PyTorch, the channels last


class Last(nn.Module):
    """A layer whose channels come first, for channels last."""

    def __init__(self, inner, before=()):
        super().__init__()
        self.inner, self.before = inner, before

    def forward(self, x):
        x = x.movedim(-1, 1)
        return self.inner(F.pad(x, self.before) if self.before else x).movedim(1, -1)


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Parallel(nn.ModuleList):
    def __init__(self, branches, join):
        super().__init__(branches)
        self.join = join

    def forward(self, x):
        outputs = [branch(x) for branch in self]
        return torch.cat(outputs, -1) if self.join == "concatenate" else sum(outputs)


ACTIVATIONS = {
    "Sigmoid": lambda: torch.sigmoid,
    "Tanh": lambda: torch.tanh,
    "ReLU": lambda: F.relu,
    "LeakyReLU": lambda slope: lambda x: F.leaky_relu(x, slope),
    "ELU": lambda alpha: lambda x: F.elu(x, alpha),
    "SELU": lambda: F.selu,
    "GELU": lambda approximate="none": lambda x: F.gelu(x, approximate=approximate),
    "SiLU": lambda: F.silu,
    "Softplus": lambda beta: lambda x: torch.logaddexp(beta * x, torch.zeros_like(x)) / beta,
    "Softsign": lambda: F.softsign,
    "Mish": lambda: F.mish,
    "HardTanh": lambda low, high: lambda x: F.hardtanh(x, low, high),
    "ReLU6": lambda: F.relu6,
    "HardSigmoid": lambda: lambda x: torch.clamp(x / 6 + 0.5, 0, 1),  # F.hardsigmoid takes 1/6 in float32
    "HardSwish": lambda: F.hardswish,
    "Softmax": lambda: lambda x: F.softmax(x, -1),
    "LogSoftmax": lambda: lambda x: F.log_softmax(x, -1),
    "Flatten": lambda: lambda x: x.flatten(1),
    "GlobalAveragePool1D": lambda: lambda x: x.mean(1),
    "GlobalAveragePool2D": lambda: lambda x: x.mean((1, 2)),
    "GlobalMaxPool1D": lambda: lambda x: x.amax(1),
    "GlobalMaxPool2D": lambda: lambda x: x.flatten(1, 2).amax(1),
}


def convolution(name, c, filters=None, kernel_size=1, stride=1, padding="valid", dilation=1, groups=1, bias=True,
                multiplier=None, output_padding=0):
    axes = 1 if name == "Conv1D" else 2
    before = ()
    if padding == "causal":
        before, padding = (dilation * (kernel_size - 1), 0), 0
    options = dict(stride=stride, padding=0 if padding == "valid" else padding, dilation=dilation, bias=bias)
    if name == "ConvTranspose2D":
        return Last(nn.ConvTranspose2d(c, filters, kernel_size, output_padding=output_padding, **options))
    if name == "DepthwiseConv2D":
        return Last(nn.Conv2d(c, c * multiplier, kernel_size, groups=c, **options))
    kind = nn.Conv1d if axes == 1 else nn.Conv2d
    return Last(kind(c, filters, kernel_size, groups=groups, **options), before)


def pooling(name, size, stride, padding, count_padding=True):
    if name.startswith("Max"):
        return Last(getattr(nn, f"MaxPool{name[-2]}d")(size, stride, padding))
    return Last(getattr(nn, f"AvgPool{name[-2]}d")(size, stride, padding, count_include_pad=count_padding))


def norm(name, shape, scale=True, bias=True, epsilon=1e-5, momentum=0.1, groups=1, axes=1):
    if name == "RMSNorm":
        return nn.RMSNorm(shape[-1], epsilon, elementwise_affine=scale)
    if name == "LayerNorm":
        return nn.LayerNorm(shape[-axes:], epsilon, elementwise_affine=scale, bias=bias)
    if name == "GroupNorm":
        return Last(nn.GroupNorm(groups, shape[-1], epsilon, affine=scale))
    return Last((nn.BatchNorm1d if len(shape) < 3 else nn.BatchNorm2d)(shape[-1], epsilon, momentum, affine=scale))


def module(spec, shape):
    """The layer of PyTorch for inputs of this shape, the channels last, and the shape of what it gives."""
    name, arguments, *members = spec
    if name == "Residual":
        created = Residual(*chain(members[0], shape)[0])
    elif name == "Parallel":
        created = Parallel([chain(branch, shape)[0] for branch in members[0]], arguments["join"])
    elif name == "Embedding":
        created = nn.Embedding(arguments["vocabulary"], arguments["units"])
        return created, (*shape, arguments["units"])
    elif name == "Linear":
        created = nn.Linear(shape[-1], arguments["units"], bias=arguments.get("bias", True))
    elif "Conv" in name:
        created = convolution(name, shape[-1], **arguments)
    elif name in ("MaxPool1D", "MaxPool2D", "AveragePool1D", "AveragePool2D"):
        created = pooling(name, **arguments)
    elif name.endswith("Norm"):
        created = norm(name, shape, **arguments)
    elif name == "PReLU":
        created = Last(nn.PReLU(shape[-1] if arguments.get("per_channel") else 1))
    elif name == "UpSample2D":
        created = Last(nn.Upsample(scale_factor=arguments["factor"]))
    elif name == "ZeroPad2D":
        (top, bottom), (left, right) = arguments["padding"]
        created = Last(nn.ZeroPad2d((left, right, top, bottom)))
    else:
        created = Apply(ACTIVATIONS[name](**arguments))
    with torch.no_grad():
        return created, tuple(created(torch.rand(2, *shape)).shape[1:])


def chain(specs, shape):
    created = nn.Sequential()
    for spec in specs:
        each, shape = module(spec, shape)
        created.append(each)
    return created, shape


# ---- Our layout of what a layer of PyTorch holds


def leaf_layers(net):
    """Its layers without layers within, as ours are counted: `Last` is no layer here."""
    for each in net:
        each = each.inner if isinstance(each, Last) else each
        if isinstance(each, (nn.Sequential, nn.ModuleList)):
            yield from leaf_layers(each)
        else:
            yield each


def held(leaf):
    """(name, tensor turned as ours is) for the parameters and the running statistics of a layer."""
    turned = []
    for name, tensor in ("w", getattr(leaf, "weight", None)), ("b", getattr(leaf, "bias", None)):
        if tensor is None:
            continue
        view = tensor.detach()
        if isinstance(leaf, nn.Linear):
            view = view.T if name == "w" else view
        elif isinstance(leaf, nn.Conv2d) and leaf.groups == leaf.in_channels and name == "w" and leaf.depthwise:
            view = view.permute(2, 3, 1, 0)[:, :, 0].unflatten(-1, (leaf.in_channels, -1))
        elif view.ndim == 4:  # of a ConvTranspose2d the channels come first
            view = view.permute(2, 3, 1, 0)
        elif isinstance(leaf, nn.Conv1d) and name == "w":
            view = view.permute(2, 1, 0)
        turned.append((name, view))
    return turned


def buffers(leaf):
    found = (getattr(leaf, name, None) for name in ("running_mean", "running_var"))
    return [each for each in found if each is not None]


# ---- Losses: values per row (N, ...), as ours count them


def values_of(recipe):
    """Our loss of the recipe: a function (pred, real) -> a value for each element or row, from PyTorch's own."""
    name, arguments = recipe["loss"]
    logits = arguments.get("from_logits", False)

    def cross_entropy(pred, real):
        weight = torch.tensor(arguments["weight"]) if "weight" in arguments else None
        options = dict(weight=weight, label_smoothing=arguments.get("label_smoothing", 0.0), reduction="none")
        options |= {"ignore_index": arguments["ignore_index"]} if "ignore_index" in arguments else {}
        return F.cross_entropy((pred if logits else pred.log()).movedim(-1, 1),
                               real if real.dtype == torch.int64 else real.movedim(-1, 1), **options)

    def binary(pred, real):
        if logits:
            weight = torch.tensor(arguments["pos_weight"]) if "pos_weight" in arguments else None
            return F.binary_cross_entropy_with_logits(pred, real, pos_weight=weight, reduction="none")
        return F.binary_cross_entropy(pred, real, reduction="none")

    def gaussian(pred, real):
        mean, logarithm = pred.chunk(2, -1)
        return F.gaussian_nll_loss(mean, real, logarithm.exp(), eps=arguments["epsilon"], reduction="none")

    return {
        "MSE": lambda p, r: F.mse_loss(p, r, reduction="none"),
        "MAE": lambda p, r: F.l1_loss(p, r, reduction="none"),
        "Huber": lambda p, r: F.huber_loss(p, r, delta=arguments["delta"], reduction="none"),
        "LogCosh": lambda p, r: torch.log(torch.cosh(p - r)),
        "CosineSimilarity": lambda p, r: 1 - F.cosine_similarity(p, r, dim=-1),
        "PoissonNLL": lambda p, r: F.poisson_nll_loss(p, r, reduction="none"),
        "GaussianNLL": gaussian,
        "CrossEntropy": cross_entropy,
        "BinaryCrossEntropy": binary,
        "KLDivergence": lambda p, r: F.kl_div(p.log(), r, reduction="none").sum(-1),
        "Hinge": lambda p, r: torch.clamp(1 - p * r, min=0),
        "SquaredHinge": lambda p, r: torch.clamp(1 - p * r, min=0).square(),
    }[name]


def reduced(values, real, weight, recipe):
    """(the loss of a batch, what it is a mean over, 0 where it is a sum)."""
    name, arguments = recipe["loss"]
    reduction, rows = arguments.get("reduction", "mean"), len(values)
    if reduction == "sum":
        return values.sum(), 0
    if reduction == "batch_sum":
        over_classes = name in ("CrossEntropy", "KLDivergence")
        return values.sum() if over_classes else values.sum() * rows / values.numel(), 0
    if "weight" in arguments or "ignore_index" in arguments:  # PyTorch's mean: over what the targets count
        shares = torch.tensor(arguments.get("weight", [1.0] * recipe["output"][-1]))[real]
        if "ignore_index" in arguments:
            shares = shares * (real != arguments["ignore_index"])
        count = float(shares.sum())
        return values.sum() / count, count
    if weight is None:
        return values.mean(), rows
    return (values.reshape(rows, -1).mean(1) * weight).mean(), rows


# ---- Optimizers


def betas(arguments):
    return arguments["beta1"], arguments["beta2"]


def optimizer(recipe, parameters):
    name, arguments = recipe["optimizer"]
    a = dict(arguments)
    if "beta1" in a:
        a["betas"] = a.pop("beta1"), a.pop("beta2")
    renamed = {"epsilon": "eps", "beta": "alpha", "initial_accumulator": "initial_accumulator_value"}
    if name == "Adafactor":
        a["eps"], a["d"] = (a.pop("epsilon1"), a.pop("epsilon2")), a.pop("clip_threshold")
    if name == "Rprop":
        a["etas"], a["step_sizes"] = (a.pop("eta_minus"), a.pop("eta_plus")), (a.pop("step_min"), a.pop("step_max"))
    a.pop("epsilon_inside", None)
    a = {renamed.get(key, key): value for key, value in a.items()}
    return getattr(torch.optim, {"RMSProp": "RMSprop"}.get(name, name))(parameters, foreach=False, **a)


def trained(recipe, nudge=0.0):
    """(losses of the epochs, parameters and buffers, how far it went)."""
    net, _ = chain(recipe["layers"], tuple(recipe["input"]))
    every = list(leaf_layers(net))
    for leaf, spec in zip(every, flat(recipe["layers"]), strict=True):
        leaf.depthwise = spec[0] == "DepthwiseConv2D"
    place, begun = 0, []
    for leaf in every:
        for name, view in held(leaf):
            start = start_of(recipe["seed"], place, name, tuple(view.shape))
            signs = np.where(np.arange(start.size) % 3, 1, -1).reshape(start.shape)
            view.copy_(torch.tensor(start * (1 + nudge * signs)))
            begun.append(view.clone())
            place += 1
    net.train()
    if recipe["frozen"] is not None:
        every[recipe["frozen"]].requires_grad_(False).eval()
    x, y, weight = data_of(recipe)
    if nudge:
        at, size = np.arange(recipe["rows"]), recipe["batch_size"]
        turned = np.concatenate([at[k : k + size][::-1] for k in range(0, recipe["rows"], size)])
        x, y, weight = x[turned], y[turned], None if weight is None else weight[turned]
    # Where x needs no gradient, PyTorch's backward of a GroupNorm over the channels of images crashes.
    x, y = torch.tensor(x, requires_grad=not recipe["words"]), torch.tensor(y)
    weight = None if weight is None else torch.tensor(weight / weight.mean())
    parameters = [p for p in net.parameters() if p.requires_grad]
    rule, values, losses, step = optimizer(recipe, parameters), values_of(recipe), [], 0
    for _ in range(recipe["epochs"]):
        total = count = 0.0
        for at in range(0, recipe["rows"], recipe["batch_size"]):
            rows = slice(at, at + recipe["batch_size"])
            if recipe["rates"]:
                rule.param_groups[0]["lr"] = recipe["rates"][step]
            given = None if weight is None else weight[rows]
            error, counts = reduced(values(net(x[rows]), y[rows]), y[rows], given, recipe)
            rule.zero_grad()
            error.backward()
            if recipe["clip"] and "norm" in recipe["clip"]:
                nn.utils.clip_grad_norm_(parameters, recipe["clip"]["norm"])
            elif recipe["clip"]:
                nn.utils.clip_grad_value_(parameters, recipe["clip"]["value"])
            rule.step()
            total += float(error.detach()) * (counts or 1)
            count += counts or len(y[rows])
            step += 1
        losses.append(total / count)
    moved = max(float((a - view).abs().max()) for a, view in zip(begun, views(every), strict=True))
    if recipe["optimizer"][0] == "ASGD":  # its result is the mean
        for p in parameters:
            p.detach().copy_(rule.state[p]["ax"])
    final = [array for leaf in every for array in (*(view for _, view in held(leaf)), *buffers(leaf))]
    return np.array(losses), np.concatenate([array.numpy().ravel() for array in final]), moved


def views(every):
    return [view for leaf in every for _, view in held(leaf)]


def flat(specs):
    """The specs of the layers without layers within, in order."""
    for spec in specs:
        name, _, *members = spec
        if name == "Residual":
            yield from flat(members[0])
        elif name == "Parallel":
            for branch in members[0]:
                yield from flat(branch)
        else:
            yield spec


# ---- Drawing


class Draw:
    """A random training, by one seed."""

    def __init__(self, seed):
        self.rng, self.seed = np.random.default_rng(seed), seed

    def one(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def real(self, low, high):
        """Three digits: short in the file, and exact in JSON."""
        return float(f"{self.rng.uniform(low, high):.3g}")

    def whole(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def chance(self, share):
        return bool(self.rng.random() < share)

    def activation(self, per_channel=True):
        # A sample: a new activation need not be here. Another list draws other nets, for other golden values.
        name = self.one("Sigmoid", "Tanh", "ReLU", "LeakyReLU", "ELU", "SELU", "GELU", "SiLU", "Softplus", "Softsign",
                        "Mish", "HardTanh", "ReLU6", "HardSigmoid", "HardSwish", "PReLU", "Softmax", "LogSoftmax")
        arguments = {
            "LeakyReLU": lambda: {"slope": self.real(0.01, 0.4)},
            "ELU": lambda: {"alpha": self.real(0.3, 1.5)},
            "GELU": lambda: self.one({}, {"approximate": "tanh"}),
            "Softplus": lambda: {"beta": self.real(0.5, 3)},
            "HardTanh": lambda: {"low": self.real(-2, -0.3), "high": self.real(0.3, 2)},
            "PReLU": lambda: self.one({}, {"per_channel": True}),
        }.get(name, dict)()
        return [name, arguments]

    def norm(self, shape):
        name, c = self.one("BatchNorm", "LayerNorm", "RMSNorm", "GroupNorm"), shape[-1]
        arguments = {"epsilon": self.one(1e-5, 1e-3, 0.02)}
        if self.chance(0.2):
            arguments |= {"scale": False} if name == "RMSNorm" else {"scale": False, "bias": False}
        if name == "BatchNorm":
            arguments["momentum"] = self.real(0.05, 0.5)
        elif name == "GroupNorm":
            arguments["groups"] = self.one(1, *(g for g in range(2, c) if c % g == 0))
        elif name == "LayerNorm" and len(shape) > 1 and self.chance(0.5):
            arguments["axes"] = self.whole(1, len(shape))
        return [name, arguments]

    def dense(self, shape):
        kind = self.rng.random()
        if kind < 0.35:
            return ["Linear", {"units": self.whole(2, 5)} | self.one({}, {}, {"bias": False})]
        if kind < 0.65:
            return self.activation()
        if kind < 0.8:
            return self.norm(shape)
        if kind < 0.9:
            return ["Residual", {}, [["Linear", {"units": shape[-1]}], self.activation()]]
        join = self.one("concatenate", "add")
        units = [2, 2] if join == "add" else [self.whole(1, 3), self.whole(1, 3)]
        branches = [[["Linear", {"units": n}]] for n in units]
        if units[0] > 1:
            branches[0].append(self.activation())
        return ["Parallel", {"join": join}, branches]

    def spatial(self, shape):
        axes, c = len(shape) - 1, shape[-1]
        kind, room = self.rng.random(), min(shape[:-1])
        if kind < 0.3:
            k = self.whole(1, min(3, room))
            padding = self.one("valid", "same", 1, *["causal"] * (axes == 1))
            stride = 1 if padding == "same" else self.one(1, 1, 2)
            dilation = 2 if 2 * (k - 1) < room and self.chance(0.2) else 1
            told = {"kernel_size": k, "stride": stride, "padding": padding, "dilation": dilation}
            if axes == 2 and self.chance(0.25):
                return ["DepthwiseConv2D", told | {"multiplier": self.whole(1, 2)}]
            if axes == 2 and self.chance(0.2):
                told = {"kernel_size": self.whole(1, 2), "stride": 2, "padding": 0, "filters": self.whole(1, 2)}
                return ["ConvTranspose2D", told | self.one({}, {"output_padding": 1})]
            groups = self.one(*(g for g in range(1, c + 1) if c % g == 0))
            told |= {"filters": groups * self.whole(1, 2), "groups": groups}
            return [f"Conv{axes}D", told | self.one({}, {}, {"bias": False})]
        if kind < 0.45:
            size = self.whole(1, min(3, room))
            told = {"size": size, "stride": self.whole(1, 2), "padding": self.whole(0, size // 2)}
            name = self.one("MaxPool", "AveragePool")
            return [f"{name}{axes}D", told | ({"count_padding": self.chance(0.5)} if name[0] == "A" else {})]
        if kind < 0.7:
            return self.activation()
        if kind < 0.85:
            return self.norm(shape)
        if axes == 2 and kind < 0.9:
            return self.one(["UpSample2D", {"factor": 2}], ["ZeroPad2D", {"padding": [[0, 1], [1, 0]]}])
        told = {"kernel_size": self.one(1, 3), "padding": "same", "filters": c}
        return ["Residual", {}, [[f"Conv{axes}D", told], self.activation()]]

    def rule(self, plain):
        lr = float(f"{10 ** self.rng.uniform(-3, -1):.3g}")
        decay = self.one({}, {"weight_decay": self.real(0.001, 0.2)})
        adam = {"lr": lr, "beta1": self.real(0.5, 0.95), "beta2": self.real(0.8, 0.999)}
        adam["epsilon"] = self.one(1e-8, 1e-5, 1e-2)
        draws = {
            "SGD": lambda: {"lr": lr} | decay | self.one({}, {"momentum": self.real(0.3, 0.95)},
                            {"momentum": self.real(0.3, 0.9), "dampening": self.real(0.1, 0.6)},
                            {"momentum": self.real(0.3, 0.9), "nesterov": True}),
            "RMSProp": lambda: {"lr": lr, "beta": self.real(0.6, 0.99), "epsilon": self.one(1e-8, 1e-4),
                                "epsilon_inside": False} | decay
            | self.one({}, {"momentum": self.real(0.2, 0.9)}, {"centered": True, "epsilon": 1e-2}),
            "Adam": lambda: adam | decay | self.one({}, {"amsgrad": True}),
            "AdamW": lambda: adam | decay | self.one({}, {"amsgrad": True}),
            "NAdam": lambda: adam | decay | {"momentum_decay": self.real(0.001, 0.1)},
            "RAdam": lambda: adam | decay,
            "Adamax": lambda: adam | decay,
            "Adagrad": lambda: {"lr": lr, "epsilon": self.one(1e-10, 1e-4), "lr_decay": self.real(0, 0.1),
                                "initial_accumulator": self.one(0.0, 0.1)} | decay,
            "Adadelta": lambda: {"lr": self.real(0.3, 1), "rho": self.real(0.6, 0.95), "epsilon": self.one(1e-6, 1e-3)}
            | decay,
            "ASGD": lambda: {"lr": lr, "lambd": self.real(1e-4, 0.05), "alpha": self.real(0.5, 0.9),
                             "t0": self.whole(1, 8)} | decay,
            "Rprop": lambda: {"lr": lr, "eta_minus": self.real(0.3, 0.7), "eta_plus": self.real(1.05, 1.4),
                              "step_min": 1e-5, "step_max": self.one(0.05, 1.0)},
            "Adafactor": lambda: {"lr": lr, "beta2_decay": self.real(-0.9, -0.4), "epsilon1": self.one(None, 1e-3),
                                  "epsilon2": 1e-3, "clip_threshold": self.real(1, 2)} | decay,
        }
        name = self.one(*(name for name in draws if plain or name != "Adafactor"))
        return [name, draws[name]()]

    def error(self, shape):
        """(last layers, loss, its targets) for a net that ends in this shape."""
        reduction = self.one({}, {}, {}, {"reduction": "sum"}, {"reduction": "batch_sum"})
        classes = shape[-1]
        numbers = [
            ([], ["MSE", reduction], "numbers"),
            ([], ["MAE", reduction], "numbers"),
            ([], ["Huber", {"delta": self.real(0.3, 2)} | reduction], "numbers"),
            ([], ["LogCosh", reduction], "numbers"),
            ([], ["PoissonNLL", reduction], "counts"),
            ([], ["BinaryCrossEntropy", {"from_logits": True} | reduction
                  | self.one({}, {"pos_weight": self.real(0.3, 3)})], "shares"),
            ([["Sigmoid", {}]], ["BinaryCrossEntropy", reduction], "shares"),
            ([], [self.one("Hinge", "SquaredHinge"), reduction], "signs"),
        ]
        if classes > 1:
            softmax = [["Softmax", {}]]
            numbers += [
                ([], ["CosineSimilarity", reduction], "numbers"),
                (softmax, ["CrossEntropy", reduction], "class numbers"),
                (softmax, ["CrossEntropy", reduction], "probabilities"),
                (softmax, ["KLDivergence", reduction], "probabilities"),
                ([], ["CrossEntropy", {"from_logits": True} | reduction
                      | self.one({}, {"label_smoothing": self.real(0.05, 0.3)})],
                 self.one("class numbers", "probabilities")),
                ([], ["CrossEntropy", {"from_logits": True, "weight": [self.real(0.3, 3) for _ in range(classes)]}],
                 "class numbers"),
                ([], ["CrossEntropy", {"from_logits": True, "ignore_index": self.whole(0, classes - 1)}],
                 "class numbers"),
            ]
        if classes % 2 == 0:
            numbers.append(([], ["GaussianNLL", {"epsilon": 1e-6} | reduction], "numbers"))
        return self.one(*numbers)

    def recipe(self):
        kind = self.one("dense", "dense", "sequence", "image", "words")
        shape, count = {
            "dense": lambda: (self.whole(2, 5),),
            "sequence": lambda: (self.whole(4, 7), self.whole(2, 4)),
            "image": lambda: (self.whole(4, 6), self.whole(4, 6), self.whole(2, 3)),
            "words": lambda: (self.whole(3, 4),),
        }[kind](), self.whole(2, 5)
        given, words, specs = shape, self.whole(4, 8) if kind == "words" else 0, []
        if words:
            specs.append(["Embedding", {"vocabulary": words, "units": self.whole(2, 3)}])
            shape = module(specs[0], shape)[1]
        for _ in range(count):
            spec = self.spatial(shape) if len(shape) > 1 and kind != "words" else self.dense(shape)
            alone = shape[-1] < 2 and (spec[0].endswith(("Norm", "Softmax")) or spec[0] in ("Residual", "Parallel"))
            if alone or (spec[0].endswith("Norm") and math.prod(shape) < 3):
                continue
            specs.append(spec)
            shape = module(spec, shape)[1]
            if min(shape) < 1 or math.prod(shape) > 300:
                return None
        if len(shape) > 1 and self.chance(0.8):
            pool = f"{self.one('GlobalAveragePool', 'GlobalMaxPool')}{len(shape) - 1}D"
            specs.append([self.one("Flatten", pool), {}])
            shape = module(specs[-1], shape)[1]
        specs.append(["Linear", {"units": self.whole(1, 4)}])
        shape = (*shape[:-1], specs[-1][1]["units"])
        last, error, targets = self.error(shape)
        specs += last
        output = (*shape[:-1], shape[-1] // 2) if error[0] == "GaussianNLL" else shape
        rows = self.whole(5, 12)
        batch_size = self.whole(3, rows)
        every = list(flat(specs))
        steps = self.whole(2, 4)
        plain = all(name in ("Linear", "Sigmoid", "Tanh", "ReLU", "LayerNorm", "Softmax") for name, *_ in every)
        rule = self.rule(plain)
        each = -(-rows // batch_size)
        if rows % batch_size == 1 and any(name == "BatchNorm" for name, *_ in every):
            return None
        rated = rule[0] not in ("ASGD", "Rprop") and self.chance(0.25)
        rates = [self.real(0.2 * rule[1]["lr"], 1.5 * rule[1]["lr"]) for _ in range(steps * each * rated)]
        owners = [k for k, (name, *_) in enumerate(every) if "Norm" in name or "Conv" in name or name == "Linear"]
        by_rows = not error[1].keys() & {"reduction", "weight", "ignore_index"}
        return {
            "seed": self.seed,
            "input": list(given),
            "words": words,
            "layers": specs,
            "output": list(output),
            "targets": targets,
            "loss": error,
            "optimizer": rule,
            "rates": rates,
            "clip": self.one(None, None, None, {"norm": self.real(0.05, 1)}, {"value": self.real(0.02, 0.3)}),
            "frozen": self.one(*owners) if len(owners) > 1 and self.chance(0.25) else None,
            "weighted": by_rows and self.chance(0.3),
            "rows": rows,
            "batch_size": batch_size,
            "epochs": steps,
        }


def told(recipe):
    """The recipe with what PyTorch made of it, or None where it does not decide."""
    try:
        losses, final, moved = trained(recipe)
        others, nudged, _ = trained(recipe, 1e-12)
    except (RuntimeError, ValueError, ZeroDivisionError) as error:  # an image too small, all frozen, all ignored
        return print(f"{recipe['seed']}: {error}"[:150], file=sys.stderr)
    if not (np.isfinite(final).all() and np.isfinite(losses).all() and moved > 1e-3 and np.abs(final).max() < 100):
        return None
    off = max(np.abs(a - b).max() / np.abs(a).max() for a, b in ((losses, others), (final, nudged)))
    return (recipe | {"numbers": len(final)}, losses, final) if off < 1e-10 else None


def main(count, path, first):
    found, seed = [], first
    while len(found) < count:
        recipe = Draw(seed).recipe()
        created = told(recipe) if recipe else None
        found += [created] if created and len(created[2]) < 250 else []
        seed += 1
    about = {"library": "torch", "version": torch.__version__.split("+")[0], "script": Path(__file__).name}
    text = json.dumps(about | {"cases": [recipe for recipe, _, _ in found]})
    np.savez_compressed(
        path,
        about=np.frombuffer(text.encode(), np.uint8),
        losses=np.concatenate([losses for _, losses, _ in found]),
        finals=np.concatenate([final for _, _, final in found]),
    )
    print(f"{count} trainings of {seed - first} drawn, {Path(path).stat().st_size} bytes")


if __name__ == "__main__":
    count, path, first = [*sys.argv[1:], *(CASES, STORED, 0)[len(sys.argv) - 1 :]]
    main(int(count), path, int(first))
