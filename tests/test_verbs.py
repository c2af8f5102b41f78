"""Verbs as functions."""

from __future__ import annotations

import inspect
import json
import shutil
import time
from pathlib import Path
from typing import Any

import click
import pytest

import cloudtune
from cloudtune import verbs
from cloudtune.cli import cli
from cloudtune.errors import UsageError
from cloudtune.plan import Plan
from cloudtune.runs import Run
from cloudtune.store import Deployment, Model, Record, Store
from tests.registries.models import safetensors

#: Options of the command line that say how an answer is printed, or that a function is itself.
OF_THE_TERMINAL = {"output", "quiet", "detach", "help", "all"}
#: Arguments of functions that a command line has no word for.
OF_PYTHON = {"progress", "announce", "show", "follow", "directory"}


def job_file(folder: Path, command: str, **spec: Any) -> Path:
    file = folder / f"{len(list(folder.iterdir()))}.json"
    runtime = {"type": "pyTorchDistributed", "spec": {"command": command, **spec}}
    file.write_text(json.dumps({"kind": "job", "spec": {"name": "j", "runtime": runtime}}))
    return file


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors())
    return folder


@pytest.mark.parametrize("verb", cli.list_commands(click.Context(cli)))
def test_a_verb_and_its_function_have_the_same_options(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    words = set()
    for option in command.params:
        name = (option.name or "").rstrip("_")
        if name == "place_and_form":
            name = "directory" if verb == "outputs" else "place"
        words.add({"runs": "run", "place": "output", "job": "file"}.get(name, name))
    function = getattr(cloudtune, verb)
    kept = {name.rstrip("_") for name in inspect.signature(function).parameters}
    assert words - OF_THE_TERMINAL <= kept
    assert kept - OF_PYTHON <= words


def test_two_runs_are_compared_by_their_plans(tmp_path: Path) -> None:
    one = cloudtune.run(job_file(tmp_path, "true"))
    two = cloudtune.run(job_file(tmp_path, "true", replicas=2, outputLayout="shared"))
    found = cloudtune.diff(one.id, two.id[:7])
    assert (found.first.name, found.second.name) == (one.id, two.id)
    paths = [path for path, _, _ in found.differences]
    assert "launch.nodes" in paths
    assert "runId" in paths
    assert "spec.runtime.spec.replicas" in found.second.supported
    assert "spec.runtime.spec.replicas" not in found.first.supported
    assert one.wait(60).state == two.wait(60).state == "succeeded"


def test_a_job_is_compared_in_two_places(tmp_path: Path) -> None:
    file = job_file(tmp_path, "true")
    for name, kind in (("cloud", "sageMakerTrainingJob"), ("here", "local")):
        spec = {"instanceType": "ml.g5.12xlarge"} if name == "cloud" else {}
        place = {"kind": "infrastructure", "type": kind, "spec": spec}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(place))
    cloud = str(tmp_path / "cloud.yaml")
    found = cloudtune.diff(file=file, infrastructure=[str(tmp_path / "here.yaml"), cloud])
    assert found.first.notes("refused") == ()
    assert found.second.notes("refused")[0][0] == "spec.infrastructure.spec.region"
    assert "spec.infrastructure.spec.instanceType" in found.second.supported
    assert ("backend", "local", "sagemaker") in found.differences
    own = cloudtune.diff(file=file, infrastructure=cloud)
    assert own.first.name == str(file)
    assert own.differences == found.differences


PLACES: dict[str, tuple[str, dict[str, str]]] = {
    "here": ("local", {}),
    "oci": ("dataScienceJob", {"shapeName": "VM.GPU.A10.2"}),
    "sagemaker": ("sageMakerTrainingJob", {"instanceType": "ml.g5.12xlarge"}),
    "cluster": ("eksJob", {"context": "c", "image": "i", "instanceType": "g5.12xlarge"}),
}


def test_a_job_is_compared_in_all_four_places(tmp_path: Path) -> None:
    file = job_file(tmp_path, "true", inputs={"s3://b/rows": "rows"}, freeformTags={"a": "b"})
    for name, (kind, spec) in PLACES.items():
        place = {"kind": "infrastructure", "type": kind, "spec": spec}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(place))
    found = cloudtune.diff(file=file, infrastructure=[str(tmp_path / f"{name}.yaml") for name in PLACES])
    assert [side.plan["backend"] for side in found.sides] == ["local", "oci", "sagemaker", "eks"]
    assert ("backend", "local", "oci", "sagemaker", "eks") in found.differences
    assert all(len(row) == 5 for row in found.differences)
    local, oci, sagemaker, eks = (side.fields() for side in found.sides)
    assert "spec.runtime.spec.freeformTags.a" in local["supported"]
    assert "spec.infrastructure.spec.compartmentId" in str(oci["refused"])
    assert "spec.infrastructure.spec.roleArn" in str(sagemaker["refused"])
    assert eks["refused"] == []
    assert "spec.runtime.spec.freeformTags" in str(eks["approximated"])
    assert "spec.runtime.spec.inputs.s3://b/rows" in eks["supported"]


def test_a_comparison_needs_two_sides(tmp_path: Path) -> None:
    file = job_file(tmp_path, "true")
    for runs, more in (
        ((), {}),
        (("a",), {}),
        (("a", "b", "c"), {}),
        ((), {"file": file}),
        (("a", "b"), {"file": file, "infrastructure": ["local"]}),
        (("a", "b"), {"infrastructure": ["local"]}),
    ):
        with pytest.raises(cloudtune.UsageError, match="name two runs, or a job and its places"):
            cloudtune.diff(*runs, **more)  # type: ignore[arg-type]


def test_a_dry_run_is_the_plan(tmp_path: Path) -> None:
    file = job_file(tmp_path, "true", replicas=2)
    plan = cloudtune.run(file, dry_run=True)
    assert isinstance(plan, Plan)
    assert plan.to_json() == verbs.plan(verbs.read(file)).to_json()
    assert cloudtune.list() == []
    with pytest.raises(cloudtune.UsageError, match="nothing to run"):
        cloudtune.run(dry_run=True)


def test_the_id_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    run = cloudtune.run(
        job_file(tmp_path, "true"), announce=lambda run_id: told.append((run_id, len(Store().journal(run_id))))
    )
    assert told == [(run.id, 0)]


def test_watching_can_be_narrowed_down(tmp_path: Path) -> None:
    file = job_file(tmp_path, 'for i in 1 2 3; do echo "node $CLOUDTUNE_NODE_RANK line $i"; done', replicas=2)
    run = cloudtune.run(file)
    run.wait(60)
    shown: list[str] = []
    assert cloudtune.watch(run.id, replica=1, grep="^node", tail=2, show=shown.append).state == "succeeded"
    assert shown == ["[1/1] node 1 line 2", "[1/1] node 1 line 3", f"run {run.id} succeeded"]
    shown.clear()
    cloudtune.watch(run.id, since=time.time() + 60, show=shown.append)
    assert shown == [f"run {run.id} succeeded"]
    for ask in (cloudtune.logs, cloudtune.watch):
        with pytest.raises(UsageError, match="there is no replica 7: the run has replicas 0 to 1"):
            list(ask(run.id, replica=7))


def never_submitted(run_id: str = "abcdefgh") -> str:
    now = time.time()
    Store().add_run(Record(id=run_id, name="j", backend="local", state="pending", created=now, updated=now))
    return run_id


def test_a_run_that_was_never_fully_submitted_says_how_to_go_on() -> None:
    shown: list[str] = []
    assert cloudtune.watch(never_submitted(), show=shown.append).state == "pending"
    assert shown[0] == "run abcdefgh pending"
    assert "cloudtune run --resume abcdefgh" in shown[1]


def test_continuing_wants_the_same_kind_of_file(tmp_path: Path) -> None:
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text("kind: pipeline\nspec: {name: p, steps: [{name: m, merge: {base: b, adapter: a}}]}\n")
    with pytest.raises(cloudtune.UsageError, match="run abcdefgh is a job, and the file a pipeline"):
        cloudtune.run(pipeline, resume=never_submitted())


def test_models_and_deployments_are_listed_too() -> None:
    store = Store()
    for name, created in (("old", 1.0), ("new", 2.0)):
        store.add_model(Model(name=f"{name}-model", version="1", uri="/x", created=created))
        details = {"name": name, "url": "", "model": "m", "mark": f"serve-none-{name}", "pid": 0, "log": "l"}
        store.add_deployment(Deployment(name=name, backend="local", model="m", created=created, details=details))
    assert [model.name for model in cloudtune.list(models=True)] == ["new-model", "old-model"]
    assert [model.name for model in cloudtune.list(models=True, name="old")] == ["old-model"]
    assert [model.name for model in cloudtune.list(models=True, since=1.5)] == ["new-model"]
    assert [one.name for one in cloudtune.list(deployments=True, limit=1)] == ["new"]
    assert [one.name for one in cloudtune.list(deployments=True, state=["lost"])] == ["new", "old"]
    assert cloudtune.list(deployments=True, state=["running"]) == ()
    assert cloudtune.list(deployments=True, backend="oci") == ()
    with pytest.raises(cloudtune.UsageError, match="since, name and limit only"):
        cloudtune.list(models=True, state=["running"])  # type: ignore[call-overload]


def test_outputs_are_listed_and_downloaded(tmp_path: Path) -> None:
    command = 'mkdir -p "$CLOUDTUNE_OUTPUT_DIR/deep"; echo one > "$CLOUDTUNE_OUTPUT_DIR/deep/a.txt"'
    run = cloudtune.run(job_file(tmp_path, command))
    run.wait(60)
    listed = cloudtune.outputs(run.id)
    assert [one["bytes"] for one in listed if one["uri"].endswith("deep/a.txt")] == [4]
    cloudtune.outputs(run.id, directory=tmp_path / "here")
    assert (tmp_path / "here" / "deep" / "a.txt").read_text() == "one\n"
    with pytest.raises(cloudtune.UsageError, match="is there already"):
        cloudtune.outputs(run.id, directory=tmp_path / "here")
    cloudtune.outputs(run.id, directory=tmp_path / "here", force=True)


def run_with_outputs(folder: Path) -> Run:
    run = cloudtune.run(job_file(folder, 'echo 1 > "$CLOUDTUNE_OUTPUT_DIR/a"', outputUri=str(folder / "mine")))
    assert run.wait(60).state == "succeeded"
    return run


def test_outputs_in_a_place_of_the_users_own_go_when_asked_for(tmp_path: Path) -> None:
    run = run_with_outputs(tmp_path)
    assert (tmp_path / "mine" / "a").exists()
    deleted = cloudtune.delete(run.id, outputs=True)
    assert (deleted.kind, deleted.name, deleted.kept) == ("run", run.id, ())
    assert [uri.removeprefix("file://") for uri in deleted.removed] == [str(tmp_path / "mine")]
    assert not (tmp_path / "mine").exists()
    assert cloudtune.list() == []


def test_outputs_stay_unless_asked_for_and_it_is_said_where(tmp_path: Path) -> None:
    run = run_with_outputs(tmp_path)
    deleted = cloudtune.delete(run.id)
    assert [uri.removeprefix("file://") for uri in deleted.kept] == [str(tmp_path / "mine")]
    assert (tmp_path / "mine" / "a").exists()


def test_nothing_of_a_run_that_goes_on_is_deleted(tmp_path: Path) -> None:
    gate, place = tmp_path / "gate", tmp_path / "mine"
    place.mkdir()
    (place / "kept").touch()
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    run = cloudtune.run(job_file(tmp_path, wait, outputUri=str(place)))
    with pytest.raises(cloudtune.UsageError, match="cancel"):
        cloudtune.delete(run.id, outputs=True)
    assert (place / "kept").exists()
    gate.touch()
    run.wait(60)


def test_a_model_of_several_versions_is_deleted_by_version_or_whole(tmp_path: Path, home: Path) -> None:
    source = model_folder(tmp_path / "m")
    for _ in range(3):
        cloudtune.register(str(source), name="mine")
    with pytest.raises(cloudtune.UsageError, match="has the versions 3, 2, 1") as caught:
        cloudtune.delete("mine", outputs=True)
    assert "mine:3" in str(caught.value)
    assert "--all-versions" in str(caught.value)
    deleted = cloudtune.delete("mine:2", outputs=True)
    assert deleted.removed == (f"file://{home}/models/mine/2",)
    assert [model.version for model in cloudtune.models("mine")] == ["3", "1"]
    shutil.rmtree(home / "models" / "mine" / "1")
    deleted = cloudtune.delete("mine", all_versions=True)
    assert deleted.kept == (f"file://{home}/models/mine/3",)
    assert cloudtune.models("mine") == ()


def test_a_deployment_goes_before_the_model_of_its_name(tmp_path: Path) -> None:
    cloudtune.register(str(model_folder(tmp_path / "m")), name="mine")
    details = {"name": "mine", "url": "u", "model": "m", "mark": "serve-none", "pid": 0, "log": "l"}
    Store().add_deployment(Deployment(name="mine", backend="local", model="m", details=details))
    deleted = cloudtune.delete("mine", outputs=True)
    assert (deleted.kind, deleted.removed, deleted.kept) == ("deployment", (), ("model mine:1",))
    assert cloudtune.list(deployments=True) == ()
    assert cloudtune.delete("mine").kind == "model"


def test_a_step_that_is_not_there_is_answered_with_those_that_are() -> None:
    now = time.time()
    for run_id, parent, handle in (
        ("pipeline", None, "local:///pipeline/pipeline"),
        ("pipeline-train", "pipeline", None),
    ):
        Store().add_run(
            Record(
                id=run_id,
                name="p",
                backend="local",
                state="failed",
                created=now,
                updated=now,
                parent=parent,
                handle=handle,
            )
        )
    with pytest.raises(cloudtune.RunNotFound) as caught:
        cloudtune.status("pipeline-tra")
    assert "pipeline is pipeline, with the steps pipeline-train" in str(caught.value)
    with pytest.raises(cloudtune.RunNotFound, match="cloudtune list"):
        cloudtune.status("other-tra")
    assert cloudtune.status("pipeline-train").id == "pipeline-train"


def test_a_run_that_is_called_by_its_jobs_name_is_answered_with_its_id() -> None:
    run_id = never_submitted()
    with pytest.raises(cloudtune.RunNotFound, match=f"the newest of that name: {run_id}"):
        cloudtune.status("j")


def test_what_is_unknown_is_said() -> None:
    for what in ("nothing", "nothing:1"):
        with pytest.raises(cloudtune.RunNotFound, match=f"no run, model or deployment {what}"):
            cloudtune.delete(what)
    with pytest.raises(cloudtune.RunNotFound, match="deployment"):
        cloudtune.invoke("nothing", "hello")
    with pytest.raises(cloudtune.UsageError, match="neither a registered model nor a folder"):
        cloudtune.deploy("nothing")
    with pytest.raises(cloudtune.UsageError, match="registries of this release"):
        cloudtune.register("x", to="nowhere", name="x")


def test_ready_made_files_are_written_once(tmp_path: Path) -> None:
    (written,) = cloudtune.init("quickstart", directory=tmp_path)
    assert verbs.plan(verbs.read(written)).name == "quickstart"
    with pytest.raises(cloudtune.UsageError, match="--force"):
        cloudtune.init("quickstart", directory=tmp_path)


def test_a_file_that_looks_like_a_credential_stops_the_run_unless_named(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "main.py").write_text("print('ran')\n")
    (code / ".env").write_text("DATABASE_PASSWORD=" + "x9" * 10 + "\n")
    file = tmp_path / "job.json"
    spec = {"runtime": {"type": "python", "spec": {"scriptPathURI": str(code), "entrypoint": "main.py"}}}
    file.write_text(json.dumps({"kind": "job", "spec": spec}))
    with pytest.raises(cloudtune.SpecError, match=r"\.env"):
        cloudtune.run(str(file))
    assert cloudtune.run(str(file), allow_file=[".env"]).wait(60).state == "succeeded"
