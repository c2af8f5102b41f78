"""Questions to a cluster: there a refusal names the right that is missing, and what is not there is said to be so."""

from __future__ import annotations

from typing import Any, ClassVar

from cloudtune import rights
from cloudtune.diagnosis.questions import Question, Questions
from cloudtune.errors import ServiceError
from cloudtune.plan import Call

SERVICE = "kubernetes"
#: Where the rights are granted.
POLICIES = "infrastructure/eks"
#: ``apiVersion`` and resource by kind of what is looked for.
KINDS = {
    "ClusterTrainingRuntime": ("trainer.kubeflow.org/v1alpha1", "clustertrainingruntimes"),
    "ConfigMap": ("v1", "configmaps"),
    "CSIDriver": ("storage.k8s.io/v1", "csidrivers"),
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "Deployment": ("apps/v1", "deployments"),
    "DeviceClass": ("resource.k8s.io/v1", "deviceclasses"),
    "LimitRange": ("v1", "limitranges"),
    "LocalQueue": ("kueue.x-k8s.io/v1beta1", "localqueues"),
    "Namespace": ("v1", "namespaces"),
    "Node": ("v1", "nodes"),
    "PersistentVolume": ("v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "PriorityClass": ("scheduling.k8s.io/v1", "priorityclasses"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "Secret": ("v1", "secrets"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "StorageClass": ("storage.k8s.io/v1", "storageclasses"),
    "WorkloadPriorityClass": ("kueue.x-k8s.io/v1beta1", "workloadpriorityclasses"),
}


class KubernetesQuestions(Questions):
    """Asks one cluster one thing after the other; see :class:`Questions`. What is not there is ``{"absent": True}``."""

    cloud: ClassVar[str] = "the cluster"
    policies: ClassVar[str] = POLICIES
    unreached: ClassVar[str] = "check the network, the VPN, and the address: kubectl cluster-info"

    def needed(self, question: Question) -> tuple[rights.Right, ...]:
        """Return the rights that a question needs."""
        kind = str(question.parameters.get("kind"))
        if kind not in KINDS:  # the way to the cluster: a name on EKS is looked up there
            return rights.needed_for("aws.eks", "describe_cluster", who="users")
        version, resource = KINDS[kind]
        return rights.allowing(question.operation, resource, version.rpartition("/")[0])

    def _call(self, question: Question) -> Call:
        return Call(
            service=question.service,
            operation=question.operation,
            parameters=question.parameters,
            region=self._region,
        )

    def _is_unreached(self, error: ServiceError) -> bool:
        return error.passing and error.request_id is None


def get(kind: str, name: str, *, check: str, about: str, where: str = "", **more: Any) -> Question:
    """Return the question for one object; where the user may not see it, it is unknown."""
    version, _ = KINDS[kind]
    parameters = {"apiVersion": version, "kind": kind, "name": name, "absent": True, **more}
    return _asked("get", parameters, check=check, about=about, where=where)


def listing(kind: str, *, check: str, about: str, where: str = "", **more: Any) -> Question:
    """Return the question for all objects of a kind."""
    version, _ = KINDS[kind]
    parameters = {"apiVersion": version, "kind": kind, "absent": True, **more}
    return _asked("list", parameters, check=check, about=about, where=where)


def _asked(operation: str, parameters: dict[str, Any], *, check: str, about: str, where: str) -> Question:
    return Question(
        service=SERVICE,
        operation=operation,
        parameters=parameters,
        check=check,
        about=about,
        where=where,
        needed=False,
        facts={"secret": parameters["name"]} if parameters["kind"] == "Secret" else {},
    )
