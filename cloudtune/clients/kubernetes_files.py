"""What a step sends to a cluster as files: each is a key of a ConfigMap, as it was planned; code is one archive."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.clients.aws_uploads import chunks
from cloudtune.errors import CloudtuneError
from cloudtune.plan import File
from cloudtune.workspace import pack

#: Files below it travel as one archive, which keeps links and executable bits.
_CODE = "code/"
_ARCHIVE = "code.tar.gz"


def with_files(manifest: Mapping[str, Any], files: tuple[File, ...]) -> dict[str, Any]:
    """Return the manifest of a ConfigMap with the content of files.

    Raises:
        CloudtuneError: a file is not what it was when the plan was made, cannot be read, or the object has no files.
    """
    if not files:
        return dict(manifest)
    if manifest.get("kind") != "ConfigMap":
        raise CloudtuneError(f"a {manifest.get('kind')} holds no files", hint="files travel in a ConfigMap")
    held = {file.path: b"".join(chunks(file)) for file in files if not file.path.startswith(_CODE)}
    code = tuple(file for file in files if file.path.startswith(_CODE))
    if code:
        packed = io.BytesIO()
        pack([attrs.evolve(file, path=file.path.removeprefix(_CODE)) for file in code], packed)
        held[_ARCHIVE] = packed.getvalue()
    encoded = {name: base64.b64encode(content).decode("ascii") for name, content in held.items()}
    return {**manifest, "binaryData": {**(manifest.get("binaryData") or {}), **encoded}}
