"""Parts of a rehearsed cluster that need none: quantities, variables, the scheduler's words, what a failure means."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.rehearsal.kubernetes.fitting import machines, told, why_not
from cloudtune.rehearsal.kubernetes.job_pods import intervals, judged, numbers_of
from cloudtune.rehearsal.kubernetes.machines import node_manifest
from cloudtune.rehearsal.kubernetes.pod_environment import Unconfigured, expanded, field_of, variables
from cloudtune.rehearsal.kubernetes.quantities import pod_requests, quality_of_service, quantity, whole


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", "0.5"), ("2Gi", 2 << 30), ("1e3", 1000), (8, 8), ("1.5k", 1500), (".5", "0.5"), ("100n", "1e-7")],
)
def test_quantities_are_numbers(text: object, number: object) -> None:
    assert quantity(text) == Decimal(str(number))


@pytest.mark.parametrize("text", ["eight", "1 Gi", "Gi", "", "1GiB", True])
def test_what_is_no_quantity_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)
    assert whole("1500m") == 2


@given(st.sets(st.integers(min_value=0, max_value=300), max_size=60))
def test_intervals_are_read_back(numbers: set[int]) -> None:
    assert numbers_of(intervals(numbers)) == numbers


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("$(A)", "1"),
        ("$(A)$(A)", "11"),
        ("$(B)", "$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("cost: $5", "cost: $5"),
    ],
)
def test_references_are_expanded_as_far_as_they_are_known(text: str, known: str) -> None:
    assert expanded(text, {"A": "1"}) == known


def pod(**spec: Any) -> dict[str, Any]:
    meta = {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": 'x"y'}}
    return {"metadata": meta, "spec": {"containers": [{"name": "c"}], **spec}}


def test_variables_come_from_objects_and_the_pod() -> None:
    things = {("ConfigMap", "m"): {"kind": "ConfigMap", "data": {"A": "1", "no name!": "2"}}}
    container = {
        "name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "s", "optional": True}}],
        "env": [
            {"name": "B", "value": "$(P_A)"},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
        ],
    }
    found = variables(pod(), container, lambda kind, name: things.get((kind, name)), given={"B": "0", "G": "given"})
    assert found == {"B": "1", "G": "given", "P_A": "1"}
    container["env"] = [{"name": "C", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]
    with pytest.raises(Unconfigured, match="couldn't find key k in ConfigMap n/m"):
        variables(pod(), container, lambda kind, name: things.get((kind, name)))
    assert field_of(pod(), "metadata.labels") == 'a="x\\"y"'
    assert field_of(pod(), "metadata.labels['a']") == 'x"y'


def test_a_pod_asks_for_its_containers_together_or_its_largest_beginning() -> None:
    def container(cpu: str) -> dict[str, Any]:
        return {"name": "c", "resources": {"limits": {"cpu": cpu, "nvidia.com/gpu": 1}}}

    spec = {"containers": [container("1"), container("500m")], "initContainers": [container("2")]}
    assert pod_requests(spec) == {"cpu": 2, "nvidia.com/gpu": 2, "pods": 1}
    both = {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
    assert [quality_of_service({"containers": [one]}) for one in ({}, container("1"), both)] == [
        "BestEffort",
        "Burstable",
        "Guaranteed",
    ]


def node(kind: str, *taints: dict[str, str]) -> dict[str, Any]:
    facts = {"address": "10.0.0.1", "region": "us-west-2", "zone": "us-west-2a", "labels": {}}
    manifest, status = node_manifest(kind, kind, taints=taints, **facts)
    return {**manifest, "status": status}


def test_a_node_has_what_its_type_has() -> None:
    gpus, neuron = node("p5.48xlarge")["status"], node("ml.trn1.32xlarge")
    assert {name: gpus["allocatable"][name] for name in ("nvidia.com/gpu", "vpc.amazonaws.com/efa")} == {
        "nvidia.com/gpu": "8",
        "vpc.amazonaws.com/efa": "32",
    }
    assert neuron["status"]["allocatable"]["aws.amazon.com/neuron"] == "16"
    assert neuron["status"]["allocatable"]["aws.amazon.com/neuroncore"] == "32"
    assert neuron["metadata"]["labels"]["sagemaker.amazonaws.com/node-health-status"] == "Schedulable"
    for status in (gpus, neuron["status"]):
        for name in ("cpu", "memory"):
            assert 0 < quantity(status["allocatable"][name]) < quantity(status["capacity"][name])


def test_the_scheduler_says_why_a_pod_fits_nowhere() -> None:
    taint = {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
    nodes = [node("m5.large"), node("p5.48xlarge", taint)]
    wants = pod(containers=[{"name": "c", "resources": {"limits": {"nvidia.com/gpu": 8}}}])
    reasons = {one.name: why_not(wants, one) for one in machines(nodes, [])}
    assert told(reasons) == (
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, "
        "1 node(s) had untolerated taint {nvidia.com/gpu: true}. "
        "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling."
    )
    assert told({}) == "no nodes available to schedule pods"
    wants["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert [one.name for one in machines(nodes, []) if not why_not(wants, one)] == ["p5.48xlarge"]
    bound = {**wants, "spec": {**wants["spec"], "nodeName": "p5.48xlarge"}}
    assert [why_not(wants, one) for one in machines(nodes, [bound])][1] == ["Insufficient nvidia.com/gpu"]
    terms = [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "NotIn", "values": ["linux"]}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    assert why_not(pod(affinity=affinity), machines(nodes, [])[0]) == [
        "node(s) didn't match Pod's node affinity/selector"
    ]


def test_the_first_rule_that_fits_says_what_a_failure_means() -> None:
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Count", "onExitCodes": {"containerName": "other", "operator": "In", "values": [1]}},
        {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}},
    ]
    job = {"spec": {"podFailurePolicy": {"rules": rules}}}

    def failed(code: int, *conditions: dict[str, str]) -> dict[str, Any]:
        row = {"name": "c", "state": {"terminated": {"exitCode": code}}}
        return {**pod(), "status": {"containerStatuses": [row], "conditions": list(conditions)}}

    assert judged(job, failed(1)).action == "Count"
    assert judged(job, failed(3)).action == "FailJob"
    assert (
        judged(job, failed(3)).message
        == "Container c for pod n/p failed with exit code 3 matching FailJob rule at index 2"
    )
    assert judged(job, failed(3, {"type": "DisruptionTarget", "status": "True"})).action == "Ignore"
    assert judged({"spec": {}}, failed(3)).action == "Count"
