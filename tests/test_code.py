"""Which code of this machine travels with a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune import code
from cloudtune.errors import SpecError
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PythonRuntime, Recipe, ScriptRuntime


def test_what_an_installer_compiles_is_no_part_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r" / "__pycache__").mkdir(parents=True)
    (tmp_path / "r" / "r.py").write_text("print(1)\n")
    (tmp_path / "r" / "__pycache__" / "r.cpython-311.pyc").write_bytes(b"x")
    monkeypatch.setattr(code, "RECIPES", tmp_path)
    workspace = code.gather_code(JobSpec(runtime=PythonRuntime(recipe=Recipe(name="r"))))
    assert workspace is not None
    assert [file.path for file in workspace.files] == ["r.py"]


def test_a_folder_needs_an_entrypoint(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nothing says which of its files starts"):
        code.gather_code(JobSpec(runtime=ScriptRuntime(script_path_uri=str(tmp_path))))


def test_an_unknown_recipe_is_told_with_those_there_are() -> None:
    with pytest.raises(SpecError, match="recipes: prepare, pretokenize, quickstart, sft, sft_neuron, vision"):
        code.gather_code(JobSpec(runtime=PythonRuntime(recipe=Recipe(name="nothing"))))
