"""What a recipe is to read on this machine, looked for before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudtune import jobs
from cloudtune.errors import SpecError
from cloudtune.launch.sources import absent
from cloudtune.pipeline_plans import plan_pipeline
from cloudtune.spec.document import load
from cloudtune.spec.infrastructure import DataScienceJob, LocalJob
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.runtime import Recipe
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.store import Store

ARGS = "spec.runtime.spec.recipe.args"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder and home: it holds a model, rows, and a folder of rows."""
    for name in ("model", "data", "owner/name"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "rows.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def job(place: Any = None, *, inputs: dict[str, str] | None = None, **args: str) -> JobSpec:
    recipe = Recipe(name="sft", args={"model": "~/model", "trainData": "owner/rows", **args})
    runtime = PyTorchDistributedRuntime(recipe=recipe, inputs=inputs or {})
    return JobSpec(infrastructure=place or LocalJob(), runtime=runtime)


@pytest.mark.parametrize(
    ("args", "told", "hint"),
    [
        ({"trainData": "/none/rows.jsonl"}, "nothing is at /none/rows.jsonl on this machine", "look at the path"),
        ({"train_data": "file:///none/rows.jsonl"}, "nothing is at /none/rows.jsonl", "look at the path"),
        ({"eval-data": "~/none"}, "nothing is at {here}/none on this machine", "look at the path"),
        (
            {"trainData": "rows.jsonl"},
            "rows.jsonl is looked up in the run's own folder",
            "full path: {here}/rows.jsonl",
        ),
        ({"trainData": "data"}, "data is looked up in the run's own folder", "write the full path: {here}/data"),
        ({"trainData": "./none"}, "looked up in the run's own folder", "write the full path, or have it fetched"),
        ({"trainData": "none.json"}, "looked up in the run's own folder", "write the full path, or have it fetched"),
        (
            {"trainData": "s3://b/rows.jsonl"},
            "s3://b/rows.jsonl is not fetched by the recipe",
            "write inputs: {{s3://b/rows.jsonl: rows.jsonl}} beside it, and trainData: rows.jsonl",
        ),
    ],
)
def test_what_is_not_there_is_refused_before_anything_starts(
    here: Path, args: dict[str, str], told: str, hint: str
) -> None:
    (found,) = absent(job(**args))
    assert found[0] == f"{ARGS}.{next(iter(args))}"
    assert told.format(here=here) in found[1]
    assert hint.format(here=here) in str(found[2])
    # told in the plan, which may be made elsewhere; a run does not start
    assert [one.path for one in jobs.plan_job(job(**args)).warnings] == [found[0]]
    store = Store(here / "home")
    with pytest.raises(SpecError, match=r"recipe\.args"):
        jobs.start(job(**args), store=store)
    assert store.runs() == ()


@pytest.mark.parametrize(
    "args",
    [
        {"trainData": "owner/rows"},
        {"trainData": "{here}/rows.jsonl"},
        {"trainData": "$ROWS/rows.jsonl"},
        {"model": "owner/name"},  # of the Hub, though a folder has the name
        {"trainData": "kept/rows.jsonl", "evalData": "kept"},
        {"chatTemplate": "/none/template.jinja"},
    ],
)
def test_of_what_may_be_there_nothing_is_said(here: Path, args: dict[str, str]) -> None:
    named = {key: value.format(here=here) for key, value in args.items()}
    assert list(absent(job(inputs={"s3://b/rows": "kept"}, **named))) == []


def test_nothing_is_said_of_other_places(here: Path) -> None:
    assert list(absent(job(DataScienceJob(), trainData="/none/rows.jsonl"))) == []


def test_what_an_earlier_step_writes_is_not_there_yet(here: Path) -> None:
    pipeline = load(
        """
        kind: pipeline
        spec:
          name: two
          steps:
            - name: rows
              job: {runtime: {kind: runtime, type: script, spec: {recipe: {name: prepare, args: {data: /none}}}}}
            - name: train
              job:
                runtime:
                  kind: runtime
                  type: pyTorchDistributed
                  spec:
                    recipe: {name: sft, args: {model: /absent, trainData: "${steps.rows.outputs}/train.jsonl"}}
        """
    )
    assert isinstance(pipeline, PipelineSpec)
    said = [
        (one.path, one.message) for one in plan_pipeline(pipeline, "abcdefgh").warnings if "nothing is" in one.message
    ]
    assert [path for path, _ in said] == [
        "spec.steps[0].job.runtime.spec.recipe.args.data",
        "spec.steps[1].job.runtime.spec.recipe.args.model",
    ]
