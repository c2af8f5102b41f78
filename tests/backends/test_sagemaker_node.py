"""What the wire says, carried out: the container's entrypoint in a room that looks like a SageMaker node."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune import jobs
from cloudtune.errors import UsageError
from cloudtune.plan import Plan
from cloudtune.rehearsal.isolation import isolation
from cloudtune.rehearsal.logs import Log
from cloudtune.rehearsal.nodes import End, Node
from cloudtune.rehearsal.runner import Nodes
from cloudtune.spec.infrastructure import SageMakerTrainingJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Runtime, ScriptRuntime
from cloudtune.workspace import pack

PLACE = SageMakerTrainingJob(
    region="us-west-2",
    role_arn="arn:aws:iam::123456789012:role/trainer",
    instance_type="ml.m5.xlarge",
    image="image:1",
    output_path="s3://bucket/out",
    inputs=[{"channel": "train", "uri": "s3://bucket/train"}],  # type: ignore[arg-type]
)
#: Writes its own words and a variable, as bytes in hex, to where the service takes the model from.
TELL = """
import json, os, sys
words = {"argv": [os.fsencode(word).hex() for word in sys.argv[1:]], "env": os.environb.get(b"VALUE", b"").hex()}
words["facts"] = {name: value for name, value in os.environ.items() if name.startswith(("SM_", "CLOUDTUNE_"))}
with open(os.environ["CLOUDTUNE_OUTPUT_DIR"] + "/told.json", "w") as file:
    json.dump(words, file)
"""
#: Words that a shell, a reader of options or a reader of JSON would take for something else.
TRAPS = (
    *("", " ", "  two  spaces ", "'", '"', "\\", "\\\\n", "$HOME", "$(echo x)", "`id`", ";", "&&", "|", ">", "*", "~"),
    *(
        "-",
        "--",
        "-c",
        "--nnodes=9",
        "@agent",
        "1.10",
        "2e-4",
        "null",
        "True",
        "{}",
        "[1, 2]",
        "a=b",
        "\n",
        "\t",
        "\r\n",
    ),
    *("héllo", "日本語", "😀", "\u2028", "\ufeff", "a" * 5000, "${masked:X}", "${step.field}", "#", "!", "%s", "\x7f"),
)
#: What a spec takes for text: no NUL, and nothing that is no text.
WORDS = st.one_of(st.sampled_from(TRAPS), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Return what runs nodes; where namespaces are not allowed, these tests skip and say what this machine said."""
    try:
        isolation()
    except UsageError as error:
        pytest.skip(str(error))
    with Nodes() as running:
        yield running


def run(nodes: Nodes, runtime: Runtime, folder: Path) -> tuple[End, dict[str, Any], list[str]]:
    """Bring what a plan sends to a node, as the service would, and start the container."""
    plan = jobs.plan_job(JobSpec(name="j", infrastructure=PLACE, runtime=runtime), "abcdefgh")
    ml, request = folder / "ml", plan.steps[-1].parameters
    for name in ("input/config", "input/data/train", "model", "output"):
        (ml / name).mkdir(parents=True)
    deliver(plan, ml / "input" / "data")
    hosts = {"hosts": ["algo-1"], "current_host": "algo-1", "network_interface_name": "lo"}
    (ml / "input" / "config" / "resourceconfig.json").write_text(json.dumps(hosts))
    algorithm, log = request["AlgorithmSpecification"], Log()
    node = Node(
        name="algo-1",
        folder=folder / "node",
        command=(*algorithm["ContainerEntrypoint"], *algorithm["ContainerArguments"]),
        environment=request["Environment"],
        binds={"/opt/ml": ml},
    )
    end = nodes.start(node, log.append).wait(60)
    assert end is not None
    told = ml / "model" / "told.json"
    return end, json.loads(told.read_text()) if told.exists() else {}, [line.text for line in log.read()]


def deliver(plan: Plan, data: Path) -> None:
    """Put the objects of a plan where its channel of a job has them."""
    (data / "cloudtune").mkdir()
    for step in plan.steps[:-1]:
        target = data / "cloudtune" / step.parameters["Key"].rpartition("/")[2]
        if target.name == "code.tar.gz":
            pack([attrs.evolve(file, path=file.path.removeprefix("code/")) for file in step.files], target)
        else:
            target.write_bytes(step.files[0].content or b"")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(WORDS, max_size=30), value=WORDS)
def test_an_argv_arrives_byte_for_byte(
    nodes: Nodes, tmp_path_factory: pytest.TempPathFactory, words: list[str], value: str
) -> None:
    runtime = PyTorchDistributedRuntime(command=("python3", "-c", TELL, *TRAPS, *words), env={"VALUE": value})
    end, told, lines = run(nodes, runtime, tmp_path_factory.mktemp("node"))
    assert end.code == 0, lines
    assert told["argv"] == [os.fsencode(word).hex() for word in (*TRAPS, *words)]
    assert bytes.fromhex(told["env"]) == os.fsencode(value)


def test_a_script_finds_what_sagemaker_scripts_look_for(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(TELL)
    runtime = ScriptRuntime(script_path_uri=str(tmp_path / "src"), entrypoint="a.py", args=("b c",))
    end, told, lines = run(nodes, runtime, tmp_path / "one")
    assert end.code == 0, lines
    assert told["argv"] == [b"b c".hex()]
    facts = {
        "SM_MODEL_DIR": "/opt/ml/model",
        "SM_OUTPUT_DATA_DIR": "/opt/ml/output/data",
        "SM_CHANNELS": '["train"]',
        "SM_CHANNEL_TRAIN": "/opt/ml/input/data/train",
        "SM_NUM_GPUS": "0",
        "CLOUDTUNE_OUTPUT_DIR": "/opt/ml/model",
        "CLOUDTUNE_RUN_ID": "abcdefgh",
        "CLOUDTUNE_NODE_RANK": "0",
        "CLOUDTUNE_NUM_NODES": "1",
    }
    assert facts.items() <= told["facts"].items()


def test_a_failure_is_in_the_file_that_the_service_reads(nodes: Nodes, tmp_path: Path) -> None:
    runtime = PyTorchDistributedRuntime(command=("python3", "-c", "import sys; sys.exit('no data')"))
    end, _, _ = run(nodes, runtime, tmp_path)
    assert end.code == 1
    assert "exit code 1" in (tmp_path / "ml" / "output" / "failure").read_text()
    assert sys.executable not in (tmp_path / "ml" / "output" / "failure").read_text()
