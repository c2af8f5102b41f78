"""Runtimes for a command over many nodes: PyTorch on GPUs or CPUs, and Neuron cores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from cloudtune.spec.fields import freeze, setting
from cloudtune.spec.runtime import GitSource
from cloudtune.spec.scripts import PythonRuntime

if TYPE_CHECKING:
    from typing_extensions import Self


@attrs.frozen(kw_only=True)
class PyTorchDistributedRuntime(PythonRuntime):
    """A command over several nodes: torchrun, accelerate, deepspeed or any other launcher."""

    type: ClassVar[str] = "pyTorchDistributed"

    git: GitSource | None = setting("Code from a git repository.", of=GitSource)
    command: str | tuple[str, ...] | None = setting(
        "A string is a shell line run by `sh -c` on every node; a list is an exact argv."
    )
    deepspeed: bool | None = setting("The command is DeepSpeed's launcher, although its first word is another.")

    def with_git(
        self,
        url: str | GitSource | None,
        branch: str | None = None,
        commit: str | None = None,
        secret_ocid: str | None = None,
    ) -> "Self":
        """Code from a git repository: its URL, branch or commit, and the secret with the SSH key."""
        if isinstance(url, str):
            url = GitSource(url=url, branch=branch or None, commit=commit or None, git_secret_id=secret_ocid or None)
        return attrs.evolve(self, git=url)

    def with_command(self, command: str | Sequence[str] | None, use_deepspeed: bool = False) -> "Self":
        """A shell line, or an exact argv as a list; `use_deepspeed` where its first word does not say so."""
        return attrs.evolve(self, command=freeze(command), deepspeed=True if use_deepspeed else self.deepspeed)

    def with_deepspeed(self, deepspeed: bool | None) -> "Self":
        """The command is DeepSpeed's launcher, although its first word is another."""
        return attrs.evolve(self, deepspeed=deepspeed)


@attrs.frozen(kw_only=True)
class NeuronDistributedRuntime(PyTorchDistributedRuntime):
    """A command over the Neuron cores of Trainium nodes."""

    type: ClassVar[str] = "neuronDistributed"

    tensor_parallel_size: int = setting("Tensor parallel degree.", default=1, minimum=1)
    pipeline_parallel_size: int = setting("Pipeline parallel degree.", default=1, minimum=1)
    mode: str = setting(
        "`xla` (torch-neuronx, optimum-neuron) or `torchNeuron` (native PyTorch device).",
        default="xla",
        choices=("xla", "torchNeuron"),
    )
    compile_cache_uri: str | None = setting("Where compiled graphs are kept between runs.")
    precompile: bool | None = setting("Run `neuron_parallel_compile` before training (mode xla).")
    precompile_only: bool | None = setting("Run it and end before training: the graphs are in `compileCacheUri`.")

    def with_tensor_parallel_size(self, tensor_parallel_size: int) -> "Self":
        """Tensor parallel degree."""
        return attrs.evolve(self, tensor_parallel_size=tensor_parallel_size)

    def with_pipeline_parallel_size(self, pipeline_parallel_size: int) -> "Self":
        """Pipeline parallel degree."""
        return attrs.evolve(self, pipeline_parallel_size=pipeline_parallel_size)

    def with_mode(self, mode: str) -> "Self":
        """`xla` (torch-neuronx, optimum-neuron) or `torchNeuron` (native PyTorch device)."""
        return attrs.evolve(self, mode=mode)

    def with_compile_cache_uri(self, compile_cache_uri: str | None) -> "Self":
        """Where compiled graphs are kept between runs."""
        return attrs.evolve(self, compile_cache_uri=compile_cache_uri)

    def with_precompile(self, precompile: bool | None) -> "Self":
        """Run `neuron_parallel_compile` before training (mode xla)."""
        return attrs.evolve(self, precompile=precompile)

    def with_precompile_only(self, precompile_only: bool | None) -> "Self":
        """Run it and end before training: the graphs are in `compileCacheUri`."""
        return attrs.evolve(self, precompile_only=precompile_only)
