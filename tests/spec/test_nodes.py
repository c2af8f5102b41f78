"""The tree of YAML: what is refused, and where it stands; the same with either parser."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cloudtune.errors import SpecError
from cloudtune.spec.faults import Faults, nearest, path_text, shortened
from cloudtune.spec.nodes import NODES, Node, parse, planted

LOADERS = [pytest.param(yaml.SafeLoader, id="python")]
if yaml.__with_libyaml__:
    LOADERS.append(pytest.param(yaml.CSafeLoader, id="c"))
both = pytest.mark.parametrize("loader", LOADERS)


def data(node: Node) -> Any:
    """Return the plain data of a tree."""
    if isinstance(node.value, dict):
        return {key: data(value) for key, value in node.value.items()}
    return [data(value) for value in node.value] if isinstance(node.value, list) else node.value


def read(text: str, loader: Any) -> tuple[Any, list[tuple[int | None, int | None, str, str]]]:
    """Return the data of a text and its faults."""
    faults = Faults()
    node = parse(text, faults, "f.yaml", loader=loader)
    return data(node), [(fault.line, fault.column, fault.path, fault.message) for fault in faults.found]


@both
def test_plain_and_quoted_scalars_differ(loader: Any) -> None:
    text = "a: 1\nb: '1'\nc: \"true\"\nd: true\ne: |\n  1\nf: >-\n  x\n  y\ng: ''\nh:\n? i\n: j\n"
    expected = {"a": 1, "b": "1", "c": "true", "d": True, "e": "1\n", "f": "x y", "g": "", "h": None, "i": "j"}
    assert read(text, loader) == (expected, [])


@both
def test_everything_stands_somewhere(loader: Any) -> None:
    faults = Faults()
    root = parse("a:\n  - x\n  - {b: c}\n", faults, "f.yaml", loader=loader)
    assert root.places["a"] == ("f.yaml", 1, 1)
    assert root.value["a"].value[0].place == ("f.yaml", 2, 5)
    assert root.value["a"].value[1].places["b"] == ("f.yaml", 3, 6)
    assert root.value["a"].value[1].value["b"].place == ("f.yaml", 3, 9)


@both
def test_structure_that_is_refused_is_refused_all_at_once(loader: Any) -> None:
    text = (
        "a: 1\nb:\n  c: [1, {d: 1, d: 2}]\na: 2\n5: x\n? [p, q]\n: {z: 1}\n<<: {q: 1}\n"
        "e: &anchor 1\nf: *anchor\ng: !!str 5\nh: [!own {x: 1}, &b [*anchor]]\n? *anchor\n: 1\n"
    )
    found, faults = read(text, loader)
    assert found["a"] == 1
    assert found["b"] == {"c": [1, {"d": 1}]}
    assert [(line, path, message.split(":")[0]) for line, _, path, message in faults] == [
        (3, "b.c[1].d", "the key 'd' stands here twice"),
        (4, "a", "the key 'a' stands here twice"),
        (5, "5", "the key '5' is no text"),
        (6, '["?"]', "a key is one word"),
        (8, '["<<"]', "merge keys are not read"),
        (9, "e", "anchors are not read"),
        (10, "f", "aliases are not read"),
        (11, "g", "tags are not read"),
        (12, "h[0]", "tags are not read"),
        (12, "h[1]", "anchors are not read"),
        (12, "h[1][0]", "aliases are not read"),
        (13, '["?"]', "aliases are not read"),
    ]


@both
@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\n---\nb: 2\n", (2, 1), "second document"),
        ("a:\n\tb: 1\n", (2, 1), "no valid YAML"),
        ("a: [1\n", (2, 1), "no valid YAML"),
        ("a: 'x\n", (2, 1), "no valid YAML"),
        ("a: b: c\n", (1, 5), "no valid YAML"),
        ("kind: job\n  spec: 1\n", (2, 7), "no valid YAML"),
        ("a: \x00\n", (1, 4), "binary"),
        ("a: x\x1b[0m\n", (1, 5), "binary"),
        ("%TAG ! tag:x,2000:\n---\na\n", (1, 1), "tags"),
        ("", (None, None), "empty"),
        ("# x\n", (None, None), "empty"),
        ("[" * 65 + "]" * 65, (1, 65), "64 deep"),
        ("- x\n" * (NODES + 1), (NODES, 3), "values"),
    ],
)
def test_text_that_is_no_document_is_one_fault(loader: Any, text: str, place: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, Faults(), "f.yaml", loader=loader)
    (fault,) = caught.value.faults
    assert (fault.line, fault.column) == place
    assert fault.file == "f.yaml"


@both
def test_tabs_get_a_hint(loader: Any) -> None:
    with pytest.raises(SpecError, match="tab"):
        parse("a:\n\tb: 1\n", Faults(), loader=loader)


BOMBS = {
    "brackets": "[" * 200_000,
    "braces": "{a: " * 200_000,
    "dashes": "- " * 200_000,
    "questions": "? " * 200_000,
    "lines of brackets": "[\n" * 200_000,
    "laughs": "a: &a [x]\n" + "".join(f"b{n}: &b{n} [{'*a,' * 9}*a]\n" for n in range(9000)),
    "itself": "a: &a [*a]\n",
    "quotes": '"' + "\\" * 500_000,
    "tag directives": "".join(f"%TAG !a{n}! b\n" for n in range(50_000)) + "---\na",
    "directives": "%a b\n" * 150_000,
    "one long key": "a" * 1_000_000,
    "many keys": "\n".join(f"k{n}: 1" for n in range(80_000)),
    "same key": "k: 1\n" * 150_000,
    "commas": "[" + "," * 900_000,
    "documents": "---\n" * 200_000,
    "spaces": " " * 1_000_000,
    "comment": "#" * 1_000_000,
    "block": "a: |\n" + "  x\n" * 200_000,
    "too large": "x" * ((1 << 20) + 1),
}


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="without libyaml a megabyte takes seconds")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_faults(name: str) -> None:
    from cloudtune.spec.document import load

    with pytest.raises(SpecError):
        load(BOMBS[name] + "\n")


def test_the_python_parser_is_safe_too() -> None:
    for name in ("brackets", "braces", "dashes", "questions", "lines of brackets"):
        with pytest.raises(SpecError, match="deep"):
            parse(BOMBS[name][:400_000] + "\n", Faults(), loader=yaml.SafeLoader)


def test_plain_data_makes_the_same_tree() -> None:
    faults = Faults()
    assert data(planted({"a": [1, None, "x", 1.5, True], "b": {}}, faults)) == {"a": [1, None, "x", 1.5, True], "b": {}}
    assert faults.found == []


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("replica", "replicas"),
        ("REPLICAS", "replicas"),
        ("shape_name", "shapeName"),
        ("shape-name", "shapeName"),
        ("scriptPathUri", "scriptPathURI"),
        ("maximumRuntime", "maximumRuntimeInMinutes"),
        ("xyz", None),
        ("", None),
        ("a" * 100_000, None),
    ],
)
def test_the_nearest_word(word: str, meant: str | None) -> None:
    words = ["replicas", "shapeName", "scriptPathURI", "maximumRuntimeInMinutes", "env", "args"]
    assert nearest(word, words) == meant


def test_paths_and_texts_are_shown_as_people_write_them() -> None:
    assert path_text(("spec", "steps", 0, "job", "s3://x/y")) == 'spec.steps[0].job["s3://x/y"]'
    assert shortened("a\nb") == "a\\nb"
    assert len(shortened("x" * 10_000)) < 100


def test_more_faults_than_anybody_reads_are_counted() -> None:
    faults = Faults()
    for _ in range(1500):
        faults.add("x")
    with pytest.raises(SpecError) as caught:
        faults.check()
    assert len(caught.value.faults) == 1001
    assert "500 more" in caught.value.faults[-1].message
