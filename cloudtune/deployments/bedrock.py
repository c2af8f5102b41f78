"""What a model answers that was imported into Amazon Bedrock: nothing needs to be deployed.

A prompt goes by Converse, and where the model does not take that, in OpenAI's form, and else in Llama's own. A body is
sent in the form that it is in. A model that was not asked for a while is loaded first, which takes minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import attrs

from cloudtune.clients.aws import AwsClient
from cloudtune.deployments.questions import check_question
from cloudtune.errors import CloudtuneError, ServiceError
from cloudtune.pauses import Pauses
from cloudtune.plan import Call

SCHEME = "bedrock-model://"
SERVICE = "aws.bedrock_runtime"
#: Seconds for which a model that is not loaded is waited for.
PATIENCE_S = 900.0
#: Times that an answer in one piece is asked for, where it breaks off.
_TRIES = 3
_NOT_READY, _NOT_TAKEN = "ModelNotReadyException", "ValidationException"
Show = Callable[[str], object]


@attrs.frozen(kw_only=True)
class ImportedModel:
    """A model that was imported into Bedrock."""

    name: str
    uri: str

    @property
    def arn(self) -> str:
        """What the service calls it."""
        return self.uri.removeprefix(SCHEME)


def from_details(details: Mapping[str, Any]) -> ImportedModel:
    """Return a model from what its record says."""
    return ImportedModel(name=str(details["name"]), uri=str(details["uri"]))


def invoke(
    deployment: ImportedModel,
    prompt: str | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    show: Show | None = None,
) -> str:
    """Ask the model and return its answer: a prompt, or a whole body in Llama's, OpenAI's or Converse's form.

    With ``show`` the pieces of the answer are handed over as they come.

    Raises:
        UsageError: a prompt and a body are given, or none of them.
        NotAllowed: it may not be asked.
        ServiceError: there is no such model, it refuses the request, or the way to it failed.
    """
    check_question(prompt, body)
    asking = _Asking(AwsClient(), deployment.arn, show)
    if body is not None:
        return asking.ask(body)
    forms: tuple[dict[str, Any], ...] = (
        {"messages": [{"role": "user", "content": [{"text": prompt}]}]},
        {"messages": [{"role": "user", "content": prompt}]},
        {"prompt": prompt},
    )
    refused: CloudtuneError | None = None
    for form in forms:
        try:
            return asking.ask(form)
        except ServiceError as error:
            if _NOT_TAKEN not in error.message or asking.shown:
                raise
            refused = refused or error
    assert refused is not None
    raise refused


class _Asking:
    """Requests to one model; ``shown`` says whether a piece of an answer was handed over."""

    def __init__(self, client: AwsClient, arn: str, show: Show | None) -> None:
        self._client, self._arn, self._show = client, arn, show
        self.shown = False

    def ask(self, body: Mapping[str, Any]) -> str:
        """Return the answer to a body."""
        streams = self._show is not None or bool(body.get("stream"))
        sent = {key: value for key, value in body.items() if key != "stream"}
        if _is_conversation(sent):
            reply = self._ready("converse_stream" if streams else "converse", **sent)
            return self._heard(reply["stream"], _conversed) if streams else _text_of(reply["output"]["message"])
        data = json.dumps(sent).encode()
        if streams:
            reply = self._ready("invoke_model_with_response_stream", body=data)
            return self._heard(reply["body"], _invoked)
        return _answer_in(json.loads(self._whole(data)))

    def _whole(self, data: bytes) -> bytes:
        """Return an answer in one piece, asked for again where it breaks off."""
        for _ in range(_TRIES - 1):
            with suppress(ConnectionError):
                return self._read(data)
        with _told("invoke_model"):
            return self._read(data)

    def _read(self, data: bytes) -> bytes:
        stream = self._ready("invoke_model", body=data)["body"]
        try:
            return bytes(stream.read())
        except Exception as error:  # whatever broke off the connection
            raise ConnectionError(str(error)) from error
        finally:
            stream.close()

    def _ready(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """Return the reply to a request, sent again until the model is loaded."""
        pauses = Pauses(self._client, PATIENCE_S)
        call = Call(service=SERVICE, operation=operation, parameters={"modelId": self._arn, **parameters})
        while True:
            try:
                return self._client.read(call)
            except ServiceError as error:
                if _NOT_READY not in error.message:
                    raise
                if pauses.over:
                    error.hint = f"the model was not loaded within {PATIENCE_S:.0f} s: ask it again later"
                    raise
            pauses.wait()

    def _heard(self, stream: Any, read: Callable[[Mapping[str, Any]], str]) -> str:
        """Return all of an answer that comes in pieces."""
        pieces = []
        for piece in _pieces(stream, read):
            pieces.append(piece)
            self.shown = True
            if self._show is not None:
                self._show(piece)  # what fails there breaks off no answer
        return "".join(pieces)


def _pieces(stream: Any, read: Callable[[Mapping[str, Any]], str]) -> Iterator[str]:
    """Yield the pieces of an answer."""
    try:
        with _told("stream"):
            yield from filter(None, map(read, stream))
    finally:
        stream.close()


@contextmanager
def _told(operation: str) -> Iterator[None]:
    """Turn what breaks off an answer into an error that says so."""
    try:
        yield
    except CloudtuneError:
        raise
    except Exception as error:  # whatever broke off the connection
        message = f"the answer broke off: {' '.join(str(error).split())[:300]}"
        raise ServiceError(message, service=SERVICE, operation=operation, hint="ask again") from error


def _is_conversation(body: Mapping[str, Any]) -> bool:
    """Whether a body is Converse's: its messages are lists of parts that are told apart by their keys."""
    messages = body.get("messages")
    contents = [one.get("content") for one in messages or () if isinstance(one, Mapping)]
    return bool(contents) and all(
        isinstance(content, list) and all(isinstance(part, Mapping) and "type" not in part for part in content)
        for content in contents
    )


def _conversed(event: Mapping[str, Any]) -> str:
    return str(event.get("contentBlockDelta", {}).get("delta", {}).get("text") or "")


def _invoked(event: Mapping[str, Any]) -> str:
    data = event.get("chunk", {}).get("bytes")
    return _answer_in(json.loads(data)) if data else ""


def _text_of(message: Mapping[str, Any]) -> str:
    return "".join(str(part.get("text") or "") for part in message.get("content", ()))


def _answer_in(said: Any) -> str:
    """Return the answer, or a piece of one, in what a model said: in Llama's own form or one of OpenAI's."""
    if not isinstance(said, Mapping):
        return ""
    for choice in said.get("choices", ()):
        part = choice.get("message") or choice.get("delta")
        return str((part.get("content") if part is not None else choice.get("text")) or "")
    for form in ("outputs", "content"):  # Mistral's
        for one in said.get(form) or ():
            return str(one.get("text") or "") if isinstance(one, Mapping) else ""
    return str(said.get("generation") or "")
