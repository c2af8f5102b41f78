"""What an API server and the operators' webhooks put into objects where nothing is given."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.kubernetes.quantities import quality_of_service

_MOST = 2**31 - 1
_UNREACHABLE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def set_defaults(kind: str, thing: Object) -> None:
    """Set the defaults of an object."""
    known = _DEFAULTS.get(kind)
    if known is not None:
        known(thing)


def _pod(thing: Object) -> None:
    spec = thing.get("spec") or {}
    set_pod_defaults(spec)
    spec.setdefault("serviceAccountName", spec.get("serviceAccount") or "default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    thing.setdefault("status", {"phase": "Pending", "qosClass": quality_of_service(spec)})
    tolerations = spec.setdefault("tolerations", [])
    known = {one.get("key") for one in tolerations if one.get("effect") in (None, "", "NoExecute")}
    if None not in known:
        tolerations += [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in _UNREACHABLE
            if key not in known
        ]


def set_pod_defaults(spec: Object) -> None:
    """Set the defaults of a pod's specification, of a template's too."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        _container(container)
    for volume in spec.get("volumes") or ():
        if not set(volume) - {"name"}:
            volume["emptyDir"] = {}
        for name in ("configMap", "secret", "downwardAPI", "projected"):
            if isinstance(volume.get(name), dict):
                volume[name].setdefault("defaultMode", 0o644)


def _container(container: Object) -> None:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2] if "@" not in image else "digest"
    container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    limits = resources.get("limits") or {}
    if limits:
        resources["requests"] = {**limits, **(resources.get("requests") or {})}
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for one in container.get("env") or ():
        field = (one.get("valueFrom") or {}).get("fieldRef")
        if field is not None:
            field.setdefault("apiVersion", "v1")


def _job(thing: Object) -> None:
    set_job_defaults(thing.get("spec") or {})
    spec, meta = thing["spec"], thing["metadata"]
    if spec.get("manualSelector") or "uid" not in meta:
        return
    labels = {
        "batch.kubernetes.io/controller-uid": meta["uid"],
        "batch.kubernetes.io/job-name": meta["name"],
        "controller-uid": meta["uid"],
        "job-name": meta["name"],
    }
    template = spec["template"].setdefault("metadata", {})
    template["labels"] = {**(template.get("labels") or {}), **labels}
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": meta["uid"]}}


def set_job_defaults(spec: Object) -> None:
    """Set the defaults of a Job's specification."""
    spec.setdefault("completionMode", "NonIndexed")
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _MOST if spec.get("backoffLimitPerIndex") is not None else 6)
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for condition in rule.get("onPodConditions") or ():
            condition.setdefault("status", "True")
    set_pod_defaults(spec["template"].setdefault("spec", {}))


def _job_set(thing: Object) -> None:
    spec = thing.setdefault("spec", {})
    spec.setdefault("suspend", False)
    spec.setdefault("successPolicy", {"operator": "All"})
    spec.setdefault("startupPolicy", {"startupPolicyOrder": "AnyOrder"})
    network = spec.setdefault("network", {})
    network.setdefault("enableDNSHostnames", True)
    network.setdefault("publishNotReadyAddresses", True)
    if "failurePolicy" in spec:
        spec["failurePolicy"].setdefault("maxRestarts", 0)
        spec["failurePolicy"].setdefault("restartStrategy", "Recreate")
    for row in spec.get("replicatedJobs") or ():
        row.setdefault("replicas", 1)
        row.setdefault("groupName", "default")
        job = row["template"].setdefault("spec", {})
        job.setdefault("completionMode", "Indexed")
        pod = job["template"].setdefault("spec", {}) if "template" in job else {}
        pod.setdefault("restartPolicy", "OnFailure")


def _pytorch_job(thing: Object) -> None:
    spec = thing.get("spec") or {}
    policy = spec.setdefault("runPolicy", {})
    policy.setdefault("suspend", False)
    policy.setdefault("cleanPodPolicy", "None")
    for row in (spec.get("pytorchReplicaSpecs") or {}).values():
        row.setdefault("replicas", 1)
        row.setdefault("restartPolicy", "OnFailure")


def _train_job(thing: Object) -> None:
    spec = thing.get("spec") or {}
    spec.setdefault("suspend", False)
    spec.setdefault("managedBy", "trainer.kubeflow.org/trainjob-controller")
    reference = spec.get("runtimeRef") or {}
    reference.setdefault("apiGroup", "trainer.kubeflow.org")
    reference.setdefault("kind", "ClusterTrainingRuntime")


def _service(thing: Object) -> None:
    spec = thing.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] != "ExternalName" and "clusterIP" not in spec:
        number = int(thing["metadata"].get("uid", "0")[:4], 16)
        spec["clusterIP"] = f"10.100.{number >> 8}.{number & 255}"
    if spec.get("clusterIP"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def _secret(thing: Object) -> None:
    thing.setdefault("type", "Opaque")
    given = thing.pop("stringData", None) or {}
    if given:
        coded = {key: base64.b64encode(str(value).encode()).decode() for key, value in given.items()}
        thing["data"] = {**(thing.get("data") or {}), **coded}


def _claim(thing: Object) -> None:
    thing["spec"].setdefault("volumeMode", "Filesystem")


def _namespace(thing: Object) -> None:
    meta = thing["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta.get("name", "")}
    thing.setdefault("spec", {"finalizers": ["kubernetes"]})
    thing.setdefault("status", {"phase": "Active"})


_DEFAULTS: Mapping[str, Callable[[Object], None]] = {
    "Job": _job,
    "JobSet": _job_set,
    "Namespace": _namespace,
    "PersistentVolumeClaim": _claim,
    "Pod": _pod,
    "PyTorchJob": _pytorch_job,
    "Secret": _secret,
    "Service": _service,
    "TrainJob": _train_job,
}
