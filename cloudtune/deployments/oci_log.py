"""The log of model deployments in the user's log group on OCI: one for all of them, made when the first is put up."""

from __future__ import annotations

import secrets
from typing import Any

from cloudtune.errors import ServiceError
from cloudtune.pauses import Pauses, Say
from cloudtune.plan import Call
from cloudtune.spec.oci import DataScienceJob
from cloudtune.submit import Client

SERVICE = "oci.logging"
NAME = "cloudtune-deployments"
#: Seconds in which a new log must be there.
PATIENCE_S = 120.0


def log_of(client: Client, place: DataScienceJob, say: Say) -> str | None:
    """Return the log for deployments, made if there is none; None where the infrastructure names no log group.

    Raises:
        NotAllowed: it may not be looked for, or not be made.
        ServiceError: it does not come to be.
    """
    if not place.log_group_id:
        say("no log group is named: what the server prints cannot be read (logGroupId in the infrastructure)")
        return None
    if place.log_id:
        return place.log_id
    found = _found(client, place.log_group_id)
    if found is not None:
        return found
    say(f"making the log {NAME} in the log group")
    token = f"cloudtune-{secrets.token_hex(12)}"
    asked = {"logGroupId": place.log_group_id, "displayName": NAME, "logType": "CUSTOM"}
    failed: ServiceError | None = None
    try:
        client.send(Call(service=SERVICE, operation="create_log", parameters=asked), token=token)
    except ServiceError as error:  # somebody else was faster, or the answer was lost: it is looked for
        failed = error
    pauses = Pauses(client, PATIENCE_S)
    while (found := _found(client, place.log_group_id)) is None:
        if failed is not None:
            raise failed
        if pauses.over:
            hint = "make a log yourself and name it: logId in the infrastructure"
            raise ServiceError(f"log {NAME} is not there", service=SERVICE, operation="create_log", hint=hint)
        pauses.wait()
    return found


def _found(client: Client, group: str) -> str | None:
    asked: dict[str, Any] = {"logGroupId": group, "displayName": NAME, "pages": 1000}
    # of many logs only one may be on its page: the service looks for the name when it has fetched that
    rows = client.read(Call(service=SERVICE, operation="list_logs", parameters=asked)).get("items", [])
    return next((str(row["id"]) for row in rows if row.get("lifecycleState", "ACTIVE") == "ACTIVE"), None)
