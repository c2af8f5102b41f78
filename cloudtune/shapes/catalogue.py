"""The shapes of OCI (GPU and CPU) and of EC2, SageMaker and EKS (GPU, Trainium, Inferentia, CPU).

The facts are in ``oci.json`` and ``aws.json`` beside this file: families of shapes, each family with its source; what
was recalled or inferred says so there. A file is read when one of its shapes is first asked for.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs

#: The catalogue's clouds; SageMaker and EKS share EC2's shapes.
CLOUDS = ("oci", "aws")
#: An accelerator as people write it, perhaps with how many; and what they write beside it.
_ACCELERATOR = re.compile(r"(?:(?P<count>\d+)x)?(?P<name>[a-z]+\d*[a-z]?)(?:x(?P<counted>\d+))?")
_BESIDE = re.compile(r"nvidia|amd|aws|tesla|gpu|\d+gb?|sxm\d?|pcie")
_MOST_NEAREST = 5


@attrs.frozen(kw_only=True)
class Shape:
    """One kind of machine.

    Memory is in GB as the cloud counts it (AWS: of 2**30 bytes); ``accelerator_memory_gb`` is one accelerator's.
    A flexible shape has no size of its own: ``ocpus``, ``vcpus`` and ``memory_gb`` are None, and ``max_ocpus`` and
    ``max_memory_gb`` say how large one may be, where that is known.

    ``neuron_cores`` are physical; ``logical_core_size`` (LNC) of them make one logical core, which is what a process
    gets. ``rdma``: device memory takes part in RDMA. ``trainable`` is False for shapes that only host models;
    ``sagemaker`` says whether SageMaker's training API lists the shape.
    """

    name: str
    cloud: str
    family: str = ""
    vcpus: int | None = None
    ocpus: float | None = None
    memory_gb: float | None = None
    flexible: bool = False
    max_ocpus: float | None = None
    max_memory_gb: float | None = None
    accelerator: str | None = None
    accelerators: int = 0
    accelerator_memory_gb: float | None = None
    neuron_cores: int = 0
    logical_core_size: int = 1
    efa_interfaces: int = 0
    rdma: bool = False
    trainable: bool = True
    sagemaker: bool = False
    source: str = ""

    def logical_cores(self, logical_core_size: int | None = None) -> int:
        """Return the logical Neuron cores at an LNC, by default the shape's own: 64 on trn2.48xlarge, 32 on trn1."""
        return self.neuron_cores // (logical_core_size or self.logical_core_size)


class UnknownShape(LookupError):
    """The catalogue has no shape of that name; ``nearest`` holds the names most like it, the best first.

    Where the name is one of an accelerator, they are the shapes that have it, the smallest first.
    """

    def __init__(self, name: str, nearest: tuple[str, ...] = ()) -> None:
        self.name = name
        self.nearest = nearest
        near = f"; nearest: {', '.join(nearest)}" if nearest else ""
        super().__init__(f"no shape is called {name!r}{near}")


def find(name: str, *, cloud: str | None = None) -> Shape:
    """Return the shape of that name, whatever its case; ``ml.`` before an EC2 name may be there or not.

    Without a cloud, names that begin with VM. or BM. are looked up in OCI first.

    Raises:
        UnknownShape: no shape goes by that name.

    >>> find("ml.g5.12xlarge").accelerators
    4
    >>> find("vm.gpu.a10.2").accelerator
    'A10'
    """
    key = name.strip().lower()
    clouds = (cloud,) if cloud else CLOUDS if key.startswith(("vm.", "bm.")) else CLOUDS[::-1]
    for one in clouds:
        bare = key.removeprefix("ml.") if one == "aws" else key
        if bare in _rows(one):
            return _shape(one, bare)
    raise UnknownShape(name, _nearest(key, clouds))


def names(cloud: str) -> tuple[str, ...]:
    """Return the names of all shapes of a cloud, in the order of its file."""
    return tuple(name for name, _, _ in _rows(cloud).values())


def _nearest(key: str, clouds: tuple[str, ...]) -> tuple[str, ...]:
    if having := _having(key, clouds):
        return having
    known = {low: row[0] for one in clouds for low, row in _rows(one).items()}
    bare = key.removeprefix("ml.")
    like = difflib.get_close_matches(bare, known, n=3, cutoff=0.6)
    found = [known[low] for low in like or [low for low in known if low.startswith(f"{bare}.")][:3]]
    return tuple(f"ml.{name}" if key.startswith("ml.") else name for name in found)


def _having(key: str, clouds: tuple[str, ...]) -> tuple[str, ...]:
    """Return shapes with the accelerator of a name such as ``a100``, ``NVIDIA H100``, ``2xA10`` or ``A100-80GB``."""
    found = _ACCELERATOR.fullmatch("".join(word for word in re.split(r"[\s_-]+", key) if not _BESIDE.fullmatch(word)))
    if found is None:
        return ()
    count, bare = int(found["count"] or found["counted"] or 0), found["name"]
    kinds: dict[tuple[str, str | None, int, float | None], Shape] = {}
    for shape in (_shape(one, low) for one in clouds for low in _rows(one)):
        name = (shape.accelerator or "").lower().replace(" ", "")
        # an A10G is an A10 to whoever asks, an A100 is not
        if shape.accelerators and re.fullmatch(rf"{re.escape(bare)}[a-z]?", name):
            kind = (shape.cloud, shape.accelerator, shape.accelerators, shape.accelerator_memory_gb)
            kinds.setdefault(kind, shape)
    order = sorted(kinds.values(), key=lambda one: (one.accelerators != count, one.accelerators, one.accelerator))
    return tuple(shape.name for shape in order[:_MOST_NEAREST])


@cache
def _rows(cloud: str) -> dict[str, tuple[str, Mapping[str, Any], list[Any]]]:
    """Return a cloud's rows by name in lower case: the name, its family's facts, the numbers of its columns."""
    if cloud not in CLOUDS:
        raise ValueError(f"no catalogue for the cloud {cloud!r}; there are {' and '.join(CLOUDS)}")
    data = json.loads(Path(__file__).with_name(f"{cloud}.json").read_bytes())
    return {
        name.lower(): (name, family, numbers)
        for family in data["families"]
        for name, numbers in family["shapes"].items()
    }


@cache
def _shape(cloud: str, key: str) -> Shape:
    return (_oci if cloud == "oci" else _aws)(*_rows(cloud)[key])


def _oci(name: str, family: Mapping[str, Any], numbers: list[Any]) -> Shape:
    ocpus, memory_gb, accelerators = numbers
    flexible = family.get("flexible", False)
    return Shape(
        name=name,
        cloud="oci",
        family=family["family"],
        ocpus=None if flexible else ocpus,
        vcpus=None if flexible else ocpus * family.get("vcpusPerOcpu", 2),
        memory_gb=None if flexible else memory_gb,
        flexible=flexible,
        max_ocpus=ocpus if flexible else None,
        max_memory_gb=memory_gb if flexible else None,
        accelerator=family.get("accelerator"),
        accelerators=accelerators,
        accelerator_memory_gb=family.get("acceleratorMemoryGB"),
        rdma=family.get("rdma", False),
        source=family["source"],
    )


def _aws(name: str, family: Mapping[str, Any], numbers: list[Any]) -> Shape:
    vcpus, memory_gb, accelerators, efa_interfaces, sagemaker = numbers
    memory_mib = family.get("acceleratorMemoryMiB")
    return Shape(
        name=name,
        cloud="aws",
        family=family["family"],
        vcpus=vcpus,
        memory_gb=memory_gb,
        accelerator=family.get("accelerator"),
        accelerators=accelerators,
        accelerator_memory_gb=round(memory_mib / 1024, 2) if memory_mib else None,
        neuron_cores=accelerators * family.get("coresPerDevice", 0),
        logical_core_size=family.get("logicalCoreSize", 1),
        efa_interfaces=efa_interfaces,
        rdma=family.get("rdma", False) and efa_interfaces > 0,
        trainable=family.get("trainable", True),
        sagemaker=bool(sagemaker),
        source=family["source"],
    )
