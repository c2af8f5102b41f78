"""``cloudtune estimate``: the memory of a training, from the model's config.json alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli import options

if TYPE_CHECKING:
    from cloudtune.memory.fit import Fit


#: When memory is fullest, as the estimate calls it and as people are told.
_MOMENTS = {
    "loss": "when the loss is computed",
    "backward": "early in the backward pass",
    "end": "late in the backward pass",
    "step": "in the optimizer's step",
}


#: Shapes that are listed without being asked for all.
_A_SCREEN = 12


@click.command("estimate")
@click.argument("model", required=False)
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="The job or pipeline whose training is meant.")
@click.option("--set", "set_", multiple=True, metavar="A.B=V", help="Set a key of the file; repeatable.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=V]", help="Set a variable of the job.")
@click.option("--infrastructure", metavar="FILE|PROFILE", help="The same job elsewhere.")
@click.option("--shape", metavar="NAME", help="Machine shape of a node; without it, shapes with GPUs are listed.")
@click.option("--cloud", type=click.Choice(["oci", "aws"]), help="List the shapes of this cloud only.")
@click.option("--nodes", type=click.IntRange(min=1), metavar="N", help="Nodes; default 1.")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="Processes a node; default: accelerators.")
@click.option("--method", type=click.Choice(["full", "lora", "qlora"]), help="What is trained; default lora.")
@click.option(
    "--dtype",
    type=click.Choice(["mixed", "bf16", "fp32"]),
    help="mixed (default) trains weights or adapters of 32 bits and computes in bf16; bf16 has nothing of 32 bits.",
)
@click.option("--sequence-length", type=click.IntRange(min=1), metavar="N", help="Tokens a row; default 1024.")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Rows a process and pass; default 4.")
@click.option("--lora-rank", type=click.IntRange(min=1), metavar="N", help="Rank of the adapters; default 16.")
@click.option("--optimizer", metavar="NAME", help="As transformers calls it; default adamw_torch.")
@click.option(
    "--sharding",
    type=click.Choice(["none", "zero1", "zero2", "zero3", "fsdp", "fsdp-hybrid", "fsdp-grad-op"]),
    help="How processes share weights and states; default: fsdp where a model fits in no other way.",
)
@click.option("--tensor-parallel", type=click.IntRange(min=1), metavar="N", help="Processes that share every layer.")
@click.option(
    "--gradient-checkpointing/--no-gradient-checkpointing",
    default=None,
    help="Compute activations again in the backward pass; default: on accelerators.",
)
@click.option(
    "--loss",
    type=click.Choice(["chunked", "whole"]),
    help="chunked (default), as TRL computes it; whole, as most scripts do, over all logits at once.",
)
@click.option("--all", "all_", is_flag=True, help="List every shape, also those that are too small.")
@options.output("text", "json", "yaml")
def command(
    model: str | None,
    file: str | None,
    set_: tuple[str, ...],
    env: tuple[str, ...],
    infrastructure: str | None,
    shape: str | None,
    cloud: str | None,
    nodes: int | None,
    processes: int | None,
    method: str | None,
    dtype: str | None,
    sequence_length: int | None,
    batch_size: int | None,
    lora_rank: int | None,
    optimizer: str | None,
    sharding: str | None,
    tensor_parallel: int | None,
    gradient_checkpointing: bool | None,
    loss: str | None,
    all_: bool,
    output: str,
) -> None:
    """Say what memory a training needs of each accelerator, and whether it fits: a job's, or a model's on a shape.

    Nothing is loaded: the model's config.json is enough. MODEL is a folder, a URI, a registered name or a name on the
    Hub. GB are of 2**30 bytes. What is not said is as recipe sft trains, or as the job has it.

    \b
    cloudtune estimate -f job.yaml                                      a job, or a pipeline's steps
    cloudtune estimate meta-llama/Llama-3.1-8B --method lora            on which shapes?
    cloudtune estimate Qwen/Qwen3-8B --method full --shape p5.48xlarge  term by term
    """  # noqa: D301 - click wants the character itself
    from cloudtune import verbs

    fits = verbs.estimate(
        model,
        file=file,
        set=set_,
        env=env,
        infrastructure=infrastructure,
        shape=shape,
        cloud=cloud,
        nodes=nodes,
        processes=processes,
        method=method,
        dtype=dtype,
        sequence_length=sequence_length,
        batch_size=batch_size,
        lora_rank=lora_rank,
        optimizer=optimizer,
        sharding=sharding,
        tensor_parallel=tensor_parallel,
        gradient_checkpointing=gradient_checkpointing,
        loss=loss,
    )
    if output != "text":
        options.emit([fit.to_dict() for fit in fits], output)
    elif model is not None and shape is None:
        _list(fits, whole=all_)
    else:
        for fit in fits:
            _show(fit)


def _list(fits: tuple[Fit, ...], *, whole: bool) -> None:
    """Print shapes, those that fit first and of these the smallest: as many as a screen holds, or all of them."""
    from cloudtune.cli.talk import say
    from cloudtune.display import table

    _introduce(fits[0])
    fitting = [fit for fit in fits if fit.verdict == "fits"]
    shown = fits if whole else (fitting or sorted(fits, key=lambda fit: -(fit.headroom or 0.0)))[:_A_SCREEN]
    rows = []
    for fit in shown:
        machine = fit.machine
        assert machine is not None
        have = f"{machine.number} x {machine.accelerator}"
        sharding = "" if fit.training.sharding == "none" else fit.training.sharding
        rows.append((machine.name, have, _gb(machine.memory), _gb(fit.estimate.total), sharding, fit.verdict))
    table(("shape", "accelerators", "GB each", "GB needed", "sharding", "verdict"), rows, empty="no shape is known")
    if not fitting:
        say(f"it fits on none of {len(fits)} shapes; more --nodes, or --method qlora, may help")
    if len(shown) < len(fits):
        larger, small = max(len(fitting) - len(shown), 0), len(fits) - len(fitting)
        told = [f"{larger} larger ones fit as well"] if larger else []
        told += [f"{small} are tight or too small"] if small and fitting else []
        say("; ".join([*told, "--all lists them all"]))
    say("one of them, term by term: add --shape NAME")


def _show(fit: Fit) -> None:
    """Print one estimate, term by term."""
    from cloudtune.display import table

    _introduce(fit)
    found, machine = fit.estimate, fit.machine
    rows = [(term, _gb(value)) for term, value in found.terms.items() if value >= 2**20]
    rows.append(("needed", _gb(found.total)))
    if machine is not None:
        rows.append(("there is", _gb(machine.memory)))
        rows.append(("left", _gb(machine.memory - found.total)))
    device = machine.device if machine is not None else "accelerator"
    table((f"GB of each {device}", _MOMENTS[found.moment]), rows, empty="")
    where = "" if machine is None else f" on {machine.name}"
    click.echo(f"{fit.verdict}{where}; give or take the error band: {_gb(found.least)} to {_gb(found.most)} GB")
    for advice in fit.advice():
        click.echo(f"  with {advice.change} it fits: {_gb(advice.total)} GB")


def _introduce(fit: Fit) -> None:
    """Say what is estimated."""
    from cloudtune.cli.talk import say
    from cloudtune.memory.adapters import trained_parameters

    training, model = fit.training, fit.estimate.model
    trained = trained_parameters(model, training)
    say(
        f"{fit.name + ': ' if fit.name else ''}{fit.model}: {model.parameters:,} parameters"
        + ("" if training.method == "full" else f", {training.method} trains {trained:,}")
    )
    words = [
        training.method,
        training.dtype,
        f"{training.batch_size} rows of {training.sequence_length} tokens",
        "gradient checkpointing" if training.gradient_checkpointing else "no gradient checkpointing",
        training.optimizer,
        f"{training.loss} loss",
    ]
    world = f"{training.nodes} x {training.processes_per_node} processes"
    say(", ".join([*words, world, *([training.sharding] if training.sharding != "none" else [])]))
    for note in fit.remarks:
        say(f"note: {note}")


def _gb(size: float) -> str:
    return f"{size / 2**30:.2f}"
