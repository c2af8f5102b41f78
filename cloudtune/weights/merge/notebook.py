"""Merging by the notebook that travels in the package, run by papermill; the executed copy is kept with the model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudtune import examples, storage
from cloudtune.errors import CloudtuneError, MissingExtra, UsageError
from cloudtune.spec.secrecy import taken_out
from cloudtune.uri import absolute, join, shown
from cloudtune.weights.files.filenames import RECORD
from cloudtune.weights.files.folder import folder_at
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
        UsageError: what was asked for cannot be merged, or a notebook of that name is in the way of the copy.
        CloudtuneError: a cell failed; says where the executed copy is.
    """
    kept = join(output, NOTEBOOK.name)
    if storage.exists(kept) and not storage.exists(join(output, RECORD)):  # where a model is, that is said
        hint = "name another place, or move that file away"
        raise UsageError(f"{shown(kept)} is there already", hint=hint)
    with tempfile.TemporaryDirectory(prefix="cloudtune-merge-") as scratch:
        executed = Path(scratch) / NOTEBOOK.name
        # the executed copy keeps its parameters; what is a secret in them the kernel finds in its environment
        secrets: dict[str, str] = {}
        places = [taken_out(uri, secrets) for uri in (base, absolute(output), *adapters)]
        parameters = {"base": places[0], "output": places[1], "adapter": places[2:], **options}
        try:
            with _environment(secrets):
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
        storage.upload(executed, kept)
    return result_of(folder_at(output).json(RECORD), base, adapters, output)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Let processes that are started meanwhile have these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _failed(error: Any, executed: Path, output: str) -> CloudtuneError:
    if error.ename == "UsageError":
        message, _, hint = str(error.evalue).partition("\n  hint: ")
        return UsageError(message, hint=hint or None)
    kept = f"{output.rstrip('/')}-failed.ipynb"
    storage.upload(executed, kept)
    return CloudtuneError(f"the notebook failed: {error.ename}: {error.evalue}", hint=f"it is kept as {shown(kept)}")
