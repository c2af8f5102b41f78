"""A Kubernetes cluster, EKS above all, as a place."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from cloudtune.spec.fields import flat, setting
from cloudtune.spec.place import Infrastructure

if TYPE_CHECKING:
    from typing_extensions import Self


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

    cluster: str | None = setting("Name of the EKS cluster, reached by its name and region.")
    region: str | None = setting("AWS region of the cluster; default: this machine's.")
    context: str | None = setting("Context of the kubeconfig; beats `cluster`. With neither, its current one.")
    namespace: str | None = setting("Namespace; default `default`.")
    instance_type: str | None = setting("Instance type of the nodes, e.g. `p5.48xlarge`; with `ml.` on HyperPod.")
    image: str | None = setting("Container image.")
    job_kind: str = setting(
        "`job` (Indexed Job, no operator), `pyTorchJob`, `trainJob` or `jobSet`.",
        default="job",
        choices=("job", "pyTorchJob", "trainJob", "jobSet"),
    )
    trainer_api: str | None = setting("Minor version of the TrainJob API, v2.0 to v2.3; default v2.2.")
    efa_per_node: int | None = setting(
        "EFA interfaces a node; default: the shape's where there are several nodes.", minimum=0
    )
    resources: Mapping[str, Any] = setting(
        "`{requests: {...}, limits: {...}}` over what the shape gives; null takes a resource away.", default={}
    )
    shared_memory: str | None = setting("Size of /dev/shm, e.g. `64Gi`; default: half of the pod's memory.")
    volumes: tuple[Volume, ...] = setting("Volumes.", default=(), of=Volume)
    service_account: str | None = setting("Service account of the pods.")
    queue: str | None = setting("Kueue LocalQueue of the namespace.")
    priority_class: str | None = setting("Priority class.")
    max_restarts: int | None = setting("Restarts of the whole job before it fails; default 0.", minimum=0)
    node_selector: Mapping[str, str] = setting("Labels that nodes must have, beside the instance type's.", default={})
    tolerations: tuple[Mapping[str, Any], ...] = setting("Tolerations, beside those of the devices.", default=())
    image_pull_secrets: tuple[str, ...] = setting("Names of image pull secrets.", default=())
    labels: Mapping[str, str] = setting("Labels of the job and its pods.", default={})
    annotations: Mapping[str, str] = setting("Annotations of the job and its pods.", default={})
    pod_spec: Mapping[str, Any] = setting(
        "A merge patch on the pod template's spec; containers, volumes and variables are found by their names.",
        default={},
    )

    def with_cluster(self, cluster: str | None) -> "Self":
        """Name of the EKS cluster, reached by its name and region."""
        return attrs.evolve(self, cluster=cluster)

    def with_region(self, region: str | None) -> "Self":
        """AWS region of the cluster; default: this machine's."""
        return attrs.evolve(self, region=region)

    def with_context(self, context: str | None) -> "Self":
        """Context of the kubeconfig; beats `cluster`. With neither, its current one."""
        return attrs.evolve(self, context=context)

    def with_namespace(self, namespace: str | None) -> "Self":
        """Namespace; default `default`."""
        return attrs.evolve(self, namespace=namespace)

    def with_instance_type(self, instance_type: str | None) -> "Self":
        """Instance type of the nodes, e.g. `p5.48xlarge`; with `ml.` on HyperPod."""
        return attrs.evolve(self, instance_type=instance_type)

    def with_image(self, image: str | None) -> "Self":
        """Container image."""
        return attrs.evolve(self, image=image)

    def with_job_kind(self, job_kind: str) -> "Self":
        """`job` (Indexed Job, no operator), `pyTorchJob`, `trainJob` or `jobSet`."""
        return attrs.evolve(self, job_kind=job_kind)

    def with_trainer_api(self, trainer_api: str | None) -> "Self":
        """Minor version of the TrainJob API, v2.0 to v2.3; default v2.2."""
        return attrs.evolve(self, trainer_api=trainer_api)

    def with_efa_per_node(self, efa_per_node: int | None) -> "Self":
        """EFA interfaces a node; default: the shape's where there are several nodes."""
        return attrs.evolve(self, efa_per_node=efa_per_node)

    def with_resources(self, resources: Mapping[str, Any]) -> "Self":
        """`{requests: {...}, limits: {...}}` over what the shape gives; null takes a resource away."""
        return attrs.evolve(self, resources=resources)

    def with_shared_memory(self, shared_memory: str | None) -> "Self":
        """Size of /dev/shm, e.g. `64Gi`; default: half of the pod's memory."""
        return attrs.evolve(self, shared_memory=shared_memory)

    def with_volumes(self, *volumes: Volume | Mapping[str, Any] | Sequence[Volume]) -> "Self":
        """Volumes, in place of those it had: `Volume` values or their keywords as mappings."""
        return attrs.evolve(self, volumes=flat(volumes))

    def with_service_account(self, service_account: str | None) -> "Self":
        """Service account of the pods."""
        return attrs.evolve(self, service_account=service_account)

    def with_queue(self, queue: str | None) -> "Self":
        """Kueue LocalQueue of the namespace."""
        return attrs.evolve(self, queue=queue)

    def with_priority_class(self, priority_class: str | None) -> "Self":
        """Priority class."""
        return attrs.evolve(self, priority_class=priority_class)

    def with_max_restarts(self, max_restarts: int | None) -> "Self":
        """Restarts of the whole job before it fails; default 0."""
        return attrs.evolve(self, max_restarts=max_restarts)

    def with_node_selector(self, node_selector: Mapping[str, str]) -> "Self":
        """Labels that nodes must have, beside the instance type's."""
        return attrs.evolve(self, node_selector=node_selector)

    def with_tolerations(self, *tolerations: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> "Self":
        """Tolerations, beside those of the devices."""
        return attrs.evolve(self, tolerations=flat(tolerations))

    def with_image_pull_secrets(self, *image_pull_secrets: str | Sequence[str]) -> "Self":
        """Names of image pull secrets."""
        return attrs.evolve(self, image_pull_secrets=flat(image_pull_secrets))

    def with_labels(self, labels: Mapping[str, str]) -> "Self":
        """Labels of the job and its pods."""
        return attrs.evolve(self, labels=labels)

    def with_annotations(self, annotations: Mapping[str, str]) -> "Self":
        """Annotations of the job and its pods."""
        return attrs.evolve(self, annotations=annotations)

    def with_pod_spec(self, pod_spec: Mapping[str, Any]) -> "Self":
        """A merge patch on the pod template's spec; containers, volumes and variables are found by their names."""
        return attrs.evolve(self, pod_spec=pod_spec)
