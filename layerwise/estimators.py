"""Nets as estimators of scikit-learn: NetClassifier and NetRegressor, for Pipeline, GridSearchCV, cross_val_score, ...

    clf = make_pipeline(StandardScaler(), NetClassifier((64, 32), "gelu", dropout=0.2, optim="adamw"))

Arguments are called as those of sklearn's MLPClassifier where they mean the same, else as in layerwise. Needs the
extra `sklearn`. Shapes: N rows, D features, K classes or outputs.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from types import MethodType
from typing import Any

import numpy as np

from layerwise import layers as _layers, loss as _loss, model as _model, optim as _optim
from layerwise.callbacks import EarlyStopping, ReduceOnPlateau, _epochs
from layerwise.compare import rule_named
from layerwise.core import arguments
from layerwise.core.arguments import check_unmasked
from layerwise.core.parameters import Workspace
from layerwise.training.callables import rules_within

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier, is_regressor
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_array, check_random_state, column_or_1d, compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError('layerwise.estimators needs scikit-learn 1.6: pip install "layerwise[sklearn]"') from error

Array = np.ndarray

ACTIVATIONS: dict[str, Any] = {
    name.lower(): kind
    for name, kind in vars(_layers).items()
    if name in _layers.__all__ and issubclass(kind, _layers.Nonlinearity)
}
ACTIVATIONS |= {"logistic": _layers.Sigmoid, "identity": None}  # scikit-learn's names


class _offered_unless:
    """A method that is not there where `reason(estimator)` is a text, which the AttributeError then says.

    scikit-learn's available_if does the same, with a message that names the attribute alone.
    """

    def __init__(self, reason: Callable[[Any], str | None]) -> None:
        self.reason = reason

    def __call__(self, method: Callable[..., Any]) -> Any:
        self.method = method
        functools.update_wrapper(self, method)
        return self

    def __get__(self, estimator: Any, owner: Any = None) -> Any:
        if estimator is None:
            return self.method
        reason = self.reason(estimator)
        if reason is not None:
            raise AttributeError(f"{type(estimator).__name__}.{self.method.__name__}: {reason}")
        return MethodType(self.method, estimator)


def _needs_all_rows(estimator: Any) -> str | None:
    """Why there is no partial_fit."""
    if getattr(estimator, "class_weight", None) == "balanced":
        return 'class_weight="balanced" needs all rows at once: give {label: weight}.'
    if estimator.early_stopping is True:
        return "early_stopping=True holds out a part of all rows: set early_stopping=False, or call fit."
    with contextlib.suppress(ValueError):  # no such name: fit says so
        for rule in rules_within(estimator._rule()):
            if rule.full_batch:
                return (
                    f"{type(rule).__name__} needs all rows at once: call fit, or take another optimizer, such as Adam."
                )
    return None


def _no_probabilities(estimator: Any) -> str | None:
    """Why there are no probabilities: the loss, such as Hinge, has labels of its own."""
    if getattr(estimator.loss, "labels", None) is None:
        return None
    return f"{estimator.loss!r} has no probabilities: decision_function gives the scores."


class _Adaptive(ReduceOnPlateau):
    """learning_rate="adaptive" of MLPClassifier: the rate is divided by 5 where a fit would end; at 1e-6 it ends.

    The value to improve on is the lowest of all epochs, also where it was lower by less than min_delta.
    """

    def check_run(self, run: Any) -> None:
        try:
            super().check_run(run)
        except ValueError as error:  # in the words of who asked for it
            raise ValueError(str(error).replace("ReduceOnPlateau", 'learning_rate="adaptive"')) from None

    def epoch(self, run: Any, logs: Any) -> bool:  # type: ignore[override]
        value = self.monitor.value(logs)
        self.waited = self.waited + 1 if value > self.best - self.min_delta else 0
        self.best = min(self.best, value)
        if self.waited <= self.patience:
            return False
        self.waited = 0
        rules = [rule for rule in rules_within(run.optim) if "lr" in rule.hyper]
        ends = all(rule.lr <= 1e-6 for rule in rules)
        for rule in rules if not ends else ():
            rule.lr = rule.lr / 5
        return ends


@dataclass(eq=False, repr=False, kw_only=True)
class _Net(BaseEstimator):
    """What both estimators are: a net around scikit-learn's conventions."""

    # Each field is an argument of __init__, which stores it and does nothing else; fit looks at it.
    hidden_layer_sizes: Any = field(default=(100,), kw_only=False)
    activation: Any = field(default="relu", kw_only=False)
    dropout: Any = 0.0
    layers: Any = None
    optim: Any = "adam"
    learning_rate: str = "constant"
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

    def _fit(self, *arguments: Any, **options: Any) -> Any:
        """Train; an error leaves the estimator as it was, with what scikit-learn had noted of x."""
        before = dict(self.__dict__)
        try:
            return self._trained(*arguments, **options)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _trained(self, x: Any, y: Any, sample_weight: Any, anew: bool, classes: Any = None, epochs: int = 0) -> Any:
        """Train a new net, or with `anew` False the present one; for `epochs`, else max_iter with early stopping."""
        arguments.verbose(self.verbose)
        for each in fields(self):
            if each.type == "bool" and each.name != "verbose":
                arguments.flag(each.name, getattr(self, each.name))
        hidden = self._hidden()
        for what, data in (("X", x), ("y", y), ("sample_weight", sample_weight)):
            check_unmasked(what, data)
        x, y = validate_data(
            self, x, y, reset=anew, dtype=self._x_dtype(hidden), multi_output=True, y_numeric=is_regressor(self)
        )
        weight = None if sample_weight is None else _relative(_check_sample_weight(sample_weight, x, dtype=np.float64))
        target, loss, seen = self._target(y, weight, anew, classes, whole=not epochs)
        weight, by_class = self._class_weighted(y, weight, seen)
        wanted = [*hidden, *self._head(loss, self._width(target, seen))]
        if anew:
            # None is a seed from the system: NumPy's global generator stays untouched.
            drawn = None if self.random_state is None else check_random_state(self.random_state).randint(2**31 - 1)
            net = _model.Model(wanted, seed=drawn, dtype=self.dtype)
            rule = self._new_rule()
        else:
            net = self.net_
            if list(map(repr, wanted)) != list(map(repr, net)):
                raise ValueError(
                    f"what is there to go on with is {list(net)}, and now {wanted} is asked for: set "
                    f"warm_start=False, or take a new estimator."
                )
            rule = net.optim if epochs else self._new_rule()
        watching = self.callbacks if isinstance(self.callbacks, (list, tuple, type(None))) else (self.callbacks,)
        validation = None
        if not epochs:
            # Checked here, so that a message names the estimator's own arguments.
            epochs, tol, patience = (
                arguments.count("max_iter", self.max_iter),
                arguments.real("tol", self.tol, 0),
                10**9,
            )
            if self.n_iter_no_change != math.inf:
                patience = _epochs("n_iter_no_change", self.n_iter_no_change)
            labels = np.ravel(y) if is_classifier(self) and not seen["_labels"] else None
            x, target, weight, validation = self._held_out(net, x, labels, target, weight, by_class)
            watching = [*(watching or ()), *self._ends("loss" if validation is None else "val_loss", patience, tol)]
        history = net.train(
            x,
            target,
            rule,
            loss,
            epochs=epochs,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            validation=validation,
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
        self.n_iter_ = history.epochs
        return self

    def _ends(self, watched: str, patience: int, tol: float) -> list[Any]:
        """What ends a fit, and with early stopping puts the best weights back."""
        restore = watched == "val_loss"
        if self.learning_rate == "constant":
            return [EarlyStopping(watched, patience, tol, restore_best=restore)]
        if self.learning_rate != "adaptive":
            raise ValueError(
                f'learning_rate is "constant" or "adaptive", got {self.learning_rate!r}. The rate itself is the '
                f"optimizer's, a number or a schedule: optim=optim.SGD(lr=0.1), or set_params(optim__lr=0.1)."
            )
        best = [EarlyStopping(watched, 10**9)] if restore else []
        return [*best, _Adaptive(watched, patience=patience, min_delta=tol)]

    def _held_out(
        self, net: Any, x: Array, labels: Array | None, target: Array, weight: Any, by_class: Any
    ) -> tuple[Array, Array, Any, Any]:
        """x, targets and weights to train on, and the (x, targets, weights) to stop early by, or None. `labels`, one a
        row, stand in both in the same proportions, where there are rows enough."""
        if not self.early_stopping:
            return x, target, weight, None
        share = arguments.real("validation_fraction", self.validation_fraction, math.ulp(0), 1)
        # Rows of weight 0 are left out, so that neither part can consist of them alone.
        rows = np.arange(len(x)) if weight is None else np.flatnonzero(weight)
        strata = None
        if labels is not None:
            counts, count = np.unique(labels[rows], return_counts=True)[1], math.ceil(share * len(rows))
            if counts.min() > 1 and len(counts) <= min(count, len(rows) - count):
                strata = labels[rows]
        seed = net.seed % 2**32
        here, there = train_test_split(rows, test_size=share, random_state=seed, stratify=strata)
        training, validation = ([x[k], target[k], None if weight is None else weight[k]] for k in (here, there))
        if by_class is not None and labels is not None:  # `train` knows the classes of what it trains on alone
            of_rows = np.array([by_class[k] for k in np.unique(labels, return_inverse=True)[1][there]])
            validation[2] = of_rows if weight is None else validation[2] * of_rows
        return training[0], training[1], training[2], validation

    def _hidden(self) -> list[_layers.Layer]:
        """New layers, all but the last."""
        if self.layers is not None:
            if not isinstance(self.layers, (list, tuple)):
                raise TypeError(f"layers is a list of layers, got {self.layers!r}.")
            if self.layers and getattr(self.layers[-1], "probabilities_of", "") == "classes":
                raise ValueError("layers are all but the last: leave out the Softmax and the Linear before it.")
            return [each.copy() if isinstance(each, _layers.Layer) else each for each in self.layers]
        sizes = self.hidden_layer_sizes
        sizes = (sizes,) if isinstance(sizes, (int, np.integer)) else sizes
        if not isinstance(sizes, (list, tuple, np.ndarray)):
            raise TypeError(f"hidden_layer_sizes is a tuple of integers, got {sizes!r}.")
        created: list[_layers.Layer] = []
        activations = _each("activation", self.activation, len(sizes))
        rates = _each("dropout", self.dropout, len(sizes))
        for units, activation, rate in zip(sizes, activations, rates, strict=True):
            created += [_linear(arguments.count("hidden_layer_sizes", units)), *_activation(activation)]
            if rate != 0:
                created.append(_layers.Dropout(rate))
        return created

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

    def _predicted(self, x: Any, head: bool = True) -> Array:
        """The net's output, without its last layer if not `head`; of float32 where x is, else of float64."""
        check_unmasked("X", x)
        net = self.net_
        if not head:  # of a copy that shares the weights
            net = net._inference_view(Workspace(net.dtype))
            net.layers = net.layers[:-1]
        x = validate_data(self, x, dtype=(np.float64, np.float32), reset=False)
        needed = np.int64 if net.integer_input else net.dtype
        return net.predict(check_array(x, dtype=needed)).astype(x.dtype, copy=False)

    # What the two differ in.

    @abstractmethod
    def _target(
        self, y: Array, weight: Any, anew: bool, classes: Any, whole: bool
    ) -> tuple[Array, Any, dict[str, Any]]:
        """The targets as the net takes them, the loss, and the attributes that tell what the outputs mean; `whole` if
        y holds all rows, as in fit."""

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
    """A net that tells classes apart; `fit`, `partial_fit`, `predict`, `predict_proba`, `predict_log_proba`, `score`;
    `decision_function` with Hinge, which has no probabilities.

    hidden_layer_sizes  units of the hidden Linear layers
    activation          "relu", "gelu", ... or an activation layer; or one for each hidden layer
    dropout             a rate, after each hidden activation; or one for each
    layers              in place of these three: a list of all layers but the last, which is copied; the rows of x may
                        be given another shape by a Reshape first
    optim               a name, or an Optimizer, of which each fit takes a copy. optim__lr and so on are parameters
    learning_rate       "constant", or "adaptive" as in MLPClassifier, with any optimizer whose lr is a number: fit
                        divides it by 5 each time the loss has not fallen by tol for more than n_iter_no_change epochs
                        in a row, and ends where it is 1e-6 or less
    loss                any; None is CrossEntropy, for labels in columns of 0 and 1 BinaryCrossEntropy. The last layers
                        follow from it: Linear, and Softmax or Sigmoid if it takes probabilities
    max_iter            epochs at most; n_iter_ == max_iter tells that it was the end
    tol, n_iter_no_change  fit ends when the loss has not fallen by more than tol for so many epochs in a row
    early_stopping      look at the loss of a part held out, `validation_fraction`, instead, and keep the best weights
                        (scikit-learn: at the accuracy or R^2)
    random_state        an integer decides everything (on the same machine, with the same packages and number of BLAS
                        threads: the same bits); None: a new seed from the system
    warm_start          fit goes on from the weights that are there, with a new optimizer; partial_fit keeps that too
    class_weight        "balanced" (with sample_weight: of the weights of each class), or label -> weight, taken as it
                        is, while sample_weight is scaled to mean 1; of labels in columns the product over a row's
                        columns, which is scaled too. See Model.train
    callbacks, dtype, verbose, shuffle, batch_size  as in Model and train

    Afterwards: `net_`, `classes_`; `history_`, `loss_curve_`, of all epochs since the net was made; `n_iter_`, the
    epochs of the last call of fit or partial_fit. Probabilities are of float32 where X is, else of float64.

    ValueError for a fit with warm_start and other classes, fewer too; AttributeError for partial_fit where all rows
    are needed at once: early_stopping, LBFGS, class_weight="balanced". X is dense: of a sparse one, X.toarray().
    """

    class_weight: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X (N, D) and y, labels (N,) of any kind, or (N, K) of 0 and 1, each column a label of its own."""
        return self._fit(X, y, sample_weight, not (self.warm_start and hasattr(self, "net_")))

    @_offered_unless(_needs_all_rows)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """One epoch over these rows; the first call tells all `classes`, where y does not hold them all."""
        return self._fit(X, y, sample_weight, not hasattr(self, "net_"), classes, epochs=1)

    def predict(self, X: Any) -> Array:
        """The label of each row, (N,); or (N, K) of 0 and 1."""
        scores = self._scores(X)
        if self._labels:
            marks = getattr(self.net_.loss, "labels", None) or (-1, 1)
            return (scores > sum(marks) / 2).astype(np.int64)
        return self.classes_[scores.argmax(1)]

    @_offered_unless(_no_probabilities)
    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, in the order of `classes_`, (N, K)."""
        scores = self._scores(X)
        p = _to_probabilities(self.net_.loss).copy(scores.dtype)(scores)
        if self._labels or not getattr(self.net_.loss, "binary", False):
            return p
        return p / p.sum(1, keepdims=True)  # each class had a probability of its own

    @_offered_unless(_no_probabilities)
    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of predict_proba, (N, K), of the raw scores: finite where a probability is 0."""
        scores = self._scores(X)
        if getattr(self.net_.loss, "binary", False):
            scores = -np.logaddexp(0, -scores)
        return scores if self._labels else _layers.LogSoftmax().copy(scores.dtype)(scores)

    @_offered_unless(lambda self: None if _no_probabilities(self) else "this loss has probabilities: predict_proba.")
    def decision_function(self, X: Any) -> Array:
        """The score of each class, (N, K); of two classes how far the second is above the first, (N,)."""
        scores = self._scores(X)
        return scores if self._labels or len(self.classes_) != 2 else scores[:, 1] - scores[:, 0]

    def _scores(self, x: Any) -> Array:
        """The raw scores, before Softmax or Sigmoid."""
        check_is_fitted(self)
        return self._predicted(x, head=getattr(self.net_.loss, "takes_raw_scores", False))

    def _target(
        self, y: Array, weight: Any, anew: bool, classes: Any, whole: bool
    ) -> tuple[Array, Any, dict[str, Any]]:
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
        every = labels or (whole and not anew)  # else rows of some of the classes will do
        if not same or not (np.array_equal(found, known) if every else np.isin(found, known).all()):
            way_out = " warm_start=True goes on with the same ones: set it to False." * (whole and not anew)
            raise ValueError(f"y has the classes {found.tolist()}, and the net was made for {known.tolist()}.{way_out}")
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
        if getattr(self.loss, "outputs", 1) != 1:
            raise ValueError(f"{self.loss!r} is a loss of numbers with a variance: it goes with NetRegressor.")
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
        found, first, place = np.unique(y, return_index=True, return_inverse=True)
        by_class = of_rows[first]
        if self.class_weight == "balanced" and weight is not None:  # a row of weight 2 counts as two rows
            counts = np.bincount(place.ravel(), weight)
            by_class = counts.sum() / (np.count_nonzero(counts) * np.where(counts > 0, counts, 1))
        return weight, dict(zip(np.searchsorted(seen["classes_"], found).tolist(), by_class.tolist(), strict=True))

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
                    losses that declare `location_scale`, as MSE does; `history_` is then of that scale

    Afterwards: `net_`; `history_`, `loss_curve_`, of all epochs since the net was made; `n_iter_`, the epochs of the
    last call of fit or partial_fit.
    """

    scale_targets: bool = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X (N, D) and y (N,) or (N, K)."""
        return self._fit(X, y, sample_weight, not (self.warm_start and hasattr(self, "net_")))

    @_offered_unless(_needs_all_rows)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One epoch over these rows; the scale of the targets is that of the first call's."""
        return self._fit(X, y, sample_weight, not hasattr(self, "net_"), epochs=1)

    def predict(self, X: Any) -> Array:
        """A number for each row, (N,), or (N, K) as y had them; of float32 where X is, else of float64."""
        check_is_fitted(self)
        pred = self._predicted(X)
        if isinstance(self.net_.loss, _loss.Loss):
            pred = self.net_.loss.expected(pred)
        pred = (pred * self._scale + self._mean).astype(pred.dtype, copy=False)
        return pred[:, 0] if self._flat else pred

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2 of the predictions; weighted by `sample_weight`, whose size as a whole means nothing."""
        return super().score(X, y, None if sample_weight is None else _relative(sample_weight))

    def _target(
        self, y: Array, weight: Any, anew: bool, classes: Any, whole: bool
    ) -> tuple[Array, Any, dict[str, Any]]:
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
        tags.target_tags.positive_only = getattr(self.loss, "positive_targets", False)
        tags.regressor_tags.poor_score = getattr(self.loss, "direction_only", False)
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
    created = ACTIVATIONS[value.lower()]
    return [] if created is None else [created()]


def _hyper(rule: Any) -> dict[str, Any]:
    """The hyper-parameters of an optimizer and of those that it wraps; a plain function has none."""
    if not isinstance(rule, _optim.Optimizer):
        return {}
    within = _hyper(rule.optimizer) if isinstance(rule, _optim.Wrapper) else {}
    return {**within, **rule.hyper}


def _with(rule: Any, name: str, value: Any) -> Any:
    """A new optimizer that differs in one hyper-parameter, its own or that of an optimizer that it wraps."""
    if name not in _hyper(rule):
        known = ", ".join(f"optim__{each}" for each in _hyper(rule)) or "none that can be set"
        raise ValueError(f"optim is {rule!r} and has no parameter optim__{name}; it has {known}.")
    if name not in rule.hyper:
        name, value = "optimizer", _with(rule.optimizer, name, value)
    return type(rule)(**{**rule.config(), name: value})


__all__ = ["NetClassifier", "NetRegressor"]
