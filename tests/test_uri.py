"""The text of URIs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.errors import UsageError
from cloudtune.node import uris
from cloudtune.uri import absolute, filled, join, local_path, scheme_of, shown


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("outputs", "file"), ("/outputs", "file"), ("~/outputs", "file"), ("C:\\outputs", "file"), ("a:b", "file"), ("a/b://c", "file"),
        ("file:///outputs", "file"), ("local:///outputs", "file"), ("file:/outputs", "file"), ("S3://b/k", "s3"),
        ("oci://b@ns/k", "oci"), ("memory://x", "memory"), ("simplecache::s3://b/k", "simplecache"),
    ],
)  # fmt: skip
def test_the_scheme_of_a_uri(uri: str, scheme: str) -> None:
    assert scheme_of(uri) == scheme


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///tmp/o%20ut", "/tmp/o%20ut"), ("file:///a b/ü", "/a b/ü"), ("FILE:///a", "/a"), ("file:/a", "/a"),
        ("file://localhost/a", "/a"), ("file://localhost", "HERE/localhost"), ("local:///a", "/a"), ("file://a/b", "HERE/a/b"),
        ("/a%41$b", "/a%41$b"), ("~/a", "ME/a"), ("~nobody-of-that-name/a", "HERE/~nobody-of-that-name/a"), ("file:///~/a", "/~/a"),
        ("a/../b//c/", "HERE/b/c"), ("a:b", "HERE/a:b"), (".", "HERE"), ("what?x=1#y", "HERE/what?x=1#y"), ("S3://b/k", None),
        ("x://y", None), ("simplecache::s3://b/k", None), ("dir::file:///a", None), ("memory://a", None), ("git@host:a", "HERE/git@host:a"),
    ],
)  # fmt: skip
def test_the_node_reads_local_uris_by_the_same_rule(
    uri: str, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    there = uris.local_path(uri)
    assert str(local_path(uri)) == os.path.abspath(there) if there is not None else local_path(uri) is None  # noqa: PTH100
    expected = path and path.replace("HERE", str(tmp_path)).replace("ME", str(tmp_path / "me"))
    assert local_path(uri) == (Path(expected) if expected else None)


def test_what_a_plan_leaves_out_of_a_uri_can_be_given_again() -> None:
    name = "CLOUDTUNE_URI_0A1B2C3D_SECRET"
    assert filled(f"sftp://${{{name}}}@host/$X/${{Y}}", {name: "me:pw"}) == "sftp://me:pw@host/$X/${Y}"
    with pytest.raises(UsageError, match="not kept with the run") as caught:
        filled(f"sftp://${{{name}}}@host/x", {})
    assert f"export {name}=" in str(caught.value.hint)


def test_a_local_path_is_made_absolute_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert absolute("outputs") == f"file://{tmp_path}/outputs"
    assert absolute("./a/../b/") == f"file://{tmp_path}/b/"
    assert absolute(Path("outputs")) == f"file://{tmp_path}/outputs"
    assert absolute("~/outputs") == f"file://{tmp_path}/me/outputs"
    assert absolute("/a b/ü%20") == "file:///a b/ü%20"
    assert absolute("file:///a b") == "file:///a b"
    assert absolute("/") == "file:///"
    for uri in ("s3://bucket/key", "oci://bucket@namespace/prefix/", "memory://x"):
        assert absolute(uri) == uri
    assert local_path("oci://bucket@namespace/prefix") is None
    assert local_path("file:///a b/ü%20") == Path("/a b/ü%20")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_uri_made_absolute_stays_so(text: str) -> None:
    once = absolute(text)
    assert absolute(once) == once


@pytest.mark.parametrize(
    ("start", "parts", "joined"),
    [
        ("s3://b/k", ("a", "b"), "s3://b/k/a/b"), ("s3://b/k/", ("/a/",), "s3://b/k/a"), ("s3://b", ("a",), "s3://b/a"),
        ("memory://", ("a",), "memory://a"), ("file:///", ("a",), "file:///a"), ("out", ("a",), "out/a"), ("out", (), "out"),
        ("oci://b@ns/p", ("", "x/./y"), "oci://b@ns/p/x/y"), ("s3://b/k/", ("",), "s3://b/k/"),
    ],
)  # fmt: skip
def test_joining(start: str, parts: tuple[str, ...], joined: str) -> None:
    assert join(start, *parts) == joined


def test_joining_never_leads_upwards() -> None:
    with pytest.raises(UsageError, match="leads out of s3://b/k"):
        join("s3://b/k", "a/../../x")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("sftp://me:hunter2@host/x", "sftp://***@host/x"),
        ("sftp://me@host/x", "sftp://me@host/x"),
        ("s3://AKIA:se/cr+et@bucket/k", "s3://***@bucket/k"),
        ("https://h/k?X-Amz-Signature=abc&x=1", "https://h/k?***"),
        ("could not get 'https://h/k?sig=abc' (403)", "could not get 'https://h/k?***' (403)"),
        ("oci://bucket@namespace/p", "oci://bucket@namespace/p"),
        ("oci://key:secret@namespace/p", "oci://***@namespace/p"),
        ("s3://bucket/model@v2/x", "s3://bucket/model@v2/x"),
        ("file:///what?/x", "file:///what?/x"),
        ("/what?/a@b", "/what?/a@b"),
    ],
)
def test_no_secret_of_a_uri_is_shown(text: str, seen: str) -> None:
    assert shown(text) == seen
