"""The examples in the package, and specs/, which is their copy."""

from pathlib import Path

import pytest

from cloudtune import examples
from cloudtune.errors import UsageError
from cloudtune.pipelines import plan_pipeline
from cloudtune.spec.document import load
from cloudtune.spec.job import JobSpec, PipelineSpec
from tests.manifests import check, manifests

ROOT = Path(__file__).parents[1]
PACKAGED = ROOT / "cloudtune" / "examples"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in {".yaml", ".md"}
    }


def test_specs_is_a_copy_of_the_packaged_examples():
    assert tree(ROOT / "specs") == tree(PACKAGED), "run: python3 dev.py specs"


def test_every_example_has_a_summary_of_one_line():
    found = examples.summaries()
    assert {"quickstart", "finetune", "oci-llama2-lora"} <= set(found)
    assert all(20 < len(text) < 120 for text in found.values()), found


@pytest.mark.parametrize("name", sorted(examples.summaries()))
def test_write_gives_the_packaged_bytes(name, tmp_path):
    written = examples.write(name, tmp_path)
    assert written
    for path in written:
        assert path.read_bytes() == (PACKAGED / path.relative_to(tmp_path)).read_bytes()


def test_write_spares_what_is_there_unless_forced(tmp_path):
    mine = tmp_path / "quickstart.yaml"
    mine.write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        examples.write("quickstart", tmp_path)
    assert mine.read_text() == "mine"
    examples.write("quickstart", tmp_path, force=True)
    assert mine.read_text() != "mine"


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="did you mean quickstart"):
        examples.write("quikstart", tmp_path)


def test_the_oci_job_is_the_guides_own_text():
    text = (PACKAGED / "oci-llama2-lora" / "job.yaml").read_text()
    assert "replicas: 6" in text
    assert "shapeName: VM.GPU.A10.2" in text
    assert "value: <your huggingface token>" in text


@pytest.mark.parametrize("path", sorted(PACKAGED.rglob("*.yaml")), ids=lambda path: str(path.relative_to(PACKAGED)))
def test_every_example_is_a_job_or_a_pipeline(path):
    spec = load(path)
    assert isinstance(spec, JobSpec if path.name in {"job.yaml", "finetune.yaml"} else PipelineSpec)


def test_the_chain_on_trainium_is_the_same_as_one_jobset_that_nobody_leads(shared):
    """No step of it is one of this machine's; its manifests are what the API takes."""
    apart, whole = (load(PACKAGED / "eks-trainium-peft" / f"{name}.yaml") for name in ("pipeline", "jobset"))
    steps = {step.name: step for step in whole.steps}
    assert list(steps) == [step.name for step in apart.steps if step.verb != "register"]
    recipes = {step.name: step.job.runtime.recipe for step in apart.steps if step.job is not None}
    assert {name: steps[name].job.runtime.recipe for name in recipes} == recipes
    plan = plan_pipeline(whole, "abcdefgh")
    assert {step.service for step in plan.steps} == {"kubernetes"}
    assert [one["kind"] for one in manifests(plan)] == ["JobSet", *["ConfigMap"] * len(steps)]
    assert check(manifests(plan)) == []
