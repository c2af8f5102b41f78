"""Conditions of objects: what is true of them, since when, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes.objects import moment


def condition(thing: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return the condition of this type, None where nothing is said about it."""
    rows = (thing.get("status") or {}).get("conditions") or ()
    return next((row for row in rows if row["type"] == kind), None)


def holds(thing: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is true."""
    found = condition(thing, kind)
    return found is not None and found["status"] == "True"


def set_condition(
    status: dict[str, Any],
    kind: str,
    true: bool | str,
    *,
    reason: str = "",
    message: str = "",
    also: Mapping[str, Any] | None = None,
) -> bool:
    """Say something of the object with this status; False if it was said already. ``also`` are more fields."""
    state = true if isinstance(true, str) else str(bool(true))
    rows = status.setdefault("conditions", [])
    old = next((row for row in rows if row["type"] == kind), None)
    said = {"status": state, **({"reason": reason} if reason else {}), **({"message": message} if message else {})}
    if old is not None and {key: old.get(key) for key in ("status", "reason", "message")} == {
        key: said.get(key) for key in ("status", "reason", "message")
    }:
        return False
    now = moment()
    changed = old["lastTransitionTime"] if old is not None and old["status"] == state else now
    new = {"type": kind, **said, "lastTransitionTime": changed, **(also or {})}
    if old is None:
        rows.append(new)
    else:
        rows[rows.index(old)] = new
    return True
