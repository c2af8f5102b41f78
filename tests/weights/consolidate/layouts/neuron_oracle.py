"""Consolidates checkpoints with optimum-neuron's own code, in an environment that has it, but no Neuron stack.

    PYTHON neuron_oracle.py CHECKPOINT OUTPUT [CHECKPOINT OUTPUT ..]

Release 0.2.0 reads the metadata of earlier ones, too; it is used where it is installed.

For each pair one line of JSON goes to stdout: ``{"error": null}``, or what optimum-neuron raised. Its code runs as it
is. Only what it imports and does not have is stood in for: modules of torch_xla, torch_neuronx, neuronx_distributed
and libneuronxla come into being when they are asked for, and the three things that consolidation really uses of them
are given: a class to subclass, torch_xla's references, and the walk that replaces them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

STOOD_IN_FOR = ("torch_xla", "torch_neuronx", "neuronx_distributed", "libneuronxla", "neuronxcc")


class Anything(type):
    """A class with every attribute, each of them such a class."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        # used as a decorator it changes nothing
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else super().__call__()


class StandIn(types.ModuleType):
    """A module that has whatever is imported from it."""

    __version__ = "2.8.0"
    __path__: list[str] = []  # noqa: RUF012 - what makes it a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = Anything(name, (), {"__module__": self.__name__})
        setattr(self, name, value)
        return value


class TensorReference:
    """What torch_xla leaves in place of a tensor that is in a file of its own."""

    tid: int


TensorReference.__module__ = "torch_xla.utils.serialization"


class ToXlaTensorArena:
    """Replaces what is selected in nested containers, all at once."""

    def __init__(self, convert: Callable[[list[Any]], list[Any]], select: Callable[[Any], bool]) -> None:
        self.convert, self.select = convert, select

    def transform(self, inputs: Any) -> Any:
        found: list[Any] = []
        self._walk(inputs, found.append)
        made = iter(self.convert(found))
        return self._walk(inputs, lambda _: next(made))

    def _walk(self, value: Any, change: Callable[[Any], Any]) -> Any:
        if self.select(value):
            return change(value)
        if isinstance(value, dict):
            return {name: self._walk(one, change) for name, one in value.items()}
        return [self._walk(one, change) for one in value] if isinstance(value, (list, tuple)) else value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that are stood in for."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name.partition(".")[0] in STOOD_IN_FOR:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = StandIn(spec.name)
        if spec.name == "torch_xla.utils.serialization":
            module.TensorReference = TensorReference  # type: ignore[attr-defined]
        if spec.name == "torch_xla.core.xla_model":
            module.ToXlaTensorArena = ToXlaTensorArena  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is to be done."""


def main(pairs: Sequence[str]) -> None:
    sys.meta_path.insert(0, Finder())
    out, sys.stdout = sys.stdout, sys.stderr
    # what torch did by default when those earlier releases were written; the files are our own
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    import torch

    try:
        from optimum.neuron.distributed import checkpointing
    except ImportError:
        from optimum.neuron.models.training import checkpointing

    torch.set_num_threads(1)
    for checkpoint, output in zip(pairs[::2], pairs[1::2], strict=True):
        error = None
        try:
            checkpointing.consolidate_model_parallel_checkpoints_to_unified_checkpoint(checkpoint, output)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is told
            error = f"{type(raised).__name__}: {raised}"
        print(json.dumps({"error": error}), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
