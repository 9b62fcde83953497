"""The manual: it builds, its links lead somewhere, and its programs print what the page says they print.

The other blocks of Python in docs/ run as those of the README do: see conftest.py.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import floors
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PROGRAMS = re.findall(
    r"## (.+?)\n.*?```python\n(.*?)```\n\n```text\n(.*?)```", (DOCS / "try.md").read_text(encoding="utf-8"), re.S
)
NUMBER = r"-?\d+\.?\d*(?:e-?\d+)?"


def test_every_program_has_its_output():
    text = (DOCS / "try.md").read_text(encoding="utf-8")
    assert len(PROGRAMS) == text.count("```python") == text.count("```text") == text.count("\n## ")


@pytest.mark.parametrize(("program", "printed"), [each[1:] for each in PROGRAMS], ids=[each[0] for each in PROGRAMS])
def test_a_program_prints_what_the_page_says(program, printed):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "try.md", "exec"), {"__name__": "__main__"})
    said, page = out.getvalue(), printed
    assert re.sub(NUMBER, "0", said).split() == re.sub(NUMBER, "0", page).split()
    numbers = [np.array(re.findall(NUMBER, text), float) for text in (said, page)]
    assert np.allclose(*numbers, rtol=0.02, atol=0.02)  # last digits depend on the processor


def test_the_readme_says_how_long_the_code_is():
    """To 5 %, and the hours to one; `python docs/floors.py` counts the lines anew."""
    _, said, _ = floors.split_readme()
    counted = floors.reading()
    assert re.sub(NUMBER, "0", said) == re.sub(NUMBER, "0", counted)
    numbers = [np.array(re.findall(NUMBER, text), float) for text in (said, counted)]
    assert np.allclose(*numbers, rtol=0.05, atol=1)


def test_the_readme_names_every_room():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = {f"layerwise/{name.split('.')[0]}" for name in floors.MODULES if name not in floors.FOUR} | {*floors.FOUR}
    files = {f"{room}/" if (ROOT / room).is_dir() else f"{room}.py" for room in rooms}
    assert [file for file in sorted(files) if f"| `{file}` |" not in text] == []


def test_every_page_of_the_manual_is_reached_from_the_first():
    names = {path.stem for path in DOCS.glob("*.md")}
    linked = set(re.findall(r"\]\((\w+)\.md", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert names - linked - {"index"} == set()


@pytest.fixture
def copied(tmp_path):
    """docs/ in a folder of its own, beside what it shows of examples/."""
    root = tmp_path / "repository"
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("__pycache__", "reference"))
    shutil.copytree(ROOT / "examples" / "images", root / "examples" / "images")
    return root / "docs"


def test_the_manual_builds_and_a_dead_link_is_found(copied, tmp_path):
    """With two modules of the reference: .ci/run builds all of it, which takes longer."""
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    page = copied / "index.md"
    page.write_text(page.read_text() + "\n[a](nowhere.md) [b](try.md#nothing) [c](try.md#xor) ![d](images/none.png)\n")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-D", "modules=loss,layerwise.schedules", copied, site]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    dead = [re.search("none.png|nowhere.md|'nothing'", line) for line in done.stderr.splitlines()]
    assert all(dead), done.stderr
    assert sorted(each[0] for each in dead) == ["'nothing'", "none.png", "nowhere.md"]

    assert {path.stem for path in site.glob("*.html")} >= {path.stem for path in DOCS.glob("*.md")}
    pages = [(site / name).read_text() for name in ("reference/loss.html", "coming_from.html")]
    schedules = (site / "reference" / "layerwise.schedules.html").read_text()
    assert 'id="loss.CrossEntropy"' in pages[0]
    assert re.search(r'href="reference/loss.html#loss.Huber"><code[^>]*>(<[^>]*>)*Huber\(delta=1\)', pages[1])
    assert not re.search("<strong>", pages[0] + schedules)  # a star in a formula is a star
    index = (site / "searchindex.js").read_text()
    assert "ensembl" in index  # the search knows the pages
    assert "kullback" in index  # and the docstrings
