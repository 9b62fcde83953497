"""One file for one net: a JSON header and named arrays, in `.npz` or `.safetensors`. The suffix decides.

Nothing in a file is ever executed: no pickle, and no name in it is imported.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import math
import operator
import os
import re
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerwise.core import threads

Array = np.ndarray

FORMAT = "layerwise"
VERSION = 2
PIECE = 1 << 19  # bytes that are read or written in one go
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DAY = 24 * 3600.0
_HEADER = "header"
# What .safetensors calls the dtypes.
_KINDS = {"|b1": "BOOL", "|i1": "I8", "|u1": "U8"} | {
    f"<{kind}{size}": f"{kind.upper()}{8 * size}" for kind in "fiu" for size in (2, 4, 8)
}


class ModelFileError(ValueError):
    """A file that can't be loaded: truncated, altered, of another format, or of a newer version."""


def check_place(path: str | os.PathLike[str]) -> Path:
    """The path, if `write` can put a file there. ValueError for its suffix, ImportError without the package for it,
    OSError as of `target`, and for a folder that takes no file."""
    path = Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"a net is saved as .npz or .safetensors, got {str(path)!r}.")
    if path.suffix == ".safetensors":
        _safetensors()
    folder = target(path).parent
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"no file may be written in the folder {str(folder)!r}: choose another.")
    return path


def target(path: str | os.PathLike[str]) -> Path:
    """The file that is written at `path`: where a link leads, else the path itself. OSError as of `check_regular`, and
    for a folder that is not there."""
    check_regular(path)
    path = Path(os.path.realpath(path) if os.path.islink(path) else path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to write {path.name} in: make it first.")
    return path


def check_regular(path: str | os.PathLike[str]) -> None:
    """OSError where a folder, a device, a pipe or a socket is at `path`, or where a link at `path` leads: a file would
    take its place, and reading it may never end."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{str(path)!r} is a folder: give the name of a file in it.")
    if not stat.S_ISREG(mode):
        raise OSError(f"{str(path)!r} is a device, a pipe or a socket: give the name of a file.")


def write(path: str | os.PathLike[str], header: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write the file beside its place, flush it to disk, then put it there in one step. The arrays go to the disk
    piece by piece, without a second copy of them.

    ValueError for another suffix. OSError for no folder, a full disk or a read-only one: the file that was there stays.
    """
    path = check_place(path)
    writer = _write_npz if path.suffix == ".npz" else _write_safetensors
    # Both formats are little-endian here, whatever the machine.
    arrays = {name: np.asarray(array, np.asarray(array).dtype.newbyteorder("<")) for name, array in arrays.items()}
    with replaced(path) as file:
        writer(file, {"format": FORMAT, "version": VERSION, **header}, arrays)


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Any]:
    """`with replaced(path) as file:` a binary file that takes its place in one step, whole and flushed to disk, when
    the block ends, with the permissions that the umask gives. Whatever is raised, what was there stays.

    A link stays, and the file that it leads to is replaced. A device, a pipe or a socket is refused: OSError.
    Until then the file is `.<name>.<machine>-<process>-<random>.part` in the same folder. It is removed on the way
    out. What a killed process left is removed by the next writer of the path (see `_is_left`).
    """
    path = target(path)
    prefix = "." + os.fsencode(path.name)[:100].decode(errors="ignore")  # a name has 255 bytes at most, or 143
    _remove_left(path.parent, prefix)
    part = path.with_name(f"{prefix}.{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.part")
    _parts.add(part.name)
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):  # Ctrl-C may come before it is there, or when it is moved
            os.unlink(part)
        if isinstance(error, OSError) and error.errno in FULL:
            what = f"{error.strerror}: the disk is full, or files may not be so large. What was there before is kept"
            raise OSError(error.errno, what, str(path)) from error
        raise
    finally:
        _parts.discard(part.name)


_parts: set[str] = set()  # the names of those that this process is writing


def _remove_left(folder: Path, prefix: str) -> None:
    """Remove the `.part` files of a path whose writers are known to be gone."""
    pattern = re.compile(re.escape(prefix) + r"\.([0-9a-f]{8})-(\d{1,18})-[0-9a-f]{8}\.part")
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            found = pattern.fullmatch(name)
            with contextlib.suppress(OSError):
                if found and _is_left(folder / name, found[1], int(found[2])):
                    os.unlink(folder / name)


def _is_left(part: Path, machine: str, process: int) -> bool:
    """Whether the writer of a `.part` file is known to be gone: its process is not there any more, or, where it is of
    another machine, nothing was written for a day."""
    if os.name != "posix" or machine != _machine():
        return time.time() - part.stat().st_mtime > DAY
    if process == os.getpid():
        return part.name not in _parts
    try:
        os.kill(process, 0)  # asks only
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is there, and of another user
        pass
    return False


@functools.cache
def _machine() -> str:
    """Where a number means one process: this machine, since it was started, and this container."""
    known = [os.uname().nodename if os.name == "posix" else ""]
    with contextlib.suppress(OSError):  # Linux
        known += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return f"{zlib.crc32(repr(known).encode()):08x}"


def append(path: str | os.PathLike[str], content: bytes, flush: bool = True) -> None:
    """`content` at the end of a file, flushed to disk (5 ms) or left to the system, or, where it can't be written
    whole, none of it. OSError, also for a device, a pipe or a socket."""
    check_regular(path)
    # Without a buffer, which would be written once more, in part, when a file on a full disk is closed.
    with open(path, "ab", buffering=0) as file:
        length, left = file.seek(0, os.SEEK_END), memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
            if flush:
                os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(length)
            raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and all arrays; errors as of `Saved`."""
    with Saved(path) as saved:
        return saved.header, {name: saved.array(name) for name in saved.places}


class Place(NamedTuple):
    """Where an array stands in a file. Of a member of a zip also: its checksum up to that place, that of the whole
    member, and whether the array is stored by columns, as np.savez stores one whose memory is so."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    check_before: int = 0
    check_whole: int | None = None
    by_columns: bool = False


class Saved:
    """A file that `write` wrote, open: `with Saved(path) as saved`. Only its header has been read.

    header  what was given to `write`
    places  name -> Place, of every array; they are read by `array`, and by nothing else

    ModelFileError for a file that `write` did not write, or that was altered since; FileNotFoundError for no file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path = Path(path)
        opener = {".npz": _open_npz, ".safetensors": _open_safetensors}.get(path.suffix)
        if opener is None:
            raise ModelFileError(f"a net is loaded from .npz or .safetensors, got {str(path)!r}.")
        if not path.exists():
            raise FileNotFoundError(f"there is no file {str(path)!r}.")
        with reading(self.path), contextlib.ExitStack() as undo:
            check_regular(path)
            self._file = undo.enter_context(path.open("rb"))
            text, self.places = opener(path, self._file)
            self.header = self._checked(json.loads(text))
            end = os.fstat(self._file.fileno()).st_size
            for name, place in self.places.items():
                if place.dtype.hasobject or place.start + _size(place) > end:  # before memory is taken for it
                    raise ModelFileError(f"{path} is damaged: {name!r} is said to be {place.dtype} {place.shape}.")
            undo.pop_all()

    def __enter__(self) -> Saved:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def _checked(self, header: Any) -> dict[str, Any]:
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ModelFileError(f"{self.path} was not written by layerwise.")
        version = header.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise ModelFileError(
                f"{self.path} has format version {version!r}, newer than this layerwise reads ({VERSION}): upgrade it."
            )
        if self.places.keys() != header["checks"].keys():
            raise ModelFileError(f"{self.path} was altered: its arrays are not those that it names.")
        return header

    def array(self, name: str, out: Array | None = None) -> Array:
        """An array of the file. Into `out`, whose dtype and shape the caller has compared with those of `places`, its
        bytes are read piece by piece, without a second copy."""
        place = self.places[name]
        with reading(self.path):
            array = np.empty(place.shape, place.dtype) if out is None else out
            stored = np.empty(place.shape[::-1], place.dtype) if place.by_columns else array
            # The sum over the whole member shows that its dtype and shape were not altered; it takes as long again.
            summed = out is None and place.check_whole is not None
            self._file.seek(place.start)
            whole = place.check_before

            def fill(piece: memoryview) -> None:
                nonlocal whole
                if self._file.readinto(piece) != len(piece):
                    raise EOFError("it ends too early")
                if summed:
                    whole = zlib.crc32(piece, whole)

            check = _through(stored, fill)
            if place.by_columns:
                array[...] = stored.T
                check = _through(array, lambda piece: None)  # the checksum is that of the rows
            if check != self.header["checks"][name] or (summed and whole != place.check_whole):
                raise ModelFileError(f"{self.path} was altered: the checksum of {name!r} does not match.")
        return array


@contextlib.contextmanager
def reading(path: Any, verdict: str = "is damaged or not a saved net") -> Iterator[None]:
    """`with reading(path):` an error of any type within the block becomes a ModelFileError. A file may hold anything,
    also with checksums that are right, and where the damage sits decides which of a dozen types is raised."""
    try:
        yield
    except (ModelFileError, ImportError):
        raise
    except Exception as error:
        deep = isinstance(error, RecursionError)
        what = "it is nested too deeply" if deep else f"{error}".rstrip(".") or type(error).__name__
        raise ModelFileError(f"{path} {verdict}: {what}.") from error


def _size(place: Place) -> int:
    return math.prod(place.shape) * place.dtype.itemsize


def _chunks(array: Array) -> Iterator[memoryview]:
    """The bytes of an array in C order, as many at a time as stay in the cache. They are the array's own where it is
    contiguous, or where each of its rows is, as in a stack of nets; else those of a copy."""
    if array.flags.c_contiguous:
        rows = [array]
    else:
        rows = list(array) if array.ndim > 1 and array[0].flags.c_contiguous else [np.ascontiguousarray(array)]
    for row in rows:
        whole = row.reshape(-1).view(np.uint8).data
        for start in range(0, len(whole), PIECE):
            yield whole[start : start + PIECE]


def _through(array: Array, do: Callable[[memoryview], Any]) -> int:
    """Let `do` read or write the bytes of an array, piece by piece; their checksum, which another thread makes of one
    piece while the next is under way."""
    check = 0

    def add(piece: memoryview) -> None:
        nonlocal check
        check = zlib.crc32(piece, check)

    done = None
    for piece in _chunks(array):
        if done is None:
            do(piece)
        else:
            threads.parallel_for(operator.call, [(do, piece), (add, done)])
        done = piece
    if done is not None:
        add(done)
    return check


# A zip of .npy files, none compressed, as np.savez writes and np.load reads it.


def _write_npz(file: Any, header: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    checks: dict[str, int] = {}
    whole = zipfile.ZipFile(file, "w")

    def put(name: str, array: Array) -> int:
        with whole.open(f"{name}.npy", "w", force_zip64=True) as member:
            about = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(member, about | {"fortran_order": False})
            return _through(array, member.write)

    try:
        for name, array in arrays.items():
            checks[name] = put(name, array)
        put(_HEADER, np.frombuffer(json.dumps(header | {"checks": checks}).encode(), np.uint8))
        whole.close()
    finally:
        whole.fp = None  # after Ctrl-C, or on a full disk, it would raise an error of its own when it is closed


def _open_npz(path: Path, file: Any) -> tuple[str, dict[str, Place]]:
    places = {}
    with zipfile.ZipFile(file) as whole:
        members = whole.infolist()
        if len({each.filename for each in members}) < len(members):
            raise ModelFileError(f"{path} was not written by layerwise: it holds two arrays of one name.")
        if sum(each.file_size for each in members) > path.stat().st_size:  # they are packed, or lie over one another
            raise ModelFileError(f"{path} was not written by layerwise: it unpacks to more than it is.")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ModelFileError(f"{path} was not written by layerwise: it is compressed.")
            if name == _HEADER:
                continue
            file.seek(member.header_offset)
            local = file.read(30)  # of the zip: it ends with the lengths of two fields before the .npy
            begin = member.header_offset + 30 + sum(struct.unpack("<HH", local[26:]))
            file.seek(begin)
            reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, by_columns, dtype = reader[np.lib.format.read_magic(file)](file)
            start = file.tell()
            file.seek(begin)
            place = Place(dtype, shape, start, zlib.crc32(file.read(start - begin)), member.CRC, by_columns)
            if start + _size(place) != begin + member.file_size:
                raise ModelFileError(f"{path} is damaged: {name!r} is not stored as it is said to be.")
            places[name] = place
        text = np.lib.format.read_array(io.BytesIO(whole.read(f"{_HEADER}.npy")), allow_pickle=False)
    return text.tobytes().decode(), places


# Eight bytes of length, a JSON of what stands where, and the arrays' bytes: github.com/huggingface/safetensors.


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError:
        raise ImportError('.safetensors files need a package: pip install "layerwise[safetensors]"') from None
    return safetensors


def _write_safetensors(file: Any, header: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    entries: dict[str, Any] = {}
    end = 0
    names = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)  # each begins where its dtype may
    for name in names:
        array = arrays[name]
        if array.dtype.str not in _KINDS:
            raise TypeError(f".safetensors files hold numbers, {name!r} is an array of {array.dtype}: save as .npz.")
        entries[name] = {
            "dtype": _KINDS[array.dtype.str],
            "shape": array.shape,
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes

    layout = _layout(entries)

    def head(checks: dict[str, int]) -> bytes:
        text = json.dumps(header | {"checks": checks, "layout": layout})
        metadata = {_HEADER: text, "check": str(zlib.crc32(text.encode()))}
        return json.dumps({"__metadata__": metadata} | entries).encode()

    # The checksums stand before the arrays, and are known after them: room for ten digits each is left.
    length = -(-(len(head(dict.fromkeys(names, 2**32 - 1))) + 10) // 8) * 8
    file.seek(8 + length)
    checks = {name: _through(arrays[name], file.write) for name in names}
    file.seek(0)
    file.write(length.to_bytes(8, "little") + head(checks).ljust(length))


def _layout(entries: dict[str, Any]) -> int:
    """The checksum of the dtypes and shapes of all arrays; the checksum of each covers its bytes alone."""
    layout = {name: [each["dtype"], each["shape"]] for name, each in entries.items()}
    return zlib.crc32(json.dumps(layout, sort_keys=True).encode())


def _open_safetensors(path: Path, file: Any) -> tuple[str, dict[str, Place]]:
    with _safetensors().safe_open(path, "np"):  # refuses what is cut, has gaps, or is of another format
        pass
    # All else is read from the open file: at `path`, another may have been put in its place meanwhile.
    length = int.from_bytes(file.read(8), "little")
    entries = json.loads(file.read(length))
    metadata = entries.pop("__metadata__", {})
    if metadata.get("check") != str(zlib.crc32(metadata.get(_HEADER, "").encode())):
        raise ModelFileError(f"{path} was altered, or was not written by layerwise: its header does not match.")
    header = metadata[_HEADER]
    layout = json.loads(header).get("layout")
    if layout not in (None, _layout(entries)):  # files of earlier versions have none
        raise ModelFileError(f"{path} was altered: its arrays are not of the dtypes and shapes that were written.")
    dtypes = {kind: np.dtype(dtype) for dtype, kind in _KINDS.items()}
    places = {
        name: Place(dtypes[each["dtype"]], tuple(each["shape"]), 8 + length + each["data_offsets"][0])
        for name, each in entries.items()
    }
    return header, places
