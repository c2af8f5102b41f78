"""Overrides: JSON Merge Patch, the examples of RFC 7396's appendix among them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.backends.local import LocalBackend
from cloudtune.backends.patches import merge_patch, patched
from cloudtune.errors import SpecError
from cloudtune.plan import Masked, Ref, Step
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime

RFC = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ({}, {"a": [{"b": None}]}, {"a": [{"b": None}]}),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(("target", "patch", "result"), RFC)
def test_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@given(JSON, JSON)
def test_a_patch_changes_neither_side_and_goes_in_once(target: Any, patch: Any) -> None:
    before = json.dumps([target, patch])
    once = merge_patch(target, patch)
    assert json.dumps([target, patch]) == before
    assert merge_patch(once, patch) == once


def test_references_stay_and_text_that_looks_like_one_stays_text() -> None:
    step = Step(id="run", service="s", operation="o", parameters={"jobId": Ref("job", "id"), "a": {"b": 1}})
    (changed,) = patched((step,), {"run": {"a": {"c": "${job.id}"}}})
    assert changed.parameters == {"jobId": Ref("job", "id"), "a": {"b": 1, "c": "${job.id}"}}
    assert step.parameters["a"] == {"b": 1}


def test_a_literal_secret_in_a_patch_is_masked() -> None:
    step = Step(id="job", service="s", operation="o", parameters={})
    (changed,) = patched((step,), {"job": {"env": {"HF_TOKEN": "hf_q"}, "key": "nvidia.com/gpu"}})
    assert changed.parameters == {"env": {"HF_TOKEN": Masked("HF_TOKEN", "hf_q")}, "key": "nvidia.com/gpu"}


def test_secrets_are_masked_at_any_depth_and_by_what_they_hold() -> None:
    step = Step(id="job", service="s", operation="o", parameters={"env": {"A_TOKEN": Masked("A_TOKEN", "known")}})
    patch = {
        "items": [{"name": "B_KEY", "value": "secret"}, {"name": "B", "value": "plain"}],
        "text": "with known in it",
        "db_password": "other",
        "hook": "https://me:pw@h/x",
        "more": {"tolerations": [{"key": "nvidia.com/gpu"}], "A_TOKEN": "unlike"},
    }
    (changed,) = patched((step,), {"job": patch})
    assert changed.parameters == {
        "env": {"A_TOKEN": Masked("A_TOKEN", "known")},
        "items": [{"name": "B_KEY", "value": Masked("B_KEY", "secret")}, {"name": "B", "value": "plain"}],
        "text": Masked("JOB_TEXT_SECRET", "with known in it"),
        "db_password": Masked("db_password", "other"),
        "hook": Masked("JOB_HOOK_SECRET", "https://me:pw@h/x"),
        "more": {
            "tolerations": [{"key": "nvidia.com/gpu"}],
            "A_TOKEN": Masked("JOB_MORE_A_TOKEN_SECRET", "unlike"),
        },
    }


def test_what_a_record_does_not_keep_is_asked_for_by_name() -> None:
    step = Step(id="job", service="s", operation="o", parameters={})
    (changed,) = patched((step,), {"job": {"HF_TOKEN": "${masked:HF_TOKEN}", "a": "x ${masked:A}"}})
    assert changed.parameters == {"HF_TOKEN": Masked("HF_TOKEN"), "a": "x ${masked:A}"}


def test_every_wrong_step_is_named_with_the_steps_there_are() -> None:
    steps = (Step(id="job", service="s", operation="o"), Step(id="run", service="s", operation="o"))
    with pytest.raises(SpecError) as caught:
        patched(steps, {"jobs": {}, "runs": {}, "run": 3})
    assert [fault.path.rpartition(".")[2] for fault in caught.value.faults] == ["jobs", "runs", "run"]
    assert "steps: job, run" in str(caught.value)


def test_the_local_backend_applies_them() -> None:
    runtime = PyTorchDistributedRuntime(command="true")
    place = LocalJob(overrides={"stage": {"order": {"graceInSeconds": 5}}})
    plan = LocalBackend().plan(JobSpec(infrastructure=place, runtime=runtime), "abcdefgh")
    order = plan.steps[0].parameters["order"]
    assert order["graceInSeconds"] == 5
    assert order["runId"] == "abcdefgh"
