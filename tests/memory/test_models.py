"""Where configs come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudtune.errors import NotAllowed, UsageError
from cloudtune.memory.models import cache_folder, cached_config, known_config, known_names, local_config, nothing_known

CONFIG = {"model_type": "llama", "hidden_size": 64}


def test_well_known_models_come_along() -> None:
    config = known_config("Meta-Llama/llama-2-13b-HF")
    assert config is not None
    assert config["hidden_size"] == 5120
    assert known_config("nobody/nothing") is None
    assert len(known_names()) > 60


def test_a_folder_has_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for source in (str(tmp_path), f"file://{tmp_path}", str(tmp_path / "config.json")):
        assert local_config(source) == CONFIG
    assert local_config("config.json", folder=tmp_path) == CONFIG
    assert local_config("meta-llama/Llama-2-13b-hf", folder=tmp_path) is None


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no model: no config\.json"):
        local_config(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "nonsense", "[" * 100_000])
def test_a_config_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"no JSON|not a JSON object"):
        local_config(str(tmp_path))


def test_a_file_that_cannot_be_a_config_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="has 1099512 MB, and is no config of a model"):
        local_config(str(tmp_path / "model.safetensors"))


def test_a_config_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)  # the owner of a machine may read everything
    with pytest.raises(NotAllowed, match=r"json cannot be read: Permission denied"):
        local_config(str(tmp_path))


def test_a_name_that_no_path_can_have_is_nothing_here() -> None:
    assert local_config("a" * 5000) is cached_config("a" * 5000) is None
    assert local_config("a\0b") is None


def test_the_cache_of_the_hub_is_read_as_it_lies(tmp_path: Path) -> None:
    root = tmp_path / "models--some--model"
    snapshot = root / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123abc")
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    assert cached_config("some/model", environ=environ) is None
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    assert cached_config("some/model", environ=environ) == CONFIG
    assert cached_config("some/other", environ=environ) is None


def test_the_cache_is_where_huggingface_hub_looks() -> None:
    home = Path.home()
    assert cache_folder({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}) == Path("/a")
    assert cache_folder({"HF_HOME": "/b"}) == Path("/b/hub")
    assert cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert cache_folder({}) == home / ".cache" / "huggingface" / "hub"


def test_names_that_are_almost_right_are_answered() -> None:
    error = nothing_known("meta-llama/Llama2-13b-hf")
    assert "nearest: meta-llama/Llama-2-13b-hf" in str(error)
    assert "nearest" not in str(nothing_known("zzz"))
