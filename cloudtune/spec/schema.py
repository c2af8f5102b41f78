"""The JSON Schema of the YAML dialect, made from the types that the reader reads by.

``python -m cloudtune.spec.schema > specs/job.schema.json`` writes the file that editors complete and underline with.
The schema says what may stand where; what no single key shows (see :mod:`cloudtune.spec.checks`) it leaves to the
reader.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.fields import Key, keys_of, thaw
from cloudtune.spec.infrastructure import INFRASTRUCTURES
from cloudtune.spec.job import OPTIONS, VERBS, JobSpec, PipelineSpec
from cloudtune.spec.limits import MOUNTS
from cloudtune.spec.place import Infrastructure
from cloudtune.spec.runtime import Runtime
from cloudtune.spec.runtimes import RUNTIMES
from cloudtune.spec.sagemaker_limits import CHANNELS

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FORMS: dict[str, Schema] = {
    "text": _TEXT,
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "texts": {"type": "array", "items": _TEXT},
    "numbers": {"type": "array", "items": {"type": "number"}},
    "command": {"type": ["string", "array"], "items": _TEXT},
    "textMap": {"type": "object", "additionalProperties": _TEXT},
    "json": {},
    "jsonMap": {"type": "object"},
    "jsonMaps": {"type": "array", "items": {"type": "object"}},
}
_MOST = {"storage_mount": MOUNTS, "inputs": CHANNELS}
_NEEDED = {"JobSpec": "runtime", "PipelineSpec": "steps"}
_NOT_EMPTY: dict[str, Schema] = {"runtime": {"type": "object"}, "steps": {"type": "array", "minItems": 1}}
_BLOCKS: dict[type[Any], str] = {Infrastructure: "infrastructure", Runtime: "runtime"}


def schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a job or pipeline document."""
    definitions: dict[str, Schema] = {}
    for name, types in (("infrastructure", INFRASTRUCTURES), ("runtime", RUNTIMES)):
        definitions[name] = _block(name, types)
        for cls in types.values():
            _define(cls, definitions)
    for document in (JobSpec, PipelineSpec, *OPTIONS.values()):
        _define(document, definitions)
    for name, word in _NEEDED.items():
        needed = definitions[name]
        needed["required"] = [word]
        needed["properties"][word] |= _NOT_EMPTY[word]
    definitions["PipelineStep"] = _step(definitions["PipelineStep"])
    # any value is taken: what is no text becomes JSON
    del definitions["EnvironmentVariable"]["properties"]["value"]["type"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cloudtune job or pipeline",
        "type": "object",
        "properties": {
            "kind": {"enum": ["job", "pipeline"], "description": "One job, or a pipeline of steps."},
            "apiVersion": {"type": ["string", "number", "null"], "description": "Accepted as ADS accepts it."},
            "name": {"type": ["string", "null"], "description": "The name, where `spec.name` has none."},
            "spec": {"description": "What to run, and where."},
        },
        "required": ["kind", "spec"],
        "additionalProperties": False,
        "if": {"properties": {"kind": {"const": "pipeline"}}, "required": ["kind"]},
        "then": {"properties": {"spec": _one(PipelineSpec)}},
        "else": {"properties": {"spec": _one(JobSpec)}},
        "$defs": dict(sorted(definitions.items())),
    }


def _ref(cls: type[Any]) -> Schema:
    return {"$ref": f"#/$defs/{_BLOCKS.get(cls, cls.__name__)}"}


def _one(cls: type[Any]) -> Schema:
    """Return a value that must be there; definitions themselves allow an empty key."""
    return {**_ref(cls), "type": "object"}


def _block(name: str, types: Mapping[str, type[Any]]) -> Schema:
    """Return the schema of ``{kind, type, spec}``, where the type decides about the spec."""
    about = "\n".join(f"- `{word}`: {_about(cls)}" for word, cls in types.items())
    return {
        "type": ["object", "null"],
        "properties": {
            "kind": {"enum": [name, None]},
            "type": {"enum": list(types), "description": about},
            "spec": {"description": "The keys of the type."},
        },
        "required": ["type"],
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"type": {"const": word}}, "required": ["type"]},
                "then": {"properties": {"spec": _ref(cls)}},
            }
            for word, cls in types.items()
        ],
    }


def _define(cls: type[Any], definitions: dict[str, Schema]) -> None:
    """Add the schema of a value, and of the values inside it."""
    if cls.__name__ in definitions:
        return
    about: Schema = {"type": ["object", "null"], "description": _about(cls)}
    definitions[cls.__name__] = about
    about["properties"], about["additionalProperties"] = {}, False
    for key in keys_of(cls):
        inner = key.form.cls
        if inner is not None and inner not in _BLOCKS:
            _define(inner, definitions)
        found = _key(key)
        about["properties"][key.word] = found
        for alias in key.aliases:
            about["properties"][alias] = {**found, "deprecated": True, "description": f"Write `{key.word}`."}
    required = [key.word for key in keys_of(cls) if key.required]
    if required:
        about["required"] = required


def _key(key: Key) -> Schema:
    found = _environment() if key.form.cls is EnvironmentVariable else _form(key)
    if key.choices:
        found = {"enum": [*key.choices]}
    if key.minimum is not None:
        found["minimum"] = key.minimum
    if key.name in _MOST and found.get("type") == "array":
        found["maxItems"] = _MOST[key.name]
    if not key.required:
        found = _nullable(found)
    default = thaw(key.default) if isinstance(key.default, (str, int, float)) else None
    return {"description": key.doc, **found, **({"default": default} if default is not None else {})}


def _form(key: Key) -> Schema:
    if key.form.cls is None:
        return dict(_FORMS[key.form.kind])
    return _ref(key.form.cls) if key.form.kind == "value" else {"type": "array", "items": _one(key.form.cls)}


def _nullable(found: Schema) -> Schema:
    """Allow a key to be left empty."""
    if "enum" in found:
        return {**found, "enum": [*found["enum"], None]}
    if "type" in found:
        kinds = found["type"] if isinstance(found["type"], list) else [found["type"]]
        return {**found, "type": [*kinds, "null"]}
    return found


def _environment() -> Schema:
    variable = {
        "anyOf": [
            {"type": "string", "description": "The name of a variable of the shell."},
            _one(EnvironmentVariable),
        ]
    }
    return {"type": ["array", "object"], "items": variable}


def _step(found: Schema) -> Schema:
    """Return the schema of a step: its verb is a key, and it has one."""
    properties = {word: about for word, about in found["properties"].items() if word not in {"verb", "options"}}
    for verb in VERBS:
        about = {"description": f"Options of `cloudtune {verb}`."}
        properties[verb] = {**about, **(_one(OPTIONS[verb]) if verb in OPTIONS else {"type": ["object", "null"]})}
    properties["job"] = {**properties["job"], "type": "object"}
    one = [{"required": [word]} for word in ("job", "precompile", *VERBS)]
    return {**found, "properties": properties, "oneOf": one}


def _about(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
