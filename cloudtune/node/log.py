"""The node's log: every line on stdout and in the node's file, with no secret in it; numbered where asked."""

from __future__ import annotations

import os
import re
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudtune.node.lines import format_line, start_word
from cloudtune.node.masks import URI_VARIABLE, is_secret_name
from cloudtune.node.records import LAST_LINES

#: Shorter values are ordinary words too often.
_SHORTEST = 6
#: Shorter values in a query are dates and types of content.
_LONG = 20


class Redaction:
    """Replaces the values of secrets in texts by ``***``."""

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()

    def add(self, values: Iterable[str]) -> None:
        """Hide these values from now on; of a value of several lines (a key) each line is hidden."""
        pieces = {piece.strip() for value in values for piece in (value, *value.splitlines())}
        known = {piece for piece in pieces if len(piece) >= _SHORTEST}
        # the longest first: one value may hold another
        self._values = tuple(sorted(known.union(self._values), key=lambda value: (-len(value), value)))

    def add_variables(self, variables: Mapping[str, str]) -> None:
        """Hide the values of those variables whose names say that they are secrets."""
        for name, value in variables.items():
            if is_secret_name(name):
                self.add([value])
            if URI_VARIABLE.fullmatch(name):
                self.add(_parts(value))

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        for value in self._values:
            if value in text:
                text = text.replace(value, "***")
        return text

    def data(self, value: Any) -> Any:
        """Return JSON data without secrets in its texts."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {key: self.data(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(item) for item in value]
        return value


def _parts(value: str) -> list[str]:
    """Return what a library may print of what stood in a URI: the password, the longer values of a query."""
    if "=" in value:
        values = [parameter.partition("=")[2] for parameter in re.split("[&;]", value)]
        parts = [one for one in values if len(one) >= _LONG]
    else:
        parts = [value.partition(":")[2]]
    return [*parts, *map(_unquoted, parts)]


def _unquoted(text: str) -> str:
    def decoded(run: re.Match[str]) -> str:
        return bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "replace")

    return re.sub(r"(?:%[0-9A-Fa-f]{2})+", decoded, text)


class Log:
    """Writes lines to stdout and to the node's file, unless stdout is that file already."""

    def __init__(self, path: Path, redaction: Redaction, *, stdout: int = 1) -> None:
        self.path = path
        self.redaction = redaction
        self.last_words: deque[str] = deque(maxlen=LAST_LINES)
        self.failure: str | None = None
        self.lines = 0
        self._mark = ""
        self._lock = threading.Lock()
        self._stdout: int | None = stdout
        self._file: int | None = None
        try:
            same = path.exists() and os.path.samestat(path.stat(), os.fstat(stdout))
            if not same:
                self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self.failure = f"cannot write {path}: {error.strerror}"

    def number(self, node: int, nodes: int) -> None:
        """Say of each line from now on which it is: the first of this node is number 1."""
        if not self._mark:
            self._mark = f"{node}/{max(nodes, node + 1)}@{start_word(time.time())}."

    @property
    def numbered(self) -> bool:
        """Whether lines say which they are; ``lines`` is how many there are so far."""
        return bool(self._mark)

    def say(self, text: str) -> None:
        """Write the agent's own words."""
        lines = self.write(None, "agent", text.splitlines() or [""])
        self.last_words.extend(lines)

    def write(self, rank: int | None, stream: str, lines: Sequence[str], time_s: float | None = None) -> list[str]:
        """Write lines of one stream; return them without secrets."""
        now = time.time() if time_s is None else time_s
        clean = [self.redaction(line) for line in lines]
        if clean:
            with self._lock:  # numbers are in the order of the file
                marks = self._marks(len(clean))
                text = (
                    "\n".join([format_line(now, rank, stream, line, mark=mark) for line, mark in zip(clean, marks)])
                    + "\n"
                )
                self._put(text.encode("utf-8", "replace"))
        return clean

    def _marks(self, count: int) -> list[str]:
        if not self._mark:
            return [""] * count
        first, self.lines = self.lines + 1, self.lines + count
        return [f"{self._mark}{number}" for number in range(first, self.lines + 1)]

    def _put(self, data: bytes) -> None:
        if self._stdout is not None:
            try:
                _write_all(self._stdout, data)
            except OSError as error:
                # nobody listens any more, or its disk is full; the job itself goes on
                self.failure = self.failure or f"cannot write the log: {error.strerror}"
                if error.errno is None or isinstance(error, BrokenPipeError):
                    self._stdout = None
        if self._file is not None:
            try:
                _write_all(self._file, data)
            except OSError as error:
                self.failure = self.failure or f"cannot write {self.path}: {error.strerror}"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def write_error(text: str) -> None:
    """Write to stderr, where there is no log yet."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        pass
