"""A thousand mutated files, each read or refused; tests/fuzz_yaml.py does the same for as many as one likes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import SpecError
from cloudtune.spec.document import dumps, from_dict, load
from tests.fuzz_yaml import outcomes
from tests.strategies import JSON, TRAPS


def test_a_thousand_mutated_files_are_read_or_refused() -> None:
    counts = Counter(outcome for outcome, _ in outcomes(1000, seed=20))
    assert set(counts) == {"read", "refused"}, min(counts)
    assert min(counts.values()) > 50


_WORDS = st.sampled_from(
    ["kind", "job", "pipeline", "spec", "runtime", "type", "python", "steps", "env", "name", "merge"]
)
_DATA = st.recursive(
    _WORDS | st.sampled_from(TRAPS) | JSON,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(_WORDS, _DATA, max_size=4))
def test_any_data_is_read_or_refused(data: dict[str, object]) -> None:
    try:
        spec = from_dict(data)
    except SpecError:
        return
    assert load(dumps(spec)) == spec


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        load(text + "\n")
    except SpecError:
        return
