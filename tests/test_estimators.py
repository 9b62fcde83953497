"""The estimators: scikit-learn's own checks, and what those do not look at."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from scipy import special
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_class_weight, get_tags
from sklearn.utils.estimator_checks import check_class_weight_classifiers, parametrize_with_checks

import layers
import loss
import optim
from layerwise import datasets, schedules
from layerwise.estimators import NetClassifier, NetRegressor

# One batch holds all rows of the checks: a weight of 2 is then a row that comes twice, and float64 as near as they ask.
CHECKED = {"hidden_layer_sizes": (8,), "batch_size": 200, "dtype": "float64", "max_iter": 60}
FALLING = optim.SGD(lr=schedules.Cosine(0.1, 0.01, 60))
NORMED = [layers.Linear(8), layers.BatchNorm(), layers.Tanh()]
SETTINGS = [
    NetClassifier(**CHECKED),
    NetClassifier(**CHECKED, loss=loss.Hinge(), class_weight="balanced"),
    NetClassifier(**CHECKED, loss=loss.SquaredHinge(), optim=optim.Clip(FALLING, norm=1.0)),
    NetClassifier(**CHECKED, loss=loss.BinaryCrossEntropy(), optim=optim.LBFGS(steps=1)),
    NetClassifier(**CHECKED, loss=loss.MSE(), early_stopping=True, class_weight="balanced"),
    NetClassifier(
        (4,), loss=loss.CrossEntropy(from_logits=True), batch_size=1, max_iter=4, tol=1, optim=optim.Adam(0.02)
    ),
    NetClassifier(layers=NORMED, batch_size=8, max_iter=10, warm_start=True, optim=optim.Adam(0.02)),
    NetRegressor(**CHECKED),
    NetRegressor(**CHECKED, loss=loss.Huber(), optim=FALLING),
    NetRegressor(**CHECKED, loss=loss.LogCosh(), optim=optim.LBFGS(steps=1)),
    NetRegressor(**CHECKED, loss=loss.MAE(), early_stopping=True, learning_rate="adaptive"),
    NetRegressor(**CHECKED, loss=loss.GaussianNLL(), scale_targets=False),
    NetRegressor(**(CHECKED | {"max_iter": 300}), loss=loss.PoissonNLL(), optim=optim.Adam(lr=0.02)),
    NetRegressor((4,), batch_size=1, max_iter=4, optim=optim.Adam(lr=0.01)),
    NetRegressor(layers=NORMED, loss=loss.CosineSimilarity(), batch_size=8, max_iter=5, warm_start=True),
]


def expected_failures(estimator):
    """What scikit-learn's checks ask for and its own estimators of this kind, MLPClassifier with the same arguments, or
    those trained in small batches, do not fulfil either."""
    known = {}
    if estimator.batch_size < 200 or estimator.early_stopping:
        why = "a row of weight 2 is not a row that comes twice: other batches, and other rows held out"
        known["check_sample_weight_equivalence_on_dense_data"] = why
    if estimator.warm_start:
        why = "asks for the same of a second fit, which goes on from the first"
        known |= dict.fromkeys(("check_supervised_y_2d", "check_classifiers_multilabel_representation_invariance"), why)
    if estimator.dtype == "float32":
        known["check_methods_subset_invariance"] = "asks for seven digits of float32"
    if getattr(estimator.loss, "positive_targets", False):
        known["check_regressor_multioutput"] = "gives negative targets, whatever the tag positive_only says"
    return known


CHECKS = parametrize_with_checks(SETTINGS, expected_failed_checks=expected_failures).mark
LONG = {id(each): CHECKS.kwargs["ids"](each) for each in SETTINGS}  # a name takes 5 ms, and stands in a hundred tests


@pytest.mark.parametrize(
    *CHECKS.args, **CHECKS.kwargs | {"ids": lambda each: LONG.get(id(each)) or CHECKS.kwargs["ids"](each)}
)
def test_scikit_learns_checks(estimator, check, request):
    before = np.random.get_state()  # noqa: NPY002
    try:
        check(estimator)
    except Exception as error:
        if request.node.get_closest_marker("xfail") is None:
            raise
        # Without the way to it, which pytest would look up in the source of all checks, though it shows none of it.
        raise AssertionError(f"{type(error).__name__}: {error}") from None
    np.random.set_state(before)  # noqa: NPY002 (the checks draw from it themselves)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 5))
NUMBERS = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0.5)
LABELS = np.array(["ash", "beech", "oak"])[NUMBERS]
YES = np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")
COLUMNS = (X[:, :3] > 0).astype(int)
Y = np.stack([X[:, 0] + np.abs(X[:, 1]), X[:, 2] * X[:, 3]], 1)
QUICK = {"hidden_layer_sizes": (16,), "max_iter": 40, "optim": optim.Adam(lr=0.01), "random_state": 0}
ONCE = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}


def bits(estimator):
    return estimator.net_.vector.tobytes()


# What comes out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [LABELS, YES, NUMBERS], ids=["strings", "two", "numbers"])
@pytest.mark.parametrize(
    "given",
    [
        None, loss.CrossEntropy(from_logits=True), loss.CrossEntropy(label_smoothing=0.1), loss.BinaryCrossEntropy(),
        loss.BinaryCrossEntropy(from_logits=True), loss.MSE(), loss.KLDivergence(),
    ],
    ids=repr,
)  # fmt: skip
def test_classes(y, given):
    clf = NetClassifier(**QUICK, loss=given).fit(X, y)
    assert np.array_equal(clf.classes_, np.unique(y))
    p = clf.predict_proba(X)
    assert p.shape == (len(X), len(clf.classes_))
    assert p.min() >= 0
    assert np.allclose(p.sum(1), 1, atol=1e-5)
    assert np.array_equal(clf.predict(X), clf.classes_[p.argmax(1)])
    assert clf.score(X, y) > 0.9


def test_hinge_has_no_probabilities():
    clf = NetClassifier(**QUICK, loss=loss.Hinge()).fit(X, LABELS)
    assert clf.score(X, LABELS) > 0.9
    assert not hasattr(clf, "predict_proba")
    assert np.array_equal(clf.classes_[clf.decision_function(X).argmax(1)], clf.predict(X))
    two = clone(clf).fit(X, YES)
    scores = two.decision_function(X)
    assert scores.shape == (len(X),)
    assert np.array_equal(np.where(scores > 0, "yes", "no"), two.predict(X))
    assert cross_val_score(clone(clf), X, YES, cv=2, scoring="roc_auc").min() > 0.9
    assert not hasattr(NetClassifier(), "decision_function")


class SquaredHinge(loss.Loss):
    """A loss of one's own with the labels -1 and 1: what is known of it stands on the class."""

    takes_raw_scores = binary = True
    labels = (-1, 1)

    def forward(self, pred, real):
        self.kept = np.maximum(1 - real * pred, 0), real
        return self.kept[0] ** 2

    def derivative(self, scale):
        return -2 * self.kept[0] * self.kept[1] * scale

    def check_real(self, real, classes):
        if not (np.abs(real) == 1).all():
            raise ValueError("the labels are -1 and 1")


def test_a_loss_of_ones_own_declares_its_labels():
    clf = NetClassifier(**QUICK, loss=SquaredHinge()).fit(X, YES)
    assert clf.score(X, YES) > 0.9
    assert isinstance(clf.net_[-1], layers.Linear)
    assert not hasattr(clf, "predict_proba")
    assert ((clf.decision_function(X) > 0) == (clf.predict(X) == "yes")).all()
    columns = clone(clf).fit(X, COLUMNS)
    assert (columns.predict(X) == COLUMNS).mean() > 0.95
    assert np.array_equal(columns.decision_function(X) > 0, columns.predict(X))


def test_a_loss_of_ones_own_takes_raw_scores():
    net = layers.Model([layers.Linear(1, init=1.0, bias=False)], seed=0)
    found = net.evaluate([[0.3], [-0.2], [0.1]], [[1], [-1], [-1]], loss=SquaredHinge(), metrics="accuracy")
    assert found["accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="takes raw scores, and the net ends in a Softmax"):
        layers.Model([layers.Linear(2), layers.Softmax()]).train(X, NUMBERS, loss=SquaredHinge())


@pytest.mark.parametrize("given", [None, loss.BinaryCrossEntropy(from_logits=True), loss.Hinge()], ids=repr)
def test_labels_in_columns(given):
    clf = NetClassifier(**QUICK, loss=given).fit(X, COLUMNS)
    assert (clf.predict(X) == COLUMNS).mean() > 0.95
    if given is None or given.labels is None:
        p = clf.predict_proba(X)
        assert np.array_equal(clf.predict(X), p > 0.5)
        assert p.sum(1).max() > 1.5  # each column has a probability of its own


def test_numbers_keep_their_shape():
    one, two = (NetRegressor(**QUICK).fit(X, y) for y in (Y[:, 0], Y))
    assert one.predict(X).shape == (120,)
    assert two.predict(X).shape == (120, 2)
    assert min(one.score(X, Y[:, 0]), two.score(X, Y)) > 0.9
    assert NetRegressor(**QUICK).fit(X, Y[:, :1]).predict(X).shape == (120, 1)


LOCATED = [kind() for kind in map(vars(loss).get, loss.__all__) if kind.location_scale]


@pytest.mark.parametrize("given", LOCATED, ids=repr)
def test_the_scale_of_the_targets_does_not_matter(given):
    told = {**ONCE, "dtype": "float64", "loss": given}
    small, large = (NetRegressor(**told).fit(X, y).predict(X) for y in (Y, Y * [1000, 0.001] - 7))
    assert np.allclose(large, small * [1000, 0.001] - 7, rtol=1e-9)
    raw = NetRegressor(**told, scale_targets=False).fit(X, Y)
    assert np.array_equal(raw.predict(X), given.expected(raw.net_.predict(X)))


def test_a_constant_target_is_predicted():
    pred = NetRegressor(**ONCE).fit(X, np.full(120, 5.0)).predict(X)
    assert np.abs(pred - 5).max() < 1


def test_counts():
    rates = np.exp(X[:, 0])
    reg = NetRegressor(**QUICK, loss=loss.PoissonNLL()).fit(X, RNG.poisson(rates))
    pred = reg.predict(X)
    assert pred.min() > 0
    assert np.corrcoef(pred, rates)[0, 1] > 0.8


def test_the_targets_of_other_losses_stay_as_they_are():
    others = [kind() for kind in map(vars(loss).get, loss.__all__) if kind is not loss.Loss and not kind.location_scale]
    tried = [(each, y) for each in others for y in (Y, np.abs(Y)) if accepts(NetRegressor(**ONCE, loss=each), y)]
    assert {type(each).__name__ for each, _ in tried} >= {"PoissonNLL", "CosineSimilarity"}
    for given, y in tried:
        scaled, raw = (NetRegressor(**ONCE, loss=given, scale_targets=each).fit(X, y) for each in (True, False))
        assert np.array_equal(scaled.predict(X), raw.predict(X)), given


@pytest.mark.parametrize("given", LOCATED, ids=repr)
def test_losses_of_numbers(given):
    epochs = QUICK["max_iter"] * given.outputs  # for the logarithms of variances are learned, too
    assert NetRegressor(**(QUICK | {"max_iter": epochs}), loss=given).fit(X, Y).score(X, Y) > 0.85


def accepts(estimator, y):
    try:
        estimator.fit(X, y)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "given",
    [None, *(vars(loss)[name]() for name in loss.__all__ if name != "Loss"), SquaredHinge()],
    ids=lambda given: type(given).__name__,
)
def test_tags_say_what_fit_takes(given):
    clf, reg = NetClassifier(**ONCE, loss=given), NetRegressor(**ONCE, loss=given, scale_targets=False)
    assert get_tags(clf).classifier_tags.multi_label == accepts(clf, COLUMNS)
    assert not get_tags(clf).classifier_tags.poor_score
    counts = np.abs(Y)
    if accepts(reg, counts):
        assert get_tags(reg).target_tags.positive_only != accepts(reg, Y)
        assert get_tags(reg).target_tags.multi_output
        used = given or loss.MSE()
        pred = np.repeat(counts, used.outputs, 1)
        any_size = used(2 * pred, counts) == pytest.approx(used(pred, counts), abs=1e-6)  # of the predictions
        assert get_tags(reg).regressor_tags.poor_score == any_size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("x", "wanted"), [("float32", "float32"), ("float64", "float64"), ("int64", "float64")])
def test_predictions_have_the_dtype_of_x(dtype, x, wanted):
    told = {**ONCE, "dtype": dtype}
    data = (3 * X).astype(x)
    for y in (Y, Y[:, 0]):
        assert NetRegressor(**told).fit(data, y).predict(data).dtype == wanted
    assert NetRegressor(**told, loss=loss.PoissonNLL()).fit(data, np.abs(Y)).predict(data).dtype == wanted
    for given, y in [(None, LABELS), (loss.BinaryCrossEntropy(), LABELS), (None, COLUMNS), (loss.MSE(), YES)]:
        clf = NetClassifier(**told, loss=given).fit(data, y)
        p = clf.predict_proba(data)
        assert p.dtype == clf.predict_log_proba(data).dtype == wanted
        if y is not COLUMNS:
            np.testing.assert_allclose(p.sum(1), 1, rtol=4 * np.finfo(wanted).eps)
        # The probabilities are those of the net itself, whose last layer is in its own dtype.
        if given is None:
            np.testing.assert_allclose(p, clf.net_.predict(data), rtol=1e-5)
    clf = NetClassifier(**told, loss=loss.Hinge()).fit(data, LABELS)
    assert clf.decision_function(data).dtype == wanted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logarithms_of_probabilities_are_finite_where_those_are_0(dtype):
    far = X * 1e4
    for given in (None, loss.CrossEntropy(from_logits=True), loss.BinaryCrossEntropy(from_logits=True)):
        clf = NetClassifier(**{**ONCE, "dtype": dtype}, loss=given).fit(X, LABELS)
        w, b, v, c = (each.astype(np.float64) for layer in (clf.net_[0], clf.net_[2]) for each in (layer.w, layer.b))
        scores = np.maximum(far @ w + b, 0) @ v + c
        right = special.log_softmax(scores if given is None or not given.binary else special.log_expit(scores), 1)
        assert right.min() < -800  # below the logarithm of the smallest float64
        np.testing.assert_allclose(clf.predict_log_proba(far), right, rtol=1e-3 if dtype == "float32" else 1e-9)
    several = NetClassifier(**ONCE).fit(X, COLUMNS)
    p, logarithms = several.predict_proba(X), several.predict_log_proba(X)
    np.testing.assert_allclose(np.exp(logarithms), p, rtol=1e-9)
    assert np.isfinite(several.predict_log_proba(far)).all()
    assert not hasattr(NetClassifier(loss=loss.Hinge()), "predict_log_proba")


def test_what_an_estimator_has_not_says_why():
    clf = NetClassifier(loss=loss.Hinge(), early_stopping=True)
    for name in ("predict_proba", "predict_log_proba"):
        with pytest.raises(AttributeError, match=rf"NetClassifier.{name}: Hinge.* has no probabilities: decision_func"):
            getattr(clf, name)
    with pytest.raises(AttributeError, match="this loss has probabilities: predict_proba"):
        NetClassifier().decision_function(X)
    assert not hasattr(clf, "partial_fit")
    assert hasattr(clf.set_params(early_stopping=False), "partial_fit")
    with pytest.raises(AttributeError, match=r"NetRegressor.partial_fit: LBFGS needs all rows at once: call fit"):
        NetRegressor(optim="lbfgs").partial_fit(X, Y)


# The net -------------------------------------------------------------------------------------------------------


def test_each_hidden_layer_has_its_own():
    clf = NetClassifier((8, 6, 4), ("gelu", layers.LeakyReLU(0.2), "identity"), dropout=(0.1, 0, 0.5), max_iter=1)
    names = [repr(layer) for layer in clf.fit(X, LABELS).net_]
    wanted = [
        layers.Linear(8, init="glorot"), layers.GELU(), layers.Dropout(0.1),
        layers.Linear(6, init="glorot"), layers.LeakyReLU(0.2),
        layers.Linear(4, init="glorot"), layers.Dropout(0.5),
        layers.Linear(3, init="glorot"), layers.Softmax(),
    ]  # fmt: skip
    assert names == [repr(layer) for layer in wanted]


def test_a_list_of_layers_is_copied():
    given = [layers.Reshape((8, 8, 1)), layers.Conv2D(4, 3, stride=2), layers.ReLU(), layers.Flatten()]
    x, y = datasets.digits()
    clf = NetClassifier(layers=given, max_iter=3, optim=optim.Adam(lr=0.01), random_state=0)
    assert clf.fit(x[:600], y[:600]).score(x[600:900], y[600:900]) > 0.7
    assert [layer.input_shape for layer in given] == [None] * 4
    assert bits(clone(clf).fit(x[:600], y[:600])) == bits(clf)


def test_a_warm_start_does_not_go_on_with_another_net():
    clf = NetClassifier((8,), max_iter=2, warm_start=True, random_state=0).fit(X, LABELS)
    before = bits(clf)
    with pytest.raises(ValueError, match=r"units=8.*units=20.*warm_start=False"):
        clf.set_params(hidden_layer_sizes=(20,)).fit(X, LABELS)
    with pytest.raises(ValueError, match="units=20"):
        clf.partial_fit(X, LABELS)
    assert bits(clf) == before


def test_layers_that_have_learned_go_on():
    first = NetRegressor(**ONCE).fit(X, Y)
    consumed = first.net_[0]
    second = NetRegressor(layers=[consumed, layers.ReLU()], max_iter=1, optim=optim.SGD(lr=1e-9)).fit(X, Y)
    assert np.allclose(second.net_[0].w, consumed.w, atol=1e-6)
    assert second.net_[0] is not consumed


def test_words_by_number():
    words = RNG.integers(0, 20, (200, 4))
    y = (words == 3).any(1)
    told = {"max_iter": 60, "optim": optim.Adam(lr=0.02), "random_state": 0}
    clf = NetClassifier(layers=[layers.Embedding(20, 6), layers.Flatten()], **told).fit(words, y)
    assert clf.score(words, y) > 0.95


# The optimizer -------------------------------------------------------------------------------------------------


def test_no_fit_changes_the_optimizer_that_was_given(snapshot):
    rule = optim.Adam(lr=0.01)
    before = snapshot(None, rule)
    alone = NetClassifier(**{**ONCE, "optim": rule}).fit(X, LABELS)
    other = NetRegressor(**{**ONCE, "optim": rule}).fit(X, Y)
    repeated = NetClassifier(**{**ONCE, "optim": rule}).fit(X, LABELS)
    assert snapshot(None, rule) == before
    assert bits(alone) == bits(repeated)
    assert other.net_.optim is not rule


def test_an_optimizer_that_has_served_starts_anew():
    used = NetClassifier(**ONCE).fit(X, LABELS).net_.optim
    assert used.t > 0
    fresh, repeated = (NetClassifier(**{**ONCE, "optim": each}).fit(X, LABELS) for each in (optim.Adam(), used))
    assert bits(fresh) == bits(repeated)


def test_hyper_parameters_are_parameters():
    clf = NetClassifier(optim="sgd")
    assert clf.get_params()["optim__lr"] == optim.SGD().lr
    assert not any(name.startswith("optim__") for name in clf.get_params(deep=False))
    clf.set_params(optim__lr=0.5, optim__weight_decay=0.01)
    twin = clone(clf).set_params(optim__lr=0.25)
    assert (clf.optim.lr, clf.optim.weight_decay) == (0.5, 0.01)
    assert (twin.optim.lr, twin.optim.weight_decay) == (0.25, 0.01)
    clf.set_params(optim__lr=0.1, optim="rmsprop", optim__momentum=0.9)
    assert (type(clf.optim), clf.optim.lr, clf.optim.momentum) == (optim.RMSProp, 0.1, 0.9)


def test_hyper_parameters_within_a_wrapper():
    rule = optim.Average(optim.Clip(optim.Adam(), norm=1.0), decay=0.9)
    clf = NetClassifier(optim=rule, **{k: v for k, v in ONCE.items() if k != "optim"})
    clf.set_params(optim__lr=0.5, optim__norm=2.0, optim__decay=0.5)
    assert (clf.optim.optimizer.optimizer.lr, clf.optim.optimizer.norm, clf.optim.decay) == (0.5, 2.0, 0.5)
    assert (rule.optimizer.optimizer.lr, rule.optimizer.norm, rule.decay) == (optim.Adam().lr, 1.0, 0.9)
    assert {"optim__lr", "optim__norm", "optim__decay"} <= set(clf.get_params())


def test_a_function_as_optimizer():
    def plain(net, loss):
        net.backpropagate(loss)
        net.vector[...] -= 0.1 * net.gradient

    clf = NetClassifier(**{**ONCE, "optim": plain, "max_iter": 30}).fit(X, LABELS)
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]
    assert not any(name.startswith("optim__") for name in clf.get_params())


# In scikit-learn's company -------------------------------------------------------------------------------------


def test_grid_search_over_two_processes():
    pipe = make_pipeline(StandardScaler(), NetClassifier(**ONCE))
    grid = {"netclassifier__optim__lr": [1e-6, 0.05], "netclassifier__hidden_layer_sizes": [(4,), (8, 4)]}
    found = GridSearchCV(pipe, grid, cv=3, n_jobs=2, error_score="raise").fit(X, LABELS)
    assert found.best_params_["netclassifier__optim__lr"] == 0.05
    assert found.best_estimator_.predict(X).dtype == LABELS.dtype


def test_cross_validation():
    clf = make_pipeline(StandardScaler(), NetClassifier(**QUICK))
    assert cross_val_score(clf, X, YES, scoring="roc_auc").mean() > 0.9
    assert cross_val_score(clf, X, LABELS, scoring="neg_log_loss").mean() > -0.6


@pytest.mark.parametrize("through", ["pickle", "joblib", "deepcopy"])
def test_a_copy_goes_on_as_the_first_would(tmp_path, through):
    import joblib

    clf = NetClassifier(**ONCE, optim="adam", dropout=0.2).fit(X, LABELS)
    if through == "joblib":
        joblib.dump(clf, tmp_path / "net")
        twin = joblib.load(tmp_path / "net")
    else:
        twin = pickle.loads(pickle.dumps(clf)) if through == "pickle" else copy.deepcopy(clf)
    assert np.array_equal(twin.predict_proba(X), clf.predict_proba(X))
    assert (twin.n_iter_, twin.loss_curve_) == (clf.n_iter_, clf.loss_curve_)
    assert bits(twin.partial_fit(X, LABELS)) == bits(clf.partial_fit(X, LABELS))


def fitted_elsewhere(estimator, y):
    return estimator.partial_fit(X, y)


@pytest.mark.parametrize("through", ["Parallel", "mmap"])
@pytest.mark.parametrize(("make", "y"), [(NetClassifier, LABELS), (NetRegressor, Y)])
def test_an_estimator_with_read_only_arrays_goes_on(tmp_path, through, make, y):
    """joblib maps arrays of a megabyte and more, read-only: the weights and the optimizer's state."""
    import joblib

    first = make((550, 550), **{k: v for k, v in ONCE.items() if k != "hidden_layer_sizes"}, batch_size=120).fit(X, y)
    assert first.net_.parameter_count > 300_000
    if through == "Parallel":
        tasks = [joblib.delayed(fitted_elsewhere)(first, y)] * 2
        twins = joblib.Parallel(n_jobs=2)(tasks)
    else:
        joblib.dump(first, tmp_path / "net")
        kept = (tmp_path / "net").read_bytes()
        twins = [joblib.load(tmp_path / "net", mmap_mode="r").partial_fit(X, y)]
        assert (tmp_path / "net").read_bytes() == kept
    whole = bits(first.partial_fit(X, y))
    assert [bits(twin) for twin in twins] == [whole] * len(twins)


def test_a_pickle_holds_no_data():
    x = np.repeat(X, 50, 0)
    clf = NetClassifier(**ONCE, batch_size=1000).fit(x, np.repeat(LABELS, 50))
    assert len(pickle.dumps(clf)) < 20_000


def test_names_of_columns():
    pandas = pytest.importorskip("pandas", reason="the names of columns are those of a data frame")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    clf = NetClassifier(**ONCE).fit(frame, pandas.Series(LABELS))
    assert clf.feature_names_in_.tolist() == list("abcde")
    assert clf.n_features_in_ == 5
    assert np.array_equal(clf.predict(frame), clf.fit(X, LABELS).predict(X))
    reg = NetRegressor(**ONCE).fit(frame, pandas.DataFrame(Y, columns=["u", "v"]))
    assert reg.predict(frame).shape == (120, 2)
    with pytest.raises(ValueError, match="feature names should match"):
        reg.predict(frame[list("abced")])


# Training ------------------------------------------------------------------------------------------------------


def test_random_state_decides_everything():
    first, repeated, other = (NetClassifier(**{**ONCE, "random_state": s, "dropout": 0.3}) for s in (1, 1, 2))
    assert bits(first.fit(X, LABELS)) == bits(repeated.fit(X, LABELS)) != bits(other.fit(X, LABELS))
    assert bits(copy.deepcopy(first).fit(X, LABELS)) == bits(first)
    drawn = NetClassifier(**{**ONCE, "random_state": np.random.RandomState(0)})
    assert bits(drawn.fit(X, LABELS)) != bits(copy.deepcopy(drawn).fit(X, LABELS))
    unseeded = NetClassifier(**{**ONCE, "random_state": None})
    assert bits(unseeded.fit(X, LABELS)) != bits(copy.deepcopy(unseeded).fit(X, LABELS))


@pytest.mark.parametrize(("make", "y"), [(NetClassifier, LABELS), (NetRegressor, Y)])
def test_epochs_one_by_one_are_the_same_training(make, y):
    whole, members = make(**ONCE, dropout=0.2).fit(X, y), make(**ONCE, dropout=0.2)
    for _ in range(3):
        members.partial_fit(X, y)
    assert bits(whole) == bits(members)
    assert whole.loss_curve_ == members.loss_curve_
    assert (whole.n_iter_, members.n_iter_) == (3, 1)


def test_partial_fit_is_told_the_classes():
    clf = NetClassifier(**ONCE)
    clf.partial_fit(X[NUMBERS > 0], LABELS[NUMBERS > 0], classes=["oak", "ash", "beech"])
    assert clf.classes_.tolist() == ["ash", "beech", "oak"]
    clf.partial_fit(X, LABELS)
    with pytest.raises(ValueError, match=r"the net was made for \['ash', 'beech', 'oak'\]"):
        clf.partial_fit(X, np.where(NUMBERS, LABELS, "elm"))
    with pytest.raises(ValueError, match="since the first fit"):
        clf.partial_fit(X, LABELS, classes=["ash", "oak"])


def test_warm_start_goes_on_and_without_it_all_is_new():
    cold, warm = (NetRegressor(**ONCE, warm_start=each).fit(X, Y) for each in (False, True))
    first = bits(cold)
    assert bits(cold.fit(X, Y)) == first == bits(warm)
    net = warm.net_
    warm.set_params(optim__lr=0.01).fit(X, Y)
    assert warm.net_ is net
    assert net.optim.lr == 0.01
    assert (warm.n_iter_, len(warm.loss_curve_)) == (3, 6)
    assert warm.loss_curve_[3] < warm.loss_curve_[0]


def test_a_training_ends_when_nothing_is_gained():
    clf = NetClassifier(**{**ONCE, "max_iter": 500, "tol": 10.0, "n_iter_no_change": 4}).fit(X, LABELS)
    assert clf.n_iter_ == 5
    clf.set_params(n_iter_no_change=np.inf, max_iter=8).fit(X, LABELS)
    assert clf.n_iter_ == 8


class Told:
    """A loss that is the next of some numbers, whatever the net does."""

    def __init__(self, values):
        self.values = list(values)

    def __call__(self, pred, real):
        self.pred = pred
        return self.values.pop(0)

    def backward(self):
        return np.zeros_like(self.pred)


class Recorded(MLPClassifier):
    """Which learning rate each epoch had."""

    def _update_no_improvement_count(self, *arguments):
        self.rates = [*getattr(self, "rates", ()), self._optimizer.learning_rate]
        super()._update_no_improvement_count(*arguments)


@pytest.mark.parametrize(("tol", "patience"), [(1e-3, 2), (0.02, 1), (0.0, 3), (1e-4, 10)])
def test_an_adaptive_rate_is_that_of_scikit_learn(tol, patience):
    told = {"learning_rate": "adaptive", "tol": tol, "n_iter_no_change": patience, "batch_size": 120, "max_iter": 150}
    theirs = Recorded((4,), solver="sgd", learning_rate_init=0.9, random_state=0, **told)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        theirs.fit(X, LABELS)
    rates = []
    ours = NetClassifier(
        optim=optim.Momentum(lr=0.9), loss=Told(theirs.loss_curve_), **told,
        callbacks=lambda net, logs: rates.append(net.optim.lr),
    ).fit(X, LABELS)  # fmt: skip
    assert len(set(theirs.rates)) > 1
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(rates, theirs.rates, rtol=1e-12)


def test_an_adaptive_rate_goes_by_the_rows_held_out():
    told = {**ONCE, "max_iter": 40, "tol": 10.0, "n_iter_no_change": 3, "learning_rate": "adaptive"}
    clf = NetClassifier(**told, early_stopping=True, optim=optim.Average(optim.SGD(lr=0.1), 0.5)).fit(X, LABELS)
    assert clf.net_.optim.lr == pytest.approx(0.1 / 5**8)  # below 1e-6
    assert clf.n_iter_ == 1 + 9 * 4
    stored = clf.history_["val_loss"]
    repeated = train_test_split(np.arange(120), test_size=0.1, random_state=clf.net_.seed % 2**32, stratify=LABELS)[1]
    p = clf.predict_proba(X[repeated])[np.arange(len(repeated)), NUMBERS[repeated]]
    assert -np.log(p).mean() == pytest.approx(min(stored), rel=1e-5)  # the best weights are back


def test_few_rows_are_held_out_without_a_share_of_each_class():
    clf = NetClassifier(**ONCE, early_stopping=True).fit(X[:6], [0, 1, 2, 3, 0, 1])
    assert len(clf.history_["val_loss"]) == 3
    column = NetClassifier(**ONCE, early_stopping=True)
    with pytest.warns(DataConversionWarning):
        column.fit(X, LABELS[:, None])
    assert bits(column) == bits(clone(column).fit(X, LABELS))


@pytest.mark.parametrize(("kind", "y"), [(NetClassifier, LABELS), (NetRegressor, Y)])
def test_rows_without_weight_are_not_held_out(kind, y):
    weight = np.zeros(120)
    weight[:3] = 1
    for seed in range(5):
        fitted = kind(**{**ONCE, "random_state": seed}, early_stopping=True).fit(X, y, sample_weight=weight)
        assert np.isfinite(fitted.history_["val_loss"]).all()


def test_early_stopping_looks_at_rows_held_out():
    class Held:
        def begin(self, run):
            self.rows = len(run.rows.arrays[0])

    stored = Held()
    told = {**QUICK, "max_iter": 500, "early_stopping": True, "callbacks": stored}
    noise = RNG.permutation(LABELS)
    clf = NetClassifier(**told, validation_fraction=0.25, n_iter_no_change=3).fit(X, noise)
    assert stored.rows == 90
    assert len(clf.history_["val_loss"]) == clf.n_iter_ < 500
    assert np.argmin(clf.history_["val_loss"]) == clf.n_iter_ - 4


def test_a_history_has_a_number_for_each_epoch():
    clf = NetClassifier(**{**ONCE, "early_stopping": True}).fit(X, LABELS)
    clf.set_params(early_stopping=False).partial_fit(X, LABELS)
    stored = clf.history_["val_loss"]
    assert len(stored) == 4
    assert np.isnan(stored).tolist() == [False] * 3 + [True]


def test_weights_of_classes_are_weights_of_rows():
    """But for one constant: those of classes are taken as they are, those of rows have mean 1. It goes to the rate."""
    by_class = {"ash": 1.0, "beech": 0.5, "oak": 4.0}
    rows = RNG.uniform(0.5, 2, len(X))
    rows /= rows.mean()
    few = {**ONCE, "dtype": "float64"}
    classes = np.unique(LABELS)
    for given in (by_class, "balanced"):
        of_classes = compute_class_weight(given, classes=classes, y=LABELS, sample_weight=rows)
        of_rows = rows * of_classes[np.searchsorted(classes, LABELS)]
        weighted = NetClassifier(**few, class_weight=given, optim=optim.SGD(0.1)).fit(X, LABELS, sample_weight=rows)
        plain = NetClassifier(**few, optim=optim.SGD(0.1 * of_rows.mean())).fit(X, LABELS, sample_weight=of_rows)
        np.testing.assert_allclose(weighted.net_.vector, plain.net_.vector, rtol=1e-9)
    assert bits(plain) != bits(NetClassifier(**few, optim=optim.SGD(0.1)).fit(X, LABELS))


def test_weights_of_classes_are_told_in_columns_too():
    given = [{0: 1, 1: 3}, {0: 2, 1: 1}, {0: 1, 1: 1}]
    weighted = NetClassifier(**ONCE, class_weight=given).fit(X, COLUMNS)
    of_rows = np.array([1, 3])[COLUMNS[:, 0]] * np.array([2, 1])[COLUMNS[:, 1]]
    assert bits(weighted) == bits(NetClassifier(**ONCE).fit(X, COLUMNS, sample_weight=of_rows))


@pytest.mark.parametrize("size", [1, 8])
def test_weights_of_classes_tell_in_small_batches(size):
    check_class_weight_classifiers("NetClassifier", NetClassifier(batch_size=size, max_iter=20))


@pytest.mark.parametrize("size", [1e-320, 1e-50, 1e39, 1e308])
@pytest.mark.parametrize(("kind", "y"), [(NetClassifier, LABELS), (NetRegressor, Y[:, 0])])
def test_weights_of_rows_of_any_size_are_as_weights_of_one(kind, y, size):
    ones = kind(**ONCE).fit(X, y, sample_weight=np.ones(120))
    other = kind(**ONCE).fit(X, y, sample_weight=np.full(120, size))
    assert bits(ones) == bits(other)
    small = X.astype("float32"), y if kind is NetClassifier else y.astype("float32")
    for weight in (np.ones(120), np.arange(120) % 3 / 2):
        assert ones.score(*small, weight * size) == pytest.approx(ones.score(*small, weight), rel=1e-5)


def test_weights_of_classes_weigh_the_rows_held_out():
    """A class without weight tells nothing: the loss held out is that of the other classes alone."""
    clf = NetClassifier(**{**ONCE, "early_stopping": True}, class_weight={"ash": 0.0}).fit(X, LABELS)
    there = train_test_split(np.arange(120), test_size=0.1, random_state=clf.net_.seed % 2**32, stratify=LABELS)[1]
    p = clf.predict_proba(X[there])[np.arange(len(there)), NUMBERS[there]]
    right = -np.log(p)[LABELS[there] != "ash"].mean()
    assert min(clf.history_["val_loss"]) == pytest.approx(right, rel=1e-5)


def test_nothing_is_printed_unless_asked_for(capsys):
    NetClassifier(**ONCE).fit(X, LABELS)
    assert capsys.readouterr() == ("", "")
    NetClassifier(**ONCE, verbose=True).fit(X, LABELS)
    assert "loss=" in capsys.readouterr().err


# What can't be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "y", "error", "told"),
    [
        ({"activation": "rellu"}, LABELS, ValueError, r"one of elu, .*, got 'rellu'"),
        ({"activation": ("relu", "tanh")}, LABELS, ValueError, "activation has 2 values, and there are 1 hidden"),
        ({"dropout": (0.1, 0.2)}, LABELS, ValueError, "dropout has 2 values"),
        ({"dropout": 1.5}, LABELS, ValueError, "1.5"),
        ({"hidden_layer_sizes": (4, 0)}, LABELS, ValueError, "hidden_layer_sizes is a positive integer, got 0"),
        ({"hidden_layer_sizes": "8"}, LABELS, TypeError, "a tuple of integers, got '8'"),
        (
            {"layers": [layers.Linear(3), layers.Softmax()]},
            LABELS,
            ValueError,
            "leave out the Softmax",
        ),
        ({"layers": layers.Linear(3)}, LABELS, TypeError, "layers is a list of layers"),
        ({"layers": [layers.Linear]}, LABELS, TypeError, "not a Layer"),
        ({"optim": "adamm"}, LABELS, ValueError, "there is no optimizer 'adamm'; there are "),
        ({"optim": optim.Adam}, LABELS, TypeError, "an instance"),
        ({"loss": loss.MSE}, LABELS, TypeError, "an instance"),
        ({"loss": loss.MSE()}, COLUMNS, ValueError, "whose loss is BinaryCrossEntropy"),
        ({}, np.full(120, "oak"), ValueError, r"one class, \['oak'\]"),
        ({}, NUMBERS[:, None] + [[0, 1]], ValueError, "one label a row, or columns of 0 and 1"),
        ({"class_weight": "balanced"}, None, AttributeError, r"partial_fit: .* needs all rows at once"),
        ({"early_stopping": True}, None, AttributeError, r"^NetClassifier.partial_fit: early_stopping=True holds out"),
        ({"optim": "lbfgs"}, None, AttributeError, "^NetClassifier.partial_fit: LBFGS needs all rows at once"),
        ({"optim": optim.Average(optim.LBFGS(), 0.5)}, None, AttributeError, "LBFGS needs all rows at once"),
        ({"warm_start": True}, LABELS[NUMBERS > 0], ValueError, r"classes \['beech', 'oak'\].*set it to False"),
        ({"learning_rate": 0.1}, LABELS, ValueError, r'is "constant" or "adaptive", got 0.1.*optim='),
        (
            {"learning_rate": "adaptive", "optim": FALLING},
            LABELS,
            ValueError,
            'learning_rate="adaptive" sets lr to a number, and that of SGD is a schedule',
        ),
        ({"loss": loss.GaussianNLL()}, LABELS, ValueError, "it goes with NetRegressor"),
        ({"max_iter": 0}, LABELS, ValueError, "max_iter is a positive integer"),
        ({"tol": -1}, LABELS, ValueError, r"tol is a number in \[0, inf\), got -1"),
        ({"n_iter_no_change": -1}, LABELS, ValueError, "n_iter_no_change is a positive integer, got -1"),
        ({"early_stopping": True, "validation_fraction": 2.0}, LABELS, ValueError, "validation_fraction is a number"),
    ],
)
def test_bad_arguments_leave_what_was_fitted(arguments, y, error, told):
    clf = NetClassifier(**ONCE).fit(X, LABELS)
    before, classes = bits(clf), clf.classes_
    clf.set_params(**arguments)
    with pytest.raises(error, match=told):
        clf.partial_fit(X, LABELS) if y is None else clf.fit(X[-len(y) :], y)
    assert bits(clf) == before
    assert clf.classes_ is classes


def test_a_fit_that_fails_leaves_what_was_fitted_to_other_columns():
    clf = NetClassifier(**ONCE).fit(X, LABELS)
    before = clf.predict(X)
    with pytest.raises(ValueError, match="got one class"):
        clf.fit(X[:, :3], np.full(120, "oak"))
    assert clf.n_features_in_ == 5
    assert np.array_equal(clf.predict(X), before)


def test_a_parameter_that_the_optimizer_does_not_have():
    clf = NetClassifier(optim="sgd")
    with pytest.raises(ValueError, match=r"no parameter optim__beta1; it has optim__lr, "):
        clf.set_params(optim__beta1=0.5)
    with pytest.raises(ValueError, match="SGD: lr is a number"):
        clf.set_params(optim__lr=-1.0)
    assert clf.optim == "sgd"


def test_columns_of_y_stay():
    reg = NetRegressor(**ONCE, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="y has 1 columns, and the net was made for 2"):
        reg.fit(X, Y[:, 0])


def test_not_fitted():
    with pytest.raises(NotFittedError):
        NetClassifier().predict_proba(X)


def test_scikit_learn_comes_with_the_wing_and_is_told_of_when_missing(python):
    done = python("import sys, layerwise, layers, layerwise.callbacks; print('sklearn' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")
    done = python("import sys; sys.modules['sklearn'] = None; import layerwise.estimators")
    assert done.stderr.splitlines()[-1].endswith('needs scikit-learn 1.6: pip install "layerwise[sklearn]"')
