"""The nodes of a training job as its containers see them: ``/opt/ml``, names, variables, the command.

Sources: "How Amazon SageMaker AI Provides Training Information" of the developer guide, and what the SageMaker training
toolkit reads.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.training_files import Checkpoints, Unrunnable, fill_channel
from cloudtune.rehearsal.nodes import Node, Place, hub_models

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import AwsCloud

ML = "/opt/ml"
CHECKPOINTS = f"{ML}/checkpoints"
#: The name of the network interface that nodes are told; theirs here is the loopback's.
_INTERFACE = "lo"


def names_of(count: int) -> list[str]:
    """Return the nodes' names, in the order of their numbers."""
    return [f"algo-{number + 1}" for number in range(count)]


def checkpoint_folder(node: Node) -> Path:
    """Return where a node's checkpoints lie on this machine."""
    return node.folder / "checkpoints"


def ml_folder(node: Node) -> Path:
    """Return where a node's ``/opt/ml`` lies on this machine."""
    return node.folder / "ml"


def substitutes(given: Mapping[str, Any]) -> list[str]:
    """Return what this machine gives in place of what the job names, in words for its log."""
    algorithm, kind = given["AlgorithmSpecification"], given["ResourceConfig"]["InstanceType"]
    image = algorithm.get("TrainingImage") or f"algorithm {algorithm['AlgorithmName']}"
    return [
        f"rehearsed: substituted: image {image} -> programs of this machine",
        f"rehearsed: substituted: instance {kind} -> this machine",
    ]


def build_nodes(
    cloud: AwsCloud, given: Mapping[str, Any], arn: str, region: str, *, attempt: int, checkpoints: Checkpoints | None
) -> list[Node]:
    """Return the nodes of an attempt; their folders are made and filled. Raises Unrunnable."""
    names = names_of(given["ResourceConfig"]["InstanceCount"])
    addresses = dict(zip(names, cloud.stage.addresses.take(len(names)), strict=True))
    base = cloud.stage.folder / "training-jobs" / arn.rpartition("/")[2] / str(attempt)
    local = (given.get("CheckpointConfig") or {}).get("LocalPath", CHECKPOINTS).rstrip("/")
    role = cloud.role_environment(given["RoleArn"], "SageMaker", owner=arn)
    command = _command(given)
    here = {"CLOUDTUNE_MAIN_PORT": str(cloud.stage.addresses.take_port())}
    if len(names) > 1:
        # the nodes share this machine's cores, and each would take all of them
        here["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // len(names)))
    hub, models = hub_models(cloud.hub_cache, given.get("Environment", {}))
    here |= {**hub, **given.get("Environment", {})}
    nodes = []
    for number, name in enumerate(names):
        folder = base / name
        _make_ml(cloud, given, names, number, folder / "ml")
        (folder / "checkpoints").mkdir()
        if checkpoints is not None:
            checkpoints.fetch(folder / "checkpoints")
        # the folder for checkpoints is there whether they are kept or not
        (folder / "ml" / "checkpoints").mkdir(exist_ok=True)
        nodes.append(
            Node(
                name=name,
                folder=folder,
                command=command,
                environment={**here, **_variables(given, arn, region, name), **role},
                binds={ML: Place(source=folder / "ml"), local: Place(source=folder / "checkpoints"), **models},
                outside_names=cloud.outside_names,
                hosts=addresses,
                working_dir="/",
            )
        )
    return nodes


def _command(given: Mapping[str, Any]) -> tuple[str, ...]:
    algorithm = given["AlgorithmSpecification"]
    entry = tuple(algorithm.get("ContainerEntrypoint", ()))
    if not entry:
        raise Unrunnable("ClientError: rehearsed: an image's own entrypoint is not here: set ContainerEntrypoint.")
    return (*entry, *algorithm.get("ContainerArguments", ()))


def _make_ml(cloud: AwsCloud, given: Mapping[str, Any], names: list[str], number: int, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    for path in ("input/config", "input/data", "model", "output/data", "output/intermediate", "code"):
        (folder / path).mkdir(parents=True)
    kind = given["ResourceConfig"]["InstanceType"]
    hosts = sorted(names)  # algo-10 comes before algo-2, as it does at the service
    group = {"instance_group_name": "homogeneousCluster", "instance_type": kind, "hosts": hosts}
    resources = {
        "current_host": names[number],
        "current_instance_type": kind,
        "current_group_name": group["instance_group_name"],
        "hosts": hosts,
        "instance_groups": [group],
        "network_interface_name": _INTERFACE,
    }
    channels = {
        channel["ChannelName"]: {
            "TrainingInputMode": channel.get("InputMode", given["AlgorithmSpecification"]["TrainingInputMode"]),
            "S3DistributionType": channel["DataSource"]
            .get("S3DataSource", {})
            .get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        for channel in given.get("InputDataConfig", ())
    }
    files = {
        "resourceconfig": resources,
        "hyperparameters": given.get("HyperParameters", {}),
        "inputdataconfig": channels,
    }
    for name, data in files.items():
        (folder / "input" / "config" / f"{name}.json").write_text(json.dumps(data))
    for channel in given.get("InputDataConfig", ()):
        place = folder / "input" / "data" / channel["ChannelName"]
        fill_channel(cloud, channel, place, host=number, hosts=len(names))


def _variables(given: Mapping[str, Any], arn: str, region: str, name: str) -> dict[str, str]:
    """Return the variables that the service gives a container."""
    return {
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "TRAINING_JOB_NAME": given["TrainingJobName"],
        "TRAINING_JOB_ARN": arn,
        "CURRENT_HOST": name,
        "DMLC_INTERFACE": _INTERFACE,
    }
