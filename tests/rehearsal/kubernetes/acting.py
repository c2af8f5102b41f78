"""A cluster that acts, for tests: manifests in few words, and waiting for what becomes of them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from cloudtune.rehearsal.faults import Fault
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.rehearsal.kubernetes.conditions import condition
from cloudtune.rehearsal.stage import Stage

Object = dict[str, Any]
#: Seconds of the stand-in's clock in one of this machine's.
SPEED = 200.0
OVER = ("Complete", "Completed", "Succeeded", "Failed")


def container(script: str, **rest: Any) -> Object:
    return {"name": "pytorch", "image": "img:1", "command": ["sh", "-c", script], **rest}


def template(script: str, *, restart: str = "Never", **rest: Any) -> Object:
    """Return a pod template; what is in ``rest`` goes to the pod's spec, but ``inside`` to its container."""
    inside = rest.pop("inside", {})
    return {"spec": {"restartPolicy": restart, "containers": [container(script, **inside)], **rest}}


def job(name: str, script: str, *, nodes: int = 1, **rest: Any) -> Object:
    """Return an Indexed Job; what is in ``rest`` goes to its spec, but ``pod`` to its pods'."""
    pod = template(script, **rest.pop("pod", {}))
    spec = {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes, "template": pod, **rest}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def service(name: str, **selector: str) -> Object:
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


@attrs.frozen(kw_only=True)
class Acting:
    """A cluster in which things happen."""

    cluster: Cluster

    def make(self, manifest: Object) -> Object:
        return self.cluster.objects.create(manifest)

    def get(self, kind: str, name: str) -> Object:
        found = self.cluster.objects.get(kind, "default", name)
        assert found is not None, f"there is no {kind} {name}"
        return found

    def pods(self, **labels: str) -> list[Object]:
        return self.cluster.objects.list("Pod", "default", labels=labels)

    def pod_of(self, job: str, index: int = 0) -> Object | None:
        """Return the newest pod of an index of a Job."""
        labels = {"job-name": job, "batch.kubernetes.io/job-completion-index": str(index)}
        found = self.cluster.objects.list("Pod", "default", labels=labels)
        return found[-1] if found else None

    def until(self, true: Callable[[], Any], *, timeout_s: float = 90.0) -> Any:
        """Return the first true answer; what the cluster knows is told where there is none.

        It is asked again after each change, and now and then: a line of a log is no change.
        """
        deadline = time.monotonic() + timeout_s
        while not (answer := self.cluster.objects.wait_for(true, timeout_s=0.1)):
            assert time.monotonic() < deadline, self.told()
        return answer

    def over(self, kind: str, name: str) -> tuple[str, str]:
        """Return how a job ends: the condition, and its reason."""

        def look() -> Any:
            found = self.cluster.objects.get(kind, "default", name) or {}
            rows = [condition(found, word) for word in OVER]
            return next(((row["type"], row["reason"]) for row in rows if row and row["status"] == "True"), None)

        ended: tuple[str, str] = self.until(look)
        return ended

    def log(self, pod: Object, container: str = "pytorch", *, previous: bool = False) -> list[str]:
        log = self.cluster.logs.get(pod["metadata"]["uid"], container, previous=previous)
        return [line.text for line in log.read()] if log is not None else []

    def says(self, text: str, name: str, index: int = 0, *, after: Object | None = None) -> Object:
        """Return the pod of a Job's index, the one after another if that is given, once it has said something."""
        before = after["metadata"]["uid"] if after is not None else None

        def look() -> Any:
            pod = self.pod_of(name, index)
            known = pod is not None and pod["metadata"]["uid"] != before
            return pod if pod is not None and known and text in self.log(pod) else None

        found: Object = self.until(look)
        return found

    def events(self, name: str) -> list[tuple[str, str]]:
        rows = self.cluster.objects.list("Event", where=lambda one: one["involvedObject"]["name"] == name)
        return [(row["reason"], row["message"]) for row in rows]

    def told(self) -> str:
        """Return what there is, for a test that has failed."""
        kinds = ("Job", "JobSet", "PyTorchJob", "TrainJob", "Workload", "Pod", "Node")
        things = [thing for kind in kinds for thing in self.cluster.objects.list(kind)]
        rows = [f"{one['kind']} {one['metadata']['name']}: {json.dumps(one.get('status'))}" for one in things]
        logs = [f"{one['metadata']['name']} said {self.log(one)}" for one in things if one["kind"] == "Pod"]
        events = [
            f"{one['involvedObject']['name']}: {one['reason']}: {one['message']}"
            for one in self.cluster.objects.list("Event")
        ]
        return "\n".join(["not in time", *self.cluster.stage.errors, *rows, *logs, *events])


@contextlib.contextmanager
def acting(folder: Path, *, faults: Iterable[Fault] = (), speed: float = SPEED, **options: Any) -> Iterator[Acting]:
    """Begin a cluster with two nodes of eight GPUs; it must not have failed by itself."""
    with Identity() as identity, Stage(folder / "cluster", faults=faults, speed=speed) as stage:
        cluster = Cluster(stage, identity, **options)
        cluster.control.add_nodes("p5.48xlarge", 2)
        yield Acting(cluster=cluster)
    assert stage.errors == ()
