"""Reads a tree of YAML into values by the types of their fields, and turns values back into plain data.

One reading of the types (:func:`cloudtune.spec.fields.keys_of`) serves parsing, printing and the JSON Schema. A value
is always made, also from a faulty document (what is wrong in it keeps its default), so that everything that is wrong
can be said at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.errors import CloudtuneError
from cloudtune.spec.environment import EnvironmentVariable, text_of
from cloudtune.spec.faults import Path, nearest, shortened
from cloudtune.spec.fields import Key, keys_of
from cloudtune.spec.forms import READ, UNSET, FormReader
from cloudtune.spec.infrastructure import INFRASTRUCTURES
from cloudtune.spec.job import OPTIONS, VERBS, JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.nodes import Node
from cloudtune.spec.place import Infrastructure, LocalJob
from cloudtune.spec.runtime import Runtime
from cloudtune.spec.runtimes import RUNTIMES
from cloudtune.spec.types import Types

API_VERSION = "v1.0"
#: As many keys of a mapping, at most, are named where something else stands there.
_FEW = 6
#: What a step may be besides a verb.
_DEEDS = frozenset({"job", "precompile"})

#: What people also call the types.
_NICKNAMES = {
    "oci": "dataScienceJob",
    "sagemaker": "sageMakerTrainingJob",
    "eks": "eksJob",
    "kubernetes": "eksJob",
    "k8s": "eksJob",
    "git": "gitPython",
    "docker": "container",
    "shell": "script",
    "bash": "script",
    "torchrun": "pyTorchDistributed",
    "pytorch": "pyTorchDistributed",
    "ddp": "pyTorchDistributed",
    "neuron": "neuronDistributed",
    "trainium": "neuronDistributed",
}
_BLOCKS: dict[type[Any], tuple[str, Mapping[str, type[Any]]]] = {
    Infrastructure: ("infrastructure", INFRASTRUCTURES),
    Runtime: ("runtime", RUNTIMES),
}


class Reader(FormReader):
    """Reads nodes into values; what is wrong goes to ``faults``."""

    # --- documents

    def document(self, node: Node) -> JobSpec | PipelineSpec:
        """Read a job or a pipeline."""
        kinds = {"job": JobSpec, "pipeline": PipelineSpec}
        items = self.mapping(node, (), ("kind", "apiVersion", "name", "spec"), "a job is a mapping: kind, spec")
        kind = self.text(items["kind"], ("kind",)) if "kind" in items else None
        if kind is None and isinstance(node.value, dict):
            self.missing("kind", node, (), "`kind: job` or `kind: pipeline`")
        elif kind is not None and kind not in kinds:
            if kind in {"infrastructure", "runtime"}:
                hint = f"a job holds it as spec.{kind}; an infrastructure alone is a profile for --infrastructure"
                self.faults.add(f"this is {kind}, no job", items["kind"].place, ("kind",), hint)
            else:
                kind = self.faults.unknown("kind", kind, tuple(kinds), items["kind"].place, ("kind",))
        if "apiVersion" in items and isinstance(items["apiVersion"].value, (bool, list, dict)):
            self.no("a version", items["apiVersion"], ("apiVersion",), "`apiVersion: v1.0`")
        spec = items.get("spec")
        if spec is None or spec.value is None:
            if isinstance(node.value, dict) and not (spec and spec.broken):
                self.missing("spec", node, ())
            spec = Node({}, node.place)
        if kind not in kinds:
            kind = "pipeline" if isinstance(spec.value, dict) and "steps" in spec.value else "job"
        values = self.values(kinds[kind], spec, ("spec",))
        if "name" in items and values.get("name") is None:
            values["name"] = self.text(items["name"], ("name",))
        made = kinds[kind](**values)
        assert isinstance(made, (JobSpec, PipelineSpec))
        return made

    def block(self, cls: type[Any], node: Node, path: Path) -> Any:
        """Read ``{kind, type, spec}``: an infrastructure or a runtime; None where there is nothing to go by."""
        kind, types = _BLOCKS[cls]
        items = self.mapping(node, path, ("kind", "type", "spec"), f"{kind}: kind, type and spec", inner=types)
        if "kind" in items and (said := self.text(items["kind"], (*path, "kind"))) not in (None, kind):
            self.faults.add(f"{said!r} cannot stand here", items["kind"].place, (*path, "kind"), f"`kind: {kind}`")
        spec = items.get("spec") or Node({}, node.place)
        if spec.value is None:
            spec.value = {}
        made = self.type_of(kind, types, items.get("type"), node, spec, path)
        return None if made is None else self.value(made, spec, (*path, "spec"))

    def type_of(
        self, kind: str, types: Mapping[str, type[Any]], said: Node | None, node: Node, spec: Node, path: Path
    ) -> type[Any] | None:
        """Return the class of a block; below an unknown type the one that was probably meant."""
        name = self.text(said, (*path, "type")) if said is not None else None
        if name is not None and name in types:
            return types[name]
        words = set(spec.value) if isinstance(spec.value, dict) else set()
        if name is not None and said is not None:
            meant = _NICKNAMES.get(name.lower())
            if meant in types:
                hint = f"did you mean {meant!r}?"
                self.faults.add(f"unknown type {shortened(name)!r}", said.place, (*path, "type"), hint)
            else:
                names = _names(types)
                meant = self.faults.unknown("type", name, names, said.place, (*path, "type"))
                meant = meant or nearest(name, names, cutoff=0.5)
            if meant:
                return _usable(types, meant)
        elif isinstance(node.value, dict) and (said is None or said.value is None) and not node.broken:
            self.missing("type", node, path, f"one of {', '.join(_names(types))}")
        fits = {name: len(words & {key.word for key in keys_of(cls)}) for name, cls in types.items()}
        best = max(fits, key=fits.__getitem__)
        return types[best] if fits[best] else None

    # --- values

    def value(self, cls: type[Any], node: Node, path: Path) -> Any:
        """Read a value of a class."""
        return cls(**self.values(cls, node, path))

    def values(self, cls: type[Any], node: Node, path: Path) -> dict[str, Any]:
        """Read the keywords of a value; a required one that is missing is "" after its fault."""
        if cls is PipelineStep:
            return self.step(node, path)
        keys = keys_of(cls)
        words = {word: key for key in keys for word in (key.word, *key.aliases)}
        values: dict[str, Any] = {}
        about = (cls.__doc__ or "").splitlines()[:1]
        about += [f"keys: {', '.join(words)}"] if len(words) <= _FEW else []
        for word, child in self.mapping(node, path, tuple(words), " ".join(about)).items():
            key = words[word]
            if key.name in values:
                message = f"{word!r} and {key.word!r} are the same; write one of them"
                self.faults.add(message, node.place_of(word), (*path, word))
                continue
            found = self.key(key, child, (*path, word))
            if found is not UNSET:
                values[key.name] = found
        for key in keys:
            if key.required and key.name not in values:
                if isinstance(node.value, dict) and not self.faults.covers((*path, key.word)):
                    self.missing(key.word, node, path)
                values[key.name] = ""
        return values

    def key(self, key: Key, node: Node, path: Path) -> Any:
        """Read one key; UNSET where it is empty or faulty, so that its default stands."""
        if node.broken or node.value is None:
            return UNSET
        if key.form.cls is EnvironmentVariable:
            return self.environment(node, path)
        if key.form.cls in _BLOCKS:
            made = self.block(key.form.cls, node, path)
            return UNSET if made is None else made
        if key.form.cls is not None:
            read = self.value if key.form.kind == "value" else self.list_of_values
            return read(key.form.cls, node, path)
        found = READ[key.form.kind](self, node, path)
        if found is None or found is UNSET:
            return UNSET
        if key.choices and found not in key.choices:
            guess = nearest(found, key.choices)
            hint = f"did you mean {guess!r}?" if guess else None
            self.faults.add(f"{shortened(found)!r} is none of {', '.join(key.choices)}", node.place, path, hint)
            return UNSET
        if key.minimum is not None and found < key.minimum:
            self.faults.add(f"{found} is too small", node.place, path, f"{key.minimum:g} or more")
            return UNSET
        return found

    def list_of_values(self, cls: type[Any], node: Node, path: Path) -> Any:
        """Read a list of values of a class."""
        items = self.items(node, path)
        return UNSET if items is None else tuple(self.value(cls, item, (*path, i)) for i, item in enumerate(items))

    def step(self, node: Node, path: Path) -> dict[str, Any]:
        """Read a step of a pipeline: a job or one verb with its options."""
        keys = {key.word: key for key in keys_of(PipelineStep) if key.name not in {"verb", "options"}}
        items = self.mapping(node, path, (*keys, *VERBS), "a step: name, and a job or a verb with its options")
        values: dict[str, Any] = {}
        for word, key in keys.items():
            if word in items and (found := self.key(key, items[word], (*path, word))) is not UNSET:
                values[key.name] = found
        if "name" not in values:
            if isinstance(node.value, dict) and not self.faults.covers((*path, "name")):
                self.missing("name", node, path)
            values["name"] = ""
        deeds = [word for word in items if word in _DEEDS or word in VERBS]
        if len(deeds) > 1:
            message = f"a step does one thing; this one has {' and '.join(deeds)}"
            self.faults.add(message, node.place_of(deeds[1]), (*path, deeds[1]), "make two steps of it")
        elif not deeds and isinstance(node.value, dict):
            if any((*path, word) in self.faults.paths for word in (*_DEEDS, *VERBS)):
                self.faults.paths.add(path)  # a misspelt verb: said already
            else:
                self.faults.add("a step is a job or a verb", node.place, path, f"job, precompile, {', '.join(VERBS)}")
        for verb in deeds[:1]:
            for other in _DEEDS - {verb}:
                values.pop(other, None)
            if verb in VERBS:
                values["verb"] = verb
                values["options"] = self.options(verb, items[verb], (*path, verb))
        if "job" in items and isinstance(items["job"].value, dict) and "infrastructure" in items["job"].value:
            self.place_of_step(values, items, path)
        return values

    def options(self, verb: str, node: Node, path: Path) -> Any:
        """Read the options of a verb, and return them as the plain data that they are."""
        if node.value is None and not node.broken:
            node.value = {}
        if verb in OPTIONS:
            before = len(self.faults.found)
            self.value(OPTIONS[verb], node, path)
            if len(self.faults.found) > before:
                return {}
        options = self.json_map(node, path)
        return {} if options is UNSET else options

    def place_of_step(self, values: dict[str, Any], items: Mapping[str, Node], path: Path) -> None:
        """Settle where a step runs whose job names an infrastructure of its own."""
        if "infrastructure" in items:
            place = items["job"].place_of("infrastructure")
            message = "the step has an infrastructure already; write it once"
            self.faults.add(message, place, (*path, "job", "infrastructure"))
        elif "job" in values and values["job"].infrastructure == LocalJob():
            # said, not left out: the pipeline's own infrastructure must not take its place
            values["infrastructure"] = LocalJob()

    # --- environment

    def environment(self, node: Node, path: Path) -> Any:
        """Read ``env``: a list of ``{name, value}``, ``{name, secret}`` and bare names, or a mapping."""
        if isinstance(node.value, dict):
            found = [self.named_variable(name, item, (*path, name)) for name, item in node.value.items()]
            return tuple(found)
        items = self.items(node, path, "a list of {name, value} or a mapping")
        return UNSET if items is None else tuple(self.variable(item, (*path, i)) for i, item in enumerate(items))

    def named_variable(self, name: str, node: Node, path: Path) -> EnvironmentVariable:
        """Read one variable of a mapping."""
        if isinstance(node.value, dict) and set(node.value) == {"secret"}:
            secret = self.text(node.value["secret"], (*path, "secret"))
            return EnvironmentVariable(name=name, secret=secret or "")
        return EnvironmentVariable(name=name, value=self.variable_text(node, path))

    def variable(self, node: Node, path: Path) -> EnvironmentVariable:
        """Read one variable of a list; with a name alone it is read from the shell."""
        if isinstance(node.value, str):
            return EnvironmentVariable(name=self.text(node, path) or "")
        items = self.mapping(node, path, ("name", "value", "secret"), "a variable: name, and value or secret")
        name = self.text(items["name"], (*path, "name")) if "name" in items else None
        if name is None and isinstance(node.value, dict) and not self.faults.covers((*path, "name")):
            self.missing("name", node, path)
        value = self.variable_text(items["value"], (*path, "value")) if "value" in items else None
        secret = None
        if "secret" in items:
            secret = self.text(items["secret"], (*path, "secret")) or ""
        return EnvironmentVariable(name=name or "", value=value, secret=secret)

    def variable_text(self, node: Node, path: Path) -> str:
        """Return the text of a variable: a number as written (1.10 stays 1.10), lists and mappings as JSON."""
        value = node.value
        if node.text is not None and isinstance(value, (int, float)) and not isinstance(value, bool):
            return node.text
        found = self.json(node, path)
        return text_of(None if found is UNSET else found)


def plain(value: Any) -> Any:
    """Return a spec value as plain data in ADS's dialect: only what differs from the defaults."""
    if isinstance(value, (JobSpec, PipelineSpec)):
        return {"kind": value.kind, "apiVersion": API_VERSION, "spec": _fields(value)}
    if isinstance(value, (Infrastructure, Runtime)):
        kind = "infrastructure" if isinstance(value, Infrastructure) else "runtime"
        spec = _fields(value)
        return {"kind": kind, "type": value.type, **({"spec": spec} if spec else {})}
    if isinstance(value, PipelineStep):
        return _step(value)
    if attrs.has(type(value)):
        return _fields(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _fields(value: Any) -> dict[str, Any]:
    found = ((key, getattr(value, key.name)) for key in keys_of(type(value)))
    # ADS wants the type of a conda environment, also the usual one
    return {key.word: plain(item) for key, item in found if key.required or key.name == "type" or item != key.default}


def _step(step: PipelineStep) -> dict[str, Any]:
    data = _fields(step)
    data.pop("verb", None)
    options = data.pop("options", {})
    if step.job is not None:
        data["job"] = plain(step.job)["spec"]
    if step.verb is not None:
        data[step.verb] = options
    return data


def _names(types: Mapping[str, type[Any]]) -> tuple[str, ...]:
    """Return the types there are, those of other distributions included."""
    return types.names() if isinstance(types, Types) else tuple(types)


def _usable(types: Mapping[str, type[Any]], name: str) -> type[Any] | None:
    """Return a class that was not asked for by its own name; None if its distribution is broken."""
    try:
        return types[name]
    except CloudtuneError:
        return None
