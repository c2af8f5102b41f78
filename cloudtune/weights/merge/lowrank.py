"""Products of low rank, ``scale * left @ right``, as torch gives them on a CPU, bit for bit.

torch's matrix product (oneMKL) adds the terms of an element one after the other, each product fused with its addition;
of more than 192 terms it takes several runs and adds them up. NumPy's (OpenBLAS) has kernels that do the same, and
others that take another order at the edges of their tiles, which changes last bits. Which one it has is tried out once
for each shape. Where it is another, a product is made fast, with a bound of its error, and slowly in torch's order for
the few elements where the bound leaves a doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random

import attrs

from cloudtune.errors import MissingExtra
from cloudtune.weights.files.rounding import Floats

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra("weights", "merging") from error

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]
#: Terms that oneMKL adds in one run.
_RUN = 192
#: Half a unit in the last place of 1.0 in float32: what one rounding may be off by, relatively.
_UNIT = 2.0**-24
#: Products held at a time while single elements are computed.
_PORTION = 1 << 17
#: Elements worked on at a time where every step of a sum is computed by itself.
_BLOCK = 1 << 14
#: Elements of a column that must come out the same before the kernel is trusted with it.
_TRIED = 64
#: The part of a block's columns up to which they are looked at by themselves.
_MOST_ODD = 0.2
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

    @np.errstate(over="ignore", invalid="ignore")  # ``finite`` says it
    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)
        scaled = [term.left * np.float32(term.scale) for term in terms]
        self.left = scaled[0] if len(scaled) == 1 else np.concatenate(scaled, axis=1)
        self.right = terms[0].right if len(terms) == 1 else np.concatenate([term.right for term in terms])
        #: Numbers of terms that are added in one run.
        self.ranks = frozenset(end - start for term in terms for start, end in _runs(term.right.shape[0]))
        self.errors = self._errors()
        #: Whether ``fast`` can be used at all: what NaN or infinity make is not bounded.
        self.finite = bool(np.isfinite(self.errors).all())

    def odd_columns(self, rows: int, columns: int) -> Indices | None:
        """Return the columns of blocks of this shape that ``ordered`` may not give as torch does, None for too many."""
        return _odd_columns(rows, self.ranks, columns)

    def ordered(self, rows: slice, columns: slice, out: Floats, scratch: Floats) -> Floats:
        """Return a block by NumPy's own product; ``scratch`` is memory of the same shape."""
        for number, term in enumerate(self.terms):
            product = out if number == 0 else np.empty_like(out)
            for start, end in _runs(term.right.shape[0]):
                run = scratch if start else product
                np.matmul(term.left[rows, start:end], term.right[start:end, columns], out=run)
                if start:
                    np.add(product, run, out=product)
            if term.scale != 1:
                np.multiply(product, np.float32(term.scale), out=product)
            if number:
                np.add(out, product, out=out)
        return out

    def exact(self, rows: slice, columns: slice, out: Floats, scratch: Floats) -> Floats:
        """Return a block exactly as torch computes it, by NumPy's own product as far as that goes."""
        odd = self.odd_columns(*out.shape)
        if odd is None:
            out[...] = self.block(rows, columns)
            return out
        self.ordered(rows, columns, out, scratch)
        if odd.size:
            out[:, odd] = self.block(rows, odd + columns.start)
        return out

    def fast(self, rows: slice, columns: slice, out: Floats) -> float:
        """Make a block, and return what its elements may be off by."""
        np.matmul(self.left[rows], self.right[:, columns], out=out)
        return self.error(rows)

    def error(self, rows: slice) -> float:
        """Return what elements of ``fast`` and ``ordered`` may be off by."""
        return float(self.errors[rows].max(initial=0.0))

    def at(self, rows: Indices, columns: Indices) -> Floats:
        """Return single elements, exactly as torch computes them."""
        found = np.empty(len(rows), np.float32)
        portion = max(1024, _PORTION // self.right.shape[0])
        for start in range(0, len(rows), portion):
            part = slice(start, start + portion)
            found[part] = self._sum([_elements_in_order(term, rows[part], columns[part]) for term in self.terms])
        return found

    def block(self, rows: slice, columns: slice | Indices) -> Floats:
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


def _elements_in_order(term: Term, rows: Indices, columns: Indices) -> Floats:
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
    found = np.empty((len(left), right.shape[1]), np.float32)
    wide, step = right.astype(np.float64), max(1, _BLOCK // max(1, right.shape[1]))
    for row in range(0, len(left), step):
        _rows_in_order(left[row : row + step].astype(np.float64), wide, found[row : row + step])
    return found


def _rows_in_order(left: Doubles, right: Doubles, out: Floats) -> None:
    wide, products, sums = (np.empty(out.shape, np.float64) for _ in range(3))
    bits, middle, run = np.empty(out.shape, np.int64), np.empty(out.shape, np.bool_), np.empty(out.shape, np.float32)
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
        if start:
            np.add(out, run, out=out)
        else:
            out[...] = run


@lru_cache(maxsize=256)
def _odd_columns(rows: int, ranks: frozenset[int], columns: int) -> Indices | None:
    """Try out in which columns NumPy's product adds up in another order than torch's, for matrices of a shape.

    Its kernels go by the shape, not by the numbers, and another order changes a good part of the last bits.
    """
    random = Random(rows * columns)  # noqa: S311 - any numbers will do
    odd = np.zeros(columns, np.bool_)
    for rank in sorted(ranks) * -(-_TRIED // max(1, rows)):
        left, right = _noise(random, (rows, rank)), _noise(random, (rank, columns))
        odd |= (np.matmul(left, right) != _block_in_order(left, right)).any(axis=0)
        if np.count_nonzero(odd) > columns * _MOST_ODD:
            return None
    return np.flatnonzero(odd)


def _noise(random: Random, shape: tuple[int, int]) -> Floats:
    """Return numbers between -1 and 1; numpy.random would take longer to be imported than to be used."""
    bits = np.frombuffer(random.randbytes(4 * shape[0] * shape[1]), np.int32)
    found: Floats = np.multiply(bits, np.float32(2**-31), dtype=np.float32).reshape(shape)
    return found
