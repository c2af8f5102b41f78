"""The main job, whole, as the notebook does it: prepared, trained over two nodes, merged, filed, served, asked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudtune.store import Store

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "quickstart.ipynb"

pytestmark = [
    pytest.mark.heavy,
    # what a kernel leaves open is the kernel's business
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the module: the notebook runs once."""
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture(scope="module")
def executed(home: Path) -> list[Any]:
    """Return the notebook's cells after it ran."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUDTUNE_HOME", str(home))
        nbclient.NotebookClient(
            notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(home)}}
        ).execute()
    return list(notebook.cells)


@pytest.fixture(autouse=True)
def _same_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_HOME", str(home))


def cli(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "cloudtune", *arguments, "-o", "json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_notebook_trains_files_and_asks(executed: list[Any]) -> None:
    results = [
        output["data"]["text/plain"]
        for cell in executed
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert "'succeeded'" in results
    answer = results[-3]
    assert "LoRA" in answer, results
    printed = "".join(out.get("text", "") for cell in executed if cell.cell_type == "code" for out in cell.outputs)
    assert "[train 0/0] " in printed
    assert "[train 1] " in printed


def test_the_model_is_filed_with_its_origin(executed: list[Any], home: Path) -> None:
    (model,) = cli("list", "--models")
    assert model["name"] == "quickstart-notebook"
    assert model["run"].endswith("-train")
    assert model["base"].endswith("/outputs/model")
    assert model["metrics"]["eval_loss"] < 0.7 * model["metrics"]["eval_loss_before"]
    place = Path(model["uri"].removeprefix("file://"))
    for name, digest in model["checksums"].items():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    assert "model.safetensors" in model["checksums"]


def test_the_merged_model_answers_as_base_and_adapter_do(executed: list[Any], home: Path) -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    (model,) = Store().models("quickstart-notebook")
    record = json.loads((Path(model.uri.removeprefix("file://")) / "cloudtune.json").read_text())
    # a record travels, so it has the ends of paths
    (base_place,), (adapter,) = (list(home.rglob(title)) for title in (record["base"], *record["adapters"]))
    # computed in fp32, so that only the rounding of the merged weights to bfloat16 (8 bits) can differ
    base, merged = (
        transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
        for place in (base_place, model.uri.removeprefix("file://"))
    )
    tokens = torch.arange(5, 69).reshape(2, 32)
    with torch.no_grad():
        plain = base(tokens).logits
        expected = peft.PeftModel.from_pretrained(base, adapter)(tokens).logits
        found = merged(tokens).logits
    assert (found - expected).norm() < 2**-7 * expected.norm()
    assert (plain - expected).norm() > 2**-2 * expected.norm()


def test_runs_of_the_steps_are_kept(executed: list[Any]) -> None:
    (pipeline,) = cli("list")
    assert pipeline["state"] == "succeeded"
    assert [step["state"] for step in pipeline["steps"]] == ["succeeded"] * 4
    assert cli("list", "--deployments") == []
