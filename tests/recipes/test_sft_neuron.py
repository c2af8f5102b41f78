"""The recipe sft_neuron, as far as it runs without the Neuron stack: its rehearsal, and what the real one is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from cloudtune import jobs
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import NeuronDistributedRuntime
from tests import tiny
from tests.recipes.modules import RECIPES, module

SCRIPT = RECIPES / "sft_neuron" / "sft_neuron.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
ORACLE = os.environ.get("CLOUDTUNE_NEURON_PYTHON")
KEEP = ("--learning-rate", "5e-3", "--lora-dropout", "0", "--logging-steps", "1", "--max-steps", "3")


def rehearsed(output: Path, *more: str) -> str:
    """Train in a rehearsal's way over two processes that share the layers; return what was said."""
    given = ("--model", tiny.random_model(), "--train-data", tiny.DATA / "train.jsonl", "--output-dir", output, *KEEP)
    told = {"CLOUDTUNE_REHEARSED": "1", "CLOUDTUNE_TENSOR_PARALLEL_SIZE": "2"}
    ended = tiny.python(*TORCHRUN, "2", SCRIPT, *given, *more, **told)
    assert ended.returncode == 0, ended.stdout
    return str(ended.stdout)


def test_without_the_stack_it_says_what_has_it(tmp_path):
    given = ("--model", tmp_path, "--train-data", tiny.DATA / "train.jsonl")
    ended = tiny.python(SCRIPT, *given)
    assert ended.returncode == 1
    assert "error: no torch_neuronx, neuronx_distributed, optimum.neuron" in ended.stdout
    assert "runtimes/torch-neuron" in ended.stdout


def test_degrees_that_do_not_divide_the_processes_are_refused():
    given = ("--model", "m", "--train-data", "d", "--tensor-parallel-size", "2")
    ended = tiny.python(SCRIPT, *given, WORLD_SIZE="3")
    assert ended.returncode == 2
    assert "--tensor-parallel-size x --pipeline-parallel-size = 2: 3 processes" in ended.stdout


@pytest.mark.heavy
def test_an_adapter_is_cut_consolidated_and_merged(tmp_path):
    import numpy as np
    from safetensors.numpy import load_file

    from cloudtune import verbs

    said = rehearsed(tmp_path / "out", "--batch-size", "4")
    assert said.count("rehearsed: substituted: train -> ") == 1
    losses = [float(one) for one in re.findall(r"'loss': ([\d.]+)", said)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    shards = sorted(path.name for path in (tmp_path / "out").rglob("*.pt"))
    assert shards == [f"dp_rank_00_tp_rank_0{rank}_pp_rank_00.pt" for rank in (0, 1)]
    base = str(tiny.random_model())
    verbs.consolidate(str(tmp_path / "out" / "final"), base=base, output=str(tmp_path / "adapter"))
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layer = "base_model.model.model.layers.0.mlp"
    gate, up = (adapter[f"{layer}.{name}.lora_A.weight"] for name in ("gate_proj", "up_proj"))
    assert np.array_equal(gate, up)
    assert all(np.abs(adapter[f"{layer}.{name}.lora_B.weight"]).max() > 0 for name in ("gate_proj", "down_proj"))
    verbs.merge(base, str(tmp_path / "adapter"), output=str(tmp_path / "merged"))
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    if ORACLE:
        assert consolidated_by_optimum(tmp_path / "out" / "final", tmp_path / "theirs") == {
            name: tensor.tobytes() for name, tensor in adapter.items()
        }


@pytest.mark.heavy
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (2, 2)])
def test_a_whole_model_that_is_cut_comes_out_as_it_was(tp, pp, tmp_path):
    from safetensors.torch import load_file
    from torch import equal
    from transformers import AutoModelForCausalLM

    from cloudtune import verbs

    module("sft", "rows")
    shards = module("sft_neuron", "shards")
    model = AutoModelForCausalLM.from_pretrained(tiny.random_model())
    places = [shards.Place(rank=rank, world=2 * tp * pp, tp=tp, pp=pp) for rank in range(2 * tp * pp)]
    shards.check(model.config, places[0])
    for place in places:
        shards.write(tmp_path / "shards", shards.cut(dict(model.state_dict()), model.config, place), place)
    assert len(list(tmp_path.rglob("*.pt"))) == tp * pp
    verbs.consolidate(str(tmp_path), base=str(tiny.random_model()), output=str(tmp_path / "made"))
    made, whole = load_file(tmp_path / "made" / "model.safetensors"), model.state_dict()
    assert set(whole) - set(made) <= {"lm_head.weight"}
    assert all(equal(tensor, whole[name]) for name, tensor in made.items())


def consolidated_by_optimum(checkpoint: Path, output: Path) -> dict[str, bytes]:
    """Return what optimum-neuron's own code makes of a checkpoint."""
    from safetensors.numpy import load_file

    oracle = Path(__file__).parents[1] / "weights" / "consolidate" / "layouts" / "neuron_oracle.py"
    argv = [str(ORACLE), str(oracle), str(checkpoint), str(output)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"error": None}
    (file,) = output.rglob("adapter_model.safetensors")
    return {name: tensor.tobytes() for name, tensor in load_file(file).items()}


@pytest.mark.skipif(ORACLE is None, reason="CLOUDTUNE_NEURON_PYTHON names no Python with optimum-neuron")
def test_what_the_real_trainer_is_told_it_knows():
    """Its configuration has every keyword; modules of the Neuron stack alone are stood in for."""
    code = """
import sys, dataclasses
sys.path[:0] = sys.argv[1:4]
import neuron_oracle
sys.meta_path.insert(0, neuron_oracle.Finder())
from options import Options
import neuron_training
from optimum.neuron.trainers.sft_config import NeuronSFTConfig
known = {field.name for field in dataclasses.fields(NeuronSFTConfig)}
told = neuron_training.settings_of(Options(model="m", train_data="d", output_dir="o"))
print(sorted(set(told) - known), neuron_training.adapter_of(Options(model="m", train_data="d")).r)
"""
    layouts = Path(__file__).parents[1] / "weights" / "consolidate" / "layouts"
    folders = [str(RECIPES / "sft_neuron"), str(RECIPES / "sft"), str(layouts)]
    done = subprocess.run([str(ORACLE), "-c", code, *folders], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["[] 16"]), done.stderr


def test_a_rehearsal_goes_without_the_pass_that_compiles_and_knows_the_degrees(monkeypatch):
    monkeypatch.setenv("CLOUDTUNE_REHEARSED", "1")
    runtime = NeuronDistributedRuntime(
        command='echo "of $CLOUDTUNE_TENSOR_PARALLEL_SIZE and $CLOUDTUNE_PIPELINE_PARALLEL_SIZE" || torchrun never.py',
        processes_per_node=2,
        tensor_parallel_size=2,
        precompile=True,
    )
    run = jobs.start(JobSpec(name="j", runtime=runtime))
    assert run.wait(60).state == "succeeded"
    said = [line.text for line in run.lines()]
    assert "of 2 and 1" in said
    assert "rehearsed: substituted: compile -> nothing: neuron_parallel_compile is not on this machine" in said
