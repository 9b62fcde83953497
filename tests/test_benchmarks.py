"""The benchmarks run with layerwise alone, at sizes that measure nothing, and write what they say."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent.parent / "benchmarks" / "run.py"
PARTS = {"gather", "forward", "loss", "backward", "update", "rest"}


def run(folder, *arguments):
    environment = os.environ | {"XDG_CACHE_HOME": str(folder), "LAYERWISE_DATA": ""}  # no MNIST
    command = [sys.executable, "-W", "error", str(RUN), "--tiny", "--rounds", "1", "--threads", "1", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_grid_searches_beside_scikit_learns(tmp_path):
    script = RUN.with_name("estimators.py")
    command = [sys.executable, "-W", "error", str(script), "--rounds", "1", "--folds", "2", "--epochs", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    only, median = ([float(cell) for cell in row.split("|")[2:-1]] for row in done.stdout.splitlines()[2:])
    assert only == median
    seconds, score, their_seconds, their_score, ratio = only
    assert 0.1 < min(score, their_score) <= 1
    assert ratio == pytest.approx(seconds / their_seconds, rel=0.2)  # what is printed is rounded


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    names = ["--peers", "layerwise,numpy", "xor", "mlp", "import", "where", "growth"]
    done = run(folder, *names, "--json", "speed.json", "--page", "speed.md", "--chart", "speed.png")
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "speed.json").read_text()), done.stdout


def test_the_file_has_what_was_asked_for(results):
    _, found, _ = results
    assert set(found) == {"machine", "data", "rounds", "tiny", "workloads", "where", "growth"}
    assert found["data"] == "random numbers of MNIST's shapes"
    assert set(found["workloads"]) == {"xor", "mlp", "import"}
    for name, each in found["workloads"].items():
        assert set(each) == {"title", "unit", "scale", "results", "ratios"}
        result = each["results"]["layerwise"]
        assert 0 < result["min"] <= result["median"] <= result["max"]
        assert len(result["rounds"]) == 1
        assert ("accuracy" in result) == (name == "mlp")
    assert found["machine"]["flops"]["max"] > 0
    assert found["machine"]["threads"] == 1


def test_a_ratio_is_ours_over_theirs(results):
    each = results[1]["workloads"]["import"]
    ours, theirs = (each["results"][name]["rounds"][0] for name in ("layerwise", "numpy"))
    assert each["ratios"]["numpy"]["rounds"] == [pytest.approx(ours / theirs)]


def test_the_parts_of_a_step_make_up_the_step(results):
    for each in results[1]["where"].values():
        assert sum(each[part] for part in PARTS) == pytest.approx(each["step"])
        assert min(each["forward"], each["backward"], each["update"]) > 0


def test_growth_has_points_of_every_axis(results):
    assert set(results[1]["growth"]) == {"width", "depth", "batch"}
    for each in results[1]["growth"].values():
        (point,) = each["points"]
        assert set(point) == {"value", "seconds", "flops", "bytes", "parts"}
        assert min(point["parts"].values()) >= 0


def test_the_page_says_what_the_run_printed_and_shows_the_picture(results):
    folder, _, printed = results
    page = (folder / "speed.md").read_text()
    assert printed.strip() in page
    assert "(speed_growth.png)" in page
    assert (folder / "speed_growth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("theirs", "met"), [(10.0, True), (5.0, False)])
def test_a_floor_is_met_or_not_met(results, monkeypatch, tmp_path, theirs, met):
    monkeypatch.syspath_prepend(RUN.parent)
    run_py, pages = importlib.import_module("run"), importlib.import_module("pages")
    found = {"layerwise": [{"seconds": 1.0}, {"seconds": 1.2}], "torch": [{"seconds": theirs}] * 2}
    workload = run_py.WORKLOADS["xor"]._replace(floors={"torch": 0.15})
    each = run_py.summary(workload, found, results[1]["machine"])
    assert each["ratios"]["torch"]["met"] is met
    assert ("0.15: met" in pages.side_by_side(each)) is met
    result = results[1] | {"workloads": {"xor": each}}
    assert ("not met: xor against PyTorch" in pages.page(result, {})) is not met
    pages.draw(result, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").exists()


def test_an_unknown_name_is_refused(tmp_path):
    done = run(tmp_path, "mpl")
    assert done.returncode == 2
    assert "unknown: mpl. There are xor, mlp," in done.stderr


def test_bits_of_a_training_in_one_go_are_those_of_a_resumed_one(tmp_path):
    script, out = RUN.with_name("bits.py"), tmp_path / "bits.json"
    done = subprocess.run([sys.executable, "-W", "error", str(script), out], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    whole = {name: each for name, each in found.items() if name.endswith("in one go")}
    assert len(whole) == 24
    assert len({each["parameters"] for each in whole.values()}) == 24
    for name, each in whole.items():
        assert found[name.replace("in one go", "resumed")] == each, name
