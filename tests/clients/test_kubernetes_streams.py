"""Logs that are followed: nothing lost or doubled by streams that are cut, nor with pods that go."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from cloudtune.clients import kubernetes_streams
from cloudtune.clients.kubernetes_streams import Streams
from tests.backends.eks_service import stamp
from tests.processes import eventually


class Container:
    """A container that writes; streams of it are cut when that is asked for."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []
        self.ended = self.gone = False
        self.cut = 0
        self.reads = 0
        self.streams: list[queue.Queue[bytes | None]] = []

    def say(self, time_s: float, text: str) -> None:
        self.lines.append((time_s, text))
        for one in self.streams:
            one.put(self._bytes(time_s, text))

    def end(self) -> None:
        self.ended = True
        for one in self.streams:
            one.put(None)

    def cut_streams(self) -> None:
        self.cut += 1
        for one in self.streams:
            one.put(None)

    def read(self, given: Any) -> str | None:
        self.reads += 1
        if self.gone:
            return None
        since = kubernetes_streams._second(given.get("sinceTime"))
        return b"".join(self._bytes(*line) for line in self.lines if line[0] >= since).decode()

    def follow(self, given: Any) -> Iterator[bytes]:
        since = kubernetes_streams._second(given.get("sinceTime"))
        mine: queue.Queue[bytes | None] = queue.Queue()
        before, cuts = list(self.lines), self.cut
        self.streams.append(mine)
        try:
            for line in before:
                if line[0] >= since:
                    data = self._bytes(*line)
                    yield data[:7]
                    yield data[7:]
            while not self.ended:
                piece = mine.get(timeout=60)
                if self.cut > cuts:
                    yield b"2026-11-20T10:0"  # in the midst of a line
                    raise ConnectionResetError
                if piece is not None:
                    yield piece
        finally:
            self.streams.remove(mine)

    @staticmethod
    def _bytes(time_s: float, text: str) -> bytes:
        return f"{stamp(time_s)} {text}\n".encode()


class Asking:
    """Somebody who asks again and again."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.streams = Streams(read=container.read, follow=container.follow)

    def ask(self, **more: Any) -> dict[str, Any]:
        given = {"namespace": "team", "name": "p", "uid": "u", "container": "pytorch", "previous": False, **more}
        return self.streams.answer(given)

    def texts(self, **more: Any) -> list[str]:
        return [line.partition(" ")[2] for line in str(self.ask(**more).get("text", "")).splitlines()]


@pytest.fixture
def asking() -> Iterator[Asking]:
    asking = Asking(Container())
    yield asking
    asking.container.end()


def test_what_comes_is_there_when_it_is_asked_for(asking: Asking) -> None:
    asking.container.say(1000.0, "one")
    assert asking.texts() == ["one"]
    for number in range(20):
        asking.container.say(1000.0, f"same moment {number}")
    asking.container.say(1001.5, "two")
    eventually(lambda: len(asking.texts()) == 22)
    assert asking.container.reads <= 2
    assert asking.texts(sinceTime="1970-01-01T00:16:41Z") == ["two"]


def test_a_stream_that_is_cut_is_opened_again_where_it_was(asking: Asking) -> None:
    wanted = []
    for number in range(60):
        asking.container.say(1000.0 + number // 3 * 0.3, str(number))
        wanted.append(str(number))
        if number % 7 == 3:
            asking.container.cut_streams()
        if number % 5 == 0:
            asking.ask()
    eventually(lambda: asking.texts() == wanted)


def test_lines_of_one_moment_and_those_that_are_behind_are_all_there(asking: Asking) -> None:
    """A container's two outputs are stamped by themselves: one may come with an earlier time than the line before it."""
    asking.ask()
    eventually(lambda: len(asking.container.streams) == 1)
    asking.container.say(998.0, "first")
    eventually(lambda: asking.texts() == ["first"])  # a stream of which nothing is known before
    said = [(1000.5, "a"), (1000.5, "b"), (1001.5, "c"), (1001.4, "behind"), (1001.5, "d"), (1000.9, "far behind")]
    for time_s, text in (*said, (1004.0, "e")):
        asking.container.say(time_s, text)
    wanted = ["first", *(text for _, text in said), "e"]
    eventually(lambda: asking.texts() == wanted)
    asking.container.cut_streams()
    said = [(1004.0, "f"), (1003.9, "behind again"), (1004.0, "g")]
    for time_s, text in said:
        asking.container.say(time_s, text)
    wanted += [text for _, text in said]
    eventually(lambda: asking.texts() == wanted)


def test_the_end_of_a_log_is_known_of_a_pod_that_is_gone(asking: Asking) -> None:
    asking.container.say(1000.0, "one")
    asking.ask()
    eventually(lambda: len(asking.container.streams) == 1)
    asking.container.say(1001.0, "last words")
    asking.container.end()
    asking.container.gone = True
    reply = asking.ask(gone=True, whole=True)
    assert reply["whole"]
    assert "last words" in reply["text"]


def test_of_a_stream_that_was_cut_before_its_pod_went_the_end_is_not_known(asking: Asking) -> None:
    asking.container.say(1000.0, "one")
    asking.ask()
    eventually(lambda: len(asking.container.streams) == 1)
    asking.container.cut_streams()
    asking.container.gone = True
    reply = asking.ask(gone=True, whole=True)
    assert not reply["whole"]
    assert reply["text"].endswith(" one\n")


def test_a_container_that_has_ended_is_read_once_more(asking: Asking) -> None:
    asking.container.say(1000.0, "one")
    asking.ask()
    asking.container.cut_streams()
    asking.container.say(1000.5, "two")
    asking.container.end()
    reply = asking.ask(whole=True)
    assert (reply["whole"], [line.partition(" ")[2] for line in reply["text"].splitlines()]) == (True, ["one", "two"])
    before = asking.container.reads
    assert asking.ask(whole=True) == reply
    assert asking.container.reads == before


def test_a_container_that_starts_again_is_followed_again(asking: Asking) -> None:
    asking.container.say(1000.0, "one")
    asking.container.end()
    asking.ask(start=0)
    assert asking.ask(start=0, whole=True)["whole"]
    asking.container.ended = False
    asking.container.say(1001.0, "again")
    assert asking.texts(start=1, sinceTime="1970-01-01T00:16:41Z") == ["again"]
    asking.container.say(1002.0, "and on")
    eventually(lambda: asking.texts(start=1, sinceTime="1970-01-01T00:16:41Z") == ["again", "and on"])


def test_what_nobody_asks_for_is_not_kept_without_bounds(monkeypatch: pytest.MonkeyPatch, asking: Asking) -> None:
    monkeypatch.setattr(kubernetes_streams, "MOST_BYTES", 2000)
    monkeypatch.setattr(kubernetes_streams, "IDLE_S", 0.05)
    asking.container.say(1000.0, "one")
    asking.ask()
    eventually(lambda: len(asking.container.streams) == 1)
    for number in range(500):
        asking.container.say(1001.0, f"a line of some length {number}")
    eventually(lambda: not asking.container.streams)
    assert asking.container.reads == 1
    assert len(asking.texts()) == 501  # who asks again gets the rest


def test_there_may_be_no_log() -> None:
    asking = Asking(Container())
    asking.container.gone = True
    assert asking.ask() == asking.ask(gone=True) == {"absent": True}
