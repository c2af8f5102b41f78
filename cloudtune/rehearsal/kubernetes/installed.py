"""What a rehearsed cluster has from its beginning: namespaces, and the operators with the kinds that they bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes.fields import fields_of, type_of
from cloudtune.rehearsal.kubernetes.kinds import Kind, Kinds
from cloudtune.rehearsal.kubernetes.objects import Objects, moment

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
#: Where each operator runs, and its deployment's name.
_DEPLOYMENTS: Mapping[str, tuple[str, str]] = {
    "jobset": ("jobset-system", "jobset-controller-manager"),
    "kueue": ("kueue-system", "kueue-controller-manager"),
    "trainer": ("kubeflow-system", "kubeflow-trainer-controller-manager"),
    "training-operator": ("kubeflow", "training-operator"),
}
#: The type of TrainJobs by the version of the trainer's API.
TRAIN_JOBS: Mapping[str, str] = {"v2.0": "TrainJobV20", "v2.1": "TrainJobV21", "v2.2": "TrainJob", "v2.3": "TrainJob"}
_RUNTIME_IMAGE = "pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime"
#: How deep a schema is told; what is below keeps unknown fields.
_DEPTH = 6
_PLAIN: Mapping[str, Mapping[str, Any]] = {
    "s": {"type": "string"},
    "i": {"type": "integer"},
    "b": {"type": "boolean"},
    "n": {"type": "number"},
    "t": {"type": "string", "format": "date-time"},
    "x": {"x-kubernetes-int-or-string": True},
    "q": {"x-kubernetes-int-or-string": True},
}


def install(objects: Objects, kinds: Kinds, *, trainer_api: str) -> None:
    """Make what there is at the beginning."""
    for name in NAMESPACES:
        _make(objects, "v1", "Namespace", name)
    for operator in kinds.operators:
        namespace, name = _DEPLOYMENTS[operator]
        if objects.get("Namespace", None, namespace) is None:
            _make(objects, "v1", "Namespace", namespace)
        _make_deployment(objects, namespace, name)
    for kind in kinds.all:
        if kind.operator:
            manifest = definition(kind, trainer_api=trainer_api)
            names = manifest["spec"]["names"]
            status = {"acceptedNames": names, "storedVersions": [kind.version], "conditions": list(_conditions())}
            objects.create(manifest, status=status)
    if "trainer" in kinds.operators:
        objects.create(_torch_runtime())


def definition(kind: Kind, *, trainer_api: str) -> dict[str, Any]:
    """Return the definition of a kind that an operator brings."""
    named = TRAIN_JOBS[trainer_api] if kind.kind == "TrainJob" else type_of(kind.kind)
    names = {"kind": kind.kind, "listKind": f"{kind.kind}List", "plural": kind.plural, "singular": kind.kind.lower()}
    versions = [
        {
            "name": version,
            "served": True,
            "storage": version == kind.version,
            "schema": {"openAPIV3Schema": _schema(named, _DEPTH)},
            **({"subresources": {"status": {}}} if kind.status else {}),
        }
        for version in kind.versions
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.key, "labels": {"app.kubernetes.io/name": kind.operator}},
        "spec": {
            "group": kind.group,
            "names": {**names, **({"shortNames": list(kind.short)} if kind.short else {})},
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": versions,
        },
    }


def _schema(told: str, depth: int) -> dict[str, Any]:
    word, _, allowed = told.removesuffix("!").partition(":")
    if word in _PLAIN:
        return {**_PLAIN[word], **({"enum": allowed.split("|")} if allowed else {})}
    if word.startswith("["):
        return {"type": "array", "items": _schema(word[1:-1], depth)}
    if word.startswith("{"):
        return {"type": "object", "additionalProperties": _schema(word[1:-1], depth)}
    fields = fields_of(word)
    if word == "ObjectMeta":
        return {"type": "object"}
    if not fields or not depth or word == "PodTemplateSpec":
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    required = [name for name, one in fields.items() if one.endswith("!")]
    properties = {name: _schema(one, depth - 1) for name, one in fields.items()}
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _conditions() -> Iterator[dict[str, str]]:
    for word, reason in (("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted")):
        yield {"type": word, "status": "True", "reason": reason, "lastTransitionTime": moment()}


def _make(objects: Objects, api_version: str, kind: str, name: str) -> None:
    objects.create({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})


def _make_deployment(objects: Objects, namespace: str, name: str) -> None:
    labels = {"app.kubernetes.io/name": name}
    container = {"name": "manager", "image": f"rehearsed/{name}"}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    available = {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
    status = {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "conditions": [available]}
    objects.create(manifest, status=status)


def _torch_runtime() -> dict[str, Any]:
    """Return the runtime that the trainer installs for PyTorch."""
    job = {
        "name": "node",
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            "spec": {"template": {"spec": {"containers": [{"name": "node", "image": _RUNTIME_IMAGE}]}}},
        },
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {"mlPolicy": {"numNodes": 1, "torch": {}}, "template": {"spec": {"replicatedJobs": [job]}}},
    }
