"""AWS's own images of model servers: DJL Serving with vLLM on GPUs, with transformers-neuronx on Inferentia."""

from __future__ import annotations

from cloudtune.backends.sagemaker_images import GPU, image_uri
from cloudtune.spec.sagemaker import Framework

#: The repository and its newest tags, as of the SageMaker SDK's registry data of November 2026.
_REPOSITORY, _LMI, _NEURON = "djl-inference", "0.38.0-lmi29.0.0-cu130", "0.29.0-neuronx-sdk2.19.1"


def djl_image(region: str, *, neuron: bool) -> str:
    """Return the URI of the image in a region's registry, in which all of AWS's servers are.

    Raises:
        SpecError: there is no registry in that region.

    >>> djl_image("eu-west-1", neuron=True)
    '763104351884.dkr.ecr.eu-west-1.amazonaws.com/djl-inference:0.29.0-neuronx-sdk2.19.1'
    """
    neighbour = image_uri(Framework(name="huggingface-llm"), region=region, processor=GPU, use="inference")
    return f"{neighbour.partition('/')[0]}/{_REPOSITORY}:{_NEURON if neuron else _LMI}"
