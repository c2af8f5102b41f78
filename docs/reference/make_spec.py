"""Write docs/reference/spec.md from the types that the reader reads by: ``python docs/reference/make_spec.py``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cloudtune.pipeline_plans import BUILT
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.fields import Key, keys_of
from cloudtune.spec.infrastructure import INFRASTRUCTURES
from cloudtune.spec.job import VERBS, JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.place import Infrastructure
from cloudtune.spec.runtime import Runtime
from cloudtune.spec.runtimes import RUNTIMES

PAGE = Path(__file__).with_name("spec.md")
FORMS = {
    "text": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "texts": "list of texts",
    "numbers": "list of numbers",
    "command": "text or list",
    "textMap": "mapping of texts",
    "json": "anything",
    "jsonMap": "mapping",
    "jsonMaps": "list of mappings",
}


def listed(words: Iterable[str]) -> str:
    """Return words as a list in a sentence."""
    return ", ".join(f"`{word}`" for word in words)


HEAD = f"""# The spec

<!-- written by docs/reference/make_spec.py; a test keeps it fresh -->

```yaml
kind: job                # or pipeline
apiVersion: v1.0         # optional
spec:
  name: hello
  infrastructure:        # optional; this machine is the default
    kind: infrastructure
    type: local
    spec: {{}}
  runtime:
    kind: runtime
    type: script
    spec:
      scriptPathURI: hello.sh
```

Everything is checked before anything happens, and all faults are told at once, each with file, line, column, YAML path
and the nearest right word. Types are strict: `'false'` is no boolean and `3.7` no integer.

`env` is a list of `{{name, value}}` or `{{name, secret}}`, or a mapping. `${{NAME}}` in a value is filled in from the
job's own variables, `$$` is a dollar sign, and `$NAME` is left for the node's shell. Names of variables are letters,
digits and `_`, with no digit first.

URIs are taken as they are: nothing is percent-encoded, `file:///a b` is the folder `/a b`. In `inputs`, `outputUri`,
the URI of a repository or of code, and `pipPackages` the node fills in `$NAME` and `${{NAME}}` from its variables, the
job's secrets included; other names stay, and `$$` is a dollar sign. What stands there as a password, a token before the
`@` or a signed query is a secret: see [secrets](../how-to/secrets.md).

Text in angle brackets is a placeholder: a dry run lists it, a run refuses to start. In URIs, in everything about the
infrastructure and in secrets that is any `<words>`; in other text several words, `<your-...>`, or what clouds give out
(`<bucket>`, `<project_id>`), so that `<image>` stays text; in commands `<your ...>`, `<replace ...>`, `<insert ...>`
and `<fill ...>`. Where such text is meant as it is, the runtime says `allowPlaceholders: true`.

In a pipeline a step is a `job`, a `precompile` (the name of a step that trains on Neuron cores: its job, ended when its
graphs are compiled), or one of the verbs {listed(VERBS)}, with the options of the
command line as keys. This release carries out {listed(sorted(BUILT))}; a pipeline with another verb is read and
checked, and refused before anything runs. `${{steps.NAME.outputs}}` is the place where an earlier step left its
outputs. Steps run one after the other, and relative paths start at the folder where `run` was called: see
[several steps in one file](../how-to/pipelines.md).
"""


def described(key: Key) -> str:
    """Return what may stand at a key, as one cell of a table."""
    inner = key.form.cls
    if inner is EnvironmentVariable:
        form = "list or mapping"
    elif inner is not None:
        # a block of its own has a heading further down
        link = f"[{inner.__name__}](#{inner.__name__.lower()})"
        blocks = {Infrastructure: "an infrastructure", Runtime: "a runtime"}
        form = blocks.get(inner, link)
        form = f"list of {link}" if key.form.kind == "values" else form
    else:
        form = FORMS[key.form.kind]
    if key.choices:
        form = " or ".join(f"`{choice}`" for choice in key.choices)
    if (
        key.default not in (None, (), {})
        and not isinstance(key.default, (Infrastructure, Runtime))
        and not key.required
    ):
        form += f", default `{str(key.default).lower() if isinstance(key.default, bool) else key.default}`"
    return form + (", required" if key.required else "")


def table(cls: type[Any], leave_out: frozenset[str] = frozenset()) -> list[str]:
    """Return the keys of a value as a table."""
    rows = [key for key in keys_of(cls) if key.doc and key.word not in leave_out]
    if not rows:
        return []
    return [
        "| key | value | |",
        "|---|---|---|",
        *(f"| `{key.word}` | {described(key)} | {key.doc.replace('|', chr(92) + '|')} |" for key in rows),
        "",
    ]


def nested(cls: type[Any], seen: dict[str, type[Any]]) -> None:
    """Collect the values inside a value that have keys of their own."""
    for key in keys_of(cls):
        inner = key.form.cls
        if inner not in (None, EnvironmentVariable, Infrastructure, Runtime) and inner.__name__ not in seen:
            seen[inner.__name__] = inner
            nested(inner, seen)


def page() -> str:
    """Return the whole page."""
    lines = [HEAD, "## Job and pipeline", ""]
    for cls, title in ((JobSpec, "job"), (PipelineSpec, "pipeline")):
        lines += [f"### `kind: {title}`", "", *table(cls)]
    inside: dict[str, type[Any]] = {PipelineStep.__name__: PipelineStep}
    for title, types, base in (
        ("Infrastructures", INFRASTRUCTURES, Infrastructure),
        ("Runtimes", RUNTIMES, Runtime),
    ):
        common = frozenset(key.word for key in keys_of(base))
        lines += [f"## {title}", "", f"### All {title.lower()}", "", *table(base)]
        nested(base, inside)
        for word, cls in types.items():
            about = (cls.__doc__ or "").partition("\n")[0]
            lines += [f"### `type: {word}`", "", about, "", *table(cls, common)]
            nested(cls, inside)
    lines += ["## Values inside", ""]
    for name, cls in sorted(inside.items()):
        lines += [f"### {name}", "", (cls.__doc__ or "").partition("\n")[0], "", *table(cls)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
