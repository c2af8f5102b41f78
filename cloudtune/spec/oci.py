"""OCI Data Science Jobs as a place, in the words of Oracle ADS."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.fields import flat, nested, setting
from cloudtune.spec.limits import MOUNTS
from cloudtune.spec.place import Infrastructure

if TYPE_CHECKING:
    from typing_extensions import Self


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
    shape_config_details: ShapeConfig | None = setting("OCPUs and memory of a flexible shape.", of=ShapeConfig)
    block_storage_size: int | None = setting("Block storage in GB.", minimum=1)
    subnet_id: str | None = setting("OCID of the subnet.")
    log_group_id: str | None = setting("OCID of the log group.")
    log_id: str | None = setting("OCID of the log.")
    storage_mount: tuple[StorageMount, ...] = setting("Storage mounts, five at most.", default=(), of=StorageMount)
    freeform_tags: Mapping[str, str] = setting("Free-form tags.", default={})
    defined_tags: Mapping[str, Any] = setting("Defined tags: `{namespace: {key: value}}`.", default={})
    region: str | None = setting("Region, e.g. `us-ashburn-1`; default: the profile's.")
    multi_node: str = setting(
        "`nodeGroups`: one job run over all nodes; `jobRuns`: a run a node (older form, planned only).",
        default="nodeGroups",
        choices=("nodeGroups", "jobRuns"),
    )

    def with_project_id(self, project_id: str | None) -> "Self":
        """OCID of the Data Science project."""
        return attrs.evolve(self, project_id=project_id)

    def with_compartment_id(self, compartment_id: str | None) -> "Self":
        """OCID of the compartment."""
        return attrs.evolve(self, compartment_id=compartment_id)

    def with_display_name(self, display_name: str | None) -> "Self":
        """Accepted as ADS accepts it; the job's name is `spec.name`."""
        return attrs.evolve(self, display_name=display_name)

    def with_job_type(self, job_type: str | None) -> "Self":
        """`DEFAULT`."""
        return attrs.evolve(self, job_type=job_type)

    def with_job_infrastructure_type(self, infrastructure_type: str | None) -> "Self":
        """`STANDALONE` or `ME_STANDALONE`."""
        return attrs.evolve(self, job_infrastructure_type=infrastructure_type)

    def with_shape_name(self, shape_name: str | None) -> "Self":
        """Shape, e.g. `VM.GPU.A10.2`."""
        return attrs.evolve(self, shape_name=shape_name)

    def with_shape_config_details(
        self, memory_in_gbs: float | ShapeConfig | None = None, ocpus: float | None = None, **keys: Any
    ) -> "Self":
        """Memory in GB and OCPUs of a flexible shape."""
        if isinstance(memory_in_gbs, ShapeConfig):
            return attrs.evolve(self, shape_config_details=memory_in_gbs)
        details = nested(ShapeConfig, {"memory_in_gbs": memory_in_gbs, "ocpus": ocpus, **keys})
        return attrs.evolve(self, shape_config_details=details)

    def with_block_storage_size(self, size_in_gb: int | None) -> "Self":
        """Block storage in GB."""
        return attrs.evolve(self, block_storage_size=size_in_gb)

    def with_subnet_id(self, subnet_id: str | None) -> "Self":
        """OCID of the subnet."""
        return attrs.evolve(self, subnet_id=subnet_id)

    def with_log_group_id(self, log_group_id: str | None) -> "Self":
        """OCID of the log group."""
        return attrs.evolve(self, log_group_id=log_group_id)

    def with_log_id(self, log_id: str | None) -> "Self":
        """OCID of the log."""
        return attrs.evolve(self, log_id=log_id)

    def with_storage_mount(self, *storage_mount: StorageMount | Mapping[str, str] | Sequence[StorageMount]) -> "Self":
        """Storage mounts, five at most: `{"src": ..., "dest": ...}` each."""
        mounts = flat(storage_mount)
        if len(mounts) > MOUNTS:
            message = f"{len(mounts)} storage mounts; OCI Data Science takes {MOUNTS} at most"
            raise SpecError([Fault(path="storageMount", message=message)])
        return attrs.evolve(self, storage_mount=mounts)

    def with_freeform_tags(self, freeform_tags: Mapping[str, str]) -> "Self":
        """Free-form tags, in place of those it had."""
        return attrs.evolve(self, freeform_tags=freeform_tags)

    def with_freeform_tag(self, **tags: str) -> "Self":
        """Free-form tags as keywords, in place of those it had."""
        return attrs.evolve(self, freeform_tags=tags)

    def with_defined_tags(self, defined_tags: Mapping[str, Any]) -> "Self":
        """Defined tags: `{namespace: {key: value}}`, in place of those it had."""
        return attrs.evolve(self, defined_tags=defined_tags)

    def with_defined_tag(self, **tags: Mapping[str, Any]) -> "Self":
        """Defined tags as keywords `namespace={key: value}`, in place of those it had."""
        return attrs.evolve(self, defined_tags=tags)

    def with_region(self, region: str | None) -> "Self":
        """Region, e.g. `us-ashburn-1`; default: the profile's."""
        return attrs.evolve(self, region=region)

    def with_multi_node(self, multi_node: str) -> "Self":
        """`nodeGroups`: one job run over all nodes; `jobRuns`: a run a node (older form, planned only)."""
        return attrs.evolve(self, multi_node=multi_node)
