"""The table of AWS's deep-learning containers: what it answers, and that the SageMaker SDK answers the same."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cloudtune.backends import sagemaker_images
from cloudtune.backends.sagemaker_images import CPU, GPU, NEURON, image_uri
from cloudtune.backends.serving_images import djl_image
from cloudtune.errors import SpecError
from cloudtune.spec.sagemaker import Framework

#: The Python of an environment that has sagemaker-core, with which the table is compared.
SDK = os.environ.get("CLOUDTUNE_SAGEMAKER_PYTHON", "")
ROOT = Path(__file__).parents[2]
TABLE = json.loads(Path(sagemaker_images.__file__).with_suffix(".json").read_text())
DLC = "763104351884.dkr.ecr.us-west-2.amazonaws.com"
#: What the SDK calls images of model servers.
SERVERS = {("djl", GPU): "djl-lmi", ("djl", NEURON): "djl-neuronx"}
#: Asks the SDK's own look-up; Neuron's training images it refuses, so those are not among the questions.
ASK = """
import json, logging, sys
logging.disable(logging.WARNING)
from sagemaker.core import image_uris

def answer(one):
    try:
        return image_uris.retrieve(**one)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"

print(json.dumps([answer(one) for one in json.load(sys.stdin)]))
"""


def uri(name: str, *versions: str | None, processor: str = GPU, region: str = "us-west-2") -> str:
    keys = ("version", "transformers_version", "py_version")
    framework = Framework(name=name, **dict(zip(keys, versions, strict=False)))
    return image_uri(framework, region=region, processor=processor)


def test_an_image_is_found_by_its_versions() -> None:
    repository = f"{DLC}/huggingface-pytorch-training"
    tag = "2.1.0-transformers4.36.0-gpu-py310-cu121-ubuntu20.04"
    assert uri("huggingface", "2.1.0", "4.36.0", "py310") == f"{repository}:{tag}"
    assert uri("huggingface", "2.1", "4.36") == f"{repository}:{tag}"
    assert uri("huggingface", None, "4.36") == f"{repository}:{tag}"
    assert uri("pytorch", "2.0", processor=CPU) == f"{DLC}/pytorch-training:2.0.1-cpu-py310"


def test_hugging_face_on_trainium_has_an_image() -> None:
    tag = "1.13.1-transformers4.36.2-neuronx-py310-sdk2.18.0-ubuntu20.04"
    found = uri("huggingface", "1.13.1", "4.36.2", "py310", processor=NEURON)
    assert found == f"{DLC}/huggingface-pytorch-training-neuronx:{tag}"


def test_model_servers_have_images_for_gpus_and_inferentia() -> None:
    assert djl_image("us-west-2", neuron=False) == f"{DLC}/djl-inference:0.38.0-lmi29.0.0-cu130"
    assert djl_image("us-west-2", neuron=True) == f"{DLC}/djl-inference:0.29.0-neuronx-sdk2.19.1"
    assert djl_image("mx-central-1", neuron=False).startswith("637423239942.dkr.ecr.mx-central-1.")
    with pytest.raises(SpecError, match="not in the region us-west-1"):
        djl_image("us-west-1", neuron=True)


def test_registries_differ_by_region() -> None:
    assert uri("pytorch", "2.6.0", region="cn-north-1").startswith("727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/")
    assert uri("pytorch", "2.6.0", region="me-south-1").startswith("217643126080.dkr.ecr.me-south-1.amazonaws.com/")


def test_what_is_not_given_is_the_newest() -> None:
    newest = uri("huggingface")
    assert newest == uri("huggingface", "2.9.0", "5.3.0", "py312")
    assert uri("pytorch").endswith("pytorch-training:2.10.0-gpu-py313")  # 2.10 is newer than 2.9


@pytest.mark.parametrize(
    ("versions", "words", "path", "told"),
    [
        (("hugingface",), {}, ".name", "did you mean 'huggingface'?"),
        (("pytorch", "9"), {}, ".version", "2.10.0; or name an image"),
        (("huggingface", "2.8", "4.36"), {}, ".transformersVersion", "known: 4.56.2"),
        (("pytorch", "2.6", "4.36"), {}, ".transformersVersion", "name: huggingface"),
        (("pytorch", "2.6", None, "py39"), {}, ".pyVersion", "it has py312"),
        (("pytorch", "2.6"), {"processor": NEURON}, "", "choose another instanceType"),
        (("pytorch", "2.6"), {"region": "mars-north-1"}, "", "regions: af-south-1"),
    ],
)
def test_an_image_that_there_is_not(versions: tuple[str, ...], words: dict[str, str], path: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        uri(*versions, **words)
    (fault,) = caught.value.faults
    assert fault.path == f"spec.infrastructure.spec.framework{path}"
    assert told in (fault.hint or "")


def test_the_agent_runs_in_every_image_for_training() -> None:
    pythons = {python for row in TABLE["images"] if row["use"] == "training" for python in row["pythons"]}
    assert min(int(python.removeprefix("py3")) for python in pythons) >= 9


NEEDS_SDK = pytest.mark.skipif(not SDK, reason="CLOUDTUNE_SAGEMAKER_PYTHON names no Python with sagemaker-core")


@NEEDS_SDK
def test_the_table_is_what_the_sdk_has() -> None:
    made = subprocess.run(
        [SDK, str(ROOT / "tools" / "sagemaker_images.py")], capture_output=True, text=True, check=True
    )
    assert json.loads(made.stdout)["images"] == TABLE["images"]
    assert json.loads(made.stdout)["registries"] == TABLE["registries"]


@NEEDS_SDK
def test_the_sdk_answers_the_same() -> None:
    questions, ours = [], []
    seen: set[int] = set()  # each list of registries is gone through with one image: the SDK takes long to answer
    for row in TABLE["images"]:
        server = SERVERS.get((row["framework"], row["processor"]))
        if row["processor"] == NEURON and server is None:
            continue
        regions = list(TABLE["registries"][row["registry"]])
        for region in regions[-1:] if row["registry"] in seen else regions:
            seen.add(row["registry"])
            hugging = "transformers" in row
            framework = Framework(
                name=row["framework"],
                version=row["version"],
                transformers_version=row.get("transformers"),
                py_version=row["pythons"][0] if row["pythons"] else None,
            )
            ours.append(image_uri(framework, region=region, processor=row["processor"], use=row["use"]))
            if server is not None:
                questions.append({"framework": server, "region": region, "version": row["version"]})
                continue
            questions.append(
                {
                    "framework": row["framework"],
                    "region": region,
                    "version": row["transformers"] if hugging else row["version"],
                    "base_framework_version": f"pytorch{row['version']}" if hugging else None,
                    "py_version": row["pythons"][0],
                    "instance_type": "ml.g5.12xlarge" if row["processor"] == GPU else "ml.m5.xlarge",
                    "image_scope": row["use"],
                }
            )
    asked = subprocess.run([SDK, "-c", ASK], input=json.dumps(questions), capture_output=True, text=True, check=True)
    theirs = json.loads(asked.stdout)
    wrong = [(mine, its) for mine, its in zip(ours, theirs, strict=True) if mine != its]
    assert not wrong, wrong[:5]
    assert len(ours) > 200
