"""What a job needs to find on AWS, gathered from its spec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import attrs

from cloudtune.backends.aws_surroundings import account_of
from cloudtune.backends.sagemaker_surroundings import surroundings
from cloudtune.diagnosis.document import Subject
from cloudtune.spec.runtime import Runtime
from cloudtune.spec.sagemaker import SageMakerTrainingJob

_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>.+))?"
)
_SECRET = re.compile(r"arn:aws[\w-]*:secretsmanager:([\w-]+):\d{12}:secret:.+")
#: What is still to be filled in, or is only known later.
_OPEN = re.compile(r"[<$]")


@attrs.frozen(kw_only=True)
class Objects:
    """A place in S3: why the job has it, where it says so, and whether it writes there."""

    bucket: str
    prefix: str
    use: str
    where: str
    written: bool = False


@attrs.frozen(kw_only=True)
class Image:
    """An image in Amazon's container registry."""

    account: str
    region: str
    repository: str
    tag: str | None
    digest: str | None
    where: str


@attrs.frozen(kw_only=True)
class Wanted:
    """What one job needs to find."""

    subject: Subject
    place: SageMakerTrainingJob
    region: str | None
    role: str | None
    nodes: int
    objects: tuple[Objects, ...]
    secrets: tuple[tuple[str, str], ...]
    image: Image | None

    @property
    def facts(self) -> Mapping[str, str | None]:
        """What statements of a policy can be filled in with."""
        bucket = next((one.bucket for one in self.objects if one.written), None)
        return {
            "account": account_of(self.role),
            "region": self.region,
            "bucket": bucket or next((one.bucket for one in self.objects), None),
            "training_role": self.role and self.role.partition(":role/")[2],
            "repository": self.image.repository if self.image is not None else None,
        }

    def at(self, key: str) -> str:
        """Return the YAML path of a key of the infrastructure."""
        return self.subject.at(f"infrastructure.spec.{key}")


def wanted_by(subject: Subject, environ: Mapping[str, str]) -> Wanted:
    """Return what a job needs; what it does not say is taken from where it is submitted, as its plan does."""
    place, runtime = subject.job.infrastructure, subject.job.runtime
    assert isinstance(place, SageMakerTrainingJob)
    around = surroundings(place, environ)
    return Wanted(
        subject=subject,
        place=place,
        region=settled(around.region),
        role=settled(around.role),
        nodes=subject.launch.nodes if subject.launch is not None else 1,
        objects=tuple(_objects(subject, place, runtime, around.bucket)),
        secrets=tuple(secrets_of(subject)),
        image=_image(subject, place, runtime),
    )


def settled(text: str | None) -> str | None:
    """Return a text unless something in it is still to be filled in."""
    return text if text and not _OPEN.search(text) else None


def _objects(
    subject: Subject, place: SageMakerTrainingJob, runtime: Runtime | None, bucket: str | None
) -> Iterator[Objects]:
    here = "infrastructure.spec"
    given = place.output_path or (runtime.output_uri if runtime is not None else None)
    yield from _at(given or bucket, "takes outputs", subject.at(f"{here}.outputPath"), written=True)
    yield from _at(place.checkpoint_uri, "keeps checkpoints", subject.at(f"{here}.checkpointUri"), written=True)
    for index, channel in enumerate(place.inputs):
        yield from _at(channel.uri, "has inputs", subject.at(f"{here}.inputs[{index}].uri"))
    yield from objects_of(subject)


def objects_of(subject: Subject) -> Iterator[Objects]:
    """Yield the places in S3 that jobs name wherever they run: code that waits, outputs, inputs, compiled graphs."""
    runtime, staging = subject.job.runtime, subject.job.infrastructure.staging_uri
    yield from _at(staging, "takes the code", subject.at("infrastructure.spec.stagingUri"), written=True)
    if runtime is None:
        return
    yield from _at(runtime.output_uri, "takes outputs", subject.at("runtime.spec.outputUri"), written=True)
    for uri in runtime.inputs:
        yield from _at(uri, "has inputs", subject.at("runtime.spec.inputs"))
    cache = getattr(runtime, "compile_cache_uri", None)
    yield from _at(cache, "keeps compiled graphs", subject.at("runtime.spec.compileCacheUri"), written=True)


def _at(uri: str | None, use: str, where: str, *, written: bool = False) -> Iterator[Objects]:
    parts = urlsplit(uri or "")
    if parts.scheme == "s3" and settled(parts.netloc):
        yield Objects(bucket=parts.netloc, prefix=parts.path.lstrip("/"), use=use, where=where, written=written)


def secrets_of(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield (YAML path, ARN) of the secrets that nodes will read."""
    runtime = subject.job.runtime
    for index, variable in enumerate(runtime.env if runtime is not None else ()):
        if variable.secret and _SECRET.fullmatch(variable.secret) and settled(variable.secret):
            yield subject.at(f"runtime.spec.env[{index}].secret"), variable.secret


def _image(subject: Subject, place: SageMakerTrainingJob, runtime: Runtime | None) -> Image | None:
    own = getattr(runtime, "image", None) if runtime is not None and runtime.type == "container" else None
    found = _IMAGE.fullmatch(own or place.image or "")
    if found is None:
        return None
    where = subject.at("runtime.spec.image" if own else "infrastructure.spec.image")
    return Image(**found.groupdict(), where=where)
