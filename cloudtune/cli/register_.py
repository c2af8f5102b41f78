"""``cloudtune register``: file a model."""

from __future__ import annotations

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say


@click.command("register")
@click.argument("model")
@click.option("--to", default="folder", show_default=True, help="Registry: folder, hub, oci, sagemaker, bedrock.")
@click.option("--name", required=True, help="Name of the model; on the Hub with its owner, as OWNER/NAME.")
@click.option("--version", help="Version, on the Hub a tag; default: the next number.")
@click.option("--public/--private", default=False, help="Who may see it on the Hub.  [default: private]")
@click.option(
    "--infrastructure",
    metavar="FILE|PROFILE",
    help="In a cloud, whose it is: a profile or a job's file; on AWS the ARN of a role will do.",
)
@options.output("text", "json")
def command(
    model: str, to: str, name: str, version: str | None, public: bool, infrastructure: str | None, output: str
) -> None:
    """File a model under a name and a version, with its base, its run, its checksums and its metrics.

    MODEL is a folder, a URI, or NAME[:VERSION] of another registry. Interrupted, it goes on where it was when it is
    called again. The Hugging Face Hub wants a token that may write: HF_TOKEN, or ``hf auth login``. A cloud wants to
    know whose the model is: what trained it says so, or --infrastructure. Bedrock's import is looked at beforehand and
    followed to its end; then: cloudtune invoke NAME.
    """
    from cloudtune import verbs

    record = verbs.register(
        model, to=to, name=name, version=version, public=public, infrastructure=infrastructure, progress=say
    )
    if output == "json":
        options.emit(record.to_dict(), "json")
    else:
        click.echo(f"registered {record.name}:{record.version}", err=True)
        click.echo(record.uri)
