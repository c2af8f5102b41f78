"""What a SageMaker job takes from where it is submitted: region, role and default bucket, as AWS's own tools find them.

Everything is read from variables and files of this machine; nothing is asked of a service, and no credentials are read.
The default bucket is the one that the SageMaker SDK makes for an account and a region.
"""

from __future__ import annotations

import configparser
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune.spec.sagemaker import SageMakerTrainingJob

#: What SageMaker Studio and notebook instances tell of themselves.
STUDIO_FILE = "/opt/ml/metadata/resource-metadata.json"
#: Variables that name a region; the first that is set.
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")

#: Returns the text of a file, or None where there is none.
Read = Callable[[str], "str | None"]


@attrs.frozen(kw_only=True)
class Surroundings:
    """Region and role from the spec, else from where the plan is made; ``found`` says what was found where, by key.

    ``bucket`` is the account's default bucket in the region, as an ``s3://`` URI, where both are known.
    """

    region: str | None
    role: str | None
    bucket: str | None
    found: Mapping[str, str] = attrs.field(factory=dict)


def surroundings(
    place: SageMakerTrainingJob, environ: Mapping[str, str] | None = None, read: Read | None = None
) -> Surroundings:
    """Return the spec's values, and where it has none, those of this machine."""
    known, read = os.environ if environ is None else environ, read or _text
    studio = _studio(read)
    found: dict[str, str] = {}
    region, role = place.region, place.role_arn
    if not region:
        region, source = next(_regions(known, studio, read), (None, ""))
        found |= {"region": source} if region else {}
    if not role and isinstance(studio.get("ExecutionRoleArn"), str):
        role, found["roleArn"] = studio["ExecutionRoleArn"], STUDIO_FILE
    account = account_of(role)
    bucket = f"s3://sagemaker-{region}-{account}" if region and account else None
    return Surroundings(region=region, role=role, bucket=bucket, found=found)


def region_here(environ: Mapping[str, str] | None = None, read: Read | None = None) -> tuple[str | None, str | None]:
    """Return the region that this machine names, and where it does."""
    known, read = os.environ if environ is None else environ, read or _text
    return next(_regions(known, _studio(read), read), (None, None))


def account_of(role: str | None) -> str | None:
    """Return the account in the ARN of a role: a job uses a role of its own account."""
    parts = (role or "").split(":")
    return parts[4] if len(parts) > 5 and parts[0] == "arn" else None


def _regions(known: Mapping[str, str], studio: Mapping[str, Any], read: Read) -> Iterator[tuple[str, str]]:
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
    parts = str(studio.get("ResourceArn", "")).split(":")
    if len(parts) > 3 and parts[3]:
        yield parts[3], STUDIO_FILE


def _studio(read: Read) -> Mapping[str, Any]:
    try:
        data = json.loads(read(STUDIO_FILE) or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
