"""The quickstart's two recipes together: what is learnt must show."""

from __future__ import annotations

import json

import pytest

from tests import tiny
from tests.recipes.modules import RECIPES

pytestmark = pytest.mark.heavy


def test_fine_tuning_lowers_the_loss_of_the_prepared_model(tmp_path):
    prepared = tiny.python(RECIPES / "quickstart" / "quickstart.py", "--output-dir", tmp_path, "--steps", "60")
    assert prepared.returncode == 0, prepared.stdout
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("llama", "bfloat16")
    assert (tmp_path / "data" / "eval.jsonl").read_bytes() == (tiny.DATA / "eval.jsonl").read_bytes()

    line = ["--model", f"file://{tmp_path}/model", "--train-data", f"file://{tmp_path}/data", "--batch-size", "8"]
    line += ["--learning-rate", "5e-3", "--max-steps", "40", "--save-strategy", "no", "--output-dir", f"{tmp_path}/out"]
    ended = tiny.python(RECIPES / "sft" / "sft.py", *line)
    assert ended.returncode == 0, ended.stdout
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["eval_loss"] < 0.8 * metrics["eval_loss_before"]
