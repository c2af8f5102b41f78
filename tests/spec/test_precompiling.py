"""A step that compiles what another one trains becomes a job of its own."""

from __future__ import annotations

import pytest

from cloudtune import pipelines
from cloudtune.spec.document import checked, dumps, load
from cloudtune.spec.infrastructure import SageMakerTrainingJob
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.runtimes import NeuronDistributedRuntime

PIPELINE = """
kind: pipeline
spec:
  name: tune
  steps:
    - {name: compile, precompile: train}
    - name: train
      needs: [compile]
      infrastructure:
        type: sageMakerTrainingJob
        spec: {region: us-west-2, roleArn: "arn:aws:iam::123456789012:role/r", instanceType: ml.trn1.2xlarge,
          image: "123456789012.dkr.ecr.us-west-2.amazonaws.com/a:1", outputPath: "s3://b/out",
          compressOutput: false}
      job:
        name: tiny
        runtime:
          type: neuronDistributed
          spec: {command: torchrun a.py, replicas: 2, precompile: true, compileCacheUri: "s3://b/c", outputUri: "s3://b/o"}
"""


def read(text: str, **options: list[str]) -> PipelineSpec:
    spec = load(text, **options)
    assert isinstance(spec, PipelineSpec)
    return spec


def test_it_is_the_other_steps_job_and_ends_before_training() -> None:
    spec = read(PIPELINE)
    compiling, train = spec.steps
    assert compiling.job is not None
    assert train.job is not None
    assert (compiling.precompile, compiling.job.name) == (None, "tiny-compile")
    assert compiling.infrastructure == train.infrastructure
    runtime = train.job.runtime
    assert isinstance(runtime, NeuronDistributedRuntime)
    expected = runtime.with_precompile(None).with_precompile_only(True).with_output_uri(None)
    assert compiling.job.runtime == expected
    assert read(dumps(spec)) == spec


def test_it_changes_with_the_other_step() -> None:
    words = ["steps.train.runtime.replicas=4"]
    spec = read(PIPELINE, set=words, env=["A=b"])
    counts = [step.job.runtime.replicas for step in spec.steps if step.job is not None and step.job.runtime is not None]
    assert counts == [4, 4]
    assert [step.job.runtime.env[0].name for step in spec.steps if step.job and step.job.runtime] == ["A", "A"]


def test_in_a_plan_it_is_a_training_job_of_its_own() -> None:
    plan = pipelines.plan_pipeline(read(PIPELINE), "abcdefgh")
    jobs = [step for step in plan.steps if step.operation == "create_training_job"]
    assert [step.id for step in jobs] == ["compile.job", "train.job"]
    compiling, training = plan.launches["compile"].neuron, plan.launches["train"].neuron
    assert compiling is not None
    assert training is not None
    assert (compiling["precompile"], compiling["precompileOnly"]) == (True, True)
    assert "precompileOnly" not in training
    same = ("tensorParallelSize", "pipelineParallelSize", "dataParallelSize", "compileCacheUri")
    assert {key: compiling[key] for key in same} == {key: training[key] for key in same}
    # what holds for both is told once, of the step that is in the file
    assert [notice.path for notice in plan.warnings] == ["spec.steps[1].job.runtime.spec.tensorParallelSize"]


@pytest.mark.parametrize("place", [None, SageMakerTrainingJob(instance_type="ml.trn1.32xlarge")])
def test_built_in_python_it_is_the_same_and_may_run_elsewhere(place: SageMakerTrainingJob | None) -> None:
    runtime = NeuronDistributedRuntime(command="torchrun a.py", compile_cache_uri="s3://b/c")
    train = PipelineStep(name="train", job=JobSpec(runtime=runtime))
    first = PipelineStep(name="compile", infrastructure=place).with_precompile("train")
    steps = checked(PipelineSpec(name="p", steps=(first, train))).steps
    assert steps[0].job == JobSpec(name="train-compile", runtime=runtime.with_precompile_only(True))
    assert steps[0].infrastructure == place
    assert steps[1] == train
