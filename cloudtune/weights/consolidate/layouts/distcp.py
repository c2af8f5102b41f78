"""PyTorch distributed checkpoints (``.metadata`` and ``*.distcp``), read without torch.

``.metadata`` is a pickle of ``torch.distributed.checkpoint.metadata.Metadata``: for every tensor its chunks, and for
every chunk the file and range where a file of ``torch.save`` with that chunk lies. Rank 0 writes it last.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.ranges import LooseReader, Reader
from cloudtune.uri import join
from cloudtune.weights.consolidate.tiles import Tile, pieces_of
from cloudtune.weights.files import pickles
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.pickles import MAX_PICKLE_BYTES, Stand, members, stands
from cloudtune.weights.files.safetensors import size_bytes
from cloudtune.weights.files.torchfiles import EDGE_BYTES, STATE, Known, TorchTensor, dtype_of, naturals, read_torch
from cloudtune.weights.target.writing import Meter, run_all

METADATA = ".metadata"
SUFFIX = ".distcp"
_DCP = "torch.distributed.checkpoint"
#: Names that metadata is made of, those of earlier releases of torch and Python included.
_ALLOWED = {
    **STATE,
    **stands(
        *(
            f"{_DCP}.metadata.{name}"
            for name in (
                "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "MetadataIndex",
                "TensorProperties", "StorageMeta",
            )
        ),
        f"{_DCP}.filesystem._StorageInfo",
        "torch.distributed._shard.sharded_tensor.metadata.TensorProperties",
        *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    ),
    **members(
        f"{_DCP}.metadata._MEM_FORMAT_ENCODING", "torch.distributed._shard.sharded_tensor.metadata.MEM_FORMAT_ENCODING"
    ),
}  # fmt: skip
#: Ranges of a store that are closer than this are asked for as one.
_GAP_BYTES = 128 << 10
_REQUESTS = 16
#: Bytes of such ranges that are kept at a time.
_BATCH_BYTES = 4 << 20


@attrs.frozen(kw_only=True, slots=True)
class Chunk:
    """A box of a tensor, and the range of a file where it was saved."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    offset: int
    length: int


@attrs.frozen(kw_only=True, slots=True)
class Item:
    """A tensor of a checkpoint; ``path`` are its keys in the nested dict that was saved, outermost first."""

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


def read_metadata(folder: Folder, place: str) -> tuple[dict[str, Item], tuple[str, ...]]:
    """Return the tensors of the checkpoint in a folder below another one, and the names of whatever is no tensor.

    Raises:
        UsageError: the metadata is damaged or hostile, or names files that are not there.
    """
    name = f"{place}{METADATA}"
    shown = folder.shown(name)
    with folder.open(name) as reader:
        if reader.size > MAX_PICKLE_BYTES:
            raise UsageError(f"{shown} has {reader.size} bytes", hint="no checkpoint has so many: check the file")
        value = pickles.load(reader.read(0, reader.size), _ALLOWED, name=shown)
    try:
        items, others = _items(value)
        _check_files(items.values(), folder, place)
    except ValueError as error:
        hint = (
            "copy the checkpoint again, all files of it; those of other nodes are in node-K/ beside it, unless the job "
        )
        hint += "says outputLayout: shared"
        raise UsageError(f"{shown} does not describe a whole checkpoint: {error}", hint=hint) from error
    return items, others


def open_parts(folder: Folder, place: str, items: Mapping[str, Item], opened: ExitStack) -> dict[str, Part]:
    """Return tensors as pieces of the files of a checkpoint, which are closed when ``opened`` ends.

    Raises:
        UsageError: a chunk is damaged or not what the metadata says, or chunks overlap or leave a gap.
    """
    chunks: dict[str, list[tuple[str, Chunk]]] = {}
    for name, item in items.items():
        for chunk in item.chunks:
            chunks.setdefault(chunk.file, []).append((name, chunk))
    tiles: dict[str, list[Tile]] = {name: [] for name in items}
    known: Known = {}
    for file in sorted(chunks):
        reader = opened.enter_context(LooseReader(join(folder.uri, place, file), folder.files[place + file]))
        for name, chunk, near in _with_edges(reader, chunks[file]):
            with _telling(name, folder.shown(place)):
                shown = f"{folder.shown(place)}/{file} at {chunk.offset}"
                tensor = read_torch(near, offset=chunk.offset, length=chunk.length, name=shown, known=known)
                tiles[name].append(_tile(tensor, items[name], chunk, reader))
    parts = {}
    for name, item in items.items():
        with _telling(name, folder.shown(place)):
            pieces = pieces_of(item.shape, size_bytes(item.dtype, (1,)), tiles[name])
            parts[name] = Part(dtype=item.dtype, shape=item.shape, pieces=pieces)
    return parts


@contextmanager
def _telling(name: str, shown: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{name} in {shown}: {error}", hint="copy the checkpoint again, all files of it") from error


def _tile(tensor: Any, item: Item, chunk: Chunk, reader: Reader) -> Tile:
    if type(tensor) is not TorchTensor or (tensor.dtype, tensor.shape) != (item.dtype, chunk.sizes):
        raise ValueError(f"the part at {[*chunk.offsets]} is no {item.dtype} tensor {[*chunk.sizes]}")
    return Tile(offsets=chunk.offsets, sizes=chunk.sizes, reader=reader, offset=tensor.span().offset)


# --- metadata


def _items(value: Any) -> tuple[dict[str, Item], tuple[str, ...]]:
    kinds, places = _mapping(value, "Metadata", "state_dict_metadata"), _mapping(value, "Metadata", "storage_data")
    stored = _stored(places)
    paths = value.get("planner_data")
    items: dict[str, Item] = {}
    others: list[str] = []
    for name, kind in kinds.items():
        if type(name) is not str:
            raise ValueError("it has a tensor without a name")
        if _is(kind, "TensorStorageMetadata"):
            items[name] = _item(name, kind, stored, _path(paths, name))
        elif _is(kind, "BytesStorageMetadata"):
            others.append(name)
        else:
            raise ValueError(f"it does not say what {name} is")
    return items, tuple(others)


def _item(name: str, kind: Stand, stored: Mapping[Any, tuple[str, int, int]], path: tuple[str, ...]) -> Item:
    properties = kind.get("properties")
    state = properties.state if _is(properties, "TensorProperties") else None
    # a tuple, whose first value is the type; a dict in releases before 2.0
    dtype = state.get("dtype") if type(state) is dict else state[0] if type(state) is tuple and state else None
    shape, listed = naturals(kind.get("size")), kind.get("chunks")
    if type(listed) is not list:
        raise ValueError(f"it does not say where {name} is")
    chunks: dict[tuple[int, ...], Chunk] = {}
    for one in listed:
        if not _is(one, "ChunkStorageMetadata"):
            raise ValueError(f"it does not say where {name} is")
        offsets, sizes = naturals(one.get("offsets")), naturals(one.get("sizes"))
        if not math.prod(sizes):
            continue  # ranks that got no rows
        if (name, offsets) not in stored:
            raise ValueError(f"the part of {name} at {[*offsets]} is in no file")
        file, offset, length = stored[name, offsets]
        chunk = Chunk(offsets=offsets, sizes=sizes, file=file, offset=offset, length=length)
        if chunks.setdefault(offsets, chunk) != chunk:
            raise ValueError(f"it has two parts of {name} at {[*offsets]}")
    try:
        known = dtype_of(dtype)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return Item(path=path, dtype=known, shape=shape, chunks=(*chunks.values(),))


def _stored(places: Mapping[Any, Any]) -> dict[tuple[str, tuple[int, ...]], tuple[str, int, int]]:
    """Return the file, offset and length of every chunk, by the tensor's name and the chunk's corner."""
    found = {}
    for index, info in places.items():
        if not _is(index, "MetadataIndex") or not _is(info, "_StorageInfo"):
            raise ValueError("it does not say what is in its files")
        offset = index.get("offset")
        if offset is None:
            continue  # no tensor
        if info.get("transform_descriptors"):
            raise ValueError("its files are compressed by an extension of the one who saved it; save it without")
        begin, length, file = info.get("offset"), info.get("length"), info.get("relative_path")
        naturals((begin, length))
        name = index.get("fqn")
        if type(name) is not str or type(file) is not str:
            raise ValueError("it does not say what is in its files")
        found[name, naturals(offset)] = (file, begin, length)
    return found


def _path(paths: Any, name: str) -> tuple[str, ...]:
    """Return the keys by which a tensor was reached in what was saved; its name where that is not known."""
    path = paths.get(name) if type(paths) is dict else None
    if type(path) is tuple and path and all(type(key) in {str, int} for key in path):
        return (*map(str, path),)
    return (name,)


def _is(value: Any, kind: str) -> bool:
    return type(value) is Stand and value.kind.rpartition(".")[2] == kind


def _mapping(value: Any, kind: str, name: str) -> dict[Any, Any]:
    found = value.get(name) if _is(value, kind) else None
    if type(found) is not dict:
        raise ValueError(f"it has no {name}")
    return found


def _check_files(items: Iterable[Item], folder: Folder, place: str) -> None:
    for chunk in (chunk for item in items for chunk in item.chunks):
        size = folder.files.get(place + chunk.file)
        if size is None:
            raise ValueError(f"{chunk.file[:200]} is not there")
        if chunk.offset + chunk.length > size:
            raise ValueError(f"{chunk.file} is cut off: it has {size} bytes, and {chunk.offset + chunk.length} are due")


# --- edges


class _Near(Reader):
    """A file of which some ranges are here already."""

    def __init__(self, reader: Reader, ranges: Mapping[int, bytes]) -> None:
        self.reader, self.uri, self.size = reader, reader.uri, reader.size
        self.ranges, self.starts = ranges, sorted(ranges)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes, from what is here if all of them are."""
        at = bisect_right(self.starts, offset) - 1
        if at >= 0:
            start = self.starts[at]
            data = self.ranges[start][offset - start : offset - start + length]
            if len(data) == length:
                return data
        return self.reader.read(offset, length)


def _with_edges(reader: Reader, chunks: Iterable[tuple[str, Chunk]]) -> Iterator[tuple[str, Chunk, Reader]]:
    """Yield the chunks of a file with a reader that has both ends of each, fetched many at a time."""
    far = reader.fileno() is None
    for batch, ranges in _batches(sorted(chunks, key=lambda one: one[1].offset), _GAP_BYTES if far else 0):
        found: dict[int, bytes] = {}

        def fetch(begin: int, end: int, found: dict[int, bytes] = found) -> None:
            found[begin] = reader.read(begin, end - begin)

        run_all((partial(fetch, *one) for one in ranges), min(_REQUESTS, len(ranges)) if far else 1, Meter(0, None))
        near = _Near(reader, found)
        for name, chunk in batch:
            yield name, chunk, near


def _batches(
    chunks: Iterable[tuple[str, Chunk]], gap: int
) -> Iterator[tuple[list[tuple[str, Chunk]], list[tuple[int, int]]]]:
    """Yield chunks, in the order in which they lie, with the ranges of their ends; what is near is one range."""
    batch: list[tuple[str, Chunk]] = []
    ranges: list[tuple[int, int]] = []
    size = 0
    for name, chunk in chunks:
        end = chunk.offset + chunk.length
        for first, last in ((chunk.offset, chunk.offset + EDGE_BYTES), (end - EDGE_BYTES, end)):
            begin, stop = max(chunk.offset, first), min(end, last)
            if ranges and begin <= ranges[-1][1] + gap:
                begin, before = ranges.pop()
                stop = max(before, stop)
                size -= before - begin
            ranges.append((begin, stop))
            size += stop - begin
        batch.append((name, chunk))
        if size > _BATCH_BYTES:
            yield batch, ranges
            batch, ranges, size = [], [], 0
    if batch:
        yield batch, ranges
