from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudtune.node.errors import NodeError
from cloudtune.node.order import parse_order, read_order


def test_a_short_order_has_defaults_and_a_full_one_is_read() -> None:
    short = parse_order({"runId": "r", "command": "true"})
    assert (short.nodes, short.launcher, short.grace_s, short.output_uri, short.world_size) == (
        1,
        "command",
        30.0,
        None,
        1,
    )
    full = parse_order(
        {
            "runId": "r",
            "command": ["a", "b"],
            "nodes": 2,
            "processesPerNode": 4,
            "outputs": {"dir": "out", "uri": "s3://b/o", "layout": "shared"},
            "dependencies": {"pipPackages": "a b", "pipRequirements": None},
            "graceInSeconds": 0,
            "maximumRuntimeInSeconds": 60,
            "neuron": None,
        }
    )
    assert full.command == ("a", "b")
    assert (full.output_dir, full.output_uri, full.output_layout) == ("out", "s3://b/o", "shared")
    assert (full.pip_packages, full.pip_requirements, full.grace_s, full.maximum_runtime_s) == ("a b", "", 0.0, 60.0)
    assert full.world_size == 8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"command": "x"}, "runId"),
        ({"runId": "r"}, "command"),
        ({"runId": "r", "command": []}, "empty command"),
        ({"runId": "r", "command": "x", "nodes": "two"}, "not one that this agent understands"),
        ({"runId": "r", "command": "x", "launcher": "mpirun"}, "launcher 'mpirun'; this agent knows torchrun"),
        ({"runId": "r", "command": "x", "environment": ["A"]}, "not one that this agent understands"),
    ],
)
def test_an_order_that_cannot_be_carried_out_says_why(data: dict[str, Any], message: str) -> None:
    with pytest.raises(NodeError, match=message):
        parse_order(data)


def test_a_file_that_is_no_order(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="cannot read the order"):
        read_order(tmp_path / "none.json")
    for text, message in (("{", "is not JSON"), ("[]", "is not a JSON object")):
        (tmp_path / "order.json").write_text(text)
        with pytest.raises(NodeError, match=message):
            read_order(tmp_path / "order.json")
    (tmp_path / "order.json").write_text(json.dumps({"runId": "r", "command": "x"}))
    assert read_order(tmp_path / "order.json").command == "x"
