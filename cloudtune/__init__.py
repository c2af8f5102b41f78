"""Fine-tune large models in anybody's cloud: describe the job once, run it anywhere.

The public names are loaded when they are first used, so that ``import cloudtune`` costs next to nothing.
"""

from __future__ import annotations

import builtins
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "cloudtune.errors": (
        "CloudtuneError Fault MissingExtra NoCapacity NotAllowed RunFailed RunNotFound ServiceError SpecError"
        " UsageError"
    ),
    "cloudtune.finishing": "consolidate merge",
    "cloudtune.job": "Job Pipeline",
    "cloudtune.plan": "Plan",
    "cloudtune.runs": "Run",
    "cloudtune.spec.environment": "EnvironmentVariable",
    "cloudtune.spec.infrastructure": "DataScienceJob EKSJob LocalJob SageMakerTrainingJob",
    "cloudtune.spec.job": "JobSpec PipelineSpec PipelineStep",
    "cloudtune.spec.runtimes": (
        "ContainerRuntime GitPythonRuntime NeuronDistributedRuntime NotebookRuntime PythonRuntime"
        " PyTorchDistributedRuntime Recipe ScriptRuntime"
    ),
    "cloudtune.states": "Failure LogLine Status",
    "cloudtune.store": "Deployment Model",
    "cloudtune.verbs": (
        "build cancel check delete deploy diff doctor estimate init invoke list logs models outputs register rehearse "
        "run schema status watch"
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

# the table above is the one list of public names; `import *` brings none that would hide a builtin, such as `list`
__all__ = [*(name for name in _HOME if not hasattr(builtins, name)), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:  # type: ignore[valid-type]
    return sorted({*_HOME, "__version__"})
