"""The contract of the four kinds of jobs: the same spec has the same ranks and the same environment on all of them."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from cloudtune.backends.eks import EksBackend
from cloudtune.backends.eks_kinds import Wanted, job_set_spec, job_spec, py_torch_job_spec, train_job_spec
from cloudtune.node.launchers import Paths, environment
from cloudtune.node.order import parse_order
from cloudtune.node.ranks import find_place
from cloudtune.plan import Plan
from cloudtune.spec.infrastructure import EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import NeuronDistributedRuntime, PyTorchDistributedRuntime, Runtime, ScriptRuntime
from tests.manifests import KINDS

PATHS = Paths(python="python3", scripts=(), tools="/t", code="/w", working="/w", outputs="/o")
NODES = 3
RUNTIMES = [
    PyTorchDistributedRuntime(command="torchrun train.py", replicas=NODES, env={"A": "b"}),
    PyTorchDistributedRuntime(command="accelerate launch train.py", replicas=NODES),
    PyTorchDistributedRuntime(command="python train.py", replicas=NODES, processes_per_node=2),
    NeuronDistributedRuntime(command="torchrun train.py", replicas=NODES, tensor_parallel_size=8),
    ScriptRuntime(script_path_uri="https://example.com/a.py", replicas=NODES),
]


def planned(kind: str, runtime: Runtime) -> Plan:
    machine = "trn1.32xlarge" if runtime.type == "neuronDistributed" else "p5.48xlarge"
    place = EKSJob(context="c", image="i", job_kind=kind, instance_type=machine)
    return EksBackend().plan(JobSpec(name="tune", infrastructure=place, runtime=runtime), "abcdefgh")


def pods(kind: str, job: dict[str, Any]) -> list[dict[str, str]]:
    """Return the variables of each pod as the controller of its kind makes them, the first is node 0's.

    What operators add is that of Kubernetes 1.35, training operator v1.9 (a value of its own beats the job's) and
    Trainer v2.3.
    """
    spec, name = job["spec"], job["metadata"]["name"]
    if kind == "trainJob":
        trainer = spec["trainer"]
        own = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
            "PET_MASTER_PORT": "29500",
        }
        indexes = [
            {"PET_NODE_RANK": str(index), "JOB_COMPLETION_INDEX": str(index)} for index in range(trainer["numNodes"])
        ]
        return [{**given(trainer), **own, **index} for index in indexes]
    if kind == "pyTorchJob":
        parts = spec["pytorchReplicaSpecs"]
        roles = [(role, index) for role in ("Master", "Worker") for index in range(parts[role]["replicas"])]
        own = {
            "PYTHONUNBUFFERED": "1",
            "PET_NPROC_PER_NODE": spec["nprocPerNode"],
            "PET_NNODES": str(len(roles)),
            "MASTER_ADDR": f"{name}-master-0",
            "MASTER_PORT": "23456",
            "PET_MASTER_ADDR": f"{name}-master-0",
            "PET_MASTER_PORT": "23456",
            "WORLD_SIZE": str(len(roles) * int(spec["nprocPerNode"])),
        }
        return [
            {
                **given(parts[role]["template"]["spec"]["containers"][0]),
                **own,
                "RANK": str(rank),
                "PET_NODE_RANK": str(rank),
            }
            for rank, (role, _) in enumerate(roles)
        ]
    inner = spec if kind == "job" else spec["replicatedJobs"][0]["template"]["spec"]
    container = inner["template"]["spec"]["containers"][0]
    return [{**given(container), "JOB_COMPLETION_INDEX": str(index)} for index in range(inner["completions"])]


def given(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def addresses(kind: str) -> tuple[str, str]:
    """Return the name and port of node 0 in the namespace of the run."""
    name = "tune-abcdefgh"
    return {
        "job": (f"{name}-0.{name}", "29500"),
        "pyTorchJob": (f"{name}-master-0", "23456"),
        "trainJob": (f"{name}-node-0-0.{name}", "29500"),
        "jobSet": (f"{name}-node-0-0.{name}", "29500"),
    }[kind]


def seen(kind: str, runtime: Runtime) -> list[dict[str, str]]:
    """Return what the job's command sees on each node, the address of node 0 by its meaning."""
    plan = planned(kind, runtime)
    (text,) = (file.content for step in plan.steps for file in step.files if file.path == "order.json")
    order = parse_order(json.loads(text or b""))
    found = []
    for variables in pods(kind, plan.to_dict()["steps"][0]["parameters"]):
        place = find_place(variables, lambda _: None, nodes=order.nodes)
        command = environment(order, place, PATHS, surroundings=variables, secrets={})
        host, port = addresses(kind)
        assert (command["CLOUDTUNE_MAIN_ADDR"], command["CLOUDTUNE_MAIN_PORT"]) == (host, port)
        shown = {name: {host: "<node 0>", port: "<port>"}.get(value, value) for name, value in command.items()}
        # what the place itself says: an index, and a pod's own name where it has one
        found.append(
            {name: value for name, value in shown.items() if name not in {"JOB_COMPLETION_INDEX", "PET_LOCAL_ADDR"}}
        )
    return found


@pytest.mark.parametrize(
    "runtime", RUNTIMES, ids=lambda one: f"{one.type}-{getattr(one, 'command', 'script')}".split()[0]
)
def test_the_same_spec_has_the_same_ranks_and_environment_on_all_kinds(runtime: Runtime) -> None:
    job = seen("job", runtime)
    assert [one["CLOUDTUNE_NODE_RANK"] for one in job] == [str(rank) for rank in range(NODES)]
    for kind in KINDS[1:]:
        assert seen(kind, runtime) == job
    launches = [planned(kind, runtime).to_dict()["launch"] for kind in KINDS]
    assert launches == [launches[0]] * len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_one_node_is_node_0(kind: str) -> None:
    (one,) = pods_of_one(kind)
    assert one["CLOUDTUNE_NODE_RANK"] == "0"
    assert one["CLOUDTUNE_MAIN_ADDR"] == "127.0.0.1"


def pods_of_one(kind: str) -> list[dict[str, str]]:
    plan = planned(kind, attrs.evolve(RUNTIMES[0], replicas=1))
    (text,) = (file.content for step in plan.steps for file in step.files if file.path == "order.json")
    order, job = parse_order(json.loads(text or b"")), plan.to_dict()["steps"][0]["parameters"]
    if kind == "pyTorchJob":
        job["spec"]["pytorchReplicaSpecs"]["Worker"] = {"replicas": 0}
    return [
        environment(order, find_place(one, lambda _: None, nodes=1), PATHS, surroundings=one, secrets={})
        for one in pods(kind, job)
    ]


def test_a_wanted_job_is_said_in_four_ways() -> None:
    template = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [{"name": "pytorch", "image": "i"}]}}
    wanted = Wanted(name="j", nodes=2, processes=8, restarts=3, template=template)
    assert job_spec(wanted)["backoffLimit"] == 6
    assert job_set_spec(wanted)["failurePolicy"]["maxRestarts"] == 3
    roles = py_torch_job_spec(wanted)["pytorchReplicaSpecs"]
    assert {role: part["replicas"] for role, part in roles.items()} == {"Master": 1, "Worker": 1}
    assert "restartPolicy" not in roles["Master"]["template"]["spec"]
    assert train_job_spec(wanted)["trainer"] == {"image": "i", "numNodes": 2, "numProcPerNode": 8}
