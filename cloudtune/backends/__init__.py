"""How each place says it: a backend turns a job into a plan and a place's reply into a status; it sends nothing.

A backend is one file and one row of :data:`BACKENDS`: the type of infrastructure, and ``module:Class`` as text. The
text *is* the lazy import. Other distributions add rows by the entry point group ``cloudtune.backends`` (the entry
point's name is the infrastructure type).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from cloudtune.errors import CloudtuneError, UsageError
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
    "sageMakerTrainingJob": Row("sagemaker", "cloudtune.backends.sagemaker:SageMakerBackend"),
    "eksJob": Row("eks", "cloudtune.backends.eks:EksBackend"),
}

#: The entry points by which other distributions add backends.
GROUP = "cloudtune.backends"
#: A place's own notion of how far a log has been read; JSON, and None at the start. Where it has the key ``caughtUp``,
#: that says whether everything has been read that was there when the reading began; ``more`` says whether to go on at
#: once (else: if there were lines), ``soon`` whether to look again as soon as at first, because the end is near;
#: ``ended``, of a backend that ``tells_end``, whether nothing more will come.
Cursor = Mapping[str, Any] | None


class Backend(Protocol):
    """What a place must be able to say. All methods are pure: values in, values out.

    Some things a backend may have beside these. ``tells_end = True``: its logs say when they are complete, so nobody
    has to ask for the run's state meanwhile. ``is_removed(handle, reply)``: whether the reply to :meth:`look` is what a
    place still shows of a run that it has removed. ``explain(handle, replies)`` and
    ``explained(handle, status, replies)``: the next call that helps to say who of a failed run failed first, given the
    replies so far (the first is that to :meth:`look`), or None; and the status with what they said. ``explains``: the
    states of which these can tell more, where that is not ``failed`` alone. ``suppose(text)``: the handles of what a
    text may be that looks like the place's name of a run, which only a look can tell. ``delete_uploads(plan)``: the
    calls that remove what a run sent along, from its plan as recorded. ``loses_logs = True``: a log goes with what
    wrote it, so whoever ends a run keeps it.

    ``chain(place, title, run_id, parts)``: how the plans of a pipeline's steps, (name, plan) each, become one thing of
    the place that needs nobody to lead it: its ``steps``, or without them ``why`` not; None where that is not asked.

    ``beforehand(plan, replies)`` and ``refusal(plan, replies)``: the next call that tells whether the place will take a
    plan, asked before anything is recorded, of a client that is ``hasty``, or None; and the error to raise if it will
    not. What cannot be asked is no reason to refuse. ``settled(plan, replies)``: the plan with what the replies add to
    it. ``whereabouts(handle, plan)`` and ``hides(handle, plan, reply)``,
    of a place that says of what one may not see that it is not there: the call that tells more of a run that is said
    not to be there, given its plan as recorded (a Ref in it is filled in), or None; and why it may be there, or None.
    """

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
        """Return the calls that remove the run's record in its place, and its outputs only if asked.

        A :class:`~cloudtune.plan.Ref` among their parameters is a field of the reply to a step of the run's plan.
        """
        ...


def load(dotted: str) -> Any:
    """Return the object that ``module:name`` names."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)


def backend_of(infrastructure_type: str) -> Backend:
    """Return the backend for a type of infrastructure, e.g. ``local`` or ``dataScienceJob``."""
    row = BACKENDS.get(infrastructure_type)
    if row is not None:
        backend: Backend = load(row.code)()
        return backend
    return _added(infrastructure_type)


def backend_named(name: str) -> Backend:
    """Return the backend by the name that records and handles carry, e.g. ``oci``."""
    for infrastructure_type, row in BACKENDS.items():
        if row.name == name:
            return backend_of(infrastructure_type)
    for backend in _all_added():
        if backend.name == name:
            return backend
    raise UsageError(f"there is no backend named {name!r}", hint="was the package that added it removed?")


def every_backend() -> Iterator[Backend]:
    """Yield all backends, those of other distributions last; raises CloudtuneError behind them if one is broken."""
    for infrastructure_type in BACKENDS:
        yield backend_of(infrastructure_type)
    yield from _all_added()


def _added(infrastructure_type: str) -> Backend:
    """Return the backend that another distribution adds; it is imported here and not before."""
    from cloudtune.spec import plugins

    point = plugins.plugin(GROUP, infrastructure_type)
    if point is None:
        known = sorted({*BACKENDS, *plugins.plugin_names(GROUP)})
        message = f"there is no backend for infrastructure type {infrastructure_type!r}"
        raise UsageError(message, hint=f"known types: {', '.join(known)}")
    if infrastructure_type in BACKENDS:
        raise plugins.broken(point, ValueError("cloudtune has a backend of that type itself"))
    made = plugins.loaded(point)
    try:
        backend: Backend = made()
    except Exception as error:
        raise plugins.broken(point, error) from error
    return backend


def _all_added() -> Iterator[Backend]:
    from cloudtune.spec import plugins

    first: CloudtuneError | None = None
    for infrastructure_type in plugins.plugin_names(GROUP):
        try:
            backend = _added(infrastructure_type)
        except CloudtuneError as error:
            first = first or error
        else:
            yield backend
    if first is not None:
        raise first  # what is looked for may have been its
