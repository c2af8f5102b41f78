"""Submissions that are cut off, cancelled or deleted while they are under way, and places that cannot be seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cloudtune import Job, jobs, pipelines, runs, submit
from cloudtune.clients.process import ProcessClient
from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.home import runs_folder
from cloudtune.plan import Call
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, ScriptRuntime
from cloudtune.store import Store
from tests.processes import eventually, running

ROOT = Path(__file__).resolve().parents[2]
#: Ends the process right after a call of the local client was carried out, before its reply is written down.
CUT = """
import os, sys
from cloudtune.clients import process
from cloudtune import verbs
send = process.ProcessClient.send
def cut(self, call, **more):
    reply = send(self, call, **more)
    if call.operation == sys.argv[2]:
        os._exit(77)
    return reply
process.ProcessClient.send = cut
verbs.run(sys.argv[1])
"""


def cut_off(file: Path, operation: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", CUT, str(file), operation], env=environment, timeout=60, check=False)
    assert done.returncode == 77
    return Store().runs()[0].id


def job_file(folder: Path, command: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(
        f"kind: job\nspec: {{name: j, runtime: {{type: pyTorchDistributed, spec: {{command: '{command}'}}}}}}\n"
    )
    return path


def pipeline_file(folder: Path, *commands: str) -> Path:
    path = folder / "pipeline.yaml"
    steps = "".join(
        f"\n    - name: s{n}\n      job: {{runtime: {{type: pyTorchDistributed, spec: {{command: '{command}'}}}}}}"
        for n, command in enumerate(commands)
    )
    path.write_text(f"kind: pipeline\nspec:\n  name: p\n  steps:{steps}\n")
    return path


def test_a_job_cut_off_after_its_start_can_be_cancelled(tmp_path: Path) -> None:
    run = runs.get(cut_off(job_file(tmp_path, "sleep 64209.5"), "start"))
    eventually(lambda: running("sleep 64209.5"))
    assert run.status.state in {"starting", "running"}
    assert run.cancel().state == "cancelled"
    assert running("sleep 64209.5") == []


def test_a_job_cut_off_before_its_start_is_continued_or_cancelled(tmp_path: Path) -> None:
    first = runs.get(cut_off(job_file(tmp_path, "echo on"), "stage"))
    assert first.status.state == "pending"
    with pytest.raises(UsageError, match="pending"):
        first.delete()
    assert jobs.resume(first.id).wait(60).state == "succeeded"
    second = runs.get(cut_off(job_file(tmp_path, "echo on"), "stage"))
    assert second.cancel().state == "cancelled"
    with pytest.raises(UsageError, match="been cancelled"):
        jobs.resume(second.id)
    second.delete()


def test_what_is_not_ready_when_a_job_is_continued_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a" * 16)
    file = tmp_path / "job.yaml"
    text = "kind: job\nspec: {runtime: {type: pyTorchDistributed, spec: {command: make, env: [{name: HF_TOKEN}]}}}\n"
    file.write_text(text.replace("make", "echo on"))
    run = runs.get(cut_off(file, "stage"))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="HF_TOKEN"):
        jobs.resume(run.id)
    assert runs.get(run.id).status.state == "pending"
    assert jobs.resume(run.id, environ={"HF_TOKEN": "a" * 16}).wait(60).state == "succeeded"


def test_a_service_that_is_slow_to_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_SILENT_S", 0.01)
    told, send = threading.Event(), ProcessClient.send

    def slow(self: ProcessClient, call: Call, **more: object) -> object:
        assert told.wait(60)
        return send(self, call, **more)  # type: ignore[arg-type]

    def progress(step: str, what: str) -> None:
        if what == "no answer in 0.01 s; still trying":
            told.set()

    monkeypatch.setattr(ProcessClient, "send", slow)
    job = JobSpec(name="c", runtime=PyTorchDistributedRuntime(command="echo on"))
    assert jobs.start(job, progress=progress).wait(60).state == "succeeded"


def test_a_pipeline_cut_off_after_its_start_goes_on_and_is_watched(tmp_path: Path) -> None:
    run = runs.get(cut_off(pipeline_file(tmp_path, "echo first", "echo second"), "start"))
    assert run.is_pipeline
    assert run.wait(60).state == "succeeded"
    assert [line.text for line in run.lines() if line.stream == "stdout"] == ["first", "second"]


def test_a_pipeline_cut_off_before_its_start_is_continued(tmp_path: Path) -> None:
    run = runs.get(cut_off(pipeline_file(tmp_path, "echo first"), "stage"))
    assert run.status.state == "pending"
    assert pipelines.resume_pipeline(run).wait(60).state == "succeeded"


def test_cancelling_a_pipeline_without_its_conductor_ends_the_step(tmp_path: Path) -> None:
    run = pipelines.start_pipeline(pipelines_spec("sleep 64210.5"))
    eventually(lambda: running("sleep 64210.5"))
    conductor = next(pid for pid in running(f"cloudtune.conductor {run.id}"))
    os.kill(conductor, signal.SIGKILL)
    assert eventually(lambda: run.state == "lost")
    with pytest.raises(UsageError, match="is running"):
        run.delete()
    assert len(run.steps) == 1
    run.cancel()
    assert running("sleep 64210.5") == []
    run.delete(outputs=True)
    assert runs.runs() == []


def test_cancelling_a_pipeline_that_has_failed_ends_the_step_that_it_left() -> None:
    run = pipelines.start_pipeline(pipelines_spec("sleep 64215.5"))
    eventually(lambda: running("sleep 64215.5"))
    os.kill(next(pid for pid in running(f"cloudtune.conductor {run.id}")), signal.SIGKILL)
    Store().update_run(run.id, state="failed", reason="s0: its place could not be asked for long")
    assert run.cancel().state == "failed"
    assert running("sleep 64215.5") == []
    run.delete()


def pipelines_spec(*commands: str) -> PipelineSpec:
    steps = (
        PipelineStep(name=f"s{n}", job=JobSpec(runtime=PyTorchDistributedRuntime(command=command)))
        for n, command in enumerate(commands)
    )
    return PipelineSpec(name="p", steps=tuple(steps))


def test_a_run_cancelled_while_it_is_submitted_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    send = ProcessClient.send

    def cancelling(self: ProcessClient, call: Call, **more: object) -> object:
        if call.operation == "start":
            assert runs.runs()[0].cancel(wait=False).state == "cancelled"
        return send(self, call, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ProcessClient, "send", cancelling)
    run = jobs.start(JobSpec(name="c", runtime=PyTorchDistributedRuntime(command="sleep 64211.5")))
    assert run.state == "cancelled"
    eventually(lambda: running("sleep 64211.5") == [])


def test_a_run_whose_submission_is_completed_while_it_is_cancelled_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.start(JobSpec(name="c", runtime=PyTorchDistributedRuntime(command="sleep 64213.5")), announce=interrupt)
    (run,) = runs.runs()
    update, late = Store.update_run, [run.id]

    def updating(self: Store, run_id: str, **changes: object) -> object:
        if changes.get("state") == "cancelled" and late:
            jobs.resume(late.pop())
            eventually(lambda: running("sleep 64213.5"))
        return update(self, run_id, **changes)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "update_run", updating)
    assert run.cancel().state == "cancelled"
    assert late == []
    assert running("sleep 64213.5") == []


def test_who_looked_before_it_ended_does_not_write_over_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    run = jobs.start(JobSpec(name="c", runtime=PyTorchDistributedRuntime(command="sleep 64214.5")))
    eventually(lambda: run.state == "running")
    Store().update_run(run.id, state="starting")
    read = ProcessClient.read

    def reading(self: ProcessClient, call: Call) -> object:
        reply = read(self, call)
        Store().update_run(run.id, state="succeeded")
        return reply

    with monkeypatch.context() as patch:
        patch.setattr(ProcessClient, "read", reading)
        assert run.look().state == "running"
    assert Store().run(run.id).state == "succeeded"
    Store().update_run(run.id, state="running")
    run.cancel()


def test_a_place_that_cannot_be_seen_is_no_lost_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = jobs.start(JobSpec(name="c", runtime=PyTorchDistributedRuntime(command="sleep 64212.5")))
    eventually(lambda: run.state == "running")
    lock = runs_folder() / run.id / "lock"
    real_open = Path.open

    def refused(self: Path, *arguments: object, **more: object) -> object:
        if self == lock:
            raise PermissionError(13, "Permission denied", str(self))
        return real_open(self, *arguments, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        with pytest.raises(ServiceError, match="cannot be seen"):
            _ = run.state
    assert run.state == "running"
    run.cancel()


def test_a_folder_removed_by_hand_is_a_lost_run_that_can_be_deleted() -> None:
    run = jobs.start(JobSpec(name="c", runtime=PyTorchDistributedRuntime(command="true")))
    import shutil

    assert eventually((runs_folder() / run.id / "result.json").exists)
    shutil.rmtree(runs_folder() / run.id)
    assert run.state == "lost"
    assert "removed by hand" in (run.status.reason or "")
    assert runs.runs().to_dicts()[0]["state"] == "lost"
    run.delete()
    assert runs.runs() == []


def test_a_failed_submission_is_not_rewritten_by_cancel() -> None:
    bad = JobSpec(name="c", runtime=PyTorchDistributedRuntime(command="true"), infrastructure=LocalJob())
    run = jobs.start(bad)
    run.wait(60)
    Store().update_run(run.id, state="failed", reason="not submitted: x")
    assert run.cancel().state == "failed"


def test_relative_paths_of_steps_start_where_the_user_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.sh").write_text("echo trained\n")
    monkeypatch.chdir(tmp_path)
    script = JobSpec(runtime=ScriptRuntime(script_path_uri="train.sh"))
    merge = {"base": "./nowhere", "adapter": "./adapter", "output": "merged"}
    pipeline = PipelineSpec(
        name="p",
        steps=(PipelineStep(name="train", job=script), PipelineStep(name="merge", verb="merge", options=merge)),
    )
    plan = pipelines.plan_pipeline(pipeline, "abcdefgh")
    assert str(tmp_path / "merged") in plan.outputs
    run = pipelines.start_pipeline(pipeline)
    monkeypatch.chdir("/")
    run.wait(60)
    assert [step.state for step in run.steps] == ["succeeded", "failed"]
    assert "trained" in [line.text for line in run.lines()]
    # the verb looked beside the user, not in the node's folder
    assert not any("runs/" in line.text for line in run.lines() if "nowhere" in line.text and line.stream == "stderr")


def test_secrets_of_steps_reach_their_own_step_filled_in() -> None:
    one = PyTorchDistributedRuntime(command='echo "$AUTH" | cut -c1-9; echo "${#AUTH}"').with_environment_variable(
        HF_TOKEN="a" * 16, AUTH="Bearer ${HF_TOKEN}"
    )
    two = PyTorchDistributedRuntime(command='echo "length ${#HF_TOKEN}"')
    three = two.with_environment_variable(HF_TOKEN="b" * 20)
    steps = tuple(
        PipelineStep(name=f"s{n}", job=JobSpec(runtime=runtime)) for n, runtime in enumerate((one, two, three))
    )
    run = pipelines.start_pipeline(PipelineSpec(name="p", steps=steps))
    assert run.wait(60).state == "succeeded"
    said = [line.text for line in run.lines() if line.stream == "stdout"]
    assert said[1:] == ["23", "length 0", "length 20"]
    kept = [path for path in Store().folder.rglob("*") if path.is_file() and b"aaaaaaaaaaaaaaaa" in path.read_bytes()]
    assert kept == []


def test_step_names_never_collide_with_later_attempts(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = JobSpec(runtime=PyTorchDistributedRuntime(command=f"test -e {gate}"))
    other = JobSpec(runtime=PyTorchDistributedRuntime(command="echo second ran"))
    pipeline = PipelineSpec(name="p", steps=(PipelineStep(name="a", job=job), PipelineStep(name="a-2", job=other)))
    run = pipelines.start_pipeline(pipeline)
    assert run.wait(60).state == "failed"
    gate.touch()
    again = pipelines.resume_pipeline(runs.get(run.id))
    assert again.wait(60).state == "succeeded"
    assert "second ran" in [line.text for line in again.lines()]


def test_a_missing_variable_of_a_later_step_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    bare = PyTorchDistributedRuntime(command="true", env=(EnvironmentVariable(name="NOT_SET_HERE"),))
    steps = (
        PipelineStep(name="one", job=JobSpec(runtime=PyTorchDistributedRuntime(command="true"))),
        PipelineStep(name="two", job=JobSpec(runtime=bare)),
    )
    with pytest.raises(UsageError, match="NOT_SET_HERE"):
        pipelines.start_pipeline(PipelineSpec(name="p", steps=steps))
    with pytest.raises(UsageError, match="NOT_SET_HERE"):
        jobs.start(JobSpec(runtime=bare))
    assert runs.runs() == []


def test_notes_of_a_pipeline_stand_where_the_file_has_them() -> None:
    token = PyTorchDistributedRuntime(command="true").with_environment_variable(A_TOKEN="x")
    steps = (
        PipelineStep(name="last", job=JobSpec(runtime=token), needs=("first",)),
        PipelineStep(name="first", job=JobSpec(runtime=PyTorchDistributedRuntime(command="true"))),
    )
    plan = pipelines.plan_pipeline(PipelineSpec(name="p", steps=steps), "abcdefgh")
    assert [notice.path for notice in plan.warnings] == ["spec.steps[0].job.runtime.spec.env"]


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(CloudtuneError, match="cannot be used"):
        runs.runs()


def test_runs_of_a_job_are_found_by_its_filled_in_name() -> None:
    job = Job(name="train ${WHAT}").with_runtime(
        PyTorchDistributedRuntime(command="true").with_environment_variable(WHAT="llama")
    )
    run = job.run(wait=True)
    assert run.name == "train llama"
    assert [one.id for one in job.run_list()] == [run.id]


def test_clouds_can_be_planned_where_local_runs_cannot() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import cloudtune.verbs; from cloudtune import Job; print(Job)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


IN_A_CLOUD = """
spec:
  name: j
  infrastructure:
    kind: infrastructure
    type: sageMakerTrainingJob
    spec:
      region: us-west-2
      roleArn: arn:aws:iam::123456789012:role/trainer
      instanceType: ml.m5.large
      image: 123456789012.dkr.ecr.us-west-2.amazonaws.com/torch:1
      outputPath: s3://bucket/j
"""
A_JOB = "kind: job" + IN_A_CLOUD + "  runtime: {kind: runtime, type: pyTorchDistributed, spec: {command: echo}}\n"
A_STEP = (
    "kind: pipeline"
    + IN_A_CLOUD
    + "  steps: [{name: s, job: {runtime: {kind: runtime, type: pyTorchDistributed, spec: {command: echo}}}}]\n"
)


@pytest.mark.parametrize("text", [A_JOB, A_STEP], ids=["job", "pipeline"])
def test_who_lacks_a_package_is_told_before_a_run_is_recorded(text: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    code = (
        "import sys; sys.modules['botocore'] = sys.modules['boto3'] = None; import cloudtune\n"
        "try:\n    cloudtune.run(sys.argv[1])\n"
        "except cloudtune.CloudtuneError as error:\n    print(error)\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "spec.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert 'pip install "cloudtune[aws]"' in done.stdout, done.stdout + done.stderr
    assert not Store().runs()
