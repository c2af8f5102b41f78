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
from tests.contract.suite import BackendContract, Place
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("botocore", reason="botocore is not installed")


def job(on: AwsPlace, command: str, *, replicas: int = 2) -> JobSpec:
    where = SageMakerTrainingJob(
        region="us-west-2",
        role_arn=on.role,
        instance_type="ml.m5.xlarge",
        image="image:1",
        output_path=f"s3://{on.bucket}/out",
        compress_output=False,
    )
    runtime = PyTorchDistributedRuntime(command=command, replicas=replicas)
    return JobSpec(name="contract", infrastructure=where, runtime=runtime)


@pytest.mark.usefixtures("namespaces")
class TestSageMaker(BackendContract):
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        monkeypatch.setattr(sagemaker_logs, "PAGES", 1)  # a log of several replies need not be long
        with aws_place(tmp_path) as on:
            yield Place(
                backend=SageMakerBackend(),
                good=job(on, "echo one; echo two >&2"),
                bad=job(on, 'echo "about to fail"; if [ "$CLOUDTUNE_NODE_RANK" = 1 ]; then exit 3; fi; sleep 30'),
                long=job(on, "sleep 300"),
                talkative=job(
                    on,
                    'if [ "$CLOUDTUNE_NODE_RANK" = 1 ]; then for i in 1 2 3 4 5; do echo "short $i"; sleep 0.1; done; fi;'
                    ' if [ "$CLOUDTUNE_NODE_RANK" = 0 ]; then sleep 2; seq -f "a line of a long log: %.0f" 15000; fi',
                ),
            )

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
