"""Lines of all nodes as one, from a log service that delivers late, twice and out of order: each once, in order.

The agent numbers its lines (see :mod:`cloudtune.node.lines`), so a reader knows which of a node's lines it lacks. A
line waits for those before it on its node, and for earlier ones of other nodes. Nothing that waits is kept: the cursor
says from which moment of the service's clock to search again, and holds the next number of each node and little else.
Lines that are not the agent's own pass as they are, known again by the service's id within an overlap.

A service is searched from ``cursor["at"]`` on, oldest first; what was found is handed to :func:`take`.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from cloudtune.backends.streams import JITTER_S, Line, LineUp, Stream, Sweep, View, line_up
from cloudtune.node.lines import Numbered, parse_line, parse_numbered
from cloudtune.states import LogLine

#: Seconds that a line waits for earlier ones of other nodes which have none to show.
HORIZON_S = 3.0
#: Seconds that a reader in a flood may be behind, and seconds back to which late lines are looked for, without
#: searching on at once.
BEHIND_S = 10.0
BACK_S = 20.0
#: Seconds that the lines of an agent that was started again wait for the last ones of the agent before it.
RESTART_S = 10.0
#: What is searched again for late entries: so many seconds, or so many entries if these are less time.
OVERLAP_S = 60.0
OVERLAP = 2000
#: Ids of entries without a number that are kept, and nodes that are waited for.
_SEEN = 2 * OVERLAP
_NODES = 4096


@attrs.frozen(kw_only=True)
class Entry:
    """What a log service gives: its own id and time of an entry (seconds since the epoch), and the text.

    ``stream`` and ``replica`` are what the service knows of a line that is not the agent's, ``step`` which of several
    jobs wrote it.
    """

    id: str
    at: float
    text: str
    stream: str = "stdout"
    replica: int | None = None
    step: str | None = None


def beginning(at: float) -> dict[str, Any]:
    """Return the cursor before the first entry; nothing was written before ``at``."""
    times = {"at": at, "begin": at, "top": at, "news": at, "whole": at}
    counts = {"of": 0, "held": 0, "waiting": 0}
    return {**times, **counts, "streams": {}, "seen": {}, "sweep": None, "again": False}


def take(
    entries: Iterable[Entry],
    cursor: Mapping[str, Any],
    *,
    now: float,
    more: bool,
    over: float | None = None,
    closed: Mapping[str, int] | None = None,
) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Return the lines that can be told, in order, and the cursor behind them.

    ``entries`` are the first that the service has from ``cursor["at"]`` on; ``more`` says that it has others behind
    them. ``now`` is the service's time, ``over`` when the run ended. ``closed`` has the numbers of the last lines of
    agents that did not come to say that, by their names in the cursor's ``streams``. In the cursor, ``again`` says
    that the next search should follow at once, ``waiting`` whether there is something that was found and not told,
    ``news`` is when something new came.
    """
    batch = _Batch(entries, cursor, now=now, more=more)
    batch.close(closed or {})
    lines = tuple(batch.told())
    return lines, batch.cursor_behind(told=len(lines), over=over)


def ended(cursor: Mapping[str, Any]) -> bool:
    """Return whether every line of every node has been told: each node has said how many there are."""
    return 0 < cursor["of"] <= farewells(cursor) and not cursor["waiting"]


def farewells(cursor: Mapping[str, Any]) -> int:
    """Return how many nodes have written their last line."""
    newest = {_node(name): cursor["streams"][name] for name in sorted(cursor["streams"])}
    return sum(1 for values in newest.values() if Stream(*values).end)


def stream_name(line: Numbered) -> str:
    """Return what the lines of one start of a node's agent go by in a cursor."""
    return f"{line.node}@{line.start}"


def is_ended(cursor: Mapping[str, Any], stream: str) -> bool:
    """Return whether a start of a node's agent, named as in the cursor's ``streams``, has written its last line."""
    return bool(Stream(*cursor["streams"][stream]).end)


class _Batch:
    """What one search has found."""

    def __init__(self, entries: Iterable[Entry], cursor: Mapping[str, Any], *, now: float, more: bool) -> None:
        self.before = cursor
        ordered = sorted(entries, key=lambda entry: entry.at)  # not kept: there may be many thousands
        count = len(ordered)
        self.now = now
        self.more = more = more and bool(ordered)
        self.at = float(cursor["at"])
        self.top = ordered[-1].at if ordered else self.at
        self.middle = ordered[count // 2].at if more else float("inf")
        self.quarter = ordered[count // 4].at if more else float("inf")
        self.last_few = ordered[-OVERLAP].at if count > OVERLAP else None
        self.of = int(cursor["of"])
        self.streams = {name: Stream(*values) for name, values in cursor["streams"].items()}
        self.seen: dict[str, float] = dict(cursor["seen"])
        nexts = {name: stream.next for name, stream in self.streams.items()}
        self.sweep = Sweep(**cursor["sweep"]) if cursor["sweep"] else Sweep(start=self.at, nexts=nexts)
        self.hidden = 0
        self.steps: dict[str, str | None] = {}
        view = View(begin=cursor["begin"], at=self.at, top=self.top, middle=self.middle, now=now, more=more)
        found, self.others = self._sorted(ordered)
        self.lines: dict[str, LineUp] = {
            name: line_up(name, stream, found.get(name, {}), self.sweep, view) for name, stream in self.streams.items()
        }
        self.starts: dict[int, list[str]] = {}
        for name in sorted(self.streams):
            self.starts.setdefault(_node(name), []).append(name)

    def _sorted(self, entries: Sequence[Entry]) -> tuple[dict[str, dict[int, tuple[Numbered, float]]], deque[Line]]:
        """Return the agents' lines by start and number, and the others, all without what was told before."""
        found: dict[str, dict[int, tuple[Numbered, float]]] = {}
        others: dict[str, Line] = {}
        for entry in entries:
            line = parse_numbered(entry.text)
            if line is None:
                mark = hashlib.blake2b(entry.id.encode(errors="replace"), digest_size=6).hexdigest()
                if mark not in self.seen and entry.at >= self.before["whole"]:
                    others[mark] = Line(key=entry.at, at=entry.at, line=_plain(entry), entry=mark, since=entry.at)
                continue
            self.of = min(max(self.of, line.nodes), _NODES)
            name = stream_name(line)
            self.steps[name] = entry.step
            stream = self.streams.get(name)
            if stream is None:
                stream = self.streams[name] = Stream()
            if line.number >= stream.next:
                known = found.setdefault(name, {})
                if line.number not in known or entry.at < known[line.number][1]:
                    known[line.number] = (line, entry.at)
        return found, deque(sorted(others.values(), key=lambda one: one.at))

    def close(self, closed: Mapping[str, int]) -> None:
        """Take it that no lines follow those of these numbers."""
        for name, number in closed.items():
            if name in self.streams and not self.streams[name].end:
                self.streams[name].end = number

    # --- what can be told

    def told(self) -> Iterator[LogLine]:
        """Yield the lines that no other can precede any more, in order."""
        yield from self._merged()
        if self.more:
            # so much of the log has been seen behind these that they must do; in a flood, all of a moment
            until = self.quarter if self.quarter > self.at else self.at + 0.001
            yield from self._merged(until=min(until, self.now - HORIZON_S))

    def _merged(self, *, until: float | None = None) -> Iterator[LogLine]:
        """Yield lines as long as none can precede the next; with a time, all that the service took before it."""
        nodes = {*range(self.of), *self.starts}
        heads = {node: name for node in nodes if (name := self._head(node)) is not None}
        self.silent = {node: self._key_of(node) for node in nodes if node not in heads and self._is_live(node)}
        heap = [(self.lines[name].queue[0].key, node) for node, name in heads.items()]
        if self.others:
            heap.append((self.others[0].key, -1))
        heapq.heapify(heap)
        while heap:
            node = heap[0][1]
            queue = self.others if node < 0 else self.lines[heads[node]].queue
            line = queue[0]
            if not self._may_go(line) and not (until is not None and line.since < until):
                if until is None:
                    return
                heapq.heappop(heap)
                continue
            queue.popleft()
            said = line.line
            if node < 0:
                self.seen[line.entry] = line.at
            else:
                if step := self.steps.get(heads[node]):
                    said = attrs.evolve(said, step=step)
                self._advance(self.streams[heads[node]], line)
                name = self._head(node)
                if name is not None:
                    heads[node], queue = name, self.lines[name].queue
                else:
                    queue = deque()
                    if self._is_live(node):
                        self.silent[node] = line.key
            if queue:
                heapq.heapreplace(heap, (queue[0].key, node))
            else:
                heapq.heappop(heap)
            self.hidden += line.last
            if not line.last:
                yield said

    def _may_go(self, line: Line) -> bool:
        """Whether no line that is not here yet can come before this one, as far as its horizon goes."""
        ahead = self.of and not any(key < line.key for key in self.silent.values())
        if ahead:
            return True
        if self.now - line.at < HORIZON_S:
            return False
        if not self.more or self.top - line.at >= HORIZON_S:
            return True
        # nodes that have lines up to where the search was cut have more behind it
        return line.at < self.middle and not any(self._goes_on(node) for node in self.silent)

    def _goes_on(self, node: int) -> bool:
        names = self.starts.get(node, ())
        times = [self.streams[name].at or 0.0 for name in names]
        times += [at for name in names for at in self.lines[name].waiting]
        return any(at >= self.middle for at in times)

    def _key_of(self, node: int) -> float:
        names = self.starts.get(node)
        return self.streams[names[-1]].key if names else 0.0

    def _is_live(self, node: int) -> bool:
        names = self.starts.get(node)
        return not names or not self.streams[names[-1]].end

    def _head(self, node: int) -> str | None:
        """Return the stream that has a node's next line; an agent that was started again waits for the one before."""
        held = False
        for name in self.starts.get(node, ()):
            lines = self.lines[name]
            if lines.queue:
                return name if not held or self.now - lines.queue[0].at >= RESTART_S else None
            if lines.waiting:
                return None
            held = held or not self.streams[name].end
        return None

    def _is_whole(self) -> bool:
        """Whether every node has told its last line."""
        ends = [self.streams[names[-1]].end for names in self.starts.values()]
        return 0 < self.of <= len(ends) and all(ends)

    @staticmethod
    def _advance(stream: Stream, line: Line) -> None:
        stream.key, stream.at = max(stream.key, line.key), line.at
        stream.next = line.number + 1
        # a line behind that which was taken for the last shows that it was not
        stream.end = line.number if line.last else stream.end * (stream.end >= line.number)

    # --- how far it was read

    def cursor_behind(self, *, told: int, over: float | None) -> dict[str, Any]:
        """Return the cursor for the next search; ``told`` is how many lines came out of this one."""
        before, sweep = self.before, self.sweep
        told += self.hidden
        ready = [line.at for queue in (self.others, *(one.queue for one in self.lines.values())) for line in queue]
        gaps = [(name in sweep.stuck, at) for name, one in self.lines.items() for at in one.waiting]
        held = len(ready) + len(gaps)
        low = None if self._is_whole() else sweep.low
        waiting = held + (low is not None)
        lows = [one.floor for one in self.lines.values() if one.floor is not None]
        if self.more:
            lows += [at for _, at in gaps if at < self.middle]
            at = self._next_search(ready, [at for stuck, at in gaps if not stuck and at >= self.middle])
            # what is behind is younger still: most of it would have to wait
            again = self.now - self.top >= BEHIND_S
            overlap = at
        else:
            overlap = self._overlap(over)
            at = min([overlap, *lows, *ready, *(at for _, at in gaps), *([] if low is None else [low])])
            moved = bool(before["sweep"]) and waiting > 0 and (told > 0 or sweep.moved)
            again = moved and self.now - at >= BACK_S
        whole = max(before["whole"], min([overlap, *(line.at for line in self.others)]))
        seen = {mark: taken for mark, taken in self.seen.items() if taken >= whole}
        if len(seen) > _SEEN:
            seen = dict(sorted(seen.items(), key=lambda item: item[1])[-_SEEN:])
            whole = max(whole, min(seen.values()))
        low = min([*lows, *([] if low is None else [low])], default=None)
        return {
            "at": at,
            "begin": before["begin"],
            "top": max(self.top, before["top"]),
            # what was held is told some time: that is no news
            "news": self.now if self.top > before["top"] or told + held > before["held"] else before["news"],
            "whole": whole,
            "of": self.of,
            "streams": {name: list(attrs.astuple(stream)) for name, stream in self.streams.items()},
            "seen": seen,
            "sweep": attrs.asdict(attrs.evolve(sweep, low=low, moved=sweep.moved or told > 0)) if self.more else None,
            "held": held,
            "waiting": waiting,
            "again": again,
        }

    def _next_search(self, ready: list[float], gaps: list[float]) -> float:
        """Return where a search that was cut goes on: behind it, or at the first line that waits and would be shown."""
        back = [one.floor for one in self.lines.values() if one.back and one.floor is not None]
        if back:
            return min(back)
        at = min((*ready, *gaps), default=self.top)
        if at > self.at or any(self.now - one < HORIZON_S for one in ready):
            return at
        return self.top if self.top > self.at else self.at + 0.001

    def _overlap(self, over: float | None) -> float:
        """Return from when on late entries are looked for, missing ones aside."""
        start = (self.now if over is None else min(self.now, over)) - OVERLAP_S
        if self.last_few is not None:
            start = max(start, self.last_few)
        elif self.before["sweep"]:
            start = max(start, self.at)
        if over is not None:
            # the last lines of these nodes are still to come
            newest = [self.streams[names[-1]] for names in self.starts.values()]
            times = [one.at - JITTER_S if one.at is not None else 0.0 for one in newest if not one.end]
            times += [0.0] if len(newest) < self.of else []
            start = min([start, *(max(at, over - OVERLAP_S) for at in times)])
        return start


def _node(name: str) -> int:
    return int(name.partition("@")[0])


def _plain(entry: Entry) -> LogLine:
    """Return a line without a number: of the service, of a container without the agent, or an agent's first words."""
    parsed = parse_line(entry.text)
    time_s, rank, stream, text = parsed or (entry.at, None, entry.stream, entry.text)
    shown = text.rstrip("\r\n")
    return LogLine(time=time_s, replica=entry.replica, rank=rank, stream=stream, text=shown, step=entry.step)
