"""Who cloudtune is to Oracle Cloud: what ``oci`` users have set up, found the way its command line finds it.

In turn: what ``OCI_CLI_AUTH`` (or Oracle ADS's ``OCI_IAM_TYPE``) names; the profile of the configuration file, with its
session token if it has one; the resource principal of a job or notebook session. Nothing is kept or written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import MissingExtra, NotAllowed, UsageError

try:
    import oci as sdk
except ImportError as error:
    raise MissingExtra("oci", "OCI Data Science") from error

__all__ = ["ENDPOINT", "Identity", "config_file", "identity", "sdk"]

#: One base for all services, in place of the regions' own: a stand-in on this machine.
ENDPOINT = "CLOUDTUNE_OCI_ENDPOINT"
_DEFAULT_FILE = "~/.oci/config"
_KINDS = {
    "api_key": "api_key",
    "security_token": "session",
    "session_token": "session",
    "instance_principal": "instance",
    "resource_principal": "resource",
}
_SET_UP = "set up a profile (oci setup config), sign in (oci session authenticate), or name another: OCI_CLI_PROFILE"


@attrs.frozen(kw_only=True)
class Identity:
    """What every client of the SDK is made with; ``kind`` is ``api_key``, ``session``, ``instance`` or ``resource``."""

    kind: str
    config: Mapping[str, Any]
    signer: Any = attrs.field(default=None, repr=False)

    @property
    def region(self) -> str | None:
        """The region of the profile or principal."""
        found = self.config.get("region") or getattr(self.signer, "region", None)
        return None if found is None else str(found)


def identity(environ: Mapping[str, str] | None = None) -> Identity:
    """Return who the variables, files and surroundings say the user is.

    Raises:
        NotAllowed: there are no credentials, or they cannot be read.
        UsageError: a way to sign in is named that does not exist.
    """
    known = os.environ if environ is None else environ
    named = known.get("OCI_CLI_AUTH") or known.get("OCI_IAM_TYPE")
    if named is not None and named not in _KINDS:
        hint = f"ways to sign in: {', '.join(_KINDS)}"
        raise UsageError(f"OCI_CLI_AUTH names {named!r}, which is no way to sign in", hint=hint)
    kind = _KINDS[named] if named is not None else _kind_of_surroundings(known)
    makers: dict[str, Callable[[], Identity]] = {
        "resource": lambda: _principal("resource", sdk.auth.signers.get_resource_principals_signer),
        "instance": lambda: _principal("instance", lambda: _instance_signer(known)),
        "api_key": lambda: _profile(known),
        "session": lambda: _profile(known),
    }
    return makers[kind]()


def _kind_of_surroundings(known: Mapping[str, str]) -> str:
    """A file that the user made comes before what the place gives: in a notebook session both may be there."""
    if not config_file(known).exists() and known.get("OCI_RESOURCE_PRINCIPAL_VERSION"):
        return "resource"
    return "api_key"


def config_file(known: Mapping[str, str]) -> Path:
    """Return where the user's configuration file is, or would be."""
    names = ("OCI_CLI_CONFIG_FILE", "OCI_CONFIG_FILE", "OCI_CONFIG_LOCATION")
    return Path(next((known[name] for name in names if known.get(name)), _DEFAULT_FILE)).expanduser()


def _profile(known: Mapping[str, str]) -> Identity:
    file = config_file(known)
    names = ("OCI_CLI_PROFILE", "OCI_CONFIG_PROFILE")
    profile = next((known[name] for name in names if known.get(name)), "DEFAULT")
    try:
        config = sdk.config.from_file(str(file), profile)
        region = known.get("OCI_CLI_REGION")
        if region:
            config["region"] = region
        token = config.get("security_token_file")
        if token is None:
            sdk.config.validate_config(config)
            return Identity(kind="api_key", config=config)
        text = Path(token).expanduser().read_text(encoding="utf-8").strip()
        key = sdk.signer.load_private_key_from_file(config["key_file"], config.get("pass_phrase"))
        return Identity(kind="session", config=config, signer=sdk.auth.signers.SecurityTokenSigner(text, key))
    except (sdk.exceptions.ClientError, OSError, ValueError, KeyError) as error:
        if not file.exists():
            raise NotAllowed(f"no credentials for OCI: {file} does not exist", hint=_SET_UP) from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise NotAllowed(f"no credentials for OCI in {file}, profile {profile}: {reason}", hint=_SET_UP) from error


def _instance_signer(known: Mapping[str, str]) -> Any:
    endpoint = known.get(ENDPOINT)
    place = {"federation_endpoint": f"{endpoint}/v1/x509"} if endpoint else {}
    return sdk.auth.signers.InstancePrincipalsSecurityTokenSigner(**place)


def _principal(kind: str, make: Callable[[], Any]) -> Identity:
    try:
        signer = make()
    except Exception as error:  # each principal fails with exceptions of its own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        hint = f"this machine has no {kind} principal, or no right to use it; unset OCI_CLI_AUTH to use a profile"
        raise NotAllowed(f"no {kind} principal of OCI: {reason}", hint=hint) from error
    region = getattr(signer, "region", None)
    return Identity(kind=kind, config={"region": region} if region else {}, signer=signer)
