"""Verbs as functions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cloudtune
from cloudtune import verbs


def test_differences_are_told_by_what_they_are_about() -> None:
    first = {"launch": {"nodes": 6}, "steps": [{"id": "job", "p": 1}, {"id": "run"}], "files": [1, 2]}
    second = {"launch": {"nodes": 2}, "steps": [{"id": "run"}], "files": [1, 3], "more": True}
    assert verbs.diff(first, second) == [
        ("launch.nodes", 6, 2),
        ("steps[job]", {"id": "job", "p": 1}, None),
        ("files[1]", 2, 3),
        ("more", None, True),
    ]
    assert verbs.diff(first, first) == []


def test_two_runs_are_compared_by_their_plans(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    spec = {"runtime": {"type": "pyTorchDistributed", "spec": {"command": "true"}}}
    file.write_text(json.dumps({"kind": "job", "spec": spec}))
    one = cloudtune.run(str(file))
    two = cloudtune.run(str(file), set=["runtime.replicas=2"])
    paths = [path for path, _, _ in cloudtune.diff(verbs.kept_plan(one.id), verbs.kept_plan(two.id))]
    assert "launch.nodes" in paths
    assert "runId" in paths
    assert one.wait(60).state == two.wait(60).state == "succeeded"


def test_outputs_are_listed_and_downloaded(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    command = 'mkdir -p "$CLOUDTUNE_OUTPUT_DIR/deep"; echo one > "$CLOUDTUNE_OUTPUT_DIR/deep/a.txt"'
    spec = {"runtime": {"type": "pyTorchDistributed", "spec": {"command": command}}}
    file.write_text(json.dumps({"kind": "job", "spec": spec}))
    run = cloudtune.run(str(file))
    run.wait(60)
    listed = cloudtune.outputs(run.id)
    assert [one["bytes"] for one in listed if one["uri"].endswith("deep/a.txt")] == [4]
    cloudtune.outputs(run.id, directory=tmp_path / "here")
    assert (tmp_path / "here" / "deep" / "a.txt").read_text() == "one\n"


def test_what_is_unknown_is_said() -> None:
    with pytest.raises(cloudtune.RunNotFound, match="model or deployment"):
        cloudtune.delete("nothing")
    with pytest.raises(cloudtune.RunNotFound, match="deployment"):
        cloudtune.invoke("nothing", "hello")
    with pytest.raises(cloudtune.UsageError, match="neither a registered model nor a folder"):
        cloudtune.deploy("nothing")
    with pytest.raises(cloudtune.UsageError, match="registries of this release"):
        cloudtune.register("x", to="nowhere", name="x")


def test_ready_made_files_are_written_once(tmp_path: Path) -> None:
    (written,) = cloudtune.init("quickstart", directory=tmp_path)
    assert verbs.plan(verbs.read(written)).name == "quickstart"
    with pytest.raises(cloudtune.UsageError, match="--force"):
        cloudtune.init("quickstart", directory=tmp_path)


def test_a_file_that_looks_like_a_credential_stops_the_run_unless_named(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "main.py").write_text("print('ran')\n")
    (code / ".env").write_text("DATABASE_PASSWORD=" + "x9" * 10 + "\n")
    file = tmp_path / "job.json"
    spec = {"runtime": {"type": "python", "spec": {"scriptPathURI": str(code), "entrypoint": "main.py"}}}
    file.write_text(json.dumps({"kind": "job", "spec": spec}))
    with pytest.raises(cloudtune.SpecError, match=r"\.env"):
        cloudtune.run(str(file))
    assert cloudtune.run(str(file), allow_file=[".env"]).wait(60).state == "succeeded"
