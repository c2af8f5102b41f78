"""Merges that are possible and make no sense: told in a note, or refused where nothing could come of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cloudtune.errors import UsageError
from cloudtune.weights.merge.verb import merge
from tests.weights.checks import checkable
from tests.weights.plain import HEAD, Q, numbers, write_adapter, write_file, write_model

A, B = (f"base_model.model.{Q}.lora_{kind}.weight" for kind in "AB")


@pytest.fixture
def base(tmp_path):
    return write_model(tmp_path / "llama")


def notes(base, adapter, out):
    result = merge(str(base), [str(adapter)], str(out))
    record = json.loads((out / "cloudtune.json").read_text())
    assert record["notes"] == list(result.notes)
    assert all(f"{note[0].upper()}{note[1:]}." in (out / "README.md").read_text() for note in result.notes)
    return result.notes


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_a_training_that_has_diverged_is_not_merged(tmp_path, base, dtype, value, said):
    wrong = numbers((12, 4), 3)
    wrong[5, 1] = value
    tensors = {A: (dtype, numbers((4, 12), 2)), B: (dtype, wrong)}
    adapter = write_adapter(tmp_path / "adapter", {Q: (12, 12)})
    write_file(adapter / "adapter_model.safetensors", tensors)
    with pytest.raises(UsageError, match=rf"holds {said}: {B}, first at element 21\n") as error:
        merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert "diverged" in error.value.hint
    assert not (tmp_path / "out").exists()


def test_what_replaces_a_tensor_is_looked_at_too(tmp_path, base):
    head = numbers((20, 12), 9)
    head[19, 11] = np.nan
    adapter = write_adapter(tmp_path / "adapter", more={f"base_model.model.{HEAD}": head}, modules_to_save=["lm_head"])
    with pytest.raises(UsageError, match="first at element 239"):
        merge(str(base), [str(adapter)], str(tmp_path / "out"))


def test_an_adapter_that_was_not_trained_is_told(tmp_path, base):
    zero = np.zeros((12, 4), np.float32)
    adapter = write_adapter(tmp_path / "first", {Q: (12, 12)}, more={B: zero})
    assert notes(base, adapter, tmp_path / "out") == (
        "all B matrices of first are zero, as they are before training: it changes nothing",
    )
    adapter = write_adapter(tmp_path / "second", more={B: zero})
    assert notes(base, adapter, tmp_path / "half") == ()


@pytest.mark.parametrize(
    ("trained_on", "told"),
    [
        ("org/llama", False),
        ("/opt/ml/input/LLAMA/", False),
        ("org/llama@main", False),
        ("/opt/ml/model", False),
        (None, False),
        ("", False),
        ("org/llama-chat", True),
        ("./other", True),
    ],
)
def test_a_base_by_another_name_is_told(tmp_path, base, trained_on, told):
    adapter = write_adapter(tmp_path / "clerk", base_model_name_or_path=trained_on)
    found = notes(base, adapter, tmp_path / "out")
    assert len(found) == told
    assert all("clerk was trained on" in note and "nothing of llama says" in note for note in found)


@pytest.mark.parametrize("file", ["config.json", "cloudtune.json"])
def test_a_base_may_say_itself_what_it_is(tmp_path, base, file):
    key = {"config.json": "_name_or_path", "cloudtune.json": "name"}[file]
    known = json.loads((base / file).read_text()) if (base / file).exists() else {}
    (base / file).write_text(json.dumps({**known, key: "org/other"}))
    adapter = write_adapter(tmp_path / "clerk", base_model_name_or_path="org/other")
    assert notes(base, adapter, tmp_path / "out") == ()
    (base / "cloudtune.json").write_text("[broken")  # good to know, and not needed
    notes(base, adapter, tmp_path / "again")


def test_tensors_that_the_base_lacks_are_told_before_anything_is_written(tmp_path):
    tensors = checkable.llama_tensors()
    lost = [name for name in tensors if ".1.mlp." in name]
    whole = checkable.write_model(tmp_path / "whole", tensors)
    short = checkable.write_model(tmp_path / "short", {name: one for name, one in tensors.items() if name not in lost})
    adapter = checkable.write_adapter(tmp_path / "adapter")
    with pytest.raises(UsageError, match=rf"short lacks {lost[0]} and 2 more, which its config\.json says"):
        merge(str(short), [str(adapter)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    merge(str(whole), [str(adapter)], str(tmp_path / "out"))
    # embeddings that may be tied, and a config that describes no model, are no reason
    tied = {name: one for name, one in tensors.items() if name != HEAD}
    merge(str(checkable.write_model(tmp_path / "tied", tied)), [str(adapter)], str(tmp_path / "out-tied"))
    checkable.change(short / "config.json", hidden_size="many")
    merge(str(short), [str(adapter)], str(tmp_path / "out-short"))
