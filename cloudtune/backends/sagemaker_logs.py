"""A training job's lines by CloudWatch Logs: all nodes merged, each line once and in order, with what the job does.

Reading is looking at the job and searching the streams of all its nodes, in turn. What is found in a search, and where
the next one starts, is for :mod:`cloudtune.backends.numbered`; the steps that the job comes through, as SageMaker tells
them, are put between the lines by their times. A log is complete when every node has said how many lines it wrote.
Where that cannot be known, it is taken for complete after a quiet time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloudtune.backends import numbered
from cloudtune.backends.numbered import Entry
from cloudtune.backends.sagemaker_runs import (
    AGENT_JOB,
    GROUP,
    LOGS,
    OVER,
    began,
    bill,
    call,
    describe,
    exit_code,
    hosts,
    moment,
    reason_of,
    transitions,
    words,
)
from cloudtune.plan import Call
from cloudtune.states import Handle, LogLine

#: Pages of a mebibyte at most that one search may have: with more of them, the memory of who watches grows.
PAGES = 2
#: Seconds after the end of a job, or the last new line, after which a log that does not say so is taken for complete.
QUIET_S = 6.0
#: Seconds after the end of a job in which lines that are known to have been written are waited for.
DUE_S = 90.0
#: Seconds since the containers began after which a first line is not waited for beyond the end: there may be none.
FIRST_S = 60.0
#: Seconds that somebody who does not follow waits at most for lines that are on their way.
PRESENT_S = 5.0
#: The nodes' clocks differ a little from the service's.
_SLACK_S = 60.0
#: The agent, or what it started, was killed; it may not have come to say so.
_KILLED = 137
#: The steps of a job that are its end: one line sums them up.
_ENDS = frozenset({"Completed", "Failed", "Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded"})


def next_call(handle: Handle, cursor: Mapping[str, Any] | None) -> Call:
    """Return the call that follows: a look at the job, or a search of its streams."""
    cursor = cursor or {"next": "look"}
    if cursor["next"] == "look":
        return describe(handle, cursor=cursor)
    token = {"nextToken": cursor["token"]} if cursor.get("token") else {}
    return call(
        LOGS,
        "filter_log_events",
        handle,
        logGroupName=GROUP,
        logStreamNamePrefix=f"{handle.id}/",
        startTime=max(0, int(cursor["lines"]["at"] * 1000)),
        pages=PAGES,
        absent=True,
        cursor=cursor,
        **token,
    )


def read(handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Return the lines of a reply to :func:`next_call`, and the cursor behind it."""
    before = reply["cursor"]
    now = float(reply["readAt"])
    cursor = {"steps": 0, "news": [], **before, "now": now, "began": before.get("began", now)}
    return _looked(reply, cursor) if before["next"] == "look" else _searched(handle, reply, cursor)


# --- the job


def _looked(reply: Mapping[str, Any], cursor: dict[str, Any]) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Read how the job is: its lines can be searched once its containers have begun."""
    over = reply.get("TrainingJobStatus") in OVER
    known, now = cursor.get("job") or {}, cursor["now"]
    steps = transitions(reply)
    started = began(reply)
    job: dict[str, Any] = {
        "started": started,
        "finished": (moment(reply.get("TrainingEndTime")) or known.get("finished") or now) if over else None,
        "succeeded": reply.get("TrainingJobStatus") == "Completed",
        "exitCode": exit_code(reply),
        "hosts": sorted(hosts(reply)),
        "summary": _summary(reply) if over else None,
    }
    fresh = [
        [moment(step.get("StartTime")) or now, f"SageMaker: {words(step)}"]
        for step in steps[cursor["steps"] :]
        if step.get("Status") not in _ENDS
    ]
    cursor = {**cursor, "job": job, "steps": len(steps), "news": [*cursor["news"], *fresh]}
    if started is not None:
        lines = cursor.get("lines") or numbered.beginning(started - _SLACK_S)
        state = {"lines": lines, "next": "search", "more": True, "caughtUp": False, "ended": False}
        return (), {**cursor, **state}
    told = [*_told(cursor["news"]), *(() if cursor.get("ended") else _end(job))]
    return tuple(told), {**cursor, "news": [], "next": "look", "more": False, "caughtUp": True, "ended": over}


def _summary(reply: Mapping[str, Any]) -> str:
    """Return how a job has ended, in a line: its last step, why, and what is paid for."""
    steps = transitions(reply)
    how = words(steps[-1]) if steps else str(reply.get("TrainingJobStatus"))
    why = reason_of(reply) if reply.get("TrainingJobStatus") != "Completed" else None
    paid = bill(reply)
    return f"SageMaker: {how}" + (f": {why}" if why and why != how else "") + (f"; {paid}" if paid else "")


def _end(job: Mapping[str, Any]) -> Iterator[LogLine]:
    if job["finished"] is not None:
        for text in str(job["summary"]).splitlines():
            yield _own(job["finished"], text)


def _told(news: Iterable[Any]) -> Iterator[LogLine]:
    for time_s, text in news:
        yield _own(float(time_s), str(text))


def _own(time_s: float, text: str) -> LogLine:
    return LogLine(time=time_s, replica=None, rank=None, stream="agent", text=text)


# --- its lines


def _searched(
    handle: Handle, reply: Mapping[str, Any], cursor: dict[str, Any]
) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    job, now = cursor["job"], cursor["now"]
    events, token = reply.get("events") or (), reply.get("nextToken")
    if token and not events:  # the service has searched a part of the streams, and found nothing there
        return (), {**cursor, "token": token, "more": True, "caughtUp": False, "soon": True}
    ranks = {name: rank for rank, name in enumerate(job["hosts"])}
    # beside the agent, which labels each line, it is the image that writes, or an agent that could not start
    own = handle.kind == AGENT_JOB or bool(cursor["lines"]["of"])
    entries = [_entry(event, ranks, "agent" if own else "stdout") for event in events]
    found, lines = numbered.take(entries, cursor["lines"], now=now, more=bool(token), over=job["finished"])
    again = bool(lines["again"])
    cursor = {**cursor, "lines": lines, "token": None, "next": "search" if again else "look", "more": again}
    told, cursor["news"] = _merged(found, cursor["news"], rest=not again and not lines["waiting"])
    if again:
        return told, {**cursor, "caughtUp": False, "ended": False}
    if job["finished"] is None:
        present = not lines["waiting"] or now - cursor["began"] > PRESENT_S
        return told, {**cursor, "caughtUp": present, "ended": False}
    if not (numbered.ended(lines) or _is_over(handle, cursor)):
        return told, {**cursor, "next": "search", "caughtUp": False, "ended": False, "soon": True}
    # whoever asks once more is not told the end again
    last = () if cursor.get("ended") else (*_told(cursor["news"]), *_lacking(handle, cursor), *_end(job))
    return (*told, *last), {**cursor, "news": [], "next": "search", "caughtUp": True, "ended": True, "soon": True}


def _merged(lines: Iterable[LogLine], news: list[Any], *, rest: bool) -> tuple[tuple[LogLine, ...], list[Any]]:
    """Return lines and the job's steps by time, and the steps that are still to be told; all go with ``rest``."""
    left = list(news)
    told: list[LogLine] = []
    for line in lines:
        while left and left[0][0] <= line.time:
            told += _told([left.pop(0)])
        told.append(line)
    if rest:
        told += _told(left)
        left = []
    return tuple(told), left


def _is_over(handle: Handle, cursor: Mapping[str, Any]) -> bool:
    """Whether nothing more will come, as far as can be known of a log that does not say so itself."""
    job, lines, now = cursor["job"], cursor["lines"], cursor["now"]
    since = now - job["finished"]
    if since <= DUE_S and (lines["waiting"] or _is_due(handle, job, lines, now)):
        return False
    return bool(since > DUE_S or now - max(job["finished"], lines["news"]) >= QUIET_S)


def _is_due(handle: Handle, job: Mapping[str, Any], lines: Mapping[str, Any], now: float) -> bool:
    """Whether last lines must have been written that have not come: an agent that ends by itself always writes one."""
    if not lines["of"] and (handle.kind != AGENT_JOB or now - job["started"] > FIRST_S):
        return False
    if job["succeeded"]:
        return numbered.farewells(lines) < max(1, int(lines["of"]))
    return job["exitCode"] not in (None, _KILLED) and not numbered.farewells(lines)


def _lacking(handle: Handle, cursor: Mapping[str, Any]) -> Iterator[LogLine]:
    """Yield what is to be said of a log that is not known to be whole."""
    job, lines = cursor["job"], cursor["lines"]
    if numbered.ended(lines):
        return
    if handle.kind == AGENT_JOB and not lines["of"] and not lines["seen"]:
        text = f"no line has come: may the job's role write to {GROUP}? (the policies of infrastructure/sagemaker)"
        yield _own(job["finished"], text)
    elif job["succeeded"] and lines["of"]:
        yield _own(job["finished"], "the end of this log has not come yet: look again later with cloudtune logs")


def _entry(event: Mapping[str, Any], ranks: Mapping[str, int], stream: str) -> Entry:
    host = str(event.get("logStreamName") or "").rpartition("/")[2].rpartition("-")[0]
    return Entry(
        id=str(event.get("eventId") or f"{event.get('logStreamName')} {event.get('timestamp')}"),
        at=float(event.get("timestamp") or 0) / 1000,
        text=str(event.get("message") or ""),
        stream=stream,
        replica=ranks.get(host),
    )
