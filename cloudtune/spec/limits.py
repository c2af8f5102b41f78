"""What each kind of runtime and infrastructure cannot be, by type: facts of the services and plain contradictions.

Source: oracle-ads 2.16.1 (five mounts, flexible shapes). SageMaker's are in :mod:`cloudtune.spec.sagemaker_limits`,
those of clusters in :mod:`cloudtune.spec.eks_limits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cloudtune.spec.eks_limits import of_cluster_job
from cloudtune.spec.sagemaker_limits import of_training_job

if TYPE_CHECKING:
    from cloudtune.spec.distributed import NeuronDistributedRuntime, PyTorchDistributedRuntime
    from cloudtune.spec.oci import DataScienceJob
    from cloudtune.spec.programs import GitPythonRuntime, NotebookRuntime
    from cloudtune.spec.scripts import ScriptRuntime

Finding = tuple[tuple[str | int, ...], str, str | None]

#: Storage mounts that OCI Data Science takes in one job.
MOUNTS = 5
#: A file that is run as it is; anything else is a folder or an archive, with a file to run inside.
_FILES = (".py", ".sh", ".bash", ".ipynb", ".pyz", ".R", ".r", ".jl")


def _blank(value: Any) -> bool:
    return value is not None and not (value.strip() if isinstance(value, str) else any(value))


def _twice(path: str, word: str, values: list[str], what: str) -> Iterator[Finding]:
    """Find values of a list that stand in it before."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value and value in seen:
            yield (path, index, word), f"{what} {value!r} is taken already", None
        seen.add(value)


# --- runtimes


def of_script(runtime: ScriptRuntime) -> Iterator[Finding]:
    """Check that there is a script to run."""
    if not runtime.script_path_uri and runtime.recipe is None:
        yield ("scriptPathURI",), "there is no code to run: 'scriptPathURI' is missing", None


def of_conda(runtime: ScriptRuntime | GitPythonRuntime | NotebookRuntime) -> Iterator[Finding]:
    """Check that a conda environment says which."""
    conda = runtime.conda
    if conda is not None and conda.type == "service" and not conda.slug:
        hint = "write `type: published` for an environment of your own" if conda.uri else None
        yield ("conda", "slug"), "a service environment needs its slug", hint
    if conda is not None and conda.type == "published" and not conda.uri:
        yield ("conda", "uri"), "a published environment needs its uri", "oci://bucket@namespace/path"


def of_git(runtime: GitPythonRuntime) -> Iterator[Finding]:
    """Check that a repository and a file in it are named."""
    if runtime.recipe is not None:
        return
    if not runtime.url:
        yield ("url",), "a gitPython runtime needs the url of the repository", None
    if not runtime.entrypoint:
        yield ("entrypoint",), "a gitPython runtime needs an entrypoint, the file to run in the repository", None


def of_notebook(runtime: NotebookRuntime) -> Iterator[Finding]:
    """Check that one notebook is named."""
    if runtime.recipe is not None:
        return
    if runtime.notebook_path_uri and runtime.source:
        yield ("source",), "a notebook comes from 'notebookPathURI' or from 'source', not both", None
    elif runtime.source and not runtime.entrypoint:
        yield ("entrypoint",), "name the notebook inside 'source'", None
    elif not runtime.notebook_path_uri and not runtime.source:
        yield ("notebookPathURI",), "there is no notebook to run: 'notebookPathURI' is missing", None


def of_command(runtime: PyTorchDistributedRuntime) -> Iterator[Finding]:
    """Check that there is something to start, from one place."""
    if runtime.git is not None and runtime.script_path_uri:
        yield ("scriptPathURI",), "code comes from 'git' or from 'scriptPathURI', not both", None
    if runtime.command is not None and _blank(runtime.command):
        yield ("command",), "the command is empty", None
    elif runtime.command is None and runtime.recipe is None:
        code = runtime.script_path_uri or runtime.git
        if not (code and runtime.entrypoint) and not (runtime.script_path_uri or "").endswith(_FILES):
            hint = "write a command, a recipe, or scriptPathURI with an entrypoint"
            yield ("command",), "there is nothing to start: 'command' is missing", hint


def of_precompile(runtime: NeuronDistributedRuntime) -> Iterator[Finding]:
    """Check what only torch-neuronx's XLA mode can do."""
    if runtime.precompile and runtime.mode != "xla":
        yield ("precompile",), "precompile belongs to `mode: xla`", None
    if runtime.precompile_only and runtime.mode != "xla":
        yield ("precompileOnly",), "precompileOnly belongs to `mode: xla`", None
    elif runtime.precompile_only and not runtime.compile_cache_uri:
        message = "what was compiled would be lost: 'compileCacheUri' is missing"
        yield ("precompileOnly",), message, "write where the graphs are kept: s3://BUCKET/PREFIX"


# --- infrastructures


def of_data_science_job(place: DataScienceJob) -> Iterator[Finding]:
    """Check mounts and shape."""
    if len(place.storage_mount) > MOUNTS:
        message = f"{len(place.storage_mount)} storage mounts; OCI Data Science takes {MOUNTS} at most"
        yield ("storageMount", MOUNTS), message, None
    for index, mount in enumerate(place.storage_mount):
        if mount.src and ":" not in mount.src and not mount.src.startswith("<"):
            hint = "oci://bucket@namespace/prefix, MOUNT_TARGET_OCID:EXPORT_OCID or IP:/export"
            yield ("storageMount", index, "src"), f"{mount.src!r} cannot be mounted", hint
    destinations = [mount.dest.rstrip("/") for mount in place.storage_mount]
    yield from _twice("storageMount", "dest", destinations, "the destination")
    shape = place.shape_name or ""
    if place.shape_config_details is not None and shape and not shape.endswith(("Flex", ">", "}")):
        message = f"{shape} is no flexible shape: its OCPUs and memory cannot be chosen"
        yield ("shapeConfigDetails",), message, "leave shapeConfigDetails out, or choose a shape that ends in .Flex"


LIMITS: dict[str, tuple[Callable[[Any], Iterator[Finding]], ...]] = {
    "script": (of_script, of_conda),
    "python": (of_script, of_conda),
    "gitPython": (of_git, of_conda),
    "notebook": (of_notebook, of_conda),
    "pyTorchDistributed": (of_command, of_conda),
    "neuronDistributed": (of_command, of_conda, of_precompile),
    "dataScienceJob": (of_data_science_job,),
    "sageMakerTrainingJob": (of_training_job,),
    "eksJob": (of_cluster_job,),
}
