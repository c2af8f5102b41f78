"""AWS: carries out the calls of plans and runs with botocore, whatever service they name.

A call's service is the SDK's name of it with ``aws.`` before it (``aws.sagemaker``, ``aws.bedrock_runtime``), its
operation the name of the SDK's method, its parameters are in the wire's own names. Replies are JSON data in the wire's
names. Retries are the SDK's, in its standard mode.

What must not be done twice is not: where the service takes a client's token it is given the step's, and where a unique
name does that (a training job has no token), a name that is taken by the very same request counts as done.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from cloudtune.clients import reading
from cloudtune.clients.aws_auth import Account, is_here, region_in
from cloudtune.clients.aws_auth import sdk_errors as sdk
from cloudtune.clients.aws_errors import code_of, is_expired, is_missing, told
from cloudtune.clients.aws_uploads import check, upload
from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.plan import Call, File, Plan

Reply = Mapping[str, Any]
#: Parameters that are for this client, and go nowhere.
OWN = frozenset({"region", "cursor", "pages", "each", "absent"})
#: Names of the parameter that makes sending a request twice harmless.
_TOKENS = ("ClientRequestToken", "clientRequestToken", "ClientToken", "clientToken")
#: What a service says of a name that is taken.
_TAKEN = re.compile(r"already exist|already in use|must be unique", re.IGNORECASE)
#: What it says of a job that need not be stopped any more.
_OVER = re.compile(r"status (Completed|Failed|Stopped|Stopping)\b")
#: Fields of replies that are for the SDK.
_DROPPED = {"ResponseMetadata"}


class AwsClient:
    """The client of all services of AWS; see :class:`cloudtune.submit.Client`.

    A ``hasty`` one asks once, and waits for seconds only. ``skew_s`` is by how much this machine's clock is ahead of
    the services', as of the last answer.
    """

    def __init__(self, *, hasty: bool = False) -> None:
        self._account = Account(hasty=hasty)
        self.skew_s: float | None = None

    @property
    def look_s(self) -> tuple[float, float]:
        """Seconds between two looks at what goes on in the cloud, at first and later; a stand-in is asked oftener."""
        return (0.2, 0.5) if is_here() else (2.0, 5.0)

    @property
    def region(self) -> str:
        """The region of calls that name none; UsageError where there is none."""
        return self._account.region

    def make_ready(self, plan: Plan) -> None:
        """Read what the plan uploads, before anything is sent; raises CloudtuneError if a file has changed or gone."""
        for step in plan.steps:
            check(step.files)

    def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> Reply:
        """Carry out a change; a second one with the same token or name changes nothing and gives the same reply."""
        return self._answered(call, partial(self._changed, call, token=token, files=files))

    def read(self, call: Call) -> Reply:
        """Carry out a read; of the :data:`OWN` parameters the reply has ``cursor`` again, and ``readAt``: when it was.

        ``pages``: so many are fetched as one, and where there are more the reply has the token of the next. ``each``: a
        list of further parameters; the call is carried out with each of them, and the replies are ``replies``, in
        order. ``absent``: True for a reply of ``{"absent": True}`` where there is no such thing, in place of an error.
        """
        return reading.read(call, self._looked_up, self._now_s)

    def _looked_up(self, call: Call) -> Reply:
        return self._answered(call, partial(self._pages, call))

    def _now_s(self) -> float:
        """Return the time by the services' clock, which tells it in whole seconds: half a second later on average."""
        return time.time() - (self.skew_s - 0.5 if self.skew_s is not None else 0.0)

    def _answered(self, call: Call, deed: Any) -> Reply:
        """Return what a deed returns; the errors are cloudtune's. Credentials that have expired are read anew, once."""
        for attempt in (1, 2):
            try:
                return dict(deed())
            except (CloudtuneError, AssertionError):
                raise
            except Exception as error:
                if call.parameters.get("absent") and is_missing(error):
                    return {"absent": True}
                if is_expired(error):
                    self._account.renew()  # the user may have signed in again
                    if attempt == 1:
                        continue
                raise told(error, call, self._account) from error
        raise AssertionError

    def _changed(self, call: Call, *, token: str | None, files: tuple[File, ...]) -> Reply:
        client = self._client(call)
        parameters = _wire(call)
        named = _token_of(client, call.operation)
        if token is not None and named is not None:
            parameters.setdefault(named, token)
        method = self._method(client, call)
        try:
            return _data(upload(method, parameters, files) if files else method(**parameters))
        except sdk.ClientError as error:
            known = self._as_before(client, call, parameters, error)
            if known is None:
                raise
            return known

    def _as_before(self, client: Any, call: Call, parameters: Mapping[str, Any], error: Any) -> Reply | None:
        """Return the reply that a request had when it was carried out before; None if this is another story."""
        code, said = code_of(error), str(error)
        if call.operation == "stop_training_job" and code == "ValidationException" and _OVER.search(said):
            return {}
        if call.operation.startswith("delete_") and is_missing(error):
            return {}
        if not call.operation.startswith("create_") or not (code == "ResourceInUse" or _TAKEN.search(said)):
            return None
        look = call.operation.replace("create_", "describe_", 1)
        name = next((key for key in parameters if key.endswith("Name")), None)
        if name is None or not hasattr(client, look):
            return None
        there = getattr(client, look)(**{name: parameters[name]})
        other = differing(parameters, there)
        if other:
            message = f"{parameters[name]} exists already, and was made by another request: {', '.join(other)}"
            raise ServiceError(
                message, service=call.service, operation=call.operation, hint="submit as a new run, under another name"
            )
        found = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[call.operation])
        shown = {key: there[key] for key in found.output_shape.members if key in there}
        return _data(shown)

    def _pages(self, call: Call) -> Reply:
        client = self._client(call)
        method, parameters = self._method(client, call), _wire(call)
        reply = self._noted(method(**parameters))
        paging = _paging(client, call.operation)
        if paging is None:
            return _data(reply)
        given, answered, lists = paging
        for _ in range(1, int(call.parameters.get("pages", 1))):
            if not reply.get(answered) or reply[answered] == parameters.get(given):
                break
            parameters[given] = reply[answered]
            page = self._noted(method(**parameters))
            reply = {**page, **{name: [*reply.get(name, ()), *page.get(name, ())] for name in lists}}
        return _data(reply)

    def _client(self, call: Call) -> Any:
        service = call.service.removeprefix("aws.").replace("_", "-")
        region = call.region or call.parameters.get("region") or region_in(call.parameters)
        return self._account.client(service, region)

    def _method(self, client: Any, call: Call) -> Any:
        if call.operation not in client.meta.method_to_api_mapping:
            hint = "is botocore too old? botocore>=1.35"
            raise UsageError(f"{call.service} has no operation {call.operation}", hint=hint)
        return getattr(client, call.operation)

    def _noted(self, reply: Any) -> dict[str, Any]:
        """Return a reply, and compare clocks."""
        date = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        with suppress(TypeError, ValueError):
            self.skew_s = time.time() - parsedate_to_datetime(date or "").timestamp()
        return dict(reply)


def differing(asked: Any, found: Any, path: str = "") -> list[str]:
    """Return the paths at which something was asked for and another thing is there.

    What a service adds by itself is not compared, nor what it does not tell (tags). Of texts that it hides, and of
    lists, all must be equal.
    """
    if isinstance(asked, Mapping) and isinstance(found, Mapping):
        pairs = ((key, value) for key, value in asked.items() if key in found)
        return [one for key, value in pairs for one in differing(value, found[key], f"{path}.{key}".strip("."))]
    if isinstance(asked, (list, tuple)) and isinstance(found, (list, tuple)) and len(asked) == len(found):
        pairs_of = enumerate(zip(asked, found, strict=True))
        return [one for at, (left, right) in pairs_of for one in differing(left, right, f"{path}[{at}]")]
    return [] if asked == found else [path]


def _wire(call: Call) -> dict[str, Any]:
    return {name: value for name, value in call.parameters.items() if name not in OWN}


def _token_of(client: Any, operation: str) -> str | None:
    """Return the parameter that takes a token, None if the operation has none."""
    wire = client.meta.method_to_api_mapping.get(operation)
    shape = client.meta.service_model.operation_model(wire).input_shape if wire else None
    return next((name for name in _TOKENS if shape is not None and name in shape.members), None)


def _paging(client: Any, operation: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Return the names of the token that is given and answered, and of the lists that pages continue."""
    if operation == "get_log_events":  # the SDK has no pages for it, since the token of the last repeats
        return "nextToken", "nextForwardToken", ("events",)
    if not client.can_paginate(operation):
        return None
    known = client.get_paginator(operation)._pagination_cfg  # noqa: SLF001 - the SDK tells it nowhere else
    tokens, answered, lists = known["input_token"], known["output_token"], known["result_key"]
    if not isinstance(tokens, str) or not isinstance(answered, str):
        return None
    names = lists if isinstance(lists, list) else [lists]
    return tokens, answered.partition(" ")[0], tuple(name for name in names if re.fullmatch(r"\w+", name))


def _data(reply: Any) -> dict[str, Any]:
    """Return a reply of the SDK as JSON data."""
    return {key: _plain(item) for key, item in reply.items() if key not in _DROPPED}


def _plain(value: Any) -> Any:
    """Return a value of the SDK's as JSON data; what is streamed stays as it is."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
