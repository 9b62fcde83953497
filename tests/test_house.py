"""The house: imports point one way, stay light, and a file of the user's beside the script harms nothing."""

import ast
import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

import layers
import layerwise
import loss
import model
import optim

ROOT = Path(__file__).resolve().parent.parent
FOUR = ["layers", "loss", "optim", "model"]
WINGS = sorted(path.stem for path in (ROOT / "layerwise").glob("*.py") if path.stem != "__init__")
OURS = {*FOUR, "layerwise"}

# Which of ours each module may import; every other wing may import the four and the other wings.
ALLOWED: dict[str, set[str]] = {
    "threads": set(),
    "interrupts": set(),
    "layers": {"threads", "batches", "habits"},
    "loss": {"habits"},
    "optim": {"threads", "habits"},
    "schedules": set(),
    "metrics": set(),
    "files": {"threads"},
    "fingerprint": set(),
    "batches": set(),
    "habits": set(),
    "display": set(),
    "checkpoint": {"files", "layers", "loss", "optim", "schedules"},
    "training": {"batches", "checkpoint", "files", "interrupts", "loss", "metrics", "threads"},
    "architecture": {"files", "layers"},
    "datasets": {"files"},
    "model": {
        "layers",
        "loss",
        "optim",
        "architecture",
        "batches",
        "checkpoint",
        "display",
        "files",
        "habits",
        "interrupts",
        "metrics",
        "training",
    },
}


def source(name):
    return ROOT / f"{name}.py" if name in FOUR else ROOT / "layerwise" / f"{name}.py"


def imports(name):
    """(what is imported of ours, written how, whether within a function) of a module's source; not what type checkers
    alone import."""
    tree = ast.parse(source(name).read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if ast.unparse(node).split("\n")[0] != "if TYPE_CHECKING:"]
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in OURS:
                    yield alias.name.split(".")[-1], f"import {alias.name}", id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            whence = node.module or ""
            if node.level or whence.split(".")[0] in OURS:
                told = f"from {'.' * node.level}{whence} import ..."
                names = [whence.split(".")[-1]] if whence != "layerwise" else [alias.name for alias in node.names]
                for each in names:
                    yield each, told, id(node) in inside


def test_the_wings_are_found():
    assert {"batches", "callbacks", "datasets", "files", "metrics"} <= set(WINGS)


@pytest.mark.parametrize("name", FOUR + WINGS)
def test_imports_point_one_way(name):
    allowed = ALLOWED.get(name, {*FOUR, *WINGS} - {name})
    for imported, told, _ in imports(name):
        assert imported in allowed, f"{name}.py: {told} ({imported})"


@pytest.mark.parametrize("name", FOUR + WINGS)
def test_no_module_of_ours_finds_another_by_a_bare_name(name):
    for imported, told, _ in imports(name):
        assert told.startswith(("from layerwise import", "from layerwise.", "import layerwise.")), f"{name}.py: {told}"
        assert imported != "layerwise"


@pytest.mark.parametrize("name", FOUR + WINGS)
def test_no_module_of_ours_is_imported_within_a_function(name):
    assert [told for _, told, inside in imports(name) if inside] == []


def test_one_object_has_one_home():
    assert layers.Model is model.Model
    assert layerwise.Model is model.Model
    assert layerwise.History is model.History
    for name, module in (("layers", layers), ("loss", loss), ("optim", optim), ("model", model)):
        assert getattr(layerwise, name) is module
        assert importlib.import_module(f"layerwise.{name}") is module
        assert sys.modules[name] is module


@pytest.mark.parametrize("module", [layers, layerwise])
def test_a_name_that_is_not_there_is_said_to_be_missing(module):
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        module.Nothing  # noqa: B018


@pytest.mark.parametrize("module", [layers, loss, optim, model], ids=FOUR)
def test_what_a_module_announces_is_there(module):
    for name in module.__all__:
        assert getattr(module, name) is not None


IMPORTED = """
import sys, json
import {module}
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("module", FOUR)
def test_an_import_brings_nothing_heavy(python, module):
    done = python(IMPORTED.format(module=module))
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    optional = {"tqdm", "sklearn", "scipy", "matplotlib", "safetensors", "joblib", "torch", "pandas", "onnx"}
    optional |= {"onnxruntime", "mpi4py", "tensorboardX", "threadpoolctl", "keras", "hypothesis"}
    assert not loaded & optional
    if module != "model":
        assert "layerwise" not in loaded
        assert not loaded & (set(FOUR) - {module})


def test_tqdm_comes_with_the_first_bar(python):
    script = """
import sys
import numpy as np
import layers, optim, loss

net = layers.Model([layers.Linear(2)])
net.train(np.eye(2), np.eye(2), optim=optim.SGD(), loss=loss.MSE(), verbose=False)
print("tqdm" in sys.modules)
net.train(np.eye(2), np.eye(2))
print("tqdm" in sys.modules)
"""
    assert python(script).stdout.split() == ["False", "True"]


# A file of the user's own beside the script ---------------------------------------------------------------------
#
# pip puts the modules into site-packages, or, for an editable installation, a path to the checkout; both stand
# after the script's folder on the path, as PYTHONPATH does. So an installation is a copy of the modules in a
# folder on PYTHONPATH, and needs no network.

HOSTILE = 'raise SystemExit("a file of the user\'s was imported")\n'
HARMLESS = "value = 42  # the user's own\n"

USING_LAYERWISE = """
import numpy as np
import layerwise
from layerwise import layers, loss, optim, model
from layerwise.callbacks import EarlyStopping

x = np.array([[0, 1], [0, 0], [1, 1], [1, 0]])
net = layerwise.Model([layers.Linear(4), layers.Tanh(), layers.Linear(2), layers.Softmax()], seed=0)
history = net.train(x, [1, 0, 0, 1], optim=optim.Adam(), loss=loss.CrossEntropy(), epochs=3,
                    callbacks=EarlyStopping("loss"), verbose=False)
net.save("net.npz")
assert np.array_equal(model.load("net.npz").predict(x), net.predict(x))
assert layers.Model is layerwise.Model is model.Model
assert all(hasattr(module, "__all__") for module in (layers, loss, optim, model))
print("well", history.epochs)
"""

USING_BARE_NAMES = """
import numpy as np
{imports}

x = np.array([[0, 1], [0, 0], [1, 1], [1, 0]])
net = layers.Model([layers.Linear(4), layers.Tanh(), layers.Linear(2), layers.Softmax()], seed=0)
history = net.train(x, [1, 0, 0, 1], epochs=3, verbose=False)
net.save("net.npz")
print("well", history.epochs)
"""


@pytest.fixture(params=["checkout", "installed"])
def place(request, tmp_path):
    """Where our modules are found."""
    if request.param == "checkout":
        return ROOT
    site = tmp_path / "site-packages"
    site.mkdir()
    for name in FOUR:
        shutil.copy(source(name), site)
    shutil.copytree(ROOT / "layerwise", site / "layerwise", ignore=shutil.ignore_patterns("__pycache__"))
    return site


@pytest.fixture
def folder(tmp_path):
    """The user's."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("hidden", [[name] for name in FOUR] + [FOUR], ids="+".join)
def test_layerwise_works_beside_hostile_files(python, place, folder, hidden):
    for name in hidden:
        (folder / f"{name}.py").write_text(HOSTILE)
    done = python(USING_LAYERWISE, folder=folder, path=place)
    assert (done.stdout, done.stderr) == ("well 3\n", "")


@pytest.mark.parametrize("hidden", [name for name in FOUR if name != "layers"])
def test_layers_works_beside_a_hostile_file(python, place, folder, hidden):
    """A script that says `import layers` never loads the user's file of another name."""
    (folder / f"{hidden}.py").write_text(HOSTILE)
    done = python(USING_BARE_NAMES.format(imports="import layers"), folder=folder, path=place)
    assert (done.stdout, done.stderr) == ("well 3\n", "")


@pytest.mark.parametrize("hidden", [name for name in FOUR if name != "layers"])
@pytest.mark.parametrize("first", [True, False])
def test_a_module_of_the_users_stays_the_users(python, place, folder, hidden, first):
    (folder / f"{hidden}.py").write_text(HARMLESS)
    lines = [f"import {hidden}", "import layers"]
    script = USING_BARE_NAMES.format(imports="\n".join(lines if first else lines[::-1]))
    done = python(script + f"\nprint({hidden}.value)\n", folder=folder, path=place)
    assert (done.stdout, done.stderr) == ("well 3\n42\n", "")


def test_the_users_package_of_a_name_of_a_wing_is_not_ours(python, place, folder):
    """A folder or file called files, batches or metrics hides nothing."""
    for name in WINGS:
        (folder / f"{name}.py").write_text(HOSTILE)
    done = python(USING_LAYERWISE, folder=folder, path=place)
    assert (done.stdout, done.stderr) == ("well 3\n", "")
