"""What keeps a rehearsal from a real cloud: variables that are set, variables that go, files that are hidden."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cloudtune.node.masks import is_secret_name

#: Nothing listens here (the discard port): what is sent to a cloud's metadata service is refused at once.
_NOBODY = "127.0.0.1:9"
#: For nodes and clients alike: no metadata services, no proxies, no telemetry.
OFF: Mapping[str, str] = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{_NOBODY}",
    "OCI_METADATA_BASE_URL": f"http://{_NOBODY}",
    "GCE_METADATA_HOST": _NOBODY,
    "NO_GCE_CHECK": "true",
    "NO_PROXY": "*",
    "no_proxy": "*",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "CLOUDTUNE_REHEARSED": "1",
}
_PROXY = re.compile(r"(?:HTTP|HTTPS|FTP|ALL|NO)_PROXY", re.IGNORECASE)
#: Variables of clouds, their tools and the places that hold credentials.
_CLOUD = re.compile(
    r"(?:AWS|AMAZON|BOTO|OCI|OCIFS|KUBE|KUBECTL|KUBERNETES|GOOGLE|GCLOUD|GCE|CLOUDSDK|AZURE|SAGEMAKER|SM|FSSPEC|"
    r"NB_SESSION)_.*|\w+_OCID|KUBECONFIG|HF_TOKEN_PATH|SSH_AUTH_SOCK|DOCKER_CONFIG|DOCKER_AUTH_CONFIG|NETRC|"
    r"GIT_ASKPASS|SSH_ASKPASS"
)
#: Below the user's home: what a job or a client must not find there.
_CREDENTIALS = (
    ".aws",
    ".azure",
    ".cache/huggingface/stored_tokens",
    ".cache/huggingface/token",
    ".config/gcloud",
    ".docker",
    ".git-credentials",
    ".huggingface",
    ".kube",
    ".netrc",
    ".oci",
    ".oraclebmc",
    ".pypirc",
    ".ssh",
)


def credential_places() -> tuple[Path, ...]:
    """Return where the user's real credentials may lie on this machine."""
    try:
        home = Path.home()
    except RuntimeError:  # an account without a home has none there
        return ()
    return tuple(home / name for name in _CREDENTIALS)


def is_left_out(name: str) -> bool:
    """Whether a variable of the user's shell says where a cloud is, or who the user is there."""
    return _PROXY.fullmatch(name) is not None or _CLOUD.fullmatch(name) is not None or is_secret_name(name)


def quiet(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a shell without those by which a client would find a real cloud."""
    return {name: value for name, value in environment.items() if not is_left_out(name)} | dict(OFF)
