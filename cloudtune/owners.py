"""Whose a model is that goes to a cloud: compartment, project, network and logs, from a job that says so.

A verb is given a profile or a job's file (``--infrastructure``). Without one it looks at the run that trained the
model, at the pipeline that the verb is a step of, and for the one profile of that cloud that the user keeps; on OCI
a notebook session or job run says it too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import attrs

from cloudtune.backends import sagemaker_surroundings
from cloudtune.backends.oci_surroundings import surroundings
from cloudtune.backends.oci_wire import region_in
from cloudtune.errors import CloudtuneError, RunNotFound, SpecError, UsageError
from cloudtune.plan import Call, Ref
from cloudtune.spec import profiles
from cloudtune.spec.document import load
from cloudtune.spec.eks import EKSJob
from cloudtune.spec.job import PipelineSpec
from cloudtune.spec.oci import DataScienceJob
from cloudtune.spec.place import Infrastructure
from cloudtune.spec.sagemaker import SageMakerTrainingJob
from cloudtune.store import Model, Store
from cloudtune.submit import Client

_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/.+")

I = TypeVar("I", bound=Infrastructure)  # noqa: E741 - an infrastructure


@attrs.frozen(kw_only=True)
class OciOwner:
    """Whose a resource of OCI Data Science is; ``place`` has the rest that a job would say."""

    compartment: str
    project: str
    place: DataScienceJob

    @property
    def region(self) -> str | None:
        """The region of all that belongs to the owner: as a job says, else that of the project."""
        return self.place.region or region_in(self.project)

    @property
    def named(self) -> dict[str, str]:
        """The owner as bodies of requests name it, with the region for the client if there is one."""
        region = {"region": self.region} if self.region else {}
        return {"compartmentId": self.compartment, "projectId": self.project, **region}


@attrs.frozen(kw_only=True)
class AwsOwner:
    """As whom AWS's services act on a model, and where; ``place`` has the rest that a job would say.

    ``bucket`` is the account's default one, None where nothing tells the account.
    """

    region: str | None
    role: str
    bucket: str | None
    place: SageMakerTrainingJob

    @property
    def staging(self) -> str | None:
        """The prefix of S3 to which a model is sent that is not there, None where nothing tells one."""
        return self.place.staging_uri or self.bucket


def infrastructure_for(kind: type[I], *, named: str | None, run: str | None, store: Store) -> I | None:
    """Return the infrastructure that is named, or the first that is found; None if there is none.

    Raises:
        SpecError: what is named cannot be read.
        UsageError: what is named is another cloud's.
    """
    if named is not None:
        found = profiles.load(named)
        if not isinstance(found, kind):
            raise UsageError(f"{named} is of type {found.type}, and {kind.type} is needed", hint="name another profile")
        return found
    for run_id in (run, os.environ.get("CLOUDTUNE_RUN_ID")):
        for one in _of_run(run_id, store):
            if isinstance(one, kind):
                return one
    kept = [one for one in _profiles() if isinstance(one, kind)]
    return kept[0] if len(kept) == 1 else None


def kept_infrastructure(model: Model) -> str | None:
    """Return the infrastructure with which a model was registered, None if none was named or it is not there."""
    named = model.details.get("infrastructure")
    return named if isinstance(named, str) and (named in profiles.names() or Path(named).is_file()) else None


def oci_owner(
    client: Client, *, named: str | None, run: str | None, store: Store, environ: Mapping[str, str] | None = None
) -> OciOwner:
    """Return whose a model or deployment is on OCI.

    Raises:
        UsageError: nothing says it.
    """
    place = infrastructure_for(DataScienceJob, named=named, run=run, store=store) or DataScienceJob()
    around = surroundings(place, environ)
    values = {"compartmentId": around.compartment, "projectId": around.project}
    if around.look_up is not None and any(isinstance(value, Ref) for value in values.values()):
        step = around.look_up
        session = client.read(Call(service=step.service, operation=step.operation, parameters=step.parameters))
        values = {key: session.get(key) if isinstance(value, Ref) else value for key, value in values.items()}
    missing = [key for key, value in values.items() if not value]
    if missing:
        hint = "name a profile or a job's file that does: --infrastructure NAME"
        raise UsageError(f"nothing says whose it is on OCI: {' and '.join(missing)} not known", hint=hint)
    return OciOwner(compartment=str(values["compartmentId"]), project=str(values["projectId"]), place=place)


def aws_owner(*, named: str | None, run: str | None, store: Store) -> AwsOwner:
    """Return as whom AWS's services act on a model or deployment; ``named`` may be the ARN of a role, too.

    Raises:
        UsageError: nothing names a role.
    """
    if named is not None and _ROLE.fullmatch(named):
        place = SageMakerTrainingJob(role_arn=named, region=_region_of(run, store))
    else:
        place = infrastructure_for(SageMakerTrainingJob, named=named, run=run, store=store) or SageMakerTrainingJob()
    around = sagemaker_surroundings.surroundings(place)
    if not around.role:
        hint = "name a profile or a job's file with roleArn, or the ARN of a role: --infrastructure NAME"
        raise UsageError("nothing says with which role AWS is to read the model", hint=hint)
    return AwsOwner(region=around.region, role=around.role, bucket=around.bucket, place=place)


def _region_of(run: str | None, store: Store) -> str | None:
    """Return the region of the cluster where a model was trained, None if that is not known."""
    for run_id in (run, os.environ.get("CLOUDTUNE_RUN_ID")):
        for one in _of_run(run_id, store):
            if isinstance(one, EKSJob) and one.region:
                return one.region
    return None


def _of_run(run_id: str | None, store: Store) -> Iterator[Infrastructure]:
    """Yield the infrastructures that a run's record names, and those of the pipeline that it is a step of."""
    try:
        record = store.run(run_id) if run_id else None
    except RunNotFound:
        return
    while record is not None:
        try:
            spec = load(record.spec or "")
        except CloudtuneError:  # of another release, or not kept whole: it says nothing
            return
        if isinstance(spec, PipelineSpec):
            yield from _of_pipeline(spec)
        else:
            yield spec.infrastructure
        record = store.run(record.parent) if record.parent else None


def _of_pipeline(spec: PipelineSpec) -> Iterator[Infrastructure]:
    yield spec.infrastructure
    for step in spec.steps:
        for one in (step.infrastructure, step.job.infrastructure if step.job is not None else None):
            if one is not None:
                yield one


def _profiles() -> Iterator[Infrastructure]:
    for name in profiles.names():
        try:
            yield profiles.load(name)
        except SpecError:  # it is not the one that was asked for
            continue
