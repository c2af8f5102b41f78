"""What lies around the tensors of a merged model: its config, and the files of base and adapters that travel along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudtune.weights.files.assembly import Output
from cloudtune.weights.files.companions import as_it_is, companions_of
from cloudtune.weights.files.configs import untied
from cloudtune.weights.files.filenames import CONFIG, TEMPLATE, TOKENIZER_CONFIG
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.records import record_text
from cloudtune.weights.merge.adapters import Adapter
from cloudtune.weights.merge.dialects import older_config, older_tokenizer


def beside(
    folder: Folder, config: Mapping[str, Any], adapters: Sequence[Adapter], *, parted: bool, place: str | None
) -> tuple[dict[str, bytes], tuple[Output, ...]]:
    """Return what lies beside the tensors: texts that are written anew, and files that travel along."""
    sources = dict.fromkeys(companions_of(folder.files), folder)
    for adapter in adapters:
        sources |= dict.fromkeys(companions_of(adapter.folder.files, tokenizer_only=True), adapter.folder)
    changed = untied(config) if parted else config
    if place is not None:
        changed = older_config(changed, place)
    texts = {CONFIG: record_text(changed) if changed is not config else folder.read(CONFIG)}
    if place is not None and TOKENIZER_CONFIG in sources:
        template = sources[TEMPLATE].text(TEMPLATE) if TEMPLATE in sources else None
        tokenizer = sources[TOKENIZER_CONFIG].json(TOKENIZER_CONFIG)
        texts[TOKENIZER_CONFIG] = record_text(older_tokenizer(tokenizer, template))
    return texts, tuple(as_it_is(sources[name], name) for name in sorted(sources.keys() - texts.keys()))
