"""Models in S3 that answer at an endpoint of SageMaker: a model, its configuration and an endpoint of one name.

The name is drawn and recorded before anything is sent, and the service takes each of its names once. So whoever comes
after an interruption goes on with what is there or takes it down, and never makes a second one.
"""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from cloudtune.clients.aws import AwsClient
from cloudtune.deployments.questions import body_of, silence
from cloudtune.deployments.sagemaker_answers import answer
from cloudtune.deployments.sagemaker_request import Wanted, default_image, requests_of, resource_name, shape_of
from cloudtune.errors import CloudtuneError, NoCapacity, ServiceError, UsageError
from cloudtune.owners import aws_owner, kept_infrastructure
from cloudtune.pauses import Pauses, Say
from cloudtune.plan import Call
from cloudtune.store import Store
from cloudtune.uri import scheme_of, shown

SERVICE = "aws.sagemaker"
PACKAGE = "sagemaker-package://"
#: Seconds for which the service is followed while it makes or removes an endpoint: it compiles for an hour at most.
PATIENCE_S = 3 * 3600.0
LOGS = "/aws/sagemaker/Endpoints/"
_STATES = {
    "Creating": "starting",
    "Updating": "starting",
    "SystemUpdating": "running",
    "RollingBack": "starting",
    "InService": "running",
    "OutOfService": "cancelled",
    "Deleting": "stopping",
    "Failed": "failed",
    "UpdateRollbackFailed": "failed",
}
#: Statuses in which an endpoint stays, and answers nobody.
_ENDED = frozenset({"OutOfService", "Failed", "UpdateRollbackFailed"})
_FULL = ("insufficientinstancecapacity", "capacity error", "resourcelimitexceeded")


@attrs.frozen(kw_only=True)
class SageMakerDeployment:
    """An endpoint: what was asked for, and what is known of it by now; ``begun`` once something may have been sent."""

    name: str
    model: str
    shape: str
    image: str = ""
    replicas: int = 1
    max_length: int | None = None
    infrastructure: str | None = None
    run: str | None = None
    step: str | None = None
    resource: str = ""
    region: str = ""
    begun: bool = False
    url: str = ""
    complete: bool = False

    @property
    def asked(self) -> tuple[object, ...]:
        """What was asked for."""
        return self.name, self.model, self.shape, self.image, self.replicas, self.max_length, self.infrastructure


Keep = Callable[["SageMakerDeployment | None"], object]


def find(model: str, store: Store) -> tuple[str, str, str | None, str | None]:
    """Return a model in S3 by its URI, or one that is registered there.

    Its URI, a name, and as far as they are known the run that trained it and the infrastructure it was filed with.

    Raises:
        UsageError: it is not in S3.
    """
    if scheme_of(model) in {"s3", "s3a"}:
        uri = model.replace("s3a://", "s3://", 1).rstrip("/")
        return f"{uri}/", uri.rpartition("/")[2] or "model", None, None
    name, _, version = model.partition(":")
    known = [one for one in store.models(name) if not version or one.version == version]
    for one in known:
        if one.uri.startswith(PACKAGE) or scheme_of(one.uri) == "s3":
            return one.uri, name, one.run, kept_infrastructure(one)
    what = shown(known[0].uri) if known else "MODEL"
    title = name.rpartition("/")[2] if known else "NAME"
    hint = f"file it there first: cloudtune register {what} --to sagemaker --name {title}; or name its prefix of S3"
    there = sorted({one.name for one in store.models() if one.uri.startswith(PACKAGE) or scheme_of(one.uri) == "s3"})
    if near := difflib.get_close_matches(name, there, n=3):
        hint = f"nearest: {', '.join(near)}; or {hint}"
    raise UsageError(f"{model} is neither a prefix of S3 nor registered with --to sagemaker", hint=hint)


def reserve(
    model: str,
    *,
    name: str,
    run: str | None,
    step: str | None,
    shape: str | None,
    image: str | None,
    replicas: int | None,
    max_length: int | None,
    infrastructure: str | None,
) -> SageMakerDeployment:
    """Return what is known of a deployment before anything is sent.

    Raises:
        UsageError: no shape is named, or it cannot serve models.
    """
    if shape is None:
        raise UsageError("SageMaker wants to know on which machines: a shape", hint="e.g. --shape ml.g5.xlarge")
    return SageMakerDeployment(
        name=name,
        model=model,
        shape=f"ml.{shape_of(shape).name}",
        image=image or "",
        replicas=1 if replicas is None else replicas,
        max_length=max_length,
        infrastructure=infrastructure,
        run=run,
        step=step,
        resource=resource_name(name, secrets.token_hex(4)),
    )


def deploy(
    reserved: SageMakerDeployment, *, keep: Keep, store: Store, progress: Say | None = None
) -> SageMakerDeployment:
    """Make an endpoint, or go on with it, and return once it answers.

    ``keep`` is told what there is of it: as soon as there may be something, and None for nothing any more.

    Raises:
        NoCapacity: the service has no such machine.
        ServiceError: it failed, with the service's own words; it is taken down again, unless it may still go on.
        UsageError: it cannot be deployed like this.
    """
    say, client = progress or str, AwsClient()
    if reserved.begun:
        say(f"{reserved.name} has been begun: going on with it")
        if state(reserved) in {"failed", "cancelled", "stopping"}:
            stop(reserved, progress=say)
    wanted, served = _wanted(reserved, client, store)
    requests = requests_of(wanted)
    say(f"deploying {served.name} on {served.replicas} x {served.shape} with {wanted.image}")
    keep(served)
    try:
        for operation, parameters in requests:
            client.send(_call(operation, served, **parameters))
    except CloudtuneError as error:
        if not (isinstance(error, ServiceError) and not error.definite):
            _take_back(served, keep, error)
        raise
    failed = _settled(client, served, say)
    if failed is not None:
        _take_back(served, keep, failed)
        raise failed
    return attrs.evolve(served, complete=True)


def from_details(details: Mapping[str, Any]) -> SageMakerDeployment:
    """Return a deployment from what was kept of it, ``attrs.asdict`` of the value."""
    names = {field.name for field in attrs.fields(SageMakerDeployment)}
    return SageMakerDeployment(**{key: value for key, value in details.items() if key in names})


def state(deployment: SageMakerDeployment) -> str:
    """Return what the service says of a deployment: ``pending`` if it was not asked yet, ``lost`` if it knows none."""
    if not deployment.begun:
        return "pending"
    found = _seen(AwsClient(), deployment)
    return "lost" if found is None else _STATES.get(str(found["EndpointStatus"]), "lost")


def stop(deployment: SageMakerDeployment, *, progress: Say | None = None) -> None:
    """Take a deployment down: the endpoint, whose machines cost until it is gone, its configuration, the model.

    One that is still being made is waited for, because the service lets nobody interrupt it. Files in S3 stay.

    Raises:
        ServiceError: the service does not come to an end with it; it is as it was, or goes on going.
    """
    if not deployment.begun:
        return
    say, client = progress or str, AwsClient()
    pauses, told = Pauses(client, PATIENCE_S), ""
    while (found := _seen(client, deployment)) is not None:
        current = str(found["EndpointStatus"])
        line = f"{deployment.name}: {current.lower()}"
        if line != told:
            say(line)
            told = line
        if current in {"InService", *_ENDED}:
            _delete(client, deployment)
        if pauses.over:
            hint = "delete it again later"
            raise _failed(f"{deployment.name} is still {current} after {PATIENCE_S:.0f} s", hint=hint)
        pauses.wait()
    client.send(_call("delete_endpoint_config", deployment, EndpointConfigName=deployment.resource))
    client.send(_call("delete_model", deployment, ModelName=deployment.resource))


def _delete(client: AwsClient, deployment: SageMakerDeployment) -> None:
    try:
        client.send(_call("delete_endpoint", deployment, EndpointName=deployment.resource))
    except CloudtuneError:
        # an answer may have been lost: what goes already cannot be deleted again
        found = _seen(client, deployment)
        if found is not None and found["EndpointStatus"] != "Deleting":
            raise


def invoke(
    deployment: SageMakerDeployment,
    prompt: str | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    show: Callable[[str], object] | None = None,
) -> str:
    """Ask the model and return its answer: a prompt, or a whole request body of OpenAI's chat completions.

    With ``show`` the pieces of the answer are handed over as they come.

    Raises:
        UsageError: the deployment does not answer yet, or not any more.
        NotAllowed: it may not be asked.
        ServiceError: the server refuses the request, or the way to it failed.
    """
    asked = body_of(prompt, body)
    try:
        return answer(AwsClient(), deployment.resource, deployment.region, asked, show)
    except ServiceError as error:
        current = state(deployment) if "ValidationError" in error.message else "running"
        if current == "running":
            raise
        raise silence(deployment.name, current) from error


def _wanted(reserved: SageMakerDeployment, client: AwsClient, store: Store) -> tuple[Wanted, SageMakerDeployment]:
    """Return what is to be deployed, and the deployment as it is kept from now on."""
    owner = aws_owner(named=reserved.infrastructure, run=reserved.run, store=store)
    region = owner.region or client.region
    uri = reserved.model
    if uri.startswith(PACKAGE):
        call = Call(
            service=SERVICE,
            operation="describe_model_package",
            parameters={"ModelPackageName": uri.removeprefix(PACKAGE)},
        )
        (container, *_) = client.read(call)["InferenceSpecification"]["Containers"]
        uri = str(((container.get("ModelDataSource") or {}).get("S3DataSource") or {}).get("S3Uri", ""))
        if not uri:
            hint = "register it with cloudtune: cloudtune register MODEL --to sagemaker --name NAME"
            raise UsageError(f"{reserved.model} has no loose files in S3", hint=hint)
    wanted = Wanted(
        resource=reserved.resource,
        name=reserved.name,
        uri=f"{uri.rstrip('/')}/",
        shape=reserved.shape,
        image=reserved.image or default_image(shape_of(reserved.shape), region),
        replicas=reserved.replicas,
        max_length=reserved.max_length,
        role=owner.role,
        place=owner.place,
    )
    url = f"https://runtime.sagemaker.{region}.amazonaws.com/endpoints/{reserved.resource}/invocations"
    return wanted, attrs.evolve(reserved, region=region, begun=True, url=url)


def _seen(client: AwsClient, deployment: SageMakerDeployment) -> Mapping[str, Any] | None:
    found = client.read(_call("describe_endpoint", deployment, EndpointName=deployment.resource, absent=True))
    return None if found.get("absent") else found


def _settled(client: AwsClient, served: SageMakerDeployment, say: Say) -> CloudtuneError | None:
    """Follow the making of an endpoint to its end; return why it failed."""
    pauses, told = Pauses(client, PATIENCE_S), ""
    while True:
        found = _seen(client, served)
        status = str(found["EndpointStatus"]) if found is not None else "Deleting"
        line = f"endpoint: {status.lower()}"
        if line != told:
            say(line)
            told = line
        if status == "InService":
            return None
        if status in {"Deleting", *_ENDED}:
            ended = "was deleted meanwhile" if status == "Deleting" else f"is {status}"
            why = str((found or {}).get("FailureReason") or f"the endpoint {ended}")
            if any(word in why.lower() for word in _FULL):
                hint = "try another instance type or region, ask for a higher quota, or try again later"
                return NoCapacity(f"SageMaker has no such machine free: {why}", hint=hint)
            return _failed(why, hint=f"its log in CloudWatch: {LOGS}{served.resource}")
        if pauses.over:
            hint = f"it may still end well: deploy it again to go on, or: cloudtune delete {served.name}"
            raise _failed(f"the endpoint is not there after {PATIENCE_S:.0f} s", definite=False, hint=hint)
        pauses.wait()


def _take_back(served: SageMakerDeployment, keep: Keep, error: CloudtuneError) -> None:
    """Take down what cannot be completed."""
    try:
        stop(served)
    except CloudtuneError as second:
        left = f"left behind: {served.resource} ({second.message})"
        error.hint = f"{error.hint}; {left}" if error.hint else left
        return
    keep(None)


def _call(operation: str, deployment: SageMakerDeployment, **parameters: Any) -> Call:
    return Call(service=SERVICE, operation=operation, parameters=parameters, region=deployment.region or None)


def _failed(why: str, *, definite: bool = True, hint: str | None = None) -> ServiceError:
    return ServiceError(why, service=SERVICE, operation="create_endpoint", definite=definite, hint=hint)
