"""Which credentials each cloud's own tools would find here, and how; their values are never read into a finding."""

from __future__ import annotations

import base64
import configparser
import json
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs
import yaml

from cloudtune.diagnosis.findings import Finding
from cloudtune.spec.eks import EKSJob
from cloudtune.spec.place import Infrastructure

#: Seconds before its end from which a token is said to end soon.
_SOON_S = 600
#: The type of a job on a cluster that the job knows by its name on EKS.
BY_NAME = "eksJob by name"
_NOT_SIGNED_IN = ": not signed in: "


def check_credentials(
    environ: Mapping[str, str], *, wanted: Collection[str] = (), now: float | None = None
) -> Iterator[Finding]:
    """Say for each cloud and for the Hub how somebody would be signed in.

    ``wanted`` are types of infrastructure: not to be signed in to their clouds is a warning, no problem, since a role
    of the machine may serve. A cluster that EKS is asked for by name (:data:`BY_NAME`) needs AWS's credentials alone.
    """
    looks = (
        (oci(environ, time.time() if now is None else now), {"dataScienceJob"}),
        (aws(environ), {"sageMakerTrainingJob", BY_NAME}),
        (kubernetes(environ), {"eksJob"}),
        (hub(environ), set[str]()),
    )
    for look, kinds in looks:
        for found in look:
            unsigned = found.status == "ok" and _NOT_SIGNED_IN in found.message
            yield attrs.evolve(found, status="warning") if unsigned and kinds & set(wanted) else found


def wanted_by(place: Infrastructure) -> str:
    """Return what :func:`check_credentials` is told that a job in a place needs."""
    by_name = isinstance(place, EKSJob) and place.cluster is not None and place.context is None
    return BY_NAME if by_name else place.type


# --- Oracle Cloud


def oci(environ: Mapping[str, str], now: float) -> Iterator[Finding]:
    """Look where the oci SDK, its command line and Oracle ADS look."""
    named = environ.get("OCI_CLI_AUTH") or environ.get("OCI_IAM_TYPE")
    file = _oci_file(environ)
    if named in {"instance_principal", "resource_principal"}:
        yield _found("OCI", f"the {named.replace('_', ' ')} of this machine (OCI_CLI_AUTH)")
    elif file.is_file():
        yield from _oci_profile(environ, file, now)
    elif environ.get("OCI_RESOURCE_PRINCIPAL_VERSION"):
        yield _found("OCI", "the resource principal of this notebook session or job")
    else:
        yield _none("OCI", f"{file} does not exist", "oci setup config, or oci session authenticate")


def _oci_file(environ: Mapping[str, str]) -> Path:
    names = ("OCI_CLI_CONFIG_FILE", "OCI_CONFIG_FILE", "OCI_CONFIG_LOCATION")
    return _path(environ, next((environ[name] for name in names if environ.get(name)), "~/.oci/config"))


def _oci_profile(environ: Mapping[str, str], file: Path, now: float) -> Iterator[Finding]:
    profile = environ.get("OCI_CLI_PROFILE") or environ.get("OCI_CONFIG_PROFILE") or "DEFAULT"
    sections = _sections(file)
    if sections is None or profile not in sections:
        known = ", ".join(sections or ()) or "none"
        yield _broken("OCI", f"{file} has no profile {profile}", f"its profiles: {known}; choose one: OCI_CLI_PROFILE")
        return
    keys = sections[profile]
    where = f"profile {profile} of {file}, region {environ.get('OCI_CLI_REGION') or keys.get('region', 'not named')}"
    key = _path(environ, keys.get("key_file", ""))
    if not keys.get("key_file") or not key.is_file():
        yield _broken("OCI", f"{where}: its key_file {key} does not exist", "mend the profile: oci setup config")
        return
    if os.name == "posix" and stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield _broken("OCI", f"{key} can be read by others than you", f"chmod 600 {key}")
    token = keys.get("security_token_file")
    if token is None:
        yield _found("OCI", f"the API key of {where}")
        return
    yield _session(_path(environ, token), where, now)


def _session(file: Path, where: str, now: float) -> Finding:
    again = "oci session authenticate (or oci session refresh)"
    if not file.is_file():
        return _broken("OCI", f"{where}: its session token {file} does not exist", again)
    ends = token_ends(file.read_text(encoding="utf-8", errors="replace"))
    if ends is None:
        return _found("OCI", f"the session token of {where}")
    minutes = int((ends - now) / 60)
    if ends <= now:
        return _broken("OCI", f"the session token of {where} ended {-minutes} minutes ago", again)
    status = "warning" if ends - now < _SOON_S else "ok"
    said = f"signed in by the session token of {where}, which ends in {minutes} minutes"
    return Finding(check="credentials", status=status, message=f"OCI: {said}", hint=again if status != "ok" else "")


def token_ends(token: str) -> float | None:
    """Return when a JSON web token ends, in seconds since the epoch; None if it does not say."""
    parts = token.strip().split(".")
    try:
        body = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(body["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None


# --- AWS, Kubernetes, the Hub


def aws(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look where boto3 looks."""
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    tail = f", region {region}" if region else ""
    profile = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    files = {
        "AWS_SHARED_CREDENTIALS_FILE": _path(environ, environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")),
        "AWS_CONFIG_FILE": _path(environ, environ.get("AWS_CONFIG_FILE", "~/.aws/config")),
    }
    sections = {
        name.removeprefix("profile ").strip(): file for file in files.values() for name in _sections(file) or {}
    }
    if environ.get("AWS_ACCESS_KEY_ID") and profile is None:
        yield _found("AWS", f"the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY{tail}")
    elif (profile or "default") in sections:
        yield _found("AWS", f"profile {profile or 'default'} of {sections[profile or 'default']}{tail}")
    elif profile is not None:
        known = ", ".join(sections) or "none"
        yield _broken("AWS", f"there is no profile {profile}", f"profiles: {known}; aws configure --profile {profile}")
    elif environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        yield _found("AWS", f"the role of this pod (AWS_WEB_IDENTITY_TOKEN_FILE){tail}")
    elif any(name.startswith("AWS_CONTAINER_CREDENTIALS_") for name in environ):
        yield _found("AWS", f"the role of this container{tail}")
    else:
        hint = "aws configure, or aws sso login; on an EC2 instance its role may serve"
        yield _none("AWS", f"neither variables nor {files['AWS_SHARED_CREDENTIALS_FILE']}", hint)


def kubernetes(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look where kubectl looks."""
    text = environ.get("KUBECONFIG") or "~/.kube/config"
    files = [_path(environ, one) for one in text.split(os.pathsep) if one]
    there = [file for file in files if file.is_file()]
    if not there:
        if environ.get("KUBERNETES_SERVICE_HOST"):
            yield _found("Kubernetes", "the service account of this pod")
        else:
            hint = "aws eks update-kubeconfig --name CLUSTER"
            yield _none("Kubernetes", f"{files[0] if files else text} does not exist", hint)
        return
    context = next(filter(None, map(_context, there)), None)
    if context is None:
        yield _broken("Kubernetes", f"{there[0]} chooses no context", "kubectl config use-context NAME")
    else:
        yield _found("Kubernetes", f"context {context} of {there[0]}")


def _context(file: Path) -> str | None:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError):
        return None
    context = found.get("current-context") if isinstance(found, Mapping) else None
    return str(context) if context else None


def hub(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look where the Hugging Face Hub's library looks."""
    where = hub_token(environ)
    if where is not None:
        yield _found("Hugging Face Hub", where)
    else:
        hint = "export HF_TOKEN=..., or hf auth login; only gated and private models need it"
        yield _none("Hugging Face Hub", "neither HF_TOKEN nor a token that was saved", hint)


def hub_token(environ: Mapping[str, str]) -> str | None:
    """Return where a token of the Hub is, None if there is none."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environ.get(name):
            return f"the variable {name}"
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = environ.get("HF_HOME") or f"{caches}/huggingface"
    file = _path(environ, environ.get("HF_TOKEN_PATH") or f"{folder}/token")
    return f"the token in {file}" if file.is_file() and file.stat().st_size else None


# --- findings


def _found(whose: str, how: str) -> Finding:
    return Finding(check="credentials", status="ok", message=f"{whose}: signed in by {how}")


def _none(whose: str, why: str, hint: str) -> Finding:
    """Return that nobody is signed in, which is fine as long as nothing needs it: a job's place says if it does."""
    return Finding(check="credentials", status="ok", message=f"{whose}{_NOT_SIGNED_IN}{why}", hint=hint)


def _broken(whose: str, what: str, hint: str) -> Finding:
    return Finding(check="credentials", status="warning", message=f"{whose}: {what}", hint=hint)


def _sections(file: Path) -> dict[str, dict[str, str]] | None:
    """Return a file of profiles; None if there is none, or it is something else."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, configparser.Error):
        return None
    return {name: dict(parser[name]) for name in parser.sections()}


def _path(environ: Mapping[str, str], text: str) -> Path:
    """Return a path; ``~`` is the home of the variables, which need not be this process's."""
    home = environ.get("HOME")
    return Path(home + text[1:]) if home and text.startswith("~/") else Path(text).expanduser()
