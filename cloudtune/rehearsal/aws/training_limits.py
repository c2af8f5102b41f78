"""What SageMaker refuses of a training job beyond what its model says.

Source: the API reference of CreateTrainingJob.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.speech import invalid
from cloudtune.rehearsal.messages import Refused

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import AwsCloud

#: 28 days: the longest that a job may run.
_LONGEST_S = 28 * 24 * 3600
_S3 = re.compile(r"s3://([^/]+)/?(.*)")


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return the two parts of an ``s3://`` URI; Refused where it is none."""
    found = _S3.fullmatch(uri)
    if found is None:
        raise invalid(f"The S3 URI {uri} is not valid.")
    return found[1], found[2]


def check_request(cloud: AwsCloud, given: Mapping[str, Any], *, running: Counter[str]) -> None:
    """Refuse a job that cannot be: its parts contradict each other, or what it names is not there."""
    for name in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
        if name not in given:
            raise invalid(f"{name} is required unless ServerlessJobConfig is given.")
    _check_role(cloud, given["RoleArn"])
    _check_algorithm(given)
    _check_machines(cloud, given, running)
    _check_times(given)
    for channel in given.get("InputDataConfig", ()):
        _check_channel(cloud, given, channel)
    names = Counter(channel["ChannelName"] for channel in given.get("InputDataConfig", ()))
    if twice := [name for name, count in names.items() if count > 1]:
        raise invalid(f"Duplicate channel name {twice[0]} in InputDataConfig.")
    for uri in (given["OutputDataConfig"]["S3OutputPath"], (given.get("CheckpointConfig") or {}).get("S3Uri")):
        if uri is not None:
            _check_bucket(cloud, uri)


def _check_role(cloud: AwsCloud, role: str) -> None:
    if role in cloud.absent:
        why = "Please ensure that the role exists and allows principal 'sagemaker.amazonaws.com' to assume the role."
        raise invalid(f"Could not assume role {role}. {why}")


def _check_algorithm(given: Mapping[str, Any]) -> None:
    algorithm = given["AlgorithmSpecification"]
    if ("TrainingImage" in algorithm) == ("AlgorithmName" in algorithm):
        raise invalid("You must specify either an algorithm name or a training image, and not both.")
    if "TrainingInputMode" not in algorithm:
        raise invalid("TrainingInputMode is required in AlgorithmSpecification.")
    if "ContainerArguments" in algorithm and "ContainerEntrypoint" not in algorithm:
        raise invalid("ContainerArguments can only be given together with ContainerEntrypoint.")


def _check_machines(cloud: AwsCloud, given: Mapping[str, Any], running: Counter[str]) -> None:
    resources = given["ResourceConfig"]
    if "InstanceGroups" in resources or "InstanceType" not in resources:
        raise invalid("rehearsed SageMaker knows jobs of one InstanceType with InstanceCount alone.")
    kind, count = resources["InstanceType"], resources.get("InstanceCount", 0)
    if count < 1:
        raise invalid("InstanceCount must be at least 1.")
    if "VolumeSizeInGB" not in resources:
        raise invalid("VolumeSizeInGB is required in ResourceConfig.")
    spot = given.get("EnableManagedSpotTraining", False)
    if spot and resources.get("KeepAlivePeriodInSeconds"):
        raise invalid("KeepAlivePeriodInSeconds cannot be used with managed spot training.")
    limit = cloud.quotas.get(kind)
    if limit is not None and running[kind] + count > limit:
        what = f"{kind} for {'spot ' if spot else ''}training job usage"
        raise Refused(
            400,
            "ResourceLimitExceeded",
            f"The account-level service limit '{what}' is {limit} Instances, with current utilization of "
            f"{running[kind]} Instances and a request delta of {count} Instances. Please use AWS Service Quotas to "
            "request an increase for this quota. If AWS Service Quotas is not available, contact AWS support to "
            "request an increase for this quota.",
        )


def _check_times(given: Mapping[str, Any]) -> None:
    stopping, spot = given["StoppingCondition"], given.get("EnableManagedSpotTraining", False)
    run_s, wait_s = stopping.get("MaxRuntimeInSeconds", 24 * 3600), stopping.get("MaxWaitTimeInSeconds")
    if run_s > _LONGEST_S:
        raise invalid(f"MaxRuntimeInSeconds must be {_LONGEST_S} at most.")
    if spot and (wait_s is None or wait_s < run_s):
        raise invalid(
            f"Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds "
            f"({run_s}) when EnableManagedSpotTraining is true."
        )
    if not spot and wait_s is not None:
        raise invalid("MaxWaitTimeInSeconds can only be given when EnableManagedSpotTraining is true.")


def _check_channel(cloud: AwsCloud, given: Mapping[str, Any], channel: Mapping[str, Any]) -> None:
    source = channel["DataSource"]
    if "FileSystemDataSource" in source:
        if "VpcConfig" not in given:
            raise invalid("VpcConfig is required for a FileSystemDataSource.")
        if source["FileSystemDataSource"]["FileSystemId"] in cloud.absent:
            raise invalid(f"File system {source['FileSystemDataSource']['FileSystemId']} does not exist.")
        return
    if "S3DataSource" not in source:
        raise invalid("rehearsed SageMaker knows S3DataSource and FileSystemDataSource alone.")
    if channel.get("InputMode", given["AlgorithmSpecification"]["TrainingInputMode"]) == "Pipe":
        raise invalid("rehearsed SageMaker has no Pipe mode: take File or FastFile.")
    uri = source["S3DataSource"]["S3Uri"]
    bucket, key = bucket_and_key(uri)
    if next(iter(cloud.borrowed.objects(bucket, key)), None) is None:
        raise invalid(
            f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
            f"exists in the selected region ({cloud.region}), that objects exist under that S3 prefix, and that the "
            f'role "{given["RoleArn"]}" has "s3:ListBucket" permissions on bucket "{bucket}".'
        )


def _check_bucket(cloud: AwsCloud, uri: str) -> None:
    bucket, _ = bucket_and_key(uri)
    if not cloud.borrowed.has_bucket(bucket):
        raise invalid(f"S3 bucket {bucket} of {uri} does not exist, or is not in the region of the training job.")
