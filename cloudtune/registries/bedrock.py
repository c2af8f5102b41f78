"""Models imported into Amazon Bedrock: what the service would refuse is said first, then an import is followed.

An import is named after the checksums of the files. So whoever comes after an interruption finds it, and the same model
is imported once: an import costs, and its name is taken for good.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune import storage
from cloudtune.clients.aws import AwsClient
from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.owners import AwsOwner, aws_owner
from cloudtune.pauses import Pauses, Say
from cloudtune.plan import Call
from cloudtune.registries.aws_staging import Staged, place_for, send
from cloudtune.registries.bedrock_preflight import check_model, check_region, check_role
from cloudtune.registries.source import Source, find
from cloudtune.registries.sums import digest_of, sums_of
from cloudtune.spec.verbs import wrong_bedrock_name
from cloudtune.store import Model, Store
from cloudtune.uri import shown

SCHEME = "bedrock-model"
SERVICE = "aws.bedrock"
REGISTRY = "bedrock"
#: Seconds for which an import is followed.
PATIENCE_S = 4 * 3600.0
#: Tag of models whose files were sent to S3 for the import.
STAGED = "cloudtune-staged"
_PAGES = 100
_NAME_CHARACTERS = 63


def register(
    model: str | Path,
    *,
    name: str,
    version: str | None = None,
    home: Path,
    infrastructure: str | None = None,
    progress: Say | None = None,
) -> Model:
    """Import a model as ``NAME-VERSION``, by default with the next whole number; returns once it can be asked.

    The same model again is the same version: nothing is imported then, and an import that goes on is followed.

    Raises:
        UsageError: Bedrock would not take the model, its region or its role, or the version is taken.
        NotAllowed: a right is missing, or nobody is signed in.
        ServiceError: the import failed, with the service's own words, or the way to it did; registering again goes on.
    """
    say, store = progress or str, Store(home)
    wrong = wrong_bedrock_name(name if version is None else f"{name}-{version}")
    if wrong is not None:
        raise UsageError(wrong[0], hint=wrong[1])
    source = find(model)
    client = AwsClient()
    owner = aws_owner(named=infrastructure, run=source.facts["run"], store=store)
    owner = attrs.evolve(owner, region=owner.region or client.region)
    architecture = check_model(source)
    check_region(str(owner.region), architecture)
    place_for(source, owner, name, "0" * 16, registry=REGISTRY)  # says at once what would be missing in the end
    check_role(client, owner.role, say)
    say(f"reading {len(source.files)} files of {shown(source.named)}")
    sums = sums_of(source)
    importing = _Import(client, owner, name, digest_of(sums), store)
    found, chosen = importing.done(source, version, say)
    say(f"{name}:{chosen} is {found['modelArn']}")
    return Model(
        name=name,
        version=chosen,
        uri=f"{SCHEME}://{found['modelArn']}",
        checksums=sums,
        created=time.time(),
        **source.facts,
    )


def remove(model: Model) -> None:
    """Delete an imported model, and the files that were sent to S3 for it; what is gone is fine."""
    client, arn = AwsClient(), model.uri.removeprefix(f"{SCHEME}://")
    found = client.read(_call("get_imported_model", modelIdentifier=arn, absent=True))
    if found.get("absent"):
        return
    tags = client.read(_call("list_tags_for_resource", resourceARN=arn)).get("tags", [])
    # the model says which files they are: it goes last, so that whoever deletes once more finds all of it
    if any(tag["key"] == STAGED for tag in tags):
        storage.remove(found["modelDataSource"]["s3DataSource"]["s3Uri"])
    client.send(_call("delete_imported_model", modelIdentifier=arn))


class _Import:
    """The imports of one model of one name."""

    def __init__(self, client: AwsClient, owner: AwsOwner, name: str, digest: str, store: Store) -> None:
        self.client, self.owner, self.name, self.digest, self.store = client, owner, name, digest, store
        self.mark = f"cloudtune-{digest[:16]}"

    def done(self, source: Source, version: str | None, say: Say) -> tuple[Mapping[str, Any], str]:
        """Return the imported model and its version when all is done."""
        tries = self._jobs(nameContains=self.mark)
        for job in sorted(tries, key=lambda one: str(one["creationTime"]), reverse=True):
            label = self._label(job.get("importedModelName"))
            if label is None or version not in {None, label} or job["status"] == "Failed":
                continue
            if job["status"] == "InProgress":
                say(f"version {label} is being imported: following it")
                return self._followed(str(job["jobArn"]), say), label
            known = self._model(str(job["importedModelArn"]))
            if known is not None:  # else it was deleted since
                say(f"it is there already, as version {label}")
                return known, label
        label = version or self._next()
        self._check_free(label)
        staged = place_for(source, self.owner, self.name, self.digest, registry=REGISTRY)
        send(source, staged, say)
        say(f"importing {staged.uri} as {self.name}-{label}")
        return self._followed(self._begin(label, staged, f"{self.mark}-{len(tries) + 1}"), say), label

    def _begin(self, label: str, staged: Staged, job: str) -> str:
        """Ask for an import; the same request twice is one import."""
        tags = {**self.owner.place.tags, "cloudtune-model": self.name, "cloudtune-version": label}
        tags |= {STAGED: "true"} if staged.sent else {}
        asked: dict[str, Any] = {
            "jobName": job,
            "importedModelName": f"{self.name}-{label}",
            "roleArn": self.owner.role,
            "modelDataSource": {"s3DataSource": {"s3Uri": staged.uri}},
            "importedModelTags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        place = self.owner.place
        if place.subnet_ids and place.security_group_ids:
            groups = list(place.security_group_ids)
            asked["vpcConfig"] = {"subnetIds": list(place.subnet_ids), "securityGroupIds": groups}
        token = hashlib.sha256(f"{job} {self.name}-{label}".encode()).hexdigest()
        call = self._call("create_model_import_job", **asked)
        return str(self.client.send(call, token=token)["jobArn"])

    def _followed(self, job: str, say: Say) -> Mapping[str, Any]:
        """Wait for an import's end, telling how far it is; return the model."""
        try:
            found = self._end(job, say)
        except KeyboardInterrupt:
            say("the import goes on; register again to follow it")
            raise
        if found["status"] == "Failed":
            why = str(found.get("failureMessage") or "Bedrock does not say why")
            raise _failed(why, hint="mend the model and register it again: a failed import costs nothing")
        model = self._model(str(found["importedModelArn"]))
        if model is None:
            raise _failed(f"{found['importedModelArn']} has been deleted meanwhile", hint="register it again")
        return model

    def _end(self, job: str, say: Say) -> Mapping[str, Any]:
        pauses, told, begun = Pauses(self.client, PATIENCE_S), "", time.monotonic()
        while True:
            found = self.client.read(self._call("get_model_import_job", jobIdentifier=job))
            minutes = int((time.monotonic() - begun) // 300) * 5
            line = {"InProgress": "in progress", "Completed": "completed"}.get(found["status"], "failed")
            line = f"import: {line}" + (f" for {minutes} minutes" if minutes and line == "in progress" else "")
            if line != told:
                say(line)
                told = line
            if found["status"] != "InProgress":
                return found
            if pauses.over:
                hint = "it may still end well: register it again to follow it"
                raise _failed(f"the import is not done after {PATIENCE_S:.0f} s", definite=False, hint=hint)
            pauses.wait()

    def _check_free(self, label: str) -> None:
        """Raise UsageError if a version is another model's."""
        wanted = f"{self.name}-{label}"
        under_way = {str(job.get("importedModelName")) for job in self._jobs(statusEquals="InProgress")}
        elsewhere = any(one.version == label for one in self.store.models(self.name))
        if wanted in under_way or self._model(wanted) is not None:
            hint = "leave --version out for the next number; nothing was imported"
            raise UsageError(f"Bedrock has a model {wanted} already, with other files", hint=hint)
        if elsewhere:
            hint = "leave --version out for the next number"
            raise UsageError(f"model {self.name} has a version {label} already", hint=hint)

    def _next(self) -> str:
        call = self._call("list_imported_models", nameContains=f"{self.name}-", maxResults=1000, pages=_PAGES)
        rows = self.client.read(call).get("modelSummaries", [])
        jobs = self._jobs(statusEquals="InProgress")
        named = [row["modelName"] for row in rows] + [job.get("importedModelName") for job in jobs]
        taken = {self._label(one) for one in named} | {one.version for one in self.store.models(self.name)}
        label = str(max((int(one) for one in taken if one and one.isdigit()), default=0) + 1)
        wrong = wrong_bedrock_name(f"{self.name}-{label}")
        if wrong is not None:
            raise UsageError(wrong[0], hint=wrong[1])
        return label

    def _label(self, imported: object) -> str | None:
        """Return the version in the name of an imported model; None for one of another name."""
        found = re.fullmatch(rf"{re.escape(self.name)}-([^-_]+)", str(imported))
        return found[1] if found is not None else None

    def _jobs(self, **which: str) -> list[Mapping[str, Any]]:
        call = self._call("list_model_import_jobs", **which, maxResults=1000, pages=_PAGES)
        return list(self.client.read(call).get("modelImportJobSummaries", []))

    def _model(self, identity: str) -> Mapping[str, Any] | None:
        found = self.client.read(self._call("get_imported_model", modelIdentifier=identity, absent=True))
        return None if found.get("absent") else found

    def _call(self, operation: str, **parameters: Any) -> Call:
        return _call(operation, region=self.owner.region, **parameters)


def _call(operation: str, *, region: str | None = None, **parameters: Any) -> Call:
    return Call(service=SERVICE, operation=operation, parameters=parameters, region=region)


def _failed(why: str, *, definite: bool = True, hint: str) -> CloudtuneError:
    return ServiceError(why, service=SERVICE, operation="create_model_import_job", definite=definite, hint=hint)
