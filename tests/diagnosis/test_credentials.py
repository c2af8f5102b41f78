"""Which credentials are found, and how; never what they are."""

from __future__ import annotations

import base64
import json

import pytest

from cloudtune.diagnosis import credentials
from cloudtune.spec.eks import EKSJob

NOW = 1_800_000_000.0


@pytest.fixture
def environ(tmp_path):
    return {"HOME": str(tmp_path)}


def told(look, environ, *more):
    (found,) = look(environ, *more)
    return found.status, found.message


def oci_profile(home, *, mode=0o600, **keys):
    folder = home / ".oci"
    folder.mkdir(exist_ok=True)
    (folder / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nsecret\n")
    (folder / "key.pem").chmod(mode)
    given = {"user": "u", "key_file": "~/.oci/key.pem", "region": "us-ashburn-1", **keys}
    (folder / "config").write_text("[DEFAULT]\n" + "\n".join(f"{name}={value}" for name, value in given.items()))


def token(ends):
    parts = ({"alg": "RS256"}, {"exp": ends} if ends else {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".sig"


def test_oci_users_are_found_as_the_sdk_finds_them(environ, tmp_path):
    status, message = told(credentials.oci, environ, NOW)
    assert (status, "not signed in" in message) == ("ok", True)
    oci_profile(tmp_path)
    status, message = told(credentials.oci, environ, NOW)
    assert status == "ok"
    assert message == f"OCI: signed in by the API key of profile DEFAULT of {tmp_path}/.oci/config, region us-ashburn-1"
    status, message = told(credentials.oci, {**environ, "OCI_CLI_PROFILE": "OTHER"}, NOW)
    assert (status, message.endswith("has no profile OTHER")) == ("warning", True)
    principal = {"OCI_CLI_AUTH": "instance_principal"}
    assert "the instance principal of this machine" in told(credentials.oci, principal, NOW)[1]
    notebook = {"HOME": str(tmp_path / "none"), "OCI_RESOURCE_PRINCIPAL_VERSION": "2.2"}
    assert "the resource principal of this notebook session" in told(credentials.oci, notebook, NOW)[1]


def test_broken_profiles_are_warnings(environ, tmp_path):
    oci_profile(tmp_path, mode=0o644)
    warning, found = credentials.oci(environ, NOW)
    assert (warning.message, found.status) == (f"OCI: {tmp_path}/.oci/key.pem can be read by others than you", "ok")
    oci_profile(tmp_path, key_file="~/.oci/gone.pem")
    assert told(credentials.oci, environ, NOW)[0] == "warning"
    (tmp_path / ".oci" / "config").write_text("no profile at all")
    assert told(credentials.oci, environ, NOW)[0] == "warning"


@pytest.mark.parametrize(
    ("left_s", "status", "said"),
    [
        (3600, "ok", "ends in 60 minutes"),
        (300, "warning", "ends in 5 minutes"),
        (-7200, "warning", "ended 120 minutes ago"),
    ],
)
def test_a_session_token_ends(environ, tmp_path, left_s, status, said):
    oci_profile(tmp_path, security_token_file="~/.oci/token")
    assert told(credentials.oci, environ, NOW)[0] == "warning"  # the file is not there
    (tmp_path / ".oci" / "token").write_text(token(NOW + left_s))
    found = told(credentials.oci, environ, NOW)
    assert (found[0], said in found[1]) == (status, True)


def test_a_token_that_does_not_say_when_it_ends_is_believed(environ, tmp_path):
    oci_profile(tmp_path, security_token_file="~/.oci/token")
    for text in (token(None), "no token", "a.b.c"):
        (tmp_path / ".oci" / "token").write_text(text)
        assert told(credentials.oci, environ, NOW)[0] == "ok"
        assert credentials.token_ends(text) is None


def test_aws_users_are_found_as_boto3_finds_them(environ, tmp_path):
    assert "not signed in" in told(credentials.aws, environ)[1]
    keys = {**environ, "AWS_ACCESS_KEY_ID": "AKIASECRET", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-1"}
    message = told(credentials.aws, keys)[1]
    assert message == "AWS: signed in by the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, region eu-west-1"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\nregion = x\n[profile team]\nsso_session = s\n")
    assert "profile default of" in told(credentials.aws, environ)[1]
    assert "profile team of" in told(credentials.aws, {**environ, "AWS_PROFILE": "team"})[1]
    assert told(credentials.aws, {**environ, "AWS_PROFILE": "gone"})[0] == "warning"
    elsewhere = {"HOME": str(tmp_path / "none")}
    assert "the role of this pod" in told(credentials.aws, {**elsewhere, "AWS_WEB_IDENTITY_TOKEN_FILE": "/t"})[1]
    container = {**elsewhere, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"}
    assert "the role of this container" in told(credentials.aws, container)[1]


def test_clusters_are_found_as_kubectl_finds_them(environ, tmp_path):
    assert "not signed in" in told(credentials.kubernetes, environ)[1]
    assert "service account" in told(credentials.kubernetes, {**environ, "KUBERNETES_SERVICE_HOST": "10.0.0.1"})[1]
    file = tmp_path / "config"
    file.write_text("current-context: training\nusers: [{user: {token: SECRET}}]\n")
    chosen = {**environ, "KUBECONFIG": f"{tmp_path / 'gone'}:{file}"}
    assert told(credentials.kubernetes, chosen) == ("ok", f"Kubernetes: signed in by context training of {file}")
    for text in ("users: []\n", "- a list", "{"):
        file.write_text(text)
        assert told(credentials.kubernetes, chosen)[0] == "warning"


def test_tokens_of_the_hub_are_found_as_its_library_finds_them(environ, tmp_path):
    assert "not signed in" in told(credentials.hub, environ)[1]
    assert told(credentials.hub, {**environ, "HF_TOKEN": "hf_secret"})[1].endswith("the variable HF_TOKEN")
    saved = tmp_path / ".cache" / "huggingface" / "token"
    saved.parent.mkdir(parents=True)
    saved.write_text("hf_secret")
    assert told(credentials.hub, environ)[1].endswith(f"the token in {saved}")
    assert "not signed in" in told(credentials.hub, {**environ, "HF_TOKEN_PATH": str(tmp_path / "none")})[1]


def test_no_value_is_ever_told(environ, tmp_path):
    oci_profile(tmp_path, pass_phrase="SECRET", fingerprint="SECRET")
    given = {**environ, "AWS_ACCESS_KEY_ID": "SECRET", "AWS_SECRET_ACCESS_KEY": "SECRET", "HF_TOKEN": "SECRET"}
    found = list(credentials.check_credentials(given, now=NOW))
    assert len(found) == 4
    assert "secret" not in repr(found).replace("AWS_SECRET_ACCESS_KEY", "").lower()


def test_not_to_be_signed_in_is_a_warning_where_a_job_goes(environ, tmp_path):
    def of_oci(given, *wanted):
        (found,) = [
            one for one in credentials.check_credentials(given, wanted=wanted, now=NOW) if "OCI:" in one.message
        ]
        return found.status

    assert (of_oci(environ), of_oci(environ, "eksJob"), of_oci(environ, "dataScienceJob")) == ("ok", "ok", "warning")
    oci_profile(tmp_path)
    assert of_oci(environ, "dataScienceJob") == "ok"


def test_a_cluster_that_eks_is_asked_for_needs_no_kubeconfig(environ):
    by_name = credentials.wanted_by(EKSJob(cluster="c", region="us-west-2"))
    for place, kind in (
        (EKSJob(context="c"), "eksJob"),
        (EKSJob(cluster="c", context="d"), "eksJob"),
        (EKSJob(), "eksJob"),
    ):
        assert credentials.wanted_by(place) == kind
    found = {
        one.message.partition(":")[0]: one.status for one in credentials.check_credentials(environ, wanted={by_name})
    }
    assert (found["AWS"], found["Kubernetes"]) == ("warning", "ok")
