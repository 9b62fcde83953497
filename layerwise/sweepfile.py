"""The file of a sweep: what is finished stands in it, so that a sweep that was ended goes on.

Shapes: S seeds, a curve has steps + 1 losses.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerwise.comparison import beside, write_text

Array = np.ndarray
Rate = float | None  # None: of a rule that takes none


class Runs(NamedTuple):
    """One optimizer at one rate, all seeds."""

    curves: Array  # (S, steps + 1)
    seconds: Array  # (S,)


class Results:
    """(name, rate) -> what is finished; kept in a file too, where there is a path.

    The file has a line of JSON for the question, then one for each optimizer and rate, its curves as float64 in
    base64 with a checksum. What was timed goes beside it. A line that a crash or a full disk tore is left out, and its
    runs are done again.
    """

    format = "layerwise sweep"
    version = 1

    def __init__(self, path: str | os.PathLike[str] | None, question: dict[str, Any]) -> None:
        # As it comes out of a file, so that the two can be compared.
        self.question: dict[str, Any] = json.loads(json.dumps(question))
        self.found: dict[tuple[str, Rate], Runs] = {}
        self.path = None if path is None else Path(path)
        if self.path is not None:
            self._open(self.path)

    def __contains__(self, key: tuple[str, Rate]) -> bool:
        return key in self.found

    def __getitem__(self, key: tuple[str, Rate]) -> Runs:
        return self.found[key]

    def add(self, name: str, lr: Rate, runs: Runs) -> None:
        """Keep it; on disk when this returns. OSError where there is no room: the file is as before."""
        self.found[name, lr] = runs
        if self.path is not None:
            content = np.ascontiguousarray(runs.curves, "<f8").tobytes()
            record = {"optimizer": name, "lr": lr}
            try:
                # The timings first: what has none would be timed again, what has them is merely not used.
                _append(beside(self.path), record | {"seconds": runs.seconds.tolist()})
                packed = base64.b64encode(content).decode()
                _append(self.path, record | {"check": zlib.crc32(content), "curves": packed})
            except OSError as error:
                error.add_note(f"What was finished before is kept in {self.path}: make room, and call again.")
                raise

    def _open(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to keep the runs in: make it first.")
        if not path.exists() or path.stat().st_size == 0:
            header = {"format": self.format, "version": self.version, "question": self.question}
            write_text(beside(path), "")
            write_text(path, json.dumps(header) + "\n")
            return
        with path.open("rb") as file:
            self._check(_line(file.readline()))
            timed = {}
            if beside(path).exists():
                for line in beside(path).read_bytes().splitlines():
                    record = _line(line)
                    timed[record.get("optimizer"), record.get("lr")] = record.get("seconds")
            shape = len(self.question["seeds"]), self.question["steps"] + 1
            for line in file:
                record = _line(line)
                content = _content(record) if line.endswith(b"\n") else None
                if content is not None and len(content) == 8 * math.prod(shape):
                    key = record["optimizer"], record["lr"]
                    curves = np.frombuffer(content, "<f8").astype(np.float64).reshape(shape)
                    self.found[key] = Runs(curves, np.array(timed.get(key) or [math.nan] * shape[0], np.float64))
        for each in (path, beside(path)):
            _cut_torn_end(each)

    def _check(self, header: dict[str, Any]) -> None:
        """ValueError unless the file answers this question."""
        path = self.path
        if header.get("format") != self.format:
            raise ValueError(f"{path} holds no sweep: give a file that does not exist yet, or one that compare wrote.")
        if header.get("version") != self.version:
            raise ValueError(
                f"{path} has format version {header.get('version')!r}; this layerwise reads {self.version}."
            )
        before = header["question"]
        other = [name for name in self.question if before.get(name) != self.question[name]]
        if other:
            told = "; ".join(f"{name} {before.get(name)!r}, now {self.question[name]!r}" for name in other)
            raise ValueError(
                f"{path} answers another question: {told}. Give another path, or delete the file to start anew."
            )


def _line(line: bytes) -> dict[str, Any]:
    """What a line of JSON holds; nothing, where it is torn."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _content(record: dict[str, Any]) -> bytes | None:
    try:
        content = base64.b64decode(record["curves"])
    except (KeyError, ValueError, TypeError):
        return None
    return content if zlib.crc32(content) == record.get("check") else None


def _append(path: Path, record: dict[str, Any]) -> None:
    """A line more, or, with an OSError, none."""
    with path.open("ab") as file:
        length = file.seek(0, os.SEEK_END)
        try:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, length)
            raise


def _cut_torn_end(path: Path) -> None:
    """Leave whole lines only, so that the next one starts on a line of its own."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
