"""Architectures: every parameter is counted, as transformers and PEFT count them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cloudtune.memory.models
from cloudtune.errors import UsageError
from cloudtune.memory.adapters import adapter_parameters, trained_parameters
from cloudtune.memory.architecture import Architecture
from cloudtune.memory.families import FAMILIES, architecture
from cloudtune.memory.models import known_config
from cloudtune.memory.training import Training
from tests.memory.configs import CASES, NAMES, config_of, written

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ROWS = json.loads(Path(cloudtune.memory.models.__file__).with_name("models.json").read_text())["models"]


def on_meta(config: Any) -> Any:
    """Return a model without memory."""
    auto = transformers.AutoModelForImageTextToText if config.model_type == "mllama" else None
    with torch.device("meta"):
        return (auto or transformers.AutoModelForCausalLM).from_config(config)


def counted(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_transformers(name: str) -> None:
    config = config_of(name)
    expected = counted(on_meta(config))
    assert architecture(written(config)).parameters == expected
    assert architecture(written(config, sparse=True)).parameters == expected


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "phi3"])
def test_parts_are_those_of_transformers(name: str) -> None:
    config = config_of(name)
    model, found = on_meta(config), architecture(written(config))
    assert found.embeddings == model.get_input_embeddings().weight.numel()
    assert found.tied == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)
    theirs: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, transformers.pytorch_utils.Conv1D)) and ".0." in path:
            theirs[path.partition(".0.")[2]] = sum(one.numel() for one in module.parameters())
    assert {one.name: one.parameters for one in found.layers[0].linears} == theirs


def test_a_large_model_has_every_parameter() -> None:
    config = known_config("meta-llama/Llama-3.3-70B-Instruct")
    assert config is not None
    keys = {key: value for key, value in config.items() if key != "model_type"}
    assert counted(on_meta(transformers.LlamaConfig(**keys))) == architecture(config).parameters == 70_553_706_496
    assert adapter_parameters(architecture(config), Training(lora_rank=16)) == 207_093_760


def test_llama_vision_has_every_parameter() -> None:
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "vocab_size": 100, "cross_attention_layers": [1, 3], "pad_token_id": 0}
    seen = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_global_layers": 2}
    seen |= {"attention_heads": 2, "image_size": 28, "patch_size": 14, "intermediate_layers_indices": [0, 2]}
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    config = transformers.MllamaConfig(text_config=text | ends, vision_config=seen | {"vision_output_dim": 96})
    assert architecture(written(config)).parameters == counted(on_meta(config))


@pytest.mark.parametrize("head", [True, False])
def test_gemma_3_with_its_eyes_has_every_parameter(head: bool) -> None:
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "head_dim": 24, "vocab_size": 120}
    seen = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    seen |= {"image_size": 56, "patch_size": 14, "vision_use_head": head}
    ids = {"boi_token_index": 1, "eoi_token_index": 2, "image_token_index": 3}
    config = transformers.Gemma3Config(text_config=text, vision_config=seen, **ids)
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    assert architecture(written(config)).parameters == counted(model)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["names"][0])
def test_known_models_have_the_parameters_that_the_hub_shows(row: dict[str, Any]) -> None:
    for name in row["names"]:
        assert known_config(name.upper()) == row["config"]
    assert architecture(row["config"]).parameters == row["parameters"]


ADAPTED = [("all-linear", name) for name in ("llama", "gpt2", "phi3", "gemma3", *("mixtral", "qwen2_moe", "qwen3_moe"))]
ADAPTED += [("q_proj v_proj", name) for name in ("llama", "qwen2_moe", "gpt_oss")] + [("c_proj", "gpt2")]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses what transformers is about to rename
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # and warns of patterns of its own
@pytest.mark.parametrize(("targets", "name"), ADAPTED)
def test_adapters_are_those_of_peft(targets: str, name: str) -> None:
    from peft import LoraConfig, get_peft_model

    config = config_of(name)
    modules = targets if targets == "all-linear" else targets.split()
    adapter = LoraConfig(r=8, target_modules=modules, task_type="CAUSAL_LM", fan_in_fan_out=name == "gpt2")
    model = get_peft_model(on_meta(config), adapter)
    training = Training(lora_rank=8, targets=tuple(targets.split()))
    assert adapter_parameters(architecture(written(config)), training) == model.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize(("saved", "more"), [(("lm_head",), 7680), (("embed_tokens", "lm_head"), 15_360)])
def test_modules_trained_whole_are_counted_beside_adapters(saved: tuple[str, ...], more: int) -> None:
    model = architecture(written(config_of("llama")))
    alone = trained_parameters(model, Training())
    assert trained_parameters(model, Training(saved=saved)) == alone + more


def test_an_unknown_type_is_counted_like_llama_and_says_so() -> None:
    config = written(config_of("llama"))
    found = architecture({**config, "model_type": "brandnew"})
    assert found.parameters == architecture(config).parameters
    assert found.notes == ("models of the type 'brandnew' are not known: counted as if built like Llama",)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UsageError, match="lacks hidden_size, num_hidden_layers") as caught:
        architecture({"model_type": "brandnew", "num_attention_heads": 4, "vocab_size": 9})
    assert "qwen3" in str(caught.value)
    with pytest.raises(UsageError, match="no model_type"):
        architecture({})
    with pytest.raises(UsageError, match="llama model has no hidden_size"):
        architecture({"model_type": "llama"})
    with pytest.raises(UsageError, match=r"hidden_size in config.json is '64', not a whole number"):
        architecture({"model_type": "llama", "hidden_size": "64"})
    for name, width in (("falcon", "hidden_size"), ("gpt2", "n_embd")):
        with pytest.raises(UsageError, match="heads for a width of 1"):
            architecture({**written(config_of(name)), width: 1})
    with pytest.raises(UsageError, match="alibi"):
        architecture({**written(config_of("falcon")), "alibi": True})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4096) | st.floats(allow_nan=True) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
KEYS = sorted({key for _, _, keys in CASES for key in keys} | {"hidden_size", "num_hidden_layers", "text_config"})


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.dictionaries(st.sampled_from([*KEYS, "num_attention_heads", "vocab_size", "vision_config"]), ANYTHING),
)
def test_no_config_does_worse_than_a_plain_word(model_type: str, keys: dict[str, Any]) -> None:
    try:
        found = architecture({**keys, "model_type": model_type})
    except UsageError:
        return
    assert isinstance(found, Architecture)
    assert found.parameters > 0
