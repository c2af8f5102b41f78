"""The whole of AWS on a stage: who is known, which request is which operation, and who answers it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import attrs

from cloudtune.rehearsal.aws import SERVICES
from cloudtune.rehearsal.aws.borrowed import Borrowed
from cloudtune.rehearsal.aws.checker import checked, must_fit
from cloudtune.rehearsal.aws.models import model_of, operation_by_path, require_sdk, snake
from cloudtune.rehearsal.aws.principals import Keys, Principals
from cloudtune.rehearsal.aws.rest import is_rest, parameters_of, plain_reply
from cloudtune.rehearsal.aws.speech import denied, refuse, reply, signed_for
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.routes import Route, Service
from cloudtune.rehearsal.stage import Stage

ENDPOINT = "AWS_ENDPOINT_URL"
#: A fault of this kind, by the operation that meets it, ends the user's keys until they sign in again.
SESSION_EXPIRES = "session expires"
#: Where a container asks for the keys of its role.
_CREDENTIALS = "/rehearsed/credentials/"
#: Services that are signed for under another's name, by that name; in the order in which their paths are tried.
_ALIKE = {"sagemaker": ("sagemaker-runtime",), "bedrock": ("bedrock", "bedrock-runtime")}
#: Services whose rights are called as another service's.
_RIGHTS = {"sagemaker-runtime": "sagemaker", "bedrock-runtime": "bedrock"}
#: Operations that go by another right than the one that is called as they are.
_ACTIONS = {
    "HeadObject": "GetObject",
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjects": "ListBucket",
}
_TAG = "<{0}>([^<]*)</{0}>"


@attrs.frozen(kw_only=True)
class Asked:
    """A request as far as it is known before it is answered."""

    service: str
    operation: str
    region: str
    body: bytes | None
    caller: Keys | None = None


#: One operation: its parameters, checked, and who asks; the reply's fields, None for a reply without any, or a whole
#: reply of one that streams.
Deed = Callable[[Mapping[str, Any], Asked], "Mapping[str, Any] | Response | None"]


class Part(Protocol):
    """Some operations of a service, by their names on the wire."""

    operations: Mapping[str, Deed]


P = TypeVar("P", bound=Part)


@attrs.frozen(kw_only=True)
class Timing:
    """How long things take, in seconds of the stage's clock; ``grace_s`` is from SIGTERM to SIGKILL.

    ``second_s`` is a second of the times that a job may take.
    """

    starting_s: float = 20.0
    pending_s: float = 20.0
    downloading_s: float = 10.0
    image_s: float = 60.0
    uploading_s: float = 5.0
    stopping_s: float = 3.0
    interrupted_s: float = 30.0
    capacity_s: float = 30.0
    sync_s: float = 20.0
    grace_s: float = 120.0
    second_s: float = 1.0
    importing_s: float = 300.0
    loading_s: float = 60.0
    compiling_s: float = 1200.0
    creating_s: float = 120.0
    deleting_s: float = 30.0


@attrs.frozen(kw_only=True)
class Delivery:
    """How lines come to CloudWatch Logs: late, in the order of each stream.

    A line can be read ``least_s`` to ``most_s`` seconds of the stage's clock after it was written. With
    ``empty_pages``, every fifth page of a stream is empty though more follows, as the service reserves to itself.
    """

    least_s: float = 1.0
    most_s: float = 8.0
    empty_pages: bool = True
    seed: int = 1


class AwsCloud:
    """AWS on a stage, for the one user that the identity is.

    Roles, subnets, images and keys are not made here: any well-formed name of one is taken for one that exists, unless
    it is in ``absent``. Everybody may do everything but the actions in ``denied`` (``s3:PutObject``). ``quotas`` are
    the instances that may run by type; a type that is not in it has no limit. Buckets must exist; the user has one
    from the beginning. With ``outside_names``, nodes can look up names outside this machine; ``hub_cache`` is a folder
    of models from the Hub that they find instead.
    """

    def __init__(
        self,
        stage: Stage,
        identity: Identity,
        *,
        timing: Timing | None = None,
        delivery: Delivery | None = None,
        region: str = "us-west-2",
    ) -> None:
        require_sdk()
        self.stage = stage
        self.region = region
        self.timing = timing or Timing()
        self.delivery = delivery or Delivery()
        self.account = f"{1 + secrets.randbelow(9)}{secrets.randbelow(10**11):011}"
        self.principals = Principals(identity, self.account, region)
        self.borrowed = Borrowed(self.account, region)
        stage.at_end(self.borrowed.forget)
        self.absent: set[str] = set()
        self.denied: set[str] = set()
        self.quotas: dict[str, int] = {}
        self.outside_names = False
        self.hub_cache: Path | None = None
        self.bucket = f"sagemaker-{region}-{self.account}"
        self._asked = threading.local()
        self._roles: dict[str, tuple[str, str]] = {}
        self._roles_lock = threading.Lock()
        self._parts: dict[type, Part] = {}
        self._deeds: dict[tuple[str, str], Deed] = {}
        for service, names in SERVICES.items():
            self._begin(service, names)
        self.url = stage.serve(Service("aws", (), refuse=refuse, admit=self._admit, choose=self._choose))
        self.make_bucket(self.bucket)

    def environment(self) -> dict[str, str]:
        """Return what clients must see, besides the identity's own files."""
        return {ENDPOINT: self.url}

    def role_environment(self, role: str, session: str, *, owner: str) -> dict[str, str]:
        """Return what a container of a role sees, to find its keys; ``owner`` is what it belongs to."""
        name = role.rpartition("/")[2]
        ticket = secrets.token_urlsafe(16)
        with self._roles_lock:
            self._roles[ticket] = (owner, f"arn:aws:sts::{self.account}:assumed-role/{name}/{session}")
        return {**self.environment(), "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}{_CREDENTIALS}{ticket}"}

    def forget_roles(self, owner: str) -> None:
        """Give no more keys to the containers of something that is over."""
        with self._roles_lock:
            self._roles = {ticket: row for ticket, row in self._roles.items() if row[0] != owner}

    def make_bucket(self, name: str) -> None:
        """Make a bucket of the user's."""
        self.borrowed.make_bucket(name)

    def part(self, kind: type[P]) -> P:
        """Return the part of this cloud that is of the class."""
        found = self._parts[kind]
        assert isinstance(found, kind)
        return found

    def now_s(self) -> float:
        """Return the time that the services write: this machine's, whatever the stage's clock does."""
        return time.time()

    def _begin(self, service: str, names: Iterable[str]) -> None:
        for name in names:
            module, _, kind = name.partition(":")
            part: Any = getattr(import_module(module), kind)(self)
            self._parts[type(part)] = part
            self._deeds.update({(service, operation): deed for operation, deed in part.operations.items()})

    def _choose(self, request: Request, _: Mapping[str, Route]) -> Route | None:
        if request.path.startswith(_CREDENTIALS):
            self._asked.one = None
            return _route(request, "aws.container", "get_credentials", self._give_credentials)
        asked = self._read(request)
        self._asked.one = asked
        if not asked.operation:
            return None
        known = (asked.service, asked.operation) in self._deeds
        handler = self._own if known else self._identity if asked.operation == "GetCallerIdentity" else self._lent
        return _route(request, f"aws.{asked.service.replace('-', '_')}", snake(asked.operation), handler)

    def _read(self, request: Request) -> Asked:
        """Find out which operation of which service a request is."""
        region, service = signed_for(request)
        target, body = request.header("x-amz-target"), None
        if target:
            operation, body = target.rpartition(".")[2], request.body.read()
        elif request.header("content-type").startswith("application/x-www-form-urlencoded") and service != "s3":
            body = request.body.read()
            operation = parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
        else:
            named = [(name, _by_path(name, request)) for name in _ALIKE.get(service, (service,))]
            service, operation = next((pair for pair in named if pair[1]), (service, ""))
            body = None if service == "s3" else request.body.read()
        return Asked(service=service, operation=operation, region=region, body=body)

    def _admit(self, request: Request, route: Route) -> None:
        asked = self._asked.one
        if asked is None:
            return
        if self.stage.faults.event(SESSION_EXPIRES, route.operation):
            self.principals.end_sessions()
        caller = self.principals.admit(request, body_sha256=hashlib.sha256(asked.body or b"").hexdigest())
        action = _ACTIONS.get(asked.operation, asked.operation)
        right = f"{_RIGHTS.get(asked.service, asked.service)}:{action}"
        if right in self.denied:
            raise denied(caller.arn, right)
        self._asked.one = attrs.evolve(asked, caller=caller)

    def _own(self, request: Request) -> Response:
        """Answer by a part of this cloud: what comes and what goes is checked against the service's model."""
        asked: Asked = self._asked.one
        model = model_of(asked.service)
        operation = model["operations"][asked.operation]
        rest = is_rest(asked.service)
        try:
            given = parameters_of(request, asked) if rest else json.loads(asked.body or b"{}")
        except ValueError as error:
            raise Refused(400, "SerializationException", f"the body is not JSON: {error}") from error
        parameters = checked(asked.service, operation["input"]["shape"], given)
        made = self._deeds[asked.service, asked.operation](parameters, asked)
        if isinstance(made, Response):
            return made
        if made is not None and "output" in operation:
            must_fit(asked.service, operation["output"]["shape"], made)
        return plain_reply(operation, made) if rest else reply(made)

    def _lent(self, request: Request) -> Response:
        asked: Asked = self._asked.one
        host = self.url.partition("//")[2]
        answer = self.borrowed.answer(request, asked.body, host=host, operation=f"{asked.service} {asked.operation}")
        if asked.operation in {"AssumeRole", "GetSessionToken"} and answer.status == 200:
            self._know(bytes(answer.body) if isinstance(answer.body, bytes) else b"")
        return answer

    def _know(self, body: bytes) -> None:
        """Take in the keys that moto has given out."""
        names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Arn", "Expiration")
        found = {name: re.search(_TAG.format(name), body.decode()) for name in names}
        text = {name: match[1] if match else "" for name, match in found.items()}
        ends = datetime.fromisoformat(text["Expiration"].replace("Z", "+00:00")).astimezone(timezone.utc)
        arn = text["Arn"] or self.principals.user
        keys = Keys(
            id=text["AccessKeyId"], secret=text["SecretAccessKey"], token=text["SessionToken"], arn=arn, ends=ends
        )
        self.principals.know(keys)

    def _identity(self, _: Request) -> Response:
        """Say who asks."""
        asked: Asked = self._asked.one
        assert asked.caller is not None
        inner = f"<Arn>{asked.caller.arn}</Arn><UserId>{asked.caller.id}</UserId><Account>{self.account}</Account>"
        result = f"<GetCallerIdentityResult>{inner}</GetCallerIdentityResult>"
        space = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        meta = f"<ResponseMetadata><RequestId>{secrets.token_hex(16)}</RequestId></ResponseMetadata>"
        text = f"<GetCallerIdentityResponse {space}>{result}{meta}</GetCallerIdentityResponse>"
        return Response(headers=(("content-type", "text/xml"),), body=text.encode())

    def _give_credentials(self, request: Request) -> Response:
        with self._roles_lock:
            found = self._roles.get(request.path.removeprefix(_CREDENTIALS))
        if found is None:
            raise Refused(404, "NotFound", "no role has keys here")
        return json_response(self.principals.issue(found[1], session=True).credentials)


def _by_path(service: str, request: Request) -> str:
    try:
        return operation_by_path(service, request.method, request.raw_path, request.queries, request.headers.keys())
    except KeyError:
        return ""


def _route(request: Request, service: str, operation: str, handler: Callable[[Request], Response]) -> Route:
    return Route(method=request.method, template="/", operation=operation, handler=handler, service=service)
