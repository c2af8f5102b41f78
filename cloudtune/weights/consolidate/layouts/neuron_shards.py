"""The files that neuronx-distributed writes, a rank's tensors by name; nothing is read but where they lie.

Each rank of tensor (tp) and pipeline parallelism (pp) has one file of ``torch.save``; data-parallel ranks hold the
same, and only the first of them writes. With ``use_xser``, the default, that file only refers to files beside it, one
a tensor: of a large model there are tens of thousands.

Layout: neuronx_distributed/trainer/checkpoint.py; references: torch_xla/utils/serialization.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import attrs

from cloudtune.errors import UsageError
from cloudtune.ranges import LooseReader
from cloudtune.uri import join, local_path
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.pickles import Stand, stands
from cloudtune.weights.files.torchfiles import TorchTensor, read_torch

#: The file of a rank, below ``model/``.
RANK_FILE = re.compile(r"dp_rank_([0-9]{1,5})(?:_ep_rank_([0-9]{1,5}))?_tp_rank_([0-9]{1,5})_pp_rank_([0-9]{1,5})\.pt")
_COPY = "copy the whole folder again; if it was never whole, save the checkpoint again"
_REFERENCE = "torch_xla.utils.serialization.TensorReference"
#: Files elsewhere that are looked into at a time.
_LOOKS = 16
#: Bytes at both ends of a file that are fetched together: in a small file all that says where its tensor lies.
_END_BYTES = 4 << 10

From = TypeVar("From")
To = TypeVar("To")


@attrs.frozen
class Absent:
    """A tensor without bytes: this rank's pipeline stage does not have it."""


EXTRA = {
    **stands(_REFERENCE),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_: Absent(),
}


def rank_files(folder: Folder, prefix: str) -> tuple[tuple[str, ...], ...]:
    """Return the files of the ranks below a prefix of a folder, by pipeline stage and rank of tensor parallelism.

    Raises:
        UsageError: one of them is missing, or they are of experts, which are cut in other ways.
    """
    found: dict[tuple[int, int], str] = {}
    for path in folder.files:
        match = (
            RANK_FILE.fullmatch(path.removeprefix(f"{prefix}model/")) if path.startswith(f"{prefix}model/") else None
        )
        if match is None:
            continue
        dp, ep, tp, pp = (int(part or 0) for part in match.groups())
        if ep or match[2]:
            message = f"{folder.shown(path)} is of a model cut by experts"
            raise UsageError(message, hint="optimum-neuron 0.4 has none, so it is not known how to make it whole")
        if not dp:
            found[pp, tp] = path
    stages, ranks = (1 + max((key[at] for key in found), default=-1) for at in (0, 1))
    missing = next(((pp, tp) for pp in range(stages) for tp in range(ranks) if (pp, tp) not in found), None)
    if missing is not None or not found:
        pp, tp = missing or (0, 0)
        place = folder.shown(f"{prefix}model/dp_rank_00_tp_rank_{tp:02d}_pp_rank_{pp:02d}.pt")
        raise UsageError(f"{place} is missing: {stages} x {ranks} ranks have written this checkpoint", hint=_COPY)
    return tuple(tuple(found[pp, tp] for tp in range(ranks)) for pp in range(stages))


def read_ranks(folder: Folder, paths: Sequence[str]) -> list[dict[str, TorchTensor | Absent]]:
    """Return the tensors of each rank's file by name; their files are open only while they are read.

    Raises:
        UsageError: a file is missing, cut off, hostile, or holds something else.
    """
    work = _each if local_path(folder.uri) is not None else _at_a_time
    ranks = work(lambda path: _rank(folder, path), paths)
    for rank, path in zip(ranks, paths, strict=True):
        beside = [(name, value.number) for name, value in rank.items() if isinstance(value, _Reference)]
        tensors = work(lambda one, path=path: _tensor(folder, f"{path}.tensors/tensor_{one[1]}.pt"), beside)  # type: ignore[misc]
        rank.update(zip((name for name, _ in beside), tensors, strict=True))
    return ranks


@attrs.frozen
class _Reference:
    """A tensor in a file of its own."""

    number: int


class _EndsReader(LooseReader):
    """A reader that has both ends of its file at hand, until it is told to forget them."""

    def __init__(self, uri: str, size: int) -> None:
        super().__init__(uri, size)
        self._ends: tuple[tuple[int, bytes], ...] = ()

    def fetch_ends(self) -> None:
        """Read both ends, at once if the file is small."""
        if self.size <= 4 * _END_BYTES:
            self._ends = ((0, super().read(0, self.size)),)
        else:
            last = self.size - _END_BYTES
            self._ends = ((0, super().read(0, _END_BYTES)), (last, super().read(last, _END_BYTES)))

    def forget(self) -> None:
        """Keep no bytes in memory."""
        self._ends = ()

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, those at hand without reading again."""
        for start, data in self._ends:
            if start <= offset and offset + length <= start + len(data):
                return data[offset - start : offset - start + length]
        return super().read(offset, length)


def load(folder: Folder, path: str, extra: Mapping[str, Callable[..., Any] | None]) -> Any:
    """Return what a file of ``torch.save`` in a folder holds; raises UsageError if it cannot be read."""
    if path not in folder.files:
        raise UsageError(f"{folder.shown(path)} is missing", hint=_COPY)
    reader = _EndsReader(join(folder.uri, path), folder.files[path])
    reader.fetch_ends()
    try:
        return read_torch(reader, name=folder.shown(path), extra=extra)
    finally:
        reader.forget()


def _rank(folder: Folder, path: str) -> dict[str, Any]:
    state = load(folder, path, EXTRA)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UsageError(f"{folder.shown(path)} holds no tensors by name", hint="it is not of optimum-neuron")
    return {name: _value(value, name, folder.shown(path)) for name, value in state.items()}


def _value(value: Any, name: str, place: str) -> Any:
    if isinstance(value, Stand) and value.kind == _REFERENCE:
        number = value.get("tid")
        if type(number) is int and number >= 0:
            return _Reference(number)
    elif isinstance(value, (TorchTensor, Absent)):
        return value
    raise UsageError(f"{place}: {name} is no tensor", hint="it is not of optimum-neuron, or damaged")


def _tensor(folder: Folder, path: str) -> TorchTensor:
    value = load(folder, path, EXTRA)
    if not isinstance(value, TorchTensor):
        raise UsageError(f"{folder.shown(path)} holds no tensor", hint=_COPY)
    return value


def _each(work: Callable[[From], To], items: Iterable[From]) -> list[To]:
    return [work(item) for item in items]


def _at_a_time(work: Callable[[From], To], items: Iterable[From]) -> list[To]:
    """Do something that mostly waits for another machine, to several items at a time."""
    with ThreadPoolExecutor(_LOOKS, thread_name_prefix="looks") as pool:
        return list(pool.map(work, items))
