#!/usr/bin/env python3
"""Write the table of AWS's deep-learning containers, from the registry data of the SageMaker SDK.

    python tools/sagemaker_images.py > cloudtune/backends/sagemaker_images.json

Run it by the Python of an environment of its own that has ``sagemaker-core``: the SDK is never a dependency of
cloudtune, only its data is used. A test compares the table with what that SDK's own look-up answers.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: What goes into the table: the framework as users say it, what its images are for, and the SDK's file.
SOURCES = (
    ("huggingface", "training", "huggingface"),
    ("huggingface", "training", "huggingface-neuronx"),
    ("pytorch", "training", "pytorch"),
    ("huggingface-llm", "inference", "huggingface-llm"),
)
#: The same of images of model servers: what each of these files has is for one kind of processor.
SERVERS = (("djl", "gpu", "djl-lmi"), ("djl", "neuron", "djl-neuronx"))
#: The agent needs this Python, and images before it are left out.
OLDEST_PYTHON = (3, 9)
_BASE = re.compile(r"pytorch([0-9.]+)")


def main() -> None:
    """Print the table."""
    folder = _folder_of("sagemaker.core") / "image_uri_config"
    registries: list[dict[str, str]] = []

    def read(name: str) -> Any:
        return json.loads((folder / f"{name}.json").read_text())

    found = [one for framework, use, name in SOURCES for one in rows(framework, use, read(name)[use])]
    found += [one for framework, processor, name in SERVERS for one in servers(framework, processor, read(name))]
    images = [{**row, "registry": _index(registries, regions)} for row, regions in found]
    table = {
        "source": f"image_uri_config of sagemaker-core {version('sagemaker-core')}",
        "leftOut": "images for TensorFlow, and those whose Python is older than 3.9, which cloudtune's agent needs",
        "domains": domains({region for one in registries for region in one}),
        "registries": registries,
        "images": images,
    }
    json.dump(table, sys.stdout, indent=1)
    print()


def rows(framework: str, use: str, config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield the images of one file, each with its registry accounts by region."""
    for number, entry in config["versions"].items():
        inner = {"": entry} if "registries" in entry else {key: entry[key] for key in entry if _BASE.fullmatch(key)}
        for base, image in inner.items():
            pythons = [word for word in image["py_versions"] if _is_new(word)]
            processors = image.get("processors") or config.get("processors")
            for processor in processors if pythons else ():
                kind = "neuron" if processor in ("trn", "inf") else processor
                pytorch = base.removeprefix("pytorch") if base else number
                row = {"framework": framework, "use": use, "processor": kind, "version": pytorch}
                row |= {"transformers": number} if base else {}
                row |= {"pythons": pythons, "repository": image["repository"], "tag": tag(image, kind, pytorch, row)}
                yield row, dict(sorted(image["registries"].items()))


def servers(framework: str, processor: str, config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield the images of one file of model servers, each with its registry accounts by region."""
    for number, image in config["versions"].items():
        row = {"framework": framework, "use": "inference", "processor": processor, "version": number, "pythons": []}
        row |= {"repository": image["repository"], "tag": image["tag_prefix"]}
        yield row, dict(sorted(image["registries"].items()))


def tag(image: dict[str, Any], processor: str, pytorch: str, row: dict[str, Any]) -> str:
    """Return an image's tag; ``{python}`` stands for the version of Python.

    Those of Neuron images carry the release of its SDK, which the SDK of SageMaker does not put together for training.
    """
    parts = [image.get("tag_prefix", pytorch)]
    if "transformers" in row:
        parts[0] += f"-transformers{row['transformers']}"
    # where the file says `inf` beside images for Trainium, it means them: they have one operating system
    system = list(image.get("container_version", {}).values())[:1]
    if processor == "neuron":
        newest = max(image["sdk_versions"], key=lambda word: [int(part) for part in re.findall(r"\d+", word)])
        return "-".join([*parts, "neuronx", "{python}", newest, *system])
    return "-".join([*parts, processor, "{python}", *system])


def domains(regions: set[str]) -> dict[str, str]:
    """Return the domain of the registries of each region that is not below amazonaws.com."""
    data = json.loads(
        (Path(next(iter(find_spec("botocore").submodule_search_locations))) / "data/partitions.json").read_text()
    )
    found = {}
    for region in sorted(regions):
        partition = next(one for one in data["partitions"] if re.fullmatch(one["regionRegex"], region))
        if partition["outputs"]["dnsSuffix"] != "amazonaws.com":
            found[region] = partition["outputs"]["dnsSuffix"]
    return found


def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed here: run this by the Python of an environment that has it")
    return Path(spec.submodule_search_locations[0])


def _is_new(python: str) -> bool:
    digits = python.removeprefix("py")
    return len(digits) > 1 and (int(digits[0]), int(digits[1:])) >= OLDEST_PYTHON


def _index(registries: list[dict[str, str]], regions: dict[str, str]) -> int:
    if regions not in registries:
        registries.append(regions)
    return registries.index(regions)


if __name__ == "__main__":
    main()
