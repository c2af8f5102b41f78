"""A base model is found in a folder, at a URI, or in the Hub's cache of this machine; nothing here reaches the Hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from cloudtune.errors import UsageError
from cloudtune.weights.files.base import base_at
from tests.weights.making import shard_bytes

WEIGHTS = shard_bytes({"a": ("F32", (1,), b"abcd")})
ASK = """
import sys
from cloudtune.errors import UsageError
from cloudtune.weights.files.base import base_at
from cloudtune.weights.files.model import open_weights
try:
    found = base_at(sys.argv[1], weights=len(sys.argv) > 2)
    print(sorted(found.files))
    if len(sys.argv) > 2:
        with open_weights(found) as weights:
            print({name: weights.read(name) for name in weights})
except UsageError as error:
    print(error)
"""


def cached(home: Path, name: str, files: dict[str, bytes]) -> Path:
    """Lay a model into a cache as huggingface_hub does: links from a snapshot to blobs."""
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / "0123abcd"
    for folder in (place / "refs", place / "blobs", snapshot):
        folder.mkdir(parents=True)
    (place / "refs" / "main").write_text("0123abcd")
    for number, (file, data) in enumerate(files.items()):
        (place / "blobs" / str(number)).write_bytes(data)
        (snapshot / file).symlink_to(f"../../blobs/{number}")
    return snapshot


def asked(home: Path, *words: str, **environment: str) -> str:
    """Return what a process says of a base; without more in its environment it has no network."""
    environ = {**os.environ, "HF_HOME": str(home), **(environment or {"HF_HUB_OFFLINE": "1"})}
    environ.pop("HF_HUB_CACHE", None)
    root = Path(__file__).parents[3]
    argv = [sys.executable, "-W", "ignore", "-c", ASK, *words]
    return subprocess.run(argv, check=True, cwd=root, env=environ, capture_output=True, text=True).stdout


def test_a_folder_or_a_uri_is_read(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    assert base_at(str(tmp_path / "model")).files == {"config.json": 2}
    store = fsspec.filesystem("memory")
    store.pipe_file("/base_at/config.json", b"{}")
    assert base_at("memory://base_at").files == {"config.json": 2}
    store.rm("/base_at", recursive=True)


def test_a_folder_goes_before_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner/model").mkdir(parents=True)
    Path("owner/model/config.json").write_text("{}")
    assert base_at("owner/model").uri == "owner/model"


@pytest.mark.parametrize("name", ["./x", "/x/y", "a/b/c", "~/x", "file:///x"])
def test_what_can_be_no_name_is_a_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"is no model: it has no config\.json"):
        base_at(name)


def test_the_cache_of_the_hub_is_read_without_the_hub(tmp_path, monkeypatch):
    snapshot = cached(tmp_path, "owner/model", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert base_at("owner/model").uri == str(snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", "/nowhere")
    assert base_at("owner/model").files == {"config.json": 2, "model.safetensors": len(WEIGHTS)}


def test_a_config_alone_is_enough_where_weights_are_not_needed(tmp_path):
    pytest.importorskip("huggingface_hub")
    cached(tmp_path, "owner/model", {"config.json": b"{}"})
    assert asked(tmp_path, "owner/model") == "['config.json']\n"
    said = asked(tmp_path, "owner/model", "weights")
    assert "owner/model is no folder here, and the Hub does not hand it out" in said
    assert "HF_TOKEN" in said


def test_a_name_that_is_nowhere_is_told(tmp_path):
    pytest.importorskip("huggingface_hub")
    assert "owner/other is no folder here" in asked(tmp_path, "owner/other")


def test_a_model_on_the_hub_is_read_where_it_is(tmp_path):
    pytest.importorskip("huggingface_hub")
    from tests.registries.hub import TOKEN, running

    with running() as hub:
        hub.repo("acme/model", files={"config.json": b"{}", "model.safetensors": WEIGHTS})
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        found = asked(tmp_path, "acme/model", "weights", **environment)
        assert found == "['.gitattributes', 'config.json', 'model.safetensors']\n{'a': b'abcd'}\n"
        assert "acme/nothing is no folder here, and the Hub does not" in asked(tmp_path, "acme/nothing", **environment)
