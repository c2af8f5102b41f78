"""Which process of a job failed first, over the reports of all nodes.

When one rank dies the others fail too, within seconds: their peer is gone, or their launcher ends them. Nodes' clocks
differ by more than that, so time alone does not tell: a rank whose last lines blame a peer, or that its launcher
ended, is a victim, and is named only if there is nobody else. A rank that its launcher ended while it was dying of an
exception of its own, which takes a second when PyTorch's threads must end, is no victim.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# words of gloo, NCCL and torch's stores about somebody else's end
_LOST_PEER = re.compile(
    r"gloo/transport/.*(?:timed out|timeout|connection|read error|write error)"
    r"|connectfullmesh failed"
    r"|ncclremoteerror|remote process exited|nccl communicator was aborted"
    r"|some nccl operations have failed or timed out|collective operation timeout"
    r"|tcpstore.*(?:failed to recv|timed out|connection)|failed to recv, got 0 bytes|recvvalue failed|sendbytes failed"
    r"|rendezvous(?:connection|closed|timeout|gracefulexit)error|diststoreerror|distnetworkerror",
    re.IGNORECASE,
)
# words that mean a peer too, unless they are about a download or a service
_LOST_CONNECTION = re.compile(
    r"connection (?:was )?(?:closed|reset) by (?:remote )?peer|connectionreseterror|brokenpipeerror", re.IGNORECASE
)
_SERVICE = re.compile(
    r"urllib3|requests\.exc|httpx|http\.client|httpcore|huggingface_hub|botocore|aiohttp", re.IGNORECASE
)
# what PyTorch's C++ says behind a traceback, while a process ends
_PARTING = re.compile(r"(?:\[rank\d+\]:)?\s*\[[IWEF]\d{4} |terminate called ")
#: Seconds after which a signal that ends a rank is taken for its launcher's, another rank of the node having failed.
_LAUNCHER_S = 5.0


def first_failure(reports: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return the process that failed first, or None if nothing failed.

    A report that is missing (None) or empty counts for nothing. Times are corrected by each node's ``clockOffset``.
    """
    return first_candidate([candidate(report) for report in reports if report])


def candidate(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what failed first on one node, in a form that :func:`first_candidate` compares with other nodes'."""
    found = _candidates(report)
    if not found:
        return None
    blame, time_s, rank, failure = min(found, key=lambda one: one[:3])
    return {"order": [blame, time_s, rank], **failure}


def first_candidate(candidates: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return the failure that came first, of one candidate a node."""
    found = [one for one in candidates if one is not None]
    if not found:
        return None
    first = min(found, key=lambda one: tuple(one["order"]))
    return {name: value for name, value in first.items() if name != "order"}


def how_it_failed(failure: Mapping[str, Any]) -> str:
    """Return how a rank failed in a few words."""
    ended = f"ended by {failure['signal']}" if failure["signal"] else f"exit code {failure['exitCode']}"
    return f"rank {failure['rank']} failed ({ended})"


def rank_that_failed(report: Mapping[str, Any]) -> str | None:
    """Return which rank of a node failed by itself, before the node was stopped; None if none did."""
    first = candidate(report)
    return how_it_failed(first) if first and first["rank"] is not None and first["order"][0] == 0 else None


def _candidates(report: Mapping[str, Any]) -> list[tuple[int, float, int, dict[str, Any]]]:
    """Return (blame, time, rank, failure) of all that failed on a node; the lowest blame comes first."""
    offset = float(report.get("clockOffset") or 0.0)
    failed = [rank for rank in report.get("ranks") or () if rank.get("exitCode") or rank.get("signal")]
    earliest = min((rank["endedAt"] for rank in failed if rank.get("endedAt")), default=None)
    found = []
    for rank in failed:
        ended_at = float(rank.get("endedAt") or report.get("endedAt") or 0.0)
        failure = _failure(report, rank, ended_at)
        blame = _blame(report, failure, after_s=ended_at - (ended_at if earliest is None else earliest))
        number = rank.get("rank")
        found.append((blame, ended_at + offset, -1 if number is None else int(number), failure))
    own = _own_failure(report, has_ranks=bool(found))
    if own is not None:
        blame = 1 if own.pop("victim", False) else _blame(report, own, after_s=0.0)
        found.append((blame, float(own["time"] or 0.0) + offset, -1, own))
    return found


def _own_failure(report: Mapping[str, Any], *, has_ranks: bool) -> dict[str, Any] | None:
    """Return the failure of the node as a whole: its agent's, its launcher's, or its time limit's."""
    failure = report.get("failure")
    if failure:
        if has_ranks and failure.get("rank") is not None:
            return None  # one of the ranks, seen already
        return {**_failure(report, failure, failure.get("time") or report.get("endedAt") or 0.0), **_victim(failure)}
    if has_ranks or report.get("stopped") or not (report.get("exitCode") or report.get("signal")):
        return None
    return _failure(report, report, report.get("endedAt") or 0.0)


def _victim(failure: Mapping[str, Any]) -> dict[str, Any]:
    return {"victim": True} if failure.get("victim") else {}


def _failure(report: Mapping[str, Any], source: Mapping[str, Any], time_s: float) -> dict[str, Any]:
    return {
        "replica": report.get("node"),
        "rank": source.get("rank"),
        "exitCode": source.get("exitCode"),
        "signal": source.get("signal"),
        "time": time_s,
        "lines": list(source.get("lines") or ()),
        "traceback": source.get("traceback"),
    }


def _blame(report: Mapping[str, Any], failure: Mapping[str, Any], *, after_s: float) -> int:
    """Return 0 for a failure of its own, 1 for one that blames a peer, 2 for one that somebody asked for.

    ``after_s`` is the time since the first failure on the same node.
    """
    stopped_at = report.get("stoppedAt")
    if stopped_at and failure["rank"] is not None and failure["time"] >= stopped_at:
        return 2
    by_launcher = failure["signal"] == "SIGTERM" and after_s > 0
    if (by_launcher and not _was_dying(failure)) or (failure["signal"] == "SIGKILL" and after_s >= _LAUNCHER_S):
        return 2
    text = "\n".join(map(str, (*failure["lines"], failure["traceback"] or "")))
    lost = _LOST_PEER.search(text) or (_LOST_CONNECTION.search(text) and not _SERVICE.search(text))
    return 1 if lost and failure["signal"] != "SIGKILL" else 0


def _was_dying(failure: Mapping[str, Any]) -> bool:
    """Whether the last words of a process are a whole traceback: SIGTERM itself ends Python without one."""
    named = str(failure["traceback"] or "").splitlines()[-1:]
    said = [str(line).rstrip() for line in failure["lines"] if str(line).strip() and not _PARTING.match(str(line))][-1:]
    return bool(named and said) and said[0].endswith(named[0]) and not named[0][:1].isspace()
