"""The recipe sft_neuron, as far as it runs without the Neuron stack: its rehearsal, and what the real one is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloudtune import jobs
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import NeuronDistributedRuntime
from tests import tiny
from tests.recipes.modules import RECIPES, module

SCRIPT = RECIPES / "sft_neuron" / "sft_neuron.py"
ORACLE = os.environ.get("CLOUDTUNE_NEURON_PYTHON")


def test_without_the_stack_it_says_what_has_it(tmp_path, monkeypatch):
    monkeypatch.delenv("CLOUDTUNE_REHEARSED", raising=False)
    given = ("--model", tmp_path, "--train-data", tiny.DATA / "train.jsonl")
    ended = tiny.python(SCRIPT, *given)
    assert ended.returncode == 1
    assert "error: no torch_neuronx, neuronx_distributed, optimum.neuron" in ended.stdout
    assert "runtimes/torch-neuron" in ended.stdout


def test_a_folder_that_is_not_there_is_told_in_plain_words(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDTUNE_REHEARSED", "1")
    ended = tiny.python(SCRIPT, "--model", tmp_path / "none", "--train-data", tiny.DATA / "train.jsonl")
    assert ended.returncode == 1
    assert (
        f"error: {tmp_path / 'none'}: no such file or folder\n  hint: look at the path; a model on the Hub is called"
        in ended.stdout
    )


def test_degrees_that_do_not_divide_the_processes_are_refused():
    given = ("--model", "m", "--train-data", "d", "--tensor-parallel-size", "2")
    ended = tiny.python(SCRIPT, *given, WORLD_SIZE="3")
    assert ended.returncode == 2
    assert "--tensor-parallel-size x --pipeline-parallel-size = 2: 3 processes" in ended.stdout


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


def test_a_job_that_only_compiles_ends_before_it_trains(monkeypatch, tmp_path):
    program = tmp_path / "bin" / "neuron_parallel_compile"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "compiles to $NEURON_COMPILE_CACHE_URL: $*"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    runtime = NeuronDistributedRuntime(
        command="echo trains",
        processes_per_node=1,
        compile_cache_uri=str(tmp_path / "cache"),
        precompile_only=True,
    )
    run = jobs.start(JobSpec(name="j", runtime=runtime))
    status, said = run.wait(240), [line.text for line in run.lines()]
    assert status.state == "succeeded", said
    assert f"compiles to {tmp_path}/cache: /bin/sh -c echo trains" in said
    assert "trains" not in said


def test_a_rehearsal_goes_without_the_pass_that_compiles_and_knows_the_degrees(monkeypatch):
    monkeypatch.setenv("CLOUDTUNE_REHEARSED", "1")
    runtime = NeuronDistributedRuntime(
        command='echo "of $CLOUDTUNE_TENSOR_PARALLEL_SIZE and $CLOUDTUNE_PIPELINE_PARALLEL_SIZE" || torchrun never.py',
        processes_per_node=2,
        tensor_parallel_size=2,
        precompile=True,
    )
    run = jobs.start(JobSpec(name="j", runtime=runtime))
    assert run.wait(240).state == "succeeded"
    said = [line.text for line in run.lines()]
    assert "of 2 and 1" in said
    assert "rehearsed: substituted: compile -> nothing: neuron_parallel_compile is not on this machine" in said
