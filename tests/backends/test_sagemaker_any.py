"""Any job for SageMaker: its plan is one that the service's own model takes, or it says what is wrong."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune.backends.sagemaker import SageMakerBackend
from cloudtune.errors import SpecError
from cloudtune.plan import Plan
from cloudtune.rehearsal.aws.checker import violations
from cloudtune.spec.infrastructure import SageMakerTrainingJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import Runtime
from tests import strategies

SECRET = "arn:aws:secretsmanager:us-west-2:123456789012:secret:hub-AbC"


def complete(place: SageMakerTrainingJob, runtime: Any) -> tuple[SageMakerTrainingJob, Any]:
    """Return a place and a runtime with what every job needs and few of those that are drawn have."""
    framework = place.framework and {"name": "huggingface", "version": "2.7"}
    neuron = runtime.type == "neuronDistributed"
    found = attrs.evolve(
        place,
        region="us-west-2",
        role_arn="arn:aws:iam::123456789012:role/trainer",
        instance_type="ml.trn1.32xlarge" if neuron else "ml.g5.12xlarge",
        output_path="s3://bucket/out",
        framework=framework,
        image=None if framework else "image:1",
        overrides={},
        accelerator=None,
        network_isolation=None,
    )
    env = tuple(attrs.evolve(one, secret=SECRET) if one.secret else one for one in runtime.env)
    changes = {
        "script_path_uri": "https://example.com/train.py",
        "notebook_path_uri": "https://example.com/train.ipynb",
        "source": None,
        "git": None,
        "git_secret_id": None,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "processes_per_node": None,
        "mode": "xla",
        "compile_cache_uri": None,
        "entrypoint": "train.py",
        "cmd": None,
        "command": None if runtime.recipe else ("torchrun", "train.py", *map(str, runtime.args)),
    }
    if runtime.type == "container":
        changes |= {"entrypoint": ("sh", "-c"), "script_path_uri": None}
    if runtime.type == "notebook":
        changes |= {"entrypoint": None}
    if runtime.recipe:
        changes |= {"recipe": {"name": "sft", "args": {}}, "entrypoint": None, "notebook_path_uri": None}
        changes |= {"entry_function": None, "script_path_uri": None}
    kept = {name: value for name, value in changes.items() if hasattr(runtime, name)}
    tags = {f"k{number}": "v" for number in range(len(runtime.freeform_tags))}
    return found, attrs.evolve(runtime, env=env, freeform_tags=tags, **kept)


def request(plan: Plan) -> dict[str, Any]:
    step: dict[str, Any] = plan.to_dict()["steps"][-1]
    assert step["operation"] == "create_training_job"
    parameters: dict[str, Any] = step["parameters"]
    return parameters


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.none() | strategies.TEXT,
    place=strategies.infrastructures("sageMakerTrainingJob"),
    runtime=strategies.any_runtime(),
    as_it_is=st.sampled_from([False, False, False, True]),
)
def test_a_plan_is_what_the_services_model_takes(
    name: str | None, place: SageMakerTrainingJob, runtime: Runtime, as_it_is: bool
) -> None:
    if not as_it_is:
        place, runtime = complete(place, runtime)
    try:
        plan = SageMakerBackend().plan(JobSpec(name=name, infrastructure=place, runtime=runtime), "abcdefgh")
    except SpecError:
        return
    if {note.path for note in plan.refused} == {"spec.infrastructure.type"}:
        assert [str(one) for one in violations("sagemaker", "CreateTrainingJobRequest", request(plan))] == []
    assert plan.to_json()
