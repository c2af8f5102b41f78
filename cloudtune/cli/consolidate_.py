"""``cloudtune consolidate``: a sharded checkpoint into one model."""

from __future__ import annotations

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say


@click.command("consolidate")
@click.argument("checkpoint")
@click.option(
    "--base", metavar="MODEL", help="The model that was trained: a folder, a URI, a registered name or one on the Hub."
)
@options.place_or_form(
    "Folder or URI for the model, inside a job its outputs; text, json and yaml are forms of the answer."
)
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="Precision to round to, instead of that of the checkpoint.",
)
@click.option("--name", help="Name for the model card.")
@click.option(
    "--checksums/--no-checksums",
    default=False,
    help="Record what each file hashes to; off by default, for it takes longer than all the rest.",
)
def command(
    checkpoint: str,
    base: str | None,
    place_and_form: tuple[str | None, str],
    dtype: str | None,
    name: str | None,
    checksums: bool,
) -> None:
    """Make one Hugging Face model, or one adapter of PEFT, of a sharded checkpoint.

    CHECKPOINT is a folder, a URI or a registered name of what training left: PyTorch's .distcp files (FSDP, also of
    accelerate, the Trainer and llama-recipes), optimum-neuron's shards, or a state dict of torch.save. Nothing in it is
    executed; interrupted, it goes on where it was.
    """
    from cloudtune import finishing
    from cloudtune.cli.meter import Meter

    output, form = place_and_form
    with Meter("writing") as meter:
        result = finishing.consolidate(
            checkpoint, base=base, output=output, dtype=dtype, name=name, checksums=checksums, progress=meter
        )
    for note in result.notes:
        say(f"note: {note}")
    say(f"consolidated {result.tensors} tensors of {result.checkpoint}: {result.layout}")
    if form == "text":
        click.echo(result.path)
    else:
        import attrs

        options.emit(attrs.asdict(result), form)
