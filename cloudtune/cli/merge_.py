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
@click.option(
    "--weight",
    type=float,
    multiple=True,
    metavar="W",
    help="Factor of an adapter in the sum, default 1; repeat it: one for each adapter, in order.",
)
@click.option("--name", help="Name for the model card.")
@click.option(
    "--for",
    "for_",
    type=click.Choice(["bedrock", "vllm", "sagemaker", "oci"]),
    help="Where it is to go: configs are written as they are read there.",
)
@click.option("--checksums/--no-checksums", default=True, help="Record what each file hashes to; on by default.")
@click.option(
    "--notebook", is_flag=True, help="Merge by the package's notebook; its executed copy stays with the model."
)
def command(
    base: str,
    adapter: tuple[str, ...],
    place_and_form: tuple[str | None, str],
    mode: str,
    weight: tuple[float, ...],
    name: str | None,
    for_: str | None,
    checksums: bool,
    notebook: bool,
) -> None:
    """Merge LoRA adapters into their base model and write one Hugging Face model.

    BASE is a folder, a URI, a registered NAME[:VERSION] or a name on the Hub; ADAPTER a folder, a URI or a registered
    name. Nothing needs the model in memory, and one that was interrupted goes on where it was.

    \b
    cloudtune merge Qwen/Qwen3-0.6B outputs/adapter -o merged
    cloudtune merge base style facts --weight 0.7 --weight 0.3 -o merged
    """  # noqa: D301 - click wants the character itself
    from cloudtune import finishing
    from cloudtune.cli.meter import Meter

    output, form = place_and_form
    with Meter("writing") as meter:
        result = finishing.merge(
            base,
            adapter,
            output=output,
            mode=mode,
            weight=weight,
            name=name,
            for_=for_,
            checksums=checksums,
            notebook=notebook,
            progress=meter,
        )
    for note in result.notes:
        say(f"note: {note}")
    say(f"merged {', '.join(result.adapters)} into {result.base}")
    if form == "text":
        click.echo(result.path)
    else:
        import attrs

        options.emit(attrs.asdict(result), form)
