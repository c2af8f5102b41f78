"""Checkpoints that were damaged anywhere are read or refused, and nothing else happens; see tests/fuzz_weights.py."""

from __future__ import annotations

from collections import Counter

from tests import fuzz_weights


def test_damaged_checkpoints_are_read_or_refused(tmp_path):
    outcomes = Counter(result for result, _ in fuzz_weights.fuzz(500, 2, tmp_path))
    assert outcomes.keys() == {"read", "refused"}
    assert outcomes["refused"] > outcomes["read"] > 0


def test_checkpoints_that_were_not_damaged_are_read(tmp_path):
    whole = fuzz_weights.originals(tmp_path)
    assert [fuzz_weights.outcome(files, tmp_path / "one") for files in whole] == ["read"] * 3
