"""``cloudtune merge``: LoRA adapters into their base model."""

from __future__ import annotations

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say


@click.command("merge")
@click.argument("base")
@click.argument("adapter", nargs=-1, required=True)
@options.place_or_form(
    "Folder or URI for the model, inside a job its outputs; text, json and yaml are forms of the answer."
)
@click.option(
    "--mode",
    type=click.Choice(["accurate", "peft"]),
    default="accurate",
    help="accurate keeps the adapter in fp32; peft rounds it to the base's dtype first.",
)
@click.option("--name", help="Name for the model card.")
def command(
    base: str, adapter: tuple[str, ...], place_and_form: tuple[str | None, str], mode: str, name: str | None
) -> None:
    """Merge LoRA adapters into their base model and write one Hugging Face model."""
    from cloudtune import verbs

    output, form = place_and_form
    result = verbs.merge(base, adapter, output=output, mode=mode, name=name)
    say(f"merged {', '.join(adapter)} into {base}")
    if form == "text":
        click.echo(result.path)
    else:
        import attrs

        options.emit(attrs.asdict(result), form)
