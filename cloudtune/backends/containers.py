"""What a container that runs as given cannot have, in whatever cloud: the agent does it, and there is none in it."""

from __future__ import annotations

from collections.abc import Iterator

from cloudtune.spec.runtime import Runtime

#: Keys of a runtime that the agent carries out, by attribute.
AGENTS_WORK = {
    "inputs": "inputs",
    "output_dir": "outputDir",
    "output_uri": "outputUri",
    "dependencies": "dependencies",
    "recipe": "recipe",
    "processes_per_node": "processesPerNode",
    "script_path_uri": "scriptPathURI",
}


def agents_work(runtime: Runtime, *, but: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield the paths of what a runtime asks of the agent, and why it cannot be; ``but`` are allowed attributes."""
    for attribute, key in AGENTS_WORK.items():
        if attribute not in but and getattr(runtime, attribute, None):
            reason = "needs the agent, and a container runs as given without it: leave it out, or use another runtime"
            yield f"spec.runtime.spec.{key}", reason
