"""What this machine says of AWS by itself, as AWS's own tools find it: the region, and the role of a notebook.

Everything is read from variables and files; nothing is asked of a service, and no credentials are read.
"""

from __future__ import annotations

import configparser
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

#: What SageMaker Studio and notebook instances tell of themselves.
STUDIO_FILE = "/opt/ml/metadata/resource-metadata.json"
#: Variables that name a region; the first that is set.
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")

#: Returns the text of a file, or None where there is none.
Read = Callable[[str], "str | None"]


def region_here(environ: Mapping[str, str] | None = None, read: Read | None = None) -> tuple[str | None, str | None]:
    """Return the region that this machine names, and where it does."""
    known, read = os.environ if environ is None else environ, read or text_of
    return next(regions(known, studio(read), read), (None, None))


def account_of(role: str | None) -> str | None:
    """Return the account in the ARN of a role: a job uses a role of its own account."""
    parts = (role or "").split(":")
    return parts[4] if len(parts) > 5 and parts[0] == "arn" else None


def regions(known: Mapping[str, str], notebook: Mapping[str, Any], read: Read) -> Iterator[tuple[str, str]]:
    """Yield the regions that this machine names, and where it does, the strongest first."""
    for name in REGIONS:
        if known.get(name):
            yield known[name], name
    path = known.get("AWS_CONFIG_FILE") or os.path.join(known.get("HOME", "~"), ".aws", "config")  # noqa: PTH118
    profile = known.get("AWS_PROFILE") or known.get("AWS_DEFAULT_PROFILE") or "default"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read(os.path.expanduser(path)) or "")  # noqa: PTH111 - as AWS's own tools read it
    except configparser.Error:
        parser.clear()
    section = profile if profile == "default" else f"profile {profile}"
    if region := parser.get(section, "region", fallback=""):
        yield region, f"profile {profile} of {path}"
    parts = str(notebook.get("ResourceArn", "")).split(":")
    if len(parts) > 3 and parts[3]:
        yield parts[3], STUDIO_FILE


def studio(read: Read) -> Mapping[str, Any]:
    """Return what SageMaker Studio or a notebook instance tells of itself; nothing elsewhere."""
    try:
        data = json.loads(read(STUDIO_FILE) or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def text_of(path: str) -> str | None:
    """Return the text of a file of this machine, None where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
