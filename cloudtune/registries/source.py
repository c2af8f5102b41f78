"""A model that is to be filed, where it lies: in a folder or at any URI. Nothing is copied here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import attrs

from cloudtune import ranges, storage
from cloudtune.checksums import sha256
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.storage import Entry
from cloudtune.uri import absolute, join, local_path, shown
from cloudtune.weights.files.configs import text_of
from cloudtune.weights.files.filenames import ADAPTER_CONFIG, CONFIG, METRICS, TRAINING, UNFINISHED
from cloudtune.weights.files.filenames import RECORD as RECORD  # noqa: PLC0414 - registries know it from here
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.records import plain
from cloudtune.weights.files.safetensors import read_header

T = TypeVar("T")

#: The record that a registry leaves beside the files; never taken over from another place.
FILED = "model.json"
_CONFIGS = (CONFIG, ADAPTER_CONFIG)
_TENSORS = ".safetensors"
_WEIGHTS = (_TENSORS, ".bin")
#: What models consist of, in small letters; a list of what to leave out would publish what it does not know.
_MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json",
    "adapter_model.bin", "config.json", "*_config.json", "config_*.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "vocab*", "merges.txt", "*.model", "chat_template*", "*.jinja", "modules.json", "*.py",
    TRAINING, METRICS, RECORD, "readme*", "license*", "licence*", "notice*", "use_policy*", "*.tiktoken",
)  # fmt: skip
_LEFT_OUT = (FILED, "training_args.bin")
_INDEX = ".safetensors.index.json"
#: Where a job's outputs hold the model, if not at their root.
_PLACES = ("", "model", "adapter")
#: Files handled at a time; hashing gives up Python's lock.
_WORKERS = 4
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


@attrs.frozen(kw_only=True)
class Source:
    """A model where it lies.

    ``uri`` is the folder with the config, ``named`` what the user called it; ``files`` are those that belong to the
    model; ``recorded`` is what the record says they hash to (sha256); ``facts`` are base, run and metrics.
    """

    named: str
    uri: str
    files: tuple[Entry, ...]
    recorded: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def folder(self) -> Path | None:
        """Return the folder, None for a model that is elsewhere."""
        return local_path(self.uri)

    def chunks(self, entry: Entry) -> Iterator[bytes | memoryview]:
        """Yield a file's bytes in order; raises as reading does, and UsageError if it is not as long as it was."""
        uri = join(self.uri, entry.path)
        path, done = local_path(uri), 0
        if path is None:
            with ranges.Reader(uri, entry.bytes) as reader:
                yield from ranges.blocks(reader, 0, entry.bytes, _CHUNK_BYTES)
            return
        with storage.told("read", uri), path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                done += len(chunk)
                yield chunk
        if done != entry.bytes:
            raise UsageError(f"{path} has changed while it was read", hint="wait until the model is written")

    def check(self, path: str, sum_: str) -> None:
        """Raise UsageError if a file's checksum is not the one that the model's record has for it."""
        recorded = self.recorded.get(path)
        if recorded not in {None, sum_}:
            raise UsageError(
                f"{_folder(self.uri).shown(path)} is not the file that {RECORD} beside it records:"
                f" its sha256 is {sum_}, recorded is {recorded}",
                hint="copy or merge the model again; if the change is meant, take the file's line out of that record",
            )

    def verified(self) -> dict[str, str]:
        """Return the checksums (sha256) of all files of a model in a folder, each compared with the record."""
        folder = self.folder
        assert folder is not None

        def one(entry: Entry) -> str:
            with storage.told("read", str(folder / entry.path)):
                found = sha256(folder / entry.path)
            self.check(entry.path, found)
            return found

        return each(one, self.files)


def find(model: str | os.PathLike[str]) -> Source:
    """Return the model that a folder or URI names, which may lie in ``model/`` or ``adapter/`` below it.

    Raises:
        UsageError: there is no model, it has no weights, files are missing that it says are there, or a file of tensors
            is cut off or contradicts itself.
        ServiceError, NotAllowed: the URI cannot be read.
    """
    named = os.fspath(model)
    root = absolute(named)
    folder = local_path(root)
    place, entries = _listed_here(folder, named) if folder is not None else _listed_there(root)
    uri = join(root, place)
    whole = _folder(uri, entries)
    record = whole.json(RECORD) if RECORD in whole else {}
    recorded = _checksums_of(record, whole.shown(RECORD))
    files = tuple(entry for entry in entries if entry.path in recorded or _belongs(entry.path))
    if not any(entry.path.endswith(_WEIGHTS) for entry in files):
        if any(entry.path.endswith(".gguf") for entry in entries):
            hint = "file the model that the GGUF was made of: its own safetensors"
            raise UsageError(f"the weights are in GGUF, which no registry takes: {shown(named)}", hint=hint)
        raise UsageError(f"{shown(named)} has a config but no weights", hint="give the whole folder of the model")
    _check_names(whole, files)
    _check_whole(whole, recorded)
    each(lambda entry: _check_header(whole, entry), [entry for entry in files if entry.path.endswith(_TENSORS)])
    return Source(named=named, uri=uri, files=files, recorded=recorded, facts=_facts(whole, record))


def each(
    task: Callable[[Entry], T], entries: Sequence[Entry], stop: Callable[[], object] = lambda: None
) -> dict[str, T]:
    """Return the result of a task for every file, by path; the first error, which calls ``stop``, ends all of them."""
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        futures = {entry.path: pool.submit(task, entry) for entry in entries}
        for future in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
            future.result()
        return {path: future.result() for path, future in futures.items()}
    finally:
        stop()
        pool.shutdown(cancel_futures=True)


def _listed_here(folder: Path, named: str) -> tuple[str, tuple[Entry, ...]]:
    """Return where a model lies below a folder of this machine, and all files there."""
    with storage.told("read", str(folder)):
        for place in _PLACES:
            if any((folder / place / name).is_file() for name in _CONFIGS):
                return place, storage.listing(str(folder / place))
        if not folder.is_dir():
            raise UsageError(f"there is no folder {named}", hint="give the folder of a model, such as merge leaves")
        found = next((str(path.parent) for path in sorted(folder.glob("*/config.json"))), None)
    raise _no_model(named, found)


def _listed_there(root: str) -> tuple[str, tuple[Entry, ...]]:
    """Return where a model lies below a URI, and all files there."""
    entries = storage.listing(root)
    if not entries:
        raise UsageError(f"there is nothing at {shown(root)}", hint="check its spelling, and that you may see it")
    paths = {entry.path for entry in entries}
    for place in _PLACES:
        below = f"{place}/" if place else ""
        if any(below + name in paths for name in _CONFIGS):
            inside = [entry for entry in entries if entry.path.startswith(below)]
            return place, tuple(attrs.evolve(entry, path=entry.path[len(below) :]) for entry in inside)
    found = next((path for path in sorted(paths) if path.count("/") == 1 and path.endswith("/config.json")), None)
    raise _no_model(root, found and join(root, found.partition("/")[0]))


def _no_model(named: str, found: str | None) -> UsageError:
    hint = f"one is in {shown(found)}" if found else "give the folder of a model, such as merge leaves"
    return UsageError(f"{shown(named)} holds no model: it has no config.json", hint=hint)


def _belongs(path: str) -> bool:
    """Whether a file is part of the model; logs, states of the optimizer and whatever else is there stay behind."""
    known = any(fnmatchcase(path.lower(), pattern) for pattern in _MODEL_FILES)
    return known and "/" not in path and path[0] != "." and not path.endswith(UNFINISHED) and path not in _LEFT_OUT


def _folder(uri: str, entries: Iterable[Entry] = ()) -> Folder:
    """Return the files of a model, which messages call as people write it: by their path if they are here."""
    path = local_path(uri)
    return Folder(
        uri=uri, files={entry.path: entry.bytes for entry in entries}, named=None if path is None else str(path)
    )


def _checksums_of(record: Mapping[str, Any], place: str) -> dict[str, str]:
    """Return the checksums that a model's record holds; raises UsageError if that is not what they are."""
    found = record.get("checksums") or {}
    if not isinstance(found, dict):
        raise UsageError(f"checksums in {place} is no object", hint="copy or merge the model again")
    for path, sum_ in found.items():
        parts = path.split("/")
        if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts) or path in _LEFT_OUT:
            raise UsageError(f"{place} records {path!r}, which is no file of a model", hint="who wrote that record?")
        if not isinstance(sum_, str) or not _SHA256.fullmatch(sum_):
            raise UsageError(f"{place} has no sha256 for {path}", hint="copy or merge the model again")
    return dict(found)


def _check_names(whole: Folder, files: Iterable[Entry]) -> None:
    """Raise UsageError if a file has a name that no registry could write down."""
    for entry in files:
        if any("\ud800" <= character <= "\udfff" for character in entry.path):
            message = f"{whole.shown()} has a file whose name is no text in UTF-8: {entry.path!a}"
            raise UsageError(message, hint="rename it")


def _check_whole(whole: Folder, recorded: Mapping[str, str]) -> None:
    """Raise UsageError if a file is missing that the record, or the index of the weights, says is there."""
    wanted = dict.fromkeys(recorded, RECORD)
    for index in (path for path in whole.files if path.endswith(_INDEX) and _belongs(path)):
        shards = whole.json(index).get("weight_map")
        wanted |= {str(name): index for name in shards.values()} if isinstance(shards, dict) else {}
    for path, by in wanted.items():
        if path not in whole:
            message = f"{whole.shown(by)} names {path}, which is not there"
            raise UsageError(message, hint="give the whole folder of the model, or copy it again")


def _check_header(whole: Folder, entry: Entry) -> None:
    """Raise UsageError if a file of tensors is not as long as its header says, or the header cannot be so."""
    with whole.open(entry.path) as reader:
        read_header(reader.read, reader.size, whole.shown(entry.path))


def _facts(whole: Folder, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return base, run and metrics as merging or training left them in the folder or one folder up."""
    training, metrics = _beside(whole, TRAINING), record.get("metrics")
    base = text_of(record, "base") or text_of(training, "base")
    facts = {
        "base": shown(base) if base is not None else None,
        "run": text_of(record, "run") or text_of(training, "run"),
        "metrics": metrics if metrics and isinstance(metrics, dict) else _beside(whole, METRICS),
    }
    return plain(facts)


def _beside(whole: Folder, name: str) -> dict[str, Any]:
    """Return a JSON object of the training, also from the folder above; empty if there is none to be read."""
    path = local_path(whole.uri)
    try:
        if name in whole:
            return whole.json(name)
        if path is not None and (path.parent / name).is_file():
            return Folder(uri=absolute(path.parent), files={}).json(name)
    except (CloudtuneError, OSError):  # what it says is good to know, and not needed
        pass
    return {}
