"""A spec made fit for a rehearsal, and which specs there is a stand-in for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune.errors import UsageError
from cloudtune.launch import launch
from cloudtune.rehearsal.oci.ocids import kind_of, new_ocid
from cloudtune.rehearsing.adapting import filled_in, jobs_of, offline, scaled
from cloudtune.rehearsing.clouds import STANDINS, kinds_of
from cloudtune.spec.document import load
from cloudtune.spec.infrastructure import DataScienceJob
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.placeholders import placeholders
from cloudtune.spec.runtimes import PyTorchDistributedRuntime

SPECS = Path(__file__).resolve().parents[2] / "specs"


def seed() -> JobSpec:
    job = load(SPECS / "oci-llama2-lora" / "job.yaml")
    assert isinstance(job, JobSpec)
    return job


def pipeline(*steps: str, infrastructure: str = "{kind: infrastructure, type: local}") -> PipelineSpec:
    rows = "\n".join(f"  - {step}" for step in steps)
    spec = load(f"kind: pipeline\nspec:\n  name: p\n  infrastructure: {infrastructure}\n  steps:\n{rows}\n")
    assert isinstance(spec, PipelineSpec)
    return spec


def test_a_job_gets_so_many_nodes_and_processes_at_most() -> None:
    job = seed()
    assert (launch(job).nodes, launch(job).processes_per_node) == (6, 2)
    for nodes, processes, expected in ((2, 1, (2, 1)), (None, 1, (6, 1)), (2, None, (2, 2)), (9, 9, (6, 2))):
        smaller = scaled(job, nodes=nodes, processes=processes)
        assert isinstance(smaller, JobSpec)
        how = launch(smaller)
        assert (how.nodes, how.processes_per_node) == expected
    assert scaled(job, nodes=None, processes=None) == job


def test_steps_of_a_pipeline_are_scaled_where_they_run() -> None:
    step = (
        "{name: train, job: {runtime: {kind: runtime, type: pyTorchDistributed, spec: {command: torchrun a.py, "
        "replicas: 3}}}}"
    )
    shape = "{kind: infrastructure, type: dataScienceJob, spec: {shapeName: VM.GPU.A10.2}}"
    smaller = scaled(pipeline(step, infrastructure=shape), nodes=2, processes=1)
    (job,) = jobs_of(smaller)
    assert (job.infrastructure.type, launch(job).nodes, launch(job).processes_per_node) == ("dataScienceJob", 2, 1)


def test_placeholders_of_the_surroundings_are_filled_in() -> None:
    job, values = filled_in(seed(), new_ocid)
    assert isinstance(job, JobSpec)
    assert list(placeholders(job)) == []
    place = job.infrastructure
    assert isinstance(place, DataScienceJob)
    kinds = [kind_of(getattr(place, name)) for name in ("compartment_id", "project_id", "subnet_id", "log_id")]
    assert kinds == ["compartment", "datascienceproject", "subnet", "log"]
    assert values["<namespace>"] == "namespace"
    (mount,) = place.storage_mount
    assert mount.src == "oci://bucket-to-save-finetuned-weights@namespace/llama2-ft-lora-13b/"


def test_the_same_placeholder_is_the_same_everywhere_also_in_options_of_verbs() -> None:
    spec = load(SPECS / "oci-llama2-lora" / "pipeline.yaml")
    assert isinstance(spec, PipelineSpec)
    filled, values = filled_in(spec, new_ocid)
    assert isinstance(filled, PipelineSpec)
    steps = {step.name: step for step in filled.steps}
    assert steps["merge"].options["output"] == "oci://your-bucket@your-namespace/llama2-lora/merged"
    train = next(jobs_of(filled))
    assert train.runtime is not None
    assert train.runtime.output_uri == "oci://your-bucket@your-namespace/llama2-lora/train"
    secrets = [kind_of(one.secret) for one in train.runtime.env if one.secret]
    assert secrets == ["vaultsecret"]
    assert set(values) >= {"<your-bucket>", "<your-namespace>", "<your vault secret ocid>"}


def test_what_is_trained_is_not_made_up() -> None:
    text = "{kind: job, spec: {runtime: {type: python, spec: {recipe: {name: sft, args: {model: <your model>}}}}}}"
    job, values = filled_in(load(text), new_ocid)
    assert isinstance(job, JobSpec)
    assert values == {}
    assert [text for _, text in placeholders(job)] == ["<your model>"]


def git(url: str) -> JobSpec:
    job = seed()
    assert isinstance(job.runtime, PyTorchDistributedRuntime)
    return job.with_runtime(job.runtime.with_git(url))


@pytest.mark.parametrize(
    "url", ["https://github.com/a/b.git", "git@github.com:a/b.git", "ssh://git@host/b", "http://localhost.example/b"]
)
def test_code_from_elsewhere_needs_the_network(url: str) -> None:
    with pytest.raises(UsageError, match="comes from another machine") as caught:
        offline(git(url))
    assert "--online" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["git://127.0.0.1:9418/b", "http://localhost:8080/b", "file:///home/me/b", "/home/me/b"]
)
def test_code_from_here_does_not(url: str) -> None:
    job, left_out = offline(git(url))
    assert isinstance(job, JobSpec)
    assert job.runtime is not None
    assert job.runtime.dependencies is None
    assert left_out == (
        "dependencies of LLAMA2-Fine-Tuning-lora-samsum-13b -> what this Python has (--online installs them)",
    )


@pytest.mark.parametrize(
    ("steps", "place", "kinds"),
    [
        (("{name: r, register: {model: m, to: oci, name: n}}",), "local", ("dataScienceJob",)),
        (
            ("{name: p, prepare: {data: rows.jsonl}, infrastructure: {kind: infrastructure, type: dataScienceJob}}",),
            "local",
            None,
        ),
        (("{name: j, job: {runtime: {type: python, spec: {recipe: {name: quickstart}}}}}",), "dataScienceJob", None),
        (("{name: r, register: {model: m, to: bedrock, name: n}}",), "local", ("sageMakerTrainingJob",)),
    ],
)
def test_the_clouds_of_jobs_and_verbs_are_staged(
    steps: tuple[str, ...], place: str, kinds: tuple[str, ...] | None
) -> None:
    spec = pipeline(*steps, infrastructure=f"{{kind: infrastructure, type: {place}}}")
    assert kinds_of(spec) == (kinds or ("dataScienceJob",))


def test_what_has_no_stand_in_or_needs_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    job = "{name: j, job: {runtime: {type: python, spec: {recipe: {name: quickstart}}}}}"
    register = "{name: r, register: {model: m, to: bedrock, name: n}}"
    both = pipeline(job, register, infrastructure="{kind: infrastructure, type: eksJob}")
    assert kinds_of(both) == ("eksJob",)  # it brings AWS's along
    monkeypatch.delitem(STANDINS, "eksJob")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no stand-in for eksJob") as caught:
        kinds_of(pipeline(job, infrastructure="{kind: infrastructure, type: eksJob}"))
    assert "dataScienceJob" in str(caught.value)
    with pytest.raises(UsageError, match="no stand-in for hub"):
        kinds_of(pipeline("{name: r, register: {model: m, to: hub, name: a/n}}"))
    with pytest.raises(UsageError, match="nothing to rehearse"):
        kinds_of(pipeline(job))
