"""What an API server refuses of Jobs, and operators' webhooks of their kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes.naming_rules import (
    bad,
    duplicate,
    host_faults,
    missing,
    required,
    unsupported,
)
from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.kubernetes.pod_rules import pod_faults
from cloudtune.rehearsal.kubernetes.speech import Cause

_MODES = ("NonIndexed", "Indexed")
_RESTARTS = ("OnFailure", "Never")
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_REPLACEMENTS = ("Failed", "TerminatingOrFailed")
_COUNTS = ("parallelism", "completions", "backoffLimit", "backoffLimitPerIndex", "maxFailedIndexes")
_SECONDS = ("activeDeadlineSeconds", "ttlSecondsAfterFinished")
#: Parts of a Job's template that a scheduler may change while the Job is suspended and has not begun.
_DIRECTIVES = ("affinity", "nodeSelector", "schedulingGates", "tolerations")
_MOST_EXIT_CODES = 255
_REPLICA_TYPES = ("Master", "Worker")
_REPLICA_RESTARTS = ("Always", "ExitCode", "Never", "OnFailure")
#: What JobSet does where a feature gate is on that is off by default (0.12 and 0.13).
_GATED = ("RestartJob", "RestartJobAndIgnoreMaxRestarts")
_RENDEZVOUS = ("c10d", "etcd", "etcd-v2")
_MANAGED = ("kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue")
_TRAINER_ENV = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}


def job_faults(field: str, spec: Mapping[str, Any]) -> Iterator[Cause]:
    """Return what is wrong with a Job's specification."""
    for key in (*_COUNTS, *_SECONDS):
        if spec.get(key) is not None and spec[key] < 0:
            yield bad(f"{field}.{key}", spec[key], "must be greater than or equal to 0")
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in _MODES:
        yield unsupported(f"{field}.completionMode", mode, _MODES)
    if mode == "Indexed" and spec.get("completions") is None:
        yield required(f"{field}.completions", "when completion mode is Indexed")
    pod = (spec.get("template") or {}).get("spec") or {}
    place = f"{field}.template.spec"
    yield from pod_faults(place, pod)
    restart = pod.get("restartPolicy", "Always")
    if restart not in _RESTARTS:
        yield unsupported(f"{place}.restartPolicy", restart, _RESTARTS)
    yield from _per_index(field, spec, mode, restart)
    if spec.get("successPolicy") is not None and mode != "Indexed":
        yield bad(f"{field}.successPolicy", "", "requires indexed completion mode")
    replacement = spec.get("podReplacementPolicy")
    policy = spec.get("podFailurePolicy")
    allowed = ("Failed",) if policy else _REPLACEMENTS
    if replacement not in (None, *allowed):
        yield unsupported(f"{field}.podReplacementPolicy", replacement, allowed)
    if policy is not None:
        if restart != "Never":
            words = 'only "Never" is supported when podFailurePolicy is specified'
            yield bad(f"{place}.restartPolicy", restart, words)
        names = {one.get("name") for part in ("containers", "initContainers") for one in pod.get(part) or ()}
        for number, rule in enumerate(policy.get("rules") or ()):
            yield from _failure_rule(f"{field}.podFailurePolicy.rules[{number}]", rule, names)


def _per_index(field: str, spec: Mapping[str, Any], mode: str, restart: str) -> Iterator[Cause]:
    each, most = spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes")
    if each is not None and mode != "Indexed":
        yield bad(f"{field}.backoffLimitPerIndex", each, "requires indexed completion mode")
    if each is not None and restart != "Never":
        words = 'only "Never" is supported when backoffLimitPerIndex is specified'
        yield bad(f"{field}.template.spec.restartPolicy", restart, words)
    if most is not None and each is None:
        yield required(f"{field}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if most is not None and most > spec.get("completions", most):
        yield bad(f"{field}.maxFailedIndexes", most, "must be less than or equal to completions")


def _failure_rule(field: str, rule: Mapping[str, Any], containers: set[Any]) -> Iterator[Cause]:
    if rule.get("action") not in _ACTIONS:
        yield unsupported(f"{field}.action", rule.get("action"), _ACTIONS)
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if (codes is None) == (not conditions):
        yield bad(field, "", "specifying one of OnExitCodes and OnPodConditions is required")
    if codes is None:
        return
    operator, values = codes.get("operator"), codes.get("values") or []
    if operator not in ("In", "NotIn"):
        yield unsupported(f"{field}.onExitCodes.operator", operator, ("In", "NotIn"))
    if not values:
        yield bad(f"{field}.onExitCodes.values", "[]", "at least one value is required")
    if len(values) > _MOST_EXIT_CODES:
        yield bad(f"{field}.onExitCodes.values", len(values), f"must have at most {_MOST_EXIT_CODES} items")
    if values != sorted(values):
        yield bad(f"{field}.onExitCodes.values", str(values), "must be ordered")
    if len(set(values)) < len(values):
        yield duplicate(f"{field}.onExitCodes.values", str(values))
    if operator == "In" and 0 in values:
        yield bad(f"{field}.onExitCodes.values", 0, "must not be 0 for the In operator")
    if codes.get("containerName") and codes["containerName"] not in containers:
        words = "must be one of the container or initContainer names in the pod template"
        yield bad(f"{field}.onExitCodes.containerName", codes["containerName"], words)


def job_change_faults(old: Object, new: Object) -> Iterator[Cause]:
    """Return what may not be changed of a Job that is there."""
    was, will = old.get("spec") or {}, new.get("spec") or {}
    frozen = "field is immutable"
    for key in ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        if was.get(key) != will.get(key):
            yield bad(f"spec.{key}", "", frozen)
    elastic = will.get("completionMode") == "Indexed" and will.get("completions") == will.get("parallelism")
    if was.get("completions") != will.get("completions") and not elastic:
        yield bad("spec.completions", will.get("completions"), frozen)
    if was.get("template") == will.get("template"):
        return
    waits = was.get("suspend") and not (old.get("status") or {}).get("startTime")
    if not waits or _apart(was.get("template") or {}) != _apart(will.get("template") or {}):
        yield bad("spec.template", "", frozen)


def _apart(template: Mapping[str, Any]) -> dict[str, Any]:
    spec = template.get("spec") or {}
    return {key: value for key, value in spec.items() if key not in _DIRECTIVES}


def job_set_faults(spec: Mapping[str, Any], name: str) -> Iterator[Cause]:
    """Return what the webhook of JobSets refuses."""
    known: list[str] = []
    for number, row in enumerate(spec.get("replicatedJobs") or ()):
        here, job = f"spec.replicatedJobs[{number}]", (row.get("template") or {}).get("spec") or {}
        yield from host_faults(f"{here}.name", row["name"], letter_first=True)
        if row["name"] in known:
            yield duplicate(f"{here}.name", row["name"])
        for other in row.get("dependsOn") or ():
            if other.get("name") not in known:
                words = f"replicatedJob: {row['name']} cannot depend on replicatedJob: {other.get('name')}"
                yield bad(f"{here}.dependsOn", other.get("name"), words)
        known.append(row["name"])
        pods = max(1, job.get("completions") or job.get("parallelism") or 1)
        longest = f"{name}-{row['name']}-{max(0, row.get('replicas', 1) - 1)}-{pods - 1}-xxxxx"
        if len(longest) > 63:
            yield bad(f"{here}.name", row["name"], f"pods would be named {longest}, which is longer than 63 characters")
        yield from job_faults(f"{here}.template.spec", job)
    coordinator = spec.get("coordinator") or {}
    if coordinator and coordinator["replicatedJob"] not in known:
        yield missing("spec.coordinator.replicatedJob", coordinator["replicatedJob"])
    for number, rule in enumerate((spec.get("failurePolicy") or {}).get("rules") or ()):
        if rule.get("action") in _GATED:
            words = f"{' and '.join(_GATED)} are not allowed when the feature gate RestartJob is disabled"
            yield bad(f"spec.failurePolicy.rules[{number}].action", rule["action"], words)
    for policy in ("successPolicy", "failurePolicy"):
        rules = (spec.get(policy) or {}).get("rules") or ()
        targets = [spec.get(policy) or {}, *rules]
        for target in (one for row in targets for one in row.get("targetReplicatedJobs") or ()):
            if target not in known:
                yield bad(f"spec.{policy}", target, "invalid replicatedJob name")


def pytorch_job_faults(spec: Mapping[str, Any]) -> Iterator[Cause]:
    """Return what the webhook of PyTorchJobs refuses."""
    replicas, elastic = spec.get("pytorchReplicaSpecs") or {}, spec.get("elasticPolicy") or {}
    if not replicas:
        yield required("spec.pytorchReplicaSpecs", "must be specified")
    for name, row in replicas.items():
        here = f"spec.pytorchReplicaSpecs[{name}]"
        if name not in _REPLICA_TYPES:
            yield unsupported(here, name, _REPLICA_TYPES)
        if name == "Master" and row.get("replicas", 1) != 1:
            yield bad(f"{here}.replicas", row.get("replicas"), "must be 1")
        if row.get("restartPolicy") not in (None, *_REPLICA_RESTARTS):
            yield unsupported(f"{here}.restartPolicy", row["restartPolicy"], _REPLICA_RESTARTS)
        pod = (row.get("template") or {}).get("spec") or {}
        containers = pod.get("containers") or ()
        if not containers:
            yield required(f"{here}.template.spec.containers", "must be specified")
        elif "pytorch" not in {one.get("name") for one in containers}:
            yield required(f"{here}.template.spec.containers", "must have at least one container with name pytorch")
        yield from pod_faults(f"{here}.template.spec", pod)
    if elastic and "Worker" not in replicas:
        yield required("spec.pytorchReplicaSpecs[Worker]", "must be specified when elasticPolicy is used")
    if elastic.get("nProcPerNode") is not None and spec.get("nprocPerNode") is not None:
        words = "must not be used with spec.nprocPerNode"
        yield Cause("spec.elasticPolicy.nProcPerNode", "FieldValueForbidden", f"Forbidden: {words}")
    if elastic.get("rdzvBackend") not in (None, *_RENDEZVOUS):
        yield unsupported("spec.elasticPolicy.rdzvBackend", elastic["rdzvBackend"], _RENDEZVOUS)
    managed = (spec.get("runPolicy") or {}).get("managedBy")
    if managed not in (None, *_MANAGED):
        yield unsupported("spec.runPolicy.managedBy", managed, _MANAGED)


def train_job_faults(spec: Mapping[str, Any]) -> Iterator[Cause]:
    """Return what the webhook of TrainJobs refuses."""
    trainer = spec.get("trainer") or {}
    reserved = sorted({one.get("name") for one in trainer.get("env") or ()} & _TRAINER_ENV)
    if reserved:
        yield bad("spec.trainer.env", ", ".join(reserved), "must not have reserved envs, they are set by the runtime")
    processes = trainer.get("numProcPerNode")  # a word, too, in older versions
    if isinstance(processes, int) and processes < 1:
        yield bad("spec.trainer.numProcPerNode", processes, "must be greater than or equal to 1")
    if (spec.get("activeDeadlineSeconds") or 1) < 1:
        yield bad("spec.activeDeadlineSeconds", spec["activeDeadlineSeconds"], "must be greater than or equal to 1")
    for number, patch in enumerate(spec.get("runtimePatches") or ()):
        template = (patch.get("trainingRuntimeSpec") or {}).get("template") or {}
        jobs = (template.get("spec") or {}).get("replicatedJobs") or ()
        pods = [
            ((((job.get("template") or {}).get("spec") or {}).get("template") or {}).get("spec") or {}) for job in jobs
        ]
        rows = [row for pod in pods for row in pod.get("containers") or ()]
        if any(row.get("name") == "node" and row.get("env") for row in rows):
            here = f"spec.runtimePatches[{number}]"
            yield bad(here, "node", "must not have envs for the node container: use spec.trainer.env")


def kept_faults(old: Object, new: Object, fields: tuple[str, ...]) -> Iterator[Cause]:
    """Return the fields that were changed though they must not be."""
    was, will = old.get("spec") or {}, new.get("spec") or {}
    for key in fields:
        if was.get(key) != will.get(key):
            yield bad(f"spec.{key}", "object", "field is immutable")
