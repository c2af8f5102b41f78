"""A cluster on this machine for tests: the stand-in, two nodes, and a user who is known to it.

with eks_place(tmp_path) as place:      # this process is the user: clients and cloudtune reach the stand-in alone
    place.control.evict(...)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune.rehearsal.faults import Fault
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.stage import Stage
from cloudtune.spec.infrastructure import EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime

#: Seconds of the stand-in's clock in one of this machine's; what jobs give as times are seconds of this machine.
SPEED = 200.0
INSTANCE = "m5.xlarge"
NAMESPACE = "default"


@attrs.frozen(kw_only=True)
class EksPlace:
    """A stand-in that runs."""

    stage: Stage
    cluster: Any
    identity: Identity
    nodes: tuple[str, ...]
    gate: Path

    def open_gate(self) -> None:
        """Let pods that wait for ``/gate/open`` go on."""
        (self.gate / "open").touch()

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a client, all of them: for processes that are started."""
        return self.identity.environment(self.cluster.environment())

    @property
    def control(self) -> Any:
        """What acts in the cluster, and the deeds by which something goes wrong."""
        return self.cluster.control

    def things(self, kind: str) -> list[dict[str, Any]]:
        """Return the objects of a kind in the namespace of jobs."""
        return list(self.cluster.objects.list(kind, NAMESPACE))

    def pods(self) -> dict[int, dict[str, Any]]:
        """Return the newest pod of each index."""
        found = sorted(self.things("Pod"), key=lambda pod: int(pod["metadata"]["resourceVersion"]))
        return {int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]): pod for pod in found}


def job(command: str, *, replicas: int | None = 2, **more: Any) -> JobSpec:
    """Return a job of a command."""
    where = EKSJob(instance_type=INSTANCE, image="image:1", namespace=NAMESPACE, **more)
    runtime = PyTorchDistributedRuntime(command=command, replicas=replicas)
    return JobSpec(name="tune", infrastructure=where, runtime=runtime)


@contextlib.contextmanager
def eks_place(
    folder: Path, *, faults: Iterable[Fault] = (), speed: float = SPEED, nodes: int = 2, **options: Any
) -> Iterator[EksPlace]:
    """Begin the stand-in and be its user for a while; ``options`` are those of the cluster.

    The stand-in must not have failed by itself.
    """
    pytest.importorskip("kubernetes", reason="kubernetes is not installed")
    from cloudtune.rehearsal.kubernetes.cluster import Cluster
    from cloudtune.rehearsal.kubernetes.timing import Timing
    from cloudtune.rehearsal.nodes import Place

    timing = options.pop("timing", Timing(second_s=speed))
    with Identity() as identity, Stage(folder / "eks", faults=faults, speed=speed) as stage:
        cluster = Cluster(stage, identity, timing=timing, **options)
        names = cluster.control.add_nodes(INSTANCE, nodes)
        gate = folder / "gate"
        gate.mkdir()
        cluster.control.around.places = {"/gate": Place(source=gate)}
        with identity.applied(cluster.environment()):
            yield EksPlace(stage=stage, cluster=cluster, identity=identity, nodes=names, gate=gate)
    assert stage.errors == ()
