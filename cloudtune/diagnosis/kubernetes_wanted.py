"""What a job needs to find on a cluster, gathered from what its plan would create there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from cloudtune.backends.eks_wire import QUEUE_LABEL, scope_of
from cloudtune.diagnosis.aws_wanted import Objects, objects_of, secrets_of
from cloudtune.diagnosis.document import Subject
from cloudtune.diagnosis.quantities import total
from cloudtune.errors import CloudtuneError
from cloudtune.jobs import plan_job
from cloudtune.spec.eks import EKSJob

#: What is still to be filled in, or is only known later.
_OPEN = re.compile(r"[<$]")
#: Keys by which a part of a pod's spec is known, also where an operator's object has a part of one alone.
_OF_PODS = frozenset(
    {"containers", "nodeSelector", "tolerations", "volumes", "serviceAccountName", "imagePullSecrets"}
    | {"priorityClassName"}
)
_QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
#: Objects that run nodes.
RUN_NODES = ("Job", "PyTorchJob", "TrainJob", "JobSet")


@attrs.frozen(kw_only=True)
class Nodes:
    """Nodes of a job that are alike: how many, and what each takes and tolerates."""

    count: int
    takes: Mapping[str, Decimal]
    selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]

    @property
    def kind(self) -> Nodes:
        """What they are, however many."""
        return attrs.evolve(self, count=0)


@attrs.frozen(kw_only=True)
class Stored:
    """What a job has on AWS; a cluster reads and writes it whatever its region."""

    objects: tuple[Objects, ...]
    secrets: tuple[tuple[str, str], ...]
    region: str | None = None


@attrs.frozen(kw_only=True)
class Wanted:
    """What one job needs to find; ``objects`` are those that run its nodes, ``own`` the names of all it creates."""

    subject: Subject
    place: EKSJob
    scope: str
    namespace: str
    objects: tuple[Mapping[str, Any], ...]
    own: frozenset[tuple[str, str]]

    def at(self, key: str) -> str:
        """Return the YAML path of a key of the infrastructure."""
        return self.subject.at(f"infrastructure.spec.{key}")

    @property
    def is_settled(self) -> bool:
        """Whether the cluster is named: of a placeholder the plan speaks, and nobody need be asked for it."""
        return not _OPEN.search(self.scope)

    @property
    def facts(self) -> Mapping[str, str | None]:
        """What statements of a right can be filled in with."""
        return {"namespace": self.namespace, "cluster": self.place.cluster, "region": self.place.region}

    @property
    def kubectl(self) -> str:
        """How a command begins that looks at the job's namespace."""
        context = f" --context {self.place.context}" if self.place.context else ""
        return f"kubectl{context} -n {self.namespace}"

    @property
    def nodes(self) -> tuple[Nodes, ...]:
        """The job's nodes, those that are alike together."""
        return tuple(group for one in self.objects for group in _groups(one))

    @property
    def at_once(self) -> Mapping[str, Decimal]:
        """What the job takes in all, and ``pods``: of parts that follow each other the one that takes most."""
        found: list[Mapping[str, Decimal]] = []
        for one in self.objects:
            parts = [
                {**{name: group.count * each for name, each in group.takes.items()}, "pods": Decimal(group.count)}
                for group in _groups(one)
            ]
            names = dict.fromkeys(name for part in parts for name in part)
            most = {name: max(part.get(name, Decimal(0)) for part in parts) for name in names}
            found.append(most if _under(one, "dependsOn") else total(parts))
        return total(found)

    @property
    def claims(self) -> tuple[str, ...]:
        """Names of the volume claims."""
        return self._texts("claimName")

    @property
    def host_paths(self) -> tuple[str, ...]:
        """Paths of nodes that are mounted."""
        found = (one.get("path") for one in _under(self.objects, "hostPath") if isinstance(one, Mapping))
        return tuple(dict.fromkeys(str(path) for path in found if path))

    @property
    def secrets(self) -> Mapping[str, tuple[str, ...]]:
        """The secrets that were there before, and which keys of them; those of the run itself are not among them."""
        references = [one for one in _under(self.objects, "secretKeyRef") if isinstance(one, Mapping)]
        references += [one for one in _under(self.objects, "secretRef") if isinstance(one, Mapping)]
        references += [{"name": name} for name in _under(self.objects, "secretName")]
        needed = [one for one in references if not one.get("optional")]
        names = [name for name in _settled(one.get("name") for one in needed) if ("Secret", name) not in self.own]
        return {name: tuple(_settled(one.get("key") for one in needed if one.get("name") == name)) for name in names}

    @property
    def pull_secrets(self) -> tuple[str, ...]:
        """Names of the secrets for the registry of images."""
        rows = [one for several in _under(self.objects, "imagePullSecrets") for one in several]
        return tuple(_settled(one.get("name") for one in rows if isinstance(one, Mapping)))

    @property
    def service_accounts(self) -> tuple[str, ...]:
        """Names of the service accounts that pods run as."""
        return self._texts("serviceAccountName")

    @property
    def priorities(self) -> tuple[str, ...]:
        """Names of the priority classes of pods."""
        return self._texts("priorityClassName")

    @property
    def queues(self) -> tuple[str, ...]:
        """Names of the queues that the job waits in."""
        return self._labels(QUEUE_LABEL)

    @property
    def queue_priorities(self) -> tuple[str, ...]:
        """Names of the classes by which queues put jobs in order."""
        return self._labels(_QUEUE_PRIORITY)

    @property
    def stored(self) -> Stored:
        """What the job has on AWS."""
        return Stored(objects=tuple(objects_of(self.subject)), secrets=tuple(secrets_of(self.subject)))

    def _texts(self, key: str) -> tuple[str, ...]:
        return tuple(_settled(_under(self.objects, key)))

    def _labels(self, key: str) -> tuple[str, ...]:
        labels = (one.get("metadata", {}).get("labels", {}) for one in self.objects)
        return tuple(_settled(one.get(key) for one in labels))


def wanted_by(subject: Subject) -> Wanted:
    """Return what a job needs. One that cannot be planned creates nothing: what is wrong with it is said elsewhere."""
    place = subject.job.infrastructure
    assert isinstance(place, EKSJob)
    try:
        steps = plan_job(subject.job).steps
    except CloudtuneError:
        steps = ()
    created = [step for step in steps if step.service == "kubernetes" and step.operation == "create"]
    manifests = [step.parameters for step in created]
    spaces = (one.get("metadata", {}).get("namespace") for one in manifests)
    names = ((str(one.get("kind")), str(one.get("metadata", {}).get("name"))) for one in manifests)
    return Wanted(
        subject=subject,
        place=place,
        scope=next((step.region for step in created if step.region is not None), scope_of(place, place.region)),
        namespace=next(_settled(spaces), place.namespace or "default"),
        objects=tuple(one for one in manifests if one.get("kind") in RUN_NODES),
        own=frozenset(names),
    )


def _parts(manifest: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (how many, the part of an object that describes them) of nodes that are alike."""
    spec = manifest.get("spec", {})
    if manifest.get("kind") == "PyTorchJob":
        for replica in spec.get("pytorchReplicaSpecs", {}).values():
            yield _whole(replica.get("replicas")), replica
    elif manifest.get("kind") == "JobSet":
        for job in spec.get("replicatedJobs", ()):
            inner = job.get("template", {}).get("spec", {})
            yield _whole(job.get("replicas")) * _whole(inner.get("parallelism")), job
    elif manifest.get("kind") == "TrainJob":
        yield _whole(spec.get("trainer", {}).get("numNodes")), spec
    else:
        yield _whole(spec.get("parallelism", spec.get("completions"))), spec


def _whole(number: object) -> int:
    return number if isinstance(number, int) else 1


def _groups(manifest: Mapping[str, Any]) -> list[Nodes]:
    """Return the nodes of an object; a master and its workers are alike, parts of a JobSet may follow each other."""
    groups = [_nodes(part, count) for count, part in _parts(manifest)]
    if manifest.get("kind") == "PyTorchJob" and all(one.kind == groups[0].kind for one in groups):
        return [attrs.evolve(groups[0], count=sum(one.count for one in groups))]
    return groups


def _nodes(part: Mapping[str, Any], count: int) -> Nodes:
    pods = list(_pods(part))
    containers = [one for pod in pods for one in pod.get("containers", ())]
    asked = [one.get("resources", {}) for one in containers if isinstance(one, Mapping)]
    asked += [one for one in _under(part, "resourcesPerNode") if isinstance(one, Mapping)]
    # what has a limit and no request is asked for all the same
    each = [{**(one.get("limits") or {}), **(one.get("requests") or {})} for one in asked]
    selector = {key: str(text) for pod in pods for key, text in (pod.get("nodeSelector") or {}).items()}
    tolerations = tuple(one for pod in pods for one in pod.get("tolerations") or ())
    return Nodes(count=count, takes=total(each), selector=selector, tolerations=tolerations)


def _pods(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping that is a pod's spec, or a part of one."""
    if isinstance(value, Mapping):
        if _OF_PODS & set(value):
            yield value
        for one in value.values():
            yield from _pods(one)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from _pods(one)


def _under(value: object, key: str) -> list[Any]:
    """Return what stands under a key, wherever it is."""
    if isinstance(value, Mapping):
        mine = [value[key]] if key in value else []
        return [*mine, *(found for one in value.values() for found in _under(one, key))]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [found for one in value for found in _under(one, key)]
    return []


def _settled(names: Any) -> Iterator[str]:
    """Yield names once, without those that are still to be filled in."""
    yield from dict.fromkeys(name for name in names if isinstance(name, str) and name and not _OPEN.search(name))
