"""What Data Science says no to in a job that its models allow: documented limits, and what does not go together.

Sources: "Job Environment Variables" (20,000 characters of variables, 4,000 of arguments), "Storage Mounts" (five, their
names and paths, file storage in a network of one's own), "Resource Tags" (ten free-form tags), the API reference of the
models named; block storage and the longest run are the console's bounds, from memory.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloudtune import shapes
from cloudtune.rehearsal.messages import Refused

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

NAME_CHARACTERS = 255
VARIABLES_CHARACTERS = 20_000
ARGUMENTS_CHARACTERS = 4_000
RUN_MINUTES = 30 * 24 * 60
STORAGE_GB = (50, 10_240)
MOUNTS = 5
FREEFORM_TAGS = 10
CONTAINER_BYTES = 2048

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIRECTORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
#: Where nothing may be mounted: the system's own.
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "usr", "var")
Details = Mapping[str, Any]


def refused(message: str) -> Refused:
    """Return the refusal of a value."""
    return Refused(400, "InvalidParameter", message)


def check_common(details: Details) -> None:
    """Refuse names and tags that are too long or too many."""
    name = details.get("displayName")
    if name is not None and not 1 <= len(name) <= NAME_CHARACTERS:
        raise refused(f"displayName must have 1 to {NAME_CHARACTERS} characters")
    tags = details.get("freeformTags") or {}
    if len(tags) > FREEFORM_TAGS:
        raise refused(f"freeformTags: {FREEFORM_TAGS} at most")
    for key, value in tags.items():
        if not 1 <= len(key) <= 100 or len(value) > 256 or "." in key or " " in key:
            raise refused(f"freeformTags: {key!r} is no key of a tag, or its value has more than 256 characters")


def check_job(cloud: OciCloud, details: Details) -> None:
    """Refuse a job that cannot be."""
    check_common(details)
    cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")
    cloud.check_exists("projectId", details["projectId"], "datascienceproject")
    node = details.get("jobNodeConfigurationDetails")
    machine = details.get("jobInfrastructureConfigurationDetails")
    if node is not None:
        _check_groups(cloud, details, node)
    elif machine is None or details.get("jobConfigurationDetails") is None:
        raise refused("jobConfigurationDetails and jobInfrastructureConfigurationDetails must not be null")
    else:
        check_machine(cloud, machine, grouped=False)
        check_configuration(details["jobConfigurationDetails"])
        check_container(details.get("jobEnvironmentConfigurationDetails"))
    check_logs(details.get("jobLogConfigurationDetails"))
    check_mounts(cloud, details.get("jobStorageMountConfigurationDetailsList") or (), own_network=has_network(details))


def has_network(details: Details) -> bool:
    """Whether the nodes are in a network of the user's own."""
    machine = details.get("jobInfrastructureConfigurationDetails") or {}
    network = (details.get("jobNodeConfigurationDetails") or {}).get("jobNetworkConfiguration") or {}
    return bool(machine.get("subnetId") or network.get("subnetId"))


def _check_groups(cloud: OciCloud, details: Details, node: Details) -> None:
    """Refuse groups of nodes beside what belongs into them, or that cannot be."""
    for name in ("jobConfigurationDetails", "jobInfrastructureConfigurationDetails"):
        inside = details.get(name)
        if inside and inside.get("jobType", inside.get("jobInfrastructureType")) != "EMPTY":
            raise refused(f"{name} must be null or EMPTY beside jobNodeConfigurationDetails")
    check_minutes(node.get("maximumRuntimeInMinutes"))
    subnet = (node.get("jobNetworkConfiguration") or {}).get("subnetId")
    if subnet:
        cloud.check_exists("jobNetworkConfiguration.subnetId", subnet, "subnet")
    groups = node.get("jobNodeGroupConfigurationDetailsList") or ()
    if not groups:
        raise refused("jobNodeGroupConfigurationDetailsList must not be empty")
    if len({group["name"] for group in groups}) < len(groups):
        raise refused("jobNodeGroupConfigurationDetailsList: two groups have the same name")
    for group in groups:
        _check_group(cloud, group, beside=details)


def _check_group(cloud: OciCloud, group: Details, *, beside: Details) -> None:
    replicas, wanted = group.get("replicas", 1), group.get("minimumSuccessReplicas")
    if replicas < 1 or (wanted is not None and not 0 <= wanted <= replicas):
        raise refused(f"group {group['name']}: replicas from 1, minimumSuccessReplicas from 0 to replicas")
    machine = group.get("jobInfrastructureConfigurationDetails")
    if machine is None:
        raise refused(f"group {group['name']}: jobInfrastructureConfigurationDetails must not be null")
    check_machine(cloud, machine, grouped=True)
    configuration = group.get("jobConfigurationDetails") or beside.get("jobConfigurationDetails")
    if configuration is None:
        raise refused(f"group {group['name']}: jobConfigurationDetails must not be null")
    check_configuration(configuration)
    check_container(group.get("jobEnvironmentConfigurationDetails"))


def check_machine(cloud: OciCloud, machine: Details, *, grouped: bool) -> None:
    """Refuse machines that there are not."""
    kind = machine["jobInfrastructureType"]
    if kind == "EMPTY":
        return
    if (kind == "MULTI_NODE") != grouped:
        raise refused(f"jobInfrastructureType {kind} {'is not for groups' if grouped else 'is for groups'} of nodes")
    if kind == "MANAGED_COMPUTE_CLUSTER":
        raise refused("the rehearsal has no managed compute clusters")
    if machine.get("subnetId"):
        cloud.check_exists("subnetId", machine["subnetId"], "subnet")
    least, most = STORAGE_GB
    if not least <= machine["blockStorageSizeInGBs"] <= most:
        raise refused(f"blockStorageSizeInGBs must be from {least} to {most}")
    _check_shape(machine["shapeName"], machine.get("jobShapeConfigDetails"))


def _check_shape(name: str, size: Details | None) -> None:
    try:
        shape = shapes.find(name, cloud="oci")
    except shapes.UnknownShape as error:
        raise refused(f"shapeName: {error}") from error
    if shape.flexible and not (size and size.get("ocpus") and size.get("memoryInGBs")):
        raise refused(f"jobShapeConfigDetails: {name} needs ocpus and memoryInGBs")
    if not shape.flexible and size:
        raise refused(f"jobShapeConfigDetails: {name} has a size of its own")
    for field, most in (("ocpus", shape.max_ocpus), ("memoryInGBs", shape.max_memory_gb)):
        if size and (size[field] < 1 or (most is not None and size[field] > most)):
            raise refused(f"jobShapeConfigDetails.{field}: {name} has 1 to {most or 'any'}")


def check_configuration(configuration: Details) -> None:
    """Refuse variables, arguments and times beyond the limits."""
    variables = configuration.get("environmentVariables") or {}
    if sum(len(name) + len(value) for name, value in variables.items()) > VARIABLES_CHARACTERS:
        raise refused(f"environmentVariables: all together must have {VARIABLES_CHARACTERS} characters at most")
    bad = [name for name in variables if not _VARIABLE.fullmatch(name)]
    if bad:
        raise refused(f"environmentVariables: {bad[0]!r} cannot be the name of a variable")
    if len(configuration.get("commandLineArguments") or "") > ARGUMENTS_CHARACTERS:
        raise refused(f"commandLineArguments must have {ARGUMENTS_CHARACTERS} characters at most")
    check_minutes(configuration.get("maximumRuntimeInMinutes"))
    if configuration.get("startupProbeDetails"):
        raise refused("startupProbeDetails: the rehearsal has no startup probes")


def check_minutes(minutes: int | None) -> None:
    """Refuse a run of no time, or of too long a one."""
    if minutes is not None and not 1 <= minutes <= RUN_MINUTES:
        raise refused(f"maximumRuntimeInMinutes must be from 1 to {RUN_MINUTES}")


def check_container(container: Details | None) -> None:
    """Refuse a container whose command is too long."""
    words = [*(container or {}).get("entrypoint", ()), *(container or {}).get("cmd", ())]
    if sum(len(word.encode()) for word in words) >= CONTAINER_BYTES:
        raise refused(f"cmd and entrypoint together must have less than {CONTAINER_BYTES} bytes")


def check_logs(logs: Details | None) -> None:
    """Refuse logging that does not say where to."""
    if not logs or not logs.get("enableLogging"):
        return
    if not logs.get("logGroupId"):
        raise refused("jobLogConfigurationDetails.logGroupId must not be null where logging is enabled")
    if not logs.get("enableAutoLogCreation") and not logs.get("logId"):
        raise refused("jobLogConfigurationDetails.logId must not be null where no log is to be created")
    if logs.get("enableAutoLogCreation") and logs.get("logId"):
        raise refused("jobLogConfigurationDetails.logId must be null where a log is to be created")


def check_mounts(cloud: OciCloud, mounts: Sequence[Details], *, own_network: bool) -> None:
    """Refuse too many mounts, and those at impossible places."""
    if len(mounts) > MOUNTS:
        raise refused(f"jobStorageMountConfigurationDetailsList: {MOUNTS} mounts at most")
    places = list(_places(mounts))
    if len(set(places)) < len(places):
        raise refused("jobStorageMountConfigurationDetailsList: two mounts have the same destination")
    for mount in mounts:
        if mount["storageType"] != "FILE_STORAGE":
            continue
        if not own_network:
            raise refused("a mount of FILE_STORAGE needs a subnetId")
        cloud.check_exists("mountTargetId", mount["mountTargetId"], "mounttarget")
        cloud.check_exists("exportId", mount["exportId"], "export")


def _places(mounts: Iterable[Details]) -> Iterator[str]:
    for mount in mounts:
        name, place = mount["destinationDirectoryName"], mount_place(mount)
        parts = place.strip("/").split("/")
        if not _DIRECTORY.fullmatch(name) or not all(_DIRECTORY.fullmatch(part) for part in parts):
            raise refused(f"destinationDirectoryName: {place!r} may have letters, digits, - and _ in its parts")
        if parts[0] in _SYSTEM:
            raise refused(f"destinationPath: nothing may be mounted in /{parts[0]}")
        yield place


def mount_place(mount: Details) -> str:
    """Return where a node finds a mount: below /mnt unless it says otherwise."""
    return posixpath.join("/", mount.get("destinationPath") or "/mnt", mount["destinationDirectoryName"])
