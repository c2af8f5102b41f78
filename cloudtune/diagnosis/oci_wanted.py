"""What a job needs to find on Oracle Cloud, gathered from its spec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.backends.oci_wire import container_of, region_of
from cloudtune.diagnosis.document import Subject
from cloudtune.spec.oci import DataScienceJob
from cloudtune.spec.place import Infrastructure
from cloudtune.spec.runtime import Runtime

_OBJECTS = re.compile(r"oci://(?P<bucket>[^@/<>]+)@(?P<namespace>[^/<>]+)(?:/(?P<path>[^<>]*))?", re.DOTALL)
_IMAGE = re.compile(
    r"(?:(?P<key>[a-z0-9-]+)\.ocir\.io|ocir\.(?P<region>[a-z0-9-]+)\.oci\.oraclecloud\.com)/(?P<namespace>[^/]+)"
    r"/(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>.+))?"
)
_SECRET = "ocid1.vaultsecret."  # noqa: S105 - what such OCIDs begin with
_VARIABLES = re.compile(r"\$")
#: Keys of which somebody may have left the placeholder.
_NAMED = ("compartment_id", "project_id", "subnet_id", "log_group_id", "log_id", "shape_name")
_BLANK = re.compile(r"\.x{4,}$|<", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class Objects:
    """A place in Object Storage: why the job has it, where it says so, and whether it writes there."""

    bucket: str
    namespace: str
    path: str
    use: str
    where: str
    written: bool = False
    region: str | None = None


@attrs.frozen(kw_only=True)
class Image:
    """An image in Oracle's container registry."""

    repository: str
    tag: str | None
    text: str


@attrs.frozen(kw_only=True)
class Wanted:
    """What one job needs to find; ``gpus`` is how many in all."""

    subject: Subject
    place: DataScienceJob
    runtime: Runtime | None
    region: str | None
    nodes: int
    gpus: int
    objects: tuple[Objects, ...]
    secrets: tuple[tuple[str, str], ...]
    image: Image | None

    @property
    def facts(self) -> Mapping[str, str | None]:
        """What statements of a policy can be filled in with."""
        bucket = next((one.bucket for one in self.objects if one.written), None)
        image = self.image.repository if self.image is not None else None
        return {"compartment": self.place.compartment_id, "bucket": bucket, "repository": image, "region": self.region}

    def at(self, key: str) -> str:
        """Return the YAML path of a key of the infrastructure."""
        return self.subject.at(f"infrastructure.spec.{key}")


def wanted_by(subject: Subject, place: DataScienceJob) -> Wanted:
    """Return what a job needs; ``place`` is its infrastructure with what it takes from where it is submitted."""
    runtime, launch = subject.job.runtime, subject.launch
    nodes = launch.nodes if launch is not None else 1
    return Wanted(
        subject=subject,
        place=place,
        runtime=runtime,
        region=region_of(place),
        nodes=nodes,
        gpus=nodes * launch.accelerators_per_node if launch is not None else 0,
        objects=tuple(_objects(subject, place, runtime)),
        secrets=tuple(_secrets(subject, runtime)),
        image=_image(runtime),
    )


def filled_in(place: Infrastructure) -> DataScienceJob:
    """Return a job's infrastructure without what is still a placeholder: nobody need be asked for that."""
    assert isinstance(place, DataScienceJob)
    blank: dict[str, Any] = {name: None for name in _NAMED if _BLANK.search(getattr(place, name) or "")}
    return attrs.evolve(place, **blank)


def regions_in(place: DataScienceJob) -> Mapping[str, str]:
    """Return the regions that OCIDs of the job's surroundings carry, by key."""
    named = {
        "projectId": place.project_id,
        "subnetId": place.subnet_id,
        "logGroupId": place.log_group_id,
        "logId": place.log_id,
    }
    found = {key: region_of(DataScienceJob(project_id=ocid)) for key, ocid in named.items()}
    return {key: region for key, region in found.items() if region is not None}


def _objects(subject: Subject, place: DataScienceJob, runtime: Runtime | None) -> Iterator[Objects]:
    for index, mount in enumerate(place.storage_mount):
        where = subject.at(f"infrastructure.spec.storageMount[{index}].src")
        yield from _at(mount.src, "is mounted", where, written=True)
    if runtime is None:
        return
    what = "runtime.spec"
    if runtime.output_uri:
        yield from _at(runtime.output_uri, "takes outputs", subject.at(f"{what}.outputUri"), written=True)
    for uri in runtime.inputs:
        yield from _at(uri, "has inputs", subject.at(f"{what}.inputs"))
    conda = getattr(runtime, "conda", None)
    if conda is not None and conda.type == "published" and conda.uri:
        yield from _at(conda.uri, "has the conda environment", subject.at(f"{what}.conda.uri"), region=conda.region)


def _at(uri: str, use: str, where: str, **more: Any) -> Iterator[Objects]:
    """Yield the place that a URI names; what is filled in later, or forgotten, is none."""
    found = _OBJECTS.fullmatch(uri)
    if found is None or _VARIABLES.search(found["bucket"] + found["namespace"]):
        return
    path = (found["path"] or "").strip("/")
    yield Objects(bucket=found["bucket"], namespace=found["namespace"], path=path, use=use, where=where, **more)


def _secrets(subject: Subject, runtime: Runtime | None) -> Iterator[tuple[str, str]]:
    """Yield (YAML path, OCID) of the secrets of Vault that nodes will read."""
    if runtime is None:
        return
    for index, variable in enumerate(runtime.env):
        if (variable.secret or "").startswith(_SECRET):
            yield subject.at(f"runtime.spec.env[{index}].secret"), str(variable.secret)
    for key, source in (("gitSecretId", runtime), ("git.gitSecretId", getattr(runtime, "git", None))):
        ocid = getattr(source, "git_secret_id", None)
        if ocid:
            yield subject.at(f"runtime.spec.{key}"), str(ocid)


def _image(runtime: Runtime | None) -> Image | None:
    container = container_of(runtime) if runtime is not None else None
    found = _IMAGE.fullmatch(container.image or "") if container is not None else None
    return found and Image(repository=found["repository"], tag=found["tag"], text=found[0])
