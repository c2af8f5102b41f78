"""The API server of a rehearsed cluster: the official Python client, and requests by hand for what it hides."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune.rehearsal.faults import cut, event
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes.api import HISTORY_CUT
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.rehearsal.nodes import Line
from cloudtune.rehearsal.stage import Stage

pytest.importorskip("kubernetes", reason="the Python client of Kubernetes is not installed")
MERGE = "application/merge-patch+json"
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
TEMPLATE = {"spec": {"restartPolicy": "Never", "containers": [{"name": "m", "image": "i"}]}}


@attrs.frozen(kw_only=True)
class Answer:
    status: int
    body: Any
    headers: Any


@attrs.frozen
class Api:
    """A cluster in which nothing happens by itself, and requests to it."""

    cluster: Cluster
    pool: Any

    def __call__(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", accept: str = "*/*"
    ) -> Answer:
        got = self._request(method, path, body, kind, accept)
        text = got.data.decode()
        is_json = "json" in got.headers.get("content-type", "") and "watch=1" not in path
        return Answer(status=got.status, body=json.loads(text) if is_json else text, headers=got.headers)

    def stream(self, path: str) -> Any:
        """Return an answer that is read as it comes."""
        return self._request("GET", path, None, "", "*/*", preload_content=False)

    def _request(self, method: str, path: str, body: Any, kind: str, accept: str, **more: Any) -> Any:
        token = self.cluster.access.token("tester")
        headers = {"authorization": f"Bearer {token}", "accept": accept, "content-type": kind}
        data = None if body is None else json.dumps(body)
        url = f"{self.cluster.url}{path}"
        return self.pool.request(method, url, body=data, headers=headers, retries=False, timeout=60, **more)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    import urllib3

    with Identity() as identity, Stage(tmp_path / "cluster") as stage:
        cluster = Cluster(stage, identity, acts=False)
        pool = urllib3.PoolManager(ca_cert_data=cluster.certificate.pem.decode())
        with identity.applied(cluster.environment()):
            yield Api(cluster, pool)
        pool.clear()
    assert stage.errors == ()


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}


def job(name: str) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": TEMPLATE}}


def reason(answer: Answer) -> tuple[int, str]:
    assert answer.body["kind"] == "Status", answer
    return answer.status, answer.body["reason"]


def test_the_official_client_finds_what_it_expects(api: Api) -> None:
    from kubernetes import client, config, watch
    from kubernetes.client.exceptions import ApiException

    with config.new_client_from_config(config_file=str(api.cluster.identity.home / ".kube/config")) as connection:
        batch, core, custom = (
            client.BatchV1Api(connection),
            client.CoreV1Api(connection),
            client.CustomObjectsApi(connection),
        )
        made = batch.create_namespaced_job("default", job("one"))
        assert made.spec.backoff_limit == 6
        with pytest.raises(ApiException) as taken:
            batch.create_namespaced_job("default", job("one"))
        assert (taken.value.status, json.loads(taken.value.body)["reason"]) == (409, "AlreadyExists")
        batch.patch_namespaced_job("one", "default", {"spec": {"suspend": True}})
        assert batch.read_namespaced_job("one", "default").spec.suspend
        assert [one.metadata.name for one in batch.list_namespaced_job("default").items] == ["one"]
        where = ("kubeflow.org", "v1", "default", "pytorchjobs")
        replicas = {"Worker": {"template": {"spec": {"containers": [{"name": "pytorch", "image": "i"}]}}}}
        body = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "p"}}
        got = custom.create_namespaced_custom_object(*where, {**body, "spec": {"pytorchReplicaSpecs": replicas}})
        assert got["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 1
        assert custom.get_namespaced_custom_object(*where, "p")["metadata"]["uid"] == got["metadata"]["uid"]
        core.create_namespaced_config_map("default", config_map("seen"))
        follower = watch.Watch()
        told = next(follower.stream(core.list_namespaced_config_map, "default", timeout_seconds=60))
        follower.stop()
        assert (told["type"], told["object"].metadata.name) == ("ADDED", "seen")
        batch.delete_namespaced_job("one", "default", propagation_policy="Background")
        with pytest.raises(ApiException) as gone:
            batch.read_namespaced_job("one", "default")
        assert gone.value.status == 404


def test_refusals_have_a_status_with_a_reason(api: Api) -> None:
    assert reason(api("GET", f"{MAPS}/x")) == (404, "NotFound")
    assert reason(api("GET", "/apis/none.org/v1/things")) == (404, "NotFound")
    assert reason(api("POST", MAPS, job("x"))) == (400, "BadRequest")
    assert reason(api("POST", MAPS, [1])) == (400, "BadRequest")
    assert reason(api("PATCH", f"{MAPS}/x", {}, kind="text/plain")) == (415, "UnsupportedMediaType")
    assert reason(api("GET", f"{PODS}?fieldSelector=spec.odd=1")) == (400, "BadRequest")
    assert reason(api("GET", f"{PODS}?labelSelector=a,,b")) == (400, "BadRequest")
    bad = api("POST", JOBS, {**job("x"), "spec": {"template": TEMPLATE, "completionMode": "odd", "parallelism": -1}})
    assert reason(bad) == (422, "Invalid")
    assert {one["field"] for one in bad.body["details"]["causes"]} == {"spec.completionMode", "spec.parallelism"}


def test_unknown_fields_are_refused_warned_of_or_dropped(api: Api) -> None:
    given = {**job("x"), "spec": {"template": TEMPLATE, "odd": 1}}
    assert reason(api("POST", f"{JOBS}?fieldValidation=Strict", given)) == (400, "BadRequest")
    warned = api("POST", f"{JOBS}?dryRun=All", given)
    assert warned.headers["warning"] == '299 - "unknown field \\"spec.odd\\""'
    assert "odd" not in warned.body["spec"]
    assert "warning" not in api("POST", f"{JOBS}?fieldValidation=Ignore", given).headers


def test_whoever_comes_second_is_told_so(api: Api) -> None:
    first = api("POST", MAPS, config_map("c")).body
    api("PATCH", f"{MAPS}/c", {"data": {"a": "b"}}, kind=MERGE)
    assert reason(api("PUT", f"{MAPS}/c", {**first, "data": {"x": "y"}})) == (409, "Conflict")
    patch = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"x": "y"}}
    assert reason(api("PATCH", f"{MAPS}/c", patch, kind=MERGE)) == (409, "Conflict")
    assert reason(api("DELETE", f"{MAPS}/c", {"preconditions": {"uid": "other"}})) == (409, "Conflict")


def test_the_status_is_a_part_of_its_own(api: Api) -> None:
    api("POST", JOBS, job("j"))
    patch = {"status": {"active": 1}, "spec": {"suspend": True}}
    assert api("PATCH", f"{JOBS}/j/status", patch, kind=MERGE).body["status"] == {"active": 1}
    assert not api("GET", f"{JOBS}/j").body["spec"]["suspend"]
    changed = api("PATCH", f"{JOBS}/j", {**patch, "status": {"active": 7}}, kind=MERGE).body
    assert (changed["spec"]["suspend"], changed["status"], changed["metadata"]["generation"]) == (
        True,
        {"active": 1},
        2,
    )


def test_pods_of_a_job_live_on_unless_one_says_otherwise(api: Api) -> None:
    uid = api("POST", JOBS, job("j")).body["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid}
    meta = {"name": "p", "ownerReferences": [owner]}
    api("POST", PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": TEMPLATE["spec"]})
    gone = api("DELETE", f"{JOBS}/j")
    assert "child pods are preserved by default" in gone.headers["warning"]
    assert api("GET", f"{PODS}/p").body["metadata"]["ownerReferences"] == []


def test_lists_are_selected_and_paged(api: Api) -> None:
    for number in range(5):
        api("POST", MAPS, config_map(f"c{number}", odd=str(number % 2), tier="a" if number else "b"))

    def names(query: str) -> list[str]:
        return [one["metadata"]["name"] for one in api("GET", f"{MAPS}?{query}").body["items"]]

    assert names("labelSelector=odd=1") == ["c1", "c3"]
    assert names("labelSelector=odd in (0),tier!=b") == ["c2", "c4"]
    assert names("labelSelector=!missing,tier notin (a)") == ["c0"]
    assert names("fieldSelector=metadata.name=c4") == ["c4"]
    page = api("GET", f"{MAPS}?limit=2").body
    assert (len(page["items"]), page["metadata"]["remainingItemCount"]) == (2, 3)
    rest = names(f"limit=9&continue={page['metadata']['continue']}")
    assert rest == ["c2", "c3", "c4"]
    api("POST", MAPS, config_map("d"))
    api.cluster.stage.faults.add(event(HISTORY_CUT, "list_configmaps", numbers=()))
    assert reason(api("GET", f"{MAPS}?limit=9&continue={page['metadata']['continue']}")) == (410, "Expired")
    deleted = api("DELETE", f"{MAPS}?labelSelector=odd=1")
    assert [one["metadata"]["name"] for one in deleted.body["items"]] == ["c1", "c3"]
    assert names("") == ["c0", "c2", "c4", "d"]


def lines(text: str) -> list[tuple[str, str]]:
    told = [json.loads(line) for line in text.splitlines()]
    return [
        (one["type"], one["object"].get("metadata", {}).get("name") or str(one["object"].get("code"))) for one in told
    ]


def test_a_watch_goes_on_where_a_list_was(api: Api) -> None:
    api("POST", MAPS, config_map("before"))
    version = api("GET", MAPS).body["metadata"]["resourceVersion"]
    api("POST", MAPS, config_map("c", shown="no"))
    api("PATCH", f"{MAPS}/c", {"metadata": {"labels": {"shown": "yes"}}}, kind=MERGE)
    api("PATCH", f"{MAPS}/c", {"data": {"a": "b"}}, kind=MERGE)
    api("PATCH", f"{MAPS}/c", {"metadata": {"labels": {"shown": "no"}}}, kind=MERGE)
    api("DELETE", f"{MAPS}/c")
    query = f"{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version}"
    assert lines(api("GET", query).body) == [("ADDED", "c"), *[("MODIFIED", "c")] * 3, ("DELETED", "c")]
    chosen = lines(api("GET", f"{query}&labelSelector=shown=yes&allowWatchBookmarks=true").body)
    assert chosen[:3] == [("ADDED", "c"), ("MODIFIED", "c"), ("DELETED", "c")]
    assert chosen[3][0] == "BOOKMARK"
    assert lines(api("GET", f"{MAPS}?watch=1&timeoutSeconds=1").body) == [("ADDED", "before")]
    api.cluster.objects.forget_changes()
    assert lines(api("GET", query).body) == [("ERROR", "410")]


def test_a_watch_tells_what_happens_while_it_lasts(api: Api) -> None:
    import urllib3

    response = api.stream(f"{MAPS}?watch=1&resourceVersion={api.cluster.objects.version}")
    threading.Timer(0.1, api.cluster.objects.create, [config_map("late")]).start()
    assert lines(response.read1().decode()) == [("ADDED", "late")]
    response.close()
    api.cluster.stage.faults.add(cut("kubernetes", "watch_configmaps", numbers=(2,)))
    response = api.stream(f"{MAPS}?watch=1")
    with pytest.raises((urllib3.exceptions.HTTPError, OSError)):
        list(iter(response.read1, b""))
    response.close()


def a_pod(api: Api, *containers: str) -> Any:
    """Make a pod on a node, and return the beginning of its containers' logs."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    api.cluster.objects.create(node)
    rows = [{"name": name, "image": "i"} for name in containers]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": rows}}
    uid = api.cluster.objects.create(pod)["metadata"]["uid"]
    return lambda name: api.cluster.logs.begin(uid, name)


def said(*rows: tuple[float, str]) -> tuple[Line, ...]:
    return tuple(Line(node="n", time_s=at, stream="stdout", text=text) for at, text in rows)


def test_logs_are_read_in_all_ways(api: Api) -> None:
    log = f"{PODS}/p/log"
    begin = a_pod(api, "m")
    waiting = {"name": "m", "state": {"waiting": {"reason": "ContainerCreating"}}}
    status = {"containerStatuses": [waiting]}
    api.cluster.objects.update_status("Pod", "default", "p", lambda it: it.update(status=status))
    assert 'container "m" in pod "p" is waiting to start: ContainerCreating' in api("GET", log).body["message"]
    first = begin("m")
    now = int(time.time())
    first.append(said((now - 9000.0, "old"), (now + 0.25, "one"), (now + 0.75, "two")))
    assert api("GET", log).body == "old\none\ntwo\n"
    assert api("GET", f"{log}?tailLines=1").body == "two\n"
    assert api("GET", f"{log}?limitBytes=5").body == "old\no"
    assert api("GET", f"{log}?sinceSeconds=5000").body == "one\ntwo\n"
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    # the server takes whole seconds alone: what is asked for from the middle of one comes from its beginning
    assert api("GET", f"{log}?sinceTime={moment}.500000000Z").body == "one\ntwo\n"
    assert re.fullmatch(rf"{moment}\.75\d{{7}}Z two\n", api("GET", f"{log}?timestamps=true&tailLines=1").body)
    assert reason(api("GET", f"{log}?sinceTime={moment}Z&sinceSeconds=1")) == (400, "BadRequest")
    assert reason(api("GET", f"{log}?sinceTime=now")) == (400, "BadRequest")
    assert reason(api("GET", f"{log}?container=x")) == (400, "BadRequest")
    assert reason(api("GET", f"{log}?previous=true")) == (400, "BadRequest")
    first.close()
    second = begin("m")
    assert api("GET", f"{log}?previous=true").body == "old\none\ntwo\n"
    response = api.stream(f"{log}?follow=true&timestamps=true")
    second.append(said((now + 1.0, "again")))
    assert response.read1().decode().endswith(" again\n")
    second.append(said((now + 2.0, "last")))
    second.close()
    assert b"".join(iter(lambda: response.read1() or b"", b"")).decode().endswith(" last\n")


def test_one_of_several_containers_must_be_named(api: Api) -> None:
    begin = a_pod(api, "a", "b")
    begin("b").append(said((1.0, "hello")))
    assert "choose one of: [a b]" in api("GET", f"{PODS}/p/log").body["message"]
    assert api("GET", f"{PODS}/p/log?container=b").body == "hello\n"


def test_an_evicted_pod_is_told_why(api: Api) -> None:
    a_pod(api, "m")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    assert api("POST", f"{PODS}/p/eviction", eviction).status == 201
    pod = api("GET", f"{PODS}/p").body
    assert pod["status"]["conditions"][-1]["reason"] == "EvictionByEvictionAPI"
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 30


def test_the_table_of_fields_is_that_of_the_client() -> None:
    """The table is made by a tool from the models of one release; another release may know more."""
    import kubernetes

    root = Path(__file__).resolve().parents[3]
    there = (root / "cloudtune/rehearsal/kubernetes/fields.json").read_text()
    if f"kubernetes {kubernetes.__version__}" not in there:
        pytest.skip(f"the table is of another release than {kubernetes.__version__}")
    tool = [sys.executable, str(root / "tools/kubernetes_fields.py")]
    assert subprocess.run(tool, capture_output=True, text=True, check=True).stdout == there
