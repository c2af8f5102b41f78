"""The pods of a Job: how they are made of its template, and what its failure policy says of one that has failed.

Source: the Job controller of Kubernetes 1.35 and the API reference of ``batch/v1``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from cloudtune.rehearsal.kubernetes.conditions import condition
from cloudtune.rehearsal.kubernetes.loop import owner_reference
from cloudtune.rehearsal.kubernetes.objects import Object, suffix

INDEX = "batch.kubernetes.io/job-completion-index"
_INDEX_FIELD = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{INDEX}']"}}
_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"

Action = Literal["FailJob", "FailIndex", "Ignore", "Count"]


@attrs.frozen(kw_only=True)
class Judgement:
    """What a failed pod means; ``message`` says by which rule."""

    action: Action = "Count"
    message: str = ""


def is_indexed(job: Object) -> bool:
    """Whether every pod of a Job has a number."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def index_of(pod: Object) -> int | None:
    """Return the number of a pod, None for one without."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX)
    return int(text) if text is not None and str(text).isdigit() else None


def labels_of(job: Object) -> dict[str, str]:
    """Return the labels by which a Job's pods are found."""
    meta = job["metadata"]
    return {
        "batch.kubernetes.io/controller-uid": meta["uid"],
        "batch.kubernetes.io/job-name": meta["name"],
        "controller-uid": meta["uid"],
        "job-name": meta["name"],
    }


def pod_of(job: Object, index: int | None, *, failures: int = 0) -> dict[str, Any]:
    """Return the manifest of a Job's next pod."""
    template = copy.deepcopy(job["spec"]["template"])
    given, spec = template.get("metadata") or {}, template["spec"]
    meta: dict[str, Any] = {
        "namespace": job["metadata"]["namespace"],
        "labels": {**(given.get("labels") or {}), **labels_of(job)},
        "annotations": dict(given.get("annotations") or {}),
        "ownerReferences": [owner_reference(job)],
    }
    base = job["metadata"]["name"]
    if index is None:
        meta["generateName"] = f"{base}-"
        meta["name"] = f"{base}-{suffix()}"
    else:
        meta["generateName"] = f"{base}-{index}-"
        meta["name"] = f"{base}-{index}-{suffix()}"
        meta["labels"][INDEX] = meta["annotations"][INDEX] = str(index)
        if job["spec"].get("backoffLimitPerIndex") is not None:
            meta["annotations"]["batch.kubernetes.io/job-index-failure-count"] = str(failures)
        spec["hostname"] = f"{base}-{index}"[:63]
        for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
            names = [one["name"] for one in container.get("env") or ()]
            if _INDEX_VARIABLE not in names:
                variable = {"name": _INDEX_VARIABLE, "valueFrom": copy.deepcopy(_INDEX_FIELD)}
                container["env"] = [*(container.get("env") or ()), variable]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def judged(job: Object, pod: Object) -> Judgement:
    """Return what a failed pod means for its Job."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        words = _by_code(pod, rule.get("onExitCodes"), rule["action"], number) or _by_condition(
            pod, rule.get("onPodConditions") or (), rule["action"], number
        )
        if words:
            return Judgement(action=rule["action"], message=words)
    return Judgement()


def _by_code(pod: Object, wanted: Mapping[str, Any] | None, action: str, number: int) -> str:
    if wanted is None:
        return ""
    status = pod.get("status", {})
    rows = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for row in rows:
        ended = (row.get("state") or {}).get("terminated")
        code = int(ended["exitCode"]) if ended else 0
        if not code or wanted.get("containerName") not in (None, row["name"]):
            continue
        if (code in wanted["values"]) is (wanted["operator"] == "In"):
            place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return (
                f"Container {row['name']} for pod {place} failed with exit code {code} "
                f"matching {action} rule at index {number}"
            )
    return ""


def _by_condition(pod: Object, wanted: Iterable[Mapping[str, Any]], action: str, number: int) -> str:
    for row in wanted:
        found = condition(pod, row["type"])
        if found is not None and found["status"] == row.get("status", "True"):
            place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return f"Pod {place} has condition {row['type']} matching {action} rule at index {number}"
    return ""


def intervals(numbers: Iterable[int]) -> str:
    """Return numbers as a Job's status shows them.

    >>> intervals({0, 1, 2, 5, 7, 8})
    '0-2,5,7,8'
    """
    rows: list[list[int]] = []
    for number in sorted(set(numbers)):
        if rows and rows[-1][-1] == number - 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return ",".join(_interval(row) for row in rows)


def _interval(row: list[int]) -> str:
    return f"{row[0]}-{row[-1]}" if len(row) > 2 else ",".join(map(str, row))


def numbers_of(text: str) -> set[int]:
    """Return what :func:`intervals` has written.

    >>> sorted(numbers_of("0-2,5"))
    [0, 1, 2, 5]
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
