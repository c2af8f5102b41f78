"""Where a node stands among the others, read from what its place provides.

Four places: this machine (the supervisor's variables), OCI Data Science (variables and a metadata file), SageMaker
(resourceconfig.json), Kubernetes (an Indexed Job with a headless service, or what an operator injects). All functions
are pure: they are given the variables and the files' contents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cloudtune.node.errors import NodeError

#: torch's own default: every place except this machine has its nodes to itself. CLOUDTUNE_MAIN_PORT names another.
MAIN_PORT = 29500
SAGEMAKER_FILE = "/opt/ml/input/config/resourceconfig.json"
#: Places whose services carry the log away, perhaps late, twice or out of order: there each line is numbered.
NUMBERED = ("oci", "sagemaker", "kubernetes")

#: Returns the text of a file, or None if there is no such file (yet).
Read = Callable[[str], "str | None"]


class Place(NamedTuple):
    """A node's place in the job: ``name`` is ``local``, ``oci``, ``sagemaker``, ``kubernetes`` or ``single``.

    ``local_addr`` is the name or address by which the other nodes reach this one, None where only torch knows;
    ``interface`` is the network interface between the nodes, None where the libraries find it themselves; ``hosts`` are
    the nodes' names in the order of their ranks, where scripts ask for them.
    """

    name: str
    node_rank: int
    nodes: int
    main_addr: str
    main_port: int = MAIN_PORT
    local_addr: str | None = None
    interface: str | None = None
    hosts: tuple[str, ...] = ()


class NotReady(NodeError):
    """The place has not listed all nodes yet: look again a little later."""


def find_place(environ: Mapping[str, str], read: Read, *, nodes: int = 1) -> Place:
    """Return the place that the variables and files tell of; ``nodes`` is what the order says.

    Raises NotReady while the place's list of nodes is incomplete, NodeError when something is missing for good.
    """
    named = environ.get("CLOUDTUNE_PLACE", "")
    known: dict[str, Callable[[], Place]] = {
        "local": lambda: local_place(environ),
        "oci": lambda: oci_place(environ, read),
        "sagemaker": lambda: sagemaker_place(environ, read(SAGEMAKER_FILE)),
        "kubernetes": lambda: kubernetes_place(environ, nodes=nodes),
    }
    if named:
        if named not in known:
            raise NodeError(f"CLOUDTUNE_PLACE is {named!r}; it must be one of {', '.join(known)}")
        place = known[named]()
    elif "CLOUDTUNE_NODE_RANK" in environ:
        place = known["local"]()
    elif "CLUSTER_NODES_METADATA_FILE" in environ or "INITIAL_CLUSTER_SIZE" in environ:
        place = known["oci"]()
    elif read(SAGEMAKER_FILE) is not None:
        place = known["sagemaker"]()
    elif "JOB_COMPLETION_INDEX" in environ or "PET_NNODES" in environ or "CLOUDTUNE_JOB_NAME" in environ:
        place = known["kubernetes"]()
    elif nodes == 1:
        place = Place("single", 0, 1, "127.0.0.1")
    else:
        raise NodeError(
            f"this is one of {nodes} nodes, but nothing here says which: none of CLOUDTUNE_NODE_RANK (local), "
            "CLUSTER_NODES_METADATA_FILE (OCI), resourceconfig.json (SageMaker), JOB_COMPLETION_INDEX or "
            "PET_NODE_RANK (Kubernetes) is set"
        )
    if place.nodes != nodes:
        raise NodeError(f"the order is for {nodes} nodes, but {place.name} started {place.nodes}")
    if not 0 <= place.node_rank < nodes:
        raise NodeError(f"{place.name} calls this node {place.node_rank}, but the nodes are 0 to {nodes - 1}")
    return place


def numbered_node(environ: Mapping[str, str], read: Read) -> int | None:
    """Return this node's rank in a place whose lines are numbered; None in others, or if it is not known yet."""
    known: dict[str, Callable[[], int | None]] = {
        "oci": lambda: _number(environ, "NODE_RANK", "OCI", default=0),
        "sagemaker": lambda: sagemaker_place(environ, read(SAGEMAKER_FILE)).node_rank,
        "kubernetes": lambda: _kubernetes_rank(environ),
    }
    try:
        return known.get(environ.get("CLOUDTUNE_PLACE", ""), lambda: None)()
    except NodeError:
        return None  # finding the place will say what is wrong


def local_place(environ: Mapping[str, str]) -> Place:
    """Return the place that the supervisor of a local run put into the variables."""
    return Place(
        "local",
        _number(environ, "CLOUDTUNE_NODE_RANK", "local"),
        _number(environ, "CLOUDTUNE_NUM_NODES", "local"),
        _text(environ, "CLOUDTUNE_MAIN_ADDR", "local"),
        _number(environ, "CLOUDTUNE_MAIN_PORT", "local"),
        environ.get("CLOUDTUNE_LOCAL_ADDR") or None,
    )


def oci_place(environ: Mapping[str, str], read: Read) -> Place:
    """Return the place in an OCI job run; a job of one node may have no variables at all."""
    rank = _number(environ, "NODE_RANK", "OCI", default=0)
    nodes = _number(environ, "INITIAL_CLUSTER_SIZE", "OCI", default=_number(environ, "NODE_COUNT", "OCI", default=1))
    port = _number(environ, "CLOUDTUNE_MAIN_PORT", "OCI", default=MAIN_PORT)
    if nodes == 1:
        return Place("oci", rank, 1, "127.0.0.1", port)
    path = _text(environ, "CLUSTER_NODES_METADATA_FILE", "OCI")
    text = read(path)
    addresses = _oci_addresses(path, text)
    missing = [number for number in range(nodes) if number not in addresses]
    if missing:
        came = ", ".join(map(str, sorted(addresses))) or "none"
        raise NotReady(f"{path} lists the nodes {came}; still missing: {', '.join(map(str, missing))}")
    if rank not in addresses:
        raise NodeError(f"{path} does not list this node, {rank}; it lists {', '.join(map(str, sorted(addresses)))}")
    return Place("oci", rank, nodes, addresses[0], port, addresses[rank])


def _oci_addresses(path: str, text: str | None) -> dict[int, str]:
    if not text or not text.strip():
        return {}
    try:
        entries: Any = json.loads(text)
    except ValueError:
        return {}  # caught while the service writes it
    if not isinstance(entries, list):
        raise NodeError(f"{path} must hold a list of {{Rank, IPAddress}}, but holds {type(entries).__name__}")
    addresses = {}
    for entry in entries:
        lower = {str(key).lower(): value for key, value in entry.items()} if isinstance(entry, dict) else {}
        if lower.get("rank") in (None, "") or not lower.get("ipaddress"):
            continue
        addresses[int(lower["rank"])] = str(lower["ipaddress"])
    return addresses


def sagemaker_place(environ: Mapping[str, str], config: str | None) -> Place:
    """Return the place in a SageMaker training job.

    A node's rank is the index of its host among all hosts sorted as text: of 12, ``algo-10`` is node 1.
    """
    if config is None:
        raise NodeError(f"{SAGEMAKER_FILE} is missing: is this a SageMaker training container?")
    try:
        data = json.loads(config)
        hosts, current = sorted(data["hosts"]), data["current_host"]
        interface = data.get("network_interface_name") or None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NodeError(f"{SAGEMAKER_FILE} has no hosts and current_host: {error!r}") from error
    if current not in hosts:
        raise NodeError(f"{SAGEMAKER_FILE} calls this host {current!r}, which is none of its hosts {', '.join(hosts)}")
    port = _number(environ, "CLOUDTUNE_MAIN_PORT", "SageMaker", default=MAIN_PORT)
    return Place("sagemaker", hosts.index(current), len(hosts), hosts[0], port, current, interface, tuple(hosts))


def kubernetes_place(environ: Mapping[str, str], *, nodes: int) -> Place:
    """Return the place in a pod: an operator's variables if there are any, else the Indexed Job's."""
    rank = _kubernetes_rank(environ)
    port = _number(environ, "CLOUDTUNE_MAIN_PORT", "Kubernetes", default=MAIN_PORT)
    if nodes == 1:
        return Place("kubernetes", 0, 1, "127.0.0.1", port)
    if rank is None:
        raise NodeError(
            "nothing in this pod says which node it is: JOB_COMPLETION_INDEX (Indexed Job, JobSet), PET_NODE_RANK "
            "(TrainJob) and RANK (PyTorchJob) are all unset; a PyTorchJob with workers alone needs an elasticPolicy"
        )
    for prefix in ("PET_MASTER_", "MASTER_"):
        if environ.get(f"{prefix}ADDR"):
            port = _number(environ, f"{prefix}PORT", "Kubernetes", default=port)
            return Place("kubernetes", rank, nodes, environ[f"{prefix}ADDR"], port)
    host, _, port_text = environ.get("PET_RDZV_ENDPOINT", "").rpartition(":")
    if host and port_text.isdigit():
        return Place("kubernetes", rank, nodes, host, int(port_text))
    job, service = environ.get("CLOUDTUNE_JOB_NAME"), environ.get("CLOUDTUNE_SERVICE")
    if not job or not service:
        raise NodeError(
            "the pod does not say where node 0 is: set CLOUDTUNE_JOB_NAME and CLOUDTUNE_SERVICE (node 0 is then "
            "<job>-0.<service>), or let an operator set PET_MASTER_ADDR or MASTER_ADDR"
        )
    return Place("kubernetes", rank, nodes, f"{job}-0.{service}", port, f"{job}-{rank}.{service}")


def _kubernetes_rank(environ: Mapping[str, str]) -> int | None:
    # RANK of a PyTorchJob is the node's rank (its master is 0, worker I is I+1)
    for name in ("PET_NODE_RANK", "JOB_COMPLETION_INDEX", "RANK"):
        if environ.get(name):
            return _number(environ, name, "Kubernetes")
    # an elastic PyTorchJob gives no rank; its pods are called <job>-worker-<index>
    match = re.search(r"-worker-(\d+)$", environ.get("HOSTNAME", ""))
    return int(match[1]) if match and environ.get("PET_RDZV_ENDPOINT") else None


def _text(environ: Mapping[str, str], name: str, place: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise NodeError(f"{name} is not set, but {place} nodes need it")
    return value


def _number(environ: Mapping[str, str], name: str, place: str, *, default: int | None = None) -> int:
    if default is not None and not environ.get(name):
        return default
    value = _text(environ, name, place)
    try:
        return int(value)
    except ValueError:
        raise NodeError(f"{name} is {value!r}; {place} nodes need a number there") from None
