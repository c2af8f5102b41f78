"""The processor and the model of a training: read once in the job, given an adapter, spread over all processes."""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from faults import RecipeError
from flags import called
from options import Options
from peft import LoraConfig, get_peft_model
from ranks import LOCAL_RANK, RANK, WORLD_SIZE, device_kind, say, sharding_in_use
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.nn import Parameter
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

#: Where models of transformers 5 keep the part that sees, and what leads from it to the words.
SEEING = (".vision_model.", ".vision_tower.", ".visual.", ".multi_modal_projector.", ".embed_vision.", ".connector.")


def device() -> torch.device:
    """Return the device of this process."""
    kind = device_kind()
    return torch.device(kind) if kind == "cpu" else torch.device(kind, LOCAL_RANK)


def uses_bf16(options: Options) -> bool:
    """Return whether to compute in bfloat16: as told, else on accelerators that have it."""
    if options.bf16 is not None:
        return options.bf16
    return device_kind() in ("cuda", "xpu") and torch.cuda.is_bf16_supported()


def load_processor(options: Options) -> Any:
    """Return what makes numbers of images and words, with a chat template; batches are padded on the right."""
    processor = AutoProcessor.from_pretrained(options.model, revision=options.revision)
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise RecipeError(f"{options.model} sees no images\n  hint: the recipe sft trains models of words alone")
    if options.chat_template != "auto":
        path = Path(options.chat_template)
        if not path.is_file():
            raise RecipeError(f"{called('chat_template', path)}: no such file\n  hint: auto, or a Jinja template")
        processor.chat_template = path.read_text(encoding="utf-8")
    if not processor.chat_template:
        raise RecipeError(
            f"{options.model} has no chat template, so it is not known how it reads images in a conversation\n"
            f"  hint: train the model that is meant for conversations (-Instruct), or give {called('chat_template')}"
        )
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def stored_dtype(options: Options) -> torch.dtype:
    """Return the precision in which the base model is stored, which is that of the fine-tuned one too."""
    config = AutoConfig.from_pretrained(options.model, revision=options.revision)
    dtype = config.dtype or config.get_text_config().dtype
    return getattr(torch, dtype, torch.float32) if isinstance(dtype, str) else dtype or torch.float32


def load_model(options: Options) -> tuple[Any, str]:
    """Return the model on this process's device, and how it is spread in words; every rank must call it.

    One process has it whole. Of several, the first one reads it, and each keeps its share of every layer (FSDP2).

    Raises:
        RecipeError: nothing was spread.
    """
    if WORLD_SIZE == 1:
        model = _prepared(_read(options), options).to(device())
        return model, f"sharding: none, one process, {sharding_in_use(model)[2]} parameters"
    read = _prepared(_read(options), options).state_dict() if RANK == 0 else {}
    distributed.barrier()  # what the first rank fetched from the Hub the others find beside it
    config = AutoConfig.from_pretrained(options.model, revision=options.revision)
    with init_empty_weights(include_buffers=False):
        empty = AutoModelForImageTextToText.from_config(config, dtype=_dtype(options), **_attention(options))
    empty.tie_weights()  # making it without values has parted what is one
    model = _prepared(empty, options)
    _shard(model, options)
    _fill(model, read)
    del read
    _place_buffers(model)
    tensors, local, total = sharding_in_use(model)
    if not tensors or any(parameter.is_meta for parameter in model.parameters()):
        raise RecipeError(
            f"all {total} parameters are whole on this rank, or have no values: nothing was sharded\n"
            "  hint: report the versions of torch and transformers; one process trains unsharded"
        )
    return model, f"sharding: fsdp2, {local} of {total} parameters on this rank, {tensors} DTensors"


def _read(options: Options) -> Any:
    return AutoModelForImageTextToText.from_pretrained(
        options.model, revision=options.revision, dtype=_dtype(options), **_attention(options)
    )


def _dtype(options: Options) -> torch.dtype:
    """Return the precision of the parameters: small steps get lost in 16 bits, what is frozen takes none."""
    return torch.bfloat16 if uses_bf16(options) and options.method == "lora" else torch.float32


def _attention(options: Options) -> dict[str, Any]:
    return {} if options.attn_implementation == "auto" else {"attn_implementation": options.attn_implementation}


def _prepared(model: Any, options: Options) -> Any:
    """Return the model with an adapter or with what is frozen, and with recomputation if it is wanted."""
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = False  # answers are faster with it, training cannot use it
    recompute = options.gradient_checkpointing
    if device_kind() != "cpu" if recompute is None else recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if options.method == "full":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(options.train_vision or not _sees(name))
        return model
    targets = options.target_modules
    config = LoraConfig(
        r=options.lora_r,
        lora_alpha=options.alpha,
        lora_dropout=options.lora_dropout,
        target_modules="all-linear" if targets == ("all-linear",) else list(targets),
        exclude_modules=None if options.train_vision else _seeing_modules(model),
        bias="none",
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return adapted


def _seeing_modules(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if _sees(f"{name}.") and not list(module.children())]


def _sees(name: str) -> bool:
    return any(part in f".{name}" for part in SEEING)


def _shard(model: Any, options: Options) -> None:
    """Spread every layer that may not be split otherwise, then the rest."""
    base = model.get_base_model() if options.method == "lora" else model
    kinds = set(base._no_split_modules or ())  # noqa: SLF001 - transformers has no other name for it
    policy = MixedPrecisionPolicy()
    if uses_bf16(options):
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    mesh = init_device_mesh(device_kind(), (WORLD_SIZE,))
    for module in list(base.modules()):
        if type(module).__name__ in kinds:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _fill(model: Any, read: dict[str, torch.Tensor]) -> None:
    """Give every process its share of what the first one has read, tensor by tensor; what is tied stays so."""
    filled: dict[int, Parameter] = {}
    for prefix, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in filled:
                if RANK == 0:
                    whole = read[f"{prefix}.{name}"].to(device(), parameter.dtype)
                else:
                    whole = torch.empty(parameter.shape, dtype=parameter.dtype, device=device())
                share = distribute_tensor(whole, parameter.device_mesh, parameter.placements)
                filled[id(parameter)] = Parameter(share, requires_grad=parameter.requires_grad)
            module.register_parameter(name, filled[id(parameter)])


def _place_buffers(model: Any) -> None:
    """Put what is computed from the config, on every process alike, onto the device."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device()))


def trained(model: Any) -> list[Any]:
    """Return the parameters that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def told(model: Any) -> None:
    """Say how much of the model is trained."""
    count = sum(parameter.numel() for parameter in trained(model))
    say(f"trains {count} of {sum(parameter.numel() for parameter in model.parameters())} parameters")
