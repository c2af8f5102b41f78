"""The images that jobs run in, as far as they can be tested without building them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cloudtune.backends.sagemaker_images import NEURON as NEURON_PROCESSOR
from cloudtune.backends.sagemaker_images import image_uri
from cloudtune.deployments import oci_request
from cloudtune.spec.sagemaker import Framework

ROOT = Path(__file__).parents[1]
CPU, VLLM = ROOT / "runtimes" / "torch-cpu", ROOT / "runtimes" / "vllm"
NEURON, ORACLE = ROOT / "runtimes" / "torch-neuron", os.environ.get("CLOUDTUNE_NEURON_PYTHON")


def test_the_image_installs_what_is_pinned():
    text = (CPU / "Dockerfile").read_text()
    (listed,) = re.findall(r"constraints\.txt \\\n +([a-z0-9\- ]+)\n", text)
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(listed.split()) <= pinned
    assert {"torch", "transformers", "trl", "peft"} <= set(listed.split())


def test_the_image_copies_files_that_exist():
    for source in re.findall(r"^COPY (\S+) ", (CPU / "Dockerfile").read_text(), re.MULTILINE):
        assert (ROOT / source).is_file()


def test_the_image_of_cloudtune_has_what_its_build_reads():
    text = (ROOT / "runtimes" / "cloudtune" / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.+) /opt/\S+$", text, re.MULTILINE) for name in line.split()}
    project = (ROOT / "pyproject.toml").read_text()
    assert all((ROOT / name).exists() for name in copied)
    assert {
        "cloudtune",
        "pyproject.toml",
        *re.findall(r'^(?:readme|license-files) = \[?"(.+?)"', project, re.MULTILINE),
    } <= copied
    (extras,) = re.findall(r"\[([a-z,]+)\]", text)
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras.split(","))


def test_the_server_takes_what_deployments_give_it():
    text = (VLLM / "Dockerfile").read_text()
    (version,) = re.findall(r"^ARG VLLM_VERSION=(\S+)\nFROM \S+:v\$\{VLLM_VERSION\}$", text, re.MULTILINE)
    assert f"({version})" in (VLLM / "README.md").read_text()
    (entrypoint, cmd) = (
        json.loads(re.findall(rf"^{word} (.+)$", text, re.MULTILINE)[0]) for word in ("ENTRYPOINT", "CMD")
    )
    assert entrypoint[:2] == ["python3", "-m"]
    assert cmd == ["--model", oci_request.MODEL, "--host", "0.0.0.0", "--port", str(oci_request.PORT)]
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (VLLM / source).is_file()


def test_the_image_for_trainium_is_one_of_the_table_with_what_is_pinned():
    text = (NEURON / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    framework = Framework(name="huggingface", version="2.7.0", transformers_version="4.55.4")
    known = image_uri(framework, region="us-west-2", processor=NEURON_PROCESSOR)
    (registry,) = re.findall(r"^ARG REGISTRY=(\S+)$", text, re.MULTILINE)
    assert f"{registry}/{base}" == known
    (copied,) = re.findall(r"^COPY (.+) /opt/$", text, re.MULTILINE)
    assert all((NEURON / name).is_file() for name in copied.split())


@pytest.mark.skipif(ORACLE is None, reason="CLOUDTUNE_NEURON_PYTHON names no Python with optimum-neuron")
def test_the_pins_for_trainium_are_optimum_neurons_own():
    code = "import importlib.metadata as m; print(*m.requires('optimum-neuron'), sep='\\n')"
    lines = subprocess.run([str(ORACLE), "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    asked = [Requirement(line) for line in lines]
    extras = [{"extra": "neuronx"}, {"extra": "training"}]
    wanted = {one.name: one.specifier for one in asked if not one.marker or any(map(one.marker.evaluate, extras))}
    rows = [line for line in (NEURON / "requirements.txt").read_text().splitlines() if "==" in line]
    pinned = dict(row.split("==") for row in rows)
    assert {"torch-neuronx", "trl", "peft"} <= set(pinned) & set(wanted)
    assert not [name for name in set(pinned) & set(wanted) if not wanted[name].contains(pinned[name])]
    script = [str(ORACLE), str(NEURON / "smoke_test.py"), "--no-stack"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "has the pinned packages\n"), done.stderr


@pytest.mark.heavy
def test_the_smoke_test_passes_here():
    script = str(CPU / "smoke_test.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "meets over torchrun" in done.stdout
