"""How a job is spread over Neuron cores: tensor x pipeline x data degree, and the variables of Neuron's runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudtune.errors import Fault, SpecError
from cloudtune.shapes import Shape
from cloudtune.spec.runtimes import NeuronDistributedRuntime, Runtime

_SPEC = "spec.runtime.spec"
#: Devices that the native PyTorch device does not know (Neuron docs, "relevant for Trn2, Trn3").
_XLA_ONLY = ("Trainium", "Inferentia", "Inferentia2")

Warnings = tuple[tuple[str, str], ...]


def cores_of(shape: Shape | None, runtime: Runtime) -> int:
    """Return the logical Neuron cores of a node; NEURON_LOGICAL_NC_CONFIG among the job's variables decides the LNC."""
    if shape is None or not shape.neuron_cores:
        return 0
    sizes = [variable.value for variable in runtime.env if variable.name == "NEURON_LOGICAL_NC_CONFIG"]
    return shape.logical_cores(int(sizes[-1])) if sizes and sizes[-1] in ("1", "2") else shape.logical_cores()


def spread(
    runtime: Runtime, shape: Shape | None, *, nodes: int, processes: int, cores: int
) -> tuple[dict[str, Any] | None, Warnings]:
    """Return the degrees of a job over Neuron cores (None where there are none), and what the user should know.

    Raises:
        SpecError: the degrees do not divide the world, the cores do not suffice, or the device lacks the mode.
    """
    details: dict[str, Any] = {"devicesPerNode": shape.accelerators if shape else 0, "coresPerNode": cores}
    if not isinstance(runtime, NeuronDistributedRuntime):
        return (details, ()) if cores else (None, ())
    faults = tuple(_faults(runtime, shape, nodes=nodes, processes=processes, cores=cores))
    if faults:
        raise SpecError(faults)
    tensor, pipeline = runtime.tensor_parallel_size, runtime.pipeline_parallel_size
    data = nodes * processes // (tensor * pipeline)
    details |= {
        "mode": runtime.mode,
        "tensorParallelSize": tensor,
        "pipelineParallelSize": pipeline,
        "dataParallelSize": data,
        "precompile": bool(runtime.precompile or runtime.precompile_only),
        "compileCacheUri": runtime.compile_cache_uri,
        **({"precompileOnly": True} if runtime.precompile_only else {}),
    }
    product = f"tensor {tensor} x pipeline {pipeline} x data {data}"
    told = f"{_world(nodes, processes)} = {product}: the data-parallel degree is {data}"
    warnings = [(f"{_SPEC}.tensorParallelSize", told)]
    if cores > processes:
        few = "1 process" if processes == 1 else f"{processes} processes"
        idle = f"{few} on {cores} Neuron cores: {cores - processes} cores of every node stay idle"
        warnings.append((f"{_SPEC}.processesPerNode", idle))
    elif shape is not None and 0 < cores < processes:
        lnc = f"{processes} processes need as many logical cores; {shape.name} has {cores} unless its LNC is 1"
        warnings.append((f"{_SPEC}.processesPerNode", lnc))
    return details, tuple(warnings)


def environment(runtime: Runtime, *, nodes: int, efa_interfaces: int) -> dict[str, str]:
    """Return the variables of a node with Neuron cores.

    NEURON_RT_VISIBLE_CORES, NEURON_RT_NUM_CORES and NEURON_RT_ROOT_COMM_ID are a process's own: torch-neuronx sets
    them from LOCAL_RANK and MASTER_ADDR, so a value for the whole node would do harm.
    """
    values: dict[str, str] = {}
    if nodes > 1 and efa_interfaces:
        # libfabric before 1.18 needs to be told; later releases find out themselves and do not mind
        values |= {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_FORK_SAFE": "1"}
    if isinstance(runtime, NeuronDistributedRuntime) and runtime.compile_cache_uri:
        place = runtime.compile_cache_uri.removeprefix("file://")
        values["NEURON_COMPILE_CACHE_URL"] = place
        if runtime.mode == "torchNeuron" and "://" not in place:
            values["TORCH_NEURONX_NEFF_CACHE_DIR"] = place
    return values


def _world(nodes: int, processes: int) -> str:
    return f"{nodes} node{'s' if nodes > 1 else ''} x {processes} processes = {nodes * processes} ranks"


def _faults(
    runtime: NeuronDistributedRuntime, shape: Shape | None, *, nodes: int, processes: int, cores: int
) -> Iterator[Fault]:
    device = shape.accelerator if shape else None
    if shape is not None and shape.cloud and not cores:
        hint = "choose a trn1 or trn2 shape, or set spec.infrastructure.spec.accelerator.neuronCores"
        yield Fault(path="spec.runtime.type", message=f"{shape.name} has no Neuron cores", hint=hint)
    if runtime.mode == "torchNeuron" and device in _XLA_ONLY:
        message = f"mode torchNeuron needs Trainium2 or newer; this shape has {device}"
        yield Fault(path=f"{_SPEC}.mode", message=message, hint="use mode: xla, or a trn2 shape")
    if runtime.precompile and runtime.mode != "xla":
        message = "neuron_parallel_compile exists for mode xla only; torchNeuron compiles as it trains"
        yield Fault(path=f"{_SPEC}.precompile", message=message, hint="drop precompile, or use mode: xla")
    if runtime.mode != "xla" and runtime.recipe is not None and runtime.recipe.name == "sft_neuron":
        message = "the recipe sft_neuron trains by optimum-neuron, which is PyTorch/XLA"
        yield Fault(path=f"{_SPEC}.mode", message=message, hint="use mode: xla, or a script of your own")
    cache = runtime.compile_cache_uri
    if cache and "://" in cache and not cache.startswith(("s3://", "file://")):
        message = f"Neuron keeps compiled graphs in a folder or in S3, not in {cache.partition(':')[0]}"
        yield Fault(path=f"{_SPEC}.compileCacheUri", message=message, hint="give a path or an s3:// URI")
    tensor, pipeline = runtime.tensor_parallel_size, runtime.pipeline_parallel_size
    if nodes * processes % (tensor * pipeline):
        degrees = f"tensorParallelSize {tensor} x pipelineParallelSize {pipeline} = {tensor * pipeline}"
        message = f"{_world(nodes, processes)} cannot be divided by {degrees}"
        yield Fault(
            path=f"{_SPEC}.tensorParallelSize", message=message, hint="choose degrees whose product divides the ranks"
        )
    if shape is not None and cores and processes > shape.neuron_cores:
        message = f"{processes} processes on a node, but {shape.name} has {shape.neuron_cores} Neuron cores"
        yield Fault(path=f"{_SPEC}.processesPerNode", message=message, hint=f"at most {cores} at the shape's LNC")
