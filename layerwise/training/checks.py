"""Whether a net, its loss, its optimizer and its metrics go together, and what is taken if nothing is given."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from layerwise import layers, loss as _loss, optim as _optim
from layerwise.core import habits
from layerwise.training import metrics as _metrics

Array = np.ndarray


def check_callable(what: str, value: Any, usual: str) -> None:
    """TypeError for what is no optimizer, or no loss. `usual` is the example if no other suggests itself."""
    home: Any = {"optim": _optim, "loss": _loss}[what]
    if isinstance(value, type):
        known = f"{what}." if getattr(home, value.__name__, None) is value else ""
        parameters = list(inspect.signature(value.__init__).parameters.values())[1:]  # type: ignore[misc]
        needed = any(each.default is each.empty and each.kind < each.VAR_POSITIONAL for each in parameters)
        example = f"{known}{value.__name__}({'...' if needed else ''})"
        raise TypeError(f"{what} is the class {value.__name__}: make an instance, such as {example}.")
    if not callable(value):
        way = habits.instead(what, value, home.__all__) if isinstance(value, str) else None
        example = way.replace("(...)", "()") if way else f"{what}.{usual}()"
        raise TypeError(f"{what} is a callable, such as {example}, got {value!r:.200}.")


def check_optimizer(net: Any, optim: Any, loss: Any) -> None:
    """An error where this optimizer can't train this net with this loss."""
    if isinstance(optim, _optim.Optimizer):
        optim.check(net)
        for name in optim.hyper:
            getattr(optim, name)  # refuses what a schedule gives for the first step, if it is out of range
    if net.copies is not None and not (isinstance(optim, _optim.Optimizer) and getattr(loss, "stackable", False)):
        raise TypeError("a stack of copies is trained by an Optimizer of ours and a loss that is `stackable`.")


def check_smallest(net: Any, x: Array) -> None:
    """A batch that may be too small for a layer is tried on a copy of the net."""
    if len(x) < net.min_batch:
        net.copy()(x, training=True)


def check_first(net: Any, loss: Any, x: Array) -> None:
    """ValueError if the loss can't take the predictions for x. Some losses can tell only from the predictions."""
    asks = isinstance(loss, _loss.Loss) and type(loss).check_pred is not _loss.Loss.check_pred
    if asks and not ends_in_softmax(net):
        pred = (net if net.input_shape is not None else net.copy()).predict(x)
        if np.isfinite(pred).all():  # else the training says where it went wrong
            loss.check_pred(pred)


def last_layer(net: Any) -> layers.Layer:
    """The last layer. If that is a Model, it is the last layer within; other containers do more than chain."""
    last = net.layers[-1]
    while isinstance(last, layers.Model):
        last = last.layers[-1]
    return last


def ends_in_softmax(net: Any) -> bool:
    return isinstance(last_layer(net), layers.Softmax)


def usual_loss(net: Any, y: Any) -> Any:
    """The loss for targets y if none is given."""
    if ends_in_softmax(net):
        return _loss.CrossEntropy()
    if isinstance(last_layer(net), layers.Sigmoid) and y is not None and ((y >= 0) & (y <= 1)).all():
        return _loss.BinaryCrossEntropy()
    return _loss.MSE()


def is_multilabel(net: Any, loss: Any) -> bool:
    """Whether each column of the output is a yes or no of its own, and not one class of several."""
    of = last_layer(net).probabilities_of
    return of == "labels" or (of != "classes" and bool(getattr(loss, "binary", False)))


def named_metrics(net: Any, metrics: Any, loss: Any) -> dict[str, Any]:
    """Name -> metric, as this net and this loss have it."""
    raw_scores, ignored = (getattr(loss, name, None) for name in ("takes_raw_scores", "ignore_index"))
    return _metrics.named(metrics, bool(raw_scores), is_multilabel(net, loss), ignored)


def doubts(net: Any, loss: Any) -> Iterator[str]:
    """What a training warns of: it is possible, but hardly anyone means it."""
    if any(leaf.parameters for leaf in net.leaf_layers()) and not net.trainable:
        yield "every layer with parameters is frozen, so that this training changes none: set layer.frozen = False."
    row = [
        each
        for each in _in_a_row(net)
        if not (each.training_only or isinstance(each, (layers.Flatten, layers.Reshape)))
    ]
    for below, above in itertools.pairwise(row):
        if isinstance(below, layers.Softmax) and isinstance(above, layers.Softmax):
            yield f"{above.label} is on top of {below.label}: gradients are close to 0 there. Leave one out."
    puts_a_sigmoid = getattr(loss, "binary", False) and getattr(loss, "from_logits", False)
    if puts_a_sigmoid and isinstance(last_layer(net), layers.Sigmoid):
        yield f"{loss!r} takes raw scores, and the net ends in a Sigmoid, on which it puts another: leave one out."


def _in_a_row(net: Any) -> Iterator[layers.Layer]:
    """The layers one after the other, those of a Model or a Chain within too."""
    for layer in net.layers:
        if isinstance(layer, layers.Model) or type(layer) is layers.Chain:
            yield from _in_a_row(layer)
        else:
            yield layer


__all__ = [
    "check_callable", "check_first", "check_optimizer", "check_smallest", "doubts", "ends_in_softmax", "named_metrics",
    "usual_loss",
]  # fmt: skip
