"""Names from other frameworks -> what to write here, in one line. Looked up only where a name does not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

CONVOLUTION = "layers.{}(filters, kernel_size); the data tell how many channels come in"
RECURRENT = "a layer of one's own, class {}(layers.Layer): there are no recurrent or attention layers"
TRAIN = "net.train(x, y, optim=optim.Adam(), loss=loss.CrossEntropy(), epochs=10)"
FROZEN = "layer.frozen = True; gradients need no flag"
OVERWRITTEN = "nothing: each backward overwrites the gradients"
WEIGHTS = "net.state_dict(), or layer.w and layer.b"
ON_CPU = "nothing: all arrays are NumPy's, on the CPU"

MODULES: dict[str, dict[str, str]] = {
    "layers": {
        "Dense": "layers.Linear(units)",
        "LazyLinear": "layers.Linear(units)",
        **dict.fromkeys(
            ("BatchNormalization", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d"),
            "layers.BatchNorm(); the data tell how many channels come in",
        ),
        "LayerNormalization": "layers.LayerNorm()",
        "GroupNormalization": "layers.GroupNorm(groups)",
        "Activation": "a layer for each, such as layers.ReLU()",
        "Sequential": "layers.Model([layers.Linear(8), layers.Softmax()])",
        "Module": "layers.Layer, with forward(x, training) and backward(grad)",
        **dict.fromkeys(("Input", "InputLayer"), "nothing: the data tell the shape, or net.build((784,))"),
        "Identity": "nothing, or layers.Lambda(lambda x: x, lambda x, grad: grad)",
        **dict.fromkeys(("Concatenate", "Add"), 'layers.Parallel(branches, join="concatenate" or "add")'),
        "Conv1d": CONVOLUTION.format("Conv1D"),
        "Conv2d": CONVOLUTION.format("Conv2D"),
        "ConvTranspose2d": CONVOLUTION.format("ConvTranspose2D"),
        "Conv2DTranspose": CONVOLUTION.format("ConvTranspose2D"),
        **dict.fromkeys(("MaxPooling1D", "MaxPool1d"), "layers.MaxPool1D(size)"),
        **dict.fromkeys(("MaxPooling2D", "MaxPool2d"), "layers.MaxPool2D(size)"),
        **dict.fromkeys(("AveragePooling1D", "AvgPool1d"), "layers.AveragePool1D(size)"),
        **dict.fromkeys(("AveragePooling2D", "AvgPool2d"), "layers.AveragePool2D(size)"),
        **dict.fromkeys(("GlobalAveragePooling2D", "AdaptiveAvgPool2d"), "layers.GlobalAveragePool2D()"),
        **dict.fromkeys(("GlobalMaxPooling2D", "AdaptiveMaxPool2d"), "layers.GlobalMaxPool2D()"),
        **dict.fromkeys(
            ("Dropout1d", "Dropout2d", "SpatialDropout1D", "SpatialDropout2D"), "layers.SpatialDropout(rate)"
        ),
        **dict.fromkeys(("ZeroPadding2D", "ZeroPad2d"), "layers.ZeroPad2D(padding)"),
        **dict.fromkeys(("UpSampling2D", "Upsample"), "layers.UpSample2D(factor)"),
        "Swish": "layers.SiLU()",
        **{name: RECURRENT.format(name) for name in ("LSTM", "GRU", "RNN", "SimpleRNN", "MultiHeadAttention")},
    },
    "loss": {
        "L1Loss": "loss.MAE()",
        "SmoothL1Loss": "loss.Huber(delta)",
        "BCELoss": "loss.BinaryCrossEntropy()",
        "BCEWithLogitsLoss": "loss.BinaryCrossEntropy(from_logits=True)",
        "CrossEntropyLoss": "loss.CrossEntropy(from_logits=True), or loss.CrossEntropy() after a Softmax",
        "NLLLoss": "loss.CrossEntropy() after a Softmax",
        "KLDivLoss": "loss.KLDivergence()",
        "PoissonNLLLoss": "loss.PoissonNLL()",
        "Poisson": "loss.PoissonNLL(log_input=False)",
        "MeanSquaredError": "loss.MSE()",
        "MeanAbsoluteError": "loss.MAE()",
        "CategoricalCrossentropy": "loss.CrossEntropy()",
        "SparseCategoricalCrossentropy": "loss.CrossEntropy(); it takes class numbers too",
    },
    "optim": {
        **dict.fromkeys(
            ("lr_scheduler", "schedules", "StepLR", "CosineAnnealingLR", "ReduceLROnPlateau"),
            "optim.Adam(lr=schedule), of layerwise.schedules, or callbacks.ReduceOnPlateau",
        ),
        **dict.fromkeys(("clip_grad_norm_", "clip_by_global_norm"), "optim.Clip(optim.Adam(), norm=1.0)"),
    },
}  # fmt: skip

# Of a net and its layers.
NET = {
    **dict.fromkeys(("fit", "fit_generator", "train_on_batch"), TRAIN),
    "compile": f"nothing: optimizer, loss and metrics are arguments of {TRAIN}",
    "add": "layers.Model([layers.Linear(8), layers.Softmax()]), with all layers in one list",
    "eval": "net.predict(x), or net(x): inference is what it does unless net(x, training=True)",
    **dict.fromkeys(("to", "cuda", "cpu"), ON_CPU),
    **dict.fromkeys(("weight", "kernel"), "layer.w"),
    **dict.fromkeys(("get_weights", "named_parameters", "trainable_variables", "trainable_weights"), WEIGHTS),
    "set_weights": "net.load_state_dict(state), or layer.w = array",
    "save_weights": "net.save(path)",
    "load_weights": "net = model.load(path), or net.load_state_dict(state)",
    "load": "net = model.load(path)",
    **dict.fromkeys(("predict_proba", "predict_classes"), "net.predict(x), or net.predict(x).argmax(1) for classes"),
    "score": 'net.evaluate(x, y, metrics="accuracy")',
    "modules": "net.layers, a tuple",
    "zero_grad": OVERWRITTEN,
    "requires_grad": FROZEN,
    "requires_grad_": FROZEN,
}  # fmt: skip

OPTIMIZER = {
    "zero_grad": OVERWRITTEN,
    "param_groups": 'optim.PerLayer({"layers.0*": optim.SGD(), "*": optim.Adam()}), and rule.lr for the rate',
    "apply_gradients": "optim.step(parameters, gradients)",
}

# Arguments.
GIVEN_BY_DATA = "nothing: the data tell how many come in, or net.build((784,))"
ARGUMENTS = {
    "layer": {
        "activation": "the activation as a layer of its own after it, such as layers.ReLU()",
        **dict.fromkeys(
            ("input_shape", "input_dim", "in_features", "in_channels", "num_features"),
            GIVEN_BY_DATA,
        ),
        "normalized_shape": "nothing for the last axis, axes=2 for the last two: the data tell their sizes",
        **dict.fromkeys(("out_features", "embedding_dim", "output_dim"), "units="),
        "out_channels": "filters=",
        "num_embeddings": "vocabulary=",
        "strides": "stride=",
        "dilation_rate": "dilation=",
        "pool_size": "size=",
        "p": "rate=",
        "eps": "epsilon=",
        "use_bias": "bias=",
        "kernel_initializer": "init=",
        "kernel_regularizer": "weight_decay= of the optimizer",
        "negative_slope": "slope=",
        "num_groups": "groups=",
        **dict.fromkeys(("num_parameters", "shared_axes"), "per_channel=True, or nothing for one slope"),
        **dict.fromkeys(("affine", "elementwise_affine"), "scale=False, bias=False"),
        "center": "bias=",
        "count_include_pad": "count_padding=",
        **dict.fromkeys(("min_val", "max_val"), "low= and high="),
        "inplace": "nothing: arrays are reused anyhow",
        **dict.fromkeys(("dim", "axis"), "nothing: it goes over the last axis"),
        "trainable": "layer.frozen = True, afterwards",
    },
    "loss": {
        "size_average": 'reduction="mean" or "sum"',
        "reduce": 'reduction="mean" or "sum"',
        "logits": "from_logits=",
    },
    "optimizer": {
        "learning_rate": "lr=",
        "betas": "beta1= and beta2=",
        "beta_1": "beta1=",
        "beta_2": "beta2=",
        "eps": "epsilon=",
        **dict.fromkeys(("clipnorm", "clipvalue", "global_clipnorm"), "optim.Clip(...) around the optimizer"),
        "params": "nothing: the net is given to train",
        "decay": "a schedule for lr, of layerwise.schedules",
    },
    "net": {
        "validation_split": "validation=0.2",
        "validation_data": "validation=(x, y)",
        "optimizer": "optim=optim.Adam()",
        "criterion": "loss=loss.CrossEntropy()",
        **dict.fromkeys(("lr", "learning_rate"), "optim=optim.Adam(lr=0.001)"),
        **dict.fromkeys(("n_epochs", "num_epochs", "nb_epoch", "max_iter"), "epochs="),
        "initial_epoch": "resume=path, of a callbacks.Checkpoint",
        "patience": "callbacks=callbacks.EarlyStopping(patience=5)",
    },
}  # fmt: skip


class ForeignAttribute:
    """An attribute that things of this kind have in other frameworks. Reading it says what to write here.

    It is not there for `hasattr`, and a class or an object of one's own may have one of that name. (A `__getattr__`
    would do the same, but slow every attribute down.)
    """

    def __init__(self, name: str, table: dict[str, str]) -> None:
        self.name, self.table = name, table

    def __get__(self, thing: Any, kind: Any = None) -> Any:
        raise AttributeError(f"{kind.__name__} has no {self.name!r}: write {self.table[self.name]}.")


class ForeignFlag(ForeignAttribute):
    """One that people set, which would do nothing and say nothing."""

    def __set__(self, thing: Any, value: Any) -> None:
        self.__get__(thing, type(thing))


def tell_foreign_names(cls: type, table: dict[str, str]) -> None:
    """Give a class these attributes of other frameworks."""
    for name in table:
        setattr(cls, name, (ForeignFlag if name == "requires_grad" else ForeignAttribute)(name, table))


def counterpart(text: str) -> tuple[str, dict[str, str]]:
    """What a layer declares as its counterpart: of "Elu(alpha=slope)" the name, and their argument -> our attribute."""
    name, _, given = text.removesuffix(")").partition("(")
    return name, dict(pair.split("=") for pair in given.split(", ") if pair)


def instead(module: str, name: str, known: Iterable[str]) -> str | None:
    """What to write instead of a name that a module does not have; None if the table does not know it."""
    if name in MODULES[module]:
        return MODULES[module][name]
    plain = name.lower().replace("_", "")
    same = {each.lower(): f"{module}.{each}(...)" for each in known}
    same |= {habit.lower(): way for habit, way in MODULES[module].items()}
    return same.get(plain) or same.get(plain.removesuffix("loss"))


def missing(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for a name that a module does not have."""
    way = None if name.startswith("_") else instead(module, name, known)
    return AttributeError(f"module {module!r} has no attribute {name!r}{f': write {way}.' if way else ''}", name=name)


def check_arguments(
    kind: str, what: str, function: Callable[..., Any], given: Iterable[str], known: Iterable[str] = ()
) -> None:
    """TypeError for arguments that come from other frameworks or are misspelt, with what to write.

    `known` are further names that the function takes, if it takes more than its code shows.
    """
    code = getattr(function, "__code__", None)
    if code is None or (code.co_flags & 0x08 and not known):  # **others
        return
    import difflib  # imported only for an error: it takes a millisecond

    names = (*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], *known)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names[1:], 1)
            way = ARGUMENTS[kind].get(name) or (f"{close[0]}=" if close else None)
            if way:
                raise TypeError(f"{what} takes no {name}=: write {way}.")
