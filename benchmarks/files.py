"""Saving and loading a net of 100 million parameters: seconds, and memory beyond the net's own, beside a plain copy.

    python benchmarks/files.py [folder]

Each task runs in a process of its own, so that its highest memory (Linux: VmHWM) is its own. Files are written through
to the disk, as net.save does, and thrown out of the system's cache before they are read.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import layers
import model

SIZE = 10_000
PIECE = 1 << 20


def memory(what):
    """VmRSS, what the process has in memory now, or VmHWM, the most that it ever had; in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(what))


def drop_from_cache(path):
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def save(path):
    net = layers.Model([layers.Linear(SIZE, init=0, bias=False)]).build((SIZE,))
    for rows in np.split(net.layers[0].w, 100):
        np.random.default_rng(0).random(dtype=np.float32, out=rows)
    before, began = memory("VmRSS"), time.perf_counter()
    net.save(path)
    return time.perf_counter() - began, memory("VmHWM") - before


def load(path):
    before, began = memory("VmRSS"), time.perf_counter()
    net = model.load(path)
    seconds = time.perf_counter() - began
    return seconds, memory("VmHWM") - before - net.vector.nbytes / 1e6


def copy(path):
    """As `cp`, and written through to the disk."""
    began = time.perf_counter()
    with path.open("rb") as source, path.with_suffix(".copy").open("wb") as target:
        shutil.copyfileobj(source, target, PIECE)
        target.flush()
        os.fsync(target.fileno())
    return time.perf_counter() - began, 0.0


def read(path):
    buffer, began = bytearray(PIECE), time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began, 0.0


TASKS = {each.__name__: each for each in (save, copy, load, read)}


def main(folder):
    with tempfile.TemporaryDirectory(dir=folder) as place:
        print(f"{'':24}  seconds   MB beyond the net (best of three, most of three)")
        for suffix in (".npz", ".safetensors"):
            path = Path(place) / f"net{suffix}"
            for name in TASKS:
                runs = []
                for _ in range(3):
                    if name in ("load", "read"):
                        drop_from_cache(path)
                    done = subprocess.run([sys.executable, __file__, name, path], check=True, capture_output=True)
                    runs.append([float(each) for each in done.stdout.split()])
                seconds, extra = zip(*runs, strict=True)
                print(f"{suffix:12}  {name:10}  {min(seconds):7.2f}   {max(extra):6.1f}", flush=True)
            for each in Path(place).iterdir():
                each.unlink()


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in TASKS:
        print(*TASKS[sys.argv[1]](Path(sys.argv[2])))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
