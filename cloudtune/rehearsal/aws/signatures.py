"""Who signed a request: AWS's Signature Version 4, in the header or in the query.

Source: "Create a signed AWS API request" of AWS's IAM user guide.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, unquote

import attrs

from cloudtune.rehearsal.messages import Refused, Request

_HEADER = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<credential>[^,\s]+),\s*SignedHeaders=(?P<headers>[^,\s]+),\s*"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
#: How far the clocks of client and service may be apart.
_APART = timedelta(minutes=15)


@attrs.frozen(kw_only=True)
class Signature:
    """What a request says of its signer, and how it was signed."""

    key_id: str
    scope: tuple[str, str, str]
    headers: tuple[str, ...]
    signature: str
    moment: str
    in_query: bool

    @property
    def region(self) -> str:
        """The region that it was signed for."""
        return self.scope[1]

    @property
    def service(self) -> str:
        """The service that it was signed for."""
        return self.scope[2]


def signature_of(request: Request) -> Signature:
    """Return a request's signature; Refused where it has none, or one that cannot be read."""
    query = request.query
    if "X-Amz-Signature" in query:
        credential, names = query.get("X-Amz-Credential", ""), query.get("X-Amz-SignedHeaders", "")
        signature, moment, in_query = query["X-Amz-Signature"], query.get("X-Amz-Date", ""), True
    else:
        found = _HEADER.fullmatch(request.header("authorization").strip())
        if found is None:
            raise Refused(403, "MissingAuthenticationToken", "Missing Authentication Token")
        credential, names, signature = found["credential"], found["headers"], found["signature"]
        moment, in_query = request.header("x-amz-date"), False
    parts = credential.split("/")
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise Refused(
            403, "IncompleteSignature", f"Credential must have exactly 5 slash-delimited elements: {credential}"
        )
    signed = tuple(names.split(";"))
    return Signature(
        key_id=parts[0],
        scope=(parts[1], parts[2], parts[3]),
        headers=signed,
        signature=signature,
        moment=moment,
        in_query=in_query,
    )


def check_signature(request: Request, signature: Signature, secret: str, *, body_sha256: str) -> None:
    """Refuse a request that was not signed with the secret, or too long ago."""
    _check_moment(request, signature)
    hashed = hashlib.sha256(_canonical(request, signature, body_sha256).encode()).hexdigest()
    scope = "/".join((*signature.scope, "aws4_request"))
    text = "\n".join(("AWS4-HMAC-SHA256", signature.moment, scope, hashed))
    key = f"AWS4{secret}".encode()
    for word in (*signature.scope, "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), signature.signature):
        code = "SignatureDoesNotMatch" if signature.service in {"s3", "sts", "iam"} else "InvalidSignatureException"
        message = "The request signature we calculated does not match the signature you provided."
        raise Refused(403, code, f"{message} Check your AWS Secret Access Key and signing method.")


def _check_moment(request: Request, signature: Signature) -> None:
    try:
        moment = datetime.strptime(signature.moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise Refused(403, "IncompleteSignature", "Authorization header requires a valid Date") from None
    now = datetime.now(timezone.utc)
    lasts = timedelta(seconds=int(request.query.get("X-Amz-Expires", "0"))) if signature.in_query else _APART
    if now - moment > lasts or moment - now > _APART:
        code = "AccessDenied" if signature.in_query else "SignatureDoesNotMatch"
        raise Refused(403, code, f"Signature expired: {signature.moment} is not near {now:%Y%m%dT%H%M%SZ}")


def _canonical(request: Request, signature: Signature, body_sha256: str) -> str:
    plain = signature.service == "s3"
    # what is sent is encoded already; every service but S3 encodes it once more
    path = quote(unquote(request.raw_path), safe="/-_.~") if plain else quote(request.raw_path, safe="/-_.~")
    pairs = [(name, value) for name, value in request.queries if name != "X-Amz-Signature"]
    headers = [f"{name}:{' '.join(request.header(name).split())}\n" for name in signature.headers]
    digest = request.header("x-amz-content-sha256") or (
        "UNSIGNED-PAYLOAD" if plain and signature.in_query else body_sha256
    )
    return "\n".join((request.method, path, _query(pairs), "".join(headers), ";".join(signature.headers), digest))


def _query(pairs: Iterable[tuple[str, str]]) -> str:
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)
