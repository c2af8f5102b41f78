"""Numbered lines and the last of them, as a reader of a cloud's log finds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloudtune.node.failure import first_candidate, first_failure
from cloudtune.node.farewell import LIMIT_BYTES, farewell, parse_farewell
from cloudtune.node.lines import Numbered, parse_numbered
from cloudtune.node.report import new_report
from tests.node.running import Job

OCI = {"CLOUDTUNE_PLACE": "oci", "NODE_RANK": "0", "INITIAL_CLUSTER_SIZE": "1", "CLOUDTUNE_NUM_NODES": ""}


def numbered(job: Job, rank: int = 0) -> list[Numbered]:
    found = [parse_numbered(line) for line in job.log(rank).splitlines()]
    assert None not in found
    return [one for one in found if one is not None]


def rank(number: int, ended_at: float, **facts: Any) -> dict[str, Any]:
    return {"rank": number, "localRank": number, "pid": 1, "endedAt": ended_at, "lines": [], "traceback": None, **facts}


def test_every_line_of_a_node_in_a_cloud_is_numbered_and_the_last_says_how_it_ended(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(command="echo one; echo two >&2; echo geheim-$A_TOKEN; exit 3", environment={"A_TOKEN": "qqqqqqqq"})
    assert job.run(**OCI) == [3]
    lines = numbered(job)
    assert [one.number for one in lines] == list(range(1, len(lines) + 1))
    assert {(one.node, one.nodes, one.start) for one in lines} == {(0, 1, lines[0].start)}
    assert {"one", "two", "geheim-***"} <= {one.text for one in lines}
    facts = parse_farewell(lines[-1].text)
    assert facts is not None
    assert (facts["node"], facts["nodes"], facts["lines"], facts["exitCode"]) == (0, 1, len(lines), 3)
    failure = first_candidate([facts["failure"]])
    assert failure is not None
    assert (failure["replica"], failure["exitCode"], set(failure["lines"])) == (0, 3, {"one", "two", "geheim-***"})
    assert "qqqqqqqq" not in job.log()


def test_an_order_that_cannot_be_read_is_told_too(new_job: Callable[..., Job]) -> None:
    job = new_job(command="true")
    (job.folder / "order.json").write_text("{")
    assert job.run(**OCI) == [125]
    facts = parse_farewell(numbered(job)[-1].text)
    assert facts is not None
    assert facts["exitCode"] == 125
    assert "JSON" in facts["reason"]


def test_a_run_that_ends_well_says_so(new_job: Callable[..., Job]) -> None:
    job = new_job(command="true")
    assert job.run(**OCI) == [0]
    facts = parse_farewell(numbered(job)[-1].text)
    assert facts is not None
    assert (facts["exitCode"], facts["failure"]) == (0, None)


def test_lines_of_local_runs_have_no_numbers(new_job: Callable[..., Job]) -> None:
    job = new_job(command="echo one")
    assert job.run() == [0]
    assert job.texts() == ["one"]
    assert [text for text in job.texts(stream="agent") if parse_farewell(text)] == []


@given(
    st.lists(st.text(max_size=5000), max_size=20),
    st.none() | st.text(max_size=20_000),
    st.text(max_size=30_000),
)
def test_a_last_line_is_short_whatever_the_report_holds(lines: list[str], traceback: str | None, reason: str) -> None:
    failed = rank(0, 1.0, exitCode=1, signal=None, lines=lines, traceback=traceback)
    report = {**new_report(0), "exitCode": 1, "reason": reason, "ranks": [failed]}
    text = farewell(report, nodes=1, lines=7)
    assert len(text.encode()) <= LIMIT_BYTES
    assert text.isascii()
    facts = parse_farewell(text)
    assert facts is not None
    failure = first_candidate([facts["failure"]])
    assert failure is not None
    assert (failure["rank"], failure["exitCode"], facts["lines"]) == (0, 1, 7)
    if lines and len(json.dumps([lines, traceback, reason])) < LIMIT_BYTES - 1000 and max(map(len, lines)) <= 2000:
        assert failure["lines"] == lines


def test_the_first_failure_of_last_lines_is_that_of_the_reports() -> None:
    lost = ["RuntimeError: Connection closed by peer [10.0.0.2]"]
    reports = [
        {**new_report(0), "exitCode": 1, "ranks": [rank(0, 10.0, exitCode=1, signal=None, lines=lost)]},
        {
            **new_report(1),
            "exitCode": 1,
            "clockOffset": 0.5,
            "ranks": [
                rank(1, 11.0, exitCode=None, signal="SIGKILL"),
                rank(2, 11.1, exitCode=None, signal="SIGTERM"),
            ],
        },
        {**new_report(2), "exitCode": 0},
    ]
    told = [parse_farewell(farewell(report, nodes=3, lines=1)) for report in reports]
    assert first_candidate([one["failure"] for one in told if one]) == first_failure(reports)
    assert (first_failure(reports) or {})["rank"] == 1


def test_other_texts_are_no_last_lines() -> None:
    for text in ("", "cloudtune-end", "cloudtune-end {", "cloudtune-end []", 'cloudtune-end {"node": 1}', "x {}"):
        assert parse_farewell(text) is None
