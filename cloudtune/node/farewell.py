"""The last line that a node writes where lines are numbered: how many there were, how it ended, what failed first.

Whoever reads the log then knows that it is whole, and needs nothing else from the node to name the first failure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloudtune.node.failure import candidate

#: What the text of a last line begins with; readers look for it.
WORD = "cloudtune-end"
#: The whole text: a log service or a container runtime may cut a longer line.
LIMIT_BYTES = 12 * 1024
#: Characters of a line of a process, and of a traceback, at first; they are halved until the text is short enough.
_CHARACTERS = 2000


def farewell(report: Mapping[str, Any], *, nodes: int, lines: int) -> str:
    """Return the text of a node's last line; ``lines`` counts it too."""
    facts = {"node": report.get("node"), "nodes": nodes, "lines": lines}
    facts.update((name, report.get(name)) for name in ("exitCode", "signal", "stopped", "reason"))
    failure = candidate(report) if report.get("exitCode") else None
    characters = _CHARACTERS
    while True:
        text = f"{WORD} {json.dumps({**facts, 'failure': _shortened(failure, characters)}, separators=(',', ':'))}"
        if len(text) <= LIMIT_BYTES or characters <= 1:
            return text
        characters //= 2
        facts["reason"] = str(facts["reason"])[:characters] if facts["reason"] else None


def parse_farewell(text: str) -> dict[str, Any] | None:
    """Return the facts of a last line's text, or None for any other text."""
    word, _, rest = text.partition(" ")
    if word != WORD:
        return None
    try:
        facts = json.loads(rest)
    except ValueError:
        return None
    whole = isinstance(facts, dict) and all(isinstance(facts.get(name), int) for name in ("node", "nodes", "lines"))
    return facts if whole else None


def _shortened(failure: Mapping[str, Any] | None, characters: int) -> dict[str, Any] | None:
    if failure is None:
        return None
    most = max(1, characters * 20 // _CHARACTERS)  # the last lines say most
    lines = [str(line)[:characters] for line in failure.get("lines") or ()][-most:]
    traceback = failure.get("traceback")
    return {**failure, "lines": lines, "traceback": traceback[-2 * characters :] if traceback else None}
