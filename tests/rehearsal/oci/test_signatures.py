"""Who may ask: signatures that fit, keys that are known, tokens that have not expired."""

from __future__ import annotations

import datetime as dt
import email.utils
import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloudtune.rehearsal.keys import make_key
from tests.oci_place import OciPlace, oci_place
from tests.rehearsal.oci.science import Science, refused

oci = pytest.importorskip("oci", reason="the oci SDK is not installed")
LIST = "/20190101/jobs?compartmentId="


def asked(
    place: OciPlace, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any, Mapping[str, str]]:
    """Send a request as it is given."""
    connection = http.client.HTTPConnection(urlsplit(place.cloud.url).netloc, timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read() or b"null"), dict(reply.getheaders())
    finally:
        connection.close()


def signed(place: OciPlace, method: str, path: str, body: bytes | None = None, **changes: Any) -> dict[str, str]:
    """Return the headers of a request that the SDK has signed; ``date`` and ``private`` may be another's."""
    principals = place.cloud.principals
    private = oci.signer.load_private_key(changes.get("private", principals.identity.key.private_pem), None)
    name = f"{principals.tenancy}/{principals.user}/{principals.identity.key.fingerprint}"
    names = ["date", "(request-target)", "host"]
    headers = {
        "date": changes.get("date", email.utils.formatdate(usegmt=True)),
        "host": urlsplit(place.cloud.url).netloc,
    }
    if body is not None and changes.get("with_body", True):
        import base64
        import hashlib

        headers |= {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-content-sha256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
        }
        names += ["content-length", "content-type", "x-content-sha256"]
    signer = oci.signer._PatchedHeaderSigner(changes.get("name", name), private, names)
    return dict(signer.sign(headers, host=headers["host"], method=method, path=path))


def test_what_is_signed_well_passes(place: OciPlace) -> None:
    path = f"{LIST}{place.compartment}"
    status, found, headers = asked(place, "GET", path, headers=signed(place, "GET", path))
    assert (status, found) == (200, [])
    assert headers["opc-request-id"]
    body = json.dumps(Science(place).details()).encode()
    assert asked(place, "POST", "/20190101/jobs", body, signed(place, "POST", "/20190101/jobs", body))[0] == 200


def test_everything_else_does_not(place: OciPlace) -> None:
    path, body = f"{LIST}{place.compartment}", json.dumps(Science(place).details()).encode()
    old = email.utils.format_datetime(dt.datetime.now(dt.timezone.utc) - dt.timedelta(minutes=10), usegmt=True)
    good, post = signed(place, "GET", path), signed(place, "POST", "/20190101/jobs", body)
    wrong: list[tuple[str, str, bytes | None, dict[str, str]]] = [
        ("GET", path, None, {}),
        ("GET", path, None, {"authorization": "Bearer x"}),
        ("GET", path, None, {**good, "date": old}),
        ("GET", path, None, signed(place, "GET", path, date=old)),
        ("GET", path, None, signed(place, "GET", path, date="yesterday")),
        ("GET", path, None, signed(place, "GET", path, name="ocid1.tenancy.oc1..x/ocid1.user.oc1..x/00")),
        ("GET", path, None, signed(place, "GET", path, private=make_key().private_pem)),
        ("GET", f"{path}&limit=3", None, good),
        ("GET", path, None, {**good, "host": "elsewhere"}),
        ("GET", path, None, {**good, "authorization": good["authorization"].replace("rsa-sha256", "hmac-sha256")}),
        ("GET", path, None, {**good, "authorization": good["authorization"].replace("(request-target)", "date")}),
        ("POST", "/20190101/jobs", body, signed(place, "POST", "/20190101/jobs", body, with_body=False)),
        ("POST", "/20190101/jobs", body.replace(b"test", b"best"), post),
    ]
    for method, target, data, headers in wrong:
        status, found, _ = asked(place, method, target, data, headers)
        assert (status, found["code"]) == (401, "NotAuthenticated"), headers
    assert place.stage.store.all("oci.job") == ()


def test_what_is_sent_to_nobody_is_not_found(place: OciPlace) -> None:
    assert asked(place, "GET", "/20190101/notebooks")[0] == 404
    assert asked(place, "PATCH", "/20190101/jobs")[0] == 405
    status, found, _ = asked(place, "POST", "/20190101/jobs", b"{", signed(place, "POST", "/20190101/jobs", b"{"))
    assert (status, found["code"]) == (400, "CannotParseRequest")


def test_a_session_token_is_good_until_it_has_expired(tmp_path: Path) -> None:
    with oci_place(tmp_path, session=True) as place:
        home, principals = place.identity.home, place.cloud.principals

        def client() -> Any:
            config = oci.config.from_file(str(home / ".oci" / "config"), "SESSION")
            text = Path(config["security_token_file"]).read_text()
            key = oci.signer.load_private_key_from_file(config["key_file"])
            return place.sdk(
                "data_science", "DataScienceClient", signer=oci.auth.signers.SecurityTokenSigner(text, key)
            )

        first = client()
        assert first.list_jobs(place.compartment).data == []
        principals.end_sessions()
        with refused(401, "NotAuthenticated"):
            first.list_jobs(place.compartment)
        principals.sign_in()
        assert client().list_jobs(place.compartment).data == []
        with refused(401, "NotAuthenticated"):
            first.list_jobs(place.compartment)
        assert oct((home / ".oci" / "key.pem").stat().st_mode)[-3:] == "600"


def test_who_the_user_is(place: OciPlace) -> None:
    client, principals = place.sdk("identity", "IdentityClient"), place.cloud.principals
    assert client.get_user(principals.user).data.name == "rehearsed"
    tenancy = client.get_tenancy(principals.tenancy).data
    assert tenancy.home_region_key == "IAD"
    assert client.list_region_subscriptions(principals.tenancy).data[0].region_name == "us-ashburn-1"
    assert client.get_compartment(place.compartment).data.lifecycle_state == "ACTIVE"
    assert len(client.list_availability_domains(place.compartment).data) == len(client.list_regions().data) == 1
    for gone in (lambda: client.get_user(place.compartment), lambda: client.get_compartment(principals.user)):
        with refused(404, "NotAuthorizedOrNotFound"):
            gone()
