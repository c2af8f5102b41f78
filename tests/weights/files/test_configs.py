"""Settings that decide what is made of a model, of the type that they must have, whoever wrote them."""

from __future__ import annotations

import json

import pytest

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.verb import consolidate
from cloudtune.weights.files.configs import architecture_of, config_of, text_of
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.merge.verb import merge
from tests.weights.forging import Storage, tensor, torch_file
from tests.weights.plain import CONFIG, Q, write_adapter, write_model

WRONG = [
    {"tie_word_embeddings": "false"},
    {"tie_word_embeddings": 0},
    {"model_type": ["llama"]},
    {"text_config": "none"},
    {"text_config": {"tie_word_embeddings": "no"}},
    {"quantization_config": "awq"},
    {"quantization_config": {"quant_method": "awq"}},
]


@pytest.fixture
def checkpoint(tmp_path):
    """A state dict with one tensor."""
    (tmp_path / "checkpoint").mkdir()
    state = {f"{Q}.weight": tensor(Storage("BF16", bytes(288)), (12, 12))}
    (tmp_path / "checkpoint/model.pt").write_bytes(torch_file(state))
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("wrong", WRONG)
def test_a_config_of_other_types_is_refused(tmp_path, checkpoint, wrong):
    base = write_model(tmp_path / "base", {f"{Q}.weight": (12, 12)}, config=wrong)
    adapter = write_adapter(tmp_path / "adapter", {Q: (12, 12)})
    out = tmp_path / "out"
    for make in (
        lambda: merge(str(base), [str(adapter)], str(out)),
        lambda: consolidate(str(checkpoint), str(out), base=str(base)),
    ):
        with pytest.raises(UsageError, match=r"which is not|is quantized") as error:
            make()
        assert str(base) in str(error.value)
        assert error.value.hint
    assert not out.exists()


def test_what_says_nothing_is_fine(tmp_path):
    nothing = dict.fromkeys(("tie_word_embeddings", "text_config", "quantization_config"))
    write_model(tmp_path / "base", config=nothing)
    assert config_of(folder_at(str(tmp_path / "base"))) == {**CONFIG, **nothing}


@pytest.mark.parametrize("rank", ["16", 1.5, True, [3]])
def test_a_rank_that_is_no_number_is_refused(tmp_path, rank):
    adapter = write_adapter(tmp_path / "adapter", {Q: (12, 12)}, r=rank)
    with pytest.raises(UsageError, match="cannot be: r is"):
        merge(str(write_model(tmp_path / "base")), [str(adapter)], str(tmp_path / "out"))
    state = {f"base_model.model.{Q}.lora_A.default.weight": tensor(Storage("F32", b"four"), ())}
    (tmp_path / "sharded").mkdir()
    (tmp_path / "sharded/pytorch_model.bin").write_bytes(torch_file(state))
    for said, known in ((rank, "has r "), (16, r"has shape \[\], and")):
        (tmp_path / "sharded/adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": said}))
        with pytest.raises(UsageError, match=known):
            consolidate(str(tmp_path / "sharded"), str(tmp_path / "out"))


def test_texts_are_texts_or_nothing():
    assert text_of({"a": "b"}, "a") == "b"
    assert all(text_of({"a": value}, "a") is None for value in (None, "", 1, ["b"], {}))
    assert architecture_of({"architectures": ["A", "B"]}) == "A"
    assert all(architecture_of({"architectures": value}) is None for value in (None, "A", [], [1], {}))
