"""What is kept of each process of the job: when and how it ended, its last lines, its traceback."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any

from cloudtune.node.report import ending

#: Lines kept for the report, and lines of stderr searched for a traceback.
LAST_LINES = 20
_SEARCHED_LINES = 400
_KEPT_CHARACTERS = 2000
_TRACEBACK = "Traceback (most recent call last)"
# torch puts the rank before every line of an uncaught exception
_PREFIX = re.compile(r"^\[rank\d+\]:\s?")
# torch's C++ has the same prefix
_WARNING = re.compile(r"\[[IWEF]\d{4} ")


class Record:
    """One process of the job: a rank, or the command itself (``rank`` is then None, or the node's only rank)."""

    def __init__(self, *, rank: int | None, local_rank: int, pid: int) -> None:
        self.rank = rank
        self.local_rank = local_rank
        self.pid = pid
        self.ended_at: float | None = None
        self.exit_code: int | None = None
        self.signal: str | None = None
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self._errors: deque[str] = deque(maxlen=_SEARCHED_LINES)

    def hear(self, stream: str, lines: Sequence[str]) -> None:
        """Keep the last lines."""
        kept = [line if len(line) <= _KEPT_CHARACTERS else line[:_KEPT_CHARACTERS] for line in lines[-_SEARCHED_LINES:]]
        self.lines.extend(kept)
        if stream == "stderr":
            self._errors.extend(kept)

    def end(self, time_s: float, code: int | None) -> None:
        """Note the end; the code is a ``Popen.returncode`` (negative: a signal), None if it is not known yet."""
        if self.ended_at is None:
            self.ended_at = time_s
        if code is not None and self.exit_code is None:
            self.exit_code, self.signal = ending(code)

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than with exit code 0, as far as is known."""
        return bool(self.exit_code) or self.signal is not None

    @property
    def traceback(self) -> str | None:
        """The last traceback that Python wrote to stderr."""
        return last_traceback(self._errors)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as the report shows it."""
        return {
            "rank": self.rank,
            "localRank": self.local_rank,
            "pid": self.pid,
            "endedAt": self.ended_at,
            "exitCode": self.exit_code,
            "signal": self.signal,
            "lines": list(self.lines),
            "traceback": self.traceback,
        }


def last_traceback(lines: Sequence[str]) -> str | None:
    """Return the last traceback among the lines, up to the line that names the exception; None if there is none."""
    bare = [_PREFIX.sub("", line) for line in lines]
    starts = [index for index, line in enumerate(bare) if line.startswith(_TRACEBACK)]
    if not starts:
        return None
    start = starts[-1]
    # the text of an exception with torch's prefix goes on as long as the prefix does
    prefixed = _PREFIX.match(lines[start]) is not None
    block = [bare[start]]
    for line, original in zip(bare[start + 1 :], list(lines)[start + 1 :]):
        if prefixed and (_PREFIX.match(original) is None or _WARNING.match(line)):
            break
        block.append(line)
        if line and not line[0].isspace() and not prefixed:
            break
    return "\n".join(block).rstrip()
