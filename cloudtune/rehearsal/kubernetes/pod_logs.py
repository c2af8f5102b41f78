"""The logs of pods as an API server gives them: from a time on, the end of them, as they come, a start before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from cloudtune.rehearsal.kubernetes import speech
from cloudtune.rehearsal.kubernetes.container_logs import ContainerLog, ContainerLogs, LogLine
from cloudtune.rehearsal.kubernetes.objects import Object, Objects
from cloudtune.rehearsal.kubernetes.targets import YES
from cloudtune.rehearsal.messages import Request, Response

_NANO = 1_000_000_000
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")


def read_log(request: Request, pod: Object, objects: Objects, logs: ContainerLogs) -> Response:
    """Return the answer to a request for a container's log; Refused where there is none."""
    query = request.query
    name = _container(pod, query.get("container", ""))
    previous = query.get("previous", "") in YES
    since_ns = _since_ns(request)
    node = (pod.get("spec") or {}).get("nodeName")
    headers = (("content-type", "text/plain"),)
    if not node:
        return Response(headers=headers)  # nothing has been said yet, and nobody can be asked
    _reach(node, name, pod, objects)
    log = logs.get(pod["metadata"]["uid"], name, previous=previous)
    if log is None:
        raise _not_there(pod, name, previous=previous)
    known = log.read()
    lines = [line for line in known if line.time_ns >= since_ns]
    tail = query.get("tailLines", "")
    if tail.isdecimal():
        lines = lines[max(0, len(lines) - int(tail)) :]
    stamped = query.get("timestamps", "") in YES
    limit = int(query["limitBytes"]) if query.get("limitBytes", "").isdecimal() else None
    if query.get("follow", "") not in YES:
        return Response(headers=headers, body=_text(lines, stamped=stamped)[:limit])
    return Response(headers=headers, body=_limited(_followed(request, log, lines, known, stamped=stamped), limit))


def _followed(
    request: Request, log: ContainerLog, lines: Iterable[LogLine], known: tuple[LogLine, ...], *, stamped: bool
) -> Iterator[bytes]:
    yield _text(lines, stamped=stamped)
    last_ns = known[-1].time_ns if known else 0
    for more in log.follow(alive=request.alive):
        fresh = [line for line in more if line.time_ns > last_ns]
        last_ns = fresh[-1].time_ns if fresh else last_ns
        yield _text(fresh, stamped=stamped)


def _limited(pieces: Iterable[bytes], limit: int | None) -> Iterator[bytes]:
    for piece in pieces:
        yield piece if limit is None else piece[:limit]
        if limit is not None:
            limit -= len(piece)
            if limit <= 0:
                return


def _text(lines: Iterable[LogLine], *, stamped: bool) -> bytes:
    return "".join(f"{line.stamp} {line.text}\n" if stamped else f"{line.text}\n" for line in lines).encode()


def _container(pod: Object, name: str) -> str:
    spec = pod.get("spec") or {}
    names = [one["name"] for one in spec.get("containers") or ()]
    first = [one["name"] for one in spec.get("initContainers") or ()]
    told = pod["metadata"]["name"]
    if name and name not in (*names, *first):
        raise speech.bad_request(f"container {name} is not valid for pod {told}")
    if name:
        return name
    if len(names) > 1:
        more = f" or one of the init containers: [{' '.join(first)}]" if first else ""
        choice = f"choose one of: [{' '.join(names)}]{more}"
        raise speech.bad_request(f"a container name must be specified for pod {told}, {choice}")
    return str(names[0])


def _since_ns(request: Request) -> int:
    """Return the time from which lines are asked for, in whole seconds: the server cuts off what is less."""
    seconds, moment = request.query.get("sinceSeconds", ""), request.query.get("sinceTime", "")
    if seconds and moment:
        raise speech.bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified")
    if seconds:
        if not seconds.isdecimal() or not int(seconds):
            raise speech.bad_request("sinceSeconds: Invalid value: must be greater than 0")
        since = datetime.now(timezone.utc) - timedelta(seconds=int(seconds))
        return int(since.timestamp() * _NANO)
    if not moment:
        return 0
    found = _TIME.fullmatch(moment)
    if found is None:
        raise speech.bad_request(f'parsing time "{moment}" as "2006-01-02T15:04:05Z07:00": cannot parse it')
    whole = datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00"))
    return int(whole.timestamp()) * _NANO


def _reach(node: str, container: str, pod: Object, objects: Objects) -> None:
    """Raise Refused (500) where the pod's node does not answer."""
    there = objects.get("Node", None, node)
    conditions = ((there or {}).get("status") or {}).get("conditions") or []
    silent = any(one.get("type") == "Ready" and one.get("status") == "Unknown" for one in conditions)
    if there is not None and not silent:
        return
    meta = pod["metadata"]
    url = f"https://{node}:10250/containerLogs/{meta['namespace']}/{meta['name']}/{container}"
    raise speech.Denied(500, "InternalError", f'Get "{url}": dial tcp: lookup {node}: i/o timeout')


def _not_there(pod: Object, name: str, *, previous: bool) -> speech.Denied:
    told = pod["metadata"]["name"]
    if previous:
        return speech.bad_request(f'previous terminated container "{name}" in pod "{told}" not found')
    status = pod.get("status") or {}
    rows: list[Any] = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    states = (one.get("state") or {} for one in rows if one.get("name") == name)
    reason = next(((state.get("waiting") or {}).get("reason") for state in states), None) or "ContainerCreating"
    words = "trying and failing to pull image" if reason in _IMAGE_FAULTS else reason
    told_as = f'container "{name}" in pod "{told}" is waiting to start: {words}'
    return speech.bad_request(told_as)


_IMAGE_FAULTS = {"ErrImagePull", "ImagePullBackOff"}
