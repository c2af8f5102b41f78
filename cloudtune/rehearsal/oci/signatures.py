"""Signed requests: who sent one, and whether it is as it was sent.

Oracle Cloud's form of HTTP signatures (draft-cavage-http-signatures, version 1): RSA with SHA-256 over the request's
target, date and host, and for a body over its length, type and SHA-256 digest too.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import re
import time
from collections.abc import Callable

import attrs

from cloudtune.rehearsal.messages import Refused, Request

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    HAS_LIBRARY = True
except ImportError:
    HAS_LIBRARY = False

#: Seconds by which the client's clock may differ.
SKEW_S = 300.0
_SIGNED = ("date", "(request-target)", "host")
_SIGNED_WITH_BODY = ("content-length", "content-type", "x-content-sha256")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_METHODS_WITH_BODY = ("POST", "PUT", "PATCH")


@attrs.frozen(kw_only=True)
class Signature:
    """What an ``Authorization`` header says."""

    key_id: str
    names: tuple[str, ...]
    value: bytes


def read_signature(request: Request, *, body_is_signed: bool = True) -> Signature:
    """Return a request's signature; Refused (401) for one that does not cover what it must, or is too old."""
    kind, _, text = request.header("authorization").partition(" ")
    words = dict(_PARAMETER.findall(text))
    if kind.lower() != "signature" or not words.get("keyId") or not words.get("signature"):
        raise _refused("There is no signature.")
    if words.get("algorithm", "").lower() != "rsa-sha256" or words.get("version", "1") != "1":
        raise _refused("The signature is of another algorithm or version.")
    names = tuple(words.get("headers", "date").lower().split())
    needed = list(_SIGNED)
    if body_is_signed and request.method in _METHODS_WITH_BODY:
        needed += _SIGNED_WITH_BODY
    missing = [name for name in needed if name not in names and not (name == "date" and "x-date" in names)]
    if missing:
        raise _refused(f"The signature does not cover {', '.join(missing)}.")
    _check_date(request)
    try:
        value = base64.b64decode(words["signature"], validate=True)
    except (binascii.Error, ValueError):
        raise _refused("The signature is not base64.") from None
    return Signature(key_id=words["keyId"], names=names, value=value)


def check_signature(request: Request, signature: Signature, public_der: bytes) -> None:
    """Refuse (401) a request that was not signed with the other half of this key, or was changed on its way."""
    rows = []
    for name in signature.names:
        if name == "(request-target)":
            rows.append(f"{name}: {request.method.lower()} {request.target}")
        elif request.headers.get(name) is None:
            raise _refused(f"The header {name} is signed, but not there.")
        else:
            rows.append(f"{name}: {request.header(name)}")
    if not verify("\n".join(rows).encode(), signature.value, public_der):
        raise _refused("The signature does not fit.")


def check_content(request: Request) -> None:
    """Refuse (401) a body, which must have been read, whose digest is not the one that was signed."""
    wanted = request.header("x-content-sha256")
    if wanted and wanted != base64.b64encode(bytes.fromhex(request.body.sha256)).decode():
        raise _refused("The body is not the one that was signed.")


def verify(data: bytes, signature: bytes, public_der: bytes) -> bool:
    """Whether a signature of data was made with the other half of a key."""
    key = serialization.load_der_public_key(public_der)
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _check_date(request: Request, *, now: Callable[[], float] = time.time) -> None:
    text = request.header("x-date") or request.header("date")
    try:
        sent_s = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        raise _refused("The date cannot be read.") from None
    if abs(now() - sent_s) > SKEW_S:
        raise _refused("The date is too far from this machine's.")


def _refused(why: str) -> Refused:
    return Refused(401, "NotAuthenticated", why)


def encoded(data: bytes) -> str:
    """Return bytes as tokens write them: URL-safe base64 without its padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
