"""The lines of a job run by Logging Search: first the run, then its log, then one search after the other.

The cursor says which of these comes next, and keeps what the last look at the run has said; the lines themselves are
for :mod:`cloudtune.backends.numbered`. A log is complete when every node has said how many lines it wrote. Where that
cannot be known, it is taken for complete after a quiet time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.backends import numbered
from cloudtune.backends.numbered import Entry
from cloudtune.backends.oci_runs import (
    AGENT_RUN,
    LOGGING,
    OVER,
    SCIENCE,
    WINDOW_S,
    call,
    exit_code,
    moment,
    search,
)
from cloudtune.plan import Call
from cloudtune.states import Handle, LogLine

#: Pages that one search may have: with more of them at once, the memory of who watches grows.
PAGES = 15
#: Seconds after the end of a run, or the last new line, after which a log that does not say so is taken for complete.
QUIET_S = 5.0
#: Seconds after the end of a run in which lines that are known to have been written are waited for.
DUE_S = 90.0
#: Seconds since the start of a run after which its first line is not waited for beyond the end: it may not log at all.
FIRST_S = 60.0
#: Seconds that somebody who does not follow waits at most for lines that are on their way.
PRESENT_S = 5.0
#: The service's own clocks differ a little.
_SLACK_S = 60.0
#: The agent, or what it started, was killed; it may not have come to say so.
_KILLED = 137


def next_call(handle: Handle, cursor: Mapping[str, Any] | None) -> Call:
    """Return the call that follows: a look at the run, at its log, or a search."""
    cursor = cursor or {"next": "look"}
    if cursor["next"] == "look":
        return call(SCIENCE, "get_job_run", handle, jobRunId=handle.id, cursor=cursor)
    run = cursor["run"]
    if cursor["next"] == "log":
        return call(LOGGING, "get_log", handle, logGroupId=run["group"], logId=run["log"], cursor=cursor)
    place = {"compartment": cursor["compartment"], "group": run["group"], "id": run["log"]}
    return search(handle, place, cursor["lines"]["at"], _until(cursor), pages=PAGES, cursor=cursor)


def read(handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Return the lines of a reply to :func:`next_call`, and the cursor behind it."""
    before = reply["cursor"]
    now = float(reply["readAt"])
    cursor = {**before, "now": now, "began": before.get("began", now)}
    if before["next"] == "look":
        return _looked(reply, cursor)
    if before["next"] == "log":
        cursor |= {"compartment": reply["compartmentId"], "next": "search", "more": True}
        return (), {**cursor, "lines": numbered.beginning(cursor["run"]["accepted"] - _SLACK_S)}
    return _searched(handle, reply, cursor)


def _until(cursor: Mapping[str, Any]) -> float:
    """Return up to when is searched: the present, or as much as one search may span."""
    return float(min(cursor["now"] + _SLACK_S, cursor["lines"]["at"] + WINDOW_S))


# --- the run


def _looked(reply: Mapping[str, Any], cursor: dict[str, Any]) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Read how the run is: what to do next depends on whether it has begun, is over, and has a log."""
    known = cursor.get("run") or {}
    now, log = cursor["now"], reply.get("logDetails") or {}
    over = reply.get("lifecycleState") in OVER
    finished = moment(reply.get("timeFinished")) or known.get("finished") or now
    run = {
        "state": reply.get("lifecycleState"),
        "details": reply.get("lifecycleDetails"),
        "exitCode": exit_code(reply),
        "grouped": bool(reply.get("nodeGroupDetailsList")),
        "accepted": moment(reply.get("timeAccepted")) or now,
        "started": moment(reply.get("timeStarted")),
        "finished": finished if over else None,
        "group": log.get("logGroupId"),
        "log": log.get("logId"),
        "saidNothing": known.get("saidNothing", False),
    }
    lines = list(_news(known, run, now))
    has_log = bool(run["log"] and run["group"])
    if not has_log and (run["started"] or over) and not run["saidNothing"]:
        run["saidNothing"] = True
        words = "this run has no log (its job names no logGroupId)"
        lines.append(_own(now, words if over else f"{words}: its state is all that can be followed"))
    cursor = {**cursor, "run": run, "next": "look", "more": False, "caughtUp": True, "ended": False}
    if has_log and run["started"]:
        step = "search" if "lines" in cursor else "log"
        return tuple(lines), {**cursor, "next": step, "more": True, "caughtUp": False}
    return tuple(lines), {**cursor, "ended": over}


def _news(known: Mapping[str, Any], run: Mapping[str, Any], now: float) -> Iterator[LogLine]:
    """Yield what has become of a run that goes on; how it ends is told by others."""
    told = (known.get("state"), known.get("details"))
    if run["finished"] is None and told != (run["state"], run["details"]):
        yield _own(now, f"OCI: {run['state']}" + (f": {run['details']}" if run["details"] else ""))


def _own(time_s: float, text: str) -> LogLine:
    return LogLine(time=time_s, replica=None, rank=None, stream="agent", text=text)


# --- its lines


def _searched(
    handle: Handle, reply: Mapping[str, Any], cursor: dict[str, Any]
) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    run, now, until = cursor["run"], cursor["now"], _until(reply["cursor"])
    part = until < now  # as far as one search could reach
    # beside the agent, which labels each line, it is the service that writes, or an agent that could not start
    agent = handle.kind == AGENT_RUN or bool(cursor["lines"]["of"])
    found = (_entry(row, run, "agent" if agent else None) for row in reply.get("results") or ())
    entries = (entry for entry in found if entry is not None)
    more = bool(reply.get("opcNextPage"))
    told, lines = numbered.take(
        entries, cursor["lines"], now=min(now, until), more=more, over=None if part else run["finished"]
    )
    again = bool(lines["again"]) or part
    cursor = {**cursor, "lines": lines, "next": "search" if again else "look", "more": again, "ended": False}
    if again:
        return told, {**cursor, "caughtUp": False}
    if run["finished"] is None:
        seen = not more or lines["top"] >= cursor["began"]  # of a flood nobody sees the end
        present = seen and (not lines["waiting"] or now - cursor["began"] > PRESENT_S)
        return told, {**cursor, "caughtUp": present}
    whole = numbered.ended(lines)
    ended = whole or (not more and _is_over(handle, cursor))
    last = () if whole or not ended else tuple(_lacking(handle, cursor))
    return (*told, *last), {**cursor, "next": "search", "caughtUp": ended, "ended": ended, "soon": True}


def _is_over(handle: Handle, cursor: Mapping[str, Any]) -> bool:
    """Whether nothing more will come, as far as can be known of a log that does not say so itself."""
    run, lines, now = cursor["run"], cursor["lines"], cursor["now"]
    since = now - run["finished"]
    if since <= DUE_S and (lines["waiting"] or _is_due(handle, run, lines, now)):
        return False
    return bool(since > DUE_S or now - max(run["finished"], lines["news"]) >= QUIET_S)


def _is_due(handle: Handle, run: Mapping[str, Any], lines: Mapping[str, Any], now: float) -> bool:
    """Whether last lines must have been written that have not come: an agent that ends by itself always writes one."""
    if not lines["of"] and (handle.kind != AGENT_RUN or now - run["started"] > FIRST_S):
        return False
    if run["state"] == "SUCCEEDED":
        return numbered.farewells(lines) < max(1, int(lines["of"]))
    return run["exitCode"] not in (None, _KILLED) and not numbered.farewells(lines)


def _lacking(handle: Handle, cursor: Mapping[str, Any]) -> Iterator[LogLine]:
    """Yield what is to be said of a log that is not known to be whole."""
    lines, now = cursor["lines"], cursor["now"]
    if handle.kind == AGENT_RUN and not lines["of"] and not lines["seen"]:
        yield _own(now, "no line has come: may the job write to its log? (the policies of infrastructure/oci)")
    elif cursor["run"]["state"] == "SUCCEEDED" and lines["of"]:
        yield _own(now, "the end of this log has not come yet: look again later with cloudtune logs")


def _entry(row: Mapping[str, Any], run: Mapping[str, Any], stream: str | None) -> Entry | None:
    if row.get("at") is None:
        return None
    text = row.get("text")
    named = "stderr" if str(row.get("type") or "").endswith("stderr") else "stdout"
    return Entry(
        id=str(row.get("id") or f"{row['at']} {text}"),
        at=float(row["at"]) / 1000,
        text=text if isinstance(text, str) else json.dumps(text),
        stream=stream or named,
        replica=None if run["grouped"] else 0,
    )
