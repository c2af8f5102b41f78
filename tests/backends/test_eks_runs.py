"""What objects of Kubernetes mean: states of all kinds, what pods wait for, how they end, who failed first."""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest

from cloudtune.backends import eks_objects, eks_runs, eks_words
from cloudtune.backends.eks_objects import CANCELLED, COMPLETION_INDEX, FOREIGN, KINDS, kind_name, kind_of, moment
from cloudtune.states import Handle, Status
from tests.backends.eks_service import HANDLE, Agent, Pod

MESSAGE = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
NOW = "2026-11-20T10:00:00Z"


def of(kind: str) -> Handle:
    return attrs.evolve(HANDLE, kind=kind)


def held(kind: str, **details: Any) -> dict[str, Any]:
    return {"type": kind, "status": "True", "lastTransitionTime": NOW, **details}


def job(**status: Any) -> dict[str, Any]:
    meta = {"name": "tune-abcdefgh", "uid": "u", "creationTimestamp": NOW}
    return {"metadata": meta, "spec": {}, "status": status}


def suspended(kind: str, *, cancelled: bool = False, **status: Any) -> dict[str, Any]:
    thing = job(**status)
    thing["spec"] = {"runPolicy": {"suspend": True}} if kind == "pyTorchJob" else {"suspend": True}
    if cancelled:
        thing["metadata"]["annotations"] = {CANCELLED: "true"}
    return thing


STATES = [
    ("job", job(), "pending"),
    ("job", job(active=2, ready=0), "starting"),
    ("job", job(active=2, ready=1), "running"),
    ("job", job(active=1, ready=0, succeeded=1), "running"),
    ("job", job(succeeded=2, conditions=[held("SuccessCriteriaMet"), held("Complete")]), "succeeded"),
    ("job", job(failed=1, active=1, conditions=[held("FailureTarget")]), "stopping"),
    ("job", job(failed=1, conditions=[held("FailureTarget"), held("Failed")]), "failed"),
    ("job", suspended("job", conditions=[held("Suspended")]), "pending"),
    ("job", suspended("job", cancelled=True, active=2, ready=2), "stopping"),
    ("job", suspended("job", cancelled=True, terminating=2), "stopping"),
    ("job", suspended("job", cancelled=True), "cancelled"),
    ("job", suspended("job", cancelled=True, conditions=[held("Complete")]), "succeeded"),
    ("pyTorchJob", job(), "pending"),
    ("pyTorchJob", job(conditions=[held("Created")], replicaStatuses={"Worker": {"active": 2}}), "starting"),
    ("pyTorchJob", job(conditions=[held("Running")], replicaStatuses={"Worker": {"active": 2}}), "running"),
    ("pyTorchJob", job(conditions=[held("Succeeded")], replicaStatuses={"Worker": {"succeeded": 2}}), "succeeded"),
    ("pyTorchJob", job(conditions=[{**held("Running"), "status": "False"}, held("Failed")]), "failed"),
    ("pyTorchJob", suspended("pyTorchJob", cancelled=True, replicaStatuses={"Worker": {}}), "cancelled"),
    ("pyTorchJob", suspended("pyTorchJob"), "pending"),
    ("trainJob", job(jobsStatus=[{"name": "node", "active": 1, "ready": 0}]), "starting"),
    ("trainJob", job(jobsStatus=[{"name": "node", "active": 1, "ready": 1}]), "running"),
    ("trainJob", job(conditions=[held("Complete")]), "succeeded"),
    ("trainJob", suspended("trainJob", cancelled=True), "cancelled"),
    ("jobSet", job(replicatedJobsStatus=[{"name": "node", "active": 1, "ready": 1}]), "running"),
    ("jobSet", job(conditions=[held("Completed")], terminalState="Completed"), "succeeded"),
    ("jobSet", job(conditions=[held("Failed", reason="FailedJobs", message="jobset failed")]), "failed"),
    ("jobSet", suspended("jobSet"), "pending"),
    ("foreignPod", {"metadata": {"name": "p"}, "status": {"phase": "Pending"}}, "pending"),
    ("foreignPod", {"metadata": {"name": "p"}, "status": {"phase": "Running"}}, "running"),
    ("foreignPod", {"metadata": {"name": "p"}, "status": {"phase": "Failed", "reason": "Evicted"}}, "failed"),
]


@pytest.mark.parametrize(("kind", "thing", "state"), STATES)
def test_states_of_all_kinds(kind: str, thing: dict[str, Any], state: str) -> None:
    status = eks_runs.status_of(of(kind), thing)
    assert status.state == state, status
    assert status.reason is None or state in ("pending", "failed")


WAITING: dict[str, dict[str, Any]] = {
    "waits for a node: 0/2 nodes are available": {
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": MESSAGE}]
    },
    "held back before scheduling": {
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gates"}]
    },
    "image me/img:1 does not come (ImagePullBackOff): Back-off pulling": {
        "containerStatuses": [
            {
                "image": "me/img:1",
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}},
            }
        ]
    },
    "ends again and again, the last time with exit code 2": {
        "containerStatuses": [
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 2}}}
        ]
    },
    "cannot be made (CreateContainerConfigError): secret": {
        "containerStatuses": [
            {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}}
        ]
    },
    "being made: image, volumes": {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
}


@pytest.mark.parametrize("words", WAITING)
def test_why_a_pod_waits(words: str) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Pending", **WAITING[words]}}
    assert words in (eks_words.waiting(pod) or "")
    assert eks_words.together([pod, pod]) == f"2 pods: {eks_words.waiting(pod)}"


def terminated(**end: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "pytorch", "state": {"terminated": {"finishedAt": NOW, **end}}}]}


ENDS = {
    "was evicted: The node was low on resource: memory": {
        **terminated(exitCode=143),
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
    },
    "was out of memory": terminated(exitCode=137, reason="OOMKilled"),
    "was lost: its node is not ready": {
        "conditions": [held("DisruptionTarget", reason="DeletionByTaintManager", message="Taint manager: deleting")]
    },
    "was preempted by a pod of higher priority": {
        "conditions": [held("DisruptionTarget", reason="PreemptionByScheduler", message="preempted")]
    },
    "has reached its time limit": {"reason": "DeadlineExceeded"},
    "ended with exit code 3: rank 1 failed": terminated(exitCode=3, reason="Error", message="rank 1 failed"),
    "ended (StartError, exit code 128)": terminated(exitCode=128, reason="StartError", message="no such file"),
}


@pytest.mark.parametrize("words", ENDS)
def test_how_a_pod_ends(words: str) -> None:
    end = eks_words.ending({"metadata": {"name": "p"}, "status": {"phase": "Failed", **ENDS[words]}})
    assert end is not None
    assert end.words.startswith(words)
    assert end.disrupted == ("exit code" not in words)


def test_a_pod_that_did_its_work_has_no_bad_end() -> None:
    assert eks_words.ending({"status": {"phase": "Succeeded", **terminated(exitCode=0)}}) is None
    assert eks_words.ending({"status": {"phase": "Running"}}) is None


# --- why


def explained(handle: Handle, *replies: dict[str, Any]) -> Status:
    """Return the status after all further calls, which are as many as there are replies."""
    told = [replies[0]]
    while (call := eks_runs.explain(handle, told)) is not None:
        assert len(told) < len(replies), call
        told.append(replies[len(told)])
    assert len(told) == len(replies)
    return eks_runs.explained(handle, eks_runs.status_of(handle, replies[0]), told)


def pending(index: int) -> dict[str, Any]:
    pod = Pod(name=f"tune-abcdefgh-{index}-x", uid=str(index), index=index).seen
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": MESSAGE}
    return {**pod, "spec": {}, "status": {"phase": "Pending", "conditions": [condition]}}


def test_the_schedulers_reason_is_told() -> None:
    status = explained(of("job"), job(active=2, ready=0), {"items": [pending(0), pending(1)]}, {"items": []})
    assert status.state == "pending"
    assert status.reason == f"2 pods: it waits for a node: {MESSAGE.rstrip('.')}"


def test_kueues_reason_is_told() -> None:
    condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient quota"}
    workload = {"spec": {"queueName": "team-a"}, "status": {"conditions": [condition]}}
    status = explained(of("job"), suspended("job"), {"items": []}, {"items": [workload]})
    assert (status.state, status.reason) == ("pending", "it waits in queue team-a: insufficient quota (Pending)")
    nothing = explained(of("job"), suspended("job"), {"items": []}, {"absent": True})
    assert "suspended" in (nothing.reason or "")


def test_why_there_are_no_pods_is_told() -> None:
    event = {
        "reason": "FailedCreate",
        "involvedObject": {"name": "tune-abcdefgh"},
        "message": "exceeded quota: gpus",
        "lastTimestamp": NOW,
    }
    other = {**event, "involvedObject": {"name": "other"}, "message": "not this"}
    status = explained(of("job"), job(), {"items": []}, {"items": [event, other]})
    assert (status.state, status.reason) == ("pending", "pods cannot be made: exceeded quota: gpus")


def failed(*pods: Pod, reason: str = "BackoffLimitExceeded", kind: str = "job", events: Any = ()) -> Status:
    logs = [{"text": "".join(f"{text}\n" for _, text in pod.tries[-1].lines)} for pod in pods]
    thing = job(conditions=[held("Failed", reason=reason, message="Job has failed")])
    return explained(of(kind), thing, {"items": [pod.seen for pod in pods]}, {"replies": logs}, {"items": list(events)})


def ended(index: int, **end: Any) -> Pod:
    pod = Pod(name=f"tune-abcdefgh-{index}-x", uid=str(index), index=index, phase="Failed")
    pod.tries[-1].end = {"finishedAt": NOW, **end}
    return pod


def test_who_failed_first_is_told_by_the_agents() -> None:
    pods = [ended(0, exitCode=1), ended(1, exitCode=3)]
    at = moment(NOW) or 0.0
    for pod, rank, later, line in ((pods[0], 0, 2.0, "Connection closed by peer"), (pods[1], 1, 0.0, "boom")):
        record = {"rank": rank, "exitCode": 1 + 2 * rank, "signal": None, "endedAt": at + later, "lines": [line]}
        report = {"node": rank, "exitCode": 1, "reason": f"rank {rank} failed", "ranks": [record]}
        Agent(pod, nodes=2, start_s=at - 60).leave(at + later, **report)
    status = failed(*pods)
    assert status.failure is not None
    assert (status.failure.replica, status.failure.rank, status.failure.exit_code) == (1, 1, 3)
    assert (status.failure.lines, status.reason) == (("boom",), "rank 1 failed")


def test_a_pod_that_was_killed_failed_before_those_that_miss_it() -> None:
    killed, victim = ended(1, exitCode=137, reason="OOMKilled"), ended(0, exitCode=1)
    at = moment(NOW) or 0.0
    Agent(killed, nodes=2, start_s=at - 60).say(at - 1, "step 7")
    record = {"rank": 0, "exitCode": 1, "signal": None, "endedAt": at + 2, "lines": ["Connection closed by peer"]}
    Agent(victim, nodes=2, start_s=at - 60).leave(at + 2, exitCode=1, reason="rank 0 failed", ranks=[record])
    status = failed(victim, killed)
    assert status.failure is not None
    assert (status.failure.replica, status.failure.exit_code, status.failure.signal) == (1, 137, "SIGKILL")
    assert status.failure.lines == ("step 7",)
    assert "pod tune-abcdefgh-1-x (replica 1) was out of memory (OOMKilled)" in (status.reason or "")


def test_pods_that_are_gone_are_known_from_events() -> None:
    message = 'Failed to pull image "nope:1": not found'
    event = {"reason": "Failed", "involvedObject": {"name": "tune-abcdefgh-0-x"}, "message": message}
    status = failed(reason="DeadlineExceeded", events=[event])
    assert "raise maximumRuntimeInMinutes" in (status.reason or "")
    assert "a container failed to start: Failed to pull image" in (status.reason or "")
    assert status.failure is None


# --- names


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_others_are_named(kind: str) -> None:
    for word in KINDS[kind].words:
        found = eks_objects.recognised(f"team-a/{word}/fsdp")
        assert found == Handle(backend="eks", kind=kind_name(KINDS[kind], FOREIGN), id="team-a/fsdp")
        assert kind_of(found) == KINDS[kind]
        assert not eks_objects.has_agent(found)
        assert Handle.parse(found.uri) == found


def test_a_name_may_be_of_any_kind() -> None:
    assert [kind_of(one).kind for one in eks_objects.supposed("team-a/fsdp")] == [one.kind for one in KINDS.values()]
    for text in ("abcdefgh", "no such thing", "a/b/c/d", "team-a/deployment/x", "ocid1.x.y..z", "tune-abcdefgh", "/x"):
        assert eks_objects.recognised(text) is None, text
        assert eks_objects.supposed(text) == (), text


def labelled(**labels: str) -> dict[str, Any]:
    prefixes = {"replica": "training.kubeflow.org/", "job_index": "jobset.sigs.k8s.io/", "part": "jobset.sigs.k8s.io/"}
    names = {"part": "replicatedjob-name", "index": COMPLETION_INDEX}
    found = {}
    for key, value in labels.items():
        before = next((prefix for start, prefix in prefixes.items() if key.startswith(start)), "")
        found[before + names.get(key, key.replace("_", "-"))] = value
    return {"metadata": {"name": "p", "labels": found}}


def test_replicas_of_pods() -> None:
    torch = {"spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1}, "Worker": {"replicas": 2}}}}
    places = eks_objects.layout(torch)
    assert eks_objects.replica_of(labelled(replica_type="master", replica_index="0"), places) == 0
    assert eks_objects.replica_of(labelled(replica_type="worker", replica_index="1"), places) == 2
    parts = [
        {"name": "prepare", "replicas": 1, "template": {"spec": {"completions": 1}}},
        {"name": "node", "replicas": 2, "template": {"spec": {"completions": 4}}},
    ]
    places = eks_objects.layout({"spec": {"replicatedJobs": parts}})
    assert eks_objects.replica_of(labelled(part="node", job_index="1", index="2"), places) == 1 + 4 + 2
    assert eks_objects.replica_of(labelled(index="3"), {}) == 3
    assert eks_objects.replica_of(labelled(), {}) is None


def test_times_have_nine_digits_or_none() -> None:
    assert moment("2026-11-20T10:00:00.123456789Z") == pytest.approx(1795168800.123456789)
    assert moment("2026-11-20T12:00:00+02:00") == moment("2026-11-20T10:00:00Z") == 1795168800.0
    assert moment(None) is None
    assert moment("unable to retrieve") is None


@pytest.mark.parametrize("kind", ["job", "pyTorchJob", "trainJob", "jobSet"])
def test_cancelling_suspends_what_then_counts_as_cancelled(kind: str) -> None:
    queue, last = eks_objects.cancelling(of(kind))
    assert queue.parameters["labelSelector"] == "kueue.x-k8s.io/job-uid={uid}"
    assert queue.parameters["optional"]
    thing = {"metadata": {}, "spec": {}, "status": {}, **last.parameters["patch"]}
    assert eks_runs.state_of(of(kind), thing) == "cancelled"
    assert last.parameters["kind"] == KINDS[kind].kind


def test_a_run_on_eks_has_a_link() -> None:
    links = eks_runs.status_of(attrs.evolve(HANDLE, scope="eks:us-west-2/mine"), job()).links
    assert re.search(
        r"us-west-2\.console\.aws\.amazon\.com/eks/home\?region=us-west-2#/clusters/mine", links["console"]
    )
