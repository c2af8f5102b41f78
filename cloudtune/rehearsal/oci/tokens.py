"""Requests that are sent again: the same ``opc-retry-token`` with the same body is the same request."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable

import attrs

from cloudtune.rehearsal.clock import Clock
from cloudtune.rehearsal.messages import Refused, Request

#: Seconds for which a service remembers a token.
KEPT_S = 24 * 3600.0
_LONGEST = 64


@attrs.frozen(kw_only=True)
class _Known:
    digest: str
    identity: str
    time_s: float


class RetryTokens:
    """What was made by requests that had a token. Its methods may be called by any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], _Known] = {}
        self._locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def once(self, request: Request, operation: str, make: Callable[[], str], *, about: str = "") -> str:
        """Return the identity of what the request makes, made now or when it was sent before.

        ``about`` is what belongs to the request besides its body, which must have been read. Two at once wait for each
        other. Refused (409) for a token that stands for something else.
        """
        token = request.header("opc-retry-token")
        if not token:
            return make()
        if len(token) > _LONGEST:
            raise Refused(400, "InvalidParameter", f"opc-retry-token must have {_LONGEST} characters at most")
        key, digest = (operation, token), f"{about} {request.body.sha256}"
        with self._lock:
            lock = self._locks[key]
        with lock:
            known = self._known.get(key)
            if known is None or known.time_s + KEPT_S < self._clock.time_s():
                known = _Known(digest=digest, identity=make(), time_s=self._clock.time_s())
                self._known[key] = known
            elif known.digest != digest:
                message = "opc-retry-token stands for another request: its body was different"
                raise Refused(409, "InvalidatedRetryToken", message)
            return known.identity
