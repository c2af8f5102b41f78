"""Elements as they are stored, BF16, F16, F32 and F64, to float32 for arithmetic and back, rounded once.

NumPy has no bfloat16; here its elements are the upper halves of float32, as uint16. Rounding is to the nearest value,
ties to the even one; what is too large becomes infinite, as in torch; NaN stays NaN.
"""

from __future__ import annotations

from typing import Any

from cloudtune.errors import MissingExtra

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra("weights", "merging") from error

Array = NDArray[Any]
Floats = NDArray[np.float32]

#: How an element of each type lies in memory here, by the names of safetensors.
STORED: dict[str, Any] = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "F64": np.float64}
_HALF = np.uint32(0x8000)
_EIGHT = np.arange(8)
_SIGN = np.uint32(0x80000000)
_QUIET_NAN = np.uint16(0x0040)


def item_bytes(dtype: str) -> int:
    """Return the bytes of an element."""
    return int(np.dtype(STORED[dtype]).itemsize)


def view(data: bytes | bytearray | memoryview, dtype: str) -> Array:
    """Return bytes as an array of stored elements; nothing is copied."""
    return np.frombuffer(data, STORED[dtype])


def widen(stored: Array, dtype: str, out: Floats | None = None) -> Floats:
    """Return stored elements as float32: exact, but for F64, which is rounded."""
    found = np.empty(stored.shape, np.float32) if out is None else out
    if dtype == "BF16":
        bits = found.view(np.uint32)
        bits[...] = stored
        np.left_shift(bits, 16, out=bits)
    else:
        with np.errstate(over="ignore"):
            found[...] = stored
    return found


def narrow(values: Floats, dtype: str, out: Array | None = None, *, scratch: Array | None = None) -> Array:
    """Return float32 values as stored elements, each rounded once; the values may be changed on the way.

    ``scratch``, uint32 of the same shape, saves memory and time; it may be given where every NaN is one that
    arithmetic made or BF16 held, which are told from infinity by their upper halves.
    """
    found = np.empty(values.shape, STORED[dtype]) if out is None else out
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            found[...] = values
        return found
    bits = values.view(np.uint32)
    lost = np.isnan(values) if scratch is None else None
    nans = np.right_shift(bits[lost], 16).astype(np.uint16) | _QUIET_NAN if lost is not None and lost.any() else None
    odd = np.right_shift(bits, 16, out=scratch)
    np.bitwise_and(odd, np.uint32(1), out=odd)
    # half of the lower part, and one less where the even neighbour is below
    np.add(odd, _HALF - np.uint32(1), out=odd)
    np.add(bits, odd, out=bits)
    np.right_shift(bits, 16, out=bits)
    np.copyto(found, bits, casting="unsafe")
    if nans is not None:
        found[lost] = nans
    return found


def rounded(values: Floats, dtype: str) -> Floats:
    """Return values rounded to a type, as float32 again."""
    return values if dtype in {"F32", "F64"} else widen(narrow(values.copy(), dtype), dtype)


class Doubtful:
    """Rounds sums that are known up to an error to BF16 or F16, and tells the few where the error might matter.

    It keeps scratch memory for blocks of up to ``size`` elements, so a thread needs one of its own.
    """

    def __init__(self, size: int) -> None:
        self.step, self.low = np.empty(size, np.float32), np.empty(size, np.float32)
        self.differs = np.empty(size, np.bool_)
        self.other = np.empty(size, np.float16)

    def round(self, sums: Floats, error: float, dtype: str, out: Array) -> NDArray[np.int64]:
        """Round a block into ``out`` and return the flat positions of doubtful elements.

        ``error`` bounds what a sum may be off by, beside two units in its last place. The sums are lost; a NaN among
        them must be one that arithmetic has made.
        """
        flat, size = sums.reshape(-1), sums.size
        step, low, differs = self.step[:size], self.low[:size], self.differs[:size]
        # the bits of floats are ordered as their magnitudes: one step towards zero, one away, then two units further
        bits = step.view(np.uint32)
        np.bitwise_and(flat.view(np.uint32), _SIGN, out=bits)
        np.bitwise_or(bits, np.float32(error).view(np.uint32), out=bits)
        np.subtract(flat, step, out=low)
        high = np.add(flat, step, out=flat)
        if dtype == "BF16":
            # ties go upwards here: they are doubtful anyway
            first, second = low.view(np.uint32), high.view(np.uint32)
            np.add(first, _HALF - np.uint32(2), out=first)
            np.add(second, _HALF + np.uint32(2), out=second)
            np.bitwise_xor(first, second, out=second)
            np.greater(second, np.uint32(0xFFFF), out=differs)
            np.right_shift(first, 16, out=first)
            np.copyto(out, first.reshape(sums.shape), casting="unsafe")
        else:
            np.subtract(low.view(np.int32), 2, out=low.view(np.int32))
            np.add(high.view(np.int32), 2, out=high.view(np.int32))
            with np.errstate(over="ignore", invalid="ignore"):
                out[...] = low.reshape(sums.shape)
                self.other[:size] = high
            np.not_equal(out.view(np.uint16).reshape(-1), self.other[:size].view(np.uint16), out=differs)
        return _positions(differs)


def _positions(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the positions of the few true elements: eight at a time are looked at first."""
    whole = marks.size // 8 * 8
    eights = np.flatnonzero(marks[:whole].view(np.uint64))
    near = (eights[:, None] * 8 + _EIGHT).reshape(-1)
    rest = np.arange(whole, marks.size)
    near = np.concatenate((near, rest)) if rest.size else near
    found: NDArray[np.int64] = near[marks[near]]
    return found
