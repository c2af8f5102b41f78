"""The processes of a job: which one this is, what all of them see, and how they part."""

import atexit
import os
import sys
import uuid
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import distributed

RANK = int(os.environ.get("RANK", "0"))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))


def say(text: str) -> None:
    """Print a line on the first rank of the job only."""
    if RANK == 0:
        print(text, flush=True)


def device_kind() -> str:
    """Return the kind of device that this process computes on: cuda, xpu, mps, ..., or cpu."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = accelerator.type if accelerator is not None else "cpu"
    return "cpu" if kind == "mps" and WORLD_SIZE > 1 else kind


def sharding_in_use(model: Any) -> tuple[int, int, int]:
    """Return the number of sharded tensors, and of parameters on this rank and in the whole model."""
    tensors, local, total = 0, 0, 0
    for parameter in model.parameters():
        total += parameter.numel()
        shard = getattr(parameter, "to_local", None)
        if shard is None:
            local += parameter.numel()
        else:
            tensors += 1
            local += shard().numel()
    return tensors, local, total


def is_shared(folder: Path) -> bool:
    """Return whether all ranks of the job see the same folder; every rank must call it."""
    if WORLD_SIZE == 1:
        return True
    names = [uuid.uuid4().hex]
    distributed.broadcast_object_list(names, src=0)
    mark = folder / f".shared-{names[0]}"
    if RANK == 0:
        mark.touch()
    distributed.barrier()
    seen: list[bool] = [False] * WORLD_SIZE
    distributed.all_gather_object(seen, mark.exists())
    distributed.barrier()
    if RANK == 0:
        mark.unlink()
    return all(seen)


def tear_down(*, failed: bool) -> None:
    """Leave the process group, so that no rank ends while another still waits for it.

    After a failure NCCL is left alone: ending it waits for the ranks that did not fail.
    """
    if (
        distributed.is_available()
        and distributed.is_initialized()
        and not (failed and distributed.get_backend() == "nccl")
    ):
        distributed.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process with an exit code; one of several without taking the interpreter down.

    A thread of Gloo may still have to free a tensor, as long as anything refers to its group (a device mesh in some
    cache). Where the interpreter is gone by then, that aborts the process, though all is saved: pytorch#179291.
    """
    if WORLD_SIZE > 1:
        atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does where it ends processes alike
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def nodes() -> int:
    """Return the number of nodes of the job."""
    return int(os.environ.get("CLOUDTUNE_NUM_NODES") or os.environ.get("GROUP_WORLD_SIZE") or 1)
