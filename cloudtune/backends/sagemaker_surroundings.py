"""What a SageMaker job takes from where it is submitted: region, role and default bucket, as AWS's own tools find them.

Everything is read from variables and files of this machine; nothing is asked of a service, and no credentials are read.
The default bucket is the one that the SageMaker SDK makes for an account and a region.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs

from cloudtune.backends.aws_surroundings import STUDIO_FILE, Read, account_of, regions, studio, text_of
from cloudtune.spec.sagemaker import SageMakerTrainingJob


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
    known, read = os.environ if environ is None else environ, read or text_of
    notebook = studio(read)
    found: dict[str, str] = {}
    region, role = place.region, place.role_arn
    if not region:
        region, source = next(regions(known, notebook, read), (None, ""))
        found |= {"region": source} if region else {}
    if not role and isinstance(notebook.get("ExecutionRoleArn"), str):
        role, found["roleArn"] = notebook["ExecutionRoleArn"], STUDIO_FILE
    account = account_of(role)
    bucket = f"s3://sagemaker-{region}-{account}" if region and account else None
    return Surroundings(region=region, role=role, bucket=bucket, found=found)
