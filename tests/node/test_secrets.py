from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.node import secrets
from cloudtune.node.errors import NodeError

OCID = "ocid1.vaultsecret.oc1.iad.abc"
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:hub-Ab12"

FAKE_BOTO3 = """
class Client:
    def __init__(self, region): self.region = region
    def get_secret_value(self, SecretId):
        if "missing" in SecretId:
            raise RuntimeError("ResourceNotFound: no such secret")
        return {"SecretString": f"value of {SecretId} in {self.region}"}
def client(service, region_name):
    assert service == "secretsmanager"
    print("noise on stderr only", file=__import__("sys").stderr)
    return Client(region_name)
"""


def test_the_agents_own_variables() -> None:
    assert secrets.local_value("HF_TOKEN", "env:MINE", {"MINE": "v"}) == "v"
    assert secrets.local_value("HF_TOKEN", "k8s:hub/token", {"HF_TOKEN": "v"}) == "v"
    assert secrets.local_value("HF_TOKEN", OCID, {}) is None
    assert secrets.local_value("HF_TOKEN", ARN, {}) is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("env:MINE", "secret HF_TOKEN is to come from MINE, which is not set"),
        ("k8s:hub/token", "did not reach the pod"),
        ("vault:x", "is no reference that this agent knows"),
    ],
)
def test_what_cannot_be_read_is_said_without_a_value(reference: str, message: str) -> None:
    with pytest.raises(NodeError, match=message):
        secrets.local_value("HF_TOKEN", reference, {"OTHER": "geheim"})


@pytest.fixture
def python(tmp_path: Path) -> str:
    """Return an interpreter of an environment whose boto3 is a stand-in with one client."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "boto3.py").write_text(FAKE_BOTO3)
    return str(tmp_path / "venv" / "bin" / "python")


def test_a_cloud_is_asked_in_a_process_apart(agent: Path, python: str) -> None:
    asked = []

    def environment(module: str, requirement: str) -> str:
        asked.append((module, requirement.partition(">")[0]))
        return python

    value = secrets.fetch("HF_TOKEN", ARN, archive=str(agent), environment=environment, variables=os.environ)
    assert value == f"value of {ARN} in eu-west-1"
    assert asked == [("boto3", "boto3")]


def test_a_cloud_that_refuses_is_quoted(agent: Path, python: str) -> None:
    with pytest.raises(
        NodeError, match=r"cannot read secret HF_TOKEN \(arn:.*missing\): RuntimeError: ResourceNotFound"
    ):
        secrets.fetch(
            "HF_TOKEN", f"{ARN}missing", archive=str(agent), environment=lambda *_: python, variables=os.environ
        )


def test_a_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = secrets.write_key(tmp_path / "tools", "-----BEGIN-----\nabc\n-----END-----")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().endswith("-----END-----\n")
