"""A launcher's own options: those before the training script, as the plan and the node must read them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Options without a value, without dashes and with ``_`` for ``-``; every other option takes the next word.
#: torch 2.13, accelerate 1.15 and deepspeed 0.19 have these, and older releases of theirs.
SWITCHES: Mapping[str, frozenset[str]] = {
    "torchrun": frozenset(
        "h help standalone m module no_python run_path virtual_local_rank use_env".split()  # noqa: SIM905
    ),
    "accelerate": frozenset(
        (  # noqa: SIM905
            "h help quiet q cpu multi_gpu tpu enable_cpu_affinity dynamo_use_fullgraph dynamo_use_dynamic "
            "dynamo_use_regional_compilation use_deepspeed use_fsdp use_parallelism_config use_megatron_lm use_xpu "
            "same_network m module no_python tpu_cluster no_tpu_cluster tpu_use_sudo downcast_bf16 "
            "fp8_use_autocast_during_eval debug"
        ).split()
    ),
    "deepspeed": frozenset(
        (  # noqa: SIM905
            "h help q quiet force_multi save_pid module no_python no_local_rank no_ssh no_ssh_check elastic_training "
            "bind_cores_to_rank"
        ).split()
    ),
}


def own_options(words: Sequence[str], switches: frozenset[str]) -> dict[str, str]:
    """Return the options before the script, without dashes and with ``_`` for ``-``; "" for one without a value.

    A word that ends in .py is the script, whatever stands before it.
    """
    options: dict[str, str] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("-") or word == "--":
            break
        key, equals, value = word.partition("=")
        key = key.lstrip("-").replace("-", "_")
        following = words[position] if position < len(words) else ""
        if not equals and key not in switches and not following.endswith(".py"):
            value = following
            position += 1
        options[key] = value
    return options
