"""Compares the accelerators that a node has with those that the plan counts on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_TIMEOUT_S = 60
#: Device files of accelerators that PyTorch has a backend for: NVIDIA (also in WSL), AMD, Neuron, Gaudi, Ascend.
_DEVICES = ("nvidia[0-9]*", "nvgpu*", "dxg", "kfd", "neuron[0-9]*", "accel*", "hl[0-9]*", "davinci[0-9]*")


class Found(NamedTuple):
    """Accelerators of a node: how many, the name that their tool gives them, and what was looked at."""

    number: int
    name: str | None
    source: str


def is_neuron(accelerator: str | None) -> bool:
    """Whether an accelerator of that name is AWS's own: Trainium or Inferentia."""
    return re.search(r"train|infer|neuron|trn|inf\d", accelerator or "", re.IGNORECASE) is not None


def parse_nvidia_smi(text: str) -> tuple[int, str | None]:
    """Return count and name of ``nvidia-smi -L``: lines such as ``GPU 0: NVIDIA A10 (UUID: ...)``."""
    names = re.findall(r"^GPU \d+: (.+?)(?: \(UUID:.*)?$", text, re.MULTILINE)
    return len(names), names[0] if names else None


def parse_neuron_ls(text: str) -> tuple[int, str | None]:
    """Return the number of Neuron cores of ``neuron-ls -j``."""
    try:
        devices = json.loads(text)
    except ValueError:
        return 0, None
    if isinstance(devices, dict):
        devices = devices.get("mlas") or devices.get("devices") or []
    return sum(int(device.get("nc_count", 0)) for device in devices if isinstance(device, dict)), "Neuron core"


def find_nvidia() -> Found:
    """Count NVIDIA GPUs by the driver's tool, else by the device files."""
    text = _output(["nvidia-smi", "-L"])
    if text is not None:
        count, name = parse_nvidia_smi(text)
        return Found(count, name, "nvidia-smi -L")
    devices = [path for path in Path("/dev").glob("nvidia*") if path.name[len("nvidia") :].isdigit()]
    return Found(len(devices), None, "/dev/nvidia* (no nvidia-smi)")


def find_neuron() -> Found:
    """Count Neuron cores by the driver's tool, else Neuron devices (of several cores each) by the device files."""
    text = _output(["neuron-ls", "-j"])
    if text is not None:
        count, name = parse_neuron_ls(text)
        return Found(count, name, "neuron-ls -j")
    devices = [path for path in Path("/dev").glob("neuron*") if path.name[len("neuron") :].isdigit()]
    return Found(len(devices), None, "/dev/neuron* (no neuron-ls)")


def find_amd() -> Found:
    """Count AMD GPUs by their render nodes."""
    return Found(len(list(Path("/dev/dri").glob("renderD*"))), None, "/dev/dri/renderD*")


def look(accelerator: str | None) -> Found:
    """Look for accelerators of the kind that the plan names."""
    if is_neuron(accelerator):
        return find_neuron()
    if accelerator and re.match(r"(?:AMD|MI\d)", accelerator, re.IGNORECASE):
        return find_amd()
    return find_nvidia()


def none_at_all(devices: Path = Path("/dev")) -> bool:
    """Whether a node has nothing to train on but its processors, whatever the plan knows of it."""
    return not any(any(devices.glob(pattern)) for pattern in _DEVICES) and find_nvidia().number == 0


def judge(found: Found, *, accelerator: str | None, expected: int, processes: int) -> tuple[str | None, str | None]:
    """Return ``(error, warning)`` for a node that should have ``expected`` accelerators for so many processes."""
    what = accelerator or "accelerator"
    if expected == 0:
        return None, None
    if is_neuron(accelerator) and "/dev/" in found.source:
        # device files count chips, the plan counts cores: only their absence says something
        if found.number == 0:
            return f"the plan counts on {expected} {what} a node, but this one shows none ({found.source})", None
        return None, None
    if found.number < min(expected, processes):
        return (
            f"the plan starts {processes} processes on {expected} {what} a node, but this one shows {found.number} "
            f"({found.source}): check the shape, the driver and the container's access to the devices"
        ), None
    if found.number != expected:
        return None, f"the plan counts on {expected} {what} a node, this one shows {found.number} ({found.source})"
    if accelerator and found.name and not is_neuron(accelerator) and not _alike(accelerator, found.name):
        return None, f"the plan counts on {what}, this node has {found.name}"
    return None, None


def _alike(planned: str, found: str) -> bool:
    """Whether every word of the plan's name with a digit in it is part of the tool's name: A100 of A100-SXM4-80GB."""
    words = re.split(r"[\s\-_]+", planned)
    models = [word for word in words if re.search(r"\d", word) and not word.upper().endswith("GB")]
    return all(re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![0-9])", found, re.IGNORECASE) for word in models)


def _output(command: Sequence[str]) -> str | None:
    """Return what a tool prints, None if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
