"""Files that were damaged anywhere are read or refused, and nothing else happens; see tests/fuzz_weights.py."""

from __future__ import annotations

from collections import Counter

import pytest

from tests import fuzz_weights
from tests.weights.mutants import KINDS


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("checkpoints", 500),
        ("models", 500),
        ("adapters", 300),
        ("merges", 200),
        ("consolidations", 200),
        ("bombs", 8),
    ],
)
def test_damaged_files_are_read_or_refused(tmp_path, kind, count):
    outcomes = Counter(result for result, _ in fuzz_weights.fuzz(count, 2, tmp_path, kind))
    assert outcomes.keys() <= {"read", "refused"}, min(outcomes)
    assert outcomes["refused"] > count / 3
    assert outcomes["read"] > 0 or kind == "bombs"


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_were_not_damaged_are_read(tmp_path, kind):
    whole = KINDS[kind].originals(tmp_path)
    assert {fuzz_weights.outcome(files, tmp_path / "one", KINDS[kind]) for files in whole} == {"read"}
