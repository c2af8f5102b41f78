"""A model filed and deployed on OCI by the steps of a pipeline, which is gone on with after a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cloudtune
from cloudtune.errors import UsageError
from cloudtune.rehearsal import faults
from cloudtune.store import Store
from tests.deployments.oci_serving import IMAGE, SHAPE, Serving
from tests.registries.models import merged

pytest.importorskip("oci", reason="the oci SDK is not installed")


def test_steps_file_and_deploy(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config" / "mine.yaml").unlink()  # the pipeline itself says whose all is
    owner = {"compartmentId": serving.place.compartment, "projectId": serving.place.project}
    place = {"kind": "infrastructure", "type": "dataScienceJob", "spec": owner}
    steps = [
        {"name": "file", "register": {"model": str(merged(tmp_path / "clerk")), "to": "oci", "name": "clerk"}},
        {
            "name": "serve",
            "needs": ["file"],
            "deploy": {"model": "clerk", "to": "oci", "shape": SHAPE, "image": IMAGE, "maxLength": 4096},
        },
    ]
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps({"kind": "pipeline", "spec": {"name": "p", "infrastructure": place, "steps": steps}}))
    serving.place.stage.faults.add(faults.no_capacity(SHAPE))
    run = cloudtune.run(file)
    assert run.wait(120).state == "failed"
    lines = [line.text for line in run.logs()]
    assert any("OCI has no such machine free" in line for line in lines), lines
    assert (serving.deployments(), Store().deployments()) == ([], ())
    run = cloudtune.run(resume=run.id)
    assert run.wait(120).state == "succeeded", [line.text for line in run.logs()]
    assert any("deployment: succeeded, 100 %" in line.text for line in run.logs())
    assert [one.version for one in Store().models("clerk")] == ["1"]
    (container,) = [one.model_deployment_configuration_details for one in serving.deployments()]
    assert container.environment_configuration_details.cmd[-2:] == ["--max-model-len", "4096"]
    assert cloudtune.invoke("clerk", "hello") == "hello"
    # the same step again, as after a crash at its very end
    (step,) = [one for one in Store().runs(parent=run.id) if one.step == "serve" and one.state == "succeeded"]
    monkeypatch.setenv("CLOUDTUNE_RUN_ID", step.id)
    again = serving.deploy("clerk", max_length=4096)
    assert [one.id for one in serving.deployments()] == [again.details["id"]]
    monkeypatch.delenv("CLOUDTUNE_RUN_ID")
    with pytest.raises(UsageError, match="exists already"):
        serving.deploy("clerk", max_length=4096)
    cloudtune.delete("clerk")
    assert serving.deployments() == []
