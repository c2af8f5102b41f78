"""Prove that a server does what a deployment needs: healthy, names its model, answers whole and in pieces.

    python3 smoke_test.py [URL]        # default: http://127.0.0.1:8080

Exits with 0 and one line a proof, or with the traceback of what is broken. Waits up to ten minutes for the server.
"""

import json
import sys
import time
import urllib.error
import urllib.request

PATIENCE_S = 600.0
LOOK_S = 1.0
# a proxy of the surroundings has no business on the way to a server that is tried
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wait(url):
    """Return the seconds until the server is healthy."""
    start = time.monotonic()
    while True:
        try:
            with OPENER.open(f"{url}/health", timeout=10) as reply:
                assert reply.status == 200, reply.status
                return time.monotonic() - start
        except (urllib.error.URLError, OSError):
            if time.monotonic() - start > PATIENCE_S:
                raise
            time.sleep(LOOK_S)


def served(url):
    """Return the name under which the model answers."""
    with OPENER.open(f"{url}/v1/models", timeout=60) as reply:
        return json.load(reply)["data"][0]["id"]


def ask(url, model, *, stream):
    """Return the open answer to a question."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 16,
        "temperature": 0,
        "stream": stream,
    }
    headers = {"content-type": "application/json"}
    call = urllib.request.Request(  # noqa: S310 - the URL is the caller's own
        f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    return OPENER.open(call, timeout=300)


def pieces(reply):
    """Yield what the server says, piece by piece; its last word must be that it is done."""
    done = False
    for raw in reply:
        line = raw.decode().strip()
        if line == "data: [DONE]":
            done = True
        elif line.startswith("data:"):
            for choice in json.loads(line[5:]).get("choices", ()):
                yield (choice.get("delta") or {}).get("content") or ""
    assert done, "the stream broke off"


def main(url):
    """Run all proofs."""
    print(f"healthy after {wait(url):.0f} s")
    model = served(url)
    print(f"serves {model}")
    with ask(url, model, stream=False) as reply:
        whole = json.load(reply)["choices"][0]["message"]["content"]
    assert whole, "the answer is empty"
    print(f"answers: {whole!r}")
    with ask(url, model, stream=True) as reply:
        said = list(pieces(reply))
    assert len(said) > 1, f"it does not stream: {said}"
    print(f"streams: {len(said)} pieces")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8080")
