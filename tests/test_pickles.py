"""Pickles that an earlier version wrote, when all modules stood in one folder, load, and their trainings go on."""

import pickle

import make_pickles as made
import numpy as np
import pytest

HELD, COMPARISON, TABLE = pickle.loads((made.FOLDER / "flat.pickle").read_bytes())


@pytest.mark.parametrize("rule", made.RULES)
def test_a_training_goes_on_from_an_earlier_pickle_as_from_a_new_one(rule):
    """All but the rounding of the machine that wrote it."""
    pickled, history = HELD[rule]
    old, new = pickle.loads(pickled), made.net()
    first = made.train(new, optim=made.RULES[rule]())
    np.testing.assert_allclose(first["loss"], history["loss"], rtol=1e-4)
    assert old.optim.t == new.optim.t
    goes_on = [made.train(net)["loss"] for net in (old, pickle.loads(pickle.dumps(new)))]
    np.testing.assert_allclose(*goes_on, rtol=1e-3)


def test_a_comparison_of_an_earlier_pickle_shows_the_same_table():
    assert pickle.loads(COMPARISON).to_markdown() == TABLE
