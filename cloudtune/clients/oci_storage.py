"""``oci://`` opened as the user that every other call to Oracle Cloud is made as."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune.clients.oci_auth import Identity, config_file, identity
from cloudtune.clients.oci_endpoint import ENDPOINT, connection
from cloudtune.clients.oci_files import PART_BYTES, OciFiles

#: The variables that say who the user is, or where the services are.
_NAMES = (
    ENDPOINT,
    "OCI_CLI_AUTH",
    "OCI_IAM_TYPE",
    "OCI_CLI_CONFIG_FILE",
    "OCI_CONFIG_FILE",
    "OCI_CONFIG_LOCATION",
    "OCI_CLI_PROFILE",
    "OCI_CONFIG_PROFILE",
    "OCI_CLI_REGION",
    "OCI_RESOURCE_PRINCIPAL_VERSION",
    "OCIFS_IAM_TYPE",
    "OCIFS_CONFIG_LOCATION",
    "OCIFS_CONFIG_PROFILE",
)
_Facts = tuple[object, ...]


@attrs.frozen(kw_only=True)
class _Known:
    """Options that were made, and the facts that they were made of."""

    facts: _Facts
    options: dict[str, Any]
    token: Path | None


_known: _Known | None = None
_lock = threading.Lock()


def options(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the keywords of ocifs; the same ones as long as the user is the same.

    So one file system, with its connections, serves all that a thread does. What ocifs is told by variables of its own
    (``OCIFS_IAM_TYPE``) stays as it is.

    Raises:
        NotAllowed: there are no credentials, or they cannot be read.
        UsageError: a way to sign in is named that does not exist.
    """
    global _known  # noqa: PLW0603 - one user a process
    surroundings = os.environ if environ is None else environ
    with _lock:
        if _known is None or _known.facts != _facts(surroundings, _known.token):
            _known = _made(surroundings)
        return dict(_known.options)


def file_system(uri: str) -> tuple[OciFiles, str]:
    """Return the file system of a URI and the path there.

    Raises:
        NotAllowed: there are no credentials, or they cannot be read.
        UsageError: a way to sign in is named that does not exist.
    """
    return OciFiles(default_block_size=PART_BYTES, **options()), OciFiles._strip_protocol(uri)  # noqa: SLF001


def _facts(environ: Mapping[str, str], token: Path | None) -> _Facts:
    """Return what tells one user from another, a fresh session from an expired one."""
    files = (config_file(environ), *((token,) if token is not None else ()))
    return (*(environ.get(name) for name in _NAMES), *(_stamp(file) for file in files))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size


def _made(environ: Mapping[str, str]) -> _Known:
    found: dict[str, Any] = {"config_kwargs": connection(environ)}
    token = None
    if not environ.get("OCIFS_IAM_TYPE"):
        who = identity(environ)
        found |= _sign_in(who)
        named = who.config.get("security_token_file")
        token = Path(named).expanduser() if named else None
    return _Known(facts=_facts(environ, token), options=found, token=token)


def _sign_in(who: Identity) -> dict[str, Any]:
    signer = {} if who.signer is None else {"signer": who.signer}
    return {"config": dict(who.config), "iam_type": "api_key" if who.signer is None else "unknown_signer", **signer}
