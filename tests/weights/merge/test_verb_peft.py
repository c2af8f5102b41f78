"""Merged models against PEFT's, bit for bit in both modes: each kind of adapter, and random ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune.errors import UsageError
from cloudtune.weights.merge.verb import MODES, merge
from tests.weights.merge.merging import by_peft, differing, loaded, make_adapter, make_base, quiet, tools

pytestmark = pytest.mark.heavy

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
#: Architecture, and what its adapter has.
CASES = {
    "plain": ("llama", {"r": 8, "lora_alpha": 16}),
    "rank of one": ("llama", {"r": 1}),
    "rank over one run": ("llama", {"r": 200, "lora_alpha": 77}),
    "rslora and patterns": (
        "llama",
        {
            "r": 3,
            "lora_alpha": 5,
            "use_rslora": True,
            "rank_pattern": {"q_proj": 5, "layers.1.mlp.up_proj": 7, "^model.layers.0.self_attn.v_proj": 2},
            "alpha_pattern": {"^model.layers.0.*down_proj": 9, "v_proj": 2},
        },
    ),
    "one layer by a regular expression": ("llama", {"r": 4, "target_modules": r".*\.1\..*(q|v)_proj"}),
    "conv1d": ("gpt2", {"r": 4, "lora_alpha": 8, "fan_in_fan_out": True}),
    "conv1d not said to be so": ("gpt2", {"r": 4, "fan_in_fan_out": False}),
    "conv1d with biases": ("gpt2", {"r": 4, "lora_bias": True, "fan_in_fan_out": True}),
    "lora_bias": ("qwen2", {"r": 4, "lora_bias": True, "target_modules": ["q_proj", "k_proj", "v_proj"]}),
    "bias all": ("qwen2", {"r": 4, "bias": "all"}),
    "bias lora_only": ("qwen2", {"r": 4, "bias": "lora_only"}),
    "dora": ("llama", {"r": 4, "use_dora": True}),
    "dora of conv1d": ("gpt2", {"r": 4, "use_dora": True, "fan_in_fan_out": True}),
    "dora of embeddings": ("llama", {"r": 4, "use_dora": True, "target_modules": ["embed_tokens", "v_proj"]}),
    "embeddings and head": ("llama", {"r": 4, "target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "modules_to_save": ("llama", {"r": 4, "modules_to_save": ["lm_head", "embed_tokens"]}),
    "norms saved": ("llama", {"r": 4, "modules_to_save": ["input_layernorm"]}),
    "trained tokens": ("llama", {"r": 4, "trainable_token_indices": [3, 98, 50, 0]}),
    "trained tokens by name": ("llama", {"r": 4, "trainable_token_indices": {"embed_tokens": [7], "lm_head": [9, 8]}}),
    "trained tokens, tied": ("tied", {"r": 4, "trainable_token_indices": [3, 7, 50]}),
    "experts": ("qwen3_moe", {"r": 4, "target_modules": ["q_proj"], "target_parameters": EXPERTS}),
    "experts of other names": ("mixtral", {"r": 4, "target_modules": ["q_proj"], "target_parameters": EXPERTS}),
    "one parameter of experts": ("qwen3_moe", {"r": 4, "target_modules": [], "target_parameters": EXPERTS[1:]}),
    "experts and router": (
        "qwen3_moe",
        {"r": 4, "target_modules": [], "target_parameters": [*EXPERTS, "mlp.gate.weight"], "use_rslora": True},
    ),
    "mica": ("llama", {"r": 8, "init_lora_weights": "mica"}),
    "orthogonal": ("llama", {"r": 4, "init_lora_weights": "orthogonal"}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Return a function that gives the base of an architecture and a type, made once."""
    made = {}

    def base(architecture, dtype):
        if (architecture, dtype) not in made:
            folder = tmp_path_factory.mktemp("base")
            made[architecture, dtype] = make_base(folder, architecture, dtype)
        return made[architecture, dtype]

    return base


def check(base, adapter, folder, modes=MODES):
    for mode in modes:
        merge(str(base), [str(adapter)], str(folder / mode), mode=mode)
        assert differing(loaded(folder / mode), by_peft(base, adapter, mode)) == {}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_adapter_merges_as_in_peft(case, bases, tmp_path):
    architecture, config = CASES[case]
    base = bases(architecture, "bfloat16")
    check(base, make_adapter(tmp_path / "adapter", base, **config), tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("case", ["plain", "conv1d", "dora", "embeddings and head", "experts", "rank over one run"])
def test_other_precisions_merge_as_in_peft(case, dtype, bases, tmp_path):
    architecture, config = CASES[case]
    base = bases(architecture, dtype)
    check(base, make_adapter(tmp_path / "adapter", base, **config), tmp_path)


@st.composite
def adapters(draw):
    architecture = draw(st.sampled_from(["llama", "gpt2", "qwen2"]))
    ends = {"gpt2": ["c_attn", "attn.c_proj", "c_fc"]}.get(
        architecture, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "lm_head"]
    )
    targets = draw(st.lists(st.sampled_from(ends), min_size=1, unique=True))
    config = {
        "r": draw(st.integers(1, 40)),
        "lora_alpha": draw(st.integers(1, 64)),
        "target_modules": targets,
        "use_rslora": draw(st.booleans()),
        "use_dora": draw(st.booleans()),
        "fan_in_fan_out": architecture == "gpt2",
        "rank_pattern": draw(st.dictionaries(st.sampled_from(targets), st.integers(1, 12), max_size=2)),
        "alpha_pattern": draw(st.dictionaries(st.sampled_from(targets), st.integers(1, 12), max_size=2)),
    }
    dtype = draw(st.sampled_from(["bfloat16", "bfloat16", "float16", "float32"]))
    return architecture, dtype, config, draw(st.integers(0, 99)), draw(st.sampled_from([0.002, 0.05, 1.0]))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(adapters(), st.sampled_from(MODES))
def test_random_adapters_merge_as_in_peft(bases, tmp_path_factory, some, mode):
    architecture, dtype, config, seed, std = some
    base, folder = bases(architecture, dtype), tmp_path_factory.mktemp("random")
    check(base, make_adapter(folder / "adapter", base, seed=seed, std=std, **config), folder, (mode,))


@pytest.mark.parametrize("config", [{"num_key_value_heads": 1}, {"num_key_value_heads": 4, "head_dim": 20}])
def test_other_shapes_of_attention_merge_as_in_peft(config, tmp_path):
    base = make_base(tmp_path / "base", "llama", "bfloat16", **config)
    check(base, make_adapter(tmp_path / "adapter", base, r=6), tmp_path)


def test_an_adapter_kept_in_16_bits_and_in_a_pickle_is_the_same(bases, tmp_path):
    torch, peft, transformers = tools()
    base = bases("llama", "bfloat16")
    make_adapter(tmp_path / "adapter", base, r=4)
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
        short = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").to(torch.bfloat16)
        short.save_pretrained(tmp_path / "short")
        state = peft.get_peft_model_state_dict(short)
    check(base, tmp_path / "short", tmp_path)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_bytes((tmp_path / "short" / "adapter_config.json").read_bytes())
    torch.save(state, pickled / "adapter_model.bin")
    merge(str(base), [str(pickled)], str(tmp_path / "from_pickle"))
    assert differing(loaded(tmp_path / "from_pickle"), loaded(tmp_path / "accurate")) == {}


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ],
)
def test_tied_embeddings_are_parted_where_an_adapter_changes_one_of_them(config, bases, tmp_path):
    torch, peft, transformers = tools()
    base = bases("tied", "float32")
    adapter = make_adapter(tmp_path / "adapter", base, r=4, **config)
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    tokens = torch.arange(60).reshape(2, 30)
    with quiet(), torch.no_grad():
        apart = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
        apart = peft.PeftModel.from_pretrained(apart, adapter).eval()(tokens).logits
        found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()(tokens).logits
        plain = transformers.AutoModelForCausalLM.from_pretrained(base).eval()(tokens).logits
    # merging PEFT's way would change both, because they are one tensor in memory
    assert torch.allclose(found, apart, atol=1e-5)
    assert not torch.allclose(plain, apart, atol=1e-3)


def test_embeddings_saved_but_not_trained_stay_tied(bases, tmp_path):
    _, peft, transformers = tools()
    base = bases("tied", "bfloat16")
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
        wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    merge(str(base), [str(tmp_path / "adapter")], str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True
    assert differing(loaded(tmp_path / "out"), by_peft(base, tmp_path / "adapter", "accurate")) == {}


def test_tied_adapters_of_embeddings_leave_them_tied(bases, tmp_path):
    base = bases("tied", "bfloat16")
    adapter = make_adapter(tmp_path / "a", base, r=4, ensure_weight_tying=True, modules_to_save=["embed_tokens"])
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True
    wanted = by_peft(base, adapter, "accurate")
    assert differing(loaded(tmp_path / "out"), wanted) == {}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"init_lora_weights": "pissa"}, "began as pissa"),
        ({"init_lora_weights": "olora"}, "began as olora"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 2], [1, 2]], "target_modules": ["q_proj"]}, "layer_replication"),
    ],
)
def test_what_has_no_merged_form_is_refused_by_name(config, said, bases, tmp_path):
    base = bases("llama", "float32")
    adapter = make_adapter(tmp_path / "adapter", base, r=4, **config)
    with pytest.raises(UsageError, match=said):
        merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_every_setting_of_peft_is_known():
    from dataclasses import fields

    from cloudtune.weights.merge import lora

    _, peft, _ = tools()
    known = lora._HARMLESS | lora._NEVER.keys()
    assert {field.name for field in fields(peft.LoraConfig)} <= known
