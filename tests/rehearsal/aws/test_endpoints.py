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


def test_what_is_more_than_a_page_comes_in_further_ones(place: AwsPlace, controllers: list[Callable[[], None]]) -> None:
    client = place.sdk("sagemaker")
    names = [f"name-{number}" for number in range(5)]
    for name in names:
        make(place, name, **{"config.json": "{}"})
        client.create_model_package_group(ModelPackageGroupName=name)
    lists = {
        "list_models": ("Models", "ModelName"),
        "list_endpoint_configs": ("EndpointConfigs", "EndpointConfigName"),
        "list_endpoints": ("Endpoints", "EndpointName"),
        "list_model_package_groups": ("ModelPackageGroupSummaryList", "ModelPackageGroupName"),
    }
    for operation, (field, key) in lists.items():
        pages = client.get_paginator(operation).paginate(PaginationConfig={"PageSize": 2})
        assert [[row[key] for row in page[field]] for page in pages] == [names[:2], names[2:4], names[4:]]
        (only,) = getattr(client, operation)(NameContains="-3", MaxResults=1)[field]
        assert only[key] == "name-3"
        with pytest.raises(client.exceptions.ClientError, match="The token that you have provided is not valid"):
            getattr(client, operation)(NextToken="x")


def test_a_page_of_endpoints_is_short_unless_it_is_asked_for(
    place: AwsPlace, controllers: list[Callable[[], None]]
) -> None:
    client = place.sdk("sagemaker")
    make(place, "name", **{"config.json": "{}"})
    for number in range(10):
        client.create_endpoint(EndpointName=f"name-{number}", EndpointConfigName="name")
    page = client.list_endpoints()
    assert (len(page["Endpoints"]), "NextToken" in page) == (10, True)
    page = client.list_endpoints(MaxResults=11)
    assert (len(page["Endpoints"]), "NextToken" in page) == (11, False)


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "code"),
    [
        ("sagemaker", "list_training_jobs", {"NextToken": "x"}, "ValidationException"),
        ("bedrock", "list_imported_models", {"nextToken": "x"}, "ValidationException"),
        (
            "service-quotas",
            "list_service_quotas",
            {"ServiceCode": "sagemaker", "NextToken": "x"},
            "InvalidPaginationTokenException",
        ),
        ("logs", "describe_log_groups", {"nextToken": "x"}, "InvalidParameterException"),
    ],
)
def test_tokens_that_nobody_gave_are_refused(
    place: AwsPlace, service: str, operation: str, parameters: dict[str, str], code: str
) -> None:
    client = place.sdk(service)
    with pytest.raises(client.exceptions.ClientError) as error:
        getattr(client, operation)(**parameters)
    assert error.value.response["Error"]["Code"] == code
