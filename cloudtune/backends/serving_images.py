"""AWS's own images of model servers: DJL Serving with vLLM on GPUs, with transformers-neuronx on Inferentia."""

from __future__ import annotations

from cloudtune.backends.sagemaker_images import GPU, NEURON, image_uri
from cloudtune.spec.sagemaker import Framework


def djl_image(region: str, *, neuron: bool) -> str:
    """Return the URI of the newest image in a region's registry, in which all of AWS's servers are.

    Raises:
        SpecError: there is no registry in that region.

    >>> djl_image("eu-west-1", neuron=True)
    '763104351884.dkr.ecr.eu-west-1.amazonaws.com/djl-inference:0.29.0-neuronx-sdk2.19.1'
    """
    return image_uri(Framework(name="djl"), region=region, processor=NEURON if neuron else GPU, use="inference")
