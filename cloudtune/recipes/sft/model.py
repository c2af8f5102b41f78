"""The tokenizer and the model of a training: template, precision, attention, quantization, sharding."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import torch
from faults import RecipeError
from flags import called
from options import Options
from peft import LoraConfig
from ranks import LOCAL_RANK, WORLD_SIZE, device_kind, say, sharding_in_use
from templates import PLAIN_TEMPLATE, portable
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.distributed import DistributedConfig


def uses_bf16(options: Options) -> bool:
    """Return whether to compute in bfloat16: as told, else on accelerators that have it."""
    if options.bf16 is not None:
        return options.bf16
    return device_kind() in ("cuda", "xpu") and torch.accelerator.is_available() and torch.cuda.is_bf16_supported()


def in_four_bits(options: Options) -> bool:
    """Return whether the frozen weights are quantized: for QLoRA, but not on the processors of a rehearsal."""
    return options.method == "qlora" and not (device_kind() == "cpu" and "CLOUDTUNE_REHEARSED" in os.environ)


def sharding_route(options: Options) -> str:
    """Return how the model is sharded: ``none``, ``loaded`` (sharded while it is read) or ``wrapped`` (by accelerate).

    A model sharded while it is read never lies whole on one device and works on a CPU too, but its optimizer cannot be
    saved, so no training goes on from its checkpoints. On accelerators that write checkpoints accelerate shards.
    """
    if options.sharding == "none":
        return "none"
    if WORLD_SIZE == 1:
        raise RecipeError(
            f"{called('sharding', 'fsdp')} was asked for, but there is only one process to shard over\n"
            f"  hint: start it with torchrun and more processes or nodes, or leave {called('sharding')} out"
        )
    if device_kind() != "cpu" and (options.save_strategy != "no" or options.method == "qlora"):
        return "wrapped"
    if in_four_bits(options):
        raise RecipeError(
            f"{called('method', 'qlora')} cannot be sharded on a CPU\n  hint: {called('method', 'lora')} can"
        )
    return "loaded"


def load_tokenizer(options: Options, *, conversational: bool) -> Any:
    """Return the tokenizer, with a chat template if the data are conversations."""
    tokenizer = AutoTokenizer.from_pretrained(
        options.model, revision=options.revision, trust_remote_code=options.trust_remote_code
    )
    if tokenizer.eos_token is None:
        raise RecipeError(f"the tokenizer of {options.model} has no end-of-sequence token, so no answer would ever end")
    if options.chat_template not in ("auto", "keep"):
        path = Path(options.chat_template)
        if not path.is_file():
            raise RecipeError(
                f"{called('chat_template', path)}: no such file\n  hint: auto, keep, or a file with a Jinja template"
            )
        tokenizer.chat_template = path.read_text(encoding="utf-8")
        say(f"chat template: {path}")
    elif conversational and not tokenizer.chat_template:
        if options.chat_template == "keep":
            raise RecipeError(
                f"the tokenizer of {options.model} has no chat template, and the data are conversations\n"
                f"  hint: {called('chat_template', 'auto')} for a plain one, or the path of a Jinja file there"
            )
        plain = PLAIN_TEMPLATE if options.assistant_only_loss else portable(PLAIN_TEMPLATE)
        tokenizer.chat_template = plain
        say("chat template: the tokenizer has none, so a plain one is used (User: ... Assistant: ...)")
    return tokenizer


def attention(options: Options) -> str:
    """Return the attention kernel to ask for."""
    flash = device_kind() == "cuda" and importlib.util.find_spec("flash_attn") is not None
    if options.attn_implementation == "auto":
        return "flash_attention_2" if flash and uses_bf16(options) else "sdpa"
    if options.attn_implementation == "flash_attention_2" and not flash:
        say("attention: flash_attention_2 is not installed here or the device is none of its kind; sdpa is used")
        return "sdpa"
    return options.attn_implementation


def quantization(options: Options) -> BitsAndBytesConfig | None:
    """Return how the frozen weights are quantized for QLoRA."""
    if not in_four_bits(options):
        if options.method == "qlora":
            say("rehearsed: substituted: four bits -> the frozen weights as they are: this machine has no GPU")
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            f"{called('method', 'qlora')} needs bitsandbytes\n  hint: dependencies: {{pipPackages: bitsandbytes}}"
        )
    compute = torch.bfloat16 if uses_bf16(options) else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute,
    )


def load_model(options: Options, route: str) -> Any:
    """Return the base model in the precision that the method trains in.

    Full fine-tuning keeps its parameters in 32 bits, since the small steps of an optimizer get lost in 16; frozen
    weights are held in 16 bits wherever the training computes in them.
    """
    bf16 = uses_bf16(options)
    settings: dict[str, Any] = {
        "revision": options.revision,
        "trust_remote_code": options.trust_remote_code,
        "dtype": torch.bfloat16 if bf16 and options.method != "full" else torch.float32,
    }
    if quantized := quantization(options):
        settings["quantization_config"] = quantized
        if device_kind() != "cpu":
            settings["device_map"] = {"": LOCAL_RANK}
    if route == "loaded":
        mixed = bf16 and options.method == "full"
        settings["distributed_config"] = DistributedConfig(fsdp_size=WORLD_SIZE, fsdp_mixed_precision=mixed)
    kernels = list(dict.fromkeys((attention(options), "sdpa", "eager")))
    for kernel, following in zip(kernels, [*kernels[1:], None], strict=True):
        try:
            return AutoModelForCausalLM.from_pretrained(options.model, attn_implementation=kernel, **settings)
        except (ImportError, ValueError) as error:
            if following is None or not re.search(r"attention|attn|flash|sdpa", str(error), re.IGNORECASE):
                raise
            say(f"attention: {kernel} cannot be used here, {following} is used")
    raise AssertionError


def stored_dtype(options: Options) -> torch.dtype:
    """Return the precision in which the base model is stored, which is that of the fine-tuned one too."""
    config = AutoConfig.from_pretrained(
        options.model, revision=options.revision, trust_remote_code=options.trust_remote_code
    )
    dtype = config.get_text_config().dtype
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    return named or torch.float32


def adapter(options: Options) -> LoraConfig | None:
    """Return the adapter to train, or None for full fine-tuning."""
    if options.method == "full":
        return None
    targets = options.target_modules
    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha or 2 * options.lora_r,
        lora_dropout=options.lora_dropout,
        target_modules="all-linear" if targets == ("all-linear",) else list(targets),
        modules_to_save=list(options.modules_to_save) or None,
        bias="none",
        task_type="CAUSAL_LM",
    )


def prove_sharding(model: Any, route: str) -> str:
    """Say which strategy is really in use.

    Raises:
        RecipeError: sharding was asked for, and no parameter is sharded.
    """
    tensors, local, total = sharding_in_use(model)
    if route == "none":
        line = "sharding: none, " + ("one process" if WORLD_SIZE == 1 else f"ddp over {WORLD_SIZE} processes")
        return f"{line}, {total} parameters on this rank"
    if not tensors:
        raise RecipeError(
            f"{called('sharding', 'fsdp')} was asked for, but all {total} parameters are whole on this rank: "
            "nothing is sharded\n"
            "  hint: report the versions of torch, transformers and accelerate; "
            f"{called('sharding', 'none')} trains unsharded"
        )
    return f"sharding: fsdp2, {local} of {total} parameters on this rank, {tensors} DTensors"
