"""The command line of the zipapp.

``run`` carries out an order, ``supervise`` keeps a local run, ``call`` and ``notebook`` run the user's code; ``shim``,
``courier``, ``gauge`` and ``secret`` are the agent's own helpers.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cloudtune.node.log import write_error

USAGE = """\
usage: agent.pyz run --order FILE --directory DIR
       agent.pyz call FILE FUNCTION [ARGUMENT...]
       agent.pyz notebook FILE [--output FILE] [--exclude-tag TAG]... [--encoding NAME]
       agent.pyz supervise FOLDER"""


class UsageError(Exception):
    """The command line is not one of the forms above."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return an exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbs: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "call": _call,
        "notebook": _notebook,
        "supervise": lambda rest: _module("supervisor").supervise(Path(_only(rest, 1)[0])),
        "shim": lambda rest: _module("shims").become_launcher(rest),
        "courier": lambda _: _module("courier").serve(),
        "gauge": lambda _: _module("gauges").serve(),
        "secret": lambda rest: _module("secrets").print_secret(_only(rest, 1)[0]),
    }
    if not words or words[0] not in verbs:
        write_error(USAGE)
        return 2
    try:
        return verbs[words[0]](words[1:])
    except UsageError as error:
        write_error(f"{error}\n{USAGE}")
        return 2


def _module(name: str) -> Any:
    return importlib.import_module(f"cloudtune.node.{name}")


def _run(words: list[str]) -> int:
    options, rest = _options(words, {"--order", "--directory"})
    if rest or set(options) != {"--order", "--directory"}:
        raise UsageError("run needs --order and --directory")
    return int(_module("agent").run(Path(options["--order"][-1]), Path(options["--directory"][-1])))


def _call(words: list[str]) -> int:
    if len(words) < 2:
        raise UsageError("call needs a file and a function")
    return int(_module("call").call(words[0], words[1], words[2:]))


def _notebook(words: list[str]) -> int:
    options, rest = _options(words, {"--output", "--exclude-tag", "--encoding"})
    file = _only(rest, 1)[0]
    encoding = options.get("--encoding", ["utf-8"])[-1]
    output = options["--output"][-1] if "--output" in options else None
    excluded = options.get("--exclude-tag", [])
    return int(_module("notebook").execute(file, output=output, excluded=excluded, encoding=encoding))


def _options(words: list[str], known: set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the values of options that may be repeated, and the other words."""
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if name not in known:
            rest.append(word)
            continue
        if not equals:
            if not waiting:
                raise UsageError(f"{name} needs a value")
            value = waiting.pop(0)
        found.setdefault(name, []).append(value)
    return found, rest


def _only(words: list[str], count: int) -> list[str]:
    if len(words) != count:
        raise UsageError(f"expected {count} argument, got {len(words)}")
    return words
