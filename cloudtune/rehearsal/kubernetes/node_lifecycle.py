"""What becomes of nodes that fall silent, and of their pods: unknown first, then gone with the machine.

Source: the node life-cycle and pod garbage collecting controllers of kube-controller-manager, and the cloud's, which
removes the node of an instance that is terminated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudtune.rehearsal.kubernetes.conditions import holds, set_condition
from cloudtune.rehearsal.kubernetes.kubelet import Kubelet
from cloudtune.rehearsal.kubernetes.loop import Key, key_of
from cloudtune.rehearsal.kubernetes.machines import node_conditions
from cloudtune.rehearsal.kubernetes.objects import Change, Object
from cloudtune.rehearsal.kubernetes.timing import Timing

#: Seconds between two looks at a node.
_LOOK_S = 5.0
_SILENT = "Kubelet stopped posting node status."
_GONE = "PodGC: node no longer exists"
_TAINT = "node.kubernetes.io/unreachable"


class NodeLifecycle:
    """A controller of nodes."""

    kind = "Node"

    def __init__(self, kubelet: Kubelet, timing: Timing) -> None:
        self._kubelet, self._objects, self._timing = kubelet, kubelet.objects, timing
        self._clock = kubelet.stage.clock
        self._silent_since: dict[str, float] = {}

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the node itself, or that of a pod."""
        if change.kind == "Node":
            return [key_of(change.object)]
        name = change.object["spec"].get("nodeName") if change.kind == "Pod" else None
        return [("", name)] if name else []

    def sync(self, namespace: str, name: str) -> float | None:
        """Look after a node."""
        node = self._objects.get("Node", None, name)
        if node is None:
            self._collect(name)
            return None
        if not self._kubelet.is_silent(name):
            return _LOOK_S
        silent_s = self._clock.time_s() - self._silent_since.setdefault(name, self._clock.time_s())
        if silent_s < self._timing.unknown_s:
            return self._timing.unknown_s - silent_s
        if holds(node, "Ready"):
            self._give_up(node)
        if silent_s < self._timing.unknown_s + self._timing.gone_s:
            return self._timing.unknown_s + self._timing.gone_s - silent_s
        self._objects.tell(
            node, "DeletingNode", f"Deleting node {name} because it does not exist in the cloud provider"
        )
        self._objects.remove("Node", None, name)
        return None

    def _give_up(self, node: Object) -> None:
        """Say that nothing is known of a node and its pods."""
        name = node["metadata"]["name"]

        def unknown(thing: dict[str, Any]) -> None:
            thing["status"]["conditions"] = node_conditions("Unknown", "NodeStatusUnknown", _SILENT)

        def taint(thing: dict[str, Any]) -> None:
            rows = [{"key": _TAINT, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
            thing["spec"]["taints"] = [*(thing["spec"].get("taints") or ()), *rows]

        def unready(pod: dict[str, Any]) -> bool:
            return set_condition(pod.setdefault("status", {}), "Ready", False, reason="NodeNotReady")

        self._objects.update_status("Node", None, name, unknown)
        self._objects.update("Node", None, name, taint)
        self._objects.tell(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in self._pods_of(name):
            self._objects.update_status("Pod", *key_of(pod), unready)

    def _collect(self, name: str) -> None:
        """Remove the pods of a node that is gone."""

        def fail(pod: dict[str, Any]) -> None:
            status = pod.setdefault("status", {})
            if status.get("phase") not in ("Succeeded", "Failed"):
                status["phase"] = "Failed"
                set_condition(status, "DisruptionTarget", True, reason="DeletionByPodGC", message=_GONE)

        for pod in self._pods_of(name):
            self._objects.update_status("Pod", *key_of(pod), fail)
            self._objects.remove("Pod", *key_of(pod), uid=pod["metadata"]["uid"])

    def _pods_of(self, name: str) -> list[Object]:
        return self._objects.list("Pod", where=lambda pod: pod["spec"].get("nodeName") == name)
