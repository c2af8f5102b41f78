"""HTTP/1.1 on loopback for the services of a stand-in: a thread a connection, standard library alone.

A service speaks TLS only where its clients insist on it, and are told whom to trust: the others take an ``http://``
endpoint, and a certificate would need the user's trust.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import socketserver
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.rehearsal.faults import Fault, Faults
from cloudtune.rehearsal.messages import Body, Refused, Request, Response
from cloudtune.rehearsal.record import Record, Recorded, kept_headers, kept_target
from cloudtune.rehearsal.routes import Service
from cloudtune.rehearsal.wire import BodyReader, Cut, Sending

#: Seconds between two looks of a listener whether it is to stop.
_LOOK_S = 0.05
_STATUSES = {int(status) for status in HTTPStatus}
#: Seconds for the threads of closed connections to end.
_CLOSE_S = 5.0
#: Seconds for a client to come to terms about TLS.
_HANDSHAKE_S = 30.0


@attrs.define(kw_only=True)
class _Call:
    """What is known so far of a call that is being answered."""

    service: str
    operation: str = ""
    number: int = 0
    faults: tuple[Fault, ...] = ()
    started_s: float
    remembered: bool = False

    def meets(self, kind: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.kind == kind), None)


class _Connection(BaseHTTPRequestHandler):
    """A client's connection, from its first request to its last."""

    protocol_version = "HTTP/1.1"
    server_version = "cloudtune-rehearsal"
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Say nothing: the record has every call."""

    def parse_request(self) -> bool:
        """Read the head of a request."""
        self._waits = False
        return super().parse_request()

    def handle_expect_100(self) -> bool:
        """Let the client wait until its body is wanted."""
        self._waits = True
        return True

    def _go_on(self) -> None:
        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self) -> None:
        """Answer one request, as far as its faults let it come."""
        call = _Call(service=self.server.service.name, started_s=time.time())
        reader = BodyReader(self.rfile, self.headers, go_on=self._go_on if self._waits else None)  # type: ignore[arg-type]
        body = Body(reader.read)
        request = Request(
            method=self.command, target=self.path, headers=self.headers, body=body, alive=self._is_awaited
        )
        with self.server.counting(self):
            try:
                response = self.server.respond(request, call)
                # said in the answer: a client would send its next request into a connection that goes
                self.close_connection = self.close_connection or reader.must_close
                self._send(request, response, call)
                self.close_connection = self.close_connection or not reader.drain()
            except (ConnectionError, ssl.SSLError):
                self.close_connection = True
            except Exception:  # noqa: BLE001 - a generator of the stand-in failed in the middle of its answer
                self.server.record.add_error(traceback.format_exc())
                self.close_connection = True
            finally:
                self.server.remember(request, call, 0)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815 - the parent's names

    def _send(self, request: Request, response: Response, call: _Call) -> None:
        cut = call.meets("cut")
        limit = None if cut is None else (-1 if cut.after_bytes is None else cut.after_bytes)
        chunks = self.request_version != "HTTP/1.0"
        sending = Sending(response, head_only=self.command == "HEAD", chunks=chunks, cut=limit)
        try:
            silent = call.meets("lost") or sending.nothing_to_cut
            # before the answer: who has got it finds the call in the record
            self.server.remember(request, call, 0 if silent else response.status)
            if silent:
                raise Cut("a fault")
            if sending.until_close:
                self.close_connection = True
            head = self._head(response, sending)
            pieces = sending.pieces(self._is_awaited) if sending.has_body else iter(())
            if isinstance(response.body, bytes):
                head += next(pieces, b"")  # one packet for a short answer
            self.connection.sendall(head)
            for piece in pieces:
                self.connection.sendall(piece)
        finally:
            sending.close()

    def _head(self, response: Response, sending: Sending) -> bytes:
        phrase = HTTPStatus(response.status).phrase if response.status in _STATUSES else "Rehearsed"
        rows = [f"HTTP/1.1 {response.status} {phrase}"]
        names = {name.lower() for name, _ in response.headers}
        ours = [("server", self.server_version), ("date", self.date_time_string())]
        if self.close_connection:
            ours.append(("connection", "close"))
        headers = [*(pair for pair in ours if pair[0] not in names), *response.headers, *sending.framing]
        rows += [f"{name}: {value}" for name, value in headers]
        if any("\r" in row or "\n" in row for row in rows):
            raise ValueError("a header holds the end of a line")
        return ("\r\n".join(rows) + "\r\n\r\n").encode("latin-1", "replace")

    def _is_awaited(self) -> bool:
        if self.server.stopping.is_set():
            return False
        try:
            if not select.select([self.connection], [], [], 0)[0]:
                return True
            if isinstance(self.connection, ssl.SSLSocket):
                return False  # what comes while an answer is awaited says that nobody waits any more
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except (OSError, ValueError):
            return False


class _Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One port, with one service behind it."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self,
        service: Service,
        address: tuple[str, int],
        faults: Faults,
        record: Record,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.service, self.faults, self.record, self.tls = service, faults, record, tls
        self.stopping = threading.Event()
        self._change = threading.Condition()
        self._open: set[socket.socket] = set()
        self._busy: set[_Connection] = set()
        super().__init__(address, _Connection)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_LOOK_S,), name=f"rehearsed {service.name}", daemon=True
        )
        self._thread.start()

    def respond(self, request: Request, call: _Call) -> Response:
        """Find out what a request is, and let its faults or its handler answer it."""
        try:
            route = self.service.find(request)
            call.service, call.operation = route.service or self.service.name, route.operation
            call.number, call.faults = self.faults.call(call.service, call.operation)
            for fault in call.faults:
                self._carry_out(fault)
            self.service.admit(request, route)
            return route.handler(request)
        except Refused as why:
            return self.service.refuse(request, why)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of the stand-in must be seen, and answered
            self.record.add_error(traceback.format_exc())
            message = f"rehearsed {self.service.name} failed: {error!r}"
            return self.service.refuse(request, Refused(500, "InternalError", message))

    def _carry_out(self, fault: Fault) -> None:
        if fault.kind == "slow":
            self.stopping.wait(fault.seconds)
        if fault.kind in ("refused", "expired"):
            code = fault.code or (
                "Expired" if fault.kind == "expired" else HTTPStatus(fault.status).phrase.replace(" ", "")
            )
            message = f"rehearsed fault: {fault.kind}"
            raise Refused(fault.status, code, message, headers=fault.headers)

    def remember(self, request: Request, call: _Call, status: int) -> None:
        """Write a call into the record, once."""
        if call.remembered:
            return
        call.remembered = True
        self.record.add(
            Recorded(
                service=call.service,
                operation=call.operation,
                number=call.number,
                method=request.method,
                target=kept_target(request),
                headers=kept_headers(request),
                body_bytes=request.body.length,
                sha256=request.body.sha256,
                status=status,
                faults=tuple(fault.kind for fault in call.faults),
                time_s=call.started_s,
                seconds=time.time() - call.started_s,
            )
        )

    @contextlib.contextmanager
    def counting(self, connection: _Connection) -> Iterator[None]:
        """Count a connection among those that are being answered."""
        with self._change:
            self._busy.add(connection)
        try:
            yield
        finally:
            with self._change:
                self._busy.discard(connection)
                self._change.notify_all()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Keep a connection in mind while it is open."""
        if self.tls is not None:
            try:
                request.settimeout(_HANDSHAKE_S)
                request = self.tls.wrap_socket(request, server_side=True)
                request.settimeout(None)
            except (OSError, ValueError):  # whoever it is does not trust the certificate, or speaks no TLS
                self.shutdown_request(request)
                return
        with self._change:
            self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._change:
                self._open.discard(request)
                self._change.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Remember what went wrong outside of any handler; a client that went away is no error."""
        text = traceback.format_exc()
        if (
            "ssl.SSL" not in text
            and "ConnectionError" not in text
            and "ConnectionResetError" not in text
            and "BrokenPipeError" not in text
        ):
            self.record.add_error(text)

    def stop(self, grace_s: float) -> None:
        """Take no more connections, let what is being answered come to its end, and close all."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self._thread.join()
        with self._change:
            self._change.wait_for(lambda: not self._busy, grace_s)
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._change.wait_for(lambda: not self._open, _CLOSE_S)


class Server:
    """The services of a stand-in, each on a port of its own; leaving the block stops them.

    All share one plan of faults and one record.
    """

    def __init__(self, *, faults: Faults | None = None, record: Record | None = None) -> None:
        self.faults = faults or Faults()
        self.record = record or Record()
        self._listeners: dict[str, _Listener] = {}

    def add(
        self, service: Service, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> str:
        """Begin to serve; return the URL, without a slash at its end."""
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise UsageError(f"a rehearsal serves this machine alone, not {host}", hint="name a loopback address")
        if service.name in self._listeners:
            raise UsageError(f"there is a service {service.name} already", hint="give it another name")
        self._listeners[service.name] = _Listener(service, (host, port), self.faults, self.record, tls)
        return self.url(service.name)

    def url(self, name: str) -> str:
        """Return where a service answers."""
        listener = self._listeners[name]
        host, port = listener.server_address[:2]
        return f"{'http' if listener.tls is None else 'https'}://{host!s}:{port}"

    def stop(self, *, grace_s: float = 1.0) -> None:
        """Stop all services; answers that are under way have so long to come to their end."""
        for listener in self._listeners.values():
            listener.stopping.set()
        for listener in self._listeners.values():
            listener.stop(grace_s)
        self._listeners.clear()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
