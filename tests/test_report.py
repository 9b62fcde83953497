"""The report: one file that needs nothing else, says everything, and is the same twice."""

import base64
import dataclasses
import html.parser
import re

import numpy as np
import pytest

import optim
from layerwise import problems
from layerwise.compare import compare

pytest.importorskip("matplotlib")
report = pytest.importorskip("layerwise.report")

VOID = {"meta", "img", "br", "link"}


class Page(html.parser.HTMLParser):
    """What an HTML file holds; ValueError where a tag is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.feed(text)
        self.close()
        if self.open:
            raise ValueError(f"not closed: {self.open}")

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes nothing")

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def found():
    optimizers = {"SGD": optim.SGD, "Adam <b>&": lambda lr: optim.Adam(lr, beta2=0.99), "DoG": optim.DoG}
    return compare(optimizers, "booth", [0.01, 0.1, 1.0], seeds=3, steps=30, verbose=False, widen=False)


@pytest.fixture(scope="module")
def pages(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report.write_report(found, folder / "report.html")
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.timings.html"]
    return [(folder / name).read_text("utf-8") for name in ("report.html", "report.timings.html")]


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of a report's time; where a test looks at the words alone, none is drawn."""
    monkeypatch.setattr(report.pictures, "render", lambda figure, kind="svg": b"<?xml version='1.0'?><svg/>")


def test_it_is_whole_html_for_a_phone(pages):
    for text in pages:
        page = Page(text)
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
        tables = [place for place, (tag, _) in enumerate(page.tags) if tag == "table"]
        assert all(page.tags[place - 1][1]["class"] == "scroll" for place in tables)
        assert tables


def test_it_needs_no_network(pages):
    for text in pages:
        page = Page(text)
        assert "http://" not in text
        assert "https://" not in text
        assert not page.all("script")
        assert not page.all("link")
        assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img"))
        for image in page.all("img"):
            assert image["alt"]
            drawn = base64.b64decode(image["src"].partition(",")[2])
            assert drawn.startswith(b"<?xml")
            assert not re.findall(rb'href="(?!#|data:)', drawn)
    assert len(Page(pages[0]).all("img")) == 4


def test_it_says_everything(pages, found):
    page = Page(pages[0])
    for name in found.optimizers:
        assert name in page.text
    assert "<b>" not in pages[0]
    assert found.verdict[1:] in page.text
    for sentence in found.warnings():
        assert sentence in page.text
    for word in ("0.01 to 1", "3 seeds", "30 steps", "No gradient was clipped", "run once from each seed: DoG"):
        assert word in page.text
    for setting in ('problem = "booth"', "beta2=0.99", "steps = 30", f'numpy = "{np.__version__}"', "matplotlib"):
        assert setting in page.text


@pytest.fixture(scope="module")
def pages_again(found, tmp_path_factory):
    """The pages of the same runs, loaded from a file, had they taken twice as long."""
    folder = tmp_path_factory.mktemp("again")
    found.to_json(folder / "found.json")
    loaded = found.load(folder / "found.json")
    slower = dataclasses.replace(loaded, seconds={name: 2 * each for name, each in found.seconds.items()})
    report.write_report(slower, folder / "report.html")
    return [(folder / name).read_text("utf-8") for name in ("report.html", "report.timings.html")]


def test_timings_stand_in_a_file_of_their_own(pages, pages_again):
    """The report is the same to the byte, however long the runs took."""
    assert "per step" not in Page(pages[0]).text
    assert "per step" in Page(pages[1]).text
    assert "report.timings.html" in Page(pages[0]).text
    assert pages_again[0] == pages[0]
    assert pages_again[1] != pages[1]


def test_a_report_without_timings(found, tmp_path, undrawn):
    report.write_report(found, tmp_path / "untimed.html", timings=False)
    assert not (tmp_path / "untimed.timings.html").exists()
    assert "untimed.timings" not in (tmp_path / "untimed.html").read_text("utf-8")


def test_a_loaded_comparison_gives_the_same_report(pages, pages_again):
    assert pages_again[0] == pages[0]


def test_how_to_run_it_again(found):
    ours = compare("sgd,dog", "booth", [0.01, 0.1], seeds=2, steps=5, verbose=False, target=0.5)
    told = " ".join(report._again(ours).replace("\\\n", " ").split())
    assert told.startswith("python -m layerwise.compare --problem booth --optimizers SGD,DoG --lrs 0.01,0.1 --steps 5")
    assert told.endswith("--seeds 2 --target 0.5 --out report.html")
    # What no command can say is a call.
    assert "compare(optimizers, problem, lrs=[0.01, 0.1, 1.0]" in report._again(found)
    own = compare("sgd", problems.Surface("booth", lambda x: (x @ x, 2 * x), np.ones(2), np.zeros(2), ((-1, 1),) * 2),
                  [0.01], seeds=1, steps=5, verbose=False)  # fmt: skip
    assert report._again(own).startswith("from layerwise.compare import compare")


def test_more_pictures_and_a_place_that_is_not_there(found, tmp_path, undrawn):
    surface = problems.named("booth")
    path = optim.minimize(surface, surface.start, optim.SGD(0.01), 5)
    figure = report.pictures.paths(surface, {"SGD": path})
    report.write_report(found, tmp_path / "report.html", more={"The way down.": figure})
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert len(page.all("img")) == 5
    assert "The way down." in page.text
    with pytest.raises(FileNotFoundError, match="make it first"):
        report.write_report(found, tmp_path / "nowhere" / "report.html")
