"""Folders of models and adapters, without any tensor."""

from __future__ import annotations

import json

import pytest

from cloudtune.checksums import checksums
from cloudtune.errors import UsageError
from cloudtune.weights.folder import adapter_at, copy_companions, model_card, place_whole


def adapter(folder, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    (folder / "adapter_model.safetensors").touch()
    return folder


def test_an_adapter_with_what_its_training_left(tmp_path):
    adapter(tmp_path / "adapter", r=8)
    (tmp_path / "training.json").write_text('{"run": "abc", "base": "b"}')
    (tmp_path / "metrics.json").write_text('{"eval_loss": 1.5}')
    for named in (tmp_path, tmp_path / "adapter"):
        found = adapter_at(named, str(named))
        assert found.folder == tmp_path / "adapter"
        assert found.config["r"] == 8
        assert found.training["run"] == "abc"
        assert found.metrics == {"eval_loss": 1.5}


def test_the_error_says_where_an_adapter_is(tmp_path):
    place = adapter(tmp_path / "checkpoints" / "checkpoint-20")
    with pytest.raises(UsageError) as error:
        adapter_at(tmp_path, "outputs")
    assert "outputs holds no adapter" in error.value.message
    assert str(place) in error.value.hint


def test_no_adapter_at_all(tmp_path):
    with pytest.raises(UsageError) as error:
        adapter_at(tmp_path, "x")
    assert "OUTPUTS/adapter" in error.value.hint


def test_other_kinds_and_halves_of_adapters_are_refused(tmp_path):
    with pytest.raises(UsageError, match="type IA3"):
        adapter_at(adapter(tmp_path / "a", peft_type="IA3"), "a")
    half = adapter(tmp_path / "b")
    (half / "adapter_model.safetensors").unlink()
    with pytest.raises(UsageError, match="no adapter_model"):
        adapter_at(half, "b")
    (half / "adapter_config.json").write_text("{")
    (half / "adapter_model.bin").touch()
    with pytest.raises(UsageError, match="cannot be read"):
        adapter_at(half, "b")


def test_nothing_appears_when_writing_fails(tmp_path):
    target = tmp_path / "deep" / "model"

    def write():
        with place_whole(target) as place:
            (place / "config.json").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert not target.exists()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_with_other_things_keeps_them(tmp_path):
    (tmp_path / "logs").mkdir()
    with place_whole(tmp_path) as place:
        (place / "config.json").touch()
        (place / "cloudtune.json").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cloudtune.json", "config.json", "logs"]


@pytest.mark.parametrize("name", ["config.json", "cloudtune.json", "model-00001-of-00002.safetensors"])
def test_a_model_is_never_written_over(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match="holds a model already"), place_whole(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_travels_with_a_model(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "LICENSE", "weights.bin", "x.md"):
        (source / name).write_text(name)
    copy_companions(source, target, tokenizer_only=True)
    assert sorted(path.name for path in target.iterdir()) == ["chat_template.jinja", "tokenizer.json"]
    copy_companions(source, target)
    assert {"generation_config.json", "LICENSE"} <= {path.name for path in target.iterdir()}
    assert not (target / "weights.bin").exists()


def test_checksums_leave_hidden_files_out(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / ".b").write_text("b")
    (tmp_path / ".c").mkdir()
    (tmp_path / ".c" / "d").write_text("d")
    assert checksums(tmp_path) == {"a": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}


def test_the_card_names_base_run_and_losses():
    record = {
        "name": "mine",
        "base": "org/base",
        "mode": "accurate",
        "run": "abc12345",
        "metrics": {"eval_loss_before": 3.0, "eval_loss": 1.25},
        "versions": {"peft": "1"},
    }
    card = model_card(record)
    assert "base_model: org/base" in card
    assert "| evaluation loss | 3.0000 | 1.2500 |" in card
    assert "`abc12345`" in card
    local = model_card({**record, "base": "/a/b", "run": None, "metrics": {}})
    assert "base_model" not in local
    assert "evaluation loss" not in local
