"""The YAML document: from a file or text to a job or a pipeline, and back."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs
import yaml

from cloudtune.spec import profiles
from cloudtune.spec.checks import check
from cloudtune.spec.convert import Reader, plain
from cloudtune.spec.faults import Faults
from cloudtune.spec.files import read_text
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.nodes import NUMBER, Node, parse, planted
from cloudtune.spec.overrides import apply_settings, replace_infrastructure, with_environment
from cloudtune.spec.place import Infrastructure
from cloudtune.spec.precompiling import expanded
from cloudtune.spec.runtime import Runtime

Spec = TypeVar("Spec", bound="JobSpec | PipelineSpec")

_ADDRESS = re.compile(r"[A-Za-z]:[\\/]|[A-Za-z][A-Za-z0-9+.-]*://")


def load(
    source: str | os.PathLike[str],
    *,
    set: Sequence[str] = (),  # noqa: A002 - the command line's own word
    env: Sequence[str] = (),
    infrastructure: str | os.PathLike[str] | None = None,
) -> JobSpec | PipelineSpec:
    """Return the job or pipeline of a file or of YAML text.

    ``set`` holds ``a.b=v`` changes to the document, ``env`` ``NAME=VALUE`` or bare names that are added to the
    variables of every job, ``infrastructure`` the name of a profile or a file to run it elsewhere; ``set`` comes after
    ``infrastructure``, so that it can change what the profile says.

    Raises:
        SpecError: with everything that is wrong, each fault with file, line, column and YAML path.
    """
    text, file = _text_of(source)
    faults = Faults()
    root = parse(text, faults, file)
    if infrastructure is not None:
        replace_infrastructure(root, profiles.read(infrastructure, faults), faults)
    apply_settings(root, set, faults)
    return _read(root, faults, env)


def from_dict(data: Mapping[str, Any], *, env: Sequence[str] = ()) -> JobSpec | PipelineSpec:
    """Return the job or pipeline of plain data in the form of the YAML document; raises SpecError with all faults."""
    faults = Faults()
    return _read(planted(data, faults), faults, env)


def to_dict(spec: JobSpec | PipelineSpec | Infrastructure | Runtime) -> dict[str, Any]:
    """Return a spec as plain data in the form of the YAML document: only what differs from the defaults."""
    data = plain(spec)
    assert isinstance(data, dict)
    return data


def dumps(spec: JobSpec | PipelineSpec | Infrastructure | Runtime) -> str:
    """Return a spec as YAML; the same value gives the same text, and reading it gives the same value."""
    text = yaml.dump(
        to_dict(spec), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=sys.maxsize
    )
    assert isinstance(text, str)
    return text


def checked(spec: Spec) -> Spec:
    """Return a spec that was built in Python as reading it from YAML would give it.

    Raises:
        SpecError: with everything that is wrong: types, values out of range, values that cannot go together.
    """
    found = from_dict(to_dict(spec))
    return type(spec)(**{field.name: getattr(found, field.name) for field in attrs.fields(type(found))})


def _read(root: Node, faults: Faults, env: Sequence[str]) -> JobSpec | PipelineSpec:
    spec = Reader(faults).document(root)
    spec = with_environment(spec, env, faults)
    check(spec, root, faults)
    faults.check()
    return expanded(spec) if isinstance(spec, PipelineSpec) else spec


def _text_of(source: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Return the text and the name of its file; a str that is no file and looks like YAML is the text itself."""
    if isinstance(source, str):
        if not source or "\n" in source:
            return source, None
        if not _is_path(source) and (":" in source or source[0] in "[{") and not _ADDRESS.match(source):
            return source, None
    return read_text(source), os.fspath(source)


def _is_path(text: str) -> bool:
    try:
        return os.path.exists(text)  # noqa: PTH110 - also for text that no Path can hold
    except ValueError:
        return False


class _Dumper(yaml.SafeDumper):
    """Writes text so that YAML 1.1 and 1.2 both read it as text, and lines of a command as lines."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None
    if any(character in text for character in "\r\t\x85\u2028\u2029\ufeff"):
        style = '"'
    elif "\n" in text:
        style = "|" if _is_block(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_block(text: str) -> bool:
    lines = text.removesuffix("\n").split("\n")
    return all(line == line.rstrip() for line in lines) and bool(lines[-1]) and lines[0] == lines[0].lstrip() != ""


_Dumper.add_representer(str, _represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))
