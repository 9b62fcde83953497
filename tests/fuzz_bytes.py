"""What the tests of files that someone else made share: mutations of bytes, and a watch on what reading them does.

A mutation is (rng, the bytes of a whole file, its suffix) -> other bytes.
"""

import contextlib
import io
import resource
import signal
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np

SECONDS = 1.0  # for one file
MEGABYTES = 200  # for all of them


class Planted:
    """What a pickle can do: write a file."""

    def __reduce__(self):
        return Path.touch, (Path("planted"),)


def truncated(rng, whole, suffix):
    return whole[: rng.integers(len(whole))]


def flipped(rng, whole, suffix):
    changed = np.frombuffer(whole, np.uint8).copy()
    places = rng.integers(len(whole), size=rng.integers(1, 9))
    changed[places] ^= (1 << rng.integers(8, size=len(places))).astype(np.uint8)
    return changed.tobytes()


def flipped_in_front(rng, whole, suffix):
    return flipped(rng, whole[:400], suffix) + whole[400:]


def flipped_at_the_end(rng, whole, suffix):
    return whole[:-400] + flipped(rng, whole[-400:], suffix)


def spliced(rng, whole, suffix):
    at, (begin, end) = rng.integers(len(whole)), sorted(rng.integers(len(whole), size=2))
    piece = whole[begin:end]
    longer, same, shorter = whole[at:], whole[at + len(piece) :], whole[:begin] + whole[end:]
    return [whole[:at] + piece + longer, whole[:at] + piece + same, shorter][rng.integers(3)]


def noise(rng, whole, suffix):
    begin = rng.integers(len(whole))
    size = int(rng.integers(1, 200))
    return whole[:begin] + rng.bytes(size) + whole[begin + size :]


# The bytes alone, whatever the format
ANY = (truncated, flipped, flipped, flipped_in_front, flipped_at_the_end, spliced, noise)


def npy(shape, dtype="'<f4'", body=b""):
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def in_zip(members, **options):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", **options) as file:
        for name, body in members:
            file.writestr(name, body)
    return raw.getvalue()


def members_of(whole):
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        return [(name, file.read(name)) for name in file.namelist()]


WATCHED = (
    "exec",
    "import",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess",
    "pickle",
    "marshal",
    "ctypes",
    "socket",
    "code.__new__",
    "function.__new__",
    "os.mkdir",
)


class Watch:
    """Python tells of every such event while `on`; what a load may not do is kept."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.on and event.startswith(WATCHED):
            self.seen.append(f"{event} {arguments!r:.200}")


class Limits:
    """Time and memory that what goes wrong may take; `megabytes()` since it was made."""

    def __init__(self):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + 4 * MEGABYTES * 2**20,) * 2)

    def megabytes(self):
        return round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.peak) / 1024)

    @contextlib.contextmanager
    def time(self):
        """KeyboardInterrupt within the block, if it takes too long by far."""
        signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
