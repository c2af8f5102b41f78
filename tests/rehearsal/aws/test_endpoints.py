"""Models, endpoint configurations and endpoints of the stand-in as the real SDK sees them; no server runs here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloudtune.rehearsal.aws.endpoints import Endpoints
from cloudtune.rehearsal.aws.serving import Serving
from tests.aws_place import AwsPlace

pytest.importorskip("botocore")


def make(place: AwsPlace, name: str, **files: str) -> str:
    """Put a model's files into S3 and begin an endpoint of it; return its name."""
    client = place.sdk("sagemaker")
    for key, text in files.items():
        place.sdk("s3").put_object(Bucket=place.bucket, Key=f"{name}/{key}", Body=text.encode())
    source = {"S3Uri": f"s3://{place.bucket}/{name}/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {"Image": "me/vllm:1", "ModelDataSource": {"S3DataSource": source}}
    client.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=place.role)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return name


def described(place: AwsPlace, name: str) -> dict[str, Any]:
    return dict(place.sdk("sagemaker").describe_endpoint(EndpointName=name))


def test_files_that_cannot_be_laid_out_fail_their_endpoint(
    place: AwsPlace, controllers: list[Callable[[], None]]
) -> None:
    make(place, "clash", **{"a": "file", "a/b": "below it"})
    (bring_up,) = controllers
    bring_up()
    endpoint = described(place, "clash")
    assert endpoint["EndpointStatus"] == "Failed"
    assert endpoint["FailureReason"].startswith(f"The model data at s3://{place.bucket}/clash/ could not be fetched")


def test_what_fails_in_the_stand_in_itself_fails_the_endpoint(
    place: AwsPlace, controllers: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    make(place, "broken", **{"config.json": "{}"})
    monkeypatch.setattr(Endpoints, "_made", broken)
    (bring_up,) = controllers
    with pytest.raises(RuntimeError, match="broken"):
        bring_up()
    endpoint = described(place, "broken")
    assert (endpoint["EndpointStatus"], "internal error" in endpoint["FailureReason"]) == ("Failed", True)


def test_an_endpoint_made_again_has_the_files_of_its_model_alone(
    place: AwsPlace, controllers: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[list[str]] = []

    def look(serving: Serving, **_: object) -> None:
        served.append(sorted(path.name for path in serving.model.iterdir()))

    monkeypatch.setattr(Serving, "start", look)
    place.cloud.part(Endpoints).commands["me/vllm:1"] = ("true",)
    client = place.sdk("sagemaker")
    for name in ("old", "new"):
        make(place, "again", **{name: ""})
        controllers.pop()()
        client.delete_endpoint(EndpointName="again")
        controllers.pop()()
        client.delete_endpoint_config(EndpointConfigName="again")
        client.delete_model(ModelName="again")
        place.sdk("s3").delete_object(Bucket=place.bucket, Key=f"again/{name}")
    assert served == [["old"], ["new"]]
