"""Models that answer on OCI Data Science: the real SDK against the stand-in, whose deployments are real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

import cloudtune
import cloudtune.verbs
from cloudtune.cli import cli
from cloudtune.deployments import oci_request
from cloudtune.errors import CloudtuneError, NoCapacity, NotAllowed, RunNotFound, ServiceError, UsageError
from cloudtune.rehearsal import faults
from cloudtune.spec.oci import DataScienceJob
from tests.deployments.oci_serving import IMAGE, MANAGED, SHAPE, Serving
from tests.oci_place import oci_place

pytest.importorskip("oci", reason="the oci SDK is not installed")


def test_a_model_answers_until_it_is_taken_down(serving: Serving, tmp_path: Path) -> None:
    serving.profile(logGroupId=serving.place.log_group, subnetId=serving.place.subnet)
    said: list[str] = []
    made = serving.deploy(replicas=2, progress=said.append)
    assert (made.name, made.backend, made.model.partition(".oc1.")[0]) == ("llama", "oci", "ocid1.datasciencemodel")
    assert [(one.name, cloudtune.verbs.deployment_state(one)) for one in cloudtune.list(deployments=True)] == [
        ("llama", "running")
    ]
    assert "deployment: succeeded, 100 %" in said
    details = serving.details()
    container, machine = details.environment_configuration_details, details.model_configuration_details
    assert container.cmd[:4] == ["--model", "/opt/ds/model/deployed_model", "--host", "0.0.0.0"]
    assert container.environment_variables["SHM_SIZE"] == "10g"
    assert (machine.scaling_policy.instance_count, machine.instance_configuration.subnet_id) == (
        2,
        serving.place.subnet,
    )
    assert serving.deployments()[0].category_log_details.predict.log_id.startswith("ocid1.log.")
    assert cloudtune.invoke("llama", "how are you") == "how are you"
    pieces: list[str] = []
    assert cloudtune.invoke("llama", "how are you", show=pieces.append) == "how are you"
    assert pieces == ["how", " are", " you"]
    body = {"model": "llama", "messages": [{"role": "user", "content": "whole"}]}
    assert cloudtune.invoke("llama", body=body) == "whole"
    assert cloudtune.invoke("llama", body={**body, "stream": True}) == "whole"
    (tmp_path / "a.png").write_bytes(b"png")
    assert cloudtune.invoke("llama", "what is it?", image=[tmp_path / "a.png"]) == "image_url text"
    for wrong, words in ((tmp_path / "m" / "config.json", "is no picture"), (tmp_path / "b.png", "cannot be read")):
        with pytest.raises(UsageError, match=words):
            cloudtune.invoke("llama", "what is it?", image=[wrong])
    with pytest.raises(UsageError, match="pictures go with a prompt"):
        cloudtune.invoke("llama", body=body, image=["a.png"])
    deleted = cloudtune.delete("llama")
    assert (deleted.kind, deleted.kept) == ("deployment", ("model llama:1",))
    assert (serving.deployments(), cloudtune.list(deployments=True)) == ([], ())


def test_the_services_own_image_is_told_by_variables(serving: Serving) -> None:
    serving.deploy(image=None, name="mine", shape="VM.GPU.A10.1", max_length=4096)
    container = serving.details().environment_configuration_details
    assert (container.image, container.cmd) == (MANAGED, None)
    assert container.environment_variables == {
        "BASE_MODEL": "",
        "PARAMS": "--served-model-name mine --tensor-parallel-size 1 --max-model-len 4096",
        "MODEL_DEPLOY_PREDICT_ENDPOINT": "/v1/chat/completions",
        "MODEL_DEPLOY_HEALTH_ENDPOINT": "/health",
        "MODEL_DEPLOY_ENABLE_STREAMING": "true",
        "PORT": "8080",
        "HEALTH_CHECK_PORT": "8080",
    }
    assert cloudtune.invoke("mine", "hello") == "hello"


def test_a_model_by_reference_is_found_below_its_prefix(serving: Serving, tmp_path: Path) -> None:
    from cloudtune import storage
    from cloudtune.rehearsal.oci.buckets import Buckets

    pytest.importorskip("ocifs")
    serving.place.cloud.part(Buckets).make("b", namespace="ns")
    serving.place.stage.store.change("oci.bucket", "ns/b", versioning="Enabled")
    storage.upload(tmp_path / "m", "oci://b@ns/runs/x/model")
    cloudtune.register("oci://b@ns/runs/x/model", to="oci", name="large")
    serving.deploy("large:1")
    assert "/opt/ds/model/deployed_model/runs/x/model" in serving.details().environment_configuration_details.cmd
    assert cloudtune.invoke("large", "hello") == "hello"


def test_servers_that_do_not_stream_or_break_off(serving: Serving) -> None:
    serving.deploy()
    pieces: list[str] = []
    assert cloudtune.invoke("llama", "slow answer", show=pieces.append) == "slow answer"
    assert pieces == ["slow answer"]
    with pytest.raises(ServiceError, match="the answer broke off"):
        cloudtune.invoke("llama", "now break it", show=pieces.append)
    assert pieces == ["slow answer", "now", " break"]
    with pytest.raises(CloudtuneError, match="does not exist"):
        cloudtune.invoke("llama", body={"model": "other", "messages": []})


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (faults.no_capacity(SHAPE), NoCapacity, "no such machine free"),
        (faults.event("work fails", "MODEL_DEPLOYMENT_CREATE"), ServiceError, "rehearsed fault"),
        (
            faults.refused("oci.data_science", "create_model_deployment", status=400, code="LimitExceeded"),
            NoCapacity,
            "rehearsed",
        ),
    ],
)
def test_what_fails_is_taken_down_and_told(fault: Any, kind: Any, words: str, serving: Serving) -> None:
    serving.place.stage.faults.add(fault)
    with pytest.raises(kind, match=words):
        serving.deploy()
    assert (serving.deployments(), cloudtune.list(deployments=True)) == ([], ())
    serving.deploy()
    assert len(serving.deployments()) == 1


def test_what_is_lost_is_told(serving: Serving) -> None:
    made = serving.deploy()
    serving.client.delete_model_deployment(made.details["id"])
    with pytest.raises(UsageError, match="does not answer: it is"):
        cloudtune.invoke("llama", "hello")
    assert cloudtune.verbs.deployment_state(made) in ("stopping", "lost")
    cloudtune.delete("llama")
    assert cloudtune.list(deployments=True) == ()


def test_who_may_not_see_a_deployment_does_not_forget_it(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    made = serving.deploy()
    for operation in ("get_model_deployment", "list_model_deployments"):
        fault = faults.refused("oci.data_science", operation, status=404, code="NotAuthorizedOrNotFound", numbers=())
        serving.place.stage.faults.add(fault)
    with pytest.raises(NotAllowed, match="list_model_deployments"):
        cloudtune.delete("llama")
    with pytest.raises(NotAllowed):
        cloudtune.verbs.deployment_state(made)
    operations = [call.operation for call in serving.place.stage.record.calls]
    assert ("delete_model_deployment" in operations, len(cloudtune.list(deployments=True))) == (False, 1)


def test_the_command_line_deploys_and_shows(serving: Serving) -> None:
    def call(*words: str) -> Any:
        return CliRunner().invoke(cli, words)

    assert isinstance(call("status", "llama").exception, RunNotFound)
    done = call("deploy", "llama", "--to", "oci", "--shape", SHAPE, "--image", IMAGE)
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert "llama answers at http://" in done.stderr
    shown = call("status", "llama")
    assert (shown.exit_code, "state    running" in shown.stdout) == (0, True)
    assert json.loads(call("status", "llama", "-o", "json").stdout)["details"]["complete"] is True
    assert call("invoke", "llama", "how are you").stdout == "how are you\n"
    done = len([one for one in serving.place.stage.record.calls if one.operation == "get_model_deployment"])
    fault = faults.refused("oci.data_science", "get_model_deployment", status=500, numbers=range(done + 1, done + 9))
    serving.place.stage.faults.add(fault)
    listed = call("list", "--deployments", "-o", "json")
    assert json.loads(listed.stdout)[0]["state"] == "unknown"
    assert "llama: " in listed.stderr
    deleted = call("delete", "llama")
    assert deleted.exit_code == 0
    assert "llama: active" in deleted.stderr


def test_what_cannot_be_deployed_is_said_before_anything_is_sent(serving: Serving, tmp_path: Path) -> None:
    for options, words in (
        ({"shape": None}, "on which machines"),
        ({"shape": "VM.GPU.A11.2"}, "OCI has no shape"),
        ({"shape": "VM.Standard2.1"}, "vLLM wants a GPU"),
        ({"model": str(tmp_path / "m")}, "no model that was registered with --to oci"),
        ({"model": "llama:7"}, "no model that was registered"),
        ({"model": "lama"}, "nearest: llama; or file it there first"),
        ({"replicas": 0}, "--replicas must be 1 or more"),
        ({"max_length": 0}, "--max-length must be 1 or more"),
        ({"infrastructure": "local"}, "is of type local"),
    ):
        with pytest.raises(UsageError, match=words):
            serving.deploy(**options)
    for option, flag in (("shape", "--shape"), ("image", "--image"), ("max_length", "--max-length")):
        with pytest.raises(UsageError, match=f"{flag} is for clouds"):
            cloudtune.deploy(str(tmp_path / "m"), **{option: "x"})
    assert (serving.deployments(), cloudtune.list(deployments=True)) == ([], ())


def test_their_log_is_found_among_those_of_many_runs(tmp_path: Path) -> None:
    """The service filters what it has fetched: the page with the log comes behind others with nothing on them."""
    from cloudtune.clients.oci import OciClient
    from cloudtune.deployments.oci_log import NAME, log_of
    from cloudtune.rehearsal.oci.logs import Logs

    with oci_place(tmp_path) as place:
        logs = place.cloud.part(Logs)
        made = logs.add_log(place.log_group, {"displayName": NAME})
        for number in range(1100):
            logs.add_log(place.log_group, {"displayName": f"run-{number}"})
        assert log_of(OciClient(), DataScienceJob(log_group_id=place.log_group), str) == made
        asked = [call.operation for call in place.stage.record.calls]
    assert (asked.count("create_log"), asked.count("list_logs")) == (0, 12)


def test_a_foreign_model_is_deployed_by_its_ocid() -> None:
    model = {"id": "m", "compartmentId": "c", "projectId": "p", "isModelByReference": True}
    notes = [{"key": "artifact_location", "value": "models/llama/"}]
    wanted = oci_request.Wanted(
        name="n",
        model={**model, "customMetadataList": notes},
        shape=SHAPE,
        image=IMAGE,
        replicas=1,
        place=DataScienceJob(),
    )
    configuration = oci_request.request_of(wanted)["modelDeploymentConfigurationDetails"]
    assert "/opt/ds/model/deployed_model/models/llama" in configuration["environmentConfigurationDetails"]["cmd"]
    with pytest.raises(UsageError, match="below which prefix"):
        oci_request.request_of(attrs.evolve(wanted, model=model))
    with pytest.raises(UsageError, match="no image with vLLM"):
        oci_request.newest_managed([{"familyName": "odsc-tgi-serving", "isLatest": True}])


@pytest.mark.heavy
def test_a_real_model_answers(tmp_path: Path, namespaces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudtune.rehearsal.oci.model_deployments import Deployments
    from tests import tiny

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with oci_place(tmp_path) as place:
        serving = Serving(place, tmp_path)
        place.cloud.part(Deployments).entrypoints.clear()
        cloudtune.register(str(tiny.random_model()), to="oci", name="tiny")
        said: list[str] = []
        made = serving.deploy("tiny", image=None, progress=said.append)
        body = {"messages": [{"role": "user", "content": "What is LoRA?"}], "max_tokens": 8}
        pieces: list[str] = []
        answer = cloudtune.invoke("tiny", body=body, show=pieces.append)
        assert answer
        assert "".join(pieces) == answer
        assert cloudtune.invoke("tiny", body=body) == answer
        # what proves a server of runtimes/vllm is content with this one, too
        script = Path(__file__).parents[2] / "runtimes" / "vllm" / "smoke_test.py"
        node = place.cloud.part(Deployments).serving(made.details["id"])._running[0].node
        url = f"http://{node.hosts[node.name]}:8080"
        done = subprocess.run([sys.executable, script, url], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "serves tiny" in done.stdout
        cloudtune.delete("tiny")
