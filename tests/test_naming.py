"""Which model a word means."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import cloudtune
from cloudtune.naming import place_of
from cloudtune.store import Model, Store
from tests.cli.calling import call
from tests.weights.plain import write_adapter, write_model


@pytest.fixture
def filed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is filed as clerk:2, the newest of two; the user stands beside it."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for version in ("1", "2"):
        Store().add_model(Model(name="clerk", version=version, uri=f"file://{folder}/{version}", created=int(version)))
        (folder / version).mkdir()
    monkeypatch.chdir(tmp_path)
    return folder / "2"


def test_a_name_means_the_newest_version_or_the_one_that_is_named(filed: Path) -> None:
    assert place_of("clerk") == place_of("clerk:2") == str(filed)
    assert place_of("clerk:1") == str(filed.with_name("1"))
    Store().add_model(Model(name="you/clerk", version="1", uri="hf://you/clerk@abc"))
    assert place_of("you/clerk:1") == place_of("you/clerk") == "hf://you/clerk@abc"


@pytest.mark.parametrize(
    "text", ["./clerk", "shelf/2", "s3://bucket/clerk", "Qwen/Qwen3-0.6B", "/clerk", "~/clerk", "a" * 5000 + "/", ""]
)
def test_what_is_no_name_is_left_alone(text: str, filed: Path) -> None:
    assert place_of(text) == text


def test_a_folder_with_the_name_of_a_model_is_asked_about(filed: Path, tmp_path: Path) -> None:
    (tmp_path / "clerk").mkdir()
    with pytest.raises(cloudtune.UsageError, match="clerk is a folder here, and a registered model, too") as caught:
        place_of("clerk")
    assert caught.value.hint == "write ./clerk for the folder, or clerk:2 for the model"
    assert (place_of("./clerk"), place_of("clerk:2")) == ("./clerk", str(filed))
    (tmp_path / "clerk:1").mkdir()
    with pytest.raises(cloudtune.UsageError) as caught:
        place_of("clerk:1")
    assert caught.value.hint == f"write ./clerk:1 for the folder, or {filed.with_name('1')} for the model"
    (tmp_path / "clerk:9").mkdir()
    assert place_of("clerk:9") == "clerk:9"


def test_the_filed_folder_itself_is_no_second_meaning(filed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (filed.parent / "clerk").symlink_to(filed)
    monkeypatch.chdir(filed.parent)
    assert place_of("clerk") == "clerk"


def test_what_cannot_be_meant_is_said(filed: Path) -> None:
    for text, message, hint in (
        ("clerk:3", "model clerk has no version 3", "its versions: clerk:2, clerk:1"),
        ("clark", "clark is neither a folder here nor a registered model", "nearest: clerk"),
        ("xyz", "xyz is neither", "cloudtune list --models"),
    ):
        with pytest.raises(cloudtune.UsageError) as caught:
            place_of(text)
        assert caught.value.message.startswith(message)
        assert hint in str(caught.value.hint)
    assert place_of("gpt2", hub=True) == "gpt2"
    filed.rmdir()
    with pytest.raises(cloudtune.UsageError, match="the files of clerk:2 are gone"):
        place_of("clerk")
    Store().add_model(Model(name="cloud", version="1", uri="oci-model://ocid1.datasciencemodel.oc1..x"))
    with pytest.raises(cloudtune.UsageError, match=r"cloud:1 lies in the model catalog of OCI") as caught:
        place_of("cloud")
    assert "that it was registered from" in str(caught.value)
    Store().add_model(Model(name="cloud", version="0", uri=f"file://{filed}", created=1.0))
    with pytest.raises(cloudtune.UsageError, match="\n  hint: elsewhere lies cloud:0"):
        place_of("cloud")


def test_a_near_name_is_told_where_a_model_is_deployed(filed: Path) -> None:
    with pytest.raises(cloudtune.UsageError, match="\n  hint: nearest: clerk"):
        cloudtune.deploy("clark")


def test_looking_leaves_no_home_and_a_broken_record_hides_no_folder(home: Path, tmp_path: Path) -> None:
    assert place_of("gpt2", hub=True) == "gpt2"
    with pytest.raises(cloudtune.UsageError, match="neither a folder here nor"):
        place_of("clerk")
    assert not home.exists()
    home.mkdir()
    (home / "store.db").write_text("x" * 4096)
    os.chdir(tmp_path)
    (tmp_path / "clerk").mkdir()
    assert place_of("clerk") == "clerk"


def test_verbs_and_steps_of_pipelines_take_registered_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, adapter = write_model(tmp_path / "b"), write_adapter(tmp_path / "a")
    cloudtune.register(str(base), name="origin")
    cloudtune.register(str(adapter), name="draft")
    assert cloudtune.register("draft:1", name="style").checksums == cloudtune.models("draft")[0].checksums
    merged = call("merge", "origin:1", "style", "-o", "merged", "-o", "json")
    assert merged.code == 0, merged.err
    record = json.loads(Path("merged/cloudtune.json").read_text())
    assert (record["name"], record["base"], record["adapters"]) == ("origin-merged", "origin:1", ["style:1"])
    assert call("check", "style", "--fast").code == 0
    assert call("consolidate", "origin", "-o", "whole").err.startswith("error: ")
    steps = [
        {"name": "merge", "merge": {"base": "origin", "adapter": "style:1", "output": str(tmp_path / "piped")}},
        {"name": "check", "needs": ["merge"], "check": {"model": "style", "fast": True}},
    ]
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps({"kind": "pipeline", "spec": {"name": "p", "steps": steps}}))
    run = cloudtune.run(file)
    assert run.wait(120).state == "succeeded", [line.text for line in run.logs()]
    one, two = (tmp_path / name / "model.safetensors" for name in ("merged", "piped"))
    assert one.read_bytes() == two.read_bytes()
