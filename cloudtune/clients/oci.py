"""Oracle Cloud: carries out the calls of plans and runs with the oci SDK, whatever service they name.

A call's operation is the name of the SDK's method. Parameters are in the wire's own names: those of the method's path
and query go there, the others are the body, which the SDK sends as it is. Replies are the wire's JSON, with what the
headers add (``opcNextPage``, ``opcWorkRequestId``, ``etag``). Retries are the SDK's.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import cache
from importlib import import_module
from typing import IO, Any

import attrs

from cloudtune.clients.oci_archive import artifact
from cloudtune.clients.oci_auth import Identity, identity
from cloudtune.clients.oci_auth import sdk as oci
from cloudtune.clients.oci_endpoint import ENDPOINT, Tries, connection
from cloudtune.clients.oci_errors import told
from cloudtune.errors import ServiceError, UsageError
from cloudtune.plan import Call, File, Plan

Reply = Mapping[str, Any]
#: The classes of the SDK that carry out a service's operations; the first that has the operation does.
CLIENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "oci.data_science": (("data_science", "DataScienceClient"),),
    "oci.model_deployment": (("model_deployment", "ModelDeploymentClient"),),
    "oci.object_storage": (("object_storage", "ObjectStorageClient"),),
    "oci.logging": (("logging", "LoggingManagementClient"), ("loggingsearch", "LogSearchClient")),
    "oci.secrets": (("secrets", "SecretsClient"),),
    "oci.vault": (("vault", "VaultsClient"),),
    "oci.monitoring": (("monitoring", "MonitoringClient"),),
    "oci.identity": (("identity", "IdentityClient"),),
    "oci.resource_search": (("resource_search", "ResourceSearchClient"),),
    "oci.core": (("core", "VirtualNetworkClient"),),
    "oci.limits": (("limits", "LimitsClient"),),
    "oci.artifacts": (("artifacts", "ArtifactsClient"),),
}
#: Seconds to connect, and between two bytes, for somebody who only wants to know whether it would go.
_HASTY_TIMEOUT_S = (4.0, 10.0)
_HEADERS = {
    "opc-next-page": "opcNextPage",
    "opc-work-request-id": "opcWorkRequestId",
    "etag": "etag",
    "content-length": "contentLength",
}
#: Parameters that are for this client, and go nowhere.
OWN = frozenset({"region", "cursor", "pages", "keep"})
#: Bytes after which no further page is fetched with those before: who watches should not need more than 100 MB.
_MOST_BYTES = 14 << 20
_REGION = re.compile(r"ocid1\.[a-z0-9]+\.oc\d+\.([a-z0-9-]+)\.")


class OciClient:
    """The client of all services of Oracle Cloud; see :class:`cloudtune.submit.Client`.

    A ``hasty`` one asks once, and waits for seconds only. ``skew_s`` is by how much this machine's clock is ahead of
    the services', as of the last answer.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, *, hasty: bool = False) -> None:
        self._environ = os.environ if environ is None else environ
        self._hasty = hasty
        self.skew_s: float | None = None
        self._identity: Identity | None = None
        self._clients: dict[tuple[str, str, str | None], Any] = {}
        self._archives: dict[str, IO[bytes]] = {}

    def make_ready(self, plan: Plan) -> None:
        """Sign in, and build what the plan uploads, before anything is sent.

        Raises:
            CloudtuneError: there are no credentials, or a file has changed or gone.
        """
        self._signed_in()
        for step in plan.steps:
            if step.files:
                self._archives[_key(step.token, step.files)] = artifact(step.files)

    def clean_up(self) -> None:
        """Drop what was built and is not uploaded."""
        while self._archives:
            self._archives.popitem()[1].close()

    def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> Reply:
        """Carry out a change; the service takes a second one with the same token for the first."""
        return self._carried_out(call, token=token, files=files)

    @property
    def look_s(self) -> tuple[float, float]:
        """Seconds between two looks at what goes on in the cloud, at first and later; a stand-in is asked oftener."""
        return (0.2, 0.5) if self._environ.get(ENDPOINT) else (1.0, 3.0)

    def read(self, call: Call) -> Reply:
        """Carry out a read; of the :data:`OWN` parameters the reply has ``cursor`` again, and ``readAt``: when it was.

        Up to ``pages`` are fetched as one; ``keep`` says which fields of the entries of which list are wanted, such as
        ``{"results": {"text": "data.logContent.data.message"}}``, where there are many with much in them.
        """
        reply, call = self._page(call)
        names = [*call.parameters.get("keep", {}), "items"]
        # what is kept of much may be told and let go; a list that breaks off would lack what is looked for in it
        whole, size, most = dict(reply), _size(reply), _MOST_BYTES if "keep" in call.parameters else math.inf
        for _ in range(1, int(call.parameters.get("pages", 1))):
            if not whole.get("opcNextPage") or size > most:
                break
            call = attrs.evolve(call, parameters={**call.parameters, "page": whole.pop("opcNextPage")})
            reply, call = self._page(call)
            whole = {**reply, **{name: [*whole[name], *reply[name]] for name in names if name in whole}}
            size += _size(reply)
        cursor = {"cursor": call.parameters["cursor"]} if "cursor" in call.parameters else {}
        # services tell the time in whole seconds: it is half a second later on average
        ahead_s = self.skew_s - 0.5 if self.skew_s is not None else 0.0
        return {**whole, **cursor, "readAt": time.time() - ahead_s}

    def _page(self, call: Call) -> tuple[Reply, Call]:
        """Return a page, and the call that fetched it: one that the service finds too large is asked for in halves."""
        while True:
            try:
                return self._carried_out(call), call
            except ServiceError as error:
                limit = int(call.parameters.get("limit", 0))
                if limit < 2 or "too large" not in error.message:
                    raise
                call = attrs.evolve(call, parameters={**call.parameters, "limit": limit // 2})

    def _carried_out(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> Reply:
        doubtful = False
        for attempt in (1, 2):
            client, kind = self._client(call)
            method, tries = getattr(client, call.operation), Tries(client.retry_strategy)
            arguments = _arguments(method, call, token)
            if token is not None:
                arguments["retry_strategy"] = tries
            archive = self._archive(token, files) if files else None
            if archive is not None:
                arguments[_body_of(method)] = archive
            try:
                response = method(**arguments)
                self._compare_clocks(response.headers)
                return _reply(response, call.parameters.get("keep", {}))
            except Exception as error:
                self._compare_clocks(getattr(error, "headers", None))
                doubtful = doubtful or tries.open
                expired = isinstance(error, oci.exceptions.ServiceError) and error.status == 401 and kind == "session"
                if attempt == 1 and expired:
                    # the user may have signed in again: the token's file is read anew, once
                    self._identity, self._clients = None, {}
                    continue
                raise told(error, call, kind=kind, doubtful=doubtful) from error
            finally:
                if archive is not None:
                    archive.close()
        raise AssertionError

    def _client(self, call: Call) -> tuple[Any, str]:
        """Return the SDK's client for a call, and how the user signed in."""
        who = self._signed_in()
        region = call.parameters.get("region") or _region_in(call.parameters) or who.region
        module, name = _class_of(call)
        key = (module, name, region)
        if key not in self._clients:
            self._clients[key] = self._made(module, name, region, who)
        return self._clients[key], who.kind

    def _signed_in(self) -> Identity:
        if self._identity is None:
            self._identity = identity(self._environ)
        return self._identity

    def _made(self, module: str, name: str, region: str | None, who: Identity) -> Any:
        options = connection(self._environ)
        if self._hasty:
            options |= {"timeout": _HASTY_TIMEOUT_S, "retry_strategy": oci.retry.NoneRetryStrategy()}
        if who.signer is not None:
            options["signer"] = who.signer
        config = {**who.config, **({"region": region} if region else {})}
        return getattr(_module(module), name)(config, **options)

    def _compare_clocks(self, headers: Mapping[str, str] | None) -> None:
        date = (headers or {}).get("date")
        with suppress(TypeError, ValueError):
            self.skew_s = time.time() - parsedate_to_datetime(date or "").timestamp()

    def _archive(self, token: str | None, files: tuple[File, ...]) -> IO[bytes]:
        made = self._archives.pop(_key(token, files), None)
        return artifact(files) if made is None else made


def _key(token: str | None, files: tuple[File, ...]) -> str:
    return token or files[0].sha256


def _class_of(call: Call) -> tuple[str, str]:
    """Return the module and class of the SDK that has a call's operation."""
    if call.service not in CLIENTS:
        raise UsageError(f"{call.service} is no service of OCI that is known here", hint=f"known: {', '.join(CLIENTS)}")
    for module, name in CLIENTS[call.service]:
        if hasattr(getattr(_module(module), name), call.operation):
            return module, name
    raise UsageError(f"{call.service} has no operation {call.operation}", hint="is the oci SDK too old? oci>=2.150")


def _module(name: str) -> Any:
    return import_module(f"oci.{name}")


def _region_in(parameters: Mapping[str, Any]) -> str | None:
    """Return the region that an OCID among the parameters carries; compartments carry none."""
    for value in parameters.values():
        found = _REGION.match(value) if isinstance(value, str) else None
        if found is not None:
            return oci.regions.get_region_from_short_name(found[1]) if len(found[1]) == 3 else found[1]
    return None


def _arguments(method: Callable[..., Any], call: Call, token: str | None) -> dict[str, Any]:
    """Return the method's arguments: those of its path and query by name, and as its body what is left."""
    parameters = {name: value for name, value in call.parameters.items() if name not in OWN}
    positional, optional = _signature(method)
    body = next((name for name in positional if name.endswith("_details")), None)
    found: dict[str, Any] = {}
    for name in (*positional, *optional):
        wire = _camel(name)
        if name != body and wire in parameters:
            found[name] = parameters.pop(wire)
    if body is not None:
        found[body] = parameters
    elif parameters:
        message = f"{call.service} {call.operation} takes no {', '.join(sorted(parameters))}"
        raise UsageError(message, hint="look at overrides: in the spec")
    if token is not None and "opc_retry_token" in optional:
        found["opc_retry_token"] = token
    return found


@cache
def _named_in(source: str) -> tuple[str, ...]:
    block = source.partition("expected_kwargs = [")[2].partition("]")[0]
    return tuple(re.findall(r'"(\w+)"', block))


def _signature(method: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a method's own arguments, and of those that it takes as keywords.

    The SDK lists the latter in the text of each method alone.
    """
    own = tuple(
        name
        for name, one in inspect.signature(method).parameters.items()
        if one.kind is not inspect.Parameter.VAR_KEYWORD
    )
    return own, _named_in(inspect.getsource(method))


def _body_of(method: Callable[..., Any]) -> str:
    """Return the name of the argument that takes a file: ``job_artifact`` of ``create_job_artifact``."""
    own, _ = _signature(method)
    return own[-1]


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _reply(response: Any, keep: Mapping[str, Mapping[str, str]]) -> Reply:
    """Return a response as the wire's JSON, with what its headers add; a list is ``items``."""
    data = response.data
    found: dict[str, Any] = {}
    if hasattr(data, "raw"):
        found["stream"] = data
    elif hasattr(data, "events"):
        found["events"] = data
    elif keep:
        for name, fields in keep.items():
            rows = data if name == "items" else getattr(data, name, None)
            found[name] = _kept(rows or (), fields)
    elif data is not None:
        plain = _plain(data)
        found = dict(plain) if isinstance(plain, Mapping) else {"items": plain}
    for header, name in _HEADERS.items():
        if response.headers.get(header) is not None:
            found.setdefault(name, response.headers[header])
    return found


def _kept(rows: Iterable[Any], fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what is wanted of many entries; texts that are the same are one."""
    same: dict[str, str] = {}

    def one(value: Any) -> Any:
        return same.setdefault(value, value) if isinstance(value, str) else value

    return [{field: one(_at(row, path)) for field, path in fields.items()} for row in rows]


def _size(reply: Reply) -> int:
    return int(reply.get("contentLength") or 1 << 20)


def _at(value: Any, path: str) -> Any:
    """Return what a value has at a dotted path; None where it has nothing there."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return value


def _plain(value: Any) -> Any:
    """Return the SDK's models as the wire's own names and values."""
    if hasattr(value, "swagger_types"):
        pairs = ((wire, getattr(value, name)) for name, wire in value.attribute_map.items())
        return {wire: _plain(item) for wire, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
