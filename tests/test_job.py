"""The value with verbs: what a notebook uses."""

from __future__ import annotations

import builtins
import pkgutil
import re
from pathlib import Path

import attrs
import pytest

import cloudtune
from cloudtune import (
    DataScienceJob,
    Job,
    LocalJob,
    Pipeline,
    PyTorchDistributedRuntime,
    SpecError,
    UsageError,
)


def job(command: str = "echo hello") -> Job:
    return Job(name="hello").with_infrastructure(LocalJob()).with_runtime(PyTorchDistributedRuntime(command=command))


def test_builders_leave_their_original_alone() -> None:
    before = job()
    after = before.with_name("other")
    assert isinstance(after, Job)
    assert (before.name, after.name) == ("hello", "other")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        before.name = "x"  # type: ignore[misc]


def test_yaml_gives_the_same_job_back() -> None:
    assert Job.from_yaml(job().to_yaml()) == job()
    pipeline = "kind: pipeline\nspec: {name: p, steps: [{name: a, job: {runtime: {type: python, spec: {recipe: {name: sft}}}}}]}"
    assert Pipeline.from_yaml(pipeline).steps[0].name == "a"
    with pytest.raises(UsageError, match="pipeline"):
        Job.from_yaml(pipeline)


def test_a_run_of_a_job_changes_that_run_only(tmp_path: Path) -> None:
    script = tmp_path / "s.sh"
    script.write_text('echo "$GREETING $*"\n')
    base = Job(name="args").with_runtime(
        cloudtune.ScriptRuntime(script_path_uri=str(script)).with_argument("a").with_environment_variable(GREETING="hi")
    )
    run = base.run("other", args="b 'c d'", env_var={"GREETING": "bye"}, wait=True)
    assert run.state == "succeeded"
    assert run.name == "other"
    assert "bye b c d" in [line.text for line in run.lines()]
    assert base.runtime is not None
    assert base.runtime.args == ("a",)
    assert [one.id for one in base.with_name("other").run_list()] == [run.id]


def test_watch_shows_lines_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    run = job("echo 'for you'; exit 9").run()
    status = run.watch()
    said = capsys.readouterr().out
    assert "for you" in said
    assert "exit code 9" in said
    assert status.state == "failed"
    with pytest.raises(cloudtune.RunFailed, match="exit code 9"):
        run.result()


def test_values_show_themselves_in_a_notebook() -> None:
    for value in (job(), job().plan(), job().run(), cloudtune.list(), cloudtune.Model(name="m", version="1", uri="/x")):
        html = value._repr_html_()
        assert html.startswith(("<table", "<b>"))


def test_what_users_wrote_is_text_in_a_notebook() -> None:
    bad = '<img src="x" onerror="alert(1)">'
    named = job(f"echo {bad}").with_name(bad)
    model = cloudtune.Model(name=bad, version="1", uri="/x", metrics={bad: bad})
    for value in (named, named.plan(), named.run(), cloudtune.list(), model):
        html = value._repr_html_()
        assert "&lt;img src=" in html
        assert "<img" not in html


def test_placeholders_warn_in_a_plan_and_stop_a_run() -> None:
    filled = job("train --token <your token>")
    assert any("<your token>" in notice.message for notice in filled.plan().warnings)
    with pytest.raises(SpecError, match="placeholder"):
        filled.run()
    assert job("sort <in.txt >out.txt").plan().warnings == ()


def test_a_bare_variable_is_read_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudtune import EnvironmentVariable

    runtime = PyTorchDistributedRuntime(
        command='echo "value $FROM_SHELL"', env=(EnvironmentVariable(name="FROM_SHELL"),)
    )
    bare = Job(name="bare", runtime=runtime)
    monkeypatch.delenv("FROM_SHELL", raising=False)
    with pytest.raises(UsageError, match="FROM_SHELL"):
        bare.run()
    monkeypatch.setenv("FROM_SHELL", "42")
    run = bare.run(wait=True)
    assert "value 42" in [line.text for line in run.lines()]


def test_the_python_of_the_oci_guide_runs_with_its_import_line_changed(shared: Path) -> None:
    text = (shared / "seeds" / "oci-ads-distributed.md").read_text()
    block = re.search(r"```python\n(from ads\.jobs.*?)```", text, re.DOTALL)
    assert block is not None
    names: dict[str, object] = {}
    exec(block[1].replace("from ads.jobs import", "from cloudtune import"), names)
    made = names["job"]
    assert isinstance(made, Job)
    assert isinstance(made.infrastructure, DataScienceJob)
    plan = made.plan()
    assert plan.launch is not None
    assert (plan.launch.nodes, plan.launch.processes_per_node, plan.launch.accelerator) == (2, 1, "A10")


def test_every_public_name_exists_and_is_typed() -> None:
    stub = (Path(cloudtune.__file__).parent / "__init__.pyi").read_text()
    typed = set(re.findall(r"as (\w+),", stub)) | {"__version__"}
    assert typed == set(dir(cloudtune))
    for name in typed:
        assert getattr(cloudtune, name) is not None


def test_a_star_import_hides_no_builtin() -> None:
    names: dict[str, object] = {}
    exec("from cloudtune import *", names)
    assert set(names) - {"__builtins__"} == set(dir(cloudtune)) - {"list"}
    assert [name for name in names if hasattr(builtins, name)] == []
    assert callable(cloudtune.list)


def test_no_public_name_is_a_room_of_the_package_too() -> None:
    """What a room is called would be the room as soon as something imports it."""
    assert {module.name for module in pkgutil.iter_modules(cloudtune.__path__)} & set(dir(cloudtune)) == set()
