"""Every picture says what it shows, for every optimizer, and the same data gives the same bytes."""

import functools
from dataclasses import replace

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise import problems
from layerwise.compare.results import Comparison, endings, profile

matplotlib = pytest.importorskip("matplotlib")
FigureCanvasAgg = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg
pictures = pytest.importorskip("layerwise.pictures")

RATES = np.logspace(-3, 0, 4)
STEPS = 40


def comparison(names=("SGD", "Adam", "DoG"), seeds=5, target=0.01, scale=1.0, window=1):
    """Losses that fall by an exponential; above a rate of 0.3 most runs of the first rule diverge."""
    rng = np.random.default_rng(0)
    curves = {}
    for place, name in enumerate(names):
        speed = 10 * RATES[:, None, None] * np.exp(0.1 * rng.normal(size=(len(RATES), seeds, 1)))
        curves[name] = scale * np.exp(-speed * np.arange(STEPS + 1) / (1 + place))
        if place == 0:
            curves[name][-1, 1:, 10:] = np.nan
        if name == "DoG":
            curves[name] = curves[name][2:3]
    return Comparison(
        problem="xor",
        optimizers=tuple(names),
        lrs=RATES,
        seeds=tuple(range(seeds)),
        steps=STEPS,
        target=target,
        curves=curves,
        status={name: endings(each, target, 1) for name, each in curves.items()},
        seconds={name: rng.random(each.shape[:2]) for name, each in curves.items()},
        asked=RATES,
        window=window,
        settings={"without_rate": ["DoG"]},
    )


def paths(names=("SGD", "Adam"), surface="rosenbrock", steps=30):
    surface = problems.named(surface)
    return surface, {name: optim.minimize(surface, surface.start, getattr(optim, name)(1e-3), steps) for name in names}


def net_path():
    net = layers.Model([layers.Linear(3), layers.Tanh(), layers.Linear(2)], seed=0).build((2,))
    x, y = np.eye(2), np.eye(2)
    runs = {}
    for name in ("SGD", "Adam"):
        kept = [net.vector.copy()]
        net.train(
            x, y, getattr(optim, name)(0.1), loss.MSE(), epochs=5, verbose=False,
            callbacks=lambda net, logs, kept=kept: kept.append(net.vector.copy()),
        )  # fmt: skip
        runs[name] = np.array(kept)
    return net, runs, x, y, loss.MSE()


FIGURES = {
    "loss_curves": lambda: pictures.loss_curves(comparison()),
    "panels": lambda: pictures.panels(comparison()),
    "final_loss": lambda: pictures.final_loss(comparison()),
    "heat_map": lambda: pictures.heat_map(comparison()),
    "costs": lambda: pictures.costs(comparison()),
    "performance_profile": lambda: pictures.performance_profile(profile([comparison(), comparison(scale=2.0)])),
    "paths": lambda: pictures.paths(*paths()),
    "net_path": lambda: pictures.net_path(*net_path()),
}
IN_AXIS = ("heat_map", "costs")  # the optimizers are the labels of an axis


@functools.cache
def drawn(name):
    """One of them, drawn; shared by the tests that only look at it."""
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    return figure


def texts(figure):
    """Every text in a figure that has been drawn."""
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def written(figure):
    """Every text in a figure, drawn."""
    figure.draw_without_rendering()
    return texts(figure)


def legend(figure):
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_says_what_it_shows(name):
    figure = drawn(name)
    assert isinstance(figure, matplotlib.figure.Figure)
    assert figure.get_suptitle()
    main = [axes for axes in figure.axes if axes.get_xlabel()]
    assert main
    optimizers = ("SGD", "Adam", "DoG") if "path" not in name else ("SGD", "Adam")
    places = texts(figure) if name in IN_AXIS else legend(figure)
    for each in optimizers:
        assert any(text.startswith(each) for text in places), places


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_clipped_and_no_legend_covers_data(name):
    figure = drawn(name)
    renderer = FigureCanvasAgg(figure).get_renderer()
    page = figure.bbox.padded(1)
    for axes in figure.axes:
        box = axes.get_tightbbox(renderer)
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1  # noqa: PT018
        for each in figure.legends:
            assert not each.get_window_extent(renderer).overlaps(axes.get_window_extent(renderer))


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "svg") for name in FIGURES), ("loss_curves", "png"), ("paths", "png")]
)
def test_the_same_data_gives_the_same_bytes(name, kind):
    first, repeated = (pictures.render(FIGURES[name](), kind) for _ in range(2))
    assert first == repeated
    assert len(first) > 5000


def test_settings_of_the_session_make_no_difference_and_stay():
    plain = pictures.render(pictures.loss_curves(comparison()))
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": "other"}):
        assert pictures.render(pictures.loss_curves(comparison())) == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_pyplot_is_not_touched(python):
    script = """
import sys
from layerwise import pictures, problems
assert "matplotlib" not in sys.modules
surface = problems.named("booth")
pictures.render(pictures.paths(surface, {"SGD": surface.start + [[0.0, 0.0], [1.0, 1.0]]}))
print("matplotlib.pyplot" in sys.modules)
"""
    done = python(script)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_ten_optimizers_look_different():
    figure = pictures.loss_curves(comparison([f"rule {k}" for k in range(10)]))
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == STEPS + 1]
    looks = {(line.get_color(), str(line._dash_pattern)) for line in lines}
    assert len(lines) == len(looks) == 10
    assert len({line.get_marker() for line in lines}) == 10


def test_names_are_text_and_not_formulas():
    figure = pictures.loss_curves(comparison(["$lr$ <b>", "_hidden"]))
    assert legend(figure)[:2] == [r"\$lr\$ <b>, lr 0.1", " _hidden, lr 1"]
    pictures.render(figure)


def test_what_diverged_is_seen():
    cells = written(pictures.heat_map(comparison()))
    assert cells.count("div") == 1
    assert "diverged" in " ".join(written(pictures.final_loss(comparison())))
    assert "diverged from here" in legend(pictures.panels(comparison()))
    fine = comparison(["Adam", "DoG"])
    fine.curves["Adam"] = np.nan_to_num(fine.curves["Adam"], nan=1.0)
    assert "diverged" not in " ".join(written(pictures.final_loss(fine)))


def test_panels_take_the_rates_that_were_run():
    titles = [axes.get_title(loc="left") for axes in pictures.panels(comparison(), lrs=(0.0011, 0.9)).axes]
    assert titles == ["learning rate 0.001", "learning rate 1"]


@pytest.mark.parametrize("draw", ["loss_curves", "panels", "final_loss", "heat_map"])
@pytest.mark.parametrize(
    "data",
    [
        comparison(seeds=1, target=None),
        comparison(scale=0.0),
        comparison(scale=-1.0),
        comparison(window=5),
        replace(comparison(["SGD"]), curves={"SGD": np.full((4, 5, STEPS + 1), np.nan)}),
    ],
    ids=["one seed", "all zero", "below zero", "batches", "all diverged"],
)
def test_odd_data_is_drawn_without_a_warning(draw, data):
    getattr(pictures, draw)(data).draw_without_rendering()


@pytest.mark.parametrize("name", problems.SURFACES)
def test_every_surface_can_be_drawn(name):
    pictures.paths(*paths(surface=name, steps=3)).draw_without_rendering()


def test_a_path_that_leaves_says_where():
    surface = problems.named("booth")
    far = np.array([[-6.0, -4.0], [0.0, 0.0], [1e200, 1e250], [np.nan, np.nan]])
    figure = pictures.paths(surface, {"wild": far, "calm": far[:2]})
    assert legend(figure)[:2] == ["wild (leaves at step 2)", "calm"]
    pictures.render(figure, "png")


def test_a_surface_of_more_variables_is_refused():
    with pytest.raises(ValueError, match="two variables"):
        pictures.paths(problems.quadratic(dim=3), {"SGD": np.zeros((2, 3))})


def test_an_animation_moves_ends_and_has_the_same_bytes(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("a.gif", "b.gif"):
        pictures.animate(*paths(), tmp_path / name, frames=8)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with image.open(tmp_path / "a.gif") as moving:
        assert moving.n_frames == 8
        first = np.asarray(moving.convert("RGB")).astype(int)
        moving.seek(7)
        last = np.asarray(moving.convert("RGB")).astype(int)
    assert (first != last).any()
    blue = np.array([0x00, 0x72, 0xB2])
    assert (np.abs(last - blue).max(-1) < 12).any()  # its colours are those of the picture


def test_the_path_of_a_net_leaves_the_net_as_it_was():
    net, runs, x, y, error = net_path()
    before = net.vector.copy()
    figure = pictures.net_path(net, runs, x, y, error)
    assert np.array_equal(net.vector, before)
    assert "17 parameters" in figure.get_suptitle()
    with pytest.raises(ValueError, match=r"weights are \(T, 17\)"):
        pictures.net_path(net, {"SGD": np.zeros((4, 3))}, x, y, error)


def test_the_loss_on_the_plane_is_that_of_the_net():
    net, runs, x, y, error = net_path()
    grid = [[runs["SGD"][0], runs["SGD"][-1]]]
    first, last = pictures._losses(net, grid, x, y, error)[0]
    net.vector[...] = runs["SGD"][0]
    assert first == error(net.predict(x), y)
    assert last < first


def test_save_decides_by_the_suffix_and_is_whole_or_not_there(tmp_path, monkeypatch):
    figure = pictures.costs(comparison())
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        pictures.save(figure, tmp_path / f"a.{kind}")
        assert (tmp_path / f"a.{kind}").read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"\.svg, \.png or \.pdf"):
        pictures.save(figure, tmp_path / "a.jpeg")
    with pytest.raises(FileNotFoundError, match="make it first"):
        pictures.save(figure, tmp_path / "nowhere" / "a.png")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(OSError, match="No space"):
        pictures.write(tmp_path / "a.png", b"other")
    assert (tmp_path / "a.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "layerwise\[compare\]"'):
        pictures.loss_curves(comparison())


def test_quartiles_count_what_diverged_as_infinite():
    low, middle, high = pictures.quartiles(np.array([1.0, 2.0, 3.0, np.nan, np.inf]))
    assert (low, middle, high) == (2.0, 3.0, np.inf)
