"""What Data Science says no to in a model deployment that its models allow.

Sources: "Model Deployment Environment Variables" (form of names, 2,048 bytes in all, ports), "Bring Your Own Container"
(images of OCIR, command), the API reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloudtune import shapes
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.oci.job_limits import check_common, check_container, refused
from cloudtune.rehearsal.oci.logs import Logs
from cloudtune.rehearsal.oci.models import Models

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

VARIABLES_BYTES = 2048
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,29}[A-Za-z0-9]")
_OURS = ("MODEL_DEPLOYMENT_OCID", "TENANCY_OCID", "CONTAINER_CUSTOM_IMAGE")
_IMAGE = re.compile(r"(?:dsmc://|[a-z0-9-]+\.ocir\.(?:io|[a-z.]+)/)[\w./-]+(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?")
_TAKEN_PORTS = (24224, 8446, 8447)


def check_deployment(cloud: OciCloud, details: Mapping[str, Any]) -> None:
    """Refuse a deployment that cannot be."""
    check_common(details)
    cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")
    cloud.check_exists("projectId", details["projectId"], "datascienceproject")
    check_configuration(cloud, details["modelDeploymentConfigurationDetails"])
    for kind, log in (details.get("categoryLogDetails") or {}).items():
        if log:
            try:
                cloud.part(Logs).log(log["logGroupId"], log["logId"])
            except Refused as why:
                raise Refused(404, why.code, f"categoryLogDetails.{kind}: {why.message}") from why


def check_configuration(cloud: OciCloud, details: Mapping[str, Any]) -> None:
    """Refuse a model, a machine or a container that cannot be."""
    if details["deploymentType"] != "SINGLE_MODEL":
        raise Refused(501, "MethodNotImplemented", f"{details['deploymentType']} deployments are not rehearsed")
    model = details["modelConfigurationDetails"]
    cloud.part(Models).active(model["modelId"])
    _check_machine(cloud, model.get("instanceConfiguration"))
    scaling = model.get("scalingPolicy") or {"policyType": "FIXED_SIZE", "instanceCount": 1}
    if scaling["policyType"] != "FIXED_SIZE":
        raise Refused(501, "MethodNotImplemented", "rehearsed deployments have a fixed size")
    if scaling.get("instanceCount", 1) < 1:
        raise refused("instanceCount must be 1 or more")
    if model.get("bandwidthMbps", 10) < 10:
        raise refused("bandwidthMbps must be 10 or more")
    container = details.get("environmentConfigurationDetails")
    if container is None or container["environmentConfigurationType"] != "OCIR_CONTAINER":
        raise Refused(501, "MethodNotImplemented", "rehearsed deployments are containers: OCIR_CONTAINER")
    _check_image(container)


def _check_machine(cloud: OciCloud, machine: Mapping[str, Any] | None) -> None:
    if machine is None:
        raise refused("instanceConfiguration must not be null")
    try:
        shape = shapes.find(machine["instanceShapeName"], cloud="oci")
    except shapes.UnknownShape as error:
        raise refused(f"instanceShapeName: {error}") from error
    size = machine.get("modelDeploymentInstanceShapeConfigDetails")
    if shape.flexible != bool(size):
        words = "needs" if shape.flexible else "takes no"
        raise refused(f"{shape.name} {words} modelDeploymentInstanceShapeConfigDetails")
    if machine.get("subnetId"):
        cloud.check_exists("subnetId", machine["subnetId"], "subnet")


def _check_image(container: Mapping[str, Any]) -> None:
    if not _IMAGE.fullmatch(container.get("image") or ""):
        raise refused("image must be in Oracle Cloud's registry: REGION.ocir.io/NAMESPACE/NAME:TAG")
    for name in ("serverPort", "healthCheckPort"):
        port = container.get(name)
        if port is not None and (not 1024 <= port <= 65535 or port in _TAKEN_PORTS):
            raise refused(f"{name} must be from 1024 to 65535 and none of {', '.join(map(str, _TAKEN_PORTS))}")
    check_container(container)
    variables = container.get("environmentVariables") or {}
    for name in variables:
        if not _VARIABLE.fullmatch(name) or name in _OURS:
            raise refused(f"environmentVariables: {name!r} cannot be the name of a variable")
    if sum(len(f"{name}{value}".encode()) for name, value in variables.items()) > VARIABLES_BYTES:
        raise refused(f"environmentVariables: all together must have {VARIABLES_BYTES} bytes at most")
