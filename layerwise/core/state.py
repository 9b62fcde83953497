"""The state of an optimizer: allocated, saved, restored, and checked when it comes from a file."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from layerwise.core.blocks import Block, copy_all

Array = np.ndarray
# Attributes in pickles of earlier versions -> their names today.
FORMERLY = {
    "_served": "_model", "_given": "_step_cache", "_pieces": "_blocks", "_over": "_parallel_for", "_parts": "_groups",
}  # fmt: skip

Arrays = list[dict[str, Array]]  # name -> state array, of each vector or of each parameter


def allocate(optimizer: Any, parameters: list[Array]) -> Arrays:
    """New state for these parameters: zeros, then initialised by `start`."""
    state = [zeros(optimizer.shapes(w.shape), w.dtype) for w in parameters]
    for w, each in zip(parameters, state, strict=True):
        if optimizer.start(w, **each) is not None:
            raise TypeError(
                f"{type(optimizer).__name__}.start returns a value: it fills the state in place, as s[...] = w does, "
                f"and returns nothing."
            )
    return state


def fit_state(optimizer: Any, parameters: list[Array]) -> None:
    """Check that the state is one for these parameters, and convert what was loaded to their dtypes."""
    found, needed = shapes_of(optimizer._state), [optimizer.shapes(w.shape) for w in parameters]
    if found != needed and not optimizer.reevaluate:
        raise ValueError(f"the state of this {type(optimizer).__name__} is for {found}, the parameters need {needed}.")
    for w, each in zip(parameters, optimizer._state, strict=True):
        each.update({name: array.astype(w.dtype, copy=False) for name, array in each.items()})


def zeros(shapes: dict[str, tuple[int, ...]], dtype: np.dtype) -> dict[str, Array]:
    """State arrays of zeros. If all have one shape they are views of one array, which a snapshot copies at once."""
    if len(set(shapes.values())) != 1:
        return {name: np.zeros(shape, dtype) for name, shape in shapes.items()}
    return dict(zip(shapes, np.zeros((len(shapes), *next(iter(shapes.values()))), dtype), strict=True))


def shapes_of(state: Arrays) -> list[dict[str, tuple[int, ...]]]:
    return [{name: array.shape for name, array in each.items()} for each in state]


def take_snapshot(optimizer: Any, into: Any = None) -> Any:
    """A snapshot of the state; written over an earlier snapshot, if one is given."""
    state = optimizer._state
    if into is None or into[2] is not state:
        live: list[Any] = [a if a.base is None else a.base for each in state for a in each.values()]
        pairs = [(np.empty_like(array), array) for array in {id(each): each for each in live}.values()]
    else:
        pairs = into[3]
    for kept, array in pairs:
        kept[...] = array  # np.copyto takes three times as long on small arrays
    return optimizer.t, optimizer.scalars.copy(), state, pairs


def put_back(optimizer: Any, snapshot: Any) -> None:
    """Back to the state of a snapshot of this instance."""
    optimizer.t, scalars, state, pairs = snapshot
    if state is not optimizer._state:
        optimizer._layout = None  # the blocks are views of other arrays
    optimizer.scalars, optimizer._state = scalars.copy(), state
    for kept, live in pairs:
        np.copyto(live, kept)


def describe(optimizer: Any) -> dict[str, Any]:
    """The result of `state_dict`."""
    return {
        "rule": type(optimizer).__name__,
        "t": optimizer.t,
        "hyper": {name: value for name, value in optimizer.hyper.items() if not callable(value)},
        "scalars": dict(optimizer.scalars),
        "state": [{name: array.copy() for name, array in each.items()} for each in optimizer._state],
        "training_weights": copy.deepcopy(optimizer._training_weights),
    }


def read_state(optimizer: Any, state: Any) -> tuple[Arrays, dict[str, Any]]:
    """(the arrays, the hyper-parameters) of a `state_dict`; ValueError if it does not fit this optimizer."""
    refused = f"this is not the state of {optimizer!r}"
    if not isinstance(state, dict) or set(state) != set(optimizer.state_dict()):
        raise ValueError(f"{refused}: take what its state_dict() gives.")
    if state["rule"] != type(optimizer).__name__:
        raise ValueError(f"{refused}, but of {state['rule']!r}.")
    if not is_sound(state):
        raise ValueError(f"{refused}: it holds what is no number and no array of numbers.")
    arrays = [{name: np.array(array) for name, array in each.items()} for each in state["state"]]
    if not set(state["hyper"]) <= set(optimizer.hyper) or set(state["scalars"]) != set(optimizer.scalars):
        raise ValueError(f"{refused}: its hyper-parameters are {sorted(state['hyper'])}.")
    if optimizer._state and arrays:
        found, expected = shapes_of(arrays), shapes_of(optimizer._state)
        if found != expected and not optimizer.reevaluate:
            raise ValueError(f"this state does not fit the parameters: it has {found}, expected {expected}.")
    elif not (optimizer.reevaluate or optimizer._by_shape()) and any(set(e) != set(optimizer.state) for e in arrays):
        raise ValueError(f"{refused}: it holds {[sorted(each) for each in arrays]}.")
    if not optimizer._can_take(arrays, state["scalars"]):
        raise ValueError(f"{refused}: its arrays do not go together.")
    hyper = {name: optimizer._validated(name, value) for name, value in state["hyper"].items()}
    if any(optimizer._changes_state(name, value) for name, value in hyper.items()):
        raise ValueError(f"{refused}: its hyper-parameters are {hyper}.")
    return arrays, hyper


def load_state(optimizer: Any, state: Any) -> None:
    """Go on from a `state_dict`. ValueError, and nothing changes, if it does not fit."""
    arrays, hyper = read_state(optimizer, state)
    optimizer.t = int(state["t"])
    optimizer.hyper.update({name: value for name, value in hyper.items() if not callable(optimizer.hyper[name])})
    optimizer.scalars = dict(state["scalars"])
    optimizer._training_weights = copy.deepcopy(state["training_weights"])
    # The next step makes the blocks anew, from these arrays.
    optimizer._state, optimizer._layout, optimizer._model = arrays, None, None


@contextlib.contextmanager
def all_or_nothing(optimizers: list[Any]) -> Iterator[None]:
    """If a state is refused within this context, these optimizers go back to the states that they had before."""
    before = [each.state_dict() for each in optimizers]
    try:
        yield
    except ValueError:
        for each, state in zip(optimizers, before, strict=True):
            each.load_state_dict(state)
        raise


def is_sound(state: dict[str, Any]) -> Any:
    """True if each entry of a state has the type that `state_dict` gives it. A file may hold anything."""
    t, arrays, shown = state["t"], state["state"], state["training_weights"]
    return (
        isinstance(t, (int, np.integer))
        and 0 <= t < 2**63
        and all(isinstance(state[name], dict) for name in ("hyper", "scalars"))
        and all(np.ndim(each) == 0 and np.asarray(each).dtype.kind in "fiu" for each in state["scalars"].values())
        and isinstance(arrays, (list, tuple))
        and all(isinstance(each, dict) for each in arrays)
        and all(np.asarray(array).dtype.kind in "fiu" for each in arrays for array in each.values())
        and (shown is None or isinstance(shown, (list, tuple)))
        and all(isinstance(array, np.ndarray) and array.dtype.kind == "f" for array in shown or ())
    )


# Evaluation weights: those to evaluate with, if they differ from the training weights ---------------------------------


def find_evaluation_weights(optimizer: Any) -> list[Array] | None:
    """Copies of the evaluation weights, one for each segment."""
    layout = optimizer._layout
    found = [optimizer.evaluation(w, **each) for (w, _), each in zip(layout.vectors, optimizer._state, strict=True)]
    return [each[..., span].copy() for k, span in layout.segments if (each := found[k]) is not None] or None


def weights_to_show(optimizer: Any, net: Any) -> list[Array] | None:
    """The evaluation weights after the rest of an Accumulate is applied. The optimizer itself keeps that rest."""
    if not optimizer._has_rest():
        return optimizer._evaluation_weights()
    before, live = optimizer.snapshot(), [*net.layout.weights, *net.layout.gradients]
    kept = [array.copy() for array in live]
    try:
        with np.errstate(all="ignore"):
            optimizer._apply_rest(net)
        return optimizer._evaluation_weights() or [w.copy() for w in net.layout.weights]
    finally:
        optimizer.restore(before)
        copy_all(live, kept)


def show_evaluation_weights(optimizer: Any, net: Any) -> None:
    """Put the evaluation weights into the net, and keep the training weights."""
    shown = weights_to_show(optimizer, net)
    if shown is not None and optimizer._training_weights is None:
        optimizer._training_weights = [w.copy() for w, _ in net.layout.vectors]
        copy_all(net.layout.weights, shown)


def show_training_weights(optimizer: Any, net: Any) -> None:
    """Put the training weights back, unless the weights were changed since."""
    kept, optimizer._training_weights = optimizer._training_weights, None
    if kept is None:
        return
    weights = net.layout.weights
    now = [w.copy() for w in weights]
    copy_all(weights, (kept[k][..., span] for k, span in net.layout.segments))
    shown = weights_to_show(optimizer, net)  # the net showed these, unless somebody changed it
    if shown is None or not all(map(np.array_equal, now, shown)):
        copy_all(weights, now)


@contextlib.contextmanager
def evaluation_weights(optimizer: Any, net: Any) -> Iterator[None]:
    """The net shows the evaluation weights within this context."""
    optimizer._build(net)
    shown = None if optimizer._training_weights is not None else weights_to_show(optimizer, net)
    if shown is None:
        yield
        return
    weights = net.layout.weights
    kept = [w.copy() for w in weights]
    try:
        copy_all(weights, shown)
        yield
    finally:
        copy_all(weights, kept)


# The base of an optimizer's state ----------------------------------------------------------------------------------


class Stateful:
    """The state of an optimizer, and what it serves. Copies and pickles carry the state, not the net."""

    t: int  # steps taken
    scalars: dict[str, float]
    _state: Arrays  # of each vector, or with whole_parameters of each parameter
    _blocks: list[Block]
    _gradients: list[Array]
    _training_weights: list[Array] | None  # of each vector, while the net shows the evaluation weights
    _model: Any = None  # the net, or the shapes and dtypes of a list of arrays
    _layout: Any = None  # what the blocks were made for
    _step_cache: Any = None  # the list of arrays that `step` was given last
    _numbers: Any = None  # how the rule gets its numbers
    _parallel_for: Any = None  # what runs the rule over many blocks in threads, where there is enough to do
    _still_steps = 0  # of a user's rule: how many steps have moved nothing
    _known = False  # and whether it was watched for long enough

    def _forget(self) -> None:
        """No step, no state, no net."""
        self.t = 0
        self.scalars = dict(type(self).scalars)
        self._model = self._layout = self._training_weights = None
        self._state, self._blocks, self._gradients = [], [], []

    def _init_state(self, parameters: list[Array]) -> None:
        """Make the state of these parameters, or check what was loaded or is there already."""
        if self._state:
            fit_state(self, parameters)
        else:
            self._state = allocate(self, parameters)

    def _by_shape(self) -> bool:
        """True if the names of the state depend on the shape of a parameter."""
        return type(self).shapes is not self._root.shapes  # type: ignore[attr-defined]

    def _can_take(self, arrays: Arrays, scalars: dict[str, float]) -> bool:
        """True if loaded arrays go together. A rule writes this if the shapes of its state are not fixed."""
        return True

    def _has_evaluation_weights(self) -> bool:
        return type(self).evaluation is not self._root.evaluation  # type: ignore[attr-defined]

    def _evaluation_weights(self) -> list[Array] | None:
        """The evaluation weights of all segments; None if they are the training weights."""
        built = self.t and self._layout is not None
        return find_evaluation_weights(self) if built and self._has_evaluation_weights() else None

    def _has_rest(self) -> bool:
        """True if an Accumulate, this one or within, has gradients that it has not applied yet."""
        return False

    def _apply_rest(self, net: Any) -> None:
        """Make the step of those gradients."""

    def __getstate__(self) -> dict[str, Any]:
        forgotten = ("_model", "_layout", "_step_cache", "_parallel_for", "_numbers")
        state = self.__dict__ | dict.fromkeys(forgotten) | {"_blocks": [], "_gradients": []}
        state.pop("_apply", None)  # that of a watched rule
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({FORMERLY.get(name, name): value for name, value in state.items()})
        self._state = owned(self._state)
        self._show()  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = memo[id(self)] = object.__new__(type(self))
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return other


def owned(state: Arrays) -> Arrays:
    """The arrays, copied if they do not own their memory. joblib gives memory maps: a step would fail on one that is
    read-only, or change its file."""
    return [{name: _owned(array) for name, array in each.items()} for each in state]


def _owned(array: Array) -> Array:
    return array if array.flags.owndata and array.flags.writeable else np.array(array)
