"""The recipe sft, run as a node runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.processes import eventually
from tests.recipes.modules import RECIPES

pytestmark = pytest.mark.heavy

SFT = RECIPES / "sft" / "sft.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
FOUR_STEPS = ("--max-steps", "4")
QUICK = ("--learning-rate", "5e-3", "--batch-size", "4", "--logging-steps", "2")


def flags(output: Path) -> list[str | Path]:
    data = ("--train-data", tiny.DATA / "train.jsonl", "--eval-data", tiny.DATA / "eval.jsonl")
    return [SFT, "--model", tiny.random_model(), *data, "--output-dir", output, *QUICK]


def losses(said: str) -> list[float]:
    return [float(found) for found in re.findall(r"\{'loss': ([\d.]+)", said)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return the outputs of a LoRA training over two unsharded processes, and what it said."""
    output = tmp_path_factory.mktemp("plain")
    ended = tiny.python(*TORCHRUN, *flags(output), *FOUR_STEPS, CLOUDTUNE_RUN_ID="abc12345")
    assert ended.returncode == 0, ended.stdout
    return output, ended.stdout


def test_lora_leaves_an_adapter_its_measures_and_how_it_was_made(plain):
    output, said = plain
    assert {path.name for path in (output / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
    }
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["eval_loss"] < metrics["eval_loss_before"]
    assert metrics["steps"] == 4
    assert metrics["tokens_per_second"] > 0
    record = json.loads((output / "training.json").read_text())
    assert (record["run"], record["base"]) == ("abc12345", str(tiny.random_model()))
    assert (record["method"], record["artifact"], record["processes"]) == ("lora", "adapter", 2)
    assert record["versions"]["trl"]
    assert any((output / "tensorboard").iterdir())
    assert f"eval_loss before: {metrics['eval_loss_before']:.4f} after: {metrics['eval_loss']:.4f}" in said


def test_one_line_a_log_step_and_no_clutter(plain):
    said = plain[1]
    assert len(losses(said)) == 2
    assert "'step': 2, 'max_steps': 4}" in said
    assert "'tokens_per_second': " in said
    assert "it/s" not in said
    assert said.count("sharding: none, ddp over 2 processes") == 1


def test_fsdp_is_really_on_and_gives_the_same_losses(plain, tmp_path):
    ended = tiny.python(*TORCHRUN, *flags(tmp_path), *FOUR_STEPS, "--sharding", "fsdp")
    assert ended.returncode == 0, ended.stdout
    found = re.search(r"sharding: fsdp2, (\d+) of (\d+) parameters on this rank, (\d+) DTensors", ended.stdout)
    assert found, ended.stdout
    local, total, tensors = map(int, found.groups())
    # the base lies in halves, the adapter is whole on every rank
    assert tensors == 38
    assert total // 2 < local < 0.6 * total
    assert losses(ended.stdout) == pytest.approx(losses(plain[1]), rel=1e-3)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["sharding"] == found[0]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size == (
        plain[0] / "adapter" / "adapter_model.safetensors"
    ).stat().st_size


def test_fsdp_with_one_process_is_refused(tmp_path):
    ended = tiny.python(*flags(tmp_path), "--sharding", "fsdp")
    assert ended.returncode == 1
    assert "only one process to shard over" in ended.stdout
    assert "Traceback" not in ended.stdout


def test_sigterm_saves_a_checkpoint_and_training_goes_on_from_it(tmp_path):
    rest = [*flags(tmp_path), "--save-strategy", "no", "--method", "full", "--learning-rate", "1e-3"]
    with (tmp_path / "said").open("w") as said:
        started = subprocess.Popen(
            [sys.executable, *map(str, rest), "--max-steps", "5000"],
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **tiny.ENVIRONMENT},
        )
    text = (tmp_path / "said").read_text
    eventually(lambda: len(losses(text())) >= 2 or started.poll() is not None, within_s=120)
    started.send_signal(signal.SIGTERM)
    assert started.wait(240) == 143, text()
    assert "stopped by SIGTERM after step" in text()
    assert not (tmp_path / "model").exists()
    (checkpoint,) = (tmp_path / "checkpoints").glob("checkpoint-*")
    step = int(checkpoint.name.rpartition("-")[2])

    ended = tiny.python(*rest, "--max-steps", str(step + 2))
    assert ended.returncode == 0, ended.stdout
    assert f"resume: going on from {checkpoint}" in ended.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] == step + 2
    assert metrics["eval_loss"] < metrics["eval_loss_before"]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["dtype"], config["use_cache"]) == ("bfloat16", True)


def test_bad_rows_end_the_training_before_it_starts(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    ended = tiny.python(*flags(tmp_path / "out"), "--train-data", tmp_path / "rows.jsonl")
    assert ended.returncode == 1
    assert f"error: {tmp_path / 'rows.jsonl'}:1: messages is not a list" in ended.stdout
    assert "Traceback" not in ended.stdout
