"""Products of low rank: each element as torch adds it up, whichever kernels NumPy has."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.weights.merge import lowrank
from cloudtune.weights.merge.lowrank import LowRank, Term
from tests.weights.merge.merging import tools


def matrices(rows, rank, columns, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((rows, rank), dtype=np.float32), random.standard_normal(
        (rank, columns), dtype=np.float32
    )


def nearest(exact):
    """Return the float32 nearest to a fraction, ties to even, by whole numbers alone."""
    if not exact:
        return np.float32(0)
    size = abs(exact)
    exponent = max(-126, size.numerator.bit_length() - size.denominator.bit_length())
    while size >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while exponent > -126 and size < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 23)
    count, rest = divmod(size, unit)
    count += rest > unit / 2 or (rest == unit / 2 and count % 2)
    return np.float32(float(count * unit)) * (1 if exact > 0 else -1)


def by_fractions(left, right):
    found = np.empty((len(left), right.shape[1]), np.float32)
    for i in range(len(left)):
        for j in range(right.shape[1]):
            total = Fraction(0)
            for one, other in zip(left[i], right[:, j], strict=True):
                total = Fraction(float(nearest(total + Fraction(float(one)) * Fraction(float(other)))))
            found[i, j] = float(total)
    return found


#: Few bits, so that sums end exactly halfway between two numbers; and tiny ones.
AWKWARD = st.one_of(
    st.integers(-(2**12), 2**12).map(lambda n: n * 2.0**-12),
    st.sampled_from([1.0, 1 + 2.0**-23, 2.0**-24, -(2.0**-24), 2.0**-25, 2.0**-80, -(2.0**-75), 2.0**-70, 0.0]),
    st.floats(-2, 2, width=32),
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.data())
def test_every_sum_is_rounded_as_by_fractions(rank, data):
    left = np.array(data.draw(st.lists(AWKWARD, min_size=2 * rank, max_size=2 * rank)), np.float32).reshape(2, rank)
    right = np.array(data.draw(st.lists(AWKWARD, min_size=3 * rank, max_size=3 * rank)), np.float32).reshape(rank, 3)
    wanted = by_fractions(left, right)
    product = LowRank([Term(left=left, right=right, scale=1.0)])
    assert np.array_equal(product.block(slice(0, 2), slice(0, 3)), wanted)
    rows, columns = np.divmod(np.arange(6), 3)
    assert np.array_equal(product.at(rows, columns), wanted.reshape(-1))


@pytest.mark.heavy
@pytest.mark.parametrize("rank", [1, 3, 8, 16, 64, 128, 192, 200, 256, 384, 400])
def test_elements_are_those_of_torch(rank):
    torch = tools()[0]
    for rows, columns in ((16, 16), (61, 100), (64, 2048), (130, 333)):
        left, right = matrices(rows, rank, columns)
        wanted = (torch.from_numpy(left) @ torch.from_numpy(right) * 0.37).numpy()
        product = LowRank([Term(left=left, right=right, scale=0.37)])
        found = product.block(slice(0, rows), slice(0, columns))
        assert np.array_equal(found, wanted)
        along, across = np.divmod(np.arange(0, rows * columns, 7), columns)
        assert np.array_equal(product.at(along, across), wanted[along, across])
        odd = product.odd_columns(rows, columns)
        if odd is not None:
            ordered = product.ordered(slice(0, rows), slice(0, columns), np.empty_like(found), np.empty_like(found))
            even = np.setdiff1d(np.arange(columns), odd)
            assert np.array_equal(ordered[:, even], wanted[:, even])


@pytest.mark.parametrize("rank", [4, 16, 100])
def test_the_fast_product_is_within_its_error(rank):
    left, right = matrices(120, rank, 300, seed=rank)
    product = LowRank([Term(left=left, right=right, scale=0.3), Term(left=left[::-1], right=right, scale=2.0)])
    out = np.empty((120, 300), np.float32)
    error = product.fast(slice(0, 120), slice(0, 300), out)
    assert np.abs(out - product.block(slice(0, 120), slice(0, 300))).max() < error / 4


def test_a_sum_of_adapters_is_the_sum_of_their_products():
    left, right = matrices(10, 4, 20)
    one, other = Term(left=left, right=right, scale=0.5), Term(left=-left, right=right[:, ::-1], scale=3.0)
    both = LowRank([one, other])
    place = slice(0, 10), slice(3, 17)
    apart = [LowRank([term]).block(*place) for term in (one, other)]
    assert np.array_equal(both.block(*place), apart[0] + apart[1])
    assert both.right.shape[0] == both.left.shape[1] == 8


def test_a_kernel_that_adds_in_another_order_is_found_out(monkeypatch):
    def of_torch(left, right):
        # as if torch's order gave something else in the first five columns, in one of many rows
        found = np.matmul(left, right)
        found[-1, :5] = np.nextafter(found[-1, :5], np.float32(np.inf))
        return found

    monkeypatch.setattr(lowrank, "_block_in_order", of_torch)
    found = lowrank._odd_columns.__wrapped__
    assert found(40, frozenset({6}), 50).tolist() == [0, 1, 2, 3, 4]
    assert found(1, frozenset({6, 3}), 50).tolist() == [0, 1, 2, 3, 4]
    assert found(40, frozenset({6}), 20) is None


def test_what_is_not_finite_is_told():
    left, right = matrices(3, 2, 4)
    assert LowRank([Term(left=left, right=right, scale=1.0)]).finite
    left[1, 1] = np.nan
    assert not LowRank([Term(left=left, right=right, scale=1.0)]).finite
    zeros, huge = np.zeros((3, 2), np.float32), np.full((2, 4), 3e38, np.float32)  # whose squares are infinite
    assert not LowRank([Term(left=zeros, right=huge, scale=1.0)]).finite
