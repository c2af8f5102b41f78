"""JobSets, PyTorchJobs, TrainJobs and queues of a rehearsed cluster, as their operators lead them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal.kubernetes.conditions import condition, holds
from tests.rehearsal.kubernetes.acting import Acting, acting, job, template

pytestmark = pytest.mark.usefixtures("namespaces")

JOBSET = "jobset.x-k8s.io/v1alpha2"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as found:
        yield found


def part(name: str, script: str, *, nodes: int = 1, **rest: Any) -> dict[str, Any]:
    spec = {"completions": nodes, "parallelism": nodes, "backoffLimit": 0, "template": template(script)}
    return {"name": name, "template": {"spec": spec}, **rest}


def test_a_jobset_is_a_chain_whose_pods_find_each_other(here: Acting) -> None:
    look = "until getent hosts chain-train-0-1.chain; do sleep 0.05; done"
    parts = [
        part("first", "sleep 1.1"),
        part("train", look, nodes=2, dependsOn=[{"name": "first", "status": "Complete"}]),
    ]
    here.make(
        {"apiVersion": JOBSET, "kind": "JobSet", "metadata": {"name": "chain"}, "spec": {"replicatedJobs": parts}}
    )
    assert here.over("JobSet", "chain") == ("Completed", "AllJobsCompleted")
    status = here.get("JobSet", "chain")["status"]
    assert status["terminalState"] == "Completed"
    assert [row["succeeded"] for row in status["replicatedJobsStatus"]] == [1, 1]
    made, before = here.get("Job", "chain-train-0")["metadata"], here.get("Job", "chain-first-0")["status"]
    assert made["creationTimestamp"] >= before["completionTime"]
    here.cluster.objects.delete("JobSet", "default", "chain", propagation="Foreground")
    here.until(lambda: here.cluster.objects.get("JobSet", "default", "chain") is None)
    assert here.pods() == []
    assert here.cluster.objects.get("Service", "default", "chain") is None


def test_a_suspended_jobset_keeps_its_order_when_it_goes_on(here: Acting) -> None:
    parts = [
        part("first", "true"),
        part("train", "true", dependsOn=[{"name": "first", "status": "Complete"}]),
    ]
    spec = {"suspend": True, "replicatedJobs": parts}
    here.make({"apiVersion": JOBSET, "kind": "JobSet", "metadata": {"name": "held"}, "spec": spec})
    here.until(lambda: here.cluster.objects.get("Job", "default", "held-first-0") is not None)
    assert here.get("Job", "held-first-0")["spec"]["suspend"] is True
    assert here.cluster.objects.get("Job", "default", "held-train-0") is None
    here.cluster.objects.update("JobSet", "default", "held", lambda it: it["spec"].update(suspend=False))
    assert here.over("JobSet", "held") == ("Completed", "AllJobsCompleted")
    made, before = here.get("Job", "held-train-0")["metadata"], here.get("Job", "held-first-0")["status"]
    assert made["creationTimestamp"] >= before["completionTime"]


def test_a_suspended_jobset_that_starts_in_order_does_so_when_it_goes_on(here: Acting) -> None:
    spec = {
        "suspend": True,
        "startupPolicy": {"startupPolicyOrder": "InOrder"},
        "replicatedJobs": [part("first", "true"), part("second", "true")],
    }
    # its first pods never become ready: no node has so much memory
    container = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"memory": "900Ti"}}
    here.make({"apiVersion": JOBSET, "kind": "JobSet", "metadata": {"name": "held"}, "spec": spec})
    here.until(lambda: here.cluster.objects.get("Job", "default", "held-second-0") is not None)
    here.cluster.objects.update("JobSet", "default", "held", lambda it: it["spec"].update(suspend=False))
    here.until(lambda: here.get("Job", "held-first-0")["spec"]["suspend"] is False)
    here.until(lambda: here.pods(**{"jobset.sigs.k8s.io/replicatedjob-name": "first"}))
    assert here.get("Job", "held-second-0")["spec"]["suspend"] is True


def test_a_jobset_begins_anew_as_often_as_its_policy_says(here: Acting) -> None:
    spec = {
        "failurePolicy": {"maxRestarts": 1},
        "replicatedJobs": [part("good", "sleep 600"), part("bad", "exit 1")],
    }
    here.make({"apiVersion": JOBSET, "kind": "JobSet", "metadata": {"name": "anew"}, "spec": spec})
    here.until(lambda: here.pods(**{"jobset.sigs.k8s.io/restart-attempt": "1"}))
    assert here.over("JobSet", "anew") == ("Failed", "ReachedMaxRestarts")
    assert here.get("JobSet", "anew")["status"]["restarts"] == 1
    # what still ran is ended
    here.until(lambda: here.cluster.objects.get("Job", "default", "anew-good-0") is None)


def replicas(script: str, restart: str, *, workers: int = 0) -> dict[str, Any]:
    """Return a master, and workers beside it."""
    pod = template(script)
    del pod["spec"]["restartPolicy"]
    counts = {"Master": 1, **({"Worker": workers} if workers else {})}
    return {role: {"replicas": count, "restartPolicy": restart, "template": pod} for role, count in counts.items()}


def pytorch(name: str, specs: dict[str, Any], **policy: Any) -> dict[str, Any]:
    spec = {"nprocPerNode": "4", "runPolicy": policy, "pytorchReplicaSpecs": specs}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": name}, "spec": spec}


def test_a_pytorchjob_tells_each_replica_its_rank(here: Acting) -> None:
    look = (
        "until getent hosts $MASTER_ADDR; do sleep 0.05; done; "
        'echo "rank $RANK $PET_NODE_RANK of $WORLD_SIZE in $PET_NNODES at $MASTER_ADDR $PET_NPROC_PER_NODE"; '
        "until getent hosts train-worker-0; do sleep 0.05; done"
    )
    here.make(pytorch("train", replicas(look, "Never", workers=1)))
    assert here.over("PyTorchJob", "train") == ("Succeeded", "PyTorchJobSucceeded")
    here.until(lambda: all(one["status"]["phase"] == "Succeeded" for one in here.pods()))
    told = {line for one in here.pods() for line in here.log(one) if line.startswith("rank")}
    assert told == {f"rank {rank} {rank} of 8 in 2 at train-master-0 4" for rank in (0, 1)}
    rows = here.get("PyTorchJob", "train")["status"]["conditions"]
    assert [(row["type"], row["status"]) for row in rows] == [
        ("Created", "True"),
        ("Running", "False"),
        ("Succeeded", "True"),
    ]


def test_a_pytorchjob_is_started_again_by_its_policy(here: Acting) -> None:
    script = "echo up; exec sleep 600"
    here.make(pytorch("signal", replicas(script, "ExitCode")))
    first = here.until(lambda: next((one for one in here.pods() if here.log(one)), None))
    here.cluster.control.kill_pod("default", "signal-master-0")

    def second() -> Any:
        return next((one for one in here.pods() if one["metadata"]["uid"] != first["metadata"]["uid"]), None)

    here.until(second)
    here.cluster.objects.delete("PyTorchJob", "default", "signal", propagation="Background")
    here.make(pytorch("bug", replicas("exit 1", "ExitCode")))
    assert here.over("PyTorchJob", "bug") == ("Failed", "PyTorchJobFailed")
    here.make(pytorch("crash", replicas("exit 1", "OnFailure"), backoffLimit=2))
    assert here.over("PyTorchJob", "crash") == ("Failed", "PyTorchJobFailed")
    said = condition(here.get("PyTorchJob", "crash"), "Failed")
    assert said is not None
    assert said["message"].endswith("reached the specified backoff limit")


def test_a_trainjob_becomes_a_jobset_with_torchs_variables(here: Acting) -> None:
    script = 'echo "$PET_NODE_RANK $PET_NNODES $PET_NPROC_PER_NODE $PET_MASTER_ADDR $MINE $(cat /fsx/it)"'
    runtime = {
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": "node",
                        "template": {
                            "spec": {
                                "template": {
                                    "metadata": {"labels": {"of": "mine"}},
                                    "spec": {
                                        "nodeSelector": {"kubernetes.io/os": "linux"},
                                        "volumes": [{"name": "fsx", "configMap": {"name": "it"}}],
                                        "containers": [
                                            {"name": "node", "volumeMounts": [{"name": "fsx", "mountPath": "/fsx"}]}
                                        ],
                                    },
                                }
                            }
                        },
                    }
                ]
            }
        }
    }
    trainer = {
        "numNodes": 2,
        "numProcPerNode": 8,
        "image": "img:1",
        "command": ["sh", "-c", script],
        "env": [{"name": "MINE", "value": "own"}],
        "resourcesPerNode": {"limits": {"nvidia.com/gpu": 8}},
    }
    spec = {
        "runtimeRef": {"name": "torch-distributed"},
        "trainer": trainer,
        "runtimePatches": [{"manager": "example.org/me", "trainingRuntimeSpec": runtime}],
    }
    here.make({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "it"}, "data": {"it": "there"}})
    api = "trainer.kubeflow.org/v1alpha1"
    here.make({"apiVersion": api, "kind": "TrainJob", "metadata": {"name": "train"}, "spec": spec})
    assert here.over("TrainJob", "train")[0] == "Complete"
    pods = here.pods(of="mine")
    assert sorted(here.log(one, "node")[0] for one in pods) == [
        f"{rank} 2 8 train-node-0-0.train own there" for rank in (0, 1)
    ]


def queue(here: Acting, gpus: int) -> None:
    resources = [{"name": "nvidia.com/gpu", "nominalQuota": gpus}]
    group = {"coveredResources": ["nvidia.com/gpu"], "flavors": [{"name": "p5", "resources": resources}]}
    cluster = {"namespaceSelector": {}, "resourceGroups": [group]}
    api = "kueue.x-k8s.io/v1beta2"
    here.make({"apiVersion": api, "kind": "ClusterQueue", "metadata": {"name": "all"}, "spec": cluster})
    meta, spec = {"name": "team"}, {"clusterQueue": "all"}
    here.make({"apiVersion": api, "kind": "LocalQueue", "metadata": meta, "spec": spec})


def test_a_queue_holds_jobs_back_until_there_is_room(here: Acting) -> None:
    queue(here, 8)
    kueue = here.cluster.control.kueue
    kueue.held["team"] = ("Pending", "it is night")

    def waits() -> str:
        for workload in here.cluster.objects.list("Workload"):
            found = condition(workload, "QuotaReserved")
            if found is not None and found["status"] == "False":
                return str(found["message"])
        return ""

    pod = {"inside": {"resources": {"limits": {"nvidia.com/gpu": 8}}}}
    for name in ("one", "two"):
        manifest = job(name, "echo up; exec sleep 600", pod=pod)
        manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team"}
        assert here.make(manifest)["spec"]["suspend"] is True
        if name == "one":
            here.until(lambda: waits() == "it is night")
            del kueue.held["team"]
            here.says("up", "one")

    words = "insufficient unused quota for nvidia.com/gpu in flavor p5, 8 more needed"
    assert here.until(waits) == f"couldn't assign flavors to pod set main: {words}"
    here.until(lambda: holds(here.get("Job", "two"), "Suspended"))
    # whoever is deactivated gives its place to the next
    (first,) = [one for one in here.cluster.objects.list("Workload") if holds(one, "Admitted")]
    name = first["metadata"]["name"]
    here.cluster.objects.update("Workload", "default", name, lambda thing: thing["spec"].update(active=False))
    first = here.says("up", "two")
    here.until(lambda: here.pod_of("one") is None)
    # what is taken back waits again, and there is room
    kueue.evict("default", "Job", "two")
    here.says("up", "two", after=first)
