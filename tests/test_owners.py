"""Whose a model is in AWS where no job says it."""

from __future__ import annotations

import pytest

from cloudtune.errors import UsageError
from cloudtune.owners import aws_owner
from cloudtune.spec.document import dumps
from cloudtune.spec.infrastructure import EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import ScriptRuntime
from cloudtune.store import Record, Store

ROLE = "arn:aws:iam::111122223333:role/service-role/models"


def trained_on_a_cluster(store: Store) -> str:
    job = JobSpec(
        name="j", infrastructure=EKSJob(cluster="c", region="us-west-2"), runtime=ScriptRuntime(script_path_uri="a.sh")
    )
    known = Record(id="abcd1234", name="j", backend="eks", state="succeeded", created=1.0, updated=1.0, spec=dumps(job))
    store.add_run(known)
    return "abcd1234"


def test_the_arn_of_a_role_says_it_and_the_cluster_where(home, monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "CLOUDTUNE_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    store = Store()
    found = aws_owner(named=ROLE, run=trained_on_a_cluster(store), store=store)
    assert (found.role, found.region) == (ROLE, "us-west-2")
    assert found.bucket == "s3://sagemaker-us-west-2-111122223333"


def test_without_a_role_it_is_said_how_to_name_one(home):
    with pytest.raises(UsageError, match="nothing says with which role") as caught:
        aws_owner(named=None, run=None, store=Store())
    assert "the ARN of a role: --infrastructure NAME" in str(caught.value)
