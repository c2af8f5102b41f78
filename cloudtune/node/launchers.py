"""(order, place) -> the environment and argv of a node's command, each launcher told the way it listens (pure).

torchrun reads ``PET_*`` variables, so its line is left alone and a flag in it wins. accelerate and deepspeed read
flags only: commands of their names, first on PATH (see :mod:`cloudtune.node.shims`), put ours before the user's, and
the last one wins in both.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cloudtune.node.flags import SWITCHES, own_options
from cloudtune.node.masks import URI_VARIABLE
from cloudtune.node.order import Order
from cloudtune.node.ranks import Place

#: Of the agent's own variables, those that its command must not see.
PRIVATE = (
    *("CLOUDTUNE_SUPERVISOR_FD", "CLOUDTUNE_ROLL_PORT", "CLOUDTUNE_SYNC_SECONDS", "CLOUDTUNE_METRICS_SECONDS"),
    *("CLOUDTUNE_JOB_NAME", "CLOUDTUNE_SERVICE", "CLOUDTUNE_GIT_SECRET"),
)
#: Launchers that put a rank into every process themselves.
OWN_RANKS = ("torchrun", "neuron", "accelerate", "deepspeed")

#: What an operator tells a pod of its place in the job, in its own way: a command finds ours in place of it.
_OPERATORS = re.compile(r"PET_\w+|RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT")
_SYSTEM_FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin")
#: Flags of accelerate of which one chooses the kind of training.
_ACCELERATE_KINDS = frozenset("cpu multi_gpu tpu use_deepspeed use_fsdp use_megatron_lm config_file".split())  # noqa: SIM905
_DEEPSPEED_CHOICES = frozenset("i include e exclude H hostfile".split())  # noqa: SIM905


class Paths(NamedTuple):
    """Where things are on the node; ``tools`` goes first on PATH, then the folders in ``scripts``."""

    python: str
    scripts: tuple[str, ...]
    tools: str
    code: str
    working: str
    outputs: str


def environment(
    order: Order,
    place: Place,
    paths: Paths,
    *,
    surroundings: Mapping[str, str],
    secrets: Mapping[str, str],
    on_processors: bool = False,
) -> dict[str, str]:
    """Return the command's variables; ``on_processors`` says that several processes train without accelerators.

    A variable of the order or a secret beats every default here, and those beat what the agent was started with;
    only the run's own ``CLOUDTUNE_*`` are never the user's.
    """
    chosen = {**order.environment, **secrets}
    defaults = {
        "PYTHONUNBUFFERED": "1",
        # torchrun would end its ranks after 30 s whatever the job's grace is
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, int(order.grace_s))),
        **_addresses(order, place),
        **(_neuron(order) if order.launcher == "neuron" else {}),
        **_sagemaker(place),
    }
    if on_processors:
        # without it accelerate, and so transformers' Trainer, finds no device to share and trains every process apart
        defaults["ACCELERATE_USE_CPU"] = "true"
    out = {name: value for name, value in surroundings.items() if not (name in PRIVATE or URI_VARIABLE.fullmatch(name))}
    if place.name == "kubernetes":
        out = {name: value for name, value in out.items() if not _OPERATORS.fullmatch(name)}
    if not out.get("PET_STANDALONE", "0"):
        del out["PET_STANDALONE"]  # an operator sets it to "", on which torchrun fails
    out.update(defaults)
    out.update(chosen)
    out["PATH"] = _search_path(paths, out.get("PATH") or os.defpath)
    if order.python_path:
        out["PYTHONPATH"] = _python_path(order, paths, out.get("PYTHONPATH", ""))
    out.update(contract(order, place))
    out["CLOUDTUNE_OUTPUT_DIR"] = paths.outputs
    return out


def contract(order: Order, place: Place) -> dict[str, str]:
    """Return the variables that every process of every backend sees; degrees where the job has them."""
    degrees = {
        "CLOUDTUNE_TENSOR_PARALLEL_SIZE": order.neuron.get("tensorParallelSize"),
        "CLOUDTUNE_PIPELINE_PARALLEL_SIZE": order.neuron.get("pipelineParallelSize"),
    }
    return {
        **{name: str(size) for name, size in degrees.items() if size is not None},
        "CLOUDTUNE_RUN_ID": order.run_id,
        "CLOUDTUNE_NODE_RANK": str(place.node_rank),
        "CLOUDTUNE_NUM_NODES": str(order.nodes),
        "CLOUDTUNE_PROCESSES_PER_NODE": str(order.processes_per_node),
        "CLOUDTUNE_MAIN_ADDR": place.main_addr,
        "CLOUDTUNE_MAIN_PORT": str(place.main_port),
    }


def rendezvous_settings(timeout_s: float) -> str:
    """Return torch's settings for a rendezvous: one name a form (static, c10d) for the same time-out."""
    return ",".join(f"{name}={int(timeout_s)}" for name in ("timeout", "join_timeout", "read_timeout"))


def _addresses(order: Order, place: Place) -> dict[str, str]:
    # accelerate takes the settings from here by way of its flag
    out = {"PET_RDZV_CONF": rendezvous_settings(order.rendezvous_timeout_s)}
    if order.nodes > 1 and place.interface:
        # left alone they go by the machine's name, which may resolve to an address on which nobody listens
        out.update(GLOO_SOCKET_IFNAME=place.interface, NCCL_SOCKET_IFNAME=place.interface)
    if place.local_addr:
        out["PET_LOCAL_ADDR"] = place.local_addr
    if order.launcher not in ("accelerate", "deepspeed"):
        out.update(
            PET_NNODES=str(order.nodes),
            PET_NPROC_PER_NODE=str(order.processes_per_node),
            PET_NODE_RANK=str(place.node_rank),
            PET_MASTER_ADDR=place.main_addr,
            PET_MASTER_PORT=str(place.main_port),
        )
    if order.launcher == "command":
        out.update(_plain(order, place))
    return out


def _plain(order: Order, place: Place) -> dict[str, str]:
    """Return what a program finds that has no launcher; one process a node is a rank of its own."""
    out = {
        "MASTER_ADDR": place.main_addr,
        "MASTER_PORT": str(place.main_port),
        "WORLD_SIZE": str(order.world_size),
        "NODE_RANK": str(place.node_rank),
    }
    if order.processes_per_node == 1:
        out["RANK"] = str(place.node_rank)
        if order.nodes > 1:
            # alone, LOCAL_RANK would make some trainers set up a process group for nothing
            out.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    return out


def _neuron(order: Order) -> dict[str, str]:
    out = {"MALLOC_ARENA_MAX": "64"}  # bounds the growth of host memory
    for variable, key in (
        ("NEURON_COMPILE_CACHE_URL", "compileCacheUri"),
        ("CLOUDTUNE_TENSOR_PARALLEL_SIZE", "tensorParallelSize"),
        ("CLOUDTUNE_PIPELINE_PARALLEL_SIZE", "pipelineParallelSize"),
    ):
        if order.neuron.get(key):
            out[variable] = str(order.neuron[key])
    return out


def _sagemaker(place: Place) -> dict[str, str]:
    """Return the variables of a node by which scripts written for SageMaker know their neighbours."""
    if place.name != "sagemaker" or not place.hosts:
        return {}
    out = {"SM_HOSTS": json.dumps(place.hosts, separators=(",", ":")), "SM_CURRENT_HOST": place.local_addr or ""}
    return {**out, **({"SM_NETWORK_INTERFACE_NAME": place.interface} if place.interface else {})}


def _search_path(paths: Paths, inherited: str) -> str:
    usual = inherited.split(os.pathsep)
    # scripts of the interpreter's own environment come before those of others; system folders keep their order
    own = [folder for folder in paths.scripts if folder not in usual or folder not in _SYSTEM_FOLDERS]
    return os.pathsep.join(dict.fromkeys([paths.tools, *own, *usual]))


def _python_path(order: Order, paths: Paths, inherited: str) -> str:
    folders = []
    for entry in order.python_path:
        inside = os.path.join(paths.working, entry)  # noqa: PTH118
        at_root = os.path.join(paths.code, entry)  # noqa: PTH118
        folders.append(at_root if not os.path.exists(inside) and os.path.exists(at_root) else inside)  # noqa: PTH110
    folders += [paths.working, paths.code]
    folders += [folder for folder in inherited.split(os.pathsep) if folder]
    return os.pathsep.join(dict.fromkeys(os.path.normpath(folder) for folder in folders))


def command_line(order: Order, *, python: str, archive: str) -> list[str]:
    """Return the exact argv of the command."""
    if isinstance(order.command, str):
        return ["/bin/sh", "-c", order.command]
    if order.command[0] == "@agent":
        return [python, archive, *order.command[1:]]
    return list(order.command)


def precompile_line(order: Order, *, python: str, archive: str) -> list[str] | None:
    """Return the argv that compiles the graphs of a Neuron job before it trains, or None if none was asked for."""
    if not order.neuron.get("precompile") or order.neuron.get("mode", "xla") != "xla":
        return None
    return ["neuron_parallel_compile", *command_line(order, python=python, archive=archive)]


def accelerate_arguments(arguments: Sequence[str], variables: Mapping[str, str], *, has_config: bool) -> list[str]:
    """Return the arguments of ``accelerate launch`` with this node's place before the user's own.

    ``has_config`` says whether accelerate's default config file exists; it, or one that is named, chooses the kind
    of training, else ``--multi_gpu`` is added: without it, nodes of one process each would train apart.
    """
    nodes = int(variables["CLOUDTUNE_NUM_NODES"])
    world = nodes * int(variables["CLOUDTUNE_PROCESSES_PER_NODE"])
    ours = [
        *("--num_machines", str(nodes)),
        *("--num_processes", str(world)),
        *("--machine_rank", variables["CLOUDTUNE_NODE_RANK"]),
        *("--main_process_ip", variables["CLOUDTUNE_MAIN_ADDR"]),
        *("--main_process_port", variables["CLOUDTUNE_MAIN_PORT"]),
    ]
    if nodes > 1:
        ours += ["--same_network"]
    if variables.get("PET_RDZV_CONF"):
        ours += ["--rdzv_conf", variables["PET_RDZV_CONF"]]
    given = own_options(arguments, SWITCHES["accelerate"])
    if world > 1 and not has_config and not _ACCELERATE_KINDS.intersection(given):
        ours += ["--multi_gpu"]
    return [*ours, *arguments]


def deepspeed_arguments(arguments: Sequence[str], variables: Mapping[str, str], *, hostfile: str) -> list[str]:
    """Return the arguments of ``deepspeed`` with this node's place before the user's own; no ssh is needed.

    The names in the hostfile only count nodes and slots when deepspeed runs without ssh.
    """
    given = own_options(arguments, SWITCHES["deepspeed"])
    port = ["--master_port", variables["CLOUDTUNE_MAIN_PORT"]]
    if int(variables["CLOUDTUNE_NUM_NODES"]) == 1:
        chosen = _DEEPSPEED_CHOICES.intersection(given)
        return [*port, *([] if chosen else ["--num_gpus", variables["CLOUDTUNE_PROCESSES_PER_NODE"]]), *arguments]
    return [
        *("--no_ssh", "--hostfile", hostfile),
        *("--node_rank", variables["CLOUDTUNE_NODE_RANK"]),
        *("--master_addr", variables["CLOUDTUNE_MAIN_ADDR"]),
        *port,
        *arguments,
    ]


def hostfile_text(variables: Mapping[str, str]) -> str:
    """Return deepspeed's list of nodes and slots."""
    slots = variables["CLOUDTUNE_PROCESSES_PER_NODE"]
    return "".join(f"node-{rank} slots={slots}\n" for rank in range(int(variables["CLOUDTUNE_NUM_NODES"])))
