"""What leads one training job from Starting to its end, over interruptions and restarts, and its nodes with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cloudtune.errors import CloudtuneError
from cloudtune.rehearsal.aws.logs import TRAINING_GROUP, Logs
from cloudtune.rehearsal.aws.training_files import Checkpoints, Unrunnable, send_results
from cloudtune.rehearsal.aws.training_nodes import build_nodes, checkpoint_folder, ml_folder, substitutes
from cloudtune.rehearsal.aws.training_states import JOB, moved
from cloudtune.rehearsal.nodes import End, Line, Node
from cloudtune.rehearsal.runner import RunningNode, wait_for

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import AwsCloud

#: Events that a rehearsal's plan of faults may name: by the job's name, and by its instance type.
INTERRUPTED = "interrupted"
#: An interruption without notice: the nodes are gone at once, and the last copy of their checkpoints is cut off.
TAKEN = "taken"
NO_CAPACITY = "no capacity"
_LOOK_S = 0.05
#: A node is given at least so many seconds of this machine to end when it is asked to.
_LEAST_GRACE_S = 2.0
_REASON_CHARACTERS = 1024
_NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)
_WAITED = "Training job wait time exceeded MaxWaitTimeInSeconds provided"
_INTERNAL = "InternalServerError: We encountered an internal error. Please try again."
#: What a spot job pays of its time, in place of a market.
_SPOT_SHARE = 0.3


class _Stopped(Exception):
    """The job is not to go on: it was stopped, or the rehearsal ends."""


class Control:
    """The controller of one training job."""

    def __init__(self, cloud: AwsCloud, arn: str, given: dict[str, Any], *, region: str) -> None:
        self.cloud, self.stage, self.arn, self.given, self.region = cloud, cloud.stage, arn, given, region
        self.name: str = given["TrainingJobName"]
        self._kind: str = given["ResourceConfig"]["InstanceType"]
        self._spot = bool(given.get("EnableManagedSpotTraining"))
        checkpoints = given.get("CheckpointConfig")
        self._checkpoints = Checkpoints(cloud.borrowed, checkpoints["S3Uri"]) if checkpoints else None
        self._retries = int((given.get("RetryStrategy") or {}).get("MaximumRetryAttempts", 0))
        self._attempt = 0
        self._nodes: list[Node] = []
        self._running: list[RunningNode] = []
        self._streams: dict[str, str] = {}
        self._heard = 0
        self._began_s = self.stage.clock.time_s()
        self._ran_s = 0.0
        self._paid_at: float | None = None
        self._billed_s = 0.0

    def lead(self) -> None:
        """Lead the job to its end."""
        try:
            while self._one_attempt():
                self._attempt += 1
        except _Stopped:
            self._end_stopped()
        except Unrunnable as why:
            self._fail(str(why))
        except CloudtuneError as error:
            self._fail(f"InternalServerError: a node could not be started: {error}")
            raise
        except Exception:
            # the stand-in's own fault, which the rehearsal tells as ours to mend; untold, its user would wait for ever
            self._fail(_INTERNAL)
            raise
        finally:
            self.cloud.forget_roles(self.arn)
        self._keep_machines()

    def _one_attempt(self) -> bool:
        """Run the job's nodes once; True if there must be another attempt."""
        timing = self.cloud.timing
        if not self._find_machines():
            return False
        self._prepare()
        self._begin_nodes()
        ran_at = self.stage.clock.time_s()
        verdict, reason = self._see_to_the_end(ran_at)
        self._ran_s += self.stage.clock.time_s() - ran_at
        self._stop_nodes(noticed=verdict != TAKEN)
        self._sync(cut=verdict == TAKEN)
        if verdict == "over":  # the rehearsal ends
            return False
        if verdict in {INTERRUPTED, TAKEN}:
            self._count_time()
            self._go("Interrupted", "Training job interrupted", timing.interrupted_s)
            return True
        if verdict == "Failed" and reason == _INTERNAL and self._retries > 0:
            self._retries -= 1
            self._count_time()
            self._go("Restarting", "Restarting the training job", timing.starting_s)
            return True
        self._finish(verdict, reason)
        return False

    def _find_machines(self) -> bool:
        """Wait for machines; False if the job has ended for want of them."""
        timing = self.cloud.timing
        if self._attempt:
            self._go("Starting", "Starting the training job")
        self._say("Launching requested ML instances")
        self._wait(timing.starting_s)
        self._go("Pending", "Training job waiting for capacity")
        while self.stage.faults.event(NO_CAPACITY, self._kind):
            if not self._spot or self._has_waited_too_long():
                self._end(*(("MaxWaitTimeExceeded", _WAITED) if self._spot else ("Failed", _NO_CAPACITY)))
                return False
            self._say("Insufficient capacity error from EC2 while launching instances, retrying!")
            self._wait(timing.capacity_s)
        self._say("Preparing the instances for training")
        self._wait(timing.pending_s)
        return True

    def _prepare(self) -> None:
        """Make what the nodes need."""
        timing = self.cloud.timing
        self._go("Downloading", "Downloading input data")
        self._paid_at = self.cloud.now_s()
        self._note(TrainingStartTime=self._shown().get("TrainingStartTime", self._paid_at))
        self._nodes = build_nodes(
            self.cloud, self.given, self.arn, self.region, attempt=self._attempt, checkpoints=self._checkpoints
        )
        self._wait(timing.downloading_s)
        self._go("DownloadingTrainingImage", "Downloading the training image", timing.image_s)
        self._go("Training", "Training image download completed. Training in progress.")

    def _begin_nodes(self) -> None:
        stamp = int(self.cloud.now_s() * 1000)
        self._streams = {node.name: f"{self.name}/{node.name}-{stamp + at}" for at, node in enumerate(self._nodes)}
        self._heard = 0
        now = time.time()
        for node in self._nodes:
            words = substitutes(self.given)
            self._write(tuple(Line(time_s=now, node=node.name, stream="stdout", text=text) for text in words))
        self._running = []
        for node in self._nodes:
            self._running.append(self.stage.nodes.start(node, self._hear))

    def _see_to_the_end(self, ran_at: float) -> tuple[str, str]:
        """Wait until the nodes are done, have failed, or must not go on; return how, and why."""
        stopping, clock = self.given["StoppingCondition"], self.stage.clock
        most_s = stopping.get("MaxRuntimeInSeconds", 24 * 3600) * self.cloud.timing.second_s
        limit_s = ran_at + most_s - self._ran_s
        events = (INTERRUPTED, TAKEN) if self._spot else ()
        due = [(kind, fault) for kind in events if (fault := self.stage.faults.event(kind, self.name)) is not None]
        synced_at = ran_at
        while not self.stage.stopping.is_set():
            now = clock.time_s()
            for kind, fault in due:
                if self._is_due(fault.after_lines, ran_at + fault.seconds):
                    return kind, ""
            ends = [node.end for node in self._running]
            failure = self._failure(ends)
            if failure is not None:
                return "Failed", failure
            if all(end is not None for end in ends):
                return "Completed", "Training job completed"
            if self._shown()["TrainingJobStatus"] != "InProgress":
                return "Stopped", "Training job stopped"
            if now >= limit_s:
                return "MaxRuntimeExceeded", "Training job runtime exceeded MaxRuntimeInSeconds provided"
            if self._has_waited_too_long():
                return "MaxWaitTimeExceeded", _WAITED
            if now >= synced_at + self.cloud.timing.sync_s:
                self._sync()
                synced_at = now
            time.sleep(_LOOK_S)
        return "over", ""

    def _has_waited_too_long(self) -> bool:
        wait_s = self.given["StoppingCondition"].get("MaxWaitTimeInSeconds")
        second_s = self.cloud.timing.second_s
        return wait_s is not None and self.stage.clock.time_s() >= self._began_s + wait_s * second_s

    def _is_due(self, after_lines: int | None, at_s: float) -> bool:
        return self._heard >= after_lines if after_lines is not None else self.stage.clock.time_s() >= at_s

    def _failure(self, ends: list[End | None]) -> str | None:
        """Return why the job has failed, by the node that failed first; else None."""
        bad = [(end, node) for end, node in zip(ends, self._running, strict=True) if end is not None and end.code]
        if not bad:
            return None
        end, node = min(bad, key=lambda pair: pair[0].ended_s)
        if end.reason in ("died", "lost"):
            return _INTERNAL
        said = ml_folder(node.node) / "output" / "failure"
        try:
            text = said.read_text(encoding="utf-8", errors="replace")[:_REASON_CHARACTERS]
        except OSError:
            text = ""
        tail = f", exit code: {end.exit_code}"
        return f"AlgorithmError: {text}"[: _REASON_CHARACTERS - len(tail)] + tail

    def _finish(self, verdict: str, reason: str) -> None:
        """Send what the nodes have left, and write down how the job ended."""
        folders = [ml_folder(node) for node in self._nodes]
        good = verdict != "Failed"
        message = "Uploading generated training model" if good else "Uploading output data"
        self._advance("Uploading", message)  # one that is being stopped stays so
        self.stage.sleep(self.cloud.timing.uploading_s)
        try:
            model = send_results(self.cloud, self.given, folders, model=good)
        except Unrunnable as why:
            self._end("Failed", str(why))
            return
        if model is not None:
            self._note(ModelArtifacts={"S3ModelArtifacts": model})
        if self._shown()["TrainingJobStatus"] == "Stopping":
            self._end_stopped()
        else:
            self._end(verdict, reason)

    def _fail(self, reason: str) -> None:
        """End the job and its nodes before they are done."""
        try:
            self._stop_nodes()
        finally:
            self._end("Failed", reason)

    def _end_stopped(self) -> None:
        """Write down that the job was stopped; nothing if the rehearsal ends."""
        if self.stage.sleep(self.cloud.timing.stopping_s):
            self._end("Stopped", "Training job stopped")

    def _end(self, secondary: str, reason: str) -> None:
        """Write down how the job ended, unless there is no such job any more."""
        self._count_time()
        now = self.cloud.now_s()
        status = secondary if secondary in {"Completed", "Failed"} else "Stopped"
        began = self._shown().get("TrainingStartTime")
        times: dict[str, Any] = {"TrainingEndTime": now}
        if began is not None:
            trained = max(1, round(self._billed_s))
            billed = max(1, round(trained * _SPOT_SHARE)) if self._spot else trained
            times |= {"TrainingTimeInSeconds": trained, "BillableTimeInSeconds": billed}
        failure = {"FailureReason": reason[:_REASON_CHARACTERS]} if status == "Failed" else {}
        message = "Training job failed" if status == "Failed" else reason

        def ended(data: dict[str, Any]) -> dict[str, Any]:
            shown = moved(data["shown"], secondary, message, now, status=status)
            return {"shown": {**shown, **times, **failure}}

        self.stage.store.update(JOB, self.arn, ended)

    def _keep_machines(self) -> None:
        """Keep a warm pool for as long as was asked, where the job ended well."""
        if not self._shown().get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds"):
            return
        since_s = self.stage.clock.time_s()
        if self._shown()["TrainingJobStatus"] == "Completed":
            self._note(WarmPoolStatus={"Status": "Available"})
        while not self.stage.stopping.is_set() and self._shown():
            kept_s = self._shown()["ResourceConfig"].get("KeepAlivePeriodInSeconds", 0)
            if self._shown()["TrainingJobStatus"] != "Completed" or self.stage.clock.time_s() >= since_s + kept_s:
                retained = {"ResourceRetainedBillableTimeInSeconds": round(self.stage.clock.time_s() - since_s)}
                self._note(WarmPoolStatus={"Status": "Terminated", **retained})
                return
            time.sleep(_LOOK_S)

    def _stop_nodes(self, *, noticed: bool = True) -> None:
        grace_s = max(_LEAST_GRACE_S, self.cloud.timing.grace_s / self.stage.clock.speed)
        for node in self._running:
            if noticed:
                node.stop(grace_s=grace_s)
            else:
                node.kill()
        wait_for(self._running)

    def _sync(self, *, cut: bool = False) -> None:
        if self._checkpoints is not None:
            self._checkpoints.send([checkpoint_folder(node) for node in self._nodes], cut=cut)

    def _count_time(self) -> None:
        """Add the time since the download began to what is paid for."""
        if self._paid_at is not None:
            self._billed_s += self.cloud.now_s() - self._paid_at
            self._paid_at = None

    def _shown(self) -> dict[str, Any]:
        job = self.stage.store.get(JOB, self.arn)
        found: dict[str, Any] = job.data["shown"] if job is not None else {}
        return found

    def _note(self, **fields: Any) -> None:
        self.stage.store.update(JOB, self.arn, lambda data: {"shown": {**data["shown"], **fields}})

    def _say(self, message: str) -> None:
        """Write a message into the step that the job is in."""

        def said(data: dict[str, Any]) -> dict[str, Any]:
            *before, last = data["shown"]["SecondaryStatusTransitions"]
            steps = [*before, {**last, "StatusMessage": message}]
            return {"shown": {**data["shown"], "SecondaryStatusTransitions": steps}}

        self.stage.store.update(JOB, self.arn, said)

    def _go(self, secondary: str, message: str, seconds: float = 0.0) -> None:
        """Lead the job to a secondary status, and wait; raises _Stopped if it does not go on."""
        if not self._advance(secondary, message):
            raise _Stopped
        self._wait(seconds)

    def _advance(self, secondary: str, message: str) -> bool:
        """Lead the job to a secondary status; False if it does not go on."""

        def step(data: dict[str, Any]) -> dict[str, Any] | None:
            if data["shown"]["TrainingJobStatus"] != "InProgress":
                return None
            return {"shown": moved(data["shown"], secondary, message, self.cloud.now_s())}

        return self.stage.store.update(JOB, self.arn, step) is not None

    def _wait(self, seconds: float) -> None:
        """Wait by the stage's clock; raises _Stopped if the job does not go on."""
        if not self.stage.clock.sleep(seconds, unless=lambda: self.stage.stopping.is_set() or not self._goes_on()):
            raise _Stopped

    def _goes_on(self) -> bool:
        return self._shown().get("TrainingJobStatus") == "InProgress"

    def _hear(self, lines: tuple[Line, ...]) -> None:
        self._heard += len(lines)
        self._write(lines)

    def _write(self, lines: tuple[Line, ...]) -> None:
        logs = self.cloud.part(Logs)
        for name in dict.fromkeys(line.node for line in lines):
            rows = ((line.time_s, line.text) for line in lines if line.node == name)
            logs.write(self.region, TRAINING_GROUP, self._streams[name], rows)
