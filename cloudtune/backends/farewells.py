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


def told(texts: Iterable[str]) -> dict[int, dict[str, Any]]:
    """Return what the nodes' last lines among a log's say, of an agent that was started again the newest."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for text in texts:
        line = parse_numbered(text)
        facts = parse_farewell(line.text) if line is not None and line.stream == "agent" else None
        if line is not None and facts is not None and line.start >= found.get(line.node, ("", {}))[0]:
            found[line.node] = (line.start, facts)
    return {node: facts for node, (_, facts) in found.items()}


def are_complete(texts: Iterable[str]) -> bool:
    """Return whether the last line of every node is among the lines of a log."""
    nodes = told(texts)
    return bool(nodes) and len(nodes) >= max(facts["nodes"] for facts in nodes.values())


def explained(
    status: Status, nodes: Mapping[int, Mapping[str, Any]], *, others: Iterable[Mapping[str, Any]] = ()
) -> Status:
    """Return the status with who failed first, and why, by what the nodes have :func:`told`.

    ``others`` are further candidates that the place knows of, each with its ``reason``.
    """
    candidates = [
        {**facts["failure"], "reason": facts.get("reason")} for facts in nodes.values() if facts.get("failure")
    ]
    first = first_candidate([*candidates, *others])
    if first is None:
        return status
    return attrs.evolve(status, failure=Failure.from_dict(first), reason=first["reason"] or status.reason)
