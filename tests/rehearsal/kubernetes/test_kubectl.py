"""The stock ``kubectl`` against the stand-in: it knows nothing of cloudtune, and keeps the stand-in honest."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.rehearsal.stage import Stage

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
#: Seconds after which a command is taken to hang.
TIMEOUT_S = 120
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: hello}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: busybox, command: [sh, -c, "echo one; sleep 0.5; echo two"]}]
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Identity() as identity, Stage(tmp_path_factory.mktemp("cluster"), speed=100) as stage:
        made = Cluster(stage, identity)
        made.control.add_nodes("m5.xlarge")
        made.add_context("program", way="program", namespace="kube-public")
        yield made
    assert stage.errors == ()


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Run:
    environ = cluster.identity.environment(cluster.environment())

    def run(*argv: str, text: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["kubectl", *argv], env=environ, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def config_map(name: str, **data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def shown(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def test_a_job_from_apply_to_delete(kubectl: Run) -> None:
    assert kubectl("apply", "-f", "-", text=JOB).stdout == "job.batch/hello created\n"
    assert kubectl("apply", "-f", "-", text=JOB).stdout == "job.batch/hello unchanged\n"
    kubectl("wait", "--for=condition=complete", "job/hello", f"--timeout={TIMEOUT_S}s")
    assert "hello" in kubectl("get", "jobs").stdout
    (pod,) = shown(kubectl("get", "pods", "-l", "job-name=hello", "-o", "json"))["items"]
    name = pod["metadata"]["name"]
    assert kubectl("logs", "-f", "job/hello").stdout == "one\ntwo\n"
    assert kubectl("logs", name, "--tail=1", "--timestamps").stdout.endswith("Z two\n")
    assert kubectl("logs", name, "--limit-bytes=5").stdout == "one\nt"
    assert "previous terminated container" in kubectl("logs", name, "-p", code=1).stderr
    assert "Successfully assigned" in kubectl("describe", "pod", name).stdout
    assert "Created pod: " in kubectl("describe", "job", "hello").stdout
    assert name in kubectl("get", "events", "--field-selector", f"involvedObject.name={name}").stdout
    kubectl("delete", "job", "hello")
    kubectl("wait", "--for=delete", f"pod/{name}", f"--timeout={TIMEOUT_S}s")
    assert 'jobs.batch "hello" not found' in kubectl("get", "job", "hello", code=1).stderr


def test_what_is_wrong_is_said(kubectl: Run) -> None:
    said = kubectl("create", "-f", "-", text=JOB.replace("template:", "tempate:"), code=1).stderr
    assert 'unknown field "spec.tempate"' in said
    said = kubectl("create", "-f", "-", text=JOB.replace("Never", "Always"), code=1).stderr
    assert 'spec.template.spec.restartPolicy: Unsupported value: "Always"' in said
    assert (
        kubectl("create", "--dry-run=server", "-f", "-", text=JOB).stdout
        == "job.batch/hello created (server dry run)\n"
    )
    kubectl("get", "job", "hello", code=1)


def test_objects_are_changed_in_all_ways(kubectl: Run) -> None:
    kubectl("apply", "-f", "-", text=config_map("c", a="1"))
    kubectl("label", "configmap", "c", "team=blue")
    kubectl("annotate", "configmap", "c", "note=x")
    kubectl("patch", "configmap", "c", "--type=merge", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "configmap", "c", "--type=json", "-p", '[{"op":"remove","path":"/data/a"}]')
    kubectl("patch", "configmap", "c", "-p", '{"data":{"c":"3"}}')
    there = shown(kubectl("get", "configmap", "c", "-o", "json"))
    assert (there["data"], there["metadata"]["labels"]) == ({"b": "2", "c": "3"}, {"team": "blue"})
    there["data"]["d"] = "4"
    kubectl("replace", "-f", "-", text=json.dumps(there))
    assert "modified" in kubectl("replace", "-f", "-", text=json.dumps(there), code=1).stderr
    kubectl("apply", "--server-side", "-f", "-", text=config_map("c", e="5"))
    assert shown(kubectl("get", "configmap", "c", "-o", "json"))["data"] == {"b": "2", "c": "3", "d": "4", "e": "5"}
    kubectl("delete", "configmap", "-l", "team=blue")
    assert "configmap/c" not in kubectl("get", "configmap", "-o", "name").stdout


def test_what_comes_in_protobuf_is_taken_where_it_is_usual(kubectl: Run) -> None:
    kubectl("create", "namespace", "team")
    kubectl("create", "configmap", "p", "-n", "team", "--from-literal=a=1", "--from-literal=b=2")
    kubectl("create", "secret", "generic", "s", "-n", "team", "--from-literal=token=hunter2")
    assert shown(kubectl("get", "configmap", "p", "-n", "team", "-o", "json"))["data"] == {"a": "1", "b": "2"}
    secret = shown(kubectl("get", "secret", "s", "-n", "team", "-o", "json"))
    assert (secret["type"], secret["data"]) == ("Opaque", {"token": "aHVudGVyMg=="})
    said = kubectl("create", "deployment", "d", "--image=i", code=1).stderr
    assert "takes no Deployment in protobuf" in said


def test_rights_and_users(kubectl: Run, cluster: Cluster) -> None:
    assert kubectl("auth", "can-i", "create", "jobs").stdout == "yes\n"
    cluster.access.denied.add("create jobs.batch@default")
    try:
        assert kubectl("auth", "can-i", "create", "jobs", code=1).stdout == "no\n"
        assert kubectl("auth", "can-i", "create", "jobs", "-n", "kubeflow").stdout == "yes\n"
        said = kubectl("create", "-f", "-", text=JOB, code=1).stderr
        assert 'cannot create resource "jobs" in API group "batch" in the namespace "default"' in said
    finally:
        cluster.access.denied.clear()
    assert "program" in kubectl("--context=program", "auth", "whoami").stdout
    said = kubectl("--token=odd", "get", "pods", code=1).stderr
    assert "You must be logged in" in said or "provide credentials" in said


def test_kinds_are_discovered(kubectl: Run) -> None:
    kinds = kubectl("api-resources", "-o", "name").stdout.split()
    assert {"pods", "jobs.batch", "pytorchjobs.kubeflow.org", "jobsets.jobset.x-k8s.io"} <= set(kinds)
    assert "trainjobs.trainer.kubeflow.org" in kubectl("get", "crd").stdout
    assert "ip-10-0" in kubectl("get", "nodes").stdout
    assert "kube-system" in kubectl("get", "ns").stdout
    assert "the server doesn't have a resource type" in kubectl("get", "nothings", code=1).stderr


def test_what_is_followed_is_told(kubectl: Run, cluster: Cluster) -> None:
    environ = cluster.identity.environment(cluster.environment())
    argv = ["kubectl", "get", "configmaps", "-w", "--no-headers", "-o", "name", f"--request-timeout={TIMEOUT_S}s"]
    watching = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert watching.stdout is not None
        kubectl("apply", "-f", "-", text=config_map("watched"))
        assert "configmap/watched\n" in watching.stdout, "the watch ended"
    finally:
        watching.kill()
        watching.communicate()
