"""What a model's parts are called where others read it: names, and nothing of this machine or its passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.origins import is_hub_name, origin, same_model, says_nothing


def at(uri: str) -> Folder:
    return Folder(uri=uri, files={})


@pytest.mark.parametrize(
    ("named", "title"),
    [
        ("/data/llama-3-8b", "llama-3-8b"),
        ("file:///data/llama-3-8b/", "llama-3-8b"),
        ("/home/ann/runs/20261121-train/outputs/adapter", "20261121-train/outputs/adapter"),
        ("/srv/job/checkpoint-500/pytorch_model_fsdp_0", "job/checkpoint-500/pytorch_model_fsdp_0"),
        ("/out/model/base/final/merged", "model/base/final/merged"),
        ("/", "model"),
        ("s3://bucket/models/llama/", "s3://bucket/models/llama"),
        ("s3://ann:pa55word@host/llama", "s3://***@host/llama"),
        ("https://host/llama?X-Amz-Signature=0123456789abcdef", "https://host/llama?***"),
    ],
)
def test_a_folder_goes_by_the_end_of_its_path_and_a_uri_shows_no_secret(named, title):
    found = origin(named, at(named))
    assert (found.title, found.hub) == (title, None)
    assert "pa55word" not in repr(found)
    assert origin(named) == found


def test_a_registered_model_goes_by_its_name_and_version(tmp_path):
    filed = tmp_path / "models" / "clerk" / "2"
    filed.mkdir(parents=True)
    assert origin(str(filed)).title == "2"
    (filed / "model.json").touch()
    assert origin(str(filed)).title == "clerk:2"


def test_the_name_of_a_home_is_nobodys_business(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    assert origin("/home/ann/outputs").title == "outputs"


@pytest.mark.parametrize(
    ("uri", "hub"),
    [
        ("hf://org/llama", "org/llama"),
        ("hf://org/llama@main/sub", "org/llama"),
        ("/x/hub/models--org--llama/snapshots/0123abcd", "org/llama"),
        ("/x/hub/models--gpt2/snapshots/0123abcd/", "gpt2"),
        ("/x/org/llama", None),
        ("s3://org/llama", None),
    ],
)
def test_a_model_of_the_hub_goes_by_its_name_there(uri, hub):
    found = origin("whatever", at(uri))
    assert found.hub == hub
    assert found.title == (hub or "whatever")


def test_a_name_that_was_only_read_may_be_the_hubs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert origin("org/llama").hub == "org/llama"
    for other in ("llama", "outputs/llama", "./org/llama", "/org/llama", "a/b/c", "org/lla--ma", "-org/x", "org/x.git"):
        assert origin(other).hub is None
    (tmp_path / "org/llama").mkdir(parents=True)
    assert origin("org/llama").hub is None


def test_names_of_the_hub():
    assert all(map(is_hub_name, ("gpt2", "org/Llama-3.1-8B_x", "a/b")))
    assert not any(map(is_hub_name, ("", "a/b/c", "a b", "a/-b", "a.", "é/x", "x" * 97, "a//b", "../x")))


def test_two_names_of_one_model():
    assert same_model("meta-llama/Llama-3", "/models/llama-3/")
    assert same_model("hf://org/llama@main", "other/LLAMA")
    assert same_model("llama:2", "org/llama")
    assert not same_model("org/llama", "org/llama-2")
    assert says_nothing("/opt/ml/model")
    assert not says_nothing("org/llama")
