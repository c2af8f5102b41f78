"""Patches, selectors and what is read of bytes: by themselves, on anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.rehearsal.kubernetes import patches, protobuf
from cloudtune.rehearsal.kubernetes.selectors import by_fields, by_labels
from cloudtune.rehearsal.messages import Refused

KEYS = st.sampled_from(["a", "b", "c", "name"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text("xyz", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)


def without_none(value: Any) -> Any:
    """Return what is left of an object that is merged into nothing."""
    if isinstance(value, dict):
        return {key: without_none(one) for key, one in value.items() if one is not None}
    return value


@settings(max_examples=100, deadline=None)
@given(old=OBJECTS, patch=OBJECTS)
def test_a_merge_patch_says_what_the_object_has_then(old: dict[str, Any], patch: dict[str, Any]) -> None:
    new = patches.patched(patches.MERGE, old, patch)
    assert patches.patched(patches.MERGE, new, patch) == new
    for key, value in patch.items():
        if value is None:
            assert key not in new
        elif not isinstance(value, dict):
            assert new[key] == value
    assert {key: new[key] for key in old if key not in patch} == {key: old[key] for key in old if key not in patch}
    assert patches.patched(patches.MERGE, {}, patch) == without_none(patch)


def test_lists_are_joined_by_their_keys() -> None:
    old = {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}
    patch = {
        "containers": [
            {"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "$patch": "delete"}]},
            {"name": "c"},
        ],
        "args": ["x"],
        "$setElementOrder/containers": [{"name": "a"}],
    }
    new = patches.patched(patches.STRATEGIC, {**old, "args": ["old", "older"]}, patch)
    first = {"name": "a", "image": "1", "env": [{"name": "Y", "value": "2"}]}
    assert new == {"containers": [first, {"name": "b"}, {"name": "c"}], "args": ["x"]}


def test_a_json_patch_is_carried_out_in_order_or_not_at_all() -> None:
    old = {"a": {"b": [1, 2]}, "x/y": 1}
    deeds = [
        {"op": "test", "path": "/a/b/0", "value": 1},
        {"op": "add", "path": "/a/b/-", "value": 3},
        {"op": "add", "path": "/a/b/0", "value": 0},
        {"op": "move", "from": "/a/b/1", "path": "/c"},
        {"op": "copy", "from": "/c", "path": "/d"},
        {"op": "replace", "path": "/x~1y", "value": 2},
        {"op": "remove", "path": "/a/b/0"},
    ]
    assert patches.patched(patches.JSON, old, deeds) == {"a": {"b": [2, 3]}, "x/y": 2, "c": 1, "d": 1}
    assert old == {"a": {"b": [1, 2]}, "x/y": 1}
    for wrong in ({"op": "test", "path": "/c", "value": 9}, {"op": "remove", "path": "/none"}, {"op": "odd"}, {}):
        with pytest.raises(Refused):
            patches.patched(patches.JSON, old, [wrong])


@settings(max_examples=100, deadline=None)
@given(text=st.text("abc=!,() .in", max_size=20))
def test_a_selector_is_understood_or_refused(text: str) -> None:
    for read in (by_labels, lambda one: by_fields(one, "Pod")):
        status = 0
        try:
            assert read(text)({"metadata": {"labels": {"a": "b"}}}) in (True, False)
        except Refused as why:
            status = why.status
        assert status in (0, 400)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60))
def test_bytes_are_an_object_or_refused(data: bytes) -> None:
    for body in (data, b"k8s\x00" + data):
        try:
            assert "kind" in protobuf.object_of(body)
        except (ValueError, LookupError):
            pass
