"""A job in the words of OCI Data Science's API, as plain data.

Names, values and types are those of the models of the oci SDK 2.189.0 (``CreateJobDetails`` and what is in it), as
the SDK writes them on the wire; what goes where was checked against what Oracle ADS 2.16.1 sends for the same file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from cloudtune.backends.oci_mounts import OBJECTS, mount_details
from cloudtune.backends.oci_surroundings import Surroundings
from cloudtune.errors import Fault, SpecError
from cloudtune.launch.commands import container_argv
from cloudtune.plan import IfGiven, Ref
from cloudtune.spec.fields import thaw
from cloudtune.spec.oci import DataScienceJob
from cloudtune.spec.runtime import Conda, Runtime

if TYPE_CHECKING:
    from cloudtune.spec.programs import ContainerRuntime

#: Block storage of a single node whose spec names none, as Oracle ADS has it.
BLOCK_STORAGE_GB = 50
NODE_GROUP = "node-group"

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d+")
#: Regions whose OCIDs carry a key in place of the name.
_REGION_KEYS = {"iad": "us-ashburn-1", "phx": "us-phoenix-1", "fra": "eu-frankfurt-1", "lhr": "uk-london-1"}


def job_details(
    place: DataScienceJob,
    runtime: Runtime,
    around: Surroundings,
    *,
    name: str,
    nodes: int,
    grouped: bool,
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """Return ``CreateJobDetails``; ``grouped`` for a job over a group of nodes, else each run of it is one node."""
    details = said(
        {
            "jobConfigurationDetails": said(
                {
                    **_job_type(place),
                    "environmentVariables": dict(environment),
                    "commandLineArguments": shlex.join(runtime.args),
                    "maximumRuntimeInMinutes": runtime.maximum_runtime_in_minutes,
                }
            ),
            "jobEnvironmentConfigurationDetails": _container(runtime),
            "jobInfrastructureConfigurationDetails": _machine(place, around, grouped=grouped),
        }
    )
    return said(
        {
            **_owner(place, runtime, around),
            "displayName": name,
            "jobLogConfigurationDetails": _logs(place),
            "jobStorageMountConfigurationDetailsList": mount_details(place.storage_mount),
            **({"jobNodeConfigurationDetails": _group(around, nodes, details)} if grouped else details),
        }
    )


def run_details(
    place: DataScienceJob,
    runtime: Runtime,
    around: Surroundings,
    *,
    name: str,
    job_id: object,
    variables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return ``CreateJobRunDetails``; ``variables`` are added to the job's own for this run."""
    details = {**_job_type(place), "environmentVariables": dict(variables)} if variables else None
    return said(
        {
            **_owner(place, runtime, around),
            "displayName": name,
            "jobId": job_id,
            "jobConfigurationOverrideDetails": details,
        }
    )


def said(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details without those that say nothing: null, and empty text, lists and mappings."""
    return {key: value for key, value in details.items() if value is not None and value not in ("", {}, [])}


def conda_variables(conda: Conda | None, region: str | None) -> dict[str, str]:
    """Return the variables by which the service finds the conda environment of a job."""
    if conda is None:
        return {}
    found = OBJECTS.fullmatch(conda.uri or "")
    if conda.type == "published" and found is None:
        message = f"{conda.uri!r} is no place of a conda environment" if conda.uri else "nothing says where it is"
        raise SpecError(
            [Fault(path="spec.runtime.spec.conda.uri", message=message, hint="oci://bucket@namespace/path")]
        )
    values: dict[str, Any] = {"CONDA_ENV_TYPE": conda.type}
    if conda.type == "service" or found is None:
        values["CONDA_ENV_SLUG"] = conda.slug
    else:
        values |= {
            "CONDA_ENV_REGION": conda.region or region,
            "CONDA_ENV_NAMESPACE": found["namespace"],
            "CONDA_ENV_BUCKET": found["bucket"],
            "CONDA_ENV_OBJECT_NAME": found["path"],
        }
    return said(values)


def region_of(place: DataScienceJob) -> str | None:
    """Return the job's region: as the spec says, else the one that an OCID of the job's surroundings carries."""
    if place.region:
        return place.region
    found = (region_in(ocid or "") for ocid in (place.project_id, place.subnet_id, place.log_group_id))
    return next((region for region in found if region is not None), None)


def region_in(ocid: str) -> str | None:
    """Return the region that an OCID carries; those of compartments and users carry none."""
    parts = ocid.split(".")
    word = parts[3] if len(parts) > 3 and parts[0] == "ocid1" else ""
    return _REGION_KEYS.get(word, word) if word in _REGION_KEYS or _REGION.fullmatch(word) else None


def container_of(runtime: Runtime) -> ContainerRuntime | None:
    """Return the runtime if it is a container; a plan of another runtime does not even import the class."""
    return cast("ContainerRuntime", runtime) if runtime.type == "container" else None


def _owner(place: DataScienceJob, runtime: Runtime, around: Surroundings) -> dict[str, Any]:
    """Return to whom a job or a job run belongs. The tags of both levels are merged; the runtime's win a key."""
    defined = {
        namespace: {**place.defined_tags.get(namespace, {}), **runtime.defined_tags.get(namespace, {})}
        for namespace in dict.fromkeys([*place.defined_tags, *runtime.defined_tags])
    }
    return {
        "compartmentId": around.compartment,
        "projectId": around.project,
        "freeformTags": {**place.freeform_tags, **runtime.freeform_tags},
        "definedTags": thaw(defined),
    }


def _job_type(place: DataScienceJob) -> dict[str, str]:
    return {"jobType": place.job_type or "DEFAULT"}


def _machine(place: DataScienceJob, around: Surroundings, *, grouped: bool) -> dict[str, Any]:
    size = place.shape_config_details
    # with a subnet the service takes one type alone, whatever the spec says
    kind = _by_subnet(around, "STANDALONE", place.job_infrastructure_type or "ME_STANDALONE")
    return said(
        {
            "jobInfrastructureType": "MULTI_NODE" if grouped else kind,
            "shapeName": place.shape_name,
            "subnetId": None if grouped else _by_subnet(around, around.subnet, None),
            "blockStorageSizeInGBs": place.block_storage_size or (None if grouped else BLOCK_STORAGE_GB),
            "jobShapeConfigDetails": size
            and said({"ocpus": size.ocpus, "memoryInGBs": size.memory_in_gbs, "cpuBaseline": size.cpu_baseline}),
        }
    )


def _by_subnet(around: Surroundings, then: Any, otherwise: Any) -> Any:
    """Return one of two values: for nodes in a subnet, or not; which, may be known after a look-up only."""
    if isinstance(around.subnet, Ref):
        return IfGiven(around.subnet, then, otherwise)
    return then if around.subnet else otherwise


def _group(around: Surroundings, nodes: int, details: Mapping[str, Any]) -> dict[str, Any]:
    custom = {"jobNetworkType": "CUSTOM_NETWORK", "subnetId": around.subnet}
    return {
        "jobNodeType": "MULTI_NODE",
        "startupOrder": "IN_PARALLEL",
        "jobNetworkConfiguration": _by_subnet(around, custom, {"jobNetworkType": "DEFAULT_NETWORK"}),
        "jobNodeGroupConfigurationDetailsList": [
            {"name": NODE_GROUP, "replicas": nodes, "minimumSuccessReplicas": nodes, **details}
        ],
    }


def _container(runtime: Runtime) -> dict[str, Any] | None:
    container = container_of(runtime)
    if container is None:
        return None
    return said(
        {
            "jobEnvironmentType": "OCIR_CONTAINER",
            "image": container.image,
            "imageDigest": container.image_digest,
            "imageSignatureId": container.image_signature_id,
            "entrypoint": list(container_argv(container.entrypoint)),
            "cmd": list(container_argv(container.cmd)),
        }
    )


def _logs(place: DataScienceJob) -> dict[str, Any] | None:
    if not place.log_group_id and not place.log_id:
        return None
    return said(
        {
            "enableLogging": True,
            "enableAutoLogCreation": not place.log_id,
            "logGroupId": place.log_group_id,
            "logId": place.log_id,
        }
    )
