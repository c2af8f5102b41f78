"""The numbered lines of one start of a node's agent: as far as none is missing, and whether a missing one is lost.

A search shows a stretch of a log; what a node wrote may be elsewhere: behind the stretch, before it, or nowhere. A line
is taken for lost once it has been waited for and a whole sweep of searches, begun well before it, has not shown it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import attrs

from cloudtune.node.farewell import WORD
from cloudtune.node.lines import Numbered
from cloudtune.states import LogLine

#: Seconds that a missing line is waited for since a later one of its node was taken in.
LATE_S = 60.0
#: Seconds before a missing line's successor in which it is looked for.
LOOK_BACK_S = 180.0
#: Seconds after which it is looked for further and further back.
GROWING_S = 15.0
#: Seconds by which services' times of a node's lines may disagree with the lines' numbers.
JITTER_S = 1.0
#: Seconds of the log that must have been read behind a line's successor before the line is lost.
BEYOND_S = 3.0


@attrs.define
class Stream:
    """How far the lines have been told: number of the next, place and time of the last.

    ``end`` is the number of the last line there is, 0 as long as it is not known.
    """

    next: int = 1
    key: float = 0.0
    at: float | None = None
    end: int = 0


@attrs.define
class Sweep:
    """Searches one behind the other, from ``start`` to the end of the log as it is.

    ``nexts`` are the streams' next lines as long as it has not shown them, ``gaps`` what it has shown behind those
    (number and time of the first line), ``stuck`` the streams of which lines were passed over, ``backed`` for which it
    went back. ``low`` is from when on the next sweep must search again; ``moved`` whether lines were told.
    """

    start: float
    nexts: dict[str, int]
    gaps: dict[str, list[Any]] = attrs.field(factory=dict)
    stuck: list[str] = attrs.field(factory=list)
    backed: dict[str, int] = attrs.field(factory=dict)
    low: float | None = None
    moved: bool = False


@attrs.frozen(kw_only=True)
class View:
    """What one search shows: the entries from ``at`` to ``top``, and whether there are ``more`` behind them.

    ``begin`` is before the first entry of all, ``now`` the service's time. Entries from ``middle`` on will be shown
    again by the next search if there are more.
    """

    begin: float
    at: float
    top: float
    middle: float
    now: float
    more: bool


@attrs.define
class Line:
    """A line on its way: ``key`` is its place among those of other nodes, ``at`` when the service took it.

    ``since`` is when it took the earliest of this line and those behind it on its node. ``last`` is a node's farewell,
    which people need not see; ``entry`` is the mark of a line without a number.
    """

    key: float
    at: float
    line: LogLine
    number: int = 0
    last: bool = False
    entry: str = ""
    since: float = 0.0


@attrs.define
class LineUp:
    """The lines of one stream that can be told once their time has come, and the times of those that must wait.

    ``floor`` is from when on the missing one is to be looked for; ``back`` if that should be done at once.
    """

    queue: deque[Line] = attrs.field(factory=deque)
    waiting: list[float] = attrs.field(factory=list)
    floor: float | None = None
    back: bool = False


def line_up(name: str, stream: Stream, found: Mapping[int, tuple[Numbered, float]], sweep: Sweep, view: View) -> LineUp:
    """Return the lines that were found, up to the first that is missing and not lost; note in the sweep what is."""
    lines = LineUp()
    key, at, number = stream.key, stream.at, stream.next
    numbers = sorted(found)
    times = [found[one][1] for one in numbers]
    since_from = list(accumulate(reversed(times), min))[::-1]  # when the earliest of a line and those behind it came
    gap = sweep.gaps.get(name) if sweep.nexts.get(name, 1) == number else None
    index = 0
    while index < len(numbers) or gap is not None:
        if index < len(numbers) and numbers[index] == number:
            line, taken = found[number]
            sweep.nexts[name] = 0  # this sweep has shown it
            key, at, number, index, gap = max(key, line.time_s), taken, number + 1, index + 1, None
            lines.queue.append(_told(line, key, taken))
            continue
        later = min([*numbers[index : index + 1], *([gap[0]] if gap else [])])
        since = min([*since_from[index : index + 1], *([gap[1]] if gap else [])])
        if not _is_lost(name, number, at, since, sweep, view):
            _wait(lines, name, number, at, later, since, times[index:], sweep, view)
            break
        note = _lost(int(name.partition("@")[0]), later - number, key or since)
        lines.queue.append(Line(key=key, at=since, line=note, number=later - 1))
        number, gap = later, None
    since = float("inf")
    for one in reversed(lines.queue):
        one.since = since = min(since, one.at)
    return lines


def _is_late(since: float, view: View) -> bool:
    return view.now - since > LATE_S and (not view.more or view.top - since >= BEYOND_S)


def _floor(at: float | None, since: float, view: View) -> float:
    """Return the time before which a missing line cannot be, ``at`` being that of the line before it."""
    return max(view.begin, max(since - LOOK_BACK_S, since - LOOK_BACK_S if at is None else at) - JITTER_S)


def _is_lost(name: str, number: int, at: float | None, since: float, sweep: Sweep, view: View) -> bool:
    if not _is_late(since, view):
        return False
    if sweep.nexts.get(name, 1) == number:
        return sweep.start <= _floor(at, since, view)
    return name not in sweep.stuck and view.at <= _floor(at, since, view)


def _wait(
    lines: LineUp,
    name: str,
    number: int,
    at: float | None,
    later: int,
    since: float,
    waiting: list[float],
    sweep: Sweep,
    view: View,
) -> None:
    floor = _floor(at, since, view)
    if sweep.nexts.get(name, 1) == number:
        sweep.gaps[name] = [later, since]
    elif name not in sweep.stuck and _is_late(since, view) and sweep.backed.get(name) != number:
        sweep.backed[name] = number
        lines.back = True
    if since < view.middle and not lines.back and name not in sweep.stuck:
        sweep.stuck.append(name)
    lines.waiting = waiting
    lines.floor = floor if lines.back else floor - max(0.0, view.now - since - GROWING_S)


def _told(line: Numbered, key: float, at: float) -> Line:
    text = line.text.rstrip("\r")
    last = line.stream == "agent" and text.startswith(WORD)
    told = LogLine(time=key, replica=line.node, rank=line.rank, stream=line.stream, text=text)
    return Line(key=key, at=at, line=told, number=line.number, last=last)


def _lost(node: int, count: int, time_s: float) -> LogLine:
    what = f"{count} lines" if count > 1 else "one line"
    text = f"{what} of node {node} did not come: the log service has lost them, or is very late"
    return LogLine(time=time_s, replica=node, rank=None, stream="agent", text=text)
