"""Logs of several nodes as one: in order, nothing lost, nothing twice, however little is read at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.backends.local import LocalBackend
from cloudtune.backends.node_logs import WAIT_S
from cloudtune.clients import process
from cloudtune.node.lines import format_line
from cloudtune.states import Handle, LogLine

BACKEND = LocalBackend()
START_S = 1_700_000_000.0
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=12)


class Folder:
    """The folder of a run that is going on until ``end``, and a reader of its logs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.cursor: Any = None
        self.found: list[LogLine] = []
        self.replies = 0
        (place / "run").mkdir()
        (place / "run" / "run.json").write_text("{}")
        self.lock = (place / "run" / "lock").open("a")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def write(self, node: int, data: bytes) -> None:
        file = self.place / "run" / f"node-{node}" / "log"
        file.parent.mkdir(exist_ok=True)
        with file.open("ab") as log:
            log.write(data)

    def say(self, node: int, time_s: float, text: str) -> None:
        self.write(node, format_line(time_s, node, "stdout", text).encode() + b"\n")

    def read(self) -> tuple[LogLine, ...]:
        handle = Handle(backend="local", scope=str(self.place), id="run")
        reply = process.ProcessClient().read(BACKEND.logs(handle, self.cursor))
        lines, self.cursor = BACKEND.lines(handle, reply)
        self.found += lines
        self.replies += 1
        return lines

    def end(self) -> None:
        self.lock.close()

    def read_rest(self) -> None:
        self.end()
        while self.read():
            pass
        assert self.cursor["caughtUp"]

    def texts(self, node: int) -> list[str]:
        return [line.text for line in self.found if line.replica == node]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.end()


def in_order(lines: list[LogLine]) -> bool:
    return [line.time for line in lines] == sorted(line.time for line in lines)


@settings(max_examples=60, deadline=None)
@given(
    nodes=st.lists(st.lists(st.tuples(st.integers(0, 40), TEXTS), max_size=20), min_size=1, max_size=3),
    chunk=st.integers(100, 400),
)
def test_lines_are_merged_over_any_number_of_replies(nodes: list[list[tuple[int, str]]], chunk: int) -> None:
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "CHUNK", chunk)
        run = Folder(Path(place))
        for node, lines in enumerate(nodes):
            times = accumulate(step for step, _ in lines)
            for passed, (_, text) in zip(times, lines, strict=True):
                run.say(node, START_S + passed / 1000, text)
        run.read_rest()
        assert in_order(run.found)
        assert [run.texts(node) for node in range(len(nodes))] == [[text for _, text in lines] for lines in nodes]


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 45)), max_size=30),
    looks=st.lists(st.integers(1, 120), max_size=20),
    chunk=st.integers(100, 200),
)
def test_lines_stay_in_order_while_they_are_written(
    lines: list[tuple[int, int, int]], looks: list[int], chunk: int
) -> None:
    """Each line reaches its file up to 45 ms after its time stamp; somebody looks now and then."""
    passed = list(accumulate(step for _, step, _ in lines))
    arrivals: list[tuple[int, int, int]] = []
    for number, (node, _, delay) in enumerate(lines):
        before = [at for at, _, other in arrivals if lines[other][0] == node]
        arrivals.append((max([passed[number] + delay, *before]), node, number))
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(now=START_S)
        patch.setattr(process, "CHUNK", chunk)
        patch.setattr(process, "time", SimpleNamespace(time=lambda: clock.now))
        run = Folder(Path(place))
        written = 0
        for at in accumulate(looks):
            for when, node, number in sorted(arrivals):
                if written <= when < at:
                    run.say(node, START_S + passed[number] / 1000, str(number))
            written, clock.now = at, START_S + at / 1000
            run.read()
        for when, node, number in sorted(arrivals):
            if written <= when:
                run.say(node, START_S + passed[number] / 1000, str(number))
        run.read_rest()
        assert in_order(run.found)
        assert sorted(int(line.text) for line in run.found) == list(range(len(lines)))


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.one_of(
                st.builds(
                    lambda time_s, text: format_line(START_S + time_s, None, "agent", text).encode(),
                    st.integers(-9, 9),
                    TEXTS,
                ),
                st.binary(max_size=90).map(lambda data: data.replace(b"\n", b" ").replace(b"\r", b" ")),
            ),
        ),
        max_size=20,
    ),
    chunk=st.integers(100, 200),
    unfinished=st.booleans(),
)
def test_whatever_stands_in_a_log_comes_once(pieces: list[tuple[int, bytes]], chunk: int, unfinished: bool) -> None:
    """Lines of others, broken bytes, a clock that was set back, an end in the middle of a line."""
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "CHUNK", chunk)
        run = Folder(Path(place))
        for node, data in pieces:
            run.write(node, data + b"\n")
        for _ in range(2):
            run.read()
        run.write(0, b"the last" if unfinished else b"the last\n")
        run.read_rest()
        for node in (0, 1):
            said = [data[29:] if b"Z - A " in data else data for of, data in pieces if of == node]
            said += [b"the last"] if node == 0 else []
            assert sorted(run.texts(node)) == sorted(data.decode(errors="replace") for data in said)


def test_lines_without_a_time_have_that_of_the_line_before(folder: Folder) -> None:
    folder.write(0, b"too early\n")
    folder.say(0, START_S, "one")
    folder.say(1, START_S + 1, "other")
    folder.read()
    folder.write(0, b"Traceback\n")
    folder.read_rest()
    assert [line.time - START_S for line in folder.found] == [0, 0, 1, 0]
    assert folder.texts(0) == ["too early", "one", "Traceback"]


def test_a_line_that_fills_a_reply_stops_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CHUNK", 1000)
    folder.write(0, b"x" * 4321 + b"\n")
    folder.say(0, START_S, "behind it")
    folder.read_rest()
    assert "".join(folder.texts(0)) == "x" * 4321 + "behind it"


def test_a_long_log_does_not_run_ahead_of_a_short_one(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CHUNK", 1000)
    for number in range(2000):
        folder.say(0, START_S + number, "long")
    for number in range(0, 2000, 100):
        folder.say(1, START_S + number + 0.5, "short")
    folder.read_rest()
    assert folder.replies > 50
    assert in_order(folder.found)
    assert (len(folder.texts(0)), len(folder.texts(1))) == (2000, 20)


def test_what_was_there_at_the_start_is_read_and_then_it_says_so(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CHUNK", 1000)
    folder.write(1, format_line(START_S, None, "agent", "one").encode() + b"\nan unfinished li")
    for number in range(100):
        folder.say(0, START_S + number, f"before {number}")
    folder.read()
    while not folder.cursor["caughtUp"]:
        for number in range(20):  # faster than it is read
            folder.say(0, START_S + 1000, f"meanwhile {number}")
        folder.read()
    assert {f"before {number}" for number in range(100)} <= set(folder.texts(0))
    assert folder.texts(1) == ["one"]
    assert folder.replies < 10


def test_a_young_line_waits_for_one_that_may_be_on_its_way(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=START_S)
    monkeypatch.setattr(process, "time", SimpleNamespace(time=lambda: clock.now))
    folder.say(0, START_S - 0.001, "second")
    assert folder.read() == ()
    assert not folder.cursor["caughtUp"]
    folder.say(1, START_S - 0.002, "first")
    clock.now += 2 * WAIT_S
    assert [line.text for line in folder.read()] == ["first", "second"]
    assert folder.cursor["caughtUp"]
    folder.say(0, START_S + 3600, "before the clock was set back")
    assert len(folder.read()) == 1
