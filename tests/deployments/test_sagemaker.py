"""Models that answer at endpoints of SageMaker: the real SDK against the stand-in, whose endpoints are real servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import cloudtune
import cloudtune.verbs
from cloudtune import storage
from cloudtune.deployments import sagemaker
from cloudtune.deployments.sagemaker_request import Wanted, default_image, requests_of, resource_name, shape_of
from cloudtune.errors import CloudtuneError, NoCapacity, ServiceError, UsageError
from cloudtune.rehearsal import faults
from cloudtune.spec.sagemaker import SageMakerTrainingJob
from cloudtune.store import Model, Store
from tests.aws_place import AwsPlace, aws_place, until
from tests.registries.models import merged
from tests.rehearsal.aws.serving import COMMAND

pytest.importorskip("botocore")
pytest.importorskip("s3fs")
SERVICE = "aws.sagemaker"
FAULTS = {
    "500": faults.refused("*", status=500),
    "lost": faults.lost("*"),
    "cut": faults.cut("*"),
}
#: Times that the client asks before it gives up.
TRIES = 6
SHAPE = "ml.g5.12xlarge"
LMI = "763104351884.dkr.ecr.us-west-2.amazonaws.com/djl-inference:0.38.0-lmi29.0.0-cu130"
NEURON = "763104351884.dkr.ecr.us-west-2.amazonaws.com/djl-inference:0.29.0-neuronx-sdk2.19.1"


class Serving:
    """A stand-in with a model in S3, and the user's profile of it."""

    def __init__(self, place: AwsPlace, folder: Path) -> None:
        from cloudtune.rehearsal.aws.endpoints import Endpoints

        self.place, self.folder = place, folder
        self.client = place.sdk("sagemaker")
        place.cloud.part(Endpoints).commands |= dict.fromkeys((LMI, NEURON, "me/vllm:1"), COMMAND)
        path = folder / "config" / "mine.yaml"
        path.parent.mkdir(exist_ok=True)
        spec = {"region": "us-west-2", "roleArn": place.role}
        path.write_text(json.dumps({"kind": "infrastructure", "type": "sageMakerTrainingJob", "spec": spec}))
        self.uri = f"s3://{place.bucket}/runs/llama"
        storage.upload(merged(folder / "m"), self.uri)

    def deploy(self, model: str | None = None, **options: Any) -> Any:
        return cloudtune.deploy(model or self.uri, to="sagemaker", **{"shape": SHAPE, **options})

    def left(self) -> list[str]:
        """Return the names of all that is there."""
        rows = (
            *self.client.list_endpoints()["Endpoints"],
            *self.client.list_endpoint_configs()["EndpointConfigs"],
            *self.client.list_models()["Models"],
        )
        return [row.get("EndpointName") or row.get("EndpointConfigName") or row["ModelName"] for row in rows]

    def made(self) -> int:
        """Return how many endpoints were made for good."""
        return sum(
            change.deed == "added" and change.resource.kind == "aws.endpoint"
            for change in self.place.stage.store.changes(0)
        )


@pytest.fixture
def serving(tmp_path: Path, namespaces: None) -> Iterator[Serving]:
    with aws_place(tmp_path, speed=20000.0) as place:
        yield Serving(place, tmp_path)


def read_by_nobody(piece: str) -> None:
    """Fail as writing does where the reader went away."""
    raise BrokenPipeError(piece)


def test_a_model_answers_until_it_is_taken_down(serving: Serving, tmp_path: Path) -> None:
    said: list[str] = []
    made = serving.deploy(replicas=2, max_length=4096, progress=said.append)
    name = made.details["resource"]
    assert (made.name, made.backend, name.rpartition("-")[0]) == ("llama", "sagemaker", "llama")
    assert made.url == f"https://runtime.sagemaker.us-west-2.amazonaws.com/endpoints/{name}/invocations"
    assert said[-1] == "endpoint: inservice"
    (container,) = (serving.client.describe_model(ModelName=name)["PrimaryContainer"],)
    assert container["ModelDataSource"]["S3DataSource"]["S3Uri"] == f"{serving.uri}/"
    assert (container["Image"], container["Environment"]["OPTION_TENSOR_PARALLEL_DEGREE"]) == (LMI, "4")
    assert serving.client.describe_endpoint(EndpointName=name)["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert cloudtune.verbs.deployment_state(made) == "running"
    assert cloudtune.invoke("llama", "how are you") == "how are you"
    pieces: list[str] = []
    assert cloudtune.invoke("llama", "how are you", show=pieces.append) == "how are you"
    assert pieces == ["how", " are", " you"]
    body = {"messages": [{"role": "user", "content": "whole"}]}
    assert cloudtune.invoke("llama", body=body) == "whole"
    assert cloudtune.invoke("llama", body={**body, "stream": True}) == "whole"
    (tmp_path / "a.png").write_bytes(b"png")
    assert cloudtune.invoke("llama", "what is it?", image=[tmp_path / "a.png"]) == "image_url text"
    pieces.clear()
    assert cloudtune.invoke("llama", "slow answer", show=pieces.append) == "slow answer"
    assert pieces == ["slow answer"]
    with pytest.raises(ServiceError, match="the answer broke off"):
        cloudtune.invoke("llama", "now break it", show=pieces.append)
    with pytest.raises(BrokenPipeError):
        cloudtune.invoke("llama", "how are you", show=read_by_nobody)
    with pytest.raises(ServiceError, match="unknown is not known"):
        cloudtune.invoke("llama", body={**body, "unknown": 1})
    deleted = cloudtune.delete("llama", progress=said.append)
    assert (deleted.kind, serving.left(), cloudtune.list(deployments=True)) == ("deployment", [], ())
    assert {entry.path for entry in storage.listing(serving.uri)} >= {"config.json", "model.safetensors"}


def test_inferentia_has_the_time_to_compile(serving: Serving) -> None:
    made = serving.deploy(shape="ml.inf2.8xlarge", name="trained")
    name = made.details["resource"]
    (variant,) = serving.client.describe_endpoint_config(EndpointConfigName=name)["ProductionVariants"]
    assert (variant["ContainerStartupHealthCheckTimeoutInSeconds"], variant["VolumeSizeInGB"]) == (3600, 256)
    container = serving.client.describe_model(ModelName=name)["PrimaryContainer"]
    assert (container["Image"], container["Environment"]["OPTION_TENSOR_PARALLEL_DEGREE"]) == (NEURON, "2")
    assert cloudtune.invoke("trained", "hello") == "hello"


def test_requests_say_what_a_server_is_to_do() -> None:
    def of(shape: str, image: str, **changes: Any) -> tuple[dict[str, str], dict[str, Any]]:
        place = SageMakerTrainingJob(
            subnet_ids=("subnet-1",), security_group_ids=("sg-1",), network_isolation=True, volume_kms_key_id="k"
        )
        given: dict[str, Any] = {"max_length": 2048, "replicas": 1, "place": place, **changes}
        wanted = Wanted(resource="r", name="n", uri="s3://b/m/", shape=shape, image=image, role="arn", **given)
        (_, model), (_, config), (_, endpoint) = requests_of(wanted)
        assert (model["VpcConfig"]["Subnets"], model["EnableNetworkIsolation"], config["KmsKeyId"]) == (
            ["subnet-1"],
            True,
            "k",
        )
        assert endpoint["EndpointConfigName"] == "r"
        return model["PrimaryContainer"]["Environment"], config["ProductionVariants"][0]

    assert of("ml.inf2.48xlarge", NEURON)[0]["OPTION_TENSOR_PARALLEL_DEGREE"] == "24"
    assert of("ml.inf2.48xlarge", NEURON, max_length=None)[0]["OPTION_N_POSITIONS"] == "4096"
    assert of("ml.g5.xlarge", LMI)[0]["OPTION_MAX_MODEL_LEN"] == "2048"
    assert of("ml.g5.48xlarge", "me/vllm:1")[0] == {
        "SM_VLLM_MODEL": "/opt/ml/model",
        "SM_VLLM_TENSOR_PARALLEL_SIZE": "8",
        "SM_VLLM_MAX_MODEL_LEN": "2048",
    }
    assert of("ml.g5.48xlarge", "me/x-tgi-inference:1")[0]["SM_NUM_GPUS"] == "8"
    variables, variant = of("ml.g5.xlarge", "me/own:1")
    assert (variables, "VolumeSizeInGB" in variant) == ({}, False)
    assert resource_name("a_b.c" * 30, "0f") == f"{('a-b-c' * 10)}-0f"
    assert default_image(shape_of("ml.p4d.24xlarge"), "me-south-1").startswith("217643126080.dkr.ecr.me-south-1.")
    with pytest.raises(UsageError, match="has none"):
        shape_of("ml.c5.xlarge")
    with pytest.raises(UsageError, match="no instance"):
        shape_of("ml.g55.xlarge")


def test_a_name_that_is_not_registered_there_gets_the_nearest_ones(serving: Serving) -> None:
    Store().add_model(Model(name="clerk", version="1", uri=f"s3://{serving.place.bucket}/clerk/"))
    Store().add_model(Model(name="baker", version="1", uri="file:///models/baker"))
    with pytest.raises(UsageError) as caught:
        serving.deploy("clrek")
    assert "nearest: clerk; or file it there first" in (caught.value.hint or "")
    with pytest.raises(UsageError) as caught:
        serving.deploy("baker")
    assert "cloudtune register file:///models/baker --to sagemaker --name baker" in (caught.value.hint or "")


def test_a_model_is_deployed_as_it_was_registered(serving: Serving, tmp_path: Path) -> None:
    """By the infrastructure that ``register`` was given, unless ``deploy`` is given another."""
    other = tmp_path / "other.yaml"
    spec = {"region": "us-west-2", "roleArn": serving.place.role.replace("/training", "/other")}
    other.write_text(json.dumps({"kind": "infrastructure", "type": "sageMakerTrainingJob", "spec": spec}))
    cloudtune.register(serving.uri, to="sagemaker", name="clerk", infrastructure=str(other))
    made = serving.deploy("clerk")
    described = serving.client.describe_model(ModelName=made.details["resource"])
    assert described["ExecutionRoleArn"] == spec["roleArn"]
    other.unlink()
    assert sagemaker.find("clerk", Store())[3] is None


def test_what_cannot_be_deployed_is_refused(serving: Serving) -> None:
    with pytest.raises(UsageError, match="a shape"):
        serving.deploy(shape=None)
    with pytest.raises(UsageError, match="neither a prefix of S3 nor registered"):
        serving.deploy(str(serving.folder / "m"))
    with pytest.raises(ServiceError, match="Could not find model data"):
        serving.deploy(f"s3://{serving.place.bucket}/none")
    assert (serving.left(), cloudtune.list(deployments=True)) == ([], ())


@pytest.mark.parametrize(
    ("fault", "options", "kind", "words"),
    [
        (faults.no_capacity(SHAPE), {}, NoCapacity, "no such machine free"),
        (None, {"image": "me/own:1"}, ServiceError, "what the image me/own:1 runs is not here"),
        (None, {"image": NEURON}, ServiceError, "does not run on ml.g5"),
        (
            faults.refused(SERVICE, "create_endpoint", status=400, code="ResourceLimitExceeded"),
            {},
            NoCapacity,
            "rehearsed",
        ),
    ],
)
def test_what_fails_is_taken_down_and_told(
    fault: Any, options: dict[str, Any], kind: Any, words: str, serving: Serving
) -> None:
    if fault is not None:
        serving.place.stage.faults.add(fault)
    with pytest.raises(kind, match=words):
        serving.deploy(**options)
    assert (serving.left(), cloudtune.list(deployments=True)) == ([], ())


def test_what_is_lost_is_told(serving: Serving) -> None:
    made = serving.deploy()
    serving.client.delete_endpoint(EndpointName=made.details["resource"])
    with pytest.raises(UsageError, match="does not answer: it is"):
        cloudtune.invoke("llama", "hello")
    cloudtune.delete("llama")
    assert (serving.left(), cloudtune.list(deployments=True)) == ([], ())


@pytest.mark.parametrize("status", ["OutOfService", "UpdateRollbackFailed"])
def test_an_endpoint_that_answers_nobody_is_made_anew(
    status: str, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for one that stays as it is: somebody has updated it while the record was not complete."""
    from cloudtune.rehearsal.aws.endpoints import ENDPOINT

    monkeypatch.setattr(sagemaker, "PATIENCE_S", 60.0)
    made, states = serving.deploy(), serving.place.stage.store
    Store().replace_deployment(attrs.evolve(made, details={**made.details, "complete": False}))
    (one,) = states.all(ENDPOINT)
    states.change(ENDPOINT, one.id, shown={**one.data["shown"], "EndpointStatus": status})
    again = serving.deploy()
    assert again.details["resource"] == made.details["resource"]
    assert cloudtune.invoke("llama", "hello") == "hello"


@pytest.mark.parametrize("kind", ["lost", "cut"])
def test_every_call_may_fail_once(kind: str, serving: Serving) -> None:
    def streamed() -> str:
        try:
            return cloudtune.invoke("llama", "how are you", show=str)
        except ServiceError:  # what is shown already cannot be asked for again
            return cloudtune.invoke("llama", "how are you", show=str)

    def all_of_it() -> None:
        serving.deploy()
        assert cloudtune.invoke("llama", "hello") == "hello"
        assert streamed() == "how are you"
        cloudtune.delete("llama")

    record = serving.place.stage.record
    before = len(record.calls)
    all_of_it()
    calls = [call.call for call in record.calls[before:]]
    assert {operation for _, operation in calls} >= {"create_endpoint", "delete_endpoint_config", "invoke_endpoint"}
    for one in faults.each_once(calls, FAULTS[kind]):
        serving.place.stage.faults.add(attrs.evolve(one, numbers=(calls.count((one.service, one.operation)) + 1,)))
    all_of_it()
    assert serving.place.stage.faults.left() == ()
    assert (serving.made(), serving.left()) == (2, [])


def test_a_call_that_fails_for_good_leaves_nothing_unsaid(serving: Serving) -> None:
    """Each call of a deployment fails until the client gives up; then what is there is known, and deploying goes on."""
    record = serving.place.stage.record
    before = len(record.calls)
    serving.deploy()
    flow = dict.fromkeys(call.call for call in record.calls[before:])
    cloudtune.delete("llama")
    for service, operation in flow:
        count, done = serving.made(), sum(call.call == (service, operation) for call in record.calls)
        numbers = tuple(range(done + 1, done + 1 + TRIES))
        kind = "lost" if operation.startswith("create_") else "500"
        serving.place.stage.faults.add(
            attrs.evolve(FAULTS[kind], service=service, operation=operation, numbers=numbers)
        )
        with pytest.raises(CloudtuneError, match="llama is kept"):
            serving.deploy()
        serving.deploy()
        assert serving.made() == count + 1
        cloudtune.delete("llama")
        assert (serving.left(), cloudtune.list(deployments=True)) == ([], ())


def test_what_was_interrupted_is_gone_on_with_or_taken_down(serving: Serving) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(line: str) -> None:
        if line.startswith("endpoint: "):
            signal.pthread_kill(main, signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            serving.deploy(progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)
    (kept,) = cloudtune.list(deployments=True)
    assert cloudtune.verbs.deployment_state(kept) in ("starting", "running")
    with pytest.raises(UsageError, match="exists already"):
        serving.deploy(replicas=2)  # another one
    said: list[str] = []
    assert serving.deploy(progress=said.append).details["resource"] == kept.details["resource"]
    assert said[0] == "llama has been begun: going on with it"
    cloudtune.delete("llama")
    assert (serving.made(), serving.left()) == (1, [])


def test_what_was_killed_is_found_again(serving: Serving) -> None:
    """Killed after the service has done what was asked, and before it says so."""
    # a second try may be under way when the first has made it: it must not come after the endpoint is deleted
    again = faults.slow(SERVICE, "create_endpoint", seconds=600.0, numbers=(2,))
    serving.place.stage.faults.add(faults.lost(SERVICE, "create_endpoint"), again)
    words = ["deploy", serving.uri, "--to", "sagemaker", "--shape", SHAPE]
    environ = {**os.environ, **serving.place.environ}
    process = subprocess.Popen([sys.executable, "-m", "cloudtune", *words], env=environ, stderr=subprocess.PIPE)
    until(lambda: serving.client.list_endpoints()["Endpoints"])
    process.kill()
    process.communicate()
    assert cloudtune.verbs.deployment_state(Store().deployments("llama")[0]) in ("starting", "running")
    cloudtune.delete("llama")
    assert (serving.made(), serving.left(), cloudtune.list(deployments=True)) == (1, [], ())
