"""One file for one net: a JSON header and named arrays, in `.npz` or `.safetensors`. The suffix decides.

Nothing in a file is ever executed: no pickle, and no name in it is imported. Knows no other module.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray

FORMAT = "layerwise"
VERSION = 1
_HEADER = "header"


class ModelFileError(ValueError):
    """A file that can't be loaded: truncated, altered, of another format, or of a newer version."""


def check_place(path: str | os.PathLike[str]) -> Path:
    """The path, if `write` can put a file there: its suffix, the package for it, and the folder."""
    path = Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"a net is saved as .npz or .safetensors, got {str(path)!r}.")
    if path.suffix == ".safetensors":
        _safetensors()
    if "{" not in str(path.parent) and not path.parent.is_dir():  # braces: a name that is filled in later
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to save in: make it first.")
    return path


def write(path: str | os.PathLike[str], header: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write the file beside its place, flush it to disk, then put it there in one step.

    ValueError for another suffix; OSError (no folder, a full disk, a read-only one) leaves what was there as it was.
    """
    path = check_place(path)
    writer = _write_npz if path.suffix == ".npz" else _write_safetensors
    # Some writers store an array that is not C-contiguous in the wrong order.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    checks = _checks(arrays)
    text = json.dumps({"format": FORMAT, "version": VERSION, **header, "checks": checks})
    with replaced(path) as file:
        writer(file, text, arrays)


def packed(value: Any, arrays: dict[str, Array], name: str) -> Any:
    """A tree of dicts, lists, tuples, numbers, strings and arrays as what JSON can hold; the arrays are put into
    `arrays`, under names that begin with `name`. TypeError for anything else."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, (list, tuple)):
        items = [packed(each, arrays, f"{name}.{place}") for place, each in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {"dict": [[key, packed(each, arrays, f"{name}.{key}")] for key, each in value.items()]}
    value = value.item() if isinstance(value, np.generic) else value
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"{name}: a file holds numbers, strings, arrays, and lists and dicts of them, got {value!r}.")
    return value


def unpacked(value: Any, arrays: dict[str, Array]) -> Any:
    """What `packed` made `value` of; the arrays are taken out of `arrays`."""
    if isinstance(value, list):
        return [unpacked(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays.pop(value["array"])
    if "tuple" in value:
        return tuple(unpacked(each, arrays) for each in value["tuple"])
    return {key: unpacked(each, arrays) for key, each in value["dict"]}


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Any]:
    """`with replaced(path) as file:` a binary file that takes its place, whole and flushed to disk, when the block
    ends, with the permissions that umask gives. Where something is raised, what was there stays."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to write {path.name} in: make it first.")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays. ModelFileError for what `write` did not write, or what was altered since;
    FileNotFoundError for no file."""
    path = Path(path)
    reader = {".npz": _read_npz, ".safetensors": _read_safetensors}.get(path.suffix)
    if reader is None:
        raise ModelFileError(f"a net is loaded from .npz or .safetensors, got {str(path)!r}.")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    try:
        text, arrays = reader(path)
        header = json.loads(text)
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ModelFileError(f"{path} was not written by layerwise.")
        version = header.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise ModelFileError(
                f"{path} has format version {version!r}, newer than this layerwise reads ({VERSION}): upgrade it."
            )
        if _checks(arrays) != header.get("checks"):
            raise ModelFileError(f"{path} was altered: the checksum of an array does not match.")
    except (ModelFileError, ImportError):
        raise
    except Exception as error:  # the readers raise a dozen types, according to where the damage sits
        raise ModelFileError(f"{path} is damaged or not a saved net: {error or type(error).__name__}.") from error
    return header, arrays


def _checks(arrays: Mapping[str, Array]) -> dict[str, int]:
    return {name: zlib.crc32(array.data) for name, array in arrays.items()}


def _write_npz(file: Any, text: str, arrays: Mapping[str, Array]) -> None:
    every: dict[str, Any] = {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
    np.savez(file, **every)


def _read_npz(path: Path) -> tuple[str, dict[str, Array]]:
    # Opened here: of a damaged file, np.load leaves its own open.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays.pop(_HEADER).tobytes().decode(), arrays


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError('.safetensors files need a package: pip install "layerwise[safetensors]"') from None
    return safetensors


def _write_safetensors(file: Any, text: str, arrays: Mapping[str, Array]) -> None:
    metadata = {_HEADER: text, "check": str(zlib.crc32(text.encode()))}
    file.write(_safetensors().numpy.save(dict(arrays), metadata=metadata))


def _read_safetensors(path: Path) -> tuple[str, dict[str, Array]]:
    with _safetensors().safe_open(path, "np") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if metadata.get("check") != str(zlib.crc32(metadata.get(_HEADER, "").encode())):
        raise ModelFileError(f"{path} was altered, or was not written by layerwise: its header does not match.")
    return metadata[_HEADER], arrays
