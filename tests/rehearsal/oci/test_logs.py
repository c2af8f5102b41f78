"""Logging and Logging Search through the SDK: what was written comes late, twice and in no order, but comes."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal import faults
from cloudtune.rehearsal.nodes import Line
from tests.oci_place import OciPlace, oci_place
from tests.rehearsal.oci.science import Science, refused, until

pytest.importorskip("oci", reason="the oci SDK is not installed")
from cloudtune.rehearsal.oci.cloud import Delivery
from cloudtune.rehearsal.oci.log_search import LogSearch
from cloudtune.rehearsal.oci.logs import Logs
from cloudtune.rehearsal.oci.ocids import new_ocid

NOW = dt.datetime.now(dt.timezone.utc)


class Written:
    """A log with lines in it, and how to search it."""

    def __init__(self, place: OciPlace, *, lines: int = 0, apart_s: float = 0.01) -> None:
        self.place, self.run = place, new_ocid("datasciencejobrun")
        logs = place.cloud.part(Logs)
        self.group = logs.group(place.log_group, compartment=place.compartment).id
        self.log = logs.add_log(self.group, {"displayName": "a log"})
        self.client = place.sdk("loggingsearch", "LogSearchClient")
        self.write(*(str(number) for number in range(lines)), apart_s=apart_s)

    def write(self, *texts: str, at_s: float | None = None, apart_s: float = 0.01, stream: str = "stdout") -> None:
        first = time.time() - 60 if at_s is None else at_s
        lines = [
            Line(time_s=first + number * apart_s, node="node-0", stream=stream, text=text)
            for number, text in enumerate(texts)
        ]
        self.place.cloud.part(LogSearch).write(self.log, self.run, lines)

    def query(self, rest: str = "", **window: Any) -> dict[str, Any]:
        start, end = window.get("start", NOW - dt.timedelta(hours=1)), window.get("end", NOW + dt.timedelta(hours=1))
        stream = window.get("stream", f"{self.place.compartment}/{self.group}/{self.log}")
        return {"timeStart": start.isoformat(), "timeEnd": end.isoformat(), "searchQuery": f'search "{stream}" {rest}'}

    def found(self, rest: str = "| sort by datetime asc", *, limit: int = 1000, **window: Any) -> list[str]:
        reply = self.client.search_logs(self.query(rest, **window), limit=limit)
        return [result.data["logContent"]["data"]["message"] for result in reply.data.results]


def test_lines_come_late_and_in_no_order(tmp_path: Path) -> None:
    with oci_place(tmp_path, speed=1e-6, delivery=Delivery(least_s=10, most_s=100, twice=0.0)) as place:
        log, clock = Written(place, lines=200), place.stage.clock
        assert log.found() == []
        clock.push(55)
        half = list(map(int, log.found()))
        assert 50 < len(half) < 150
        assert half == sorted(half)
        assert half != list(range(len(half)))  # with gaps
        clock.push(46)
        assert log.found() == [str(number) for number in range(200)]
        assert log.found("") == [str(number) for number in reversed(range(200))]  # the newest first, if nothing is said


def test_some_come_twice_and_those_of_a_moment_in_any_order(tmp_path: Path) -> None:
    with oci_place(tmp_path, delivery=Delivery(least_s=0, most_s=0, twice=0.3)) as place:
        log = Written(place, lines=100, apart_s=0.0)
        results = log.client.search_logs(log.query(), limit=1000).data.results
        ids: dict[str, set[str]] = {}
        for result in results:
            ids.setdefault(result.data["logContent"]["data"]["message"], set()).add(result.data["logContent"]["id"])
        assert 110 < len(results) < 150
        assert len(ids) == 100
        assert all(len(own) == 1 for own in ids.values())
        assert [result.data["datetime"] for result in results].count(results[0].data["datetime"]) == len(results)
        assert log.found() != sorted(log.found(), key=int)


def test_pages_shift_when_more_comes_and_lose_nothing(tmp_path: Path) -> None:
    with oci_place(tmp_path, delivery=Delivery(least_s=0, most_s=0, twice=0.0)) as place:
        log = Written(place, lines=25)
        asked, seen, page = log.query("| sort by datetime asc"), [], None
        while page or not seen:
            reply = log.client.search_logs(asked, limit=10, **({"page": page} if page else {}))
            seen += [result.data["logContent"]["data"]["message"] for result in reply.data.results]
            if page is None:
                log.write("late", at_s=time.time() - 120)
            page = reply.headers.get("opc-next-page")
        assert seen == [str(number) for number in (*range(10), *range(9, 25))]
        assert reply.data.summary.result_count == 6
        first = log.client.search_logs(asked, limit=10).headers["opc-next-page"]
        for wrong in ({"page": "x"}, {"limit": 1001}):
            with refused(400, "InvalidParameter"):
                log.client.search_logs(asked, **wrong)
        with refused(400, "InvalidParameter"):
            log.client.search_logs(log.query(), page=first)


def test_what_a_search_must_not_be(tmp_path: Path) -> None:
    with oci_place(tmp_path, delivery=Delivery(least_s=0, most_s=0)) as place:
        log = Written(place, lines=3)
        day = dt.timedelta(days=1)
        windows = [
            {"start": NOW, "end": NOW},
            {"start": NOW, "end": NOW - day},
            {"start": NOW - 15 * day, "end": NOW},
        ]
        for window in windows:
            with refused(400, "InvalidParameter"):
                log.found(**window)
        wrong = [
            f"| where source = '{log.run}'",
            '| where source = "x"',
            "| where",
            "| summarize count()",
            "| where (a = 'b'",
            "| where a like 'b'",
            "; drop",
            "| sort datetime",
            "| where a = 'b' c",
        ]
        for rest in wrong:
            with refused(400, "InvalidParameter"):
                log.found(rest)
        with refused(400, "InvalidParameter"):
            log.client.search_logs({**log.query(), "searchQuery": f"search '{log.log}'"})
        log.write("x" * 6_000_000, "y" * 6_000_000)
        with refused(400, "InvalidParameter"):  # the search result is too large
            log.found()
        assert log.found("| where data.message = '*2*'") == ["2"]


def test_what_is_searched_for_is_found(tmp_path: Path) -> None:
    with oci_place(tmp_path, delivery=Delivery(least_s=0, most_s=0, twice=0.0)) as place:
        log = Written(place)
        moment = round(time.time() - 30, 3)
        log.write("one", "it's two", "three", at_s=moment, apart_s=1.0)
        log.write("bad", at_s=moment + 5, stream="stderr")
        asc = "| sort by datetime asc"
        cases = {
            f"| where source = '*{log.run}'": ["one", "it's two", "three", "bad"],
            f"| where logContent.source = '*{log.run}' and type = '*stderr'": ["bad"],
            "| where type != '*stderr' | where not data.message = 't*'": ["one", "it's two"],
            "| where data.message = 'it''s*' or (data.message = 'three' and type = '*stdout')": ["it's two", "three"],
            f"| where datetime >= {int(moment * 1000) + 1000} and datetime < {int(moment * 1000) + 2000}": ["it's two"],
            "| where DATA.message = 'one'": [],  # names of fields have a case
            "| where source = '*nobody'": [],
            '| where "data"."message" = \'one\'': ["one"],
        }
        for rest, found in cases.items():
            assert log.found(f"{rest} {asc}") == found, rest
        assert log.found("| SORT BY type DESC, datetime ASC") == ["one", "it's two", "three", "bad"]
        edge = dt.datetime.fromtimestamp(moment + 1, dt.timezone.utc)
        assert log.found(asc, start=edge) == ["it's two", "three", "bad"]
        assert log.found(asc, end=edge) == ["one"]
        streams = [place.compartment, f"{place.compartment}/{log.group}", f"{place.compartment}/{log.group}/a log"]
        assert [len(log.found(stream=stream)) for stream in streams] == [4, 4, 4]
        assert log.found(stream=f"{place.compartment}/{log.group}/{new_ocid('log')}") == []
        both = f'search "{streams[1]}" "{streams[2]}" {asc}'
        assert len(log.client.search_logs({**log.query(), "searchQuery": both}).data.results) == 4


def test_a_search_that_is_cut_off_is_asked_again(tmp_path: Path) -> None:
    plan = [
        faults.cut("oci.logging", "search_logs", numbers=(1, 2)),
        faults.refused("oci.logging", status=429, numbers=(3,)),
    ]
    with oci_place(tmp_path, faults=plan, delivery=Delivery(least_s=0, most_s=0, twice=0.0)) as place:
        from cloudtune.clients.oci import OciClient
        from cloudtune.plan import Call

        log = Written(place, lines=100)
        call = Call(service="oci.logging", operation="search_logs", parameters={**log.query(), "limit": 1000})
        assert len(OciClient().read(call)["results"]) == 100
        assert [each.faults for each in place.stage.record.calls] == [("cut",), ("cut",), ("refused",), ()]


def test_groups_and_logs_are_kept(place: OciPlace) -> None:
    client = place.sdk("logging", "LoggingManagementClient")
    group = {"compartmentId": place.compartment, "displayName": "training"}
    reply = client.create_log_group(group, opc_retry_token="t")
    work = client.get_work_request(reply.headers["opc-work-request-id"]).data
    assert (reply.status, work.status) == (202, "SUCCEEDED")
    identity = work.resources[0].identifier
    again = client.create_log_group(group, opc_retry_token="t").headers["opc-work-request-id"]
    assert client.get_work_request(again).data.resources[0].identifier == identity
    with refused(409, "Conflict"):
        client.create_log_group(group)
    assert [one.display_name for one in client.list_log_groups(place.compartment).data] == ["training"]
    made = client.create_log(identity, {"displayName": "mine", "logType": "CUSTOM"})
    log = client.get_work_request(made.headers["opc-work-request-id"]).data.resources[0].identifier
    found = client.get_log(identity, log).data
    assert (found.display_name, found.compartment_id, found.is_enabled) == ("mine", place.compartment, True)
    assert [one.id for one in client.list_logs(identity, display_name="mine").data] == [log]
    assert client.list_logs(identity, log_type="SERVICE").data == []
    with refused(409, "IncorrectState"):
        client.delete_log_group(identity)
    with refused(404, "NotAuthorizedOrNotFound"):
        client.get_log(place.log_group, log)
    client.delete_log(identity, log)
    client.delete_log_group(identity)
    for gone in (lambda: client.get_log_group(identity), lambda: client.get_log(place.log_group, log)):
        with refused(404, "NotAuthorizedOrNotFound"):
            gone()


def test_what_nodes_write_is_found_in_the_end(science: Science, namespaces: None) -> None:
    """What Logging gives, without copies, is what the nodes wrote and what the service said of itself."""
    job = science.job(science.grouped(2), b"for i in $(seq 100); do echo $NODE_RANK $i; done", "a.sh")
    run = science.ended(science.start(job))

    def rows() -> dict[str, str]:
        return {row["id"]: row["data"]["message"] for page in science.pages(run, limit=70) for row in page}

    until(lambda: len(rows()) >= 201)
    texts = sorted(text for text in rows().values() if not text.startswith("rehearsed: "))
    assert texts == sorted(science.said(run.id))
    assert len(texts) == 200
