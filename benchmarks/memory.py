"""Estimated and measured memory of training steps on the CPU: ``python benchmarks/memory.py``.

Real steps of small models by transformers and PEFT. Measured is what PyTorch's CPU allocator hands out
(torch.profiler, ``profile_memory=True``): what is left of building the model and two steps, for states exist then, and
the highest sum of allocations and releases in the third. Estimated is what
``cloudtune estimate`` says without the constant for the process itself. ``--sharded`` adds steps of two processes under
DistributedDataParallel and FSDP2 over gloo, ``--quantized`` QLoRA, which needs bitsandbytes; what a quantized model
holds is summed up from its tensors there, for threads load it and the profiler does not see what they release.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cloudtune.memory.estimate import estimate
from cloudtune.memory.families import architecture
from cloudtune.memory.training import Training

_SMALL = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 4096}
#: Configs by name; widths in the proportions of the real ones.
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "hidden_size": 384, "intermediate_size": 1024, **_SMALL},
    "llama-tied": {"model_type": "llama", "hidden_size": 256, "intermediate_size": 704, **_SMALL}
    | {"tie_word_embeddings": True, "vocab_size": 8192},
    "llama-wide": {"model_type": "llama", "hidden_size": 512, "intermediate_size": 1408, **_SMALL}
    | {"vocab_size": 2048, "num_hidden_layers": 6},
    "qwen3": {"model_type": "qwen3", "hidden_size": 256, "intermediate_size": 768, "head_dim": 64, **_SMALL},
    "gemma2": {"model_type": "gemma2", "hidden_size": 256, "intermediate_size": 1024, "head_dim": 64, **_SMALL},
    "phi3": {"model_type": "phi3", "hidden_size": 384, "intermediate_size": 1024, "pad_token_id": 0, **_SMALL},
    "gpt2": {"model_type": "gpt2", "n_embd": 384, "n_layer": 4, "n_head": 8, "vocab_size": 4096, "n_positions": 512},
    "mixtral": {"model_type": "mixtral", "hidden_size": 256, "intermediate_size": 512, **_SMALL}
    | {"num_local_experts": 4, "num_experts_per_tok": 2},
}


class Case(NamedTuple):
    """A model and how it is trained."""

    model: str
    training: Training

    @property
    def name(self) -> str:
        """The case in one line."""
        one = self.training
        words = [self.model, one.method, one.dtype, f"{one.batch_size} x {one.sequence_length}"]
        words += ["recomputed"] if one.gradient_checkpointing else []
        words += [] if one.fused_attention else ["eager"]
        words += [one.optimizer] if one.optimizer != "adamw_torch" else []
        words += ["chunked"] if one.loss == "chunked" else []
        words += [f"{one.sharding if one.sharding != 'none' else 'ddp'} x {one.world}"] if one.world > 1 else []
        return " ".join(words)


def case(model: str, **options: Any) -> Case:
    """Return a case: on the CPU, with whole logits and without checkpointing unless the options say else."""
    settings = {"method": "full", "dtype": "fp32", "batch_size": 4, "sequence_length": 256, "loss": "whole"}
    settings |= {"gradient_checkpointing": False, "lora_dropout": 0.0, "accelerator": False}
    return Case(model, Training(**{**settings, **options}))


CASES = (
    case("llama"),
    case("llama", dtype="bf16"),
    case("llama", dtype="mixed"),
    case("llama", gradient_checkpointing=True),
    case("llama", dtype="mixed", gradient_checkpointing=True),
    case("llama", batch_size=1, sequence_length=64),
    case("llama", batch_size=1, sequence_length=64, optimizer="sgd"),
    case("llama", batch_size=2, sequence_length=512),
    case("llama", fused_attention=False),
    case("llama", method="lora"),
    case("llama", method="lora", dtype="mixed", lora_dropout=0.05),
    case("llama", method="lora", dtype="mixed", lora_dropout=0.05, gradient_checkpointing=True),
    case("llama", method="lora", dtype="bf16", lora_rank=64, targets=("q_proj", "v_proj")),
    case("llama", loss="chunked"),
    case("llama", method="lora", dtype="mixed", loss="chunked", gradient_checkpointing=True),
    case("llama-tied", batch_size=1, sequence_length=128),
    case("llama-tied", dtype="mixed", sequence_length=512, gradient_checkpointing=True),
    case("llama-wide"),
    case("llama-wide", dtype="mixed"),
    case("llama-wide", method="lora", dtype="mixed"),
    case("qwen3"),
    case("qwen3", method="lora", dtype="mixed", gradient_checkpointing=True),
    case("gemma2", fused_attention=False),
    case("phi3"),
    case("phi3", dtype="bf16"),
    case("gpt2"),
    case("gpt2", dtype="mixed"),
    case("mixtral"),
    case("mixtral", method="lora", dtype="bf16"),
)
QUANTIZED = (
    case("llama-wide", method="qlora", dtype="mixed"),
    case("llama-wide", method="qlora", dtype="mixed", gradient_checkpointing=True),
    case("llama", method="qlora", dtype="mixed", gradient_checkpointing=True),
)
SHARDED = (
    case("llama", nodes=1, processes_per_node=2, batch_size=2),
    case("llama-wide", sharding="fsdp", processes_per_node=2, batch_size=2),
    case("llama-wide", sharding="fsdp", dtype="mixed", processes_per_node=2, gradient_checkpointing=True),
    case("llama-wide", sharding="fsdp-grad-op", processes_per_node=2, batch_size=2),
)


def estimated(one: Case) -> float:
    """Return the estimate of the training itself, in bytes."""
    found = estimate(architecture(MODELS[one.model]), one.training)
    return found.total - found.terms["context"]


def build(one: Case) -> Any:
    """Return the model as the case trains it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    training = one.training
    kernel = "sdpa" if training.fused_attention else "eager"
    settings = dict(MODELS[one.model])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=kernel)
    if training.dtype == "bf16" or (training.dtype == "mixed" and training.method != "full"):
        model = model.bfloat16()
    if training.loss == "chunked":
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(model)
    if training.method == "qlora":
        model = _quantized(model)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if training.method != "full":
        from peft import LoraConfig, get_peft_model

        targets = "all-linear" if training.targets == ("all-linear",) else list(training.targets)
        adapter = LoraConfig(
            r=training.lora_rank, lora_dropout=training.lora_dropout, target_modules=targets, task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, adapter)
        if training.dtype == "bf16":
            model = model.to(torch.bfloat16)
        for parameter in model.parameters():
            if training.method == "qlora" and parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()  # as TRL does
        model.enable_input_require_grads()
    return model.train()


def _quantized(model: Any) -> Any:
    """Return a model in NF4 with double quantization, as recipe sft loads it."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16,
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=settings)


def tensors_of(model: Any, optimizer: Any) -> int:
    """Return the bytes of all parameters, their scales, buffers and states, each storage once."""
    import torch

    found = [*model.parameters(), *model.buffers()]
    found += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    for scales in (one.quant_state for one in model.parameters() if getattr(one, "quant_state", None)):
        found += [scales.absmax, scales.code, scales.offset, scales.state2.absmax, scales.state2.code]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in found}.values())


def optimizer_of(one: Case, model: Any) -> Any:
    """Return the optimizer of a case."""
    import torch

    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if one.training.optimizer == "sgd":
        return torch.optim.SGD(learning, lr=1e-4)
    return torch.optim.AdamW(learning, lr=1e-4)


def stepper(one: Case, model: Any, optimizer: Any) -> Callable[[], None]:
    """Return a function that carries out one step."""
    import torch

    training = one.training
    shape = (training.batch_size, training.sequence_length)
    ids = torch.randint(0, architecture(MODELS[one.model]).vocabulary, shape)
    mixed = training.dtype == "mixed" and not training.is_fsdp
    more = {"fused_lm_head": True} if training.loss == "chunked" else {}

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext():
            out = model(input_ids=ids, labels=ids, use_cache=False, **more)
            loss = -out.log_probs.mean() if training.loss == "chunked" else out.loss
            del out
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def allocations(work: Callable[[], Any]) -> tuple[Any, int, int]:
    """Return a call's result, what it left allocated on the CPU, and the highest sum of allocations and releases."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return result, now, peak


def third_step(one: Case, prepare: Callable[[], tuple[Any, Any]]) -> float:
    """Return the peak of the third step, in bytes: what is held before it, and what it adds at most."""

    def begin() -> tuple[Any, Any, Callable[[], None]]:
        model, optimizer = prepare()
        step = stepper(one, model, optimizer)
        step()
        step()
        return model, optimizer, step

    (model, optimizer, step), held, _ = allocations(begin)
    if one.training.method == "qlora":
        held = tensors_of(model, optimizer)
    _, _, added = allocations(step)
    return held + added


def measured(one: Case) -> float:
    """Return the peak of a step, in bytes."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)

    def prepare() -> tuple[Any, Any]:
        model = build(one)
        return model, optimizer_of(one, model)

    return third_step(one, prepare)


def measured_sharded(one: Case) -> float:
    """Return the peak of a step of one of several processes, in bytes."""
    import torch.multiprocessing as processes

    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(_rank, args=(one, folder), nprocs=one.training.world)
        return float(Path(folder, "peak").read_text())


def _rank(rank: int, one: Case, folder: str) -> None:
    import torch
    import torch.distributed as dist

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=one.training.world)
    peak = third_step(one, lambda: _wrapped(one))
    if rank == 0:
        Path(folder, "peak").write_text(str(peak))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # a thread of Gloo may outlive its group, and aborts where Python is going: pytorch#179291


def _wrapped(one: Case) -> tuple[Any, Any]:
    """Return a model under DistributedDataParallel or FSDP2, and its optimizer."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = build(one)
    if one.training.sharding == "none":
        model = torch.nn.parallel.DistributedDataParallel(model)
        return model, optimizer_of(one, model)
    settings: dict[str, Any] = {
        "mesh": init_device_mesh("cpu", (one.training.world,)),
        "mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16 if one.training.dtype == "mixed" else None),
        "reshard_after_forward": one.training.sharding != "fsdp-grad-op",
    }
    for layer in model.model.layers:
        fully_shard(layer, **settings)
    fully_shard(model, **settings)
    return model, optimizer_of(one, model)


def main() -> None:
    """Print estimate, measurement and ratio of every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sharded", action="store_true", help="two processes under DDP and FSDP2, too")
    parser.add_argument("--quantized", action="store_true", help="QLoRA, too; needs bitsandbytes")
    parser.add_argument("--only", default="", help="cases with this text in their name")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for one in (*CASES, *(QUANTIZED if options.quantized else ()), *(SHARDED if options.sharded else ())):
        if options.only not in one.name:
            continue
        expected, seen = estimated(one), (measured_sharded(one) if one.training.world > 1 else measured(one))
        rows.append({"case": one.name, "estimated": expected, "measured": seen, "ratio": expected / seen})
        if not options.json:
            print(f"| {one.name} | {expected / 1e6:.1f} | {seen / 1e6:.1f} | {expected / seen:.3f} |", flush=True)
    if options.json:
        json.dump(rows, sys.stdout, indent=2)
        return
    ratios = sorted(row["ratio"] for row in rows)
    if ratios:
        print(f"\n{len(rows)} cases, estimate/measured from {ratios[0]:.3f} to {ratios[-1]:.3f}")


if __name__ == "__main__":
    main()
