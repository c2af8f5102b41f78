"""A model deployment in the words of OCI Data Science: a vLLM server over the model, on machines of one shape. Pure.

Sources: the models of the oci SDK 2.189.0; "Bring Your Own Container" and "Model Deployment Environment Variables"
(where the model lies, ports, endpoints); Oracle's samples of vLLM deployments (``oci-data-science-ai-samples``: LLM/,
ai-quick-actions/) for the command line and the variables of the service's own image.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cloudtune import shapes
from cloudtune.errors import UsageError
from cloudtune.spec.oci import DataScienceJob

#: Where the service puts a model's files; of a model by reference, below the prefix that it has in its bucket.
MODEL = "/opt/ds/model/deployed_model"
PORT = 8080
#: The one path of the server that requests are passed on to.
CHAT = "/v1/chat/completions"
#: The free-form tag by which a deployment is known again.
MARK = "cloudtune-deployment"
#: Images of the service's own are named below this.
MANAGED = "dsmc://"
FAMILY = "odsc-vllm-serving"
#: Memory that processes share, which those of several GPUs do.
_SHARED_MEMORY = "10g"
_BANDWIDTH_MBPS = 10
_OBJECTS = re.compile(r"oci://[^/]+/(?P<prefix>.+)", re.DOTALL)


@attrs.frozen(kw_only=True)
class Wanted:
    """What is to be deployed: the catalog's model, and how."""

    name: str
    model: Mapping[str, Any]
    shape: str
    image: str
    replicas: int
    place: DataScienceJob
    mark: str = ""
    max_length: int | None = None
    log: str | None = None


def request_of(wanted: Wanted) -> dict[str, Any]:
    """Return ``CreateModelDeploymentDetails``.

    Raises:
        UsageError: there is no such shape, it has no GPU, or it cannot be told where the model's files will lie.
    """
    accelerators = _accelerators(wanted.shape)
    place, model = wanted.place, wanted.model
    machine: dict[str, Any] = {"instanceShapeName": wanted.shape}
    if place.subnet_id:
        machine["subnetId"] = place.subnet_id
    details: dict[str, Any] = {
        "compartmentId": place.compartment_id or model["compartmentId"],
        "projectId": place.project_id or model["projectId"],
        "displayName": wanted.name,
        "freeformTags": {**place.freeform_tags, MARK: wanted.mark},
        "modelDeploymentConfigurationDetails": {
            "deploymentType": "SINGLE_MODEL",
            "modelConfigurationDetails": {
                "modelId": model["id"],
                "instanceConfiguration": machine,
                "scalingPolicy": {"policyType": "FIXED_SIZE", "instanceCount": wanted.replicas},
                "bandwidthMbps": _BANDWIDTH_MBPS,
            },
            "environmentConfigurationDetails": _container(wanted, accelerators),
        },
    }
    if place.defined_tags:
        details["definedTags"] = dict(place.defined_tags)
    if place.log_group_id and wanted.log:
        log = {"logGroupId": place.log_group_id, "logId": wanted.log}
        details["categoryLogDetails"] = {"access": log, "predict": log}
    return details


def newest_managed(containers: Iterable[Mapping[str, Any]]) -> str:
    """Return the service's own vLLM image, of those that it lists.

    Raises:
        UsageError: it has none here.
    """
    for one in containers:
        if one.get("familyName") == FAMILY and one.get("isLatest") and one.get("lifecycleState") == "ACTIVE":
            return f"{MANAGED}{str(one['containerName']).removeprefix(MANAGED)}:{one['tag']}"
    hint = "name an image of your own in OCI's registry: --image REGION.ocir.io/NAMESPACE/vllm:TAG"
    raise UsageError("OCI Data Science offers no image with vLLM in this region", hint=hint)


def _container(wanted: Wanted, accelerators: int) -> dict[str, Any]:
    prefix = _prefix(wanted.model)
    flags = ["--served-model-name", wanted.name, "--tensor-parallel-size", str(accelerators)]
    if wanted.max_length is not None:
        flags += ["--max-model-len", str(wanted.max_length)]
    variables = {
        "MODEL_DEPLOY_PREDICT_ENDPOINT": CHAT,
        "MODEL_DEPLOY_HEALTH_ENDPOINT": "/health",
        "MODEL_DEPLOY_ENABLE_STREAMING": "true",
    }
    if accelerators > 1:
        variables["SHM_SIZE"] = _SHARED_MEMORY
    container: dict[str, Any] = {
        "environmentConfigurationType": "OCIR_CONTAINER",
        "image": wanted.image,
        "serverPort": PORT,
        "healthCheckPort": PORT,
    }
    if wanted.image.startswith(MANAGED):
        ports = {"PORT": str(PORT), "HEALTH_CHECK_PORT": str(PORT)}
        variables |= {**ports, "BASE_MODEL": prefix, "PARAMS": shlex.join(flags)}
    else:
        model = f"{MODEL}/{prefix}".rstrip("/")
        container["cmd"] = ["--model", model, "--host", "0.0.0.0", "--port", str(PORT), *flags]  # noqa: S104 - a container's
    return {**container, "environmentVariables": variables}


def _prefix(model: Mapping[str, Any]) -> str:
    """Return where a model's files lie below the folder of models."""
    if not model.get("isModelByReference"):
        return ""
    notes = {row.get("key"): row.get("value") for row in model.get("customMetadataList") or ()}
    # Oracle's own name for it, of models that its quick actions have registered, is the second
    for key in ("source", "artifact_location"):
        named = str(notes.get(key) or "")
        found = _OBJECTS.fullmatch(named)
        if found is not None or (named and key == "artifact_location"):
            return (found["prefix"] if found is not None else named).strip("/")
    hint = "register it with cloudtune: cloudtune register oci://BUCKET@NAMESPACE/PREFIX --to oci --name NAME"
    raise UsageError(f"nothing in model {model['id']} tells below which prefix its files lie", hint=hint)


def _accelerators(name: str) -> int:
    try:
        shape = shapes.find(name, cloud="oci")
    except shapes.UnknownShape as error:
        near = ", ".join(error.nearest)
        raise UsageError(
            f"OCI has no shape {name}", hint=f"nearest: {near}" if near else "e.g. VM.GPU.A10.1"
        ) from error
    if not shape.accelerators:
        raise UsageError(f"vLLM wants a GPU, and {shape.name} has none", hint="e.g. --shape VM.GPU.A10.1")
    return shape.accelerators
