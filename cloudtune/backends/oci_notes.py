"""What keeps a job from Oracle Cloud, what is different there, and what is to be doubted: before anything is sent."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from cloudtune.backends.containers import agents_work
from cloudtune.backends.node_folders import ends_with_the_node, not_on_the_node
from cloudtune.backends.oci_mounts import is_file_system
from cloudtune.backends.oci_surroundings import Surroundings
from cloudtune.backends.oci_wire import container_of, region_of
from cloudtune.launch import Launch
from cloudtune.plan import FieldNote
from cloudtune.spec.job import JobSpec
from cloudtune.spec.oci import DataScienceJob
from cloudtune.spec.runtime import Runtime

#: The variable by which a job asks for GPU metrics, and what Monitoring takes as its value.
METRICS = "OCI__METRICS_NAMESPACE"
_METRICS = re.compile(r"(?!oci_|oracle_)[A-Za-z][A-Za-z0-9_]{0,255}")
_WHERE = "spec.infrastructure.spec"
_WHAT = "spec.runtime.spec"
#: What the OCID of each key must be of: the word after ``ocid1.``, the one that is meant first.
_KINDS = {
    "compartment_id": ("compartmentId", ("compartment", "tenancy")),
    "project_id": ("projectId", ("datascienceproject",)),
    "subnet_id": ("subnetId", ("subnet",)),
    "log_group_id": ("logGroupId", ("loggroup",)),
    "log_id": ("logId", ("log",)),
}


def doubts(place: DataScienceJob, runtime: Runtime, around: Surroundings) -> Iterator[tuple[str, str]]:
    """Yield warnings: the path in the spec, and what may not be as it was meant."""
    for key, source in around.found.items():
        yield f"{_WHERE}.{key}", f"taken from where this is submitted ({source})"
    if not place.log_group_id and not place.log_id:
        yield f"{_WHERE}.logGroupId", "without a log group nobody can read what the job writes"
    namespace = {variable.name: variable.value for variable in runtime.env}.get(METRICS)
    if namespace and not _METRICS.fullmatch(namespace):
        message = f"{METRICS}: OCI Monitoring takes no namespace {namespace!r}: letters, digits and _, none of its own"
        yield f"{_WHAT}.env", message
    mounts = [posixpath.join("/mnt", mount.dest.rstrip("/")) for mount in place.storage_mount]
    if container_of(runtime) is None:
        yield from ends_with_the_node(runtime, mounts)
        yield from not_on_the_node(runtime, mounts)
    if not runtime.output_uri and not place.storage_mount:
        yield f"{_WHAT}.outputUri", "nothing says where outputs go: they end with the node"


def fields(
    job: JobSpec, place: DataScienceJob, runtime: Runtime, around: Surroundings, how: Launch
) -> Iterator[FieldNote]:
    """Yield what is refused, and what is not quite as the spec has it."""
    for path, reason in (
        *_missing(place, runtime, around, how),
        *_misplaced(place),
        *_impossible(runtime),
        *_older(place, how),
    ):
        yield FieldNote(path=path, status="refused", reason=reason)
    if container_of(runtime) is not None:
        reason = "a container runs as given, without cloudtune's agent: no CLOUDTUNE_* variables, no ranks in the log"
        yield FieldNote(path="spec.runtime.type", status="approximated", reason=reason)
    if place.staging_uri:
        reason = "not needed: the code travels in the job's artifact"
        yield FieldNote(path=f"{_WHERE}.stagingUri", status="approximated", reason=reason)
    if job.id:
        reason = "every run is a job of its own; the job of this id is left alone"
        yield FieldNote(path="spec.id", status="approximated", reason=reason)


def _missing(place: DataScienceJob, runtime: Runtime, around: Surroundings, how: Launch) -> Iterator[tuple[str, str]]:
    """Yield what only the place knows and the spec must say."""
    for key, value in (("compartmentId", around.compartment), ("projectId", around.project)):
        if not value:
            yield f"{_WHERE}.{key}", f"OCI needs {key}: set it to an OCID"
    if how.nodes > 1 and place.multi_node == "nodeGroups" and not place.block_storage_size:
        reason = "a group of nodes has no default on OCI: say how many GB, 50 or more"
        yield f"{_WHERE}.blockStorageSize", reason
    if not around.subnet and any(is_file_system(mount) for mount in place.storage_mount):
        yield f"{_WHERE}.subnetId", "a file system is reached in its own network: set subnetId, or mount a bucket"
    if place.log_id and not place.log_group_id:
        yield f"{_WHERE}.logGroupId", "a log is found in its group: set logGroupId beside logId"
    conda = getattr(runtime, "conda", None)
    if conda is not None and conda.type == "published" and not (conda.region or region_of(place)):
        yield f"{_WHAT}.conda.region", "nothing says in which region the environment's bucket is: set conda.region"


def _misplaced(place: DataScienceJob) -> Iterator[tuple[str, str]]:
    """Yield what is no OCID of what its key asks for; the service says of it no more than that nothing is found."""
    for attribute, (key, kinds) in _KINDS.items():
        ocid = getattr(place, attribute) or ""
        if ocid and not ocid.startswith(("<", *(f"ocid1.{kind}." for kind in kinds))):
            yield f"{_WHERE}.{key}", f"{ocid!r} is no OCID of a {kinds[0]}: those begin with ocid1.{kinds[0]}."


def _impossible(runtime: Runtime) -> Iterator[tuple[str, str]]:
    """Yield what no OCI job can do."""
    if runtime.type == "neuronDistributed":
        yield "spec.runtime.type", "OCI has no Neuron cores; use pyTorchDistributed, or SageMaker or EKS"
    for index, variable in enumerate(runtime.env):
        if variable.secret and variable.secret.startswith(("k8s:", "env:", "arn:")):
            yield f"{_WHAT}.env[{index}].secret", "a node on OCI reads secrets of OCI Vault alone: name one by its OCID"
    if container_of(runtime) is None:
        return
    yield from agents_work(runtime, but=("script_path_uri",))
    if any(variable.secret for variable in runtime.env):
        yield f"{_WHAT}.env", "secrets are fetched by the agent, and a container runs as given without it"


def _older(place: DataScienceJob, how: Launch) -> Iterator[tuple[str, str]]:
    if how.nodes > 1 and place.multi_node == "jobRuns":
        yield f"{_WHERE}.multiNode", "job runs of their own cannot find each other: use nodeGroups to run this job"
