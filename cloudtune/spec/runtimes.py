"""What runs: the code, its command, its environment, and what goes in and comes out.

Seven runtimes in the dialect of Oracle ADS, each a frozen value. Constructor keywords and ``with_*`` methods are
equal; a ``with_*`` returns a new value and leaves the old one as it was.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.fields import setting


@attrs.frozen(kw_only=True)
class Conda:
    """A conda environment of OCI Data Science: a service environment by slug or a published pack by URI."""

    type: str = setting("`service` or `published`.", default="service", choices=("service", "published"))
    slug: str | None = setting("Slug of a service environment, e.g. `pytorch20_p39_gpu_v2`.")
    uri: str | None = setting("`oci://bucket@namespace/path` of a published pack.")
    region: str | None = setting("Region of the published pack's bucket.")


@attrs.frozen(kw_only=True)
class Dependencies:
    """Python packages that the node installs, in a private environment, before the command starts."""

    pip_packages: str | None = setting("Requirements and pip options as on pip's command line, e.g. `peft 'trl>=1'`.")
    pip_requirements: str | None = setting("Path of a requirements file inside the code.")


@attrs.frozen(kw_only=True)
class Recipe:
    """A training script that cloudtune ships, in place of code and command."""

    name: str = attrs.field(metadata={"doc": "Name of the recipe, e.g. `sft`."})
    args: Mapping[str, Any] = setting("Options of the recipe, camelCase.", default={})


@attrs.frozen(kw_only=True)
class GitSource:
    """Code from a git repository, at a branch or a commit."""

    url: str = attrs.field(metadata={"doc": "URL of the repository."})
    branch: str | None = setting("Branch or tag.")
    commit: str | None = setting("Commit id; beats the branch.")
    git_secret_id: str | None = setting("OCID of the Vault secret that holds the SSH key.")


@attrs.frozen(kw_only=True)
class Runtime:
    """What every runtime has."""

    type: ClassVar[str] = ""

    args: tuple[str, ...] = setting("Arguments of the script, one item each.", default=())
    env: tuple[EnvironmentVariable, ...] = setting("Environment variables: a list or a mapping.", default=())
    replicas: int | None = setting("Number of nodes.", minimum=1)
    processes_per_node: int | None = setting(
        "Processes a node; default: the shape's accelerators or Neuron cores.", minimum=1
    )
    inputs: Mapping[str, str] = setting("Files to fetch before the start: `{URI: path}`.", default={})
    output_dir: str | None = setting("Folder whose files are outputs; default `$CLOUDTUNE_OUTPUT_DIR`.")
    output_uri: str | None = setting("Where outputs go: any fsspec URI.", aliases=("outputURI",))
    output_layout: str = setting(
        "`perNode` keeps the files of node K > 0 below `node-K/`; `shared` puts all nodes' files in one place.",
        default="perNode",
        choices=("perNode", "shared"),
    )
    dependencies: Dependencies | None = setting("Python packages to install on the node.")
    recipe: Recipe | None = setting("A training script that cloudtune ships, in place of code and command.")
    rendezvous_timeout_in_seconds: int = setting(
        "How long a node waits for the others before it gives up and names who came.", default=600, minimum=1
    )
    maximum_runtime_in_minutes: int | None = setting("The run is stopped after so many minutes.", minimum=1)
    freeform_tags: Mapping[str, str] = setting("Free-form tags (OCI) or tags.", default={})
    defined_tags: Mapping[str, Any] = setting("OCI defined tags: `{namespace: {key: value}}`.", default={})


@attrs.frozen(kw_only=True)
class ScriptRuntime(Runtime):
    """A script, a folder or an archive, run as it is."""

    type: ClassVar[str] = "script"

    conda: Conda | None = setting("Conda environment (OCI Data Science).")
    script_path_uri: str | None = setting("A local file or folder, or a URI, with the code.", key="scriptPathURI")
    entrypoint: str | None = setting("The file to run inside a folder or archive.")


@attrs.frozen(kw_only=True)
class PythonRuntime(ScriptRuntime):
    """Python code: a file or a folder, with entry function, python path and working directory."""

    type: ClassVar[str] = "python"

    entry_function: str | None = setting("Function in the entrypoint that is called instead of running the file.")
    python_path: tuple[str, ...] = setting("Folders inside the code that go on PYTHONPATH.", default=())
    working_dir: str | None = setting("Working directory inside the code.")


@attrs.frozen(kw_only=True)
class GitPythonRuntime(Runtime):
    """Python code from a git repository."""

    type: ClassVar[str] = "gitPython"

    conda: Conda | None = setting("Conda environment (OCI Data Science).")
    url: str | None = setting("URL of the repository.")
    branch: str | None = setting("Branch or tag.")
    commit: str | None = setting("Commit id; beats the branch.")
    git_secret_id: str | None = setting("OCID of the Vault secret that holds the SSH key.")
    entrypoint: str | None = setting("The file to run inside the repository.")
    entry_function: str | None = setting("Function in the entrypoint that is called instead of running the file.")
    python_path: tuple[str, ...] = setting("Folders inside the code that go on PYTHONPATH.", default=())
    working_dir: str | None = setting("Working directory inside the code.")
    skip_metadata_update: bool | None = setting("Leave the cloud's record of the run without git's metadata.")


@attrs.frozen(kw_only=True)
class NotebookRuntime(Runtime):
    """A notebook, executed from top to bottom; the executed copy is kept with the outputs."""

    type: ClassVar[str] = "notebook"

    conda: Conda | None = setting("Conda environment (OCI Data Science).")
    notebook_path_uri: str | None = setting("A local notebook or its URI.", key="notebookPathURI")
    source: str | None = setting("A folder or archive that holds the notebook named by `entrypoint`.")
    entrypoint: str | None = setting("The notebook inside `source`.")
    notebook_encoding: str | None = setting("Encoding of the notebook; default utf-8.")
    exclude_tags: tuple[str, ...] = setting("Cells with one of these tags are left out.", default=())


@attrs.frozen(kw_only=True)
class ContainerRuntime(Runtime):
    """A container image. With an entrypoint of the user's own it runs as given, without an agent."""

    type: ClassVar[str] = "container"

    image: str | None = setting("Image with registry and tag.")
    entrypoint: str | tuple[str, ...] | None = setting("Replaces the image's entrypoint; a list is exact.")
    cmd: str | tuple[str, ...] | None = setting("Replaces the image's command; a list is exact.")
    image_digest: str | None = setting("Digest that the image must have.")
    image_signature_id: str | None = setting("OCID of the image's signature.")
    script_path_uri: str | None = setting("Files that travel with the container.", key="scriptPathURI")


@attrs.frozen(kw_only=True)
class PyTorchDistributedRuntime(PythonRuntime):
    """A command over several nodes: torchrun, accelerate, deepspeed or any other launcher."""

    type: ClassVar[str] = "pyTorchDistributed"

    git: GitSource | None = setting("Code from a git repository.")
    command: str | tuple[str, ...] | None = setting(
        "A string is a shell line run by `sh -c` on every node; a list is an exact argv."
    )
    deepspeed: bool | None = setting("The command is DeepSpeed's launcher, although its first word is another.")


@attrs.frozen(kw_only=True)
class NeuronDistributedRuntime(PyTorchDistributedRuntime):
    """A command over the Neuron cores of Trainium nodes."""

    type: ClassVar[str] = "neuronDistributed"

    tensor_parallel_size: int = setting("Tensor parallel degree.", default=1, minimum=1)
    pipeline_parallel_size: int = setting("Pipeline parallel degree.", default=1, minimum=1)
    mode: str = setting(
        "`xla` (torch-neuronx, optimum-neuron) or `torchNeuron` (native PyTorch device).",
        default="xla",
        choices=("xla", "torchNeuron"),
    )
    compile_cache_uri: str | None = setting("Where compiled graphs are kept between runs.")
    precompile: bool | None = setting("Run `neuron_parallel_compile` before training (mode xla).")


RUNTIMES: dict[str, type[Runtime]] = {
    cls.type: cls
    for cls in (
        ScriptRuntime,
        PythonRuntime,
        GitPythonRuntime,
        NotebookRuntime,
        ContainerRuntime,
        PyTorchDistributedRuntime,
        NeuronDistributedRuntime,
    )
}
