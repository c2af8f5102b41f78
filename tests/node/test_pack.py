from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import cloudtune.node
from cloudtune.node.pack import agent_bytes

FOLDER = Path(cloudtune.node.__file__).parent


def test_the_same_sources_give_the_same_bytes() -> None:
    first = agent_bytes()
    assert first == agent_bytes()
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert archive.read("cloudtune/__init__.py") == b""
        assert {f"cloudtune/node/{path.name}" for path in FOLDER.glob("*.py")} < set(names)


def test_the_node_stands_on_the_standard_library_alone() -> None:
    known = sys.stdlib_module_names
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name}: relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                inside = name.startswith("cloudtune.node")
                assert inside or name.partition(".")[0] in known, f"{path.name} imports {name}"


def test_it_says_how_to_use_it(agent: Path) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", str(agent)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: agent.pyz run --order FILE --directory DIR" in done.stderr
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(agent), "run", "--order"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--order needs a value" in done.stderr
