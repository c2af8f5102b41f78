"""What a stand-in remembers of the calls that reached it: enough to compare and to repeat faults, and no secret."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from urllib.parse import urlencode

import attrs

from cloudtune.rehearsal.messages import Request

#: Headers that are kept; what authorises a request is not among them.
KEPT_HEADERS = (
    "accept",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "if-match",
    "if-none-match",
    "opc-client-info",
    "opc-request-id",
    "opc-retry-token",
    "range",
    "transfer-encoding",
    "user-agent",
    "x-amz-target",
)
_SECRET_QUERY = re.compile(
    r"signature|credential|secret|passw|security-token|^sig$|^token$|access[-_]?token", re.IGNORECASE
)


@attrs.frozen(kw_only=True)
class Recorded:
    """One call: what was asked, what went wrong, what was answered.

    ``number`` counts the calls of this service and operation; ``status`` is 0 where no answer was sent; ``body_bytes``
    and ``sha256`` are of the part of the body that was read, ``seconds`` go to the beginning of the answer.
    """

    service: str
    operation: str
    number: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body_bytes: int
    sha256: str
    status: int
    faults: tuple[str, ...]
    time_s: float
    seconds: float

    @property
    def call(self) -> tuple[str, str]:
        """Service and operation: what :func:`cloudtune.rehearsal.faults.each_once` takes."""
        return self.service, self.operation


class Record:
    """All calls in the order in which their answers began. Its methods may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Recorded] = []
        self._errors: list[str] = []

    @property
    def calls(self) -> tuple[Recorded, ...]:
        """The calls so far."""
        with self._lock:
            return tuple(self._calls)

    @property
    def errors(self) -> tuple[str, ...]:
        """The tracebacks of handlers that failed: faults of the stand-in, not of its client."""
        with self._lock:
            return tuple(self._errors)

    def add(self, call: Recorded) -> None:
        """Remember a call."""
        with self._lock:
            self._calls.append(call)

    def add_error(self, text: str) -> None:
        """Remember a failure of the stand-in itself."""
        with self._lock:
            self._errors.append(text)

    def to_json_lines(self) -> str:
        """Return the calls as text, one JSON object a line."""
        return "".join(json.dumps(attrs.asdict(call)) + "\n" for call in self.calls)


def kept_headers(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the headers of a request that may be remembered."""
    return tuple((name, value) for name in KEPT_HEADERS if (value := request.header(name)))


def kept_target(request: Request) -> str:
    """Return the path and query of a request without signatures and tokens."""
    return request.raw_path + _query(request.queries)


def _query(queries: Iterable[tuple[str, str]]) -> str:
    shown = [(name, "***" if _SECRET_QUERY.search(name) else value) for name, value in queries]
    return "?" + urlencode(shown, safe="*/:") if shown else ""
