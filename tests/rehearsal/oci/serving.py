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

#: A program for ``python3 -c`` that answers chats as vLLM does: it repeats what it was asked, word by word. Its command
#: line is vLLM's, or in the service's own image the variables.
CHAT = """
import argparse, json, os, shlex, socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("--served-model-name")
parser.add_argument("--model", default="/opt/ds/model/deployed_model/" + os.environ.get("BASE_MODEL", ""))
known, _ = parser.parse_known_args(sys.argv[1:] or shlex.split(os.environ.get("PARAMS", "")))
print("serving", known.model, sorted(os.listdir(known.model)), flush=True)
assert os.path.exists(os.path.join(known.model, "config.json")), known.model

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def say(self, status, data):
        data = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.say(200, {})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked["model"] != known.served_model_name:
            self.say(404, {"code": "NotFoundError", "message": f"The model {asked['model']} does not exist."})
            return
        content = asked["messages"][-1]["content"]
        if isinstance(content, list):
            content = " ".join(one["type"] for one in content)
        words = content.split(" ")
        if not asked.get("stream") or "slow" in words:
            self.say(200, {"choices": [{"message": {"content": " ".join(words)}}]})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, word in enumerate(words):
            piece = {"choices": [{"delta": {"content": (" " if number else "") + word}}]}
            self.chunk(f"data: {json.dumps(piece)}\\n\\n".encode())
            if word == "break":
                self.close_connection = True
                return
        self.chunk(b"data: [DONE]\\n\\n")
        self.wfile.write(b"0\\r\\n\\r\\n")
    def chunk(self, piece):
        self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(piece), piece))
        self.wfile.flush()

ThreadingHTTPServer((socket.gethostbyname(socket.gethostname()), 8080), Handler).serve_forever()
"""
