"""Whole tensors, laid out as the safetensors files of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from cloudtune.weights.files.assembly import Output
from cloudtune.weights.files.filenames import SINGLE
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.records import record_text
from cloudtune.weights.files.safetensors import BITS, make_header, size_bytes

#: Files of at most this size, so that every service that imports models takes them.
SHARD_BYTES = 4_000_000_000
#: Without it transformers does not open a file.
_METADATA = {"format": "pt"}


@attrs.frozen(kw_only=True, eq=False)
class Files:
    """The files of a model's tensors, and the text of their index, None where a single file needs none."""

    outputs: tuple[Output, ...]
    index: bytes | None


def files_of(tensors: Mapping[str, Part], *, single: str = SINGLE, like: Mapping[str, str] | None = None) -> Files:
    """Return files with tensors, in the order given, as they are to be written.

    ``like`` says in which file each tensor was of a model of the same size; otherwise files are filled one after the
    other. A single file is called ``single``; with a tensor larger than a file may be, that one gets its own.
    """
    groups = _grouped(tensors, like)
    if len(groups) == 1:
        return Files(outputs=(_file(single, groups[0], tensors),), index=None)
    stem, suffix = single.rsplit(".", 1)
    names = [f"{stem}-{number:05}-of-{len(groups):05}.{suffix}" for number in range(1, len(groups) + 1)]
    table = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
    total = sum(_bytes(part) for part in tensors.values())
    index = record_text({"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))})
    outputs = tuple(_file(name, group, tensors) for name, group in zip(names, groups, strict=True))
    return Files(outputs=outputs, index=index)


def _grouped(tensors: Mapping[str, Part], like: Mapping[str, str] | None) -> list[list[str]]:
    """Return the names of the tensors of each file."""
    if like is not None:
        groups: dict[str, list[str]] = {}
        for name in tensors:
            groups.setdefault(like[name], []).append(name)
        return [groups[file] for file in sorted(groups)]
    filled: list[list[str]] = [[]]
    size = 0
    for name, part in tensors.items():
        length = _bytes(part)
        if filled[-1] and size + length > SHARD_BYTES:
            filled.append([])
            size = 0
        filled[-1].append(name)
        size += length
    return filled


def _file(name: str, group: Iterable[str], tensors: Mapping[str, Part]) -> Output:
    # wide elements first, so that each tensor begins at a multiple of its elements' size, as readers expect
    order = sorted(group, key=lambda tensor: -BITS[tensors[tensor].dtype])
    header, _ = make_header(((one, tensors[one].dtype, tensors[one].shape) for one in order), _METADATA)
    return Output(name=name, pieces=(header, *(piece for one in order for piece in tensors[one].pieces)))


def _bytes(part: Part) -> int:
    return size_bytes(part.dtype, part.shape)
