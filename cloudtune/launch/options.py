"""The options of a recipe, checked before anything is sent: names and types, as its ``options.json`` lists them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cloudtune.spec.runtimes import Recipe

#: YAML path, message, and what to write instead.
Finding = tuple[str, str, str | None]

_RECIPES = Path(__file__).parent.parent / "recipes"
_PATH = "spec.runtime.spec.recipe.args"
_EXPECTED = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "booleanOrAuto": "true, false or auto",
    "text": "one value",
    "words": "a list of words",
}


def faults(recipe: Recipe) -> tuple[Finding, ...]:
    """Return what is wrong with a recipe's options: (YAML path, message, hint).

    A recipe without an ``options.json`` takes any. Text with ``$`` in it is filled in later, so nothing is said of it.

    >>> faults(Recipe(name="sft", args={"learningrate": 1e-4}))
    (('spec.runtime.spec.recipe.args.learningrate', "unknown option 'learningrate'", 'did you mean learningRate?'),)
    """
    table = _table(recipe.name)
    if not table:
        return ()
    return tuple(finding for key, value in recipe.args.items() for finding in _judge(key, value, table))


def settled(recipe: Recipe) -> dict[str, Any] | None:
    """Return every option of a recipe by its own name, as the job sets it or by default; None where it lists none.

    A value that is filled in only later, or that the recipe could not read, stays as it is written.

    >>> settled(Recipe(name="sft", args={"max_seq_length": "512"}))["maxLength"]
    512
    """
    table = _table(recipe.name)
    if not table:
        return None
    values = {option["name"]: option["default"] for option in table.values()}
    for key, value in recipe.args.items():
        option = table.get(kebab(key))
        if option is not None and value is not None:
            values[option["name"]] = _read(option["kind"], value)
    return values


def kebab(key: str) -> str:
    """Return the name of an option as its flag has it: ``maxLength`` and ``max_length`` are ``max-length``."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1-\2", key))
    return words.replace("_", "-").lower()


def written(value: Any) -> str:
    """Return the value of an option as one word of a command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@cache
def _table(recipe: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the options of a recipe by all names of their flags; nothing where the recipe lists none."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", recipe):
        return {}
    path = _RECIPES / recipe / "options.json"
    if not path.is_file():
        return {}
    options = json.loads(path.read_text(encoding="utf-8"))
    return {kebab(name): option for option in options for name in (option["name"], *option["aliases"])}


def _judge(key: str, value: Any, table: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    path = f"{_PATH}.{key}"
    option = table.get(kebab(key))
    if option is None:
        near = difflib.get_close_matches(kebab(key), table, n=1)
        hint = f"did you mean {_as_written(near[0], table)}?" if near else "docs/reference/recipes.md lists all options"
        yield path, f"unknown option {key!r}", hint
        return
    if value is None or _is_open(value):
        return
    choices = option["choices"]
    if choices and written(value) not in choices:
        # a bare no or off is a truth value to YAML
        quoted = next((word for word in ("no", "off") if value is False and word in choices), None)
        yield (
            path,
            f"expected {_either(choices)}, not {_shown(value)}",
            f"write '{quoted}' in quotes" if quoted else None,
        )
    elif not _fits(option["kind"], value):
        yield path, f"expected {_EXPECTED[option['kind']]}, not {_shown(value)}", None


def _read(kind: str, value: Any) -> Any:
    """Return a value as the recipe reads it from a command line."""
    if _is_open(value) or not _fits(kind, value):
        return value
    if kind == "words":
        items = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(word.strip() for item in items for word in str(item).split(",") if word.strip())
    text = written(value)
    if kind in ("integer", "number"):
        return int(text) if kind == "integer" else float(text)
    if kind in ("boolean", "booleanOrAuto"):
        return None if text.lower() == "auto" else text.lower() == "true"
    return text


def _as_written(flag: str, table: Mapping[str, Mapping[str, Any]]) -> str:
    names: tuple[str, ...] = (table[flag]["name"], *table[flag]["aliases"])
    return next(name for name in names if kebab(name) == flag)


def _shown(value: Any) -> str:
    """Return a value much as the job file has it."""
    return repr(value) if isinstance(value, str) else written(value)


def _is_open(value: Any) -> bool:
    """Return whether a value, or an item of it, is filled in only later."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    return any(isinstance(item, str) and "$" in item for item in items)


def _either(choices: list[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]


def _fits(kind: str, value: Any) -> bool:
    """Return whether the recipe could read a value, given as one word of a command line."""
    if isinstance(value, (list, tuple)):
        return kind == "words" and bool(value) and all(isinstance(item, (str, int, float)) for item in value)
    if isinstance(value, Mapping):
        return False
    text = written(value)
    if kind in ("integer", "number"):
        try:
            int(text) if kind == "integer" else float(text)
        except ValueError:
            return False
        return True
    if kind in ("boolean", "booleanOrAuto"):
        return text.lower() in ("true", "false", *(("auto",) if kind == "booleanOrAuto" else ()))
    return True
