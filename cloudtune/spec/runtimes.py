"""What runs: the code, its command, its environment, and what goes in and comes out.

Seven runtimes in the dialect of Oracle ADS, each a frozen value. Constructor keywords and ``with_*`` methods are
equal; a ``with_*`` returns a new value and leaves the old one as it was.
"""

from cloudtune.spec.distributed import NeuronDistributedRuntime, PyTorchDistributedRuntime
from cloudtune.spec.programs import ContainerRuntime, GitPythonRuntime, NotebookRuntime, PythonRuntime, ScriptRuntime
from cloudtune.spec.runtime import Conda, Dependencies, GitSource, Recipe, Runtime

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

__all__ = [
    "RUNTIMES",
    "Conda",
    "ContainerRuntime",
    "Dependencies",
    "GitPythonRuntime",
    "GitSource",
    "NeuronDistributedRuntime",
    "NotebookRuntime",
    "PyTorchDistributedRuntime",
    "PythonRuntime",
    "Recipe",
    "Runtime",
    "ScriptRuntime",
]
