"""The pod template of a job, the same for all kinds: a container that starts the agent, variables, volumes, a place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import attrs

from cloudtune.backends.eks_resources import GPU, NEURON, NEURON_CORE, Resources
from cloudtune.backends.eks_wire import CONTAINER, OWN, WORK, literal, said
from cloudtune.launch.commands import container_argv
from cloudtune.order import environment_of
from cloudtune.plan import FromShell, Leaf
from cloudtune.spec.eks import EKSJob, Volume
from cloudtune.spec.runtime import Runtime

if TYPE_CHECKING:
    from cloudtune.spec.programs import ContainerRuntime

#: Seconds that a pod has from being told to end until it is killed: the agent ends the job (30 s) and keeps outputs.
END_S = 120
#: Seconds beyond the job's own limit after which the pod is killed: until then the agent keeps the outputs.
LATE_S = 900
#: The variable that holds the key of a private repository.
GIT_SECRET = "CLOUDTUNE_GIT_SECRET"  # noqa: S105 - a name
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
#: What nodes of SageMaker HyperPod, whose types begin with ``ml.``, say of themselves.
HEALTH = ("sagemaker.amazonaws.com/node-health-status", "Schedulable")
_OWN_VOLUME, _SHARED_VOLUME = "cloudtune", "shared-memory"
#: Lists in a pod whose entries have names: a patch changes the entry of its name, as ``kubectl`` does it.
_NAMED = frozenset({"containers", "initContainers", "volumes", "env", "imagePullSecrets", "ports"})


@attrs.frozen(kw_only=True)
class Secrets:
    """Where the values of variables come from, by variable.

    ``references`` are secrets that are there, (name, key); ``own`` is what travels in a secret of the run.
    """

    references: Mapping[str, tuple[str, str]]
    own: Mapping[str, Leaf]


def container_of(runtime: Runtime) -> ContainerRuntime | None:
    """Return the runtime if it is a container; a plan of another runtime does not even import the class."""
    return cast("ContainerRuntime", runtime) if runtime.type == "container" else None


def image_of(place: EKSJob, runtime: Runtime) -> str | None:
    """Return the image: a container's own beats the infrastructure's; a digest stands in place of a tag."""
    container = container_of(runtime)
    if container is None or not container.image:
        return place.image
    return (
        f"{container.image.partition('@')[0]}@{container.image_digest}" if container.image_digest else container.image
    )


def secrets_of(runtime: Runtime) -> Secrets:
    """Return which variables come from secrets of the cluster, and which from one that the run brings along."""
    _, special = environment_of(runtime)
    own: dict[str, Leaf] = dict(special)
    references: dict[str, tuple[str, str]] = {}
    named = {variable.name: variable.secret for variable in runtime.env if variable.secret}
    git = git_secret(runtime)
    for name, reference in {**named, **({GIT_SECRET: git} if git else {})}.items():
        if reference.startswith("k8s:"):
            secret, _, key = reference.removeprefix("k8s:").partition("/")
            references[name] = (secret, key)
        elif reference.startswith("env:"):
            own[name] = FromShell(reference.removeprefix("env:"))
    return Secrets(references=references, own=own)


def git_secret(runtime: Runtime) -> str | None:
    """Return the reference to the key of a private repository."""
    git: Any = getattr(runtime, "git", None)
    found: str | None = getattr(git if git is not None else runtime, "git_secret_id", None)
    return found


def pod_template(
    place: EKSJob,
    runtime: Runtime,
    *,
    name: str,
    run_id: str,
    labels: Mapping[str, str],
    resources: Resources,
    secrets: Secrets,
    neighbours: Mapping[str, str],
    subdomain: str | None,
    limit_s: int | None,
) -> dict[str, Any]:
    """Return the template of a job's pods, with the spec's ``podSpec`` on it.

    ``neighbours`` are the variables by which the agent finds node 0 where no operator sets any, ``subdomain`` is the
    Service that gives the pods their names where no operator makes one.
    """
    container = container_of(runtime)
    volumes, mounts = _volumes(place, name, resources, with_agent=container is None)
    spec = said(
        {
            "restartPolicy": "Never",
            "subdomain": subdomain,
            "serviceAccountName": place.service_account,
            # a job that names no account has nothing to ask of the cluster
            "automountServiceAccountToken": None if place.service_account else False,
            "enableServiceLinks": False,
            "priorityClassName": place.priority_class,
            "terminationGracePeriodSeconds": END_S,
            "activeDeadlineSeconds": (limit_s + (LATE_S if container is None else 0)) if limit_s else None,
            "nodeSelector": _selector(place),
            "tolerations": [*_tolerations(resources), *(dict(one) for one in place.tolerations)],
            "imagePullSecrets": [{"name": secret} for secret in place.image_pull_secrets],
            "volumes": volumes,
            "containers": [
                said(
                    {
                        "name": CONTAINER,
                        "image": image_of(place, runtime),
                        **_argv(runtime, run_id),
                        "env": list(_variables(runtime, name, run_id, secrets, neighbours)),
                        "resources": resources.to_dict(),
                        "volumeMounts": mounts,
                        # of a container that says nothing of its end, the last lines of its log are kept
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                    }
                )
            ],
        }
    )
    metadata = said({"labels": dict(labels), "annotations": dict(place.annotations)})
    return {"metadata": metadata, "spec": patched_spec(spec, place.pod_spec)}


def patched_spec(target: Any, patch: Any, key: str = "") -> Any:
    """Return the target as a merge patch leaves it, except that entries of lists are merged by their names.

    >>> patched_spec({"containers": [{"name": "a", "image": "b"}]}, {"containers": [{"name": "c", "image": "d"}]})
    {'containers': [{'name': 'a', 'image': 'b'}, {'name': 'c', 'image': 'd'}]}
    """
    if isinstance(patch, Mapping):
        merged = dict(target) if isinstance(target, Mapping) else {}
        for word, value in patch.items():
            if value is None:
                merged.pop(word, None)
            else:
                merged[word] = patched_spec(merged.get(word), value, word)
        return merged
    if not isinstance(patch, (list, tuple)):
        return patch
    if key not in _NAMED or not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in patch):
        return [patched_spec(None, one) for one in patch]
    entries: dict[str, Any] = {one["name"]: one for one in target or ()}
    for one in patch:
        entries[one["name"]] = patched_spec(entries.get(one["name"]), one)
    return list(entries.values())


# --- the container


def _argv(runtime: Runtime, run_id: str) -> dict[str, Any]:
    """Return command and arguments. The job's own command is not among them: it is in the agent's order."""
    container = container_of(runtime)
    if container is None:
        directory = f"{WORK}/{run_id}"
        run = [f"{OWN}/agent.pyz", "run", "--order", f"{OWN}/order.json", "--directory", directory]
        return {"command": ["python3", "-I", "-S", *run]}
    command, arguments = container_argv(container.entrypoint), (*container_argv(container.cmd), *runtime.args)
    return {"command": [literal(word) for word in command], "args": [literal(word) for word in arguments]}


def _variables(
    runtime: Runtime, name: str, run_id: str, secrets: Secrets, neighbours: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the variables of the container: plain ones of the job are in the order, where the agent has them."""
    if container_of(runtime) is None:
        plain = {"CLOUDTUNE_PLACE": "kubernetes", "CLOUDTUNE_RUN_ID": run_id, **neighbours}
    else:
        plain = {key: literal(value) for key, value in environment_of(runtime)[0].items()}
    for key, value in plain.items():
        yield {"name": key, "value": value}
    for key, (secret, word) in secrets.references.items():
        yield {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": word}}}
    for key in secrets.own:
        if key not in secrets.references:
            yield {"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


# --- volumes


def _volumes(
    place: EKSJob, name: str, resources: Resources, *, with_agent: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the volumes of the pod and where they appear: each source is one volume, however often it appears."""
    shared = {"medium": "Memory", "sizeLimit": resources.shared_memory}
    volumes: list[dict[str, Any]] = [{"name": _SHARED_VOLUME, "emptyDir": shared}]
    mounts: list[dict[str, Any]] = [{"name": _SHARED_VOLUME, "mountPath": "/dev/shm"}]  # noqa: S108 - its own
    if with_agent:
        volumes.append({"name": _OWN_VOLUME, "configMap": {"name": name}})
        mounts.append({"name": _OWN_VOLUME, "mountPath": OWN, "readOnly": True})
    if any(volume.mount_path.rstrip("/") == "/dev/shm" for volume in place.volumes):  # noqa: S108
        del volumes[0], mounts[0]
    known: list[dict[str, Any]] = []
    for volume in place.volumes:
        source = _source(volume)
        if source not in known or "emptyDir" in source:
            known.append(source)
            volumes.append({"name": f"volume-{len(known) - 1}", **source})
        index = len(known) - 1 if "emptyDir" in source else known.index(source)
        where = {"name": f"volume-{index}", "mountPath": volume.mount_path}
        mounts.append(said({**where, "subPath": volume.sub_path or None, "readOnly": volume.read_only or None}))
    return volumes, mounts


def _source(volume: Volume) -> dict[str, Any]:
    if volume.claim is not None:
        return {"persistentVolumeClaim": {"claimName": volume.claim}}
    if volume.host_path is not None:
        return {"hostPath": {"path": volume.host_path}}
    return {"emptyDir": {"sizeLimit": volume.empty_dir}}


# --- which node


def _selector(place: EKSJob) -> dict[str, str]:
    """Return the labels that a node must have; HyperPod's nodes are called ``ml.`` and say whether they are healthy."""
    found: dict[str, str] = {}
    if place.instance_type:
        found[INSTANCE_TYPE] = place.instance_type
        if place.instance_type.startswith("ml."):
            found[HEALTH[0]] = HEALTH[1]
    return {**found, **place.node_selector}


def _tolerations(resources: Resources) -> Sequence[dict[str, Any]]:
    """Return what lets the pods onto nodes that are kept for those who ask for their devices."""
    keys = [name for name in resources.extended if name != NEURON_CORE]
    if NEURON_CORE in resources.extended and NEURON not in keys:
        keys.append(NEURON)
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in sorted(keys, key=lambda k: k != GPU)]
