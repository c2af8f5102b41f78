"""Models of the catalog that answer on OCI Data Science: a model deployment with vLLM, asked with signed requests.

The service makes and removes deployments in minutes and in its own time: work requests tell how far it is. Before
anything is sent the record has the mark that the deployment will carry as a tag, and that the service takes for the
token of the request: so whoever comes after an interruption finds what is there, goes on with it or takes it down, and
never makes a second one.
"""

from __future__ import annotations

import difflib
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from cloudtune.backends.oci_wire import region_in
from cloudtune.clients.oci import OciClient
from cloudtune.deployments.oci_answers import answer
from cloudtune.deployments.oci_log import log_of
from cloudtune.deployments.oci_request import MARK, Wanted, newest_managed, request_of
from cloudtune.deployments.questions import body_of, silence
from cloudtune.errors import CloudtuneError, NotAllowed, ServiceError, UsageError
from cloudtune.owners import infrastructure_for, kept_infrastructure
from cloudtune.pauses import Pauses, Say
from cloudtune.plan import Call
from cloudtune.spec.oci import DataScienceJob
from cloudtune.store import Store
from cloudtune.work_requests import SERVICE, follow, newest

SCHEME = "oci-model://"
#: Seconds for which the service is followed while it makes or removes a deployment.
PATIENCE_S = 3600.0
_STATES = {
    "CREATING": "starting",
    "UPDATING": "starting",
    "ACTIVE": "running",
    "NEEDS_ATTENTION": "running",
    "DELETING": "stopping",
    "INACTIVE": "cancelled",
    "FAILED": "failed",
}
_GOING = ("DELETING", "DELETED")
_OCID = re.compile(r"ocid1\.datasciencemodel\.[\w.-]+")


@attrs.frozen(kw_only=True)
class OciDeployment:
    """A model deployment: what was asked for, and what is known of it by now.

    ``project`` is empty until something may have been sent, ``id`` until the service has told it.
    """

    name: str
    model: str
    shape: str
    image: str = ""
    replicas: int = 1
    max_length: int | None = None
    infrastructure: str | None = None
    run: str | None = None
    step: str | None = None
    mark: str = ""
    compartment: str = ""
    project: str = ""
    region: str | None = None
    serves: str = ""
    id: str = ""
    work: str = ""
    url: str = ""
    complete: bool = False

    @property
    def asked(self) -> tuple[object, ...]:
        """What was asked for."""
        return self.name, self.model, self.shape, self.image, self.replicas, self.max_length, self.infrastructure


Keep = Callable[[OciDeployment | None], object]


def find(model: str, store: Store) -> tuple[str, str, str | None, str | None]:
    """Return a model of the catalog by ``NAME[:VERSION]`` or OCID.

    Its OCID, a name, and as far as they are known the run that trained it and the infrastructure it was filed with.

    Raises:
        UsageError: it is not in the catalog.
    """
    identity = model.removeprefix(SCHEME)
    if _OCID.fullmatch(identity):
        return identity, f"model-{identity[-8:]}", None, None
    name, _, version = model.partition(":")
    known = [one for one in store.models(name) if not version or one.version == version]
    for one in known:
        if one.uri.startswith(SCHEME):
            return one.uri.removeprefix(SCHEME), name, one.run, kept_infrastructure(one)
    what = known[0].uri if known else model
    hint = f"file it there first: cloudtune register {what} --to oci --name {name.rpartition('/')[2] or 'NAME'}"
    there = sorted({one.name for one in store.models() if one.uri.startswith(SCHEME)})
    if near := difflib.get_close_matches(name, there, n=3):
        hint = f"nearest: {', '.join(near)}; or {hint}"
    raise UsageError(f"{model} is no model that was registered with --to oci", hint=hint)


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
) -> OciDeployment:
    """Return what is known of a deployment before anything is sent.

    Raises:
        UsageError: no shape is named.
    """
    if shape is None:
        raise UsageError("OCI wants to know on which machines: a shape", hint="e.g. --shape VM.GPU.A10.1")
    return OciDeployment(
        name=name,
        model=model,
        shape=shape,
        image=image or "",
        replicas=1 if replicas is None else replicas,
        max_length=max_length,
        infrastructure=infrastructure,
        run=run,
        step=step,
        mark=_mark(),
    )


def deploy(reserved: OciDeployment, *, keep: Keep, store: Store, progress: Say | None = None) -> OciDeployment:
    """Make a deployment, or go on with it, and return once it answers.

    ``keep`` is told what there is of it: as soon as there may be something, and None for nothing any more.

    Raises:
        NoCapacity: the service has no such machine.
        ServiceError: it failed, with the service's own words; it is taken down again, unless it may still go on.
        UsageError: it cannot be deployed like this.
    """
    say, client = progress or str, OciClient()
    found = _seen(client, reserved)
    if found is None or found["lifecycleState"] in _GOING:
        # of one that went again the service would remember the token, and not make another
        gone = found is not None or bool(reserved.id)
        fresh = attrs.evolve(reserved, mark=_mark(), id="", work="", serves="") if gone else reserved
        served = _begin(client, fresh, keep, store, say)
    else:
        say(f"{reserved.name} has been begun: going on with it")
        served = _told(reserved, found)
        keep(served)
    failed = _settled(client, served, say)
    if failed is not None:
        _take_back(client, served, keep, failed)
        raise failed
    return attrs.evolve(served, complete=True)


def from_details(details: Mapping[str, Any]) -> OciDeployment:
    """Return a deployment from what was kept of it, ``attrs.asdict`` of the value."""
    names = {field.name for field in attrs.fields(OciDeployment)}
    return OciDeployment(**{key: value for key, value in details.items() if key in names})


def state(deployment: OciDeployment) -> str:
    """Return what the service says of a deployment: ``pending`` if it was not asked yet, ``lost`` if it knows none."""
    if not deployment.project:
        return "pending"
    found = _seen(OciClient(), deployment)
    return "lost" if found is None else _STATES.get(str(found.get("lifecycleState")), "lost")


def stop(deployment: OciDeployment, *, progress: Say | None = None) -> None:
    """Take a deployment down and return when it is gone, whose machines cost until then.

    One that is still being made is waited for, because the service lets nobody interrupt it.

    Raises:
        ServiceError: the service does not come to an end with it; it is as it was, or goes on going.
    """
    say, client = progress or str, OciClient()
    pauses, told, asked = Pauses(client, PATIENCE_S), "", False
    while (found := _seen(client, deployment)) is not None:
        current = str(found["lifecycleState"])
        if current == "DELETED":
            return
        line = f"{deployment.name}: {current.lower().replace('_', ' ')}"
        if line != told:
            say(line)
            told = line
        if asked and current == "FAILED":
            raise _failed(f"{deployment.name} was not taken down: {found.get('lifecycleDetails') or current}")
        if not asked and current not in ("CREATING", "UPDATING", "DELETING"):
            _delete(client, str(found["id"]))
            asked = True
        if pauses.over:
            raise _failed(
                f"{deployment.name} is still {current} after {PATIENCE_S:.0f} s", hint="delete it again later"
            )
        pauses.wait()


def invoke(
    deployment: OciDeployment,
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
    asked.setdefault("model", deployment.name)
    client = OciClient()
    try:
        return answer(client, deployment.id, asked, show)
    except NotAllowed as error:
        current = state(deployment)
        if current == "running":
            raise
        raise silence(deployment.name, current) from error


# --- before


def _begin(client: OciClient, reserved: OciDeployment, keep: Keep, store: Store, say: Say) -> OciDeployment:
    """Ask for a deployment that is not there."""
    wanted = _wanted(reserved, client, store, say)
    details = request_of(wanted)
    served = attrs.evolve(
        reserved,
        compartment=details["compartmentId"],
        project=details["projectId"],
        region=wanted.place.region or region_in(details["projectId"]),
        serves=wanted.image,
    )
    say(f"deploying {served.name} on {served.replicas} x {served.shape} with {served.serves}")
    keep(served)
    try:
        call = _call("create_model_deployment", region=served.region, **details)
        served = _told(served, client.send(call, token=served.mark))
    except CloudtuneError as error:
        if not _open(error):
            keep(None)
        raise
    keep(served)
    return served


def _wanted(reserved: OciDeployment, client: OciClient, store: Store, say: Say) -> Wanted:
    place = infrastructure_for(DataScienceJob, named=reserved.infrastructure, run=reserved.run, store=store)
    place = place or DataScienceJob()
    model = client.read(_call("get_model", region=place.region, modelId=reserved.model))
    wanted = Wanted(
        name=reserved.name,
        mark=reserved.mark,
        model=model,
        shape=reserved.shape,
        image=reserved.serves or reserved.image,
        replicas=reserved.replicas,
        max_length=reserved.max_length,
        place=place,
    )
    if not wanted.image:
        region = place.region or region_in(place.project_id or model["projectId"])
        call = _call("list_containers", region=region, isLatest=True, pages=100)
        wanted = attrs.evolve(wanted, image=newest_managed(client.read(call).get("items", [])))
    request_of(wanted)  # what cannot be is said before a log is made for it
    return attrs.evolve(wanted, log=log_of(client, place, say))


def _mark() -> str:
    return f"cloudtune-{secrets.token_hex(12)}"


# --- meanwhile


def _seen(client: OciClient, deployment: OciDeployment) -> Mapping[str, Any] | None:
    """Return what the service has of a deployment, by its id or by its mark; None if it has nothing.

    Raises:
        NotAllowed: it may not be looked for, so nobody knows whether it is there.
    """
    if deployment.id:
        try:
            return client.read(_call("get_model_deployment", region=deployment.region, modelDeploymentId=deployment.id))
        except NotAllowed as error:
            if not error.hidden:
                raise
    if not deployment.project:
        return None
    # of what is not there the service says the same as of what may not be seen; who may see the others knows
    asked = {"compartmentId": deployment.compartment, "projectId": deployment.project, "displayName": deployment.name}
    rows = client.read(_call("list_model_deployments", region=deployment.region, **asked, pages=100)).get("items", [])
    return next((row for row in rows if (row.get("freeformTags") or {}).get(MARK) == deployment.mark), None)


def _told(deployment: OciDeployment, found: Mapping[str, Any]) -> OciDeployment:
    url, work = str(found.get("modelDeploymentUrl") or ""), str(found.get("opcWorkRequestId") or deployment.work)
    return attrs.evolve(deployment, id=str(found["id"]), url=url, work=work)


def _settled(client: OciClient, served: OciDeployment, say: Say) -> CloudtuneError | None:
    """Follow the making of a deployment to its end; return why it failed."""
    pauses, work = Pauses(client, PATIENCE_S), served.work
    while not work:  # the answer that named it was lost
        place: dict[str, Any] = {"compartment": served.compartment, "region": served.region}
        work = str((newest(client, served.id, "MODEL_DEPLOYMENT_CREATE", **place) or {}).get("id", ""))
        if not work and pauses.over:
            raise _failed(f"nothing tells how {served.id} is getting on", definite=False)
        if not work:
            pauses.wait()
    later = f"deploy it again to go on, or take it down: cloudtune delete {served.name}"
    return follow(client, work, "deployment", say, region=served.region, patience_s=PATIENCE_S, later=later)


def _take_back(client: OciClient, served: OciDeployment, keep: Keep, error: CloudtuneError) -> None:
    """Take down what cannot be completed."""
    try:
        _delete(client, served.id)
    except CloudtuneError as second:
        left = f"left behind: {served.id} ({second.message})"
        error.hint = f"{error.hint}; {left}" if error.hint else left
        return
    keep(None)


def _delete(client: OciClient, identity: str) -> None:
    call = _call("delete_model_deployment", modelDeploymentId=identity)
    try:
        client.send(call)
    except CloudtuneError:
        # an answer may have been lost: what goes already cannot be deleted again
        found = client.read(_call("get_model_deployment", modelDeploymentId=identity))
        if found.get("lifecycleState") not in _GOING:
            raise


def _open(error: CloudtuneError) -> bool:
    """Whether what was asked for may be going on all the same."""
    return isinstance(error, ServiceError) and not error.definite


def _call(operation: str, *, region: str | None = None, **parameters: Any) -> Call:
    place = {"region": region} if region else {}
    return Call(service=SERVICE, operation=operation, parameters={**place, **parameters})


def _failed(why: str, *, definite: bool = True, hint: str | None = None) -> ServiceError:
    return ServiceError(why, service=SERVICE, operation="model_deployment", definite=definite, hint=hint)
