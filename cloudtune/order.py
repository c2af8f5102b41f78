"""The order: what the node agent is told, the same for every backend (the wire format of cloudtune.node)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from string import Template
from typing import Any

from cloudtune.home import runs_folder
from cloudtune.launch import Launch, run_time_limit_s
from cloudtune.node.masks import is_secret_name
from cloudtune.plan import FromShell, Leaf, Masked
from cloudtune.spec.environment import interpolated, secret_variables
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import GitPythonRuntime, PyTorchDistributedRuntime, Runtime
from cloudtune.spec.secrecy import address_variables, taken_out, without_addresses
from cloudtune.uri import local_path

#: Seconds between the polite end of a job and the hard one.
GRACE_S = 30
_NAME = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")
#: Beginnings of variables that mean another thing on the node than here.
_NODES_OWN = ("CLOUDTUNE_", "PET_", "TORCHELASTIC_")


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

    ``code`` is an archive of this machine, or None for code that the node fetches itself; ``outputs`` come from
    :func:`outputs_of`. In URIs the order has the names of variables in place of passwords and signatures.
    """
    assert job.runtime is not None
    literals, values = environment_of(job.runtime)
    runtime, _ = without_addresses(job.runtime)
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
        "inputs": {_ours_literal(uri): path for uri, path in runtime.inputs.items()},
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
    return Template(job.name).safe_substitute(environment_of(runtime)[0] if runtime else {})


def environment_of(runtime: Runtime) -> tuple[dict[str, str], dict[str, Leaf]]:
    """Return the job's plain variables, and those whose values are masked or read from the shell."""
    hidden = secret_variables(runtime.env)
    plain = {name: value for name, value in interpolated(runtime.env).items() if name not in hidden}
    special: dict[str, Leaf] = {name: Masked(name, value) for name, value in hidden.items()}
    read = [variable.name for variable in runtime.env if variable.value is None and variable.secret is None]
    special |= {name: FromShell(name) for name in (*read, *address_variables(runtime))}
    special |= {name: Masked(name, value) for name, value in without_addresses(runtime)[1].items()}
    return plain, special


# --- places


def outputs_of(runtime: Runtime, run_id: str, *, here: bool = False) -> dict[str, Any]:
    """Return which files are outputs and where they go, as the plan, the record and the order have it.

    ``$NAME`` is filled in as far as it is known before the run starts; passwords and signatures are names of variables.
    ``here`` is for nodes on this machine: they know its variables, paths start at the current folder, and outputs have
    a place without being told one. ``expand: False`` says that a dollar sign in the place is no more than that.
    """
    uri, is_open = runtime.output_uri, False
    if uri:
        uri, is_open = _filled(taken_out(uri, {}), _known(runtime, run_id, here=here))
        path = local_path(uri) if here and "://" not in uri and not uri.startswith("$") else None
        uri = str(path) if path is not None else uri
    elif here:
        uri = str(runs_folder() / run_id / "outputs")
    literal = {"expand": False} if uri and "$" in uri and not is_open else {}
    return {"dir": runtime.output_dir, "uri": uri, "layout": runtime.output_layout, **literal}


def _known(runtime: Runtime, run_id: str, *, here: bool) -> dict[str, str]:
    """Return the variables that the nodes are known to see, but no secrets."""
    given = {variable.name for variable in runtime.env}
    known = {name: value for name, value in os.environ.items() if name not in given} if here else {}
    known = {name: value for name, value in known.items() if not (is_secret_name(name) or name.startswith(_NODES_OWN))}
    return {**known, **environment_of(runtime)[0], "CLOUDTUNE_RUN_ID": run_id}


def _filled(text: str, known: Mapping[str, str]) -> tuple[str, bool]:
    """Return a text with ``$NAME`` filled in by the rule of the node, and whether names are left for the node."""
    # a value with a dollar sign would be filled in a second time
    known = {name: value for name, value in known.items() if "$" not in value}
    left = any(found[0] != "$$" and (found[1] or found[2]) not in known for found in _NAME.finditer(text))

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$$" if left else "$"
        return known.get(found[1] or found[2], found[0])

    return _NAME.sub(value, text), left


def _ours_literal(uri: str) -> str:
    """Return a URI in which the name of cloudtune's own folder is taken as it is: nobody wrote it for the job."""
    ours = str(runs_folder())
    for start in (ours, f"file://{ours}"):
        if "$" in ours and uri.startswith(start):
            return start.replace("$", "$$") + uri[len(start) :]
    return uri


# --- code


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
