"""What autograd saves in the layers of every family, against PyTorch's own saved tensors."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from cloudtune.memory.activations import activations
from cloudtune.memory.families import architecture
from cloudtune.memory.training import Training
from tests.memory.configs import config_of, written

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # PEFT uses what transformers is about to rename
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # and warns of patterns of its own
]
ROWS, TOKENS = 2, 64
FULL = {"method": "full", "lora_dropout": 0.0}
LORA = {"method": "lora", "lora_dropout": 0.0}
DROPPED = {"method": "lora", "lora_dropout": 0.05}
EAGER = {"fused_attention": False}


def saved(name: str, layers: int, training: Training) -> float:
    """Return the bytes of all storages that a forward pass saves, the weights themselves apart."""
    depth = {"n_layer": layers} if name == "gpt2" else {"num_hidden_layers": layers}
    if name == "qwen2_moe":
        depth["mlp_only_layers"] = []
    kernel = "sdpa" if training.fused_attention else "eager"
    model = transformers.AutoModelForCausalLM.from_config(config_of(name, **depth), attn_implementation=kernel)
    if training.dtype == "bf16" or (training.dtype == "mixed" and training.method == "lora"):
        model = model.bfloat16()
    if training.method == "lora":
        from peft import LoraConfig, get_peft_model

        adapter = LoraConfig(
            r=training.lora_rank,
            lora_dropout=training.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            fan_in_fan_out=name == "gpt2",
        )
        model = get_peft_model(model, adapter)
        model = model.bfloat16() if training.dtype == "bf16" else model
        model.enable_input_require_grads()
    ids = torch.randint(0, 120, (ROWS, TOKENS))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16) if training.dtype == "mixed" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model.train()(input_ids=ids, labels=ids, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [
        ("llama", "fp32", FULL),
        ("llama", "bf16", FULL),
        ("llama", "mixed", FULL),
        ("llama", "fp32", LORA),
        ("llama", "bf16", LORA),
        ("llama", "mixed", DROPPED),
        ("llama", "mixed", DROPPED | EAGER),
        ("llama", "fp32", FULL | EAGER),
        ("llama with biases", "mixed", FULL),
        ("qwen3", "bf16", FULL),
        ("qwen3", "mixed", DROPPED),
        ("phi3", "fp32", FULL),
        ("phi3", "mixed", DROPPED),
        ("gemma", "bf16", FULL),
        ("gemma2", "fp32", FULL | EAGER),
        ("gemma3", "mixed", DROPPED),
        ("olmo2", "bf16", FULL),
        ("starcoder2", "mixed", FULL),
        ("gpt2", "fp32", FULL),
        ("gpt2", "mixed", DROPPED),
        ("gpt_neox", "mixed", FULL),
        ("falcon", "bf16", FULL),
        ("phi", "fp32", FULL),
        ("mixtral", "mixed", FULL),
        ("mixtral", "bf16", LORA),
        ("qwen2_moe", "fp32", FULL),
        ("qwen2_moe", "mixed", DROPPED),
        ("qwen3_moe", "bf16", LORA),
        ("gpt_oss", "fp32", FULL | EAGER),
    ],
)
def test_a_layer_keeps_what_autograd_saves(name: str, dtype: str, options: dict[str, Any]) -> None:
    training = Training(
        dtype=dtype,
        batch_size=ROWS,
        sequence_length=TOKENS,
        gradient_checkpointing=False,
        accelerator=False,
        lora_rank=8,
        **options,
    )
    config = written(config_of(name, **({"mlp_only_layers": []} if name == "qwen2_moe" else {})))
    depth = "n_layer" if name == "gpt2" else "num_hidden_layers"
    one, three = (activations(architecture({**config, depth: layers}), training).held for layers in (1, 3))
    expected = saved(name, 3, training) - saved(name, 1, training)
    # what is left are sums of a few bytes a token, and the indices of experts
    assert three - one == pytest.approx(expected, rel=0.02)
