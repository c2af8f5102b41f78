"""The client of AWS: the real SDK against the stand-in, with faults on the way."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cloudtune import storage
from cloudtune.errors import CloudtuneError, NoCapacity, NotAllowed, RunNotFound, ServiceError, UsageError
from cloudtune.plan import Call, File, Plan, Step
from cloudtune.rehearsal.aws.cloud import Delivery, Timing
from cloudtune.rehearsal.faults import cut, lost, refused
from tests.aws_place import AwsPlace, aws_place

pytest.importorskip("botocore", reason="the AWS SDK is not installed")
GROUP = "/aws/sagemaker/TrainingJobs"


@pytest.fixture
def place(tmp_path):
    delivery = Delivery(least_s=0, most_s=0)
    with aws_place(tmp_path, timing=Timing(starting_s=1e6), delivery=delivery) as found:
        yield found


@pytest.fixture
def client(place):
    from cloudtune.clients.aws import AwsClient

    return AwsClient()


def call(operation: str, service: str = "aws.sagemaker", **parameters: Any) -> Call:
    return Call(service=service, operation=operation, parameters=parameters)


def describe(name: str) -> Call:
    return call("describe_training_job", TrainingJobName=name)


def raised(deed: Any, *arguments: Any, **named: Any) -> CloudtuneError:
    with pytest.raises(CloudtuneError) as error:
        deed(*arguments, **named)
    return error.value


def count(place: AwsPlace, operation: str) -> int:
    return sum(one.operation == operation for one in place.stage.record.calls)


def test_a_name_that_is_taken_by_the_same_request_is_done(client: Any, place: AwsPlace) -> None:
    asked = place.job("one", "sh", "-c", "true", Tags=[{"Key": "a", "Value": "b"}], Environment={"X": "y"})
    create = call("create_training_job", **asked)
    arn = client.send(create, token="t")
    assert arn == {"TrainingJobArn": f"arn:aws:sagemaker:us-west-2:{place.cloud.account}:training-job/one"}
    assert client.send(create, token="t") == arn
    other = raised(client.send, call("create_training_job", **{**asked, "Environment": {"X": "z"}}))
    assert isinstance(other, ServiceError)
    assert (other.definite, "Environment.X" in other.message) == (True, True)
    stop = call("stop_training_job", TrainingJobName="one")
    assert client.send(stop) == client.send(stop) == {}
    assert place.over("one")["TrainingJobStatus"] == "Stopped"
    assert client.send(stop) == {}
    delete = call("delete_training_job", TrainingJobName="one")
    assert client.send(delete) == client.send(delete) == {}


@pytest.mark.parametrize("fault", [lost, cut])
def test_a_reply_that_is_lost_is_found_again(client: Any, place: AwsPlace, fault: Any) -> None:
    place.stage.faults.add(fault("aws.sagemaker", "create_training_job"))
    assert client.send(call("create_training_job", **place.job("one", "true")))["TrainingJobArn"].endswith("/one")
    assert count(place, "create_training_job") == 2
    assert [job["TrainingJobName"] for job in client.read(call("list_training_jobs"))["TrainingJobSummaries"]] == [
        "one"
    ]


def test_replies_are_json_data_with_the_time_of_the_service(client: Any, place: AwsPlace) -> None:
    client.send(call("create_training_job", **place.job("one", "true")))
    reply = client.read(describe("one"))
    assert json.loads(json.dumps(reply)) == reply
    assert reply["CreationTime"].startswith("20")
    assert "ResponseMetadata" not in reply
    assert client.skew_s is not None
    assert abs(client.skew_s) < 60
    assert client.look_s == (0.2, 0.5)


def test_refusals_say_who_can_mend_them(client: Any, place: AwsPlace) -> None:
    place.cloud.quotas["ml.g5.12xlarge"] = 0
    full = raised(client.send, call("create_training_job", **place.job("one", "true")))
    assert isinstance(full, NoCapacity)
    assert "Service Quotas" in str(full.hint)
    assert isinstance(raised(client.read, describe("nobody")), RunNotFound)
    wrong = raised(client.send, call("create_training_job", **place.job("bad_name", "true")))
    assert isinstance(wrong, ServiceError)
    assert (wrong.definite, bool(wrong.request_id)) == (True, True)
    assert "regular expression" in wrong.message
    assert isinstance(raised(client.read, describe("x" * 0)), (UsageError, ServiceError))
    assert isinstance(raised(client.read, call("describe_training_job", Colour="red")), UsageError)
    assert isinstance(raised(client.read, call("paint_training_job")), UsageError)
    assert isinstance(raised(client.read, call("x", service="aws.nothing")), UsageError)
    place.cloud.denied |= {"sagemaker:DescribeTrainingJob"}
    place.stage.faults.add(refused("aws.s3", "list_objects_v2", status=403, code="AccessDenied", numbers=()))
    denied = raised(client.read, describe("one"))
    assert isinstance(denied, NotAllowed)
    assert "sagemaker:DescribeTrainingJob" in denied.message
    assert denied.policy == "infrastructure/sagemaker"
    assert '{"Effect": "Allow", "Action": ["sagemaker:DescribeTrainingJob"], "Resource": [' in str(denied.hint)
    listed = raised(client.read, call("list_objects_v2", service="aws.s3", Bucket=place.bucket))
    assert "s3:ListBucket" in listed.message


def test_busy_services_are_asked_again_and_lost_replies_are_not_believed(client: Any, place: AwsPlace) -> None:
    client.send(call("create_training_job", **place.job("one", "true")))
    place.stage.faults.add(
        refused("aws.sagemaker", "describe_training_job", status=503, numbers=(1, 2)),
        refused("aws.sagemaker", "describe_training_job", status=400, code="ThrottlingException", numbers=(3,)),
        lost("aws.sagemaker", "describe_training_job", numbers=(4,)),
    )
    assert client.read(describe("one"))["TrainingJobName"] == "one"
    assert count(place, "describe_training_job") == 5
    place.stage.faults.add(lost("aws.sagemaker", "stop_training_job", numbers=()))
    doubtful = raised(client.send, call("stop_training_job", TrainingJobName="one"))
    assert isinstance(doubtful, ServiceError)
    assert (doubtful.definite, doubtful.passing) == (False, True)
    assert count(place, "stop_training_job") == 6


def test_credentials_that_have_expired_are_read_anew(client: Any, place: AwsPlace) -> None:
    place.cloud.principals.sign_in(session=True)
    client.send(call("create_training_job", **place.job("one", "true")))
    place.cloud.principals.end_sessions()
    expired = raised(client.read, describe("one"))
    assert isinstance(expired, NotAllowed)
    assert (expired.passing, "expired" in expired.message) == (True, True)
    assert "aws configure" in str(expired.hint)
    place.cloud.principals.sign_in(session=True)
    assert client.read(describe("one"))["TrainingJobName"] == "one"
    place.stage.faults.add(refused("aws.*", status=401, code="Expired", numbers=(4,)))
    assert client.read(describe("one"))["TrainingJobName"] == "one"


def test_without_credentials_or_a_region_it_says_what_to_do(place: AwsPlace, monkeypatch: Any, tmp_path: Path) -> None:
    from cloudtune.clients.aws import AwsClient

    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    nobody = raised(AwsClient().read, describe("one"))
    assert isinstance(nobody, NotAllowed)
    assert "aws sso login" in str(nobody.hint)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert "no AWS region" in raised(AwsClient().read, describe("one")).message
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert "list-profiles" in str(raised(AwsClient().read, describe("one")).hint)
    rows = ["[profile other]", "region = us-west-2", "sso_session = s", "sso_account_id = 1", "sso_role_name = r"]
    rows += ["[sso-session s]", "sso_region = us-west-2", "sso_start_url = http://127.0.0.1:9/start", ""]
    (tmp_path / "config").write_text("\n".join(rows))
    signed_out = raised(AwsClient().read, describe("one"))
    assert isinstance(signed_out, NotAllowed)
    assert (signed_out.hint, signed_out.passing) == ("aws sso login --profile other", True)


def test_a_profile_assumes_its_role_and_regions_are_found(place: AwsPlace) -> None:
    from cloudtune.clients.aws import AwsClient

    arn = place.sdk("iam").create_role(RoleName="trainer", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    config = place.identity.home / ".aws" / "config"
    rows = ["[profile team]", "region = eu-west-1", f"role_arn = {arn}", "source_profile = default", ""]
    config.write_text(config.read_text() + "\n".join(rows))
    who = call("get_caller_identity", service="aws.sts")
    assert AwsClient().read(who)["Arn"] == place.cloud.principals.user
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_PROFILE", "team")
        team = AwsClient()
        assert ":assumed-role/trainer/" in team.read(who)["Arn"]
        assert ":eu-west-1:" in team.send(call("create_training_job", **place.job("one", "true")))["TrainingJobArn"]
        there = Call(
            service="aws.sagemaker",
            operation="create_training_job",
            parameters=place.job("one", "true"),
            region="ap-south-1",
        )
        made = team.send(there)["TrainingJobArn"]
        assert ":ap-south-1:" in made
        assert team.read(call("list_tags", ResourceArn=made))["Tags"] == []


def test_a_notebook_of_studio_knows_its_region(place: AwsPlace, monkeypatch: Any, tmp_path: Path) -> None:
    from cloudtune.clients import aws_auth

    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    facts = {"AppType": "JupyterLab", "ResourceArn": "arn:aws:sagemaker:eu-north-1:123456789012:app/d-1/u/JupyterLab/x"}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    monkeypatch.setattr(aws_auth, "_STUDIO", tmp_path / "facts.json")
    assert aws_auth.Account().region == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "us-east-2")
    assert aws_auth.Account().region == "us-east-2"


def test_nobody_at_the_other_end_may_be_over_later(place: AwsPlace, monkeypatch: Any) -> None:
    from cloudtune.clients.aws import AwsClient

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    gone = raised(AwsClient(hasty=True).read, describe("one"))
    assert isinstance(gone, ServiceError)
    assert (gone.definite, gone.passing) == (True, True)


def test_pages_are_fetched_as_one_and_many_requests_together(client: Any, place: AwsPlace) -> None:
    from cloudtune.rehearsal.aws.logs import Logs

    ask = {"logGroupName": GROUP, "logStreamNamePrefix": "j/", "absent": True, "cursor": {"at": 1}}
    nothing = client.read(call("describe_log_streams", "aws.logs", **ask))
    assert (nothing["absent"], nothing["cursor"]) == (True, {"at": 1})
    logs = place.cloud.part(Logs)
    for host in ("algo-1", "algo-2"):
        logs.write("us-west-2", GROUP, f"j/{host}-1", [(1.0 + at, f"{host} {at}") for at in range(25)])
    streams = client.read(call("describe_log_streams", "aws.logs", limit=1, pages=9, **ask))["logStreams"]
    names = [stream["logStreamName"] for stream in streams]
    assert names == ["j/algo-1-1", "j/algo-2-1"]
    each = [{"logStreamName": name} for name in names]
    read = call("get_log_events", "aws.logs", logGroupName=GROUP, startFromHead=True, limit=10, pages=9, each=each)
    replies = client.read(read)["replies"]
    told = [[event["message"] for event in reply["events"]] for reply in replies]
    assert told == [[f"{host} {at}" for at in range(25)] for host in ("algo-1", "algo-2")]
    further = [{**one, "nextToken": reply["nextForwardToken"]} for one, reply in zip(each, replies, strict=True)]
    again = call("get_log_events", "aws.logs", logGroupName=GROUP, startFromHead=True, each=further)
    assert [reply["events"] for reply in client.read(again)["replies"]] == [[], []]


def test_what_is_uploaded_is_checked_and_read_back_by_s3fs(client: Any, place: AwsPlace, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_bytes(b"print(1)")
    digest = hashlib.sha256(b"print(1)").hexdigest()
    code = File(path="code/train.py", bytes=8, sha256=digest, source=str(tmp_path / "train.py"), executable=True)
    made = File(path="order.json", bytes=2, sha256=hashlib.sha256(b"{}").hexdigest(), content=b"{}")
    put = call("put_object", "aws.s3", Bucket=place.bucket, Key="runs/one/order.json")
    assert client.send(put, files=(made,))["ETag"]
    put = call("put_object", "aws.s3", Bucket=place.bucket, Key="runs/one/")
    client.send(put, files=(made, code))
    base = f"s3://{place.bucket}/runs/one"
    assert sorted(entry.path for entry in storage.listing(base)) == ["code.tar.gz", "order.json"]
    storage.download(base, tmp_path / "back")
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "back" / "code.tar.gz").read_bytes())) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mode & 0o100) == ("train.py", 0o100)
    (tmp_path / "train.py").write_bytes(b"print(2)")
    step = Step(id="code", service="aws.s3", operation="put_object", parameters=put.parameters, files=(code,))
    plan = Plan(name="x", run_id="x", backend="sagemaker", steps=(step,))
    assert "train.py" in raised(client.make_ready, plan).message
    assert "train.py" in raised(client.send, put, files=(code,)).message


def test_a_notebook_that_signs_in_again_opens_s3_as_the_new_user(place: AwsPlace) -> None:
    from cloudtune.clients.aws_storage import file_system

    uri = f"s3://{place.bucket}/x"
    files, path = file_system(uri)
    assert (path, file_system(uri)[0] is files) == (f"{place.bucket}/x", True)
    files.pipe(path, b"1")
    place.cloud.principals.end_sessions()
    place.cloud.principals.sign_in()
    again, _ = file_system(uri)
    assert again is not files
    assert again.cat(path) == b"1"


def test_the_larger_sdk_is_not_imported() -> None:
    code = "import sys, cloudtune.clients.aws; print('boto3' in sys.modules, 's3fs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
