"""Who cloudtune is to AWS: what ``aws`` users have set up, found by botocore as their other tools find it.

In turn: the environment, ``AWS_PROFILE``'s profile (keys, SSO, an assumed role, a process), a container's or an
instance's role. Nothing is kept or written. botocore is used without boto3, which adds a third to the time of the first
call and nothing that a call needs; :func:`session` costs 0.2 s of it.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cloudtune import __version__
from cloudtune.errors import MissingExtra, UsageError

try:
    import botocore.config
    import botocore.exceptions as sdk_errors
    import botocore.session
except ImportError as error:
    raise MissingExtra("aws", "AWS") from error

__all__ = ["ENDPOINT", "Account", "is_here", "region_in", "sdk_errors"]

#: One base for all services, in place of the regions' own; botocore's own name, which s3fs and ``aws`` read too.
ENDPOINT = "AWS_ENDPOINT_URL"
#: Seconds to connect, and between two bytes; and for somebody who only wants to know whether it would go.
_TIMEOUT_S = (10, 120)
_HASTY_TIMEOUT_S = (4, 10)
#: Tries in all, where the user has not said otherwise. botocore's default, ``legacy``, knows fewer passing errors.
_TRIES = 6
_CONNECTIONS = 16
_ARN = re.compile(r"arn:aws[\w-]*:[\w-]*:([a-z]{2}[\w-]*-\d+):")
_LOST = (sdk_errors.ConnectionError, sdk_errors.HTTPClientError)
#: What SageMaker Studio and notebook instances know of themselves.
_STUDIO = Path("/opt/ml/metadata/resource-metadata.json")
#: What reads the services' descriptions and keeps them, by the folders in which they are looked for.
_models: dict[str, Any] = {}
_models_lock = threading.Lock()
_NO_REGION = "name it: region: in the spec, export AWS_DEFAULT_REGION=..., or: aws configure set region ..."


def is_here(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the services are a stand-in on this machine."""
    endpoint = (os.environ if environ is None else environ).get(ENDPOINT, "")
    return re.match(r"https?://(127\.|localhost[:/]|\[::1\])", endpoint) is not None


def region_in(parameters: Mapping[str, Any]) -> str | None:
    """Return the region that an ARN among the parameters carries; a role's carries none."""
    for value in parameters.values():
        found = _ARN.match(value) if isinstance(value, str) else None
        if found is not None:
            return found[1]
    return None


class Account:
    """The user, and the SDK's clients that act for them. Its methods may be called by any thread."""

    def __init__(self, *, hasty: bool = False) -> None:
        self._hasty = hasty
        self._lock = threading.RLock()
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, region: str | None) -> Any:
        """Return the SDK's client of a service; one a region.

        Raises:
            UsageError: no region is known, or the SDK has no such service.
            botocore.exceptions.BotoCoreError: the user's files cannot be read, or there are no credentials.
        """
        with self._lock:
            where = region or self.region
            if (service, where) not in self._clients:
                self._clients[service, where] = self._made(service, where)
            return self._clients[service, where]

    @property
    def session(self) -> Any:
        """The SDK's session: the profile, its settings and credentials."""
        with self._lock:
            if self._session is None:
                self._session = botocore.session.Session()
                _share_models(self._session)
            return self._session

    @property
    def region(self) -> str:
        """The region of the environment, the profile or the surroundings; UsageError where there is none."""
        settings = (os.environ.get(name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION"))
        found = next((name for name in settings if name), None) or self.session.get_config_variable("region")
        found = found or _studio_region() or self._machine_region()
        if not found:
            raise UsageError("no AWS region is known", hint=_NO_REGION)
        return str(found)

    @property
    def kind(self) -> str:
        """How the user signs in, in botocore's words: ``env``, ``sso``, ``assume-role``; empty where nobody does."""
        try:
            credentials = self.session.get_credentials()
        except sdk_errors.BotoCoreError:
            return ""
        return str(getattr(credentials, "method", "") or "")

    @property
    def profile(self) -> str | None:
        """The profile's name, None for the default one."""
        return os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")

    def renew(self) -> None:
        """Forget the credentials: the user may have signed in again since they were read."""
        with self._lock:
            self._session = None
            self._clients.clear()

    def _made(self, service: str, region: str) -> Any:
        if service not in self.session.get_available_services():
            raise UsageError(f"aws.{service} is no service that the AWS SDK knows", hint="is botocore too old?")
        connect_s, read_s = _HASTY_TIMEOUT_S if self._hasty else _TIMEOUT_S
        config = botocore.config.Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries=self._retries(),
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
            user_agent_extra=f"cloudtune/{__version__}",
        )
        made = self.session.create_client(service, region_name=region, config=config)
        made.meta.events.register_first("before-send.*", partial(_sent, made), unique_id="cloudtune-whole")
        if is_here():
            _hurry(made)
        return made

    def _retries(self) -> dict[str, Any]:
        """Return how often a call is tried: the user's own settings count for more."""
        if self._hasty:
            return {"mode": "standard", "total_max_attempts": 1}
        given = {**self.session.get_scoped_config(), **_given(("AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"))}
        tries = str(given.get("max_attempts", ""))
        return {
            "mode": given.get("retry_mode", "standard"),
            "total_max_attempts": int(tries) if tries.isdecimal() and int(tries) else _TRIES,
        }

    def _machine_region(self) -> str | None:
        """Ask the instance on which this runs, once and for a second; elsewhere nobody answers."""
        if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true" or is_here():
            return None
        from botocore.utils import InstanceMetadataRegionFetcher  # noqa: PLC0415 - hardly ever needed

        try:
            found = InstanceMetadataRegionFetcher(timeout=1, num_attempts=1).retrieve_region()
        except sdk_errors.BotoCoreError:
            return None
        return None if found is None else str(found)


def _share_models(session: Any) -> None:
    """Let a session use the services' descriptions that others of this process have read: half a second for some."""
    path = str(session.get_config_variable("data_path") or "")
    with _models_lock:
        loader = _models.setdefault(path, session.get_component("data_loader"))
    session.register_component("data_loader", loader)


def _given(names: tuple[str, ...]) -> dict[str, str]:
    """Return variables of the environment by the names that profiles have for them."""
    return {name.removeprefix("AWS_").lower(): os.environ[name] for name in names if os.environ.get(name)}


def _studio_region() -> str | None:
    """Return the region of the Studio app or notebook instance in which this runs."""
    try:
        facts = json.loads(_STUDIO.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return region_in(facts) if isinstance(facts, dict) else None


def _sent(client: Any, *, request: Any, **_: Any) -> Any:
    """Send a request as the SDK does, and take no reply that was cut off: to the SDK it would be an empty one."""
    response = client._endpoint.http_session.send(request)  # noqa: SLF001 - the SDK has no other way in between
    length = response.headers.get("content-length", "")
    whole = request.stream_output or request.method == "HEAD" or not length.isdecimal()
    if not whole and len(response.content) < int(length):
        raise sdk_errors.ConnectionClosedError(endpoint_url=request.url, request=request, error="the reply was cut off")
    return response


def _hurry(client: Any) -> None:
    """Let tries follow each other at once: a stand-in on this machine is not far away, and not busy for long."""
    client.meta.events.register_first("needs-retry.*", _pause_s, unique_id="cloudtune-pause")


def _pause_s(*, response: Any = None, caught_exception: Any = None, attempts: int = 1, **_: Any) -> float | None:
    """Return the seconds to wait before trying again what the SDK would try again too; None leaves it to the SDK."""
    status = response[0].status_code if response is not None else 0
    again = status in {429, 500, 502, 503, 504} or isinstance(caught_exception, _LOST)
    return 0.02 * attempts if again and attempts < _TRIES else None
