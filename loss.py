"""Losses: how far a prediction is from its target, and the exact gradient of that number.

In this file, in this order:
  the base              Loss
  of any numbers        MSE, MAE, Huber, LogCosh, CosineSimilarity, PoissonNLL, GaussianNLL
  of classes            CrossEntropy, BinaryCrossEntropy, BinaryFocalCrossEntropy, KLDivergence, Hinge, SquaredHinge

A loss of one's own is any callable `(pred, real) -> float` with a method `backward() -> dL/dpred`, or a
subclass of Loss. Shapes: N batch, C classes, `...` any axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerwise.core import arguments, habits, targets, weights
from layerwise.core.numeric import clip_to_finite, row_starts, tiny
from layerwise.core.reduction import REDUCTIONS as REDUCTIONS, reduce, reduce_copies
from layerwise.core.weights import converted as converted_weight, relative as relative_weight

Array = np.ndarray


def __getattr__(name: str) -> Any:
    raise habits.missing("loss", name, __all__)


# The base ----------------------------------------------------------------------------------------------------


class Loss:
    """`loss(pred, real, sample_weight=None)` is a float; `loss.backward()` its gradient dL/dpred.

    A subclass writes `forward(pred, real) -> values` and `derivative(scale) -> scale * d(values)/d(pred)`. There
    is a value for each element, or for each row if the loss sums over the last axis. What the derivative needs goes
    into `self.kept`. There are n values v, and weights u: (N,) for samples, or (N, T) for their time steps, as a mask
    has them. With either, the mean divides by the weight of all values.

        reduction   "mean"                 "sum"        "batch_sum"
                    sum(v) / n             sum(v)       sum(v) N / n
        weighted    sum(u v) N / n / sum(u)  sum(u v)   sum(u v) N / n

    A loss that sums over classes (`over_classes`) takes "batch_sum" as "sum". The last arguments and the value
    stay in `pred`, `real`, `sample_weight`, `value` until the next call. Within `train` the weighted mean of a batch
    is multiplied by the batch's mean weight; `train` says why.
    """

    # What a subclass declares.
    by_rows = False  # one value for each row of (N, ..., C), not for each element
    over_classes = False  # it sums over the classes in the last axis
    takes_class_numbers = False
    labels: tuple[float, float] | None = None  # the two labels of the targets, if they are not 0 and 1
    binary = False  # each element is a yes or no of its own: a Sigmoid makes its probability, not a Softmax
    ignore_index: int | None = None  # the class number of targets that count for nothing
    outputs = 1  # columns of the prediction for each column of the targets
    location_scale = False  # predictions and targets shifted alike: the same loss; scaled alike: the same way to go
    positive_targets = False  # targets are 0 or more, as counts are
    direction_only = False  # the length of a prediction means nothing
    stackable = False  # forward and derivative act on the last axes only, so that they serve a stack (S, N, ...)

    reduction = "mean"  # here too, so that a loss of one's own works without calling super().__init__()
    pred: Array | None = None
    real: Array | None = None
    sample_weight: Array | None = None
    value: Any = None  # a float; of a stack of copies an array (S,)
    kept: Any = None
    counts: Array | None = None  # set by `forward`: what each value counts in the mean's divisor, if not 1
    _scale: Any = None
    _trusted = False  # `train` has checked the data
    empty: Any = staticmethod(np.empty)  # (shape, dtype): an array for a result, reused while a net trains

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            habits.check_arguments("loss", cls.__name__, cls.__init__, kwargs)
        return super().__new__(cls)

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction is one of {REDUCTIONS}, got {reduction!r}.")
        self.reduction = reduction

    # What a subclass writes.

    @property
    def takes_raw_scores(self) -> bool:
        """Whether predictions are raw scores: no Softmax or Sigmoid has made probabilities of them."""
        return bool(getattr(self, "from_logits", False))

    def forward(self, pred: Array, real: Array) -> Array:
        raise TypeError(f"{type(self).__name__} has no forward(self, pred, real): write it.")

    def derivative(self, scale: Any) -> Array:
        raise TypeError(f"{type(self).__name__} has no derivative(self, scale): write it.")

    def expected(self, pred: Array) -> Array:
        """The mean of the targets that a prediction stands for. Here it is the prediction itself."""
        return pred

    def check_shapes(self, pred: tuple[int, ...], real: tuple[int, ...], integer: bool) -> None:
        """ValueError unless targets of shape `real` go with predictions of shape `pred`."""
        targets.check_shapes(type(self).__name__, pred, real, integer, self.by_rows, self.takes_class_numbers)

    def check_real(self, real: Array, classes: int) -> None:
        """ValueError for targets that this loss can't take; `classes` is the last axis of the prediction."""

    def check_pred(self, pred: Array) -> None:
        """ValueError for predictions that this loss can't take."""

    # What a user calls.

    def __call__(self, pred: Any, real: Any, sample_weight: Any = None, copies: int | None = None) -> Any:
        """The loss, a float. ValueError for shapes that do not match: nothing is ever broadcast.

        With `copies` S the arrays are those of S nets in one stack, pred (S, N, ...), real (S, N, ...) and
        sample_weight (S, N) or (S, N, T). The loss is an array (S,), one number for each copy.
        """
        if copies is not None:
            return self._call(pred, real, sample_weight, reduce_copies)
        if self._trusted:
            return self._call(pred, real, sample_weight)
        with np.errstate(all="ignore"):
            pred, real, weight = self._checked(pred, real, sample_weight)
            value = self._call(pred, real, weight)
            self.sample_weight = None if weight is None else np.asarray(sample_weight)  # as it came
            return value

    def backward(self) -> Array:
        """dL/dpred of the last call, the exact gradient of the number that it returned."""
        if self.pred is None:
            raise RuntimeError(f"{type(self).__name__}.backward() follows a call loss(pred, real): call it first.")
        if self._trusted:
            return self.derivative(self._scale)
        with np.errstate(all="ignore"):
            return self.derivative(self._scale)

    def check_labels(self, pred: tuple[int, ...], real: Array) -> None:
        """ValueError for class numbers that are floats and not whole, such as NaN: converting would change them."""
        if self.takes_class_numbers and real.dtype.kind == "f" and real.shape == pred[:-1]:
            targets.check_whole(type(self).__name__, real)

    checked_weight = staticmethod(weights.of_samples)

    def _call(self, pred: Array, real: Array, weight: Array | None, reduce: Any = reduce) -> Any:
        reduction = "sum" if self.over_classes and self.reduction == "batch_sum" else self.reduction
        self.value, scale = reduce(self.forward(pred, real), weight, self.counts, reduction)
        if not isinstance(scale, float):
            scale = scale.reshape(*scale.shape, *(1,) * (pred.ndim - scale.ndim))
        self.pred, self.real, self.sample_weight, self._scale = pred, real, weight, scale
        return self.value

    def _checked(self, pred: Any, real: Any, weight: Any) -> tuple[Array, Array, Array | None]:
        who = type(self).__name__
        pred, real = targets.numbers(who, "predictions", pred), targets.numbers(who, "targets", real)
        if not pred.size or not pred.ndim:
            raise ValueError(f"{who} takes a batch of predictions, got shape {pred.shape}.")
        if pred.dtype.kind != "f":
            pred = pred.astype(np.float64)
        self.check_labels(pred.shape, real)
        self.check_shapes(pred.shape, real.shape, real.dtype.kind in "iu")
        if real.shape == pred.shape or not self.takes_class_numbers:
            real = real.astype(pred.dtype, copy=False)
        self.check_real(real, pred.shape[-1])
        self.check_pred(pred)
        if weight is not None:
            weight = self.checked_weight(weight, pred.shape[:-1] or pred.shape)
            limits = np.finfo(pred.dtype)
            # A mean depends on the weights' ratios alone. Weights that the dtype may not hold are scaled to mean 1.
            if self.reduction == "mean" and not math.sqrt(limits.tiny) < weight.max() < math.sqrt(limits.max):
                weight = relative_weight(weight)
            weight = converted_weight(weight, pred.dtype)
        return pred, real, weight

    def config(self) -> dict[str, Any]:
        """The arguments that make such a loss: each is kept under its own name."""
        code = type(self).__init__.__code__
        names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        return {name: getattr(self, name, None) for name in names}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.config().items())})"

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("pred", "real", "sample_weight", "kept", "counts", "_scale", "_trusted", "empty")
        return {name: value for name, value in self.__dict__.items() if name not in dropped}


def _flag(name: str, value: Any) -> bool:
    """An argument that is True or False. Other frameworks have the reduction in its place."""
    if isinstance(value, str) and value in REDUCTIONS:
        raise TypeError(f"{name} is True or False, got {value!r}. reduction={value!r} is given by name.")
    return arguments.flag(name, value)


# Of any numbers ----------------------------------------------------------------------------------------------


class MSE(Loss):
    """v = (pred - real)^2, any shape.    dv/dpred = 2 (pred - real)"""

    stackable = location_scale = True

    def forward(self, pred: Array, real: Array) -> Array:
        d = self.kept = np.subtract(pred, real, self.empty(pred.shape, pred.dtype))
        return np.multiply(d, d, self.empty(d.shape, d.dtype))

    def derivative(self, scale: Any) -> Array:
        d = self.kept
        return np.multiply(d, 2 * scale, self.empty(d.shape, d.dtype))


class MAE(Loss):
    """v = |pred - real|, any shape.    dv/dpred = sign(pred - real)"""

    stackable = location_scale = True

    def forward(self, pred: Array, real: Array) -> Array:
        d = self.kept = np.subtract(pred, real, out=self.empty(pred.shape, pred.dtype))
        return np.abs(d, out=self.empty(d.shape, d.dtype))

    def derivative(self, scale: Any) -> Array:
        return np.sign(self.kept) * scale


class Huber(Loss):
    """v = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), d = pred - real.    Huber 1964

    dv/dpred = d, clipped to +-delta. As torch.nn.HuberLoss; SmoothL1Loss is this divided by delta.
    """

    stackable = location_scale = True

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = arguments.real("delta", delta, arguments.POSITIVE, expected="a positive number")

    def forward(self, pred: Array, real: Array) -> Array:
        d = np.subtract(pred, real, out=self.empty(pred.shape, pred.dtype))
        clipped = self.kept = np.clip(d, -self.delta, self.delta)
        return clipped * (d - 0.5 * clipped)  # both cases in one

    def derivative(self, scale: Any) -> Array:
        return self.kept * scale


class LogCosh(Loss):
    """v = log(cosh(d)) = log(1 + 2 sinh(d / 2)^2), d = pred - real.    dv/dpred = tanh(d)"""

    stackable = location_scale = True

    def forward(self, pred: Array, real: Array) -> Array:
        d = self.kept = np.subtract(pred, real, out=self.empty(pred.shape, pred.dtype))
        size = np.abs(d)
        curved = np.minimum(size, 20)  # above 20 it is a straight line
        half = np.sinh(0.5 * curved)
        return np.log1p(2 * half * half) + (size - curved)

    def derivative(self, scale: Any) -> Array:
        return np.tanh(self.kept) * scale


class CosineSimilarity(Loss):
    """v = 1 - cos, cos = p r / (|p| |r|) over the last axis; pred and real (N, ..., C), one value a row.

    dv/dp = (cos p / |p| - r / |r|) / |p|. Lengths below 1e-8 count as 1e-8, as in
    torch.nn.functional.cosine_similarity. 0 for the same direction, 2 for the opposite; Keras returns -cos.
    """

    stackable = True
    by_rows = True
    direction_only = True
    smallest = 1e-8

    def forward(self, pred: Array, real: Array) -> Array:
        p_length, r_length = (np.sqrt(np.sum(x * x, -1, keepdims=True)) for x in (pred, real))
        p = pred / np.maximum(p_length, self.smallest)
        r = real / np.maximum(r_length, self.smallest)
        cos = np.sum(p * r, -1, keepdims=True)
        self.kept = p, r, cos, p_length
        return (1 - cos)[..., 0]

    def derivative(self, scale: Any) -> Array:
        p, r, cos, length = self.kept
        # Below the smallest length the divisor is constant and only the numerator moves.
        turn = np.where(length > self.smallest, cos, 0) * p - r
        return turn * scale / np.maximum(length, self.smallest)


class PoissonNLL(Loss):
    """v = exp(pred) - real pred; with log_input=False, v = pred - real log(pred + 1e-8). Any shape, real >= 0.

    The negative log likelihood of counts, without the term of real alone; torch.nn.PoissonNLLLoss.
    """

    stackable = positive_targets = True

    def __init__(self, log_input: bool = True, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.log_input = _flag("log_input", log_input)

    def forward(self, pred: Array, real: Array) -> Array:
        if self.log_input:
            rate = np.exp(pred)
            self.kept = rate - real
            return rate - real * pred
        self.kept = 1 - real / (pred + 1e-8)
        return pred - real * np.log(pred + 1e-8)

    def derivative(self, scale: Any) -> Array:
        return self.kept * scale

    def expected(self, pred: Array) -> Array:
        return np.exp(pred) if self.log_input else pred

    def check_real(self, real: Array, classes: int) -> None:
        targets.refuse_unless((real >= 0).all(), f"PoissonNLL takes counts, 0 or more; the smallest is {real.min()}.")

    def check_pred(self, pred: Array) -> None:
        if not self.log_input:
            targets.refuse_unless(
                (pred >= 0).all(),
                f"PoissonNLL(log_input=False) takes rates, 0 or more; the smallest is {pred.min():g}. "
                f"Logarithms of rates go with log_input=True.",
            )


class GaussianNLL(Loss):
    """v = (s + (real - m)^2 / exp(s)) / 2, m the mean and s the logarithm of the variance, for which the net has two
    columns: pred (N, ..., 2M) holds M means, then M logarithms of variances; real (N, ..., M).

    dv/dm = (m - real) / exp(s);    dv/ds = (1 - (real - m)^2 / exp(s)) / 2, and 0 where the variance is below epsilon.
    The negative log likelihood without the constant log(2 pi) / 2; variances below epsilon count as epsilon. As
    torch.nn.GaussianNLLLoss(m, real, exp(s)). Nix and Weigend 1994. ValueError for an odd number of columns.
    """

    stackable = location_scale = True
    outputs = 2

    def __init__(self, epsilon: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.epsilon = arguments.real("epsilon", epsilon, arguments.POSITIVE, expected="a positive number")

    def forward(self, pred: Array, real: Array) -> Array:
        m, s = np.split(pred, 2, -1)
        least = math.log(self.epsilon)
        log_variance = np.maximum(s, least)
        d, precision = m - real, np.exp(-log_variance)
        square = d * d * precision
        self.kept = d * precision, np.where(s > least, 0.5 * (1 - square), 0)
        return 0.5 * (log_variance + square)

    def derivative(self, scale: Any) -> Array:
        return np.concatenate([each * scale for each in self.kept], -1)

    def expected(self, pred: Array) -> Array:
        return pred[..., : pred.shape[-1] // 2]

    def check_shapes(self, pred: tuple[int, ...], real: tuple[int, ...], integer: bool) -> None:
        wanted = (*pred[:-1], pred[-1] // 2)
        if len(pred) < 2 or pred[-1] % 2 or real != wanted:
            hint = (
                f" Reshape it: real.reshape{wanted}." if len(pred) > 1 and math.prod(real) == math.prod(wanted) else ""
            )
            raise ValueError(
                f"GaussianNLL takes two columns of predictions, mean and logarithm of the variance, for each column of "
                f"targets, (N, ..., 2M) and (N, ..., M), got predictions of shape {pred} and targets of shape {real}."
                f"{hint}"
            )


# Of classes --------------------------------------------------------------------------------------------------


class CrossEntropy(Loss):
    """v = -sum(t log p) over the last axis; pred (N, ..., C), one value a row.

    The targets are integers, class numbers (N, ...), or probabilities t (N, ..., C), one-hot or soft.
    from_logits=False: pred is p, as after Softmax; dv/dp = -t / p. from_logits=True: pred is raw scores x,
    p = softmax(x); dv/dx = p sum(t) - t. label_smoothing a: t becomes (1 - a) t + a / C (Szegedy 2015,
    1512.00567). weight (C,): t becomes weight t. With class numbers y the mean divides by sum(weight[y]), with
    probabilities by the rows. Class numbers that are ignore_index count for nothing, not even in the mean; a batch
    of no others has the loss 0 (PyTorch: NaN). `evaluate`, validation and the History give the mean over the rows of
    all batches at once, and metrics by name leave ignored rows out. All this is as in torch.nn.CrossEntropyLoss,
    which takes logits and whose default ignore_index is -100. Keras takes probabilities and cuts them at 1e-7; this
    loss cuts them at the smallest normal number.
    """

    weight: list[float] | None = None  # here too, for losses that were pickled before there was one

    stackable = True
    by_rows = over_classes = True
    takes_class_numbers = True

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction)
        self.from_logits = _flag("from_logits", from_logits)
        self.label_smoothing = arguments.real("label_smoothing", label_smoothing, 0, 1)
        self.weight = None if weight is None else weights.of_columns("weight", weight)
        if ignore_index is not None and (isinstance(ignore_index, bool) or not hasattr(ignore_index, "__index__")):
            raise ValueError(f"ignore_index is an integer or None, got {ignore_index!r}.")
        self.ignore_index = None if ignore_index is None else int(ignore_index)

    def forward(self, pred: Array, real: Array) -> Array:
        numbers = real.ndim < pred.ndim and not (self.label_smoothing or self._counts_rows)
        # The place of each class number among all elements: one flat index is much faster than one for each axis.
        target = real.reshape(-1) + row_starts(real.size, pred.shape[-1]) if numbers else self._target(pred, real)
        if self.from_logits:
            shifted = pred - np.maximum.reduce(pred, -1, keepdims=True)
            p = np.exp(shifted)
            total = np.add.reduce(p, -1, keepdims=True)
            p /= total
            log_p = np.subtract(shifted, np.log(total), out=shifted)
        else:
            p = np.maximum(pred, tiny(pred))
            log_p = None
        self.kept = p, target, numbers
        if numbers:
            picked = (p if log_p is None else log_p).reshape(-1)[target].reshape(real.shape)
            return -(np.log(picked) if log_p is None else picked)
        return -np.add.reduce(target * (np.log(p) if log_p is None else log_p), -1)

    @property
    def _counts_rows(self) -> bool:
        return self.weight is not None or self.ignore_index is not None

    def _target(self, pred: Array, real: Array) -> Array:
        weight = None if self.weight is None else np.array(self.weight, pred.dtype)
        self.counts = None
        if real.ndim < pred.ndim:
            consumed = real != self.ignore_index if self.ignore_index is not None else np.ones(real.shape, bool)
            numbers = np.where(consumed, real, 0)
            target = np.zeros_like(pred)
            np.put_along_axis(target, numbers[..., None], 1, -1)
            if self._counts_rows:
                self.counts = consumed.astype(pred.dtype) if weight is None else consumed * weight[numbers]
        else:
            target = real
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / pred.shape[-1]
        if weight is not None:
            target = target * weight
        return target * consumed[..., None] if self.counts is not None else target

    def derivative(self, scale: Any) -> Array:
        p, target, numbers = self.kept
        if numbers:
            each = scale if isinstance(scale, float) else np.broadcast_to(scale, (*p.shape[:-1], 1)).reshape(-1)
            if self.from_logits:
                gradient = np.multiply(p, scale, out=self.empty(p.shape, p.dtype))
                gradient.reshape(-1)[target] -= each
            else:
                gradient = self.empty(p.shape, p.dtype)
                gradient.fill(0)
                gradient.reshape(-1)[target] = -each / p.reshape(-1)[target]
        elif self.from_logits:
            gradient = np.multiply(p, np.add.reduce(target, -1, keepdims=True), out=self.empty(p.shape, p.dtype))
            gradient -= target
            gradient *= scale
        else:
            gradient = np.multiply(target, -scale, out=self.empty(p.shape, p.dtype))
            gradient /= p
        if self.from_logits:
            return gradient
        return clip_to_finite(gradient, scale if self.weight is None else math.inf)

    def check_shapes(self, pred: tuple[int, ...], real: tuple[int, ...], integer: bool) -> None:
        if len(pred) < 2 or pred[-1] < 2:
            raise ValueError(
                f"CrossEntropy takes a column for each of two or more classes, got predictions of shape {pred} and "
                f"targets of shape {real}. For one column of yes or no, use BinaryCrossEntropy."
            )
        super().check_shapes(pred, real, integer)
        targets.check_columns("weight", self.weight, pred[-1])
        if self.ignore_index is not None and real == pred:
            raise ValueError(
                f"ignore_index goes with class numbers, shape {pred[:-1]}, got rows of shape {real}: give those that "
                f"count for nothing a sample_weight of 0."
            )

    def check_real(self, real: Array, classes: int) -> None:
        if real.dtype.kind in "iu":
            if self.ignore_index is not None:
                real = real[real != self.ignore_index]
            if real.size and (real.min() < 0 or real.max() >= classes):
                raise ValueError(
                    f"CrossEntropy takes class numbers from 0 to {classes - 1}, for {classes} columns of "
                    f"predictions, got {real.min()} to {real.max()}."
                )
        else:
            hint = " Class numbers are given as integers of shape (N,)."
            targets.check_rows_sum_to_1("CrossEntropy", "targets", real, hint)

    def check_pred(self, pred: Array) -> None:
        if not self.from_logits:
            hint = " Put a Softmax last, or use CrossEntropy(from_logits=True) for raw scores."
            targets.check_rows_sum_to_1("CrossEntropy", "predictions", pred, hint)


class BinaryCrossEntropy(Loss):
    """v = -(y log p + (1 - y) log(1 - p)), any shape, targets y in [0, 1].

    from_logits=False: pred is p, as after Sigmoid; dv/dp = (p - y) / (p (1 - p)), the divisor not less than the
    smallest normal number (PyTorch: 1e-12), so that dv/dx below a Sigmoid stays p - y however small p is. As in PyTorch
    the logarithms are not less than -100. from_logits=True: pred is raw scores x,
    v = max(x, 0) - x y + log(1 + exp(-|x|)), dv/dx = sigmoid(x) - y. pos_weight, a number or one for each column (C,),
    multiplies y log p, as in torch.nn.BCEWithLogitsLoss: above 1 for rare positives; the mean divides by all elements.
    """

    stackable = binary = True
    pos_weight: Any = None  # here too, for losses that were pickled before there was one

    def __init__(self, from_logits: bool = False, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.from_logits = _flag("from_logits", from_logits)
        if pos_weight is not None and np.ndim(pos_weight) == 0:
            expected = "a positive number, or one for each column"
            self.pos_weight = arguments.real("pos_weight", pos_weight, arguments.POSITIVE, expected=expected)
        else:
            self.pos_weight = None if pos_weight is None else weights.of_columns("pos_weight", pos_weight)

    def forward(self, pred: Array, real: Array) -> Array:
        self.kept = pred, real
        positive = self._positive(real)
        if self.from_logits:
            rest = np.log1p(np.exp(-np.abs(pred)))
            if positive is real:
                return np.maximum(pred, 0) - pred * real + rest
            return (1 - real) * (np.maximum(pred, 0) + rest) + positive * (np.maximum(-pred, 0) + rest)
        yes, no = np.maximum(np.log(pred), -100), np.maximum(np.log1p(-pred), -100)
        return -(positive * yes + (1 - real) * no)

    def _positive(self, real: Array) -> Array:
        return real if self.pos_weight is None else real * np.array(self.pos_weight, real.dtype)

    def derivative(self, scale: Any) -> Array:
        pred, real = self.kept
        if self.from_logits:
            # (1 - y) sigmoid(x) - y sigmoid(-x). Nothing would be left of sigmoid(x) - 1 where x is large.
            yes, no = np.exp(np.minimum(pred, 0)), np.exp(np.minimum(-pred, 0))
            return ((1 - real) * yes - self._positive(real) * no) / (yes + no) * scale
        slope = pred - real
        if self.pos_weight is not None:
            slope = pred * (1 - real) - self._positive(real) * (1 - pred)
        gradient = slope * scale / np.maximum(pred * (1 - pred), tiny(pred))
        return clip_to_finite(gradient, scale if self.pos_weight is None else math.inf)

    def check_shapes(self, pred: tuple[int, ...], real: tuple[int, ...], integer: bool) -> None:
        super().check_shapes(pred, real, integer)
        targets.check_columns("pos_weight", self.pos_weight, pred[-1])

    def check_real(self, real: Array, classes: int) -> None:
        targets.refuse_unless(
            ((real >= 0) & (real <= 1)).all(),
            f"{type(self).__name__} takes targets from 0 to 1, got {real.min():g} to {real.max():g}.",
        )

    def check_pred(self, pred: Array) -> None:
        if not self.from_logits:
            targets.refuse_unless(
                ((pred >= 0) & (pred <= 1)).all(),
                f"{type(self).__name__} takes probabilities, 0 to 1, got {pred.min():g} to {pred.max():g}. Put a "
                f"Sigmoid last, or use {type(self).__name__}(from_logits=True) for raw scores.",
            )


class BinaryFocalCrossEntropy(BinaryCrossEntropy):
    """v = a q^gamma b: b is the BinaryCrossEntropy, q = y (1 - p) + (1 - y) p how wrong p is, a = y alpha + (1 - y)
    (1 - alpha).

    dv/dp = a (q^gamma db/dp + gamma q^(gamma - 1) (1 - 2 y) b). Elements that are nearly right count for little. Lin et
    al. 2017 (1708.02002). alpha=None: a = 1. As Keras's BinaryFocalCrossentropy, whose alpha counts with
    apply_class_balancing=True only; torchvision's sigmoid_focal_loss is from_logits=True, alpha=0.25,
    reduction="sum" (its own default is "none").
    """

    def __init__(
        self, from_logits: bool = False, gamma: float = 2.0, alpha: float | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(from_logits, reduction)
        self.gamma = arguments.real("gamma", gamma, 0, expected="a number, 0 or more")
        expected = "a number between 0 and 1, or None"
        self.alpha = None if alpha is None else arguments.real("alpha", alpha, arguments.POSITIVE, 1, expected=expected)

    def forward(self, pred: Array, real: Array) -> Array:
        b = super().forward(pred, real)
        p, rest = pred, 1 - pred
        if self.from_logits:
            yes, no = np.exp(np.minimum(pred, 0)), np.exp(np.minimum(-pred, 0))
            p, rest = yes / (yes + no), no / (yes + no)
        q = np.maximum(real * rest + (1 - real) * p, tiny(pred))
        a = 1 if self.alpha is None else real * self.alpha + (1 - real) * (1 - self.alpha)
        slope = p * rest if self.from_logits else 1  # dp/dpred
        inner = a * self.gamma * q ** (self.gamma - 1) * (1 - 2 * real) * b * slope
        self.kept = pred, real, a * q**self.gamma, inner
        return a * q**self.gamma * b

    def derivative(self, scale: Any) -> Array:
        pred, real, outer, inner = self.kept
        self.kept = pred, real
        try:
            return super().derivative(scale * outer) + inner * scale
        finally:
            self.kept = pred, real, outer, inner


class KLDivergence(Loss):
    """v = sum(r log(r / p)) over the last axis; pred p and real r are probabilities (N, ..., C).

    dv/dp = -r / p. Kullback and Leibler 1951. Averaged over rows: torch.nn.KLDivLoss(reduction="batchmean"), whose
    "mean" divides by C as well, and which takes log p.
    """

    stackable = True
    by_rows = over_classes = True

    def forward(self, pred: Array, real: Array) -> Array:
        p = np.maximum(pred, tiny(pred))
        self.kept = p, real
        return np.add.reduce(real * (np.log(np.maximum(real, tiny(real))) - np.log(p)), -1)

    def derivative(self, scale: Any) -> Array:
        p, real = self.kept
        return clip_to_finite(real * -scale / p, scale)

    def check_real(self, real: Array, classes: int) -> None:
        targets.check_rows_sum_to_1("KLDivergence", "targets", real)

    def check_pred(self, pred: Array) -> None:
        targets.check_rows_sum_to_1("KLDivergence", "predictions", pred, " Put a Softmax last.")


class Hinge(Loss):
    """v = max(0, 1 - real pred), any shape, labels real -1 and 1.    dv/dpred = -real where v > 0, else 0"""

    stackable = binary = True
    takes_raw_scores = True
    labels = (-1, 1)

    def forward(self, pred: Array, real: Array) -> Array:
        values = np.maximum(1 - real * pred, 0)
        self.kept = values, real
        return values

    def derivative(self, scale: Any) -> Array:
        values, real = self.kept
        return (values > 0) * real * -scale

    def check_real(self, real: Array, classes: int) -> None:
        targets.refuse_unless(
            (np.abs(real) == 1).all(),
            f"{type(self).__name__} takes the labels -1 and 1, got {np.unique(real)[:5].tolist()}. From 0 and 1: "
            f"2 * real - 1.",
        )


class SquaredHinge(Hinge):
    """v = max(0, 1 - real pred)^2, any shape, labels real -1 and 1.    dv/dpred = -2 real max(0, 1 - real pred)"""

    def forward(self, pred: Array, real: Array) -> Array:
        values = super().forward(pred, real)
        return values * values

    def derivative(self, scale: Any) -> Array:
        values, real = self.kept
        return values * real * (-2 * scale)


__all__ = [
    "MAE", "MSE", "BinaryCrossEntropy", "BinaryFocalCrossEntropy", "CosineSimilarity", "CrossEntropy", "GaussianNLL",
    "Hinge", "Huber", "KLDivergence", "LogCosh", "Loss", "PoissonNLL", "SquaredHinge",
]  # fmt: skip
