"""Which checkpoints of the recipe sft count as whole, after copies that were cut anywhere."""

from __future__ import annotations

import os
import random
import shutil

import pytest

from tests.recipes.modules import module

checkpoints = module("sft", "checkpoints")


def saved(folder, step, *, mark="first", nodes=1, node=0, text="weights"):
    """Write what one node has of a checkpoint: in its own name, and in a name that all nodes use."""
    path = folder / f"checkpoint-{step}"
    shards = path / "pytorch_model_fsdp_0"
    shards.mkdir(parents=True, exist_ok=True)
    (path / "trainer_state.json").write_text(f"{step} of node {node}")
    (path / "adapter_model.safetensors").write_text(text * 20_000)
    (shards / f"__{node}_0.distcp").write_text(f"{text} {node}" * 100)
    checkpoints.write_list(path, mark=mark, number=node, expected=nodes)
    return path


def doubts(*folders):
    return checkpoints.doubts([checkpoints.look(folder) for folder in folders])


def test_a_checkpoint_that_was_written_to_its_end_is_whole(tmp_path):
    saved(tmp_path, 5)
    saved(tmp_path, 10)
    (tmp_path / "checkpoint-x").mkdir()
    assert doubts(tmp_path) == {5: "", 10: ""}


def test_a_copy_that_was_cut_anywhere_is_not_whole(tmp_path):
    """Any subset of the files that is not all of them, and any file that is shorter than it was."""
    whole = saved(tmp_path / "from", 10)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    draw = random.Random(11)
    for _ in range(40):
        shutil.rmtree(tmp_path / "to", ignore_errors=True)
        copied = draw.sample(names, draw.randrange(len(names) + 1))
        for name in copied:
            target = tmp_path / "to" / "checkpoint-10" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(whole / name, target)
        if len(copied) == len(names):
            assert doubts(tmp_path / "to") == {10: ""}
            target = tmp_path / "to" / "checkpoint-10" / draw.choice(names)
            os.truncate(target, draw.randrange(target.stat().st_size))
        if (tmp_path / "to" / "checkpoint-10").exists():
            (fault,) = doubts(tmp_path / "to").values()
            assert fault, copied


def test_the_fault_is_told(tmp_path):
    path = saved(tmp_path, 10)
    size = (path / "adapter_model.safetensors").stat().st_size
    os.truncate(path / "adapter_model.safetensors", 7)
    assert doubts(tmp_path) == {10: f"adapter_model.safetensors has 7 of {size} bytes"}
    (path / "files-0.json").unlink()
    assert doubts(tmp_path) == {10: "files-0.json, which is written last, is missing"}
    (path / "files-0.json").write_text('{"files": ')
    assert "cannot be read" in doubts(tmp_path)[10]
    (path / "trainer_state.json").unlink()
    assert doubts(tmp_path) == {10: "weights or the trainer's state are missing"}


def test_what_an_earlier_attempt_left_by_the_same_names_is_no_part_of_it(tmp_path):
    """Interrupted while it wrote step 10 once more: the earlier list is there, and a file of the later attempt."""
    path = saved(tmp_path, 10, text="weights")
    (path / "adapter_model.safetensors").write_text("WEIGHTS" * 20_000)
    assert doubts(tmp_path) == {10: "adapter_model.safetensors is not the file that was listed"}
    saved(tmp_path, 10, mark="second", text="WEIGHTS")
    assert doubts(tmp_path) == {10: ""}


@pytest.mark.parametrize("together", [False, True], ids=["each its own folder", "copied together"])
def test_nodes_without_a_common_folder_each_list_their_files(tmp_path, together):
    folders = [tmp_path / f"node{node}" for node in range(2)]
    for node, folder in enumerate(folders):
        saved(folder, 10, nodes=2, node=node)
        if node == 0 or not together:
            saved(folder, 20, nodes=2, node=node)
    if together:
        for folder in folders:  # as they come back from one prefix of an object store
            shutil.copytree(folder, tmp_path / "all", dirs_exist_ok=True)
        folders = [tmp_path / "all"] * 2
        assert doubts(*folders) == {10: "", 20: "files-1.json, which is written last, is missing"}
        saved(tmp_path / "all", 10, mark="second", nodes=2)
        lists = {path.name for path in (tmp_path / "all" / "checkpoint-10").glob("files-*")}
        assert lists == {"files-0.json"}
    else:
        assert doubts(*folders) == {10: "", 20: ""}
        saved(folders[1], 20, mark="second", nodes=2, node=1)
        assert doubts(*folders)[20] == "its files are of several attempts at this step"
        shutil.rmtree(folders[1] / "checkpoint-20")
        assert doubts(*folders) == {10: "", 20: "not all nodes have it"}


def test_the_trainer_removes_first_what_is_not_whole(tmp_path):
    for step in (5, 10, 15):
        saved(tmp_path, step)
    checkpoints.order_by_age(tmp_path, [15, 5, 10])
    by_age = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime)
    assert [path.name for path in by_age] == ["checkpoint-15", "checkpoint-5", "checkpoint-10"]
    assert by_age[-1].stat().st_mtime - by_age[0].stat().st_mtime > 1
