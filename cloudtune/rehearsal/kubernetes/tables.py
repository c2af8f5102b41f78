"""Objects as tables: what ``kubectl get`` asks for and prints; and objects of which only the metadata is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from cloudtune.rehearsal.kubernetes.kinds import Kind
from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.messages import Request

Cell = Callable[[Object], Any]


def wants_table(request: Request) -> bool:
    """Whether a client wants a table."""
    return "as=Table" in request.header("accept")


def wants_metadata(request: Request) -> bool:
    """Whether a client wants to know that an object is there, and not what is in it."""
    return "as=PartialObjectMetadata" in request.header("accept")


def as_metadata(thing: Object) -> Object:
    """Return an object without its content."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": thing["metadata"]}


def as_table(kind: Kind, things: Sequence[Object], request: Request, *, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return objects as a table of the columns that their kind has."""
    columns = [("Name", _name), *_COLUMNS.get(kind.kind, ()), ("Age", _age)]
    if kind.kind == "Event":
        columns = list(_COLUMNS["Event"])
    whole = request.query.get("includeObject", "Metadata")
    rows = [{"cells": [cell(thing) for _, cell in columns], "object": _object(thing, whole)} for thing in things]
    definitions = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": name, "priority": 0}
        for name, _ in columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(meta),
        "columnDefinitions": definitions,
        "rows": rows,
    }


def _object(thing: Object, whole: str) -> Object | None:
    if whole == "None":
        return None
    if whole == "Object":
        return thing
    return as_metadata(thing)


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def _age(thing: Object) -> str:
    return _since(thing["metadata"].get("creationTimestamp"))


def _since(text: str | None, until: str | None = None) -> str:
    if not text:
        return "<unknown>"
    end = datetime.now(timezone.utc) if until is None else datetime.fromisoformat(until.replace("Z", "+00:00"))
    seconds = max(0, int((end - datetime.fromisoformat(text.replace("Z", "+00:00"))).total_seconds()))
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{letter}"
    return f"{seconds}s"


def _status(thing: Object) -> Mapping[str, Any]:
    return thing.get("status") or {}


def _ready(thing: Object) -> str:
    statuses = _status(thing).get("containerStatuses") or ()
    return f"{sum(bool(one.get('ready')) for one in statuses)}/{len((thing.get('spec') or {}).get('containers') or ())}"


def _pod_status(thing: Object) -> str:
    status = _status(thing)
    if "deletionTimestamp" in thing["metadata"]:
        return "Terminating"
    for one in status.get("containerStatuses") or ():
        state = one.get("state") or {}
        for word in ("waiting", "terminated"):
            reason = (state.get(word) or {}).get("reason")
            if reason:
                return str(reason)
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _restarts(thing: Object) -> str:
    return str(sum(int(one.get("restartCount", 0)) for one in _status(thing).get("containerStatuses") or ()))


def _last_condition(thing: Object) -> str:
    true = [one["type"] for one in _status(thing).get("conditions") or () if one.get("status") == "True"]
    return str(true[-1]) if true else ""


def _job_status(thing: Object) -> str:
    if (thing.get("spec") or {}).get("suspend"):
        return "Suspended"
    last = _last_condition(thing)
    return last if last in ("Complete", "Failed") else "Running"


def _completions(thing: Object) -> str:
    return f"{_status(thing).get('succeeded', 0)}/{(thing.get('spec') or {}).get('completions', 1)}"


def _duration(thing: Object) -> str:
    status = _status(thing)
    return _since(status["startTime"], status.get("completionTime")) if status.get("startTime") else ""


def _node_status(thing: Object) -> str:
    conditions = {one["type"]: one["status"] for one in _status(thing).get("conditions") or ()}
    words = "Ready" if conditions.get("Ready") == "True" else "NotReady"
    return words + (",SchedulingDisabled" if (thing.get("spec") or {}).get("unschedulable") else "")


def _at(*path: str) -> Cell:
    def cell(thing: Object) -> str:
        value: Any = thing
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return "" if value is None else str(value)

    return cell


def _about(event: Object) -> str:
    about = event["involvedObject"]
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _count(thing: Object) -> str:
    return str(len(thing.get("data") or {}))


_COLUMNS: Mapping[str, tuple[tuple[str, Cell], ...]] = {
    "ConfigMap": (("Data", _count),),
    "Event": (
        ("Last Seen", lambda thing: _since(thing.get("lastTimestamp"))),
        ("Type", _at("type")),
        ("Reason", _at("reason")),
        ("Object", _about),
        ("Message", _at("message")),
    ),
    "Job": (("Status", _job_status), ("Completions", _completions), ("Duration", _duration)),
    "JobSet": (("TerminalState", _at("status", "terminalState")), ("Restarts", _at("status", "restarts"))),
    "LocalQueue": (("ClusterQueue", _at("spec", "clusterQueue")),),
    "Namespace": (("Status", _at("status", "phase")),),
    "Node": (("Status", _node_status), ("Version", _at("status", "nodeInfo", "kubeletVersion"))),
    "PersistentVolumeClaim": (("Status", _at("status", "phase")), ("Volume", _at("spec", "volumeName"))),
    "Pod": (("Ready", _ready), ("Status", _pod_status), ("Restarts", _restarts)),
    "PyTorchJob": (("State", _last_condition),),
    "Secret": (("Type", _at("type")), ("Data", _count)),
    "Service": (("Type", _at("spec", "type")), ("Cluster-IP", _at("spec", "clusterIP"))),
    "TrainJob": (("State", _last_condition),),
    "Workload": (("Queue", _at("spec", "queueName")),),
}
