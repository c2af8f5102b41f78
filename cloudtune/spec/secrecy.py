"""What of a spec is secret: it is decided here alone, for plans, records, logs and notebooks.

Secret are literal variables (by their names, or because they hold such a value), texts below ``overrides`` (likewise),
and what stands in a URI before the ``@`` of a password or token, in a signed query or in a signed path. The command and
its arguments are what the user wrote: nothing is taken out of them, but :func:`exposed` says what stands there.

:func:`without_secrets` is what may be kept, :func:`secret_values` is the rest. Together they say what the spec said:
a variable is read from the shell, ``${masked:NAME}`` in overrides stands for a value of that name, and so does
``${CLOUDTUNE_URI_..._SECRET}`` in a URI, which the node fills in from its own environment.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeVar, cast

import attrs

from cloudtune.node.masks import URI_VARIABLE, is_secret_name, mask_of, secret_spans, shown
from cloudtune.spec.environment import EnvironmentVariable, secret_variables
from cloudtune.spec.fields import freeze, yaml_key
from cloudtune.spec.hiding import is_secret_key, taken_apart
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.place import Infrastructure
from cloudtune.spec.runtime import GitSource, Runtime

__all__ = [
    "address_variables",
    "exposed",
    "is_secret_key",
    "is_secret_name",
    "literal_secrets",
    "masked",
    "secret_values",
    "secrets_of_steps",
    "shown",
    "taken_out",
    "without_addresses",
    "without_secrets",
]

Spec = TypeVar("Spec", bound="JobSpec | PipelineSpec")
#: Keys of a runtime whose URIs the node itself opens, by attribute; ``inputs`` and ``git`` are apart.
ADDRESSES = ("output_uri", "url", "script_path_uri", "notebook_path_uri")
#: A shorter value may be an ordinary word of a command.
_TELLING = 8


def secret_values(job: JobSpec) -> dict[str, str]:
    """Return every literal secret of a job by the name that stands for it in :func:`without_secrets`."""
    runtime, known = job.runtime, _known(job)
    values = secret_variables(runtime.env) if runtime is not None else {}
    _, more = taken_apart(job.infrastructure.overrides, known)
    parts = without_addresses(runtime)[1] if runtime is not None else {}
    return {**values, **more, **parts}


def without_secrets(spec: Spec) -> Spec:
    """Return a job or a pipeline as it may be kept; what is missing is in :func:`secret_values`."""
    return cast("Spec", _job(spec) if isinstance(spec, JobSpec) else _pipeline(spec))


def secrets_of_steps(pipeline: PipelineSpec) -> dict[str, dict[str, str]]:
    """Return the secret values of each step of a pipeline by its name, those of its infrastructures included."""
    known = _known_of_pipeline(pipeline)
    found: dict[str, dict[str, str]] = {}
    for step in pipeline.steps:
        # where names are the same, the infrastructure that counts comes last
        values = dict(taken_apart(pipeline.infrastructure.overrides, known)[1])
        if step.job is not None:
            values |= secret_values(step.job)
        if step.infrastructure is not None:
            values |= taken_apart(step.infrastructure.overrides, known)[1]
        found[step.name] = values
    return found


def masked(spec: Spec) -> Spec:
    """Return a job or a pipeline as it may be shown: as it is kept, but secret variables read ``${masked:NAME}``."""
    return cast("Spec", _job(spec, show=True) if isinstance(spec, JobSpec) else _pipeline(spec, show=True))


def literal_secrets(job: JobSpec) -> tuple[str, ...]:
    """Return the names of the variables that are literal secrets."""
    return tuple(secret_variables(job.runtime.env)) if job.runtime is not None else ()


def exposed(job: JobSpec) -> tuple[tuple[str, str], ...]:
    """Return where a secret stands in a text that is not changed, such as the command: (YAML path, what is wrong)."""
    if job.runtime is None:
        return ()
    values = {name: value for name, value in secret_variables(job.runtime.env).items() if len(value) >= _TELLING}
    runtime, _ = without_addresses(attrs.evolve(job.runtime, env=()))
    return tuple(_exposed("spec.runtime.spec", runtime, values))


def _exposed(path: str, value: Any, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        held = next((name for name, secret in values.items() if secret in value), None)
        if held is not None:
            yield (
                path,
                f"the value of {held} stands here in clear, as plans, records and logs show it: read the variable",
            )
        elif secret_spans(value):
            yield path, "a password or a signature stands here in clear, as plans, records and logs show it"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _exposed(f"{path}.{shown(str(key))}", item, values)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _exposed(f"{path}[{index}]", item, values)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _exposed(f"{path}.{yaml_key(field)}", getattr(value, field.name), values)


# --- addresses


def without_addresses(runtime: Runtime) -> tuple[Runtime, dict[str, str]]:
    """Return a runtime whose URIs hold no secrets, and what stood there, by the name of the variable in its place."""
    values: dict[str, str] = {}
    changes: dict[str, Any] = {}
    for key in ADDRESSES:
        text = getattr(runtime, key, None)
        if isinstance(text, str):
            changes[key] = taken_out(text, values)
    changes["inputs"] = freeze({taken_out(uri, values): path for uri, path in runtime.inputs.items()})
    git = getattr(runtime, "git", None)
    if isinstance(git, GitSource):
        changes["git"] = attrs.evolve(git, url=taken_out(git.url, values))
    wanted = runtime.dependencies
    if wanted is not None and wanted.pip_packages:
        changes["dependencies"] = attrs.evolve(wanted, pip_packages=taken_out(wanted.pip_packages, values))
    return (attrs.evolve(runtime, **changes), values) if values else (runtime, values)


def taken_out(text: str, values: MutableMapping[str, str]) -> str:
    """Return a text with ``${NAME}`` in place of the secrets of its URIs, which are added to ``values`` by NAME.

    The same URI gives the same names, wherever it stands.
    """
    out, position, seen = "", 0, shown(text)
    for number, (start, end) in enumerate(secret_spans(text)):
        salt = number
        while values.setdefault(name := _address_name(f"{salt} {seen}"), text[start:end]) != text[start:end]:
            salt += 1_000  # the same place under another password
        out += f"{text[position:start]}${{{name}}}"
        position = end
    return out + text[position:]


def address_variables(runtime: Runtime) -> tuple[str, ...]:
    """Return the names that stand in a runtime's URIs for secrets that were taken out before."""
    texts = [str(getattr(runtime, key, None)) for key in ADDRESSES]
    texts += [*runtime.inputs, str(getattr(getattr(runtime, "git", None), "url", None))]
    texts += [str(getattr(runtime.dependencies, "pip_packages", None))]
    return tuple(dict.fromkeys(name for text in texts for name in URI_VARIABLE.findall(text)))


def _address_name(text: str) -> str:
    return f"CLOUDTUNE_URI_{zlib.crc32(text.encode(errors='surrogatepass')):08X}_SECRET"


# --- jobs, steps, places


def _known(job: JobSpec) -> dict[str, str | None]:
    """Return the names of a job's variables, with the values of literal secrets."""
    if job.runtime is None:
        return {}
    names: dict[str, str | None] = {variable.name: None for variable in job.runtime.env}
    return {**names, **secret_variables(job.runtime.env)}


def _known_of_pipeline(pipeline: PipelineSpec) -> dict[str, str | None]:
    """Return the names of all variables; a name with a value of its own in each of two steps has none here."""
    known: dict[str, str | None] = {}
    for step in pipeline.steps:
        for name, value in (_known(step.job) if step.job is not None else {}).items():
            known[name] = value if known.get(name, value) == value else None
    return known


def _pipeline(pipeline: PipelineSpec, *, show: bool = False) -> PipelineSpec:
    known = _known_of_pipeline(pipeline)
    steps = [
        attrs.evolve(
            step,
            infrastructure=_place(step.infrastructure, known) if step.infrastructure is not None else None,
            job=_job(step.job, show=show) if step.job is not None else None,
        )
        for step in pipeline.steps
    ]
    return attrs.evolve(pipeline, infrastructure=_place(pipeline.infrastructure, known), steps=tuple(steps))


def _job(job: JobSpec, *, show: bool = False) -> JobSpec:
    runtime = _runtime(job.runtime, show=show) if job.runtime is not None else None
    return attrs.evolve(job, infrastructure=_place(job.infrastructure, _known(job)), runtime=runtime)


def _runtime(runtime: Runtime, *, show: bool) -> Runtime:
    hidden = secret_variables(runtime.env)
    env = tuple(
        EnvironmentVariable(name=variable.name, value=mask_of(variable.name) if show else None)
        if variable.value is not None and variable.name in hidden
        else variable
        for variable in runtime.env
    )
    return attrs.evolve(without_addresses(runtime)[0], env=env)


def _place(place: Infrastructure, known: Mapping[str, str | None]) -> Infrastructure:
    """Return an infrastructure without its secrets; in its URIs they are not needed: services have roles."""
    changes: dict[str, Any] = {"overrides": freeze(taken_apart(place.overrides, known)[0])}
    for field in attrs.fields(type(place)):
        value = getattr(place, field.name)
        if isinstance(value, str) and secret_spans(value):
            changes[field.name] = shown(value)
    return attrs.evolve(place, **changes)
