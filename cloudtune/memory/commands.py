"""What the command of a job says of the model and of how it is trained: flags of well-known training scripts.

Nothing is run and nothing guessed: a flag that is not known says nothing, and a script that is not known and whose
flags do not say how it trains is left alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cloudtune.errors import UsageError
from cloudtune.memory.training import Training

_NAME = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_MODEL = ("model_name", "model_name_or_path", "model_id", "model_path", "pretrained_model_name_or_path")
_BATCH = ("batch_size_training", "per_device_train_batch_size", "train_batch_size", "micro_batch_size", "batch_size")
_LENGTH = ("context_length", "max_seq_length", "max_seq_len", "block_size", "max_length", "cutoff_len")
_RANK = ("lora_r", "lora_rank")
_TENSOR_PARALLEL = ("tensor_parallel_size", "tp_size")
#: A whole number that can be a size; what else stands behind a flag says nothing.
_WHOLE = re.compile(r"[1-9][0-9]{0,17}")
#: Flags that move states elsewhere or say in a file how a model is spread: nothing is known then.
_ELSEWHERE = ("deepspeed", "fsdp_cpu_offload", "cpu_offload", "offload", "config_file", "fsdp_config", "use_fp8")


class Script(NamedTuple):
    """A training script that trains the whole model unless told else, and its defaults; ``packed``: rows are full."""

    batch: int
    length: int
    packed: bool
    checkpointing: bool


#: By file name: llama-recipes (and its later names), and the examples of transformers.
SCRIPTS: Mapping[str, Script] = {
    "finetuning.py": Script(batch=4, length=4096, packed=True, checkpointing=True),
    "llama_finetuning.py": Script(batch=4, length=4096, packed=True, checkpointing=True),
    "run_clm.py": Script(batch=8, length=1024, packed=True, checkpointing=False),
}


class Told(NamedTuple):
    """What a command says: the model and the training; whether its rows are full, and whether its script is known."""

    model: str
    training: Training
    packed: bool
    known: bool


def told(command: str | Sequence[str], variables: Mapping[str, str]) -> Told:
    """Return what a command says of its training; ``variables`` fill in what it takes from the environment.

    Raises:
        UsageError: it does not say what is trained, or not how.

    >>> line = "torchrun finetuning.py --enable_fsdp --use_peft --pure_bf16 --model_name meta-llama/Llama-2-13b-hf"
    >>> told(line, {}).training.method
    'lora'
    """
    words = _words(command, variables)
    script = next((SCRIPTS[name] for word in words if (name := word.rsplit("/", 1)[-1]) in SCRIPTS), None)
    flags = _flags(words)
    model = _model(flags)
    if model is None:
        raise _no_model(flags)
    if elsewhere := [name for name in _ELSEWHERE if _is_set(flags.get(name))]:
        raise UsageError(f"--{elsewhere[0]} says in a way that is not known here how memory is spread")
    method = _method(flags)
    if method is None and script is None:
        raise UsageError("the command does not say whether it trains the whole model or an adapter")
    packed = script is not None and script.packed and flags.get("batching_strategy", "packing") == "packing"
    return Told(model, _training(flags, method or "full", script), packed, script is not None)


def model_named(command: str | Sequence[str], variables: Mapping[str, str]) -> str | None:
    """Return the model that a command names, also where it does not say how it is trained; None if it names none.

    Raises:
        UsageError: the command cannot be read.
    """
    return _model(_flags(_words(command, variables)))


def _model(flags: Mapping[str, str]) -> str | None:
    found = next((flags[name] for name in _MODEL if flags.get(name)), "")
    return found if found and "$" not in found else None


def _no_model(flags: Mapping[str, str]) -> UsageError:
    """Return the error for a command that names no model, or one that is filled in only on the node."""
    for name in _MODEL:
        if found := _NAME.search(flags.get(name, "")):
            variable = found[1] or found[2]
            hint = f"say what it is: -e {variable}=OWNER/NAME"
            return UsageError(f"the command's --{name} is {flags[name]}, which is not known here", hint=hint)
    return UsageError("the command does not say which model it trains")


def _training(flags: Mapping[str, str], method: str, script: Script | None) -> Training:
    settings: dict[str, Any] = {
        "method": method,
        "loss": "whole",
        "dtype": _dtype(flags, method),
        "batch_size": _number(flags, _BATCH, script.batch if script else 1),
        "sequence_length": _number(flags, _LENGTH, script.length if script else 1024),
        "lora_rank": _number(flags, _RANK, 8),
        "gradient_checkpointing": _is_set(flags.get("gradient_checkpointing"), script is None or script.checkpointing),
        "optimizer": flags.get("optim") or "adamw_torch_fused",
    }
    if method != "full":
        settings["targets"] = ("q_proj", "v_proj")  # what PEFT adapts of Llama unless told else
    if _is_set(flags.get("enable_fsdp")) or _is_set(flags.get("fsdp")):
        settings["sharding"] = "fsdp-hybrid" if _is_set(flags.get("hsdp")) else "fsdp"
    settings["tensor_parallel"] = _number(flags, _TENSOR_PARALLEL, 1)
    return Training(**settings)


def _method(flags: Mapping[str, str]) -> str | None:
    """Return ``lora`` or ``qlora`` where the flags ask for an adapter, ``full`` where they refuse one, else None."""
    quantized = any(_is_set(flags.get(name)) for name in ("load_in_4bit", "load_in_8bit", "quantization", "use_qlora"))
    asked = any(_is_set(flags.get(name)) for name in ("use_peft", "use_lora", "use_qlora", "enable_lora"))
    if quantized:
        return "qlora"
    if asked:
        return "lora" if flags.get("peft_method", "lora") == "lora" else None
    return "full" if any(name in flags for name in ("use_peft", "use_lora")) else None


def _dtype(flags: Mapping[str, str], method: str) -> str:
    if _is_set(flags.get("pure_bf16")) or flags.get("torch_dtype") in ("bfloat16", "float16"):
        return "bf16"
    half = any(_is_set(flags.get(name)) for name in ("bf16", "fp16", "use_fp16", "mixed_precision"))
    # llama-recipes computes in 16 bits under FSDP unless told else
    return "mixed" if half or method != "full" or _is_set(flags.get("enable_fsdp")) else "fp32"


def _words(command: str | Sequence[str], variables: Mapping[str, str]) -> list[str]:
    if isinstance(command, str):
        try:
            words = shlex.split(command, comments=False)
        except ValueError as error:
            raise UsageError(f"the command cannot be read: {error}") from error
    else:
        words = list(command)
    return [_NAME.sub(lambda found: variables.get(found[1] or found[2], found[0]), word) for word in words]


def _flags(words: Sequence[str]) -> dict[str, str]:
    """Return the flags of a command, without dashes and with ``_`` for ``-``; "" for a switch."""
    flags: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if not word.startswith("--") or word == "--":
            continue
        name, given, value = word[2:].partition("=")
        flags[name.replace("-", "_")] = value if given else "" if following.startswith("-") else following
    return flags


def _is_set(value: str | None, default: bool = False) -> bool:
    """Return whether a switch is on: it stands there, and not with a value that turns it off."""
    return default if value is None else value.lower() not in ("false", "0", "no", "none", "off")


def _number(flags: Mapping[str, str], names: Sequence[str], default: int) -> int:
    given = next((flags[name] for name in names if name in flags), "")
    return int(given) if _WHOLE.fullmatch(given) else default
