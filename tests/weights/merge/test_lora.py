"""What an adapter's config says about merging."""

from __future__ import annotations

import math

import pytest

from cloudtune.errors import UsageError
from cloudtune.weights.merge.lora import read_lora

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


def lora(**settings):
    return read_lora({**CONFIG, **settings}, "here")


def test_ranks_and_scales_by_patterns():
    found = lora(rank_pattern={"q_proj": 2, r"^model\.layers\.1.*v_proj": 16}, alpha_pattern={"layers.0.q_proj": 3})
    assert found.rank_of("model.layers.0.q_proj") == 2
    assert found.scale_of("model.layers.0.q_proj") == 3 / 2
    assert found.scale_of("model.layers.1.q_proj") == 8 / 2
    assert found.rank_of("model.layers.1.self_attn.v_proj") == 16
    assert found.rank_of("model.layers.11.my_q_proj") == 4  # an end, but not after a dot
    assert lora(use_rslora=True).scale_of("x", weight=0.5) == 0.5 * 8 / math.sqrt(4)


def test_targets_by_name_and_by_expression():
    assert lora(target_modules=["q_proj"]).targets("model.layers.0.q_proj")
    assert not lora(target_modules=["q_proj"]).targets("model.layers.0.xq_proj")
    assert lora(target_modules="all-linear").targets("anything")
    assert lora(target_modules=r".*\.(q|v)_proj").targets("a.v_proj")
    assert not lora(target_modules=r"(q|v)_proj").targets("a.v_proj")
    assert lora(target_parameters=["experts.down_proj"]).targets_parameter("mlp.experts.down_proj")
    assert lora(trainable_token_indices={"embed_tokens": [3, 1]}).tokens_of("model.embed_tokens") == (3, 1)
    assert lora(trainable_token_indices=[3, 1]).tokens_of("anything") == (3, 1)
    assert lora().tokens_of("anything") == ()


@pytest.mark.parametrize("key", ["lora_dropout", "eva_config", "inference_mode", "auto_mapping", "velora_config"])
def test_what_training_alone_needs_is_taken(key):
    assert lora(**{key: {"some": 1}}).rank == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, "of type IA3"),
        ({"peft_type": None}, "of type None"),
        ({"use_qalora": True}, "it has use_qalora"),
        ({"kasa_config": {"beta": 1}}, "it has kasa_config"),
        ({"arrow_config": {"top_k": 2}}, "it has arrow_config"),
        ({"use_bdlora": {"nblocks": 2}}, "it has use_bdlora"),
        ({"megatron_config": {"a": 1}}, "it has megatron_config"),
        ({"init_lora_weights": "pissa_niter_4"}, "began as pissa_niter_4"),
        ({"init_lora_weights": "loftq"}, "began as loftq"),
        ({"init_lora_weights": "corda"}, "began as corda"),
        ({"init_lora_weights": "lora_ga"}, "began as lora_ga"),
        ({"some_new_way": True}, "the setting some_new_way, which is not known"),
        ({"r": 0}, "cannot be: a rank is less than 1"),
        ({"r": "4"}, "cannot be: r is '4'"),
        ({"r": True}, "cannot be: r is True"),
        ({"lora_alpha": float("nan")}, "cannot be: lora_alpha is nan"),
        ({"rank_pattern": {"q": -1}}, "cannot be: a rank is less than 1"),
        ({"rank_pattern": [1]}, "cannot be: rank_pattern"),
        ({"alpha_pattern": {"(": 1}}, "cannot be: "),
        ({"target_modules": "("}, "cannot be: "),
        ({"target_modules": [1]}, "cannot be: target_modules"),
        ({"target_parameters": "x"}, "cannot be: target_parameters"),
        ({"use_dora": "yes"}, "cannot be: use_dora is 'yes'"),
        ({"trainable_token_indices": [-1]}, "cannot be: trainable_token_indices"),
    ],
)
def test_what_cannot_be_merged_is_refused(settings, said):
    with pytest.raises(UsageError, match=said) as error:
        lora(**settings)
    assert error.value.hint


def test_a_new_setting_that_is_off_is_taken():
    assert lora(some_new_way=False, other_new_way=None, third={}).alpha == 8
