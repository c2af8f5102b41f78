"""What replies of OCI Data Science mean: where a run lives, its state, and who of it failed first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from cloudtune.backends import farewells
from cloudtune.backends.oci_wire import region_in
from cloudtune.errors import RunNotFound
from cloudtune.node.farewell import WORD
from cloudtune.plan import Call, Plan, Ref
from cloudtune.states import Event, Failure, Handle, Status

SCIENCE = "oci.data_science"
LOGGING = "oci.logging"
#: Kinds of runs: with the agent, without it, and found by their OCID.
AGENT_RUN, CONTAINER_RUN, FOREIGN_RUN = "jobRun", "containerRun", "foreignRun"
STATES = {
    "ACCEPTED": "starting",
    "IN_PROGRESS": "running",
    "CANCELING": "stopping",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "NEEDS_ATTENTION": "failed",
    "CANCELED": "cancelled",
    "DELETED": "lost",
}
OVER = frozenset({"SUCCEEDED", "FAILED", "NEEDS_ATTENTION", "CANCELED", "DELETED"})
#: What is wanted of an entry of a log; there is much more in it.
FIELDS = {
    "id": "data.logContent.id",
    "at": "data.datetime",
    "type": "data.logContent.type",
    "text": "data.logContent.data.message",
}
#: Entries on a page of a search, and seconds that a search may span.
LIMIT, WINDOW_S = 1000, 14 * 24 * 3600.0 - 60

_RUN = re.compile(r"ocid1\.datasciencejobrun\.[a-z0-9]+\.[a-z0-9-]*\.[A-Za-z0-9.]+")
_REFERENCE = re.compile(r"\$\{([\w-]+)\.([^}]+)\}")
_EXIT_CODE = re.compile(r"exit code:? (\d+)")
_EVENTS = {"timeAccepted": "accepted", "timeStarted": "started", "timeFinished": "finished"}


def handle_of(plan: Plan, run: Mapping[str, Any]) -> Handle:
    """Return where the run of a plan lives, from the reply to its creation; KeyError if that names none."""
    ocid = str(run["id"])
    has_agent = any(file.path == "agent.pyz" for step in plan.steps for file in step.files)
    region = next((str(step.parameters["region"]) for step in plan.steps if "region" in step.parameters), None)
    kind = AGENT_RUN if has_agent else CONTAINER_RUN
    return Handle(backend="oci", scope=region or region_in(ocid) or "", kind=kind, id=ocid)


def recognised(text: str) -> Handle | None:
    """Return the handle of a job run's OCID.

    Raises:
        RunNotFound: it is the OCID of a job, which may have many runs.
    """
    if text.startswith("ocid1.datasciencejob."):
        raise RunNotFound(
            f"{text} is a job, and what is followed is a run of it",
            hint="give the OCID of its job run, ocid1.datasciencejobrun...: the console shows them below the job",
        )
    if not _RUN.fullmatch(text):
        return None
    return Handle(backend="oci", scope=region_in(text) or "", kind=FOREIGN_RUN, id=text)


def call(service: str, operation: str, handle: Handle, **parameters: Any) -> Call:
    """Return a call in the run's region."""
    region = {"region": handle.scope} if handle.scope else {}
    return Call(service=service, operation=operation, parameters={**parameters, **region})


def whereabouts(handle: Handle, plan: Mapping[str, Any]) -> Call | None:
    """Return the call that lists a run among those of its compartment, None where its plan names none."""
    made = next((step for step in plan.get("steps") or () if step["operation"] == "create_job"), None)
    compartment = (made or {"parameters": {}})["parameters"].get("compartmentId")
    if not isinstance(compartment, str):
        return None
    found = _REFERENCE.fullmatch(compartment)
    where = Ref(found[1], found[2]) if found else compartment
    return call(SCIENCE, "list_job_runs", handle, compartmentId=where, id=handle.id)


def hides(handle: Handle, listed: Mapping[str, Any]) -> str | None:
    """Return why a run may be there, from the list of its compartment; who may see the others would see it, too."""
    for run in listed.get("items") or ():
        if run.get("id") == handle.id and run.get("lifecycleState") != "DELETED":
            return "its compartment lists it"
    return None


def status_of(handle: Handle, run: Mapping[str, Any]) -> Status:
    """Return what a job run's state means."""
    named = str(run.get("lifecycleState"))
    state = STATES.get(named, "running")
    code = exit_code(run)
    reason = _reason(run, named) if state != "succeeded" else None
    return Status(
        state=state,
        name=run.get("displayName"),
        reason=reason,
        failure=Failure(exit_code=code) if state == "failed" and code is not None else None,
        events=tuple(_events(run)),
        links=dict(_links(handle, run)),
    )


def exit_code(run: Mapping[str, Any]) -> int | None:
    """Return the exit code that the service names, None if it names none."""
    found = _EXIT_CODE.search(run.get("lifecycleDetails") or "")
    return int(found[1]) if found else None


def moment(text: str | None) -> float | None:
    """Return a time of the service in seconds since the epoch."""
    if not text:
        return None
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def rfc3339(time_s: float) -> str:
    """Return a time as the service wants it, in milliseconds, of which what is below one is left out."""
    found = datetime.fromtimestamp(int(time_s * 1000) / 1000, timezone.utc)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _reason(run: Mapping[str, Any], named: str) -> str | None:
    details = [run.get("lifecycleDetails")]
    groups = run.get("nodeGroupDetailsList") or ()
    details += [f"{one.get('name')}: {one['lifecycleDetails']}" for one in groups if one.get("lifecycleDetails")]
    words = [str(one).strip() for one in dict.fromkeys(details) if one]
    if named == "NEEDS_ATTENTION":
        words.insert(0, "OCI says that the run needs attention")
    if named == "DELETED":
        words.insert(0, "the run was deleted in OCI")
    return "; ".join(words) or None


def _events(run: Mapping[str, Any]) -> Iterator[Event]:
    for field, text in _EVENTS.items():
        time_s = moment(run.get(field))
        if time_s is not None:
            yield Event(time=time_s, text=text)


def _links(handle: Handle, run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    region = f"?region={handle.scope}" if handle.scope else ""
    yield "console", f"https://cloud.oracle.com/data-science/job-runs/{handle.id}{region}"
    log = run.get("logDetails") or {}
    if log.get("logId") and log.get("logGroupId"):
        path = f"logging/log-groups/{log['logGroupId']}/logs/{log['logId']}"
        yield "log", f"https://cloud.oracle.com/{path}{region}"


# --- who failed first


def search(handle: Handle, log: Mapping[str, Any], start: float, end: float, **parameters: Any) -> Call:
    """Return a search of a run's lines; ``log`` says where they are: ``compartment``, ``group``, ``id``.

    An OCID cannot be compared with as it is; with a star before it, it can.
    """
    also = parameters.pop("also", "")
    order = parameters.pop("order", "asc")
    place = f'"{log["compartment"]}/{log["group"]}/{log["id"]}"'
    query = f"search {place} | where source = '*{handle.id}'{also} | sort by datetime {order}"
    times = {"timeStart": rfc3339(start), "timeEnd": rfc3339(end)}
    wanted = {"limit": LIMIT, "keep": {"results": FIELDS}}
    return call(LOGGING, "search_logs", handle, searchQuery=query, **times, **wanted, **parameters)


def explain(handle: Handle, replies: Sequence[Mapping[str, Any]]) -> Call | None:
    """Return the next call that helps to say who failed first, the run's own reply being the first; None for none."""
    run = replies[0]
    log = run.get("logDetails") or {}
    started = moment(run.get("timeStarted"))
    if handle.kind == CONTAINER_RUN or not (log.get("logId") and log.get("logGroupId")) or started is None:
        return None
    if len(replies) == 1:
        return call(LOGGING, "get_log", handle, logGroupId=log["logGroupId"], logId=log["logId"])
    now = float(replies[-1]["readAt"])
    # a run that needs attention may have no end: nothing says for how long its nodes have been silent
    finished = moment(run.get("timeFinished")) or float(run["readAt"]) - farewells.PATIENCE_S
    complete = farewells.are_complete(_texts(replies))
    if complete or (len(replies) > 2 and now - finished >= farewells.PATIENCE_S):
        return None
    place = {"compartment": replies[1]["compartmentId"], "group": log["logGroupId"], "id": log["logId"]}
    end = max(now, finished) + 60
    also = f" and data.message = '*{WORD}*'"
    return search(handle, place, max(started - 60, end - WINDOW_S), end, also=also, order="desc")


def explained(status: Status, replies: Sequence[Mapping[str, Any]]) -> Status:
    """Return the status with what the agents' last lines say: who failed first, and why."""
    return farewells.explained(status, farewells.told(_texts(replies)))


def _texts(replies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for reply in replies[2:]:
        yield from (str(entry.get("text") or "") for entry in reply.get("results") or ())
