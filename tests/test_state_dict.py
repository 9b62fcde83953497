"""net.state_dict and net.load_state_dict: by the names of the saved file, and all or nothing."""

import numpy as np
import pytest

import layers
import model
import optim
from layerwise.core import files


def make(seed=0, dtype="float32", units=3):
    members = [
        layers.Linear(4),
        layers.BatchNorm(),
        layers.Parallel([layers.Linear(2), [layers.Tanh(), layers.PReLU()]]),
        layers.Model([layers.Linear(units, bias=False)]),
    ]
    return layers.Model(members, seed, dtype).build((5,))


def test_the_names_are_those_of_the_file(tmp_path):
    net = make()
    net.save(tmp_path / "net.npz")
    _, stored = files.read(tmp_path / "net.npz")
    state = net.state_dict()
    assert list(state) == list(stored)
    assert set(state) == {
        "layers.0.w", "layers.0.b", "layers.1.w", "layers.1.b", "layers.1.running_mean", "layers.1.running_variance",
        "layers.2.branches.0.layers.0.w", "layers.2.branches.0.layers.0.b", "layers.2.branches.1.layers.1.w",
        "layers.3.layers.0.w",
    }  # fmt: skip
    for name, array in state.items():
        np.testing.assert_array_equal(array, stored[name], strict=True)


def test_a_state_is_a_copy_and_comes_back_bit_by_bit(snapshot):
    net, other = make(0), make(1)
    net[1].buffers["running_mean"][...] = [1, 2, 3, 4]
    state = net.state_dict()
    x = np.random.default_rng(0).normal(size=(6, 5))
    y = net.predict(x)
    net.train(x, y[:, :3] + 1, optim.SGD(0.1), epochs=1, verbose=False)
    assert not np.array_equal(net.predict(x), y)
    found = other.load_state_dict(state)
    assert found == ([], [])
    assert other.predict(x).tobytes() == y.tobytes()
    assert np.shares_memory(other[0].w, other.vector)
    net.load_state_dict(state)
    assert net.predict(x).tobytes() == y.tobytes()


def test_other_dtypes_and_lists_are_converted_and_frozen_layers_loaded():
    net, wide = make(0), make(1, "float64")
    wide.frozen = True
    wide.load_state_dict({name: array.tolist() for name, array in net.state_dict().items()})
    for name, array in wide.state_dict().items():
        np.testing.assert_array_equal(array, net.state_dict()[name].astype(np.float64), strict=True)


def test_a_net_within_a_net_has_names_of_its_own():
    net, inner = make(), layers.Model([layers.Linear(3, bias=False)], seed=9).build((6,))
    assert list(net[3].state_dict()) == ["layers.0.w"]
    net[3].load_state_dict(inner.state_dict())
    np.testing.assert_array_equal(net.state_dict()["layers.3.layers.0.w"], inner[0].w)


def test_a_stack_has_the_arrays_of_all_its_copies():
    stack = layers.Model([layers.Linear(3), layers.Linear(2)], seed=0, copies=4).build((5,))
    state = stack.state_dict()
    assert state["layers.0.w"].shape == (4, 5, 3)
    other = layers.Model([layers.Linear(3), layers.Linear(2)], seed=10, copies=4).build((5,))
    other.stopped = np.array([True, False, False, False])
    other.load_state_dict(state)
    assert other.stopped is None
    for s in range(4):
        np.testing.assert_array_equal(other.copy(s).vector, stack.copy(s).vector)
    single = layers.Model([layers.Linear(3), layers.Linear(2)]).build((5,))
    with pytest.raises(ValueError, match=r"layers\.0\.w is float32 \(4, 5, 3\), expected float32 \(5, 3\)"):
        single.load_state_dict(state)


def test_of_a_stack_copies_that_diverged_come_back_too():
    stack = layers.Model([layers.Linear(3)], seed=0, copies=2).build((5,))
    state = stack.state_dict()
    with pytest.raises(ValueError, match="not finite in float32"):
        stack.load_state_dict(state | {"layers.0.b": np.full((2, 3), 1e39)})
    state["layers.0.b"][1] = np.inf
    stack.load_state_dict(state)
    np.testing.assert_array_equal(stack[0].b, state["layers.0.b"])


def without(name):
    return lambda state: state.pop(name)


CHANGES = [
    (without("layers.0.b"), r"missing are \['layers\.0\.b'\].*strict=False"),
    (lambda state: state.update(more=np.ones(2)), r"unexpected are \['more'\].*strict=False"),
    (lambda state: state.update({"layers.0.w": np.ones((5, 9))}), r"layers\.0\.w is .* \(5, 9\), expected .*\(5, 4\)"),
    (lambda state: state.update({"layers.0.b": np.array(list("abcd"))}), r"layers\.0\.b is <U1 \(4,\)"),
    (lambda state: state.update({"layers.0.b": np.full(4, 1e39)}), r"layers\.0\.b holds what is not finite in float32"),
    (lambda state: state["layers.1.running_mean"].fill(np.nan), r"layers\.1\.running_mean holds what is not finite"),
    (lambda state: state.update({"layers.0.b": np.ones(4) * 1j}), r"layers\.0\.b is complex128"),
    (
        lambda state: (state.pop("layers.0.b"), state.update(more=1, **{"layers.1.b": [1.0]})),
        r"missing are \['layers\.0\.b'\]; unexpected are \['more'\]; layers\.1\.b is float64 \(1,\)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_does_not_fit_is_named_in_one_error_and_nothing_moves(snapshot, change, message):
    net, state = make(0), make(1).state_dict()
    change(state)
    before = snapshot(net)
    with pytest.raises(ValueError, match=message):
        net.load_state_dict(state)
    assert snapshot(net) == before


def test_without_strict_what_fits_by_name_is_loaded_and_the_rest_told(snapshot):
    net, state = make(0), make(1).state_dict()
    kept = net[0].b.copy()
    del state["layers.0.b"]
    found = net.load_state_dict(state | {"more": np.ones(2)}, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["layers.0.b"], ["more"])
    np.testing.assert_array_equal(net[0].w, state["layers.0.w"])
    np.testing.assert_array_equal(net[0].b, kept)
    before = snapshot(net)
    with pytest.raises(ValueError, match=r"layers\.0\.w is .*\(5, 9\)"):
        net.load_state_dict(state | {"layers.0.w": np.ones((5, 9))}, strict=False)
    assert snapshot(net) == before


def test_a_net_that_is_not_built_says_how():
    net = layers.Model([layers.Linear(2)])
    for ask in (net.state_dict, lambda: net.load_state_dict({})):
        with pytest.raises(ValueError, match=r"build\(\(784,\)\)"):
            ask()
    with pytest.raises(TypeError, match=r"state is a dict.*got Model"):
        make().load_state_dict(make())


def test_what_load_gives_is_announced():
    assert isinstance(make().load_state_dict({}, strict=False), model.LoadedState)
