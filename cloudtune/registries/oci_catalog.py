"""The model catalog of OCI Data Science: what registering asks of it, in the service's own words."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.backends.oci_wire import region_in
from cloudtune.errors import NotAllowed
from cloudtune.owners import OciOwner
from cloudtune.pauses import Say
from cloudtune.plan import Call, File
from cloudtune.spec.oci import DataScienceJob
from cloudtune.submit import Client
from cloudtune.work_requests import OVER, SERVICE, follow, newest

#: Free-form tag by which a model is known again: a digest of the checksums of its files.
TAG = "cloudtune-checksums"
#: The catalog's note that a model's files were put into the bucket for its sake.
STAGED = "staged"
#: Seconds for which a work request is followed; large models take their time.
PATIENCE_S = 6 * 3600.0
_REFERS = "REGISTER_MODEL_ARTIFACT"
_ALIVE = ("ACTIVE", "INACTIVE")


@attrs.frozen(kw_only=True)
class Filed:
    """One model of the catalog; ``digest`` is what cloudtune noted of its files, None for a foreign model."""

    id: str
    label: str
    digest: str | None
    by_reference: bool


class Catalog:
    """The models of one name in an owner's compartment, whatever their projects: names of sets are unique there."""

    def __init__(self, client: Client, owner: OciOwner, name: str) -> None:
        self._client, self._owner, self._name = client, owner, name

    # --- what is there

    def versions(self) -> tuple[Filed, ...]:
        """Return the versions of the model that can be used."""
        return tuple(
            Filed(
                id=row["id"],
                label=str(row.get("versionLabel") or row.get("versionId")),
                digest=(row.get("freeformTags") or {}).get(TAG),
                by_reference=bool(row.get("isModelByReference")),
            )
            for row in self._rows()
            if row.get("lifecycleState") in _ALIVE
        )

    def has_artifact(self, filed: Filed) -> bool:
        """Whether a model of the catalog has its files."""
        if filed.by_reference or self._read("get_model", modelId=filed.id).get("isModelByReference"):
            return True
        try:
            self._read("head_model_artifact", modelId=filed.id)
        except NotAllowed as error:  # what is not there looks like what is not to be seen
            if not error.hidden:
                raise
            return False
        return True

    def keeps_versions(self, namespace: str, bucket: str) -> bool:
        """Whether a bucket keeps old versions of objects; True where nobody may say."""
        call = Call(
            service="oci.object_storage",
            operation="get_bucket",
            parameters={"namespaceName": namespace, "bucketName": bucket, **self._region},
        )
        try:
            return bool(self._client.read(call).get("versioning") == "Enabled")
        except NotAllowed:
            return True

    # --- what is made

    def version_set(self) -> str:
        """Return the set of the model's versions, made if there is none."""
        for row in self._all("list_model_version_sets", name=self._name):
            if row.get("lifecycleState") == "ACTIVE":
                return str(row["id"])
        return str(self._send("create_model_version_set", {**self._owner.named, "name": self._name})["id"])

    def create(self, details: Mapping[str, Any]) -> str:
        """Make a model without files; return its OCID."""
        return str(self._send("create_model", {**self._owner.named, **details})["id"])

    def note_provenance(self, model: str, details: Mapping[str, Any]) -> None:
        """Note where a model came from, unless that is noted already."""
        if not details:
            return
        try:
            self._read("get_model_provenance", modelId=model)
        except NotAllowed:
            self._send("create_model_provenance", {"modelId": model, **details})

    def upload(self, model: str, file: File) -> None:
        """Send the artifact whole."""
        disposition = f"attachment; filename={file.path}"
        asked = {"modelId": model, "contentDisposition": disposition}
        self._send("create_model_artifact", asked, files=(file,))

    def refer(self, model: str, namespace: str, bucket: str, prefix: str, say: Say) -> None:
        """Let the artifact be what lies in a bucket, and follow that to its end.

        Raises:
            ServiceError: it failed, with the work request's own words.
        """
        reference = {
            "modelArtifactReferenceType": "OSS",
            "namespace": namespace,
            "bucketName": bucket,
            "prefix": prefix,
        }
        compartment, region = self._owner.compartment, self._owner.region
        earlier = newest(self._client, model, _REFERS, compartment=compartment, region=region)
        if earlier is not None and earlier["status"] not in OVER:
            work = str(earlier["id"])
        else:
            asked = {"modelId": model, "modelArtifactReferences": [reference]}
            work = str(self._send("register_model_artifact_reference", asked)["opcWorkRequestId"])
        later = "register again to go on"
        what = "the catalog takes the model"
        failed = follow(self._client, work, what, say, region=region, patience_s=PATIENCE_S, later=later)
        if failed is not None:
            raise failed

    def delete(self, model: str) -> None:
        """Delete a model of the catalog; what is gone is fine."""
        try:
            self._send("delete_model", {"modelId": model})
        except NotAllowed:
            if self._read("get_model", modelId=model).get("lifecycleState") != "DELETED":
                raise

    @classmethod
    def remove(cls, client: Client, model: str, name: str, compartment: str | None = None) -> str | None:
        """Delete a model, and the set of its versions once that is empty; what is gone is fine.

        Returns:
            Where registering put the model's files, if it did and no other version needs them.

        Raises:
            NotAllowed: it may not be seen, nor what else is in the compartment where it was made.
        """
        call = Call(service=SERVICE, operation="get_model", parameters={"modelId": model})
        try:
            found = client.read(call)
        except NotAllowed as error:
            if not error.hidden:  # nobody is signed in, say: whether it is there is not known
                raise
            _check_gone(client, model, compartment, error)
            return None
        owner = OciOwner(compartment=found["compartmentId"], project=found["projectId"], place=DataScienceJob())
        catalog, inside = cls(client, owner, name), found.get("modelVersionSetId")
        if found.get("lifecycleState") != "DELETED":
            catalog.delete(model)
        others = catalog.versions()
        if inside and not catalog._rows():  # else the service would refuse it
            with contextlib.suppress(NotAllowed):  # somebody else was faster, or the answer was lost
                catalog._send("delete_model_version_set", {"modelVersionSetId": inside})
        notes = {row.get("key"): row.get("value") for row in found.get("customMetadataList") or ()}
        # the same model may be there as another version, which refers to the same files
        shared = (found.get("freeformTags") or {}).get(TAG) in {one.digest for one in others}
        return notes.get("source") if notes.get(STAGED) == "true" and not shared else None

    # --- calls

    def _rows(self) -> list[Mapping[str, Any]]:
        """Return what the set of the model's versions consists of, failed ones too."""
        rows = self._all("list_models", modelVersionSetName=self._name)
        return [row for row in rows if row.get("lifecycleState") != "DELETED"]

    @property
    def _region(self) -> dict[str, str]:
        return {"region": self._owner.region} if self._owner.region else {}

    def _all(self, operation: str, **parameters: Any) -> Iterator[Mapping[str, Any]]:
        asked = {"compartmentId": self._owner.compartment, **parameters, "pages": 1000}
        yield from self._read(operation, **asked).get("items", [])

    def _read(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        call = Call(service=SERVICE, operation=operation, parameters={**self._region, **parameters})
        return self._client.read(call)

    def _send(
        self, operation: str, parameters: Mapping[str, Any], *, files: tuple[File, ...] = ()
    ) -> Mapping[str, Any]:
        call = Call(service=SERVICE, operation=operation, parameters={**self._region, **parameters})
        # drawn afresh: of a model that was deleted since, the service would remember the request and not make another
        token = f"cloudtune-{secrets.token_hex(12)}"
        return self._client.send(call, token=token, files=files)


def _check_gone(client: Client, model: str, compartment: str | None, error: NotAllowed) -> None:
    """Raise NotAllowed where the catalog only hides a model: who may see the others of its compartment would see it."""
    if compartment is None:
        return
    region = region_in(model)
    asked = {"compartmentId": compartment, "id": model, **({"region": region} if region else {})}
    hint = "sign in as who registered it: the same profile and region"
    try:
        rows = client.read(Call(service=SERVICE, operation="list_models", parameters=asked)).get("items", ())
    except NotAllowed as refused:
        message = f"{model} may not be seen, nor what is in its compartment: {refused.message}"
        raise NotAllowed(message, hint=hint, hidden=True) from error
    if any(row.get("id") == model and row.get("lifecycleState") != "DELETED" for row in rows):
        raise NotAllowed(f"{model} may not be seen, and its compartment lists it", hint=hint, hidden=True) from error
