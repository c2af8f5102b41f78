import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.shapes import CLOUDS, Shape, UnknownShape, find, names

FILES = {cloud: Path(__file__).parents[2] / "cloudtune" / "shapes" / f"{cloud}.json" for cloud in CLOUDS}
EVERY = [pytest.param(cloud, name, id=name) for cloud in CLOUDS for name in names(cloud)]
TABLE = Path(__file__).parents[3] / "shared" / "research" / "aws-shapes.tsv"

#: Where the table of EC2's own answers is wrong or silent: shape -> column -> what is right.
CORRECTIONS = {
    "trn2.3xlarge": {"accelMiB": "98304"},
    "trn2.48xlarge": {"accelMiB": "98304"},
    "trn2u.48xlarge": {"accel": "Trainium2", "count": "16", "accelMiB": "98304", "neuroncores/dev": "8"},
}


@pytest.mark.parametrize(
    ("name", "accelerator", "count", "memory_gb"),
    [
        ("VM.GPU2.1", "P100", 1, 16),
        ("VM.GPU3.4", "V100", 4, 16),
        ("VM.GPU.A10.2", "A10", 2, 24),
        ("BM.GPU4.8", "A100", 8, 40),
        ("BM.GPU.A100-v2.8", "A100", 8, 80),
        ("BM.GPU.H200.8", "H200", 8, 141),
        ("BM.GPU.MI300X.8", "MI300X", 8, 192),
        ("p3.16xlarge", "V100", 8, 16),
        ("ml.p3dn.24xlarge", "V100", 8, 32),
        ("ml.p4de.24xlarge", "A100", 8, 80),
        ("p5.48xlarge", "H100", 8, 80),
        ("ml.g5.12xlarge", "A10G", 4, 22.35),
        ("ml.trn1.2xlarge", "Trainium", 1, 32),
        ("trn1.32xlarge", "Trainium", 16, 32),
        ("trn2.48xlarge", "Trainium2", 16, 96),
        ("inf2.24xlarge", "Inferentia2", 6, 32),
    ],
)
def test_accelerators(name: str, accelerator: str, count: int, memory_gb: float) -> None:
    shape = find(name)
    assert (shape.accelerator, shape.accelerators, shape.accelerator_memory_gb) == (accelerator, count, memory_gb)


@pytest.mark.parametrize(
    ("name", "physical", "logical"),
    [
        ("trn1.2xlarge", 2, 2),
        ("trn1.32xlarge", 32, 32),
        ("trn1n.32xlarge", 32, 32),
        ("trn2.3xlarge", 8, 4),
        ("trn2.48xlarge", 128, 64),
        ("trn2u.48xlarge", 128, 64),
        ("inf2.48xlarge", 24, 24),
        ("inf1.24xlarge", 64, 64),
        ("p5.48xlarge", 0, 0),
    ],
)
def test_neuron_cores(name: str, physical: int, logical: int) -> None:
    shape = find(name)
    assert (shape.neuron_cores, shape.logical_cores(), shape.logical_cores(1)) == (physical, logical, physical)


@pytest.mark.parametrize(
    ("name", "interfaces"),
    [
        ("p4d.24xlarge", 4),
        ("p5.48xlarge", 32),
        ("p5en.48xlarge", 16),
        ("trn1.32xlarge", 8),
        ("trn1n.32xlarge", 16),
        ("trn1.2xlarge", 0),
        ("g5.2xlarge", 0),
        ("g5.48xlarge", 1),
    ],
)
def test_efa_interfaces(name: str, interfaces: int) -> None:
    assert find(name).efa_interfaces == interfaces


def test_a_name_is_found_in_any_case_and_with_or_without_ml() -> None:
    assert find("vm.gpu.a10.2") is find("VM.GPU.A10.2", cloud="oci")
    assert find("BM.GPU.A100-V2.8").name == "BM.GPU.A100-v2.8"
    assert find("ML.G5.12XLARGE", cloud="aws") is find(" g5.12xlarge ")


@pytest.mark.parametrize(
    ("name", "cloud", "nearest"),
    [
        ("VM.GPU.A10.3", None, "VM.GPU.A10.2"),
        ("ml.g5.12xlarg", "aws", "ml.g5.12xlarge"),
        ("p5.48", None, "p5.48xlarge"),
        ("VM.Standard.E4Flex", "oci", "VM.Standard.E4.Flex"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, cloud: str | None, nearest: str) -> None:
    with pytest.raises(UnknownShape) as caught:
        find(name, cloud=cloud)
    assert caught.value.nearest[0] == nearest
    assert name in str(caught.value)
    assert nearest in str(caught.value)


def test_a_shape_of_another_cloud_is_unknown() -> None:
    with pytest.raises(UnknownShape):
        find("VM.GPU.A10.2", cloud="aws")
    with pytest.raises(UnknownShape, match=r"no shape is called 'banana'$"):
        find("banana")


def test_an_unknown_cloud_is_refused() -> None:
    with pytest.raises(ValueError, match="there are oci and aws"):
        find("n1-standard-4", cloud="gcp")


def test_only_inferentia_is_not_for_training() -> None:
    untrainable = {find(name).family for cloud in CLOUDS for name in names(cloud) if not find(name).trainable}
    assert untrainable == {"inf1", "inf2"}


def test_sagemaker_trains_on_few_of_ec2s_shapes() -> None:
    assert find("ml.g5.12xlarge").sagemaker
    assert find("ml.trn2.48xlarge").sagemaker
    assert not find("g4dn.metal").sagemaker
    assert not find("inf2.xlarge").sagemaker
    assert not find("VM.GPU.A10.2").sagemaker


def test_a_flexible_shape_has_a_largest_size_and_none_of_its_own() -> None:
    shape = find("VM.Standard.E4.Flex")
    assert shape.flexible
    assert (shape.ocpus, shape.vcpus, shape.memory_gb) == (None, None, None)
    assert (shape.max_ocpus, shape.max_memory_gb) == (114, 1760)


def test_an_ocpu_is_two_vcpus_but_for_arm() -> None:
    assert (find("VM.Standard2.24").ocpus, find("VM.Standard2.24").vcpus) == (24, 48)
    assert find("BM.Standard.A1.160").vcpus == 160


@pytest.mark.parametrize(("cloud", "name"), EVERY)
def test_every_shape_is_sane(cloud: str, name: str) -> None:
    shape = find(name, cloud=cloud)
    assert (shape.name, shape.cloud) == (name, cloud)
    assert shape.source
    has = shape.accelerators > 0
    assert has == (shape.accelerator is not None) == (shape.accelerator_memory_gb is not None)
    if shape.flexible:
        assert not has
        assert name.lower().endswith(".flex")
    else:
        assert shape.vcpus is not None
        assert shape.memory_gb is not None
        assert shape.vcpus > 0
        assert shape.memory_gb > 0
    if shape.neuron_cores:
        assert shape.neuron_cores % shape.accelerators == 0
        assert shape.neuron_cores // shape.accelerators in (2, 4, 8)
        assert shape.neuron_cores % shape.logical_core_size == 0
    assert bool(shape.neuron_cores) == (shape.family[:3] in ("trn", "inf"))
    assert not (shape.rdma and cloud == "aws" and not shape.efa_interfaces)
    assert not (shape.sagemaker and not shape.trainable)


def test_an_oci_gpu_shapes_name_ends_in_its_gpu_count() -> None:
    for name in names("oci"):
        shape = find(name)
        if shape.accelerators:
            assert int(name.rsplit(".", 1)[1]) == shape.accelerators


@pytest.mark.parametrize("cloud", CLOUDS)
def test_no_name_stands_twice_in_a_file(cloud: str) -> None:
    seen: list[str] = []

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        seen.extend(key.lower() for key, value in items if isinstance(value, list) and "." in key)
        return dict(items)

    json.loads(FILES[cloud].read_text(), object_pairs_hook=pairs)
    assert len(seen) == len(set(seen)) == len(names(cloud))


def _row(shape: Shape) -> dict[str, str]:
    per_device = shape.neuron_cores // shape.accelerators if shape.neuron_cores else None
    return {
        "vcpu": str(shape.vcpus),
        "memGiB": str(shape.memory_gb),
        "accel": str(shape.accelerator),
        "count": str(shape.accelerators),
        "neuroncores/dev": str(per_device),
        "efaIfs": str(shape.efa_interfaces or None),
    }


@pytest.mark.skipif(not TABLE.exists(), reason="the table of EC2's own answers is not beside this checkout")
def test_the_data_agrees_with_ec2_but_for_known_corrections() -> None:
    used: set[tuple[str, str]] = set()
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) > 60
    for row in rows:
        shape = find(row["type"], cloud="aws")
        right = CORRECTIONS.get(row["type"], {})
        used |= {(row["type"], column) for column, value in right.items() if row[column] != value}
        expected = {**row, **right}
        assert _row(shape) == {column: expected[column] for column in _row(shape)}, row["type"]
        assert shape.accelerator_memory_gb is not None
        assert round(shape.accelerator_memory_gb, 2) == round(int(expected["accelMiB"]) / 1024, 2), row["type"]
    assert used == {(name, column) for name, columns in CORRECTIONS.items() for column in columns}


def test_a_look_up_reads_the_one_file_it_needs() -> None:
    code = (
        "import sys; opened = []; "
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None); "
        "from cloudtune.shapes import find; early = [p for p in opened if p.endswith('.json')]; "
        "find('VM.GPU.A10.2'); print(early, [p.rsplit('/')[-1] for p in opened if p.endswith('.json')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "['oci.json']"]
