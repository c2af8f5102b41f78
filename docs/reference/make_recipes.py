"""Write docs/reference/recipes.md and each recipe's options.json: ``python docs/reference/make_recipes.py``.

Both come from the recipe's options.py; the JSON file is what a job's options are checked by before it is sent.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudtune

PAGE = Path(__file__).with_name("recipes.md")
RECIPES = Path(cloudtune.__file__).parent / "recipes"
TITLES = {
    "prepare": "rows for training",
    "pretokenize": "rows as tokens",
    "sft": "supervised fine-tuning",
    "sft_neuron": "supervised fine-tuning on Trainium",
    "vision": "fine-tuning of models that see images",
}
KINDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "boolean": "boolean",
    "boolean_or_auto": "booleanOrAuto",
    "words": "words",
}
FORMS = {
    "text": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "booleanOrAuto": "true, false or auto",
    "words": "list of words",
}
HEAD = """# The recipes

<!-- written by docs/reference/make_recipes.py; a test keeps it fresh -->

A recipe is a script that comes with cloudtune: `recipe: {name: sft, args: {...}}` in the place of code and command.
These are the `args` of each. Names and types are checked before anything is sent.
"""


def module_of(recipe: str, stem: str = "options") -> ModuleType:
    """Return a module of a recipe, loaded under a name of its own; what it imports lies beside it, or in sft."""
    name = f"_{stem}_of_{recipe}"
    spec = importlib.util.spec_from_file_location(name, RECIPES / recipe / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    beside = [str(RECIPES / recipe), str(RECIPES / "sft")]
    sys.path[:0] = beside
    try:
        spec.loader.exec_module(module)
    finally:
        for folder in beside:
            sys.path.remove(folder)
    return module


def options_of(recipe: str) -> list[dict[str, Any]]:
    """Return the options of a recipe, named as in a job file."""
    module, flags = module_of(recipe), module_of("sft", "flags")
    out = []
    for field in dataclasses.fields(module.Options):
        facts = field.metadata
        text = re.sub(r"--[a-z][a-z-]*", lambda found: flags.camel(found[0]), facts["help"])
        out.append(
            {
                "name": flags.camel(field.name),
                "aliases": [flags.camel(name) for name in facts["names"]],
                "kind": KINDS[facts["kind"].__name__],
                "choices": list(facts["choices"]),
                "needed": field.name in module.NEEDED,
                "default": list(field.default) if isinstance(field.default, tuple) else field.default,
                "shown": flags.show(field.default),
                "help": text,
            }
        )
    return out


def recipes() -> list[str]:
    """Return the names of the recipes that have an options.py."""
    return sorted(path.parent.name for path in RECIPES.glob("*/options.py"))


def table_file(recipe: str) -> str:
    """Return the text of a recipe's options.json."""
    kept = [{key: value for key, value in option.items() if key != "shown"} for option in options_of(recipe)]
    return json.dumps(kept, indent=1, ensure_ascii=False) + "\n"


def row(option: dict[str, Any]) -> str:
    """Return the row of one option."""
    form = ", ".join(f"`{choice}`" for choice in option["choices"]) or FORMS[option["kind"]]
    default = "needed" if option["needed"] else f"`{option['shown']}`" if option["shown"] else ""
    text = option["help"]
    if option["aliases"]:
        text += f" (also `{'`, `'.join(option['aliases'])}`)"
    text = re.sub(r"([|*])", r"\\\1", text)
    return f"| `{option['name']}` | {form} | {default} | {text} |"


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for recipe in recipes():
        rows = "\n".join(row(option) for option in options_of(recipe))
        title = f"`{recipe}`" + (f": {TITLES[recipe]}" if recipe in TITLES else "")
        parts.append(f"## {title}\n\n| option | | default | |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    for name in recipes():
        (RECIPES / name / "options.json").write_text(table_file(name), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
