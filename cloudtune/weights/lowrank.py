"""Products of low rank, ``scale * left @ right``, as torch gives them on a CPU, bit for bit.

torch's matrix product (oneMKL) adds the terms of an element one after the other, each product fused with its addition;
of more than 192 terms it takes several runs and adds them up. NumPy's (OpenBLAS) may take another order at the edges
of its tiles, which changes the last bit. So a product is made twice: fast by OpenBLAS, with a bound of its error, and
slowly in that order, for the few elements where the bound leaves a doubt about the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from cloudtune.errors import MissingExtra
from cloudtune.weights.rounding import Floats

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra("weights", "merging") from error

Doubles = NDArray[np.float64]
#: Terms that oneMKL adds in one run.
_RUN = 192
#: Half a unit in the last place of 1.0 in float32: what one rounding may be off by, relatively.
_UNIT = 2.0**-24
#: Products held at a time while single elements are computed.
_PORTION = 1 << 17
_LOWER_BITS = np.int64((1 << 29) - 1)
_MIDDLE = np.int64(1 << 28)
#: The smallest normal float32; below it roundings are coarser than the bits of a double tell.
_SMALLEST = 2.0**-126


@attrs.frozen(kw_only=True, eq=False)
class Term:
    """One product: ``left`` (rows, rank), ``right`` (rank, columns), and what their product is multiplied by."""

    left: Floats
    right: Floats
    scale: float


class LowRank:
    """A sum of products of low rank, for blocks of its rows and columns."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)
        scaled = [term.left * np.float32(term.scale) for term in terms]
        self.left = scaled[0] if len(scaled) == 1 else np.concatenate(scaled, axis=1)
        self.right = terms[0].right if len(terms) == 1 else np.concatenate([term.right for term in terms])
        self.errors = self._errors()
        #: Whether ``fast`` can be used at all: what NaN or infinity make is not bounded.
        self.finite = bool(np.isfinite(self.errors).all())

    def fast(self, rows: slice, columns: slice, out: Floats) -> float:
        """Make a block, and return what its elements may be off by."""
        np.matmul(self.left[rows], self.right[:, columns], out=out)
        return float(self.errors[rows].max(initial=0.0))

    def at(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
        """Return single elements, exactly as torch computes them."""
        found = np.empty(len(rows), np.float32)
        portion = max(1024, _PORTION // self.right.shape[0])
        for start in range(0, len(rows), portion):
            part = slice(start, start + portion)
            found[part] = self._sum([_elements_in_order(term, rows[part], columns[part]) for term in self.terms])
        return found

    def block(self, rows: slice, columns: slice) -> Floats:
        """Return a block, exactly as torch computes it."""
        return self._sum([_block_in_order(term.left[rows], term.right[:, columns]) for term in self.terms])

    def _sum(self, products: list[Floats]) -> Floats:
        total: Floats | None = None
        for term, product in zip(self.terms, products, strict=True):
            np.multiply(product, np.float32(term.scale), out=product)
            total = product if total is None else np.add(total, product, out=total)
        assert total is not None
        return total

    def _errors(self) -> Doubles:
        """Return what the elements of each row may be off by.

        No rounding on the way is off by more than a unit of the largest partial sum, which the norms bound; they go up
        and down, so many of them add up like their square root, and this is several times that.
        """
        rank = self.right.shape[0]
        left = np.sqrt(np.einsum("ik,ik->i", self.left, self.left))
        right = np.sqrt(np.einsum("kj,kj->j", self.right, self.right).max(initial=0.0))
        bound: Doubles = (4 + 2 * np.sqrt(rank)) * _UNIT * float(right) * left.astype(np.float64)
        return bound


def _runs(rank: int) -> list[tuple[int, int]]:
    """Return the runs in which oneMKL adds ``rank`` terms: halves if they fit in two, else full ones and a rest."""
    length = rank if rank <= _RUN else (rank + 1) // 2 if rank < 2 * _RUN else _RUN
    return [(start, min(start + length, rank)) for start in range(0, rank, length)]


def _elements_in_order(term: Term, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    """Return elements of ``left @ right`` in torch's order."""
    products = term.right.take(columns, axis=1).astype(np.float64)
    products *= term.left[rows].T
    total: Floats | None = None
    sums = np.empty_like(products)
    for start, end in _runs(len(products)):
        run = products[start].astype(np.float32)
        wide = run.astype(np.float64)
        for k in range(start + 1, end):
            np.add(wide, products[k], out=sums[k])
            run[...] = sums[k]
            wide[...] = run
        _mend(run, products[start:end], sums[start + 1 : end])
        total = run if total is None else total + run
    assert total is not None
    return total + np.float32(0) if len(products) > 1 else total


def _mend(run: Floats, products: Doubles, sums: Doubles) -> None:
    """Redo the elements of a run where a double on the way could not tell which float32 was nearer."""
    near = ((sums.view(np.int64) & _LOWER_BITS) == _MIDDLE) | ((np.abs(sums) < _SMALLEST) & (sums != 0))
    again = np.flatnonzero(near.any(axis=0))
    if again.size:
        found = products[0, again].astype(np.float32)
        for product in products[1:, again]:
            found = _fused(found, product)
        run[again] = found


def _fused(sums: Floats, products: Doubles) -> Floats:
    """Return sums plus exact products, each rounded once."""
    wide = sums.astype(np.float64)
    total = wide + products
    back = total - wide
    lost = (wide - (total - back)) + (products - back)
    found = total.astype(np.float32)
    beyond = np.nextafter(found, np.where(total > found, np.inf, -np.inf).astype(np.float32))
    middle = (total != found) & (total - found == beyond.astype(np.float64) - total)
    nudged = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where(middle & (lost != 0), nudged, total).astype(np.float32)


def _block_in_order(left: Floats, right: Floats) -> Floats:
    """Return ``left @ right`` in torch's order."""
    shape = (len(left), right.shape[1])
    wide, products, sums = (np.empty(shape, np.float64) for _ in range(3))
    bits, middle, run = np.empty(shape, np.int64), np.empty(shape, np.bool_), np.empty(shape, np.float32)
    left, right = left.astype(np.float64), right.astype(np.float64)
    total: Floats | None = None
    for start, end in _runs(left.shape[1]):
        run[...] = np.multiply(left[:, start, None], right[start], out=products)
        for k in range(start + 1, end):
            wide[...] = run
            np.multiply(left[:, k, None], right[k], out=products)
            np.add(wide, products, out=sums)
            np.bitwise_and(sums.view(np.int64), _LOWER_BITS, out=bits)
            np.equal(bits, _MIDDLE, out=middle)
            exact = _fused(run[middle], products[middle]) if middle.any() else None
            run[...] = sums
            if exact is not None:
                run[middle] = exact
        total = run.copy() if total is None else np.add(total, run, out=total)
    assert total is not None
    return total
