"""The names by which pods find each other, as the cluster's DNS has them, kept in the ``/etc/hosts`` of all that run.

A pod's address belongs to its name, so that one that takes its place has it too; in a real cluster the name moves to a
new address. A name that a running pod has learnt stays known to it.

Source: "DNS for Services and Pods" of the documentation of Kubernetes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cloudtune.rehearsal.addresses import Addresses
from cloudtune.rehearsal.kubernetes.conditions import holds
from cloudtune.rehearsal.kubernetes.loop import Key
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects

DOMAIN = "svc.cluster.local"
_OVER = ("Succeeded", "Failed")


def hostname(pod: Object) -> str:
    """Return the name that a pod has for itself."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def full_name(pod: Object) -> str | None:
    """Return the name below which other pods may find it, None for a pod without a subdomain."""
    subdomain = pod["spec"].get("subdomain")
    return f"{hostname(pod)}.{subdomain}.{pod['metadata']['namespace']}.{DOMAIN}" if subdomain else None


def records(services: Iterable[Object], pods: Iterable[Object]) -> dict[str, str]:
    """Return the addresses by full names: of services, and of pods that a headless service publishes by name."""
    found: dict[str, str] = {}
    pods = [pod for pod in pods if pod.get("status", {}).get("podIP") and pod["status"].get("phase") not in _OVER]
    for service in services:
        meta, spec = service["metadata"], service.get("spec", {})
        name = f"{meta['name']}.{meta['namespace']}.{DOMAIN}"
        for pod in pods:
            if not _is_behind(pod, service) or not (spec.get("publishNotReadyAddresses") or holds(pod, "Ready")):
                continue
            found.setdefault(name, pod["status"]["podIP"])
            if spec.get("clusterIP") == "None" and pod["spec"].get("subdomain") == meta["name"]:
                found[full_name(pod) or ""] = pod["status"]["podIP"]
    return found


def seen_from(namespace: str, full: Mapping[str, str]) -> dict[str, str]:
    """Return names as a pod of a namespace may write them: in full, and cut as its search list allows."""
    found: dict[str, str] = {}
    for name, address in full.items():
        short = name.removesuffix(f".{DOMAIN}")
        found |= dict.fromkeys((name, f"{short}.svc", short), address)
        if short.endswith(f".{namespace}"):
            found[short.removesuffix(f".{namespace}")] = address
    return found


def _is_behind(pod: Object, service: Object) -> bool:
    selector = service.get("spec", {}).get("selector") or {}
    labels = pod["metadata"].get("labels") or {}
    same = pod["metadata"]["namespace"] == service["metadata"]["namespace"]
    return same and bool(selector) and selector.items() <= labels.items()


class Names:
    """The DNS of a cluster: a controller of services that tells running pods of each other."""

    kind = "Service"

    def __init__(self, objects: Objects, addresses: Addresses) -> None:
        self._objects = objects
        self._addresses = addresses
        self._lock = threading.Lock()
        self._by_name: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self._files: dict[Path, tuple[str, dict[str, str]]] = {}

    def address_of(self, pod: Object) -> str:
        """Return a pod's address: always the same for the same name."""
        name = full_name(pod) or str(pod["metadata"]["uid"])
        with self._lock:
            if name not in self._by_name:
                (self._by_name[name],) = self._addresses.take(1)
            return self._by_name[name]

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return one key for everything: names are worked out all at once."""
        return [("", "")] if change.kind in ("Service", "Pod") else []

    def sync(self, namespace: str, name: str) -> float | None:
        """Tell the pods that run what has got a name."""
        known = records(self._objects.list("Service"), self._objects.list("Pod"))
        with self._lock:
            self._known = known
            for file, (where, told) in self._files.items():
                _tell(file, told, seen_from(where, known))
        return None

    def joined(self, namespace: str, own: Mapping[str, str], start: Callable[[Mapping[str, str]], Path]) -> Path:
        """Start something with its own names and those that there are by now; later ones are written to its file."""
        with self._lock:
            told = {**seen_from(namespace, self._known), **own}
        file = start(told)
        with self._lock:
            self._files[file] = (namespace, dict(told))
            _tell(file, self._files[file][1], seen_from(namespace, self._known))
        return file

    def leave(self, file: Path) -> None:
        """Tell it no more."""
        with self._lock:
            self._files.pop(file, None)


def _tell(file: Path, told: dict[str, str], names: Mapping[str, str]) -> None:
    """Add lines in one piece: whoever reads the file meanwhile sees all of a line or nothing."""
    new = {name: address for name, address in names.items() if name not in told}
    if not new:
        return
    text = "".join(f"{address}\t{name}\n" for name, address in new.items())
    with contextlib.suppress(OSError):  # the pod has just ended
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    told.update(new)
