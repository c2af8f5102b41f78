"""What a plan says of a SageMaker job beside its steps: keys that cannot be honoured, and what should be known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudtune.backends.containers import agents_work
from cloudtune.backends.node_folders import ends_with_the_node, not_on_the_node
from cloudtune.backends.sagemaker_surroundings import Surroundings
from cloudtune.backends.sagemaker_wire import CHECKPOINTS, DATA, MODEL, OUTPUT_DATA, SPOT_WAIT_S, plain_name
from cloudtune.launch import run_time_limit_s
from cloudtune.node.masks import is_secret_name
from cloudtune.order import environment_of, job_name
from cloudtune.plan import FieldNote, Masked
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtime import Runtime
from cloudtune.spec.sagemaker import SageMakerTrainingJob

_WHERE, _WHAT = "spec.infrastructure.spec", "spec.runtime.spec"
#: Keys of a runtime for which a node reaches out of its network.
_OUTSIDE = {"inputs": "inputs", "output_uri": "outputUri", "dependencies": "dependencies", "git": "git", "url": "url"}
_SECRETS_MANAGER = "keep it in Secrets Manager and write secret: with its ARN"

Pair = tuple[str, str]


def notes(
    job: JobSpec,
    place: SageMakerTrainingJob,
    runtime: Runtime,
    around: Surroundings,
    *,
    image: str | None,
    output_path: str | None,
) -> Iterator[FieldNote]:
    """Yield the keys that cannot be honoured, and those that are another way than written."""
    given = {"region": around.region, "roleArn": around.role, "instanceType": place.instance_type}
    refused = (
        *_missing(place, image, output_path, **given),
        *_neuron(place, runtime),
        *_secrets(runtime),
        *_isolated(place, runtime),
        *_without_agent(runtime),
    )
    for path, reason in refused:
        yield FieldNote(path=path, status="refused", reason=reason)
    for path, reason in _approximated(job, runtime):
        yield FieldNote(path=path, status="approximated", reason=reason)


def doubts(
    job: JobSpec, place: SageMakerTrainingJob, runtime: Runtime, around: Surroundings, output_path: str | None
) -> Iterator[Pair]:
    """Yield what the user should know before the run starts."""
    _, limit = run_time_limit_s(job)
    if limit is not None:
        yield limit
    for key, source in around.found.items():
        yield f"{_WHERE}.{key}", f"taken from where this is submitted ({source})"
    if around.bucket and output_path == around.bucket:
        yield f"{_WHERE}.outputPath", f"nothing says where outputs go: the account's default bucket, {around.bucket}"
    if place.compress_output is not False and not runtime.output_uri:
        message = "outputs will be one model.tar.gz; merge, check and deploy read loose files: compressOutput: false"
        yield f"{_WHERE}.compressOutput", message
    if place.use_spot and place.max_wait_time_in_seconds is None:
        hours = SPOT_WAIT_S // 3600
        yield (
            f"{_WHERE}.maxWaitTimeInSeconds",
            f"spot capacity is waited for {hours} hours beside the run itself",
        )
    if place.use_spot and not place.checkpoint_uri:
        yield f"{_WHERE}.checkpointUri", "an interrupted spot job starts from the beginning: nothing keeps checkpoints"
    if runtime.type != "container":
        yield from ends_with_the_node(runtime, _kept(place))
        yield from not_on_the_node(runtime, ["/opt/ml"])
    plain, special = environment_of(runtime)
    for name in ("CLOUDTUNE_PLACE", "CLOUDTUNE_RUN_ID"):
        if runtime.type != "container" and name in {**plain, **special}:
            yield f"{_WHAT}.env", f"{name} is set by cloudtune on SageMaker; the job's own value has no effect"


def _kept(place: SageMakerTrainingJob) -> list[str]:
    """Return the folders of a node that SageMaker keeps."""
    files = [f"{DATA}/{channel.channel}" for channel in place.inputs if channel.file_system_id]
    return [MODEL, OUTPUT_DATA, *files, *([place.checkpoint_local_path or CHECKPOINTS] if place.checkpoint_uri else [])]


def _missing(
    place: SageMakerTrainingJob, image: str | None, output_path: str | None, **given: str | None
) -> Iterator[Pair]:
    """Yield what only the user knows and the spec must say."""
    for key, value in given.items():
        if not value:
            yield f"{_WHERE}.{key}", f"SageMaker needs {key}, and nothing here says it"
    if image is None and place.framework is None:
        yield f"{_WHERE}.image", "SageMaker needs an image: set it, or framework with name and version"
    if output_path is None:
        yield f"{_WHERE}.outputPath", "SageMaker needs a place in S3 for outputs: set it to s3://bucket/prefix"


def _neuron(place: SageMakerTrainingJob, runtime: Runtime) -> Iterator[Pair]:
    if getattr(runtime, "mode", None) == "torchNeuron" and place.framework is not None:
        reason = "its images train by PyTorch/XLA; torchNeuron needs Neuron 2.31 and PyTorch 2.12: name such an image"
        yield f"{_WHERE}.framework", reason


def _secrets(runtime: Runtime) -> Iterator[Pair]:
    """Yield secrets that could not reach the nodes, or not without being shown to others."""
    shown = "everybody who may describe a training job sees its variables"
    _, special = environment_of(runtime)
    places = {variable.name: f"{_WHAT}.env[{index}]" for index, variable in enumerate(runtime.env)}
    for name, leaf in special.items():
        if name not in places:
            yield _WHAT, f"a password or a signature in a URI would be in a variable, and {shown}: take it out"
        elif isinstance(leaf, Masked) or is_secret_name(name):
            yield places[name], f"{shown}, so {name} is not sent: {_SECRETS_MANAGER}"
    for index, variable in enumerate(runtime.env):
        if variable.secret and not variable.secret.startswith(("arn:", "<")):
            yield f"{_WHAT}.env[{index}].secret", f"a node on SageMaker reads secrets of AWS alone: {_SECRETS_MANAGER}"
    git: Any = getattr(runtime, "git", None)
    key = "git.gitSecretId" if git is not None else "gitSecretId"
    reference = getattr(git if git is not None else runtime, "git_secret_id", None)
    if reference and not reference.startswith(("arn:", "<")):
        yield f"{_WHAT}.{key}", f"a node on SageMaker reads secrets of AWS alone: {_SECRETS_MANAGER}"


def _isolated(place: SageMakerTrainingJob, runtime: Runtime) -> Iterator[Pair]:
    if not place.network_isolation:
        return
    reason = "the containers have no network (networkIsolation): bring it by a channel or in the image"
    for attribute, key in _OUTSIDE.items():
        if getattr(runtime, attribute, None):
            yield f"{_WHAT}.{key}", reason
    for index, variable in enumerate(runtime.env):
        if variable.secret:
            yield f"{_WHAT}.env[{index}].secret", "without a network a node cannot read secrets (networkIsolation)"


def _without_agent(runtime: Runtime) -> Iterator[Pair]:
    """Yield what needs the agent, of a container that runs as given."""
    if runtime.type != "container":
        return
    yield from agents_work(runtime)
    if (getattr(runtime, "cmd", None) or runtime.args) and not getattr(runtime, "entrypoint", None):
        yield f"{_WHAT}.entrypoint", "SageMaker takes arguments only together with an entrypoint: write it out"
    if any(variable.secret for variable in runtime.env):
        yield f"{_WHAT}.env", "secrets are fetched by the agent, and a container runs as given without it"


def _approximated(job: JobSpec, runtime: Runtime) -> Iterator[Pair]:
    name = job_name(job)
    if plain_name(name) != name:
        yield "spec.name", "names of training jobs have letters, digits and hyphens: others become hyphens there"
    if runtime.type == "container":
        reason = "a container runs as given, without cloudtune's agent: no CLOUDTUNE_* variables, no ranks in the log"
        yield "spec.runtime.type", reason
    if getattr(runtime, "conda", None) is not None:
        yield f"{_WHAT}.conda", "the image's Python is used instead of a conda environment of OCI"
    if getattr(runtime, "image_signature_id", None):
        yield f"{_WHAT}.imageSignatureId", "signatures of OCI are not checked; imageDigest is"
    if runtime.defined_tags:
        yield f"{_WHAT}.definedTags", "OCI's defined tags have no place here; freeformTags become tags"
    if job.id:
        yield "spec.id", "every run is a training job of its own; the job of this id is left alone"
