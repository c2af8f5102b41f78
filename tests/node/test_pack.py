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


OLD_PYTHON = Path.home() / ".pyenv" / "versions" / "3.9.18" / "bin" / "python"


def test_a_compiled_agent_is_taken_by_the_same_python_and_ignored_by_others(tmp_path: Path) -> None:
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(agent_bytes(compiled=True))
    show = "import sys; sys.path.insert(0, sys.argv[1]); import cloudtune.node.ranks as m; print(m.Place)"
    own = subprocess.run([sys.executable, "-c", show, str(archive)], capture_output=True, text=True, check=True)
    assert "Place" in own.stdout
    with zipfile.ZipFile(archive) as pack:
        # a module that only its compiled form can explain
        files = {name: pack.read(name) for name in pack.namelist() if name != "cloudtune/node/ranks.py"}
    with zipfile.ZipFile(archive, "w") as pack:
        for name, data in files.items():
            pack.writestr(name, data)
    subprocess.run([sys.executable, "-c", show, str(archive)], capture_output=True, check=True)
    if OLD_PYTHON.exists():
        archive.write_bytes(agent_bytes(compiled=True))
        subprocess.run([str(OLD_PYTHON), "-c", show, str(archive)], capture_output=True, check=True)
