"""A client and a small cloud: what every real stand-in must be able to do, with the kernel alone."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest

from cloudtune.rehearsal import faults
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.stage import Stage
from tests.rehearsal.echo_cloud import OVER, EchoCloud

SCRIPT = 'echo "$ECHO_RANK of $(hostname)"\necho here > mine; sleep "${PAUSE:-0}"\n'


@attrs.frozen
class Client:
    """What talks to the cloud: it knows a URL and a token, and tries again as SDKs do."""

    url: str
    token: str

    def once(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {"authorization": f"Bearer {self.token}", **headers})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        for _ in range(3):
            try:
                status, data = self.once(method, path, body, **headers)
            except (http.client.HTTPException, ConnectionError):
                continue
            if status in (401, 429) or status >= 500:
                continue
            return json.loads(data)
        raise AssertionError(f"{method} {path} failed three times")

    def finished(self, job: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self("GET", f"/jobs/{job['id']}")
            if found["state"] in OVER:
                return dict(found)
            time.sleep(0.05)
        raise AssertionError("the job did not end")


@pytest.fixture
def identity() -> Iterator[Identity]:
    with Identity() as one:
        yield one


def clients(stage: Stage, identity: Identity) -> Client:
    stage.clock.speed = 200
    cloud = EchoCloud(stage, identity)
    return Client(cloud.url, cloud.token)


def test_a_job_runs_a_script_on_two_nodes(namespaces: None, stage: Stage, identity: Identity) -> None:
    call = clients(stage, identity)
    job = call("POST", "/jobs", {"script": SCRIPT})
    assert call.finished(job)["state"] == "SUCCEEDED"
    _, log = call.once("GET", f"/jobs/{job['id']}/log")
    assert sorted(log.decode().splitlines()) == ["node-0 0 of node-0", "node-1 1 of node-1"]
    folders = stage.folder / "jobs" / job["id"]
    assert [(folders / name / "work" / "mine").read_text() for name in ("node-0", "node-1")] == ["here\n"] * 2


def test_a_log_is_followed_while_it_is_written(namespaces: None, stage: Stage, identity: Identity) -> None:
    call = clients(stage, identity)
    job = call("POST", "/jobs", {"script": SCRIPT, "environment": {"PAUSE": "60"}})
    connection = http.client.HTTPConnection(urlsplit(call.url).netloc, timeout=30)
    connection.request("GET", f"/jobs/{job['id']}/log", headers={"authorization": f"Bearer {call.token}"})
    response = connection.getresponse()
    assert {response.readline(), response.readline()} == {b"node-0 0 of node-0\n", b"node-1 1 of node-1\n"}
    call("POST", f"/jobs/{job['id']}/cancel")
    assert response.read() == b""
    connection.close()
    assert call.finished(job)["state"] == "CANCELLED"


@pytest.mark.parametrize("kind", ["refused", "lost", "cut", "expired"])
def test_every_call_meets_a_fault_once_and_there_is_one_job(
    kind: str, namespaces: None, stage: Stage, identity: Identity
) -> None:
    words = {"refused": faults.refused("*", status=503), "lost": faults.lost("*"), "cut": faults.cut("*")}
    fault = words.get(kind, faults.expired("*"))
    operations = [("echo", "create_job"), ("echo", "get_job"), ("echo", "put_file")]
    stage.faults.add(*faults.each_once(operations, fault))
    call = clients(stage, identity)
    job = call("POST", "/jobs", {"script": SCRIPT}, **{"retry-token": "t"})
    assert call.finished(job)["state"] == "SUCCEEDED"
    assert len(stage.store.all("job")) == 1
    assert [fault.operation for fault in stage.faults.left()] == ["put_file"]
    recorded = [(each.operation, each.number, each.status) for each in stage.record.calls if each.faults == (kind,)]
    status = {"refused": 503, "expired": 401, "lost": 0, "cut": 201}[kind]
    assert recorded[0] == ("create_job", 1, status)


def test_no_capacity_and_a_dying_node_end_a_job(namespaces: None, stage: Stage, identity: Identity) -> None:
    stage.faults.add(faults.no_capacity("huge"), faults.node_dies("node-1", after_lines=1))
    call = clients(stage, identity)
    poor = call.finished(call("POST", "/jobs", {"script": SCRIPT, "shape": "huge"}))
    assert (poor["state"], poor["reason"]) == ("FAILED", "Out of host capacity.")
    dead = call.finished(call("POST", "/jobs", {"script": SCRIPT, "environment": {"PAUSE": "1"}}))
    assert (dead["state"], dead["reason"]) == ("FAILED", "nodes failed: ['node-1']")
    assert stage.faults.left() == ()


def test_files_go_up_and_come_down_in_parts(stage: Stage, identity: Identity) -> None:
    call = clients(stage, identity)
    data = bytes(range(256)) * 1000
    assert call.once("PUT", "/files/a/b%2Fc%20d", data)[0] == 200
    assert call.once("GET", "/files/a/b%2Fc%20d") == (200, data)
    assert call.once("GET", "/files/a/b%2Fc%20d", range="bytes=10-19") == (206, data[10:20])
    assert call.once("GET", "/files/a/b%2Fc%20d", range="bytes=999999-")[0] == 416
    assert call.once("GET", "/files/a/other")[0] == 404


def test_what_the_cloud_refuses_is_in_its_own_words(stage: Stage, identity: Identity) -> None:
    call = clients(stage, identity)
    assert call.once("POST", "/jobs", {})[0] == 400
    assert call.once("POST", "/jobs", b"{")[0] == 400
    status, body = attrs.evolve(call, token="stale").once("GET", "/jobs/x")
    assert (status, json.loads(body)["error"]["code"]) == (401, "NotAuthenticated")
    assert call.once("DELETE", "/jobs/x")[0] == 405
