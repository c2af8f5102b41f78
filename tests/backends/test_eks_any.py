"""Any job for a cluster: its objects are what the API takes, on every kind of job, or the plan says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune.backends.eks import EksBackend
from cloudtune.errors import SpecError
from cloudtune.spec.infrastructure import Accelerator, EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import Runtime
from tests import strategies
from tests.backends.test_sagemaker_any import complete as complete_runtime
from tests.manifests import KINDS, check, manifests

MACHINES = ("p5.48xlarge", "ml.p5.48xlarge", "g5.12xlarge", "m5.4xlarge", "t3.medium", "trn1.32xlarge", "trn2.48xlarge")
POD_SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"hostNetwork": True},
    {"containers": [{"name": "pytorch", "imagePullPolicy": "Always"}]},
    {"affinity": {"podAntiAffinity": {}}, "tolerations": None},
)


def complete(place: EKSJob, runtime: Any, kind: str, machine: str) -> tuple[EKSJob, Any]:
    """Return a place and a runtime with what every job needs and few of those that are drawn have."""
    machine = "trn1.32xlarge" if runtime.type == "neuronDistributed" else machine
    changes = {"cluster": "c", "region": "us-west-2", "image": "image:1", "instance_type": machine, "overrides": {}}
    count = place.accelerator.count if place.accelerator else 0
    accelerator = Accelerator(count=min(count, 4)) if count and machine.startswith(("p5", "g5")) else None
    found = attrs.evolve(place, **changes, job_kind=kind, accelerator=accelerator, pod_spec={})
    _, runtime = complete_runtime(strategies.INFRASTRUCTURES["sageMakerTrainingJob"](), runtime)
    env = tuple(attrs.evolve(one, secret="k8s:hub/token") if one.secret else one for one in runtime.env)
    return found, attrs.evolve(runtime, env=env)


@pytest.mark.usefixtures("shared")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.none() | strategies.TEXT,
    place=strategies.infrastructures("eksJob"),
    runtime=strategies.any_runtime(),
    kind=st.sampled_from(KINDS),
    machine=st.sampled_from(MACHINES),
    pod_spec=st.sampled_from(POD_SPECS),
    as_it_is=st.sampled_from([False, False, False, True]),
)
def test_a_plan_is_what_the_api_takes(
    name: str | None,
    place: EKSJob,
    runtime: Runtime,
    kind: str,
    machine: str,
    pod_spec: dict[str, Any],
    as_it_is: bool,
) -> None:
    if not as_it_is:
        place, runtime = complete(place, runtime, kind, machine)
        place = attrs.evolve(place, pod_spec=pod_spec, trainer_api=None)
    try:
        plan = EksBackend().plan(JobSpec(name=name, infrastructure=place, runtime=runtime), "abcdefgh")
    except SpecError:
        return
    if not plan.refused and not as_it_is:
        assert check(manifests(plan)) == []
    assert plan.to_json()
    assert EksBackend().handle(plan, {step.id: {} for step in plan.steps}).kind


def test_the_draws_reach_plans_that_are_not_refused(tmp_path: Path) -> None:
    """The test above shows nothing where all that is drawn is refused."""
    place, runtime = complete(EKSJob(), strategies.RUNTIMES["script"](script_path_uri="x"), "jobSet", "g5.12xlarge")
    assert EksBackend().plan(JobSpec(infrastructure=place, runtime=runtime), "abcdefgh").refused == ()
