"""What of a spec is secret: kept apart, and whole again when both parts come together."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings

from cloudtune import Job, Pipeline
from cloudtune.backends.local import LocalBackend
from cloudtune.order import order_of
from cloudtune.plan import FromShell, Masked, Plan, substitute
from cloudtune.spec.document import checked, dumps
from cloudtune.spec.environment import variables
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.runtimes import GitPythonRuntime, GitSource, NotebookRuntime, PyTorchDistributedRuntime, Runtime
from cloudtune.spec.secrecy import exposed, literal_secrets, masked, secret_values, secrets_of_steps, without_secrets
from tests import strategies

SECRETS = ("hf_abcdef", "pw4input", "pw4output", "sig4signed", "pw4git", "pw4pip", "pw4db", "pw4hook", "ovr_token")
ENV = {
    "HF_TOKEN": "hf_abcdef",
    "HEADER": "Bearer ${HF_TOKEN}",
    "WRITTEN": "x hf_abcdef y",
    "AGAIN": "[${HEADER}]",
    "DATABASE": "postgres://me:pw4db@host/db",
    "EMPTY_KEY": "",
    "SHORT_KEY": "ab",
    "CABLE": "about cables",
    "PLAIN": "1",
}
OVERRIDES = {
    "run": {
        "environment": {"OTHER_TOKEN": "ovr_token", "HF_TOKEN": "another_value", "PLAIN": "2"},
        "headers": [{"name": "API_KEY", "value": "ovr_token"}, {"name": "Accept", "value": "text"}],
        "note": "with hf_abcdef in it",
        "hook": "https://me:pw4hook@host/hook",
        "key": "nvidia.com/gpu",
        "count": 3,
        "gone": None,
    }
}


def job(**more: Any) -> JobSpec:
    runtime = PyTorchDistributedRuntime(
        command="python train.py",
        env=variables(ENV),
        inputs={
            "https://me:pw4input@host/data": "data",
            "https://host/x?X-Amz-Signature=sig4signed": "x",
            "s3://b/k": "k",
        },
        output_uri="sftp://me:pw4output@host/out",
        git=GitSource(url="https://me:pw4git@host/repo.git"),
        dependencies={"pip_packages": "--extra-index-url https://me:pw4pip@host/simple peft"},
    )
    return checked(JobSpec(name="j", runtime=runtime, infrastructure=LocalJob(overrides=OVERRIDES), **more))


def leaked(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def test_what_is_kept_shown_and_planned_holds_no_secret() -> None:
    one = job()
    kept = without_secrets(one)
    plan = LocalBackend().plan(one, "abcdefgh")
    html = Job(**{field.name: getattr(one, field.name) for field in attrs.fields(JobSpec)})._repr_html_()
    for text in (dumps(kept), repr(kept), dumps(masked(one)), repr(one), plan.to_json(), repr(plan), html):
        assert leaked(text) == []
    assert leaked(dumps(one)) == list(SECRETS)
    assert "about cables" in dumps(kept)
    assert [variable.name for variable in kept.runtime.env if variable.value is None] == list(literal_secrets(one))
    assert literal_secrets(one) == ("HF_TOKEN", "HEADER", "WRITTEN", "AGAIN", "DATABASE", "SHORT_KEY")
    assert checked(kept) == kept
    assert without_secrets(kept) == kept
    assert secret_values(kept) == {}


def test_overrides_are_kept_by_name() -> None:
    kept = without_secrets(job()).infrastructure.overrides["run"]
    # HF_TOKEN means another value already, and a note has no name that says it is secret
    assert kept == {
        "environment": {"OTHER_TOKEN": "${masked:OTHER_TOKEN}", "HF_TOKEN": "${masked:RUN_ENVIRONMENT_HF_TOKEN_SECRET}", "PLAIN": "2"},
        "headers": ({"name": "API_KEY", "value": "${masked:API_KEY}"}, {"name": "Accept", "value": "text"}),
        "note": "${masked:RUN_NOTE_SECRET}",
        "hook": "${masked:RUN_HOOK_SECRET}",
        "key": "nvidia.com/gpu",
        "count": 3,
        "gone": None,
    }  # fmt: skip
    values = secret_values(job())
    assert values["RUN_ENVIRONMENT_HF_TOKEN_SECRET"] == "another_value"
    assert values["RUN_NOTE_SECRET"] == "with hf_abcdef in it"
    assert (values["HF_TOKEN"], values["HEADER"], values["AGAIN"]) == (
        "hf_abcdef",
        "Bearer hf_abcdef",
        "[Bearer hf_abcdef]",
    )
    assert "PLAIN" not in values


def sent(plan: Plan, shell: dict[str, str]) -> Any:
    """Return what a plan sends, as submit fills it in."""

    def value(leaf: Any) -> Any:
        if isinstance(leaf, Masked) and leaf.value is not None:
            return leaf.value
        return shell[leaf.name] if isinstance(leaf, (Masked, FromShell)) else str(leaf)

    return [substitute(step.parameters, value) for step in plan.steps]


def test_what_is_kept_and_the_values_make_the_same_requests() -> None:
    one = job()
    whole = LocalBackend().plan(one, "abcdefgh")
    kept = LocalBackend().plan(without_secrets(one), "abcdefgh")
    assert sent(kept, secret_values(one)) == sent(whole, {})
    assert kept.outputs == whole.outputs
    assert kept.steps[0].parameters["order"]["inherited"] == whole.steps[0].parameters["order"]["inherited"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.jobs())
def test_any_job_can_be_kept(spec: JobSpec) -> None:
    kept = without_secrets(spec)
    assert without_secrets(kept) == kept
    assert secret_values(kept) == {}
    assert set(secret_values(spec)) >= set(literal_secrets(spec))


def test_the_node_gets_passwords_by_its_environment() -> None:
    one = job()
    from cloudtune.launch import launch

    order, values = order_of(one, launch(one), "abcdefgh", name="j", code=None, outputs=None)
    text = json.dumps(order)
    assert leaked(text) == []
    (data,) = (uri for uri, path in order["inputs"].items() if path == "data")
    name = data.removeprefix("https://${").removesuffix("}@host/data")
    assert name in order["inherited"]
    assert values[name] == Masked(name, "me:pw4input")
    assert order["code"]["url"].startswith("https://${CLOUDTUNE_URI_")


def test_the_same_place_with_two_passwords_keeps_both() -> None:
    inputs = {"https://a:one@h/x": "1", "https://b:two@h/x": "2"}
    spec = JobSpec(name="j", runtime=PyTorchDistributedRuntime(command="true", inputs=inputs))
    assert sorted(secret_values(spec).values()) == ["a:one", "b:two"]
    assert len(without_secrets(spec).runtime.inputs) == 2


@pytest.mark.parametrize(
    "runtime",
    [
        GitPythonRuntime(url="https://tok3n@host/r", entrypoint="a.py"),
        NotebookRuntime(notebook_path_uri="https://host/a.ipynb?sig=tok3n"),
    ],
)
def test_code_from_a_uri_with_a_secret(runtime: Runtime) -> None:
    spec = JobSpec(name="j", runtime=runtime)
    assert "tok3n" not in LocalBackend().plan(spec, "abcdefgh").to_json()
    assert "tok3n" not in repr(spec)
    assert next(iter(secret_values(spec).values())).endswith("tok3n")


def test_a_name_that_refers_to_a_secret_is_not_filled_in() -> None:
    spec = JobSpec(name="run-${HF_TOKEN}-${PLAIN}", runtime=PyTorchDistributedRuntime(command="true", env=ENV))
    assert LocalBackend().plan(spec, "abcdefgh").name == "run-${HF_TOKEN}-1"


def test_what_stands_in_a_text_that_is_not_changed_is_told() -> None:
    runtime = PyTorchDistributedRuntime(
        command="train --token hf_abcdef",
        args=("--data", "https://me:pw4input@h/x", "--key", "labels"),
        env={"HF_TOKEN": "hf_abcdef", "LABEL_KEY": "labels"},
        freeform_tags={"note": "plain"},
    )
    found = exposed(JobSpec(runtime=runtime))
    assert [path for path, _ in found] == ["spec.runtime.spec.args[1]", "spec.runtime.spec.command"]
    assert "HF_TOKEN" in found[1][1]
    assert leaked(str(found)) == []
    assert exposed(job()) == exposed(JobSpec()) == ()


def test_steps_of_a_pipeline_have_their_own_values() -> None:
    def step(name: str, token: str, **more: Any) -> PipelineStep:
        runtime = PyTorchDistributedRuntime(command="true", env={"HF_TOKEN": token})
        return PipelineStep(name=name, job=JobSpec(runtime=runtime), **more)

    pipeline = PipelineSpec(
        name="p",
        infrastructure=LocalJob(overrides={"run": {"HF_TOKEN": "third"}}),
        steps=(
            step("a", "first"),
            step("b", "second", infrastructure=LocalJob(overrides={"run": {"DB_PASSWORD": "four"}})),
        ),
    )
    found = secrets_of_steps(pipeline)
    assert found["a"] == {"HF_TOKEN": "first", "RUN_HF_TOKEN_SECRET": "third"}
    assert found["b"] == {"HF_TOKEN": "second", "RUN_HF_TOKEN_SECRET": "third", "DB_PASSWORD": "four"}
    kept = dumps(without_secrets(pipeline))
    html = Pipeline(**{field.name: getattr(pipeline, field.name) for field in attrs.fields(PipelineSpec)})._repr_html_()
    for text in (kept, repr(pipeline), dumps(masked(pipeline)), html):
        assert [word for word in ("first", "second", "third", "four") if word in text] == []
    assert checked(without_secrets(pipeline)) == without_secrets(pipeline)


def test_values_that_were_not_checked_show_themselves_all_the_same() -> None:
    circle = PyTorchDistributedRuntime(env={"A": "${B}", "B": "${A} hf_abcdef", "X_KEY": "hf_abcdef"})
    grows = PyTorchDistributedRuntime(env={f"V{n}": f"${{V{n + 1}}}" * 2 for n in range(60)} | {"V60": "hf_abcdef"})
    odd = PyTorchDistributedRuntime(env=({"nothing": 1}, "BARE"))
    for runtime in (circle, grows, odd):
        assert "hf_abcdef" not in repr(runtime)
        assert "env=(" in repr(runtime)
