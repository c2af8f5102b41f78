"""Plans side by side: what differs in requests and ranks, and which keys of the spec each place honours. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from cloudtune.plan import request_name

#: One place where plans differ: its path, and the value in each plan.
Difference = tuple[Any, ...]


@attrs.frozen(kw_only=True)
class Side:
    """One side: what it is called, its plan as JSON data, and the spec that the plan was made from, as plain data."""

    name: str
    plan: Mapping[str, Any]
    spec: Mapping[str, Any]

    def notes(self, status: str) -> tuple[tuple[str, str], ...]:
        """Return (path, reason) of the keys that the place has ``approximated`` or ``refused``."""
        return tuple((note["path"], note["reason"]) for note in self.plan["fields"] if note["status"] == status)

    @property
    def warnings(self) -> tuple[tuple[str, str], ...]:
        """(path, message) of what the plan warns of."""
        return tuple((one["path"], one["message"]) for one in self.plan["warnings"])

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that the spec sets."""
        return tuple(dict.fromkeys(_keys("spec", self.spec["spec"])))

    @property
    def supported(self) -> tuple[str, ...]:
        """The keys that the spec sets and that the plan has no note on."""
        return tuple(key for key in self.keys if self.honours(key) == "supported")

    def honours(self, path: str) -> str:
        """Return how the place honours a key; "" where its spec has no such key."""
        there = path in self.keys
        noted = [
            note["status"]
            for note in self.plan["fields"]
            if _inside(note["path"], path) or (there and _inside(path, note["path"]))
        ]
        if noted:
            return "refused" if "refused" in noted else noted[0]
        return "supported" if there else ""

    def fields(self) -> dict[str, Any]:
        """Return the keys by how the place honours them, and what it warns of, as JSON data."""
        noted = {
            status: [{"path": path, "reason": reason} for path, reason in self.notes(status)]
            for status in ("approximated", "refused")
        }
        warnings = [{"path": path, "message": message} for path, message in self.warnings]
        return {"place": self.name, "supported": list(self.supported), **noted, "warnings": warnings}


@attrs.frozen(kw_only=True)
class Comparison:
    """Plans side by side: two, or with ``more`` as many as there are places."""

    first: Side
    second: Side
    more: tuple[Side, ...] = ()

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Every place where the plans differ; how their keys are honoured is told apart, by each side."""
        plans = ({key: value for key, value in side.plan.items() if key != "fields"} for side in self.sides)
        return differences(*plans)

    @property
    def outline(self) -> tuple[Difference, ...]:
        """The differences as they are read: requests by name, then what those hold that several plans have.

        Parameters of a request in one place and those of another's own request are not two values of one thing. What
        holds its plan's run id differs always, and says nothing.
        """
        plans = [_without(side.plan.get("runId"), side.plan) for side in self.sides]
        found = [*differences(*map(_outlined, plans))]
        asked = [{(step["id"], request_name(step)): _told(step) for step in plan.get("steps", ())} for plan in plans]
        for request in dict.fromkeys(request for steps in asked for request in steps):
            having = [index for index, steps in enumerate(asked) if request in steps]
            for path, *values in differences(*({"steps": [asked[index][request]]} for index in having)):
                there = dict(zip(having, values, strict=True))
                found.append((path, *(there.get(index) for index in range(len(plans)))))
        return tuple(found)

    @property
    def honoured(self) -> tuple[tuple[str, ...], ...]:
        """Every key that a spec sets or a place misses, with how each place honours it ("": no such key there)."""
        keys = dict.fromkeys(key for side in self.sides for key in side.keys)
        noted = dict.fromkeys(note["path"] for side in self.sides for note in side.plan["fields"])
        missed = [path for path in noted if not any(_inside(path, key) or _inside(key, path) for key in keys)]
        return tuple((path, *(side.honours(path) for side in self.sides)) for path in (*keys, *missed))

    @property
    def sides(self) -> tuple[Side, ...]:
        """All sides."""
        return self.first, self.second, *self.more

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as ``diff -o json`` shows it; of more than two sides the values are a list."""
        fields = [side.fields() for side in self.sides]
        if self.more:
            rows = [{"path": path, "values": values} for path, *values in self.differences]
            return {"places": [side.name for side in self.sides], "differences": rows, "fields": fields}
        return {
            "first": self.first.name,
            "second": self.second.name,
            "differences": [{"path": path, "first": one, "second": other} for path, one, other in self.differences],
            "fields": fields,
        }


def differences(*plans: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return every place where plans (as JSON data) differ, as (path, in the first, in the second, ...).

    What one of them lacks is None there, key by key, so that a step that only one plan has can be read.
    """
    return tuple(_differences("", plans))


def _differences(path: str, values: Sequence[Any]) -> Iterator[Difference]:
    there = [value for value in values if value is not None]
    if all(value == values[0] for value in values):
        return
    if any(there) and all(isinstance(value, Mapping) for value in there):
        rows = [value or {} for value in values]
        for key in dict.fromkeys(key for row in rows for key in row):
            yield from _differences(f"{path}.{key}" if path else key, [row.get(key) for row in rows])
    elif any(there) and all(isinstance(value, list) for value in there):
        named = [_by_id(value or []) for value in values]
        for key in dict.fromkeys(key for row in named for key in row):
            yield from _differences(f"{path}[{key}]", [row.get(key) for row in named])
    else:
        yield path, *values


def _told(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step as an outline tells it: without its token, which is made of the run id; each file as one text."""
    out = {key: value for key, value in step.items() if key not in ("token", "files")}
    for file in step.get("files", ()):
        out[f"files[{file['path']}]"] = f"{file['bytes']} bytes, sha256 {file['sha256'][:12]}"
    return out


def _outlined(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan with its requests by name alone."""
    out = {key: value for key, value in plan.items() if key not in ("runId", "steps", "fields", "warnings")}
    return out | {f"steps[{step['id']}]": request_name(step) for step in plan.get("steps", ())}


def _without(run_id: str | None, value: Any) -> Any:
    """Return JSON data with a placeholder wherever a run id stands."""
    if isinstance(value, str) and run_id:
        return value.replace(run_id, "<run-id>")
    if isinstance(value, Mapping):
        return {_without(run_id, key): _without(run_id, item) for key, item in value.items()}
    return [_without(run_id, item) for item in value] if isinstance(value, list) else value


def _by_id(items: Sequence[Any]) -> dict[Any, Any]:
    """Return a list's items by what names them: an id or a path of their own, else their place."""

    def name(index: int, item: Any) -> Any:
        named = item.get("id") or item.get("path") if isinstance(item, Mapping) else None
        return named if isinstance(named, str) else index

    named = {name(index, item): item for index, item in enumerate(items)}
    return named if len(named) == len(items) else dict(enumerate(items))


def _keys(path: str, value: Any) -> Iterator[str]:
    """Yield the paths of the keys that a spec sets; a list is one key, but for the steps of a pipeline."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            if key != "kind":
                yield from _keys(f"{path}.{key}", item)
    elif path == "spec.steps":
        for index, step in enumerate(value):
            yield from _keys(f"{path}[{index}]", step)
    else:
        yield path


def _inside(path: str, other: str) -> bool:
    """Return whether a path is another one or lies below it."""
    return path == other or path.startswith((f"{other}.", f"{other}["))
