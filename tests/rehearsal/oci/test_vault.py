"""Secrets, through the SDK and on a node."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from cloudtune.rehearsal.oci.ocids import new_ocid
from tests.oci_place import OciPlace
from tests.rehearsal.oci.science import Science, refused

pytest.importorskip("oci", reason="the oci SDK is not installed")


def content(value: str, **more: str) -> dict[str, Any]:
    return {"contentType": "BASE64", "content": base64.b64encode(value.encode()).decode(), **more}


def test_a_secret_is_made_read_changed_and_deleted(place: OciPlace) -> None:
    vaults, secrets = place.sdk("vault", "VaultsClient"), place.sdk("secrets", "SecretsClient")
    vault = new_ocid("vault")
    body = {
        "compartmentId": place.compartment,
        "vaultId": vault,
        "keyId": new_ocid("key"),
        "secretName": "token",
        "secretContent": content("first", name="v1"),
    }
    made = vaults.create_secret(body).data
    assert (made.lifecycle_state, made.current_version_number) == ("ACTIVE", 1)

    def value(**which: Any) -> str:
        bundle = secrets.get_secret_bundle(made.id, **which).data
        return base64.b64decode(bundle.secret_bundle_content.content).decode()

    assert value() == "first"
    changed = vaults.update_secret(
        made.id, {"secretContent": content("second")}, if_match=vaults.get_secret(made.id).headers["etag"]
    )
    assert changed.data.current_version_number == 2
    assert [value(), value(stage="PREVIOUS"), value(version_number=1), value(secret_version_name="v1")] == [
        "second",
        *["first"] * 3,
    ]
    named = secrets.get_secret_bundle_by_name("token", vault).data
    assert (named.secret_id, named.stages) == (made.id, ["CURRENT", "LATEST"])
    assert [one.secret_name for one in vaults.list_secrets(place.compartment, name="token").data] == ["token"]
    assert "first" not in str(vaults.get_secret(made.id).data)
    with refused(409, "Conflict"):
        vaults.create_secret(body)
    with refused(400, "InvalidParameter"):
        vaults.create_secret({**body, "secretName": "x", "secretContent": {"contentType": "BASE64", "content": "?"}})
    with refused(404, "NotAuthorizedOrNotFound"):
        value(version_number=3)
    vaults.schedule_secret_deletion(made.id, {})
    with refused(404, "NotAuthorizedOrNotFound"):
        value()
    with refused(404, "NotAuthorizedOrNotFound"):
        secrets.get_secret_bundle(new_ocid("vaultsecret"))


def test_a_run_reads_a_secret_by_its_own_right(science: Science, namespaces: None) -> None:
    from cloudtune.rehearsal.oci.vault import Vault

    secret = new_ocid("vaultsecret")
    science.place.cloud.part(Vault).put(secret, "whisper")
    script = f"import sys\nfrom cloudtune.node.secrets import print_secret\nsys.exit(print_secret({secret!r}))\n"
    run = science.ended(science.start(science.job(science.details(), script.encode())))
    assert (run.lifecycle_state, science.said(run.id)) == ("SUCCEEDED", ["whisper"])
