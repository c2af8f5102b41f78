"""The scheduler: finds a node for each pod that has none, and says why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudtune.rehearsal.kubernetes.conditions import holds, set_condition
from cloudtune.rehearsal.kubernetes.fitting import machines, told, why_not
from cloudtune.rehearsal.kubernetes.loop import Key, is_going, key_of
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects, moment
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.stage import Stage

COMPONENT = "default-scheduler"
_GATED = "Scheduling is blocked due to non-empty scheduling gates"


class Scheduler:
    """A controller of pods that have no node yet."""

    kind = "Pod"

    def __init__(self, stage: Stage, objects: Objects, timing: Timing) -> None:
        self._stage, self._objects, self._timing = stage, objects, timing
        self._seen: dict[str, float] = {}

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the pod itself, or all that wait where something may have become free."""
        if change.kind == "Pod" and change.deed != "removed" and not change.object["spec"].get("nodeName"):
            return [key_of(change.object)]
        if change.kind in ("Pod", "Node", "PersistentVolumeClaim"):
            return [key_of(pod) for pod in self._objects.list("Pod", where=_waits)]
        return []

    def sync(self, namespace: str, name: str) -> float | None:
        """Find a node for a pod."""
        pod = self._objects.get("Pod", namespace, name)
        if pod is None or not _waits(pod):
            return None
        now = self._stage.clock.time_s()
        begun = self._seen.setdefault(pod["metadata"]["uid"], now)
        if now < begun + self._timing.scheduling_s:
            return begun + self._timing.scheduling_s - now
        if pod["spec"].get("schedulingGates"):
            self._refuse(pod, "SchedulingGated", _GATED)
            return None
        nodes = self._objects.list("Node")
        missing = self._missing_claim(pod)
        if missing:
            total = f"0/{len(nodes)} nodes are available"
            helps = f"{len(nodes)} Preemption is not helpful for scheduling"
            self._refuse(pod, "Unschedulable", f"{total}: {missing}. preemption: {total}: {helps}.")
            return None
        found = machines(nodes, self._objects.list("Pod"))
        reasons = {machine.name: why_not(pod, machine) for machine in found}
        fit = [machine for machine in found if not reasons[machine.name]]
        if not fit:
            self._refuse(pod, "Unschedulable", told(reasons))
            return None
        self._bind(pod, min(fit, key=lambda machine: machine.pods).name)
        return None

    def _missing_claim(self, pod: Object) -> str | None:
        """Return what is wrong with the claims of a pod, None if they can be used."""
        for volume in pod["spec"].get("volumes") or ():
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            claim = self._objects.get("PersistentVolumeClaim", pod["metadata"]["namespace"], name) if name else None
            if name and claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if claim is not None and claim.get("status", {}).get("phase") != "Bound":
                return "pod has unbound immediate PersistentVolumeClaims"
        return None

    def _bind(self, pod: Object, node: str) -> None:
        def onto(thing: dict[str, Any]) -> bool | None:
            if thing["spec"].get("nodeName") or is_going(thing):
                return False
            thing["spec"]["nodeName"] = node
            return None

        namespace, name = key_of(pod)
        if self._objects.update("Pod", namespace, name, onto) is None:
            return
        self._seen.pop(pod["metadata"]["uid"], None)
        self._objects.update_status("Pod", namespace, name, _scheduled)
        message = f"Successfully assigned {namespace}/{name} to {node}"
        self._objects.tell(pod, "Scheduled", message, component=COMPONENT)

    def _refuse(self, pod: Object, reason: str, message: str) -> None:
        changed = []

        def say(thing: dict[str, Any]) -> bool:
            status = thing.setdefault("status", {})
            status.setdefault("phase", "Pending")
            changed.append(set_condition(status, "PodScheduled", False, reason=reason, message=message))
            return changed[-1]

        self._objects.update_status("Pod", *key_of(pod), say)
        if any(changed) and reason == "Unschedulable":
            self._objects.tell(pod, "FailedScheduling", message, warning=True, component=COMPONENT)


def _scheduled(pod: dict[str, Any]) -> None:
    status = pod.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("startTime", moment())
    if not holds(pod, "PodScheduled"):
        set_condition(status, "PodScheduled", True)


def _waits(pod: Object) -> bool:
    over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not pod["spec"].get("nodeName") and not is_going(pod) and not over
