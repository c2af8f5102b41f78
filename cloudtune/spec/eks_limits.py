"""What a job on a cluster cannot be: names, labels and quantities that the Kubernetes API refuses, and contradictions.

The rules are those of ``k8s.io/apimachinery`` (validation of names and labels, ``resource.Quantity``), as its
documentation gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudtune.spec.eks import EKSJob

Finding = tuple[tuple["str | int", ...], str, "str | None"]

_LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_QUANTITY = re.compile(r"(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
#: Minor versions of the TrainJob API that differ in what a job may change of its runtime.
TRAINER_APIS = ("v2.0", "v2.1", "v2.2", "v2.3")
_SUBDOMAINS = ("service_account", "priority_class", "queue")
_RESOURCES = ("requests", "limits", "claims")


def is_label_value(text: str) -> bool:
    """Whether a text can be the value of a label."""
    return _LABEL_VALUE.fullmatch(text) is not None


def is_quantity(value: Any) -> bool:
    """Whether a value can be an amount of a resource: ``64Gi``, ``500m``, 8."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value >= 0
    return isinstance(value, str) and _QUANTITY.fullmatch(value) is not None


def is_key(text: str) -> bool:
    """Whether a text can be the key of a label or an annotation, or the name of a resource: ``[DOMAIN/]NAME``."""
    domain, slash, name = text.rpartition("/")
    if slash and (len(domain) > 253 or not _SUBDOMAIN.fullmatch(domain)):
        return False
    return _QUALIFIED.fullmatch(name) is not None


def of_cluster_job(place: EKSJob) -> Iterator[Finding]:
    """Check everything that the API would refuse by its form; text in angle brackets is a placeholder."""
    yield from _names(place)
    yield from _volumes(place)
    yield from _quantities(place)
    yield from _labels(place)
    yield from _tolerations(place.tolerations)
    api = place.trainer_api
    if api and not _open(api) and api not in TRAINER_APIS:
        hint = f"one of {', '.join(TRAINER_APIS)}"
        yield ("trainerApi",), f"{api!r} is no version of the TrainJob API that is known here", hint


def _open(text: str) -> bool:
    return text.startswith("<")


def _names(place: EKSJob) -> Iterator[Finding]:
    hint = "lower-case letters, digits and hyphens"
    if place.namespace and not _open(place.namespace) and not _LABEL_NAME.fullmatch(place.namespace):
        yield ("namespace",), f"{place.namespace!r} cannot be the name of a namespace", hint
    words = {"service_account": "serviceAccount", "priority_class": "priorityClass", "queue": "queue"}
    for attribute in _SUBDOMAINS:
        text: str | None = getattr(place, attribute)
        if text and not _is_name(text):
            yield (words[attribute],), f"{text!r} cannot be the name of an object of Kubernetes", hint
    for index, name in enumerate(place.image_pull_secrets):
        if not _is_name(name):
            yield ("imagePullSecrets", index), f"{name!r} cannot be the name of a secret", hint


def _is_name(text: str) -> bool:
    return _open(text) or (len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None)


def _volumes(place: EKSJob) -> Iterator[Finding]:
    paths: set[str] = set()
    for index, volume in enumerate(place.volumes):
        sources = [word for word in ("claim", "host_path", "empty_dir") if getattr(volume, word) is not None]
        if len(sources) != 1:
            message = "a volume is exactly one of claim, hostPath and emptyDir"
            yield ("volumes", index), f"{message}; this is {'none' if not sources else len(sources)} of them", None
        if volume.mount_path and not volume.mount_path.startswith(("/", "<")):
            yield ("volumes", index, "mountPath"), f"{volume.mount_path!r} is no absolute path", None
        elif ":" in volume.mount_path:
            yield ("volumes", index, "mountPath"), "Kubernetes takes no colon in the path of a volume", None
        path = volume.mount_path.rstrip("/")
        if path and path in paths:
            yield ("volumes", index, "mountPath"), f"the path {path!r} is taken already", None
        paths.add(path)
        yield from _source(index, volume)


def _source(index: int, volume: Any) -> Iterator[Finding]:
    if volume.claim is not None and not _is_name(volume.claim):
        message = f"{volume.claim!r} cannot be the name of a claim"
        yield ("volumes", index, "claim"), message, "lower-case letters, digits and hyphens"
    if volume.host_path is not None and not volume.host_path.startswith(("/", "<")):
        yield ("volumes", index, "hostPath"), f"{volume.host_path!r} is no absolute path", None
    if volume.empty_dir is not None and not _open(volume.empty_dir) and not is_quantity(volume.empty_dir):
        yield ("volumes", index, "emptyDir"), f"{volume.empty_dir!r} is no size", "for example 64Gi"
    inner = volume.sub_path
    if inner and not _open(inner) and (inner.startswith("/") or ".." in inner.split("/")):
        yield ("volumes", index, "subPath"), f"{inner!r} leads out of the volume", "a path relative to the volume"


def _quantities(place: EKSJob) -> Iterator[Finding]:
    shared = place.shared_memory
    if shared and not _open(shared) and not is_quantity(shared):
        yield ("sharedMemory",), f"{shared!r} is no size", "for example 64Gi"
    for word, amounts in place.resources.items():
        if word not in _RESOURCES:
            hint = "write requests: {cpu: 8, memory: 64Gi}, or limits:"
            yield ("resources", word), f"{word!r} is no part of a container's resources", hint
        elif word == "claims":
            continue
        elif not isinstance(amounts, Mapping):
            yield ("resources", word), f"{word} are a mapping", "for example {cpu: 8, memory: 64Gi}"
        else:
            yield from _amounts(word, amounts)


def _amounts(word: str, amounts: Mapping[str, Any]) -> Iterator[Finding]:
    for name, amount in amounts.items():
        if not is_key(name):
            yield ("resources", word, name), f"{name!r} cannot be the name of a resource", "cpu, memory, nvidia.com/gpu"
        elif amount is not None and not is_quantity(amount):
            yield ("resources", word, name), f"{amount!r} is no amount", "for example 8, 500m or 64Gi"


def _labels(place: EKSJob) -> Iterator[Finding]:
    rule = "letters, digits, -, _ and ., 63 at most, perhaps with a domain and / before them"
    for attribute, word in (("labels", "labels"), ("node_selector", "nodeSelector"), ("annotations", "annotations")):
        entries: Mapping[str, str] = getattr(place, attribute)
        for key, value in entries.items():
            if not is_key(key):
                yield (word, key), f"{key!r} cannot be the key of one of the {word}", rule
            elif word != "annotations" and not _open(value) and not is_label_value(value):
                yield (
                    (word, key),
                    f"{value!r} cannot be the value of a label",
                    "letters, digits, -, _ and ., 63 at most",
                )


_TOLERATION = {
    "key": None,
    "operator": ("Exists", "Equal", "Lt", "Gt"),
    "value": None,
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}


def _tolerations(tolerations: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    for index, toleration in enumerate(tolerations):
        for word, value in toleration.items():
            path = ("tolerations", index, word)
            if word == "tolerationSeconds":
                if not isinstance(value, int) or isinstance(value, bool):
                    yield path, "tolerationSeconds is a whole number", None
                continue
            if word not in _TOLERATION:
                hint = f"{', '.join(_TOLERATION)} and tolerationSeconds"
                yield path, f"{word!r} is no part of a toleration", hint
                continue
            choices = _TOLERATION[word]
            if not isinstance(value, str):
                yield path, f"{word} of a toleration is a text", None
            elif choices and value not in choices:
                yield path, f"{value!r} is no {word} of a toleration", f"one of {', '.join(choices)}"
            elif word == "key" and value and not is_key(value):
                yield path, f"{value!r} cannot be the key of a taint", None
        if not toleration.get("key") and toleration.get("operator", "Equal") != "Exists":
            yield ("tolerations", index), "a toleration without a key needs operator: Exists", None
