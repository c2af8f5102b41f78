"""What a SageMaker training job cannot be: the limits of the service's API, found before anything is sent.

Patterns, lengths and numbers are those of CreateTrainingJob in the service's own model (botocore 1.44.5). A text that
is still to be filled in (``<your account>``, ``${steps.prepare.outputs}``) is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cloudtune.spec.sagemaker import Channel, SageMakerTrainingJob

Finding = tuple[tuple[str | int, ...], str, str | None]

#: Channels, metrics and tags of one job; subnets and security groups.
CHANNELS, METRICS, TAGS, SUBNETS, SECURITY_GROUPS = 20, 40, 50, 16, 5
#: The channel in which cloudtune's agent, its order and the job's code travel.
OWN_CHANNEL = "cloudtune"
_KEEP_ALIVE_S, _RETRIES = 21_600, 30


class _Text(NamedTuple):
    """What a text must be: a regular expression for all of it, the most characters, and an example."""

    pattern: re.Pattern[str]
    most: int
    hint: str


_BUCKET = _Text(re.compile(r"s3://[^/\s]+(/.*)?"), 1024, "s3://bucket/prefix")
_KMS_KEY = _Text(re.compile(r"[a-zA-Z0-9:/_-]*"), 2048, "the id, the alias or the ARN of a key")
_NETWORK_ID = _Text(re.compile(r"[-0-9a-zA-Z]+"), 32, "its id, e.g. subnet-0123456789abcdef0 or sg-...")
_CHANNEL = _Text(re.compile(r"[A-Za-z0-9._-]+"), 64, "letters, digits, ., - and _; 64 at most")
_FILE_SYSTEM = _Text(re.compile(r"fs-[0-9a-f]{8,}"), 21, "e.g. fs-0123456789abcdef0")
_LINE = _Text(re.compile(r".+"), 255, "one line, 255 characters at most")
_REGEX = _Text(re.compile(r".+"), 500, "one line, 500 characters at most")
_TAG = _Text(re.compile(r"[\w\s.:/=+@-]*"), 256, "letters, digits, spaces and _ . : / = + - @; 256 characters at most")
_TAG_KEY = _TAG._replace(most=128, hint="letters, digits, spaces and _ . : / = + - @; 128 characters at most")
#: Texts of the job itself, by attribute and key.
_TEXTS = (
    ("region", "region", _Text(re.compile(r"[a-z]{2,6}(-[a-z]+)+-\d+"), 32, "e.g. us-west-2")),
    (
        "role_arn",
        "roleArn",
        _Text(
            re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/?[\w+=,.@/-]+", re.ASCII),
            2048,
            "arn:aws:iam::ACCOUNT:role/NAME",
        ),
    ),
    ("image", "image", _Text(re.compile(r"\S+"), 255, "REGISTRY/REPOSITORY:TAG, 255 characters at most")),
    ("output_path", "outputPath", _BUCKET),
    ("staging_uri", "stagingUri", _BUCKET),
    ("checkpoint_uri", "checkpointUri", _BUCKET),
    ("checkpoint_local_path", "checkpointLocalPath", _Text(re.compile(r"/.*"), 4096, "an absolute path")),
    ("volume_kms_key_id", "volumeKmsKeyId", _KMS_KEY),
    ("output_kms_key_id", "outputKmsKeyId", _KMS_KEY),
)


def of_training_job(place: SageMakerTrainingJob) -> Iterator[Finding]:
    """Check texts, numbers, times, channels, network, metrics and tags."""
    for attribute, key, rule in _TEXTS:
        yield from _text((key,), getattr(place, attribute), rule)
    if (place.instance_type or "").lower().removeprefix("ml.").startswith("inf"):
        hint = "train on a trn1, trn2 or GPU type and deploy on this one"
        yield ("instanceType",), f"{place.instance_type} only hosts models", hint
    if place.image and place.framework is not None:
        yield ("framework",), "the container comes from 'image' or from 'framework', not both", None
    yield from _times(place)
    if place.checkpoint_local_path and not place.checkpoint_uri:
        yield ("checkpointLocalPath",), "a checkpoint folder needs 'checkpointUri', where it is kept", None
    yield from _network(place)
    yield from _channels(place)
    yield from _metrics(place)
    for path, message, told in tag_findings(place.tags):
        yield ("tags", *path), message, told


def _text(path: tuple[str | int, ...], text: Any, rule: _Text) -> Iterator[Finding]:
    """Find a text that the API refuses."""
    if not text or "<" in text or "${" in text:
        return
    if len(text) > rule.most:
        yield path, f"{len(text)} characters are too long; SageMaker takes {rule.most}", None
    elif not rule.pattern.fullmatch(text):
        yield path, f"SageMaker does not take {text!r} here", rule.hint


def _times(place: SageMakerTrainingJob) -> Iterator[Finding]:
    longest, run = place.max_wait_time_in_seconds, place.max_runtime_in_seconds
    if longest is not None and not place.use_spot:
        yield ("maxWaitTimeInSeconds",), "only spot capacity is waited for: 'useSpot' is missing", "useSpot: true"
    elif longest is not None and run is not None and longest < run:
        message = f"the longest wait ({longest} s) includes the run and cannot be below maxRuntimeInSeconds ({run} s)"
        yield ("maxWaitTimeInSeconds",), message, None
    kept = place.keep_alive_period_in_seconds or 0
    if place.use_spot and kept:
        yield ("keepAlivePeriodInSeconds",), "spot machines cannot be kept alive", None
    elif kept > _KEEP_ALIVE_S:
        yield ("keepAlivePeriodInSeconds",), f"machines are kept for {_KEEP_ALIVE_S} s at most", None
    if (place.max_retry_attempts or 0) > _RETRIES:
        yield ("maxRetryAttempts",), f"SageMaker tries {_RETRIES} times at most", None


def _network(place: SageMakerTrainingJob) -> Iterator[Finding]:
    given = {"subnetIds": (place.subnet_ids, SUBNETS), "securityGroupIds": (place.security_group_ids, SECURITY_GROUPS)}
    for mine, other in (("subnetIds", "securityGroupIds"), ("securityGroupIds", "subnetIds")):
        ids, most = given[mine]
        if ids and not given[other][0]:
            yield (mine,), f"SageMaker takes {mine!r} only together with {other!r}", None
        if len(ids) > most:
            yield (mine, most), f"{len(ids)} of them; SageMaker takes {most} at most", None
        for index, one in enumerate(ids):
            yield from _text((mine, index), one, _NETWORK_ID)


def _channels(place: SageMakerTrainingJob) -> Iterator[Finding]:
    if len(place.inputs) > CHANNELS:
        message = f"{len(place.inputs)} channels; SageMaker takes {CHANNELS} at most"
        yield ("inputs", CHANNELS), message, None
    seen: set[str] = set()
    for index, channel in enumerate(place.inputs):
        if channel.channel == OWN_CHANNEL:
            yield ("inputs", index, "channel"), f"cloudtune itself travels in a channel {OWN_CHANNEL!r}", "rename it"
        elif channel.channel and channel.channel in seen:
            yield ("inputs", index, "channel"), f"the channel {channel.channel!r} is taken already", None
        seen.add(channel.channel)
        yield from _text(("inputs", index, "channel"), channel.channel, _CHANNEL)
        disk = channel.file_system_id is not None
        if disk == (channel.uri is not None):
            message = "a channel has a 'uri' or a 'fileSystemId', " + ("not both" if disk else "and this has none")
            yield ("inputs", index), message, None
        else:
            for word, message in _disk(place, channel) if disk else _prefix(channel):
                yield ("inputs", index, word) if word else ("inputs", index), message, None
        yield from _text(("inputs", index, "uri"), channel.uri, _BUCKET)
        yield from _text(("inputs", index, "fileSystemId"), channel.file_system_id, _FILE_SYSTEM)


def _disk(place: SageMakerTrainingJob, channel: Channel) -> Iterator[tuple[str, str]]:
    """Find what is wrong with a channel from a file system: the key and why."""
    given = {"fileSystemType": channel.file_system_type, "directoryPath": channel.directory_path}
    for word, value in {**given, "accessMode": channel.access_mode}.items():
        if not value:
            yield word, f"a channel from a file system needs {word!r}"
    for word, value in (
        ("mode", channel.mode if channel.mode != "File" else None),
        ("distribution", channel.distribution),
    ):
        if value:
            yield word, f"{value!r} is for files in S3; a file system is mounted as it is"
    if not place.subnet_ids:
        yield "", "a file system is reached in a network only: 'subnetIds' is missing"


def _prefix(channel: Channel) -> Iterator[tuple[str, str]]:
    """Find what is wrong with a channel from S3: the key and why."""
    for word, value in (("fileSystemType", channel.file_system_type), ("directoryPath", channel.directory_path)):
        if value:
            yield word, f"{word!r} belongs to a file system, not to a uri"


def _metrics(place: SageMakerTrainingJob) -> Iterator[Finding]:
    if len(place.metric_definitions) > METRICS:
        message = f"{len(place.metric_definitions)} metrics; SageMaker takes {METRICS} at most"
        yield ("metricDefinitions", METRICS), message, None
    for index, metric in enumerate(place.metric_definitions):
        for word, text, rule in (("name", metric.name, _LINE), ("regex", metric.regex, _REGEX)):
            # a group of a regular expression has its name in angle brackets: nothing here is a placeholder
            if len(text) > rule.most or not rule.pattern.fullmatch(text):
                yield ("metricDefinitions", index, word), f"SageMaker does not take {text[:40]!r} here", rule.hint


def tag_findings(tags: Mapping[str, str]) -> Iterator[Finding]:
    """Check tags; paths begin at the tags."""
    if len(tags) > TAGS:
        yield (), f"{len(tags)} tags; SageMaker takes {TAGS} at most", None
    for key, value in tags.items():
        if not key or key.lower().startswith("aws:"):
            yield (key,), f"{key!r} cannot be the key of a tag", "give it a name that does not begin with aws:"
            continue
        yield from _text((key,), key, _TAG_KEY)
        yield from _text((key,), value, _TAG)
