"""layerwise: the four modules under a name of their own, and the rooms around them, imported when they are used.

`layerwise.layers is layers`, and so on, except where a file of that name beside the user's script hides ours:
then `layers` stays the user's, and ours is reached here alone. No module of ours finds another by a bare name.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import layers as layers
    import loss as loss
    import model as model
    import optim as optim
    from model import History as History, Model as Model

_ROOT = Path(__file__).resolve().parent.parent
_FOUR = ("layers", "loss", "optim", "model")

# Modules that are also found by a shorter name; the last two name what files of pickles call by its former place.
_ALSO = {
    "metrics": "training.metrics",
    "pictures": "compare.pictures",
    "report": "compare.report",
    "comparison": "compare.results",
    "sweepfile": "compare.sweepfile",
}


def _is_ours(name: str) -> bool:
    """Whether `import name` gives our module of that name, not another that hides it."""
    path = _ROOT / f"{name}.py"
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        file = spec and spec.origin
    return file is not None and Path(file).resolve() == path


class _Finder:
    """Finds `layerwise.layers`, ..., which have no file in this folder, and the names in `_ALSO`."""

    @classmethod
    def find_spec(cls, full: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, name = full.rpartition(".")
        if package != __name__ or name not in (*_FOUR, *_ALSO):
            return None
        if name in _FOUR and not _is_ours(name):
            return importlib.util.spec_from_file_location(full, _ROOT / f"{name}.py")
        return ModuleSpec(full, cls)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """As usual: an empty module, which exec_module replaces."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        name = module.__name__.rpartition(".")[2]
        place = name if name in _FOUR else f"{__name__}.{_ALSO[name]}"
        sys.modules[module.__name__] = importlib.import_module(place)


sys.meta_path.append(_Finder)


def __getattr__(name: str) -> Any:
    if name in ("Model", "History"):
        return getattr(importlib.import_module(f"{__name__}.model"), name)
    if name in _FOUR or name in _ALSO or name == "schedules":
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
