"""How plans are shown: what would be sent, and who has to be there for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.calling import call


def planned(folder: Path, kind: str) -> list[str]:
    """Return the lines that a dry run prints of a pipeline of two steps on a cluster."""
    step = {"runtime": {"type": "pyTorchDistributed", "spec": {"command": "true", "processesPerNode": 1}}}
    place = {"type": "eksJob", "spec": {"context": "c", "image": "i:1", "namespace": "team-a", "jobKind": kind}}
    steps = [{"name": name, "job": step} for name in ("train", "whole")]
    file = folder / "chain.yaml"
    file.write_text(
        json.dumps({"kind": "pipeline", "spec": {"name": "chain", "infrastructure": place, "steps": steps}})
    )
    done = call("run", "-f", str(file), "--dry-run")
    assert done.code == 0, done.err
    return done.out.splitlines()


def test_a_chain_says_that_nobody_has_to_lead_it(tmp_path: Path) -> None:
    lines = planned(tmp_path, "jobSet")
    assert "one JobSet of 2 steps: once it is submitted, this machine may be off" in lines
    rows = [line.split() for line in lines[lines.index("steps:") + 1 :]]
    assert [row[:4] for row in rows[:3]] == [
        ["job", "kubernetes", "create", "JobSet"],
        ["train.files", "kubernetes", "create", "ConfigMap"],
        ["whole.files", "kubernetes", "create", "ConfigMap"],
    ]


@pytest.mark.parametrize("kind", ["job", "pyTorchJob"])
def test_steps_that_are_led_from_here_do_not(tmp_path: Path, kind: str) -> None:
    assert not [line for line in planned(tmp_path, kind) if "may be off" in line]
