"""The merge as a notebook: by the command's option, and as a job."""

from __future__ import annotations

import json

import pytest

import cloudtune
from cloudtune.errors import CloudtuneError, UsageError
from tests.weights.plain import write_adapter, write_model

pytestmark = pytest.mark.heavy


def cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_executed_copy_lies_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "base")
    write_adapter(tmp_path / "adapter")
    plain = cloudtune.merge("base", "adapter", output="plain", weight=[0.5], name="mine")
    result = cloudtune.merge("base", "adapter", output="out", weight=[0.5], name="mine", notebook=True)
    assert (result.name, result.weights, result.path) == ("mine", (0.5,), f"file://{tmp_path}/out")
    assert result.checksums == plain.checksums
    executed = cells(tmp_path / "out" / "merge.ipynb")
    assert all(cell["execution_count"] for cell in executed)
    assert "".join(executed[2]["outputs"][0]["text"]).startswith("mine: file://")
    kept = (tmp_path / "out" / "merge.ipynb").read_bytes()
    with pytest.raises(UsageError, match="holds a model already") as error:
        cloudtune.merge("base", "adapter", output="out", notebook=True)
    assert error.value.hint
    assert (tmp_path / "out" / "merge.ipynb").read_bytes() == kept


def test_a_notebook_in_the_way_is_not_written_over(tmp_path):
    (tmp_path / "merge.ipynb").write_text("mine")
    with pytest.raises(UsageError, match=r"merge\.ipynb is there already"):
        cloudtune.merge("base", "hf://o/a", output=str(tmp_path), notebook=True)
    assert (tmp_path / "merge.ipynb").read_text() == "mine"


def test_a_cell_that_fails_is_kept_to_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = write_model(tmp_path / "base")
    (base / "config.json").write_text('{"num_hidden_layers": []}')
    write_adapter(tmp_path / "adapter")
    broken = tmp_path / "cloudtune"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ZeroDivisionError('not today')")
    with pytest.raises(CloudtuneError, match="not today") as error:
        cloudtune.merge("base", "adapter", output="out", notebook=True)
    assert "out-failed.ipynb" in error.value.hint
    assert "not today" in (tmp_path / "out-failed.ipynb").read_text()


def test_no_password_is_kept_in_the_parameters(tmp_path):
    base = "http://ann:pa55word@127.0.0.1:9/llama"  # where nobody listens
    with pytest.raises(CloudtuneError, match="ServiceError") as error:  # the kernel has found the password
        cloudtune.merge(base, "hf://o/a", output=str(tmp_path / "out"), notebook=True)
    kept = (tmp_path / "out-failed.ipynb").read_text()
    assert "@127.0.0.1:9/llama" in kept
    assert "pa55word" not in kept + str(error.value)


def test_the_ready_made_job_runs_it(tmp_path, monkeypatch):
    write_model(tmp_path / "base")
    write_adapter(tmp_path / "adapter")
    cloudtune.init("merge-notebook", directory=tmp_path)
    monkeypatch.chdir(tmp_path / "merge-notebook")
    file = tmp_path / "merge-notebook" / "job.yaml"
    text = file.read_text()
    assert text.count("<") == 2
    for place, given in (("<a folder", tmp_path / "base"), ("<folders", tmp_path / "adapter")):
        begin = text.index(place)
        text = text[:begin] + str(given) + text[text.index(">", begin) + 1 :]
    file.write_text(text)
    run = cloudtune.run(file)
    assert run.wait(120).state == "succeeded"
    cloudtune.outputs(run.id, directory=tmp_path / "left")
    assert all(cell["execution_count"] for cell in cells(tmp_path / "left" / "merge.ipynb"))
    assert (tmp_path / "left" / "model.safetensors").is_file()
