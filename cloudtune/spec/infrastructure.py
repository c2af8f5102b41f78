"""Where a job runs: four infrastructures, each a frozen value in the dialect of Oracle ADS or its own service.

Constructor keywords and ``with_*`` methods are equal; a ``with_*`` returns a new value.
"""

from cloudtune.spec.eks import EKSJob, Volume
from cloudtune.spec.oci import DataScienceJob, ShapeConfig, StorageMount
from cloudtune.spec.place import Accelerator, Infrastructure, LocalJob
from cloudtune.spec.sagemaker import Channel, Framework, MetricDefinition, SageMakerTrainingJob

INFRASTRUCTURES: dict[str, type[Infrastructure]] = {
    cls.type: cls for cls in (LocalJob, DataScienceJob, SageMakerTrainingJob, EKSJob)
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
