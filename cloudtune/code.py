"""Which code of this machine travels with a job: a folder, a file, a notebook or a recipe."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PythonRuntime, Runtime, ScriptRuntime
from cloudtune.uri import local_path
from cloudtune.workspace import Workspace, gather

#: The training scripts that cloudtune ships; a recipe NAME is the folder NAME with the entry NAME.py.
RECIPES = Path(__file__).parent / "recipes"
#: Files of other recipes that travel with one, beside its own.
_ROWS = ("sft/flags.py", "sft/places.py", "sft/rows.py")
_TRAINING = ("sft/checkpoints.py", "sft/faults.py", "sft/ranks.py", "sft/resuming.py")
SHARED = {
    "prepare": _ROWS,
    "pretokenize": (*_ROWS, "prepare/prepare.py", "sft/faults.py", "sft/templates.py", "sft/tokens.py"),
    "sft_neuron": (*_ROWS, *_TRAINING, "sft/tokens.py"),
    "vision": ("sft/flags.py", "sft/places.py", "sft/running.py", *_TRAINING),
}


def code_path(job: JobSpec) -> Path | None:
    """Return the local file or folder with the job's code, or None when the node fetches it or there is none."""
    runtime = job.runtime
    if runtime is None:
        return None
    if runtime.recipe is not None:
        return _recipe(runtime.recipe.name)
    for key, attribute in (
        ("scriptPathURI", "script_path_uri"),
        ("notebookPathURI", "notebook_path_uri"),
        ("source", "source"),
    ):
        named = getattr(runtime, attribute, None)
        if not named:
            continue
        path = local_path(named)
        if path is None:
            return None
        if not path.exists():
            hint = f"relative paths start at the current folder, {Path.cwd()}"
            raise SpecError([Fault(path=f"spec.runtime.spec.{key}", message=f"{named} does not exist", hint=hint)])
        if path.is_dir() and key == "scriptPathURI" and type(runtime) in {ScriptRuntime, PythonRuntime}:
            _check_entrypoint(runtime, named)
        return path
    return None


def _check_entrypoint(runtime: Runtime, named: str) -> None:
    if not getattr(runtime, "entrypoint", None):
        fault = Fault(
            path="spec.runtime.spec.entrypoint",
            message=f"{named} is a folder, and nothing says which of its files starts",
            hint="name it: entrypoint: train.py",
        )
        raise SpecError([fault])


def gather_code(job: JobSpec) -> Workspace | None:
    """Return the files of the job's local code; raises SpecError for what looks like a credential."""
    path = code_path(job)
    if path is None or job.runtime is None:
        return None
    workspace = gather(path, allow=job.runtime.allow_files)
    if job.runtime.recipe is None:
        return workspace
    # an installer compiles the recipes, each Python otherwise: that is no part of them
    kept = [file for file in workspace.files if "__pycache__" not in file.path.split("/")]
    kept += [file for name in SHARED.get(job.runtime.recipe.name, ()) for file in gather(RECIPES / name).files]
    return attrs.evolve(workspace, files=tuple(sorted(kept, key=lambda file: os.fsencode(file.path))))


def _recipe(name: str) -> Path:
    folder = RECIPES / name
    if not (folder / f"{name}.py").is_file():
        known = sorted(path.name for path in RECIPES.iterdir() if (path / f"{path.name}.py").is_file())
        raise SpecError(
            [
                Fault(
                    path="spec.runtime.spec.recipe.name",
                    message=f"there is no recipe {name!r}",
                    hint=f"recipes: {', '.join(known)}",
                )
            ]
        )
    return folder
