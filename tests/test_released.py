"""The files of every released version load, predict what they predicted, and their trainings go on."""

import shutil

import make_files as made
import numpy as np
import pytest

import layers
import model

PATHS = sorted(path for path in made.FOLDER.iterdir() if not path.stem.endswith(".told"))


def told_of(path):
    with np.load(made.FOLDER / f"{path.stem}.told.npz") as file:
        return dict(file)


def test_the_first_version_is_there_in_both_formats():
    assert {"0.1.0.npz", "0.1.0.safetensors"} <= {path.name for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_released_file_loads_bit_by_bit_and_predicts_the_same(path):
    told = told_of(path)
    net = model.load(path)
    arrays = {
        f"{leaf.path}.{name}": a for leaf in net.leaf_layers() for name, a in (leaf.parameters | leaf.buffers).items()
    }
    assert arrays.keys() == told.keys() - {"x", "y", "predicted", "losses"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, told[name], strict=True, err_msg=name)
    assert [type(leaf).__name__ for leaf in net.leaf_layers()] == [
        type(leaf).__name__ for leaf in made.net().leaf_layers()
    ]
    np.testing.assert_allclose(net.predict(told["x"]), told["predicted"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_training_goes_on_from_a_released_file(path, tmp_path):
    told, net = told_of(path), made.net()
    here = shutil.copy(path, tmp_path)
    losses = made.train(net, here, 3, resume=here)["loss"]
    np.testing.assert_allclose(losses, told["losses"], rtol=1e-4)
    assert (net.optim.t, net.layers[1].frozen) == (9, False)
    assert isinstance(net[0], layers.Conv2D)
