"""Lines of a job's log: bytes of a stream -> lines, and the one text form in which every line travels.

``2026-11-20T23:10:01.123Z 3 E warning: ...``: UTC time with milliseconds, the global rank or ``-``, one letter for the
stream (O stdout, E stderr, A the agent's own words), the text.

In a cloud a line reaches its reader by a service that may deliver late, twice or out of order, so there it also says
which line it is: ``2026-11-20T23:10:01.123Z 1/4@7l0yk3g.17 3 E warning: ...`` is line 17 of node 1 of 4. The word
behind ``@`` is when that node's agent started: if it is started again, it numbers anew under a later word.
"""

from __future__ import annotations

import re
import sys
import time
from typing import NamedTuple

#: A longer line is cut here, with a note: a binary blob on stdout must not fill memory or a log service.
LIMIT_BYTES = 64 * 1024
CUT_NOTE = " [cut: this line is longer than 64 KiB]"

_LETTERS = {"stdout": "O", "stderr": "E", "agent": "A"}
_STREAMS = {letter: stream for stream, letter in _LETTERS.items()}
_TIME = r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z"
_LINE = re.compile(rf"{_TIME} (\d+|-) ([OEA])(?: (.*))?", re.DOTALL)
_NUMBERED = re.compile(
    rf"{_TIME} (\d{{1,9}})/(\d{{1,9}})@([0-9a-z]{{1,12}})\.(\d{{1,18}}) (\d+|-) ([OEA])(?: (.*))?", re.DOTALL
)
# what str.splitlines would take for the end of a line
_BREAKS = dict.fromkeys(map(ord, "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), " ")

_second = -1
_second_text = ""


class Numbered(NamedTuple):
    """A line that says which it is: ``number`` (from 1) of ``node`` (of ``nodes``), whose agent began at ``start``.

    Of two starts the later is the greater text.
    """

    node: int
    nodes: int
    start: str
    number: int
    time_s: float
    rank: int | None
    stream: str
    text: str


def start_word(time_s: float) -> str:
    """Return a moment as a short word, to a tenth of a second; later ones are greater for as long as this is used."""
    rest, word = int(time_s * 10), ""
    while rest:
        rest, digit = divmod(rest, 36)
        word = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + word
    return word.rjust(7, "0")


def format_line(time_s: float, rank: int | None, stream: str, text: str, *, mark: str = "") -> str:
    """Return one line of the log, without its newline; ``stream`` is ``stdout``, ``stderr`` or ``agent``.

    ``mark`` is which line it is, ``1/4@7l0yk3g.17``.
    """
    global _second, _second_text  # noqa: PLW0603 - a cache: thousands of lines share a second
    seconds, milliseconds = divmod(round(time_s * 1000), 1000)
    if seconds != _second:
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = seconds
    if not text.isascii() or not text.isprintable():
        text = text.translate(_BREAKS)
    who = f"{mark} {'-' if rank is None else rank}" if mark else ("-" if rank is None else str(rank))
    return f"{_second_text}.{milliseconds:03d}Z {who} {_LETTERS[stream]} {text}"


def parse_line(text: str) -> tuple[float, int | None, str, str] | None:
    """Return ``(time_s, rank, stream, text)`` of a line made by :func:`format_line`, or None for any other text."""
    match = _LINE.fullmatch(text.rstrip("\n"))
    time_s = _time(match) if match is not None else None
    if match is None or time_s is None:
        return None
    return time_s, _rank(match[8]), _STREAMS[match[9]], match[10] or ""


def parse_numbered(text: str) -> Numbered | None:
    """Return a line that says which it is, or None for any other text."""
    match = _NUMBERED.fullmatch(text.rstrip("\n"))
    time_s = _time(match) if match is not None else None
    if match is None or time_s is None:
        return None
    node, nodes, number = int(match[8]), int(match[9]), int(match[11])
    if node >= nodes or number == 0:
        return None
    rank, stream = _rank(match[12]), _STREAMS[match[13]]
    start = sys.intern(match[10])  # thousands of lines share it
    return Numbered(node, nodes, start, number, time_s, rank, stream, match[14] or "")


def _rank(text: str) -> int | None:
    return None if text == "-" else int(text)


def _time(match: re.Match[str]) -> float | None:
    year, month, day, hour, minute, second, milliseconds = (int(part) for part in match.groups()[:7])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        return None
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    return (seconds * 1000 + milliseconds) / 1000


def _days(year: int, month: int, day: int) -> int:
    """Return the days since 1970-01-01; years are counted from March, so that a leap day is the last one."""
    year -= month <= 2
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 719469


class Splitter:
    r"""Cuts a stream of bytes into lines of text.

    The states of a progress bar, which end in ``\r``, become lines of their own. Invalid UTF-8 is replaced.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False  # behind a cut, up to the next end of a line

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that end within the data."""
        data = self._rest + data
        if b"\r" not in data:
            parts = data.split(b"\n")
            self._rest = parts.pop()
        else:
            parts = self._split_bars(data)
        lines = []
        for part in parts:
            if self._skipping:
                self._skipping = False
            else:
                lines.append(_text(part))
        if len(self._rest) > LIMIT_BYTES:
            if not self._skipping:
                lines.append(_text(self._rest))
            self._skipping = True
            self._rest = b""
        return lines

    def flush(self) -> list[str]:
        """Return what is left as a last line, at the end of the stream."""
        rest, self._rest = self._rest.strip(b"\r"), b""
        skipping, self._skipping = self._skipping, False
        return [_text(rest)] if rest and not skipping else []

    def _split_bars(self, data: bytes) -> list[bytes]:
        held = b"\r" if data.endswith(b"\r") else b""  # it may be the first half of \r\n
        data = data[: len(data) - len(held)].replace(b"\r\n", b"\n")
        *whole, last = data.split(b"\n")
        parts: list[bytes] = []
        for part in whole:
            states = part.split(b"\r")
            bars = [state for state in states if state.strip()]
            parts += bars if len(states) > 1 else [part]
        *bars, rest = last.split(b"\r")
        parts += [state for state in bars if state.strip()]
        self._rest = rest + held
        return parts


def _text(data: bytes) -> str:
    if len(data) > LIMIT_BYTES:
        return data[:LIMIT_BYTES].decode("utf-8", "replace") + CUT_NOTE
    return data.decode("utf-8", "replace")
