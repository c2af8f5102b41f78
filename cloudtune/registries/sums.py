"""Checksums of a model's files wherever it lies, and one for all of them, by which the same model is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from cloudtune.registries.source import Source, each
from cloudtune.storage import Entry


def sums_of(source: Source) -> dict[str, str]:
    """Return the checksums of all files; of a model that is elsewhere, those in its record are believed."""
    if source.folder is not None:
        return source.verified()

    def one(entry: Entry) -> str:
        recorded = source.recorded.get(entry.path)
        if recorded is not None:
            return recorded
        total = hashlib.sha256()
        for chunk in source.chunks(entry):
            total.update(chunk)
        return total.hexdigest()

    return each(one, source.files)


def digest_of(sums: Mapping[str, str]) -> str:
    """Return one checksum of a model's files."""
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
