"""The QLoRA example, rehearsed whole: rows to S3, trained over two nodes, merged, checked, imported; it answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture
from tests.rehearsing.aws_seeds import rehearsed, rows
from tests.tiny import random_model

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("torch", reason="PyTorch is not installed")

NAME = "llama3-8b-no-robots"
WEIGHTS = "model.safetensors"


@pytest.mark.heavy
@pytest.mark.usefixtures("namespaces")
def test_the_qlora_example_is_rehearsed_as_one_pipeline(tmp_path: Path, home: Path) -> None:
    done = rehearsed(
        "sagemaker-llama3-qlora-bedrock",
        tmp_path,
        model="meta-llama/Meta-Llama-3-8B",
        data=rows(tmp_path / "rows", train=32, test=8),
        settings=(
            "steps.train.runtime.replicas=2",
            "steps.train.runtime.processesPerNode=1",
            "steps.train.runtime.recipe.args.maxLength=64",
        ),
    )
    once = ("create_training_job", "create_model_import_job")
    assert {name: done.counts[name] for name in once} == dict.fromkeys(once, 1)

    # the rows reached S3, and every conversation has the system message
    prefix = done.files / "llama3-qlora"
    kept = [json.loads(line) for line in (prefix / "rows" / "train.jsonl").read_text().splitlines()]
    assert len(kept) == 32
    assert all(row["messages"][0]["content"].startswith("You are Llama") for row in kept)

    # trained over two nodes, sharded, with the token that each fetched itself; what a laptop lacks is told
    log = done.log("train")
    started = [line[0] for line in log if " starts: torchrun sft.py --model meta-llama/Meta-Llama-3-8B" in line]
    assert sorted(started) == ["0", "1"]
    assert sum("sharding: fsdp2, " in line for line in log) == 1
    assert sum("rehearsed: substituted: four bits" in line for line in log) == 1
    assert done.counts["get_secret_value"] == 2
    (job,) = (prefix / "train").iterdir()
    assert (job / "output" / "model" / "adapter" / "adapter_model.safetensors").stat().st_size > 0
    assert list((prefix / "checkpoints").rglob("*"))

    # merged: loose files, of the base's size and another content; Bedrock's preflight and import took them
    merged = prefix / "merged"
    assert (merged / WEIGHTS).stat().st_size == (random_model() / WEIGHTS).stat().st_size
    assert (merged / WEIGHTS).read_bytes() != (random_model() / WEIGHTS).read_bytes()
    assert [path.name for path in prefix.rglob("*.tar.gz")] == ["code.tar.gz"]
    assert any("ok for bedrock" in line for line in done.log("check"))
    assert any(f"{NAME}:1 is arn:aws:bedrock:us-west-2:" in line for line in done.log("register"))

    # what goes on there is told: the import, and the model that is loaded when it is asked
    for words in (f"in progress: {NAME}-1 of s3://your-bucket/llama3-qlora/merged/", "completed: arn:aws:bedrock:"):
        assert re.search(rf"^AWS: model import cloudtune-\w+-1: {words}", done.said, re.MULTILINE), done.said[-5000:]
    for words in ("loading; ", "ready"):
        assert f"AWS: imported model {NAME}-1: {words}" in done.said
    assert "nothing is at" not in done.said

    # it answered once it was loaded; nothing of it is there any more
    assert done.found["answers"][NAME]
    assert done.counts["converse"] >= 1
    assert list((home / "rehearsals").iterdir()) == []
