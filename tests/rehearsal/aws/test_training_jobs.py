"""Training jobs of the stand-in as the real SDK sees them: requests, refusals, lists, tags; no node runs here."""

from __future__ import annotations

import threading
import urllib.request
from typing import Any

import pytest

from cloudtune.rehearsal.aws.cloud import Timing
from tests.aws_place import AwsPlace, aws_place, until

botocore = pytest.importorskip("botocore.exceptions")
#: Longer than any test: a job that stays where it is.
SLOW = Timing(starting_s=1e6)


@pytest.fixture
def place(tmp_path):
    with aws_place(tmp_path, timing=SLOW) as found:
        yield found


def refused(call: Any, **parameters: Any) -> tuple[str, str]:
    """Return the code and message of a refusal."""
    with pytest.raises(botocore.ClientError) as error:
        call(**parameters)
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


def test_a_job_shows_what_it_was_asked_for_with_the_services_defaults(place: AwsPlace) -> None:
    client = place.sdk("sagemaker")
    asked = place.job(
        "one", "true", Environment={"A": "b"}, HyperParameters={"x": "1"}, Tags=[{"Key": "k", "Value": "v"}]
    )
    arn = client.create_training_job(**asked)["TrainingJobArn"]
    assert arn == f"arn:aws:sagemaker:us-west-2:{place.cloud.account}:training-job/one"
    job = client.describe_training_job(TrainingJobName="one")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("InProgress", "Starting")
    assert job["Environment"] == {"A": "b"}
    assert job["OutputDataConfig"]["CompressionType"] == "GZIP"
    assert "Tags" not in job
    assert "ModelArtifacts" not in job
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "l", "Value": "w"}])
    client.delete_tags(ResourceArn=arn, TagKeys=["k"])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "l", "Value": "w"}]


def test_a_name_is_taken_once_a_region(place: AwsPlace) -> None:
    client = place.sdk("sagemaker")
    client.create_training_job(**place.job("one", "true"))
    code, message = refused(client.create_training_job, **place.job("one", "true"))
    assert code == "ResourceInUse"
    assert "must be unique within an AWS account and region" in message
    elsewhere = place.sdk("sagemaker", region_name="eu-west-1")
    assert ":eu-west-1:" in elsewhere.create_training_job(**place.job("one", "true"))["TrainingJobArn"]
    for call in ("describe_training_job", "stop_training_job", "delete_training_job"):
        assert refused(getattr(client, call), TrainingJobName="two") == (
            "ValidationException",
            "Requested resource not found.",
        )


def test_requests_are_checked_beyond_what_the_sdk_looks_at(place: AwsPlace) -> None:
    client = place.sdk("sagemaker")

    def message(**changes: Any) -> str:
        code, said = refused(client.create_training_job, **{**place.job("one", "true"), **changes})
        assert code == "ValidationException"
        return said

    def machines(**changes: Any) -> dict[str, Any]:
        resources = place.job("one", "true")["ResourceConfig"]
        return {"ResourceConfig": {**resources, **changes}}

    assert "'trainingJobName' failed to satisfy constraint: Member must satisfy regular expression" in message(
        TrainingJobName="bad_name"
    )
    assert "'resourceConfig.instanceType' failed to satisfy constraint: Member must satisfy enum" in message(
        **machines(InstanceType="ml.inf2.xlarge")
    )
    assert "length less than or equal to 512" in message(Environment={"A": "x" * 513})
    assert "2 validation errors" in message(TrainingJobName="bad_name", Environment={"A": "x" * 513})
    assert "InstanceCount must be at least 1" in message(**machines(InstanceCount=0))
    assert "MaxWaitTimeInSeconds" in message(EnableManagedSpotTraining=True)
    assert "MaxWaitTimeInSeconds" in message(StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90})
    assert "algorithm name or a training image" in message(AlgorithmSpecification={"TrainingInputMode": "File"})
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{place.bucket}/none"}}
    assert "No S3 objects found" in message(InputDataConfig=[{"ChannelName": "train", "DataSource": source}])
    assert "does not exist" in message(OutputDataConfig={"S3OutputPath": "s3://nobody-has-it/x"})
    place.cloud.absent.add(place.role)
    assert "Could not assume role" in message()


def test_quotas_are_counted_over_the_jobs_that_run(place: AwsPlace) -> None:
    client = place.sdk("sagemaker")
    place.cloud.quotas["ml.g5.12xlarge"] = 3
    client.create_training_job(**place.job("one", "true", nodes=2))
    code, message = refused(client.create_training_job, **place.job("two", "true", nodes=2))
    assert code == "ResourceLimitExceeded"
    assert "'ml.g5.12xlarge for training job usage' is 3 Instances, with current utilization of 2" in message
    client.create_training_job(**place.job("two", "true"))
    pages = place.sdk("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    values = {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
    assert values["ml.g5.12xlarge for training job usage"] == 3.0
    assert values["ml.p4d.24xlarge for spot training job usage"] > 3.0


def test_a_right_that_is_missing_is_named(place: AwsPlace) -> None:
    place.cloud.denied |= {"sagemaker:CreateTrainingJob", "s3:ListBucket"}
    code, message = refused(place.sdk("sagemaker").create_training_job, **place.job("one", "true"))
    assert code == "AccessDeniedException"
    assert f"{place.cloud.principals.user} is not authorized to perform: sagemaker:CreateTrainingJob on" in message
    assert refused(place.sdk("s3").list_objects_v2, Bucket=place.bucket)[0] == "AccessDenied"
    place.sdk("s3").put_object(Bucket=place.bucket, Key="x", Body=b"")


def test_a_job_is_stopped_once_and_deleted_when_it_is_over(place: AwsPlace) -> None:
    client = place.sdk("sagemaker")
    client.create_training_job(**place.job("one", "true"))
    assert refused(client.delete_training_job, TrainingJobName="one")[0] == "ResourceInUse"
    client.stop_training_job(TrainingJobName="one")
    job = place.over("one")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]] == ["Starting", "Stopping", "Stopped"]
    assert "TrainingTimeInSeconds" not in job
    assert "is in status Stopped" in refused(client.stop_training_job, TrainingJobName="one")[1]
    client.delete_training_job(TrainingJobName="one")
    assert refused(client.describe_training_job, TrainingJobName="one")[1] == "Requested resource not found."


def test_lists_are_paged_and_a_status_is_looked_for_in_the_page(place: AwsPlace) -> None:
    client = place.sdk("sagemaker")
    for number in range(5):
        client.create_training_job(**place.job(f"job-{number}", "true"))
    client.stop_training_job(TrainingJobName="job-0")
    place.over("job-0")
    pages = client.get_paginator("list_training_jobs").paginate(SortBy="Name", PaginationConfig={"PageSize": 2})
    names = [[job["TrainingJobName"] for job in page["TrainingJobSummaries"]] for page in pages]
    assert names == [["job-4", "job-3"], ["job-2", "job-1"], ["job-0"]]
    found = client.list_training_jobs(StatusEquals="Stopped", SortBy="Name", MaxResults=2)
    assert (found["TrainingJobSummaries"], found["NextToken"]) == ([], "2")
    (only,) = client.list_training_jobs(NameContains="JOB-3")["TrainingJobSummaries"]
    assert only["TrainingJobName"] == "job-3"


def test_others_are_not_known_and_ended_keys_are_told_from_wrong_ones(place: AwsPlace) -> None:
    client = place.sdk("sagemaker")
    ask = {"TrainingJobName": "x"}
    stranger = place.sdk("sagemaker", aws_access_key_id="AKIAZZZZZZZZZZZZZZZZ", aws_secret_access_key="x")
    assert refused(stranger.describe_training_job, **ask)[0] == "UnrecognizedClientException"
    keys = place.cloud.principals.sign_in(session=True)
    liar = place.sdk(
        "sagemaker", aws_access_key_id=keys.id, aws_secret_access_key="wrong", aws_session_token=keys.token
    )
    assert refused(liar.describe_training_job, **ask)[0] == "InvalidSignatureException"
    place.cloud.principals.end_sessions()
    assert refused(client.describe_training_job, **ask)[0] == "ExpiredTokenException"
    assert refused(place.sdk("s3").get_object, Bucket=place.bucket, Key="x")[0] == "ExpiredToken"
    place.cloud.principals.sign_in()
    assert refused(place.sdk("sagemaker").describe_training_job, **ask)[0] == "ValidationException"


def test_roles_are_assumed_and_links_are_signed(place: AwsPlace) -> None:
    arn = place.sdk("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    assert arn == f"arn:aws:iam::{place.cloud.account}:role/r"
    given = place.sdk("sts").assume_role(RoleArn=arn, RoleSessionName="me")["Credentials"]
    assumed = place.sdk(
        "sts",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
    assert ":assumed-role/r/me" in assumed.get_caller_identity()["Arn"]
    s3 = place.sdk("s3")
    s3.put_object(Bucket=place.bucket, Key="a b/ü+=", Body=b"text", Metadata={"x": "y"})
    link = s3.generate_presigned_url("get_object", Params={"Bucket": place.bucket, "Key": "a b/ü+="}, ExpiresIn=60)
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"text"
    with pytest.raises(OSError, match="403"):
        urllib.request.urlopen(link.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))
    assert s3.head_object(Bucket=place.bucket, Key="a b/ü+=")["Metadata"] == {"x": "y"}


def test_what_nobody_stands_in_for_is_said(place: AwsPlace) -> None:
    code, message = refused(place.sdk("sagemaker").list_hubs)
    assert (code, "sagemaker ListHubs" in message) == ("NotImplemented", True)


def test_a_slow_client_finds_the_job_in_each_state_in_order(tmp_path: Any) -> None:
    with aws_place(tmp_path, timing=Timing(starting_s=40, pending_s=40, uploading_s=40)) as place:
        place.sdk("sagemaker").create_training_job(**place.job("one", "true"))
        status = until(lambda: place.over("one"))["SecondaryStatusTransitions"]
    times = [step["StartTime"] for step in status]
    assert times == sorted(times)
    assert all("EndTime" in step for step in status)


def test_a_ticket_that_is_made_while_others_are_forgotten_is_kept(
    place: AwsPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls: list[str] = []

    def make() -> None:
        found = place.cloud.role_environment(place.role, "s", owner="mine")
        urls.append(found["AWS_CONTAINER_CREDENTIALS_FULL_URI"])

    making = threading.Thread(target=make)

    class Watched(dict[str, tuple[str, str]]):
        def items(self) -> Any:
            found = list(super().items())
            if not making.ident:
                making.start()
                making.join(0.2)  # one that does not wait for its turn is through by now
            return found

    monkeypatch.setattr(place.cloud, "_roles", Watched())
    place.cloud.forget_roles("nobody")
    making.join()
    with urllib.request.urlopen(urls[0]) as answer:
        assert answer.status == 200
    place.cloud.forget_roles("mine")
    with pytest.raises(OSError, match="404"):
        urllib.request.urlopen(urls[0])
