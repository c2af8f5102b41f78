"""Environment variables of a job: literal values, references to secrets, and names read from the shell."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cloudtune.spec.fields import setting

_REFERENCE = re.compile(r"\$\$|\$\{([^}]*)\}")


@attrs.frozen(kw_only=True)
class EnvironmentVariable:
    """One variable. With neither ``value`` nor ``secret`` it is read from the shell when the job is submitted."""

    name: str = attrs.field(metadata={"doc": "Name of the variable."})
    value: str | None = setting("Literal value; `${NAME}` is filled in from the job's other variables.")
    secret: str | None = setting(
        "Reference to a secret that the node fetches: an OCI Vault secret OCID, a Secrets Manager ARN, "
        "`k8s:NAME/KEY` or `env:NAME`."
    )


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


def interpolated(env: Iterable[EnvironmentVariable]) -> dict[str, str]:
    """Return the literal variables with ``${NAME}`` filled in from each other, as Oracle ADS resolves them.

    ``$$`` is a literal dollar sign, ``$NAME`` is left for the node's shell, and from the first undefined or circular
    ``${NAME}`` on the rest of that text stays as it is (checked against what oracle-ads 2.16.1 sends).
    """
    literals = {variable.name: variable.value for variable in env if variable.value is not None}
    done: dict[str, str] = {}

    def fill(text: str, seen: tuple[str, ...]) -> str:
        out, position = "", 0
        for match in _REFERENCE.finditer(text):
            out += text[position : match.start()]
            position = match.end()
            if match[0] == "$$":
                out += "$"
                continue
            name = match[1]
            if name not in literals or name in seen:
                return out + text[match.start() :]
            out += fill(literals[name], (*seen, name))
        return out + text[position:]

    for name, value in literals.items():
        done[name] = fill(value, (name,))
    return done
