"""Consolidating state dicts of torch.save, what is damaged, from place to place, and by the command line."""

from __future__ import annotations

import json
import os
import shutil

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

import cloudtune
from cloudtune.cli import cli
from cloudtune.errors import UsageError
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
from tests.weights.forging import DCP, Saved, Storage, Thing, dumps, metadata, save, size, tensor, torch_file


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
        with pytest.raises(UsageError, match=r"__1_0\.distcp is not there") as told:
            consolidate(str(checkpoint), str(tmp_path / "out"), base=str(base))
        assert "outputLayout: shared" in (told.value.hint or "")
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
        assert run.wait(240).state == "succeeded"
        with open_weights(folder_at(run.steps[0].outputs()[0])) as weights:
            assert {weights.tensor(name).dtype for name in weights} == {"F16"}
