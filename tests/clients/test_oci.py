"""The client of Oracle Cloud: the real SDK against a server on this machine that keeps what it was sent."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cloudtune.errors import CloudtuneError, NoCapacity, NotAllowed, RunNotFound, ServiceError, UsageError
from cloudtune.plan import Call, File, Plan

pytest.importorskip("oci", reason="the oci SDK is not installed")
pytest.importorskip("cryptography")
JOB = "ocid1.datasciencejob.oc1.iad.abc"


class Service:
    """Answers what it is told to; ``seen`` holds (method, path, headers, body)."""

    def __init__(self):
        self.seen, self.answers, self.date = [], [], None
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                service.seen.append(
                    (self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                )
                status, reply, *more = service.answers.pop(0) if service.answers else (200, {"id": JOB})
                if status is None:
                    self.close_connection = True
                    return
                data = b"" if reply is None else json.dumps(reply).encode()
                self.send_response(status)
                headers = {"content-type": "application/json", "content-length": str(len(data)), "etag": "e1"}
                for name, value in {**headers, "opc-request-id": "request-1", **(more[0] if more else {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_):
                pass

            def date_time_string(self, timestamp=None):
                return service.date or super().date_time_string(timestamp)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service():
    made = Service()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    folder = tmp_path_factory.mktemp("oci")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(key)
    lines = ["[DEFAULT]", "user=ocid1.user.oc1..aaaa", "fingerprint=20:3b:97:13:55:1c:aa:bb:cc:dd:ee:ff:00:11:22:33"]
    lines += [f"key_file={folder / 'key.pem'}", "tenancy=ocid1.tenancy.oc1..aaaa", "region=us-ashburn-1"]
    (folder / "config").write_text("\n".join(lines) + "\n")
    for path in folder.iterdir():
        path.chmod(0o600)
    return folder / "config"


@pytest.fixture
def client(service, profile):
    from cloudtune.clients.oci import OciClient

    endpoint = f"http://127.0.0.1:{service.server.server_port}"
    return OciClient({"CLOUDTUNE_OCI_ENDPOINT": endpoint, "OCI_CONFIG_FILE": str(profile)})


def call(operation, **parameters):
    return Call(service="oci.data_science", operation=operation, parameters=parameters)


def test_parameters_that_are_not_of_the_path_are_the_body(client, service):
    reply = client.send(call("create_job", displayName="x", compartmentId="c"), token="token-1")
    assert (reply["id"], reply["etag"]) == (JOB, "e1")
    method, path, headers, body = service.seen[0]
    assert (method, path) == ("POST", "/20190101/jobs")
    assert headers["opc-retry-token"] == "token-1"
    assert headers["authorization"].startswith("Signature")
    assert json.loads(body) == {"displayName": "x", "compartmentId": "c"}
    client.send(call("delete_job", jobId=JOB, deleteRelatedJobRuns=True))
    assert service.seen[1][:2] == ("DELETE", f"/20190101/jobs/{JOB}?deleteRelatedJobRuns=true")


def test_what_is_uploaded_is_checked_and_the_same_every_time(client, service, tmp_path):
    (tmp_path / "train.py").write_bytes(b"print(1)")
    digest = hashlib.sha256(b"print(1)").hexdigest()
    files = (
        File(path="order.json", bytes=2, sha256=hashlib.sha256(b"{}").hexdigest(), content=b"{}"),
        File(path="code/train.py", bytes=8, sha256=digest, source=str(tmp_path / "train.py"), executable=True),
    )
    sent = call("create_job_artifact", jobId=JOB, contentDisposition="attachment; filename=cloudtune.zip")
    service.answers += [(204, None), (204, None)]
    for token in ("one", "two"):
        client.send(sent, token=token, files=files)
    first, second = service.seen
    assert first[1] == f"/20190101/jobs/{JOB}/artifact"
    assert first[2]["content-disposition"] == "attachment; filename=cloudtune.zip"
    assert first[3] == second[3]
    with zipfile.ZipFile(io.BytesIO(first[3])) as archive:
        assert archive.namelist() == ["order.json", "code.tar.gz"]
    (tmp_path / "train.py").write_bytes(b"print(2)")
    with pytest.raises(CloudtuneError, match=r"train\.py"):
        client.send(sent, token="three", files=files)
    assert len(service.seen) == 2


def test_refusals_say_who_can_mend_them(client, service):
    def refused(status, code, message="no", operation="get_job", **parameters):
        service.answers.append((status, {"code": code, "message": message}))
        with pytest.raises(CloudtuneError) as error:
            client.read(call(operation, **(parameters or {"jobId": JOB})))
        return error.value

    hidden = refused(404, "NotAuthorizedOrNotFound")
    assert isinstance(hidden, NotAllowed)
    assert "allow group <your group> to manage data-science-jobs in compartment id <compartment>" in hidden.hint
    assert isinstance(refused(401, "NotAuthenticated"), NotAllowed)
    assert isinstance(refused(404, "NotAuthorizedOrNotFound", operation="get_job_run", jobRunId="r"), RunNotFound)
    assert isinstance(refused(400, "LimitExceeded", "The limit of shape is exceeded"), NoCapacity)
    broken = refused(400, "InvalidParameter", "shapeName")
    assert isinstance(broken, ServiceError)
    assert (broken.definite, broken.request_id) == (True, "request-1")
    gone = refused(409, "InvalidatedRetryToken")
    assert isinstance(gone, ServiceError)
    assert gone.definite
    assert "submit it as a new run" in gone.hint
    with pytest.raises(UsageError, match="takes no colour"):
        client.read(call("get_job", jobId=JOB, colour="red"))


def test_busy_services_are_asked_again_and_lost_replies_are_not_believed(client, service):
    service.answers += [(503, {"code": "x", "message": "busy"}), (429, {"code": "y", "message": "slow"})]
    assert client.read(call("get_job", jobId=JOB))["id"] == JOB
    assert len(service.seen) == 3
    service.answers += [(None, None)] * 20
    with pytest.raises(ServiceError) as error:
        client.send(call("create_job", displayName="x"), token="token-2")
    assert error.value.definite is False
    assert {seen[2]["opc-retry-token"] for seen in service.seen[3:]} == {"token-2"}


def test_a_try_that_could_not_be_sent_says_nothing_of_the_one_before(client, service):
    """The first reply is lost, then nobody is signed in any more, or the network is gone."""
    import oci

    from cloudtune.clients.oci_endpoint import Tries, connection
    from cloudtune.clients.oci_errors import told

    service.answers += [(None, None), (401, {"code": "NotAuthenticated", "message": "no"})]
    with pytest.raises(ServiceError, match="does not know you") as error:
        client.send(call("create_job", displayName="x"), token="token-3")
    assert error.value.definite is False
    assert len(service.seen) == 2

    def definite(*errors):
        """Send a request whose tries fail in these ways, and whose last ones cannot connect."""
        left, tries = list(errors), Tries(connection({"CLOUDTUNE_OCI_ENDPOINT": "http://x"})["retry_strategy"])

        def call_api(**_):
            raise left.pop(0) if left else oci.exceptions.ConnectTimeout("unreachable")

        with pytest.raises(oci.exceptions.ConnectTimeout) as error:
            tries.make_retrying_call(call_api)
        return told(error.value, call("create_job"), kind="api_key", doubtful=tries.open).definite

    slow = oci.exceptions.ServiceError(429, "TooManyRequests", {}, "slow")
    broken = oci.exceptions.ServiceError(503, "x", {}, "busy")
    reset = oci.exceptions.RequestException("reset by peer")
    assert [definite(), definite(slow), definite(broken), definite(slow, reset)] == [True, True, False, False]


def entries(*texts):
    contents = [{"id": text, "data": {"message": text}, "oracle": {"logid": "x"}} for text in texts]
    return {"results": [{"data": {"datetime": 1, "logContent": one}} for one in contents], "summary": {}}


def search(**parameters):
    query = {"searchQuery": "search", "timeStart": "2026-11-20T00:00:00Z", "timeEnd": "2026-11-20T00:00:01Z"}
    keep = {"results": {"id": "data.logContent.id", "text": "data.logContent.data.message", "no": "data.x.y"}}
    return Call(
        service="oci.logging", operation="search_logs", parameters={**query, "limit": 8, "keep": keep, **parameters}
    )


def test_pages_are_fetched_as_one_and_of_much_little_is_kept(client, service):
    service.answers += [(200, entries("a", "b"), {"opc-next-page": "p2"}), (200, entries("c"), {"opc-next-page": "p3"})]
    reply = client.read(search(pages=2, cursor={"at": 1.5}, region="us-ashburn-1"))
    assert reply["results"] == [{"id": text, "text": text, "no": None} for text in ("a", "b", "c")]
    assert (reply["cursor"], reply["opcNextPage"]) == ({"at": 1.5}, "p3")
    assert [path for _, path, _, _ in service.seen] == [
        "/20190909/search?limit=8",
        "/20190909/search?limit=8&page=p2",
    ]
    assert set(json.loads(service.seen[0][3])) == {"searchQuery", "timeStart", "timeEnd"}


def test_a_list_is_whole_however_long_and_lines_come_in_portions(client, service, monkeypatch):
    monkeypatch.setattr("cloudtune.clients.oci._MOST_BYTES", 1)
    pages = [(200, [{"id": text}], {"opc-next-page": text}) for text in "ab"]
    service.answers += [*pages, (200, []), *pages, (200, entries("a"), {"opc-next-page": "p2"})]
    rows = client.read(call("list_jobs", compartmentId="c", pages=9))["items"]
    assert [row["id"] for row in rows] == ["a", "b"]
    assert "opcNextPage" in client.read(call("list_jobs", compartmentId="c", pages=2))
    assert client.read(search(pages=9))["opcNextPage"] == "p2"


def test_a_page_that_is_too_large_is_asked_for_in_halves(client, service):
    service.answers += [
        (400, {"code": "InvalidParameter", "message": "search result is too large"}),
        (200, entries("a"), {"opc-next-page": "p2"}),
        (200, entries("b")),
    ]
    assert [row["text"] for row in client.read(search(pages=9))["results"]] == ["a", "b"]
    limits = [path.partition("limit=")[2].partition("&")[0] for _, path, _, _ in service.seen]
    assert limits == ["8", "4", "4"]
    service.answers.append((400, {"code": "InvalidParameter", "message": "search result is too large"}))
    with pytest.raises(ServiceError):
        client.read(search(limit=1))


def test_a_reply_says_when_it_was_by_the_clock_of_the_cloud(client, service):
    service.date = "Fri, 20 Nov 2026 23:10:01 GMT"
    assert abs(client.read(call("get_job", jobId=JOB))["readAt"] - 1795216201) < 30


def test_what_may_be_over_later_is_told_apart(client, service, profile):
    from cloudtune.clients.oci import OciClient

    def passing(status, code):
        service.answers += [(status, {"code": code, "message": "no"})] * 20
        with pytest.raises(CloudtuneError) as error:
            client.read(call("get_job", jobId=JOB))
        service.answers.clear()
        return error.value.passing

    assert [passing(status, "x") for status in (400, 401, 404, 429)] == [False, False, False, True]
    nobody = OciClient({"CLOUDTUNE_OCI_ENDPOINT": "http://127.0.0.1:9", "OCI_CONFIG_FILE": str(profile)})
    with pytest.raises(CloudtuneError) as error:
        nobody.read(call("get_job", jobId=JOB))
    assert error.value.passing


def test_without_credentials_it_says_how_to_get_them(tmp_path):
    from cloudtune.clients.oci import OciClient

    with pytest.raises(NotAllowed, match="no credentials") as error:
        OciClient({"OCI_CONFIG_FILE": str(tmp_path / "none")}).read(call("get_job", jobId=JOB))
    assert "oci setup config" in error.value.hint
    # before a step is told as begun, and there is nothing that would be taken back
    with pytest.raises(NotAllowed, match=r"none does not exist\n"):
        OciClient({"OCI_CONFIG_FILE": str(tmp_path / "none")}).make_ready(
            Plan(name="j", run_id="abcdefgh", backend="oci")
        )
    with pytest.raises(UsageError, match="no way to sign in"):
        OciClient({"OCI_CLI_AUTH": "magic"}).read(call("get_job", jobId=JOB))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "(\\'Connection aborted.\\', RemoteDisconnected(\\'closed\\')) Request Endpoint: POST https://x",
            "Connection aborted.', RemoteDisconnected('closed')",
        ),
        (
            "x (Caused by NameResolutionError(\"OCIConnection(host=\\'d\\', port=443): Failed to resolve \\'d\\' ([Errno -3] x)\"))",
            "Failed to resolve 'd' ([Errno -3] x)",
        ),
        (
            "x (Caused by NewConnectionError('<urllib3.connection.HTTPSConnection object at 0x7>: [Errno 111] refused'))",
            "[Errno 111] refused",
        ),
    ],
)
def test_a_connection_that_fails_says_why_in_few_words(said, reason):
    import oci

    from cloudtune.clients.oci_errors import told

    error = told(oci.exceptions.RequestException(said), call("create_job"), kind="api_key")
    assert error.message == f"oci.data_science.create_job: the connection failed: {reason}"
