"""What the images of SageMaker's endpoints do with their variables, as far as it can be told without running them.

Sources: the LMI containers' documentation (``OPTION_*``, ``HF_MODEL_ID``), and that of AWS's vLLM images
(``SM_VLLM_*``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloudtune import shapes
from cloudtune.rehearsal.aws.serving import MODEL, Unservable, server

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Timing

_DEGREES = ("OPTION_TENSOR_PARALLEL_DEGREE", "SM_VLLM_TENSOR_PARALLEL_SIZE")
_MODELS = ("HF_MODEL_ID", "OPTION_MODEL_ID", "SM_VLLM_MODEL")
_NEURON = ("inf2", "trn1", "trn1n", "trn2")


def command_of(
    image: str, variables: Mapping[str, str], instance: str, known: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Return what a node runs in place of an image.

    Raises:
        Unservable: the container would end, or it is not known what the image does.
    """
    repository = image.rpartition("/")[2]
    if ("neuronx" in repository) != (instance.split(".")[1] in _NEURON):
        raise Unservable(f"the image {repository} does not run on {instance}")
    degree = next((variables[name] for name in _DEGREES if name in variables), "1")
    if degree not in {"max", "auto"} and (not degree.isdecimal() or int(degree) > _processors(instance)):
        raise Unservable(f"tensor parallel degree {degree} on {instance}, which has {_processors(instance)}")
    named = next((variables[name] for name in _MODELS if name in variables), MODEL)
    if named.rstrip("/") != MODEL:
        raise Unservable(f"the model {named} is not at {MODEL}")
    if image in known:
        return known[image]
    if not any(word in repository for word in ("djl-inference", "vllm")):
        raise Unservable(f"rehearsed: what the image {image} runs is not here")
    return server()


def healthy_after_s(timing: Timing, image: str) -> float:
    """Return how long a container takes until it answers: on Neuron devices the model is compiled first."""
    return timing.compiling_s if "neuronx" in image else timing.loading_s


def _processors(instance: str) -> int:
    try:
        shape = shapes.find(instance, cloud="aws")
    except shapes.UnknownShape:
        return 0
    return shape.logical_cores() or shape.accelerators
