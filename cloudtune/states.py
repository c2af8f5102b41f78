"""What a run is doing, as values: state, failure, events and log lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import attrs

STATES = ("pending", "starting", "running", "stopping", "succeeded", "failed", "cancelled", "lost")
#: States that a run never leaves by itself.
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "lost"})
#: Those of which the record is believed; ``lost`` may have been a place that could not be seen for a while.
SETTLED = TERMINAL - {"lost"}
#: The command line's exit code of a run in each terminal state; 101 stands for "not finished yet".
EXIT_CODES = {"succeeded": 0, "failed": 100, "lost": 100, "cancelled": 103}
NOT_FINISHED = 101


@attrs.frozen(kw_only=True)
class Handle:
    """Where a run lives: the backend, a scope (region, cluster, home), the kind of thing, and the service's own id."""

    backend: str
    scope: str = ""
    kind: str = "run"
    id: str

    @property
    def uri(self) -> str:
        """The handle as one line of text, e.g. ``oci://us-ashburn-1/jobRun/ocid1...``."""
        return f"{self.backend}://{quote(self.scope, safe='')}/{quote(self.kind, safe='')}/{quote(self.id, safe='')}"

    @classmethod
    def parse(cls, uri: str) -> Handle:
        """Return the handle of a URI made by :attr:`uri`; raises ValueError for anything else."""
        match = re.fullmatch(r"([A-Za-z][\w+-]*)://([^/]*)/([^/]+)/([^/]+)", uri)
        if match is None:
            raise ValueError(f"{uri!r} is no handle: expected BACKEND://SCOPE/KIND/ID")
        backend, scope, kind, identity = match.groups()
        return cls(backend=backend, scope=unquote(scope), kind=unquote(kind), id=unquote(identity))


#: What C++ says where a thread is ended under it, as Python does to those that want its lock while it ends.
_ABORTED_BY_GLOO = "terminate called without an active exception"


@attrs.frozen(kw_only=True)
class Failure:
    """Which process of a run failed first, and how.

    ``replica`` is the node; ``rank`` the global rank, None where the command has no ranks; ``signal`` a name such as
    ``SIGKILL``; ``lines`` the last lines that it wrote.
    """

    replica: int | None = None
    rank: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    lines: tuple[str, ...] = ()
    traceback: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Failure:
        """Return the failure of a report's JSON."""
        return cls(
            replica=data.get("replica"),
            rank=data.get("rank"),
            exit_code=data.get("exitCode"),
            signal=data.get("signal"),
            lines=tuple(data.get("lines") or ()),
            traceback=data.get("traceback"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the failure as the command line's JSON shows it."""
        return {
            "replica": self.replica,
            "rank": self.rank,
            "exitCode": self.exit_code,
            "signal": self.signal,
            "lines": list(self.lines),
            "traceback": self.traceback,
        }

    @property
    def hint(self) -> str | None:
        """What can be done about an end that is known, which the process itself could not tell."""
        said = [line for line in self.lines if line.strip()]
        at = next((index for index, line in enumerate(said) if _ABORTED_BY_GLOO in line), None)
        raised = (self.traceback or "").splitlines()[-1:]
        # behind an exception, the abort is no more than the way in which the process ended
        if at is not None and not (at and raised and said[at - 1].rstrip().endswith(raised[0])):
            return (
                "if all was saved before, this is a race of PyTorch's Gloo with the end of Python "
                "(pytorch/pytorch#179291): let the script end with os._exit(0) after destroy_process_group()"
            )
        return None

    def __str__(self) -> str:
        who = f"replica {self.replica}" if self.replica is not None else "the job"
        if self.rank is not None:
            who += f", rank {self.rank},"
        if self.signal:
            return f"{who} was ended by {self.signal}"
        if self.exit_code is not None:
            return f"{who} ended with exit code {self.exit_code}"
        return f"{who} failed"


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened to a run; ``time`` is seconds since the epoch."""

    time: float
    text: str


@attrs.frozen(kw_only=True)
class Status:
    """State of a run as its place tells it; ``name`` is what the place calls it."""

    state: str
    name: str | None = None
    reason: str | None = None
    failure: Failure | None = None
    events: tuple[Event, ...] = ()
    links: Mapping[str, str] = attrs.field(factory=dict)
    outputs: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run has reached a state that it never leaves."""
        return self.state in TERMINAL


@attrs.frozen(kw_only=True)
class LogLine:
    """One line of a run's log: when (seconds since the epoch), which replica and rank, which stream, what.

    ``stream`` is ``stdout``, ``stderr`` or ``agent``; ``step`` names the pipeline's step. ``replica`` is None for what
    no node wrote, or where the place does not tell which.
    """

    time: float
    replica: int | None
    rank: int | None
    stream: str
    text: str
    step: str | None = None
