"""Reads the text of a file that somebody names: bounded, UTF-8, with one clear fault for whatever is wrong."""

from __future__ import annotations

import itertools
import os

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.faults import nearest, shortened
from cloudtune.spec.nodes import BYTES


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file.

    Raises:
        SpecError: there is no such file, it cannot be read, it is no text, or it is larger than a job can be.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - also for names that no Path can hold
            data = file.read(BYTES + 1)
    except FileNotFoundError:
        raise _fault(name, "there is no such file", _neighbour(name)) from None
    except IsADirectoryError:
        raise _fault(name, "this is a folder, not a file", "name the YAML file in it") from None
    except PermissionError:
        # Windows says so of folders, too
        folder = os.path.isdir(name)  # noqa: PTH112
        raise _fault(name, "this is a folder, not a file" if folder else "the file may not be read") from None
    except (OSError, ValueError) as error:
        raise _fault(name, f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > BYTES:
        raise _fault(name, f"the file is larger than {BYTES // 1024} KiB; is it a job?")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = "this is no UTF-8 text; is it a binary file?"
        raise SpecError([Fault(message=message, file=shortened(name), line=line)]) from None


def _fault(name: str, message: str, hint: str | None = None) -> SpecError:
    return SpecError([Fault(message=message, file=shortened(name, 200), hint=hint)])


def _neighbour(name: str) -> str | None:
    """Return a hint at a file of nearly that name."""
    folder, base = os.path.split(name)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in itertools.islice(entries, 500)]
    except (OSError, ValueError):
        return None
    guess = nearest(base, [other for other in names if other.endswith((".yaml", ".yml"))])
    return f"did you mean {os.path.join(folder, guess)}?" if guess else None  # noqa: PTH118
