"""Elements of 16 bits to 32 and back: against torch for every pattern, and against exact numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.weights.files import rounding
from cloudtune.weights.files.rounding import Doubtful, narrow, rounded, view, widen
from tests.weights.merge.merging import tools

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def patterns():
    return np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)


def difficult():
    """Return float32 values: any, near ties of both types, subnormal, infinite, NaN with and without payload."""
    random = np.random.default_rng(0)
    some = random.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    ties = np.concatenate([(some & np.uint32(0xFFFF0000)) + np.uint32(0x8000 + k) for k in (-2, -1, 0, 1, 2)])
    halves = np.concatenate([(some & np.uint32(0xFFFFE000)) + np.uint32(0x1000 + k) for k in (-2, -1, 0, 1, 2)])
    small = some & np.uint32(0x83FFFFFF)
    last = np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    return np.concatenate((some, ties, halves, small, last)).view(np.float32)


@pytest.mark.heavy
@pytest.mark.parametrize(("dtype", "name"), [("BF16", "bfloat16"), ("F16", "float16")])
def test_every_pattern_and_difficult_numbers_are_as_in_torch(dtype, name):
    torch = tools()[0]
    kind = getattr(torch, name)
    stored = patterns() if dtype == "BF16" else patterns().view(np.float16)
    wide = torch.from_numpy(patterns().view(np.int16)).view(kind).float().numpy()
    assert np.array_equal(widen(stored, dtype), wide, equal_nan=True)
    numbers = difficult()
    wanted = torch.from_numpy(numbers.copy()).to(kind).float().numpy()
    found = widen(narrow(numbers.copy(), dtype), dtype)
    assert np.array_equal(found, wanted, equal_nan=True)
    assert np.array_equal(np.signbit(found)[~np.isnan(found)], np.signbit(wanted)[~np.isnan(found)])


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_rounding_takes_the_nearest_and_of_two_the_even_one(numbers):
    found = narrow(np.array(numbers, np.float32), "BF16")
    for number, upper in zip(np.array(numbers, np.float32), found, strict=True):
        neighbours = [int(upper) + step for step in (-1, 1) if 0 <= (int(upper) & 0x7FFF) + step < 0x7F80]
        if (upper & 0x7FFF) == 0x7F80:
            # halfway between the largest number and the one that there would be after it
            assert abs(Fraction(float(number))) >= Fraction(2) ** 128 - Fraction(2) ** 119
            continue
        exact = Fraction(float(number))
        distance = abs(exact - value(upper))
        for other in neighbours:
            beyond = abs(exact - value(np.uint16(other)))
            assert distance < beyond or (distance == beyond and upper % 2 == 0)


def value(upper):
    return Fraction(float((np.array([upper], np.uint32) << 16).view(np.float32)[0]))


def test_scratch_and_buffers_change_nothing():
    numbers = difficult()
    numbers = numbers[np.isfinite(numbers)]
    for dtype in rounding.STORED:
        wanted = narrow(numbers.copy(), dtype)
        out = np.empty(numbers.shape, rounding.STORED[dtype])
        assert narrow(numbers.copy(), dtype, out, scratch=np.empty(numbers.shape, np.uint32)) is out
        assert out.tobytes() == wanted.tobytes()
        again = np.empty(numbers.shape, np.float32)
        assert widen(wanted, dtype, again) is again
        assert np.array_equal(again, rounded(numbers, dtype))


def test_wide_types_are_kept_or_rounded_once():
    numbers = np.array([1 + 2**-30, 1e300, -1e-300], np.float64)
    assert widen(numbers, "F64").tolist() == [1.0, np.inf, 0.0]
    assert view(numbers.tobytes(), "F64").tolist() == numbers.tolist()
    assert narrow(np.array([0.1], np.float32), "F32").tolist() == [np.float32(0.1)]


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("error", [0.0, 1e-9, 1e-6])
def test_what_is_not_in_doubt_is_right_whatever_the_error(dtype, error):
    random = np.random.default_rng(1)
    exact = np.concatenate((random.standard_normal(30_000), random.standard_normal(30_000) * 1e-6)).astype(np.float32)
    ties = (exact[:4000].view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x8000)
    exact = np.concatenate((exact, ties.view(np.float32))).reshape(-1, 8)
    off = exact + np.float32(error) * random.choice([-1, 1, 0.5], exact.shape).astype(np.float32)
    off = off.view(np.int32) + random.integers(-1, 2, exact.shape).astype(np.int32)  # and one unit in the last place
    out = np.empty(exact.shape, rounding.STORED[dtype])
    doubtful = Doubtful(exact.size).round(off.view(np.float32).copy(), error, dtype, out)
    wanted = narrow(exact.copy(), dtype)
    wrong = np.flatnonzero(out.view(np.uint16) != wanted.view(np.uint16))
    assert set(wrong) <= set(doubtful.tolist())
    assert len(doubtful) < exact.size // (2 if error < 1e-6 else 1)
