"""What replies of Kubernetes mean: a run's state, what it waits for, and who of it failed first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import attrs

from cloudtune.backends import eks_words, farewells
from cloudtune.backends.eks_objects import (
    CANCELLED,
    call,
    condition,
    conditions,
    events,
    kind_of,
    layout,
    moment,
    part_of,
    pods,
    replica_of,
    workloads,
)
from cloudtune.node.lines import parse_line, parse_numbered
from cloudtune.plan import Call
from cloudtune.states import Event, Handle, Status

#: States of which further calls say why: what a run waits for is told by its pods and its queue.
EXPLAINED = frozenset({"pending", "starting", "failed"})
#: Lines of a pod that ended which are read for who wants to know why; the last of them is an agent's farewell.
LAST_LINES = 50
_SUCCEEDED = ("Complete", "Completed", "Succeeded")
#: Warnings about a run that has no pods, or whose pods do not start.
_HINDERED = {
    "FailedCreate": "pods cannot be made",
    "FailedMount": "a volume cannot be mounted",
    "FailedAttachVolume": "a volume cannot be attached",
    "FailedCreatePodSandBox": "a pod's surroundings cannot be made",
}
#: Warnings that say why pods have ended which are gone.
_ENDED = {
    "Failed": "a container failed to start",
    "Evicted": "a pod was evicted",
    "OOMKilling": "out of memory",
    "FailedScheduling": "no node",
    "TaintManagerEviction": "a node was lost",
    "NodeNotReady": "a node was lost",
    "Preempted": "a pod was preempted",
    "BackOff": "a container ended again and again",
    "FailedCreate": "pods cannot be made",
}
#: Why an object says that it failed, with what to do about it.
_FAILED = {
    "DeadlineExceeded": "the time limit was reached: raise maximumRuntimeInMinutes",
    "BackoffLimitExceeded": "there were as many failures as it may have: see maxRestarts",
    "PodFailurePolicy": "a pod failed in a way that trying again does not mend",
}


# --- its state


def state_of(handle: Handle, thing: Mapping[str, Any]) -> str:
    """Return the state of a run by its object."""
    if kind_of(handle).pods_by is None:
        return _pod_state(thing)
    meta = thing.get("metadata") or {}
    active, ready, done = _counts(thing)
    if condition(thing, *_SUCCEEDED):
        return "succeeded"
    if CANCELLED in (meta.get("annotations") or {}):
        return "stopping" if active else "cancelled"
    if condition(thing, "Failed"):
        return "failed"
    if meta.get("deletionTimestamp") or condition(thing, "FailureTarget"):
        return "stopping"
    if is_suspended(handle, thing) or not (active or done):
        return "pending"
    return "running" if ready or done else "starting"


def is_suspended(handle: Handle, thing: Mapping[str, Any]) -> bool:
    """Return whether somebody holds a run back: a queue, or who has suspended it."""
    inner: Any = thing
    for part in kind_of(handle).suspends:
        inner = (inner or {}).get(part)
    return bool(inner)


def is_finished(handle: Handle, thing: Mapping[str, Any]) -> bool:
    """Return whether a run has ended."""
    return state_of(handle, thing) in ("succeeded", "failed", "cancelled")


def _pod_state(pod: Mapping[str, Any]) -> str:
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        return str(phase).lower()
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return "stopping"
    if phase == "Running":
        return "running"
    return "starting" if eks_words.is_scheduled(pod) else "pending"


def _counts(thing: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return how many pods (of a set: jobs) are active, of these ready, and how many have done their work."""
    status = thing.get("status") or {}
    parts = [*(status.get("replicatedJobsStatus") or ()), *(status.get("jobsStatus") or ())]
    replicas = status.get("replicaStatuses")
    if replicas is not None:  # of a PyTorchJob, where active is as good as ready
        counts = list(replicas.values())
        running = condition(thing, "Running")
        # what is suspended may still be counted as it was before
        active = 0 if condition(thing, "Suspended") else sum(int(one.get("active") or 0) for one in counts)
        return active, active if running else 0, sum(int(one.get("succeeded") or 0) for one in counts)
    of = parts or [status]
    active, ready, done, ending = (
        sum(int(one.get(name) or 0) for one in of) for name in ("active", "ready", "succeeded", "terminating")
    )
    return active + ending, ready, done


def status_of(handle: Handle, thing: Mapping[str, Any]) -> Status:
    """Return what a run's object says."""
    state = state_of(handle, thing)
    return Status(
        state=state,
        name=eks_words.name_of(thing) or None,
        reason=_reason(handle, thing, state),
        events=tuple(sorted(_events(thing), key=lambda event: event.time)),
        links=dict(_links(handle)),
    )


def _reason(handle: Handle, thing: Mapping[str, Any], state: str) -> str | None:
    if kind_of(handle).pods_by is None:
        end = eks_words.ending(thing) if state == "failed" else None
        return f"the pod {end.words}" if end else eks_words.waiting(thing)
    if state == "failed":
        found = condition(thing, "Failed") or {}
        message, known = str(found.get("message") or "").strip(), _FAILED.get(str(found.get("reason")))
        return "; ".join(word for word in (known, message) if word) or found.get("reason")
    if state == "pending" and is_suspended(handle, thing):
        return "it is suspended: a queue or somebody holds it back"
    return None


def _events(thing: Mapping[str, Any]) -> Iterator[Event]:
    created = moment((thing.get("metadata") or {}).get("creationTimestamp"))
    if created is not None:
        yield Event(time=created, text="created")
    started = moment((thing.get("status") or {}).get("startTime"))
    if started is not None:
        yield Event(time=started, text="started")
    for one in conditions(thing):
        at = moment(one.get("lastTransitionTime"))
        if at is not None and one.get("status") == "True":
            message = one.get("message") or one.get("reason")
            yield Event(time=at, text=str(one.get("type")).lower() + (f": {message}" if message else ""))


def _links(handle: Handle) -> Iterator[tuple[str, str]]:
    if handle.scope.startswith("eks:"):
        region, _, cluster = handle.scope.removeprefix("eks:").partition("/")
        host = f"https://{region}.console.aws.amazon.com"
        yield "console", f"{host}/eks/home?region={region}#/clusters/{quote(cluster)}"


# --- why it is so


def explain(handle: Handle, replies: Sequence[Mapping[str, Any]]) -> Call | None:
    """Return the next call that helps to say why a run waits or failed, its object being the first reply."""
    thing = replies[0]
    state = state_of(handle, thing)
    if state not in EXPLAINED or kind_of(handle).pods_by is None:
        return None
    steps: list[Callable[[], Call]] = [lambda: pods(handle)]
    if state == "failed":
        steps += [lambda: _last_lines(handle, replies[1]), lambda: events(handle)]
    else:
        uid = str((thing.get("metadata") or {}).get("uid") or "")
        steps += [lambda: workloads(handle, uid)] if is_suspended(handle, thing) else [lambda: events(handle)]
    return steps[len(replies) - 1]() if len(replies) <= len(steps) else None


def explained(handle: Handle, status: Status, replies: Sequence[Mapping[str, Any]]) -> Status:
    """Return the status with why the run waits, or who of it failed first, and why."""
    if len(replies) < 2:
        return status
    there = list(replies[1].get("items") or ())
    last = list(replies[-1].get("items") or ()) if len(replies) > 2 else []
    if status.state == "failed":
        failed = _failure(status, replies, there, last)
        step = _failed_step(replies[0], there)
        words = (f"step {step} failed" if step else "", failed.reason or "")
        return attrs.evolve(failed, reason=": ".join(word for word in words if word) or None)
    reason = eks_words.together(there)
    if is_suspended(handle, replies[0]):
        reason = eks_words.queued(last) or reason
    else:
        hindered = eks_words.warnings(last, eks_words.name_of(replies[0]), _HINDERED)
        reason = "; ".join(word for word in (reason, *hindered) if word) or None
    placed = bool(there) and all(eks_words.is_scheduled(pod) for pod in there)
    state = "pending" if there and not placed else status.state
    return attrs.evolve(status, state=state, reason=reason or status.reason)


def _last_lines(handle: Handle, reply: Mapping[str, Any]) -> Call:
    each = [
        {"name": eks_words.name_of(pod), "container": (eks_words.main_status(pod) or {}).get("name")}
        for pod in newest(reply.get("items") or ())
        if eks_words.main_status(pod) is not None
    ]
    return call("read_log", handle, each=each, tailLines=LAST_LINES, timestamps=False, absent=True)


def newest(there: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the last pod of each replica; those before it were replaced."""
    ordered = sorted(there, key=lambda pod: moment(pod["metadata"].get("creationTimestamp")) or 0.0)
    found: dict[Any, Mapping[str, Any]] = {}
    for pod in ordered:
        replica = replica_of(pod, {})
        part = tuple(pod["metadata"].get("labels", {}).get(name) for name in _PARTS)
        found[(part, replica) if replica is not None else eks_words.name_of(pod)] = pod
    return list(found.values())


_PARTS = (
    "jobset.sigs.k8s.io/replicatedjob-name",
    "jobset.sigs.k8s.io/job-index",
    "training.kubeflow.org/replica-type",
)


def _failure(
    status: Status, replies: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]], last: list[Any]
) -> Status:
    """Return the status with who failed first: by what the agents said, and by how the pods ended."""
    found = [pod for pod in newest(there) if eks_words.main_status(pod) is not None]
    logs = (replies[2].get("replies") or ()) if len(replies) > 2 else ()
    texts = {
        eks_words.name_of(pod): str(reply.get("text") or "").splitlines()
        for pod, reply in zip(found, logs, strict=False)
    }
    told = farewells.told(line for lines in texts.values() for line in lines)
    places = layout(replies[0])
    ends = []
    for pod in newest(there):
        end, replica = eks_words.ending(pod), replica_of(pod, places)
        if end is None or (not end.disrupted and farewells.told(texts.get(eks_words.name_of(pod), ()))):
            continue  # its agent has said more
        who = f"pod {eks_words.name_of(pod)}" + (f" (replica {replica})" if replica is not None else "")
        ends.append(
            {
                "order": [0, end.time_s, -1],
                "replica": replica,
                "exitCode": end.exit_code,
                "signal": end.signal,
                "lines": _plain(texts.get(eks_words.name_of(pod), [])),
                "reason": f"{who} {end.words}",
            }
        )
    found_out = farewells.explained(status, told, others=ends)
    if found_out.failure is not None:
        return found_out
    gone = eks_words.warnings(last, eks_words.name_of(replies[0]), _ENDED)
    waits = eks_words.together(there)
    return attrs.evolve(status, reason="; ".join(word for word in (status.reason, waits, *gone) if word) or None)


def _failed_step(thing: Mapping[str, Any], there: Sequence[Mapping[str, Any]]) -> str | None:
    """Return which part of a chain has failed; of parts that run at the same time several may have."""
    places = layout(thing)
    parts = {part_of(pod, places) for pod in newest(there) if eks_words.ending(pod) is not None}
    return parts.pop() if len(parts) == 1 else None


def _plain(lines: Sequence[str]) -> list[str]:
    """Return the texts of a pod's last lines, whoever wrote them."""
    found = []
    for line in lines[-20:]:
        numbered, plain = parse_numbered(line), parse_line(line)
        found.append(numbered.text if numbered else plain[3] if plain else line)
    return found
