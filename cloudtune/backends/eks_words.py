"""What pods, schedulers and queues say, in words: why a pod does not run yet, and how it has ended."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from signal import Signals
from typing import Any

import attrs

from cloudtune.backends.eks_objects import condition, conditions, moment

#: The agent's container, whose end is the pod's.
CONTAINER = "pytorch"
#: What the kubelet calls an image that does not come.
_IMAGE = frozenset(
    {
        *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"),
        *("RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"),
    }
)
_MAKING = {
    "ContainerCreating": "its container is being made: image, volumes",
    "PodInitializing": "its first containers are at work",
}
#: How a pod ends by somebody else's doing: by the pod's own word, or that of its DisruptionTarget.
_ENDS = {
    "Evicted": "was evicted",
    "NodeLost": "was lost with its node",
    "DeadlineExceeded": "has reached its time limit",
    "Preempting": "was preempted by a pod of higher priority",
    "NodeShutdown": "ended with its node, which was shut down",
    "Shutdown": "ended with its node, which was shut down",
    "Terminated": "ended with its node, which was shut down",
    "UnexpectedAdmissionError": "was turned away by its node",
    "PreemptionByScheduler": "was preempted by a pod of higher priority",
    "PreemptionByKubeScheduler": "was preempted by a pod of higher priority",
    "DeletionByTaintManager": "was lost: its node is not ready, or drained",
    "EvictionByEvictionAPI": "was evicted",
    "DeletionByPodGC": "was lost with its node",
    "TerminationByKubelet": "was evicted by its node",
}
_SIGNALED = 128
_SPACES = re.compile(r"\s+")


@attrs.frozen(kw_only=True)
class End:
    """How a pod has ended: ``words`` say it, ``time_s`` is when, in seconds since the epoch, 0 if nothing tells.

    ``disrupted`` if somebody else ended it: its own process says nothing of that, or less.
    """

    words: str
    time_s: float = 0.0
    exit_code: int | None = None
    signal: str | None = None
    disrupted: bool = False


def name_of(thing: Mapping[str, Any]) -> str:
    """Return an object's name."""
    return str((thing.get("metadata") or {}).get("name") or "")


def statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a pod says of its containers, those that prepare it first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def main_status(pod: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a pod says of the container that does its work: the agent's, else the first."""
    found = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((one for one in found if one.get("name") == CONTAINER), found[0] if found else None)


def is_scheduled(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod has a node."""
    if (pod.get("spec") or {}).get("nodeName") or (pod.get("status") or {}).get("phase") == "Running":
        return True
    return condition(pod, "PodScheduled") is not None


def is_over(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod has ended."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


# --- why it does not run yet


def waiting(pod: Mapping[str, Any]) -> str | None:
    """Return why a pod does not run, None if it does or has ended."""
    if is_over(pod):
        return None
    for one in conditions(pod):
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            gated = one.get("reason") == "SchedulingGated"
            why = _short(one.get("message") or one.get("reason") or "")
            return f"it is held back before scheduling: {why}" if gated else f"it waits for a node: {why}"
    for status in statuses(pod):
        state = (status.get("state") or {}).get("waiting")
        if state is not None:
            return _waits(status, state)
    if not is_scheduled(pod):
        return "it waits for a node"
    return None if statuses(pod) or (pod.get("status") or {}).get("phase") == "Running" else "it has a node"


def _waits(status: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    reason, message = str(state.get("reason") or ""), _short(state.get("message") or "")
    if reason in _IMAGE:
        return f"image {status.get('image')} does not come ({reason})" + (f": {message}" if message else "")
    if reason == "CrashLoopBackOff":
        last = (status.get("lastState") or {}).get("terminated") or {}
        code = f", the last time with exit code {last['exitCode']}" if "exitCode" in last else ""
        return f"its container ends again and again{code}; the kubelet waits before it starts it once more"
    if reason in _MAKING:
        return _MAKING[reason]
    words = f"its container cannot be made ({reason})" if reason else "its container is being made"
    return f"{words}: {message}" if message else words


def together(pods: Iterable[Mapping[str, Any]]) -> str | None:
    """Return why pods do not run: each reason once, with how many there are of it."""
    counted = Counter(word for pod in pods if (word := waiting(pod)) is not None)
    parts = [f"{count} pods: {word}" if count > 1 else f"a pod: {word}" for word, count in counted.most_common(3)]
    return "; ".join(parts) or None


def queued(workloads: Iterable[Mapping[str, Any]]) -> str | None:
    """Return what Kueue says of a job that it holds back, None if it does not."""
    for one in workloads:
        if (one.get("spec") or {}).get("active") is False:
            return "Kueue has deactivated it"
        if condition(one, "Finished") or condition(one, "Admitted"):
            continue
        queue = (one.get("spec") or {}).get("queueName")
        evicted = condition(one, "Evicted", "Preempted")
        told = evicted or next((each for each in conditions(one) if each.get("type") == "QuotaReserved"), None)
        why = f": {_short(told.get('message') or '')} ({told.get('reason')})" if told else ""
        return f"it waits in queue {queue}{why}"
    return None


def warnings(events: Iterable[Mapping[str, Any]], name: str, kinds: Mapping[str, str]) -> Iterator[str]:
    """Yield the newest warning about a run for each reason in ``kinds``, as ``kinds`` words it."""
    found: dict[str, tuple[float, str]] = {}
    for one in events:
        about = str((one.get("involvedObject") or {}).get("name") or "")
        word = kinds.get(str(one.get("reason")))
        if word is None or not (about == name or about.startswith(f"{name}-")):
            continue
        if f'"{name}" not found' in str(one.get("message")):
            continue  # what a run's pods mount is made a moment after them
        at = moment(one.get("lastTimestamp") or one.get("eventTime")) or 0.0
        if at >= found.get(word, (0.0, ""))[0]:
            found[word] = (at, _short(one.get("message") or ""))
    for word, (_, message) in found.items():
        yield f"{word}: {message}"


# --- how it has ended


def ending(pod: Mapping[str, Any]) -> End | None:
    """Return how a pod has ended, None if it goes on, or has done its work."""
    status = pod.get("status") or {}
    disruption = condition(pod, "DisruptionTarget")
    terminated = _terminated(pod)
    time_s = moment((terminated or {}).get("finishedAt")) or 0.0
    facts: dict[str, Any] = {"exit_code": (terminated or {}).get("exitCode"), "signal": _signal(terminated)}
    if status.get("phase") == "Succeeded":
        return None
    named = str(status.get("reason") or "")
    if disruption is None and named in _ENDS:
        return End(words=_said(_ENDS[named], status.get("message")), time_s=time_s, disrupted=True, **facts)
    if disruption is not None:
        reason = str(disruption.get("reason") or "")
        words = _ENDS.get(reason) or _ENDS.get(named) or f"was disrupted ({reason})"
        message = status.get("message") or disruption.get("message")
        at = moment(disruption.get("lastTransitionTime")) or time_s
        return End(words=_said(words, message), time_s=at, disrupted=True, **facts)
    if terminated is None:
        return End(words=_said(f"failed ({named})", status.get("message"))) if status.get("phase") == "Failed" else None
    return _own_end(terminated)


def restarted(pod: Mapping[str, Any]) -> End | None:
    """Return how the last try of a container ended that was started again in its place."""
    last = ((main_status(pod) or {}).get("lastState") or {}).get("terminated")
    return _own_end(last) if last else None


def _own_end(terminated: Mapping[str, Any]) -> End | None:
    code, reason = terminated.get("exitCode"), terminated.get("reason")
    if not code and reason != "OOMKilled":
        return None
    facts: dict[str, Any] = {
        "time_s": moment(terminated.get("finishedAt")) or 0.0,
        "exit_code": code,
        "signal": _signal(terminated),
    }
    if reason == "OOMKilled":
        words = "was out of memory (OOMKilled): give it more by resources.limits.memory, or need less"
        return End(words=words, disrupted=True, **facts)
    how = f"ended with exit code {code}" if reason in (None, "Error") else f"ended ({reason}, exit code {code})"
    return End(words=_said(how, terminated.get("message")), **facts)


def _terminated(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the end of a pod's container: of the one that does its work, else of the first that failed."""
    main = main_status(pod)
    found = [main] if main is not None else []
    ends = [(one.get("state") or {}).get("terminated") for one in (*found, *statuses(pod))]
    return next((one for one in ends if one and one.get("exitCode")), next((one for one in ends if one), None))


def _signal(terminated: Mapping[str, Any] | None) -> str | None:
    if terminated is None:
        return None
    number = int(terminated.get("signal") or 0) or max(0, int(terminated.get("exitCode") or 0) - _SIGNALED)
    try:
        return Signals(number).name
    except ValueError:
        return None


def _said(words: str, message: object) -> str:
    return f"{words}: {_short(message)}" if message else words


def _short(text: object) -> str:
    """Return a message on one line, without what may be a whole log."""
    line = _SPACES.sub(" ", str(text)).strip().rstrip(".")
    return line if len(line) <= 400 else f"{line[:400]}..."
