"""Lines of a job's log: bytes of a stream -> lines, and the one text form in which every line travels.

``2026-11-20T23:10:01.123Z 3 E warning: ...``: UTC time with milliseconds, the global rank or ``-``, one letter for the
stream (O stdout, E stderr, A the agent's own words), the text.
"""

from __future__ import annotations

import re
import time

#: A longer line is cut here, with a note: a binary blob on stdout must not fill memory or a log service.
LIMIT_BYTES = 64 * 1024
CUT_NOTE = " [cut: this line is longer than 64 KiB]"

_LETTERS = {"stdout": "O", "stderr": "E", "agent": "A"}
_STREAMS = {letter: stream for stream, letter in _LETTERS.items()}
_LINE = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z (\d+|-) ([OEA])(?: (.*))?", re.DOTALL)
# what str.splitlines would take for the end of a line
_BREAKS = dict.fromkeys(map(ord, "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), " ")

_second = -1
_second_text = ""


def format_line(time_s: float, rank: int | None, stream: str, text: str) -> str:
    """Return one line of the log, without its newline; ``stream`` is ``stdout``, ``stderr`` or ``agent``."""
    global _second, _second_text  # noqa: PLW0603 - a cache: thousands of lines share a second
    seconds, milliseconds = divmod(round(time_s * 1000), 1000)
    if seconds != _second:
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = seconds
    if not text.isascii() or not text.isprintable():
        text = text.translate(_BREAKS)
    return f"{_second_text}.{milliseconds:03d}Z {'-' if rank is None else rank} {_LETTERS[stream]} {text}"


def parse_line(text: str) -> tuple[float, int | None, str, str] | None:
    """Return ``(time_s, rank, stream, text)`` of a line made by :func:`format_line`, or None for any other text."""
    match = _LINE.fullmatch(text.rstrip("\n"))
    if match is None:
        return None
    year, month, day, hour, minute, second, milliseconds = (int(part) for part in match.groups()[:7])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        return None
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    rank = None if match[8] == "-" else int(match[8])
    return (seconds * 1000 + milliseconds) / 1000, rank, _STREAMS[match[9]], match[10] or ""


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
