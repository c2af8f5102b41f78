"""What a model deployment on OCI answers: OpenAI's chat completions through requests that the SDK signs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloudtune.errors import CloudtuneError, ServiceError
from cloudtune.plan import Call
from cloudtune.submit import Client

SERVICE = "oci.model_deployment"
WHOLE, STREAM = "predict", "predict_with_response_stream"
#: What the service says of a server that answers in one piece where pieces were asked for.
_NO_STREAM = "ExternalServerIncorrectState"


def answer(client: Client, deployment: str, asked: Mapping[str, Any], show: Callable[[str], object] | None) -> str:
    """Return what the model says; pieces of it are shown as they come. In one piece the service waits a minute at most.

    Raises:
        NotAllowed: the deployment does not exist, does not answer yet, or may not be asked.
        ServiceError: the server refuses the request, or the way to it failed.
    """
    if show is None and not asked.get("stream"):
        return _whole(client, deployment, asked)
    pieces: list[str] = []
    try:
        for piece in _pieces(client, deployment, {**asked, "stream": True}):
            pieces.append(piece)
            if show is not None:
                show(piece)
    except ServiceError as error:
        if _NO_STREAM not in error.message or pieces:
            raise
        pieces = [_whole(client, deployment, {**asked, "stream": False})]
        if show is not None:
            show(pieces[0])
    return "".join(pieces)


def _whole(client: Client, deployment: str, asked: Mapping[str, Any]) -> str:
    said = client.read(_call(WHOLE, deployment, asked)).get("items")
    try:
        data: Any = json.loads(said) if isinstance(said, str) else said
        return str(data["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError):
        raise _failed(WHOLE, f"unexpected reply: {str(said)[:500]}") from None


def _pieces(client: Client, deployment: str, asked: Mapping[str, Any]) -> Iterator[str]:
    """Yield the pieces of an answer as the server sends them."""
    reply = client.read(_call(STREAM, deployment, asked))
    if "events" not in reply:
        raise _failed(STREAM, f"{_NO_STREAM}: no events came")
    try:
        for event in reply["events"].events():
            if event.data == "[DONE]":
                return
            yield from _pieces_of(event.data)
    except CloudtuneError:
        raise
    except Exception as error:  # whatever broke off the stream
        message = f"the answer broke off: {' '.join(str(error).split())[:300]}"
        raise _failed(STREAM, message, hint="ask again") from error
    finally:
        reply["events"].close()


def _pieces_of(event: str) -> Iterator[str]:
    data = json.loads(event)
    if "error" in data:
        raise _failed(STREAM, str(data["error"]))
    for choice in data.get("choices", ()):
        piece = (choice.get("delta") or {}).get("content")
        if piece:
            yield str(piece)


def _call(operation: str, deployment: str, asked: Mapping[str, Any]) -> Call:
    return Call(
        service=SERVICE,
        operation=operation,
        parameters={"modelDeploymentId": deployment, "requestBody": dict(asked)},
    )


def _failed(operation: str, why: str, *, hint: str | None = None) -> ServiceError:
    return ServiceError(why, service=SERVICE, operation=operation, hint=hint)
