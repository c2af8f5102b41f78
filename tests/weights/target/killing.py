"""Writes a model and dies on the way, at every step in turn: what is left is nothing, or can be continued.

    python -m tests.weights.target.killing new|existing|mounted FOLDER [KILLS SEED]

Each step is a call that changes the file system; a child is killed by the kernel right before it. With a number, so
many children are killed at random moments instead. Prints how many were killed; ends with an error on any surprise.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cloudtune.errors import UsageError
from cloudtune.ranges import Reader
from cloudtune.weights.files import assembly
from cloudtune.weights.files.assembly import Made, Output, Span
from cloudtune.weights.target import open_target
from cloudtune.weights.target.writing import LAST

KEY = "0123456789abcdef"
_BLOCK = 64 << 10
_CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}


def outputs(source: Reader, blocks: int = 12, pause_s: float = 0.0) -> list[Output]:
    """Return three files of spans and of blocks that are made."""

    def made(number: int) -> Iterator[bytes]:
        for block in range(blocks):
            time.sleep(pause_s)
            yield bytes([number + block]) * _BLOCK

    return [
        Output(
            name=f"model-{number}.safetensors",
            pieces=(
                b"head%d" % number,
                Span(reader=source, offset=number, length=source.size - number),
                Made(length=blocks * _BLOCK, blocks=partial(made, number)),
                Span(reader=source, offset=0, length=source.size),
            ),
        )
        for number in range(3)
    ]


SMALL = {
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "config.json": b"{}",
    "tokenizer.json": b"[1, 2]",
    "cloudtune.json": b'{"made": "whole"}',
}


def write(folder: Path, source: Path, **options: float) -> dict[str, str]:
    """Write the model and return the checksums of its files."""
    with Reader(str(source)) as reader, open_target(str(folder), KEY) as target:
        target.write(outputs(reader, **options))
        for name, data in SMALL.items():
            target.put(name, data)
        return target.checksums()


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def workplaces(folder: Path) -> list[Path]:
    """Return what targets have left in or beside a folder."""
    return [*folder.parent.glob(".cloudtune-*"), *folder.glob(".cloudtune-*")]


def _die_at(step: int, place: Path) -> None:
    """Let this process be killed right before a step below a place."""
    left = step

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in _CHANGES and str(arguments[0]).startswith(str(place)):
            if event == "open" and not int(str(arguments[2])) & (os.O_CREAT | os.O_WRONLY):
                return
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def _child(folder: Path, source: Path, step: int = 0, **options: float) -> int:
    child = os.fork()
    if not child:
        status = 1
        try:
            if step:
                _die_at(step, folder.parent)
            write(folder, source, **options)
            status = 0
        finally:
            os._exit(status)
    return child


class Scenario:
    """A target as it is before, and what must be true after each kill."""

    def __init__(self, kind: str, place: Path) -> None:
        self.kind, self.folder, self.source = kind, place / "out" / "model", place / "source.bin"
        self.source.write_bytes(random.Random(1).randbytes(300_000))
        self.whole = write(place / "whole", self.source)
        self.others = {"notes.txt": b"mine", "logs/node-0.log": b"log", "README.md": b"# mine"}

    def prepare(self) -> None:
        """Make the target as it was."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.folder.parent.mkdir()
        for name, data in self.others.items() if self.kind == "existing" else ():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)

    def check_left(self) -> dict[str, tuple[int, int]]:
        """Check what a kill has left, and return the files that were complete, by inode and time of writing."""
        if self.kind == "new":
            if self.folder.exists():
                self.check_whole()
        else:
            for name, data in self.others.items():
                assert (self.folder / name).read_bytes() == data, f"{name} was changed"
            shown = {path.name for path in self.folder.iterdir() if path.is_file()}
            if shown & set(LAST):
                # in their order, after everything else
                assert shown >= self.whole.keys() - set(LAST), f"{shown & set(LAST)} too early"
                there = [name in shown for name in LAST]
                assert there == sorted(there, reverse=True), f"{there} of {LAST}"
            for name in shown & self.whole.keys():
                assert digest(self.folder / name) == self.whole[name], f"{name} is not whole"
        found = {}
        for place in (*(work / KEY for work in workplaces(self.folder)), self.folder):
            for path in place.glob("*.safetensors"):
                assert digest(path) == self.whole[path.name], f"{path} has its name too early"
                found[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
        return found

    def check_whole(self) -> None:
        """Check that the model is there, and nothing else."""
        others = self.others if self.kind == "existing" else {}
        found = {path.name: digest(path) for path in self.folder.iterdir() if path.is_file()}
        expected = self.whole | {name: digest(self.folder / name) for name in others if "/" not in name}
        assert found == expected, f"{found.keys() ^ expected.keys()}"

    def complete(self, complete: dict[str, tuple[int, int]]) -> None:
        """Write the model to its end, and check that what was complete was not written again."""
        try:
            assert write(self.folder, self.source) == self.whole
        except UsageError as error:
            if "holds a model already" not in error.message:  # else it was killed after everything was there
                raise
        self.check_whole()
        assert not workplaces(self.folder)
        for name, facts in complete.items():
            status = (self.folder / name).stat()
            assert (status.st_ino, status.st_mtime_ns) == facts, f"{name} was written again"


def at_every_step(scenario: Scenario) -> int:
    """Kill a child before each step, until one gets to its end; return how many were killed."""
    for step in range(1, 1000):
        scenario.prepare()
        _, status = os.waitpid(_child(scenario.folder, scenario.source, step), 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            scenario.check_whole()
            return step - 1
        scenario.complete(scenario.check_left())
    raise AssertionError("it never ends")


def at_random(scenario: Scenario, kills: int, seed: int) -> int:
    """Kill children at random moments, several in turn at one target; return how many were killed."""
    dice, killed = random.Random(seed), 0
    while killed < kills:
        scenario.prepare()
        for _ in range(dice.randint(1, 4)):
            child = _child(scenario.folder, scenario.source, pause_s=0.002)
            time.sleep(dice.uniform(0, 0.12))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            killed += os.WIFSIGNALED(status)
            complete = scenario.check_left()
        scenario.complete(complete)
    return killed


def main() -> int:
    """Run a scenario and print how many were killed."""
    kind, place = sys.argv[1], Path(sys.argv[2]).resolve()
    assembly._TASK_BYTES = assembly._SPAN_BYTES = 200_000
    scenario = Scenario(kind, place)
    killed = at_random(scenario, int(sys.argv[3]), int(sys.argv[4])) if len(sys.argv) > 3 else at_every_step(scenario)
    print(json.dumps({"killed": killed}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
