"""A job's objects in the words of the Kubernetes API, as far as all kinds of jobs share them.

Facts are those of the API's own schemas (1.35) and of its documentation: names, labels, how ``$(NAME)`` is expanded.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from cloudtune.backends.eks_objects import Kind
from cloudtune.plan import Ref
from cloudtune.spec.eks import EKSJob
from cloudtune.spec.eks_limits import is_label_value

#: The training operator insists on this name of a container; Trainer's runtimes call theirs ``node``.
CONTAINER, TRAINER_CONTAINER = "pytorch", "node"
#: What every object of a run carries.
RUN_LABEL = "cloudtune.dev/run-id"
MANAGED = {"app.kubernetes.io/managed-by": "cloudtune"}
#: What the job's name and tags of the spec are kept under, where labels could not hold them.
NAME_NOTE, TAGS_NOTE = "cloudtune.dev/name", "cloudtune.dev/tags"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
#: Where the agent lies in a pod, and where it works.
OWN, WORK = "/opt/cloudtune", "/tmp/cloudtune"  # noqa: S108 - a container has it for itself
#: What a ConfigMap holds at most, in bytes.
CONFIG_MAP_BYTES = 1 << 20
#: The longest name that leaves room for what controllers append to it: ``-node-0-00000-xxxxx`` within 63 characters.
_NAME_LENGTH = 40


def scope_of(place: EKSJob, region: str | None) -> str:
    """Return which cluster a call goes to, as one text; empty for the one that kubeconfig chooses.

    >>> scope_of(EKSJob(cluster="training"), "us-west-2")
    'eks:us-west-2/training'
    """
    if place.context:
        return f"context:{place.context}"
    return f"eks:{region or ''}/{place.cluster}" if place.cluster else ""


def object_name(name: str, run_id: str, *, most: int = _NAME_LENGTH) -> str:
    """Return the name of a run's objects: lower-case letters, digits and hyphens, a letter first.

    >>> object_name("My job: first", "abcdefgh")
    'my-job-first-abcdefgh'
    """
    tail = plain_name(run_id)
    if tail != run_id or len(tail) > most - 10:
        # what was changed may now be like another's
        tail = f"{tail[: most - 20].strip('-')}-{_digest(run_id)}".lstrip("-")
    head = plain_name(name)[: most - 2 - len(tail)].rstrip("-")
    text = f"{head}-{tail}" if head else tail
    return text if text[0].isalpha() else f"j{text}"


def plain_name(text: str) -> str:
    """Return a text as the name of an object may hold it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def run_label(run_id: str) -> str:
    """Return the value of the label by which the objects of a run are found: its id, unless no label may hold that."""
    return run_id if is_label_value(run_id) else f"{plain_name(run_id)[:40]}-{_digest(run_id)}".lstrip("-")


def literal(text: str) -> str:
    """Return a text as it stands in a pod's command or variables: there ``$(NAME)`` and ``$$`` mean something.

    >>> literal("$HOME costs $(price)")
    '$$HOME costs $$(price)'
    """
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text


def said(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details without those that say nothing: null, and empty lists and mappings."""
    return {key: value for key, value in details.items() if value is not None and value not in ({}, [])}


def manifest(
    kind: tuple[str, str], name: str, namespace: str, labels: Mapping[str, str], **rest: Any
) -> dict[str, Any]:
    """Return an object; ``annotations`` and ``owner`` among the rest belong to its metadata."""
    api, word = kind
    owner = rest.pop("owner", None)
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": dict(labels),
        "annotations": dict(rest.pop("annotations", {})),
        "ownerReferences": [owner] if owner else [],
    }
    return {"apiVersion": api, "kind": word, "metadata": said(metadata), **said(rest)}


def owner_of(kind: Kind, name: str) -> dict[str, Any]:
    """Return the reference to the job in what it owns: Kubernetes removes that together with the job."""
    return {"apiVersion": kind.api_version, "kind": kind.kind, "name": name, "uid": Ref("job", "metadata.uid")}


def _digest(text: str) -> str:
    return f"{zlib.crc32(text.encode(errors='surrogatepass')):08x}"
