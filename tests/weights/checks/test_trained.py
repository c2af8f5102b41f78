"""Models as transformers writes them: checked, built without memory, and asked for a few words."""

import shutil

import pytest

from cloudtune import storage
from cloudtune.weights.checks.examine import check
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from tests.tiny import random_model
from tests.weights.checks.checkable import change, write_adapter, write_tensors

pytestmark = pytest.mark.heavy


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(random_model(), tmp_path / "m")


def rewrite(folder, edit):
    """Write the weights of a model anew, changed by ``edit``, which gets name, shape and bytes."""
    with open_weights(folder_at(str(folder))) as weights:
        tensors = {
            name: (weights.tensor(name).dtype, *edit(name, weights.tensor(name).shape, weights.read(name)))
            for name in weights
        }
    write_tensors(
        folder / "model.safetensors", {name: value for name, value in tensors.items() if value[1] is not None}
    )


def test_the_quickstarts_model_can_be_served_where_transformers_5_is(model):
    assert [one.rule for one in check(str(model), target="vllm").findings] == ["vllm-tokenizer-class"]
    told = [one.rule for one in check(str(model), target="bedrock").findings]
    assert told == [
        "bedrock-tokenizer-class",
        "bedrock-chat-template",
        "bedrock-dtype-key",
        "bedrock-transformers-version",
        "bedrock-remark",
    ]


def test_a_model_loads_and_speaks(model):
    (said,) = check(str(model), fast=True, load=True, generate=True).findings
    assert (said.rule, said.severity) == ("generated", "note")
    assert "it goes on '" in said.message


def test_what_transformers_misses_is_told_of_a_model_in_a_bucket(model, tmp_path):
    def edit(name, shape, data):
        if name == "model.norm.weight":
            return None, None
        if name == "model.layers.3.mlp.up_proj.weight":
            return tuple(reversed(shape)), data
        return shape, data

    rewrite(model, edit)
    storage.upload(model, f"memory://{tmp_path}/m")
    found = check(f"memory://{tmp_path}/m", fast=True, load=True).findings
    there = {(one.rule, one.where) for one in found if one.rule.startswith("load-")}
    assert there == {
        ("load-missing", "model.norm.weight"),
        ("load-mismatched", "model.safetensors: model.layers.3.mlp.up_proj.weight"),
    }
    storage.remove(f"memory://{tmp_path}/m")


def test_a_tensor_that_transformers_does_not_know_is_told(model):
    change(model / "config.json", num_hidden_layers=3)
    found = check(str(model), fast=True, load=True).findings
    assert {one.rule for one in found} == {"tensor-unknown", "load-unexpected"}
    assert len([one for one in found if one.rule == "load-unexpected"]) == 9


def test_a_model_that_cannot_be_built_or_speak_is_told(model):
    rewrite(model, lambda name, shape, data: (shape, b"\xc0\x7f" * (len(data) // 2) if "norm" in name else data))
    found = check(str(model), fast=True, generate=True).findings
    assert [one.rule for one in found] == ["generate-failed"]
    change(model / "config.json", num_key_value_heads="two")
    assert "load-failed" in {one.rule for one in check(str(model), fast=True, load=True).findings}


def test_adapters_are_not_tried(tmp_path):
    found = check(str(write_adapter(tmp_path / "a")), load=True, generate=True).findings
    assert [one.rule for one in found] == ["adapter-alone"]
