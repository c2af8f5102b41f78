"""Two plans side by side."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloudtune.comparison import Comparison, Difference, Side, differences

KEYS = st.sampled_from(["id", "path", "x", "y"])
JSON = st.recursive(
    st.integers(2, 4) | st.sampled_from(["a", "b"]),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(KEYS, inner, min_size=1),
    max_leaves=8,
)
PLANS = st.dictionaries(KEYS, JSON)


def side(name: str, spec: dict[str, Any], *notes: tuple[str, str]) -> Side:
    fields = [{"path": path, "status": status, "reason": f"because of {path}"} for path, status in notes]
    return Side(name=name, plan={"backend": name, "fields": fields}, spec={"kind": "job", "spec": spec})


def test_differences_are_told_by_what_they_are_about() -> None:
    first = {"launch": {"nodes": 6}, "steps": [{"id": "job", "p": {"x": [1]}}, {"id": "run"}], "files": [1, 2]}
    second = {"launch": {"nodes": 2}, "steps": [{"id": "run"}], "files": [1, 3], "more": True, "none": {}}
    assert differences(first, second) == (
        ("launch.nodes", 6, 2),
        ("steps[job].id", "job", None),
        ("steps[job].p.x[0]", 1, None),
        ("files[1]", 2, 3),
        ("more", None, True),
        ("none", None, {}),
    )
    assert differences(first, first) == ()


@given(one=PLANS, other=PLANS)
def test_equal_plans_alone_do_not_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    found = differences(one, other)
    assert (found == ()) == (one == other)
    assert sorted(differences(other, one), key=str) == sorted(((path, b, a) for path, a, b in found), key=str)


def test_keys_are_supported_unless_the_plan_has_a_note_on_them_or_on_what_they_belong_to() -> None:
    spec = {
        "name": "j",
        "infrastructure": {"kind": "infrastructure", "type": "cloud", "spec": {"shapeName": "A"}},
        "runtime": {
            "kind": "runtime",
            "type": "python",
            "spec": {"conda": {"type": "service", "slug": "s"}, "env": [{"name": "X", "value": "1"}], "replicas": 2},
        },
    }
    found = side(
        "cloud",
        spec,
        ("spec.runtime.spec.conda", "approximated"),
        ("spec.runtime.spec.env[0].value", "refused"),
        ("spec.infrastructure.spec.stagingUri", "approximated"),
    )
    assert found.supported == (
        "spec.name",
        "spec.infrastructure.type",
        "spec.infrastructure.spec.shapeName",
        "spec.runtime.type",
        "spec.runtime.spec.replicas",
    )
    assert [path for path, _ in found.notes("approximated")] == [
        "spec.runtime.spec.conda",
        "spec.infrastructure.spec.stagingUri",
    ]
    assert found.notes("refused") == (("spec.runtime.spec.env[0].value", "because of spec.runtime.spec.env[0].value"),)


def test_the_keys_of_a_pipeline_are_told_by_step() -> None:
    steps = [{"name": "a", "job": {"runtime": {"type": "python"}}}, {"name": "m", "merge": {"base": "b"}}]
    found = side("p", {"steps": steps}, ("spec.steps[0].job.runtime.type", "refused"))
    assert found.supported == ("spec.steps[0].name", "spec.steps[1].name", "spec.steps[1].merge.base")


def test_a_comparison_as_data_has_both_sides() -> None:
    first, second = side("here", {"name": "j"}), side("there", {"name": "j"}, ("spec.name", "refused"))
    assert Comparison(first=first, second=second).to_dict() == {
        "first": "here",
        "second": "there",
        "differences": [{"path": "backend", "first": "here", "second": "there"}],
        "fields": [
            {"place": "here", "supported": ["spec.name"], "approximated": [], "refused": []},
            {
                "place": "there",
                "supported": [],
                "approximated": [],
                "refused": [{"path": "spec.name", "reason": "because of spec.name"}],
            },
        ],
    }


def test_four_places_stand_side_by_side() -> None:
    sides = [side(name, {"name": "j"}) for name in ("a", "b", "c")]
    sides.append(side("d", {"name": "j"}, ("spec.name", "approximated")))
    found = Comparison(first=sides[0], second=sides[1], more=tuple(sides[2:]))
    assert found.differences == (("backend", "a", "b", "c", "d"),)
    data = found.to_dict()
    assert data["places"] == ["a", "b", "c", "d"]
    assert data["differences"] == [{"path": "backend", "values": ["a", "b", "c", "d"]}]
    assert [one["place"] for one in data["fields"]] == ["a", "b", "c", "d"]
    assert data["fields"][3]["approximated"] == [{"path": "spec.name", "reason": "because of spec.name"}]


def test_an_outline_names_requests_and_shows_what_those_hold_that_several_places_have() -> None:
    def step(name: str, operation: str, **parameters: Any) -> dict[str, Any]:
        return {"id": name, "service": "s", "operation": operation, "parameters": parameters}

    def outlined(**steps: list[dict[str, Any]]) -> tuple[Difference, ...]:
        sides = [side(name, {"name": "j"}) for name in steps]
        for one in sides:
            one.plan.update({"runId": one.name, "backend": "x", "steps": steps[one.name]})  # type: ignore[attr-defined]
        return Comparison(first=sides[0], second=sides[1], more=tuple(sides[2:])).outline

    first, second = [step("code", "put", key=1), step("job", "create", n=2)], [step("code", "put", key=2)]
    assert outlined(a=first, b=second) == (
        ("requests.job", "s create", None),
        ("steps[code].parameters.key", 1, 2),
    )
    # of three, two ask the same otherwise, which the third does not ask
    third = [step("code", "put", key=2), step("job", "create", n=3)]
    assert outlined(a=first, b=[step("job", "start", n=9)], c=third) == (
        ("requests.code", "s put", None, "s put"),
        ("requests.job", "s create", "s start", "s create"),
        ("steps[code].parameters.key", 1, None, 2),
        ("steps[job].parameters.n", 2, None, 3),
    )
    assert outlined(a=first, b=first, c=first) == ()


def test_each_key_has_a_status_in_every_place() -> None:
    spec = {"name": "j", "runtime": {"spec": {"env": [1], "conda": {"slug": "s"}, "replicas": 2}}}
    here = side(
        "here", spec, ("spec.runtime.spec.conda", "approximated"), ("spec.runtime.spec.env[0].value", "refused")
    )
    there = side("there", {"name": "j", "image": "i"}, ("spec.outputPath", "refused"))
    assert Comparison(first=here, second=there).honoured == (
        ("spec.name", "supported", "supported"),
        ("spec.runtime.spec.env", "refused", ""),
        ("spec.runtime.spec.conda.slug", "approximated", ""),
        ("spec.runtime.spec.replicas", "supported", ""),
        ("spec.image", "", "supported"),
        ("spec.outputPath", "", "refused"),
    )


@given(plans=st.lists(PLANS, min_size=2, max_size=4))
def test_plans_differ_together_where_any_two_do(plans: list[dict[str, Any]]) -> None:
    found = differences(*plans)
    assert (found == ()) == all(plan == plans[0] for plan in plans)
    assert all(len(row) == len(plans) + 1 for row in found)
    assert len({row[0] for row in found}) == len(found)
