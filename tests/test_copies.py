"""Copies: S nets in one stack are those S nets."""

import copy
import pickle

import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise import callbacks, datasets

RATES = [0.001, 0.01, 0.03]
X, Y = datasets.moons(60, seed=1)


def net(seed, copies=None, dtype="float64", dropout=0.2):
    return layers.Model(
        [
            layers.Linear(7),
            layers.Tanh(),
            layers.Residual([layers.Linear(7), layers.GELU(), layers.GaussianNoise(0.1)]),
            layers.Parallel([[layers.Linear(3)], [layers.Flatten(), layers.Linear(2), layers.ReLU()]]),
            layers.Dropout(dropout),
            layers.Linear(2),
            layers.Softmax(),
        ],
        seed=seed,
        dtype=dtype,
        copies=copies,
    )


def train(net, rule, **more):
    options = {"loss": loss.CrossEntropy(), "epochs": 12, "batch_size": 16, "verbose": False} | more
    return net.train(X, Y, optim=rule, **options)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


STACKED = [
    cls for cls in vars(optim).values() if isinstance(cls, type) and issubclass(cls, optim.Optimizer) and cls.stackable
]


@pytest.mark.parametrize("rule", [cls for cls in STACKED if cls is not optim.Optimizer], ids=lambda cls: cls.__name__)
def test_copy_s_is_the_net_with_that_seed_and_rate(rule):
    stack = net(5, copies=3)
    history = train(stack, rule(lr=np.array(RATES)), metrics="accuracy", validation=0.25)
    for s, lr in enumerate(RATES):
        single = net(5 + s)
        alone = train(single, rule(lr=lr), metrics="accuracy", validation=0.25)
        close(stack.vector[s], single.vector)
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            close([each[s] for each in history[name]], alone[name])
        close(stack.copy(s).predict(X), single.predict(X))


@pytest.mark.parametrize("reduction", ["mean", "sum", "batch_sum"])
@pytest.mark.parametrize(
    "kind", [loss.MSE, loss.CrossEntropy, loss.Huber, loss.CosineSimilarity, loss.BinaryCrossEntropy, loss.KLDivergence]
)
def test_losses_and_weights_are_each_copys_own(kind, reduction):
    real = np.eye(2)[Y]
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    options = {"epochs": 3, "batch_size": 25, "sample_weight": weight, "verbose": False}
    stack = net(2, copies=2)
    history = stack.train(X, real, optim.SGD(0.01), kind(reduction=reduction), **options)
    for s in range(2):
        single = net(2 + s)
        alone = single.train(X, real, optim.SGD(0.01), kind(reduction=reduction), **options)
        close(stack.vector[s], single.vector)
        close([each[s] for each in history["loss"]], alone["loss"])


def test_seeds_may_be_given_and_a_full_batch_is_shared():
    stack = net([11, 3], copies=2, dropout=0)
    assert stack.seeds == [11, 3]
    train(stack, optim.Adam(np.array([0.01, 0.02])), batch_size=60, epochs=5)
    for s, (seed, lr) in enumerate([(11, 0.01), (3, 0.02)]):
        single = net(seed, dropout=0)
        train(single, optim.Adam(lr), batch_size=60, epochs=5)
        close(stack.vector[s], single.vector)
    with pytest.raises(ValueError, match="2 copies and 3 seeds"):
        net([1, 2, 3], copies=2)


def test_decay_and_other_hyper_parameters_may_be_arrays_too():
    decays, betas = [0.0, 0.1], [0.5, 0.9]
    stack = net(1, copies=2)
    train(stack, optim.AdamW(0.01, beta1=np.array(betas), weight_decay=np.array(decays)), epochs=4)
    for s in range(2):
        single = net(1 + s)
        train(single, optim.AdamW(0.01, beta1=betas[s], weight_decay=decays[s]), epochs=4)
        close(stack.vector[s], single.vector)


def test_one_stack_runs_in_blocks_as_in_one(monkeypatch):
    whole, blocks = net(0, copies=3), net(0, copies=3)
    train(whole, optim.Adam(np.array(RATES)), epochs=3)
    monkeypatch.setattr("layerwise.core.blocks.BLOCK", 30)
    train(blocks, optim.Adam(np.array(RATES)), epochs=3)
    np.testing.assert_array_equal(whole.vector, blocks.vector)


def test_a_copy_that_diverges_stops_and_the_others_go_on():
    rates = np.array([0.01, 1e200, 0.02])
    stack = net(0, copies=3)
    seen = []

    class Look:
        def step(self, run):
            seen.append(run.net.vector[1].copy())

    history = train(stack, optim.SGD(rates), callbacks=Look())
    assert history.diverged.tolist() == [False, True, False]
    stopped = next(k for k in range(1, len(seen)) if np.array_equal(seen[k], seen[k - 1]))
    assert all(np.array_equal(each, seen[stopped]) for each in seen[stopped:])
    for s in (0, 2):
        single = net(s)
        train(single, optim.SGD(rates[s]))
        close(stack.vector[s], single.vector)
    assert np.isfinite(history["loss"][-1][[0, 2]]).all()


def test_predict_is_the_mean_over_copies_with_its_spread():
    stack = net(4, copies=5)
    train(stack, optim.Adam(0.01), epochs=2)
    each = np.stack([stack.copy(s).predict(X) for s in range(5)])
    mean, deviation = stack.predict(X, batch_size=13, spread=True)
    close(mean, each.mean(0))
    close(deviation, each.std(0))
    close(stack.predict(X), each.mean(0))
    with pytest.raises(ValueError, match="copies=S"):
        net(0).predict(X, spread=True)
    found = stack.evaluate(X, Y, metrics="accuracy")
    close(found["accuracy"], [stack.copy(s).evaluate(X, Y, metrics="accuracy")["accuracy"] for s in range(5)])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n)), layers.Model.copy])
def test_a_stack_survives_copying_and_goes_on(way):
    one = net(0, copies=2)
    train(one, optim.Adam(np.array([0.01, 0.02])), epochs=2)
    other = way(one)
    rules = [optim.Adam(np.array([0.01, 0.02])) for _ in range(2)]
    for each, rule in zip((one, other), rules, strict=True):
        train(each, rule, epochs=2)
    np.testing.assert_array_equal(one.vector, other.vector)


def test_a_stack_is_saved_and_loaded(tmp_path):
    stack = net([8, 1], copies=2)
    train(stack, optim.SGD(0.1), epochs=1)
    stack.save(tmp_path / "stack.npz")
    found = model.load(tmp_path / "stack.npz")
    assert found.seeds == [8, 1]
    np.testing.assert_array_equal(found.vector, stack.vector)
    np.testing.assert_array_equal(found.predict(X), stack.predict(X))


@pytest.mark.parametrize("how", ["save", "state_dict"])
def test_copies_that_diverged_stay_out_of_what_a_loaded_stack_predicts(how, tmp_path):
    def make():
        return layers.Model([layers.Model([layers.Linear(3), layers.Tanh()]), layers.Linear(1)], seed=0, copies=3)

    stack = make()
    real = Y[:, None].astype(float)
    stack.train(X, real, optim.SGD(np.array([0.01, 1e30, 0.02])), loss.MSE(), epochs=2, verbose=False)
    if how == "save":
        stack.save(tmp_path / "stack.npz")
        repeated = model.load(tmp_path / "stack.npz")
        assert repr(repeated) == repr(stack)
    else:
        repeated = make().build((2,))
        repeated.load_state_dict(stack.state_dict())
    expected = np.mean([stack.copy(s).predict(X) for s in (0, 2)], axis=0)
    np.testing.assert_allclose(repeated.predict(X), expected, rtol=1e-6)
    assert repeated.stopped.tolist() == [False, True, False]


def test_a_stack_with_a_net_within_is_resumed(tmp_path):
    def go(net, epochs, **more):
        watch = callbacks.Checkpoint(tmp_path / "stack.npz")
        return net.train(
            X, Y, optim.SGD(0.1), loss.CrossEntropy(), epochs=epochs, callbacks=watch, verbose=False, **more
        )

    def make():
        inner = layers.Model([layers.Linear(3), layers.Tanh()], seed=5)
        return layers.Model([inner, layers.Linear(2), layers.Softmax()], seed=0, copies=2)

    whole, repeated = make(), make()
    history = go(whole, 4)
    go(make(), 2)
    found = go(repeated, 4, resume=tmp_path / "stack.npz")
    np.testing.assert_array_equal(repeated.vector, whole.vector)
    np.testing.assert_array_equal(found["loss"], history["loss"])
    with np.load(tmp_path / "stack.npz") as file:  # as arrays, an entry for each epoch and copy
        np.testing.assert_array_equal(file["training.history.loss"], history["loss"])


def test_a_frozen_layer_stays_in_every_copy():
    stack = net(0, copies=2)
    stack.build((2,))
    stack[0].frozen = True
    before = stack[0].w.copy()
    train(stack, optim.AdamW(0.1, weight_decay=0.1), epochs=1)
    np.testing.assert_array_equal(stack[0].w, before)
    assert not np.array_equal(stack[5].w, net(0, copies=2).build((2,))[5].w)


def test_nets_are_put_in_one_stack():
    nets = [net(seed) for seed in (6, 2)]
    for each in nets:
        each.build((2,))
    stack = model.stack(nets)
    for s, each in enumerate(nets):
        np.testing.assert_array_equal(stack.vector[s], each.vector)
    rule = optim.Adam(np.array([0.01, 0.02]))
    train(stack, rule, epochs=3)
    for s, each in enumerate(nets):
        train(each, optim.Adam([0.01, 0.02][s]), epochs=3)
        close(stack.vector[s], each.vector)
    with pytest.raises(ValueError, match="the same"):
        model.stack([nets[0], layers.Model([layers.Linear(3)], seed=0).build((2,))])
    twins = model.stack(iter(nets))
    np.testing.assert_array_equal(twins.vector, [each.vector for each in nets])
    with pytest.raises(ValueError, match=r"dtypes here are .'float32', 'float64'."):
        model.stack([nets[0], nets[1].copy(dtype="float32")])
    with pytest.raises(ValueError, match="one net or more, got none"):
        model.stack([])
    with pytest.raises(TypeError, match="made of Models, got Linear"):
        model.stack([nets[0], layers.Linear(3)])
    with pytest.raises(ValueError, match=r"no parameters yet: call build"):
        model.stack([net(0), net(1)])


def test_what_cannot_stack_is_refused_by_name():
    with pytest.raises(ValueError, match=r"BatchNorm \(layers\.1\)"):
        layers.Model([layers.Linear(2), layers.BatchNorm()], copies=2)
    with pytest.raises(ValueError, match="positive integer"):
        net(0, copies=0)
    for rule in (optim.LAMB(), optim.DoG(), optim.Clip(optim.SGD(), norm=1.0), optim.LBFGS(), optim.ScheduleFreeSGD()):
        with pytest.raises(ValueError, match="one after another"):
            train(net(0, copies=2), rule)
    with pytest.raises(ValueError, match="array of 3"):
        train(net(0, copies=2), optim.SGD(np.array(RATES)))
    with pytest.raises(ValueError, match="has none"):
        train(net(0), optim.SGD(np.array(RATES)))
    with pytest.raises(ValueError, match="lr is a number"):
        optim.SGD(np.array([0.1, -1.0]))

    class Own:
        def __call__(self, pred, real):
            return 0.0

        def backward(self):
            return np.zeros(1)

    with pytest.raises(TypeError, match="stackable"):
        train(net(0, copies=2), optim.SGD(), loss=Own())
    with pytest.raises(ValueError, match="no copies"):
        net(0).copy(1)
    with pytest.raises(ValueError, match="no parameters yet: call build"):
        net(0, copies=2).copy(1)
    with pytest.raises(ValueError, match=r"has no copy 1\.0"):
        net(0, copies=2).copy(1.0)


def test_float32_stays_float32():
    stack = net(0, copies=3, dtype="float32")
    rule = optim.Adam(np.array(RATES), weight_decay=0.01)
    train(stack, rule, epochs=2)
    assert stack.vector.dtype == stack.predict(X).dtype == np.float32
    assert all(array.dtype == np.float32 for each in rule._state for array in each.values())
