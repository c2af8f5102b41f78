"""Merging by the notebook that travels in the package, run by papermill; the executed copy is kept with the model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloudtune import examples, storage
from cloudtune.errors import CloudtuneError, MissingExtra, UsageError
from cloudtune.uri import absolute, join, shown
from cloudtune.weights.files.model import folder_at
from cloudtune.weights.files.records import RECORD
from cloudtune.weights.merge.verb import MergeResult, result_of

try:
    import ipykernel  # noqa: F401 - papermill does not bring one
    import papermill
except ImportError as error:
    raise MissingExtra("notebooks", "merging by a notebook") from error

NOTEBOOK = Path(examples.__file__).parent / "merge-notebook" / "merge.ipynb"
_KERNEL = "python3"


def merge_by_notebook(base: str, adapters: Sequence[str], output: str, **options: Any) -> MergeResult:
    """Execute the notebook with these parameters; ``options`` are those of ``cloudtune merge`` by their words.

    Raises:
        UsageError: what was asked for cannot be merged.
        CloudtuneError: a cell failed; says where the executed copy is.
    """
    with tempfile.TemporaryDirectory(prefix="cloudtune-merge-") as scratch:
        executed = Path(scratch) / NOTEBOOK.name
        parameters = {"base": base, "adapter": list(adapters), "output": absolute(output), **options}
        try:
            papermill.execute_notebook(
                str(NOTEBOOK),
                str(executed),
                parameters=parameters,
                kernel_name=_KERNEL,
                progress_bar=False,
                cwd=os.getcwd(),  # noqa: PTH109 - papermill takes text
            )
        except papermill.PapermillExecutionError as error:
            raise _failed(error, executed, output) from error
        storage.upload(executed, join(output, NOTEBOOK.name))
    folder = folder_at(output)
    return result_of(folder.json(RECORD), output)


def _failed(error: Any, executed: Path, output: str) -> CloudtuneError:
    if error.ename == "UsageError":
        message, _, hint = str(error.evalue).partition("\n  hint: ")
        return UsageError(message, hint=hint or None)
    kept = f"{output.rstrip('/')}-failed.ipynb"
    storage.upload(executed, kept)
    return CloudtuneError(f"the notebook failed: {error.ename}: {error.evalue}", hint=f"it is kept as {shown(kept)}")
