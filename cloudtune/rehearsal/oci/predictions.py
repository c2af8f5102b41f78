"""Model Deployment: the paths at which deployed models answer.

Sources: "Predict Endpoint" and "Predict with Response Streaming Endpoint" (codes, 10 MB a request).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cloudtune.rehearsal.messages import Refused, Request, Response
from cloudtune.rehearsal.oci.model_deployments import Deployments
from cloudtune.rehearsal.oci.serving import Serving
from cloudtune.rehearsal.oci.signatures import check_content
from cloudtune.rehearsal.routes import Route

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

MOST_BYTES = 10 << 20


class Predictions:
    """Requests to deployed models."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.deployments = cloud.part(Deployments)

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        rows = (
            ("/{modelDeploymentId}/predict", "predict", self.answer),
            ("/{modelDeploymentId}/predict/{path...}", "predict", self.answer),
            ("/{modelDeploymentId}/predictWithResponseStream", "predict_with_response_stream", self.stream),
            ("/{modelDeploymentId}/predictWithResponseStream/{path...}", "predict_with_response_stream", self.stream),
        )
        return [Route(method="POST", template=path, operation=name, handler=deed) for path, name, deed in rows]

    def answer(self, request: Request) -> Response:
        """Return the model's answer once it is whole."""
        return self._forward(request, streams=False)

    def stream(self, request: Request) -> Response:
        """Return the model's answer as it comes."""
        return self._forward(request, streams=True)

    def _forward(self, request: Request, *, streams: bool) -> Response:
        serving = self.deployments.serving(request.params["modelDeploymentId"])
        length = request.header("content-length")
        if not length:
            raise Refused(411, "LengthRequired", "Missing content length header.")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            raise Refused(413, "PayloadTooLarge", "The payload size limit is 10 MB.")
        answer = serving.forward(request, _path(request, serving), streams=streams)
        check_content(request)
        return answer


def _path(request: Request, serving: Serving) -> str:
    """Return the container's path that a request aims at."""
    suffix, usual = request.params.get("path", ""), serving.variables.get("MODEL_DEPLOY_PREDICT_ENDPOINT", "/predict")
    managed = serving.container["image"].startswith("dsmc://")
    if not suffix:
        # the service's own images look at a header
        return request.header("route") if managed and request.header("route") else usual
    endpoints = {one["endpointUriSuffix"].strip("/") for one in serving.container.get("customHttpEndpoints") or ()}
    if serving.container.get("predictApiSpecification") != "openai" and suffix not in endpoints:
        raise Refused(404, "NotAuthorizedOrNotFound", f"the deployment has no endpoint {suffix}")
    return f"/{suffix}"
