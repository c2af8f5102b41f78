"""Names of training become those of files."""

from __future__ import annotations

import pytest

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.branches import model_in
from cloudtune.weights.consolidate.names import adapter_names, check_fit, heads, is_adapted, is_flat, matched, unwrapped

Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    "wrapped",
    [
        "model.layers.0.norm.weight",
        "_orig_mod.model.layers.0.norm.weight",
        "module.model.layers.0.norm.weight",
        "module.module.model.layers.0.norm.weight",
        "_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.norm.weight",
        "_orig_mod.module.model.layers.0._checkpoint_wrapped_module.norm.weight",
    ],
)
def test_wrappers_are_taken_off(wrapped):
    assert unwrapped(wrapped) == "model.layers.0.norm.weight"


def test_modules_that_are_called_module_stay_inside():
    assert unwrapped("vision.module.weight") == "vision.module.weight"


@pytest.mark.parametrize("name", ["_flat_param", "layers.0._fsdp_wrapped_module._flat_param", "x.flat_param_0"])
def test_flat_parameters_are_told(name):
    with pytest.raises(ValueError, match="flat parameter"):
        unwrapped(name)


def test_matrices_of_one_dimension_are_flat():
    assert is_flat("model.embed_tokens.weight", (592,))
    assert is_flat(f"{Q}.lora_A.default.weight", (48,))
    assert not is_flat("model.norm.weight", (16,))
    assert not is_flat("model.layers.0.self_attn.q_proj.bias", (16,))
    assert not is_flat("lm_head.weight", (37, 16))


def test_adapters_get_the_names_of_peft():
    names, notes = adapter_names(
        [
            f"{Q}.lora_A.default.weight",
            f"{Q}.lora_B.default.weight",
            f"{Q}.lora_B.default.bias",
            f"{Q}.lora_magnitude_vector.default.weight",
            "base_model.model.model.embed_tokens.lora_embedding_A.default",
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta.default",
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_original.default",
            "base_model.model.score.modules_to_save.default.dense.weight",
            "base_model.model.score.original_module.dense.weight",
            f"{Q}.base_layer.weight",
            "base_model.model.model.norm.weight",
        ]
    )
    assert list(names.values()) == [
        f"{Q}.lora_A.weight",
        f"{Q}.lora_B.weight",
        f"{Q}.lora_B.bias",
        f"{Q}.lora_magnitude_vector",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
        "base_model.model.score.dense.weight",
    ]
    assert notes == ("4 tensors of the base beside the adapter were left out",)


def test_names_of_peft_stay():
    written = [f"{Q}.lora_A.weight", f"{Q}.lora_magnitude_vector", "base_model.model.lm_head.weight"]
    assert adapter_names(written) == ({name: name for name in written}, ())
    assert is_adapted(written)
    assert not is_adapted(["model.norm.weight", "lora_norm.weight"])


def test_names_without_the_wrapper_of_peft_get_it():
    assert list(adapter_names(["model.q_proj.lora_A.default.weight"])[0].values()) == [
        "base_model.model.model.q_proj.lora_A.weight"
    ]


def test_of_several_adapters_one_is_taken():
    names, notes = adapter_names([f"{Q}.lora_A.{name}.weight" for name in ("reference", "default", "other")])
    assert names == {f"{Q}.lora_A.default.weight": f"{Q}.lora_A.weight"}
    assert notes == ("the adapter default was taken, not the others: other, reference",)
    assert list(adapter_names([f"{Q}.lora_A.{name}.weight" for name in ("b", "a")])[0]) == [f"{Q}.lora_A.a.weight"]


def test_names_differ_from_files_by_their_beginning():
    llava = {"language_model.model.norm.weight", "language_model.lm_head.weight", "vision_tower.x", "other"}
    ours = ["model.language_model.norm.weight", "lm_head.weight", "model.vision_tower.x", "other", "unknown"]
    assert matched(ours, llava) == {
        "other": "other",
        "model.language_model.norm.weight": "language_model.model.norm.weight",
        "lm_head.weight": "language_model.lm_head.weight",
        "model.vision_tower.x": "vision_tower.x",
    }
    qwen = {"model.norm.weight", "visual.x", "lm_head.weight"}
    ours = ["model.language_model.norm.weight", "model.visual.x", "lm_head.weight"]
    assert list(matched(ours, qwen).values()) == ["lm_head.weight", "model.norm.weight", "visual.x"]
    assert matched(["norm.weight"], {"model.norm.weight"}) == {"norm.weight": "model.norm.weight"}


def test_no_two_names_stand_for_one():
    assert matched(["model.x", "model.model.x"], {"model.x"}) == {"model.x": "model.x"}


def test_heads_are_found():
    assert heads(["lm_head.weight", "model.embed_tokens.weight"]) == ("lm_head.weight", "model.embed_tokens.weight")
    assert heads(["lm_head.weight"]) is None
    assert heads(["a.embed_tokens.weight", "b.embed_tokens.weight", "lm_head.weight"]) is None


def test_what_does_not_fit_is_told():
    wanted = {"a": (2, 3), "b": (4,), "c": (1,)}
    check_fit({"a": (2, 3), "b": (4,)}, wanted, base="BASE", spare={"c"})
    check_fit({**wanted, "d": (1,)}, wanted, base="BASE", spare={"d"})
    with pytest.raises(
        UsageError, match=r"a has shape \[6\], and in BASE \[2, 3\] .*SHARDED_STATE_DICT|SHARDED"
    ) as told:
        check_fit({**wanted, "a": (6,)}, wanted, base="BASE", spare=())
    assert "SHARDED_STATE_DICT" in (told.value.hint or "")
    with pytest.raises(UsageError, match=r"BASE has b, and the checkpoint has not \(and 1 more\); .*has x, and BASE"):
        check_fit({"a": (2, 3), "x": (1,)}, wanted, base="BASE", spare=())


def test_the_branch_of_the_model_is_found():
    def chosen(*paths: tuple[str, ...]) -> list[str]:
        return sorted(model_in({path: path for path in paths}, dict.fromkeys(paths, (1,)), "HERE"))

    assert chosen(("model", "a"), ("model", "b")) == ["a", "b"]
    assert chosen(("a",), ("b",)) == ["a", "b"]
    assert chosen(("app", "model", "a"), ("app", "optim", "state", "a")) == ["a"]
    assert chosen(("model", "a"), ("ema", "a"), ("step",)) == ["a"]
    assert chosen(("policy", "module.a"), ("optimizer", "a")) == ["a"]
    assert chosen(("a",), ("extra", "b")) == ["a"]
    with pytest.raises(UsageError, match="holds no model"):
        chosen(("optimizer", "state", "a"))
    with pytest.raises(UsageError, match="several state dicts: actor, critic"):
        chosen(("actor", "a"), ("critic", "a"))
    with pytest.raises(UsageError, match="has a twice"):
        chosen(("model", "a"), ("model", "module.a"))
    with pytest.raises(UsageError, match="flat parameter") as told:
        chosen(("model", "_flat_param"))
    assert "SHARDED_STATE_DICT" in (told.value.hint or "")
