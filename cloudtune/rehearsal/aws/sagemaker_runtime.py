"""SageMaker's runtime: requests to endpoints, passed on to what serves them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.endpoints import Endpoints
from cloudtune.rehearsal.aws.event_streams import KIND, broken, raw_event
from cloudtune.rehearsal.aws.models import model_of
from cloudtune.rehearsal.aws.serving import Answer, Framed
from cloudtune.rehearsal.messages import Refused, Response

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed

#: The service's own limits of one answer, and of one that streams.
_ANSWER_S, _STREAM_S = 60.0, 480.0
_VARIANT = "AllTraffic"


class SageMakerRuntime:
    """The operations that ask endpoints."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.endpoints = cloud.part(Endpoints)
        self.operations: Mapping[str, Deed] = {
            "InvokeEndpoint": self.invoke,
            "InvokeEndpointWithResponseStream": self.invoke_in_pieces,
        }

    def invoke(self, given: Mapping[str, Any], asked: Asked) -> Response:
        """Return a container's answer once it is whole."""
        answer = self._ask(given, asked, _ANSWER_S)
        body = answer.body or b"".join(answer.pieces)
        headers = (("content-type", answer.kind), ("x-amzn-invoked-production-variant", _VARIANT))
        return Response(headers=headers, body=body)

    def invoke_in_pieces(self, given: Mapping[str, Any], asked: Asked) -> Response:
        """Return a container's answer as it comes."""
        answer = self._ask(given, asked, _STREAM_S)

        def events() -> Iterator[bytes]:
            try:
                for piece in answer.pieces or (answer.body,):
                    yield raw_event("PayloadPart", piece)
            except ConnectionError as error:
                yield broken("ModelStreamError", str(error))

        headers = (
            ("content-type", KIND),
            ("x-amzn-sagemaker-content-type", answer.kind),
            ("x-amzn-invoked-production-variant", _VARIANT),
        )
        return Response(headers=headers, body=Framed(events(), answer))

    def _ask(self, given: Mapping[str, Any], asked: Asked, limit_s: float) -> Answer:
        body = base64.b64decode(given["Body"])
        most = model_of("sagemaker-runtime")["shapes"]["BodyBlob"]["max"]
        if len(body) > most:
            raise Refused(413, "ValidationError", f"the request body has more than {most} bytes")
        serving = self.endpoints.serving(given["EndpointName"], asked)
        headers = {"content-type": given.get("ContentType", "application/octet-stream")}
        answer = serving.ask("/invocations", body, headers=headers, limit_s=limit_s)
        if answer.status >= 400:
            kind = "client" if answer.status < 500 else "server"
            said = answer.body.decode(errors="replace")[:500]
            message = f'Received {kind} error ({answer.status}) from primary with message "{said}".'
            raise Refused(424, "ModelError", message)
        return answer
