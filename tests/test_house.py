"""The house: imports point one way, stay light, and a file of the user's beside the script harms nothing."""

import importlib
import json
import re
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
sys.path.insert(0, str(ROOT / "docs"))

import floors  # noqa: E402
from floors import FOUR, MODULES, floor, imports, known  # noqa: E402

# The place where a name that lies a floor higher is found when it is asked for.
LAZY = {"core.lazy": "find"}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    for imported, told, function in imports(name):
        if function is None:
            target = known(imported)
            assert target is not None, f"{name}: {told}"
            if name in FOUR[:3]:
                assert floor(target) < floor(name), f"{name}: {told}"
            assert floor(target) <= floor(name), f"{name}: {told}"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_of_ours_is_imported_within_a_function(name):
    """Nor by a string, but in the one place that finds what lies a floor higher."""
    assert [told for _, told, function in imports(name) if function not in (None, LAZY.get(name))] == []


@pytest.mark.parametrize("name", MODULES)
def test_no_module_of_ours_finds_another_by_a_bare_name(name):
    for imported, told, _ in imports(name):
        assert imported.startswith("layerwise"), f"{name}: {told}"


def test_the_picture_of_the_floors_is_that_of_the_imports():
    """`python docs/floors.py` draws it anew."""
    assert floors.PICTURE.read_text(encoding="utf-8") == floors.svg()


def test_what_the_architecture_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:layers|loss|optim|model|layerwise)\.[\w.]+)(?:\([^`]*\))?`", text)
    files = [name for name in names if name.endswith(".py")]
    assert len(names) > 15
    assert all((ROOT / name).is_file() for name in files)
    for name in {*names} - {*files}:
        members = name.split(".")
        last = next(k for k in range(len(members), 0, -1) if known(".".join(members[:k])))
        thing = importlib.import_module(".".join(members[:last]))
        for each in members[last:]:
            thing = getattr(thing, each)


def test_imports_make_no_circle():
    below = {name: {known(each) for each, _, function in imports(name) if function is None} for name in MODULES}
    while below:
        free = {name for name, targets in below.items() if not targets & below.keys()}
        assert free, f"a circle among {sorted(below)}"
        below = {name: targets for name, targets in below.items() if name not in free}


def test_one_object_has_one_home():
    assert layers.Model is model.Model
    assert layerwise.Model is model.Model
    assert layerwise.History is model.History
    for name, module in (("layers", layers), ("loss", loss), ("optim", optim), ("model", model)):
        assert getattr(layerwise, name) is module
        assert importlib.import_module(f"layerwise.{name}") is module
        assert sys.modules[name] is module


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("metrics", "training.metrics"),
        ("pictures", "compare.pictures"),
        ("report", "compare.report"),
        ("comparison", "compare.results"),  # this and the next are named by pickles
        ("sweepfile", "compare.sweepfile"),
    ],
)
def test_a_module_within_a_room_is_found_by_its_short_name_too(python, name, place):
    script = f"""
import layerwise
short = layerwise.{name}
import layerwise.{place}
from layerwise import {name}
assert short is {name} is layerwise.{place}, short
"""
    done = python(script)
    assert done.returncode == 0, done.stderr


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
        ours = {name for name in loaded if name.split(".")[0] in {"layerwise", *FOUR}}
        assert {name for name in ours - {module, "layerwise"} if not name.startswith("layerwise.core")} == set()


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


@pytest.fixture(params=["checkout", "installed"], scope="module")
def place(request, tmp_path_factory):
    """Where our modules are found."""
    if request.param == "checkout":
        return ROOT
    site = tmp_path_factory.mktemp("installation") / "site-packages"
    site.mkdir()
    for name in FOUR:
        shutil.copy(MODULES[name], site)
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
    for name in {name.split(".")[-1] for name in MODULES} - {*FOUR}:
        (folder / f"{name}.py").write_text(HOSTILE)
    done = python(USING_LAYERWISE, folder=folder, path=place)
    assert (done.stdout, done.stderr) == ("well 3\n", "")
