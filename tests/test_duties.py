"""What else a new layer, loss or rule brings beside its class, its row in the test's table and its golden values.

Each test names what is missing. The tables themselves are held in test_layers.py, test_losses.py and test_rules.py.
"""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise import export, gradcheck

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


@pytest.mark.parametrize("module", [layers, loss, optim], ids=lambda module: module.__name__)
def test_every_class_is_in_all(module):
    """But for the bases that only others of the same file derive from."""
    bases = {"Elementwise", "Nonlinearity", "Norm"}
    kinds = {name: each for name, each in vars(module).items() if inspect.isclass(each) and name[0] != "_"}
    ours = {name for name, each in kinds.items() if issubclass(each, (layers.Layer, loss.Loss, optim.Optimizer))}
    assert sorted(ours - bases - set(module.__all__)) == []


def test_every_loss_serves_a_stack_of_nets():
    """`stackable = True` on its class, once `forward` and `derivative` act on the last axes only."""
    assert [name for name in loss.__all__ if name != "Loss" and not getattr(loss, name).stackable] == []


@pytest.mark.parametrize("module", [layers, loss, optim], ids=lambda module: module.__name__)
def test_the_manual_names_all_that_there_is(module):
    """In the README or in docs/."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", text))))
    bases = (layers.Layer, loss.Loss, optim.Optimizer)
    classes = {name for name in module.__all__ if inspect.isclass(getattr(module, name))}
    public = {name for name in classes if issubclass(getattr(module, name), bases)}
    assert sorted(public - told - {"Wrapper"}) == []
