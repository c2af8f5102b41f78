"""The server of stand-ins, with http.client and bare sockets on the other side."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cloudtune.errors import UsageError
from cloudtune.rehearsal import certificates, faults
from cloudtune.rehearsal.certificates import make_certificate
from cloudtune.rehearsal.faults import Fault, Faults
from cloudtune.rehearsal.messages import FilePart, Refused, Request, Response, json_response, text_response
from cloudtune.rehearsal.routes import Route, Service
from cloudtune.rehearsal.server import Server

MIB = 1 << 20


def echo(request: Request) -> Response:
    return Response(headers=(("x-got", request.header("x-sent")),), body=request.body.read())


def serving(server: Server, handler: Callable[[Request], Response] = echo, *, name: str = "echo") -> str:
    methods = ("GET", "PUT", "POST")
    routes = (Route(method=each, template="/{path...}", operation=each.lower(), handler=handler) for each in methods)
    return urlsplit(server.add(Service(name, routes))).netloc


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        yield one


@pytest.fixture
def connect() -> Iterator[Callable[[str], http.client.HTTPConnection]]:
    """Return what opens connections; all are closed after the test."""
    opened: list[http.client.HTTPConnection] = []

    def one(address: str) -> http.client.HTTPConnection:
        opened.append(http.client.HTTPConnection(address, timeout=10))
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


def test_a_connection_carries_one_request_after_another(server: Server, connect: Callable) -> None:
    client = connect(serving(server))
    client.connect()
    first = client.sock.getsockname()
    for number in range(20):
        client.request("PUT", "/x", f"body {number}", {"x-sent": str(number)})
        response = client.getresponse()
        assert (response.status, response.headers["x-got"], response.read()) == (
            200,
            str(number),
            f"body {number}".encode(),
        )
    assert client.sock.getsockname() == first


def test_bodies_in_chunks_come_and_go(server: Server, connect: Callable) -> None:
    def doubled(request: Request) -> Response:
        return Response(body=iter([piece * 2 for piece in request.body]))

    client = connect(serving(server, doubled))
    for _ in range(2):  # the end of the first was found
        client.request(
            "PUT", "/x", iter([b"ab", b"c" * 100_000]), encode_chunked=True, headers={"transfer-encoding": "chunked"}
        )
        response = client.getresponse()
        assert response.headers["transfer-encoding"] == "chunked"
        assert sorted(response.read()) == sorted(b"abab" + b"c" * 200_000)


def exchange(address: str, sent: bytes) -> bytes:
    """Send bytes and return all that comes until the other side closes."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(sent)
        received = b""
        while piece := raw.recv(65536):
            received += piece
        return received


def test_who_waits_for_leave_to_send_gets_it_when_the_body_is_wanted(server: Server) -> None:
    host, port = serving(server).split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"PUT /x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert raw.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"ok")
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_that_is_not_wanted_is_not_asked_for(server: Server) -> None:
    def no(request: Request) -> Response:
        raise Refused(403, "Forbidden", "no")

    address = serving(server, no)
    answer = exchange(address, b"PUT /x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    # who keeps connections would send the next request into one that the server closes
    assert b"connection: close" in answer.lower()


def test_an_unread_body_does_not_become_the_next_request(server: Server, connect: Callable) -> None:
    client = connect(serving(server, lambda request: text_response(request.method)))
    for body in (b"GET /evil HTTP/1.1\r\n\r\n", b"x" * MIB):
        client.request("PUT", "/x", body)
        assert client.getresponse().read() == b"PUT"
    assert [call.method for call in server.record.calls] == ["PUT", "PUT"]


@pytest.mark.parametrize(
    "sent",
    [
        b"PUT /x HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_body_that_cannot_be_read_ends_the_connection(server: Server, sent: bytes) -> None:
    assert exchange(serving(server), sent) == b""
    assert server.record.errors == ()


def test_head_is_get_without_the_body(server: Server, connect: Callable) -> None:
    client = connect(serving(server, lambda request: json_response([1, 2, 3])))
    client.request("HEAD", "/x")
    response = client.getresponse()
    assert (response.status, response.headers["content-length"], response.read()) == (200, "7", b"")
    client.request("GET", "/x")
    assert client.getresponse().read() == b"[1,2,3]"


def test_old_clients_get_the_end_of_a_stream_by_its_close(server: Server) -> None:
    address = serving(server, lambda request: Response(body=iter([b"one ", b"two"])))
    head, _, body = exchange(address, b"GET /x HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert body == b"one two"
    assert b"chunked" not in head


def test_large_bodies_pass_without_being_held(server: Server, tmp_path: Path, connect: Callable) -> None:
    size = 48 * MIB

    def keep(request: Request) -> Response:
        if request.method == "GET":
            return Response(body=FilePart(path=tmp_path / "kept", offset=0, length=size))
        with (tmp_path / "kept").open("wb") as file:
            return text_response(str(request.body.save(file)))

    client = connect(serving(server, keep))
    block = bytes(range(256)) * 256
    digest = hashlib.sha256(block * (MIB // len(block)))
    tracemalloc.start()
    try:
        client.request("PUT", "/x", (block for _ in range(size // len(block))), {"content-length": str(size)})
        assert client.getresponse().read() == str(size).encode()
        client.request("GET", "/x")
        response, received, first = client.getresponse(), 0, hashlib.sha256()
        while piece := response.read(65536):
            received += len(piece)
            if received <= MIB:
                first.update(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (received, first.digest()) == (size, digest.digest())
    assert peak < 4 * MIB
    assert server.record.calls[0].body_bytes == size


def test_a_stream_arrives_piece_by_piece(server: Server, connect: Callable) -> None:
    heard = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"first\n"
        assert heard.wait(10)
        yield b"second\n"

    client = connect(serving(server, lambda request: Response(body=pieces())))
    client.request("GET", "/x")
    response = client.getresponse()
    assert response.readline() == b"first\n"
    heard.set()
    assert response.read() == b"second\n"


def test_a_stream_notices_that_its_client_went_away(server: Server, connect: Callable) -> None:
    closed = threading.Event()

    def pieces(request: Request) -> Iterator[bytes]:
        try:
            yield b"first\n"
            while True:
                time.sleep(0.01)
                yield b""
        finally:
            closed.set()

    client = connect(serving(server, lambda request: Response(body=pieces(request))))
    client.request("GET", "/x")
    client.getresponse().readline()
    client.close()
    assert closed.wait(10)
    assert server.record.errors == ()


def test_stopping_ends_streams_and_lets_answers_finish(connect: Callable) -> None:
    begun = threading.Event()

    def slow(request: Request) -> Response:
        if request.path == "/stream":
            return Response(body=(b"x" * bool(number % 2) for number in iter(int, 1)))
        begun.set()
        time.sleep(0.3)
        return text_response("done")

    server = Server()
    address = serving(server, slow)
    follower, client = connect(address), connect(address)
    follower.request("GET", "/stream")
    stream = follower.getresponse()
    client.request("GET", "/slow")
    assert begun.wait(10)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert client.getresponse().read() == b"done"
    with pytest.raises(http.client.IncompleteRead):
        stream.read()
    stopping.join(10)
    assert not stopping.is_alive()
    with pytest.raises(ConnectionRefusedError):
        connect(address).request("GET", "/")


def test_fifty_clients_at_once(server: Server) -> None:
    address = serving(server)

    def client(number: int) -> int:
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            for each in range(20):
                text = f"{number}.{each}".encode() * 100
                connection.request("PUT", f"/{number}", text)
                assert connection.getresponse().read() == text
        finally:
            connection.close()
        return number

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(client, range(50))) == list(range(50))
    calls = server.record.calls
    assert len(calls) == 1000
    assert sorted(call.number for call in calls) == list(range(1, 1001))


def test_several_services_have_ports_of_their_own(server: Server, connect: Callable) -> None:
    for name in ("one", "two"):
        client = connect(serving(server, lambda request, name=name: text_response(name), name=name))
        client.request("GET", "/")
        assert client.getresponse().read() == name.encode()
    with pytest.raises(UsageError, match="already"):
        serving(server, name="one")
    with pytest.raises(UsageError, match="this machine alone"):
        server.add(Service("three", ()), host="0.0.0.0")


def test_what_has_no_route_is_refused(server: Server, connect: Callable) -> None:
    route = Route(method="GET", template="/jobs/{id}", operation="get_job", handler=lambda _: Response())
    client = connect(urlsplit(server.add(Service("jobs", [route]))).netloc)
    answers = {}
    for method, path in (("GET", "/jobs/"), ("GET", "/jobs/a/b"), ("PUT", "/jobs/a"), ("GET", "/jobs/a")):
        client.request(method, path)
        response = client.getresponse()
        response.read()
        answers[method, path] = (response.status, response.headers["allow"])
    assert list(answers.values()) == [(404, None), (404, None), (405, "GET"), (200, None)]


def test_a_handler_that_fails_is_answered_and_remembered(server: Server, connect: Callable) -> None:
    def wrong(request: Request) -> Response:
        raise ZeroDivisionError("of the stand-in")

    client = connect(serving(server, wrong))
    client.request("GET", "/x")
    response = client.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (500, "InternalError")
    assert len(server.record.errors) == 1
    assert "of the stand-in" in server.record.errors[0]


def test_the_record_keeps_calls_and_no_secret(server: Server, connect: Callable) -> None:
    client = connect(serving(server))
    headers = {"authorization": "Bearer s3cret", "opc-retry-token": "t1", "cookie": "s3cret"}
    client.request("PUT", "/a%20b?limit=5&X-Amz-Signature=s3cret&access_token=s3cret", b"hello", headers)
    client.getresponse().read()
    (call,) = server.record.calls
    assert (call.call, call.method, call.status) == (("echo", "put"), "PUT", 200)
    assert call.target == "/a%20b?limit=5&X-Amz-Signature=***&access_token=***"
    assert (call.body_bytes, call.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert dict(call.headers) == {"content-length": "5", "opc-retry-token": "t1"}
    assert "s3cret" not in server.record.to_json_lines()
    assert json.loads(server.record.to_json_lines())["operation"] == "put"


@pytest.fixture
def faulty(connect: Callable) -> Iterator[Callable[..., tuple[http.client.HTTPConnection, Faults]]]:
    """Return what serves 1,000 bytes with a fault."""
    opened = []

    def one(*plan: Fault, streamed: bool = False) -> tuple[http.client.HTTPConnection, Faults]:
        server = Server(faults=Faults(plan))
        opened.append(server)
        body = (lambda: iter([b"x" * 500, b"y" * 500])) if streamed else (lambda: b"x" * 1000)
        return connect(serving(server, lambda request: Response(body=body()))), server.faults

    yield one
    for server in opened:
        server.stop()


def test_a_refusal_comes_once_with_its_headers(faulty: Callable) -> None:
    client, plan = faulty(faults.refused("echo", status=429, headers=(("retry-after", "1"),)))
    for status in (429, 200):
        client.request("GET", "/x")
        response = client.getresponse()
        assert (response.status, response.headers["retry-after"]) == (status, "1" if status == 429 else None)
        assert (status == 429) == (b"TooManyRequests" in response.read())
    assert [(fired.operation, fired.number) for fired in plan.fired] == [("get", 1)]


@pytest.mark.parametrize(("after", "received"), [(None, 500), (0, 0), (700, 700)])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_is_cut_in_the_middle(after: int | None, received: int, streamed: bool, faulty: Callable) -> None:
    client, _ = faulty(faults.cut("echo", after_bytes=after), streamed=streamed)
    client.request("GET", "/x")
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.getresponse().read()
    assert len(caught.value.partial) == (received if not streamed or received != 700 else 500)
    client.close()
    client.request("GET", "/x")
    assert len(client.getresponse().read()) == 1000


def test_a_lost_reply_was_carried_out(connect: Callable) -> None:
    done = []
    with Server(faults=Faults([faults.lost("echo")])) as server:
        client = connect(serving(server, lambda request: done.append(request.path) or text_response("ok")))
        client.request("POST", "/x")
        with pytest.raises(http.client.RemoteDisconnected):
            client.getresponse()
        assert done == ["/x"]
        client.request("POST", "/x")
        assert client.getresponse().read() == b"ok"
        assert [call.status for call in server.record.calls] == [0, 200]


def test_slowness_goes_with_other_faults(faulty: Callable) -> None:
    client, plan = faulty(faults.slow("echo", seconds=0.2), faults.expired("echo", "get"), faults.lost("echo"))
    client.request("GET", "/x")
    started = time.monotonic()
    response = client.getresponse()
    assert (response.status, b'"Expired"' in response.read()) == (401, True)
    assert time.monotonic() - started > 0.1
    assert [fired.fault.kind for fired in plan.fired] == ["slow", "expired"]
    assert [fault.kind for fault in plan.left()] == ["lost"]


def test_clients_that_try_again_see_each_fault_once(faulty: Callable) -> None:
    urllib3 = pytest.importorskip("urllib3")
    plan = [
        faults.refused("echo", status=503),
        faults.lost("echo", numbers=(2,)),
        faults.refused("echo", status=429, numbers=(3,)),
    ]
    client, fired = faulty(*plan)
    retry = urllib3.Retry(total=5, backoff_factor=0, status_forcelist=[429, 503])
    with urllib3.PoolManager(retries=retry) as pool:
        response = pool.request("GET", f"http://{client.host}:{client.port}/x")
        assert (response.status, len(response.data)) == (200, 1000)
    assert [each.number for each in fired.fired] == [1, 2, 3]


def test_other_clients_see_a_cut_too(faulty: Callable) -> None:
    urllib3 = pytest.importorskip("urllib3")
    client, _ = faulty(faults.cut("echo"))
    with urllib3.PoolManager(retries=False) as pool, pytest.raises(urllib3.exceptions.ProtocolError):
        pool.request("GET", f"http://{client.host}:{client.port}/x")


def test_a_service_may_speak_tls(tmp_path: Path) -> None:
    made = make_certificate()
    trusts = ssl.create_default_context(cadata=made.pem.decode())
    left = threading.Event()

    def endless(request: Request) -> Response:
        def pieces() -> Iterator[bytes]:
            try:
                while True:
                    yield b"x"
                    yield b""
                    time.sleep(0.01)
            finally:
                left.set()

        return Response(body=pieces())

    with Server() as server:
        routes = [Route(method="PUT", template="/echo", operation="echo", handler=echo)]
        routes.append(Route(method="GET", template="/endless", operation="endless", handler=endless))
        url = urlsplit(server.add(Service("tls", routes), tls=made.context(tmp_path)))
        assert url.scheme == "https"
        connection = http.client.HTTPSConnection(url.netloc, context=trusts, timeout=60)
        for number in range(2):
            connection.request("PUT", "/echo", body=bytes([number]) * MIB)
            assert connection.getresponse().read() == bytes([number]) * MIB
        connection.request("GET", "/endless")
        response = connection.getresponse()
        assert response.read(3) == b"xxx"
        response.close()
        connection.close()
        assert left.wait(60), "it was not seen that the client went away"
        plain = http.client.HTTPConnection(url.netloc, timeout=60)
        plain.request("GET", "/echo")
        with pytest.raises((OSError, http.client.HTTPException)):
            plain.getresponse()
        plain.close()
        stranger = http.client.HTTPSConnection(url.netloc, context=ssl.create_default_context(), timeout=60)
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.request("GET", "/echo")
        stranger.close()
        assert server.record.errors == ()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")
def test_certificates_are_made_without_the_library_too(tmp_path: Path) -> None:
    made = certificates._by_command(str(shutil.which("openssl")))
    assert ssl.create_default_context(cadata=made.pem.decode()).cert_store_stats()["x509_ca"] == 1
    assert made.context(tmp_path).minimum_version >= ssl.TLSVersion.TLSv1_2
