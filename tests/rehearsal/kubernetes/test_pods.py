"""Pods of a rehearsed cluster by themselves: several containers, ends that are asked for, faults of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal.faults import event, node_dies
from cloudtune.rehearsal.kubernetes.conditions import condition, holds
from cloudtune.rehearsal.kubernetes.pod_run import EVICTED, KILLED, NODE_LOST, PREEMPTED
from cloudtune.rehearsal.kubernetes.timing import Timing
from tests.rehearsal.kubernetes.acting import SPEED, Acting, acting, container, job

pytestmark = pytest.mark.usefixtures("namespaces")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as found:
        yield found


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    body = {"restartPolicy": "Never", "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def phase(here: Acting, name: str) -> str:
    return str(here.get("Pod", name).get("status", {}).get("phase"))


def states(here: Acting, name: str, kind: str = "containerStatuses") -> dict[str, dict[str, Any]]:
    rows = here.get("Pod", name).get("status", {}).get(kind) or ()
    return {row["name"]: row["state"] for row in rows}


def test_containers_share_what_belongs_to_the_pod(here: Acting) -> None:
    mount = [{"name": "shared", "mountPath": "/shared"}]
    wait = "until [ -e /shared/FILE ]; do sleep 0.05; done; "
    side = container(
        "touch /shared/side; trap 'exit 0' TERM; while true; do sleep 0.05; done", name="side", volumeMounts=mount
    )
    first = container(wait.replace("FILE", "side") + "touch /shared/first", name="first", volumeMounts=mount)
    one = container(wait.replace("FILE", "first") + "hostname > /shared/one", name="one", volumeMounts=mount)
    two = container(wait.replace("FILE", "one") + "cat /shared/one; exit 3", name="two", volumeMounts=mount)
    inits = [{**side, "restartPolicy": "Always"}, first]
    here.make(pod("several", one, two, initContainers=inits, volumes=[{"name": "shared", "emptyDir": {}}]))
    here.until(lambda: phase(here, "several") == "Failed")
    assert here.log(here.get("Pod", "several"), "two") == ["several"]
    assert {name: state["terminated"]["exitCode"] for name, state in states(here, "several").items()} == {
        "one": 0,
        "two": 3,
    }
    # the one beside them was ended with them
    assert all("terminated" in state for state in states(here, "several", "initContainerStatuses").values())


def test_what_crashes_again_and_again_is_backed_off(here: Acting) -> None:
    here.make(pod("crash", container("echo no; exit 1"), restartPolicy="Always"))
    here.until(lambda: states(here, "crash").get("pytorch", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff")
    (status,) = here.get("Pod", "crash")["status"]["containerStatuses"]
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert phase(here, "crash") == "Running"
    assert any(reason == "BackOff" for reason, _ in here.events("crash"))


def test_a_deleted_pod_has_its_grace(tmp_path: Path) -> None:
    # seconds of its own time are this machine's, so that it has all of them
    with acting(tmp_path, timing=Timing(second_s=SPEED)) as here:
        check_grace(here)


def check_grace(here: Acting) -> None:
    script = "trap 'echo bye > /claim/said; exit 0' TERM; echo up; while true; do sleep 0.05; done"
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    here.make({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim"}, "spec": claim})
    volumes = [{"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}}]
    here.make(
        pod("polite", container(script, volumeMounts=[{"name": "claim", "mountPath": "/claim"}]), volumes=volumes)
    )
    here.make(pod("rude", container("trap '' TERM; echo up; while true; do sleep 0.05; done")))
    for name in ("polite", "rude"):
        here.until(lambda name=name: "up" in here.log(here.get("Pod", name)))
        here.cluster.objects.delete("Pod", "default", name, grace_s=0 if name == "rude" else None)
        here.until(lambda name=name: here.cluster.objects.get("Pod", "default", name) is None)
    said = here.cluster.control.kubelet.folders.claim("default", "claim") / "said"
    assert said.read_text() == "bye\n"
    here.until(lambda: not here.cluster.stage.nodes.running())


def test_a_pod_that_ends_leaves_the_next_of_its_name_alone(tmp_path: Path) -> None:
    with acting(tmp_path, timing=Timing(second_s=SPEED)) as here:
        here.make(pod("same", container("trap '' TERM; echo up; while true; do sleep 0.05; done")))
        first = here.get("Pod", "same")
        here.until(lambda: "up" in here.log(first))
        run = here.cluster.control.kubelet.run_of("default", "same")
        assert run is not None
        here.cluster.objects.delete("Pod", "default", "same")
        here.until(lambda: any(reason == "Killing" for reason, _ in here.events("same")))
        # somebody loses patience, and its controller makes it anew at once
        here.cluster.objects.delete("Pod", "default", "same", grace_s=0)
        here.make(pod("same", container("echo again; exec sleep 600")))
        here.until(run.over.is_set)
        here.until(lambda: "again" in here.log(here.get("Pod", "same")))


ASKS = """
import os, ssl, urllib.request
place = "/var/run/secrets/kubernetes.io/serviceaccount/"
url = "https://{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format(**os.environ)
headers = {"Authorization": "Bearer " + open(place + "token").read()}
asked = urllib.request.Request(url + "/api/v1/namespaces/default/pods/asks", headers=headers)
with urllib.request.urlopen(asked, context=ssl.create_default_context(cafile=place + "ca.crt")) as answer:
    print(answer.status, open(place + "namespace").read())
"""


def test_a_pod_asks_the_cluster_as_its_account(here: Acting) -> None:
    here.make(pod("asks", {"name": "pytorch", "image": "img:1", "command": ["python3", "-I", "-S", "-c", ASKS]}))
    quiet = container("ls /var/run/secrets/kubernetes.io")
    here.make(pod("quiet", quiet, automountServiceAccountToken=False))
    here.until(lambda: phase(here, "asks") in ("Succeeded", "Failed") and phase(here, "quiet") == "Failed")
    assert here.log(here.get("Pod", "asks")) == ["200 default"]


def test_a_pod_that_is_limited_in_time_ends_as_such(here: Acting) -> None:
    here.make(pod("late", container("exec sleep 600"), activeDeadlineSeconds=10))
    here.until(lambda: phase(here, "late") == "Failed")
    assert here.get("Pod", "late")["status"]["reason"] == "DeadlineExceeded"


def test_an_image_without_a_command_is_told(here: Acting) -> None:
    here.make(pod("bare", {"name": "pytorch", "image": "img:1"}))
    told = here.until(lambda: states(here, "bare").get("pytorch", {}).get("waiting", {}).get("message"))
    assert "set the container's command" in told


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (EVICTED, "TerminationByKubelet"),
        (PREEMPTED, "PreemptionByScheduler"),
        (NODE_LOST, "DeletionByPodGC"),
        (KILLED, None),
        ("node dies", None),
    ],
)
def test_faults_of_a_plan_meet_pods_by_their_names(tmp_path: Path, kind: str, why: str | None) -> None:
    fault = node_dies("train-0", after_lines=2) if kind == "node dies" else event(kind, "train-0", after_lines=2)
    with acting(tmp_path, faults=[fault]) as here:
        script = (
            "for n in 1 2 3 4; do echo $n; sleep 0.1; done; [ -e /host/been ] || { touch /host/been; exec sleep 600; }"
        )
        body = {
            "inside": {"volumeMounts": [{"name": "claim", "mountPath": "/host"}]},
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}}],
        }
        size = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        here.make({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim"}, "spec": size})
        # the second pod finds that the first has been
        (here.cluster.control.kubelet.folders.claim("default", "claim") / "been").touch()
        ignored = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        here.make(job("train", script, pod=body, backoffLimit=3, podFailurePolicy={"rules": ignored}))
        seen: dict[str, str] = {}

        def over() -> bool:
            for one in here.pods():
                found = condition(one, "DisruptionTarget")
                if found is not None:
                    seen[one["metadata"]["uid"]] = found["reason"]
            return holds(here.get("Job", "train"), "Complete")

        here.until(over)
        assert here.get("Job", "train")["status"].get("failed", 0) == (0 if why else 1)
        if kind == EVICTED:
            assert list(seen.values()) == [why]
        assert [one.fault.kind for one in here.cluster.stage.faults.fired] == [kind]
