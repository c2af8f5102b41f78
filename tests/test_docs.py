"""Every block of README and docs is executed, in a scratch folder, in the order of the page.

* ``bash`` and ``python`` blocks run; ``yaml`` blocks that are jobs or pipelines are read; ``json`` blocks are parsed.
* A block whose first line is a comment with a file name is written as that file instead, for the blocks after it; one
  of ``json``, which has no comments, as the file that is named at the end of the line above it.
* A block that cannot run here has ``<!-- not run: REASON -->`` on the line above it; blocks in ``text`` never run.
* A page with ``<!-- heavy -->`` really trains or serves, and is left out by ``-m "not heavy"``.
* One with ``<!-- nodes of their own -->`` rehearses: it is left out where namespaces are not allowed, or oci is missing.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from cloudtune.backends import BACKENDS
from cloudtune.spec.document import load
from cloudtune.spec.infrastructure import INFRASTRUCTURES
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "specs", "runtimes", "infrastructure", "cloudtune/recipes")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
LANGUAGES = {"bash", "python", "yaml", "json", "toml", "text", "mermaid"}
NOT_RUN = re.compile(r"<!-- not run: (\S.{8,}) -->$")
FILE_NAME = re.compile(r"# (\S+\.(?:yaml|yml|py))\n")
DATA_NAME = re.compile(r"`(\S+\.jsonl?)`:$")
TIMEOUT_S = 600


def line_above(example):
    return example.document.text[: example.start].rstrip("\n").rpartition("\n")[2].strip()


def is_run(example):
    """Return whether a block runs; a file name in its first line makes it a file instead."""
    if NOT_RUN.search(line_above(example)):
        return False
    if named := FILE_NAME.match(example.parsed):
        return write(named[1], example.parsed).suffix in {".yaml", ".yml"}
    return True


def write(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run_bash(example):
    if not is_run(example):
        return
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode} of\n{example.parsed}\n{done.stdout[-4000:]}"


def read_yaml(example):
    if not is_run(example):
        return
    if re.search(r"^kind: (job|pipeline)$", example.parsed, re.MULTILINE):
        load(example.parsed)
    else:
        yaml.safe_load(example.parsed)


def read_json(example):
    if not is_run(example):
        return
    named = DATA_NAME.search(line_above(example))
    rows = named is not None and named[1].endswith(".jsonl")
    for text in example.parsed.splitlines() if rows else [example.parsed]:
        json.loads(text)
    if named is not None:
        write(named[1], example.parsed)


class Python:
    """Sybil's own evaluator of Python blocks, for those that run."""

    def __init__(self):
        (self.parser,) = [PythonCodeBlockParser()]

    def __call__(self, document):
        for region in self.parser(document):
            inner = region.evaluator
            region.evaluator = lambda example, inner=inner: inner(example) if is_run(example) else None
            yield region


def examples_of(page):
    parsers = [
        Python(),
        CodeBlockParser(language="bash", evaluator=run_bash),
        CodeBlockParser(language="yaml", evaluator=read_yaml),
        CodeBlockParser(language="json", evaluator=read_json),
    ]
    return list(Sybil(parsers=parsers, patterns=["*.md"]).parse(page).examples())


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Return an empty current folder, with a home of its own and the command ``cloudtune`` first on PATH."""
    folder, commands = tmp_path / "work", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    command = commands / "cloudtune"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cloudtune "$@"\n')
    command.chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tables = [(BACKENDS, set(BACKENDS)), (INFRASTRUCTURES, set(INFRASTRUCTURES))]
    yield folder
    for table, known in tables:
        for added in set(table) - known:
            del table[added]
    for module in [name for name in sys.modules if name.startswith("cloudtune_")]:
        del sys.modules[module]


def heavy(page):
    return [pytest.mark.heavy] if "<!-- heavy -->" in page.read_text() else []


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=heavy(page), id=str(page.relative_to(ROOT))) for page in PAGES]
)
def test_the_blocks_of_a_page_run(page, scratch, request):
    if "<!-- nodes of their own -->" in page.read_text():
        pytest.importorskip("oci", reason="the oci SDK is not installed")
        request.getfixturevalue("namespaces")
    for example in examples_of(page):
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_its_language(page):
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    assert len(fences) % 2 == 0, "a block is not closed"
    assert set(fences[::2]) <= LANGUAGES, f"unknown or missing language: {set(fences[::2]) - LANGUAGES}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_that_does_not_run_says_why(page):
    for line in page.read_text().splitlines():
        assert "not run" not in line or not line.startswith("<!--") or NOT_RUN.search(line), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("maker", sorted((ROOT / "docs" / "reference").glob("make_*.py")), ids=lambda path: path.stem)
def test_generated_pages_are_fresh(maker):
    made = runpy.run_path(str(maker))
    assert made["PAGE"].read_text() == made["page"](), f"run: python {maker.relative_to(ROOT)}"


def test_ci_calls_the_test_command_of_the_readme():
    assert "python3 dev.py test" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("\npython3 dev.py test")


def test_the_rooms_of_the_contributing_page_are_the_rooms_there_are():
    layers = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)[1]
    page = re.search(r"```text\n(cli .*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    told = {room for line in page.splitlines() for room in line.partition("   ")[0].split()}
    assert told == set(re.findall(r"\w+", layers)) - {"__main__"}
