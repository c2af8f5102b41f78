"""A cluster in a few lines, for tests of what is read from one: pods with logs, and a clock that is set."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import attrs

from cloudtune.backends import eks_logs
from cloudtune.backends.eks_objects import COMPLETION_INDEX
from cloudtune.errors import RunNotFound
from cloudtune.node.farewell import farewell
from cloudtune.node.lines import format_line, start_word
from cloudtune.plan import Call
from cloudtune.states import Handle, LogLine

HANDLE = Handle(backend="eks", kind="job", id="team/tune-abcdefgh")


def stamp(time_s: float) -> str:
    """Return a time as the kubelet writes it."""
    whole = datetime.fromtimestamp(int(time_s), timezone.utc)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{round(time_s % 1 * 1e9) % 10**9:09d}Z"


@attrs.define
class Try:
    """One start of a pod's container: its lines with their times, and how it ended."""

    lines: list[tuple[float, str]] = attrs.field(factory=list)
    end: dict[str, Any] | None = None


@attrs.define
class Pod:
    """A pod; its last two tries are kept."""

    name: str
    uid: str
    index: int
    tries: list[Try] = attrs.field(factory=lambda: [Try()])
    phase: str = "Running"
    status: dict[str, Any] = attrs.field(factory=dict)

    def say(self, time_s: float, *texts: str) -> None:
        """Write lines, a microsecond after each other."""
        lines = self.tries[-1].lines
        for text in texts:
            lines.append((max(time_s, lines[-1][0] + 1e-6 if lines else 0.0), text))

    @property
    def seen(self) -> dict[str, Any]:
        """The pod as the API shows it."""
        now = self.tries[-1]
        state = {"terminated": now.end} if now.end else {"running": {}}
        container = {"name": "pytorch", "state": state, "restartCount": len(self.tries) - 1}
        if len(self.tries) > 1:
            container["lastState"] = {"terminated": self.tries[-2].end or {"exitCode": 1}}
        labels = {COMPLETION_INDEX: str(self.index)}
        meta = {"name": self.name, "uid": self.uid, "labels": labels}
        status = {"phase": self.phase, "containerStatuses": [container], **self.status}
        return {"metadata": meta, "spec": {"nodeName": f"node-{self.index}"}, "status": status}


class Service:
    """A job and its pods; ``now`` is the time of its replies."""

    def __init__(self, *, now: float = 1000.0) -> None:
        self.now = now
        self.pods: list[Pod] = []
        self.job: dict[str, Any] | None = {"metadata": {"name": "tune-abcdefgh", "uid": "u"}, "spec": {}, "status": {}}
        self.count = 0

    def pod(self, index: int) -> Pod:
        """Add a pod."""
        self.count += 1
        pod = Pod(name=f"tune-abcdefgh-{index}-{self.count}", uid=f"uid-{self.count}", index=index)
        self.pods.append(pod)
        return pod

    def finish(self, how: str = "Complete", **details: Any) -> None:
        """Let the job end."""
        assert self.job is not None
        self.job["status"] = {"conditions": [{"type": how, "status": "True", **details}]}

    def read(self, call: Call) -> dict[str, Any]:
        """Answer a call."""
        given = call.parameters
        cursor = {"cursor": given["cursor"]} if "cursor" in given else {}
        if call.operation == "get":
            if self.job is None:
                raise RunNotFound("no such job")
            reply = dict(self.job)
        elif call.operation == "list":
            assert given["labelSelector"] == "batch.kubernetes.io/job-name=tune-abcdefgh"
            reply = {"items": [pod.seen for pod in self.pods]}
        else:
            reply = {"replies": [self._log(one, given) for one in given["each"]]}
        return {**reply, **cursor, "readAt": self.now}

    def _log(self, one: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        pod = next((pod for pod in self.pods if pod.name == one["name"]), None)
        if pod is None or (one["previous"] and len(pod.tries) < 2):
            return {"absent": True}
        since = given.get("sinceTime")
        begin = datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp() if since else 0.0
        lines = pod.tries[-2 if one["previous"] else -1].lines
        text = "".join(f"{stamp(at)} {line}\n" for at, line in lines if at >= begin)
        return {"text": text.encode()[: given["limitBytes"]].decode(errors="replace")}


class Agent:
    """The lines of one start of a node's agent, numbered."""

    def __init__(self, pod: Pod, *, nodes: int, start_s: float) -> None:
        self.pod, self.nodes, self.word, self.number = pod, nodes, start_word(start_s), 0

    def say(self, time_s: float, text: str, *, stream: str = "stdout") -> str:
        """Write a line; return its text."""
        self.number += 1
        mark = f"{self.pod.index}/{self.nodes}@{self.word}.{self.number}"
        self.pod.say(time_s, format_line(time_s, self.pod.index, stream, text, mark=mark))
        return text

    def leave(self, time_s: float, **report: Any) -> None:
        """Write the last line."""
        told = {"node": self.pod.index, "exitCode": 0, **report}
        self.say(time_s, farewell(told, nodes=self.nodes, lines=self.number + 1), stream="agent")


class Reader:
    """Somebody who follows the run; ``lines`` is all that was told."""

    def __init__(self, service: Service, handle: Handle = HANDLE) -> None:
        self.service, self.handle = service, handle
        self.cursor: dict[str, Any] | None = None
        self.lines: list[LogLine] = []
        self.calls: list[Call] = []

    def once(self) -> None:
        """Read as long as there is something to read at once."""
        for _ in range(1000):
            call = eks_logs.next_call(self.handle, self.cursor)
            self.calls.append(call)
            found, self.cursor = eks_logs.read(self.handle, self.service.read(call))
            self.lines += found
            if not self.cursor["more"]:
                return
        raise AssertionError("reading does not come to an end")

    def to_the_end(self, *, step_s: float = 2.0) -> None:
        """Read until the log says that it is whole."""
        for _ in range(200):
            self.once()
            assert self.cursor is not None
            if self.cursor["ended"]:
                return
            self.service.now += step_s
        raise AssertionError(f"the log does not end: {self.cursor}")

    @property
    def written(self) -> list[tuple[int | None, str]]:
        """What the processes wrote, with their replicas."""
        return [(line.replica, line.text) for line in self.lines if line.stream == "stdout"]

    @property
    def notes(self) -> list[str]:
        """What was said beside."""
        return [line.text for line in self.lines if line.replica is None]
