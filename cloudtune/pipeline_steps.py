"""Steps of pipelines as jobs: a step is one, or a verb of the command line that runs as a job on this machine.

``${steps.NAME.outputs}`` is filled in with the place where an earlier step's outputs are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.fields import freeze
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Recipe, Runtime, ScriptRuntime

_REFERENCE = re.compile(r"\$\{steps\.([^.}]+)\.outputs\}")
#: Options of a verb that stand on the command line without a flag, in order.
POSITIONAL = {
    "merge": ("base", "adapter"),
    "consolidate": ("checkpoint",),
    "check": ("model",),
    "register": ("model",),
    "deploy": ("model",),
}
#: Options of verbs that are on unless they are said to be off.
_ON_BY_DEFAULT = frozenset({("merge", "checksums")})


def job_of(pipeline: PipelineSpec, step: PipelineStep, outputs: Mapping[str, str]) -> JobSpec:
    """Return the job that a step is, with the outputs of earlier steps filled in."""
    if step.job is not None:
        infrastructure = step.infrastructure or (
            step.job.infrastructure if step.job.infrastructure != LocalJob() else pipeline.infrastructure
        )
        job = attrs.evolve(step.job, infrastructure=infrastructure, name=step.job.name or step.name)
    else:
        prepares = step.verb == "prepare"
        here = step.infrastructure is None or step.infrastructure.type == "local"
        runtime: Runtime = _prepare(_filled(step.options, outputs), here=here) if prepares else _verb(step, here=here)
        job = JobSpec(name=step.name, infrastructure=step.infrastructure or LocalJob(), runtime=runtime)
    filled = _filled(job, outputs)
    assert isinstance(filled, JobSpec)
    return filled


def _prepare(given: Mapping[str, Any], *, here: bool) -> ScriptRuntime:
    """Return the recipe of the verb's name: it can run in a cloud, too, beside the data.

    Data of an object store become inputs of the job, and a file of this machine is named by its whole path.
    """
    options = dict(given)
    if not options.get("data"):
        hint = "a .jsonl file, a folder, an s3:// URI, or the name of a data set on the Hub"
        raise SpecError([Fault(path="spec.runtime.spec.recipe.args.data", message="'data' is missing", hint=hint)])
    output, inputs = options.pop("output", None), {}
    for key in ("data", "testData"):
        value = options.get(key)
        if not isinstance(value, str) or not value or "${" in value:
            continue
        if "://" in value and not value.startswith("file://"):
            options[key] = f"input-{key}/{value.rstrip('/').rpartition('/')[2]}"
            inputs[value] = options[key]
        elif Path(value).exists() and not here:
            message = f"{value} is on this machine, and the step runs elsewhere"
            hint = "upload it and name it by its URI, or leave out the step's infrastructure"
            raise SpecError([Fault(path=f"spec.runtime.spec.recipe.args.{key}", message=message, hint=hint)])
        elif Path(value).exists():
            options[key] = str(Path(value).absolute())
    if isinstance(output, str) and output and "://" not in output:
        output = str(Path(output).absolute())
    return ScriptRuntime(
        recipe=Recipe(name="prepare", args=freeze(options)),
        inputs=freeze(inputs),
        output_uri=output or None,
    )


def _verb(step: PipelineStep, *, here: bool) -> PyTorchDistributedRuntime:
    verb, options = step.verb or "", dict(step.options)
    words: list[str] = []
    for key in POSITIONAL.get(verb, ()):
        value = options.pop(key, ())
        words += [str(item) for item in (value if isinstance(value, (list, tuple)) else (value,))]
    for key, value in options.items():
        flag = "--" + re.sub(r"(?<!^)([A-Z])", r"-\1", key).lower()
        if value is True:
            words.append(flag)
        elif value is False and (verb, key) in _ON_BY_DEFAULT:
            words.append(f"--no-{flag[2:]}")
        elif value is not False and value is not None:
            words += [
                word for item in (value if isinstance(value, (list, tuple)) else (value,)) for word in (flag, str(item))
            ]
    # relative paths in the options start where the user stood, not in the node's folder; elsewhere that is no place
    return PyTorchDistributedRuntime(
        command=("python" if here else "python3", "-m", "cloudtune", verb, *words),
        processes_per_node=1,
        working_dir=str(Path.cwd()) if here else None,
    )


def _filled(value: Any, outputs: Mapping[str, str]) -> Any:
    """Return the value with every ``${steps.NAME.outputs}`` replaced."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: outputs.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return freeze({_filled(key, outputs): _filled(item, outputs) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_filled(item, outputs) for item in value)
    if attrs.has(type(value)):
        changed = {field.name: _filled(getattr(value, field.name), outputs) for field in attrs.fields(type(value))}
        return attrs.evolve(value, **changed)
    return value
