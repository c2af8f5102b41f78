"""What the recipe sft says of paths that lead nowhere, or to something else than a model."""

from __future__ import annotations

import pytest

from tests.recipes.modules import module

places = module("sft", "places")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def touched(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_folder_with_a_config_is_a_model_and_a_name_is_left_to_the_hub(tmp_path):
    touched(tmp_path / "model" / "config.json")
    for source in (str(tmp_path / "model"), "model", "gpt2", "Qwen/Qwen3-0.6B"):
        assert places.model_fault(source) is None


def test_the_folder_around_a_model_is_told_apart_from_it(tmp_path):
    touched(tmp_path / "outputs" / "model" / "config.json")
    touched(tmp_path / "outputs" / "checkpoints" / "checkpoint-4" / "config.json")
    said = places.model_fault(str(tmp_path / "outputs"))
    assert said == f"{tmp_path}/outputs: holds no model: no config.json; one is in {tmp_path}/outputs/model"


@pytest.mark.parametrize("inner", [".", "adapter"])
def test_an_adapter_is_no_model(inner, tmp_path):
    touched(tmp_path / "out" / inner / "adapter_config.json")
    said = places.model_fault(str(tmp_path / "out"))
    assert f"{tmp_path / 'out' / inner} holds an adapter" in said
    assert "cloudtune merge" in said


def test_an_empty_folder_and_a_file_are_no_models(tmp_path):
    (tmp_path / "empty").mkdir()
    assert places.model_fault("./empty") == "./empty: holds no model: no config.json"
    touched(tmp_path / "model.gguf")
    assert "give the folder" in places.model_fault("model.gguf")


def test_a_relative_path_is_told_where_it_was_looked_up(tmp_path, monkeypatch):
    monkeypatch.delenv("CLOUDTUNE_RUN_ID", raising=False)
    said = "./merged: no such file or folder\n  hint: paths are looked up {}"
    assert places.model_fault("./merged") == said.format(f"in {tmp_path}; write the full path")
    monkeypatch.setenv("CLOUDTUNE_RUN_ID", "abc12345")
    assert places.model_fault("./merged") == said.format(f"on the node, in {tmp_path}; write the full path")


def test_a_full_path_to_nothing_is_told():
    assert "/no/such: no such file or folder" in places.model_fault("/no/such")
    assert "inputs" in places.model_fault("/no/such")
