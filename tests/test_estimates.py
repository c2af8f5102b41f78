"""The verb estimate, for Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from click.testing import CliRunner

import cloudtune
from cloudtune.cli import cli
from cloudtune.estimates import config_of
from cloudtune.memory.estimate import estimate as estimate_of
from cloudtune.memory.families import architecture
from cloudtune.memory.machines import GIB
from tests.registries.models import safetensors

LLAMA = "meta-llama/Llama-2-13b-hf"
OCI = {"compartmentId": "ocid1.compartment.oc1..x", "projectId": "ocid1.datascienceproject.oc1.iad.x"}


def job_file(folder: Path, *, shape: str | None = "VM.GPU.A10.2", **args: Any) -> Path:
    place = {"type": "dataScienceJob", "spec": {**OCI, "shapeName": shape}} if shape else {"type": "local"}
    recipe = {"name": "sft", "args": {"model": LLAMA, "trainData": "rows.jsonl", **args}}
    runtime = {"type": "pyTorchDistributed", "spec": {"replicas": 2, "recipe": recipe}}
    file = folder / "job.json"
    file.write_text(json.dumps({"kind": "job", "spec": {"name": "j", "infrastructure": place, "runtime": runtime}}))
    return file


def model_folder(folder: Path, **keys: Any) -> Path:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96, "vocab_size": 100} | keys))
    return folder


def told(*words: str) -> str:
    done = CliRunner().invoke(cli, ["estimate", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_model_on_a_shape_term_by_term() -> None:
    (fit,) = cloudtune.estimate(LLAMA, method="full", shape="VM.GPU.A10.2", nodes=6)
    assert (fit.training.world, fit.training.sharding) == (12, "fsdp")
    assert sum(fit.estimate.terms.values()) == fit.estimate.total
    assert fit.headroom is not None
    assert fit.machine is not None
    assert fit.headroom + fit.estimate.total == fit.machine.memory
    assert fit.verdict == "tight"


def test_which_shape_do_i_need() -> None:
    fits = cloudtune.estimate(LLAMA, method="lora", cloud="oci")
    order = [("fits", "tight", "too large").index(fit.verdict) for fit in fits]
    assert order == sorted(order)
    machines = [fit.machine for fit in fits if fit.verdict == "fits" and fit.machine]
    sizes = [machine.memory * machine.number for machine in machines]
    assert sizes == sorted(sizes)
    assert machines[0].name == "VM.GPU.A10.2"
    assert {fit.machine.name for fit in cloudtune.estimate(LLAMA) if fit.machine} > {"g5.12xlarge", "VM.GPU.A10.2"}


@pytest.mark.parametrize(
    "options",
    [
        {"method": "full", "shape": "VM.GPU.A10.2", "nodes": 2, "sharding": "fsdp"},
        {"method": "lora", "shape": "VM.GPU.A10.1"},
        {"method": "full", "shape": "p5.48xlarge", "sharding": "none", "optimizer": "adamw_torch_fused"},
        {"method": "lora", "shape": "VM.GPU.A10.2", "sequence_length": 16_384, "batch_size": 8, "loss": "whole"},
        {"method": "full", "shape": "g5.xlarge", "gradient_checkpointing": False},
    ],
)
def test_advice_is_computed_and_holds(options: dict[str, Any]) -> None:
    (fit,) = cloudtune.estimate(LLAMA, **options)
    assert fit.verdict != "fits"
    assert fit.machine is not None
    advice = fit.advice()
    assert advice
    for one in advice:
        if one.change.startswith("shape "):
            continue
        changes: dict[str, Any] = {}
        for change in one.change.split(", "):
            words = change.split(" ")
            if words[1:] == ["nodes"]:
                changes["nodes"] = int(words[0])
            elif change == "gradient checkpointing":
                changes["gradient_checkpointing"] = True
            else:
                value: Any = int(words[-1]) if words[-1].isdigit() else words[-1]
                changes["_".join(words[:-1])] = value
        again = estimate_of(fit.estimate.model, attrs.evolve(fit.training, **changes))
        assert again.total == one.total
        assert again.most <= fit.machine.memory


def test_another_shape_that_is_named_fits() -> None:
    (fit,) = cloudtune.estimate(LLAMA, method="lora", shape="VM.GPU.A10.1")
    (elsewhere,) = fit.elsewhere
    shape = elsewhere.change.removeprefix("shape ").partition(",")[0]
    (other,) = cloudtune.estimate(LLAMA, method="lora", shape=shape)
    assert (other.verdict, other.estimate.total) == ("fits", elsewhere.total)


def test_a_job_as_its_file_has_it_and_changed(tmp_path: Path) -> None:
    file = job_file(tmp_path, method="lora", sharding="fsdp", maxLength=2048)
    (fit,) = cloudtune.estimate(file=file)
    assert (fit.name, fit.model, fit.verdict) == ("j", LLAMA, "fits")
    assert (fit.training.sequence_length, fit.training.world) == (2048, 4)
    (full,) = cloudtune.estimate(file=file, method="full")
    assert full.verdict == "too large"
    (larger,) = cloudtune.estimate(file=file, method="full", shape="BM.GPU.H100.8")
    assert larger.verdict == "fits"
    assert larger.training.world == 16
    (changed,) = cloudtune.estimate(file=file, set=["runtime.recipe.args.batchSize=1"])
    assert changed.training.batch_size == 1


def test_a_job_of_this_machine_shares_its_memory(tmp_path: Path) -> None:
    (fit,) = cloudtune.estimate(file=job_file(tmp_path, shape=None, model="HuggingFaceTB/SmolLM2-135M"))
    if fit.machine is None:
        pytest.skip("this machine has GPUs")
    assert (fit.machine.name, fit.machine.accelerator) == ("this machine", None)
    assert not fit.training.accelerator
    assert not fit.training.gradient_checkpointing
    assert fit.training.dtype == "fp32"


def test_the_steps_of_a_pipeline_that_train(tmp_path: Path) -> None:
    job = json.loads(job_file(tmp_path, method="lora").read_text())["spec"]
    place = job.pop("infrastructure")
    other = {"runtime": {"type": "script", "spec": {"scriptPathURI": "a.sh"}}}
    steps: list[dict[str, Any]] = [{"name": "before", "job": other}]
    steps.append({"name": "train", "needs": ["before"], "infrastructure": place, "job": job})
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps({"kind": "pipeline", "spec": {"name": "p", "steps": steps}}))
    assert [fit.name for fit in cloudtune.estimate(file=file)] == ["train"]
    file.write_text(json.dumps({"kind": "pipeline", "spec": {"name": "p", "steps": steps[:1]}}))
    with pytest.raises(cloudtune.UsageError, match="no step of the pipeline can be estimated:\n  before: ") as caught:
        cloudtune.estimate(file=file)
    assert "\n    hint: name the model instead: cloudtune estimate NAME" in str(caught.value)
    job["runtime"]["spec"]["recipe"]["args"]["model"] = "${steps.before.outputs}/model"
    steps[1]["job"] = job
    file.write_text(json.dumps({"kind": "pipeline", "spec": {"name": "p", "steps": steps}}))
    with pytest.raises(cloudtune.UsageError, match=r"which names no model yet") as caught:
        cloudtune.estimate(file=file)
    setting = "--set steps.train.runtime.recipe.args.model=OWNER/NAME"
    assert setting in str(caught.value)
    (fit,) = cloudtune.estimate(file=file, set=[setting.split()[1].replace("OWNER/NAME", LLAMA)])
    assert fit.model == LLAMA


def test_models_are_found_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    folder = model_folder(tmp_path / "m")
    expected = json.loads((folder / "config.json").read_text())
    assert config_of(str(folder)) == config_of(f"file://{folder}") == expected
    with fsspec.open("memory://bucket/model/config.json", "w") as file:
        file.write((folder / "config.json").read_text())
    assert config_of("memory://bucket/model") == config_of("memory://bucket/model/") == expected
    (folder / "model.safetensors").write_bytes(safetensors())
    cloudtune.register(str(folder), name="mine")
    for name in ("mine", "mine:1"):
        (fit,) = cloudtune.estimate(name, shape="g5.xlarge")
        assert fit.estimate.model == architecture(expected)
    cache = tmp_path / "cache" / "models--some--model"
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    (cache / "snapshots" / "abc" / "config.json").write_text(json.dumps(expected))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert config_of("some/model") == expected
    with pytest.raises(cloudtune.UsageError, match=r"memory://bucket/nothing holds no model: no config\.json"):
        config_of("memory://bucket/nothing")
    with fsspec.open("memory://bucket/large/config.json", "wb") as file:
        file.write(bytes(17 << 20))
    with pytest.raises(cloudtune.UsageError, match=r"bucket/large/config\.json has 18 MB, and is no config of a model"):
        config_of("memory://bucket/large")


def test_neuron_cores_and_cpus_have_their_share() -> None:
    (neuron,) = cloudtune.estimate("Qwen/Qwen3-8B", shape="trn1.32xlarge", tensor_parallel=8, dtype="bf16")
    assert neuron.machine is not None
    assert (neuron.machine.memory, neuron.training.replicas) == (16 * GIB, 4)
    (cpu,) = cloudtune.estimate("Qwen/Qwen3-0.6B", shape="VM.Standard2.24", processes=2)
    assert cpu.machine is not None
    assert cpu.machine.memory == 160 * GIB
    assert cpu.training.dtype == "fp32"


def test_what_cannot_be_estimated_is_said(tmp_path: Path) -> None:
    for wrong in ({}, {"model": LLAMA, "file": "job.yaml"}):
        with pytest.raises(cloudtune.UsageError, match="name a model, or a job"):
            cloudtune.estimate(**wrong)  # type: ignore[arg-type]
    with pytest.raises(cloudtune.UsageError, match=r"no config.json is known of 'llama-2-13b'; nearest: meta-llama/"):
        cloudtune.estimate("llama-2-13b")
    for wanted, near in (("VM.GPU.A10", "VM.GPU.A10.1"), ("A100", "p4d.24xlarge"), ("H100-80GB", "BM.GPU.H100.8")):
        with pytest.raises(cloudtune.UsageError, match=f"no shape of OCI or EC2 is known as '{wanted}'") as caught:
            cloudtune.estimate(LLAMA, shape=wanted)
        assert near in str(caught.value)
    with pytest.raises(cloudtune.UsageError, match="'<your model>', which names no model yet") as caught:
        cloudtune.estimate(file=job_file(tmp_path, model="<your model>"))
    assert "--set runtime.recipe.args.model=OWNER/NAME" in str(caught.value)
    with pytest.raises(cloudtune.UsageError, match="option batchSize is filled in only later") as caught:
        cloudtune.estimate(file=job_file(tmp_path, batchSize="$ROWS"))
    assert "--set runtime.recipe.args.batchSize=VALUE" in str(caught.value)


def test_what_is_no_model_is_told_from_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.chdir(tmp_path)
    file = job_file(tmp_path)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(json.loads(file.read_text())))
    adapter = tmp_path / "outputs" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": LLAMA, "r": 8}))
    with fsspec.open("memory://bucket/adapter/adapter_config.json", "w") as copy:
        copy.write((adapter / "adapter_config.json").read_text())
    for model, what, hint in (
        ("job.yaml", "is a job, and a model is meant here", "estimate -f job.yaml"),
        ("none.yaml", "there is no file none.yaml", "-f"),
        ("outputs/adapter", "outputs/adapter is an adapter", f"estimate {LLAMA} --method lora --lora-rank 8"),
        ("memory://bucket/adapter", "bucket/adapter is an adapter", f"estimate {LLAMA} --method lora --lora-rank 8"),
        ("outputs", "outputs holds no model", "one is in outputs/adapter"),
    ):
        with pytest.raises(cloudtune.UsageError, match=what) as caught:
            cloudtune.estimate(model)
        assert hint in str(caught.value)


def test_processes_that_share_layers_divide_all_processes(tmp_path: Path) -> None:
    for asked in ({"model": LLAMA, "shape": "VM.GPU.A10.1"}, {"file": job_file(tmp_path, method="lora")}):
        with pytest.raises(cloudtune.UsageError, match="3 processes that share every layer do not divide"):
            cloudtune.estimate(**asked, tensor_parallel=3)  # type: ignore[arg-type]
    fits = cloudtune.estimate(LLAMA, tensor_parallel=4, cloud="oci")
    assert {fit.training.world % 4 for fit in fits} == {0}
    with pytest.raises(cloudtune.UsageError, match="no shape with GPUs has 7 processes"):
        cloudtune.estimate(LLAMA, tensor_parallel=7)


def test_an_unknown_family_is_counted_roughly_and_says_so(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", model_type="brandnew")
    (fit,) = cloudtune.estimate(str(folder), shape="g5.xlarge")
    assert fit.estimate.model.parameters == architecture({**config_of(str(folder)), "model_type": "llama"}).parameters
    assert "counted as if built like Llama" in fit.to_dict()["notes"][0]


def test_mixtures_of_experts_have_limits_that_are_said() -> None:
    mixtral = "mistralai/Mixtral-8x7B-v0.1"
    (fit,) = cloudtune.estimate(mixtral, method="qlora", shape="p5.48xlarge")
    assert [note.partition(":")[0] for note in fit.remarks] == [
        "experts are not quantized",
        "PEFT adapts fused experts without dropout only",
    ]
    assert repr(fit) == f"<Fit {mixtral} qlora: {fit.estimate.total / GIB:.2f} of 80.0 GB on p5.48xlarge, fits>"
    (dense,) = cloudtune.estimate(LLAMA, method="qlora", shape="p5.48xlarge")
    assert dense.remarks == ()


def test_a_job_that_does_not_say_how_it_trains(tmp_path: Path) -> None:
    runtime = {"type": "pyTorchDistributed", "spec": {"command": "torchrun train.py"}}
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"kind": "job", "spec": {"name": "j", "runtime": runtime}}))
    with pytest.raises(cloudtune.UsageError, match="which model it trains") as caught:
        cloudtune.estimate(file=file)
    assert "cloudtune estimate NAME" in str(caught.value)
    for command, hint in (
        (f"torchrun train.py --model_name {LLAMA}", f"cloudtune estimate {LLAMA} --method lora --shape SHAPE"),
        ("torchrun train.py --use_peft --model_name $MODEL", "say what it is: -e MODEL=OWNER/NAME"),
    ):
        runtime["spec"] = {"command": command}
        file.write_text(json.dumps({"kind": "job", "spec": {"name": "j", "runtime": runtime}}))
        with pytest.raises(cloudtune.UsageError) as caught:
            cloudtune.estimate(file=file)
        assert hint in str(caught.value)
    assert cloudtune.estimate(file=file, env=[f"MODEL={LLAMA}"])[0].model == LLAMA


def test_the_command_line_shows_terms_and_advice() -> None:
    text = told(LLAMA, "--method", "full", "--shape", "VM.GPU.A10.2", "--nodes", "2")
    head, *lines = [line.split("\t") for line in text.splitlines() if "\t" in line]
    assert head == ["GB of each A10", "in the optimizer's step"]
    rows = dict(lines)
    assert {"weights", "gradients", "optimizer states", "needed", "there is", "left"} < set(rows)
    terms = [float(value) for term, value in rows.items() if term not in ("needed", "there is", "left")]
    assert sum(terms) == pytest.approx(float(rows["needed"]), abs=0.05)
    assert float(rows["left"]) < 0
    assert "too large on VM.GPU.A10.2" in text
    assert "with method lora it fits: " in text


def test_the_command_line_lists_shapes() -> None:
    lines = [line.split("\t") for line in told(LLAMA, "--cloud", "aws", "--all").splitlines() if "\t" in line]
    assert lines[0] == ["shape", "accelerators", "GB each", "GB needed", "sharding", "verdict"]
    assert lines[1][-1] == "fits"
    assert lines[-1][-1] == "too large"
    short = told(LLAMA)
    rows = [line.split("\t") for line in short.splitlines() if "\t" in line][1:]
    assert {row[-1] for row in rows} == {"fits"}
    fits = [fit.machine.name for fit in cloudtune.estimate(LLAMA) if fit.machine and fit.verdict == "fits"]
    assert [row[0] for row in rows] == fits[: len(rows)]
    assert f"{len(fits) - len(rows)} larger ones fit as well; " in short
    assert "--all" in short
    none = told("meta-llama/Llama-3.1-70B", "--method", "full", "--cloud", "oci")
    assert "it fits on none of" in none
    assert "--all" in none


def test_the_answer_as_data(tmp_path: Path) -> None:
    file = str(job_file(tmp_path, method="full"))
    (one,) = json.loads(CliRunner().invoke(cli, ["estimate", "-f", file, "-o", "json"]).stdout)
    assert one == yaml.safe_load(CliRunner().invoke(cli, ["estimate", "-f", file, "-o", "yaml"]).stdout)[0]
    assert one["verdict"] == "too large"
    assert one["parameters"] == one["trainedParameters"] == 13_015_864_320
    assert one["totalInGB"] == pytest.approx(sum(one["termsInGB"].values()), abs=0.05)
    assert one["headroomInGB"] == pytest.approx(one["machine"]["memoryInGB"] - one["totalInGB"], abs=0.02)
    assert one["advice"]
    assert {"change", "totalInGB"} == set(one["advice"][0])
