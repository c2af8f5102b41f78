"""Merging again after an interruption, when what was merged has changed meanwhile."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.weights.consolidate import verb
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.merge.verb import merge
from tests.weights.plain import read_model, write_adapter, write_model


class Hub(MemoryFileSystem):
    """A store that says the id of a file's content, and no time, as the Hub does."""

    protocol = "blobs"
    store: dict[str, Any] = {}  # noqa: RUF012 - fsspec's own form
    pseudo_dirs = [""]  # noqa: RUF012

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().info(path, **options)
        found.pop("created", None)
        if found["type"] == "file":
            found["blob_id"] = hashlib.sha1(self.cat_file(path)).hexdigest()
        return found

    def find(self, path: str, **options: Any) -> Any:
        return {name: self.info(name) for name in super().find(path)}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("blobs://"))


@pytest.fixture
def hub():
    fsspec.register_implementation("blobs", Hub, clobber=True)
    yield Hub
    Hub.store.clear()


def interrupt(*_: object) -> str:
    raise ZeroDivisionError


def test_an_adapter_that_was_trained_again_is_not_mixed_with_what_was_done(tmp_path, hub, monkeypatch):
    base, adapter = write_model(tmp_path / "base", shards=2), write_adapter(tmp_path / "adapter")
    storage.upload(adapter, "blobs://me/adapter")
    with monkeypatch.context() as patch:
        patch.setattr("cloudtune.weights.target.models.card", interrupt)
        with pytest.raises(ZeroDivisionError):
            merge(str(base), ["blobs://me/adapter"], str(tmp_path / "out"))
    path = adapter / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(7).tobytes()
    path.write_bytes(data)
    storage.upload(adapter, "blobs://me/adapter")
    merge(str(base), ["blobs://me/adapter"], str(tmp_path / "out"))
    merge(str(base), [str(adapter)], str(tmp_path / "whole"))
    found, wanted = read_model(tmp_path / "out"), read_model(tmp_path / "whole")
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("changed", ["base/model-00002-of-00002.safetensors", "adapter/adapter_model.safetensors"])
def test_what_changes_while_it_is_read_makes_no_model(tmp_path, changed):
    base, adapter = write_model(tmp_path / "base", shards=2), write_adapter(tmp_path / "adapter")

    def train(*_: int) -> None:
        (adapter / "log.txt").write_text("a log does not matter")
        os.utime(tmp_path / changed, (10**9, 10**9))

    with pytest.raises(UsageError, match="have changed meanwhile"):
        merge(str(base), [str(adapter)], str(tmp_path / "out"), progress=train)
    assert not (tmp_path / "out").exists()
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_what_tells_files_apart_is_more_than_their_length(tmp_path, hub):
    for text in ("one", "two"):
        (tmp_path / "a.bin").write_text(text)
        storage.upload(tmp_path, f"blobs://me/{text}")
    shutil.rmtree(tmp_path)
    one, two = (folder_at(f"blobs://me/{text}") for text in ("one", "two"))
    assert one.state(["a.bin"]) != two.state(["a.bin"])
    assert verb._checkpoint_at("blobs://me/one")[1] != verb._checkpoint_at("blobs://me/two")[1]
