"""Nets as estimators of scikit-learn: NetClassifier and NetRegressor, for Pipeline, GridSearchCV, cross_val_score, ...

    clf = make_pipeline(StandardScaler(), NetClassifier((64, 32), "gelu", dropout=0.2, optim="adamw"))

Arguments are called as those of sklearn's MLPClassifier where they mean the same, else as in layerwise. Needs the
extra `sklearn`. Shapes: N rows, D features, K classes or outputs.
"""

from __future__ import annotations

import contextlib
import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from layerwise import layers as _layers
from layerwise import loss as _loss
from layerwise import model as _model
from layerwise import optim as _optim
from layerwise.batches import check_unmasked
from layerwise.callbacks import EarlyStopping, _epochs
from layerwise.compare import rule_named

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier, is_regressor
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state, column_or_1d, compute_sample_weight
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError('layerwise.estimators needs scikit-learn 1.6: pip install "layerwise[sklearn]"') from error

Array = np.ndarray

ACTIVATIONS: dict[str, Any] = {
    name.lower(): getattr(_layers, name)
    for name in (
        "Sigmoid", "Tanh", "ReLU", "LeakyReLU", "PReLU", "ELU", "SELU", "GELU", "SiLU", "Softplus", "Softsign", "Mish",
        "HardTanh", "ReLU6", "HardSigmoid", "HardSwish",
    )
}  # fmt: skip
ACTIVATIONS |= {"logistic": _layers.Sigmoid, "identity": None}  # scikit-learn's names


@dataclass(eq=False, repr=False, kw_only=True)
class _Net(BaseEstimator):
    """What both estimators are: a net around scikit-learn's conventions."""

    # Each field is an argument of __init__, which stores it and does nothing else; fit looks at it.
    hidden_layer_sizes: Any = field(default=(100,), kw_only=False)
    activation: Any = field(default="relu", kw_only=False)
    dropout: Any = 0.0
    layers: Any = None
    optim: Any = "adam"
    loss: Any = None
    max_iter: int = 200
    batch_size: int = 32
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    n_iter_no_change: int = 10
    early_stopping: bool = False
    validation_fraction: float = 0.1
    warm_start: bool = False
    callbacks: Any = ()
    dtype: str = "float32"
    verbose: bool = False

    # The optimizer's hyper-parameters are parameters too: set_params(optim__lr=0.01), {"optim__lr": [...]} in a grid.

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments; with `deep` the optimizer's hyper-parameters too, as optim__lr and so on."""
        params = super().get_params(deep)
        if deep:
            with contextlib.suppress(ValueError):  # no such name: fit says so
                params |= {f"optim__{name}": value for name, value in _hyper(self._rule()).items()}
        return params

    def set_params(self, **params: Any) -> Any:
        """Set arguments, and the optimizer's hyper-parameters as optim__lr=0.01; `optim` is then a new object."""
        hyper = {name: params.pop(name) for name in list(params) if name.startswith("optim__")}
        super().set_params(**params)
        if hyper:
            rule = self._rule()
            for name, value in hyper.items():
                rule = _with(rule, name.removeprefix("optim__"), value)
            self.optim = rule
        return self

    @property
    def loss_curve_(self) -> list[float]:
        """The training loss after each epoch."""
        return self.history_.get("loss", [])

    # Training.

    def _fit(self, *arguments: Any, **told: Any) -> Any:
        """`_trained`; an error leaves the estimator as it was, what scikit-learn noted of x included."""
        before = dict(self.__dict__)
        try:
            return self._trained(*arguments, **told)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _trained(self, x: Any, y: Any, sample_weight: Any, anew: bool, classes: Any = None, epochs: int = 0) -> Any:
        """Train a new net, or with `anew` False the one there is; for `epochs`, else max_iter with early stopping."""
        _layers._verbose(self.verbose)
        for each in fields(self):
            if each.type == "bool" and each.name != "verbose":
                _layers._flag(each.name, getattr(self, each.name))
        hidden = self._hidden()
        told: dict[str, Any] = {"dtype": self._x_dtype(hidden), "multi_output": True, "y_numeric": is_regressor(self)}
        for what, data in (("X", x), ("y", y), ("sample_weight", sample_weight)):
            check_unmasked(what, data)
        x, y = validate_data(self, x, y, reset=anew, **told)
        weight = None if sample_weight is None else _relative(_check_sample_weight(sample_weight, x, dtype=np.float64))
        target, loss, seen = self._target(y, weight, anew, classes)
        weight, by_class = self._class_weighted(y, weight, seen)
        parts = [*hidden, *self._head(loss, self._width(target, seen))]
        if anew:
            # None is a seed from the system: NumPy's global generator stays untouched.
            drawn = None if self.random_state is None else check_random_state(self.random_state).randint(2**31 - 1)
            net = _model.Model(parts, seed=drawn, dtype=self.dtype)
            rule = self._new_rule()
        else:
            net = self.net_
            if list(map(repr, parts)) != list(map(repr, net)):
                raise ValueError(
                    f"what is there to go on with is {list(net)}, and now {parts} is asked for: set "
                    f"warm_start=False, or take a new estimator."
                )
            rule = net.optim if epochs else self._new_rule()
        watching = self.callbacks if isinstance(self.callbacks, (list, tuple, type(None))) else (self.callbacks,)
        held = None
        if not epochs:
            # Checked here, so that a message has the names that the user gave.
            epochs, tol, patience = _layers._count("max_iter", self.max_iter), _layers._real("tol", self.tol, 0), 10**9
            if self.n_iter_no_change != math.inf:
                patience = _epochs("n_iter_no_change", self.n_iter_no_change)
            x, target, weight, held = self._held_out(net, x, y, target, weight, by_class)
            watched = "loss" if held is None else "val_loss"
            watching = [*(watching or ()), EarlyStopping(watched, patience, tol, restore_best=held is not None)]
        history = net.train(
            x,
            target,
            rule,
            loss,
            epochs=epochs,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            validation=held,
            callbacks=watching,
            sample_weight=weight,
            class_weight=by_class,
            verbose=self.verbose,
        )
        self.__dict__.update(seen)
        self.net_: Any = net
        if anew:
            self.history_: Any = history
        else:
            epochs = self.history_.epochs
            for name in self.history_ | history:  # what one of the two did not look at is NaN there
                values = self.history_.setdefault(name, [math.nan] * epochs)
                values += history.get(name, [math.nan] * history.epochs)
            self.history_.interrupted = history.interrupted
        self.n_iter_ = self.history_.epochs
        return self

    def _held_out(
        self, net: Any, x: Array, y: Array, target: Array, weight: Any, by_class: Any
    ) -> tuple[Array, Array, Any, Any]:
        """x, targets and weights to train on, and the (x, targets, weights) to stop early by, or None."""
        if not self.early_stopping:
            return x, target, weight, None
        _layers._real("validation_fraction", self.validation_fraction, math.ulp(0), 1)
        here, there = train_test_split(
            np.arange(len(x)),
            test_size=self.validation_fraction,
            random_state=net.seed % 2**32,
            stratify=y if is_classifier(self) and y.ndim == 1 else None,
        )
        own, held = ([x[k], target[k], None if weight is None else weight[k]] for k in (here, there))
        if by_class is not None:  # `train` knows the classes of what it trains on alone
            of_rows = compute_sample_weight(self.class_weight, y)[there]
            held[2] = of_rows if weight is None else held[2] * of_rows
        return own[0], own[1], own[2], held

    def _hidden(self) -> list[_layers.Layer]:
        """New layers, all but the last."""
        if self.layers is not None:
            if not isinstance(self.layers, (list, tuple)):
                raise TypeError(f"layers is a list of layers, got {self.layers!r}.")
            if self.layers and isinstance(self.layers[-1], (_layers.Softmax, _layers.LogSoftmax)):
                raise ValueError("layers are all but the last: leave out the Softmax and the Linear before it.")
            return [each.copy() if isinstance(each, _layers.Layer) else each for each in self.layers]
        sizes = self.hidden_layer_sizes
        sizes = (sizes,) if isinstance(sizes, (int, np.integer)) else sizes
        if not isinstance(sizes, (list, tuple, np.ndarray)):
            raise TypeError(f"hidden_layer_sizes is a tuple of integers, got {sizes!r}.")
        made: list[_layers.Layer] = []
        activations = _each("activation", self.activation, len(sizes))
        rates = _each("dropout", self.dropout, len(sizes))
        for units, activation, rate in zip(sizes, activations, rates, strict=True):
            made += [_linear(_layers._count("hidden_layer_sizes", units)), *_activation(activation)]
            if rate != 0:
                made.append(_layers.Dropout(rate))
        return made

    def _x_dtype(self, hidden: Sequence[_layers.Layer]) -> Any:
        return np.int64 if hidden and getattr(hidden[0], "integer_input", False) else np.dtype(self.dtype)

    def _rule(self) -> Any:
        """The optimizer as an object."""
        return rule_named(self.optim)() if isinstance(self.optim, str) else self.optim

    def _new_rule(self) -> Any:
        """A copy, so that no fit changes another's."""
        rule = copy.deepcopy(self._rule())
        if isinstance(rule, _optim.Optimizer):
            rule.reset()
        return rule

    def _predicted(self, x: Any) -> Array:
        check_is_fitted(self)
        check_unmasked("X", x)
        x = validate_data(self, x, dtype=np.int64 if self.net_.integer_input else self.net_.dtype, reset=False)
        return self.net_.predict(x)

    # What the two differ in.

    @abstractmethod
    def _target(self, y: Array, weight: Any, anew: bool, classes: Any) -> tuple[Array, Any, dict[str, Any]]:
        """The targets as the net takes them, the loss, and the attributes that tell what the outputs mean."""

    @abstractmethod
    def _width(self, target: Array, seen: dict[str, Any]) -> int:
        """How many outputs there are."""

    @abstractmethod
    def _head(self, loss: Any, width: int) -> list[_layers.Layer]:
        """The last layers."""

    def _class_weighted(self, y: Array, weight: Any, seen: dict[str, Any]) -> tuple[Any, Any]:
        """The weights of the rows, and those of the class numbers."""
        return weight, None


@dataclass(eq=False, repr=False, kw_only=True)
class NetClassifier(ClassifierMixin, _Net):
    """A net that tells classes apart; `fit`, `partial_fit`, `predict`, `predict_proba`, `score`;
    `decision_function` with Hinge, which has no probabilities.

    hidden_layer_sizes  units of the hidden Linear layers
    activation          "relu", "gelu", ... or an activation layer; or one for each hidden layer
    dropout             a rate, after each hidden activation; or one for each
    layers              in place of these three: a list of all layers but the last, which is copied; the rows of x may
                        be given another shape by a Reshape first
    optim               a name, or an Optimizer, of which each fit takes a copy. optim__lr and so on are parameters
    loss                any; None is CrossEntropy, for labels in columns of 0 and 1 BinaryCrossEntropy. The last layers
                        follow from it: Linear, and Softmax or Sigmoid if it takes probabilities
    max_iter            epochs at most; n_iter_ == max_iter tells that it was the end
    tol, n_iter_no_change  fit ends when the loss has not fallen by more than tol for so many epochs in a row
    early_stopping      look at the loss of a part held out, `validation_fraction`, instead, and keep the best weights
    random_state        an integer decides everything (on the same machine, with the same packages and number of BLAS
                        threads: the same bits); None: a new seed from the system
    warm_start          fit goes on from the weights that are there, with a new optimizer; partial_fit keeps that too
    class_weight        "balanced", or label -> weight, taken as it is, while sample_weight is scaled to mean 1; of
                        labels in columns the product over a row's columns, which is scaled too. See Model.train
    callbacks, dtype, verbose, shuffle, batch_size  as in Model and train

    Afterwards: `net_`, `history_`, `loss_curve_`, `n_iter_` (epochs since the net was made), `classes_`.
    """

    class_weight: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X (N, D) and y, labels (N,) of any kind, or (N, K) of 0 and 1, each column a label of its own."""
        return self._fit(X, y, sample_weight, not (self.warm_start and hasattr(self, "net_")))

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """One epoch over these rows; the first call tells all `classes`, where y does not hold them all."""
        if self.class_weight == "balanced":
            raise ValueError('class_weight="balanced" needs all rows at once: give {label: weight} to partial_fit.')
        return self._fit(X, y, sample_weight, not hasattr(self, "net_"), classes, epochs=1)

    def predict(self, X: Any) -> Array:
        """The label of each row, (N,); or (N, K) of 0 and 1."""
        scores = self._scores(X)
        if self._labels:
            marks = getattr(self.net_.loss, "labels", None) or (0, 1)
            return (scores > sum(marks) / 2).astype(np.int64)
        return self.classes_[scores.argmax(1)]

    @available_if(lambda self: getattr(self.loss, "labels", None) is None)
    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, in the order of `classes_`, (N, K)."""
        p = self._scores(X)
        if self._labels or not getattr(self.net_.loss, "binary", False):
            return p
        return p / p.sum(1, keepdims=True)  # each class had a probability of its own

    @available_if(lambda self: getattr(self.loss, "labels", None) is not None)
    def decision_function(self, X: Any) -> Array:
        """The score of each class, (N, K); of two classes how far the second is above the first, (N,)."""
        scores = self._scores(X)
        return scores if self._labels or len(self.classes_) != 2 else scores[:, 1] - scores[:, 0]

    def _scores(self, x: Any) -> Array:
        """Probabilities; of a loss with labels of its own, which has none, the raw scores."""
        scores = self._predicted(x)
        loss = self.net_.loss
        if getattr(loss, "takes_raw_scores", False) and getattr(loss, "labels", None) is None:
            scores = _to_probabilities(loss).copy(scores.dtype)(scores)
        return scores

    def _target(self, y: Array, weight: Any, anew: bool, classes: Any) -> tuple[Array, Any, dict[str, Any]]:
        check_classification_targets(y)
        labels = type_of_target(y) == "multilabel-indicator"
        if y.ndim == 2 and not labels:
            if y.shape[1] > 1:
                raise ValueError(f"y is one label a row, or columns of 0 and 1; got {type_of_target(y)} {y.shape}.")
            y = column_or_1d(y, warn=True)
        loss = self._loss(labels) if anew else self.net_.loss
        found = np.arange(y.shape[1]) if labels else np.unique(y)
        if not anew:
            known, same = self.classes_, self._labels == labels
        else:
            known, same = found if classes is None else np.unique(classes), True
        if classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(f"the classes are {known.tolist()} since the first fit, got {list(classes)}.")
        if not (same and np.isin(found, known).all()):
            raise ValueError(f"y has the classes {found.tolist()}, and the net was made for {known.tolist()}.")
        if len(known) < 2:
            raise ValueError(f"a classifier tells two or more classes apart, got one class, {known.tolist()}.")
        seen = {"classes_": known, "_labels": labels}
        if labels:
            columns = y.astype(self.dtype)
        else:
            numbers = np.searchsorted(known, y)
            if getattr(loss, "takes_class_numbers", False):
                return numbers, loss, seen
            columns = np.eye(len(known), dtype=self.dtype)[numbers]
        low, high = getattr(loss, "labels", None) or (0, 1)
        return low + (high - low) * columns, loss, seen

    def _loss(self, labels: bool) -> Any:
        if labels and not (self.loss is None or getattr(self.loss, "binary", False)):
            raise ValueError(
                f"y has columns of 0 and 1, whose loss is BinaryCrossEntropy, or another one that is `binary`, got "
                f"{self.loss!r}."
            )
        usual = _loss.BinaryCrossEntropy() if labels else _loss.CrossEntropy()
        return usual if self.loss is None else copy.deepcopy(self.loss)

    def _width(self, target: Array, seen: dict[str, Any]) -> int:
        return len(seen["classes_"])

    def _head(self, loss: Any, width: int) -> list[_layers.Layer]:
        raw = getattr(loss, "takes_raw_scores", False)
        return [_linear(width)] if raw else [_linear(width), _to_probabilities(loss)]

    def _class_weighted(self, y: Array, weight: Any, seen: dict[str, Any]) -> tuple[Any, Any]:
        if self.class_weight is None:
            return weight, None
        of_rows = compute_sample_weight(self.class_weight, y)
        if seen["_labels"]:  # a row has several labels, whose weights are multiplied
            return of_rows if weight is None else weight * of_rows, None
        found, first = np.unique(y, return_index=True)
        return weight, dict(
            zip(np.searchsorted(seen["classes_"], found).tolist(), of_rows[first].tolist(), strict=True)
        )

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows whose label is right; weighted by `sample_weight`, whose size as a whole means nothing."""
        return super().score(X, y, None if sample_weight is None else _relative(sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self.loss is None or getattr(self.loss, "binary", False)
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class NetRegressor(RegressorMixin, _Net):
    """A net that predicts numbers; `fit`, `partial_fit`, `predict`, `score`. Arguments as of NetClassifier, and

    loss            any; None is MSE. Of PoissonNLL(), which takes logarithms, `predict` gives the rates; of
                    GaussianNLL() the means (net_.predict has the logarithms of variances, of scaled targets, too)
    scale_targets   each column of y is brought to mean 0 and deviation 1 for the training, and predictions back; with
                    MSE, MAE, Huber and LogCosh, whose numbers in `history_` are then of that scale

    Afterwards: `net_`, `history_`, `loss_curve_`, `n_iter_` (epochs since the net was made).
    """

    scale_targets: bool = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X (N, D) and y (N,) or (N, K)."""
        return self._fit(X, y, sample_weight, not (self.warm_start and hasattr(self, "net_")))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One epoch over these rows; the scale of the targets is that of the first call's."""
        return self._fit(X, y, sample_weight, not hasattr(self, "net_"), epochs=1)

    def predict(self, X: Any) -> Array:
        """A number for each row, (N,), or (N, K) as y had them."""
        pred = self._predicted(X)
        if isinstance(self.net_.loss, _loss.Loss):
            pred = self.net_.loss.expected(pred)
        pred = pred * self._scale + self._mean
        return pred[:, 0] if self._flat else pred

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2 of the predictions; weighted by `sample_weight`, whose size as a whole means nothing."""
        return super().score(X, y, None if sample_weight is None else _relative(sample_weight))

    def _target(self, y: Array, weight: Any, anew: bool, classes: Any) -> tuple[Array, Any, dict[str, Any]]:
        y = np.asarray(y, np.float64)
        flat = y.ndim == 1
        y = y[:, None] if flat else y
        if not anew:
            if y.shape[1] != len(self._mean):
                raise ValueError(f"y has {y.shape[1]} columns, and the net was made for {len(self._mean)}.")
            seen = {"_mean": self._mean, "_scale": self._scale, "_flat": self._flat}
            return (y - self._mean) / self._scale, self.net_.loss, seen
        loss = _loss.MSE() if self.loss is None else copy.deepcopy(self.loss)
        mean, scale = np.zeros(y.shape[1]), np.ones(y.shape[1])
        if self.scale_targets and getattr(loss, "location_scale", False):
            mean = np.average(y, 0, weight)
            scale = np.sqrt(np.average((y - mean) ** 2, 0, weight))
            scale[scale <= 1e-12 * np.abs(mean)] = 1.0  # a column that is the same in every row
        return (y - mean) / scale, loss, {"_mean": mean, "_scale": scale, "_flat": flat}

    def _width(self, target: Array, seen: dict[str, Any]) -> int:
        return target.shape[1] * getattr(self.loss, "outputs", 1)

    def _head(self, loss: Any, width: int) -> list[_layers.Layer]:
        return [_linear(width)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _relative(weight: Any) -> Array:
    """Weights of samples with mean 1."""
    return _loss.relative_weight(_loss.Loss.checked_weight(weight, len(np.atleast_1d(weight))))


def _each(name: str, value: Any, count: int) -> list[Any]:
    """A value for each hidden layer, of one for all or of a list."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values, and there are {count} hidden layers: one for each, or one.")
    return values


def _to_probabilities(loss: Any) -> _layers.Layer:
    """The layer that makes the probabilities which a loss takes, of raw scores."""
    return _layers.Sigmoid() if getattr(loss, "binary", False) else _layers.Softmax()


def _linear(units: int) -> _layers.Linear:
    """A Linear whose weights start as MLPClassifier's do: uniform, by Glorot and Bengio 2010."""
    return _layers.Linear(units, init="glorot")


def _activation(value: Any) -> list[_layers.Layer]:
    """A new activation layer, of a name or of such a layer; none for the identity."""
    if isinstance(value, _layers.Layer):
        return [value.copy()]
    if not isinstance(value, str) or value.lower() not in ACTIVATIONS:
        raise ValueError(f"activation is a layer or one of {', '.join(sorted(ACTIVATIONS))}, got {value!r}.")
    made = ACTIVATIONS[value.lower()]
    return [] if made is None else [made()]


def _hyper(rule: Any) -> dict[str, Any]:
    """The hyper-parameters of an optimizer and of what it goes around; a plain function has none."""
    if not isinstance(rule, _optim.Optimizer):
        return {}
    within = _hyper(rule.optimizer) if isinstance(rule, _optim.Wrapper) else {}
    return {**within, **rule.hyper}


def _with(rule: Any, name: str, value: Any) -> Any:
    """Another optimizer like it, but for one hyper-parameter, its own or of what it goes around."""
    if name not in _hyper(rule):
        known = ", ".join(f"optim__{each}" for each in _hyper(rule)) or "none that can be set"
        raise ValueError(f"optim is {rule!r} and has no parameter optim__{name}; it has {known}.")
    if name not in rule.hyper:
        name, value = "optimizer", _with(rule.optimizer, name, value)
    return type(rule)(**{**rule.config(), name: value})


__all__ = ["NetClassifier", "NetRegressor"]
