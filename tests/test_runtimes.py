"""The images that jobs run in, as far as they can be tested without building them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.deployments import oci_request

ROOT = Path(__file__).parents[1]
CPU, VLLM = ROOT / "runtimes" / "torch-cpu", ROOT / "runtimes" / "vllm"


def test_the_image_installs_what_is_pinned():
    text = (CPU / "Dockerfile").read_text()
    (listed,) = re.findall(r"constraints\.txt \\\n +([a-z0-9\- ]+)\n", text)
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(listed.split()) <= pinned
    assert {"torch", "transformers", "trl", "peft"} <= set(listed.split())


def test_the_image_copies_files_that_exist():
    for source in re.findall(r"^COPY (\S+) ", (CPU / "Dockerfile").read_text(), re.MULTILINE):
        assert (ROOT / source).is_file()


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


@pytest.mark.heavy
def test_the_smoke_test_passes_here():
    script = str(CPU / "smoke_test.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "meets over torchrun" in done.stdout
