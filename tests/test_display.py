"""What a notebook shows: tables of nets, trainings and comparisons, and pictures that show themselves."""

import copy
import html.parser
import pickle
import re
import struct
import sys

import numpy as np
import pytest

import layers
import model
import optim
from layerwise.callbacks import UpdateStats
from layerwise.compare import compare

X = np.random.default_rng(0).normal(size=(12, 5))
Y = np.arange(12) % 3
HARMFUL = "<script>alert('x')</script>"


class Cells(html.parser.HTMLParser):
    """The texts of a page, cell by cell, row by row, then those of its paragraphs; and which tags there are."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.notes, self.tags = [], [], set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.notes.append("")

    def handle_data(self, text):
        if self.notes:
            self.notes[-1] += text
        else:
            self.rows[-1][-1] += text


def nested(name=None):
    inside = [layers.Linear(2, bias=False), layers.LeakyReLU(0.2)]
    stack = [
        layers.Linear(4, name=name),
        layers.Residual([layers.Linear(4), layers.Tanh()]),
        layers.Parallel([layers.ReLU(), inside]),
        layers.Model([layers.Dropout(0.25)], seed=7),
        layers.Lambda(np.negative, lambda x, grad: -grad),
        layers.Linear(3),
        layers.Softmax(),
    ]
    return layers.Model(stack, seed=0)


ROWS = [
    ["path", "layer", "output", "parameters"],
    ["layers.0", "Linear(4)", "(4,)", "24 (frozen)"],
    ["layers.1", "Residual()", "(4,)", ""],
    ["layers.1.layers.0", "Linear(4)", "(4,)", "20"],
    ["layers.1.layers.1", "Tanh()", "(4,)", "0"],
    ["layers.2", "Parallel()", "(6,)", ""],
    ["layers.2.branches.0", "Chain()", "(4,)", ""],
    ["layers.2.branches.0.layers.0", "ReLU()", "(4,)", "0"],
    ["layers.2.branches.1", "Chain()", "(2,)", ""],
    ["layers.2.branches.1.layers.0", "Linear(2, bias=False)", "(2,)", "8"],
    ["layers.2.branches.1.layers.1", "LeakyReLU(slope=0.2)", "(2,)", "0"],
    ["layers.3", "Model()", "(6,)", ""],
    ["layers.3.layers.0", "Dropout(0.25)", "(6,)", "0"],
    ["layers.4", "Lambda(negative, gradient=<lambda>)", "(6,)", "0"],
    ["layers.5", "Linear(3)", "(3,)", "21"],
    ["layers.6", "Softmax()", "(3,)", "0"],
    ["total", "", "", "73"],
]


def test_a_summary_has_a_row_for_each_layer_and_those_within():
    net = nested().build((5,))
    net[0].frozen = True
    summary = net.summary()
    lines = [line for line in summary.splitlines() if set(line) != {"-"}]
    assert [re.split(" {2,}", line) for line in lines] == [[cell for cell in row if cell] for row in ROWS]
    assert Cells(summary._repr_html_()).rows == ROWS
    assert Cells(net._repr_html_()).rows == ROWS


def test_a_summary_shows_itself_without_quotes_and_is_a_str():
    summary = nested().build((5,)).summary()
    assert repr(summary) == str(summary) == f"{summary}" == "".join(summary)
    assert type(str(summary)) is str
    assert summary.startswith("path")
    for repeated in (pickle.loads(pickle.dumps(summary)), copy.deepcopy(summary)):
        assert (repeated, repeated._repr_html_()) == (summary, summary._repr_html_())


class Scaled(layers.Layer):
    def __init__(self, scale, name=None):
        super().__init__(name)
        self.scale = scale

    def forward(self, x, training):
        return x * self.scale.sum()


def test_the_arguments_that_are_not_at_their_defaults_are_shown():
    """As one would write them: those without a default by place, the others by name."""
    stack = [
        layers.Conv2D(8, 3), layers.Conv2D(8, (3, 1), padding="same", name="wide"), layers.MaxPool2D(3),
        layers.BatchNorm(momentum=0.2), layers.Flatten(), Scaled(np.zeros(9), name="own"),
    ]  # fmt: skip
    shown = [row[1] for row in Cells(layers.Model(stack).build((11, 11, 1))._repr_html_()).rows[1:-1]]
    assert shown == [
        "Conv2D(8, 3)", "Conv2D(8, (3, 1), padding='same', name='wide')", "MaxPool2D(size=3)",
        "BatchNorm(momentum=0.2)", "Flatten()", "Scaled(array([0., 0., 0., 0., 0., 0., 0., 0...., name='own')",
    ]  # fmt: skip


def test_telemetry_uses_the_paths_of_the_summary():
    net = nested()
    history = net.train(X, Y, optim.SGD(), epochs=1, callbacks=UpdateStats(), verbose=False)
    paths = {row[0] for row in Cells(net._repr_html_()).rows}
    measured = {name.split()[0] for name in history if " " in name}
    assert "layers.2.branches.1.layers.0" in measured
    assert measured <= paths


def test_a_net_that_is_not_built_shows_its_layers():
    shown = Cells(nested()._repr_html_())
    assert [row[:2] for row in shown.rows] == [row[:2] for row in ROWS[:-1]]
    assert {cell for row in shown.rows[1:] for cell in row[2:]} == {""}
    assert "build(input_shape)" in shown.notes[0]


def metric(pred, real):
    return 1.0


metric.__name__ = HARMFUL


def shown_with_a_harmful_name(kind):
    if kind == "net":
        return nested(name=HARMFUL).build((5,))._repr_html_()
    if kind == "summary":
        return nested(name=HARMFUL).build((5,)).summary()._repr_html_()
    if kind == "history":
        return nested().train(X, Y, epochs=1, metrics=metric, verbose=False)._repr_html_()
    rules = {HARMFUL: optim.SGD, "adam": optim.Adam}
    return compare(rules, "xor", (0.1, 1.0), 2, 5, verbose=False, widen=False)._repr_html_()


@pytest.mark.parametrize("kind", ["net", "summary", "history", "comparison"])
def test_names_are_harmless_in_a_page_that_needs_no_other(kind):
    page = shown_with_a_harmful_name(kind)
    shown = Cells(page)
    assert any(HARMFUL in cell.replace('"', "'") for row in shown.rows for cell in row)
    assert shown.tags <= {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert not re.search("src=|href=|http", page)
    assert len(page) < 10_000


def test_a_history_shows_its_ends_and_extremes():
    history = model.History(loss=[3.0, 1.0, 2.0], val_loss=[4.0, float("nan"), 5.0], seconds=[0.1, 0.1, 0.1])
    history["layers.0 update norm"] = [1.0, 1.0, 1.0]
    history.interrupted = True
    shown = Cells(history._repr_html_())
    assert shown.rows[:3] == [
        ["", "first", "last", "lowest", "highest"],
        ["loss", "3", "2", "1 (epoch 2)", "3 (epoch 1)"],
        ["val_loss", "4", "5", "4 (epoch 1)", "5 (epoch 3)"],
    ]
    assert shown.notes == ["3 epochs, interrupted", "Telemetry is not shown here: history.to_frame() has all."]
    assert Cells(model.History()._repr_html_()).notes == ["0 epochs"]


def test_a_history_of_copies_shows_their_range():
    history = model.History(loss=[np.array([3.0, 5.0]), np.array([4.0, 1.0])], seconds=[0.1, 0.1])
    row = Cells(history._repr_html_()).rows[1]
    assert row == ["loss", "3 to 5", "1 to 4", "1 (epoch 2, copy 1)", "5 (epoch 1, copy 1)"]


def test_a_comparison_shows_its_table_verdict_and_warnings():
    found = compare("sgd,adam", "xor", (0.01, 0.1), 2, 5, verbose=False, widen=False)
    shown = Cells(found._repr_html_())
    table = [re.split(r" *\| *", line)[1:-1] for line in found.to_markdown().splitlines() if line.startswith("| ")]
    assert shown.rows == table
    assert [*shown.notes, ""] == found.to_markdown().split("\n\n", 1)[1].replace("\n\n", "\n").split("\n")


# Pictures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def history():
    pytest.importorskip("matplotlib")
    return model.History(loss=[3.0, 1.0], seconds=[0.1, 0.1])


def figures(history):
    from layerwise import pictures, problems, schedules

    surface = problems.named("booth")
    yield history.plot()
    yield schedules.Linear(0.1, 0.0, 5).plot(5)
    yield pictures.paths(surface, {"SGD": np.stack([surface.start, surface.start + 1])})


def test_a_picture_draws_itself_for_a_notebook(history):
    """As a PNG of 100 points to the inch, which Jupyter asks for where no backend of pyplot draws figures."""
    for figure in figures(history):
        content = figure._repr_png_()
        assert content.startswith(b"\x89PNG")
        size = struct.unpack(">II", content[16:24])
        assert size == tuple((100 * figure.get_size_inches()).round().astype(int))


def test_a_picture_survives_copies_and_pickles(history):
    figure = history.plot()
    for repeated in (copy.deepcopy(figure), pickle.loads(pickle.dumps(figure))):
        assert type(repeated) is type(figure)
        assert repeated._repr_png_() == figure._repr_png_()


BACKEND = """
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

class FigureManager(FigureManagerBase):
    def show(self):
        print("window", [axes.get_ylabel() for axes in self.canvas.figure.axes])

    @classmethod
    def start_main_loop(cls):
        from matplotlib import pyplot
        print("waits")
        pyplot.close("all")  # the window is closed

class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager
"""
SHOW = """
import sys, warnings
import matplotlib
import model

history = model.History(loss=[3.0, 1.0], seconds=[0.1, 0.1])
figure = history.plot()
assert "matplotlib.pyplot" not in sys.modules
for backend in ("TkAgg", "module://windows", "svg", "module://windows"):
    if backend != "TkAgg":
        matplotlib.use(backend)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        figure.show()
        figure.show(warn=False)
    print(backend, *(each.message for each in told))
print(len(figure._repr_png_()) > 1000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is a screen without DISPLAY")
def test_show_opens_a_window_and_waits_or_says_in_one_line_that_there_is_none(python, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "windows.py").write_text(BACKEND)
    monkeypatch.setenv("MPLBACKEND", "TkAgg")  # of a job without a screen; the next one has windows
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = python(SHOW, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    none = "there is no window to show the picture in ("
    assert first.startswith(f"TkAgg {none}")
    windows = ["window ['loss']", "waits", "window ['loss']", "waits", "module://windows"]
    line = f"svg {none}matplotlib's backend is svg): write it, figure.savefig('picture.png')."
    assert rest == [*windows, line, *windows, "True"]
