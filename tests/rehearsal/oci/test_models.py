"""The model catalog as the SDK uses it: models, versions, provenance, artifacts by upload, by copy and by reference."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune.rehearsal import faults
from tests.oci_place import OciPlace
from tests.rehearsal.oci.science import Science, refused, until, zipped

oci = pytest.importorskip("oci", reason="the oci SDK is not installed")


class Catalog:
    """The SDK's clients, and one bucket."""

    def __init__(self, place: OciPlace) -> None:
        self.place = place
        self.client = place.sdk("data_science", "DataScienceClient")
        self.objects = place.sdk("object_storage", "ObjectStorageClient")
        self.namespace = self.objects.get_namespace().data
        body = {"name": "b", "compartmentId": place.compartment, "versioning": "Enabled"}
        self.objects.create_bucket(self.namespace, body)

    @property
    def owner(self) -> dict[str, str]:
        return {"compartmentId": self.place.compartment, "projectId": self.place.project}

    def model(self, **details: Any) -> str:
        return str(self.client.create_model({**self.owner, **details}).data.id)

    def put(self, name: str, data: bytes) -> None:
        self.objects.put_object(self.namespace, "b", name, data)

    def work(self, answer: Any) -> Any:
        """Return a work request once it is over."""
        identity = answer.headers["opc-work-request-id"]
        over = ("SUCCEEDED", "FAILED", "CANCELED")
        return until(lambda: found if (found := self.client.get_work_request(identity).data).status in over else None)

    def errors(self, work: Any) -> list[tuple[str, str]]:
        return [(one.code, one.message) for one in self.client.list_work_request_errors(work.id).data]

    def reference(self, prefix: str, bucket: str = "b") -> dict[str, Any]:
        one = {"modelArtifactReferenceType": "OSS", "namespace": self.namespace, "bucketName": bucket, "prefix": prefix}
        return {"modelArtifactReferences": [one]}


@pytest.fixture
def catalog(place: OciPlace) -> Catalog:
    return Catalog(place)


def test_a_model_is_made_noted_changed_and_deleted(catalog: Catalog) -> None:
    notes = [
        {"key": "base", "value": "llama", "category": "Other"},
        {"key": "loss", "value": "0.1", "category": "Performance"},
    ]
    made = catalog.client.create_model(
        {
            **catalog.owner,
            "displayName": "m",
            "customMetadataList": notes,
            "definedMetadataList": [{"key": "Framework", "value": "transformers"}],
            "freeformTags": {"a": "b"},
        }
    )
    model = made.data.id
    assert (made.data.lifecycle_state, made.data.is_model_by_reference) == ("ACTIVE", False)
    assert [one.value for one in catalog.client.get_model(model).data.custom_metadata_list] == ["llama", "0.1"]
    changed = catalog.client.update_model(
        model, {"description": "d", "customMetadataList": notes[:1]}, if_match=made.headers["etag"]
    )
    assert (changed.data.description, len(changed.data.custom_metadata_list)) == ("d", 1)
    with refused(412, "NoEtagMatch"):
        catalog.client.update_model(model, {"description": "e"}, if_match=made.headers["etag"])
    run = "ocid1.datasciencejobrun.oc1.iad.aaaa"
    provenance = {"repositoryUrl": "https://x/y", "gitCommit": "abc", "trainingScript": "train.py", "trainingId": run}
    assert catalog.client.create_model_provenance(model, provenance).data.git_commit == "abc"
    with refused(409, "Conflict"):
        catalog.client.create_model_provenance(model, provenance)
    assert catalog.client.update_model_provenance(model, {"gitBranch": "main"}).data.git_branch == "main"
    found = catalog.client.get_model_provenance(model).data
    assert (found.repository_url, found.training_id) == ("https://x/y", run)
    assert [one.id for one in catalog.client.list_models(catalog.place.compartment, display_name="m").data] == [model]
    catalog.client.deactivate_model(model)
    with refused(409, "IncorrectState"):
        catalog.client.update_model(model, {"description": "f"})
    catalog.client.activate_model(model)
    catalog.client.delete_model(model)
    assert catalog.client.get_model(model).data.lifecycle_state == "DELETED"
    with refused(404, "NotAuthorizedOrNotFound"):
        catalog.client.delete_model(model)


@pytest.mark.parametrize(
    "details",
    [
        {"customMetadataList": [{"key": "a", "value": "x" * 256}]},
        {"customMetadataList": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]},
        {"customMetadataList": [{"key": "a", "category": "Nonsense"}]},
        {"customMetadataList": [{"key": f"k{number}", "value": "x" * 255} for number in range(120)]},
        {"definedMetadataList": [{"key": "Colour", "value": "red"}]},
        {"versionLabel": "1"},
        {"displayName": ""},
    ],
)
def test_what_the_catalog_cannot_hold_is_refused(details: dict[str, Any], catalog: Catalog) -> None:
    with refused(400, "InvalidParameter"):
        catalog.model(**details)


def test_versions_of_a_model_are_in_a_set(catalog: Catalog) -> None:
    client = catalog.client
    made = client.create_model_version_set({**catalog.owner, "name": "llama"}).data
    with refused(409, "Conflict"):
        client.create_model_version_set({**catalog.owner, "name": "llama"})
    models = [catalog.model(modelVersionSetId=made.id, versionLabel=label) for label in ("1", "2")]
    with refused(409, "Conflict"):
        catalog.model(modelVersionSetId=made.id, versionLabel="2")
    found = client.list_models(catalog.place.compartment, model_version_set_name="llama", sort_order="ASC").data
    assert [(one.id, one.version_id, one.version_label) for one in found] == [(models[0], 1, "1"), (models[1], 2, "2")]
    assert [one.id for one in client.list_model_version_sets(catalog.place.compartment, name="llama").data] == [made.id]
    with refused(409, "IncorrectState"):
        client.delete_model_version_set(made.id)
    client.delete_model_version_set(made.id, is_delete_related_models=True)
    assert client.get_model(models[0]).data.lifecycle_state == "DELETED"


def test_an_artifact_is_uploaded_once_and_comes_back(catalog: Catalog) -> None:
    model, data = catalog.model(), zipped(config__json="{}", weights="x" * 1000)
    with refused(404, "NotAuthorizedOrNotFound"):
        catalog.client.get_model_artifact_content(model)
    upload = {"content_disposition": 'attachment; filename="model.zip"', "opc_retry_token": "t"}
    for _ in range(2):
        catalog.client.create_model_artifact(model, data, **upload)
    with refused(409, "Conflict"):
        catalog.client.create_model_artifact(model, data, content_disposition="attachment; filename=model.zip")
    with refused(400, "InvalidParameter"):
        catalog.client.create_model_artifact(
            catalog.model(), data, content_disposition="attachment; filename=model.exe"
        )
    assert catalog.client.get_model_artifact_content(model).data.content == data
    assert catalog.client.get_model_artifact_content(model, range="bytes=0-1").data.content == data[:2]
    assert catalog.client.head_model_artifact(model).headers["content-length"] == str(len(data))


def test_an_artifact_is_copied_from_a_bucket_and_back(catalog: Catalog) -> None:
    model, data = catalog.model(), zipped(config__json="{}")
    catalog.put("models/m.zip", data)
    source = {"artifactSourceType": "ORACLE_OBJECT_STORAGE", "namespace": catalog.namespace}
    wanted = {**source, "sourceBucket": "b", "sourceObjectName": "models/m.zip", "sourceRegion": "us-ashburn-1"}
    answers = [
        catalog.client.export_model_artifact(model, {"artifactExportDetails": wanted}, opc_retry_token="t")
        for _ in range(2)
    ]
    assert len({answer.headers["opc-work-request-id"] for answer in answers}) == 1
    work = catalog.work(answers[0])
    assert (work.status, work.operation_type, work.percent_complete) == ("SUCCEEDED", "EXPORT_MODEL_ARTIFACT", 100)
    said = [one.message for one in catalog.client.list_work_request_logs(work.id).data]
    assert (said[0], said[-2]) == ("it is done", "25 % are copied")
    assert catalog.client.get_model_artifact_content(model).data.content == data
    target = {
        **source,
        "destinationBucket": "b",
        "destinationObjectName": "out.zip",
        "destinationRegion": "us-ashburn-1",
    }
    assert (
        catalog.work(catalog.client.import_model_artifact(model, {"artifactImportDetails": target})).status
        == "SUCCEEDED"
    )
    assert catalog.objects.get_object(catalog.namespace, "b", "out.zip").data.content == data
    bad = catalog.client.export_model_artifact(
        catalog.model(), {"artifactExportDetails": {**wanted, "sourceObjectName": "x"}}
    )
    work = catalog.work(bad)
    assert (work.status, catalog.errors(work)[0][0]) == ("FAILED", "ObjectNotFound")
    with refused(400, "InvalidParameter"):
        catalog.client.export_model_artifact(
            catalog.model(), {"artifactExportDetails": {**wanted, "sourceRegion": "eu-frankfurt-1"}}
        )
    assert {one.id for one in catalog.client.list_work_requests(catalog.place.compartment, status="FAILED").data} == {
        work.id
    }


def test_a_model_by_reference_needs_a_bucket_that_keeps_versions(catalog: Catalog) -> None:
    model = catalog.model()
    catalog.put("m/config.json", b"{}")
    body = {"name": "plain", "compartmentId": catalog.place.compartment}
    catalog.objects.create_bucket(catalog.namespace, body)
    catalog.objects.put_object(catalog.namespace, "plain", "m/config.json", b"{}")
    for reference, code in (
        (catalog.reference("m", "plain"), "InvalidParameter"),
        (catalog.reference("none"), "ObjectNotFound"),
        (catalog.reference("m", "none"), "BucketNotFound"),
    ):
        work = catalog.work(catalog.client.register_model_artifact_reference(reference, model))
        assert (work.status, catalog.errors(work)[0][0]) == ("FAILED", code)
    catalog.place.stage.faults.add(faults.event("work fails", "REGISTER_MODEL_ARTIFACT", numbers=(4,)))
    work = catalog.work(catalog.client.register_model_artifact_reference(catalog.reference("m"), model))
    assert (work.status, catalog.client.get_model(model).data.is_model_by_reference) == ("FAILED", False)
    work = catalog.work(catalog.client.register_model_artifact_reference(catalog.reference("m"), model))
    assert (work.status, catalog.client.get_model(model).data.is_model_by_reference) == ("SUCCEEDED", True)
    with refused(409, "Conflict"):
        catalog.client.create_model_artifact(model, b"x", content_disposition="attachment; filename=model.zip")


def test_a_reference_that_is_sent_again_is_the_one_that_was_taken_meanwhile(catalog: Catalog) -> None:
    model, reference = catalog.model(), catalog.reference("m")
    catalog.put("m/config.json", b"{}")
    register = catalog.client.register_model_artifact_reference
    work = catalog.work(register(reference, model, opc_retry_token="token"))
    assert work.status == "SUCCEEDED"
    assert catalog.work(register(reference, model, opc_retry_token="token")).id == work.id
    with refused(409, "Conflict"):
        register(reference, model, opc_retry_token="another")


def test_a_token_makes_one_model(catalog: Catalog) -> None:
    made = {catalog.client.create_model(catalog.owner, opc_retry_token="token").data.id for _ in range(2)}
    assert len(made) == 1
    assert len(Science(catalog.place).client.list_models(catalog.place.compartment).data) == 1
