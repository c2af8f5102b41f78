"""SageMaker training jobs as a place.

A run is one training job, whatever the runtime, and before it up to three objects in S3: the agent, its order and the
code. They arrive on every node as a channel of the job, and the container starts the agent by Python itself: the
command, the variables and everything else of the job are in the order, as they were written, however long.

What replies mean is in :mod:`cloudtune.backends.sagemaker_runs`, how lines are read in
:mod:`cloudtune.backends.sagemaker_logs`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import attrs

from cloudtune.backends import sagemaker_logs, sagemaker_quotas, sagemaker_runs
from cloudtune.backends import sagemaker_wire as wire
from cloudtune.backends.patches import patched
from cloudtune.backends.sagemaker_images import CPU, GPU, NEURON, image_uri
from cloudtune.backends.sagemaker_notes import doubts, notes
from cloudtune.backends.sagemaker_surroundings import Surroundings, surroundings
from cloudtune.code import gather_code
from cloudtune.errors import CloudtuneError, Fault, SpecError
from cloudtune.launch import Launch, launch, run_time_limit_s
from cloudtune.launch.commands import container_argv
from cloudtune.launch.machine import runtime_of, shape_of
from cloudtune.node.masks import is_secret_name
from cloudtune.node.pack import agent_bytes
from cloudtune.order import environment_of, job_name, order_of, outputs_of
from cloudtune.plan import Call, File, FromShell, Leaf, Notice, Plan, Step
from cloudtune.spec.faults import path_text
from cloudtune.spec.fields import thaw
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtime import Runtime
from cloudtune.spec.sagemaker import SageMakerTrainingJob
from cloudtune.spec.sagemaker_limits import CHANNELS, tag_findings
from cloudtune.states import Handle, LogLine, Status
from cloudtune.workspace import Workspace

if TYPE_CHECKING:
    from cloudtune.spec.programs import ContainerRuntime

SERVICE, STORAGE = "aws.sagemaker", "aws.s3"
#: What stands where nothing says yet in which bucket things go: the plan is refused for that.
_NO_BUCKET = "s3://<bucket>"
_WHERE, _WHAT = "spec.infrastructure.spec", "spec.runtime.spec"


class SageMakerBackend:
    """The SageMaker backend; see :class:`cloudtune.backends.Backend` for the protocol."""

    name = "sagemaker"
    client = "cloudtune.clients.aws:AwsClient"
    tells_end = True

    def plan(self, job: JobSpec, run_id: str) -> Plan:
        """Return the steps of a run: what travels along, and the training job."""
        place, runtime = _place(job), runtime_of(job)
        around = surroundings(place)
        how, image, limit_s = _checked(job, place, runtime, around)
        name, title = job_name(job), wire.training_job_name(job_name(job), run_id)
        output_path = place.output_path or _bucket_of(runtime.output_uri) or around.bucket
        outputs = _outputs(runtime, run_id)
        prefix = f"{(place.staging_uri or output_path or _NO_BUCKET).rstrip('/')}/{title}/input/"
        workspace = None if container_of(runtime) else gather_code(job)
        files = () if container_of(runtime) else _files(job, how, run_id, name, outputs, workspace)
        request = wire.training_job(
            place,
            name=title,
            nodes=how.nodes,
            image=image,
            role=around.role,
            argv=_argv(runtime, run_id),
            environment=_variables(runtime, run_id),
            own_channel=prefix if files else None,
            output_path=output_path,
            max_runtime_s=limit_s,
            tags={**place.tags, **runtime.freeform_tags},
        )
        drawn = (*_uploads(files, prefix, place, run_id), _job(request, title, run_id))
        steps = patched(tuple(_in_region(around.region, drawn)), place.overrides)
        # what the patches have made of it, too
        left = outputs["uri"] if runtime.output_uri else _taken_to(steps[-1].parameters)
        passed_over = [(_WHAT, note) for note in (workspace.notes if workspace else ())]
        warnings = (*how.warnings, *doubts(job, place, runtime, around, output_path), *passed_over)
        return Plan(
            name=name,
            run_id=run_id,
            backend=self.name,
            launch=how,
            steps=steps,
            outputs=(left,) if left else (),
            fields=tuple(notes(job, place, runtime, around, image=image, output_path=output_path)),
            warnings=tuple(Notice(path=path, message=message) for path, message in warnings),
        )

    def beforehand(self, plan: Plan, replies: Sequence[Mapping[str, Any]]) -> Call | None:
        """Return the next call that tells whether the account may have the plan's instances."""
        return sagemaker_quotas.beforehand(plan, replies)

    def refusal(self, plan: Plan, replies: Sequence[Mapping[str, Any]]) -> CloudtuneError | None:
        """Return why the plan would be refused, from the replies to :meth:`beforehand`, as far as they tell."""
        return sagemaker_quotas.refusal(plan, replies)

    def handle(self, plan: Plan, replies: Mapping[str, Mapping[str, Any]]) -> Handle:
        """Return where the training job lives."""
        return sagemaker_runs.handle_of(plan, replies["job"])

    def recognise(self, text: str) -> Handle | None:
        """Return the handle of a training job's ARN."""
        return sagemaker_runs.recognised(text)

    def suppose(self, text: str) -> tuple[Handle, ...]:
        """Return the handle of what may be the name of a training job; only SageMaker knows."""
        return sagemaker_runs.supposed(text)

    def look(self, handle: Handle) -> Call:
        """Ask for the training job."""
        return sagemaker_runs.describe(handle)

    def status(self, handle: Handle, reply: Mapping[str, Any]) -> Status:
        """Read what the training job says of itself."""
        return sagemaker_runs.status_of(handle, reply)

    def is_removed(self, handle: Handle, reply: Mapping[str, Any]) -> bool:
        """Whether the job is being deleted."""
        return reply.get("TrainingJobStatus") == "Deleting"

    def whereabouts(self, handle: Handle, plan: Mapping[str, Any]) -> Call | None:
        """Ask in whose account one is: another one does not have the job."""
        return sagemaker_runs.whereabouts(handle, plan)

    def hides(self, handle: Handle, plan: Mapping[str, Any], reply: Mapping[str, Any]) -> str | None:
        """Return why the job may be there all the same, None if it is gone."""
        return sagemaker_runs.hides(plan, reply)

    def explain(self, handle: Handle, replies: Sequence[Mapping[str, Any]]) -> Call | None:
        """Return the next call that helps to say who of a failed run failed first, None if there is none."""
        return sagemaker_runs.explain(handle, replies)

    def explained(self, handle: Handle, status: Status, replies: Sequence[Mapping[str, Any]]) -> Status:
        """Return the status with what the replies to :meth:`explain` say."""
        return sagemaker_runs.explained(status, replies)

    def logs(self, handle: Handle, cursor: Mapping[str, Any] | None) -> Call:
        """Ask for the job, or for its lines from where the cursor is."""
        return sagemaker_logs.next_call(handle, cursor)

    def lines(self, handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], Mapping[str, Any] | None]:
        """Read the lines, merged over the nodes by time, and what comes next."""
        return sagemaker_logs.read(handle, reply)

    def cancel(self, handle: Handle) -> tuple[Call, ...]:
        """End the job; it keeps what is in its checkpoints and in /opt/ml/model."""
        return (sagemaker_runs.call(SERVICE, "stop_training_job", handle, TrainingJobName=handle.id),)

    def delete(self, handle: Handle, *, outputs: bool) -> tuple[Call, ...]:
        """Remove the training job; its lines stay in CloudWatch for as long as their group keeps them."""
        return (sagemaker_runs.call(SERVICE, "delete_training_job", handle, TrainingJobName=handle.id),)

    def delete_uploads(self, plan: Mapping[str, Any]) -> tuple[Call, ...]:
        """Remove what travelled to the job, from its plan as it was recorded: agent, order and code."""
        steps = [step for step in plan.get("steps") or () if step["operation"] == "put_object"]
        return tuple(
            Call(
                service=STORAGE,
                operation="delete_object",
                parameters={name: step["parameters"][name] for name in ("Bucket", "Key")},
                region=step.get("region"),
            )
            for step in steps
        )


def container_of(runtime: Runtime) -> ContainerRuntime | None:
    """Return the runtime if it is a container; a plan of another runtime does not even import the class."""
    return cast("ContainerRuntime", runtime) if runtime.type == "container" else None


def _place(job: JobSpec) -> SageMakerTrainingJob:
    if not isinstance(job.infrastructure, SageMakerTrainingJob):
        message = f"{job.infrastructure.type} is no SageMaker training job"
        raise SpecError([Fault(path="spec.infrastructure.type", message=message, hint="type: sageMakerTrainingJob")])
    return job.infrastructure


def _bucket_of(uri: str | None) -> str | None:
    """Return the place of outputs where the service can put things, too: in S3, with nothing to be filled in."""
    return uri if uri and uri.startswith("s3://") and "$" not in uri else None


# --- what cannot be


def _checked(
    job: JobSpec, place: SageMakerTrainingJob, runtime: Runtime, around: Surroundings
) -> tuple[Launch, str | None, int]:
    """Return how the job starts, its image and its time limit, or raise everything that is wrong with them at once."""
    faults: list[Fault] = []
    how, image = None, None
    try:
        how = launch(job)
        image = _image(job, place, runtime, around)
    except SpecError as error:
        faults += error.faults
    limit_s = run_time_limit_s(job)[0] or wire.MAX_RUNTIME_S
    wait_s = place.max_wait_time_in_seconds
    if place.use_spot and wait_s is not None and wait_s < limit_s:
        message = f"the longest wait ({wait_s} s) includes the run, which may take {limit_s} s"
        hint = f"at least {limit_s}, or a smaller maxRuntimeInSeconds"
        faults.append(Fault(path=f"{_WHERE}.maxWaitTimeInSeconds", message=message, hint=hint))
    container = container_of(runtime)
    if container is not None:
        plain, special = environment_of(runtime)
        entrypoint, arguments = _argv(runtime, "")
        faults += wire.argv_faults(f"{_WHAT}.entrypoint", entrypoint)
        faults += wire.argv_faults(f"{_WHAT}.cmd", arguments)
        faults += wire.variable_faults(f"{_WHAT}.env", {**plain, **special})
    elif len(place.inputs) >= CHANNELS:
        message = f"{len(place.inputs)} channels and the one in which cloudtune travels; SageMaker takes {CHANNELS}"
        hint = "join two of them below one prefix, or fetch one by the runtime's inputs"
        faults.append(Fault(path=f"{_WHERE}.inputs[{CHANNELS - 1}]", message=message, hint=hint))
    for found, message, told in tag_findings({**place.tags, **runtime.freeform_tags}):
        faults.append(
            Fault(path=path_text(("spec", "runtime", "spec", "freeformTags", *found)), message=message, hint=told)
        )
    if faults or how is None:
        raise SpecError(faults)
    return how, image, limit_s


def _image(job: JobSpec, place: SageMakerTrainingJob, runtime: Runtime, around: Surroundings) -> str | None:
    """Return the image: the runtime's own, the place's, or the framework's; None where nothing says it yet."""
    container = container_of(runtime)
    if container is not None and container.image:
        bare = container.image.partition("@")[0]
        return f"{bare}@{container.image_digest}" if container.image_digest else container.image
    if place.image or place.framework is None:
        return place.image
    if not around.region or "<" in around.region:
        return None
    shape = shape_of(job)
    processor = NEURON if shape and shape.neuron_cores else GPU if shape and shape.accelerators else CPU
    return image_uri(place.framework, region=around.region, processor=processor)


# --- what travels


def _outputs(runtime: Runtime, run_id: str) -> dict[str, Any]:
    """Return the outputs of the order; what is in /opt/ml/model when the job ends, the service takes to S3 itself."""
    outputs = outputs_of(runtime, run_id)
    if outputs["uri"]:
        return outputs
    if outputs["dir"] and outputs["dir"].rstrip("/") != wire.MODEL:
        outputs["uri"] = f"file://{wire.MODEL}"  # the agent brings them there
    else:
        outputs["dir"] = wire.MODEL
    return outputs


def _taken_to(request: Mapping[str, Any]) -> str | None:
    """Return where the service takes what is in /opt/ml/model, by the request as it is sent."""
    output = request.get("OutputDataConfig") or {}
    base, name = output.get("S3OutputPath"), request.get("TrainingJobName")
    if not isinstance(base, str) or not isinstance(name, str):
        return None
    packed = "model" if output.get("CompressionType") == "NONE" else "model.tar.gz"
    return f"{base.rstrip('/')}/{name}/output/{packed}"


def _files(
    job: JobSpec, how: Launch, run_id: str, name: str, outputs: Mapping[str, Any], workspace: Workspace | None
) -> tuple[tuple[str, tuple[File, ...]], ...]:
    """Return the objects that travel by name: one file each, or those below ``code/`` that go into an archive."""
    code = {"kind": "archive", "path": "code.tar.gz"} if workspace is not None else None
    order, _ = order_of(job, how, run_id, name=name, code=code, outputs=outputs)
    order["environment"] = {**_facts(how, _place(job)), **order["environment"]}
    # escaped, so that what is no Unicode text arrives as the bytes that it was
    text = json.dumps(order, indent=1)
    made = (("agent.pyz", (_made("agent.pyz", agent_bytes()),)), ("order.json", (_made("order.json", text.encode()),)))
    return made if workspace is None else (*made, ("code.tar.gz", _code(workspace)))


def _code(workspace: Workspace) -> tuple[File, ...]:
    if workspace.is_archive:
        # it travels as it is: the node looks at the bytes, not the name
        return tuple(attrs.evolve(file, path="code.tar.gz") for file in workspace.files)
    return tuple(attrs.evolve(file, path=f"code/{file.path}") for file in workspace.files)


def _made(path: str, content: bytes) -> File:
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)


def _facts(how: Launch, place: SageMakerTrainingJob) -> dict[str, str]:
    """Return the variables by which scripts written for SageMaker find their way, the same on every node."""
    channels = [channel.channel for channel in place.inputs]
    neuron = (how.neuron or {}).get("coresPerNode", 0)
    kept = {"CLOUDTUNE_CHECKPOINT_DIR": place.checkpoint_local_path or wire.CHECKPOINTS} if place.checkpoint_uri else {}
    return {
        "SM_MODEL_DIR": wire.MODEL,
        "SM_OUTPUT_DATA_DIR": wire.OUTPUT_DATA,
        "SM_INPUT_DIR": "/opt/ml/input",
        "SM_CHANNELS": json.dumps(sorted(channels), separators=(",", ":")),
        **{f"SM_CHANNEL_{name.upper()}": f"{wire.DATA}/{name}" for name in channels if name.isidentifier()},
        "SM_NUM_GPUS": "0" if neuron else str(how.accelerators_per_node),
        "SM_NUM_NEURONS": str(neuron),
        **kept,
    }


def _argv(runtime: Runtime, run_id: str) -> tuple[Sequence[str], Sequence[str]]:
    container = container_of(runtime)
    if container is None:
        return wire.agent_argv(f"{wire.WORK}/{run_id}")
    return container_argv(container.entrypoint), (*container_argv(container.cmd), *runtime.args)


def _variables(runtime: Runtime, run_id: str) -> dict[str, str | Leaf]:
    """Return what stands in the request, where everybody may read it who may describe the job: no secrets.

    The order has all variables but those that are read from the shell, so one that does not fit is left out here.
    """
    plain, special = environment_of(runtime)
    read = {name: leaf for name, leaf in special.items() if isinstance(leaf, FromShell) and not is_secret_name(name)}
    own = {} if container_of(runtime) else {"CLOUDTUNE_PLACE": "sagemaker", "CLOUDTUNE_RUN_ID": run_id}
    return dict(wire.fitting({**own, **read, **{name: value for name, value in plain.items() if name not in own}}))


# --- steps


def _in_region(region: str | None, steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield attrs.evolve(step, region=region, undo=step.undo and attrs.evolve(step.undo, region=region))


def _uploads(
    files: tuple[tuple[str, tuple[File, ...]], ...], prefix: str, place: SageMakerTrainingJob, run_id: str
) -> Iterator[Step]:
    """Yield the objects that travel; several files go as one archive of the object's name."""
    key_id = place.output_kms_key_id
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id} if key_id else {}
    for name, content in files:
        step = name.partition(".")[0]
        bucket, key = wire.split_s3(f"{prefix}{name}")
        at = {"Bucket": bucket, "Key": key}
        yield Step(
            id=step,
            service=STORAGE,
            operation="put_object",
            parameters={**at, **encryption},
            files=content,
            token=f"cloudtune-{run_id}-{step}",
            undo=Call(service=STORAGE, operation="delete_object", parameters=at),
        )


def _job(request: Mapping[str, Any], title: str, run_id: str) -> Step:
    return Step(
        id="job",
        service=SERVICE,
        operation="create_training_job",
        parameters=thaw(request),
        token=f"cloudtune-{run_id}-job",
        undo=Call(service=SERVICE, operation="stop_training_job", parameters={"TrainingJobName": title}),
    )
