"""Model deployments as the SDK uses them: made, asked, switched off and on, changed, deleted; and how they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal import faults
from cloudtune.rehearsal.oci.cloud import Timing
from tests.oci_place import OciPlace, oci_place
from tests.rehearsal.oci.science import refused, until, zipped
from tests.rehearsal.oci.serving import SERVER

oci = pytest.importorskip("oci", reason="the oci SDK is not installed")
OVER = ("SUCCEEDED", "FAILED", "CANCELED")


class Deployed:
    """The SDK's clients, and a model that can be deployed."""

    def __init__(self, place: OciPlace) -> None:
        self.place = place
        self.client = place.sdk("data_science", "DataScienceClient")
        self.answers = place.sdk("model_deployment", "ModelDeploymentClient")
        self.model = self.client.create_model(self.owner).data.id
        content = {"content_disposition": "attachment; filename=model.zip"}
        self.client.create_model_artifact(self.model, zipped(config__json='{"a": 1}'), **content)

    @property
    def owner(self) -> dict[str, str]:
        return {"compartmentId": self.place.compartment, "projectId": self.place.project}

    def details(self, *, replicas: int = 1, model: str | None = None, **container: Any) -> dict[str, Any]:
        environment = {
            "environmentConfigurationType": "OCIR_CONTAINER",
            "image": "iad.ocir.io/ns/server:1",
            "entrypoint": ["python3", "-c", SERVER],
            "serverPort": 8080,
            "healthCheckPort": 8080,
            "environmentVariables": {"MODEL_DEPLOY_PREDICT_ENDPOINT": "/v1/chat/completions"},
            **container,
        }
        machine = {
            "modelId": model or self.model,
            "instanceConfiguration": {"instanceShapeName": "VM.GPU.A10.1"},
            "scalingPolicy": {"policyType": "FIXED_SIZE", "instanceCount": replicas},
            "bandwidthMbps": 10,
        }
        return {
            **self.owner,
            "displayName": "d",
            "modelDeploymentConfigurationDetails": {
                "deploymentType": "SINGLE_MODEL",
                "modelConfigurationDetails": machine,
                "environmentConfigurationDetails": environment,
            },
        }

    def work(self, answer: Any) -> Any:
        identity = answer.headers["opc-work-request-id"]
        return until(lambda: found if (found := self.client.get_work_request(identity).data).status in OVER else None)

    def make(self, **options: Any) -> str:
        """Make a deployment and wait until it is ACTIVE."""
        answer = self.client.create_model_deployment(self.details(**options))
        assert (answer.status, answer.data.lifecycle_state) == (202, "CREATING")
        assert self.work(answer).status == "SUCCEEDED", self.state(answer.data.id)
        assert self.state(answer.data.id)[0] == "ACTIVE"
        return str(answer.data.id)

    def state(self, deployment: str) -> tuple[str, str]:
        found = self.client.get_model_deployment(deployment).data
        return found.lifecycle_state, found.lifecycle_details

    def ask(self, deployment: str, **body: Any) -> Any:
        return json.loads(self.answers.predict(deployment, body).data)


@pytest.fixture
def deployed(tmp_path: Path, namespaces: None) -> Iterator[Deployed]:
    with oci_place(tmp_path, timing=Timing(provisioning_s=2.0)) as place:
        yield Deployed(place)


def test_a_model_answers_rests_and_goes(deployed: Deployed) -> None:
    one = deployed.make(predictApiSpecification="openai")
    answer = deployed.ask(one, hello="you")
    assert answer == {
        "path": "/v1/chat/completions",
        "asked": {"hello": "you"},
        "model": ["config.json"],
        "host": "replica-0",
        "ocid": one,
    }
    stream = deployed.answers.predict_with_response_stream(one, {"stream": True}).data
    assert [event.data for event in stream.events()] == ['{"n": 0}', '{"n": 1}', "[DONE]"]
    with refused(409, "ExternalServerIncorrectState"):
        deployed.answers.predict_with_response_stream(one, {"stream": False})
    with refused(413, "RequestEntityTooLarge"):
        deployed.answers.predict(one, {"x": "y" * (10 << 20)})
    assert [found.id for found in deployed.client.list_model_deployments(deployed.place.compartment).data] == [one]
    with refused(409, "IncorrectState"):
        deployed.client.delete_model(deployed.model)
    assert (
        deployed.work(deployed.client.deactivate_model_deployment(one)).operation_type == "MODEL_DEPLOYMENT_DEACTIVATE"
    )
    assert deployed.state(one)[0] == "INACTIVE"
    with refused(404, "NotAuthorizedOrNotFound"):
        deployed.ask(one)
    deployed.work(deployed.client.activate_model_deployment(one))
    assert deployed.ask(one)["model"] == ["config.json"]
    deployed.work(deployed.client.delete_model_deployment(one))
    assert deployed.state(one)[0] == "DELETED"
    assert deployed.place.stage.nodes.running() == ()
    deployed.client.delete_model(deployed.model)


def test_paths_below_predict_are_the_containers(deployed: Deployed) -> None:
    import oci as sdk

    one = deployed.make(customHttpEndpoints=[{"endpointUriSuffix": "/v1/models", "httpMethods": ["GET"]}])
    config = sdk.config.from_file(str(deployed.place.identity.home / ".oci" / "config"))
    signer = sdk.signer.Signer.from_config(config)
    url = f"{deployed.place.cloud.url}/{one}/predict"
    answer = sdk._vendor.requests.post(f"{url}/v1/models", json={}, auth=signer, timeout=30)
    assert (answer.status_code, answer.json()["path"]) == (200, "/v1/models")
    assert sdk._vendor.requests.post(f"{url}/v1/other", json={}, auth=signer, timeout=30).status_code == 404
    assert sdk._vendor.requests.post(url, json={}, timeout=30).status_code == 401


def test_replicas_take_turns_and_a_change_replaces_them(deployed: Deployed) -> None:
    one = deployed.make(replicas=2)
    assert {deployed.ask(one)["host"] for _ in range(4)} == {"replica-0", "replica-1"}
    change = {
        "deploymentType": "SINGLE_MODEL",
        "modelConfigurationDetails": {
            "modelId": deployed.model,
            "scalingPolicy": {"policyType": "FIXED_SIZE", "instanceCount": 1},
        },
    }
    answer = deployed.client.update_model_deployment(
        one, {"displayName": "e", "modelDeploymentConfigurationDetails": change}
    )
    assert deployed.work(answer).status == "SUCCEEDED"
    assert {deployed.ask(one)["host"] for _ in range(4)} == {"replica-0"}
    assert len(deployed.place.stage.nodes.running()) == 1
    assert deployed.client.get_model_deployment(one).data.display_name == "e"


def test_a_deployment_that_fails_says_why(deployed: Deployed) -> None:
    deployed.place.stage.faults.add(
        faults.no_capacity("VM.GPU.A10.1"), faults.event("work fails", "MODEL_DEPLOYMENT_CREATE", numbers=(2,))
    )
    bare = deployed.client.create_model(deployed.owner).data.id
    for options, words in (
        ({}, "Out of host capacity."),
        ({}, "rehearsed fault"),
        ({"model": bare}, "has no artifact"),
        ({"entrypoint": ["sh", "-c", "echo no GPU here >&2; exit 3"]}, "exit code 3: rehearsed: substituted"),
        ({"entrypoint": [], "cmd": ["x"]}, "set entrypoint"),
    ):
        answer = deployed.client.create_model_deployment(deployed.details(**options))
        work = deployed.work(answer)
        error = deployed.client.list_work_request_errors(work.id).data[0]
        assert (work.status, words in error.message) == ("FAILED", True), error.message
        state, details = deployed.state(answer.data.id)
        assert (state, words in details) == ("FAILED", True)
        deployed.work(deployed.client.delete_model_deployment(answer.data.id))
    assert deployed.place.stage.nodes.running() == ()


def test_a_server_that_died_is_not_available(deployed: Deployed) -> None:
    one = deployed.make()
    deployed.place.stage.nodes.running()[0].kill()
    until(lambda: deployed.place.stage.nodes.running() == ())
    with refused(503, "ServiceUnavailable"):
        deployed.ask(one)


@pytest.mark.parametrize(
    "container",
    [
        {"image": "docker.io/vllm/vllm-openai:latest"},
        {"serverPort": 80},
        {"serverPort": 8446},
        {"environmentVariables": {"a": "1"}},
        {"environmentVariables": {"TENANCY_OCID": "1"}},
        {"environmentVariables": {"LONG": "x" * 2048}},
        {"cmd": ["x" * 2048]},
        {"replicas": 0},
        {"colour": "red"},
    ],
)
def test_what_cannot_be_deployed_is_refused(container: dict[str, Any], deployed: Deployed) -> None:
    with pytest.raises(oci.exceptions.ServiceError) as error:
        deployed.client.create_model_deployment(deployed.details(**container))
    assert error.value.status == 400
    assert deployed.client.list_model_deployments(deployed.place.compartment).data == []


def test_a_token_makes_one_deployment(deployed: Deployed) -> None:
    made = {deployed.client.create_model_deployment(deployed.details(), opc_retry_token="t").data.id for _ in range(2)}
    assert len(made) == 1
    until(lambda: deployed.state(next(iter(made)))[0] == "ACTIVE")


def test_the_services_own_images_and_machines_are_told(deployed: Deployed) -> None:
    found = deployed.client.list_containers(is_latest=True).data
    assert [one.container_name for one in found if one.family_name == "odsc-vllm-serving"] == ["odsc-vllm-serving"]
    names = [one.name for one in deployed.client.list_model_deployment_shapes(deployed.place.compartment).data]
    assert "VM.GPU.A10.1" in names
