"""The with_* methods: names and meaning of Oracle ADS, and nothing ever changed in place."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import SpecError
from cloudtune.spec.document import dumps, load
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.fields import keys_of
from cloudtune.spec.infrastructure import (
    INFRASTRUCTURES,
    Accelerator,
    DataScienceJob,
    EKSJob,
    Framework,
    LocalJob,
    SageMakerTrainingJob,
    ShapeConfig,
    StorageMount,
    Volume,
)
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.runtimes import (
    RUNTIMES,
    Conda,
    ContainerRuntime,
    Dependencies,
    GitPythonRuntime,
    GitSource,
    NotebookRuntime,
    PythonRuntime,
    PyTorchDistributedRuntime,
    Recipe,
    ScriptRuntime,
)
from tests.strategies import of_key, values

BUILDERS = [*INFRASTRUCTURES.values(), *RUNTIMES.values()]
DOCUMENTS = [JobSpec, PipelineSpec, PipelineStep]
#: The methods of Oracle ADS 2.16.1, by class.
ADS: dict[type[Any], str] = {
    JobSpec: "name infrastructure runtime",
    DataScienceJob: (
        "project_id compartment_id job_type job_infrastructure_type shape_name shape_config_details block_storage_size"
        " subnet_id log_group_id log_id storage_mount freeform_tag defined_tag"
    ),
    ScriptRuntime: "script source entrypoint service_conda custom_conda",
    PythonRuntime: "script source entrypoint service_conda custom_conda output python_path working_dir",
    GitPythonRuntime: "source entrypoint output python_path working_dir service_conda custom_conda",
    NotebookRuntime: "notebook source exclude_tag output service_conda custom_conda",
    ContainerRuntime: "image image_digest image_signature_id entrypoint cmd artifact replica",
    PyTorchDistributedRuntime: (
        "git inputs dependency command replica script source entrypoint service_conda custom_conda output python_path"
        " working_dir"
    ),
}
EVERY_RUNTIME = "argument environment_variable freeform_tag defined_tag maximum_runtime_in_minutes"


@pytest.mark.parametrize("cls", ADS)
def test_every_method_of_ads_is_there(cls: type[Any]) -> None:
    words = ADS[cls].split() + (EVERY_RUNTIME.split() if cls in RUNTIMES.values() else [])
    assert [word for word in words if not hasattr(cls, f"with_{word}")] == []


@pytest.mark.parametrize("cls", [*BUILDERS, *DOCUMENTS])
def test_every_key_has_a_method_and_every_method_says_what_it_sets(cls: type[Any]) -> None:
    assert [key.name for key in keys_of(cls) if not hasattr(cls, f"with_{key.name}")] == []
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("with_"):
            assert method.__doc__
            assert "return" in method.__annotations__


@pytest.mark.parametrize("cls", BUILDERS)
def test_a_method_is_equal_to_its_keyword_and_leaves_the_original_alone(cls: type[Any]) -> None:
    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        original = data.draw(values(cls))
        before = copy.deepcopy(original)
        for key in data.draw(st.lists(st.sampled_from(keys_of(cls)), min_size=1, max_size=4)):
            value = data.draw(of_key(key))
            changed = getattr(original, f"with_{key.name}")(value)
            assert type(changed) is cls
            assert getattr(changed, key.name) == getattr(cls(**{key.name: value}), key.name)
            assert original == before
            hash(changed)

    check()


def test_values_are_closed() -> None:
    job = JobSpec(runtime=PythonRuntime(inputs={"s3://b/x": "x"}, defined_tags={"a": {"b": [1]}}))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        job.name = "x"  # type: ignore[misc]
    assert job.runtime is not None
    with pytest.raises(TypeError, match="with_"):
        job.runtime.inputs["s3://b/y"] = "y"  # type: ignore[index]
    with pytest.raises(TypeError):
        job.runtime.defined_tags["a"]["b"] += (2,)
    given_: dict[str, Any] = {"a": {"b": [1]}}
    runtime = PythonRuntime().with_defined_tags(given_)
    given_["a"]["b"].append(2)
    assert runtime.defined_tags == {"a": {"b": (1,)}}
    assert pickle.loads(pickle.dumps(job)) == job
    assert copy.deepcopy(job) == job


def test_arguments_are_appended() -> None:
    runtime = ScriptRuntime().with_argument("pos1").with_argument(key1="val1", key2="val2.1 val2.2").with_argument(3)
    assert runtime.args == ("pos1", "--key1", "val1", "--key2", "val2.1 val2.2", "3")
    assert ScriptRuntime().with_argument("pos1", key1=None, key2="val2").args == ("pos1", "--key1", "--key2", "val2")
    assert runtime.with_args("a", ["b"]).args == ("a", "b")
    with pytest.raises(SpecError, match="space"):
        ScriptRuntime().with_argument(**{"a b": 1})


def test_variables_are_replaced() -> None:
    runtime = PythonRuntime().with_environment_variable(A="1", B=2, C=None, D={"x": 1}, T={"secret": "env:HF"})
    assert runtime.env == (
        EnvironmentVariable(name="A", value="1"),
        EnvironmentVariable(name="B", value="2"),
        EnvironmentVariable(name="C", value=""),
        EnvironmentVariable(name="D", value='{"x": 1}'),
        EnvironmentVariable(name="T", secret="env:HF"),
    )
    assert [variable.name for variable in runtime.with_environment_variable(Z="1").env] == ["Z"]
    assert runtime.with_environment_variable() is runtime
    assert (
        PythonRuntime(env={"A": 1})
        == PythonRuntime().with_env({"A": 1})
        == PythonRuntime(env=[{"name": "A", "value": 1}])
    )
    assert PythonRuntime(env=["HOME"]).env == (EnvironmentVariable(name="HOME"),)


def test_conda_is_of_the_service_or_published() -> None:
    assert PythonRuntime().with_service_conda("s").conda == Conda(type="service", slug="s")
    assert PythonRuntime().with_custom_conda("oci://b@n/p").conda == Conda(type="published", uri="oci://b@n/p")
    assert NotebookRuntime().with_custom_conda("u", "r").conda == Conda(type="published", uri="u", region="r")


def test_an_image_resets_what_belongs_to_the_last_one() -> None:
    first = ContainerRuntime().with_image(
        "a:1", entrypoint=["sh", "-c"], cmd="ls", image_digest="d", image_signature_id="s"
    )
    assert (first.entrypoint, first.cmd, first.image_digest, first.image_signature_id) == (("sh", "-c"), "ls", "d", "s")
    second = first.with_replica(3).with_image("b:1")
    assert second == ContainerRuntime(image="b:1", replicas=3)
    assert first.with_cmd(["a", "b"]).cmd == ("a", "b")
    assert first.with_artifact("x").script_path_uri == "x"


def test_code_from_files_and_repositories() -> None:
    source = PythonRuntime().with_source("folder", "a.py").with_entrypoint("b.py", "main").with_source("other")
    assert (source.script_path_uri, source.entrypoint, source.entry_function) == ("other", "b.py", "main")
    assert ScriptRuntime().with_script("x.sh").script_path_uri == "x.sh"
    git = GitPythonRuntime().with_source("u", branch="b", commit="c", secret_ocid="s").with_source("v")
    assert (git.url, git.branch, git.commit, git.git_secret_id) == ("v", None, None, None)
    assert git.with_entrypoint("a", "f").with_entrypoint("b").entry_function is None
    distributed = PyTorchDistributedRuntime().with_git("u", commit="c", secret_ocid="s")
    assert distributed.git == GitSource(url="u", commit="c", git_secret_id="s")
    assert distributed.with_git(None).git is None
    assert git.with_python_path("a", ["b", "c"]).python_path == ("a", "b", "c")


def test_outputs_of_programs_and_notebooks() -> None:
    assert PythonRuntime().with_output("out", "s3://b/o") == PythonRuntime(output_dir="out", output_uri="s3://b/o")
    notebook = NotebookRuntime().with_notebook("n.ipynb").with_output("s3://b/o").with_exclude_tag(["a", "b"], "c")
    assert notebook == NotebookRuntime(
        notebook_path_uri="n.ipynb", notebook_encoding="utf-8", output_uri="s3://b/o", exclude_tags=("a", "b", "c")
    )
    source = NotebookRuntime().with_source("folder", "n.ipynb", encoding="latin-1")
    assert (source.source, source.entrypoint, source.notebook_encoding) == ("folder", "n.ipynb", "latin-1")


def test_commands_dependencies_and_recipes() -> None:
    runtime = PyTorchDistributedRuntime().with_command("accelerate launch t.py", use_deepspeed=True)
    assert runtime.deepspeed is True
    assert runtime.with_command(["torchrun", "t.py"]).command == ("torchrun", "t.py")
    assert runtime.with_dependency("r.txt", "peft").dependencies == Dependencies(
        pip_requirements="r.txt", pip_packages="peft"
    )
    assert runtime.with_dependency() is runtime
    assert PythonRuntime().with_recipe("sft", epochs=3).recipe == Recipe(name="sft", args={"epochs": 3})
    assert PythonRuntime(recipe={"name": "sft"}).recipe == Recipe(name="sft")


def test_places_take_what_ads_gives_them() -> None:
    place = DataScienceJob().with_shape_config_details(memory_in_gbs=16, ocpus=1, cpuBaseline="BASELINE_1_8")
    assert place.shape_config_details == ShapeConfig(memory_in_gbs=16, ocpus=1, cpu_baseline="BASELINE_1_8")
    mounts = [{"src": "oci://b@n/p", "dest": f"d{n}"} for n in range(6)]
    assert place.with_storage_mount(*mounts[:2]).storage_mount[1] == StorageMount(src="oci://b@n/p", dest="d1")
    with pytest.raises(SpecError, match="5 at most"):
        place.with_storage_mount(*mounts)
    assert place.with_freeform_tag(a="b").with_freeform_tag(c="d").freeform_tags == {"c": "d"}
    assert place.with_defined_tag(ns={"k": "v"}).defined_tags == {"ns": {"k": "v"}}
    assert place.with_job_infrastructure_type(infrastructure_type="STANDALONE").job_infrastructure_type == "STANDALONE"
    assert place.with_block_storage_size(size_in_gb=50).block_storage_size == 50


def test_nested_values_may_be_given_as_mappings() -> None:
    assert LocalJob().with_accelerator(name="A10", count=2).accelerator == Accelerator(name="A10", count=2)
    assert LocalJob(accelerator={"memoryInGB": 24}).accelerator == Accelerator(memory_in_gb=24)
    assert EKSJob().with_volumes({"claim": "c", "mountPath": "/d"}).volumes == (Volume(claim="c", mount_path="/d"),)
    job = SageMakerTrainingJob().with_framework("pytorch", "2.6", py_version="py312")
    assert job.framework == Framework(name="pytorch", version="2.6", py_version="py312")
    assert job.with_inputs({"channel": "train", "uri": "s3://b/t"}).inputs[0].channel == "train"
    assert job.with_metric_definitions({"name": "loss", "regex": "x"}).metric_definitions[0].name == "loss"
    with pytest.raises(TypeError, match="unexpected"):
        EKSJob(volumes=[{"mount": "/x"}])  # type: ignore[list-item]


def test_paths_become_text(tmp_path: Path) -> None:
    path: Any = tmp_path
    assert PythonRuntime(script_path_uri=path).script_path_uri == str(tmp_path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**70])
def test_numbers_that_no_document_holds_are_refused(number: float) -> None:
    with pytest.raises(SpecError, match="cannot hold"):
        PythonRuntime(recipe=Recipe(name="sft", args={"x": number}))


def test_steps_of_a_pipeline() -> None:
    step = PipelineStep(name="a").with_verb("merge", base="x").with_needs("b", ["c"])
    assert (step.verb, step.options, step.needs) == ("merge", {"base": "x"}, ("b", "c"))
    job = JobSpec(runtime=PythonRuntime(script_path_uri="a.py"))
    assert step.with_job(job) == PipelineStep(name="a", needs=("b", "c"), job=job)
    pipeline = PipelineSpec().with_name("p").with_step(step.with_needs()).with_step(PipelineStep(name="b", job=job))
    assert [step.name for step in pipeline.steps] == ["a", "b"]
    assert pipeline.with_steps(pipeline.steps[0]).steps == pipeline.steps[:1]


def test_the_python_of_the_oci_guide_runs_with_its_import_line_changed(shared: Path) -> None:
    guide = (shared / "seeds" / "oci-ads-distributed.md").read_text()
    block = guide.split("```python\n")[1].split("```")[0]
    old = "from ads.jobs import Job, DataScienceJob, PyTorchDistributedRuntime"
    new = (
        "from cloudtune.spec.job import JobSpec as Job\n"
        "from cloudtune.spec.infrastructure import DataScienceJob\n"
        "from cloudtune.spec.runtimes import PyTorchDistributedRuntime"
    )
    assert old in block
    scope: dict[str, Any] = {}
    exec(block.replace(old, new), scope)
    job = scope["job"]
    assert load(dumps(job)) == job
    assert job.name == "LLAMA2-Fine-Tuning"
    assert job.infrastructure.block_storage_size == 256
    assert job.runtime.replicas == 2
    assert job.runtime.conda == Conda(slug="pytorch20_p39_gpu_v1")
    assert job.runtime.dependencies.pip_packages.startswith("'accelerate>=0.21.0' appdirs")
    assert job.runtime.output_uri == "oci://bucket@namespace/outputs/"
