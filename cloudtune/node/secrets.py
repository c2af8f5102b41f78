"""Values of secrets, fetched on the node by reference; they go into the command's variables and nowhere else.

``env:NAME`` comes from the agent's own variables, ``k8s:NAME/KEY`` has been put there by Kubernetes. An OCI Vault
secret (its OCID) is read by the cloud's own library in a process apart. So is an AWS Secrets Manager secret (its ARN)
where somebody's profile says who asks; the role of a container is asked without that library.
"""

from __future__ import annotations

import base64
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudtune.node import aws, processes
from cloudtune.node.errors import NodeError
from cloudtune.node.principals import LIBRARY, oci_client, why_refused

#: Kinds of references that need a cloud's library: what they begin with, the module, what pip calls it.
LIBRARIES = (
    ("ocid1.vaultsecret.", *LIBRARY),
    ("arn:", "boto3", "boto3>=1.28"),
)
_TIMEOUT_S = 120

#: Returns the interpreter of an environment that has a module; the second argument is the requirement for pip.
Environment = Callable[[str, str], str]


def local_value(name: str, reference: str, variables: Mapping[str, str]) -> str | None:
    """Return the value of a reference that this process can resolve by itself, None for one that needs a cloud."""
    if reference.startswith("env:"):
        wanted = reference[len("env:") :]
        if wanted not in variables:
            raise NodeError(f"secret {name} is to come from {wanted}, which is not set where this node started")
        return variables[wanted]
    if reference.startswith("k8s:"):
        if name not in variables:
            raise NodeError(f"secret {name} ({reference}) did not reach the pod: does the Kubernetes secret exist?")
        return variables[name]
    if not any(reference.startswith(start) for start, _, _ in LIBRARIES):
        kinds = "env:NAME, k8s:NAME/KEY, the OCID of a Vault secret, the ARN of a Secrets Manager secret"
        raise NodeError(f"secret {name}: {reference!r} is no reference that this agent knows ({kinds})")
    return None


def fetch(name: str, reference: str, *, archive: str, environment: Environment, variables: Mapping[str, str]) -> str:
    """Return the value of a secret that a cloud keeps."""
    module, requirement = next((module, pip) for start, module, pip in LIBRARIES if reference.startswith(start))
    alone = reference.startswith("arn:") and aws.has_own_keys(variables)
    python = sys.executable if alone else environment(module, requirement)
    process = processes.start(
        [python, "-I", archive, "secret", reference],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        value, words = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise NodeError(f"secret {name} ({reference}) was not answered within {_TIMEOUT_S} s") from None
    finally:
        processes.forget(process)
    if process.returncode != 0:
        lines = words.decode("utf-8", "replace").strip().splitlines()
        raise NodeError(f"cannot read secret {name} ({reference}): {lines[-1] if lines else 'no reason given'}")
    return value.decode("utf-8")


def write_key(folder: Path, value: str) -> Path:
    """Write an ssh key where only this user can read it; return the file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "git-key"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(value.strip() + "\n")  # ssh refuses a key whose last line has no end
    return path


def print_secret(reference: str) -> int:
    """Write a secret's value to stdout, which must be a pipe; runs in an environment that has the cloud's library."""
    is_oci = reference.startswith("ocid1.")
    try:
        value = _read_oci(reference) if is_oci else _read_aws(reference)
    except Exception as error:  # noqa: BLE001 - whatever the library raises, the agent reports its last line
        words = f"{type(error).__name__}: {' '.join(str(error).split())}"
        sys.stderr.write((why_refused(error, right="read secret-bundles") if is_oci else words) + "\n")
        return 1
    sys.stdout.buffer.write(value)
    sys.stdout.flush()
    return 0


def _read_oci(reference: str) -> bytes:
    oci: Any = importlib.import_module("oci")
    client = oci_client(oci, oci.secrets.SecretsClient, retry_strategy=oci.retry.DEFAULT_RETRY_STRATEGY)
    bundle = client.get_secret_bundle(reference).data
    return base64.b64decode(bundle.secret_bundle_content.content)


def _read_aws(reference: str) -> bytes:
    if aws.has_own_keys(os.environ):
        return aws.read_secret(reference, os.environ)
    boto3: Any = importlib.import_module("boto3")
    region = reference.split(":")[3]
    answer = boto3.client("secretsmanager", region_name=region or None).get_secret_value(SecretId=reference)
    text = answer.get("SecretString")
    return text.encode("utf-8") if text is not None else bytes(answer["SecretBinary"])
