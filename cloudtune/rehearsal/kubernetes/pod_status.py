"""The status of a pod as its kubelet writes it, from what its containers are doing."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from cloudtune.rehearsal.kubernetes.conditions import set_condition
from cloudtune.rehearsal.kubernetes.objects import Object, moment
from cloudtune.rehearsal.kubernetes.quantities import quality_of_service
from cloudtune.rehearsal.nodes import End
from cloudtune.rehearsal.runner import RunningNode

_MESSAGE_BYTES = 4096


def container_id() -> str:
    """Return the id of a container's next start."""
    return f"containerd://{secrets.token_hex(32)}"


@attrs.define(kw_only=True)
class Container:
    """One container of a pod: what it is to do, what it is doing, and when it is to be started (again).

    ``due_s`` is a time of the stage's clock, None for one that is not to be started.
    """

    spec: Object
    init: bool = False
    running: RunningNode | None = None
    state: dict[str, Any] = attrs.field(factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: dict[str, Any] = attrs.field(factory=dict)
    identity: str = ""
    restarts: int = 0
    failures: int = 0
    starts: int = 0
    due_s: float | None = 0.0

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.spec["name"])

    @property
    def is_sidecar(self) -> bool:
        """Whether it is an init container that goes on beside the others."""
        return self.init and self.spec.get("restartPolicy") == "Always"

    @property
    def code(self) -> int | None:
        """The exit code of one that has ended."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    @property
    def is_done(self) -> bool:
        """Whether it has ended for good."""
        return "terminated" in self.state and self.due_s is None

    @property
    def waiting(self) -> str:
        """The reason for which it does not run yet."""
        return str(self.state.get("waiting", {}).get("reason", ""))

    def waits(self, reason: str, message: str = "") -> bool:
        """Say why it does not run; False if that was said already."""
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        changed, self.state = self.state != state, state
        return changed

    def runs(self, running: RunningNode) -> None:
        """Note that it has been started."""
        self.running, self.due_s = running, None
        self.starts += 1
        self.identity = container_id()
        self.state = {"running": {"startedAt": moment(running.started_s)}}

    def ended(self, end: End, message: str) -> None:
        """Note how it has ended."""
        self.running = None
        self.state = {"terminated": terminated(end, self.identity, message)}

    def status(self) -> dict[str, Any]:
        """Return it as the pod's status shows it."""
        up = "running" in self.state
        image = self.spec.get("image", "")
        return {
            "name": self.name,
            "image": image,
            "imageID": image_id(image) if self.starts else "",
            "containerID": self.identity,
            "ready": up or (self.init and self.code == 0),
            "started": up,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
        }


def image_id(image: str) -> str:
    """Return what stands for the digest of an image."""
    return f"{image.partition('@')[0]}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def terminated(end: End, identity: str, message: str) -> dict[str, Any]:
    """Return the state of a container that has ended."""
    killed_for_memory = end.reason == "out of memory"
    code = 137 if killed_for_memory else end.exit_code
    reason = "OOMKilled" if killed_for_memory else "Completed" if code == 0 else "Error"
    return {
        "exitCode": code,
        "reason": reason,
        **({"message": message[-_MESSAGE_BYTES:]} if message else {}),
        "startedAt": moment(end.started_s),
        "finishedAt": moment(end.ended_s),
        "containerID": identity,
    }


def lost_state(container: Container) -> dict[str, Any]:
    """Return the state of a container of which its kubelet can say nothing any more."""
    began = container.state.get("running", {}).get("startedAt", moment())
    return {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
        "startedAt": began,
        "finishedAt": moment(),
        "containerID": container.identity,
    }


def write_status(
    pod: Object,
    phase: str,
    containers: Sequence[Container],
    *,
    address: str,
    host: str,
    reason: str = "",
    message: str = "",
    disruption: Mapping[str, str] | None = None,
) -> bool:
    """Write into a pod how it is; False if nothing has changed.

    ``disruption`` is reason and message of a pod that was ended for no fault of its own.
    """
    status = pod.setdefault("status", {})
    before = repr(status)
    inits, mains = [one for one in containers if one.init], [one for one in containers if not one.init]
    over = phase in ("Succeeded", "Failed")
    status["phase"] = phase
    status.setdefault("startTime", moment())
    status.setdefault("qosClass", quality_of_service(pod["spec"]))
    status["hostIP"], status["hostIPs"] = host, [{"ip": host}]
    if address:
        status["podIP"], status["podIPs"] = address, [{"ip": address}]
    status["containerStatuses"] = [one.status() for one in mains]
    if inits:
        status["initContainerStatuses"] = [one.status() for one in inits]
    for name, words in (("reason", reason), ("message", message)):
        if words:
            status[name] = words
    _write_conditions(status, phase, inits, mains, ready_to_start=bool(address) and not over)
    if disruption is not None:
        set_condition(
            status, "DisruptionTarget", True, reason=disruption["reason"], message=disruption.get("message", "")
        )
    return repr(status) != before


def _write_conditions(
    status: dict[str, Any], phase: str, inits: Sequence[Container], mains: Sequence[Container], *, ready_to_start: bool
) -> None:
    done = phase == "Succeeded"
    waiting = [one.name for one in inits if not (one.code == 0 or "running" in one.state)]
    up = all("running" in one.state for one in mains) and phase == "Running"
    silent = [one.name for one in mains if "running" not in one.state]
    why = "PodCompleted" if done else "PodFailed" if phase == "Failed" else "ContainersNotReady"
    words = "" if done or phase == "Failed" else f"containers with unready status: [{' '.join(silent)}]"
    set_condition(status, "PodReadyToStartContainers", ready_to_start)
    if waiting and phase == "Pending":
        told = f"containers with incomplete status: [{' '.join(waiting)}]"
        set_condition(status, "Initialized", False, reason="ContainersNotInitialized", message=told)
    else:
        set_condition(status, "Initialized", True, reason="PodCompleted" if done else "")
    for kind in ("Ready", "ContainersReady"):
        if up:
            set_condition(status, kind, True)
        else:
            set_condition(status, kind, False, reason=why, message=words)
    set_condition(status, "PodScheduled", True)
