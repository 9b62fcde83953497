"""What people write by habit of Keras, PyTorch and scikit-learn gets one line that says what to write here."""

import copy
import pickle
import re

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise.core import habits

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = np.arange(8) % 2
FOUND = {"layers": layers, "loss": loss, "optim": optim, "X": X, "Y": Y}


def net():
    return layers.Model([layers.Linear(2), layers.Softmax()], seed=0)


TABLE = [
    ("net.fit(X, Y)", r"net\.train\(x, y"),
    ("net.add(layers.Softmax())", r"layers\.Model\(\["),
    ("net.compile('adam', 'mse')", r"nothing: .* net\.train\("),
    ("net.eval()", r"net\.predict\(x\)"),
    ("net.to('cuda')", "NumPy"),
    ("net.zero_grad()", "overwrites"),
    ("net[0].weight", r"layer\.w"),
    ("net[0].requires_grad", r"layer\.frozen = True"),
    ("setattr(net[0], 'requires_grad', False)", r"layer\.frozen = True"),
    ("net.get_weights()", "state_dict"),
    ("net.load('net.npz')", r"model\.load\(path\)"),
    ("net.predict_proba(X)", r"net\.predict\(x\)"),
    ("net.train()", r"net\(x, training=True\)"),
    ("net.train(False)", r"net\(x, training=True\)"),
    ("net.train(X, Y, validation_split=0.2)", r"validation=0\.2"),
    ("net.train(X, Y, validation_data=(X, Y))", r"validation=\(x, y\)"),
    ("net.train(X, Y, optimizer='adam')", r"optim=optim\.Adam\(\)"),
    ("net.train(X, Y, learning_rate=0.1)", r"optim=optim\.Adam\(lr="),
    ("net.train(X, Y, sample_weights=Y)", "write sample_weight="),
    ("net.train(X, Y, verbos=False)", "write verbose="),
    ("net.evaluate(X, Y, metric='accuracy')", "write metrics="),
    ("net.train(X, Y, optim='adam')", r"such as optim\.Adam\(\)"),
    ("net.train(X, Y, loss='mse')", r"such as loss\.MSE\(\)"),
    ("net.train(X, Y, loss='sparse_categorical_crossentropy')", r"such as loss\.CrossEntropy\(\)"),
    ("layers.Dense(3)", r"layers\.Linear\(units\)"),
    ("layers.BatchNormalization()", r"layers\.BatchNorm\(\)"),
    ("layers.BatchNorm2d(3)", r"layers\.BatchNorm\(\)"),
    ("layers.Conv2d(3, 8, 3)", r"layers\.Conv2D\(filters, kernel_size\)"),
    ("layers.Dropout2d(0.5)", r"layers\.SpatialDropout\(rate\)"),
    ("layers.Sequential([])", r"layers\.Model\(\["),
    ("layers.LSTM(3)", "no recurrent"),
    ("layers.relu(X)", r"layers\.ReLU\(\.\.\.\)"),
    ("layers.Linear(784, 128)", r"write Linear\(128\)"),
    ("layers.Linear(3, activation='relu')", r"layers\.ReLU\(\)"),
    ("layers.Linear(in_features=3, out_features=2)", "data tell"),
    ("layers.Conv2D(3, 3, strides=2)", "write stride="),
    ("layers.Dropout(p=0.5)", "write rate="),
    ("layers.ReLU(inplace=True)", "write nothing"),
    ("loss.MSELoss()", r"loss\.MSE\(\.\.\.\)"),
    ("loss.CrossEntropyLoss()", "from_logits=True"),
    ("loss.BinaryCrossentropy()", r"loss\.BinaryCrossEntropy\("),
    ("loss.MSE(size_average=True)", "reduction="),
    ("optim.RMSprop()", r"optim\.RMSProp\("),
    ("optim.lr_scheduler", r"layerwise\.schedules"),
    ("optim.Adamax(learning_rate=0.1)", "Adamax takes no learning_rate=: write lr="),
    ("optim.Adam(betas=(0.9, 0.99))", "beta1= and beta2="),
    ("optim.Adam(eps=1e-8)", "write epsilon="),
    ("optim.Adam(net.parameters, 0.1)", "net is given to train"),
    ("optim.Adam().zero_grad()", "overwrites"),
    ("optim.Adam().param_groups", r"optim\.PerLayer\("),
    ("optim.Adam().step()", r"optim\(net, loss\)"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "way"), TABLE, ids=[row[0] for row in TABLE])
def test_a_habit_gets_the_line_that_mends_it(written, way):
    with pytest.raises((AttributeError, TypeError, ValueError), match=way) as caught:
        eval(written, FOUND | {"net": net()})
    assert "\n" not in str(caught.value)


def test_what_a_line_names_is_there():
    lines = [line for table in (*habits.MODULES.values(), habits.NET, habits.OPTIMIZER) for line in table.values()]
    named = {match for line in lines for match in re.findall(r"\b(layers|loss|optim)\.(\w+)\(", line)}
    assert {name for module, name in named if not hasattr(FOUND[module], name)} <= {"step"}
    assert named
    for module, table in habits.MODULES.items():
        assert not [name for name in table if hasattr(FOUND[module], name)]


def test_nothing_is_there_that_was_not():
    for thing in (net(), net()[0], layers.Linear):
        assert not [name for name in habits.NET if hasattr(thing, name)]
    assert not set(habits.NET) & set(dir(net()))
    assert not [name for name in habits.OPTIMIZER if hasattr(optim.Adam(), name)]
    for repeated in (copy.deepcopy(net()), pickle.loads(pickle.dumps(net()))):
        assert not hasattr(repeated, "fit")


def test_a_class_of_ones_own_may_have_these_names():
    class Mine(layers.Layer):
        def __init__(self, kernel, **others):
            super().__init__()
            self.kernel, self.others = kernel, others

        def setup(self, input_shape):
            self.add_parameter("weight", input_shape[-1:], 2.0)

        def forward(self, x, training):
            return x * self.weight

        def fit(self):
            return "fitted"

    layer = Mine(3, activation="relu")
    np.testing.assert_array_equal(layer(X), 2 * X)
    assert (layer.kernel, layer.fit(), layer.others) == (3, "fitted", {"activation": "relu"})
    assert "fit" in dir(layer)
