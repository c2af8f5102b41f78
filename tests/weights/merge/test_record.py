"""What is kept with a merged model and shown of it: names for others, and never a password."""

from __future__ import annotations

import json
import os

import fsspec
import pytest
import yaml

from cloudtune import storage
from cloudtune.checksums import checksums
from cloudtune.errors import UsageError
from cloudtune.registries import source
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.merge.verb import merge
from tests.weights.plain import write_adapter, write_model

PLACE = "memory://ann:pa55word@host"


@pytest.fixture
def store():
    """A store whose URIs hold a password."""
    files = fsspec.filesystem("memory")
    yield files
    for name in files.ls("/", detail=False):
        if "host" in name:
            files.rm(name, recursive=True)


def kept(uri: str) -> str:
    """Return all that is kept with a model but its tensors."""
    folder = folder_at(uri)
    return "".join(folder.text(name) for name in folder.files if not name.endswith(".safetensors"))


def test_no_password_is_shown_or_kept(tmp_path, store):
    base = write_model(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base_model_name_or_path=f"{PLACE}/other")
    storage.upload(base, f"{PLACE}/llama")
    storage.upload(adapter, f"{PLACE}/run/adapter")
    result = merge(f"{PLACE}/llama", [f"{PLACE}/run/adapter"], f"{PLACE}/out")
    assert result.base == "memory://***@host/llama"
    assert "memory://***@host/other" in result.notes[0]
    for text in (repr(result), kept(f"{PLACE}/out")):
        assert "memory://***@host/run/adapter" in text
        assert "pa55word" not in text


@pytest.mark.parametrize(
    "broken", ["llama/config.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
)
def test_no_password_is_in_a_message(tmp_path, store, broken):
    write_model(tmp_path / "llama")
    write_adapter(tmp_path / "adapter", r=3)
    for name in ("llama", "adapter"):
        storage.upload(tmp_path / name, f"{PLACE}/{name}")
    messages = []
    for data in (None, b"{", b'{"r": "many", "peft_type": "LORA"}'):  # at first the rank is wrong
        if data is not None:
            with fsspec.open(f"{PLACE}/{broken}", "wb") as file:
                file.write(data)
        with pytest.raises(UsageError) as error:
            merge(f"{PLACE}/llama", [f"{PLACE}/adapter"], str(tmp_path / "out"))
        messages.append(str(error.value))
    assert not [text for text in messages if "pa55word" in text]
    assert all("***@host" in text for text in messages)


def test_a_record_names_no_folder_of_this_machine(tmp_path):
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "run-1" / "outputs" / "adapter")
    result = merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert (result.base, result.adapters) == (str(base), (str(adapter),))
    record = json.loads((tmp_path / "out" / "cloudtune.json").read_text())
    assert (record["base"], record["base_on_hub"]) == (f"{tmp_path.name}/base", None)
    assert record["adapters"] == ["run-1/outputs/adapter"]
    assert str(tmp_path) not in kept(str(tmp_path / "out"))


def test_a_base_of_the_hub_is_named_in_the_head_of_the_card(tmp_path, monkeypatch):
    cache = tmp_path / "hub/models--org--llama"
    write_model(cache / "snapshots/0123abcd")
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("0123abcd")
    adapter = write_adapter(tmp_path / "clerk", base_model_name_or_path="org/llama")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    for base, name in (("org/llama", "out"), (str(cache / "snapshots/0123abcd"), "again")):
        result = merge(base, [str(adapter)], str(tmp_path / name))
        head = yaml.safe_load((tmp_path / name / "README.md").read_text().split("---\n")[1])
        assert head["base_model"] == "org/llama"
        assert result.notes == ()
    write_model(tmp_path / "org/llama")  # a folder of that name goes before the Hub
    merge("org/llama", [str(adapter)], str(tmp_path / "local"))
    assert "base_model" not in (tmp_path / "local" / "README.md").read_text()


def test_a_card_may_be_written_on_and_the_model_is_the_same(tmp_path):
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    result = merge(str(base), [str(adapter)], str(tmp_path / "out"))
    with (tmp_path / "out" / "README.md").open("a") as file:
        file.write("\nIt answers customers.\n")
    found = source.find(tmp_path / "out")
    assert {name: found.verified()[name] for name in result.checksums} == result.checksums
    assert checksums(tmp_path / "out").keys() - result.checksums.keys() == {"README.md", "cloudtune.json"}


def test_a_record_is_json_for_every_program(tmp_path):
    base = write_model(tmp_path / os.fsdecode(b"base\xff"))
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "metrics.json").write_text('{"eval_loss": NaN, "best": [Infinity], "of": "\\ud800"}')
    result = merge(str(base), [str(adapter)], str(tmp_path / "out"))
    text = (tmp_path / "out" / "cloudtune.json").read_bytes().decode()
    record = json.loads(text, parse_constant=pytest.fail)
    assert record["metrics"] == result.metrics == {"eval_loss": None, "best": [None], "of": "?"}
    assert record["base"].endswith("base?")
    assert source.find(tmp_path / "out").facts == {"base": record["base"], "run": None, "metrics": record["metrics"]}
