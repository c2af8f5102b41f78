"""Prove that an image can do what a fine-tuning job needs: train, meet over torchrun, save, load and merge.

Exits with 0 and one line a proof, or with the traceback of what is broken. Needs no network and under a minute.
"""

import os
import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 64


def tiny_model() -> LlamaForCausalLM:
    """Return a Llama of some thousand random weights, the same every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def train(model: torch.nn.Module, tokens: torch.Tensor, steps: int) -> tuple[float, float]:
    """Train on one batch and return the first and the last loss."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses[0], losses[-1]


def as_rank() -> None:
    """Train as one of the processes of torchrun and check that all of them hold the same weights."""
    dist.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(tiny_model())
    torch.manual_seed(dist.get_rank())
    train(model, torch.randint(VOCABULARY, (4, 16)), 3)
    own = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    first = own.clone()
    dist.broadcast(first, 0)
    assert torch.equal(own, first), "the ranks have drifted apart"
    del model  # freed after the group, it would wait for gloo's thread, which may wait for the interpreter's lock
    dist.destroy_process_group()


def free_port() -> int:
    """Return a port that nobody uses now, and that the kernel gives to nobody: seconds pass until it is taken."""
    for port in random.sample(range(10_000, 20_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("this machine has no free port")


def main() -> None:
    """Run all proofs."""
    if "RANK" in os.environ:
        as_rank()
        os._exit(0)  # a thread of Gloo may outlive its group, and aborts where Python is going: pytorch#179291
    torch.manual_seed(1)
    tokens = torch.randint(VOCABULARY, (4, 16))
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    model = get_peft_model(tiny_model(), lora)
    before, after = train(model, tokens, 20)
    assert after < before, f"the loss went from {before:.3f} to {after:.3f}"
    print(f"trains: loss {before:.3f} -> {after:.3f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder / "adapter")
        loaded = PeftModel.from_pretrained(tiny_model(), folder / "adapter").eval()
        with torch.no_grad():
            apart = loaded(input_ids=tokens).logits
            merged = loaded.merge_and_unload()(input_ids=tokens).logits
    assert torch.allclose(apart, merged, atol=1e-4), "the merged model answers differently"
    print("saves, loads and merges an adapter: same answers")
    local = ["--nnodes", "1", "--node-rank", "0", "--master-addr", "127.0.0.1", "--local-addr", "127.0.0.1"]
    launcher = [sys.executable, "-m", "torch.distributed.run", *local, "--master-port", str(free_port())]
    command = [*launcher, "--nproc-per-node", "2", __file__]
    subprocess.run(command, check=True, timeout=240, stderr=subprocess.STDOUT)
    print("meets over torchrun: 2 processes, same weights")


if __name__ == "__main__":
    main()
