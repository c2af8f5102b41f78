"""``cloudtune deploy``: serve a model."""

from __future__ import annotations

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say


@click.command("deploy")
@click.argument("model")
@click.option("--to", default="local", show_default=True, help="Place: local, oci, sagemaker.")
@click.option("--name", help="Name of the deployment; default: the model's.")
@click.option("--shape", help="Machine shape, in a cloud.")
@click.option("--image", help="Image with vLLM, in a cloud; default: the service's own.")
@click.option("--replicas", type=click.IntRange(min=1), metavar="N", help="Machines, in a cloud; default: one.")
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens of a prompt and its answer, in a cloud; default: the model's.",
)
@click.option(
    "--infrastructure", metavar="FILE|PROFILE", help="In a cloud, network and logs: a profile or a job's file."
)
@options.output("text", "json")
def command(
    model: str,
    to: str,
    name: str | None,
    shape: str | None,
    image: str | None,
    replicas: int | None,
    max_length: int | None,
    infrastructure: str | None,
    output: str,
) -> None:
    """Serve a model with an OpenAI-compatible API; returns once it answers.

    MODEL is NAME or NAME:VERSION of a registered model, or a folder. A cloud serves models of its own catalog,
    SageMaker also what lies at a prefix of S3. It takes some minutes; interrupted, it goes on, and the same call again
    goes on with it.
    """
    from cloudtune import verbs

    deployment = verbs.deploy(
        model,
        to=to,
        name=name,
        shape=shape,
        image=image,
        replicas=replicas,
        max_length=max_length,
        infrastructure=infrastructure,
        progress=say,
    )
    if output == "json":
        import attrs

        options.emit(attrs.asdict(deployment), "json")
    else:
        say(f"{deployment.name} answers at {deployment.url}")
        say(f'  ask it: cloudtune invoke {deployment.name} "..."   end it: cloudtune delete {deployment.name}')
