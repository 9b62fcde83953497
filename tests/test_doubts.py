"""What `train` decides where nothing is said, and what it warns of before the first step."""

import warnings

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise.compare import find_lr

RNG = np.random.default_rng(6)
X = RNG.normal(size=(40, 3)).astype(np.float32)
YES = (X[:, :1] > 0).astype(np.float32)


def net(*last):
    return layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(1), *(last or (layers.Sigmoid(),))], seed=0)


def train(model, y=YES, x=X, **more):
    return model.train(x, y, epochs=2, verbose=False, **more)


# The loss that is taken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "y", "taken"),
    [
        (net, YES, loss.BinaryCrossEntropy),
        (net, YES.astype(bool), loss.BinaryCrossEntropy),
        (net, YES.astype(int), loss.BinaryCrossEntropy),
        (net, 0.1 + 0.8 * YES, loss.BinaryCrossEntropy),
        (lambda: layers.Model([layers.Dropout(0.1), net()], seed=0), YES, loss.BinaryCrossEntropy),
        (net, 2 * YES - 1, loss.MSE),
        (net, 1.001 * YES, loss.MSE),
        (lambda: net(layers.HardSigmoid()), YES, loss.MSE),
        (lambda: net(layers.Linear(1)), YES, loss.MSE),
    ],
)
def test_the_usual_loss_of_a_net(make, y, taken):
    first = make()
    history = train(first, y)
    assert type(first.loss) is taken
    assert history["loss"] == train(make(), y, loss=taken(), optim=optim.Adam())["loss"]
    assert type(make().evaluate(X, y)["loss"]) is float
    assert make().evaluate(X, y) == make().evaluate(X, y, loss=taken())


def test_the_usual_loss_goes_by_all_targets_and_by_the_first_batch():
    y = YES.copy()
    y[-1] = 3.0
    stored, streamed = net(), net()
    train(stored, y, validation=0.25)
    assert isinstance(stored.loss, loss.MSE)
    train(streamed, None, [(X[:20], YES[:20]), (X[20:], YES[20:])])
    assert isinstance(streamed.loss, loss.BinaryCrossEntropy)
    by_itself, told = (find_lr(net(), [(X, YES)] * 25, None, None, given, steps=20) for given in (None, streamed.loss))
    np.testing.assert_array_equal(by_itself.losses, told.losses)


def test_the_loss_of_the_last_training_stays():
    kept = net()
    train(kept, loss=loss.MAE())
    train(kept)
    assert isinstance(kept.loss, loss.MAE)


# Warnings --------------------------------------------------------------------------------------------------------


def frozen():
    whole = net()
    whole[0].frozen = whole[2].frozen = True
    return whole


def doubled():
    return layers.Model([layers.Linear(3), layers.Softmax(), layers.Dropout(0.1), layers.Softmax()], seed=0)


def nested():
    return layers.Model([layers.Model([layers.Linear(3), layers.Softmax()]), layers.Softmax()], seed=0)


DOUBTED = {
    "all frozen": (frozen, {}, r"every layer with parameters is frozen.*frozen = False"),
    "all frozen, built": (lambda: frozen().build((3,)), {}, "frozen"),
    "a Softmax on a Softmax": (doubled, {"y": np.arange(40) % 3}, r"Softmax \(layers\.3\) is on top of Softmax"),
    "one within": (nested, {"y": np.arange(40) % 3}, r"\(layers\.1\) is on top of Softmax \(layers\.0\.layers\.1"),
    "a Sigmoid on a Sigmoid": (net, {"loss": loss.BinaryCrossEntropy(from_logits=True)}, "ends in a Sigmoid"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTED)
def test_a_training_that_hardly_anyone_means_is_warned_of_once(name):
    make, more, message = DOUBTED[name]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(make(), callbacks=lambda run, logs: None, **more)
    assert [each.category for each in told] == [UserWarning]
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match=message):
        train(make(), **more)


def test_the_warning_comes_before_the_first_step():
    whole = doubled().build((3,))
    before = whole.vector.copy()
    with pytest.raises(UserWarning, match="on top of"):  # warnings are errors here
        train(whole, np.arange(40) % 3)
    np.testing.assert_array_equal(whole.vector, before)


def test_what_is_meant_is_not_warned_of():
    part = net()
    part[0].frozen = True
    train(part)
    train(layers.Model([layers.Tanh()]), X, loss=loss.MSE())  # no parameters at all
    branches = layers.Parallel([layers.Softmax(), layers.Softmax()])
    train(layers.Model([layers.Linear(3), branches, layers.Linear(3), layers.Softmax()]), np.arange(40) % 3)
