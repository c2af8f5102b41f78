"""What a LoRA adapter's config says about merging it, read strictly.

PEFT's ``LoraConfig`` (0.21.2) has fifty fields. Some decide what is added to the base; some only say how the adapter
was trained; some mean that there is no merged form, or none that can be made of the base and the adapter alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError

#: How it was trained, begun or described: nothing of it changes what is added.
_HARMLESS = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config",
    "megatron_core", "modules_to_save", "monteclora_config", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "target_parameters", "task_type",
    "trainable_token_indices", "use_dora", "use_rslora", "velora_config",
})  # fmt: skip
#: What has no merged form, with the reason.
_NEVER = {
    "alora_invocation_tokens": "activated LoRA works from its invocation on, so its weights cannot be in the base's",
    "arrow_config": "Arrow chooses among adapters for every token, so there is no one model",
    "kasa_config": "KaSA takes small singular values away from the base first; PEFT has to do that",
    "layer_replication": "the trained model has more layers than the base; PEFT has to put them together",
    "megatron_config": "Megatron's layers are cut otherwise; convert the adapter to transformers' layers first",
    "use_bdlora": "the factors are block-diagonal; convert it to a plain adapter with PEFT first",
    "use_qalora": "QA-LoRA is tied to the groups of a quantized base, which PEFT cannot merge either",
}
#: Beginnings of training that also changed the base, by how their names begin.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
#: Tensors in an adapter's file that training needs and merging does not.
LEFT_OUT = re.compile(r"\.(lora_velora_embed|lora_monteclora_sampler)(\.|$)")


#: A repetition of a group in which something is repeated: matching it may take longer than anybody waits.
_REPEATED_TWICE = re.compile(r"[*+}][^()]*\)+[*+{]")
_MAX_PATTERN = 10_000


@attrs.frozen(kw_only=True)
class Lora:
    """An adapter's config; ``base`` is the name of what it was trained on."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int] = attrs.field(factory=dict)
    alpha_pattern: Mapping[str, float] = attrs.field(factory=dict)
    rslora: bool = False
    dora: bool = False
    in_type: bool = False
    target_modules: str | tuple[str, ...] | None = None
    target_parameters: tuple[str, ...] = ()
    token_indices: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None
    tied: bool = False
    base: str | None = None

    def rank_of(self, path: str) -> int:
        """Return the rank of a module's factors."""
        return self.rank_pattern.get(_pattern(self.rank_pattern, path), self.rank)

    def scale_of(self, path: str, weight: float = 1.0) -> float:
        """Return what a module's product is multiplied by, times the weight that the adapter is given."""
        alpha = self.alpha_pattern.get(_pattern(self.alpha_pattern, path), self.alpha)
        rank = self.rank_of(path)
        return weight * alpha / math.sqrt(rank) if self.rslora else weight * alpha / rank

    def targets(self, path: str) -> bool:
        """Return whether the config means a module, by PEFT's rule."""
        if isinstance(self.target_modules, str):
            if self.target_modules.lower() == "all-linear":
                return True
            return re.fullmatch(self.target_modules, path) is not None
        return self.target_modules is None or any(_ends(path, target) for target in self.target_modules)

    def tokens_of(self, path: str) -> tuple[int, ...]:
        """Return the numbers of the tokens that were trained in an embedding."""
        if isinstance(self.token_indices, Mapping):
            return next((one for name, one in self.token_indices.items() if _ends(path, name)), ())
        return self.token_indices or ()

    def targets_parameter(self, path: str) -> bool:
        """Return whether the config means a parameter by its name, not the module that it is in."""
        return any(_ends(path, target) for target in self.target_parameters)


def _ends(path: str, end: str) -> bool:
    return path == end or path.endswith(f".{end}")


def _pattern(patterns: Mapping[str, Any], path: str) -> str:
    """Return the first pattern that a module's path ends with, by PEFT's rule; empty if none does."""
    return next((one for one in patterns if re.match(rf"(.*\.)?({one})$", path)), "")


def read_lora(config: Mapping[str, Any], place: str) -> Lora:
    """Return what an adapter's config says; ``place`` is what messages call the adapter.

    Raises:
        UsageError: it is no LoRA, has no merged form, says something that is not known, or contradicts itself.
    """
    if config.get("peft_type") != "LORA":
        raise UsageError(f"{place} is an adapter of type {config.get('peft_type')}", hint="only LoRA can be merged")
    for key, reason in _NEVER.items():
        if config.get(key):
            raise UsageError(f"{place} cannot be merged: it has {key}", hint=reason)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        hint = "save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain adapter of it"
        raise UsageError(f"{place} began as {start}, which changed the base before training", hint=hint)
    unknown = sorted(key for key in config.keys() - _HARMLESS - _NEVER.keys() if config[key])
    if unknown:
        hint = "it is from a newer PEFT; merge it with that, or take the key out if it changes nothing"
        raise UsageError(f"{place} has the setting {unknown[0]}, which is not known here", hint=hint)
    try:
        return _lora(config, in_type=isinstance(start, str) and start.lower() == "mica")
    except (TypeError, ValueError, re.error) as error:
        raise UsageError(f"{place} has an adapter_config.json that cannot be: {error}", hint="copy it again") from error


def _lora(config: Mapping[str, Any], *, in_type: bool) -> Lora:
    """Return the settings; raises ValueError or TypeError if one of them cannot be."""
    ranks = _numbers(config, "rank_pattern", int)
    found = Lora(
        rank=_number("r", config.get("r", 8), int),
        alpha=_number("lora_alpha", config.get("lora_alpha", 8), float),
        rank_pattern=ranks,
        alpha_pattern=_numbers(config, "alpha_pattern", float),
        rslora=_flag(config, "use_rslora"),
        dora=_flag(config, "use_dora"),
        in_type=in_type,
        target_modules=_words(config, "target_modules"),
        target_parameters=tuple(_words(config, "target_parameters") or ()),
        token_indices=_indices(config.get("trainable_token_indices")),
        tied=_flag(config, "ensure_weight_tying"),
        base=_text(config, "base_model_name_or_path"),
    )
    if min(found.rank, *ranks.values(), found.rank) < 1:
        raise ValueError("a rank is less than 1")
    if config.get("fan_in_fan_out") and found.target_parameters:
        raise ValueError("fan_in_fan_out does not go with target_parameters")
    for pattern in (*found.rank_pattern, *found.alpha_pattern):
        _check_pattern(pattern)
    if isinstance(found.target_modules, str):
        _check_pattern(found.target_modules)
    return found


def _check_pattern(pattern: str) -> None:
    """Raise ValueError or re.error for a pattern that cannot be matched, or not within any bound of time."""
    re.compile(pattern)
    if len(pattern) > _MAX_PATTERN or _REPEATED_TWICE.search(pattern):
        raise ValueError(f"the pattern {pattern[:80]!r} repeats what is repeated, or is too long")


def _text(config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{key} is {value!r}")
    return value or None


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}")
    return bool(value)


def _number(key: str, value: Any, kind: type[float]) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not abs(value) < 2**63:
        raise TypeError(f"{key} is {value!r}")
    return value


def _numbers(config: Mapping[str, Any], key: str, kind: type[float]) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{key} is {value!r}")
    return {name: _number(key, one, kind) for name, one in value.items()}


def _words(config: Mapping[str, Any], key: str) -> str | tuple[str, ...] | None:
    value = config.get(key)
    if value is None or (isinstance(value, str) and key == "target_modules"):
        return value
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{key} is {value!r}")
    return tuple(value)


def _indices(value: Any) -> tuple[int, ...] | Mapping[str, tuple[int, ...]] | None:
    if isinstance(value, Mapping):
        return {name: _places(one) for name, one in value.items()}
    return None if value is None else _places(value)


def _places(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        raise TypeError(f"trainable_token_indices is {value!r}")
    return tuple(value)
