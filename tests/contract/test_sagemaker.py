"""The contract suite on SageMaker: its stand-in on this machine, asked by the real SDK, with real nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from cloudtune import jobs
from cloudtune.backends import sagemaker_logs
from cloudtune.backends.sagemaker import SageMakerBackend
from cloudtune.errors import SpecError
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.infrastructure import SageMakerTrainingJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.states import Handle
from cloudtune.store import Store
from tests.aws_place import AwsPlace, aws_place
from tests.contract.suite import BackendContract, Place, cloud_place
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("botocore", reason="botocore is not installed")


def job(on: AwsPlace, command: str) -> JobSpec:
    where = SageMakerTrainingJob(
        region="us-west-2",
        role_arn=on.role,
        instance_type="ml.m5.xlarge",
        image="image:1",
        output_path=f"s3://{on.bucket}/out",
        compress_output=False,
    )
    runtime = PyTorchDistributedRuntime(command=command, replicas=2)
    return JobSpec(name="contract", infrastructure=where, runtime=runtime)


@pytest.mark.usefixtures("namespaces")
class TestSageMaker(BackendContract):
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        monkeypatch.setattr(sagemaker_logs, "PAGES", 1)  # a log of several replies need not be long
        with aws_place(tmp_path) as on:
            yield cloud_place(SageMakerBackend(), lambda command: job(on, command), lines=15000)

    def test_no_literal_secret_is_kept(self, place: Place) -> None:
        """A literal secret is refused: whoever may describe a training job would see it."""
        secret = "hf_" + "q" * 30
        assert place.good.runtime is not None
        env = (EnvironmentVariable(name="HF_TOKEN", value=secret),)
        job = attrs.evolve(place.good, runtime=attrs.evolve(place.good.runtime, env=env))
        assert secret not in place.backend.plan(job, "abcdefgh").to_json()
        with pytest.raises(SpecError, match="Secrets Manager"):
            jobs.start(job)
        kept = [path for path in Store().folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert kept == []

    @pytest.fixture
    def foreign(self) -> Callable[[Handle], str]:
        return lambda handle: handle.id
