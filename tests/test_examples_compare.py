"""The examples that compare optimizers and draw: they run, as a person would run them, and end with the result."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parent.parent


def run(folder, name, *arguments, code=0):
    """What the example prints, line by line; run in another folder than its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return (done.stdout or done.stderr).splitlines()


def content(folder):
    """Name -> bytes of every file that the same command writes the same."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if "timings" not in path.name}


@pytest.mark.parametrize("name", ["compare_optimizers.py", "surfaces.py", "same_as_pytorch.py"])
def test_help(tmp_path, name):
    told = "\n".join(run(tmp_path, name, "--help"))
    assert all(option in told for option in ("--seed", "--quick", "--out"))


def test_compare_optimizers(tmp_path):
    for folder in ("one", "two"):
        *_, last = run(tmp_path, "compare_optimizers.py", "--quick", "--optimizers", "SGD,Adam", "--out", folder)
        assert re.match(r"xor: (no clear winner: |\w+ wins: )", last)
    first, repeated = (content(tmp_path / folder) for folder in ("one", "two"))
    assert set(first) == {"panels.png", "curves.png", "report.html"}
    assert first == repeated


def test_surfaces(tmp_path):
    for folder in ("one", "two"):
        *_, last = run(tmp_path, "surfaces.py", "--quick", "--out", folder)
        assert re.match(r"\w+ is the lowest on rosenbrock after 50 steps, at [\d.e-]+$", last)
    first, repeated = (content(tmp_path / folder) for folder in ("one", "two"))
    assert set(first) == {"rosenbrock.png", "rosenbrock.gif"}
    assert first == repeated


def test_surfaces_from_another_start(tmp_path):
    first, repeated, other = (
        run(tmp_path, "surfaces.py", "--quick", "--surface", "booth", "--seed", seed) for seed in ("1", "1", "2")
    )
    assert first == repeated != other


def test_same_as_pytorch(tmp_path):
    try:
        import torch  # noqa: F401
    except ImportError:
        assert "pip install torch" in run(tmp_path, "same_as_pytorch.py", "--quick", code=1)[-1]
        return
    last = run(tmp_path, "same_as_pytorch.py", "--quick")[-1]
    assert float(re.search(r"at most ([\d.e-]+) of it", last)[1]) < 1e-10
    assert (tmp_path / "same_as_pytorch.png").read_bytes().startswith(b"\x89PNG")
