"""What runs: the code, its command, its environment, and what goes in and comes out.

Seven runtimes in the dialect of Oracle ADS, each a frozen value. Constructor keywords and ``with_*`` methods are
equal; a ``with_*`` returns a new value and leaves the old one as it was. The modules are imported when they are first
asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.spec.runtime import Conda, Dependencies, GitSource, Recipe, Runtime
from cloudtune.spec.types import Types, found

if TYPE_CHECKING:
    from cloudtune.spec.distributed import NeuronDistributedRuntime, PyTorchDistributedRuntime
    from cloudtune.spec.programs import ContainerRuntime, GitPythonRuntime, NotebookRuntime
    from cloudtune.spec.scripts import PythonRuntime, ScriptRuntime

#: The classes by the ``type`` of the YAML.
RUNTIMES: Types[Runtime] = Types(
    {
        "script": "cloudtune.spec.scripts:ScriptRuntime",
        "python": "cloudtune.spec.scripts:PythonRuntime",
        "gitPython": "cloudtune.spec.programs:GitPythonRuntime",
        "notebook": "cloudtune.spec.programs:NotebookRuntime",
        "container": "cloudtune.spec.programs:ContainerRuntime",
        "pyTorchDistributed": "cloudtune.spec.distributed:PyTorchDistributedRuntime",
        "neuronDistributed": "cloudtune.spec.distributed:NeuronDistributedRuntime",
    },
    group="cloudtune.runtimes",
)

_HOMES = {
    "cloudtune.spec.distributed": ("NeuronDistributedRuntime", "PyTorchDistributedRuntime"),
    "cloudtune.spec.programs": ("ContainerRuntime", "GitPythonRuntime", "NotebookRuntime"),
    "cloudtune.spec.scripts": ("PythonRuntime", "ScriptRuntime"),
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


def __getattr__(name: str) -> Any:
    return found(name, _HOMES, __name__)
