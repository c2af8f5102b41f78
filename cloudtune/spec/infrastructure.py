"""Where a job runs: four infrastructures, each a frozen value in the dialect of Oracle ADS or its own service.

Constructor keywords and ``with_*`` methods are equal; a ``with_*`` returns a new value.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from cloudtune.spec.fields import setting


@attrs.frozen(kw_only=True)
class Accelerator:
    """What a shape has, for a shape that the catalogue does not know (or knows wrong)."""

    name: str | None = setting("Name of the accelerator, e.g. `A10`.")
    count: int = setting("Accelerators a node.", default=0, minimum=0)
    memory_in_gb: float | None = setting("Memory of one accelerator in GB.", key="memoryInGB", minimum=0)
    neuron_cores: int = setting("Logical Neuron cores a node.", default=0, minimum=0)
    efa_interfaces: int = setting("EFA interfaces a node.", default=0, minimum=0)


@attrs.frozen(kw_only=True)
class Infrastructure:
    """What every infrastructure has."""

    type: ClassVar[str] = ""

    staging_uri: str | None = setting("Where an uploaded workspace goes when the service has no place of its own.")
    overrides: Mapping[str, Any] = setting(
        "`{STEP_ID: {...}}`: a JSON Merge Patch on that step's request for what the spec does not name.", default={}
    )
    accelerator: Accelerator | None = setting("What a node of a shape has that the catalogue does not know.")


@attrs.frozen(kw_only=True)
class LocalJob(Infrastructure):
    """This machine: every replica is a node of its own, with a process, a folder and a loopback address."""

    type: ClassVar[str] = "local"

    python: str | None = setting("Python interpreter of the nodes; default: the one that runs cloudtune.")


@attrs.frozen(kw_only=True)
class ShapeConfig:
    """Size of an OCI flexible shape."""

    ocpus: float | None = setting("OCPUs.", minimum=0)
    memory_in_gbs: float | None = setting("Memory in GB.", key="memoryInGBs", minimum=0)
    cpu_baseline: str | None = setting("Baseline of a burstable instance, e.g. `BASELINE_1_8`.")


@attrs.frozen(kw_only=True)
class StorageMount:
    """A mount that OCI Data Science makes on every node."""

    src: str = attrs.field(
        metadata={"doc": "`oci://bucket@namespace/prefix`, `MOUNT_TARGET_OCID:EXPORT_OCID` or `IP:/export`."}
    )
    dest: str = attrs.field(metadata={"doc": "Where it appears; a bare name is below /mnt."})


@attrs.frozen(kw_only=True)
class DataScienceJob(Infrastructure):
    """OCI Data Science Jobs."""

    type: ClassVar[str] = "dataScienceJob"

    project_id: str | None = setting("OCID of the Data Science project.")
    compartment_id: str | None = setting("OCID of the compartment.")
    display_name: str | None = setting("Accepted as ADS accepts it; the job's name is `spec.name`.")
    job_type: str | None = setting("`DEFAULT`.")
    job_infrastructure_type: str | None = setting("`STANDALONE` or `ME_STANDALONE`.")
    shape_name: str | None = setting("Shape, e.g. `VM.GPU.A10.2`.")
    shape_config_details: ShapeConfig | None = setting("OCPUs and memory of a flexible shape.")
    block_storage_size: int | None = setting("Block storage in GB.", minimum=1)
    subnet_id: str | None = setting("OCID of the subnet.")
    log_group_id: str | None = setting("OCID of the log group.")
    log_id: str | None = setting("OCID of the log.")
    storage_mount: tuple[StorageMount, ...] = setting("Storage mounts, five at most.", default=())
    freeform_tags: Mapping[str, str] = setting("Free-form tags.", default={})
    defined_tags: Mapping[str, Any] = setting("Defined tags: `{namespace: {key: value}}`.", default={})
    region: str | None = setting("Region, e.g. `us-ashburn-1`; default: the profile's.")
    multi_node: str = setting(
        "`nodeGroups`: one job run over all nodes; `jobRuns`: a run a node (older form, planned only).",
        default="nodeGroups",
        choices=("nodeGroups", "jobRuns"),
    )


@attrs.frozen(kw_only=True)
class Framework:
    """An AWS deep-learning container by name and versions."""

    name: str = attrs.field(metadata={"doc": "`pytorch`, `huggingface`, ..."})
    version: str | None = setting("Version of PyTorch.")
    transformers_version: str | None = setting("Version of transformers.")
    py_version: str | None = setting("Version of Python, e.g. `py310`.")


@attrs.frozen(kw_only=True)
class Channel:
    """An input channel of a SageMaker training job: an S3 prefix or a file system."""

    channel: str = attrs.field(metadata={"doc": "Name of the channel; the files are below /opt/ml/input/data/NAME."})
    uri: str | None = setting("`s3://bucket/prefix`.")
    file_system_id: str | None = setting("Id of an FSx or EFS file system.")
    file_system_type: str | None = setting("`FSxLustre` or `EFS`.", choices=("FSxLustre", "EFS"))
    directory_path: str | None = setting("Directory on the file system.")
    access_mode: str | None = setting("`ro` or `rw`.", choices=("ro", "rw"))
    mode: str | None = setting("`File`, `FastFile` or `Pipe`.", choices=("File", "FastFile", "Pipe"))
    distribution: str | None = setting(
        "`FullyReplicated` or `ShardedByS3Key`.", choices=("FullyReplicated", "ShardedByS3Key")
    )


@attrs.frozen(kw_only=True)
class MetricDefinition:
    """A metric that SageMaker reads from the log."""

    name: str = attrs.field(metadata={"doc": "Name of the metric."})
    regex: str = attrs.field(metadata={"doc": "Regular expression with one group, the value."})


@attrs.frozen(kw_only=True)
class SageMakerTrainingJob(Infrastructure):
    """SageMaker training jobs."""

    type: ClassVar[str] = "sageMakerTrainingJob"

    region: str | None = setting("AWS region.")
    role_arn: str | None = setting("Execution role.")
    instance_type: str | None = setting("Instance type, e.g. `ml.g5.12xlarge`.")
    volume_size_in_gb: int | None = setting("Volume a node in GB.", key="volumeSizeInGB", minimum=1)
    max_runtime_in_seconds: int | None = setting("The job is stopped after so many seconds.", minimum=1)
    image: str | None = setting("Container image.")
    framework: Framework | None = setting("A deep-learning container by name and versions, instead of `image`.")
    output_path: str | None = setting("`s3://` prefix of the outputs.")
    compress_output: bool | None = setting("Pack the model as a tar.gz.")
    inputs: tuple[Channel, ...] = setting("Input channels.", default=())
    subnet_ids: tuple[str, ...] = setting("Subnets.", default=())
    security_group_ids: tuple[str, ...] = setting("Security groups.", default=())
    use_spot: bool | None = setting("Managed spot training.")
    max_wait_time_in_seconds: int | None = setting("Longest wait for spot capacity and run together.", minimum=1)
    max_retry_attempts: int | None = setting("Retries after an internal error.", minimum=1)
    checkpoint_uri: str | None = setting("`s3://` prefix that is kept in step with the checkpoint folder.")
    checkpoint_local_path: str | None = setting("Checkpoint folder; default /opt/ml/checkpoints.")
    keep_alive_period_in_seconds: int | None = setting("Warm pool: how long the machines are kept.", minimum=0)
    encrypt_inter_container_traffic: bool | None = setting("Encrypt traffic between nodes.")
    network_isolation: bool | None = setting("No network for the containers.")
    volume_kms_key_id: str | None = setting("KMS key of the volumes.")
    output_kms_key_id: str | None = setting("KMS key of the outputs.")
    metric_definitions: tuple[MetricDefinition, ...] = setting("Metrics read from the log.", default=())
    tags: Mapping[str, str] = setting("Tags.", default={})


@attrs.frozen(kw_only=True)
class Volume:
    """A volume of every pod; exactly one of ``claim``, ``host_path`` and ``empty_dir``."""

    claim: str | None = setting("Name of a PersistentVolumeClaim.")
    host_path: str | None = setting("Path on the node.")
    empty_dir: str | None = setting("Size of an empty directory in memory or on disk, e.g. `64Gi`.")
    mount_path: str = attrs.field(metadata={"doc": "Where the volume appears."})
    sub_path: str | None = setting("Path inside the volume.")
    read_only: bool | None = setting("Mount for reading only.")


@attrs.frozen(kw_only=True)
class EKSJob(Infrastructure):
    """A job on an EKS (or any other Kubernetes) cluster."""

    type: ClassVar[str] = "eksJob"

    cluster: str | None = setting("Name of the EKS cluster.")
    region: str | None = setting("AWS region.")
    context: str | None = setting("Context of the kubeconfig.")
    namespace: str | None = setting("Namespace; default `default`.")
    instance_type: str | None = setting("Instance type of the nodes, e.g. `p5.48xlarge`.")
    image: str | None = setting("Container image.")
    job_kind: str = setting(
        "`job` (Indexed Job, no operator), `pyTorchJob`, `trainJob` or `jobSet`.",
        default="job",
        choices=("job", "pyTorchJob", "trainJob", "jobSet"),
    )
    trainer_api: str | None = setting("Minor version of the TrainJob API; default v2.2.")
    efa_per_node: int | None = setting("EFA interfaces a node; default: the shape's.", minimum=0)
    resources: Mapping[str, Any] = setting("Requests and limits beyond the accelerators.", default={})
    shared_memory: str | None = setting("Size of /dev/shm, e.g. `64Gi`.")
    volumes: tuple[Volume, ...] = setting("Volumes.", default=())
    service_account: str | None = setting("Service account of the pods.")
    queue: str | None = setting("Kueue LocalQueue.")
    priority_class: str | None = setting("Priority class.")
    max_restarts: int | None = setting("Restarts before the job fails.", minimum=0)
    node_selector: Mapping[str, str] = setting("Node selector.", default={})
    tolerations: tuple[Mapping[str, Any], ...] = setting("Tolerations.", default=())
    image_pull_secrets: tuple[str, ...] = setting("Names of image pull secrets.", default=())
    labels: Mapping[str, str] = setting("Labels of the job and its pods.", default={})
    annotations: Mapping[str, str] = setting("Annotations of the job and its pods.", default={})
    pod_spec: Mapping[str, Any] = setting("A merge patch on the pod template's spec.", default={})


INFRASTRUCTURES: dict[str, type[Infrastructure]] = {
    cls.type: cls for cls in (LocalJob, DataScienceJob, SageMakerTrainingJob, EKSJob)
}
