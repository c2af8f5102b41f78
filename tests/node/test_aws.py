"""The agent as a client of AWS without AWS's library: its signature beside the library's, and what it says of refusals."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from cloudtune.node import aws

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:hub-Ab12"
URL = "https://secretsmanager.eu-west-1.amazonaws.com"


@pytest.mark.parametrize("token", ["", "a/session+token=="])
def test_a_request_is_signed_as_the_library_signs_it(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = pytest.importorskip("botocore.auth", reason="botocore is not installed")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "secretsmanager.GetSecretValue"}
    body = b'{"SecretId": "x"}'
    request = AWSRequest("POST", f"{URL}/", data=body, headers=headers)
    auth.SigV4Auth(Credentials("AKID", "secret/key", token or None), "secretsmanager", "eu-west-1").add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    now = datetime.strptime(theirs["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    keys = aws.Keys("AKID", "secret/key", token)
    ours = aws.sign(keys, URL, body, headers, region="eu-west-1", service="secretsmanager", now=now)
    assert ours["authorization"] == theirs["authorization"]
    assert ours.get("x-amz-security-token", "") == token


class _Service(http.server.BaseHTTPRequestHandler):
    """Gives credentials, is busy once and cut off once, and refuses another secret than the one there is."""

    asked: list[str] = []  # noqa: RUF012 - of each test's own class

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._say(
            200 if self.headers["Authorization"] == "ticket" else 401, b'{"AccessKeyId":"A","SecretAccessKey":"S"}'
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.asked.append(body)
        if len(self.asked) == 1:
            self._say(503, b"")
        elif len(self.asked) == 2:
            self._say(200, b'{"SecretBinary": "AAE="}', said=20)
        elif "missing" in body:
            self._say(400, b'{"__type":"com.x#ResourceNotFoundException","message":"no such secret"}')
        else:
            self._say(200, b'{"SecretBinary": "AAE="}')

    def _say(self, status: int, body: bytes, *, said: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:said])


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    service = type("Service", (_Service,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_container_asks_as_its_role(url: str) -> None:
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "ticket",
        "AWS_ENDPOINT_URL": url,
    }
    assert aws.has_own_keys(variables)
    assert aws.read_secret(ARN, variables) == b"\0\1"
    with pytest.raises(OSError, match="answers 400: ResourceNotFoundException: no such secret"):
        aws.read_secret(f"{ARN}missing", variables)
    with pytest.raises(OSError, match="gives no credentials"):
        aws.read_secret(ARN, {**variables, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "another"})
    assert not aws.has_own_keys({"AWS_PROFILE": "mine"})
