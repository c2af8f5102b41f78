"""Who may sign: the user's API key, session tokens that expire, and the resource principals of job runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping

import attrs

from cloudtune.errors import MissingExtra
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.keys import Key, make_key
from cloudtune.rehearsal.messages import Refused, Request
from cloudtune.rehearsal.oci import signatures
from cloudtune.rehearsal.oci.ocids import REGION, new_ocid

#: Seconds for which a session token is good, and one of a resource principal.
SESSION_S = 3600
RESOURCE_S = 24 * 3600
#: Below the client's home.
CONFIG = ".oci/config"
SESSION_PROFILE = "SESSION"
_KEY = ".oci/key.pem"
_TOKEN = ".oci/token"  # noqa: S105 - a file's name


@attrs.frozen(kw_only=True)
class Caller:
    """Who sent a request: the user, or a run by its own right."""

    id: str
    public_der: bytes = attrs.field(repr=False)
    expires_s: float | None = None


class Principals:
    """All who are known to one stand-in. Its methods may be called by any thread."""

    def __init__(self, identity: Identity) -> None:
        if not signatures.HAS_LIBRARY:
            raise MissingExtra("oci", "a rehearsal of OCI")
        self.identity = identity
        self.tenancy, self.user = new_ocid("tenancy"), new_ocid("user")
        self._known: dict[str, Caller] = {}
        self._node_key: Key | None = None
        self._lock = threading.RLock()
        key = identity.key
        name = f"{self.tenancy}/{self.user}/{key.fingerprint}"
        self._known[name] = Caller(id=self.user, public_der=key.public_der)
        self._write_files(key)
        self.sign_in()

    def admit(self, request: Request, *, body_is_signed: bool = True) -> Caller:
        """Return who signed a request; Refused (401) where that is nobody known, or their token has expired."""
        signature = signatures.read_signature(request, body_is_signed=body_is_signed)
        with self._lock:
            caller = self._known.get(signature.key_id)
        if caller is None:
            raise Refused(401, "NotAuthenticated", "Nobody signs by that key id.")
        if caller.expires_s is not None and caller.expires_s <= time.time():
            raise Refused(401, "NotAuthenticated", "The token has expired.")
        signatures.check_signature(request, signature, caller.public_der)
        return caller

    def sign_in(self) -> None:
        """Give the session profile a fresh token, as ``oci session authenticate`` does."""
        claims = {"sub": self.user, "tenant": self.tenancy, "ttype": "login"}
        text = self._issue(claims, self.user, self.identity.key.public_der, SESSION_S)
        self.identity.write(_TOKEN, text)

    def end_sessions(self) -> None:
        """Let all session tokens of the user expire; until :meth:`sign_in`, nobody passes with one."""
        with self._lock:
            for name, caller in self._known.items():
                if name.startswith("ST$") and caller.id == self.user:
                    self._known[name] = attrs.evolve(caller, expires_s=0.0)

    def resource_files(self, run_id: str, compartment_id: str) -> Mapping[str, str]:
        """Return the files by which a job run signs: its session token and its key."""
        with self._lock:
            key = self._node_key = self._node_key or make_key()
        claims = {
            "sub": run_id,
            "res_id": run_id,
            "res_type": "datasciencejobrun",
            "res_tenant": self.tenancy,
            "res_compartment": compartment_id,
            "ttype": "res_sp",
        }
        return {
            "rpst": self._issue(claims, run_id, key.public_der, RESOURCE_S),
            "private.pem": key.private_pem.decode(),
        }

    def instance_token(self, instance_id: str, public_der: bytes) -> str:
        """Return a token by which a compute instance signs with a key of its own making."""
        claims = {"sub": instance_id, "opc-instance": instance_id, "opc-tenant": self.tenancy, "ttype": "x509"}
        return self._issue(claims, instance_id, public_der, SESSION_S)

    def forget(self, identity: str) -> None:
        """Let nobody sign as this any more: its run is over."""
        with self._lock:
            self._known = {name: caller for name, caller in self._known.items() if caller.id != identity}

    def _issue(self, claims: Mapping[str, str], owner: str, public_der: bytes, seconds: int) -> str:
        now = int(time.time())
        times = {"iat": now, "exp": now + seconds, "jti": new_ocid("token")}
        head = signatures.encoded(json.dumps({"alg": "RS256", "typ": "JWT", "kid": "rehearsed"}).encode())
        body = signatures.encoded(json.dumps({**claims, **times, "iss": "rehearsed"}).encode())
        # the service's own signature: no client reads it, and none is promised
        text = f"{head}.{body}.{signatures.encoded(b'rehearsed')}"
        with self._lock:
            caller = Caller(id=owner, public_der=public_der, expires_s=now + seconds)
            self._known[f"ST${text}"] = caller
        return text

    def _write_files(self, key: Key) -> None:
        # the last line is the mark by which Oracle's command line knows such keys
        file = self.identity.write(_KEY, key.private_pem + b"OCI_API_KEY\n")
        common = {
            "user": self.user,
            "fingerprint": key.fingerprint,
            "key_file": file,
            "tenancy": self.tenancy,
            "region": REGION,
        }
        session = {**common, "security_token_file": self.identity.home / _TOKEN}
        parts = [
            "\n".join([f"[{name}]", *(f"{field}={value}" for field, value in rows.items())])
            for name, rows in (("DEFAULT", common), (SESSION_PROFILE, session))
        ]
        self.identity.write(CONFIG, "\n\n".join(parts) + "\n")
