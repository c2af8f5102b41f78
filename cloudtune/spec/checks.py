"""What no single key shows: values that cannot go together. One check serves YAML and values built in Python.

A check is a small generator over a value; it yields (path, message, hint), the path in YAML keys from that value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cloudtune.errors import SpecError
from cloudtune.spec.environment import EnvironmentVariable, interpolated, references
from cloudtune.spec.faults import Faults, Path, Place, nearest, shortened
from cloudtune.spec.fields import keys_of
from cloudtune.spec.graph import sort
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.limits import LIMITS
from cloudtune.spec.nodes import Node
from cloudtune.spec.order import circle_message, needs_of
from cloudtune.spec.order import references as step_references
from cloudtune.spec.place import Infrastructure
from cloudtune.spec.precompiling import of_precompiling
from cloudtune.spec.runtime import Runtime
from cloudtune.spec.verbs import of_deploy, of_register

Finding = tuple[Path, str, str | None]

#: What every shell takes; dash, which starts the job's commands in many images, drops variables of other names.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEP = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,38}[A-Za-z0-9])?")
#: References to secrets; `<...>` is a placeholder, which a run refuses and a dry run shows.
_SECRET = re.compile(
    r"ocid1\.vaultsecret\.[^\s]+"
    r"|arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[^:\s]*:secret:[^\s]+"
    r"|k8s:[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9._-]+"
    r"|env:[^=\0\s]+"
    r"|<.*>",
    re.DOTALL,
)


def check(spec: JobSpec | PipelineSpec | Infrastructure | Runtime, root: Node | None, faults: Faults) -> None:
    """Note everything in a value that cannot be, where it stands in the tree that it was read from (if any)."""
    said = frozenset(faults.paths)
    for found, message, hint in findings_of(spec):
        if faults.full:
            faults.more += 1
            continue
        place, path = settled(root, found)
        if not any(path[:length] in said for length in range(1, len(path) + 1)):
            faults.add(message, place, path, hint)


def findings_of(spec: Any) -> Iterator[Finding]:
    """Yield everything in a value that cannot be."""
    if isinstance(spec, JobSpec):
        yield from below(("spec",), of_job(spec))
    elif isinstance(spec, PipelineSpec):
        yield from below(("spec",), of_pipeline(spec))
    else:
        yield from of_block(spec)


def below(path: Path, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Put a path before the path of each finding."""
    for inner, message, hint in findings:
        yield (*path, *inner), message, hint


def settled(root: Node | None, path: Path) -> tuple[Place, Path]:
    """Return where a path stands in a tree, or the nearest thing that holds it."""
    if root is None:
        return Place(), path
    node, place, found = root, root.place, list(path)
    for depth, part in enumerate(path):
        if isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            place = node.place
            continue
        if isinstance(part, int) and isinstance(node.value, dict) and part < len(node.value):
            # a variable of a mapping: counted by the check, named by the user
            part = found[depth] = list(node.value)[part]  # noqa: PLW2901
        if not isinstance(node.value, (dict, list)) and node.value is not None:
            found = found[:depth]
        if not isinstance(node.value, dict) or part not in node.value:
            break
        node, place = node.value[part], node.place_of(str(part))
    return place, tuple(found)


# --- jobs


def of_job(job: JobSpec) -> Iterator[Finding]:
    """Check a job."""
    yield from below(("infrastructure",), of_block(job.infrastructure))
    if job.runtime is None:
        yield ("runtime",), "'runtime' is missing", "what should run?"
        return
    yield from below(("runtime",), of_block(job.runtime))
    place: Any = job.infrastructure
    if job.runtime.type == "container" and not (
        getattr(job.runtime, "image", None) or getattr(place, "image", None) or getattr(place, "framework", None)
    ):
        yield ("runtime", "spec", "image"), "a container runtime needs an image", None


def of_block(value: Infrastructure | Runtime) -> Iterator[Finding]:
    """Check an infrastructure or a runtime."""
    checks: tuple[Callable[[Any], Iterator[Finding]], ...] = LIMITS.get(value.type, ())
    if isinstance(value, Runtime):
        checks = (of_environment, of_recipe, *checks)
    for one in checks:
        yield from below(("spec",), one(value))


def of_recipe(runtime: Runtime) -> Iterator[Finding]:
    """Check that a recipe stands in the place of the user's own code."""
    if runtime.recipe is None:
        return
    for key in keys_of(type(runtime)):
        if key.name in _CODE and getattr(runtime, key.name):
            hint = "the recipe's own options go into recipe.args"
            yield (key.word,), f"the recipe stands in the place of {key.word!r}; write one of them", hint


_CODE = frozenset({"command", "cmd", "entrypoint", "entry_function", "notebook_path_uri", "source"})


# --- environment


def of_environment(runtime: Runtime) -> Iterator[Finding]:
    """Check the variables: names, secrets, and that they can be filled in."""
    seen: set[str] = set()
    for index, variable in enumerate(runtime.env):
        yield from below(("env", index), of_variable(variable))
        if variable.name and variable.name in seen:
            yield ("env", index, "name"), f"the variable {variable.name!r} is given twice", "keep one of them"
        seen.add(variable.name)
    places = {variable.name: index for index, variable in enumerate(runtime.env)}
    literals = {variable.name: variable.value for variable in runtime.env if variable.value is not None}
    _, circle = sort({name: references(text, literals) for name, text in literals.items()})
    if circle:
        hint = "a literal ${NAME} is written $${NAME}"
        path = ("env", places[circle[0]], "value")
        yield path, f"the variables refer to each other in a circle: {' -> '.join([*circle, circle[0]])}", hint
        return
    try:
        interpolated(runtime.env)
    except SpecError as error:
        yield ("env",), error.faults[0].message, None


def of_variable(variable: EnvironmentVariable) -> Iterator[Finding]:
    """Check one variable."""
    if "=" in variable.name:
        # the value may be a secret: it is not shown
        name = variable.name.partition("=")[0]
        yield ("name",), "a variable with its value is no single word", f"write {{name: {name}, value: ...}}"
    elif variable.name and not _VARIABLE.fullmatch(variable.name):
        hint = f"letters, digits and _, no digit first: {_near_name(variable.name)}"
        yield ("name",), f"{shortened(variable.name, 40)!r} cannot be the name of a variable", hint
    if variable.value is not None and variable.secret is not None:
        yield ("secret",), "a variable has a value or a secret, not both", None
    if variable.secret is not None and not _SECRET.fullmatch(variable.secret):
        hint = "an OCI Vault secret OCID, a Secrets Manager ARN, k8s:NAME/KEY or env:NAME"
        yield ("secret",), "this is no reference to a secret", hint


def _near_name(name: str) -> str:
    """Return a name of a variable that is much like another text."""
    found = re.sub(r"[^A-Za-z0-9]+", "_", name)[:40]
    return f"_{found}" if not found or found[0].isdigit() else found


# --- pipelines


def of_pipeline(pipeline: PipelineSpec) -> Iterator[Finding]:
    """Check a pipeline: its steps, and what they need."""
    yield from below(("infrastructure",), of_block(pipeline.infrastructure))
    if not pipeline.steps:
        yield ("steps",), "a pipeline needs steps", None
    places: dict[str, int] = {}
    names = frozenset(step.name for step in pipeline.steps)
    for index, step in enumerate(pipeline.steps):
        yield from below(("steps", index), of_step(step, names))
        yield from below(("steps", index, "precompile"), _of_precompile(step, pipeline, names))
        if step.name and places.setdefault(step.name, index) != index:
            yield ("steps", index, "name"), f"the name {step.name!r} is taken by an earlier step", "rename one of them"
    needs = needs_of(pipeline)
    _, circle = sort({name: [need for need in wanted if need != name] for name, wanted in needs.items()})
    if circle:
        yield ("steps", places[circle[0]]), circle_message(circle), None


def _of_precompile(step: PipelineStep, pipeline: PipelineSpec, names: frozenset[str]) -> Iterator[Finding]:
    if step.precompile is None:
        return
    if step.precompile not in names - {step.name}:
        yield (), f"no other step is called {step.precompile!r}", _meant(step.precompile, step, names)
        return
    for message, hint in of_precompiling(step, {one.name: one for one in pipeline.steps}):
        yield (), message, hint


def of_step(step: PipelineStep, names: frozenset[str]) -> Iterator[Finding]:
    """Check one step."""
    if step.name and not _STEP.fullmatch(step.name):
        yield ("name",), f"{step.name!r} cannot be the name of a step", "letters, digits, - and _; 40 at most"
    if [step.job, step.precompile, step.verb].count(None) != 2:
        yield (), "a step is either a job or a verb", None
    if step.infrastructure is not None:
        yield from below(("infrastructure",), of_block(step.infrastructure))
    if step.job is not None:
        yield from below(("job",), of_job(step.job))
    if step.verb == "register":
        yield from below(("register",), of_register(step.options))
    if step.verb == "deploy":
        yield from below(("deploy",), of_deploy(step.options))
    for index, need in enumerate(step.needs):
        if need == step.name:
            yield ("needs", index), "a step cannot need itself", None
        elif need not in names:
            yield ("needs", index), f"no step is called {need!r}", _meant(need, step, names)
    for path, name, field in step_references(step):
        where = yaml_path(step, path)
        if field != "outputs":
            yield where, f"of a step only its outputs can be used: ${{steps.{name}.outputs}}", None
        elif name == step.name:
            yield where, "a step cannot use its own outputs", None
        elif name not in names:
            yield where, f"no step is called {name!r}", _meant(name, step, names)


def _meant(name: str, step: PipelineStep, names: frozenset[str]) -> str | None:
    if len(names) > 60:
        return None  # comparing words takes time, and so many steps were not typed by hand
    guess = nearest(name, sorted(names - {"", step.name}))
    return f"did you mean {guess!r}?" if guess else None


def yaml_path(step: PipelineStep, path: Path) -> Path:
    """Turn a path of attributes below a step into YAML keys."""
    out: list[str | int] = []
    value: Any = step
    for part in path:
        words = {key.name: key.word for key in keys_of(type(value))} if hasattr(value, "__attrs_attrs__") else {}
        if isinstance(value, (Infrastructure, Runtime)):
            out.append("spec")
        if value is step and part == "options":
            out.append(step.verb or "options")
        else:
            out.append(words.get(str(part), part) if not isinstance(part, int) else part)
        value = value[part] if not words and not isinstance(value, str) else getattr(value, str(part), None)
    return tuple(out)
