"""Everything that acts in a rehearsed cluster by itself, and the deeds by which something goes wrong with its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloudtune.errors import UsageError
from cloudtune.rehearsal.kubernetes.claims import Claims
from cloudtune.rehearsal.kubernetes.container_logs import ContainerLogs
from cloudtune.rehearsal.kubernetes.garbage import Garbage
from cloudtune.rehearsal.kubernetes.job_controller import JobController
from cloudtune.rehearsal.kubernetes.jobset_controller import JobSetController
from cloudtune.rehearsal.kubernetes.kinds import Kind
from cloudtune.rehearsal.kubernetes.kubelet import Kubelet
from cloudtune.rehearsal.kubernetes.kueue import Kueue
from cloudtune.rehearsal.kubernetes.loop import Controller, Loop
from cloudtune.rehearsal.kubernetes.machines import node_manifest
from cloudtune.rehearsal.kubernetes.names import Names
from cloudtune.rehearsal.kubernetes.node_lifecycle import NodeLifecycle
from cloudtune.rehearsal.kubernetes.objects import Object, Objects
from cloudtune.rehearsal.kubernetes.pytorch_controller import PyTorchController
from cloudtune.rehearsal.kubernetes.scheduler import Scheduler
from cloudtune.rehearsal.kubernetes.surroundings import Surroundings
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.kubernetes.trainjob_controller import TrainJobController
from cloudtune.rehearsal.stage import Stage

#: Seconds of this machine in which what is ended at once must be over.
_END_S = 60.0


class Control:
    """The controllers, the scheduler and the kubelets of a cluster, from :meth:`begin` to the end of the stage.

    ``around`` and ``claims.unprovided`` may be changed while it runs.
    """

    def __init__(
        self,
        stage: Stage,
        objects: Objects,
        *,
        timing: Timing | None = None,
        around: Surroundings | None = None,
        region: str = "us-west-2",
    ) -> None:
        self.stage, self.objects, self.region = stage, objects, region
        self.timing = timing or Timing()
        self.around = around or Surroundings()
        self.logs = ContainerLogs()
        self.names = Names(objects, stage.addresses)
        self.kubelet = Kubelet(stage, objects, self.logs, self.names, timing=self.timing, around=self.around)
        self.claims = Claims(stage, objects, self.timing)
        self.kueue = Kueue(stage, objects, self.timing)
        self._count = 0

    def begin(self) -> None:
        """Let everything act from now on."""
        if "kueue" in self.objects.kinds.operators:
            admit = self.objects.admission

            def queued(kind: Kind, thing: Object, old: Object | None) -> None:
                self.kueue.admit(kind, thing, old)
                admit(kind, thing, old)

            self.objects.admission = queued
        self.stage.control("cluster", Loop(self.stage, self.objects, self._controllers()).run)

    def _controllers(self) -> Iterable[Controller]:
        stage, objects, timing = self.stage, self.objects, self.timing
        yield self.names
        yield Garbage(objects)
        yield self.claims
        installed = objects.kinds.operators
        if "kueue" in installed:
            yield self.kueue
        if "trainer" in installed:
            yield TrainJobController(objects, self.kubelet.port_of)
        if "jobset" in installed:
            yield JobSetController(stage, objects, timing)
        if "training-operator" in installed:
            yield PyTorchController(stage, objects, timing, self.kubelet.port_of)
        yield JobController(stage, objects, timing)
        yield NodeLifecycle(self.kubelet, timing)
        yield Scheduler(stage, objects, timing)
        yield self.kubelet

    # --- nodes

    def add_nodes(
        self,
        instance_type: str,
        count: int = 1,
        *,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, str]] = (),
    ) -> tuple[str, ...]:
        """Let nodes of an instance type join the cluster; return their names."""
        names = []
        for _ in range(count):
            self._count += 1
            address = f"10.0.{self._count // 250}.{self._count % 250 + 4}"
            name = f"ip-{address.replace('.', '-')}.{self.region}.compute.internal"
            zone = f"{self.region}{'abc'[self._count % 3]}"
            manifest, status = node_manifest(
                name,
                instance_type,
                address=address,
                region=self.region,
                zone=zone,
                labels=labels or {},
                taints=tuple(taints),
            )
            self.objects.create(manifest, status=status)
            names.append(name)
        return tuple(names)

    def lose_node(self, name: str) -> None:
        """Let a node vanish with all that runs on it: it falls silent, is unknown after a while, and then removed.

        Nothing runs there any more when this returns.
        """
        self._must_be("Node", None, name)
        for run in self.kubelet.silence(name):
            run.over.wait(_END_S)

    # --- pods

    def evict(self, namespace: str, name: str) -> None:
        """Let the node of a pod end it because the node's memory runs out; the pod stays, as failed.

        It runs no more when this returns.
        """
        self._must_be("Pod", namespace, name)
        run = self.kubelet.run_of(namespace, name)
        if run is not None:
            self.kubelet.evict(namespace, name)
            run.over.wait(_END_S)

    def preempt(self, namespace: str, name: str) -> None:
        """Let the scheduler take a pod's place for another: it is deleted."""
        self._must_be("Pod", namespace, name)
        self.kubelet.preempt(namespace, name)

    def kill_pod(self, namespace: str, name: str, *, container: str | None = None) -> None:
        """End the processes of a pod, or of one container of it, as SIGKILL does; they are gone when this returns."""
        self._must_be("Pod", namespace, name)
        run = self.kubelet.run_of(namespace, name)
        if run is not None:
            run.kill(container)

    def _must_be(self, kind: str, namespace: str | None, name: str) -> None:
        if self.objects.get(kind, namespace, name) is None:
            raise UsageError(f"the rehearsed cluster has no {kind.lower()} {name}")
