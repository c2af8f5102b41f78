"""What a runtime starts on every node: a shell line (str) or an exact argv (tuple).

``@agent`` as the first word is the node agent itself, which calls functions and executes notebooks.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cloudtune.errors import Fault, SpecError
from cloudtune.launch.options import faults, kebab, written
from cloudtune.node.archives import is_archive, last_part
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Recipe, Runtime

AGENT = "@agent"
_SPEC = "spec.runtime.spec"

Argv = tuple[str, ...]
Warnings = tuple[tuple[str, str], ...]


class Command(NamedTuple):
    """What starts on every node, and what the user should know of it: (YAML path, message)."""

    command: str | Argv
    warnings: Warnings = ()


def command_of(runtime: Runtime) -> Command:
    """Return the command of a runtime.

    Raises:
        SpecError: nothing says what to start, or two keys say it.
    """
    if runtime.recipe is not None:
        return _recipe(runtime, runtime.recipe)
    build = _BUILDERS.get(runtime.type)
    if build is None:
        raise SpecError([Fault(path="spec.runtime.type", message=f"nothing is known of the runtime {runtime.type!r}")])
    return build(runtime)


def container_argv(value: str | Argv | None) -> Argv:
    """Return an entrypoint or command of a container as words: Oracle ADS splits a string on commas; a list is exact.

    >>> container_argv("/bin/sh,-c,sleep 5")
    ('/bin/sh', '-c', 'sleep 5')
    """
    if not value:
        return ()
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else tuple(value)


def recipe_flags(args: Mapping[str, Any]) -> Argv:
    """Return a recipe's options as flags: ``maxLength: 512`` is ``--max-length 512``; null is no flag at all.

    >>> recipe_flags({"loraR": 8, "bf16": True, "targetModules": ["q_proj", "v_proj"]})
    ('--lora-r', '8', '--bf16', 'true', '--target-modules', 'q_proj', 'v_proj')
    """
    flags: list[str] = []
    for key, value in args.items():
        if value is None:
            continue
        items = value if isinstance(value, (list, tuple)) else (value,)
        flags += [f"--{kebab(key)}", *(written(item) for item in items)]
    return tuple(flags)


def _recipe(runtime: Runtime, recipe: Recipe) -> Command:
    given = [key for key in ("command", "cmd", "entrypoint", "entry_function") if getattr(runtime, key, None)]
    if given:
        raise SpecError(
            [
                Fault(
                    path=f"{_SPEC}.recipe",
                    message=f"a recipe stands in place of code and command, but {' and '.join(given)} is given too",
                    hint="keep one of them",
                )
            ]
        )
    if findings := faults(recipe):
        raise SpecError(Fault(path=path, message=message, hint=hint) for path, message, hint in findings)
    start = ("torchrun",) if isinstance(runtime, PyTorchDistributedRuntime) else ("python", "-u")
    return Command((*start, f"{recipe.name}.py", *recipe_flags(recipe.args), *runtime.args))


def _entry(entrypoint: str | None, source: str | None, key: str, what: str) -> str:
    """Return the file that starts: the entrypoint, or the source itself where that is a single file."""
    if entrypoint:
        return entrypoint
    if source and not source.endswith(("/", "\\")):
        name = last_part(source) if "://" in source else re.split(r"[/\\]", source)[-1]
        if name and not is_archive(name):
            return name
    hint = f"name it in {key}, relative to {what}" if source else f"set {key}"
    raise SpecError([Fault(path=f"{_SPEC}.{key}", message="nothing says which file starts", hint=hint)])


def _run(entry: str, args: Argv) -> Argv:
    """Return the argv of a file: Python for .py, bash for .sh, else the file is an executable."""
    if entry.endswith(".py"):
        return ("python", "-u", entry, *args)
    if entry.endswith(".sh"):
        return ("bash", entry, *args)
    # without a slash the kernel would look for it on PATH and not in the code
    return (entry if "/" in entry else f"./{entry}", *args)


def _script(runtime: Any) -> Command:
    entry = _entry(runtime.entrypoint, runtime.script_path_uri, "entrypoint", "scriptPathURI")
    return Command(_run(entry, runtime.args))


def _python(runtime: Any) -> Command:
    entry = _entry(runtime.entrypoint, runtime.script_path_uri, "entrypoint", "scriptPathURI")
    return Command(_call_or_run(entry, runtime.entry_function, runtime.args))


def _git_python(runtime: Any) -> Command:
    entry = _entry(runtime.entrypoint, None, "entrypoint", "the repository")
    return Command(_call_or_run(entry, runtime.entry_function, runtime.args))


def _call_or_run(entry: str, function: str | None, args: Argv) -> Argv:
    return (AGENT, "call", entry, function, *args) if function else _run(entry, args)


def _notebook(runtime: Any) -> Command:
    source = runtime.notebook_path_uri
    notebook = _entry(runtime.entrypoint, source, "entrypoint" if runtime.source else "notebookPathURI", "source")
    argv = [AGENT, "notebook", notebook]
    for tag in runtime.exclude_tags:
        argv += ["--exclude-tag", tag]
    if runtime.notebook_encoding:
        argv += ["--encoding", runtime.notebook_encoding]
    warnings = ((f"{_SPEC}.args", "a notebook takes no arguments; use env instead"),) if runtime.args else ()
    return Command(tuple(argv), warnings)


def _container(runtime: Any) -> Command:
    given = {"entrypoint": runtime.entrypoint, "cmd": runtime.cmd}
    warnings = tuple(
        (f"{_SPEC}.{key}", f"a string is split on commas, as in Oracle ADS: {container_argv(value)}; a list is exact")
        for key, value in given.items()
        if isinstance(value, str)
    )
    return Command((*container_argv(runtime.entrypoint), *container_argv(runtime.cmd), *runtime.args), warnings)


def _distributed(runtime: Any) -> Command:
    command, args = runtime.command, runtime.args
    if not command or (isinstance(command, str) and not command.strip()):
        return _torchrun(runtime)
    warnings = tuple(
        (f"{_SPEC}.{key}", f"{key} has no effect beside command")
        for key, value in (("entrypoint", runtime.entrypoint), ("entryFunction", runtime.entry_function))
        if value
    )
    if isinstance(command, str):
        return Command(f"{command.rstrip()} {shlex.join(args)}" if args else command, warnings)
    return Command((*command, *args), warnings)


def _torchrun(runtime: Any) -> Command:
    """Without a command, as in Oracle ADS, torchrun starts the entrypoint."""
    if runtime.entry_function:
        raise SpecError(
            [
                Fault(
                    path=f"{_SPEC}.entryFunction",
                    message="torchrun starts files, not functions",
                    hint="call the function from a file and name that in entrypoint",
                )
            ]
        )
    if not (runtime.entrypoint or runtime.script_path_uri):
        hint = "set command, or scriptPathURI with entrypoint, or recipe"
        raise SpecError([Fault(path=f"{_SPEC}.command", message="nothing says what to start", hint=hint)])
    entry = _entry(runtime.entrypoint, runtime.script_path_uri, "entrypoint", "scriptPathURI")
    return Command(("torchrun", entry, *runtime.args) if entry.endswith(".py") else _run(entry, runtime.args))


_BUILDERS: Mapping[str, Callable[[Any], Command]] = {
    "script": _script,
    "python": _python,
    "gitPython": _git_python,
    "notebook": _notebook,
    "container": _container,
    "pyTorchDistributed": _distributed,
    "neuronDistributed": _distributed,
}
