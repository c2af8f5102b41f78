"""A run's lines by Logging Search, in a time of the test's own: what is asked for, when, and when the log is over."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import attrs
import pytest

from cloudtune import places
from cloudtune.backends import farewells, oci_logs, oci_runs
from cloudtune.backends.oci import OciBackend
from cloudtune.backends.oci_runs import AGENT_RUN, CONTAINER_RUN, FOREIGN_RUN, moment, rfc3339
from cloudtune.node.farewell import farewell
from cloudtune.node.lines import format_line, start_word
from cloudtune.places import Place
from cloudtune.plan import Call, File
from cloudtune.states import Handle

BEGIN = 1_800_000_000.0
RUN = "ocid1.datasciencejobrun.oc1.iad.r"
#: Seconds between looks, as of the client of the service itself, and what a request takes.
FIRST_S, MOST_S, REQUEST_S = 1.0, 3.0, 0.2
DAY_S = 24 * 3600.0


@attrs.define
class Service:
    """A run that begins at 30 and is over at ``finished``; ``entries`` are (when it can be found, its time, text)."""

    finished: float
    state: str = "SUCCEEDED"
    details: str | None = None
    log: bool = True
    ended_is_told: bool = True
    accepted: float = 0.0
    entries: list[tuple[float, float, str]] = attrs.field(factory=list)
    calls: list[tuple[float, Call]] = attrs.field(factory=list)

    def write(self, text: str, *, at: float, late_s: float) -> None:
        self.entries.append((BEGIN + at + late_s, BEGIN + at, text))

    def read(self, call: Call, now: float) -> dict[str, Any]:
        self.calls.append((now, call))
        given = call.parameters
        own = {"cursor": given["cursor"], "readAt": now}
        if call.operation == "get_job_run":
            return {**self.run(now), **own}
        if call.operation == "get_log":
            return {"compartmentId": "c", **own}
        assert f"search \"c/g/l\" | where source = '*{RUN}'" in given["searchQuery"]
        start, end = moment(given["timeStart"]), moment(given["timeEnd"])
        assert start is not None
        assert end is not None
        assert 0 < end - start <= 14 * DAY_S
        rows = sorted(
            (at, text)
            for seen, at, text in self.entries
            if seen <= now and start <= round(at, 3) and round(at, 3) < end
        )
        most = given["limit"] * given["pages"]
        found = [{"id": f"{at} {text}", "at": round(at * 1000), "type": "stdout", "text": text} for at, text in rows]
        return {"results": found[:most], **({"opcNextPage": "p"} if len(rows) > most else {}), **own}

    def run(self, now: float) -> dict[str, Any]:
        began, over = BEGIN + 30, now >= BEGIN + self.finished
        found: dict[str, Any] = {
            "id": RUN,
            "timeAccepted": rfc3339(BEGIN + self.accepted),
            "lifecycleState": "ACCEPTED",
        }
        if now >= began:
            found |= {"timeStarted": rfc3339(began), "lifecycleState": "IN_PROGRESS"}
            found |= {"logDetails": {"logGroupId": "g", "logId": "l"}} if self.log else {}
        if over:
            found |= {"lifecycleState": self.state, "lifecycleDetails": self.details}
            found |= {"timeFinished": rfc3339(BEGIN + self.finished)} if self.ended_is_told else {}
        return found


@attrs.define
class Watched:
    """What somebody saw who followed a run, and when (seconds since the beginning)."""

    lines: list[tuple[float, str]]
    ended: float

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.lines]


class Clock:
    """The time of a test, in place of the module ``time``; also the client, whose requests take a while."""

    look_s = (FIRST_S, MOST_S)

    def __init__(self, service: Service, begin: float) -> None:
        self.service, self.now, self.limit = service, BEGIN + begin, BEGIN + begin + 10_000

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < self.limit, "it does not end"

    def read(self, call: Call) -> Mapping[str, Any]:
        self.sleep(REQUEST_S)
        cursor = call.parameters["cursor"]
        assert json.loads(json.dumps(cursor)) == cursor
        assert len(json.dumps(cursor)) < 4000
        return self.service.read(call, self.now)

    def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> Mapping[str, Any]:
        raise AssertionError("a watch changes nothing")


def watch(service: Service, *, kind: str = AGENT_RUN, begin: float = 0.0, follow: bool = True) -> Watched:
    """Follow a run from a moment on, or see what there is then."""
    handle = Handle(backend="oci", scope="us-ashburn-1", kind=kind, id=RUN)
    clock = Clock(service, begin)
    place = Place(run=RUN, handle=handle, backend=OciBackend(), client=clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "time", clock)
        lines = [(clock.now - BEGIN, line.text) for line in place.lines(follow=follow, finished=lambda: False)]
    return Watched(lines=lines, ended=clock.now - BEGIN)


def agents(
    service: Service, *, nodes: int, lines: int, until: float, late_s: float, said_goodbye: int | None = None
) -> float:
    """Let agents write ``lines`` each up to ``until``; return when the last line can be had."""
    chance, last = random.Random(3), 0.0
    for node in range(nodes):
        ends = said_goodbye is None or node < said_goodbye
        for number in range(1, lines + 1 + ends):
            at = 31 + (until - 31) * number / (lines + 1)
            late = late_s * chance.random() if number <= lines else late_s
            text = f"line {number} of {node}"
            if number > lines:
                text = farewell({"node": node, "exitCode": 0}, nodes=nodes, lines=number)
            mark = f"{node}/{nodes}@{start_word(BEGIN)}.{number}"
            stream = "stdout" if number <= lines else "agent"
            service.write(format_line(BEGIN + at, node, stream, text, mark=mark), at=at, late_s=late)
            last = max(last, at + late)
    return last


ENDS: dict[str, dict[str, Any]] = {
    "succeeded": {"state": "SUCCEEDED"},
    "failed": {"state": "FAILED", "details": "Job run artifact execution failed with exit code 1."},
    "killed": {"state": "FAILED", "details": "... failed with exit code 137.", "said_goodbye": 1},
    "died": {"state": "FAILED", "details": "node-1 stopped responding.", "said_goodbye": 0},
    "cancelled": {"state": "CANCELED"},
    "cancelled at once": {"state": "CANCELED", "said_goodbye": 0},
    "needs attention": {"state": "NEEDS_ATTENTION", "said_goodbye": 0, "ended_is_told": False},
    "deleted": {"state": "DELETED", "said_goodbye": 1},
}


@pytest.mark.parametrize("kind", [AGENT_RUN, FOREIGN_RUN])
@pytest.mark.parametrize("late_s", [0.5, 4.0, 25.0])
@pytest.mark.parametrize("end", ENDS)
def test_a_watch_is_over_soon_after_the_last_line_can_be_had(end: str, late_s: float, kind: str) -> None:
    facts = dict(ENDS[end])
    said_goodbye = facts.pop("said_goodbye", None)
    service = Service(finished=100.0, **facts)
    last = agents(service, nodes=2, lines=30, until=99.0, late_s=late_s, said_goodbye=said_goodbye)
    watched = watch(service, kind=kind)
    if said_goodbye is None or late_s < 5:
        for node in range(2):
            mine = [text for text in watched.texts if text.endswith(f" of {node}")]
            assert mine == [f"line {number} of {node}" for number in range(1, 31)]
        assert watched.ended <= max(last, 100.0) + 10
    else:  # nobody knows that there are lines to come
        assert watched.ended <= 100.0 + 10 + late_s
    # the failure is looked for in the log, which takes a moment more
    assert sum(call.operation == "search_logs" for now, call in service.calls if now > BEGIN + 100) >= 1


@pytest.mark.parametrize("kind", [CONTAINER_RUN, FOREIGN_RUN])
def test_a_container_without_the_agent_is_over_after_a_quiet_time(kind: str) -> None:
    service = Service(finished=100.0)
    for number in range(50):
        service.write(f"said {number}", at=40 + number, late_s=3.0)
    watched = watch(service, kind=kind)
    assert [text for text in watched.texts if text.startswith("said")] == [f"said {number}" for number in range(50)]
    assert watched.ended <= 110


def test_one_search_is_sent_for_each_look() -> None:
    service = Service(finished=300.0)
    agents(service, nodes=8, lines=200, until=299.0, late_s=5.0)
    watch(service)
    searches = [now for now, call in service.calls if call.operation == "search_logs"]
    looks = [now for now, call in service.calls if call.operation == "get_job_run"]
    assert all(later - now >= FIRST_S for now, later in pairwise(searches))
    assert all(later - now >= MOST_S for now, later in pairwise(searches[4:-5]))
    assert len(looks) <= len(searches) + 20


def test_a_job_that_may_not_log_does_not_hold_the_watch() -> None:
    long = watch(Service(finished=200.0))
    assert long.ended <= 210
    assert "may the job write to its log?" in long.texts[-1]
    short = watch(Service(finished=35.0))  # its lines may be on their way
    assert 30 + oci_logs.FIRST_S <= short.ended <= 30 + oci_logs.FIRST_S + 10


def test_lines_that_are_known_to_be_missing_are_waited_for_and_then_given_up() -> None:
    service = Service(finished=100.0)
    agents(service, nodes=2, lines=30, until=99.0, late_s=1.0)
    service.entries = [
        one for one in service.entries if not re.search(r"line 30 of 1|cloudtune-end.*\"node\":1", one[2])
    ]
    watched = watch(service)
    assert watched.texts[-1].startswith("the end of this log has not come yet")
    assert 100 + oci_logs.DUE_S <= watched.ended <= 100 + oci_logs.DUE_S + 10
    assert len([text for text in watched.texts if text.startswith("line")]) == 59


def test_without_a_log_it_is_said_once_and_the_state_is_followed() -> None:
    watched = watch(Service(finished=100.0, log=False))
    assert watched.texts == [
        "OCI: ACCEPTED",
        "OCI: IN_PROGRESS",
        "this run has no log (its job names no logGroupId): its state is all that can be followed",
    ]
    assert watched.ended <= 104
    over = watch(Service(finished=100.0, log=False), begin=500.0)
    assert over.texts == ["this run has no log (its job names no logGroupId)"]
    assert over.ended <= 501


def test_a_run_that_never_began_is_over_when_its_state_says_so() -> None:
    watched = watch(Service(finished=20.0, state="CANCELED"))
    assert watched.ended <= 24


@pytest.mark.parametrize("days", [13, 40])
def test_a_log_of_a_month_ago_is_read_in_windows(days: int) -> None:
    service = Service(finished=100.0)
    agents(service, nodes=2, lines=3000, until=99.0, late_s=1.0)
    watched = watch(service, begin=days * DAY_S)
    assert len([text for text in watched.texts if text.startswith("line")]) == 6000
    assert watched.ended - days * DAY_S <= 30


@pytest.mark.parametrize("finished", [39.0, 1000.0])
def test_all_that_was_written_by_now_is_seen_without_following(finished: float) -> None:
    """A log of many searches that has just been written, of a run that goes on and of one that is over."""
    service = Service(finished=finished, state="FAILED", details="... failed with exit code 137.")
    agents(service, nodes=2, lines=oci_logs.PAGES * oci_runs.LIMIT, until=38.0, late_s=0.5, said_goodbye=0)
    seen = watch(service, begin=41.0, follow=False)
    assert len([text for text in seen.texts if text.startswith("line")]) == len(service.entries)
    assert seen.ended <= 70


def test_who_failed_first_is_asked_for_no_longer_than_it_can_be_told() -> None:
    handle = Handle(backend="oci", scope="us-ashburn-1", kind=AGENT_RUN, id=RUN)

    def asked(service: Service, begin: float) -> float:
        """Return how long the question took."""
        now = BEGIN + begin
        replies: list[Mapping[str, Any]] = [{**service.run(now), "readAt": now}]
        for call in calls(replies):
            now += FIRST_S
            replies.append(
                service.read(attrs.evolve(call, parameters={"pages": 1, "cursor": {}, **call.parameters}), now)
            )
        return now - BEGIN - begin

    def calls(replies: list[Mapping[str, Any]]) -> Iterator[Call]:
        while (call := oci_runs.explain(handle, replies)) is not None:
            yield call

    silent: dict[str, Any] = {"state": "FAILED", "details": "node-1 stopped responding."}
    assert asked(Service(finished=100.0, **silent), 101) <= farewells.PATIENCE_S + 2
    assert asked(Service(finished=100.0, **silent), 120) == 2
    assert asked(Service(finished=100.0, state="NEEDS_ATTENTION", ended_is_told=False), 101) == 2
