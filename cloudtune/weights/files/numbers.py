"""Whether the numbers are numbers: every tensor read once, in blocks, on threads; nothing is held but the blocks.

A block of floats is looked at as integers: without its sign, an element that is not finite is at least as large as
infinity's bits, so one mask and one maximum answer for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import attrs

from cloudtune import ranges
from cloudtune.errors import MissingExtra
from cloudtune.weights.files.assembly import Progress, Span

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("weights", "looking for values that are no numbers") from error

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
class Numbers:
    """What is known of a tensor's elements; ``first`` is the index of the first that is not finite."""

    nans: int = 0
    infinities: int = 0
    first: int | None = None
    zero: bool = True

    def __add__(self, other: Numbers) -> Numbers:
        firsts = [value for value in (self.first, other.first) if value is not None]
        return Numbers(
            nans=self.nans + other.nans,
            infinities=self.infinities + other.infinities,
            first=min(firsts, default=None),
            zero=self.zero and other.zero,
        )


def scan(tensors: Iterable[tuple[str, str, Span]], progress: Progress | None = None) -> Mapping[str, Numbers]:
    """Return what is known of the elements of all tensors of floats among these (name, type, bytes), in their order."""
    work = [
        (name, dtype, span, start, min(_PORTION_BYTES, span.length - start))
        for name, dtype, span in tensors
        if dtype in FORMATS
        for start in range(0, span.length, _PORTION_BYTES)
    ]
    found = {name: Numbers() for name, *_ in work}
    total, done = sum(length for *_, length in work), 0
    stopped = threading.Event()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="check") as pool:
        futures = {pool.submit(_look, *portion[1:], stopped): portion for portion in work}
        try:
            for future in as_completed(futures):
                name, *_, length = futures[future]
                found[name] += future.result()
                done += length
                if progress is not None:
                    progress(done, total)
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
    return found


def _look(dtype: str, span: Span, start: int, length: int, stopped: threading.Event) -> Numbers:
    form = FORMATS[dtype]
    width = np.dtype(form.integer).itemsize
    mask = np.array(form.mask, dtype=form.integer)
    scratch = np.empty(min(_BLOCK_BYTES, length) // width, dtype=form.integer)
    threshold = form.nan if form.infinity is None else form.infinity
    numbers, position = Numbers(), start // width
    for block in ranges.blocks(span.reader, span.offset + start, length, _BLOCK_BYTES):
        if stopped.is_set():
            break
        elements = np.frombuffer(block, dtype=form.integer)
        magnitudes = np.bitwise_and(elements, mask, out=scratch[: len(elements)])
        peak = int(magnitudes.max())
        if peak >= threshold:
            numbers += _counted(magnitudes, form, threshold, position)
        elif peak or dtype == "F8_E8M0":  # whose 0 is a power of two
            numbers = attrs.evolve(numbers, zero=False)
        position += len(elements)
    return numbers


def _counted(magnitudes: Any, form: Format, threshold: int, position: int) -> Numbers:
    return Numbers(
        nans=int(np.count_nonzero(magnitudes >= form.nan)),
        infinities=0 if form.infinity is None else int(np.count_nonzero(magnitudes == form.infinity)),
        first=(position + int(np.argmax(magnitudes >= threshold))) // form.per_element,
        zero=False,
    )
