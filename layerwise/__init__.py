"""layerwise: the four modules under a name of their own, and the wings around them.

`layerwise.layers is layers`, and so on, except where a file of that name beside the user's script hides ours:
then `layers` stays the user's, and ours is reached here alone. No module of ours finds another by a bare name.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

_ROOT = Path(__file__).resolve().parent.parent


def _is(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).resolve() == path


def _own(name: str) -> ModuleType:
    """Our module of that name: the one that `import name` gives, or, where another file hides it, its own."""
    full, path = f"{__name__}.{name}", _ROOT / f"{name}.py"
    if full in sys.modules:
        return sys.modules[full]
    module = sys.modules.get(name)
    if module is None:
        found = importlib.util.find_spec(name)
        if found is not None and _is(found.origin, path):
            module = importlib.import_module(name)
    if module is None or not _is(getattr(module, "__file__", None), path):
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    sys.modules[full] = module
    return module


if TYPE_CHECKING:
    import layers as layers
    import loss as loss
    import model as model
    import optim as optim
    from model import History as History
    from model import Model as Model
else:  # what imports nothing of ours comes first: model, which imports the three, finds them here
    loss = _own("loss")
    optim = _own("optim")
    layers = _own("layers")
    model = _own("model")


def __getattr__(name: str) -> Any:
    if name in ("Model", "History"):
        return getattr(model, name)
    raise AttributeError(f"module 'layerwise' has no attribute {name!r}")
