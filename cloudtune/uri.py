"""The text of a URI: what it names, how to go deeper, and how it may be shown. Pure; nothing is opened.

A URI is a local path, ``file:///path`` (the path as it is, nothing is percent-encoded), or ``scheme://place/path``,
with OCI's bucket written ``oci://bucket@namespace/path``. The node reads local ones by the same rule
(:mod:`cloudtune.node.uris`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cloudtune.errors import UsageError
from cloudtune.node import masks, uris

#: A URI, or a text with URIs in it, as people and logs may see it.
shown = masks.shown
scheme_of = uris.scheme_of

_SECRET = re.compile(rf"\$\{{({masks.URI_VARIABLE.pattern})\}}")


def local_path(uri: str) -> Path | None:
    """Return the path that a local URI names, made absolute, or None for one that is elsewhere."""
    path = uris.local_path(uri)
    return None if path is None else Path(os.path.abspath(path))  # noqa: PTH100 - lexical: links are followed later


def absolute(uri: str | os.PathLike[str]) -> str:
    """Return a URI that means the same from everywhere: local paths become ``file:///...``, the rest stays as it is."""
    text = os.fspath(uri)
    path = local_path(text)
    if path is None:
        return text
    posix = path.as_posix()
    slash = "/" if text.endswith(("/", os.sep)) and not posix.endswith("/") else ""
    return f"file://{'' if posix.startswith('/') else '/'}{posix}{slash}"


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below another; empty parts are passed over.

    Raises:
        UsageError: a part leads upwards.
    """
    out = uri
    for part in parts:
        pieces = [piece for piece in part.split("/") if piece not in ("", ".")]
        if ".." in pieces:
            raise UsageError(f"{part!r} leads out of {shown(uri)}", hint="name something below it")
        if pieces:
            out += ("" if out.endswith("/") else "/") + "/".join(pieces)
    return out


def filled(uri: str, environ: Mapping[str, str]) -> str:
    """Return a URI with the secrets put back that a plan and a record leave out.

    Raises:
        UsageError: one of them is not among the variables.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] in environ:
            return environ[found[1]]
        hint = f"give it again: export {found[1]}=..."
        raise UsageError(f"the password or signature in {uri} is not kept with the run", hint=hint)

    return _SECRET.sub(value, uri)
