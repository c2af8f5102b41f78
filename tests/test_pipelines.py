"""Pipelines of tiny jobs: order, references, failure, continuation, cancelling."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from cloudtune import pipelines, runs
from cloudtune.errors import CloudtuneError, ServiceError, SpecError
from cloudtune.home import runs_folder
from cloudtune.spec.infrastructure import DataScienceJob, LocalJob, StorageMount
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.states import Status
from tests.processes import eventually, running


def step(name: str, command: str, **more: object) -> PipelineStep:
    job = JobSpec(name=name, runtime=PyTorchDistributedRuntime(command=command))
    return PipelineStep(name=name, job=job, **more)  # type: ignore[arg-type]


WRITE = 'echo "data of one" > "$CLOUDTUNE_OUTPUT_DIR/data.txt"'
READ = 'cat "${steps.one.outputs}/data.txt"; cp "${steps.one.outputs}/data.txt" "$CLOUDTUNE_OUTPUT_DIR/copy.txt"'


def test_a_step_reads_what_an_earlier_one_left() -> None:
    run = pipelines.start_pipeline(PipelineSpec(name="two", steps=(step("two", READ), step("one", WRITE))))
    lines = list(run.lines(follow=True))
    assert run.wait(60).state == "succeeded"
    assert [one.id for one in run.steps] == [f"{run.id}-one", f"{run.id}-two"]
    assert ("two", "data of one") in [(line.step, line.text) for line in lines]
    copies = [Path(uri) / "copy.txt" for uri in run.outputs() if (Path(uri) / "copy.txt").exists()]
    assert [path.read_text() for path in copies] == ["data of one\n"]
    assert run.to_dict()["steps"][1]["state"] == "succeeded"


def test_the_plan_is_flat_and_stable() -> None:
    pipeline = PipelineSpec(name="two", steps=(step("one", WRITE), step("two", READ)))
    plan = pipelines.plan_pipeline(pipeline, pipelines.dry_run_id(pipeline))
    assert plan.to_json() == pipelines.plan_pipeline(pipeline, pipelines.dry_run_id(pipeline)).to_json()
    ids = [one["id"] for one in plan.to_dict()["steps"]]
    assert ids == ["pipeline.stage", "pipeline.run", "one.stage", "one.run", "two.stage", "two.run"]
    assert set(plan.to_dict()["launches"]) == {"one", "two"}
    assert plan.to_dict()["steps"][5]["parameters"]["runId"] == "${two.stage.runId}"
    assert f"{plan.run_id}-one/outputs/data.txt" in plan.to_json()


def test_each_placeholder_is_told_once_and_where_it_was_written() -> None:
    oci = DataScienceJob(
        compartment_id="ocid1.compartment.oc1..xxxxxx", project_id="<project>", shape_name="VM.GPU.A10.1"
    )
    runtime = PyTorchDistributedRuntime(command="make", output_uri="oci://<bucket>@namespace/one")
    further = attrs.evolve(runtime, inputs={"${steps.one.outputs}/data": "data"}, output_uri="oci://b@n/two")
    merge = {"base": "org/base", "adapter": ("${steps.two.outputs}/adapter",), "output": "oci://<bucket>@n/merged"}
    steps = (
        PipelineStep(name="one", job=JobSpec(runtime=runtime)),
        PipelineStep(name="two", job=JobSpec(runtime=further), needs=("one",)),
        PipelineStep(name="merge", verb="merge", options=merge, needs=("two",)),
        PipelineStep(name="check", verb="check", options={"model": "${steps.merge.outputs}"}, needs=("merge",)),
    )
    pipeline = PipelineSpec(name="p", infrastructure=oci, steps=steps)
    told = [one.path for one in pipelines.plan_pipeline(pipeline, "abcdefgh").warnings if "placeholder" in one.message]
    assert sorted(told) == [
        "spec.infrastructure.spec.compartmentId",
        "spec.infrastructure.spec.projectId",
        "spec.steps[0].job.runtime.spec.outputUri",
        "spec.steps[2].merge.output",
    ]


def test_a_failed_step_ends_the_pipeline_and_can_be_continued(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    counted = tmp_path / "count"
    first = f"echo x >> {counted}"
    second = f"echo trying; test -e {gate} || exit 4"
    run = pipelines.start_pipeline(
        PipelineSpec(name="p", steps=(step("one", first), step("two", second, needs=("one",))))
    )
    status = run.wait(60)
    assert status.state == "failed"
    assert "step two failed" in (status.reason or "")
    assert status.failure is not None
    assert status.failure.exit_code == 4
    gate.touch()
    again = pipelines.resume_pipeline(runs.get(run.id))
    assert again.wait(60).state == "succeeded"
    assert counted.read_text() == "x\n"
    assert [one.id for one in again.steps] == [f"{run.id}-one", f"{run.id}-two", f"{run.id}-two-2"]


def test_cancel_ends_the_running_step() -> None:
    run = pipelines.start_pipeline(PipelineSpec(name="p", steps=(step("one", "sleep 76543.21"), step("two", "true"))))
    eventually(lambda: running("sleep 76543.21"))
    assert run.cancel().state == "cancelled"
    assert running("sleep 76543.21") == []
    assert [one.id for one in run.steps] == [f"{run.id}-one"]
    run.delete(outputs=True)
    assert runs.runs() == []
    assert list(runs_folder().iterdir()) == []


def test_a_killed_conductor_can_be_followed_up(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done; {WRITE}"
    run = pipelines.start_pipeline(PipelineSpec(name="p", steps=(step("one", wait), step("two", READ))))
    eventually(lambda: run.steps and run.steps[0].state == "running")
    os.kill(json.loads((runs_folder() / run.id / "state.json").read_text())["pid"], signal.SIGKILL)
    assert eventually(lambda: runs.get(run.id).state == "lost")
    gate.touch()
    again = pipelines.resume_pipeline(runs.get(run.id))
    assert again.wait(60).state == "succeeded"
    assert [one.id for one in again.steps] == [f"{run.id}-one", f"{run.id}-two"]


def test_a_verb_that_lacks_something_is_refused_before_anything_runs() -> None:
    options = {"oddTurn": "skip", "data": "rows.jsonl"}
    for given, place in (({}, "spec.steps[0].prepare.data"), (options, "spec.steps[0].prepare.oddTurn")):
        pipeline = PipelineSpec(name="p", steps=(PipelineStep(name="c", verb="prepare", options=given),))
        with pytest.raises(SpecError) as raised:
            pipelines.start_pipeline(pipeline)
        assert [fault.path for fault in raised.value.faults] == [place]
    assert runs.runs() == []


def test_rows_are_prepared_as_a_step_and_the_next_one_reads_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
    odd = [*turns, {"role": "user", "content": "Really?"}]
    Path("rows.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in (turns, odd, turns)))
    options = {"data": "rows.jsonl", "systemMessage": "Be kind.", "badRows": "skip", "output": "rows"}
    prepare = PipelineStep(name="rows", verb="prepare", options=options)
    read = step("count", "wc -l < ${steps.rows.outputs}/train.jsonl", needs=("rows",))
    run = pipelines.start_pipeline(PipelineSpec(name="p", steps=(prepare, read)))
    assert run.wait(60).state == "succeeded"
    assert "2" in [line.text.strip() for line in run.lines()]
    rows = [json.loads(line) for line in Path("rows/train.jsonl").read_text().splitlines()]
    assert rows == [{"messages": [{"role": "system", "content": "Be kind."}, *turns]}] * 2


def test_rows_of_this_machine_cannot_be_prepared_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    place = DataScienceJob(shape_name="VM.Standard2.1")
    rows = PipelineStep(name="r", verb="prepare", options={"data": f"{tmp_path}/rows.jsonl"}, infrastructure=place)
    with pytest.raises(SpecError, match="is on this machine, and the step runs elsewhere") as raised:
        pipelines.plan_pipeline(PipelineSpec(name="p", steps=(rows,)), "r")
    assert [fault.path for fault in raised.value.faults] == ["spec.steps[0].prepare.data"]


def test_rows_in_a_bucket_are_an_input_of_the_step_and_go_to_a_bucket() -> None:
    options = {"data": "s3://b/raw/rows.jsonl", "output": "s3://b/rows"}
    rows = PipelineStep(name="rows", verb="prepare", options=options)
    plan = pipelines.plan_pipeline(PipelineSpec(name="p", steps=(rows, step("next", "true", needs=("rows",)))), "r")
    order = next(one.parameters["order"] for one in plan.steps if one.id == "rows.stage")
    assert order["inputs"] == {"s3://b/raw/rows.jsonl": "input-data/rows.jsonl"}
    assert order["outputs"]["uri"] == "s3://b/rows"
    assert "input-data/rows.jsonl" in str(order["command"])


def test_literal_secrets_reach_the_step_and_no_file() -> None:
    secret = "s" * 24
    runtime = PyTorchDistributedRuntime(command='test "${#MY_TOKEN}" = 24 && echo "got it"').with_environment_variable(
        MY_TOKEN=secret
    )
    run = pipelines.start_pipeline(
        PipelineSpec(name="p", steps=(PipelineStep(name="one", job=JobSpec(runtime=runtime)),))
    )
    assert run.wait(60).state == "succeeded"
    assert "got it" in [line.text for line in run.lines()]
    kept = [path for path in runs_folder().parent.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert kept == []


def test_what_is_wrong_in_any_step_is_told_at_its_place_in_the_file() -> None:
    job = JobSpec(runtime=PyTorchDistributedRuntime(command="true"))
    lost = JobSpec(runtime=PyTorchDistributedRuntime(command="true", script_path_uri="nowhere/at/all"))
    place = DataScienceJob(shape_name="VM.Standard2.1", storage_mount=(StorageMount(src="s3://b/x", dest="x"),))
    mounted = "spec.infrastructure.spec.storageMount[0].src"
    steps = (
        PipelineStep(name="one", job=job),
        PipelineStep(name="two", job=lost, infrastructure=LocalJob()),
        PipelineStep(name="three", job=job, infrastructure=place),
        PipelineStep(name="four", job=attrs.evolve(job, infrastructure=place)),
    )
    pipeline = PipelineSpec(name="p", infrastructure=place, steps=steps)
    with pytest.raises(SpecError) as caught:
        pipelines.plan_pipeline(pipeline, "abcdefgh")
    assert [fault.path for fault in caught.value.faults] == [
        mounted,
        "spec.steps[1].job.runtime.spec.scriptPathURI",
        mounted.replace("spec.", "spec.steps[2].", 1),
        mounted.replace("spec.", "spec.steps[3].job.", 1),
    ]
    with pytest.raises(SpecError, match=r"spec\.steps\[1\]\.job\.runtime\.spec\.scriptPathURI: nowhere"):
        pipelines.dry_run_id(pipeline)


def test_a_place_that_is_away_for_a_while_ends_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    away = ServiceError("no network", service="process", operation="describe", definite=False)

    class Away:
        """A run whose place answers the third time."""

        id = "abcdefgh"
        look_s = (0.0, 0.0)
        answers: ClassVar[list[Any]] = [away, away, Status(state="running"), away, Status(state="succeeded")]

        @property
        def status(self) -> Status:
            answer = self.answers.pop(0)
            if isinstance(answer, CloudtuneError):
                raise answer
            assert isinstance(answer, Status)
            return answer

        def cancel(self) -> Status:
            return self.status

    assert pipelines._end_of(Away(), lambda: False).state == "succeeded"  # type: ignore[arg-type]
    Away.answers = [away, away, Status(state="stopping")]
    assert pipelines._end_of(Away(), lambda: True).state == "stopping"  # type: ignore[arg-type]
    Away.answers = [away, Status(state="succeeded")]
    monkeypatch.setattr(pipelines, "PATIENCE_S", 0.0)
    with pytest.raises(ServiceError, match="no network"):
        pipelines._end_of(Away(), lambda: False)  # type: ignore[arg-type]
