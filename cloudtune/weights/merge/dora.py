"""DoRA: rows (of a transposed matrix, columns) of base plus product, scaled to the magnitudes that were trained.

Every bit of the sum counts here, because the norms are made of all of it. torch adds the squares of a row in eight
lanes, which it adds up one after the other, and those of a column in order; none of it is fused.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Lock

import attrs

from cloudtune.errors import MissingExtra
from cloudtune.weights.files import rounding
from cloudtune.weights.files.assembly import Buffer, Made
from cloudtune.weights.files.rounding import Array, Floats
from cloudtune.weights.merge.changes import Plane, panels, pieces_of
from cloudtune.weights.merge.factors import AnyFactor, Values, low_rank
from cloudtune.weights.merge.lowrank import LowRank

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("weights", "merging") from error

#: Lanes of a vector of float32 in torch's kernel for norms, which is for AVX2 on every x86.
_LANES = 8
#: Elements that are worked on at a time, in whole rows.
_TILE = 1 << 16


def scaled(plane: Plane, factor: AnyFactor, magnitudes: Values, *, columns: bool) -> tuple[Made, ...]:
    """Return the pieces of a matrix with what an adapter adds to it, its rows or columns scaled to their magnitudes."""
    shape = _Columns(plane, factor, magnitudes) if columns else _Rows(magnitudes)
    return pieces_of(plane, partial(_blocks, plane, factor, shape))


def _blocks(plane: Plane, factor: AnyFactor, shape: _Rows | _Columns, start: int, stop: int) -> Iterator[Buffer]:
    first = start
    for sums in _sums(plane, factor, start, stop):
        # a row of zeros has no direction, and becomes what torch makes of it
        with np.errstate(all="ignore"):
            made: Array = rounding.narrow(shape.scale(sums, first), plane.dtype)
        yield made.view(np.uint8).data
        first += len(sums)


def _sums(plane: Plane, factor: AnyFactor, start: int, stop: int) -> Iterator[Floats]:
    """Yield rows of base plus product in float32."""
    delta: LowRank = low_rank([factor], start, stop)
    step, done = panels(_TILE // max(1, plane.columns)), 0
    sums, scratch = (np.empty((step, plane.columns), np.float32) for _ in range(2))
    for chunk in plane.chunks(start, stop):
        for row in range(0, len(chunk), step):
            part = chunk[row : row + step]
            count = len(part)
            delta.exact(slice(done, done + count), slice(0, plane.columns), sums[:count], scratch[:count])
            yield np.add(sums[:count], rounding.widen(part, plane.dtype, scratch[:count]), out=sums[:count])
            done += count


@attrs.frozen(eq=False)
class _Rows:
    """Scales each row to its magnitude."""

    magnitudes: Values

    def scale(self, sums: Floats, first: int) -> Floats:
        """Return rows, the first of which has the number ``first``."""
        wanted = self.magnitudes.rows(first, first + len(sums))
        np.multiply((wanted / row_norms(sums))[:, None], sums, out=sums)
        return sums


class _Columns:
    """Scales each column to its magnitude; their norms are found by whoever asks first."""

    def __init__(self, plane: Plane, factor: AnyFactor, magnitudes: Values) -> None:
        self.plane, self.factor, self.magnitudes = plane, factor, magnitudes
        self.lock = Lock()
        self.factors: Floats | None = None

    def scale(self, sums: Floats, first: int) -> Floats:
        """Return rows."""
        with self.lock:
            if self.factors is None:
                self.factors = self._found()
            factors = self.factors
        return np.multiply(factors, sums, out=sums)

    def _found(self) -> Floats:
        total = np.zeros((1, self.plane.columns), np.float32)
        for part in _sums(self.plane, self.factor, 0, self.plane.rows):
            np.multiply(part, part, out=part)
            # added to what there is so far, row by row
            np.add.reduce(np.concatenate((total, part)), axis=0, keepdims=True, out=total)
        return np.divide(self.magnitudes.rows().reshape(1, -1), np.sqrt(total), dtype=np.float32)


def row_norms(values: Floats) -> Floats:
    """Return the 2-norm of each row, as torch computes it."""
    rows, columns = values.shape
    whole = columns // _LANES * _LANES
    squares = np.multiply(values, values)
    lanes = np.add.reduce(squares[:, :whole].reshape(rows, -1, _LANES), axis=1)
    # the rest goes to the first lane, after all lanes are in it
    total: Floats = lanes[:, 0].copy()
    for one in (*lanes.T[1:], *squares.T[whole:]):
        total += one
    return np.sqrt(total)
