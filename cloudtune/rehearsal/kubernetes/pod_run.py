"""One pod on its node, from the volumes that are mounted for it to the end of its last container."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from cloudtune.rehearsal.faults import Fault
from cloudtune.rehearsal.kubernetes.container_start import Starting
from cloudtune.rehearsal.kubernetes.names import hostname
from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.kubernetes.pod_environment import Unconfigured
from cloudtune.rehearsal.kubernetes.pod_status import Container, lost_state, write_status
from cloudtune.rehearsal.kubernetes.pod_volumes import Unmounted, mount
from cloudtune.rehearsal.nodes import Place
from cloudtune.rehearsal.runner import KILL_S

if TYPE_CHECKING:
    from cloudtune.rehearsal.kubernetes.kubelet import Kubelet

COMPONENT = "kubelet"
#: Events that a rehearsal's plan of faults may name, by the pod's hostname (``train-0`` of a Job's first index).
EVICTED = "evicted"
KILLED = "killed"
PREEMPTED = "preempted"
NODE_LOST = "node lost"
_LOOK_S = 0.05
#: A container is given at least so many seconds of this machine to end when it is asked to.
_LEAST_GRACE_S = 2.0
#: Seconds after which a volume that is missing is looked for again: the first time, and at most.
_MOUNT_AGAIN_S = (0.5, 16.0)
_LATE = "Pod was active on the node longer than the specified deadline"


@attrs.frozen(kw_only=True)
class Wish:
    """What is to become of a pod that runs, whatever it does itself.

    One that is to ``fail`` stays in the API with reason and message. Of one that is lost, nobody says anything more.
    """

    deed: Literal["delete", "fail", "lose"]
    grace_s: float = 0.0
    reason: str = ""
    message: str = ""


class _Ended(Exception):
    """The pod is not to go on as it would; without a wish, because the rehearsal ends."""

    def __init__(self, wish: Wish | None) -> None:
        super().__init__()
        self.wish = wish


class PodRun:
    """A pod that has a node; :meth:`lead` is a thread's."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        self.pod = pod
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.uid: str = pod["metadata"]["uid"]
        self.node: str = pod["spec"]["nodeName"]
        self.over = threading.Event()
        self._kubelet, self._stage, self._timing = kubelet, kubelet.stage, kubelet.timing
        spec = pod["spec"]
        self._inits = [Container(spec=one, init=True) for one in spec.get("initContainers") or ()]
        self._mains = [Container(spec=one) for one in spec["containers"]]
        self._policy: str = spec.get("restartPolicy", "Always")
        self._address = ""
        self._phase = "Pending"
        self._wish: Wish | None = None
        self._heard = 0
        self._began_s = self._stage.clock.time_s()
        self._faults: list[tuple[Fault, float]] = []
        self._starting: Starting | None = None

    @property
    def grace_s(self) -> float:
        """Seconds that its containers have to end when it is deleted."""
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def ask(self, wish: Wish) -> None:
        """Let the pod end otherwise than by itself. The first wish counts, but a harder one more."""
        if self._wish is None or wish.deed == "lose" or (wish.deed == "delete" and wish.grace_s < self._wish.grace_s):
            self._wish = wish

    def kill(self, container: str | None = None) -> None:
        """End the processes of a container, of all without a name, as SIGKILL does; return when they are gone."""
        running = [one.running for one in self._all if container in (None, one.name) and one.running is not None]
        for node in running:
            node.kill()
        for node in running:
            node.wait(KILL_S)

    def lead(self) -> None:
        """Lead the pod to its end."""
        try:
            self._set_up()
            if all(self._drive([one]) for one in self._inits):
                self._begin_faults()
                self._drive(self._mains)
            self._stop(self.grace_s)  # those that go on beside the others
            self._finish(self._verdict())
        except _Ended as why:
            if why.wish is not None:
                self._end(why.wish)
        finally:
            for one in self._all:
                if one.running is not None:
                    one.running.kill()
            self.over.set()

    @property
    def _all(self) -> list[Container]:
        return [*self._inits, *self._mains]

    # --- from the volumes to the last container

    def _set_up(self) -> None:
        """Give the pod its volumes and an address."""
        self._write()
        wait_s, most_s = _MOUNT_AGAIN_S
        self._pause(self._timing.mounting_s)
        volumes: dict[str, Place] | None = None
        while volumes is None:
            try:
                volumes = mount(self.pod, self._find, self._kubelet.folders)
            except Unmounted as why:
                self._tell("FailedMount", str(why), warning=True)
                self._pause(wait_s)
                wait_s = min(2 * wait_s, most_s)
        self._address = self._kubelet.names.address_of(self.pod)
        self.pod["status"] = {**self.pod.get("status", {}), "podIP": self._address, "hostIP": self._host}
        self._starting = Starting(self._kubelet, self.pod, volumes, self._count)
        for one in self._mains if self._inits else ():
            one.waits("PodInitializing")
        self._write()

    def _drive(self, containers: Sequence[Container]) -> bool:
        """Run containers, and the sidecars that were begun, until they are done; whether they have ended well.

        A sidecar is done as soon as it runs.
        """
        while True:
            changed = False
            sidecars = [one for one in self._inits if one.is_sidecar and one.starts and one not in containers]
            for one in (*containers, *sidecars):
                changed |= self._step(one)
            if any("running" in one.state for one in containers if not one.init) and self._phase == "Pending":
                self._phase, changed = "Running", True
            if changed:
                self._write()
            elif all(one.is_done or (one.is_sidecar and one.running is not None) for one in containers):
                return all(one.code in (0, None) for one in containers)
            else:
                self._look()
                time.sleep(_LOOK_S)

    def _step(self, one: Container) -> bool:
        """Take the next step of a container; whether its state has changed."""
        if one.running is not None:
            if one.running.end is None:
                return False
            self._note_end(one)
            return True
        if one.due_s is None or self._stage.clock.time_s() < one.due_s:
            return False
        self._look()
        return self._try_to_start(one)

    def _try_to_start(self, one: Container) -> bool:
        image = str(one.spec.get("image", ""))
        if self._kubelet.around.is_absent(image):
            return self._back_off_image(one, image)
        wait_s = self._kubelet.pulls(self.node, image)
        if wait_s:
            self._tell("Pulling", f'Pulling image "{image}"')
            self._pause(wait_s)
            self._tell("Pulled", f'Successfully pulled image "{image}" in {wait_s:g}s')
        if one.waiting in ("ErrImagePull", "ImagePullBackOff"):
            one.failures = 0
        assert self._starting is not None
        try:
            self._starting.start(one)
        except (Unconfigured, Unmounted) as why:
            one.due_s = self._stage.clock.time_s() + self._timing.restart_backoff_s
            if not one.waits("CreateContainerConfigError", str(why)):
                return False
            self._tell("Failed", f"Error: {why}", warning=True)
            return True
        self._tell("Created", f"Container created: {one.name}")
        self._tell("Started", f"Container started: {one.name}")
        return True

    def _back_off_image(self, one: Container, image: str) -> bool:
        """Say that an image cannot be pulled, and when it is tried again."""
        one.failures += 1
        one.due_s = self._stage.clock.time_s() + self._back_off_s(one.failures)
        what = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
        if one.failures % 2:
            self._tell("Failed", f'Failed to pull image "{image}": {what}', warning=True)
            self._tell("Failed", "Error: ErrImagePull", warning=True)
            return one.waits("ErrImagePull", what)
        self._tell("BackOff", f'Back-off pulling image "{image}"')
        self._tell("Failed", "Error: ImagePullBackOff", warning=True)
        return one.waits("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {what}')

    def _note_end(self, one: Container, *, last: bool = False) -> None:
        """Note how a container has ended, and when it is to be started again, unless this was the last time."""
        assert one.running is not None
        assert self._starting is not None
        end = one.running.wait()
        assert end is not None
        one.ended(end, self._starting.over(one))
        failed = one.code != 0
        again = one.is_sidecar or (self._policy == "Always" and not one.init) or (self._policy != "Never" and failed)
        if last or not again:
            return
        one.failures += 1
        one.restarts += 1
        one.last = one.state
        one.due_s = self._stage.clock.time_s()
        if one.failures == 1:
            return  # only who fails again has to wait
        wait_s = self._back_off_s(one.failures - 1)
        one.due_s += wait_s
        place = f"{self.name}_{self.namespace}({self.uid})"
        one.waits("CrashLoopBackOff", f"back-off {wait_s:g}s restarting failed container={one.name} pod={place}")
        self._tell("BackOff", f"Back-off restarting failed container {one.name} in pod {place}", warning=True)

    def _back_off_s(self, failures: int) -> float:
        base_s = self._timing.restart_backoff_s * 2.0 ** min(failures - 1, 10)
        return min(base_s, self._timing.most_restart_backoff_s)

    # --- ends

    def _verdict(self) -> str:
        codes = [one.code for one in self._all if not one.is_sidecar]
        return "Succeeded" if all(code == 0 for code in codes) else "Failed"

    def _finish(self, phase: str, **words: Any) -> None:
        self._phase = phase
        self._write(**words)

    def _end(self, wish: Wish) -> None:
        """End the pod as is wished."""
        if wish.deed == "lose":
            self._stop(0.0)
            return
        if any(one.running is not None for one in self._all):
            self._tell("Killing", f"Stopping container {self._mains[0].name}")
        self._stop(wish.grace_s)
        for one in self._all:
            if "terminated" not in one.state and one.starts:
                one.state = {"terminated": lost_state(one)}
        if wish.deed == "delete":
            self._finish(self._verdict())
            self._kubelet.objects.remove("Pod", self.namespace, self.name, uid=self.uid)
            return
        words: dict[str, Any] = {"reason": wish.reason, "message": wish.message}
        if wish.reason == "Evicted":
            words["disruption"] = {"reason": "TerminationByKubelet", "message": wish.message}
            self._tell("Evicted", wish.message, warning=True)
        self._finish("Failed", **words)

    def _stop(self, grace_s: float) -> None:
        """Ask the containers that run to end, wait for that, and note how they did."""
        running = [(one, one.running) for one in self._all if one.running is not None]
        real_s = max(_LEAST_GRACE_S, grace_s * self._timing.second_s / self._stage.clock.speed)
        for _, node in running:
            if grace_s:
                node.stop(grace_s=real_s)
            else:
                node.kill()
        for one, node in running:
            while node.end is None:
                if self._wish is not None and not self._wish.grace_s:
                    node.kill()  # whoever asked for it has grown impatient
                node.wait(_LOOK_S)
            self._note_end(one, last=True)

    def _look(self) -> None:
        """Raise _Ended where the pod is not to go on."""
        if self._stage.stopping.is_set():
            raise _Ended(None)
        now = self._stage.clock.time_s()
        for fault, at_s in list(self._faults):
            if self._heard >= fault.after_lines if fault.after_lines is not None else now >= at_s:
                self._faults.remove((fault, at_s))
                self._kubelet.carry_out(fault.kind, self)
        if self._wish is not None:
            raise _Ended(self._wish)
        limit_s = self.pod["spec"].get("activeDeadlineSeconds")
        if limit_s is not None and now >= self._began_s + limit_s * self._timing.second_s:
            raise _Ended(Wish(deed="fail", grace_s=self.grace_s, reason="DeadlineExceeded", message=_LATE))

    def _begin_faults(self) -> None:
        """Find out what is to go wrong with this pod."""
        now = self._stage.clock.time_s()
        kinds = (EVICTED, KILLED, PREEMPTED, NODE_LOST)
        # the hostname: a pod of a Job that is made again has another name, and is not to meet the same again
        found = [self._stage.faults.event(kind, hostname(self.pod)) for kind in kinds]
        self._faults = [(fault, now + fault.seconds) for fault in found if fault is not None]

    # --- small things

    @property
    def _host(self) -> str:
        return self._kubelet.host_address(self.node)

    def _count(self, lines: int) -> None:
        self._heard += lines

    def _pause(self, seconds: float) -> None:
        """Wait by the stage's clock."""
        clock = self._stage.clock
        until_s = clock.time_s() + seconds
        while (left_s := until_s - clock.time_s()) > 0:
            self._look()
            time.sleep(min(_LOOK_S, left_s / clock.speed + 0.001))

    def _find(self, kind: str, name: str) -> Object | None:
        return self._kubelet.objects.get(kind, self.namespace, name)

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._kubelet.objects.tell(self.pod, reason, message, warning=warning, component=COMPONENT)

    def _write(self, **words: Any) -> None:
        """Write the pod's status, unless another pod has its name by now."""
        facts: dict[str, Any] = {"address": self._address, "host": self._host}

        def edit(thing: dict[str, Any]) -> bool:
            if thing["metadata"]["uid"] != self.uid:
                return False
            return write_status(thing, self._phase, self._all, **facts, **words)

        self._kubelet.objects.update_status("Pod", self.namespace, self.name, edit)
