"""Throw-away identities, and the environment in which no client finds a real cloud."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.errors import MissingExtra
from cloudtune.rehearsal import keys
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.quiet import credential_places, quiet


def test_secrets_are_by_chance_and_stay() -> None:
    with Identity() as one, Identity() as other:
        assert one.secret("token") == one.secret("token")
        assert len({one.secret("token"), one.secret("key"), other.secret("token")}) == 3
        assert (len(one.secret("long", length=64)), one.secret("long").isalnum()) == (64, True)


def test_the_folder_is_private_and_goes() -> None:
    with Identity() as one:
        place = one.write(".oci/config", "[DEFAULT]\n")
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (one.folder, one.home, place.parent, place)]
        assert modes == [0o700, 0o700, 0o700, 0o600]
        assert place.read_text() == "[DEFAULT]\n"
    assert not one.folder.exists()


def test_the_folder_goes_even_when_nobody_closes_it() -> None:
    code = "from cloudtune.rehearsal.identity import Identity; one = Identity(); print(one.folder)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()


def test_a_client_sees_what_it_is_given_and_no_cloud_of_the_user() -> None:
    shell = {
        "PATH": "/bin",
        "EDITOR": "vi",
        "AWS_PROFILE": "mine",
        "AWS_ENDPOINT_URL_S3": "mine",
        "OCI_CLI_PROFILE": "mine",
        "KUBECONFIG": "mine",
        "GOOGLE_APPLICATION_CREDENTIALS": "mine",
        "HTTPS_PROXY": "mine",
        "all_proxy": "mine",
        "HF_TOKEN": "mine",
        "MY_SECRET": "mine",
        "SSH_AUTH_SOCK": "mine",
        "NB_SESSION_OCID": "mine",
        "SM_HOSTS": "mine",
        "HOME": "mine",
    }
    with Identity() as one:
        seen = one.environment({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, shell=shell)
        assert "mine" not in seen.values()
        assert seen.items() >= {"PATH": "/bin", "EDITOR": "vi", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}.items()
        assert seen["HOME"] == str(one.home)
        assert (seen["NO_PROXY"], seen["AWS_EC2_METADATA_DISABLED"]) == ("*", "true")
        assert Path(seen["AWS_SHARED_CREDENTIALS_FILE"]).is_relative_to(one.home)


def test_ordinary_variables_stay() -> None:
    ordinary = {"SMTP": "x", "OCIO": "x", "AWSOME": "x", "PYTHONPATH": "x", "USER": "x", "PROJECT": "x", "TENANT": "x"}
    assert quiet(ordinary).items() >= ordinary.items()


def test_a_process_is_such_a_client_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    before = dict(os.environ)
    with Identity() as one:
        with one.applied({"AWS_REGION": "us-west-2"}):
            assert "AWS_PROFILE" not in os.environ
            assert os.environ["AWS_REGION"] == "us-west-2"
            assert Path.home() == one.home
        assert dict(os.environ) == before


def test_credentials_are_below_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert {Path("/somewhere/.oci"), Path("/somewhere/.aws"), Path("/somewhere/.kube")} <= set(credential_places())


def test_a_key_is_made_once_and_can_be_used(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to look at the key with")
    with Identity() as one:
        key = one.key
        assert one.key is key
        assert "PRIVATE" not in repr(key)
        told = subprocess.run(
            ["openssl", "pkey", "-noout", "-text"], input=key.private_pem, capture_output=True, check=True
        ).stdout
        assert b"2048 bit" in told
        public = subprocess.run(
            ["openssl", "pkey", "-pubout", "-outform", "DER"], input=key.private_pem, capture_output=True, check=True
        ).stdout
        digest = subprocess.run(["openssl", "md5", "-c"], input=public, capture_output=True, check=True).stdout.decode()
    assert digest.split()[-1] == key.fingerprint


def test_the_command_makes_the_same_kind_of_key() -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command")
    mine, other = keys._by_command(openssl), keys.make_key()
    for key in (mine, other):
        assert key.private_pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
        assert (len(key.public_der), key.fingerprint.count(":")) == (294, 15)
    assert mine.fingerprint != other.fingerprint


def test_without_any_way_to_make_a_key_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_HAS_LIBRARY", False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtra, match=r"cloudtune\[rehearse\]"):
        keys.make_key()
