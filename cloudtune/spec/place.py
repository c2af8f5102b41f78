"""Where a job runs, as far as all places agree; and this machine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from cloudtune.spec.fields import nested, setting

if TYPE_CHECKING:
    from typing_extensions import Self


@attrs.frozen(kw_only=True)
class Accelerator:
    """What a shape has, for a shape that the catalogue does not know (or knows wrong)."""

    name: str | None = setting("Name of the accelerator, e.g. `A10`.")
    count: int = setting("Accelerators a node.", default=0, minimum=0)
    memory_in_gb: float | None = setting("Memory of one accelerator in GB.", key="memoryInGB", minimum=0)
    neuron_cores: int = setting("Logical Neuron cores a node.", default=0, minimum=0)
    efa_interfaces: int = setting("EFA interfaces a node.", default=0, minimum=0)


@attrs.frozen(kw_only=True)
class Infrastructure:
    """What every infrastructure has."""

    type: ClassVar[str] = ""

    staging_uri: str | None = setting("Where an uploaded workspace goes when the service has no place of its own.")
    overrides: Mapping[str, Any] = setting(
        "`{STEP_ID: {...}}`: a JSON Merge Patch on that step's request for what the spec does not name.", default={}
    )
    accelerator: Accelerator | None = setting(
        "What a node of a shape has that the catalogue does not know.", of=Accelerator
    )

    def with_staging_uri(self, staging_uri: str | None) -> "Self":
        """Where an uploaded workspace goes when the service has no place of its own."""
        return attrs.evolve(self, staging_uri=staging_uri)

    def with_overrides(self, overrides: Mapping[str, Any]) -> "Self":
        """`{STEP_ID: {...}}`: a JSON Merge Patch on that step's request for what the spec does not name."""
        return attrs.evolve(self, overrides=overrides)

    def with_accelerator(self, accelerator: Accelerator | None = None, **keys: Any) -> "Self":
        """What a node has, for a shape that the catalogue does not know: an `Accelerator` or its keywords."""
        return attrs.evolve(self, accelerator=nested(Accelerator, keys) if keys else accelerator)


@attrs.frozen(kw_only=True)
class LocalJob(Infrastructure):
    """This machine: every replica is a node of its own, with a process, a folder and a loopback address."""

    type: ClassVar[str] = "local"

    python: str | None = setting("Python interpreter of the nodes; default: the one that runs cloudtune.")

    def with_python(self, python: str | None) -> "Self":
        """Python interpreter of the nodes; default: the one that runs cloudtune."""
        return attrs.evolve(self, python=python)
