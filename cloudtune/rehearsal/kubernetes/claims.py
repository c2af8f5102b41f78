"""Claims of volumes: each becomes bound after a while, as if its class could provide whatever is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudtune.rehearsal.kubernetes.loop import Key, is_going, key_of
from cloudtune.rehearsal.kubernetes.objects import Change, Objects
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.stage import Stage


class Claims:
    """A controller of claims. Those of a storage class in ``unprovided`` stay pending."""

    kind = "PersistentVolumeClaim"

    def __init__(self, stage: Stage, objects: Objects, timing: Timing) -> None:
        self._clock, self._objects, self._timing = stage.clock, objects, timing
        self._seen: dict[str, float] = {}
        self.unprovided: set[str] = set()

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the claim itself."""
        return [key_of(change.object)] if change.kind == self.kind else []

    def sync(self, namespace: str, name: str) -> float | None:
        """Bind a claim that has waited for long enough."""
        claim = self._objects.get(self.kind, namespace, name)
        if claim is None or is_going(claim) or claim.get("status", {}).get("phase") == "Bound":
            return None
        if claim["spec"].get("storageClassName") in self.unprovided:
            self._objects.update_status(self.kind, namespace, name, _pending)
            return None
        now = self._clock.time_s()
        ready_s = self._seen.setdefault(claim["metadata"]["uid"], now) + self._timing.provisioning_s
        if now < ready_s:
            self._objects.update_status(self.kind, namespace, name, _pending)
            return ready_s - now
        volume = f"pvc-{claim['metadata']['uid']}"

        def onto(thing: dict[str, Any]) -> None:
            thing["spec"]["volumeName"] = volume

        def bind(thing: dict[str, Any]) -> None:
            size = (thing["spec"].get("resources") or {}).get("requests") or {}
            thing["status"] = {
                "phase": "Bound",
                "accessModes": thing["spec"].get("accessModes") or [],
                "capacity": size,
            }

        self._objects.update(self.kind, namespace, name, onto)
        self._objects.update_status(self.kind, namespace, name, bind)
        return None


def _pending(claim: dict[str, Any]) -> None:
    claim.setdefault("status", {}).setdefault("phase", "Pending")
