"""The Trainium example, rehearsed whole: rows, training, shards, an adapter, one model, an endpoint on Inferentia2."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture
from tests.rehearsing.aws_seeds import rehearsed, rows

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("torch", reason="PyTorch is not installed")

ORACLE = os.environ.get("CLOUDTUNE_NEURON_PYTHON")
NAME = "tinyllama-guanaco"


@pytest.mark.heavy
@pytest.mark.usefixtures("namespaces")
def test_the_trainium_example_is_rehearsed_as_one_pipeline(
    tmp_path: Path, home: Path, subtests: pytest.Subtests
) -> None:
    with torchs_usual_port_taken():
        done = rehearsed(
            "sagemaker-trainium-tinyllama",
            tmp_path,
            model="TinyLlama/TinyLlama-1.1B-Chat-v1.0",
            data=rows(tmp_path / "rows", train=32, test=8),
            settings=("steps.train.runtime.recipe.args.maxSteps=2", "steps.train.runtime.recipe.args.maxLength=128"),
        )
    # compiled by a job of its own, trained in place of Neuron cores on processors; every rank has left its shard
    log, prefix = done.log("train"), done.files / "tinyllama"
    for step, what in (("compile", "compile"), ("train", "train")):
        told = [line for line in (*done.log("compile"), *log) if f"substituted: {what} " in line]
        assert (len(told), told[0] in done.log(step)) == (1, True)
    assert not any(" starts: " in line for line in done.log("compile"))
    assert sum(re.search(r"'loss': [\d.]+", line) is not None for line in log) == 1
    shards = sorted(path.name for path in prefix.rglob("*.pt"))
    assert shards == [f"dp_rank_00_tp_rank_0{rank}_pp_rank_00.pt" for rank in (0, 1)]

    # made one adapter by the real code, then one model
    check_adapter(prefix)
    with subtests.test("optimum-neuron's own code makes the same adapter of the shards"):
        if not ORACLE:
            pytest.skip("CLOUDTUNE_NEURON_PYTHON names no Python with optimum-neuron")
        (final,) = (path for path in prefix.rglob("final") if path.is_dir())
        theirs = consolidated_by_optimum(final, prefix / "theirs")
        assert theirs == {name: tensor.tobytes() for name, tensor in adapter_of(prefix).items()}
    config = json.loads((prefix / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert list((prefix / "model").glob("*.safetensors"))
    once = ("create_model_package", "create_model", "create_endpoint_config", "create_endpoint")
    expected = {"create_training_job": 2, **dict.fromkeys(once, 1)}
    assert {name: done.counts[name] for name in expected} == expected

    # served on Inferentia2, where the stand-in compares the degree with the machine's cores; it answered
    deployed = "\n".join(done.log("deploy"))
    assert re.search(rf"deploying {NAME} on 1 x ml\.inf2\.xlarge with \S+/djl-inference:\S+-neuronx-", deployed)
    for words in ("creating: getting 1 x ml.inf2.xlarge", "creating: as long as compiling", "in service"):
        assert re.search(rf"^AWS: endpoint {NAME}-\w+: {words}", done.said, re.MULTILINE), done.said[-5000:]
    assert done.found["answers"][NAME]
    assert done.counts["invoke_endpoint"] == 1
    assert list((home / "rehearsals").iterdir()) == []


@contextlib.contextmanager
def torchs_usual_port_taken() -> Iterator[None]:
    """Listen where another training on this machine would: torch's store listens on every address."""
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody does already
            taken.bind(("", 29500))
            taken.listen()
        yield


def adapter_of(prefix: Path) -> dict[str, Any]:
    """Return the tensors of the adapter that was made of the shards."""
    from safetensors.numpy import load_file

    tensors: dict[str, Any] = load_file(prefix / "adapter" / "adapter_model.safetensors")
    return tensors


def check_adapter(prefix: Path) -> None:
    """Look at the adapter that was made of the shards."""
    import numpy as np

    adapter = adapter_of(prefix)
    layer = "base_model.model.model.layers.0.mlp"
    assert np.array_equal(*(adapter[f"{layer}.{name}.lora_A.weight"] for name in ("gate_proj", "up_proj")))
    assert all(np.abs(adapter[f"{layer}.{name}.lora_B.weight"]).max() > 0 for name in ("gate_proj", "down_proj"))


def consolidated_by_optimum(checkpoint: Path, output: Path) -> dict[str, bytes]:
    """Return what optimum-neuron's own code makes of a checkpoint."""
    from safetensors.numpy import load_file

    oracle = Path(__file__).parents[1] / "weights" / "consolidate" / "layouts" / "neuron_oracle.py"
    argv = [str(ORACLE), str(oracle), str(checkpoint), str(output)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"error": None}
    (file,) = output.rglob("adapter_model.safetensors")
    return {name: tensor.tobytes() for name, tensor in load_file(file).items()}
