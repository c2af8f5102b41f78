"""What is a secret by its name or by its place in a URI, and how a text is shown without it.

The node and the client decide alike: this is the one place, and the node's room stands on the ground floor.
"""

from __future__ import annotations

import re

#: Names whose literal values are masked (the public contract's list).
SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|KEY|PASSWORD|SECRET)$", re.IGNORECASE)
#: Variables that carry what was taken out of a URI to the node; their names say that they are secrets.
URI_VARIABLE = re.compile(r"CLOUDTUNE_URI_[0-9A-F]{8}_SECRET")

# lengths are bounded, so that no text takes long to look through; a password may hold an @, which should be escaped
_SCHEME = r"\b([A-Za-z][A-Za-z0-9+.-]{0,30})://"
_USER = re.compile(_SCHEME + r"([^/\s'\"?]{0,2000}|[^/@\s'\"?]{0,200}:[^@\s'\"?]{0,300})@")
_QUERY = re.compile(_SCHEME + r"[^\s'\"?]{0,2000}\?([^\s'\")]+)")
# a pre-authenticated request of OCI carries its secret in the path
_REQUEST = re.compile(r"://[^/\s'\"?]{1,300}/p/([^/\s'\"?]{16,})/n/")
_REFERENCE = re.compile(r"\$(?:\w+|\{\w+\})")
_PARAMETER = re.compile(r"sig|token|secret|passw|credential|auth|key|code|policy", re.IGNORECASE)
#: A value of a query that is longer may be a signature, whatever the parameter is called.
_PLAIN_VALUE = 12


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return SECRET_NAME.search(name) is not None


def mask_of(name: str) -> str:
    """Return what stands in place of a secret's value."""
    return f"${{masked:{name}}}"


def shown(text: str) -> str:
    """Return a URI, or a text with URIs in it, as people and logs may see it: ``***`` in place of its secrets."""
    out, position = "", 0
    for start, end in secret_spans(text):
        out += text[position:start] + "***"
        position = end
    return out + text[position:]


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Return where the secrets of the URIs in a text are: user and password, a signed query, a signed path.

    A user's name alone is none, unless it is a token for a web server; nor is what ``$NAME`` stands for.
    """
    if "://" not in text:
        return []
    spans = [found.span(2) for found in _USER.finditer(text) if _is_secret_user(found[1], found[2])]
    spans += [found.span(2) for found in _QUERY.finditer(text) if not _is_local(found[1]) and _is_signed(found[2])]
    spans += [found.span(1) for found in _REQUEST.finditer(text)]
    apart: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if not apart or start >= apart[-1][1]:
            apart.append((start, end))
    return apart


def _is_local(scheme: str) -> bool:
    return scheme.lower() in ("file", "local")


def _is_secret_user(scheme: str, user: str) -> bool:
    name, colon, password = user.partition(":")
    web = scheme.lower().endswith(("http", "https"))
    if web and re.match(r"\d{1,5}/", password):
        return False  # a port: the @ is part of the path
    secret = password or (name if web and name != "git" else "")
    return bool(secret) and _REFERENCE.fullmatch(secret) is None and (web or bool(colon))


def _is_signed(query: str) -> bool:
    for parameter in re.split("[&;]", query):
        name, given, value = parameter.partition("=")
        value = value if given else name
        if not value:
            continue
        if _REFERENCE.fullmatch(value) is None and (_PARAMETER.search(name) or len(value) > _PLAIN_VALUE):
            return True
    return False
