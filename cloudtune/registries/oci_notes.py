"""What the model catalog of OCI is told about a model: where it came from, what it is, what its files hash to.

The catalog takes 255 characters a value and 32,000 bytes in all (as Oracle ADS 2.16.1 has it,
``ads/model/model_metadata.py``). What does not fit is left out: the whole record lies beside the model's files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune import ranges, storage
from cloudtune.errors import CloudtuneError, RunNotFound
from cloudtune.registries.oci_catalog import STAGED
from cloudtune.registries.source import RECORD, Source
from cloudtune.registries.sums import digest_of
from cloudtune.spec.document import load
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtime import Runtime
from cloudtune.states import Handle
from cloudtune.store import Record, Store
from cloudtune.uri import join, shown

VALUE_CHARACTERS = 255
#: A little less than all: how the service counts is not told.
METADATA_BYTES = 30_000
_ADAPTER = "adapter_config.json"
_MOST_BYTES = 1 << 20


@attrs.frozen(kw_only=True)
class Notes:
    """What is known of a model besides its files."""

    base: str | None
    run: str | None
    metrics: Mapping[str, Any]
    rank: str | None
    method: str | None


def notes_of(source: Source) -> Notes:
    """Return what a model's folder says about it."""
    record, training = _object(source, RECORD), _object(source, "training.json")
    return Notes(
        base=source.facts["base"],
        run=source.facts["run"],
        metrics=source.facts["metrics"] or {},
        rank=_rank(source, record),
        method=record.get("method") or training.get("method"),
    )


def custom_metadata(
    notes: Notes, sums: Mapping[str, str], sizes: Mapping[str, int], place: str, *, staged: bool
) -> list[dict[str, str]]:
    """Return the catalog's free notes, the most important first, as many as fit."""
    rows = [
        *_row("base", notes.base, "Training Profile", "the model that was trained"),
        *_row("run", notes.run, "Training Profile", "the run that trained it"),
        *_row("method", notes.method, "Training Profile", "what was trained of it"),
        *_row("lora_rank", notes.rank, "Training Profile", "rank of the adapters"),
        *_row("checksums", digest_of(sums), "Other", "SHA-256 of the list of all files' SHA-256"),
        *_row("source", shown(place), "Other", "where the files are, or were"),
        *_row(STAGED, "true" if staged else None, "Other", "the files are there for this entry's sake"),
    ]
    for name, value in notes.metrics.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            rows += _row(name, f"{value:.6g}", "Performance", "measured by the training")
    # weights first: the largest files are those that nobody can look at
    for path in sorted(sums, key=lambda name: (-sizes.get(name, 0), name)):
        rows += _row(f"sha256-{path}", sums[path], "Other", f"{sizes.get(path, 0)} bytes")
    return _fitting(rows)


def provenance(run: str | None, store: Store) -> dict[str, str]:
    """Return where a model's training came from: its code, and the run in the catalog's own cloud."""
    try:
        record = store.run(run) if run else None
    except RunNotFound:
        record = None
    if record is None:
        return {}
    return {**_code(record), **_training(record)}


def _code(record: Record) -> dict[str, str]:
    try:
        spec = load(record.spec or "")
    except CloudtuneError:  # of another release
        return {}
    runtime = spec.runtime if isinstance(spec, JobSpec) else None
    if runtime is None:
        return {}
    found = {
        "repositoryUrl": _text(runtime, "url"),
        "gitBranch": _text(runtime, "branch"),
        "gitCommit": _text(runtime, "commit"),
        "scriptDir": _text(runtime, "working_dir"),
        "trainingScript": _script(runtime),
    }
    return {key: shown(value)[:VALUE_CHARACTERS] for key, value in found.items() if value}


def _script(runtime: Runtime) -> str | None:
    for attribute in ("entrypoint", "script_path_uri", "notebook_path_uri"):
        if named := _text(runtime, attribute):
            return named
    if runtime.recipe is not None:
        return f"recipe {runtime.recipe.name}"
    command = getattr(runtime, "command", None)
    return " ".join(command) if isinstance(command, tuple) else command


def _text(runtime: Runtime, attribute: str) -> str | None:
    value = getattr(runtime, attribute, None)
    return value if isinstance(value, str) else None


def _training(record: Record) -> dict[str, str]:
    """Return the OCID of the run, if it is one of OCI's own."""
    try:
        handle = Handle.parse(record.handle or "")
    except ValueError:
        return {}
    return {"trainingId": handle.id} if handle.id.startswith("ocid1.datasciencejobrun.") else {}


def _rank(source: Source, record: Mapping[str, Any]) -> str | None:
    """Return the rank of the adapter that a model is, or of those that were merged into it."""
    adapters = record.get("adapters") or ()
    ranks = record.get("ranks") or [_rank_in(_object(source, _ADAPTER))]
    if not any(ranks) and isinstance(adapters, list):
        ranks = [_rank_in(_there(adapter)) for adapter in adapters if isinstance(adapter, str)]
    return ", ".join(str(rank) for rank in ranks if rank) or None


def _rank_in(config: Mapping[str, Any]) -> int | None:
    rank = config.get("r")
    return rank if isinstance(rank, int) else None


def _there(adapter: str) -> dict[str, Any]:
    """Return the config of an adapter at a URI; it is good to know, and not needed."""
    for below in (_ADAPTER, f"adapter/{_ADAPTER}"):
        try:
            uri = join(adapter, below)
            if storage.exists(uri):
                with ranges.Reader(uri) as reader:
                    return _parsed(reader.read(0, min(reader.size, _MOST_BYTES)))
        except (CloudtuneError, OSError):
            continue
    return {}


def _object(source: Source, name: str) -> dict[str, Any]:
    entry = next((one for one in source.files if one.path == name and one.bytes <= _MOST_BYTES), None)
    return _parsed(b"".join(map(bytes, source.chunks(entry)))) if entry is not None else {}


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _row(key: str, value: str | None, category: str, description: str) -> Iterator[dict[str, str]]:
    if value:
        limit = VALUE_CHARACTERS
        yield {"key": key[:limit], "value": value[:limit], "category": category, "description": description[:limit]}


def _fitting(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows up to the first that does not fit, each key once."""
    found: dict[str, dict[str, str]] = {}
    size = 0
    for row in rows:
        size += len(json.dumps(row).encode()) + 2
        if size > METADATA_BYTES:
            break
        found.setdefault(row["key"], row)
    return list(found.values())
