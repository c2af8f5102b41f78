"""The logs of this machine's nodes as one: lines in the order of their times, each once, however much is read at once.

A line waits for the next reply while an earlier one of another node may still come: that node's log has been read only
up to an earlier time, or the line is so young that a line before it may be on its way to its file. The cursor stays
before a line that waits, so it is read again and nothing has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.node.lines import parse_line
from cloudtune.states import LogLine

#: Seconds that a line may take from its time stamp to its file.
WAIT_S = 0.05


def merged(reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], Mapping[str, Any]]:
    """Return the lines of a reply that no other can precede any more, by time, and the cursor behind them."""
    logs: Mapping[str, str] = reply["logs"]
    before: Mapping[str, Any] = reply["cursor"] or {"times": {}, "ends": reply["sizes"]}
    reached = {node: _last_time(text) for node, text in logs.items() if reply["more"][node]}
    last = min(reached, key=reached.__getitem__, default=None)
    limit = float("inf") if last is None else reached[last]
    now = float("-inf") if reply["time"] is None else float(reply["time"])
    found: list[LogLine] = []
    offsets, times = dict(reply["offsets"]), dict(before["times"])
    behind = {node for node, more in reply["more"].items() if more}
    for node, text in logs.items():
        waiting = len(_bytes(text))
        for size, line in _lines(int(node), text, times.get(node)):
            # a line from further ahead is from before the clock was set back
            young = now - WAIT_S < line.time <= now + WAIT_S
            if young or (line.time > limit and node != last):
                break
            found.append(line)
            times[node] = line.time
            waiting -= size
        if waiting:
            offsets[node] -= waiting
            behind.add(node)
    found.sort(key=lambda line: line.time)
    ends = before["ends"]
    caught_up = all(offsets.get(node, 0) >= end or node not in behind for node, end in ends.items())
    return tuple(found), {"offsets": offsets, "times": times, "ends": ends, "caughtUp": caught_up}


def _lines(node: int, text: str, time_s: float | None) -> Iterator[tuple[int, LogLine]]:
    """Yield the lines of a node's log with their sizes in bytes; one without a time has that of the one before it."""
    *whole, rest = text.split("\n")
    for number, raw in enumerate([*whole, rest] if rest else whole):
        parsed = parse_line(raw)
        if parsed is None:  # not the agent's: the system's, or of an agent that could not start
            if time_s is None:
                time_s = next((known[0] for later in whole if (known := parse_line(later))), 0.0)
            parsed = (time_s, None, "agent", raw)
        time_s, rank, stream, words = parsed
        words = words if words.isascii() else _bytes(words).decode(errors="replace")
        yield (
            len(_bytes(raw)) + (number < len(whole)),
            LogLine(time=time_s, replica=node, rank=rank, stream=stream, text=words.rstrip("\r")),
        )


def _last_time(text: str) -> float:
    for raw in reversed(text.split("\n")):
        parsed = parse_line(raw)
        if parsed is not None:
            return parsed[0]
    return 0.0


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
