"""This machine as a place: every replica is a node of its own, kept alive by one supervisor process.

A run is two steps: ``stage`` makes the run's folder (order, agent, code), ``start`` starts the supervisor. Both are
harmless when sent twice: the folder is named by the run id, and the supervisor takes a kernel lock on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudtune.backends.node_logs import merged
from cloudtune.backends.patches import patched
from cloudtune.code import gather_code
from cloudtune.errors import Fault, SpecError
from cloudtune.launch import launch
from cloudtune.node import uris
from cloudtune.order import job_name, order_of, outputs_of
from cloudtune.plan import Call, FieldNote, Notice, Plan, Ref, Step
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import ContainerRuntime, NeuronDistributedRuntime, Runtime
from cloudtune.states import Event, Failure, Handle, LogLine, Status

#: Seconds that a job has to save when it is ended; with what its agents then do, a cancel is over within 15.
GRACE_S = 8


class LocalBackend:
    """The local backend; see :class:`cloudtune.backends.Backend` for the protocol."""

    name = "local"
    client = "cloudtune.clients.process:ProcessClient"

    def plan(self, job: JobSpec, run_id: str) -> Plan:
        """Return the two steps of a local run."""
        runtime = job.runtime
        if runtime is None:
            raise SpecError([Fault(path="spec.runtime", message="the job says nothing to run", hint="add a runtime")])
        how = launch(job)
        workspace = gather_code(job)
        notes = [Notice(path="spec.runtime.spec", message=note) for note in (workspace.notes if workspace else ())]
        name = job_name(job)
        outputs = outputs_of(runtime, run_id, here=True)
        code = {"kind": "archive", "path": "code.tar.gz"} if workspace is not None else None
        order, values = order_of(job, how, run_id, name=name, code=code, outputs=outputs)
        order["graceInSeconds"] = GRACE_S
        order["inputs"] = {_from_here(uri): path for uri, path in order["inputs"].items()}
        infrastructure = job.infrastructure
        python = _interpreter(infrastructure.python) if isinstance(infrastructure, LocalJob) else None
        archive = workspace is not None and workspace.is_archive  # it travels as it is
        staged = {"runId": run_id, "nodes": how.nodes, "python": python, "archive": archive}
        steps = (
            Step(
                id="stage",
                service="process",
                operation="stage",
                parameters={**staged, "order": order},
                files=() if workspace is None else workspace.files,
                token=run_id,
                undo=Call(service="process", operation="remove", parameters={"runId": run_id}),
            ),
            Step(
                id="run",
                service="process",
                operation="start",
                parameters={"runId": Ref("stage", "runId"), "environment": values},
                token=run_id,
                undo=Call(service="process", operation="stop", parameters={"runId": run_id}),
            ),
        )
        return Plan(
            name=name,
            run_id=run_id,
            backend=self.name,
            launch=how,
            steps=patched(steps, infrastructure.overrides),
            outputs=(outputs["uri"],),
            fields=_fields(runtime),
            warnings=(*(Notice(path=path, message=message) for path, message in how.warnings), *notes),
        )

    def handle(self, plan: Plan, replies: Mapping[str, Mapping[str, Any]]) -> Handle:
        """Return the handle: the run's id in this home."""
        return Handle(backend=self.name, kind="run", id=plan.run_id)

    def recognise(self, text: str) -> Handle | None:
        """Return the handle of a run's folder, also one of another home: an absolute path that holds a run."""
        path = Path(text)
        if not path.is_absolute() or not (path / "run.json").is_file():
            return None
        return Handle(backend=self.name, scope=os.fspath(path.parent), kind="run", id=path.name)

    def look(self, handle: Handle) -> Call:
        """Ask for the supervisor's state and result."""
        return _call("describe", handle)

    def status(self, handle: Handle, reply: Mapping[str, Any]) -> Status:
        """Read what the run's folder says."""
        failure = reply.get("failure")
        return Status(
            state=reply["state"],
            reason=reply.get("reason"),
            failure=Failure.from_dict(failure) if failure else None,
            events=tuple(Event(time=event["time"], text=event["text"]) for event in reply.get("events", ())),
            links={"folder": reply["folder"]} if reply.get("folder") else {},
            outputs=tuple(reply.get("outputs", ())),
        )

    def logs(self, handle: Handle, cursor: Mapping[str, Any] | None) -> Call:
        """Ask for what the nodes' logs hold behind the offsets of the cursor."""
        return _call("read_logs", handle, offsets=(cursor or {}).get("offsets", {}), cursor=cursor)

    def lines(self, handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], Mapping[str, Any] | None]:
        """Read the lines, merged over the nodes by time; one that another node may still precede is read again."""
        return merged(reply)

    def cancel(self, handle: Handle) -> tuple[Call, ...]:
        """Ask the supervisor to end all nodes; without one, end what is left of them."""
        return (_call("stop", handle),)

    def delete(self, handle: Handle, *, outputs: bool) -> tuple[Call, ...]:
        """Remove the run's folder; its outputs only if asked."""
        return (_call("remove", handle, outputs=outputs),)


def _from_here(uri: str) -> str:
    """Return an input with a relative path as one that starts at the current folder, as the place of outputs does."""
    path = None if uri.startswith("$") else uris.local_path(uri)
    if path is None or path.is_absolute():
        return uri
    return f"{os.getcwd().replace('$', '$$')}/{uri}"  # noqa: PTH109 - text of the order, where $$ is a dollar sign


def _interpreter(named: str | None) -> str | None:
    """Return the path of the nodes' Python: they start in folders of their own, where a relative one leads nowhere."""
    if named is None:
        return None
    found = shutil.which(os.path.expanduser(named))  # noqa: PTH111 - a Path would make ./python a bare name
    if found is None:
        message = f"there is no program {named}"
        hint = f"relative paths start at the current folder, {Path.cwd()}; a bare name is looked for on PATH"
        raise SpecError([Fault(path="spec.infrastructure.spec.python", message=message, hint=hint)])
    return os.path.abspath(found)  # noqa: PTH100 - the link of a virtual environment is its name


def _call(operation: str, handle: Handle, **parameters: Any) -> Call:
    scope = {"home": handle.scope} if handle.scope else {}
    return Call(service="process", operation=operation, parameters={"runId": handle.id, **scope, **parameters})


def _fields(runtime: Runtime) -> tuple[FieldNote, ...]:
    notes = []
    if isinstance(runtime, ContainerRuntime):
        notes.append(
            FieldNote(
                path="spec.runtime.type",
                status="refused",
                reason="local runs are processes, not containers; use a script, python or pyTorchDistributed runtime",
            )
        )
    if isinstance(runtime, NeuronDistributedRuntime):
        notes.append(
            FieldNote(
                path="spec.runtime.type",
                status="approximated",
                reason="this machine's processes stand for Neuron cores; the script must run without the Neuron stack",
            )
        )
    if getattr(runtime, "conda", None) is not None:
        notes.append(
            FieldNote(
                path="spec.runtime.spec.conda",
                status="approximated",
                reason="local runs use this machine's Python (infrastructure.python) instead of a conda environment",
            )
        )
    return tuple(notes)
