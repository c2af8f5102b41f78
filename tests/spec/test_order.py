"""The order of steps, and of anything that needs something else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import SpecError
from cloudtune.spec.graph import sort
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.order import needs_of, order_of_steps, references
from cloudtune.spec.runtimes import PythonRuntime


def step(name: str, *needs: str, **options: str) -> PipelineStep:
    """Return a step with options."""
    return PipelineStep(name=name, needs=needs, verb="merge", options=options)


def names(*steps: PipelineStep) -> list[str]:
    """Return the names of steps in their order."""
    return [one.name for one in order_of_steps(PipelineSpec(steps=steps))]


def test_steps_stand_after_what_they_need_and_else_as_written() -> None:
    assert names(step("c"), step("a"), step("b")) == ["c", "a", "b"]
    assert names(step("c", "b"), step("a"), step("b", "a")) == ["a", "b", "c"]
    assert names(step("z", "b"), step("y"), step("b"), step("a")) == ["y", "b", "z", "a"]


def test_a_reference_is_a_need() -> None:
    job = JobSpec(runtime=PythonRuntime(script_path_uri="a.py", inputs={"${steps.data.outputs}/x": "x"}))
    train = PipelineStep(name="train", job=job)
    assert names(step("merge", base="${steps.train.outputs}"), train, step("data")) == ["data", "train", "merge"]
    assert needs_of(PipelineSpec(steps=(train,))) == {"train": ("data",)}
    assert [(name, field) for _, name, field in references(train)] == [("data", "outputs")]


def test_a_circle_is_an_error() -> None:
    with pytest.raises(SpecError, match="a needs b needs a"):
        names(step("a", "b"), step("b", x="${steps.a.outputs}"))


@settings(max_examples=200)
@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=3), max_size=10))
def test_any_graph_is_sorted_or_has_a_circle(graph: dict[int, list[int]]) -> None:
    needs = {str(name): [str(need) for need in wanted] for name, wanted in graph.items()}
    order, circle = sort(needs)
    assert len(set(order)) == len(order)
    for index, name in enumerate(order):
        assert all(need in order[:index] for need in needs[name] if need in needs)
    if circle:
        assert len(order) < len(needs)
        for name, following in zip(circle, [*circle[1:], circle[0]], strict=True):
            assert following in needs[name]
    else:
        assert sorted(order) == sorted(needs)


def test_a_hundred_thousand_in_a_row() -> None:
    needs = {str(n): [str(n + 1)] for n in range(100_000)}
    order, circle = sort(needs)
    assert (order[0], order[-1], circle) == ("99999", "0", [])
