"""The Jobs of a JobSet, and its service: how they are made of its specification.

Source: the JobSet controller and its webhooks, v0.12.0 (kubernetes-sigs/jobset).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

from cloudtune.rehearsal.kubernetes.loop import owner_reference
from cloudtune.rehearsal.kubernetes.objects import Object

PREFIX = "jobset.sigs.k8s.io"
NAME = f"{PREFIX}/jobset-name"
REPLICATED = f"{PREFIX}/replicatedjob-name"
ATTEMPT = f"{PREFIX}/restart-attempt"


def subdomain_of(jobset: Object) -> str:
    """Return the name of the service by which the pods find each other."""
    return str((jobset["spec"].get("network") or {}).get("subdomain") or jobset["metadata"]["name"])


def service_of(jobset: Object) -> dict[str, Any] | None:
    """Return the headless service of a JobSet, None for one that wants no names."""
    network = jobset["spec"].get("network") or {}
    if not network.get("enableDNSHostnames", True):
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": subdomain_of(jobset),
            "namespace": jobset["metadata"]["namespace"],
            "ownerReferences": [owner_reference(jobset)],
        },
        "spec": {
            "clusterIP": "None",
            "selector": {NAME: jobset["metadata"]["name"]},
            "publishNotReadyAddresses": network.get("publishNotReadyAddresses", True),
        },
    }


def jobs_of(jobset: Object, replicated: Object, attempt: int) -> Iterator[dict[str, Any]]:
    """Yield the Jobs of one replicated job."""
    rows = jobset["spec"]["replicatedJobs"]
    before = 0
    for row in rows:
        if row["name"] == replicated["name"]:
            break
        before += row.get("replicas", 1)
    for index in range(replicated.get("replicas", 1)):
        yield _job(jobset, replicated, index, before + index, attempt)


def job_name(jobset: Object, replicated: Object, index: int) -> str:
    """Return the name of a child."""
    return f"{jobset['metadata']['name']}-{replicated['name']}-{index}"


def _job(jobset: Object, replicated: Object, index: int, overall: int, attempt: int) -> dict[str, Any]:
    template = copy.deepcopy(replicated["template"])
    given, spec = template.get("metadata") or {}, template["spec"]
    namespace, name = jobset["metadata"]["namespace"], job_name(jobset, replicated, index)
    marks = {
        NAME: jobset["metadata"]["name"],
        f"{PREFIX}/jobset-uid": jobset["metadata"]["uid"],
        REPLICATED: replicated["name"],
        f"{PREFIX}/replicatedjob-replicas": str(replicated.get("replicas", 1)),
        f"{PREFIX}/global-replicas": str(sum(row.get("replicas", 1) for row in jobset["spec"]["replicatedJobs"])),
        f"{PREFIX}/job-index": str(index),
        f"{PREFIX}/job-global-index": str(overall),
        f"{PREFIX}/job-key": hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:40],
        ATTEMPT: str(attempt),
    }
    pods = spec["template"]
    meta = pods["metadata"] = dict(pods.get("metadata") or {})
    for kind in ("labels", "annotations"):
        meta[kind] = {**(meta.get(kind) or {}), **marks}
    if service_of(jobset) is not None:
        pods["spec"].setdefault("subdomain", subdomain_of(jobset))
    pods["spec"].setdefault("restartPolicy", "OnFailure")
    spec.setdefault("completionMode", "Indexed")
    spec["suspend"] = bool(jobset["spec"].get("suspend"))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**(given.get("labels") or {}), **marks},
            "annotations": {**(given.get("annotations") or {}), **marks},
            "ownerReferences": [owner_reference(jobset)],
        },
        "spec": spec,
    }
