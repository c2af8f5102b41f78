"""The tensors of a model or an adapter by name, in the safetensors files of a folder.

Opening reads headers only; bytes of tensors are read by ranges, when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType

import attrs

from cloudtune.errors import UsageError
from cloudtune.ranges import Reader
from cloudtune.uri import local_path
from cloudtune.weights.files.assembly import Span
from cloudtune.weights.files.filenames import SINGLE
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.safetensors import Header, Tensor, read_header, readable

#: Headers elsewhere are read by so many threads: most of the time is spent waiting.
_OPENERS = 8


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

    def span(self, name: str) -> Span:
        """Return where the bytes of a tensor are."""
        tensor = self.tensor(name)
        return Span(reader=self.places[name].reader, offset=tensor.offset, length=tensor.length)

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


@attrs.frozen(kw_only=True)
class Flaw:
    """One thing wrong with the files of a model; ``kind`` is one word for it, ``file`` where it shows."""

    kind: str
    message: str
    hint: str | None
    file: str
    tensor: str | None = None


def shard_names(folder: Folder, *, single: str = SINGLE) -> tuple[str, ...]:
    """Return the names of the safetensors files of a model: those of the index, else the single file.

    Raises:
        UsageError: a file that the index names is missing, or there are no weights in safetensors.
    """
    names, _, flaws = _names(folder, single)
    for flaw in flaws:
        raise UsageError(flaw.message, hint=flaw.hint)
    return names


def open_weights(folder: Folder, *, single: str = SINGLE) -> Weights:
    """Open the tensors of a model, or with ``single=ADAPTER_SINGLE`` of an adapter.

    Raises:
        UsageError: a file is missing, cut off or damaged, or index and files contradict each other.
    """
    weights, flaws = survey(folder, single=single)
    for flaw in flaws:
        weights.close()
        raise UsageError(flaw.message, hint=flaw.hint)
    return weights


def survey(folder: Folder, *, single: str = SINGLE) -> tuple[Weights, tuple[Flaw, ...]]:
    """Open what can be opened of the tensors of a model, and return with it everything that is wrong with its files.

    Where the files are not what the index or their names say, those that are there are opened.
    """
    names, table, found = _names(folder, single)
    flaws = list(found)
    shards: list[Shard] = []
    places: dict[str, Shard] = {}
    with ExitStack() as opened:
        for opening in _opening(folder, names):
            if isinstance(opening, Flaw):
                flaws.append(opening)
                continue
            shards.append(opening)
            opened.callback(opening.reader.close)
            for tensor in opening.header.tensors:
                if tensor in places:
                    message = f"{readable(tensor)} is in {places[tensor].name} and in {opening.name}"
                    hint = "one of the two files is from another model"
                    flaws.append(Flaw(kind="doubled", file=opening.name, tensor=tensor, message=message, hint=hint))
                else:
                    places[tensor] = opening
        if table is not None:
            flaws += _contradictions(table, shards, folder.shown(f"{single}.index.json"))
        opened.pop_all()
    return Weights(shards=tuple(shards), places=places), tuple(flaws)


def _opening(folder: Folder, names: Sequence[str]) -> Iterator[Shard | Flaw]:
    """Yield the open shards, several at a time where each takes its time."""
    if local_path(folder.uri) is not None or len(names) < 2:
        yield from map(partial(_open_shard, folder), names)
        return
    with ThreadPoolExecutor(_OPENERS, thread_name_prefix="headers") as pool:
        try:
            yield from pool.map(partial(_open_shard, folder), names)
        finally:
            pool.shutdown(cancel_futures=True)


def _open_shard(folder: Folder, name: str) -> Shard | Flaw:
    reader = folder.open(name)
    try:
        header = read_header(reader.read, reader.size, folder.shown(name))
    except BaseException as error:
        reader.close()
        if isinstance(error, UsageError):
            return Flaw(kind="header", file=name, message=error.message, hint=error.hint)
        raise
    return Shard(name=name, reader=reader, header=header)


def _names(folder: Folder, single: str) -> tuple[tuple[str, ...], Mapping[str, str] | None, tuple[Flaw, ...]]:
    """Return the safetensors files of a model that are there, its index if it can be read, and what is wrong."""
    index = f"{single}.index.json"
    there = tuple(sorted(name for name in folder.files if "/" not in name and name.endswith(".safetensors")))
    if index in folder:
        try:
            table = folder.json(index).get("weight_map")
        except UsageError as error:
            return there, None, (Flaw(kind="index", file=index, message=error.message, hint=error.hint),)
        if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
            message = f"{folder.shown(index)} has no weight_map"
            return there, None, (Flaw(kind="index", file=index, message=message, hint="copy it again"),)
        names = tuple(sorted(set(table.values())))
        there = tuple(name for name in names if name in folder and "/" not in name)
        flaws = tuple(
            Flaw(
                kind="missing",
                file=readable(name),
                message=f"{folder.shown(index)} names {readable(name)}, which is not there",
                hint="copy the whole folder",
            )
            for name in sorted({*names} - {*there})
        )
        if single in folder and single not in names:
            # transformers takes the one, other programs the others
            message = f"{folder.shown(single)} is there, and {index} names other files"
            flaws += (Flaw(kind="two", file=single, message=message, hint="remove the one that was left behind"),)
        return there, table, flaws
    if single in folder:
        return (single,), None, ()
    message = f"{folder.shown()} has no {single} and no {index}"
    return there, None, (Flaw(kind="weights", file=single, message=message, hint=_instead(folder)),)


def _contradictions(table: Mapping[str, str], shards: Sequence[Shard], index: str) -> Iterator[Flaw]:
    hint = "copy the whole folder"
    held = {shard.name: shard.header.tensors for shard in shards}
    for tensor, name in table.items():
        if name in held and tensor not in held[name]:
            message = f"{index} says that {readable(tensor)} is in {name}, and it is not"
            yield Flaw(kind="misplaced", file=name, tensor=tensor, message=message, hint=hint)
    for name, tensors in held.items():
        for tensor in tensors:
            if tensor not in table:
                message = f"{readable(tensor)} is in {name}, and not in {index}"
                yield Flaw(kind="unlisted", file=name, tensor=tensor, message=message, hint=hint)


def _instead(folder: Folder) -> str:
    """Return what to do about a folder without safetensors, by what is in it."""
    if any(name.endswith((".distcp", ".metadata")) or "shards/mp_metadata_pp_rank_" in name for name in folder.files):
        return "it is a sharded checkpoint: make one model of it first, cloudtune consolidate"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in folder.files):
        return "its weights are pickles; load and save the model with transformers once, which writes safetensors"
    below = sorted(name.rpartition("/")[0] for name in folder.files if name.endswith(("/config.json", f"/{SINGLE}")))
    return f"a model is in {folder.shown(below[0])}" if below else "name the folder of a model"
