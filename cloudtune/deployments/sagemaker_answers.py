"""What an endpoint of SageMaker answers: OpenAI's chat completions, whole or in the pieces of a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cloudtune.errors import CloudtuneError, ServiceError
from cloudtune.plan import Call
from cloudtune.submit import Client

SERVICE = "aws.sagemaker_runtime"
#: Times that an answer in one piece is asked for, where it breaks off.
_TRIES = 3
WHOLE, STREAM = "invoke_endpoint", "invoke_endpoint_with_response_stream"


class _BrokenOff(Exception):
    """An answer did not come to its end."""


def answer(
    client: Client, endpoint: str, region: str, asked: Mapping[str, Any], show: Callable[[str], object] | None
) -> str:
    """Return what the model says; pieces of it are shown as they come.

    Raises:
        NotAllowed: it may not be asked.
        ServiceError: there is no such endpoint, the server refuses the request, or the way to it failed.
    """
    streams = show is not None or bool(asked.get("stream"))
    body = json.dumps({**asked, "stream": True} if streams else dict(asked)).encode()
    parameters = {"EndpointName": endpoint, "ContentType": "application/json", "Body": body}
    call = Call(service=SERVICE, operation=STREAM if streams else WHOLE, parameters=parameters, region=region)
    for left in range(_TRIES - 1, -1, -1):
        try:
            return _streamed(client, call, show) if streams else _whole(_read(client, call))
        except _BrokenOff as error:  # what is shown already cannot be asked for again
            if streams or not left:
                raise _failed(call.operation, f"the answer broke off: {error}", hint="ask again") from error
    raise AssertionError


def _read(client: Client, call: Call) -> bytes:
    """Return an answer in one piece; _BrokenOff where it breaks off."""
    with _open(client, call) as stream:
        return bytes(stream.read())


def _streamed(client: Client, call: Call, show: Callable[[str], object] | None) -> str:
    pieces = []
    for piece in _heard(client, call):
        pieces.append(piece)
        if show is not None:
            show(piece)  # what fails there breaks off no answer
    return "".join(pieces)


def _heard(client: Client, call: Call) -> Iterator[str]:
    with _open(client, call) as stream:
        yield from _pieces(stream)


@contextmanager
def _open(client: Client, call: Call) -> Iterator[Any]:
    """Give the body of an answer; whatever breaks it off is a _BrokenOff."""
    stream = client.read(call)["Body"]
    try:
        yield stream
    except CloudtuneError:
        raise
    except Exception as error:
        raise _BrokenOff(" ".join(str(error).split())[:300]) from error
    finally:
        stream.close()


def _whole(data: bytes) -> str:
    try:
        said = json.loads(data)
        return str(said["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError):
        text = data.decode(errors="replace")[:500]
        raise _failed(WHOLE, f"unexpected reply: {text}") from None


def _pieces(stream: Any) -> Iterator[str]:
    """Yield the pieces of an answer: parts of the payload end anywhere, also within a letter."""
    left, heard = b"", False
    for part in stream:
        left += part.get("PayloadPart", {}).get("Bytes", b"")
        while b"\n" in left and (heard or left.lstrip().startswith((b"data:", b":"))):
            line, _, left = left.partition(b"\n")
            text = line.strip()
            if not text.startswith(b"data:"):
                continue
            heard = True
            text = text.removeprefix(b"data:").strip()
            if text == b"[DONE]":
                return
            yield from _pieces_of(json.loads(text))
    if heard:
        raise _BrokenOff("the server ended it")
    yield _whole(left)  # a server that answers in one piece


def _pieces_of(event: Any) -> Iterator[str]:
    if "error" in event:
        raise _failed(STREAM, str(event["error"]))
    for choice in event.get("choices", ()):
        piece = (choice.get("delta") or {}).get("content")
        if piece:
            yield str(piece)


def _failed(operation: str, why: str, *, hint: str | None = None) -> ServiceError:
    return ServiceError(why, service=SERVICE, operation=operation, hint=hint)
