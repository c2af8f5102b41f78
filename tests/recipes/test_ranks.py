"""How a training script ends."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.recipes.modules import RECIPES

pytest.importorskip("torch", reason="PyTorch is not installed")

SCRIPT = """
import atexit, sys
sys.path.insert(0, sys.argv[1])
from ranks import leave
class Kept:
    def __del__(self):
        print("freed", flush=True)
kept = Kept()
atexit.register(print, "registered")
sys.stdout.write("said ")
leave(7)
"""


@pytest.mark.parametrize(("world", "said"), [("2", "said registered\n"), ("1", "said registered\nfreed\n")])
def test_one_process_of_several_ends_before_the_interpreter_is_taken_down(world: str, said: str) -> None:
    """A thread of Gloo may still have to free a tensor, which aborts the process once the interpreter is gone."""
    ended = tiny.python("-c", SCRIPT, RECIPES / "sft", WORLD_SIZE=world)
    assert (ended.returncode, ended.stdout) == (7, said)
