"""Models filed in SageMaker's model registry: a model package group a model, a package a version, the files in S3.

The service numbers the versions. A package says the checksum of its files, by which the same model is known again.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from cloudtune import storage
from cloudtune.backends.serving_images import djl_image
from cloudtune.clients.aws import AwsClient
from cloudtune.errors import ServiceError, UsageError
from cloudtune.owners import AwsOwner, aws_owner
from cloudtune.pauses import Say
from cloudtune.plan import Call
from cloudtune.registries.aws_staging import Staged, place_for, send
from cloudtune.registries.source import Source, find
from cloudtune.registries.sums import digest_of, sums_of
from cloudtune.spec.verbs import wrong_sagemaker_name
from cloudtune.store import Model, Store
from cloudtune.uri import shown

SCHEME = "sagemaker-package"
SERVICE = "aws.sagemaker"
REGISTRY = "sagemaker"
#: Note of packages whose files were sent to S3 for them.
STAGED = "cloudtune-staged"
_METRICS = "metrics.json"
_JSON = "application/json"
_PAGES = 100
#: What a note may hold, as many as there may be.
_VALUE = re.compile(r"[\w\s.:/=+@-]{1,256}")
_NOTES = 50


def register(
    model: str | Path,
    *,
    name: str,
    version: str | None = None,
    home: Path,
    infrastructure: str | None = None,
    progress: Say | None = None,
) -> Model:
    """File a model in SageMaker's registry under a name; the service gives the version, the next whole number.

    The same model again is the same version: nothing is sent then.

    Raises:
        UsageError: there is no model, nothing says by which role or bucket, or a version is asked for.
        NotAllowed: a right is missing, or nobody is signed in.
        ServiceError: the service or the way to it failed; registering again goes on from there.
    """
    say, store = progress or str, Store(home)
    wrong = wrong_sagemaker_name(name)
    if wrong is not None:
        raise UsageError(wrong[0], hint=wrong[1])
    if version is not None:
        raise UsageError("SageMaker numbers versions itself", hint="leave --version out")
    source = find(model)
    client = AwsClient()
    owner = aws_owner(named=infrastructure, run=source.facts["run"], store=store)
    owner = attrs.evolve(owner, region=owner.region or client.region)
    place_for(source, owner, name, "0" * 16, registry=REGISTRY)  # says at once what would be missing in the end
    say(f"reading {len(source.files)} files of {shown(source.named)}")
    sums = sums_of(source)
    arn = _filed(client, owner, source, name, digest_of(sums), say)
    label = arn.rpartition("/")[2]
    if any(one.version == label and one.uri != f"{SCHEME}://{arn}" for one in store.models(name)):
        hint = f"it is filed as {arn}; register it under another name to have a record of it here"
        raise UsageError(f"model {name} has a version {label} in another registry", hint=hint)
    say(f"{name}:{label} is {arn}")
    return Model(name=name, version=label, uri=f"{SCHEME}://{arn}", checksums=sums, created=time.time(), **source.facts)


def remove(model: Model) -> None:
    """Delete a model's package, its group with the last, and the files that were sent to S3 for it."""
    client, arn = AwsClient(), model.uri.removeprefix(f"{SCHEME}://")
    found = client.read(_call("describe_model_package", ModelPackageName=arn, absent=True))
    if found.get("absent"):
        return
    # the package says which files they are: it goes last, so that whoever deletes once more finds all of it
    if (found.get("CustomerMetadataProperties") or {}).get(STAGED):
        storage.remove(_place_of(found))
    client.send(_call("delete_model_package", ModelPackageName=arn))
    group = str(found["ModelPackageGroupName"])
    left = _call("list_model_packages", ModelPackageGroupName=group, region=arn.split(":")[3])
    if not client.read(left).get("ModelPackageSummaryList"):
        with suppress(ServiceError):  # somebody else has filed another meanwhile
            client.send(_call("delete_model_package_group", ModelPackageGroupName=group, region=arn.split(":")[3]))


def _filed(client: AwsClient, owner: AwsOwner, source: Source, name: str, digest: str, say: Say) -> str:
    """Return the ARN of the model's package when all is done."""
    mark = f"cloudtune {digest}"
    known = _call("list_model_packages", owner, ModelPackageGroupName=name, MaxResults=100, pages=_PAGES, absent=True)
    rows = client.read(known)
    for row in rows.get("ModelPackageSummaryList", ()):
        if row.get("ModelPackageDescription") == mark and row.get("ModelPackageStatus") == "Completed":
            say(f"it is there already, as version {row['ModelPackageVersion']}")
            return str(row["ModelPackageArn"])
    staged = place_for(source, owner, name, digest, registry=REGISTRY)
    send(source, staged, say)
    if rows.get("absent"):
        client.send(_call("create_model_package_group", owner, ModelPackageGroupName=name))
    asked = _package(source, owner, staged, name, mark)
    # after a deletion the same token would be a new package: the service forgets it with the package
    token = hashlib.sha256(f"{name} {digest}".encode()).hexdigest()[:36]
    return str(client.send(_call("create_model_package", owner, **asked), token=token)["ModelPackageArn"])


def _package(source: Source, owner: AwsOwner, staged: Staged, name: str, mark: str) -> dict[str, Any]:
    data = {"S3DataSource": {"S3Uri": staged.uri, "S3DataType": "S3Prefix", "CompressionType": "None"}}
    container = {"Image": djl_image(str(owner.region), neuron=False), "ModelDataSource": data}
    asked: dict[str, Any] = {
        "ModelPackageGroupName": name,
        "ModelPackageDescription": mark,
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": [_JSON],
            "SupportedResponseMIMETypes": [_JSON],
        },
    }
    notes = dict(list(_notes(source, staged).items())[:_NOTES])
    if notes:
        asked["CustomerMetadataProperties"] = notes
    if any(entry.path == _METRICS for entry in source.files):
        statistics = {"ContentType": _JSON, "S3Uri": f"{staged.uri}{_METRICS}"}
        asked["ModelMetrics"] = {"ModelQuality": {"Statistics": statistics}}
    return asked


def _notes(source: Source, staged: Staged) -> dict[str, str]:
    """Return what is known of a model besides its files."""
    metrics: Mapping[str, Any] = source.facts["metrics"] or {}
    numbers = {
        key: f"{value:.6g}"
        for key, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
    notes = {STAGED: "true" if staged.sent else "", "base": source.facts["base"], "run": source.facts["run"], **numbers}
    return {key: value for key, value in notes.items() if value and _VALUE.fullmatch(value) and _VALUE.fullmatch(key)}


def _place_of(package: Mapping[str, Any]) -> str:
    (container, *_) = package["InferenceSpecification"]["Containers"]
    return str(container["ModelDataSource"]["S3DataSource"]["S3Uri"])


def _call(operation: str, owner: AwsOwner | None = None, **parameters: Any) -> Call:
    region = owner.region if owner is not None else None
    return Call(service=SERVICE, operation=operation, parameters=parameters, region=region)
