"""What a job run consists of, and what its nodes look like from the inside: paths, variables, the command.

Sources: "Job Environment Variables" (what the service gives), Oracle ADS 2.16.1's driver (ranks, cluster file), its
documentation (the folder of the artifact). Where the cluster file and the principal's files lie is this stand-in's own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cloudtune.node.archives import is_archive
from cloudtune.node.code import unpack
from cloudtune.node.errors import NodeError
from cloudtune.rehearsal.nodes import Node, Place, hub_models
from cloudtune.rehearsal.oci.buckets import Buckets
from cloudtune.rehearsal.oci.job_limits import mount_place
from cloudtune.rehearsal.oci.ocids import REGION

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

HOME = "/home/datascience"
WORK = f"{HOME}/decompressed_artifact"
CLUSTER_FILE = "/opt/datascience/cluster/nodes.json"
_PRINCIPAL = "/opt/datascience/principal"
_DOMAIN = "jobrun.rehearsed.oraclevcn.com"


class Unrunnable(Exception):
    """The run fails before its command starts; the text is for lifecycleDetails."""


@attrs.frozen(kw_only=True)
class Group:
    """Nodes that are alike; ``minimum`` of them must end well. A run without groups has one, without a name."""

    name: str
    nodes: int
    minimum: int
    shape: str
    variables: Mapping[str, str]
    arguments: str
    container: Mapping[str, Any] | None


@attrs.frozen(kw_only=True)
class Work:
    """A run: its job's details with its own over them."""

    run_id: str
    groups: tuple[Group, ...]
    in_order: bool
    minutes: int | None
    mounts: tuple[Mapping[str, Any], ...]
    logs: Mapping[str, Any]
    grouped: bool

    @property
    def nodes(self) -> int:
        """How many nodes the run has."""
        return sum(group.nodes for group in self.groups)


def work_of(run_id: str, job: Mapping[str, Any], details: Mapping[str, Any]) -> Work:
    """Return what a run consists of; ``details`` are those with which it was created."""
    node = job.get("jobNodeConfigurationDetails")
    mounts = details.get("jobStorageMountConfigurationOverrideDetailsList")
    over = details.get("jobLogConfigurationOverrideDetails")
    common: dict[str, Any] = {
        "run_id": run_id,
        "mounts": tuple(job.get("jobStorageMountConfigurationDetailsList") or () if mounts is None else mounts),
        "logs": over or job.get("jobLogConfigurationDetails") or {},
    }
    if node is None:
        own = {
            "jobConfigurationDetails": details.get("jobConfigurationOverrideDetails"),
            "jobEnvironmentConfigurationDetails": details.get("jobEnvironmentConfigurationOverrideDetails"),
            "jobInfrastructureConfigurationDetails": details.get("jobInfrastructureConfigurationOverrideDetails"),
        }
        group, minutes = _group({"name": "", "replicas": 1, **job}, own)
        return Work(groups=(group,), in_order=False, minutes=minutes, grouped=False, **common)
    override = details.get("jobNodeConfigurationOverrideDetails") or {}
    overs = {group["name"]: group for group in override.get("jobNodeGroupConfigurationDetailsList") or ()}
    pairs = [_group(group, overs.get(group["name"], {})) for group in node["jobNodeGroupConfigurationDetailsList"]]
    limits = [override.get("maximumRuntimeInMinutes") or node.get("maximumRuntimeInMinutes")]
    said = [minutes for minutes in (*limits, *(minutes for _, minutes in pairs)) if minutes]
    return Work(
        groups=tuple(group for group, _ in pairs),
        in_order=(override.get("startupOrder") or node.get("startupOrder")) == "IN_ORDER",
        minutes=min(said, default=None),
        grouped=True,
        **common,
    )


def _group(given: Mapping[str, Any], over: Mapping[str, Any]) -> tuple[Group, int | None]:
    """Return a group with what a run says over it, and how long its nodes may take."""
    before, after = ({} if each is None else each for each in _both(given, over, "jobConfigurationDetails"))
    machines = _both(given, over, "jobInfrastructureConfigurationDetails")
    named = [each["shapeName"] for each in machines if each and each.get("shapeName")]
    containers = [each for each in _both(given, over, "jobEnvironmentConfigurationDetails") if each]
    nodes = over.get("replicas") or given.get("replicas") or 1
    minimum = over.get("minimumSuccessReplicas", given.get("minimumSuccessReplicas"))
    group = Group(
        name=given["name"],
        nodes=nodes,
        minimum=nodes if minimum is None else minimum,
        shape=named[-1],
        variables={**before.get("environmentVariables", {}), **after.get("environmentVariables", {})},
        arguments=after.get("commandLineArguments", before.get("commandLineArguments", "")),
        container=containers[-1] if containers else None,
    )
    return group, after.get("maximumRuntimeInMinutes", before.get("maximumRuntimeInMinutes"))


def _both(given: Mapping[str, Any], over: Mapping[str, Any], key: str) -> tuple[Any, Any]:
    return given.get(key), over.get(key)


def substitutes(group: Group) -> list[str]:
    """Return what this machine gives in place of what the job names, in words for its log."""
    here, found = f"Python {sys.version_info.major}.{sys.version_info.minor} of this machine", []
    conda = group.variables.get("CONDA_ENV_SLUG") or group.variables.get("CONDA_ENV_OBJECT_NAME")
    if conda:
        found.append(f"rehearsed: substituted: conda environment {conda} -> {here}")
    if group.container:
        found.append(f"rehearsed: substituted: image {group.container['image']} -> programs of this machine")
    return [*found, f"rehearsed: substituted: shape {group.shape} -> this machine"]


def build_nodes(cloud: OciCloud, work: Work, run: Mapping[str, Any], artifact: Path | None) -> list[list[Node]]:
    """Return the nodes of a run, by group; their folders are made. Raises Unrunnable."""
    names = [f"node-{rank}" for rank in range(work.nodes)]
    addresses = dict(zip(names, cloud.stage.addresses.take(len(names)), strict=True))
    hosts = {**addresses, **{f"{name}.{_DOMAIN}": address for name, address in addresses.items()}}
    folder = cloud.stage.folder / "runs" / work.run_id
    shared = _shared_places(cloud, work, run, folder)
    port = {"CLOUDTUNE_MAIN_PORT": str(cloud.stage.addresses.take_port())}
    found: list[list[Node]] = []
    for group in work.groups:
        nodes: list[Node] = []
        for _ in range(group.nodes):
            rank = sum(map(len, found)) + len(nodes)
            _, models = hub_models(cloud.hub_cache, group.variables)
            own = folder / names[rank]
            nodes.append(
                Node(
                    name=names[rank],
                    folder=own,
                    command=_command(group, _placed(artifact, own / "artifact")),
                    environment={**port, **_environment(cloud, work, group, run, rank, artifact)},
                    binds={**shared, **models, WORK: Place(source=own / "artifact")},
                    hosts=hosts,
                    working_dir=WORK,
                    outside_names=cloud.outside_names,
                )
            )
        found.append(nodes)
    return found


def write_cluster(cloud: OciCloud, work: Work, nodes: list[list[Node]], *, whole: bool) -> None:
    """Write the file by which nodes find each other: in the end the whole of it, before that what is known by then."""
    ranked = [node for group in nodes for node in group]
    rows = [{"Rank": rank, "IPAddress": node.hosts[node.name]} for rank, node in enumerate(ranked)]
    file = cloud.stage.folder / "runs" / work.run_id / "cluster" / Path(CLUSTER_FILE).name
    # not in one piece: the service's writer does not promise that either
    file.write_text(json.dumps(rows if whole else rows[:-1], indent=2))


def _shared_places(cloud: OciCloud, work: Work, run: Mapping[str, Any], folder: Path) -> dict[str, Place]:
    (folder / "cluster").mkdir(parents=True)
    (folder / "principal").mkdir(mode=0o700)
    for name, text in cloud.principals.resource_files(work.run_id, run["compartmentId"]).items():
        (folder / "principal" / name).write_text(text)
    places = {
        _PRINCIPAL: Place(source=folder / "principal", read_only=True),
        str(Path(CLUSTER_FILE).parent): Place(source=folder / "cluster", read_only=True),
    }
    for mount in work.mounts:
        source = mounted_folder(cloud, mount)
        source.mkdir(parents=True, exist_ok=True)
        places[mount_place(mount)] = Place(source=source)
    return places


def mounted_folder(cloud: OciCloud, mount: Mapping[str, Any]) -> Path:
    """Return the folder of this machine that a mount shows: the same for all who mount the same."""
    if mount["storageType"] == "OBJECT_STORAGE":
        parts = [mount["namespace"], mount["bucket"], *(mount.get("prefix") or "").split("/")]
    else:
        parts = [mount["mountTargetId"], mount["exportId"]]
    if any(part in (".", "..") for part in parts) or "/".join(parts[:2]) in cloud.absent:
        raise Unrunnable(f"storage mount {mount_place(mount)} could not be mounted.")
    if mount["storageType"] == "OBJECT_STORAGE":
        return cloud.part(Buckets).mounted(parts[0], parts[1], "/".join(parts[2:]))
    return cloud.stage.folder.joinpath("mounted-files", *parts)


def _placed(artifact: Path | None, folder: Path) -> tuple[Path | None, bool]:
    """Put the artifact where a node finds it; return it, and whether it was unpacked."""
    folder.mkdir(parents=True)
    if artifact is None:
        return None, False
    if not is_archive(artifact.name):
        shutil.copyfile(artifact, folder / artifact.name)
        return artifact, False
    try:
        unpack(artifact, folder)
    except NodeError as error:
        raise Unrunnable(f"Job run artifact could not be unpacked: {error}.") from error
    return artifact, True


def _command(group: Group, placed: tuple[Path | None, bool]) -> tuple[str, ...]:
    artifact, unpacked = placed
    arguments = shlex.split(group.arguments)
    if group.container:
        command = [*group.container.get("entrypoint", ()), *group.container.get("cmd", ())]
        if not command:
            raise Unrunnable("the image's own command cannot be rehearsed: set entrypoint or cmd.")
        return (*command, *arguments)
    assert artifact is not None
    entry = group.variables.get("JOB_RUN_ENTRYPOINT", "") if unpacked else artifact.name
    if not entry:
        raise Unrunnable("Job run artifact is an archive: JOB_RUN_ENTRYPOINT must name the file to start.")
    programs = {".py": sys.executable, ".sh": "bash"}
    program = programs.get(Path(entry).suffix)
    if program is None:
        raise Unrunnable(f"JOB_RUN_ENTRYPOINT {entry} is neither a Python nor a shell file.")
    return (program, f"{WORK}/{entry}", *arguments)


def _environment(
    cloud: OciCloud, work: Work, group: Group, run: Mapping[str, Any], rank: int, artifact: Path | None
) -> dict[str, str]:
    """Return the variables of a node: the job's own, with the service's over them."""
    service = {
        "HOME": HOME,
        "USER": "datascience",
        "TENANCY_OCID": cloud.principals.tenancy,
        "PROJECT_OCID": run["projectId"],
        "PROJECT_COMPARTMENT_OCID": run["compartmentId"],
        "JOB_OCID": run["jobId"],
        "JOB_COMPARTMENT_OCID": run["compartmentId"],
        "JOB_RUN_OCID": work.run_id,
        "JOB_RUN_COMPARTMENT_OCID": run["compartmentId"],
        "FQDN": f"node-{rank}.{_DOMAIN}",
        "OCI_RESOURCE_PRINCIPAL_VERSION": "2.2",
        "OCI_RESOURCE_PRINCIPAL_RPST": f"{_PRINCIPAL}/rpst",
        "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM": f"{_PRINCIPAL}/private.pem",
        "OCI_RESOURCE_PRINCIPAL_REGION": REGION,
        **cloud.environment(),  # the one variable that the service does not give
    }
    if artifact is not None:
        service["JOB_ARTIFACT_FILE_NAME"] = artifact.name
    conda = group.variables.get("CONDA_ENV_SLUG") or group.variables.get("CONDA_ENV_OBJECT_NAME")
    if conda:
        service |= {"CONDA_PREFIX": sys.prefix, "CONDA_DEFAULT_ENV": Path(conda).name}
    if work.grouped:
        service |= {
            "NODE_RANK": str(rank),
            "INITIAL_CLUSTER_SIZE": str(work.nodes),
            "CLUSTER_NODES_METADATA_FILE": CLUSTER_FILE,
        }
    # the nodes share this machine's cores, and each would take all of them
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // work.nodes))} if work.nodes > 1 else {}
    hub, _ = hub_models(cloud.hub_cache, group.variables)
    return {**threads, **hub, **group.variables, **service}
