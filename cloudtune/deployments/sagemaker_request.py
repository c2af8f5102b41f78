"""An endpoint in the words of SageMaker: a model server over the model's files, on machines of one type. Pure.

Sources: the models of botocore 1.44; the documentation of AWS's LMI containers (DJL Serving with vLLM on GPUs, with
transformers-neuronx on Inferentia) and of its vLLM images; the hosting samples of AWS for the limits of time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune import shapes
from cloudtune.backends.serving_images import djl_image
from cloudtune.errors import UsageError
from cloudtune.shapes import Shape
from cloudtune.spec.sagemaker import SageMakerTrainingJob

#: Where the service puts a model's files.
MODEL = "/opt/ml/model"
VARIANT = "AllTraffic"
#: Seconds to fetch the model and until it answers; on Inferentia it is compiled first, and an hour is the longest.
_GPU_S, _NEURON_S = 1800, 3600
#: Tokens of a compiled model, whose length is fixed.
_COMPILED_LENGTH = 4096
#: Machines without a disk of their own get a volume of so many GB.
_VOLUME_GB, _DISKLESS = 256, ("inf2",)
_NAME_CHARACTERS = 50


@attrs.frozen(kw_only=True)
class Wanted:
    """What is to be deployed: the files below a prefix of S3, and how; ``resource`` is the name of all that is made."""

    resource: str
    name: str
    uri: str
    shape: str
    image: str
    replicas: int
    max_length: int | None
    role: str
    place: SageMakerTrainingJob


def resource_name(name: str, mark: str) -> str:
    """Return a name that no other deployment has, of letters, digits and dashes alone."""
    plain = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-")[:_NAME_CHARACTERS].rstrip("-")
    return f"{plain or 'model'}-{mark}"


def shape_of(name: str) -> Shape:
    """Return a machine for models; raises UsageError if there is none such, or it has nothing to serve a model with."""
    try:
        shape = shapes.find(name, cloud="aws")
    except shapes.UnknownShape as error:
        near = ", ".join(f"ml.{one}" for one in error.nearest)
        raise UsageError(
            f"AWS has no instance {name}", hint=f"nearest: {near}" if near else "e.g. ml.g5.xlarge"
        ) from error
    if not shape.accelerators:
        hint = "e.g. --shape ml.g5.xlarge, or ml.inf2.8xlarge"
        raise UsageError(f"a model server wants GPUs or Inferentia, and ml.{shape.name} has none", hint=hint)
    return shape


def default_image(shape: Shape, region: str) -> str:
    """Return AWS's own image for a machine, in a region's registry; raises SpecError where there is none."""
    return djl_image(region, neuron=bool(shape.neuron_cores))


def requests_of(wanted: Wanted) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return the operations that make an endpoint, in order, with their parameters."""
    shape = shape_of(wanted.shape)
    tags = {**wanted.place.tags, "cloudtune-deployment": wanted.name}
    tagged = {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
    source = {"S3Uri": wanted.uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
    model: dict[str, Any] = {
        "ModelName": wanted.resource,
        "ExecutionRoleArn": wanted.role,
        "PrimaryContainer": {
            "Image": wanted.image,
            "ModelDataSource": {"S3DataSource": source},
            "Environment": _variables(wanted, shape),
        },
        **tagged,
    }
    place = wanted.place
    if place.subnet_ids and place.security_group_ids:
        model["VpcConfig"] = {
            "Subnets": list(place.subnet_ids),
            "SecurityGroupIds": list(place.security_group_ids),
        }
    if place.network_isolation:
        model["EnableNetworkIsolation"] = True
    limit_s = _NEURON_S if shape.neuron_cores else _GPU_S
    variant: dict[str, Any] = {
        "VariantName": VARIANT,
        "ModelName": wanted.resource,
        "InstanceType": f"ml.{shape.name}",
        "InitialInstanceCount": wanted.replicas,
        "InitialVariantWeight": 1.0,
        "ModelDataDownloadTimeoutInSeconds": limit_s,
        "ContainerStartupHealthCheckTimeoutInSeconds": limit_s,
    }
    if shape.family in _DISKLESS:
        variant["VolumeSizeInGB"] = _VOLUME_GB
    config: dict[str, Any] = {"EndpointConfigName": wanted.resource, "ProductionVariants": [variant], **tagged}
    if place.volume_kms_key_id:
        config["KmsKeyId"] = place.volume_kms_key_id
    endpoint = {"EndpointName": wanted.resource, "EndpointConfigName": wanted.resource, **tagged}
    return (("create_model", model), ("create_endpoint_config", config), ("create_endpoint", endpoint))


def _variables(wanted: Wanted, shape: Shape) -> dict[str, str]:
    """Return what a server is told, in the words of its image; an image of another kind is told nothing."""
    repository = wanted.image.rpartition("/")[2]
    degree, length = str(shape.logical_cores() or shape.accelerators), wanted.max_length
    if "djl" in repository and shape.neuron_cores:
        return {
            "HF_MODEL_ID": MODEL,
            "OPTION_ROLLING_BATCH": "auto",
            "OPTION_TENSOR_PARALLEL_DEGREE": degree,
            "OPTION_N_POSITIONS": str(length or _COMPILED_LENGTH),
            "OPTION_DTYPE": "fp16",
            "OPTION_MODEL_LOADING_TIMEOUT": str(_NEURON_S),
        }
    lengths: Mapping[str, str]
    if "djl" in repository:
        lengths = {"OPTION_MAX_MODEL_LEN": str(length)} if length else {}
        return {
            "HF_MODEL_ID": MODEL,
            "OPTION_ASYNC_MODE": "true",
            "OPTION_ROLLING_BATCH": "disable",
            "OPTION_ENTRYPOINT": "djl_python.lmi_vllm.vllm_async_service",
            "OPTION_TENSOR_PARALLEL_DEGREE": degree,
            **lengths,
        }
    if "vllm" in repository:
        lengths = {"SM_VLLM_MAX_MODEL_LEN": str(length)} if length else {}
        return {"SM_VLLM_MODEL": MODEL, "SM_VLLM_TENSOR_PARALLEL_SIZE": degree, **lengths}
    if "tgi" in repository:
        lengths = {"MAX_TOTAL_TOKENS": str(length)} if length else {}
        return {"HF_MODEL_ID": MODEL, "SM_NUM_GPUS": degree, "MESSAGES_API_ENABLED": "true", **lengths}
    return {}
