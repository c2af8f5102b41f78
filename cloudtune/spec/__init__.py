"""What is wanted: jobs, infrastructures and runtimes as frozen values, and the YAML in which people write them.

The names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.spec.types import found

if TYPE_CHECKING:
    from cloudtune.spec.document import checked, dumps, from_dict, load, to_dict
    from cloudtune.spec.environment import EnvironmentVariable, interpolated
    from cloudtune.spec.infrastructure import (
        Accelerator,
        Channel,
        DataScienceJob,
        EKSJob,
        Framework,
        Infrastructure,
        LocalJob,
        MetricDefinition,
        SageMakerTrainingJob,
        ShapeConfig,
        StorageMount,
        Volume,
    )
    from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
    from cloudtune.spec.order import order_of_steps
    from cloudtune.spec.runtimes import (
        Conda,
        ContainerRuntime,
        Dependencies,
        GitPythonRuntime,
        GitSource,
        NeuronDistributedRuntime,
        NotebookRuntime,
        PythonRuntime,
        PyTorchDistributedRuntime,
        Recipe,
        Runtime,
        ScriptRuntime,
    )

_HOMES = {
    "cloudtune.spec.document": ("checked", "dumps", "from_dict", "load", "to_dict"),
    "cloudtune.spec.environment": ("EnvironmentVariable", "interpolated"),
    "cloudtune.spec.infrastructure": (
        "Accelerator",
        "Channel",
        "DataScienceJob",
        "EKSJob",
        "Framework",
        "Infrastructure",
        "LocalJob",
        "MetricDefinition",
        "SageMakerTrainingJob",
        "ShapeConfig",
        "StorageMount",
        "Volume",
    ),
    "cloudtune.spec.job": ("JobSpec", "PipelineSpec", "PipelineStep"),
    "cloudtune.spec.order": ("order_of_steps",),
    "cloudtune.spec.runtimes": (
        "Conda",
        "ContainerRuntime",
        "Dependencies",
        "GitPythonRuntime",
        "GitSource",
        "NeuronDistributedRuntime",
        "NotebookRuntime",
        "PyTorchDistributedRuntime",
        "PythonRuntime",
        "Recipe",
        "Runtime",
        "ScriptRuntime",
    ),
}

__all__ = [
    "Accelerator",
    "Channel",
    "Conda",
    "ContainerRuntime",
    "DataScienceJob",
    "Dependencies",
    "EKSJob",
    "EnvironmentVariable",
    "Framework",
    "GitPythonRuntime",
    "GitSource",
    "Infrastructure",
    "JobSpec",
    "LocalJob",
    "MetricDefinition",
    "NeuronDistributedRuntime",
    "NotebookRuntime",
    "PipelineSpec",
    "PipelineStep",
    "PyTorchDistributedRuntime",
    "PythonRuntime",
    "Recipe",
    "Runtime",
    "SageMakerTrainingJob",
    "ScriptRuntime",
    "ShapeConfig",
    "StorageMount",
    "Volume",
    "checked",
    "dumps",
    "from_dict",
    "interpolated",
    "load",
    "order_of_steps",
    "to_dict",
]


def __getattr__(name: str) -> Any:
    return found(name, _HOMES, __name__)
