"""Who may ask the stand-in for something: the user with an access key, and the roles of jobs with keys that end."""

from __future__ import annotations

import secrets
import threading
from datetime import datetime, timedelta, timezone

import attrs

from cloudtune.rehearsal.aws.signatures import check_signature, signature_of
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.messages import Refused, Request

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@attrs.frozen(kw_only=True)
class Keys:
    """An access key; ``token`` is what a session's requests bring besides, and ``arn`` who it stands for."""

    id: str
    secret: str = attrs.field(repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    arn: str
    ends: datetime | None = None

    @property
    def credentials(self) -> dict[str, str]:
        """The keys as a container's credentials are answered."""
        ends = self.ends or datetime.now(timezone.utc) + timedelta(hours=12)
        token = {"Token": self.token} if self.token else {}
        return {
            "AccessKeyId": self.id,
            "SecretAccessKey": self.secret,
            "Expiration": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
            **token,
        }


class Principals:
    """Everybody whom the stand-in knows. Its methods may be called by any thread."""

    def __init__(self, identity: Identity, account: str, region: str) -> None:
        self.account = account
        self._identity = identity
        self._region = region
        self._lock = threading.Lock()
        self._keys: dict[str, Keys] = {}
        self.user = f"arn:aws:iam::{account}:user/{identity.name}"
        self.sign_in()

    def sign_in(self, *, session: bool = False) -> Keys:
        """Give the user a fresh key in the file in which clients look for it; with ``session``, one that can end."""
        keys = self.issue(self.user, session=session)
        rows = [f"aws_access_key_id = {keys.id}", f"aws_secret_access_key = {keys.secret}"]
        rows += [f"aws_session_token = {keys.token}"] if keys.token else []
        self._identity.write(".aws/credentials", "\n".join(["[default]", *rows, ""]))
        self._identity.write(".aws/config", f"[default]\nregion = {self._region}\noutput = json\n")
        return keys

    def issue(self, arn: str, *, session: bool, lasts: timedelta = timedelta(hours=6)) -> Keys:
        """Make keys for somebody."""
        keys = Keys(
            id=("ASIA" if session else "AKIA") + "".join(secrets.choice(_LETTERS) for _ in range(16)),
            secret=secrets.token_urlsafe(30),
            token=secrets.token_urlsafe(90) if session else None,
            arn=arn,
            ends=datetime.now(timezone.utc) + lasts if session else None,
        )
        self.know(keys)
        return keys

    def know(self, keys: Keys) -> None:
        """Take in keys that were given out elsewhere."""
        with self._lock:
            self._keys[keys.id] = keys

    def forget(self, arn: str) -> None:
        """Take the keys of somebody back."""
        with self._lock:
            self._keys = {name: keys for name, keys in self._keys.items() if keys.arn != arn}

    def end_sessions(self) -> None:
        """End the user's keys: requests are refused as expired until somebody signs in again."""
        now = datetime.now(timezone.utc)
        with self._lock:
            for name, keys in self._keys.items():
                if keys.arn == self.user:
                    self._keys[name] = attrs.evolve(keys, ends=now)

    def admit(self, request: Request, *, body_sha256: str) -> Keys:
        """Return whose request it is; Refused where nobody's."""
        signature = signature_of(request)
        with self._lock:
            keys = self._keys.get(signature.key_id)
        if keys is None:
            raise _unknown(signature.service)
        given = request.header("x-amz-security-token") or request.query.get("X-Amz-Security-Token")
        if (keys.token or None) != (given or None):
            raise _unknown(signature.service)
        check_signature(request, signature, keys.secret, body_sha256=body_sha256)
        if keys.ends is not None and datetime.now(timezone.utc) >= keys.ends:
            raise Refused(400, "Expired", "The security token included in the request is expired")
        return keys


def _unknown(service: str) -> Refused:
    if service == "s3":
        message = "The AWS Access Key Id you provided does not exist in our records."
        return Refused(403, "InvalidAccessKeyId", message)
    code = "InvalidClientTokenId" if service in {"sts", "iam"} else "UnrecognizedClientException"
    return Refused(
        403 if service in {"sts", "iam"} else 400, code, "The security token included in the request is invalid."
    )
