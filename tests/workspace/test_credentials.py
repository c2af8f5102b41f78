"""Which files look like a credential; every sample is put together here, so that no scanner finds one in this file."""

from __future__ import annotations

import base64
import json
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.workspace.credentials import LIMIT, looks_like

LETTERS = string.ascii_letters + string.digits
DRAW = random.Random(20)


def drawn(length: int, alphabet: str = LETTERS) -> str:
    return "aB3" + "".join(DRAW.choice(alphabet) for _ in range(length - 3))


def pem(kind: str, width: int = 64) -> str:
    dashes = "-" * 5
    body = "\n".join(drawn(width) for _ in range(4))
    return f"{dashes}BEGIN {kind}{dashes}\n{body}\n{dashes}END {kind}{dashes}\n"


def jwt(claims: dict[str, str]) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "RS256"}, claims)
    ]
    return ".".join([*parts, drawn(40)])


AWS_ID = "AK" + "IA" + "QZ7WVT4LNM5RXB2C"
FINGERPRINT = ":".join(f"{byte:02x}" for byte in range(7, 119, 7))
CLUSTER = "kubernetes.io/service" + "account"

CONTENTS = {
    "key.txt": pem("RSA PRIVATE KEY"),
    "openssh.txt": pem("OPENSSH PRIVATE KEY", 70),
    "inline.yaml": "key: |\n" + "\n".join("    " + line for line in pem("EC PRIVATE KEY").splitlines()),
    "inline.py": "KEY = " + repr(pem("PRIVATE KEY")),
    "account.json": json.dumps({"type": "service_" + "account", "private_key": pem("PRIVATE KEY")}),
    "boto.py": f'client("s3", aws_access_key_id="{AWS_ID}", aws_secret_key="{drawn(40)}")',
    "named.sh": f"export AWS_SECRET_ACCESS_KEY={drawn(40)}",
    "train.py": f'login("hf_{drawn(34)}")',
    "lower.py": "login('hf_" + drawn(34).lower() + "')",
    "github.sh": f"git clone https://ghp_{drawn(36)}@github.com/a/b",
    "fine.txt": f"github_pat_{drawn(22)}_{drawn(59)}",
    "gitlab.yml": f"token: glpat-{drawn(20)}",
    "slack.py": f"SLACK = 'xoxb-{drawn(12, string.digits)}-{drawn(24)}'",
    "openai.ipynb": json.dumps({"source": [f"key = 'sk-proj-{drawn(60)}'"]}),
    "npm.txt": f"npm_{drawn(36)}",
    "pypi.txt": f"pypi-AgEI{drawn(80)}",
    "profile.ini": f"[DEFAULT]\nuser=ocid1.user.oc1..aaaa\nfingerprint={FINGERPRINT}\nkey_file=~/k.txt\nregion=eu-frankfurt-1\n",
    "pod.txt": jwt({"iss": "kubernetes/service" + "account", f"{CLUSTER}/namespace": "ml"}),
    "cluster.yaml": f"apiVersion: v1\nkind: Config\nclusters: []\nusers:\n- name: me\n  user:\n    client-key-data: {drawn(80)}\n",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_credential_is_found_by_what_is_in_the_file(name: str) -> None:
    assert looks_like(f"project/{name}", CONTENTS[name].encode())
    padding = b"# an ordinary line\n" * 2000
    assert looks_like(f"project/{name}", padding + CONTENTS[name].encode() + b"\n" + padding)


@pytest.mark.parametrize(
    "path",
    [
        ".env", "deep/down/.env", ".env.local", ".env.production", "server.pem", "cert.p12", "cert.PFX", "store.jks",
        "id_rsa", "keys/id_ed25519", "id_ecdsa", ".netrc", ".pypirc", ".git-credentials", ".aws/credentials", ".oci/config",
        ".kube/config", "kubeconfig", "prod.kubeconfig", "putty.ppk", "kaggle.json", ".cache/huggingface/token",
    ],
)  # fmt: skip
def test_a_credential_is_found_by_its_name(path: str) -> None:
    assert looks_like(f"project/{path}", b"something = 1\n")
    assert looks_like(f"project/{path}", None)
    assert looks_like(f"project/{path}", b"\x00\x01binary") is not None


@pytest.mark.parametrize(
    "path",
    [
        "credentials", "config", "config.json", ".env.example", ".env.sample", ".env.template", "env.py", "id_rsa.pub",
        "credentials.py", "environment.yml", "token.py", "secrets.md", "aws/credentials.txt", "keys.json", ".npmrc", ".envrc",
    ],
)  # fmt: skip
def test_names_of_ordinary_files_pass(path: str) -> None:
    assert looks_like(f"project/{path}", b"something = 1\n") is None
    assert looks_like(f"project/{path}", None) is None


def test_an_empty_file_holds_no_secret() -> None:
    assert looks_like("project/.env", b"") is None
    assert looks_like("project/.env", b"\n \n") is None


DASHES = "-" * 5
HARMLESS = {
    "placeholder.yaml": "env:\n- name: HF_TOKEN\n  value: <your token>\n",
    "stars.md": "Set `HF_TOKEN=hf_" + "x" * 34 + "` or `hf_********`, and `ghp_" + "x" * 36 + "`.",
    "same.py": "TOKEN = 'hf_" + "a" * 34 + "'",
    "your.py": "KEY = 'sk-your-api-key-goes-here-Your0Api1Key2Goes3Here4Now'",
    "docs.md": "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
    "oci.md": "user=ocid1.user.oc1..<unique_ID>\nfingerprint=<your_fingerprint>\nkey_file=~/.oci/oci_api_key.pem\n",
    "oci-sample.md": "fingerprint=20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34\nkey_file=~/.oci/oci_api_key.pem\n",
    "scanner.py": f'if b"{DASHES}BEGIN RSA PRIVATE KEY{DASHES}" in data: raise Found',
    "cut.md": f"{DASHES}BEGIN PRIVATE KEY{DASHES}\nMIIEvQ...\n{DASHES}END PRIVATE KEY{DASHES}\n",
    "public.txt": pem("PUBLIC KEY"),
    "names.py": "def hf_compute_the_loss_of_all_layers_and_tokens_at_once(): ...\nnpm_config_registry = sk_learn = 1\n",
    "page.css": ".sk-cubed-spinner-with-a-very-long-class-name-that-goes-on-and-on {}",
    "hashes.txt": "\n".join(f"{AWS_ID} {DRAW.getrandbits(160):040x}" for _ in range(20)),
    "token.md": "A token looks like " + jwt({"sub": "1234567890", "name": "Somebody"}),
    "shell.sh": "export AWS_SECRET_ACCESS_KEY=$(pass show aws)\nexport HF_TOKEN=${HF_TOKEN}\n",
    "aws-id.tf": f'key_id = "{AWS_ID}"\n',
    "eks.yaml": "kind: Config\nclusters: []\nusers:\n- user:\n    exec:\n      command: aws\n      args: [eks, get-token]\n",
    "words.txt": "every word of a text that goes on for a long while without any meaning at all\n" * 50,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_placeholders_documentation_and_public_halves_pass(name: str) -> None:
    assert looks_like(f"project/{name}", HARMLESS[name].encode()) is None


def test_a_pem_file_with_certificates_only_passes() -> None:
    chain = pem("CERTIFICATE") + pem("CERTIFICATE")
    assert looks_like("project/ca.pem", chain.encode()) is None
    assert looks_like("project/ca.pem", (chain + pem("PRIVATE KEY")).encode())


def test_an_npm_or_docker_configuration_counts_when_it_holds_a_secret() -> None:
    assert looks_like("project/.npmrc", b"//registry.example.org/:_authToken=${NPM_TOKEN}\n") is None
    assert looks_like("project/.npmrc", f"//registry.example.org/:_authToken={drawn(36)}\n".encode())
    assert looks_like("project/.docker/config.json", b'{"credsStore": "desktop"}') is None
    assert looks_like("project/.docker/config.json", json.dumps({"auths": {"r": {"auth": drawn(40)}}}).encode())


def test_the_folder_that_was_named_counts_as_part_of_the_name() -> None:
    assert looks_like(".aws/credentials", b"[default]\n")
    assert looks_like("aws/credentials", b"[default]\n") is None


def test_binary_content_is_not_searched() -> None:
    assert looks_like("project/model.bin", b"\x00" * 16 + CONTENTS["train.py"].encode()) is None


@given(
    st.binary(max_size=2000),
    st.sampled_from([b"hf_", b"AKIA", b"eyJ", b"PRIVATE KEY-----", b"clusters users kind: Config"]),
)
def test_any_bytes_can_be_looked_at(noise: bytes, literal: bytes) -> None:
    answer = looks_like("project/notes.txt", noise[:1000] + literal + noise[1000:])
    assert answer is None or isinstance(answer, str)


def test_a_mebibyte_of_the_worst_text_is_answered() -> None:
    for text in (
        b"eyJ" * (LIMIT // 3),
        b" " * LIMIT + b"key_file",
        b"a_key:" * (LIMIT // 6),
        b"-" * LIMIT + b"PRIVATE KEY",
    ):
        assert looks_like("project/notes.txt", text) is None
