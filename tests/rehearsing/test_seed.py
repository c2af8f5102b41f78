"""The job of Oracle's guide, rehearsed whole: trained over two nodes, merged, in the catalog, deployed; it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture
from tests.rehearsing import seed
from tests.tiny import random_model

pytest.importorskip("oci", reason="the oci SDK is not installed")
pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.heavy
@pytest.mark.usefixtures("namespaces")
def test_the_guides_job_is_rehearsed_as_one_pipeline(tmp_path: Path, home: Path) -> None:
    file, kept = tmp_path / "pipeline.yaml", tmp_path / "kept"
    model = random_model()
    with seed.repository(tmp_path / "hub") as url:
        file.write_text(yaml.safe_dump(seed.pipeline(url)))
        words = ["rehearse", "-f", str(file), "--nodes", "2", "--processes", "1", "--put", f"{seed.MODEL}={model}"]
        words += ["--ask", "Who was late?", "-o", str(kept), "-o", "json"]
        done = subprocess.run(
            [sys.executable, "-m", "cloudtune", *words],
            check=False,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=500,
            env={**os.environ, "HOME": str(tmp_path / "user")},
        )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert [step["state"] for step in found["run"]["steps"]] == ["succeeded"] * 4

    # trained: one job and one run, over two nodes; every line by Logging Search, once
    counts = {one["operation"]: one["count"] for one in found["asked"]}
    once = (
        "create_job",
        "create_job_run",
        "create_model",
        "create_model_deployment",
        "register_model_artifact_reference",
    )
    assert {name: counts[name] for name in once} == dict.fromkeys(once, 1)
    (log,) = (kept / "logs").glob("*-train.log")
    lines = log.read_text().splitlines()
    assert sum("sharding: fsdp2, " in line for line in lines) == 1
    started = Counter(line.partition(" ")[0] for line in lines if " starts: torchrun examples/finetuning.py" in line)
    assert started == {"0": 1, "1": 1}
    steps = [line for line in lines if "'loss': " in line]
    assert len(steps) == len(set(steps)) == 4
    assert counts["search_logs"] > 0

    # the adapter landed in the bucket by the mount, and the merged model is another than the base
    files = kept / "files" / seed.BUCKET.partition("://")[2]
    weights = "model.safetensors"
    assert (files / "llama2-ft-lora-13b" / "adapter" / "adapter_model.safetensors").stat().st_size > 0
    assert (files / "base" / weights).read_bytes() == (model / weights).read_bytes()
    assert (files / "merged" / weights).stat().st_size == (model / weights).stat().st_size
    assert (files / "merged" / weights).read_bytes() != (model / weights).read_bytes()

    # deployed, it answered; nothing of it is there any more
    assert found["answers"]["llama2-dialogues"]
    assert list((home / "rehearsals").iterdir()) == []
    assert not (tmp_path / "user").exists()
