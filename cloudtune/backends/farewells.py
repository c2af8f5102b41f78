"""Who of a run failed first, by the last lines of its nodes' agents: what every service that keeps logs can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cloudtune.node.failure import first_candidate
from cloudtune.node.farewell import parse_farewell
from cloudtune.node.lines import parse_numbered
from cloudtune.states import Failure, Status

#: Seconds after the end of a run in which last lines may still come to its log, for who wants to know who failed.
PATIENCE_S = 8.0


def are_complete(texts: Iterable[str]) -> bool:
    """Return whether the last line of every node is among the lines of a log."""
    told = _told(texts)
    return bool(told) and len(told) >= max(facts["nodes"] for facts in told.values())


def explained(status: Status, texts: Iterable[str]) -> Status:
    """Return the status with what the nodes' last lines among a log's say: who failed first, and why."""
    told = _told(texts)
    first = first_candidate([facts.get("failure") for facts in told.values()])
    if first is None:
        return status
    own: Mapping[str, Any] = next((facts for node, facts in told.items() if node == first.get("replica")), {})
    return attrs.evolve(status, failure=Failure.from_dict(first), reason=own.get("reason") or status.reason)


def _told(texts: Iterable[str]) -> dict[int, dict[str, Any]]:
    """Return what the nodes' last lines say, of an agent that was started again the newest."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for text in texts:
        line = parse_numbered(text)
        facts = parse_farewell(line.text) if line is not None and line.stream == "agent" else None
        if line is not None and facts is not None and line.start >= found.get(line.node, ("", {}))[0]:
            found[line.node] = (line.start, facts)
    return {node: facts for node, (_, facts) in found.items()}
