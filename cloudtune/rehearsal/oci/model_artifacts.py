"""Data Science: the artifacts of models: uploaded, taken from a bucket, or left where they are and referred to."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import zipfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response, file_response
from cloudtune.rehearsal.oci import blobs
from cloudtune.rehearsal.oci.buckets import KIND, Buckets
from cloudtune.rehearsal.oci.job_limits import refused
from cloudtune.rehearsal.oci.models import Models
from cloudtune.rehearsal.oci.ocids import REGION
from cloudtune.rehearsal.oci.shelves import Object, Shelf
from cloudtune.rehearsal.oci.signatures import check_content
from cloudtune.rehearsal.oci.speech import not_found, nothing
from cloudtune.rehearsal.oci.swagger import checked_body
from cloudtune.rehearsal.oci.version_sets import MODEL
from cloudtune.rehearsal.oci.works import BASE, Work, WorkFailed, Works
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

#: What may be sent whole ("Supporting Large Artifacts"), and what may come from a bucket ("Model Catalog").
UPLOAD_BYTES, EXPORT_BYTES = 6 << 30, 400 << 30
#: Seconds of the stage's clock that a bucket's content takes.
COPY_S = 6.0
_FILENAME = re.compile(r"attachment\s*;\s*filename\s*=\s*\"?([^\";]+)\"?", re.IGNORECASE)


class Artifacts:
    """What the models of the catalog consist of."""

    unsigned_bodies: tuple[str, ...] = ("create_model_artifact",)

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self.models, self.works = cloud.part(Models), cloud.part(Works)
        self._keeping = threading.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        model = f"{BASE}/models/{{modelId}}"
        content, actions = f"{model}/artifact/content", f"{model}/actions"
        rows = (
            ("POST", f"{model}/artifact", "create_model_artifact", self.create),
            ("HEAD", content, "head_model_artifact", self.get),
            ("GET", content, "get_model_artifact_content", self.get),
            ("POST", f"{actions}/exportArtifact", "export_model_artifact", self.export),
            ("POST", f"{actions}/importArtifact", "import_model_artifact", self.take_out),
            ("POST", f"{actions}/registerArtifactReference", "register_model_artifact_reference", self.refer),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def create(self, request: Request) -> Response:
        """Take an artifact, once for all."""
        model = self.models.active(request.params["modelId"])
        found = _FILENAME.search(request.header("content-disposition"))
        name = found[1].strip().rpartition("/")[2] if found else f"{model.id}.zip"
        if not name.lower().endswith((".zip", ".json")):
            raise refused("content-disposition: an artifact is a .zip, or a .json that describes one")
        folder = self.folder(model.id)
        folder.mkdir(parents=True, exist_ok=True)
        arriving = folder / f"arriving-{secrets.token_hex(8)}"
        try:
            with arriving.open("wb") as file:
                size = request.body.save(file)
            check_content(request)
            if not 0 < size <= UPLOAD_BYTES:
                raise refused(f"an artifact must have 1 to {UPLOAD_BYTES} bytes; larger ones come from a bucket")
            keep = partial(self._keep, model.id, name, arriving)
            self.cloud.tokens.once(request, "create_model_artifact", keep, about=f"{model.id} {name}")
        finally:
            arriving.unlink(missing_ok=True)
        return nothing()

    def get(self, request: Request) -> Response:
        """Return an artifact, or a part of it."""
        model = self.models.alive(request.params["modelId"])
        path = self.artifact(model)
        if path is None:
            raise not_found(f"artifact of {model.id}")
        return file_response(path, request, headers=(("content-disposition", f"attachment; filename={path.name}"),))

    def export(self, request: Request) -> Response:
        """Make an artifact of an object, in the service's own time."""
        details = checked_body(request, "ExportModelArtifactDetails", of="data_science")["artifactExportDetails"]
        model = self.models.active(request.params["modelId"])
        source = _region_of(details, "sourceRegion", "namespace", "sourceBucket", "sourceObjectName")

        def deed(work: Work) -> None:
            found = self._objects(source["namespace"], source["sourceBucket"]).get(source["sourceObjectName"])
            if found is None:
                raise WorkFailed("ObjectNotFound", f"object {source['sourceObjectName']} was not found in the bucket")
            if found.blob.size > EXPORT_BYTES:
                raise WorkFailed("InvalidParameter", f"an artifact must have {EXPORT_BYTES} bytes at most")
            self._copying(work)
            self.folder(model.id).mkdir(parents=True, exist_ok=True)
            arriving = self.folder(model.id) / f"arriving-{secrets.token_hex(8)}"
            shutil.copyfile(found.blob.path, arriving)
            self._keep(model.id, f"{model.id}.zip", arriving)

        return self._begun(request, "EXPORT_MODEL_ARTIFACT", model, deed, bare=True)

    def take_out(self, request: Request) -> Response:
        """Make an object of an artifact, in the service's own time."""
        details = checked_body(request, "ImportModelArtifactDetails", of="data_science")["artifactImportDetails"]
        model = self.models.active(request.params["modelId"])
        if self.artifact(model) is None:
            raise not_found(f"artifact of {model.id}")
        names = ("namespace", "destinationBucket", "destinationObjectName")
        target = _region_of(details, "destinationRegion", *names)

        def deed(work: Work) -> None:
            shelf, path = self._objects(target["namespace"], target["destinationBucket"]), self.artifact(model)
            assert path is not None
            self._copying(work)
            blob = blobs.taken(path, self.cloud.part(Buckets).folder)
            headers = {"content-type": "application/zip"}
            name = target["destinationObjectName"]
            shelf.put(Object(name=name, blob=blob, time_s=self.cloud.now_s(), headers=headers))

        return self._begun(request, "IMPORT_MODEL_ARTIFACT", model, deed)

    def refer(self, request: Request) -> Response:
        """Let the artifact be what lies in buckets; nothing is copied."""
        details = checked_body(request, "RegisterModelArtifactReferenceDetails", of="data_science")
        model = self.models.active(request.params["modelId"])
        references = details["modelArtifactReferences"]
        if not references:
            raise refused("modelArtifactReferences must not be empty")

        def deed(work: Work) -> None:
            for number, one in enumerate(references):
                self._check_reference(one)
                work.note(f"{one['bucketName']} was checked", percentComplete=100.0 * (number + 1) / len(references))
            if not work.wait(COPY_S):
                return
            self.store.change(MODEL, model.id, references=references, isModelByReference=True)

        return self._begun(request, "REGISTER_MODEL_ARTIFACT", model, deed, bare=True)

    # --- for those who deploy

    def unpack(self, model: Resource, folder: Path) -> None:
        """Put a model's files where a deployment shows them; WorkFailed where it has none."""
        folder.mkdir(parents=True)
        path = self.artifact(model)
        if path is not None:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
            return
        if not model.data.get("references"):
            raise WorkFailed("InvalidParameter", f"model {model.id} has no artifact")
        for one in model.data["references"]:
            for found in self._objects(one["namespace"], one["bucketName"]).find(prefix=one.get("prefix", "")).objects:
                target = folder / found.name
                if any(part in ("", ".", "..") for part in found.name.split("/")):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found.blob.path, target)

    def artifact(self, model: Resource) -> Path | None:
        """Return a model's own artifact, None before it has one."""
        current = self.store.get(MODEL, model.id)
        name = current.data.get("artifact") if current else None
        return self.folder(model.id) / name if name else None

    def folder(self, identity: str) -> Path:
        """Return where the rehearsal keeps a model's artifact."""
        return self.cloud.stage.folder / "models" / identity

    def _keep(self, identity: str, name: str, arrived: Path) -> str:
        """Take what has arrived for the artifact; Refused (409) if there is one."""
        with self._keeping:
            self._check_bare(identity)
            arrived.replace(self.folder(identity) / name)
            self.store.change(MODEL, identity, artifact=name)
        return identity

    def _check_bare(self, identity: str) -> None:
        data = self.models.model(identity).data
        if data.get("artifact") or data.get("references"):
            raise Refused(409, "Conflict", f"model {identity} has an artifact, which cannot be changed")

    def _begun(self, request: Request, operation: str, model: Resource, deed: Any, *, bare: bool = False) -> Response:
        """Begin a work request, or find the one that the same request began before; ``bare``: with no artifact yet."""

        def begin() -> str:
            if bare:
                self._check_bare(model.id)
            return self.works.begin(operation, model.data, "model", deed)

        work = self.cloud.tokens.once(request, operation, begin, about=model.id)
        return nothing(status=202, headers=(("opc-work-request-id", work),))

    def _objects(self, namespace: str, bucket: str) -> Shelf:
        try:
            return self.cloud.part(Buckets).shelf(namespace, bucket)
        except Refused as why:
            raise WorkFailed(why.code, why.message) from why

    def _copying(self, work: Work) -> None:
        for percent in (25.0, 50.0, 75.0):
            if not work.wait(COPY_S / 3):
                raise WorkFailed("Canceled", "it was cancelled")
            work.note(f"{percent:.0f} % are copied", percentComplete=percent)

    def _check_reference(self, one: Mapping[str, Any]) -> None:
        shelf = self._objects(one["namespace"], one["bucketName"])
        bucket = self.store.get(KIND, f"{one['namespace']}/{one['bucketName']}")
        if bucket is None or bucket.data["versioning"] != "Enabled":
            message = f"bucket {one['bucketName']} has no object versioning, which a model by reference needs"
            raise WorkFailed("InvalidParameter", message)
        if not shelf.find(prefix=one.get("prefix", ""), limit=1).objects:
            raise WorkFailed("ObjectNotFound", f"nothing is below {one.get('prefix')!r} in {one['bucketName']}")


def _region_of(details: Mapping[str, Any], region: str, *names: str) -> Mapping[str, Any]:
    """Return the details of a place, which must be in the one region that there is."""
    missing = [name for name in names if not details.get(name)]
    if missing:
        raise refused(f"{missing[0]} must not be null")
    if details.get(region) not in (None, REGION):
        raise refused(f"{region}: the rehearsed cloud has {REGION} alone")
    return details
