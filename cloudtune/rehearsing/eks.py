"""A cluster of EKS for a rehearsal: its stand-in with AWS's around it, and what the spec takes for granted in both.

Pods reach S3 as those of a real cluster do whose account has a role; the nodes that the spec names are there, and so
are claims, secrets, queues and accounts that its pods refer to.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudtune.errors import UsageError
from cloudtune.order import environment_of
from cloudtune.rehearsal.aws.clusters import Clusters
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.kubernetes.surroundings import Surroundings as Around
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.nodes import Place, hub_models
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsal.state import Change
from cloudtune.rehearsing.clouds import Left, Surroundings
from cloudtune.rehearsing.sagemaker import Aws
from cloudtune.spec.eks import EKSJob

_QUEUE = "kueue.x-k8s.io/queue-name"
_TYPE = "node.kubernetes.io/instance-type"
#: Instance types for pods that name none, by what they ask for.
_USUAL = {"nvidia.com/gpu": "p5.48xlarge", "aws.amazon.com/neuron": "trn1.32xlarge", "": "m5.24xlarge"}
_CLAIM = re.compile(r"pvc://(?P<namespace>[^/]+)/(?P<claim>[^/]+)/(?P<path>.+)", re.DOTALL)
#: Account, region, repository and tag of an image.
_IMAGE = re.compile(r'(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^:@\s"]+)(?::([\w.-]+))?')
#: What a queue has of everything.
_PLENTY = 100_000
#: Labels that nodes have of themselves.
_OWN_LABELS = re.compile(r"(?:.*\.)?kubernetes\.io/.*|sagemaker\.amazonaws\.com/.*")


class Eks:
    """The stand-in of a cluster, and of AWS beside it; see :class:`cloudtune.rehearsing.clouds.StandIn`."""

    name = "EKS"

    def __init__(self, ground: Stage, identity: Identity, around: Surroundings) -> None:
        self._aws = Aws(ground, identity, around)
        places = [job.infrastructure for job in around.jobs if isinstance(job.infrastructure, EKSJob)]
        named = {(one.region or self._aws.region, one.cluster) for one in places if one.cluster and not one.context}
        if len(named) > 1:
            names = ", ".join(sorted(name for _, name in named))
            hint = "rehearse the steps of one cluster at a time"
            raise UsageError(f"a rehearsal has one cluster, and this names {len(named)}: {names}", hint=hint)
        region, name = next(iter(named), (self._aws.region, "rehearsed"))
        hub, models = _hub(around)
        pods = Around(
            variables={"AWS_REGION": region, "AWS_DEFAULT_REGION": region, **hub},
            identity=self._keys,
            places=models,
            tells=True,
            outside_names=around.online,
        )
        # what a job has of time is this machine's, however much the cluster's own waits are shortened
        timing = Timing(second_s=ground.clock.speed)
        api = next((one.trainer_api for one in places if one.trainer_api), "v2.2")
        self._cluster = Cluster(ground, identity, name=name, region=region, timing=timing, around=pods, trainer_api=api)
        self._aws.cloud.part(Clusters).add(self._cluster)
        for context in sorted({one.context for one in places if one.context}):
            self._cluster.add_context(context)
        self.url = self._cluster.url
        furnish(self._cluster, identity, around.manifests)
        images = {match for text in around.texts for match in _IMAGE.findall(text)}
        for account, where, repository, tag in sorted(images):
            self._aws.push_image(account, where, repository, tag or "latest")

    def _keys(self, pod: Object) -> Mapping[str, str]:
        """Return by which variables a pod finds the keys of its account's role."""
        account = pod["spec"].get("serviceAccountName") or "default"
        role = f"arn:aws:iam::{self._aws.cloud.account}:role/{pod['metadata']['namespace']}-{account}"
        return self._aws.cloud.role_environment(role, pod["metadata"]["name"][:64], owner=pod["metadata"]["uid"])

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which clients find both."""
        return {**self._aws.environment, **self._cluster.environment()}

    def state(self, change: Change) -> tuple[str, str, str] | None:
        """Return what has changed, if it is something that people follow; of pods the run's own lines tell."""
        return self._aws.state(change)

    def left(self) -> Iterable[Left]:
        """Return the objects in all buckets, and the files on claims."""
        yield from self._aws.left()
        for claim in self._cluster.objects.list("PersistentVolumeClaim"):
            namespace, name = claim["metadata"]["namespace"], claim["metadata"]["name"]
            folder = self._folder(namespace, name)
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    below = path.relative_to(folder).as_posix()
                    yield Left(uri=f"pvc://{namespace}/{name}/{below}", bytes=path.stat().st_size)

    def fetch(self, uri: str, target: Path) -> None:
        """Copy one of them."""
        found = _CLAIM.fullmatch(uri)
        if found is None:
            self._aws.fetch(uri, target)
            return
        source = self._folder(found["namespace"], found["claim"]) / found["path"]
        if not source.is_file():
            raise UsageError(f"there is nothing at {uri}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

    def place(self, uri: str) -> Path | None:
        """Return where something on a claim lies; clients reach all other places."""
        if not uri.startswith("pvc://"):
            return None
        found = _CLAIM.fullmatch(uri)
        if found is None:
            hint = "write --put pvc://NAMESPACE/CLAIM/PATH=FOLDER"
            raise UsageError(f"{uri} names no namespace, claim and path in it", hint=hint)
        if self._cluster.objects.get("PersistentVolumeClaim", found["namespace"], found["claim"]) is None:
            hint = "write --put pvc://NAMESPACE/CLAIM/PATH=FOLDER, of a claim that a volume of the spec names"
            raise UsageError(f"no pod of this uses the claim {found['claim']} in {found['namespace']}", hint=hint)
        place = self._folder(found["namespace"], found["claim"]) / found["path"]
        if ".." in found["path"].split("/"):
            raise UsageError(f"{uri} leads out of its claim", hint="write a path without ..")
        return place

    def _folder(self, namespace: str, claim: str) -> Path:
        return self._cluster.control.kubelet.folders.claim(namespace, claim)


def _hub(around: Surroundings) -> tuple[dict[str, str], dict[str, Place]]:
    """Return by which variables and places pods find the user's models of the Hub: there where their jobs look."""
    variables, places = hub_models(around.hub_cache, {})
    for job in around.jobs:
        if job.runtime is not None and isinstance(job.infrastructure, EKSJob):
            places |= hub_models(around.hub_cache, environment_of(job.runtime)[0])[1]
    return variables, places


def furnish(cluster: Cluster, identity: Identity, manifests: Iterable[Mapping[str, Any]]) -> None:
    """Make what manifests refer to and do not bring along: nodes, namespaces, claims, secrets, queues, accounts."""
    manifests = tuple(manifests)
    own = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    machines: dict[str, tuple[int, dict[str, str]]] = {}
    for one in manifests:
        namespace = one["metadata"].get("namespace", "default")
        _have(cluster, "v1", "Namespace", "", namespace)
        queue = (one["metadata"].get("labels") or {}).get(_QUEUE)
        if queue:
            _open_queue(cluster, namespace, queue)
        for pod, count in _pods(one):
            kind, labels = _machine(pod)
            before = machines.get(kind, (0, {}))
            machines[kind] = (max(before[0], count), {**before[1], **labels})
            for api, what, name, rest in _referred(pod, identity):
                if (what, name) not in own:
                    _have(cluster, api, what, "" if what == "PriorityClass" else namespace, name, **rest)
    for kind, (count, labels) in machines.items():
        cluster.control.add_nodes(kind, count, labels=labels)


def _pods(manifest: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yield the specifications of the pods of a job, with how many there are of each at a time."""
    spec = manifest.get("spec") or {}
    if manifest["kind"] == "Job":
        yield spec["template"]["spec"], spec.get("parallelism", 1)
    elif manifest["kind"] == "PyTorchJob":
        rows = spec["pytorchReplicaSpecs"].values()
        total = sum(row.get("replicas", 1) for row in rows)
        yield from ((row["template"]["spec"], total) for row in rows)
    elif manifest["kind"] == "JobSet":
        for row in spec["replicatedJobs"]:
            inner = row["template"]["spec"]
            yield inner["template"]["spec"], row.get("replicas", 1) * inner.get("parallelism", 1)
    elif manifest["kind"] == "TrainJob":
        trainer = spec.get("trainer") or {}
        container = {"name": "node", "env": trainer.get("env"), "resources": trainer.get("resourcesPerNode")}
        for pod in _changed_pods(spec):
            yield {**pod, "containers": [container, *(pod.get("containers") or ())]}, trainer.get("numNodes", 1)


def _changed_pods(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what a TrainJob says of its pods beside its trainer, in the words of any version."""
    found: list[Mapping[str, Any]] = [*(spec.get("podSpecOverrides") or ())]
    found += [one.get("spec") or {} for one in spec.get("podTemplateOverrides") or ()]
    for patch in spec.get("runtimePatches") or ():
        inner = ((patch.get("trainingRuntimeSpec") or {}).get("template") or {}).get("spec") or {}
        for row in inner.get("replicatedJobs") or ():
            job = (row.get("template") or {}).get("spec") or {}
            found.append((job.get("template") or {}).get("spec") or {})
    yield from found or ({},)


def _machine(pod: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the instance type that a pod wants, and the labels that its node must have besides."""
    selector = dict(pod.get("nodeSelector") or {})
    asked = {
        name
        for container in pod.get("containers") or ()
        for name in ((container.get("resources") or {}).get("limits") or {})
    }
    usual = next((kind for name, kind in _USUAL.items() if name in asked), _USUAL[""])
    kind = selector.pop(_TYPE, usual)
    return kind, {name: value for name, value in selector.items() if not _OWN_LABELS.fullmatch(name)}


def _referred(pod: Mapping[str, Any], identity: Identity) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield what a pod refers to: version, kind, name, and what else it needs to be."""
    for volume in pod.get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim:
            size = {"requests": {"storage": "1200Gi"}}
            yield "v1", "PersistentVolumeClaim", claim, {"spec": {"accessModes": ["ReadWriteMany"], "resources": size}}
    secrets: dict[str, set[str]] = {}
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        for variable in container.get("env") or ():
            ref = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if ref:
                secrets.setdefault(ref["name"], set()).add(ref["key"])
    for name, keys in secrets.items():
        yield "v1", "Secret", name, {"stringData": {key: identity.secret(f"{name}/{key}") for key in sorted(keys)}}
    for row in pod.get("imagePullSecrets") or ():
        data = {".dockerconfigjson": json.dumps({"auths": {}})}
        yield "v1", "Secret", row["name"], {"type": "kubernetes.io/dockerconfigjson", "stringData": data}
    if pod.get("serviceAccountName"):
        yield "v1", "ServiceAccount", pod["serviceAccountName"], {}
    if pod.get("priorityClassName"):
        yield "scheduling.k8s.io/v1", "PriorityClass", pod["priorityClassName"], {"value": 1000}


def _open_queue(cluster: Cluster, namespace: str, name: str) -> None:
    """Make a queue with room for everything."""
    api, everything = "kueue.x-k8s.io/v1beta2", ("cpu", "memory", *(kind for kind in _USUAL if kind))
    _have(cluster, api, "ResourceFlavor", "", "rehearsed", spec={})
    rows = [{"name": resource, "nominalQuota": f"{_PLENTY}Gi"} for resource in everything]
    group = {"coveredResources": list(everything), "flavors": [{"name": "rehearsed", "resources": rows}]}
    _have(cluster, api, "ClusterQueue", "", "rehearsed", spec={"namespaceSelector": {}, "resourceGroups": [group]})
    _have(cluster, api, "LocalQueue", namespace, name, spec={"clusterQueue": "rehearsed"})


def _have(cluster: Cluster, api: str, kind: str, namespace: str, name: str, **rest: Any) -> None:
    """Make an object, unless it is there."""
    if cluster.objects.get(kind, namespace or None, name) is None:
        meta = {"name": name, **({"namespace": namespace} if namespace else {})}
        cluster.objects.create({"apiVersion": api, "kind": kind, "metadata": meta, **rest})


def begin(ground: Stage, identity: Identity, around: Surroundings) -> Eks:
    """Begin the stand-ins."""
    return Eks(ground, identity, around)
