"""A place with three steps, in a folder: what the contract suite uses to kill and resume submissions.

Its service keeps what was made in one JSON file and takes a token twice for the same request, as clouds do. Faults are
given by the environment variable STANDIN_FAULTS, a JSON list of ``[moment, step]``: ``before`` and ``after`` kill the
process around the send, ``lost`` carries the request out and loses the reply once, ``refused`` refuses it for good.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs

from cloudtune.errors import ServiceError
from cloudtune.launch import launch
from cloudtune.order import job_name
from cloudtune.plan import Call, File, Plan, Ref, Step, Until
from cloudtune.spec.infrastructure import Infrastructure
from cloudtune.spec.job import JobSpec
from cloudtune.states import Failure, Handle, LogLine, Status

SERVICE = "standin"
#: Lines in one reply.
PAGE = 2


@attrs.frozen(kw_only=True)
class StandinJob(Infrastructure):
    """Infrastructure of the stand-in."""

    type: ClassVar[str] = "standin"


def folder() -> Path:
    return Path(os.environ["STANDIN_FOLDER"])


class StandinBackend:
    """Three steps: a bucket, a job that takes a while to become active, and a run."""

    name = "standin"
    client = "tests.contract.standin:StandinClient"

    def plan(self, job: JobSpec, run_id: str) -> Plan:
        steps = (
            Step(
                id="bucket",
                service=SERVICE,
                operation="create_bucket",
                parameters={"name": f"b-{run_id}"},
                token=f"bucket-{run_id}",
                undo=Call(service=SERVICE, operation="delete", parameters={"id": Ref("bucket", "id")}),
            ),
            Step(
                id="job",
                service=SERVICE,
                operation="create_job",
                parameters={"bucket": Ref("bucket", "id"), "looksLikeRef": "${bucket.id}"},
                token=f"job-{run_id}",
                until=Until(
                    call=Call(service=SERVICE, operation="get", parameters={"id": Ref("job", "id")}),
                    field="detail.state",
                    done=("ACTIVE",),
                    failed=("FAILED",),
                    timeout_s=20,
                    interval_s=0.01,
                ),
                undo=Call(service=SERVICE, operation="delete", parameters={"id": Ref("job", "id")}),
            ),
            Step(
                id="run",
                service=SERVICE,
                operation="create_run",
                parameters={"job": Ref("job", "id")},
                token=f"run-{run_id}",
                undo=Call(service=SERVICE, operation="delete", parameters={"id": Ref("run", "id")}),
            ),
        )
        return Plan(name=job_name(job), run_id=run_id, backend=self.name, launch=launch(job), steps=steps)

    def handle(self, plan: Plan, replies: Mapping[str, Mapping[str, Any]]) -> Handle:
        return Handle(backend=self.name, scope="here", kind="run", id=str(replies["run"]["id"]))

    def recognise(self, text: str) -> Handle | None:
        return Handle(backend=self.name, scope="here", kind="run", id=text) if text.startswith("standin-run-") else None

    def look(self, handle: Handle) -> Call:
        return Call(service=SERVICE, operation="get", parameters={"id": handle.id})

    def status(self, handle: Handle, reply: Mapping[str, Any]) -> Status:
        state = reply["detail"]["state"]
        failure = Failure(replica=1, rank=2, exit_code=3, lines=("boom",)) if state == "failed" else None
        return Status(state=state, failure=failure)

    def logs(self, handle: Handle, cursor: Mapping[str, Any] | None) -> Call:
        return Call(service=SERVICE, operation="lines", parameters={"id": handle.id, "from": (cursor or {"n": 0})["n"]})

    def lines(self, handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], Mapping[str, Any] | None]:
        found = tuple(LogLine(time=float(n), replica=n % 2, rank=n, stream="stdout", text=t) for n, t in reply["lines"])
        return found, {"n": reply["next"]}

    def cancel(self, handle: Handle) -> tuple[Call, ...]:
        return (Call(service=SERVICE, operation="cancel", parameters={"id": handle.id}),)

    def delete(self, handle: Handle, *, outputs: bool) -> tuple[Call, ...]:
        return (Call(service=SERVICE, operation="delete", parameters={"id": handle.id}),)


class StandinClient:
    """The service: one JSON file, and a log of every request that reached it."""

    def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> Mapping[str, Any]:
        step = (token or "").partition("-")[0]
        _fault("before", step)
        if _pending("refused", step):
            raise ServiceError("no", service=SERVICE, operation=call.operation)
        data = _load()
        data["requests"].append([call.operation, token])
        reply: dict[str, Any] = {}
        if call.operation == "delete":
            data["things"].pop(call.parameters["id"], None)
        elif call.operation == "cancel":
            data["things"][call.parameters["id"]]["detail"]["state"] = "cancelled"
        else:
            kind = call.operation.removeprefix("create_")
            known = [thing for thing in data["things"].values() if thing["token"] == token]
            thing = known[0] if known else _new(kind, token, call, data)
            reply = {"id": thing["id"]}
        _save(data)
        if _pending("lost", step):
            _drop("lost", step)
            raise ServiceError("connection reset", service=SERVICE, operation=call.operation, definite=False)
        _fault("after", step)
        return reply

    def read(self, call: Call) -> Mapping[str, Any]:
        data = _load()
        thing = data["things"][call.parameters["id"]]
        if call.operation == "lines":
            count = 5 if thing["detail"]["state"] != "pending" else 0
            begin = call.parameters["from"]
            end = max(begin, min(begin + PAGE, count))
            return {"lines": [[n, f"line {n}"] for n in range(begin, end)], "next": end}
        thing["looks"] += 1
        if thing["kind"] == "job" and thing["looks"] > 3:
            thing["detail"]["state"] = "ACTIVE"
        if thing["kind"] == "run" and thing["detail"]["state"] == "running" and thing["looks"] > 3:
            thing["detail"]["state"] = os.environ.get("STANDIN_END", "succeeded")
        _save(data)
        return dict(thing)


def _new(kind: str, token: str | None, call: Call, data: dict[str, Any]) -> dict[str, Any]:
    identity = f"standin-{kind}-{len(data['things'])}-{token}"
    state = {"job": "CREATING", "run": "running"}.get(kind, "ACTIVE")
    thing = {
        "id": identity,
        "kind": kind,
        "token": token,
        "got": dict(call.parameters),
        "looks": 0,
        "made": time.time(),
    }
    data["things"][identity] = {**thing, "detail": {"state": state}}
    return data["things"][identity]


def _load() -> dict[str, Any]:
    path = folder() / "service.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"things": {}, "requests": []}
    return data


def _save(data: dict[str, Any]) -> None:
    temporary = folder() / f"service.{os.getpid()}"
    temporary.write_text(json.dumps(data))
    temporary.replace(folder() / "service.json")


def _pending(moment: str, step: str) -> bool:
    done = folder() / f"fault-{moment}-{step}"
    return [moment, step] in json.loads(os.environ.get("STANDIN_FAULTS", "[]")) and not done.exists()


def _drop(moment: str, step: str) -> None:
    (folder() / f"fault-{moment}-{step}").touch()


def _fault(moment: str, step: str) -> None:
    if step and _pending(moment, step):
        _drop(moment, step)
        os.kill(os.getpid(), signal.SIGKILL)
