"""replicas x shape -> nodes, processes, launcher and environment (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Launch:
    """What starts on every node; ranks and addresses are filled in on the node itself.

    ``command`` is a shell line (str) or an exact argv (tuple). ``launcher`` is one of ``torchrun``, ``accelerate``,
    ``deepspeed``, ``neuron`` (torchrun over Neuron cores) and ``command`` (anything else).
    ``environment`` is the same on every node and holds no secrets.
    """

    nodes: int
    processes_per_node: int
    accelerator: str | None
    accelerators_per_node: int
    launcher: str
    command: str | tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def world_size(self) -> int:
        """Processes in the whole job."""
        return self.nodes * self.processes_per_node

    def to_dict(self) -> dict[str, Any]:
        """Return the launch as the plan's JSON shows it."""
        command = self.command if isinstance(self.command, str) else shlex.join(self.command)
        return {
            "nodes": self.nodes,
            "processesPerNode": self.processes_per_node,
            "worldSize": self.world_size,
            "accelerator": self.accelerator,
            "command": command,
            "environment": dict(self.environment),
        }
