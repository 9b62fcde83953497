"""What several test files share."""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# Each worker of pytest-xdist has one core, so BLAS gets one thread. The workers and what they start inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests start hundreds of processes that import the package: without bytecode each would compile it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Temporary files stay in memory where it has room: thousands of checkpoints are written, and each waits for the disk.
MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2**31:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

# A test run that was started in the background, where Ctrl-C is ignored, is to see Ctrl-C all the same.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def _generator(rng):
    return None if rng is None else str(rng.bit_generator.state)


def _bits(value):
    """`value` with every array as its bytes, so that == is exact."""
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.name, value.tobytes()
    if isinstance(value, dict):
        return {name: _bits(each) for name, each in value.items()}
    return [_bits(each) for each in value] if isinstance(value, (list, tuple)) else value


def snapshot(net=None, optimizer=None):
    """Everything that a net and an optimizer are, bit by bit, as a dict that compares with ==."""
    state = {}
    if net is not None:
        state |= {"input_shape": net.input_shape, "shuffle": [_generator(rng) for rng in net._shuffle or ()]}
        state |= {"optim": net.optim, "loss": net.loss, "training": net.training}
        for place, leaf in enumerate(net.leaf_layers()):
            arrays = leaf.parameters | leaf.buffers
            state |= {f"{place}.{name}": _bits(array) for name, array in arrays.items()}
            state |= {
                f"{place} random numbers": [_generator(rng) for rng in leaf._rngs or ()],
                f"{place} frozen": leaf.frozen,
            }
    if optimizer is not None:
        state |= {"hyper": dict(optimizer.hyper), "optimizer": _bits(optimizer.state_dict())}
    return state


@pytest.fixture(name="snapshot")
def _snapshot():
    return snapshot


@pytest.fixture(autouse=True)
def _untouched_global_generator():
    """No test may find NumPy's global generator moved by the library."""
    before = _global_generator()
    yield
    assert _global_generator() == before


def _global_generator():
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return name, keys.tobytes(), *rest


@pytest.fixture
def python(tmp_path):
    """Run a script in a process of its own, in an empty folder, from a checkout; its CompletedProcess."""

    def run(script, *arguments, folder=tmp_path, path=ROOT):
        (folder / "script.py").write_text(script)
        return subprocess.run(
            [sys.executable, "-W", "error", "script.py", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


# Files whose tests take longest come first, so that no worker is left alone with them at the end.
SLOW = [
    "estimators", "examples", "resume", "compare", "distributed", "examples_compare", "sweeps", "faults", "report",
    "house",
]  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(SLOW)))


@pytest.fixture
def counted(monkeypatch):
    """How many rates are really run; an exception to raise from one of them on."""
    from layerwise.compare import contest  # here: not every test needs it

    real = contest.run_group

    class Count:
        ran = 0
        fail_from = math.inf
        error: BaseException = KeyboardInterrupt()

        def __call__(self, *arguments):
            if self.ran >= self.fail_from:
                raise self.error
            self.ran += len(arguments[2])
            return real(*arguments)

    count = Count()
    monkeypatch.setattr(contest, "run_group", count)
    return count
