"""OCI Data Science jobs as a place.

A run is one job, its artifact and one job run, over one node or a group of nodes; ``multiNode: jobRuns`` is the older
form with a job run for each node, which is planned and not submitted. The artifact is a zip: the agent, its order, the
file that starts it, and the code, which the agent unpacks (files below ``code/`` travel as ``code.tar.gz``, which keeps
links and executable bits; an archive that the user names is that file).

What replies mean is in :mod:`cloudtune.backends.oci_runs`, how lines are read in :mod:`cloudtune.backends.oci_logs`,
what is refused before anything is sent in :mod:`cloudtune.backends.oci_notes`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from cloudtune.backends import oci_logs, oci_notes, oci_runs
from cloudtune.backends.oci_mounts import look_ups
from cloudtune.backends.oci_surroundings import Surroundings, surroundings
from cloudtune.backends.oci_wire import (
    conda_variables,
    container_of,
    job_details,
    region_of,
    run_details,
)
from cloudtune.backends.patches import patched
from cloudtune.code import gather_code
from cloudtune.errors import Fault, SpecError
from cloudtune.launch import Launch, launch
from cloudtune.launch.machine import runtime_of
from cloudtune.node.pack import agent_bytes
from cloudtune.order import environment_of, job_name, order_of, outputs_of
from cloudtune.plan import Call, File, Leaf, Notice, Plan, Ref, Step, Until
from cloudtune.spec.job import JobSpec
from cloudtune.spec.oci import DataScienceJob
from cloudtune.spec.runtime import Runtime
from cloudtune.states import Handle, LogLine, Status
from cloudtune.workspace import Workspace

SERVICE = "oci.data_science"
#: Seconds for which the service remembers a retry token.
TOKEN_S = 24 * 3600.0
#: The service starts Python and shell files alone, so one of them starts the agent.
ENTRY = "cloudtune_start.py"
_START = b'''"""Starts the agent that lies beside this file."""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
work = os.path.join(os.path.expanduser("~"), "cloudtune", os.environ["CLOUDTUNE_RUN_ID"])
os.makedirs(work, exist_ok=True)
agent = [sys.executable, "-I", "-S", os.path.join(here, "agent.pyz"), "run"]
os.execv(sys.executable, [*agent, "--order", os.path.join(here, "order.json"), "--directory", work])
'''


class OciBackend:
    """The OCI backend; see :class:`cloudtune.backends.Backend` for the protocol."""

    name = "oci"
    client = "cloudtune.clients.oci:OciClient"
    tells_end = True

    def plan(self, job: JobSpec, run_id: str) -> Plan:
        """Return the steps of a run: the job, its artifact, and its job run or runs."""
        runtime, place, how = runtime_of(job), _place(job), launch(job)
        name, workspace, around = job_name(job), gather_code(job), surroundings(place)
        grouped = how.nodes > 1 and place.multi_node == "nodeGroups"
        environment, doubts = _environment(runtime, place, run_id)
        options: dict[str, Any] = {"name": name, "nodes": how.nodes, "grouped": grouped, "environment": environment}
        details = job_details(place, runtime, around, **options)
        if container_of(runtime) is not None:
            files, title = _as_it_is(workspace)
        else:
            files, title = _with_agent(job, how, run_id, name, workspace), "cloudtune.zip"
        runs = _runs(place, runtime, around, how, run_id, name, grouped=grouped)
        look_up = () if around.look_up is None else (around.look_up,)
        searches = look_ups(place.storage_mount, region_of(place))
        own = (*searches, _create(details, run_id), *_artifact(files, title, run_id), *runs)
        steps = (*look_up, *_in_region(place, own))
        uri = outputs_of(runtime, run_id)["uri"]
        warnings = (*how.warnings, *doubts, *oci_notes.doubts(place, runtime, around))
        return Plan(
            name=name,
            run_id=run_id,
            backend=self.name,
            launch=how,
            steps=patched(steps, place.overrides),
            outputs=(uri,) if uri else (),
            fields=tuple(oci_notes.fields(job, place, runtime, around, how)),
            warnings=tuple(Notice(path=path, message=message) for path, message in warnings),
        )

    def handle(self, plan: Plan, replies: Mapping[str, Mapping[str, Any]]) -> Handle:
        """Return where the job run lives."""
        return oci_runs.handle_of(plan, replies["run"])

    def recognise(self, text: str) -> Handle | None:
        """Return the handle of a job run's OCID."""
        return oci_runs.recognised(text)

    def look(self, handle: Handle) -> Call:
        """Ask for the job run."""
        return oci_runs.call(SERVICE, "get_job_run", handle, jobRunId=handle.id)

    def status(self, handle: Handle, reply: Mapping[str, Any]) -> Status:
        """Read what the job run says of itself."""
        return oci_runs.status_of(handle, reply)

    def is_removed(self, handle: Handle, reply: Mapping[str, Any]) -> bool:
        """Whether the job run was deleted: it is shown for a while all the same."""
        return reply.get("lifecycleState") == "DELETED"

    def whereabouts(self, handle: Handle, plan: Mapping[str, Any]) -> Call | None:
        """Ask for the run among those of its compartment: it is "not found" also for who may not see it."""
        return oci_runs.whereabouts(handle, plan)

    def hides(self, handle: Handle, plan: Mapping[str, Any], reply: Mapping[str, Any]) -> str | None:
        """Return why the run may be there all the same, None if it is gone."""
        return oci_runs.hides(handle, reply)

    def explain(self, handle: Handle, replies: Sequence[Mapping[str, Any]]) -> Call | None:
        """Return the next call that helps to say who of a failed run failed first, None if there is none."""
        return oci_runs.explain(handle, replies)

    def explained(self, handle: Handle, status: Status, replies: Sequence[Mapping[str, Any]]) -> Status:
        """Return the status with what the replies to :meth:`explain` say."""
        return oci_runs.explained(status, replies)

    def logs(self, handle: Handle, cursor: Mapping[str, Any] | None) -> Call:
        """Ask for the run, for its log, or for the lines from where the cursor is."""
        return oci_logs.next_call(handle, cursor)

    def lines(self, handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], Mapping[str, Any] | None]:
        """Read the lines, merged over the nodes by time, and what comes next."""
        return oci_logs.read(handle, reply)

    def cancel(self, handle: Handle) -> tuple[Call, ...]:
        """End the job run."""
        return (oci_runs.call(SERVICE, "cancel_job_run", handle, jobRunId=handle.id),)

    def delete(self, handle: Handle, *, outputs: bool) -> tuple[Call, ...]:
        """Remove the job with its artifact and its run; of a run that was found by its OCID, the run alone."""
        if handle.kind == oci_runs.FOREIGN_RUN:
            return (oci_runs.call(SERVICE, "delete_job_run", handle, jobRunId=handle.id),)
        job = Ref("job", "id")
        return (oci_runs.call(SERVICE, "delete_job", handle, jobId=job, deleteRelatedJobRuns=True),)


def _place(job: JobSpec) -> DataScienceJob:
    if not isinstance(job.infrastructure, DataScienceJob):
        message = f"{job.infrastructure.type} is no OCI Data Science job"
        raise SpecError([Fault(path="spec.infrastructure.type", message=message, hint="type: dataScienceJob")])
    return job.infrastructure


def _call(operation: str, **parameters: Any) -> Call:
    return Call(service=SERVICE, operation=operation, parameters=parameters)


# --- steps


def _in_region(place: DataScienceJob, steps: tuple[Step, ...]) -> Iterator[Step]:
    """Yield the steps with the region that the spec names; it chooses where they are sent and is not sent itself."""
    for step in steps:
        if place.region is None:
            yield step
            continue
        region = {"region": place.region}
        until, undo = step.until, step.undo
        yield attrs.evolve(
            step,
            parameters={**step.parameters, **region},
            until=until and attrs.evolve(until, call=_with(until.call, region)),
            undo=undo and _with(undo, region),
        )


def _with(call: Call, parameters: Mapping[str, Any]) -> Call:
    return attrs.evolve(call, parameters={**call.parameters, **parameters})


def _create(details: Mapping[str, Any], run_id: str) -> Step:
    return Step(
        id="job",
        service=SERVICE,
        operation="create_job",
        parameters=details,
        token=f"cloudtune-{run_id}-job",
        token_s=TOKEN_S,
        until=Until(
            call=_call("get_job", jobId=Ref("job", "id")),
            field="lifecycleState",
            done=("ACTIVE",),
            failed=("FAILED", "DELETED"),
            timeout_s=600,
            interval_s=1,
        ),
        undo=_call("delete_job", jobId=Ref("job", "id"), deleteRelatedJobRuns=True),
    )


def _runs(
    place: DataScienceJob,
    runtime: Runtime,
    around: Surroundings,
    how: Launch,
    run_id: str,
    name: str,
    *,
    grouped: bool,
) -> Iterator[Step]:
    """Yield the job run, or in the older form one for each node: all but the first are told which is the first."""
    if grouped or how.nodes == 1:
        details = run_details(place, runtime, around, name=f"{name}-{run_id}", job_id=Ref("job", "id"))
        yield _run("run", details, run_id)
        return
    for node in range(how.nodes):
        main = {"MAIN_JOB_RUN_OCID": Ref("run-0", "id")} if node else {}
        variables = {"NODE_COUNT": str(how.nodes), "NODE_RANK": str(node), **main}
        options: dict[str, Any] = {"name": f"{name}-{node}", "job_id": Ref("job", "id"), "variables": variables}
        yield _run(f"run-{node}", run_details(place, runtime, around, **options), run_id)


def _run(step: str, details: Mapping[str, Any], run_id: str) -> Step:
    return Step(
        id=step,
        service=SERVICE,
        operation="create_job_run",
        parameters=details,
        token=f"cloudtune-{run_id}-{step}",
        token_s=TOKEN_S,
        undo=_call("cancel_job_run", jobRunId=Ref(step, "id")),
        within="job",
    )


def _artifact(files: tuple[File, ...], title: str, run_id: str) -> Iterator[Step]:
    """Yield the upload of what travels; a container may need nothing."""
    if files:
        yield Step(
            id="artifact",
            service=SERVICE,
            operation="create_job_artifact",
            parameters={"jobId": Ref("job", "id"), "contentDisposition": f"attachment; filename={title}"},
            files=files,
            token=f"cloudtune-{run_id}-artifact",
            within="job",
        )


def _with_agent(job: JobSpec, how: Launch, run_id: str, name: str, workspace: Workspace | None) -> tuple[File, ...]:
    runtime = runtime_of(job)
    outputs = outputs_of(runtime, run_id)
    code = {"kind": "archive", "path": "code.tar.gz"} if workspace is not None else None
    order, _ = order_of(job, how, run_id, name=name, code=code, outputs=outputs)
    text = json.dumps(order, indent=1, ensure_ascii=False)
    made = (_made("agent.pyz", agent_bytes()), _made(ENTRY, _START), _made("order.json", text.encode()))
    theirs = () if workspace is None else workspace.files
    if workspace is not None and workspace.is_archive:
        # it travels as it is: the node looks at the bytes, not the name
        return (*made, *(attrs.evolve(file, path="code.tar.gz") for file in theirs))
    return (*made, *(attrs.evolve(file, path=f"code/{file.path}") for file in theirs))


def _made(path: str, content: bytes) -> File:
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)


def _as_it_is(workspace: Workspace | None) -> tuple[tuple[File, ...], str]:
    """Return the files of a container without an agent, and the name of what they travel in."""
    files = () if workspace is None else workspace.files
    return files, files[0].path if len(files) == 1 else "artifact.zip"


# --- variables


def _environment(
    runtime: Runtime, place: DataScienceJob, run_id: str
) -> tuple[dict[str, str | Leaf], list[tuple[str, str]]]:
    """Return the variables of every node, and warnings: the user's own, those of conda, and those of the agent."""
    plain, special = environment_of(runtime)
    conda = conda_variables(getattr(runtime, "conda", None), region_of(place))
    own: dict[str, str] = {}
    if container_of(runtime) is not None:
        if runtime.replicas is not None:
            own["NODE_COUNT"] = str(runtime.replicas)
    else:
        own = {"JOB_RUN_ENTRYPOINT": ENTRY, "CLOUDTUNE_PLACE": "oci", "CLOUDTUNE_RUN_ID": run_id}
    given = {**plain, **special}
    doubts = [
        ("spec.runtime.spec.env", f"{name} is set by cloudtune on OCI; the job's own value has no effect")
        for name in (*conda, *own)
        if name in given
    ]
    return {**given, **conda, **own}, doubts
