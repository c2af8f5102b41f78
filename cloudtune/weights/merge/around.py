"""What lies around the tensors of a merged model: its config, and the files of base and adapters that travel along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudtune.weights.files.assembly import Output
from cloudtune.weights.files.companions import as_it_is, companions_of
from cloudtune.weights.files.filenames import CONFIG, TEMPLATE, TOKENIZER_CONFIG
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.records import record_text
from cloudtune.weights.merge.adapters import Adapter
from cloudtune.weights.merge.dialects import older_config, older_tokenizer


def beside(
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
        if TOKENIZER_CONFIG in sources:
            template = sources[TEMPLATE].text(TEMPLATE) if TEMPLATE in sources else None
            tokenizer = sources[TOKENIZER_CONFIG].json(TOKENIZER_CONFIG)
            texts[TOKENIZER_CONFIG] = record_text(older_tokenizer(tokenizer, template))
    return texts, tuple(as_it_is(sources[name], name) for name in sorted(sources.keys() - texts.keys()))


def _untied(folder: Folder) -> dict[str, Any]:
    """Return the base's config, but for its embeddings, which are two tensors now."""
    config = folder.json(CONFIG)
    config["tie_word_embeddings"] = False
    text = config.get("text_config")
    if isinstance(text, dict) and "tie_word_embeddings" in text:
        text["tie_word_embeddings"] = False
    return config
