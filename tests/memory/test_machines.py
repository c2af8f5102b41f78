"""What a process of a node has."""

from __future__ import annotations

import pytest

from cloudtune.memory.machines import GIB, gpu_shapes, machine_of, usable
from cloudtune.shapes import Shape, find


@pytest.mark.parametrize(
    ("shape", "processes", "device", "gigabytes"),
    [
        ("VM.GPU.A10.2", 2, "A10", 22.35),  # 24 GB of 10**9 bytes
        ("ml.g5.12xlarge", 4, "A10G", 22.35),
        ("g4dn.xlarge", 1, "T4", 14.9),
        ("p5.48xlarge", 8, "H100", 80),
        ("p5.48xlarge", 16, "H100", 40),  # two processes share one
        ("trn1.32xlarge", 32, "Trainium core", 16),
        ("trn2.48xlarge", 64, "Trainium2 core", 24),
        ("VM.Standard2.24", 2, "process", 160),
    ],
)
def test_memory_of_a_process(shape: str, processes: int, device: str, gigabytes: float) -> None:
    machine = machine_of(find(shape), processes)
    assert machine is not None
    assert machine.device == device
    assert machine.memory / GIB == pytest.approx(gigabytes, abs=0.02)


def test_a_flexible_shape_has_what_the_spec_says() -> None:
    shape = find("VM.Standard.E4.Flex")
    assert machine_of(shape, 2) is None
    machine = machine_of(shape, 2, memory_gb=64)
    assert machine is not None
    assert machine.memory == 32 * GIB


def test_logical_cores_of_another_size() -> None:
    machine = machine_of(find("trn2.48xlarge"), 128, cores=128)
    assert machine is not None
    assert machine.memory == 12 * GIB


def test_an_accelerator_of_unknown_memory_is_no_machine() -> None:
    assert machine_of(Shape(name="new", cloud="oci", accelerator="X1", accelerators=2), 2) is None


def test_shapes_with_gpus_are_listed_once_each() -> None:
    shapes = list(gpu_shapes(("aws",)))
    names = [shape.name for shape in shapes]
    assert "g5.xlarge" in names
    assert "g5.2xlarge" not in names
    assert not [name for name in names if name.startswith(("trn", "inf", "m5"))]
    kinds = [(shape.accelerator, shape.accelerators, usable(shape)) for shape in shapes]
    assert len(set(kinds)) == len(kinds)
