"""The whole of Oracle Cloud on a stage: who is known, what exists, and every service of the table on one port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import attrs

from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.messages import Request, Response
from cloudtune.rehearsal.oci import SERVICES
from cloudtune.rehearsal.oci.ocids import check_ocid
from cloudtune.rehearsal.oci.principals import SESSION_PROFILE, Caller, Principals
from cloudtune.rehearsal.oci.speech import not_found, refuse, with_request_id
from cloudtune.rehearsal.oci.swagger import require_sdk
from cloudtune.rehearsal.oci.tokens import RetryTokens
from cloudtune.rehearsal.routes import Handler, Route, Service
from cloudtune.rehearsal.stage import Stage

#: Where cloudtune's own client, and the node agent's, look for the services.
ENDPOINT = "CLOUDTUNE_OCI_ENDPOINT"
#: A fault of this kind, by the operation that meets it, ends all session tokens until the user signs in again.
SESSION_EXPIRES = "session expires"


class Part(Protocol):
    """Some operations of a service.

    ``unsigned_bodies`` names those whose body need not be signed: large objects on their way to Object Storage. One may
    also have ``open_operations``, for which nobody has to be known.
    """

    unsigned_bodies: tuple[str, ...]

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        ...


P = TypeVar("P", bound=Part)


@attrs.frozen(kw_only=True)
class Timing:
    """How long things take, in seconds of the stage's clock.

    ``grace_s`` is from SIGTERM to SIGKILL, ``minute_s`` one of the minutes that a job may run.
    """

    job_s: float = 2.0
    accepted_s: float = 4.0
    provisioning_s: float = 20.0
    cluster_file_s: float = 10.0
    canceling_s: float = 3.0
    deleting_s: float = 2.0
    grace_s: float = 30.0
    minute_s: float = 60.0


@attrs.frozen(kw_only=True)
class Delivery:
    """How lines come to Logging Search: late, some of them twice, in no order.

    A line can be found ``least_s`` to ``most_s`` seconds of the stage's clock after it was written, each by a chance of
    its own; of ``twice`` of all lines a second copy is found, with the same id.
    """

    least_s: float = 1.0
    most_s: float = 8.0
    twice: float = 0.05
    seed: int = 1


class OciCloud:
    """Oracle Cloud on a stage, for the one user that the identity is.

    Compartments, projects, networks and the like are not made here: any well-formed OCID of one is taken for one that
    exists, unless it is in ``absent``. With ``outside_names``, nodes can look up names outside this machine;
    ``hub_cache`` is a folder of models from the Hub that they find instead.
    """

    def __init__(
        self, stage: Stage, identity: Identity, *, timing: Timing | None = None, delivery: Delivery | None = None
    ) -> None:
        require_sdk()
        self.stage = stage
        self.timing = timing or Timing()
        self.delivery = delivery or Delivery()
        self.principals = Principals(identity)
        self.tokens = RetryTokens(stage.clock)
        self.absent: set[str] = set()
        self.outside_names = False
        self.hub_cache: Path | None = None
        self._callers = threading.local()
        self._parts: dict[type, Part] = {}
        self._unsigned: set[str] = set()
        self._open: set[str] = set()
        routes = [
            route for service, names in SERVICES.items() for name in names for route in self._begin(service, name)
        ]
        self.url = stage.serve(Service("oci", routes, refuse=refuse, admit=self._admit))

    def environment(self, *, session: bool = False) -> dict[str, str]:
        """Return what clients must see, besides the identity's own files; ``session``: they sign with a token."""
        profile = dict.fromkeys(("OCI_CLI_PROFILE", "OCI_CONFIG_PROFILE"), SESSION_PROFILE) if session else {}
        # for whoever opens oci:// by fsspec: ocifs asks no variable of its own where the service is
        fsspec = json.dumps({"config_kwargs": {"service_endpoint": self.url}})
        return {ENDPOINT: self.url, "FSSPEC_OCI": fsspec, **profile}

    def part(self, kind: type[P]) -> P:
        """Return the part of this cloud that is of the class."""
        found = self._parts[kind]
        assert isinstance(found, kind)
        return found

    @property
    def caller(self) -> Caller:
        """Who sent the request that this thread answers."""
        caller: Caller = self._callers.one
        return caller

    def now_s(self) -> float:
        """Return the time that the services write: this machine's, whatever the stage's clock does."""
        return time.time()

    def check_exists(self, field: str, identity: str, *kinds: str) -> None:
        """Refuse an OCID that is of another kind (400), or of something that is not there (404)."""
        check_ocid(field, identity, *kinds)
        if identity in self.absent:
            raise not_found(f"{field} {identity}")

    def check_listed(self, request: Request) -> None:
        """Refuse (404) to list what is in a compartment that is not there."""
        if request.query.get("compartmentId") in self.absent:
            raise not_found(f"compartmentId {request.query['compartmentId']}")

    def _begin(self, service: str, name: str) -> Iterable[Route]:
        module, _, kind = name.partition(":")
        part: Any = getattr(import_module(module), kind)(self)
        self._parts[type(part)] = part
        self._unsigned.update(part.unsigned_bodies)
        self._open.update(getattr(part, "open_operations", ()))
        for route in part.routes():
            yield attrs.evolve(route, service=service, handler=_with_request_id(route.handler))

    def _admit(self, request: Request, route: Route) -> None:
        if route.operation in self._open:
            return
        if self.stage.faults.event(SESSION_EXPIRES, route.operation):
            self.principals.end_sessions()
        self._callers.one = self.principals.admit(request, body_is_signed=route.operation not in self._unsigned)


def _with_request_id(handler: Handler) -> Handler:
    def answered(request: Request) -> Response:
        return with_request_id(request, handler(request))

    return answered
