"""Sharded checkpoints become models and adapters; checkpoints are made here without torch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.weights.consolidate import fitting
from cloudtune.weights.consolidate.verb import consolidate
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from tests.weights.consolidate.checkpoints import (
    CONFIG,
    SHAPES,
    arrays,
    held,
    nothing_written,
    same,
    write_base,
    write_checkpoint,
)


def test_a_model_is_written_with_all_that_belongs_to_it(tmp_path, base, checkpoint):
    seen = []
    result = consolidate(
        str(checkpoint),
        str(tmp_path / "out"),
        base=str(base),
        name="mine",
        checksums=True,
        progress=lambda done, total: seen.append((done, total)),
    )
    out = tmp_path / "out"
    assert same(held(out), arrays())
    assert sorted(path.name for path in out.iterdir()) == [
        "LICENSE",
        "README.md",
        "cloudtune.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    record = json.loads((out / "cloudtune.json").read_text())
    assert record["kind"] == "consolidated model"
    assert (record["name"], record["base"]) == ("mine", f"{tmp_path.name}/base")
    assert record["checkpoint"] == f"{tmp_path.name}/checkpoint"
    assert str(tmp_path) not in (out / "cloudtune.json").read_text() + (out / "README.md").read_text()
    assert result.base == str(base)
    assert record["layout"] == "PyTorch distributed checkpoint in 4 files"
    assert record["checksums"].keys() == {path.name for path in out.iterdir()} - {"cloudtune.json", "README.md"}
    assert result.checksums == record["checksums"]
    assert (result.path, result.kind, result.tensors) == (f"file://{out}", "model", 6)
    assert result.bytes == (out / "model.safetensors").stat().st_size
    assert result.notes == ()
    assert "# mine" in (out / "README.md").read_text()
    assert seen[-1][0] == seen[-1][1] > 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json"])
@pytest.mark.parametrize("place", ["{}/out", "memory://in-the-way{}/out"])
def test_a_file_in_the_way_is_told_before_anything_is_written(tmp_path, base, checkpoint, place, name):
    out = place.format(tmp_path)
    with fsspec.open(f"{out}/{name}", "wb", auto_mkdir=True) as file:
        file.write(b"mine")
    with pytest.raises(UsageError, match=f"{name} is there already"):
        consolidate(str(checkpoint), out, base=str(base))
    assert [(entry.path, entry.bytes) for entry in storage.listing(out)] == [(name, 4)]


@pytest.mark.parametrize("place", ["{}/out", "memory://changed{}/out"])
def test_companions_that_have_changed_meanwhile_are_written_anew(tmp_path, base, checkpoint, place, monkeypatch):
    out = place.format(tmp_path)

    def interrupt(*facts: object) -> str:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("cloudtune.weights.target.models.card", interrupt)
        with pytest.raises(ZeroDivisionError):
            consolidate(str(checkpoint), out, base=str(base))
    length = (base / "tokenizer.json").stat().st_size
    (base / "tokenizer.json").write_text('{"version": "2.0"}')
    assert (base / "tokenizer.json").stat().st_size == length
    os.utime(base / "tokenizer.json", (10**9, 10**9))
    if "://" in out:  # where files appear one by one nothing is taken over by another model
        with pytest.raises(UsageError, match="another model was begun"):
            consolidate(str(checkpoint), out, base=str(base))
    else:
        consolidate(str(checkpoint), out, base=str(base))
        assert (tmp_path / "out/tokenizer.json").read_text() == '{"version": "2.0"}'


def test_secrets_in_a_uri_are_not_shown(tmp_path, base, checkpoint):
    place = f"user:pa55word@host{checkpoint}"
    fsspec.filesystem("memory").put(f"{checkpoint}/", f"/{place}/", recursive=True)
    result = consolidate(f"memory://{place}", str(tmp_path / "out"), base=str(base))
    assert "pa55word" not in repr(result)
    assert result.checkpoint.endswith(f"host{checkpoint}")


def test_tensors_stand_in_the_order_of_the_base_or_of_their_numbers(tmp_path, base, checkpoint):
    consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
    with open_weights(folder_at(str(tmp_path / "out"))) as ours, open_weights(folder_at(str(base))) as theirs:
        assert list(ours) == list(theirs)
    (base / "model.safetensors").unlink()
    result = consolidate(str(checkpoint), str(tmp_path / "alone"), base=str(base))
    assert result.notes == (
        f"{tmp_path.name}/base has no weights in safetensors: names and shapes were not compared with it",
    )
    with open_weights(folder_at(str(tmp_path / "alone"))) as alone:
        assert [name for name in alone if "norm" in name] == [
            "model.layers.2.norm.weight",
            "model.layers.10.norm.weight",
        ]


def test_numbers_in_names_may_be_longer_than_any_number():
    names = [f"layers.{number}.norm" for number in ("9" * 5000, "10", "2")]
    assert sorted(names, key=fitting._natural) == names[::-1]


def test_shards_are_those_of_the_base(tmp_path, checkpoint):
    base = write_base(tmp_path / "base", arrays(), shards=3)
    consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
    assert same(held(tmp_path / "out"), arrays())
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert index["weight_map"] == json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in arrays().values())


def test_shards_have_a_largest_size(tmp_path, base, checkpoint, monkeypatch):
    monkeypatch.setattr("cloudtune.weights.files.modelfiles.SHARD_BYTES", 700)
    consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ]
    assert same(held(tmp_path / "out"), arrays())


def test_the_layout_of_the_trainer_is_found(tmp_path, base):
    root = tmp_path / "outputs"
    write_checkpoint(root / "checkpoint-20/pytorch_model_fsdp_0", arrays())
    write_checkpoint(root / "checkpoint-20/optimizer_0", arrays({"state": (3,)}), branch="optimizer")
    (root / "checkpoint-20/rng_state_0.pth").write_bytes(b"x")
    (root / "checkpoint-20/scheduler.pt").write_bytes(b"x")
    for number, place in enumerate(("checkpoint-20", "checkpoint-20/pytorch_model_fsdp_0", ".")):
        consolidate(str(root / place), str(tmp_path / f"out{number}"), base=str(base))
        assert same(held(tmp_path / f"out{number}"), arrays())
    write_checkpoint(root / "checkpoint-100/pytorch_model_fsdp_0", arrays())
    with pytest.raises(UsageError, match="holds 2 checkpoints") as told:
        consolidate(str(root), str(tmp_path / "out"), base=str(base))
    assert "checkpoint-100" in (told.value.hint or "")
    only = write_checkpoint(tmp_path / "left/optimizer_0", arrays({"state": (3,)}), branch="optimizer")
    with pytest.raises(UsageError, match="the optimizer's state"):
        consolidate(str(only.parent), str(tmp_path / "out"), base=str(base))
    assert nothing_written(tmp_path / "out")


def test_what_lies_beside_the_checkpoint_is_used(tmp_path, base):
    root = tmp_path / "outputs"
    write_checkpoint(root / "checkpoint-20/pytorch_model_fsdp_0", arrays())
    with pytest.raises(UsageError, match=r"no config\.json beside it") as told:
        consolidate(str(root / "checkpoint-20"), str(tmp_path / "out"))
    assert "--base" in (told.value.hint or "")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(base / name, root / name)
    result = consolidate(str(root / "checkpoint-20"), str(tmp_path / "out"))
    assert (result.base, result.name) == (None, "checkpoint-20")
    assert (tmp_path / "out/tokenizer.json").exists()
    (root / "training.json").write_text(json.dumps({"run": "abcd1234", "base": str(base)}))
    result = consolidate(str(root / "checkpoint-20/pytorch_model_fsdp_0"), str(tmp_path / "again"))
    assert (result.base, result.run, result.notes) == (str(base), "abcd1234", ())
    assert "abcd1234" in (tmp_path / "again/README.md").read_text()
    (root / "training.json").write_text(json.dumps({"base": "/somewhere/on/a/node"}))
    result = consolidate(str(root / "checkpoint-20"), str(tmp_path / "third"))
    assert (result.base, same(held(tmp_path / "third"), arrays())) == (None, True)
    (root / "config.json").unlink()
    with pytest.raises(UsageError, match="/somewhere/on/a/node is no model"):
        consolidate(str(root / "checkpoint-20"), str(tmp_path / "fourth"))


def test_the_layout_of_llama_recipes_names_its_base(tmp_path, base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, "meta-llama/tiny")
    folder = write_checkpoint(tmp_path / "model_checkpoints/fine-tuned-meta-llama/tiny", arrays())
    (folder / "train_params.yaml").write_text("batch_size: '4'\nmodel_name: meta-llama/tiny\nseed: '42'\n")
    for number, place in enumerate(("model_checkpoints", "model_checkpoints/fine-tuned-meta-llama/tiny")):
        result = consolidate(place, f"out{number}")
        assert result.base == "meta-llama/tiny"
        assert same(held(tmp_path / f"out{number}"), arrays())


@pytest.mark.parametrize("branch", ["", "model", "app.model"])
def test_wrappers_are_taken_off(tmp_path, base, branch):
    wrapped = {f"_orig_mod.module.{name}": value for name, value in arrays().items()}
    write_checkpoint(tmp_path / "checkpoint", wrapped, branch=branch)
    consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))
    assert same(held(tmp_path / "out"), arrays())


def test_names_are_those_of_the_files_of_the_base(tmp_path):
    files = {"language_model.model.norm.weight": (4,), "vision_tower.x.weight": (3, 2)}
    ours = {"model.language_model.norm.weight": (4,), "model.vision_tower.x.weight": (3, 2)}
    base = write_base(tmp_path / "base", arrays(files))
    write_checkpoint(tmp_path / "checkpoint", dict(zip(ours, arrays(files).values(), strict=True)))
    consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))
    assert same(held(tmp_path / "out"), arrays(files))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lm_head.weight": None}, "base has lm_head.weight, and the checkpoint has not"),
        ({"more.weight": (3,)}, "the checkpoint has more.weight, and .*base has not"),
        ({"lm_head.weight": (36, 4)}, r"lm_head.weight has shape \[36, 4\], and in .*base \[37, 4\]"),
        ({"model.layers.2.norm.weight": None, "x": (1,)}, "layers.2.*; the checkpoint has x"),
        ({"lm_head.weight": (148,)}, "flat parameter"),
    ],
)
def test_another_base_is_refused_before_anything_is_written(tmp_path, base, change, message):
    shapes = {name: shape for name, shape in {**SHAPES, **change}.items() if shape is not None}
    write_checkpoint(tmp_path / "checkpoint", arrays(shapes))
    with pytest.raises(UsageError, match=message):
        consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))
    assert nothing_written(tmp_path / "out")


def test_what_is_computed_is_left_out(tmp_path, base):
    write_checkpoint(tmp_path / "checkpoint", arrays({**SHAPES, "model.rotary_emb.inv_freq": (4,)}))
    consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))
    assert held(tmp_path / "out").keys() == SHAPES.keys()


class TestTiedEmbeddings:
    def values(self, *, equal: bool) -> dict[str, np.ndarray]:
        found = arrays()
        if equal:
            found["lm_head.weight"] = found["model.embed_tokens.weight"]
        return found

    def base(self, folder: Path, **config) -> Path:
        kept = {name: value for name, value in arrays().items() if name != "lm_head.weight"}
        return write_base(folder / "base", kept, {**CONFIG, "tie_word_embeddings": True, **config})

    def test_one_tensor_is_written_once(self, tmp_path):
        base = self.base(tmp_path)
        write_checkpoint(tmp_path / "checkpoint", self.values(equal=True))
        result = consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))
        assert "lm_head.weight" not in held(tmp_path / "out")
        assert result.notes == ()
        assert (tmp_path / "out/config.json").read_bytes() == (base / "config.json").read_bytes()

    def test_one_tensor_cut_in_two_ways_is_one(self, tmp_path):
        values = self.values(equal=True)
        values["model.down.lm_head.weight"] = values.pop("lm_head.weight")
        (tmp_path / "base").mkdir()
        (tmp_path / "base/config.json").write_text(json.dumps({"model_type": "toy"}))
        write_checkpoint(tmp_path / "checkpoint", values)
        consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(tmp_path / "base"))
        assert "model.down.lm_head.weight" not in held(tmp_path / "out")

    def test_what_training_has_made_two_is_two(self, tmp_path):
        base = self.base(tmp_path, text_config={"tie_word_embeddings": True})
        write_checkpoint(tmp_path / "checkpoint", self.values(equal=False))
        result = consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))
        assert same(held(tmp_path / "out"), self.values(equal=False))
        config = json.loads((tmp_path / "out/config.json").read_text())
        assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False
        assert "no longer" in result.notes[0]

    def test_a_missing_one_is_fine(self, tmp_path):
        kept = {name: value for name, value in arrays().items() if name != "lm_head.weight"}
        write_checkpoint(tmp_path / "checkpoint", kept)
        consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(self.base(tmp_path)))
        assert same(held(tmp_path / "out"), kept)

    def test_equal_ones_that_are_not_tied_are_two(self, tmp_path, base):
        write_checkpoint(tmp_path / "checkpoint", self.values(equal=True))
        consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))
        assert same(held(tmp_path / "out"), self.values(equal=True))


class TestPrecision:
    def test_tensors_are_rounded_once(self, tmp_path, base, checkpoint):
        result = consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base), dtype="bfloat16")
        with open_weights(folder_at(str(tmp_path / "out"))) as weights:
            for name, value in arrays().items():
                assert weights.tensor(name).dtype == "BF16"
                bits = value.view(np.uint32)
                wanted = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
                assert weights.read(name) == wanted.tobytes()
        assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "bfloat16"
        assert result.notes == ("the checkpoint is in bfloat16, and the base in float32 (--dtype float32)",)

    def test_another_precision_than_the_base_has_is_told(self, tmp_path, checkpoint):
        config = {**CONFIG, "dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}}
        base = write_base(tmp_path / "base", arrays(), config)
        consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
        found = json.loads((tmp_path / "out/config.json").read_text())
        assert found["dtype"] == found["text_config"]["dtype"] == "float32"

    def test_an_unknown_precision_is_refused(self, tmp_path, base, checkpoint):
        with pytest.raises(UsageError, match="no precision 'int4'"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base), dtype="int4")


class TestAdapters:
    Q = "base_model.model.model.layers.0.self_attn.q_proj"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"{self.Q}.lora_A.default.weight": (3, 8), f"{self.Q}.lora_B.default.weight": (6, 3)}

    def test_an_adapter_is_written_as_peft_does(self, tmp_path):
        values = arrays(self.shapes())
        write_checkpoint(tmp_path / "outputs/checkpoint-5/pytorch_model_fsdp_0", values)
        config = {"peft_type": "LORA", "r": 3, "base_model_name_or_path": "some/base"}
        (tmp_path / "outputs/checkpoint-5/adapter_config.json").write_text(json.dumps(config))
        (tmp_path / "outputs/checkpoint-5/tokenizer.json").write_text("{}")
        result = consolidate(str(tmp_path / "outputs/checkpoint-5"), str(tmp_path / "out"))
        found = held(tmp_path / "out", "adapter_model.safetensors")
        wanted = {name.replace(".default", ""): value for name, value in values.items()}
        assert same(found, wanted)
        assert json.loads((tmp_path / "out/adapter_config.json").read_text()) == config
        assert (tmp_path / "out/tokenizer.json").exists()
        assert (result.kind, result.base, result.tensors) == ("adapter", "some/base", 2)
        assert "library_name: peft" in (tmp_path / "out/README.md").read_text()

    def test_the_base_beside_an_adapter_is_left_out(self, tmp_path):
        more = {f"{self.Q}.base_layer.weight": (6, 8), "base_model.model.model.norm.weight": (8,)}
        write_checkpoint(tmp_path / "checkpoint", arrays({**self.shapes(), **more}))
        (tmp_path / "config").mkdir()
        (tmp_path / "config/adapter_config.json").write_text('{"r": 3}')
        result = consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(tmp_path / "config"))
        assert len(held(tmp_path / "out", "adapter_model.safetensors")) == 2
        assert result.notes == ("2 tensors of the base beside the adapter were left out",)
        assert (tmp_path / "out/adapter_config.json").exists()

    def test_without_a_config_it_is_said(self, tmp_path):
        write_checkpoint(tmp_path / "checkpoint", arrays(self.shapes()))
        result = consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"))
        assert "no adapter_config.json was found" in result.notes[0]

    def test_the_config_of_another_adapter_is_refused(self, tmp_path):
        write_checkpoint(tmp_path / "checkpoint", arrays(self.shapes()))
        (tmp_path / "checkpoint/adapter_config.json").write_text('{"r": 16}')
        with pytest.raises(UsageError, match=r"has shape \[3, 8\], and .* says rank 16"):
            consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"))
