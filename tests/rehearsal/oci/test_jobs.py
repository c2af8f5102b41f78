"""Jobs and artifacts of the stand-in through the SDK: states, tokens, pages, what is refused."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal.oci.cloud import Timing
from tests.oci_place import oci_place
from tests.rehearsal.oci.science import Science, refused, until

oci = pytest.importorskip("oci", reason="the oci SDK is not installed")


def test_a_job_becomes_active_and_goes_in_the_end(tmp_path: Path) -> None:
    with oci_place(tmp_path, timing=Timing(job_s=6000.0)) as place:
        client = Science(place).client
        made = client.create_job(Science(place).details()).data
        assert (made.lifecycle_state, made.display_name) == ("CREATING", "test")
        assert made.created_by == place.cloud.principals.user
        with refused(409, "IncorrectState"):
            client.create_job_artifact(made.id, b"x", content_disposition="attachment; filename=a.py")
        place.stage.clock.push(6000.0)
        until(lambda: client.get_job(made.id).data.lifecycle_state == "ACTIVE")
        found = client.get_job(made.id).data
        assert found.job_infrastructure_configuration_details.shape_name == "VM.Standard2.1"
        assert isinstance(found.job_configuration_details, oci.data_science.models.DefaultJobConfigurationDetails)
        client.delete_job(made.id)
        until(lambda: client.get_job(made.id).data.lifecycle_state == "DELETED")
        with refused(404, "NotAuthorizedOrNotFound"):
            client.delete_job(made.id)
        with refused(404, "NotAuthorizedOrNotFound"):
            client.get_job("ocid1.datasciencejob.oc1.iad.none")


def test_a_job_is_changed_where_it_may_be(science: Science) -> None:
    job = science.job(science.details())
    reply = science.client.get_job(job)
    etag = reply.headers["etag"]
    changed = science.client.update_job(job, {"displayName": "other", "freeformTags": {"a": "b"}}, if_match=etag)
    assert (changed.data.display_name, changed.data.freeform_tags) == ("other", {"a": "b"})
    with refused(412, "NoEtagMatch"):
        science.client.update_job(job, {"displayName": "third"}, if_match=etag)
    with refused(400, "CannotParseRequest"):
        science.client.update_job(job, {"projectId": science.place.project})
    with refused(400, "InvalidParameter"):
        science.client.update_job(job, {"jobStorageMountConfigurationDetailsList": [{}]})


def test_the_same_token_is_the_same_job_and_another_body_is_refused(science: Science) -> None:
    first = science.client.create_job(science.details(), opc_retry_token="token").data
    again = science.client.create_job(science.details(), opc_retry_token="token").data
    other = science.client.create_job(science.details()).data
    assert first.id == again.id != other.id
    with refused(409, "InvalidatedRetryToken"):
        science.client.create_job(science.details(A="b"), opc_retry_token="token")
    with refused(400, "InvalidParameter"):
        science.client.create_job(science.details(), opc_retry_token="x" * 65)
    science.place.stage.clock.push(25 * 3600)  # tokens are forgotten after a day
    assert science.client.create_job(science.details(), opc_retry_token="token").data.id != first.id


def test_an_artifact_is_given_once(science: Science) -> None:
    job, client = science.job(science.details()), science.client
    with refused(404, None):  # an answer to HEAD has no body
        client.head_job_artifact(job)
    with refused(404, "NotAuthorizedOrNotFound"):
        client.get_job_artifact_content(job)
    for words in ({}, {"content_disposition": "attachment; filename=model.bin"}):
        with refused(400, "InvalidParameter"):
            client.create_job_artifact(job, b"print()", **words)
    with refused(400, "InvalidParameter"):
        client.create_job_artifact(job, b"", content_disposition="attachment; filename=a.py")
    given: Any = {"content_disposition": "attachment; filename=train.py", "opc_retry_token": "t"}
    client.create_job_artifact(job, io.BytesIO(b"print(1)"), **given)
    client.create_job_artifact(job, io.BytesIO(b"print(1)"), **given)  # sent again, because the reply was lost
    with refused(409, "InvalidatedRetryToken"):
        client.create_job_artifact(job, io.BytesIO(b"print(2)"), **given)
    with refused(409, "Conflict"):
        client.create_job_artifact(job, b"print(1)", content_disposition="attachment; filename=train.py")
    head = client.head_job_artifact(job).headers
    assert (head["content-length"], head["content-disposition"]) == ("8", "attachment; filename=train.py")
    assert client.get_job_artifact_content(job).data.content == b"print(1)"
    assert client.get_job_artifact_content(job, range="bytes=6-").data.content == b"1)"


def test_jobs_are_listed_page_by_page(science: Science) -> None:
    for name in ("b", "a", "c"):
        science.client.create_job({**science.details(), "displayName": name})
        time.sleep(0.002)  # the time of making has milliseconds

    def names(**query: Any) -> list[str]:
        return [job.display_name for job in science.client.list_jobs(science.place.compartment, **query).data]

    assert names() == ["c", "a", "b"]
    assert names(sort_by="displayName") == ["a", "b", "c"]
    assert names(sort_by="displayName", sort_order="DESC", limit=2) == ["c", "b"]
    assert names(display_name="b") == ["b"]
    assert names(lifecycle_state="DELETED") == []
    assert science.client.list_jobs("ocid1.compartment.oc1..other").data == []
    found = oci.pagination.list_call_get_all_results(science.client.list_jobs, science.place.compartment, limit=1)
    assert [job.display_name for job in found.data] == ["c", "a", "b"]
    first = science.client.list_jobs(science.place.compartment, limit=1).headers["opc-next-page"]
    for query in ({"page": "nonsense"}, {"page": first, "sort_order": "ASC"}, {"limit": 0}, {"limit": 1001}):
        with refused(400, "InvalidParameter"):
            names(**query)


def test_the_machines_that_there_are(science: Science) -> None:
    shapes = oci.pagination.list_call_get_all_results(
        science.client.list_job_shapes, science.place.compartment, limit=20
    )
    found = {shape.name: shape for shape in shapes.data}
    a10 = found["VM.GPU.A10.2"]
    assert (a10.core_count, a10.memory_in_gbs, a10.shape_series) == (30, 480, "NVIDIA_GPU")
    assert found["VM.Standard.A1.Flex"].shape_series == "ARM"


@pytest.mark.parametrize("run_too", [True, False])
def test_a_job_with_runs_is_deleted_with_them(science: Science, run_too: bool, namespaces: None) -> None:
    job = science.job(science.details(), b"import time; time.sleep(60)")
    run = science.start(job)
    with refused(409, "IncorrectState"):
        science.client.delete_job(job, delete_related_job_runs=True)
    science.client.cancel_job_run(run)
    assert science.ended(run).lifecycle_state == "CANCELED"
    if not run_too:
        with refused(409, "IncorrectState"):
            science.client.delete_job(job)
        return
    science.client.delete_job(job, delete_related_job_runs=True)
    until(lambda: science.client.get_job(job).data.lifecycle_state == "DELETED")
    assert science.run(run).lifecycle_state == "DELETED"
