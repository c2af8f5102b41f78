"""Whether ``config.json`` and ``generation_config.json`` can be so, and agree with the tensors' types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject, natural
from cloudtune.weights.files.filenames import CONFIG, GENERATION

#: The types of ordinary weights, by the names that configs have for them.
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
#: Names of tensors that only quantized layers have.
_QUANTIZED = (".qweight", ".qzeros", ".absmax", ".quant_map", ".SCB", ".weight_scale", ".weight_packed", "_blocks")
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_config(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the config of a model."""
    if subject.adapter or CONFIG not in subject.documents:
        return
    for key, value in (("architectures", subject.architecture), ("model_type", subject.model_type)):
        if value is None:
            yield _finding(
                "config-incomplete", "error", f"{key} is missing", "copy it from the base model's config.json"
            )
    if "auto_map" in subject.config:
        hint = "serve with --trust-remote-code if you trust its author; places without that option refuse it"
        yield _finding("config-code", "warning", "the model needs Python code that comes with it", hint)
    yield from _heads(subject.text_config)
    yield from _dtypes(subject)
    yield from _quantization(subject)
    context = subject.text_config.get("max_position_embeddings")
    if context is not None and not natural(context):
        yield _finding("config-context", "error", f"max_position_embeddings is {context!r}", "write a whole number")


def _heads(config: Mapping[str, Any]) -> Iterator[Finding]:
    hidden, heads = natural(config.get("hidden_size")), natural(config.get("num_attention_heads"))
    groups = natural(config.get("num_key_value_heads"))
    hint = "copy config.json from the base model: one of the numbers was changed"
    if not heads:
        return
    if hidden and config.get("head_dim") is None and hidden % heads:
        message = f"hidden_size {hidden} cannot be shared by {heads} heads, and there is no head_dim"
        yield _finding("config-heads", "error", message, hint)
    if groups and heads % groups:
        message = f"{heads} attention heads cannot share {groups} key-value heads"
        yield _finding("config-heads", "error", message, hint)


def _dtypes(subject: Subject) -> Iterator[Finding]:
    floats = {name: size for name, size in subject.dtypes.items() if name in FLOATS}
    if len(floats) > 1:
        shares = ", ".join(f"{size / 1e9:.3g} GB {name}" for name, size in floats.items())
        message = f"the weights are of several types: {shares}"
        hint = "programs load them all as one; save the model in one type unless the mixture is meant"
        yield _finding("dtype-mixed", "warning", message, hint)
    said = subject.config.get("dtype", subject.config.get("torch_dtype", subject.text_config.get("dtype")))
    if isinstance(said, str) and floats and said.removeprefix("torch.") not in {FLOATS[name] for name in floats}:
        most = next(iter(floats))
        message = f"config.json says {said}, and the weights are {FLOATS[most]}"
        hint = f"write {FLOATS[most]} there, or programs that follow it convert every weight"
        yield _finding("dtype-config", "warning", message, hint)


def _quantization(subject: Subject) -> Iterator[Finding]:
    if isinstance(subject.config.get("quantization_config"), dict):
        return
    named = next((name for name in subject.weights if name.endswith(_QUANTIZED)), None)
    typed = next((name for name in subject.dtypes if name not in FLOATS and name not in {"I64", "BOOL", "C64"}), None)
    if named or typed:
        what = f"{named} is part of a quantized layer" if named else f"there are weights of type {typed}"
        message = f"{what}, and config.json has no quantization_config"
        hint = "merge into the base in 16 bits, or copy the config that the quantization wrote"
        yield _finding("quantized-unsaid", "error", message, hint)


def check_generation(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the settings of generation."""
    settings = subject.documents.get(GENERATION, {})
    for key, low, high in (
        ("temperature", 0.0, 100.0),
        ("top_p", 0.0, 1.0),
        ("min_p", 0.0, 1.0),
        ("repetition_penalty", 1e-9, 100.0),
    ):
        value = settings.get(key)
        if value is not None and not (type(value) in {int, float} and low <= value <= high):
            message = f"{key} is {value!r}: it must be a number from {low:g} to {high:g}"
            yield _finding("generation-range", "error", message, f"mend or remove {key}", GENERATION)
    for key in ("max_new_tokens", "max_length", "top_k"):
        value = settings.get(key)
        if value is not None and natural(value) is None:
            message = f"{key} is {value!r}: it must be a whole number"
            yield _finding("generation-range", "error", message, f"mend or remove {key}", GENERATION)
    sampling = [key for key in ("temperature", "top_p", "top_k") if settings.get(key) not in {None, 1, 50}]
    if settings.get("do_sample") is False and sampling:
        message = f"do_sample is false, and {', '.join(sampling)} set: transformers refuses to save such a model again"
        yield _finding("generation-sampling", "warning", message, "set do_sample to true, or remove them", GENERATION)


def token_ids(config: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Return the ids that a config gives for a special token: none, one, or a list of them."""
    value = config.get(key)
    found = value if isinstance(value, list) else [value]
    return tuple(item for item in found if type(item) is int)


def check_token_ids(subject: Subject) -> Iterator[Finding]:
    """Yield special tokens that the vocabulary does not have."""
    size = natural(subject.text_config.get("vocab_size"))
    for name, config in ((CONFIG, subject.text_config), (GENERATION, subject.documents.get(GENERATION, {}))):
        for key in _SPECIAL:
            for item in token_ids(config, key):
                if size is not None and not 0 <= item < size:
                    # some families say -1 for none
                    severity = "warning" if item == -1 else "error"
                    message = f"{key} is {item}, and the vocabulary has {size} tokens"
                    yield _finding("token-id", severity, message, "copy the value of the base model", name)


def _finding(rule: str, severity: str, message: str, hint: str, where: str = CONFIG) -> Finding:
    return Finding(rule=rule, severity=severity, message=message, hint=hint, where=where)
