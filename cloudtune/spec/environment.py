"""Environment variables of a job: literal values, references to secrets, and names read from the shell."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cloudtune.errors import SpecError
from cloudtune.node.masks import is_secret_name, mask_of, secret_spans, shown
from cloudtune.spec.fields import setting
from cloudtune.spec.graph import sort
from cloudtune.spec.hiding import SHORTEST

#: The variables of a job may grow to so many characters when ``${NAME}`` is filled in.
LIMIT = 1 << 20
# a name is bounded, so that a text of nothing but "${" is read in linear time
_REFERENCE = re.compile(r"\$\$|\$\{([^}]{0,100})\}")


@attrs.frozen(kw_only=True)
class EnvironmentVariable:
    """One variable. With neither ``value`` nor ``secret`` it is read from the shell when the job is submitted."""

    name: str = attrs.field(metadata={"doc": "Name of the variable."})
    value: str | None = setting("Literal value; `${NAME}` is filled in from the job's other variables.")
    secret: str | None = setting(
        "Reference to a secret that the node fetches: an OCI Vault secret OCID, a Secrets Manager ARN, "
        "`k8s:NAME/KEY` or `env:NAME`."
    )

    def __repr__(self) -> str:
        return self.described()

    def described(self, hidden: bool = False) -> str:
        """Return the variable as Python shows it: a value that is ``hidden`` or a secret by its name by its mask."""
        value = self.value
        if isinstance(value, str) and value:
            value = mask_of(self.name) if hidden or is_secret_name(str(self.name)) else shown(value)
        return f"{type(self).__name__}(name={self.name!r}, value={value!r}, secret={self.secret!r})"


def text_of(value: Any) -> str:
    """Return a value as the text that a process sees: strings as they are, null as "", the rest as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def variables(values: Mapping[str, Any]) -> tuple[EnvironmentVariable, ...]:
    """Return variables from a mapping; ``{"secret": REF}`` as a value is a reference to a secret."""
    out = []
    for name, value in values.items():
        if isinstance(value, Mapping) and set(value) == {"secret"}:
            out.append(EnvironmentVariable(name=name, secret=str(value["secret"])))
        else:
            out.append(EnvironmentVariable(name=name, value=text_of(value)))
    return tuple(out)


def environment(values: Mapping[str, Any] | Iterable[Any] | None) -> tuple[EnvironmentVariable, ...]:
    """Return variables from whatever a constructor is given: a mapping, or variables, ADS's mappings and bare names."""
    if isinstance(values, Mapping):
        return variables(values)
    return tuple(_variable(item) for item in values or ())


def _variable(item: Any) -> Any:
    if isinstance(item, str):
        return EnvironmentVariable(name=item)
    if isinstance(item, Mapping) and "name" in item:
        rest = {**item, "value": text_of(item["value"])} if "value" in item else item
        return EnvironmentVariable(**rest)
    return item


def references(text: str, known: Mapping[str, str]) -> list[str]:
    """Return the names that a value refers to, up to the first one that is not known."""
    found = []
    for match in _REFERENCE.finditer(text):
        if match[0] != "$$":
            if match[1] not in known:
                break
            found.append(match[1])
    return found


def interpolated(env: Iterable[EnvironmentVariable]) -> dict[str, str]:
    """Return the literal variables with ``${NAME}`` filled in from each other, as Oracle ADS resolves them.

    ``$$`` is a literal dollar sign, ``$NAME`` is left for the node's shell, and from the first undefined or circular
    ``${NAME}`` on the rest of that text stays as it is (checked against what oracle-ads 2.16.1 sends).

    Raises:
        SpecError: the values double and double again until they are larger than any environment.
    """
    literals = {variable.name: variable.value for variable in env if variable.value is not None}
    order, _ = sort({name: references(text, literals) for name, text in literals.items()})
    done: dict[str, str] = {}
    for name in order:
        done[name] = _filled(literals[name], done)
    circular = [name for name in literals if name not in done]
    done.update({name: _filled(literals[name], dict(done)) for name in circular})
    return {name: done[name] for name in literals}


def secret_variables(env: Iterable[EnvironmentVariable]) -> dict[str, str]:
    """Return the literal variables that are secrets, filled in.

    One is a secret by its name, for a password or a signed query in a URI, or because it holds the value of another,
    literally or by ``${NAME}``.

    Raises:
        SpecError: the values grow without bound.
    """
    env = tuple(env)
    values = interpolated(env)
    literals = {variable.name: variable.value for variable in env if variable.value is not None}
    hidden = {name for name, value in values.items() if value and (is_secret_name(name) or secret_spans(value))}
    contents = {values[name] for name in hidden if len(values[name]) >= SHORTEST}
    hidden |= {name for name, value in values.items() if any(one in value for one in contents)}
    order, _ = sort({name: references(text, literals) for name, text in literals.items()})
    for name in order:
        if hidden.intersection(references(literals[name], literals)):
            hidden.add(name)
    return {name: value for name, value in values.items() if name in hidden}


def hidden_values(env: Iterable[Any]) -> dict[str, str]:
    """Return the secrets among variables that may not have been checked, the longest first; not those too short."""
    known = [variable for variable in env if isinstance(variable, EnvironmentVariable)]
    try:
        found = secret_variables(known)
    except (SpecError, TypeError):  # nothing is known of them: all are taken for secrets
        found = {str(variable.name): str(variable.value) for variable in known if variable.value is not None}
    kept = {name: value for name, value in found.items() if len(value) >= SHORTEST}
    return dict(sorted(kept.items(), key=lambda item: (-len(item[1]), item[0])))


def described(env: Iterable[Any]) -> str:
    """Return variables as Python shows them, without the values of secrets."""
    env = tuple(env)
    hidden = hidden_values(env)
    parts = [one.described(one.name in hidden) if isinstance(one, EnvironmentVariable) else repr(one) for one in env]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _filled(text: str, known: Mapping[str, str]) -> str:
    out: list[str] = []
    size, position = 0, 0
    for match in _REFERENCE.finditer(text):
        out.append(text[position : match.start()])
        position = match.end()
        if match[0] == "$$":
            out.append("$")
        elif match[1] in known:
            out.append(known[match[1]])
        else:
            out.append(text[match.start() :])
            position = len(text)
            break
        size += len(out[-1])
        if size > LIMIT:
            raise SpecError("the job's variables grow without bound when ${NAME} is filled in")
    out.append(text[position:])
    return "".join(out)
