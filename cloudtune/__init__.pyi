"""The public names, for type checkers and editors; ``__init__.py`` loads them when they are first used."""

from cloudtune.errors import (
    CloudtuneError as CloudtuneError,
)
from cloudtune.errors import (
    Fault as Fault,
)
from cloudtune.errors import (
    MissingExtra as MissingExtra,
)
from cloudtune.errors import (
    NoCapacity as NoCapacity,
)
from cloudtune.errors import (
    NotAllowed as NotAllowed,
)
from cloudtune.errors import (
    RunFailed as RunFailed,
)
from cloudtune.errors import (
    RunNotFound as RunNotFound,
)
from cloudtune.errors import (
    ServiceError as ServiceError,
)
from cloudtune.errors import (
    SpecError as SpecError,
)
from cloudtune.errors import (
    UsageError as UsageError,
)
from cloudtune.finishing import (
    consolidate as consolidate,
)
from cloudtune.finishing import (
    merge as merge,
)
from cloudtune.job import (
    Job as Job,
)
from cloudtune.job import (
    Pipeline as Pipeline,
)
from cloudtune.plan import (
    Plan as Plan,
)
from cloudtune.runs import (
    Run as Run,
)
from cloudtune.spec.environment import (
    EnvironmentVariable as EnvironmentVariable,
)
from cloudtune.spec.infrastructure import (
    DataScienceJob as DataScienceJob,
)
from cloudtune.spec.infrastructure import (
    EKSJob as EKSJob,
)
from cloudtune.spec.infrastructure import (
    LocalJob as LocalJob,
)
from cloudtune.spec.infrastructure import (
    SageMakerTrainingJob as SageMakerTrainingJob,
)
from cloudtune.spec.job import (
    JobSpec as JobSpec,
)
from cloudtune.spec.job import (
    PipelineSpec as PipelineSpec,
)
from cloudtune.spec.job import (
    PipelineStep as PipelineStep,
)
from cloudtune.spec.runtimes import (
    ContainerRuntime as ContainerRuntime,
)
from cloudtune.spec.runtimes import (
    GitPythonRuntime as GitPythonRuntime,
)
from cloudtune.spec.runtimes import (
    NeuronDistributedRuntime as NeuronDistributedRuntime,
)
from cloudtune.spec.runtimes import (
    NotebookRuntime as NotebookRuntime,
)
from cloudtune.spec.runtimes import (
    PythonRuntime as PythonRuntime,
)
from cloudtune.spec.runtimes import (
    PyTorchDistributedRuntime as PyTorchDistributedRuntime,
)
from cloudtune.spec.runtimes import (
    Recipe as Recipe,
)
from cloudtune.spec.runtimes import (
    ScriptRuntime as ScriptRuntime,
)
from cloudtune.states import (
    Failure as Failure,
)
from cloudtune.states import (
    LogLine as LogLine,
)
from cloudtune.states import (
    Status as Status,
)
from cloudtune.store import (
    Deployment as Deployment,
)
from cloudtune.store import (
    Model as Model,
)
from cloudtune.verbs import (
    build as build,
)
from cloudtune.verbs import (
    cancel as cancel,
)
from cloudtune.verbs import (
    check as check,
)
from cloudtune.verbs import (
    delete as delete,
)
from cloudtune.verbs import (
    deploy as deploy,
)
from cloudtune.verbs import (
    diff as diff,
)
from cloudtune.verbs import (
    doctor as doctor,
)
from cloudtune.verbs import (
    estimate as estimate,
)
from cloudtune.verbs import (
    init as init,
)
from cloudtune.verbs import (
    invoke as invoke,
)
from cloudtune.verbs import (
    list as list,  # noqa: A004 - the command line's own word
)
from cloudtune.verbs import (
    logs as logs,
)
from cloudtune.verbs import (
    models as models,
)
from cloudtune.verbs import (
    outputs as outputs,
)
from cloudtune.verbs import (
    register as register,
)
from cloudtune.verbs import (
    rehearse as rehearse,
)
from cloudtune.verbs import (
    run as run,
)
from cloudtune.verbs import (
    schema as schema,
)
from cloudtune.verbs import (
    status as status,
)
from cloudtune.verbs import (
    watch as watch,
)

__version__: str
