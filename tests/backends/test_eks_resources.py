"""What pods ask of their nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune.backends.eks import EksBackend
from cloudtune.backends.eks_resources import Resources, resources_of
from cloudtune.launch import launch
from cloudtune.shapes import find, names
from cloudtune.spec.infrastructure import Accelerator, EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Recipe, Runtime, ScriptRuntime

TRAIN = PyTorchDistributedRuntime(command="torchrun train.py", replicas=2)
SCRIPT = ScriptRuntime(script_path_uri=str(Path(__file__)))


def asked(place: EKSJob, runtime: Runtime = TRAIN) -> Resources:
    job = JobSpec(name="j", infrastructure=place, runtime=runtime)
    return resources_of(job, launch(job))


@pytest.mark.parametrize(
    ("machine", "devices"),
    [
        ("p4d.24xlarge", {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "4"}),
        ("p5.48xlarge", {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "32"}),
        ("ml.p5en.48xlarge", {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "16"}),
        ("g5.xlarge", {"nvidia.com/gpu": "1"}),
        ("trn1.32xlarge", {"aws.amazon.com/neuron": "16", "vpc.amazonaws.com/efa": "8"}),
        ("trn1.2xlarge", {"aws.amazon.com/neuron": "1"}),
        ("trn2.48xlarge", {"aws.amazon.com/neuron": "16", "vpc.amazonaws.com/efa": "16"}),
        ("m5.4xlarge", {}),
    ],
)
def test_devices_are_those_of_the_instance(machine: str, devices: dict[str, str]) -> None:
    found = asked(EKSJob(instance_type=machine))
    assert {name: found.limits[name] for name in found.extended} == devices
    assert {name: found.requests[name] for name in found.extended} == devices
    alone = asked(EKSJob(instance_type=machine), attrs.evolve(TRAIN, replicas=1))
    assert "vpc.amazonaws.com/efa" not in alone.limits


def test_the_spec_says_how_many_interfaces_there_are() -> None:
    assert asked(EKSJob(instance_type="p5.48xlarge", efa_per_node=4)).limits["vpc.amazonaws.com/efa"] == "4"
    assert "vpc.amazonaws.com/efa" not in asked(EKSJob(instance_type="p5.48xlarge", efa_per_node=0)).limits
    alone = attrs.evolve(TRAIN, replicas=1)
    assert asked(EKSJob(instance_type="p5.48xlarge", efa_per_node=4), alone).limits["vpc.amazonaws.com/efa"] == "4"


@pytest.mark.parametrize("machine", sorted(names("aws")))
def test_every_machine_can_give_what_is_asked(machine: str) -> None:
    """What is asked is less than the machine has by what Karpenter, the kubelet and the daemons take."""
    shape = find(machine, cloud="aws")
    found = asked(EKSJob(instance_type=machine), SCRIPT)
    cpu = float(found.requests["cpu"].removesuffix("m")) / (1000 if found.requests["cpu"].endswith("m") else 1)
    word = found.requests["memory"]
    memory_gib = float(word[:-2]) / (1024 if word.endswith("Mi") else 1)
    assert shape.vcpus is not None
    assert shape.memory_gb is not None
    assert 0.05 <= cpu <= shape.vcpus - 0.4
    assert 0.1 <= memory_gib <= shape.memory_gb * 0.925
    if shape.vcpus >= 8 and shape.memory_gb >= 64:
        assert cpu >= 0.75 * shape.vcpus
        assert memory_gib >= 0.7 * shape.memory_gb
    assert found.limits["memory"] == found.requests["memory"]
    assert "cpu" not in found.limits


def test_part_of_a_machine_leaves_room_for_others() -> None:
    whole = asked(EKSJob(instance_type="g5.12xlarge"))
    one = asked(EKSJob(instance_type="g5.12xlarge", accelerator=Accelerator(count=1)))
    assert one.limits["nvidia.com/gpu"] == "1"
    assert int(one.requests["cpu"]) <= int(whole.requests["cpu"]) / 4
    assert int(one.requests["memory"][:-2]) <= int(whole.requests["memory"][:-2]) / 4


def test_an_unknown_machine_is_what_the_spec_says() -> None:
    gpu = asked(EKSJob(instance_type="x9.big", accelerator=Accelerator(name="X", count=2, efa_interfaces=3)))
    assert gpu.to_dict() == {
        "requests": {"nvidia.com/gpu": "2", "vpc.amazonaws.com/efa": "3"},
        "limits": {"nvidia.com/gpu": "2", "vpc.amazonaws.com/efa": "3"},
    }
    assert asked(EKSJob(accelerator=Accelerator(neuron_cores=4))).limits == {"aws.amazon.com/neuroncore": "4"}
    nothing = asked(EKSJob(), SCRIPT)
    assert (nothing.to_dict(), nothing.shared_memory, nothing.has_accelerators) == ({}, "8Gi", False)


@pytest.mark.parametrize("recipe", ["prepare"])
def test_what_computes_on_processors_asks_for_no_accelerators(recipe: str) -> None:
    args: dict[str, Any] = {"data": "hub/data"}
    runtime = ScriptRuntime(recipe=Recipe(name=recipe, args=args))
    place = EKSJob(instance_type="trn1.32xlarge", image="i")
    found = asked(place, runtime)
    assert found.extended == ()
    assert int(found.requests["cpu"]) > 100
    plan = EksBackend().plan(JobSpec(name="j", infrastructure=place, runtime=runtime), "abcdefgh")
    assert plan.launch is not None
    assert (plan.launch.accelerators_per_node, plan.launch.accelerator) == (0, None)


@pytest.mark.parametrize(
    ("resources", "requests", "limits"),
    [
        ({"limits": {"nvidia.com/gpu": 4}}, {"nvidia.com/gpu": 4}, {"nvidia.com/gpu": 4}),
        ({"requests": {"nvidia.com/gpu": "2"}}, {"nvidia.com/gpu": "2"}, {"nvidia.com/gpu": "2"}),
        ({"limits": {"nvidia.com/gpu": None}}, {"nvidia.com/gpu": None}, {"nvidia.com/gpu": None}),
        ({"limits": {"nvidia.com/gpu": 0}}, {"nvidia.com/gpu": None}, {"nvidia.com/gpu": None}),
        ({"requests": {"memory": "1Gi"}}, {"memory": "1Gi"}, {"memory": "1Gi"}),
        ({"limits": {"memory": "1Gi"}}, {"memory": "1Gi"}, {"memory": "1Gi"}),
        ({"limits": {"memory": None}}, {"memory": "168Gi"}, {"memory": None}),
        ({"limits": {"cpu": 4}}, {"cpu": 4}, {"cpu": 4}),
        ({"requests": {"cpu": 4}}, {"cpu": 4}, {"cpu": None}),
        ({"limits": {"hugepages-2Mi": "5Gi"}}, {"hugepages-2Mi": "5Gi"}, {"hugepages-2Mi": "5Gi"}),
    ],
)
def test_what_the_spec_says_of_resources_wins(
    resources: dict[str, Any], requests: dict[str, Any], limits: dict[str, Any]
) -> None:
    found = asked(EKSJob(instance_type="g5.12xlarge", resources=resources))
    assert {name: found.requests.get(name) for name in requests} == requests
    assert {name: found.limits.get(name) for name in limits} == limits


def test_shared_memory_is_half_of_the_pods_or_what_the_spec_says() -> None:
    assert asked(EKSJob(instance_type="m5.4xlarge"), SCRIPT).shared_memory == "28Gi"
    assert asked(EKSJob(instance_type="p5.48xlarge")).shared_memory == "256Gi"
    assert asked(EKSJob(instance_type="m5.4xlarge", shared_memory="1Gi"), SCRIPT).shared_memory == "1Gi"
