"""Variables: what ADS makes of them, and what cannot go wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import SpecError
from cloudtune.spec.document import load
from cloudtune.spec.environment import EnvironmentVariable, interpolated, text_of, variables


def test_the_oracle_interpolates_the_same(shared: Path) -> None:
    case = shared / "oracle" / "oci" / "31-x-env-interpolation"
    job = load(case / "job.yaml")
    sent = json.loads((case / "create_job.json").read_text())["jobConfigurationDetails"]["environmentVariables"]
    found = interpolated(job.runtime.env)
    assert found == {name: sent[name] for name in found}
    assert len(found) == 12


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"HOST": "h", "URL": "http://${HOST}:${PORT}/${HOST}"}, "http://h:${PORT}/${HOST}"),
        ({"URL": "${A}${A}", "A": "${B}.", "B": "x"}, "x.x."),
        ({"URL": "$${HOST} $HOST $$ $", "HOST": "h"}, "${HOST} $HOST $ $"),
        ({"URL": "${", "A": "x"}, "${"),
        ({"URL": "${}", "A": "x"}, "${}"),
        ({"URL": "a ${URL} b"}, "a ${URL} b"),
        ({"URL": "${A} ${C}", "A": "${B}", "B": "${A}", "C": "c"}, "${A} ${C}"),
        ({"URL": "${S}", "S": {"secret": "env:X"}}, "${S}"),
        ({"URL": "${A}", "A": "$$${B}", "B": "b"}, "$b"),
    ],
)
def test_names_are_filled_in(env: dict[str, object], expected: str) -> None:
    assert interpolated(variables(env))["URL"] == expected


def test_only_literal_values_are_returned() -> None:
    env = (
        EnvironmentVariable(name="A"),
        EnvironmentVariable(name="B", secret="env:X"),
        EnvironmentVariable(name="C", value=""),
    )
    assert interpolated(env) == {"C": ""}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (None, ""),
        (True, "true"),
        (3, "3"),
        (1.5, "1.5"),
        ([1, "é"], '[1, "é"]'),
        ({"a": None}, '{"a": null}'),
    ],
)
def test_the_text_of_a_value(value: object, text: str) -> None:
    assert text_of(value) == text


def test_a_long_chain_needs_no_recursion() -> None:
    env = {f"V{n}": f"${{V{n + 1}}}" for n in range(20_000)} | {"V20000": "end"}
    assert interpolated(variables(env))["V0"] == "end"


def test_variables_that_double_again_and_again_are_refused() -> None:
    env = {f"V{n}": f"${{V{n + 1}}}" * 2 for n in range(60)} | {"V60": "x"}
    with pytest.raises(SpecError, match="without bound"):
        interpolated(variables(env))


def recursively(literals: dict[str, str], name: str, seen: tuple[str, ...]) -> str:
    """Return what a variable is, by the plain recursive definition; good for small cases without circles."""
    out, position, text = "", 0, literals[name]
    for match in re.finditer(r"\$\$|\$\{([^}]*)\}", text):
        out, position = out + text[position : match.start()], match.end()
        if match[0] == "$$":
            out += "$"
        elif match[1] not in literals:
            return out + text[match.start() :]
        else:
            assert match[1] not in seen
            out += recursively(literals, match[1], (*seen, match[1]))
    return out + text[position:]


@settings(max_examples=200)
@given(
    st.lists(
        st.lists(st.sampled_from(["x", "$$", "${0}", "${1}", "${2}", "${9}", "$", "{", "}"]), max_size=5), max_size=4
    )
)
def test_the_order_of_filling_in_makes_no_difference(parts: list[list[str]]) -> None:
    """A variable refers only to those before it, which are given in the opposite order."""
    literals = {}
    for index, part in enumerate(parts):
        kept = (word for word in part if not re.fullmatch(r"\$\{\d\}", word) or word == "${9}" or int(word[2]) < index)
        literals[str(index)] = "".join(kept)
    literals = dict(reversed(literals.items()))
    assert interpolated(variables(literals)) == {name: recursively(literals, name, (name,)) for name in literals}
