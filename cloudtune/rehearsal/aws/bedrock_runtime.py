"""Bedrock's runtime for imported models: a model that nobody has asked for a while is cold, and not ready.

Sources: "Invoke your imported model" and the pages on its forms of requests.
"""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.event_streams import KIND, broken, event
from cloudtune.rehearsal.aws.imports import MODEL, Imports
from cloudtune.rehearsal.aws.serving import Answer, Framed, Serving, Unservable, said_events, server
from cloudtune.rehearsal.aws.speech import invalid
from cloudtune.rehearsal.messages import Refused, Response, json_response

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed

#: Seconds of this machine in which a model must be loaded, and in which it must answer.
_LOADED_S, _ANSWER_S = 300.0, 300.0
_NAME = "model"
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
#: OpenAI's words by the ones of the bodies in Llama's own form.
_LLAMA = {"prompt": "prompt", "max_gen_len": "max_tokens", "temperature": "temperature", "top_p": "top_p"}
_INFERENCE = {"maxTokens": "max_tokens", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop"}
_REASONS = {"stop": "end_turn", "length": "max_tokens"}
#: Turns the words of the server, whole or a part of a stream, into those of one form of requests.
Told = Callable[[Mapping[str, Any]], dict[str, Any]]


class BedrockRuntime:
    """The operations that ask imported models."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self.imports = cloud.part(Imports)
        #: What a node runs in place of vLLM's substitute, for whoever stages a rehearsal.
        self.command: tuple[str, ...] = ()
        self._warm: dict[str, Serving] = {}
        self._loading: set[str] = set()
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()
        self.operations: Mapping[str, Deed] = {
            "InvokeModel": self.invoke,
            "InvokeModelWithResponseStream": self.invoke_in_pieces,
            "Converse": self.converse,
            "ConverseStream": self.converse_in_pieces,
        }

    def invoke(self, given: Mapping[str, Any], asked: Asked) -> Response:
        """Answer a body in Llama's form or one of OpenAI's."""
        path, body, told = _read(given)
        said = _whole(self._ask(given, asked, path, body))
        return json_response(told(said), headers=_headers())

    def invoke_in_pieces(self, given: Mapping[str, Any], asked: Asked) -> Response:
        """Answer the same as it comes."""
        path, body, told = _read(given)
        answer = _in_pieces(self._ask(given, asked, path, {**body, "stream": True}))

        def events() -> Iterator[bytes]:
            for one in _heard(answer):
                if isinstance(one, bytes):
                    yield one
                    return
                data = json.dumps(told(one)).encode()
                yield event("chunk", {"bytes": base64.b64encode(data).decode()})

        headers = (("content-type", KIND), ("x-amzn-bedrock-content-type", "application/json"))
        return Response(headers=headers, body=Framed(events(), answer))

    def converse(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Answer a conversation."""
        said = _whole(self._ask(given, asked, _CHAT, self._conversation(given, asked)))
        (choice, *_), usage = said["choices"], said.get("usage") or {}
        tokens = (int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
        text = choice["message"].get("content") or ""
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": _REASONS.get(str(choice.get("finish_reason")), "end_turn"),
            "usage": {"inputTokens": tokens[0], "outputTokens": tokens[1], "totalTokens": sum(tokens)},
            "metrics": {"latencyMs": 1},
        }

    def converse_in_pieces(self, given: Mapping[str, Any], asked: Asked) -> Response:
        """Answer a conversation as it comes."""
        body = {**self._conversation(given, asked), "stream": True}
        answer = _in_pieces(self._ask(given, asked, _CHAT, body))

        def events() -> Iterator[bytes]:
            reason = "end_turn"
            yield event("messageStart", {"role": "assistant"})
            for one in _heard(answer):
                if isinstance(one, bytes):
                    yield one
                    return
                for choice in one.get("choices", ()):
                    reason = _REASONS.get(str(choice.get("finish_reason")), reason)
                    text = (choice.get("delta") or {}).get("content")
                    if text:
                        yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})
            yield event("contentBlockStop", {"contentBlockIndex": 0})
            yield event("messageStop", {"stopReason": reason})

        return Response(headers=(("content-type", KIND),), body=Framed(events(), answer))

    def _conversation(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        model = self.imports.model(asked, given["modelId"])
        if not model.data["shown"]["instructSupported"]:
            raise invalid("This action doesn't support the model that you provided. Try again with a supported model.")
        config = self.imports.folder(model.id) / "tokenizer_config.json"
        if not json.loads(config.read_text(encoding="utf-8")).get("chat_template"):
            raise invalid("The model has no chat template in its tokenizer_config.json, which Converse needs.")
        messages = [{"role": "system", "content": one["text"]} for one in given.get("system", ())]
        messages += [
            {"role": one["role"], "content": "".join(part.get("text", "") for part in one["content"])}
            for one in given["messages"]
        ]
        settings = given.get("inferenceConfig", {})
        return {"messages": messages, **{_INFERENCE[key]: value for key, value in settings.items()}}

    # --- what answers

    def _ask(self, given: Mapping[str, Any], asked: Asked, path: str, body: Mapping[str, Any]) -> Answer:
        model = self.imports.model(asked, given["modelId"])
        serving = self._serving(model.id)
        data = json.dumps({**body, "model": _NAME}).encode()
        return serving.ask(path, data, headers={"content-type": "application/json"}, limit_s=_ANSWER_S)

    def _serving(self, arn: str) -> Serving:
        with self._lock:
            found = self._warm.get(arn)
            if found is not None:
                return found
            if arn in self._failed:
                raise Refused(424, "ModelErrorException", self._failed[arn])
            if arn not in self._loading:
                self._loading.add(arn)
                self.cloud.stage.control(f"load {arn}", self._load, arn)
        raise Refused(
            429, "ModelNotReadyException", "Model is not ready for inference. Wait and try your request again."
        )

    def _load(self, arn: str) -> None:
        """Load a model, and let it go when it is deleted."""
        name = arn.rpartition("/")[2]
        command = self.command or server("--served-model-name", _NAME)
        serving = Serving(self.cloud, name, model=self.imports.folder(arn), command=command)
        self.imports.store.change(MODEL, arn, doing="loading")
        try:
            if not self.cloud.stage.sleep(self.cloud.timing.loading_s):
                return
            serving.start(path="/health", patience_s=_LOADED_S)
            with self._lock:
                self._warm[arn] = serving
            self.imports.store.change(MODEL, arn, doing="ready")
            while self.imports.store.get(MODEL, arn) is not None and not self.cloud.stage.stopping.wait(0.2):
                pass
        except Unservable as why:
            self._failed[arn] = str(why)
            self.imports.store.change(MODEL, arn, doing=f"cannot be loaded: {why}")
        finally:
            with self._lock:
                self._warm.pop(arn, None)
                self._loading.discard(arn)
            serving.stop()


def _read(given: Mapping[str, Any]) -> tuple[str, dict[str, Any], Told]:
    """Return path and body for the server, and what turns its words into those of the form that was asked in."""
    try:
        body = json.loads(base64.b64decode(given["body"]))
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise invalid("Malformed input request, please reformat your input and try again.")
    if "messages" in body:
        return _CHAT, body, dict
    if "prompt" not in body:
        raise invalid("Malformed input request: prompt or messages is required, please reformat your input.")
    if "max_tokens" in body or "model" in body:
        return _TEXT, body, dict
    unknown = sorted(set(body) - set(_LLAMA))
    if unknown:
        raise invalid(f"Malformed input request: extraneous key [{unknown[0]}] is not permitted")
    return _TEXT, {"max_tokens": 512, **{_LLAMA[key]: value for key, value in body.items()}}, _as_llama


def _as_llama(said: Mapping[str, Any]) -> dict[str, Any]:
    choice: Mapping[str, Any] = next(iter(said.get("choices", ())), {})
    usage = said.get("usage") or {}
    return {
        "generation": choice.get("text") or "",
        "prompt_token_count": usage.get("prompt_tokens"),
        "generation_token_count": usage.get("completion_tokens"),
        "stop_reason": choice.get("finish_reason"),
    }


def _whole(answer: Answer) -> dict[str, Any]:
    _check(answer)
    found: dict[str, Any] = json.loads(answer.body)
    return found


def _in_pieces(answer: Answer) -> Answer:
    _check(answer)
    if not answer.pieces:
        raise Refused(424, "ModelErrorException", "the model server does not stream")
    return answer


def _check(answer: Answer) -> None:
    if answer.status >= 400:
        text = answer.body.decode(errors="replace")[:500]
        raise invalid(text) if answer.status < 500 else Refused(424, "ModelErrorException", text)


def _heard(answer: Answer) -> Iterator[dict[str, Any] | bytes]:
    """Yield what the server says, and the event of a failure where it breaks off."""
    try:
        yield from said_events(answer.pieces)
    except ConnectionError as error:
        yield broken("modelStreamErrorException", str(error))


def _headers() -> tuple[tuple[str, str], ...]:
    return (("x-amzn-requestid", str(uuid.uuid4())),)
