"""Jobs of a rehearsed cluster: their pods really run, see what their manifests say, fail and are made again."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtune.rehearsal.kubernetes.conditions import condition, holds
from tests.rehearsal.kubernetes.acting import Acting, acting, job, service

pytestmark = pytest.mark.usefixtures("namespaces")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as found:
        yield found


SEES = """
echo "$PLAIN $SECRET $NODE $CPUS $JOB_COMPLETION_INDEX $(cat /code/main.py) $(cat /labels)"
until getent hosts train-1.train && getent hosts train-0.train.default.svc.cluster.local; do sleep 0.05; done
echo "$JOB_COMPLETION_INDEX" > /fsx/from/$JOB_COMPLETION_INDEX
cat /scratch/init
printf done > /dev/termination-log
"""


def test_pods_see_what_their_manifest_says(here: Acting) -> None:
    mounts = [
        {"name": "code", "mountPath": "/code"},
        {"name": "labels", "mountPath": "/labels", "subPath": "labels"},
        {"name": "fsx", "mountPath": "/fsx/from", "subPath": "run"},
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    env = [
        {"name": "PLAIN", "value": "it is $(WORD), not $$(WORD)"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
    ]
    env.insert(0, {"name": "WORD", "value": "so"})
    volumes = [
        {"name": "code", "configMap": {"name": "code"}},
        {"name": "labels", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"name": "fsx", "persistentVolumeClaim": {"claimName": "fsx"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    first = {"name": "first", "image": "img:1", "command": ["sh", "-c", "echo before > /scratch/init"]}
    inside = {"env": env, "volumeMounts": mounts, "resources": {"limits": {"cpu": "1500m", "nvidia.com/gpu": 8}}}
    pod = {
        "inside": inside,
        "volumes": volumes,
        "subdomain": "train",
        "initContainers": [{**first, "volumeMounts": mounts[3:]}],
    }
    made = here.make(job("train", SEES, nodes=2, pod=pod))
    here.make(service("train", **{"batch.kubernetes.io/job-name": "train"}))
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    here.make({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "fsx"}, "spec": claim})
    # the pods wait for what they mount, as they do where a job is made before what it owns
    here.until(
        lambda: any(
            reason == "FailedMount" for pod in here.pods() for reason, _ in here.events(pod["metadata"]["name"])
        )
    )
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": made["metadata"]["uid"]}
    meta = {"name": "code", "ownerReferences": [owner]}
    here.make({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"main.py": "print()"}})
    token = base64.b64encode(b"hush").decode()
    here.make({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": {"token": token}})

    assert here.over("Job", "train") == ("Complete", "CompletionsReached")
    status = here.get("Job", "train")["status"]
    assert (status["succeeded"], status["completedIndexes"], "active" in status) == (2, "0,1", False)
    nodes = set()
    for index in (0, 1):
        pod = here.pod_of("train", index)
        assert pod is not None
        name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
        nodes.add(node)
        lines = here.log(pod)
        assert lines[0] == f"it is so, not $(WORD) hush {node} 1500 {index} print() {name}"
        assert lines[-1] == "before"
        ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"], ended["message"]) == (0, "Completed", "done")
        assert pod["status"]["phase"] == "Succeeded"
    assert len(nodes) == 2  # each asks for all GPUs of a node
    assert sorted(path.name for path in here.cluster.control.kubelet.folders.claim("default", "fsx").rglob("*")) == [
        "0",
        "1",
        "run",
    ]

    here.cluster.objects.delete("Job", "default", "train", propagation="Background")
    here.until(lambda: not here.pods() and here.cluster.objects.get("ConfigMap", "default", "code") is None)


def test_what_fails_is_made_again_until_it_is_enough(here: Acting) -> None:
    here.make(job("crash", "exit 3", backoffLimit=1))
    assert here.over("Job", "crash") == ("Failed", "BackoffLimitExceeded")
    assert here.get("Job", "crash")["status"]["failed"] == 2
    codes = [pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in here.pods()]
    assert codes == [3, 3]


def test_a_failure_policy_tells_a_bug_from_a_disruption(here: Acting) -> None:
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "pytorch", "operator": "In", "values": [42]}},
    ]
    policy = {"backoffLimit": 0, "podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": rules}}
    script = "echo up; if [ $JOB_COMPLETION_INDEX = 0 ]; then until [ -e /scratch/go ]; do sleep 0.05; done; exit 42; fi; exec sleep 600"
    pod = {
        "inside": {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
        "volumes": [{"name": "scratch", "hostPath": {"path": "/mnt/scratch"}}],
    }
    here.make(job("train", script, nodes=2, pod=pod, **policy))
    first = here.says("up", "train", 1)
    here.cluster.control.evict("default", first["metadata"]["name"])
    here.until(lambda: here.get("Pod", first["metadata"]["name"])["status"]["phase"] == "Failed")
    evicted = here.get("Pod", first["metadata"]["name"])
    assert evicted["status"]["reason"] == "Evicted"
    why = condition(evicted, "DisruptionTarget")
    assert why is not None
    assert why["reason"] == "TerminationByKubelet"
    second = here.says("up", "train", 1, after=first)
    assert "failed" not in here.get("Job", "train")["status"]

    leading = here.says("up", "train", 0)
    (here.cluster.control.kubelet.folders.host(leading["spec"]["nodeName"], "/mnt/scratch") / "go").touch()
    assert here.over("Job", "train") == ("Failed", "PodFailurePolicy")
    said = condition(here.get("Job", "train"), "Failed")
    assert said is not None
    assert said["message"].endswith("failed with exit code 42 matching FailJob rule at index 1")
    here.until(lambda: here.cluster.objects.get("Pod", "default", second["metadata"]["name"]) is None)


def test_a_lost_node_costs_its_pod_and_is_removed(here: Acting) -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    script = "echo up; [ $(ls /shared | wc -l) = 1 ] && exit 0; touch /shared/been; exec sleep 600"
    pod = {
        "inside": {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}],
    }
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    here.make({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "shared"}, "spec": claim})
    here.make(job("train", script, pod=pod, podFailurePolicy={"rules": [rule]}, backoffLimit=0))
    first = here.says("up", "train")
    node = first["spec"]["nodeName"]
    here.cluster.control.lose_node(node)
    assert here.over("Job", "train") == ("Complete", "CompletionsReached")
    assert here.cluster.objects.get("Node", None, node) is None
    assert here.cluster.objects.get("Pod", "default", first["metadata"]["name"]) is None
    assert [reason for reason, _ in here.events(node)] == ["NodeNotReady", "DeletingNode"]


def test_pods_wait_with_the_reasons_of_a_real_cluster(here: Acting) -> None:
    objects = here.cluster.objects
    here.make(job("big", "true", pod={"inside": {"resources": {"limits": {"nvidia.com/gpu": 16}}}}))
    here.make(job("other", "true", pod={"nodeSelector": {"node.kubernetes.io/instance-type": "trn1.32xlarge"}}))
    here.cluster.control.around.absent.add("gone:*")
    here.make(job("absent", "true", pod={"inside": {"image": "gone:1"}}))
    ref = {"secretKeyRef": {"name": "later", "key": "token"}}
    here.make(job("secret", 'echo "$TOKEN"', pod={"inside": {"env": [{"name": "TOKEN", "valueFrom": ref}]}}))

    here.cluster.control.claims.unprovided.add("absent")
    size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    meta, claim = {"name": "disk"}, {**size, "storageClassName": "absent"}
    here.make({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim})
    disk = [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]
    here.make(job("disk", "true", pod={"volumes": disk}))

    def waiting(name: str) -> str:
        pod = here.pod_of(name)
        rows = (pod or {}).get("status", {}).get("containerStatuses") or ({},)
        return str((rows[0].get("state") or {}).get("waiting", {}).get("reason"))

    def unscheduled(name: str) -> str:
        pod = here.pod_of(name)
        found = condition(pod, "PodScheduled") if pod is not None else None
        return str((found or {}).get("message", "")).partition(" preemption:")[0]

    here.until(lambda: unscheduled("big") == "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    here.until(lambda: unscheduled("other").endswith("2 node(s) didn't match Pod's node affinity/selector."))
    here.until(lambda: "unbound immediate PersistentVolumeClaims" in unscheduled("disk"))
    here.until(lambda: waiting("absent") == "ImagePullBackOff")
    here.until(lambda: waiting("secret") == "CreateContainerConfigError")

    # each goes on once what it waits for is there
    here.cluster.control.around.absent.clear()
    meta = {"name": "later"}
    here.make({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"token": "now"}})
    here.cluster.control.add_nodes("trn1.32xlarge")
    for name in ("absent", "secret", "other"):
        assert here.over("Job", name)[0] == "Complete"
    pod = here.pod_of("secret")
    assert pod is not None
    assert here.log(pod) == ["now"]
    objects.delete("Job", "default", "big", propagation="Background")
    here.until(lambda: objects.get("Job", "default", "big") is None and here.pod_of("big") is None)


def test_containers_are_started_again_and_killed(here: Acting) -> None:
    script = (
        "n=$(ls /s | wc -l); echo start $n; touch /s/$n; [ $n = 2 ] && exit 0; [ $n = 0 ] && exit 1; exec sleep 600"
    )
    pod = {
        "restart": "OnFailure",
        "inside": {"volumeMounts": [{"name": "s", "mountPath": "/s"}]},
        "volumes": [{"name": "s", "emptyDir": {}}],
    }
    here.make(job("again", script, pod=pod))
    found = here.says("start 1", "again")
    assert here.log(found, previous=True) == ["start 0"]
    here.cluster.control.kill_pod("default", found["metadata"]["name"])
    assert here.over("Job", "again")[0] == "Complete"
    status = here.get("Pod", found["metadata"]["name"])["status"]["containerStatuses"][0]
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 137
    assert here.log(found) == ["start 2"]


def test_jobs_are_suspended_limited_and_removed_in_time(here: Acting) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.05; done"
    here.make(job("held", script, ttlSecondsAfterFinished=60))
    first = here.says("up", "held")

    def change(**spec: object) -> None:
        here.cluster.objects.update("Job", "default", "held", lambda thing: thing["spec"].update(spec))

    change(suspend=True)
    here.until(lambda: holds(here.get("Job", "held"), "Suspended") and not here.pods())
    change(suspend=False)
    here.says("up", "held", after=first)
    change(activeDeadlineSeconds=1)
    assert here.over("Job", "held") == ("Failed", "DeadlineExceeded")
    here.until(lambda: here.cluster.objects.get("Job", "default", "held") is None)


def test_a_container_that_takes_too_much_memory_is_killed(here: Acting) -> None:
    # who asks for it is a child, and all of the container ends
    script = "python3 -c 'x = bytearray(300 << 20); import time; time.sleep(600)'; sleep 600"
    here.make(job("fat", script, backoffLimit=0, pod={"inside": {"resources": {"limits": {"memory": "100Mi"}}}}))
    assert here.over("Job", "fat") == ("Failed", "BackoffLimitExceeded")
    (pod,) = here.pods()
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
