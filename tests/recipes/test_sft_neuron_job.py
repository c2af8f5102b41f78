"""The Trainium seed as a pipeline against the stand-in of SageMaker: rows, training, shards, an adapter, one model."""

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

from cloudtune import pipelines
from cloudtune.spec.document import load
from cloudtune.spec.job import PipelineSpec
from tests import tiny
from tests.aws_place import aws_place
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

EXAMPLE = Path(pipelines.__file__).parent / "examples" / "sagemaker-trainium-tinyllama" / "pipeline.yaml"
ORACLE = os.environ.get("CLOUDTUNE_NEURON_PYTHON")
STEPS = ("prepare", "train", "consolidate", "merge", "check")
#: The model of the example.
BASE = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"


def rehearsable(account: str, bucket: str, model: str) -> PipelineSpec:
    """Return the example up to the whole model, with a small model and rows of this machine."""
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace("<your-account>", account).replace("<your-role>", "training").replace("<your-bucket>", bucket)
    text = text.replace(f"model: {BASE}", "model: /opt/ml/input/data/base").replace(BASE, model)
    text = text.replace("data: timdettmers/openassistant-guanaco", f"data: {tiny.DATA / 'train.jsonl'}")
    text = text.replace("maxSteps: 1000", "maxSteps: 2").replace("maxLength: 1024", "maxLength: 128")
    channel = "            - channel: "
    text = text.replace(f"{channel}rows", f"{channel}base\n              uri: s3://{bucket}/base\n{channel}rows")
    spec = load(text)
    assert isinstance(spec, PipelineSpec)
    return spec.with_steps(tuple(one for one in spec.steps if one.name in STEPS))


@pytest.mark.heavy
@pytest.mark.usefixtures("namespaces")
def test_the_trainium_seed_becomes_one_model_in_s3(tmp_path):
    with torchs_usual_port_taken(), aws_place(tmp_path, speed=2000.0) as place:
        storage, base = place.sdk("s3"), tiny.random_model()
        for file in base.iterdir():
            storage.put_object(Bucket=place.bucket, Key=f"base/{file.name}", Body=file.read_bytes())
        run = pipelines.start_pipeline(rehearsable(place.cloud.account, place.bucket, str(base)))
        status = run.wait(400)
        said = [line.text for line in run.lines()]
        assert status.state == "succeeded", f"{status.reason}\n{chr(10).join(said)}"
        assert [one for one in said if "substituted: compile" in one]
        assert [one for one in said if "substituted: train" in one]
        left = fetched(storage, place.bucket, tmp_path / "left")
    losses = [float(found[1]) for one in said if (found := re.search(r"'loss': ([\d.]+)", one))]
    assert len(losses) == 1
    shards = sorted(path.name for path in left.rglob("*.pt"))
    assert shards == [f"dp_rank_00_tp_rank_0{rank}_pp_rank_00.pt" for rank in (0, 1)]
    check_adapter(left)
    config = json.loads((left / "tinyllama" / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert list((left / "tinyllama" / "model").glob("*.safetensors"))


@contextlib.contextmanager
def torchs_usual_port_taken() -> Iterator[None]:
    """Listen where another training on this machine would: torch's store listens on every address."""
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody does already
            taken.bind(("", 29500))
            taken.listen()
        yield


def fetched(storage: Any, bucket: str, folder: Path) -> Path:
    """Return a folder with what the pipeline left in a bucket."""
    for row in storage.list_objects_v2(Bucket=bucket, Prefix="tinyllama/")["Contents"]:
        path = folder / row["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.get_object(Bucket=bucket, Key=row["Key"])["Body"].read())
    return folder


def check_adapter(left: Path) -> None:
    """Look at the adapter that was made of the shards: optimum-neuron's own code, if it is at hand, makes the same."""
    import numpy as np
    from safetensors.numpy import load_file

    adapter = load_file(left / "tinyllama" / "adapter" / "adapter_model.safetensors")
    layer = "base_model.model.model.layers.0.mlp"
    assert np.array_equal(*(adapter[f"{layer}.{name}.lora_A.weight"] for name in ("gate_proj", "up_proj")))
    assert all(np.abs(adapter[f"{layer}.{name}.lora_B.weight"]).max() > 0 for name in ("gate_proj", "down_proj"))
    if ORACLE:
        (final,) = (path for path in left.rglob("final") if path.is_dir())
        theirs = consolidated_by_optimum(final, left / "theirs")
        assert theirs == {name: tensor.tobytes() for name, tensor in adapter.items()}


def consolidated_by_optimum(checkpoint: Path, output: Path) -> dict[str, bytes]:
    """Return what optimum-neuron's own code makes of a checkpoint."""
    from safetensors.numpy import load_file

    oracle = Path(__file__).parents[1] / "weights" / "consolidate" / "layouts" / "neuron_oracle.py"
    argv = [str(ORACLE), str(oracle), str(checkpoint), str(output)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"error": None}
    (file,) = output.rglob("adapter_model.safetensors")
    return {name: tensor.tobytes() for name, tensor in load_file(file).items()}
