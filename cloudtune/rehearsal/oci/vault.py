"""Vault: secrets, by OCID or name, in versions; what is kept here is as throw-away as the whole."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response
from cloudtune.rehearsal.oci.lists import MOST, listed
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.oci.speech import check_match, moment, not_found, nothing, reply
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

SECRET = "oci.secret"  # noqa: S105 - a kind of thing
MANAGED, RETRIEVED = "/20180608", "/20190301"
_MOST_BYTES = 25 * 1024
#: What of a secret nobody is shown who asks for the secret itself.
_INSIDE = ("versions",)
_STAGES = ("CURRENT", "PENDING", "LATEST", "PREVIOUS", "DEPRECATED")
_STATES = ("CREATING", "ACTIVE", "UPDATING", "DELETING", "DELETED", "FAILED", "PENDING_DELETION")


class Vault:
    """Secrets as those see them who manage them."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        secret = f"{MANAGED}/secrets/{{secretId}}"
        rows = (
            ("POST", f"{MANAGED}/secrets", "create_secret", self.create),
            ("GET", f"{MANAGED}/secrets", "list_secrets", self.find),
            ("GET", secret, "get_secret", self.get),
            ("PUT", secret, "update_secret", self.update),
            ("POST", f"{secret}/actions/scheduleDeletion", "schedule_secret_deletion", self.delete),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def put(self, identity: str, value: str) -> None:
        """Keep a secret that a job names: for whoever stages a rehearsal."""
        content = {"contentType": "BASE64", "content": base64.b64encode(value.encode()).decode()}
        given = {
            "compartmentId": self.cloud.principals.tenancy,
            "secretName": identity,
            "vaultId": new_ocid("vault"),
            "secretContent": content,
        }
        self._add(identity, given)

    def create(self, request: Request) -> Response:
        """Make a secret."""
        given = checked_body(request, "CreateSecretDetails", of="vault")
        self.cloud.check_exists("compartmentId", given["compartmentId"], "compartment", "tenancy")
        self.cloud.check_exists("vaultId", given["vaultId"], "vault")
        if "keyId" in given:
            self.cloud.check_exists("keyId", given["keyId"], "key")
        _check_content(given.get("secretContent"))
        identity = self.cloud.tokens.once(request, "create_secret", lambda: self._make(given))
        return self._shown(self.secret(identity))

    def find(self, request: Request) -> Response:
        """Return secrets of a compartment."""
        shown = (_outside(thing.data) for thing in self.store.all(SECRET))
        rows = ({**data, "displayName": data["secretName"], "name": data["secretName"]} for data in shown)
        filters = ("name", "vaultId", "lifecycleState")
        names = (
            "id",
            "compartmentId",
            "secretName",
            "vaultId",
            "keyId",
            "lifecycleState",
            "timeCreated",
            "freeformTags",
        )
        sorts = ("TIMECREATED", "NAME")
        return listed(request, rows, filters=filters, states=_STATES, shown=names, sorts=sorts, most=MOST)

    def get(self, request: Request) -> Response:
        """Return a secret without its value."""
        return self._shown(self.secret(request.params["secretId"]))

    def update(self, request: Request) -> Response:
        """Change a secret; new content is a new version."""
        thing = self.secret(request.params["secretId"])
        given = checked_body(request, "UpdateSecretDetails", of="vault")
        check_match(request, thing)
        if thing.data["lifecycleState"] != "ACTIVE":
            raise Refused(409, "IncorrectState", "the secret is not ACTIVE")
        content = given.pop("secretContent", None)
        if content is not None:
            _check_content(content)
            versions = [*thing.data["versions"], self._version(content, len(thing.data["versions"]) + 1)]
            given |= {"versions": versions, "currentVersionNumber": len(versions)}
        changed = self.store.change(SECRET, thing.id, **given)
        assert changed is not None
        return self._shown(changed)

    def delete(self, request: Request) -> Response:
        """Let a secret end, in days; from now on nobody can read it."""
        checked_body(request, "ScheduleSecretDeletionDetails", of="vault")
        thing = self.secret(request.params["secretId"])
        check_match(request, thing)
        self.store.change(SECRET, thing.id, lifecycleState="PENDING_DELETION")
        return nothing(status=200)

    def secret(self, identity: str) -> Resource:
        """Return a secret; Refused (404) where there is none."""
        found = self.store.get(SECRET, identity)
        if found is None:
            raise not_found(f"secret {identity}")
        return found

    def _make(self, given: Mapping[str, Any]) -> str:
        same = (given["vaultId"], given["secretName"])
        if self.store.all(SECRET, lambda one: (one.data["vaultId"], one.data["secretName"]) == same):
            raise Refused(409, "Conflict", f"A secret named {given['secretName']} already exists in the vault")
        identity = new_ocid("vaultsecret")
        self._add(identity, given)
        return identity

    def _add(self, identity: str, given: Mapping[str, Any]) -> None:
        plain = {key: value for key, value in given.items() if key != "secretContent"}
        data = {
            **plain,
            "id": identity,
            "lifecycleState": "ACTIVE",
            "timeCreated": moment(self.cloud.now_s()),
            "currentVersionNumber": 1,
            "versions": [self._version(given.get("secretContent", {"content": ""}), 1)],
        }
        self.store.add(SECRET, identity, data)

    def _version(self, content: Mapping[str, Any], number: int) -> dict[str, Any]:
        made = {"number": number, "name": content.get("name"), "content": content["content"]}
        return {**made, "timeCreated": moment(self.cloud.now_s())}

    def _shown(self, thing: Resource) -> Response:
        return reply(_outside(thing.data), of=thing)


class Bundles:
    """Secrets as those see them who read their values."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.vault = cloud.part(Vault)

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        rows = (
            ("GET", f"{RETRIEVED}/secretbundles/{{secretId}}", "get_secret_bundle", self.get),
            ("POST", f"{RETRIEVED}/secretbundles/actions/getByName", "get_secret_bundle_by_name", self.get_by_name),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def get(self, request: Request) -> Response:
        """Return the value of a secret."""
        check_query(request, ("versionNumber", "secretVersionName", "stage"))
        return self._bundle(request, self.vault.secret(request.params["secretId"]))

    def get_by_name(self, request: Request) -> Response:
        """Return the value of the secret of a name in a vault."""
        check_query(request, ("versionNumber", "secretVersionName", "stage"), required=("secretName", "vaultId"))
        wanted = {name: request.query[name] for name in ("secretName", "vaultId")}
        found = self.vault.store.all(SECRET, lambda one: wanted.items() <= one.data.items())
        if not found:
            raise not_found(f"secret {wanted['secretName']}")
        return self._bundle(request, found[0])

    def _bundle(self, request: Request, thing: Resource) -> Response:
        if thing.data["lifecycleState"] != "ACTIVE":
            raise not_found(f"secret {thing.id}, which is {thing.data['lifecycleState']}")
        version = _chosen(request, thing.data["versions"])
        stages = _stages_of(version["number"], len(thing.data["versions"]))
        bundle = {
            "secretId": thing.id,
            "timeCreated": version["timeCreated"],
            "versionNumber": version["number"],
            "versionName": version["name"],
            "secretBundleContent": {"contentType": "BASE64", "content": version["content"]},
            "stages": stages,
        }
        return reply(bundle, of=thing)


def _chosen(request: Request, versions: list[dict[str, Any]]) -> dict[str, Any]:
    number, name, stage = (request.query.get(key) for key in ("versionNumber", "secretVersionName", "stage"))
    if stage is not None and stage not in _STAGES:
        raise Refused(400, "InvalidParameter", f"stage must be one of {', '.join(_STAGES)}")
    found = [
        one
        for one in versions
        if (number is None or str(one["number"]) == number)
        and (name is None or one["name"] == name)
        and (stage is None or stage in _stages_of(one["number"], len(versions)))
    ]
    if not found:
        raise not_found("that version of the secret")
    return found[-1]


def _stages_of(number: int, last: int) -> list[str]:
    if number == last:
        return ["CURRENT", "LATEST"]
    return ["PREVIOUS"] if number == last - 1 else ["DEPRECATED"]


def _outside(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in _INSIDE}


def _check_content(content: Mapping[str, Any] | None) -> None:
    if content is None:
        raise Refused(400, "InvalidParameter", "secretContent must not be null: values are not made up here")
    try:
        size = len(base64.b64decode(content.get("content", ""), validate=True))
    except (binascii.Error, ValueError):
        raise Refused(400, "InvalidParameter", "secretContent.content is not base64") from None
    if not 1 <= size <= _MOST_BYTES:
        raise Refused(400, "InvalidParameter", f"a secret has 1 to {_MOST_BYTES} bytes")
