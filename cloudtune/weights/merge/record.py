"""What is kept with a merged model: what it was made of, for whoever reads it, and the key that names it meanwhile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloudtune import __version__
from cloudtune.errors import MissingExtra
from cloudtune.uri import absolute
from cloudtune.weights.files.configs import architecture_of, text_of
from cloudtune.weights.files.filenames import ADAPTER_CONFIG, CONFIG, INDEX
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.origins import Origin
from cloudtune.weights.files.records import key_of
from cloudtune.weights.merge.adapters import Adapter
from cloudtune.weights.merge.gathering import Given

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("weights", "merging") from error


def key_of_merge(
    folder: Folder, adapters: Sequence[Adapter], record: Mapping[str, Any], texts: Mapping[str, bytes]
) -> str:
    """Return what names this very model: what it is made of, and how."""
    places = (folder, *(adapter.folder for adapter in adapters))
    states = (fact for place in places for fact in (absolute(place.uri), place.state(place.files)))
    return key_of(json.dumps(record, sort_keys=True), *texts.values(), *states)


def _fingerprint(folder: Folder) -> str:
    """Return a SHA-256 of a folder's configs and of the names and sizes of its tensors' files."""
    files = {name: size for name, size in folder.files.items() if name.endswith((".safetensors", ".bin"))}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode())
    for name in (CONFIG, ADAPTER_CONFIG, INDEX):
        if name in folder:
            digest.update(folder.read(name))
    return digest.hexdigest()


def record_of(
    base: Origin,
    folder: Folder,
    config: Mapping[str, Any],
    given: Sequence[Given],
    *,
    mode: str,
    name: str | None,
    place: str | None,
    notes: Iterable[str],
) -> dict[str, Any]:
    """Return what is kept with a merged model, whoever reads it."""
    adapters = [one.adapter for one in given]
    first = adapters[0]
    return {
        "kind": "merged model",
        "name": name or f"{base.title.rpartition('/')[2].partition(':')[0]}-merged",
        "base": base.title,
        "base_on_hub": base.hub,
        "architecture": architecture_of(config),
        "adapters": [adapter.origin.title for adapter in adapters],
        "weights": [one.weight for one in given],
        "mode": mode,
        "target": place,
        "trained_on": [adapter.trained_on for adapter in adapters],
        "run": text_of(first.training, "run"),
        "method": text_of(first.training, "method"),
        "metrics": dict(first.metrics),
        "notes": list(notes),
        "inputs": {"base": _fingerprint(folder), "adapters": [_fingerprint(one.folder) for one in adapters]},
        "versions": {"cloudtune": __version__, "numpy": np.__version__},
    }
