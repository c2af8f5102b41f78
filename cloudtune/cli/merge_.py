"""``cloudtune merge``: LoRA adapters into their base model."""

from __future__ import annotations

import click


@click.command("merge")
@click.argument("base")
@click.argument("adapter", nargs=-1, required=True)
@click.option("-o", "--output", metavar="DIR|URI", help="Where the model goes; inside a job: its outputs.")
@click.option(
    "--mode",
    type=click.Choice(["accurate", "peft"]),
    default="accurate",
    help="accurate keeps the adapter in fp32; peft rounds it to the base's dtype first.",
)
@click.option("--name", help="Name for the model card.")
def command(base: str, adapter: tuple[str, ...], output: str | None, mode: str, name: str | None) -> None:
    """Merge LoRA adapters into their base model and write one Hugging Face model."""
    from cloudtune import verbs

    result = verbs.merge(base, adapter, output=output, mode=mode, name=name)
    click.echo(f"merged {', '.join(adapter)} into {base}", err=True)
    click.echo(result.path)
