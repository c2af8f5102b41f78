"""Rules of the house that no linter knows: what may be imported where, how long a file is, what is never named."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cloudtune"
MODULES = sorted(PACKAGE.rglob("*.py"))
#: What `import cloudtune` and `cloudtune --help` must not load.
HEAVY = {"oci", "ocifs", "boto3", "botocore", "s3fs", "kubernetes", "sagemaker", "torch", "transformers", "peft", "trl"}
SLOW = {"fsspec", "rich", "yaml", "numpy", "papermill"}


def name_of(path):
    return str(path.relative_to(PACKAGE))


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, node


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def loaded_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sorted(m.partition('.')[0] for m in sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy_or_slow():
    assert not loaded_by("import cloudtune") & (HEAVY | SLOW)


def test_help_loads_nothing_heavy_or_slow():
    code = "from cloudtune.cli import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_by(code) & (HEAVY | SLOW)


@pytest.mark.parametrize("spec", ["oci-llama2-lora/job.yaml", "sagemaker-llama3-qlora-bedrock/pipeline.yaml"])
def test_a_dry_run_in_a_cloud_loads_nothing_heavy(spec):
    code = (
        "from cloudtune.cli import cli\n"
        f"try: cli.main(['run', '--dry-run', '-f', 'specs/{spec}'])\nexcept SystemExit: pass"
    )
    assert not loaded_by(code) & (HEAVY | {"fsspec", "rich", "numpy"})


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith("node/")], ids=name_of)
def test_the_node_imports_the_standard_library_alone(path):
    for module, _ in imports_of(parsed(path)):
        top = module.partition(".")[0]
        assert top in sys.stdlib_module_names or module.startswith("cloudtune.node") or module == "cloudtune", module


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith("recipes/")], ids=name_of)
def test_recipes_import_nothing_of_cloudtune(path):
    assert not [module for module, _ in imports_of(parsed(path)) if module.partition(".")[0] == "cloudtune"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, "two ideas, probably"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_unfinished(path):
    words = re.findall(r"(?<!except )NotImplementedError|\bTODO\b|\bFIXME\b|\bXXX\b", path.read_text(encoding="utf-8"))
    assert not words


def test_every_module_says_what_it_is():
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(parsed(path))]
    assert not silent
