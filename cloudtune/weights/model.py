"""A model or adapter where it lies, in a folder or at any URI: its JSON files, and its tensors by name.

Opening reads headers only; bytes of tensors are read by ranges, when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import attrs

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.ranges import Reader
from cloudtune.uri import join, shown
from cloudtune.weights.safetensors import Header, Tensor, read_header

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
#: JSON files of models are small; a larger one is something else.
_MAX_JSON_BYTES = 256 << 20


@attrs.frozen(kw_only=True)
class Folder:
    """The files at a URI: their bytes by path; read-only."""

    uri: str
    files: Mapping[str, int]

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def open(self, name: str) -> Reader:
        """Return a file's bytes by ranges; the caller closes it."""
        return Reader(join(self.uri, name), self.files.get(name))

    def read(self, name: str) -> bytes:
        """Return all bytes of a small file."""
        with self.open(name) as reader:
            if reader.size > _MAX_JSON_BYTES:
                raise UsageError(f"{self.shown(name)} has {reader.size} bytes", hint="that is no file of a model")
            return reader.read(0, reader.size)

    def json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file; raises UsageError if it is none."""
        try:
            value = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.shown(name)} cannot be read: {error}", hint="copy it again") from error
        if not isinstance(value, dict):
            raise UsageError(f"{self.shown(name)} holds no JSON object", hint="copy it again")
        return value

    def shown(self, name: str = "") -> str:
        """Return the place of a file for messages."""
        return shown(join(self.uri, name))


@attrs.frozen(kw_only=True)
class Shard:
    """An open safetensors file of a model."""

    name: str
    reader: Reader
    header: Header


@attrs.frozen(kw_only=True)
class Weights:
    """The tensors of a model by name, each with the open file it is in; a context that closes the files."""

    shards: tuple[Shard, ...]
    places: Mapping[str, Shard]

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def tensor(self, name: str) -> Tensor:
        """Return what is known of a tensor; raises KeyError."""
        return self.places[name].header.tensors[name]

    def read(self, name: str) -> bytes:
        """Return all bytes of a tensor."""
        tensor = self.tensor(name)
        return self.places[name].reader.read(tensor.offset, tensor.length)

    def close(self) -> None:
        """Close the files."""
        for shard in self.shards:
            shard.reader.close()

    def __enter__(self) -> Weights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def folder_at(uri: str) -> Folder:
    """Return the files below a URI; empty for a place where nothing is."""
    return Folder(uri=uri, files={entry.path: entry.bytes for entry in storage.listing(uri) if entry.path})


def shard_names(folder: Folder, *, single: str = SINGLE) -> tuple[str, ...]:
    """Return the names of the safetensors files of a model: those of the index, else the single file.

    Raises:
        UsageError: a file that the index names is missing, or there are no weights in safetensors.
    """
    index = f"{single}.index.json"
    if index in folder:
        table = folder.json(index).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
            raise UsageError(f"{folder.shown(index)} has no weight_map", hint="copy it again")
        names = tuple(sorted(set(table.values())))
        missing = [name for name in names if name not in folder or "/" in name]
        if missing:
            hint = "copy the whole folder"
            raise UsageError(f"{folder.shown(index)} names {missing[0]}, which is not there", hint=hint)
        return names
    if single in folder:
        return (single,)
    raise UsageError(f"{folder.shown()} has no {single} and no {index}", hint=_instead(folder))


def open_weights(folder: Folder, *, single: str = SINGLE) -> Weights:
    """Open the tensors of a model, or with ``single="adapter_model.safetensors"`` of an adapter.

    Raises:
        UsageError: a file is missing, cut off or damaged, or index and files contradict each other.
    """
    names = shard_names(folder, single=single)
    with ExitStack() as opened:
        shards: list[Shard] = []
        places: dict[str, Shard] = {}
        for name in names:
            reader = opened.enter_context(folder.open(name))
            shard = Shard(name=name, reader=reader, header=read_header(reader.read, reader.size, folder.shown(name)))
            shards.append(shard)
            for tensor in shard.header.tensors:
                if tensor in places:
                    hint = "one of the two files is from another model"
                    raise UsageError(f"{tensor} is in {places[tensor].name} and in {name}", hint=hint)
                places[tensor] = shard
        index = f"{single}.index.json"
        if index in folder:
            _check_index(folder.json(index)["weight_map"], places, folder.shown(index))
        opened.pop_all()
    return Weights(shards=tuple(shards), places=places)


def _check_index(table: Mapping[str, str], places: Mapping[str, Shard], index: str) -> None:
    for tensor, name in table.items():
        if tensor not in places or places[tensor].name != name:
            raise UsageError(f"{index} says that {tensor} is in {name}, and it is not", hint="copy the whole folder")
    extra = next((tensor for tensor in places if tensor not in table), None)
    if extra is not None:
        raise UsageError(f"{extra} is in {places[extra].name}, and not in {index}", hint="copy the whole folder")


def _instead(folder: Folder) -> str:
    """Return what to do about a folder without safetensors, by what is in it."""
    if any(name.endswith((".distcp", ".metadata")) for name in folder.files):
        return "it is a sharded checkpoint: make one model of it first, cloudtune consolidate"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in folder.files):
        return "its weights are pickles; load and save the model with transformers once, which writes safetensors"
    below = sorted(name.rpartition("/")[0] for name in folder.files if name.endswith(("/config.json", f"/{SINGLE}")))
    return f"a model is in {folder.shown(below[0])}" if below else "name the folder of a model"
