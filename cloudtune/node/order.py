"""The order: what a node is told to do, read from JSON and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cloudtune.node.errors import NodeError

LAUNCHERS = ("torchrun", "accelerate", "deepspeed", "neuron", "command")


class Order(NamedTuple):
    """One job, the same on every node. ``command`` is a shell line (str) or an exact argv (tuple).

    An argv that begins with ``@agent`` runs this agent with the arguments that follow. ``output_uri_open`` is False for
    a URI in which a dollar sign is no more than that.
    """

    run_id: str
    command: str | tuple[str, ...]
    name: str = ""
    nodes: int = 1
    processes_per_node: int = 1
    accelerators_per_node: int = 0
    accelerator: str | None = None
    launcher: str = "command"
    environment: Mapping[str, str] = {}
    inherited: tuple[str, ...] = ()
    secrets: Mapping[str, str] = {}
    code: Mapping[str, Any] | None = None
    working_dir: str | None = None
    python_path: tuple[str, ...] = ()
    pip_packages: str = ""
    pip_requirements: str = ""
    inputs: Mapping[str, str] = {}
    output_dir: str | None = None
    output_uri: str | None = None
    output_uri_open: bool = True
    output_layout: str = "perNode"
    rendezvous_timeout_s: float = 600.0
    maximum_runtime_s: float | None = None
    grace_s: float = 30.0
    neuron: Mapping[str, Any] = {}

    @property
    def world_size(self) -> int:
        """Processes in the whole job."""
        return self.nodes * self.processes_per_node


def parse_order(data: Mapping[str, Any]) -> Order:
    """Return the order of a JSON object; raises NodeError for one that this agent cannot carry out."""
    try:
        command = data["command"]
        outputs = data.get("outputs") or {}
        dependencies = data.get("dependencies") or {}
        order = Order(
            run_id=str(data["runId"]),
            command=command if isinstance(command, str) else tuple(str(word) for word in command),
            name=str(data.get("name") or data["runId"]),
            nodes=int(data.get("nodes") or 1),
            processes_per_node=int(data.get("processesPerNode") or 1),
            accelerators_per_node=int(data.get("acceleratorsPerNode") or 0),
            accelerator=data.get("accelerator"),
            launcher=data.get("launcher") or "command",
            environment={str(name): str(value) for name, value in (data.get("environment") or {}).items()},
            inherited=tuple(data.get("inherited") or ()),
            secrets=dict(data.get("secrets") or {}),
            code=data.get("code"),
            working_dir=data.get("workingDir") or None,
            python_path=tuple(data.get("pythonPath") or ()),
            pip_packages=dependencies.get("pipPackages") or "",
            pip_requirements=dependencies.get("pipRequirements") or "",
            inputs=dict(data.get("inputs") or {}),
            output_dir=outputs.get("dir") or None,
            output_uri=outputs.get("uri") or None,
            output_uri_open=bool(outputs.get("expand", True)),
            output_layout=outputs.get("layout") or "perNode",
            rendezvous_timeout_s=float(data.get("rendezvousTimeoutInSeconds") or 600),
            maximum_runtime_s=float(data["maximumRuntimeInSeconds"]) if data.get("maximumRuntimeInSeconds") else None,
            grace_s=float(data["graceInSeconds"]) if data.get("graceInSeconds") is not None else 30.0,
            neuron=dict(data.get("neuron") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NodeError(f"the order is not one that this agent understands: {type(error).__name__}: {error}") from error
    if order.launcher not in LAUNCHERS:
        raise NodeError(f"the order names launcher {order.launcher!r}; this agent knows {', '.join(LAUNCHERS)}")
    if not order.command:
        raise NodeError("the order has an empty command")
    return order


def read_order(path: Path) -> Order:
    """Return the order in a file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NodeError(f"cannot read the order {path}: {error.strerror}") from error
    except ValueError as error:
        raise NodeError(f"the order {path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise NodeError(f"the order {path} is not a JSON object")
    return parse_order(data)
