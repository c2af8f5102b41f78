"""Lines of logs: who wrote them, and which of them somebody wants to see."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import attrs

from cloudtune.errors import UsageError
from cloudtune.states import LogLine

#: Returns the lines of a run, up to its end if it is told to follow it.
Read = Callable[[bool], Iterable[LogLine]]


def label(line: LogLine) -> str:
    """Return who wrote the line: ``[train 1/3] `` is replica 1, rank 3 of the step train."""
    who = "-" if line.replica is None else f"{line.replica}"
    who += f"/{line.rank}" if line.rank is not None else ""
    return f"[{line.step} {who}] " if line.step else f"[{who}] "


@attrs.frozen(kw_only=True)
class Choice:
    """Which lines are wanted.

    After ``since`` (seconds since the epoch), of one replica, matching the pattern ``grep``, and of those the last
    ``tail``. ``replicas`` is how many replicas the run has, as far as that is known.
    """

    since: float | None = None
    tail: int | None = None
    replica: int | None = None
    grep: str | None = None
    replicas: int | None = None

    def wants(self, line: LogLine) -> bool:
        """Whether the line is one of them; how many are wanted is another question."""
        return (
            (self.since is None or line.time >= self.since)
            and (self.replica is None or line.replica == self.replica)
            and (self.grep is None or re.search(self.grep, line.text) is not None)
        )

    def of(self, read: Read, *, follow: bool) -> Iterator[LogLine]:
        """Yield the lines that are wanted; of those that are followed, the last ones are told at the beginning.

        Raises:
            UsageError: the run has no such replica.
        """
        re.compile(self.grep or "")  # a wrong pattern is told before the first line
        if self.replica is not None and self.replicas is not None and not 0 <= self.replica < self.replicas:
            there = f"replicas 0 to {self.replicas - 1}" if self.replicas > 1 else "one replica, 0"
            raise UsageError(
                f"there is no replica {self.replica}: the run has {there}", hint="--replica 0 is the first"
            )
        seen: set[int] = set()
        chosen = self._wanted(read(follow), seen)
        if self.tail is None:
            yield from chosen
        elif not follow:
            yield from deque(chosen, maxlen=self.tail)
        else:
            first = sum(1 for line in read(False) if self.wants(line)) - self.tail
            yield from (line for index, line in enumerate(chosen) if index >= first)
        if self.replica is not None and seen and self.replica not in seen:
            there = ", ".join(str(one) for one in sorted(seen))
            raise UsageError(f"replica {self.replica} has written nothing", hint=f"there are lines of replica {there}")

    def _wanted(self, lines: Iterable[LogLine], seen: set[int]) -> Iterator[LogLine]:
        for line in lines:
            if line.replica is not None:
                seen.add(line.replica)
            if self.wants(line):
                yield line


def replicas_in(plan: str | None) -> int | None:
    """Return how many replicas a recorded plan starts, in a pipeline its largest step; None if nothing says it."""
    found = json.loads(plan) if plan else {}
    launches = [one for one in (found.get("launch"), *(found.get("launches") or {}).values()) if one]
    return max((int(one["nodes"]) for one in launches), default=None)
