"""Runs that are ended in places where their logs would go: these are kept, and keep no run alive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune import keeping, places
from cloudtune.errors import ServiceError
from cloudtune.home import runs_folder
from cloudtune.places import Place
from cloudtune.plan import Call
from cloudtune.states import Handle, LogLine
from cloudtune.store import Record, Store
from tests.contract.standin import StandinBackend

LINES = [LogLine(time=float(number), replica=0, rank=None, stream="stdout", text=f"line {number}") for number in (1, 2)]


def interrupted() -> None:
    with keeping.kept("abcdefgh") as keep:
        keep(LINES)
        raise KeyboardInterrupt


def test_what_was_interrupted_is_not_kept() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert keeping.lines_of("abcdefgh") is None
    assert not list((runs_folder() / "abcdefgh").iterdir())


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    runs_folder().parent.mkdir(parents=True, exist_ok=True)
    runs_folder().write_text("this is no folder")
    with keeping.kept("abcdefgh") as keep:
        keep(LINES)
    assert keeping.lines_of("abcdefgh") is None


class LosingBackend(StandinBackend):
    """A place whose logs go with its runs."""

    loses_logs = True


@attrs.define
class Service:
    """A service that writes down what it is asked for; ``away`` cannot be asked for lines."""

    asked: list[str] = attrs.field(factory=list)
    away: bool = False

    look_s = (0.01, 0.01)

    def read(self, call: Call) -> Mapping[str, Any]:
        self.asked.append(call.operation)
        if self.away:
            raise ServiceError("away", service="standin", operation="lines", definite=False)
        begin = call.parameters["from"]
        over = "cancel" in self.asked
        found = [[n, f"line {n}"] for n in range(begin, 5 if over else 3)]
        return {"lines": found, "next": begin + len(found)}

    def send(self, call: Call, **_: Any) -> Mapping[str, Any]:
        self.asked.append(call.operation)
        return {}


class EndingBackend(LosingBackend):
    """Its cursor says when the log is complete."""

    def lines(self, handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], Mapping[str, Any] | None]:
        found, cursor = super().lines(handle, reply)
        return found, {**(cursor or {}), "more": False, "ended": (cursor or {})["n"] == 5}


def place(service: Service, backend: StandinBackend) -> Place:
    record = Record(id="abcdefgh", name="x", backend="standin", created=1.0, updated=1.0, state="running")
    handle = Handle(backend="standin", scope="here", id="standin-run-1")
    store = Store()
    return Place(run="abcdefgh", handle=handle, backend=backend, client=service, record=record, store=store)


def test_a_log_is_read_before_a_run_is_ended_and_to_its_end_after_that() -> None:
    service = Service()
    place(service, EndingBackend()).end()
    assert service.asked[:2] == ["lines", "cancel"]
    assert [line.text for line in keeping.lines_of("abcdefgh") or ()] == [f"line {n}" for n in range(5)]


def test_a_log_that_was_not_waited_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "KEPT_LAST_S", 0.05)
    place(Service(), LosingBackend()).end()
    *lines, last = [line.text for line in keeping.lines_of("abcdefgh") or ()]
    assert lines == [f"line {n}" for n in range(5)]
    assert "not waited for" in last


def test_a_log_that_cannot_be_read_keeps_no_run_alive() -> None:
    service = Service(away=True)
    place(service, EndingBackend()).end()
    assert service.asked == ["lines", "cancel", "lines"]


def test_places_that_keep_their_logs_are_not_asked_for_them() -> None:
    service = Service()
    place(service, StandinBackend()).end()
    assert service.asked == ["cancel"]
    assert keeping.lines_of("abcdefgh") is None
