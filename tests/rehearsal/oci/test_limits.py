"""What Data Science refuses although its models allow it."""

from __future__ import annotations

import copy
from typing import Any

from tests.rehearsal.oci.science import Science, refused

CONFIGURATION, MACHINE = "jobConfigurationDetails", "jobInfrastructureConfigurationDetails"
OBJECTS = {"storageType": "OBJECT_STORAGE", "namespace": "n", "bucket": "b"}
FILES = {
    "storageType": "FILE_STORAGE",
    "mountTargetId": "ocid1.mounttarget.oc1.iad.a",
    "exportId": "ocid1.export.oc1.iad.a",
}
FLEX = {"shapeName": "VM.Standard.E4.Flex", "jobShapeConfigDetails": {"ocpus": 2, "memoryInGBs": 32}}


def changed(details: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a body with one thing in it changed; numbers in the path are places of a list."""
    details = copy.deepcopy(details)
    *parts, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    here: Any = details
    for part in parts:
        here = here[part]
    here[last] = value
    return details


def mounts(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{**OBJECTS, "destinationDirectoryName": name, **more} for name in names]


def test_what_a_job_of_one_node_must_not_be(science: Science) -> None:
    good = science.details()
    logs = good["jobLogConfigurationDetails"]
    wrong = {
        "displayName": ["x" * 256, ""],
        "freeformTags": [{str(number): "x" for number in range(11)}, {"a b": "c"}, {"a": "x" * 257}],
        "compartmentId": ["c", science.place.project],
        "projectId": ["<your project>", science.place.compartment],
        f"{CONFIGURATION}.environmentVariables": [{"A": "x" * 20_000}, {"a-b": "c"}, {"1A": "c"}],
        f"{CONFIGURATION}.commandLineArguments": ["x" * 4_001],
        f"{CONFIGURATION}.maximumRuntimeInMinutes": [0, 43_201],
        f"{MACHINE}.blockStorageSizeInGBs": [49, 10_241],
        f"{MACHINE}.shapeName": ["VM.Standard2.3", "g5.xlarge", "VM.Standard.E4.Flex"],
        f"{MACHINE}.jobShapeConfigDetails": [{"ocpus": 1, "memoryInGBs": 8}],
        f"{MACHINE}.jobInfrastructureType": ["MULTI_NODE", "STANDALONE"],
        "jobLogConfigurationDetails": [
            {"enableLogging": True, "enableAutoLogCreation": True},
            {"enableLogging": True, "logGroupId": science.place.log_group},
            {**logs, "logId": "ocid1.log.oc1.iad.a"},
        ],
        "jobStorageMountConfigurationDetailsList": [
            mounts("a", "b", "c", "d", "e", "f"),
            mounts("a", "a"),
            mounts("a/b"),
            mounts("-a"),
            mounts("bin", destinationPath="/usr"),
            [{**FILES, "destinationDirectoryName": "a"}],
        ],
    }
    for path, values in wrong.items():
        for value in values:
            with refused(400, "InvalidParameter"):
                science.client.create_job(changed(good, path, value))
    for missing in (CONFIGURATION, MACHINE):
        with refused(400, "InvalidParameter"):
            science.client.create_job({key: value for key, value in good.items() if key != missing})
    assert science.client.list_jobs(science.place.compartment).data == []


def test_what_is_just_allowed(science: Science) -> None:
    good = science.details(A="x" * 19_999)
    good = changed(good, MACHINE, {**good[MACHINE], **FLEX})
    good |= {"displayName": "x" * 255, "jobStorageMountConfigurationDetailsList": mounts("a", "b", "c", "d", "e")}
    good[CONFIGURATION] |= {"commandLineArguments": "x" * 4_000, "maximumRuntimeInMinutes": 43_200}
    assert science.client.create_job(good).data.lifecycle_state == "CREATING"
    network = {**good[MACHINE], "jobInfrastructureType": "STANDALONE", "subnetId": science.place.subnet}
    files = [{**FILES, "destinationDirectoryName": "a"}]
    body = {**good, MACHINE: network, "jobStorageMountConfigurationDetailsList": files}
    assert science.client.create_job(body).data.lifecycle_state == "CREATING"
    for size in ({"ocpus": 2}, {"ocpus": 0.5, "memoryInGBs": 8}, {"ocpus": 1000, "memoryInGBs": 8}):
        with refused(400, "InvalidParameter"):
            science.client.create_job(changed(good, f"{MACHINE}.jobShapeConfigDetails", size))


def test_what_groups_of_nodes_must_not_be(science: Science) -> None:
    good = science.grouped(2)
    node, group = "jobNodeConfigurationDetails", "jobNodeConfigurationDetails.jobNodeGroupConfigurationDetailsList.0"
    twice = good[node]["jobNodeGroupConfigurationDetailsList"] * 2
    wrong = {
        f"{node}.jobNodeGroupConfigurationDetailsList": [[], None, twice],
        f"{node}.maximumRuntimeInMinutes": [0],
        f"{node}.jobNetworkConfiguration": [{"jobNetworkType": "CUSTOM_NETWORK", "subnetId": "subnet"}],
        f"{group}.replicas": [0],
        f"{group}.minimumSuccessReplicas": [3, -1],
        f"{group}.{CONFIGURATION}": [None],
        f"{group}.{MACHINE}": [None, science.details()[MACHINE]],
        f"{group}.{MACHINE}.blockStorageSizeInGBs": [None, 10],
        CONFIGURATION: [science.details()[CONFIGURATION]],
        MACHINE: [science.details()[MACHINE]],
    }
    for path, values in wrong.items():
        for value in values:
            with refused(400, "InvalidParameter"):
                science.client.create_job(changed(good, path, value))
    empty = {MACHINE: {"jobInfrastructureType": "EMPTY"}, CONFIGURATION: {"jobType": "EMPTY"}}
    assert science.client.create_job({**good, **empty}).data.lifecycle_state == "CREATING"


def test_what_a_container_must_not_be(science: Science) -> None:
    image = {"jobEnvironmentType": "OCIR_CONTAINER", "image": "iad.ocir.io/ns/image:1"}
    long = {**science.details(), "jobEnvironmentConfigurationDetails": {**image, "cmd": ["x" * 2048]}}
    with refused(400, "InvalidParameter"):
        science.client.create_job(long)


def test_what_is_absent_is_not_found(science: Science) -> None:
    science.place.cloud.absent.add(science.place.project)
    with refused(404, "NotAuthorizedOrNotFound"):
        science.client.create_job(science.details())
