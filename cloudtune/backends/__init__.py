"""How each place says it: a backend turns a job into a plan and a place's reply into a status; it sends nothing.

A backend is one file and one row of :data:`BACKENDS`: the type of infrastructure, and ``module:Class`` as text. The
text *is* the lazy import. Other distributions add rows by the entry point group ``cloudtune.backends`` (the entry
point's name is the infrastructure type).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from cloudtune.errors import UsageError
from cloudtune.plan import Call, Plan
from cloudtune.spec.job import JobSpec
from cloudtune.states import Handle, LogLine, Status


class Row(NamedTuple):
    """One backend: its name in plans, records and handles, and ``module:Class`` of its code."""

    name: str
    code: str


BACKENDS: dict[str, Row] = {
    "local": Row("local", "cloudtune.backends.local:LocalBackend"),
    "dataScienceJob": Row("oci", "cloudtune.backends.oci:OciBackend"),
    "sageMakerTrainingJob": Row("sagemaker", "cloudtune.backends.launch_only:SageMakerBackend"),
    "eksJob": Row("eks", "cloudtune.backends.launch_only:EksBackend"),
}

#: A place's own notion of how far a log has been read; JSON, and None at the start. Where it has the key ``caughtUp``,
#: that says whether everything has been read that was there when the reading began.
Cursor = Mapping[str, Any] | None


class Backend(Protocol):
    """What a place must be able to say. All methods are pure: values in, values out."""

    #: Name in plans, records and handles.
    name: str
    #: ``module:Class`` of the client that carries out its calls.
    client: str

    def plan(self, job: JobSpec, run_id: str) -> Plan:
        """Return everything that running the job would send."""
        ...

    def handle(self, plan: Plan, replies: Mapping[str, Mapping[str, Any]]) -> Handle:
        """Return where the submitted run lives, from the replies to the plan's steps.

        Raises KeyError where a reply is missing that names it; a place that needs none can tell beforehand.
        """
        ...

    def recognise(self, text: str) -> Handle | None:
        """Return the handle of a run named by the place's own id, or None if the text is no such id."""
        ...

    def look(self, handle: Handle) -> Call:
        """Return the call that asks for the run's state."""
        ...

    def status(self, handle: Handle, reply: Mapping[str, Any]) -> Status:
        """Return what the reply to :meth:`look` means."""
        ...

    def logs(self, handle: Handle, cursor: Cursor) -> Call:
        """Return the call that asks for the log lines after the cursor."""
        ...

    def lines(self, handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], Cursor]:
        """Return the lines in the reply to :meth:`logs`, in order, and the cursor behind them.

        All replies together have every line once, ordered by time over all replicas.
        """
        ...

    def cancel(self, handle: Handle) -> tuple[Call, ...]:
        """Return the calls that end the run."""
        ...

    def delete(self, handle: Handle, *, outputs: bool) -> tuple[Call, ...]:
        """Return the calls that remove the run's record in its place, and its outputs only if asked."""
        ...


def load(dotted: str) -> Any:
    """Return the object that ``module:name`` names."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)


def backend_of(infrastructure_type: str) -> Backend:
    """Return the backend for a type of infrastructure, e.g. ``local`` or ``dataScienceJob``."""
    row = BACKENDS.get(infrastructure_type) or _plugins().get(infrastructure_type)
    if row is None:
        raise UsageError(
            f"there is no backend for infrastructure type {infrastructure_type!r}",
            hint=f"known types: {', '.join(sorted([*BACKENDS, *_plugins()]))}",
        )
    backend: Backend = load(row.code)()
    return backend


def backend_named(name: str) -> Backend:
    """Return the backend by the name that records and handles carry, e.g. ``oci``."""
    for rows in (BACKENDS, _plugins()):
        for infrastructure_type, row in rows.items():
            if row.name == name:
                return backend_of(infrastructure_type)
    raise UsageError(f"there is no backend named {name!r}", hint="was the package that added it removed?")


def every_backend() -> tuple[Backend, ...]:
    """Return all backends, those of other distributions included."""
    return tuple(backend_of(infrastructure_type) for infrastructure_type in (*BACKENDS, *_plugins()))


def _plugins() -> dict[str, Row]:
    from importlib.metadata import entry_points

    found: dict[str, Row] = {}
    owners: dict[str, str] = {}
    for point in entry_points(group="cloudtune.backends"):
        owner = point.dist.name if point.dist else "?"
        if point.name in BACKENDS or point.name in found:
            raise UsageError(
                f"both {owners.get(point.name, 'cloudtune')} and {owner} offer a backend for {point.name!r}",
                hint=f"uninstall one of them: pip uninstall {owner}",
            )
        found[point.name], owners[point.name] = Row(load(point.value).name, point.value), owner
    return found
