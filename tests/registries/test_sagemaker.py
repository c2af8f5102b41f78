"""Models filed in SageMaker's model registry: the real SDK and s3fs against the stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import cloudtune
from cloudtune import storage
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.rehearsal import faults
from cloudtune.store import Store
from tests.aws_place import AwsPlace, aws_place
from tests.registries.models import described, merged
from tests.rehearsal.aws.serving import COMMAND
from tests.rehearsal.conftest import namespaces
from tests.weights.checks.checkable import write_model

pytest.importorskip("botocore")
pytest.importorskip("s3fs")
__all__ = ["namespaces"]
SERVICE = "aws.sagemaker"
#: Times that the client asks before it gives up.
TRIES = 6


class Filing:
    """A stand-in, and the user's profile of it."""

    def __init__(self, place: AwsPlace, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.client = place.sdk("sagemaker")
        path = folder / "config" / "mine.yaml"
        path.parent.mkdir(exist_ok=True)
        spec = {"region": "us-west-2", "roleArn": place.role}
        path.write_text(json.dumps({"kind": "infrastructure", "type": "sageMakerTrainingJob", "spec": spec}))

    def file(self, model: str | Path, **options: Any) -> Any:
        return cloudtune.register(str(model), **{"to": "sagemaker", "name": "llama", **options})

    def packages(self) -> list[str]:
        found: list[str] = []
        for group in self.client.list_model_package_groups()["ModelPackageGroupSummaryList"]:
            name = group["ModelPackageGroupName"]
            rows = self.client.list_model_packages(ModelPackageGroupName=name)["ModelPackageSummaryList"]
            found += [row["ModelPackageArn"].partition("/")[2] for row in rows]
        return sorted(found)


@pytest.fixture
def filing(tmp_path: Path) -> Iterator[Filing]:
    with aws_place(tmp_path, speed=20000.0) as place:
        yield Filing(place, tmp_path)


def test_a_model_is_filed_deployed_and_deleted(filing: Filing, namespaces: None) -> None:
    from cloudtune.rehearsal.aws.endpoints import Endpoints

    folder = merged(filing.folder / "m")
    (folder / "metrics.json").write_text('{"loss": 1.5}')
    record = filing.file(described(folder))
    arn = f"arn:aws:sagemaker:us-west-2:{filing.place.cloud.account}:model-package/llama/1"
    assert (record.version, record.uri) == ("1", f"sagemaker-package://{arn}")
    package = filing.client.describe_model_package(ModelPackageName=arn)
    (container,) = package["InferenceSpecification"]["Containers"]
    uri = container["ModelDataSource"]["S3DataSource"]["S3Uri"]
    assert {entry.path for entry in storage.listing(uri)} >= {"config.json", "metrics.json", "model.safetensors"}
    assert package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"] == f"{uri}metrics.json"
    notes = package["CustomerMetadataProperties"]
    assert (notes["base"], notes["eval_loss"], notes["cloudtune-staged"]) == ("org/base", "1", "true")
    # the same model again is the same version, and another one is the next
    assert (filing.file(folder).uri, filing.packages()) == (record.uri, ["llama/1"])
    assert filing.file(merged(filing.folder / "n", b"other")).version == "2"
    # what is filed can be served
    filing.place.cloud.part(Endpoints).commands[container["Image"]] = COMMAND
    cloudtune.deploy("llama:1", to="sagemaker", shape="ml.g5.xlarge")
    assert cloudtune.invoke("llama", "hello there") == "hello there"
    assert cloudtune.delete("llama").kept == ("model llama:2", "model llama:1")
    cloudtune.delete("llama:1", outputs=True)
    assert (filing.packages(), storage.listing(uri)) == (["llama/2"], ())
    cloudtune.delete("llama", outputs=True)
    assert filing.client.list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    with pytest.raises(UsageError, match="numbers versions itself"):
        filing.file(folder, version="7")
    with pytest.raises(UsageError, match="'a_b' cannot be the name"):
        filing.file(folder, name="a_b")


def test_a_model_in_the_users_own_bucket_stays_there(filing: Filing) -> None:
    uri = f"s3://{filing.place.bucket}/runs/x"
    storage.upload(merged(filing.folder / "m"), uri)
    record = filing.file(uri)
    package = filing.client.describe_model_package(ModelPackageName=record.uri.partition("://")[2])
    (container,) = package["InferenceSpecification"]["Containers"]
    assert container["ModelDataSource"]["S3DataSource"]["S3Uri"] == f"{uri}/"
    cloudtune.delete("llama", outputs=True)
    assert len(storage.listing(uri)) > 2


def test_a_model_is_filed_under_two_names_and_in_two_registries_each_by_itself(filing: Filing) -> None:
    folder = write_model(filing.folder / "m")
    package, other = filing.file(folder), filing.file(folder, name="other")
    assert filing.packages() == ["llama/1", "other/1"]
    imported = cloudtune.register(str(folder), to="bedrock", name="llama")
    described = filing.client.describe_model_package(ModelPackageName=package.uri.partition("://")[2])
    uri = described["InferenceSpecification"]["Containers"][0]["ModelDataSource"]["S3DataSource"]["S3Uri"]
    there = storage.listing(uri)
    cloudtune.delete(f"{imported.name}:{imported.version}", outputs=True)
    cloudtune.delete(other.name, outputs=True)
    assert there
    assert storage.listing(uri) == there
    # a deletion that is cut short is gone on with
    filing.place.cloud.denied.add("s3:DeleteObjects")
    with pytest.raises(CloudtuneError):
        cloudtune.delete("llama", outputs=True)
    filing.place.cloud.denied.clear()
    cloudtune.delete("llama", outputs=True)
    assert (filing.packages(), storage.listing(uri)) == ([], ())


def test_a_call_that_fails_is_tried_again_and_for_good_is_told(filing: Filing) -> None:
    record = filing.place.stage.record
    folder = merged(filing.folder / "m")

    def again() -> None:
        filing.file(folder)
        cloudtune.delete("llama", outputs=True)

    again()
    flow = list(dict.fromkeys(call.call for call in record.calls if call.service == SERVICE))
    for fault in (faults.lost("*"), faults.refused("*", status=500)):
        for one in faults.each_once(flow, fault):
            done = sum(call.call == (one.service, one.operation) for call in record.calls)
            filing.place.stage.faults.add(attrs.evolve(one, numbers=(done + 1,)))
        again()
        assert filing.place.stage.faults.left() == ()
    for service, operation in flow:
        if not operation.startswith("create_"):
            continue
        done = sum(call.call == (service, operation) for call in record.calls)
        numbers = range(done + 1, done + 1 + TRIES)
        filing.place.stage.faults.add(faults.lost(service, operation, numbers=numbers))
        with pytest.raises(CloudtuneError):
            filing.file(folder)
        filing.file(folder)
        assert (len(filing.packages()), len(Store().models("llama"))) == (1, 1)
        cloudtune.delete("llama", outputs=True)
