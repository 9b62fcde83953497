"""layerwise.gradcheck: it passes what is right, sees what is wrong, and leaves everything as it was."""

import numpy as np
import pytest

from layers import BatchNorm, Dropout, Embedding, Flatten, Layer, Linear, Model, ReLU, Residual, Softmax, Tanh
from layerwise.gradcheck import gradcheck
from loss import MSE, CrossEntropy, Hinge

N, T, D = 4, 3, 5


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def small_net():
    return Model([Linear(6), BatchNorm(), Tanh(), Dropout(0.3), Residual([Linear(6)]), Linear(3), Softmax()], seed=1)


# ---- What is right passes ----


def test_a_right_layer_has_a_small_error_and_a_place():
    result = gradcheck(Linear(6), draw(N, T, D))
    assert 0 < result.error < 1e-9
    name, place = result.where.rstrip("]").split("[")
    shape = {"x": (N, T, D), "w": (D, 6), "b": (6,)}[name]
    assert all(0 <= int(index) < size for index, size in zip(place.split(","), shape, strict=True))
    assert repr(result) == f"error {result.error:.1e} at {result.where}"


@pytest.mark.parametrize("training", [True, False])
def test_a_whole_net_and_through_a_loss(training):
    assert gradcheck(small_net(), draw(N, D), training=training).error < 1e-8
    assert gradcheck(small_net(), draw(N, D), CrossEntropy(), training=training).error < 1e-8
    real = np.array([0, 2, 1, 1])
    assert gradcheck(small_net(), draw(N, D), loss=CrossEntropy(reduction="sum"), real=real).error < 1e-8


def test_integers_are_not_moved_but_parameters_are():
    result = gradcheck(Model([Embedding(7, 3), Flatten(), Linear(2)]), np.array([[0, 6], [3, 3]]))
    assert result.error < 1e-9
    assert result.where.startswith("layers.")


def test_the_same_seed_checks_the_same():
    layer = Residual([Linear(D), Dropout(0.5)])  # not built: its weights come from the seed too
    assert gradcheck(layer, draw(N, D), seed=3) == gradcheck(layer, draw(N, D), seed=3)
    assert gradcheck(layer, draw(N, D), seed=3) != gradcheck(layer, draw(N, D), seed=4)


def test_x_from_the_generator_of_the_same_seed_is_nothing_special():
    """An upstream gradient equal to x would hide most errors of a normalisation: its dL/dx would be near 0."""
    x = np.random.default_rng(0).standard_normal((N, D))

    class Wrong(BatchNorm):
        def backward(self, grad):
            return 1.01 * super().backward(grad)

    assert gradcheck(Wrong(), x, seed=0).error > 1e-3


def test_it_leaves_the_layer_the_data_and_the_loss_as_they_were(snapshot):
    net, x, loss = small_net().build((D,)), draw(N, D).astype(np.float32), CrossEntropy()
    net(x, training=True)
    loss(net(x), [0, 1, 2, 0])
    gradient, before, x_before = loss.backward(), snapshot(net), x.copy()
    gradients, kept = [g.copy() for g in net[0].gradients.values()], [layer.kept for layer in net.layers]
    gradcheck(net, x, loss)
    assert snapshot(net) == before
    assert all(layer.kept is was for layer, was in zip(net.layers, kept, strict=True))
    for array, was in zip(net[0].gradients.values(), gradients, strict=True):
        np.testing.assert_array_equal(array, was)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(loss.backward(), gradient)
    unbuilt = Linear(3)
    gradcheck(unbuilt, x)
    assert unbuilt.w.size == 0
    assert unbuilt.input_shape is None


# ---- What is wrong is seen ----


class Planted(Layer):
    """y = w x^2 + b, with room for a mistake in backward."""

    def setup(self, input_shape):
        self.add_parameter("w", input_shape[-1:], lambda shape, rng: rng.uniform(1, 2, shape))
        self.add_parameter("b", input_shape[-1:])

    def forward(self, x, training):
        self.kept = x
        return self.w * x * x + self.b

    def backward(self, grad):
        self.w_gradient = (grad * self.kept**2).sum(0)
        self.b_gradient = grad.sum(0)
        return 2 * self.w * self.kept * grad


class WrongFactor(Planted):
    def backward(self, grad):
        return 1.00001 * super().backward(grad)


class MissingTerm(BatchNorm):
    """Forgets that the variance moves with x."""

    def backward(self, grad):
        super().backward(grad)
        _, _, scale, _ = self.kept
        z_gradient = grad * self.w
        return scale * (z_gradient - z_gradient.mean(0))


class ZeroSoftmax(Softmax):
    """Right only where the upstream gradient is the same for all classes."""

    def backward(self, grad):
        return np.zeros_like(grad)


class DerivativeAtTheWrongPoint(Tanh):
    def backward(self, grad):
        return grad * (1 - np.tanh(self.kept) ** 2)


class WrongW(Planted):
    def backward(self, grad):
        x_gradient = super().backward(grad)
        self.w_gradient[2] *= 1.001
        return x_gradient


class WrongOneElement(Planted):
    def backward(self, grad):
        x_gradient = super().backward(grad)
        x_gradient[1, 3] += 0.001
        return x_gradient


class Adds(Planted):
    def backward(self, grad):
        before = self.b_gradient.copy()
        x_gradient = super().backward(grad)
        self.b_gradient += before
        return x_gradient


class ForgetsB(Planted):
    def backward(self, grad):
        before = self.b_gradient.copy()
        x_gradient = super().backward(grad)
        self.b_gradient = before
        return x_gradient


class Transposed(Linear):
    """Right for as many inputs as units with a symmetric w, as made of ones: every axis needs its own size."""

    def backward(self, grad):
        x_gradient = super().backward(grad)
        self.w_gradient = self.w_gradient.T.reshape(self.w.shape)
        return x_gradient


WRONG = {  # what is wrong: (layer, where it is found)
    "a factor of 1 + 1e-5": (WrongFactor, "x["),
    "a missing term": (MissingTerm, "x["),
    "a Softmax whose backward is zero": (ZeroSoftmax, "x["),
    "the derivative at the wrong point": (DerivativeAtTheWrongPoint, "x["),
    "one element of a parameter": (WrongW, "w[2]"),
    "one element of x": (WrongOneElement, "x[1, 3]"),
    "gradients added and not overwritten": (Adds, "b["),
    "a gradient that is not set": (ForgetsB, "b["),
    "a transposed gradient": (lambda: Transposed(3), "w["),
}


@pytest.mark.parametrize(("make", "where"), WRONG.values(), ids=WRONG)
def test_a_wrong_backward_is_seen_where_it_is(make, where):
    result = gradcheck(make(), draw(N, D))
    assert result.error > 5e-6
    assert result.where.startswith(where)


def test_the_layer_that_is_wrong_is_named_in_a_net_and_through_a_loss():
    net = Model([Linear(6), Tanh(), WrongW(), Linear(2)], seed=0)
    for loss in (None, MSE()):
        result = gradcheck(net, draw(N, D), loss)
        assert result.error > 1e-5
        assert result.where == "layers.2.w[2]"


def test_a_wrong_loss_is_seen():
    class Doubled(MSE):
        def derivative(self, scale):
            return 2 * super().derivative(scale)

    assert gradcheck(Linear(3), draw(N, D), Doubled()).error > 0.4


# ---- What cannot be checked is refused ----


@pytest.mark.parametrize("distance", [0, 2e-5, 4e-5, -7e-5])
def test_a_kink_is_refused_with_its_place(distance):
    x = np.abs(draw(N, D)) + 0.1
    x[2, 3] = distance
    with pytest.raises(ValueError, match=r"a kink at x\[2, 3\].*Move x .*away, as by x \+ 0.01"):
        gradcheck(ReLU(), x)
    assert gradcheck(ReLU(), x + 0.01).error < 1e-9


@pytest.mark.parametrize("part", [1 / 3, 1 / 6, 0.5, 0.9])
def test_no_distance_within_the_step_hides_a_kink(part):
    with pytest.raises(ValueError, match="a kink at x"):
        gradcheck(ReLU(), np.array([[part * 1e-4, 1.0, -1.0]]))


def test_a_kink_in_the_loss_is_refused():
    with pytest.raises(ValueError, match=r"a kink at x\[0, 0\]"):
        gradcheck(ReLU(), [[1.0, 0.5]], Hinge(), real=[[1, 1]])


def test_a_sharp_bend_is_no_wrong_backward():
    """Where the step is too coarse to tell, it says so."""

    class Sharp(Tanh):
        def forward(self, x, training):
            return super().forward(1000 * x, training)

        def backward(self, grad):
            return 1000 * super().backward(grad)

    with pytest.raises(ValueError, match=r"a bend too sharp for a step of 0.0001"):
        gradcheck(Sharp(), draw(N, D) / 1000)


class Own(Layer):
    """y = x, and what the test puts in its place."""

    def forward(self, x, training):
        return x.copy()

    def backward(self, grad):
        return grad.copy()


def own(**methods):
    return type("Own", (Own,), methods)()


def writes_into_x(self, x, training):
    x *= 2
    return x.copy()


def writes_into_grad(self, grad):
    grad *= 2
    return grad.copy()


def own_noise(self, x, training, rng=np.random.default_rng(0)):  # noqa: B008 (one generator is the mistake)
    return x + rng.standard_normal(x.shape)


REFUSED = {  # what is wrong: (layer, what the message says)
    "no dL/dx": (own(backward=lambda self, grad: None), r"dL/dx.*Own returns, is an array of shape \(4, 5\), got None"),
    "dL/dx of another shape": (own(backward=lambda self, grad: grad[:1]), r"of shape \(4, 5\), got shape \(1, 5\)"),
    "NaN in dL/dx": (own(backward=lambda self, grad: grad * np.nan), "dL/dx.*holds NaN or infinity"),
    "NaN in y": (own(forward=lambda self, x, training: x * np.nan), "the output holds NaN or infinity"),
    "forward writes into x": (own(forward=writes_into_x), "forward of Own writes into x"),
    "backward writes into grad": (own(backward=writes_into_grad), "backward of Own writes into the gradient"),
    "random numbers of its own": (own(forward=own_noise), "Own gives another output in a second pass.*self.rng"),
}


@pytest.mark.parametrize(("layer", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        gradcheck(layer, draw(N, D))


def test_the_edge_of_what_forward_takes_is_refused_with_its_place():
    layer = own(forward=lambda self, x, training: np.sqrt(x))
    with pytest.raises(ValueError, match=r"forward is not finite within 0.0001 of x\[1, 2\]: move it away"):
        gradcheck(layer, [[1.0, 2, 3], [1, 2, 9e-5]])


@pytest.mark.parametrize("given", [Linear, np.tanh, None])
def test_what_is_no_layer_is_refused(given):
    with pytest.raises(TypeError, match="gradcheck takes a layer or a net, got"):
        gradcheck(given, draw(N, D))


def test_a_shape_that_cannot_be_and_nothing_to_check_are_refused():
    with pytest.raises(ValueError, match=r"Residual adds.*got \(5,\) and \(3,\)"):
        gradcheck(Residual([Linear(3)]), draw(N, D))

    class Integers(Own):
        integer_input = True

    with pytest.raises(ValueError, match="Integers has nothing to check"):
        gradcheck(Integers(), np.array([[1, 2]]))
