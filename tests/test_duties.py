"""What else a new layer, loss or rule brings beside its class, its row in the test's table and its golden values.

Each test names what is missing. The tables themselves are held in test_layers.py, test_losses.py and test_rules.py.
"""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise import export, gradcheck
from layerwise.core import habits

MODULES = pytest.mark.parametrize("module", [layers, loss, optim], ids=lambda module: module.__name__)
BASES = (layers.Layer, loss.Loss, optim.Optimizer)
ROOT = Path(__file__).resolve().parent.parent
LAYERS = {name: getattr(layers, name) for name in layers.__all__ if name != "Layer"}
ACTIVATIONS = {name: kind for name, kind in LAYERS.items() if issubclass(kind, layers.Nonlinearity)}

# Layers that stand around others or are a function of the user's: nobody else has them by name.
OWN = {"Chain", "Lambda", "Model", "Parallel", "Reshape", "Residual"}


def test_every_layer_says_what_pytorch_and_keras_call_it():
    """On its own class, `torch = keras = ""` where they have none: that of the class it derives from is another's."""
    missing = [
        f"{name}.{side}"
        for name, kind in LAYERS.items()
        for side in ("torch", "keras")
        if name not in OWN and not kind.training_only and side not in vars(kind)
    ]
    assert not missing


THEIRS = json.loads((ROOT / "tests" / "reference" / "counterparts.json").read_text(encoding="utf-8"))
SPELLED = {("torch", "BatchNorm"): "BatchNorm1d"}  # BatchNorm2d has the same arguments


def wrong(kind, side):
    """What is not there of the counterpart that a class declares: the name, arguments of theirs, attributes of ours."""
    name, given = habits.counterpart(vars(kind).get(side, ""))
    name = SPELLED.get((side, name), name)
    if name not in THEIRS[side]:
        return [f"{kind.__name__}.{side}: {side} has no {name}"] if name else []
    known, ours = THEIRS[side][name].split(), inspect.signature(kind).parameters
    said = [f"{name} has no argument {their}, but {known}" for their in given if their not in known]
    said += [f"{kind.__name__} has no {own}" for own in given.values() if own not in ours and not hasattr(kind, own)]
    return [f"{kind.__name__}.{side}: {each}" for each in said]


@pytest.mark.parametrize("side", ["torch", "keras"])
def test_every_counterpart_is_there(side):
    """Under that name, with those arguments. Ours stand on the right: `torch = "Hardtanh(min_val=low)"`."""
    assert sum(bool(vars(kind).get(side)) for kind in LAYERS.values()) > 30
    assert [each for kind in LAYERS.values() for each in wrong(kind, side)] == []


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("nn.Hardshrunk(lambd=low)", "torch has no nn.Hardshrunk"),
        ("Hardshrunk(lambd=low)", "torch has no Hardshrunk"),
        ("hardtanh(min_val=low)", "torch has no hardtanh"),
        ("Hardtanh(lambd=low)", "Hardtanh has no argument lambd, but "),
        ("Hardtanh(low=min_val)", "Hardtanh has no argument low, but "),
        ("Hardtanh(min_val=lowest)", "HardTanh has no lowest"),
    ],
)
def test_a_wrong_counterpart_is_seen(declared, said):
    planted = type("HardTanh", (layers.HardTanh,), {"torch": declared})
    assert wrong(planted, "torch")[0].startswith(f"HardTanh.torch: {said}")
    assert wrong(layers.HardTanh, "torch") == []


def test_every_layer_is_exported():
    """By `onnx = "HardSwish"` on its class where that is one operation of ONNX's, else by a function in EXPORTERS."""
    assert sorted(LAYERS.keys() - export.EXPORTERS.keys() - {"Lambda"}) == []


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_bends_where_it_says(name):
    """`kinks` are the places where its slope, or the slope of its slope, jumps."""
    layer, kinks = ACTIVATIONS[name](), ACTIVATIONS[name].kinks
    for kink in kinks:
        with pytest.raises(ValueError, match="kink"):
            gradcheck.gradcheck(layer.copy(), np.full((1, 1), kink, float))
    for place in {*np.arange(-8, 8.5, 0.5)} - {*kinks}:
        assert gradcheck.gradcheck(layer.copy(), np.full((1, 1), place)).error < 1e-6, f"a kink at {place:g}"


@MODULES
def test_every_class_is_in_all(module):
    """But for the bases that only others of the same file derive from."""
    bases = {"Elementwise", "Nonlinearity", "Norm"}
    kinds = {name: each for name, each in vars(module).items() if inspect.isclass(each) and name[0] != "_"}
    ours = {name for name, each in kinds.items() if issubclass(each, BASES)}
    assert sorted(ours - bases - set(module.__all__)) == [], f"write it into __all__ of {module.__name__}.py"


@MODULES
def test_the_head_of_a_module_lists_its_classes(module):
    """Under "In this file, in this order", and in the order of the file."""
    rows = module.__doc__.split("In this file, in this order:\n")[1].split("\n\n")[0]
    told = re.findall(r"\b[A-Z]\w*", re.sub(r"(?m)^  \S.*?  +|^\S.*", "", rows))  # without the titles of the rows
    kinds = {name: each for name, each in vars(module).items() if name in module.__all__ and inspect.isclass(each)}
    own = [name for name, each in kinds.items() if issubclass(each, BASES) and each.__module__ == module.__name__]
    assert len(own) > 10
    assert [name for name in own if name not in told] == [], f"write it into the head of {module.__name__}.py"
    assert [name for name in told if name not in module.__all__] == [], "the head names what is not there"
    assert [name for name in told if name in own] == own, "the head has another order than the file"


def test_every_loss_serves_a_stack_of_nets():
    """`stackable = True` on its class, once `forward` and `derivative` act on the last axes only."""
    alone = [name for name in loss.__all__ if name != "Loss" and not getattr(loss, name).stackable]
    assert alone == [], "write stackable = True into its class"


@MODULES
def test_the_manual_names_all_that_there_is(module):
    """In the README or in docs/, once: a layer or a loss in equals.md; a rule's row in optimizers.md is enough."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", text))))
    classes = {name for name in module.__all__ if inspect.isclass(getattr(module, name))}
    public = {name for name in classes if issubclass(getattr(module, name), BASES)}
    missing = sorted(public - told - {"Wrapper"})
    assert missing == [], "write each into docs/equals.md, or if it is a rule, its row into docs/optimizers.md"
