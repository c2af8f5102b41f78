from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.node import launchers
from cloudtune.node.launchers import Paths
from cloudtune.node.order import Order, parse_order
from cloudtune.node.ranks import Place

PATHS = Paths("/env/bin/python", ("/env/bin",), "/run/tools", "/run/work", "/run/work", "/run/outputs")


def order(**changes: Any) -> Order:
    data = {"runId": "r1", "command": "torchrun train.py", "launcher": "torchrun", "nodes": 2, "processesPerNode": 4}
    return parse_order({**data, **changes})


def variables(of: Order, place: Place, surroundings: dict[str, str] | None = None, **secrets: str) -> dict[str, str]:
    return launchers.environment(of, place, PATHS, surroundings=surroundings or {}, secrets=secrets)


PLACE = Place("local", 1, 2, "127.0.0.2", 4000, "127.0.0.3", "lo")


def test_accelerate_trains_together_where_there_are_processors_alone() -> None:
    def found(of: Order, **more: bool) -> str | None:
        return launchers.environment(of, PLACE, PATHS, surroundings={}, secrets={}, **more).get("ACCELERATE_USE_CPU")

    assert found(order()) is None
    assert found(order(), on_processors=True) == "true"
    assert found(order(environment={"ACCELERATE_USE_CPU": "false"}), on_processors=True) == "false"


def test_torchrun_is_told_by_variables_in_its_static_form() -> None:
    found = variables(order(rendezvousTimeoutInSeconds=77), PLACE)
    assert {name: value for name, value in found.items() if name.startswith("PET_")} == {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "4",
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "127.0.0.2",
        "PET_MASTER_PORT": "4000",
        "PET_LOCAL_ADDR": "127.0.0.3",
        "PET_RDZV_CONF": "timeout=77,join_timeout=77,read_timeout=77",
    }
    assert found["GLOO_SOCKET_IFNAME"] == found["NCCL_SOCKET_IFNAME"] == "lo"
    assert "RANK" not in found
    assert "WORLD_SIZE" not in found


def test_every_process_sees_the_contract() -> None:
    found = variables(order(), PLACE)
    assert {name: value for name, value in found.items() if name.startswith("CLOUDTUNE_")} == {
        "CLOUDTUNE_RUN_ID": "r1",
        "CLOUDTUNE_NODE_RANK": "1",
        "CLOUDTUNE_NUM_NODES": "2",
        "CLOUDTUNE_PROCESSES_PER_NODE": "4",
        "CLOUDTUNE_MAIN_ADDR": "127.0.0.2",
        "CLOUDTUNE_MAIN_PORT": "4000",
        "CLOUDTUNE_OUTPUT_DIR": "/run/outputs",
    }


def test_the_users_variables_beat_every_default_but_not_the_contract() -> None:
    chosen = {"PET_RDZV_CONF": "timeout=5", "NCCL_SOCKET_IFNAME": "eth7", "CLOUDTUNE_NODE_RANK": "9"}
    found = variables(order(environment=chosen), PLACE, {"PET_RDZV_CONF": "old", "HOME": "/h"})
    assert (found["PET_RDZV_CONF"], found["NCCL_SOCKET_IFNAME"], found["HOME"]) == ("timeout=5", "eth7", "/h")
    assert found["CLOUDTUNE_NODE_RANK"] == "1"


def test_secrets_reach_the_command_and_the_agents_own_variables_do_not() -> None:
    private = dict.fromkeys(launchers.PRIVATE, "1")
    found = variables(order(), PLACE, {**private, "KEPT": "yes"}, HF_TOKEN="value")
    assert (found["HF_TOKEN"], found["KEPT"]) == ("value", "yes")
    assert not set(private) & set(found)


def test_an_operators_empty_standalone_flag_is_dropped() -> None:
    assert "PET_STANDALONE" not in variables(order(), PLACE, {"PET_STANDALONE": ""})
    assert variables(order(), PLACE, {"PET_STANDALONE": "1"})["PET_STANDALONE"] == "1"


def test_a_plain_program_of_one_process_a_node_is_a_rank() -> None:
    found = variables(order(launcher="command", processesPerNode=1), PLACE)
    assert {name: found[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "NODE_RANK")} == {
        "RANK": "1",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.2",
        "NODE_RANK": "1",
    }


def test_a_plain_program_that_starts_its_own_ranks_is_none() -> None:
    found = variables(order(launcher="command"), PLACE)
    assert found["WORLD_SIZE"] == "8"
    assert "RANK" not in found


def test_a_program_alone_is_not_made_distributed() -> None:
    alone = order(launcher="command", nodes=1, processesPerNode=1)
    found = variables(alone, Place("single", 0, 1, "127.0.0.1"))
    assert "LOCAL_RANK" not in found
    assert "GLOO_SOCKET_IFNAME" not in found


@given(st.integers(1, 40), st.integers(1, 16))
def test_the_ranks_of_plain_programs_cover_the_world_once(nodes: int, processes: int) -> None:
    of = order(launcher="command", nodes=nodes, processesPerNode=processes)
    found = [variables(of, Place("local", rank, nodes, "127.0.0.2")) for rank in range(nodes)]
    assert {one["WORLD_SIZE"] for one in found} == {str(nodes * processes)}
    if processes == 1:
        assert sorted(int(one["RANK"]) for one in found) == list(range(nodes))
    assert sorted(int(one["PET_NODE_RANK"]) for one in found) == list(range(nodes))


def test_neuron_jobs_get_torchruns_variables_and_their_own() -> None:
    neuron = {"tensorParallelSize": 8, "pipelineParallelSize": 2, "compileCacheUri": "s3://b/cache"}
    found = variables(order(launcher="neuron", neuron=neuron), PLACE)
    assert found["PET_NPROC_PER_NODE"] == "4"
    assert found["NEURON_COMPILE_CACHE_URL"] == "s3://b/cache"
    assert (found["CLOUDTUNE_TENSOR_PARALLEL_SIZE"], found["CLOUDTUNE_PIPELINE_PARALLEL_SIZE"]) == ("8", "2")


@pytest.mark.parametrize(
    ("neuron", "compiles"),
    [
        ({"precompile": True, "mode": "xla"}, True),
        ({"precompile": True}, True),
        ({"precompile": True, "mode": "torchNeuron"}, False),
        ({}, False),
    ],
)
def test_only_xla_jobs_compile_first(neuron: dict[str, Any], compiles: bool) -> None:
    line = launchers.precompile_line(order(launcher="neuron", neuron=neuron), python="py", archive="a.pyz")
    expected = ["neuron_parallel_compile", "/bin/sh", "-c", "torchrun train.py"] if compiles else None
    assert line == expected


def test_lines_go_to_the_shell_and_lists_are_exact() -> None:
    def line(command: object) -> list[str]:
        return launchers.command_line(order(command=command), python="py", archive="a.pyz")

    assert line("torchrun a.py && echo $X") == ["/bin/sh", "-c", "torchrun a.py && echo $X"]
    assert line(["python", "a b.py", "$X"]) == ["python", "a b.py", "$X"]
    assert line(["@agent", "call", "f.py", "main"]) == ["py", "a.pyz", "call", "f.py", "main"]


def test_tools_come_first_on_the_path_and_system_folders_keep_their_order() -> None:
    path = variables(order(), PLACE, {"PATH": "/usr/local/bin:/usr/bin:/env/bin:/bin"})["PATH"]
    assert path == "/run/tools:/env/bin:/usr/local/bin:/usr/bin:/bin"
    system = PATHS._replace(scripts=("/usr/bin",))
    found = launchers.environment(order(), PLACE, system, surroundings={"PATH": "/a:/usr/bin"}, secrets={})
    assert found["PATH"] == "/run/tools:/a:/usr/bin"


def test_the_python_path_starts_at_the_working_folder_and_ends_with_the_inherited() -> None:
    paths = PATHS._replace(working="/run/work/sub")
    of = order(pythonPath=["src", "/abs"], environment={"PYTHONPATH": "/mine"})
    found = launchers.environment(of, PLACE, paths, surroundings={}, secrets={})
    assert found["PYTHONPATH"] == "/run/work/sub/src:/abs:/run/work/sub:/run/work:/mine"
    assert "PYTHONPATH" not in variables(order(), PLACE)


CONTRACT = {
    "CLOUDTUNE_NODE_RANK": "1",
    "CLOUDTUNE_NUM_NODES": "2",
    "CLOUDTUNE_PROCESSES_PER_NODE": "4",
    "CLOUDTUNE_MAIN_ADDR": "10.0.0.1",
    "CLOUDTUNE_MAIN_PORT": "4000",
}


def accelerate(*words: str, has_config: bool = False, **changes: str) -> list[str]:
    return launchers.accelerate_arguments(list(words), {**CONTRACT, **changes}, has_config=has_config)


def test_accelerate_gets_the_place_by_flags_before_the_users() -> None:
    found = accelerate("--num_processes", "2", "train.py", "--cpu", PET_RDZV_CONF="timeout=9")
    assert found == [
        *("--num_machines", "2", "--num_processes", "8", "--machine_rank", "1"),
        *("--main_process_ip", "10.0.0.1", "--main_process_port", "4000", "--same_network"),
        *("--rdzv_conf", "timeout=9", "--multi_gpu", "--num_processes", "2", "train.py", "--cpu"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("--use_fsdp", "train.py"),
        ("--mixed_precision", "bf16", "--use_deepspeed", "train.py"),
        ("--config_file", "fsdp.yaml", "train.py"),
        ("--config_file=fsdp.yaml", "train.py"),
        ("--cpu", "train.py"),
        ("-m", "--multi_gpu", "package.train"),
        ("--use-fsdp", "train.py"),
        ("--config-file", "fsdp.yaml", "train.py"),
        ("--use_xpu", "--cpu", "train"),
    ],
)
def test_accelerates_kind_of_training_is_the_users(words: tuple[str, ...]) -> None:
    assert accelerate(*words).count("--multi_gpu") == words.count("--multi_gpu")


@pytest.mark.parametrize(
    "words", [("train.py", "--use_fsdp"), ("--mixed_precision", "--cpu", "train.py"), ("-m", "a.b")]
)
def test_what_is_no_flag_of_accelerate_is_not_taken_for_one(words: tuple[str, ...]) -> None:
    assert "--multi_gpu" in accelerate(*words)


def test_accelerate_alone_or_with_a_config_is_left_to_itself() -> None:
    assert "--multi_gpu" not in accelerate("train.py", has_config=True)
    one = accelerate("train.py", CLOUDTUNE_NUM_NODES="1", CLOUDTUNE_PROCESSES_PER_NODE="1", CLOUDTUNE_NODE_RANK="0")
    assert "--multi_gpu" not in one
    assert "--same_network" not in one


def test_deepspeed_needs_no_ssh() -> None:
    found = launchers.deepspeed_arguments(["train.py", "-i", "x"], CONTRACT, hostfile="/t/hosts")
    assert found == [
        *("--no_ssh", "--hostfile", "/t/hosts", "--node_rank", "1"),
        *("--master_addr", "10.0.0.1", "--master_port", "4000", "train.py", "-i", "x"),
    ]
    assert launchers.hostfile_text(CONTRACT) == "node-0 slots=4\nnode-1 slots=4\n"


def test_deepspeed_on_one_node_takes_its_gpus_or_the_users_choice() -> None:
    alone = {**CONTRACT, "CLOUDTUNE_NUM_NODES": "1"}
    found = launchers.deepspeed_arguments(["train.py"], alone, hostfile="")
    assert found == ["--master_port", "4000", "--num_gpus", "4", "train.py"]
    chosen = launchers.deepspeed_arguments(["--include", "localhost:1", "train.py"], alone, hostfile="")
    assert "--num_gpus" not in chosen
    chosen = launchers.deepspeed_arguments(["--elastic_training", "-i", "localhost:1", "train"], alone, hostfile="")
    assert "--num_gpus" not in chosen
