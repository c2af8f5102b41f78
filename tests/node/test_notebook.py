from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtune.node.call import split_arguments
from cloudtune.node.notebook import output_file
from tests.node.running import Job


def test_arguments_become_positional_and_keywords() -> None:
    assert split_arguments(["a", "--key", "value", "b", "--flag", "--n", "1", "--last"]) == (
        ["a", "b"],
        {"key": "value", "flag": None, "n": "1", "last": None},
    )
    assert split_arguments(["--", "-x", "--k=v"]) == (["--", "-x"], {"k=v": None})
    assert split_arguments([]) == ([], {})


def test_the_executed_copy_goes_to_a_file_a_folder_or_the_outputs(tmp_path: Path) -> None:
    assert output_file("n.ipynb", None, str(tmp_path)) == tmp_path / "n.ipynb"
    assert output_file("n.ipynb", str(tmp_path), None) == tmp_path / "n.ipynb"
    assert output_file("n.ipynb", f"{tmp_path}/new/", None) == tmp_path / "new" / "n.ipynb"
    assert output_file("n.ipynb", f"{tmp_path}/done.ipynb", None) == tmp_path / "done.ipynb"


def cell(source: str, *tags: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": f"c{abs(hash(source)) % 10**8}",
        "metadata": {"tags": list(tags)} if tags else {},
        "outputs": [],
        "source": source,
    }


def notebook(*cells: dict[str, Any]) -> bytes:
    kernel = {"display_name": "conda", "language": "python", "name": "conda-env-of-the-author"}
    data = {"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(data).encode()


@pytest.mark.parametrize("fails", [False, True])
def test_a_notebook_is_executed_and_kept_also_when_a_cell_fails(
    new_job: Callable[..., Job], tmp_path: Path, fails: bool
) -> None:
    job = new_job(
        command=["@agent", "notebook", "books/study.ipynb", "--exclude-tag", "slow", "--exclude-tag", "skip"],
        code={"kind": "archive", "path": "code.tar.gz"},
        outputs={"dir": None, "uri": f"file://{tmp_path}/kept", "layout": "perNode"},
        environment={"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")},
    )
    content = notebook(
        cell("x = 20 + 1\nprint('x is', x)"),
        cell("raise SystemExit('never run')", "slow"),
        cell("import pathlib; print(pathlib.Path('beside.txt').read_text())"),
        cell("raise ValueError('bad cell')" if fails else "x * 2"),
    )
    with tarfile.open(job.folder / "code.tar.gz", "w:gz") as archive:
        for name, data in (("books/study.ipynb", content), ("books/beside.txt", b"beside")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert job.run(timeout_s=180) == [int(fails)], job.log()
    assert {"x is 21", "beside"} <= {text.strip() for text in job.texts()}
    kept = json.loads((tmp_path / "kept" / "study.ipynb").read_text())
    sources = ["".join(one["source"]) for one in kept["cells"]]
    assert not any("never run" in source for source in sources)
    outputs = json.dumps([one.get("outputs") for one in kept["cells"]])
    assert ("bad cell" in outputs) == fails
    assert ('"42"' in outputs) != fails
    if fails:
        assert any("ValueError" in text for text in job.texts(stream="stderr"))


def test_without_papermill_nbclient_does_it(tmp_path: Path) -> None:
    content = notebook(cell("print('ran')"), cell("print('bad', 1 / 0)"), cell("print('never')"))
    (tmp_path / "study.ipynb").write_bytes(content)
    script = """
        import sys
        sys.modules["papermill"] = None
        from cloudtune.node import notebook
        sys.exit(notebook.execute("study.ipynb", output="done/", excluded=(), encoding="utf-8"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "i"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "r")},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == "ran\n"
    assert "ZeroDivisionError" in done.stderr
    kept = json.loads((tmp_path / "done" / "study.ipynb").read_text())
    assert kept["cells"][1]["outputs"][0]["ename"] == "ZeroDivisionError"
