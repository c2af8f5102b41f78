"""Lines of nodes through a log service that is as bad as it may be: each once, in order, whatever happens to them."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.backends import numbered, streams
from cloudtune.backends.numbered import Entry, beginning, ended, farewells, take
from cloudtune.node.farewell import farewell
from cloudtune.node.lines import format_line, start_word
from cloudtune.states import LogLine

BEGIN = 1_800_000_000.0


@attrs.define
class Service:
    """Entries and when each can be found; ``limit`` is how many one search gives."""

    limit: int
    entries: list[tuple[float, Entry]] = attrs.field(factory=list)
    searches: int = 0
    sizes: list[int] = attrs.field(factory=list)

    def add(self, text: str, *, at: float, seen: float, identity: str = "", times: int = 1) -> None:
        for number in range(times):
            name = identity or f"{len(self.entries)}"
            self.entries.append((max(at, seen) + number, Entry(id=name, at=round(at, 3), text=text)))

    def read(self, until: float, *, poll_s: float, over: float | None = None) -> tuple[list[LogLine], dict[str, Any]]:
        """Follow the log up to a moment, one search after the other."""
        now, cursor, told = BEGIN, beginning(BEGIN - 100), []
        waiting = sorted(self.entries, key=lambda one: one[0])
        there: list[Entry] = []
        while True:
            while waiting and waiting[0][0] <= now:
                there.append(waiting.pop(0)[1])
            found = sorted((one for one in there if one.at >= cursor["at"]), key=lambda one: (one.at, one.id))
            more = len(found) > self.limit
            ended_at = over if over is not None and now >= over else None
            lines, after = take(found[: self.limit], cursor, now=now, more=more, over=ended_at)
            told += lines
            cursor = json.loads(json.dumps(after))
            assert cursor == after
            self.searches += 1
            self.sizes.append(len(json.dumps(cursor)))
            assert self.searches < 20_000, "the reader goes in circles"
            if not cursor["again"]:
                if now >= until:
                    return told, cursor
                now += poll_s


@attrs.frozen
class Written:
    """One line of a node: which, when the node's clock and the service's had it, when it could be found, how often."""

    node: int
    number: int
    time: float
    at: float
    seen: float
    times: int
    start: int = 0

    @property
    def text(self) -> str:
        return f"line {self.number} of {self.node} start {self.start}"


def line(one: Written, nodes: int, *, text: str | None = None, stream: str = "stdout") -> str:
    mark = f"{one.node}/{nodes}@{start_word(BEGIN + 1000 * one.start)}.{one.number}"
    return format_line(one.time, one.node, stream, one.text if text is None else text, mark=mark)


@st.composite
def runs(draw: st.DrawFn, *, late_s: float, skew_s: float, jitter_s: float = 0.2) -> list[list[Written]]:
    """Draw what the nodes of a run write; the last line of each is its farewell."""
    random_ = random.Random(draw(st.integers(0, 2**32)))
    nodes = draw(st.integers(1, 4))
    found = []
    taken: set[int] = set()  # a search shows more than there are in a millisecond
    for node in range(nodes):
        now, skew = BEGIN + random_.random() * 5, random_.uniform(-skew_s, skew_s)
        pace = random_.choice([0.0, 0.001, 0.3, 0.8])
        lines = []
        for number in range(1, draw(st.integers(1, 40)) + 1):
            now += random_.expovariate(1 / pace) if pace else 0.0
            moment = round((now + random_.random() * jitter_s) * 1000)
            while moment in taken:
                moment += 1
            taken.add(moment)
            at = moment / 1000
            seen = at + random_.choice([0.0, random_.random() * late_s])
            lines.append(Written(node, number, round(now + skew, 3), at, seen, random_.choice([1, 1, 1, 2, 3])))
        found.append(lines)
    return found


def delivered(nodes: list[list[Written]], limit: int, lost: set[tuple[int, int]] = frozenset()) -> Service:  # type: ignore[assignment]
    service = Service(limit)
    for lines in nodes:
        for one in lines:
            if (one.node, one.number) in lost:
                continue
            text = None
            if one is lines[-1]:
                text = farewell({"node": one.node, "exitCode": 0}, nodes=len(nodes), lines=one.number)
            whole = line(one, len(nodes), text=text, stream="stdout" if text is None else "agent")
            service.add(whole, at=one.at, seen=one.seen, times=one.times)
    return service


def end_of(nodes: list[list[Written]]) -> float:
    return max(one.seen + one.times for lines in nodes for one in lines)


def over(nodes: list[list[Written]]) -> float:
    return max(one.at for lines in nodes for one in lines) + 1


LIMITS = st.sampled_from([10, 50, 10_000])
POLLS = st.sampled_from([0.5, 3.0, 10.0])


@settings(max_examples=80, deadline=None)
@given(runs(late_s=40.0, skew_s=100.0), LIMITS, POLLS)
def test_every_line_comes_once_and_in_the_order_of_its_node(
    nodes: list[list[Written]], limit: int, poll_s: float
) -> None:
    service = delivered(nodes, limit)
    told, cursor = service.read(end_of(nodes) + 20, poll_s=poll_s, over=over(nodes))
    for lines in nodes:
        texts = [one.text for one in told if one.replica == lines[0].node]
        assert texts == [one.text for one in lines[:-1]]
    assert ended(cursor)
    assert farewells(cursor) == len(nodes)
    assert max(service.sizes) < 2000


@settings(max_examples=100, deadline=None)
@given(runs(late_s=2.0, skew_s=0.4, jitter_s=0.05), POLLS)
def test_lines_of_all_nodes_come_in_the_order_of_their_times(nodes: list[list[Written]], poll_s: float) -> None:
    told, _ = delivered(nodes, 10_000).read(end_of(nodes) + 20, poll_s=poll_s)
    times = [one.time for one in told]
    assert times == sorted(times)
    assert len(told) == sum(len(lines) - 1 for lines in nodes)


@settings(max_examples=50, deadline=None)
@given(runs(late_s=20.0, skew_s=30.0), LIMITS, POLLS, st.data())
def test_what_is_lost_is_waited_for_and_then_told(
    nodes: list[list[Written]], limit: int, poll_s: float, data: st.DataObject
) -> None:
    every = [(one.node, one.number) for lines in nodes for one in lines[:-1]]
    lost = set(data.draw(st.lists(st.sampled_from(every), max_size=10))) if every else set()
    service = delivered(nodes, limit, lost)
    until = end_of(nodes) + streams.LATE_S + 10 * poll_s + 20
    told, cursor = service.read(until, poll_s=poll_s, over=over(nodes))
    for lines in nodes:
        mine = [one for one in told if one.replica == lines[0].node]
        kept = [one.text for one in mine if one.stream != "agent"]
        assert kept == [one.text for one in lines[:-1] if (one.node, one.number) not in lost]
        missing = len([one for one in lost if one[0] == lines[0].node])
        notes = [one.text for one in mine if one.stream == "agent"]
        counted = sum(1 if note.startswith("one") else int(note.split()[0]) for note in notes)
        assert counted == missing
    assert ended(cursor)
    # none of them is told early: the first note is not there while the line may still come
    if lost:
        early, _ = delivered(nodes, limit, lost).read(BEGIN + streams.LATE_S - 1, poll_s=poll_s)
        assert not [one for one in early if one.stream == "agent"]


@settings(max_examples=60, deadline=None)
@given(runs(late_s=20.0, skew_s=5.0), LIMITS, POLLS)
def test_a_log_that_is_long_over_is_read_at_once(nodes: list[list[Written]], limit: int, poll_s: float) -> None:
    service = delivered(nodes, limit)
    service.entries = [(BEGIN, entry) for _, entry in service.entries]  # all of it can be found from the beginning
    late = Service(
        limit, entries=[(seen, attrs.evolve(entry, at=entry.at - 10_000)) for seen, entry in service.entries]
    )
    now = BEGIN
    cursor, told = beginning(BEGIN - 10_100), []
    while True:
        found = sorted((one for _, one in late.entries if one.at >= cursor["at"]), key=lambda one: (one.at, one.id))
        lines, cursor = take(found[:limit], cursor, now=now, more=len(found) > limit, over=now - 10_000 + 100)
        told += lines
        late.searches += 1
        assert late.searches < 4000
        if not cursor["again"]:
            break
    assert len(told) == sum(len(lines) - 1 for lines in nodes)
    assert ended(cursor)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 60), st.floats(0, 40), st.integers(1, 3)), max_size=60),
    runs(late_s=5.0, skew_s=0.0),
    POLLS,
)
def test_what_the_agent_did_not_write_passes_once(
    others: list[tuple[float, float, int]], nodes: list[list[Written]], poll_s: float
) -> None:
    service = delivered(nodes, 10_000)
    for index, (at, late_s, times) in enumerate(others):
        service.add(f"other {index}", at=BEGIN + at, seen=BEGIN + at + late_s, identity=f"id-{index}", times=times)
    told, _ = service.read(max(end_of(nodes), BEGIN + 105) + 20, poll_s=poll_s, over=over(nodes))
    texts = [one.text for one in told if one.text.startswith("other")]
    assert sorted(texts) == sorted(f"other {index}" for index in range(len(others)))
    assert len(told) == len(others) + sum(len(lines) - 1 for lines in nodes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 5), st.integers(1, 2)), max_size=200), LIMITS)
def test_a_container_without_the_agent_has_each_line_once(others: list[tuple[float, float, int]], limit: int) -> None:
    service = Service(limit)
    for index, (at, late_s, times) in enumerate(others):
        service.add(f"other {index}", at=BEGIN + at, seen=BEGIN + at + late_s, identity=f"id-{index}", times=times)
    told, _ = service.read(BEGIN + 120, poll_s=3.0)
    texts = [one.text for one in told]
    assert len(texts) == len(set(texts))
    if limit > 400:
        assert len(texts) == len(others)
        near = [one for one in told if one.stream == "stdout"]
        assert all(later.time >= one.time - 5 for one, later in pairwise(near))


def test_lines_of_an_agent_that_was_started_again_follow_those_of_the_first() -> None:
    for ends, limit in ((True, 1000), (False, 1000), (True, 3), (False, 3)):
        service = Service(limit)
        for start in (0, 1):
            for number in range(1, 8):
                at = BEGIN + 20 * start + number * 0.1
                one = Written(0, number, at, at, at + (8.0 if start == 0 and number == 5 else 0.0), 1, start)
                last = number == 7 and (ends or start == 1)
                text = farewell({"node": 0, "exitCode": 0}, nodes=1, lines=7) if last else None
                service.add(line(one, 1, text=text, stream="agent" if last else "stdout"), at=at, seen=one.seen)
        told, cursor = service.read(BEGIN + 60, poll_s=1.0)
        kept = 6 if ends else 7
        expected = [f"line {n} of 0 start 0" for n in range(1, kept + 1)] + [
            f"line {n} of 0 start 1" for n in range(1, 7)
        ]
        assert [one.text for one in told] == expected
        assert ended(cursor)


def test_lines_wait_for_a_silent_node_no_longer_than_the_horizon() -> None:
    service = Service(1000)
    for number in range(1, 20):
        at = BEGIN + number
        service.add(line(Written(0, number, at, at, at, 1), 2), at=at, seen=at)
    for until in range(5, 19):
        told, _ = service.read(BEGIN + until, poll_s=1.0)
        assert len(told) == until - int(numbered.HORIZON_S)


def test_a_burst_larger_than_a_search_gets_through() -> None:
    """Thousands of lines in one millisecond, on one of two nodes, and a search that shows few of them."""
    service = Service(50)
    for number in range(1, 46):
        service.add(line(Written(0, number, BEGIN, BEGIN, BEGIN, 1), 2), at=BEGIN, seen=BEGIN)
    for number in range(1, 2001):
        at = BEGIN + 1 + number / 40_000  # 40 a millisecond
        service.add(line(Written(1, number, at, at, at, 1), 2), at=at, seen=at)
    told, _ = service.read(BEGIN + 20, poll_s=1.0)
    assert len(told) == 2045
    assert [one.text for one in told if one.replica == 1] == [f"line {n} of 1 start 0" for n in range(1, 2001)]


def test_a_watch_of_eight_loud_nodes_reads_little_twice() -> None:
    """8 nodes, 200 lines a second each; the service is a second late. Counts, no clock."""
    service = Service(20_000)
    seconds, chance = 12, random.Random(7)
    for node in range(8):
        for number in range(1, 200 * seconds + 1):
            at = BEGIN + number / 200 + chance.random() * 0.01
            service.add(line(Written(node, number, at, at, at, 1), 8), at=at, seen=at + 1 + chance.random())
    told, _ = service.read(BEGIN + seconds + 6, poll_s=3.0)
    assert len(told) == 8 * 200 * seconds
    assert service.searches == 7  # one a poll
    assert [one.time for one in told] == sorted(one.time for one in told)
    assert max(service.sizes) < 1000
