"""The tensors of an adapter where they lie, and the two factors that they give for a matrix of the base.

Only the rows that a block needs are read of what can be large (the left factor has a row for each of the base's), so
memory does not grow with the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import attrs

from cloudtune.errors import MissingExtra
from cloudtune.ranges import Reader
from cloudtune.weights.files import rounding
from cloudtune.weights.files.assembly import Span
from cloudtune.weights.files.rounding import Floats, item_bytes
from cloudtune.weights.merge.lowrank import LowRank, Term

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("weights", "merging") from error


@attrs.frozen(kw_only=True)
class Values:
    """A tensor of numbers in a file, row by row; ``precision`` is the type that they are rounded to when read."""

    name: str
    reader: Reader
    offset: int
    dtype: str
    shape: tuple[int, ...]
    precision: str | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return prod(self.shape[1:]) * item_bytes(self.dtype)

    @property
    def span(self) -> Span:
        """Where its bytes are."""
        return Span(reader=self.reader, offset=self.offset, length=prod(self.shape) * item_bytes(self.dtype))

    def rows(self, start: int = 0, stop: int | None = None) -> Floats:
        """Return rows as float32."""
        stop = self.shape[0] if stop is None else stop
        data = self.reader.read(self.offset + start * self.row_bytes, (stop - start) * self.row_bytes)
        return self._widened(data).reshape(stop - start, *self.shape[1:])

    def columns(self, start: int, stop: int) -> Floats:
        """Return columns of a matrix as float32, as rows."""
        rows, columns = self.shape
        if (stop - start) * 4 > columns:  # most of it: reading it whole is cheaper than many small reads
            return np.ascontiguousarray(self.rows()[:, start:stop].T)
        item = item_bytes(self.dtype)
        places = range(self.offset + start * item, self.offset + rows * self.row_bytes, self.row_bytes)
        data = b"".join(self.reader.read(place, (stop - start) * item) for place in places)
        return np.ascontiguousarray(self._widened(data).reshape(rows, stop - start).T)

    def _widened(self, data: bytes) -> Floats:
        found = rounding.widen(rounding.view(data, self.dtype), self.dtype)
        return found if self.precision is None else rounding.rounded(found, self.precision)


@attrs.frozen(kw_only=True)
class Factor:
    """What one adapter adds to a matrix: ``scale * b @ a``, or the transpose of it."""

    a: Values
    b: Values
    scale: float
    transposed: bool = False

    def left(self, start: int, stop: int) -> Floats:
        """Return rows of the left factor."""
        return self.a.columns(start, stop) if self.transposed else self.b.rows(start, stop)

    def right(self) -> Floats:
        """Return the right factor."""
        return np.ascontiguousarray(self.b.rows().T) if self.transposed else self.a.rows()


@attrs.frozen(kw_only=True)
class ExpertFactor:
    """What one adapter adds to the matrix of one of ``experts``, whose factors lie interleaved in two tensors.

    ``b`` has the experts as its last dimension, ``a`` as its first. ``first_row`` is where the matrix begins in a
    fused one, of which the base has parts.
    """

    a: Values
    b: Values
    scale: float
    expert: int
    experts: int
    transposed: bool = False
    first_row: int = 0

    def left(self, start: int, stop: int) -> Floats:
        """Return rows of the left factor."""
        start, stop = start + self.first_row, stop + self.first_row
        if self.transposed:
            return np.ascontiguousarray(self._a()[:, start:stop].T)
        return np.ascontiguousarray(_whole(self.b)[start:stop, self.expert :: self.experts])

    def right(self) -> Floats:
        """Return the right factor."""
        if self.transposed:
            return np.ascontiguousarray(_whole(self.b)[:, self.expert :: self.experts].T)
        return self._a()

    def _a(self) -> Floats:
        rank = self.a.shape[0] // self.experts
        return self.a.rows(self.expert * rank, (self.expert + 1) * rank)


# experts lie side by side in a file, so each thread meets the same tensor many times in a row
@lru_cache(maxsize=4)
def _whole(values: Values) -> Floats:
    return values.rows()


def forget() -> None:
    """Give back the memory of experts' factors."""
    _whole.cache_clear()


AnyFactor = Factor | ExpertFactor


def low_rank(factors: Sequence[AnyFactor], start: int, stop: int) -> LowRank:
    """Return rows of what adapters add to a matrix."""
    return LowRank([Term(left=one.left(start, stop), right=one.right(), scale=one.scale) for one in factors])
