"""Kubernetes: carries out the calls of plans and runs on any cluster, with the API's own words in and out.

A call's region is the cluster's scope (see :mod:`cloudtune.clients.kubernetes_auth`). ``create`` has a manifest as its
parameters; the other operations name an object by ``apiVersion``, ``kind``, ``namespace`` and ``name``. Replies are the
API's objects: no model is in between that would drop what it does not know.

What must not be done twice is not: an object that is made carries its step's token as an annotation, and a name that is
taken by an object with the very token counts as done. What a plan keeps in S3 is sent by the client of AWS.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import attrs

from cloudtune.clients import reading
from cloudtune.clients.kubernetes_auth import Clusters, Door, urllib3
from cloudtune.clients.kubernetes_errors import Refusal, told
from cloudtune.clients.kubernetes_files import with_files
from cloudtune.clients.kubernetes_streams import Streams
from cloudtune.clients.kubernetes_wire import Wire
from cloudtune.errors import ServiceError, UsageError
from cloudtune.plan import Call, File, FromShell, IfGiven, Leaf, Masked, Plan, substitute

if TYPE_CHECKING:
    from cloudtune.clients.aws import AwsClient

Reply = Mapping[str, Any]
SERVICE = "kubernetes"
#: The annotation that says which step of which run has made an object.
TOKEN = "cloudtune.dev/token"  # noqa: S105 - no secret
#: The label that says which run an object belongs to.
RUN_ID = "cloudtune.dev/run-id"
_MANAGER = "cloudtune"
#: What stands in a manifest that is only tried for what an earlier step will have made.
_UNKNOWN = "00000000-0000-4000-8000-000000000000"
_MERGE = "application/merge-patch+json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_PAGED = ("labelSelector", "fieldSelector")
_LOG = ("container", "sinceTime", "sinceSeconds", "previous", "timestamps", "tailLines", "limitBytes")


class KubernetesClient:
    """The client of clusters; see :class:`cloudtune.submit.Client`.

    A ``hasty`` one asks once, and waits for seconds only.
    """

    def __init__(self, *, hasty: bool = False, clusters: Clusters | None = None) -> None:
        self._wire = Wire(clusters or Clusters(hasty=hasty), hasty=hasty)
        self._streams: dict[str, Streams] = {}
        self._hasty = hasty
        self._aws_client: AwsClient | None = None
        self._here: bool | None = None
        self._reads: Mapping[str, Callable[[str, Mapping[str, Any]], Reply]] = {
            "discover": self._discover,
            "get": self._get,
            "list": self._list,
            "read_log": self._read_log,
            "review": self._review,
            "version": lambda scope, _: self._wire.send(scope, "GET", "/version"),
            "who": lambda scope, _: self._who(scope),
        }

    @property
    def look_s(self) -> tuple[float, float]:
        """Seconds between two looks at what goes on in the cluster, at first and later; a stand-in is asked oftener."""
        here = os.environ.get("CLOUDTUNE_REHEARSED") == "1" if self._here is None else self._here
        return (0.2, 0.5) if here else (1.0, 3.0)

    def make_ready(self, plan: Plan) -> None:
        """Let the cluster check what the plan makes, without making it; raises CloudtuneError for what it refuses.

        What the user may not try, and what cannot be tried in this cluster, is found out when it is sent.
        """
        for step in plan.steps:
            if step.service.startswith("aws."):
                continue
            manifest = with_files(substitute(step.parameters, _tried), step.files)
            call = Call(service=step.service, operation=step.operation, parameters=manifest, region=step.region)
            if step.operation == "create":
                self._answered(call, self._try)
        others = tuple(step for step in plan.steps if step.service.startswith("aws."))
        if others:
            self._aws().make_ready(attrs.evolve(plan, steps=others))

    def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> Reply:
        """Carry out a change; a second one with the same token changes nothing and gives the same reply."""
        if call.service.startswith("aws."):
            return self._aws().send(call, token=token, files=files)
        if call.operation == "create":
            manifest = with_files(call.parameters, files)
            return self._answered(attrs.evolve(call, parameters=manifest), lambda _, one: self._create(one, token))
        changes = {"delete": self._delete, "patch": self._patch}
        if call.operation not in changes:
            raise UsageError(f"{call.service} has no change {call.operation}")
        return self._answered(call, lambda _, one: changes[one.operation](one.region or "", one.parameters))

    def read(self, call: Call) -> Reply:
        """Carry out a read; of its parameters the reply has ``cursor`` again, and ``readAt``: when it was.

        ``each``: a list of further parameters; the call is carried out with each of them, and the replies are
        ``replies``, in order. ``absent``: True for a reply of ``{"absent": True}`` where there is no such thing, and
        ``optional`` also where the user may not see it, in place of an error.
        """
        if call.service.startswith("aws."):
            return self._aws().read(call)
        if call.operation not in self._reads:
            raise UsageError(f"{call.service} has no read {call.operation}")
        return reading.read(call, self._looked_up, self._now_s)

    def clean_up(self) -> None:
        """Forget what was made ready."""
        if self._aws_client is not None and hasattr(self._aws_client, "clean_up"):
            self._aws_client.clean_up()

    # --- answers and errors

    def _looked_up(self, call: Call) -> Reply:
        given = {name: value for name, value in call.parameters.items() if name not in {"cursor", "absent", "optional"}}
        return self._answered(call, lambda _, one: self._reads[one.operation](one.region or "", given))

    def _answered(self, call: Call, deed: Callable[[Door, Call], Reply]) -> Reply:
        """Return what a deed returns; the errors are cloudtune's."""
        door: Door | None = None
        try:
            door = self._wire.door(call.region or "")
            self._here = door.is_here
            return dict(deed(door, call))
        except (Refusal, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            optional = bool(call.parameters.get("optional"))
            if isinstance(error, Refusal) and (
                (error.is_missing and (optional or call.parameters.get("absent"))) or (optional and error.status == 403)
            ):
                return {"absent": True}
            raise told(error, call, door) from error

    def _now_s(self) -> float:
        """Return the time by the cluster's clock, which tells it in whole seconds: half a second later on average."""
        with suppress(TypeError, ValueError):
            shown_s = parsedate_to_datetime(self._wire.date).timestamp()
            if abs(time.time() - shown_s) > _SKEW_S:
                return shown_s + 0.5
        return time.time()

    # --- changes

    def _try(self, door: Door, call: Call) -> Reply:
        try:
            self._post(call, {"dryRun": "All"})
        except Refusal as error:
            # what is there is for the step itself to judge; and who may not try may still be allowed to do it
            if error.status in (409, 403) or error.is_passing or "dry run" in error.said.lower():
                return {}
            raise
        return {}

    def _create(self, call: Call, token: str | None) -> Reply:
        meta = dict(call.parameters.get("metadata") or {})
        if token is not None:
            meta["annotations"] = {**(meta.get("annotations") or {}), TOKEN: token}
        marked = attrs.evolve(call, parameters={**call.parameters, "metadata": meta})
        try:
            return self._post(marked, {})
        except Refusal as error:
            if error.reason != "AlreadyExists" or token is None:
                raise
        try:
            there = self._get(call.region or "", {**call.parameters, **_placed(meta)})
        except Refusal as error:
            # who may make secrets need not be allowed to read them; a name with the run's id in it is the run's own
            own = str((meta.get("labels") or {}).get(RUN_ID) or "")
            if error.status == 403 and own and own in str(meta.get("name")):
                return {"metadata": meta}
            raise
        if (there["metadata"].get("annotations") or {}).get(TOKEN) == token:
            return there
        what = (
            f"{call.parameters.get('kind')} {'/'.join(str(meta[key]) for key in ('namespace', 'name') if key in meta)}"
        )
        raise ServiceError(
            f"{what} exists already, and was made by another request",
            service=call.service,
            operation=call.operation,
            hint="submit as a new run, or delete what is there",
        )

    def _post(self, call: Call, query: Mapping[str, Any]) -> dict[str, Any]:
        scope, manifest = call.region or "", call.parameters
        where = {**manifest, "namespace": (manifest.get("metadata") or {}).get("namespace") or "default"}
        asked = {"fieldManager": _MANAGER, "fieldValidation": "Strict", **query}
        return self._wire.send(scope, "POST", self._wire.path(scope, where), query=asked, body=manifest)

    def _delete(self, scope: str, given: Mapping[str, Any]) -> Reply:
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        options["propagationPolicy"] = given.get("propagationPolicy") or "Background"
        if given.get("gracePeriodSeconds") is not None:
            options["gracePeriodSeconds"] = given["gracePeriodSeconds"]
        try:
            return self._wire.send(scope, "DELETE", self._wire.path(scope, given, given["name"]), body=options)
        except Refusal as error:
            if not error.is_missing:
                raise
            return {}

    def _patch(self, scope: str, given: Mapping[str, Any]) -> Reply:
        """Patch an object; or, with a selector, those of a kind that are about another object.

        ``of`` names that object; ``{uid}`` in the selector is its uid.
        """
        if "labelSelector" not in given:
            return self._patched(scope, given, given["name"])
        owner = self._get(scope, {**given["of"], "namespace": given.get("namespace")}) if "of" in given else {}
        uid = str((owner.get("metadata") or {}).get("uid") or "")
        selector = str(given["labelSelector"]).replace("{uid}", uid)
        found = self._wire.items(scope, self._wire.path(scope, given), {"labelSelector": selector})["items"]
        return {"items": [self._patched(scope, given, one["metadata"]["name"]) for one in found]}

    def _patched(self, scope: str, given: Mapping[str, Any], name: str) -> dict[str, Any]:
        path = self._wire.path(scope, given, name)
        query = {"fieldManager": _MANAGER}
        return self._wire.send(scope, "PATCH", path, query=query, body=given["patch"], content_type=_MERGE)

    # --- reads

    def _get(self, scope: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read an object; with ``metadataOnly`` nothing of its content leaves the cluster."""
        form = _METADATA if given.get("metadataOnly") else "application/json"
        return self._wire.send(scope, "GET", self._wire.path(scope, given, given["name"]), content_type=form)

    def _list(self, scope: str, given: Mapping[str, Any]) -> dict[str, Any]:
        query = {name: given.get(name) for name in _PAGED}
        reply = self._wire.items(scope, self._wire.path(scope, given), query)
        # lists of built-in kinds do not repeat what their items are
        own = {"apiVersion": given["apiVersion"], "kind": given["kind"]}
        return {**reply, "items": [{**own, **one} for one in reply["items"]]}

    def _discover(self, scope: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return self._wire.send(scope, "GET", f"/apis/{given['group']}")

    def _who(self, scope: str) -> Reply:
        """Ask whom the cluster takes the user for; the reply has ``username`` and ``groups``."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        status = self._wire.send(scope, "POST", self._wire.path(scope, review), body=review).get("status") or {}
        return dict(status.get("userInfo") or {})

    def _review(self, scope: str, given: Mapping[str, Any]) -> Reply:
        """Ask whether the user may do something; the reply has ``allowed``."""
        api, kind = "authorization.k8s.io/v1", "SelfSubjectAccessReview"
        review = {"apiVersion": api, "kind": kind, "spec": {"resourceAttributes": dict(given)}}
        path = self._wire.path(scope, {"apiVersion": api, "kind": kind})
        return dict(self._wire.send(scope, "POST", path, body=review).get("status") or {})

    def _read_log(self, scope: str, given: Mapping[str, Any]) -> Reply:
        """Read a container's log; with ``follow`` it is followed from then on, see :class:`Streams`.

        A container that has not begun has nothing to say yet, and a node that is lost cannot be asked: their logs are
        absent.
        """
        if given.get("follow"):
            if scope not in self._streams:
                self._streams[scope] = Streams(
                    read=lambda one: self._log_text(scope, one), follow=lambda one: self._log_stream(scope, one)
                )
            return self._streams[scope].answer(given)
        text = self._log_text(scope, given)
        return {"absent": True} if text is None else {"text": text}

    def _log_text(self, scope: str, given: Mapping[str, Any]) -> str | None:
        path, query = self._log_place(scope, given)
        try:
            return self._wire.text(scope, path, query).decode(errors="replace")
        except Refusal as error:
            if error.is_missing or error.is_of_node or (error.status == 400 and _is_waited_for(error.said)):
                return None
            raise

    def _log_stream(self, scope: str, given: Mapping[str, Any]) -> Iterator[bytes]:
        path, query = self._log_place(scope, given)
        return self._wire.stream(scope, path, {**query, "follow": True})

    def _log_place(self, scope: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        where = {"apiVersion": "v1", "kind": "Pod", "namespace": given["namespace"]}
        query = {name: given[name] for name in _LOG if given.get(name) not in (None, False)}
        return self._wire.path(scope, where, given["name"], "log"), query

    def _aws(self) -> AwsClient:
        """Return the client of what a plan has in S3."""
        if self._aws_client is None:
            from cloudtune.clients.aws import AwsClient  # noqa: PLC0415 - few jobs have code so large

            self._aws_client = AwsClient(hasty=self._hasty)
        return self._aws_client


#: Seconds by which the clocks of this machine and of a cluster may differ unnoticed.
_SKEW_S = 2.0


def _is_waited_for(said: str) -> bool:
    """Whether a refusal says that a container has not begun, or that there was no start before."""
    return any(words in said for words in _NO_LOG)


_NO_LOG = ("is waiting to start", "previous terminated container", "is not available", "is terminated")


def _placed(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": meta.get("name"), "namespace": meta.get("namespace") or "default"}


def _tried(leaf: Leaf) -> Any:
    """Return what stands for a leaf in a manifest that is only tried."""
    if isinstance(leaf, Masked):
        return leaf.value
    if isinstance(leaf, FromShell):
        return os.environ.get(leaf.name, "")
    if isinstance(leaf, IfGiven):
        return _tried(leaf.then) if isinstance(leaf.then, Leaf) else leaf.then
    return _UNKNOWN
