"""What a plan says of a job on a cluster beside its steps: keys that cannot be honoured, and what should be known."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from cloudtune.backends.containers import agents_work
from cloudtune.backends.eks_kinds import AUTO_RESUME, DEFAULT_TRAINER_API, PART, RUNTIME, changeable
from cloudtune.backends.eks_pods import container_of, git_secret, image_of
from cloudtune.backends.eks_resources import Resources
from cloudtune.backends.eks_travel import Luggage
from cloudtune.backends.eks_wire import plain_name
from cloudtune.backends.node_folders import ends_with_the_node, is_below, not_on_the_node
from cloudtune.launch import Launch, run_time_limit_s
from cloudtune.order import job_name
from cloudtune.plan import FieldNote
from cloudtune.spec.eks import EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtime import Runtime

_WHERE, _WHAT = "spec.infrastructure.spec", "spec.runtime.spec"
#: Variables that Trainer sets itself, and lets nobody else set.
_TRAINERS = ("PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
_AUTO_RESUME_NAMESPACES = ("kubeflow", "hyperpod")

Pair = tuple[str, str]


@attrs.frozen(kw_only=True)
class Drawn:
    """A job as far as it was planned; ``region`` is the spec's or this machine's."""

    job: JobSpec
    place: EKSJob
    runtime: Runtime
    how: Launch
    region: str | None
    found: str | None
    resources: Resources
    luggage: Luggage | None


def notes(drawn: Drawn) -> Iterator[FieldNote]:
    """Yield the keys that cannot be honoured, and those that are another way than written."""
    for path, reason in (*_missing(drawn), *_unfit(drawn), *_secrets(drawn), *_kind(drawn), *_without_agent(drawn)):
        yield FieldNote(path=path, status="refused", reason=reason)
    for path, reason in (*_approximated(drawn), *_trainer(drawn)):
        yield FieldNote(path=path, status="approximated", reason=reason)


def doubts(drawn: Drawn) -> Iterator[Pair]:
    """Yield what the user should know before the run starts."""
    place, runtime = drawn.place, drawn.runtime
    _, limit = run_time_limit_s(drawn.job)
    if limit is not None:
        yield limit
    if drawn.found:
        yield f"{_WHERE}.region", f"taken from where this is submitted ({drawn.found})"
    if place.context and place.cluster:
        yield f"{_WHERE}.cluster", f"the context {place.context!r} of kubeconfig says which cluster it is"
    if not drawn.resources.requests:
        reason = "nothing says what the pods need, so they are the first to be evicted: set instanceType or resources"
        yield f"{_WHERE}.resources", reason
    yield from _outputs(drawn)
    if place.queue and place.job_kind == "pyTorchJob":
        reason = "Kueue passes over PyTorchJobs unless its admin has enabled the framework kubeflow.org/pytorchjob"
        yield f"{_WHERE}.queue", reason
    if any(volume.host_path for volume in place.volumes):
        yield f"{_WHERE}.volumes", "namespaces with Pod Security baseline or restricted take no pod with a hostPath"
    yield from _auto_resume(place)
    if runtime.type != "container":
        given = {variable.name for variable in runtime.env}
        for name in ("CLOUDTUNE_PLACE", "CLOUDTUNE_RUN_ID", "CLOUDTUNE_JOB_NAME", "CLOUDTUNE_SERVICE"):
            if name in given:
                yield f"{_WHAT}.env", f"{name} is set by cloudtune in a cluster; the job's own value has no effect"


# --- refused


def _missing(drawn: Drawn) -> Iterator[Pair]:
    """Yield what only the user knows and the spec must say."""
    place = drawn.place
    if not image_of(place, drawn.runtime):
        yield f"{_WHERE}.image", "a pod needs an image, and nothing here says it"
    if place.region and not place.cluster:
        reason = "a region alone names no cluster: set cluster, or leave region out to use kubeconfig"
        yield f"{_WHERE}.region", reason
    if place.cluster and not place.context and not drawn.region:
        yield f"{_WHERE}.region", f"nothing here says in which region the cluster {place.cluster!r} is"


def _unfit(drawn: Drawn) -> Iterator[Pair]:
    """Yield what does not fit into what a cluster carries to the pods."""
    left, staging = drawn.luggage, drawn.place.staging_uri
    if left is None or left.unfit is None:
        return
    if left.unfit == "order":
        yield f"{_WHAT}.env", "the variables and the command do not fit into a ConfigMap (1 MiB): put them into a file"
    elif staging:
        yield (
            f"{_WHERE}.stagingUri",
            f"code for a cluster is uploaded to S3, not to {staging}: write s3://bucket/prefix",
        )
    else:
        reason = (
            "the code is too large for a ConfigMap (1 MiB): name a place in S3 where it is uploaded, take it from git, "
            "or put it on a volume and name its folder in workingDir"
        )
        yield f"{_WHERE}.stagingUri", reason


def _secrets(drawn: Drawn) -> Iterator[Pair]:
    """Yield secrets that a pod cannot read."""
    runtime = drawn.runtime
    reason = "a pod reads no secrets of OCI: keep it in a secret of the cluster (k8s:NAME/KEY) or in Secrets Manager"
    for index, variable in enumerate(runtime.env):
        if variable.secret and variable.secret.startswith("ocid1."):
            yield f"{_WHAT}.env[{index}].secret", reason
        elif variable.secret and variable.secret.startswith("arn:") and container_of(runtime) is not None:
            yield f"{_WHAT}.env[{index}].secret", "the agent fetches it, and a container runs as given without it"
    key = "git.gitSecretId" if getattr(runtime, "git", None) is not None else "gitSecretId"
    if (git_secret(runtime) or "").startswith("ocid1."):
        yield f"{_WHAT}.{key}", reason


def _kind(drawn: Drawn) -> Iterator[Pair]:
    """Yield what a TrainJob cannot carry: it changes little of the pods of its runtime."""
    place = drawn.place
    if place.job_kind != "trainJob":
        return
    api = place.trainer_api or DEFAULT_TRAINER_API
    can = changeable(api)
    instead = "set it in the runtime, or use jobKind: jobSet"
    if place.priority_class:
        yield f"{_WHERE}.priorityClass", f"a TrainJob cannot change the priority of its runtime's pods: {instead}"
    if place.image_pull_secrets and "imagePullSecrets" not in can:
        yield f"{_WHERE}.imagePullSecrets", f"a TrainJob of {api} cannot change them: {instead}"
    for key in place.pod_spec:
        if key not in can:
            yield f"{_WHERE}.podSpec.{key}", f"a TrainJob of {api} cannot change it: {instead}"
    if container_of(drawn.runtime) is not None:
        for index, variable in enumerate(drawn.runtime.env):
            if variable.name in _TRAINERS:
                yield (
                    f"{_WHAT}.env[{index}].name",
                    f"Trainer sets {variable.name} itself and takes no other: leave it out",
                )


def _without_agent(drawn: Drawn) -> Iterator[Pair]:
    """Yield what needs the agent, of a container that runs as given."""
    runtime = drawn.runtime
    if container_of(runtime) is None:
        return
    yield from agents_work(runtime)


# --- another way than written


def _approximated(drawn: Drawn) -> Iterator[Pair]:
    job, place, runtime = drawn.job, drawn.place, drawn.runtime
    if container_of(runtime) is not None:
        reason = "a container runs as given, without cloudtune's agent: no CLOUDTUNE_* variables, no ranks in the log"
        yield "spec.runtime.type", reason
    if place.staging_uri and drawn.luggage is not None and not drawn.luggage.uploaded and not drawn.luggage.unfit:
        yield f"{_WHERE}.stagingUri", "not needed: what travels fits into the run's ConfigMap"
    if place.job_kind == "pyTorchJob":
        reason = "the operator counts a pod that was evicted like one that failed: job and jobSet tell them apart"
        yield f"{_WHERE}.jobKind", reason
    if getattr(runtime, "conda", None) is not None:
        yield f"{_WHAT}.conda", "the image's Python is used instead of a conda environment of OCI"
    if getattr(runtime, "image_signature_id", None):
        yield f"{_WHAT}.imageSignatureId", "signatures of OCI are not checked; imageDigest is"
    if runtime.freeform_tags:
        yield (
            f"{_WHAT}.freeformTags",
            "they become one annotation of the job; labels are in the infrastructure's labels",
        )
    if runtime.defined_tags:
        yield f"{_WHAT}.definedTags", "OCI's defined tags have no place here; freeformTags become an annotation"
    if job.id:
        yield "spec.id", "every run is a job of its own; the job of this id is left alone"
    if plain_name(job_name(job)) != job_name(job):
        yield "spec.name", "objects have lower-case letters, digits and hyphens in their names; it is in an annotation"


def _trainer(drawn: Drawn) -> Iterator[Pair]:
    """Yield what a TrainJob leaves to its runtime."""
    place = drawn.place
    if place.job_kind != "trainJob":
        return
    api = place.trainer_api or DEFAULT_TRAINER_API
    reason = (
        f"the runtime {RUNTIME} must have a job {PART!r}; how often its pods start again, how long they have to end "
        "and what becomes of evicted ones is said there"
    )
    yield f"{_WHERE}.jobKind", reason
    if place.max_restarts:
        yield f"{_WHERE}.maxRestarts", f"a TrainJob of {api} cannot say it: the runtime {RUNTIME} does"
    if run_time_limit_s(drawn.job)[0] and container_of(drawn.runtime) is not None and api != "v2.3":
        yield f"{_WHAT}.maximumRuntimeInMinutes", f"a TrainJob of {api} has no time limit, and no agent keeps it either"


# --- doubts


def _outputs(drawn: Drawn) -> Iterator[Pair]:
    """Yield where outputs, or what a restart would go on from, end with the pod."""
    place, runtime = drawn.place, drawn.runtime
    if container_of(runtime) is not None or getattr(runtime, "precompile_only", None):
        return
    kept = [volume.mount_path.rstrip("/") for volume in place.volumes if volume.empty_dir is None]
    uri, folder = runtime.output_uri, runtime.output_dir
    yield from ends_with_the_node(runtime, kept, node="pod")
    yield from not_on_the_node(runtime, [volume.mount_path.rstrip("/") for volume in place.volumes], node="pod")
    if not uri and not (folder and is_below(folder, kept)):
        yield f"{_WHAT}.outputUri", "nothing says where outputs go: they end with the pod"
    if place.max_restarts and not kept:
        yield f"{_WHERE}.maxRestarts", "no volume outlives a pod here: a restart begins from the start"


def _auto_resume(place: EKSJob) -> Iterator[Pair]:
    """Yield which conditions of HyperPod's own restarts a job that asks for them does not meet."""
    if place.annotations.get(AUTO_RESUME) != "true":
        return
    path = f"{_WHERE}.annotations.{AUTO_RESUME}"
    if place.job_kind != "pyTorchJob":
        yield path, "HyperPod restarts PyTorchJobs alone: jobKind: pyTorchJob"
    if not (place.namespace or "").startswith(_AUTO_RESUME_NAMESPACES):
        yield path, "HyperPod restarts jobs in the namespace kubeflow and in those that begin with hyperpod"
