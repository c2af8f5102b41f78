"""Measures how fast the accelerators of several nodes add up a tensor: what gradients wait for in each step.

Started by torchrun on each node. It sums tensors of growing size over all processes, checks the sums, and prints a row
for each size: time, algorithm bandwidth, and bus bandwidth, which says how fast the slowest link was however many the
processes are (2 (n - 1) / n of the former, https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md).
It fails where a sum is wrong, or the largest size is slower than ``--least-gbps``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import torch
import torch.distributed as dist

MIB = 1 << 20


def main(argv: list[str] | None = None) -> int:
    """Measure, and return 1 if something was wrong or slow."""
    options = parser().parse_args(argv)
    with_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if with_gpu else torch.device("cpu")
    if with_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if with_gpu else "gloo", device_id=device if with_gpu else None)
    try:
        return report(device, options)
    finally:
        dist.destroy_process_group()


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    made.add_argument("--largest-mib", type=int, default=1024, help="size of the largest tensor, in MiB")
    made.add_argument("--rounds", type=int, default=20, help="sums that are timed for each size")
    made.add_argument("--least-gbps", type=float, default=0.0, help="fail below this bus bandwidth, in GB/s")
    return made


def report(device: torch.device, options: argparse.Namespace) -> int:
    """Print a row for each size on the first process; return 1 if something was wrong or slow."""
    rank, count = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        what = torch.cuda.get_device_name(device) if device.type == "cuda" else "processors"
        print(f"{count} processes on {what}, {dist.get_backend()}, torch {torch.__version__}")
        print(f"{'MiB':>8} {'ms':>10} {'algorithm GB/s':>15} {'bus GB/s':>10}")
    size, bus, right = min(1, options.largest_mib), 0.0, True
    while size <= options.largest_mib:
        took_s, sums_right = timed(size * MIB, device, options.rounds)
        right = right and sums_right
        speed = size * MIB / took_s / 1e9
        bus = speed * 2 * (count - 1) / count if count > 1 else speed
        if rank == 0:
            print(f"{size:8d} {took_s * 1e3:10.3f} {speed:15.2f} {bus:10.2f}", flush=True)
        size *= 4
    if rank == 0 and not right:
        print("a sum was wrong: the network or an accelerator is broken", file=sys.stderr)
    if rank == 0 and bus < options.least_gbps:
        print(f"the bus gave {bus:.2f} GB/s, and {options.least_gbps:g} were expected", file=sys.stderr)
    # all have measured the same: the slowest counts
    return 0 if right and bus >= options.least_gbps else 1


def timed(size: int, device: torch.device, rounds: int) -> tuple[float, bool]:
    """Return the seconds that a sum of so many bytes takes on the slowest process, and whether all sums were right."""
    count = dist.get_world_size()
    tensor = torch.full((size // 4,), float(dist.get_rank() + 1), device=device)
    dist.all_reduce(tensor)  # also makes the connections
    right = bool((tensor == count * (count + 1) / 2).all())
    tensor.zero_()
    wait(device)
    start = time.perf_counter()
    for _ in range(rounds):
        dist.all_reduce(tensor)
    wait(device)
    found = torch.tensor([(time.perf_counter() - start) / rounds, float(not right)], device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return found[0].item(), not found[1].item()


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given, and all have come here."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    dist.barrier()


if __name__ == "__main__":
    sys.exit(main())
