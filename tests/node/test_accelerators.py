from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudtune.node import accelerators
from cloudtune.node.accelerators import Found, judge

NVIDIA = """\
GPU 0: NVIDIA A10 (UUID: GPU-1)
  MIG 1g.6gb Device 0: (UUID: MIG-1)
GPU 1: NVIDIA A10 (UUID: GPU-2)
"""


def test_what_the_tools_print() -> None:
    assert accelerators.parse_nvidia_smi(NVIDIA) == (2, "NVIDIA A10")
    assert accelerators.parse_nvidia_smi("No devices were found\n") == (0, None)
    devices = [{"neuron_device": number, "nc_count": 2} for number in range(16)]
    assert accelerators.parse_neuron_ls(json.dumps(devices)) == (32, "Neuron core")
    assert accelerators.parse_neuron_ls("no json") == (0, None)


def tool(folder: Path, name: str, text: str, code: int = 0) -> None:
    (folder / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
    (folder / name).chmod(0o755)


def test_the_tool_of_the_plans_kind_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool(tmp_path, "nvidia-smi", NVIDIA)
    tool(tmp_path, "neuron-ls", '[{"nc_count": 8}]')
    assert accelerators.look("A10") == accelerators.look(None) == Found(2, "NVIDIA A10", "nvidia-smi -L")
    assert accelerators.look("Trainium2") == Found(8, "Neuron core", "neuron-ls -j")


def test_without_tools_the_device_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = accelerators.look("A10")
    assert found.source == "/dev/nvidia* (no nvidia-smi)"
    tool(tmp_path, "nvidia-smi", "driver mismatch", code=18)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert accelerators.look("A10").source == "/dev/nvidia* (no nvidia-smi)"


@pytest.mark.parametrize(
    ("found", "accelerator", "expected", "processes", "error", "warning"),
    [
        (Found(0, None, "x"), None, 0, 4, None, None),
        (Found(2, "NVIDIA A10", "x"), "A10", 2, 2, None, None),
        (Found(1, "NVIDIA A10", "x"), "A10", 2, 2, "starts 2 processes on 2 A10 a node, but this one shows 1", None),
        (Found(0, None, "x"), "A10", 1, 1, "shows 0", None),
        (Found(1, "NVIDIA A10", "x"), "A10", 2, 1, None, "counts on 2 A10 a node, this one shows 1"),
        (Found(1, "NVIDIA A10", "x"), "A10", 1, 4, None, None),
        (Found(8, "NVIDIA A10", "x"), "A10", 2, 2, None, "this one shows 8"),
        (Found(2, "NVIDIA H100 80GB HBM3", "x"), "H100", 2, 2, None, None),
        (Found(2, "NVIDIA A100-SXM4-80GB", "x"), "A100-80GB", 2, 2, None, None),
        (Found(2, "NVIDIA A100-SXM4-40GB", "x"), "A10", 2, 2, None, "this node has NVIDIA A100-SXM4-40GB"),
        (Found(2, "Tesla V100-SXM2-16GB", "x"), "V100", 2, 2, None, None),
        (Found(16, None, "/dev/neuron* (no neuron-ls)"), "Trainium", 32, 32, None, None),
        (Found(0, None, "/dev/neuron* (no neuron-ls)"), "Trainium", 32, 32, "shows none", None),
        (Found(8, "Neuron core", "neuron-ls -j"), "Trainium", 32, 32, "shows 8", None),
    ],
)
def test_the_plan_is_compared_with_what_is_there(
    found: Found, accelerator: str | None, expected: int, processes: int, error: str | None, warning: str | None
) -> None:
    said = judge(found, accelerator=accelerator, expected=expected, processes=processes)
    for words, wanted in zip(said, (error, warning), strict=True):
        assert (words is None) == (wanted is None), words
        if wanted is not None:
            assert wanted in str(words)


@pytest.mark.parametrize(("device", "none"), [("null", True), ("nvidiactl", True), ("kfd", False), ("nvidia0", False)])
def test_a_node_without_any_accelerator(
    device: str, none: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / device).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(accelerators, "find_nvidia", lambda: Found(0, None, "nvidia-smi -L"))
    assert accelerators.none_at_all(tmp_path) is none
    monkeypatch.setattr(accelerators, "find_nvidia", lambda: Found(1, "NVIDIA A10", "nvidia-smi -L"))
    assert not accelerators.none_at_all(tmp_path)
