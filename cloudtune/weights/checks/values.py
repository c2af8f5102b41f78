"""Whether the numbers are numbers: every tensor read once, in blocks, on threads; nothing is held but the blocks.

A block of floats is looked at as integers: without its sign, an element that is not finite is at least as large as
infinity's bits, so one mask and one maximum answer for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import attrs

from cloudtune import ranges
from cloudtune.errors import MissingExtra
from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject, elements
from cloudtune.weights.files.assembly import Progress
from cloudtune.weights.files.model import Shard, Weights
from cloudtune.weights.files.safetensors import Tensor

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("weights", "looking for values that are no numbers (--fast leaves it out)") from error

_BLOCK_BYTES = 1 << 20
#: Bytes of a task: a large embedding is shared by several threads.
_PORTION_BYTES = 64 << 20
_THREADS = 4


@attrs.frozen(kw_only=True)
class Format:
    """How a type's elements are told apart: as integers, without sign, ``infinity`` and the least that is NaN."""

    integer: str
    mask: int
    infinity: int | None
    nan: int
    per_element: int = 1


#: By the names of safetensors. FP8 of the FNUZ kind and FP4 are left out: they have no NaN in that form, or none.
FORMATS = {
    "F64": Format(integer="<u8", mask=2**63 - 1, infinity=0x7FF << 52, nan=(0x7FF << 52) + 1),
    "F32": Format(integer="<u4", mask=2**31 - 1, infinity=0x7F800000, nan=0x7F800001),
    "C64": Format(integer="<u4", mask=2**31 - 1, infinity=0x7F800000, nan=0x7F800001, per_element=2),
    "F16": Format(integer="<u2", mask=2**15 - 1, infinity=0x7C00, nan=0x7C01),
    "BF16": Format(integer="<u2", mask=2**15 - 1, infinity=0x7F80, nan=0x7F81),
    "F8_E5M2": Format(integer="u1", mask=0x7F, infinity=0x7C, nan=0x7D),
    "F8_E4M3": Format(integer="u1", mask=0x7F, infinity=None, nan=0x7F),
    "F8_E8M0": Format(integer="u1", mask=0xFF, infinity=None, nan=0xFF),
}


@attrs.frozen(kw_only=True)
class Values:
    """What is known of a tensor's elements; ``first`` is the index of the first that is not finite."""

    nans: int = 0
    infinities: int = 0
    first: int | None = None
    zero: bool = True

    def __add__(self, other: Values) -> Values:
        firsts = [value for value in (self.first, other.first) if value is not None]
        return Values(
            nans=self.nans + other.nans,
            infinities=self.infinities + other.infinities,
            first=min(firsts, default=None),
            zero=self.zero and other.zero,
        )


def check_values(subject: Subject, progress: Progress | None = None) -> Iterator[Finding]:
    """Yield tensors that have NaN or infinities in them, or nothing but zeros."""
    found = scan(subject.weights, progress)
    for name, values in found.items():
        where = subject.place_of(name)
        tensor = subject.weights.tensor(name)
        count = elements(tensor.shape)
        for what, number in (("NaN", values.nans), ("infinite", values.infinities)):
            if number:
                message = f"{number} of {count} elements are {what}; the first that is not finite is at {values.first}"
                hint = "the training or the merge went wrong: go back to a checkpoint from before, and look at its loss"
                yield Finding(rule="values-not-finite", severity="error", message=message, hint=hint, where=where)
        # norms and biases begin as zeros, and so do the adapters' second halves
        if values.zero and len(tensor.shape) > 1 and count and not subject.adapter:
            message = "all elements are zero"
            hint = "compare it with the base model's: it was probably never written"
            yield Finding(rule="values-zero", severity="warning", message=message, hint=hint, where=where)
    halves = [name for name in found if ".lora_B." in name or ".lora_embedding_B" in name]
    if subject.adapter and halves and all(found[name].zero for name in halves):
        message = "all B matrices are zero: the adapter changes nothing"
        hint = "it is as it was before training; look for a later checkpoint"
        yield Finding(rule="adapter-untrained", severity="error", message=message, hint=hint)


def scan(weights: Weights, progress: Progress | None = None) -> Mapping[str, Values]:
    """Return what is known of the elements of all tensors of floats, in the order of the files."""
    work = [
        (shard, tensor, start, min(_PORTION_BYTES, tensor.length - start))
        for shard in weights.shards
        for tensor in shard.header.tensors.values()
        if tensor.dtype in FORMATS and weights.places[tensor.name] is shard
        for start in range(0, tensor.length, _PORTION_BYTES)
    ]
    found = {tensor.name: Values() for _, tensor, _, _ in work}
    total, done = sum(length for *_, length in work), 0
    stopped = threading.Event()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="check") as pool:
        futures = {pool.submit(_look, *portion, stopped): portion for portion in work}
        try:
            for future in as_completed(futures):
                _, tensor, _, length = futures[future]
                found[tensor.name] += future.result()
                done += length
                if progress is not None:
                    progress(done, total)
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
    return found


def same(weights: Weights, one: str, other: str) -> bool:
    """Return whether two tensors have the same type, shape and bytes."""
    first, second = weights.tensor(one), weights.tensor(other)
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    streams = (_blocks(weights.places[name], weights.tensor(name), 0, first.length) for name in (one, other))
    return all(left == right for left, right in zip(*streams, strict=True))


def _look(shard: Shard, tensor: Tensor, start: int, length: int, stopped: threading.Event) -> Values:
    form = FORMATS[tensor.dtype]
    width = np.dtype(form.integer).itemsize
    mask = np.array(form.mask, dtype=form.integer)
    scratch = np.empty(min(_BLOCK_BYTES, length) // width, dtype=form.integer)
    threshold = form.nan if form.infinity is None else form.infinity
    values, position = Values(), start // width
    for block in _blocks(shard, tensor, start, length):
        if stopped.is_set():
            break
        elements = np.frombuffer(block, dtype=form.integer)
        magnitudes = np.bitwise_and(elements, mask, out=scratch[: len(elements)])
        peak = int(magnitudes.max())
        if peak >= threshold:
            values += _counted(magnitudes, form, threshold, position)
        elif peak or tensor.dtype == "F8_E8M0":  # whose 0 is a power of two
            values = attrs.evolve(values, zero=False)
        position += len(elements)
    return values


def _counted(magnitudes: Any, form: Format, threshold: int, position: int) -> Values:
    return Values(
        nans=int(np.count_nonzero(magnitudes >= form.nan)),
        infinities=0 if form.infinity is None else int(np.count_nonzero(magnitudes == form.infinity)),
        first=(position + int(np.argmax(magnitudes >= threshold))) // form.per_element,
        zero=False,
    )


def _blocks(shard: Shard, tensor: Tensor, start: int, length: int) -> Iterator[memoryview]:
    return ranges.blocks(shard.reader, tensor.offset + start, length, _BLOCK_BYTES)
