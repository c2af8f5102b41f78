"""The client of clusters: against the stand-in over TLS, with faults on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune.errors import (
    CloudtuneError,
    NoCapacity,
    NotAllowed,
    RunNotFound,
    ServiceError,
    UsageError,
)
from cloudtune.plan import Call, File, Plan, Ref, Step
from cloudtune.rehearsal.faults import cut, event, lost, refused
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes.api import HISTORY_CUT, TOKENS_END
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.stage import Stage

pytest.importorskip("kubernetes", reason="the Python client of Kubernetes is not installed")
pytest.importorskip("botocore", reason="the AWS SDK is not installed")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster in which nothing happens by itself; this process is its user."""
    with Identity() as identity, Stage(tmp_path / "cluster") as stage:
        made = Cluster(stage, identity, acts=False)
        with identity.applied(made.environment()):
            yield made
    assert stage.errors == ()


@pytest.fixture
def client(cluster: Cluster) -> Any:
    from cloudtune.clients.kubernetes import KubernetesClient

    return KubernetesClient()


def call(operation: str, scope: str = "", **parameters: Any) -> Call:
    return Call(service="kubernetes", operation=operation, parameters=parameters, region=scope or None)


def create(name: str = "c", **more: Any) -> Call:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, **more}
    return call("create", **manifest)


def about(operation: str, name: str = "c", kind: str = "ConfigMap", api: str = "v1", **more: Any) -> Call:
    return call(operation, apiVersion=api, kind=kind, namespace="default", name=name, **more)


def raised(deed: Any, *arguments: Any, **named: Any) -> CloudtuneError:
    with pytest.raises(CloudtuneError) as error:
        deed(*arguments, **named)
    return error.value


def count(cluster: Cluster, operation: str) -> int:
    return sum(one.operation == operation for one in cluster.stage.record.calls)


def test_an_object_is_made_once_by_its_token(client: Any, cluster: Cluster) -> None:
    first = client.send(create(data={"a": "b"}), token="t1")
    assert client.send(create(data={"a": "b"}), token="t1")["metadata"]["uid"] == first["metadata"]["uid"]
    for token in ("t2", None):
        error = raised(client.send, create(), token=token)
        assert isinstance(error, ServiceError)
        assert not error.passing
    (there,) = cluster.objects.list("ConfigMap", "default")
    assert there["metadata"]["annotations"] == {"cloudtune.dev/token": "t1"}


def test_a_secret_is_made_once_though_it_may_not_be_read(client: Any, cluster: Cluster) -> None:
    cluster.access.denied.add("get secrets")
    cluster.stage.faults.add(lost("kubernetes", "create_secrets"))
    meta = {"name": "tune-r4nd0m", "namespace": "default", "labels": {"cloudtune.dev/run-id": "r4nd0m"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"A": "b"}}
    assert client.send(call("create", **secret), token="t")["metadata"]["name"] == "tune-r4nd0m"
    other = {**secret, "metadata": {**meta, "labels": {}}}
    assert isinstance(raised(client.send, call("create", **other), token="t"), NotAllowed)


@pytest.mark.parametrize("fault", [lost, cut])
def test_a_lost_reply_is_asked_for_again(client: Any, cluster: Cluster, fault: Any) -> None:
    cluster.stage.faults.add(fault("kubernetes", "create_configmaps"))
    assert client.send(create(), token="t")["metadata"]["name"] == "c"
    assert count(cluster, "create_configmaps") == 2
    assert len(cluster.objects.list("ConfigMap", "default")) == 1


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_what_passes_is_tried_again(client: Any, cluster: Cluster, status: int) -> None:
    fault = refused("kubernetes", "list_configmaps", status=status, headers=(("retry-after", "1"),), numbers=(1, 2))
    cluster.stage.faults.add(fault)
    assert client.read(call("list", apiVersion="v1", kind="ConfigMap", namespace="default"))["items"] == []
    cluster.stage.faults.add(refused("kubernetes", "get_configmaps", status=status, numbers=()))
    error = raised(client.read, about("get"))
    assert isinstance(error, ServiceError)
    assert error.passing
    assert count(cluster, "get_configmaps") == 6


def test_a_hasty_client_tries_once(cluster: Cluster) -> None:
    from cloudtune.clients.kubernetes import KubernetesClient

    cluster.stage.faults.add(refused("kubernetes", "get_configmaps", status=503, numbers=()))
    assert raised(KubernetesClient(hasty=True).read, about("get")).passing
    assert count(cluster, "get_configmaps") == 1


def test_objects_are_read_changed_and_deleted(client: Any, cluster: Cluster) -> None:
    client.send(create(data={"a": "1"}), token="t")
    assert client.send(about("patch", patch={"data": {"b": "2", "a": None}}))["data"] == {"b": "2"}
    reply = client.read(about("get", cursor={"x": 1}))
    assert (reply["data"], reply["cursor"], reply["readAt"] > 0) == ({"b": "2"}, {"x": 1}, True)
    client.send(about("delete"))
    assert client.send(about("delete")) == {}
    assert client.read(about("get", absent=True))["absent"]
    assert isinstance(raised(client.read, about("get")), UsageError)
    assert isinstance(raised(client.read, about("get", "x", "Job", "batch/v1")), RunNotFound)
    assert isinstance(raised(client.read, about("get", "x", "Nothing")), UsageError)


def test_a_list_is_whole_however_long_it_is(client: Any, cluster: Cluster) -> None:
    for number in range(1201):
        name = {"name": f"c{number}", "labels": {"odd": str(number % 2)}}
        cluster.objects.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": name})
    listed = call("list", apiVersion="v1", kind="ConfigMap", namespace="default", labelSelector="odd=0")
    items = client.read(listed)["items"]
    assert len({one["metadata"]["name"] for one in items}) == 601
    assert {(one["apiVersion"], one["kind"]) for one in items} == {("v1", "ConfigMap")}
    assert count(cluster, "list_configmaps") == 2


def test_a_list_that_became_too_old_is_begun_anew(client: Any, cluster: Cluster) -> None:
    for number in range(501):
        cluster.objects.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}"}})
    cluster.stage.faults.add(refused("kubernetes", "list_configmaps", status=410, numbers=(2,)))
    assert len(client.read(call("list", apiVersion="v1", kind="ConfigMap"))["items"]) == 501


def test_many_reads_are_one(client: Any, cluster: Cluster) -> None:
    client.send(create(), token="t")
    each = [{"name": "c"}, {"name": "d"}]
    several = call("get", apiVersion="v1", kind="ConfigMap", namespace="default", each=each, absent=True)
    first, second = client.read(several)["replies"]
    assert (first["metadata"]["name"], second) == ("c", {"absent": True})


def test_what_is_refused_says_who_mends_it(client: Any, cluster: Cluster) -> None:
    cluster.access.denied |= {"create configmaps@default", "list workloads.kueue.x-k8s.io"}
    error = raised(client.send, create(), token="t")
    assert isinstance(error, NotAllowed)
    assert 'cannot create resource "configmaps" in API group "" in the namespace "default"' in str(error)
    assert "infrastructure/eks" in str(error)
    workloads = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "namespace": "default"}
    assert client.read(call("list", **workloads, optional=True))["absent"]
    assert isinstance(raised(client.read, call("list", **workloads)), NotAllowed)
    cluster.access.denied.clear()
    error = raised(client.send, call("create", **create().parameters, spec={"x": 1}), token="t")
    assert isinstance(error, UsageError)
    assert 'unknown field "spec"' in str(error)
    nowhere = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "nowhere"}}
    error = raised(client.send, call("create", **nowhere), token="t")
    assert 'namespaces "nowhere" not found' in str(error)

    def full(kind: Any, new: Any, old: Any) -> None:
        raise Refused(403, "Forbidden", 'configmaps "c" is forbidden: exceeded quota: team, requested: count=1')

    cluster.objects.admission = full
    assert isinstance(raised(client.send, create(), token="t"), NoCapacity)


def test_a_kind_that_is_not_served_is_named(tmp_path: Path) -> None:
    from cloudtune.clients.kubernetes import KubernetesClient

    with Identity() as identity, Stage(tmp_path) as stage:
        made = Cluster(stage, identity, acts=False, operators=())
        with identity.applied(made.environment()):
            job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "j"}, "spec": {}}
            error = raised(KubernetesClient().send, call("create", **job), token="t")
            assert "the cluster serves no PyTorchJob of kubeflow.org/v1" in str(error)
            found = KubernetesClient().read(call("discover", group="kubeflow.org", absent=True))
            assert found["absent"]
    assert stage.errors == ()


def test_the_cluster_is_asked_what_it_is_and_what_one_may(client: Any, cluster: Cluster) -> None:
    assert client.read(call("version"))["gitVersion"].startswith("v1.")
    versions = client.read(call("discover", group="kueue.x-k8s.io"))["versions"]
    assert [one["version"] for one in versions] == ["v1beta2", "v1beta1"]
    cluster.access.granted = {"create jobs.batch@team", "get pods/log"}
    asked = {"verb": "create", "group": "batch", "resource": "jobs"}
    assert client.read(call("review", **asked, namespace="team"))["allowed"]
    assert not client.read(call("review", **asked))["allowed"]
    log = {"verb": "get", "group": "", "resource": "pods", "subresource": "log", "namespace": "team"}
    assert client.read(call("review", **log))["allowed"]


def test_others_about_an_object_are_patched_by_its_uid(client: Any, cluster: Cluster) -> None:
    uid = client.send(create(), token="t")["metadata"]["uid"]
    for number in range(3):
        meta = {"name": f"d{number}", "labels": {"of": uid if number else "other"}}
        cluster.objects.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    of = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c"}
    patch = {"data": {"x": "y"}}
    given = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "default", "labelSelector": "of={uid}", "of": of}
    assert len(client.send(call("patch", **given, patch=patch))["items"]) == 2
    assert cluster.objects.get("ConfigMap", "default", "d0").get("data") is None


def step(name: str, **parameters: Any) -> Step:
    return Step(id=name, service="kubernetes", operation="create", parameters=parameters, token=name)


JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "j", "namespace": "default"},
    "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "m", "image": "i", "command": ["x"]}]}}
    },
}


def plan(job: dict[str, Any]) -> Plan:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": Ref("job", "metadata.uid")}
    files = (File(path="agent.pyz", bytes=5, sha256="-", content=b"agent"),)
    meta = {"name": "c", "namespace": "default", "ownerReferences": [owner]}
    parts = step("parts", apiVersion="v1", kind="ConfigMap", metadata=meta)
    return Plan(
        name="j",
        run_id="r",
        backend="eks",
        steps=(step("job", **job), attrs.evolve(parts, files=files)),
    )


def test_a_plan_is_tried_before_anything_is_made(client: Any, cluster: Cluster) -> None:
    client.make_ready(plan(JOB))
    assert cluster.objects.list("Job") == cluster.objects.list("ConfigMap", "default") == []
    assert count(cluster, "create_jobs") == count(cluster, "create_configmaps") == 1
    bad = {**JOB, "spec": {**JOB["spec"], "parallelism": -1}}
    error = raised(client.make_ready, plan(bad))
    assert "spec.parallelism: Invalid value: -1" in str(error)
    cluster.access.denied.add("create jobs.batch")  # who may not try may still be told so when it is sent
    client.make_ready(plan(JOB))


def pod(cluster: Cluster, name: str = "p", *, node: bool = True) -> Any:
    """Make a pod with a container that has said two lines."""
    where = {"nodeName": "n"} if node else {}
    spec = {"containers": [{"name": "m", "image": "i"}], **where}
    made = cluster.objects.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    if cluster.objects.get("Node", None, "n") is None:
        cluster.objects.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    return made


def test_logs_that_are_not_there_are_absent(client: Any, cluster: Cluster) -> None:
    waiting = {"name": "m", "state": {"waiting": {"reason": "ContainerCreating"}}}
    pod(cluster)
    cluster.objects.update_status("Pod", "default", "p", lambda it: it.update(status={"containerStatuses": [waiting]}))
    assert client.read(call("read_log", namespace="default", name="p"))["absent"]
    assert client.read(call("read_log", namespace="default", name="p", previous=True))["absent"]
    assert client.read(call("read_log", namespace="default", name="gone"))["absent"]
    pod(cluster, "q", node=False)
    assert client.read(call("read_log", namespace="default", name="q"))["text"] == ""
    unknown = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    cluster.objects.update_status("Node", None, "n", lambda it: it.update(status=unknown))
    assert client.read(call("read_log", namespace="default", name="p"))["absent"]
    assert count(cluster, "read_log") == 5, "a node that is lost was asked again"


def test_a_token_that_ended_is_not_taken_for_a_right_that_is_missing(client: Any, cluster: Cluster) -> None:
    client.read(call("version"))
    cluster.stage.faults.add(*(refused("kubernetes", "list_pods", status=401, numbers=()),))
    error = raised(client.read, call("list", apiVersion="v1", kind="Pod", namespace="default"))
    assert isinstance(error, NotAllowed)
    assert error.passing
    assert "kubectl config view --minify" in str(error)
    assert cluster.access.token("rehearsed") not in str(error)


def test_a_token_is_renewed_by_its_program(client: Any, cluster: Cluster) -> None:
    cluster.add_context("program", way="program")
    listed = call("list", "context:program", apiVersion="v1", kind="Pod", namespace="default")
    client.read(listed)
    assert count(cluster, "list_pods") == 1
    cluster.stage.clock.push(901)  # a quarter of an hour later
    client.read(listed)
    assert count(cluster, "list_pods") == 3
    cluster.stage.faults.add(
        event(TOKENS_END, "list_pods", numbers=(4,)), event(HISTORY_CUT, "list_pods", numbers=(3,))
    )
    client.read(listed)
    assert cluster.stage.faults.left() == ()


def test_two_users_at_once_are_two_users(client: Any, cluster: Cluster) -> None:
    cluster.add_context("other", user="somebody")
    names: dict[str, set[str]] = {"": set(), "context:other": set()}
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}

    def ask(scope: str) -> None:
        for _ in range(20):
            reply = client.send(call("create", scope, **review))
            names[scope].add(reply["status"]["userInfo"]["username"])

    threads = [threading.Thread(target=ask, args=(scope,)) for scope in names for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {"": {"rehearsed"}, "context:other": {"somebody"}}


def test_a_server_says_how_long_to_wait() -> None:
    from cloudtune.clients.kubernetes_errors import Refusal
    from cloudtune.clients.kubernetes_wire import _pause_s

    status = b'{"kind": "Status", "details": {"retryAfterSeconds": 7}}'
    assert Refusal(429, status, {}).after_s == 7
    assert Refusal(503, b"busy", {"retry-after": "3"}).after_s == 3
    assert Refusal(503, b"busy", {"retry-after": "tomorrow"}).after_s is None
    assert _pause_s(1, 7.0, here=False) == 7
    assert _pause_s(1, 3600.0, here=False) == 30
    assert 0.3 < _pause_s(1, None, here=False) < 0.7
    assert 2.5 < _pause_s(4, None, here=False) < 6


def test_no_message_has_the_value_of_a_secret(client: Any, cluster: Cluster) -> None:
    meta = {"name": "Bad_Name", "namespace": "default"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"bad key": "hunter2"}}
    assert "hunter2" not in str(raised(client.send, call("create", **secret), token="t"))
    secret["metadata"] = {"name": "c", "namespace": "default"}
    secret["data"] = {"A": "hunter2!"}
    assert "hunter2" not in str(raised(client.send, call("create", **secret), token="t"))
    assert "hunter2" not in cluster.stage.record.to_json_lines()


def test_nobody_is_told_to_sign_in() -> None:
    from cloudtune.clients.kubernetes_errors import Refusal, told

    message = 'jobs.batch is forbidden: User \\"system:anonymous\\" cannot create resource \\"jobs\\"'
    status = f'{{"kind": "Status", "reason": "Forbidden", "message": "{message}"}}'.encode()
    error = told(Refusal(403, status, {}), create(), None)
    assert isinstance(error, NotAllowed)
    assert error.policy is None
    assert "does not know you" in str(error)
