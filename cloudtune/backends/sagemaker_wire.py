"""A job in the words of SageMaker's CreateTrainingJob, as plain data.

Names, values and limits are those of the service's model in botocore 1.44.5; what goes where was checked against what
the SageMaker SDK sends for the same jobs. Unlike the SDK nothing travels as a hyperparameter: there values are turned
to text twice, and one of its two ways of starting scripts runs them through a shell.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudtune.errors import Fault
from cloudtune.spec.sagemaker import Channel, SageMakerTrainingJob
from cloudtune.spec.sagemaker_limits import OWN_CHANNEL

#: What the service does with a job: where channels arrive and from where it takes files when the job has ended.
DATA, MODEL, OUTPUT_DATA = "/opt/ml/input/data", "/opt/ml/model", "/opt/ml/output/data"
#: What it keeps in step with checkpointUri, where the spec names no other folder.
CHECKPOINTS = "/opt/ml/checkpoints"
#: Where the agent works; on SageMaker /tmp lies on the volume of the instance.
WORK = "/tmp/cloudtune"  # noqa: S108 - a container has it for itself
#: What the SDK sends where the user says nothing.
MAX_RUNTIME_S, VOLUME_GB = 24 * 3600, 30
#: How long spot capacity is waited for, beside the run itself, where the spec does not say.
SPOT_WAIT_S = 24 * 3600
#: Limits of the API: a variable's value in bytes, how many variables, words of an argv and their characters.
VALUE_BYTES, VARIABLES, WORDS, WORD_CHARACTERS = 512, 100, 100, 256
_NAME_LENGTH = 63
_VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,511}")


def training_job_name(name: str, run_id: str) -> str:
    """Return the name of the training job: letters, digits and hyphens, 63 at most; the run's id makes it unique.

    >>> training_job_name("my_job: first", "abcdefgh")
    'my-job-first-abcdefgh'
    """
    tail = plain_name(run_id)
    if tail != run_id or len(tail) > _NAME_LENGTH:
        # what was changed may now be like another's
        tail = f"{tail[: _NAME_LENGTH - 9].rstrip('-')}-{zlib.crc32(run_id.encode()):08x}"
    head = plain_name(name)[: max(0, _NAME_LENGTH - 1 - len(tail))].rstrip("-")
    return f"{head}-{tail}" if head else tail


def plain_name(text: str) -> str:
    """Return a text as the name of a training job may hold it."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def instance_type(name: str) -> str:
    """Return a type as SageMaker spells it: ``ml.`` before EC2's name."""
    return name if name.startswith("ml.") else f"ml.{name}"


def agent_argv(folder: str) -> tuple[list[str], list[str]]:
    """Return entrypoint and arguments of a container that starts the agent; no shell reads them.

    The job's own command is not among them: it is in the agent's order, where no word of it is too long.
    """
    own = f"{DATA}/{OWN_CHANNEL}"
    return ["python3"], ["-I", "-S", f"{own}/agent.pyz", "run", "--order", f"{own}/order.json", "--directory", folder]


def split_s3(uri: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` URI.

    >>> split_s3("s3://bucket/a/b/")
    ('bucket', 'a/b')
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key.strip("/")


def training_job(
    place: SageMakerTrainingJob,
    *,
    name: str,
    nodes: int,
    image: str | None,
    role: str | None,
    argv: tuple[Sequence[str], Sequence[str]],
    environment: Mapping[str, Any],
    own_channel: str | None,
    output_path: str | None,
    max_runtime_s: int,
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """Return ``CreateTrainingJobRequest``; ``own_channel`` is the ``s3://`` prefix of what cloudtune sends along."""
    entrypoint, arguments = argv
    metrics = [{"Name": metric.name, "Regex": metric.regex} for metric in place.metric_definitions]
    channels = [_channel(channel) for channel in place.inputs]
    if own_channel is not None:
        own = Channel(channel=OWN_CHANNEL, uri=own_channel, mode="File", distribution="FullyReplicated")
        channels.append(_channel(own))
    return said(
        {
            "TrainingJobName": name,
            "AlgorithmSpecification": said(
                {
                    "TrainingImage": image,
                    "TrainingInputMode": "File",
                    "ContainerEntrypoint": list(entrypoint),
                    "ContainerArguments": list(arguments),
                    "MetricDefinitions": metrics,
                    "EnableSageMakerMetricsTimeSeries": True if metrics else None,
                }
            ),
            "RoleArn": role,
            "InputDataConfig": channels,
            "OutputDataConfig": _outputs(place, output_path),
            "ResourceConfig": _machines(place, nodes),
            "VpcConfig": _network(place),
            "StoppingCondition": _times(place, max_runtime_s),
            "EnableManagedSpotTraining": place.use_spot or None,
            "CheckpointConfig": _checkpoints(place),
            "RetryStrategy": _retries(place),
            "EnableInterContainerTrafficEncryption": place.encrypt_inter_container_traffic or None,
            "EnableNetworkIsolation": place.network_isolation or None,
            "Environment": dict(environment),
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }
    )


def said(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details without those that say nothing: null, and empty lists and mappings."""
    return {key: value for key, value in details.items() if value is not None and value not in ({}, [])}


def fitting(variables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the variables that a request can carry; a value that is not known yet is taken to fit."""
    room = VARIABLES
    for name, value in variables.items():
        if room and _VARIABLE.fullmatch(name) and not (isinstance(value, str) and _is_long(value)):
            room -= 1
            yield name, value


def argv_faults(path: str, words: Sequence[str]) -> Iterator[Fault]:
    """Yield what the API refuses of the words of a container's own command."""
    if len(words) > WORDS:
        yield Fault(path=path, message=f"{len(words)} words; SageMaker takes {WORDS}", hint="put them into a script")
    for index, word in enumerate(words):
        if len(word) > WORD_CHARACTERS or "\n" in word:
            message = f"word {index} has {len(word)} characters{' and a line break' if chr(10) in word else ''}"
            hint = f"SageMaker takes one line of {WORD_CHARACTERS} characters a word; put it into a script of the image"
            yield Fault(path=path, message=message, hint=hint)


def variable_faults(path: str, variables: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the variables that do not fit into a request, for a container without an agent that could bring them."""
    fits = dict(fitting(variables))
    for name in variables:
        if name not in fits:
            message = f"{name} does not fit: SageMaker takes {VARIABLES} variables of {VALUE_BYTES} bytes each"
            hint = "another runtime than container brings larger ones by cloudtune's agent"
            yield Fault(path=path, message=message, hint=hint)


def _is_long(value: str) -> bool:
    return len(value.encode("utf-8", "surrogatepass")) > VALUE_BYTES


def _channel(channel: Channel) -> dict[str, Any]:
    if channel.file_system_id is not None:
        source: dict[str, Any] = {
            "FileSystemDataSource": {
                "FileSystemId": channel.file_system_id,
                "FileSystemType": channel.file_system_type,
                "DirectoryPath": channel.directory_path,
                "FileSystemAccessMode": channel.access_mode,
            }
        }
    else:
        source = {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": channel.uri,
                "S3DataDistributionType": channel.distribution or "FullyReplicated",
            }
        }
    return said({"ChannelName": channel.channel, "DataSource": source, "InputMode": channel.mode})


def _outputs(place: SageMakerTrainingJob, path: str | None) -> dict[str, Any]:
    packed = None if place.compress_output is None else "GZIP" if place.compress_output else "NONE"
    return said({"S3OutputPath": path, "KmsKeyId": place.output_kms_key_id, "CompressionType": packed})


def _machines(place: SageMakerTrainingJob, nodes: int) -> dict[str, Any]:
    return said(
        {
            "InstanceType": instance_type(place.instance_type) if place.instance_type else None,
            "InstanceCount": nodes,
            "VolumeSizeInGB": place.volume_size_in_gb or VOLUME_GB,
            "VolumeKmsKeyId": place.volume_kms_key_id,
            "KeepAlivePeriodInSeconds": place.keep_alive_period_in_seconds or None,
        }
    )


def _network(place: SageMakerTrainingJob) -> dict[str, Any] | None:
    if not place.subnet_ids:
        return None
    return {"Subnets": list(place.subnet_ids), "SecurityGroupIds": list(place.security_group_ids)}


def _times(place: SageMakerTrainingJob, max_runtime_s: int) -> dict[str, Any]:
    wait_s = (place.max_wait_time_in_seconds or max_runtime_s + SPOT_WAIT_S) if place.use_spot else None
    return said({"MaxRuntimeInSeconds": max_runtime_s, "MaxWaitTimeInSeconds": wait_s})


def _checkpoints(place: SageMakerTrainingJob) -> dict[str, Any] | None:
    if not place.checkpoint_uri:
        return None
    return said({"S3Uri": place.checkpoint_uri, "LocalPath": place.checkpoint_local_path})


def _retries(place: SageMakerTrainingJob) -> dict[str, Any] | None:
    return {"MaximumRetryAttempts": place.max_retry_attempts} if place.max_retry_attempts else None
