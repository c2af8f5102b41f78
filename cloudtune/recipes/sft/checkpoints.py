"""Checkpoints that are whole: each gets lists of its files, written last, and counts only if they are there and agree.

A folder that outlives interruptions is copied away while it is written to, file by file in any order, and the copying
may be cut anywhere; what is removed here may stay there. So lists tell the ends of each file, too, and bear a mark of
their own: what an earlier attempt at the same step has left is told from what this one wrote.

Where the nodes of a job share no folder, each writes a list of what it has. Their copies may still come together in one
place; what several nodes wrote by the same name is then taken from any of them.
"""

import dataclasses
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: A list, or one that is being written.
_NAME = re.compile(r"files-\d+\.(json|partial)")
#: Bytes at the beginning and at the end of a file that are compared: reading all of a checkpoint takes minutes.
_END_BYTES = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Seen:
    """A checkpoint as one process sees it: which lists of how many are there, their marks, and what is wrong."""

    lists: tuple[int, ...]
    expected: int
    marks: frozenset[str]
    fault: str = ""


def write_list(checkpoint: Path, *, mark: str, number: int = 0, expected: int = 1) -> None:
    """Write the list of what is in a checkpoint, the only one or one of those that are ``expected``."""
    paths = []
    for path in sorted(checkpoint.rglob("*")):
        if path.parent == checkpoint and _NAME.fullmatch(path.name):
            if mark not in path.read_text(encoding="utf-8", errors="replace"):
                path.unlink()  # of an earlier attempt at this step
        elif path.is_file():
            paths.append(path)
    files = {path.relative_to(checkpoint).as_posix(): _facts(path) for path in paths}
    told = {"mark": mark, "lists": expected, "files": files}
    # a name that no list has, until it is whole
    partial = checkpoint / f"files-{number}.partial"
    partial.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    partial.replace(checkpoint / f"files-{number}.json")


def look(folder: Path) -> dict[int, Seen]:
    """Return the checkpoints of a folder as they are seen from here, by step."""
    found = {}
    for path in folder.glob("checkpoint-*"):
        step = path.name.rpartition("-")[2]
        if step.isdigit() and path.is_dir():
            found[int(step)] = look_at(path)
    return found


def look_at(checkpoint: Path) -> Seen:
    """Return one checkpoint as it is seen from here."""
    lists: dict[int, Mapping[str, Any]] = {}
    fault = ""
    for path in sorted(checkpoint.glob("files-*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            lists[int(path.stem.rpartition("-")[2])] = {key: told[key] for key in ("mark", "lists", "files")}
        except (OSError, ValueError, KeyError, TypeError):
            fault = f"{path.name} cannot be read"
    weights = any(checkpoint.glob("*.safetensors")) or any(checkpoint.glob("pytorch_model_fsdp*"))
    if not weights or not (checkpoint / "trainer_state.json").is_file():
        fault = "weights or the trainer's state are missing"
    return Seen(
        lists=tuple(lists),
        expected=max((told["lists"] for told in lists.values()), default=1),
        marks=frozenset(told["mark"] for told in lists.values()),
        fault=fault or _difference(checkpoint, [told["files"] for told in lists.values()]),
    )


def doubts(everywhere: Sequence[Mapping[int, Seen]]) -> dict[int, str]:
    """Return why each checkpoint that any process sees cannot be gone on from, "" for those that are whole, by step."""
    found = {}
    for step in sorted(set().union(*everywhere)):
        seen = [one[step] for one in everywhere if step in one]
        lists = {number for one in seen for number in one.lists}
        expected = max(one.expected for one in seen)
        if len(seen) < len(everywhere):
            found[step] = "not all nodes have it"
        elif fault := next((one.fault for one in seen if one.fault), ""):
            found[step] = fault
        elif len(frozenset().union(*(one.marks for one in seen))) > 1:
            found[step] = "its files are of several attempts at this step"
        elif missing := sorted(set(range(expected)) - lists):
            found[step] = f"files-{missing[0]}.json, which is written last, is missing"
        else:
            found[step] = ""
    return found


def order_by_age(folder: Path, oldest_first: Iterable[int]) -> None:
    """Date checkpoints so that the trainer, which keeps the newest ones, removes those first that come first here.

    Copied from elsewhere they have the times of the copying.
    """
    steps = list(oldest_first)
    now = time.time()
    for place, step in enumerate(steps):
        then = now - 60 * (len(steps) - place)
        try:
            os.utime(folder / f"checkpoint-{step}", (then, then))
        except OSError:
            return  # a file system without times: the trainer then goes by the steps


def _difference(checkpoint: Path, lists: Sequence[Mapping[str, Any]]) -> str:
    """Return how the files of a checkpoint differ from what the lists say of them."""
    for name in sorted(set().union(*lists)):
        told = [files[name] for files in lists if name in files]
        try:
            here = _facts(checkpoint / name)
        except OSError:
            return f"{name} is missing"
        if here["bytes"] not in {one["bytes"] for one in told}:
            return f"{name} has {here['bytes']} of {told[0]['bytes']} bytes"
        if here not in told:
            return f"{name} is not the file that was listed"
    return ""


def _facts(path: Path) -> dict[str, int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = zlib.crc32(file.read(_END_BYTES))
        file.seek(max(size - _END_BYTES, 0))
        ends = zlib.crc32(file.read(_END_BYTES), ends)
    return {"bytes": size, "ends": ends}
