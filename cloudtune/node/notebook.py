"""Executes a notebook from top to bottom; the executed copy is kept, also when a cell fails."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cloudtune.node.call import step_aside


def execute(file: str, *, output: str | None, excluded: Collection[str], encoding: str) -> int:
    """Execute a notebook with papermill if it is there, else nbclient; return an exit code.

    ``output`` is a file, or a folder that is there or ends in a slash; without it the job's output folder is used.
    Cells that carry one of the ``excluded`` tags are left out.
    """
    source = Path(file).absolute()
    if not source.is_file():
        sys.stderr.write(f"there is no {file} in {Path.cwd()}\n")
        return 1
    step_aside()
    target = output_file(source.name, output, os.environ.get("CLOUDTUNE_OUTPUT_DIR"))
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat: Any = importlib.import_module("nbformat")
    notebook = nbformat.reads(source.read_text(encoding=encoding), as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not set(excluded) & set(cell.metadata.get("tags", ()))]
    kernel = _kernel(notebook)
    run = _by_papermill if importlib.util.find_spec("papermill") else _by_nbclient
    return int(run(notebook, target, kernel, source.parent, nbformat))


def output_file(name: str, output: str | None, default_folder: str | None) -> Path:
    """Return where the executed copy goes."""
    if not output:
        return Path(default_folder or ".").absolute() / name
    path = Path(output)
    return (path / name if output.endswith("/") or path.is_dir() else path).absolute()


def _kernel(notebook: Any) -> str:
    """Return the notebook's kernel if it is installed here, else Python's own."""
    wanted = str(notebook.metadata.get("kernelspec", {}).get("name", "python3"))
    specs: Any = importlib.import_module("jupyter_client.kernelspec")
    if wanted in specs.KernelSpecManager().find_kernel_specs():
        return wanted
    sys.stderr.write(f"kernel {wanted!r} is not installed here; python3 is used\n")
    return "python3"


def _by_papermill(notebook: Any, target: Path, kernel: str, folder: Path, nbformat: Any) -> int:
    papermill: Any = importlib.import_module("papermill")
    nbformat.write(notebook, str(target))
    try:
        papermill.execute_notebook(
            str(target),
            str(target),
            kernel_name=kernel,
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            cwd=str(folder),
        )
    except papermill.PapermillExecutionError as error:
        sys.stderr.write("\n".join(error.traceback) + "\n" if error.traceback else f"{error}\n")
        return 1
    return 0


def _by_nbclient(notebook: Any, target: Path, kernel: str, folder: Path, nbformat: Any) -> int:
    nbclient: Any = importlib.import_module("nbclient")
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, kernel_name=kernel, timeout=None, resources=resources, on_cell_executed=_show
    )
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        nbformat.write(notebook, str(target))
    return 0


def _show(cell: Any, **_: Any) -> None:
    for output in cell.get("outputs", ()):
        if output.get("output_type") == "stream":
            stream = sys.stderr if output.get("name") == "stderr" else sys.stdout
            stream.write(output.get("text", ""))
            stream.flush()
