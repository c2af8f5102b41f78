"""SageMaker training jobs as a place."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from cloudtune.spec.fields import flat, nested, setting
from cloudtune.spec.place import Infrastructure

if TYPE_CHECKING:
    from typing_extensions import Self


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

    region: str | None = setting("AWS region; default: that of the environment, the profile or SageMaker Studio.")
    role_arn: str | None = setting("ARN of the execution role; default: that of SageMaker Studio.")
    instance_type: str | None = setting("Instance type, e.g. `ml.g5.12xlarge`.")
    volume_size_in_gb: int | None = setting("Volume a node in GB; default 30.", key="volumeSizeInGB", minimum=1)
    max_runtime_in_seconds: int | None = setting("The job is stopped after so many seconds; default a day.", minimum=1)
    image: str | None = setting("Container image.")
    framework: Framework | None = setting(
        "A deep-learning container by name and versions, instead of `image`.", of=Framework
    )
    output_path: str | None = setting(
        "`s3://` prefix of the outputs; default: the account's bucket `sagemaker-REGION-ACCOUNT`."
    )
    compress_output: bool | None = setting("Pack the model as a tar.gz (default), or leave the files loose.")
    inputs: tuple[Channel, ...] = setting("Input channels.", default=(), of=Channel)
    subnet_ids: tuple[str, ...] = setting("Subnets, 16 at most.", default=())
    security_group_ids: tuple[str, ...] = setting("Security groups, 5 at most.", default=())
    use_spot: bool | None = setting("Managed spot training.")
    max_wait_time_in_seconds: int | None = setting(
        "Longest wait for spot capacity and run together; default a day beside the run.", minimum=1
    )
    max_retry_attempts: int | None = setting("Retries after an internal error.", minimum=1)
    checkpoint_uri: str | None = setting("`s3://` prefix that is kept in step with the checkpoint folder.")
    checkpoint_local_path: str | None = setting("Checkpoint folder; default /opt/ml/checkpoints.")
    keep_alive_period_in_seconds: int | None = setting("Warm pool: how long the machines are kept.", minimum=0)
    encrypt_inter_container_traffic: bool | None = setting("Encrypt traffic between nodes.")
    network_isolation: bool | None = setting("No network for the containers.")
    volume_kms_key_id: str | None = setting("KMS key of the volumes.")
    output_kms_key_id: str | None = setting("KMS key of the outputs.")
    metric_definitions: tuple[MetricDefinition, ...] = setting(
        "Metrics read from the log.", default=(), of=MetricDefinition
    )
    tags: Mapping[str, str] = setting("Tags.", default={})

    def with_region(self, region: str | None) -> "Self":
        """AWS region; default: that of the environment, the profile or SageMaker Studio."""
        return attrs.evolve(self, region=region)

    def with_role_arn(self, role_arn: str | None) -> "Self":
        """ARN of the execution role; default: that of SageMaker Studio."""
        return attrs.evolve(self, role_arn=role_arn)

    def with_instance_type(self, instance_type: str | None) -> "Self":
        """Instance type, e.g. `ml.g5.12xlarge`."""
        return attrs.evolve(self, instance_type=instance_type)

    def with_volume_size_in_gb(self, volume_size_in_gb: int | None) -> "Self":
        """Volume a node in GB; default 30."""
        return attrs.evolve(self, volume_size_in_gb=volume_size_in_gb)

    def with_max_runtime_in_seconds(self, max_runtime_in_seconds: int | None) -> "Self":
        """The job is stopped after so many seconds; default a day."""
        return attrs.evolve(self, max_runtime_in_seconds=max_runtime_in_seconds)

    def with_image(self, image: str | None) -> "Self":
        """Container image."""
        return attrs.evolve(self, image=image)

    def with_framework(self, name: str | Framework | None, version: str | None = None, **keys: Any) -> "Self":
        """A deep-learning container by name and versions, instead of `image`."""
        framework = nested(Framework, {"name": name, "version": version, **keys}) if isinstance(name, str) else name
        return attrs.evolve(self, framework=framework)

    def with_output_path(self, output_path: str | None) -> "Self":
        """`s3://` prefix of the outputs; default: the account's bucket `sagemaker-REGION-ACCOUNT`."""
        return attrs.evolve(self, output_path=output_path)

    def with_compress_output(self, compress_output: bool | None) -> "Self":
        """Pack the model as a tar.gz (default), or leave the files loose."""
        return attrs.evolve(self, compress_output=compress_output)

    def with_inputs(self, *inputs: Channel | Mapping[str, Any] | Sequence[Channel]) -> "Self":
        """Input channels, in place of those it had: `Channel` values or their keywords as mappings."""
        return attrs.evolve(self, inputs=flat(inputs))

    def with_subnet_ids(self, *subnet_ids: str | Sequence[str]) -> "Self":
        """Subnets, 16 at most."""
        return attrs.evolve(self, subnet_ids=flat(subnet_ids))

    def with_security_group_ids(self, *security_group_ids: str | Sequence[str]) -> "Self":
        """Security groups, 5 at most."""
        return attrs.evolve(self, security_group_ids=flat(security_group_ids))

    def with_use_spot(self, use_spot: bool | None) -> "Self":
        """Managed spot training."""
        return attrs.evolve(self, use_spot=use_spot)

    def with_max_wait_time_in_seconds(self, max_wait_time_in_seconds: int | None) -> "Self":
        """Longest wait for spot capacity and run together; default a day beside the run."""
        return attrs.evolve(self, max_wait_time_in_seconds=max_wait_time_in_seconds)

    def with_max_retry_attempts(self, max_retry_attempts: int | None) -> "Self":
        """Retries after an internal error."""
        return attrs.evolve(self, max_retry_attempts=max_retry_attempts)

    def with_checkpoint_uri(self, checkpoint_uri: str | None) -> "Self":
        """`s3://` prefix that is kept in step with the checkpoint folder."""
        return attrs.evolve(self, checkpoint_uri=checkpoint_uri)

    def with_checkpoint_local_path(self, checkpoint_local_path: str | None) -> "Self":
        """Checkpoint folder; default /opt/ml/checkpoints."""
        return attrs.evolve(self, checkpoint_local_path=checkpoint_local_path)

    def with_keep_alive_period_in_seconds(self, keep_alive_period_in_seconds: int | None) -> "Self":
        """Warm pool: how long the machines are kept."""
        return attrs.evolve(self, keep_alive_period_in_seconds=keep_alive_period_in_seconds)

    def with_encrypt_inter_container_traffic(self, encrypt_inter_container_traffic: bool | None) -> "Self":
        """Encrypt traffic between nodes."""
        return attrs.evolve(self, encrypt_inter_container_traffic=encrypt_inter_container_traffic)

    def with_network_isolation(self, network_isolation: bool | None) -> "Self":
        """No network for the containers."""
        return attrs.evolve(self, network_isolation=network_isolation)

    def with_volume_kms_key_id(self, volume_kms_key_id: str | None) -> "Self":
        """KMS key of the volumes."""
        return attrs.evolve(self, volume_kms_key_id=volume_kms_key_id)

    def with_output_kms_key_id(self, output_kms_key_id: str | None) -> "Self":
        """KMS key of the outputs."""
        return attrs.evolve(self, output_kms_key_id=output_kms_key_id)

    def with_metric_definitions(
        self, *metric_definitions: MetricDefinition | Mapping[str, str] | Sequence[MetricDefinition]
    ) -> "Self":
        """Metrics read from the log, in place of those it had: `name` and `regex` each."""
        return attrs.evolve(self, metric_definitions=flat(metric_definitions))

    def with_tags(self, tags: Mapping[str, str]) -> "Self":
        """Tags."""
        return attrs.evolve(self, tags=tags)
