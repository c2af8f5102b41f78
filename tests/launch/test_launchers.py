import pytest

from cloudtune.launch.launchers import Seen, counts, doubts, look
from cloudtune.node.flags import SWITCHES


@pytest.mark.parametrize(
    ("command", "launcher"),
    [
        ("torchrun train.py", "torchrun"),
        ("/opt/conda/bin/torchrun train.py", "torchrun"),
        ("OMP_NUM_THREADS=4 NAME='a b' torchrun train.py", "torchrun"),
        ("env -u LANG A=b exec torchrun train.py", "torchrun"),
        ("time -p torchrun train.py", "torchrun"),
        ("timeout -k 5 3600 torchrun train.py", "torchrun"),
        ("uv run --with peft torchrun train.py", "torchrun"),
        ("cd examples && torchrun train.py", "torchrun"),
        ("set -e\nexport A=1\ntorchrun train.py", "torchrun"),
        ("if [ -d x ]; then torchrun train.py; fi", "torchrun"),
        ("pip install -U peft; torchrun \\\n train.py 2>&1 | tee log", "torchrun"),
        ("python -m torch.distributed.run train.py", "torchrun"),
        ("/usr/bin/python3.11 -u -m torch.distributed.launch train.py", "torchrun"),
        ("neuron_parallel_compile torchrun train.py", "torchrun"),
        ("bash -lc 'cd x && torchrun train.py'", "torchrun"),
        (("torchrun", "train.py"), "torchrun"),
        (("bash", "-c", "torchrun train.py"), "torchrun"),
        ("accelerate launch train.py", "accelerate"),
        ("/venv/bin/accelerate launch train.py", "accelerate"),
        ("accelerate-launch train.py", "accelerate"),
        ("python -m accelerate.commands.launch train.py", "accelerate"),
        ("python3 -m accelerate launch train.py", "accelerate"),
        ("deepspeed train.py --deepspeed ds.json", "deepspeed"),
        ("python -m deepspeed.launcher.runner train.py", "deepspeed"),
        ("accelerate config", "command"),
        ("python train.py", "command"),
        ("python train.py -m torch.distributed.run", "command"),
        ("echo torchrun train.py", "command"),
        ("# torchrun was here\npython train.py", "command"),
        ("bash run.sh", "command"),
        ("bash run.sh -c torchrun", "command"),
        ("echo 'unclosed; torchrun", "command"),
        ("", "command"),
        ((), "command"),
        (("my torchrun", "x"), "command"),
    ],
)
def test_the_launcher_of_a_command(command: str | tuple[str, ...], launcher: str) -> None:
    assert look(command).launcher == launcher


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("torchrun --nproc_per_node 8 --nnodes=2 train.py --nnodes 3", {"nproc_per_node": "8", "nnodes": "2"}),
        ("torchrun --nproc-per-node=8 train.py", {"nproc_per_node": "8"}),
        ("torchrun --standalone -m pkg.train --nnodes 3", {"standalone": "", "m": ""}),
        ("torchrun --nproc_per_node $N train.py", {"nproc_per_node": "$N"}),
        ("torchrun --some_new_switch train.py --nnodes 3", {"some_new_switch": ""}),
        ("torchrun -- train.py --nnodes 3", {}),
        ("torchrun --nnodes", {"nnodes": ""}),
        (
            "accelerate launch --multi_gpu --num_processes 8 --mixed-precision bf16 train.py --num_machines 9",
            {"multi_gpu": "", "num_processes": "8", "mixed_precision": "bf16"},
        ),
        ("deepspeed --no_ssh --num_gpus=4 train.py --num_gpus 1", {"no_ssh": "", "num_gpus": "4"}),
    ],
)
def test_options_end_where_the_script_begins(command: str, options: dict[str, str]) -> None:
    assert look(command).options == options


@pytest.mark.parametrize(
    ("launcher", "module", "parser"),
    [
        ("torchrun", "torch.distributed.run", "get_args_parser"),
        ("accelerate", "accelerate.commands.launch", "launch_command_parser"),
    ],
)
def test_the_switches_are_those_of_the_launchers_that_are_installed(launcher: str, module: str, parser: str) -> None:
    actions = getattr(pytest.importorskip(module), parser)()._actions
    own = {name.lstrip("-").replace("-", "_") for each in actions if each.nargs == 0 for name in each.option_strings}
    valued = {name.lstrip("-").replace("-", "_") for each in actions if each.nargs != 0 for name in each.option_strings}
    assert own <= SWITCHES[launcher]
    assert not valued & SWITCHES[launcher]


@pytest.mark.parametrize(
    ("launcher", "options", "expected", "notes"),
    [
        ("torchrun", {}, (2, 4), 0),
        ("torchrun", {"nnodes": "2", "nproc_per_node": "4"}, (2, 4), 0),
        ("torchrun", {"nproc_per_node": "8"}, (2, 8), 1),
        ("torchrun", {"nnode": "3"}, (3, 4), 1),
        ("torchrun", {"nnodes": "1:4", "nproc_per_node": "auto"}, (2, 4), 2),
        ("torchrun", {"nnodes": "0", "nproc_per_node": "٣"}, (2, 4), 2),
        ("accelerate", {"num_processes": "8"}, (2, 4), 0),
        ("accelerate", {"num_processes": "16"}, (2, 8), 1),
        ("accelerate", {"num_machines": "4", "num_processes": "16"}, (4, 4), 1),
        ("accelerate", {"num_processes": "7"}, (2, 4), 1),
        ("deepspeed", {"num_nodes": "1", "num_gpus": "2"}, (1, 2), 2),
        ("command", {"nnodes": "9"}, (2, 4), 0),
    ],
)
def test_a_users_flag_wins(launcher: str, options: dict[str, str], expected: tuple[int, int], notes: int) -> None:
    nodes, processes, told = counts(Seen(launcher, options), 2, 4)
    assert ((nodes, processes), len(told)) == (expected, notes)
    assert all("wins" in note for note in told)


def test_flags_that_cannot_be_right_on_several_nodes() -> None:
    seen = look("torchrun --standalone --node-rank 0 train.py")
    assert len(list(doubts(seen, 2))) == 2
    assert list(doubts(seen, 1)) == []
    assert list(doubts(look("torchrun --node_rank $RANK train.py"), 2)) == []
