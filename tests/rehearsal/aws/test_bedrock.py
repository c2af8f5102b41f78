"""Bedrock of the stand-in as the real SDK sees it: imports that look at the files, and models that answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune import storage
from cloudtune.rehearsal import faults
from tests.aws_place import AwsPlace, aws_place, until
from tests.rehearsal.aws.serving import COMMAND
from tests.rehearsal.conftest import namespaces
from tests.weights.checks.checkable import change, write_model

botocore = pytest.importorskip("botocore.exceptions")
pytest.importorskip("s3fs")
__all__ = ["namespaces"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[AwsPlace]:
    with aws_place(tmp_path, speed=5000.0) as found:
        yield found


def put(place: AwsPlace, folder: Path, below: str = "model") -> str:
    """Copy a folder to S3; return where it is."""
    uri = f"s3://{place.bucket}/{below}/"
    storage.upload(folder, uri)
    return uri


def request(place: AwsPlace, uri: str, name: str = "llama", **changes: Any) -> dict[str, Any]:
    return {
        "jobName": f"import-{name}",
        "importedModelName": name,
        "roleArn": place.role,
        "modelDataSource": {"s3DataSource": {"s3Uri": uri}},
        **changes,
    }


def over(client: Any, job: str) -> dict[str, Any]:
    """Return an import job that is over."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get_model_import_job(jobIdentifier=job)
        return found if found["status"] != "InProgress" else None

    return dict(until(look))


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[str, str]:
    with pytest.raises(botocore.ClientError) as error:
        call(**parameters)
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


def test_a_model_is_imported_once_and_deleted(place: AwsPlace, tmp_path: Path) -> None:
    client = place.sdk("bedrock")
    uri = put(place, write_model(tmp_path / "m"))
    asked = request(place, uri, clientRequestToken="a", importedModelTags=[{"key": "k", "value": "v"}])
    arn = client.create_model_import_job(**asked)["jobArn"]
    assert client.create_model_import_job(**asked)["jobArn"] == arn
    assert client.get_model_import_job(jobIdentifier="import-llama")["status"] == "InProgress"
    assert refused(client.create_model_import_job, **{**asked, "jobName": "x"})[0] == "ConflictException"
    assert refused(client.create_model_import_job, **request(place, uri))[0] == "ConflictException"
    done = over(client, arn)
    assert (done["status"], "failureMessage" in done) == ("Completed", False)
    model = client.get_imported_model(modelIdentifier=done["importedModelArn"])
    assert (model["modelName"], model["modelArchitecture"], model["instructSupported"]) == ("llama", "llama", True)
    assert model["customModelUnits"]["customModelUnitsPerModelCopy"] == 1
    assert client.list_tags_for_resource(resourceARN=model["modelArn"])["tags"] == [{"key": "k", "value": "v"}]
    again = request(place, uri, jobName="other")
    assert refused(client.create_model_import_job, **again)[0] == "ValidationException"  # the name is taken
    assert [one["modelName"] for one in client.list_imported_models(nameContains="lla")["modelSummaries"]] == ["llama"]
    jobs = client.list_model_import_jobs(statusEquals="Completed", maxResults=1)["modelImportJobSummaries"]
    assert [one["jobName"] for one in jobs] == ["import-llama"]
    client.delete_imported_model(modelIdentifier="llama")
    assert refused(client.get_imported_model, modelIdentifier="llama")[0] == "ResourceNotFoundException"


def test_requests_are_checked_beyond_what_the_sdk_looks_at(place: AwsPlace) -> None:
    client = place.sdk("bedrock")
    for changes, words in (
        ({"jobName": "bad name"}, "'jobName' failed"),
        ({"importedModelName": "a.b"}, "'importedModelName' failed"),
        ({"roleArn": "me"}, "'roleArn' failed"),
        ({"modelDataSource": {"s3DataSource": {"s3Uri": "s3://b/a=b/"}}}, "s3Uri' failed"),
    ):
        code, said = refused(client.create_model_import_job, **request(place, "s3://bucket/m/", **changes))
        assert (code, words in said) == ("ValidationException", True)
    place.cloud.absent.add(place.role)
    assert "could not assume" in refused(client.create_model_import_job, **request(place, "s3://bucket/m/"))[1]
    elsewhere = place.sdk("bedrock", region_name="eu-west-1")
    assert (
        "not available in eu-west-1" in refused(elsewhere.create_model_import_job, **request(place, "s3://b-b/m/"))[1]
    )
    place.cloud.denied.add("bedrock:ListImportedModels")
    assert refused(client.list_imported_models)[0] == "AccessDeniedException"


def unpickled(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "adapter": (
        lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
        "merge it into its base model",
    ),
    "config": (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON file"),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json or tokenizer.model"),
    "tokenizer config": (
        lambda folder: (folder / "tokenizer_config.json").unlink(),
        "tokenizer_config.json is missing",
    ),
    "architecture": (lambda folder: change(folder / "config.json", architectures=["OtherModel"]), "not supported"),
    "class": (
        lambda folder: change(folder / "tokenizer_config.json", tokenizer_class="TokenizersBackend"),
        "The tokenizer TokenizersBackend",
    ),
    "quantized": (lambda folder: change(folder / "config.json", quantization_config={}), "Quantized models"),
    "shard": (lambda folder: next(folder.glob("*-00002-*.safetensors")).unlink(), "is missing"),
    "cut": (
        lambda folder: (path := next(folder.glob("*.safetensors"))).write_bytes(path.read_bytes()[:-1]),
        "is incomplete",
    ),
    "pickled": (unpickled, "No model weights"),
}


def test_files_that_cannot_be_served_are_refused(place: AwsPlace, tmp_path: Path) -> None:
    client, jobs = place.sdk("bedrock"), {}
    for number, (what, (spoil, _)) in enumerate(SPOILED.items()):
        folder = write_model(tmp_path / str(number))
        spoil(folder)
        asked = request(place, put(place, folder, f"spoiled/{number}"), f"m{number}")
        jobs[what] = client.create_model_import_job(**asked)["jobArn"]
    place.stage.faults.add(faults.event("import fails", "faulty"))
    whole = put(place, write_model(tmp_path / "whole"), "whole")
    faulty = client.create_model_import_job(**request(place, whole, "faulty"))["jobArn"]
    nothing = client.create_model_import_job(**request(place, f"s3://{place.bucket}/none/", "none"))["jobArn"]
    for what, job in jobs.items():
        found = over(client, job)
        assert (found["status"], SPOILED[what][1] in found["failureMessage"]) == ("Failed", True), found
    assert "rehearsed fault" in over(client, faulty)["failureMessage"]
    assert "No files were found" in over(client, nothing)["failureMessage"]
    assert client.list_imported_models()["modelSummaries"] == []


def test_an_import_ends_whatever_goes_wrong(
    place: AwsPlace, tmp_path: Path, controllers: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudtune.rehearsal.aws import imports

    def broken(files: imports.Prefix) -> dict[str, Any]:
        raise RuntimeError("broken")

    client, folder = place.sdk("bedrock"), write_model(tmp_path / "m")
    uri = put(place, folder)
    place.sdk("s3").put_object(Bucket=place.bucket, Key="model/..", Body=b"a folder's name")
    for name in ("odd", "broken"):
        client.create_model_import_job(**request(place, uri, name))
    lead_odd, lead_broken = controllers
    lead_odd()
    odd = client.get_model_import_job(jobIdentifier="import-odd")
    assert (odd["status"], ".. could not be read" in odd["failureMessage"]) == ("Failed", True)
    monkeypatch.setattr(imports, "check_files", broken)
    with pytest.raises(RuntimeError, match="broken"):
        lead_broken()
    failed = client.get_model_import_job(jobIdentifier="import-broken")
    assert (failed["status"], "internal error" in failed["failureMessage"], "endTime" in failed) == (
        "Failed",
        True,
        True,
    )
    assert client.list_imported_models()["modelSummaries"] == []


def test_an_imported_model_answers_in_each_form_once_it_is_warm(
    place: AwsPlace, tmp_path: Path, namespaces: None
) -> None:
    from cloudtune.rehearsal.aws.bedrock_runtime import BedrockRuntime

    place.cloud.part(BedrockRuntime).command = COMMAND
    client, runtime = place.sdk("bedrock"), place.sdk("bedrock-runtime")
    job = client.create_model_import_job(**request(place, put(place, write_model(tmp_path / "m"))))["jobArn"]
    arn = over(client, job)["importedModelArn"]

    def invoke(**body: Any) -> dict[str, Any]:
        return dict(json.load(runtime.invoke_model(modelId=arn, body=json.dumps(body))["body"]))

    assert refused(invoke, prompt="hello")[0] == "ModelNotReadyException"

    def warm() -> dict[str, Any] | None:
        try:
            return invoke(prompt="hello there", max_gen_len=4)
        except runtime.exceptions.ModelNotReadyException:
            return None

    assert until(warm) == {
        "generation": "hello there",
        "prompt_token_count": 2,
        "generation_token_count": 3,
        "stop_reason": "stop",
    }
    chat = [{"role": "user", "content": "a b"}]
    assert invoke(messages=chat)["choices"][0]["message"]["content"] == "a b"
    assert invoke(prompt="c d", max_tokens=3)["choices"][0]["text"] == "c d"
    assert "extraneous key [nonsense]" in refused(invoke, prompt="c", nonsense=1)[1]
    assert "Malformed" in refused(invoke)[1]
    said = [{"role": "user", "content": [{"text": "how are"}, {"text": " you"}]}]
    answer = runtime.converse(modelId=arn, messages=said, inferenceConfig={"maxTokens": 5})
    assert answer["output"]["message"]["content"] == [{"text": "how are you"}]
    assert answer["usage"]["totalTokens"] == 5
    events = list(runtime.converse_stream(modelId=arn, messages=said)["stream"])
    pieces = [one["contentBlockDelta"]["delta"]["text"] for one in events if "contentBlockDelta" in one]
    assert pieces == ["how", " are", " you"]
    stream = runtime.invoke_model_with_response_stream(modelId=arn, body=json.dumps({"prompt": "x y"}))["body"]
    assert [json.loads(one["chunk"]["bytes"])["generation"] for one in stream] == ["x", " y"]
    stream = runtime.invoke_model_with_response_stream(modelId=arn, body=json.dumps({"prompt": "x break z"}))["body"]
    with pytest.raises(botocore.EventStreamError, match="broke off"):
        list(stream)
    stream.close()
    client.delete_imported_model(modelIdentifier=arn)
    assert refused(invoke, prompt="hello")[0] == "ResourceNotFoundException"
