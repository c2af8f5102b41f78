"""AWS on this machine for tests: the stand-in, and a user who is known to it.

with aws_place(tmp_path) as place:      # this process is the user: SDK, s3fs and cloudtune reach the stand-in alone
    place.sdk("sagemaker").describe_training_job(...)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune.rehearsal.faults import Fault
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.stage import Stage

#: Seconds of the stand-in's clock in one of this machine's.
SPEED = 200.0
OVER = ("Completed", "Failed", "Stopped")


@attrs.frozen(kw_only=True)
class AwsPlace:
    """A stand-in that runs; ``role`` is an ARN that it takes for a role's, ``bucket`` a bucket that exists."""

    stage: Stage
    cloud: Any
    identity: Identity

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a client, all of them: for processes that are started."""
        return self.identity.environment(self.cloud.environment())

    @property
    def role(self) -> str:
        return f"arn:aws:iam::{self.cloud.account}:role/service-role/training"

    @property
    def bucket(self) -> str:
        return str(self.cloud.bucket)

    def sdk(self, service: str, **options: Any) -> Any:
        """Return a client of the SDK that signs as the user, and tries once."""
        import botocore.config
        import botocore.session

        # links to objects are signed the old way unless the newer one is asked for
        newer = {"signature_version": "s3v4"} if service == "s3" else {}
        config = botocore.config.Config(retries={"total_max_attempts": 1, "mode": "standard"}, **newer)
        return botocore.session.Session().create_client(service, config=config, **options)

    def job(self, name: str, *argv: str, nodes: int = 1, **changes: Any) -> dict[str, Any]:
        """Return the request of a training job that runs a command."""
        algorithm = {"TrainingImage": "img:1", "TrainingInputMode": "File", "ContainerEntrypoint": list(argv[:1])}
        if argv[1:]:
            algorithm["ContainerArguments"] = list(argv[1:])
        resources = {"InstanceType": "ml.g5.12xlarge", "InstanceCount": nodes, "VolumeSizeInGB": 30}
        return {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": algorithm,
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out"},
            "ResourceConfig": resources,
            "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
            **changes,
        }

    def over(self, name: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return a job once it is over."""
        client = self.sdk("sagemaker")

        def look() -> dict[str, Any] | None:
            job: dict[str, Any] = client.describe_training_job(TrainingJobName=name)
            return job if job["TrainingJobStatus"] in OVER else None

        return until(look, timeout_s=timeout_s)


def until(look: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    """Return the first answer that is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def aws_place(
    folder: Path, *, faults: Iterable[Fault] = (), speed: float = SPEED, **options: Any
) -> Iterator[AwsPlace]:
    """Begin the stand-in and be its user for a while; ``options`` are those of the cloud.

    The stand-in must not have failed by itself.
    """
    for name in ("botocore", "moto", "flask", "flask_cors"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from cloudtune.rehearsal.aws.cloud import AwsCloud

    with Identity() as identity, Stage(folder / "aws", faults=faults, speed=speed) as stage:
        cloud = AwsCloud(stage, identity, **options)
        with identity.applied(cloud.environment()):
            yield AwsPlace(stage=stage, cloud=cloud, identity=identity)
    assert stage.errors == ()
