"""What leads one job run from ACCEPTED to its end, and its nodes from their start to theirs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.errors import CloudtuneError
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.nodes import End, Line, Node
from cloudtune.rehearsal.oci.job_nodes import Unrunnable, Work, build_nodes, substitutes, work_of, write_cluster
from cloudtune.rehearsal.oci.jobs import RUN, Jobs
from cloudtune.rehearsal.oci.log_search import LogSearch
from cloudtune.rehearsal.oci.logs import Logs
from cloudtune.rehearsal.oci.speech import moment
from cloudtune.rehearsal.runner import Hear, RunningNode, wait_for

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

#: Events that a rehearsal's plan of faults may name, besides a node's death: by the run's name, and by its shape.
NEEDS_ATTENTION = "needs attention"
NO_CAPACITY = "no capacity"
_LOOK_S = 0.05
#: A node is given at least so many seconds of this machine to end when it is asked to.
_LEAST_GRACE_S = 2.0
_NO_LOG_GROUP = (
    "The specified log group is not found or not authorized. Cannot create log object on behalf of the user."
)


class Control:
    """The controller of one run."""

    def __init__(
        self, cloud: OciCloud, run_id: str, job: Mapping[str, Any], details: Mapping[str, Any], *, hear: Hear
    ) -> None:
        self.cloud, self.stage, self.run_id = cloud, cloud.stage, run_id
        self.work: Work = work_of(run_id, job, details)
        self.job_id: str = job["id"]
        self._keep = hear
        self._log_id: str | None = None
        self._nodes: list[list[Node]] = []
        self._running: list[list[RunningNode]] = [[] for _ in self.work.groups]
        self._cluster_at_s: float | None = None

    def lead(self) -> None:
        """Lead the run to its end."""
        try:
            if self._prepare():
                self._begin_nodes()
                self._see_to_the_end()
        except Unrunnable as why:
            self._finish("FAILED", str(why))
        except CloudtuneError as error:
            self._stop_nodes()
            self._finish("FAILED", f"a node could not be started: {error}")
            raise
        finally:
            self.cloud.principals.forget(self.run_id)
            if self._state() == "CANCELING":
                self._cancel()

    def _prepare(self) -> bool:
        """Wait for machines, and make what the nodes need; False if there is nothing to go on with."""
        timing = self.cloud.timing
        if not self._wait(timing.accepted_s):
            return False
        if not self._make_log():
            return False
        self._change(lifecycleDetails="Infrastructure provisioning.", **self._groups("CREATING"))
        if not self._wait(timing.provisioning_s):
            return False
        for group in self.work.groups:
            if self.stage.faults.event(NO_CAPACITY, group.shape):
                self._finish("FAILED", "Out of host capacity.")
                return False
        artifact = self.cloud.part(Jobs).artifact(self.job_id)
        self._nodes = build_nodes(self.cloud, self.work, self._run(), artifact)
        started = moment(self.cloud.now_s())
        going = {"lifecycleDetails": "Job run in progress.", "timeStarted": started, **self._groups("ACTIVE")}
        return self._change(lifecycleState="IN_PROGRESS", **going)

    def _make_log(self) -> bool:
        """Find or make the log of the run; False where the run has failed for want of it."""
        logs, service = self.work.logs, self.cloud.part(Logs)
        if not logs.get("enableLogging"):
            return True
        try:
            group = service.group(logs["logGroupId"], compartment=self._run()["compartmentId"])
            if logs.get("enableAutoLogCreation"):
                self._log_id = service.add_log(group.id, {"displayName": self.run_id})
            else:
                self._log_id = service.log(group.id, logs["logId"]).id
        except Refused:
            self._finish("FAILED", _NO_LOG_GROUP)
            return False
        return self._change(logDetails={"logGroupId": group.id, "logId": self._log_id})

    def _begin_nodes(self) -> None:
        """Start the nodes: of all groups, or one group after the other."""
        for number, group in enumerate(self.work.groups):
            words = tuple(Line(time_s=time.time(), node="", stream="stdout", text=text) for text in substitutes(group))
            self._write(words)
            for node in self._nodes[number]:
                self._running[number].append(self.stage.nodes.start(node, self._hear))
            if self.work.in_order and number + 1 < len(self.work.groups):
                self._wait(self.cloud.timing.accepted_s)
        if self.work.grouped:
            write_cluster(self.cloud, self.work, self._nodes, whole=False)
            self._cluster_at_s = self.stage.clock.time_s() + self.cloud.timing.cluster_file_s

    def _see_to_the_end(self) -> None:
        """Wait until the nodes are done, have failed, or must not go on."""
        minutes = self.work.minutes
        limit_s = self.stage.clock.time_s() + minutes * self.cloud.timing.minute_s if minutes else None
        troubled = self.stage.faults.event(NEEDS_ATTENTION, self._run()["displayName"]) is not None
        while not self.stage.stopping.is_set():
            ends = [[node.end for node in nodes] for nodes in self._running]
            now = self.stage.clock.time_s()
            if self._cluster_at_s is not None and now >= self._cluster_at_s:
                write_cluster(self.cloud, self.work, self._nodes, whole=True)
                self._cluster_at_s = None
            if self._state() != "IN_PROGRESS":
                self._stop_nodes()
                return
            if troubled:
                self._stop_nodes()
                self._rest()
                return
            if limit_s is not None and now >= limit_s:
                self._stop_nodes()
                self._finish("FAILED", f"Job run exceeded its maximum runtime of {minutes} minutes.")
                return
            failure = self._failure(ends)
            if failure is not None:
                self._stop_nodes()
                self._finish("FAILED", failure)
                return
            if all(end is not None for group in ends for end in group):
                self._finish("SUCCEEDED", "Job run artifact execution succeeded.")
                return
            time.sleep(_LOOK_S)

    def _failure(self, ends: list[list[End | None]]) -> str | None:
        """Return why the run has failed: a group can no longer have as many good ends as it must; else None."""
        for group, theirs, nodes in zip(self.work.groups, ends, self._running, strict=True):
            bad = [(end, node) for end, node in zip(theirs, nodes, strict=True) if end is not None and end.code]
            if len(bad) > group.nodes - group.minimum:
                end, node = min(bad, key=lambda pair: pair[0].ended_s)
                if end.reason in ("died", "lost"):
                    return f"Job run failed: {node.node.name} stopped responding."
                return f"Job run artifact execution failed with exit code {end.exit_code}."
        return None

    def _rest(self) -> None:
        """Stay where somebody must look after the run, until it is canceled or deleted."""
        self._change(lifecycleState="NEEDS_ATTENTION", lifecycleDetails="Job run needs attention.")
        while not self.stage.stopping.is_set() and self._state() == "NEEDS_ATTENTION":
            time.sleep(_LOOK_S)

    def _stop_nodes(self) -> None:
        grace_s = max(_LEAST_GRACE_S, self.cloud.timing.grace_s / self.stage.clock.speed)
        running = [node for nodes in self._running for node in nodes]
        for node in running:
            node.stop(grace_s=grace_s)
        wait_for(running)

    def _cancel(self) -> None:
        if self.stage.sleep(self.cloud.timing.canceling_s):
            self._finish("CANCELED", "Job run canceled.")

    def _finish(self, state: str, details: str) -> None:
        """Write down how the run ended, unless that was decided otherwise."""
        ends = ("IN_PROGRESS", "ACCEPTED", "CANCELING") if state == "CANCELED" else ("IN_PROGRESS", "ACCEPTED")
        groups = self._groups("FAILED" if state == "FAILED" else "DELETED")
        finished = {"timeFinished": moment(self.cloud.now_s()), **groups}
        fields = {"lifecycleState": state, "lifecycleDetails": details, **finished}
        self.stage.store.change(RUN, self.run_id, when=_in(*ends), **fields)

    def _run(self) -> dict[str, Any]:
        run = self.stage.store.get(RUN, self.run_id)
        assert run is not None  # a deleted run is kept
        return run.data

    def _state(self) -> str:
        return str(self._run()["lifecycleState"])

    def _change(self, **fields: Any) -> bool:
        """Set fields while the run goes on; False if it does not."""
        going = _in("ACCEPTED", "IN_PROGRESS")
        return self.stage.store.change(RUN, self.run_id, when=going, **fields) is not None

    def _wait(self, seconds: float) -> bool:
        """Wait by the stage's clock; False if the run does not go on."""
        return self.stage.clock.sleep(seconds, unless=self._is_stopped)

    def _is_stopped(self) -> bool:
        return self.stage.stopping.is_set() or self._state() not in ("ACCEPTED", "IN_PROGRESS")

    def _groups(self, state: str) -> dict[str, Any]:
        if not self.work.grouped:
            return {}
        return {"nodeGroupDetailsList": [{"name": group.name, "lifecycleState": state} for group in self.work.groups]}

    def _hear(self, lines: tuple[Line, ...]) -> None:
        self._keep(lines)
        self._write(lines)

    def _write(self, lines: tuple[Line, ...]) -> None:
        if self._log_id is not None and lines:
            self.cloud.part(LogSearch).write(self._log_id, self.run_id, lines)


def _in(*states: str) -> Callable[[dict[str, Any]], bool]:
    return lambda data: data["lifecycleState"] in states
