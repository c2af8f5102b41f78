"""Models filed in the catalog of OCI Data Science: the real SDK and ocifs against the stand-in."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import cloudtune
from cloudtune import storage
from cloudtune.errors import CloudtuneError, NotAllowed, ServiceError, UsageError
from cloudtune.owners import OciOwner
from cloudtune.plan import Call, File
from cloudtune.registries import oci_catalog, oci_notes
from cloudtune.rehearsal import faults
from cloudtune.spec.document import dumps
from cloudtune.spec.job import JobSpec
from cloudtune.spec.oci import DataScienceJob
from cloudtune.spec.runtimes import GitPythonRuntime
from cloudtune.store import Record, Store
from tests.oci_place import OciPlace, oci_place
from tests.registries.models import RECORD, described, merged, safetensors

pytest.importorskip("oci", reason="the oci SDK is not installed")
pytest.importorskip("ocifs", reason="ocifs is not installed")
SERVICE = "oci.data_science"
FAULTS = {
    "429": faults.refused("*", status=429),
    "500": faults.refused("*", status=500),
    "lost": faults.lost("*"),
    "cut": faults.cut("*"),
}
#: Times that the client asks before it gives up.
TRIES = 8


class Filing:
    """A stand-in with a bucket that keeps versions, and the user's profile of it."""

    def __init__(self, place: OciPlace, folder: Path) -> None:
        from cloudtune.rehearsal.oci.buckets import Buckets

        self.place = place
        self.client = place.sdk("data_science", "DataScienceClient")
        self.shelf = place.cloud.part(Buckets).make("b", namespace="ns")
        place.stage.store.change("oci.bucket", "ns/b", versioning="Enabled")
        self.profile(folder / "config" / "mine.yaml")

    def profile(self, path: Path, **changes: str) -> Path:
        """Write an infrastructure, by default as the one profile that there is."""
        spec = {
            "compartmentId": self.place.compartment,
            "projectId": self.place.project,
            "stagingUri": "oci://b@ns/staging",
            **changes,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"kind": "infrastructure", "type": "dataScienceJob", "spec": spec}))
        return path

    def file(self, model: str | Path, **options: Any) -> Any:
        return cloudtune.register(str(model), to="oci", name="llama", **options)

    def models(self) -> list[Any]:
        found = self.client.list_models(self.place.compartment, sort_order="ASC").data
        return [self.client.get_model(one.id).data for one in found if one.lifecycle_state == "ACTIVE"]

    def notes(self, model: Any) -> dict[str, str]:
        return {one.key: one.value for one in model.custom_metadata_list}

    def operations(self) -> list[str]:
        return [call.operation for call in self.place.stage.record.calls if call.service == SERVICE]

    def put(self, folder: Path, below: str) -> str:
        uri = f"oci://b@ns/{below}"
        storage.upload(folder, uri)
        return uri


@pytest.fixture
def filing(tmp_path: Path) -> Iterator[Filing]:
    with oci_place(tmp_path) as place:
        yield Filing(place, tmp_path)


@pytest.fixture
def by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model be a large one."""
    from cloudtune.registries import oci

    monkeypatch.setattr(oci, "WHOLE_BYTES", 0)


def test_a_small_model_is_sent_whole_and_noted(filing: Filing, tmp_path: Path) -> None:
    said: list[str] = []
    record = filing.file(described(merged(tmp_path / "m")), progress=said.append)
    (model,) = filing.models()
    assert (record.name, record.version, record.uri) == ("llama", "1", f"oci-model://{model.id}")
    assert (model.display_name, model.version_label, model.model_version_set_name) == ("llama", "1", "llama")
    content = filing.client.get_model_artifact_content(model.id).data.content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == ["cloudtune.json", "config.json", "model.safetensors"]
        assert archive.read("model.safetensors") == safetensors()
    notes = filing.notes(model)
    assert (notes["base"], notes["run"], notes["eval_loss"]) == ("org/base", "abc12345", "1")
    assert notes["sha256-model.safetensors"] == record.checksums["model.safetensors"]
    assert set(record.checksums) == {"cloudtune.json", "config.json", "model.safetensors"}
    assert [one.version for one in cloudtune.list(models=True)] == ["1"]
    assert said[0].startswith("reading 3 files")


def test_the_same_model_again_is_the_same_version(filing: Filing, tmp_path: Path) -> None:
    first = filing.file(merged(tmp_path / "m"))
    before = len(filing.operations())
    assert filing.file(tmp_path / "m").uri == first.uri
    assert not [name for name in filing.operations()[before:] if not name.startswith(("get_", "list_", "head_"))]
    assert filing.file(merged(tmp_path / "n", b"others")).version == "2"
    with pytest.raises(UsageError, match="has a version 1 of it already"):
        filing.file(tmp_path / "n", version="1")
    assert filing.file(merged(tmp_path / "o", b"more"), version="best").version == "best"
    cloudtune.register(str(merged(tmp_path / "p", b"here")), name="llama", version="9")
    with pytest.raises(UsageError, match="in another registry"):
        filing.file(merged(tmp_path / "q", b"q"), version="9")
    assert filing.file(tmp_path / "q").version == "10"


def test_a_large_model_is_staged_and_referred_to(filing: Filing, tmp_path: Path, by_reference: None) -> None:
    said: list[str] = []
    record = filing.file(merged(tmp_path / "m"), progress=said.append)
    (model,) = filing.models()
    assert model.is_model_by_reference
    names = [one.name for one in filing.shelf.find().objects]
    place = filing.notes(model)["source"]
    assert {name.rpartition("/")[2] for name in names} == {"cloudtune.json", "config.json", "model.safetensors"}
    assert all(f"oci://b@ns/{name}".startswith(f"{place}/") for name in names)
    assert any("the catalog takes the model: succeeded, 100 %" in line for line in said)
    cloudtune.delete("llama:1", outputs=True)
    assert (filing.models(), filing.shelf.find().objects) == ([], [])
    assert filing.client.list_model_version_sets(filing.place.compartment, lifecycle_state="ACTIVE").data == []
    assert record.uri.startswith("oci-model://ocid1.datasciencemodel.")


def test_files_that_two_versions_refer_to_go_with_the_last_of_them(
    filing: Filing, tmp_path: Path, by_reference: None
) -> None:
    for version in ("first", "second"):
        filing.file(merged(tmp_path / version), version=version)
    there = {one.name for one in filing.shelf.find().objects}
    cloudtune.delete("llama:first", outputs=True)
    (left,) = filing.models()
    assert (left.version_label, {one.name for one in filing.shelf.find().objects}) == ("second", there)
    cloudtune.delete("llama:second", outputs=True)
    assert (filing.models(), filing.shelf.find().objects) == ([], [])


def test_a_version_that_failed_keeps_its_set_and_hinders_nobody(filing: Filing, tmp_path: Path) -> None:
    for name in (b"a", b"b"):
        filing.file(merged(tmp_path / name.decode(), name))
    failed = next(one for one in filing.models() if one.version_label == "2")
    filing.place.stage.store.change("oci.model", failed.id, lifecycleState="FAILED")
    cloudtune.delete("llama:1", outputs=True)
    assert [one.version for one in Store().models("llama")] == ["2"]
    cloudtune.delete("llama:2", outputs=True)
    assert filing.client.list_model_version_sets(filing.place.compartment, lifecycle_state="ACTIVE").data == []


def test_who_is_not_signed_in_forgets_no_model(filing: Filing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filing.file(merged(tmp_path / "m"))
    with monkeypatch.context() as patch:
        patch.setenv("OCI_CLI_PROFILE", "nobody")
        with pytest.raises(NotAllowed, match="nobody"):
            cloudtune.delete("llama:1", outputs=True)
    assert (len(filing.models()), len(Store().models("llama"))) == (1, 1)


def test_what_the_catalog_has_is_looked_for_where_it_is_made() -> None:
    """The project's region is that of the catalog, whatever the user's profile says."""
    asked: list[Call] = []

    class Listening:
        def read(self, call: Call) -> dict[str, Any]:
            asked.append(call)
            if call.operation == "get_model":
                return {"compartmentId": "ocid1.compartment.oc1..aa", "projectId": project, "modelVersionSetId": "x"}
            return {"items": []}

        def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> dict[str, Any]:
            asked.append(call)
            return {"id": "x"}

    project = "ocid1.datascienceproject.oc1.eu-frankfurt-1.aa"
    owner = OciOwner(compartment="ocid1.compartment.oc1..aa", project=project, place=DataScienceJob())
    catalog = oci_catalog.Catalog(Listening(), owner, "llama")
    catalog.versions()
    catalog.create({"modelVersionSetId": catalog.version_set()})
    oci_catalog.Catalog.remove(Listening(), "ocid1.datasciencemodel.oc1.eu-frankfurt-1.aa", "llama")
    operations = [call.operation for call in asked if call.parameters.get("region") == "eu-frankfurt-1"]
    assert {"list_models", "list_model_version_sets", "create_model_version_set", "create_model"} <= {*operations}
    assert [call.operation for call in asked if "region" not in call.parameters] == ["get_model"]


def test_a_model_that_may_not_be_seen_is_not_forgotten(filing: Filing, tmp_path: Path) -> None:
    """As with a profile of another tenancy: of what one may not see, the service says that it does not exist."""
    filing.file(merged(tmp_path / "m"))
    filing.place.cloud.absent.add(filing.place.compartment)
    with pytest.raises(NotAllowed, match="may not be seen, nor what is in its compartment"):
        cloudtune.delete("llama", outputs=True)
    assert [one.name for one in Store().models()] == ["llama"]
    filing.place.cloud.absent.clear()
    (model,) = filing.models()
    filing.place.stage.store.remove("oci.model", model.id)  # as long after it was deleted
    cloudtune.delete("llama", outputs=True)
    assert Store().models() == ()


def test_a_model_in_a_bucket_stays_where_it_is(filing: Filing, tmp_path: Path) -> None:
    uri = filing.put(described(merged(tmp_path / "m")), "runs/x/model")
    before = len(filing.place.stage.record.calls)
    record = filing.file(uri)
    (model,) = filing.models()
    assert (model.is_model_by_reference, filing.notes(model)["source"]) == (True, uri)
    sent = [call for call in filing.place.stage.record.calls[before:] if call.operation == "get_object"]
    # the header is looked at; its own record says what the large files hash to
    assert len([call.target for call in sent if call.target.endswith("safetensors")]) <= 2
    cloudtune.delete("llama", outputs=True)
    assert filing.models() == []
    assert {one.name for one in filing.shelf.find(prefix="runs/x/model/").objects} >= {
        f"runs/x/model/{path}" for path in record.checksums
    }


def test_where_it_came_from_is_noted(filing: Filing, tmp_path: Path) -> None:
    (tmp_path / "config" / "mine.yaml").unlink()
    runtime = GitPythonRuntime(url="https://git.example/x", branch="main", commit="c0ffee", entrypoint="train.py")
    owner = {"compartment_id": filing.place.compartment, "project_id": filing.place.project}
    job = JobSpec(name="t", infrastructure=DataScienceJob(**owner), runtime=runtime)
    run = "ocid1.datasciencejobrun.oc1.iad.aaaa"
    row = {"backend": "oci", "state": "succeeded", "created": time.time(), "updated": time.time()}
    Store().add_run(
        Record(id=RECORD["run"], name="t", handle=f"oci://us-ashburn-1/jobRun/{run}", spec=dumps(job), **row)
    )
    (merged(tmp_path / "m") / "adapter_config.json").write_text('{"r": 16}')
    filing.file(tmp_path / "m")  # whose it is, the run's own infrastructure says
    (model,) = filing.models()
    found = filing.client.get_model_provenance(model.id).data
    assert (found.repository_url, found.git_branch, found.git_commit) == ("https://git.example/x", "main", "c0ffee")
    assert (found.training_script, found.training_id) == ("train.py", run)
    assert filing.notes(model)["lora_rank"] == "16"


@pytest.mark.parametrize("kind", FAULTS)
def test_every_call_may_fail_once(kind: str, filing: Filing, tmp_path: Path, by_reference: None) -> None:
    filing.file(merged(tmp_path / "m"))
    calls = [call.call for call in filing.place.stage.record.calls]
    for one in faults.each_once(calls, FAULTS[kind]):
        done = calls.count((one.service, one.operation))
        filing.place.stage.faults.add(attrs.evolve(one, numbers=tuple(done + number for number in one.numbers)))
    assert filing.file(merged(tmp_path / "n", b"others")).version == "2"
    assert [(model.version_label, model.is_model_by_reference) for model in filing.models()] == [
        ("1", True),
        ("2", True),
    ]


def test_a_call_that_fails_for_good_leaves_nothing_double(filing: Filing, tmp_path: Path, by_reference: None) -> None:
    """Each call of filing a model fails until the client gives up; filing it again makes one model of it.

    Reads are refused, and of changes the answers are lost.
    """
    record = filing.place.stage.record
    filing.file(merged(tmp_path / "m"))
    flow = tuple(dict.fromkeys(call.call for call in record.calls))
    for number, (service, operation) in enumerate(flow, 2):
        if operation == "create_model_version_set":  # there is one by now
            continue
        done = sum(call.call == (service, operation) for call in record.calls)
        numbers = tuple(range(done + 1, done + 1 + TRIES))
        fault = FAULTS["500" if operation.startswith(("get_", "list_", "head_")) else "lost"]
        filing.place.stage.faults.add(attrs.evolve(fault, service=service, operation=operation, numbers=numbers))
        model = merged(tmp_path / f"{number}", f"{service} {operation}".encode())
        with pytest.raises(CloudtuneError) as error:
            filing.file(model)
        unfinished = [one for one in filing.models() if not one.is_model_by_reference]
        assert len(unfinished) <= 1
        kept = len(cloudtune.list(models=True))
        again = filing.file(model)
        assert len(cloudtune.list(models=True)) == kept + 1, (operation, error.value)
        ids = [one.id for one in filing.models()]
        assert f"oci-model://{ids[-1]}" == again.uri
        assert len(ids) == kept + 1
    assert all(one.is_model_by_reference for one in filing.models())
    assert len(filing.client.list_model_version_sets(filing.place.compartment).data) == 1


def test_what_was_killed_is_gone_on_with(filing: Filing, tmp_path: Path) -> None:
    """Killed after the model's entry was made, and before its OCID is heard."""
    stage = filing.place.stage
    tries: dict[str, Any] = {"operation": "create_model", "numbers": range(1, TRIES + 1)}
    stage.faults.add(faults.slow(SERVICE, seconds=2.0, **tries), faults.lost(SERVICE, **tries))
    words = ["register", str(merged(tmp_path / "m")), "--to", "oci", "--name", "llama"]
    environ = {**os.environ, **filing.place.environ}
    process = subprocess.Popen([sys.executable, "-m", "cloudtune", *words], env=environ, stderr=subprocess.PIPE)
    until_s = time.monotonic() + 120
    while not filing.models():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until_s
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert cloudtune.list(models=True) == ()
    assert filing.file(tmp_path / "m").version == "1"
    assert len(filing.models()) == 1


def test_what_was_interrupted_goes_on(filing: Filing, tmp_path: Path, by_reference: None) -> None:
    merged(tmp_path / "m")
    for operation in ("create_model", "get_work_request"):
        filing.place.stage.faults.add(faults.lost(SERVICE, operation, numbers=tuple(range(1, 9))))
        with pytest.raises(ServiceError) as error:
            filing.file(tmp_path / "m")
        assert error.value.definite is False
    assert filing.file(tmp_path / "m").version == "1"
    (model,) = filing.models()
    assert model.is_model_by_reference
    assert filing.operations().count("register_model_artifact_reference") == 1
    assert [call.operation for call in filing.place.stage.record.calls].count("put_object") == 3


def test_a_failure_cleans_up_and_says_why(filing: Filing, tmp_path: Path, by_reference: None) -> None:
    filing.place.stage.faults.add(faults.event("work fails", "REGISTER_MODEL_ARTIFACT"))
    with pytest.raises(ServiceError, match="InternalServerError: rehearsed fault: work fails") as failed:
        filing.file(merged(tmp_path / "m"))
    assert (filing.models(), cloudtune.list(models=True)) == ([], ())
    places = {f"oci://b@ns/{one.name.rpartition('/')[0]}" for one in filing.shelf.find().objects}
    assert [place in (failed.value.hint or "") for place in places] == [True]
    assert filing.file(tmp_path / "m").version == "1"
    assert [call.operation for call in filing.place.stage.record.calls].count("put_object") == 3
    filing.place.stage.store.change("oci.bucket", "ns/b", versioning="Disabled")
    with pytest.raises(UsageError, match="keeps no versions") as error:
        filing.file(merged(tmp_path / "n", b"others"))
    assert "--versioning Enabled" in (error.value.hint or "")


def test_whose_it_is_must_be_known(filing: Filing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = merged(tmp_path / "m")
    other = filing.profile(tmp_path / "config" / "other.yaml", projectId="ocid1.datascienceproject.oc1.iad.other")
    with pytest.raises(UsageError, match="compartmentId and projectId not known"):
        filing.file(model)  # there are two profiles
    assert filing.file(model, infrastructure="other").version == "1"
    assert Store().models()[0].details["infrastructure"] == "other"
    assert filing.models()[0].project_id == "ocid1.datascienceproject.oc1.iad.other"
    other.unlink()
    (tmp_path / "config" / "mine.yaml").unlink()
    monkeypatch.setenv("NB_SESSION_COMPARTMENT_OCID", filing.place.compartment)
    monkeypatch.setenv("PROJECT_OCID", filing.place.project)
    assert filing.file(merged(tmp_path / "n", b"others")).version == "2"
    with pytest.raises(UsageError, match="is of type local"):
        filing.file(model, infrastructure="local")
    with pytest.raises(UsageError, match="--infrastructure is for clouds"):
        cloudtune.register(str(model), name="llama", infrastructure="other")
    with pytest.raises(UsageError, match="--public is for the Hub"):
        filing.file(model, public=True)


def test_a_large_model_needs_a_bucket(filing: Filing, tmp_path: Path, by_reference: None) -> None:
    filing.profile(tmp_path / "config" / "mine.yaml", stagingUri="s3://b/p")
    with pytest.raises(UsageError, match="it must lie in a bucket of OCI") as error:
        filing.file(merged(tmp_path / "m"))
    assert "stagingUri" in (error.value.hint or "")
    assert filing.operations() == []


def test_what_the_catalog_refuses_is_told(filing: Filing, tmp_path: Path) -> None:
    filing.place.cloud.absent.add(filing.place.project)
    with pytest.raises(NotAllowed, match="create_model_version_set"):
        filing.file(merged(tmp_path / "m"))


def test_notes_fit_into_the_catalog() -> None:
    notes = oci_notes.Notes(
        base="b" * 300, run=None, metrics={"loss": 0.5, "bad": float("nan"), "on": True}, rank="8", method="lora"
    )
    sums = {f"model-{number:05}.safetensors": "0" * 64 for number in range(1000)}
    sizes = {name: 1000 - number for number, name in enumerate(sums)}
    rows = oci_notes.custom_metadata(notes, sums, sizes, "oci://b@ns/p", staged=True)
    assert len(json.dumps(rows).encode()) <= oci_notes.METADATA_BYTES
    assert all(len(row["value"]) <= 255 for row in rows)
    keys = [row["key"] for row in rows]
    assert keys[:7] == ["base", "method", "lora_rank", "checksums", "source", "staged", "loss"]
    assert keys[7] == "sha256-model-00000.safetensors"
    assert 100 < len(keys) < 1000


def test_the_command_line_files_a_model(filing: Filing, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from cloudtune.cli import cli

    words = ["register", str(merged(tmp_path / "m")), "--to", "oci", "--name", "llama", "-o", "json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["version"] == "1"
