"""How much memory a process of a training has: an accelerator's, a Neuron core's, or its part of a machine's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cloudtune.shapes import CLOUDS, Shape, find, names

GIB = 1024**3
#: Cards with GDDR memory: their round figure counts GB of 10**9 bytes, of which error correction takes its share off
#: the chips. (nvidia-smi shows 23,028 MiB on an A10, 46,068 on an L40S, 15,360 on a T4; EC2 lists 22,888 and 45,776.)
_GDDR = ("A10", "L4", "L40S", "T4")


class Machine(NamedTuple):
    """What the processes of a node run on: ``number`` devices a node, ``memory`` bytes for each process.

    ``accelerator`` is None where processes compute on the CPU and share the machine's memory.
    """

    name: str
    accelerator: str | None
    number: int
    memory: float

    @property
    def device(self) -> str:
        """What one process has, as it is called in a sentence."""
        return self.accelerator or "process"


def machine_of(shape: Shape, processes: int, *, cores: int = 0, memory_gb: float | None = None) -> Machine | None:
    """Return what each of a node's processes has; None where nothing says how much memory that is.

    ``cores`` are the node's logical Neuron cores, if it has any; ``memory_gb`` is a flexible shape's memory.
    """
    if not shape.accelerators:
        whole = memory_gb or shape.memory_gb
        if not whole:
            return None
        return Machine(name=shape.name, accelerator=None, number=processes, memory=whole * GIB / processes)
    if not shape.accelerator_memory_gb:
        return None
    memory, name = usable(shape), shape.accelerator or "accelerator"
    if not shape.neuron_cores:
        # processes beyond the accelerators share them
        crowd = -(-processes // shape.accelerators)
        return Machine(name=shape.name, accelerator=name, number=shape.accelerators, memory=memory / crowd)
    cores = cores or shape.logical_cores()
    each = memory * shape.accelerators / cores
    return Machine(name=shape.name, accelerator=f"{name} core", number=cores, memory=each)


def usable(shape: Shape) -> float:
    """Return the bytes of one accelerator.

    >>> round(usable(find("VM.GPU.A10.2")) / GIB, 1)
    22.4
    """
    given = shape.accelerator_memory_gb or 0
    in_gddr = shape.accelerator in _GDDR and given == int(given)
    return given * (10**9 if in_gddr else GIB)


def gpu_shapes(clouds: tuple[str, ...] = CLOUDS) -> Iterator[Shape]:
    """Yield the shapes with GPUs: of those with equal accelerators the first of each cloud, the smallest machine."""
    for cloud in clouds:
        seen = set()
        for name in names(cloud):
            shape = find(name, cloud=cloud)
            kind = (shape.accelerator, shape.accelerators, shape.accelerator_memory_gb)
            if shape.accelerators and not shape.neuron_cores and shape.trainable and kind not in seen:
                seen.add(kind)
                yield shape
