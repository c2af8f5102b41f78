"""A job's file: faults, placeholders, what the plan says, files and models that it names."""

from __future__ import annotations

import json

import pytest

from cloudtune.diagnosis import document, hub


def job(folder, *, place=None, name="job.yaml", **runtime):
    spec = {key: value for key, value in {"command": "torchrun train.py", **runtime}.items() if value is not None}
    data = {
        "kind": "job",
        "spec": {"name": "j", "runtime": {"kind": "runtime", "type": "pyTorchDistributed", "spec": spec}},
    }
    if place is not None:
        data["spec"]["infrastructure"] = {"kind": "infrastructure", "type": place[0], "spec": place[1]}
    file = folder / name
    file.write_text(json.dumps(data))
    return file


def read(file, environ=None, **options):
    return document.read(file, environ=environ or {}, **options)


def problems(found):
    return [(one.where, one.message) for one in found.findings if one.status == "problem"]


def test_all_faults_of_a_file_are_problems_with_their_places(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("kind: job\nspec:\n  name: 3\n  runtime: {type: python, spec: {replica: 2}}\n")
    found = read(file)
    assert found.subjects == ()
    where = [one.where for one in found.findings]
    assert where[0] == f"{file}:3:9: spec.name"
    assert {one.status for one in found.findings} == {"problem"}
    assert any("did you mean 'replicas'" in one.hint for one in found.findings)
    (missing,) = read(tmp_path / "jobs.yaml").findings
    assert missing.message == "there is no such file"


def test_a_good_job_can_be_planned(tmp_path):
    found = read(job(tmp_path, replicas=2, processesPerNode=3))
    (ok,) = found.findings
    assert (ok.status, ok.message) == ("ok", "j on local can be planned: 2 steps, 2 x 3 processes on CPU")
    (subject,) = found.subjects
    assert (subject.path, subject.launch.world_size) == ("spec", 6)


def test_options_change_the_file_as_they_do_for_a_run(tmp_path):
    found = read(job(tmp_path), set=["spec.runtime.spec.replicas=4"], env=["A=b"])
    (subject,) = found.subjects
    assert subject.launch.nodes == 4
    assert [variable.name for variable in subject.job.runtime.env] == ["A"]


def test_what_keeps_a_run_from_starting_is_a_problem(tmp_path):
    found = read(job(tmp_path, env={"TOKEN": "<your token>"}, inputs={"gone.jsonl": "data"}))
    assert problems(found) == [
        ("spec.runtime.spec.env[0].value", "'<your token>' is a placeholder: fill it in"),
        ("spec.runtime.spec.inputs", "gone.jsonl does not exist"),
    ]
    found = read(job(tmp_path, scriptPathURI="gone"))
    assert problems(found) == [("spec.runtime.spec.scriptPathURI", "gone does not exist")]


def test_files_that_the_code_must_have_are_looked_for_in_its_folder(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    wanted = {"scriptPathURI": str(code), "entrypoint": "train.py", "dependencies": {"pipRequirements": "needs.txt"}}
    assert problems(read(job(tmp_path, command=None, **wanted))) == [
        ("spec.runtime.spec.entrypoint", f"train.py is not in {code}"),
        ("spec.runtime.spec.dependencies.pipRequirements", f"needs.txt is not in {code}"),
    ]
    (code / "train.py").write_text("")
    (code / "needs.txt").write_text("")
    assert problems(read(job(tmp_path, command=None, **wanted))) == []


def test_what_a_place_refuses_or_approximates_is_said(tmp_path):
    place = ("dataScienceJob", {"shapeName": "VM.GPU.A10.2", "stagingUri": "oci://b@n/", "compartmentId": "c"})
    found = read(job(tmp_path, place=place, inputs={str(tmp_path): "data"}))
    by_where = {one.where: one for one in found.findings}
    assert by_where["spec.infrastructure.spec.projectId"].status == "problem"
    assert by_where["spec.infrastructure.spec.stagingUri"].status == "warning"
    assert by_where["spec.infrastructure.spec.logGroupId"].status == "warning"
    assert "is a path here, not on nodes" in by_where["spec.runtime.spec.inputs"].message


def test_variables_of_the_shell_must_be_set(tmp_path):
    file = job(tmp_path)
    (problem,) = [one for one in read(file, env=["HF_TOKEN"]).findings if one.status == "problem"]
    assert problem.message == "HF_TOKEN should be read from the shell but is not set there"
    assert problems(read(file, environ={"HF_TOKEN": "x"}, env=["HF_TOKEN"])) == []


PIPELINE = """
kind: pipeline
spec:
  name: p
  steps:
    - name: train
      job:
        runtime:
          kind: runtime
          type: pyTorchDistributed
          spec:
            recipe: {name: sft, args: {model: meta-llama/Llama-3.1-8B, dataset: "<your data>", method: lora}}
    - name: merge
      needs: [train]
      merge: {base: meta-llama/Llama-3.1-8B, adapter: "${steps.train.outputs}"}
"""


def test_each_step_of_a_pipeline_is_looked_at(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    found = read(file)
    assert [(one.path, one.job.name) for one in found.subjects] == [("spec.steps[0].job", "train")]
    assert found.models == (("spec.steps[1].merge.base", "meta-llama/Llama-3.1-8B"),)
    assert [where for where, _ in problems(found)] == ["spec.steps[0].job.runtime.spec.recipe.args.dataset"]
    assert list(hub.models_of(found.subjects[0])) == [
        ("spec.steps[0].job.runtime.spec.recipe.args", "meta-llama/Llama-3.1-8B")
    ]


@pytest.mark.parametrize("text", ["gpt2/", "./folder/model", "oci://b@n/model", "a/b/c", "$MODEL_NAME", "model"])
def test_only_names_of_the_hub_are_its_models(text):
    assert not hub.is_hub_name(text)


def test_a_folder_of_that_name_goes_before_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_hub_name("me/model")
    (tmp_path / "me" / "model").mkdir(parents=True)
    assert not hub.is_hub_name("me/model")
