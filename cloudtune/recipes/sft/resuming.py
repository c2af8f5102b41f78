"""Which checkpoint a training goes on from, agreed upon by all its processes, and how one that was saved is closed."""

import os
import uuid
from pathlib import Path

from checkpoints import doubts, look, look_at, order_by_age, write_list
from faults import RecipeError
from flags import called
from ranks import LOCAL_RANK, RANK, WORLD_SIZE, nodes, say
from torch import distributed

CHECKPOINTS = "checkpoints"
NODE = int(os.environ.get("CLOUDTUNE_NODE_RANK") or os.environ.get("GROUP_RANK") or 0)


def checkpoint_folder(output_dir: str) -> Path:
    """Return where checkpoints go: a folder that outlives interruptions where the place has one, else the outputs'."""
    kept = os.environ.get("CLOUDTUNE_CHECKPOINT_DIR")
    return Path(kept) if kept else Path(output_dir) / CHECKPOINTS


def close(checkpoint: Path, *, apart: bool) -> None:
    """Write the list of a checkpoint's files when every rank has written its own; every rank must call it.

    ``apart``: the nodes share no folder, so each writes a list of its own.
    """
    marks = [uuid.uuid4().hex]
    if distributed.is_initialized():
        distributed.broadcast_object_list(marks, src=0)
        distributed.barrier()
    if LOCAL_RANK == 0 if apart else RANK == 0:
        number, expected = (NODE, nodes()) if apart else (0, 1)
        write_list(checkpoint, mark=marks[0], number=number, expected=expected)


def chosen_checkpoint(resume: str, output_dir: str) -> Path | None:
    """Return the checkpoint that ``resume`` asks for, the same on all ranks, or None; every rank must call it."""
    if resume == "never":
        return None
    return _newest_whole(checkpoint_folder(output_dir)) if resume == "auto" else _named(Path(resume))


def _named(path: Path) -> Path:
    """Return a checkpoint that was asked for; one of another trainer has no list of its files."""
    if fault := look_at(path).fault:
        raise RecipeError(
            f"{called('resume', path)}: no whole checkpoint there: {fault}\n"
            f"  hint: {called('resume', 'auto')} takes the newest one"
        )
    return path


def _newest_whole(folder: Path) -> Path | None:
    """Return the newest checkpoint that is whole; says why newer ones are not."""
    here = look(folder)
    everywhere = [here] * WORLD_SIZE
    if WORLD_SIZE > 1:
        distributed.all_gather_object(everywhere, here)
    doubted = doubts(everywhere)
    whole = [step for step, why in doubted.items() if not why]
    for step, why in sorted(doubted.items(), reverse=True):
        if why and step > max(whole, default=-1):
            say(f"resume: checkpoint-{step} is left out, it is not whole: {why}")
    if doubted and not whole:
        say("resume: no checkpoint is whole; starting anew")
    if LOCAL_RANK == 0:
        order_by_age(folder, (*(step for step, why in doubted.items() if why and step in here), *whole))
    return folder / f"checkpoint-{whole[-1]}" if whole else None
