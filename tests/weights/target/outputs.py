"""Files that are written, or fail, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtune.weights.files.assembly import Made, Output
from cloudtune.weights.target import open_target
from tests.weights.target.killing import workplaces

OTHER = "f" * 16
SIZE = 300_000


def made(data: bytes, name: str = "model.safetensors") -> Output:
    return Output(name=name, pieces=(Made(length=len(data), blocks=lambda: iter([data])),))


def fails(error: BaseException, length: int = 10, name: str = "model.safetensors") -> Output:
    def blocks() -> Iterator[bytes]:
        yield b"x"
        raise error

    return Output(name=name, pieces=(Made(length=length, blocks=blocks),))


def write_all(folder: Path, key: str, *deeds: object) -> None:
    """Write a model by deeds: outputs, small files by name, errors to be raised, functions to be called."""
    with open_target(str(folder), key) as target:
        for deed in deeds:
            if isinstance(deed, Output):
                target.write([deed])
            elif isinstance(deed, tuple):
                target.put(*deed)
            elif isinstance(deed, BaseException):
                raise deed
            else:
                deed()


def kept(folder: Path) -> dict[str, int]:
    """Return the files that are complete in the workplace, by inode."""
    return {path.name: path.stat().st_ino for work in workplaces(folder) for path in work.glob("*/*[!t]")}


def inodes(folder: Path) -> list[int]:
    return sorted(path.stat().st_ino for work in workplaces(folder) for path in work.glob("*/*"))


def begun(folder: Path, key: str, data: bytes = b"one") -> None:
    with pytest.raises(ZeroDivisionError):
        write_all(folder, key, made(data), ZeroDivisionError())
