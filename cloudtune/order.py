"""The order: what the node agent is told, the same for every backend (the wire format of cloudtune.node)."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from cloudtune.launch import Launch, run_time_limit_s
from cloudtune.plan import FromShell, Leaf, Masked, mask
from cloudtune.spec.environment import interpolated
from cloudtune.spec.fields import thaw
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import GitPythonRuntime, PyTorchDistributedRuntime, Runtime

#: Seconds between the polite end of a job and the hard one.
GRACE_S = 30


def order_of(
    job: JobSpec,
    launch: Launch,
    run_id: str,
    *,
    name: str,
    code: Mapping[str, Any] | None,
    outputs: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Leaf]]:
    """Return the order as JSON data, and the values that must reach the agent's environment another way.

    ``code`` is an archive of this machine, or None for code that the node fetches itself.
    """
    runtime = job.runtime
    assert runtime is not None
    literals, values = environment_of(runtime)
    order = {
        "runId": run_id,
        "name": name,
        "nodes": launch.nodes,
        "processesPerNode": launch.processes_per_node,
        "acceleratorsPerNode": launch.accelerators_per_node,
        "accelerator": launch.accelerator,
        "launcher": launch.launcher,
        "command": launch.command if isinstance(launch.command, str) else list(launch.command),
        "environment": {**launch.environment, **literals},
        "inherited": sorted(values),
        "secrets": {variable.name: variable.secret for variable in runtime.env if variable.secret is not None},
        "code": dict(code) if code else _fetched_code(runtime),
        "workingDir": getattr(runtime, "working_dir", None),
        "pythonPath": list(getattr(runtime, "python_path", ())),
        "dependencies": _dependencies(runtime),
        "inputs": thaw(runtime.inputs),
        "outputs": dict(outputs) if outputs else None,
        "rendezvousTimeoutInSeconds": runtime.rendezvous_timeout_in_seconds,
        "maximumRuntimeInSeconds": run_time_limit_s(job)[0],
        "graceInSeconds": GRACE_S,
        "neuron": dict(launch.neuron) if launch.neuron is not None else None,
    }
    return order, values


def job_name(job: JobSpec) -> str:
    """Return the job's name with ``${NAME}`` filled in from its variables; unknown ones stay as they are.

    A job without a name is called after its recipe or its type of runtime.
    """
    runtime = job.runtime
    if job.name is None:
        return runtime.recipe.name if runtime and runtime.recipe else (runtime.type if runtime else "job")
    return Template(job.name).safe_substitute(interpolated(runtime.env) if runtime else {})


def environment_of(runtime: Runtime) -> tuple[dict[str, str], dict[str, Leaf]]:
    """Return the job's plain variables, and those whose values are masked or read from the shell."""
    literals = interpolated(runtime.env)
    hidden = [value for name, value in literals.items() if isinstance(mask(name, value), Masked)]
    plain: dict[str, str] = {}
    special: dict[str, Leaf] = {}
    for name, value in literals.items():
        # a secret that was filled into another variable makes a secret of that one too
        if isinstance(mask(name, value), Masked) or any(secret in value for secret in hidden):
            special[name] = Masked(name, value)
        else:
            plain[name] = value
    for variable in runtime.env:
        if variable.value is None and variable.secret is None:
            special[variable.name] = FromShell(variable.name)
    return plain, special


def _fetched_code(runtime: Runtime) -> dict[str, Any] | None:
    git = runtime.git if isinstance(runtime, PyTorchDistributedRuntime) else runtime
    if isinstance(runtime, GitPythonRuntime) or (isinstance(runtime, PyTorchDistributedRuntime) and git is not None):
        return {
            "kind": "git",
            "url": getattr(git, "url", None),
            "branch": getattr(git, "branch", None),
            "commit": getattr(git, "commit", None),
            "secret": getattr(git, "git_secret_id", None),
        }
    uri = getattr(runtime, "script_path_uri", None) or getattr(runtime, "notebook_path_uri", None)
    return {"kind": "uri", "uri": uri} if uri and "://" in uri else None


def _dependencies(runtime: Runtime) -> dict[str, str] | None:
    wanted = runtime.dependencies
    if wanted is None:
        return None
    return {"pipPackages": wanted.pip_packages or "", "pipRequirements": wanted.pip_requirements or ""}
