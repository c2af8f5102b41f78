"""A plan: everything that a run would send, as a value, before anything is sent.

A :class:`Plan` is pure data: made offline by a backend, printed by ``run --dry-run``, carried out by
:mod:`cloudtune.submit`. Inside the parameters of a step some leaves are not plain JSON:

* :class:`Ref`: a field of an earlier step's reply, shown as ``${step.field}``; :class:`IfGiven` asks whether there is
  such a field;
* :class:`Masked`: a literal value whose name says that it is secret, shown as ``${masked:NAME}``;
* :class:`FromShell`: a variable read from the shell when the plan is carried out, shown as ``${shell:NAME}``.

They are types, so a user's text that only looks like one of them stays text on the wire.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.html import table
from cloudtune.launch import Launch
from cloudtune.node import masks

API_VERSION = "cloudtune/v1"


@attrs.frozen
class Ref:
    """A field of the reply to an earlier step.

    The field is a dotted path; ``name[key=text]`` in it is the one entry of a list that has the text at the key, and
    ``name|other`` is the first of both that there is.
    """

    step: str
    field: str

    def of(self, reply: Any) -> Any:
        """Return what the reply has there.

        Raises:
            KeyError: it has nothing there.
            UsageError: no entry of a list, or more than one, is what the path asks for.
        """
        for part in self.field.split("."):
            name, bracket, rest = part.partition("[")
            if not isinstance(reply, Mapping):
                raise KeyError(self.field)
            if part in reply or not bracket:  # what is kept of a reply has the very part as its key
                names = (part, *part.split("|"))
                reply = reply[next((name for name in names if reply.get(name) is not None), part)]
                continue
            key, _, text = rest.rstrip("]").partition("=")
            found = [row for row in reply[name] if str(row.get(key)) == text]
            if len(found) != 1:
                message = f"step {self.step} finds {len(found) or 'no'} {text} where it should find one"
                raise UsageError(message, hint="name what the spec means by its own id")
            reply = found[0]
        return reply

    def __str__(self) -> str:
        return f"${{{self.step}.{self.field}}}"


@attrs.frozen
class IfGiven:
    """One of two values: ``then`` if the reply to an earlier step has the field, else ``otherwise``.

    None for ``otherwise`` leaves the key out.
    """

    ref: Ref
    then: Any
    otherwise: Any = None

    def __str__(self) -> str:
        then, otherwise = (json.dumps(shown(value)) for value in (self.then, self.otherwise))
        return f"${{{self.ref.step}.{self.ref.field} ? {then} : {otherwise}}}"


@attrs.frozen
class Masked:
    """A literal secret: shown by name only; the value never leaves the process except on the wire."""

    name: str
    value: str | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        return masks.mask_of(self.name)


@attrs.frozen
class FromShell:
    """A variable that is read from the shell when the plan is carried out."""

    name: str

    def __str__(self) -> str:
        return f"${{shell:{self.name}}}"


Leaf = Ref | IfGiven | Masked | FromShell


@attrs.frozen(kw_only=True)
class File:
    """A file that a step uploads: its path at the destination, its size and digest, and where it lies here.

    ``link`` is where a symbolic link leads; its size and digest are those of that text, as git has them. ``content``
    are the bytes of a file that lies nowhere: the plan itself made it.
    """

    path: str
    bytes: int
    sha256: str
    source: str | None = None
    executable: bool = False
    link: str | None = None
    content: builtins.bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class Call:
    """One request: the service and the operation in the wire's own names, and its parameters.

    ``region`` is where it is sent, of services whose requests do not say it themselves.
    """

    service: str
    operation: str
    parameters: Mapping[str, Any] = attrs.field(factory=dict)
    region: str | None = None


@attrs.frozen(kw_only=True)
class Until:
    """What to read after a step until it is done: a work request, an import, an endpoint.

    ``field`` names the field of the reply (dotted) whose value decides; a value in neither list means "not yet".
    """

    call: Call
    field: str
    done: tuple[str, ...]
    failed: tuple[str, ...] = ()
    timeout_s: float = 3600.0
    interval_s: float = 5.0


@attrs.frozen(kw_only=True)
class Step:
    """One change that a run makes, in the service's own words.

    ``token`` makes sending the step twice harmless: a retry token or a unique name, derived from the run id; for
    ``token_s`` seconds, where the service forgets it. ``undo`` takes the step back when a later one fails for good;
    what is ``within`` an earlier step goes when that goes. ``region`` is that of :class:`Call`.
    """

    id: str
    service: str
    operation: str
    parameters: Mapping[str, Any] = attrs.field(factory=dict)
    files: tuple[File, ...] = ()
    token: str | None = None
    token_s: float | None = None
    until: Until | None = None
    undo: Call | None = None
    within: str | None = None
    region: str | None = None


def request_name(step: Mapping[str, Any]) -> str:
    """Return what a step, as JSON data, asks of whom; of a manifest its kind too, as each has its own fields."""
    kind = step.get("parameters", {}).get("kind")
    return " ".join(str(word) for word in (step["service"], step["operation"], kind) if word)


@attrs.frozen(kw_only=True)
class FieldNote:
    """A key of the spec that the backend cannot honour as written: ``approximated`` or ``refused``, and why."""

    path: str
    status: str
    reason: str


@attrs.frozen(kw_only=True)
class Notice:
    """Something the user should know before the run starts."""

    path: str
    message: str


@attrs.frozen(kw_only=True)
class Plan:
    """What would be sent, in order. A pipeline's plan has ``launches`` by step instead of one ``launch``."""

    name: str
    run_id: str
    backend: str
    launch: Launch | None = None
    launches: Mapping[str, Launch] = attrs.field(factory=dict)
    steps: tuple[Step, ...] = ()
    outputs: tuple[str, ...] = ()
    fields: tuple[FieldNote, ...] = ()
    warnings: tuple[Notice, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON data: camelCase, references and masks as text."""
        out: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "name": self.name,
            "runId": self.run_id,
            "backend": self.backend,
        }
        if self.launch is not None:
            out["launch"] = self.launch.to_dict()
        if self.launches:
            out["launches"] = {step: launch.to_dict() for step, launch in self.launches.items()}
        out["steps"] = [_step_dict(step) for step in self.steps]
        out["outputs"] = [masks.shown(uri) for uri in self.outputs]
        out["fields"] = [attrs.asdict(note) for note in self.fields]
        out["warnings"] = [attrs.asdict(warning) for warning in self.warnings]
        return out

    def to_json(self) -> str:
        """Return the plan as JSON text; the same spec and code give the same bytes."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @property
    def refused(self) -> tuple[FieldNote, ...]:
        """The keys for which the backend refuses to run this job."""
        return tuple(note for note in self.fields if note.status == "refused")

    def _repr_html_(self) -> str:
        launches = self.launches or ({"": self.launch} if self.launch is not None else {})
        starts = [
            (step, f"{one.nodes} x {one.processes_per_node}", one.accelerator or "CPU", one.to_dict()["command"])
            for step, one in launches.items()
        ]
        rows = [(step.id, step.service, step.operation, len(step.files) or "") for step in self.steps]
        notes = [(note.path, note.status, note.reason) for note in self.fields]
        notes += [(notice.path, "warning", notice.message) for notice in self.warnings]
        title = f"Plan of {self.name} on {self.backend}"
        return (
            table(title, ("step", "nodes x processes", "on", "command"), starts)
            + table("What would be sent", ("step", "service", "operation", "files"), rows)
            + (table("Fields and warnings", ("path", "", ""), notes) if notes else "")
        )


def _step_dict(step: Step) -> dict[str, Any]:
    out: dict[str, Any] = {
        "id": step.id,
        "service": step.service,
        "operation": step.operation,
        "parameters": shown(step.parameters),
    }
    if step.region is not None:
        out["region"] = step.region
    if step.files:
        out["files"] = [_file_dict(file) for file in step.files]
    if step.token is not None:
        out["token"] = step.token
    if step.until is not None:
        until = step.until
        out["until"] = {
            "operation": until.call.operation,
            "parameters": shown(until.call.parameters),
            "field": until.field,
            "done": list(until.done),
            "failed": list(until.failed),
            "timeoutInSeconds": until.timeout_s,
        }
    if step.undo is not None:
        out["undo"] = {"operation": step.undo.operation, "parameters": shown(step.undo.parameters)}
    return out


def _file_dict(file: File) -> dict[str, Any]:
    path = file.path.encode(errors="backslashreplace").decode()  # a name need not be text
    return {"path": path, "bytes": file.bytes, "sha256": file.sha256}


#: What a leaf is replaced by whose key is to be left out.
OMITTED = object()


def substitute(value: Any, leaf: Callable[[Leaf], Any]) -> Any:
    """Return a plain copy of a parameter tree with every special leaf replaced by ``leaf(it)``."""
    if isinstance(value, Leaf):
        return leaf(value)
    if isinstance(value, Mapping):
        items = ((key, substitute(item, leaf)) for key, item in value.items())
        return {key: item for key, item in items if item is not OMITTED}
    if isinstance(value, (list, tuple)):
        return [substitute(item, leaf) for item in value]
    return value


def shown(value: Any) -> Any:
    """Return a parameter tree as people and logs may see it: references and masks as text."""
    return substitute(value, str)


def leaves(value: Any) -> Iterator[Leaf]:
    """Yield every special leaf of a parameter tree."""
    if isinstance(value, IfGiven):
        yield from (value.ref, *leaves(value.then), *leaves(value.otherwise))
    elif isinstance(value, Leaf):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
