"""What commands say of their training."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune.errors import UsageError
from cloudtune.memory.commands import told

LLAMA_RECIPES = "torchrun examples/finetuning.py --enable_fsdp --model_name meta-llama/Llama-2-13b-hf"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            f"{LLAMA_RECIPES} --use_peft --peft_method lora --pure_bf16 --mixed_precision --batch_size_training 4",
            {"method": "lora", "dtype": "bf16", "sharding": "fsdp", "batch_size": 4, "sequence_length": 4096},
        ),
        (LLAMA_RECIPES, {"method": "full", "dtype": "mixed", "loss": "whole", "gradient_checkpointing": True}),
        (f"{LLAMA_RECIPES} --use_peft --quantization 4bit", {"method": "qlora"}),
        (f"{LLAMA_RECIPES} --use_peft False --context_length=2048", {"method": "full", "sequence_length": 2048}),
        (f"{LLAMA_RECIPES} --hsdp --fsdp_cpu_offload False", {"sharding": "fsdp-hybrid"}),
        (
            "torchrun run_clm.py --model_name_or_path gpt2 --do_train --bf16 --block_size 512 --tensor_parallel_size 2",
            {"method": "full", "dtype": "mixed", "sequence_length": 512, "tensor_parallel": 2, "batch_size": 8},
        ),
        (
            "python train.py --model_id x/y --use_lora --lora_r 64 --optim paged_adamw_8bit --gradient-checkpointing",
            {"method": "lora", "lora_rank": 64, "optimizer": "paged_adamw_8bit", "gradient_checkpointing": True},
        ),
        ("accelerate launch sft.py --model_name_or_path x/y --load_in_4bit --use_peft", {"method": "qlora"}),
        ("python train.py --model_id x/y --use_peft=false --torch_dtype bfloat16", {"method": "full", "dtype": "bf16"}),
    ],
)
def test_flags_say_how_it_trains(command: str, expected: dict[str, Any]) -> None:
    found = told(command, {}).training
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize("given", ["²", "0", "9" * 5000, "-1", "many"])
def test_what_is_no_size_says_nothing(given: str) -> None:
    line = "torchrun run_clm.py --model_name_or_path gpt2"
    flags = ("block_size", "tp_size", "lora_r", "train_batch_size")
    assert told(line + "".join(f" --{flag}={given}" for flag in flags), {}) == told(line, {})


def test_variables_of_the_job_are_filled_in() -> None:
    line = "torchrun llama_finetuning.py --pure_bf16 --model_name $MODEL_NAME --lr ${RATE}"
    assert told(line, {"MODEL_NAME": "meta-llama/Llama-2-7b-hf"}).model == "meta-llama/Llama-2-7b-hf"
    with pytest.raises(UsageError, match=r"--model_name is .MODEL_NAME, which is not known here"):
        told(line, {"RATE": "1"})


def test_a_list_is_as_good_as_a_line() -> None:
    words = ["torchrun", "recipes/finetuning.py", "--model_name", "x/y z", "--batching_strategy", "padding"]
    found = told(words, {})
    assert (found.model, found.packed, found.known) == ("x/y z", False, True)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("torchrun train.py", "which model"),
        ("torchrun train.py --model_name x/y", "whole model or an adapter"),
        ("torchrun train.py --model_name x/y --use_peft --peft_method prefix", "whole model or an adapter"),
        ("torchrun train.py --model_name x/y --use_lora --deepspeed ds.json", "--deepspeed"),
        (f"{LLAMA_RECIPES} --fsdp_cpu_offload", "--fsdp_cpu_offload"),
        ('torchrun finetuning.py --model_name "x', "cannot be read"),
    ],
)
def test_what_is_not_said_is_not_guessed(command: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        told(command, {})
