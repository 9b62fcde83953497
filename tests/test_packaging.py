"""What is given to others: the wheel holds the modules and nothing else, the sdist what is in the repository."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ONLY_HERE = {".gitignore", ".ci/run"}  # of use in a clone alone
OF_THE_BUILD = {"PKG-INFO", "setup.cfg"}

# The hooks that pip and `python -m build` call, in the environment of the tests: no network, two seconds.
BUILD = """
from setuptools import build_meta
print(build_meta.build_wheel("dist"))
print(build_meta.build_sdist("dist"))
"""


@pytest.fixture(scope="module")
def repository():
    """The files that git has, by name."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a clone: " + done.stderr.strip())
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def built(repository, tmp_path_factory):
    """(the names in the wheel, the names in the sdist), from a copy of what git has."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("packaging")
    for name in repository:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        in_wheel = set(file.namelist())
    with tarfile.open(sdist) as file:
        in_sdist = {member.name.split("/", 1)[1] for member in file if member.isfile()}
    return in_wheel, in_sdist


def test_the_wheel_holds_the_four_modules_and_the_package(built, repository):
    code = {name for name in built[0] if ".dist-info/" not in name}
    package = {name for name in repository if name.startswith("layerwise/")}
    assert "layerwise/py.typed" in package
    assert code == {"layers.py", "loss.py", "optim.py", "model.py", *package}
    assert {name.split("/", 1)[1] for name in built[0] - code} >= {"METADATA", "licenses/LICENSE"}


def test_the_sdist_holds_the_repository(built, repository):
    created = {name for name in built[1] if name in OF_THE_BUILD or name.startswith("layerwise.egg-info/")}
    assert built[1] - created == repository - ONLY_HERE
