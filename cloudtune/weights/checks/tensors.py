"""Whether the tensors are those of the model that config.json describes: their names, their shapes, their number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cloudtune.errors import UsageError
from cloudtune.memory.architecture import Architecture
from cloudtune.memory.families import architecture
from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject
from cloudtune.weights.files.expected import IMPOSSIBLE, Layout, Shape, expected_of, is_known, layout_of, oversized
from cloudtune.weights.files.filenames import CONFIG, INDEX

#: What wraps names while a model is trained, and is to be taken off before it is saved.
_WRAPPED = re.compile(
    r"^base_model\.model\.|^_orig_mod\.|^module\.|\._orig_mod\.|\._fsdp_wrapped_module\.|\._checkpoint_wrapped_module\."
    r"|\.base_layer\.|\.lora_[AB]\.|\.lora_embedding_[AB]|\.modules_to_save\.|\.original_module\."
)
#: Tensors that programs compute anew: old checkpoints hold them, and nobody reads them.
_BUFFERS = re.compile(
    r"(^|\.)(rotary_emb\.(inv_freq|cos_cached|sin_cached)|attn\.(masked_)?bias|attention\.(masked_)?bias)$"
)


def check_tensors(subject: Subject) -> Iterator[Finding]:
    """Yield tensors that are missing, superfluous or of another shape than the config says."""
    if subject.adapter:
        return
    wrapped = [name for name in subject.weights if _WRAPPED.search(name)]
    for name in wrapped:
        hint = "save the unwrapped model; one with an adapter in it is merged first: merge_and_unload, then save"
        message = "the tensor is named as it was while training: no server will find it"
        yield _finding("tensor-wrapped", "error", message, hint, subject.place_of(name))
    if wrapped or CONFIG not in subject.documents or subject.model_type is None or not subject.weights.shards:
        return
    yield from _compared(subject)


def _compared(subject: Subject) -> Iterator[Finding]:
    said = oversized(subject.config)
    if said is not None:
        yield _finding("config-size", "error", f"{said}, which no model has", "copy config.json from the base model")
        return
    if not is_known(subject.config):
        message = f"names and shapes of tensors are not known for models of the type {subject.model_type}"
        hint = "--load compares them with those that transformers builds"
        yield _finding("tensors-unchecked", "note", message, hint)
        return
    try:
        built = architecture(subject.config)
    except UsageError as error:
        hint = error.hint or "copy config.json from the base model"
        yield _finding("config-incomplete", "error", error.message, hint)
        return
    except IMPOSSIBLE as error:
        message = f"config.json holds what no {subject.model_type} model has: {error}"
        yield _finding("config-incomplete", "error", message, "copy it from the base model")
        return
    layout = layout_of(built, subject.config)
    if isinstance(subject.config.get("quantization_config"), dict):
        return
    if layout is None:
        yield from _counted(subject, built)
        return
    yield from _against(subject, built, layout)


def _counted(subject: Subject, built: Architecture) -> Iterator[Finding]:
    """Compare the number of parameters of a family whose names are not known here."""
    if built.parameters != subject.parameters and not subject.flaws:
        message = f"config.json describes {built.parameters} parameters, and the files have {subject.parameters}"
        hint = "--load tells which tensors differ"
        yield _finding("parameters", "warning", message, hint)


def _against(subject: Subject, built: Architecture, layout: Layout) -> Iterator[Finding]:
    expected = expected_of(built, layout, subject.config, subject.weights.places)
    yield from _missing(subject, expected, layout)
    head = f"{layout.head}.weight"
    for name in subject.weights:
        shape = subject.weights.tensor(name).shape
        if name not in expected:
            if not _BUFFERS.search(name) and not (name == head and built.tied):
                message = "the model that config.json describes has no such tensor"
                hint = "copy config.json from the base model; if it is right, the tensor is left over: leave it out"
                yield _finding("tensor-unknown", "warning", message, hint, subject.place_of(name))
        elif shape != expected[name]:
            message = f"the shape is {list(shape)}, and must be {list(expected[name])} by config.json"
            hint = "weights and config.json are of different models: copy both from the same one"
            yield _finding("tensor-shape", "error", message, hint, subject.place_of(name))
    if built.tied and head in subject.weights:
        message = f"{head} is there, and config.json says that the embedding takes its place: it will not be read"
        hint = "write tie_word_embeddings false, if it was trained or merged; else leave it out"
        yield _finding("head-tied", "warning", message, hint, subject.place_of(head))


def _missing(subject: Subject, expected: Mapping[str, Shape], layout: Layout) -> Iterator[Finding]:
    # what a shard held that is missing or cut off is told with the shard
    table = subject.documents.get(INDEX, {}).get("weight_map")
    holes = any(flaw.kind in {"missing", "header"} for flaw in subject.flaws)
    for name in expected:
        if name in subject.weights or (holes and (not isinstance(table, dict) or name in table)):
            continue
        message = "the model that config.json describes needs this tensor, and it is in no file"
        hint = "copy the whole folder; if it is whole, config.json is another model's"
        if name == f"{layout.head}.weight":
            message = f"{name} is in no file, and config.json does not say that the embedding takes its place"
            hint = "write tie_word_embeddings true, if the base model has it so; else copy the missing file"
        yield _finding("tensor-missing", "error", message, hint, name)


def _finding(rule: str, severity: str, message: str, hint: str, where: str = CONFIG) -> Finding:
    return Finding(rule=rule, severity=severity, message=message, hint=hint, where=where)
