"""Names of tensors: as training frameworks leave them, and as the files of Hugging Face and PEFT have them. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from cloudtune.errors import UsageError

#: Modules that wrap others for training, which a model without them knows nothing of: torch.compile, FSDP,
#: activation checkpointing.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"})
#: A module in which torch's DDP, and others, keep the whole model.
_OUTER = "module"
_FLAT = re.compile(r"(^|[._])flat_param(_\d+)?$")
#: Names of matrices wherever they occur; with one dimension they are flat parameters of FSDP1.
_MATRIX = re.compile(r"(embed_tokens|lm_head|_proj|wte|lora_[AB])(\.[^.]+)?\.weight$")

#: What PEFT adds to a layer: kind of tensor, name of the adapter, rest.
_ADAPTER = re.compile(
    r"\.(?P<kind>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
    r"|token_adapter\.trainable_tokens_delta)(?:\.(?P<name>(?!weight$|bias$)[^.]+))?(?P<rest>\.weight|\.bias)?$"
)
_SAVED = re.compile(r"\.modules_to_save\.(?P<name>[^.]+)\.")
#: What stays of the base beside an adapter.
_ORIGINAL = re.compile(r"\.(base_layer|original_module|token_adapter\.trainable_tokens_original)(\.|$)")
_PEFT_PREFIX = "base_model.model."
_ADAPTER_NAME = "default"

#: Where modules of transformers and files differ by their beginning: what a name begins with, and what it becomes.
#: From transformers' conversion_mapping.py: llava and its kin, GPT-NeoX, Qwen2-VL and its kin; then models without
#: their head.
_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("lm_head.", "embed_out."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("model.visual.", "visual."),
    ("model.language_model.", "model."),
    ("model.", ""),
    ("", "model."),
)
#: Where they differ inside: mixtures of experts, whose modules transformers 5 has renamed; from the same file.
_MODULES = (
    (".mlp.gate.moe_statics.", ".mlp.moe_statics."),
    (".mlp.gate.", ".block_sparse_moe.gate."),
    (".mlp.router.", ".block_sparse_moe.gate."),
    (".block_sparse_moe.router.weight", ".block_sparse_moe.router.layer.weight"),
    (".block_sparse_moe.experts.gate_up_proj", ".block_sparse_moe.input_linear.weight"),
    (".block_sparse_moe.experts.down_proj", ".block_sparse_moe.output_linear.weight"),
)
#: Ends of the names of input embeddings.
_TABLES = tuple(f".{name}.weight" for name in ("embed_tokens", "wte", "embed_in", "word_embeddings", "embeddings"))
#: Ends of the names of what is computed from the config, not trained.
_COMPUTED = (".inv_freq", ".original_inv_freq", ".position_ids", ".masked_bias")


def unwrapped(name: str) -> str:
    """Return a name without the modules that wrap others for training.

    Raises:
        ValueError: it is a flat parameter, which belongs to no layer.
    """
    if _FLAT.search(name):
        raise ValueError(f"{name} is a flat parameter of FSDP, several layers in one")
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] == _OUTER:
        del parts[0]
    return ".".join(parts)


def is_flat(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor with the name of a matrix has been flattened."""
    return len(shape) == 1 and _MATRIX.search(name) is not None


def is_adapted(names: Iterable[str]) -> bool:
    """Return whether there is a LoRA adapter among tensors."""
    return any(_ADAPTER.search(name) for name in names)


def adapter_names(names: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the tensors of one adapter, each with the name that it has in PEFT's files, and what was left out.

    In training a name holds that of the adapter (``lora_A.default.weight``), in files it does not. Of several
    adapters ``default`` is taken, else the first.
    """
    found = {name: match for name in names if (match := _ADAPTER.search(name) or _SAVED.search(name))}
    known = sorted({match["name"] for match in found.values()} - {None})
    chosen = _ADAPTER_NAME if _ADAPTER_NAME in known or not known else known[0]
    notes = []
    if len(known) > 1:
        others = ", ".join(name for name in known if name != chosen)
        notes.append(f"the adapter {chosen} was taken, not the others: {others}")
    taken: dict[str, str] = {}
    base = 0
    alone = not any(_ORIGINAL.search(name) for name in names)
    for name in names:
        match = found.get(name)
        if match is None:
            # beside an adapter without its base there is only what was trained with it
            if alone:
                taken[name] = name
            else:
                base += 1
        elif match["name"] in {None, chosen}:
            taken[name] = _without_adapter(name, match)
    if base:
        notes.append(f"{base} tensors of the base beside the adapter were left out")
    return {name: _prefixed(goal) for name, goal in taken.items()}, tuple(notes)


def _without_adapter(name: str, match: re.Match[str]) -> str:
    if match.re is _SAVED:
        return f"{name[: match.start()]}.{name[match.end() :]}"
    # since DoRA became a layer of its own its tensor is called weight, but not in files
    rest = "" if match["kind"] == "lora_magnitude_vector" else match["rest"] or ""
    return f"{name[: match.start()]}.{match['kind']}{rest}"


def _prefixed(name: str) -> str:
    return name if name.startswith(_PEFT_PREFIX) else _PEFT_PREFIX + name


def matched(names: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """Return which of the wanted names each name stands for; those that stand for none are left out.

    A name stands for itself, else for one that differs by its beginning or a module, as in transformers itself.
    """
    found = {name: name for name in names if name in wanted}
    taken = set(found)
    for name in names:
        if name in found:
            continue
        goal = next((goal for goal in _others(name) if goal in wanted and goal not in taken), None)
        if goal is not None:
            found[name] = goal
            taken.add(goal)
    return found


def _others(name: str) -> Iterator[str]:
    """Yield what a name may be in files."""
    yield from (instead + name[len(begin) :] for begin, instead in _PREFIXES if name.startswith(begin))
    yield from (name.replace(module, instead) for module, instead in _MODULES if module in name)


def is_computed(name: str) -> bool:
    """Return whether a tensor is computed from the config when a model is loaded."""
    return name.endswith(_COMPUTED)


def heads(names: Collection[str]) -> tuple[str, str] | None:
    """Return the names of the output embeddings and of the input embeddings that they may be tied to."""
    head = [name for name in names if name == "lm_head.weight" or name.endswith(".lm_head.weight")]
    table = [name for name in names if name.endswith(_TABLES)]
    return (head[0], table[0]) if len(head) == len(table) == 1 else None


def check_fit(
    tensors: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], *, base: str, spare: Collection[str]
) -> None:
    """Check that tensors have the names and shapes of a base; ``spare`` are names that may be missing on either side.

    Raises:
        UsageError: they do not, with the first few that differ.
    """
    missing = [name for name in wanted if name not in tensors and name not in spare]
    unknown = [name for name in tensors if name not in wanted and name not in spare]
    wrong = [name for name in tensors if name in wanted and tensors[name] != wanted[name]]
    hint = "name the base that it was trained from"
    if wrong:
        name = wrong[0]
        if len(tensors[name]) == 1 < len(wanted[name]):
            hint = "a flat parameter of FSDP1 (LOCAL_STATE_DICT) cannot be put together: save SHARDED_STATE_DICT"
        message = f"{name} has shape {[*tensors[name]]}, and in {base} {[*wanted[name]]}{_more(wrong)}"
        raise UsageError(message, hint=hint)
    if missing or unknown:
        parts = [f"{base} has {missing[0]}, and the checkpoint has not{_more(missing)}"] if missing else []
        if unknown:
            parts.append(f"the checkpoint has {unknown[0]}, and {base} has not{_more(unknown)}")
        raise UsageError("; ".join(parts), hint=hint)


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
