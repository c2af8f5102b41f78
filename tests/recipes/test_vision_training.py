"""The recipe vision, run as a node runs it: over two processes as over one, interrupted, sharded and put together."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from cloudtune import verbs
from tests import tiny
from tests.recipes.modules import RECIPES
from tests.recipes.seeing import seeing_model, web_pages

pytestmark = pytest.mark.heavy

VISION = RECIPES / "vision" / "vision.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
QUICK = (
    "--learning-rate",
    "5e-3",
    "--logging-steps",
    "1",
    "--max-steps",
    "4",
    "--save-strategy",
    "steps",
    "--save-steps",
    "2",
)
#: Makes each process the only one of a node, and all nodes share their folders.
_NODE = """
import os, runpy, sys
from pathlib import Path
rank = os.environ["RANK"]
os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", GROUP_RANK=rank, CLOUDTUNE_NODE_RANK=rank)
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_LABELS = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from batches import Collator
from model import load_processor
from options import Options
from pictures import load
rows = load(sys.argv[4], "train", "", evaluation=False)
processor = load_processor(Options(model=sys.argv[3], train_data="d", output_dir="o"))
collator = Collator(processor, 512)
batch = collator([rows[0], (rows[1][0] + rows[1][0], rows[1][1] * 2)])
kept = [[int(one) for one in row if one != -100] for row in batch["labels"]]
print(json.dumps({
    "answers": processor.tokenizer.batch_decode(kept),
    "shapes": {name: list(one.shape) for name, one in batch.items()},
    "ends": [[int(one) for one in row[-3:]] for row in batch["attention_mask"]],
    "cut": list(Collator(processor, 20)([rows[0]])["cross_attention_mask"].shape),
    "fallback": [int((row != -100).sum()) for row in batch["labels"]],
}))
"""


def losses(said: str) -> list[float]:
    return [float(found) for found in re.findall(r"\{'loss': ([\d.]+)", said)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return web_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def alone(pages, tmp_path_factory):
    """Return what a full training on one process has left, and what it said."""
    output = tmp_path_factory.mktemp("alone")
    given = ("--model", seeing_model(), "--train-data", pages, "--output-dir", output, *QUICK)
    ended = tiny.python(VISION, *given, "--method", "full", "--batch-size", "2", CLOUDTUNE_RUN_ID="abc12345")
    assert ended.returncode == 0, ended.stdout
    return output, ended.stdout


def test_one_process_leaves_a_model_its_measures_and_how_it_was_made(alone):
    output, said = alone
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["eval_loss"] < metrics["eval_loss_before"]
    assert (metrics["steps"], metrics["epochs"]) == (4, 0.5)
    record = json.loads((output / "training.json").read_text())
    assert (record["run"], record["recipe"], record["artifact"]) == ("abc12345", "vision", "model")
    config = json.loads((output / "model" / "config.json").read_text())
    assert (config["dtype"], config["text_config"]["use_cache"]) == ("bfloat16", True)
    assert (output / "model" / "processor_config.json").is_file()
    assert "Warning" not in said
    assert len(losses(said)) == 4


def test_two_nodes_go_on_from_its_checkpoint_alike_and_their_shards_become_one_model(alone, pages, tmp_path):
    checkpoint = alone[0] / "checkpoints" / "checkpoint-2"
    shutil.copytree(checkpoint, tmp_path / "kept" / checkpoint.name)
    given = ("--model", seeing_model(), "--train-data", pages, "--output-dir", tmp_path, *QUICK, "--method", "full")
    (tmp_path / "node.py").write_text(_NODE)
    variables = {"CLOUDTUNE_CHECKPOINT_DIR": str(tmp_path / "kept"), "CLOUDTUNE_NUM_NODES": "2"}
    ended = tiny.python(*TORCHRUN, tmp_path / "node.py", VISION, *given, **variables)
    assert ended.returncode == 0, ended.stdout
    assert f"resume: going on from {tmp_path / 'kept' / 'checkpoint-2'}" in ended.stdout
    found = re.search(r"sharding: fsdp2, (\d+) of (\d+) parameters on this rank, (\d+) DTensors", ended.stdout)
    assert found, ended.stdout
    assert int(found[2]) // 2 <= int(found[1]) < 0.6 * int(found[2])
    # half a batch each: the same steps
    assert losses(ended.stdout) == pytest.approx(losses(alone[1])[2:], rel=1e-3)
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, alone[0]))
    assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-3)
    assert ours["eval_loss_before"] == theirs["eval_loss_before"]
    check_whole(tmp_path, alone[0])


def check_whole(sharded, alone):
    """Make one model of shards, and compare it with the one that one process has left."""
    from safetensors.torch import load_file
    from torch import allclose
    from transformers import AutoModelForImageTextToText

    assert len(list((sharded / "sharded").glob("*.distcp"))) == 2
    verbs.consolidate(str(sharded / "sharded"), base=str(seeing_model()), output=str(sharded / "made"))
    made, other = (load_file(folder / "model.safetensors") for folder in (sharded / "made", alone / "model"))
    assert made.keys() == other.keys()
    assert all(allclose(made[name].float(), other[name].float(), atol=2e-2) for name in made)
    report = verbs.check(str(sharded / "made"), for_="bedrock")
    assert report.ok, report.to_dict()
    _, told = AutoModelForImageTextToText.from_pretrained(sharded / "made", output_loading_info=True)
    assert not any(told.values()), told
    verbs.consolidate(str(sharded / "kept" / "checkpoint-4"), base=str(seeing_model()), output=str(sharded / "of_it"))


def test_an_adapter_is_merged_into_the_model_that_it_is_of(pages, tmp_path):
    given = ("--model", seeing_model(), "--train-data", pages, "--output-dir", tmp_path, *QUICK)
    ended = tiny.python(VISION, *given, "--batch-size", "2", "--train-vision", "false", "--save-strategy", "no")
    assert ended.returncode == 0, ended.stdout
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 16
    from safetensors import safe_open

    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert file.keys()
        assert not [name for name in file.keys() if "vision" in name]  # noqa: SIM118 - it is no mapping
    verbs.merge(str(seeing_model()), [str(tmp_path / "adapter")], output=str(tmp_path / "merged"))
    base, merged = (folder / "model.safetensors" for folder in (seeing_model(), tmp_path / "merged"))
    assert base.stat().st_size == merged.stat().st_size
    assert base.read_bytes() != merged.read_bytes()


def test_the_loss_is_of_the_last_answer_alone(pages):
    folders = (RECIPES / "vision", RECIPES / "sft")
    ended = tiny.python("-c", _LABELS, *folders, seeing_model(), pages)
    assert ended.returncode == 0, ended.stdout
    found = json.loads(ended.stdout.splitlines()[-1])
    assert [re.sub("red|green|blue", "C", one) for one in found["answers"]] == ["[button]  C -> CLICK<|end|>"] * 2
    assert found["ends"] == [[0, 0, 0], [1, 1, 1]]
    ids = found["shapes"]["input_ids"]
    assert found["shapes"]["cross_attention_mask"] == [*ids, 2, 4]
    assert found["cut"] == [1, 20, 1, 4]
