"""LoRA adapters into their base model: one Hugging Face model out, tensor by tensor, from wherever to wherever.

``accurate`` computes in 32 bits and rounds once, to the precision of the base, bit for bit what PEFT's
``PeftModel.from_pretrained(base, adapter).merge_and_unload()`` gives; ``peft`` does what ``AutoPeftModelForCausalLM``
does with the base's dtype and ``low_cpu_mem_usage``, as many guides load it: the adapter is rounded to that precision
first.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from cloudtune import __version__
from cloudtune.errors import MissingExtra, UsageError
from cloudtune.ranges import LooseReader
from cloudtune.uri import absolute, join, shown
from cloudtune.weights.files.assembly import Output, Progress, Span
from cloudtune.weights.files.base import base_at
from cloudtune.weights.files.companions import companions_of, model_card
from cloudtune.weights.files.model import ADAPTER_CONFIG, CONFIG, INDEX, Folder, open_weights
from cloudtune.weights.files.modelfiles import files_of
from cloudtune.weights.files.records import RECORD, record_text
from cloudtune.weights.merge import factors
from cloudtune.weights.merge.adapters import Adapter, adapter_at, tensors_of
from cloudtune.weights.merge.dialects import PLACES, older_config, older_tokenizer
from cloudtune.weights.merge.gathering import Given
from cloudtune.weights.merge.merged import merged
from cloudtune.weights.merge.modules import Base
from cloudtune.weights.target import open_target

try:
    import numpy as np
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise MissingExtra("weights", "merging") from error

MODES = ("accurate", "peft")
_CARD = "README.md"
_TOKENIZER = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
#: How names of models that were quantized for training say so.
_QUANTIZED = ("4bit", "8bit", "-awq", "-gptq", "-int4", "-int8", "bnb")


@attrs.frozen(kw_only=True)
class MergeResult:
    """A merged model: where it is, what it was made of, and what each of its files must hash to (sha256).

    ``notes`` say what should be known of it.
    """

    path: str
    name: str
    base: str
    adapters: tuple[str, ...]
    mode: str
    weights: tuple[float, ...] = ()
    run: str | None = None
    metrics: Mapping[str, Any] = attrs.field(factory=dict)
    notes: tuple[str, ...] = ()
    checksums: Mapping[str, str] = attrs.field(factory=dict)


def merge(
    base: str,
    adapters: Sequence[str],
    output: str,
    *,
    mode: str = "accurate",
    name: str | None = None,
    weights: Sequence[float] = (),
    target: str | None = None,
    checksums: bool = True,
    progress: Progress | None = None,
) -> MergeResult:
    """Merge adapters into their base and write the model with all that belongs to it.

    ``base`` is a folder, a URI or a name on the Hub; adapters and output are folders or URIs. Of several adapters the
    sum is added, each multiplied by its weight (1 if no ``weights`` are given), and rounded once. The output is there
    whole or not at all, and goes on where it was interrupted; ``cloudtune.json`` in it says what it was made of.
    ``target`` is the place that it is to go to, for which configs are written in an older form. ``checksums`` says
    whether every file's SHA-256 is computed for the record.

    Raises:
        UsageError: there is no adapter, or it does not fit the base; nothing has been written then.
    """
    given = _weights(mode, adapters, weights)
    if target is not None and target not in PLACES:
        raise UsageError(f"there is no place {target!r} to write a model for", hint=f"places: {', '.join(PLACES)}")
    with ExitStack() as opened:
        found = [adapter_at(uri) for uri in adapters]
        folder = base_at(base)
        model = Base(weights=opened.enter_context(open_weights(folder)), config=_config(folder), source=shown(base))
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="cloudtune-merge-")))
        opened.callback(factors.forget)
        parts = [
            Given(
                adapter=adapter,
                tensors=tensors_of(adapter, opened, scratch / str(number)),
                weight=weight,
                rounded=mode == "peft",
            )
            for number, (adapter, weight) in enumerate(zip(found, given, strict=True))
        ]
        made = merged(model, parts)
        texts, companions = _beside(folder, found, untied=made.untied, place=target)
        record = _record(base, found, given, mode=mode, name=name, place=target)
        inputs = (folder, *(adapter.folder for adapter in found))
        record["inputs"] = {shown(one.uri): _fingerprint(one) for one in inputs}
        key = _key(folder, found, record, texts)
        # a thread multiplies alone: the others have tensors of their own
        with threadpool_limits(1, user_api="blas"), open_target(output, key) as place:
            files = files_of(made.tensors, like=made.like)
            place.expect([INDEX, *texts, _CARD, RECORD, *(one.name for one in (*files.outputs, *companions))])
            place.write((*files.outputs, *companions), progress)
            if files.index is not None:
                place.put(INDEX, files.index)
            for file, text in texts.items():
                place.put(file, text)
            sums = place.checksums() if checksums else {}
            card = model_card(record, sums).encode()
            place.put(_CARD, card)
            sums |= {_CARD: hashlib.sha256(card).hexdigest()} if checksums else {}
            record["checksums"] = dict(sorted(sums.items()))
            place.put(RECORD, record_text(record))
    return result_of(record, output)


def result_of(record: Mapping[str, Any], output: str) -> MergeResult:
    """Return the result of a merge by what is kept with the model."""
    return MergeResult(
        path=absolute(output),
        name=record["name"],
        base=record["base"],
        adapters=tuple(record["adapters"]),
        mode=record["mode"],
        weights=tuple(record["weights"]),
        run=record["run"],
        metrics=record["metrics"],
        notes=tuple(record["notes"]),
        checksums=record["checksums"],
    )


def _weights(mode: str, adapters: Sequence[str], weights: Sequence[float]) -> list[float]:
    """Return the weight of each adapter; raises UsageError if what is asked for cannot be."""
    if mode not in MODES:
        raise UsageError(f"there is no mode {mode!r} to merge in", hint=f"modes: {', '.join(MODES)}")
    if not adapters:
        raise UsageError("there is no adapter to merge", hint="cloudtune merge BASE ADAPTER -o DIR")
    if mode == "peft" and len(adapters) > 1:
        raise UsageError("mode peft merges one adapter", hint="--mode accurate merges several")
    if weights and len(weights) != len(adapters):
        hint = "give a weight for each adapter, in their order, or none at all"
        raise UsageError(f"there are {len(adapters)} adapters and {len(weights)} weights", hint=hint)
    if not all(math.isfinite(weight) for weight in weights):
        raise UsageError(f"the weights {', '.join(map(str, weights))} are not all numbers", hint="such as --weight 0.5")
    return [float(weight) for weight in weights] or [1.0] * len(adapters)


def _config(folder: Folder) -> dict[str, Any]:
    config = folder.json(CONFIG)
    if config.get("quantization_config"):
        hint = "name the model in 16 bits that it was quantized from; an adapter of QLoRA fits it too"
        raise UsageError(
            f"{folder.shown()} is quantized, and an adapter cannot be merged into it without loss", hint=hint
        )
    return config


def _beside(
    folder: Folder, adapters: Sequence[Adapter], *, untied: bool, place: str | None
) -> tuple[dict[str, bytes], tuple[Output, ...]]:
    """Return what lies beside the tensors: texts that are written anew, and files that travel along."""
    sources = dict.fromkeys(companions_of(folder.files), folder)
    for adapter in adapters:
        sources |= dict.fromkeys(companions_of(adapter.folder.files, tokenizer_only=True), adapter.folder)
    config = _untied(folder) if untied else folder.json(CONFIG)
    texts = {CONFIG: record_text(config) if untied else folder.read(CONFIG)}
    if place is not None:
        texts[CONFIG] = record_text(older_config(config, place))
        if _TOKENIZER in sources:
            template = sources[_TEMPLATE].read(_TEMPLATE).decode() if _TEMPLATE in sources else None
            texts[_TOKENIZER] = record_text(older_tokenizer(sources[_TOKENIZER].json(_TOKENIZER), template))
    outputs = (_output(sources[name], name) for name in sorted(sources.keys() - texts.keys()))
    return texts, tuple(outputs)


def _output(folder: Folder, name: str) -> Output:
    """Return a file of a folder as it is."""
    reader = LooseReader(join(folder.uri, name), folder.files[name])
    return Output(name=name, pieces=(Span(reader=reader, offset=0, length=reader.size),))


def _untied(folder: Folder) -> dict[str, Any]:
    """Return the base's config, but for its embeddings, which are two tensors now."""
    config = folder.json(CONFIG)
    config["tie_word_embeddings"] = False
    text = config.get("text_config")
    if isinstance(text, dict) and "tie_word_embeddings" in text:
        text["tie_word_embeddings"] = False
    return config


def _key(folder: Folder, adapters: Sequence[Adapter], record: Mapping[str, Any], texts: Mapping[str, bytes]) -> str:
    """Return what names this very model: what it is made of, and how."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for text in texts.values():
        digest.update(text)
    for place in (folder, *(adapter.folder for adapter in adapters)):
        digest.update(place.state(place.files).encode())
    return digest.hexdigest()[:16]


def _fingerprint(folder: Folder) -> str:
    """Return a SHA-256 of a folder's configs and of the names and sizes of its tensors' files."""
    files = {name: size for name, size in folder.files.items() if name.endswith((".safetensors", ".bin"))}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode())
    for name in (CONFIG, ADAPTER_CONFIG, INDEX):
        if name in folder:
            digest.update(folder.read(name))
    return digest.hexdigest()


def _record(
    base: str,
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    *,
    mode: str,
    name: str | None,
    place: str | None,
) -> dict[str, Any]:
    """Return what is kept with a merged model."""
    first = adapters[0]
    return {
        "kind": "merged model",
        "name": name or f"{shown(base).rstrip('/').rpartition('/')[2]}-merged",
        "base": shown(base),
        "adapters": [shown(adapter.source) for adapter in adapters],
        "weights": list(weights),
        "mode": mode,
        "target": place,
        "trained_on": [adapter.trained_on for adapter in adapters],
        "run": first.training.get("run"),
        "method": first.training.get("method"),
        "metrics": dict(first.metrics),
        "notes": [note for adapter in adapters for note in _notes(adapter, base)],
        "versions": {"cloudtune": __version__, "numpy": np.__version__},
    }


def _notes(adapter: Adapter, base: str) -> Iterator[str]:
    """Yield what should be known of an adapter that was trained on another form of its base."""
    trained_on = adapter.trained_on or ""
    if adapter.training.get("method") == "qlora" or any(mark in trained_on.lower() for mark in _QUANTIZED):
        yield (
            f"{adapter.source} was trained on {trained_on or 'its base'} in 4 or 8 bits, and merged into {shown(base)} "
            "as it is stored; the two differ by what quantization loses"
        )
