"""What is a secret by its name or its place in a URI; and that the node decides alike."""

from __future__ import annotations

import pytest

from cloudtune.node.log import Redaction
from cloudtune.node.masks import is_secret_name, secret_spans, shown
from cloudtune.spec.environment import secret_variables, variables


@pytest.mark.parametrize("name", ["HF_TOKEN", "aws_secret_access_key", "PASSWORD", "MY_SECRET", "A_KEY", "Key"])
def test_names_of_secrets_are_the_same_everywhere(name: str) -> None:
    assert is_secret_name(name)
    assert secret_variables(variables({name: "value-of-it"})) == {name: "value-of-it"}
    redaction = Redaction()
    redaction.add_variables({name: "value-of-it"})
    assert redaction("a value-of-it") == "a ***"


@pytest.mark.parametrize("name", ["TOKENIZERS", "MONKEY", "KEYRING", "TOKEN_LENGTH", "HF_TOKEN_PATH"])
def test_other_names_are_not(name: str) -> None:
    assert not is_secret_name(name)
    assert secret_variables(variables({name: "value"})) == {}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("https://user:hunter2@host/x", "https://***@host/x"),
        ("https://user:pa@ss@host/x", "https://***@host/x"),
        ("git+https://ghp_abc@github.com/a/b@v1", "git+https://***@github.com/a/b@v1"),
        ("s3://AKIA:se/cr+et@bucket/k", "s3://***@bucket/k"),
        ("-i https://a:b@h/simple --find-links https://c:d@h/", "-i https://***@h/simple --find-links https://***@h/"),
        ("https://h/x?X-Amz-Date=1&X-Amz-Signature=abc", "https://h/x?***"),
        ("https://h/x?st=aVeryLongValueOfSomething", "https://h/x?***"),
        ("https://a:b@h/x?sig=1", "https://***@h/x?***"),
        ("https://h/p/0123456789abcdefXYZ/n/ns/b/bucket/o/x", "https://h/p/***/n/ns/b/bucket/o/x"),
    ],
)
def test_secrets_of_uris_are_hidden(text: str, seen: str) -> None:
    assert shown(text) == seen
    assert shown(seen) == seen


@pytest.mark.parametrize(
    "text",
    [
        "ssh://git@github.com/a/b", "git@github.com:a/b", "sftp://me@host/x", "oci://bucket@namespace/p", "abfs://c@account/x",
        "https://host:8080/model@v2/x", "https://h/x?version=2&download=true", "file:///what?token=abcdefghijklmnop", "/a?b@c",
        "https://user:$TOKEN@host/x", "https://${TOKEN}@host/x", "https://h/x?token=${TOKEN}", "https://h/x?token=", "hf://a/b@main/c",
        "https://host/path/to@something",
    ],
)  # fmt: skip
def test_what_is_no_secret_of_a_uri_stays(text: str) -> None:
    assert secret_spans(text) == []
