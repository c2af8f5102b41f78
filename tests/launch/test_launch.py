import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.errors import SpecError
from cloudtune.launch import Launch, launch, ranks, run_time_limit_s
from cloudtune.launch.machine import shape_of
from cloudtune.spec.environment import variables
from cloudtune.spec.infrastructure import Accelerator, DataScienceJob, EKSJob, LocalJob, SageMakerTrainingJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import (
    ContainerRuntime,
    GitPythonRuntime,
    NeuronDistributedRuntime,
    NotebookRuntime,
    PythonRuntime,
    PyTorchDistributedRuntime,
    Recipe,
    Runtime,
    ScriptRuntime,
)

TRAIN = "torchrun train.py"
A10 = DataScienceJob(shape_name="VM.GPU.A10.2")


def pytorch(command: str | tuple[str, ...] | None = TRAIN, **keys: Any) -> PyTorchDistributedRuntime:
    return PyTorchDistributedRuntime(command=command, **keys)


def neuron(**keys: Any) -> NeuronDistributedRuntime:
    return NeuronDistributedRuntime(**{"command": TRAIN, **keys})


def plan(infrastructure: Any, runtime: Runtime) -> Launch:
    return launch(JobSpec(infrastructure=infrastructure, runtime=runtime))


def faults(infrastructure: Any, runtime: Runtime | None) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        launch(JobSpec(infrastructure=infrastructure, runtime=runtime))
    return {fault.path: str(fault) for fault in caught.value.faults}


# the five seed scenarios


def test_seed_oci_13b_is_six_nodes_of_two_a10() -> None:
    line = "torchrun examples/finetuning.py --enable_fsdp --use_peft --model_name meta-llama/Llama-2-13b-hf"
    got = plan(A10, pytorch(line, replicas=6))
    assert got.to_dict() == {
        "nodes": 6,
        "processesPerNode": 2,
        "worldSize": 12,
        "accelerator": "A10",
        "command": line,
        "environment": {},
    }
    assert (got.launcher, got.accelerators_per_node, got.warnings) == ("torchrun", 2, ())


def test_seed_sagemaker_qlora_is_one_node_of_four_a10g() -> None:
    runtime = pytorch(
        None, script_path_uri="scripts/trl/", entrypoint="run_fsdp_qlora.py", args=("--use_qlora", "True")
    )
    got = plan(SageMakerTrainingJob(instance_type="ml.g5.12xlarge"), runtime)
    assert (got.nodes, got.processes_per_node, got.world_size, got.accelerator) == (1, 4, 4, "A10G")
    assert got.command == ("torchrun", "run_fsdp_qlora.py", "--use_qlora", "True")
    assert (got.launcher, dict(got.environment), got.warnings) == ("torchrun", {}, ())


def test_seed_sagemaker_trainium_is_one_node_of_two_cores() -> None:
    got = plan(SageMakerTrainingJob(instance_type="ml.trn1.2xlarge"), neuron(command="torchrun run_clm.py"))
    assert (got.nodes, got.processes_per_node, got.accelerator, got.launcher) == (1, 2, "Trainium", "neuron")
    assert (got.accelerators_per_node, got.neuron and got.neuron["coresPerNode"]) == (1, 2)


def test_seed_eks_fsdp_is_two_nodes_of_eight_h100() -> None:
    line = "torchrun --nnodes 2 --nproc_per_node 8 recipes/quickstart/finetuning/finetuning.py --enable_fsdp"
    got = plan(EKSJob(instance_type="p5.48xlarge"), pytorch(line, replicas=2))
    assert (got.nodes, got.processes_per_node, got.world_size, got.accelerator) == (2, 8, 16, "H100")
    assert (got.command, dict(got.environment), got.warnings) == (line, {}, ())


def test_seed_eks_trainium_is_tensor_8_times_data_4() -> None:
    runtime = neuron(
        tensor_parallel_size=8, pipeline_parallel_size=1, compile_cache_uri="/fsx/neuron_cache", precompile=True
    )
    got = plan(EKSJob(instance_type="trn1.32xlarge"), runtime)
    assert (got.nodes, got.processes_per_node, got.accelerators_per_node, got.launcher) == (1, 32, 16, "neuron")
    assert got.neuron == {
        "devicesPerNode": 16,
        "coresPerNode": 32,
        "mode": "xla",
        "tensorParallelSize": 8,
        "pipelineParallelSize": 1,
        "dataParallelSize": 4,
        "precompile": True,
        "compileCacheUri": "/fsx/neuron_cache",
    }
    assert got.environment == {"NEURON_COMPILE_CACHE_URL": "/fsx/neuron_cache"}
    ((path, message),) = got.warnings
    assert path == "spec.runtime.spec.tensorParallelSize"
    assert "32 ranks = tensor 8 x pipeline 1 x data 4" in message


def test_the_seeds_manifest_leaves_24_of_32_cores_idle() -> None:
    runtime = neuron(command="torchrun --nproc_per_node=8 --nnodes=1 train.py", tensor_parallel_size=8)
    got = plan(EKSJob(instance_type="trn1.32xlarge"), runtime)
    assert (got.processes_per_node, got.neuron and got.neuron["dataParallelSize"]) == (8, 1)
    told = " ".join(message for _, message in got.warnings)
    assert "--nproc_per_node 8 wins: 8 processes a node, not 32" in told
    assert "data-parallel degree is 1" in told
    assert "24 cores of every node stay idle" in told


# nodes and processes


@pytest.mark.parametrize(
    ("infrastructure", "runtime", "expected"),
    [
        (LocalJob(), pytorch(replicas=2), (2, 1, None)),
        (LocalJob(accelerator=Accelerator(name="RTX 4090", count=2)), pytorch(), (1, 2, "RTX 4090")),
        (LocalJob(), pytorch(processes_per_node=3), (1, 3, None)),
        (LocalJob(), pytorch("torchrun --nproc-per-node 4 x.py"), (1, 4, None)),
        (DataScienceJob(shape_name="VM.Standard.E4.Flex"), pytorch(replicas=2), (2, 1, None)),
        (DataScienceJob(shape_name="vm.gpu.a10.2"), pytorch(), (1, 2, "A10")),
        (SageMakerTrainingJob(instance_type="ml.m5.xlarge"), pytorch(), (1, 1, None)),
        (
            SageMakerTrainingJob(instance_type="ml.p4d.24xlarge"),
            pytorch("accelerate launch x.py", replicas=4),
            (4, 8, "A100"),
        ),
        (EKSJob(instance_type="ml.p5.48xlarge"), pytorch("deepspeed x.py"), (1, 8, "H100")),
        (EKSJob(instance_type="trn1.32xlarge"), pytorch(), (1, 32, "Trainium")),
        (EKSJob(instance_type="trn2.48xlarge"), neuron(), (1, 64, "Trainium2")),
        (EKSJob(accelerator=Accelerator(name="L4", count=4)), pytorch(), (1, 4, "L4")),
        (
            EKSJob(instance_type="x9.big", accelerator=Accelerator(name="Trainium3", count=16, neuron_cores=64)),
            neuron(),
            (1, 64, "Trainium3"),
        ),
        (EKSJob(instance_type="p5.48xlarge", accelerator=Accelerator(count=4)), pytorch(), (1, 4, "H100")),
        (EKSJob(instance_type="trn1.32xlarge", accelerator=Accelerator(count=8)), neuron(), (1, 16, "Trainium")),
        (EKSJob(), pytorch(processes_per_node=2), (1, 2, None)),
        (EKSJob(), ScriptRuntime(script_path_uri="a.py"), (1, 1, None)),
        (A10, ScriptRuntime(script_path_uri="a.py", replicas=3), (3, 1, "A10")),
        (A10, PythonRuntime(script_path_uri="a.py", processes_per_node=2), (1, 2, "A10")),
        (A10, GitPythonRuntime(url="u", entrypoint="a.py"), (1, 1, "A10")),
        (A10, NotebookRuntime(notebook_path_uri="a.ipynb"), (1, 1, "A10")),
        (A10, ContainerRuntime(image="i", replicas=2), (2, 1, "A10")),
        (A10, ScriptRuntime(recipe=Recipe(name="tokenize")), (1, 1, "A10")),
        (A10, pytorch(None, recipe=Recipe(name="sft")), (1, 2, "A10")),
    ],
)
def test_nodes_and_processes(infrastructure: Any, runtime: Runtime, expected: tuple[int, int, str | None]) -> None:
    got = plan(infrastructure, runtime)
    assert (got.nodes, got.processes_per_node, got.accelerator) == expected


@pytest.mark.parametrize(
    ("command", "keys", "launcher"),
    [
        (TRAIN, {}, "torchrun"),
        (None, {"script_path_uri": "t.py"}, "torchrun"),
        (("python", "-m", "torch.distributed.run", "t.py"), {}, "torchrun"),
        ("accelerate launch t.py", {}, "accelerate"),
        ("deepspeed t.py", {}, "deepspeed"),
        ("my-launcher t.py", {"deepspeed": True}, "deepspeed"),
        (TRAIN, {"deepspeed": True}, "deepspeed"),
        ("python t.py", {}, "command"),
    ],
)
def test_the_launcher(command: Any, keys: dict[str, Any], launcher: str) -> None:
    assert plan(A10, pytorch(command, **keys)).launcher == launcher


@pytest.mark.parametrize(
    ("line", "replicas", "expected", "notes"),
    [
        ("torchrun --nproc_per_node 1 t.py", 6, (6, 1), ["--nproc_per_node 1 wins", "1 process on 2 A10"]),
        ("torchrun --nnodes=1 t.py", 2, (1, 2), ["--nnodes 1 wins over replicas: nodes = 1, not 2"]),
        ("torchrun --nnodes 3 t.py", None, (3, 2), ["nodes = 3"]),
        ("torchrun --nnodes 1:4 t.py", 2, (2, 2), ["--nnodes 1:4 wins on the node"]),
        ("accelerate launch --num_processes 12 --num-machines 6 t.py", 6, (6, 2), []),
        ("accelerate launch --num_processes 6 t.py", 6, (6, 1), ["--num_processes 6 wins", "1 process on 2 A10"]),
        ("deepspeed --num_gpus 4 t.py", 1, (1, 4), ["--num_gpus 4 wins", "4 processes share 2 A10"]),
        ("torchrun --node_rank 0 t.py", 2, (2, 2), ["--node_rank 0 is the same on all 2 nodes"]),
        ("python t.py --nnodes 9", 2, (2, 2), []),
    ],
)
def test_a_users_flag_wins(line: str, replicas: int | None, expected: tuple[int, int], notes: list[str]) -> None:
    got = plan(A10, pytorch(line, replicas=replicas))
    assert (got.nodes, got.processes_per_node) == expected
    assert got.command == line
    assert len(got.warnings) == len(notes)
    for (path, message), note in zip(got.warnings, notes, strict=True):
        assert note in message
        assert path.startswith("spec.runtime.spec.")


NODES = st.integers(1, 40)
PROCESSES = st.integers(1, 64)


@given(NODES, PROCESSES)
def test_ranks_cover_the_world_once(nodes: int, processes: int) -> None:
    got = plan(LocalJob(), pytorch(replicas=nodes, processes_per_node=processes))
    per_node = ranks(got)
    assert len(per_node) == nodes
    assert {len(node) for node in per_node} == {processes}
    assert sorted(rank for node in per_node for rank in node) == list(range(got.world_size))


@given(NODES, NODES | st.none(), PROCESSES | st.none(), st.sampled_from(["--nproc_per_node", "--nproc-per-node"]))
def test_ranks_cover_the_world_once_whatever_the_flags(
    replicas: int, nnodes: int | None, processes: int | None, spelling: str
) -> None:
    flags = ([f"--nnodes={nnodes}"] if nnodes else []) + ([spelling, str(processes)] if processes else [])
    got = plan(A10, pytorch(("torchrun", *flags, "train.py"), replicas=replicas))
    assert (got.nodes, got.processes_per_node) == (nnodes or replicas, processes or 2)
    assert sorted(rank for node in ranks(got) for rank in node) == list(range(got.world_size))


@given(
    st.sampled_from(["trn1.2xlarge", "trn1.32xlarge", "trn2.48xlarge"]),
    NODES,
    st.sampled_from([1, 2, 4, 8, 16, 3, 5]),
    st.sampled_from([1, 2, 4, 3]),
)
def test_neuron_degrees_multiply_to_the_world_or_are_refused(name: str, nodes: int, tensor: int, pipeline: int) -> None:
    runtime = neuron(replicas=nodes, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline)
    world = nodes * {"trn1.2xlarge": 2, "trn1.32xlarge": 32, "trn2.48xlarge": 64}[name]
    if world % (tensor * pipeline):
        told = faults(EKSJob(instance_type=name), runtime)["spec.runtime.spec.tensorParallelSize"]
        for number in (nodes, world, tensor, pipeline, tensor * pipeline):
            assert str(number) in told
    else:
        details = plan(EKSJob(instance_type=name), runtime).neuron
        assert details is not None
        assert tensor * pipeline * details["dataParallelSize"] == world


# shapes


@pytest.mark.parametrize(
    ("infrastructure", "path", "words"),
    [
        (DataScienceJob(), "spec.infrastructure.spec.shapeName", "spec.infrastructure.spec.accelerator"),
        (SageMakerTrainingJob(), "spec.infrastructure.spec.instanceType", "spec.infrastructure.spec.accelerator"),
        (EKSJob(), "spec.infrastructure.spec.instanceType", "spec.infrastructure.spec.accelerator"),
        (DataScienceJob(shape_name="VM.GPU.A10.3"), "spec.infrastructure.spec.shapeName", "VM.GPU.A10.2"),
        (
            SageMakerTrainingJob(instance_type="ml.g5.13xlarge"),
            "spec.infrastructure.spec.instanceType",
            "ml.g5.12xlarge",
        ),
        (EKSJob(instance_type="VM.GPU.A10.2"), "spec.infrastructure.spec.instanceType", "accelerator"),
        (EKSJob(instance_type="inf2.48xlarge"), "spec.infrastructure.spec.instanceType", "only hosts models"),
    ],
)
def test_a_missing_or_unknown_shape_is_a_fault(infrastructure: Any, path: str, words: str) -> None:
    told = faults(infrastructure, pytorch())
    assert list(told) == [path]
    assert words in told[path]


def test_all_faults_come_at_once() -> None:
    told = faults(DataScienceJob(shape_name="VM.GPU.A10.3"), pytorch(None))
    assert set(told) == {"spec.runtime.spec.command", "spec.infrastructure.spec.shapeName"}
    runtime = neuron(
        command=None, mode="torchNeuron", precompile=True, tensor_parallel_size=5, compile_cache_uri="gs://b/x"
    )
    assert set(faults(SageMakerTrainingJob(instance_type="ml.trn1.2xlarge"), runtime)) == {
        "spec.runtime.spec.command",
        "spec.runtime.spec.mode",
        "spec.runtime.spec.precompile",
        "spec.runtime.spec.compileCacheUri",
        "spec.runtime.spec.tensorParallelSize",
    }


def test_a_recipe_of_xla_is_refused_in_the_other_mode() -> None:
    recipe = Recipe(name="sft_neuron", args={"model": "m", "trainData": "d"})
    runtime = neuron(command=None, recipe=recipe, mode="torchNeuron")
    told = faults(EKSJob(instance_type="trn2.48xlarge"), runtime)
    assert told == {"spec.runtime.spec.mode": told["spec.runtime.spec.mode"]}
    assert "sft_neuron trains by optimum-neuron" in told["spec.runtime.spec.mode"]


def test_a_job_without_a_runtime_is_a_fault() -> None:
    assert list(faults(A10, None)) == ["spec.runtime"]
    with pytest.raises(SpecError, match=r"spec\.runtime: "):
        run_time_limit_s(JobSpec())


def test_inferentia_runs_scripts_on_eks_but_not_on_sagemaker() -> None:
    script = ScriptRuntime(script_path_uri="a.py")
    assert plan(EKSJob(instance_type="inf2.xlarge"), script).accelerator == "Inferentia2"
    assert list(faults(SageMakerTrainingJob(instance_type="ml.inf2.xlarge"), script)) == [
        "spec.infrastructure.spec.instanceType"
    ]


def test_a_shape_that_sagemaker_does_not_list_is_a_warning() -> None:
    ((path, message),) = plan(SageMakerTrainingJob(instance_type="ml.m5.8xlarge"), pytorch()).warnings
    assert path == "spec.infrastructure.spec.instanceType"
    assert "ml.m5.8xlarge" in message
    assert plan(EKSJob(instance_type="m5.8xlarge"), pytorch()).warnings == ()


def test_the_spec_corrects_the_catalogue() -> None:
    own = Accelerator(name="H100 NVL", memory_in_gb=94, efa_interfaces=2)
    shape = shape_of(JobSpec(infrastructure=EKSJob(instance_type="p5.48xlarge", accelerator=own), runtime=pytorch()))
    assert shape is not None
    assert (shape.accelerator, shape.accelerators, shape.accelerator_memory_gb) == ("H100 NVL", 8, 94)
    assert (shape.efa_interfaces, shape.vcpus) == (2, 192)
    assert shape.source.startswith("spec.infrastructure.spec.accelerator")
    assert shape_of(JobSpec(runtime=pytorch())) is None


# environment


P4D = SageMakerTrainingJob(instance_type="ml.p4d.24xlarge")


@pytest.mark.parametrize(
    ("infrastructure", "runtime", "environment"),
    [
        (P4D, pytorch(replicas=2), {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1"}),
        (P4D, pytorch(), {}),
        (SageMakerTrainingJob(instance_type="ml.g5.48xlarge"), pytorch(replicas=2), {"FI_PROVIDER": "efa"}),
        (SageMakerTrainingJob(instance_type="ml.g5.2xlarge"), pytorch(replicas=2), {}),
        (EKSJob(instance_type="p5.48xlarge"), pytorch(replicas=2), {}),
        (DataScienceJob(shape_name="BM.GPU.H100.8"), pytorch(replicas=2), {}),
        (LocalJob(), pytorch(replicas=2), {}),
        (P4D, pytorch(replicas=2, env=variables({"FI_PROVIDER": "tcp", "X": "1"})), {"FI_EFA_USE_DEVICE_RDMA": "1"}),
        (
            EKSJob(instance_type="trn1.32xlarge"),
            neuron(replicas=2),
            {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_FORK_SAFE": "1"},
        ),
        (EKSJob(instance_type="trn1.32xlarge", efa_per_node=0), neuron(replicas=2), {}),
        (EKSJob(instance_type="trn1.2xlarge"), pytorch(replicas=2), {}),
        (
            EKSJob(instance_type="trn2.48xlarge"),
            neuron(compile_cache_uri="s3://b/cache", mode="torchNeuron"),
            {"NEURON_COMPILE_CACHE_URL": "s3://b/cache"},
        ),
        (
            EKSJob(instance_type="trn2.48xlarge"),
            neuron(compile_cache_uri="file:///fsx/cache", mode="torchNeuron"),
            {"NEURON_COMPILE_CACHE_URL": "/fsx/cache", "TORCH_NEURONX_NEFF_CACHE_DIR": "/fsx/cache"},
        ),
        (
            EKSJob(instance_type="trn1.2xlarge"),
            neuron(compile_cache_uri="/a", env=variables({"NEURON_COMPILE_CACHE_URL": "/b"})),
            {},
        ),
    ],
)
def test_the_environment_holds_what_the_place_needs(
    infrastructure: Any, runtime: Runtime, environment: dict[str, str]
) -> None:
    assert plan(infrastructure, runtime).environment == environment


def test_no_process_of_its_own_is_set_for_the_node() -> None:
    got = plan(EKSJob(instance_type="trn2.48xlarge"), neuron(replicas=4, compile_cache_uri="/fsx/c")).environment
    assert not {name for name in got if name.startswith(("NEURON_RT_", "PET_", "CLOUDTUNE_", "OMP_"))}


# Neuron


def test_the_size_of_a_logical_core_can_be_chosen() -> None:
    trn2 = EKSJob(instance_type="trn2.48xlarge")
    assert plan(trn2, neuron(env=variables({"NEURON_LOGICAL_NC_CONFIG": "1"}))).processes_per_node == 128
    assert plan(trn2, neuron(env=variables({"NEURON_LOGICAL_NC_CONFIG": "$X"}))).processes_per_node == 64


def test_more_processes_than_logical_cores() -> None:
    trn2 = EKSJob(instance_type="trn2.48xlarge")
    assert "unless its LNC is 1" in plan(trn2, neuron(processes_per_node=128)).warnings[1][1]
    told = faults(trn2, neuron(processes_per_node=129))["spec.runtime.spec.processesPerNode"]
    assert "129 processes" in told
    assert "128 Neuron cores" in told


def test_neuron_needs_neuron_cores() -> None:
    told = faults(EKSJob(instance_type="p5.48xlarge"), neuron())["spec.runtime.type"]
    assert "p5.48xlarge has no Neuron cores" in told
    assert plan(LocalJob(), neuron(processes_per_node=2, tensor_parallel_size=2)).launcher == "neuron"
    assert plan(EKSJob(instance_type="trn1.2xlarge"), neuron(command="python t.py")).launcher == "command"


def test_torch_neuron_needs_trainium2() -> None:
    told = faults(EKSJob(instance_type="trn1.32xlarge"), neuron(mode="torchNeuron"))["spec.runtime.spec.mode"]
    assert "Trainium2 or newer" in told
    got = plan(EKSJob(instance_type="trn2.48xlarge"), neuron(mode="torchNeuron"))
    assert got.neuron is not None
    assert got.neuron["mode"] == "torchNeuron"


def test_neuron_cores_are_counted_for_every_runtime() -> None:
    got = plan(EKSJob(instance_type="trn1.32xlarge"), ScriptRuntime(script_path_uri="a.py"))
    assert got.neuron == {"devicesPerNode": 16, "coresPerNode": 32}
    assert got.to_dict()["neuron"] == got.neuron
    json.dumps(got.to_dict())


# the rest


@pytest.mark.parametrize(
    ("minutes", "seconds", "limit_s", "loser"),
    [
        (None, None, None, None),
        (5, None, 300, None),
        (None, 86400, 86400, None),
        (5, 300, 300, None),
        (5, 86400, 300, "spec.infrastructure.spec.maxRuntimeInSeconds"),
        (60, 600, 600, "spec.runtime.spec.maximumRuntimeInMinutes"),
    ],
)
def test_the_smaller_run_time_limit_wins(
    minutes: int | None, seconds: int | None, limit_s: int | None, loser: str | None
) -> None:
    job = JobSpec(
        infrastructure=SageMakerTrainingJob(instance_type="ml.m5.xlarge", max_runtime_in_seconds=seconds),
        runtime=pytorch(maximum_runtime_in_minutes=minutes),
    )
    limit, warning = run_time_limit_s(job)
    assert limit == limit_s
    assert (warning[0] if warning else None) == loser


def test_places_without_a_limit_of_their_own() -> None:
    assert run_time_limit_s(JobSpec(infrastructure=A10, runtime=pytorch(maximum_runtime_in_minutes=2))) == (120, None)


def test_a_launch_is_pure() -> None:
    job = JobSpec(infrastructure=A10, runtime=pytorch(replicas=6))
    code = (
        "import sys; events = []; "
        "sys.addaudithook(lambda event, args: events.append(event) if event.startswith(('socket', 'subprocess')) else None); "
        "from cloudtune.launch import launch; from cloudtune.spec.job import JobSpec; "
        "from cloudtune.spec.infrastructure import EKSJob; from cloudtune.spec.runtimes import PyTorchDistributedRuntime as P; "
        "launch(JobSpec(infrastructure=EKSJob(instance_type='p5.48xlarge'), runtime=P(command='torchrun x.py'))); "
        "heavy = {'torch', 'oci', 'boto3', 'kubernetes', 'fsspec', 'rich', 'yaml', 'click'} & set(sys.modules); "
        "print(events, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
    assert launch(job) == launch(job)
