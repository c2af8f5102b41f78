"""Requests against botocore's models: what its own validator lets through is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.rehearsal.aws.checker import checked, must_fit, unchecked_patterns, violations
from cloudtune.rehearsal.aws.models import model_of, operation_by_path, snake
from cloudtune.rehearsal.messages import Refused

pytest.importorskip("botocore", reason="botocore's models are not installed")
JOB = "CreateTrainingJobRequest"
ARN = "arn:aws:sagemaker:us-west-2:123456789012:training-job/x"


def found(**members):
    return {violation.path: violation.rule for violation in violations("sagemaker", JOB, members)}


def test_every_rule_of_a_model_is_held():
    bad = found(
        TrainingJobName="a_b",
        RoleArn="nobody",
        OutputDataConfig={"S3OutputPath": "http://x", "CompressionType": "ZIP"},
        ResourceConfig={"InstanceCount": "2", "InstanceType": "ml.inf2.xlarge"},
        Environment={"1A": "x", "B": "x" * 513, "C": 3},
        EnableManagedSpotTraining="yes",
        Colour="red",
    )
    assert {path: rule.split(":")[0].split(" [")[0] for path, rule in bad.items()} == {
        "trainingJobName": "Member must satisfy regular expression pattern",
        "roleArn": "Member must have length greater than or equal to 20",
        "outputDataConfig.s3OutputPath": "Member must satisfy regular expression pattern",
        "outputDataConfig.compressionType": "Member must satisfy enum value set",
        "resourceConfig.instanceCount": "Member must be of type integer",
        "resourceConfig.instanceType": "Member must satisfy enum value set",
        "environment.1A.key": "Member must satisfy regular expression pattern",
        "environment.B.member": "Member must have length less than or equal to 512",
        "environment.C.member": "Member must be a string",
        "enableManagedSpotTraining": "Member must be of type boolean",
        "colour": "Member is not known",
    }
    assert found() == dict.fromkeys(("trainingJobName", "roleArn", "outputDataConfig"), "Member must not be null")


def test_nulls_are_members_that_are_missing_and_lists_are_told_by_number():
    with pytest.raises(Refused) as error:
        checked("sagemaker", "ListTagsInput", {"ResourceArn": None})
    assert error.value.message == (
        "1 validation error detected: Value null at 'resourceArn' failed to satisfy constraint: Member must not be null"
    )
    (bad,) = violations("sagemaker", "DeleteTagsInput", {"ResourceArn": ARN, "TagKeys": ["a", ""]})
    assert bad.path == "tagKeys.2.member"


def test_replies_may_have_words_that_are_new_but_no_fields_that_are():
    must_fit("sagemaker", "CreateTrainingJobResponse", {"TrainingJobArn": ARN})
    with pytest.raises(AssertionError, match="colour"):
        must_fit("sagemaker", "StopTrainingJobRequest", {"TrainingJobName": "x", "Colour": "red"})


def test_patterns_compile_but_for_those_that_are_listed_and_take_no_time():
    assert unchecked_patterns("bedrock") == unchecked_patterns("s3") == ()
    assert len(unchecked_patterns("sagemaker")) < 10
    name = "a" * 5000  # the pattern alone would take for ever
    assert len(list(violations("bedrock", "JobName", name))) == 1


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=20), lambda one: st.lists(one, max_size=3))
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_sent_is_answered(value):
    members = model_of("sagemaker")["shapes"][JOB]["members"]
    for name in ("TrainingJobName", "ResourceConfig", "Environment", "InputDataConfig", "EnableNetworkIsolation"):
        list(violations("sagemaker", members[name]["shape"], value))


@pytest.mark.parametrize(
    ("method", "path", "queries", "headers", "operation"),
    [
        ("PUT", "/bucket", (), (), "CreateBucket"),
        ("PUT", "/bucket/a/b", (), (), "PutObject"),
        ("PUT", "/bucket/a", (("partNumber", "1"), ("uploadId", "x")), (), "UploadPart"),
        ("PUT", "/bucket/a", (), ("x-amz-copy-source",), "CopyObject"),
        ("GET", "/bucket", (("list-type", "2"), ("prefix", "")), (), "ListObjectsV2"),
        ("GET", "/bucket/a%20b/", (), (), "GetObject"),
        ("HEAD", "/bucket/a", (), (), "HeadObject"),
        ("POST", "/bucket", (("delete", ""),), (), "DeleteObjects"),
        ("POST", "/bucket/a", (("uploads", ""),), (), "CreateMultipartUpload"),
        ("PATCH", "/bucket/a", (), (), ""),
    ],
)
def test_operations_are_told_by_method_and_path(method, path, queries, headers, operation):
    assert operation_by_path("s3", method, path, queries, headers) == operation


def test_operations_are_called_as_the_sdk_calls_them():
    botocore = pytest.importorskip("botocore")
    for service in ("sagemaker", "s3", "iam", "logs", "bedrock"):
        for name in model_of(service)["operations"]:
            assert snake(name) == botocore.xform_name(name)
