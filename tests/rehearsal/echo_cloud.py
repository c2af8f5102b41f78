"""A whole stand-in in a hundred lines: a cloud with one kind of job, which runs a script on some nodes.

This is how the real ones are written. A cloud is services (routes and how they speak), resources in the store, and a
controller a job that leads it through its states and runs its nodes. What a client may do wrong is refused as the
service refuses it; what may go wrong by itself is the stage's business: faults, deaths, the clock.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.logs import Log
from cloudtune.rehearsal.messages import Refused, Request, Response, file_response, json_response
from cloudtune.rehearsal.nodes import Node, Place
from cloudtune.rehearsal.routes import Route, Service
from cloudtune.rehearsal.runner import RunningNode, wait_for
from cloudtune.rehearsal.stage import Stage

#: What this cloud's nodes call the folder that is the job's.
WORK = "/opt/echo/work"
OVER = ("SUCCEEDED", "FAILED", "CANCELLED")


class EchoCloud:
    """Jobs, their logs and a store of files, on a stage."""

    def __init__(self, stage: Stage, identity: Identity) -> None:
        self.stage = stage
        self.token = identity.secret("echo-token")
        self.running: dict[str, list[RunningNode]] = {}
        self.logs: dict[str, Log] = {}
        routes = (
            Route(method="POST", template="/jobs", operation="create_job", handler=self.create_job),
            Route(method="GET", template="/jobs/{id}", operation="get_job", handler=self.get_job),
            Route(method="GET", template="/jobs/{id}/log", operation="read_log", handler=self.read_log),
            Route(method="POST", template="/jobs/{id}/cancel", operation="cancel_job", handler=self.cancel_job),
            Route(method="PUT", template="/files/{path...}", operation="put_file", handler=self.put_file),
            Route(method="GET", template="/files/{path...}", operation="get_file", handler=self.get_file),
        )
        self.url = stage.serve(Service("echo", routes, refuse=refuse, admit=self.admit))

    def admit(self, request: Request, route: Route) -> None:
        if request.header("authorization") != f"Bearer {self.token}":
            raise Refused(401, "NotAuthenticated", "the token is wrong or has expired")

    def create_job(self, request: Request) -> Response:
        asked, token = request.json(), request.header("retry-token")
        if not isinstance(asked, dict) or not isinstance(asked.get("script"), str):
            raise Refused(400, "InvalidParameter", "script is required")
        for known in self.stage.store.all("job", lambda job: bool(token) and job.data["retryToken"] == token):
            return json_response(known.data)  # sent again, because the reply was lost
        identity = f"echo.job.{secrets.token_hex(8)}"
        data = {"id": identity, "state": "ACCEPTED", "nodes": 2, **asked, "retryToken": token}
        self.logs[identity] = Log()
        job = self.stage.store.add("job", identity, data)
        self.stage.control(identity, self.run_job, identity)
        return json_response(job.data, status=201)

    def get_job(self, request: Request) -> Response:
        return json_response(self.job(request))

    def cancel_job(self, request: Request) -> Response:
        job = self.job(request)
        self.stage.store.change("job", job["id"], when=is_going, state="CANCELLED")
        self.cancel(job["id"])
        return json_response({}, status=202)

    def cancel(self, identity: str) -> None:
        for node in self.running.get(identity, []):
            node.stop(grace_s=1)

    def read_log(self, request: Request) -> Response:
        """Stream the lines of all nodes as they come, to the end of the job."""
        log = self.logs[self.job(request)["id"]]

        def pieces() -> Iterator[bytes]:
            for lines in log.follow(alive=request.alive):
                yield b"".join(f"{line.node} {line.text}\n".encode() for line in lines)

        return Response(headers=(("content-type", "text/plain"),), body=pieces())

    def put_file(self, request: Request) -> Response:
        path = self.place(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            request.body.save(file)
        return Response(status=200, headers=(("etag", request.body.sha256),))

    def get_file(self, request: Request) -> Response:
        path = self.place(request)
        if not path.is_file():
            raise Refused(404, "NoSuchFile", f"there is no {request.params['path']}")
        return file_response(path, request)

    def place(self, request: Request) -> Path:
        """Return where a file lies: no client chooses the name of a file of this machine."""
        return self.stage.folder / "files" / hashlib.sha256(request.params["path"].encode()).hexdigest()

    def job(self, request: Request) -> dict[str, Any]:
        job = self.stage.store.get("job", request.params["id"])
        if job is None:
            raise Refused(404, "NotAuthorizedOrNotFound", f"there is no job {request.params['id']}")
        return job.data

    def run_job(self, identity: str) -> None:
        """Lead a job from ACCEPTED to its end: the controller."""
        job = self.stage.store.get("job", identity)
        assert job is not None
        if not self.stage.lead("job", identity, "state", ("CREATING", 30)):
            return
        if self.stage.faults.event("no capacity", job.data.get("shape", "small")):
            self.finish(identity, "FAILED", "Out of host capacity.")
            return
        if not self.stage.lead("job", identity, "state", ("RUNNING", 0)):
            return
        running = self.running[identity] = []
        for node in self.nodes_of(job.data):
            running += [self.stage.nodes.start(node, self.logs[identity].append)]
        if self.stage.store.get("job", identity).data["state"] == "CANCELLED":  # while the nodes were started
            self.cancel(identity)
        ends = wait_for(running)
        failed = [node.node.name for node, end in zip(running, ends, strict=True) if end and end.code]
        self.finish(identity, "FAILED" if failed else "SUCCEEDED", f"nodes failed: {failed}" if failed else "")

    def nodes_of(self, job: dict[str, Any]) -> list[Node]:
        """Return a job's nodes: what this cloud's machines look like from the inside."""
        names = [f"node-{rank}" for rank in range(job["nodes"])]
        hosts = dict(zip(names, self.stage.addresses.take(len(names)), strict=True))
        nodes = []
        for rank, name in enumerate(names):
            folder = self.stage.folder / "jobs" / job["id"] / name
            (folder / "work").mkdir(parents=True)
            (folder / "script.sh").write_text(job["script"])
            script = Place(source=folder / "script.sh", read_only=True)
            environment = {"ECHO_RANK": str(rank), "ECHO_MAIN": names[0], **job.get("environment", {})}
            nodes.append(
                Node(
                    name=name,
                    folder=folder,
                    command=("sh", "/opt/echo/script.sh"),
                    environment=environment,
                    binds={WORK: Place(source=folder / "work"), "/opt/echo/script.sh": script},
                    hosts=hosts,
                    working_dir=WORK,
                )
            )
        return nodes

    def finish(self, identity: str, state: str, reason: str) -> None:
        self.stage.store.change("job", identity, when=is_going, state=state, reason=reason)
        self.logs[identity].close()


def refuse(request: Request, why: Refused) -> Response:
    """Put an error into the words of this cloud."""
    return json_response({"error": {"code": why.code, "message": why.message}}, status=why.status, headers=why.headers)


def is_going(job: dict[str, Any]) -> bool:
    return job["state"] not in OVER
