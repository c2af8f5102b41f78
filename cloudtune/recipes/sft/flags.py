"""How the options of a recipe become a command line, and how they are called: in a job file, or as flags.

A recipe's options are a dataclass whose fields :func:`option` makes; from it come the command line, its help and the
table by which a job's options are checked.
"""

import argparse
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


def option(default: Any, text: str, *names: str, kind: Any = str, choices: tuple[str, ...] = ()) -> Any:
    """Return a field of :class:`Options`: its default, its help, other names that the flag goes by, its type."""
    metadata = {"help": text, "names": names, "kind": kind, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def camel(name: str) -> str:
    """Return the name that an option has in a job file: ``batch_size`` and ``--batch-size`` are ``batchSize``."""
    first, *others = name.lstrip("-").replace("-", "_").split("_")
    return first + "".join(word.capitalize() for word in others)


def in_job() -> bool:
    """Return whether a job started this program, so that its user wrote a job file and no command line."""
    return "CLOUDTUNE_RUN_ID" in os.environ


def called(name: str, value: object = None) -> str:
    """Return an option, with its value if given, as the user writes it: in the job file, or else as a flag."""
    shown = camel(name) if in_job() else "--" + name.replace("_", "-")
    if value is None:
        return shown
    return f"{shown}: {value}" if in_job() else f"{shown} {value}"


def boolean(text: str) -> bool:
    """Return the truth value that a flag's text names."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")
    return text.lower() == "true"


def boolean_or_auto(text: str) -> bool | None:
    """Return True, False, or None for ``auto``."""
    return None if text.lower() == "auto" else boolean(text)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a list written with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def show(default: Any) -> str:
    """Return a default as the help shows it; empty where the help text says it better."""
    if default is None or isinstance(default, bool):
        return {None: "auto", True: "true", False: "false"}[default]
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default) if default else ""


class Parser(argparse.ArgumentParser):
    """A parser whose complaint about an unknown flag names the nearest one."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one line, without the usage text of all options."""
        if in_job():
            message = re.sub(
                r"^argument (--[a-z0-9-]+)[^:]*", lambda found: camel(found[1]) + " in recipe.args", message
            )
            print(f"{self.prog.removesuffix('.py')}: {message}", file=sys.stderr)
        else:
            print(f"{self.prog}: {message}\n  hint: {self.prog} --help lists all options", file=sys.stderr)
        raise SystemExit(2)


def parser(options: type[Any], prog: str, description: str) -> Parser:
    """Return the command line, made from the fields of a recipe's options."""
    out = Parser(prog=prog, description=description, allow_abbrev=False)
    for field in dataclasses.fields(options):
        flag = "--" + field.name.replace("_", "-")
        facts = field.metadata
        default = field.default
        text = facts["help"].replace("%", "%%")
        if shown := show(default):
            text += f" (default: {shown})"
        settings: dict[str, Any] = {"dest": field.name, "default": default, "help": text, "type": facts["kind"]}
        if facts["choices"]:
            settings["choices"] = facts["choices"]
        if facts["kind"] in (boolean, boolean_or_auto):
            settings |= {"nargs": "?", "const": True, "metavar": "true|false"}
        elif facts["kind"] is words:
            settings |= {"nargs": "+", "metavar": "NAME"}
        elif not facts["choices"]:
            settings["metavar"] = {int: "N", float: "X"}.get(facts["kind"], "TEXT")
        out.add_argument(flag, *facts["names"], **settings)
    return out


def read(line: Parser, argv: Sequence[str], needed: tuple[str, ...]) -> argparse.Namespace:
    """Return the values that a command line sets; an unknown or a missing one ends the program with exit code 2."""
    values, unknown = line.parse_known_args(list(argv))
    if unknown:
        known = [flag for action in line._actions for flag in action.option_strings]  # noqa: SLF001
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        told, meant = (f"{camel(unknown[0])} in recipe.args", map(camel, near)) if in_job() else (unknown[0], near)
        line.error(f"unknown option {told}" + "".join(f", did you mean {name}?" for name in meant))
    for name in needed:
        if not getattr(values, name):
            line.error(f"{called(name)} is missing" + (" in recipe.args" if in_job() else ""))
    return values


def settle_paths(values: argparse.Namespace, *names: str) -> None:
    """Make plain paths of ``file://`` URIs and of ``~``, and choose the output folder."""
    values.output_dir = values.output_dir or os.environ.get("CLOUDTUNE_OUTPUT_DIR") or "outputs"
    for name in (*names, "output_dir"):
        setattr(values, name, os.path.expanduser(getattr(values, name).removeprefix("file://")))  # noqa: PTH111
