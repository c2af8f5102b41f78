"""What a job presupposes on SageMaker, asked of the stand-in with the user's own rights."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from cloudtune import rights
from cloudtune.diagnosis import document, places
from cloudtune.diagnosis.checks import Surroundings, carried_out
from cloudtune.rights.trust import trusts
from tests.aws_place import AwsPlace, aws_place

pytest.importorskip("botocore", reason="botocore is not installed")

from cloudtune.diagnosis import aws as room
from cloudtune.diagnosis import aws_network, aws_resources

TRUST: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


@pytest.mark.parametrize(
    ("statement", "trusted"),
    [
        ({}, True),
        ({"Action": "sts:*"}, True),
        ({"Action": ["sts:TagSession", "STS:AssumeRole"]}, True),
        ({"Principal": {"Service": ["ec2.amazonaws.com", "sagemaker.amazonaws.com"]}}, True),
        ({"Principal": "*"}, True),
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:root"}}, False),
        ({"Principal": {"Service": "bedrock.amazonaws.com"}}, False),
        ({"Action": "sts:TagSession"}, False),
        ({"Effect": "Deny"}, False),
    ],
)
def test_whom_a_role_trusts(statement: dict[str, object], trusted: bool) -> None:
    whole = {**TRUST["Statement"][0], **statement}
    assert trusts({"Statement": whole}, "sagemaker.amazonaws.com") is trusted
    assert trusts({"Statement": [whole]}, "sagemaker.amazonaws.com") is trusted


@attrs.frozen(kw_only=True)
class Ground:
    """The stand-in with what a job names."""

    place: AwsPlace
    role: str
    subnet: str
    group: str
    secret: str
    image: str


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Return one stand-in for all tests: only questions are asked."""
    with aws_place(tmp_path_factory.mktemp("aws")) as place:
        iam, ec2 = place.sdk("iam"), place.sdk("ec2")
        role = iam.create_role(RoleName="training", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        other = json.dumps(TRUST).replace("sagemaker", "ec2")
        iam.create_role(RoleName="other", AssumeRolePolicyDocument=other)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/28")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)["GroupId"]
        pairs = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=pairs)
        secret = place.sdk("secretsmanager").create_secret(Name="cloudtune/hub", SecretString="never read")["ARN"]
        place.sdk("ecr").create_repository(repositoryName="tune")
        registry = f"{place.cloud.account}.dkr.ecr.us-west-2.amazonaws.com/tune:1"
        yield Ground(place=place, role=role, subnet=subnet, group=group, secret=secret, image=registry)


@pytest.fixture
def place(ground):
    yield ground.place
    ground.place.cloud.denied.clear()
    ground.place.cloud.quotas.clear()


def look(ground, folder, *, write=False, runtime=None, **changes):
    """Return what is found for a job."""
    given = {
        "region": "us-west-2",
        "roleArn": ground.role,
        "instanceType": "ml.g5.12xlarge",
        "framework": {"name": "huggingface"},
        "outputPath": f"s3://{ground.place.bucket}/jobs",
        "subnetIds": [ground.subnet],
        "securityGroupIds": [ground.group],
        **changes,
    }
    spec = {key: value for key, value in given.items() if value is not None}
    what = {"command": "torchrun train.py", "replicas": 2, **(runtime or {})}
    data = {
        "name": "j",
        "infrastructure": {"kind": "infrastructure", "type": "sageMakerTrainingJob", "spec": spec},
        "runtime": {"kind": "runtime", "type": "pyTorchDistributed", "spec": what},
    }
    file = folder / "job.json"
    file.write_text(json.dumps({"kind": "job", "spec": data}))
    found = document.read(file, environ=os.environ)
    assert found.subjects, found.findings
    return carried_out(places.checks(found.subjects, Surroundings(environ=os.environ, write=write)))


def of(findings, check):
    return [(one.status, one.message) for one in findings if one.check == check]


def problems(findings):
    return [(one.check, one.message) for one in findings if one.status == "problem"]


def test_a_job_that_has_everything_has_nothing_to_be_told(ground, place, tmp_path):
    env = {"env": [{"name": "HF_TOKEN", "secret": ground.secret}]}
    found = look(ground, tmp_path, runtime=env)
    assert problems(found) == []
    assert of(found, "sagemaker") == [("ok", f"you ask as {place.cloud.principals.user}, region us-west-2")]
    assert of(found, "role")[0] == ("ok", f"role {ground.role} exists, and SageMaker may take it")
    quota = "quota 'ml.g5.12xlarge for training job usage' is 10000"
    assert of(found, "quota") == [("ok", f"the job takes 2 x ml.g5.12xlarge, and {quota}")]
    assert of(found, "network") == [
        ("ok", f"subnets {ground.subnet} exist, with 11 free addresses"),
        ("ok", f"security groups {ground.group} exist; nodes reach each other on all ports"),
    ]
    assert of(found, "storage") == [("ok", f"bucket {place.bucket} exists; it takes outputs")]
    assert of(found, "secrets")[0][0] == "ok"


def test_only_questions_are_asked_and_no_secret_is_read(ground, place, tmp_path):
    before = len(place.stage.record.calls)
    look(ground, tmp_path, runtime={"env": [{"name": "HF_TOKEN", "secret": ground.secret}]})
    asked = {one.operation for one in place.stage.record.calls[before:]}
    assert "describe_secret" in asked
    verbs = {one.partition("_")[0] for one in asked}
    assert verbs <= {"get", "head", "list", "describe", "simulate"}, asked
    assert "get_secret_value" not in asked


def test_what_does_not_exist_or_does_not_fit_is_a_problem(ground, place, tmp_path):
    place.cloud.quotas["ml.g5.12xlarge"] = 1
    elsewhere = ground.role.replace("role/training", "role/no-such")
    wrong = look(
        ground,
        tmp_path,
        roleArn=elsewhere,
        outputPath="s3://no-such-bucket-here/x",
        inputs=[{"channel": "rows", "uri": f"s3://{place.bucket}/nothing/here"}],
        image=ground.image,
        framework=None,
        runtime={"env": [{"name": "HF_TOKEN", "secret": f"{ground.secret[:-6]}zzzzzz"}]},
    )
    assert problems(wrong) == [
        ("role", f"role {elsewhere} does not exist in your account"),
        ("quota", "the job takes 2 x ml.g5.12xlarge, and quota 'ml.g5.12xlarge for training job usage' is 1"),
        ("storage", "bucket no-such-bucket-here does not exist; it takes outputs"),
        ("storage", f"what is at s3://{place.bucket}/nothing/here: nothing"),
        ("secrets", "secret cloudtune/hub-zzzzzz does not exist"),
        ("image", "image tune:1 is not in the registry"),
    ]


def test_a_role_that_sagemaker_may_not_take_is_told_what_it_lacks(ground, tmp_path):
    arn = ground.role.replace("role/training", "role/other")
    (problem,) = [one for one in look(ground, tmp_path, roleArn=arn) if one.status == "problem"]
    assert problem.message == f"role {arn} exists, but SageMaker may not take it"
    assert "sts:AssumeRole" in problem.statements[0]
    assert problem.where == "spec.infrastructure.spec.roleArn"


def test_a_right_that_is_missing_is_named_with_its_statement(ground, place, tmp_path):
    place.cloud.denied.update({"s3:ListBucket", "ec2:DescribeSubnets"})
    found = {one.check: one for one in look(ground, tmp_path) if one.status == "problem"}
    assert found["storage"].message == f"you may not look at bucket {place.bucket}"
    facts = {"bucket": place.bucket}
    assert found["storage"].statements == (rights.rights("aws")["users.bucket"].statement(facts),)
    assert "infrastructure/sagemaker, feature storage" in found["storage"].hint
    assert '"ec2:DescribeSubnets"' in found["network"].statements[0]


def test_a_role_of_another_account_is_told(ground, tmp_path):
    arn = "arn:aws:iam::123456789012:role/training"
    messages = [message for _, message in problems(look(ground, tmp_path, roleArn=arn))]
    assert messages[0].startswith("the role is of account 123456789012, and you are in ")


def test_with_write_an_object_is_put_and_removed(ground, place, tmp_path):
    found = look(ground, tmp_path, write=True)
    assert ("ok", f"you may write to bucket {place.bucket}, and remove what you wrote") in of(found, "storage")
    listed = place.sdk("s3").list_objects_v2(Bucket=place.bucket)
    assert not [row for row in listed.get("Contents", ()) if "doctor" in row["Key"]]


def test_nobody_signed_in_is_said_once(ground, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODYKNOWSTHIS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    found = look(ground, tmp_path)
    (problem,) = [one for one in found if one.status == "problem"]
    assert (problem.check, "AWS does not know you" in problem.message) == ("sagemaker", True)
    assert all("not signed in" in one.message for one in found if one.status == "unknown")


def test_what_iam_works_out_of_a_role_names_the_statement(monkeypatch):
    """The stand-in has no simulation: IAM's answer is given."""
    asked = []

    class Iam:
        def read(self, call):
            asked.append(call.parameters)
            refused = call.parameters["ActionNames"] == ["secretsmanager:GetSecretValue"]
            decision = "implicitDeny" if refused else "allowed"
            rows = [{"EvalActionName": one, "EvalDecision": decision} for one in call.parameters["ActionNames"]]
            return {"EvaluationResults": rows}

    secret = "arn:aws:secretsmanager:us-west-2:123456789012:secret:cloudtune/hub-AbC"
    wanted = SimpleNamespace(
        secrets=(("", secret),),
        place=SimpleNamespace(subnet_ids=()),
        objects=(SimpleNamespace(bucket="b", written=True),),
        image=None,
        facts={"account": "123456789012", "region": "us-west-2", "bucket": "b"},
        at=lambda key: key,
    )
    questions = room.AwsQuestions(Iam())
    (found,) = aws_resources._rights_of(wanted, questions, "arn:aws:iam::123456789012:role/training")
    assert (found.status, found.check) == ("problem", "role")
    assert json.loads(found.statements[0])["Action"] == ["secretsmanager:GetSecretValue"]
    assert {"ResourceArns": [secret]}.items() <= asked[-1].items()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-1"}]}, True),
        ({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-2"}]}, False),
        ({"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": [{"GroupId": "sg-1"}]}, True),
        ({"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": "sg-1"}]}, False),
        ({"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, False),
    ],
)
def test_which_rules_let_nodes_reach_each_other(rule, expected):
    assert aws_network.lets_in(rule, {"sg-1"}) is expected
