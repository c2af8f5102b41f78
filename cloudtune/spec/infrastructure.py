"""Where a job runs: four infrastructures, each a frozen value in the dialect of Oracle ADS or its own service.

Constructor keywords and ``with_*`` methods are equal; a ``with_*`` returns a new value. Each place is a module, which
is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.spec.place import Accelerator, Infrastructure, LocalJob
from cloudtune.spec.types import Types, found

if TYPE_CHECKING:
    from cloudtune.spec.eks import EKSJob, Volume
    from cloudtune.spec.oci import DataScienceJob, ShapeConfig, StorageMount
    from cloudtune.spec.sagemaker import Channel, Framework, MetricDefinition, SageMakerTrainingJob

#: The classes by the ``type`` of the YAML.
INFRASTRUCTURES: Types[Infrastructure] = Types(
    {
        "local": "cloudtune.spec.place:LocalJob",
        "dataScienceJob": "cloudtune.spec.oci:DataScienceJob",
        "sageMakerTrainingJob": "cloudtune.spec.sagemaker:SageMakerTrainingJob",
        "eksJob": "cloudtune.spec.eks:EKSJob",
    },
    group="cloudtune.infrastructures",
)

_HOMES = {
    "cloudtune.spec.eks": ("EKSJob", "Volume"),
    "cloudtune.spec.oci": ("DataScienceJob", "ShapeConfig", "StorageMount"),
    "cloudtune.spec.sagemaker": ("Channel", "Framework", "MetricDefinition", "SageMakerTrainingJob"),
}

__all__ = [
    "INFRASTRUCTURES",
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
]


def __getattr__(name: str) -> Any:
    return found(name, _HOMES, __name__)
