"""The two examples for EKS, rehearsed as they stand: images over two pods, and a chain from rows to a merged model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudtune import verbs
from tests.recipes.seeing import seeing_model, web_pages
from tests.recipes.test_pretokenize import instructions
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture
from tests.rehearsing.aws_seeds import EXAMPLES, Rehearsed, rehearsed_file
from tests.tiny import random_model

for module in ("kubernetes", "moto", "torch", "transformers"):
    pytest.importorskip(module, reason=f"{module} is not installed")
pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("namespaces")]

SEEING = "meta-llama/Llama-3.2-11B-Vision-Instruct"
WEIGHTS = "model.safetensors"
BUCKET = "s3://your-bucket"
VISION = EXAMPLES / "eks-fsdp-vision" / "pipeline.yaml"
QUICK = ("maxSteps=2", "batchSize=1", "loggingSteps=1", "learningRate=5e-3", "trainData=rows", "evalSplit=null")


def see(file: Path, folder: Path, job: str = "") -> Rehearsed:
    """Rehearse training on images over two nodes; ``job`` is the path of the job in the file."""
    settings = tuple(f"{job}runtime.recipe.args.{one}" for one in QUICK)
    return rehearsed_file(
        file,
        folder,
        model=SEEING,
        weights=seeing_model(),
        settings=(*settings, f'{job}runtime.inputs={{"{BUCKET}/rows": "rows"}}'),
        put=(f"{BUCKET}/rows={web_pages(folder / 'pages', train=8, test=2)}",),
        processes=1,
    )


def check_training(lines: list[str]) -> None:
    """Look whether both pods trained, sharded, and the loss fell."""
    started = [line[0] for line in lines if " starts: torchrun vision.py " in line]
    assert sorted(started) == ["0", "1"], "\n".join(lines)
    assert sum("sharding: fsdp2, " in line for line in lines) == 1, lines
    losses = [float(found[1]) for line in lines if (found := re.search(r"'loss': ([\d.]+)", line))]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert sum("rehearsed: substituted: 8 H100" in line for line in lines) == 2


def check_model(folder: Path, like: Path) -> None:
    """Look whether a model is one that transformers loads, of its base's size and other content."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    config = json.loads((folder / "config.json").read_text())
    kind = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    _, told = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    assert (folder / WEIGHTS).stat().st_size == (like / WEIGHTS).stat().st_size
    assert (folder / WEIGHTS).read_bytes() != (like / WEIGHTS).read_bytes()


def test_images_are_learnt_by_an_indexed_job_and_the_model_is_imported(tmp_path: Path, home: Path) -> None:
    done = see(VISION, tmp_path, "steps.train.")
    assert {name: done.counts[name] for name in ("create_jobs", "create_model_import_job")} == {
        "create_jobs": 2,  # tried by the cluster first
        "create_model_import_job": 1,
    }
    check_training(done.log("train"))
    files = done.files / "llama32-vision"
    assert len(list((files / "train" / "sharded").glob("*.distcp"))) == 2
    assert (files / "train" / "sharded" / ".metadata").is_file()
    check_model(files / "model", seeing_model())
    # checkpoints are on the claim, where a job that starts again finds them
    assert any("/fsx-claim/llama32-vision/checkpoints/checkpoint-2/" in one["uri"] for one in done.found["left"])
    assert any("ok for bedrock" in line for line in done.log("check"))
    assert done.found["answers"]["llama32-vision-mind2web"]
    assert list((home / "rehearsals").iterdir()) == []


def test_images_are_learnt_alike_by_a_pytorchjob(tmp_path: Path, home: Path) -> None:
    """The job of the example alone, by the training operator; its shards become a model here."""
    step: dict[str, Any] = yaml.safe_load(VISION.read_text())["spec"]["steps"][0]
    place = step["infrastructure"]
    place["spec"] |= {"jobKind": "pyTorchJob", "cluster": "training"}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"kind": "job", "spec": {**step["job"], "infrastructure": place}}))
    done = see(file, tmp_path)
    assert done.counts["create_pytorchjobs"] == 2
    (log,) = (done.kept / "logs").iterdir()
    check_training(log.read_text().splitlines())
    verbs.consolidate(
        str(done.files / "llama32-vision" / "train" / "sharded"),
        base=str(seeing_model()),
        output=str(tmp_path / "made"),
    )
    check_model(tmp_path / "made", seeing_model())


def test_the_chain_on_trainium_goes_from_rows_to_a_merged_model(tmp_path: Path, home: Path) -> None:
    instructions(tmp_path / "dolly.jsonl")
    shorter = [f"steps.{step}.runtime.recipe.args.maxLength=96" for step in ("tokenize", "train")]
    done = rehearsed_file(
        EXAMPLES / "eks-trainium-peft" / "pipeline.yaml",
        tmp_path,
        model="meta-llama/Llama-3.1-8B",
        settings=(
            *shorter,
            "steps.tokenize.runtime.recipe.args.data=dolly.jsonl",
            f'steps.tokenize.runtime.inputs={{"{BUCKET}/dolly.jsonl": "dolly.jsonl"}}',
            "steps.train.runtime.tensorParallelSize=2",
            "steps.train.runtime.recipe.args.maxSteps=3",
            "steps.train.runtime.recipe.args.warmup=0",
            "steps.train.runtime.recipe.args.learningRate=1e-2",
        ),
        put=(f"{BUCKET}/dolly.jsonl={tmp_path / 'dolly.jsonl'}",),
        processes=2,
    )
    assert len(done.found["run"]["steps"]) == 6
    # tokens on the file system that the steps share; nothing is compiled here, and it is said
    made = [one["uri"] for one in done.found["left"] if one["uri"].startswith("pvc://default/fsx-claim/")]
    assert {"train.arrow", "tokens.json"} <= {uri.rpartition("/")[2] for uri in made}
    assert any("rows, " in line and " tokens in " in line for line in done.log("tokenize"))
    assert not any("neuron" in line for line in done.log("tokenize") if "substituted: 16" in line)
    assert any("substituted: compile" in line for line in done.log("compile"))
    assert not any(" starts: " in line for line in done.log("compile"))
    assert any("substituted: train" in line for line in done.log("train"))
    # two shards, one adapter, one model
    files = done.files / "llama31-peft"
    shards = sorted(path.name for path in (files / "train" / "final").rglob("*.pt"))
    assert shards == [f"dp_rank_00_tp_rank_0{rank}_pp_rank_00.pt" for rank in (0, 1)]
    assert json.loads((files / "adapter" / "adapter_config.json").read_text())["r"] == 16
    check_model(files / "model", random_model())
