"""Adapters as such: whole, of one rank, and whose."""

import pytest

from cloudtune.weights.checks.examine import check
from tests.weights.checks.checkable import adapter_tensors, numbers, write_adapter

MODULE = "base_model.model.model.layers.0.mlp.up_proj"


def rules(folder):
    return [(one.rule, one.severity) for one in check(str(folder)).findings if one.rule != "adapter-alone"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"peft_type": "IA3"}, [("adapter-type", "warning")]),
        ({"r": 0}, [("adapter-rank", "error")] * 3),
        ({"r": "4"}, [("adapter-rank", "error")]),
        ({"r": 8}, [("adapter-rank", "error")] * 2),
        ({"base_model_name_or_path": None}, [("adapter-base", "warning")]),
        ({"rank_pattern": {"up_proj": 8}}, []),
    ],
)
def test_configs_of_adapters(tmp_path, keys, expected):
    assert rules(write_adapter(tmp_path / "a", **keys)) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({f"{MODULE}.lora_A.weight": None}, [("adapter-half", "error")]),
        ({f"{MODULE}.lora_A.weight": (5, 32)}, [("adapter-shape", "error")]),
        ({f"{MODULE}.lora_B.weight": (4,)}, [("adapter-shape", "error")]),
        (dict.fromkeys(adapter_tensors()), [("adapter-empty", "error")]),
        ({"base_model.model.lm_head.weight": (64, 32)}, []),
        (
            {
                "base_model.model.model.embed_tokens.lora_embedding_A": (4, 64),
                "base_model.model.model.embed_tokens.lora_embedding_B": (32, 4),
            },
            [],
        ),
    ],
)
def test_halves_of_adapters(tmp_path, changed, expected):
    tensors = adapter_tensors()
    for name, shape in changed.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = ("F32", shape, numbers("F32", shape))
    assert rules(write_adapter(tmp_path / "a", tensors)) == expected


def test_an_adapter_as_a_pickle_is_told(tmp_path):
    folder = write_adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert {"files-weights", "files-pickle"} == {rule for rule, _ in rules(folder)}


def test_a_number_that_is_none_is_found_in_an_adapter(tmp_path):
    name = f"{MODULE}.lora_B.weight"
    tensors = adapter_tensors()
    dtype, shape, data = tensors[name]
    tensors[name] = (dtype, shape, data[:40] + b"\x00\x00\xc0\x7f" + data[44:])
    found, _ = check(str(write_adapter(tmp_path / "a", tensors))).findings
    assert (found.rule, found.where) == ("values-not-finite", f"adapter_model.safetensors: {name}")
    assert "1 of 192 elements are NaN; the first that is not finite is at 10" in found.message
