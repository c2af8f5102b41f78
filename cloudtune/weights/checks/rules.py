"""What the facts of a place mean to a model: a rule each, which yields what is wrong, what to do, and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cloudtune.shapes.catalogue import Shape, find, names
from cloudtune.uri import local_path, scheme_of, shown
from cloudtune.weights.checks.adapter_rules import ADAPTER_RULES
from cloudtune.weights.checks.config_rules import CONFIG_RULES
from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject
from cloudtune.weights.checks.targets import Fact, Target
from cloudtune.weights.checks.templates import templates_of

#: What is wrong, what to do about it, and the file or tensor.
Told = tuple[str, str, str]
Rule = Callable[[Subject, Mapping[str, Any]], Iterable[Told]]


def check_facts(subject: Subject, place: Target) -> list[Finding]:
    """Return what a place will have against a model."""
    return [
        Finding(
            rule=f"{place.name}-{fact.rule}",
            severity=fact.severity,
            message=message,
            hint=hint,
            where=where,
            source=fact.source,
        )
        for fact in place.facts
        for message, hint, where in _told(subject, fact)
    ]


def _told(subject: Subject, fact: Fact) -> Iterable[Told]:
    if fact.rule in ADAPTER_RULES:
        return ADAPTER_RULES[fact.rule](subject, fact.values) if subject.adapter else ()
    if fact.rule in CONFIG_RULES:
        return () if subject.adapter else CONFIG_RULES[fact.rule](subject, fact.values)
    return () if subject.adapter and fact.rule not in _FOR_BOTH else RULES[fact.rule](subject, fact.values)


def _files(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Names that must be there: ``all``, and of each list in ``any`` one."""
    for name in values.get("all", ()):
        yield from _absent(subject, [name])
    for some in values.get("any", ()):
        yield from _absent(subject, some)


def _absent(subject: Subject, some: Sequence[str]) -> Iterator[Told]:
    if not any(name in subject.folder for name in some):
        yield f"there is no {' and no '.join(some)}", "copy it from the base model", some[0]


def _formats(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Forms of weights that are taken: safetensors, gguf."""
    gguf = next((name for name in subject.folder.files if name.endswith(".gguf")), None)
    if gguf is not None and not subject.weights.shards and "gguf" not in values["allowed"]:
        hint = "convert the model that the GGUF was made of: its own safetensors"
        yield "the weights are in GGUF, which is not taken there", hint, gguf


def _size(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """``text_gb`` and ``multimodal_gb``: the weights must be smaller."""
    limit_gb = values["multimodal_gb" if subject.multimodal else "text_gb"]
    if subject.weight_bytes >= limit_gb * 1e9:
        message = f"the weights have {subject.weight_bytes / 1e9:.1f} GB, and must have less than {limit_gb}"
        yield message, "save them in 16 bits, or serve them elsewhere", ""


def _dtypes(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Types of weights that are taken, but for quantized models, which have a rule of their own."""
    if isinstance(subject.config.get("quantization_config"), dict):
        return
    for name, size in subject.dtypes.items():
        if name not in values["allowed"]:
            message = f"{size / 1e9:.3g} GB of the weights are {name}; {', '.join(values['allowed'])} are taken"
            tensor = next(one for one in subject.weights if subject.weights.tensor(one).dtype == name)
            yield message, "merge into the base in 16 bits, and save it as bfloat16", subject.place_of(tensor)


def _chat_template(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Where the chat template is looked for: the names of files, or anywhere."""
    found, wanted = templates_of(subject), values.get("where")
    if not found:
        hint = "copy the chat template of the base's instruct version; without one only plain completion works"
        yield f"there is no chat template: {values['without']}", hint, "tokenizer_config.json"
    elif wanted and not set(wanted) & set(found):
        message = f"the chat template is in {', '.join(found)} alone: {values['without']}"
        yield message, f"put it into {wanted[0]} as chat_template", next(iter(found))


def _uri(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """``scheme``, ``pattern`` and last character that the place of a model must have; local ones are still to go."""
    uri = subject.folder.uri
    if local_path(uri) is not None:
        return
    if scheme_of(uri) != values["scheme"]:
        yield f"{shown(uri)} is not in {values['scheme']}://", "copy the folder there", ""
    elif "pattern" in values and not re.fullmatch(values["pattern"], uri):
        yield f"{shown(uri)} has characters that are not taken in a URI", values["hint"], ""
    elif not uri.endswith(values.get("end", "")):
        yield f"{shown(uri)} does not end with {values['end']}", values["hint"], ""


def _root(subject: Subject, _: Mapping[str, Any]) -> Iterator[Told]:
    """Files below folders are not looked at."""
    for name in subject.folder.files:
        if "/" in name and name.endswith((".safetensors", "config.json")):
            yield "only files directly in the folder are read", "move it up, or leave it out", name


def _names(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Names of files that cannot be made there: too long, or a file's and a folder's at once."""
    for name in subject.folder.files:
        parts = name.split("/")
        if any(len(part.encode()) > values["most_bytes"] for part in parts):
            yield f"a name has more than {values['most_bytes']} bytes", "rename it", name
        clash = next((up for up in map("/".join, _heads(parts)) if up in subject.folder), None)
        if clash is not None:
            yield f"{clash} is a file and a folder at once", "rename one of them", name


def _heads(parts: list[str]) -> Iterator[list[str]]:
    return (parts[:end] for end in range(1, len(parts)))


def _machine(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """The smallest machine whose accelerators hold the weights and, for what is read and said, ``spare`` of them."""
    needed_gb = subject.weight_bytes * (1 + values["spare"]) / 1e9
    shapes = [
        shape
        for shape in (find(name, cloud=values["cloud"]) for name in names(values["cloud"]))
        if shape.accelerator in values["accelerators"] and (shape.sagemaker or values["cloud"] != "aws")
    ]
    fitting = [shape for shape in shapes if _memory_gb(shape) >= needed_gb]
    if not subject.weight_bytes:
        return
    if fitting:
        best = min(fitting, key=lambda shape: (_memory_gb(shape), shape.vcpus or 0))
        name = f"{values.get('prefix', '')}{best.name}"
        message = f"about {needed_gb:.1f} GB of accelerator memory are needed; {name} has {_memory_gb(best):g}"
        yield message, "reckon with more for many long requests at a time", ""
    else:
        hint = "quantize it, or serve it on several machines"
        yield f"about {needed_gb:.0f} GB of accelerator memory are needed, more than one machine has", hint, ""


def _memory_gb(shape: Shape) -> float:
    return shape.accelerators * (shape.accelerator_memory_gb or 0.0)


def _remark(_: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """What holds for every model."""
    yield values["message"], values["hint"], ""


RULES: Mapping[str, Rule] = {
    "files": _files,
    "formats": _formats,
    "size": _size,
    "dtypes": _dtypes,
    "chat-template": _chat_template,
    "uri": _uri,
    "root": _root,
    "names": _names,
    "machine": _machine,
    "remark": _remark,
}
_FOR_BOTH = {"uri", "names", "formats"}
