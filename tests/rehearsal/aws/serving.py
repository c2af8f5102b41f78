"""A server that takes no model to start: it says again what it was asked, word by word."""

from __future__ import annotations

#: A program for ``python3 -c`` on a node: chats and texts in OpenAI's forms, at the node's own address.
ECHO = """
import json, os, socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "/opt/ml/model"
print("serving", sorted(os.listdir(MODEL)), flush=True)
assert os.path.exists(MODEL + "/config.json")

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
        if asked.get("unknown"):
            self.say(400, {"message": "unknown is not known"})
            return
        chat = "messages" in asked
        content = asked["messages"][-1]["content"] if chat else asked["prompt"]
        if isinstance(content, list):
            content = " ".join(one["type"] for one in content)
        words = content.split(" ")
        rest = {"finish_reason": "stop"}
        if not asked.get("stream") or "slow" in words:
            text = " ".join(words)
            said = {"message": {"content": text}} if chat else {"text": text}
            usage = {"prompt_tokens": 2, "completion_tokens": 3}
            self.say(200, {"choices": [{**said, **rest}], "usage": usage, "variables": dict(os.environ)})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, word in enumerate(words):
            text = (" " if number else "") + word
            one = {"delta": {"content": text}} if chat else {"text": text}
            self.chunk(f"data: {json.dumps({'choices': [one]})}\\n\\n".encode())
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
COMMAND = ("python3", "-c", ECHO)
