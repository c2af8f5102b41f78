"""The kinds of objects that a rehearsed cluster serves: their names on the wire, and where they live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs


@attrs.frozen(kw_only=True)
class Kind:
    """One kind. The first of ``versions`` is the one in which its objects are kept.

    ``operator`` names what must be installed for it to be served, empty for what every cluster has.
    """

    group: str
    versions: tuple[str, ...]
    kind: str
    plural: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    status: bool = False
    operator: str = ""

    @property
    def version(self) -> str:
        """The version in which objects are kept."""
        return self.versions[0]

    @property
    def api_version(self) -> str:
        """Group and version as objects have them."""
        return self.named(self.version)

    @property
    def key(self) -> str:
        """The kind's name in the store, and in messages: ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def named(self, version: str) -> str:
        """Return the ``apiVersion`` of one of its versions."""
        return f"{self.group}/{version}" if self.group else version


#: Operators by name, as ``Cluster(operators=...)`` takes them.
OPERATORS = ("training-operator", "trainer", "jobset", "kueue")

#: Flags of a row: ``c`` cluster-wide, ``s`` with a sub-resource ``status``.
_Row = tuple[str, str, str, str]
_BUILT_IN: Mapping[str, tuple[_Row, ...]] = {
    "v1": (
        ("ConfigMap", "configmaps", "cm", ""),
        ("Endpoints", "endpoints", "ep", ""),
        ("Event", "events", "ev", ""),
        ("LimitRange", "limitranges", "limits", ""),
        ("Namespace", "namespaces", "ns", "cs"),
        ("Node", "nodes", "no", "cs"),
        ("PersistentVolume", "persistentvolumes", "pv", "cs"),
        ("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "s"),
        ("Pod", "pods", "po", "s"),
        ("ResourceQuota", "resourcequotas", "quota", "s"),
        ("Secret", "secrets", "", ""),
        ("Service", "services", "svc", "s"),
        ("ServiceAccount", "serviceaccounts", "sa", ""),
    ),
    "admissionregistration.k8s.io/v1": (
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", "c"),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", "c"),
    ),
    "apiextensions.k8s.io/v1": (("CustomResourceDefinition", "customresourcedefinitions", "crd crds", "cs"),),
    "apps/v1": (
        ("DaemonSet", "daemonsets", "ds", "s"),
        ("Deployment", "deployments", "deploy", "s"),
        ("ReplicaSet", "replicasets", "rs", "s"),
        ("StatefulSet", "statefulsets", "sts", "s"),
    ),
    "autoscaling/v2": (("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "s"),),
    "batch/v1": (("CronJob", "cronjobs", "cj", "s"), ("Job", "jobs", "", "s")),
    "coordination.k8s.io/v1": (("Lease", "leases", "", ""),),
    "discovery.k8s.io/v1": (("EndpointSlice", "endpointslices", "", ""),),
    "networking.k8s.io/v1": (("Ingress", "ingresses", "ing", "s"), ("NetworkPolicy", "networkpolicies", "netpol", "")),
    "policy/v1": (("PodDisruptionBudget", "poddisruptionbudgets", "pdb", "s"),),
    "rbac.authorization.k8s.io/v1": (
        ("ClusterRole", "clusterroles", "", "c"),
        ("ClusterRoleBinding", "clusterrolebindings", "", "c"),
        ("Role", "roles", "", ""),
        ("RoleBinding", "rolebindings", "", ""),
    ),
    "resource.k8s.io/v1": (
        ("DeviceClass", "deviceclasses", "", "c"),
        ("ResourceClaim", "resourceclaims", "", "s"),
        ("ResourceClaimTemplate", "resourceclaimtemplates", "", ""),
        ("ResourceSlice", "resourceslices", "", "c"),
    ),
    "scheduling.k8s.io/v1": (("PriorityClass", "priorityclasses", "pc", "c"),),
    "storage.k8s.io/v1": (
        ("CSIDriver", "csidrivers", "", "c"),
        ("CSINode", "csinodes", "", "c"),
        ("StorageClass", "storageclasses", "sc", "c"),
    ),
}
_CUSTOM: Mapping[str, Mapping[str, tuple[_Row, ...]]] = {
    "training-operator": {"kubeflow.org/v1": (("PyTorchJob", "pytorchjobs", "", "s"),)},
    "trainer": {
        "trainer.kubeflow.org/v1alpha1": (
            ("ClusterTrainingRuntime", "clustertrainingruntimes", "", "c"),
            ("TrainJob", "trainjobs", "", "s"),
            ("TrainingRuntime", "trainingruntimes", "", ""),
        )
    },
    "jobset": {"jobset.x-k8s.io/v1alpha2": (("JobSet", "jobsets", "", "s"),)},
    "kueue": {
        "kueue.x-k8s.io/v1beta2,v1beta1": (
            ("ClusterQueue", "clusterqueues", "cq", "cs"),
            ("LocalQueue", "localqueues", "queue queues lq", "s"),
            ("ResourceFlavor", "resourceflavors", "flavor flavors rf", "c"),
            ("Workload", "workloads", "wl", "s"),
            ("WorkloadPriorityClass", "workloadpriorityclasses", "", "c"),
        )
    },
}


def _made(api: str, rows: Iterable[_Row], operator: str = "") -> Iterable[Kind]:
    group, _, versions = api.rpartition("/")
    for kind, plural, short, flags in rows:
        yield Kind(
            group=group,
            versions=tuple(versions.split(",")),
            kind=kind,
            plural=plural,
            short=tuple(short.split()),
            namespaced="c" not in flags,
            status="s" in flags,
            operator=operator,
        )


#: All kinds that a cluster can serve.
KINDS: tuple[Kind, ...] = (
    *(kind for api, rows in _BUILT_IN.items() for kind in _made(api, rows)),
    *(kind for operator, apis in _CUSTOM.items() for api, rows in apis.items() for kind in _made(api, rows, operator)),
)


class Kinds:
    """The kinds that one cluster serves: what is built in, and those of the operators that are installed."""

    def __init__(self, operators: Iterable[str] = OPERATORS) -> None:
        self.operators = tuple(operators)
        self.all = tuple(kind for kind in KINDS if not kind.operator or kind.operator in self.operators)
        self._by_kind = {kind.kind: kind for kind in self.all}
        self._by_api = {(kind.named(version), kind.plural): kind for kind in self.all for version in kind.versions}

    def __getitem__(self, kind: str) -> Kind:
        """Return the kind of this name (``Job``); KeyError where it is not served."""
        return self._by_kind[kind]

    def __contains__(self, kind: object) -> bool:
        """Whether a kind of this name is served."""
        return kind in self._by_kind

    def served(self, api_version: str, plural: str) -> Kind | None:
        """Return the kind at a path of the API, None where there is none."""
        return self._by_api.get((api_version, plural))

    def of(self, manifest: Mapping[str, object]) -> Kind | None:
        """Return the kind that a manifest is of, None where it is not served in this version."""
        kind = self._by_kind.get(str(manifest.get("kind")))
        known = kind is not None and manifest.get("apiVersion") in {kind.named(version) for version in kind.versions}
        return kind if known else None
