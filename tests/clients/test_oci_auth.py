"""Who the user is to Oracle Cloud: every way to sign in, with the real SDK against the stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cloudtune.errors import NotAllowed, UsageError
from cloudtune.plan import Call
from cloudtune.rehearsal.oci.ocids import REGION, new_ocid
from tests.oci_place import OciPlace, oci_place

pytest.importorskip("oci", reason="the oci SDK is not installed")


@pytest.fixture
def place(tmp_path: Path):
    with oci_place(tmp_path) as found:
        yield found


def asked_as(place: OciPlace, environ: Mapping[str, str]) -> str:
    """Ask for a project as whoever the variables say; return how that signed in."""
    from cloudtune.clients.oci import OciClient
    from cloudtune.clients.oci_auth import identity

    look = Call(service="oci.data_science", operation="get_project", parameters={"projectId": place.project})
    assert OciClient(environ).read(look)["id"] == place.project
    return identity(environ).kind


@pytest.fixture
def job_run(place: OciPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the variables of a job run; the SDK reads those of its principal from the process alone."""
    files = place.cloud.principals.resource_files(new_ocid("datasciencejobrun"), place.compartment)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    own = {
        "OCI_RESOURCE_PRINCIPAL_VERSION": "2.2",
        "OCI_RESOURCE_PRINCIPAL_RPST": str(tmp_path / "rpst"),
        "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM": str(tmp_path / "private.pem"),
        "OCI_RESOURCE_PRINCIPAL_REGION": REGION,
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return {"CLOUDTUNE_OCI_ENDPOINT": place.cloud.url, **own}


def test_a_profile_with_an_api_key_or_a_session_token(place: OciPlace) -> None:
    assert asked_as(place, place.environ) == "api_key"
    assert asked_as(place, {**place.environ, "OCI_CLI_PROFILE": "SESSION"}) == "session"
    assert asked_as(place, {**place.environ, "OCI_CLI_AUTH": "security_token", "OCI_CONFIG_PROFILE": "SESSION"}) == (
        "session"
    )


def test_a_job_run_signs_as_itself_unless_there_is_a_profile(
    place: OciPlace, job_run: dict[str, str], tmp_path: Path
) -> None:
    none = {"OCI_CLI_CONFIG_FILE": str(tmp_path / "none")}
    assert asked_as(place, {**job_run, **none}) == "resource"
    assert asked_as(place, {**place.environ, **job_run}) == "api_key"
    for name in ("OCI_CLI_AUTH", "OCI_IAM_TYPE"):
        assert asked_as(place, {**place.environ, **job_run, name: "resource_principal"}) == "resource"


def test_an_instance_signs_as_itself(place: OciPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudtune.clients.oci_auth import identity

    monkeypatch.setenv("OCI_METADATA_BASE_URL", f"{place.cloud.url}/opc/v2")
    here = {
        "CLOUDTUNE_OCI_ENDPOINT": place.cloud.url,
        "OCI_CLI_AUTH": "instance_principal",
        "OCI_CLI_CONFIG_FILE": str(tmp_path / "none"),
    }
    assert asked_as(place, here) == "instance"
    assert identity(here).region == REGION


def test_a_profile_that_is_not_there_and_a_way_that_does_not_exist_are_told(place: OciPlace) -> None:
    from cloudtune.clients.oci_auth import identity

    with pytest.raises(NotAllowed, match=r"profile OTHER: .*OTHER"):
        identity({**place.environ, "OCI_CLI_PROFILE": "OTHER"})
    with pytest.raises(UsageError, match="'magic', which is no way to sign in"):
        identity({**place.environ, "OCI_CLI_AUTH": "magic"})
