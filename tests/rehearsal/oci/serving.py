"""A server that takes no model to start: it says what it was asked, and streams where it is told to."""

from __future__ import annotations

#: A program for ``python3 -c`` on a node: it listens at the node's own address.
SERVER = """
import json, os, socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def say(self, data, kind="application/json"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.say(b"{}")
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])) or "{}")
        if asked.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for line in ['{"n": 0}', '{"n": 1}', "[DONE]"]:
                piece = f"data: {line}\\n\\n".encode()
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(piece), piece))
            self.wfile.write(b"0\\r\\n\\r\\n")
            return
        model = sorted(os.listdir("/opt/ds/model/deployed_model"))
        said = {"path": self.path, "asked": asked, "model": model, "host": socket.gethostname()}
        self.say(json.dumps({**said, "ocid": os.environ["MODEL_DEPLOYMENT_OCID"]}).encode())

ThreadingHTTPServer((socket.gethostbyname(socket.gethostname()), 8080), Handler).serve_forever()
"""
