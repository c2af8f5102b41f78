"""Asks AWS for a secret by the standard library alone, as the role of the container: no package has to be installed.

Credentials come from the variables, or from where containers of SageMaker, ECS and EKS are told to ask for them. A
request is signed by Signature Version 4.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

#: Where a container's relative address of its credentials begins.
_CONTAINER = "http://169.254.170.2"
_RELATIVE, _FULL = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_TOKEN, _TOKEN_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
_TIMEOUT_S = 20
_TRIES = 5
_DOMAINS = {"cn-": "amazonaws.com.cn"}


class Keys(NamedTuple):
    """Credentials; ``token`` is empty for those that do not end."""

    id: str
    secret: str
    token: str


def has_own_keys(variables: Mapping[str, str]) -> bool:
    """Whether credentials can be had without AWS's library: a profile or a web identity needs it."""
    return any(variables.get(name) for name in (_RELATIVE, _FULL)) or _is_in(variables)


def read_secret(reference: str, variables: Mapping[str, str]) -> bytes:
    """Return the value of a Secrets Manager secret by its ARN; raises OSError with what the service says."""
    region = reference.split(":")[3]
    url = variables.get("AWS_ENDPOINT_URL_SECRETS_MANAGER") or variables.get("AWS_ENDPOINT_URL")
    if not url:
        domain = next((name for start, name in _DOMAINS.items() if region.startswith(start)), "amazonaws.com")
        url = f"https://secretsmanager.{region}.{domain}"
    body = json.dumps({"SecretId": reference}).encode()
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "secretsmanager.GetSecretValue"}
    keys = find_keys(variables)
    for attempt in range(1, _TRIES + 1):
        signed = sign(keys, url, body, headers, region=region, service="secretsmanager", now=_now())
        request = urllib.request.Request(f"{url.rstrip('/')}/", data=body, headers=signed, method="POST")  # noqa: S310
        try:
            answer = _json(request)
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            if attempt < _TRIES and (error.code >= 500 or "Throttling" in said):
                time.sleep(0.2 * 2**attempt)
                continue
            raise OSError(f"Secrets Manager answers {error.code}: {_words(said)}") from error
        except OSError:
            if attempt == _TRIES:
                raise
            time.sleep(0.2 * 2**attempt)
        else:
            text = answer.get("SecretString")
            return text.encode("utf-8") if text is not None else base64.b64decode(answer["SecretBinary"])
    raise AssertionError


def find_keys(variables: Mapping[str, str]) -> Keys:
    """Return the credentials of the variables, else those that the container's role has."""
    if _is_in(variables):
        return Keys(
            variables["AWS_ACCESS_KEY_ID"],
            variables["AWS_SECRET_ACCESS_KEY"],
            variables.get("AWS_SESSION_TOKEN", ""),
        )
    relative = variables.get(_RELATIVE)
    url = f"{_CONTAINER}{relative}" if relative else variables[_FULL]
    file = variables.get(_TOKEN_FILE)
    token = Path(file).read_text(encoding="utf-8").strip() if file else variables.get(_TOKEN, "")
    request = urllib.request.Request(url, headers={"Authorization": token} if token else {})  # noqa: S310 - AWS's own
    for attempt in range(1, _TRIES + 1):
        try:
            found = _json(request)
            return Keys(found["AccessKeyId"], found["SecretAccessKey"], found.get("Token") or "")
        except (OSError, ValueError, KeyError) as error:
            if attempt == _TRIES:
                raise OSError(f"this container's role gives no credentials: {error}") from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def sign(
    keys: Keys,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """Return the headers of a POST to the root of a service with its signature; the names of all are in lower case."""
    stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    signed = {**headers, "host": urlsplit(url).netloc, "x-amz-date": stamp}
    if keys.token:
        signed["x-amz-security-token"] = keys.token
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
    canonical = "\n".join(["POST", "/", "", lines, names, hashlib.sha256(body).hexdigest()])
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys.secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={keys.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "authorization": f"AWS4-HMAC-SHA256 {credential}"}


def _is_in(variables: Mapping[str, str]) -> bool:
    return bool(variables.get("AWS_ACCESS_KEY_ID") and variables.get("AWS_SECRET_ACCESS_KEY"))


def _json(request: urllib.request.Request) -> dict[str, Any]:
    # the addresses are the cloud's own: a proxy for the job's traffic does not reach those of a container
    link_local = urlsplit(request.full_url).hostname in ("169.254.170.2", "169.254.170.23", "127.0.0.1", "localhost")
    handlers = [urllib.request.ProxyHandler({})] if link_local else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as answer:
            found: dict[str, Any] = json.loads(answer.read())
    except http.client.HTTPException as error:
        raise OSError(f"the answer broke off: {type(error).__name__}") from error
    return found


def _words(said: str) -> str:
    try:
        facts = json.loads(said)
    except ValueError:
        return " ".join(said.split())[:300]
    kind = str(facts.get("__type", "")).rpartition("#")[2]
    return f"{kind}: {facts.get('message') or facts.get('Message') or ''}"[:300]


def _now() -> datetime:
    return datetime.now(timezone.utc)
