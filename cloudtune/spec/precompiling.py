"""Steps that compile what a later step trains: the same job over the same cores, ended before it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from cloudtune.spec.distributed import NeuronDistributedRuntime
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep


def expanded(pipeline: PipelineSpec) -> PipelineSpec:
    """Return a pipeline in which every step that compiles for another one is a job of its own."""
    if not any(step.precompile is not None for step in pipeline.steps):
        return pipeline
    steps = {step.name: step for step in pipeline.steps}
    return pipeline.with_steps([_compiling(step, steps) for step in pipeline.steps])


def _compiling(step: PipelineStep, steps: Mapping[str, PipelineStep]) -> PipelineStep:
    target = steps[step.precompile] if step.precompile is not None else step
    job, runtime = target.job, target.job.runtime if target.job is not None else None
    if step.precompile is None or job is None or not isinstance(runtime, NeuronDistributedRuntime):
        return step
    # outputs of its own: what training leaves goes where training says
    compiles = attrs.evolve(runtime, precompile=None, precompile_only=True, output_uri=None)
    named = JobSpec(name=f"{job.name or target.name}-{step.name}", infrastructure=job.infrastructure, runtime=compiles)
    return attrs.evolve(step, precompile=None, job=named, infrastructure=step.infrastructure or target.infrastructure)


def of_precompiling(step: PipelineStep, steps: Mapping[str, PipelineStep]) -> Iterator[tuple[str, str | None]]:
    """Yield what keeps a step from compiling for the one that it names, which exists: what is wrong, what to do."""
    target = steps[step.precompile or ""]
    runtime = target.job.runtime if target.job is not None else None
    if not isinstance(runtime, NeuronDistributedRuntime) or runtime.mode != "xla":
        message = f"{target.name} has nothing to compile before: it is no job of neuronDistributed in `mode: xla`"
        yield message, "name a step that trains on Neuron cores"
    elif not runtime.compile_cache_uri:
        message = f"{target.name} has no compileCacheUri: what was compiled would be lost"
        yield message, f"set compileCacheUri in step {target.name}: s3://BUCKET/PREFIX"
