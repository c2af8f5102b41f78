"""Whether a LoRA adapter is whole: its config, and a pair of matrices of the right rank for every module."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.uri import shown
from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject, natural
from cloudtune.weights.files.configs import text_of
from cloudtune.weights.files.filenames import ADAPTER_CONFIG

#: ``base_model.model.MODULE.lora_A.weight``; embeddings have ``lora_embedding_A`` without ``.weight``.
_HALF = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(embedding_)?([AB])(?:\.\w+)?(?:\.weight)?")


def check_adapter(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with an adapter as such."""
    if not subject.adapter:
        return
    config = subject.config
    kind = config.get("peft_type")
    if kind != "LORA":
        hint = "merge it with the library that made it" if kind else "copy it again"
        yield _finding("adapter-type", "warning", f"the adapter is of type {kind!r}, not LORA", hint)
        return
    if not natural(config.get("r")):
        yield _finding("adapter-rank", "error", f"r is {config.get('r')!r}: it must be a whole number", "copy it again")
    if not isinstance(config.get("base_model_name_or_path"), str):
        hint = "write base_model_name_or_path, or nobody knows later what it belongs to"
        yield _finding("adapter-base", "warning", "the base model is not named", hint)
    yield from _halves(subject)


def what_it_is(subject: Subject) -> Iterator[Finding]:
    """Yield what can be done with an adapter, for whoever has not named a place."""
    if not subject.adapter:
        return
    base = text_of(subject.config, "base_model_name_or_path")
    message = f"this is an adapter{f' for {shown(base)}' if base else ''}, and no model by itself"
    merging = f"cloudtune merge {shown(base) if base else 'BASE'} ADAPTER -o MODEL"
    hint = f"{merging}; vLLM can also serve base and adapter together"
    yield _finding("adapter-alone", "note", message, hint)


def halves_of(subject: Subject) -> dict[str, dict[str, str]]:
    """Return the names of the tensors of each module: ``{"model.layers.0.mlp.up_proj": {"A": ..., "B": ...}}``."""
    found: dict[str, dict[str, str]] = {}
    for name in subject.weights:
        match = _HALF.fullmatch(name)
        if match:
            found.setdefault(match[1], {})[match[3]] = name
    return found


def rank_of(config: Mapping[str, Any], module: str) -> int | None:
    """Return the rank that an adapter's config gives to a module; None if it says nothing that can be."""
    pattern = config.get("rank_pattern")
    for key, value in pattern.items() if isinstance(pattern, dict) else ():
        # PEFT takes a key for a regular expression; those that are plain names are enough to look at
        if module == key or module.endswith(f".{key}"):
            return natural(value)
    return natural(config.get("r"))


def _halves(subject: Subject) -> Iterator[Finding]:
    modules = halves_of(subject)
    if not modules and subject.weights.shards:
        hint = "fine-tune again, or look for another checkpoint"
        yield _finding("adapter-empty", "error", "there is no lora_A and no lora_B in the file", hint)
    simple = not subject.config.get("rank_pattern")
    for module, names in modules.items():
        where = subject.place_of(next(iter(names.values())))
        if len(names) != 2:
            message = f"{module} has a lora_{next(iter(names))} without its other half"
            yield _finding("adapter-half", "error", message, "copy the adapter again, whole", where)
            continue
        first, second = (subject.weights.tensor(names[half]).shape for half in "AB")
        if len(first) < 2 or len(second) < 2 or first[0] != second[1]:
            message = f"{module}: lora_A is {list(first)} and lora_B {list(second)}, which have no rank in common"
            yield _finding("adapter-shape", "error", message, "copy the adapter again, whole", where)
        elif simple and rank_of(subject.config, module) not in {None, first[0]}:
            message = f"{module} has rank {first[0]}, and {ADAPTER_CONFIG} says {subject.config.get('r')}"
            yield _finding("adapter-rank", "error", message, f"use the {ADAPTER_CONFIG} of the same training", where)


def _finding(rule: str, severity: str, message: str, hint: str, where: str = ADAPTER_CONFIG) -> Finding:
    return Finding(rule=rule, severity=severity, message=message, hint=hint, where=where)
