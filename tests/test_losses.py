"""loss.py: one table of losses, and over it gradients, golden values, and what every loss promises."""

import copy
import inspect
import json
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import loss as losses
from layers import Lambda, Linear, Model, Softmax
from layerwise.gradcheck import gradcheck
from loss import (
    MAE,
    MSE,
    BinaryCrossEntropy,
    BinaryFocalCrossEntropy,
    CosineSimilarity,
    CrossEntropy,
    GaussianNLL,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    Loss,
    PoissonNLL,
    SquaredHinge,
)
from optim import SGD

N, T, C = 5, 3, 4  # every axis has a size of its own

# What predictions and targets are drawn from: exact in float32, and off every kink.


def scores(rng, shape):
    return (np.floor(96 * rng.standard_normal(shape)) + 0.5) / 64


def values(rng, shape):
    return scores(rng, shape) + 1 / 128  # never a score, nor 1 away from one


def rates(rng, shape):
    return 0.25 + np.abs(scores(rng, shape))


def yes_or_no(rng, shape):
    return rng.integers(8, 57, shape) / 64


def probabilities(rng, shape):
    """Rows that sum to exactly 1, none so small that a step of the differences would change its logarithm much."""
    return (128 + rng.multinomial(1024 - 128 * shape[-1], rng.dirichlet(np.ones(shape[-1]), shape[:-1]))) / 1024


def nearly_probabilities(rng, shape):
    """Rows that sum to 1 as well as data from files may."""
    return probabilities(rng, shape) * 0.9995


def classes(rng, shape):
    return rng.integers(0, shape[-1], shape[:-1])


def one_hot(rng, shape):
    return np.eye(shape[-1])[classes(rng, shape)]


def signs(rng, shape):
    return rng.choice([-1.0, 1.0], shape)


def counts(rng, shape):
    return rng.integers(0, 6, shape)


def half_the_columns(rng, shape):
    return values(rng, (*shape[:-1], shape[-1] // 2))


WEIGHT, IGNORED = [0.5, 2.0, 0.0, 3.0], 1


TABLE = {  # the name of a loss, and what sets the row apart: (class, arguments, predictions, targets)
    "MSE": (MSE, {}, scores, values),
    "MAE": (MAE, {}, scores, values),
    "Huber": (Huber, {}, scores, values),
    "Huber with delta": (Huber, {"delta": 0.7}, scores, values),
    "LogCosh": (LogCosh, {}, scores, values),
    "CosineSimilarity": (CosineSimilarity, {}, scores, values),
    "PoissonNLL": (PoissonNLL, {}, scores, counts),
    "PoissonNLL of rates": (PoissonNLL, {"log_input": False}, rates, counts),
    "CrossEntropy": (CrossEntropy, {}, probabilities, classes),
    "CrossEntropy of soft targets": (CrossEntropy, {}, probabilities, probabilities),
    "CrossEntropy, smooth": (CrossEntropy, {"label_smoothing": 0.1}, probabilities, classes),
    "CrossEntropy of logits": (CrossEntropy, {"from_logits": True}, scores, classes),
    "CrossEntropy of logits, one-hot": (CrossEntropy, {"from_logits": True}, scores, one_hot),
    "CrossEntropy of logits, smooth": (CrossEntropy, {"from_logits": True, "label_smoothing": 0.1}, scores, one_hot),
    "CrossEntropy of nearly": (CrossEntropy, {}, nearly_probabilities, nearly_probabilities),
    "CrossEntropy of logits, nearly": (CrossEntropy, {"from_logits": True}, scores, nearly_probabilities),
    "BinaryCrossEntropy": (BinaryCrossEntropy, {}, yes_or_no, yes_or_no),
    "BinaryCrossEntropy of logits": (BinaryCrossEntropy, {"from_logits": True}, scores, yes_or_no),
    "BinaryCrossEntropy, weighted": (BinaryCrossEntropy, {"pos_weight": WEIGHT}, yes_or_no, yes_or_no),
    "BinaryCrossEntropy of logits, weighted": (
        BinaryCrossEntropy,
        {"from_logits": True, "pos_weight": 3.0},
        scores,
        yes_or_no,
    ),
    "BinaryFocalCrossEntropy": (BinaryFocalCrossEntropy, {"alpha": 0.25}, yes_or_no, yes_or_no),
    "BinaryFocalCrossEntropy of logits": (
        BinaryFocalCrossEntropy,
        {"from_logits": True, "gamma": 1.5},
        scores,
        yes_or_no,
    ),
    "CrossEntropy, weighted": (CrossEntropy, {"weight": WEIGHT}, probabilities, classes),
    "CrossEntropy of soft targets, weighted": (CrossEntropy, {"weight": WEIGHT}, probabilities, probabilities),
    "CrossEntropy of logits, ignoring": (
        CrossEntropy,
        {"from_logits": True, "ignore_index": IGNORED},
        scores,
        classes,
    ),
    "CrossEntropy of logits, with all": (
        CrossEntropy,
        {"from_logits": True, "weight": WEIGHT, "ignore_index": IGNORED, "label_smoothing": 0.1},
        scores,
        classes,
    ),
    "GaussianNLL": (GaussianNLL, {}, scores, half_the_columns),
    "SquaredHinge": (SquaredHinge, {}, scores, signs),
    "KLDivergence": (KLDivergence, {}, probabilities, probabilities),
    "Hinge": (Hinge, {}, scores, signs),
}

every_loss = pytest.mark.parametrize(("make", "arguments", "draw_pred", "draw_real"), TABLE.values(), ids=TABLE)
every_shape = pytest.mark.parametrize("shape", [(N, C), (N, T, C)], ids=["rows", "sequences"])
every_reduction = pytest.mark.parametrize("reduction", losses.REDUCTIONS)


def draws(row, shape, seed=0):
    rng = np.random.default_rng(seed)
    _, _, draw_pred, draw_real = row
    return draw_pred(rng, shape), draw_real(rng, shape)


def weights(seed=1):
    return np.random.default_rng(seed).uniform(0.5, 3, N)


def test_the_table_is_complete():
    rows = {make.__name__ for make, *_ in TABLE.values()}
    missing = sorted({*losses.__all__} - {"Loss"} - rows)
    assert missing == [], "give each a row in TABLE: arguments, predictions, targets"
    assert sorted(rows - {*losses.__all__}) == [], "no loss is called that"
    defined = {name for name, value in vars(losses).items() if inspect.isclass(value) and issubclass(value, Loss)}
    assert sorted(defined - {*losses.__all__}) == [], "write each into loss.__all__"
    assert sorted({*losses.__all__} - defined) == [], "loss.__all__ names what is no loss"
    assert [name for name, (make, *_) in TABLE.items() if not make.stackable] == []


# ---- Gradients and golden values ----


class Weighted:
    """A loss with its sample weights, as a loss of predictions and targets alone."""

    def __init__(self, loss, weight):
        self.loss, self.weight = loss, weight

    def __call__(self, pred, real):
        return self.loss(pred, real, self.weight)

    def backward(self):
        return self.loss.backward()


@every_loss
@every_shape
@every_reduction
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_backward_is_the_derivative(make, arguments, draw_pred, draw_real, shape, reduction, weighted):
    pred, real = draws((make, arguments, draw_pred, draw_real), shape)
    loss = make(**arguments, reduction=reduction)
    if weighted:
        loss = Weighted(loss, weights())
    same = Lambda(np.positive, lambda x, grad: grad)
    result = gradcheck(same, pred, loss, real=real)
    assert result.error <= 1e-6, result


GOLDEN = np.load(Path(__file__).parent / "reference" / "losses.npz")
CASES = {case["id"]: case for case in json.loads(str(GOLDEN["about"]))["cases"]}


def run_golden(case, dtype):
    """(value, gradient) of ours and of the reference."""
    stored = {key.split("/")[1]: GOLDEN[key] for key in GOLDEN.files if key.split("/")[0] == case["id"]}
    loss = getattr(losses, case["loss"])(**case["arguments"])
    softmax = Softmax().copy(dtype=dtype) if "chain" in case else None
    pred = stored["pred"].astype(dtype)
    value = loss(softmax(pred) if softmax else pred, stored["real"], stored.get("sample_weight"))
    gradient = softmax.backward(loss.backward()) if softmax else loss.backward()
    assert gradient.dtype == dtype
    return (value, gradient), (float(stored.get("value_capped", stored["value"])), stored["gradient"])


def test_there_are_golden_values_of_every_loss():
    golden = {case["loss"] for case in CASES.values()}
    missing = sorted({*losses.__all__} - {"Loss"} - golden)
    assert missing == [], "write each into LOSS_TABLE of make_layers.py, then run it"
    assert sorted(golden - {*losses.__all__}) == [], "no loss is called that"
    assert {case.get("chain", "Softmax") for case in CASES.values()} == {"Softmax"}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden_values(case):
    (value, gradient), (expected_value, expected) = run_golden(case, np.float64)
    assert abs(value - expected_value) <= 1e-10 * max(1, abs(expected_value))
    assert np.abs(gradient - expected).max() <= 1e-10 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden_gradients_in_float32(case):
    (_, gradient), (_, expected) = run_golden(case, np.float32)
    assert np.abs(gradient - expected).max() <= 5e-7 * max(1, np.abs(expected).max())


# ---- Softmax and then CrossEntropy ----


STEEP = np.array([[0, 200, -3, 5], [5, -3, 0, 1000], [0.5, 0.25, -1, 0]])
TRUE = np.array([0, 3, 2])  # of the first row, e^-200: 0 in float32


def after_softmax(logits, real, dtype, **arguments):
    """The value, dL/dlogits, and p."""
    softmax, loss = Softmax().copy(dtype=dtype), CrossEntropy(**arguments)
    p = softmax(logits.astype(dtype))
    return loss(p, real), softmax.backward(loss.backward()), p


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_and_cross_entropy_are_as_exact_as_the_fused_form(dtype, smoothing):
    arguments = {"label_smoothing": smoothing, "reduction": "sum"}
    _, gradient, _ = after_softmax(STEEP, TRUE, dtype, **arguments)
    fused = CrossEntropy(from_logits=True, **arguments)
    fused(STEEP.astype(dtype), TRUE)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(gradient, fused.backward(), rtol=0, atol=2 * np.finfo(dtype).eps)


def test_where_p_underflows_the_gradient_is_p_minus_y_exactly_and_the_loss_is_capped():
    value, gradient, p = after_softmax(STEEP[:1], TRUE[:1], np.float32)
    assert p[0, 0] == np.finfo(np.float32).tiny
    np.testing.assert_array_equal(gradient, p - np.eye(4, dtype=np.float32)[TRUE[:1]])
    assert gradient[0, 0] == -1
    assert gradient[0, 1] == 1
    assert 87 < value < 88
    exact = CrossEntropy(from_logits=True)
    assert exact(STEEP[:1].astype(np.float32), TRUE[:1]) == 200


@pytest.mark.parametrize("make", [CrossEntropy, KLDivergence])
def test_a_heavy_sample_with_an_underflowing_probability_has_a_finite_gradient(make):
    softmax, loss = Softmax(), make(reduction="sum")
    loss(softmax(STEEP[:1]), np.eye(4)[TRUE[:1]], [1000.0])
    assert np.isfinite(softmax.backward(loss.backward())).all()


# ---- What a loss declares ----


@every_loss
@every_shape
def test_location_scale_is_declared_where_it_holds(make, arguments, draw_pred, draw_real, shape):
    """Predictions and targets shifted alike: the loss is the same. Scaled alike: each goes the same way.

    Of several columns for each target, the first are those predictions. Targets of another kind are refused or differ.
    """
    pred, real = draws((make, arguments, draw_pred, draw_real), shape)
    columns = slice(0, pred.shape[-1] // make.outputs)
    loss = make(**arguments)
    value = loss(pred, real)
    way = np.sign(loss.backward()[..., columns])

    def of(scale, shift):
        moved = pred.copy()
        moved[..., columns] = scale * pred[..., columns] + shift
        return loss(moved, scale * real + shift)

    def holds():
        try:
            if not all(math.isclose(of(1, shift), value, rel_tol=1e-9) for shift in (-2, 1, 5)):
                return False
            of(3, 0)
        except ValueError:
            return False
        return np.array_equal(np.sign(loss.backward()[..., columns]), way)

    assert value
    assert way.any()
    present = holds()
    assert make.location_scale == present, f"write location_scale = {present} into {make.__name__}"


# ---- Reductions and weights ----


@every_loss
@every_shape
def test_the_reductions_differ_by_counts_alone(make, arguments, draw_pred, draw_real, shape):
    pred, real = draws((make, arguments, draw_pred, draw_real), shape)
    found = {}
    for reduction in losses.REDUCTIONS:
        loss = make(**arguments, reduction=reduction)
        found[reduction] = np.append(loss.backward().ravel(), loss.value) if loss(pred, real) else None
    sums_over_classes = make in (CrossEntropy, KLDivergence)
    last_axis_gone = sums_over_classes or make is CosineSimilarity
    n = math.prod(shape[:-1]) if last_axis_gone else math.prod(shape) // make.outputs
    if real.ndim < pred.ndim:  # class numbers, each of which counts what its class weighs
        n = (np.array(arguments.get("weight", np.ones(C)))[real] * (real != arguments.get("ignore_index"))).sum()
    np.testing.assert_allclose(found["sum"], n * found["mean"], rtol=1e-12)
    batch_sum = found["sum"] if sums_over_classes else N * found["mean"]
    np.testing.assert_allclose(found["batch_sum"], batch_sum, rtol=1e-12)


@every_loss
@every_shape
@every_reduction
def test_a_weight_of_k_counts_a_sample_k_times(make, arguments, draw_pred, draw_real, shape, reduction):
    pred, real = draws((make, arguments, draw_pred, draw_real), shape)
    times = np.array([1, 0, 2, 1, 3])
    loss = make(**arguments, reduction=reduction)
    weighted = loss(pred, real, times)
    np.testing.assert_array_equal(loss.backward()[1], 0)
    assert weighted == pytest.approx(loss(pred.repeat(times, 0), real.repeat(times, 0)), rel=1e-12)
    assert loss(pred, real, np.ones(N)) == pytest.approx(loss(pred, real), rel=1e-12)


@pytest.mark.parametrize("name", TABLE)
@every_shape
@every_reduction
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_each_copy_of_a_stack_has_the_loss_it_has_alone(name, shape, reduction, weighted):
    row = make, arguments, *_ = TABLE[name]
    pred, real = (np.stack(arrays) for arrays in zip(*(draws(row, shape, seed) for seed in range(3)), strict=True))
    weight = np.stack([weights(seed) for seed in range(3)]) if weighted else [None] * 3
    stack, alone = make(**arguments, reduction=reduction), make(**arguments, reduction=reduction)
    values = stack(pred, real, weight if weighted else None, copies=3)
    gradients = stack.backward()
    for s in range(3):
        assert values[s] == pytest.approx(alone(pred[s], real[s], weight[s]), rel=1e-12)
        np.testing.assert_allclose(gradients[s], alone.backward(), rtol=1e-12)


@every_reduction
@pytest.mark.parametrize("given", [[1, 2], np.ones((N, 1)), 1.0, "heavy", ["a"] * N], ids=str)
def test_weights_of_another_shape_or_kind_are_refused(reduction, given):
    with pytest.raises(ValueError, match=r"sample_weight has one number per sample, shape \(5,\), got shape"):
        MSE(reduction)(np.ones((N, C)), np.ones((N, C)), given)


@pytest.mark.parametrize("given", [[1, 1, 1, 1, -1], [1, 1, np.nan, 1, 1], [1, 1, np.inf, 1, 1], [0] * N], ids=str)
def test_impossible_weights_are_refused(given):
    with pytest.raises(ValueError, match=r"sample_weight is finite and not negative, and not all of it is zero"):
        MSE()(np.ones((N, C)), np.ones((N, C)), given)


# ---- What every loss promises ----


@every_loss
def test_float32_stays_float32_and_the_value_is_a_float(make, arguments, draw_pred, draw_real):
    pred, real = draws((make, arguments, draw_pred, draw_real), (N, C))
    for weight in (None, weights()):
        loss = make(**arguments)
        assert type(loss(pred.astype(np.float32), real, weight)) is float
        assert loss.backward().dtype == np.float32


@every_loss
def test_lists_are_accepted(make, arguments, draw_pred, draw_real):
    pred, real = draws((make, arguments, draw_pred, draw_real), (N, C))
    loss = make(**arguments)
    assert loss(pred.tolist(), real.tolist(), weights().tolist()) == loss(pred, real, weights())


@every_loss
def test_a_pass_never_writes_into_what_it_was_given(make, arguments, draw_pred, draw_real):
    given = [*draws((make, arguments, draw_pred, draw_real), (N, C)), weights()]
    for array in given:
        array.flags.writeable = False  # NumPy refuses what tries
    loss = make(**arguments)
    loss(*given)
    first = loss.backward().copy()  # nor into what it kept: twice is the same
    np.testing.assert_array_equal(loss.backward(), first)


@every_loss
def test_returned_arrays_never_change(make, arguments, draw_pred, draw_real):
    row = make, arguments, draw_pred, draw_real
    loss = make(**arguments)
    results = []
    for weight in (None, weights()):
        loss(*draws(row, (N, C)), weight)
        results.append(loss.backward())
    before = [result.copy() for result in results]
    loss(*draws(row, (N, C), seed=7))
    loss.backward()
    pred, real = draws(row, (N, C), seed=8)
    raw = make(**arguments).takes_raw_scores or make is GaussianNLL
    net = Model([Linear(C), *([] if raw else [Softmax()])], seed=0)
    net.train(pred, real, loss=loss, epochs=2, verbose=False)
    for result, expected in zip(results, before, strict=True):
        np.testing.assert_array_equal(result, expected)


@every_loss
@every_reduction
def test_the_last_arguments_and_value_are_kept(make, arguments, draw_pred, draw_real, reduction):
    pred, real = draws((make, arguments, draw_pred, draw_real), (N, C))
    weight = weights()
    loss = make(**arguments, reduction=reduction)
    assert loss(pred, real, weight) == loss.value
    gradient = loss.backward()
    with pytest.raises(ValueError, match="shape"):
        loss(pred, real[:2])  # what is refused leaves them as they are
    np.testing.assert_array_equal(loss.backward(), gradient)
    for kept, given in ((loss.pred, pred), (loss.real, real), (loss.sample_weight, weight)):
        np.testing.assert_array_equal(kept, given)
    assert loss(loss.pred, loss.real, loss.sample_weight) == loss.value
    loss(pred, real)
    assert loss.sample_weight is None


@every_loss
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))], ids=["deepcopy", "pickle"]
)
def test_a_copy_computes_the_same_and_carries_no_arrays(make, arguments, draw_pred, draw_real, copied):
    pred, real = draws((make, arguments, draw_pred, draw_real), (N, C))
    loss = make(**arguments, reduction="sum")
    value = loss(pred, real)
    twin = copied(loss)
    assert not any(isinstance(each, (np.ndarray, tuple)) for each in vars(twin).values())
    assert repr(twin) == repr(loss)
    with pytest.raises(RuntimeError, match=r"backward\(\) follows a call loss\(pred, real\): call it first"):
        twin.backward()
    assert twin(pred, real) == value
    np.testing.assert_array_equal(twin.backward(), loss.backward())


@every_loss
def test_backward_before_a_call_is_refused(make, arguments, draw_pred, draw_real):
    with pytest.raises(RuntimeError, match=f"{make.__name__}.backward\\(\\) follows a call"):
        make(**arguments).backward()


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1.0, 1e4])
@pytest.mark.parametrize("make", [MSE, MAE, Huber, LogCosh, CosineSimilarity, Hinge])
def test_no_size_of_predictions_gives_a_nan(make, scale):
    pred = np.array([[scale, -scale, 0.0]], np.float32)
    loss = make()
    assert math.isfinite(loss(pred, np.array([[1, -1, 1]])))
    assert np.isfinite(loss.backward()).all()


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_certain_binary_predictions_have_a_finite_loss_and_gradient(p, y):
    loss = BinaryCrossEntropy()
    assert loss([[p]], [[y]]) == (0 if p == y else 100)
    gradient = loss.backward()[0, 0]
    assert math.isfinite(gradient)
    assert np.sign(gradient) == np.sign(p - y)


# ---- What is refused ----


@every_loss
def test_targets_of_another_shape_are_refused_and_never_broadcast(make, arguments, draw_pred, draw_real):
    for other in [(N,), (1, 3), (N, 3), (3, 1), (1, N), (N, 1, 1), ()]:
        both = f"shape {(N, 1)} and targets of shape {other}"
        with pytest.raises(ValueError, match=re.escape(both)):
            make(**arguments)(np.full((N, 1), 0.5), np.ones(other))


def test_the_message_says_how_to_reshape():
    with pytest.raises(ValueError, match=r"shape \(5, 1\) and targets of shape \(5,\).*real\.reshape\(5, 1\)"):
        MSE()(np.ones((5, 1)), np.ones(5))
    with pytest.raises(ValueError, match=r"shape \(5, 3\) and targets of shape \(5,\).*real\.astype\(int\)"):
        CrossEntropy(from_logits=True)(np.ones((5, 3)), np.ones(5))
    with pytest.raises(ValueError, match=r"\(5, 3\).*or class numbers \(integers\) of shape \(5,\)"):
        CrossEntropy(from_logits=True)(np.ones((5, 3)), np.ones(4, int))
    with pytest.raises(ValueError, match=r"\(integers\) of shape \(5, 2\)\. Convert it: real\.astype\(int\)"):
        CrossEntropy(from_logits=True)(np.ones((5, 2, 3)), np.ones((5, 2)))
    for real in (np.ones((5, 2), int), np.ones(4, int)):
        with pytest.raises(ValueError, match=r"shape \(5, 3\), or class numbers \(integers\) of shape \(5,\)\.$"):
            CrossEntropy(from_logits=True)(np.ones((5, 3)), real)


THIRDS = np.full((2, 3), 1 / 3)
REFUSED = {  # what is wrong: (loss, pred, real, what the message says)
    "class number too large": (CrossEntropy(), THIRDS, [0, 3], "class numbers from 0 to 2.*got 0 to 3"),
    "class number negative": (CrossEntropy(), THIRDS, [-1, 2], "class numbers from 0 to 2.*got -1 to 2"),
    "scores for probabilities": (CrossEntropy(), [[2.0, -1, 0], [0, 0, 1]], [0, 1], "Softmax last.*from_logits=True"),
    "a sum 2e-3 off": (CrossEntropy(), THIRDS * 1.002, [0, 1], "predictions.*sum to 1; a row sums to 1.002"),
    "a negative probability": (CrossEntropy(), [[1.5, -0.5, 0]] * 2, [0, 1], "numbers >= 0.*smallest is -0.5"),
    "a NaN probability": (CrossEntropy(), THIRDS * np.nan, [0, 1], "a row sums to nan"),
    "soft targets that do not sum to 1": (CrossEntropy(), THIRDS, THIRDS * 0.9, "targets.*a row sums to 0.9"),
    "one column of classes": (CrossEntropy(), [[0.5], [0.5]], [0, 1], r"\(2, 1\).*BinaryCrossEntropy"),
    "one column in a sequence": (CrossEntropy(), [[[0.5]] * 2], [[0, 1]], r"\(1, 2, 1\).*BinaryCrossEntropy"),
    "KL predictions": (KLDivergence(), THIRDS * 2, THIRDS, "KLDivergence.*predictions.*sums to 2.*Softmax last"),
    "KL targets": (KLDivergence(), THIRDS, THIRDS * 2, "KLDivergence.*targets.*sums to 2"),
    "binary scores": (BinaryCrossEntropy(), [[2.5]], [[1]], "got 2.5 to 2.5.*Sigmoid last.*from_logits=True"),
    "binary scores just too large": (BinaryCrossEntropy(), [[1.01]], [[1]], "got 1.01 to 1.01"),
    "binary targets just too large": (BinaryCrossEntropy(), [[0.5]], [[1.01]], "from 0 to 1, got 1.01 to 1.01"),
    "binary targets": (BinaryCrossEntropy(), [[0.5]], [[-1]], "targets from 0 to 1, got -1 to -1"),
    "hinge labels": (Hinge(), [[0.5, 1]], [[0, 1]], r"labels -1 and 1, got \[0.0, 1.0\].*2 \* real - 1"),
    "negative counts": (PoissonNLL(), [[0.5]], [[-2]], "counts, 0 or more; the smallest is -2"),
    "negative rates": (PoissonNLL(log_input=False), [[-0.5]], [[2]], "smallest is -0.5.*log_input=True"),
    "no rows": (MSE(), np.ones((0, 3)), np.ones((0, 3)), r"a batch of predictions, got shape \(0, 3\)"),
    "no axes": (MSE(), 0.5, 1.0, r"a batch of predictions, got shape \(\)"),
    "one axis for rows": (CosineSimilarity(), [1.0, 2], [1.0, 2], r"CosineSimilarity.*\(2,\)"),
    "one axis for distributions": (KLDivergence(), [0.5, 0.5], [0.5, 0.5], r"KLDivergence.*\(2,\)"),
}


@pytest.mark.parametrize(("loss", "pred", "real", "message"), REFUSED.values(), ids=REFUSED)
def test_data_that_a_loss_cannot_take(loss, pred, real, message):
    with pytest.raises(ValueError, match=message):
        loss(pred, real)
    assert loss.pred is None


def test_data_at_the_edge_of_the_range_is_accepted():
    assert CrossEntropy()([[[0.25, 0.75]], [[0.5, 0.5]]], [[1], [0]]) == pytest.approx(-np.log(0.75 * 0.5) / 2)
    assert PoissonNLL(log_input=False)([[0.0, 1.0]], [[0, 1]]) == pytest.approx(0.5, abs=1e-6)
    assert BinaryCrossEntropy()([[0.0, 1.0]], [[0, 1]]) == 0


@every_loss
def test_data_that_is_not_numbers_is_refused(make, arguments, draw_pred, draw_real):
    for pred, real, what in (([["a"]], [[1.0]], "predictions"), ([[1.0]], [[None]], "targets")):
        with pytest.raises(TypeError, match=f"{make.__name__} takes numbers, got {what} of"):
            make(**arguments)(pred, real)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MSE("average"), r"reduction is one of \('mean', 'sum', 'batch_sum'\), got 'average'"),
        (lambda: MSE(None), "reduction is one of .*, got None"),
        (lambda: Huber(0), "delta is a positive number, got 0"),
        (lambda: Huber(delta=math.nan), "delta is a positive number, got nan"),
        (lambda: Huber("1"), "delta is a positive number, got '1'"),
        (lambda: CrossEntropy(label_smoothing=1), r"label_smoothing is a number in \[0, 1\), got 1"),
        (lambda: CrossEntropy(label_smoothing=-0.1), r"label_smoothing is a number in \[0, 1\), got -0.1"),
    ],
)
def test_arguments_outside_their_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_numpy_are_numbers():
    for number in (np.float32(0.5), np.float64(0.5)):
        loss = Huber(number)
        loss(np.ones((2, 1), np.float32), np.zeros((2, 1)))
        assert loss.backward().dtype == np.float32
        assert repr(CrossEntropy(label_smoothing=number)) == repr(CrossEntropy(label_smoothing=0.5))


# ---- Losses of one's own ----


class Cubic(Loss):
    """v = |pred - real|^3."""

    def forward(self, pred, real):
        self.kept = pred - real
        return np.abs(self.kept) ** 3

    def derivative(self, scale):
        return 3 * self.kept * np.abs(self.kept) * scale


class CubicWithoutInit(Cubic):
    def __init__(self, power=3):
        self.power = power


class PlainSquare:
    """No Loss at all: any callable with backward."""

    def __call__(self, pred, real):
        self.d = pred - real
        return float((self.d**2).mean())

    def backward(self):
        return 2 * self.d / self.d.size


@pytest.mark.parametrize("make", [Cubic, CubicWithoutInit, PlainSquare])
def test_a_loss_of_ones_own_trains_a_net(make):
    x, y = draws(TABLE["MSE"], (N, C))
    loss = make()
    assert gradcheck(Linear(C), x, loss, real=y).error <= 1e-6
    net = Model([Linear(C)], seed=0)
    history = net.train(x, y, optim=SGD(0.01), loss=loss, epochs=5, verbose=False)
    assert history["loss"][-1] < history["loss"][0]


def test_a_subclass_has_reductions_weights_and_checks():
    loss = Cubic("sum")
    assert loss([[2.0], [1.0]], [[0.0], [0.0]], [1, 2]) == 10
    np.testing.assert_array_equal(loss.backward(), [[12], [6]])
    with pytest.raises(ValueError, match=r"Cubic got predictions of shape \(2, 1\) and targets of shape \(2,\)"):
        loss([[2.0], [1.0]], [0.0, 0.0])


@pytest.mark.parametrize("missing", ["forward", "derivative"])
def test_the_error_names_what_a_subclass_must_write(missing):
    loss = type("Own", (Cubic,), {missing: getattr(Loss, missing)})()
    with pytest.raises(TypeError, match=rf"Own has no {missing}\(self, .*: write it"):
        loss.backward() if loss([[1.0]], [[0.0]]) else None


def test_cosine_similarity_does_not_depend_on_lengths():
    pred, real = np.random.default_rng(0).normal(size=(2, 5, 3))
    expected = CosineSimilarity()(pred, real)
    for length in (1e-4, 1e4):
        assert CosineSimilarity()(length * pred, real / length) == pytest.approx(expected, rel=1e-12)


def test_weights_of_time_steps_are_a_mask():
    """A step that weighs 0 is a step that is not there; the mean is over the weight of all steps."""
    rng = np.random.default_rng(0)
    pred, real = scores(rng, (2, 3, C)), classes(rng, (2, 3, C))
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    for make, target in ((lambda: CrossEntropy(from_logits=True), real), (MSE, values(rng, pred.shape))):
        loss, alone = make(), make()
        assert loss(pred, target, mask) == pytest.approx(alone(pred[mask == 1], target[mask == 1]), rel=1e-12)
        gradient = loss.backward()
        np.testing.assert_allclose(gradient[mask == 1], alone.backward(), rtol=1e-12)
        np.testing.assert_array_equal(gradient[mask == 0], 0)
        stacked = make()
        np.testing.assert_allclose(stacked(pred[None], target[None], mask[None].astype(float), copies=1), [loss.value])
        np.testing.assert_allclose(stacked.backward()[0], gradient, rtol=1e-12)
    with pytest.raises(ValueError, match=r"shape \(2,\), or one per time step, shape \(2, 3\), got shape \(3, 2\)"):
        MSE()(pred, pred, mask.T)


def test_a_batch_that_is_all_ignored_counts_for_nothing():
    loss = CrossEntropy(from_logits=True, ignore_index=-100)
    assert loss(np.ones((2, 3)), [-100, -100]) == 0
    np.testing.assert_array_equal(loss.backward(), 0)
    with pytest.raises(ValueError, match="class numbers from 0 to 2"):
        loss(np.ones((2, 3)), [-1, 0])
    with pytest.raises(ValueError, match="ignore_index goes with class numbers"):
        loss(np.ones((2, 3)), np.eye(3)[:2])


def test_weights_of_columns_need_one_for_each_column():
    for make, real in (
        (CrossEntropy(True, weight=[1, 2]), [0, 1]),
        (BinaryCrossEntropy(True, pos_weight=[1, 2]), THIRDS),
    ):
        with pytest.raises(ValueError, match="weight has 2 numbers, and the predictions have 3 columns"):
            make(THIRDS, real)
    for bad in ([-1, 2], [np.nan, 1], [], "ab", [[1, 2]]):
        with pytest.raises(ValueError, match="weight is a list of numbers, one for each column"):
            CrossEntropy(weight=bad)


def test_gaussian_nll_is_lowest_at_the_mean_and_variance_of_the_targets():
    """Of one constant input, the best mean and variance are those of the targets: dL/dpred is 0 there."""
    real = np.random.default_rng(0).normal(3, 2, (50, 1))
    loss = GaussianNLL()
    pred = np.tile([real.mean(), np.log(real.var())], (50, 1))
    assert loss(pred, real) == pytest.approx(0.5 * np.log(real.var()) + 0.5)
    np.testing.assert_allclose(loss.backward().sum(0), 0, atol=1e-12)
    with pytest.raises(ValueError, match=r"two columns .* got predictions of shape \(50, 3\)"):
        loss(np.ones((50, 3)), real)
    net = Model([Linear(2)], seed=0)
    net.train(np.ones((4, 1)), np.arange(4)[:, None], SGD(0.1), GaussianNLL(), epochs=3, verbose=False)
    assert np.isfinite(net.vector).all()
