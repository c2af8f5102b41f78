"""Sharded checkpoints become models and adapters; checkpoints are made here without torch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

import cloudtune
from cloudtune import storage
from cloudtune.cli import cli
from cloudtune.errors import UsageError
from cloudtune.weights.consolidate import fitting
from cloudtune.weights.consolidate.verb import consolidate
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from tests.weights.forging import DCP, Saved, Storage, Thing, dumps, halves, metadata, save, size, tensor, torch_file
from tests.weights.making import shard_bytes, write_model

CONFIG = {"model_type": "toy", "torch_dtype": "float32", "tie_word_embeddings": False}
SHAPES = {
    "model.embed_tokens.weight": (37, 4),
    "model.layers.0.mlp.up_proj.weight": (6, 4),
    "model.layers.0.mlp.down_proj.weight": (4, 6),
    "model.layers.10.norm.weight": (7,),
    "model.layers.2.norm.weight": (7,),
    "lm_head.weight": (37, 4),
}


def arrays(shapes=SHAPES, kind=np.float32) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(7)
    return {name: draw.standard_normal(shape).astype(kind) for name, shape in shapes.items()}


def write_checkpoint(folder: Path, values: dict[str, np.ndarray], *, ranks: int = 3, branch: str = "model") -> Path:
    """Write a checkpoint as FSDP does; matrices with ``down`` in their names are cut along both dimensions."""
    tensors = {}
    for name, value in values.items():
        boxes = halves(value.shape, ranks) if value.ndim else [((), ())]
        if "down" in name:
            rows, columns = halves(value.shape, 2, 0), halves(value.shape, 2, 1)
            boxes = [((a[0], b[1]), (n[0], m[1])) for a, n in rows for b, m in columns]
        path = (branch, name) if branch else ()
        tensors[f"{branch}.{name}" if branch else name] = Saved(value, "F32", boxes, path)
    save(folder, tensors)
    return folder


def write_base(folder: Path, values: dict[str, np.ndarray], config=CONFIG, *, shards: int = 1) -> Path:
    held = {name: ("F32", value.shape, value.tobytes()) for name, value in values.items()}
    if shards == 1:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(shard_bytes(held, {"format": "pt"}))
    else:
        names = sorted(held)
        files = {f"model-{i + 1:05}-of-{shards:05}.safetensors": names[i::shards] for i in range(shards)}
        write_model(folder, {file: {name: held[name] for name in group} for file, group in files.items()})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "generation_config.json").write_text("{}")
    (folder / "LICENSE").write_text("as is")
    return folder


def held(place: Path | str, single: str = "model.safetensors") -> dict[str, np.ndarray]:
    """Return the tensors of a model in float32."""
    with open_weights(folder_at(str(place)), single=single) as weights:
        return {name: np.frombuffer(weights.read(name), "<f4").reshape(weights.tensor(name).shape) for name in weights}


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.fixture
def base(tmp_path) -> Path:
    return write_base(tmp_path / "base", arrays())


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", arrays())


def nothing_written(place: Path) -> bool:
    return not place.exists() and not list(place.parent.glob(f".{place.name}*"))


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


class TestWholeStateDicts:
    def file(self, values: dict[str, np.ndarray]) -> bytes:
        return torch_file(
            {name: tensor(Storage("F32", value.tobytes()), value.shape) for name, value in values.items()}
        )

    @pytest.mark.parametrize("name", ["pytorch_model_fsdp.bin", "pytorch_model.bin", "model.pt", "weights.pth"])
    def test_one_file_is_read(self, tmp_path, base, name):
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint" / name).write_bytes(self.file(arrays()))
        (tmp_path / "checkpoint/training_args.bin").write_bytes(b"x")
        (tmp_path / "checkpoint/optimizer.pt").write_bytes(b"x")
        consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))
        assert same(held(tmp_path / "out"), arrays())
        result = consolidate(str(tmp_path / "checkpoint" / name), str(tmp_path / "again"), base=str(base))
        assert same(held(tmp_path / "again"), arrays())
        assert result.layout == "state dict of torch.save in 1 file"

    def test_what_lies_beside_a_file_is_used(self, tmp_path, base):
        (base / "model.safetensors").unlink()
        (base / "model.pt").write_bytes(self.file(arrays()))
        consolidate(str(base / "model.pt"), str(tmp_path / "out"))
        assert same(held(tmp_path / "out"), arrays())
        assert (tmp_path / "out/tokenizer.json").exists()

    def test_files_of_an_index_are_read(self, tmp_path, base):
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        table = {}
        for number, (name, value) in enumerate(arrays().items()):
            file = f"pytorch_model-{number}.bin"
            (folder / file).write_bytes(self.file({name: value}))
            table[name] = file
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
        consolidate(str(folder), str(tmp_path / "out"), base=str(base))
        assert same(held(tmp_path / "out"), arrays())
        (folder / "pytorch_model-2.bin").unlink()
        with pytest.raises(UsageError, match=r"pytorch_model-2\.bin, which is not there"):
            consolidate(str(folder), str(tmp_path / "more"), base=str(base))

    @pytest.mark.parametrize(
        "name", ["pytorch_model_fsdp_0_rank1.bin", "pytorch_model_fsdp_rank0.bin", "mp_rank_00.pt"]
    )
    def test_the_part_of_one_rank_is_refused(self, tmp_path, base, name):
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint" / name).write_bytes(self.file(arrays()))
        with pytest.raises(UsageError, match="one rank's part"):
            consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))

    def test_what_is_not_contiguous_is_refused(self, tmp_path, base):
        value = torch_file({"lm_head.weight": tensor(Storage("F32", bytes(592)), (37, 4), stride=(1, 37))})
        (tmp_path / "model.pt").write_bytes(value)
        with pytest.raises(UsageError, match=r"lm_head.weight .* not contiguous") as told:
            consolidate(str(tmp_path / "model.pt"), str(tmp_path / "out"), base=str(base))
        assert "contiguous()" in (told.value.hint or "")

    def test_the_same_dict_many_times_is_refused(self, tmp_path, base, monkeypatch):
        monkeypatch.setattr("cloudtune.weights.consolidate.layouts.torchstate._MAX_VALUES", 1000)
        nested: object = {"a": 1}
        for _ in range(4):
            nested = {str(number): nested for number in range(20)}
        (tmp_path / "model.pt").write_bytes(torch_file(nested))
        with pytest.raises(UsageError, match="more than 1000 values"):
            consolidate(str(tmp_path / "model.pt"), str(tmp_path / "out"), base=str(base))


class TestDamage:
    def test_an_unfinished_checkpoint_is_told(self, tmp_path, base, checkpoint):
        (checkpoint / ".metadata").unlink()
        with pytest.raises(UsageError, match=r"no \.metadata") as told:
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
        assert "cut off" in (told.value.hint or "")

    def test_a_missing_or_short_file_is_told(self, tmp_path, base, checkpoint):
        file = checkpoint / "__1_0.distcp"
        data = file.read_bytes()
        file.write_bytes(data[:-50])
        with pytest.raises(UsageError, match=r"__1_0\.distcp is cut off"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
        file.unlink()
        with pytest.raises(UsageError, match=r"__1_0\.distcp is not there"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
        assert nothing_written(tmp_path / "out")

    def test_files_of_two_checkpoints_are_told(self, tmp_path, base, checkpoint):
        other = write_checkpoint(tmp_path / "other", arrays({name: (n[0] + 3, *n[1:]) for name, n in SHAPES.items()}))
        shutil.copy(other / "__1_0.distcp", checkpoint / "__1_0.distcp")
        with pytest.raises(UsageError, match="is no"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))

    @pytest.mark.parametrize(
        ("boxes", "message"),
        [
            ([((0,), (3,))], "missing: 3 to 7"),
            ([((0,), (3,)), ((4,), (3,))], "missing: 3 to 4"),
            ([((0,), (4,)), ((3,), (4,))], "overlap"),
        ],
    )
    def test_gaps_and_overlaps_are_told(self, tmp_path, base, boxes, message):
        value = arrays()["model.layers.2.norm.weight"]
        save(tmp_path / "checkpoint", {"x": Saved(value, "F32", boxes)})
        with pytest.raises(UsageError, match=message):
            consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))

    def test_a_file_outside_the_folder_is_not_read(self, tmp_path, base, checkpoint):
        (tmp_path / "x.distcp").write_bytes((checkpoint / "__0_0.distcp").read_bytes())
        metadata = (checkpoint / ".metadata").read_bytes()
        (checkpoint / ".metadata").write_bytes(metadata.replace(b"__0_0.distcp", b"../x.distcp\n"))
        with pytest.raises(UsageError, match="is not there"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))

    def test_compressed_files_are_told(self, tmp_path, base):
        info = Thing(
            f"{DCP}.filesystem._StorageInfo", relative_path="a", offset=0, length=1, transform_descriptors=["zstd"]
        )
        index = Thing(f"{DCP}.metadata.MetadataIndex", fqn="a", offset=size(0))
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint/.metadata").write_bytes(dumps(metadata({}, {index: info}, {}), 4))
        with pytest.raises(UsageError, match="compressed by an extension"):
            consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))

    @pytest.mark.parametrize("value", [{"a": 1}, None, Thing(f"{DCP}.metadata.Metadata", state_dict_metadata={"a": 1})])
    def test_other_pickles_are_no_metadata(self, tmp_path, base, value):
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint/.metadata").write_bytes(dumps(value, 4))
        with pytest.raises(UsageError, match="does not describe a whole checkpoint"):
            consolidate(str(tmp_path / "checkpoint"), str(tmp_path / "out"), base=str(base))


class TestPlaces:
    def test_nothing_is_there(self, tmp_path):
        with pytest.raises(UsageError, match="nothing at"):
            consolidate(str(tmp_path / "x"), str(tmp_path / "out"))

    def test_a_folder_of_something_else_is_told(self, tmp_path, base):
        with pytest.raises(UsageError, match="no checkpoint that is known") as told:
            consolidate(str(base), str(tmp_path / "out"))
        assert "safetensors already" in (told.value.hint or "")

    def test_a_base_without_a_config_is_refused(self, tmp_path, checkpoint):
        (tmp_path / "base").mkdir()
        with pytest.raises(UsageError, match=r"no config\.json"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(tmp_path / "base"))

    def test_a_quantized_base_is_refused(self, tmp_path, checkpoint):
        base = write_base(tmp_path / "base", arrays(), {**CONFIG, "quantization_config": {"quant_method": "gptq"}})
        with pytest.raises(UsageError, match="is quantized"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))

    def test_from_store_to_store(self, tmp_path, base, checkpoint):
        store = fsspec.filesystem("memory")
        for folder in (base, checkpoint):
            store.put(f"{folder}/", f"/{folder.name}/", recursive=True)
        try:
            consolidate("memory://checkpoint", "memory://out", base="memory://base", checksums=True)
            assert same(held("memory://out"), arrays())
            record = json.loads(store.cat_file("/out/cloudtune.json"))
            assert len(record["checksums"]) == 5
        finally:
            for name in ("/base", "/checkpoint", "/out"):
                if store.exists(name):
                    store.rm(name, recursive=True)

    def test_one_that_is_still_written_makes_no_model(self, tmp_path, base, checkpoint):
        def train(done: int, total: int) -> None:
            (checkpoint / "log.txt").write_text(str(done))  # which does not matter
            os.utime(next(checkpoint.rglob("*.distcp")), (10**9, 10**9))

        with pytest.raises(UsageError, match="has changed while it was read"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base), progress=train)
        assert not (tmp_path / "out").exists()

    def test_an_interrupted_one_goes_on(self, tmp_path, base, checkpoint):
        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base), progress=stop)
        assert not (tmp_path / "out").exists()
        consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
        assert same(held(tmp_path / "out"), arrays())
        with pytest.raises(UsageError, match="holds a model already"):
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))


class TestTheVerb:
    def test_the_command_line_says_where_the_model_is(self, tmp_path, base, checkpoint):
        out = tmp_path / "out"
        done = CliRunner().invoke(cli, ["consolidate", str(checkpoint), "--base", str(base), "-o", str(out)])
        assert (done.exit_code, done.stdout) == (0, f"file://{out}\n")
        assert "consolidated 6 tensors" in done.stderr

    def test_the_answer_has_forms(self, tmp_path, base, checkpoint):
        out = tmp_path / "out"
        words = ["consolidate", str(checkpoint), "--base", str(base), "-o", str(out), "-o", "json", "--checksums"]
        done = CliRunner().invoke(cli, words)
        found = json.loads(done.stdout)
        assert found["path"] == f"file://{out}"
        assert found["checksums"]["model.safetensors"]
        assert found["notes"] == []

    def test_inside_a_job_the_model_goes_to_its_outputs(self, tmp_path, base, checkpoint, monkeypatch):
        monkeypatch.setenv("CLOUDTUNE_OUTPUT_DIR", str(tmp_path / "outputs"))
        result = cloudtune.consolidate(str(checkpoint), base=str(base))
        assert result.path == f"file://{tmp_path}/outputs"

    def test_a_pipeline_consolidates(self, tmp_path, base, checkpoint):
        steps = [
            {"name": "whole", "consolidate": {"checkpoint": str(checkpoint), "base": str(base), "dtype": "float16"}}
        ]
        file = tmp_path / "pipeline.json"
        file.write_text(json.dumps({"kind": "pipeline", "spec": {"name": "p", "steps": steps}}))
        run = cloudtune.run(file)
        assert run.wait(60).state == "succeeded"
        with open_weights(folder_at(run.steps[0].outputs()[0])) as weights:
            assert {weights.tensor(name).dtype for name in weights} == {"F16"}
