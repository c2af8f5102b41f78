"""What a plan says of memory: nothing, unless it is certain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudtune import jobs, verbs
from cloudtune.plan import Plan
from cloudtune.spec.infrastructure import DataScienceJob, EKSJob, LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Recipe, ScriptRuntime

ROOT = Path(__file__).parents[2]
PLACE = {"compartment_id": "ocid1.compartment.oc1..x", "project_id": "ocid1.datascienceproject.oc1.iad.x"}
SPECS = sorted((ROOT / "specs").rglob("*.yaml"))


def memory_notes(plan: Plan) -> list[tuple[str, str]]:
    return [(one.path, one.message) for one in plan.warnings if " GB on each " in one.message]


def recipe(shape: str, nodes: int = 1, recipe: str = "sft", **args: Any) -> JobSpec:
    given = Recipe(name=recipe, args={"trainData": "rows.jsonl", **args})
    return JobSpec(
        name="j",
        infrastructure=DataScienceJob(shape_name=shape, **PLACE),
        runtime=PyTorchDistributedRuntime(replicas=nodes, recipe=given),
    )


def command(line: str, nodes: int = 1, shape: str = "VM.GPU.A10.1", **env: str) -> JobSpec:
    runtime = PyTorchDistributedRuntime(replicas=nodes, command=line).with_environment_variable(**env)
    return JobSpec(name="j", infrastructure=DataScienceJob(shape_name=shape, **PLACE), runtime=runtime)


def notes_of(job: JobSpec) -> list[tuple[str, str]]:
    return memory_notes(jobs.plan_job(job))


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: str(path.relative_to(ROOT / "specs")))
def test_the_ready_made_specs_fit(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(spec.parent)
    assert memory_notes(verbs.plan(verbs.read(spec))) == []


def test_a_model_that_is_too_large_is_said_with_what_would_fit() -> None:
    ((path, message),) = notes_of(recipe("VM.GPU.A10.2", 2, model="meta-llama/Llama-2-13b-hf", method="full"))
    assert path == "spec.runtime.spec.recipe.args"
    assert message.startswith("meta-llama/Llama-2-13b-hf, full fine-tuning, needs at least ")
    assert " GB on each A10 (22 GB): it will not fit; it would with method " in message


def test_sharding_and_adapters_make_it_fit() -> None:
    large = {"model": "meta-llama/Llama-2-13b-hf", "method": "full", "sharding": "fsdp"}
    assert notes_of(recipe("VM.GPU.A10.2", 2, **large)) != []
    assert notes_of(recipe("VM.GPU.A10.2", 6, **large)) == []
    assert notes_of(recipe("VM.GPU.A10.2", 6, **{**large, "method": "lora"})) == []
    assert notes_of(recipe("VM.GPU.A10.2", 1, model="Qwen/Qwen3-32B", method="lora", sharding="fsdp")) != []


def test_the_recipe_vision_always_shares_what_it_trains() -> None:
    large = {"recipe": "vision", "model": "meta-llama/Llama-3.2-11B-Vision-Instruct", "method": "full"}
    assert notes_of(recipe("VM.GPU.A10.1", 1, **large)) != []
    assert notes_of(recipe("VM.GPU.A10.2", 8, **large)) == []


def test_long_rows_are_a_condition() -> None:
    lora = {"model": "meta-llama/Llama-2-7b-hf", "method": "lora", "maxLength": 8192, "batchSize": 8}
    ((_, message),) = notes_of(recipe("VM.GPU.A10.2", **lora))
    assert "when it meets 8 rows of 8192 tokens; rows of up to about " in message
    ((_, message),) = notes_of(recipe("VM.GPU.A10.2", packing=True, **lora))
    assert "it will not fit; it would with " in message


def test_the_seed_of_two_gpus_does_not_fit_and_that_of_four_does() -> None:
    line = "torchrun llama_finetuning.py --enable_fsdp --pure_bf16 --batch_size_training 1 --model_name $MODEL_NAME"
    ((path, message),) = notes_of(command(line, nodes=2, MODEL_NAME="meta-llama/Llama-2-7b-hf"))
    assert path == "spec.runtime.spec.command"
    assert "meta-llama/Llama-2-7b-hf, full fine-tuning, needs at least 29 GB on each A10 (22 GB)" in message
    assert notes_of(command(line, nodes=4, MODEL_NAME="meta-llama/Llama-2-7b-hf")) == []


def test_a_folder_of_this_machine_is_known(tmp_path: Path) -> None:
    large = {"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80}
    large |= {"num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128_256}
    (tmp_path / "config.json").write_text(json.dumps(large))
    assert notes_of(recipe("VM.GPU.A10.2", model=str(tmp_path), method="qlora")) != []
    (tmp_path / "config.json").write_text(json.dumps({**large, "model_type": "brandnew"}))
    assert notes_of(recipe("VM.GPU.A10.2", model=str(tmp_path), method="qlora")) == []
    (tmp_path / "config.json").write_text("{")
    assert notes_of(recipe("VM.GPU.A10.2", model=str(tmp_path), method="qlora")) == []


HUGE = {"model": "meta-llama/Llama-3.1-405B", "method": "full"}


@pytest.mark.parametrize(
    "job",
    [
        recipe("VM.GPU.A10.2", model="nobody/nothing", method="full"),
        recipe("VM.GPU.A10.2", model="${steps.prepare.outputs}/model", method="full"),
        recipe("VM.GPU.A10.2", **HUGE, optimizer="magic"),
        recipe("VM.GPU.A10.2", **{**HUGE, "method": "$METHOD"}),
        recipe("VM.GPU.A10.2", **HUGE, maxLength="$LENGTH"),
        recipe("VM.GPU.A10.2", model="", method="full"),
        recipe("VM.Standard.E4.Flex", **HUGE),
        command("torchrun train.py --model_name meta-llama/Llama-3.1-405B"),
        command("torchrun train.py --model_name meta-llama/Llama-3.1-405B --use_lora --deepspeed zero3.json"),
        command("torchrun finetuning.py --enable_fsdp --model_name meta-llama/Llama-3.1-405B --fsdp_cpu_offload"),
        JobSpec(name="j", infrastructure=LocalJob(), runtime=ScriptRuntime(script_path_uri="a.sh")),
        JobSpec(
            name="j",
            infrastructure=LocalJob(),
            runtime=PyTorchDistributedRuntime(recipe=Recipe(name="sft", args={"trainData": "r", **HUGE})),
        ),
        JobSpec(
            name="j",
            infrastructure=EKSJob(cluster="c", image="i"),
            runtime=PyTorchDistributedRuntime(
                processes_per_node=1, recipe=Recipe(name="sft", args={"trainData": "r", **HUGE})
            ),
        ),
    ],
)
def test_what_is_unknown_is_passed_over_in_silence(
    job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.sh").touch()
    assert notes_of(job) == []


def test_a_machine_whose_memory_is_known_only_from_the_spec() -> None:
    job = recipe("VM.Standard.E4.Flex", **HUGE)
    place = job.infrastructure.with_shape_config_details(memory_in_gbs=64, ocpus=8)  # type: ignore[attr-defined]
    ((_, message),) = notes_of(job.with_infrastructure(place))
    assert "on each process (64 GB)" in message


def test_a_plan_stays_the_same_to_the_last_byte() -> None:
    job = recipe("VM.GPU.A10.2", 2, model="meta-llama/Llama-2-13b-hf", method="full")
    assert jobs.plan_job(job).to_json() == jobs.plan_job(job).to_json()
