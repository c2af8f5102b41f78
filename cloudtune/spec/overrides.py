"""Changes from the command line: ``--set a.b=v`` on the tree, ``-e NAME=V`` on the values.

A path of ``--set`` may leave out what goes without saying: ``runtime.replicas`` is ``spec.runtime.spec.replicas``,
``steps.train.runtime.replicas`` the same in the job of the step called train. A value is a plain YAML scalar, or flow
YAML where it begins with a bracket, a brace or a quotation mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import attrs

from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.faults import Faults, Path, Place, nearest, path_text, shortened
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.nodes import DEPTH, Node, inner, parse, resolved

_PART = re.compile(r"\[([0-9]{1,6})\]|\[\"([^\"]*)\"\]|\.?([^.=\[\]\"]+)")
_BLOCKS = frozenset({"infrastructure", "runtime"})
_BLOCK_KEYS = frozenset({"kind", "type", "spec"})


def apply_settings(root: Node, settings: Iterable[str], faults: Faults) -> None:
    """Put the values of ``--set`` options into the tree of a document."""
    for setting in settings:
        # the value may be a secret: it is not shown
        place = Place(f"--set {shortened(setting.partition('=')[0], 60)}")
        parts, text = _split(setting)
        if text is None:
            faults.add("this is no setting", place, hint="write --set runtime.replicas=4")
            continue
        path = _whole(root, parts, place, faults)
        if path is not None:
            _put(root, path, _value(text, place, faults), faults)


def replace_infrastructure(root: Node, infrastructure: Node, faults: Faults) -> None:
    """Run the job or pipeline of a document elsewhere."""
    _put(root, ("spec", "infrastructure"), infrastructure, faults)


def with_environment(spec: JobSpec | PipelineSpec, env: Sequence[str], faults: Faults) -> JobSpec | PipelineSpec:
    """Return the job, or the pipeline with each of its jobs, with the variables of ``-e`` options added or replaced.

    ``NAME=VALUE`` is a literal value; a bare ``NAME`` is read from the shell when the job is submitted.
    """
    added = tuple(found for item in env if (found := _variable(item, faults)) is not None)
    if not added:
        return spec
    if isinstance(spec, JobSpec):
        return _job_with(spec, added)
    steps = (attrs.evolve(step, job=_job_with(step.job, added)) if step.job else step for step in spec.steps)
    return attrs.evolve(spec, steps=tuple(steps))


def _variable(item: str, faults: Faults) -> EnvironmentVariable | None:
    name, equals, value = item.partition("=")
    if not name.strip():
        faults.add("a variable needs a name", Place("-e"), hint="write -e NAME=VALUE or -e NAME")
        return None
    if not item.isprintable() and any("\ud800" <= character <= "\udfff" for character in item):
        faults.add("the value is no UTF-8 text", Place(f"-e {shortened(name, 60)}"))
        return None
    return EnvironmentVariable(name=name, value=value if equals else None)


def _job_with(job: JobSpec, added: tuple[EnvironmentVariable, ...]) -> JobSpec:
    if job.runtime is None:
        return job
    variables = {variable.name: variable for variable in (*job.runtime.env, *added)}
    return attrs.evolve(job, runtime=attrs.evolve(job.runtime, env=tuple(variables.values())))


def _split(setting: str) -> tuple[list[str | int], str | None]:
    parts: list[str | int] = []
    position = 0
    while match := _PART.match(setting, position):
        index, quoted, word = match.groups()
        parts.append(int(index) if index is not None else quoted if quoted is not None else word.strip())
        position = match.end()
    if not parts or setting[position : position + 1] != "=" or len(parts) > DEPTH:
        return [], None
    return parts, setting[position + 1 :]


def _value(text: str, place: Place, faults: Faults) -> Node:
    if text.lstrip()[:1] in {"[", "{", '"', "'"}:
        return parse(text, faults, place.file)
    node = Node(resolved(text.strip()), place, text)
    node.loose = True
    return node


def _whole(root: Node, parts: list[str | int], place: Place, faults: Faults) -> Path | None:
    """Return a path with the words put in that go without saying; None after a fault."""
    path: list[str | int] = []
    state = "document"
    for part in parts:
        if state == "document":
            if part in {"kind", "apiVersion", "spec"}:
                path.append(part)
                state = "job" if part == "spec" else "free"
                continue
            path.append("spec")
            state = "job"
        if state == "block" and part not in _BLOCK_KEYS:
            path.append("spec")
        elif state == "step" and part == "runtime":
            path.append("job")
        elif state == "steps" and not isinstance(part, int) and not part.isdigit():
            index = _step(root, part, place, faults)
            if index is None:
                return None
            part = index  # noqa: PLW2901 - a name stands for its place
        path.append(part)
        state = _next(state, part)
    return tuple(path)


def _next(state: str, part: str | int) -> str:
    if state == "steps":
        return "step"
    if state in {"job", "step"}:
        return "block" if part in _BLOCKS else {"steps": "steps", "job": "job"}.get(str(part), "free")
    return "free"


def _step(root: Node, wanted: str, place: Place, faults: Faults) -> int | None:
    """Return which step has a name."""
    steps = inner(inner(root, "spec"), "steps")
    items = steps.value if steps is not None and isinstance(steps.value, list) else []
    names = [name.value if (name := inner(item, "name")) else None for item in items]
    if wanted in names:
        return names.index(wanted)
    guess = nearest(wanted, [word for word in names if isinstance(word, str)])
    faults.add(f"no step is called {shortened(wanted)!r}", place, hint=f"did you mean {guess!r}?" if guess else None)
    return None


def _put(root: Node, path: Path, value: Node, faults: Faults) -> None:
    """Put a value at a path, making the mappings on the way."""
    node = root
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if node.value is None and not node.broken:
            node.value = [] if isinstance(part, int) else {}
        if isinstance(node.value, list):
            index = int(part) if isinstance(part, int) or part.isdigit() else -1
            if not 0 <= index <= len(node.value):
                hint = "for variables there is -e NAME=VALUE" if "env" in path else f"0 to {len(node.value)}"
                faults.add("this is a list, and it has no such item", value.place, path[: depth + 1], hint)
                return
            if index == len(node.value):
                node.value.append(value if last else Node(None, value.place))
            elif last:
                node.value[index] = value
            node = node.value[index]
        elif isinstance(node.value, dict) and isinstance(part, str):
            word = part
            if last or word not in node.value:
                node.value[word] = value if last else Node(None, value.place)
                node.places[word] = value.place
            node = node.value[word]
        else:
            if not node.broken:
                kind = "list" if isinstance(part, int) else "mapping"
                faults.add(f"{path_text(path[:depth])} is no {kind}; {part!r} cannot be set in it", value.place, path)
            return
