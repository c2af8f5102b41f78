"""Rules of places about the config and the tokenizer's config: architectures, versions, context, quantization."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cloudtune.weights.checks.subject import Subject, natural
from cloudtune.weights.files.filenames import CONFIG, TOKENIZER_CONFIG

Told = tuple[str, str, str]
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?")


def _architectures(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Classes of models that are taken."""
    name = subject.architecture
    if name is not None and name not in values["allowed"]:
        yield f"{name} is not among the architectures that are known to be taken", values["hint"], CONFIG


def _remarks(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """What holds for some architectures."""
    said = values.get(subject.architecture or "")
    if said is not None:
        yield said, "nothing is wrong with the model", CONFIG


def _quantization(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Methods of quantization that are taken."""
    config = subject.config.get("quantization_config")
    method = config.get("quant_method") if isinstance(config, dict) else None
    except_for = subject.architecture in values.get("except", ())
    if isinstance(config, dict) and not except_for and method not in values["methods"]:
        hint = "merge the adapter into the base in 16 bits: cloudtune merge BASE ADAPTER"
        taken = f"only {', '.join(values['methods'])}" if values["methods"] else "no quantized model"
        yield f"the model is quantized ({method}), and {taken} is taken", hint, CONFIG


def _context(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """``from`` tokens of context on."""
    context = natural(subject.text_config.get("max_position_embeddings"))
    if context is not None and context >= values["from"] and context < values.get("until", context + 1):
        yield f"max_position_embeddings is {context}: {values['message']}", values["hint"], CONFIG


def _version(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """The version of transformers that reads the config."""
    written = subject.config.get("transformers_version")
    match = _VERSION.match(written) if isinstance(written, str) else None
    if match and tuple(int(part or 0) for part in match.groups()) > tuple(map(int, values["version"].split("."))):
        message = f"transformers {written} wrote the config, and {values['version']} reads it there"
        hint = f"what it passes over in silence is told by itself; to be sure, save with {values['version']}"
        yield message, hint, CONFIG


def _rope(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """``rope_parameters``, which versions before 5 do not read: they take ``thetas``, the defaults of each family."""
    config = subject.text_config
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return
    theta, kind = rope.get("rope_theta"), rope.get("rope_type", "default")
    assumed = config.get("rope_theta", values["thetas"].get(subject.model_type))
    hint = "write rope_theta, and rope_scaling where there is one, beside rope_parameters"
    if theta is not None and assumed is not None and theta != assumed:
        message = f"rope_theta is {theta:g} in rope_parameters alone, and is taken for {assumed:g} there"
        yield f"{message}: the model would read positions wrongly", hint, CONFIG
    if kind != "default" and not isinstance(config.get("rope_scaling"), dict):
        yield f"the scaling of positions ({kind}) is in rope_parameters alone, and is not read there", hint, CONFIG


def _rope_override(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Values that are put in the place of a config's own, where it scales positions in this way."""
    config = subject.text_config
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) == values["rope_type"]:
            other = [f"{name} {rope[name]}" for name, value in values["set"].items() if rope.get(name, value) != value]
            if other:
                instead = ", ".join(f"{name} {value}" for name, value in values["set"].items())
                hint = "compare answers to long prompts there with answers here"
                yield f"{', '.join(other)} is replaced there by {instead}", hint, CONFIG
            return


def _dtype_key(subject: Subject, _: Mapping[str, Any]) -> Iterator[Told]:
    """``dtype``, which versions before 4.56 know as ``torch_dtype``."""
    if "dtype" in subject.config and "torch_dtype" not in subject.config:
        yield (
            "the type of the weights is in dtype alone, which is not read there",
            "write torch_dtype beside it",
            CONFIG,
        )


def _tokenizer_class(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Classes of tokenizers that are taken (``allowed``), or not (``refused``)."""
    name = subject.documents.get(TOKENIZER_CONFIG, {}).get("tokenizer_class")
    if not isinstance(name, str):
        return
    allowed = values.get("allowed")
    if name in values.get("refused", ()) or (allowed is not None and name not in allowed):
        hint = "write PreTrainedTokenizerFast, if there is a tokenizer.json; cloudtune merge --for does so"
        yield f"tokenizer_class is {name}: {values['message']}", hint, TOKENIZER_CONFIG


def _tokenizer_keys(subject: Subject, _: Mapping[str, Any]) -> Iterator[Told]:
    """A list of ``extra_special_tokens``, where versions before 5 want a mapping and end with an error."""
    if isinstance(subject.documents.get(TOKENIZER_CONFIG, {}).get("extra_special_tokens"), list):
        message = "extra_special_tokens is a list, which that version of transformers cannot read"
        yield message, "rename it to additional_special_tokens", TOKENIZER_CONFIG


def _head_dim(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Sizes of heads that the kernels are made for: multiples, up to a most."""
    config = subject.text_config
    hidden, heads = natural(config.get("hidden_size")), natural(config.get("num_attention_heads"))
    size = natural(config.get("head_dim")) or (hidden // heads if hidden and heads else None)
    if size is not None and (size % values["multiple"] or size > values["most"]):
        message = f"the heads have {size} elements; kernels are made for multiples of {values['multiple']}"
        yield f"{message} up to {values['most']}", "try it before you rely on it", CONFIG


CONFIG_RULES: Mapping[str, Callable[[Subject, Mapping[str, Any]], Iterable[Told]]] = {
    "architectures": _architectures,
    "architecture-remarks": _remarks,
    "quantization": _quantization,
    "context": _context,
    "transformers-version": _version,
    "rope-parameters": _rope,
    "rope-override": _rope_override,
    "dtype-key": _dtype_key,
    "tokenizer-class": _tokenizer_class,
    "tokenizer-keys": _tokenizer_keys,
    "head-dim": _head_dim,
}
