"""The surfaces' gradients against central differences, their minima, and the nets: what a seed decides, and errors."""

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise import problems
from layerwise.problems import NETS, SURFACES, Problem

OTHERS = {
    "quadratic in 5": lambda: problems.quadratic(30, dim=5),
    "noisy in 3": lambda: problems.noisy_quadratic(10, dim=3, noise=0.5),
    "rastrigin in 4": lambda: problems.rastrigin(4),
    "ackley in 3": lambda: problems.ackley(3),
    "ravine": lambda: problems.ravine(17),
}
EVERY = {**SURFACES, **OTHERS}


@pytest.fixture(params=EVERY)
def surface(request):
    return EVERY[request.param]()


def inside(surface, count, seed=0):
    low, high = np.array([*surface.bounds] * surface.start.size)[: surface.start.size].T
    return np.random.default_rng(seed).uniform(low, high, (count, surface.start.size))


def test_the_gradient_is_that_of_the_value(surface):
    for x in inside(surface, 20):
        value, gradient = surface(x, seed=3, step=5)
        assert gradient.shape == x.shape
        assert np.ndim(value) == 0
        for place in range(x.size):
            h = np.zeros_like(x)
            h[place] = 1e-5
            difference = (surface(x + h, 3, 5)[0] - surface(x - h, 3, 5)[0]) / 2e-5
            assert gradient[place] == pytest.approx(difference, rel=1e-6, abs=1e-5)


def test_nothing_is_lower_than_the_minima(surface):
    if surface.noisy:
        mean = np.mean([surface(surface.minimum, step=step)[0] for step in range(4000)])
        assert mean == pytest.approx(surface.target / 2, rel=0.1)
        return
    around = inside(surface, 2000)
    for minimum in surface.minima:
        value, gradient = surface(minimum)
        assert value == pytest.approx(0, abs=1e-25)
        np.testing.assert_allclose(gradient, 0, atol=1e-12)
        assert surface(around)[0].min() > 0
        assert surface(minimum + 1e-3 * np.random.default_rng(0).standard_normal((100, minimum.size)))[0].min() > 0


@pytest.mark.parametrize("name", SURFACES)
def test_a_grid_of_points_is_one_call(name):
    surface = SURFACES[name]()
    points = inside(surface, 12).reshape(3, 4, 2)
    value, gradient = surface(points, seed=1, step=2)
    assert (value.shape, gradient.shape) == ((3, 4), (3, 4, 2))
    one, by_one = surface(points[2, 1], seed=1, step=2)
    assert value[2, 1] == pytest.approx(one, rel=1e-14)
    np.testing.assert_allclose(gradient[2, 1], by_one, rtol=1e-13)


@pytest.mark.parametrize("name", SURFACES)
def test_a_surface_begins_within_its_picture_and_above_its_target(name):
    surface = SURFACES[name]()
    for seed in range(20):
        start = surface.start_of(seed)
        assert np.array_equal(start, surface.start_of(seed))
        assert all(low < x < high for x, (low, high) in zip(start, surface.bounds, strict=True))
        assert surface(start)[0] > surface.target
    assert not np.array_equal(surface.start_of(0), surface.start_of(1))
    assert surface.name == name


def test_noise_is_decided_by_seed_and_step():
    surface = problems.noisy_quadratic()
    x = surface.start
    assert surface(x, 1, 2)[0] == surface(x, 1, 2)[0]
    assert len({surface(x, seed, step)[0] for seed in range(5) for step in range(5)}) == 25


def test_a_surface_goes_with_minimize():
    path = optim.minimize(problems.saddle(), [1.5, 0.1], optim.Momentum(0.1), 200)
    np.testing.assert_allclose(path[-1], [0, 1], atol=1e-3)


@pytest.mark.parametrize("name", NETS)
def test_a_net_learns_its_problem(name):
    problem = NETS[name]()
    assert problem.name == name
    net = problem.net(0)
    before = net.evaluate(problem.x, problem.y, problem.loss)["loss"]
    net.train(
        problem.x, problem.y, optim.Adam(0.01), problem.loss, epochs=20, batch_size=problem.batch_size, verbose=False
    )
    assert before > problem.target
    assert net.evaluate(problem.x, problem.y, problem.loss)["loss"] < before
    assert problem.noisy == (problem.window > 1)


@pytest.mark.parametrize("name", NETS)
def test_the_seed_decides_the_net(name):
    problem = NETS[name]()
    assert np.array_equal(problem.net(1).vector, problem.net(1).vector)
    assert not np.array_equal(problem.net(1).vector, problem.net(2).vector)
    assert problem.describe() == NETS[name]().describe()


@pytest.mark.parametrize(
    "make",
    [lambda: problems.xor(), lambda: problems.moons(), lambda: problems.ravine()],
    ids=["xor", "moons", "ravine"],
)
def test_another_problem_is_described_otherwise(make):
    whole = {name: each().describe() for name, each in {**NETS, **SURFACES}.items()}
    assert sum(each == make().describe() for each in whole.values()) == 1
    assert problems.ravine(10).describe() != problems.ravine().describe()


def test_sklearn_comes_with_the_digits_only(python):
    script = """
import sys
from layerwise import problems
problems.named("moons").net(0)
print("sklearn" in sys.modules)
"""
    assert python(script).stdout.split() == ["False"]


def test_a_name_that_is_none_of_ours():
    with pytest.raises(ValueError, match=r"no problem 'sphere'.*xor.*digits.*rosenbrock.*saddle"):
        problems.named("sphere")
    with pytest.raises(ValueError, match="no problem 3"):
        problems.named(3)
    assert problems.named("xor").name == "xor"


def net(seed):
    return layers.Model([layers.Linear(1)], seed=seed)


X = np.ones((3, 2))
BAD = {
    "make_net is a net": (lambda: Problem(net(0), X, X, loss.MSE()), TypeError, "function of a seed"),
    "a class as loss": (lambda: Problem(net, X, X, loss.MSE), TypeError, "an instance"),
    "lengths": (lambda: Problem(net, X, X[:2], loss.MSE()), ValueError, r"\(3, 2\) and \(2, 2\)"),
    "no rows": (lambda: Problem(net, X[:0], X[:0], loss.MSE()), ValueError, "a row for each"),
    "batch size": (lambda: Problem(net, X, X, loss.MSE(), 0), ValueError, "batch_size"),
    "no model": (lambda: Problem(lambda seed: 3, X, X, loss.MSE()).net(0), TypeError, "int"),
    "a seed unused": (
        lambda: Problem(lambda seed: net(None), X, X, loss.MSE()).describe(),
        ValueError,
        "hand the seed",
    ),
    "condition": (lambda: problems.quadratic(0.5), ValueError, "condition"),
    "dim": (lambda: problems.rastrigin(1), ValueError, "dim"),
    "noise": (lambda: problems.noisy_quadratic(noise=-1), ValueError, "noise"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_told(case):
    call, error, told = BAD[case]
    with pytest.raises(error, match=told):
        call()
