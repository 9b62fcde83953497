"""Slips in people's own code are told, not trained on; and what one training does leaves others alone."""

import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise import callbacks, metrics

RNG = np.random.default_rng(8)
X = RNG.normal(size=(30, 4)).astype(np.float32)
Y = RNG.normal(size=(30, 1)).astype(np.float32)


def small(**options):
    return layers.Model([layers.Linear(5), layers.Tanh(), layers.Linear(1)], seed=0, **options)


def train(net, rule, **more):
    return net.train(X, Y, rule, more.pop("loss", loss.MSE()), epochs=more.pop("epochs", 3), verbose=False, **more)


def test_a_backward_without_return_above_others_is_refused():
    class Twice(layers.Layer):
        def forward(self, x, training):
            return x * 2

        def backward(self, grad):
            grad * 2

    with pytest.raises(TypeError, match=r"Twice \(layers\.1\): backward returned None.*return dL/dx"):
        train(layers.Model([layers.Linear(3), Twice(), layers.Linear(1)], seed=0), optim.SGD())
    train(layers.Model([Twice(), layers.Linear(1)], seed=0), optim.SGD())  # nothing below it is trained


@pytest.mark.parametrize("rule", [optim.Adam(), optim.PolyakSGD(), optim.PerLayer({"*": optim.Adam()})])
def test_a_name_that_a_rule_does_not_have_cannot_be_set(rule):
    for name in ("learning_rate", "betas"):
        with pytest.raises(AttributeError, match=name):
            setattr(rule, name, 0.1)


def test_an_argument_that_is_not_kept_is_refused_when_saving(tmp_path):
    class Times(layers.Layer):
        def __init__(self, factor=3.0):
            super().__init__()
            self._f = factor

        def forward(self, x, training):
            return x * np.float32(self._f)

    net = layers.Model([Times(5.0), layers.Linear(1)], seed=0)
    net.build((4,))
    with pytest.raises(ValueError, match=r"Times does not keep its argument 'factor'.*self\.factor"):
        net.save(tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def test_an_argument_of_a_net_of_ones_own_is_not_lost_in_silence(tmp_path):
    class Louder(layers.Model):
        def __init__(self, layers, seed=None, dtype="float32", gain=2.0):
            super().__init__(layers, seed, dtype)
            self.gain = gain

        def forward(self, x, training=False):
            return super().forward(x, training) * np.float32(self.gain)

    class Told(Louder):
        def config(self):
            return super().config() | {"gain": self.gain}

    with pytest.raises(ValueError, match=r"Louder .*config\(\) does not give the argument 'gain'.*default, 2\.0"):
        Louder([layers.Linear(2)], seed=0, gain=3.0).build((4,)).save(tmp_path / "net.npz")
    for net in (Louder([layers.Linear(2)], seed=0), Told([layers.Linear(2)], seed=0, gain=3.0)):
        net.build((4,)).save(tmp_path / "net.npz")
        repeated = model.load(tmp_path / "net.npz", custom={type(net).__name__: type(net)})
        np.testing.assert_array_equal(repeated.predict(X), net.predict(X))


def test_custom_is_by_name(tmp_path):
    small().build((4,)).save(tmp_path / "net.npz")
    for wrong in ([layers.Linear], {layers.Linear: layers.Linear}):
        with pytest.raises(TypeError, match="custom is a dict by name"):
            model.load(tmp_path / "net.npz", custom=wrong)


def test_a_net_goes_back_only_after_it_went_forward():
    net = small().build((4,))
    with pytest.raises(RuntimeError, match=r"backward\(grad\) follows net\(x, training=True\)"):
        net.backward(np.ones((3, 1)))


def test_a_parameter_may_not_have_the_name_of_an_attribute():
    class Gain(layers.Layer):
        def __init__(self, gamma=1.0):
            super().__init__()
            self.gamma = gamma

        def setup(self, input_shape):
            self.add_parameter("gamma", input_shape[-1:], 1.0)

        def forward(self, x, training):
            return x * self.gamma

    for _ in range(2):
        with pytest.raises(ValueError, match="attribute 'gamma' already"):
            layers.Model([Gain()]).build((4,))


def test_a_refused_model_leaves_its_layers_free():
    members = [layers.Linear(2), layers.Tanh()]
    for wrong in ({"dtype": "float16"}, {"seed": -1}, {"copies": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))) as kept:
            layers.Model(members, **wrong)
        assert kept.value  # held, as an interactive session does
    layers.Model(members)
    with pytest.raises(TypeError, match="one list"):
        layers.Model(layers.Linear(2), layers.Tanh())


def test_accuracy_goes_by_shape():
    pred = np.array([[0.9], [0.1], [0.8]])
    assert metrics.accuracy(pred, np.array([[1], [0], [1]])) == 1
    assert metrics.accuracy(np.eye(3), np.eye(3, dtype=int)) == 1
    assert metrics.accuracy(np.eye(3), np.arange(3)) == 1
    for metric in (metrics.accuracy, metrics.top_5_accuracy):
        with pytest.raises(ValueError, match=r"\(3, 3\).*got \(3, 1\)"):
            metric(np.eye(3), np.ones((3, 1)))


def test_one_loss_serves_a_training_within_a_training():
    shared = loss.MSE()
    alone, outer, inner = small(), small(), small()
    expected = train(alone, optim.SGD(0.1))["loss"]

    def also(net, logs):
        train(inner, optim.SGD(0.1), loss=shared, epochs=1)

    assert train(outer, optim.SGD(0.1), loss=shared, callbacks=also)["loss"] == expected
    assert shared(np.zeros((2, 1)), np.ones((2, 1))) == 1
    with pytest.raises(ValueError, match="shape"):  # it checks again
        shared(np.zeros((2, 1)), np.ones(2))


def test_a_divergence_brings_its_history_and_the_callbacks_end():
    ended = []

    class Ends:
        def epoch(self, run, logs):
            if run.epoch == 2:
                run.optim.lr = 1e38

        def end(self, run):
            ended.append(run.epoch)

    with pytest.raises(model.DivergenceError) as error:
        train(small(), optim.SGD(0.01), epochs=9, callbacks=Ends())
    assert ended == [len(error.value.history["loss"])]
    assert 2 <= ended[0] < 9


def test_copies_that_stopped_are_not_in_the_mean_and_stay_stopped():
    stack = small(copies=3)
    rule = optim.SGD(np.array([0.01, 1e38, 0.02]))
    assert train(stack, rule).diverged.tolist() == [False, True, False]
    found = np.stack([stack.copy(s).predict(X) for s in (0, 2)])
    np.testing.assert_allclose(stack.predict(X), found.mean(0), rtol=1e-6)
    stored = stack.vector[1].copy()
    train(stack, rule)
    np.testing.assert_array_equal(stack.vector[1], stored)
    with pytest.raises(ValueError, match="each copy in the stack"):
        train(small(copies=2), optim.SGD(0.01), callbacks=callbacks.EarlyStopping("loss", patience=1))


def test_a_batch_without_weight_is_passed_over():
    numbers = np.repeat([0, 1], 10)
    batches = [(X[:10], numbers[:10]), (X[10:20], numbers[10:])]
    net = layers.Model([layers.Linear(2), layers.Softmax()], seed=0)
    history = net.train(batches, optim=optim.SGD(), epochs=2, class_weight={0: 0, 1: 2}, verbose=False)
    assert np.isfinite(history["loss"]).all()


def test_a_metric_that_is_not_a_number_warns_nobody(capsys):
    small().train(X, Y, optim.SGD(), loss.MSE(), epochs=1, metrics=lambda pred, real: float("nan"))
    assert "nan" in capsys.readouterr().err


def test_step_goes_on_with_the_same_arrays_and_with_others():
    """The state goes by place; arrays are looked at anew when they are others."""
    first, second = [np.ones((2, 3)), np.ones(4)], [np.ones((2, 3)), np.ones(4)]
    gradients = [[RNG.normal(size=(2, 3)), RNG.normal(size=4)] for _ in range(4)]
    one, other = optim.Adam(0.1), optim.Adam(0.1)
    for g in gradients:
        one.step(first, g)
        copies = [w.copy() for w in second]
        other.step(copies, g)
        second = copies
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    turned = np.ones((3, 2)).T  # not contiguous: changed in place all the same
    optim.SGD(1.0).step([turned], [np.ones((2, 3))])
    np.testing.assert_array_equal(turned, np.zeros((2, 3)))
