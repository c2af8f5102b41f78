"""AWS's deep-learning containers by framework and versions, from the table beside this file.

The table is made from the SageMaker SDK's own registry data by ``tools/sagemaker_images.py``; a version that is not
given is the newest that goes with the others, and ``2.1`` is the newest of 2.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.faults import nearest
from cloudtune.spec.sagemaker import Framework

#: What a table's row calls the processors of a machine.
NEURON, GPU, CPU = "neuron", "gpu", "cpu"
_PATH = "spec.infrastructure.spec.framework"
_PROCESSORS = {NEURON: "Trainium", GPU: "GPUs", CPU: "CPUs"}


def image_uri(framework: Framework, *, region: str, processor: str, use: str = "training") -> str:
    """Return the URI of the image in a region's registry.

    Raises:
        SpecError: there is none, or not in that region.

    >>> huggingface = Framework(name="huggingface", version="2.1", transformers_version="4.36")
    >>> image_uri(huggingface, region="eu-west-1", processor="gpu").partition("/")[2]
    'huggingface-pytorch-training:2.1.0-transformers4.36.0-gpu-py310-cu121-ubuntu20.04'
    """
    row, python = _row(framework, processor, use)
    accounts = _table()["registries"][row["registry"]]
    if region not in accounts:
        message = f"the registry of {row['repository']} is not in the region {region}"
        raise SpecError([Fault(path=_PATH, message=message, hint=f"regions: {', '.join(accounts)}; or name an image")])
    domain = _table()["domains"].get(region, "amazonaws.com")
    tag = row["tag"].replace("{python}", python)
    return f"{accounts[region]}.dkr.ecr.{region}.{domain}/{row['repository']}:{tag}"


def _row(framework: Framework, processor: str, use: str) -> tuple[Mapping[str, Any], str]:
    """Return the table's row that is meant, and the version of Python."""
    images = [row for row in _table()["images"] if row["use"] == use]
    rows: Sequence[Mapping[str, Any]] = [row for row in images if row["framework"] == framework.name]
    if not rows:
        names = sorted({row["framework"] for row in images})
        guess = nearest(framework.name, names)
        hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(names)}; or name an image"
        raise SpecError([Fault(path=f"{_PATH}.name", message=f"no images of {framework.name!r} are known", hint=hint)])
    there = [row for row in rows if row["processor"] == processor]
    if not there:
        kinds = " and ".join(sorted({_PROCESSORS[row["processor"]] for row in rows}))
        message = f"{framework.name} has no image for {_PROCESSORS[processor]}, only for {kinds}"
        raise SpecError([Fault(path=_PATH, message=message, hint="choose another instanceType, or name an image")])
    rows = _of_version(there, "version", framework.version, _PATH)
    if framework.transformers_version is not None and "transformers" not in rows[0]:
        message = f"images of {framework.name} hold no transformers of a version of their own"
        raise SpecError([Fault(path=f"{_PATH}.transformersVersion", message=message, hint="name: huggingface")])
    if "transformers" in rows[0]:
        rows = _of_version(rows, "transformers", framework.transformers_version, _PATH)
    newest = max(rows, key=lambda row: (numbers(row["version"]), numbers(row.get("transformers", ""))))
    pythons: Sequence[str] = newest["pythons"]
    python = framework.py_version or max(pythons, key=numbers, default="")
    if pythons and python not in pythons:
        message = f"that image has no {python}"
        raise SpecError([Fault(path=f"{_PATH}.pyVersion", message=message, hint=f"it has {', '.join(pythons)}")])
    return newest, python


def _of_version(
    rows: Sequence[Mapping[str, Any]], column: str, version: str | None, path: str
) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a version, or of the newest ones that begin with it."""
    if version is None:
        return rows
    exact = [row for row in rows if row[column] == version]
    like = [row for row in rows if row[column].startswith(f"{version}.")]
    if exact or like:
        return exact or like
    known = _ordered(row[column] for row in rows)
    key, what = ("version", "PyTorch") if column == "version" else ("transformersVersion", "transformers")
    message = f"no image with {what} {version}{'' if key == 'version' else ' and this PyTorch'} is known"
    raise SpecError([Fault(path=f"{path}.{key}", message=message, hint=f"known: {', '.join(known)}; or name an image")])


def _ordered(versions: Iterable[str]) -> list[str]:
    return sorted(set(versions), key=numbers)


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers in a version, by which versions are ordered."""
    found = tuple(int(word) for word in re.findall(r"\d+", version))
    # py310 is newer than py39
    return (int(str(found[0])[0]), int(str(found[0])[1:] or 0)) if version.startswith("py") and found else found


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    return table
