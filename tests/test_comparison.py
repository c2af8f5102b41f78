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
    plan = {"backend": name, "fields": fields, "warnings": []}
    return Side(name=name, plan=plan, spec={"kind": "job", "spec": spec})


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
    first.plan["warnings"].append({"path": "spec.x", "message": "costs"})
    assert Comparison(first=first, second=second).to_dict() == {
        "first": "here",
        "second": "there",
        "differences": [
            {"path": "backend", "first": "here", "second": "there"},
            {"path": "warnings[spec.x].path", "first": "spec.x", "second": None},
            {"path": "warnings[spec.x].message", "first": "costs", "second": None},
        ],
        "fields": [
            {
                "place": "here",
                "supported": ["spec.name"],
                "approximated": [],
                "refused": [],
                "warnings": [{"path": "spec.x", "message": "costs"}],
            },
            {
                "place": "there",
                "supported": [],
                "approximated": [],
                "refused": [{"path": "spec.name", "reason": "because of spec.name"}],
                "warnings": [],
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


def step(name: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
    return {"id": name, "service": "s", "operation": operation, "parameters": parameters}


def outlined(*plans: list[dict[str, Any]]) -> tuple[Difference, ...]:
    """Return the outline of plans of these steps, whose run ids are 0aaaaaaa, 1aaaaaaa, ..."""
    sides = []
    for index, steps in enumerate(plans):
        plan = {"runId": f"{index}aaaaaaa", "steps": steps, "fields": [], "warnings": []}
        sides.append(Side(name=str(index), plan=plan, spec={"kind": "job", "spec": {}}))
    return Comparison(first=sides[0], second=sides[1], more=tuple(sides[2:])).outline


def test_an_outline_names_requests_and_shows_what_those_hold_that_several_places_have() -> None:
    first, second = [step("code", "put", key=1), step("job", "create", n=2)], [step("code", "put", key=2)]
    assert outlined(first, second) == (
        ("steps[job]", "s create", None),
        ("steps[code].parameters.key", 1, 2),
    )
    # of three, two ask the same otherwise, which the third does not ask
    third = [step("code", "put", key=2), step("job", "create", n=3)]
    assert outlined(first, [step("job", "start", n=9)], third) == (
        ("steps[code]", "s put", None, "s put"),
        ("steps[job]", "s create", "s start", "s create"),
        ("steps[code].parameters.key", 1, None, 2),
        ("steps[job].parameters.n", 2, None, 3),
    )
    assert outlined(first, first, first) == ()


def test_requests_that_create_different_kinds_are_named_alone() -> None:
    job, pytorch = step("job", "create", kind="Job", n=2), step("job", "create", kind="PyTorchJob", n=3)
    assert outlined([job], [pytorch]) == (("steps[job]", "s create Job", "s create PyTorchJob"),)
    other = step("job", "create", kind="Job", n=4)
    assert outlined([job], [pytorch], [other]) == (
        ("steps[job]", "s create Job", "s create PyTorchJob", "s create Job"),
        ("steps[job].parameters.n", 2, None, 4),
    )


def test_what_differs_by_the_run_id_alone_does_not_differ_in_the_outline() -> None:
    def own(run: str, image: str) -> list[dict[str, Any]]:
        labels = {"run": run, f"of/{run}": "yes"}
        return [
            {**step("job", "create", name=f"j-{run}", labels=labels, command=[run, image]), "token": f"t-{run}-job"}
        ]

    assert outlined(own("0aaaaaaa", "i"), own("1aaaaaaa", "i")) == ()
    assert outlined(own("0aaaaaaa", "i:0aaaaaaa"), own("1aaaaaaa", "k")) == (
        ("steps[job].parameters.command[1]", "i:<run-id>", "k"),
    )
    # another run's id is a difference
    assert outlined(own("0aaaaaaa", "i"), own("0aaaaaaa", "i")) != ()


def test_a_file_is_one_row_of_the_outline() -> None:
    def put(**files: str) -> list[dict[str, Any]]:
        kept = [{"path": path, "bytes": 7, "sha256": text * 64} for path, text in files.items()]
        return [{**step("code", "put"), "files": kept}]

    assert outlined(put(same="a", other="b", gone="c"), put(same="a", other="d")) == (
        ("steps[code].files[other]", f"7 bytes, sha256 {'b' * 12}", f"7 bytes, sha256 {'d' * 12}"),
        ("steps[code].files[gone]", f"7 bytes, sha256 {'c' * 12}", None),
    )


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
