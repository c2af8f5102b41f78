"""Tells whether a file looks like a credential, by its name and by what is in it.

The scan is made to be believed: a value counts only if it could be a real one, so placeholders (``<your token>``,
``hf_xxxx``), the examples of the clouds' documentation and public halves of keys (certificates, ``.pub``) pass.
Nothing here returns or logs a value that it found.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from pathlib import PurePosixPath

import attrs

#: Larger files are judged by their name alone.
LIMIT = 1 << 20
_BINARY_HEAD = 8192
_PASSWORDS = "a file of passwords"
_BEARER_FILE = "a file that holds an access token"
_KEY_STORE = "a key store"
_PRIVATE_KEY = "a private key"

_NAMES = {
    **dict.fromkeys((".netrc", "_netrc", ".pgpass", ".git-credentials", ".htpasswd"), _PASSWORDS),
    **dict.fromkeys((".pypirc", ".dockercfg", ".s3cfg", ".boto"), "a client's settings with its password"),
    **dict.fromkeys((".databrickscfg", ".vault-token", "kaggle.json"), _BEARER_FILE),
    **dict.fromkeys(
        ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"), "an SSH private key"
    ),
    "application_default_credentials.json": "Google Cloud credentials",
    "kubeconfig": "a Kubernetes client's credentials",
}
_SUFFIXES = {
    **dict.fromkeys((".p12", ".pfx", ".jks", ".keystore", ".kdbx"), _KEY_STORE),
    ".ppk": _PRIVATE_KEY,
    ".kubeconfig": "a Kubernetes client's credentials",
}
#: Files that say what they are only together with a folder above them.
_BELOW = (
    (".aws", "credentials", "AWS credentials"),
    (".oci", "config", "an OCI client's configuration"),
    (".kube", "config", "a Kubernetes client's credentials"),
    (".huggingface", "token", "a Hugging Face token"),
    ("huggingface", "token", "a Hugging Face token"),
    ("huggingface", "stored_tokens", "a Hugging Face token"),
    ("gh", "hosts.yml", "a GitHub token"),
)
_ENV = re.compile(r"\.env(?:\.(?!(?:example|sample|template|dist|defaults|schema)$).+)?")
_PUBLIC_PEM = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*(?:CERTIFICATE|CERTIFICATE REQUEST|PUBLIC KEY|CRL|PARAMETERS)-----"
)
_MADE_UP = re.compile(rb"example|placeholder|your|dummy|fake|redacted|x{4}|\*{3}|\.{3}|<", re.IGNORECASE)

_PEM = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(rb"[A-Za-z0-9+/]{40,}")
_AWS_ID = re.compile(rb"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])")
_AWS_SECRET = re.compile(rb"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_AWS_NAMED = re.compile(
    rb"aws_secret_access_key[\"']?\s*[=:]\s*[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", re.IGNORECASE
)
_OCI_KEY_FILE = re.compile(rb"^[ \t]*key_file\s*=\s*[^\s<]", re.MULTILINE)
_OCI_FINGERPRINT = re.compile(
    rb"^[ \t]*fingerprint\s*=\s*((?:[0-9a-f]{2}:){15}[0-9a-f]{2})\b", re.MULTILINE | re.IGNORECASE
)
#: The fingerprint that Oracle's documentation shows.
_OCI_SAMPLE = b"20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34"
_JWT = re.compile(rb"\beyJ[A-Za-z0-9_-]{8,}\.(eyJ[A-Za-z0-9_-]{16,})\.[A-Za-z0-9_-]{16,}")
_KUBECONFIG_SECRET = re.compile(
    rb"^[ \t-]*(?:client-key-data|token|password)[\"']?\s*:\s*[\"']?([A-Za-z0-9+/=._-]{16,})", re.MULTILINE
)
_SERVICE_ACCOUNT = re.compile(rb"\"type\"\s*:\s*\"service_account\"")
_SERVICE_KEY = re.compile(rb"\"private_key\"\s*:\s*\"-----BEGIN [A-Z ]*PRIVATE KEY-----((?:\\n|[A-Za-z0-9+/=\s])+)")
_NPM_SECRET = re.compile(rb"(?:_authToken|_auth|_password)\s*=\s*[\"']?([A-Za-z0-9+/=_-]{8,})")
_DOCKER_SECRET = re.compile(rb"\"(?:auth|identitytoken)\"\s*:\s*\"([A-Za-z0-9+/=._-]{8,})\"")


@attrs.frozen
class _Mark:
    """What gives a kind of credential away: a literal that must be there, and a closer look at the text."""

    label: str
    literals: tuple[bytes, ...]
    test: Callable[[bytes], bool]


def looks_like(path: str, data: bytes | None) -> str | None:
    """Return what kind of credential a file looks like, or None.

    ``path`` uses ``/`` and should begin with the folder that was named; ``data`` is the file's content, or None where
    it is too large to read (:data:`LIMIT`).
    """
    if data is not None and not data.strip():
        return None
    text = None if data is None or b"\0" in data[:_BINARY_HEAD] else data
    return _by_name(PurePosixPath(path), text) or (None if text is None else _by_content(text))


def _by_name(path: PurePosixPath, text: bytes | None) -> str | None:
    name = path.name.lower()
    for folder, file, label in _BELOW:
        if name == file and folder in path.parts[:-1]:
            return label
    if _ENV.fullmatch(name):
        return "a file of environment variables, where secrets are kept"
    if name.endswith(".pem"):
        public = text is not None and _PUBLIC_PEM.search(text) and not _PEM.search(text)
        return None if public else _PRIVATE_KEY
    if name == ".npmrc" and text is not None:
        return "an npm token" if _any_real(_NPM_SECRET, text, distinct=6) else None
    if name == "config.json" and ".docker" in path.parts and text is not None:
        return "a container registry's password" if _any_real(_DOCKER_SECRET, text, distinct=6) else None
    return _NAMES.get(name) or _SUFFIXES.get(path.suffix.lower())


def _by_content(text: bytes) -> str | None:
    for mark in _MARKS:
        if any(literal in text for literal in mark.literals) and mark.test(text):
            return mark.label
    return None


def _is_real(value: bytes, distinct: int = 10) -> bool:
    """Return whether a value could be a real secret: varied enough, and with no word that says it is made up."""
    return len(set(value)) >= distinct and not _MADE_UP.search(value)


def _any_real(pattern: re.Pattern[bytes], text: bytes, distinct: int = 10) -> bool:
    return any(_is_real(match[match.re.groups], distinct) for match in pattern.finditer(text))


def _token(pattern: bytes, *, kinds: int = 2) -> Callable[[bytes], bool]:
    """Return a test for a token with a telling prefix; ``kinds`` of lower case, upper case and digits are in it."""
    compiled = re.compile(rb"(?<![A-Za-z0-9_-])(?:" + pattern + rb")(?![A-Za-z0-9_-])")

    def test(text: bytes) -> bool:
        return any(_is_real(match[1]) and _kinds(match[1]) >= kinds for match in compiled.finditer(text))

    return test


def _has_private_key(text: bytes) -> bool:
    for match in _PEM.finditer(text):
        body = text[match.end() : match.end() + 1200].partition(b"-----END")[0]
        if any(_is_real(run[0], 16) for run in _PEM_BODY.finditer(body)):
            return True
    return False


def _has_aws_keys(text: bytes) -> bool:
    if any(_is_real(match[1]) for match in _AWS_NAMED.finditer(text)):
        return True
    for match in _AWS_ID.finditer(text):
        if not _is_real(match[0], 8):
            continue
        around = text[max(0, match.start() - 400) : match.end() + 400]
        if any(_kinds(secret[0]) == 3 and _is_real(secret[0], 16) for secret in _AWS_SECRET.finditer(around)):
            return True
    return False


def _kinds(value: bytes) -> int:
    """Return how many of lower case, upper case and digits are there; a hash has two of them, a word one."""
    return sum(re.search(kind, value) is not None for kind in (rb"[a-z]", rb"[A-Z]", rb"[0-9]"))


def _has_oci_key(text: bytes) -> bool:
    fingerprints = {match[1].lower() for match in _OCI_FINGERPRINT.finditer(text)} - {_OCI_SAMPLE}
    return bool(_OCI_KEY_FILE.search(text)) and any(len(set(found)) > 4 for found in fingerprints)


def _has_cluster_token(text: bytes) -> bool:
    for match in _JWT.finditer(text):
        claims = match[1]
        try:
            decoded = base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4))
        except (binascii.Error, ValueError):
            continue
        if b"kubernetes" in decoded or b"serviceaccount" in decoded:
            return True
    return False


def _has_kubeconfig(text: bytes) -> bool:
    whole = b"clusters" in text and b"users" in text and re.search(rb"kind[\"']?\s*:\s*[\"']?Config\b", text)
    return bool(whole) and _any_real(_KUBECONFIG_SECRET, text, distinct=8)


def _has_service_account(text: bytes) -> bool:
    if not _SERVICE_ACCOUNT.search(text):
        return False
    bodies = (re.sub(rb"\\n|\s", b"", match[1]) for match in _SERVICE_KEY.finditer(text))
    return any(len(body) >= 24 and _is_real(body) for body in bodies)


_MARKS = (
    _Mark("a Google service account's key", (b"service_account",), _has_service_account),
    _Mark(_PRIVATE_KEY, (b"PRIVATE KEY",), _has_private_key),
    _Mark("AWS access keys", (b"AKIA", b"ASIA", b"secret_access_key", b"SECRET_ACCESS_KEY"), _has_aws_keys),
    _Mark("an OCI client's configuration", (b"key_file",), _has_oci_key),
    _Mark("a Kubernetes client's credentials", (b"clusters",), _has_kubeconfig),
    _Mark("a Kubernetes service account's token", (b"eyJ",), _has_cluster_token),
    _Mark("a Hugging Face token", (b"hf_",), _token(rb"hf_([A-Za-z0-9]{30,})")),
    _Mark(
        "a GitHub token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        _token(rb"(?:gh[pousr]_|github_pat_)([A-Za-z0-9_]{36,})"),
    ),
    _Mark("a GitLab token", (b"glpat-",), _token(rb"glpat-([A-Za-z0-9_-]{20,})", kinds=3)),
    _Mark("a Slack token", (b"xox",), _token(rb"xox[abprs]-([A-Za-z0-9-]{20,})")),
    _Mark("an API key of a model service", (b"sk-",), _token(rb"sk-(?:proj-|ant-)?([A-Za-z0-9_-]{40,})", kinds=3)),
    _Mark("a package index token", (b"pypi-AgEI",), _token(rb"pypi-AgEI([A-Za-z0-9_-]{40,})", kinds=3)),
    _Mark("an npm token", (b"npm_",), _token(rb"npm_([A-Za-z0-9]{36,})")),
)
