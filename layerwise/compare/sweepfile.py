"""The file of a sweep: what is finished stands in it, so that a sweep that was ended goes on.

Shapes: S seeds, a curve has steps + 1 losses.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerwise.compare.results import beside, write_text
from layerwise.core import files
from layerwise.core.fingerprint import plain

Array = np.ndarray
Rate = float | None  # None: of a rule that takes none
ALTERED = (KeyError, TypeError, ValueError, OverflowError)  # what is raised where a line holds something else


class Runs(NamedTuple):
    """One optimizer at one rate, all seeds."""

    curves: Array  # (S, steps + 1)
    seconds: Array  # (S,)


class Results:
    """(name, rate) -> what is finished; kept in a file too, where there is a path.

    The file has a line of JSON for the question, then one for each optimizer and rate, its curves as float64 in
    base64. What was timed goes beside it. Each line ends with its checksum; one that a crash or a full disk tore, or
    that was altered, is left out, and its runs are done again. Lines of earlier versions are read too: their checksum
    covers the curves alone.
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
            packed = base64.b64encode(np.ascontiguousarray(runs.curves, "<f8").tobytes()).decode()
            record = {"optimizer": name, "lr": lr}
            try:
                # The timings first: what has none would be timed again, what has them is merely not used.
                files.append(beside(self.path), _line(record | {"seconds": runs.seconds.tolist()}))
                files.append(self.path, _line(record | {"curves": packed}))
            except OSError as error:
                error.add_note(f"What was finished before is kept in {self.path}: make room, and call again.")
                raise

    def _open(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to keep the runs in: make it first.")
        for each in (path, beside(path)):
            files.check_regular(each)
        if not path.exists() or path.stat().st_size == 0:
            header = {"format": self.format, "version": self.version, "question": self.question}
            write_text(beside(path), "")
            write_text(path, _line(header).decode())
            return
        shape = len(self.question["seeds"]), self.question["steps"] + 1
        with path.open("rb") as file:
            self._check(_record(file.readline()))
            timed = {}
            if beside(path).exists():
                for line in beside(path).read_bytes().splitlines():
                    record = _record(line)
                    with contextlib.suppress(*ALTERED):
                        timed[_key(record)] = np.array(record["seconds"], np.float64).reshape(shape[0])
            for line in file:
                record = _record(line) if line.endswith(b"\n") else {}
                with contextlib.suppress(*ALTERED):
                    curves = _curves(record).reshape(shape)
                    self.found[_key(record)] = Runs(curves, timed.get(_key(record), np.full(shape[0], math.nan)))
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
        before: Any = header.get("question")
        readable = isinstance(before, dict) and isinstance(before.get("problem"), dict)
        if not readable or ("check" in header and not _is_whole(header)):
            raise ValueError(f"{path} is damaged: its question can't be read. Give another path, or delete the file.")
        then, now = code_of(before), code_of(self.question)
        before, question = _without_code(before), _without_code(self.question)
        other = [name for name in question if before.get(name) != question[name]]
        told = [f"{name} {before.get(name)!r}, now {question[name]!r}" for name in other]
        if "code" in header["question"]:
            changed = sorted(place for place in then.keys() | now.keys() if then.get(place) != now.get(place))
            told += [f"what is one's own has changed in {', '.join(changed)}"] if changed else []
        elif now and not told:
            warnings.warn(
                f"{path} was written before the code of one's own was compared: whether that of "
                f"{', '.join(sorted(now))} is as it was, can't be told. Delete the file if it is not.",
                stacklevel=4,
            )
        if told:
            raise ValueError(
                f"{path} answers another question: {'; '.join(told)}. Give another path, or delete the file to start "
                f"anew."
            )


def code_of(question: dict[str, Any]) -> dict[str, str]:
    """Place -> digest of all code of one's own in a question: "optimizers own: make.made"."""
    members = {"problem": question["problem"].get("code", {})}
    members |= {f"optimizers {name}": each for name, each in question.get("code", {}).items()}
    return {f"{part}: {place}": each for part, code in members.items() for place, each in code.items()}


def _without_code(question: dict[str, Any]) -> dict[str, Any]:
    """All else of a question; without addresses in memory, which older files have."""
    question = json.loads(plain(json.dumps(question)))
    problem = {name: value for name, value in question["problem"].items() if name != "code"}
    return {**{name: value for name, value in question.items() if name != "code"}, "problem": problem}


def _line(record: dict[str, Any]) -> bytes:
    """A line of the file."""
    return json.dumps(record | {"check": _check(record)}).encode() + b"\n"


def _record(line: bytes) -> dict[str, Any]:
    """What a line holds; nothing, where it is torn."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _check(record: dict[str, Any]) -> int:
    """The checksum of all that a record holds beside its checksum."""
    return zlib.crc32(json.dumps({name: value for name, value in record.items() if name != "check"}).encode())


def _is_whole(record: dict[str, Any]) -> bool:
    return record.get("check") == _check(record)


def _key(record: dict[str, Any]) -> tuple[str, Rate]:
    """Of which optimizer and rate a record is. One of `ALTERED` for what can be neither."""
    name, lr = record["optimizer"], record["lr"]
    hash((name, lr))
    return name, lr


def _curves(record: dict[str, Any]) -> Array:
    """All curves of a record as one array. One of `ALTERED` where the checksum does not match."""
    content = base64.b64decode(record["curves"], validate=True)
    if not _is_whole(record) and record.get("check") != zlib.crc32(content):
        raise ValueError("the checksum does not match")
    return np.frombuffer(content, "<f8").astype(np.float64)


def _cut_torn_end(path: Path) -> None:
    """Leave whole lines only, so that the next one starts on a line of its own."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
