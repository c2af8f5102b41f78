"""The kubelets of all nodes of a cluster: they run the pods that are given to their nodes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

from cloudtune.rehearsal.kubernetes.conditions import set_condition
from cloudtune.rehearsal.kubernetes.container_logs import ContainerLogs
from cloudtune.rehearsal.kubernetes.loop import Key, is_going, key_of
from cloudtune.rehearsal.kubernetes.names import Names
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects
from cloudtune.rehearsal.kubernetes.pod_run import EVICTED, KILLED, PREEMPTED, PodRun, Wish
from cloudtune.rehearsal.kubernetes.pod_volumes import Folders
from cloudtune.rehearsal.kubernetes.surroundings import Surroundings
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.stage import Stage

_LOW = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 61Mi. "
_OVER = ("Succeeded", "Failed")


class Kubelet:
    """A controller of pods that have a node."""

    kind = "Pod"

    def __init__(
        self,
        stage: Stage,
        objects: Objects,
        logs: ContainerLogs,
        names: Names,
        *,
        timing: Timing,
        around: Surroundings,
    ) -> None:
        self.stage, self.objects, self.logs, self.names = stage, objects, logs, names
        self.timing, self.around = timing, around
        self.folders = Folders(root=stage.folder / "kubernetes")
        self._lock = threading.Lock()
        self._runs: dict[Key, PodRun] = {}
        self._images: set[tuple[str, str]] = set()
        self._silent: set[str] = set()
        self._ports: dict[str, int] = {}

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the pod itself."""
        return [key_of(change.object)] if change.kind == "Pod" else []

    def sync(self, namespace: str, name: str) -> float | None:
        """Begin a pod, or let it end."""
        pod = self.objects.get("Pod", namespace, name)
        with self._lock:
            run = self._runs.get((namespace, name))
        if run is not None and (pod is None or pod["metadata"]["uid"] != run.uid):
            run.ask(Wish(deed="lose"))  # it was removed at once
            self.logs.forget(run.uid)
            with self._lock:
                del self._runs[namespace, name]
            run = None
        if pod is None or not pod["spec"].get("nodeName") or pod["spec"]["nodeName"] in self._silent:
            return None
        if run is None and not is_going(pod) and pod.get("status", {}).get("phase") not in _OVER:
            run = PodRun(self, pod)
            with self._lock:
                self._runs[namespace, name] = run
            self.stage.control(f"pod {namespace}/{name}", run.lead)
        elif is_going(pod):
            self._end(run, pod)
        return None

    def _end(self, run: PodRun | None, pod: Object) -> None:
        """End a pod that is being deleted."""
        grace_s = float(pod["metadata"].get("deletionGracePeriodSeconds", 0))
        if run is None or run.over.is_set():
            self.objects.remove("Pod", *key_of(pod), uid=pod["metadata"]["uid"])
        else:
            run.ask(Wish(deed="delete", grace_s=grace_s))

    # --- what pods ask

    def pulls(self, node: str, image: str) -> float:
        """Return how long a node takes to have an image; it has it afterwards."""
        with self._lock:
            known = (node, image) in self._images
            self._images.add((node, image))
        return 0.0 if known else self.timing.pulling_s

    def host_address(self, node: str) -> str:
        """Return the address of a node."""
        found = self.objects.get("Node", None, node) or {}
        rows = found.get("status", {}).get("addresses") or ()
        return next((str(row["address"]) for row in rows if row["type"] == "InternalIP"), "")

    def port_of(self, owner: str) -> int:
        """Return the port at which the pods of one job meet: all nodes are this machine, so each job has another."""
        with self._lock:
            if owner not in self._ports:
                self._ports[owner] = self.stage.addresses.take_port()
            return self._ports[owner]

    def usual_variables(self, pod: Object) -> dict[str, str]:
        """Return the variables that every container has here, unless it sets them."""
        labels, meta = pod["metadata"].get("labels") or {}, pod["metadata"]
        owners = [one["uid"] for one in meta.get("ownerReferences") or () if one.get("controller")]
        together = self.objects.list(
            "Pod", meta["namespace"], where=lambda one: bool(owners) and owners[0] in _controllers(one)
        )
        found = {
            "KUBERNETES_SERVICE_HOST": self.around.api[0],
            "KUBERNETES_SERVICE_PORT": str(self.around.api[1]),
            "CLOUDTUNE_MAIN_PORT": str(
                self.port_of(labels.get("cloudtune.dev/run-id") or (owners or [meta["uid"]])[0])
            ),
        }
        # pods share this machine's cores, and each would take all of them
        threads = max(1, (os.cpu_count() or 1) // max(1, len(together)))
        return {**found, "OMP_NUM_THREADS": str(threads)} if len(together) > 1 else found

    # --- deeds

    def run_of(self, namespace: str, name: str) -> PodRun | None:
        """Return a pod that its node knows, and that is not over."""
        with self._lock:
            run = self._runs.get((namespace, name))
        return run if run is not None and not run.over.is_set() else None

    def evict(self, namespace: str, name: str) -> None:
        """Let a node end a pod because the node's memory runs out."""
        run = self.run_of(namespace, name)
        if run is not None:
            run.ask(Wish(deed="fail", reason="Evicted", message=_LOW))

    def preempt(self, namespace: str, name: str) -> None:
        """Delete a pod in favour of another."""
        words = "default-scheduler: preempting to accommodate a higher priority pod"
        self.disrupt(namespace, name, "PreemptionByScheduler", words)

    def disrupt(self, namespace: str, name: str, reason: str, message: str) -> None:
        """Delete a pod for something that is not its fault, and say so in its status."""

        def say(pod: dict[str, Any]) -> bool:
            status = pod.setdefault("status", {})
            return set_condition(status, "DisruptionTarget", True, reason=reason, message=message)

        self.objects.update_status("Pod", namespace, name, say)
        self.objects.delete("Pod", namespace, name)

    def carry_out(self, event: str, run: PodRun) -> None:
        """Let one of a pod's events happen."""
        if event == KILLED:
            run.kill()
        elif event == EVICTED:
            self.evict(run.namespace, run.name)
        elif event == PREEMPTED:
            self.preempt(run.namespace, run.name)
        else:
            self.silence(run.node)

    def silence(self, node: str) -> tuple[PodRun, ...]:
        """Let a node vanish with all that runs on it, which is returned; the life-cycle of nodes says what follows."""
        with self._lock:
            self._silent.add(node)
            runs = [run for run in self._runs.values() if run.node == node]
        for run in runs:
            run.ask(Wish(deed="lose"))
        return tuple(runs)

    def is_silent(self, node: str) -> bool:
        """Whether nobody answers on a node."""
        with self._lock:
            return node in self._silent


def _controllers(thing: Object) -> list[str]:
    return [one["uid"] for one in thing["metadata"].get("ownerReferences") or () if one.get("controller")]
